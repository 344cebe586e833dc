//! What we send to one leg is one continuous RTP stream, whatever happens in the conference.

#![allow(
    clippy::unwrap_used,
    reason = "a test that is wrong about its numbers shall stop"
)]

mod lab;

use std::net::SocketAddr;

use lab::{Lab, assert_continuous, decode, noise, plan, tone};
use mixer_engine::command::{Command, Retired};
use mixer_engine::counters::DropReason;
use mixer_engine::engine::Engine;
use mixer_engine::media::Codec;
use mixer_engine::time::Slot;

#[test]
fn joins_leaves_and_talk_do_not_disturb_the_others() {
    let mut lab = Lab::new();
    let room = lab.add_conference(13);
    let listener = lab.add(room, Codec::Pcmu);
    for number in 1..20 {
        let phone = lab.add(room, if number % 3 == 0 { Codec::Pcma } else { Codec::Pcmu });
        lab.say(phone, move |n| noise(number, n, 2_000));
        lab.run(95);
        if number % 2 == 0 {
            let at = lab.phones[phone].at;
            assert!(matches!(
                lab.must(Command::RemoveEndpoint { at }),
                Some(Retired::Endpoint(_))
            ));
            lab.hush(phone);
        }
    }
    let heard = lab.heard(listener);
    assert_eq!(heard.len(), 19 * 95 / 20);
    assert_continuous(heard, 1);
    assert!(
        heard
            .iter()
            .all(|packet| packet.slot % 20 == 13 && packet.payload.len() == 160)
    );
    assert_eq!(heard[0].ssrc, 0x00A0_0000);
    assert_eq!(
        (heard[0].sequence, heard[0].timestamp),
        (u16::MAX - 20, u32::MAX - 1000)
    );
    let markers: Vec<_> = heard.iter().map(|packet| packet.marker).collect();
    assert!(
        markers[0] && !markers[1..].contains(&true),
        "M-05: on the first packet only"
    );
}

#[test]
fn other_packet_times_carry_the_same_samples() {
    let mut lab = Lab::new();
    let room = lab.add_conference(5);
    let times = [10, 20, 30, 40, 60];
    for codec in [Codec::Pcmu, Codec::L16] {
        for ptime in times {
            let mut plan = plan(lab.phones.len(), codec);
            plan.send_ptime_ms = ptime;
            lab.add_with(room, plan);
        }
    }
    let talker = lab.add(room, Codec::Pcmu);
    lab.say(talker, tone(440.0, 8_000.0));
    lab.run(1205);
    let reference = lab.pcm(1);
    assert!(reference.iter().any(|&sample| sample != 0));
    for (leg, &ptime) in [times, times].as_flattened().iter().enumerate() {
        let codec = lab.phones[leg].plan.send_codec;
        let heard = lab.heard(leg);
        assert_continuous(heard, codec.bytes_per_sample());
        let samples = usize::from(ptime) * 8;
        assert!(
            heard
                .iter()
                .all(|packet| packet.payload.len() == samples * codec.bytes_per_sample())
        );
        assert!(heard[1..].iter().all(|packet| !packet.marker));
        let pcm = lab.pcm(leg);
        assert!(
            reference.len() - pcm.len() < samples + 80,
            "{ptime} ms: {} samples",
            pcm.len()
        );
        assert_eq!(pcm[..], reference[..pcm.len()], "{ptime} ms");
        let pace: Vec<_> = heard.windows(2).map(|pair| pair[1].slot - pair[0].slot).collect();
        assert!(
            pace.iter().all(|&apart| apart == u64::from(ptime)),
            "{ptime} ms: {pace:?}"
        );
    }
}

#[test]
fn a_change_of_format_takes_effect_at_once_and_loses_no_sample() {
    let mut lab = Lab::new();
    let room = lab.add_conference(5);
    let leg = lab.add(room, Codec::Pcmu);
    lab.run(200);
    for (codec, payload_type, ptime) in [
        (Codec::Pcma, 8, 30),
        (Codec::Pcmu, 96, 60),
        (Codec::Pcma, 8, 10),
        (Codec::L16, 97, 40),
        (Codec::Pcmu, 0, 20),
    ] {
        let before = lab.heard(leg).len();
        let mut media = plan(leg, codec);
        media.send_payload_type = payload_type;
        media.send_ptime_ms = ptime;
        lab.set_media(leg, media);
        // The rest of the old format leaves with the command.
        let flushed = lab.heard(leg).len();
        assert!(flushed <= before + 1);
        lab.run(330);
        for packet in &lab.heard(leg)[flushed..] {
            assert_eq!(packet.payload_type, payload_type);
            assert_eq!(
                packet.payload.len(),
                usize::from(ptime) * 8 * codec.bytes_per_sample()
            );
        }
    }
    let heard = lab.heard(leg);
    for pair in heard.windows(2) {
        let bytes = if pair[0].payload_type == 97 { 2 } else { 1 };
        assert_continuous(pair, bytes);
    }
    assert!(heard[1..].iter().all(|packet| !packet.marker));
}

