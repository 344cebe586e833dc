use std::time::Duration;

use signaling_core::effect::{Count, MixerRequest};
use signaling_core::input::{Input, MixerEventKind};

use crate::world::{OFFER, Phone, Sent, World, ok_to, statuses, tcp, udp};

#[test]
fn a_call_from_first_invite_to_nothing_left() {
    let mut world = World::new();
    let mut phone = Phone::new("a");
    let sent = world.exchange(&phone.invite());
    assert_eq!(statuses(&sent), [100, 200]);
    let ok = &sent[1];
    assert_eq!(ok.flow, udp());
    assert_eq!(
        ok.header("Contact"),
        Some("<sip:conf-42@192.0.2.1:5060;transport=udp>;isfocus")
    );
    assert!(ok.header("Allow").unwrap().contains("INVITE"));
    assert!(ok.header("Supported").is_some());
    assert!(ok.header("Require").is_none());
    assert_eq!(ok.header("Content-Type"), Some("application/sdp"));
    assert!(
        ok.body().contains("m=audio 20002 RTP/AVP 0 101\r\n"),
        "{}",
        ok.body()
    );
    assert!(!ok.tag().is_empty());
    assert!(sent[0].tag().is_empty(), "100 has no tag");
    assert!(world.dialogs.is_empty(), "saved before the ACK");
    assert_eq!(world.conferences.len(), 1);
    phone.to_tag = ok.tag().to_owned();
    world.exchange(&phone.request("ACK", "", ""));
    assert_eq!(world.dialogs.len(), 1);
    let media = world.media(&world.endpoint()).unwrap();
    assert_eq!(
        (media.remote, media.send, media.receive),
        ("198.51.100.7:6000".parse().unwrap(), true, true)
    );
    assert!(media.learn_from.is_empty(), "strict by default");
    assert!(
        world.pass(Duration::from_secs(120)).is_empty(),
        "a standing call is silent"
    );
    phone.hang_up(&mut world);
    assert_eq!(world.left(), ["bye"]);
    let joined = world
        .counts
        .iter()
        .filter(|count| **count == Count::Joined)
        .count();
    assert_eq!(joined, 1);
    assert_eq!(
        world.mixer.kinds(),
        ["create_conference", "create_endpoint", "remove_conference"]
    );
    world.assert_clean();
}

#[test]
fn the_conference_lasts_as_long_as_somebody_is_in_it() {
    let mut world = World::new();
    let (mut one, mut two) = (Phone::new("a"), Phone::new("b"));
    one.call(&mut world);
    two.call(&mut world);
    one.hang_up(&mut world);
    assert_eq!(world.mixer.conferences["42"].len(), 1);
    assert_eq!(world.conferences.len(), 1);
    two.hang_up(&mut world);
    let expected = [
        "create_conference",
        "create_endpoint",
        "create_endpoint",
        "remove_endpoint",
        "remove_conference",
    ];
    assert_eq!(world.mixer.kinds(), expected);
    world.assert_clean();
}

#[test]
fn the_stock_load_tester_gets_a_conference_by_any_name() {
    let mut world = World::new();
    for (index, user) in ["service", "conf-7", "3000"].iter().enumerate() {
        let mut phone = Phone::to(&format!("c{index}"), &format!("sip:{user}@192.0.2.1:5060"));
        phone.call(&mut world);
        phone.hang_up(&mut world);
    }
    let made = world.mixer.log.iter().filter_map(|request| match request {
        MixerRequest::CreateConference { conference, .. } => Some(conference.as_str()),
        _ => None,
    });
    assert_eq!(made.collect::<Vec<_>>(), ["service", "7", "3000"]);
    world.assert_clean();
}

#[test]
fn the_answer_is_repeated_until_the_ack() {
    let mut world = World::new();
    let mut phone = Phone::new("a");
    let ok = world.exchange(&phone.invite()).pop().unwrap();
    phone.to_tag = ok.tag().to_owned();
    let other = phone.request("ACK", "", "").replace("CSeq: 1 ACK", "CSeq: 2 ACK");
    assert!(world.exchange(&other).is_empty(), "not the ACK of this INVITE");
    let repeated = world.pass(Duration::from_millis(3600));
    assert_eq!(statuses(&repeated), [200, 200, 200], "after 0.5, 1.5 and 3.5 s");
    assert!(repeated.iter().all(|again| again.text == ok.text));
    world.exchange(&phone.request("ACK", "", ""));
    assert!(world.pass(Duration::from_secs(40)).is_empty());
    phone.hang_up(&mut world);
    world.assert_clean();
}

