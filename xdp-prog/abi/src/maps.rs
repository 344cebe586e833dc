//! Names, sizes, keys and values of the maps. No `usize` and no padding: the same bytes on every machine.

use std::net::{IpAddr, Ipv6Addr};

/// Receive queues that can have a socket; also the length of [`XSKS`] and [`REDIRECTED`].
pub const QUEUES_MAX: u32 = 64;
/// Media addresses of one machine.
pub const ADDRESSES_MAX: u32 = 16;
/// All UDP ports.
pub const PORTS_MAX: u32 = 65_536;
/// Sources with a bucket; the one unused longest makes room.
pub const SOURCES_MAX: u32 = 65_536;

/// Receive queue -> AF_XDP socket. Slot `i` takes only the socket bound to queue `i`: the kernel drops what is
/// redirected to another one and counts it nowhere.
pub const XSKS: &str = "xsks";
/// [`Address`] -> `u8` without meaning: destination addresses that are ours.
pub const ADDRESSES: &str = "addresses";
/// UDP port in host order -> [`port_value`].
pub const PORTS: &str = "ports";
/// 0 -> [`Settings`].
pub const SETTINGS: &str = "settings";
/// [`Source`] -> [`Bucket`].
pub const SOURCES: &str = "sources";
/// [`Verdict`](crate::Verdict) -> packets (`u64` per CPU).
pub const VERDICTS: &str = "verdicts";
/// Receive queue -> packets redirected (`u64` per CPU); less what its socket counts, they were lost on the way.
pub const REDIRECTED: &str = "redirected";

/// What a map is to the kernel; discriminants are `enum bpf_map_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum MapKind {
    /// `BPF_MAP_TYPE_HASH`
    Hash = 1,
    /// `BPF_MAP_TYPE_ARRAY`
    Array = 2,
    /// `BPF_MAP_TYPE_PERCPU_ARRAY`
    PerCpuArray = 6,
    /// `BPF_MAP_TYPE_LRU_HASH`
    LruHash = 9,
    /// `BPF_MAP_TYPE_XSKMAP`
    XskMap = 17,
}

/// One map's definition; sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapSpec {
    /// Name in the object.
    pub name: &'static str,
    /// What it is to the kernel.
    pub kind: MapKind,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// Entries.
    pub max_entries: u32,
}

impl MapSpec {
    const fn new(name: &'static str, kind: MapKind, sizes: (u32, u32), max_entries: u32) -> Self {
        Self {
            name,
            kind,
            key_size: sizes.0,
            value_size: sizes.1,
            max_entries,
        }
    }
}

/// All maps of the object.
pub const MAPS: [MapSpec; 7] = [
    MapSpec::new(XSKS, MapKind::XskMap, (4, 4), QUEUES_MAX),
    MapSpec::new(ADDRESSES, MapKind::Hash, (16, 1), ADDRESSES_MAX),
    MapSpec::new(PORTS, MapKind::Array, (4, 4), PORTS_MAX),
    MapSpec::new(SETTINGS, MapKind::Array, (4, 8), 1),
    MapSpec::new(SOURCES, MapKind::LruHash, (20, 16), SOURCES_MAX),
    MapSpec::new(VERDICTS, MapKind::PerCpuArray, (4, 8), 12),
    MapSpec::new(REDIRECTED, MapKind::PerCpuArray, (4, 8), QUEUES_MAX),
];

/// What stands in [`PORTS`] for a live port of this worker; 0 is a port that is not live.
pub const fn port_value(worker: u16) -> u32 {
    worker as u32 + 1
}

/// The worker that owns a live port, from its value in [`PORTS`]; `None` when it is not live.
pub fn port_owner(value: u32) -> Option<u16> {
    value.checked_sub(1).and_then(|worker| u16::try_from(worker).ok())
}

/// An address as the program compares it: IPv6, or IPv4 as `::ffff:a.b.c.d`, in network order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Address {
    /// Network order.
    pub bytes: [u8; 16],
}

impl Address {
    /// The map's key.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.bytes
    }

    /// The address again; IPv4 comes back as IPv4.
    pub fn to_ip(self) -> IpAddr {
        Ipv6Addr::from(self.bytes).to_canonical()
    }
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        let ipv6 = match ip {
            IpAddr::V4(ipv4) => ipv4.to_ipv6_mapped(),
            IpAddr::V6(ipv6) => ipv6,
        };
        Self { bytes: ipv6.octets() }
    }
}

/// What can be changed while the program runs. The default is no budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Settings {
    /// Packets per second that one source (address and port) may send in the long run; 0: no budget.
    pub budget_packets_per_second: u32,
    /// Packets that a source may send at once after silence; 0 counts as 1.
    pub budget_burst: u32,
}

impl Settings {
    /// The map's value.
    pub const fn to_words(self) -> [u32; 2] {
        [self.budget_packets_per_second, self.budget_burst]
    }

    /// From the map's value.
    pub const fn from_words(words: [u32; 2]) -> Self {
        Self {
            budget_packets_per_second: words[0],
            budget_burst: words[1],
        }
    }
}

/// Who sends, as key of [`SOURCES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Source {
    /// As in [`Address`].
    pub bytes: [u8; 16],
    /// UDP port, host order.
    pub port: u16,
    /// 0
    pub pad: u16,
}

impl Source {
    /// A sender.
    pub fn new(ip: IpAddr, port: u16) -> Self {
        Self {
            bytes: Address::from(ip).bytes,
            port,
            pad: 0,
        }
    }

    /// The map's key.
    pub fn to_bytes(self) -> [u8; 20] {
        let mut bytes = [0; 20];
        bytes[..16].copy_from_slice(&self.bytes);
        bytes[16..18].copy_from_slice(&self.port.to_ne_bytes());
        bytes
    }
}

/// A source's token bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Bucket {
    /// When it was last refilled, in ns of the kernel's monotonic clock.
    pub refilled_at_ns: u64,
    /// Billionths of a packet.
    pub tokens: u64,
}

impl Bucket {
    /// The map's value.
    pub const fn to_words(self) -> [u64; 2] {
        [self.refilled_at_ns, self.tokens]
    }

    /// From the map's value.
    pub const fn from_words(words: [u64; 2]) -> Self {
        Self {
            refilled_at_ns: words[0],
            tokens: words[1],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_back_as_they_went() {
        for text in ["192.0.2.7", "2001:db8::7", "0.0.0.0", "::1"] {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(Address::from(ip).to_ip(), ip, "{text}");
        }
        let mapped: IpAddr = "::ffff:192.0.2.7".parse().unwrap();
        let ipv4: IpAddr = "192.0.2.7".parse().unwrap();
        assert_eq!(Address::from(mapped), Address::from(ipv4));
    }

    #[test]
    fn a_live_port_names_its_owner() {
        assert_eq!(port_owner(0), None);
        for worker in [0, 1, u16::MAX] {
            assert_eq!(port_owner(port_value(worker)), Some(worker));
        }
    }

    #[test]
    fn values_come_back_as_they_went() {
        let settings = Settings {
            budget_packets_per_second: 3,
            budget_burst: 9,
        };
        assert_eq!(Settings::from_words(settings.to_words()), settings);
        let bucket = Bucket {
            refilled_at_ns: 5,
            tokens: 7,
        };
        assert_eq!(Bucket::from_words(bucket.to_words()), bucket);
    }
}
