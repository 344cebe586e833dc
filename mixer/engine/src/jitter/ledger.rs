//! Concealed frames whose cause is not known yet.
//!
//! Whether a packet is late or lost shows after its tick. Every concealed frame that was owed is
//! opened here and closed once: with an outcome, or as not owed when it turns out that the source
//! had sent nothing for it.

use std::borrow::Cow;

use serde::{Deserialize, Serialize, Serializer};

use super::FRAME_SAMPLES;
use crate::counters::{Counters, FrameOutcome};

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(rename = "OpenFrame")]
struct Open {
    /// Extended timestamp of its first sample.
    begins: u64,
    /// Whether the worker ran its tick late.
    worker_late: bool,
}

impl Open {
    fn ends(self) -> u64 {
        self.begins + FRAME_SAMPLES
    }
}

/// What becomes of an open frame.
enum Close {
    Not,
    With(FrameOutcome),
    NotOwed,
}

/// See the module's documentation.
#[derive(Debug, Default, Deserialize)]
#[serde(from = "OpenFrames<'static>")]
pub(super) struct Ledger {
    open: Box<[Open; OPEN_MAX]>,
    count: usize,
    /// Frames closed as not owed.
    not_owed: u64,
}

/// A ledger in the state. Borrowed on the way out: an endpoint on its way in is recorded on a worker.
#[derive(Serialize, Deserialize)]
struct OpenFrames<'a> {
    open: Cow<'a, [Open]>,
    not_owed: u64,
}

impl Serialize for Ledger {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        OpenFrames {
            open: self.open.get(..self.count).unwrap_or_default().into(),
            not_owed: self.not_owed,
        }
        .serialize(to)
    }
}

impl From<OpenFrames<'_>> for Ledger {
    fn from(state: OpenFrames<'_>) -> Self {
        let mut ledger = Self {
            not_owed: state.not_owed,
            ..Self::default()
        };
        for (place, open) in ledger.open.iter_mut().zip(&*state.open) {
            *place = *open;
        }
        ledger.count = state.open.len().min(OPEN_MAX);
        ledger
    }
}

impl Ledger {
    /// Frames not closed yet.
    #[cfg(test)]
    pub(super) fn open_count(&self) -> u64 {
        u64::try_from(self.count).unwrap()
    }

    /// Frames that turned out not to be owed.
    #[cfg(test)]
    pub(super) fn not_owed_count(&self) -> u64 {
        self.not_owed
    }

    /// Opens a concealed frame. The oldest one is given up when too many are open.
    pub(super) fn open(&mut self, begins: u64, worker_late: bool, counters: &mut Counters) {
        if self.count == OPEN_MAX {
            let oldest = self.open.first().map_or(0, |open| open.begins);
            self.close(counters, |open| {
                if open.begins == oldest {
                    Close::With(FrameOutcome::NetworkLost)
                } else {
                    Close::Not
                }
            });
        }
        if let Some(place) = self.open.get_mut(self.count) {
            *place = Open { begins, worker_late };
            self.count += 1;
        }
    }

    /// A frame was concealed in a gap that is known to be the sender's.
    pub(super) fn was_not_owed(&mut self) {
        self.not_owed += 1;
    }

    /// A packet came after the tick of (some of) its samples.
    pub(super) fn came_late(&mut self, begins: u64, ends: u64, counters: &mut Counters) {
        self.close(counters, |open| {
            if open.ends() <= begins || open.begins >= ends {
                Close::Not
            } else if open.worker_late {
                Close::With(FrameOutcome::WorkerLate)
            } else {
                Close::With(FrameOutcome::NetworkLate)
            }
        });
    }

    /// Frames from `position` on were heard in addition: their samples will be played after all.
    pub(super) fn were_inserted(&mut self, position: u64, counters: &mut Counters) {
        self.close(counters, |open| {
            if open.ends() > position {
                Close::With(FrameOutcome::Skew)
            } else {
                Close::Not
            }
        });
    }

    /// The sender left a gap: frames within it were not owed.
    pub(super) fn not_owed(&mut self, from: u64, to: u64, counters: &mut Counters) {
        self.close(counters, |open| {
            if open.begins >= from && open.begins < to {
                Close::NotOwed
            } else {
                Close::Not
            }
        });
    }

    /// Gives up frames that lie too far behind `position`.
    pub(super) fn expire(&mut self, position: u64, counters: &mut Counters) {
        let oldest_awaited = position.saturating_sub(AWAITED_SAMPLES);
        self.close(counters, |open| {
            if open.begins < oldest_awaited {
                Close::With(FrameOutcome::NetworkLost)
            } else {
                Close::Not
            }
        });
    }

    /// The source sends again, with a packet that begins at `begins`, having been taken for
    /// stopped. Before the stop its newest packet had ended at `after`; packets for the time from
    /// there to `lost_to` are missing.
    pub(super) fn resumes(&mut self, after: u64, lost_to: u64, begins: u64, counters: &mut Counters) {
        self.close(counters, |open| {
            if open.begins < after {
                Close::Not
            } else if open.begins < lost_to {
                Close::With(FrameOutcome::NetworkLost)
            } else if open.begins < begins {
                Close::NotOwed
            } else {
                // The sender had something for this time; it was held up.
                Close::With(FrameOutcome::NetworkLate)
            }
        });
    }

    /// The time line ends: frames before `newest` were lost, the others never came into being.
    pub(super) fn end(&mut self, newest: u64, counters: &mut Counters) {
        self.close(counters, |open| {
            if open.begins < newest {
                Close::With(FrameOutcome::NetworkLost)
            } else {
                Close::NotOwed
            }
        });
    }

    fn close(&mut self, counters: &mut Counters, verdict: impl Fn(Open) -> Close) {
        let mut kept = 0;
        for at in 0..self.count {
            let Some(open) = self.open.get(at).copied() else {
                break;
            };
            match verdict(open) {
                Close::Not => {
                    if let Some(place) = self.open.get_mut(kept) {
                        *place = open;
                        kept += 1;
                    }
                }
                Close::With(outcome) => counters.frame(outcome),
                Close::NotOwed => self.not_owed += 1,
            }
        }
        self.count = kept;
    }
}

/// Frames open at once.
const OPEN_MAX: usize = 16;

/// How long a missing packet is awaited before it is called lost: 16 frames.
const AWAITED_SAMPLES: u64 = 16 * FRAME_SAMPLES;
