//! Loss concealment in the manner of ITU-T G.711 Appendix I, without its delay.
//!
//! A lost stretch is filled with the recent past, repeated with a period that fits it (one pitch
//! period or several), full for 10 ms and then fading to silence at 60 ms; the first good samples
//! after it are blended in. Good samples with nothing lost before them are never touched, which
//! rules out the look-ahead of Appendix I: the joint at the beginning of a loss is smoothed by
//! letting the step there die away within 2 ms.

use serde::{Deserialize, Serialize};

use crate::engine::state::packed;

/// Conceals the losses of one endpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Concealer {
    /// The last `steady` samples had all this value.
    #[serde(skip)]
    value: i16,
    #[serde(skip)]
    steady: u16,
    /// Samples made up since the last good one, as far as it matters.
    lost: u16,
    #[serde(skip)]
    oldest: u16,
    period: u16,
    /// Next sample of the cycle.
    cursor: u16,
    /// Step between the last good sample and the cycle.
    step: i16,
    past: Box<Past>,
}

/// Samples heard before.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Past {
    /// What was heard; the oldest sample is at `oldest`, and before it the newest.
    #[serde(with = "packed::samples")]
    history: [i16; HISTORY],
    /// What is repeated.
    #[serde(with = "packed::samples")]
    cycle: [i16; PERIOD_MAX],
}

impl Concealer {
    /// A concealer without history: it conceals with silence.
    #[must_use]
    pub fn new() -> Self {
        Self {
            oldest: 0,
            value: 0,
            steady: 0,
            period: PERIOD_MIN_SAMPLES,
            cursor: 0,
            lost: 0,
            step: 0,
            past: Box::new(Past {
                history: [0; HISTORY],
                cycle: [0; PERIOD_MAX],
            }),
        }
    }

    /// Takes samples as received. Returns true when it had to alter them, which it does to blend
    /// in the first ones after a loss.
    pub fn good(&mut self, frame: &mut [i16]) -> bool {
        let blending = self.lost > 0 && !frame.is_empty();
        if blending {
            self.blend(frame);
        }
        self.remember(frame);
        blending
    }

    /// Whether the next good samples will be altered.
    pub fn is_blending(&self) -> bool {
        self.lost > 0
    }

    /// Takes 20 ms that are `value` throughout. False, and nothing is taken, when they would have to be
    /// altered. Costs nothing when all that was heard is the same.
    pub fn good_steady(&mut self, value: i16) -> bool {
        if self.lost > 0 {
            return false;
        }
        if self.value != value {
            (self.value, self.steady) = (value, 0);
        }
        if usize::from(self.steady) < HISTORY {
            let steady = self.steady;
            self.remember(&[value; FRAME]);
            self.steady = steady + FRAME_LENGTH;
        }
        true
    }

    /// Makes up `out` from what was heard before.
    pub fn conceal(&mut self, out: &mut [i16]) {
        if self.lost == 0 {
            self.prepare();
        }
        for sample in out.iter_mut() {
            *sample = self.next_sample();
        }
        self.remember(out);
    }

    /// Fades from what would have been made up next to what came.
    fn blend(&mut self, frame: &mut [i16]) {
        // Appendix I.2.7: 4 ms, and 4 ms more for every 10 ms lost, up to 10 ms.
        let length = (usize::from(self.lost) / 80 * 32).clamp(32, 80).min(frame.len());
        let steps = i32::try_from(length).unwrap_or(1) + 1;
        for (n, sample) in (1..).zip(frame.iter_mut().take(length)) {
            let made_up = i32::from(self.next_sample());
            let mixed = (made_up * (steps - n) + i32::from(*sample) * n) / steps;
            *sample = limit(mixed);
        }
        self.lost = 0;
    }

    /// Clears what will not be read again, so that the state is short.
    pub(crate) fn tidy(&mut self) {
        self.past.history.rotate_left(usize::from(self.oldest));
        self.oldest = 0;
        if self.lost == 0 {
            self.past.cycle = [0; PERIOD_MAX];
        }
    }

    fn remember(&mut self, samples: &[i16]) {
        let newest = samples
            .get(samples.len().saturating_sub(HISTORY)..)
            .unwrap_or_default();
        self.steady = 0;
        let oldest = usize::from(self.oldest);
        let (to_end, from_start) = newest.split_at(newest.len().min(HISTORY - oldest));
        if let Some(place) = self.past.history.get_mut(oldest..oldest + to_end.len()) {
            place.copy_from_slice(to_end);
        }
        if let Some(place) = self.past.history.get_mut(..from_start.len()) {
            place.copy_from_slice(from_start);
        }
        self.oldest = u16::try_from((oldest + newest.len()) % HISTORY).unwrap_or(0);
    }

