//! Control-side truth: which conference and endpoint exists, where, and with what.
//!
//! Pure: time is an argument, the workers are reached through rings, packet I/O is prepared by a
//! closure. Everything that allocates is built here and comes back here to be dropped. Each request
//! is executed once per command id ([`super::answers`]) and ends in one answer, which
//! [`Directory::ready`] gives out. Per worker the rings keep order, so a request may follow another
//! before that one's outcome: "add endpoint" right after "add conference" is fine.

mod admission;
mod create;
mod entries;
mod outcome;
mod parts;
mod start;
mod state;
mod upkeep;
mod view;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use mixer_control::event::EventBody;
use mixer_control::reply::{Done, Problem, ProblemKind};
use mixer_engine::command::Command;
use mixer_engine::time::Timestamp;

use super::answers::{Answer, Answers, Begin};
use super::call::Call;
use super::events::EventLog;
use super::headroom::{Full, Headroom, Marks};
use super::ports::PortPool;
use super::random::Random;
use super::rings::{ControlEnd, FromWorker, IoChange, Request};
use crate::backend::PortWork;
use crate::limits;
use crate::metrics::histogram::TickHistograms;
use crate::placement::PortBlock;
use crate::prompts::Prompts;
use crate::worker::WorkerHandle;
use entries::{Action, ConferenceEntry, EndpointEntry, Outstanding, Place, SNAPSHOT_PAGE, WorkerTable};

pub(crate) use admission::AdmissionFigures;
pub(crate) use state::DirectoryState;
pub(crate) use view::{ENDPOINT_STATES, Figures};

/// Something with control's end of a worker's rings.
pub(crate) trait Link {
    /// What packet I/O wants prepared for a local port.
    type Prepared;

    /// The rings.
    fn end(&mut self) -> &mut ControlEnd<Self::Prepared>;

    /// The rings, to read counters.
    fn shared(&self) -> &ControlEnd<Self::Prepared>;
}

impl<P> Link for ControlEnd<P> {
    type Prepared = P;

    fn end(&mut self) -> &mut ControlEnd<P> {
        self
    }

    fn shared(&self) -> &ControlEnd<P> {
        self
    }
}

impl<P> Link for WorkerHandle<P> {
    type Prepared = P;

    fn end(&mut self) -> &mut ControlEnd<P> {
        &mut self.link
    }

    fn shared(&self) -> &ControlEnd<P> {
        &self.link
    }
}

/// What a directory is told at its start.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    /// RTP address.
    pub(crate) address: IpAddr,
    /// Conferences at most.
    pub(crate) conferences_max: u32,
    /// Endpoints at most.
    pub(crate) endpoints_max: u32,
    /// Conferences of one worker at most.
    pub(crate) worker_conferences_max: u32,
    /// Endpoints of one worker at most.
    pub(crate) worker_endpoints_max: u32,
    /// Loads at which a worker takes no more endpoints and takes them again.
    pub(crate) admission: Marks,
    /// A waiter is told `timeout` after so long.
    pub(crate) command_timeout: Duration,
    /// Finished commands remembered.
    pub(crate) answers: usize,
}

/// See the module's documentation. `W` is whoever waits for an answer.
pub(crate) struct Directory<L: Link, W> {
    setup: Setup,
    workers: Vec<WorkerTable<L>>,
    conferences: BTreeMap<Arc<str>, ConferenceEntry>,
    /// Conferences being removed endpoint by endpoint.
    ending: Vec<Arc<str>>,
    endpoints: u32,
    answers: Answers<W>,
    outstanding: HashMap<u64, Outstanding>,
    next_request: u64,
    next_play: u32,
    ssrcs: HashSet<u32>,
    random: Random,
    prompts: Prompts,
    ports: PortWork<L::Prepared>,
    events: Arc<EventLog>,
    ready: Vec<(W, Answer)>,
    /// Removals that may still be sent in the millisecond that began at the time.
    removals: (Timestamp, usize),
    /// When headroom was measured last.
    measured: Timestamp,
    /// Refusals for want of headroom.
    refused: [u64; Full::ALL.len()],
}

impl<L: Link, W> std::fmt::Debug for Directory<L, W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Directory")
            .field("conferences", &self.conferences.len())
            .field("endpoints", &self.endpoints)
            .finish_non_exhaustive()
    }
}

