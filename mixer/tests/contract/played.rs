//! The suite on AF_XDP's rings in plain memory: the test plays the kernel and the wire, no root needed.

use std::net::{IpAddr, SocketAddr};

use mixer::clock::Clock;
use mixer::io::PacketIo;
use mixer::io::handoff::Mesh;
use mixer::io::uring::UringConfig;
use mixer::io::xdp::errand::{self, News, ScoutEnd};
use mixer::io::xdp::queue::{PlayedKernel, QueueSizes, XskQueue};
use mixer::io::xdp::{Hop, Mac, Outlet, Route, RouteTable, Tags, Target, XdpConfig, XdpIo, XdpPrepared};
use mixer::placement::PortBlock;
use mixer_engine::packet::{FlowId, PacketSink};

use super::frames::{OURS, PEER, compose, dissect};
use crate::Scene;

struct Played {
    io: XdpIo,
    kernel: PlayedKernel,
    scout: ScoutEnd,
    ours: IpAddr,
    peer: IpAddr,
    vlan: Option<u16>,
    next_port: u16,
    /// What was sent and not asked for yet: to, from, payload.
    sent: Vec<(SocketAddr, SocketAddr, Vec<u8>)>,
}

impl Played {
    fn new(ours: &str, peer: &str, vlan: Option<u16>) -> Self {
        let (ours, peer): (IpAddr, IpAddr) = (ours.parse().unwrap(), peer.parse().unwrap());
        let sizes = QueueSizes {
            receive: Self::RECEIVE_BUFFERS,
            transmit: Self::SEND_BUFFERS,
        };
        let (queue, kernel) = XskQueue::plain(sizes).unwrap();
        let (worker_end, mut scout) = errand::pair();
        let block = PortBlock {
            first: 10_000,
            last: 32_767,
        };
        let mesh = Mesh::new(&[block]).pop().unwrap();
        let clock = Clock::start();
        let config = XdpConfig {
            uring: UringConfig {
                receive_buffers: 64,
                send_buffers: 32,
                ..UringConfig::new(clock, Self::FLOWS)
            },
            submit_chunk: Self::SEND_BUFFERS + 1,
            required_tags: vlan.map(|vlan| Tags::of(&[vlan]).unwrap()),
            ..XdpConfig::new(clock, Self::FLOWS, vec![queue], mesh, worker_end)
        };
        assert!(scout.tell(News::Table(Box::new(table(ours, peer, vlan)))));
        Self {
            io: XdpIo::new(config).unwrap(),
            kernel,
            scout,
            ours,
            peer,
            vlan,
            next_port: 10_000,
            sent: Vec::new(),
        }
    }

    fn local(&mut self) -> SocketAddr {
        self.next_port += 2;
        SocketAddr::new(self.ours, self.next_port)
    }

    fn open(&mut self, flow: u32) -> SocketAddr {
        let local = self.local();
        assert!(
            self.io
                .open_flow(FlowId(flow), local, XdpPrepared::nothing())
                .is_ok()
        );
        local
    }

    fn deliver(&mut self, frame: &[u8]) -> Vec<(u16, SocketAddr, Vec<u8>)> {
        assert!(self.kernel.deliver(frame), "no chunk to receive in");
        let mut got = Vec::new();
        self.io.now();
        self.io.receive(64, |datagram| {
            got.push((datagram.local_port, datagram.source, datagram.payload.to_vec()));
        });
        got
    }

    /// Sends one datagram and returns the frame, if there is one.
    fn sends(&mut self, flow: u32) -> Option<Vec<u8>> {
        let sent = self.io.transmit(FlowId(flow), |buffer| {
            buffer[..2].copy_from_slice(b"hi");
            2
        });
        self.io.flush();
        let frame = self.kernel.take();
        assert_eq!(sent, frame.is_some());
        frame
    }

    /// What the worker has sent the scout to do.
    fn errands(&mut self) -> Vec<errand::Errand> {
        std::iter::from_fn(|| self.scout.next_errand()).collect()
    }
}

fn table(ours: IpAddr, peer: IpAddr, vlan: Option<u16>) -> RouteTable {
    let tags = vlan.map_or(Tags::default(), |vlan| Tags::of(&[vlan]).unwrap());
    let outlet = Outlet {
        interface: 7,
        tags,
        station: Mac(OURS),
    };
    let full = if ours.is_ipv4() { 32 } else { 128 };
    let route = |prefix, length, target| Route {
        prefix,
        length,
        metric: 0,
        target,
    };
    let via = Target::Via {
        interface: 7,
        gateway: None,
    };
    let hop = Hop {
        interface: 7,
        address: peer,
    };
    RouteTable::new(
        vec![outlet],
        vec![route(ours, full, Target::Local), route(peer, full / 2, via)],
        vec![(hop, Mac(PEER))],
    )
}

impl Scene for Played {
    type Io = XdpIo;
    const SEND_BUFFERS: u32 = 32;
    const RECEIVE_BUFFERS: u32 = 64;
    const ANNOUNCES: bool = true;
    const PAYLOAD_MAX: usize = 468;

