//! The one task that owns the core: feeds it inputs, performs its effects in order, calls it when a
//! deadline is due. Also the only place of this crate that reads a clock or waits.
//!
//! Invariant: performing an effect never waits, so the core is never late because of a peer, a mixer
//! or a disk.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use signaling_core::Core;
use signaling_core::effect::{AdminReply, Effect};
use signaling_core::input::{AdminId, AdminRequest, Input, MixerRefusal, MixerReply, MixerRequestId};
use signaling_core::time::{Timestamp, WallTime};
use tokio::sync::{mpsc, oneshot, watch};

use crate::logs;
use crate::metrics::{Metrics, MixerOutcome};
use crate::mixer_link::{Job, MixerLink};
use crate::store::WriteBehind;
use crate::transport::Transports;

/// Inputs of one source taken before the others get a turn.
const BATCH: usize = 64;
/// How often the core learns the wall-clock time.
const WALL_PERIOD: Duration = Duration::from_secs(1);

/// Reads time for everybody.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock whose monotonic time begins now.
    #[must_use]
    pub fn start() -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "the driver is the clock reader of this crate"
        )]
        let origin = Instant::now();
        Self { origin }
    }

    /// Monotonic time.
    #[must_use]
    pub fn now(self) -> Timestamp {
        Timestamp::default().after(self.origin.elapsed())
    }

    /// Wall-clock time, for records only.
    #[must_use]
    pub fn wall(self) -> WallTime {
        #[expect(
            clippy::disallowed_methods,
            reason = "the driver is the clock reader of this crate"
        )]
        let since = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        WallTime(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn instant(self, at: Timestamp) -> Instant {
        // An origin plus a time the core made of earlier readings; far futures are an hour away.
        let hour = Duration::from_secs(3_600);
        let offset = at.since(Timestamp::default()).min(self.origin.elapsed() + hour);
        self.origin + offset
    }
}

/// Waits; the one place where tasks of this crate wait for time to pass.
pub fn pause(duration: Duration) -> tokio::time::Sleep {
    #[expect(clippy::disallowed_methods, reason = "the driver is where this crate waits")]
    tokio::time::sleep(duration)
}

/// A question of an operator.
#[derive(Debug)]
pub struct AdminAsk {
    /// What is asked.
    pub request: AdminRequest,
    /// Where the answer goes.
    pub reply: oneshot::Sender<AdminReply>,
}

/// What brings inputs.
#[derive(Debug)]
pub struct Sources {
    /// SIP messages and failed flows.
    pub sip: mpsc::Receiver<Input>,
    /// Replies, events and health of mixers.
    pub mixers: mpsc::Receiver<Input>,
    /// Operators' questions.
    pub admin: mpsc::Receiver<AdminAsk>,
}

/// What performs effects.
#[derive(Debug)]
pub struct Sinks {
    /// SIP sockets.
    pub transports: Transports,
    /// Mixers.
    pub link: MixerLink,
    /// Store.
    pub store: WriteBehind,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// The core and everything around it.
#[derive(Debug)]
pub struct Driver {
    core: Core,
    clock: Clock,
    sinks: Sinks,
    /// Answers the shell gives itself, because a sink had no room.
    backlog: VecDeque<Input>,
    questions: BTreeMap<u64, oneshot::Sender<AdminReply>>,
    last_question: u64,
    asked_at: BTreeMap<MixerRequestId, Timestamp>,
}

impl Driver {
    /// A driver of a core that has been restored already.
    #[must_use]
    pub fn new(core: Core, clock: Clock, sinks: Sinks) -> Self {
        Self {
            core,
            clock,
            sinks,
            backlog: VecDeque::new(),
            questions: BTreeMap::new(),
            last_question: 0,
            asked_at: BTreeMap::new(),
        }
    }

