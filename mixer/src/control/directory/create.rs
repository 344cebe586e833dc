//! How conferences and endpoints come into being: places, ports and numbers are chosen here.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use mixer_control::media::Media;
use mixer_control::reply::{EndpointCreated, Problem, ProblemKind};
use mixer_control::request::{CreateConference, CreateEndpoint};
use mixer_control::state::EndpointStats;
use mixer_engine::command::{Command, ConferenceIndex, EndpointIndex};
use mixer_engine::engine::{Conference, ConferenceSetup, Endpoint, EndpointSetup};
use mixer_engine::packet::FlowId;
use mixer_engine::time::Timestamp;

use super::entries::{Action, ConferenceEntry, EndpointEntry, Place, Presence};
use super::start::{Started, internal, no_conference, no_headroom};
use super::{CONFERENCE_LOAD, Directory, Link, busy};
use crate::control::answers::Reply;
use crate::control::call::media_plan;
use crate::control::rings::IoChange;
use crate::placement::{self, WorkerLoad};
use crate::worker::WorkerId;

/// Jitter slots of an endpoint.
const SLOTS: u8 = 16;
/// Ports tried when others on the machine hold some of ours.
const PORT_TRIES: u32 = 16;

impl<L: Link, W> Directory<L, W> {
    pub(super) fn create_conference(&mut self, name: &str, body: &CreateConference) -> Started {
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
                Presence::Present | Presence::Removing(_) => Ok(Some(Reply::Done(self.done(
                    &body.command,
                    entry.worker,
                    entry.created_tick,
                )))),
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
            endpoints: BTreeMap::new(),
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

    pub(super) fn create_endpoint(
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
        let done = self.done(command, worker, entry.created_tick);
        let local = SocketAddr::new(self.setup.address, entry.port);
        Reply::Endpoint(EndpointCreated {
            done,
            local,
            ssrc: entry.ssrc,
        })
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
