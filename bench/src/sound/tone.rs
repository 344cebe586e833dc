//! Test tones: integer hertz, so that one second is a whole number of periods, encoded once.

use std::f64::consts::TAU;

use super::RATE;
use super::g711::Law;
use super::spectrum::amplitude_at;

/// One second of a sine, encoded; sending it over and over is a continuous sine.
#[derive(Debug, Clone)]
pub struct Tone {
    /// Frequency, hertz.
    pub hertz: u16,
    /// Code words of one second.
    pub second: Vec<u8>,
    /// Amplitude of the decoded second at its frequency: what a perfect mixer delivers.
    pub nominal: f64,
}

impl Tone {
    /// A tone of `amplitude` (peak, 16-bit scale) starting at `phase` (radian).
    #[must_use]
    pub fn new(law: Law, hertz: u16, amplitude: f64, phase: f64) -> Self {
        let second: Vec<u8> = (0..RATE)
            .map(|n| law.encode(sample(f64::from(hertz), amplitude, phase, n)))
            .collect();
        let decoded: Vec<f32> = second.iter().map(|&code| f32::from(law.decode(code))).collect();
        Self {
            hertz,
            nominal: amplitude_at(&decoded, hertz),
            second,
        }
    }
}

fn sample(hertz: f64, amplitude: f64, phase: f64, n: usize) -> i16 {
    let turns = hertz * n as f64 / RATE as f64;
    let value = amplitude * (TAU * turns.fract() + phase).sin();
    #[expect(
        clippy::cast_possible_truncation,
        reason = "rounded and bounded by the amplitude"
    )]
    {
        value.round().clamp(-32_768.0, 32_767.0) as i16
    }
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
