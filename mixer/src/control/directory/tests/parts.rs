//! Conferences that are larger than a worker.

use super::*;
use crate::control::directory::state::DirectoryState;

const BLOCKS: [PortBlock; 3] = [
    BLOCK,
    PortBlock {
        first: 21_000,
        last: 21_999,
    },
    PortBlock {
        first: 22_000,
        last: 22_999,
    },
];

/// Workers that carry three endpoints each, and a conference.
fn rig(workers: usize) -> Rig {
    let few = Setup {
        worker_endpoints_max: 3,
        ..setup()
    };
    let mut rig = Rig::over(few, &BLOCKS[..workers]);
    rig.say(&conference("c", "me", "c")).unwrap();
    rig
}

fn add(rig: &mut Rig, number: u16) -> Answer {
    let name = format!("e{number}");
    rig.say(&endpoint("c", &name, &name, Some(media(4_000 + 2 * number))))
}

fn workers_of(rig: &Rig) -> Vec<usize> {
    rig.directory.conferences["c"]
        .endpoints
        .values()
        .map(|entry| entry.worker)
        .collect()
}

#[test]
fn newcomers_go_where_there_is_room_and_leave_it_again() {
    let mut rig = rig(3);
    for number in 0..9 {
        let reply = add(&mut rig, number).unwrap();
        let Reply::Endpoint(created) = reply else {
            panic!("{reply:?}");
        };
        assert_eq!(created.done.worker, number / 3);
        assert!(BLOCKS[usize::from(number / 3)].contains(created.local.port()));
    }
    assert_eq!(workers_of(&rig), [0, 0, 0, 1, 1, 1, 2, 2, 2]);
    let problem = add(&mut rig, 9).unwrap_err();
    assert_eq!((problem.kind, problem.status), (ProblemKind::NoHeadroom, 503));
    // A place that becomes free in the middle is taken again.
    rig.say(&delete_endpoint("c", "e4", "leave")).unwrap();
    add(&mut rig, 9).unwrap();
    assert_eq!(rig.directory.conferences["c"].endpoints["e9"].worker, 1);
    assert_eq!(rig.directory.conferences["c"].parts.len(), 3);
    // Another conference on the same workers has its own place on each.
    rig.say(&delete_endpoint("c", "e0", "leave-again")).unwrap();
    rig.say(&conference("d", "me", "d")).unwrap();
    rig.say(&endpoint("d", "x", "x", None)).unwrap();
    rig.say(&delete_conference("d", "end-d")).unwrap();
    rig.pass_ms(20);
    rig.say(&delete_conference("c", "end-c")).unwrap();
    rig.pass_ms(20);
    rig.assert_empty();
}

fn trunk(name: &str, command: &str) -> Call {
    let body = CreateEndpoint {
        command: command.to_owned(),
        media: None,
        trunk: true,
    };
    call("c", name, Body::CreateEndpoint(body))
}

#[test]
fn trunks_stay_on_the_worker_on_which_the_conference_began() {
    let mut rig = rig(2);
    rig.say(&trunk("t0", "t0")).unwrap();
    for number in 0..3 {
        add(&mut rig, number).unwrap();
    }
    assert_eq!(workers_of(&rig), [0, 0, 1, 0]);
    // There is a place for others, and none for a trunk.
    let problem = rig.say(&trunk("t1", "t1")).unwrap_err();
    assert_eq!((problem.kind, problem.status), (ProblemKind::NoHeadroom, 503));
    assert!(problem.detail.starts_with("trunk: "), "{problem}");
    add(&mut rig, 3).unwrap();
    rig.say(&delete_endpoint("c", "e0", "leave")).unwrap();
    rig.say(&trunk("t1", "t1")).unwrap();
    assert_eq!(workers_of(&rig), [0, 1, 1, 0, 0]);
    // What is a trunk stays one, and is told.
    rig.say(&trunk("t0", "again")).unwrap();
    let leg = |name: &str, command| endpoint("c", name, command, None);
    assert_eq!(rig.kind(&leg("t0", "as-a-leg")), ProblemKind::Conflict);
    rig.say(&leg("e9", "leg")).unwrap();
    assert_eq!(rig.kind(&trunk("e9", "as-a-trunk")), ProblemKind::Conflict);
    let trunks = |directory: &Tested| -> Vec<String> {
        let all = directory.state("i").conferences.remove(0).endpoints;
        let trunks = all.into_iter().filter(|one| one.trunk);
        trunks.map(|one| one.endpoint).collect()
    };
    assert_eq!(trunks(&rig.directory), ["t0", "t1"]);
    let bytes = rmp_serde::to_vec_named(&rig.directory.export_state()).unwrap();
    let few = Setup {
        worker_endpoints_max: 3,
        ..setup()
    };
    let mut new = Rig::over(few, &BLOCKS[..2]);
    let state = rmp_serde::from_slice::<DirectoryState>(&bytes).unwrap();
    new.directory.import_state(state).unwrap();
    assert_eq!(trunks(&new.directory), ["t0", "t1"]);
}

