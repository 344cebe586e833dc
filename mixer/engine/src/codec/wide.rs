//! Loops over the samples of a frame, compiled for the widest vectors that the processor has: AVX-512, AVX2 or NEON where it is
//! found when they run, what every processor of its kind has otherwise. The loops are written once, without intrinsics.

use pulp::Arch;

/// Runs `work`, which is compiled once for each kind of processor; all that it calls must be inlined to have a part in that.
#[inline(always)]
pub(crate) fn wide<R>(work: impl FnOnce() -> R) -> R {
    kind().dispatch(work)
}

/// The processor's.
#[cfg(not(test))]
#[inline(always)]
fn kind() -> Arch {
    Arch::new()
}

#[cfg(test)]
use tests::kind;

/// Converts item by item; returns how many, as many as both sides hold.
#[inline(always)]
pub(crate) fn convert<A: Copy, B>(from: &[A], to: &mut [B], one: impl Fn(A) -> B) -> usize {
    wide(
        #[inline(always)]
        || {
            for (to, from) in to.iter_mut().zip(from) {
                *to = one(*from);
            }
        },
    );
    from.len().min(to.len())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;

    use super::*;
    use crate::codec::{decode, encode};
    use crate::media::Codec;
    use crate::mix::gain::Gain;
    use crate::mix::level::mean_square;
    use crate::mix::mix_minus::{self, SILENCE};

    thread_local! {
        static FORCED: Cell<Option<Arch>> = const { Cell::new(None) };
    }

    pub(super) fn kind() -> Arch {
        FORCED.get().unwrap_or_default()
    }

    /// Those that this machine can play.
    fn kinds() -> Vec<Arch> {
        #[cfg(target_arch = "x86_64")]
        {
            let wider = [
                pulp::x86::V3::try_new().map(Arch::V3),
                pulp::x86::V4::try_new().map(Arch::V4),
            ];
            std::iter::once(Arch::Scalar)
                .chain(wider.into_iter().flatten())
                .collect()
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            vec![Arch::Scalar, Arch::new()]
        }
    }

    fn on<R>(kind: Arch, work: impl FnOnce() -> R) -> R {
        FORCED.set(Some(kind));
        let done = work();
        FORCED.set(None);
        done
    }

    /// Sample by sample, which no vector is needed for.
    fn encoded(codec: Codec, pcm: &[i16]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for sample in pcm {
            let mut one = [0; 2];
            let length = encode(codec, std::slice::from_ref(sample), &mut one);
            bytes.extend_from_slice(&one[..length]);
        }
        bytes
    }

    #[test]
    fn every_sample_and_every_code_on_every_kind() {
        let samples: Vec<i16> = (i16::MIN..=i16::MAX).collect();
        for (kind, codec) in kinds()
            .into_iter()
            .flat_map(|kind| Codec::ALL.map(|codec| (kind, codec)))
        {
            let expected = encoded(codec, &samples);
            let mut bytes = vec![0; expected.len()];
            let mut pcm = vec![0; samples.len()];
            let counts = on(kind, || {
                (
                    encode(codec, &samples, &mut bytes),
                    decode(codec, &expected, &mut pcm),
                )
            });
            assert_eq!(counts, (expected.len(), samples.len()));
            assert!(bytes == expected, "{kind:?} encodes {codec:?}");
            let width = expected.len() / samples.len();
            for (code, sample) in expected.chunks(width).zip(&pcm) {
                let mut one = [0];
                assert_eq!(decode(codec, code, &mut one), 1);
                assert_eq!(one, [*sample], "{kind:?} decodes {codec:?} {code:x?}");
            }
        }
    }

    proptest! {
        #[test]
        fn frames_on_every_kind(frames in prop::collection::vec(prop::collection::vec(any::<i16>(), 160), 2), centibel in -4_000..2_000_i32) {
            let [one, other] = [0, 1].map(|which| <[i16; 160]>::try_from(&frames[which][..]).unwrap());
            let made = |kind| on(kind, || {
                let mut sum = SILENCE;
                mix_minus::add(&mut sum, &one);
                mix_minus::add(&mut sum, &other);
                let (mut all, mut minus, mut loud) = (one, one, one);
                mix_minus::limit(&sum, &mut all);
                mix_minus::limit_minus(&sum, &one, &mut minus);
                Gain::from_centibel(centibel).apply(&mut loud);
                (sum, all, minus, loud, mean_square(&one[..159]))
            });
            let expected = made(Arch::Scalar);
            prop_assert_eq!(expected.2, other);
            for kind in kinds() {
                prop_assert_eq!(made(kind), expected, "{:?}", kind);
            }
        }
    }
}
