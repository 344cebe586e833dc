//! Trunks: a conference on several mixers sounds as if it were on one.

#![allow(
    clippy::unwrap_used,
    reason = "a test that is wrong about its numbers shall stop"
)]

mod lab;

use lab::mesh::{HERE, Mesh, loud_ticks, two_phones_each};
use lab::{LIMITS, Lab, amplitude, assert_continuous, decode, encode, noise};
use mixer_engine::command::{Command, EndpointIndex, Play, PlayId, PlaySource, Refusal};
use mixer_engine::counters::DropReason;
use mixer_engine::engine::{Endpoint, Engine};
use mixer_engine::event::EventKind;
use mixer_engine::media::Codec;

/// The `n`th frame of somebody who talks now and then.
fn talk(seed: usize, n: u64, peak: i16) -> [i16; 160] {
    if noise(seed + 500, n / 13, 9)[1] < -1 {
        [0; 160]
    } else {
        noise(seed, n, peak)
    }
}

/// Somebody whose voice everybody can foretell.
#[derive(Clone, Copy)]
struct Talker {
    phone: usize,
    seed: usize,
    peak: i16,
    /// It pauses now and then.
    pauses: bool,
    /// It is among the loudest, if only they are mixed.
    mixed: bool,
}

impl Talker {
    fn frame(&self, n: u64) -> [i16; 160] {
        if self.pauses {
            talk(self.seed, n, self.peak)
        } else {
            noise(self.seed, n, self.peak)
        }
    }
}

fn limited(sum: &[i64]) -> Vec<i16> {
    sum.iter()
        .map(|total| i16::try_from((*total).clamp(-32_768, 32_767)).unwrap())
        .collect()
}

/// The exact sum of the `n`th frames of those that are mixed, but for one phone.
fn sum(talkers: &[Talker], n: u64, but: Option<usize>) -> Vec<i64> {
    let mut sum = vec![0; 160];
    for talker in talkers
        .iter()
        .filter(|talker| talker.mixed && Some(talker.phone) != but)
    {
        for (total, sample) in sum.iter_mut().zip(talker.frame(n)) {
            *total += i64::from(sample);
        }
    }
    sum
}

/// What a leg hears at a tick: the others of its site exactly, and of each other site the limited sum, as it went
/// over the trunk. `delays` are frames from a talker at a site to an ear at this one.
fn expected(all: &[Vec<Talker>], site: usize, phone: Option<usize>, tick: u64, delays: &[u64]) -> Vec<i16> {
    let mut total = sum(&all[site], tick - delays[site], phone);
    for (other, talkers) in all.iter().enumerate().filter(|(other, _)| *other != site) {
        let trunk = limited(&sum(talkers, tick - delays[other], None));
        for (total, sample) in total.iter_mut().zip(trunk) {
            *total += i64::from(sample);
        }
    }
    limited(&total)
}

/// How many frames lie between talkers of each site and ears of this one: the only numbers that explain what a leg
/// heard.
fn delays(mesh: &Mesh, all: &[Vec<Talker>], site: usize, listener: usize) -> Vec<u64> {
    let packets = &mesh.sites[site].heard(listener)[60..];
    let explains = |delays: &[u64]| {
        packets.iter().all(|packet| {
            let heard = decode(Codec::L16, &packet.payload);
            heard == expected(all, site, Some(listener), packet.slot / 20, delays)
        })
    };
    let combinations = 12_u64.pow(u32::try_from(all.len()).unwrap());
    let digits = |number: u64| {
        (0..all.len()).map(move |place| number / 12_u64.pow(u32::try_from(place).unwrap()) % 12)
    };
    let all: Vec<Vec<u64>> = (0..combinations)
        .map(|number| digits(number).collect::<Vec<_>>())
        .filter(|delays| explains(delays))
        .collect();
    assert_eq!(all.len(), 1, "site {site}: {all:?}");
    all[0].clone()
}

