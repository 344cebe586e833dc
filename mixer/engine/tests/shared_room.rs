//! A conference spread over several engines sounds as if it were in one.

#![allow(
    clippy::unwrap_used,
    reason = "a test that is wrong about its numbers shall stop"
)]

mod lab;

use lab::{Lab, Packet, noise};
use mixer_engine::command::{Command, ConferenceIndex, Refusal, Retired};
use mixer_engine::engine::Endpoint;
use mixer_engine::engine::share::{Partial, Parts, RoomId, Share, ShareSetup};
use mixer_engine::event::EventKind;
use mixer_engine::media::Codec;

const ROOM: RoomId = RoomId(77);
/// Where a phone waits in the engines that it is not in.
const PARKED: ConferenceIndex = ConferenceIndex(1);
const HERE: ConferenceIndex = ConferenceIndex(0);

/// Engines that share a room, and one that has all of it.
struct Site {
    parts: Vec<Lab>,
    whole: Lab,
    /// A part that nobody hears from.
    cut_off: Option<usize>,
}

fn share(own: usize, of: usize) -> Box<Share> {
    let numbers = (0..of).map(|part| u8::try_from(part).unwrap());
    Share::new(ShareSetup {
        room: ROOM,
        own: u8::try_from(own).unwrap(),
        others: numbers.fold(Parts::NONE, Parts::with),
    })
}

impl Site {
    fn new(parts: usize) -> Self {
        let lab = || {
            let mut lab = Lab::new();
            lab.add_conference(5);
            lab.add_conference(5);
            lab
        };
        let mut site = Self {
            parts: (0..parts).map(|_| lab()).collect(),
            whole: lab(),
            cut_off: None,
        };
        site.share_among(parts);
        site
    }

    /// Lets the first so many share the room.
    fn share_among(&mut self, parts: usize) {
        for (own, part) in self.parts.iter_mut().enumerate().take(parts) {
            let share = share(own, parts);
            part.must(Command::Share { at: HERE, share });
        }
    }

    /// Adds a phone, the same to its part and to the whole.
    fn add(&mut self, part: usize, codec: Codec) -> usize {
        for (number, lab) in self.parts.iter_mut().enumerate() {
            lab.add(if number == part { HERE } else { PARKED }, codec);
        }
        self.whole.add(HERE, codec)
    }

    /// Adds a trunk, to the first part and to the whole.
    fn add_trunk(&mut self, codec: Codec) -> usize {
        for (number, lab) in self.parts.iter_mut().enumerate() {
            lab.add_trunk(if number == 0 { HERE } else { PARKED }, codec);
        }
        self.whole.add_trunk(HERE, codec)
    }

    fn say(&mut self, part: usize, phone: usize, pcm: impl FnMut(u64) -> [i16; 160] + Clone + 'static) {
        self.parts[part].say(phone, pcm.clone());
        self.whole.say(phone, pcm);
    }

    fn run(&mut self, ms: u64) {
        for _ in 0..ms {
            self.whole.step();
            for number in 0..self.parts.len() {
                self.parts[number].step();
                while let Some(partial) = self.parts[number].engine.poll_partial().cloned() {
                    self.carry(number, &partial);
                }
            }
        }
    }

    fn carry(&mut self, from: usize, partial: &Partial) {
        assert!(!partial.recipients().contains(u8::try_from(from).unwrap()));
        for (number, other) in (0..).zip(&mut self.parts) {
            if partial.recipients().contains(number) && self.cut_off != Some(from) {
                other.engine.take_partial(partial);
            }
        }
    }

    fn heard(&self, part: usize, phone: usize) -> &[Packet] {
        self.parts[part].heard(phone)
    }

    /// Asserts that a phone hears in its part what it hears in the whole, at most a slot later, but for its
    /// first packets.
    fn assert_same(&self, part: usize, phone: usize) {
        let (heard, expected) = (self.heard(part, phone), self.whole.heard(phone));
        assert_eq!(heard.len(), expected.len(), "phone {phone}");
        for (packet, expected) in heard.iter().zip(expected) {
            assert!((expected.slot..=expected.slot + 1).contains(&packet.slot));
            let slot = expected.slot;
            assert_eq!(
                &Packet {
                    slot,
                    ..packet.clone()
                },
                expected,
                "phone {phone}"
            );
        }
    }
}

/// Phones by turns over the parts, with every codec in every part; of so many the first talk.
fn crowd(parts: usize, phones: usize, talkers: usize) -> Site {
    let mut site = Site::new(parts);
    for number in 0..phones {
        let phone = site.add(number % parts, Codec::ALL[number / parts % 3]);
        assert_eq!(phone, number);
        if number < talkers {
            // Every other one at full scale, so that the limiter is at work.
            let peak = if number % 2 == 0 { 32_767 } else { 2_000 };
            site.say(number % parts, phone, move |n| noise(number, n, peak));
        }
    }
    site
}

