use std::time::Duration;

use signaling_core::Core;
use signaling_core::effect::AdminReply;
use signaling_core::input::{AdminRequest, Input};
use signaling_core::srtp::KeySeed;
use signaling_core::time::WallTime;

use crate::world::{MIXER, OFFER, Phone, World, config, ok_to, statuses};

/// The process dies and comes back; mixer and store stay.
pub(crate) fn restart(world: &mut World) {
    let mut next = config();
    next.seed = [10; 32];
    next.key_seed = KeySeed([20; 32]);
    world.core = Core::new(next);
    world.input(Input::Wall(WallTime(2_000)));
    let endpoints = world.mixer.conferences.iter().flat_map(|(conference, members)| {
        let triple = |endpoint: &String| (MIXER.to_owned(), conference.clone(), endpoint.clone());
        members.keys().map(triple).collect::<Vec<_>>()
    });
    let restore = Input::Restore {
        conferences: world.conferences.values().cloned().collect(),
        dialogs: world.dialogs.values().cloned().collect(),
        endpoints: endpoints.collect(),
        mixer_conferences: world
            .mixer
            .conferences
            .keys()
            .map(|id| (MIXER.to_owned(), id.clone()))
            .collect(),
    };
    world.input(restore);
    world.health(Some("one"));
}

#[test]
fn calls_go_on_after_a_restart() {
    let mut world = World::new();
    let mut phones: Vec<Phone> = ["a", "b", "c"].map(Phone::new).to_vec();
    for phone in &mut phones {
        phone.call(&mut world);
    }
    let muted = world.dialogs.keys().next().unwrap().clone();
    let conference = "42".to_owned();
    world.admin(AdminRequest::Mute {
        conference: conference.clone(),
        participant: muted.clone(),
        on: true,
    });
    world.admin(AdminRequest::Lock {
        conference: conference.clone(),
        on: true,
    });
    let show = |world: &mut World| {
        world.admin(AdminRequest::Show {
            conference: conference.clone(),
        })
    };
    let Some(AdminReply::Conference(before)) = show(&mut world) else {
        panic!()
    };
    let media = world.mixer.conferences.clone();
    let (dialogs, conferences) = (world.dialogs.clone(), world.conferences.clone());
    world.sent.clear();
    restart(&mut world);
    assert!(world.sent.is_empty(), "{:#?}", world.sent);
    assert_eq!(
        (&world.mixer.conferences, &world.dialogs, &world.conferences),
        (&media, &dialogs, &conferences)
    );
    let Some(AdminReply::Conference(mut after)) = show(&mut world) else {
        panic!()
    };
    for (participant, former) in after.participants.iter_mut().zip(&before.participants) {
        // Display names are not in the records.
        participant.display_name.clone_from(&former.display_name);
    }
    assert_eq!(after, before);
    assert_eq!(
        statuses(&world.exchange(&Phone::new("late").invite())),
        [486],
        "still locked"
    );

    let held = phones[0].with_sdp("INVITE", &(OFFER.to_owned() + "a=inactive\r\n"));
    let ok = world.exchange(&held).pop().unwrap();
    assert_eq!(ok.status(), 200);
    assert!(
        ok.body().contains(" 2 IN IP4 192.0.2.1\r\n"),
        "version goes on: {}",
        ok.body()
    );
    world.exchange(&phones[0].request("ACK", "", ""));
    for method in ["INFO", "OPTIONS", "UPDATE"] {
        let text = phones[1].request(method, "", "");
        assert_eq!(statuses(&world.exchange(&text)), [200], "{method}");
    }
    for phone in &mut phones {
        phone.hang_up(&mut world);
    }
    world.assert_clean();
}

#[test]
fn what_only_the_mixer_knows_is_removed_there() {
    let mut world = World::new();
    let (mut one, mut two) = (Phone::new("a"), Phone::to("b", "sip:conf-43@192.0.2.1"));
    one.call(&mut world);
    two.call(&mut world);
    world.conferences.remove("43");
    world.dialogs.retain(|_, record| record.conference == "42");
    world
        .mixer
        .conferences
        .get_mut("42")
        .unwrap()
        .insert("stray".to_owned(), None);
    restart(&mut world);
    assert_eq!(world.mixer.conferences.len(), 1);
    assert_eq!(world.mixer.conferences["42"].len(), 1);
    assert_eq!(statuses(&world.exchange(&two.request("BYE", "", ""))), [481]);
    one.hang_up(&mut world);
    world.assert_clean();
}

#[test]
fn calls_whose_endpoint_is_gone_are_hung_up() {
    let mut world = World::new();
    let (mut one, mut two) = (Phone::new("a"), Phone::to("b", "sip:conf-43@192.0.2.1"));
    one.call(&mut world);
    two.call(&mut world);
    world.mixer.conferences.remove("43");
    world.sent.clear();
    restart(&mut world);
    assert_eq!(world.sent.len(), 1);
    let bye = world.sent[0].clone();
    assert!(
        bye.text
            .starts_with("BYE sip:alice@198.51.100.7:5062 SIP/2.0\r\n"),
        "{}",
        bye.text
    );
    assert_eq!(bye.header("Call-ID"), Some("b"));
    assert!(
        bye.text
            .contains(&format!("From: <sip:conf-43@192.0.2.1>;tag={}\r\n", two.to_tag))
    );
    world.exchange(&ok_to(&bye));
    assert_eq!(world.conferences.len(), 1);
    assert_eq!(world.dialogs.len(), 1);
    one.hang_up(&mut world);
    world.assert_clean();
}

#[test]
fn conferences_without_anybody_end() {
    let mut world = World::new();
    Phone::new("a").call(&mut world);
    world.dialogs.clear();
    restart(&mut world);
    assert!(world.sent.is_empty());
    world.assert_clean();
}

#[test]
fn broken_records_are_dropped() {
    let mut world = World::new();
    let mut phone = Phone::new("a");
    phone.call(&mut world);
    for record in world.dialogs.values_mut() {
        record.flow = "carrier pigeon".to_owned();
    }
    restart(&mut world);
    world.pass(Duration::from_secs(1));
    world.assert_clean();
}

#[test]
fn routes_survive() {
    let mut world = World::new();
    let mut phone = Phone::new("a");
    phone.extra = "Record-Route: <sip:198.51.100.1;lr>, <sip:p2.example.com;lr>\r\n".to_owned();
    phone.call(&mut world);
    world.mixer.conferences.clear();
    world.sent.clear();
    restart(&mut world);
    let bye = &world.sent[0];
    assert!(
        bye.text
            .contains("Route: <sip:198.51.100.1;lr>\r\nRoute: <sip:p2.example.com;lr>\r\n")
    );
    assert_eq!(bye.flow.remote, "198.51.100.1:5060".parse().unwrap());
    world.assert_clean();
}