impl<L: Link, W> Directory<L, W> {
    /// An empty directory over running workers, each with its block of ports.
    pub(crate) fn new(
        setup: Setup,
        workers: Vec<(L, PortBlock)>,
        random: Random,
        prompts: Prompts,
        ports: PortWork<L::Prepared>,
        events: Arc<EventLog>,
    ) -> Self {
        let table = |(place, (link, block)): (usize, (L, PortBlock))| WorkerTable {
            link,
            id: u16::try_from(place).unwrap_or(u16::MAX),
            alive: true,
            ports: PortPool::new(block.first, block.last),
            free_conferences: (0..setup.worker_conferences_max).rev().collect(),
            free_endpoints: (0..setup.worker_endpoints_max).rev().collect(),
            conference_at: vec![None; setup.worker_conferences_max as usize],
            endpoint_at: vec![Place::Free; setup.worker_endpoints_max as usize],
            conferences: 0,
            endpoints: 0,
            tick: 0,
            snapshot: Some(Box::new(Vec::with_capacity(SNAPSHOT_PAGE as usize))),
            snapshot_due: Timestamp(0),
            snapshot_from: None,
            histograms: TickHistograms::default(),
            lost_events: false,
            gap_follows: false,
            headroom: Headroom::new(setup.admission),
        };
        let workers = workers.into_iter().enumerate().map(table).collect();
        let answers = Answers::new(setup.answers);
        Self {
            setup,
            workers,
            conferences: BTreeMap::new(),
            ending: Vec::new(),
            endpoints: 0,
            answers,
            outstanding: HashMap::new(),
            next_request: 1,
            next_play: 1,
            ssrcs: HashSet::new(),
            random,
            prompts,
            ports,
            events,
            ready: Vec::new(),
            removals: (Timestamp(0), 0),
            measured: Timestamp(0),
            refused: [0; Full::ALL.len()],
        }
    }

    /// Takes a request; its answer comes out of [`Directory::ready`], now or later.
    pub(crate) fn call(&mut self, now: Timestamp, call: &Call, waiter: W) {
        if let Err(problem) = call.validate() {
            self.ready.push((waiter, Err(problem)));
            return;
        }
        let fingerprint = fingerprint(call);
        let deadline = now.after(self.setup.command_timeout);
        match self.answers.begin(call.command(), fingerprint, deadline, waiter) {
            Begin::Joined => {}
            Begin::Finished(waiter, answer) => self.ready.push((waiter, answer)),
            Begin::New => match self.start(now, call) {
                Ok(None) => {}
                Ok(Some(reply)) => self.finish(call.command(), Ok(reply)),
                Err(problem) => self.finish(call.command(), Err(problem)),
            },
        }
    }

    /// Takes what the workers tell, paces removals, asks for statistics, measures headroom and ends
    /// what is overdue.
    pub(crate) fn poll(&mut self, now: Timestamp) {
        for worker in 0..self.workers.len() {
            self.drain(now, worker);
        }
        self.pace_removals(now);
        self.ask_for_snapshots(now);
        self.measure_headroom(now);
        for waiter in self.answers.expire(now) {
            let detail = "the worker has not answered in time; repeat the command with the same id";
            self.ready
                .push((waiter, Err(Problem::new(ProblemKind::Timeout, detail))));
        }
    }

