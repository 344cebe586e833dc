//! Control-side truth: which conference and endpoint exists, where, and with what.
//!
//! Pure: time is an argument, the workers are reached through rings, packet I/O is prepared by a
//! closure. Everything that allocates is built here and comes back here to be dropped. Each request
//! is executed once per command id ([`super::answers`]) and ends in one answer, which
//! [`Directory::ready`] gives out. Per worker the rings keep order, so a request may follow another
//! before that one's outcome: "add endpoint" right after "add conference" is fine.

mod outcome;
mod start;
mod view;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mixer_control::event::EventBody;
use mixer_control::media::Media;
use mixer_control::reply::{Done, Problem, ProblemKind};
use mixer_control::state::EndpointStats;
use mixer_engine::command::{Command, ConferenceIndex, EndpointIndex, EndpointSnapshot, PlayId};
use mixer_engine::packet::FlowId;
use mixer_engine::time::Timestamp;

use super::answers::{Answer, Answers, Begin, Reply};
use super::call::Call;
use super::events::EventLog;
use super::ports::PortPool;
use super::random::Random;
use super::rings::{ControlEnd, FromWorker, IoChange, Request};
use crate::limits;
use crate::metrics::histogram::TickHistograms;
use crate::placement::PortBlock;
use crate::prompts::Prompts;
use crate::worker::WorkerHandle;

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

/// Prepares packet I/O for a local address: binds the socket.
pub(crate) type Prepare<P> = Box<dyn FnMut(SocketAddr) -> io::Result<P> + Send>;

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
    fingerprints: RandomState,
    outstanding: HashMap<u64, Outstanding>,
    next_request: u64,
    next_play: u32,
    ssrcs: HashSet<u32>,
    random: Random,
    prompts: Prompts,
    prepare: Prepare<L::Prepared>,
    events: Arc<EventLog>,
    ready: Vec<(W, Answer)>,
    /// Removals that may still be sent in the millisecond that began at the time.
    removals: (Timestamp, usize),
}

impl<L: Link, W> std::fmt::Debug for Directory<L, W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Directory")
            .field("conferences", &self.conferences.len())
            .field("endpoints", &self.endpoints)
            .finish_non_exhaustive()
    }
}

/// One worker as control sees it.
struct WorkerTable<L> {
    link: L,
    id: u16,
    alive: bool,
    ports: PortPool,
    free_conferences: Vec<u32>,
    free_endpoints: Vec<u32>,
    conference_at: Vec<Option<Arc<str>>>,
    endpoint_at: Vec<Place>,
    /// Load of each phase of a tick.
    phases: [u32; 20],
    conferences: u32,
    endpoints: u32,
    /// Last slot it told of.
    tick: u64,
    #[expect(
        clippy::box_collection,
        reason = "commands carry the box, so that they stay small"
    )]
    snapshot: Option<Box<Vec<EndpointSnapshot>>>,
    snapshot_due: Timestamp,
    histograms: TickHistograms,
    /// Events lost; a `gap` follows once the next snapshot has come.
    lost_events: bool,
}

/// What is at an endpoint index.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// Nothing, or something of which the free list knows.
    Free,
    /// An endpoint.
    Used(Arc<str>, Arc<str>),
    /// An endpoint of a failed conference whose box has not come back yet.
    Lost,
    /// The reverse: the box came back before the event.
    Returned(Arc<str>, Arc<str>),
}

struct ConferenceEntry {
    owner: String,
    worker: usize,
    index: ConferenceIndex,
    phase: u8,
    presence: Presence,
    created_tick: u64,
    locked: bool,
    endpoints: BTreeMap<Arc<str>, EndpointEntry>,
    plays: Vec<(PlayId, String)>,
    /// Commands that end once it is gone.
    ending: Option<Vec<String>>,
}

struct EndpointEntry {
    index: EndpointIndex,
    port: u16,
    ssrc: u32,
    /// Fingerprint of the media it was created with.
    created_with: u64,
    created_tick: u64,
    presence: Presence,
    media: Option<Media>,
    muted: bool,
    deaf: bool,
    held: bool,
    gain_centibel: i32,
    active: bool,
    talking: bool,
    stats: EndpointStats,
    plays: Vec<(PlayId, String)>,
}

/// Whether the worker has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    /// The request to add it is on its way.
    Adding(u64),
    /// Yes.
    Present,
    /// The request to remove it is on its way.
    Removing(u64),
}

/// A request on its way.
struct Outstanding {
    /// Commands that end with it.
    commands: Vec<String>,
    conference: Arc<str>,
    /// Empty for requests to a conference.
    endpoint: Arc<str>,
    action: Action,
}

enum Action {
    AddConference,
    RemoveConference,
    AddEndpoint,
    RemoveEndpoint(EndpointIndex),
    SetMedia(Box<Media>),
    Mute(bool),
    Deaf(bool),
    Hold(bool),
    Gain(i32),
    Play(PlayId),
    Stop,
    Snapshot,
}

