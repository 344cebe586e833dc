//! The loads of the ladders.

use serde::Serialize;

/// One load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Load {
    /// Which ladder it belongs to.
    pub ladder: &'static str,
    /// Rooms.
    pub rooms: u32,
    /// Talkers per room.
    pub talkers: u32,
    /// Listeners per room; they send digital silence.
    pub listeners: u32,
}

impl Load {
    pub(super) const fn new(ladder: &'static str, rooms: u32, talkers: u32, listeners: u32) -> Self {
        Self {
            ladder,
            rooms,
            talkers,
            listeners,
        }
    }

    /// Legs of all its rooms.
    #[must_use]
    pub fn legs(&self) -> u32 {
        self.rooms * (self.talkers + self.listeners)
    }
}

/// One room with four talkers, from 100 legs to 10,000.
pub(super) const SIZE: &str = "size";
/// One room with three talkers and few listeners or many.
pub(super) const LISTENERS: &str = "listeners";
/// One room with one talker, whose payload is passed on untouched.
pub(super) const PASSED_THROUGH: &str = "passed through";
/// One room of 100 legs, few of which talk, or all.
pub(super) const TALKERS: &str = "talkers";
/// One room where everybody talks.
pub(super) const ALL_TALK: &str = "all talk";
/// Small rooms where everybody talks, few of them or many.
pub(super) const ROOMS_OF_3: &str = "rooms of 3";
/// Likewise, ten legs each.
pub(super) const ROOMS_OF_10: &str = "rooms of 10";
/// Likewise, a hundred legs each.
pub(super) const ROOMS_OF_100: &str = "rooms of 100";

/// The ladders.
pub(super) const LOADS: &[Load] = &[
    Load::new(SIZE, 1, 4, 96),
    Load::new(SIZE, 1, 4, 296),
    Load::new(SIZE, 1, 4, 996),
    Load::new(SIZE, 1, 4, 2_996),
    Load::new(SIZE, 1, 4, 4_996),
    Load::new(SIZE, 1, 4, 9_996),
    Load::new(LISTENERS, 1, 3, 7),
    Load::new(LISTENERS, 1, 3, 97),
    Load::new(LISTENERS, 1, 3, 297),
    Load::new(LISTENERS, 1, 3, 997),
    Load::new(PASSED_THROUGH, 1, 1, 9),
    Load::new(PASSED_THROUGH, 1, 1, 99),
    Load::new(PASSED_THROUGH, 1, 1, 299),
    Load::new(PASSED_THROUGH, 1, 1, 999),
    Load::new(TALKERS, 1, 2, 98),
    Load::new(TALKERS, 1, 10, 90),
    Load::new(TALKERS, 1, 50, 50),
    Load::new(TALKERS, 1, 100, 0),
    Load::new(ALL_TALK, 1, 10, 0),
    Load::new(ALL_TALK, 1, 100, 0),
    Load::new(ALL_TALK, 1, 300, 0),
    Load::new(ALL_TALK, 1, 1_000, 0),
    Load::new(ROOMS_OF_3, 33, 3, 0),
    Load::new(ROOMS_OF_3, 333, 3, 0),
    Load::new(ROOMS_OF_3, 3_333, 3, 0),
    Load::new(ROOMS_OF_10, 10, 10, 0),
    Load::new(ROOMS_OF_10, 100, 10, 0),
    Load::new(ROOMS_OF_10, 1_000, 10, 0),
    Load::new(ROOMS_OF_100, 1, 100, 0),
    Load::new(ROOMS_OF_100, 10, 100, 0),
    Load::new(ROOMS_OF_100, 100, 100, 0),
];

/// What several workers carry at once: a room that fits a core's cache, many small ones, one that does not fit.
pub(super) const WORKER_LOADS: &[Load] = &[
    Load::new("workers", 1, 3, 297),
    Load::new("workers", 100, 10, 0),
    Load::new("workers", 1, 4, 9_996),
];
