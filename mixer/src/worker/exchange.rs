//! What the workers of a mixer tell each other of the conferences they share: a ring from each to each.
//!
//! Nobody waits here. What finds a ring full is lost, and the engine that misses it counts it.

use mixer_engine::engine::Engine;
use mixer_engine::engine::share::{Partial, Parts};
use rtrb::{Consumer, Producer, RingBuffer};

/// One worker's ends of the rings.
#[derive(Debug, Default)]
pub struct Exchange {
    /// By the number of the other worker.
    to: Vec<(u8, Producer<Partial>)>,
    from: Vec<Consumer<Partial>>,
}

impl Exchange {
    /// A worker's that is alone.
    #[must_use]
    pub fn alone() -> Self {
        Self::default()
    }

    /// The ends of so many workers, in order. Beyond [`Parts::MAX`] workers have no numbers and are alone.
    #[must_use]
    pub fn among(workers: usize) -> Vec<Self> {
        let mut ends: Vec<Self> = std::iter::repeat_with(Self::alone).take(workers).collect();
        let sharing = u8::try_from(workers.min(Parts::MAX)).unwrap_or(u8::MAX);
        for from in 0..sharing {
            for to in (0..sharing).filter(|to| *to != from) {
                let (sender, receiver) = RingBuffer::new(RING);
                if let Some(end) = ends.get_mut(usize::from(from)) {
                    end.to.push((to, sender));
                }
                if let Some(end) = ends.get_mut(usize::from(to)) {
                    end.from.push(receiver);
                }
            }
        }
        ends
    }

    /// Gives the engine what the others have told; false when that is nothing.
    #[inline]
    pub(super) fn carry_in(&mut self, engine: &mut Engine) -> bool {
        let mut any = false;
        for ring in &mut self.from {
            // Bounded: a worker that goes on telling cannot keep this one here.
            for _ in 0..RING {
                let Ok(told) = ring.peek() else { break };
                engine.take_partial(told);
                any = true;
                // It has just been seen to be there.
                let _ = ring.pop();
            }
        }
        any
    }

    /// Tells the others what the engine has for them.
    #[inline]
    pub(super) fn carry_out(&mut self, engine: &mut Engine) {
        while let Some(partial) = engine.poll_partial() {
            for (to, ring) in &mut self.to {
                if partial.recipients().contains(*to) {
                    // Lost when full, which the other one counts as missing.
                    let _ = ring.push(partial.clone());
                }
            }
        }
    }
}

/// Places of a ring: of some 2 KiB each, for all shared conferences of one phase.
const RING: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_has_a_ring_to_and_from_everybody_else() {
        let ends = Exchange::among(3);
        for (own, end) in (0..).zip(&ends) {
            let others: Vec<u8> = (0..3).filter(|other| *other != own).collect();
            assert_eq!(end.to.iter().map(|(to, _)| *to).collect::<Vec<_>>(), others);
            assert_eq!(end.from.len(), 2);
        }
        assert!(Exchange::among(1)[0].to.is_empty());
        let many = Exchange::among(Parts::MAX + 1);
        assert_eq!(many[0].to.len(), Parts::MAX - 1);
        assert!(many[Parts::MAX].from.is_empty());
    }
}
