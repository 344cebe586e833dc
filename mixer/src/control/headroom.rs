//! Whether one worker can carry one more endpoint, from what it measures about itself.
//!
//! Pure: fed with the counters a worker publishes, about twice a second; their own time is all the
//! time there is. Load is the share of time the worker spends in turns. What one endpoint costs is
//! learnt from load and frames of the same intervals, so that endpoints which joined a moment ago
//! and are not heard yet count with what they will cost. Admission closes when measured or foreseen
//! load reaches a mark and opens again below a lower one. Work that the turns do not see (interrupts,
//! other threads on the core, a hypervisor) shows as slots that the worker overslept: they lower both
//! marks.
//!
//! Loads are parts per million of one core.

use std::time::Duration;

use crate::config::AdmissionConfig;
use crate::worker::stats::StatsSnapshot;

/// One core.
const CORE_PPM: u64 = 1_000_000;
/// What an endpoint is taken to cost before anything is known: 2,000 fill a core.
const PRIOR_PPM: u64 = 500;
/// Legs, for the length of one measurement, that the prior weighs as much as.
const PRIOR_LEGS: u64 = 20;
/// Below so many legs a worker's idle load would pass for theirs.
const LEARN_FROM_LEGS: u64 = 100;
/// Of what was learnt before, one part in so many is forgotten with every measurement.
const FORGET: u64 = 8;
/// Load rises by half of the difference with every measurement and falls by a quarter.
const RISE: u64 = 2;
const FALL: u64 = 4;
/// For every overslept slot in a hundred the marks are lowered by so many hundredths, to one half at
/// most: below that lateness is none of our making, and refusing calls would not mend it.
const LATENESS_WEIGHT: u64 = 4;
/// The share of overslept slots approaches what was measured by one part in so many.
const LATENESS_INERTIA: u64 = 8;
/// From one overslept slot in a hundred on, refusals are put down to lateness.
const LATE_PPM: u64 = 10_000;
/// Shorter intervals are not judged.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Length of a frame.
const FRAME_NS: u64 = 20_000_000;

/// Between which loads admission closes and opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Marks {
    close: u64,
    reopen: u64,
}

impl Marks {
    /// As configured.
    pub(crate) fn new(config: &AdmissionConfig) -> Self {
        let ppm = |percent: u32| u64::from(percent) * (CORE_PPM / 100);
        if config.busy_percent >= 100 {
            // Nothing that can be foreseen is as much: admission is off.
            return Self {
                close: u64::MAX,
                reopen: u64::MAX,
            };
        }
        Self {
            close: ppm(config.busy_percent),
            reopen: ppm(config.reopen_percent),
        }
    }
}

/// What a worker had counted at one time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    busy_ns: u64,
    alive_ns: u64,
    slots: u64,
    overslept: u64,
    sent: u64,
    frames: u64,
    endpoints: u32,
}

impl Reading {
    /// From a worker's counters; `endpoints` are those that control knows there, those on their way
    /// included.
    pub(crate) fn new(stats: &StatsSnapshot, endpoints: u32) -> Self {
        Self {
            busy_ns: stats.worker.busy_ns,
            alive_ns: stats.worker.alive_ns,
            slots: stats.worker.slots,
            overslept: stats.worker.slots_overslept,
            sent: stats.engine.rtp_sent,
            frames: stats.engine.frames.iter().sum(),
            endpoints,
        }
    }
}

/// Why an endpoint is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// The mark is reached.
    Busy,
    /// The lowered mark is reached: the worker comes late to its slots.
    Late,
}

impl Full {
    /// Both reasons.
    pub(crate) const ALL: [Self; 2] = [Self::Busy, Self::Late];

    /// Metric label.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Late => "late",
        }
    }
}

/// What metrics and the log tell of a worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct HeadroomFigures {
    /// Load, measured or foreseen, whichever is higher; parts per million of a core.
    pub(crate) load_ppm: u64,
    /// Load at which admission closes, likewise.
    pub(crate) mark_ppm: u64,
    /// What one endpoint is taken to cost, likewise.
    pub(crate) endpoint_ppm: u64,
    /// Whether endpoints are admitted.
    pub(crate) open: bool,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Headroom {
    marks: Marks,
    last: Option<Reading>,
    /// Smoothed.
    load: u64,
    /// Fading sums over the measurements from which the cost is learnt: load, and thousandths of
    /// legs carried.
    learnt_load: u64,
    learnt_legs: u64,
    /// Smoothed share of slots that were overslept, parts per million.
    overslept: u64,
    open: bool,
}

