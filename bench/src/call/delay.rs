//! Delay through the mixer: packet in to first changed packet out.
//!
//! In its own phase everybody sends digital silence. In every room one talker at a time sends two
//! packets of its tone; every listener's first packet that is not silent any more gives one sample.
//! Nothing is lost or missing at that moment, so that concealment has no part in it. Talkers take
//! turns, and each has its own random place within the 20 ms.

use hdrhistogram::Histogram;
use mixer_engine::time::Timestamp;
use serde::Serialize;

use crate::seed::Seed;

/// Packets of tone in one marker.
pub const MARKER_PACKETS: u8 = 2;
/// A listener that did not hear a marker after so long missed it, nanoseconds.
const PATIENCE_NS: u64 = 400_000_000;
/// Silence between the end of one marker and the next, nanoseconds: 40 ms of the marker itself, then
/// at least two packets of silence at every listener.
const QUIET_NS: u64 = 100_000_000;

/// Marker state of one room.
#[derive(Debug)]
pub struct Room {
    talkers: Vec<usize>,
    listeners: Vec<usize>,
    turn: usize,
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Quiet { until: Timestamp },
    Asked { talker: usize },
    Sent { at: Timestamp },
}

/// Marker state of one leg.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ear {
    /// Waiting for a marker sent at that time.
    armed: Option<Timestamp>,
    /// Packets of tone this leg still owes.
    pub owes: u8,
}

/// The measurement.
#[derive(Debug)]
pub struct Delays {
    rooms: Vec<Room>,
    /// By leg.
    pub ears: Vec<Ear>,
    histogram: Histogram<u64>,
    markers: u64,
    missed: u64,
    seed: Seed,
}

/// Result, milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct DelayReport {
    /// Markers sent.
    pub markers: u64,
    /// Samples: markers times listeners, as far as heard.
    pub samples: u64,
    /// Markers not heard by a listener within 400 ms.
    pub missed: u64,
    /// Shortest.
    pub min_ms: f64,
    /// Median.
    pub p50_ms: f64,
    /// 90th percentile.
    pub p90_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
    /// Longest.
    pub max_ms: f64,
}

impl Delays {
    /// Nothing measured yet. `rooms` names talkers and all legs of each room.
    ///
    /// # Panics
    /// Never: the histogram's bounds are constant.
    #[must_use]
    pub fn new(legs: usize, rooms: Vec<(Vec<usize>, Vec<usize>)>, seed: Seed) -> Self {
        let rooms = rooms
            .into_iter()
            .filter(|(talkers, listeners)| !talkers.is_empty() && listeners.len() > 1)
            .map(|(talkers, listeners)| Room {
                talkers,
                listeners,
                turn: 0,
                state: State::Quiet { until: Timestamp(0) },
            })
            .collect();
        let histogram = Histogram::new_with_bounds(1, 10_000_000, 3).expect("constant bounds are valid");
        Self {
            rooms,
            ears: vec![Ear::default(); legs],
            histogram,
            markers: 0,
            missed: 0,
            seed,
        }
    }

    /// Whether there is anything to measure.
    #[must_use]
    pub fn possible(&self) -> bool {
        !self.rooms.is_empty()
    }

    /// Starts the phase: every room waits a random time first.
    pub fn begin(&mut self, now: Timestamp) {
        for room in &mut self.rooms {
            room.state = State::Quiet {
                until: Timestamp(now.0 + self.seed.below(QUIET_NS)),
            };
        }
    }

    /// Lets every room whose turn it is ask for its next marker. Call once per slot.
    pub fn turn(&mut self, now: Timestamp) {
        for room in &mut self.rooms {
            match room.state {
                State::Quiet { until } if now >= until => {
                    let talker = room.talkers[room.turn % room.talkers.len()];
                    room.turn += 1;
                    self.ears[talker].owes = MARKER_PACKETS;
                    room.state = State::Asked { talker };
                }
                State::Sent { at } => {
                    let waiting = room.listeners.iter().any(|&leg| self.ears[leg].armed.is_some());
                    let given_up = now.0 >= at.0 + PATIENCE_NS;
                    if waiting && !given_up {
                        continue;
                    }
                    for &leg in &room.listeners {
                        self.missed += u64::from(self.ears[leg].armed.take().is_some());
                    }
                    let pause = QUIET_NS + self.seed.below(40_000_000);
                    room.state = State::Quiet {
                        until: Timestamp(now.0 + pause),
                    };
                }
                State::Quiet { .. } | State::Asked { .. } => {}
            }
        }
    }

