//! A large room is sent to in slices, and nobody hears of it.

#![allow(
    clippy::unwrap_used,
    reason = "a test that is wrong about its numbers shall stop"
)]

mod lab;

use std::collections::BTreeMap;

use lab::{Lab, Packet, noise};
use mixer_engine::command::{Command, ConferenceIndex, EndpointIndex, Retired};
use mixer_engine::engine::share::{Parts, RoomId, Share, ShareSetup};
use mixer_engine::engine::slices::SLICE;
use mixer_engine::engine::{Endpoint, EngineLimits};
use mixer_engine::media::Codec;

const PHASE: u8 = 5;

fn large_lab(endpoints: u16) -> Lab {
    Lab::with_limits(EngineLimits {
        conferences: 4,
        endpoints: u32::from(endpoints),
        port_first: lab::PORT_FIRST,
        port_last: lab::PORT_FIRST + endpoints,
        events: 1_024,
        media_timeout_ms: 60_000,
    })
}

/// A room with so many members, of whom the first two talk, each room with voices of its own.
fn fill(lab: &mut Lab, phase: u8, members: usize, seed: usize) -> (ConferenceIndex, Vec<usize>) {
    let room = lab.add_conference(phase);
    let phones: Vec<usize> = (0..members)
        .map(|number| lab.add(room, [Codec::Pcmu, Codec::Pcma][number / 2 % 2]))
        .collect();
    for (number, phone) in phones.iter().take(2).enumerate() {
        lab.say(*phone, move |n| noise(seed + number, n, 4_000));
    }
    (room, phones)
}

/// What a talker, a listener in his codec and one in the other hear where nothing is sliced.
fn small_room(phase: u8, seed: usize, ms: u64) -> Vec<Vec<Packet>> {
    let mut lab = Lab::new();
    let (_, phones) = fill(&mut lab, phase, 5, seed);
    lab.run(ms);
    [0, 4, 2].map(|phone| lab.heard(phones[phone]).to_vec()).into()
}

fn payloads(packets: &[Packet]) -> Vec<&[u8]> {
    packets.iter().map(|packet| &*packet.payload).collect()
}

fn assert_no_frame_missing(packets: &[Packet], who: usize) {
    for pair in packets.windows(2) {
        let sequence = pair[1].sequence.wrapping_sub(pair[0].sequence);
        let samples = pair[1].timestamp.wrapping_sub(pair[0].timestamp);
        assert_eq!((sequence, samples), (1, 160), "phone {who} at {}", pair[1].slot);
    }
}

#[test]
fn everybody_hears_what_a_small_room_hears_in_slices_of_bounded_size() {
    const MEMBERS: usize = 700;
    let mut lab = large_lab(2 * 700 + 3);
    // Slices of both are sent in the same slots, as is a room that is not sliced.
    let rooms = [(PHASE, MEMBERS, 10), (PHASE + 1, MEMBERS, 20), (PHASE + 2, 3, 30)];
    let phones = rooms.map(|(phase, members, seed)| fill(&mut lab, phase, members, seed).1);
    lab.run(2_000);
    for ((phase, _, seed), phones) in rooms.iter().zip(&phones) {
        let expected = small_room(*phase, *seed, 2_000);
        for (number, phone) in phones.iter().enumerate().filter(|(number, _)| *number != 1) {
            let like = match number {
                0 => &expected[0],
                other if other / 2 % 2 == 0 => &expected[1],
                _ => &expected[2],
            };
            assert_eq!(payloads(lab.heard(*phone)), payloads(like), "phone {phone}");
            assert_no_frame_missing(lab.heard(*phone), *phone);
        }
    }
    for (room, phones) in phones.iter().enumerate() {
        let mut by_slot = BTreeMap::<u64, u32>::new();
        for phone in phones {
            let heard = lab.heard(*phone);
            assert!(heard.windows(2).all(|pair| pair[1].slot - pair[0].slot == 20));
            heard
                .iter()
                .for_each(|packet| *by_slot.entry(packet.slot).or_default() += 1);
        }
        let most = *by_slot.values().max().unwrap();
        assert!(most <= SLICE, "{most} packets of room {room} in one slot");
    }
}

#[test]
fn the_largest_room_is_sent_to_before_the_half_tick() {
    let mut lab = large_lab(4_000);
    let (room, phones) = fill(&mut lab, PHASE, 3_998, 10);
    let mut short = lab::plan(3_998, Codec::Pcmu);
    short.send_ptime_ms = 10;
    let short = lab.add_with(room, short);
    lab.run(200);
    lab.clear();
    lab.run(200);
    for phone in phones {
        for packet in lab.heard(phone) {
            assert!((5..=12).contains(&(packet.slot % 20)), "at {}", packet.slot);
        }
    }
    // Two packets a tick, in order, the second at the half tick.
    let slots: Vec<u64> = lab.heard(short).iter().map(|packet| packet.slot % 20).collect();
    assert_eq!(slots, [12, 15].repeat(10));
}

#[test]
fn who_comes_and_goes_between_slices_costs_nobody_a_frame() {
    let mut lab = large_lab(1_500);
    let (room, mut phones) = fill(&mut lab, PHASE, 1_100, 10);
    lab.run(100);
    lab.clear();
    let mut gone = Vec::new();
    for ms in 0..600_usize {
        lab.step();
        // One in the middle, which may be the one that comes next, and its successor.
        if ms % 3 == 0 {
            for _ in 0..2 {
                let place = 2 + ms * 37 % (phones.len() - 2);
                let phone = phones.remove(place);
                lab.must(Command::RemoveEndpoint {
                    at: lab.phones[phone].at,
                });
                gone.push(phone);
            }
        }
        if ms % 2 == 0 {
            lab.add(room, Codec::Pcmu);
        }
    }
    for &phone in &phones {
        assert_eq!(lab.heard(phone).len(), 30, "phone {phone}");
        assert_no_frame_missing(lab.heard(phone), phone);
    }
    assert_eq!(gone.len(), 400);
    for phone in gone.into_iter().chain(1_100..lab.phones.len()) {
        assert_no_frame_missing(lab.heard(phone), phone);
    }
}

