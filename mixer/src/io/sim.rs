//! An in-memory network with a virtual clock: loss, duplication, delay and its variance, by seed.
//!
//! [`SimNet`] is shared, on one thread, by workers (through [`SimIo`]) and simulated phones (which
//! call [`SimNet::peer_send`] and [`SimNet::peer_receive`]). Everything that happens is a function of
//! the seed and of the calls: same seed and same calls, same bytes, held by [`SimNet::digest`].
//! Delay variance is what reorders datagrams. Time moves only by [`SimNet::advance_to`] and
//! [`PacketIo::wait`]. Nothing allocates while no more datagrams are on their way than
//! [`SimConfig::in_flight`].

mod net;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use mixer_engine::packet::{Datagram, Filled, FlowId, PacketSink};
use mixer_engine::time::Timestamp;

use self::net::Net;
use super::{Intake, IoCounters, OpenFlow, PacketIo};
use crate::limits;

/// What one direction does to datagrams.
#[derive(Debug, Clone, Copy, Default)]
pub struct Impairment {
    /// Share of datagrams lost, 0.0 to 1.0.
    pub loss: f64,
    /// Share of the others that arrive twice, 0.0 to 1.0.
    pub duplication: f64,
    /// Delay of every datagram.
    pub delay: Duration,
    /// Further delay, evenly spread from nothing to this, drawn for each datagram.
    pub variance: Duration,
}

/// How a [`SimNet`] behaves.
#[derive(Debug, Clone, Copy)]
pub struct SimConfig {
    /// Decides every draw.
    pub seed: u64,
    /// From phones to workers.
    pub to_workers: Impairment,
    /// From workers to phones.
    pub to_peers: Impairment,
    /// Datagrams on their way for which memory is set aside; more are possible, but allocate.
    pub in_flight: usize,
    /// Longest UDP payload a worker can receive; longer ones are dropped and counted.
    pub payload_max: usize,
    /// Datagrams a worker can transmit between two flushes.
    pub send_buffers: u32,
    /// Closed flows give back what was prepared a millisecond later instead of at once.
    pub slow_close: bool,
}

impl Default for SimConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            to_workers: Impairment::default(),
            to_peers: Impairment::default(),
            in_flight: 4_096,
            payload_max: limits::RECEIVE_BUFFER_SIZE as usize - 44,
            send_buffers: 65_536,
            slow_close: false,
        }
    }
}

/// What a network has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SimCounters {
    /// Sent by workers, lost ones included.
    pub from_workers: u64,
    /// Sent by phones, lost ones included.
    pub from_peers: u64,
    /// Lost on the way.
    pub lost: u64,
    /// Doubled on the way.
    pub duplicated: u64,
    /// Handed to workers.
    pub to_workers: u64,
    /// Handed to phones.
    pub to_peers: u64,
    /// Arrived at a port that no worker has open.
    pub unreachable: u64,
}

/// A datagram as it arrives at a phone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// The worker's address.
    pub from: SocketAddr,
    /// The phone's address.
    pub to: SocketAddr,
    /// Bytes of payload written to the caller's buffer.
    pub length: usize,
    /// When it arrived.
    pub at: Timestamp,
}

/// The network. Copies are handles to the same one.
#[derive(Debug, Clone)]
pub struct SimNet(Rc<RefCell<Net>>);

impl SimNet {
    /// An empty network at time 0.
    #[must_use]
    pub fn new(config: &SimConfig) -> Self {
        Self(Rc::new(RefCell::new(Net::new(config))))
    }

    /// Packet I/O for one worker, with the flows 0 to `flows - 1`. Workers share the port space:
    /// a port belongs to the worker that opened it, whatever its address.
    #[must_use]
    pub fn attach(&self, flows: u32) -> SimIo {
        let (host, config) = self.0.borrow_mut().attach();
        SimIo {
            net: Rc::clone(&self.0),
            host,
            flows: vec![None; flows as usize].into_boxed_slice(),
            closing: VecDeque::with_capacity(flows as usize),
            unflushed: 0,
            counters: IoCounters::default(),
            now: Timestamp(0),
            config,
        }
    }

    /// The virtual time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.0.borrow().now
    }

    /// Moves the virtual time forward; never back.
    pub fn advance_to(&self, time: Timestamp) {
        self.0.borrow_mut().advance_to(time);
    }

    /// A phone sends. Payloads beyond [`limits::DATAGRAM_MAX`] are cut.
    pub fn peer_send(&self, from: SocketAddr, to: SocketAddr, payload: &[u8]) {
        self.0.borrow_mut().peer_send(from, to, payload);
    }

    /// The next datagram that has arrived at any phone by now, in order of arrival; its payload is
    /// written to `buffer`, as far as it fits.
    pub fn peer_receive(&self, buffer: &mut [u8]) -> Option<Arrival> {
        self.0.borrow_mut().peer_receive(buffer)
    }

    /// Digest of everything the workers have sent so far: when, from where, where to, and what.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.0.borrow().digest()
    }

    /// What has happened.
    #[must_use]
    pub fn counters(&self) -> SimCounters {
        self.0.borrow().counters
    }

    /// Datagrams on their way or not fetched yet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.0.borrow().in_flight()
    }
}

