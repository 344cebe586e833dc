//! With a worker played by the test.

use super::*;

/// A directory whose worker is played by the test.
struct Puppet {
    directory: Tested,
    events: Arc<EventLog>,
    end: Option<WorkerEnd<SimPrepared>>,
    now: Timestamp,
}

impl Puppet {
    /// With conference `c` and its endpoints `a` and `b`.
    fn new() -> Self {
        let (control, end) = rings::pair(limits::REQUEST_RING, limits::REPLY_RING);
        let (directory, events) = directory(setup(), vec![(control, BLOCK)]);
        let mut puppet = Self {
            directory,
            events,
            end: Some(end),
            now: Timestamp(0),
        };
        for call in [
            conference("c", "me", "1"),
            endpoint("c", "a", "2", None),
            endpoint("c", "b", "3", None),
        ] {
            puppet.directory.call(puppet.now, &call, 0);
        }
        puppet.serve(|_| Ok(()));
        assert!(puppet.directory.ready().all(|(_, answer)| answer.is_ok()));
        puppet
    }

    /// Answers everything that is in the ring; snapshots come back empty.
    fn serve(&mut self, result: impl Fn(&Command) -> Result<(), Refusal>) {
        let end = self.end.as_mut().unwrap();
        while let Ok(request) = end.requests.pop() {
            let result = result(&request.command);
            let mut retired = None;
            if let Command::Snapshot { buffer, .. } = request.command {
                retired = Some(Retired::Snapshot(buffer));
            }
            let outcome = Outcome { result, retired };
            let done = FromWorker::Done {
                id: request.id,
                slot: Slot(7),
                outcome,
                released: None,
            };
            end.replies.push(done).unwrap();
        }
        self.directory.poll(self.now);
    }

    fn tell(&mut self, message: FromWorker<SimPrepared>) {
        self.end.as_mut().unwrap().replies.push(message).unwrap();
        self.directory.poll(self.now);
    }

    fn event(&mut self, endpoint: Option<u32>, kind: EventKind) {
        let endpoint = endpoint.map(EndpointIndex);
        self.tell(FromWorker::Event(EngineEvent {
            conference: ConferenceIndex(0),
            endpoint,
            kind,
        }));
    }

    fn box_comes_back(&mut self, at: u32) {
        let setup = mixer_engine::engine::EndpointSetup {
            local_port: 20_000,
            ssrc: 1,
            sequence: 0,
            timestamp: 0,
            media: None,
            slots: 16,
            trunk: false,
        };
        let retired = Retired::Endpoint(mixer_engine::engine::Endpoint::new(setup));
        self.tell(FromWorker::Retired {
            at: EndpointIndex(at),
            retired,
            released: None,
        });
    }
}

#[test]
fn engine_events_reach_the_stream_with_names_and_change_the_state() {
    let mut puppet = Puppet::new();
    puppet.event(Some(0), EventKind::Active);
    puppet.event(Some(1), EventKind::Talk { talking: true });
    puppet.event(
        Some(1),
        EventKind::Digit {
            digit: '#',
            duration_ms: 80,
        },
    );
    puppet.event(Some(1), EventKind::MediaTimeout);
    puppet.event(Some(77), EventKind::Active);
    puppet.event(
        Some(0),
        EventKind::Played {
            play: PlayId(99),
            complete: true,
        },
    );
    let told: Vec<(String, EventBody)> = told(&puppet.events)
        .into_iter()
        .map(|event| (event.endpoint, event.body))
        .collect();
    let expected = [
        ("a".to_owned(), EventBody::Active),
        ("b".to_owned(), EventBody::Talk { talking: true }),
        (
            "b".to_owned(),
            EventBody::Digit {
                digit: '#',
                duration_ms: 80,
            },
        ),
        ("b".to_owned(), EventBody::MediaTimeout),
    ];
    assert_eq!(told, expected);
    let state = puppet.directory.state("i");
    assert_eq!(state.event_seq, 4);
    let [a, b] = &state.conferences[0].endpoints[..] else {
        panic!()
    };
    assert!(a.active && !a.talking && !b.active && b.talking);
}

#[test]
fn a_failed_conference_is_told_and_its_indexes_wait_for_their_boxes() {
    for event_first in [true, false] {
        let mut puppet = Puppet::new();
        let free = |puppet: &Puppet| puppet.directory.workers[0].free_endpoints.len();
        let all = ENDPOINTS as usize;
        if !event_first {
            puppet.box_comes_back(0);
        }
        puppet.event(None, EventKind::ConferenceFailed);
        assert_eq!(free(&puppet), all - if event_first { 2 } else { 1 });
        puppet.box_comes_back(1);
        if event_first {
            puppet.box_comes_back(0);
        }
        assert_eq!(free(&puppet), all);
        assert_eq!(told(&puppet.events)[0].body, EventBody::ConferenceFailed);
        assert!(puppet.directory.state("i").conferences.is_empty());
        assert!(puppet.directory.ssrcs.is_empty());
    }
}

