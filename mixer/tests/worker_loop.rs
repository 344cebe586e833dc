//! The worker's loop with the real engine on the in-memory network: requests, slots, stalls, rings.

mod stage;
mod worker {
    mod turns;
}

use mixer::control::rings::{self, FromWorker, IoChange, Request};
use mixer::io::PacketIo;
use mixer::io::sim::{Impairment, SimConfig, SimNet, SimPrepared};
use mixer::io::tap::Tap;
use mixer::worker::exchange::Exchange;
use mixer::worker::{Worker, WorkerConfig, WorkerId};
use mixer_engine::command::{
    Command, ConferenceIndex, EndpointIndex, Play, PlayId, PlaySource, Refusal, Retired,
};
use mixer_engine::engine::{Conference, ConferenceSetup, Endpoint, EndpointSetup, EngineLimits};
use mixer_engine::event::EventKind;
use mixer_engine::packet::FlowId;
use mixer_engine::time::{Slot, Timestamp};
use stage::{PORT_FIRST, Stage, add, assert_continuous, local};
use std::time::Duration;

/// A conference of two talkers that has run for `milliseconds`.
fn two_talkers(network: &SimConfig, milliseconds: u64) -> Stage {
    let mut stage = Stage::new(network);
    stage.add_conference(0, 7);
    stage.add_endpoint(0, 0, true);
    stage.add_endpoint(0, 1, true);
    stage.run(milliseconds);
    stage
}

type Done = (u64, Slot, Result<(), Refusal>, bool);

fn done(stage: &Stage) -> Vec<Done> {
    let outcome = |reply: &FromWorker<SimPrepared>| match reply {
        FromWorker::Done {
            id,
            slot,
            outcome,
            released,
        } => Some((*id, *slot, outcome.result, released.is_some())),
        FromWorker::Event(_)
        | FromWorker::EventsLost(_)
        | FromWorker::Retired { .. }
        | FromWorker::Released(_)
        | FromWorker::Histograms(_) => None,
    };
    stage.replies.iter().filter_map(outcome).collect()
}

/// The command that adds an endpoint whose conference fails with its first tick, and its flow.
fn planted(conference: u32, at: u32) -> (Command, IoChange<SimPrepared>) {
    let setup = EndpointSetup {
        local_port: local(at).port(),
        ssrc: 5,
        sequence: 0,
        timestamp: 0,
        media: None,
        slots: 16,
        trunk: false,
    };
    let (_, io) = add(conference, at);
    let command = Command::AddEndpoint {
        conference: ConferenceIndex(conference),
        at: EndpointIndex(at),
        endpoint: Endpoint::with_planted_failure(setup),
    };
    (command, io)
}

fn beep(id: u32) -> Play {
    let source = PlaySource::Tone {
        hertz: 440,
        attenuation_db: 10,
        duration_ms: 100,
    };
    Play {
        id: PlayId(id),
        source,
        repeat: 0,
    }
}

#[test]
fn a_second_of_talk_is_fifty_packets_each_way_without_a_gap() {
    let mut stage = two_talkers(&SimConfig::default(), 1_000);
    for phone in &stage.phones {
        assert_eq!(phone.heard.len(), 50);
        assert_continuous(&phone.heard);
        assert!(
            phone.heard.iter().all(|heard| heard.at.0 / 1_000_000 % 20 == 7),
            "the phase"
        );
    }
    stage.run(100);
    let stats = stage.control.stats().read();
    assert_eq!((stats.engine.rtp_sent, stats.io.sent), (110, 110));
    assert_eq!((stats.worker.endpoints, stats.worker.conferences), (2, 1));
    assert_eq!((stats.worker.slots, stats.worker.turns), (1_100, 1_100));
    assert_eq!((stats.worker.slots_late, stats.worker.slots_skipped), (0, 0));
}

#[test]
fn requests_are_answered_in_order_with_the_slot_they_took_effect_at() {
    let mut stage = Stage::new(&SimConfig::default());
    stage.run(5);
    let conference = stage.add_conference(0, 0);
    let endpoint = stage.add_endpoint(0, 3, false);
    stage.run(1);
    let removal = stage.remove_endpoint(3);
    let again = stage.remove_endpoint(3);
    stage.run(1);
    let expected = [
        (conference, Slot(5), Ok(()), false),
        (endpoint, Slot(5), Ok(()), false),
        (removal, Slot(6), Ok(()), true),
        (again, Slot(6), Err(Refusal::NotFound), false),
    ];
    assert_eq!(done(&stage), expected);
    assert_eq!(stage.worker.next_slot(), Slot(7));
}

