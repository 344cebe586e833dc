//! The jitter buffer of one endpoint: RTP payloads in whenever they come, one 20 ms frame out at
//! every tick.
//!
//! Playout runs on the RTP time line and is placed against the *tick*: the first packet of a time
//! line is played at the first tick that begins at least 3 ms after its arrival, so that a clean
//! network costs 3 to 23 ms whoever came first. From then on every tick advances the play position
//! by one frame; what is missing is concealed. When packets come after their ticks, frames are
//! inserted; when all packets of some seconds waited for more than a frame, one is left out. A clock
//! that is known to run apart from the ticks is followed in steps of a few samples.
//!
//! `arrival` places packets and adds delay, `playout` fills ticks and removes delay, `drift` tells
//! a clock that runs apart and `steps` follows it, `source` follows the sequence, `ledger` finds out
//! what became of concealed frames, `pace` measures.
//! Nothing allocates after construction; no input panics.

mod arrival;
mod drift;
mod ledger;
mod pace;
mod playout;
mod slots;
mod source;
mod steps;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::drift::Drift;
use self::ledger::Ledger;
use self::pace::{LateHistory, SlackWindow};
use self::slots::Slots;
use self::source::Tracker;
use crate::codec;
use crate::codec::plc::Concealer;
use crate::counters::{Counters, DropReason};
use crate::media::Codec;
use crate::time::Timestamp;

/// Samples of one tick (20 ms at 8 kHz).
pub const FRAME: usize = 160;

/// What control decides about a jitter buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JitterSetup {
    /// Slots, rounded to 16 or 32.
    pub slots: u8,
    /// Payload bytes one slot holds: 480 for G.711 up to 60 ms, 960 for L16.
    pub payload_bytes: u16,
}

/// What the buffer needs to know of a packet besides its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketMeta {
    /// Sequence number.
    pub sequence: u16,
    /// RTP timestamp.
    pub timestamp: u32,
    /// Marker bit.
    pub marker: bool,
    /// Synchronisation source.
    pub ssrc: u32,
    /// Codec of the payload.
    pub codec: Codec,
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Insert {
    /// Waits for its tick.
    Stored,
    /// Waits for its tick as the first packet of a new time line (RFC 3550 A.1, M-09, M-10).
    Resynced,
    /// Its tick has passed.
    Late,
    /// Seen before.
    Duplicate,
    /// So far ahead that no slot is left.
    Early,
    /// Begins something new that one packet does not prove.
    Probation,
    /// Its length does not fit the codec or the slots.
    BadLength,
}

impl Insert {
    /// Why the packet was dropped; absent when it was kept.
    #[must_use]
    pub fn drop_reason(self) -> Option<DropReason> {
        match self {
            Self::Stored | Self::Resynced => None,
            Self::Late => Some(DropReason::Late),
            Self::Duplicate => Some(DropReason::Duplicate),
            Self::Early => Some(DropReason::Early),
            Self::Probation => Some(DropReason::Probation),
            Self::BadLength => Some(DropReason::BadLength),
        }
    }
}

/// What a tick got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FrameKind {
    /// The source does not send: `out` is silence, and no frame is owed.
    Nothing,
    /// What the source sent.
    Decoded,
    /// What the source sent, and it is digital silence: `out` was left alone.
    Idle,
    /// Concealed, wholly or in part.
    Concealed,
}

/// Result of [`JitterBuffer::pull`].
#[derive(Debug, Clone, Copy)]
pub struct Pulled<'a> {
    /// What the tick got.
    pub frame: FrameKind,
    /// The payload that `out` was decoded from, when exactly one packet of 20 ms filled the tick
    /// and no sample was altered.
    pub passthrough: Option<(Codec, &'a [u8])>,
}

/// Counters of one buffer since its construction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JitterCounters {
    /// Packets kept.
    pub received: u64,
    /// Packets whose tick had passed.
    pub late: u64,
    /// Packets seen twice.
    pub duplicate: u64,
    /// Packets without a free slot.
    pub early: u64,
    /// Frames concealed, wholly or in part, and frames inserted.
    pub concealed: u64,
    /// Frames left out to shorten the delay or at a resynchronisation.
    pub left_out: u64,
    /// Times that the source was found to have stopped.
    pub stops: u64,
}

/// See the module's documentation. It is part of every endpoint, so what is large and seldom needed is behind
/// boxes.
#[derive(Debug, Serialize, Deserialize)]
#[repr(C)]
pub struct JitterBuffer {
    tracker: Tracker,
    slots: Slots,
    phase: Phase,
    /// Extended timestamp of the next sample to be played. Every tick advances it by a frame.
    position: u64,
    /// Where the last decoded samples ended.
    played_to: u64,
    last_tick: Option<Timestamp>,
    /// Smoothed playout delay in microseconds, times 2^`DELAY_SHIFT`.
    delay_us: Option<i64>,
    late: LateHistory,
    counters: JitterCounters,
    slack: SlackWindow,
    /// Ticks still to be filled without advancing the position.
    insertions: u8,
    /// Whether anything came since the last tick.
    arrived: bool,
    /// Wholly concealed frames in a row with nothing coming.
    silent_ticks: u8,
    /// Packets in a row that came too late.
    late_run: u8,
    /// Packets in a row that had no slot.
    early_run: u8,
    /// Ticks before another frame may be left out.
    shrink_pause: u8,
    /// Samples to be left out in small steps, or inserted when negative.
    repay: i16,
    /// Samples by which packets of 20 ms begin behind the beginning of a tick, because of such steps.
    offset: u8,
    /// Ticks in a row that found digital silence while something was to be done about either.
    idle_ticks: u8,
    concealer: Concealer,
    ledger: Ledger,
    drift: Box<Drift>,
}

