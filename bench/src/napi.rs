//! CPU time of an interface's NAPI threads: what the kernel spends on receiving before a program sees anything.
//!
//! Without threaded NAPI that time is charged to whoever happens to run, so that neither a program's own CPU time nor
//! any other account tells what receiving costs. Which threads are an interface's is asked from the kernel (family
//! `netdev`, Linux 6.9): their names carry the device, but not the network namespace it is in.

use std::fs;
use std::io;
use std::process::Command;
use std::time::Duration;

use netlink_sys::protocols::NETLINK_GENERIC;
use netlink_sys::{Socket, SocketAddr};

use crate::process::{self, ProcessError};

/// The NAPI threads of one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Napi {
    /// The interface's name.
    pub interface: String,
    /// Process ids of its NAPI threads, one for each queue in use.
    pub threads: Vec<u32>,
}

/// Why there is no account of an interface's receiving.
#[derive(Debug, thiserror::Error)]
pub enum NapiError {
    /// It has no threads of its own.
    #[error(
        "{0} has no NAPI threads, so nobody knows what receiving costs; switch them on, in the interface's network \
         namespace: `echo 1 >/sys/class/net/{0}/threaded` (the lab: `scripts/lab up --threaded`)"
    )]
    NotThreaded(String),
    /// The kernel cannot be asked.
    #[error("NAPI threads of {interface}: {source}")]
    System {
        /// Of which interface.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another namespace cannot be looked into.
    #[error("NAPI threads of {interface} in namespace {namespace}: {what}")]
    Namespace {
        /// Of which interface.
        interface: String,
        /// Where.
        namespace: String,
        /// What `ip netns exec` or the program in it said.
        what: String,
    },
    /// A thread is gone.
    #[error(transparent)]
    Process(#[from] ProcessError),
}

impl Napi {
    /// Finds the threads of `interface`, in the network namespace `namespace` (as `ip netns` lists them) or in that of
    /// this process.
    ///
    /// # Errors
    /// See [`NapiError`].
    pub fn find(interface: &str, namespace: Option<&str>) -> Result<Self, NapiError> {
        let threads = match namespace {
            None => own(interface)?,
            Some(namespace) => elsewhere(interface, namespace)?,
        };
        if threads.is_empty() {
            return Err(NapiError::NotThreaded(interface.to_owned()));
        }
        Ok(Self {
            interface: interface.to_owned(),
            threads,
        })
    }

    /// Time that its threads have run so far.
    ///
    /// # Errors
    /// When a thread is gone.
    pub fn run_time(&self) -> Result<Duration, NapiError> {
        let mut sum = Duration::ZERO;
        for &thread in &self.threads {
            sum += process::run_time(thread)?;
        }
        Ok(sum)
    }
}

/// A process lives in one network namespace: another one is looked into by another process.
fn elsewhere(interface: &str, namespace: &str) -> Result<Vec<u32>, NapiError> {
    let failed = |what: String| NapiError::Namespace {
        interface: interface.to_owned(),
        namespace: namespace.to_owned(),
        what,
    };
    let program = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
    let output = Command::new("ip")
        .args(["netns", "exec", namespace])
        .arg(program)
        .args(["io", "napi", interface])
        .output()
        .map_err(|error| failed(format!("ip: {error}")))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
}

fn own(interface: &str) -> Result<Vec<u32>, NapiError> {
    let failed = |source| NapiError::System {
        interface: interface.to_owned(),
        source,
    };
    let index = fs::read_to_string(format!("/sys/class/net/{interface}/ifindex")).map_err(failed)?;
    let index: u32 = index
        .trim()
        .parse()
        .map_err(|_| failed(io::ErrorKind::InvalidData.into()))?;
    threads(index).map_err(failed)
}

fn threads(interface_index: u32) -> io::Result<Vec<u32>> {
    let mut socket = Socket::new(NETLINK_GENERIC)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let name = Attribute {
        kind: CTRL_ATTR_FAMILY_NAME,
        value: b"netdev\0",
    };
    socket.send(&request(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, REQUEST, &name), 0)?;
    let (reply, _) = socket.recv_from_full()?;
    let mut family = None;
    for message in messages(&reply) {
        let payload = message?.payload;
        let id = attribute(payload, CTRL_ATTR_FAMILY_ID).and_then(|value| value.first_chunk::<2>());
        family = family.or(id.map(|id| u16::from_ne_bytes(*id)));
    }
    let family = family.ok_or(io::ErrorKind::Unsupported)?;
    let index = Attribute {
        kind: NETDEV_A_NAPI_IFINDEX,
        value: &interface_index.to_ne_bytes(),
    };
    socket.send(&request(family, NETDEV_CMD_NAPI_GET, REQUEST | DUMP, &index), 0)?;
    let mut found = Vec::new();
    loop {
        let (reply, _) = socket.recv_from_full()?;
        for message in messages(&reply) {
            let message = message?;
            if message.kind == NLMSG_DONE {
                return Ok(found);
            }
            let pid =
                attribute(message.payload, NETDEV_A_NAPI_PID).and_then(|value| value.first_chunk::<4>());
            found.extend(pid.map(|pid| u32::from_ne_bytes(*pid)));
        }
    }
}

struct Attribute<'a> {
    kind: u16,
    value: &'a [u8],
}