    /// Chooses the period and cuts the cycle out of the history.
    fn prepare(&mut self) {
        let mut history = self.past.history;
        history.rotate_left(usize::from(self.oldest));
        let period = best_period(&history);
        let overlap = period / 4;
        let (before, tail) = history.split_at(HISTORY - period);
        for (place, sample) in self.past.cycle.iter_mut().zip(tail) {
            *place = *sample;
        }
        // The end of the cycle turns into what came before its beginning, so that it closes.
        let lead = before
            .get(before.len().saturating_sub(overlap)..)
            .unwrap_or_default();
        let steps = i32::try_from(overlap).unwrap_or(0) + 1;
        let closing = self.past.cycle.iter_mut().take(period).skip(period - overlap);
        for (n, (place, sample)) in (1..).zip(closing.zip(lead)) {
            *place = limit((i32::from(*place) * (steps - n) + i32::from(*sample) * n) / steps);
        }
        let last = i32::from(tail.last().copied().unwrap_or(0));
        let expected = i32::from(before.last().copied().unwrap_or(0));
        self.step = limit(last - expected);
        self.period = u16::try_from(period).unwrap_or(PERIOD_MIN_SAMPLES);
        self.cursor = 0;
    }

    fn next_sample(&mut self) -> i16 {
        if self.lost >= SILENT_FROM {
            return 0;
        }
        let repeated = i32::from(
            self.past
                .cycle
                .get(usize::from(self.cursor))
                .copied()
                .unwrap_or(0),
        );
        self.cursor = if self.cursor + 1 >= self.period {
            0
        } else {
            self.cursor + 1
        };
        let age = i32::from(self.lost);
        self.lost += 1;
        let joined = repeated + i32::from(self.step) * (JOINT - age).max(0) / (JOINT + 1);
        let fading = i32::from(SILENT_FROM - FADE_FROM);
        let volume = (i32::from(SILENT_FROM) - age).min(fading);
        limit(joined * volume / fading)
    }
}

impl Default for Concealer {
    fn default() -> Self {
        Self::new()
    }
}

/// The lag at which the last 20 ms resemble what came before them most: one or more pitch periods.
/// Even lags on every second sample first, then the odd neighbours on all.
fn best_period(history: &[i16; HISTORY]) -> usize {
    let peak = history
        .iter()
        .map(|sample| sample.unsigned_abs())
        .max()
        .unwrap_or(0);
    // 11 bits each: the sum of 160 products fits 32 bit.
    let shift = (16 - peak.leading_zeros()).saturating_sub(11);
    let mut scaled = [0_i16; HISTORY];
    let mut halved = [0_i16; HISTORY / 2];
    for (place, sample) in scaled.iter_mut().zip(history) {
        *place = sample >> shift;
    }
    for (place, pair) in halved.iter_mut().zip(scaled.as_chunks::<2>().0) {
        *place = (pair[0] + pair[1]) / 2;
    }
    let best_of = |signal: &[i16], lags: std::ops::RangeInclusive<usize>| {
        let start = lags.start();
        let (lag, _) = lags.clone().fold((*start, f32::MIN), |best, lag| {
            let likeness = likeness(signal, lag);
            if likeness > best.1 { (lag, likeness) } else { best }
        });
        lag
    };
    let coarse = 2 * best_of(&halved, PERIOD_MIN / 2..=PERIOD_MAX / 2);
    best_of(
        &scaled,
        (coarse - 1).max(PERIOD_MIN)..=(coarse + 1).min(PERIOD_MAX),
    )
}

/// Normalised cross-correlation of the newer half of `signal` with what came `lag` samples before,
/// squared with its sign.
#[expect(clippy::cast_precision_loss, reason = "a comparison of likenesses")]
fn likeness(signal: &[i16], lag: usize) -> f32 {
    let half = signal.len() / 2;
    let newer = signal.get(half..).unwrap_or_default();
    let older = signal.get(half.saturating_sub(lag)..).unwrap_or_default();
    let (mut cross, mut energy) = (0_i32, 1_i32);
    for (new, old) in newer.iter().zip(older) {
        cross += i32::from(*new) * i32::from(*old);
        energy += i32::from(*old) * i32::from(*old);
    }
    let cross = cross as f32;
    cross * cross.abs() / energy as f32
}

#[expect(clippy::cast_possible_truncation, reason = "limited to the range")]
fn limit(value: i32) -> i16 {
    value.clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16
}

/// 20 ms.
const FRAME: usize = FRAME_LENGTH as usize;
const FRAME_LENGTH: u16 = 160;

/// Shortest period repeated: 10 ms, so that high voices do not buzz.
const PERIOD_MIN: usize = PERIOD_MIN_SAMPLES as usize;
const PERIOD_MIN_SAMPLES: u16 = 80;

/// Longest period repeated: 20 ms, the pitch of a 50 Hz voice.
const PERIOD_MAX: usize = 160;

/// What the period is sought in.
const HISTORY: usize = 2 * PERIOD_MAX;

/// The step at the joint dies away within 2 ms.
const JOINT: i32 = 16;

/// Fading begins after 10 ms and ends in silence after 60.
const FADE_FROM: u16 = 80;
const SILENT_FROM: u16 = 480;

#[cfg(test)]
mod tests;