#[test]
fn while_nothing_may_be_sent_the_timestamp_goes_on_and_the_sequence_stands() {
    for unspecified in [false, true] {
        let mut lab = Lab::new();
        let room = lab.add_conference(5);
        let leg = lab.add(room, Codec::Pcmu);
        lab.run(200);
        let mut media = plan(leg, Codec::Pcmu);
        if unspecified {
            // RFC 3264 8.4: the old way to put on hold.
            media.remote = "0.0.0.0:4000".parse::<SocketAddr>().unwrap();
        } else {
            media.direction.send = false;
        }
        lab.set_media(leg, media);
        lab.run(200);
        assert_eq!(lab.heard(leg).len(), 10, "nothing during the hold");
        lab.set_media(leg, plan(leg, Codec::Pcmu));
        lab.run(200);
        let heard = lab.heard(leg);
        assert_eq!(heard.len(), 20);
        assert_eq!(heard[10].sequence, heard[9].sequence.wrapping_add(1));
        assert_eq!(heard[10].timestamp, heard[9].timestamp.wrapping_add(160 * 11));
        assert!(
            heard[10].marker && !heard[11].marker && !heard[9].marker,
            "M-05: after a gap"
        );
        assert_continuous(&heard[10..], 1);
    }
}

#[test]
fn the_operators_hold_is_heard_as_silence_not_as_a_gap() {
    let mut lab = Lab::new();
    let room = lab.add_conference(5);
    let leg = lab.add(room, Codec::Pcmu);
    let talker = lab.add(room, Codec::Pcmu);
    lab.say(talker, tone(440.0, 8_000.0));
    lab.run(400);
    let at = lab.phones[leg].at;
    lab.must(Command::Hold { at, on: true });
    lab.run(400);
    lab.must(Command::Hold { at, on: false });
    lab.run(400);
    let heard = lab.heard(leg);
    assert_eq!(heard.len(), 60);
    assert_continuous(heard, 1);
    assert!(
        heard[20..40]
            .iter()
            .all(|packet| packet.payload == [0xFF; 160] && packet.csrc.is_empty())
    );
    assert!(heard[41..].iter().all(|packet| packet.payload != [0xFF; 160]));
}

#[test]
fn a_packet_without_a_buffer_is_one_lost_packet() {
    let mut lab = Lab::new();
    let room = lab.add_conference(5);
    let (leg, other) = (lab.add(room, Codec::Pcmu), lab.add(room, Codec::Pcmu));
    lab.run(100);
    lab.ears.blocked.push(lab.phones[leg].at.0);
    lab.run(60);
    lab.ears.blocked.clear();
    lab.run(100);
    assert_eq!(lab.dropped(DropReason::NoSendBuffer), 3);
    let heard = lab.heard(leg);
    assert_eq!(heard.len(), 10);
    assert_eq!(heard[5].sequence, heard[4].sequence.wrapping_add(4));
    assert_eq!(heard[5].timestamp, heard[4].timestamp.wrapping_add(4 * 160));
    assert!(!heard[5].marker);
    assert_continuous(lab.heard(other), 1);
    assert_eq!(lab.counters().rtp_sent, 10 + 13);
}

#[test]
fn contributing_sources_are_the_others_loudest_first() {
    let mut lab = Lab::new();
    let room = lab.add_conference(5);
    let listener = lab.add(room, Codec::Pcmu);
    for number in 1..20_u16 {
        let phone = lab.add(room, Codec::Pcmu);
        lab.say(phone, tone(100.0 * f64::from(number), 100.0 * f64::from(number)));
    }
    lab.run(600);
    let ssrc = |number: u32| 0x00B0_0000 + number;
    let loudest: Vec<_> = (5..20).rev().map(ssrc).collect();
    assert_eq!(lab.heard(listener)[20].csrc, loudest);
    let without_own: Vec<_> = (4..19).rev().map(ssrc).collect();
    assert_eq!(lab.heard(19)[20].csrc, without_own);
    assert_eq!(lab.heard(3)[20].csrc, loudest);
    assert_eq!(lab.heard(listener)[20].payload.len(), 160);
    lab.engine.set_csrc(false);
    lab.clear();
    lab.run(100);
    for leg in [listener, 5] {
        assert!(lab.heard(leg).iter().all(|packet| packet.csrc.is_empty()));
    }
}

