//! Where an engine sends: packet I/O, unless the slot is too old to be heard, and a recorder that looks on.

use std::net::SocketAddr;
use std::ops::Range;

use mixer_engine::packet::{Filled, FlowId, PacketSink};

use crate::io::{PacketIo, cache};
use crate::replay::Recorder;

pub(super) struct Outlet<'a, Io> {
    io: &'a mut Io,
    recorder: Option<&'a mut Recorder>,
    muted: bool,
    /// Packets so far.
    packets: u32,
}

impl<'a, Io: PacketIo> Outlet<'a, Io> {
    /// For one slot or command.
    pub(super) fn new(io: &'a mut Io, recorder: Option<&'a mut Recorder>, muted: bool) -> Self {
        Self {
            io,
            recorder,
            muted,
            packets: 0,
        }
    }
}

impl<Io: PacketIo> PacketSink for Outlet<'_, Io> {
    const SUMS: bool = Io::SUMS;

    #[inline]
    fn transmit<F: Into<Filled>>(&mut self, flow: FlowId, fill: impl FnOnce(&mut [u8]) -> F) -> bool {
        if self.muted {
            return false;
        }
        let taken = self.io.transmit(flow, fill);
        if let Some(recorder) = &mut self.recorder {
            if !taken {
                recorder.not_taken(self.packets);
            }
            self.packets += 1;
        }
        taken
    }

    fn set_remote(&mut self, flow: FlowId, remote: SocketAddr) {
        self.io.set_remote(flow, remote);
    }

    #[inline]
    fn prefetch<T>(&self, soon: &T) {
        cache::prefetch(soon);
    }

    #[inline]
    fn prefetch_part<T>(&self, soon: &T, bytes: Range<usize>) {
        cache::prefetch_part(soon, bytes);
    }

    #[inline]
    fn expect(&self, flow: FlowId) {
        self.io.expect(flow);
    }

    fn is_muted(&self) -> bool {
        self.muted
    }
}
