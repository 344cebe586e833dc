//! UDP sockets on io_uring: one socket per flow, one multishot receive per socket into one ring of
//! provided buffers, sends with address and `MSG_DONTWAIT`, no completion for a send that worked.
//!
//! Needs Linux 6.0 (multishot `recvmsg`, `send` with address); 6.1 for the mode in which packets
//! never interrupt a turn. Usable without a worker: `open_flow`, `set_remote`, then `receive`,
//! `transmit`, `flush` and `wait` by hand, all on the thread that made it.

#![expect(
    unsafe_code,
    reason = "io_uring shares memory with the kernel; every block says why it is sound"
)]

mod address;
mod buffers;
mod flows;
mod ring;
mod socket;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use io_uring::types::{CancelBuilder, Fixed, RecvMsgOut, Timespec};
use io_uring::{cqueue, opcode, squeue};
use mixer_engine::packet::{Datagram, Filled, FlowId, PacketSink};
use mixer_engine::time::Timestamp;

use self::address::{ADDRESS_LENGTH, RawAddress};
use self::buffers::{ReceiveBuffers, SendBuffers};
use self::flows::{Flows, Place, State};
use self::ring::Ring;
use super::{Intake, IoCounters, OpenFlow, PacketIo};
use crate::clock::Clock;
use crate::limits;
pub use ring::Mode;
pub use socket::{BindOptions, UringPrepared, bind};

/// Sizes of a [`UringIo`].
#[derive(Debug, Clone, Copy)]
pub struct UringConfig {
    /// The clock that [`PacketIo::now`] reads and [`PacketIo::wait`] obeys.
    pub clock: Clock,
    /// Flows at most: ids from 0 to `flows - 1`.
    pub flows: u32,
    /// Receive buffers, a power of two up to 32,768.
    pub receive_buffers: u16,
    /// Bytes of a receive buffer; 44 of them are not payload.
    pub receive_buffer_size: u32,
    /// Transmit buffers, a power of two.
    pub send_buffers: u32,
    /// Sends after which [`PacketSink::transmit`] hands them to the kernel by itself.
    pub submit_chunk: u32,
}

impl UringConfig {
    /// The sizes of [`crate::limits`] for `flows` flows.
    #[must_use]
    pub fn new(clock: Clock, flows: u32) -> Self {
        Self {
            clock,
            flows,
            receive_buffers: limits::RECEIVE_BUFFERS,
            receive_buffer_size: limits::RECEIVE_BUFFER_SIZE,
            send_buffers: limits::SEND_BUFFERS,
            submit_chunk: limits::SUBMIT_CHUNK,
        }
    }
}

/// Packet I/O on io_uring. Belongs to the thread that made it.
pub struct UringIo {
    // Dropped in this order: the ring before the memory its requests point to.
    ring: Ring,
    receive_buffers: ReceiveBuffers,
    send_buffers: SendBuffers,
    /// What every multishot receive wants: an address and no control data.
    message: Box<libc::msghdr>,
    flows: Flows,
    clock: Clock,
    now: Timestamp,
    submit_chunk: usize,
    counters: IoCounters,
}

impl std::fmt::Debug for UringIo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UringIo")
            .field("ring", &self.ring)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

impl UringIo {
    /// Makes the ring and its memory. Call it on the thread that will use it. Raises the process's
    /// soft limit of open files when the flows need that, and the thread's timer resolution.
    ///
    /// # Errors
    /// What the kernel says: `ENOSYS` or `EPERM` without io_uring, `EINVAL` before Linux 6.0,
    /// `EMFILE` when the hard limit of open files is below the flows, `ENOMEM` for the locked-memory limit.
    pub fn new(config: &UringConfig) -> io::Result<Self> {
        let closing = limits::CLOSING_FLOWS.min(config.flows);
        let places = config.flows + closing;
        raise_open_files(u64::from(places) * 2 + 64)?;
        sharpen_timers();
        let completions = (u32::from(config.receive_buffers) * 4).max(1_024);
        let ring = Ring::new(config.send_buffers, completions)?;
        ring.submitter().register_files_sparse(places)?;
        let mut receive_buffers = ReceiveBuffers::new(config.receive_buffers, config.receive_buffer_size)?;
        // SAFETY: the buffers are a field after the ring, and `drop` ends all receives before both.
        unsafe { receive_buffers.register(&ring.submitter(), GROUP)? };
        // SAFETY: a message header is plain data; all zeroes means no address, no data, no control.
        let mut message: Box<libc::msghdr> = Box::new(unsafe { std::mem::zeroed() });
        message.msg_namelen = ADDRESS_LENGTH;
        Ok(Self {
            ring,
            receive_buffers,
            send_buffers: SendBuffers::new(config.send_buffers),
            message,
            flows: Flows::new(config.flows, closing),
            clock: config.clock,
            now: config.clock.now(),
            submit_chunk: config.submit_chunk as usize,
            counters: IoCounters::default(),
        })
    }

