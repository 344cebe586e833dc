//! The loop of one worker: receive, requests, due slots, flush, publish, wait.
//!
//! Invariants, as absences: between two waits no allocation, no free, no lock, no log line and no
//! system call but those of packet I/O. One clock reading gives a turn its time; a second one at its
//! end only measures it. The worker never waits for control: what control does not fetch stays in
//! the engine's bounded queue, and requests are not taken meanwhile.
//!
//! Slots. Slot `n` begins at `origin + n` milliseconds and is due at the next turn, of which there is one
//! in every [`limits::SLOTS_PER_TURN`] slots; the conferences tick in those. Every slot is run, in order, under its own
//! number, however late. The newest [`limits::CATCH_UP_SLOTS`] late ones are heard: at most three
//! frames at once per listener. Older ones run muted: to a listener they are a pause, with timestamps
//! that stay true, no missing sequence number, and a marker at its end. After a stall beyond
//! [`limits::LATE_SLOTS_MAX`] the oldest are left out; then timestamps fall behind by that much.

pub mod exchange;
mod hand_over;
pub mod histograms;
mod inlet;
mod outlet;
mod spawn;
pub mod stats;

use std::path::Path;
use std::time::Duration;

use mixer_engine::command::{Command, EndpointIndex, Outcome, Refusal, Retired};
use mixer_engine::engine::{Engine, EngineLimits};
use mixer_engine::packet::FlowId;
use mixer_engine::time::{Slot, Timestamp};

use crate::control::rings::{FromWorker, IoChange, Request, WorkerEnd};
use crate::io::PacketIo;
use crate::limits;
use crate::replay::{Beginning, Recorder};
use exchange::Exchange;
pub use hand_over::{Ended, ResumeError, Resumed};
use histograms::Histograms;
use inlet::Inlet;
use outlet::Outlet;
pub use spawn::{SpawnError, Starting, WorkerHandle, spawn, spawn_resumed};
use stats::WorkerCounters;

/// Number of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u16);

/// What a worker is made from.
#[derive(Debug, Clone, Copy)]
pub struct WorkerConfig {
    /// Its number; part of the thread's name.
    pub id: WorkerId,
    /// Core to pin it to.
    pub core: Option<usize>,
    /// Whether to spin instead of sleeping (a dedicated core).
    pub spin: bool,
    /// Slots from one turn to the next, at least 1.
    pub slots_per_turn: u64,
    /// When slot 0 was due, the same for all workers that share conferences; absent: at its start.
    pub origin: Option<Timestamp>,
    /// Sizes of its engine.
    pub engine: EngineLimits,
    /// Whether what goes into its engine is recorded ([`crate::replay`]).
    pub recording: Option<RecordingConfig>,
}

/// Where a recording goes.
#[derive(Debug, Clone, Copy)]
pub struct RecordingConfig {
    /// Bytes of memory for it; when they are full it ends.
    pub bytes: usize,
    /// Folder of its file, written when the worker has ended.
    pub folder: &'static Path,
}

/// One worker: an engine, its packet I/O and its end of the rings. No thread of its own: [`spawn`]
/// gives it one, the simulator calls [`Worker::turn`] and [`Worker::wait`] itself.
#[derive(Debug)]
pub struct Worker<Io: PacketIo> {
    io: Io,
    engine: Engine,
    rings: WorkerEnd<Io::Prepared>,
    exchange: Exchange,
    spin: bool,
    slots_per_turn: u64,
    /// When slot 0 was due.
    origin: Timestamp,
    /// The slot to run next.
    next: Slot,
    counters: WorkerCounters,
    /// An outcome that follows the events that came before it.
    held: Option<FromWorker<Io::Prepared>>,
    /// Lost events that control has been told of.
    lost_told: u64,
    histograms: Option<Box<Histograms>>,
    histograms_due: Timestamp,
    /// When the last turn ended.
    idle_since: Timestamp,
    /// Boxes that this turn may still give back.
    retire: usize,
    recorder: Option<Box<Recorder>>,
}

