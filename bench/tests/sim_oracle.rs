//! The oracle: on a clean network what everybody hears is the clamped sum of what the others said,
//! sample by sample.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bench::seed::Seed;
use bench::sim::phone::{StreamFaults, Voice};
use bench::sim::world::{Setup, World};
use mixer::io::sim::Impairment;
use mixer_engine::media::Codec;

const FRAME: usize = 160;
const FRAMES: usize = 500;

fn linear(samples: &[i16]) -> Rc<Vec<u8>> {
    Rc::new(samples.iter().flat_map(|sample| sample.to_be_bytes()).collect())
}

fn samples(payload: &[u8]) -> Vec<i16> {
    payload
        .chunks_exact(2)
        .map(|pair| i16::from_be_bytes([pair[0], pair[1]]))
        .collect()
}

/// Every sample of frame `k` is `k + 1`: what is heard says which frame it was.
fn numbered() -> Rc<Vec<u8>> {
    let stamps = (1..).take(FRAMES).flat_map(|stamp: i16| [stamp; FRAME]);
    linear(&stamps.collect::<Vec<i16>>())
}

/// Full-scale noise: sums overflow all the time.
fn loud(seed: u64) -> Vec<i16> {
    let mut seed = Seed::new(seed);
    (0..FRAMES * FRAME).map(|_| seed.half().cast_signed()).collect()
}

/// Payloads by (phone, tick).
type Heard = BTreeMap<(u16, u64), Vec<i16>>;

fn listen(world: &mut World, length: Duration, phones: &[u16]) -> Heard {
    let mut heard = Heard::new();
    world.run(length, |phone, slot, payload| {
        if phones.contains(&phone) {
            heard.insert((phone, slot.0 / 20), samples(payload));
        }
    });
    heard
}

/// Lets one phone after the other count aloud, and learns at which tick its frame 0 is or would have
/// been heard. Frames go on being sent, so this holds from then on.
fn learn_offsets(world: &mut World, phones: &[u16]) -> BTreeMap<u16, i64> {
    let mut offsets = BTreeMap::new();
    for &talker in phones {
        let before = {
            let phone = world.phone(talker).unwrap();
            phone.say(Voice::Loop(numbered()));
            i64::try_from(phone.sent).unwrap()
        };
        let heard = listen(world, Duration::from_millis(600), phones);
        world.phone(talker).unwrap().say(Voice::Silent);
        world.run(Duration::from_millis(400), |_, _, _| {});
        let listener = phones.iter().copied().find(|&other| other != talker).unwrap();
        let (tick, frame) = heard
            .iter()
            .filter(|((phone, _), _)| *phone == listener)
            .find_map(|((_, tick), pcm)| (pcm[0] > 5).then_some((*tick, pcm[0])))
            .expect("the talker is heard");
        for ((phone, at), pcm) in &heard {
            let expected = i64::from(frame) + i64::try_from(*at).unwrap() - i64::try_from(tick).unwrap();
            if *phone == talker {
                assert!(pcm.iter().all(|&x| x == 0), "{talker} hears itself");
            } else if *at >= tick && expected > 0 {
                assert!(
                    pcm.iter().all(|&x| i64::from(x) == expected),
                    "{talker} is heard without a break"
                );
            }
        }
        offsets.insert(
            talker,
            i64::try_from(tick).unwrap() - (i64::from(frame) - 1) - before,
        );
    }
    offsets
}

/// All phones shout; what each hears is compared with the clamped sum of the others.
fn check_sums(world: &mut World, phones: &[u16], offsets: &BTreeMap<u16, i64>) -> usize {
    let shouts: BTreeMap<u16, Vec<i16>> = phones
        .iter()
        .map(|&phone| (phone, loud(u64::from(phone) + 100)))
        .collect();
    let mut first = BTreeMap::new();
    for &index in phones {
        let phone = world.phone(index).unwrap();
        phone.say(Voice::Loop(linear(&shouts[&index])));
        first.insert(index, i64::try_from(phone.sent).unwrap() + offsets[&index]);
    }
    let heard = listen(world, Duration::from_secs(8), phones);
    for &index in phones {
        world.phone(index).unwrap().say(Voice::Silent);
    }
    let mut compared = 0;
    for ((listener, tick), pcm) in &heard {
        let mut sum = vec![0i32; FRAME];
        for talker in phones.iter().filter(|talker| *talker != listener) {
            let Ok(frame) = usize::try_from(i64::try_from(*tick).unwrap() - first[talker]) else {
                continue;
            };
            let said = &shouts[talker][frame * FRAME..(frame + 1) * FRAME];
            sum.iter_mut().zip(said).for_each(|(s, &x)| *s += i32::from(x));
        }
        let clamp = |s: i32| i16::try_from(s.clamp(-32_768, 32_767)).unwrap();
        let oracle: Vec<i16> = sum.into_iter().map(clamp).collect();
        assert_eq!(*pcm, oracle, "phone {listener} at tick {tick}");
        compared += pcm.len();
    }
    compared
}

/// A room of `size` beside a room that shouts, then with one more, then without its first two.
fn check_room(seed: u64, size: usize) {
    let clean = Impairment {
        delay: Duration::from_millis(3),
        ..Impairment::default()
    };
    let mut world = World::new(Setup {
        seed,
        network: clean,
        conferences: 2,
    });
    let neighbour = linear(&loud(7));
    for _ in 0..3 {
        world.join(1, Codec::L16, Voice::Loop(Rc::clone(&neighbour)));
    }
    let mut phones: Vec<u16> = (0..size)
        .map(|_| world.join(0, Codec::L16, Voice::Silent))
        .collect();
    for change in 0..3 {
        match change {
            0 => {}
            1 => phones.push(world.join(0, Codec::L16, Voice::Silent)),
            _ => phones.drain(..2).for_each(|phone| world.leave(phone)),
        }
        world.run(Duration::from_secs(2), |_, _, _| {});
        let offsets = learn_offsets(&mut world, &phones);
        let compared = check_sums(&mut world, &phones, &offsets);
        assert!(
            compared >= phones.len() * 390 * FRAME,
            "only {compared} samples compared"
        );
        world.run(Duration::from_secs(1), |_, _, _| {});
    }
    assert_eq!(world.faults(), StreamFaults::default());
}

#[test]
fn in_rooms_of_every_size_everybody_hears_exactly_the_clamped_sum_of_the_others() {
    for (seed, size) in [(1, 3), (2, 4), (3, 7), (4, 25)] {
        check_room(seed, size);
    }
}
