//! How conferences and endpoints come into being: places, ports and numbers are chosen here.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use mixer_control::media::Media;
use mixer_control::reply::{EndpointCreated, Problem, ProblemKind};
use mixer_control::request::{CreateConference, CreateEndpoint};
use mixer_control::state::EndpointStats;
use mixer_engine::command::{Command, EndpointIndex};
use mixer_engine::engine::{Conference, ConferenceSetup, Endpoint, EndpointSetup};
use mixer_engine::packet::FlowId;
use mixer_engine::time::Timestamp;

use super::entries::{Action, ConferenceEntry, EndpointEntry, Part, Place, Presence};
use super::start::{Started, internal, no_conference, no_headroom};
use super::{Directory, Link, busy, fingerprint};
use crate::control::answers::Reply;
use crate::control::call::{media_plan, srtp_keys};
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
                let detail = "owner: the conference has another one";
                return Err(Problem::new(ProblemKind::Conflict, detail));
            }
            if let Presence::Adding(request) = entry.presence {
                return self.join(request, &body.command);
            }
            let done = self.done(&body.command, entry.home(), entry.created_tick);
            return Ok(Some(Reply::Done(done)));
        }
        if self.conferences.len() >= self.setup.conferences_max as usize {
            return Err(no_headroom("limits.conferences is reached"));
        }
        let (name, nobody): (Arc<str>, Arc<str>) = (Arc::from(name), Arc::from(""));
        let entry = ConferenceEntry {
            talkers: body.talkers,
            ..self.place_conference(&name, &body.owner)?
        };
        let Some(Part {
            worker, index: at, ..
        }) = entry.parts.first().copied()
        else {
            return Err(internal("a conference without a place"));
        };
        let conference = Conference::new(ConferenceSetup {
            phase: entry.phase,
            talkers: body.talkers,
        });
        let command = Command::AddConference { at, conference };
        let commands = vec![body.command.clone()];
        let target = (&name, &nobody);
        match self.send(
            worker,
            target,
            Action::AddConference,
            command,
            IoChange::None,
            commands,
        ) {
            Ok(id) => {
                let presence = Presence::Adding(id);
                self.conferences
                    .insert(name, ConferenceEntry { presence, ..entry });
                Ok(None)
            }
            Err(problem) => {
                self.forget_conference(&entry);
                Err(problem)
            }
        }
    }

    /// Phase and members there of every conference on a worker.
    pub(super) fn rooms_on(&self, worker: usize) -> impl Iterator<Item = (u8, u32)> {
        let on_it = move |entry: &&ConferenceEntry| entry.parts.iter().any(|part| part.worker == worker);
        self.conferences.values().filter(on_it).map(move |entry| {
            let members = match entry.parts.len() {
                1 => entry.endpoints.len(),
                _ => entry
                    .endpoints
                    .values()
                    .filter(|endpoint| endpoint.worker == worker)
                    .count(),
            };
            (entry.phase, u32::try_from(members).unwrap_or(u32::MAX))
        })
    }

    /// Chooses worker, place and phase for a new conference and takes them.
    fn place_conference(&mut self, name: &Arc<str>, owner: &str) -> Result<ConferenceEntry, Problem> {
        let worker = placement::choose_worker(&self.loads()).ok_or_else(|| self.refuse_conference())?;
        let worker = usize::from(worker.0);
        if self.room(worker) == 0 {
            return Err(busy());
        }
        let phase = placement::choose_phase(self.rooms_on(worker));
        Ok(ConferenceEntry {
            owner: owner.to_owned(),
            parts: vec![self.place_part(name, worker)?],
            room: None,
            phase,
            presence: Presence::Present,
            created_tick: 0,
            locked: false,
            talkers: None,
            endpoints: BTreeMap::new(),
            plays: Vec::new(),
            ending: None,
        })
    }

    pub(super) fn loads(&self) -> Vec<WorkerLoad> {
        self.workers
            .iter()
            .map(|table| WorkerLoad {
                worker: WorkerId(table.id),
                endpoints: table.endpoints,
                endpoints_max: self.setup.worker_endpoints_max,
                conferences: table.conferences,
                conferences_max: self.setup.worker_conferences_max,
                accepts: table.alive && table.headroom.has_room(table.endpoints),
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
        let created_with = fingerprint(&body.media);
        let found = self.conferences.get_key_value(conference);
        let (conference, holder) = found
            .filter(|(_, holder)| holder.ending.is_none())
            .ok_or_else(no_conference)?;
        let conference = Arc::clone(conference);
        if let Some(existing) = holder.endpoints.get(name) {
            same_endpoint(existing, created_with, body.trunk)?;
            return match existing.presence {
                Presence::Adding(request) => self.join(request, &body.command),
                Presence::Removing(_) => Err(busy()),
                Presence::Present => Ok(Some(self.created(&body.command, existing))),
            };
        }
        if holder.locked {
            return Err(Problem::new(ProblemKind::Locked, "the conference is locked"));
        }
        let Part { worker, index, .. } = self.part_for_newcomer(now, &conference, body.trunk)?;
        let srtp = body.media.as_ref().map(srtp_keys).transpose()?.flatten();
        let (setup, prepared) = self.set_up_endpoint(now, worker, body)?;
        let at = self.free_endpoint_index(worker)?;
        let entry = new_entry(worker, at, &setup, created_with, body.media.as_ref());
        let name: Arc<str> = Arc::from(name);
        self.occupy(worker, &conference, &name, at);
        let local = SocketAddr::new(self.setup.address, setup.local_port);
        let endpoint = match srtp {
            Some(srtp) => Endpoint::with_srtp(setup, srtp),
            None => Endpoint::new(setup),
        };
        let command = Command::AddEndpoint {
            conference: index,
            at,
            endpoint,
        };
        let io = IoChange::Open {
            flow: FlowId(at.0),
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
                    let presence = Presence::Adding(id);
                    holder.endpoints.insert(name, EndpointEntry { presence, ..entry });
                }
                Ok(None)
            }
            Err(problem) => {
                self.forget_endpoint(now, &entry);
                self.free_index(worker, at);
                Err(problem)
            }
        }
    }

    /// Checks the limits and chooses the numbers of a new endpoint; its port is taken and bound.
    fn set_up_endpoint(
        &mut self,
        now: Timestamp,
        worker: usize,
        body: &CreateEndpoint,
    ) -> Result<(EndpointSetup, L::Prepared), Problem> {
        if self.endpoints >= self.setup.endpoints_max {
            return Err(no_headroom("limits.endpoints is reached"));
        }
        self.free_endpoint_index(worker)?;
        self.admit(worker)?;
        if self.room(worker) == 0 {
            return Err(busy());
        }
        let plan = body.media.as_ref();
        let plan = plan
            .map(|media| media_plan(media, self.setup.address))
            .transpose()?;
        let (local_port, prepared) = self.prepare_port(now, worker, plan.map(|plan| plan.remote))?;
        let setup = EndpointSetup {
            local_port,
            ssrc: self.fresh_ssrc(),
            // RFC 3711 3.3.1: far from where it comes round, so that loss at the start does not hide that.
            sequence: self.random.bits16() >> 1,
            timestamp: self.random.bits32(),
            media: plan,
            slots: SLOTS,
            trunk: body.trunk,
        };
        Ok((setup, prepared))
    }

    fn free_endpoint_index(&self, worker: usize) -> Result<EndpointIndex, Problem> {
        let index = self
            .workers
            .get(worker)
            .and_then(|table| table.free_endpoints.last());
        index
            .map(|index| EndpointIndex(*index))
            .ok_or_else(|| no_headroom("every worker is full"))
    }

    fn occupy(&mut self, worker: usize, conference: &Arc<str>, endpoint: &Arc<str>, index: EndpointIndex) {
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
    fn prepare_port(
        &mut self,
        now: Timestamp,
        worker: usize,
        remote: Option<SocketAddr>,
    ) -> Result<(u16, L::Prepared), Problem> {
        let Some(table) = self.workers.get_mut(worker) else {
            return Err(internal("no such worker"));
        };
        let (address, prefers) = (self.setup.address, &self.ports.prefers);
        let suits = |port| match (prefers, remote) {
            (Some(prefers), Some(remote)) => prefers(remote, SocketAddr::new(address, port)),
            (None, _) | (_, None) => true,
        };
        for _ in 0..PORT_TRIES {
            let port = table.ports.take(now, &mut self.random, suits).map_err(|none| {
                let seconds = none.wait.map_or(30, |wait| wait.as_secs().saturating_add(1));
                Problem::new(ProblemKind::NoPorts, "no RTP port is free; widen io.ports")
                    .retry_after(u32::try_from(seconds).unwrap_or(30))
            })?;
            match (self.ports.prepare)(SocketAddr::new(address, port)) {
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

    pub(super) fn created(&self, command: &str, entry: &EndpointEntry) -> Reply {
        let done = self.done(command, entry.worker, entry.created_tick);
        let local = SocketAddr::new(self.setup.address, entry.port);
        Reply::Endpoint(EndpointCreated {
            done,
            local,
            ssrc: entry.ssrc,
        })
    }
}

/// Whether an endpoint that exists is what is asked for.
fn same_endpoint(existing: &EndpointEntry, created_with: u64, trunk: bool) -> Result<(), Problem> {
    let detail = if existing.created_with != created_with {
        "media: the endpoint was created with another; use PUT .../media to change it"
    } else if existing.trunk != trunk {
        "trunk: the endpoint was created as the other; remove it first"
    } else {
        return Ok(());
    };
    Err(Problem::new(ProblemKind::Conflict, detail))
}

fn new_entry(
    worker: usize,
    index: EndpointIndex,
    setup: &EndpointSetup,
    created_with: u64,
    media: Option<&Media>,
) -> EndpointEntry {
    EndpointEntry {
        worker,
        index,
        port: setup.local_port,
        ssrc: setup.ssrc,
        created_with,
        created_tick: 0,
        presence: Presence::Present,
        media: media.map(Media::without_keys),
        srtp: media.and_then(|media| Some(media.srtp.as_ref()?.suite)),
        trunk: setup.trunk,
        muted: false,
        deaf: false,
        held: false,
        gain_centibel: 0,
        active: false,
        talking: false,
        mixed: false,
        stats: EndpointStats::default(),
        plays: Vec::new(),
    }
}
