//! A sender's clock that runs apart is followed in steps of a few samples.
//!
//! A step takes a frame from somewhat more or fewer samples than it has, by fading to what comes, or came, a
//! few samples later: a whole number of periods if there is a pitch, any number where it is quiet. There is
//! one a second at most, and one every 200 ms to give back what a burst of the network took.

use super::drift::{Drift, LEVEL_US};
use super::pace::{Extent, SlackWindow};
use super::playout::SHRINK_PAUSE;
use super::{FRAME, FRAME_SAMPLES, JitterBuffer, TICK_US};
use crate::codec;
use crate::counters::Counters;
use crate::mix::level;

impl JitterBuffer {
    /// What `offset` makes in microseconds.
    pub(super) fn offset_us(&self) -> i32 {
        i32::from(self.offset) * 125
    }

    /// The play position moved against the packets: all slack changes likewise.
    pub(super) fn moved(&mut self, by_us: i32) {
        self.slack.shift(by_us);
        self.drift.shift(by_us);
    }

    /// Slack is measured anew, as the play position moved by who knows what.
    pub(super) fn forget_slack(&mut self) {
        self.slack = SlackWindow::new();
        self.drift.restart();
        self.repay = 0;
        self.offset = 0;
    }

    /// Forgets the clock, too.
    pub(super) fn forget_clock(&mut self) {
        self.forget_slack();
        *self.drift = Drift::new();
    }

    /// Decides once a second whether small steps are due.
    pub(super) fn steer(&mut self, second: Extent) {
        self.drift.second(second);
        if !self.drift.known() {
            // What was followed once need not be split for ever.
            self.repay = i16::from(self.offset);
            return;
        }
        let due = match self.slack.min() {
            Some(shortest_us) => self.drift.repayment(self.slack.max(), shortest_us),
            None => 0,
        };
        let full = due < 0 && self.room_frames(FRAME_SAMPLES) == 0;
        self.repay = if full { 0 } else { due };
    }

    /// Whether delay is given back in small steps rather than in frames, when the least slack of the last
    /// seconds is `slack_us`.
    pub(super) fn left_to_steps(&self, slack_us: i32) -> bool {
        self.drift.known() && slack_us <= LEVEL_US + STEPS_MAX_US
    }

    /// Lets packets begin with ticks again, by moving to the nearest boundary.
    pub(super) fn align(&mut self) {
        let offset = u64::from(self.offset);
        if offset <= FRAME_SAMPLES / 2 {
            self.position += offset;
            self.moved(-self.offset_us());
        } else {
            self.position = self.position.saturating_sub(FRAME_SAMPLES - offset);
            self.moved(TICK_US - self.offset_us());
        }
        self.offset = 0;
    }

    /// In digital silence that lasts, nobody hears steps of any size, and packets that begin with ticks are
    /// cheap: they are aligned, and the clock is followed by whole frames.
    pub(super) fn settle_in_silence(&mut self, counters: &mut Counters) {
        let Some((index, oldest)) = self.slots.oldest() else {
            return;
        };
        if !self.slots.is_idle(index) {
            self.idle_ticks = 0;
            return;
        }
        self.idle_ticks = self.idle_ticks.saturating_add(1);
        if self.idle_ticks < LONG_SILENCE_TICKS {
            return;
        }
        if self.offset != 0 {
            // Backwards, it is this packet that is played once more.
            if oldest.begins <= self.position {
                self.align();
            }
            return;
        }
        if self.repay <= -WHOLE_FRAME {
            self.insert_frames(self.insertions + 1);
            self.repay = 0;
        } else if self.repay >= WHOLE_FRAME
            && oldest.begins == self.position
            && self.slots.covered_from(self.position) >= oldest.ends + FRAME_SAMPLES
        {
            self.leave_out(oldest, counters);
            self.position = oldest.ends;
            self.slots.release(index);
            self.moved(-TICK_US);
            self.repay = 0;
        }
    }

    /// Fills `out` with a small step in it. False, and nothing was taken, when this is no place for one.
    pub(super) fn step(&mut self, out: &mut [i16; FRAME]) -> bool {
        let mut coming = [0; FRAME + LAG_MAX];
        let here = self.peek(&mut coming);
        if here < FRAME || self.shrink_pause > 0 || self.concealer.is_blending() {
            return false;
        }
        let Some(lag) = self.choose_lag(&coming) else {
            return false;
        };
        let shortens = self.repay > 0;
        if shortens && here < FRAME + lag {
            return false;
        }
        let (head, later) = coming.split_at(lag);
        let (taken, by) = if shortens {
            splice(out, &coming, later);
            (FRAME + lag, FRAME - lag)
        } else {
            let (repeated, rest) = out.split_at_mut(lag);
            repeated.copy_from_slice(head);
            splice(rest, later, &coming);
            (FRAME - lag, lag)
        };
        self.concealer.good(coming.get_mut(..taken).unwrap_or_default());
        self.take(taken);
        self.offset = u8::try_from((usize::from(self.offset) + by) % FRAME).unwrap_or(0);
        let lag_us = i32::try_from(lag).unwrap_or(0) * 125;
        self.moved(if shortens { -lag_us } else { lag_us });
        self.repay -= i16::try_from(lag).unwrap_or(0) * self.repay.signum();
        if self.repay.unsigned_abs() < HURRY_DUE {
            self.repay = 0;
        }
        self.shrink_pause = SHRINK_PAUSE;
        true
    }

