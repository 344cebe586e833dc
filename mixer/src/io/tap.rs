//! A wrapper over any packet I/O that writes what passes to a capture file (pcap, raw IP).
//!
//! For the lab: it writes on the worker's own thread, so the rule that a turn makes no system calls
//! but those of packet I/O does not hold under it. A failing writer ends the capture, not the worker.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};

use mixer_engine::packet::{Datagram, Filled, FlowId, PacketSink};
use mixer_engine::time::Timestamp;

use super::{Intake, IoCounters, OpenFlow, PacketIo};

/// Packet I/O with a capture file.
#[derive(Debug)]
pub struct Tap<Io, W> {
    inner: Io,
    /// `None` once writing has failed.
    capture: Option<Capture<W>>,
    /// Local and remote address by flow; grows when a flow is opened.
    flows: Vec<Option<(SocketAddr, Option<SocketAddr>)>>,
    now: Timestamp,
}

impl<Io: PacketIo, W: Write> Tap<Io, W> {
    /// Begins a capture of everything `inner` receives and transmits.
    ///
    /// # Errors
    /// What the writer says about the file header.
    pub fn new(inner: Io, writer: W) -> io::Result<Self> {
        let capture = Some(Capture::begin(writer)?);
        Ok(Self {
            inner,
            capture,
            flows: Vec::new(),
            now: Timestamp(0),
        })
    }

    /// Ends the capture and gives back the packet I/O and, unless writing has failed, the writer.
    pub fn into_parts(self) -> (Io, Option<W>) {
        (self.inner, self.capture.map(|capture| capture.writer))
    }

    /// Whether everything so far is in the file.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.capture.is_some()
    }

    /// Local address of a port.
    fn local(&self, port: u16) -> Option<SocketAddr> {
        let open = |flow: &Option<(SocketAddr, _)>| flow.filter(|(local, _)| local.port() == port);
        self.flows.iter().find_map(open).map(|(local, _)| local)
    }

    fn record(&mut self, from: SocketAddr, to: SocketAddr, payload: &[u8]) {
        if let Some(capture) = &mut self.capture
            && capture.write(self.now, from, to, payload).is_err()
        {
            self.capture = None;
        }
    }
}

impl<Io: PacketIo, W: Write> PacketSink for Tap<Io, W> {
    const SUMS: bool = Io::SUMS;

    fn transmit<F: Into<Filled>>(&mut self, flow: FlowId, fill: impl FnOnce(&mut [u8]) -> F) -> bool {
        let mut copy = Vec::new();
        let taken = self.inner.transmit(flow, |buffer| {
            let filled = fill(buffer).into();
            copy.extend_from_slice(&buffer[..filled.length.min(buffer.len())]);
            filled
        });
        let addresses = self.flows.get(flow.0 as usize).copied().flatten();
        if let (true, Some((local, Some(remote)))) = (taken, addresses) {
            self.record(local, remote, &copy);
        }
        taken
    }

    fn set_remote(&mut self, flow: FlowId, remote: SocketAddr) {
        if let Some(Some((_, to))) = self.flows.get_mut(flow.0 as usize) {
            *to = Some(remote);
        }
        self.inner.set_remote(flow, remote);
    }

    fn is_muted(&self) -> bool {
        self.inner.is_muted()
    }
}

impl<Io: PacketIo, W: Write> PacketIo for Tap<Io, W> {
    type Prepared = Io::Prepared;

    fn now(&mut self) -> Timestamp {
        self.now = self.inner.now();
        self.now
    }

    fn receive_into(&mut self, budget: u32, intake: &mut impl Intake) -> u32 {
        let mut copies = Vec::new();
        let taken = self.inner.receive(budget, |datagram| {
            copies.push((datagram.source, datagram.local_port, datagram.payload.to_vec()));
            intake.take(datagram);
        });
        for (source, port, payload) in copies {
            if let Some(local) = self.local(port) {
                self.record(source, local, &payload);
            }
        }
        taken
    }

    fn open_flow(
        &mut self,
        flow: FlowId,
        local: SocketAddr,
        prepared: Self::Prepared,
    ) -> Result<(), Self::Prepared> {
        self.inner.open_flow(flow, local, prepared)?;
        let place = flow.0 as usize;
        if self.flows.len() <= place {
            self.flows.resize(place + 1, None);
        }
        self.flows[place] = Some((local, None));
        Ok(())
    }

    fn close_flow(&mut self, flow: FlowId) -> Option<Self::Prepared> {
        if let Some(known) = self.flows.get_mut(flow.0 as usize) {
            *known = None;
        }
        self.inner.close_flow(flow)
    }

