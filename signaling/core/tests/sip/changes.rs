use std::time::Duration;

use signaling_core::conference::Event;
use signaling_core::effect::AdminReply;
use signaling_core::input::{AdminRequest, MixerRefusal};

use crate::world::{OFFER, Phone, Sent, World, statuses};

fn acknowledge(world: &mut World, phone: &mut Phone, body: &str) {
    let ack = phone.with_sdp("ACK", body);
    assert!(world.exchange(&ack).is_empty());
}

fn reinvite(world: &mut World, phone: &mut Phone, sdp: &str) -> Sent {
    let text = phone.with_sdp("INVITE", sdp);
    let sent = world.exchange(&text);
    let ok = sent.last().unwrap().clone();
    assert_eq!(ok.status(), 200, "{sent:#?}");
    acknowledge(world, phone, "");
    ok
}

fn status(world: &mut World) -> &'static str {
    match world.admin(AdminRequest::Show {
        conference: "42".to_owned(),
    }) {
        Some(AdminReply::Conference(view)) => view.participants[0].status,
        other => panic!("{other:?}"),
    }
}

#[test]
fn hold_in_three_spellings_and_resume() {
    let spellings = [
        (OFFER.to_owned() + "a=sendonly\r\n", "a=recvonly"),
        (OFFER.to_owned() + "a=inactive\r\n", "a=inactive"),
        (
            OFFER.replace("c=IN IP4 198.51.100.7", "c=IN IP4 0.0.0.0"),
            "a=sendrecv",
        ),
    ];
    for (hold, direction) in spellings {
        let mut world = World::new();
        let mut phone = Phone::new("a");
        let first = phone.call(&mut world);
        let endpoint = world.endpoint();
        assert_eq!(status(&mut world), "connected");
        let ok = reinvite(&mut world, &mut phone, &hold);
        assert!(ok.body().contains(direction), "{hold}\n{}", ok.body());
        assert!(ok.header("Contact").unwrap().ends_with(";isfocus"));
        assert_eq!(ok.tag(), first.tag());
        let media = world.media(&endpoint).unwrap();
        assert!(!media.send && !media.receive, "{hold}: {media:?}");
        assert_eq!(status(&mut world), "on-hold");
        assert_eq!(world.dialogs[&endpoint].remote_sdp, hold);
        let ok = reinvite(&mut world, &mut phone, OFFER);
        assert!(ok.body().contains("a=sendrecv"), "{}", ok.body());
        let media = world.media(&endpoint).unwrap();
        assert!(media.send && media.receive);
        assert_eq!(status(&mut world), "connected");
        assert_eq!(world.dialogs[&endpoint].remote_cseq, 3);
        phone.hang_up(&mut world);
        world.assert_clean();
    }
}

#[test]
fn a_new_address_reaches_the_mixer_and_the_dialog() {
    let mut world = World::new();
    let mut phone = Phone::new("a");
    phone.call(&mut world);
    let moved = OFFER.replace("198.51.100.7", "198.51.100.9");
    let text = phone
        .with_sdp("INVITE", &moved)
        .replace("alice@198.51.100.7:5062", "alice@198.51.100.9:5063");
    assert_eq!(world.exchange(&text).last().unwrap().status(), 200);
    acknowledge(&mut world, &mut phone, "");
    let endpoint = world.endpoint();
    assert_eq!(
        world.media(&endpoint).unwrap().remote,
        "198.51.100.9:6000".parse().unwrap()
    );
    assert_eq!(
        world.dialogs[&endpoint].remote_target,
        "sip:alice@198.51.100.9:5063"
    );
    phone.hang_up(&mut world);
    world.assert_clean();
}

#[test]
fn a_refresh_changes_nothing_and_asks_nobody() {
    let mut world = World::new();
    let mut phone = Phone::new("a");
    let first = phone.call(&mut world);
    let asked = world.mixer.log.len();
    let again = reinvite(&mut world, &mut phone, OFFER);
    assert_eq!(again.body(), first.body(), "same version (M-68)");
    for method in ["UPDATE", "OPTIONS"] {
        let text = phone.request(method, "", "");
        assert_eq!(statuses(&world.exchange(&text)), [200], "{method}");
    }
    assert_eq!(world.mixer.log.len(), asked);
    assert_eq!(world.dialogs.values().next().unwrap().remote_cseq, 4);
    phone.hang_up(&mut world);
    world.assert_clean();
}

