//! What the mixer answers.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// A command took effect (or had taken effect under the same id before).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// The command's id.
    pub command: String,
    /// Worker that owns the conference.
    pub worker: u16,
    /// The worker's slot number (1 ms slots since its start) at which the command took effect.
    pub tick: u64,
}

/// An endpoint exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointCreated {
    /// When and where.
    #[serde(flatten)]
    pub done: Done,
    /// Our RTP address for this endpoint, to be put into SDP.
    pub local: SocketAddr,
    /// SSRC of what we send on it.
    pub ssrc: u32,
}

/// RFC 9457 problem document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What kind, machine-readable.
    #[serde(rename = "type")]
    pub kind: ProblemKind,
    /// HTTP status, as in the status line.
    pub status: u16,
    /// One line for a person: what is wrong and what to do.
    pub detail: String,
    /// Seconds after which a retry makes sense, for `no_headroom`, `no_ports` and `busy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u32>,
}

impl Problem {
    /// A refusal whose status follows from its kind.
    #[must_use]
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            status: kind.status(),
            detail: detail.into(),
            retry_after_s: None,
        }
    }

    /// The same, with seconds after which a retry makes sense.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.kind.name(), self.detail)
    }
}

impl std::error::Error for Problem {}

/// Kinds of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    /// The request cannot be understood or a value is out of range.
    Invalid,
    /// No such conference or endpoint.
    NotFound,
    /// The id is taken by something different (other owner, other command body).
    Conflict,
    /// The conference is locked.
    Locked,
    /// A limit of the configuration or the machine is reached.
    NoHeadroom,
    /// No RTP port is free.
    NoPorts,
    /// A command ring is full; nothing was changed.
    Busy,
    /// The worker did not answer in time; whether the command took effect is unknown, repeat it.
    Timeout,
    /// The mixer is at fault.
    Internal,
}

impl ProblemKind {
    /// All kinds.
    pub const ALL: [Self; 9] = [
        Self::Invalid,
        Self::NotFound,
        Self::Conflict,
        Self::Locked,
        Self::NoHeadroom,
        Self::NoPorts,
        Self::Busy,
        Self::Timeout,
        Self::Internal,
    ];

    /// The `type` of the document, and a metric label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Locked => "locked",
            Self::NoHeadroom => "no_headroom",
            Self::NoPorts => "no_ports",
            Self::Busy => "busy",
            Self::Timeout => "timeout",
            Self::Internal => "internal",
        }
    }

    /// Whether the same command, sent again later, may succeed. Such refusals are not remembered
    /// under the command's id: repeat it with the same id.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        match self {
            Self::NoHeadroom | Self::NoPorts | Self::Busy | Self::Timeout => true,
            Self::Invalid | Self::NotFound | Self::Conflict | Self::Locked | Self::Internal => false,
        }
    }

    /// HTTP status that goes with the kind.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::Locked => 423,
            Self::NoHeadroom | Self::NoPorts | Self::Busy => 503,
            Self::Timeout => 504,
            Self::Internal => 500,
        }
    }
}
