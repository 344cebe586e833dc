//! Unpredictable numbers for SSRCs, sequence numbers, timestamps, ports and ids.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufReader, Read};

/// A source of random numbers.
#[derive(Debug)]
pub struct Random(Source);

#[derive(Debug)]
enum Source {
    Kernel(BufReader<File>),
    Seeded(u64),
}

impl Random {
    /// The kernel's generator.
    ///
    /// # Errors
    /// `/dev/urandom` cannot be opened.
    pub fn kernel() -> io::Result<Self> {
        Ok(Self(Source::Kernel(BufReader::with_capacity(
            512,
            File::open("/dev/urandom")?,
        ))))
    }

    /// The same numbers for the same seed: simulation and tests only.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(Source::Seeded(seed))
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        match &mut self.0 {
            Source::Kernel(file) => {
                let mut bytes = [0; 8];
                match file.read_exact(&mut bytes) {
                    Ok(()) => u64::from_ne_bytes(bytes),
                    // Keys of the standard library's hashers come from the kernel too, by another way.
                    Err(_) => RandomState::new().hash_one(0u8),
                }
            }
            Source::Seeded(state) => {
                // SplitMix64.
                *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut mixed = *state;
                mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                mixed ^ (mixed >> 31)
            }
        }
    }

    /// 32 random bits.
    pub fn bits32(&mut self) -> u32 {
        u32::try_from(self.bits() >> 32).unwrap_or(0)
    }

    /// 16 random bits.
    pub fn bits16(&mut self) -> u16 {
        u16::try_from(self.bits() >> 48).unwrap_or(0)
    }

    /// A number below `bound`; 0 when that is 0. The bias is below 2^-32 for any table of ours.
    pub fn below(&mut self, bound: usize) -> usize {
        let wide = u128::from(self.bits()) * bound as u128;
        usize::try_from(wide >> 64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_numbers_differ_between_sources_and_draws() {
        let (mut one, mut two) = (Random::kernel().unwrap(), Random::kernel().unwrap());
        let drawn = [one.bits(), one.bits(), two.bits(), two.bits()];
        for (place, number) in drawn.iter().enumerate() {
            assert!(!drawn[..place].contains(number), "{drawn:?}");
        }
    }

    #[test]
    fn below_reaches_every_value_and_never_its_bound() {
        let mut random = Random::seeded(1);
        let mut seen = [0u32; 5];
        for _ in 0..5000 {
            seen[random.below(5)] += 1;
        }
        assert!(seen.iter().all(|count| (800..1200).contains(count)), "{seen:?}");
        assert_eq!(random.below(0), 0);
    }
}
