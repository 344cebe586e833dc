//! The directory as a value that can be written down, for a program that goes on where another one
//! stopped.
//!
//! Written down is what was decided: names, places, numbers, what was answered. What follows from it
//! (free lists, loads, look-ups) is made anew under the limits of the program that reads it. There is
//! no form for what is on its way: [`Directory::is_quiet`] must hold first.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use mixer_control::event::EventBody;
use mixer_control::media::Media;
use mixer_control::srtp::SrtpSuite;
use mixer_control::state::EndpointStats;
use mixer_engine::command::{ConferenceIndex, EndpointIndex, PlayId};
use mixer_engine::engine::share::RoomId;
use mixer_engine::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::entries::{ConferenceEntry, EndpointEntry, Part, Place, Presence};
use super::{Directory, Link};
use crate::control::answers::AnswersState;
use crate::control::rings::FromWorker;

/// Everything a directory knows.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct DirectoryState {
    conferences: BTreeMap<String, ConferenceRecord>,
    /// By worker.
    workers: Vec<WorkerRecord>,
    answers: AnswersState,
    next_request: u64,
    next_play: u32,
}

#[derive(Debug, Serialize, Deserialize)]
struct WorkerRecord {
    /// Ports that rest, with the time from which they may be used again.
    resting: Vec<(Timestamp, u16)>,
    tick: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct ConferenceRecord {
    owner: String,
    /// Worker and place of each.
    parts: Vec<(usize, u32)>,
    room: Option<RoomId>,
    phase: u8,
    created_tick: u64,
    locked: bool,
    talkers: Option<u8>,
    endpoints: BTreeMap<String, EndpointRecord>,
    plays: Vec<(u32, String)>,
}

#[derive(Debug, Serialize, Deserialize)]
struct EndpointRecord {
    worker: usize,
    index: u32,
    port: u16,
    ssrc: u32,
    created_with: u64,
    created_tick: u64,
    /// As JSON: its form is the control link's.
    media: Option<String>,
    /// Its keys are in the engine's state alone.
    srtp: Option<SrtpSuite>,
    trunk: bool,
    muted: bool,
    deaf: bool,
    held: bool,
    gain_centibel: i32,
    active: bool,
    talking: bool,
    mixed: bool,
    stats: EndpointStats,
    plays: Vec<(u32, String)>,
}

/// Why a directory cannot be restored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RestoreError {
    /// Another number of workers.
    #[error("there were {had} workers and are {has} now")]
    Workers {
        /// Then.
        had: usize,
        /// Now.
        has: usize,
    },
    /// Something has no place under the limits of this program.
    #[error("{what} {number} is outside of the limits now configured")]
    TooSmall {
        /// What.
        what: &'static str,
        /// Its number.
        number: u32,
    },
    /// A place or port is taken twice.
    #[error("two things at {what} {number}")]
    Twice {
        /// What.
        what: &'static str,
        /// Its number.
        number: u32,
    },
    /// A media description cannot be read.
    #[error("media of an endpoint: {0}")]
    Media(String),
}

impl<L: Link, W> Directory<L, W> {
    /// Whether nothing is on its way: no request, no removal, no answer, no box.
    pub(crate) fn is_quiet(&self) -> bool {
        let settled = |place: &Place| matches!(place, Place::Free | Place::Used(..));
        self.outstanding.is_empty()
            && !self.is_busy()
            && self
                .workers
                .iter()
                .all(|table| table.endpoint_at.iter().all(settled))
    }

    /// Takes what the workers tell and paces removals, but asks for nothing by itself.
    pub(crate) fn poll_quietly(&mut self, now: Timestamp) {
        for worker in 0..self.workers.len() {
            self.drain(now, worker);
        }
        self.pace_removals(now);
    }

