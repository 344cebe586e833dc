//! Gain of an endpoint into the mix.

/// A gain in fixed point. The default, 0 dB, leaves samples untouched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gain {
    /// Factor times 2^[`SHIFT`].
    factor: i32,
}

impl Gain {
    /// 0 dB.
    pub const UNITY: Self = Self { factor: 1 << SHIFT };

    /// From hundredths of a decibel, limited to -120 dB to +36 dB.
    #[must_use]
    pub fn from_centibel(centibel: i32) -> Self {
        let decibel = f64::from(centibel.clamp(-12_000, 3_600)) / 100.0;
        #[expect(clippy::cast_possible_truncation, reason = "at most 64 times 2^14")]
        let factor = (10_f64.powf(decibel / 20.0) * f64::from(1 << SHIFT)).round() as i32;
        Self { factor }
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
        for sample in frame {
            let scaled = (i64::from(*sample) * i64::from(self.factor) + ROUND) >> SHIFT;
            #[expect(clippy::cast_possible_truncation, reason = "limited to full scale")]
            let limited = scaled.clamp(i64::from(i16::MIN), i64::from(i16::MAX)) as i16;
            *sample = limited;
        }
    }
}

impl Default for Gain {
    fn default() -> Self {
        Self::UNITY
    }
}

/// Fraction bits of the factor.
const SHIFT: u32 = 14;

/// Half a unit of the result.
const ROUND: i64 = 1 << (SHIFT - 1);

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
