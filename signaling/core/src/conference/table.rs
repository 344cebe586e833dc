//! The table of all conferences of a node, and every command that changes one.

use std::collections::{BTreeMap, VecDeque};

use crate::effect::ConferenceView;
use crate::record::{ConferenceRecord, DialogRecord};
use crate::sdp::Agreed;
use crate::time::WallTime;

use super::ids::{ConferenceId, EndpointId, EndpointIds};
use super::lifecycle::{State, Trigger};
use super::log::{EndCause, Event, EventLog, LeaveCause};
use super::policy::{self, Asker, Command, Refused, Situation, SystemReason};
use super::roster::{Arrival, Endpoint, Media, Roster, Stage};
use super::{Conference, EndOutcome, Join, JoinOutcome, LeaveOutcome, Limits};

/// All conferences of a node.
#[derive(Debug)]
pub struct Conferences {
    limits: Limits,
    seed: [u8; 32],
    ids: Option<EndpointIds>,
    last_epoch: u64,
    table: BTreeMap<ConferenceId, Conference>,
    /// Which conference an endpoint is in.
    index: BTreeMap<EndpointId, ConferenceId>,
    /// The last ones that ended, for readers of their logs.
    ended: VecDeque<Conference>,
}

impl Conferences {
    /// An empty table. `seed` tells this run of the node from others.
    #[must_use]
    pub fn new(limits: Limits, seed: [u8; 32]) -> Self {
        Self {
            limits,
            seed,
            ids: None,
            last_epoch: 0,
            table: BTreeMap::new(),
            index: BTreeMap::new(),
            ended: VecDeque::new(),
        }
    }

    /// Number of conferences.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Number of endpoints in all conferences.
    #[must_use]
    pub fn endpoints_len(&self) -> usize {
        self.index.len()
    }

    /// One conference.
    #[must_use]
    pub fn get(&self, conference: &str) -> Option<&Conference> {
        self.table.get(conference)
    }

    /// All conferences by id.
    pub fn iter(&self) -> impl Iterator<Item = &Conference> {
        self.table.values()
    }

    /// The conference an endpoint is in.
    #[must_use]
    pub fn conference_of(&self, endpoint: &str) -> Option<&Conference> {
        self.index
            .get(endpoint)
            .and_then(|conference| self.table.get(conference))
    }

    /// One endpoint, wherever it is.
    #[must_use]
    pub fn endpoint(&self, endpoint: &str) -> Option<&Endpoint> {
        self.conference_of(endpoint)?.roster.endpoint(endpoint)
    }

    /// The last conferences that ended, oldest first, for readers of their logs.
    pub fn ended(&self) -> impl Iterator<Item = &Conference> {
        self.ended.iter()
    }

    /// Makes a conference without anybody in it; true when it did not exist before. It stays until
    /// somebody was in it, or until it is ended.
    ///
    /// # Errors
    /// [`Refused`]: bad name, not allowed, too many.
    pub fn create(&mut self, asker: &Asker, conference: &str, now: WallTime) -> Result<bool, Refused> {
        let id = ConferenceId::new(conference).ok_or(Refused::BadName)?;
        self.check(Command::Create, asker, conference)?;
        self.activate(&id, now)
    }

    /// Lets an endpoint in; the conference is made first when callers may do that.
    ///
    /// # Errors
    /// [`Refused`]; nothing has changed then.
    pub fn join(&mut self, asker: &Asker, join: &Join<'_>, now: WallTime) -> Result<JoinOutcome, Refused> {
        let id = ConferenceId::new(join.conference).ok_or(Refused::BadName)?;
        self.check(Command::Join, asker, join.conference)?;
        let created = self.activate(&id, now)?;
        let endpoint = self.ids(now).next();
        self.arrive(&id, &endpoint, join, now);
        Ok(JoinOutcome {
            created,
            conference: id,
            endpoint,
        })
    }