    /// Leg `leg` sends a packet now; true when it must carry tone.
    pub fn sending(&mut self, leg: usize, now: Timestamp) -> bool {
        if self.ears[leg].owes == 0 {
            return false;
        }
        self.ears[leg].owes -= 1;
        let Some(room) = self.room_of(leg) else {
            return true;
        };
        if let State::Asked { talker } = room.state
            && talker == leg
        {
            room.state = State::Sent { at: now };
            let listeners = room.listeners.clone();
            for other in listeners.into_iter().filter(|&other| other != leg) {
                self.ears[other].armed = Some(now);
            }
            self.markers += 1;
        }
        true
    }

    fn room_of(&mut self, leg: usize) -> Option<&mut Room> {
        self.rooms.iter_mut().find(|room| room.talkers.contains(&leg))
    }

    /// Leg `leg` received a frame that is not silent.
    pub fn heard(&mut self, leg: usize, at: Timestamp) {
        if let Some(sent) = self.ears[leg].armed.take() {
            let microseconds = at.0.saturating_sub(sent.0) / 1_000;
            self.histogram.saturating_record(microseconds.max(1));
        }
    }

    /// What was measured, if anything.
    #[must_use]
    pub fn report(&self) -> Option<DelayReport> {
        let ms = |microseconds: u64| microseconds as f64 / 1_000.0;
        (self.markers > 0).then(|| DelayReport {
            markers: self.markers,
            samples: self.histogram.len(),
            missed: self.missed,
            min_ms: ms(self.histogram.min()),
            p50_ms: ms(self.histogram.value_at_quantile(0.5)),
            p90_ms: ms(self.histogram.value_at_quantile(0.9)),
            p99_ms: ms(self.histogram.value_at_quantile(0.99)),
            max_ms: ms(self.histogram.max()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// One room of three, each leg sending every 20 ms at its own phase; every listener hears the
    /// marker `delay_ms` after it was sent.
    fn simulate(delay_ms: u64) -> DelayReport {
        let mut delays = Delays::new(3, vec![(vec![0, 1, 2], vec![0, 1, 2])], Seed::new(1));
        let mut sent: Option<(usize, Timestamp)> = None;
        delays.begin(Timestamp(0));
        for ms in 0..10_000 {
            let now = Timestamp(ms * MS);
            if let Some((talker, at)) = sent
                && now.0 >= at.0 + delay_ms * MS
            {
                (0..3)
                    .filter(|&leg| leg != talker)
                    .for_each(|leg| delays.heard(leg, now));
                sent = None;
            }
            delays.turn(now);
            for leg in 0..3 {
                if ms % 20 == 7 * leg as u64 && delays.sending(leg, now) && delays.ears[leg].owes == 1 {
                    sent = Some((leg, now));
                }
            }
        }
        delays.report().unwrap()
    }

    #[test]
    fn the_delay_put_in_comes_out() {
        let report = simulate(17);
        assert!(report.markers > 50, "{report:?}");
        assert!(report.samples >= 2 * (report.markers - 1));
        assert_eq!(report.missed, 0);
        assert!(
            (report.p50_ms - 17.0).abs() < 0.1 && (report.max_ms - 17.0).abs() < 0.1,
            "{report:?}"
        );
    }

    #[test]
    fn a_marker_that_never_arrives_is_missed_not_waited_for() {
        let report = simulate(1_000_000);
        assert_eq!(report.samples, 0);
        assert!(
            report.missed >= 2 * (report.markers - 1) && report.markers > 10,
            "{report:?}"
        );
    }
}
