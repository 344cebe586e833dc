//! What control prepares for a flow: a bound UDP socket.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use crate::io::inherit::{self, KeepOpen};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// A bound UDP socket on its way into a worker's ring, or back. Dropping it frees the port.
#[derive(Debug)]
pub struct UringPrepared {
    socket: UdpSocket,
    local: SocketAddr,
}

impl UringPrepared {
    /// The address it is bound to (with the port the kernel chose, when 0 was asked for).
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Lets the socket stay open when this process executes another program, if `self` lives until
    /// then, and tells the number that [`Self::inherit`] wants there.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn keep(&self) -> io::Result<RawFd> {
        inherit::keep(&self.socket)
    }

    /// A socket that the program before this one kept, bound to `local`.
    ///
    /// # Errors
    /// The number is no socket that was kept, or one that is bound elsewhere.
    pub fn inherit(fd: RawFd, local: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::from(inherit::adopt(fd)?);
        let bound = socket.local_addr()?;
        if bound != local {
            return Err(io::Error::other(format!(
                "it is bound to {bound} instead of {local}"
            )));
        }
        Ok(Self { socket, local })
    }

    pub(super) fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl KeepOpen for UringPrepared {
    fn keep_open(self) -> io::Result<Option<RawFd>> {
        let number = self.keep()?;
        std::mem::forget(self);
        Ok(Some(number))
    }
}

/// How to bind.
#[derive(Debug, Clone, Copy)]
pub struct BindOptions {
    /// Receive buffer in bytes of kernel memory, before the kernel doubles it. A G.711 packet takes
    /// about 800.
    pub receive_bytes: usize,
    /// Send buffer, likewise.
    pub send_bytes: usize,
    /// Differentiated services code point of what is sent, 0 to 63 (RFC 3246: 46, expedited).
    pub dscp: u8,
    /// How long to try again while the port is in use. A ring that has just gone gives its sockets
    /// back late, so a restarted process needs a few seconds; zero in service. Blocks the caller.
    pub retry_for: Duration,
}

impl Default for BindOptions {
    fn default() -> Self {
        Self {
            receive_bytes: 128 << 10,
            send_bytes: 128 << 10,
            dscp: 46,
            retry_for: Duration::ZERO,
        }
    }
}

/// Binds a UDP socket for one flow. An IPv6 socket takes IPv6 only.
///
/// # Errors
/// What the kernel says: `AddrInUse`, `AddrNotAvailable`, no descriptors left.
pub fn bind(local: SocketAddr, options: &BindOptions) -> io::Result<UringPrepared> {
    let mut left = options.retry_for;
    loop {
        match bind_once(local, options) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && left > Duration::ZERO => {
                let pause = left.min(RETRY_PAUSE);
                left -= pause;
                pause_thread(pause);
            }
            result => return result,
        }
    }
}

const RETRY_PAUSE: Duration = Duration::from_millis(20);

#[expect(
    clippy::disallowed_methods,
    reason = "control's thread waits for a port at start; nothing else runs yet"
)]
fn pause_thread(pause: Duration) {
    std::thread::sleep(pause);
}

fn bind_once(local: SocketAddr, options: &BindOptions) -> io::Result<UringPrepared> {
    let socket = Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
    let traffic_class = u32::from(options.dscp & 0x3f) << 2;
    if local.is_ipv6() {
        socket.set_only_v6(true)?;
        socket.set_tclass_v6(traffic_class)?;
    } else {
        socket.set_tos_v4(traffic_class)?;
    }
    socket.set_nonblocking(true)?;
    socket.set_recv_buffer_size(options.receive_bytes)?;
    socket.set_send_buffer_size(options.send_bytes)?;
    socket.bind(&SockAddr::from(local))?;
    let socket = UdpSocket::from(socket);
    let local = socket.local_addr()?;
    Ok(UringPrepared { socket, local })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_reported_and_free_after_the_drop() {
        let options = BindOptions::default();
        let first = bind("127.0.0.1:0".parse().unwrap(), &options).unwrap();
        assert_ne!(first.local().port(), 0);
        let short = BindOptions {
            retry_for: Duration::from_millis(30),
            ..options
        };
        assert_eq!(
            bind(first.local(), &short).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
        let local = first.local();
        drop(first);
        assert_eq!(bind(local, &options).unwrap().local(), local);
    }

    #[test]
    fn retry_outlasts_a_port_that_is_given_back() {
        let first = bind("[::1]:0".parse().unwrap(), &BindOptions::default()).unwrap();
        let local = first.local();
        let patient = BindOptions {
            retry_for: Duration::from_secs(30),
            ..BindOptions::default()
        };
        let second = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| bind(local, &patient));
            drop(first);
            waiting.join().unwrap()
        });
        assert_eq!(second.unwrap().local(), local);
    }
}
