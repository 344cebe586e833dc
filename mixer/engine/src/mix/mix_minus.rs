//! The exact sum, and the sum without one's own part.
//!
//! Everything is added in `i32` once; a contributor's own frame is taken out again before the
//! limiter, so what it hears is exactly the limited sum of the others. The limiter is the identity
//! below full scale and clamps above. A sum of 65,535 full-scale frames still fits.

use super::{FRAME_SAMPLES, Frame};
use crate::codec::wide::{convert, wide};

/// Sum of the frames of one tick.
pub type Sum = [i32; FRAME_SAMPLES];

/// An empty sum.
pub const SILENCE: Sum = [0; FRAME_SAMPLES];

/// Adds a frame.
#[inline]
pub fn add(sum: &mut Sum, frame: &Frame) {
    wide(
        #[inline(always)]
        || {
            for (total, &sample) in sum.iter_mut().zip(frame) {
                *total += i32::from(sample);
            }
        },
    );
}

/// What everybody hears who contributed nothing: the limited sum.
#[inline]
pub fn limit(sum: &Sum, heard: &mut Frame) {
    convert(sum, heard, clamp);
}

/// What a contributor hears: the limited sum without its own frame.
#[inline]
pub fn limit_minus(sum: &Sum, own: &Frame, heard: &mut Frame) {
    wide(
        #[inline(always)]
        || {
            for ((out, &total), &own) in heard.iter_mut().zip(sum).zip(own) {
                *out = clamp(total - i32::from(own));
            }
        },
    );
}

/// Adds to `over` what somebody hears anyway: the sum, without `own` if that is part of it.
pub fn lay_over(over: &mut Sum, sum: &Sum, own: Option<&Frame>) {
    for (out, &total) in over.iter_mut().zip(sum) {
        *out += total;
    }
    if let Some(own) = own {
        for (out, &own) in over.iter_mut().zip(own) {
            *out -= i32::from(own);
        }
    }
}

#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "clamped to the range of i16 first"
)]
fn clamp(total: i32) -> i16 {
    total.clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame() -> impl Strategy<Value = Frame> {
        // Full-scale values often: there the limiter and overflow would show.
        let sample = prop_oneof![3 => any::<i16>(), 1 => Just(i16::MAX), 1 => Just(i16::MIN)];
        prop::collection::vec(sample, FRAME_SAMPLES).prop_map(|samples| {
            let mut frame = [0; FRAME_SAMPLES];
            frame.copy_from_slice(&samples);
            frame
        })
    }

    proptest! {
        #[test]
        fn mix_of_all_minus_own_is_mix_of_the_others(frames in prop::collection::vec(frame(), 1..12)) {
            let mut all = SILENCE;
            frames.iter().for_each(|frame| add(&mut all, frame));
            for (own_index, own) in frames.iter().enumerate() {
                let mut heard = [0; FRAME_SAMPLES];
                limit_minus(&all, own, &mut heard);
                for (at, &sample) in heard.iter().enumerate() {
                    let others = frames.iter().enumerate().filter(|(index, _)| *index != own_index);
                    let exact: i64 = others.map(|(_, other)| i64::from(other[at])).sum();
                    prop_assert_eq!(i64::from(sample), exact.clamp(-32_768, 32_767));
                }
            }
        }

        #[test]
        fn the_limiter_is_the_identity_below_full_scale(frame in frame()) {
            let mut sum = SILENCE;
            add(&mut sum, &frame);
            let mut heard = [0; FRAME_SAMPLES];
            limit(&sum, &mut heard);
            prop_assert_eq!(heard, frame);
        }
    }
}
