//! One request of the control link: validation, and translation into the engine's words.

mod srtp;

use std::net::IpAddr;

use mixer_control::media::{Codec, Direction, Media, SourcePolicy};
use mixer_control::reply::{Problem, ProblemKind};
use mixer_control::request::{
    ConferenceCommand, ConferenceVerb, CreateConference, CreateEndpoint, EndpointCommand, EndpointVerb, Play,
    PlaySource, SetMedia, TALKERS_MAX, is_command_id, is_label,
};
use mixer_engine::command;
use mixer_engine::media as engine;
use serde::Serialize;

use crate::prompts::{Prompts, is_prompt_name};

pub(crate) use srtp::srtp_keys;

const _: () = assert!(TALKERS_MAX == mixer_engine::mix::active_talkers::TALKERS_MAX);

/// A changing request with its target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Call {
    /// Conference named in the path.
    pub conference: String,
    /// Endpoint named in the path; empty for requests to a conference.
    pub endpoint: String,
    /// What is asked.
    pub body: Body,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Body {
    /// `PUT` of a conference.
    CreateConference(CreateConference),
    /// `DELETE` of a conference, by command id.
    DeleteConference(String),
    /// `POST` of a conference command.
    ConferenceCommand(ConferenceCommand),
    /// `PUT` of an endpoint.
    CreateEndpoint(CreateEndpoint),
    /// `PUT` of an endpoint's media.
    SetMedia(SetMedia),
    /// `POST` of an endpoint command.
    EndpointCommand(EndpointCommand),
    /// `DELETE` of an endpoint, by command id.
    DeleteEndpoint(String),
}

/// Kinds of requests, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallKind {
    /// See [`Body::CreateConference`].
    CreateConference,
    /// See [`Body::DeleteConference`].
    DeleteConference,
    /// See [`Body::ConferenceCommand`].
    ConferenceCommand,
    /// See [`Body::CreateEndpoint`].
    CreateEndpoint,
    /// See [`Body::SetMedia`].
    SetMedia,
    /// See [`Body::EndpointCommand`].
    EndpointCommand,
    /// See [`Body::DeleteEndpoint`].
    DeleteEndpoint,
    /// `GET /v1/state`.
    State,
}

impl CallKind {
    /// All kinds.
    pub const ALL: [Self; 8] = [
        Self::CreateConference,
        Self::DeleteConference,
        Self::ConferenceCommand,
        Self::CreateEndpoint,
        Self::SetMedia,
        Self::EndpointCommand,
        Self::DeleteEndpoint,
        Self::State,
    ];

    /// Metric label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CreateConference => "create_conference",
            Self::DeleteConference => "delete_conference",
            Self::ConferenceCommand => "conference_command",
            Self::CreateEndpoint => "create_endpoint",
            Self::SetMedia => "set_media",
            Self::EndpointCommand => "endpoint_command",
            Self::DeleteEndpoint => "delete_endpoint",
            Self::State => "state",
        }
    }
}

