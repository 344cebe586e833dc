//! Sine tones with soft edges.

use serde::{Deserialize, Serialize};

/// Samples of a soft edge: 5 ms.
const EDGE: u32 = 40;

/// A sine of fixed length. Phase-continuous however it is cut into frames.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Tone {
    /// Current angle: 2^32 is a full turn.
    phase: u32,
    step: u32,
    amplitude: f32,
    position: u32,
    length: u32,
}

impl Tone {
    /// A tone of `hertz` (limited to 4,000), `attenuation_db` below a full-scale sine, for
    /// `duration_ms` (limited to a day).
    #[must_use]
    pub fn new(hertz: u16, attenuation_db: u8, duration_ms: u32) -> Self {
        let turns = (u64::from(hertz.min(4_000)) << 32) / SAMPLE_RATE;
        Self {
            phase: 0,
            step: u32::try_from(turns).unwrap_or(u32::MAX),
            amplitude: 32_767.0 * 10_f32.powf(-f32::from(attenuation_db) / 20.0),
            position: 0,
            length: duration_ms.min(86_400_000).saturating_mul(8),
        }
    }

    /// Writes the next samples to the start of `out` and returns their number: less than `out`
    /// holds at the end of the tone, 0 after it.
    pub fn fill(&mut self, out: &mut [i16]) -> usize {
        let left = usize::try_from(self.length - self.position).unwrap_or(usize::MAX);
        let count = left.min(out.len());
        for sample in out.iter_mut().take(count) {
            *sample = self.next_sample();
        }
        count
    }

    fn next_sample(&mut self) -> i16 {
        let from_edge = self.position.min(self.length - 1 - self.position);
        let value = sine(self.phase) * self.amplitude * edge(from_edge);
        self.phase = self.phase.wrapping_add(self.step);
        self.position += 1;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the lowest 16 bits are the sample"
        )]
        let rounded = (value + ROUNDER).to_bits() as u16;
        rounded.cast_signed()
    }

    /// Whether its end was reached.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.position >= self.length
    }

    /// Whether it has no sample at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Starts again from the beginning.
    pub fn rewind(&mut self) {
        self.phase = 0;
        self.position = 0;
    }
}

/// Factor of a sample so many samples away from the nearer end.
#[expect(clippy::cast_precision_loss, reason = "below 40")]
fn edge(from_edge: u32) -> f32 {
    if from_edge >= EDGE {
        1.0
    } else {
        (from_edge as f32 + 0.5) / EDGE as f32
    }
}

/// Sine of an angle in 2^32 parts of a turn, to 4 parts in a million.
#[expect(clippy::cast_precision_loss, reason = "24 bits of phase are 140 dB")]
fn sine(phase: u32) -> f32 {
    // Quarter turns from -2 to 2, folded to -1 to 1, where the series is short.
    let quarters = phase.cast_signed() as f32 * (1.0 / 1_073_741_824.0);
    let folded = if quarters.abs() > 1.0 {
        2.0_f32.copysign(quarters) - quarters
    } else {
        quarters
    };
    let angle = folded * std::f32::consts::FRAC_PI_2;
    let square = angle * angle;
    let series = 1.0 / 362_880.0;
    let series = series * square - 1.0 / 5_040.0;
    let series = series * square + 1.0 / 120.0;
    let series = series * square - 1.0 / 6.0;
    angle + angle * square * series
}

/// 1.5 * 2^23: beside it, an `f32` has no fraction, and its lowest bits are those of the integer.
const ROUNDER: f32 = 12_582_912.0;

const SAMPLE_RATE: u64 = 8_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cutting_into_frames_changes_nothing() {
        let (mut whole, mut cut) = (Tone::new(440, 6, 100), Tone::new(440, 6, 100));
        let mut one = [0_i16; 900];
        assert_eq!(whole.fill(&mut one), 800);
        let mut two = Vec::new();
        let mut piece = [0_i16; 37];
        loop {
            let count = cut.fill(&mut piece);
            two.extend_from_slice(&piece[..count]);
            if count < piece.len() {
                break;
            }
        }
        assert_eq!(one[..800], two[..]);
    }

    #[test]
    fn level_frequency_and_edges_are_as_asked() {
        let mut out = [0_i16; 8000];
        assert_eq!(Tone::new(1000, 10, 1000).fill(&mut out), 8000);
        let middle = &out[800..7200];
        let peak = middle.iter().map(|sample| sample.unsigned_abs()).max().unwrap();
        assert!((10_300..=10_362).contains(&peak), "{peak}");
        let rises = middle
            .windows(2)
            .filter(|pair| pair[0] < 0 && pair[1] >= 0)
            .count();
        assert!((799..=801).contains(&rises), "{rises}");
        let steepest = out
            .windows(2)
            .take(8)
            .map(|pair| (pair[1] - pair[0]).unsigned_abs())
            .max()
            .unwrap();
        assert!(steepest < 2_000, "no click at the start: {steepest}");
        assert!(out[7999].unsigned_abs() < 300 && out[0].unsigned_abs() < 300);
    }

    #[test]
    fn the_series_is_a_sine() {
        for n in 0..100_000_u32 {
            let phase = n.wrapping_mul(42_949_673);
            let exact = (f64::from(phase) / 4_294_967_296.0 * std::f64::consts::TAU).sin();
            let error = (f64::from(sine(phase)) - exact).abs();
            assert!(error < 5e-6, "{phase}: {error}");
        }
    }

    #[test]
    fn degenerate_tones_end() {
        let mut out = [7_i16; 160];
        assert_eq!(Tone::new(0, 0, 0).fill(&mut out), 0);
        let mut longest = Tone::new(u16::MAX, 0, u32::MAX);
        assert_eq!(longest.fill(&mut out), 160);
        let mut once = Tone::new(300, 0, 10);
        assert_eq!(once.fill(&mut out), 80);
        assert_eq!(once.fill(&mut out), 0);
        once.rewind();
        assert_eq!(once.fill(&mut out), 80);
    }
}
