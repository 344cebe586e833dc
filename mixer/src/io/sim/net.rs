//! The inside of the network: cells, arrival queues, draws, digest.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use mixer_engine::time::Timestamp;

use super::{Arrival, Impairment, SimConfig, SimCounters};
use crate::limits::DATAGRAM_MAX;

/// Place of one datagram.
type Cell = u32;

/// Arrivals, earliest first, ties in the order of sending.
type Queue = BinaryHeap<Reverse<(u64, u64, Cell)>>;

#[derive(Debug, Clone, Copy)]
struct Meta {
    from: SocketAddr,
    to: SocketAddr,
    length: usize,
}

#[derive(Debug)]
pub(super) struct Net {
    pub(super) now: Timestamp,
    pub(super) counters: SimCounters,
    config: SimConfig,
    to_workers: Direction,
    to_peers: Direction,
    /// Payloads, [`DATAGRAM_MAX`] bytes per cell.
    bytes: Vec<u8>,
    meta: Vec<Meta>,
    free: Vec<Cell>,
    /// Datagrams sent so far; breaks ties.
    order: u64,
    peers: Queue,
    workers: Vec<Queue>,
    /// Worker number plus one by port; 0 is nobody.
    owners: Box<[u16]>,
    digest: Digest,
}

impl Net {
    pub(super) fn new(config: &SimConfig) -> Self {
        let mut seeds = SplitMix(config.seed);
        let cells = config.in_flight.max(1);
        let mut net = Self {
            now: Timestamp(0),
            counters: SimCounters::default(),
            config: *config,
            to_workers: Direction::new(&config.to_workers, seeds.next()),
            to_peers: Direction::new(&config.to_peers, seeds.next()),
            bytes: Vec::new(),
            meta: Vec::new(),
            free: Vec::with_capacity(cells),
            order: 0,
            peers: Queue::with_capacity(cells),
            workers: Vec::new(),
            owners: vec![0; 1 << 16].into_boxed_slice(),
            digest: Digest(seeds.next()),
        };
        net.grow(cells);
        net
    }

    /// Number of a new worker.
    pub(super) fn attach(&mut self) -> (u16, SimConfig) {
        let host = u16::try_from(self.workers.len()).unwrap_or(u16::MAX);
        assert!(host < u16::MAX, "too many workers");
        self.workers.push(Queue::with_capacity(self.config.in_flight));
        (host, self.config)
    }

    pub(super) fn advance_to(&mut self, time: Timestamp) {
        self.now = self.now.max(time);
    }

    /// Takes a port for a worker; false when it is taken.
    pub(super) fn open(&mut self, host: u16, port: u16) -> bool {
        let owner = &mut self.owners[usize::from(port)];
        let vacant = *owner == 0;
        if vacant {
            *owner = host + 1;
        }
        vacant
    }

    pub(super) fn close(&mut self, port: u16) {
        self.owners[usize::from(port)] = 0;
    }

    pub(super) fn owns(&self, host: u16, port: u16) -> bool {
        self.owners[usize::from(port)] == host + 1
    }

    pub(super) fn worker_send(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        fill: impl FnOnce(&mut [u8]) -> usize,
    ) {
        self.counters.from_workers += 1;
        let cell = self.take();
        let at = cell as usize * DATAGRAM_MAX;
        let buffer = &mut self.bytes[at..at + DATAGRAM_MAX];
        let length = fill(buffer).min(DATAGRAM_MAX);
        self.digest.datagram(self.now, from, to, &buffer[..length]);
        self.meta[cell as usize] = Meta { from, to, length };
        let fate = self.to_peers.draw();
        self.dispatch(cell, fate, None);
    }

    pub(super) fn peer_send(&mut self, from: SocketAddr, to: SocketAddr, payload: &[u8]) {
        self.counters.from_peers += 1;
        let fate = self.to_workers.draw();
        let Some(host) = self.owners[usize::from(to.port())].checked_sub(1) else {
            self.counters.unreachable += 1;
            return;
        };
        let cell = self.take();
        let at = cell as usize * DATAGRAM_MAX;
        let length = payload.len().min(DATAGRAM_MAX);
        self.bytes[at..at + length].copy_from_slice(&payload[..length]);
        self.meta[cell as usize] = Meta { from, to, length };
        self.dispatch(cell, fate, Some(host));
    }

    /// Puts a filled cell on its way, or drops it.
    fn dispatch(&mut self, cell: Cell, fate: Fate, host: Option<u16>) {
        let Some(first) = fate.first else {
            self.counters.lost += 1;
            self.free.push(cell);
            return;
        };
        self.enqueue(cell, first, host);
        if let Some(second) = fate.second {
            self.counters.duplicated += 1;
            let copy = self.take();
            let (from, to) = (cell as usize * DATAGRAM_MAX, copy as usize * DATAGRAM_MAX);
            self.meta[copy as usize] = self.meta[cell as usize];
            let length = self.meta[cell as usize].length;
            self.bytes.copy_within(from..from + length, to);
            self.enqueue(copy, second, host);
        }
    }

    fn enqueue(&mut self, cell: Cell, delay: Duration, host: Option<u16>) {
        let arrival = self.now.after(delay).0;
        self.order += 1;
        let queue = match host {
            Some(host) => &mut self.workers[usize::from(host)],
            None => &mut self.peers,
        };
        queue.push(Reverse((arrival, self.order, cell)));
    }

    /// The next cell that has arrived at a worker by now; give it back with [`Self::release`].
    pub(super) fn arrived_at(&mut self, host: u16) -> Option<Cell> {
        let queue = &mut self.workers[usize::from(host)];
        pop_due(queue, self.now).map(|(_, cell)| cell)
    }

