//! What a client asks of the mixer.

use serde::{Deserialize, Serialize};

use crate::media::Media;

/// Id of a command, chosen by the client, at most 64 characters of `[A-Za-z0-9_.:-]`.
pub type CommandId = String;

/// Whether a text can be a [`CommandId`] or the id of a play.
#[must_use]
pub fn is_command_id(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b':' | b'-'))
}

/// Whether a text can be the id of a conference or endpoint, or an owner: 1 to 128 visible ASCII
/// characters without `/`, `\` and `"`, and not `.` or `..`. In a path it is percent-encoded.
#[must_use]
pub fn is_label(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && !matches!(text, "." | "..")
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b'\\' | b'"'))
}

/// Most talkers that a conference can be limited to.
pub const TALKERS_MAX: u8 = 32;

/// Create a conference. An existing one with the same owner is left as it is (idempotent).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateConference {
    /// Idempotency key.
    pub command: CommandId,
    /// Opaque label of the client that owns it; a client reconciles only what it owns.
    pub owner: String,
    /// Talkers mixed at once at most, 1 to [`TALKERS_MAX`]: the loudest ones. Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub talkers: Option<u8>,
}

/// Create an endpoint: reserves its RTP port. Without `media` nothing is sent or accepted yet
/// (late offer, M-66).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateEndpoint {
    /// Idempotency key.
    pub command: CommandId,
    /// Media, when the peer's side is known already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media: Option<Media>,
    /// It leads to the same conference on another mixer: it is sent what this mixer's own endpoints say, and
    /// what comes over it goes to them and over no other trunk.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub trunk: bool,
}

/// Replace an endpoint's media description (re-INVITE, late answer).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetMedia {
    /// Idempotency key.
    pub command: CommandId,
    /// The complete new description.
    pub media: Media,
}

/// A command to one endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointCommand {
    /// Idempotency key.
    pub command: CommandId,
    /// What to do.
    #[serde(flatten)]
    pub verb: EndpointVerb,
}

/// Verbs of [`EndpointCommand`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "verb", deny_unknown_fields)]
pub enum EndpointVerb {
    /// Its audio is (not) mixed.
    Mute {
        /// On or off.
        on: bool,
    },
    /// It does (not) hear the conference; prompts played to it are still heard.
    Deaf {
        /// On or off.
        on: bool,
    },
    /// Gain of its audio into the mix.
    Gain {
        /// Hundredths of a decibel, -4000 to 2000; 0 leaves samples untouched.
        centibel: i32,
    },
    /// Held by the operator: neither mixed nor hearing the conference; prompts are heard.
    Hold {
        /// On or off.
        on: bool,
    },
    /// Play a source to this endpoint only, over the mix.
    Play(Play),
    /// Stop playing.
    Stop {
        /// Id given to `Play`; all when absent.
        #[serde(default)]
        play: Option<String>,
    },
}

/// A command to a whole conference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConferenceCommand {
    /// Idempotency key.
    pub command: CommandId,
    /// What to do.
    #[serde(flatten)]
    pub verb: ConferenceVerb,
}

/// Verbs of [`ConferenceCommand`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "verb", deny_unknown_fields)]
pub enum ConferenceVerb {
    /// While locked, creating endpoints is refused (`locked`).
    Lock {
        /// On or off.
        on: bool,
    },
    /// Play a source to all endpoints, mixed in.
    Play(Play),
    /// Stop playing.
    Stop {
        /// Id given to `Play`; all when absent.
        #[serde(default)]
        play: Option<String>,
    },
}

/// Something to be heard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Play {
    /// Id chosen by the client; `played` events carry it.
    pub play: String,
    /// What.
    pub source: PlaySource,
    /// How often; 0 repeats until stopped.
    #[serde(default = "once")]
    pub repeat: u32,
}

fn once() -> u32 {
    1
}

/// What is played.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind", deny_unknown_fields)]
pub enum PlaySource {
    /// One sine tone.
    Tone {
        /// Frequency in hertz, 20 to 3900.
        hertz: u16,
        /// Level in dBm0-like decibel below full-scale sine, 0 to 60.
        attenuation_db: u8,
        /// Length in milliseconds, 20 to 60,000.
        duration_ms: u32,
    },
    /// A WAV prompt of the mixer's prompt folder, by name without extension.
    Prompt {
        /// Name, `[a-z0-9/_-]`, no `..`.
        name: String,
    },
}
