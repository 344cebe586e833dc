//! Memory shared with the kernel: provided receive buffers and transmit buffers.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

use super::address::{ADDRESS_MAX, RawAddress};
use crate::limits::DATAGRAM_MAX;

const PAGE: usize = 4096;

/// Zeroed, page-aligned memory at a fixed address, all of it present from the start: a page fault
/// has no place in a turn.
#[derive(Debug)]
struct Pages {
    start: NonNull<u8>,
    layout: Layout,
}

impl Pages {
    fn new(length: usize) -> io::Result<Self> {
        let layout = Layout::from_size_align(length.max(1), PAGE).map_err(io::Error::other)?;
        // SAFETY: the layout has a non-zero size.
        let start = unsafe { alloc_zeroed(layout) };
        let start = NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout));
        for page in (0..layout.size()).step_by(PAGE) {
            // SAFETY: `page` is below the length of the allocation, which nobody else knows yet.
            unsafe { start.add(page).write_volatile(0) };
        }
        Ok(Self { start, layout })
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout and freed nowhere else.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}

/// A ring of receive buffers provided to the kernel. The kernel takes them in the order given; the
/// worker gives each back as soon as its datagram is read.
#[derive(Debug)]
pub(super) struct ReceiveBuffers {
    ring: Pages,
    memory: Pages,
    count: u16,
    size: u32,
    /// Next place in the ring, published up to here.
    tail: u16,
}

impl ReceiveBuffers {
    /// `count` buffers (a power of two) of `size` bytes each, not yet known to the kernel.
    pub(super) fn new(count: u16, size: u32) -> io::Result<Self> {
        assert!(count.is_power_of_two(), "{count} receive buffers");
        let ring = Pages::new(usize::from(count) * size_of::<BufRingEntry>())?;
        let memory = Pages::new(usize::from(count) * size as usize)?;
        Ok(Self {
            ring,
            memory,
            count,
            size,
            tail: 0,
        })
    }

    /// Gives the ring to the kernel as buffer group `group` and fills it.
    ///
    /// # Safety
    /// `self` must not be dropped before the io_uring instance behind `submitter`, nor before its
    /// last receive has ended.
    pub(super) unsafe fn register(&mut self, submitter: &Submitter<'_>, group: u16) -> io::Result<()> {
        let ring = self.ring.start.as_ptr() as u64;
        // SAFETY: the ring is page-aligned, has `count` entries, and lives long enough by this
        // function's own contract.
        unsafe { submitter.register_buf_ring_with_flags(ring, self.count, group, 0)? };
        for buffer in 0..self.count {
            self.give_back(buffer);
        }
        self.publish();
        Ok(())
    }

    /// The bytes of a buffer the kernel has filled up to `length`; empty for a number out of range.
    pub(super) fn filled(&self, buffer: u16, length: usize) -> &[u8] {
        if buffer >= self.count {
            return &[];
        }
        let at = usize::from(buffer) * self.size as usize;
        // SAFETY: `buffer` is below `count`, so the range lies in `memory`; all of it was
        // initialised at allocation. The kernel does not write into a buffer between the completion
        // that names it and `publish` after `give_back`, and both need `&mut self`.
        unsafe {
            std::slice::from_raw_parts(self.memory.start.as_ptr().add(at), length.min(self.size as usize))
        }
    }