    fn poll_closed(&mut self) -> Option<Self::Prepared> {
        self.inner.poll_closed()
    }

    fn flush(&mut self) {
        self.inner.flush();
    }

    fn wait(&mut self, until: Timestamp) -> bool {
        self.inner.wait(until)
    }

    fn counters(&self) -> IoCounters {
        self.inner.counters()
    }

    fn hand_over(&mut self, mut on_datagram: impl FnMut(&Datagram<'_>)) -> Vec<OpenFlow<Io::Prepared>> {
        let Self { inner, .. } = self;
        inner.hand_over(|datagram| on_datagram(datagram))
    }
}

/// A pcap file with nanoseconds and link type "raw IP".
#[derive(Debug)]
struct Capture<W> {
    writer: W,
}

impl<W: Write> Capture<W> {
    fn begin(mut writer: W) -> io::Result<Self> {
        let header: [u32; 6] = [MAGIC_NANOSECONDS, VERSION_2_4, 0, 0, SNAP_LENGTH, LINK_RAW];
        for word in header {
            writer.write_all(&word.to_le_bytes())?;
        }
        Ok(Self { writer })
    }

    fn write(&mut self, at: Timestamp, from: SocketAddr, to: SocketAddr, payload: &[u8]) -> io::Result<()> {
        let too_long = |_| io::Error::from(io::ErrorKind::InvalidInput);
        let udp_length = u16::try_from(payload.len() + UDP_HEADER).map_err(too_long)?;
        let mut packet = Vec::with_capacity(usize::from(udp_length) + IPV6_HEADER);
        let checksum = ip_header(&mut packet, from.ip(), to.ip(), udp_length);
        packet.extend(from.port().to_be_bytes());
        packet.extend(to.port().to_be_bytes());
        packet.extend(udp_length.to_be_bytes());
        packet.extend(udp_checksum(checksum, from.port(), to.port(), udp_length, payload).to_be_bytes());
        packet.extend_from_slice(payload);
        let length = u32::try_from(packet.len()).map_err(too_long)?;
        let whole = u32::try_from(at.0 / NANOSECONDS).unwrap_or(u32::MAX);
        let rest = u32::try_from(at.0 % NANOSECONDS).unwrap_or(0);
        for word in [whole, rest, length, length] {
            self.writer.write_all(&word.to_le_bytes())?;
        }
        self.writer.write_all(&packet)
    }
}

/// Writes an IPv4 (RFC 791 3.1) or IPv6 header (RFC 8200 3) and returns the sum of the addresses for
/// the checksum of UDP. A pair of mixed families is written as IPv6 with a mapped address.
fn ip_header(packet: &mut Vec<u8>, from: IpAddr, to: IpAddr, udp_length: u16) -> u32 {
    let (from, to): (Vec<u8>, Vec<u8>) = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let total = udp_length + 20;
            packet.extend([0x45, 0]);
            packet.extend(total.to_be_bytes());
            // Identification 0, do not fragment, 64 hops, UDP, checksum to come.
            packet.extend([0, 0, 0x40, 0, 64, UDP, 0, 0]);
            packet.extend(from.octets());
            packet.extend(to.octets());
            let checksum = !fold(sum(&packet[..20]));
            packet[10..12].copy_from_slice(&checksum.to_be_bytes());
            (from.octets().to_vec(), to.octets().to_vec())
        }
        (from, to) => {
            let octets = |ip: IpAddr| match ip {
                IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
                IpAddr::V6(ip) => ip.octets(),
            };
            packet.extend([0x60, 0, 0, 0]);
            packet.extend(udp_length.to_be_bytes());
            packet.extend([UDP, 64]);
            packet.extend(octets(from));
            packet.extend(octets(to));
            (octets(from).to_vec(), octets(to).to_vec())
        }
    };
    sum(&from) + sum(&to)
}

/// RFC 768: a sum of zero is sent as all ones.
fn udp_checksum(addresses: u32, from: u16, to: u16, length: u16, payload: &[u8]) -> u16 {
    let header = u32::from(UDP) + 2 * u32::from(length) + u32::from(from) + u32::from(to);
    match !fold(addresses + header + sum(payload)) {
        0 => u16::MAX,
        checksum => checksum,
    }
}

/// Sum of big-endian 16-bit words (RFC 1071); cannot overflow for a datagram.
fn sum(bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<2>();
    let words: u32 = words
        .iter()
        .map(|&word| u32::from(u16::from_be_bytes(word)))
        .sum();
    words + rest.first().map_or(0, |&last| u32::from(last) << 8)
}

