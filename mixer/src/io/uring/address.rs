//! Socket addresses as the kernel wants and gives them, by bytes.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Bytes of the longer one, `sockaddr_in6`.
pub(super) const ADDRESS_MAX: usize = 28;
/// The same, in the kernel's type.
pub(super) const ADDRESS_LENGTH: libc::socklen_t = 28;
const LENGTH_V4: usize = 16;
const FAMILY_V4: u16 = 2;
const FAMILY_V6: u16 = 10;

const _: () = assert!(FAMILY_V4 as i32 == libc::AF_INET && FAMILY_V6 as i32 == libc::AF_INET6);
const _: () = assert!(LENGTH_V4 == size_of::<libc::sockaddr_in>());
const _: () = assert!(ADDRESS_MAX == size_of::<libc::sockaddr_in6>());
const _: () = assert!(ADDRESS_LENGTH as usize == ADDRESS_MAX);

/// A `sockaddr_in` or `sockaddr_in6`.
#[derive(Debug, Clone, Copy)]
pub(super) struct RawAddress {
    pub(super) bytes: [u8; ADDRESS_MAX],
    pub(super) length: u8,
}

impl From<SocketAddr> for RawAddress {
    fn from(address: SocketAddr) -> Self {
        let mut bytes = [0; ADDRESS_MAX];
        bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
        let (family, length) = match address {
            SocketAddr::V4(v4) => {
                bytes[4..8].copy_from_slice(&v4.ip().octets());
                (FAMILY_V4, LENGTH_V4)
            }
            SocketAddr::V6(v6) => {
                bytes[4..8].copy_from_slice(&v6.flowinfo().to_be_bytes());
                bytes[8..24].copy_from_slice(&v6.ip().octets());
                bytes[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
                (FAMILY_V6, ADDRESS_MAX)
            }
        };
        bytes[..2].copy_from_slice(&family.to_ne_bytes());
        #[expect(clippy::cast_possible_truncation, reason = "16 or 28")]
        Self {
            bytes,
            length: length as u8,
        }
    }
}

/// The address in `name`; `None` when it is neither IPv4 nor IPv6, or cut short.
pub(super) fn parse(name: &[u8]) -> Option<SocketAddr> {
    let (family, rest) = name.split_first_chunk::<2>()?;
    let (port, rest) = rest.split_first_chunk::<2>()?;
    let port = u16::from_be_bytes(*port);
    match u16::from_ne_bytes(*family) {
        FAMILY_V4 => Some(SocketAddr::from((
            Ipv4Addr::from(*rest.first_chunk::<4>()?),
            port,
        ))),
        FAMILY_V6 => {
            let (flow, rest) = rest.split_first_chunk::<4>()?;
            let (ip, rest) = rest.split_first_chunk::<16>()?;
            let scope = u32::from_ne_bytes(*rest.first_chunk::<4>()?);
            let flow = u32::from_be_bytes(*flow);
            Some(SocketAddr::V6(SocketAddrV6::new(
                Ipv6Addr::from(*ip),
                port,
                flow,
                scope,
            )))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_refusals() {
        for text in ["127.0.0.1:5004", "[fd77::2]:65535", "[fe80::1%3]:1"] {
            let address: SocketAddr = text.parse().unwrap();
            let raw = RawAddress::from(address);
            let length = usize::from(raw.length);
            assert_eq!(parse(&raw.bytes[..length]), Some(address));
            assert_eq!(parse(&raw.bytes[..7]), None);
        }
        assert_eq!(parse(&[]), None);
        assert_eq!(parse(&[1; ADDRESS_MAX]), None);
    }
}
