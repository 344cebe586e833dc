//! The suite on AF_XDP over a veth pair between two network namespaces of our own. Needs root.

use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mixer::clock::Clock;
use mixer::io::PacketIo;
use mixer::io::handoff::Mesh;
use mixer::io::uring::BindOptions;
use mixer::io::xdp::device::{Device, DeviceConfig};
use mixer::io::xdp::errand;
use mixer::io::xdp::queue::QueueSizes;
use mixer::io::xdp::scout::Scout;
use mixer::io::xdp::{Ports, Tags, XdpConfig, XdpIo, XdpPrepared};
use mixer::placement::PortBlock;
use mixer_engine::packet::FlowId;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::Scene;

/// Two namespaces and what joins them; gone when dropped.
struct Wire {
    ours: String,
    theirs: String,
}

fn run(command: &str) {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command}: {said}");
}

impl Wire {
    /// `None`, said once, without root.
    fn new(queues: u32) -> Option<Self> {
        static SAID: Once = Once::new();
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        if !rustix::process::geteuid().is_root() {
            SAID.call_once(|| {
                // Not a print macro: those are kept from view while a test passes.
                let _ = writeln!(std::io::stderr(), "NOT RUN: AF_XDP on a veth pair needs root");
            });
            return None;
        }
        let name = format!(
            "mmt-{}-{}",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        );
        let wire = Self {
            ours: format!("{name}-a"),
            theirs: format!("{name}-b"),
        };
        let Self { ours, theirs } = &wire;
        run(&format!("ip netns add {ours}"));
        run(&format!("ip netns add {theirs}"));
        run(&format!(
            "ip link add mm0 netns {ours} numrxqueues {queues} numtxqueues {queues} type veth peer name mm1 netns {theirs} numrxqueues {queues} numtxqueues {queues}"
        ));
        for (namespace, device, host) in [(ours, "mm0", 1), (theirs, "mm1", 2)] {
            run(&format!("ip -n {namespace} link set lo up"));
            run(&format!("ip -n {namespace} link set {device} up"));
            // A raw frame's reader sees what is on the "wire": checksums must be in it.
            run(&format!(
                "ip netns exec {namespace} ethtool -K {device} gro on tso off tx off"
            ));
            run(&format!(
                "ip -n {namespace} addr add 10.77.0.{host}/24 dev {device}"
            ));
            run(&format!(
                "ip -n {namespace} -6 addr add fd77::{host}/64 dev {device} nodad"
            ));
        }
        Some(wire)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for namespace in [&self.ours, &self.theirs] {
            let _ = Command::new("ip").args(["netns", "delete", namespace]).status();
        }
    }
}

/// Moves this thread, and those it starts, into a namespace.
fn enter(namespace: &str) {
    let file = File::open(format!("/run/netns/{namespace}")).unwrap();
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}

struct Veth {
    // Dropped in this order: the backend, then its scout, then the wire.
    io: XdpIo,
    _scout: Scout,
    ports: Option<Ports>,
    ours: IpAddr,
    peers: [UdpSocket; 2],
    next_port: u16,
    _wire: Wire,
}

#[derive(Clone, Copy)]
struct Kind {
    ipv6: bool,
    skb: bool,
    receive: bool,
}

const NATIVE: Kind = Kind {
    ipv6: false,
    skb: false,
    receive: true,
};

impl Veth {
    fn new(kind: Kind) -> Option<Self> {
        let wire = Wire::new(1)?;
        let host = |four: &str, six: &str| if kind.ipv6 { six } else { four }.parse::<IpAddr>().unwrap();
        let (ours, theirs) = (host("10.77.0.1", "fd77::1"), host("10.77.0.2", "fd77::2"));
        enter(&wire.theirs);
        let peer = || {
            let socket = UdpSocket::bind((theirs, 0)).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            socket
        };
        let peers = [peer(), peer()];
        // Makes both kernels know their neighbour, as any signalling before a call would.
        enter(&wire.ours);
        let probe = UdpSocket::bind((ours, 0)).unwrap();
        probe.send_to(b"hello", peers[0].local_addr().unwrap()).unwrap();
        assert_eq!(peers[0].recv(&mut [0; 16]).unwrap(), 5);
        drop(probe);
        let config = DeviceConfig {
            interface: "mm0".to_owned(),
            address: ours,
            receive: kind.receive,
            allow_skb: kind.skb,
            force_skb: kind.skb,
            zero_copy: true,
            sizes: QueueSizes {
                receive: Self::RECEIVE_BUFFERS,
                transmit: Self::SEND_BUFFERS,
            },
            source_budget: 0,
            workers: 1,
            tags: Tags::default(),
        };
        let (device, mut queues) = Device::open(config).unwrap();
        let mode = device.mode().to_string();
        let expected = match kind {
            Kind { receive: false, .. } => "transmit-copy",
            Kind { skb: true, .. } => "skb-copy",
            Kind { .. } => "driver-copy",
        };
        assert_eq!(mode, expected);
        let (ports, datagram_max) = (device.ports().cloned(), device.datagram_max());
        assert_eq!(datagram_max, if kind.ipv6 { 1_452 } else { 1_472 });
        let (worker_end, scout_end) = errand::pair();
        let clock = Clock::start();
        let block = PortBlock {
            first: 10_000,
            last: 32_767,
        };
        let mesh = Mesh::new(&[block]).pop().unwrap();
        let mut config = XdpConfig::new(clock, Self::FLOWS, queues.pop().unwrap(), mesh, worker_end);
        config.submit_chunk = Self::SEND_BUFFERS + 1;
        // The companion's buffers are as few, for the kind that receives through it.
        config.uring.receive_buffers = 64;
        config.uring.send_buffers = 32;
        let scout = Scout::start(device, vec![scout_end], clock).unwrap();
        Some(Self {
            io: XdpIo::new(config).unwrap(),
            _scout: scout,
            ports,
            ours,
            peers,
            next_port: 10_000,
            _wire: wire,
        })
    }
}

