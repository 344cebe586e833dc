//! What every leg hears, sample by sample, against an oracle that adds up what the others sent.

#![allow(
    clippy::unwrap_used,
    reason = "a test that is wrong about its numbers shall stop"
)]

mod lab;

use lab::{Lab, Noise, amplitude, decode, encode, noise, tone};
use mixer_engine::command::{Command, Play, PlayId, PlaySource};
use mixer_engine::counters::{Counters, FrameOutcome};
use mixer_engine::engine::EngineLimits;
use mixer_engine::event::EventKind;
use mixer_engine::media::Codec;
use proptest::prelude::*;

/// What a listener should hear at a tick: the limited sum of the others' frames.
fn oracle(others: impl Iterator<Item = [i16; 160]>) -> Vec<i16> {
    let mut sum = [0_i64; 160];
    for frame in others {
        for (total, sample) in sum.iter_mut().zip(frame) {
            *total += i64::from(sample);
        }
    }
    sum.iter()
        .map(|total| i16::try_from((*total).clamp(-32_768, 32_767)).unwrap())
        .collect()
}

/// A room of L16 phones that all talk noise, after two seconds.
fn noisy_room(phones: usize, peak: i16) -> Lab {
    let mut lab = Lab::new();
    let room = lab.add_conference(5);
    for number in 0..phones {
        let phone = lab.add(room, Codec::L16);
        lab.say(phone, move |n| noise(number, n, peak));
    }
    lab.run(2000);
    lab
}

/// How many frames lie between a packet's sending and the tick that played it, in a steady room.
fn delay(lab: &Lab, listener: usize, others: &[usize], peak: i16) -> u64 {
    let packet = &lab.heard(listener)[60];
    let heard = decode(Codec::L16, &packet.payload);
    let tick = packet.slot / 20;
    (0..10)
        .find(|delay| heard == oracle(others.iter().map(|&other| noise(other, tick - delay, peak))))
        .expect("the sum of the others, at some delay")
}

#[test]
fn every_leg_hears_exactly_the_sum_of_the_others() {
    for (phones, peak) in [(2, 32_767), (3, 9_000), (8, 32_767), (20, 3_000)] {
        let lab = noisy_room(phones, peak);
        for listener in 0..phones {
            let others: Vec<_> = (0..phones).filter(|&other| other != listener).collect();
            let delay = delay(&lab, listener, &others, peak);
            for packet in &lab.heard(listener)[50..] {
                let tick = packet.slot / 20;
                let expected = oracle(others.iter().map(|&other| noise(other, tick - delay, peak)));
                assert_eq!(
                    decode(Codec::L16, &packet.payload),
                    expected,
                    "listener {listener} at {tick}"
                );
            }
            assert_eq!(lab.heard(listener).len(), 100, "a packet at every tick");
        }
    }
}

#[test]
fn a_clean_network_costs_no_frame() {
    let mut lab = noisy_room(3, 5_000);
    let before = lab.counters();
    lab.run(10_000);
    let after = lab.counters();
    assert_eq!(
        after.frames[FrameOutcome::Played as usize] - before.frames[FrameOutcome::Played as usize],
        1500
    );
    for outcome in FrameOutcome::ALL
        .into_iter()
        .filter(|&outcome| outcome != FrameOutcome::Played)
    {
        assert_eq!(
            after.frames[outcome as usize], before.frames[outcome as usize],
            "{outcome:?}"
        );
    }
    assert_eq!(after.dropped, before.dropped);
}

/// Pseudo-speech in mu-law bytes: noise with pauses, and both zeros.
fn speech(n: u64) -> Vec<u8> {
    let mut noise = Noise(0xABCD_EF01_2345 ^ (n + 1));
    noise.next();
    (0..160)
        .map(|_| match (n / 40) % 5 {
            // A pause in negative zeros only, one in positive zeros only, one in both.
            0 => 0x7F,
            1 => 0xFF,
            2 if noise.next() & 1 == 0 => 0x7F,
            2 => 0xFF,
            _ => u8::try_from(noise.next() & 0xFF).unwrap(),
        })
        .collect()
}

