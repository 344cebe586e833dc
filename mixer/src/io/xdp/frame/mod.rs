//! Frames: what came in, taken apart; what goes out, from a template.
//!
//! Ethernet II with up to two VLAN tags, IPv4 without options or IPv6 without extension headers, UDP.
//! The XDP program lets nothing else through; what is read here is checked all the same.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use mixer_engine::packet::Filled;
use mixer_engine::wire::checksum;

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Whether it names one station (IEEE 802.3: neither multicast nor broadcast, nor all zeroes).
    pub(super) fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }
}

/// VLAN tags, outermost first, as in the frame: type and control information.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tags {
    count: u8,
    tags: [[u8; 4]; 2],
}

impl Tags {
    /// Adds a tag inside of those that are there; false when there are two already.
    pub(super) fn push(&mut self, ether_type: u16, identifier: u16) -> bool {
        let [type_high, type_low] = ether_type.to_be_bytes();
        let [high, low] = (identifier & 0x0fff).to_be_bytes();
        match self.tags.get_mut(usize::from(self.count)) {
            Some(place) => {
                *place = [type_high, type_low, high, low];
                self.count += 1;
                true
            }
            None => false,
        }
    }

    /// A stack of VLANs, outermost first: one customer tag, or a service and a customer tag
    /// (IEEE 802.1ad). `None` for more than two.
    #[must_use]
    pub fn of(identifiers: &[u16]) -> Option<Self> {
        let mut tags = Self::default();
        match identifiers {
            [] => {}
            [only] => {
                let _ = tags.push(VLAN, *only);
            }
            [outer, inner] => {
                let _ = tags.push(SERVICE_VLAN, *outer) && tags.push(VLAN, *inner);
            }
            [_, _, _, ..] => return None,
        }
        Some(tags)
    }

    fn bytes(&self) -> &[u8] {
        self.tags[..usize::from(self.count)].as_flattened()
    }
}

/// Where a frame came from on its link: enough to answer it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// Its sender's station.
    pub mac: Mac,
    /// Its VLAN tags.
    pub tags: Tags,
}

/// A UDP datagram in a frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Received<'a> {
    pub(super) origin: Origin,
    pub(super) source: SocketAddr,
    pub(super) local_port: u16,
    pub(super) payload: &'a [u8],
}

/// Why a frame is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// Not what it says, or not for us.
    Malformed,
    /// The UDP checksum does not hold.
    Checksum,
}

/// Takes a frame apart.
#[inline]
pub(super) fn parse(frame: &[u8]) -> Result<Received<'_>, Refused> {
    parse_link(frame).ok_or(Refused::Malformed)?
}

/// The port that a frame goes to, unchecked: for who wants to know early.
#[inline]
pub(super) fn local_port(frame: &[u8]) -> Option<u16> {
    let word = |at: usize| Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]));
    let untagged = |at: &usize| !matches!(word(*at), Some(VLAN | SERVICE_VLAN));
    let kind_at = [12, 16, 20].into_iter().find(untagged)?;
    match word(kind_at)? {
        IPV4 => word(kind_at + 24),
        IPV6 => word(kind_at + 44),
        _ => None,
    }
}

#[inline]
fn parse_link(frame: &[u8]) -> Option<Result<Received<'_>, Refused>> {
    let (addresses, mut rest) = frame.split_first_chunk::<12>()?;
    let mut mac = [0; 6];
    mac.copy_from_slice(&addresses[6..]);
    let mut tags = Tags::default();
    let mut ether_type;
    loop {
        let (kind, after) = rest.split_first_chunk::<2>()?;
        ether_type = u16::from_be_bytes(*kind);
        rest = after;
        if !matches!(ether_type, VLAN | SERVICE_VLAN) {
            break;
        }
        let (control, after) = rest.split_first_chunk::<2>()?;
        // Priority and drop eligibility are the sender's; an answer carries the VLAN alone.
        if !tags.push(ether_type, u16::from_be_bytes(*control)) {
            return None;
        }
        rest = after;
    }
    let origin = Origin { mac: Mac(mac), tags };
    match ether_type {
        IPV4 => parse_ipv4(origin, rest),
        IPV6 => parse_ipv6(origin, rest),
        _ => None,
    }
}

