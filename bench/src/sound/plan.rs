//! Which talker sends which frequency.
//!
//! Every frequency is an integer, so one-second windows separate them exactly. G.711 companding is
//! odd-symmetric: a room's tones produce odd harmonics and odd intermodulation products. Frequencies
//! are chosen so that no tone of the run sits on a low-order product of any room, as long as there is
//! room for that; a tone is then never mistaken for another room's distortion. Frequencies prime to
//! 8,000 spread what remains over the whole band.

use super::RATE;

/// Lowest and highest frequency used, hertz.
const BAND: std::ops::RangeInclusive<u16> = 300..=3_400;

/// Below this a slip of one sample turns the phase by less than 37 degrees.
const SLIP_VISIBLE: u16 = 840;

/// Rooms up to this size have their three-tone products avoided too.
const TRIPLES_UP_TO: usize = 12;

/// Frequencies of a run.
#[derive(Debug, Clone)]
pub struct TonePlan {
    /// By conference and talker, hertz.
    pub hertz: Vec<Vec<u16>>,
    /// Whether some conferences had to share frequencies, so that ghosts between those go unseen.
    pub shared: bool,
}

impl TonePlan {
    /// Frequencies for conferences with so many talkers each.
    #[must_use]
    pub fn new(talkers: &[usize]) -> Self {
        let mut planner = Planner {
            used: vec![false; RATE / 2 + 1],
            product: vec![false; RATE / 2 + 1],
            shared: false,
        };
        let hertz = talkers
            .iter()
            .enumerate()
            .map(|(k, &count)| planner.room(k, count))
            .collect();
        Self {
            hertz,
            shared: planner.shared,
        }
    }
}

struct Planner {
    used: Vec<bool>,
    product: Vec<bool>,
    shared: bool,
}

impl Planner {
    fn room(&mut self, number: usize, talkers: usize) -> Vec<u16> {
        let mut room: Vec<u16> = Vec::with_capacity(talkers);
        let lowest = if talkers <= 3 { SLIP_VISIBLE } else { *BAND.start() };
        let width = (BAND.end() - lowest) as usize;
        for talker in 0..talkers {
            // Each talker looks around the middle of its own part of the band, rooms apart from
            // each other by a stride that is prime to the width.
            let middle =
                (2 * talker + 1) * width / (2 * talkers) + number * 37 % (width / talkers.max(1)).max(1);
            let spacing = u16::try_from(width / talkers / 3).unwrap_or(0);
            let hertz = (0..=5)
                .find_map(|tier| self.search(tier, &room, lowest, middle % width, spacing))
                .unwrap_or(*BAND.start());
            self.take(&mut room, hertz);
        }
        room
    }

    /// Nearest frequency to `middle` that satisfies what `tier` still asks for.
    fn search(&mut self, tier: u8, room: &[u16], lowest: u16, middle: usize, spacing: u16) -> Option<u16> {
        let width = usize::from(BAND.end() - lowest);
        let found = (0..2 * width).find_map(|step| {
            let offset = if step % 2 == 0 {
                middle + step / 2
            } else {
                (middle + width) - step / 2 - 1
            };
            let hertz = lowest + u16::try_from(offset % width).ok()?;
            self.fits(tier, room, hertz, spacing).then_some(hertz)
        });
        self.shared |= tier >= 5 && found.is_some();
        found
    }

    fn fits(&self, tier: u8, room: &[u16], hertz: u16, spacing: u16) -> bool {
        if room.contains(&hertz) {
            return false;
        }
        if tier >= 5 {
            return true;
        }
        if self.used[usize::from(hertz)] {
            return false;
        }
        if tier >= 4 {
            return true;
        }
        if hertz.is_multiple_of(2) || hertz.is_multiple_of(5) || !frame_visible(hertz) {
            return false;
        }
        if tier <= 2 && room.is_empty() && !(matches!(hertz % 50, 19 | 31) && hertz >= SLIP_VISIBLE) {
            // The first talker of a room is the one whose continuity is judged when it is alone.
            return tier == 2;
        }
        if tier <= 1 && room.iter().any(|&mate| mate.abs_diff(hertz) < spacing) {
            return false;
        }
        if tier == 0 {
            let clean = !self.product[usize::from(hertz)];
            return clean && products(room, hertz).all(|p| !self.used[p] && p != usize::from(hertz));
        }
        true
    }

    fn take(&mut self, room: &mut Vec<u16>, hertz: u16) {
        for product in products(room, hertz) {
            self.product[product] = true;
        }
        self.used[usize::from(hertz)] = true;
        room.push(hertz);
    }
}

/// Losing, repeating or skipping one frame turns the phase by at least 36 degrees.
fn frame_visible(hertz: u16) -> bool {
    (5..=45).contains(&(hertz % 50))
}

/// Low-order products that a new tone makes, alone and with its room mates.
fn products(room: &[u16], hertz: u16) -> impl Iterator<Item = usize> {
    let f = i32::from(hertz);
    let mut all: Vec<i32> = vec![3 * f, 5 * f, 7 * f, 9 * f];
    for &mate in room {
        let g = i32::from(mate);
        all.extend([2 * f + g, 2 * f - g, 2 * g + f, 2 * g - f]);
    }
    if room.len() < TRIPLES_UP_TO {
        for (i, &a) in room.iter().enumerate() {
            for &b in &room[i + 1..] {
                let (a, b) = (i32::from(a), i32::from(b));
                all.extend([f + a + b, f + a - b, f - a + b, f - a - b]);
            }
        }
    }
    all.into_iter().map(fold)
}

/// Where a frequency appears after sampling.
fn fold(hertz: i32) -> usize {
    let within = usize::try_from(hertz.unsigned_abs()).unwrap_or(0) % RATE;
    within.min(RATE - within)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(plan: &TonePlan) -> Vec<u16> {
        plan.hertz.iter().flatten().copied().collect()
    }

    #[test]
    fn tones_are_unique_over_all_conferences_as_long_as_the_band_allows() {
        for talkers in [
            vec![3; 20],
            vec![50],
            vec![60],
            vec![10; 30],
            vec![300],
            vec![1; 300],
        ] {
            let plan = TonePlan::new(&talkers);
            let mut tones = all(&plan);
            assert_eq!(tones.len(), talkers.iter().sum::<usize>());
            assert!(tones.iter().all(|hertz| BAND.contains(hertz)));
            tones.sort_unstable();
            tones.dedup();
            assert_eq!(tones.len(), talkers.iter().sum::<usize>());
            assert!(!plan.shared);
        }
        assert!(TonePlan::new(&[1_000; 4]).shared);
    }

    #[test]
    fn in_small_rooms_no_tone_sits_on_a_product() {
        let plan = TonePlan::new(&[3; 20]);
        let tones = all(&plan);
        for room in &plan.hertz {
            for (i, &f) in room.iter().enumerate() {
                for p in products(&room[..i], f) {
                    assert!(!tones.contains(&u16::try_from(p).unwrap()), "{p} in {room:?}");
                }
            }
        }
    }

    #[test]
    fn a_lone_talkers_phase_shows_frames_and_samples_lost() {
        for room in TonePlan::new(&[1; 40]).hertz {
            let hertz = f64::from(room[0]);
            assert!(hertz * 360.0 / 8_000.0 > 36.0, "one sample at {hertz}");
            for frames in 1..=7 {
                let turn = (hertz * f64::from(frames) * 0.02).fract();
                assert!(turn.min(1.0 - turn) * 360.0 > 30.0, "{frames} frames at {hertz}");
            }
        }
    }
}
