//! A worker's turn neither allocates nor frees, whatever is in flight: packets with loss and
//! reordering, joins and leaves, commands, plays, snapshots, events, histograms, a stall.

#![expect(unsafe_code, reason = "an allocator that counts cannot be written without")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "contract/frames.rs"]
mod frames;
mod stage;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use mixer::clock::Clock;
use mixer::control::rings::FromWorker;
use mixer::io::PacketIo;
use mixer::io::handoff::Mesh;
use mixer::io::sim::{Impairment, SimConfig};
use mixer::io::xdp::errand::{self, News};
use mixer::io::xdp::queue::{QueueSizes, XskQueue};
use mixer::io::xdp::{Hop, Mac, Outlet, Route, RouteTable, Tags, Target, XdpConfig, XdpIo, XdpPrepared};
use mixer::placement::PortBlock;
use mixer_engine::command::{Command, ConferenceIndex, EndpointIndex, Play, PlayId, PlaySource};
use mixer_engine::packet::{FlowId, PacketSink};
use stage::Stage;

/// Counts what the current thread does while it is armed.
struct Counting;

thread_local! {
    static ARMED: Cell<bool> = const { Cell::new(false) };
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static FREES: Cell<u64> = const { Cell::new(0) };
}

fn count(cell: &'static std::thread::LocalKey<Cell<u64>>) {
    if ARMED.get() {
        cell.set(cell.get() + 1);
    }
}

// SAFETY: every call is passed on unchanged to the system's allocator, which keeps the contract. The
// counters are thread-local cells without destructor or lazy set-up, so they never allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(&ALLOCATIONS);
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(&ALLOCATIONS);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(&ALLOCATIONS);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, new_size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(&FREES);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations and frees of this thread during `work`.
fn armed(work: impl FnOnce()) -> (u64, u64) {
    let before = (ALLOCATIONS.get(), FREES.get());
    ARMED.set(true);
    work();
    ARMED.set(false);
    (ALLOCATIONS.get() - before.0, FREES.get() - before.1)
}

/// Runs the stage with every turn armed.
fn run_armed(stage: &mut Stage, milliseconds: u64) {
    for _ in 0..milliseconds {
        stage.step(|worker| {
            let calls = armed(|| {
                assert!(worker.turn());
            });
            assert_eq!(
                calls,
                (0, 0),
                "(allocations, frees) before slot {}",
                worker.next_slot().0
            );
        });
    }
}

#[test]
fn the_counting_works() {
    let mut kept = None;
    assert_eq!(armed(|| kept = Some(vec![1u8; 100])), (1, 0));
    assert_eq!(armed(|| kept = None), (0, 1));
    assert!(kept.is_none());
    assert_eq!(armed(|| ()), (0, 0));
}

/// Every kind of command once, for endpoint `at` of conference 0.
fn commands(stage: &mut Stage, at: u32) {
    let (conference, endpoint) = (ConferenceIndex(0), EndpointIndex(at));
    let tone = PlaySource::Tone {
        hertz: 425,
        attenuation_db: 12,
        duration_ms: 300,
    };
    let speech = PlaySource::Pcm(Vec::leak(vec![1_000i16; 4_000]));
    for on in [true, false] {
        stage.command(Command::Mute { at: endpoint, on });
        stage.command(Command::Deaf { at: endpoint, on });
        stage.command(Command::Hold { at: endpoint, on });
    }
    stage.command(Command::Gain {
        at: endpoint,
        centibel: -300,
    });
    let media = Box::new(stage::media(stage::address(at)));
    stage.command(Command::SetMedia {
        at: endpoint,
        media,
        srtp: None,
    });
    stage.command(Command::PlayToEndpoint {
        at: endpoint,
        play: Play {
            id: PlayId(at),
            source: speech,
            repeat: 1,
        },
    });
    stage.command(Command::PlayToConference {
        at: conference,
        play: Play {
            id: PlayId(at),
            source: tone,
            repeat: 0,
        },
    });
    stage.command(Command::StopEndpoint {
        at: endpoint,
        play: None,
    });
    stage.command(Command::StopConference {
        at: conference,
        play: Some(PlayId(at)),
    });
    stage.command(Command::Snapshot {
        from: EndpointIndex(0),
        buffer: Box::new(Vec::with_capacity(64)),
    });
    // Refused ones give their boxes back as well.
    stage.command(Command::RemoveEndpoint {
        at: EndpointIndex(63),
    });
    stage.add_conference(0, 0);
}