    /// Which mode the kernel allowed.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.ring.mode()
    }

    /// Arms receives and cancels those of closing flows.
    fn serve_flows(&mut self) {
        while let Some(place) = self.flows.next_needy() {
            let Some(entry) = self.flows.entry(place) else {
                continue;
            };
            let (request, next) = match entry.state {
                State::Unarmed => (receive_request(place, &self.message), State::Armed),
                State::Closing => (cancel_request(place), State::Cancelling),
                State::Free | State::Armed | State::Cancelling | State::Closed => continue,
            };
            // SAFETY: the message header is boxed and lives as long as the ring; a cancellation
            // points to nothing.
            if unsafe { self.ring.push(&request) } {
                entry.state = next;
            } else {
                // The kernel takes nothing now; the next flush tries again.
                self.flows.list(place);
                return;
            }
        }
    }

    /// Cancels every receive.
    fn cancel_all(&mut self) {
        let timeout = Some(Timespec::from(Duration::from_millis(100)));
        // Not found means that nothing is left to cancel; their last completions may be on their way.
        let _ = self
            .ring
            .submitter()
            .register_sync_cancel(timeout, CancelBuilder::any());
    }

    fn submit(&mut self) {
        if self.ring.submit() {
            self.send_buffers.all_consumed();
        }
    }

    /// Takes a place's file out of the ring's table. Sends on it were submitted before.
    fn drop_file(&mut self, place: Place) {
        // Fails for a place out of range only.
        let _ = self.ring.submitter().register_files_update(place.0, &[-1]);
    }
}

impl PacketSink for UringIo {
    fn transmit<F: Into<Filled>>(&mut self, flow: FlowId, fill: impl FnOnce(&mut [u8]) -> F) -> bool {
        let Some(place) = self.flows.place(flow) else {
            self.counters.unknown_flow += 1;
            return false;
        };
        let Some(remote) = self.flows.entry(place).and_then(|entry| entry.remote) else {
            self.counters.no_remote += 1;
            return false;
        };
        if self.send_buffers.queued() >= self.submit_chunk {
            self.submit();
        }
        let Some(buffer) = self.send_buffers.take(&remote) else {
            self.counters.no_send_buffer += 1;
            return false;
        };
        let length = fill(&mut buffer.payload).into().length.min(buffer.payload.len());
        #[expect(clippy::cast_possible_truncation, reason = "at most DATAGRAM_MAX")]
        let request = opcode::Send::new(Fixed(place.0), buffer.payload.as_ptr(), length as u32)
            .flags(libc::MSG_DONTWAIT)
            .dest_addr(buffer.address.as_ptr().cast())
            .dest_addr_len(u32::from(remote.length))
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(Tag::Send.of(place));
        // SAFETY: payload and address lie in a transmit buffer, which is not handed out again before
        // `all_consumed`; a non-blocking send has completed once its request is consumed.
        if unsafe { self.ring.push(&request) } {
            self.counters.sent += 1;
            true
        } else {
            self.send_buffers.untake();
            self.counters.no_send_buffer += 1;
            false
        }
    }

    fn set_remote(&mut self, flow: FlowId, remote: SocketAddr) {
        match self.flows.place(flow).and_then(|place| self.flows.entry(place)) {
            // Every send carries its own copy, so those queued still go to the former address.
            Some(entry) => entry.remote = (!remote.ip().is_unspecified()).then(|| RawAddress::from(remote)),
            None => self.counters.unknown_flow += 1,
        }
    }
}