#[inline]
fn parse_ipv4(origin: Origin, packet: &[u8]) -> Option<Result<Received<'_>, Refused>> {
    let header: &[u8; 20] = packet.first_chunk()?;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff;
    if header[0] != 0x45 || header[9] != UDP || fragment != 0 {
        return None;
    }
    let datagram = packet.get(20..total)?;
    let source = IpAddr::V4(Ipv4Addr::new(header[12], header[13], header[14], header[15]));
    parse_udp(origin, source, checksum::add(0, &header[12..20]), datagram)
}

#[inline]
fn parse_ipv6(origin: Origin, packet: &[u8]) -> Option<Result<Received<'_>, Refused>> {
    let header: &[u8; 40] = packet.first_chunk()?;
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    if header[0] >> 4 != 6 || header[6] != UDP {
        return None;
    }
    let datagram = packet.get(40..40 + length)?;
    let mut source = [0; 16];
    source.copy_from_slice(&header[8..24]);
    let source = IpAddr::V6(Ipv6Addr::from(source));
    parse_udp(origin, source, checksum::add(0, &header[8..40]), datagram)
}

/// `addresses` is the sum of both IP addresses.
#[inline]
fn parse_udp(
    origin: Origin,
    source: IpAddr,
    addresses: u64,
    datagram: &[u8],
) -> Option<Result<Received<'_>, Refused>> {
    let header: &[u8; 8] = datagram.first_chunk()?;
    let length = u16::from_be_bytes([header[4], header[5]]);
    // RFC 768: the length counts the header. RFC 2675's zero is for jumbograms.
    let payload = datagram.get(8..usize::from(length))?;
    // RFC 768: zero means that there is none; RFC 8200 8.1 forbids that on IPv6.
    let unchecked = header[6..] == [0, 0];
    if !(unchecked && source.is_ipv4()) {
        let pseudo = checksum::add_u16(checksum::add_u16(addresses, u16::from(UDP)), length);
        let sum = checksum::add(checksum::add(pseudo, header), payload);
        if unchecked || !checksum::is_whole(sum) {
            return Some(Err(Refused::Checksum));
        }
    }
    Some(Ok(Received {
        origin,
        source: SocketAddr::new(source, u16::from_be_bytes([header[0], header[1]])),
        local_port: u16::from_be_bytes([header[2], header[3]]),
        payload,
    }))
}

/// Everything of an outgoing frame but its payload, and the sums of what does not change.
#[derive(Debug, Clone, Copy)]
pub(super) struct Template {
    bytes: [u8; HEADERS_MAX],
    /// Bytes in use.
    length: u8,
    /// Where the IP header begins.
    network: u8,
    is_ipv4: bool,
    /// Sum of the IPv4 header without total length.
    header_sum: u64,
    /// Sum of pseudo header and UDP header without both lengths.
    datagram_sum: u64,
}

/// The link part of a way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Our own station.
    pub source: Mac,
    /// The next hop's.
    pub destination: Mac,
    /// VLAN tags to write.
    pub tags: Tags,
}

