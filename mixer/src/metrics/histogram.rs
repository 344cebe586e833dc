//! Histograms with fixed buckets, as Prometheus wants them.

use hdrhistogram::Histogram;

use crate::worker::histograms::Histograms;

/// Counts of durations below fixed bounds, since the start.
#[derive(Debug, Clone)]
pub struct Buckets {
    /// Upper bounds in nanoseconds, ascending.
    bounds_ns: &'static [u64],
    /// One count per bound, and one for what is above all.
    counts: Vec<u64>,
    sum_ns: u64,
}

impl Buckets {
    /// Empty buckets with these upper bounds in nanoseconds.
    #[must_use]
    pub fn new(bounds_ns: &'static [u64]) -> Self {
        Self {
            bounds_ns,
            counts: vec![0; bounds_ns.len() + 1],
            sum_ns: 0,
        }
    }

    /// Adds `count` durations of `value_ns`.
    pub fn record(&mut self, value_ns: u64, count: u64) {
        let place = self.bounds_ns.partition_point(|bound| *bound < value_ns);
        if let Some(cell) = self.counts.get_mut(place) {
            *cell += count;
        }
        self.sum_ns = self.sum_ns.saturating_add(value_ns.saturating_mul(count));
    }

    /// Adds everything a worker has recorded.
    pub fn merge(&mut self, histogram: &Histogram<u32>) {
        for cell in histogram.iter_recorded() {
            self.record(cell.value_iterated_to(), cell.count_since_last_iteration());
        }
    }

    /// Upper bound in seconds and number of durations up to it, in ascending order, without the
    /// last one (all of them).
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        let mut sum = 0;
        self.bounds_ns
            .iter()
            .zip(&self.counts)
            .map(move |(bound, count)| {
                sum += count;
                (seconds(*bound), sum)
            })
    }

    /// Number of all durations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Sum of all durations in seconds.
    #[must_use]
    pub fn sum_seconds(&self) -> f64 {
        seconds(self.sum_ns)
    }
}

/// Nanoseconds as seconds.
#[expect(clippy::cast_precision_loss, reason = "metrics are floating-point numbers")]
#[must_use]
pub fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

/// What one worker's punctuality was since its start.
#[derive(Debug, Clone)]
pub struct TickHistograms {
    /// Time a turn with a due slot took.
    pub duration: Buckets,
    /// Time a slot began after it was due.
    pub lateness: Buckets,
}

impl Default for TickHistograms {
    fn default() -> Self {
        Self {
            duration: Buckets::new(&TICK_BOUNDS_NS),
            lateness: Buckets::new(&TICK_BOUNDS_NS),
        }
    }
}

impl TickHistograms {
    /// Adds what a worker recorded over the last second.
    pub fn merge(&mut self, last: &Histograms) {
        self.duration.merge(&last.tick_duration);
        self.lateness.merge(&last.tick_lateness);
    }
}

/// Bounds for turns and lateness: a slot lasts 1 ms, a tick 20 ms.
const TICK_BOUNDS_NS: [u64; 13] = [
    10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000,
    20_000_000, 40_000_000, 80_000_000,
];

/// Bounds for requests of the control link.
pub const REQUEST_BOUNDS_NS: [u64; 10] = [
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    500_000_000,
    2_000_000_000,
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn values_on_a_bound_belong_to_it() {
        let mut buckets = Buckets::new(&[10, 20]);
        for value in [0, 10, 11, 20, 21, 1000] {
            buckets.record(value, 1);
        }
        let counts: Vec<u64> = buckets.cumulative().map(|(_, count)| count).collect();
        assert_eq!(counts, [2, 4]);
        assert_eq!(buckets.count(), 6);
        assert!((buckets.sum_seconds() - 1062e-9).abs() < 1e-15);
    }

    #[test]
    fn worker_histograms_add_up() {
        let mut sum = TickHistograms::default();
        for _ in 0..3 {
            let mut second = Histograms::default();
            second.record_duration(Duration::from_micros(70));
            second.record_lateness(Duration::from_millis(3));
            sum.merge(&second);
        }
        assert_eq!((sum.duration.count(), sum.lateness.count()), (3, 3));
        let below = |buckets: &Buckets, bound: f64| {
            buckets
                .cumulative()
                .find(|(seconds, _)| *seconds >= bound)
                .map(|(_, count)| count)
        };
        assert_eq!(below(&sum.duration, 0.000_05), Some(0));
        assert_eq!(below(&sum.duration, 0.000_1), Some(3));
        assert_eq!(below(&sum.lateness, 0.002), Some(0));
        assert_eq!(below(&sum.lateness, 0.005), Some(3));
        assert!((sum.duration.sum_seconds() - 210e-6).abs() < 10e-6);
    }
}
