//! The kernel's answer to "which XDP modes does this device support": generic netlink family `netdev`
//! (Linux 6.3, `Documentation/netlink/specs/netdev.yaml`).

use std::io::{self, Read};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// Answers of the family `netdev` about a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct XdpFeatures {
    /// Bits of `xdp-act`.
    pub actions: u64,
    /// Bits of `xsk-flags`: transmit metadata.
    pub socket: u64,
}

impl XdpFeatures {
    const NAMES: [&'static str; 7] = [
        "basic",
        "redirect",
        "ndo-xmit",
        "xsk-zerocopy",
        "hw-offload",
        "rx-sg",
        "ndo-xmit-sg",
    ];

    /// A program can be attached in the driver and hand packets to a socket.
    #[must_use]
    pub fn native(self) -> bool {
        self.actions & 0b11 == 0b11
    }

    /// Sockets share memory with the device.
    #[must_use]
    pub fn zero_copy(self) -> bool {
        self.actions & 0b1000 != 0
    }

    /// Names of the modes.
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        (0..)
            .zip(Self::NAMES)
            .filter(|(bit, _)| self.actions >> bit & 1 == 1)
            .map(|(_, name)| name)
            .collect()
    }
}

/// Asks the kernel.
///
/// # Errors
/// `NotFound` before Linux 6.3, else what the kernel says (`ENODEV`).
pub fn xdp_features(interface_index: u32) -> io::Result<XdpFeatures> {
    let socket = Socket::new(
        Domain::from(AF_NETLINK),
        Type::RAW,
        Some(Protocol::from(NETLINK_GENERIC)),
    )?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    let ask = |request: &[u8]| {
        socket.send(request)?;
        let mut answer = vec![0; 8_192];
        let length = (&socket).read(&mut answer)?;
        answer.truncate(length);
        Ok::<_, io::Error>(answer)
    };
    let answer = ask(&message(CONTROLLER, GET_FAMILY, CONTROL_FAMILY_NAME, b"netdev\0"))?;
    let attributes = attributes(&answer)?;
    let family = number(find(&attributes, CONTROL_FAMILY_ID)).ok_or(io::ErrorKind::InvalidData)?;
    let family = u16::try_from(family).map_err(|_| io::ErrorKind::InvalidData)?;
    let index = interface_index.to_ne_bytes();
    let answer = ask(&message(family, DEVICE_GET, DEVICE_INDEX, &index))?;
    features(&answer)
}

/// Reads an answer to `dev-get`.
///
/// # Errors
/// The kernel's error in it, or a malformed one.
pub fn features(answer: &[u8]) -> io::Result<XdpFeatures> {
    let attributes = attributes(answer)?;
    let actions = number(find(&attributes, DEVICE_XDP_FEATURES)).ok_or(io::ErrorKind::InvalidData)?;
    let socket = number(find(&attributes, DEVICE_XSK_FEATURES)).unwrap_or(0);
    Ok(XdpFeatures { actions, socket })
}

