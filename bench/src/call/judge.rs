//! The verdict on what every leg received: who hears whom, how loud, and without a break.

use std::collections::BTreeMap;

use serde::Serialize;

use super::leg::Source;
use super::receiver::Recording;
use crate::sound::continuity::{Continuity, Demodulator, TONES_MAX};
use crate::sound::g711::Law;
use crate::sound::identity::{self, Identity};
use crate::sound::spectrum::Spectrum;
use crate::sound::tone::DITHER_ABOVE;
use crate::sound::{FRAME, RATE};

/// A tone this much below nominal is missing, decibel.
const MISSING_DB: f64 = -3.0;
/// A tone of another conference above this is a ghost, decibel.
const GHOST_DB: f64 = -45.0;
/// The own tone above this is own voice, decibel.
const OWN_DB: f64 = -40.0;
/// Largest level error, decibel.
pub const LEVEL_DB: f64 = 0.1;
/// Quantisation noise of a mix of G.711 tones relative to it (talkers' and the mixer's: about 33 dB
/// below).
const NOISE: f64 = 0.022;

/// One leg as the judge sees it.
#[derive(Debug)]
pub struct Heard<'a> {
    /// Its number.
    pub leg: usize,
    /// Its conference.
    pub conference: usize,
    /// What it said; listeners said nothing.
    pub source: Option<&'a Source>,
    /// What it received.
    pub recording: &'a Recording,
}

/// Findings over all legs.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Verdict {
    /// Pairs of listener and talker that had to be heard.
    pub pairs: u64,
    /// Pairs not heard.
    pub missing: u64,
    /// Tones of other conferences heard.
    pub ghosts: u64,
    /// Legs that heard themselves.
    pub own_voice: u64,
    /// Pairs whose level was off by more than the tolerance.
    pub level_errors: u64,
    /// Largest level error of a pair that was heard, decibel.
    pub level_error_max_db: f64,
    /// Loudest ghost, relative to nominal, decibel.
    pub ghost_max_db: f64,
    /// Loudest own voice, relative to nominal, decibel.
    pub own_max_db: f64,
    /// One-second windows judged.
    pub windows: u64,
    /// Legs without a single whole window.
    pub unjudged: u64,
    /// Tones whose continuity was judged (listeners times talkers, rooms of up to five talkers).
    pub continuity_judged: u64,
    /// Holes in them.
    pub holes: u64,
    /// Phase jumps in them.
    pub phase_jumps: u64,
    /// Other disturbances in them.
    pub disturbances: u64,
    /// Share of time spent in holes, percent of the worst listener.
    pub hole_percent_max: f64,
    /// Frames compared byte by byte (rooms with one talker).
    pub identity_frames: u64,
    /// Frames that were not byte-identical.
    pub identity_different: u64,
    /// Times a payload stream went on at another place.
    pub identity_slips: u64,
    /// Findings one by one, the first of them.
    pub details: Vec<String>,
}

/// Details kept at most.
const DETAILS_MAX: usize = 40;

/// Quantisation noise in a one-second bin of a room of so many talkers, relative to one of them: five
/// standard deviations. (Noise grows with the sum of all talkers and spreads over 8,000 bins.)
fn noise(talkers: usize) -> f64 {
    5.0 * NOISE * (talkers as f64).sqrt() / (RATE as f64).sqrt()
}

/// Lowest level that can be told from quantisation noise, decibel, with 3 dB to spare.
fn noise_floor_db(talkers: usize) -> f64 {
    20.0 * noise(talkers).log10() + 3.0
}

/// What noise may add to the level of one tone in one second; in small rooms it is negligible.
fn noise_level_db(talkers: usize) -> f64 {
    if talkers > DITHER_ABOVE {
        20.0 * (1.0 + noise(talkers)).log10()
    } else {
        0.0
    }
}

impl Verdict {
    fn note(&mut self, text: impl FnOnce() -> String) {
        if self.details.len() < DETAILS_MAX {
            self.details.push(text());
        }
    }

    /// Reasons to fail, in words; empty when all is well.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        let counted = [
            (self.missing, "pairs not heard"),
            (self.ghosts, "ghosts from another conference"),
            (self.own_voice, "legs hear their own voice"),
            (self.level_errors, "pairs off in level"),
            (self.unjudged, "legs without one clean second"),
            (self.holes, "holes"),
            (self.phase_jumps, "phase jumps"),
            (self.disturbances, "disturbances"),
            (self.identity_different, "frames not byte-identical"),
        ];
        counted
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect()
    }
}

