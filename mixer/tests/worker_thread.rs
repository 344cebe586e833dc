//! A worker on a thread of its own, with real sockets on loopback.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod stage;

use std::io;
use std::net::UdpSocket;
use std::path::Path;
use std::time::Duration;

use mixer::clock::Clock;
use mixer::control::rings::{FromWorker, IoChange, Request};
use mixer::io::uring::{BindOptions, UringConfig, UringIo, UringPrepared, bind};
use mixer::placement::{available_cores, prefer_realtime};
use mixer::replay;
use mixer::worker::exchange::Exchange;
use mixer::worker::stats::StatsSnapshot;
use mixer::worker::{RecordingConfig, SpawnError, WorkerConfig, WorkerHandle, WorkerId, spawn};
use mixer_engine::command::{Command, ConferenceIndex, EndpointIndex};
use mixer_engine::engine::{Conference, ConferenceSetup, Endpoint, EndpointSetup, EngineLimits};
use mixer_engine::packet::FlowId;
use mixer_engine::wire::rtp::{RtpRepr, RtpView};

fn config(core: Option<usize>, spin: bool) -> WorkerConfig {
    let engine = EngineLimits {
        conferences: 4,
        endpoints: 8,
        port_first: 1_024,
        port_last: 65_535,
        events: 64,
        media_timeout_ms: 60_000,
    };
    WorkerConfig {
        id: WorkerId(3),
        core,
        spin,
        slots_per_turn: 1,
        origin: None,
        engine,
        recording: None,
    }
}

fn open() -> io::Result<UringIo> {
    let sizes = UringConfig {
        receive_buffers: 256,
        send_buffers: 64,
        ..UringConfig::new(Clock::start(), 8)
    };
    UringIo::new(&sizes)
}

/// Sends a request and waits for its outcome.
fn perform(
    worker: &mut WorkerHandle<UringPrepared>,
    command: Command,
    io: IoChange<UringPrepared>,
) -> Option<UringPrepared> {
    worker.link.send(Request { id: 1, command, io }).unwrap();
    loop {
        match worker.link.receive() {
            Some(FromWorker::Done {
                outcome, released, ..
            }) => {
                assert_eq!(outcome.result, Ok(()));
                return released;
            }
            Some(FromWorker::Released(prepared)) => return Some(prepared),
            Some(_) => {}
            None => std::thread::yield_now(),
        }
        assert!(!worker.is_finished());
    }
}

fn join(worker: &mut WorkerHandle<UringPrepared>, at: u32) -> UdpSocket {
    let phone = UdpSocket::bind("127.0.0.1:0").unwrap();
    phone.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let prepared = bind("127.0.0.1:0".parse().unwrap(), &BindOptions::default()).unwrap();
    let local = prepared.local();
    let endpoint = Endpoint::new(EndpointSetup {
        local_port: local.port(),
        ssrc: 0xA000_0000 + at,
        sequence: 0,
        timestamp: 0,
        media: Some(stage::media(phone.local_addr().unwrap())),
        slots: 16,
        trunk: false,
    });
    let (conference, flow) = (ConferenceIndex(0), FlowId(at));
    let at = EndpointIndex(at);
    perform(
        worker,
        Command::AddEndpoint {
            conference,
            at,
            endpoint,
        },
        IoChange::Open {
            flow,
            local,
            prepared,
        },
    );
    phone.connect(local).unwrap();
    phone
}

