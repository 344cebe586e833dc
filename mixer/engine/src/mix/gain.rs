//! Gain of an endpoint into the mix.

use serde::{Deserialize, Serialize};

use crate::codec::wide::wide;

/// A gain. The default, 0 dB, leaves samples untouched.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Gain {
    factor: f32,
}

impl Gain {
    /// 0 dB.
    pub const UNITY: Self = Self { factor: 1.0 };

    /// From hundredths of a decibel, limited to -120 dB to +36 dB.
    #[must_use]
    pub fn from_centibel(centibel: i32) -> Self {
        if centibel == 0 {
            return Self::UNITY;
        }
        #[expect(clippy::cast_precision_loss, reason = "within +-12,000 after the limit")]
        let decibel = centibel.clamp(-12_000, 3_600) as f32 / 100.0;
        Self {
            factor: 10_f32.powf(decibel / 20.0),
        }
    }

    /// Whether samples stay as they are.
    #[must_use]
    pub fn is_unity(self) -> bool {
        self == Self::UNITY
    }

    /// Applies the gain; samples beyond full scale are limited to it.
    pub fn apply(self, frame: &mut [i16]) {
        if self.is_unity() {
            return;
        }
        wide(
            #[inline(always)]
            || {
                for sample in frame {
                    *sample = self.of(*sample);
                }
            },
        );
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "limited to full scale")]
    fn of(self, sample: i16) -> i16 {
        let sum = f32::from(sample) * self.factor + ROUNDER;
        let rounded = sum.to_bits().cast_signed() - ROUNDER.to_bits().cast_signed();
        rounded.clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16
    }
}

impl Default for Gain {
    fn default() -> Self {
        Self::UNITY
    }
}

/// 1.5 * 2^23: beside it an `f32` has no fraction, and its bits count integers. Unlike a conversion
/// it need not mind NaN and overflow (the largest product is 2^21), so that the loop vectorises.
const ROUNDER: f32 = 12_582_912.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_decibel_is_the_identity() {
        let all: Vec<i16> = (i16::MIN..=i16::MAX).collect();
        let mut frame = all.clone();
        Gain::from_centibel(0).apply(&mut frame);
        assert_eq!(frame, all);
        assert!(Gain::default().is_unity());
    }

    #[test]
    fn six_decibel_doubles_and_full_scale_limits() {
        let mut frame = [1000_i16, -1000, 20_000, -20_000, 0];
        Gain::from_centibel(602).apply(&mut frame);
        assert_eq!(frame, [2000, -2000, 32_767, -32_768, 0]);
    }

    #[test]
    fn strong_attenuation_silences_and_the_range_is_limited() {
        let mut frame = [i16::MAX, i16::MIN];
        Gain::from_centibel(i32::MIN).apply(&mut frame);
        assert_eq!(frame, [0, 0]);
        assert_eq!(Gain::from_centibel(i32::MAX), Gain::from_centibel(3_600));
    }

    #[test]
    fn gain_is_within_a_hundredth_of_a_decibel() {
        for centibel in [-2000, -600, -50, 50, 300] {
            let mut frame = [10_000_i16];
            Gain::from_centibel(centibel).apply(&mut frame);
            let measured = 2000.0 * (f64::from(frame[0]) / 10_000.0).log10();
            assert!(
                (measured - f64::from(centibel)).abs() < 1.0,
                "{centibel}: {measured}"
            );
        }
    }
}
