use signaling_core::effect::{AdminReply, MixerRequest};
use signaling_core::input::{AdminRequest, MixerRefusal};

use crate::world::{Phone, World, ok_to, statuses};

fn conference() -> String {
    "42".to_owned()
}

#[test]
fn numbers_and_views() {
    let mut world = World::new();
    let (mut one, mut two) = (Phone::new("a"), Phone::new("b"));
    one.call(&mut world);
    two.call(&mut world);
    let Some(AdminReply::Status(status)) = world.admin(AdminRequest::Status) else {
        panic!()
    };
    assert_eq!(
        (status.conferences, status.participants, status.dialogs),
        (1, 2, 2)
    );
    assert_eq!(status.mixers, [(crate::world::MIXER.to_owned(), true)]);
    let Some(AdminReply::Conferences(all)) = world.admin(AdminRequest::Conferences) else {
        panic!()
    };
    assert_eq!(
        (all.len(), all[0].state, all[0].participants.len()),
        (1, "active", 2)
    );
    let Some(AdminReply::Conference(view)) = world.admin(AdminRequest::Show {
        conference: conference(),
    }) else {
        panic!()
    };
    let first = &view.participants[0];
    assert_eq!(
        (first.uri.as_str(), first.display_name.as_str()),
        ("sip:alice@example.com", "Alice")
    );
    assert_eq!(
        (first.status, first.codec, first.call_id.as_str()),
        ("connected", "PCMU", "a")
    );
    let none = AdminRequest::Show {
        conference: "other".to_owned(),
    };
    assert!(matches!(world.admin(none), Some(AdminReply::NotFound { .. })));
    one.hang_up(&mut world);
    two.hang_up(&mut world);
    world.assert_clean();
}

#[test]
fn mute_reaches_mixer_and_store() {
    let mut world = World::new();
    let mut phone = Phone::new("a");
    phone.call(&mut world);
    let endpoint = world.endpoint();
    let mute = |on| AdminRequest::Mute {
        conference: conference(),
        participant: world_endpoint(&endpoint),
        on,
    };
    assert_eq!(world.admin(mute(true)), Some(AdminReply::Done));
    let expected = MixerRequest::Mute {
        conference: conference(),
        endpoint: endpoint.clone(),
        on: true,
    };
    assert_eq!(world.mixer.log.last(), Some(&expected));
    assert!(world.dialogs[&endpoint].muted);
    let asked = world.mixer.log.len();
    assert_eq!(
        world.admin(mute(true)),
        Some(AdminReply::Done),
        "again: nothing to do"
    );
    assert_eq!(world.mixer.log.len(), asked);
    world
        .mixer
        .refusals
        .push_back(("mute", MixerRefusal::Unreachable));
    let Some(AdminReply::Failed { detail }) = world.admin(mute(false)) else {
        panic!()
    };
    assert_eq!(detail, "as told");
    let other = AdminRequest::Mute {
        conference: conference(),
        participant: "x".to_owned(),
        on: true,
    };
    assert!(matches!(world.admin(other), Some(AdminReply::NotFound { .. })));
    phone.hang_up(&mut world);
    world.assert_clean();
}

fn world_endpoint(endpoint: &str) -> String {
    endpoint.to_owned()
}

#[test]
fn kick_removes_one() {
    let mut world = World::new();
    let (mut one, mut two) = (Phone::new("a"), Phone::new("b"));
    one.call(&mut world);
    let endpoint = world.endpoint();
    two.call(&mut world);
    world.sent.clear();
    let kick = AdminRequest::Kick {
        conference: conference(),
        participant: endpoint,
    };
    assert_eq!(world.admin(kick), Some(AdminReply::Done));
    let bye = world.sent[0].clone();
    assert!(bye.text.starts_with("BYE ") && bye.header("Call-ID") == Some("a"));
    world.exchange(&ok_to(&bye));
    assert_eq!(world.left(), ["kicked"]);
    assert_eq!(world.mixer.conferences["42"].len(), 1);
    two.hang_up(&mut world);
    world.assert_clean();
}

#[test]
fn a_kicked_caller_in_setup_is_refused() {
    let mut world = World::new();
    world.mixer.held = true;
    world.exchange(&Phone::new("a").invite());
    let Some(AdminReply::Conference(view)) = world.admin(AdminRequest::Show {
        conference: conference(),
    }) else {
        panic!()
    };
    let participant = view.participants[0].participant.clone();
    world.sent.clear();
    world.admin(AdminRequest::Kick {
        conference: conference(),
        participant,
    });
    assert_eq!(statuses(&world.sent), [486]);
    world.mixer.held = false;
    world.release();
    world.assert_clean();
}

#[test]
fn end_hangs_everybody_up() {
    let mut world = World::new();
    let mut phones: Vec<Phone> = ["a", "b", "c"].map(Phone::new).to_vec();
    for phone in &mut phones {
        phone.call(&mut world);
    }
    world.sent.clear();
    assert_eq!(
        world.admin(AdminRequest::End {
            conference: conference()
        }),
        Some(AdminReply::Done)
    );
    let byes: Vec<_> = world.sent.drain(..).collect();
    assert_eq!(byes.len(), 3);
    assert_eq!(world.left(), ["ended"; 3]);
    assert_eq!(
        world
            .mixer
            .kinds()
            .iter()
            .filter(|kind| kind.starts_with("remove"))
            .count(),
        3
    );
    for bye in &byes {
        assert_eq!(statuses(&world.exchange(&ok_to(bye))), []);
    }
    let none = AdminRequest::End {
        conference: conference(),
    };
    assert!(matches!(world.admin(none), Some(AdminReply::NotFound { .. })));
    world.assert_clean();
}