impl PacketIo for UringIo {
    type Prepared = UringPrepared;

    fn now(&mut self) -> Timestamp {
        self.now = self.clock.now();
        self.now
    }

    fn receive_into(&mut self, budget: u32, intake: &mut impl Intake) -> u32 {
        self.counters.completion_overflow += u64::from(self.ring.collect());
        let mut drain = Drain {
            buffers: &mut self.receive_buffers,
            flows: &mut self.flows,
            counters: &mut self.counters,
            message: &self.message,
            received_at: self.now,
        };
        let mut taken = 0;
        while taken < budget {
            let batch = self.ring.take_batch(budget - taken);
            if batch.is_empty() {
                break;
            }
            for (index, completion) in batch.iter().enumerate() {
                if let Some(later) = batch.get(index + EXPECT_AHEAD)
                    && let (Some(Tag::Receive), place) = Tag::parse(later.user_data())
                    && let Some(entry) = drain.flows.entry(place)
                {
                    intake.expect(entry.local_port);
                }
                taken += u32::from(drain.completed(completion, intake));
            }
        }
        self.receive_buffers.publish();
        taken
    }

    fn open_flow(
        &mut self,
        flow: FlowId,
        local: SocketAddr,
        prepared: UringPrepared,
    ) -> Result<(), UringPrepared> {
        let Some(place) = self.flows.vacancy(flow) else {
            return Err(prepared);
        };
        match self
            .ring
            .submitter()
            .register_files_update(place.0, &[prepared.fd()])
        {
            Ok(1) => {
                self.flows.open(flow, local, prepared);
                Ok(())
            }
            Ok(_) | Err(_) => Err(prepared),
        }
    }

    fn close_flow(&mut self, flow: FlowId) -> Option<UringPrepared> {
        let place = self.flows.close(flow)?;
        if self.flows.entry(place)?.state != State::Unarmed {
            return None;
        }
        // Sends still queued name the place, not the socket.
        self.submit();
        self.drop_file(place);
        self.flows.release(place)
    }

    fn poll_closed(&mut self) -> Option<UringPrepared> {
        let place = self.flows.next_closed()?;
        self.submit();
        self.drop_file(place);
        self.flows.release(place)
    }

    fn flush(&mut self) {
        self.serve_flows();
        self.submit();
    }

    fn wait(&mut self, until: Timestamp) -> bool {
        loop {
            let left = until.since(self.clock.now());
            // A signal, or requests submitted along with the wait, end the sleep early.
            if left.is_zero() || self.ring.sleep(left) {
                return true;
            }
        }
    }

    fn counters(&self) -> IoCounters {
        self.counters
    }

    fn hand_over(&mut self, mut on_datagram: impl FnMut(&Datagram<'_>)) -> Vec<OpenFlow<UringPrepared>> {
        self.submit();
        for round in 0..DROP_ROUNDS {
            self.cancel_all();
            if round > 0 {
                self.ring.sleep(Duration::from_micros(200));
            }
            while self.receive(limits::RECEIVE_BUDGET, &mut on_datagram) > 0 {}
            if self.flows.in_flight() == 0 {
                break;
            }
        }
        self.flows.take_open()
    }
}

impl Drop for UringIo {
    /// Ends every receive, so that no socket or buffer is in use when the memory goes and ports are
    /// free at once instead of when the kernel gets round to it.
    fn drop(&mut self) {
        self.submit();
        for _ in 0..DROP_ROUNDS {
            if self.flows.in_flight() == 0 {
                break;
            }
            self.cancel_all();
            self.ring.sleep(Duration::from_millis(1));
            let flows = &mut self.flows;
            while let Some(completion) = self.ring.next() {
                if let (Some(Tag::Receive), place) = Tag::parse(completion.user_data())
                    && !cqueue::more(completion.flags())
                {
                    flows.receive_ended(place);
                }
            }
        }
    }
}

/// What one burst needs to take completions of receives.
struct Drain<'a> {
    buffers: &'a mut ReceiveBuffers,
    flows: &'a mut Flows,
    counters: &'a mut IoCounters,
    message: &'a libc::msghdr,
    received_at: Timestamp,
}