/// Where the playout stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Phase {
    /// Nothing has come yet.
    Idle,
    /// A first packet waits for the first tick from then on.
    Waiting { not_before: Timestamp },
    /// Every tick owes a frame.
    Playing,
    /// The source stopped sending.
    Stopped,
}

impl JitterBuffer {
    /// An empty buffer; everything it will ever need is allocated here.
    #[must_use]
    pub fn new(setup: JitterSetup) -> Self {
        Self {
            slots: Slots::new(setup.slots, setup.payload_bytes),
            tracker: Tracker::default(),
            ledger: Ledger::default(),
            late: LateHistory::default(),
            slack: SlackWindow::new(),
            concealer: Concealer::new(),
            counters: JitterCounters::default(),
            phase: Phase::Idle,
            position: 0,
            played_to: 0,
            last_tick: None,
            delay_us: None,
            insertions: 0,
            arrived: false,
            silent_ticks: 0,
            late_run: 0,
            early_run: 0,
            shrink_pause: 0,
            repay: 0,
            offset: 0,
            idle_ticks: 0,
            drift: Box::new(Drift::new()),
        }
    }

    /// Takes one packet that arrived at `now`. Outcomes of frames that become known by it are
    /// counted in `counters`; the packet itself is the caller's to count.
    pub fn insert(
        &mut self,
        now: Timestamp,
        packet: PacketMeta,
        payload: &[u8],
        counters: &mut Counters,
    ) -> Insert {
        let samples = u16::try_from(codec::samples(packet.codec, payload)).unwrap_or(0);
        if !(1..=PACKET_SAMPLES_MAX).contains(&samples) || payload.len() > self.slots.payload_bytes() {
            return Insert::BadLength;
        }
        let insert = self.arrive(now, packet, payload, samples, counters);
        match insert {
            Insert::Stored | Insert::Resynced => self.counters.received += 1,
            Insert::Late => self.counters.late += 1,
            Insert::Duplicate => self.counters.duplicate += 1,
            Insert::Early => self.counters.early += 1,
            Insert::Probation | Insert::BadLength => {}
        }
        insert
    }

    /// Takes note of a packet of the same source that carries no audio (telephone-event, comfort
    /// noise): its sequence number is not lost, and the time it stands for is not owed.
    pub fn skip(&mut self, ssrc: u32, sequence: u16) {
        self.tracker.skip(ssrc, sequence);
    }

    /// Fills `out` for the tick that nominally begins at `tick_begins` and runs at `now`; to be
    /// called every 20 ms while the endpoint receives. Every frame owed is counted in `counters`
    /// once, when its outcome is known.
    pub fn pull(
        &mut self,
        tick_begins: Timestamp,
        now: Timestamp,
        out: &mut [i16; FRAME],
        counters: &mut Counters,
    ) -> Pulled<'_> {
        self.tick(tick_begins, now, out, counters)
    }

    /// Forgets the source and what waits: the next packet is a first packet. For a hold, a new
    /// media description, or the end.
    pub fn reset(&mut self, counters: &mut Counters) {
        self.abandon(self.tracker.newest_begins(), counters);
        self.tracker.reset();
        self.forget_clock();
        self.phase = Phase::Idle;
        self.insertions = 0;
        self.silent_ticks = 0;
        self.last_tick = None;
    }

    /// Clears what will not be read again, so that the state is short.
    pub(crate) fn tidy(&mut self) {
        self.concealer.tidy();
    }

    /// SSRC of the source; absent before its first packet.
    #[must_use]
    pub fn ssrc(&self) -> Option<u32> {
        self.tracker.ssrc()
    }

    /// Counters since construction.
    #[must_use]
    pub fn counters(&self) -> JitterCounters {
        self.counters
    }

    /// Sequence numbers that did not come, as far as known.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.tracker.lost()
    }

    /// From arrival of a frame to its tick, microseconds, smoothed.
    #[must_use]
    pub fn playout_delay_us(&self) -> u32 {
        u32::try_from(self.delay_us.unwrap_or(0) >> playout::DELAY_SHIFT).unwrap_or(u32::MAX)
    }
}

/// Microseconds that `samples` samples last.
fn samples_us(samples: u64) -> i32 {
    i32::try_from(samples.saturating_mul(125)).unwrap_or(i32::MAX)
}

/// Samples of one tick, as a length on the extended time line.
const FRAME_SAMPLES: u64 = 160;

/// Length of a tick.
const TICK: Duration = Duration::from_millis(20);
const TICK_US: i32 = 20_000;

/// The first packet of a time line waits at least so long for its tick.
const MARGIN: Duration = Duration::from_millis(3);
const MARGIN_US: i32 = 3_000;

/// Longest packet taken: 60 ms.
const PACKET_SAMPLES_MAX: u16 = 480;

#[cfg(test)]
mod tests;
