//! Which source is heard, and where in its sequence a packet stands (RFC 3550 A.1).

use serde::{Deserialize, Serialize};

use super::PacketMeta;

/// A packet's place in the sequence of its source. All numbers are extended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// First packet ever, of a proven new source, or after a proven jump.
    Fresh {
        sequence: u64,
        begins: u64,
        /// Whether something was heard before.
        resynced: bool,
    },
    /// Ahead of everything before it.
    Newer {
        sequence: u64,
        begins: u64,
        /// Where it would begin if the sender had left no gap.
        gap_from: u64,
        /// Where the newest packet before it ended.
        after: u64,
    },
    /// Behind the newest one, not seen before.
    Older { sequence: u64, begins: u64 },
    /// Seen before.
    Duplicate,
    /// A first sign of a new source or a jump; the next packet may prove it.
    Unproven,
}

/// Follows one endpoint's source.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Tracker {
    source: Option<Source>,
    candidate: Option<Candidate>,
    /// Lost from sources and time lines before this one.
    lost_before: u64,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename = "RtpSource")]
struct Source {
    ssrc: u32,
    first: u64,
    highest: u64,
    begins: u64,
    ends: u64,
    /// Bit n: `highest - n` was seen.
    seen: u64,
    /// Sequence numbers that came.
    came: u64,
}

/// What the next packet must be to prove a new source or a jump.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename = "SourceCandidate")]
struct Candidate {
    ssrc: u32,
    sequence: u16,
}

impl Tracker {
    /// SSRC of the source.
    pub(super) fn ssrc(&self) -> Option<u32> {
        self.source.map(|source| source.ssrc)
    }

    /// Where the newest packet ends; 0 before the first.
    pub(super) fn newest_ends(&self) -> u64 {
        self.source.map_or(0, |source| source.ends)
    }

    /// Where the newest packet begins; 0 before the first.
    pub(super) fn newest_begins(&self) -> u64 {
        self.source.map_or(0, |source| source.begins)
    }

    /// Sequence numbers that did not come (or not within 64 of the newest).
    pub(super) fn lost(&self) -> u64 {
        self.lost_before + self.source.map_or(0, Source::lost)
    }

    /// Forgets the source.
    pub(super) fn reset(&mut self) {
        *self = Self {
            lost_before: self.lost(),
            ..Self::default()
        };
    }

    /// Begins a new time line with a packet that `classify` found in order.
    pub(super) fn restart(&mut self, packet: &PacketMeta, samples: u64) -> (u64, u64) {
        self.lost_before = self.lost();
        let source = Source::new(packet, samples);
        self.source = Some(source);
        self.candidate = None;
        (source.highest, source.begins)
    }

    /// Says where a packet stands, and counts it as seen.
    pub(super) fn classify(&mut self, packet: &PacketMeta, samples: u64) -> Order {
        let Some(source) = &mut self.source else {
            let (sequence, begins) = self.restart(packet, samples);
            return Order::Fresh {
                sequence,
                begins,
                resynced: false,
            };
        };
        if packet.ssrc != source.ssrc {
            return self.probe(packet, samples);
        }
        let ahead = packet.sequence.wrapping_sub(source.highest_wire());
        let units = packet.timestamp.wrapping_sub(source.begins_wire()).cast_signed();
        if (1..MAX_DROPOUT).contains(&ahead) {
            if let Ok(units @ 1..) = u64::try_from(units) {
                self.candidate = None;
                return source.advance(ahead, units, samples);
            }
            if ahead == 1 && packet.marker {
                // A talk spurt on another clock: the sender tells that it is no accident.
                let (sequence, begins) = self.restart(packet, samples);
                return Order::Fresh {
                    sequence,
                    begins,
                    resynced: true,
                };
            }
            return self.probe(packet, samples);
        }
        let behind = 0_u16.wrapping_sub(ahead);
        if behind <= MAX_MISORDER {
            return source.look_back(u64::from(behind), units);
        }
        self.probe(packet, samples)
    }

    /// Counts a packet of the source that carries no audio as seen.
    pub(super) fn skip(&mut self, ssrc: u32, sequence: u16) {
        let Some(source) = self.source.as_mut().filter(|source| source.ssrc == ssrc) else {
            return;
        };
        let ahead = sequence.wrapping_sub(source.highest_wire());
        let behind = 0_u16.wrapping_sub(ahead);
        if (1..MAX_DROPOUT).contains(&ahead) {
            source.step(ahead);
        } else if behind <= MAX_MISORDER {
            source.look_back(u64::from(behind), 0);
        }
    }

    fn probe(&mut self, packet: &PacketMeta, samples: u64) -> Order {
        let proven = self
            .candidate
            .is_some_and(|candidate| candidate.ssrc == packet.ssrc && candidate.sequence == packet.sequence);
        if proven {
            let (sequence, begins) = self.restart(packet, samples);
            return Order::Fresh {
                sequence,
                begins,
                resynced: true,
            };
        }
        self.candidate = Some(Candidate {
            ssrc: packet.ssrc,
            sequence: packet.sequence.wrapping_add(1),
        });
        Order::Unproven
    }
}

impl Source {
    fn new(packet: &PacketMeta, samples: u64) -> Self {
        // Room to count backwards in.
        let sequence = (1 << 32) + u64::from(packet.sequence);
        let begins = (1 << 40) + u64::from(packet.timestamp);
        Self {
            ssrc: packet.ssrc,
            first: sequence,
            highest: sequence,
            begins,
            ends: begins + samples,
            seen: 1,
            came: 1,
        }
    }

    fn lost(self) -> u64 {
        (self.highest - self.first + 1).saturating_sub(self.came)
    }

    #[expect(clippy::cast_possible_truncation, reason = "the wire carries the lowest bits")]
    fn highest_wire(&self) -> u16 {
        self.highest as u16
    }

    #[expect(clippy::cast_possible_truncation, reason = "the wire carries the lowest bits")]
    fn begins_wire(&self) -> u32 {
        self.begins as u32
    }

    fn advance(&mut self, ahead: u16, units: u64, samples: u64) -> Order {
        let after = self.ends;
        let begins = self.begins + units;
        // What lies between is taken to be as long as this one.
        let gap_from = (after + u64::from(ahead - 1) * samples).min(begins);
        self.step(ahead);
        self.begins = begins;
        self.ends = begins + samples;
        Order::Newer {
            sequence: self.highest,
            begins,
            gap_from,
            after,
        }
    }

    fn step(&mut self, ahead: u16) {
        self.highest += u64::from(ahead);
        self.seen = self.seen.checked_shl(u32::from(ahead)).unwrap_or(0) | 1;
        self.came += 1;
    }

    fn look_back(&mut self, behind: u64, units: i32) -> Order {
        let sequence = self.highest - behind;
        // A timestamp that does not lie before the newest one is nonsense; 0 has passed long ago.
        let begins = if units < 0 {
            self.begins.saturating_sub(u64::from(units.unsigned_abs()))
        } else {
            0
        };
        if behind < u64::from(u64::BITS) {
            let bit = 1 << behind;
            if self.seen & bit != 0 {
                return Order::Duplicate;
            }
            self.seen |= bit;
            self.came += 1;
            self.first = self.first.min(sequence);
        }
        Order::Older { sequence, begins }
    }
}

/// A sequence number so far ahead is a jump (RFC 3550 A.1).
const MAX_DROPOUT: u16 = 3000;

/// A sequence number further behind is a jump (RFC 3550 A.1).
const MAX_MISORDER: u16 = 100;
