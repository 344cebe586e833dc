//! Which way a remote address lies: a copy of the kernel's routes and neighbours that a worker reads
//! without asking anybody.
//!
//! Made anew by the scout whenever the kernel's own tables change, never altered. Routes of the main
//! and the local table count; policy rules do not.

pub(super) mod netlink;

use std::net::IpAddr;

use super::frame::{Link, Mac, Tags};

/// A next hop on one interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hop {
    /// Index of the interface: ours, or a VLAN on it.
    pub interface: u32,
    /// Address of the neighbour.
    pub address: IpAddr,
}

/// Which way a remote address lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Out of our interface.
    Frame(Link),
    /// Out of our interface, but the neighbour's station is not known.
    Wanted(Hop, Outlet),
    /// On this host, or out of an interface that is not ours: the kernel's sockets get there.
    Socket,
    /// There is no route.
    Nowhere,
}

/// An interface that frames of ours leave by: the device itself, or a VLAN on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outlet {
    /// Its index.
    pub interface: u32,
    /// Tags that its frames carry.
    pub tags: Tags,
    /// Its station.
    pub station: Mac,
}

/// A destination and what the kernel does with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// First address.
    pub prefix: IpAddr,
    /// Bits that count.
    pub length: u8,
    /// The lower the better.
    pub metric: u32,
    /// What is done.
    pub target: Target,
}

/// What is done with a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// It is this host.
    Local,
    /// It leaves by an interface, through a gateway or directly.
    Via {
        /// Index of the interface.
        interface: u32,
        /// The gateway.
        gateway: Option<IpAddr>,
    },
    /// It is refused.
    Refused,
}

/// See the module's documentation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouteTable {
    outlets: Vec<Outlet>,
    /// Longest prefix first, then lowest metric.
    routes: Vec<Route>,
    /// In order.
    neighbours: Vec<(Hop, Mac)>,
}

impl RouteTable {
    /// A table of what the kernel told.
    #[must_use]
    pub fn new(outlets: Vec<Outlet>, mut routes: Vec<Route>, mut neighbours: Vec<(Hop, Mac)>) -> Self {
        routes.sort_by_key(|route| (std::cmp::Reverse(route.length), route.metric));
        routes.truncate(ROUTES_MAX);
        neighbours.retain(|(_, mac)| mac.is_unicast());
        neighbours.sort_unstable_by_key(|(hop, _)| *hop);
        Self {
            outlets,
            routes,
            neighbours,
        }
    }

    /// Which way `remote` lies.
    #[must_use]
    pub fn way(&self, remote: IpAddr) -> Way {
        let route = self.routes.iter().find(|route| route.covers(remote));
        match route.map(|route| route.target) {
            None | Some(Target::Refused) => Way::Nowhere,
            Some(Target::Local) => Way::Socket,
            Some(Target::Via { interface, gateway }) => {
                let Some(outlet) = self.outlets.iter().find(|outlet| outlet.interface == interface) else {
                    return Way::Socket;
                };
                let hop = Hop {
                    interface,
                    address: gateway.unwrap_or(remote),
                };
                match self.neighbour(hop) {
                    Some(mac) => Way::Frame(outlet.link(mac)),
                    None => Way::Wanted(hop, *outlet),
                }
            }
        }
    }

    fn neighbour(&self, hop: Hop) -> Option<Mac> {
        let place = self.neighbours.binary_search_by_key(&hop, |(hop, _)| *hop).ok()?;
        self.neighbours.get(place).map(|(_, mac)| *mac)
    }
}

impl Outlet {
    /// The link to a station behind it.
    #[must_use]
    pub fn link(&self, destination: Mac) -> Link {
        Link {
            source: self.station,
            destination,
            tags: self.tags,
        }
    }
}

