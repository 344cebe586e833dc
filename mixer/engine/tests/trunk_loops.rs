//! Whatever trunks are connected to: nothing goes round.

#![allow(
    clippy::unwrap_used,
    reason = "a test that is wrong about its numbers shall stop"
)]

mod lab;

use lab::mesh::{HERE, clicks, loud_ticks, two_phones_each};
use mixer_engine::counters::DropReason;
use mixer_engine::media::Codec;

#[test]
fn a_click_goes_round_no_ring_of_mixers() {
    let mut mesh = two_phones_each(3);
    mesh.join_all();
    // Once at every ear and on the talker's trunks; never back, and over no second trunk.
    assert_eq!(clicks(&mut mesh), [[0, 1, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0]]);
    // Twice as many trunks, and everybody hears it twice: louder, but no ring.
    let mut mesh = two_phones_each(3);
    mesh.join_all();
    mesh.join_all();
    let heard = clicks(&mut mesh);
    assert!(heard.iter().flatten().all(|&ticks| ticks <= 2), "{heard:?}");
    assert_eq!(heard[0], [0, 1, 1, 1, 1, 1]);
    // A chain ends at the next mixer.
    let mut mesh = two_phones_each(3);
    mesh.join(0, 1, Codec::L16);
    mesh.join(1, 2, Codec::L16);
    assert_eq!(
        clicks(&mut mesh),
        [vec![0, 1, 1], vec![1, 1, 0, 0], vec![0, 0, 0]]
    );
}

#[test]
fn what_a_trunk_brings_back_to_its_own_conference_is_dropped() {
    // Onto itself, onto another trunk, onto a leg.
    for end in [2, 3, 1] {
        let mut mesh = two_phones_each(1);
        let trunk = mesh.sites[0].add_trunk(HERE, Codec::L16);
        mesh.sites[0].add_trunk(HERE, Codec::L16);
        mesh.wire((0, trunk), (0, end), 10);
        assert_eq!(clicks(&mut mesh), [[0, 1, 1, 1]], "onto {end}");
        assert!(mesh.dropped(DropReason::Loop) >= 290, "onto {end}");
        assert_eq!(mesh.sites[0].counters().rtp_received, 300);
    }
}

#[test]
fn two_conferences_of_one_mixer_are_joined_and_a_bridge_beside_the_trunk_feeds_nothing_back() {
    let mut mesh = two_phones_each(1);
    let there = mesh.sites[0].add_conference(11);
    mesh.sites[0].add(there, Codec::L16);
    let trunks = [HERE, there].map(|room| mesh.sites[0].add_trunk(room, Codec::L16));
    mesh.wire((0, trunks[0]), (0, trunks[1]), 10);
    assert_eq!(clicks(&mut mesh), [[0, 1, 1, 1, 0]]);
    assert_eq!(mesh.dropped(DropReason::Loop), 0);
    // Somebody joins the conferences once more, with two ordinary legs: what came from one conference and would go
    // back to it names the trunk's SSRC among its sources.
    let mut mesh = two_phones_each(1);
    let there = mesh.sites[0].add_conference(11);
    mesh.sites[0].add(there, Codec::L16);
    let trunks = [HERE, there].map(|room| mesh.sites[0].add_trunk(room, Codec::L16));
    mesh.wire((0, trunks[0]), (0, trunks[1]), 10);
    let legs = [HERE, there].map(|room| mesh.sites[0].add(room, Codec::L16));
    mesh.wire((0, legs[0]), (0, legs[1]), 10);
    clicks(&mut mesh);
    let last = loud_ticks(&mesh.sites[0], 1);
    assert!(
        !last.is_empty() && last.len() < 12 && last.last().unwrap() - last[0] < 15,
        "{last:?}"
    );
    assert!(mesh.dropped(DropReason::Loop) > 0);
}