#[test]
fn one_talker_is_byte_identical_for_a_minute() {
    let mut lab = Lab::new();
    let room = lab.add_conference(5);
    let talker = lab.add(room, Codec::Pcmu);
    let listeners: Vec<_> = (0..3).map(|_| lab.add(room, Codec::Pcmu)).collect();
    // One of the listeners sends plain silence, as a muted phone does.
    lab.say(listeners[0], |_| [0; 160]);
    lab.talk(talker, speech);
    lab.run(60_000);
    for listener in listeners {
        let heard: Vec<u8> = lab
            .heard(listener)
            .iter()
            .flat_map(|packet| packet.payload.clone())
            .collect();
        let sent: Vec<u8> = (0..3000).flat_map(speech).collect();
        let delay = (0..10)
            .find(|delay| heard[160 * 50..160 * 60] == sent[160 * (50 - delay)..160 * (60 - delay)])
            .expect("the same bytes at some delay");
        assert_eq!(heard[160 * 10..], sent[160 * (10 - delay)..160 * (3000 - delay)]);
    }
    assert!(
        lab.heard(talker)
            .iter()
            .all(|packet| packet.payload == [0xFF; 160]),
        "own voice never returns"
    );
    assert_eq!(lab.counters().encodes, [0; 3]);
    assert!(lab.counters().passthrough > 2000);
}

#[test]
fn two_talkers_pass_each_other_through() {
    let mut lab = Lab::new();
    let room = lab.add_conference(5);
    for number in 0..2 {
        let phone = lab.add(room, Codec::Pcma);
        lab.say(phone, move |n| noise(number, n, 4_000));
    }
    lab.run(2000);
    assert_eq!(lab.counters().encodes, [0; 3]);
    for (listener, other) in [(0, 1), (1, 0)] {
        let packet = &lab.heard(listener)[60];
        let sent = (0..10).map(|delay| encode(Codec::Pcma, &noise(other, packet.slot / 20 - delay, 4_000)));
        assert_eq!(sent.filter(|sent| *sent == packet.payload).count(), 1);
    }
}

/// Three legs with a tone each; who hears which.
fn tones() -> Lab {
    let mut lab = Lab::new();
    let room = lab.add_conference(5);
    for (codec, hertz) in [(Codec::Pcmu, 500.0), (Codec::Pcma, 800.0), (Codec::L16, 1300.0)] {
        let phone = lab.add(room, codec);
        lab.say(phone, tone(hertz, 6000.0));
    }
    lab.run(1000);
    lab.clear();
    lab
}

const TONES: [f64; 3] = [500.0, 800.0, 1300.0];

/// Amplitudes of the three tones at a leg during one second from now.
fn listen(lab: &mut Lab, leg: usize) -> [f64; 3] {
    lab.run(200);
    lab.clear();
    lab.run(1000);
    let pcm = lab.pcm(leg);
    assert_eq!(pcm.len(), 8000, "never a missing packet");
    TONES.map(|hertz| amplitude(&pcm, hertz))
}

fn assert_hears(lab: &mut Lab, leg: usize, expected: [f64; 3]) {
    let heard = listen(lab, leg);
    for (heard, expected) in heard.into_iter().zip(expected) {
        // 0.1 dB of what is heard, -50 dB of what is not.
        let tolerance = if expected == 0.0 { 19.0 } else { expected * 0.0115 };
        assert!(
            (heard - expected).abs() < tolerance,
            "leg {leg}: {heard} instead of {expected}"
        );
    }
}

#[test]
fn laws_mix_at_the_right_level_and_own_voice_never_returns() {
    let mut lab = tones();
    assert_hears(&mut lab, 0, [0.0, 6000.0, 6000.0]);
    assert_hears(&mut lab, 1, [6000.0, 0.0, 6000.0]);
    assert_hears(&mut lab, 2, [6000.0, 6000.0, 0.0]);
}

