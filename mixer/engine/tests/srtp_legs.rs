//! Legs with SRTP in a conference: what they hear is decoded, what does not belong to them is counted, and what they
//! do costs the others nothing.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lab;

use std::net::SocketAddr;

use lab::secure::keys;
use lab::{Lab, PORT_FIRST, amplitude, assert_continuous, noise, plan, tone};
use mixer_engine::command::{Command, Retired};
use mixer_engine::counters::DropReason;
use mixer_engine::event::EventKind;
use mixer_engine::media::{Codec, SourceRule};
use mixer_engine::srtp::{Sending, Srtp, Suite};
use mixer_engine::wire::rtp::RtpRepr;

/// A leg of every suite, and one with plain RTP, each with a tone of its own.
fn mixed_room(lab: &mut Lab) -> Vec<usize> {
    let room = lab.add_conference(5);
    let mut legs: Vec<usize> = Suite::ALL
        .into_iter()
        .map(|suite| {
            let number = lab.phones.len();
            let mut media = plan(number, Codec::ALL[number % 2]);
            media.send_ptime_ms = [20, 10, 30, 40, 60][number];
            lab.add_secure(room, media, suite)
        })
        .collect();
    legs.push(lab.add(room, Codec::Pcmu));
    for &leg in &legs {
        lab.say(leg, tone(hertz(leg), 4_000.0));
    }
    legs
}

fn hertz(leg: usize) -> f64 {
    [350.0, 500.0, 700.0, 950.0, 1_250.0, 1_600.0][leg]
}

/// The last second that every leg heard: all others as loud as they are, and nothing of itself.
fn assert_hears(lab: &Lab, legs: &[usize]) {
    for &listener in legs {
        let pcm = lab.pcm(listener);
        let last = &pcm[pcm.len() - 8_000..];
        for &talker in legs {
            let heard = amplitude(last, hertz(talker));
            if listener == talker {
                assert!(heard < 40.0, "{listener} hears itself: {heard}");
            } else {
                assert!(
                    (heard - 4_000.0).abs() < 100.0,
                    "{listener} hears {talker}: {heard}"
                );
            }
        }
    }
}

/// So much went wrong with SRTP: not authentic, replayed.
fn failed(lab: &Lab) -> [u64; 2] {
    [DropReason::SrtpAuth, DropReason::SrtpReplay].map(|reason| lab.dropped(reason))
}

#[test]
fn legs_of_every_suite_and_a_plain_one_hear_each_other() {
    let mut lab = Lab::new();
    let legs = mixed_room(&mut lab);
    lab.run(3_000);
    assert_hears(&lab, &legs);
    for &leg in &legs {
        // Their first sequence numbers are close to the end: all went through a roll-over, both ways.
        let packets = lab.heard(leg);
        assert!(packets.iter().any(|packet| packet.sequence == 5));
        assert_continuous(packets, 1);
    }
    assert_eq!(failed(&lab), [0, 0]);
    assert_eq!(lab.counters().dropped.iter().sum::<u64>(), 0);
    assert!(lab.ears.known_sums > 100, "plain packets are summed up once");
}

#[test]
fn a_lone_talker_is_byte_identical_under_srtp() {
    let mut lab = Lab::new();
    let room = lab.add_conference(5);
    let talker = lab.add_secure(room, plan(0, Codec::Pcmu), Suite::AeadAes256Gcm);
    let listener = lab.add_secure(room, plan(1, Codec::Pcmu), Suite::AesCm128HmacSha1Tag32);
    lab.say(talker, |n| noise(0, n, 9_000));
    lab.run(2_000);
    let heard: Vec<u8> = lab
        .heard(listener)
        .iter()
        .flat_map(|packet| packet.payload.clone())
        .collect();
    let said: Vec<u8> = (0..90)
        .flat_map(|n| lab::encode(Codec::Pcmu, &noise(0, n, 9_000)))
        .collect();
    assert!(heard.windows(said.len()).any(|part| part == said));
}

#[test]
fn fifty_thousand_bad_packets_are_counted_and_harm_nobody() {
    let mut lab = Lab::new();
    let legs = mixed_room(&mut lab);
    lab.run(1_000);
    lab.clear();
    let sent_before = lab.counters().rtp_sent;
    for n in 0..50_000_u32 {
        let leg = legs[0];
        let header = RtpRepr {
            payload_type: 0,
            marker: false,
            sequence: u16::try_from(n % 65_536).unwrap(),
            timestamp: n,
            ssrc: if n % 2 == 0 { lab.phones[leg].ssrc } else { n },
            csrc: &[],
        };
        let mut bytes = vec![0; 12];
        assert_eq!(header.emit(&mut bytes), 12);
        bytes.extend([0x55; 170]);
        let (port, source) = (PORT_FIRST, lab.phones[leg].address);
        lab.deliver(port, source, &bytes);
        if n % 25 == 24 {
            lab.step();
        }
    }
    let [bad, replayed] = failed(&lab);
    assert_eq!(bad + replayed, 50_000, "every one was counted");
    assert!(
        bad > 30_000 && replayed > 5_000,
        "{bad} and {replayed} that claim an old index"
    );
    assert_hears(&lab, &legs);
    // Two seconds of packets of 20, 10, 30, 40, 60 and 20 ms, one more or less at their ends.
    let sent = lab.counters().rtp_sent - sent_before;
    assert!((547..=553).contains(&sent), "{sent}");
    assert!(
        !lab.events
            .iter()
            .any(|event| event.kind == EventKind::MediaTimeout)
    );
}

