use std::time::Duration;

use signaling_core::effect::MixerRequest;
use signaling_core::input::{Input, MixerEvent, MixerEventKind, MixerRefusal};

use crate::world::{MIXER, OFFER, Phone, World, config, ok_to, statuses};

#[test]
fn refusals_of_the_mixer_reach_the_caller() {
    let table = [
        ("create_conference", MixerRefusal::Overloaded, 503),
        ("create_conference", MixerRefusal::Unreachable, 503),
        ("create_conference", MixerRefusal::Failed, 500),
        ("create_endpoint", MixerRefusal::Overloaded, 503),
        ("create_endpoint", MixerRefusal::Unreachable, 503),
        ("create_endpoint", MixerRefusal::Locked, 486),
        ("create_endpoint", MixerRefusal::NotFound, 503),
        ("create_endpoint", MixerRefusal::Failed, 500),
    ];
    for (request, reason, status) in table {
        let mut world = World::new();
        world.mixer.refusals.push_back((request, reason));
        let sent = world.exchange(&Phone::new("a").invite());
        assert_eq!(statuses(&sent), [100, status], "{request} {reason:?}");
        let retry = sent[1].header("Retry-After");
        assert_eq!(retry.is_some(), status == 503, "{request} {reason:?}: {retry:?}");
        if reason == MixerRefusal::Overloaded {
            assert_eq!(retry, Some("7"), "{request}: the time is the mixer's");
        }
        if reason == MixerRefusal::NotFound {
            // The mixer had lost the conference.
            world.mixer.conferences.clear();
        }
        world.assert_clean();
    }
}

#[test]
fn without_a_mixer_calls_are_refused_and_running_ones_go_on() {
    let mut world = World::new();
    let mut phone = Phone::new("a");
    phone.call(&mut world);
    world.health(None);
    assert_eq!(statuses(&world.exchange(&Phone::new("b").invite())), [503]);
    assert!(world.left().is_empty());
    world.health(Some("one"));
    assert!(world.left().is_empty(), "the same mixer: nothing was lost");
    Phone::new("c").call(&mut world);
    world.health(Some("one"));
    phone.hang_up(&mut world);
}

#[test]
fn a_restarted_mixer_has_lost_everybody() {
    let mut world = World::new();
    let mut phones: Vec<Phone> = ["a", "b", "c"].map(Phone::new).to_vec();
    for phone in &mut phones {
        phone.call(&mut world);
    }
    world.mixer.conferences.clear();
    world.sent.clear();
    world.health(Some("two"));
    let byes: Vec<_> = world.sent.drain(..).collect();
    assert_eq!(byes.len(), 3);
    for bye in &byes {
        assert!(bye.text.starts_with("BYE ") && bye.header("Reason").unwrap().contains("Mixer lost"));
        world.exchange(&ok_to(bye));
    }
    assert_eq!(world.left(), ["mixer_lost"; 3]);
    let mut again = Phone::new("d");
    again.call(&mut world);
    again.hang_up(&mut world);
    world.assert_clean();
}

#[test]
fn a_failed_conference_is_ended_alone() {
    let mut world = World::new();
    let mut one = Phone::to("a", "sip:conf-1@192.0.2.1");
    let mut two = Phone::to("b", "sip:conf-2@192.0.2.1");
    one.call(&mut world);
    two.call(&mut world);
    world.mixer.conferences.remove("1");
    world.input(Input::MixerEvent(MixerEvent {
        mixer: MIXER.to_owned(),
        conference: "1".to_owned(),
        endpoint: String::new(),
        kind: MixerEventKind::ConferenceFailed,
    }));
    assert_eq!(world.left(), ["mixer_lost"]);
    two.hang_up(&mut world);
    world.assert_clean();
}

#[test]
fn removals_are_repeated_until_they_hold() {
    for request in ["remove_endpoint", "remove_conference"] {
        let mut world = World::new();
        let (mut one, mut two) = (Phone::new("a"), Phone::new("b"));
        one.call(&mut world);
        two.call(&mut world);
        for _ in 0..3 {
            world
                .mixer
                .refusals
                .push_back((request, MixerRefusal::Unreachable));
        }
        one.hang_up(&mut world);
        two.hang_up(&mut world);
        assert!(!world.mixer.conferences.is_empty() || request == "remove_endpoint");
        world.pass(Duration::from_secs(11));
        world.mixer.refusals.clear();
        world.assert_clean();
    }
}

#[test]
fn a_conference_may_be_reborn_while_its_former_life_is_removed() {
    let mut world = World::new();
    let mut one = Phone::new("a");
    one.call(&mut world);
    let epoch = world.conferences["42"].epoch;
    world.mixer.held = true;
    one.hang_up(&mut world);
    let mut two = Phone::new("b");
    let sent = world.exchange(&two.invite());
    assert_eq!(statuses(&sent), [100], "waits for the removal");
    world.mixer.held = false;
    world.release();
    let ok = world.sent.last().unwrap().clone();
    assert_eq!(ok.status(), 200);
    two.to_tag = ok.tag().to_owned();
    world.exchange(&two.request("ACK", "", ""));
    assert!(world.conferences["42"].epoch > epoch);
    two.hang_up(&mut world);
    world.assert_clean();
}