#[test]
fn reinvite_without_description_gets_our_offer() {
    let mut world = World::new();
    let mut phone = Phone::new("a");
    phone.call(&mut world);
    let text = phone.with_sdp("INVITE", "");
    let ok = world.exchange(&text).pop().unwrap();
    assert!(
        ok.body().contains("PCMA/8000"),
        "everything we can (M-67): {}",
        ok.body()
    );
    let second = phone.with_sdp("INVITE", OFFER);
    assert_eq!(
        statuses(&world.exchange(&second)),
        [491],
        "our offer is open (M-74)"
    );
    let update = phone.with_sdp("UPDATE", OFFER);
    assert_eq!(statuses(&world.exchange(&update)), [491]);
    phone.cseq -= 2;
    acknowledge(&mut world, &mut phone, &OFFER.replace("0 101", "8"));
    assert_eq!(world.media(&world.endpoint()).unwrap().payload_type, 8);
    phone.cseq += 2;
    phone.hang_up(&mut world);
    world.assert_clean();
}

#[test]
fn one_change_at_a_time() {
    let mut world = World::new();
    let mut phone = Phone::new("a");
    phone.call(&mut world);
    world.mixer.held = true;
    let hold = OFFER.to_owned() + "a=inactive\r\n";
    let first = phone.with_sdp("INVITE", &hold);
    assert_eq!(statuses(&world.exchange(&first)), [100]);
    for method in ["INVITE", "UPDATE"] {
        let second = phone.with_sdp(method, OFFER);
        let sent = world.exchange(&second);
        assert_eq!(statuses(&sent), [500], "{method} (M-75)");
        assert!(sent[0].header("Retry-After").is_some());
    }
    world.mixer.held = false;
    world.release();
    let ok = world.sent.last().unwrap().clone();
    assert_eq!((ok.status(), ok.header("CSeq")), (200, Some("2 INVITE")));
    phone.cseq -= 2;
    acknowledge(&mut world, &mut phone, "");
    phone.cseq += 2;
    assert_eq!(status(&mut world), "on-hold");
    phone.hang_up(&mut world);
    world.assert_clean();
}

#[test]
fn a_refused_change_leaves_the_session_as_it_was() {
    let mut world = World::new();
    let mut phone = Phone::new("a");
    phone.call(&mut world);
    let before = world.media(&world.endpoint());
    let bad = phone.with_sdp("INVITE", &OFFER.replace("0 101", "97"));
    let sent = world.exchange(&bad);
    assert_eq!(statuses(&sent), [488]);
    world
        .mixer
        .refusals
        .push_back(("set_media", MixerRefusal::Overloaded));
    let held = phone.with_sdp("INVITE", &(OFFER.to_owned() + "a=inactive\r\n"));
    let sent = world.exchange(&held);
    assert_eq!(statuses(&sent), [100, 503]);
    assert_eq!(sent[1].header("Retry-After"), Some("7"));
    assert_eq!(world.media(&world.endpoint()), before);
    assert_eq!(status(&mut world), "connected");
    let ok = reinvite(&mut world, &mut phone, &(OFFER.to_owned() + "a=inactive\r\n"));
    assert!(ok.body().contains("a=inactive"));
    phone.hang_up(&mut world);
    world.assert_clean();
}

#[test]
fn a_cancelled_change_is_taken_back() {
    let mut world = World::new();
    let mut phone = Phone::new("a");
    phone.call(&mut world);
    let before = world.media(&world.endpoint());
    world.mixer.held = true;
    let held = phone.with_sdp("INVITE", &(OFFER.to_owned() + "a=inactive\r\n"));
    world.exchange(&held);
    let sent = world.exchange(&phone.request("CANCEL", "", ""));
    assert_eq!(statuses(&sent), [200, 487]);
    world.mixer.held = false;
    world.release();
    assert_eq!(world.media(&world.endpoint()), before);
    assert_eq!(status(&mut world), "connected");
    phone.hang_up(&mut world);
    world.assert_clean();
}

/// A sender that never heard us is a source, not on hold; a cancelled change must not mute it.
#[test]
fn a_source_stays_a_source_after_a_cancelled_change() {
    let mut world = World::new();
    let mut phone = Phone::new("a");
    let source = phone.with_sdp("INVITE", &(OFFER.to_owned() + "a=sendonly\r\n"));
    phone.complete(&mut world, &source);
    let before = world.media(&world.endpoint());
    let media = before.as_ref().expect("an endpoint with media");
    assert!(media.receive && !media.send);
    world.mixer.held = true;
    let held = phone.with_sdp("INVITE", &(OFFER.to_owned() + "a=inactive\r\n"));
    world.exchange(&held);
    world.exchange(&phone.request("CANCEL", "", ""));
    world.mixer.held = false;
    world.release();
    assert_eq!(world.media(&world.endpoint()), before);
    phone.hang_up(&mut world);
    world.assert_clean();
}

