//! The caller's one SIP socket: UDP, or one TCP connection with framing by Content-Length
//! (RFC 3261 18.3). Never blocks after it is open.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use super::message::Transport;

/// Largest message taken.
const MESSAGE_MAX: usize = 65_536;

/// An open socket to the server.
#[derive(Debug)]
pub struct Wire {
    socket: Socket,
    local: SocketAddr,
}

#[derive(Debug)]
enum Socket {
    Udp(UdpSocket),
    Tcp {
        stream: TcpStream,
        received: Vec<u8>,
        unsent: Vec<u8>,
    },
}

impl Wire {
    /// Opens the socket on `bind` (or the address the kernel routes from).
    ///
    /// # Errors
    /// What the kernel says, with the address it says it about.
    pub fn open(transport: Transport, target: SocketAddr, bind: Option<IpAddr>) -> io::Result<Self> {
        let name = |error: io::Error| io::Error::new(error.kind(), format!("{target}: {error}"));
        let (socket, local) = match transport {
            Transport::Udp => {
                let any: IpAddr = if target.is_ipv4() {
                    [0; 4].into()
                } else {
                    [0u16; 8].into()
                };
                let socket = UdpSocket::bind((bind.unwrap_or(any), 0))?;
                socket.connect(target).map_err(name)?;
                socket.set_nonblocking(true)?;
                let local = socket.local_addr()?;
                (Socket::Udp(socket), local)
            }
            Transport::Tcp => {
                let stream = TcpStream::connect_timeout(&target, Duration::from_secs(5)).map_err(name)?;
                stream.set_nodelay(true)?;
                stream.set_nonblocking(true)?;
                let local = stream.local_addr()?;
                (
                    Socket::Tcp {
                        stream,
                        received: Vec::new(),
                        unsent: Vec::new(),
                    },
                    local,
                )
            }
        };
        Ok(Self { socket, local })
    }

    /// Our address as the server sees it without NAT.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Sends one message; what a stream does not take now goes out at the next [`Wire::receive`].
    ///
    /// # Errors
    /// When the server is gone (connection refused or reset).
    pub fn send(&mut self, message: &[u8]) -> io::Result<()> {
        match &mut self.socket {
            Socket::Udp(socket) => match socket.send(message) {
                // A full socket buffer is a lost datagram: the transaction repeats it.
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
                other => other.map(|_| ()),
            },
            Socket::Tcp { stream, unsent, .. } => {
                unsent.extend_from_slice(message);
                push(stream, unsent)
            }
        }
    }

    /// Hands all waiting messages to `on_message`.
    ///
    /// # Errors
    /// When the server is gone, or what it sends on a stream is not SIP.
    pub fn receive(&mut self, mut on_message: impl FnMut(&[u8])) -> io::Result<()> {
        match &mut self.socket {
            Socket::Udp(socket) => {
                let mut buffer = [0; MESSAGE_MAX];
                loop {
                    match socket.recv(&mut buffer) {
                        Ok(length) => on_message(&buffer[..length]),
                        Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                        Err(error) => return Err(error),
                    }
                }
            }
            Socket::Tcp {
                stream,
                received,
                unsent,
            } => {
                push(stream, unsent)?;
                pull(stream, received)?;
                while let Some(length) = framed(received)? {
                    on_message(&received[..length]);
                    received.drain(..length);
                }
                Ok(())
            }
        }
    }
}

fn push(stream: &mut TcpStream, unsent: &mut Vec<u8>) -> io::Result<()> {
    while !unsent.is_empty() {
        match stream.write(unsent) {
            Ok(length) => drop(unsent.drain(..length)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn pull(stream: &mut TcpStream, received: &mut Vec<u8>) -> io::Result<()> {
    let mut buffer = [0; 16_384];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(length) => received.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Length of the first whole message, if it is there.
fn framed(received: &mut Vec<u8>) -> io::Result<Option<usize>> {
    // RFC 3261 7.5: empty lines before a start line are skipped (keep-alives).
    let blank = received
        .iter()
        .take_while(|&&byte| byte == b'\r' || byte == b'\n')
        .count();
    received.drain(..blank);
    let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") else {
        return if received.len() > MESSAGE_MAX {
            Err(ErrorKind::InvalidData.into())
        } else {
            Ok(None)
        };
    };
    let head = String::from_utf8_lossy(&received[..end]);
    let length = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| {
            let name = name.trim();
            name.eq_ignore_ascii_case("content-length") || name.eq_ignore_ascii_case("l")
        })
        .map_or(Ok(0), |(_, value)| value.trim().parse::<usize>())
        .map_err(|_| io::Error::from(ErrorKind::InvalidData))?;
    let whole = end + 4 + length;
    if whole > MESSAGE_MAX {
        return Err(ErrorKind::InvalidData.into());
    }
    Ok((received.len() >= whole).then_some(whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_framed_wherever_the_stream_is_cut() {
        let stream = b"\r\n\r\nSIP/2.0 200 OK\r\nContent-Length: 3\r\n\r\nabcBYE x SIP/2.0\r\nl: 0\r\n\r\n";
        for cut in 0..stream.len() {
            let (mut received, mut messages) = (Vec::new(), Vec::new());
            for part in [&stream[..cut], &stream[cut..]] {
                received.extend_from_slice(part);
                while let Some(length) = framed(&mut received).unwrap() {
                    messages.push(received.drain(..length).collect::<Vec<u8>>());
                }
            }
            assert_eq!(messages.len(), 2, "cut at {cut}");
            assert!(messages[0].ends_with(b"abc") && messages[1].starts_with(b"BYE"));
            assert!(received.is_empty());
        }
    }

    #[test]
    fn a_stream_that_is_not_sip_is_refused() {
        assert!(framed(&mut b"x\r\nContent-Length: many\r\n\r\n".to_vec()).is_err());
        assert!(framed(&mut vec![b'x'; MESSAGE_MAX + 1]).is_err());
    }
}