#[test]
fn mute_deaf_hold_and_gain_do_what_they_say() {
    let mut lab = tones();
    let at = lab.phones[0].at;
    lab.must(Command::Mute { at, on: true });
    assert_hears(&mut lab, 0, [0.0, 6000.0, 6000.0]);
    assert_hears(&mut lab, 1, [0.0, 0.0, 6000.0]);
    lab.must(Command::Mute { at, on: false });
    lab.must(Command::Deaf { at, on: true });
    assert_hears(&mut lab, 0, [0.0; 3]);
    assert_hears(&mut lab, 2, [6000.0, 6000.0, 0.0]);
    lab.must(Command::Deaf { at, on: false });
    lab.must(Command::Hold { at, on: true });
    assert_hears(&mut lab, 0, [0.0; 3]);
    assert_hears(&mut lab, 1, [0.0, 0.0, 6000.0]);
    lab.must(Command::Hold { at, on: false });
    lab.must(Command::Gain { at, centibel: -600 });
    assert_hears(&mut lab, 0, [0.0, 6000.0, 6000.0]);
    assert_hears(&mut lab, 1, [6000.0 * 10_f64.powf(-0.3), 0.0, 6000.0]);
    lab.must(Command::Gain { at, centibel: 0 });
    assert_hears(&mut lab, 2, [6000.0, 6000.0, 0.0]);
}

#[test]
fn a_direction_without_receive_is_not_mixed_and_without_send_not_sent() {
    let mut lab = tones();
    let mut plan = lab.phones[0].plan;
    plan.direction.receive = false;
    lab.set_media(0, plan);
    assert_hears(&mut lab, 1, [0.0, 0.0, 6000.0]);
    assert_hears(&mut lab, 0, [0.0, 6000.0, 6000.0]);
    plan.direction.receive = true;
    plan.direction.send = false;
    lab.set_media(0, plan);
    assert_hears(&mut lab, 1, [6000.0, 0.0, 6000.0]);
    assert!(lab.heard(0).is_empty());
}

fn tone_play(id: u32, hertz: u16, duration_ms: u32) -> Play {
    let source = PlaySource::Tone {
        hertz,
        attenuation_db: 20,
        duration_ms,
    };
    Play {
        id: PlayId(id),
        source,
        repeat: 1,
    }
}

#[test]
fn a_play_to_all_is_in_everybodys_mix_and_to_one_over_its_own() {
    let mut lab = tones();
    let (deaf, one) = (lab.phones[1].at, lab.phones[2].at);
    let room = mixer_engine::command::ConferenceIndex(0);
    lab.must(Command::Deaf { at: deaf, on: true });
    lab.must(Command::PlayToConference {
        at: room,
        play: tone_play(7, 2117, 5_000),
    });
    lab.must(Command::PlayToEndpoint {
        at: one,
        play: tone_play(8, 3041, 5_000),
    });
    lab.must(Command::PlayToEndpoint {
        at: deaf,
        play: tone_play(9, 3041, 5_000),
    });
    lab.run(200);
    lab.clear();
    lab.run(1000);
    let loud = 3276.7;
    for (leg, two, three, tones) in [
        (0, loud, 0.0, [0.0, 6000.0, 6000.0]),
        (1, 0.0, loud, [0.0; 3]),
        (2, loud, loud, [6000.0, 6000.0, 0.0]),
    ] {
        let pcm = lab.pcm(leg);
        let hertz = [2117.0, 3041.0, TONES[0], TONES[1], TONES[2]];
        let expected = [two, three, tones[0], tones[1], tones[2]];
        for (hertz, expected) in hertz.into_iter().zip(expected) {
            let heard = amplitude(&pcm, hertz);
            assert!(
                (heard - expected).abs() < 20.0 + expected * 0.0115,
                "{leg}: {heard} at {hertz}"
            );
        }
    }
    lab.must(Command::StopEndpoint { at: one, play: None });
    lab.run(5_000);
    let played: Vec<_> = lab
        .events
        .iter()
        .filter_map(|event| {
            let EventKind::Played { play, complete } = event.kind else {
                return None;
            };
            Some((event.endpoint, play.0, complete))
        })
        .collect();
    assert_eq!(
        played,
        [(Some(one), 8, false), (None, 7, true), (Some(deaf), 9, true)]
    );
    assert_hears(&mut lab, 0, [0.0, 6000.0, 6000.0]);
}