    /// Samples that the step goes by; none when the frame is not fit for it.
    fn choose_lag(&self, coming: &[i16; FRAME + LAG_MAX]) -> Option<usize> {
        let due = usize::from(self.repay.unsigned_abs());
        let offset = usize::from(self.offset);
        let to_boundary = if self.repay > 0 { offset } else { FRAME - offset };
        let frame = coming.get(..FRAME).unwrap_or_default();
        if level::mean_square(frame) < level::QUIET {
            let near = (1..=LAG_MAX).contains(&to_boundary);
            return Some(if near { to_boundary } else { due.min(LAG_MAX) });
        }
        if due < LOUD_DUE || !self.drift.known() {
            return None;
        }
        let (lag, best) = (LAG_MIN..=LAG_MAX).rev().fold((LAG_MAX, f32::MIN), |best, lag| {
            let likeness = likeness(coming, lag);
            if likeness > best.1 { (lag, likeness) } else { best }
        });
        if best < ALIKE && due < FORCED_DUE {
            return None;
        }
        let aligns =
            (LAG_MIN..=LAG_MAX).contains(&to_boundary) && likeness(coming, to_boundary) >= best - AS_GOOD;
        Some(if aligns { to_boundary } else { lag })
    }

    /// Decodes what waits without a gap from the play position on, and leaves it there. The number of
    /// samples.
    fn peek(&self, out: &mut [i16]) -> usize {
        let mut done = 0;
        let mut position = self.position;
        let mut next = self.slots.oldest();
        while let Some((index, stored)) = next
            && stored.begins <= position
            && done < out.len()
        {
            let skip = usize::try_from(position - stored.begins)
                .unwrap_or(usize::MAX)
                .saturating_mul(stored.codec.bytes_per_sample());
            let payload = self.slots.payload(index).get(skip..).unwrap_or_default();
            let count = codec::decode(stored.codec, payload, out.get_mut(done..).unwrap_or_default());
            done += count;
            position += u64::try_from(count).unwrap_or(0);
            next = self.slots.from(stored.sequence + 1);
        }
        done
    }

    /// Moves the play position behind samples that were played.
    fn take(&mut self, samples: usize) {
        self.position += u64::try_from(samples).unwrap_or(0);
        self.played_to = self.position;
        while let Some((index, oldest)) = self.slots.oldest()
            && oldest.ends <= self.position
        {
            self.slots.release(index);
        }
    }
}

/// Fades from one signal to the other and goes on with that.
fn splice(out: &mut [i16], from: &[i16], to: &[i16]) {
    for (n, (sample, (from, to))) in (0..).zip(out.iter_mut().zip(from.iter().zip(to))) {
        let to_weight = FADE.min(n);
        let mixed = (i32::from(*from) * (FADE - to_weight) + i32::from(*to) * to_weight) / FADE;
        // Between two samples, so within range.
        *sample = i16::try_from(mixed).unwrap_or(0);
    }
}

/// How like each other the two signals are that a step by `lag` fades between: 1 when they are the same.
#[expect(clippy::cast_precision_loss, reason = "a comparison of likenesses")]
fn likeness(coming: &[i16; FRAME + LAG_MAX], lag: usize) -> f32 {
    let later = coming.get(lag..).unwrap_or_default();
    let (mut cross, mut energy) = (0_i64, 1_i64);
    for (now, later) in coming.iter().zip(later).take(FADE_SAMPLES) {
        let (now, later) = (i64::from(*now), i64::from(*later));
        cross += now * later;
        energy += now * now + later * later;
    }
    2.0 * cross as f32 / energy as f32
}

/// Steps by a pitch period or several: 2 to 5 ms.
const LAG_MIN: usize = 16;
const LAG_MAX: usize = 40;

/// 8 ms.
const FADE: i32 = 64;
const FADE_SAMPLES: usize = 64;

/// Signals so much alike are faded without anything to be heard.
const ALIKE: f32 = 0.95;

/// Among steps that are equally good, the one is taken after which packets begin with ticks.
const AS_GOOD: f32 = 0.001;

/// Samples that must be due before a frame that is not quiet is taken: 4 ms.
const LOUD_DUE: usize = 32;

/// Samples due at which the best place there is will do: 10 ms.
const FORCED_DUE: usize = 80;

/// With 10 ms or more still due, the next step does not wait for the next second.
const HURRY_DUE: u16 = 80;

/// Beyond this surplus whole frames are left out: 80 ms.
const STEPS_MAX_US: i32 = 80_000;

/// One second of digital silence.
const LONG_SILENCE_TICKS: u8 = 50;

/// Samples due, in such silence, for which a whole frame is closer: more than half of it.
const WHOLE_FRAME: i16 = 96;