#[test]
fn bye_during_a_change_ends_both() {
    let mut world = World::new();
    let mut phone = Phone::new("a");
    phone.call(&mut world);
    world.mixer.held = true;
    let held = phone.with_sdp("INVITE", &(OFFER.to_owned() + "a=inactive\r\n"));
    world.exchange(&held);
    let bye = phone.request("BYE", "", "");
    let mut answers = statuses(&world.exchange(&bye));
    answers.sort_unstable();
    assert_eq!(answers, [200, 487]);
    world.mixer.held = false;
    world.release();
    world.assert_clean();
}

#[test]
fn update_with_an_offer() {
    let mut world = World::new();
    let mut phone = Phone::new("a");
    phone.call(&mut world);
    let held = phone.with_sdp("UPDATE", &(OFFER.to_owned() + "a=inactive\r\n"));
    let sent = world.exchange(&held);
    assert_eq!(statuses(&sent), [200]);
    assert!(sent[0].body().contains("a=inactive"));
    assert!(
        world.pass(Duration::from_secs(40)).is_empty(),
        "no ACK is waited for"
    );
    phone.hang_up(&mut world);
    world.assert_clean();
}

#[test]
fn an_endpoint_that_is_gone_from_the_mixer_is_hung_up() {
    let mut world = World::new();
    let mut phone = Phone::new("a");
    phone.call(&mut world);
    let endpoint = world.endpoint();
    world.mixer.conferences.get_mut("42").unwrap().remove(&endpoint);
    let held = phone.with_sdp("INVITE", &(OFFER.to_owned() + "a=inactive\r\n"));
    let sent = world.exchange(&held);
    assert_eq!(statuses(&sent)[..2], [100, 500]);
    assert!(sent[2].text.starts_with("BYE "), "{sent:#?}");
    assert_eq!(world.left(), ["mixer_lost"]);
    world.assert_clean();
}

#[test]
fn sequence_numbers_and_unknown_options_inside_a_dialog() {
    let mut world = World::new();
    let mut phone = Phone::new("a");
    phone.call(&mut world);
    phone.cseq = 10;
    let text = phone.request("INFO", "", "");
    assert_eq!(statuses(&world.exchange(&text)), [200]);
    phone.cseq = 4;
    let text = phone.request("INFO", "", "");
    assert_eq!(statuses(&world.exchange(&text)), [500], "out of order");
    phone.cseq = 20;
    let text = phone.request("INFO", "Require: x\r\n", "");
    assert_eq!(statuses(&world.exchange(&text)), [420]);
    let text = phone.request("BYE", "Require: x\r\n", "");
    assert_eq!(
        statuses(&world.exchange(&text)),
        [200],
        "nobody is kept in a call"
    );
    world.assert_clean();
}

#[test]
fn digits_by_info_are_in_the_log() {
    let mut world = World::new();
    let mut phone = Phone::new("a");
    phone.call(&mut world);
    let bodies = [
        ("application/dtmf-relay", "Signal=5\r\nDuration=120\r\n", 200),
        ("application/dtmf", "#", 200),
        ("application/dtmf-relay", "nonsense", 200),
        ("text/plain", "5", 415),
        ("application/sdp", OFFER, 415),
    ];
    for (kind, body, expected) in bodies {
        let text = phone.request("INFO", &format!("Content-Type: {kind}\r\n"), body);
        let sent = world.exchange(&text);
        assert_eq!(statuses(&sent), [expected], "{kind} {body}");
        assert_eq!(sent[0].header("Accept").is_some(), expected == 415);
    }
    let log = world.core.conferences().get("42").unwrap().log();
    let digits: Vec<(char, u32)> = log
        .since(0)
        .unwrap()
        .filter_map(|entry| match entry.event {
            Event::Digit {
                digit, duration_ms, ..
            } => Some((digit, duration_ms)),
            _ => None,
        })
        .collect();
    assert_eq!(digits, [('5', 120), ('#', 160)]);
    phone.hang_up(&mut world);
    world.assert_clean();
}
