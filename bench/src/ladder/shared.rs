//! One room on two engines, one per core, against the same room on one.

use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::Duration;

use core_affinity::CoreId;
use mixer_engine::media::Codec;

use super::loads::Load;
use super::rig::{Other, Rig, now};
use super::workers::{Gain, ROUNDS, TICKS_PER_SECOND, WorkersError, median};

/// Rooms of which each engine gets half.
const ROOMS: &[Load] = &[Load::new(NAME, 1, 4, 2_996), Load::new(NAME, 1, 4, 9_996)];

/// The ladder.
pub(super) const NAME: &str = "shared room";

/// Measures rooms on one engine and on two.
///
/// # Errors
/// When there are fewer than two cores, or one cannot be used.
pub(super) fn measure(codec: Codec, ticks: u32) -> Result<Vec<Gain>, WorkersError> {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let [first, second, ..] = *cores.as_slice() else {
        return Err(WorkersError::Cores {
            workers: 2,
            cores: cores.len(),
        });
    };
    ROOMS
        .iter()
        .map(|&load| on_one_and_two(load, [first, second], codec, ticks))
        .collect()
}

/// What both threads of a measurement share.
struct Both {
    load: Load,
    codec: Codec,
    ticks: u32,
    start: Barrier,
    end: Barrier,
    /// How long the room took: in each round on one engine, then on both.
    took: Mutex<Vec<Duration>>,
}

fn on_one_and_two(load: Load, cores: [CoreId; 2], codec: Codec, ticks: u32) -> Result<Gain, WorkersError> {
    let both = &Both {
        load,
        codec,
        ticks,
        start: Barrier::new(2),
        end: Barrier::new(2),
        took: Mutex::default(),
    };
    let (to_second, to_first) = Other::pair();
    thread::scope(|scope| {
        let threads = [
            scope.spawn(move || both.work(0, cores[0], to_second)),
            scope.spawn(move || both.work(1, cores[1], to_first)),
        ];
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(worked) => worked,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    let took = std::mem::take(
        &mut *both
            .took
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner),
    );
    Ok(gain(load, ticks, &took))
}

impl Both {
    /// One of the engines; the first one's thread also runs the whole room alone, while the other waits.
    fn work(&self, own: u8, core: CoreId, other: Other) -> Result<(), WorkersError> {
        let pinned = core_affinity::set_for_current(core);
        let mut alone = (own == 0).then(|| Rig::new(self.load, self.codec));
        let half = Load {
            talkers: self.load.talkers / 2,
            listeners: self.load.listeners / 2,
            ..self.load
        };
        let mut part = Rig::new(half, self.codec);
        part.share(own, other);
        alone.iter_mut().for_each(Rig::warm_up);
        part.warm_up();
        for _ in 0..ROUNDS {
            if let Some(alone) = &mut alone {
                self.timed(|| alone.run(self.ticks));
            }
            self.start.wait();
            let begins = now();
            part.run(self.ticks);
            self.end.wait();
            if own == 0 {
                self.note(now() - begins);
            }
        }
        assert!(
            part.missed_nothing() && part.sent_everybody(),
            "the room was whole at every tick"
        );
        if pinned {
            Ok(())
        } else {
            Err(WorkersError::Pin(core.id))
        }
    }

    fn timed(&self, work: impl FnOnce()) {
        let begins = now();
        work();
        self.note(now() - begins);
    }

    fn note(&self, took: Duration) {
        let took_all = &mut *self
            .took
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        took_all.push(took);
    }
}

fn gain(load: Load, ticks: u32, took: &[Duration]) -> Gain {
    let rounds = || {
        took.chunks_exact(2)
            .map(|round| (round[0].as_secs_f64(), round[1].as_secs_f64()))
    };
    let (mut alone, mut both): (Vec<f64>, Vec<f64>) = rounds().unzip();
    let mut gains: Vec<f64> = rounds().map(|(alone, both)| alone / both).collect();
    let ticks_of_legs = f64::from(ticks) * f64::from(load.legs()) / TICKS_PER_SECOND;
    Gain {
        load,
        workers: 2,
        legs_of_one: ticks_of_legs / median(&mut alone),
        legs_of_all: ticks_of_legs / median(&mut both),
        gain: median(&mut gains),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_the_time_is_twice_the_legs() {
        let took = [30, 10, 20, 10, 20, 10].map(Duration::from_millis);
        let gain = gain(ROOMS[0], 100, &took);
        assert!((gain.gain - 2.0).abs() < 1e-9, "{gain:?}");
        assert!(
            (gain.legs_of_all / gain.legs_of_one - 2.0).abs() < 1e-9,
            "{gain:?}"
        );
    }
}