#[test]
fn long_packets_list_everybody_who_is_in_them() {
    let mut lab = Lab::new();
    let room = lab.add_conference(5);
    let mut media = plan(0, Codec::Pcmu);
    media.send_ptime_ms = 60;
    let listener = lab.add_with(room, media);
    // One after the other, 20 ms each.
    for number in 1..4 {
        let phone = lab.add(room, Codec::Pcmu);
        let mut voice = tone(700.0, 4_000.0);
        lab.say(
            phone,
            move |n| if n % 3 + 1 == number { voice(n) } else { [0; 160] },
        );
    }
    lab.run(900);
    for packet in &lab.heard(listener)[10..] {
        let mut csrc = packet.csrc.clone();
        csrc.sort_unstable();
        assert_eq!(csrc, [0x00B0_0001, 0x00B0_0002, 0x00B0_0003]);
    }
    lab.hush(2);
    lab.run(300);
    lab.clear();
    lab.run(300);
    for packet in lab.heard(listener) {
        assert!(
            !packet.csrc.contains(&0x00B0_0002),
            "only those who are in this packet"
        );
    }
}

#[test]
fn missed_slots_run_one_after_the_other_send_everything() {
    let mut lab = Lab::new();
    let room = lab.add_conference(5);
    let mut media = plan(0, Codec::Pcmu);
    media.send_ptime_ms = 10;
    lab.add_with(room, media);
    lab.add(room, Codec::Pcmu);
    lab.run(100);
    // The worker slept for 95 ms and catches up.
    let late = Slot(lab.slot + 95).begins(mixer_engine::time::Timestamp(0));
    for _ in 0..95 {
        lab.engine.run_slot(Slot(lab.slot), late, &mut lab.ears);
        lab.slot += 1;
    }
    lab.run(105);
    assert_continuous(lab.heard(0), 1);
    assert_continuous(lab.heard(1), 1);
    assert_eq!((lab.heard(0).len(), lab.heard(1).len()), (30, 15));
    assert!(
        lab.heard(1)
            .iter()
            .all(|packet| decode(Codec::Pcmu, &packet.payload) == [0; 160])
    );
}

#[test]
fn slots_too_old_to_be_heard_pass_in_time_only() {
    let mut lab = Lab::new();
    let room = lab.add_conference(5);
    for ptime in [20, 30] {
        let mut media = plan(lab.phones.len(), Codec::Pcmu);
        media.send_ptime_ms = ptime;
        lab.add_with(room, media);
    }
    lab.run(300);
    lab.ears.muted = true;
    lab.run(300);
    lab.ears.muted = false;
    lab.run(300);
    for (leg, packets, samples) in [(0, 15, 160), (1, 10, 240)] {
        let heard = lab.heard(leg);
        assert!(heard.len().abs_diff(2 * packets) <= 1, "{}", heard.len());
        let gap = heard
            .windows(2)
            .position(|pair| pair[1].slot - pair[0].slot > 100)
            .unwrap();
        let (last, first) = (&heard[gap], &heard[gap + 1]);
        assert_eq!(first.sequence, last.sequence.wrapping_add(1));
        assert_eq!(first.timestamp.wrapping_sub(last.timestamp), 300 * 8 + samples);
        assert!(first.marker && !heard[gap + 2].marker);
        assert_continuous(&heard[..=gap], 1);
        assert_continuous(&heard[gap + 1..], 1);
    }
    assert_eq!(lab.dropped(DropReason::NoSendBuffer), 0);
}

/// The second of two packets of 10 ms is due at the half tick, of which a new engine has not heard.
#[test]
fn a_packet_that_waits_for_the_half_tick_leaves_then_after_an_upgrade() {
    let mut lab = Lab::new();
    let room = lab.add_conference(5);
    let mut short = lab::plan(0, Codec::Pcmu);
    short.send_ptime_ms = 10;
    let phone = lab.add_with(room, short);
    lab.run(108);
    lab.clear();
    let state = lab.engine.export_state(|_| None).unwrap();
    lab.engine = Engine::import_state(lab::LIMITS, &state, |_| None).unwrap();
    lab.run(32);
    let slots: Vec<u64> = lab.heard(phone).iter().map(|packet| packet.slot).collect();
    assert_eq!(slots, [115, 125, 135]);
}
