//! What every backend owes the worker, checked on each of them by the same code.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::time::Duration;

use mixer::io::{Intake, IoCounters, PacketIo};
use mixer_engine::packet::{Datagram, FlowId, PacketSink};
use mixer_engine::time::Timestamp;

/// A backend with its surroundings: how ports are prepared and what the far end is.
trait Scene {
    /// The backend.
    type Io: PacketIo;
    /// Flows it was made for.
    const FLOWS: u32 = 4;
    /// Transmits it takes between two flushes.
    const SEND_BUFFERS: u32;
    /// Datagrams it can hold until they are received.
    const RECEIVE_BUFFERS: u32;
    /// Longest payload it can receive.
    const PAYLOAD_MAX: usize;
    /// Whether it looks ahead, and tells which ports come.
    const EXPECTS: bool = true;
    /// Whether it does so early enough to announce them first.
    const ANNOUNCES: bool = false;

    /// The backend.
    fn io(&mut self) -> &mut Self::Io;
    /// Prepares a port: `local` again, or a fresh one. Called when whatever used it was dropped.
    fn prepare(&mut self, local: Option<SocketAddr>) -> (SocketAddr, <Self::Io as PacketIo>::Prepared);
    /// Address of peer 0 or 1.
    fn peer(&self, peer: usize) -> SocketAddr;
    /// A peer sends.
    fn peer_send(&mut self, peer: usize, to: SocketAddr, payload: &[u8]);
    /// The next datagram a peer got: from where, and what. `None` when none comes.
    fn peer_receive(&mut self, peer: usize) -> Option<(SocketAddr, Vec<u8>)>;
}

/// A datagram as a test remembers it.
type Got = (u16, SocketAddr, Vec<u8>);

fn open<S: Scene>(scene: &mut S, flow: u32) -> SocketAddr {
    let (local, prepared) = scene.prepare(None);
    assert!(scene.io().open_flow(FlowId(flow), local, prepared).is_ok());
    scene.io().flush();
    local
}

/// One turn with at most `budget` datagrams.
fn turn<S: Scene>(scene: &mut S, budget: u32) -> Vec<Got> {
    let io = scene.io();
    let now = io.now();
    let mut got = Vec::new();
    let taken = io.receive(budget, |datagram| {
        got.push((datagram.local_port, datagram.source, datagram.payload.to_vec()));
        assert_eq!(datagram.received_at, now);
    });
    assert_eq!(taken as usize, got.len());
    io.flush();
    io.wait(now.after(Duration::from_millis(1)));
    got
}

/// Turns until `wanted` datagrams have come, or for a long time.
fn receive<S: Scene>(scene: &mut S, wanted: usize) -> Vec<Got> {
    let mut got = Vec::new();
    for _ in 0..10_000 {
        got.extend(turn(scene, 64));
        if got.len() >= wanted {
            break;
        }
    }
    got
}

fn send<S: Scene>(scene: &mut S, flow: u32, payload: &[u8]) -> bool {
    scene.io().transmit(FlowId(flow), |buffer| {
        assert!(buffer.len() >= 1_472);
        buffer[..payload.len()].copy_from_slice(payload);
        payload.len()
    })
}

/// Closes a flow and returns what it gave back, at once or later.
fn close<S: Scene>(scene: &mut S, flow: u32) -> <S::Io as PacketIo>::Prepared {
    let mut released = scene.io().close_flow(FlowId(flow));
    for _ in 0..10_000 {
        if let Some(released) = released {
            return released;
        }
        turn(scene, 64);
        released = scene.io().poll_closed();
    }
    panic!("a closed flow never gave back what was prepared for it");
}