#[test]
fn at_most_32_requests_a_turn() {
    let mut stage = Stage::new(&SimConfig::default());
    for _ in 0..40 {
        stage.command(Command::RemoveConference {
            at: ConferenceIndex(0),
        });
    }
    stage.run(2);
    let slots: Vec<_> = done(&stage).iter().map(|(_, slot, ..)| slot.0).collect();
    assert_eq!(slots, [vec![0; 32], vec![1; 8]].concat());
}

#[test]
fn a_flow_that_cannot_be_opened_leaves_the_command_undone() {
    let mut stage = two_talkers(&SimConfig::default(), 10);
    stage.replies.clear();
    // Endpoint 5 on the flow of endpoint 1.
    let (command, _) = add(0, 5);
    let taken = IoChange::Open {
        flow: FlowId(1),
        local: local(5),
        prepared: SimPrepared(local(5)),
    };
    let id = stage.send(command, taken);
    stage.run(1);
    assert_eq!(done(&stage), [(id, Slot(10), Err(Refusal::OutOfRange), true)]);
    let [FromWorker::Done { outcome, .. }] = &stage.replies[..] else {
        panic!("{:?}", stage.replies)
    };
    assert!(
        matches!(outcome.retired, Some(Retired::Endpoint(_))),
        "the box comes back"
    );
    assert_eq!(stage.control.stats().read().worker.endpoints, 2);
}

#[test]
fn a_refused_endpoint_loses_its_flow_again() {
    let mut stage = Stage::new(&SimConfig::default());
    let refused = stage.add_endpoint(9, 0, false);
    stage.run(1);
    stage.add_conference(9, 0);
    let accepted = stage.add_endpoint(9, 0, false);
    stage.run(1);
    let outcomes = done(&stage);
    assert_eq!(outcomes[0], (refused, Slot(0), Err(Refusal::NotFound), true));
    assert_eq!(outcomes[2], (accepted, Slot(1), Ok(()), false));
}

#[test]
fn a_refused_removal_keeps_the_flow() {
    let mut stage = two_talkers(&SimConfig::default(), 100);
    let heard = stage.phone(1).heard.len();
    let close = IoChange::Close { flow: FlowId(1) };
    stage.send(
        Command::RemoveEndpoint {
            at: EndpointIndex(33),
        },
        close,
    );
    stage.run(100);
    assert_eq!(stage.phone(1).heard.len(), heard + 5);
}

#[test]
fn what_closes_slowly_is_released_later_and_only_once() {
    let mut stage = two_talkers(
        &SimConfig {
            slow_close: true,
            ..SimConfig::default()
        },
        10,
    );
    stage.replies.clear();
    let id = stage.remove_endpoint(1);
    stage.run(20);
    assert_eq!(done(&stage), [(id, Slot(10), Ok(()), false)]);
    let released = |reply: &&FromWorker<SimPrepared>| matches!(reply, FromWorker::Released(SimPrepared(address)) if *address == local(1));
    assert_eq!(stage.replies.iter().filter(released).count(), 1);
}

#[test]
fn events_of_an_index_come_before_the_outcome_of_its_removal() {
    let mut stage = two_talkers(&SimConfig::default(), 50);
    stage.replies.clear();
    let at = EndpointIndex(0);
    stage.command(Command::PlayToEndpoint { at, play: beep(4) });
    stage.run(1);
    let stop = stage.command(Command::StopEndpoint { at, play: None });
    let removal = stage.remove_endpoint(0);
    stage.run(1);
    let told = |wanted: EventKind| {
        let is = |reply: &FromWorker<SimPrepared>| matches!(reply, FromWorker::Event(event) if event.endpoint == Some(at) && event.kind == wanted);
        stage.replies.iter().position(is).expect("the event")
    };
    let answered = |wanted: u64| {
        let is =
            |reply: &FromWorker<SimPrepared>| matches!(reply, FromWorker::Done { id, .. } if *id == wanted);
        stage.replies.iter().position(is).expect("the outcome")
    };
    let stopped = told(EventKind::Played {
        play: PlayId(4),
        complete: false,
    });
    assert!(stopped < answered(stop), "{:?}", stage.replies);
    assert!(answered(stop) < answered(removal));
}

