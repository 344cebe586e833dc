//! The kernel's links, routes and neighbours, read through netlink (`rtnetlink(7)`).

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel tells far more than is wanted here"
)]

use std::io;
use std::net::IpAddr;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{
    InfoData, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, VlanProtocol,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType, RouteVia};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::super::frame::{Mac, SERVICE_VLAN, Tags, VLAN};
use super::{Hop, Outlet, Route, RouteTable, Target};

/// What the kernel says of one interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interface {
    /// Its index; another one after it was removed and came back.
    pub index: u32,
    /// Whether it is up.
    pub up: bool,
    /// Receive queues it can have.
    pub queues: u32,
    /// Longest IP packet, in bytes.
    pub mtu: u32,
}

/// A conversation with the kernel about its tables.
pub struct Kernel {
    socket: Socket,
    sequence: u32,
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernel").finish_non_exhaustive()
    }
}

impl Kernel {
    /// Opens the conversation.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// The interface of that name; absent when there is none.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn interface(&mut self, name: &str) -> io::Result<Option<Interface>> {
        let links = self.links()?;
        Ok(links
            .iter()
            .find(|link| link_name(link) == Some(name))
            .map(|link| Interface {
                index: link.header.index,
                up: link.header.flags.contains(LinkFlags::Up),
                queues: receive_queues(link),
                mtu: mtu(link),
            }))
    }

    /// Routes and neighbours, as seen from one interface, whose own frames carry `tags`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn table(&mut self, interface: u32, tags: Tags) -> io::Result<RouteTable> {
        let links = self.links()?;
        let outlets = outlets(&links, interface, tags);
        let routes = self.dump(
            RouteNetlinkMessage::GetRoute(RouteMessage::default()),
            |message| match message {
                RouteNetlinkMessage::NewRoute(route) => route_of(&route),
                _ => None,
            },
        )?;
        let neighbours = self.dump(
            RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()),
            |message| match message {
                RouteNetlinkMessage::NewNeighbour(neighbour) => neighbour_of(&neighbour),
                _ => None,
            },
        )?;
        let ours = |hop: &Hop| outlets.iter().any(|outlet| outlet.interface == hop.interface);
        let neighbours = neighbours.into_iter().filter(|(hop, _)| ours(hop)).collect();
        Ok(RouteTable::new(outlets, routes, neighbours))
    }

    /// Whether an address is one of this host.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn has_address(&mut self, address: IpAddr) -> io::Result<bool> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let found = self.dump(request, |message| match message {
            RouteNetlinkMessage::NewAddress(message) => {
                use netlink_packet_route::address::AddressAttribute::{Address, Local};
                let same = |attribute: &_| matches!(attribute, Address(ip) | Local(ip) if *ip == address);
                message.attributes.iter().any(same).then_some(())
            }
            _ => None,
        })?;
        Ok(!found.is_empty())
    }

    /// Makes the kernel find out, or confirm, the station of a neighbour, as a packet to it would.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn resolve(&mut self, hop: Hop) -> io::Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.family = family(hop.address);
        message.header.ifindex = hop.interface;
        message.header.flags = NeighbourFlags::Use;
        message
            .attributes
            .push(NeighbourAttribute::Destination(match hop.address {
                IpAddr::V4(address) => NeighbourAddress::Inet(address),
                IpAddr::V6(address) => NeighbourAddress::Inet6(address),
            }));
        let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        self.send(RouteNetlinkMessage::NewNeighbour(message), flags)?;
        self.answers(|_| {})
    }

    fn links(&mut self) -> io::Result<Vec<LinkMessage>> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        self.dump(request, |message| match message {
            RouteNetlinkMessage::NewLink(link) => Some(link),
            _ => None,
        })
    }

    fn dump<T>(
        &mut self,
        request: RouteNetlinkMessage,
        mut pick: impl FnMut(RouteNetlinkMessage) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        self.send(request, NLM_F_REQUEST | NLM_F_DUMP)?;
        let mut found = Vec::new();
        self.answers(|message| found.extend(pick(message)))?;
        Ok(found)
    }

    fn send(&mut self, request: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map(drop)
    }

    /// Reads answers up to the last one.
    fn answers(&mut self, mut each: impl FnMut(RouteNetlinkMessage)) -> io::Result<()> {
        loop {
            let (bytes, _) = self.socket.recv_from_full()?;
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
                let length = (message.header.length as usize)
                    .next_multiple_of(4)
                    .min(rest.len());
                if length == 0 {
                    break;
                }
                rest = &rest[length..];
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(message) => each(message),
                    NetlinkPayload::Done(_) => return Ok(()),
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(()),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    _ => {}
                }
            }
        }
    }
}

