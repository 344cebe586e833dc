//! The jitter buffer of one endpoint: RTP payloads in whenever they come, one 20 ms frame out at
//! every tick.

use crate::codec::{self};
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JitterCounters {
    /// Packets kept.
    pub received: u64,
    /// Packets whose tick had passed.
    pub late: u64,
    /// Packets seen twice.
    pub duplicate: u64,
    /// Packets without a free slot.
    pub early: u64,
    /// Frames concealed, wholly or in part.
    pub concealed: u64,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct JitterBuffer {
    counters: JitterCounters,
}

impl JitterBuffer {
    /// An empty buffer; everything it will ever need is allocated here.
    #[must_use]
    pub fn new(_setup: JitterSetup) -> Self {
        Self {
            counters: JitterCounters::default(),
        }
    }

    /// Takes one packet that arrived at `now`. Outcomes of frames that become known by it are
    /// counted in `counters`; the packet itself is the caller's to count.
    pub fn insert(
        &mut self,
        _now: Timestamp,
        _packet: PacketMeta,
        payload: &[u8],
        _counters: &mut Counters,
    ) -> Insert {
        let _ = codec::samples(_packet.codec, payload);
        Insert::Early
    }

    /// Fills `out` for the tick that nominally begins at `tick_begins` and runs at `now`. Every
    /// frame owed is counted in `counters` once, when its outcome is known.
    pub fn pull(
        &mut self,
        _tick_begins: Timestamp,
        _now: Timestamp,
        out: &mut [i16; FRAME],
        _counters: &mut Counters,
    ) -> Pulled<'_> {
        out.fill(0);
        Pulled {
            frame: FrameKind::Nothing,
            passthrough: None,
        }
    }

    /// Forgets the source and what waits: the next packet is a first packet. For a hold, a new
    /// media description, or the end.
    pub fn reset(&mut self, _counters: &mut Counters) {}

    /// SSRC of the source; absent before its first packet.
    #[must_use]
    pub fn ssrc(&self) -> Option<u32> {
        None
    }

    /// Counters since construction.
    #[must_use]
    pub fn counters(&self) -> JitterCounters {
        self.counters
    }

    /// Sequence numbers that did not come, as far as known.
    #[must_use]
    pub fn lost(&self) -> u64 {
        0
    }

    /// From arrival of a frame to its tick, microseconds, smoothed.
    #[must_use]
    pub fn playout_delay_us(&self) -> u32 {
        0
    }
}