#[test]
fn a_failed_conference_is_told_comes_back_in_boxes_and_loses_its_flows() {
    let mut stage = two_talkers(&SimConfig::default(), 30);
    stage.add_conference(1, 3);
    stage.add_endpoint(1, 4, true);
    stage.run(1);
    let (command, io) = planted(1, 5);
    stage.send(command, io);
    stage.replies.clear();
    stage.run(100);
    let mut order = Vec::new();
    for reply in &stage.replies {
        match reply {
            FromWorker::Event(event) if event.kind == EventKind::ConferenceFailed => {
                assert_eq!(event.conference, ConferenceIndex(1));
                order.push("failed");
            }
            FromWorker::Retired {
                retired: Retired::Conference(_),
                ..
            } => order.push("conference"),
            FromWorker::Retired {
                at,
                retired: Retired::Endpoint(_),
                released,
            } => {
                assert_eq!(released, &Some(SimPrepared(local(at.0))), "its port is free");
                order.push("endpoint");
            }
            FromWorker::Retired { .. }
            | FromWorker::Done { .. }
            | FromWorker::Event(_)
            | FromWorker::EventsLost(_)
            | FromWorker::Released(_)
            | FromWorker::Histograms(_) => {}
        }
    }
    assert_eq!(order, ["failed", "conference", "endpoint", "endpoint"]);
    let worker = stage.control.stats().read().worker;
    assert_eq!((worker.endpoints, worker.conferences), (2, 1));
    assert_continuous(&stage.phone(0).heard);
    // Index, port and flow are free for others.
    stage.replies.clear();
    stage.add_conference(1, 3);
    stage.add_endpoint(1, 4, false);
    stage.run(1);
    assert!(done(&stage).iter().all(|(_, _, result, _)| result.is_ok()));
}

#[test]
fn the_boxes_of_a_large_failed_conference_come_back_turn_by_turn_and_in_order() {
    let mut stage = Stage::new(&SimConfig::default());
    stage.add_conference(0, 0);
    for at in 0..49 {
        stage.add_endpoint(0, at, false);
    }
    stage.run(3);
    let (command, io) = planted(0, 50);
    stage.send(command, io);
    while !stage
        .replies
        .iter()
        .any(|reply| matches!(reply, FromWorker::Retired { .. }))
    {
        stage.replies.clear();
        stage.run(1);
    }
    let retired = |stage: &Stage| {
        let is = |reply: &&FromWorker<SimPrepared>| matches!(reply, FromWorker::Retired { .. });
        stage.replies.iter().filter(is).count()
    };
    assert_eq!(retired(&stage), 32);
    // A command of the next turn is answered when all of them are back.
    stage.remove_endpoint(3);
    stage.run(2);
    assert_eq!(retired(&stage), 51);
    assert!(
        matches!(stage.replies.last(), Some(FromWorker::Done { outcome, .. }) if outcome.result == Err(Refusal::NotFound)),
        "{:?}",
        stage.replies.last()
    );
    let worker = stage.control.stats().read().worker;
    assert_eq!(
        (worker.endpoints, worker.conferences, worker.replies_full),
        (0, 0, 0)
    );
}

#[test]
fn a_full_reply_ring_holds_requests_back_and_loses_none() {
    let mut stage = Stage::with_rings(&SimConfig::default(), 256, 70, 1_024);
    stage.add_conference(0, 0);
    stage.run(1);
    stage.fetches = false;
    stage.replies.clear();
    let ids: Vec<_> = (0..200u32)
        .map(|number| {
            let play = Some(PlayId(number));
            stage.command(Command::StopConference {
                at: ConferenceIndex(0),
                play,
            })
        })
        .collect();
    stage.run(50);
    let stats = stage.control.stats().read();
    assert!(stats.worker.requests < 20, "{}", stats.worker.requests);
    assert!(stats.worker.replies_full >= 48, "{}", stats.worker.replies_full);
    assert_eq!(stats.worker.slots, 51, "the media goes on");
    stage.fetches = true;
    stage.run(200);
    let answered: Vec<_> = done(&stage).iter().map(|(id, ..)| *id).collect();
    assert_eq!(answered, ids);
}

