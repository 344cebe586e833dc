use std::sync::Arc;

use super::*;
use crate::seed::Seed;
use crate::sound::plan::TonePlan;

const SECONDS: usize = 6;

struct World {
    law: Law,
    sources: Vec<Option<Source>>,
    conference: Vec<usize>,
    streams: Vec<Vec<i16>>,
}

/// A perfect mixer: everybody hears the clamped sum of the others, every stream at its own offset.
fn world(law: Law, rooms: &[(usize, usize)]) -> World {
    let mut seed = Seed::new(5);
    let talkers: Vec<usize> = rooms.iter().map(|room| room.1).collect();
    let plan = TonePlan::new(&talkers);
    let (mut sources, mut conference, mut streams) = (Vec::new(), Vec::new(), Vec::new());
    for (k, &(legs, talkers)) in rooms.iter().enumerate() {
        for leg in 0..legs {
            conference.push(k);
            let source = (leg < talkers).then(|| {
                let phase = seed.fraction() * std::f64::consts::TAU;
                let mut source = Source::tone(law, plan.hertz[k][leg], talkers, phase, &mut seed);
                // This mixer decodes and encodes: mu-law's negative zero does not survive that.
                let codes = source.bytes.iter().map(|&code| law.encode(law.decode(code)));
                source.bytes = Arc::new(codes.collect());
                source
            });
            let offset = usize::from(seed.half()) % RATE;
            streams.push(source.as_ref().map_or_else(
                || vec![0; SECONDS * RATE],
                |source| {
                    let bytes = source.bytes.iter().copied().cycle().skip(offset);
                    bytes.take(SECONDS * RATE).map(|code| law.decode(code)).collect()
                },
            ));
            sources.push(source);
        }
    }
    World {
        law,
        sources,
        conference,
        streams,
    }
}

impl World {
    fn mix(&self, listener: usize, hears: impl Fn(usize, usize) -> bool) -> Recording {
        let mut sum = vec![0i32; SECONDS * RATE];
        for (leg, stream) in self.streams.iter().enumerate() {
            if hears(listener, leg) {
                sum.iter_mut().zip(stream).for_each(|(s, &x)| *s += i32::from(x));
            }
        }
        let clamp = |s: i32| i16::try_from(s.clamp(-32_768, 32_767)).unwrap();
        let payload: Vec<u8> = sum.into_iter().map(|s| self.law.encode(clamp(s))).collect();
        let present = vec![true; payload.len() / FRAME];
        Recording {
            payload,
            present,
            ..Recording::default()
        }
    }

    fn perfect(&self) -> Vec<Recording> {
        let hears = |a: usize, b: usize| a != b && self.conference[a] == self.conference[b];
        (0..self.streams.len()).map(|leg| self.mix(leg, hears)).collect()
    }

    fn judge(&self, recordings: &[Recording]) -> Verdict {
        let legs: Vec<Heard<'_>> = recordings
            .iter()
            .enumerate()
            .map(|(leg, recording)| Heard {
                leg,
                conference: self.conference[leg],
                source: self.sources[leg].as_ref(),
                recording,
            })
            .collect();
        judge(self.law, &legs)
    }
}

#[test]
fn a_perfect_mixer_passes_in_rooms_of_every_kind() {
    let shapes: [&[(usize, usize)]; 5] = [&[(3, 3); 20], &[(50, 50)], &[(60, 1)], &[(40, 3)], &[(25, 25); 4]];
    for law in [Law::Pcmu, Law::Pcma] {
        for shape in shapes {
            let world = world(law, shape);
            let verdict = world.judge(&world.perfect());
            assert_eq!(
                verdict.reasons(),
                Vec::<String>::new(),
                "{law:?} {shape:?} {:?}",
                verdict.details
            );
            let pairs: usize = shape.iter().map(|&(legs, talkers)| talkers * (legs - 1)).sum();
            assert_eq!(verdict.pairs, pairs as u64);
            assert!(
                verdict.level_error_max_db < 0.08,
                "{shape:?} {}",
                verdict.level_error_max_db
            );
        }
    }
}

#[test]
fn one_leg_not_heard_by_one_listener_is_one_missing_pair() {
    let world = world(Law::Pcmu, &[(3, 3); 4]);
    let mut recordings = world.perfect();
    recordings[4] = world.mix(4, |a, b| {
        a != b && world.conference[a] == world.conference[b] && b != 5
    });
    assert_eq!(world.judge(&recordings).missing, 1);
}

#[test]
fn own_voice_and_ghosts_are_told_apart() {
    let world = world(Law::Pcmu, &[(3, 3); 4]);
    let mut recordings = world.perfect();
    recordings[0] = world.mix(0, |a, b| world.conference[a] == world.conference[b]);
    recordings[7] = world.mix(7, |a, b| {
        a != b && (world.conference[a] == world.conference[b] || world.conference[b] == 0)
    });
    let verdict = world.judge(&recordings);
    assert_eq!(
        (verdict.own_voice, verdict.ghosts, verdict.missing),
        (1, 3, 0),
        "{:?}",
        verdict.details
    );
}

#[test]
fn a_fifth_of_a_decibel_is_a_level_error() {
    let mut world = world(Law::Pcmu, &[(3, 3); 2]);
    world.streams[1]
        .iter_mut()
        .for_each(|x| *x = i16::try_from(i32::from(*x) * 977 / 1_000).unwrap());
    let verdict = world.judge(&world.perfect());
    assert_eq!(verdict.level_errors, 2, "{:?}", verdict.details);
    assert!((verdict.level_error_max_db - 0.2).abs() < 0.05);
}

#[test]
fn one_lost_frame_of_a_lone_talker_is_found_three_ways() {
    let world = world(Law::Pcmu, &[(8, 1)]);
    let mut recordings = world.perfect();
    recordings[3].payload[60 * FRAME..61 * FRAME].fill(0xff);
    let verdict = world.judge(&recordings);
    assert_eq!(
        (verdict.holes, verdict.phase_jumps, verdict.identity_different),
        (1, 0, 1)
    );
    assert_eq!(verdict.continuity_judged, 7);
}

#[test]
fn a_leg_that_received_nothing_is_not_passed_over() {
    let world = world(Law::Pcmu, &[(3, 3)]);
    let mut recordings = world.perfect();
    recordings[2] = Recording::default();
    let verdict = world.judge(&recordings);
    assert_eq!(verdict.unjudged, 1);
    assert!(!verdict.reasons().is_empty());
}