#[test]
fn a_play_is_heard_over_one_talker_and_over_nobody() {
    for talkers in [0, 1] {
        let mut lab = Lab::new();
        let room = lab.add_conference(5);
        for leg in 0..3 {
            let phone = lab.add(room, Codec::Pcmu);
            if leg < talkers {
                lab.say(phone, tone(TONES[0], 6000.0));
            }
        }
        lab.must(Command::PlayToConference {
            at: room,
            play: tone_play(7, 2117, 5_000),
        });
        lab.run(1000);
        lab.clear();
        lab.run(1000);
        for leg in 0..3 {
            let pcm = lab.pcm(leg);
            let talker = if leg < talkers || talkers == 0 {
                0.0
            } else {
                6000.0
            };
            assert!((amplitude(&pcm, 2117.0) - 3276.7).abs() < 38.0);
            assert!((amplitude(&pcm, TONES[0]) - talker).abs() < 69.0);
        }
    }
}

#[test]
fn a_lone_talker_with_gain_is_not_passed_through() {
    let mut lab = Lab::new();
    let room = lab.add_conference(5);
    let (talker, listener) = (lab.add(room, Codec::Pcmu), lab.add(room, Codec::Pcmu));
    lab.say(talker, tone(TONES[0], 6000.0));
    let at = lab.phones[talker].at;
    lab.must(Command::Gain { at, centibel: -2000 });
    lab.run(1000);
    lab.clear();
    lab.run(1000);
    assert!((amplitude(&lab.pcm(listener), TONES[0]) - 600.0).abs() < 7.0);
}

#[test]
fn after_a_hold_a_leg_is_mixed_again_within_100_ms() {
    let mut lab = Lab::new();
    let room = lab.add_conference(5);
    let (talker, listener) = (lab.add(room, Codec::Pcmu), lab.add(room, Codec::Pcmu));
    lab.say(talker, |n| noise(0, n, 4_000));
    lab.run(1000);
    let plan = lab.phones[talker].plan;
    let mut held = plan;
    held.direction.receive = false;
    lab.set_media(talker, held);
    lab.clear();
    lab.run(1000);
    assert!(
        lab.heard(listener)
            .iter()
            .all(|packet| packet.payload == [0xFF; 160])
    );
    lab.set_media(talker, plan);
    lab.clear();
    lab.run(200);
    assert!(
        lab.heard(listener)[5..]
            .iter()
            .all(|packet| packet.payload != [0xFF; 160]),
        "M-65"
    );
}

#[test]
fn encodes_are_the_formats_in_use_plus_the_contributors() {
    let mut lab = Lab::new();
    let room = lab.add_conference(5);
    for number in 0..3 {
        let phone = lab.add(room, Codec::Pcmu);
        lab.say(phone, move |n| noise(number, n, 4_000));
    }
    for codec in [
        Codec::Pcmu,
        Codec::Pcma,
        Codec::Pcma,
        Codec::L16,
        Codec::L16,
        Codec::L16,
    ] {
        let phone = lab.add(room, codec);
        lab.say(phone, |_| [0; 160]);
    }
    lab.run(1000);
    let (before, sums_before) = (lab.counters(), lab.ears.known_sums);
    lab.run(1000);
    let after = lab.counters();
    let made = encodes_between(&before, &after);
    assert_eq!(made, [50 * (3 + 1), 50, 50]);
    let sums = lab.ears.known_sums - sums_before;
    assert_eq!(sums, 50 * 9, "no packet must be read to be summed up");
    assert_eq!(after.ticks - before.ticks, 50);
    assert_eq!(after.rtp_sent - before.rtp_sent, 50 * 9);
}

/// By codec.
fn encodes_between(before: &Counters, after: &Counters) -> Vec<u64> {
    let pairs = after.encodes.iter().zip(before.encodes);
    pairs.map(|(after, before)| after - before).collect()
}