impl Template {
    /// Headers from `local` to `remote` over `link`; absent when the families differ.
    ///
    /// `traffic_class` is the whole octet: DSCP in its upper six bits.
    pub(super) fn new(link: Link, local: SocketAddr, remote: SocketAddr, traffic_class: u8) -> Option<Self> {
        let mut bytes = [0; HEADERS_MAX];
        let mut at = 0;
        let mut put = |part: &[u8]| {
            bytes[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        };
        put(&link.destination.0);
        put(&link.source.0);
        put(link.tags.bytes());
        let network = 14 + 4 * link.tags.count;
        let (addresses, is_ipv4) = match (local.ip(), remote.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                put(&IPV4.to_be_bytes());
                // Version and length, total length later, identification 0 with "don't fragment"
                // (RFC 6864 4.1), checksum later.
                put(&[0x45, traffic_class, 0, 0, 0, 0, 0x40, 0, HOPS, UDP, 0, 0]);
                put(&from.octets());
                put(&to.octets());
                (
                    checksum::add(checksum::add(0, &from.octets()), &to.octets()),
                    true,
                )
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                put(&IPV6.to_be_bytes());
                put(&[
                    0x60 | traffic_class >> 4,
                    traffic_class << 4,
                    0,
                    0,
                    0,
                    0,
                    UDP,
                    HOPS,
                ]);
                put(&from.octets());
                put(&to.octets());
                (
                    checksum::add(checksum::add(0, &from.octets()), &to.octets()),
                    false,
                )
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
        };
        put(&local.port().to_be_bytes());
        put(&remote.port().to_be_bytes());
        put(&[0; 4]);
        let sum = [local.port(), remote.port(), u16::from(UDP)];
        let datagram_sum = sum.into_iter().fold(addresses, checksum::add_u16);
        let header = &bytes[usize::from(network)..usize::from(network) + 20];
        Some(Self {
            header_sum: if is_ipv4 { checksum::add(0, header) } else { 0 },
            length: u8::try_from(at).ok()?,
            bytes,
            network,
            is_ipv4,
            datagram_sum,
        })
    }

    /// Writes the headers before the payload that `fill` writes; returns the length of the frame.
    /// `chunk` is at least [`HEADERS_MAX`] + `payload_max` long. A payload of more than
    /// `payload_max` bytes is cut.
    #[inline]
    pub(super) fn write<F: Into<Filled>>(
        &self,
        chunk: &mut [u8],
        payload_max: usize,
        fill: impl FnOnce(&mut [u8]) -> F,
    ) -> u32 {
        let length = usize::from(self.length);
        let (headers, rest) = chunk.split_at_mut(length);
        headers.copy_from_slice(&self.bytes[..length]);
        let room = payload_max.min(rest.len());
        let filled = fill(&mut rest[..room]).into();
        let payload_length = filled.length.min(room);
        #[expect(clippy::cast_possible_truncation, reason = "below the size of a chunk")]
        let datagram_length = payload_length as u16 + 8;
        let network = usize::from(self.network);
        if self.is_ipv4 {
            let total = datagram_length + 20;
            headers[network + 2..network + 4].copy_from_slice(&total.to_be_bytes());
            let sum = checksum::finish(checksum::add_u16(self.header_sum, total));
            headers[network + 10..network + 12].copy_from_slice(&sum);
        } else {
            headers[network + 4..network + 6].copy_from_slice(&datagram_length.to_be_bytes());
        }
        headers[length - 4..length - 2].copy_from_slice(&datagram_length.to_be_bytes());
        // The length is in the pseudo header and in the header.
        let sum = checksum::add_u16(
            checksum::add_u16(self.datagram_sum, datagram_length),
            datagram_length,
        );
        let sum = match checksum::finish(filled.add_to(sum, &rest[..payload_length])) {
            // RFC 768: zero means that there is no checksum, and is sent as its equal.
            [0, 0] => [0xff, 0xff],
            sum => sum,
        };
        headers[length - 2..].copy_from_slice(&sum);
        #[expect(clippy::cast_possible_truncation, reason = "below the size of a chunk")]
        let frame_length = (length + payload_length) as u32;
        frame_length
    }
}

/// Ethernet, two tags, IPv6 and UDP.
pub(super) const HEADERS_MAX: usize = 14 + 8 + 40 + 8;
/// IEEE 802.1Q: customer tag.
pub(super) const VLAN: u16 = 0x8100;
/// IEEE 802.1ad: service tag.
pub(super) const SERVICE_VLAN: u16 = 0x88a8;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const UDP: u8 = 17;
/// Time to live, or hop limit.
const HOPS: u8 = 64;

#[cfg(test)]
mod tests;
