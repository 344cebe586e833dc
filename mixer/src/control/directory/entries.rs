//! What the directory keeps of workers, conferences, endpoints and requests.

use std::collections::BTreeMap;
use std::sync::Arc;

use mixer_control::media::Media;
use mixer_control::srtp::SrtpSuite;
use mixer_control::state::EndpointStats;
use mixer_engine::command::{ConferenceIndex, EndpointIndex, EndpointSnapshot, PlayId};
use mixer_engine::engine::share::RoomId;
use mixer_engine::time::Timestamp;

use crate::control::headroom::Headroom;
use crate::control::ports::PortPool;
use crate::metrics::histogram::TickHistograms;

/// One worker as control sees it.
pub(super) struct WorkerTable<L> {
    pub(super) link: L,
    pub(super) id: u16,
    pub(super) alive: bool,
    pub(super) ports: PortPool,
    pub(super) free_conferences: Vec<u32>,
    pub(super) free_endpoints: Vec<u32>,
    pub(super) conference_at: Vec<Option<Arc<str>>>,
    pub(super) endpoint_at: Vec<Place>,
    pub(super) conferences: u32,
    pub(super) endpoints: u32,
    /// Last slot it told of.
    pub(super) tick: u64,
    #[expect(
        clippy::box_collection,
        reason = "commands carry the box, so that they stay small"
    )]
    pub(super) snapshot: Option<Box<Vec<EndpointSnapshot>>>,
    pub(super) snapshot_due: Timestamp,
    /// First place of the next page of a snapshot that is under way.
    pub(super) snapshot_from: Option<u32>,
    pub(super) histograms: TickHistograms,
    /// Events lost; a `gap` follows once the next snapshot has come.
    pub(super) lost_events: bool,
    /// The same, before the snapshot that is under way began.
    pub(super) gap_follows: bool,
    pub(super) headroom: Headroom,
}

/// What is at an endpoint index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// Nothing, or something of which the free list knows.
    Free,
    /// An endpoint.
    Used(Arc<str>, Arc<str>),
    /// An endpoint of a failed conference whose box has not come back yet.
    Lost,
    /// The reverse: the box came back before the event.
    Returned(Arc<str>, Arc<str>),
}

pub(super) struct ConferenceEntry {
    pub(super) owner: String,
    /// Where its members are, in the order in which workers came to it. Never empty but at its end.
    pub(super) parts: Vec<Part>,
    /// What its parts call it, once there was more than one.
    pub(super) room: Option<RoomId>,
    pub(super) phase: u8,
    pub(super) presence: Presence,
    pub(super) created_tick: u64,
    pub(super) locked: bool,
    /// Talkers mixed at most.
    pub(super) talkers: Option<u8>,
    pub(super) endpoints: BTreeMap<Arc<str>, EndpointEntry>,
    pub(super) plays: Vec<(PlayId, String)>,
    /// Commands that end once it is gone.
    pub(super) ending: Option<Vec<String>>,
}

/// A conference on one worker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    pub(super) worker: usize,
    pub(super) index: ConferenceIndex,
    /// The request to remove it is on its way.
    pub(super) removing: bool,
}

impl ConferenceEntry {
    /// The worker on which it was created, or the oldest one it still has.
    pub(super) fn home(&self) -> usize {
        self.parts.first().map_or(0, |part| part.worker)
    }
}

pub(super) struct EndpointEntry {
    pub(super) worker: usize,
    pub(super) index: EndpointIndex,
    pub(super) port: u16,
    pub(super) ssrc: u32,
    /// Fingerprint of the media it was created with.
    pub(super) created_with: u64,
    pub(super) created_tick: u64,
    pub(super) presence: Presence,
    /// Without keys: only the engine has them.
    pub(super) media: Option<Media>,
    pub(super) srtp: Option<SrtpSuite>,
    pub(super) trunk: bool,
    pub(super) muted: bool,
    pub(super) deaf: bool,
    pub(super) held: bool,
    pub(super) gain_centibel: i32,
    pub(super) active: bool,
    pub(super) talking: bool,
    pub(super) mixed: bool,
    pub(super) stats: EndpointStats,
    pub(super) plays: Vec<(PlayId, String)>,
}

/// Whether the worker has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    /// The request to add it is on its way.
    Adding(u64),
    /// Yes.
    Present,
    /// The request to remove it is on its way.
    Removing(u64),
}

/// A request on its way.
pub(super) struct Outstanding {
    /// Commands that end with it.
    pub(super) commands: Vec<String>,
    pub(super) conference: Arc<str>,
    /// Empty for requests to a conference.
    pub(super) endpoint: Arc<str>,
    pub(super) action: Action,
}

pub(super) enum Action {
    AddConference,
    /// Whatever a further part of a conference is told along with the first.
    Part,
    RemoveConference,
    AddEndpoint,
    RemoveEndpoint(EndpointIndex),
    /// Without keys.
    SetMedia(Box<Media>, Option<SrtpSuite>),
    Mute(bool),
    Deaf(bool),
    Hold(bool),
    Gain(i32),
    Play(PlayId),
    Stop,
    Snapshot,
}

impl<L> WorkerTable<L> {
    /// First place of the first page of places from `from` on in which there are endpoints.
    pub(super) fn page_from(&self, from: u32) -> Option<u32> {
        let places = self.endpoint_at.get(from as usize..)?;
        let page = places
            .chunks(SNAPSHOT_PAGE as usize)
            .position(|page| page.iter().any(|place| matches!(place, Place::Used(..))))?;
        Some(from + u32::try_from(page).ok()? * SNAPSHOT_PAGE)
    }
}

/// Places that a worker looks at in one turn for a snapshot.
pub(super) const SNAPSHOT_PAGE: u32 = 256;