/// Lets `peaks[site]` talk, with one who only listens at each site, before or after the trunks are laid; those below
/// `loud` are not mixed.
fn populate(mesh: &mut Mesh, peaks: &[&[i16]], pauses: bool, loud: i16) -> Vec<Vec<Talker>> {
    let mut all = Vec::new();
    for (site, peaks) in peaks.iter().enumerate() {
        let lab = &mut mesh.sites[site];
        let talker = |(number, &peak): (usize, &i16)| {
            let phone = lab.add(HERE, Codec::L16);
            let talker = Talker {
                phone,
                seed: 100 * site + number,
                peak,
                pauses,
                mixed: peak >= loud,
            };
            lab.say(phone, move |n| talker.frame(n));
            talker
        };
        all.push(peaks.iter().enumerate().map(talker).collect());
        lab.add(HERE, Codec::L16);
    }
    all
}

/// Every leg of every site heard from its 60th packet on what the oracle says.
fn assert_exact(mesh: &Mesh, all: &[Vec<Talker>]) {
    for (site, lab) in mesh.sites.iter().enumerate() {
        let trunks = mesh.trunks(site);
        let is_trunk = |phone: usize| trunks.contains(&phone);
        let listener = (0..lab.phones.len())
            .find(|&phone| !is_trunk(phone) && all[site].iter().all(|talker| talker.phone != phone))
            .unwrap();
        let delays = delays(mesh, all, site, listener);
        for phone in 0..lab.phones.len() {
            for packet in &lab.heard(phone)[60..] {
                let tick = packet.slot / 20;
                let wanted = if is_trunk(phone) {
                    limited(&sum(&all[site], tick - delays[site], None))
                } else {
                    expected(all, site, Some(phone), tick, &delays)
                };
                assert_eq!(
                    decode(Codec::L16, &packet.payload),
                    wanted,
                    "site {site}, phone {phone}, tick {tick}"
                );
            }
            assert_continuous(lab.heard(phone), 2);
            assert_eq!(lab.heard(phone).len(), 200);
        }
    }
    assert_eq!(mesh.dropped(DropReason::Loop), 0);
}

#[test]
fn everybody_hears_exactly_the_others_of_every_mixer() {
    let rooms: [&[&[i16]]; 4] = [
        &[&[9_000, 2_000], &[3_000, 700, 5_000]],
        &[&[32_767, 32_767, 32_767], &[32_767, 32_767]],
        &[&[4_000], &[5_000], &[6_000]],
        &[
            &[3_000, 20_000, 1_000],
            &[32_767, 30_000],
            &[8_000, 100, 9_000, 500],
        ],
    ];
    for peaks in rooms {
        for pauses in [false, true] {
            // Trunks that are there before the phones, and later ones.
            let mut mesh = Mesh::new(peaks.len(), None);
            if pauses {
                mesh.join_all();
            }
            let all = populate(&mut mesh, peaks, pauses, 0);
            if !pauses {
                mesh.join_all();
            }
            mesh.run(4_000);
            assert_exact(&mesh, &all);
        }
    }
}

#[test]
fn the_loudest_of_every_mixer_are_mixed_and_a_trunk_takes_no_place() {
    let mut mesh = Mesh::new(3, Some(2));
    let all = populate(
        &mut mesh,
        &[&[500, 9_000, 8_000], &[7_000, 6_000], &[3_000, 300, 200, 4_000]],
        false,
        1_000,
    );
    mesh.join_all();
    mesh.run(2_000);
    let left_out = |mesh: &Mesh| [0, 1, 2].map(|site: usize| mesh.sites[site].counters().frames_left_out);
    let before = left_out(&mesh);
    mesh.run(2_000);
    let now = left_out(&mesh);
    let counted = [0, 1, 2].map(|site| now[site] - before[site]);
    assert_eq!(counted, [100, 0, 200], "own talkers only, at every tick");
    assert_exact(&mesh, &all);
    for site in 0..3 {
        for trunk in mesh.trunks(site) {
            assert!(mesh.sites[site].snapshot(trunk).mixed, "site {site}, leg {trunk}");
        }
    }
}

