//! How many receive chunks the kernel has at hand.
//!
//! The fill ring is a queue: every chunk in it is used in turn, and one that is used once in a few seconds is
//! in no cache when its frame is written, and pushes out something that was. So only as many go round as
//! a few of the largest recent batches fill; the others wait in reserve for a larger load.

/// The receive chunks that do not go round.
#[derive(Debug)]
pub(super) struct Stock {
    reserve: Vec<u32>,
    chunks: u32,
    /// Chunks that shall go round.
    wanted: u32,
    /// Largest recent batch, times 256; it fades.
    batch: u32,
}

/// So many of the largest recent batches may wait. Beyond that a worker that was punctual lately and now stands still
/// loses frames, as it would with the receive ring of a NIC; more of them would be out of the cache all the time
/// (`docs/decisions/0015-turns-and-caches.md`).
const BATCHES: u32 = 5;
/// At least so many go round.
pub(super) const LEAST: u32 = 1_024;

impl Stock {
    /// All of `chunks` go round.
    pub(super) fn new(chunks: u32) -> Self {
        Self {
            reserve: Vec::with_capacity(chunks as usize),
            chunks,
            wanted: chunks,
            batch: 0,
        }
    }

    fn going_round(&self) -> u32 {
        self.chunks - u32::try_from(self.reserve.len()).unwrap_or(self.chunks)
    }

    /// Takes a chunk that was used; gives it again if it shall go on.
    #[inline]
    pub(super) fn give_back(&mut self, chunk: u32) -> Option<u32> {
        if self.going_round() <= self.wanted || self.reserve.len() == self.reserve.capacity() {
            return Some(chunk);
        }
        self.reserve.push(chunk);
        None
    }

    /// Takes note of how many frames came in one batch.
    pub(super) fn follow(&mut self, batch: u32) {
        self.batch = (self.batch - self.batch.div_ceil(256)).max(batch << 8);
        self.wanted = ((self.batch >> 8) * BATCHES).max(LEAST).min(self.chunks);
    }

    /// A chunk that shall go round and does not.
    #[inline]
    pub(super) fn take_missing(&mut self) -> Option<u32> {
        if self.going_round() < self.wanted {
            return self.reserve.pop();
        }
        None
    }

    /// A chunk that does not go round.
    pub(super) fn take_any(&mut self) -> Option<u32> {
        self.reserve.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::xdp::queue::{QueueSizes, XskQueue};

    const SIZES: QueueSizes = QueueSizes {
        receive: 4_096,
        transmit: 16,
    };

    #[test]
    fn a_small_load_goes_round_in_few_chunks_and_a_larger_one_gets_more() {
        let (mut queue, mut kernel) = XskQueue::plain(SIZES).unwrap();
        let mut turn = |kernel: &mut crate::io::xdp::queue::PlayedKernel, frames: u32| {
            for _ in 0..frames {
                assert!(kernel.deliver(b"frame"), "a chunk is at hand");
            }
            assert_eq!(
                queue.receive(u32::MAX, |frame, _| assert_eq!(frame, b"frame")),
                frames
            );
        };
        for _ in 0..500 {
            turn(&mut kernel, 10);
        }
        assert_eq!(kernel.filled(), LEAST);
        turn(&mut kernel, LEAST);
        assert_eq!(kernel.filled(), 4_096, "5 times as many are more than there are");
        turn(&mut kernel, 400);
        for _ in 0..3_000 {
            turn(&mut kernel, 400);
        }
        assert_eq!(kernel.filled(), 2_000);
        queue.end();
        assert_eq!(kernel.filled(), 4_096, "whoever goes on finds them all");
    }

    #[test]
    fn nothing_is_ever_in_two_places() {
        let (mut queue, mut kernel) = XskQueue::plain(SIZES).unwrap();
        for turn in 0..2_000_u32 {
            for _ in 0..turn % 37 {
                assert!(kernel.deliver(b"frame"));
            }
            queue.receive(u32::MAX, |_, _| {});
            let round = queue.stock.going_round();
            assert_eq!(
                kernel.filled(),
                round,
                "what is not in reserve is in the fill ring"
            );
        }
    }
}
