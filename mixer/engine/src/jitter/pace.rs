//! When packets come, measured against their ticks.

use serde::{Deserialize, Serialize};

/// Lateness of the recent packets.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct LateHistory {
    /// Newest in bit 0: 1 = late.
    bits: u64,
}

impl LateHistory {
    pub(super) fn record(&mut self, late: bool) {
        self.bits = self.bits << 1 | u64::from(late);
    }

    /// Two late ones in a row, or more than 4 % of the last 50.
    pub(super) fn asks_for_delay(self) -> bool {
        self.bits & 0b11 == 0b11 || (self.bits & WINDOW).count_ones() > LATE_MAX
    }

    pub(super) fn clear(&mut self) {
        self.bits = 0;
    }
}

const WINDOW: u64 = (1 << 50) - 1;
const LATE_MAX: u32 = 2;

/// Smallest and largest slack (from arrival to tick, microseconds) of the last three to four
/// seconds. While packets do not begin with ticks, how far behind its tick's beginning a packet begins
/// is part of it: it is the delay then, and its tick needs the packet so much earlier.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct SlackWindow {
    current: Extent,
    past: [Extent; 3],
    ticks: u8,
}

/// Smallest and largest of some times, microseconds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Extent {
    pub(super) min: i32,
    pub(super) max: i32,
}

impl Extent {
    pub(super) const EMPTY: Self = Self {
        min: i32::MAX,
        max: i32::MIN,
    };

    pub(super) fn is_empty(self) -> bool {
        self.min > self.max
    }

    pub(super) fn with(self, other: Self) -> Self {
        Self {
            min: self.min.min(other.min),
            max: self.max.max(other.max),
        }
    }

    pub(super) fn shift(&mut self, by_us: i32) {
        if !self.is_empty() {
            self.min = self.min.saturating_add(by_us);
            self.max = self.max.saturating_add(by_us);
        }
    }
}

impl SlackWindow {
    pub(super) fn new() -> Self {
        Self {
            current: Extent::EMPTY,
            past: [Extent::EMPTY; 3],
            ticks: 0,
        }
    }

    pub(super) fn record(&mut self, slack_us: i32) {
        self.current = self.current.with(Extent {
            min: slack_us,
            max: slack_us,
        });
    }

    /// To be called every tick. The slacks of a second, when it is over.
    pub(super) fn tick(&mut self) -> Option<Extent> {
        self.ticks += 1;
        if self.ticks < TICKS_PER_EXTENT {
            return None;
        }
        self.ticks = 0;
        let [_, second, third] = self.past;
        let over = std::mem::replace(&mut self.current, Extent::EMPTY);
        self.past = [second, third, over];
        Some(over)
    }

    /// Smallest slack, once three full seconds are known.
    pub(super) fn min(&self) -> Option<i32> {
        if self.past.iter().any(|extent| extent.is_empty()) {
            return None;
        }
        Some(
            self.past
                .iter()
                .fold(self.current, |all, extent| all.with(*extent))
                .min,
        )
    }

    /// Largest slack as far as known; 0 without any.
    pub(super) fn max(&self) -> i32 {
        let all = self
            .past
            .iter()
            .fold(self.current, |all, extent| all.with(*extent));
        if all.is_empty() { 0 } else { all.max }
    }

    /// Whether for three full seconds not even the quickest packet came with time to spare. That is
    /// a slow sender's clock rather than chance: the next late packet is the first of many. Packets are
    /// needed by `offset_us` earlier than their slack says.
    pub(super) fn is_used_up(&self, offset_us: i32) -> bool {
        self.min().is_some() && self.max() - offset_us < SPARE_US
    }

    /// The play position moved: every slack of the window changes likewise.
    pub(super) fn shift(&mut self, by_us: i32) {
        for extent in self.past.iter_mut().chain([&mut self.current]) {
            extent.shift(by_us);
        }
    }
}

/// One second.
const TICKS_PER_EXTENT: u8 = 50;

/// Slack that a sender's clock cannot use up before the window shows it.
const SPARE_US: i32 = 5_000;