impl<Io: PacketIo> Worker<Io> {
    /// A worker that begins with the next slot.
    #[must_use]
    pub fn new(
        config: &WorkerConfig,
        mut io: Io,
        rings: WorkerEnd<Io::Prepared>,
        exchange: Exchange,
    ) -> Self {
        let now = io.now();
        let origin = config.origin.unwrap_or(now);
        let next = Slot(slots_between(origin, now));
        let mut engine = Engine::new(config.engine);
        engine.set_origin(origin);
        let beginning = Beginning {
            limits: config.engine,
            origin,
            state: None,
            prompts: &[],
        };
        Self {
            io,
            engine,
            rings,
            exchange,
            spin: config.spin,
            slots_per_turn: config.slots_per_turn.max(1),
            origin,
            next,
            counters: WorkerCounters {
                slots: next.0,
                ..WorkerCounters::default()
            },
            held: None,
            lost_told: 0,
            histograms: Some(Box::default()),
            histograms_due: now.after(HISTOGRAM_PERIOD),
            idle_since: now,
            retire: limits::RETIRED_PER_TURN,
            recorder: recorder(config, &beginning),
        }
    }

    /// Ends the recording, if there is one, and gives it.
    pub fn take_recording(&mut self) -> Option<Vec<u8>> {
        self.recorder.take().map(|recorder| recorder.into_bytes())
    }

    /// Turns and waits until control says stop.
    pub fn run(&mut self) {
        while self.turn() && self.wait() {}
    }

    /// One turn without the wait; false when control wants the worker to end.
    pub fn turn(&mut self) -> bool {
        let now = self.io.now();
        self.counters.turns += 1;
        self.retire = limits::RETIRED_PER_TURN;
        let (engine, recorder) = (&mut self.engine, &mut self.recorder);
        self.io
            .receive_into(limits::RECEIVE_BUDGET, &mut Inlet { engine, recorder });
        self.take_requests(now);
        let slots = self.run_due_slots(now);
        self.forward();
        self.io.flush();
        self.finish(now, slots);
        !self.rings.stop_wanted()
    }

    /// Waits for the next turn; false when packet I/O wants the worker to end.
    pub fn wait(&mut self) -> bool {
        let until = self.next_slot_at();
        if !self.spin {
            return self.io.wait(until);
        }
        while self.io.now() < until {
            std::hint::spin_loop();
        }
        true
    }

    /// Whether control wants what it has once it has ended.
    #[must_use]
    pub fn is_to_hand_over(&self) -> bool {
        self.rings.hand_over_wanted()
    }

    /// When the next slot is due: a turn begins in it or, for those in between, after it.
    #[must_use]
    pub fn next_slot_at(&self) -> Timestamp {
        Slot(self.next.0.next_multiple_of(self.slots_per_turn)).begins(self.origin)
    }

    /// The slot to run next.
    #[must_use]
    pub fn next_slot(&self) -> Slot {
        self.next
    }

    /// The worker's packet I/O.
    #[must_use]
    pub fn io(&self) -> &Io {
        &self.io
    }