    /// Also lets the kernel take what was flushed.
    fn io(&mut self) -> &mut XdpIo {
        while let Some(frame) = self.kernel.take() {
            let (from, to, payload) = dissect(self.vlan, &frame);
            self.sent.push((to, from, payload));
        }
        &mut self.io
    }

    fn prepare(&mut self, local: Option<SocketAddr>) -> (SocketAddr, XdpPrepared) {
        let local = local.unwrap_or_else(|| self.local());
        (local, XdpPrepared::nothing())
    }

    fn peer(&self, peer: usize) -> SocketAddr {
        SocketAddr::new(self.peer, 4_000 + u16::try_from(peer).unwrap())
    }

    fn peer_send(&mut self, peer: usize, to: SocketAddr, payload: &[u8]) {
        let frame = compose(self.vlan, self.peer(peer), to, payload);
        assert!(self.kernel.deliver(&frame));
    }

    fn peer_receive(&mut self, peer: usize) -> Option<(SocketAddr, Vec<u8>)> {
        self.io();
        let at = self.sent.iter().position(|(to, _, _)| *to == self.peer(peer))?;
        let (_, from, payload) = self.sent.remove(at);
        Some((from, payload))
    }
}

mod ipv4 {
    suite!(Some(super::Played::new("192.0.2.9", "192.0.2.1", None)));
}

mod ipv6 {
    suite!(Some(super::Played::new("2001:db8::9", "2001:db8::1", None)));
}

mod vlan {
    suite!(Some(super::Played::new("192.0.2.9", "192.0.2.1", Some(100))));
}

fn four() -> Played {
    Played::new("192.0.2.9", "192.0.2.1", None)
}

#[test]
fn frames_that_are_wrong_are_counted_and_their_chunks_come_back() {
    let mut scene = four();
    let local = scene.open(0);
    let good = compose(None, scene.peer(0), local, b"payload");
    for round in 0..100u64 {
        let mut broken = good.clone();
        *broken.last_mut().unwrap() ^= 1;
        assert!(scene.deliver(&broken).is_empty());
        assert!(scene.deliver(&good[..good.len() - 1]).is_empty());
        assert!(scene.deliver(&[]).is_empty());
        let closed = compose(None, scene.peer(0), SocketAddr::new(scene.ours, 31_000), b"x");
        assert!(scene.deliver(&closed).is_empty());
        let counters = scene.io.counters();
        assert_eq!(
            (counters.bad_checksum, counters.malformed, counters.unknown_port),
            (round + 1, 2 * (round + 1), round + 1)
        );
    }
    assert_eq!(
        scene.deliver(&good),
        [(local.port(), scene.peer(0), b"payload".to_vec())]
    );
    assert_eq!(scene.kernel.filled(), Played::RECEIVE_BUFFERS);
}

#[test]
fn with_a_configured_vlan_other_frames_are_refused() {
    let mut scene = Played::new("192.0.2.9", "192.0.2.1", Some(7));
    let local = scene.open(0);
    assert_eq!(
        scene.deliver(&compose(Some(7), scene.peer(0), local, b"x")).len(),
        1
    );
    for other in [None, Some(8)] {
        assert!(
            scene
                .deliver(&compose(other, scene.peer(0), local, b"x"))
                .is_empty()
        );
    }
    assert_eq!(scene.io.counters().wrong_vlan, 2);
    assert_eq!(scene.kernel.filled(), Played::RECEIVE_BUFFERS);
}

#[test]
fn a_neighbour_that_nobody_knows_is_asked_for_and_learnt_from_its_own_frames() {
    let mut scene = four();
    let local = scene.open(0);
    let stranger: SocketAddr = "192.0.2.50:4000".parse().unwrap();
    scene.io.receive(1, |_| {});
    scene.io.set_remote(FlowId(0), stranger);
    assert_eq!(scene.sends(0), None);
    assert_eq!(scene.io.counters().no_route, 1);
    assert!(
        scene
            .errands()
            .iter()
            .any(|errand| matches!(errand, errand::Errand::Find(hop) if hop.address == stranger.ip()))
    );
    // Somebody else's frame teaches nothing, the remote's own does.
    scene.deliver(&compose(None, scene.peer(0), local, b"not he"));
    assert_eq!(scene.sends(0), None);
    scene.deliver(&compose(None, stranger, local, b"he"));
    let frame = scene.sends(0).unwrap();
    assert_eq!(dissect(None, &frame), (local, stranger, b"hi".to_vec()));
    // Once the kernel knows the neighbour, its word counts.
    let hop = Hop {
        interface: 7,
        address: stranger.ip(),
    };
    let outlet = Outlet {
        interface: 7,
        tags: Tags::default(),
        station: Mac(OURS),
    };
    let via = Target::Via {
        interface: 7,
        gateway: None,
    };
    let route = Route {
        prefix: "192.0.2.0".parse().unwrap(),
        length: 24,
        metric: 0,
        target: via,
    };
    let other = [2, 0, 0, 0, 0, 9];
    let known = RouteTable::new(vec![outlet], vec![route], vec![(hop, Mac(other))]);
    assert!(scene.scout.tell(News::Table(Box::new(known))));
    scene.io.receive(1, |_| {});
    assert_eq!(scene.sends(0).unwrap()[..6], other);
}