    /// Runs until `stop` turns true or its sender is gone.
    pub async fn run(mut self, mut sources: Sources, mut stop: watch::Receiver<bool>) {
        let (mut sip, mut mixers) = (Vec::with_capacity(BATCH), Vec::with_capacity(BATCH));
        let mut second = tokio::time::interval(WALL_PERIOD);
        second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.perform();
        loop {
            let deadline = self.core.next_deadline().map(|at| self.clock.instant(at));
            tokio::select! {
                taken = sources.sip.recv_many(&mut sip, BATCH) => {
                    if taken == 0 { break; }
                    sip.drain(..).for_each(|input| self.take(input));
                }
                taken = sources.mixers.recv_many(&mut mixers, BATCH) => {
                    if taken == 0 { break; }
                    mixers.drain(..).for_each(|input| self.take(input));
                }
                Some(ask) = sources.admin.recv() => self.ask(ask),
                () = until(deadline) => {}
                _ = second.tick() => self.each_second(),
                changed = stop.changed() => {
                    if changed.is_err() || *stop.borrow() { break; }
                }
            }
            self.run_due();
        }
    }

    /// Timers run after every batch of inputs too, so that a flood does not hold them up.
    fn run_due(&mut self) {
        let now = self.clock.now();
        if self.core.next_deadline().is_some_and(|deadline| deadline <= now) {
            self.core.handle_timeout(now);
            self.perform();
        }
    }

    fn take(&mut self, input: Input) {
        if let Input::MixerReply { id, reply } = &input {
            self.observe(*id, reply);
        }
        self.core.handle(self.clock.now(), input);
        self.perform();
    }

    fn each_second(&mut self) {
        self.take(Input::Wall(self.clock.wall()));
        // Questions whose asker gave up.
        self.questions.retain(|_, reply| !reply.is_closed());
    }

    fn ask(&mut self, ask: AdminAsk) {
        self.last_question += 1;
        self.questions.insert(self.last_question, ask.reply);
        self.take(Input::Admin {
            id: AdminId(self.last_question),
            request: ask.request,
        });
    }

    fn perform(&mut self) {
        loop {
            while let Some(effect) = self.core.poll_effect() {
                self.perform_one(effect);
            }
            // Only now: the core sees the consequences of an effect after it has handed out all others.
            let Some(input) = self.backlog.pop_front() else {
                return;
            };
            if let Input::MixerReply { id, reply } = &input {
                self.observe(*id, reply);
            }
            self.core.handle(self.clock.now(), input);
        }
    }

    fn perform_one(&mut self, effect: Effect) {
        match effect {
            Effect::Send { flow, bytes } => {
                if !self.sinks.transports.send(flow, bytes) {
                    self.backlog.push_back(Input::FlowFailed { flow });
                }
            }
            Effect::Mixer { id, mixer, request } => {
                self.asked_at.insert(id, self.clock.now());
                if let Err(reply) = self.sinks.link.submit(Job { id, mixer, request }) {
                    self.backlog.push_back(Input::MixerReply { id, reply });
                }
            }
            Effect::Store(change) => self.sinks.store.push(change),
            Effect::AdminReply { id, reply } => {
                if let Some(asker) = self.questions.remove(&id.0) {
                    // An asker that gave up wants no answer.
                    let _ = asker.send(reply);
                }
            }
            Effect::Log(line) => logs::emit(&line),
            Effect::Count(count) => self.sinks.metrics.count(&count),
        }
    }

    fn observe(&mut self, id: MixerRequestId, reply: &MixerReply) {
        let Some(asked_at) = self.asked_at.remove(&id) else {
            return;
        };
        let outcome = match reply {
            MixerReply::Done | MixerReply::EndpointCreated { .. } => MixerOutcome::Done,
            MixerReply::Refused { reason, .. } => match reason {
                MixerRefusal::NotFound | MixerRefusal::Locked => MixerOutcome::Refused,
                MixerRefusal::Overloaded => MixerOutcome::Overloaded,
                MixerRefusal::Unreachable => MixerOutcome::Unreachable,
                MixerRefusal::Failed => MixerOutcome::Failed,
            },
        };
        self.sinks
            .metrics
            .mixer_request(outcome, self.clock.now().since(asked_at));
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
