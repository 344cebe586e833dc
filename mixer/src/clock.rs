//! The only reader of the monotonic clock in the mixer.

use mixer_engine::time::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// A monotonic clock. Copies share the origin, so their readings are comparable across threads.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// By the system's clock, which all programs of this boot share.
    origin_ns: u64,
}

impl Clock {
    /// A clock whose origin is now.
    #[must_use]
    pub fn start() -> Self {
        Self { origin_ns: read_ns() }
    }

    /// The clock of a program that this one goes on for.
    #[must_use]
    pub fn with_origin(origin_ns: u64) -> Self {
        Self { origin_ns }
    }

    /// What [`Self::with_origin`] wants.
    #[must_use]
    pub fn origin_ns(&self) -> u64 {
        self.origin_ns
    }

    /// Time since the origin.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        Timestamp(read_ns().saturating_sub(self.origin_ns))
    }
}

/// `CLOCK_MONOTONIC`: unlike an `Instant` it can be told to another program.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that reads the monotonic clock"
)]
fn read_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_share_the_origin_and_never_run_backwards() {
        let clock = Clock::start();
        let copy = clock;
        let earlier = clock.now();
        let later = copy.now();
        assert!(earlier <= later);
        assert!(later.0 < 60_000_000_000, "the origin is the start of this test");
        assert!(Clock::with_origin(clock.origin_ns()).now() >= later);
    }
}
