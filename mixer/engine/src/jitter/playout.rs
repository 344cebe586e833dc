//! What a tick gets.

use super::arrival::lead;
use super::slots::Stored;
use super::{FRAME, FRAME_SAMPLES, FrameKind, JitterBuffer, MARGIN_US, Phase, Pulled, TICK_US, samples_us};
use crate::codec;
use crate::counters::{Counters, FrameOutcome};
use crate::mix::level;
use crate::time::Timestamp;

/// How a frame came about.
#[derive(Debug, Clone, Copy, Default)]
struct Rendered {
    /// Samples made up.
    made_up: usize,
    /// Those of them that the source owed.
    missing: usize,
    /// Slot of the one packet that is the whole frame, unaltered.
    whole: Option<usize>,
}

impl JitterBuffer {
    /// One tick in any phase.
    pub(super) fn tick(
        &mut self,
        tick_begins: Timestamp,
        now: Timestamp,
        out: &mut [i16; FRAME],
        counters: &mut Counters,
    ) -> Pulled<'_> {
        self.catch_up(tick_begins, counters);
        self.last_tick = Some(tick_begins);
        if let Phase::Waiting { not_before } = self.phase
            && tick_begins >= not_before
        {
            self.start(tick_begins, counters);
        }
        if self.phase != Phase::Playing {
            self.position += FRAME_SAMPLES;
            out.fill(0);
            return Pulled {
                frame: FrameKind::Nothing,
                passthrough: None,
            };
        }
        if let Some(second) = self.slack.tick() {
            self.steer(second);
        }
        self.ledger.expire(self.position, counters);
        if self.insertions > 0 {
            self.insertions -= 1;
            self.concealer.conceal(out);
            self.counters.concealed += 1;
            counters.frame(FrameOutcome::Skew);
            return Pulled {
                frame: FrameKind::Concealed,
                passthrough: None,
            };
        }
        let worker_late = now.since(tick_begins) > WORKER_LATE;
        self.play(tick_begins, worker_late, out, counters)
    }

    /// Accounts for ticks that the worker left out.
    fn catch_up(&mut self, tick_begins: Timestamp, counters: &mut Counters) {
        let Some(last) = self.last_tick else { return };
        let elapsed_us = tick_begins.microseconds_since(last).max(0).cast_unsigned();
        let tick_us = u64::from(TICK_US.unsigned_abs());
        let missed = ((elapsed_us + tick_us / 2) / tick_us).saturating_sub(1);
        if missed == 0 {
            return;
        }
        if missed > MISSED_MAX {
            self.reset(counters);
            return;
        }
        self.position += missed * FRAME_SAMPLES;
        if self.phase == Phase::Playing {
            for _ in 0..missed {
                counters.frame(FrameOutcome::WorkerLate);
            }
        }
    }

    /// Begins to play what waits, the oldest packet first. What would only be delay is left out.
    fn start(&mut self, tick_begins: Timestamp, counters: &mut Counters) {
        let newest = self.tracker.newest_ends();
        while let Some((index, stored)) = self.slots.oldest() {
            let Some((_, after)) = self.slots.from(stored.sequence + 1) else {
                break;
            };
            let backlog_us = samples_us(newest.saturating_sub(after.begins));
            if backlog_us < self.delay_limit_us() {
                break;
            }
            self.leave_out(stored, counters);
            self.slots.release(index);
        }
        match self.slots.oldest() {
            Some((_, first)) => {
                self.phase = Phase::Playing;
                self.position = first.begins.saturating_sub(u64::from(self.offset));
                self.played_to = self.position;
                // Its slack says whether delay may shrink again.
                self.slack.record(wait_us(tick_begins, &first, self.position));
            }
            None => self.phase = Phase::Stopped,
        }
    }

    /// One tick of a source that plays.
    fn play(
        &mut self,
        tick_begins: Timestamp,
        worker_late: bool,
        out: &mut [i16; FRAME],
        counters: &mut Counters,
    ) -> Pulled<'_> {
        let arrived = std::mem::take(&mut self.arrived);
        if self.repay != 0 || self.offset != 0 {
            self.settle_in_silence(counters);
        }
        let may_shrink = self.may_shrink();
        if !may_shrink && let Some(slot) = self.pass_idle(tick_begins) {
            self.silent_ticks = 0;
            counters.frame(FrameOutcome::Played);
            return Pulled {
                frame: FrameKind::Idle,
                passthrough: Some(self.slots.payload_of(slot)),
            };
        }
        if self.repay != 0 && !may_shrink && self.step(out) {
            self.silent_ticks = 0;
            counters.frame(FrameOutcome::Skew);
            return Pulled {
                frame: FrameKind::Decoded,
                passthrough: None,
            };
        }
        let begins = self.position;
        let mut rendered = self.render(tick_begins, out);
        if may_shrink && rendered.made_up == 0 && self.shrink(tick_begins, out, counters) {
            rendered.whole = None;
        }
        if rendered.made_up == 0 {
            self.silent_ticks = 0;
            counters.frame(FrameOutcome::Played);
            let passthrough = rendered.whole.map(|slot| self.slots.payload_of(slot));
            return Pulled {
                frame: FrameKind::Decoded,
                passthrough,
            };
        }
        self.counters.concealed += 1;
        if rendered.missing > 0 {
            self.ledger.open(begins, worker_late, counters);
        } else if rendered.made_up < FRAME {
            counters.frame(FrameOutcome::Played);
        } else {
            self.ledger.was_not_owed();
        }
        let silent = rendered.made_up == FRAME && !arrived && self.slots.is_empty();
        self.silent_ticks = if silent { self.silent_ticks + 1 } else { 0 };
        if self.silent_ticks >= SILENT_TICKS {
            self.phase = Phase::Stopped;
            self.silent_ticks = 0;
            self.counters.stops += 1;
            counters.frame(FrameOutcome::SourceStopped);
        }
        Pulled {
            frame: FrameKind::Concealed,
            passthrough: None,
        }
    }

    /// Plays one whole packet of digital silence without decoding it; most packets in a large room are
    /// of that kind. Tells its slot.
    fn pass_idle(&mut self, tick_begins: Timestamp) -> Option<usize> {
        let (index, oldest) = self.slots.oldest()?;
        let aligned = oldest.begins == self.position && oldest.ends - oldest.begins == FRAME_SAMPLES;
        if !aligned || !self.slots.is_idle(index) {
            return None;
        }
        let sample = codec::idle(oldest.codec, self.slots.payload(index))?;
        if !self.concealer.good_steady(sample) {
            return None;
        }
        self.smooth_delay(wait_us(tick_begins, &oldest, oldest.begins));
        self.position = oldest.ends;
        self.played_to = self.position;
        self.slots.release(index);
        Some(index)
    }

    /// Fills `out` from the play position on and advances it by one frame.
    fn render(&mut self, tick_begins: Timestamp, out: &mut [i16; FRAME]) -> Rendered {
        let mut rendered = Rendered::default();
        let mut rest = out.as_mut_slice();
        while !rest.is_empty() {
            let done = FRAME - rest.len();
            let Some((index, oldest)) = self.slots.oldest() else {
                rendered.made_up += rest.len();
                rendered.missing += rest.len();
                self.position += length(rest);
                self.concealer.conceal(rest);
                break;
            };
            if oldest.ends <= self.position {
                // Only where timestamps overlap or the worker left ticks out.
                self.slots.release(index);
                continue;
            }
            if oldest.begins <= self.position {
                let count = self.decode(tick_begins, index, &oldest, rest, &mut rendered);
                rest = rest.get_mut(count..).unwrap_or_default();
                continue;
            }
            let in_gap = self.position >= oldest.gap_from;
            if in_gap && done == 0 && self.close_gap(tick_begins, &oldest) {
                continue;
            }
            let to = if in_gap { oldest.begins } else { oldest.gap_from };
            let count = usize::try_from(to - self.position)
                .unwrap_or(usize::MAX)
                .min(rest.len());
            let (piece, after) = rest.split_at_mut(count);
            self.concealer.conceal(piece);
            rendered.made_up += count;
            rendered.missing += if in_gap { 0 } else { count };
            self.position += length(piece);
            rest = after;
            if in_gap && done == 0 && count < FRAME {
                // The packet shall begin with a tick, but has not been here for long enough.
                self.concealer.conceal(rest);
                self.offset = 0;
                rendered.made_up = FRAME;
                break;
            }
        }
        rendered
    }

    /// Decodes as much of a packet as fits `rest`; returns the number of samples.
    fn decode(
        &mut self,
        tick_begins: Timestamp,
        index: usize,
        oldest: &Stored,
        rest: &mut [i16],
        rendered: &mut Rendered,
    ) -> usize {
        let offset = usize::try_from(self.position - oldest.begins).unwrap_or(usize::MAX);
        let bytes = offset.saturating_mul(oldest.codec.bytes_per_sample());
        let payload = self.slots.payload(index).get(bytes..).unwrap_or_default();
        let count = codec::decode(oldest.codec, payload, rest);
        let altered = rest
            .get_mut(..count)
            .is_some_and(|piece| self.concealer.good(piece));
        if count == FRAME && oldest.ends - oldest.begins == FRAME_SAMPLES && !altered {
            rendered.whole = Some(index);
        }
        if offset == 0 {
            self.smooth_delay(wait_us(tick_begins, oldest, oldest.begins).saturating_add(self.offset_us()));
        }
        self.position += u64::try_from(count).unwrap_or(0);
        self.played_to = self.position;
        if self.position >= oldest.ends || count == 0 {
            self.slots.release(index);
        }
        count
    }

    /// Skips (the rest of) a gap that the sender left before `oldest`, if that may be played now:
    /// because the gap is shorter than a frame, so that packets begin with ticks again, or because
    /// waiting for its end would only be delay.
    fn close_gap(&mut self, tick_begins: Timestamp, oldest: &Stored) -> bool {
        let waited_us = wait_us(tick_begins, oldest, oldest.begins);
        let ready = i128::from(waited_us) * 1000 >= i128::try_from(lead(oldest).as_nanos()).unwrap_or(0);
        let short = oldest.begins - self.position < FRAME_SAMPLES;
        let too_long = wait_us(tick_begins, oldest, self.position) > self.delay_limit_us();
        if !ready || !(short || too_long) {
            return false;
        }
        if too_long {
            self.forget_slack();
        }
        self.position = oldest.begins;
        self.moved(-self.offset_us());
        self.offset = 0;
        true
    }

    /// Whether a frame may be left out at this tick, loudness aside.
    fn may_shrink(&mut self) -> bool {
        self.shrink_pause = self.shrink_pause.saturating_sub(1);
        self.shrink_pause == 0
            && self.slack.min().is_some_and(|slack_us| {
                slack_us - self.offset_us() > SHRINK_US && !self.left_to_steps(slack_us)
            })
            && self.slots.covered_from(self.position) >= self.position + 2 * FRAME_SAMPLES
    }

    /// Leaves a frame out by fading from the one in `out` into the next one: when it is quiet, or
    /// when there is so much delay that it must be.
    fn shrink(&mut self, tick_begins: Timestamp, out: &mut [i16; FRAME], counters: &mut Counters) -> bool {
        let forced = self
            .slack
            .min()
            .is_some_and(|slack_us| slack_us > FORCED_SHRINK_US);
        if !forced && level::mean_square(out) >= level::QUIET {
            return false;
        }
        let mut next = [0; FRAME];
        self.render(tick_begins, &mut next);
        for (n, (sample, coming)) in (0..).zip(out.iter_mut().zip(&next)) {
            let faded = (i32::from(*sample) * (FADE - n) + i32::from(*coming) * n) / FADE;
            // Between two samples, so within range.
            *sample = i16::try_from(faded).unwrap_or(0);
        }
        self.moved(-TICK_US);
        self.shrink_pause = SHRINK_PAUSE;
        self.counters.left_out += 1;
        counters.frame(FrameOutcome::Skew);
        true
    }

    /// Delay beyond which frames are left out rather than waited for.
    pub(super) fn delay_limit_us(&self) -> i32 {
        BACKLOG_US.max(self.slack.max().saturating_add(TICK_US))
    }

    fn smooth_delay(&mut self, delay_us: i32) {
        let delay = i64::from(delay_us.max(0));
        let smoothed = self
            .delay_us
            .map_or(delay << DELAY_SHIFT, |old| old + delay - (old >> DELAY_SHIFT));
        self.delay_us = Some(smoothed);
    }
}