fn no_loss_at_low_rate<S: Scene>(mut scene: S) {
    let locals: Vec<_> = (0..S::FLOWS).map(|flow| open(&mut scene, flow)).collect();
    let peer = scene.peer(0);
    for flow in 0..S::FLOWS {
        scene.io().set_remote(FlowId(flow), peer);
    }
    for number in 0..100u8 {
        for (flow, local) in (0..S::FLOWS).zip(&locals) {
            scene.peer_send(0, *local, &[number; 172]);
            assert_eq!(receive(&mut scene, 1), [(local.port(), peer, vec![number; 172])]);
            assert!(send(&mut scene, flow, &[number; 40]));
            scene.io().flush();
            assert_eq!(scene.peer_receive(0), Some((*local, vec![number; 40])));
        }
    }
    let packets = u64::from(S::FLOWS) * 100;
    assert_eq!(
        scene.io().counters(),
        IoCounters {
            received: packets,
            sent: packets,
            ..IoCounters::default()
        }
    );
}

fn budget_respected<S: Scene>(mut scene: S) {
    let local = open(&mut scene, 0);
    for number in 0..10u8 {
        scene.peer_send(0, local, &[number]);
    }
    let mut got = Vec::new();
    for _ in 0..10_000 {
        let burst = turn(&mut scene, 3);
        assert!(burst.len() <= 3);
        got.extend(burst.into_iter().map(|(_, _, payload)| payload[0]));
        if got.len() >= 10 {
            break;
        }
    }
    assert_eq!(got, (0..10).collect::<Vec<_>>());
}

fn no_buffer_leaks<S: Scene>(mut scene: S) {
    let local = open(&mut scene, 0);
    let peer = scene.peer(0);
    scene.io().set_remote(FlowId(0), peer);
    let oversize = vec![9; S::PAYLOAD_MAX + 1];
    // Ten times as many datagrams as there are buffers, either way, a few of them too large.
    let rounds = 10 * S::RECEIVE_BUFFERS.max(S::SEND_BUFFERS) / 4;
    for round in 0..rounds {
        let mark = round.to_be_bytes();
        for _ in 0..4 {
            scene.peer_send(0, local, &mark);
        }
        if round % 8 == 0 {
            scene.peer_send(0, local, &oversize);
        }
        let got = receive(&mut scene, 4);
        assert!(
            got.len() == 4 && got.iter().all(|(_, _, payload)| *payload == mark),
            "round {round}"
        );
        for _ in 0..4 {
            assert!(send(&mut scene, 0, &mark), "round {round}");
        }
        scene.io().flush();
        for _ in 0..4 {
            assert_eq!(
                scene.peer_receive(0),
                Some((local, mark.to_vec())),
                "round {round}"
            );
        }
    }
    // One more turn for the last oversize one; then all buffers but one at once.
    turn(&mut scene, 64);
    let burst = S::RECEIVE_BUFFERS as usize - 1;
    for _ in 0..burst {
        scene.peer_send(0, local, b"burst");
    }
    assert_eq!(receive(&mut scene, burst).len(), burst);
    let counters = scene.io().counters();
    assert_eq!(
        (
            counters.no_send_buffer,
            counters.receive_ring_full,
            counters.send_failed
        ),
        (0, 0, 0)
    );
    assert_eq!(counters.truncated, u64::from(rounds.div_ceil(8)));
}

fn out_of_send_buffers<S: Scene>(mut scene: S) {
    let local = open(&mut scene, 0);
    let peer = scene.peer(0);
    scene.io().set_remote(FlowId(0), peer);
    for _ in 0..S::SEND_BUFFERS {
        assert!(send(&mut scene, 0, b"in"));
    }
    assert!(
        !scene
            .io()
            .transmit(FlowId(0), |_| -> usize { panic!("no buffer to fill") })
    );
    assert_eq!(scene.io().counters().no_send_buffer, 1);
    scene.io().flush();
    assert!(send(&mut scene, 0, b"in"));
    scene.io().flush();
    for _ in 0..=S::SEND_BUFFERS {
        assert_eq!(scene.peer_receive(0), Some((local, b"in".to_vec())));
    }
}

fn reopen_on_the_same_port<S: Scene>(mut scene: S) {
    let mut local = None;
    for round in 0..10u8 {
        let (address, prepared) = scene.prepare(local);
        assert!(
            scene.io().open_flow(FlowId(1), address, prepared).is_ok(),
            "round {round}"
        );
        scene.io().flush();
        let peer = scene.peer(0);
        assert!(
            !send(&mut scene, 1, b"x"),
            "a new flow does not inherit a remote address"
        );
        scene.io().set_remote(FlowId(1), peer);
        scene.peer_send(0, address, &[round]);
        assert_eq!(receive(&mut scene, 1), [(address.port(), peer, vec![round])]);
        assert!(send(&mut scene, 1, &[round]));
        drop(close(&mut scene, 1));
        assert_eq!(
            scene.peer_receive(0),
            Some((address, vec![round])),
            "sent before the close"
        );
        local = Some(address);
    }
}

