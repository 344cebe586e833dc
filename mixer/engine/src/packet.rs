//! What crosses the border between the engine and packet I/O.

use std::net::SocketAddr;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;
use crate::wire::checksum;

/// A prepared way to one remote address from one local port. Equal to the index of the endpoint
/// that owns it, so that no look-up is needed on the way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FlowId(pub u32);

/// One UDP payload as received.
#[derive(Debug, Clone, Copy)]
pub struct Datagram<'a> {
    /// UDP port it came to.
    pub local_port: u16,
    /// Where it came from.
    pub source: SocketAddr,
    /// UDP payload.
    pub payload: &'a [u8],
    /// When the worker saw it.
    pub received_at: Timestamp,
}

/// What was written into a transmit buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filled {
    /// Bytes from the start of the buffer on.
    pub length: usize,
    /// Their sum ([`checksum::add`]), if that is known. To read what was just written would be to wait until it is in
    /// the cache.
    pub sum: Option<u64>,
}

impl Filled {
    /// Adds `bytes`, which is what was written or, if the sink takes less, the beginning of it, to a running sum.
    #[inline]
    #[must_use]
    pub fn add_to(&self, sum: u64, bytes: &[u8]) -> u64 {
        match self.sum {
            Some(known) if bytes.len() == self.length => sum + known,
            _ => checksum::add(sum, bytes),
        }
    }
}

impl From<usize> for Filled {
    #[inline]
    fn from(length: usize) -> Self {
        Self { length, sum: None }
    }
}

/// Where the engine sends. Implemented by packet I/O and by tests.
pub trait PacketSink {
    /// Whether [`Filled::sum`] is of use, so that it is worth while to sum up once what many get.
    const SUMS: bool = false;

    /// Sends one datagram on `flow`: `fill` writes the UDP payload into the transmit buffer (at
    /// least 1,472 bytes) and says what it has written. Returns false, without calling `fill`, when no
    /// buffer is free or the flow has no remote address; the caller counts that as a drop.
    fn transmit<F: Into<Filled>>(&mut self, flow: FlowId, fill: impl FnOnce(&mut [u8]) -> F) -> bool;

    /// Points `flow` at another remote address from the next `transmit` on.
    fn set_remote(&mut self, flow: FlowId, remote: SocketAddr);

    /// Is told of memory that will be read soon, and may bring it near.
    #[inline]
    fn prefetch<T>(&self, _soon: &T) {}

    /// Is told of such bytes of a value that will be read soon, and may bring them near.
    #[inline]
    fn prefetch_part<T>(&self, _soon: &T, _bytes: Range<usize>) {}

    /// Is told that `flow` will be sent on soon.
    #[inline]
    fn expect(&self, _flow: FlowId) {}

    /// Whether nothing may leave now although time passes: a worker that was held up runs its
    /// oldest slots so, and no listener gets a burst of stale frames. Timestamps go on, sequence
    /// numbers stand still, and the next packet carries the marker (RFC 3550 5.1, M-05).
    fn is_muted(&self) -> bool {
        false
    }
}
