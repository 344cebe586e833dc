//! How a request begins: from what exists to the request for a worker.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use mixer_control::media::Media;
use mixer_control::reply::{Done, EndpointCreated, Problem, ProblemKind};
use mixer_control::request::{
    ConferenceCommand, ConferenceVerb, CreateConference, CreateEndpoint, EndpointCommand, EndpointVerb, Play,
    SetMedia,
};
use mixer_control::state::EndpointStats;
use mixer_engine::command::{self, Command, ConferenceIndex, EndpointIndex, PlayId};
use mixer_engine::engine::{Conference, ConferenceSetup, Endpoint, EndpointSetup};
use mixer_engine::packet::FlowId;
use mixer_engine::time::Timestamp;

use super::{
    Action, CONFERENCE_LOAD, ConferenceEntry, Directory, EndpointEntry, Link, Outstanding, Place, Presence,
    busy,
};
use crate::control::answers::Reply;
use crate::control::call::{Body, Call, media_plan, play_source};
use crate::control::rings::IoChange;
use crate::placement::{self, WorkerLoad};
use crate::worker::WorkerId;

/// Jitter slots of an endpoint.
const SLOTS: u8 = 16;
/// Ports tried when others on the machine hold some of ours.
const PORT_TRIES: u32 = 16;

/// `None`: the answer comes with an outcome.
type Started = Result<Option<Reply>, Problem>;

impl<L: Link, W> Directory<L, W> {
    pub(super) fn start(&mut self, now: Timestamp, call: &Call) -> Started {
        match &call.body {
            Body::CreateConference(body) => self.create_conference(&call.conference, body),
            Body::DeleteConference(command) => self.delete_conference(&call.conference, command),
            Body::ConferenceCommand(body) => self.conference_command(&call.conference, body),
            Body::CreateEndpoint(body) => self.create_endpoint(now, &call.conference, &call.endpoint, body),
            Body::SetMedia(body) => self.set_media(&call.conference, &call.endpoint, body),
            Body::EndpointCommand(body) => self.endpoint_command(&call.conference, &call.endpoint, body),
            Body::DeleteEndpoint(command) => self.delete_endpoint(&call.conference, &call.endpoint, command),
        }
    }

    fn create_conference(&mut self, name: &str, body: &CreateConference) -> Started {
        if let Some(entry) = self.conferences.get(name) {
            if entry.ending.is_some() {
                return Err(busy());
            }
            if entry.owner != body.owner {
                return Err(Problem::new(
                    ProblemKind::Conflict,
                    "owner: the conference has another one",
                ));
            }
            return match entry.presence {
                Presence::Adding(request) => self.join(request, &body.command),
                Presence::Present | Presence::Removing(_) => {
                    Ok(Some(self.done(&body.command, entry.worker, entry.created_tick)))
                }
            };
        }
        if self.conferences.len() >= self.setup.conferences_max as usize {
            return Err(no_headroom("limits.conferences is reached"));
        }
        let loads: Vec<WorkerLoad> = self.loads();
        let worker = placement::choose_worker(&loads).ok_or_else(|| no_headroom("every worker is full"))?;
        let worker = usize::from(worker.0);
        if self.room(worker) == 0 {
            return Err(busy());
        }
        let Some(table) = self.workers.get_mut(worker) else {
            return Err(internal("no such worker"));
        };
        let Some(index) = table.free_conferences.pop() else {
            return Err(no_headroom("the worker has no place for a conference"));
        };
        let phase = placement::choose_phase(&table.phases);
        table.load(phase, CONFERENCE_LOAD);
        table.conferences += 1;
        let (name, nobody): (Arc<str>, Arc<str>) = (Arc::from(name), Arc::from(""));
        if let Some(place) = table.conference_at.get_mut(index as usize) {
            *place = Some(Arc::clone(&name));
        }
        let index = ConferenceIndex(index);
        let entry = ConferenceEntry {
            owner: body.owner.clone(),
            worker,
            index,
            phase,
            presence: Presence::Present,
            created_tick: 0,
            locked: false,
            endpoints: std::collections::BTreeMap::new(),
            plays: Vec::new(),
            ending: None,
        };
        let conference = Conference::new(ConferenceSetup { phase });
        let command = Command::AddConference {
            at: index,
            conference,
        };
        let commands = vec![body.command.clone()];
        match self.send(
            worker,
            (&name, &nobody),
            Action::AddConference,
            command,
            IoChange::None,
            commands,
        ) {
            Ok(id) => {
                self.conferences.insert(
                    name,
                    ConferenceEntry {
                        presence: Presence::Adding(id),
                        ..entry
                    },
                );
                Ok(None)
            }
            Err(problem) => {
                self.forget_conference(&entry);
                Err(problem)
            }
        }
    }