#[test]
fn everybody_hears_byte_for_byte_what_one_engine_would_send() {
    for (parts, phones, talkers) in [
        (2, 2, 2),
        (2, 9, 3),
        (2, 12, 12),
        (3, 18, 7),
        (3, 20, 1),
        (5, 20, 20),
    ] {
        let mut site = crowd(parts, phones, talkers);
        site.run(3_000);
        for phone in 0..phones {
            site.assert_same(phone % parts, phone);
            assert_eq!(site.whole.heard(phone).len(), 150);
        }
        let counters = site.parts[0].counters();
        assert_eq!(counters.partials_missing, 0);
        assert_eq!(counters.partials_added, 150 * (u64::try_from(parts).unwrap() - 1));
    }
}

#[test]
fn a_lone_talker_of_another_part_is_passed_on_untouched() {
    let mut site = Site::new(2);
    let talker = site.add(0, Codec::Pcmu);
    let listener = site.add(1, Codec::Pcmu);
    let other = site.add(1, Codec::Pcma);
    site.say(0, talker, |n| noise(1, n, 9_000));
    site.run(1_000);
    let encodes: u64 = site.parts[1].counters().encodes.iter().sum();
    assert_eq!(
        site.heard(1, listener).len() + site.heard(1, other).len(),
        100,
        "both get a packet at every tick"
    );
    assert!(encodes <= 50, "for the other codec alone, not {encodes}");
    assert!(site.parts[1].counters().passthrough > 45);
    site.assert_same(1, listener);
    site.assert_same(1, other);
}

#[test]
fn silence_in_bytes_of_its_own_keeps_them_in_another_part() {
    let mut site = Site::new(2);
    let silent = site.add(0, Codec::Pcmu);
    let listener = site.add(1, Codec::Pcmu);
    // Zero, by the name that mu-law has for it from below.
    let zero_from_below = |_| vec![0x7f; 160];
    site.parts[0].talk(silent, zero_from_below);
    site.whole.talk(silent, zero_from_below);
    site.run(1_000);
    site.assert_same(1, listener);
    assert_eq!(site.heard(1, listener)[40].payload, zero_from_below(0));
}

#[test]
fn a_part_that_is_late_is_left_out_and_the_rest_goes_on() {
    let mut site = crowd(2, 6, 6);
    site.run(1_000);
    site.cut_off = Some(1);
    site.run(200);
    let counters = site.parts[0].counters();
    assert_eq!(counters.partials_missing, 10);
    let slots: Vec<_> = site.heard(0, 0).iter().map(|packet| packet.slot).collect();
    assert_eq!(slots.len(), 60, "a packet at every tick all the same");
    assert_eq!(slots[55] - slots[45], 200 + 7, "8 ms after its tick instead of 1");
    assert_eq!(
        site.parts[1].counters().partials_missing,
        0,
        "the part that is cut off hears the others"
    );
    site.cut_off = None;
    site.run(1_000);
    let same = |phone: usize| {
        let (heard, expected) = (site.heard(phone % 2, phone), site.whole.heard(phone));
        let later = heard.iter().zip(expected).skip(60);
        assert!(later.clone().count() > 40);
        later.clone().all(|(one, other)| one.payload == other.payload)
    };
    assert!((0..6).all(same));
    assert_eq!(site.parts[0].counters().partials_missing, 10);
}

#[test]
fn a_new_part_joins_without_a_frame_lost() {
    let mut site = crowd(3, 12, 12);
    // Two of the three begin; whoever is in the third hears its own part alone.
    for part in 0..2 {
        let share = share(part, 2);
        let retired = site.parts[part].must(Command::Share { at: HERE, share });
        assert!(matches!(retired, Some(Retired::Share(_))));
    }
    site.run(1_003);
    // In the middle of a tick that waits for nobody, and of one that does.
    for extra in 0..20 {
        site.share_among(if extra % 2 == 0 { 3 } else { 2 });
        site.run(21);
    }
    site.share_among(3);
    site.run(1_000);
    for phone in 0..12 {
        let heard = site.heard(phone % 3, phone);
        let mut sequences = heard
            .windows(2)
            .map(|pair| pair[1].sequence.wrapping_sub(pair[0].sequence));
        assert!(sequences.all(|step| step == 1), "phone {phone}");
        let expected = site.whole.heard(phone);
        assert_eq!(heard.len(), expected.len());
        for (packet, expected) in heard.iter().zip(expected).rev().take(40) {
            assert_eq!(packet.payload, expected.payload, "phone {phone}");
        }
    }
}

#[test]
fn only_a_conference_that_is_there_can_be_shared_and_its_part_comes_back() {
    let mut site = Site::new(2);
    let nobody = ConferenceIndex(3);
    let share_of = || share(0, 2);
    let refusal = site.parts[0].refused(Command::Share {
        at: nobody,
        share: share_of(),
    });
    assert_eq!(refusal, Refusal::NotFound);
    site.run(100);
    let lab = &mut site.parts[0];
    lab.must(Command::RemoveConference { at: HERE });
    assert!(matches!(lab.engine.poll_retired(), Some((_, Retired::Share(_)))));
    assert!(lab.engine.poll_retired().is_none());
    // What others still tell finds nobody.
    site.run(100);
    assert_eq!(site.parts[1].counters().partials_missing, 5);
}

