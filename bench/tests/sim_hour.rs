//! A simulated hour on a bad network: whatever arrives, what leaves is perfect, and a seed is enough
//! to see it again.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use bench::seed::Seed;
use bench::sim::phone::{StreamFaults, Voice};
use bench::sim::world::{Setup, World};
use mixer::io::sim::Impairment;
use mixer_engine::counters::FrameOutcome;
use mixer_engine::media::Codec;

const CONFERENCES: u32 = 12;

/// Two per cent lost, 40 ms of delay variance: far more than one frame, so that packets overtake.
fn bad_network() -> Impairment {
    Impairment {
        loss: 0.02,
        variance: Duration::from_millis(40),
        ..Impairment::default()
    }
}

/// About a hundred phones in twelve conferences, half of them talking; every second one joins or leaves.
fn live(seed: u64, seconds: u32) -> World {
    let mut world = World::new(Setup {
        seed,
        network: bad_network(),
        conferences: CONFERENCES,
    });
    let mut noise = Seed::new(17);
    let voice: Rc<Vec<u8>> = Rc::new((0..50 * 160).map(|_| noise.bits().to_be_bytes()[0]).collect());
    let join = |world: &mut World| {
        let conference = u32::from(world.seed.half()) % CONFERENCES;
        let codec = if world.seed.below(4) == 0 {
            Codec::Pcma
        } else {
            Codec::Pcmu
        };
        let talks = world.seed.below(2) == 0;
        world.join(
            conference,
            codec,
            if talks {
                Voice::Loop(Rc::clone(&voice))
            } else {
                Voice::Silent
            },
        );
    };
    for _ in 0..100 {
        join(&mut world);
    }
    for _ in 0..seconds {
        world.run(Duration::from_secs(1), |_, _, _| {});
        let leaves = world.phones() > 105 || (world.phones() > 95 && world.seed.below(2) == 0);
        match world.anybody() {
            Some(phone) if leaves => world.leave(phone),
            _ => join(&mut world),
        }
    }
    world
}

/// An hour, then everybody leaves; the digest of all that was sent.
fn hour(seed: u64) -> u64 {
    let mut world = live(seed, 3_600);
    while let Some(phone) = world.anybody() {
        world.leave(phone);
        world.run(Duration::from_millis(1), |_, _, _| {});
    }
    world.run(Duration::from_millis(100), |_, _, _| {});
    assert_eq!(world.faults(), StreamFaults::default());
    assert_eq!(
        world.wrong_counts(),
        0,
        "streams with a packet too many or too few"
    );
    assert_eq!(world.phones(), 0);
    // The network was as bad as it was meant to be.
    let counters = world.counters();
    let frames = |outcome: FrameOutcome| counters.frames[outcome as usize];
    assert!(
        counters.rtp_sent > 3_600 * 50 * 95,
        "{} packets sent",
        counters.rtp_sent
    );
    let lost = frames(FrameOutcome::NetworkLost) as f64;
    let share = lost / (lost + frames(FrameOutcome::Played) as f64);
    assert!((0.01..0.04).contains(&share), "{share} of all frames were lost");
    world.digest()
}

#[test]
fn an_hour_of_loss_and_joins_leaves_no_gap_in_what_is_sent_and_can_be_seen_again() {
    let [first, again] = std::thread::scope(|scope| {
        [1, 1]
            .map(|seed| scope.spawn(move || hour(seed)))
            .map(|thread| thread.join().unwrap())
    });
    assert_eq!(first, again);
}

#[test]
fn another_seed_gives_other_bytes() {
    let digests: BTreeSet<u64> = [11, 11, 12, 13].map(|seed| live(seed, 120).digest()).into();
    assert_eq!(digests.len(), 3, "two equal seeds and two others: {digests:?}");
}