impl Scene for Veth {
    type Io = XdpIo;
    const SEND_BUFFERS: u32 = 32;
    const RECEIVE_BUFFERS: u32 = 64;
    const PAYLOAD_MAX: usize = 468;

    fn io(&mut self) -> &mut XdpIo {
        &mut self.io
    }

    fn prepare(&mut self, local: Option<SocketAddr>) -> (SocketAddr, XdpPrepared) {
        let local = local.unwrap_or_else(|| {
            self.next_port += 2;
            SocketAddr::new(self.ours, self.next_port)
        });
        let patient = BindOptions {
            retry_for: Duration::from_secs(10),
            ..BindOptions::default()
        };
        let prepared = match &self.ports {
            Some(ports) => XdpPrepared::live(ports, local.port(), 0),
            None => XdpPrepared::bound(local, &patient),
        };
        (local, prepared.unwrap())
    }

    fn peer(&self, peer: usize) -> SocketAddr {
        self.peers[peer].local_addr().unwrap()
    }

    fn peer_send(&mut self, peer: usize, to: SocketAddr, payload: &[u8]) {
        assert_eq!(self.peers[peer].send_to(payload, to).unwrap(), payload.len());
    }

    fn peer_receive(&mut self, peer: usize) -> Option<(SocketAddr, Vec<u8>)> {
        let mut buffer = [0; 2_048];
        let (length, from) = self.peers[peer].recv_from(&mut buffer).ok()?;
        Some((from, buffer[..length].to_vec()))
    }
}

/// The kernel says nothing when a queue has the socket of another one; the comparison does.
#[test]
fn frames_that_vanish_between_program_and_socket_raise_an_alarm() {
    let Some(wire) = Wire::new(2) else { return };
    enter(&wire.theirs);
    let peer = UdpSocket::bind(("10.77.0.2", 0)).unwrap();
    enter(&wire.ours);
    let config = DeviceConfig {
        interface: "mm0".to_owned(),
        address: "10.77.0.1".parse().unwrap(),
        receive: true,
        allow_skb: false,
        force_skb: false,
        zero_copy: false,
        sizes: QueueSizes {
            receive: 64,
            transmit: 32,
        },
        source_budget: 0,
        workers: 1,
        tags: Tags::default(),
    };
    let (mut device, mut queues) = Device::open(config).unwrap();
    assert_eq!(device.queues(), 2);
    let _lease = device.ports().unwrap().lease(10_000, 0).unwrap();
    let (worker_end, _scout_end) = errand::pair();
    let block = PortBlock {
        first: 10_000,
        last: 10_001,
    };
    let mesh = Mesh::new(&[block]).pop().unwrap();
    let config = XdpConfig::new(Clock::start(), 1, queues.pop().unwrap(), mesh, worker_end);
    let mut io = XdpIo::new(config).unwrap();
    let local: SocketAddr = "10.77.0.1:10000".parse().unwrap();
    assert!(io.open_flow(FlowId(0), local, XdpPrepared::nothing()).is_ok());
    let send = |io: &mut XdpIo| {
        let mut got = 0;
        for _ in 0..20 {
            peer.send_to(b"media", local).unwrap();
            for _ in 0..20 {
                let until = io.now().after(Duration::from_millis(1));
                got += io.receive(64, |_| {});
                io.wait(until);
            }
        }
        got
    };
    assert_eq!(send(&mut io), 20);
    device.figures();
    assert_eq!(device.figures().redirects_lost, 0);
    device.plant_mismatch().unwrap();
    assert_eq!(send(&mut io), 0, "they vanish");
    device.figures();
    assert_eq!(device.figures().redirects_lost, 20);
    assert_eq!(device.figures().redirects_lost, 20, "each only once");
}

mod native_ipv4 {
    use super::*;
    suite!(Veth::new(NATIVE));
}

mod native_ipv6 {
    use super::*;
    suite!(Veth::new(Kind { ipv6: true, ..NATIVE }));
}

mod skb_ipv4 {
    use super::*;
    suite!(Veth::new(Kind { skb: true, ..NATIVE }));
}

mod skb_ipv6 {
    use super::*;
    suite!(Veth::new(Kind {
        skb: true,
        ipv6: true,
        ..NATIVE
    }));
}

mod transmit_only {
    use super::*;
    suite!(Veth::new(Kind {
        receive: false,
        ..NATIVE
    }));
}