#[test]
fn lost_events_end_in_a_gap_after_the_next_snapshot() {
    let mut puppet = Puppet::new();
    puppet.tell(FromWorker::EventsLost(3));
    assert_eq!(puppet.events.head(), 0);
    puppet.serve(|_| Ok(()));
    puppet.serve(|_| Ok(()));
    assert_eq!(
        told(&puppet.events).last().map(|event| event.body.clone()),
        Some(EventBody::Gap)
    );
}

#[test]
fn a_snapshot_comes_in_pages_without_empty_ones_and_the_gap_follows_the_last() {
    let mut puppet = Puppet::new();
    for number in 2..ENDPOINTS {
        let command = format!("e{number}");
        let call = endpoint("c", &command, &command, None);
        puppet.directory.call(puppet.now, &call, 1);
        puppet.serve(|_| Ok(()));
    }
    let gaps = |puppet: &Puppet| {
        let told = told(&puppet.events);
        told.iter().filter(|event| event.body == EventBody::Gap).count()
    };
    for (removed, pages) in [(2..2, vec![0, 256]), (2..300, vec![256])] {
        for number in removed {
            let call = delete_endpoint("c", &format!("e{number}"), &format!("r{number}"));
            puppet.directory.call(puppet.now, &call, 1);
            puppet.serve(|_| Ok(()));
        }
        for name in ["a", "b"].iter().filter(|_| pages.len() == 1) {
            let call = delete_endpoint("c", name, &format!("r{name}"));
            puppet.directory.call(puppet.now, &call, 1);
            puppet.serve(|_| Ok(()));
        }
        // Whatever is under way ends first.
        while puppet.directory.workers[0].snapshot_from.is_some() {
            puppet.serve(|_| Ok(()));
        }
        let before = gaps(&puppet);
        puppet.now = puppet.now.after(Duration::from_secs(1));
        puppet.tell(FromWorker::EventsLost(1));
        for from in pages {
            assert_eq!(gaps(&puppet), before);
            let asked = std::cell::Cell::new(None);
            puppet.serve(|command| {
                if let Command::Snapshot { from, buffer } = command {
                    assert_eq!(buffer.capacity(), 256);
                    asked.set(Some(from.0));
                }
                Ok(())
            });
            assert_eq!(asked.get(), Some(from));
        }
        assert_eq!(gaps(&puppet), before + 1);
    }
}

#[test]
fn refusals_of_the_engine_become_problems_and_leave_no_trace() {
    let mut puppet = Puppet::new();
    let play = verb("c", "a", "10", EndpointVerb::Play(tone("p", 1)));
    let cases = [
        (play, Refusal::TooManyPlays, ProblemKind::NoHeadroom),
        (
            verb("c", "a", "11", EndpointVerb::Mute { on: true }),
            Refusal::NotFound,
            ProblemKind::NotFound,
        ),
        (
            endpoint("c", "x", "12", None),
            Refusal::OutOfRange,
            ProblemKind::Internal,
        ),
    ];
    for (call, refusal, kind) in cases {
        puppet.directory.call(puppet.now, &call, 1);
        puppet.serve(|command| {
            if matches!(command, Command::Snapshot { .. }) {
                Ok(())
            } else {
                Err(refusal)
            }
        });
        let answers: Vec<_> = puppet.directory.ready().collect();
        assert!(
            matches!(&answers[..], [(1, Err(problem))] if problem.kind == kind),
            "{answers:?}"
        );
    }
    let state = puppet.directory.state("i");
    assert_eq!(state.conferences[0].endpoints.len(), 2);
    assert!(!state.conferences[0].endpoints[0].muted);
    assert!(puppet.directory.conferences["c"].endpoints["a"].plays.is_empty());
    assert_eq!(
        puppet.directory.workers[0].free_endpoints.len(),
        ENDPOINTS as usize - 2
    );
}

#[test]
fn a_dead_worker_takes_its_conferences_along_and_is_told() {
    let mut puppet = Puppet::new();
    assert!(puppet.directory.is_healthy());
    puppet.end = None;
    puppet.directory.poll(puppet.now);
    assert!(!puppet.directory.is_healthy());
    assert_eq!(told(&puppet.events)[0].body, EventBody::ConferenceFailed);
    puppet.directory.call(puppet.now, &conference("d", "me", "9"), 1);
    let answers: Vec<_> = puppet.directory.ready().collect();
    assert!(matches!(&answers[..], [(1, Err(problem))] if problem.kind == ProblemKind::NoHeadroom));
}
