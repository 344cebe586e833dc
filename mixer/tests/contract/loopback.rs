//! The suite on io_uring with real sockets on loopback, IPv4 and IPv6.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use mixer::clock::Clock;
use mixer::io::uring::{BindOptions, UringConfig, UringIo, UringPrepared, bind};

use crate::Scene;

struct Loopback {
    io: UringIo,
    host: IpAddr,
    peers: [UdpSocket; 2],
}

impl Loopback {
    fn new(host: IpAddr) -> Self {
        let config = UringConfig {
            receive_buffers: 64,
            send_buffers: Self::SEND_BUFFERS,
            // Beyond the buffers: only a flush submits, so that they can run out.
            submit_chunk: Self::SEND_BUFFERS + 1,
            ..UringConfig::new(Clock::start(), Self::FLOWS)
        };
        let peer = || {
            let socket = UdpSocket::bind((host, 0)).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            socket
        };
        Self {
            io: UringIo::new(&config).unwrap(),
            host,
            peers: [peer(), peer()],
        }
    }
}

impl Scene for Loopback {
    type Io = UringIo;
    const SEND_BUFFERS: u32 = 32;
    const RECEIVE_BUFFERS: u32 = 64;
    const PAYLOAD_MAX: usize = 512 - 44;

    fn io(&mut self) -> &mut UringIo {
        &mut self.io
    }

    fn prepare(&mut self, local: Option<SocketAddr>) -> (SocketAddr, UringPrepared) {
        let local = local.unwrap_or(SocketAddr::new(self.host, 0));
        let patient = BindOptions {
            retry_for: Duration::from_secs(10),
            ..BindOptions::default()
        };
        let prepared = bind(local, &patient).unwrap();
        (prepared.local(), prepared)
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

mod ipv4 {
    use super::*;
    suite!(Some(Loopback::new(IpAddr::V4(Ipv4Addr::LOCALHOST))));
}

mod ipv6 {
    use super::*;
    suite!(Some(Loopback::new(IpAddr::V6(Ipv6Addr::LOCALHOST))));
}
