//! SIP over UDP.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use signaling_core::input::{Flow, Input, Transport};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use super::serves;
use crate::metrics::{Dropped, Metrics};

/// Kernel buffer per direction. Two thousand calls of a kilobyte each may arrive while the process
/// does not run for a moment.
const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// Largest datagram there is.
const DATAGRAM_MAX: usize = 65_535;
/// Datagrams read before other tasks get a turn.
const BURST: usize = 64;
/// Source addresses remembered for a socket that is bound to every address.
const ROUTES_MAX: usize = 1024;

/// Opens a socket with large buffers.
pub(super) fn bind(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // The system may give less; that is no reason not to start.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// All UDP sockets.
#[derive(Debug)]
pub(super) struct UdpSockets {
    sockets: Vec<(SocketAddr, Arc<UdpSocket>)>,
    metrics: Arc<Metrics>,
}

impl UdpSockets {
    /// Starts one receiving task per socket.
    pub(super) fn start(
        sockets: Vec<std::net::UdpSocket>,
        inputs: &mpsc::Sender<Input>,
        metrics: &Arc<Metrics>,
    ) -> io::Result<Self> {
        let mut started = Vec::new();
        for socket in sockets {
            let socket = Arc::new(UdpSocket::from_std(socket)?);
            let bound = socket.local_addr()?;
            let receiver = Receiver {
                socket: Arc::clone(&socket),
                bound,
                routes: BTreeMap::new(),
                inputs: inputs.clone(),
                metrics: Arc::clone(metrics),
            };
            tokio::spawn(receiver.run());
            started.push((bound, socket));
        }
        Ok(Self {
            sockets: started,
            metrics: Arc::clone(metrics),
        })
    }

    /// Sends one datagram. One that finds the buffer full is lost like any other: UDP peers repeat.
    pub(super) fn send(&self, flow: Flow, bytes: &Bytes) -> bool {
        let socket = self.sockets.iter().find(|(bound, _)| serves(*bound, flow.local));
        let sent = match socket {
            Some((_, socket)) => socket.try_send_to(bytes, flow.remote).map(|_| ()),
            None => Err(io::ErrorKind::AddrNotAvailable.into()),
        };
        let Err(error) = sent else { return true };
        self.metrics.dropped(Dropped::UdpSendFailed);
        error.kind() == io::ErrorKind::WouldBlock
    }
}

/// Reads one socket for ever.
struct Receiver {
    socket: Arc<UdpSocket>,
    bound: SocketAddr,
    routes: BTreeMap<IpAddr, IpAddr>,
    inputs: mpsc::Sender<Input>,
    metrics: Arc<Metrics>,
}

impl Receiver {
    async fn run(mut self) {
        let mut buffer = vec![0; DATAGRAM_MAX];
        loop {
            if self.socket.readable().await.is_err() {
                return;
            }
            for _ in 0..BURST {
                match self.socket.try_recv_from(&mut buffer) {
                    Ok((length, remote)) => {
                        if let Some(datagram) = buffer.get(..length) {
                            self.take(remote, datagram);
                        }
                    }
                    // An ICMP error of an earlier send is reported here; the socket is well.
                    Err(_) => break,
                }
            }
            if self.inputs.is_closed() {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    fn take(&mut self, remote: SocketAddr, datagram: &[u8]) {
        // Keep-alives of phones: empty, line ends, NULs or spaces.
        if datagram
            .iter()
            .all(|byte| byte.is_ascii_whitespace() || *byte == 0)
        {
            return;
        }
        let local = SocketAddr::new(self.local_ip(remote), self.bound.port());
        let flow = Flow {
            transport: Transport::Udp,
            local,
            remote,
            connection: 0,
        };
        if self
            .inputs
            .try_send(Input::Sip {
                flow,
                bytes: Bytes::copy_from_slice(datagram),
            })
            .is_err()
        {
            self.metrics.dropped(Dropped::UdpQueueFull);
        }
    }

    /// Our address towards a peer: a socket bound to every address does not know, the routing table
    /// does, and Contact must not say 0.0.0.0.
    fn local_ip(&mut self, remote: SocketAddr) -> IpAddr {
        if !self.bound.ip().is_unspecified() {
            return self.bound.ip();
        }
        if let Some(ip) = self.routes.get(&remote.ip()) {
            return *ip;
        }
        let ip = routed_source(self.bound, remote).unwrap_or(self.bound.ip());
        if self.routes.len() >= ROUTES_MAX {
            self.routes.clear();
        }
        self.routes.insert(remote.ip(), ip);
        ip
    }
}

fn routed_source(bound: SocketAddr, remote: SocketAddr) -> io::Result<IpAddr> {
    let probe = std::net::UdpSocket::bind(SocketAddr::new(bound.ip(), 0))?;
    probe.connect(remote)?;
    Ok(probe.local_addr()?.ip())
}