/// The member that comes next leaves, and its place goes to another room: every member is tried once.
#[test]
fn whoever_leaves_after_a_slice_the_next_one_is_sent_to() {
    for leaves in 200..300 {
        let mut lab = large_lab(601);
        let (_, phones) = fill(&mut lab, PHASE, 600, 10);
        let elsewhere = lab.add_conference(PHASE + 15);
        lab.run(u64::from(PHASE) + 20);
        lab.clear();
        lab.step();
        let at = lab.phones[phones[leaves]].at;
        lab.must(Command::RemoveEndpoint { at });
        let endpoint = Endpoint::new(lab.setup(None));
        lab.must(Command::AddEndpoint {
            conference: elsewhere,
            at,
            endpoint,
        });
        lab.run(10);
        for &phone in phones.iter().filter(|phone| **phone != phones[leaves]) {
            assert_eq!(lab.heard(phone).len(), 1, "phone {phone} when {leaves} leaves");
        }
    }
}

#[test]
fn a_room_that_becomes_shared_between_slices_is_sent_what_was_mixed() {
    let mut lab = large_lab(700);
    let (room, phones) = fill(&mut lab, PHASE, 700, 10);
    lab.run(u64::from(PHASE) + 1_000);
    lab.clear();
    lab.step();
    let share = Share::new(ShareSetup {
        room: RoomId(7),
        own: 0,
        others: Parts::NONE,
    });
    lab.must(Command::Share { at: room, share });
    lab.run(2_000 - 1 - u64::from(PHASE));
    let expected = small_room(PHASE, 10, 3_000);
    let begin = expected[2].len() - lab.heard(phones[2]).len();
    for &phone in &phones[2..] {
        let like = &expected[if phone / 2 % 2 == 0 { 1 } else { 2 }];
        assert_eq!(
            payloads(lab.heard(phone)),
            payloads(&like[begin..]),
            "phone {phone}"
        );
    }
}

/// Work spaces come back: from rooms that empty, and from such that fail, between two slices.
#[test]
fn a_room_that_goes_between_slices_leaves_its_work_space_to_the_next() {
    for (after, fails) in [(0, false), (1, false), (1, true), (2, true)] {
        let mut lab = large_lab(300);
        let (room, phones) = fill(&mut lab, PHASE, 299, 10);
        // There is one work space.
        for again in 0..3 {
            lab.run(20 + u64::from(PHASE) + after);
            if fails {
                let plan = lab::plan(299, Codec::Pcmu);
                let planted = Endpoint::with_planted_failure(lab.setup(Some(plan)));
                let phone = lab.add_box(room, plan, planted);
                lab.send(phone, true, &[0xFF; 160]);
                while lab.engine.poll_retired().is_some() {}
            } else {
                for phone in &phones {
                    lab.must(Command::RemoveEndpoint {
                        at: lab.phones[*phone].at,
                    });
                }
                lab.must(Command::RemoveConference { at: room });
            }
            lab.phones.clear();
            lab.conferences = 0;
            lab.run(40 - u64::from(PHASE) - after);
            fill(&mut lab, PHASE, 299, again);
        }
        lab.clear();
        lab.run(20);
        let slots: Vec<u64> = (0..299).map(|phone| lab.heard(phone)[0].slot % 20).collect();
        assert_eq!((slots[0], slots[298]), (5, 6), "it is sliced still");
    }
}

#[test]
fn what_is_under_way_is_ended_before_the_state_is_written() {
    let mut lab = large_lab(700);
    let (_, phones) = fill(&mut lab, PHASE, 700, 10);
    lab.run(u64::from(PHASE) + 101);
    lab.clear();
    lab.engine.end_waiting(&mut lab.ears);
    let sent = phones.iter().filter(|phone| !lab.heard(**phone).is_empty());
    assert_eq!(sent.count(), 700 - SLICE as usize);
    lab.clear();
    lab.run(14);
    assert!(phones.iter().all(|phone| lab.heard(*phone).is_empty()));
    lab.run(20);
    assert!(phones.iter().all(|phone| lab.heard(*phone).len() == 1));
}

#[test]
fn a_snapshot_looks_at_as_many_places_as_its_buffer_is_long() {
    let mut lab = Lab::new();
    let room = lab.add_conference(0);
    for _ in 0..6 {
        lab.add(room, Codec::Pcmu);
    }
    lab.must(Command::RemoveEndpoint { at: EndpointIndex(4) });
    for (from, capacity, expected) in [
        (0, 3, vec![0, 1, 2]),
        (3, 2, vec![3]),
        (5, 64, vec![5]),
        (64, 3, vec![]),
        (u32::MAX, 3, vec![]),
    ] {
        let buffer = Box::new(Vec::with_capacity(capacity));
        let from = EndpointIndex(from);
        match lab.must(Command::Snapshot { from, buffer }) {
            Some(Retired::Snapshot(all)) => {
                let at: Vec<_> = all.iter().map(|one| one.at.0).collect();
                assert_eq!(at, expected);
            }
            other => panic!("no snapshot but {other:?}"),
        }
    }
}