#[test]
fn without_ack_the_call_ends_with_bye() {
    for flow in [udp(), tcp()] {
        let mut world = World::new();
        let mut phone = Phone::new("a");
        world.receive(flow, &phone.invite());
        let sent = world.pass(Duration::from_secs(33));
        let byes: Vec<&Sent> = sent.iter().filter(|sent| sent.text.starts_with("BYE ")).collect();
        // Over UDP the BYE itself is repeated; in the first second that is one and one repetition.
        assert!(!byes.is_empty(), "{sent:#?}");
        assert!(
            byes[0]
                .text
                .contains("BYE sip:alice@198.51.100.7:5062 SIP/2.0\r\n")
        );
        assert!(statuses(&sent).iter().filter(|status| **status == 200).count() >= 10);
        assert_eq!(world.left(), ["no_ack"]);
        let bye = byes[0].clone();
        world.receive(flow, &ok_to(&bye));
        world.assert_clean();
    }
}

#[test]
fn an_unanswered_bye_leaves_nothing_behind() {
    let mut world = World::new();
    Phone::new("a").invite();
    world.exchange(&Phone::new("a").invite());
    world.pass(Duration::from_secs(33));
    world.assert_clean();
}

#[test]
fn late_offer_is_completed_by_the_ack() {
    let mut world = World::new();
    let mut phone = Phone::new("a");
    let ok = world.exchange(&phone.with_sdp("INVITE", "")).pop().unwrap();
    assert_eq!(ok.status(), 200);
    assert!(ok.body().contains("m=audio 20002 RTP/AVP 0 8"), "{}", ok.body());
    assert_eq!(world.media(&world.endpoint()), None);
    phone.to_tag = ok.tag().to_owned();
    let answer = OFFER.replace("0 101", "8 101");
    world.exchange(&phone.with_sdp("ACK", &answer));
    let media = world.media(&world.endpoint()).unwrap();
    assert_eq!((media.payload_type, media.send, media.receive), (8, true, true));
    assert_eq!(world.dialogs.values().next().unwrap().remote_sdp, answer);
    phone.hang_up(&mut world);
    world.assert_clean();
}

#[test]
fn late_offer_without_usable_answer_ends_the_call() {
    let refused = OFFER.replace("m=audio 6000", "m=audio 0");
    for answer in ["", "nonsense", &refused] {
        let mut world = World::new();
        let mut phone = Phone::new("a");
        let ok = world.exchange(&phone.with_sdp("INVITE", "")).pop().unwrap();
        phone.to_tag = ok.tag().to_owned();
        let sent = world.exchange(&phone.with_sdp("ACK", answer));
        assert!(sent[0].text.starts_with("BYE "), "{answer}: {sent:#?}");
        assert!(sent[0].header("Reason").is_some());
        world.exchange(&ok_to(&sent[0]));
        assert_eq!(world.left(), ["bad_answer"]);
        world.assert_clean();
    }
}

#[test]
fn cancel_before_the_answer() {
    let mut world = World::new();
    world.mixer.held = true;
    let mut phone = Phone::new("a");
    let invite = phone.invite();
    assert_eq!(statuses(&world.exchange(&invite)), [100]);
    let sent = world.exchange(&phone.request("CANCEL", "", ""));
    assert_eq!(statuses(&sent), [200, 487]);
    assert_eq!(sent[0].tag(), sent[1].tag(), "one tag for both (RFC 3261 9.2)");
    world.mixer.held = false;
    world.release();
    assert!(world.sent.iter().all(|sent| sent.status() != 200));
    phone.to_tag = sent[1].tag().to_owned();
    phone.branch -= 1;
    assert!(world.exchange(&phone.request("ACK", "", "")).is_empty());
    assert!(world.left().is_empty(), "never joined");
    world.assert_clean();
}

#[test]
fn cancel_at_every_step_of_the_mixer_leaves_no_orphan() {
    for steps in 0..4 {
        let mut world = World::new();
        let mut other = Phone::new("other");
        if steps > 1 {
            other.call(&mut world);
        }
        world.mixer.held = true;
        let mut phone = Phone::new("a");
        world.exchange(&phone.invite());
        for _ in 0..steps % 2 {
            world.release_one();
        }
        world.sent.clear();
        world.receive(udp(), &phone.request("CANCEL", "", ""));
        world.mixer.held = false;
        world.release();
        if steps == 2 {
            assert_eq!(
                world.mixer.conferences["42"].len(),
                1,
                "the endpoint that came too late is removed"
            );
        }
        if steps > 1 {
            other.hang_up(&mut world);
        }
        if world
            .sent
            .iter()
            .any(|sent| sent.status() == 200 && sent.header("Contact").is_some())
        {
            world.pass(Duration::from_secs(40));
        }
        world.assert_clean();
    }
}

