//! What went into a worker's engine, recorded, and the engine run over it again: the same bytes come out.
//!
//! An engine's inputs are datagrams, commands and slots, each with its time, and whether a packet it wrote was
//! taken. A recording begins with the worker, or with the state it goes on from, and ends where the memory set
//! aside for it is full: then it is whole up to there, and what follows is only counted. So it does where a conference
//! gets parts on other workers, whose sums are not recorded. It can be read by a
//! program whose engine has the same state format. It holds whatever the engine was told: voices, addresses, and keys of
//! SRTP; its file is for its owner alone.

mod player;
mod recorder;

use std::borrow::Cow;
use std::net::SocketAddr;

use mixer_engine::command::{ConferenceIndex, EndpointIndex, PlayId};
use mixer_engine::engine::EngineLimits;
use mixer_engine::time::{Slot, Timestamp};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

pub use player::{Played, ReplayError, Sent, play};
pub use recorder::{Beginning, Recorder};

/// First bytes of a recording.
const MAGIC: &[u8; 8] = b"mixminus";
/// Raised whenever something below changes; with it the state format of the engine, in which endpoints are
/// written.
const FORMAT: u32 = mixer_engine::engine::state::STATE_FORMAT * 1_000 + 1;

/// Where the engine began.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format: u32,
    conferences: u32,
    endpoints: u32,
    port_first: u16,
    port_last: u16,
    events: usize,
    media_timeout_ms: u32,
    /// When slot 0 was due.
    origin: Timestamp,
    /// What it went on from, if it did.
    state: Option<ByteBuf>,
    /// Prompts that the state plays, by number.
    prompts: Vec<Vec<i16>>,
}

impl Header {
    fn limits(&self) -> EngineLimits {
        EngineLimits {
            conferences: self.conferences,
            endpoints: self.endpoints,
            port_first: self.port_first,
            port_last: self.port_last,
            events: self.events,
            media_timeout_ms: self.media_timeout_ms,
        }
    }
}

/// One thing that was recorded, with what a command carries written by reference and read by value.
#[derive(Debug, Serialize, Deserialize)]
enum Entry<'a, A> {
    Datagram {
        at: Timestamp,
        port: u16,
        source: SocketAddr,
        #[serde(with = "serde_bytes", borrow)]
        payload: &'a [u8],
    },
    Slot {
        slot: Slot,
        now: Timestamp,
        muted: bool,
    },
    Command {
        now: Timestamp,
        slot: Slot,
        action: A,
    },
    /// Of the packets that the last slot or command wrote, the one of this number was not taken.
    NotTaken(u32),
    /// Samples of the prompt with the next number.
    Prompt(#[serde(borrow)] Cow<'a, [i16]>),
}

/// A command.
#[derive(Debug, Serialize, Deserialize)]
enum Action<C, E, M, K> {
    AddConference(ConferenceIndex, C),
    RemoveConference(ConferenceIndex),
    AddEndpoint(ConferenceIndex, EndpointIndex, E),
    RemoveEndpoint(EndpointIndex),
    SetMedia(EndpointIndex, M, Option<K>),
    Mute(EndpointIndex, bool),
    Deaf(EndpointIndex, bool),
    Gain(EndpointIndex, i32),
    Hold(EndpointIndex, bool),
    PlayToEndpoint(EndpointIndex, PlayId, Sound, u32),
    PlayToConference(ConferenceIndex, PlayId, Sound, u32),
    StopEndpoint(EndpointIndex, Option<PlayId>),
    StopConference(ConferenceIndex, Option<PlayId>),
}

/// What a play is made of.
#[derive(Debug, Serialize, Deserialize)]
enum Sound {
    Tone {
        hertz: u16,
        attenuation_db: u8,
        duration_ms: u32,
    },
    /// By number.
    Prompt(u32),
}

#[cfg(test)]
mod tests;