    fn loads(&self) -> Vec<WorkerLoad> {
        self.workers
            .iter()
            .map(|table| WorkerLoad {
                worker: WorkerId(table.id),
                endpoints: table.endpoints,
                endpoints_max: self.setup.worker_endpoints_max,
                conferences: table.conferences,
                conferences_max: self.setup.worker_conferences_max,
                accepts: table.alive,
            })
            .collect()
    }

    /// Lets a command end with a request that is on its way already.
    fn join(&mut self, request: u64, command: &str) -> Started {
        match self.outstanding.get_mut(&request) {
            Some(outstanding) => {
                outstanding.commands.push(command.to_owned());
                Ok(None)
            }
            None => Err(internal("a request was lost")),
        }
    }

    fn delete_conference(&mut self, name: &str, command: &str) -> Started {
        let Some((name, entry)) = self.conferences.get_key_value(name) else {
            return Ok(Some(self.done(command, 0, self.tick_of(0))));
        };
        let name = Arc::clone(name);
        let first = entry.ending.is_none();
        if let Some(entry) = self.conferences.get_mut(&name) {
            entry.ending.get_or_insert_default().push(command.to_owned());
        }
        if first {
            self.ending.push(name);
        }
        Ok(None)
    }

    fn conference_command(&mut self, name: &str, body: &ConferenceCommand) -> Started {
        let Some((name, entry)) = self.conferences.get_key_value(name) else {
            return Err(no_conference());
        };
        if entry.ending.is_some() {
            return Err(no_conference());
        }
        let (name, worker, at) = (Arc::clone(name), entry.worker, entry.index);
        let (action, command) = match &body.verb {
            ConferenceVerb::Lock { on } => {
                let reply = self.done(&body.command, worker, self.tick_of(worker));
                if let Some(entry) = self.conferences.get_mut(&name) {
                    entry.locked = *on;
                    tracing::info!(conference = %name, locked = on, "conference lock");
                }
                return Ok(Some(reply));
            }
            ConferenceVerb::Play(play) => {
                let (action, play) = self.play(play, &name, None)?;
                (action, Command::PlayToConference { at, play })
            }
            ConferenceVerb::Stop { play } => {
                let known = entry
                    .plays
                    .iter()
                    .find(|(_, id)| Some(id) == play.as_ref())
                    .map(|(id, _)| *id);
                if play.is_some() && known.is_none() {
                    return Ok(Some(self.done(&body.command, worker, self.tick_of(worker))));
                }
                (Action::Stop, Command::StopConference { at, play: known })
            }
        };
        let nobody: Arc<str> = Arc::from("");
        let commands = vec![body.command.clone()];
        let id = self.send(
            worker,
            (&name, &nobody),
            action,
            command,
            IoChange::None,
            commands,
        )?;
        if let (ConferenceVerb::Play(play), Some(play_id)) = (&body.verb, self.play_of(id))
            && let Some(entry) = self.conferences.get_mut(&name)
        {
            entry.plays.push((play_id, play.play.clone()));
        }
        Ok(None)
    }

