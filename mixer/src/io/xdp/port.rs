//! What control prepares for a flow: a live port in the XDP program, a bound socket, or both.

use std::io;
use std::net::SocketAddr;

use super::program::{PortLease, Ports};
use crate::io::uring::{self, BindOptions, UringPrepared};

/// A prepared port on its way to a worker, or back. Dropping it frees the port.
#[derive(Debug)]
pub struct XdpPrepared {
    /// Kept for its drop.
    _lease: Option<PortLease>,
    pub(super) socket: Option<UringPrepared>,
}

impl XdpPrepared {
    /// Prepares nothing: for tests that play the kernel.
    #[must_use]
    pub fn nothing() -> Self {
        Self {
            _lease: None,
            socket: None,
        }
    }

    /// Makes `port` live in the program: its datagrams become frames for `worker`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn live(ports: &Ports, port: u16, worker: u16) -> io::Result<Self> {
        Ok(Self {
            _lease: Some(ports.lease(port, worker)?),
            socket: None,
        })
    }

    /// Binds a socket: frames are only sent, datagrams come through the kernel.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn bound(local: SocketAddr, options: &BindOptions) -> io::Result<Self> {
        Ok(Self {
            _lease: None,
            socket: Some(uring::bind(local, options)?),
        })
    }
}
