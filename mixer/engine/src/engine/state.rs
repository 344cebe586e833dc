//! The engine in bytes, for a program that goes on where another one stopped.
//!
//! Everything that decides what comes next is in it: what was received and not played, every number
//! of every stream, timers, counters, events nobody has fetched. What every tick makes anew, and
//! tables that follow from the rest, are not; nor is the tick of a shared conference that waits for the other
//! parts: [`Engine::end_waiting`] ends it first. Both ways allocate: never on a worker's turn.

pub(crate) mod packed;

use serde::{Deserialize, Serialize};

use super::share::{Share, ShareSetup};
use super::{Conference, Endpoint, Engine, EngineLimits};
use crate::command::{ConferenceIndex, EndpointIndex, PlayId, Refusal};
use crate::counters::Counters;
use crate::event::{Event, EventKind};
use crate::time::Timestamp;

/// Number of the form that [`Engine::export_state`] writes and [`Engine::import_state`] reads. It is
/// raised whenever a field comes, goes, or changes its meaning.
pub const STATE_FORMAT: u32 = 6;

/// Why a state cannot be written or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// It is not what this program writes.
    #[error("the state cannot be read: {0}")]
    Unreadable(String),
    /// It was written by another version of the program.
    #[error("the state has format {found}, this program reads {STATE_FORMAT}")]
    Format {
        /// The number it carries.
        found: u32,
    },
    /// It holds more than this engine's limits allow.
    #[error("{what} {number} is beyond the limit of {limit}")]
    TooSmall {
        /// What does not fit.
        what: &'static str,
        /// Its number.
        number: u32,
        /// How many there may be, or the highest number.
        limit: u32,
    },
    /// It contradicts itself.
    #[error("the state contradicts itself: {0}")]
    Contradiction(&'static str),
    /// Boxes of a failed conference wait for [`Engine::poll_retired`].
    #[error("boxes of a failed conference have not been fetched")]
    BoxesWait,
}

/// What is written. Generic over how things are held, so that nothing is copied first.
#[derive(Serialize)]
struct Written<'a> {
    format: u32,
    origin: Option<Timestamp>,
    csrc: bool,
    counters: &'a Counters,
    events: Vec<Event>,
    calendar: Vec<Vec<ConferenceIndex>>,
    conferences: Vec<(ConferenceIndex, &'a Conference, Vec<EndpointIndex>)>,
    shares: Vec<(ConferenceIndex, ShareSetup)>,
    endpoints: Vec<&'a Endpoint>,
}

/// The same as it is read, but for the number.
#[derive(Deserialize)]
#[serde(rename = "State")]
struct Read {
    origin: Option<Timestamp>,
    csrc: bool,
    counters: Counters,
    events: Vec<Event>,
    /// By phase, in the order in which they tick.
    calendar: Vec<Vec<ConferenceIndex>>,
    /// With their members in the order in which they joined, and then their trunks.
    conferences: Vec<(ConferenceIndex, Box<Conference>, Vec<EndpointIndex>)>,
    shares: Vec<(ConferenceIndex, ShareSetup)>,
    endpoints: Vec<Endpoint>,
}

/// The number alone, whatever else there is.
#[derive(Deserialize)]
struct Numbered {
    format: u32,
}

impl Engine {
    /// Everything in bytes. `number_of` says what a prompt is called in the state; a play of one that
    /// has no number ends when the state is read. What the engine does next is not changed.
    ///
    /// # Errors
    /// [`StateError::BoxesWait`].
    pub fn export_state(
        &mut self,
        mut number_of: impl FnMut(&'static [i16]) -> Option<u32>,
    ) -> Result<Vec<u8>, StateError> {
        if !self.retired.is_empty() {
            return Err(StateError::BoxesWait);
        }
        for conference in self.conferences.iter_mut().flatten() {
            conference.plays.name_prompts(&mut number_of);
        }
        for endpoint in self.endpoints.iter_mut() {
            endpoint.plays().name_prompts(&mut number_of);
            endpoint.tidy();
        }
        let conferences = (0..).zip(&self.conferences);
        let written = Written {
            format: STATE_FORMAT,
            origin: self.origin,
            csrc: self.csrc,
            counters: &self.counters,
            events: self.events.iter().copied().collect(),
            calendar: self.calendar.lists().to_vec(),
            conferences: conferences
                .filter_map(|(at, place)| {
                    let conference = place.as_deref()?;
                    let members = self.roster.iter(&conference.members);
                    let all = members.chain(self.roster.iter(&conference.trunks)).collect();
                    Some((ConferenceIndex(at), conference, all))
                })
                .collect(),
            shares: self
                .shared
                .iter()
                .filter_map(|&at| Some((at, self.shares.get(at.0 as usize)?.as_deref()?.setup())))
                .collect(),
            endpoints: self.endpoints.iter().collect(),
        };
        let mut bytes = Vec::with_capacity(BYTES_PER_ENDPOINT * (written.endpoints.len() + 1));
        rmp_serde::encode::write_named(&mut bytes, &written).map_err(unreadable)?;
        Ok(bytes)
    }

    /// An engine that goes on where the one that wrote `state` stopped. `prompt_of` finds a prompt by
    /// its number; a play of one that is not there ends with [`EventKind::Played`], incomplete.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn import_state(
        limits: EngineLimits,
        state: &[u8],
        mut prompt_of: impl FnMut(u32) -> Option<&'static [i16]>,
    ) -> Result<Self, StateError> {
        let numbered: Numbered = rmp_serde::from_slice(state).map_err(unreadable)?;
        if numbered.format != STATE_FORMAT {
            return Err(StateError::Format {
                found: numbered.format,
            });
        }
        let state: Read = rmp_serde::from_slice(state).map_err(unreadable)?;
        let mut engine = Self::new(limits);
        engine.origin = state.origin;
        engine.csrc = state.csrc;
        engine.counters = state.counters;
        for event in state.events {
            engine.events.put_back(event, &mut engine.counters);
        }
        for endpoint in state.endpoints {
            engine.put_endpoint(endpoint, &limits)?;
        }
        for (at, conference, members) in state.conferences {
            engine.put_conference(at, conference, &members, &limits)?;
        }
        engine.put_calendar(state.calendar)?;
        for (at, setup) in state.shares {
            engine.put_share(at, setup)?;
        }
        engine.find_prompts(&mut prompt_of);
        Ok(engine)
    }

