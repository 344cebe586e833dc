//! Frames as bytes. Offsets are public, so that a test can break one field and nothing else.

use std::net::{IpAddr, SocketAddr};

/// 802.1Q and 802.1ad tags.
pub(crate) const VLAN: u16 = 0x8100;
pub(crate) const SERVICE_VLAN: u16 = 0x88a8;

pub(crate) const RTP: &[u8] = &[0x80, 0, 0, 1, 0, 0, 0, 160, 1, 2, 3, 4, 0x55, 0x55];
pub(crate) const RTCP: &[u8] = &[0x80, 201, 0, 1, 1, 2, 3, 4];

/// A UDP packet in an Ethernet frame.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) tags: Vec<u16>,
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// Both addresses must be of one family.
    pub(crate) fn new(source: &str, destination: &str, payload: &[u8]) -> Self {
        Self {
            tags: Vec::new(),
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            payload: payload.to_vec(),
        }
    }

    pub(crate) fn tagged(mut self, tags: &[u16]) -> Self {
        self.tags = tags.to_vec();
        self
    }

    /// Where the IP header begins.
    pub(crate) fn ip_at(&self) -> usize {
        14 + 4 * self.tags.len()
    }

    /// Where the UDP header begins.
    pub(crate) fn udp_at(&self) -> usize {
        self.ip_at() + if self.destination.is_ipv4() { 20 } else { 40 }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        for tag in &self.tags {
            bytes.extend(tag.to_be_bytes());
            bytes.extend([0, 7]);
        }
        let udp_length = u16::try_from(8 + self.payload.len()).unwrap();
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                bytes.extend([0x08, 0x00, 0x45, 0]);
                bytes.extend((20 + udp_length).to_be_bytes());
                bytes.extend([0, 1, 0, 0, 64, 17, 0, 0]);
                bytes.extend(source.octets());
                bytes.extend(destination.octets());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                bytes.extend(udp_length.to_be_bytes());
                bytes.extend([17, 64]);
                bytes.extend(source.octets());
                bytes.extend(destination.octets());
            }
            families => panic!("{families:?}"),
        }
        bytes.extend(self.source.port().to_be_bytes());
        bytes.extend(self.destination.port().to_be_bytes());
        bytes.extend(udp_length.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(&self.payload);
        bytes
    }

    /// The frame with other bytes at an offset.
    pub(crate) fn with(&self, at: usize, other: &[u8]) -> Vec<u8> {
        let mut bytes = self.bytes();
        bytes[at..at + other.len()].copy_from_slice(other);
        bytes
    }
}