fn close_while_receiving<S: Scene>(mut scene: S) {
    let keep = open(&mut scene, 0);
    for _ in 0..10 {
        let local = open(&mut scene, 1);
        for number in 0..10u8 {
            scene.peer_send(0, local, &[number]);
        }
        let released = scene.io().close_flow(FlowId(1));
        let late = turn(&mut scene, 64);
        assert!(
            late.iter().all(|(port, _, _)| *port != local.port()),
            "closed means closed"
        );
        // The number is free at once, whatever the former socket is still doing.
        let again = open(&mut scene, 1);
        scene.peer_send(0, again, b"new");
        let got = receive(&mut scene, 1);
        assert_eq!(got, [(again.port(), scene.peer(0), b"new".to_vec())]);
        let mut waiting = released.is_none();
        for _ in 0..10_000 {
            if !waiting {
                break;
            }
            waiting = scene.io().poll_closed().is_none();
            turn(&mut scene, 64);
        }
        assert!(!waiting, "the socket comes back");
        drop(close(&mut scene, 1));
        assert!(scene.io().poll_closed().is_none(), "once only");
    }
    scene.peer_send(0, keep, b"still");
    assert_eq!(
        receive(&mut scene, 1),
        [(keep.port(), scene.peer(0), b"still".to_vec())]
    );
}

fn remote_changes<S: Scene>(mut scene: S) {
    let local = open(&mut scene, 0);
    let peers = [scene.peer(0), scene.peer(1)];
    assert!(
        !scene
            .io()
            .transmit(FlowId(0), |_| -> usize { panic!("nowhere to send to") })
    );
    assert_eq!(scene.io().counters().no_remote, 1);
    scene.io().set_remote(FlowId(0), peers[0]);
    assert!(send(&mut scene, 0, b"first"));
    // From the next transmit on: the one before still goes to the former address.
    scene.io().set_remote(FlowId(0), peers[1]);
    assert!(send(&mut scene, 0, b"second"));
    scene.io().flush();
    assert_eq!(scene.peer_receive(0), Some((local, b"first".to_vec())));
    assert_eq!(scene.peer_receive(1), Some((local, b"second".to_vec())));
    // RFC 3264 8.4: the unspecified address means: send nothing.
    scene.io().set_remote(FlowId(0), "0.0.0.0:9".parse().unwrap());
    assert!(!send(&mut scene, 0, b"third"));
}

fn oversize_is_counted<S: Scene>(mut scene: S) {
    let local = open(&mut scene, 0);
    scene.peer_send(0, local, &vec![1; S::PAYLOAD_MAX]);
    scene.peer_send(0, local, &vec![2; S::PAYLOAD_MAX + 1]);
    scene.peer_send(0, local, &[3; 1_400]);
    scene.peer_send(0, local, &[4]);
    let got: Vec<_> = receive(&mut scene, 2)
        .into_iter()
        .map(|(_, _, payload)| payload)
        .collect();
    assert_eq!(got, [vec![1; S::PAYLOAD_MAX], vec![4]]);
    let counters = scene.io().counters();
    assert_eq!((counters.truncated, counters.received), (2, 2));
}

fn an_empty_datagram_is_one_too<S: Scene>(mut scene: S) {
    let local = open(&mut scene, 0);
    let peer = scene.peer(0);
    scene.peer_send(0, local, &[]);
    assert_eq!(receive(&mut scene, 1), [(local.port(), peer, vec![])]);
    scene.io().set_remote(FlowId(0), peer);
    assert!(send(&mut scene, 0, &[]));
    scene.io().flush();
    assert_eq!(scene.peer_receive(0), Some((local, vec![])));
}