    /// The mixer has the conference; `mixer` is its URL. False when the conference is not there.
    pub fn ready(&mut self, conference: &str, mixer: &str, now: WallTime) -> bool {
        let Some(conference) = self.table.get_mut(conference) else {
            return false;
        };
        mixer.clone_into(&mut conference.mixer);
        if conference.state == State::Activating && conference.step(Trigger::Ready) {
            conference.log.append(now, Event::Ready);
        }
        true
    }

    /// An endpoint's dialog and media stand. False when it is not there or stood already.
    pub fn connected(&mut self, endpoint: &str, now: WallTime) -> bool {
        self.change(endpoint, now, |endpoint| {
            (endpoint.stage == Stage::DialingIn).then(|| {
                endpoint.stage = Stage::Connected;
                endpoint.was_connected = true;
                endpoint.joined = now;
                Event::Joined {
                    endpoint: endpoint.id.clone(),
                }
            })
        })
    }

    /// An endpoint's media was negotiated. True when that changed anything.
    pub fn media_changed(&mut self, endpoint: &str, agreed: &Agreed, now: WallTime) -> bool {
        let direction = agreed.direction.reversed();
        let media = Media {
            direction,
            codec: agreed.description.codec,
            held: agreed.held,
        };
        self.change(endpoint, now, |endpoint| {
            (endpoint.media != Some(media)).then(|| {
                endpoint.media = Some(media);
                Event::MediaChanged {
                    endpoint: endpoint.id.clone(),
                    media,
                }
            })
        })
    }

    /// An endpoint began or stopped talking. True when that is news.
    pub fn talking(&mut self, endpoint: &str, talking: bool, now: WallTime) -> bool {
        self.change(endpoint, now, |endpoint| {
            (endpoint.talking != talking).then(|| {
                endpoint.talking = talking;
                Event::Talk {
                    endpoint: endpoint.id.clone(),
                    talking,
                }
            })
        })
    }

    /// A key was pressed. False when the endpoint is not there.
    pub fn digit(&mut self, endpoint: &str, digit: char, duration_ms: u32, now: WallTime) -> bool {
        self.change(endpoint, now, |endpoint| {
            Some(Event::Digit {
                endpoint: endpoint.id.clone(),
                digit,
                duration_ms,
            })
        })
    }

    /// Mutes or unmutes an endpoint by command. True when that changed anything: the mixer must be
    /// told and the dialog record saved.
    ///
    /// # Errors
    /// [`Refused`]: not allowed, no such participant.
    pub fn mute(&mut self, asker: &Asker, endpoint: &str, on: bool, now: WallTime) -> Result<bool, Refused> {
        let command = if on { Command::Mute } else { Command::Unmute };
        self.check_endpoint(command, asker, endpoint)?;
        Ok(self.change(endpoint, now, |endpoint| {
            (endpoint.muted != on).then(|| {
                endpoint.muted = on;
                Event::Mute {
                    endpoint: endpoint.id.clone(),
                    on,
                }
            })
        }))
    }

    /// Locks or unlocks. True when that changed anything: the mixer must be told and the conference
    /// record saved.
    ///
    /// # Errors
    /// [`Refused`]: not allowed, no such conference, ending.
    pub fn lock(
        &mut self,
        asker: &Asker,
        conference: &str,
        on: bool,
        now: WallTime,
    ) -> Result<bool, Refused> {
        self.check(
            if on { Command::Lock } else { Command::Unlock },
            asker,
            conference,
        )?;
        let conference = self.table.get_mut(conference).ok_or(Refused::NotFound)?;
        if !conference.state.admits() {
            return Err(Refused::Ending);
        }
        let changed = conference.locked != on;
        if changed {
            conference.locked = on;
            conference.log.append(now, Event::Lock { on });
        }
        Ok(changed)
    }

    /// Begins to remove an endpoint: the caller hangs it up and then calls [`Conferences::leave`].
    ///
    /// # Errors
    /// [`Refused`]: not allowed, no such participant.
    pub fn kick(&mut self, asker: &Asker, endpoint: &str, now: WallTime) -> Result<(), Refused> {
        self.check_endpoint(Command::Kick, asker, endpoint)?;
        self.disconnecting(endpoint, now);
        Ok(())
    }