/// One phone talks; the other hears exactly its bytes, with the worker's numbering.
fn two_phones(core: Option<usize>, spin: bool) {
    let folder = std::env::temp_dir().join(format!("mixminus-recording-{}-{spin}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let mut config = config(core, spin);
    config.recording = Some(RecordingConfig {
        bytes: 8 << 20,
        folder: folder.clone().leak(),
    });
    let mut worker = spawn(config, Exchange::alone(), open).unwrap();
    let conference = Conference::new(ConferenceSetup {
        phase: 3,
        talkers: None,
    });
    perform(
        &mut worker,
        Command::AddConference {
            at: ConferenceIndex(0),
            conference,
        },
        IoChange::None,
    );
    let (talker, listener) = (join(&mut worker, 0), join(&mut worker, 1));
    let mut packet = [0x91; 172];
    let mut buffer = [0; 2_048];
    let mut heard_talk = false;
    let mut last = None;
    for sequence in 0..200u16 {
        let header = RtpRepr {
            payload_type: 0,
            marker: sequence == 0,
            sequence,
            timestamp: u32::from(sequence) * 160,
            ssrc: 7,
            csrc: &[],
        };
        assert_eq!(header.emit(&mut packet), 12);
        talker.send(&packet).unwrap();
        // The listener's packets are the pace: one each 20 ms.
        let length = listener.recv(&mut buffer).unwrap();
        let view = RtpView::parse(&buffer[..length]).unwrap();
        let number = view.sequence();
        assert_eq!(number, last.map_or(number, |last: u16| last.wrapping_add(1)));
        last = Some(number);
        heard_talk |= view.payload() == &packet[12..];
        if heard_talk && sequence > 20 {
            break;
        }
    }
    assert!(heard_talk);
    let released = perform(
        &mut worker,
        Command::RemoveEndpoint { at: EndpointIndex(1) },
        IoChange::Close { flow: FlowId(1) },
    );
    let released = released.or_else(|| {
        loop {
            match worker.link.receive() {
                Some(FromWorker::Released(prepared)) => return Some(prepared),
                Some(_) => {}
                None => std::thread::yield_now(),
            }
        }
    });
    assert_eq!(released.unwrap().local(), listener.peer_addr().unwrap());
    let stats = worker.link.stats_reader();
    assert!(worker.join());
    let stats = stats.stats().read();
    assert!(stats.io.received >= 20 && stats.io.sent >= 20 && stats.engine.rtp_received >= 20);
    assert!(stats.worker.busy_ns > 0 && stats.worker.alive_ns >= stats.worker.busy_ns);
    assert_replayable(&folder, &stats);
}

/// What the worker left in its folder can be replayed, and is all of it.
fn assert_replayable(folder: &Path, stats: &StatsSnapshot) {
    let files: Vec<_> = std::fs::read_dir(folder).unwrap().collect();
    let path = files.into_iter().next().unwrap().unwrap().path();
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    assert!(
        name.starts_with("worker-3-") && name.ends_with(".replay"),
        "{name}"
    );
    let mut sent = 0;
    let played = replay::play(&std::fs::read(&path).unwrap(), |_| sent += 1).unwrap();
    std::fs::remove_dir_all(folder).unwrap();
    // The last turn may not have been published.
    assert!(sent >= stats.engine.rtp_sent, "{sent} of {stats:?}");
    assert!(
        played.datagrams >= stats.io.received && played.commands == 4,
        "{played:?}"
    );
}

#[test]
fn two_phones_hear_each_other_through_a_sleeping_worker() {
    two_phones(None, false);
}

#[test]
fn two_phones_hear_each_other_through_a_pinned_spinning_worker() {
    two_phones(available_cores().last().copied(), true);
}

/// The scheduling policy of this process's thread of that name (field 41 of its `stat`, proc(5)).
fn policy(name: &str) -> String {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let mut stats =
        threads.filter_map(|thread| std::fs::read_to_string(thread.unwrap().path().join("stat")).ok());
    let stat = stats.find(|stat| stat.contains(&format!("({name})"))).unwrap();
    let behind_the_name = stat.split_once(") ").unwrap().1;
    behind_the_name.split(' ').nth(38).unwrap().to_owned()
}

#[test]
fn a_pinned_worker_that_sleeps_goes_before_ordinary_threads() {
    const FIFO: &str = "1";
    // A thread that is not pinned shows what the system allows.
    let allowed = std::thread::spawn(prefer_realtime).join().unwrap();
    if !allowed {
        eprintln!("NOT RUN: real-time order needs CAP_SYS_NICE and a second core");
    }
    for (id, spin) in [(70, false), (71, true)] {
        let config = WorkerConfig {
            id: WorkerId(id),
            ..config(available_cores().last().copied(), spin)
        };
        let worker = spawn(config, Exchange::alone(), open).unwrap();
        let is_first = policy(&format!("worker-{id}")) == FIFO;
        assert_eq!(is_first, allowed && !spin);
        assert!(worker.join());
    }
}

#[test]
fn a_core_that_does_not_exist_is_refused() {
    for core in [1_023, 100_000] {
        let error = spawn(config(Some(core), false), Exchange::alone(), open).unwrap_err();
        let expected = format!("worker 3: cannot be pinned to core {core}:");
        assert!(
            matches!(error, SpawnError::Pin { .. }) && error.to_string().starts_with(&expected),
            "{error}"
        );
    }
}

#[test]
fn packet_io_that_does_not_open_is_told() {
    let error = spawn(config(None, false), Exchange::alone(), || {
        Err::<UringIo, _>(io::Error::other("no ring today"))
    })
    .unwrap_err();
    assert!(error.to_string().contains("no ring today"), "{error}");
}