/// Judges all legs.
#[must_use]
pub fn judge(law: Law, legs: &[Heard<'_>]) -> Verdict {
    let mut verdict = Verdict {
        ghost_max_db: f64::NEG_INFINITY,
        own_max_db: f64::NEG_INFINITY,
        ..Verdict::default()
    };
    let mut rooms: BTreeMap<usize, Vec<&Heard<'_>>> = BTreeMap::new();
    for leg in legs {
        rooms.entry(leg.conference).or_default().push(leg);
    }
    let largest = rooms
        .values()
        .map(|room| talkers(room).count())
        .max()
        .unwrap_or(0);
    let mut spectrum = Spectrum::default();
    let mut demodulators = BTreeMap::new();
    for listener in legs {
        let room = &rooms[&listener.conference];
        let samples: Vec<f32> = decode(law, listener.recording);
        verdict.matrix(listener, legs, largest, &samples, &mut spectrum);
        verdict.continuity(listener, room, &samples, &mut demodulators);
        verdict.identity(listener, room);
    }
    verdict
}

fn talkers<'a, 'b>(room: &'b [&'b Heard<'a>]) -> impl Iterator<Item = &'b &'b Heard<'a>> {
    room.iter().filter(|leg| leg.source.is_some())
}

fn decode(law: Law, recording: &Recording) -> Vec<f32> {
    let frames = recording.payload.chunks_exact(FRAME).zip(&recording.present);
    frames
        .flat_map(|(frame, &present)| {
            frame
                .iter()
                .map(move |&code| if present { f32::from(law.decode(code)) } else { 0.0 })
        })
        .collect()
}

/// Amplitude at one frequency over all whole seconds without a missing frame.
#[derive(Debug, Clone, Copy)]
struct Range {
    low: f32,
    high: f32,
    mean: f32,
}

fn ranges(recording: &Recording, samples: &[f32], spectrum: &mut Spectrum) -> (u64, Vec<Range>) {
    let mut windows = 0;
    let mut ranges = vec![
        Range {
            low: f32::INFINITY,
            high: 0.0,
            mean: 0.0
        };
        RATE / 2
    ];
    let seconds = samples
        .chunks_exact(RATE)
        .zip(recording.present.chunks_exact(RATE / FRAME));
    for (second, present) in seconds {
        if present.iter().any(|&present| !present) {
            continue;
        }
        windows += 1;
        let amplitudes = spectrum.amplitudes(second.iter().copied());
        for (range, amplitude) in ranges.iter_mut().zip(amplitudes) {
            range.low = range.low.min(amplitude);
            range.high = range.high.max(amplitude);
            range.mean += (amplitude - range.mean) / windows as f32;
        }
    }
    (windows, ranges)
}

fn decibel(amplitude: f32, nominal: f64) -> f64 {
    20.0 * (f64::from(amplitude).max(1e-6) / nominal).log10()
}

impl Verdict {
    fn matrix(
        &mut self,
        listener: &Heard<'_>,
        legs: &[Heard<'_>],
        largest: usize,
        samples: &[f32],
        spectrum: &mut Spectrum,
    ) {
        let (windows, ranges) = ranges(listener.recording, samples, spectrum);
        self.windows += windows;
        if windows == 0 {
            self.unjudged += 1;
            self.note(|| format!("leg {}: not one second without a missing packet", listener.leg));
            return;
        }
        let room: Vec<u16> = legs
            .iter()
            .filter(|leg| leg.conference == listener.conference)
            .filter_map(|leg| Some(leg.source?.tone?.0))
            .collect();
        for talker in legs {
            let Some((hertz, nominal)) = talker.source.and_then(|source| source.tone) else {
                continue;
            };
            let range = ranges[usize::from(hertz)];
            let high = decibel(range.high, nominal);
            if talker.leg == listener.leg {
                self.own(listener, high, largest);
            } else if talker.conference == listener.conference {
                self.pair(listener, talker, range, nominal, room.len());
            } else if !room.contains(&hertz) {
                self.ghost(listener, talker, high, largest);
            }
        }
    }

    fn own(&mut self, listener: &Heard<'_>, high: f64, largest: usize) {
        self.own_max_db = self.own_max_db.max(high);
        if high > OWN_DB.max(noise_floor_db(largest)) {
            self.own_voice += 1;
            self.note(|| format!("leg {} hears itself at {high:.1} dB", listener.leg));
        }
    }

    fn ghost(&mut self, listener: &Heard<'_>, talker: &Heard<'_>, high: f64, largest: usize) {
        self.ghost_max_db = self.ghost_max_db.max(high);
        if high > GHOST_DB.max(noise_floor_db(largest)) {
            self.ghosts += 1;
            let (leg, conference) = (talker.leg, talker.conference);
            self.note(|| {
                format!(
                    "leg {} hears leg {leg} of conference {conference} at {high:.1} dB",
                    listener.leg
                )
            });
        }
    }

    fn pair(&mut self, listener: &Heard<'_>, talker: &Heard<'_>, range: Range, nominal: f64, talkers: usize) {
        self.pairs += 1;
        let [low, mean, high] = [range.low, range.mean, range.high].map(|x| decibel(x, nominal));
        if low < MISSING_DB {
            self.missing += 1;
            self.note(|| {
                format!(
                    "leg {} hears leg {} only at {low:.1} dB",
                    listener.leg, talker.leg
                )
            });
            return;
        }
        // Every second counts, less what noise may have added to it; so does the mean of all.
        let worst = low.abs().max(high.abs()) - noise_level_db(talkers);
        let error = mean.abs().max(worst);
        self.level_error_max_db = self.level_error_max_db.max(error);
        if error > LEVEL_DB {
            self.level_errors += 1;
            self.note(|| {
                format!(
                    "leg {} hears leg {} at {low:+.2} to {high:+.2} dB",
                    listener.leg, talker.leg
                )
            });
        }
    }

    fn continuity(
        &mut self,
        listener: &Heard<'_>,
        room: &[&Heard<'_>],
        samples: &[f32],
        demodulators: &mut BTreeMap<Vec<u16>, Option<Demodulator>>,
    ) {
        let others = || talkers(room).filter(|talker| talker.leg != listener.leg);
        let heard: Vec<(usize, (u16, f64))> = others()
            .filter_map(|talker| Some((talker.leg, talker.source?.tone?)))
            .collect();
        // Speech beside the tones would count as disturbance of every tone.
        if heard.is_empty() || heard.len() > TONES_MAX || others().count() != heard.len() {
            return;
        }
        let hertz: Vec<u16> = heard.iter().map(|(_, tone)| tone.0).collect();
        let nominal: Vec<f64> = heard.iter().map(|(_, tone)| tone.1).collect();
        let demodulator = demodulators
            .entry(hertz.clone())
            .or_insert_with(|| Demodulator::new(&hertz));
        let Some(demodulator) = demodulator else { return };
        let found = demodulator.judge(samples, &nominal);
        for ((talker, _), found) in heard.iter().zip(found) {
            self.add_continuity(listener.leg, *talker, found, samples.len());
        }
    }

    fn add_continuity(&mut self, listener: usize, talker: usize, found: Continuity, samples: usize) {
        self.continuity_judged += 1;
        self.holes += u64::from(found.holes);
        self.phase_jumps += u64::from(found.jumps);
        self.disturbances += u64::from(found.disturbances);
        let blocks = (samples / crate::sound::continuity::HOP).max(1);
        let share = 100.0 * f64::from(found.hole_blocks) / blocks as f64;
        self.hole_percent_max = self.hole_percent_max.max(share);
        if !found.is_perfect() {
            self.note(|| {
                let Continuity {
                    holes,
                    jumps,
                    disturbances,
                    ..
                } = found;
                format!(
                    "leg {listener} hears leg {talker} with {holes} holes, {jumps} phase jumps, \
                     {disturbances} disturbances"
                )
            });
        }
    }

    fn identity(&mut self, listener: &Heard<'_>, room: &[&Heard<'_>]) {
        let mut talking = talkers(room);
        let (Some(talker), None) = (talking.next(), talking.next()) else {
            return;
        };
        if talker.leg == listener.leg {
            return;
        }
        let Some(source) = talker.source else { return };
        let Identity {
            frames,
            different,
            slips,
        } = identity::compare(&source.bytes, &listener.recording.frames());
        self.identity_frames += u64::from(frames);
        self.identity_different += u64::from(different);
        self.identity_slips += u64::from(slips);
        if different > 0 {
            self.note(|| {
                format!(
                    "leg {}: {different} of {frames} frames differ, {slips} slips",
                    listener.leg
                )
            });
        }
    }
}

#[cfg(test)]
mod tests;
