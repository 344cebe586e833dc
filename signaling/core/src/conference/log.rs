//! The numbered event log of a conference: the only way to learn what happened. What is not in the
//! log did not happen. A reader keeps the number it has seen; one that was away too long takes a
//! snapshot of the conference and goes on from [`EventLog::last`].

use std::collections::VecDeque;

use crate::time::WallTime;

use super::ids::EndpointId;
use super::roster::Media;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A mixer was asked for the conference.
    Activated,
    /// The mixer has it.
    Ready,
    /// An endpoint was admitted and is being set up.
    Arrived {
        /// Which.
        endpoint: EndpointId,
        /// Participant's entity.
        entity: String,
    },
    /// An endpoint is connected.
    Joined {
        /// Which.
        endpoint: EndpointId,
    },
    /// An endpoint is being hung up.
    Disconnecting {
        /// Which.
        endpoint: EndpointId,
    },
    /// An endpoint is gone from the roster.
    Left {
        /// Which.
        endpoint: EndpointId,
        /// Why.
        cause: LeaveCause,
    },
    /// Locked or unlocked.
    Lock {
        /// On or off.
        on: bool,
    },
    /// Muted or unmuted by command.
    Mute {
        /// Which.
        endpoint: EndpointId,
        /// On or off.
        on: bool,
    },
    /// Began or stopped talking.
    Talk {
        /// Which.
        endpoint: EndpointId,
        /// Whether it talks now.
        talking: bool,
    },
    /// Direction or codec changed (hold, resume, re-negotiation).
    MediaChanged {
        /// Which.
        endpoint: EndpointId,
        /// How it is now.
        media: Media,
    },
    /// One key press.
    Digit {
        /// Which.
        endpoint: EndpointId,
        /// The key.
        digit: char,
        /// Milliseconds held.
        duration_ms: u32,
    },
    /// Nobody is let in any more, those inside are hung up.
    Ending {
        /// Why.
        cause: EndCause,
    },
    /// Over.
    Ended {
        /// Why.
        cause: EndCause,
    },
}

/// Why an endpoint left. Closed set: metrics have one series per cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LeaveCause {
    /// It hung up.
    Bye,
    /// It gave up before it was connected.
    Cancelled,
    /// It could not be set up (mixer, media); the call was refused.
    SetupFailed,
    /// Its ACK never came.
    NoAck,
    /// Its answer to our offer was missing or of no use.
    BadAnswer,
    /// An operator removed it.
    Kicked,
    /// The conference ended.
    Ended,
    /// Its RTP stopped.
    MediaTimeout,
    /// Its SIP session was not refreshed in time, or its dialog is unknown to it.
    DialogLost,
    /// The mixer was lost.
    MixerLost,
    /// It could not be taken over after a restart.
    Restart,
}

/// Why a conference ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndCause {
    /// The last endpoint left.
    Empty,
    /// By command.
    Command,
    /// The mixer was lost, refused it, or failed.
    MixerLost,
}

/// RFC 4575 section 5.7.2 `disconnection-method`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DisconnectionMethod {
    /// Left of its own will.
    Departed,
    /// Was removed.
    Booted,
    /// Technical reasons.
    Failed,
}

impl LeaveCause {
    /// Every cause.
    pub const ALL: [Self; 11] = [
        Self::Bye,
        Self::Cancelled,
        Self::SetupFailed,
        Self::NoAck,
        Self::BadAnswer,
        Self::Kicked,
        Self::Ended,
        Self::MediaTimeout,
        Self::DialogLost,
        Self::MixerLost,
        Self::Restart,
    ];

    /// Name in metrics, logs and call records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bye => "bye",
            Self::Cancelled => "cancelled",
            Self::SetupFailed => "setup_failed",
            Self::NoAck => "no_ack",
            Self::BadAnswer => "bad_answer",
            Self::Kicked => "kicked",
            Self::Ended => "ended",
            Self::MediaTimeout => "media_timeout",
            Self::DialogLost => "dialog_lost",
            Self::MixerLost => "mixer_lost",
            Self::Restart => "restart",
        }
    }

    /// How conference documents put it.
    #[must_use]
    pub fn disconnection_method(self) -> DisconnectionMethod {
        match self {
            Self::Bye | Self::Cancelled => DisconnectionMethod::Departed,
            Self::Kicked | Self::Ended => DisconnectionMethod::Booted,
            Self::SetupFailed
            | Self::NoAck
            | Self::BadAnswer
            | Self::MediaTimeout
            | Self::DialogLost
            | Self::MixerLost
            | Self::Restart => DisconnectionMethod::Failed,
        }
    }
}

impl EndCause {
    /// Name in logs and call records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Command => "command",
            Self::MixerLost => "mixer_lost",
        }
    }
}

/// A log line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// From 1, without gaps.
    pub number: u64,
    /// When.
    pub at: WallTime,
    /// What.
    pub event: Event,
}

/// The reader's number is no longer kept: take a snapshot and go on from `last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    /// Number of the last event, which a snapshot taken now contains.
    pub last: u64,
}

/// The last [`KEPT_MAX`] events.
#[derive(Debug, Clone, Default)]
pub struct EventLog {
    last: u64,
    kept: VecDeque<Entry>,
}

impl EventLog {
    pub(super) fn append(&mut self, at: WallTime, event: Event) {
        self.last += 1;
        if self.kept.len() == KEPT_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back(Entry {
            number: self.last,
            at,
            event,
        });
    }

    /// Number of the last event; 0 before the first.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Events after number `seen`, in order.
    ///
    /// # Errors
    /// [`Lost`] when the next one is no longer kept, or when `seen` was never written.
    pub fn since(&self, seen: u64) -> Result<impl Iterator<Item = &Entry>, Lost> {
        let oldest = self.kept.front().map_or(self.last + 1, |entry| entry.number);
        if seen > self.last || seen + 1 < oldest {
            return Err(Lost { last: self.last });
        }
        Ok(self.kept.iter().filter(move |entry| entry.number > seen))
    }
}

/// Events kept per conference for readers that are late.
pub const KEPT_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn readers_get_what_they_have_not_seen() {
        let mut log = EventLog::default();
        assert_eq!(log.since(0).map(Iterator::count), Ok(0));
        for on in [true, false, true] {
            log.append(WallTime(7), Event::Lock { on });
        }
        let numbers: Vec<_> = log
            .since(1)
            .into_iter()
            .flatten()
            .map(|entry| entry.number)
            .collect();
        assert_eq!(numbers, [2, 3]);
        assert_eq!(log.since(3).map(Iterator::count), Ok(0));
        assert_eq!(log.since(4).map(Iterator::count), Err(Lost { last: 3 }));
    }

    #[test]
    fn a_reader_that_was_away_too_long_is_told_so() {
        let mut log = EventLog::default();
        let total = KEPT_MAX as u64 + 10;
        for _ in 0..total {
            log.append(WallTime(7), Event::Activated);
        }
        assert_eq!(log.since(9).map(Iterator::count), Err(Lost { last: total }));
        assert_eq!(log.since(10).map(Iterator::count), Ok(KEPT_MAX));
        assert_eq!(log.since(total - 1).map(Iterator::count), Ok(1));
    }

    #[test]
    fn causes_have_distinct_names() {
        let names: BTreeSet<_> = LeaveCause::ALL.iter().map(|cause| cause.as_str()).collect();
        assert_eq!(names.len(), LeaveCause::ALL.len());
    }
}
