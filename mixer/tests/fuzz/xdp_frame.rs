//! What the fuzz target `xdp_frame` does with its input; shared with the test that replays its corpus.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use mixer::clock::Clock;
use mixer::io::PacketIo;
use mixer::io::handoff::Mesh;
use mixer::io::uring::UringConfig;
use mixer::io::xdp::errand::{self, News};
use mixer::io::xdp::queue::{PlayedKernel, QueueSizes, XskQueue};
use mixer::io::xdp::{Hop, Mac, Outlet, Route, RouteTable, Tags, Target, XdpConfig, XdpIo, XdpPrepared};
use mixer::placement::PortBlock;
use mixer_engine::packet::{FlowId, PacketSink};

const SIZES: QueueSizes = QueueSizes {
    receive: 16,
    transmit: 8,
};
const FLOWS: u32 = 4;
const OURS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9));
/// Two workers, of which only the first is there: what belongs to the other is handed over and stays.
const BLOCKS: [PortBlock; 2] = [
    PortBlock {
        first: 10_000,
        last: 10_999,
    },
    PortBlock {
        first: 11_000,
        last: 11_999,
    },
];

/// Reads operations from `input` and carries them out; then every chunk must be where it belongs.
///
/// An operation is a byte: 0 to 3 open, 4 to 7 close a flow, 8 to 11 send on it, 12 flush, 13 receive;
/// any other says how many of the following bytes are a frame that arrives.
pub(crate) fn exercise(input: &[u8]) {
    let (queue, mut kernel) = XskQueue::plain(SIZES).expect("memory");
    let (worker_end, mut scout) = errand::pair();
    let _ = scout.tell(News::Table(Box::new(table())));
    let mesh = Mesh::new(&BLOCKS).swap_remove(0);
    let clock = Clock::start();
    let config = XdpConfig {
        uring: UringConfig {
            receive_buffers: 8,
            send_buffers: 8,
            ..UringConfig::new(clock, FLOWS)
        },
        submit_chunk: 4,
        ..XdpConfig::new(clock, FLOWS, vec![queue], mesh, worker_end)
    };
    let mut io = XdpIo::new(config).expect("io_uring");
    let mut rest = input;
    while let [operation, after @ ..] = rest {
        rest = after;
        match operation {
            0..=3 => open(&mut io, u32::from(*operation)),
            4..=7 => drop(io.close_flow(FlowId(u32::from(*operation - 4)))),
            8..=11 => {
                let _ = io.transmit(FlowId(u32::from(*operation - 8)), |buffer| {
                    buffer[..4].copy_from_slice(b"sent");
                    4
                });
            }
            12 => io.flush(),
            13 => drop(io.receive(3, |datagram| {
                assert!(datagram.payload.len() <= mixer::io::PAYLOAD_MAX)
            })),
            length => {
                let (frame, after) = rest.split_at(usize::from(*length).min(rest.len()));
                rest = after;
                // Full: received first, as a worker does every millisecond.
                if !kernel.deliver(frame) {
                    io.receive(64, |_| {});
                    assert!(kernel.deliver(frame), "a chunk of the receiving side is lost");
                }
            }
        }
        take_all(&mut kernel);
    }
    io.receive(64, |_| {});
    io.flush();
    take_all(&mut kernel);
    io.flush();
    assert_eq!(kernel.filled(), SIZES.receive, "chunks of the receiving side");
    assert_eq!(
        io.free_chunks(),
        SIZES.transmit as usize,
        "chunks of the transmitting side"
    );
}

fn open(io: &mut XdpIo, flow: u32) {
    let port = u16::try_from(10_000 + 2 * flow).unwrap_or(0);
    let _ = io.open_flow(FlowId(flow), SocketAddr::new(OURS, port), XdpPrepared::nothing());
    // Flow 3's peer is a neighbour that nobody knows.
    let host = if flow == 3 { 50 } else { 1 };
    io.set_remote(FlowId(flow), SocketAddr::from(([192, 0, 2, host], 4_000)));
}

fn take_all(kernel: &mut PlayedKernel) {
    while let Some(frame) = kernel.take() {
        assert_eq!(frame.get(42..), Some(b"sent".as_slice()), "only what was sent");
    }
}

fn table() -> RouteTable {
    let outlet = Outlet {
        interface: 7,
        tags: Tags::default(),
        station: Mac([2, 0, 0, 0, 0, 1]),
    };
    let route = Route {
        prefix: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 0)),
        length: 24,
        metric: 0,
        target: Target::Via {
            interface: 7,
            gateway: None,
        },
    };
    let hop = Hop {
        interface: 7,
        address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    };
    RouteTable::new(vec![outlet], vec![route], vec![(hop, Mac([2, 0, 0, 0, 0, 2]))])
}