/// A generic netlink request with one attribute (`netlink(7)`, kernel: `Documentation/userspace-api/netlink`).
fn request(family: u16, command: u8, flags: u16, attribute: &Attribute<'_>) -> Vec<u8> {
    let length = |length: usize| u16::try_from(length).unwrap_or(u16::MAX);
    let mut message = vec![0; 4];
    message.extend(family.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    // Sequence and port: one request at a time, and the kernel fills in the port.
    message.extend([0; 8]);
    message.extend([command, 1, 0, 0]);
    message.extend(length(4 + attribute.value.len()).to_ne_bytes());
    message.extend(attribute.kind.to_ne_bytes());
    message.extend(attribute.value);
    message.resize(message.len().next_multiple_of(4), 0);
    let total = u32::from(length(message.len()));
    message[..4].copy_from_slice(&total.to_ne_bytes());
    message
}

/// One message of an answer, without its headers.
#[derive(Debug, PartialEq, Eq)]
struct Message<'a> {
    kind: u16,
    /// Attributes; empty when the message has no room for the generic header.
    payload: &'a [u8],
}

/// The messages of one datagram; an error message is an error.
fn messages(mut datagram: &[u8]) -> impl Iterator<Item = io::Result<Message<'_>>> {
    std::iter::from_fn(move || {
        let header: &[u8; 16] = datagram.first_chunk()?;
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]);
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let body = datagram.get(16..usize::try_from(length).ok()?)?;
        datagram = datagram
            .get(16 + body.len().next_multiple_of(4)..)
            .unwrap_or_default();
        let code = body
            .first_chunk::<4>()
            .map_or(0, |code| i32::from_ne_bytes(*code));
        if matches!(kind, NLMSG_ERROR | NLMSG_DONE) && code < 0 {
            return Some(Err(io::Error::from_raw_os_error(-code)));
        }
        let payload = body.get(4..).unwrap_or_default();
        Some(Ok(Message { kind, payload }))
    })
}

/// The value of the first attribute of a kind.
fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let header: &[u8; 4] = attributes.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let value = attributes.get(4..length)?;
        if u16::from_ne_bytes([header[2], header[3]]) & ATTRIBUTE_KIND == wanted {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

const REQUEST: u16 = 1;
const DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `NLA_TYPE_MASK`.
const ATTRIBUTE_KIND: u16 = 0x3fff;
const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const NETDEV_CMD_NAPI_GET: u8 = 11;
const NETDEV_A_NAPI_IFINDEX: u16 = 1;
const NETDEV_A_NAPI_PID: u16 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut message = u32::try_from(16 + body.len()).unwrap().to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend([0; 10]);
        message.extend(body);
        message.resize(message.len().next_multiple_of(4), 0);
        message
    }

    #[test]
    fn a_request_says_its_length_and_can_be_read_back() {
        let attribute_in = Attribute {
            kind: 2,
            value: b"netdev\0",
        };
        let bytes = request(16, 3, REQUEST, &attribute_in);
        assert_eq!(bytes.len(), 16 + 4 + 4 + 8);
        let read: Vec<Message<'_>> = messages(&bytes).map(Result::unwrap).collect();
        assert_eq!(read.len(), 1);
        assert_eq!(read[0].kind, 16);
        assert_eq!(attribute(read[0].payload, 2), Some(&b"netdev\0"[..]));
        assert_eq!(attribute(read[0].payload, 1), None);
    }

    #[test]
    fn messages_of_one_datagram_are_told_apart_and_errors_are_errors() {
        let mut attributes = vec![0; 4];
        attributes.extend([5u16.to_ne_bytes(), 9u16.to_ne_bytes()].concat());
        attributes.extend([7, 0, 0, 0]);
        attributes.extend([8u16.to_ne_bytes(), (4u16 | 0x8000).to_ne_bytes()].concat());
        attributes.extend(4_711u32.to_ne_bytes());
        let mut datagram = answer(30, &attributes);
        datagram.extend(answer(NLMSG_DONE, &0i32.to_ne_bytes()));
        let read: Vec<Message<'_>> = messages(&datagram).map(Result::unwrap).collect();
        assert_eq!(attribute(read[0].payload, 9), Some(&[7][..]));
        assert_eq!(attribute(read[0].payload, 4), Some(&4_711u32.to_ne_bytes()[..]));
        assert_eq!(read[1].kind, NLMSG_DONE);
        let refused = answer(NLMSG_ERROR, &(-95i32).to_ne_bytes());
        let error = messages(&refused).next().unwrap().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(95));
        assert!(messages(&datagram[..15]).next().is_none());
        assert!(messages(&datagram[..20]).next().is_none());
        assert_eq!(attribute(&[0, 0, 4, 0], 4), None);
    }

    #[test]
    fn an_interface_without_threads_is_told_how_to_get_them() {
        match Napi::find("lo", None).unwrap_err() {
            error @ NapiError::NotThreaded(_) => {
                let text = error.to_string();
                assert!(text.contains("/sys/class/net/lo/threaded"), "{text}");
            }
            other @ (NapiError::System { .. } | NapiError::Namespace { .. } | NapiError::Process(_)) => {
                println!("NOT RUN: this kernel does not tell NAPI threads: {other}");
            }
        }
    }
}