    /// The worker's engine.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    fn take_requests(&mut self, now: Timestamp) {
        for _ in 0..limits::REQUESTS_PER_TURN {
            if !self.forward() {
                let full = self.rings.replies.slots() <= limits::REPLY_RING_RESERVE;
                self.counters.replies_full += u64::from(full);
                return;
            }
            let Ok(request) = self.rings.requests.pop() else {
                return;
            };
            let done = self.perform(now, request);
            self.held = Some(done);
            self.counters.requests += 1;
        }
    }

    /// Applies one request to packet I/O and engine.
    fn perform(&mut self, now: Timestamp, request: Request<Io::Prepared>) -> FromWorker<Io::Prepared> {
        let Request { id, command, io } = request;
        let slot = self.next;
        let change = Change::of(&command);
        let (opened, closing) = match io {
            IoChange::None => (None, None),
            IoChange::Close { flow } => (None, Some(flow)),
            IoChange::Open {
                flow,
                local,
                prepared,
            } => {
                if let Err(prepared) = self.io.open_flow(flow, local, prepared) {
                    let outcome = refuse(command);
                    return FromWorker::Done {
                        id,
                        slot,
                        outcome,
                        released: Some(prepared),
                    };
                }
                (Some(flow), None)
            }
        };
        if let Some(recorder) = &mut self.recorder {
            recorder.command(now, slot, &command);
        }
        let mut outlet = Outlet::new(&mut self.io, self.recorder.as_deref_mut(), false);
        let outcome = self.engine.apply(now, slot, command, &mut outlet);
        let to_close = match outcome.result {
            Ok(()) => {
                self.count(change);
                closing
            }
            Err(_) => opened,
        };
        let released = to_close.and_then(|flow| self.io.close_flow(flow));
        FromWorker::Done {
            id,
            slot,
            outcome,
            released,
        }
    }

    fn count(&mut self, change: Change) {
        let WorkerCounters {
            endpoints,
            conferences,
            ..
        } = &mut self.counters;
        match change {
            Change::None => {}
            Change::EndpointAdded => *endpoints += 1,
            Change::EndpointRemoved => *endpoints = endpoints.saturating_sub(1),
            Change::ConferenceAdded => *conferences += 1,
            Change::ConferenceRemoved => *conferences = conferences.saturating_sub(1),
        }
    }

    /// Runs every slot that is due and returns how many.
    fn run_due_slots(&mut self, now: Timestamp) -> u64 {
        // Slot n is due once n milliseconds have passed.
        let last = slots_between(self.origin, now);
        let due = last.saturating_add(1).saturating_sub(self.next.0);
        let left_out = due.saturating_sub(limits::LATE_SLOTS_MAX);
        self.next.0 += left_out;
        let run = due - left_out;
        let muted = run.saturating_sub(limits::CATCH_UP_SLOTS);
        self.counters.slots_skipped += left_out + muted;
        for _ in 0..muted {
            self.run_slot(now, true);
        }
        for _ in muted..run {
            let due_at = self.next_slot_at();
            let lateness = now.since(due_at);
            if let Some(histograms) = &mut self.histograms {
                histograms.record_lateness(lateness);
            }
            let late = lateness >= Slot::LENGTH;
            self.counters.slots_late += u64::from(late);
            self.counters.slots_overslept += u64::from(late && due_at > self.idle_since);
            self.run_slot(now, false);
        }
        self.counters.slots += run;
        run
    }

    fn run_slot(&mut self, now: Timestamp, muted: bool) {
        if let Some(recorder) = &mut self.recorder {
            recorder.slot(self.next, now, muted);
        }
        let told = self.exchange.carry_in(&mut self.engine);
        if let Some(recorder) = self.recorder.as_mut().filter(|_| told) {
            recorder.end();
        }
        let mut outlet = Outlet::new(&mut self.io, self.recorder.as_deref_mut(), muted);
        self.engine.run_slot(self.next, now, &mut outlet);
        self.exchange.carry_out(&mut self.engine);
        self.next.0 += 1;
    }

    /// Passes on what control must get, in order; false when requests must wait: the ring is full, or
    /// boxes are left for the next turns.
    fn forward(&mut self) -> bool {
        let lost = self.engine.counters().events_lost;
        while self.rings.replies.slots() > limits::REPLY_RING_RESERVE {
            let item = if lost > self.lost_told {
                let new = lost - self.lost_told;
                self.lost_told = lost;
                FromWorker::EventsLost(new)
            } else if let Some(event) = self.engine.poll_event() {
                FromWorker::Event(event)
            } else if self.engine.has_retired() && self.retire == 0 {
                return false;
            } else if let Some((at, retired)) = self.engine.poll_retired() {
                self.retire -= 1;
                self.retire(at, retired)
            } else if let Some(prepared) = self.io.poll_closed() {
                FromWorker::Released(prepared)
            } else if let Some(done) = self.held.take() {
                done
            } else {
                return true;
            };
            self.push(item);
        }
        false
    }

    /// What the engine removed by itself also loses its flow.
    fn retire(&mut self, at: EndpointIndex, retired: Retired) -> FromWorker<Io::Prepared> {
        let released = match &retired {
            Retired::Endpoint(_) => {
                self.count(Change::EndpointRemoved);
                self.io.close_flow(FlowId(at.0))
            }
            Retired::Conference(_) => {
                self.count(Change::ConferenceRemoved);
                None
            }
            Retired::Share(_) | Retired::Media(..) | Retired::Snapshot(_) => None,
        };
        FromWorker::Retired {
            at,
            retired,
            released,
        }
    }

    fn push(&mut self, item: FromWorker<Io::Prepared>) {
        let pushed = self.rings.replies.push(item);
        assert!(
            pushed.is_ok(),
            "room was checked and the worker is the only producer"
        );
    }

    /// Measures and publishes.
    fn finish(&mut self, now: Timestamp, slots: u64) {
        let end = self.io.now();
        let busy = end.since(now);
        self.idle_since = end;
        self.counters.busy_ns += u64::try_from(busy.as_nanos()).unwrap_or(u64::MAX);
        self.counters.alive_ns = end.0.saturating_sub(self.origin.0);
        if slots == 0 {
            return;
        }
        if let Some(histograms) = &mut self.histograms {
            histograms.record_duration(busy);
        }
        if let Some(recorder) = &self.recorder {
            self.counters.inputs_left_out = recorder.left_out();
        }
        if now >= self.histograms_due {
            self.swap_histograms(now);
        }
        self.rings
            .stats()
            .publish(self.engine.counters(), &self.io.counters(), &self.counters);
    }

    /// Sends the filled histograms off and goes on with an empty pair; keeps filling while control
    /// has not given the other pair back.
    fn swap_histograms(&mut self, now: Timestamp) {
        self.histograms_due = now.after(HISTOGRAM_PERIOD);
        if self.rings.replies.slots() <= limits::REPLY_RING_RESERVE {
            return;
        }
        let Ok(empty) = self.rings.histograms.pop() else {
            return;
        };
        if let Some(full) = self.histograms.replace(empty) {
            self.push(FromWorker::Histograms(full));
        }
    }
}

