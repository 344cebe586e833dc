//! What the engine tells of its own accord.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::command::{ConferenceIndex, EndpointIndex, PlayId};

/// One event. Indexes are valid in the order of events and outcomes: an index is reused only
/// after the outcome of its removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Conference concerned.
    pub conference: ConferenceIndex,
    /// Endpoint concerned; absent for events of a whole conference.
    pub endpoint: Option<EndpointIndex>,
    /// What happened.
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventKind {
    /// First valid RTP packet since its media was set.
    Active,
    /// Began or stopped talking.
    Talk {
        /// Whether it talks now.
        talking: bool,
    },
    /// One key press.
    Digit {
        /// `0`-`9`, `*`, `#`, `A`-`D`, `F` for flash.
        digit: char,
        /// Milliseconds held, as far as known.
        duration_ms: u32,
    },
    /// A play ended.
    Played {
        /// Which.
        play: PlayId,
        /// True when it ran to its end.
        complete: bool,
    },
    /// No RTP for the configured time although it should come.
    MediaTimeout,
    /// A source address was learnt and locked.
    SourceLearnt {
        /// It.
        source: SocketAddr,
    },
    /// Processing the conference panicked; it and its endpoints are retired.
    ConferenceFailed,
}