#[test]
fn events_that_nobody_fetches_are_counted_and_told() {
    let mut stage = Stage::with_rings(&SimConfig::default(), 256, 66, 4);
    stage.add_conference(0, 0);
    for at in 0..20 {
        stage.add_endpoint(0, at, false);
    }
    stage.run(10);
    for at in (0..20).map(EndpointIndex) {
        let source = PlaySource::Tone {
            hertz: 440,
            attenuation_db: 10,
            duration_ms: 100,
        };
        let play = Play {
            id: PlayId(at.0),
            source,
            repeat: 1,
        };
        stage.command(Command::PlayToEndpoint { at, play });
    }
    stage.run(20);
    stage.replies.clear();
    // Twenty plays end in one tick: the engine keeps four events.
    stage.fetches = false;
    stage.run(500);
    stage.fetches = true;
    stage.run(10);
    let mut events = 0;
    let mut lost = 0;
    for reply in &stage.replies {
        match reply {
            FromWorker::Event(_) => events += 1,
            FromWorker::EventsLost(count) => lost += count,
            FromWorker::Done { .. }
            | FromWorker::Retired { .. }
            | FromWorker::Released(_)
            | FromWorker::Histograms(_) => {}
        }
    }
    assert_eq!(lost, stage.control.stats().read().engine.events_lost);
    assert_eq!((events, lost), (4, 16));
}

#[test]
fn a_short_stall_is_caught_up_without_a_gap() {
    let mut stage = two_talkers(&SimConfig::default(), 1_000);
    stage.stall(55);
    stage.run(500);
    for phone in &stage.phones {
        assert_continuous(&phone.heard);
        assert!(phone.heard.iter().skip(1).all(|heard| !heard.marker));
    }
    let worker = stage.control.stats().read().worker;
    assert_eq!(
        (worker.slots, worker.slots_late, worker.slots_skipped),
        (1_555, 55, 0)
    );
    assert_eq!(worker.slots_overslept, 55);
}

/// A capture file that takes 1.2 ms for every piece that is written to it.
struct SlowFile(SimNet);

impl std::io::Write for SlowFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0
            .advance_to(self.0.now().after(Duration::from_micros(1_200)));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_worker_that_is_late_by_its_own_work_has_not_overslept() {
    let net = SimNet::new(&SimConfig::default());
    let (mut control, end) = rings::pair(16, 4_096);
    let config = WorkerConfig {
        id: WorkerId(0),
        core: None,
        spin: false,
        slots_per_turn: 1,
        origin: None,
        recording: None,
        engine: EngineLimits {
            conferences: 1,
            endpoints: 1,
            port_first: PORT_FIRST,
            port_last: PORT_FIRST + 1,
            events: 16,
            media_timeout_ms: 60_000,
        },
    };
    let io = Tap::new(net.attach(1), SlowFile(net.clone())).unwrap();
    let mut worker = Worker::new(&config, io, end, Exchange::alone());
    let conference = Conference::new(ConferenceSetup {
        phase: 0,
        talkers: None,
    });
    let at = ConferenceIndex(0);
    let add_conference = (Command::AddConference { at, conference }, IoChange::None);
    for (id, (command, io)) in [(1, add_conference), (2, add(0, 0))] {
        control.send(Request { id, command, io }).unwrap();
    }
    while net.now() < Timestamp(1_000_000_000) {
        assert!(worker.turn() && worker.wait());
    }
    let stats = control.stats().read();
    assert!(stats.engine.rtp_sent > 40, "{stats:?}");
    assert!(stats.worker.slots_late > 100, "{stats:?}");
    assert_eq!(stats.worker.slots_overslept, 0);
    net.advance_to(net.now().after(Duration::from_millis(5)));
    worker.turn();
    let overslept = control.stats().read().worker.slots_overslept;
    assert!((4..=5).contains(&overslept), "{overslept}");
}

#[test]
fn a_long_stall_is_a_pause_with_true_timestamps_and_at_most_three_frames_at_once() {
    let mut stage = two_talkers(&SimConfig::default(), 1_000);
    stage.stall(730);
    stage.run(1_000);
    for phone in &stage.phones {
        let mut burst = 0;
        let mut pauses = 0;
        for pair in phone.heard.windows(2) {
            assert_eq!(pair[1].sequence, pair[0].sequence.wrapping_add(1), "{pair:?}");
            let frames = pair[1].timestamp.wrapping_sub(pair[0].timestamp) / 160;
            assert_eq!(pair[1].marker, frames > 1, "{pair:?}");
            pauses += u32::from(frames > 1);
            burst = if pair[1].at == pair[0].at { burst + 1 } else { 0 };
            assert!(burst < 3, "{pair:?}");
        }
        assert_eq!(pauses, 1);
        // By the clock: from the first packet to the last, one frame each 20 ms.
        let (first, last) = (phone.heard[0], phone.heard[phone.heard.len() - 1]);
        let frames = u64::from(last.timestamp.wrapping_sub(first.timestamp) / 160);
        assert_eq!(frames * 20_000_000, last.at.0 - first.at.0);
    }
    let worker = stage.control.stats().read().worker;
    assert_eq!(worker.slots, 2_730);
    assert_eq!(worker.slots_skipped, 730 + 1 - 60);
}