/// A request with one attribute.
fn message(family: u16, command: u8, attribute: u16, value: &[u8]) -> Vec<u8> {
    let padded = value.len().next_multiple_of(4);
    let length = HEADERS + ATTRIBUTE + padded;
    let mut bytes = Vec::with_capacity(length);
    // All of it is a few dozen bytes.
    let short = |length: usize| u16::try_from(length).unwrap_or(u16::MAX);
    bytes.extend(u32::from(short(length)).to_ne_bytes());
    bytes.extend(family.to_ne_bytes());
    bytes.extend(1u16.to_ne_bytes()); // NLM_F_REQUEST
    bytes.extend([0; 8]); // sequence, port: one question at a time
    bytes.extend([command, 1, 0, 0]);
    bytes.extend(short(ATTRIBUTE + value.len()).to_ne_bytes());
    bytes.extend(attribute.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(length, 0);
    bytes
}

/// Attributes of the first message: kind and value.
fn attributes(answer: &[u8]) -> io::Result<Vec<(u16, &[u8])>> {
    let short = |at: usize| Some(u16::from_ne_bytes(answer.get(at..at + 2)?.try_into().ok()?));
    let word = |at: usize| Some(u32::from_ne_bytes(answer.get(at..at + 4)?.try_into().ok()?));
    let (Some(length), Some(kind)) = (word(0), short(4)) else {
        return Err(io::ErrorKind::UnexpectedEof.into());
    };
    if kind == NLMSG_ERROR {
        let code = word(16).unwrap_or(0).cast_signed();
        return Err(io::Error::from_raw_os_error(code.saturating_neg()));
    }
    let end = usize::try_from(length).unwrap_or(0).min(answer.len());
    let (mut at, mut found) = (HEADERS, Vec::new());
    while at + ATTRIBUTE <= end {
        let (Some(length), Some(kind)) = (short(at).map(usize::from), short(at + 2)) else {
            break;
        };
        let Some(value) = answer.get(at + ATTRIBUTE..at + length) else {
            break;
        };
        found.push((kind & 0x3fff, value));
        at += length.next_multiple_of(4);
    }
    Ok(found)
}

fn find<'a>(attributes: &[(u16, &'a [u8])], wanted: u16) -> Option<&'a [u8]> {
    attributes
        .iter()
        .find_map(|(kind, value)| (*kind == wanted).then_some(*value))
}

/// An unsigned number of two, four or eight bytes.
fn number(value: Option<&[u8]>) -> Option<u64> {
    let value = value?;
    match value.len() {
        2 => Some(u64::from(u16::from_ne_bytes(value.try_into().ok()?))),
        4 => Some(u64::from(u32::from_ne_bytes(value.try_into().ok()?))),
        8 => Some(u64::from_ne_bytes(value.try_into().ok()?)),
        _ => None,
    }
}

const AF_NETLINK: i32 = 16;
const NETLINK_GENERIC: i32 = 16;
/// Bytes before the first attribute: `nlmsghdr` and `genlmsghdr`.
const HEADERS: usize = 20;
/// Bytes before an attribute's value.
const ATTRIBUTE: usize = 4;
const NLMSG_ERROR: u16 = 2;
const CONTROLLER: u16 = 16;
const GET_FAMILY: u8 = 3;
const CONTROL_FAMILY_ID: u16 = 1;
const CONTROL_FAMILY_NAME: u16 = 2;
const DEVICE_GET: u8 = 1;
const DEVICE_INDEX: u16 = 1;
const DEVICE_XDP_FEATURES: u16 = 3;
const DEVICE_XSK_FEATURES: u16 = 6;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An answer with these attributes.
    fn answer(attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = message(30, DEVICE_GET, 0, &[]);
        bytes.truncate(HEADERS);
        for (kind, value) in attributes {
            bytes.extend(message(0, 0, *kind, value).split_off(HEADERS));
        }
        let length = u32::try_from(bytes.len()).unwrap();
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        bytes
    }

    #[test]
    fn modes_are_read() {
        let bytes = answer(&[
            (DEVICE_INDEX, &7u32.to_ne_bytes()),
            (DEVICE_XDP_FEATURES, &0b10_1011u64.to_ne_bytes()),
        ]);
        let found = features(&bytes).unwrap();
        assert_eq!(found.names(), ["basic", "redirect", "xsk-zerocopy", "rx-sg"]);
        assert!(found.native() && found.zero_copy());
        assert!(!XdpFeatures::default().native());
    }

    #[test]
    fn errors_of_the_kernel_come_through() {
        let mut bytes = answer(&[]);
        bytes[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        bytes[16..20].copy_from_slice(&(-19i32).to_ne_bytes());
        assert_eq!(features(&bytes).unwrap_err().raw_os_error(), Some(19));
        assert!(features(&answer(&[])).is_err());
    }

    #[test]
    fn this_kernel_answers_or_says_why_not() {
        match xdp_features(1) {
            Ok(found) => assert!(!found.zero_copy(), "loopback has no rings to share"),
            // Before Linux 6.3 there is no such family.
            Err(error) => assert!(error.raw_os_error().is_some(), "{error}"),
        }
        assert!(xdp_features(0x7fff_fff0).is_err());
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(bytes: Vec<u8>) {
            let _ = features(&bytes);
        }
    }
}
