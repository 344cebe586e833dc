//! What an endpoint contributes to a tick: its frame, and its place among the voices.

use super::{Endpoint, Part, TickTime};
use crate::codec;
use crate::counters::Counters;
use crate::jitter::FrameKind;
use crate::mix::active_talkers::{self, Envelope};
use crate::mix::heard::Mix;
use crate::mix::level::mean_square;
use crate::mix::mix_minus;
use crate::mix::voices::Voices;

impl Endpoint {
    /// Gets its frame for one tick and enters it among the voices if it is heard. Returns the new
    /// talk state when it changed.
    pub(crate) fn pull(
        &mut self,
        tick: TickTime,
        voices: &mut Voices,
        counters: &mut Counters,
    ) -> Option<bool> {
        assert!(!self.planted_failure, "planted failure");
        self.part = Part::Silent;
        self.was_mixed = self.mixed;
        if !self.receives {
            return self.hear_nothing();
        }
        let pulled = self
            .jitter
            .pull(tick.due, tick.now, &mut self.rest.frame, counters);
        let kept_out = self.muted || self.held || self.dtmf.suppresses_audio(tick.now);
        if kept_out {
            return self.hear_nothing();
        }
        if matches!(pulled.frame, FrameKind::Nothing | FrameKind::Idle) {
            return self.hear(0);
        }
        let payload = pulled.passthrough.filter(|_| self.gain.is_unity());
        if !self.gain.is_unity() {
            self.gain.apply(&mut self.rest.frame);
        }
        if payload.is_some_and(|(codec, payload)| codec::idle(codec, payload).is_some()) {
            return self.hear(0);
        }
        let loudness = mean_square(&self.rest.frame);
        // A quiet frame's mean may be zero although its samples are not.
        let audible = loudness > 0 || self.rest.frame.iter().any(|&sample| sample != 0);
        if audible {
            self.part = Part::Audible;
            voices.audible.add(self.at, payload);
        } else if payload.is_some() {
            self.part = Part::Hollow;
            voices.hollow.add(self.at, payload);
        }
        if audible && let Some(ssrc) = self.jitter.ssrc() {
            voices.ranking.add(loudness, ssrc, self.at);
        }
        self.mixed |= audible;
        self.hear(loudness)
    }

    /// Follows its loudness, from frame to frame.
    fn hear(&mut self, loudness: u32) -> Option<bool> {
        self.envelope.follow(loudness);
        self.mixed &= self.envelope != Envelope::default();
        self.talk.feed(loudness)
    }

    /// It may not be heard, so it has no place to keep.
    fn hear_nothing(&mut self) -> Option<bool> {
        (self.envelope, self.mixed) = (Envelope::default(), false);
        self.talk.feed(0)
    }

    /// What its place in the mix is worth when there are too few.
    pub(crate) fn claim(&self) -> u64 {
        self.envelope.claim(self.was_mixed)
    }

    /// Enters its frame among the voices once more, of those that won their place; one that has just lost it
    /// ends in this frame.
    pub(crate) fn contend(&mut self, won: bool, mix: &mut Mix, counters: &mut Counters) {
        self.mixed = won;
        if self.part != Part::Audible {
            return;
        }
        match (self.was_mixed, won) {
            (true, true) => {}
            (false, true) => active_talkers::fade_in(&mut self.rest.frame),
            (true, false) => active_talkers::fade_out(&mut self.rest.frame),
            (false, false) => {
                self.part = Part::Silent;
                counters.frames_left_out += 1;
                return;
            }
        }
        mix_minus::add(&mut mix.sum, &self.rest.frame);
        mix.voices.audible.add(self.at, None);
        if let Some(ssrc) = self.jitter.ssrc() {
            mix.voices
                .ranking
                .add(mean_square(&self.rest.frame), ssrc, self.at);
        }
    }
}
