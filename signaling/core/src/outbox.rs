//! What every part of the core writes to: effects in order, timers, counters, randomness.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::call::CallId;
use crate::effect::{Count, Effect, LogLevel, LogLine, MixerRequest, StoreChange};
use crate::input::{Flow, MixerRequestId};
use crate::random::Random;
use crate::sip::timers::{TimerHandle, TimerQueue};
use crate::sip::transactions::TransactionId;
use crate::sip::wire;
use crate::time::Timestamp;

/// What a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// A timer of RFC 3261 17.
    Transaction(TransactionId, sipx_sip::Timer),
    /// Send the 2xx again (RFC 3261 13.3.1.4).
    Retransmit(CallId),
    /// No ACK came, or the mixer never answered.
    GiveUp(CallId),
    /// Ask mixers again to remove what they could not remove.
    Retry,
}

/// Effects and timers of the turn.
#[derive(Debug)]
pub(crate) struct Outbox {
    effects: VecDeque<Effect>,
    pub(crate) timers: TimerQueue<Due>,
    pub(crate) random: Random,
    pub(crate) now: Timestamp,
    next_mixer_request: u64,
}

impl Outbox {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        let mut random = Random::new(seed);
        // The ids double as idempotency keys: two runs of one node must not choose the same.
        let next_mixer_request = random.next_u64() >> 16;
        Self {
            effects: VecDeque::new(),
            timers: TimerQueue::new(),
            random,
            now: Timestamp(0),
            next_mixer_request,
        }
    }

    pub(crate) fn push(&mut self, effect: Effect) {
        self.effects.push_back(effect);
    }

    pub(crate) fn pop(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    pub(crate) fn send(&mut self, flow: Flow, bytes: Bytes) {
        self.push(Effect::Send { flow, bytes });
    }

    pub(crate) fn count(&mut self, count: Count) {
        self.push(Effect::Count(count));
    }

    pub(crate) fn store(&mut self, change: StoreChange) {
        self.push(Effect::Store(change));
    }

    pub(crate) fn mixer(&mut self, mixer: &str, request: MixerRequest) -> MixerRequestId {
        let id = MixerRequestId(self.next_mixer_request);
        self.next_mixer_request += 1;
        self.push(Effect::Mixer {
            id,
            mixer: mixer.to_owned(),
            request,
        });
        id
    }

    pub(crate) fn log(
        &mut self,
        level: LogLevel,
        message: &'static str,
        call_id: &str,
        conference: &str,
        detail: &str,
    ) {
        self.push(Effect::Log(LogLine {
            level,
            message,
            call_id: wire::printable(call_id),
            conference: wire::printable(conference),
            detail: wire::printable(detail),
        }));
    }

    pub(crate) fn timer(&mut self, after: std::time::Duration, due: Due) -> TimerHandle {
        self.timers.set(self.now.after(after), due)
    }
}