impl Drain<'_> {
    /// Takes one completion; whether a datagram was handed on.
    fn completed(&mut self, completion: &cqueue::Entry, intake: &mut impl Intake) -> bool {
        let (tag, place) = Tag::parse(completion.user_data());
        match tag {
            Some(Tag::Receive) => return self.received(place, completion, intake),
            Some(Tag::Send) => self.counters.send_failed += u64::from(completion.result() < 0),
            // A cancellation that found nothing: the receive had ended by itself.
            Some(Tag::Cancel) | None => {}
        }
        false
    }

    /// Takes one completion of a receive; whether a datagram was handed on.
    fn received(&mut self, place: Place, completion: &cqueue::Entry, intake: &mut impl Intake) -> bool {
        let flags = completion.flags();
        let mut handed = false;
        if let Some(buffer) = cqueue::buffer_select(flags) {
            if let Ok(length) = usize::try_from(completion.result()) {
                handed = self.hand_on(place, buffer, length, intake);
            }
            self.buffers.give_back(buffer);
        } else if completion.result() == -libc::ENOBUFS {
            self.counters.receive_ring_full += 1;
        } else if completion.result() < 0 && completion.result() != -libc::ECANCELED {
            self.counters.socket_errors += 1;
        }
        if !cqueue::more(flags) && !self.flows.receive_ended(place) {
            self.counters.rearmed += 1;
        }
        handed
    }

    fn hand_on(&mut self, place: Place, buffer: u16, length: usize, intake: &mut impl Intake) -> bool {
        let local_port = match self.flows.entry(place) {
            Some(entry) if matches!(entry.state, State::Armed) => entry.local_port,
            // It is closing: nobody owns the datagram any more.
            Some(_) | None => return false,
        };
        let bytes = self.buffers.filled(buffer, length);
        let Ok(message) = RecvMsgOut::parse(bytes, self.message) else {
            self.counters.truncated += 1;
            return false;
        };
        if message.is_payload_truncated() {
            self.counters.truncated += 1;
            return false;
        }
        let Some(source) = address::parse(message.name_data()) else {
            self.counters.socket_errors += 1;
            return false;
        };
        self.counters.received += 1;
        let received_at = self.received_at;
        intake.take(&Datagram {
            local_port,
            source,
            payload: message.payload_data(),
            received_at,
        });
        true
    }
}

/// What a completion belongs to, in the upper half of its user data; the place is in the lower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tag {
    Receive = 1,
    Send = 2,
    Cancel = 3,
}

impl Tag {
    fn of(self, place: Place) -> u64 {
        (self as u64) << 32 | u64::from(place.0)
    }

    fn parse(user_data: u64) -> (Option<Self>, Place) {
        let tag = match user_data >> 32 {
            1 => Some(Self::Receive),
            2 => Some(Self::Send),
            3 => Some(Self::Cancel),
            _ => None,
        };
        #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
        (tag, Place(user_data as u32))
    }
}

fn receive_request(place: Place, message: &libc::msghdr) -> squeue::Entry {
    opcode::RecvMsgMulti::new(Fixed(place.0), message, GROUP)
        .build()
        .user_data(Tag::Receive.of(place))
}

fn cancel_request(place: Place) -> squeue::Entry {
    opcode::AsyncCancel::new(Tag::Receive.of(place))
        .build()
        .flags(squeue::Flags::SKIP_SUCCESS)
        .user_data(Tag::Cancel.of(place))
}

/// Raises the soft limit of open files to `wanted`, as far as the hard limit allows.
///
/// # Errors
/// What the kernel says.
pub fn raise_open_files(wanted: u64) -> io::Result<()> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is to a live structure of the right type.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if limit.rlim_cur >= wanted {
        return Ok(());
    }
    limit.rlim_cur = wanted.min(limit.rlim_max);
    // SAFETY: as above.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Lets this thread's sleeps end when they should instead of up to 50 us later.
fn sharpen_timers() {
    // SAFETY: takes no pointer. A failure costs punctuality only.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1, 0, 0, 0) };
}

/// Completions between the one that is worked on and the one whose datagram is announced.
const EXPECT_AHEAD: usize = 3;
/// The one group of provided buffers.
const GROUP: u16 = 0;
const DROP_ROUNDS: u32 = 50;
