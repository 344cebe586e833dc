//! What one worker measures about its own punctuality.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Smallest value told apart, nanoseconds.
const LOWEST_NS: u64 = 100;
/// Largest value told apart, nanoseconds; longer ones count as this.
const HIGHEST_NS: u64 = 100_000_000;
/// Significant decimal digits.
const DIGITS: u8 = 2;

/// Histograms of one worker over about one second, in nanoseconds. Small (`u32` cells, two digits)
/// because they live in the worker's cache. Recording and clearing never allocate.
#[derive(Debug, Clone)]
pub struct Histograms {
    /// A turn that ran at least one slot: receive, requests, slots and flush.
    pub tick_duration: Histogram<u32>,
    /// Every slot run: how long after its due time its turn began.
    pub tick_lateness: Histogram<u32>,
}

impl Default for Histograms {
    fn default() -> Self {
        Self {
            tick_duration: empty(),
            tick_lateness: empty(),
        }
    }
}

impl Histograms {
    /// Forgets everything.
    pub fn clear(&mut self) {
        self.tick_duration.reset();
        self.tick_lateness.reset();
    }

    /// Counts a turn.
    pub fn record_duration(&mut self, duration: Duration) {
        self.tick_duration.saturating_record(nanoseconds(duration));
    }

    /// Counts a slot.
    pub fn record_lateness(&mut self, lateness: Duration) {
        self.tick_lateness.saturating_record(nanoseconds(lateness));
    }
}

#[expect(
    clippy::unwrap_used,
    reason = "fails for bounds or digits out of range only; these are constants"
)]
fn empty() -> Histogram<u32> {
    Histogram::new_with_bounds(LOWEST_NS, HIGHEST_NS, DIGITS).unwrap()
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_digits_are_kept_and_the_ends_saturate() {
        let mut histograms = Histograms::default();
        histograms.record_lateness(Duration::from_micros(123));
        histograms.record_lateness(Duration::from_secs(7));
        histograms.record_lateness(Duration::ZERO);
        assert_eq!(histograms.tick_lateness.len(), 3);
        let median = histograms.tick_lateness.value_at_quantile(0.5);
        assert!((122_000..=124_500).contains(&median), "{median}");
        assert!(histograms.tick_lateness.max() >= HIGHEST_NS);
        assert_eq!(histograms.tick_duration.len(), 0);
        histograms.clear();
        assert!(histograms.tick_lateness.is_empty());
    }
}