impl Route {
    fn covers(&self, remote: IpAddr) -> bool {
        let bits = u32::from(self.length);
        match (self.prefix, remote) {
            (IpAddr::V4(prefix), IpAddr::V4(remote)) => {
                let differing = prefix.to_bits() ^ remote.to_bits();
                differing.checked_shr(32u32.saturating_sub(bits)).unwrap_or(0) == 0
            }
            (IpAddr::V6(prefix), IpAddr::V6(remote)) => {
                let differing = prefix.to_bits() ^ remote.to_bits();
                differing.checked_shr(128u32.saturating_sub(bits)).unwrap_or(0) == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// More routes than that are no media host's; the shortest prefixes would go first.
const ROUTES_MAX: usize = 16_384;

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: Mac = Mac([2, 0, 0, 0, 0, 2]);
    const GATEWAY: Mac = Mac([2, 0, 0, 0, 0, 3]);

    fn outlet(interface: u32, vlan: Option<u16>) -> Outlet {
        let mut tags = Tags::default();
        if let Some(vlan) = vlan {
            assert!(tags.push(super::super::frame::VLAN, vlan));
        }
        Outlet {
            interface,
            tags,
            station: Mac([2, 0, 0, 0, 0, 1]),
        }
    }

    fn route(prefix: &str, length: u8, metric: u32, target: Target) -> Route {
        Route {
            prefix: prefix.parse().unwrap(),
            length,
            metric,
            target,
        }
    }

    fn via(interface: u32, gateway: Option<&str>) -> Target {
        Target::Via {
            interface,
            gateway: gateway.map(|gateway| gateway.parse().unwrap()),
        }
    }

    fn hop(interface: u32, address: &str) -> Hop {
        Hop {
            interface,
            address: address.parse().unwrap(),
        }
    }

    fn table() -> RouteTable {
        RouteTable::new(
            vec![outlet(4, None), outlet(5, Some(100))],
            vec![
                route("0.0.0.0", 0, 100, via(4, Some("192.0.2.254"))),
                route("0.0.0.0", 0, 50, via(9, Some("203.0.113.1"))),
                route("192.0.2.0", 24, 0, via(4, None)),
                route("192.0.2.9", 32, 0, Target::Local),
                route("198.51.100.0", 24, 0, via(5, None)),
                route("10.0.0.0", 8, 0, via(4, Some("192.0.2.254"))),
                route("10.1.0.0", 16, 0, Target::Refused),
                route("::", 0, 0, via(4, Some("2001:db8::1"))),
                route("2001:db8::", 64, 0, via(4, None)),
            ],
            vec![
                (hop(4, "192.0.2.1"), PEER),
                (hop(4, "192.0.2.254"), GATEWAY),
                (hop(5, "198.51.100.1"), PEER),
                (hop(4, "192.0.2.77"), Mac([0xff; 6])),
                (hop(4, "2001:db8::1"), GATEWAY),
            ],
        )
    }

    fn way(remote: &str) -> Way {
        table().way(remote.parse().unwrap())
    }

    #[test]
    fn neighbours_gateways_and_vlans() {
        assert_eq!(way("192.0.2.1"), Way::Frame(outlet(4, None).link(PEER)));
        assert_eq!(way("10.9.9.9"), Way::Frame(outlet(4, None).link(GATEWAY)));
        assert_eq!(way("198.51.100.1"), Way::Frame(outlet(5, Some(100)).link(PEER)));
        assert_eq!(way("2001:db9::7"), Way::Frame(outlet(4, None).link(GATEWAY)));
    }

    #[test]
    fn what_is_not_known_is_wanted() {
        assert_eq!(
            way("192.0.2.2"),
            Way::Wanted(hop(4, "192.0.2.2"), outlet(4, None))
        );
        assert_eq!(
            way("192.0.2.77"),
            Way::Wanted(hop(4, "192.0.2.77"), outlet(4, None)),
            "broadcast is no station"
        );
        assert_eq!(
            way("2001:db8::2"),
            Way::Wanted(hop(4, "2001:db8::2"), outlet(4, None))
        );
    }

    #[test]
    fn this_host_and_other_interfaces_need_sockets() {
        assert_eq!(way("192.0.2.9"), Way::Socket);
        assert_eq!(
            way("8.8.8.8"),
            Way::Socket,
            "the lower metric leaves by another interface"
        );
    }

    #[test]
    fn refused_and_unknown_lead_nowhere() {
        assert_eq!(way("10.1.2.3"), Way::Nowhere);
        assert_eq!(
            RouteTable::default().way("192.0.2.1".parse().unwrap()),
            Way::Nowhere
        );
    }
}
