//! AF_XDP sockets: the system calls around one of them, and nothing of what goes through it.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::memory::Mapping;
use super::rings::{self, Cell, Consumer, Descriptor, Layout, Producer};

/// One queue of one interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueId {
    /// Index of the interface.
    pub interface: u32,
    /// Number of its queue.
    pub queue: u32,
}

/// How frames get from the device to the socket and back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CopyMode {
    /// The device reads and writes packet memory itself.
    ZeroCopy,
    /// The kernel copies.
    Copy,
}

/// What a socket counts about itself (`struct xdp_statistics`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SocketStatistics {
    /// Frames that found no chunk in the fill ring, or were too long for one.
    pub receive_dropped: u64,
    /// Frames that found the receive ring full.
    pub receive_ring_full: u64,
    /// Times the kernel found the fill ring empty.
    pub fill_ring_empty: u64,
    /// Descriptors we gave that the kernel refused, both ways.
    pub invalid: u64,
}

/// An AF_XDP socket, bound or about to be.
#[derive(Debug)]
pub struct XskSocket {
    fd: OwnedFd,
}

/// The rings of a socket. A ring that was not asked for is absent.
#[derive(Debug)]
pub(super) struct SocketRings {
    pub(super) receive: Option<Consumer<Descriptor>>,
    pub(super) fill: Producer<u64>,
    pub(super) transmit: Producer<Descriptor>,
    pub(super) completion: Consumer<u64>,
}

/// What became of a wake-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kick {
    /// The kernel has taken what it could.
    Taken,
    /// Nothing now; a later call may do better.
    Busy,
    /// The interface is down or gone.
    Down,
}