    /// Answers that wait to be given out.
    pub(crate) fn ready(&mut self) -> std::vec::Drain<'_, (W, Answer)> {
        self.ready.drain(..)
    }

    /// Whether something is expected from the workers soon.
    pub(crate) fn is_busy(&self) -> bool {
        self.answers.any_open() || !self.ending.is_empty() || !self.ready.is_empty()
    }

    /// Whether every worker runs.
    pub(crate) fn is_healthy(&self) -> bool {
        self.workers.iter().all(|worker| worker.alive)
    }

    /// The workers' links, in order.
    pub(crate) fn links_mut(&mut self) -> impl Iterator<Item = &mut L> {
        self.workers.iter_mut().map(|worker| &mut worker.link)
    }

    /// Takes the workers' links to end them.
    pub(crate) fn into_links(self) -> Vec<L> {
        self.workers.into_iter().map(|worker| worker.link).collect()
    }

    fn drain(&mut self, now: Timestamp, at: usize) {
        self.drain_ring(now, at);
        let Some(table) = self.workers.get_mut(at) else {
            return;
        };
        if table.alive && table.link.shared().is_abandoned() {
            table.alive = false;
            self.worker_died(now, at);
        }
    }

    fn drain_ring(&mut self, now: Timestamp, at: usize) {
        // Bounded: a worker cannot keep this loop going for ever.
        for _ in 0..limits::REPLY_RING {
            let Some(table) = self.workers.get_mut(at) else {
                return;
            };
            let Some(message) = table.link.end().receive() else {
                break;
            };
            self.take(now, at, message);
        }
    }

    fn take(&mut self, now: Timestamp, at: usize, message: FromWorker<L::Prepared>) {
        let Some(table) = self.workers.get_mut(at) else {
            return;
        };
        match message {
            FromWorker::Done {
                id,
                slot,
                outcome,
                released,
            } => {
                drop(released);
                self.outcome(now, at, id, slot, outcome);
            }
            FromWorker::Event(event) => self.event(now, at, event),
            FromWorker::EventsLost(count) => {
                tracing::warn!(
                    worker = table.id,
                    count,
                    "events lost; readers must read the state"
                );
                table.lost_events = true;
                table.snapshot_due = now;
            }
            FromWorker::Retired {
                at: index,
                retired,
                released,
            } => {
                drop(released);
                self.retired(now, at, index, retired);
            }
            FromWorker::Released(prepared) => drop(prepared),
            FromWorker::Histograms(histograms) => {
                table.histograms.merge(&histograms);
                table.link.end().return_histograms(histograms);
            }
        }
    }

    /// Sends a request whose outcome ends `commands`; the caller has checked that there is room.
    fn send(
        &mut self,
        worker: usize,
        target: (&Arc<str>, &Arc<str>),
        action: Action,
        command: Command,
        io: IoChange<L::Prepared>,
        commands: Vec<String>,
    ) -> Result<u64, Problem> {
        let id = self.next_request;
        let Some(table) = self.workers.get_mut(worker).filter(|table| table.alive) else {
            return Err(Problem::new(
                ProblemKind::Internal,
                format!("worker {worker} has died; restart the mixer"),
            ));
        };
        if table.link.end().send(Request { id, command, io }).is_err() {
            return Err(busy());
        }
        self.next_request += 1;
        let (conference, endpoint) = (Arc::clone(target.0), Arc::clone(target.1));
        self.outstanding.insert(
            id,
            Outstanding {
                commands,
                conference,
                endpoint,
                action,
            },
        );
        Ok(id)
    }

    /// Ends a command.
    fn finish(&mut self, command: &str, answer: Answer) {
        if let Err(problem) = &answer {
            tracing::debug!(command, %problem, "refused");
        }
        for waiter in self.answers.finish(command, &answer) {
            self.ready.push((waiter, answer.clone()));
        }
    }

    fn done(&self, command: &str, worker: usize, tick: u64) -> Done {
        let worker = self.workers.get(worker).map_or(0, |table| table.id);
        Done {
            command: command.to_owned(),
            worker,
            tick,
        }
    }

    /// The slot a worker has reached, as far as control knows.
    fn tick_of(&self, worker: usize) -> u64 {
        self.workers.get(worker).map_or(0, |table| {
            table.tick.max(table.link.shared().stats().read().worker.slots)
        })
    }

    fn room(&self, worker: usize) -> usize {
        self.workers
            .get(worker)
            .map_or(0, |table| table.link.shared().room())
    }

    fn endpoint_mut(&mut self, conference: &str, endpoint: &str) -> Option<&mut EndpointEntry> {
        self.conferences.get_mut(conference)?.endpoints.get_mut(endpoint)
    }

    /// Frees what an endpoint that is gone from its worker had.
    fn forget_endpoint(&mut self, now: Timestamp, endpoint: &EndpointEntry) {
        self.ssrcs.remove(&endpoint.ssrc);
        self.endpoints = self.endpoints.saturating_sub(1);
        let Some(table) = self.workers.get_mut(endpoint.worker) else {
            return;
        };
        table.ports.release(now, endpoint.port);
        table.endpoints = table.endpoints.saturating_sub(1);
    }

    /// Frees what a conference that is gone from its worker had.
    fn forget_conference(&mut self, conference: &ConferenceEntry) {
        for part in &conference.parts {
            self.free_part(part);
        }
    }

    fn worker_died(&mut self, now: Timestamp, worker: usize) {
        tracing::error!(
            worker,
            "worker has died; its conferences are lost, restart the mixer"
        );
        let lost: Vec<Arc<str>> = self
            .conferences
            .iter()
            .filter(|(_, entry)| entry.parts.iter().any(|part| part.worker == worker))
            .map(|(name, _)| Arc::clone(name))
            .collect();
        for conference in lost {
            self.part_failed(now, &conference, worker);
        }
    }

    fn tell(&self, conference: &str, endpoint: &str, body: EventBody) {
        self.events.push(conference, endpoint, body);
    }
}

/// Tells contents apart. The same for the same JSON in every process, so that a client's repetition
/// is recognised by a program that went on where another one stopped (FNV-1a).
fn fingerprint(content: &impl serde::Serialize) -> u64 {
    let json = serde_json::to_vec(content).unwrap_or_default();
    json.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn busy() -> Problem {
    Problem::new(ProblemKind::Busy, "too many commands at once; repeat it").retry_after(1)
}

#[cfg(test)]
mod tests;
