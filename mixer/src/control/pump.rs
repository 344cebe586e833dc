//! The one task that owns the directory: takes requests, polls the workers' rings, gives answers.
//!
//! The workers wake nobody, so the pump polls: every millisecond while somebody waits, otherwise
//! every twenty. A command so takes 1 to 3 ms.

use std::time::Duration;

use mixer_control::state::State;
use mixer_engine::time::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Interval, MissedTickBehavior};

use super::Wish;
use super::answers::Answer;
use super::call::{Call, CallKind};
use super::directory::{Directory, Link};
use super::events::EventLog;
use crate::clock::Clock;
use crate::io::report::IoReport;
use crate::metrics::exporter::{Exporter, RequestCounters};

/// What routes ask the pump.
#[derive(Debug)]
pub(super) enum Ask {
    /// Execute a call.
    Call {
        /// It.
        call: Box<Call>,
        /// When its body was complete.
        asked_at: Timestamp,
        /// Where its answer goes.
        reply: oneshot::Sender<Answer>,
    },
    /// The complete state.
    State {
        /// When it was asked for.
        asked_at: Timestamp,
        /// Where it goes.
        reply: oneshot::Sender<State>,
    },
    /// The page of metrics.
    Metrics {
        /// Where it goes.
        reply: oneshot::Sender<String>,
    },
    /// Whether every worker runs.
    Health {
        /// Where the answer goes.
        reply: oneshot::Sender<bool>,
    },
}

/// Who waits for an answer.
pub(crate) struct Waiter {
    kind: CallKind,
    asked_at: Timestamp,
    reply: oneshot::Sender<Answer>,
}

/// See the module's documentation.
pub(super) struct Pump<L: Link> {
    pub(super) directory: Directory<L, Waiter>,
    pub(super) asks: mpsc::Receiver<Ask>,
    pub(super) clock: Clock,
    pub(super) events: std::sync::Arc<EventLog>,
    pub(super) instance: std::sync::Arc<str>,
    pub(super) prompts: usize,
    pub(super) io: IoReport,
    pub(super) requests: RequestCounters,
    pub(super) exporter: Exporter,
    /// Recordings that are full, as far as told.
    pub(super) full_recordings: usize,
}

/// Time between two polls while somebody waits.
const BUSY_POLL: Duration = Duration::from_millis(1);
/// Time between two polls otherwise: what events may be late by.
const IDLE_POLL: Duration = Duration::from_millis(20);
/// Requests taken between two polls at most.
const ASKS_PER_TURN: usize = 64;

impl<L: Link> Pump<L> {
    /// Runs until something else is wished and tells what.
    pub(super) async fn run(&mut self, wishes: &mut watch::Receiver<Wish>) -> Wish {
        let (mut busy, mut idle, mut second) = (
            interval(BUSY_POLL),
            interval(IDLE_POLL),
            interval(Duration::from_secs(1)),
        );
        loop {
            let is_busy = self.directory.is_busy();
            tokio::select! {
                biased;
                changed = wishes.changed() => {
                    let wish = *wishes.borrow_and_update();
                    if changed.is_err() || wish != Wish::Run {
                        return if changed.is_err() { Wish::Stop } else { wish };
                    }
                }
                _ = second.tick() => {
                    self.events.cut_stalled(self.clock.now());
                    self.exporter.measure(self.directory.worker_stats());
                    self.tell_of_full_recordings();
                }
                ask = self.asks.recv() => {
                    let Some(ask) = ask else { return Wish::Stop };
                    self.take(ask);
                    for _ in 1..ASKS_PER_TURN {
                        let Ok(ask) = self.asks.try_recv() else { break };
                        self.take(ask);
                    }
                }
                _ = busy.tick(), if is_busy => {}
                _ = idle.tick() => {}
            }
            self.directory.poll(self.clock.now());
            self.give();
        }
    }

    fn tell_of_full_recordings(&mut self) {
        let stats = self.directory.worker_stats();
        let full = stats.filter(|stats| stats.worker.inputs_left_out > 0).count();
        if full > self.full_recordings {
            self.full_recordings = full;
            tracing::warn!(
                workers = full,
                "recordings have ended because they are full (replay.megabytes)"
            );
        }
    }

    /// Takes no more calls and waits until nothing is on its way; calls that come meanwhile wait.
    ///
    /// # Errors
    /// Why that cannot be.
    pub(super) async fn quiesce(&mut self, at_most: Duration) -> Result<(), &'static str> {
        let deadline = self.clock.now().after(at_most);
        let mut busy = interval(BUSY_POLL);
        loop {
            if !self.directory.is_healthy() {
                return Err("a worker has died; restart the mixer");
            }
            let now = self.clock.now();
            self.directory.poll_quietly(now);
            self.give();
            if self.directory.is_quiet() {
                return Ok(());
            }
            if now >= deadline {
                return Err("commands do not end; try again");
            }
            busy.tick().await;
        }
    }

    fn take(&mut self, ask: Ask) {
        let now = self.clock.now();
        // A receiver that has gone has left; its command goes on.
        match ask {
            Ask::Call {
                call,
                asked_at,
                reply,
            } => {
                let waiter = Waiter {
                    kind: call.kind(),
                    asked_at,
                    reply,
                };
                self.directory.call(now, &call, waiter);
            }
            Ask::State { asked_at, reply } => {
                self.directory.poll(now);
                let _ = reply.send(self.directory.state(&self.instance));
                self.requests.record(
                    CallKind::State,
                    None,
                    self.clock.now().0.saturating_sub(asked_at.0),
                );
            }
            Ask::Metrics { reply } => {
                let figures = self.directory.figures(now);
                let _ = reply.send(
                    self.exporter
                        .page(&figures, &self.requests, self.prompts, &self.io),
                );
            }
            Ask::Health { reply } => {
                let _ = reply.send(self.directory.is_healthy());
            }
        }
    }

    fn give(&mut self) {
        let now = self.clock.now();
        for (waiter, answer) in self.directory.ready() {
            let refused = answer.as_ref().err().map(|problem| problem.kind);
            self.requests
                .record(waiter.kind, refused, now.0.saturating_sub(waiter.asked_at.0));
            let _ = waiter.reply.send(answer);
        }
    }
}

fn interval(period: Duration) -> Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}
