//! Unguessable tags, branches and ids from the seed given at construction.
//!
//! ChaCha with 12 rounds in counter mode (RFC 8439 2.3 describes the block function): the core may
//! not ask the system for randomness, and a peer must not be able to guess the next tag from the
//! ones it has seen.

use std::fmt;

/// A seeded generator. What it holds would tell what comes, so it is not printed.
#[derive(Clone)]
pub(crate) struct Random {
    key: [u32; 8],
    counter: u64,
    block: [u32; 16],
    used: usize,
}

impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Random").finish_non_exhaustive()
    }
}

impl Random {
    /// A generator; the same seed gives the same sequence.
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        let mut key = [0u32; 8];
        for (word, bytes) in key.iter_mut().zip(seed.chunks_exact(4)) {
            *word = bytes
                .iter()
                .rev()
                .fold(0, |sum, &byte| (sum << 8) | u32::from(byte));
        }
        Self {
            key,
            counter: 0,
            block: [0; 16],
            used: BLOCK_WORDS,
        }
    }

    /// The next 64 bits.
    pub(crate) fn next_u64(&mut self) -> u64 {
        if self.used + 2 > BLOCK_WORDS {
            self.block = block(&self.key, self.counter);
            self.counter += 1;
            self.used = 0;
        }
        let mut words = self.block.iter().skip(self.used).copied();
        self.used += 2;
        let low = u64::from(words.next().unwrap_or(0));
        let high = u64::from(words.next().unwrap_or(0));
        (high << 32) | low
    }

    /// A token of 16 lower-case hexadecimal digits.
    pub(crate) fn token(&mut self) -> String {
        format!("{:016x}", self.next_u64())
    }

    /// A 64-bit digest of `parts`, keyed by the seed: the tag of an answer for which no state is kept.
    pub(crate) fn digest(&self, parts: &[&[u8]]) -> u64 {
        let mut state = [self.key[0], self.key[1], self.key[2], self.key[3]];
        for part in parts {
            for &byte in part.iter().chain(std::iter::once(&0xff)) {
                state[0] = (state[0] ^ u32::from(byte)).wrapping_mul(0x0100_0193);
                quarter_round_of(&mut state);
            }
        }
        for _ in 0..8 {
            quarter_round_of(&mut state);
        }
        (u64::from(state[1]) << 32) | u64::from(state[3])
    }
}

fn quarter_round_of(state: &mut [u32; 4]) {
    let [a, b, c, d] = *state;
    let (a, b, c, d) = quarter_round(a, b, c, d);
    *state = [a, b, c, d];
}

fn quarter_round(mut a: u32, mut b: u32, mut c: u32, mut d: u32) -> (u32, u32, u32, u32) {
    a = a.wrapping_add(b);
    d = (d ^ a).rotate_left(16);
    c = c.wrapping_add(d);
    b = (b ^ c).rotate_left(12);
    a = a.wrapping_add(b);
    d = (d ^ a).rotate_left(8);
    c = c.wrapping_add(d);
    b = (b ^ c).rotate_left(7);
    (a, b, c, d)
}

#[expect(
    clippy::indexing_slicing,
    reason = "constant indices below 16 into arrays of 16"
)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the counter is split into its two halves"
)]
fn block(key: &[u32; 8], counter: u64) -> [u32; 16] {
    let mut start = [0u32; 16];
    start[..4].copy_from_slice(&[0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574]);
    start[4..12].copy_from_slice(key);
    start[12] = counter as u32;
    start[13] = (counter >> 32) as u32;
    let mut work = start;
    let mut quarter = |a: usize, b: usize, c: usize, d: usize| {
        (work[a], work[b], work[c], work[d]) = quarter_round(work[a], work[b], work[c], work[d]);
    };
    for _ in 0..ROUNDS / 2 {
        quarter(0, 4, 8, 12);
        quarter(1, 5, 9, 13);
        quarter(2, 6, 10, 14);
        quarter(3, 7, 11, 15);
        quarter(0, 5, 10, 15);
        quarter(1, 6, 11, 12);
        quarter(2, 7, 8, 13);
        quarter(3, 4, 9, 14);
    }
    for (word, first) in work.iter_mut().zip(start) {
        *word = word.wrapping_add(first);
    }
    work
}

const BLOCK_WORDS: usize = 16;
const ROUNDS: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quarter_round_matches_the_published_vector() {
        // RFC 8439 2.1.1.
        assert_eq!(
            quarter_round(0x1111_1111, 0x0102_0304, 0x9b8d_6f43, 0x0123_4567),
            (0xea2a_92f4, 0xcb1c_f8ce, 0x4581_472e, 0x5881_c4bb)
        );
    }

    #[test]
    fn same_seed_same_tokens_other_seed_others() {
        let mut one = Random::new([7; 32]);
        let mut same = Random::new([7; 32]);
        let mut other = Random::new([8; 32]);
        let tokens: Vec<_> = (0..100).map(|_| one.token()).collect();
        assert_eq!(tokens, (0..100).map(|_| same.token()).collect::<Vec<_>>());
        let mut distinct = tokens.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), 100);
        assert_ne!(tokens.first(), Some(&other.token()));
    }

    #[test]
    fn digest_depends_on_seed_parts_and_their_borders() {
        let random = Random::new([7; 32]);
        assert_eq!(random.digest(&[b"a", b"bc"]), random.digest(&[b"a", b"bc"]));
        assert_ne!(random.digest(&[b"a", b"bc"]), random.digest(&[b"ab", b"c"]));
        assert_ne!(random.digest(&[b"a"]), Random::new([8; 32]).digest(&[b"a"]));
    }
}
