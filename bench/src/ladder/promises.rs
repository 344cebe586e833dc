//! What SPECIFICATION.md promises of the engine, judged by what was measured.

use serde::Serialize;

use super::loads::{ALL_TALK, LISTENERS, SIZE};
use super::{Cost, Gain};

/// One promise.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Promise {
    /// What is promised.
    pub promise: &'static str,
    /// What was measured.
    pub measured: f64,
    /// The limit.
    pub limit: f64,
    /// Unit of both.
    pub unit: &'static str,
    /// Whether the promise is kept.
    pub kept: bool,
}

/// Judges what was measured; promises about what was not are left out.
pub(super) fn judge(costs: &[Cost], gains: &[Gain]) -> Vec<Promise> {
    let of = |ladder: &'static str| costs.iter().filter(move |cost| cost.load.ladder == ladder);
    let with_legs = |ladder, legs| of(ladder).find(|cost| cost.load.legs() == legs);
    [
        at_most(
            "a leg of a room of 300 with 3 talkers costs at most",
            with_legs(LISTENERS, 300).map(|cost| cost.total_ns),
            200.0,
            "ns",
        ),
        at_most(
            "from 100 to 10,000 legs the cost of a leg differs by at most",
            spread(costs),
            15.0,
            "%",
        ),
        at_most(
            "a talker in a room of 1,000 costs at most",
            with_legs(ALL_TALK, 1_000).map(|cost| cost.total_ns),
            1_000.0,
            "ns",
        ),
        at_most(
            "every tick of 10,000 legs with 4 talkers, receiving included, takes at most",
            with_legs(SIZE, 10_000).map(|cost| cost.whole_longest_us / 1_000.0),
            12.0,
            "ms",
        ),
        at_least(
            "two workers carry, against one, at least",
            two_workers(gains, false),
            1.9,
        ),
        at_least(
            "of one room two workers carry, against one, at least",
            two_workers(gains, true),
            1.7,
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn at_most(promise: &'static str, measured: Option<f64>, limit: f64, unit: &'static str) -> Option<Promise> {
    measured.map(|measured| Promise {
        promise,
        measured,
        limit,
        unit,
        kept: measured <= limit,
    })
}

fn at_least(promise: &'static str, measured: Option<f64>, limit: f64) -> Option<Promise> {
    measured.map(|measured| Promise {
        promise,
        measured,
        limit,
        unit: "times",
        kept: measured >= limit,
    })
}

/// By how many percent the dearest leg of the ladder of sizes exceeds the cheapest.
fn spread(costs: &[Cost]) -> Option<f64> {
    let size = || costs.iter().filter(|cost| cost.load.ladder == SIZE);
    let cheapest = size().map(|cost| cost.total_ns).reduce(f64::min)?;
    let dearest = size().map(|cost| cost.total_ns).reduce(f64::max)?;
    Some((dearest / cheapest - 1.0) * 100.0)
}

/// The smallest gain of two workers, in rooms of their own or in shared ones.
fn two_workers(gains: &[Gain], shared: bool) -> Option<f64> {
    let of_kind = |gain: &&Gain| (gain.load.ladder == super::shared::NAME) == shared;
    let two = gains.iter().filter(|gain| gain.workers == 2).filter(of_kind);
    two.map(|gain| gain.gain).reduce(f64::min)
}

/// The promises as a table for people.
pub(super) fn table(promises: &[Promise]) -> String {
    let mut text = String::from("promise\n");
    for Promise {
        promise,
        measured,
        limit,
        unit,
        kept,
    } in promises
    {
        let verdict = if *kept { "kept" } else { "MISSED" };
        text.push_str(&format!("{promise} {limit} {unit}: {measured:.2}, {verdict}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ladder::Load;

    fn cost(load: Load, total_ns: f64, whole_longest_us: f64) -> Cost {
        Cost {
            load,
            receive_ns: 0.0,
            tick_ns: total_ns,
            total_ns,
            percent_per_1000_legs: 0.0,
            encodes_per_tick: 0.0,
            whole_p99_us: 0.0,
            whole_longest_us,
        }
    }

    #[test]
    fn promises_are_kept_at_the_limit_and_missed_beyond_it() {
        let size = |listeners| Load {
            ladder: SIZE,
            rooms: 1,
            talkers: 4,
            listeners,
        };
        let judged = |dearer: f64, longest_us: f64, gain: f64| -> Vec<bool> {
            let costs = [cost(size(96), 100.0, 90.0), cost(size(9_996), dearer, longest_us)];
            let gains = [Gain {
                load: size(96),
                workers: 2,
                legs_of_one: 1.0,
                legs_of_all: gain,
                gain,
            }];
            judge(&costs, &gains).iter().map(|promise| promise.kept).collect()
        };
        assert_eq!(judged(114.9, 12_000.0, 1.9), [true, true, true]);
        assert_eq!(judged(115.1, 12_000.1, 1.89), [false, false, false]);
        assert!(judge(&[], &[]).is_empty());
    }
}