fn recorder(config: &WorkerConfig, beginning: &Beginning<'_>) -> Option<Box<Recorder>> {
    config
        .recording
        .map(|recording| Box::new(Recorder::new(recording.bytes, beginning)))
}

/// What a command changes in the number of things.
#[derive(Debug, Clone, Copy)]
enum Change {
    None,
    EndpointAdded,
    EndpointRemoved,
    ConferenceAdded,
    ConferenceRemoved,
}

impl Change {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "only these four change the number of things"
    )]
    fn of(command: &Command) -> Self {
        match command {
            Command::AddEndpoint { .. } => Self::EndpointAdded,
            Command::RemoveEndpoint { .. } => Self::EndpointRemoved,
            Command::AddConference { .. } => Self::ConferenceAdded,
            Command::RemoveConference { .. } => Self::ConferenceRemoved,
            _ => Self::None,
        }
    }
}

/// The outcome of a command that was not applied because its flow could not be opened.
#[expect(clippy::wildcard_enum_match_arm, reason = "all other commands carry no box")]
fn refuse(command: Command) -> Outcome {
    let retired = match command {
        Command::AddConference { conference, .. } => Some(Retired::Conference(conference)),
        Command::Share { share, .. } => Some(Retired::Share(share)),
        Command::AddEndpoint { endpoint, .. } => Some(Retired::Endpoint(endpoint)),
        Command::SetMedia { media, srtp, .. } => Some(Retired::Media(media, srtp.into())),
        Command::Snapshot { buffer, .. } => Some(Retired::Snapshot(buffer)),
        _ => None,
    };
    Outcome {
        result: Err(Refusal::OutOfRange),
        retired,
    }
}

/// Whole slots from one time to another.
fn slots_between(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.since(from).as_nanos() / SLOT_NS).unwrap_or(u64::MAX)
}

const SLOT_NS: u128 = Slot::LENGTH.as_nanos();
const HISTOGRAM_PERIOD: Duration = Duration::from_secs(1);