#[expect(clippy::cast_possible_truncation, reason = "both halves are added first")]
fn fold(sum: u32) -> u16 {
    let once = (sum & 0xFFFF) + (sum >> 16);
    (once + (once >> 16)) as u16
}

const MAGIC_NANOSECONDS: u32 = 0xA1B2_3C4D;
const VERSION_2_4: u32 = 4 << 16 | 2;
const SNAP_LENGTH: u32 = 65_535;
const LINK_RAW: u32 = 101;
const NANOSECONDS: u64 = 1_000_000_000;
const UDP: u8 = 17;
const UDP_HEADER: usize = 8;
const IPV6_HEADER: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::sim::{SimConfig, SimNet, SimPrepared};

    fn word(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    /// Captures one datagram each way between `local` and `remote`.
    fn capture(local: &str, remote: &str) -> Vec<u8> {
        let (local, remote) = (local.parse().unwrap(), remote.parse().unwrap());
        let net = SimNet::new(&SimConfig::default());
        let mut tap = Tap::new(net.attach(2), Vec::new()).unwrap();
        tap.open_flow(FlowId(1), local, SimPrepared(local)).unwrap();
        tap.wait(Timestamp(3_000_000_007));
        tap.now();
        net.peer_send(remote, local, b"question");
        assert_eq!(
            tap.receive(9, |datagram| assert_eq!(datagram.payload, b"question")),
            1
        );
        assert!(
            !tap.transmit(FlowId(1), |_| 3),
            "no remote address: not sent, not written"
        );
        tap.set_remote(FlowId(1), remote);
        assert!(tap.transmit(FlowId(1), |buffer| {
            buffer[..3].copy_from_slice(b"yes");
            3
        }));
        tap.flush();
        assert!(tap.is_whole());
        assert_eq!(tap.counters().sent, 1);
        assert!(tap.close_flow(FlowId(1)).is_some());
        let (_, file) = tap.into_parts();
        file.unwrap()
    }

    #[test]
    fn ipv4_packets_are_whole_and_their_checksums_right() {
        let file = capture("192.0.2.9:10000", "192.0.2.1:4000");
        assert_eq!(word(&file, 0), 0xA1B2_3C4D);
        assert_eq!((word(&file, 20), word(&file, 24), word(&file, 28)), (101, 3, 7));
        let first = word(&file, 32) as usize;
        assert_eq!(first, 20 + 8 + 8);
        let packet = &file[40..40 + first];
        // RFC 1071: the sum over a header with its checksum is all ones.
        assert_eq!(fold(sum(&packet[..20])), 0xFFFF);
        let pseudo = sum(&packet[12..20]) + 17 + 16;
        assert_eq!(fold(pseudo + sum(&packet[20..])), 0xFFFF);
        assert_eq!(&packet[12..20], [192, 0, 2, 1, 192, 0, 2, 9]);
        assert_eq!(
            &packet[20..24],
            [4_000u16.to_be_bytes(), 10_000u16.to_be_bytes()].concat()
        );
        assert_eq!(&packet[28..], b"question");
        let second = &file[40 + first + 16..];
        assert_eq!(&second[12..20], [192, 0, 2, 9, 192, 0, 2, 1]);
        assert_eq!(&second[28..], b"yes");
    }

    #[test]
    fn ipv6_packets_too() {
        let file = capture("[2001:db8::9]:10000", "[2001:db8::1]:4000");
        let packet = &file[40..40 + 40 + 8 + 8];
        assert_eq!((packet[0] >> 4, packet[6]), (6, 17));
        let pseudo = sum(&packet[8..40]) + 17 + 16;
        assert_eq!(fold(pseudo + sum(&packet[40..])), 0xFFFF);
        assert_eq!(&packet[48..], b"question");
    }

    /// Takes the file header and nothing more.
    struct Full(usize);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self
                .0
                .checked_sub(bytes.len())
                .ok_or(io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_ends_the_capture_and_nothing_else() {
        let net = SimNet::new(&SimConfig::default());
        let mut tap = Tap::new(net.attach(1), Full(24)).unwrap();
        let (local, remote) = ("192.0.2.9:10000".parse().unwrap(), "192.0.2.1:1".parse().unwrap());
        tap.open_flow(FlowId(0), local, SimPrepared(local)).unwrap();
        tap.set_remote(FlowId(0), remote);
        assert!(tap.transmit(FlowId(0), |_| 20));
        assert!(!tap.is_whole());
        assert!(tap.transmit(FlowId(0), |_| 20));
        assert_eq!(net.counters().from_workers, 2);
    }
}
