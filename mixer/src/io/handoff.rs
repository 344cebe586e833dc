//! Packets that came to a worker that does not own them, on their way to the one that does.
//!
//! A NIC spreads packets over its queues as it likes; the owner of a packet is decided by its local
//! port alone. One bounded single-producer single-consumer ring per ordered pair of workers; a full
//! ring drops the packet and counts it. NIC steering makes these rings idle, nothing needs them to be.

use std::net::SocketAddr;

use rtrb::{Consumer, Producer, RingBuffer};

use crate::io::PAYLOAD_MAX;
use crate::limits;
use crate::placement::PortBlock;

/// Which worker owns which port.
#[derive(Debug, Clone)]
pub struct Owners(Vec<PortBlock>);

impl Owners {
    /// The blocks of all workers, in their order.
    #[must_use]
    pub fn new(blocks: Vec<PortBlock>) -> Self {
        Self(blocks)
    }

    /// The worker that owns `port`.
    #[must_use]
    pub fn of(&self, port: u16) -> Option<usize> {
        let place = self.0.partition_point(|block| block.last < port);
        self.0
            .get(place)
            .filter(|block| block.contains(port))
            .map(|_| place)
    }
}

/// A packet on its way. `L` is what packet I/O wants to know of the link it came by.
#[derive(Debug, Clone, Copy)]
pub struct Handed<L> {
    /// UDP port it came to.
    pub local_port: u16,
    /// Where it came from.
    pub source: SocketAddr,
    /// The link it came by.
    pub link: L,
    length: u16,
    bytes: [u8; PAYLOAD_MAX],
}

impl<L> Handed<L> {
    /// A copy of a datagram; absent when it is longer than [`PAYLOAD_MAX`].
    #[must_use]
    pub fn new(local_port: u16, source: SocketAddr, link: L, payload: &[u8]) -> Option<Self> {
        let mut bytes = [0; PAYLOAD_MAX];
        bytes.get_mut(..payload.len())?.copy_from_slice(payload);
        Some(Self {
            local_port,
            source,
            link,
            length: u16::try_from(payload.len()).ok()?,
            bytes,
        })
    }

    /// UDP payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }
}

/// One worker's end of all rings.
#[derive(Debug)]
pub struct Mesh<L> {
    owners: Owners,
    me: usize,
    /// To each worker; none to itself.
    outgoing: Vec<Option<Producer<Handed<L>>>>,
    incoming: Vec<Consumer<Handed<L>>>,
}

impl<L> Mesh<L> {
    /// The ends of all workers, in the order of their `blocks`.
    #[must_use]
    pub fn new(blocks: &[PortBlock]) -> Vec<Self> {
        let mut ends: Vec<Self> = (0..blocks.len())
            .map(|me| Self {
                owners: Owners::new(blocks.to_vec()),
                me,
                outgoing: Vec::new(),
                incoming: Vec::new(),
            })
            .collect();
        for from in 0..blocks.len() {
            for to in 0..blocks.len() {
                let (outgoing, incoming) = if from == to {
                    (None, None)
                } else {
                    let (outgoing, incoming) = RingBuffer::new(limits::HANDOFF_RING);
                    (Some(outgoing), Some(incoming))
                };
                ends[from].outgoing.push(outgoing);
                ends[to].incoming.extend(incoming);
            }
        }
        ends
    }

    /// The other worker that owns `port`; `None` when it is this one or nobody.
    #[inline]
    #[must_use]
    pub fn other_owner(&self, port: u16) -> Option<usize> {
        self.owners.of(port).filter(|owner| *owner != self.me)
    }

    /// Hands a packet to its owner; false when the ring is full.
    pub fn hand(&mut self, owner: usize, packet: Handed<L>) -> bool {
        match self.outgoing.get_mut(owner) {
            Some(Some(ring)) => ring.push(packet).is_ok(),
            Some(None) | None => false,
        }
    }

    /// The next packet that another worker handed over.
    pub fn take(&mut self) -> Option<Handed<L>> {
        self.incoming.iter_mut().find_map(|ring| ring.pop().ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::port_blocks;

    fn packet(port: u16, payload: &[u8]) -> Handed<u8> {
        Handed::new(port, "192.0.2.1:4000".parse().unwrap(), 7, payload).unwrap()
    }

    #[test]
    fn every_port_has_the_owner_of_its_block() {
        let blocks = port_blocks(10_000, 32_767, 3).unwrap();
        let owners = Owners::new(blocks.clone());
        for port in 0..=u16::MAX {
            let expected = blocks.iter().position(|block| block.contains(port));
            assert_eq!(owners.of(port), expected, "{port}");
        }
    }

    #[test]
    fn packets_reach_their_owner_in_order_and_a_full_ring_refuses() {
        let blocks = port_blocks(10_000, 32_767, 3).unwrap();
        let mut ends = Mesh::<u8>::new(&blocks);
        let port = blocks[2].first;
        assert_eq!(ends[0].other_owner(port), Some(2));
        assert_eq!(ends[2].other_owner(port), None);
        assert_eq!(ends[0].other_owner(1), None);
        assert!(!ends[2].hand(2, packet(port, b"to itself")));
        for from in [0, 1] {
            for number in 0..limits::HANDOFF_RING {
                assert!(ends[from].hand(2, packet(port, &number.to_be_bytes())));
            }
            assert!(!ends[from].hand(2, packet(port, b"one more")));
        }
        let mut numbers = Vec::new();
        while let Some(packet) = ends[2].take() {
            assert_eq!((packet.local_port, packet.link), (port, 7));
            numbers.push(usize::from_be_bytes(packet.payload().try_into().unwrap()));
        }
        let once: Vec<usize> = (0..limits::HANDOFF_RING).collect();
        assert_eq!(numbers, [once.clone(), once].concat());
        assert!(ends[0].take().is_none() && ends[1].take().is_none());
    }

    #[test]
    fn what_does_not_fit_is_not_handed() {
        let source = "192.0.2.1:4000".parse().unwrap();
        assert!(Handed::new(1, source, (), &[0; PAYLOAD_MAX + 1]).is_none());
        assert_eq!(
            Handed::new(1, source, (), &[1; PAYLOAD_MAX]).unwrap().payload(),
            [1; PAYLOAD_MAX]
        );
        assert!(Handed::new(1, source, (), &[]).unwrap().payload().is_empty());
    }
}
