//! The complete truth of a mixer, as `GET /v1/state` tells it.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::media::Media;
use crate::srtp::SrtpSuite;

/// Everything there is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Random id of this run of the mixer: another value means that it was restarted and is empty.
    pub instance: String,
    /// Number of the last event reflected here; stream events from this number on.
    pub event_seq: u64,
    /// Conferences in order of their ids.
    pub conferences: Vec<ConferenceState>,
}

/// One conference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConferenceState {
    /// Its id.
    pub conference: String,
    /// Whose it is.
    pub owner: String,
    /// Worker that mixes it.
    pub worker: u16,
    /// Whether new endpoints are refused.
    pub locked: bool,
    /// Talkers mixed at once at most; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub talkers: Option<u8>,
    /// Its endpoints in order of their ids.
    pub endpoints: Vec<EndpointState>,
}

/// One endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointState {
    /// Its id.
    pub endpoint: String,
    /// Our RTP address.
    pub local: SocketAddr,
    /// SSRC of what we send.
    pub ssrc: u32,
    /// What was last asked for, without its keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media: Option<Media>,
    /// Crypto suite of its SRTP; absent: plain RTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub srtp: Option<SrtpSuite>,
    /// Whether it leads to another mixer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub trunk: bool,
    /// Muted by command.
    pub muted: bool,
    /// Deaf by command.
    pub deaf: bool,
    /// Held by command.
    pub held: bool,
    /// Gain in hundredths of a decibel.
    pub gain_centibel: i32,
    /// Whether RTP has arrived since its media was set.
    pub active: bool,
    /// Whether it talks now.
    pub talking: bool,
    /// Whether it is in the mix, as of the last second.
    #[serde(default)]
    pub mixed: bool,
    /// Counters, as of the last second.
    pub stats: EndpointStats,
}

/// Counters of one endpoint since its creation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointStats {
    /// RTP packets accepted.
    pub received: u64,
    /// RTP packets sent.
    pub sent: u64,
    /// Frames concealed, whatever the cause.
    pub concealed: u64,
    /// Packets that came too late to be played.
    pub late: u64,
    /// Packets seen twice.
    pub duplicate: u64,
    /// Sequence numbers that never came.
    pub lost: u64,
    /// Packets from a source that is not accepted.
    pub bad_source: u64,
    /// Present playout delay in microseconds, from arrival of a frame to its tick.
    pub playout_delay_us: u32,
}