    /// An endpoint is being hung up. False when it is not there or was being hung up already.
    pub fn disconnecting(&mut self, endpoint: &str, now: WallTime) -> bool {
        self.change(endpoint, now, Endpoint::disconnect)
    }

    /// Takes an endpoint out. With the last one the conference ends. None when it is not there.
    pub fn leave(&mut self, endpoint: &str, cause: LeaveCause, now: WallTime) -> Option<LeaveOutcome> {
        let id = self.index.remove(endpoint)?;
        let conference = self.table.get_mut(&id)?;
        let left = conference.roster.remove(endpoint)?;
        conference.log.append(
            now,
            Event::Left {
                endpoint: left.id,
                cause,
            },
        );
        let conference_ended = conference.roster.is_empty();
        if conference_ended {
            self.bury(&id, now);
        }
        Some(LeaveOutcome {
            conference: id,
            was_connected: left.was_connected,
            conference_ended,
        })
    }

    /// Ends a conference: nobody is let in any more, everybody is to be hung up.
    ///
    /// # Errors
    /// [`Refused`]: not allowed, no such conference.
    pub fn end(&mut self, asker: &Asker, conference: &str, now: WallTime) -> Result<EndOutcome, Refused> {
        self.check(Command::End, asker, conference)?;
        let found = self.table.get_mut(conference).ok_or(Refused::NotFound)?;
        let cause = match asker {
            Asker::System(SystemReason::Mixer | SystemReason::Restart) => EndCause::MixerLost,
            Asker::System(SystemReason::Timer | SystemReason::Ending)
            | Asker::Trusted { .. }
            | Asker::Operator => EndCause::Command,
        };
        let endpoints = found.end(cause, now);
        let conference_ended = endpoints.is_empty();
        if conference_ended {
            let id = found.id.clone();
            self.bury(&id, now);
        }
        Ok(EndOutcome {
            endpoints,
            conference_ended,
        })
    }

    /// Takes a conference over from a former run. False when its id is bad or taken.
    pub fn restore_conference(&mut self, record: &ConferenceRecord) -> bool {
        let Some(id) = ConferenceId::new(&record.conference) else {
            return false;
        };
        if self.table.contains_key(&id) {
            return false;
        }
        self.last_epoch = self.last_epoch.max(record.epoch);
        let mut conference = Conference {
            id: id.clone(),
            epoch: record.epoch,
            state: State::Active,
            locked: record.locked,
            mixer: record.mixer.clone(),
            activated: record.activated,
            end_cause: None,
            roster: Roster::default(),
            log: EventLog::default(),
        };
        conference.log.append(record.activated, Event::Activated);
        if record.locked {
            conference.log.append(record.activated, Event::Lock { on: true });
        }
        self.table.insert(id, conference);
        true
    }

    /// Takes an endpoint over from a former run. False when its conference is not there, or its id
    /// is there already. `agreed` is what [`crate::sdp::LocalSession::restored_media`] says.
    pub fn restore_endpoint(
        &mut self,
        record: &DialogRecord,
        display_name: &str,
        agreed: Option<&Agreed>,
        now: WallTime,
    ) -> bool {
        self.ids(now).avoid(&record.endpoint);
        let endpoint = EndpointId::known(&record.endpoint);
        let Some(id) = self
            .table
            .get(record.conference.as_str())
            .map(|conference| conference.id.clone())
        else {
            return false;
        };
        if self.index.contains_key(&endpoint) {
            return false;
        }
        let join = Join {
            conference: id.as_str(),
            address: &record.remote_uri,
            display_name,
            call_id: &record.call_id,
        };
        self.arrive(&id, &endpoint, &join, record.joined);
        self.connected(endpoint.as_str(), record.joined);
        if let Some(agreed) = agreed {
            self.media_changed(endpoint.as_str(), agreed, record.joined);
        }
        self.change(endpoint.as_str(), record.joined, |endpoint| {
            endpoint.muted = record.muted;
            record.muted.then(|| Event::Mute {
                endpoint: endpoint.id.clone(),
                on: true,
            })
        });
        true
    }

