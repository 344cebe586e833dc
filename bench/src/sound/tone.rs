//! Test tones: integer hertz, so that one second is a whole number of periods, encoded once.

use std::f64::consts::TAU;

use super::RATE;
use super::g711::Law;
use super::spectrum::amplitude_at;
use crate::seed::Seed;

/// A sine, encoded; sending it over and over is a continuous sine.
#[derive(Debug, Clone)]
pub struct Tone {
    /// Frequency, hertz.
    pub hertz: u16,
    /// Code words of a whole number of seconds.
    pub codes: Vec<u8>,
    /// Amplitude of the decoded tone at its frequency: what a perfect mixer delivers.
    pub nominal: f64,
}

/// Rooms of more talkers than this get dithered tones.
pub const DITHER_ABOVE: usize = 8;
/// Length of a dithered tone, seconds.
const DITHER_SECONDS: usize = 8;

impl Tone {
    /// A pure tone of `amplitude` (peak, 16-bit scale) starting at `phase` (radian).
    #[must_use]
    pub fn new(law: Law, hertz: u16, amplitude: f64, phase: f64) -> Self {
        let codes = (0..RATE)
            .map(|n| law.encode(rounded(sine(hertz, amplitude, phase, n))))
            .collect();
        Self::measured(law, hertz, codes)
    }

    /// The same with dither of about one quantisation step. In a room of many talkers the rounding of
    /// their sum would repeat itself every second; dither makes it differ, so that an average over
    /// seconds is worth something.
    #[must_use]
    pub fn dithered(law: Law, hertz: u16, amplitude: f64, phase: f64, seed: &mut Seed) -> Self {
        let codes = (0..DITHER_SECONDS * RATE)
            .map(|n| {
                let pure = sine(hertz, amplitude, phase, n);
                let dither = pure * (seed.fraction() - 0.5) / 16.0 + (seed.fraction() - 0.5) * 8.0;
                law.encode(rounded(pure + dither))
            })
            .collect();
        Self::measured(law, hertz, codes)
    }

    fn measured(law: Law, hertz: u16, codes: Vec<u8>) -> Self {
        let decoded: Vec<f32> = codes.iter().map(|&code| f32::from(law.decode(code))).collect();
        let seconds = decoded.chunks_exact(RATE);
        let count = seconds.len() as f64;
        let nominal = seconds.map(|second| amplitude_at(second, hertz)).sum::<f64>() / count;
        Self {
            hertz,
            codes,
            nominal,
        }
    }
}

fn sine(hertz: u16, amplitude: f64, phase: f64, n: usize) -> f64 {
    let turns = f64::from(hertz) * n as f64 / RATE as f64;
    amplitude * (TAU * turns.fract() + phase).sin()
}

#[expect(clippy::cast_possible_truncation, reason = "rounded and clamped to the range")]
fn rounded(value: f64) -> i16 {
    value.round().clamp(-32_768.0, 32_767.0) as i16
}

/// Peak amplitude per talker with which all talkers of a room together stay below full scale.
#[must_use]
pub fn amplitude_for(talkers: usize) -> f64 {
    (30_000.0 / talkers.max(1) as f64).min(8_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nominal_is_the_amplitude_within_the_codecs_gain_error() {
        for law in [Law::Pcmu, Law::Pcma] {
            let tone = Tone::new(law, 1_019, 8_000.0, 0.3);
            assert!((tone.nominal / 8_000.0 - 1.0).abs() < 0.01, "{}", tone.nominal);
        }
    }

    #[test]
    fn no_number_of_talkers_can_clip() {
        for talkers in 1..2_000 {
            assert!(amplitude_for(talkers) * talkers as f64 <= 30_000.5);
        }
    }
}
