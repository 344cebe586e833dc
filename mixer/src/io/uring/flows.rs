//! Which flow uses which place in the ring's file table, and what its receive is doing.
//!
//! A place is not the flow's number: a closed flow's place stays taken until the kernel has let go of
//! its socket, while the flow's number may be opened again at once.

use std::collections::VecDeque;
use std::net::SocketAddr;

use mixer_engine::packet::FlowId;

use super::address::{self, RawAddress};
use super::socket::UringPrepared;
use crate::io::OpenFlow;

/// A place in the file table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(pub(super) u32);

/// What a place is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Free.
    Free,
    /// Open; its receive waits to be (re-)armed.
    Unarmed,
    /// Open; its multishot receive is with the kernel.
    Armed,
    /// Closing; the receive must be cancelled yet.
    Closing,
    /// Closing; the kernel was asked to cancel.
    Cancelling,
    /// Closed; the socket waits to be fetched.
    Closed,
}

/// One place.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) state: State,
    pub(super) local_port: u16,
    pub(super) remote: Option<RawAddress>,
    prepared: Option<UringPrepared>,
    /// Whether it is on the list of places that need a request.
    listed: bool,
}

/// The table. Fixed size; nothing allocates after construction.
#[derive(Debug)]
pub(super) struct Flows {
    /// Flow number to place, or [`NOWHERE`].
    flows: Box<[u32]>,
    places: Box<[Entry]>,
    free: Vec<u32>,
    /// Places that need a request: arm or cancel.
    needy: Vec<u32>,
    closed: VecDeque<u32>,
}

const NOWHERE: u32 = u32::MAX;

impl Flows {
    /// A table for the flows 0 to `flows - 1`, with `closing` more places for those on their way out.
    pub(super) fn new(flows: u32, closing: u32) -> Self {
        let places = flows + closing;
        let entry = || Entry {
            state: State::Free,
            local_port: 0,
            remote: None,
            prepared: None,
            listed: false,
        };
        Self {
            flows: vec![NOWHERE; flows as usize].into_boxed_slice(),
            places: (0..places).map(|_| entry()).collect(),
            free: (0..places).rev().collect(),
            needy: Vec::with_capacity(places as usize),
            closed: VecDeque::with_capacity(places as usize),
        }
    }

    /// The place of an open flow.
    pub(super) fn place(&self, flow: FlowId) -> Option<Place> {
        let place = *self.flows.get(flow.0 as usize)?;
        (place != NOWHERE).then_some(Place(place))
    }

    /// The entry of a place; `None` for a number out of range.
    pub(super) fn entry(&mut self, place: Place) -> Option<&mut Entry> {
        self.places.get_mut(place.0 as usize)
    }

    /// The place that [`Self::open`] would use for `flow`; `None` when the flow is open already, out
    /// of range, or no place is free.
    pub(super) fn vacancy(&self, flow: FlowId) -> Option<Place> {
        let known = *self.flows.get(flow.0 as usize)?;
        if known != NOWHERE {
            return None;
        }
        self.free.last().copied().map(Place)
    }

    /// Opens `flow` at its vacancy.
    pub(super) fn open(&mut self, flow: FlowId, local: SocketAddr, prepared: UringPrepared) {
        let Some(place) = self.free.pop() else { return };
        self.flows[flow.0 as usize] = place;
        let entry = &mut self.places[place as usize];
        assert!(entry.state == State::Free, "place {place} is {:?}", entry.state);
        entry.state = State::Unarmed;
        entry.local_port = local.port();
        entry.remote = None;
        entry.prepared = Some(prepared);
        self.list(Place(place));
    }

    /// Begins to close `flow` and tells its place, whose state is then [`State::Unarmed`] (nothing
    /// is with the kernel: [`Self::release`] it) or [`State::Closing`].
    pub(super) fn close(&mut self, flow: FlowId) -> Option<Place> {
        let place = self.place(flow)?;
        self.flows[flow.0 as usize] = NOWHERE;
        let entry = &mut self.places[place.0 as usize];
        if entry.state == State::Armed {
            entry.state = State::Closing;
            self.list(place);
        }
        Some(place)
    }

    /// The last receive of `place` has ended; true when it was closing and is closed now.
    pub(super) fn receive_ended(&mut self, place: Place) -> bool {
        let Some(entry) = self.places.get_mut(place.0 as usize) else {
            return false;
        };
        match entry.state {
            State::Armed => {
                entry.state = State::Unarmed;
                self.list(place);
                false
            }
            State::Closing | State::Cancelling => {
                entry.state = State::Closed;
                self.closed.push_back(place.0);
                true
            }
            State::Free | State::Unarmed | State::Closed => false,
        }
    }

