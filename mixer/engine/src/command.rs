//! What comes into the engine from control.
//!
//! Control chooses indexes (it keeps the free lists), builds everything that allocates, and gets
//! every box back. Applying a command neither allocates nor frees.

use serde::{Deserialize, Serialize};

use crate::engine::share::Share;
use crate::engine::{Conference, EndpointBox};
use crate::media::MediaPlan;
use crate::srtp::{Srtp, WornKeys};

/// Place of a conference in its engine's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ConferenceIndex(pub u32);

/// Place of an endpoint in its engine's table; equal to its [`crate::packet::FlowId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EndpointIndex(pub u32);

/// Number of a play, chosen by control, unique within its target while it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PlayId(pub u32);

/// A change. Each ends in exactly one [`Outcome`].
#[derive(Debug)]
pub enum Command {
    /// Put an empty conference at a free place.
    AddConference {
        /// Free place.
        at: ConferenceIndex,
        /// Built by control.
        conference: Box<Conference>,
    },
    /// Remove a conference without endpoints.
    RemoveConference {
        /// Which.
        at: ConferenceIndex,
    },
    /// Share a conference with other engines, or with others than before.
    Share {
        /// Which conference.
        at: ConferenceIndex,
        /// Built by control.
        share: Box<Share>,
    },
    /// Put an endpoint at a free place and into a conference.
    AddEndpoint {
        /// Its conference.
        conference: ConferenceIndex,
        /// Free place.
        at: EndpointIndex,
        /// Built by control; media may be set already.
        endpoint: EndpointBox,
    },
    /// Remove an endpoint.
    RemoveEndpoint {
        /// Which.
        at: EndpointIndex,
    },
    /// Replace the media description; an identical one changes nothing.
    SetMedia {
        /// Which endpoint.
        at: EndpointIndex,
        /// The complete new description.
        media: Box<MediaPlan>,
        /// Built by control; none for plain RTP. Keys in use go on, and these come back.
        srtp: Option<Srtp>,
    },
    /// Its audio is (not) mixed.
    Mute {
        /// Which endpoint.
        at: EndpointIndex,
        /// On or off.
        on: bool,
    },
    /// It does (not) hear the conference.
    Deaf {
        /// Which endpoint.
        at: EndpointIndex,
        /// On or off.
        on: bool,
    },
    /// Gain into the mix.
    Gain {
        /// Which endpoint.
        at: EndpointIndex,
        /// Hundredths of a decibel; 0 leaves samples untouched.
        centibel: i32,
    },
    /// Held by the operator: neither mixed nor hearing the conference.
    Hold {
        /// Which endpoint.
        at: EndpointIndex,
        /// On or off.
        on: bool,
    },
    /// Play to one endpoint, over the mix.
    PlayToEndpoint {
        /// Which endpoint.
        at: EndpointIndex,
        /// What.
        play: Play,
    },
    /// Play to everybody in a conference.
    PlayToConference {
        /// Which conference.
        at: ConferenceIndex,
        /// What.
        play: Play,
    },
    /// Stop plays of an endpoint.
    StopEndpoint {
        /// Which endpoint.
        at: EndpointIndex,
        /// Which play; all when absent.
        play: Option<PlayId>,
    },
    /// Stop plays of a conference.
    StopConference {
        /// Which conference.
        at: ConferenceIndex,
        /// Which play; all when absent.
        play: Option<PlayId>,
    },
    /// Fill the buffer with snapshots of endpoints and give it back in [`Retired::Snapshot`].
    Snapshot {
        /// The first place to look at.
        from: EndpointIndex,
        /// As many places are looked at as it has capacity for.
        buffer: Box<Vec<EndpointSnapshot>>,
    },
}

/// A play as it enters the engine.
#[derive(Debug, Clone, Copy)]
pub struct Play {
    /// Its number.
    pub id: PlayId,
    /// What is heard.
    pub source: PlaySource,
    /// How often; 0 repeats until stopped.
    pub repeat: u32,
}

/// What a play is made of.
#[derive(Debug, Clone, Copy)]
pub enum PlaySource {
    /// A sine.
    Tone {
        /// Frequency in hertz.
        hertz: u16,
        /// Decibel below a full-scale sine.
        attenuation_db: u8,
        /// Length in milliseconds.
        duration_ms: u32,
    },
    /// 8 kHz mono samples that control keeps for the life of the process.
    Pcm(&'static [i16]),
}

/// What became of a command.
#[derive(Debug)]
pub struct Outcome {
    /// Applied, or why not. A refused command changed nothing.
    pub result: Result<(), Refusal>,
    /// What goes back to control to be dropped there.
    pub retired: Option<Retired>,
}

/// Why a command was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The index is empty.
    #[error("no such conference or endpoint")]
    NotFound,
    /// The place or port is taken.
    #[error("place or port is taken")]
    Occupied,
    /// The conference still has endpoints.
    #[error("conference still has endpoints")]
    NotEmpty,
    /// The index or port lies outside this engine's limits.
    #[error("outside of this worker's limits")]
    OutOfRange,
    /// No place for another play on this target.
    #[error("too many plays at once")]
    TooManyPlays,
}

/// Something that control must drop.
#[derive(Debug)]
pub enum Retired {
    /// A conference.
    Conference(Box<Conference>),
    /// What it was shared by before, or until it was removed.
    Share(Box<Share>),
    /// An endpoint.
    Endpoint(EndpointBox),
    /// A media description that was copied in, or refused, and the keys that it has replaced.
    Media(Box<MediaPlan>, WornKeys),
    /// A filled snapshot buffer.
    Snapshot(Box<Vec<EndpointSnapshot>>),
}

/// State and counters of one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndpointSnapshot {
    /// Which.
    pub at: EndpointIndex,
    /// Whether RTP has arrived since its media was set.
    pub active: bool,
    /// Whether it talks now.
    pub talking: bool,
    /// Whether it is in the mix, or keeps its place in it between two words.
    pub mixed: bool,
    /// RTP packets accepted.
    pub received: u64,
    /// RTP packets sent.
    pub sent: u64,
    /// Frames concealed.
    pub concealed: u64,
    /// Packets too late to be played.
    pub late: u64,
    /// Packets seen twice.
    pub duplicate: u64,
    /// Sequence numbers that never came.
    pub lost: u64,
    /// Packets from a source that is not accepted.
    pub bad_source: u64,
    /// From arrival of a frame to its tick, microseconds, smoothed.
    pub playout_delay_us: u32,
}
