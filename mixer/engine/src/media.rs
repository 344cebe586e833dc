//! What one endpoint sends and receives.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// A codec the engine decodes and encodes. All run at 8 kHz mono.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Codec {
    /// G.711 mu-law (RFC 3551 4.5.14).
    Pcmu,
    /// G.711 A-law (RFC 3551 4.5.14).
    Pcma,
    /// Linear 16 bit big-endian (RFC 3551 4.5.11).
    L16,
}

impl Codec {
    /// All codecs, in the order of counters.
    pub const ALL: [Self; 3] = [Self::Pcmu, Self::Pcma, Self::L16];

    /// Metric label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pcmu => "pcmu",
            Self::Pcma => "pcma",
            Self::L16 => "l16",
        }
    }

    /// Payload bytes of one sample.
    #[must_use]
    pub fn bytes_per_sample(self) -> usize {
        match self {
            Self::Pcmu | Self::Pcma => 1,
            Self::L16 => 2,
        }
    }
}

/// Which way audio flows, seen from the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Direction {
    /// The mix is sent to the peer.
    pub send: bool,
    /// What the peer sends is mixed.
    pub receive: bool,
}

/// Which source RTP is accepted from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SourceRule {
    /// Only the address and port of [`MediaPlan::remote`].
    Strict,
    /// Learn once within 3 s from three consistent packets of one of these addresses, then lock.
    Learn {
        /// Allowed addresses; unused places are `None`.
        allowed: [Option<IpAddr>; 4],
    },
}

/// Highest number of receive formats of one endpoint.
pub const RECEIVE_FORMATS_MAX: usize = 8;

/// Complete media description of an endpoint (fixed size: no allocation when it is replaced).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaPlan {
    /// Where RTP goes; an unspecified address means: send nothing (RFC 3264 8.4).
    pub remote: SocketAddr,
    /// Which way audio flows.
    pub direction: Direction,
    /// Codec of what we send.
    pub send_codec: Codec,
    /// Payload type of what we send, in the peer's numbering.
    pub send_payload_type: u8,
    /// Packet time of what we send in milliseconds: 10, 20, 30, 40 or 60.
    pub send_ptime_ms: u8,
    /// Accepted audio payload types.
    pub receive: [Option<(u8, Codec)>; RECEIVE_FORMATS_MAX],
    /// Payload type of telephone-event from the peer.
    pub telephone_event: Option<u8>,
    /// Source address rule.
    pub source: SourceRule,
}
