//! Whether the sender's clock runs apart from the ticks, and where the delay of such a leg is held.
//!
//! The network only ever delays a packet, so the longest wait of some seconds, that of the quickest packet,
//! tells how both clocks stand to each other, whatever else is late or lost.

use serde::{Deserialize, Serialize};

use super::pace::Extent;
use super::{MARGIN_US, TICK_US};

/// Follows the longest waits over minutes. All waits are those at the play position as it stands.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Drift {
    /// Waits of the seconds that are not yet a window, microseconds.
    window: Extent,
    seconds: u8,
    /// Longest wait of the last window.
    longest: Option<i32>,
    /// The longest wait when it was last found to have moved.
    anchor: Option<i32>,
    /// Typical distance from the longest to the shortest wait of a window.
    spread: Option<i32>,
    /// Moves in a row that had the same direction; negative when waits became shorter.
    moves: i8,
    /// Windows since the last move.
    age: u16,
}

impl Drift {
    pub(super) fn new() -> Self {
        Self {
            window: Extent::EMPTY,
            seconds: 0,
            longest: None,
            anchor: None,
            spread: None,
            moves: 0,
            age: 0,
        }
    }

    /// Takes the waits of one second.
    pub(super) fn second(&mut self, waits: Extent) {
        self.window = self.window.with(waits);
        self.seconds += 1;
        if self.seconds < WINDOW_SECONDS {
            return;
        }
        let window = std::mem::replace(&mut self.window, Extent::EMPTY);
        self.seconds = 0;
        if window.is_empty() {
            self.longest = None;
            self.anchor = None;
            return;
        }
        self.longest = Some(window.max);
        let spread = window.max.saturating_sub(window.min);
        // A burst in one window of many is not typical.
        let change = |old: i32| old + (spread - old).clamp(-SPREAD_STEP_US, SPREAD_STEP_US);
        self.spread = Some(self.spread.map_or(spread.min(TICK_US), change));
        self.compare(window.max);
    }

    fn compare(&mut self, longest: i32) {
        let Some(anchor) = self.anchor else {
            self.anchor = Some(longest);
            return;
        };
        let moved = longest.saturating_sub(anchor);
        // Where packets scatter widely, even the quickest of a window do.
        let noise = MOVE_US.max(self.spread.unwrap_or(0) / 8);
        if moved.saturating_abs() < noise {
            self.age += 1;
            if self.age >= AGE_MAX {
                self.age = 0;
                self.moves = 0;
            }
            return;
        }
        self.anchor = Some(longest);
        // No clock runs so far apart in a window: the path became another.
        if moved.saturating_abs() > noise + STEP_US {
            return;
        }
        self.age = 0;
        let same = i32::from(self.moves).signum() == moved.signum();
        let before = if same { self.moves } else { 0 };
        self.moves = before.saturating_add(if moved > 0 { 1 } else { -1 });
    }

    /// Whether the clocks are known to run apart.
    pub(super) fn known(&self) -> bool {
        self.moves.unsigned_abs() >= MOVES_KNOWN
    }

    /// Samples to leave out so that the wait of the quickest packet is where it is held; negative to insert
    /// some. 0 within the band, and while the clocks are not known to run apart. `longest_us` and
    /// `shortest_us` are the waits of the last seconds.
    pub(super) fn repayment(&self, longest_us: i32, shortest_us: i32) -> i16 {
        if !self.known() {
            return 0;
        }
        let level = LEVEL_US + self.spread.unwrap_or(0);
        let above = self
            .longest
            .map_or(longest_us, |longest| longest.max(longest_us))
            .saturating_sub(level);
        // The clock itself moves waits from one end of the band to the other, where they are put back.
        let (most, least) = if self.moves > 0 {
            (BAND_US, -BAND_US)
        } else {
            (BAND_US + 2 * TOLERANCE_US, TOLERANCE_US)
        };
        let due_us = if above > most && shortest_us > LEVEL_US {
            above
        } else if above < least {
            above.saturating_sub(least + BAND_US)
        } else {
            0
        };
        i16::try_from((due_us / 125).clamp(-DUE_MAX, DUE_MAX)).unwrap_or(0)
    }

    /// The play position moved: every wait changes likewise.
    pub(super) fn shift(&mut self, by_us: i32) {
        self.window.shift(by_us);
        for wait in [&mut self.longest, &mut self.anchor].into_iter().flatten() {
            *wait = wait.saturating_add(by_us);
        }
    }

    /// Waits begin anew; what is known of the clock stays.
    pub(super) fn restart(&mut self) {
        *self = Self {
            spread: self.spread,
            moves: self.moves,
            age: self.age,
            ..Self::new()
        };
    }
}

/// The wait that even slow packets have where the delay is held. As the clock runs, packets come to every
/// point between two ticks, and the delay can only be the same at all of them if it is a whole tick and the
/// margin.
pub(super) const LEVEL_US: i32 = TICK_US + MARGIN_US;

/// 250 packets: enough that one of them met an empty network.
const WINDOW_SECONDS: u8 = 5;

/// A change of the longest wait that is no accident.
const MOVE_US: i32 = 2_500;

/// 500 ppm of a window.
const STEP_US: i32 = 2_500;

/// Moves in the same direction that are no accident any more.
const MOVES_KNOWN: u8 = 3;

/// After half an hour without a move, clocks do not run apart (1.4 ppm).
const AGE_MAX: u16 = 360;

/// A window changes the typical spread by so much at most.
const SPREAD_STEP_US: i32 = 1_000;

/// Width of the band in which the delay is held.
const BAND_US: i32 = 3_000;

/// More samples than a buffer holds.
const DUE_MAX: i32 = 12_000;

/// A clock that uses waits up is told of late and followed late by so much.
const TOLERANCE_US: i32 = 2_000;