    /// Puts `place` on the list of those that need a request.
    pub(super) fn list(&mut self, place: Place) {
        let entry = &mut self.places[place.0 as usize];
        if !entry.listed {
            entry.listed = true;
            self.needy.push(place.0);
        }
    }

    /// Takes a place off that list.
    pub(super) fn next_needy(&mut self) -> Option<Place> {
        let place = self.needy.pop()?;
        self.places[place as usize].listed = false;
        Some(Place(place))
    }

    /// Frees a place whose file has left the table.
    pub(super) fn release(&mut self, place: Place) -> Option<UringPrepared> {
        let entry = self.places.get_mut(place.0 as usize)?;
        if entry.state == State::Free {
            return None;
        }
        entry.state = State::Free;
        self.free.push(place.0);
        entry.prepared.take()
    }

    /// The next place whose receive has ended for good, oldest first: its file must leave the table
    /// before it is released.
    pub(super) fn next_closed(&mut self) -> Option<Place> {
        self.closed.pop_front().map(Place)
    }

    /// All open flows with their sockets; they are not open here any more. Nothing of theirs may be
    /// with the kernel.
    pub(super) fn take_open(&mut self) -> Vec<OpenFlow<UringPrepared>> {
        let mut open = Vec::new();
        for (flow, place) in (0..).zip(&mut self.flows) {
            let place = std::mem::replace(place, NOWHERE);
            let Some(entry) = self.places.get_mut(place as usize) else {
                continue;
            };
            entry.state = State::Closed;
            let remote = entry.remote.take();
            open.extend(entry.prepared.take().map(|prepared| OpenFlow {
                flow: FlowId(flow),
                local: prepared.local(),
                remote: remote.and_then(|raw| address::parse(&raw.bytes[..usize::from(raw.length)])),
                prepared,
            }));
        }
        open
    }

    /// Places whose receive is with the kernel, or may be.
    pub(super) fn in_flight(&self) -> usize {
        let busy = |entry: &&Entry| matches!(entry.state, State::Armed | State::Closing | State::Cancelling);
        self.places.iter().filter(busy).count()
    }
}

#[cfg(test)]
mod tests {
    use super::super::socket::{BindOptions, bind};
    use super::*;

    fn socket() -> UringPrepared {
        bind("127.0.0.1:0".parse().unwrap(), &BindOptions::default()).unwrap()
    }

    fn open(flows: &mut Flows, flow: u32) -> Option<Place> {
        let place = flows.vacancy(FlowId(flow))?;
        let prepared = socket();
        flows.open(FlowId(flow), prepared.local(), prepared);
        Some(place)
    }

    #[test]
    fn a_flow_number_is_free_again_before_its_place() {
        let mut flows = Flows::new(1, 1);
        let first = open(&mut flows, 0).unwrap();
        assert_eq!(flows.next_needy(), Some(first));
        flows.entry(first).unwrap().state = State::Armed;
        assert_eq!(flows.vacancy(FlowId(0)), None, "open already");
        assert_eq!(flows.vacancy(FlowId(1)), None, "out of range");

        assert_eq!(flows.close(FlowId(0)), Some(first));
        assert_eq!(flows.entry(first).unwrap().state, State::Closing);
        let second = open(&mut flows, 0).unwrap();
        assert_ne!(first, second);
        flows.close(FlowId(0));
        assert_eq!(flows.entry(second).unwrap().state, State::Unarmed);
        assert!(flows.release(second).is_some());
        assert!(flows.release(second).is_none());

        assert!(flows.next_closed().is_none());
        assert!(flows.receive_ended(first));
        assert!(!flows.receive_ended(first), "only once");
        assert_eq!(flows.next_closed(), Some(first));
        assert!(flows.release(first).is_some());
        assert_eq!(flows.free.len(), 2);
        assert_eq!(flows.in_flight(), 0);
    }

    #[test]
    fn a_place_is_listed_once() {
        let mut flows = Flows::new(2, 0);
        let place = open(&mut flows, 1).unwrap();
        flows.list(place);
        assert_eq!(flows.next_needy(), Some(place));
        assert_eq!(flows.next_needy(), None);
        flows.entry(place).unwrap().state = State::Armed;
        assert!(!flows.receive_ended(place));
        assert_eq!(flows.next_needy(), Some(place));
    }
}
