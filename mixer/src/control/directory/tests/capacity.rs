//! What happens at the limits.

use std::io;

use super::*;

#[test]
fn limits_refuse_with_the_time_to_retry() {
    let few = Setup {
        conferences_max: 1,
        endpoints_max: 2,
        ..setup()
    };
    let mut rig = Rig::new(few, BLOCK);
    rig.say(&conference("c", "me", "1")).unwrap();
    assert_eq!(rig.kind(&conference("d", "me", "2")), ProblemKind::NoHeadroom);
    rig.say(&endpoint("c", "a", "3", None)).unwrap();
    rig.say(&endpoint("c", "b", "4", None)).unwrap();
    let problem = rig.say(&endpoint("c", "x", "5", None)).unwrap_err();
    assert_eq!((problem.kind, problem.status), (ProblemKind::NoHeadroom, 503));
    assert!(problem.retry_after_s.is_some());
    rig.say(&delete_endpoint("c", "a", "6")).unwrap();
    assert!(
        rig.say(&endpoint("c", "x", "5", None)).is_ok(),
        "a retry with the same id is a new try"
    );
}

#[test]
fn ports_run_out_and_come_back_after_their_rest() {
    let mut rig = Rig::new(
        setup(),
        PortBlock {
            first: 20_000,
            last: 20_003,
        },
    );
    rig.say(&conference("c", "me", "1")).unwrap();
    rig.say(&endpoint("c", "a", "2", None)).unwrap();
    rig.say(&endpoint("c", "b", "3", None)).unwrap();
    assert_eq!(rig.kind(&endpoint("c", "x", "4", None)), ProblemKind::NoPorts);
    rig.say(&delete_endpoint("c", "a", "5")).unwrap();
    let problem = rig.say(&endpoint("c", "x", "4", None)).unwrap_err();
    assert_eq!(problem.kind, ProblemKind::NoPorts);
    assert!(
        problem
            .retry_after_s
            .is_some_and(|seconds| (29..=31).contains(&seconds)),
        "{problem:?}"
    );
    rig.pass_ms(30_000);
    assert!(rig.say(&endpoint("c", "x", "4", None)).is_ok());
}

#[test]
fn ports_that_others_hold_are_passed_over() {
    let mut rig = Rig::new(
        setup(),
        PortBlock {
            first: 20_000,
            last: 20_007,
        },
    );
    rig.directory.ports.prepare = Box::new(|local| match local.port() {
        20_004 => Ok(SimPrepared(local)),
        _ => Err(io::ErrorKind::AddrInUse.into()),
    });
    rig.say(&conference("c", "me", "1")).unwrap();
    let Ok(Reply::Endpoint(made)) = rig.say(&endpoint("c", "a", "2", None)) else {
        panic!()
    };
    assert_eq!(made.local.port(), 20_004);
    assert_eq!(rig.kind(&endpoint("c", "b", "3", None)), ProblemKind::NoPorts);
    rig.pass_ms(31_000);
    rig.directory.ports.prepare = Box::new(|_| Err(io::ErrorKind::Other.into()));
    assert_eq!(rig.kind(&endpoint("c", "b", "4", None)), ProblemKind::NoHeadroom);
    rig.say(&delete_conference("c", "5")).unwrap();
    rig.assert_empty();
}

#[test]
fn ending_a_conference_is_paced_and_leaves_nothing() {
    let mut rig = Rig::usual();
    rig.say(&conference("c", "me", "1")).unwrap();
    rig.say(&conference("other", "me", "2")).unwrap();
    rig.fill("c", 0..ENDPOINTS - 1);
    let waiter = rig.ask(&delete_conference("c", "3"));
    // Others are served meanwhile, and nobody can join any more.
    let refused = rig.ask(&endpoint("c", "late", "4", None));
    let other = rig.ask(&verb("other", "none", "5", EndpointVerb::Mute { on: true }));
    // However often it looks, 64 removals are sent within a millisecond.
    for expected in [64, 128] {
        rig.net.advance_to(rig.net.now().after(Duration::from_millis(1)));
        (0..5).for_each(|_| rig.directory.poll(rig.net.now()));
        let removals = rig.directory.outstanding.values();
        let removals = removals.filter(|out| matches!(out.action, Action::RemoveEndpoint(_)));
        assert_eq!(removals.count(), expected);
    }
    let mut turns = 0;
    while rig.directory.conferences.contains_key("c") {
        let before = rig.directory.endpoints;
        rig.pass_ms(1);
        turns += 1;
        let left = rig.directory.endpoints;
        assert!(
            before - left <= 64,
            "{} removed within a millisecond",
            before - left
        );
        assert!(turns < 100, "{left} endpoints are left");
    }
    let answers = rig.answers();
    assert!(answers[&waiter].is_ok());
    for waiter in [refused, other] {
        assert_eq!(answers[&waiter].clone().unwrap_err().kind, ProblemKind::NotFound);
    }
    rig.say(&delete_conference("other", "6")).unwrap();
    rig.assert_empty();
    assert_eq!(rig.directory.workers[0].ports.resting(), (ENDPOINTS - 1) as usize);
}

#[test]
fn a_slow_worker_means_timeout_and_the_repeated_command_learns_the_truth() {
    let mut rig = Rig::usual();
    let waiter = rig.ask(&conference("c", "me", "1"));
    rig.net
        .advance_to(rig.net.now().after(Duration::from_millis(499)));
    rig.directory.poll(rig.net.now());
    assert!(rig.answers().is_empty());
    rig.net.advance_to(rig.net.now().after(Duration::from_millis(1)));
    rig.directory.poll(rig.net.now());
    assert_eq!(
        rig.answers()[&waiter].clone().unwrap_err().kind,
        ProblemKind::Timeout
    );
    assert!(rig.say(&conference("c", "me", "1")).is_ok());
    assert_eq!(rig.directory.state("i").conferences.len(), 1);
}

#[test]
fn a_full_ring_is_busy_and_changes_nothing() {
    let mut rig = Rig::usual();
    rig.say(&conference("c", "me", "1")).unwrap();
    let waiters: Vec<u32> = (0..300)
        .map(|number| rig.ask(&endpoint("c", &format!("e{number}"), &format!("n{number}"), None)))
        .collect();
    rig.pass_ms(20);
    let answers = rig.answers();
    let done = waiters.iter().filter(|waiter| answers[waiter].is_ok()).count();
    assert!((200..=limits::REQUEST_RING).contains(&done), "{done}");
    let busy = |answer: &Answer| matches!(answer, Err(problem) if problem.kind == ProblemKind::Busy);
    assert_eq!(
        waiters.iter().filter(|waiter| busy(&answers[waiter])).count(),
        300 - done
    );
    assert_eq!(rig.directory.endpoints as usize, done);
    rig.ask(&delete_conference("c", "2"));
    rig.pass_ms(30);
    rig.assert_empty();
}
