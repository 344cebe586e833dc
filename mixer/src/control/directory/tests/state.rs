//! Through bytes and back: nobody outside can tell.

use mixer_control::srtp::{Srtp, SrtpKey, SrtpSuite};

use super::*;
use crate::control::directory::state::RestoreError;

/// The same directory after its state went through bytes, over a new worker's ring.
fn reborn(
    directory: &Tested,
    events: &Arc<EventLog>,
    setup: Setup,
) -> Result<(Tested, Arc<EventLog>, WorkerEnd<SimPrepared>), RestoreError> {
    let bytes = rmp_serde::to_vec_named(&directory.export_state()).unwrap();
    let log = rmp_serde::to_vec_named(&events.export_state()).unwrap();
    let (control, end) = rings::pair(limits::REQUEST_RING, limits::REPLY_RING);
    let (mut directory, _) = super::directory(setup, vec![(control, BLOCK)]);
    directory.import_state(rmp_serde::from_slice(&bytes).unwrap())?;
    let events = EventLog::import_state(1000, rmp_serde::from_slice(&log).unwrap());
    directory.events = Arc::clone(&events);
    Ok((directory, events, end))
}

fn secure_media(port: u16) -> Media {
    let key = |byte: u8| SrtpKey::of_bytes(&[byte; 28]);
    Media {
        srtp: Some(Srtp {
            suite: SrtpSuite::AeadAes128Gcm,
            receive_key: key(1),
            send_key: key(2),
        }),
        ..media(port)
    }
}

/// A directory with two conferences, endpoints of every kind, plays, refusals and resting ports.
fn busy_rig() -> Rig {
    let mut rig = Rig::usual();
    for call in [
        conference("c", "me", "1"),
        conference("d", "you", "2"),
        endpoint("c", "a", "3", Some(media(4000))),
        endpoint("c", "s", "13", Some(secure_media(4004))),
        endpoint("c", "b", "4", None),
        endpoint("d", "a", "5", Some(media(4002))),
        endpoint("d", "gone", "6", None),
        delete_endpoint("d", "gone", "7"),
        lock("d", "8", true),
        verb("c", "a", "9", EndpointVerb::Mute { on: true }),
        verb("c", "b", "10", EndpointVerb::Gain { centibel: -300 }),
        verb("c", "b", "11", EndpointVerb::Play(tone("p", 0))),
    ] {
        rig.say(&call).unwrap();
    }
    assert_eq!(rig.kind(&endpoint("d", "late", "12", None)), ProblemKind::Locked);
    rig.pass_ms(1_200);
    rig
}

#[test]
fn everything_answers_as_before() {
    let mut rig = busy_rig();
    assert!(rig.directory.is_quiet());
    rig.events.push("c", "a", EventBody::Active);
    let now = rig.net.now();
    let (mut directory, events, mut end) = reborn(&rig.directory, &rig.events, setup()).unwrap();
    assert_eq!(directory.state("i"), rig.directory.state("i"));
    let shown = &rig.directory.state("i").conferences[0].endpoints[2];
    assert_eq!(
        (shown.endpoint.as_str(), shown.srtp),
        ("s", Some(SrtpSuite::AeadAes128Gcm))
    );
    let ports = |figures: Figures| {
        (
            figures.ports,
            figures.endpoints,
            figures.conferences,
            figures.events,
        )
    };
    assert_eq!(ports(directory.figures(now)), ports(rig.directory.figures(now)));
    assert_eq!(directory.ssrcs, rig.directory.ssrcs);
    assert!(directory.rooms_on(0).eq(rig.directory.rooms_on(0)));

    // The same ids get the same answers; the same ids with another content are conflicts.
    for call in [
        endpoint("c", "a", "3", Some(media(4000))),
        lock("d", "8", true),
        endpoint("d", "late", "12", None),
        endpoint("c", "a", "13", Some(media(4000))),
        endpoint("c", "a", "3", None),
        endpoint("c", "a", "14", None),
        verb("c", "b", "15", EndpointVerb::Play(tone("p", 0))),
    ] {
        directory.call(now, &call, 1);
        let answers: Vec<_> = directory.ready().collect();
        assert_eq!(answers, [(1, rig.say(&call))], "{call:?}");
    }

    // New things get places and numbers of their own, and events go on by number.
    directory.call(now, &endpoint("c", "new", "20", None), 2);
    let Ok(request) = end.requests.pop() else { panic!() };
    let Command::AddEndpoint { at, .. } = request.command else {
        panic!()
    };
    assert!(matches!(
        directory.workers[0].endpoint_at[at.0 as usize],
        Place::Used(..)
    ));
    assert!(request.id >= rig.directory.next_request);
    let head = rig.events.head();
    assert_eq!(events.head(), head);
    assert_eq!(told(&events), told(&rig.events));
    assert_eq!(events.push("c", "a", EventBody::Active), head + 1);
}

#[test]
fn limits_that_do_not_hold_it_are_named() {
    let rig = busy_rig();
    let refused = |change: fn(&mut Setup)| {
        let mut setup = setup();
        change(&mut setup);
        reborn(&rig.directory, &rig.events, setup).map(drop)
    };
    let too_small = |what, number| Err(RestoreError::TooSmall { what, number });
    assert_eq!(
        refused(|setup| setup.worker_conferences_max = 1),
        too_small("conference", 1)
    );
    assert_eq!(
        refused(|setup| setup.worker_endpoints_max = 2),
        too_small("endpoint", 2)
    );
    assert_eq!(refused(|setup| setup.worker_endpoints_max = 800), Ok(()));
    let mut state = rig.directory.export_state();
    let (mut two, _) = super::directory(setup(), Vec::new());
    assert_eq!(
        two.import_state(state),
        Err(RestoreError::Workers { had: 1, has: 0 })
    );
    state = rig.directory.export_state();
    let (control, _end) = rings::pair(limits::REQUEST_RING, limits::REPLY_RING);
    let elsewhere = PortBlock {
        first: 30_000,
        last: 30_999,
    };
    let (mut moved, _) = super::directory(setup(), vec![(control, elsewhere)]);
    let refused = moved.import_state(state);
    assert!(
        matches!(refused, Err(RestoreError::TooSmall { what: "port", .. })),
        "{refused:?}"
    );
}

#[test]
fn it_is_not_quiet_while_something_is_on_its_way() {
    let mut rig = busy_rig();
    rig.ask(&endpoint("c", "x", "30", None));
    assert!(!rig.directory.is_quiet());
    rig.pass_ms(5);
    rig.answers();
    rig.ask(&delete_conference("c", "31"));
    assert!(!rig.directory.is_quiet());
    for _ in 0..20 {
        rig.net.advance_to(rig.net.now().after(Duration::from_millis(1)));
        rig.workers.iter_mut().for_each(|worker| _ = worker.turn());
        rig.directory.poll_quietly(rig.net.now());
    }
    assert_eq!(rig.answers().len(), 1);
    assert!(rig.directory.is_quiet());
}