    /// All conferences as operators see them, by id.
    #[must_use]
    pub fn views(&self) -> Vec<ConferenceView> {
        self.table.values().map(Conference::view).collect()
    }

    fn ids(&mut self, now: WallTime) -> &mut EndpointIds {
        let seed = &self.seed;
        self.ids.get_or_insert_with(|| EndpointIds::new(seed, now))
    }

    fn check(&self, command: Command, asker: &Asker, conference: &str) -> Result<(), Refused> {
        let situation = self.table.get(conference).map(|conference| Situation {
            state: conference.state,
            locked: conference.locked,
            full: conference.roster.len() >= self.limits.endpoints_max,
        });
        policy::check(command, asker, situation, self.limits.auto_create)
    }

    fn check_endpoint(&self, command: Command, asker: &Asker, endpoint: &str) -> Result<(), Refused> {
        let conference = self.index.get(endpoint).ok_or(Refused::NoSuchParticipant)?;
        self.check(command, asker, conference.as_str())
    }

    /// True when the conference did not exist before.
    fn activate(&mut self, id: &ConferenceId, now: WallTime) -> Result<bool, Refused> {
        if self.table.contains_key(id) {
            return Ok(false);
        }
        if self.table.len() >= self.limits.conferences_max {
            return Err(Refused::TooManyConferences);
        }
        // Rises even when a former run's count is lost with its record: the clock stands in for it.
        self.last_epoch = now.0.max(self.last_epoch + 1);
        let mut conference = Conference {
            id: id.clone(),
            epoch: self.last_epoch,
            state: State::Scheduled,
            locked: false,
            mixer: String::new(),
            activated: now,
            end_cause: None,
            roster: Roster::default(),
            log: EventLog::default(),
        };
        conference.step(Trigger::Activate);
        conference.log.append(now, Event::Activated);
        self.table.insert(id.clone(), conference);
        Ok(true)
    }

    fn arrive(&mut self, id: &ConferenceId, endpoint: &EndpointId, join: &Join<'_>, now: WallTime) {
        let Some(conference) = self.table.get_mut(id) else {
            return;
        };
        let entity = conference.roster.arrive(Arrival {
            id: endpoint.clone(),
            address: join.address,
            display_name: join.display_name,
            call_id: join.call_id,
            at: now,
        });
        conference.log.append(
            now,
            Event::Arrived {
                endpoint: endpoint.clone(),
                entity,
            },
        );
        let former = self.index.insert(endpoint.clone(), id.clone());
        assert!(former.is_none(), "an endpoint is in one conference only");
    }

    /// Changes an endpoint and logs what `change` says happened; false when nothing did.
    fn change(
        &mut self,
        endpoint: &str,
        now: WallTime,
        change: impl FnOnce(&mut Endpoint) -> Option<Event>,
    ) -> bool {
        let Some(conference) = self.index.get(endpoint).and_then(|id| self.table.get_mut(id)) else {
            return false;
        };
        let Some(event) = conference.roster.endpoint_mut(endpoint).and_then(change) else {
            return false;
        };
        conference.log.append(now, event);
        true
    }

    /// Moves an empty conference from the table to those that ended.
    fn bury(&mut self, id: &ConferenceId, now: WallTime) {
        let Some(mut conference) = self.table.remove(id) else {
            return;
        };
        assert!(conference.roster.is_empty(), "an ended conference has nobody");
        conference.step(Trigger::Emptied);
        let cause = conference.end_cause.unwrap_or(EndCause::Empty);
        conference.log.append(now, Event::Ended { cause });
        if self.ended.len() == ENDED_KEPT {
            self.ended.pop_front();
        }
        self.ended.push_back(conference);
    }
}

/// Ended conferences kept for readers of their logs.
const ENDED_KEPT: usize = 64;