#[test]
fn replays_plain_rtp_and_strangers_are_told_apart() {
    let mut lab = Lab::new();
    let room = lab.add_conference(5);
    let leg = lab.add_secure(room, plan(0, Codec::Pcmu), Suite::AesCm128HmacSha1Tag80);
    let (address, port) = (lab.phones[leg].address, PORT_FIRST);
    let plain = plain_packet(7, 100);
    let protected = protect(lab.phones[leg].keys.as_ref().unwrap(), &plain);
    lab.deliver(port, address, &protected);
    assert_eq!(lab.counters().rtp_received, 1);
    lab.deliver(port, address, &protected);
    assert_eq!(failed(&lab), [0, 1]);
    lab.deliver(port, address, &plain_packet(7, 103));
    assert_eq!(failed(&lab), [1, 1]);
    // Authentic or not: a stranger is a stranger, and must not use up an index.
    let next = protect(lab.phones[leg].keys.as_ref().unwrap(), &plain_packet(7, 101));
    lab.deliver(port, "203.0.113.66:9".parse().unwrap(), &next);
    assert_eq!(lab.dropped(DropReason::BadSource), 1);
    assert_eq!(lab.snapshot(leg).bad_source, 1);
    lab.deliver(port, address, &next);
    assert_eq!(lab.counters().rtp_received, 2);
    lab.deliver(port, address, &protected[..20]);
    assert_eq!(failed(&lab), [1, 2]);
    lab.deliver(
        port,
        address,
        &protect(lab.phones[leg].keys.as_ref().unwrap(), &plain_packet(7, 102))[..14],
    );
    assert_eq!(lab.dropped(DropReason::Malformed), 1);
    lab.deliver(port, address, &vec![0x80; 3_000]);
    assert_eq!(lab.dropped(DropReason::Malformed), 2);
}

#[test]
fn only_authentic_packets_teach_a_source() {
    let mut lab = Lab::new();
    let room = lab.add_conference(5);
    let nat: SocketAddr = "198.51.100.7:61000".parse().unwrap();
    let mut media = plan(0, Codec::Pcmu);
    media.source = SourceRule::Learn {
        allowed: [Some(nat.ip()), None, None, None],
    };
    let leg = lab.add_secure(room, media, Suite::AeadAes128Gcm);
    let learnt = |lab: &Lab| {
        let mut events = lab.events.iter();
        events.any(|event| matches!(event.kind, EventKind::SourceLearnt { .. }))
    };
    for sequence in 0..6 {
        let mut forged = protect(lab.phones[leg].keys.as_ref().unwrap(), &plain_packet(7, sequence));
        forged[40] ^= 1;
        lab.deliver(PORT_FIRST, nat, &forged);
        lab.deliver(PORT_FIRST, nat, &plain_packet(7, sequence));
        lab.step();
    }
    assert!(!learnt(&lab) && failed(&lab) == [12, 0]);
    for sequence in 0..3 {
        let packet = protect(lab.phones[leg].keys.as_ref().unwrap(), &plain_packet(7, sequence));
        lab.deliver(PORT_FIRST, nat, &packet);
        lab.step();
    }
    assert!(learnt(&lab));
}

