//! Loudness of a frame, and whether somebody talks.

use serde::{Deserialize, Serialize};

use crate::codec::wide::wide;

/// Mean square of a full-scale square wave: 0 dBov (RFC 6464 3).
const FULL_SCALE: f32 = 32_767.0 * 32_767.0;

/// Mean square of the samples; 0 for an empty frame.
#[must_use]
pub fn mean_square(frame: &[i16]) -> u32 {
    let sum = wide(
        #[inline(always)]
        || sum_of_squares(frame),
    );
    let count = u64::try_from(frame.len().max(1)).unwrap_or(1);
    u32::try_from(sum / count).unwrap_or(u32::MAX)
}

/// Level of a mean square in dBov: 0 for a full-scale square wave, -127 for digital silence.
#[must_use]
pub fn dbov(mean_square: u32) -> f32 {
    #[expect(clippy::cast_precision_loss, reason = "a level needs no more than 24 bits")]
    let ratio = mean_square as f32 / FULL_SCALE;
    (10.0 * ratio.log10()).max(-127.0)
}

/// Mean square of -50 dBov: below it a frame is quiet.
pub const QUIET: u32 = 10_736;

#[inline(always)]
fn sum_of_squares(frame: &[i16]) -> u64 {
    // A square is 2^30 at most: two fit 32 bit, the sum of them all needs 64.
    let (pairs, odd) = frame.as_chunks::<2>();
    let pair_sum = |pair: &[i16; 2]| square(pair[0]) + square(pair[1]);
    pairs.iter().map(|pair| u64::from(pair_sum(pair))).sum::<u64>()
        + odd.iter().map(|sample| u64::from(square(*sample))).sum::<u64>()
}

#[inline(always)]
fn square(sample: i16) -> u32 {
    (i32::from(sample) * i32::from(sample)).unsigned_abs()
}

/// Decides whether an endpoint talks from the levels of its frames.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct TalkDetector {
    talking: bool,
    /// Last three frames, newest in bit 0: 1 = loud.
    loud: u8,
    /// Quiet frames in a row.
    quiet: u8,
}

impl TalkDetector {
    /// Nobody talks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the mean square of one 20 ms frame (0 when there is none). Returns the new state when
    /// it changed.
    pub fn feed(&mut self, mean_square: u32) -> Option<bool> {
        self.loud = (self.loud << 1 | u8::from(mean_square >= TALK_ON)) & 0b111;
        self.quiet = if mean_square < QUIET {
            self.quiet.saturating_add(1)
        } else {
            0
        };
        if self.talking && self.quiet >= TALK_OFF_FRAMES {
            self.talking = false;
            return Some(false);
        }
        if !self.talking && self.loud.count_ones() >= 2 {
            self.talking = true;
            return Some(true);
        }
        None
    }

    /// Whether somebody talks.
    #[must_use]
    pub fn talking(&self) -> bool {
        self.talking
    }
}

/// -45 dBov: two frames of three at this level are talk.
const TALK_ON: u32 = 33_953;

/// 300 ms of quiet frames end a talk spurt.
const TALK_OFF_FRAMES: u8 = 15;

#[cfg(test)]
mod tests {
    use super::*;

    fn square_wave(amplitude: i16) -> [i16; 160] {
        std::array::from_fn(|n| if n % 8 < 4 { amplitude } else { -amplitude })
    }

    #[test]
    fn full_scale_square_is_0_dbov_and_sine_3_below() {
        assert!(dbov(mean_square(&square_wave(32_767))).abs() < 0.001);
        let sine: Vec<i16> = (0..160)
            .map(|n| (f64::from(n) * std::f64::consts::TAU / 16.0).sin() * 32_767.0)
            .map(|value| {
                #[expect(clippy::cast_possible_truncation, reason = "within range by its factor")]
                let sample = value.round() as i16;
                sample
            })
            .collect();
        assert!((dbov(mean_square(&sine)) + 3.01).abs() < 0.01);
        assert!((dbov(0) + 127.0).abs() < f32::EPSILON);
        assert_eq!(mean_square(&[i16::MIN; 160]), 1 << 30);
        assert_eq!(mean_square(&[]), 0);
    }

    #[test]
    fn thresholds_are_the_levels_they_claim() {
        assert!((dbov(TALK_ON) + 45.0).abs() < 0.001 && (dbov(QUIET) + 50.0).abs() < 0.001);
    }

    #[test]
    fn talk_begins_with_two_loud_frames_of_three() {
        let loud = mean_square(&square_wave(400));
        let mut detector = TalkDetector::new();
        assert_eq!(detector.feed(loud), None);
        assert_eq!(detector.feed(0), None);
        assert_eq!(detector.feed(0), None);
        assert_eq!(detector.feed(loud), None);
        assert_eq!(detector.feed(0), None);
        assert_eq!(detector.feed(loud), Some(true));
        assert_eq!(detector.feed(loud), None);
        assert!(detector.talking());
    }

    #[test]
    fn talk_ends_after_300_ms_of_quiet_in_a_row() {
        let (loud, between) = (mean_square(&square_wave(400)), mean_square(&square_wave(150)));
        let mut detector = TalkDetector::new();
        detector.feed(loud);
        assert_eq!(detector.feed(loud), Some(true));
        for _ in 0..14 {
            assert_eq!(detector.feed(0), None);
        }
        assert_eq!(detector.feed(between), None);
        for _ in 0..14 {
            assert_eq!(detector.feed(0), None);
        }
        assert_eq!(detector.feed(0), Some(false));
        assert_eq!(detector.feed(between), None);
    }
}