#[test]
fn a_part_that_fails_takes_no_other_with_it() {
    let mut site = crowd(2, 4, 4);
    site.run(1_000);
    let lab = &mut site.parts[0];
    let plan = lab::plan(4, Codec::Pcmu);
    let planted = Endpoint::with_planted_failure(lab.setup(Some(plan)));
    lab.add_box(HERE, plan, planted);
    site.run(200);
    assert!(
        site.parts[0]
            .events
            .iter()
            .any(|event| event.kind == EventKind::ConferenceFailed)
    );
    let retired = std::iter::from_fn(|| site.parts[0].engine.poll_retired());
    assert_eq!(
        retired
            .filter(|(_, retired)| matches!(retired, Retired::Share(_)))
            .count(),
        1
    );
    assert_eq!(site.heard(1, 1).len(), 60, "the other part goes on");
}

#[test]
fn a_part_goes_on_from_its_state_after_the_tick_that_waited_was_ended() {
    let mut site = crowd(2, 6, 6);
    site.run(1_006);
    let lab = &mut site.parts[0];
    let before = lab.heard(0).len();
    lab.engine.end_waiting(&mut lab.ears);
    lab.engine.end_waiting(&mut lab.ears);
    assert_eq!(lab.heard(0).len(), before + 1, "once, without the other part");
    let state = lab.engine.export_state(|_| None).unwrap();
    lab.engine = mixer_engine::engine::Engine::import_state(lab::LIMITS, &state, |_| None).unwrap();
    site.run(1_003);
    assert_eq!(site.heard(0, 0).len(), site.whole.heard(0).len());
    let later = site.heard(0, 0).iter().zip(site.whole.heard(0)).skip(55);
    assert!(later.clone().count() > 40);
    for (one, other) in later {
        assert_eq!((one.sequence, &one.payload), (other.sequence, &other.payload));
    }
}

#[test]
fn trunks_of_one_part_are_sent_the_members_of_all_and_no_trunk() {
    let mut site = Site::new(3);
    for number in 0..9 {
        let phone = site.add(number % 3, Codec::ALL[number % 2]);
        site.say(number % 3, phone, move |n| noise(number, n, 2_000));
    }
    let trunks: Vec<_> = (0..3).map(|_| site.add_trunk(Codec::L16)).collect();
    for &trunk in &trunks[..2] {
        site.say(0, trunk, move |n| noise(trunk, n, 4_000));
    }
    let listener = site.add(2, Codec::L16);
    site.run(3_000);
    for phone in 0..9 {
        site.assert_same(phone % 3, phone);
    }
    site.assert_same(2, listener);
    for trunk in &trunks {
        site.assert_same(0, *trunk);
        let (one, first) = (&site.heard(0, *trunk)[100], &site.heard(0, trunks[0])[100]);
        assert_eq!(one.payload, first.payload, "the same for all");
    }
    // What the listener hears more than a trunk are the two trunks that talk.
    let pcm = |packet: &Packet| lab::decode(Codec::L16, &packet.payload);
    let (heard, over) = (
        pcm(&site.heard(2, listener)[100]),
        pcm(&site.heard(0, trunks[0])[100]),
    );
    let more: Vec<i16> = heard.iter().zip(&over).map(|(all, own)| all - own).collect();
    let tick = site.heard(2, listener)[100].slot / 20;
    let both = |n: u64| -> Vec<i16> {
        let frames = trunks[..2].iter().map(|&trunk| noise(trunk, n, 4_000));
        frames.fold(vec![0; 160], |sum, frame| {
            sum.iter()
                .zip(frame)
                .map(|(total, sample)| total + sample)
                .collect()
        })
    };
    assert!((0..10).any(|delay| more == both(tick - delay)));
}

#[test]
fn a_trunk_that_joins_while_a_tick_waits_is_sent_this_tick() {
    let mut site = Site::new(2);
    for number in 0..4 {
        let phone = site.add(number % 2, Codec::Pcmu);
        site.say(number % 2, phone, move |n| noise(number, n, 2_000));
    }
    let listener = site.add(0, Codec::L16);
    let first = site.add_trunk(Codec::L16);
    site.run(1_000);
    // It leaves, and what it was sent last is not what the next one is sent first.
    let at = site.parts[0].phones[first].at;
    site.parts[0].must(Command::RemoveEndpoint { at });
    site.run(200);
    while site.parts[0].slot % 20 != 6 {
        site.run(1);
    }
    let second = site.add_trunk(Codec::L16);
    site.run(1);
    let (heard, sent) = (site.heard(0, listener).last(), site.heard(0, second).last());
    assert_eq!(heard.unwrap().slot, sent.expect("sent in the same slot").slot);
    assert_eq!(heard.unwrap().payload, sent.unwrap().payload);
}