#[test]
fn late_cancel_changes_nothing() {
    let mut world = World::new();
    let mut phone = Phone::new("a");
    let ok = world.exchange(&phone.invite()).pop().unwrap();
    let sent = world.exchange(&phone.request("CANCEL", "", ""));
    assert_eq!(statuses(&sent), [200]);
    phone.to_tag = ok.tag().to_owned();
    world.exchange(&phone.request("ACK", "", ""));
    phone.hang_up(&mut world);
    world.assert_clean();
}

#[test]
fn bye_may_come_before_the_ack() {
    let mut world = World::new();
    let mut phone = Phone::new("a");
    let ok = world.exchange(&phone.invite()).pop().unwrap();
    phone.to_tag = ok.tag().to_owned();
    phone.hang_up(&mut world);
    assert!(
        world.pass(Duration::from_secs(40)).is_empty(),
        "nothing is repeated"
    );
    world.assert_clean();
}

#[test]
fn a_caller_who_is_hung_up_before_its_ack_gets_the_bye_after_it() {
    let mut world = World::new();
    let mut phone = Phone::new("a");
    let ok = world.exchange(&phone.invite()).pop().unwrap();
    world.sent.clear();
    world.health(Some("two"));
    assert!(world.sent.is_empty(), "no BYE before the ACK: {:#?}", world.sent);
    assert_eq!(world.left(), ["mixer_lost"]);
    world.mixer.conferences.clear();
    phone.to_tag = ok.tag().to_owned();
    let sent = world.exchange(&phone.request("ACK", "", ""));
    assert!(sent[0].text.starts_with("BYE "), "{sent:#?}");
    world.exchange(&ok_to(&sent[0]));
    world.assert_clean();
}

#[test]
fn both_hang_up_at_once() {
    let mut world = World::new();
    let mut phone = Phone::new("a");
    phone.call(&mut world);
    world.event(&world.endpoint(), MixerEventKind::Active);
    world.sent.clear();
    world.event(&world.endpoint(), MixerEventKind::MediaTimeout);
    let bye = world.sent[0].clone();
    phone.hang_up(&mut world);
    assert!(world.exchange(&ok_to(&bye)).is_empty());
    assert_eq!(world.left(), ["media_timeout"]);
    world.assert_clean();
}

#[test]
fn silence_ends_only_calls_that_were_heard() {
    let mut world = World::new();
    let mut phone = Phone::new("a");
    phone.call(&mut world);
    let endpoint = world.endpoint();
    world.event(&endpoint, MixerEventKind::MediaTimeout);
    assert!(world.left().is_empty(), "the stock load tester never sends RTP");
    world.event(&endpoint, MixerEventKind::Active);
    world.sent.clear();
    world.event(&endpoint, MixerEventKind::MediaTimeout);
    assert!(world.sent[0].text.starts_with("BYE "));
    world.pass(Duration::from_secs(40));
    world.assert_clean();
}

#[test]
fn over_tcp_everything_stays_on_the_connection() {
    let mut world = World::new();
    let mut phone = Phone::new("a");
    let invite = phone.invite().replace("SIP/2.0/UDP", "SIP/2.0/TCP");
    world.receive(tcp(), &invite);
    assert!(world.sent.iter().all(|sent| sent.flow == tcp()));
    let ok = world.sent.last().unwrap().clone();
    assert!(ok.header("Contact").unwrap().contains(";transport=tcp>;isfocus"));
    phone.to_tag = ok.tag().to_owned();
    world.receive(tcp(), &phone.request("ACK", "", ""));
    world.event(&world.endpoint(), MixerEventKind::Active);
    world.sent.clear();
    world.event(&world.endpoint(), MixerEventKind::MediaTimeout);
    assert_eq!(world.sent[0].flow, tcp());
    world.input(Input::FlowFailed { flow: tcp() });
    world.assert_clean();
}

#[test]
fn after_its_connection_is_gone_the_peer_is_called_at_its_contact() {
    let mut world = World::new();
    let mut phone = Phone::new("a");
    world.receive(tcp(), &phone.invite());
    phone.to_tag = world.sent.last().unwrap().tag().to_owned();
    world.receive(tcp(), &phone.request("ACK", "", ""));
    world.input(Input::FlowFailed { flow: tcp() });
    world.event(&world.endpoint(), MixerEventKind::Active);
    world.sent.clear();
    world.event(&world.endpoint(), MixerEventKind::MediaTimeout);
    let bye = world.sent[0].clone();
    assert_eq!(
        (bye.flow.remote, bye.flow.connection),
        ("198.51.100.7:5062".parse().unwrap(), 0)
    );
    world.assert_clean();
}