impl Headroom {
    /// Open, and knowing nothing.
    pub(crate) fn new(marks: Marks) -> Self {
        Self {
            marks,
            last: None,
            load: 0,
            learnt_load: 0,
            learnt_legs: 0,
            overslept: 0,
            open: true,
        }
    }

    /// Takes a reading, about half a second after the last.
    pub(crate) fn measure(&mut self, now: Reading) {
        let Some(last) = self.last else {
            self.last = Some(now);
            return;
        };
        let alive_ns = now.alive_ns.saturating_sub(last.alive_ns);
        if u128::from(alive_ns) < INTERVAL_MIN.as_nanos() {
            return;
        }
        self.last = Some(now);
        let busy_ns = now.busy_ns.saturating_sub(last.busy_ns);
        let load = (busy_ns.saturating_mul(CORE_PPM) / alive_ns).min(CORE_PPM);
        self.load = if load > self.load {
            self.load + (load - self.load).div_ceil(RISE)
        } else {
            self.load - (self.load - load).div_ceil(FALL)
        };
        self.learn(load, legs_carried(&last, &now, alive_ns));
        self.note_lateness(&last, &now);
        let foreseen = self.foreseen(now.endpoints);
        if foreseen >= self.lowered(self.marks.close) {
            self.open = false;
        } else if foreseen < self.lowered(self.marks.reopen) {
            self.open = true;
        }
    }

    /// Whether one more endpoint than the `endpoints` there are is admitted.
    ///
    /// # Errors
    /// Why not; admission is closed from then on until enough room was measured.
    pub(crate) fn admit(&mut self, endpoints: u32) -> Result<(), Full> {
        self.open = self.has_room(endpoints);
        let late = self.overslept >= LATE_PPM && self.foreseen(endpoints) < self.marks.close;
        if self.open {
            Ok(())
        } else if late {
            Err(Full::Late)
        } else {
            Err(Full::Busy)
        }
    }

    /// As [`Self::admit`], but only asking.
    pub(crate) fn has_room(&self, endpoints: u32) -> bool {
        self.open && self.foreseen(endpoints.saturating_add(1)) <= self.lowered(self.marks.close)
    }

    /// For metrics and the log.
    pub(crate) fn figures(&self, endpoints: u32) -> HeadroomFigures {
        HeadroomFigures {
            load_ppm: self.foreseen(endpoints),
            mark_ppm: self.lowered(self.marks.close).min(CORE_PPM),
            endpoint_ppm: self.cost(1),
            open: self.open,
        }
    }

    fn learn(&mut self, load: u64, legs_milli: u64) {
        if legs_milli < LEARN_FROM_LEGS * 1_000 {
            return;
        }
        self.learnt_load = self.learnt_load - self.learnt_load / FORGET + load;
        self.learnt_legs = self.learnt_legs - self.learnt_legs / FORGET + legs_milli;
    }

    fn note_lateness(&mut self, last: &Reading, now: &Reading) {
        let slots = now.slots.saturating_sub(last.slots).max(1);
        let overslept = now.overslept.saturating_sub(last.overslept).min(slots);
        let share = overslept * CORE_PPM / slots;
        self.overslept = (self.overslept * (LATENESS_INERTIA - 1) + share) / LATENESS_INERTIA;
    }

    /// Load with so many endpoints, once all of them are heard.
    fn foreseen(&self, endpoints: u32) -> u64 {
        self.load.max(self.cost(u64::from(endpoints)))
    }

    fn cost(&self, endpoints: u64) -> u64 {
        let load = PRIOR_PPM * PRIOR_LEGS + self.learnt_load;
        let legs_milli = PRIOR_LEGS * 1_000 + self.learnt_legs;
        (endpoints * load).saturating_mul(1_000) / legs_milli
    }

    /// A mark as far as lateness leaves it.
    fn lowered(&self, mark: u64) -> u64 {
        let taken = (self.overslept * LATENESS_WEIGHT).min(CORE_PPM / 2);
        mark - mark / CORE_PPM * taken - mark % CORE_PPM * taken / CORE_PPM
    }
}

/// Thousandths of legs that were served in an interval: by frames owed to the mix and packets sent,
/// whichever tells of more. A leg that sends packets of 10 ms counts once.
fn legs_carried(last: &Reading, now: &Reading, alive_ns: u64) -> u64 {
    let sent = now.sent.saturating_sub(last.sent);
    let frames = now.frames.saturating_sub(last.frames);
    let thousandths = u128::from(sent.max(frames)) * u128::from(FRAME_NS) * 1_000 / u128::from(alive_ns);
    let most = u64::from(last.endpoints.max(now.endpoints)) * 1_000;
    u64::try_from(thousandths).unwrap_or(u64::MAX).min(most)
}

#[cfg(test)]
mod tests;
