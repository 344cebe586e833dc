//! Time as the engine sees it: an argument, never a reading.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Monotonic time in nanoseconds since an origin chosen by the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The time `self` lies after `earlier`; zero when it does not.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Whole microseconds from `earlier` to `self`; negative when it lies before.
    #[must_use]
    pub fn microseconds_since(self, earlier: Self) -> i64 {
        let apart = i64::try_from(self.0.abs_diff(earlier.0) / 1_000).unwrap_or(i64::MAX);
        if self < earlier { -apart } else { apart }
    }

    /// This time plus `duration`.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

/// Number of a worker's 1 ms slot, counted from the worker's start. The `tick` of the control link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Slot(pub u64);

impl Slot {
    /// Length of a slot.
    pub const LENGTH: Duration = Duration::from_millis(1);
    /// Slots in one conference tick (20 ms).
    pub const PER_TICK: u64 = 20;

    /// When this slot begins, for a worker whose slot 0 began at `origin`.
    #[must_use]
    pub fn begins(self, origin: Timestamp) -> Timestamp {
        Timestamp(origin.0.saturating_add(self.0.saturating_mul(1_000_000)))
    }
}
