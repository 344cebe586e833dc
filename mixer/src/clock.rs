//! The only reader of the monotonic clock in the mixer.

use std::time::Instant;

use mixer_engine::time::Timestamp;

/// A monotonic clock. Copies share the origin, so their readings are comparable across threads.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock whose origin is now.
    #[must_use]
    pub fn start() -> Self {
        Self { origin: read() }
    }

    /// Time since the origin.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let nanoseconds = read().saturating_duration_since(self.origin).as_nanos();
        Timestamp(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that reads the monotonic clock"
)]
fn read() -> Instant {
    Instant::now()
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
    }
}