#[test]
fn a_lone_voice_crosses_untouched_and_is_encoded_by_nobody() {
    for codec in [Codec::L16, Codec::Pcmu, Codec::Pcma] {
        let mut mesh = Mesh::new(2, None);
        let talker = mesh.sites[0].add(HERE, codec);
        let near = mesh.sites[0].add(HERE, codec);
        let far: Vec<_> = (0..2).map(|_| mesh.sites[1].add(HERE, codec)).collect();
        let (here, there) = mesh.join(0, 1, codec);
        mesh.sites[0].say(talker, |n| noise(1, n, 20_000));
        mesh.run(3_000);
        let sent: Vec<u8> = (0..150)
            .flat_map(|n| encode(codec, &noise(1, n, 20_000)))
            .collect();
        for (site, leg) in [(0, near), (0, here), (1, far[0]), (1, far[1])] {
            let heard: Vec<u8> = mesh.sites[site].heard(leg)[60..]
                .iter()
                .flat_map(|packet| packet.payload.clone())
                .collect();
            assert!(
                sent.windows(heard.len())
                    .step_by(160 * codec.bytes_per_sample())
                    .any(|part| part == heard),
                "{codec:?}, site {site}, leg {leg}"
            );
        }
        for site in 0..2 {
            assert_eq!(mesh.sites[site].counters().encodes, [0; 3]);
            assert!(mesh.sites[site].counters().passthrough > 140);
        }
        // The talker hears silence, and so does the trunk that brought the voice.
        let silence = encode(codec, &[0; 160]);
        assert!(
            mesh.sites[0]
                .heard(talker)
                .iter()
                .all(|packet| packet.payload == silence)
        );
        assert!(
            mesh.sites[1]
                .heard(there)
                .iter()
                .all(|packet| packet.payload == silence)
        );
        // Each leg is told whose voice it is as far as its mixer knows: the trunk's.
        let trunk = mesh.sites[0].setup(None).ssrc - 1;
        assert_eq!(mesh.sites[1].heard(far[0])[100].csrc, [trunk]);
        assert_eq!(
            mesh.sites[0].heard(here)[100].csrc,
            [mesh.sites[0].phones[talker].ssrc]
        );
        assert!(mesh.sites[1].heard(there)[100].csrc.is_empty());
    }
}

#[test]
fn trunks_share_one_encode_per_codec() {
    let mut lab = Lab::new();
    lab.add_conference(5);
    for codec in [Codec::L16, Codec::L16, Codec::Pcmu] {
        let phone = lab.add(HERE, codec);
        lab.say(phone, move |n| noise(phone, n, 3_000));
    }
    for _ in 0..4 {
        lab.add(HERE, Codec::Pcma);
    }
    let trunks: Vec<_> = [Codec::L16, Codec::L16, Codec::L16, Codec::Pcmu, Codec::Pcmu]
        .into_iter()
        .map(|codec| lab.add_trunk(HERE, codec))
        .collect();
    for &trunk in &trunks {
        lab.say(trunk, move |n| noise(50 + trunk, n, 2_000));
    }
    lab.run(2_000);
    for _ in 0..50 {
        let before = lab.counters().encodes;
        lab.run(20);
        let now = lab.counters().encodes;
        // Pcmu: a talker and the trunks; Pcma: the listeners; L16: two talkers and the trunks.
        let counted = [0, 1, 2].map(|codec: usize| now[codec] - before[codec]);
        assert_eq!(counted, [2, 1, 3]);
    }
    let payload = |trunk: usize| lab.heard(trunk)[120].payload.clone();
    assert!(
        trunks[1..3]
            .iter()
            .all(|&trunk| payload(trunk) == payload(trunks[0]))
    );
    assert_eq!(payload(trunks[3]), payload(trunks[4]));
}

#[test]
fn plays_to_the_conference_stay_at_home_and_those_to_a_trunk_go_over_it() {
    let mut mesh = two_phones_each(2);
    let (here, _) = mesh.join(0, 1, Codec::L16);
    // Whether something else is heard or not.
    for talkers in 0..3 {
        if let Some(phone) = usize::checked_sub(talkers, 1) {
            mesh.sites[0].say(phone, move |n| noise(phone, n, 200));
        }
        plays_cross_as_wanted(&mut mesh, here);
    }
}

