//! Packet I/O: one trait, several backends, chosen once in `main`; no dynamic dispatch per packet.

pub mod cache;
pub mod handoff;
pub mod inherit;
pub mod report;
pub mod sim;
pub mod tap;
pub mod uring;
pub mod xdp;

use std::net::SocketAddr;

use mixer_engine::packet::{Datagram, FlowId, PacketSink};
use mixer_engine::time::Timestamp;

/// Packet I/O of one worker. Everything on it runs on the worker's thread; none of it allocates,
/// locks, logs or blocks, except [`PacketIo::wait`].
pub trait PacketIo: PacketSink {
    /// What control prepared for a local port off the worker's thread (io_uring: a bound socket),
    /// and gets back when the flow is closed.
    type Prepared: Send + std::fmt::Debug;

    /// The monotonic time, read once per turn.
    fn now(&mut self) -> Timestamp;

    /// Hands at most `budget` received datagrams to `intake`; returns how many.
    fn receive_into(&mut self, budget: u32, intake: &mut impl Intake) -> u32;

    /// The same, for who does not look ahead.
    fn receive(&mut self, budget: u32, on_datagram: impl FnMut(&Datagram<'_>)) -> u32 {
        self.receive_into(budget, &mut ToClosure(on_datagram))
    }

    /// Opens a flow on a prepared local port. The remote address is set by the engine
    /// ([`PacketSink::set_remote`]); until then nothing can be sent.
    ///
    /// # Errors
    /// Gives `prepared` back when the flow is open already or outside of the backend's limits.
    fn open_flow(
        &mut self,
        flow: FlowId,
        local: SocketAddr,
        prepared: Self::Prepared,
    ) -> Result<(), Self::Prepared>;

    /// Closes a flow and gives back what control must release. `None` while the backend still
    /// needs it (requests in flight); then [`PacketIo::poll_closed`] gives it later.
    fn close_flow(&mut self, flow: FlowId) -> Option<Self::Prepared>;

    /// What a former [`PacketIo::close_flow`] still owed.
    fn poll_closed(&mut self) -> Option<Self::Prepared>;

    /// Hands everything transmitted so far to the kernel or device, without waiting.
    fn flush(&mut self);

    /// Waits until `until` or a wake-up; false when the worker shall stop.
    fn wait(&mut self, until: Timestamp) -> bool;

    /// Counters of the backend.
    fn counters(&self) -> IoCounters;

    /// Ends every receive, hands on what had arrived, and gives the open flows with what was prepared
    /// for them. What arrives from now on waits where the next user of a flow finds it. Allocates:
    /// for the end of a worker only.
    fn hand_over(&mut self, on_datagram: impl FnMut(&Datagram<'_>)) -> Vec<OpenFlow<Self::Prepared>>;
}

/// Who gets received datagrams.
pub trait Intake {
    /// Is told the local port of a datagram that comes some later, so that what tells whose it is can be brought near.
    /// Not every datagram is told of.
    #[inline]
    fn announce(&mut self, _local_port: u16) {}

    /// Is told the local port of a datagram that comes a few later unless something is wrong with it, so that what it
    /// will need can be brought near.
    #[inline]
    fn expect(&mut self, _local_port: u16) {}

    /// Gets one.
    fn take(&mut self, datagram: &Datagram<'_>);
}

struct ToClosure<F>(F);

impl<F: FnMut(&Datagram<'_>)> Intake for ToClosure<F> {
    fn take(&mut self, datagram: &Datagram<'_>) {
        (self.0)(datagram);
    }
}

/// An open flow on its way to another user.
#[derive(Debug)]
pub struct OpenFlow<P> {
    /// Which.
    pub flow: FlowId,
    /// Its local address.
    pub local: SocketAddr,
    /// Where it sends, if anywhere.
    pub remote: Option<SocketAddr>,
    /// What was prepared for it.
    pub prepared: P,
}

/// Longest UDP payload that is taken, on every backend; longer ones are dropped and counted.
pub const PAYLOAD_MAX: usize = crate::limits::RECEIVE_BUFFER_SIZE as usize - 44;

/// Counters of a backend since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IoCounters {
    /// Datagrams handed to the worker.
    pub received: u64,
    /// Datagrams accepted for sending; some of them may still fail.
    pub sent: u64,
    /// Datagrams larger than a receive buffer; dropped.
    pub truncated: u64,
    /// Times the receive buffers ran out.
    pub receive_ring_full: u64,
    /// Sends the kernel refused, `EAGAIN` included.
    pub send_failed: u64,
    /// `transmit` calls without a free buffer.
    pub no_send_buffer: u64,
    /// `transmit` calls on a flow without a remote address.
    pub no_remote: u64,
    /// `transmit` and `set_remote` calls on a flow that is not open.
    pub unknown_flow: u64,
    /// Errors a socket reported on receive, such as an ICMP unreachable.
    pub socket_errors: u64,
    /// Receives that ended and were started again.
    pub rearmed: u64,
    /// Times the kernel had more completions than the queue holds.
    pub completion_overflow: u64,
    /// Datagrams to a port without an open flow.
    pub unknown_port: u64,
    /// Frames that are not what their headers say.
    pub malformed: u64,
    /// Datagrams whose UDP checksum does not hold.
    pub bad_checksum: u64,
    /// Frames that do not carry the VLAN tags that are configured.
    pub wrong_vlan: u64,
    /// `transmit` calls on a flow whose next hop is not known, or that no route leads to.
    pub no_route: u64,
    /// Frames not sent because the interface is down.
    pub interface_down: u64,
    /// Datagrams handed to the worker that owns them.
    pub handed_over: u64,
    /// Datagrams that another worker handed over.
    pub taken_over: u64,
    /// Datagrams lost because the owner's ring was full.
    pub handoff_full: u64,
}
