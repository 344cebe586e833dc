//! What the mixer tells of its own accord.

use serde::{Deserialize, Serialize};

/// One numbered event. Numbers rise by one per mixer instance; a reader that asks for a number
/// no longer kept gets [`EventBody::Gap`] first and must read the state again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Sequence number, from 1, within the mixer's `instance`.
    pub seq: u64,
    /// Conference concerned; empty for events of the mixer itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub conference: String,
    /// Endpoint concerned; empty for events of a whole conference.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub endpoint: String,
    /// What happened.
    #[serde(flatten)]
    pub body: EventBody,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum EventBody {
    /// First valid RTP packet of an endpoint arrived.
    Active,
    /// An endpoint began or stopped talking.
    Talk {
        /// Whether it talks now.
        talking: bool,
    },
    /// One key press (RFC 4733: one per event and timestamp).
    Digit {
        /// `0`-`9`, `*`, `#`, `A`-`D`, or `F` for flash.
        digit: char,
        /// How long it was held, milliseconds, as far as known.
        duration_ms: u32,
    },
    /// A play ended.
    Played {
        /// Its id.
        play: String,
        /// True when it ran to its end, false when stopped or cut off.
        complete: bool,
    },
    /// No RTP for the configured time although the endpoint should send.
    MediaTimeout,
    /// A peer's address was learnt (source policy `learn`) and is locked now.
    SourceLearnt {
        /// Address and port.
        source: std::net::SocketAddr,
    },
    /// The conference failed inside the mixer and was dropped with all endpoints.
    ConferenceFailed,
    /// Events before this one are no longer kept: read the state again.
    Gap,
}