/// Plays 500 Hz to the first conference and 700 Hz to the trunk that leaves it.
fn plays_cross_as_wanted(mesh: &mut Mesh, trunk: usize) {
    let play = |id, hertz| Play {
        id: PlayId(id),
        source: PlaySource::Tone {
            hertz,
            attenuation_db: 10,
            duration_ms: 400,
        },
        repeat: 1,
    };
    mesh.sites[0].must(Command::PlayToConference {
        at: HERE,
        play: play(1, 500),
    });
    let at = mesh.sites[0].phones[trunk].at;
    mesh.sites[0].must(Command::PlayToEndpoint {
        at,
        play: play(2, 700),
    });
    mesh.clear();
    mesh.run(1_000);
    let heard = |site: usize, leg: usize| {
        let pcm = mesh.sites[site].pcm(leg);
        [500.0, 700.0].map(|hertz| amplitude(&pcm, hertz) > 1_000.0)
    };
    assert_eq!(heard(0, 1), [true, false], "a phone here");
    assert_eq!(heard(0, trunk), [false, true], "the trunk");
    assert_eq!(heard(1, 0), [false, true], "a phone there");
}

#[test]
fn mute_deaf_and_hold_do_to_a_trunk_what_they_do_to_a_leg() {
    let mut mesh = two_phones_each(2);
    let (here, there) = mesh.join(0, 1, Codec::L16);
    for site in 0..2 {
        mesh.sites[site].say(0, move |n| noise(site, n, 5_000));
    }
    let at = mesh.sites[0].phones[here].at;
    let on = true;
    let cases = [
        (Command::Mute { at, on: false }, [true, true]),
        (Command::Mute { at, on }, [false, true]),
        (Command::Mute { at, on: false }, [true, true]),
        (Command::Deaf { at, on }, [true, false]),
        (Command::Deaf { at, on: false }, [true, true]),
        (Command::Hold { at, on }, [false, false]),
    ];
    for (command, crosses) in cases {
        mesh.sites[0].must(command);
        mesh.run(500);
        mesh.clear();
        mesh.run(500);
        // The phone that talks at a site hears the other site alone.
        let hears = [0, 1].map(|site: usize| !loud_ticks(&mesh.sites[site], 0).is_empty());
        assert_eq!(hears, crosses);
    }
    assert!(!loud_ticks(&mesh.sites[1], there).is_empty());
}

#[test]
fn a_conference_with_a_trunk_is_not_empty_and_fails_as_a_whole() {
    let mut lab = Lab::new();
    lab.add_conference(5);
    let trunk = lab.add_trunk(HERE, Codec::L16);
    assert_eq!(
        lab.refused(Command::RemoveConference { at: HERE }),
        Refusal::NotEmpty
    );
    let at = lab.phones[trunk].at;
    lab.must(Command::RemoveEndpoint { at });
    lab.must(Command::RemoveConference { at: HERE });
    let room = lab.add_conference(5);
    lab.add_trunk(room, Codec::L16);
    let plan = lab::plan(2, Codec::L16);
    let planted = Endpoint::with_planted_failure(lab.setup(Some(plan)));
    lab.add_box(room, plan, planted);
    lab.run(40);
    assert!(
        lab.events
            .iter()
            .any(|event| event.kind == EventKind::ConferenceFailed)
    );
    let retired: Vec<_> = std::iter::from_fn(|| lab.engine.poll_retired())
        .map(|(at, _)| at)
        .collect();
    assert_eq!(retired, [u32::MAX, 2, 1].map(EndpointIndex));
}

#[test]
fn a_trunk_is_one_after_its_state_went_through_bytes() {
    let run = |cut: bool| {
        let mut lab = Lab::new();
        lab.add_conference(5);
        for phone in 0..5 {
            let leg = if phone % 2 == 1 {
                lab.add_trunk(HERE, Codec::L16)
            } else {
                lab.add(HERE, Codec::L16)
            };
            lab.say(leg, move |n| talk(leg, n, 9_000));
        }
        lab.run(1_234);
        if cut {
            let state = lab.engine.export_state(|_| None).unwrap();
            lab.engine = Engine::import_state(LIMITS, &state, |_| None).unwrap();
        }
        lab.run(1_234);
        let at = EndpointIndex(1);
        lab.must(Command::RemoveEndpoint { at });
        lab.run(500);
        lab
    };
    let (whole, cut) = (run(false), run(true));
    for leg in 0..5 {
        assert_eq!(whole.heard(leg), cut.heard(leg), "leg {leg}");
    }
    assert_eq!(whole.counters(), cut.counters());
}