    /// Takes what a worker that has ended left behind, the rest of its ring first.
    pub(crate) fn settle(&mut self, now: Timestamp, worker: usize, rest: Vec<FromWorker<L::Prepared>>) {
        self.drain_ring(now, worker);
        for message in rest {
            self.take(now, worker, message);
        }
        // The snapshot that a reader's `gap` would have waited for is taken by the next program.
        if let Some(table) = self.workers.get_mut(worker)
            && (std::mem::take(&mut table.lost_events) | std::mem::take(&mut table.gap_follows))
        {
            self.tell("", "", EventBody::Gap);
        }
    }

    /// Everything, when [`Self::is_quiet`].
    pub(crate) fn export_state(&self) -> DirectoryState {
        let conferences = self.conferences.iter();
        DirectoryState {
            conferences: conferences
                .map(|(name, entry)| (name.to_string(), ConferenceRecord::of(entry)))
                .collect(),
            workers: self
                .workers
                .iter()
                .map(|table| WorkerRecord {
                    resting: table.ports.resting_ports().collect(),
                    tick: table.tick,
                })
                .collect(),
            answers: self.answers.export_state(),
            next_request: self.next_request,
            next_play: self.next_play,
        }
    }

    /// Fills a directory that is empty.
    ///
    /// # Errors
    /// See [`RestoreError`].
    pub(crate) fn import_state(&mut self, state: DirectoryState) -> Result<(), RestoreError> {
        let (had, has) = (state.workers.len(), self.workers.len());
        if had != has {
            return Err(RestoreError::Workers { had, has });
        }
        let mut used: Vec<HashSet<u16>> = vec![HashSet::new(); has];
        for (name, record) in state.conferences {
            let name: Arc<str> = Arc::from(name);
            let no_worker = |worker| RestoreError::Workers { had: worker + 1, has };
            for &(worker, index) in &record.parts {
                let table = self.workers.get_mut(worker).ok_or(no_worker(worker))?;
                take_place(
                    &mut table.conference_at,
                    "conference",
                    index,
                    Option::is_none,
                    || Some(Arc::clone(&name)),
                )?;
                table.conferences += 1;
            }
            for (endpoint, record) in &record.endpoints {
                let worker = record.worker;
                let table = self.workers.get_mut(worker).ok_or(no_worker(worker))?;
                take_place(
                    &mut table.endpoint_at,
                    "endpoint",
                    record.index,
                    |place| *place == Place::Free,
                    || Place::Used(Arc::clone(&name), Arc::from(endpoint.as_str())),
                )?;
                table.endpoints += 1;
                self.endpoints += 1;
                self.ssrcs.insert(record.ssrc);
                let number = u32::from(record.port);
                if !used.get_mut(worker).is_some_and(|used| used.insert(record.port)) {
                    return Err(RestoreError::Twice { what: "port", number });
                }
            }
            self.conferences.insert(name, record.entry()?);
        }
        for ((table, record), used) in self.workers.iter_mut().zip(state.workers).zip(used) {
            let conferences = &table.conference_at;
            table
                .free_conferences
                .retain(|at| conferences.get(*at as usize).is_some_and(Option::is_none));
            let endpoints = &table.endpoint_at;
            table
                .free_endpoints
                .retain(|at| endpoints.get(*at as usize) == Some(&Place::Free));
            table
                .ports
                .restore(&used, record.resting)
                .map_err(|port| RestoreError::TooSmall {
                    what: "port",
                    number: u32::from(port),
                })?;
            table.tick = record.tick;
        }
        self.answers.import_state(state.answers);
        self.next_request = state.next_request;
        self.next_play = state.next_play;
        Ok(())
    }
}

fn take_place<T>(
    places: &mut [T],
    what: &'static str,
    number: u32,
    is_free: impl Fn(&T) -> bool,
    taken: impl FnOnce() -> T,
) -> Result<(), RestoreError> {
    match places.get_mut(number as usize) {
        None => Err(RestoreError::TooSmall { what, number }),
        Some(place) if is_free(place) => {
            *place = taken();
            Ok(())
        }
        Some(_) => Err(RestoreError::Twice { what, number }),
    }
}

