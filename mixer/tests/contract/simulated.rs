//! The suite on the in-memory network.

use std::net::SocketAddr;

use mixer::io::PacketIo;
use mixer::io::sim::{SimConfig, SimIo, SimNet, SimPrepared};
use mixer_engine::time::Timestamp;

use crate::Scene;

struct Simulated {
    net: SimNet,
    io: SimIo,
    next_port: u16,
    /// What peers have got but not been asked for: to, from, payload.
    got: Vec<(SocketAddr, SocketAddr, Vec<u8>)>,
}

impl Simulated {
    fn new(slow_close: bool) -> Self {
        let net = SimNet::new(&SimConfig {
            send_buffers: Self::SEND_BUFFERS,
            payload_max: Self::PAYLOAD_MAX,
            slow_close,
            ..SimConfig::default()
        });
        let io = net.attach(Self::FLOWS);
        Self {
            net,
            io,
            next_port: 10_000,
            got: Vec::new(),
        }
    }
}

impl Scene for Simulated {
    type Io = SimIo;
    const SEND_BUFFERS: u32 = 32;
    const RECEIVE_BUFFERS: u32 = 64;
    const PAYLOAD_MAX: usize = 468;
    const EXPECTS: bool = false;

    fn io(&mut self) -> &mut SimIo {
        &mut self.io
    }

    fn prepare(&mut self, local: Option<SocketAddr>) -> (SocketAddr, SimPrepared) {
        let local = local.unwrap_or_else(|| {
            self.next_port += 2;
            SocketAddr::from(([192, 0, 2, 9], self.next_port))
        });
        (local, SimPrepared(local))
    }

    fn peer(&self, peer: usize) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], 4_000 + u16::try_from(peer).unwrap()))
    }

    fn peer_send(&mut self, peer: usize, to: SocketAddr, payload: &[u8]) {
        self.net.peer_send(self.peer(peer), to, payload);
    }

    fn peer_receive(&mut self, peer: usize) -> Option<(SocketAddr, Vec<u8>)> {
        let mut buffer = [0; 1_472];
        while let Some(arrival) = self.net.peer_receive(&mut buffer) {
            self.got
                .push((arrival.to, arrival.from, buffer[..arrival.length].to_vec()));
        }
        let at = self.got.iter().position(|(to, _, _)| *to == self.peer(peer))?;
        let (_, from, payload) = self.got.remove(at);
        Some((from, payload))
    }
}

mod at_once {
    suite!(Some(super::Simulated::new(false)));
}

mod slow_close {
    suite!(Some(super::Simulated::new(true)));
}

#[test]
fn waiting_moves_the_virtual_clock_exactly() {
    let mut scene = Simulated::new(false);
    assert!(scene.io.wait(Timestamp(12_345)));
    assert_eq!(scene.io.now(), Timestamp(12_345));
}
