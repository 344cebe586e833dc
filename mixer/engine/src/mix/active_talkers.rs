//! Who is mixed when more talk at once than a conference mixes.
//!
//! What counts is loudness that fades slowly (an envelope), so that nobody loses a place between two
//! syllables; and who is in the mix stays there unless somebody is 3 dB louder. With as many talkers as
//! places, or fewer, nobody asks: the mix is exact.

use serde::{Deserialize, Serialize};

use crate::command::EndpointIndex;
use crate::mix::Frame;
use crate::mix::level::QUIET;

/// Most talkers that a limited conference mixes.
pub const TALKERS_MAX: u8 = 32;

/// Loudness that rises at once, fades by 0.6 dB per tick, and ends at -50 dBov.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Envelope(u32);

impl Envelope {
    /// Takes the mean square of one frame, 0 when there was none.
    pub(crate) fn follow(&mut self, mean_square: u32) {
        let faded = self.0 - self.0 / 8;
        self.0 = if faded < QUIET {
            mean_square
        } else {
            faded.max(mean_square)
        };
    }

    /// What it is worth in a contest; nothing for silence. Who is in the mix has an advantage.
    pub(crate) fn claim(self, mixed: bool) -> u64 {
        u64::from(self.0) << u32::from(mixed)
    }
}

/// The contest of one tick.
#[derive(Debug)]
pub(crate) struct Contest {
    places: usize,
    count: usize,
    /// Highest claim first; of equal ones the first that was entered.
    winners: [(u64, EndpointIndex); TALKERS_MAX as usize],
}

impl Contest {
    /// No contest.
    pub(crate) fn new() -> Self {
        Self {
            places: 0,
            count: 0,
            winners: [(0, EndpointIndex(u32::MAX)); TALKERS_MAX as usize],
        }
    }

    /// Nobody has a place yet.
    pub(crate) fn begin(&mut self, places: u8) {
        self.places = usize::from(places.clamp(1, TALKERS_MAX));
        self.count = 0;
    }

    /// Enters somebody.
    pub(crate) fn enter(&mut self, at: EndpointIndex, claim: u64) {
        let known = self.winners.get(..self.count).unwrap_or_default();
        let place = known.partition_point(|(other, _)| *other >= claim);
        if claim == 0 || place >= self.places {
            return;
        }
        self.count = (self.count + 1).min(self.places);
        if let Some(tail) = self.winners.get_mut(place..self.count)
            && let Some(last) = tail.last_mut()
        {
            *last = (claim, at);
            tail.rotate_right(1);
        }
    }

    /// Whether somebody has a place.
    pub(crate) fn is_won_by(&self, at: EndpointIndex) -> bool {
        let winners = self.winners.get(..self.count).unwrap_or_default();
        winners.iter().any(|(_, winner)| *winner == at)
    }
}

/// Lets a frame begin softly, within 5 ms: its source enters the mix in the middle of a sound.
pub(crate) fn fade_in(frame: &mut Frame) {
    for (n, sample) in (1..).zip(frame.iter_mut().take(FADE_IN)) {
        *sample = scaled(*sample, n, FADE_IN);
    }
}

/// Lets a frame end in silence: its source leaves the mix in the middle of a sound.
pub(crate) fn fade_out(frame: &mut Frame) {
    let length = frame.len();
    for (n, sample) in (1..).zip(frame.iter_mut()) {
        *sample = scaled(*sample, length - n, length);
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a part of the sample")]
fn scaled(sample: i16, part: usize, whole: usize) -> i16 {
    let (part, whole) = (
        i32::try_from(part).unwrap_or(0),
        i32::try_from(whole).unwrap_or(1),
    );
    (i32::from(sample) * part / whole) as i16
}

/// Samples of a soft beginning.
const FADE_IN: usize = 40;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_highest_claims_win_and_earlier_ones_among_equals(
            claims in prop::collection::vec(0..50_u64, 0..100), places in 1..=TALKERS_MAX,
        ) {
            let mut contest = Contest::new();
            contest.begin(places);
            for (at, &claim) in (0..).zip(&claims) {
                contest.enter(EndpointIndex(at), claim);
            }
            let mut sorted: Vec<(u32, u64)> = (0..).zip(claims.iter().copied()).filter(|(_, claim)| *claim > 0).collect();
            sorted.sort_by_key(|(_, claim)| std::cmp::Reverse(*claim));
            sorted.truncate(usize::from(places));
            for (at, _) in (0..).zip(&claims) {
                let expected = sorted.iter().any(|(winner, _)| *winner == at);
                prop_assert_eq!(contest.is_won_by(EndpointIndex(at)), expected);
            }
        }
    }

    #[test]
    fn a_place_is_held_between_syllables_and_lost_to_who_is_3_db_louder() {
        let mut holder = Envelope::default();
        holder.follow(1_000_000);
        for _ in 0..4 {
            holder.follow(0);
        }
        assert!(
            holder.claim(true) > 1_000_000,
            "80 ms of silence are less than the advantage"
        );
        holder.follow(1_000_000);
        assert!(holder.claim(true) > 1_900_000 && holder.claim(true) < 2_100_000);
        for _ in 0..40 {
            holder.follow(0);
        }
        assert_eq!(holder.claim(true), 0, "silence has no claim for ever");
        holder.follow(7);
        assert_eq!(holder.claim(false), 7, "the quietest talker has one");
    }

    #[test]
    fn fades_begin_and_end_where_they_should() {
        let mut frame = [8_000; 160];
        fade_in(&mut frame);
        assert_eq!((frame[0], frame[39], frame[40]), (200, 8_000, 8_000));
        fade_out(&mut frame);
        assert_eq!((frame[159], frame[79]), (0, 4_000));
        let mut low = [i16::MIN; 160];
        fade_out(&mut low);
        assert!(low.windows(2).all(|pair| pair[0] <= pair[1]));
    }
}