    fn put_endpoint(&mut self, mut endpoint: Endpoint, limits: &EngineLimits) -> Result<(), StateError> {
        let (at, port) = (endpoint.at(), endpoint.local_port());
        match self.endpoints.is_taken(at) {
            None => {
                return Err(StateError::TooSmall {
                    what: "endpoint",
                    number: at.0,
                    limit: limits.endpoints,
                });
            }
            Some(true) => return Err(StateError::Contradiction("two endpoints at one place")),
            Some(false) => {}
        }
        match self.ports.check_free(port) {
            Ok(()) => {}
            Err(Refusal::OutOfRange) => {
                return Err(StateError::TooSmall {
                    what: "port",
                    number: u32::from(port),
                    limit: u32::from(limits.port_last),
                });
            }
            Err(_) => return Err(StateError::Contradiction("two endpoints on one port")),
        }
        endpoint.complete();
        self.ports.take(port, at);
        self.own_ssrcs.add(endpoint.conference(), endpoint.ssrc());
        self.endpoints.put(at, Box::new(Some(endpoint)));
        Ok(())
    }

    fn put_conference(
        &mut self,
        at: ConferenceIndex,
        mut conference: Box<Conference>,
        members: &[EndpointIndex],
        limits: &EngineLimits,
    ) -> Result<(), StateError> {
        let Some(place) = self.conferences.get_mut(at.0 as usize) else {
            return Err(StateError::TooSmall {
                what: "conference",
                number: at.0,
                limit: limits.conferences,
            });
        };
        for &member in members {
            let endpoint = self.endpoints.get(member);
            let Some(endpoint) = endpoint.filter(|endpoint| endpoint.conference() == at) else {
                return Err(StateError::Contradiction("a member that is not there"));
            };
            self.roster.join(conference.list_of(endpoint), member);
        }
        if place.replace(conference).is_some() {
            return Err(StateError::Contradiction("two conferences at one place"));
        }
        Ok(())
    }

    fn put_share(&mut self, at: ConferenceIndex, setup: ShareSetup) -> Result<(), StateError> {
        let is_there = self.conferences.get(at.0 as usize).is_some_and(Option::is_some);
        let Some(place) = self.shares.get_mut(at.0 as usize).filter(|_| is_there) else {
            return Err(StateError::Contradiction("a part of no conference"));
        };
        if place.replace(Share::new(setup)).is_some() {
            return Err(StateError::Contradiction("two parts of one conference"));
        }
        self.shared.push(at);
        Ok(())
    }

    fn put_calendar(&mut self, calendar: Vec<Vec<ConferenceIndex>>) -> Result<(), StateError> {
        let mut listed = 0;
        for (phase, list) in calendar.into_iter().enumerate() {
            for at in list {
                let conference = self.conferences.get(at.0 as usize).and_then(Option::as_deref);
                if conference.is_none_or(|conference| conference.phase() != phase) {
                    return Err(StateError::Contradiction("a tick of no conference"));
                }
                self.calendar.add(phase, at);
                listed += 1;
            }
        }
        if listed != self.conferences.iter().flatten().count() {
            return Err(StateError::Contradiction("a conference that never ticks"));
        }
        Ok(())
    }

    fn find_prompts(&mut self, prompt_of: &mut impl FnMut(u32) -> Option<&'static [i16]>) {
        let Self {
            conferences,
            endpoints,
            events,
            counters,
            ..
        } = self;
        let mut ended = |conference, endpoint, play: PlayId| {
            let kind = EventKind::Played {
                play,
                complete: false,
            };
            let event = Event {
                conference,
                endpoint,
                kind,
            };
            events.push(event, counters);
        };
        for (at, conference) in (0..).zip(conferences) {
            if let Some(conference) = conference {
                let at = ConferenceIndex(at);
                let plays = &mut conference.plays;
                plays.find_prompts(&mut *prompt_of, |play| ended(at, None, play));
            }
        }
        for endpoint in endpoints.iter_mut() {
            let (conference, at) = (endpoint.conference(), endpoint.at());
            let plays = endpoint.plays();
            plays.find_prompts(&mut *prompt_of, |play| ended(conference, Some(at), play));
        }
    }
}

fn unreadable(error: impl std::fmt::Display) -> StateError {
    StateError::Unreadable(error.to_string())
}

/// Room made for an endpoint before writing.
const BYTES_PER_ENDPOINT: usize = 4_096;

#[cfg(test)]
mod tests;
