//! Amplitudes of integer-hertz tones in one-second windows, where they are orthogonal.

use std::f64::consts::TAU;
use std::sync::Arc;

use rustfft::num_complex::Complex32;
use rustfft::{Fft, FftPlanner};

use super::RATE;

/// Amplitude of one tone in exactly one second of samples (Goertzel, double precision).
///
/// # Panics
/// When `second` is not one second long.
#[must_use]
pub fn amplitude_at(second: &[f32], hertz: u16) -> f64 {
    assert_eq!(second.len(), RATE, "tones are orthogonal over one second only");
    let twice_cos = 2.0 * (TAU * f64::from(hertz) / RATE as f64).cos();
    let (mut one, mut two) = (0.0f64, 0.0f64);
    for &x in second {
        let zero = f64::from(x) + twice_cos * one - two;
        (two, one) = (one, zero);
    }
    let power = one * one + two * two - twice_cos * one * two;
    2.0 * power.max(0.0).sqrt() / RATE as f64
}

/// Amplitudes of all integer frequencies at once.
pub struct Spectrum {
    fft: Arc<dyn Fft<f32>>,
    work: Vec<Complex32>,
    scratch: Vec<Complex32>,
}

impl std::fmt::Debug for Spectrum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spectrum").finish_non_exhaustive()
    }
}

impl Default for Spectrum {
    fn default() -> Self {
        let fft = FftPlanner::new().plan_fft_forward(RATE);
        let scratch = vec![Complex32::default(); fft.get_inplace_scratch_len()];
        Self {
            fft,
            work: vec![Complex32::default(); RATE],
            scratch,
        }
    }
}

impl Spectrum {
    /// Amplitude at 0, 1, .. 3,999 Hz in one second of samples.
    ///
    /// # Panics
    /// When `second` is not one second long.
    pub fn amplitudes(&mut self, second: impl ExactSizeIterator<Item = f32>) -> Vec<f32> {
        assert_eq!(second.len(), RATE, "tones are orthogonal over one second only");
        for (cell, x) in self.work.iter_mut().zip(second) {
            *cell = Complex32::new(x, 0.0);
        }
        self.fft.process_with_scratch(&mut self.work, &mut self.scratch);
        self.work[..RATE / 2]
            .iter()
            .map(|bin| bin.norm() * 2.0 / RATE as f32)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spectrum_and_goertzel_agree_and_separate_neighbours() {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "single precision is what is tested"
        )]
        let sample = |n: usize| {
            let turn = TAU * n as f64 / RATE as f64;
            (500.0 * (1_001.0 * turn + 0.4).sin() + 7.0 * (1_002.0 * turn).cos()) as f32
        };
        let second: Vec<f32> = (0..RATE).map(sample).collect();
        let all = Spectrum::default().amplitudes(second.iter().copied());
        assert!((amplitude_at(&second, 1_001) - 500.0).abs() < 0.01);
        assert!((f64::from(all[1_001]) - 500.0).abs() < 0.05);
        assert!((f64::from(all[1_002]) - 7.0).abs() < 0.05);
        assert!(all[1_000] < 0.05);
    }
}
