//! A conference that mixes its loudest talkers only: who they are, and what everybody hears.

#![allow(
    clippy::unwrap_used,
    reason = "a test that is wrong about its numbers shall stop"
)]

mod lab;

use lab::{Lab, decode, noise};
use mixer_engine::command::{Command, ConferenceIndex, EndpointIndex, EndpointSnapshot, Retired};
use mixer_engine::media::Codec;

/// A room that mixes `talkers`, with a phone for each peak, all talking noise, and one that listens.
fn room(talkers: u8, peaks: &[i16]) -> (Lab, usize) {
    let mut lab = Lab::new();
    let room = lab.add_limited(5, Some(talkers));
    for (number, &peak) in peaks.iter().enumerate() {
        let phone = lab.add(room, Codec::L16);
        if peak > 0 {
            lab.say(phone, move |n| noise(number, n, peak));
        }
    }
    let listener = lab.add(room, Codec::L16);
    (lab, listener)
}

fn mixed(lab: &mut Lab) -> Vec<bool> {
    let retired = lab.must(Command::Snapshot {
        from: EndpointIndex(0),
        buffer: Box::new(Vec::with_capacity(64)),
    });
    let Some(Retired::Snapshot(endpoints)) = retired else {
        panic!("a snapshot comes back");
    };
    endpoints.iter().map(|one: &EndpointSnapshot| one.mixed).collect()
}

/// What a phone heard at a tick.
fn heard(lab: &Lab, phone: usize, packet: usize) -> Vec<i32> {
    let payload = &lab.heard(phone)[packet].payload;
    decode(Codec::L16, payload).into_iter().map(i32::from).collect()
}

fn sum(talkers: &[usize], peaks: &[i16], n: u64) -> Vec<i32> {
    let frames: Vec<_> = talkers
        .iter()
        .map(|&talker| noise(talker, n, peaks[talker]))
        .collect();
    (0..160)
        .map(|at| frames.iter().map(|frame| i32::from(frame[at])).sum())
        .collect()
}

fn without(all: &[i32], one: &[i32]) -> Vec<i32> {
    all.iter().zip(one).map(|(all, one)| all - one).collect()
}

#[test]
fn the_loudest_are_heard_and_everybody_else_hears_them() {
    let peaks = [500, 9_000, 600, 8_000, 7_000, 400];
    let (mut lab, listener) = room(3, &peaks);
    lab.run(2_000);
    assert_eq!(mixed(&mut lab), [false, true, false, true, true, false, false]);
    let left_out = lab.counters().frames_left_out;
    lab.run(2_000);
    assert_eq!(
        lab.counters().frames_left_out - left_out,
        300,
        "three of six, at every tick"
    );
    let delay = (0..10)
        .find(|delay| {
            heard(&lab, listener, 150) == sum(&[1, 3, 4], &peaks, lab.heard(listener)[150].slot / 20 - delay)
        })
        .expect("the sum of the three, at some delay");
    for packet in 120..200 {
        let n = lab.heard(listener)[packet].slot / 20 - delay;
        let all = sum(&[1, 3, 4], &peaks, n);
        for phone in [0, 2, 5, listener] {
            assert_eq!(
                heard(&lab, phone, packet),
                all,
                "phone {phone}, which is not mixed"
            );
        }
        for phone in [1, 3, 4] {
            let own = sum(&[phone], &peaks, n);
            assert_eq!(
                heard(&lab, phone, packet),
                without(&all, &own),
                "phone {phone} without itself"
            );
        }
    }
}

#[test]
fn as_many_talkers_as_places_are_mixed_exactly() {
    let peaks = [3_000, 0, 9_000, 0, 40, 0];
    let (mut lab, listener) = room(3, &peaks);
    lab.run(3_000);
    assert_eq!(lab.counters().frames_left_out, 0);
    let slot = lab.heard(listener)[140].slot / 20;
    assert!(
        (0..10).any(|delay| heard(&lab, listener, 140) == sum(&[0, 2, 4], &peaks, slot - delay)),
        "also the quiet one, bit for bit"
    );
}

#[test]
fn a_louder_newcomer_takes_a_place_and_mix_minus_stays_exact_meanwhile() {
    let peaks = [4_000, 3_000, 2_000];
    let (mut lab, listener) = room(2, &peaks);
    lab.run(1_000);
    assert_eq!(mixed(&mut lab), [true, true, false, false]);
    lab.say(2, |n| noise(2, n, 12_000));
    lab.run(200);
    assert_eq!(mixed(&mut lab), [true, false, true, false]);
    lab.run(1_000);
    // Phone 0 is mixed all the time: what the listener hears more than it is its own frame.
    let delay = (0..10)
        .find(|delay| {
            let n = lab.heard(listener)[40].slot / 20 - delay;
            without(&heard(&lab, listener, 40), &heard(&lab, 0, 40)) == sum(&[0], &peaks, n)
        })
        .expect("its frame, at some delay");
    for packet in 40..100 {
        let n = lab.heard(listener)[packet].slot / 20 - delay;
        let own = without(&heard(&lab, listener, packet), &heard(&lab, 0, packet));
        assert_eq!(own, sum(&[0], &peaks, n), "at packet {packet}");
    }
}

#[test]
fn talkers_of_like_loudness_do_not_take_turns() {
    let (mut lab, listener) = room(1, &[]);
    let room = ConferenceIndex(0);
    let (first, second) = (lab.add(room, Codec::L16), lab.add(room, Codec::L16));
    lab.say(first, |n| noise(1, n, 8_000));
    lab.run(500);
    // 1 dB louder every other 100 ms, 1 dB quieter in between.
    lab.say(second, |n| {
        noise(2, n, if n / 5 % 2 == 0 { 9_000 } else { 7_100 })
    });
    lab.run(5_000);
    let before = lab.counters().frames_left_out;
    lab.run(2_000);
    assert_eq!(lab.counters().frames_left_out - before, 100);
    assert_eq!(mixed(&mut lab)[listener + 1..], [true, false]);
    // When the first one falls silent, the other one has the place.
    lab.hush(first);
    lab.run(2_000);
    assert_eq!(mixed(&mut lab)[listener + 1..], [false, true]);
}

#[test]
fn who_is_muted_gives_its_place_up_at_once() {
    let (mut lab, _) = room(1, &[9_000, 5_000]);
    lab.run(1_000);
    assert_eq!(mixed(&mut lab)[..2], [true, false]);
    let at = lab.phones[0].at;
    lab.must(Command::Mute { at, on: true });
    lab.run(40);
    assert_eq!(mixed(&mut lab)[..2], [false, true]);
}
