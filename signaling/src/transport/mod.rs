//! SIP sockets: bytes in, bytes out, connections reused. Knows nothing of SIP beyond framing.
//!
//! Invariants: every queue is bounded; nothing here makes the driver wait: [`Transports::send`]
//! returns at once, and what fails later is told by [`Input::FlowFailed`]. A datagram that finds the
//! driver's queue full is dropped and counted (the peer repeats it); a stream is read no further
//! until there is room.

pub mod framing;
mod tcp;
mod udp;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use signaling_core::input::{Flow, Input, Transport};
use tokio::sync::mpsc;

use crate::config::Listener;
use crate::metrics::Metrics;

/// Inputs that may wait for the driver.
pub const QUEUE_INPUTS: usize = 4096;

/// A socket could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("SIP {listener}: {reason}")]
pub struct BindError {
    /// Which.
    pub listener: Listener,
    /// What the system said.
    pub reason: io::Error,
}

/// All SIP sockets.
#[derive(Debug)]
pub struct Transports {
    udp: udp::UdpSockets,
    tcp: tcp::TcpConnections,
}

/// Sockets that are bound and do not receive yet.
#[derive(Debug)]
pub struct Bound {
    udp: Vec<std::net::UdpSocket>,
    tcp: Vec<std::net::TcpListener>,
    addresses: Vec<Listener>,
}

impl Bound {
    /// Binds every listener, so that a taken address is known before anything else is done.
    ///
    /// # Errors
    /// The first address that cannot be bound.
    pub fn bind(listeners: &[Listener]) -> Result<Self, BindError> {
        let mut bound = Self {
            udp: Vec::new(),
            tcp: Vec::new(),
            addresses: Vec::new(),
        };
        for &listener in listeners {
            let failed = |reason| BindError { listener, reason };
            let address = match listener.transport {
                Transport::Udp => {
                    let socket = udp::bind(listener.address).map_err(failed)?;
                    let address = socket.local_addr().map_err(failed)?;
                    bound.udp.push(socket);
                    address
                }
                Transport::Tcp => {
                    let socket = tcp::bind(listener.address).map_err(failed)?;
                    let address = socket.local_addr().map_err(failed)?;
                    bound.tcp.push(socket);
                    address
                }
            };
            bound.addresses.push(Listener {
                transport: listener.transport,
                address,
            });
        }
        Ok(bound)
    }

    /// What is really bound: ports chosen by the system in the place of 0.
    #[must_use]
    pub fn addresses(&self) -> &[Listener] {
        &self.addresses
    }

    /// Starts to receive. Must be called inside the runtime.
    ///
    /// # Errors
    /// The runtime does not take a socket.
    pub fn start(
        self,
        connections_max: usize,
        metrics: &Arc<Metrics>,
    ) -> io::Result<(Transports, mpsc::Receiver<Input>)> {
        let (inputs, queue) = mpsc::channel(QUEUE_INPUTS);
        let udp = udp::UdpSockets::start(self.udp, &inputs, metrics)?;
        let tcp = tcp::TcpConnections::start(self.tcp, connections_max, inputs, Arc::clone(metrics))?;
        Ok((Transports { udp, tcp }, queue))
    }
}

impl Transports {
    /// Sends one message without waiting. False: this flow cannot carry it, now or later.
    #[must_use]
    pub fn send(&self, flow: Flow, bytes: Bytes) -> bool {
        match flow.transport {
            Transport::Udp => self.udp.send(flow, &bytes),
            Transport::Tcp => self.tcp.send(flow, bytes),
        }
    }
}

/// Whether a socket bound to `bound` is the one for messages with the local address `local`.
fn serves(bound: SocketAddr, local: SocketAddr) -> bool {
    bound == local
        || (bound.ip().is_unspecified() && bound.port() == local.port() && bound.is_ipv4() == local.is_ipv4())
}

#[cfg(test)]
mod tests;