    /// Puts a buffer back at the end of the ring; the kernel sees it after [`Self::publish`].
    pub(super) fn give_back(&mut self, buffer: u16) {
        if buffer >= self.count {
            return;
        }
        let place = usize::from(self.tail & (self.count - 1));
        let address = self.memory.start.as_ptr() as u64 + u64::from(buffer) * u64::from(self.size);
        // SAFETY: `place` is below `count`, so the entry lies in `ring`. The kernel reads entries
        // below the published tail only, and this one is beyond it: at most `count` buffers exist.
        // The tail overlays the first entry's reserved field, which none of these setters touches.
        let entry = unsafe { &mut *self.ring.start.as_ptr().cast::<BufRingEntry>().add(place) };
        entry.set_addr(address);
        entry.set_len(self.size);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the kernel every buffer given back so far.
    pub(super) fn publish(&mut self) {
        // SAFETY: the ring starts with its first, initialised entry, and is page-aligned.
        let tail = unsafe { BufRingEntry::tail(self.ring.start.as_ptr().cast::<BufRingEntry>()) };
        // SAFETY: the tail is a 16-bit field, aligned in its entry; the kernel only reads it, the
        // worker is its only writer, and both do so atomically.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

/// One transmit buffer: where to, and what.
#[derive(Debug, Clone)]
#[repr(C, align(64))]
pub(super) struct SendBuffer {
    pub(super) address: [u8; ADDRESS_MAX],
    pub(super) payload: [u8; DATAGRAM_MAX],
}

/// Transmit buffers, used in turn.
///
/// A buffer belongs to the kernel from the moment its request is queued until the system call that
/// consumes the request returns: `MSG_DONTWAIT` makes the kernel finish the send within that call
/// (it copies the payload into a packet or fails with `EAGAIN`; it never parks the request), and
/// requests are consumed in order. As the buffers are used in turn, one is touched again only after
/// nearly all others were, which in service is ticks later.
#[derive(Debug)]
pub(super) struct SendBuffers {
    buffers: Box<[SendBuffer]>,
    next: usize,
    /// Buffers whose request the kernel may not have consumed yet.
    queued: usize,
}

impl SendBuffers {
    pub(super) fn new(count: u32) -> Self {
        let empty = SendBuffer {
            address: [0; ADDRESS_MAX],
            payload: [0; DATAGRAM_MAX],
        };
        Self {
            buffers: vec![empty; count as usize].into_boxed_slice(),
            next: 0,
            queued: 0,
        }
    }

    /// Buffers whose request is not known to be consumed.
    pub(super) fn queued(&self) -> usize {
        self.queued
    }

    /// The next buffer, with its address set; `None` while the kernel may still read it.
    pub(super) fn take(&mut self, to: &RawAddress) -> Option<&mut SendBuffer> {
        if self.queued == self.buffers.len() {
            return None;
        }
        let count = self.buffers.len();
        let buffer = &mut self.buffers[self.next];
        self.next = (self.next + 1) % count;
        self.queued += 1;
        buffer.address = to.bytes;
        Some(buffer)
    }

    /// Takes the last buffer back: its request was not queued.
    pub(super) fn untake(&mut self) {
        assert!(self.queued > 0);
        self.queued -= 1;
        self.next = self.next.checked_sub(1).unwrap_or(self.buffers.len() - 1);
    }

    /// The kernel has consumed every queued request.
    pub(super) fn all_consumed(&mut self) {
        self.queued = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn send_buffers_run_out_until_consumed_and_go_round() {
        let to = RawAddress::from("127.0.0.1:9".parse::<std::net::SocketAddr>().unwrap());
        let mut buffers = SendBuffers::new(3);
        let first = std::ptr::from_ref(buffers.take(&to).unwrap());
        assert!(buffers.take(&to).is_some() && buffers.take(&to).is_some());
        assert!(buffers.take(&to).is_none());
        buffers.all_consumed();
        assert_eq!(std::ptr::from_ref(buffers.take(&to).unwrap()), first);
        buffers.untake();
        assert_eq!((buffers.queued(), buffers.next), (0, 0));
    }

    #[test]
    fn a_buffer_number_out_of_range_is_empty() {
        let mut buffers = ReceiveBuffers::new(4, 64).unwrap();
        assert_eq!(buffers.filled(3, 100).len(), 64);
        assert!(buffers.filled(4, 10).is_empty());
        buffers.give_back(4);
        assert_eq!(buffers.tail, 0);
    }
}