    /// A play for the engine, if its id is not in use on the target.
    fn play(
        &mut self,
        play: &Play,
        conference: &str,
        endpoint: Option<&str>,
    ) -> Result<(Action, command::Play), Problem> {
        let source = play_source(&play.source, &self.prompts)?;
        let plays = self.conferences.get(conference).and_then(|entry| match endpoint {
            None => Some(&entry.plays),
            Some(endpoint) => entry.endpoints.get(endpoint).map(|entry| &entry.plays),
        });
        if plays.is_some_and(|plays| plays.iter().any(|(_, id)| *id == play.play)) {
            let detail = format!("play: {:?} is being played here; use a fresh id", play.play);
            return Err(Problem::new(ProblemKind::Conflict, detail));
        }
        let id = PlayId(self.next_play);
        self.next_play = self.next_play.wrapping_add(1);
        Ok((
            Action::Play(id),
            command::Play {
                id,
                source,
                repeat: play.repeat,
            },
        ))
    }

    fn play_of(&self, request: u64) -> Option<PlayId> {
        match self.outstanding.get(&request) {
            Some(Outstanding {
                action: Action::Play(id),
                ..
            }) => Some(*id),
            _ => None,
        }
    }

    fn create_endpoint(
        &mut self,
        now: Timestamp,
        conference: &str,
        name: &str,
        body: &CreateEndpoint,
    ) -> Started {
        let created_with = self.fingerprint(&body.media);
        let Some((conference, entry)) = self.conferences.get_key_value(conference) else {
            return Err(no_conference());
        };
        if entry.ending.is_some() {
            return Err(no_conference());
        }
        let (conference, worker, phase, locked) =
            (Arc::clone(conference), entry.worker, entry.phase, entry.locked);
        if let Some(existing) = entry.endpoints.get(name) {
            if existing.created_with != created_with {
                let detail = "media: the endpoint was created with another; use PUT .../media to change it";
                return Err(Problem::new(ProblemKind::Conflict, detail));
            }
            return match existing.presence {
                Presence::Adding(request) => self.join(request, &body.command),
                Presence::Removing(_) => Err(busy()),
                Presence::Present => Ok(Some(self.created(&body.command, worker, existing))),
            };
        }
        if locked {
            return Err(Problem::new(ProblemKind::Locked, "the conference is locked"));
        }
        if self.endpoints >= self.setup.endpoints_max {
            return Err(no_headroom("limits.endpoints is reached"));
        }
        if self.room(worker) == 0 {
            return Err(busy());
        }
        let plan = body
            .media
            .as_ref()
            .map(|media| media_plan(media, self.setup.address))
            .transpose()?;
        let index = self.free_endpoint_index(worker)?;
        let (port, prepared) = self.prepare_port(now, worker)?;
        let setup = EndpointSetup {
            local_port: port,
            ssrc: self.fresh_ssrc(),
            sequence: self.random.bits16(),
            timestamp: self.random.bits32(),
            media: plan,
            slots: SLOTS,
        };
        let entry = new_entry(index, &setup, created_with, body.media.clone());
        let name: Arc<str> = Arc::from(name);
        self.occupy(worker, &conference, &name, index, phase);
        let conference_index = self
            .conferences
            .get(&conference)
            .map_or(ConferenceIndex(0), |entry| entry.index);
        let command = Command::AddEndpoint {
            conference: conference_index,
            at: index,
            endpoint: Endpoint::new(setup),
        };
        let local = SocketAddr::new(self.setup.address, port);
        let io = IoChange::Open {
            flow: FlowId(index.0),
            local,
            prepared,
        };
        let commands = vec![body.command.clone()];
        match self.send(
            worker,
            (&conference, &name),
            Action::AddEndpoint,
            command,
            io,
            commands,
        ) {
            Ok(id) => {
                if let Some(holder) = self.conferences.get_mut(&conference) {
                    holder.endpoints.insert(
                        name,
                        EndpointEntry {
                            presence: Presence::Adding(id),
                            ..entry
                        },
                    );
                }
                Ok(None)
            }
            Err(problem) => {
                self.forget_endpoint(now, worker, &entry, phase);
                self.free_index(worker, index);
                Err(problem)
            }
        }
    }

    fn free_endpoint_index(&self, worker: usize) -> Result<EndpointIndex, Problem> {
        let index = self
            .workers
            .get(worker)
            .and_then(|table| table.free_endpoints.last());
        index
            .map(|index| EndpointIndex(*index))
            .ok_or_else(|| no_headroom("the conference's worker is full"))
    }

