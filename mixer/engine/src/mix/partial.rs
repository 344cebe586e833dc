//! What one part of a shared conference tells the others of a tick: the sum of those it hears, and what
//! else they need to send the same as if everybody were at one place.

use serde::{Deserialize, Serialize};

use super::heard::Mix;
use super::mix_minus::{self, Sum};
use super::voices::{Ranking, Told};
use crate::time::Slot;

/// Number of a conference that several engines share, the same in all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RoomId(pub u64);

/// Engines that share a conference, each by a number from 0 to 63.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Parts(u64);

impl Parts {
    /// None.
    pub const NONE: Self = Self(0);
    /// Engines at most.
    pub const MAX: usize = 64;

    /// These and one more; a number of 64 or above is no engine's.
    #[must_use]
    pub fn with(self, part: u8) -> Self {
        Self(self.0 | Self::bit(part))
    }

    /// These without one.
    #[must_use]
    pub fn without(self, part: u8) -> Self {
        Self(self.0 & !Self::bit(part))
    }

    /// Whether one is among them.
    #[must_use]
    pub fn contains(self, part: u8) -> bool {
        self.0 & Self::bit(part) != 0
    }

    /// How many there are.
    #[must_use]
    pub fn count(self) -> u32 {
        self.0.count_ones()
    }

    /// All of them, in order.
    pub fn iter(self) -> impl Iterator<Item = u8> {
        (0..64).filter(move |part| self.contains(*part))
    }

    fn bit(part: u8) -> u64 {
        1_u64.checked_shl(u32::from(part)).unwrap_or(0)
    }
}

/// See the module's documentation.
#[derive(Debug, Clone)]
pub struct Partial {
    /// Which conference.
    pub(crate) room: RoomId,
    /// Whose.
    pub(crate) from: u8,
    /// For whom.
    pub(crate) to: Parts,
    /// The slot in which the tick began, the same in all engines.
    pub(crate) slot: Slot,
    /// Signals.
    audible: Told,
    /// All-zero samples in payloads that are not plain silence.
    hollow: Told,
    /// Its loudest.
    ranking: Ranking,
    /// Those it hears, exactly.
    sum: Sum,
}

impl Partial {
    /// Says nothing yet.
    pub(crate) fn empty(room: RoomId, from: u8, to: Parts) -> Self {
        Self {
            room,
            from,
            to,
            slot: Slot(u64::MAX),
            audible: Told::NOBODY,
            hollow: Told::NOBODY,
            ranking: Ranking::new(),
            sum: mix_minus::SILENCE,
        }
    }

    /// For whom it is.
    #[must_use]
    pub fn recipients(&self) -> Parts {
        self.to
    }

    /// Becomes what `mix` holds of the tick that began in `slot`.
    pub(crate) fn tell(&mut self, slot: Slot, mix: &Mix) {
        self.slot = slot;
        self.audible.tell(&mix.voices.audible);
        self.hollow.tell(&mix.voices.hollow);
        self.ranking.clear();
        self.ranking.add_elsewhere(&mix.voices.ranking);
        self.sum = mix.sum;
    }

    /// Adds what it says to `mix`.
    pub(crate) fn add_to(&self, mix: &mut Mix) {
        for (total, part) in mix.sum.iter_mut().zip(&self.sum) {
            *total += part;
        }
        mix.voices.audible.add_told(&self.audible);
        mix.voices.hollow.add_told(&self.hollow);
        mix.voices.ranking.add_elsewhere(&self.ranking);
    }
}
