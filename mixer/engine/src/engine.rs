//! The engine of one worker.

use crate::command::{Command, EndpointIndex, Outcome, Refusal, Retired};
use crate::counters::Counters;
use crate::event::Event;
use crate::media::MediaPlan;
use crate::packet::{Datagram, PacketSink};
use crate::time::{Slot, Timestamp};

/// Sizes of an engine, fixed at construction.
#[derive(Debug, Clone, Copy)]
pub struct EngineLimits {
    /// Conferences at most.
    pub conferences: u32,
    /// Endpoints at most.
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

/// What control decides about a new conference.
#[derive(Debug, Clone, Copy)]
pub struct ConferenceSetup {
    /// Slot within a tick at which it is mixed, 0 to 19.
    pub phase: u8,
}

/// Media side of a conference.
#[derive(Debug)]
pub struct Conference {}

impl Conference {
    /// Builds an empty conference (allocates: control only).
    #[must_use]
    pub fn new(_setup: ConferenceSetup) -> Box<Self> {
        Box::new(Self {})
    }
}

/// What control decides about a new endpoint.
#[derive(Debug, Clone, Copy)]
pub struct EndpointSetup {
    /// Local RTP port.
    pub local_port: u16,
    /// SSRC of what we send (random).
    pub ssrc: u32,
    /// First sequence number (random).
    pub sequence: u16,
    /// First RTP timestamp (random).
    pub timestamp: u32,
    /// Media, if known already.
    pub media: Option<MediaPlan>,
    /// Jitter slots: 16, or 32 for bad networks.
    pub slots: u8,
}

/// One RTP leg.
#[derive(Debug)]
pub struct Endpoint {}

impl Endpoint {
    /// Builds an endpoint (allocates: control only).
    #[must_use]
    pub fn new(_setup: EndpointSetup) -> Box<Self> {
        Box::new(Self {})
    }
}

/// See the crate's documentation.
#[derive(Debug)]
pub struct Engine {
    counters: Counters,
}

impl Engine {
    /// An empty engine; everything it will ever need is allocated here.
    #[must_use]
    pub fn new(_limits: EngineLimits) -> Self {
        Self { counters: Counters::default() }
    }

    /// Takes one datagram. Never fails: what cannot be used is counted.
    pub fn handle_datagram(&mut self, _datagram: &Datagram<'_>) {}

    /// Applies one command. `slot` is the slot about to run.
    pub fn apply(
        &mut self,
        _now: Timestamp,
        _slot: Slot,
        _command: Command,
        _sink: &mut impl PacketSink,
    ) -> Outcome {
        Outcome { result: Err(Refusal::NotFound), retired: None::<Retired> }
    }

    /// Runs one slot: every conference whose phase it is gets its tick. `now` is the time the slot
    /// actually runs, which is after [`Slot::begins`] when the worker is late.
    pub fn run_slot(&mut self, _slot: Slot, _now: Timestamp, _sink: &mut impl PacketSink) {}

    /// Next event, oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        None
    }

    /// Next box that must be dropped by control, outside of command outcomes.
    pub fn poll_retired(&mut self) -> Option<(EndpointIndex, Retired)> {
        None
    }

    /// Counters since the start.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}