impl XskSocket {
    /// A fresh socket. Needs `CAP_NET_RAW`.
    pub(super) fn open() -> io::Result<Self> {
        // SAFETY: takes no pointer; the descriptor that comes back is ours alone.
        let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just opened.
        Ok(Self::inherited(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// A socket that this process's former program opened and bound.
    pub(in crate::io::xdp) fn inherited(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Registers packet memory and sets the sizes of the rings (powers of two).
    pub(super) fn set_up(&self, memory: &Mapping, chunk: u32, receive: u32, transmit: u32) -> io::Result<()> {
        let address = memory.at(0, memory.length()).ok_or(io::ErrorKind::InvalidInput)?;
        let registration = libc::xdp_umem_reg {
            addr: address.as_ptr().addr() as u64,
            len: memory.length() as u64,
            chunk_size: chunk,
            headroom: 0,
            flags: 0,
            tx_metadata_len: 0,
        };
        self.set(libc::XDP_UMEM_REG, &registration)?;
        self.set(libc::XDP_UMEM_FILL_RING, &receive.max(1))?;
        self.set(libc::XDP_UMEM_COMPLETION_RING, &transmit)?;
        if receive > 0 {
            self.set(libc::XDP_RX_RING, &receive)?;
        }
        self.set(libc::XDP_TX_RING, &transmit)?;
        // Before Linux 6.17 the kernel knows only its default of 32 frames a call.
        let _ = self.set(XDP_MAX_TX_SKB_BUDGET, &TRANSMIT_BUDGET.min(transmit));
        self.allow_in_flight(transmit);
        Ok(())
    }

    /// In copy mode frames on their way count against the send buffer.
    fn allow_in_flight(&self, frames: u32) {
        let bytes = frames.saturating_mul(SKB_BYTES).min(i32::MAX.unsigned_abs());
        // Forcing needs CAP_NET_ADMIN; without it the system's limit holds, and fewer frames a call leave.
        let _ = self.set_at(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &bytes);
    }

    /// Maps the rings that [`XskSocket::set_up`] made.
    pub(super) fn map(&self, receive: u32, transmit: u32) -> io::Result<SocketRings> {
        let offsets = self.offsets()?;
        let transmit_page = libc::XDP_PGOFF_TX_RING;
        let fill_page = libc::XDP_UMEM_PGOFF_FILL_RING.cast_signed();
        let completion_page = libc::XDP_UMEM_PGOFF_COMPLETION_RING.cast_signed();
        let received = |size| self.consumer(&offsets.rx, size, libc::XDP_PGOFF_RX_RING);
        Ok(SocketRings {
            receive: (receive > 0).then(|| received(receive)).transpose()?,
            fill: self.producer(&offsets.fr, receive.max(1), fill_page)?,
            transmit: self.producer(&offsets.tx, transmit, transmit_page)?,
            completion: self.consumer(&offsets.cr, transmit, completion_page)?,
        })
    }

    fn ring<T: Cell>(
        &self,
        at: &libc::xdp_ring_offset,
        size: u32,
        page: i64,
    ) -> io::Result<(Arc<Mapping>, Layout)> {
        let offset = |value: u64| usize::try_from(value).map_err(|_| io::ErrorKind::InvalidData);
        let layout = Layout {
            producer: offset(at.producer)?,
            consumer: offset(at.consumer)?,
            flags: offset(at.flags)?,
            cells: offset(at.desc)?,
        };
        let length = layout.cells + size as usize * size_of::<T>();
        Ok((Arc::new(Mapping::of(self.fd.as_raw_fd(), length, page)?), layout))
    }

    fn producer<T: Cell>(&self, at: &libc::xdp_ring_offset, size: u32, page: i64) -> io::Result<Producer<T>> {
        let (memory, layout) = self.ring::<T>(at, size, page)?;
        rings::producer(memory, layout, size)
    }

    fn consumer<T: Cell>(&self, at: &libc::xdp_ring_offset, size: u32, page: i64) -> io::Result<Consumer<T>> {
        let (memory, layout) = self.ring::<T>(at, size, page)?;
        rings::consumer(memory, layout, size)
    }

    /// Binds to a queue. A queue whose former owner has just died is busy for some milliseconds:
    /// tries again for up to a second. Blocks the caller.
    ///
    /// Zero-copy is asked for first when `zero_copy` allows it.
    pub(super) fn bind(&self, queue: QueueId, zero_copy: bool) -> io::Result<CopyMode> {
        if zero_copy {
            match self.bind_patiently(queue, libc::XDP_ZEROCOPY) {
                Ok(()) => return Ok(CopyMode::ZeroCopy),
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => return Err(error),
                Err(error) => tracing::info!(queue = queue.queue, %error, "AF_XDP zero-copy: not offered"),
            }
        }
        self.bind_patiently(queue, libc::XDP_COPY)?;
        Ok(CopyMode::Copy)
    }

    fn bind_patiently(&self, queue: QueueId, mode: u16) -> io::Result<()> {
        let mut left = BIND_TRIES;
        loop {
            match self.bind_once(queue, mode | libc::XDP_USE_NEED_WAKEUP) {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) && left > 0 => {
                    left -= 1;
                    pause_thread(BIND_PAUSE);
                }
                result => return result,
            }
        }
    }

    fn bind_once(&self, queue: QueueId, flags: u16) -> io::Result<()> {
        let address = libc::sockaddr_xdp {
            sxdp_family: AF_XDP,
            sxdp_flags: flags,
            sxdp_ifindex: queue.interface,
            sxdp_queue_id: queue.queue,
            sxdp_shared_umem_fd: 0,
        };
        // SAFETY: pointer and length are of a live address.
        let bound = unsafe {
            libc::bind(
                self.fd.as_raw_fd(),
                (&raw const address).cast(),
                length_of::<libc::sockaddr_xdp>(),
            )
        };
        if bound == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    /// Tells the kernel that the transmit ring holds something.
    pub(super) fn kick_transmit(&self) -> Kick {
        // SAFETY: no data and no address are passed.
        let sent = unsafe {
            libc::sendto(
                self.fd.as_raw_fd(),
                std::ptr::null(),
                0,
                libc::MSG_DONTWAIT,
                std::ptr::null(),
                0,
            )
        };
        Self::kicked(sent)
    }

    /// Tells the kernel that the fill ring holds something again.
    pub(super) fn kick_receive(&self) -> Kick {
        // SAFETY: no data and no address are passed.
        let received = unsafe {
            libc::recvfrom(
                self.fd.as_raw_fd(),
                std::ptr::null_mut(),
                0,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
            )
        };
        Self::kicked(received)
    }

    fn kicked(result: isize) -> Kick {
        if result >= 0 {
            return Kick::Taken;
        }
        match io::Error::last_os_error().raw_os_error() {
            Some(libc::ENETDOWN | libc::ENXIO | libc::ENODEV | libc::ENOTCONN) => Kick::Down,
            _ => Kick::Busy,
        }
    }

    /// What the kernel counted for this socket.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn statistics(&self) -> io::Result<SocketStatistics> {
        let mut raw = libc::xdp_statistics {
            rx_dropped: 0,
            rx_invalid_descs: 0,
            tx_invalid_descs: 0,
            rx_ring_full: 0,
            rx_fill_ring_empty_descs: 0,
            tx_ring_empty_descs: 0,
        };
        get(self.fd.as_fd(), libc::XDP_STATISTICS, &mut raw)?;
        Ok(SocketStatistics {
            receive_dropped: raw.rx_dropped,
            receive_ring_full: raw.rx_ring_full,
            fill_ring_empty: raw.rx_fill_ring_empty_descs,
            invalid: raw.rx_invalid_descs + raw.tx_invalid_descs,
        })
    }

    fn offsets(&self) -> io::Result<libc::xdp_mmap_offsets> {
        let nothing = libc::xdp_ring_offset {
            producer: 0,
            consumer: 0,
            desc: 0,
            flags: 0,
        };
        let mut offsets = libc::xdp_mmap_offsets {
            rx: nothing,
            tx: nothing,
            fr: nothing,
            cr: nothing,
        };
        get(self.fd.as_fd(), libc::XDP_MMAP_OFFSETS, &mut offsets)?;
        Ok(offsets)
    }

    fn set<T>(&self, option: libc::c_int, value: &T) -> io::Result<()> {
        self.set_at(libc::SOL_XDP, option, value)
    }

    fn set_at<T>(&self, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
        // SAFETY: pointer and length are of a live value.
        let set = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                level,
                option,
                std::ptr::from_ref(value).cast(),
                length_of::<T>(),
            )
        };
        if set == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}

impl AsFd for XskSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn get<T>(fd: BorrowedFd<'_>, option: libc::c_int, value: &mut T) -> io::Result<()> {
    let mut length = length_of::<T>();
    // SAFETY: pointer and length are of a live value, every bit pattern of which is valid.
    let got = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_XDP,
            option,
            std::ptr::from_mut(value).cast(),
            &raw mut length,
        )
    };
    if got == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[expect(clippy::cast_possible_truncation, reason = "sizes of a few bytes")]
const fn length_of<T>() -> libc::socklen_t {
    size_of::<T>() as libc::socklen_t
}

#[expect(
    clippy::disallowed_methods,
    reason = "control's thread waits for a queue at start; no packet waits for it"
)]
fn pause_thread(pause: Duration) {
    std::thread::sleep(pause);
}

#[expect(clippy::cast_possible_truncation, reason = "the family is 44")]
const AF_XDP: u16 = libc::AF_XDP as u16;
/// `XDP_MAX_TX_SKB_BUDGET`: frames one call may send in copy mode.
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;
const TRANSMIT_BUDGET: u32 = 1_024;
/// What a small frame costs the send buffer in copy mode.
const SKB_BYTES: u32 = 2_304;
const BIND_TRIES: u32 = 500;
const BIND_PAUSE: Duration = Duration::from_millis(2);
