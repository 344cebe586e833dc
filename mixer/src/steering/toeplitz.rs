//! Toeplitz receive-side scaling: from addresses to the receive queue, and the way back to a port.
//!
//! The hash is Microsoft's ("Verifying the RSS hash calculation"); its published vectors are the test.
//! What a NIC really feeds into it is its own affair, so the answer is a guess that is usually right.

use std::net::{IpAddr, SocketAddr};

/// Longest input: two IPv6 addresses and two ports.
const INPUT_MAX: usize = 36;

/// The hash of `input` under `key`, which must be at least four bytes longer than the input; bits
/// beyond the key count as 0.
#[must_use]
pub fn hash(key: &[u8], input: &[u8]) -> u32 {
    let byte = |at: usize| key.get(at).copied().unwrap_or(0);
    let mut window = u32::from_be_bytes([byte(0), byte(1), byte(2), byte(3)]);
    let mut result = 0;
    for (at, bits) in input.iter().enumerate() {
        let following = byte(at + 4);
        for place in (0..8).rev() {
            if bits >> place & 1 == 1 {
                result ^= window;
            }
            window = window << 1 | u32::from(following >> place & 1);
        }
    }
    result
}

/// Which fields of a received packet a NIC hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fields {
    /// Source and destination address.
    pub addresses: bool,
    /// Source port.
    pub source_port: bool,
    /// Destination port.
    pub destination_port: bool,
}

impl Fields {
    /// Addresses and ports: the usual one.
    pub const FOUR_TUPLE: Self = Self {
        addresses: true,
        source_port: true,
        destination_port: true,
    };
    /// Addresses only: the default for UDP with many drivers.
    pub const ADDRESSES: Self = Self {
        addresses: true,
        source_port: false,
        destination_port: false,
    };
    /// The local port only.
    pub const LOCAL_PORT: Self = Self {
        addresses: false,
        source_port: false,
        destination_port: true,
    };
}

/// Receive-side scaling as a NIC is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rss {
    /// Hash key, usually 40 or 52 bytes.
    pub key: Vec<u8>,
    /// Queue of each bucket; a power of two of them.
    pub table: Vec<u16>,
    /// What is hashed of UDP over IPv4.
    pub udp4: Fields,
    /// What is hashed of UDP over IPv6.
    pub udp6: Fields,
}

impl Rss {
    /// The queue at which packets from `remote` to `local` arrive. `None` without a table, or with
    /// addresses of two families.
    #[must_use]
    pub fn queue_of(&self, remote: SocketAddr, local: SocketAddr) -> Option<u16> {
        let mut input = Input::default();
        let fields = match (remote.ip(), local.ip()) {
            (IpAddr::V4(remote), IpAddr::V4(local)) => {
                if self.udp4.addresses {
                    input.push(&remote.octets());
                    input.push(&local.octets());
                }
                self.udp4
            }
            (IpAddr::V6(remote), IpAddr::V6(local)) => {
                if self.udp6.addresses {
                    input.push(&remote.octets());
                    input.push(&local.octets());
                }
                self.udp6
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
        };
        if fields.source_port {
            input.push(&remote.port().to_be_bytes());
        }
        if fields.destination_port {
            input.push(&local.port().to_be_bytes());
        }
        let hash = hash(&self.key, input.bytes());
        let bucket = usize::try_from(hash).ok()?.checked_rem(self.table.len())?;
        self.table.get(bucket).copied()
    }

    /// A port out of `candidates` for a call with `remote`, so that its packets arrive at `wanted`:
    /// the first that does among at most `tries`, else the first candidate. `None` without any.
    pub fn choose_port(
        &self,
        remote: SocketAddr,
        local: IpAddr,
        candidates: impl IntoIterator<Item = u16>,
        wanted: u16,
        tries: usize,
    ) -> Option<Choice> {
        let mut first = None;
        for port in candidates.into_iter().take(tries.max(1)) {
            first = first.or(Some(port));
            if self.queue_of(remote, SocketAddr::new(local, port)) == Some(wanted) {
                return Some(Choice { port, matches: true });
            }
        }
        first.map(|port| Choice { port, matches: false })
    }
}

/// A chosen port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// Which.
    pub port: u16,
    /// Whether its packets should arrive at the wanted queue; else they are handed over.
    pub matches: bool,
}

/// Hash input, without allocation.
#[derive(Debug)]
struct Input {
    bytes: [u8; INPUT_MAX],
    length: usize,
}

impl Default for Input {
    fn default() -> Self {
        Self {
            bytes: [0; INPUT_MAX],
            length: 0,
        }
    }
}