/// A change of media with other keys, as control commands it; gives back what is worn out.
fn rekey(lab: &mut Lab, leg: usize, srtp: Option<Srtp>) -> usize {
    let (at, media) = (lab.phones[leg].at, Box::new(lab.phones[leg].plan));
    match lab.must(Command::SetMedia { at, media, srtp }) {
        Some(Retired::Media(_, worn)) => {
            usize::from(worn.send.is_some()) + worn.receive.iter().flatten().count()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn new_keys_in_a_call_cost_no_frame_and_old_ones_hold_until_the_peer_follows() {
    let mut lab = Lab::new();
    let legs = mixed_room(&mut lab);
    let leg = legs[0];
    lab.run(1_000);
    let before = lab.counters();
    // The same keys again: everything goes on, and the new contexts come back.
    let suite = Suite::AesCm128HmacSha1Tag80;
    assert_eq!(rekey(&mut lab, leg, Some(keys(suite, leg, 0))), 2);
    lab.run(200);
    // New keys both ways; the phone hears at once under the new one and sends under its old one for a while.
    let new = Suite::AeadAes128Gcm;
    assert_eq!(rekey(&mut lab, leg, Some(keys(new, leg, 1))), 0);
    let old = lab.phones[leg].keys.take();
    lab.give_keys(leg, new, 1);
    let fresh = std::mem::replace(&mut lab.phones[leg].keys, old);
    lab.run(300);
    lab.phones[leg].keys = fresh;
    lab.run(1_500);
    assert_hears(&lab, &legs);
    let after = lab.counters();
    assert_eq!(after.dropped, before.dropped);
    let concealed = |frames: [u64; 7]| frames[1..5].iter().sum::<u64>();
    assert_eq!(concealed(after.frames), concealed(before.frames));
    for &leg in &legs {
        assert_continuous(lab.heard(leg), 1);
    }
}

#[test]
fn a_leg_may_turn_to_srtp_and_back() {
    let mut lab = Lab::new();
    let legs = mixed_room(&mut lab);
    let leg = *legs.last().unwrap();
    lab.run(500);
    assert_eq!(rekey(&mut lab, leg, Some(keys(Suite::AeadAes256Gcm, leg, 3))), 0);
    lab.give_keys(leg, Suite::AeadAes256Gcm, 3);
    lab.run(1_500);
    assert_hears(&lab, &legs);
    // What we sent under is kept: it must not begin anew.
    assert_eq!(rekey(&mut lab, leg, None), 1);
    (lab.phones[leg].keys, _) = (None, lab.ears.keys.remove(&lab.phones[leg].at.0));
    lab.run(1_500);
    assert_hears(&lab, &legs);
    assert_eq!(failed(&lab), [0, 0]);
}

#[test]
fn keys_that_come_back_go_on_where_they_were() {
    let mut lab = Lab::new();
    let legs = mixed_room(&mut lab);
    for (&leg, suite) in legs.iter().zip(Suite::ALL) {
        lab.run(700);
        // All have come round once. A change is commanded and taken back before the peer hears of it: no index comes
        // twice, and what came is known. After plain RTP what we send goes on as well.
        let phone = &lab.phones[leg];
        let last = plain_packet(phone.ssrc, phone.sequence.wrapping_sub(1));
        let last = protect(phone.keys.as_ref().unwrap(), &last);
        let (port, address) = (PORT_FIRST + u16::try_from(leg).unwrap(), phone.address);
        let [_, replayed] = failed(&lab);
        assert_eq!(rekey(&mut lab, leg, Some(keys(Suite::AeadAes128Gcm, leg, 9))), 0);
        assert_eq!(rekey(&mut lab, leg, Some(keys(suite, leg, 0))), 2);
        lab.deliver(port, address, &last);
        assert_eq!(failed(&lab), [0, replayed + 1]);
        lab.run(100);
        assert_eq!(rekey(&mut lab, leg, None), 3);
        assert_eq!(rekey(&mut lab, leg, Some(keys(suite, leg, 0))), 1);
        lab.give_keys_to_send(leg, suite, 0);
    }
    lab.run(1_500);
    assert_hears(&lab, &legs);
    for &leg in &legs {
        assert_continuous(lab.heard(leg), 1);
    }
}

#[test]
fn an_address_that_changes_begins_at_a_roll_over_counter_of_zero() {
    let mut lab = Lab::new();
    let legs = mixed_room(&mut lab);
    let (leg, suite) = (legs[0], Suite::AesCm128HmacSha1Tag80);
    lab.run(1_500);
    // Both have come round once; the peer moves, with new keys for both ways (M-53).
    lab.phones[leg].plan.remote = "198.51.100.9:7000".parse().unwrap();
    lab.phones[leg].address = lab.phones[leg].plan.remote;
    assert_eq!(rekey(&mut lab, leg, Some(keys(suite, leg, 7))), 0);
    lab.give_keys(leg, suite, 7);
    lab.run(1_500);
    assert_hears(&lab, &legs);
    assert_eq!(failed(&lab), [0, 0]);
    assert_eq!(lab.heard(leg).last().unwrap().remote, lab.phones[leg].address);
}

#[test]
fn a_new_source_under_the_same_key_is_followed() {
    let mut lab = Lab::new();
    let legs = mixed_room(&mut lab);
    let (leg, suite) = (legs[4], Suite::AeadAes256Gcm);
    lab.run(1_500);
    // A transfer at the far end: another SSRC, its counter at 0 although ours knows one of 1.
    lab.phones[leg].ssrc ^= 0x0f0f;
    lab.phones[leg].sequence = 40_000;
    lab.give_keys_to_send(leg, suite, 0);
    lab.run(2_000);
    assert_hears(&lab, &legs);
    assert_eq!(failed(&lab), [0, 0]);
}

fn plain_packet(ssrc: u32, sequence: u16) -> Vec<u8> {
    let header = RtpRepr {
        payload_type: 0,
        marker: false,
        sequence,
        timestamp: 160 * u32::from(sequence),
        ssrc,
        csrc: &[],
    };
    let mut bytes = vec![0; 12];
    assert_eq!(header.emit(&mut bytes), 12);
    bytes.extend([0x55; 160]);
    bytes
}

fn protect(keys: &Sending, packet: &[u8]) -> Vec<u8> {
    let mut bytes = packet.to_vec();
    bytes.resize(packet.len() + mixer_engine::srtp::OVERHEAD_MAX, 0);
    let length = keys.protect(&mut bytes, packet.len()).unwrap();
    bytes.truncate(length);
    bytes
}
