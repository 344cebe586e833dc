//! Several engines at once, one per core: what they carry together against one alone.

use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use core_affinity::CoreId;
use mixer_engine::media::Codec;
use serde::Serialize;

use super::loads::{Load, WORKER_LOADS};
use super::rig::{Rig, now};

/// Alone and together, so many times: the median counts, and a slow moment of the machine hits one round.
pub(super) const ROUNDS: usize = 5;
/// Ticks of a smaller load are repeated until as many legs were served.
const LEGS: u32 = 10_000;
pub(super) const TICKS_PER_SECOND: f64 = 50.0;

/// What workers carry together.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Gain {
    /// The load of each worker.
    #[serde(flatten)]
    pub load: Load,
    /// Workers, a core each.
    pub workers: usize,
    /// Legs that one worker alone carries at 50 ticks a second, packet I/O left out.
    pub legs_of_one: f64,
    /// Legs that all of them carry at once.
    pub legs_of_all: f64,
    /// The second by the first; the median over rounds.
    pub gain: f64,
}

/// Why workers could not be run.
#[derive(Debug, thiserror::Error)]
pub enum WorkersError {
    /// Fewer cores than workers.
    #[error("{workers} workers want a core each; {cores} can be used")]
    Cores {
        /// Wanted.
        workers: usize,
        /// There.
        cores: usize,
    },
    /// A thread could not be pinned.
    #[error("core {0} cannot be used")]
    Pin(usize),
}

/// Measures `workers` workers under `own`, or under the usual loads.
///
/// # Errors
/// When there are too few cores, or one cannot be used.
pub(super) fn measure(
    workers: usize,
    own: Option<Load>,
    codec: Codec,
    ticks: u32,
) -> Result<Vec<Gain>, WorkersError> {
    let mut cores = core_affinity::get_core_ids().unwrap_or_default();
    if cores.len() < workers {
        return Err(WorkersError::Cores {
            workers,
            cores: cores.len(),
        });
    }
    cores.truncate(workers);
    let loads = own.as_ref().map_or(WORKER_LOADS, std::slice::from_ref);
    loads
        .iter()
        .map(|&load| under(load, &cores, codec, ticks))
        .collect()
}

/// What the workers of one measurement share.
struct Together {
    load: Load,
    codec: Codec,
    /// Ticks of one turn.
    ticks: u32,
    workers: usize,
    start: Barrier,
}

/// When a worker began and ended its ticks: in each round alone, then with the others.
type Turns = Vec<(Instant, Instant)>;

fn under(load: Load, cores: &[CoreId], codec: Codec, ticks: u32) -> Result<Gain, WorkersError> {
    let together = &Together {
        load,
        codec,
        ticks: ticks * (LEGS / load.legs().max(1)).max(1),
        workers: cores.len(),
        start: Barrier::new(cores.len()),
    };
    let turns: Result<Vec<Turns>, WorkersError> = thread::scope(|scope| {
        let running: Vec<_> = (0..)
            .zip(cores)
            .map(|(place, &core)| scope.spawn(move || together.work(place, core)))
            .collect();
        let ended = running.into_iter().map(thread::ScopedJoinHandle::join);
        ended
            .map(|turns| turns.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    Ok(together.judge(&turns?))
}

impl Together {
    /// One worker. In every round each works alone once, in turn, then all of them at once; who has no turn
    /// sleeps at the barrier.
    fn work(&self, place: usize, core: CoreId) -> Result<Turns, WorkersError> {
        let pinned = core_affinity::set_for_current(core);
        // Built on its own core, as a worker's memory is.
        let mut rig = Rig::new(self.load, self.codec);
        rig.warm_up();
        let mut turns = Turns::new();
        for _ in 0..ROUNDS {
            for turn in 0..=self.workers {
                self.start.wait();
                if turn == place || turn == self.workers {
                    let begins = now();
                    rig.run(self.ticks);
                    turns.push((begins, now()));
                }
            }
        }
        if pinned {
            Ok(turns)
        } else {
            Err(WorkersError::Pin(core.id))
        }
    }

    fn judge(&self, turns: &[Turns]) -> Gain {
        let rounds = (0..ROUNDS).map(|round| {
            let alone = turns.iter().filter_map(|turns| turns.get(2 * round));
            let alone: f64 = alone.map(|(begins, ends)| (*ends - *begins).as_secs_f64()).sum();
            let all = || turns.iter().filter_map(|turns| turns.get(2 * round + 1));
            let begins = all().map(|turn| turn.0).min();
            let ends = all().map(|turn| turn.1).max();
            let all = begins
                .zip(ends)
                .map_or(f64::INFINITY, |(begins, ends)| (ends - begins).as_secs_f64());
            (alone / self.workers as f64, all)
        });
        let (mut alone, mut all): (Vec<f64>, Vec<f64>) = rounds.clone().unzip();
        let mut gains: Vec<f64> = rounds
            .map(|(alone, all)| self.workers as f64 * alone / all)
            .collect();
        let ticks_of_legs = f64::from(self.ticks) * f64::from(self.load.legs()) / TICKS_PER_SECOND;
        Gain {
            load: self.load,
            workers: self.workers,
            legs_of_one: ticks_of_legs / median(&mut alone),
            legs_of_all: ticks_of_legs * self.workers as f64 / median(&mut all),
            gain: median(&mut gains),
        }
    }
}

pub(super) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// The gains as a table for people.
pub(super) fn table(gains: &[Gain]) -> String {
    let mut text = String::from(
        "               load of each worker (of both, of a shared room)     legs carried\n\
         workers ladder       rooms talkers listeners       by one    by all   gain\n",
    );
    for gain in gains {
        let Load {
            ladder,
            rooms,
            talkers,
            listeners,
        } = gain.load;
        let Gain {
            workers,
            legs_of_one,
            legs_of_all,
            gain,
            ..
        } = gain;
        text.push_str(&format!(
            "{workers:>7} {ladder:<11} {rooms:>6} {talkers:>7} {listeners:>9} {legs_of_one:>12.0} {legs_of_all:>9.0} {gain:>6.2}\n"
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn two_as_fast_as_one_carry_twice_as_much_and_a_late_end_counts() {
        let together = Together {
            load: WORKER_LOADS[0],
            codec: Codec::Pcmu,
            ticks: 100,
            workers: 2,
            start: Barrier::new(2),
        };
        let zero = now();
        let turn = |from: u64, to: u64| {
            (
                zero + Duration::from_millis(from),
                zero + Duration::from_millis(to),
            )
        };
        let even: Vec<Turns> = vec![[turn(0, 10), turn(20, 30)].repeat(ROUNDS); 2];
        let gain = together.judge(&even);
        assert!((gain.gain - 2.0).abs() < 1e-9, "{gain:?}");
        // 100 ticks of 300 legs in 10 ms: 200 times as fast as 50 a second.
        assert!((gain.legs_of_one - 60_000.0).abs() < 1e-6, "{gain:?}");
        assert!((gain.legs_of_all - 120_000.0).abs() < 1e-6, "{gain:?}");
        let uneven = vec![even[0].clone(), [turn(0, 10), turn(20, 40)].repeat(ROUNDS)];
        assert!((together.judge(&uneven).gain - 1.0).abs() < 1e-9);
    }
}