    fn occupy(
        &mut self,
        worker: usize,
        conference: &Arc<str>,
        endpoint: &Arc<str>,
        index: EndpointIndex,
        phase: u8,
    ) {
        self.endpoints += 1;
        let Some(table) = self.workers.get_mut(worker) else {
            return;
        };
        let taken = table.free_endpoints.pop();
        assert_eq!(taken, Some(index.0), "the free list changed under a request");
        if let Some(place) = table.endpoint_at.get_mut(index.0 as usize) {
            *place = Place::Used(Arc::clone(conference), Arc::clone(endpoint));
        }
        table.endpoints += 1;
        table.load(phase, 1);
    }

    /// Makes an endpoint index usable again.
    pub(super) fn free_index(&mut self, worker: usize, index: EndpointIndex) {
        let Some(table) = self.workers.get_mut(worker) else {
            return;
        };
        if let Some(place) = table.endpoint_at.get_mut(index.0 as usize) {
            *place = Place::Free;
        }
        table.free_endpoints.push(index.0);
    }

    /// Takes a port that can be bound. One that somebody else holds rests like a released one.
    fn prepare_port(&mut self, now: Timestamp, worker: usize) -> Result<(u16, L::Prepared), Problem> {
        let Some(table) = self.workers.get_mut(worker) else {
            return Err(internal("no such worker"));
        };
        for _ in 0..PORT_TRIES {
            let port = table.ports.take(now, &mut self.random).map_err(|none| {
                let seconds = none.wait.map_or(30, |wait| wait.as_secs().saturating_add(1));
                Problem::new(ProblemKind::NoPorts, "no RTP port is free; widen io.ports")
                    .retry_after(u32::try_from(seconds).unwrap_or(30))
            })?;
            match (self.prepare)(SocketAddr::new(self.setup.address, port)) {
                Ok(prepared) => return Ok((port, prepared)),
                Err(error) => {
                    table.ports.release(now, port);
                    if error.kind() != io::ErrorKind::AddrInUse {
                        tracing::warn!(port, %error, "RTP socket");
                        return Err(no_headroom(&format!(
                            "RTP socket: {error}; raise LimitNOFILE if too many files"
                        )));
                    }
                }
            }
        }
        let detail = "other programs hold the RTP ports; give io.ports a range of its own";
        Err(Problem::new(ProblemKind::NoPorts, detail).retry_after(30))
    }

    fn fresh_ssrc(&mut self) -> u32 {
        loop {
            let ssrc = self.random.bits32();
            if ssrc != 0 && self.ssrcs.insert(ssrc) {
                return ssrc;
            }
        }
    }

    pub(super) fn created(&self, command: &str, worker: usize, entry: &EndpointEntry) -> Reply {
        let Reply::Done(done) = self.done(command, worker, entry.created_tick) else {
            unreachable!("done() makes Done")
        };
        let done: Done = done;
        let local = SocketAddr::new(self.setup.address, entry.port);
        Reply::Endpoint(EndpointCreated {
            done,
            local,
            ssrc: entry.ssrc,
        })
    }

    fn set_media(&mut self, conference: &str, name: &str, body: &SetMedia) -> Started {
        let plan = media_plan(&body.media, self.setup.address)?;
        let command = |at| Command::SetMedia {
            at,
            media: Box::new(plan),
        };
        let action = Action::SetMedia(Box::new(body.media.clone()));
        self.command_endpoint(conference, name, &body.command, action, command)
    }