#[test]
fn a_thousand_listeners_cost_one_encode_per_format_at_every_tick() {
    let mut lab = Lab::with_limits(EngineLimits {
        conferences: 1,
        endpoints: 1_003,
        port_first: lab::PORT_FIRST,
        port_last: lab::PORT_FIRST + 1_002,
        events: 1_024,
        media_timeout_ms: 60_000,
    });
    let room = lab.add_conference(5);
    for number in 0..1_003 {
        let codec = [Codec::Pcmu, Codec::Pcma][number % 2];
        let phone = lab.add(room, codec);
        if number < 3 {
            lab.say(phone, move |n| noise(number, n, 4_000));
        } else {
            lab.say(phone, |_| [0; 160]);
        }
    }
    lab.run(1_000);
    let mut before = lab.counters();
    for tick in 0..50 {
        lab.run(20);
        let after = lab.counters();
        let made = encodes_between(&before, &after);
        // One per format and one per talker: two of them have PCMU, one PCMA.
        assert_eq!(made, [1 + 2, 1 + 1, 0], "tick {tick}");
        assert_eq!(after.passthrough, before.passthrough, "tick {tick}");
        assert_eq!(after.rtp_sent - before.rtp_sent, 1_003, "tick {tick}");
        before = after;
    }
}

#[test]
fn a_lonely_leg_hears_silence_without_an_encode() {
    let mut lab = Lab::new();
    let room = lab.add_conference(5);
    let phone = lab.add(room, Codec::Pcma);
    lab.say(phone, |n| noise(0, n, 4_000));
    lab.run(1000);
    assert_eq!(lab.heard(phone).len(), 50);
    assert!(
        lab.heard(phone)
            .iter()
            .all(|packet| packet.payload == [0xD5; 160])
    );
    assert_eq!((lab.counters().encodes, lab.counters().passthrough), ([0; 3], 0));
}

#[test]
fn conferences_do_not_hear_each_other() {
    let mut lab = Lab::new();
    let rooms = [lab.add_conference(5), lab.add_conference(5)];
    for (number, room) in [(0, rooms[0]), (1, rooms[0]), (2, rooms[1]), (3, rooms[1])] {
        let phone = lab.add(room, Codec::L16);
        lab.say(phone, move |n| noise(number, n, 4_000));
    }
    lab.run(2000);
    for (listener, other) in [(0, 1), (1, 0), (2, 3), (3, 2)] {
        let delay = delay(&lab, listener, &[other], 4_000);
        assert!(delay < 5);
    }
}

#[test]
fn talking_is_told() {
    let mut lab = tones();
    let talking = |lab: &Lab| -> Vec<_> {
        lab.events
            .iter()
            .filter_map(|event| {
                let EventKind::Talk { talking } = event.kind else {
                    return None;
                };
                Some((event.endpoint.unwrap().0, talking))
            })
            .collect()
    };
    assert_eq!(talking(&lab), [(0, true), (1, true), (2, true)]);
    assert!(lab.snapshot(1).talking);
    lab.events.clear();
    let at = lab.phones[1].at;
    lab.must(Command::Mute { at, on: true });
    lab.run(1000);
    assert_eq!(talking(&lab), [(1, false)]);
    assert!(!lab.snapshot(1).talking && lab.snapshot(0).talking);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn any_room_of_full_scale_noise_is_exact(phones in 2..12_usize, seed in 0..1000_usize, muted in 0..12_usize) {
        let mut lab = Lab::new();
        let room = lab.add_conference(5);
        for number in 0..phones {
            let phone = lab.add(room, Codec::L16);
            lab.say(phone, move |n| noise(number + seed, n, i16::MAX));
        }
        if muted < phones {
            let at = lab.phones[muted].at;
            lab.must(Command::Mute { at, on: true });
        }
        lab.run(1300);
        for listener in 0..phones {
            let others: Vec<_> = (0..phones).filter(|&other| other != listener && other != muted).collect();
            let packet = &lab.heard(listener)[62];
            let heard = decode(Codec::L16, &packet.payload);
            let found = (0..10).any(|delay| {
                let tick = packet.slot / 20 - delay;
                heard == oracle(others.iter().map(|&other| noise(other + seed, tick, i16::MAX)))
            });
            prop_assert!(found, "listener {} of {}", listener, phones);
        }
    }
}