/// Tells that something has changed in the kernel's tables.
pub(in crate::io::xdp) struct Watch(Socket);

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

impl Watch {
    /// Begins to watch links, addresses, routes and neighbours.
    ///
    /// # Errors
    /// What the kernel says.
    pub(in crate::io::xdp) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        for group in GROUPS {
            socket.add_membership(group)?;
        }
        socket.set_non_blocking(true)?;
        Ok(Self(socket))
    }

    /// Whether anything has changed since the last call. What changed is not told: the tables are
    /// read anew.
    pub(in crate::io::xdp) fn changed(&mut self) -> bool {
        let mut changed = false;
        let mut buffer = Vec::with_capacity(8_192);
        loop {
            buffer.clear();
            match self.0.recv(&mut buffer, 0) {
                Ok(_) => changed = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return changed,
                // Too much for the socket: something has surely changed.
                Err(_) => return true,
            }
        }
    }
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn link_name(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

fn receive_queues(link: &LinkMessage) -> u32 {
    let number = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::NumRxQueues(number) => Some(*number),
        _ => None,
    });
    number.unwrap_or(1)
}

fn mtu(link: &LinkMessage) -> u32 {
    let bytes = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Mtu(bytes) => Some(*bytes),
        _ => None,
    });
    bytes.unwrap_or(1_500)
}

fn station(link: &LinkMessage) -> Option<Mac> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(bytes) => bytes.as_slice().try_into().ok().map(Mac),
        _ => None,
    })
}

/// Index of the interface below a VLAN, and its tag.
fn vlan(link: &LinkMessage) -> Option<(u32, u16, u16)> {
    let below = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Link(index) => Some(*index),
        _ => None,
    })?;
    let info = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(info) => Some(info),
        _ => None,
    })?;
    let vlan = info.iter().find_map(|info| match info {
        LinkInfo::Data(InfoData::Vlan(vlan)) => Some(vlan),
        _ => None,
    })?;
    let identifier = vlan.iter().find_map(|info| match info {
        InfoVlan::Id(identifier) => Some(*identifier),
        _ => None,
    })?;
    let service = |info: &InfoVlan| matches!(info, InfoVlan::Protocol(VlanProtocol::Ieee8021Ad));
    let ether_type = if vlan.iter().any(service) {
        SERVICE_VLAN
    } else {
        VLAN
    };
    Some((below, ether_type, identifier))
}

/// The interface itself, VLANs on it, and VLANs on those.
fn outlets(links: &[LinkMessage], interface: u32, tags: Tags) -> Vec<Outlet> {
    let device = links.iter().find(|link| link.header.index == interface);
    let mut outlets: Vec<Outlet> = device
        .and_then(station)
        .map(|station| Outlet {
            interface,
            tags,
            station,
        })
        .into_iter()
        .collect();
    for _ in 0..2 {
        for link in links {
            let known = |index| outlets.iter().find(|outlet| outlet.interface == index).copied();
            let index = link.header.index;
            if let (Some((below, ether_type, identifier)), Some(station), None) =
                (vlan(link), station(link), known(index))
                && let Some(mut outlet) = known(below)
                && outlet.tags.push(ether_type, identifier)
            {
                (outlet.interface, outlet.station) = (index, station);
                outlets.push(outlet);
            }
        }
    }
    outlets
}