#[test]
fn a_late_removal_never_meets_a_new_life() {
    let mut world = World::new();
    // Whether the first try made the conference is unknown, and its removal does not get through.
    world
        .mixer
        .refusals
        .push_back(("create_conference", MixerRefusal::Unreachable));
    world
        .mixer
        .refusals
        .push_back(("remove_conference", MixerRefusal::Unreachable));
    assert_eq!(statuses(&world.exchange(&Phone::new("a").invite())), [100, 503]);
    let mut second = Phone::new("b");
    let invite = second.invite();
    assert_eq!(statuses(&world.exchange(&invite)), [100], "waits for the removal");
    let sent = world.pass(Duration::from_secs(6));
    let ok = sent.iter().find(|sent| sent.status() == 200).unwrap();
    second.to_tag = ok.tag().to_owned();
    world.exchange(&second.request("ACK", "", ""));
    world.pass(Duration::from_secs(60));
    world.endpoint();
    second.hang_up(&mut world);
    world.assert_clean();
}

#[test]
fn callers_wait_together_for_one_conference() {
    let mut world = World::new();
    world.mixer.held = true;
    let mut phones: Vec<Phone> = ["a", "b", "c"].map(Phone::new).to_vec();
    for phone in &mut phones {
        assert_eq!(statuses(&world.exchange(&phone.invite())), [100]);
    }
    assert_eq!(world.mixer.pending.len(), 1);
    world.sent.clear();
    world.mixer.held = false;
    world.release();
    assert_eq!(statuses(&world.sent), [200; 3]);
    for (phone, ok) in phones.iter_mut().zip(std::mem::take(&mut world.sent)) {
        phone.to_tag = ok.tag().to_owned();
        world.exchange(&phone.request("ACK", "", ""));
        phone.hang_up(&mut world);
    }
    world.assert_clean();
}

#[test]
fn a_mixer_that_never_answers_is_not_waited_for() {
    let mut world = World::new();
    world.mixer.held = true;
    world.exchange(&Phone::new("a").invite());
    let sent = world.pass(Duration::from_secs(21));
    assert_eq!(sent[0].status(), 503);
    assert_eq!(world.core.status().participants, 0);
    world.mixer.held = false;
    world.release();
    world.assert_clean();
}

#[test]
fn media_that_cannot_reach_the_caller_is_refused() {
    let mut world = World::new();
    let offer = OFFER.replace("IN IP4 198.51.100.7", "IN IP6 2001:db8::7");
    let sent = world.exchange(&Phone::new("a").with_sdp("INVITE", &offer));
    assert_eq!(statuses(&sent), [100, 488]);
    assert!(sent[1].header("Warning").unwrap().starts_with("301 "));
    world.assert_clean();
}

#[test]
fn sources_are_learnt_only_from_peers_behind_nat() {
    let mut nat = config();
    nat.learn_source = nat.trusted.clone();
    let mut world = World::with(nat);
    let mut phone = Phone::new("a");
    let offer = OFFER.replace("IN IP4 198.51.100.7", "IN IP4 10.0.0.9");
    let invite = phone
        .with_sdp("INVITE", &offer)
        .replace("alice@198.51.100.7", "alice@10.0.0.9");
    phone.complete(&mut world, &invite);
    let endpoint = world.endpoint();
    let learnt = world.media(&endpoint).unwrap().learn_from;
    let learnt: Vec<String> = learnt.iter().map(ToString::to_string).collect();
    assert_eq!(learnt, ["10.0.0.9", "198.51.100.7"]);
    world.event(&endpoint, MixerEventKind::Active);
    world.sent.clear();
    world.event(&endpoint, MixerEventKind::MediaTimeout);
    assert_eq!(
        world.sent[0].flow.remote,
        "198.51.100.7:5060".parse().unwrap(),
        "not to 10.0.0.9"
    );
    world.assert_clean();
}

#[test]
fn a_lock_set_before_the_mixer_was_ready_reaches_it() {
    let mut world = World::new();
    world.mixer.held = true;
    let mut phone = Phone::new("a");
    world.exchange(&phone.invite());
    world.admin(signaling_core::input::AdminRequest::Lock {
        conference: "42".to_owned(),
        on: true,
    });
    world.mixer.held = false;
    world.release();
    let lock = MixerRequest::Lock {
        conference: "42".to_owned(),
        on: true,
    };
    assert!(world.mixer.log.contains(&lock));
    assert!(world.conferences["42"].locked);
    phone.to_tag = world.sent.last().unwrap().tag().to_owned();
    phone.hang_up(&mut world);
    world.assert_clean();
}
