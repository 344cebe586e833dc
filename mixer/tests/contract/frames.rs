//! Frames as another stack would write and read them: written a second time, on purpose, so that what
//! the backend makes is judged by code that shares nothing with it.

use std::net::{IpAddr, SocketAddr};

pub(super) const OURS: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(super) const PEER: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// The Internet checksum, word by word (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn pseudo(from: IpAddr, to: IpAddr, datagram: &[u8]) -> Vec<u8> {
    let mut bytes = [octets(from), octets(to)].concat();
    let length = u32::try_from(datagram.len()).unwrap();
    bytes.extend(length.to_be_bytes());
    bytes.extend([0, 0, 0, 17]);
    bytes.extend(datagram);
    bytes
}

/// A frame from the peer to us.
pub(super) fn compose(vlan: Option<u16>, from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::new();
    datagram.extend(from.port().to_be_bytes());
    datagram.extend(to.port().to_be_bytes());
    datagram.extend(u16::try_from(payload.len() + 8).unwrap().to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    let sum = match checksum(&pseudo(from.ip(), to.ip(), &datagram)) {
        0 => 0xffff,
        sum => sum,
    };
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    let mut frame = [OURS, PEER].concat();
    if let Some(vlan) = vlan {
        frame.extend([0x81, 0x00]);
        frame.extend(vlan.to_be_bytes());
    }
    if from.is_ipv4() {
        frame.extend([0x08, 0x00]);
        let mut header = vec![0x45, 0, 0, 0, 0x12, 0x34, 0, 0, 33, 17, 0, 0];
        header[2..4].copy_from_slice(&u16::try_from(datagram.len() + 20).unwrap().to_be_bytes());
        header.extend(octets(from.ip()));
        header.extend(octets(to.ip()));
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        frame.extend(header);
    } else {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend(u16::try_from(datagram.len()).unwrap().to_be_bytes());
        frame.extend([17, 33]);
        frame.extend(octets(from.ip()));
        frame.extend(octets(to.ip()));
    }
    frame.extend(datagram);
    frame
}

/// From where, to where, and what, of a frame that we sent; panics at the first thing that is wrong.
#[allow(dead_code, reason = "some tests only compose")]
pub(super) fn dissect(vlan: Option<u16>, frame: &[u8]) -> (SocketAddr, SocketAddr, Vec<u8>) {
    assert_eq!(frame[..12], [PEER, OURS].concat(), "stations");
    let mut packet = &frame[12..];
    if let Some(vlan) = vlan {
        assert_eq!(packet[..2], [0x81, 0x00]);
        assert_eq!(packet[2..4], vlan.to_be_bytes(), "VLAN, no priority");
        packet = &packet[4..];
    }
    let (kind, packet) = packet.split_at(2);
    let (from, to, datagram): (IpAddr, IpAddr, &[u8]) = if kind == [0x08, 0x00] {
        assert_eq!(checksum(&packet[..20]), 0, "IPv4 header checksum");
        assert_eq!((packet[0], packet[9]), (0x45, 17));
        assert_eq!(packet[6..8], [0x40, 0], "do not fragment");
        assert_eq!(
            usize::from(u16::from_be_bytes([packet[2], packet[3]])),
            packet.len()
        );
        let ip = |at: usize| <[u8; 4]>::try_from(&packet[at..at + 4]).unwrap().into();
        (ip(12), ip(16), &packet[20..])
    } else {
        assert_eq!(kind, [0x86, 0xdd]);
        assert_eq!((packet[0] >> 4, packet[6]), (6, 17));
        assert_eq!(
            usize::from(u16::from_be_bytes([packet[4], packet[5]])),
            packet.len() - 40
        );
        let ip = |at: usize| <[u8; 16]>::try_from(&packet[at..at + 16]).unwrap().into();
        (ip(8), ip(24), &packet[40..])
    };
    assert_ne!(datagram[6..8], [0, 0], "always a UDP checksum");
    assert_eq!(checksum(&pseudo(from, to, datagram)), 0, "UDP checksum");
    let word = |at: usize| u16::from_be_bytes([datagram[at], datagram[at + 1]]);
    assert_eq!(usize::from(word(4)), datagram.len());
    (
        SocketAddr::new(from, word(0)),
        SocketAddr::new(to, word(2)),
        datagram[8..].to_vec(),
    )
}