    fn endpoint_command(&mut self, conference: &str, name: &str, body: &EndpointCommand) -> Started {
        let id = &body.command;
        match &body.verb {
            EndpointVerb::Mute { on } => {
                let on = *on;
                self.command_endpoint(conference, name, id, Action::Mute(on), |at| Command::Mute {
                    at,
                    on,
                })
            }
            EndpointVerb::Deaf { on } => {
                let on = *on;
                self.command_endpoint(conference, name, id, Action::Deaf(on), |at| Command::Deaf {
                    at,
                    on,
                })
            }
            EndpointVerb::Hold { on } => {
                let on = *on;
                self.command_endpoint(conference, name, id, Action::Hold(on), |at| Command::Hold {
                    at,
                    on,
                })
            }
            EndpointVerb::Gain { centibel } => {
                let centibel = *centibel;
                let command = |at| Command::Gain { at, centibel };
                self.command_endpoint(conference, name, id, Action::Gain(centibel), command)
            }
            EndpointVerb::Play(play) => {
                let (action, engine_play) = self.play(play, conference, Some(name))?;
                let play_id = engine_play.id;
                let command = |at| Command::PlayToEndpoint {
                    at,
                    play: engine_play,
                };
                let started = self.command_endpoint(conference, name, id, action, command)?;
                if let Some(entry) = self.endpoint_mut(conference, name) {
                    entry.plays.push((play_id, play.play.clone()));
                }
                Ok(started)
            }
            EndpointVerb::Stop { play } => {
                let entry = self
                    .conferences
                    .get(conference)
                    .and_then(|entry| entry.endpoints.get(name));
                let plays = entry.map(|entry| entry.plays.as_slice()).unwrap_or_default();
                let known = plays
                    .iter()
                    .find(|(_, id)| Some(id) == play.as_ref())
                    .map(|(id, _)| *id);
                if let (Some(_), None, Some(entry)) = (play, known, self.conferences.get(conference))
                    && entry.endpoints.contains_key(name)
                {
                    return Ok(Some(self.done(id, entry.worker, self.tick_of(entry.worker))));
                }
                let command = |at| Command::StopEndpoint { at, play: known };
                self.command_endpoint(conference, name, id, Action::Stop, command)
            }
        }
    }

    fn command_endpoint(
        &mut self,
        conference: &str,
        name: &str,
        command_id: &str,
        action: Action,
        command: impl FnOnce(EndpointIndex) -> Command,
    ) -> Started {
        let Some((conference, holder)) = self.conferences.get_key_value(conference) else {
            return Err(no_conference());
        };
        let Some((name, entry)) = holder.endpoints.get_key_value(name) else {
            return Err(no_endpoint());
        };
        if holder.ending.is_some() || matches!(entry.presence, Presence::Removing(_)) {
            return Err(no_endpoint());
        }
        let (conference, name) = (Arc::clone(conference), Arc::clone(name));
        let (worker, command) = (holder.worker, command(entry.index));
        let commands = vec![command_id.to_owned()];
        self.send(
            worker,
            (&conference, &name),
            action,
            command,
            IoChange::None,
            commands,
        )?;
        Ok(None)
    }

    fn delete_endpoint(&mut self, conference: &str, name: &str, command: &str) -> Started {
        let holder = self.conferences.get_key_value(conference);
        let worker = holder.map_or(0, |(_, holder)| holder.worker);
        let found = holder.and_then(|(conference, holder)| {
            let (name, entry) = holder.endpoints.get_key_value(name)?;
            Some((Arc::clone(conference), Arc::clone(name), entry.presence))
        });
        let Some((conference, name, presence)) = found else {
            return Ok(Some(self.done(command, worker, self.tick_of(worker))));
        };
        if let Presence::Removing(request) = presence {
            return self.join(request, command);
        }
        self.send_removal(&conference, &name, vec![command.to_owned()])?;
        Ok(None)
    }
}

fn new_entry(
    index: EndpointIndex,
    setup: &EndpointSetup,
    created_with: u64,
    media: Option<Media>,
) -> EndpointEntry {
    EndpointEntry {
        index,
        port: setup.local_port,
        ssrc: setup.ssrc,
        created_with,
        created_tick: 0,
        presence: Presence::Present,
        media,
        muted: false,
        deaf: false,
        held: false,
        gain_centibel: 0,
        active: false,
        talking: false,
        stats: EndpointStats::default(),
        plays: Vec::new(),
    }
}

fn no_conference() -> Problem {
    Problem::new(ProblemKind::NotFound, "no such conference")
}

fn no_endpoint() -> Problem {
    Problem::new(ProblemKind::NotFound, "no such endpoint")
}

fn no_headroom(detail: &str) -> Problem {
    Problem::new(ProblemKind::NoHeadroom, detail).retry_after(10)
}

fn internal(detail: &str) -> Problem {
    Problem::new(ProblemKind::Internal, detail)
}