#[test]
fn turns_allocate_and_free_nothing() {
    let rough = Impairment {
        loss: 0.05,
        duplication: 0.02,
        delay: Duration::from_millis(20),
        variance: Duration::from_millis(50),
    };
    let network = SimConfig {
        to_workers: rough,
        in_flight: 20_000,
        slow_close: true,
        ..SimConfig::default()
    };
    let mut stage = Stage::new(&network);
    for (conference, phase) in [(0, 0), (1, 7), (2, 13)] {
        stage.add_conference(conference, phase);
    }
    for at in 0..30 {
        stage.add_endpoint(at % 3, at, at % 2 == 0);
    }
    let mut boxes = 0;
    for round in 0..40u32 {
        run_armed(&mut stage, 125);
        let at = round % 30;
        if stage.phones.iter().any(|phone| phone.at.0 == at) {
            commands(&mut stage, at);
            run_armed(&mut stage, 20);
            stage.remove_endpoint(at);
        } else {
            stage.add_endpoint(at % 3, at, true);
        }
        if round == 20 {
            stage.stall(700);
        }
        for reply in std::mem::take(&mut stage.replies) {
            if let FromWorker::Histograms(histograms) = reply {
                stage.control.return_histograms(histograms);
                boxes += 1;
            }
        }
    }
    let stats = stage.control.stats().read();
    assert!(boxes >= 5, "{boxes} pairs of histograms went round");
    assert!(
        stats.engine.rtp_sent > 3_000 && stats.engine.rtp_received > 1_500,
        "{stats:?}"
    );
    assert!(
        stats.worker.requests > 500 && stats.worker.slots_skipped > 600,
        "{stats:?}"
    );
    assert!(
        stats.worker.inputs_left_out > 0,
        "the recording got full: {stats:?}"
    );
}

/// One neighbour on an interface of ours.
fn one_neighbour() -> RouteTable {
    let outlet = Outlet {
        interface: 7,
        tags: Tags::default(),
        station: Mac(frames::OURS),
    };
    let route = Route {
        prefix: "192.0.2.0".parse().unwrap(),
        length: 24,
        metric: 0,
        target: Target::Via {
            interface: 7,
            gateway: None,
        },
    };
    let hop = Hop {
        interface: 7,
        address: "192.0.2.1".parse().unwrap(),
    };
    RouteTable::new(vec![outlet], vec![route], vec![(hop, Mac(frames::PEER))])
}

/// Packet I/O on AF_XDP: frames of every fate, sends, new tables, a queue in the place of another.
#[test]
fn af_xdp_allocates_and_frees_nothing() {
    let sizes = QueueSizes {
        receive: 64,
        transmit: 32,
    };
    let blocks = [(10_000, 10_999), (11_000, 11_999)].map(|(first, last)| PortBlock { first, last });
    let mesh = Mesh::new(&blocks).swap_remove(0);
    let (queue, mut kernel) = XskQueue::plain(sizes).unwrap();
    let (worker_end, mut scout) = errand::pair();
    let mut io = XdpIo::new(XdpConfig::new(Clock::start(), 4, vec![queue], mesh, worker_end)).unwrap();
    let local: std::net::SocketAddr = "192.0.2.9:10000".parse().unwrap();
    let peers = ["192.0.2.1:4000", "192.0.2.50:4000"].map(|peer| peer.parse().unwrap());
    let other = "192.0.2.9:11000".parse().unwrap();
    assert!(io.open_flow(FlowId(0), local, XdpPrepared::nothing()).is_ok());
    let good = frames::compose(None, peers[0], local, &[7; 172]);
    let mut broken = good.clone();
    broken[60] ^= 1;
    let fates = [
        good,
        broken,
        frames::compose(None, peers[0], other, b"x"),
        vec![0; 30],
    ];
    let (mut sent, mut received) = (0, 0);
    for round in 0..200 {
        if round % 10 == 0 {
            assert!(scout.tell(News::Table(Box::new(one_neighbour()))));
        }
        if round == 100 {
            let (queue, fresh) = XskQueue::plain(sizes).unwrap();
            let queue = Box::new(queue);
            assert!(scout.tell(News::Queue { place: 0, queue }));
            kernel = fresh;
        }
        for frame in &fates {
            assert!(kernel.deliver(frame));
        }
        let calls = armed(|| {
            io.now();
            received += io.receive(64, |datagram| assert_eq!(datagram.payload.len(), 172));
            // Every other round to a neighbour that nobody knows.
            io.set_remote(FlowId(0), peers[round % 2]);
            for _ in 0..8 {
                sent += u32::from(io.transmit(FlowId(0), |_| 172));
            }
            io.flush();
        });
        assert_eq!(calls, (0, 0), "(allocations, frees) in round {round}");
        while kernel.take().is_some() {}
        while let Some(errand) = scout.next_errand() {
            drop(errand);
        }
    }
    assert_eq!((sent, received), (800, 200));
}
