//! What control prepares for a flow: a live port in the XDP program, a bound socket, or both.

use std::io;
use std::net::SocketAddr;
use std::os::fd::RawFd;

use super::device::program::{PortLease, Ports};
use crate::io::inherit::KeepOpen;
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

    /// Takes over what the program before this one prepared: a port that is live, or a socket.
    ///
    /// # Errors
    /// The socket is not as it should be, or what the kernel says.
    pub fn inherit(
        ports: Option<&Ports>,
        local: SocketAddr,
        worker: u16,
        socket: Option<RawFd>,
    ) -> io::Result<Self> {
        let lease = ports.map(|ports| ports.lease(local.port(), worker)).transpose()?;
        let socket = socket
            .map(|socket| UringPrepared::inherit(socket, local))
            .transpose()?;
        Ok(Self {
            _lease: lease,
            socket,
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

impl KeepOpen for XdpPrepared {
    fn keep_open(mut self) -> io::Result<Option<RawFd>> {
        let socket = self.socket.take();
        // The port stays live while nobody looks after it.
        std::mem::forget(self);
        socket.map_or(Ok(None), KeepOpen::keep_open)
    }
}