fn flows_that_are_not_open<S: Scene>(mut scene: S) {
    let peer = scene.peer(0);
    for flow in [0, S::FLOWS, u32::MAX] {
        assert!(
            !scene
                .io()
                .transmit(FlowId(flow), |_| -> usize { panic!("no such flow") })
        );
        scene.io().set_remote(FlowId(flow), peer);
        assert!(scene.io().close_flow(FlowId(flow)).is_none());
    }
    assert_eq!(scene.io().counters().unknown_flow, 6);
    let (local, prepared) = scene.prepare(None);
    assert!(
        scene.io().open_flow(FlowId(S::FLOWS), local, prepared).is_err(),
        "out of range"
    );
    open(&mut scene, 0);
    let (local, prepared) = scene.prepare(None);
    assert!(
        scene.io().open_flow(FlowId(0), local, prepared).is_err(),
        "open already"
    );
    drop(close(&mut scene, 0));
    assert!(scene.io().close_flow(FlowId(0)).is_none(), "closed already");
}

fn waiting_obeys_the_clock<S: Scene>(mut scene: S) {
    let io = scene.io();
    let start = io.now();
    for step in 1..=5 {
        let until = Timestamp(start.0 + step * 1_000_000);
        assert!(io.wait(until));
        assert!(io.now() >= until);
    }
    let past = Timestamp(start.0);
    assert!(io.wait(past));
}

/// Remembers what it is told of ports and not given yet, and what it is given.
#[derive(Debug, Default)]
struct Watcher {
    announced: Vec<u16>,
    expected: Vec<u16>,
    taken: usize,
    /// Datagrams that had been announced, and that had been expected.
    foretold: [usize; 2],
}

impl Intake for Watcher {
    fn announce(&mut self, local_port: u16) {
        self.announced.push(local_port);
    }

    fn expect(&mut self, local_port: u16) {
        self.expected.push(local_port);
    }

    fn take(&mut self, datagram: &Datagram<'_>) {
        for (told, count) in [&mut self.announced, &mut self.expected]
            .into_iter()
            .zip(&mut self.foretold)
        {
            if let Some(place) = told.iter().position(|port| *port == datagram.local_port) {
                told.remove(place);
                *count += 1;
            }
        }
        self.taken += 1;
    }
}

fn what_is_expected_comes<S: Scene>(mut scene: S) {
    let locals: Vec<_> = (0..S::FLOWS).map(|flow| open(&mut scene, flow)).collect();
    turn(&mut scene, 64);
    let count = S::RECEIVE_BUFFERS.min(24) as usize;
    for number in 0..count {
        scene.peer_send(0, locals[number % locals.len()], &[7; 172]);
    }
    let mut watcher = Watcher::default();
    for _ in 0..10_000 {
        let io = scene.io();
        let now = io.now();
        io.receive_into(64, &mut watcher);
        let waited_for = watcher.announced.len() + watcher.expected.len();
        assert_eq!(waited_for, 0, "foretold and not come: {watcher:?}");
        if watcher.taken == count {
            break;
        }
        io.flush();
        io.wait(now.after(Duration::from_millis(1)));
    }
    assert_eq!(watcher.taken, count);
    let foretold = watcher.foretold.map(|count| count > 0);
    assert!(foretold[0] || !S::ANNOUNCES, "{watcher:?}");
    assert!(foretold[1] || !S::EXPECTS, "{watcher:?}");
}

/// Declares the whole suite for one scene; a scene that this machine cannot set says so and is `None`.
macro_rules! suite {
    ($scene:expr) => {
        suite!($scene; no_loss_at_low_rate budget_respected no_buffer_leaks out_of_send_buffers
            reopen_on_the_same_port close_while_receiving remote_changes oversize_is_counted
            an_empty_datagram_is_one_too flows_that_are_not_open waiting_obeys_the_clock what_is_expected_comes);
    };
    ($scene:expr; $($test:ident)*) => {
        $(#[test]
        fn $test() {
            if let Some(scene) = $scene {
                $crate::$test(scene);
            }
        })*
    };
}

mod contract {
    mod frames;
    mod loopback;
    mod played;
    mod simulated;
    mod veth;
}