#[test]
fn a_trunk_finds_no_port_where_others_go_to_another_worker() {
    let narrow = PortBlock {
        first: 20_000,
        last: 20_003,
    };
    let mut rig = Rig::over(setup(), &[narrow, BLOCKS[1]]);
    rig.say(&conference("c", "me", "c")).unwrap();
    for number in 0..8 {
        add(&mut rig, number).unwrap();
    }
    assert!(workers_of(&rig).contains(&1));
    assert_eq!(rig.kind(&trunk("t", "t")), ProblemKind::NoPorts);
}

#[test]
fn every_command_reaches_the_worker_that_has_the_endpoint() {
    let mut rig = rig(2);
    for number in 0..6 {
        add(&mut rig, number).unwrap();
    }
    rig.say(&verb("c", "e5", "m", EndpointVerb::Mute { on: true }))
        .unwrap();
    rig.say(&verb("c", "e4", "p", EndpointVerb::Play(tone("own", 1))))
        .unwrap();
    let play = ConferenceCommand {
        command: "all".to_owned(),
        verb: ConferenceVerb::Play(tone("all", 1)),
    };
    rig.say(&call("c", "", Body::ConferenceCommand(play))).unwrap();
    rig.pass_ms(1_000);
    assert!(rig.directory.conferences["c"].endpoints["e5"].muted);
    // Every part plays it, and it ends once.
    let log = told(&rig.events);
    let played = |endpoint: &str| {
        let ours = |event: &&Event| {
            event.endpoint == endpoint && matches!(event.body, EventBody::Played { complete: true, .. })
        };
        log.iter().filter(ours).count()
    };
    assert_eq!((played(""), played("e4")), (1, 1));
    for worker in &rig.workers {
        assert_eq!(worker.engine().counters().partials_missing, 0);
        assert!(worker.engine().counters().partials_added > 40);
    }
    let state = rig.directory.state("i");
    assert_eq!(state.conferences[0].endpoints.len(), 6);
}

#[test]
fn a_conference_that_fails_in_one_part_goes_everywhere() {
    let mut rig = rig(2);
    for number in 0..5 {
        add(&mut rig, number).unwrap();
    }
    // As if the second worker had dropped it; its boxes come first or later, here never.
    let at = rig.directory.conferences["c"].parts[1].index;
    let now = rig.net.now();
    rig.directory.event(
        now,
        1,
        EngineEvent {
            conference: at,
            endpoint: None,
            kind: EventKind::ConferenceFailed,
        },
    );
    rig.pass_ms(50);
    assert!(rig.directory.conferences.is_empty());
    let failed = told(&rig.events);
    let failed = failed
        .iter()
        .filter(|event| matches!(event.body, EventBody::ConferenceFailed));
    assert_eq!(failed.count(), 1);
    let stats = rig.directory.workers[0].link.stats().read();
    assert_eq!((stats.worker.conferences, stats.worker.endpoints), (0, 0));
    assert_eq!(rig.directory.workers[0].free_endpoints.len(), 3);
    let lost = |place: &&Place| **place == Place::Lost;
    assert_eq!(
        rig.directory.workers[1].endpoint_at.iter().filter(lost).count(),
        2
    );
}

#[test]
fn parts_go_through_bytes() {
    let mut old = rig(2);
    for number in 0..5 {
        add(&mut old, number).unwrap();
    }
    assert!(old.directory.is_quiet());
    let bytes = rmp_serde::to_vec_named(&old.directory.export_state()).unwrap();
    let read = || rmp_serde::from_slice::<DirectoryState>(&bytes).unwrap();
    let few = Setup {
        worker_endpoints_max: 3,
        ..setup()
    };
    let mut new = Rig::over(few.clone(), &BLOCKS[..2]);
    new.directory.import_state(read()).unwrap();
    assert_eq!(new.directory.state("i"), old.directory.state("i"));
    assert_eq!(workers_of(&new), workers_of(&old));
    assert_eq!(
        new.directory.conferences["c"].room,
        old.directory.conferences["c"].room
    );
    for (new, old) in new.directory.workers.iter().zip(&old.directory.workers) {
        let sorted = |free: &[u32]| free.iter().copied().collect::<BTreeSet<_>>();
        assert_eq!(sorted(&new.free_conferences), sorted(&old.free_conferences));
        assert_eq!(sorted(&new.free_endpoints), sorted(&old.free_endpoints));
        assert_eq!(new.endpoints, old.endpoints);
    }
    assert!(
        Rig::over(few, &BLOCKS[..1])
            .directory
            .import_state(read())
            .is_err()
    );
}