impl Call {
    /// The client's id for it.
    #[must_use]
    pub fn command(&self) -> &str {
        match &self.body {
            Body::CreateConference(body) => &body.command,
            Body::ConferenceCommand(body) => &body.command,
            Body::CreateEndpoint(body) => &body.command,
            Body::SetMedia(body) => &body.command,
            Body::EndpointCommand(body) => &body.command,
            Body::DeleteConference(command) | Body::DeleteEndpoint(command) => command,
        }
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> CallKind {
        match &self.body {
            Body::CreateConference(_) => CallKind::CreateConference,
            Body::DeleteConference(_) => CallKind::DeleteConference,
            Body::ConferenceCommand(_) => CallKind::ConferenceCommand,
            Body::CreateEndpoint(_) => CallKind::CreateEndpoint,
            Body::SetMedia(_) => CallKind::SetMedia,
            Body::EndpointCommand(_) => CallKind::EndpointCommand,
            Body::DeleteEndpoint(_) => CallKind::DeleteEndpoint,
        }
    }

    /// Checks everything that can be told without knowing what exists.
    ///
    /// # Errors
    /// [`ProblemKind::Invalid`], naming the field.
    pub fn validate(&self) -> Result<(), Problem> {
        let needs_endpoint = match &self.body {
            Body::CreateConference(_) | Body::DeleteConference(_) | Body::ConferenceCommand(_) => false,
            Body::CreateEndpoint(_)
            | Body::SetMedia(_)
            | Body::EndpointCommand(_)
            | Body::DeleteEndpoint(_) => true,
        };
        if !is_command_id(self.command()) {
            return Err(invalid(
                "command: must be 1 to 64 characters of A-Z, a-z, 0-9, _ . : -",
            ));
        }
        label("conference", &self.conference)?;
        if needs_endpoint {
            label("endpoint", &self.endpoint)?;
        }
        match &self.body {
            Body::CreateConference(body) => {
                let talkers = body.talkers.map_or(1, i32::from);
                within("talkers", talkers, 1, i32::from(TALKERS_MAX))?;
                label("owner", &body.owner)
            }
            Body::ConferenceCommand(body) => match &body.verb {
                ConferenceVerb::Play(play) => check_play(play),
                ConferenceVerb::Stop { play } => check_stop(play.as_deref()),
                ConferenceVerb::Lock { .. } => Ok(()),
            },
            Body::EndpointCommand(body) => match &body.verb {
                EndpointVerb::Play(play) => check_play(play),
                EndpointVerb::Stop { play } => check_stop(play.as_deref()),
                EndpointVerb::Gain { centibel } => within("centibel", *centibel, -4000, 2000),
                EndpointVerb::Mute { .. } | EndpointVerb::Deaf { .. } | EndpointVerb::Hold { .. } => Ok(()),
            },
            Body::DeleteConference(_)
            | Body::CreateEndpoint(_)
            | Body::SetMedia(_)
            | Body::DeleteEndpoint(_) => Ok(()),
        }
    }
}

fn invalid(detail: impl Into<String>) -> Problem {
    Problem::new(ProblemKind::Invalid, detail)
}

fn label(field: &str, text: &str) -> Result<(), Problem> {
    if is_label(text) {
        return Ok(());
    }
    Err(invalid(format!(
        "{field}: must be 1 to 128 visible ASCII characters without / \\ \""
    )))
}

fn within<T: PartialOrd + std::fmt::Display>(field: &str, value: T, low: T, high: T) -> Result<(), Problem> {
    if value >= low && value <= high {
        return Ok(());
    }
    Err(invalid(format!("{field}: {value} is not within {low} to {high}")))
}

fn check_play(play: &Play) -> Result<(), Problem> {
    check_stop(Some(&play.play))?;
    within("repeat", play.repeat, 0, 10_000)?;
    match &play.source {
        PlaySource::Tone {
            hertz,
            attenuation_db,
            duration_ms,
        } => {
            within("source.hertz", *hertz, 20, 3900)?;
            within("source.attenuation_db", *attenuation_db, 0, 60)?;
            within("source.duration_ms", *duration_ms, 20, 60_000)
        }
        PlaySource::Prompt { name } if is_prompt_name(name) => Ok(()),
        PlaySource::Prompt { .. } => Err(invalid("source.name: must be parts of a-z, 0-9, _ - joined by /")),
    }
}

fn check_stop(play: Option<&str>) -> Result<(), Problem> {
    if play.is_none_or(is_command_id) {
        return Ok(());
    }
    Err(invalid(
        "play: must be 1 to 64 characters of A-Z, a-z, 0-9, _ . : -",
    ))
}

/// What is heard, in the engine's words.
///
/// # Errors
/// [`ProblemKind::Invalid`] when there is no such prompt.
pub(crate) fn play_source(source: &PlaySource, prompts: &Prompts) -> Result<command::PlaySource, Problem> {
    match source {
        PlaySource::Tone {
            hertz,
            attenuation_db,
            duration_ms,
        } => Ok(command::PlaySource::Tone {
            hertz: *hertz,
            attenuation_db: *attenuation_db,
            duration_ms: *duration_ms,
        }),
        PlaySource::Prompt { name } => prompts.get(name).map(command::PlaySource::Pcm).ok_or_else(|| {
            invalid(format!(
                "source.name: no prompt {name:?}; add {name}.wav to prompts.folder"
            ))
        }),
    }
}

/// A media description in the engine's words; `local` is our RTP address.
///
/// # Errors
/// [`ProblemKind::Invalid`], naming the field.
pub(crate) fn media_plan(media: &Media, local: IpAddr) -> Result<engine::MediaPlan, Problem> {
    check_remote(media, local)?;
    payload_type("media.send.payload_type", media.send.payload_type)?;
    if !matches!(media.send.ptime_ms, 10 | 20 | 30 | 40 | 60) {
        return Err(invalid(format!(
            "media.send.ptime_ms: {} is not one of 10, 20, 30, 40, 60",
            media.send.ptime_ms
        )));
    }
    let mut receive = [None; engine::RECEIVE_FORMATS_MAX];
    if media.receive.is_empty() || media.receive.len() > receive.len() {
        return Err(invalid(format!(
            "media.receive: must list 1 to {} formats",
            receive.len()
        )));
    }
    for (place, (slot, format)) in receive.iter_mut().zip(&media.receive).enumerate() {
        let field = format!("media.receive[{place}].payload_type");
        payload_type(&field, format.payload_type)?;
        let number = format.payload_type;
        if media
            .receive
            .iter()
            .take(place)
            .any(|earlier| earlier.payload_type == number)
        {
            return Err(invalid(format!("{field}: {number} is listed twice")));
        }
        *slot = Some((number, codec(format.codec)));
    }
    if let Some(number) = media.telephone_event {
        payload_type("media.telephone_event", number)?;
        if media.receive.iter().any(|format| format.payload_type == number) {
            return Err(invalid(format!(
                "media.telephone_event: {number} is an audio format too"
            )));
        }
    }
    let (send, takes) = match media.direction {
        Direction::SendRecv => (true, true),
        Direction::SendOnly => (true, false),
        Direction::RecvOnly => (false, true),
        Direction::Inactive => (false, false),
    };
    Ok(engine::MediaPlan {
        remote: media.remote,
        direction: engine::Direction { send, receive: takes },
        send_codec: codec(media.send.codec),
        send_payload_type: media.send.payload_type,
        send_ptime_ms: media.send.ptime_ms,
        receive,
        telephone_event: media.telephone_event,
        source: source_rule(media)?,
    })
}

fn check_remote(media: &Media, local: IpAddr) -> Result<(), Problem> {
    let remote = media.remote;
    if remote.ip().is_unspecified() {
        return Ok(());
    }
    let broadcast = matches!(remote.ip(), IpAddr::V4(address) if address.is_broadcast());
    if remote.ip().is_multicast() || broadcast {
        return Err(invalid(format!(
            "media.remote: {remote} is not the address of one host"
        )));
    }
    if remote.port() == 0 {
        return Err(invalid(format!(
            "media.remote: {remote} has no port; use 0.0.0.0 to send nothing"
        )));
    }
    if remote.is_ipv4() != local.is_ipv4() {
        return Err(invalid(format!(
            "media.remote: {remote} cannot be reached from io.address {local}"
        )));
    }
    Ok(())
}

fn source_rule(media: &Media) -> Result<engine::SourceRule, Problem> {
    match &media.source {
        SourcePolicy::Strict => Ok(engine::SourceRule::Strict),
        SourcePolicy::Learn { allowed } => {
            let mut places = [None; 4];
            if allowed.is_empty() || allowed.len() > places.len() {
                return Err(invalid(format!(
                    "media.source.allowed: must list 1 to {}",
                    places.len()
                )));
            }
            for (place, address) in places.iter_mut().zip(allowed) {
                *place = Some(*address);
            }
            Ok(engine::SourceRule::Learn { allowed: places })
        }
    }
}

fn payload_type(field: &str, number: u8) -> Result<(), Problem> {
    // RFC 3551 6: 72 to 76 look like RTCP.
    if number > 127 || (72..=76).contains(&number) {
        return Err(invalid(format!(
            "{field}: {number} is no RTP payload type (0 to 71, 77 to 127)"
        )));
    }
    Ok(())
}

fn codec(codec: Codec) -> engine::Codec {
    match codec {
        Codec::Pcmu => engine::Codec::Pcmu,
        Codec::Pcma => engine::Codec::Pcma,
        Codec::L16 => engine::Codec::L16,
    }
}

#[cfg(test)]
mod tests;