    /// Source, destination and payload of a cell.
    pub(super) fn datagram(&self, cell: Cell) -> (SocketAddr, SocketAddr, &[u8]) {
        let Meta { from, to, length } = self.meta[cell as usize];
        let at = cell as usize * DATAGRAM_MAX;
        (from, to, &self.bytes[at..at + length])
    }

    pub(super) fn release(&mut self, cell: Cell) {
        self.free.push(cell);
    }

    pub(super) fn peer_receive(&mut self, buffer: &mut [u8]) -> Option<Arrival> {
        let (at, cell) = pop_due(&mut self.peers, self.now)?;
        let (from, to, payload) = self.datagram(cell);
        let length = payload.len().min(buffer.len());
        buffer[..length].copy_from_slice(&payload[..length]);
        self.release(cell);
        self.counters.to_peers += 1;
        Some(Arrival { from, to, length, at })
    }

    pub(super) fn digest(&self) -> u64 {
        self.digest.0
    }

    pub(super) fn in_flight(&self) -> usize {
        self.meta.len() - self.free.len()
    }

    fn take(&mut self) -> Cell {
        if self.free.is_empty() {
            self.grow(self.meta.len());
        }
        self.free.pop().unwrap_or_else(|| unreachable!("just grown"))
    }

    fn grow(&mut self, more: usize) {
        let (old, new) = (self.meta.len(), self.meta.len() + more);
        let nowhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        self.meta.resize(
            new,
            Meta {
                from: nowhere,
                to: nowhere,
                length: 0,
            },
        );
        if old == 0 {
            // Fresh zeroed pages cost nothing until they are used.
            self.bytes = vec![0; new * DATAGRAM_MAX];
        } else {
            self.bytes.resize(new * DATAGRAM_MAX, 0);
        }
        let cells = |count: usize| Cell::try_from(count).unwrap_or(Cell::MAX);
        self.free.reserve(new);
        self.free.extend((cells(old)..cells(new)).rev());
    }
}

fn pop_due(queue: &mut Queue, now: Timestamp) -> Option<(Timestamp, Cell)> {
    let Reverse((at, _, _)) = queue.peek()?;
    if *at > now.0 {
        return None;
    }
    queue.pop().map(|Reverse((at, _, cell))| (Timestamp(at), cell))
}

/// What becomes of one datagram: the delays of its copies.
#[derive(Debug, Clone, Copy)]
struct Fate {
    first: Option<Duration>,
    second: Option<Duration>,
}

/// One direction with draws of its own, so that traffic one way does not change luck the other way.
#[derive(Debug)]
struct Direction {
    loss: u32,
    duplication: u32,
    delay: Duration,
    variance_ns: u64,
    draws: SplitMix,
}

impl Direction {
    fn new(impairment: &Impairment, seed: u64) -> Self {
        Self {
            loss: threshold(impairment.loss),
            duplication: threshold(impairment.duplication),
            delay: impairment.delay,
            variance_ns: u64::try_from(impairment.variance.as_nanos()).unwrap_or(u64::MAX),
            draws: SplitMix(seed),
        }
    }

    fn draw(&mut self) -> Fate {
        if self.loss | self.duplication != 0 {
            let [loss, duplication] = halves(self.draws.next());
            if loss < self.loss {
                return Fate {
                    first: None,
                    second: None,
                };
            }
            let first = Some(self.delay());
            let second = (duplication < self.duplication).then(|| self.delay());
            return Fate { first, second };
        }
        Fate {
            first: Some(self.delay()),
            second: None,
        }
    }

    fn delay(&mut self) -> Duration {
        if self.variance_ns == 0 {
            return self.delay;
        }
        let scaled = u128::from(self.draws.next()) * u128::from(self.variance_ns);
        self.delay + Duration::from_nanos(u64::try_from(scaled >> 64).unwrap_or(u64::MAX))
    }
}

/// A share of all `u32` values.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the product is clamped to the range of u32"
)]
fn threshold(share: f64) -> u32 {
    (share.clamp(0.0, 1.0) * f64::from(u32::MAX)) as u32
}

#[expect(clippy::cast_possible_truncation, reason = "the halves are what is wanted")]
fn halves(draw: u64) -> [u32; 2] {
    [(draw >> 32) as u32, draw as u32]
}

/// `SplitMix64` (Steele, Lea, Flood 2014): small, fast, and good enough for a network.
#[derive(Debug)]
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// A running 64-bit digest, eight bytes at a step. Not cryptographic.
#[derive(Debug, Clone, Copy)]
struct Digest(u64);

impl Digest {
    fn word(&mut self, word: u64) {
        self.0 = (self.0 ^ word)
            .wrapping_mul(0x9fb2_1c65_1e98_df25)
            .rotate_left(29);
    }

    fn datagram(&mut self, at: Timestamp, from: SocketAddr, to: SocketAddr, payload: &[u8]) {
        self.word(at.0);
        for address in [from, to] {
            match address.ip() {
                IpAddr::V4(ip) => self.word(u64::from(ip.to_bits())),
                IpAddr::V6(ip) => ip
                    .octets()
                    .as_chunks()
                    .0
                    .iter()
                    .for_each(|&half| self.word(u64::from_le_bytes(half))),
            }
            self.word(u64::from(address.port()));
        }
        self.word(payload.len() as u64);
        let (words, rest) = payload.as_chunks();
        words.iter().for_each(|&word| self.word(u64::from_le_bytes(word)));
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.word(u64::from_le_bytes(last));
    }
}