#[test]
fn after_hours_of_suspension_the_worker_is_back_at_once() {
    let mut stage = two_talkers(&SimConfig::default(), 1_000);
    let before = stage.phone(0).heard.len();
    let hours = Duration::from_secs(3 * 3_600);
    stage.net.advance_to(stage.net.now().after(hours));
    stage.worker.turn();
    let worker = stage.control.stats().read().worker;
    assert_eq!(worker.slots, 1_000 + 10_000);
    assert_eq!(worker.slots_skipped, 3 * 3_600_000 + 1 - 60);
    assert!(stage.worker.next_slot_at() > stage.net.now());
    assert!(stage.worker.next_slot_at() <= stage.net.now().after(Slot::LENGTH));
    stage.step(|worker| assert!(worker.turn()));
    let burst = stage.phone(0).heard.len() - before;
    assert!((1..=4).contains(&burst), "{burst}");
}

#[test]
fn histograms_go_out_each_second_and_fill_on_while_none_came_back() {
    let mut stage = two_talkers(&SimConfig::default(), 3_500);
    let mut boxes = Vec::new();
    for reply in stage.replies.drain(..) {
        if let FromWorker::Histograms(histograms) = reply {
            boxes.push(histograms);
        }
    }
    assert_eq!(boxes.len(), 1, "the other pair is filling, and none was returned");
    assert_eq!(boxes[0].tick_lateness.len(), 1_001);
    assert_eq!(boxes[0].tick_duration.len(), 1_001);
    stage.control.return_histograms(boxes.pop().unwrap());
    stage.run(1_000);
    let filled = stage.replies.iter().find_map(|reply| match reply {
        FromWorker::Histograms(histograms) => Some(histograms.tick_lateness.len()),
        FromWorker::Done { .. }
        | FromWorker::Event(_)
        | FromWorker::EventsLost(_)
        | FromWorker::Retired { .. }
        | FromWorker::Released(_) => None,
    });
    assert!(
        filled.unwrap() > 2_500,
        "three seconds in one, none lost: {filled:?}"
    );
}

#[test]
fn the_worker_ends_when_control_says_so() {
    let mut stage = two_talkers(&SimConfig::default(), 10);
    stage.control.stop();
    assert!(!stage.worker.turn());
    assert!(!stage.control.is_abandoned());
    let Stage { worker, control, .. } = stage;
    drop(worker);
    assert!(control.is_abandoned());
}

#[test]
fn a_minute_of_joins_leaves_loss_and_reordering_depends_on_the_seed_alone() {
    let rough = Impairment {
        loss: 0.02,
        duplication: 0.01,
        delay: Duration::from_millis(20),
        variance: Duration::from_millis(40),
    };
    let minute = |seed| {
        let network = SimConfig {
            seed,
            to_workers: rough,
            to_peers: Impairment::default(),
            ..SimConfig::default()
        };
        let mut stage = Stage::new(&network);
        for (conference, phase) in [(0, 0), (1, 6), (2, 12)] {
            stage.add_conference(conference, phase);
        }
        for at in 0..20 {
            stage.add_endpoint(at % 3, at, at % 2 == 0);
        }
        for second in 0..60u32 {
            stage.run(1_000);
            for phone in &stage.phones {
                assert_continuous(&phone.heard);
            }
            let at = second % 20;
            if stage.phones.iter().any(|phone| phone.at.0 == at) {
                stage.remove_endpoint(at);
            } else {
                stage.add_endpoint(at % 3, at, at % 2 == 0);
            }
        }
        assert!(done(&stage).iter().all(|(_, _, result, _)| result.is_ok()));
        assert_eq!(stage.worker.io().counters().no_send_buffer, 0);
        (
            stage.net.digest(),
            stage.net.counters(),
            stage.control.stats().read().engine,
        )
    };
    let first = minute(11);
    assert_eq!(first, minute(11));
    assert_ne!(first.0, minute(12).0);
}