impl Input {
    fn push(&mut self, more: &[u8]) {
        let end = self.length + more.len();
        if let Some(place) = self.bytes.get_mut(self.length..end) {
            place.copy_from_slice(more);
            self.length = end;
        }
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: [u8; 40] = [
        0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0,
        0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42,
        0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
    ];

    /// Source, destination, hash with ports, hash of the addresses.
    const VECTORS: [(&str, &str, u32, u32); 8] = [
        (
            "66.9.149.187:2794",
            "161.142.100.80:1766",
            0x51cc_c178,
            0x323e_8fc2,
        ),
        (
            "199.92.111.2:14230",
            "65.69.140.83:4739",
            0xc626_b0ea,
            0xd718_262a,
        ),
        (
            "24.19.198.95:12898",
            "12.22.207.184:38024",
            0x5c2b_394a,
            0xd2d0_a5de,
        ),
        (
            "38.27.205.30:48228",
            "209.142.163.6:2217",
            0xafc7_327f,
            0x8298_9176,
        ),
        (
            "153.39.163.191:44251",
            "202.188.127.2:1303",
            0x10e8_28a2,
            0x5d18_09c5,
        ),
        (
            "[3ffe:2501:200:1fff::7]:2794",
            "[3ffe:2501:200:3::1]:1766",
            0x4020_7d3d,
            0x2cc1_8cd5,
        ),
        (
            "[3ffe:501:8::260:97ff:fe40:efab]:14230",
            "[ff02::1]:4739",
            0xdde5_1bbf,
            0x0f0c_461c,
        ),
        (
            "[3ffe:1900:4545:3:200:f8ff:fe21:67cf]:44251",
            "[fe80::200:f8ff:fe21:67cf]:38024",
            0x02d1_feef,
            0x4b61_e985,
        ),
    ];

    /// A table so large that its bucket tells the lower 16 bits of the hash.
    fn rss(fields: Fields) -> Rss {
        Rss {
            key: KEY.to_vec(),
            table: (0..=u16::MAX).collect(),
            udp4: fields,
            udp6: fields,
        }
    }

    #[test]
    fn published_vectors() {
        for (source, destination, ports, addresses) in VECTORS {
            let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
            let low = |hash: u32| u16::try_from(hash & 0xffff).unwrap();
            assert_eq!(
                rss(Fields::FOUR_TUPLE).queue_of(source, destination),
                Some(low(ports))
            );
            assert_eq!(
                rss(Fields::ADDRESSES).queue_of(source, destination),
                Some(low(addresses))
            );
        }
        let input: Vec<u8> = [
            &[66, 9, 149, 187, 161, 142, 100, 80][..],
            &2794u16.to_be_bytes(),
            &1766u16.to_be_bytes(),
        ]
        .concat();
        assert_eq!(hash(&KEY, &input), 0x51cc_c178);
    }

    #[test]
    fn local_port_alone_gives_every_remote_the_same_queue() {
        let rss = Rss {
            table: vec![0, 1, 2, 3],
            ..rss(Fields::LOCAL_PORT)
        };
        let local: SocketAddr = "192.0.2.1:10000".parse().unwrap();
        let queue = rss.queue_of("198.51.100.7:4000".parse().unwrap(), local);
        assert_eq!(queue, rss.queue_of("203.0.113.9:59999".parse().unwrap(), local));
        let queues: std::collections::BTreeSet<_> = (0..64)
            .map(|port| rss.queue_of(local, SocketAddr::new(local.ip(), 10_000 + 2 * port)))
            .collect();
        assert_eq!(queues.len(), 4, "ports spread over the queues");
    }

    #[test]
    fn nothing_to_hash_with_is_no_queue() {
        let empty = Rss {
            table: Vec::new(),
            ..rss(Fields::FOUR_TUPLE)
        };
        let (v4, v6) = ("192.0.2.1:1".parse().unwrap(), "[2001:db8::1]:1".parse().unwrap());
        assert_eq!(empty.queue_of(v4, v4), None);
        assert_eq!(rss(Fields::FOUR_TUPLE).queue_of(v4, v6), None);
        assert_eq!(empty.choose_port(v4, v4.ip(), [], 0, 10), None);
    }

    proptest! {
        #[test]
        fn a_chosen_port_arrives_where_wanted_or_says_so(
            remote: [u8; 4], port: u16, wanted in 0u16..4, tries in 0usize..40,
        ) {
            let rss = Rss { table: vec![0, 1, 2, 3, 0, 1, 2, 3], ..rss(Fields::FOUR_TUPLE) };
            let remote = SocketAddr::from((remote, port));
            let local: IpAddr = "192.0.2.1".parse().unwrap();
            let free = (10_000u16..).step_by(2).take(64);
            let choice = rss.choose_port(remote, local, free.clone(), wanted, tries).unwrap();
            let at = SocketAddr::new(local, choice.port);
            prop_assert_eq!(choice.matches, rss.queue_of(remote, at) == Some(wanted));
            if choice.matches {
                prop_assert!(free.take(tries.max(1)).any(|port| port == choice.port));
            } else {
                prop_assert_eq!(choice.port, 10_000);
            }
        }
    }
}