#[test]
fn a_peer_on_this_host_gets_a_socket() {
    let mut scene = Played::new("127.0.0.1", "192.0.2.1", None);
    scene.io.receive(1, |_| {});
    let local = SocketAddr::new(scene.ours, 0);
    let bound = mixer::io::uring::bind(local, &mixer::io::uring::BindOptions::default()).unwrap();
    let local = bound.local();
    assert!(
        scene
            .io
            .open_flow(FlowId(0), local, XdpPrepared::nothing())
            .is_ok()
    );
    let phone = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    phone
        .set_read_timeout(Some(std::time::Duration::from_secs(10)))
        .unwrap();
    scene.io.set_remote(FlowId(0), phone.local_addr().unwrap());
    assert_eq!(scene.sends(0), None, "the socket is not there yet");
    let asked = scene.errands();
    assert!(
        matches!(asked[..], [.., errand::Errand::Bind { flow: FlowId(0), local: at }] if at == local),
        "{asked:?}"
    );
    assert!(scene.scout.tell(News::Socket {
        flow: FlowId(0),
        local,
        socket: bound
    }));
    scene.io.receive(1, |_| {});
    assert!(scene.io.transmit(FlowId(0), |buffer| {
        buffer[..2].copy_from_slice(b"hi");
        2
    }));
    scene.io.flush();
    let mut buffer = [0; 16];
    assert_eq!(phone.recv_from(&mut buffer).unwrap(), (2, local));
    phone.send_to(b"hello", local).unwrap();
    let mut got = Vec::new();
    for _ in 0..10_000 {
        let now = scene.io.now();
        scene
            .io
            .receive(64, |datagram| got.push(datagram.payload.to_vec()));
        scene.io.flush();
        if !got.is_empty() {
            break;
        }
        scene.io.wait(now.after(std::time::Duration::from_millis(1)));
    }
    assert_eq!(got, [b"hello"]);
    assert_eq!(scene.kernel.take(), None, "nothing left as a frame");
}

#[test]
fn a_route_that_leads_nowhere_is_a_reason_of_its_own() {
    let mut scene = four();
    scene.open(0);
    scene.io.receive(1, |_| {});
    for nowhere in ["203.0.113.1:9", "[2001:db8::1]:9"] {
        let before = scene.io.counters().no_route;
        scene.io.set_remote(FlowId(0), nowhere.parse().unwrap());
        assert_eq!(scene.sends(0), None);
        assert_eq!(scene.io.counters().no_route, before + 1);
    }
}

#[test]
fn packets_of_another_worker_reach_it() {
    let blocks = [(10_000, 10_999), (11_000, 11_999)].map(|(first, last)| PortBlock { first, last });
    let clock = Clock::start();
    let mut scenes: Vec<(XdpIo, PlayedKernel)> = Mesh::new(&blocks)
        .into_iter()
        .map(|mesh| {
            let sizes = QueueSizes {
                receive: 64,
                transmit: 32,
            };
            let (queue, kernel) = XskQueue::plain(sizes).unwrap();
            let config = XdpConfig::new(clock, 4, vec![queue], mesh, errand::pair().0);
            (XdpIo::new(config).unwrap(), kernel)
        })
        .collect();
    let local: SocketAddr = "192.0.2.9:11000".parse().unwrap();
    let peer: SocketAddr = "192.0.2.1:4000".parse().unwrap();
    assert!(
        scenes[1]
            .0
            .open_flow(FlowId(0), local, XdpPrepared::nothing())
            .is_ok()
    );
    for number in 0..50u8 {
        assert!(scenes[0].1.deliver(&compose(None, peer, local, &[number])));
    }
    assert_eq!(scenes[0].0.receive(64, |_| panic!("not its own")), 0);
    let mut got = Vec::new();
    let taken = scenes[1].0.receive(20, |datagram| got.push(datagram.payload[0]));
    assert_eq!(taken, 20, "the budget holds for these as well");
    scenes[1].0.receive(64, |datagram| got.push(datagram.payload[0]));
    assert_eq!(got, (0..50).collect::<Vec<_>>());
    assert_eq!(scenes[0].0.counters().handed_over, 50);
    assert_eq!(scenes[1].0.counters().taken_over, 50);
    // A full ring is counted, and costs no chunk.
    let rounds = mixer::limits::HANDOFF_RING / 50 + 2;
    for _ in 0..rounds {
        for _ in 0..50 {
            assert!(scenes[0].1.deliver(&compose(None, peer, local, b"x")));
        }
        scenes[0].0.receive(64, |_| {});
    }
    let counters = scenes[0].0.counters();
    assert_eq!(counters.handed_over, 50 + mixer::limits::HANDOFF_RING as u64);
    assert_eq!(
        counters.handed_over + counters.handoff_full,
        50 + 50 * rounds as u64
    );
    assert_eq!(scenes[0].1.filled(), 64);
}
