//! The engine of one worker: tables, and the four doors of the crate.

mod apply;
mod calendar;
mod failure;
mod outbox;
mod receive;
pub(crate) mod roster;
pub mod share;
pub mod slices;
pub mod state;
mod table;
mod tick;

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::command::{Command, ConferenceIndex, EndpointIndex, Outcome, Retired};
pub use crate::conference::{Conference, ConferenceSetup};
use crate::counters::Counters;
use crate::demux::PortMap;
pub use crate::endpoint::{Endpoint, EndpointBox, EndpointSetup};
use crate::event::Event;
use crate::mix::heard::Mix;
use crate::packet::{Datagram, PacketSink};
use crate::time::{Slot, Timestamp};

use calendar::Calendar;
use outbox::{Events, RetiredBoxes};
use roster::{OwnSsrcs, Roster};
use share::Share;
use slices::Slices;
use table::Endpoints;

/// Sizes of an engine, fixed at construction.
#[derive(Debug, Clone, Copy)]
pub struct EngineLimits {
    /// Conferences at most.
    pub conferences: u32,
    /// Endpoints at most; below 65,536, so that no sum of frames overflows.
    pub endpoints: u32,
    /// First local RTP port of this engine.
    pub port_first: u16,
    /// Last local RTP port of this engine.
    pub port_last: u16,
    /// Events kept until polled.
    pub events: usize,
    /// No RTP for so many milliseconds is a media timeout (spec M-23: 60,000).
    pub media_timeout_ms: u32,
}

/// Longest SRTP packet; no payload that a jitter slot holds comes near.
const SCRATCH_BYTES: usize = 2_048;

/// See the crate's documentation.
#[derive(Debug)]
pub struct Engine {
    conferences: Vec<Option<Box<Conference>>>,
    /// By the same index: those that are shared with other engines.
    shares: Vec<Option<Box<Share>>>,
    /// Where there is one.
    shared: Vec<ConferenceIndex>,
    /// Those that are sent to in several slots.
    slices: Slices,
    /// Those that have something to tell.
    telling: Vec<ConferenceIndex>,
    endpoints: Endpoints,
    ports: PortMap,
    roster: Roster,
    own_ssrcs: OwnSsrcs,
    calendar: Calendar,
    /// Bit n: in conferences of phase n packets may wait for half a tick.
    deferring: u32,
    events: Events,
    retired: RetiredBoxes,
    counters: Counters,
    mix: Mix,
    trunk_mix: Mix,
    media_timeout_ms: u32,
    csrc: bool,
    /// An SRTP packet while it is decrypted.
    scratch: Box<[u8; SCRATCH_BYTES]>,
    /// When slot 0 began; the first slot run tells it.
    origin: Option<Timestamp>,
}

impl Engine {
    /// An empty engine; everything it will ever need is allocated here.
    ///
    /// # Panics
    /// With 65,536 endpoints or more.
    #[must_use]
    pub fn new(limits: EngineLimits) -> Self {
        assert!(
            limits.endpoints <= u32::from(u16::MAX),
            "more endpoints than ports"
        );
        let (conferences, endpoints) = (limits.conferences as usize, limits.endpoints as usize);
        Self {
            conferences: std::iter::repeat_with(|| None).take(conferences).collect(),
            shares: std::iter::repeat_with(|| None).take(conferences).collect(),
            shared: Vec::with_capacity(conferences),
            slices: Slices::new(conferences, limits.endpoints),
            telling: Vec::with_capacity(conferences),
            endpoints: Endpoints::new(endpoints),
            ports: PortMap::new(limits.port_first, limits.port_last),
            roster: Roster::new(endpoints),
            own_ssrcs: OwnSsrcs::new(endpoints),
            calendar: Calendar::new(conferences),
            // A state that is taken over may hold some.
            deferring: u32::MAX,
            events: Events::new(limits.events),
            retired: RetiredBoxes::new(2 * conferences + endpoints),
            counters: Counters::default(),
            mix: Mix::new(),
            trunk_mix: Mix::new(),
            media_timeout_ms: limits.media_timeout_ms,
            csrc: true,
            scratch: Box::new([0; SCRATCH_BYTES]),
            origin: None,
        }
    }

    /// Says when slot 0 began. Without it the first slot run is taken to be on time.
    pub fn set_origin(&mut self, origin: Timestamp) {
        self.origin = Some(origin);
    }

    /// Whether packets list their contributing sources (M-02). On unless switched off.
    pub fn set_csrc(&mut self, on: bool) {
        self.csrc = on;
    }

    /// Takes one datagram. Never fails: what cannot be used is counted.
    pub fn handle_datagram(&mut self, datagram: &Datagram<'_>) {
        match catch_unwind(AssertUnwindSafe(|| self.receive(datagram))) {
            Ok(Ok(())) => {}
            Ok(Err(reason)) => self.counters.drop_packet(reason),
            Err(_) => self.fail_receiver(datagram.local_port),
        }
    }

    /// Applies one command. `_slot` is the slot about to run.
    pub fn apply(
        &mut self,
        now: Timestamp,
        _slot: Slot,
        command: Command,
        sink: &mut impl PacketSink,
    ) -> Outcome {
        self.apply_command(now, command, sink)
    }

    /// Runs one slot: every conference whose phase it is gets its tick. `now` is the time the slot
    /// actually runs, which is after [`Slot::begins`] when the worker is late. Slots must be run in
    /// order and none left out; a late worker runs those it missed one after the other.
    pub fn run_slot(&mut self, slot: Slot, now: Timestamp, sink: &mut impl PacketSink) {
        let due = self.begins(slot, now);
        self.tick_slot(slot, due, now, sink);
    }

    /// When `slot` should begin.
    fn begins(&mut self, slot: Slot, now: Timestamp) -> Timestamp {
        let elapsed = slot.begins(Timestamp(0)).0;
        let origin = *self
            .origin
            .get_or_insert(Timestamp(now.0.saturating_sub(elapsed)));
        slot.begins(origin)
    }

    /// Next event, oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.poll()
    }

    /// Next box that must be dropped by control, outside of command outcomes: what was in a
    /// conference that failed. A [`Retired::Conference`] comes before its endpoints and with
    /// [`EndpointIndex`]`(u32::MAX)`; [`crate::event::EventKind::ConferenceFailed`] names it.
    pub fn poll_retired(&mut self) -> Option<(EndpointIndex, Retired)> {
        self.retired.poll()
    }

    /// Whether [`Self::poll_retired`] has any.
    #[must_use]
    pub fn has_retired(&self) -> bool {
        !self.retired.is_empty()
    }

    /// Counters since the start.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}
