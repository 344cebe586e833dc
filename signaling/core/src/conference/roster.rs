//! Who is in a conference: participants, their endpoints, their media (RFC 4575 section 5).

use std::collections::BTreeMap;

use crate::effect::{Codec, ParticipantView};
use crate::sdp::Direction;
use crate::time::WallTime;

use super::ids::EndpointId;
use super::log::Event;

/// A person or device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Participant {
    /// Stable address in this conference; its spelling never changes (RFC 4575 4.5: keys are bytes).
    pub entity: String,
    /// Display name, may be empty.
    pub display_name: String,
}

/// One leg of a participant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its id, here and on the mixer.
    pub id: EndpointId,
    /// Entity of its participant.
    pub entity: String,
    /// Position in the order of arrival, from 1, never reused in a conference.
    pub arrival: u64,
    /// SIP Call-ID.
    pub call_id: String,
    /// How far its set-up is.
    pub stage: Stage,
    /// It was connected at some time, whatever the stage is now.
    pub was_connected: bool,
    /// Its audio, as soon as negotiated.
    pub media: Option<Media>,
    /// Muted by command.
    pub muted: bool,
    /// Talks now.
    pub talking: bool,
    /// When it was connected; before that, when it arrived.
    pub joined: WallTime,
}

/// How far an endpoint's set-up is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It called and is being set up.
    DialingIn,
    /// Dialog and media stand.
    Connected,
    /// It is being hung up.
    Disconnecting,
}

/// The audio of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Media {
    /// Direction seen from the participant.
    pub direction: Direction,
    /// Codec of what it hears.
    pub codec: Codec,
    /// Neither hears nor is mixed, by its own wish.
    pub held: bool,
}

/// RFC 4575 section 5.7.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointStatus {
    /// Waits for permission.
    Pending,
    /// Is being called.
    DialingOut,
    /// Is calling.
    DialingIn,
    /// Rings.
    Alerting,
    /// Neither hears nor is mixed.
    OnHold,
    /// In the mix.
    Connected,
    /// Hears, is not mixed, by command.
    MutedViaFocus,
    /// Is being hung up.
    Disconnecting,
    /// Gone.
    Disconnected,
}

impl EndpointStatus {
    /// As documents write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::DialingOut => "dialing-out",
            Self::DialingIn => "dialing-in",
            Self::Alerting => "alerting",
            Self::OnHold => "on-hold",
            Self::Connected => "connected",
            Self::MutedViaFocus => "muted-via-focus",
            Self::Disconnecting => "disconnecting",
            Self::Disconnected => "disconnected",
        }
    }
}

impl Endpoint {
    /// Status for conference documents.
    #[must_use]
    pub fn status(&self) -> EndpointStatus {
        let status = self.status_apart_from_mute();
        if self.muted && status == EndpointStatus::Connected {
            EndpointStatus::MutedViaFocus
        } else {
            status
        }
    }

    /// Media direction for conference documents, seen from the participant: muted is recvonly
    /// (RFC 4575 5.8.5).
    #[must_use]
    pub fn media_direction(&self) -> Option<Direction> {
        let direction = self.media?.direction;
        Some(match (direction, self.muted) {
            (Direction::SendRecv, true) => Direction::RecvOnly,
            (Direction::SendOnly, true) => Direction::Inactive,
            (direction, _) => direction,
        })
    }

    /// Begins to hang up; nothing when that had begun.
    pub(super) fn disconnect(&mut self) -> Option<Event> {
        let news = std::mem::replace(&mut self.stage, Stage::Disconnecting) != Stage::Disconnecting;
        news.then(|| Event::Disconnecting {
            endpoint: self.id.clone(),
        })
    }

    fn status_apart_from_mute(&self) -> EndpointStatus {
        match self.stage {
            Stage::DialingIn => EndpointStatus::DialingIn,
            Stage::Connected if self.media.is_some_and(|media| media.held) => EndpointStatus::OnHold,
            Stage::Connected => EndpointStatus::Connected,
            Stage::Disconnecting => EndpointStatus::Disconnecting,
        }
    }
}

/// Everybody in one conference.
#[derive(Debug, Clone, Default)]
pub struct Roster {
    participants: BTreeMap<String, Participant>,
    endpoints: BTreeMap<EndpointId, Endpoint>,
    arrivals: u64,
}

/// Who arrives.
#[derive(Debug)]
pub(super) struct Arrival<'a> {
    pub(super) id: EndpointId,
    pub(super) address: &'a str,
    pub(super) display_name: &'a str,
    pub(super) call_id: &'a str,
    pub(super) at: WallTime,
}