fn plays_of(plays: &[(PlayId, String)]) -> Vec<(u32, String)> {
    plays.iter().map(|(id, name)| (id.0, name.clone())).collect()
}

fn plays_from(plays: Vec<(u32, String)>) -> Vec<(PlayId, String)> {
    plays.into_iter().map(|(id, name)| (PlayId(id), name)).collect()
}

// Both directions name every field, so that a new one cannot be forgotten.
impl ConferenceRecord {
    fn of(entry: &ConferenceEntry) -> Self {
        let ConferenceEntry {
            owner,
            parts,
            room,
            phase,
            presence: _,
            created_tick,
            locked,
            talkers,
            endpoints,
            plays,
            ending: _,
        } = entry;
        Self {
            owner: owner.clone(),
            parts: parts.iter().map(|part| (part.worker, part.index.0)).collect(),
            room: *room,
            phase: *phase,
            created_tick: *created_tick,
            locked: *locked,
            talkers: *talkers,
            endpoints: endpoints
                .iter()
                .map(|(name, entry)| (name.to_string(), EndpointRecord::of(entry)))
                .collect(),
            plays: plays_of(plays),
        }
    }

    fn entry(self) -> Result<ConferenceEntry, RestoreError> {
        let endpoints = self.endpoints.into_iter();
        let part = |(worker, index)| Part {
            worker,
            index: ConferenceIndex(index),
            removing: false,
        };
        Ok(ConferenceEntry {
            owner: self.owner,
            parts: self.parts.into_iter().map(part).collect(),
            room: self.room,
            phase: self.phase,
            presence: Presence::Present,
            created_tick: self.created_tick,
            locked: self.locked,
            talkers: self.talkers,
            endpoints: endpoints
                .map(|(name, record)| Ok((Arc::from(name), record.entry()?)))
                .collect::<Result<_, _>>()?,
            plays: plays_from(self.plays),
            ending: None,
        })
    }
}

impl EndpointRecord {
    fn of(entry: &EndpointEntry) -> Self {
        let EndpointEntry {
            worker,
            index,
            port,
            ssrc,
            created_with,
            created_tick,
            presence: _,
            media,
            srtp,
            trunk,
            muted,
            deaf,
            held,
            gain_centibel,
            active,
            talking,
            mixed,
            stats,
            plays,
        } = entry;
        Self {
            worker: *worker,
            index: index.0,
            port: *port,
            ssrc: *ssrc,
            created_with: *created_with,
            created_tick: *created_tick,
            media: media.as_ref().and_then(|media| serde_json::to_string(media).ok()),
            srtp: *srtp,
            trunk: *trunk,
            muted: *muted,
            deaf: *deaf,
            held: *held,
            gain_centibel: *gain_centibel,
            active: *active,
            talking: *talking,
            mixed: *mixed,
            stats: *stats,
            plays: plays_of(plays),
        }
    }

    fn entry(self) -> Result<EndpointEntry, RestoreError> {
        let media = self.media.map(|text| serde_json::from_str::<Media>(&text));
        Ok(EndpointEntry {
            worker: self.worker,
            index: EndpointIndex(self.index),
            port: self.port,
            ssrc: self.ssrc,
            created_with: self.created_with,
            created_tick: self.created_tick,
            presence: Presence::Present,
            media: media
                .transpose()
                .map_err(|error| RestoreError::Media(error.to_string()))?,
            srtp: self.srtp,
            trunk: self.trunk,
            muted: self.muted,
            deaf: self.deaf,
            held: self.held,
            gain_centibel: self.gain_centibel,
            active: self.active,
            talking: self.talking,
            mixed: self.mixed,
            stats: self.stats,
            plays: plays_from(self.plays),
        })
    }
}
