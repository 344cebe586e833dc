//! What one endpoint sends and receives, in the mixer's words.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::srtp::Srtp;

/// A codec the mixer can decode and encode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// G.711 mu-law, 8 kHz (RFC 3551 4.5.14).
    Pcmu,
    /// G.711 A-law, 8 kHz (RFC 3551 4.5.14).
    Pcma,
    /// Linear 16 bit big-endian mono at 8 kHz (RFC 3551 4.5.11).
    L16,
}

/// One RTP payload type the endpoint may send to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiveFormat {
    /// RTP payload type, 0 to 127.
    pub payload_type: u8,
    /// What it carries.
    pub codec: Codec,
}

/// What we send to the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SendFormat {
    /// RTP payload type in the peer's numbering (spec M-30).
    pub payload_type: u8,
    /// Codec of what we send.
    pub codec: Codec,
    /// Packet time in milliseconds: 10, 20, 30, 40 or 60.
    pub ptime_ms: u8,
}

/// Which way audio flows, seen from the mixer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Received audio is mixed, the mix is sent.
    SendRecv,
    /// The mix is sent, what arrives is not mixed.
    SendOnly,
    /// Received audio is mixed, nothing is sent.
    RecvOnly,
    /// Neither.
    Inactive,
}

/// Which source address RTP of this endpoint is accepted from ("RTP bleed" rules).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "mode", deny_unknown_fields)]
pub enum SourcePolicy {
    /// Only from [`Media::remote`], address and port.
    Strict,
    /// Learn once from the first consistent packets (same SSRC, consecutive sequence, known payload
    /// type) within 3 s of this media description, if they come from one of `allowed`; then locked.
    Learn {
        /// Addresses a peer may turn out to have; the port is free.
        allowed: Vec<IpAddr>,
    },
}

/// Complete media description of an endpoint. Sending it again replaces the former one; an
/// identical one changes nothing. SSRC, sequence and timestamp go on across a change (M-01).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Media {
    /// Where RTP is sent. An unspecified address (0.0.0.0 or ::) means: send nothing (RFC 3264 8.4).
    pub remote: SocketAddr,
    /// Direction seen from the mixer.
    pub direction: Direction,
    /// What we send.
    pub send: SendFormat,
    /// Every audio payload type accepted.
    pub receive: Vec<ReceiveFormat>,
    /// Payload type of telephone-event (RFC 4733) from the peer, if negotiated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub telephone_event: Option<u8>,
    /// Source address rule.
    pub source: SourcePolicy,
    /// Keys, when both ways are SRTP (RFC 3711); absent: plain RTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub srtp: Option<Srtp>,
}

impl Media {
    /// The same without keys, as it may be shown.
    #[must_use]
    pub fn without_keys(&self) -> Self {
        Self {
            remote: self.remote,
            direction: self.direction,
            send: self.send,
            receive: self.receive.clone(),
            telephone_event: self.telephone_event,
            source: self.source.clone(),
            srtp: None,
        }
    }
}
