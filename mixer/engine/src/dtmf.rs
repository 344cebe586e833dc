//! Key presses out of telephone-event packets (RFC 4733 2.5.2; M-40 to M-43).
//!
//! One press is one (timestamp, event). It is reported once, when it ends: by its E bit, by the
//! beginning of another event, or when no packet of it came for [`TIMEOUT`]. Segments of a long
//! event (RFC 4733 2.5.1.3) are one press.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;
use crate::wire::telephone_event::TelephoneEvent;

/// Silence after which an event without E bit has ended: three packet intervals (RFC 4733 2.5.2.2).
pub const TIMEOUT: Duration = Duration::from_millis(60);

/// Time after an event in which audio stays out of the mix (M-43).
pub const HANGOVER: Duration = Duration::from_millis(40);

/// One finished key press.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Press {
    /// `0`-`9`, `*`, `#`, `A`-`D`, `F` for flash.
    pub digit: char,
    /// Milliseconds held, as far as known.
    pub duration_ms: u32,
}

/// Follows the events of one source.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct DtmfReceiver {
    running: Option<Running>,
    last: Option<Finished>,
    quiet_from: Option<Timestamp>,
}

/// An event that has not ended.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename = "RunningPress")]
struct Running {
    digit: Option<char>,
    event: u8,
    /// Timestamp of the current segment.
    timestamp: u32,
    /// Duration of the current segment.
    duration: u16,
    /// Duration of the segments before.
    segments: u32,
    updated_at: Timestamp,
}

/// The last event that ended.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Finished {
    timestamp: u32,
}

impl DtmfReceiver {
    /// Nothing heard yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one event packet. `report` gets what ended by it: at most two presses, when one event
    /// displaces another and ends at once.
    pub fn feed(
        &mut self,
        received_at: Timestamp,
        timestamp: u32,
        marker: bool,
        event: TelephoneEvent,
        mut report: impl FnMut(Press),
    ) {
        match self.running {
            Some(running) if running.timestamp == timestamp && running.event == event.event => {}
            Some(running) if running.continues(timestamp, marker, event) => {
                self.running = Some(Running {
                    timestamp,
                    duration: 0,
                    segments: running
                        .segments
                        .saturating_add(timestamp.wrapping_sub(running.timestamp)),
                    ..running
                });
            }
            _ if self.is_old(timestamp) => return,
            Some(_) | None => {
                self.finish(received_at, &mut report);
                self.running = Some(Running {
                    digit: event.digit(),
                    event: event.event,
                    timestamp,
                    duration: 0,
                    segments: 0,
                    updated_at: received_at,
                });
            }
        }
        if let Some(running) = &mut self.running {
            running.duration = running.duration.max(event.duration);
            running.updated_at = received_at;
        }
        if event.end {
            self.finish(received_at, &mut report);
        }
    }

    /// Ends an event whose packets stopped coming. To be called every tick.
    pub fn tick(&mut self, now: Timestamp) -> Option<Press> {
        if self.running?.updated_at.after(TIMEOUT) >= now {
            return None;
        }
        let mut press = None;
        self.finish(now, &mut |ended| press = Some(ended));
        press
    }

    /// Whether audio is to be kept out of the mix: while an event runs and [`HANGOVER`] after.
    #[must_use]
    pub fn suppresses_audio(&self, now: Timestamp) -> bool {
        self.running.is_some() || self.quiet_from.is_some_and(|from| now < from)
    }

    /// Forgets everything: the source changed. A running press is lost.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    fn finish(&mut self, now: Timestamp, report: &mut impl FnMut(Press)) {
        let Some(running) = self.running.take() else {
            return;
        };
        self.last = Some(Finished {
            timestamp: running.timestamp,
        });
        self.quiet_from = Some(now.after(HANGOVER));
        if let Some(digit) = running.digit {
            let units = running.segments.saturating_add(u32::from(running.duration));
            report(Press {
                digit,
                duration_ms: units / UNITS_PER_MS,
            });
        }
    }

    /// Whether a packet belongs to an event that ended, or to one before the newest known: a
    /// repeated end, or a straggler.
    fn is_old(&self, timestamp: u32) -> bool {
        let newest = self
            .running
            .map(|running| running.timestamp)
            .or(self.last.map(|last| last.timestamp));
        newest.is_some_and(|newest| newest.wrapping_sub(timestamp) < STRAGGLER_UNITS)
    }
}

impl Running {
    /// Whether an event at `timestamp` is the next segment of this one. Its last packet may have
    /// been lost, so that the known duration falls short by some packets.
    fn continues(&self, timestamp: u32, marker: bool, event: TelephoneEvent) -> bool {
        let apart = timestamp.wrapping_sub(self.timestamp);
        !marker
            && event.event == self.event
            && (SEGMENT_UNITS_MIN..=u32::from(u16::MAX)).contains(&apart)
            && u32::from(self.duration) <= apart
    }
}

/// Clock of telephone-event beside 8 kHz audio.
const UNITS_PER_MS: u32 = 8;

/// A segment is longer than this; only a long event is cut (RFC 4733 2.5.1.3: at 0xFFFF).
const SEGMENT_UNITS_MIN: u32 = 0xf000;

/// How far back a timestamp may lie and still be a straggler rather than a restarted clock: 10 s.
const STRAGGLER_UNITS: u32 = 80_000;

#[cfg(test)]
mod tests;