fn route_of(message: &RouteMessage) -> Option<Route> {
    let unspecified = match message.header.address_family {
        AddressFamily::Inet => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let mut table = u32::from(message.header.table);
    let (mut prefix, mut metric, mut interface, mut gateway) = (unspecified, 0, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => prefix = ip(address)?,
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Gateway(address) => gateway = ip(address),
            RouteAttribute::Via(via) => gateway = via_ip(via),
            // All ways are equal to us: the first one is taken.
            RouteAttribute::MultiPath(hops) => {
                let hop = hops.first()?;
                interface = Some(hop.interface_index);
                gateway = hop.attributes.iter().find_map(|attribute| match attribute {
                    RouteAttribute::Gateway(address) => ip(address),
                    RouteAttribute::Via(via) => via_ip(via),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    if !matches!(table, LOCAL_TABLE | MAIN_TABLE) {
        return None;
    }
    let target = match message.header.kind {
        RouteType::Local => Target::Local,
        RouteType::Unicast => Target::Via {
            interface: interface?,
            gateway,
        },
        RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit | RouteType::Broadcast => {
            Target::Refused
        }
        _ => return None,
    };
    Some(Route {
        prefix,
        length: message.header.destination_prefix_length,
        metric,
        target,
    })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

fn via_ip(via: &RouteVia) -> Option<IpAddr> {
    match via {
        RouteVia::Inet(address) => Some(IpAddr::V4(*address)),
        RouteVia::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

fn neighbour_of(message: &NeighbourMessage) -> Option<(Hop, Mac)> {
    let usable = matches!(
        message.header.state,
        NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe
            | NeighbourState::Permanent
            | NeighbourState::Noarp
    );
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => address = Some(IpAddr::V4(*ip)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => address = Some(IpAddr::V6(*ip)),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok().map(Mac),
            _ => {}
        }
    }
    let hop = Hop {
        interface: message.header.ifindex,
        address: address?,
    };
    usable.then_some((hop, mac?))
}

const LOCAL_TABLE: u32 = 255;
const MAIN_TABLE: u32 = 254;
/// `RTNLGRP_LINK`, `_NEIGH`, `_IPV4_IFADDR`, `_IPV4_ROUTE`, `_IPV6_IFADDR`, `_IPV6_ROUTE`.
const GROUPS: [u32; 6] = [1, 3, 5, 7, 9, 11];

#[cfg(test)]
mod tests {
    use super::super::Way;
    use super::*;

    #[test]
    fn this_machines_tables_can_be_read() {
        let mut kernel = Kernel::open().unwrap();
        let lo = kernel.interface("lo").unwrap().unwrap();
        assert_eq!(lo.index, 1);
        assert!(lo.up);
        assert_eq!(kernel.interface("no-such-device").unwrap(), None);
        let table = kernel.table(lo.index, Tags::default()).unwrap();
        assert_eq!(table.way("127.0.0.1".parse().unwrap()), Way::Socket);
        assert!(kernel.has_address("127.0.0.1".parse().unwrap()).unwrap());
        assert!(!kernel.has_address("192.0.2.77".parse().unwrap()).unwrap());
        assert!(!Watch::open().unwrap().changed());
    }

    #[test]
    fn errors_of_the_kernel_are_told() {
        let mut kernel = Kernel::open().unwrap();
        let nowhere = Hop {
            interface: u32::MAX >> 1,
            address: "192.0.2.1".parse().unwrap(),
        };
        assert!(kernel.resolve(nowhere).is_err());
        assert!(
            kernel.interface("lo").unwrap().is_some(),
            "the conversation goes on"
        );
    }
}