/// Microseconds from the arrival of a packet to the sample `begins` of it, when `from` is played at
/// `tick_begins`.
fn wait_us(tick_begins: Timestamp, stored: &Stored, from: u64) -> i32 {
    i32::try_from(tick_begins.microseconds_since(stored.arrived))
        .unwrap_or(i32::MAX)
        .saturating_add(samples_us(stored.begins.saturating_sub(from)))
}

fn length(samples: &[i16]) -> u64 {
    u64::try_from(samples.len()).unwrap_or(0)
}

/// A tick that runs later than this after its nominal beginning is the worker's fault.
const WORKER_LATE: std::time::Duration = std::time::Duration::from_millis(10);

/// More ticks left out than this: begin anew.
const MISSED_MAX: u64 = 16;

/// So many concealed frames in a row with nothing coming: the source has stopped.
const SILENT_TICKS: u8 = 5;

/// Least delay at which frames are left out at a start or in a gap.
const BACKLOG_US: i32 = 64_000;

/// The smallest slack of the last seconds from which a quiet frame is left out.
const SHRINK_US: i32 = TICK_US + MARGIN_US;

/// The same from which any frame is left out.
const FORCED_SHRINK_US: i32 = 44_000;

/// Ticks between two frames left out, or shortened.
pub(super) const SHRINK_PAUSE: u8 = 10;

/// Steps of the fade between two frames.
const FADE: i32 = 160;

/// Playout delay is smoothed over 16 packets.
pub(super) const DELAY_SHIFT: u32 = 4;