impl Roster {
    /// Number of endpoints.
    #[must_use]
    pub fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// Whether nobody is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// One endpoint.
    #[must_use]
    pub fn endpoint(&self, id: &str) -> Option<&Endpoint> {
        self.endpoints.get(id)
    }

    /// All endpoints in order of arrival.
    #[must_use]
    pub fn endpoints(&self) -> Vec<&Endpoint> {
        let mut endpoints: Vec<_> = self.endpoints.values().collect();
        endpoints.sort_by_key(|endpoint| endpoint.arrival);
        endpoints
    }

    /// All participants by entity.
    pub fn participants(&self) -> impl Iterator<Item = &Participant> {
        self.participants.values()
    }

    /// One participant.
    #[must_use]
    pub fn participant(&self, entity: &str) -> Option<&Participant> {
        self.participants.get(entity)
    }

    /// What an operator may mean: an endpoint id, or an entity with all its endpoints.
    #[must_use]
    pub fn find(&self, shown: &str) -> Vec<EndpointId> {
        let meant = |endpoint: &&Endpoint| endpoint.id.as_str() == shown || endpoint.entity == shown;
        self.endpoints
            .values()
            .filter(meant)
            .map(|endpoint| endpoint.id.clone())
            .collect()
    }

    /// As operators see it, in order of arrival.
    #[must_use]
    pub fn views(&self) -> Vec<ParticipantView> {
        self.endpoints()
            .into_iter()
            .map(|endpoint| self.view(endpoint))
            .collect()
    }

    fn view(&self, endpoint: &Endpoint) -> ParticipantView {
        let participant = self.participants.get(&endpoint.entity);
        ParticipantView {
            participant: endpoint.id.to_string(),
            uri: endpoint.entity.clone(),
            display_name: participant
                .map(|participant| participant.display_name.clone())
                .unwrap_or_default(),
            // Mute has a field of its own there.
            status: endpoint.status_apart_from_mute().as_str(),
            muted: endpoint.muted,
            talking: endpoint.talking,
            codec: endpoint.media.map_or("", |media| codec_name(media.codec)),
            joined: endpoint.joined,
            call_id: endpoint.call_id.clone(),
        }
    }

    pub(super) fn endpoint_mut(&mut self, id: &str) -> Option<&mut Endpoint> {
        self.endpoints.get_mut(id)
    }

    /// Adds an endpoint, and its participant unless the same entity is there with another endpoint.
    /// Returns the entity.
    pub(super) fn arrive(&mut self, arrival: Arrival<'_>) -> String {
        self.arrivals += 1;
        let entity = entity(arrival.address, self.arrivals);
        self.participants
            .entry(entity.clone())
            .or_insert_with(|| Participant {
                entity: entity.clone(),
                display_name: arrival.display_name.to_owned(),
            });
        let endpoint = Endpoint {
            id: arrival.id.clone(),
            entity: entity.clone(),
            arrival: self.arrivals,
            call_id: arrival.call_id.to_owned(),
            stage: Stage::DialingIn,
            was_connected: false,
            media: None,
            muted: false,
            talking: false,
            joined: arrival.at,
        };
        let former = self.endpoints.insert(arrival.id, endpoint);
        assert!(former.is_none(), "endpoint ids are unique");
        entity
    }

    /// Takes an endpoint out, and its participant with the last of its endpoints.
    pub(super) fn remove(&mut self, id: &str) -> Option<Endpoint> {
        let endpoint = self.endpoints.remove(id)?;
        if !self
            .endpoints
            .values()
            .any(|other| other.entity == endpoint.entity)
        {
            self.participants.remove(&endpoint.entity);
        }
        Some(endpoint)
    }
}

/// Anonymous callers share one address but are not one participant: each gets an entity of its own.
fn entity(address: &str, arrival: u64) -> String {
    let host = address.rsplit('@').next().unwrap_or(address);
    let host = host.split([';', '?', ':']).next().unwrap_or(host);
    if host.eq_ignore_ascii_case("anonymous.invalid") {
        return format!("sip:anonymous{arrival}@anonymous.invalid");
    }
    address.to_owned()
}

/// SDP name of a codec.
fn codec_name(codec: Codec) -> &'static str {
    match codec {
        Codec::Pcmu => "PCMU",
        Codec::Pcma => "PCMA",
        Codec::L16 => "L16",
    }
}