/// What control prepares for a flow here: nothing but the address. Its drop frees nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SimPrepared(pub SocketAddr);

#[derive(Debug, Clone, Copy)]
struct Flow {
    local: SocketAddr,
    remote: Option<SocketAddr>,
    prepared: SimPrepared,
}

/// One worker's end of a [`SimNet`].
#[derive(Debug)]
pub struct SimIo {
    net: Rc<RefCell<Net>>,
    host: u16,
    flows: Box<[Option<Flow>]>,
    closing: VecDeque<(Timestamp, SimPrepared)>,
    unflushed: u32,
    counters: IoCounters,
    now: Timestamp,
    config: SimConfig,
}

impl SimIo {
    fn flow(&mut self, flow: FlowId) -> Option<&mut Flow> {
        self.flows.get_mut(flow.0 as usize)?.as_mut()
    }
}

impl PacketSink for SimIo {
    fn transmit<F: Into<Filled>>(&mut self, flow: FlowId, fill: impl FnOnce(&mut [u8]) -> F) -> bool {
        let Some(&mut Flow { local, remote, .. }) = self.flow(flow) else {
            self.counters.unknown_flow += 1;
            return false;
        };
        let Some(remote) = remote else {
            self.counters.no_remote += 1;
            return false;
        };
        if self.unflushed == self.config.send_buffers {
            self.counters.no_send_buffer += 1;
            return false;
        }
        self.unflushed += 1;
        self.counters.sent += 1;
        self.net
            .borrow_mut()
            .worker_send(local, remote, |buffer| fill(buffer).into().length);
        true
    }

    fn set_remote(&mut self, flow: FlowId, remote: SocketAddr) {
        match self.flow(flow) {
            Some(flow) => flow.remote = (!remote.ip().is_unspecified()).then_some(remote),
            None => self.counters.unknown_flow += 1,
        }
    }
}

impl PacketIo for SimIo {
    type Prepared = SimPrepared;

    fn now(&mut self) -> Timestamp {
        self.now = self.net.borrow().now;
        self.now
    }

    fn receive_into(&mut self, budget: u32, intake: &mut impl Intake) -> u32 {
        let mut net = self.net.borrow_mut();
        let mut taken = 0;
        while taken < budget {
            let Some(cell) = net.arrived_at(self.host) else {
                break;
            };
            let (source, to, payload) = net.datagram(cell);
            if payload.len() > self.config.payload_max {
                self.counters.truncated += 1;
            } else if !net.owns(self.host, to.port()) {
                net.counters.unreachable += 1;
            } else {
                let (local_port, received_at) = (to.port(), self.now);
                intake.take(&Datagram {
                    local_port,
                    source,
                    payload,
                    received_at,
                });
                net.counters.to_workers += 1;
                taken += 1;
            }
            net.release(cell);
        }
        self.counters.received += u64::from(taken);
        taken
    }

    fn open_flow(
        &mut self,
        flow: FlowId,
        local: SocketAddr,
        prepared: SimPrepared,
    ) -> Result<(), SimPrepared> {
        match self.flows.get_mut(flow.0 as usize) {
            Some(place @ None) if self.net.borrow_mut().open(self.host, local.port()) => {
                *place = Some(Flow {
                    local,
                    remote: None,
                    prepared,
                });
                Ok(())
            }
            Some(_) | None => Err(prepared),
        }
    }

    fn close_flow(&mut self, flow: FlowId) -> Option<SimPrepared> {
        let Flow { local, prepared, .. } = self.flows.get_mut(flow.0 as usize)?.take()?;
        self.net.borrow_mut().close(local.port());
        if self.config.slow_close {
            self.closing
                .push_back((self.now.after(Duration::from_millis(1)), prepared));
            return None;
        }
        Some(prepared)
    }

    fn poll_closed(&mut self) -> Option<SimPrepared> {
        let (due, prepared) = *self.closing.front()?;
        if due > self.now {
            return None;
        }
        self.closing.pop_front();
        Some(prepared)
    }

    fn flush(&mut self) {
        self.unflushed = 0;
    }

    fn wait(&mut self, until: Timestamp) -> bool {
        self.net.borrow_mut().advance_to(until);
        true
    }

    fn counters(&self) -> IoCounters {
        self.counters
    }

    fn hand_over(&mut self, mut on_datagram: impl FnMut(&Datagram<'_>)) -> Vec<OpenFlow<SimPrepared>> {
        self.receive(u32::MAX, &mut on_datagram);
        let mut open = Vec::new();
        for (number, place) in (0..).zip(&mut self.flows) {
            open.extend(place.take().map(|flow| {
                self.net.borrow_mut().close(flow.local.port());
                OpenFlow {
                    flow: FlowId(number),
                    local: flow.local,
                    remote: flow.remote,
                    prepared: flow.prepared,
                }
            }));
        }
        open
    }
}