/// Load of a phase by an empty conference, in endpoints; keeps a burst of new ones apart.
const CONFERENCE_LOAD: u32 = 3;
/// Removals sent within a millisecond at most, over all ending conferences.
const REMOVALS_PER_MS: usize = 64;
/// Places of a request ring that paced removals and snapshots leave to others.
const RING_RESERVE: usize = limits::REQUEST_RING / 4;
/// Time between two snapshots of a worker.
const SNAPSHOT_PERIOD: Duration = Duration::from_millis(900);

impl<L: Link, W> Directory<L, W> {
    /// An empty directory over running workers, each with its block of ports.
    pub(crate) fn new(
        setup: Setup,
        workers: Vec<(L, PortBlock)>,
        random: Random,
        prompts: Prompts,
        prepare: Prepare<L::Prepared>,
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
            phases: [0; 20],
            conferences: 0,
            endpoints: 0,
            tick: 0,
            snapshot: Some(Box::default()),
            snapshot_due: Timestamp(0),
            histograms: TickHistograms::default(),
            lost_events: false,
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
            fingerprints: RandomState::new(),
            outstanding: HashMap::new(),
            next_request: 1,
            next_play: 1,
            ssrcs: HashSet::new(),
            random,
            prompts,
            prepare,
            events,
            ready: Vec::new(),
            removals: (Timestamp(0), 0),
        }
    }

    /// Takes a request; its answer comes out of [`Directory::ready`], now or later.
    pub(crate) fn call(&mut self, now: Timestamp, call: &Call, waiter: W) {
        if let Err(problem) = call.validate() {
            self.ready.push((waiter, Err(problem)));
            return;
        }
        let fingerprint = self.fingerprint(call);
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

    /// Takes what the workers tell, paces removals, asks for statistics and ends what is overdue.
    pub(crate) fn poll(&mut self, now: Timestamp) {
        for worker in 0..self.workers.len() {
            self.drain(now, worker);
        }
        self.pace_removals(now);
        self.ask_for_snapshots(now);
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

    /// Takes the workers' links to end them.
    pub(crate) fn into_links(self) -> Vec<L> {
        self.workers.into_iter().map(|worker| worker.link).collect()
    }

    fn fingerprint(&self, content: &impl std::fmt::Debug) -> u64 {
        self.fingerprints.hash_one(format!("{content:?}"))
    }

    fn drain(&mut self, now: Timestamp, at: usize) {
        // Bounded: a worker cannot keep this loop going for ever.
        for _ in 0..limits::REPLY_RING {
            let Some(table) = self.workers.get_mut(at) else {
                return;
            };
            let Some(message) = table.link.end().receive() else {
                break;
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
        let Some(table) = self.workers.get_mut(at) else {
            return;
        };
        if table.alive && table.link.shared().is_abandoned() {
            table.alive = false;
            self.worker_died(now, at);
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

    fn done(&self, command: &str, worker: usize, tick: u64) -> Reply {
        let worker = self.workers.get(worker).map_or(0, |table| table.id);
        Reply::Done(Done {
            command: command.to_owned(),
            worker,
            tick,
        })
    }

    /// The slot a worker has reached, as far as control knows.
    fn tick_of(&self, worker: usize) -> u64 {
        self.workers.get(worker).map_or(0, |table| {
            table.tick.max(table.link.shared().stats().read().worker.slots)
        })
    }

    fn pace_removals(&mut self, now: Timestamp) {
        if self.ending.is_empty() {
            return;
        }
        if now.since(self.removals.0) >= Duration::from_millis(1) {
            self.removals = (now, REMOVALS_PER_MS);
        }
        let mut ending = std::mem::take(&mut self.ending);
        ending.retain(|conference| self.remove_some(conference));
        self.ending.append(&mut ending);
    }

    /// Sends removals of an ending conference; false once nothing is left to send.
    fn remove_some(&mut self, conference: &Arc<str>) -> bool {
        let Some(entry) = self.conferences.get(conference) else {
            return false;
        };
        let (worker, index) = (entry.worker, entry.index);
        let present: Vec<Arc<str>> = entry
            .endpoints
            .iter()
            .filter(|(_, endpoint)| !matches!(endpoint.presence, Presence::Removing(_)))
            .map(|(name, _)| Arc::clone(name))
            .take(self.removals.1)
            .collect();
        let empty = entry.endpoints.is_empty();
        for endpoint in present {
            if self.room(worker) <= RING_RESERVE || self.removals.1 == 0 {
                return true;
            }
            if self.send_removal(conference, &endpoint, Vec::new()).is_err() {
                return true;
            }
            self.removals.1 -= 1;
        }
        if !empty || self.removals.1 == 0 {
            return true;
        }
        let nobody: Arc<str> = Arc::from("");
        let target = (conference, &nobody);
        let command = Command::RemoveConference { at: index };
        match self.send(
            worker,
            target,
            Action::RemoveConference,
            command,
            IoChange::None,
            Vec::new(),
        ) {
            Ok(id) => {
                if let Some(entry) = self.conferences.get_mut(conference) {
                    entry.presence = Presence::Removing(id);
                }
                false
            }
            Err(_) => true,
        }
    }

    fn send_removal(
        &mut self,
        conference: &Arc<str>,
        endpoint: &Arc<str>,
        commands: Vec<String>,
    ) -> Result<(), Problem> {
        let Some(entry) = self.conferences.get(conference) else {
            return Ok(());
        };
        let worker = entry.worker;
        let Some(at) = entry.endpoints.get(endpoint).map(|entry| entry.index) else {
            return Ok(());
        };
        let command = Command::RemoveEndpoint { at };
        let io = IoChange::Close { flow: FlowId(at.0) };
        let id = self.send(
            worker,
            (conference, endpoint),
            Action::RemoveEndpoint(at),
            command,
            io,
            commands,
        )?;
        if let Some(entry) = self.endpoint_mut(conference, endpoint) {
            entry.presence = Presence::Removing(id);
        }
        Ok(())
    }

    fn ask_for_snapshots(&mut self, now: Timestamp) {
        for worker in 0..self.workers.len() {
            let Some(table) = self.workers.get_mut(worker) else {
                return;
            };
            let due = table.snapshot_due <= now && (table.endpoints > 0 || table.lost_events);
            if !due || !table.alive || table.link.end().room() <= RING_RESERVE {
                continue;
            }
            let Some(mut buffer) = table.snapshot.take() else {
                continue;
            };
            table.snapshot_due = now.after(SNAPSHOT_PERIOD);
            buffer.clear();
            buffer.reserve(table.endpoints as usize + 64);
            let nobody: Arc<str> = Arc::from("");
            let command = Command::Snapshot(buffer);
            let sent = self.send(
                worker,
                (&nobody, &nobody),
                Action::Snapshot,
                command,
                IoChange::None,
                Vec::new(),
            );
            if sent.is_err() {
                // The buffer went with the request.
                if let Some(table) = self.workers.get_mut(worker) {
                    table.snapshot = Some(Box::default());
                }
            }
        }
    }

    fn room(&mut self, worker: usize) -> usize {
        self.workers
            .get_mut(worker)
            .map_or(0, |table| table.link.end().room())
    }

    fn endpoint_mut(&mut self, conference: &str, endpoint: &str) -> Option<&mut EndpointEntry> {
        self.conferences.get_mut(conference)?.endpoints.get_mut(endpoint)
    }

    /// Frees what an endpoint that is gone from its worker had.
    fn forget_endpoint(&mut self, now: Timestamp, worker: usize, endpoint: &EndpointEntry, phase: u8) {
        self.ssrcs.remove(&endpoint.ssrc);
        self.endpoints = self.endpoints.saturating_sub(1);
        let Some(table) = self.workers.get_mut(worker) else {
            return;
        };
        table.ports.release(now, endpoint.port);
        table.endpoints = table.endpoints.saturating_sub(1);
        table.unload(phase, 1);
    }

    /// Frees what a conference that is gone from its worker had.
    fn forget_conference(&mut self, conference: &ConferenceEntry) {
        let Some(table) = self.workers.get_mut(conference.worker) else {
            return;
        };
        table.conferences = table.conferences.saturating_sub(1);
        table.unload(conference.phase, CONFERENCE_LOAD);
        if let Some(place) = table.conference_at.get_mut(conference.index.0 as usize) {
            *place = None;
        }
        table.free_conferences.push(conference.index.0);
    }

    fn worker_died(&mut self, now: Timestamp, worker: usize) {
        tracing::error!(
            worker,
            "worker has died; its conferences are lost, restart the mixer"
        );
        let lost: Vec<Arc<str>> = self
            .conferences
            .iter()
            .filter(|(_, entry)| entry.worker == worker)
            .map(|(name, _)| Arc::clone(name))
            .collect();
        for conference in lost {
            self.conference_failed(now, &conference);
        }
    }

    fn tell(&self, conference: &str, endpoint: &str, body: EventBody) {
        self.events.push(conference, endpoint, body);
    }
}

impl<L> WorkerTable<L> {
    fn unload(&mut self, phase: u8, load: u32) {
        if let Some(sum) = self.phases.get_mut(usize::from(phase)) {
            *sum = sum.saturating_sub(load);
        }
    }

    fn load(&mut self, phase: u8, load: u32) {
        if let Some(sum) = self.phases.get_mut(usize::from(phase)) {
            *sum += load;
        }
    }
}

fn busy() -> Problem {
    Problem::new(ProblemKind::Busy, "too many commands at once; repeat it").retry_after(1)
}

#[cfg(test)]
mod tests;
