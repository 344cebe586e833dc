//! The four rings between an AF_XDP socket and the kernel, seen from either side.
//!
//! A ring is two free-running 32-bit indices and a power of two of cells in shared memory (kernel:
//! `Documentation/networking/af_xdp.rst`). The producer fills cells, then moves its index; the
//! consumer reads cells, then moves its own. The same code works on the kernel's memory and on plain
//! memory, where a test plays the kernel.

use std::io;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::memory::Mapping;

/// What a cell of the receive and transmit rings holds (`struct xdp_desc`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Descriptor {
    /// Offset of the frame in the packet memory.
    pub(super) address: u64,
    /// Bytes of the frame.
    pub(super) length: u32,
    /// Options; 0.
    pub(super) options: u32,
}

/// Something that may lie in shared memory: any bit pattern is a value.
pub(super) trait Cell: Copy {}
impl Cell for u64 {}
impl Cell for Descriptor {}

/// Where the parts of a ring lie in its memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub(super) producer: usize,
    pub(super) consumer: usize,
    pub(super) flags: usize,
    pub(super) cells: usize,
}

impl Layout {
    /// For memory of our own: each index on a cache line, then the cells.
    pub(super) const PLAIN: Self = Self {
        producer: 0,
        consumer: 64,
        flags: 128,
        cells: 192,
    };
}

/// One ring in memory.
#[derive(Debug)]
struct Shared<T> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    cells: NonNull<T>,
    size: u32,
    /// Keeps the memory mapped.
    _memory: Arc<Mapping>,
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self {
            _memory: Arc::clone(&self._memory),
            ..*self
        }
    }
}

impl<T: Cell> Shared<T> {
    /// A ring of `size` cells, a power of two, laid out as `layout` says.
    fn new(memory: Arc<Mapping>, layout: Layout, size: u32) -> io::Result<Self> {
        let cells = size as usize * size_of::<T>();
        let inside = |offset, size| memory.at(offset, size).ok_or(io::ErrorKind::InvalidData);
        let index = |offset| inside(offset, size_of::<AtomicU32>()).map(NonNull::cast::<AtomicU32>);
        let (producer, consumer) = (index(layout.producer)?, index(layout.consumer)?);
        let (flags, cells) = (index(layout.flags)?, inside(layout.cells, cells)?.cast::<T>());
        let aligned =
            producer.is_aligned() && consumer.is_aligned() && flags.is_aligned() && cells.is_aligned();
        if !size.is_power_of_two() || !aligned {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(Self {
            producer,
            consumer,
            flags,
            cells,
            size,
            _memory: memory,
        })
    }

    fn producer(&self) -> &AtomicU32 {
        // SAFETY: aligned, inside of the mapping, and only ever accessed atomically by either side.
        unsafe { self.producer.as_ref() }
    }

    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as above.
        unsafe { self.consumer.as_ref() }
    }

    fn flags(&self) -> &AtomicU32 {
        // SAFETY: as above.
        unsafe { self.flags.as_ref() }
    }

    fn cell(&self, index: u32) -> NonNull<T> {
        // SAFETY: masked by the size, so inside of the cells.
        unsafe { self.cells.add((index & (self.size - 1)) as usize) }
    }
}

/// The filling end.
#[derive(Debug)]
pub(super) struct Producer<T> {
    ring: Shared<T>,
    /// The next cell to fill; what the other side sees after [`Producer::publish`].
    next: u32,
    /// The other side's index as last read.
    consumed: u32,
    mark: PhantomData<*mut T>,
}

// SAFETY: one end belongs to one thread at a time; the memory behind it is shared by design.
unsafe impl<T: Cell> Send for Producer<T> {}

impl<T: Cell> Producer<T> {
    fn new(ring: Shared<T>) -> Self {
        let next = ring.producer().load(Ordering::Relaxed);
        let consumed = ring.consumer().load(Ordering::Acquire);
        Self {
            ring,
            next,
            consumed,
            mark: PhantomData,
        }
    }

    /// Puts `value` into the next cell; false when the ring is full. Nobody sees it before
    /// [`Producer::publish`].
    #[inline]
    pub(super) fn push(&mut self, value: T) -> bool {
        if self.next.wrapping_sub(self.consumed) >= self.ring.size {
            self.consumed = self.ring.consumer().load(Ordering::Acquire);
            if self.next.wrapping_sub(self.consumed) >= self.ring.size {
                return false;
            }
        }
        // SAFETY: the cell lies between the consumer's and our index: it is ours until published.
        unsafe { self.ring.cell(self.next).write(value) };
        self.next = self.next.wrapping_add(1);
        true
    }

    /// Shows the other side what was pushed.
    #[inline]
    pub(super) fn publish(&mut self) {
        self.ring.producer().store(self.next, Ordering::Release);
    }

    /// Cells that the other side has not taken, the unpublished ones included.
    pub(super) fn waiting(&mut self) -> u32 {
        self.consumed = self.ring.consumer().load(Ordering::Acquire);
        self.next.wrapping_sub(self.consumed)
    }

    /// Whether the kernel asks for a system call to go on.
    pub(super) fn needs_wakeup(&self) -> bool {
        self.ring.flags().load(Ordering::Relaxed) & NEED_WAKEUP != 0
    }
}

/// The emptying end.
#[derive(Debug)]
pub(super) struct Consumer<T> {
    ring: Shared<T>,
    /// The next cell to read.
    next: u32,
    /// The other side's index as last read.
    produced: u32,
    mark: PhantomData<*mut T>,
}

// SAFETY: as for the filling end.
unsafe impl<T: Cell> Send for Consumer<T> {}

impl<T: Cell> Consumer<T> {
    fn new(ring: Shared<T>) -> Self {
        let next = ring.consumer().load(Ordering::Relaxed);
        let produced = ring.producer().load(Ordering::Acquire);
        Self {
            ring,
            next,
            produced,
            mark: PhantomData,
        }
    }

    /// Takes the next value; its cell stays taken until [`Consumer::release`].
    #[inline]
    pub(super) fn pop(&mut self) -> Option<T> {
        if self.next == self.produced {
            self.produced = self.ring.producer().load(Ordering::Acquire);
            if self.next == self.produced {
                return None;
            }
        }
        // SAFETY: the cell lies between our and the producer's index: written, and ours to read.
        let value = unsafe { self.ring.cell(self.next).read() };
        self.next = self.next.wrapping_add(1);
        Some(value)
    }

    /// The value that is popped `ahead` values after the next one, as far as it is known already.
    #[inline]
    pub(super) fn peek(&self, ahead: u32) -> Option<T> {
        let index = self.next.wrapping_add(ahead);
        if self.produced.wrapping_sub(self.next) <= ahead {
            return None;
        }
        // SAFETY: as in `pop`.
        Some(unsafe { self.ring.cell(index).read() })
    }

    /// Values that could be popped now.
    pub(super) fn available(&mut self) -> u32 {
        self.produced = self.ring.producer().load(Ordering::Acquire);
        self.produced.wrapping_sub(self.next)
    }

    /// Gives the cells of everything popped back to the producer.
    #[inline]
    pub(super) fn release(&mut self) {
        self.ring.consumer().store(self.next, Ordering::Release);
    }
}

/// The filling end of a ring in `memory`.
pub(super) fn producer<T: Cell>(memory: Arc<Mapping>, layout: Layout, size: u32) -> io::Result<Producer<T>> {
    Shared::new(memory, layout, size).map(Producer::new)
}

/// The emptying end of a ring in `memory`.
pub(super) fn consumer<T: Cell>(memory: Arc<Mapping>, layout: Layout, size: u32) -> io::Result<Consumer<T>> {
    Shared::new(memory, layout, size).map(Consumer::new)
}

/// Both ends of a ring in memory of our own.
pub(super) fn plain<T: Cell>(size: u32) -> io::Result<(Producer<T>, Consumer<T>)> {
    let length = Layout::PLAIN.cells + size as usize * size_of::<T>();
    let ring = Shared::new(Arc::new(Mapping::fresh(length)?), Layout::PLAIN, size)?;
    Ok((Producer::new(ring.clone()), Consumer::new(ring)))
}

/// `XDP_RING_NEED_WAKEUP`.
const NEED_WAKEUP: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_is_seen_before_it_is_published_and_no_cell_is_free_before_it_is_released() {
        let (mut producer, mut consumer) = plain::<u64>(4).unwrap();
        assert!((0..4).all(|value| producer.push(value)));
        assert!(!producer.push(4), "full");
        assert_eq!(consumer.pop(), None);
        producer.publish();
        assert_eq!(consumer.pop(), Some(0));
        assert!(!producer.push(4), "taken, not released");
        let ahead = |ahead| consumer.peek(ahead);
        assert_eq!([0, 2, 3].map(ahead), [Some(1), Some(3), None]);
        consumer.release();
        assert!(producer.push(4));
        assert_eq!(producer.waiting(), 4);
        producer.publish();
        assert_eq!(
            std::iter::from_fn(|| consumer.pop()).collect::<Vec<_>>(),
            [1, 2, 3, 4]
        );
        consumer.release();
        assert_eq!(producer.waiting(), 0);
    }

    #[test]
    fn indices_wrap_and_a_second_mapping_goes_on_where_the_first_was() {
        let memory = Arc::new(Mapping::fresh(4_096).unwrap());
        let ring = Shared::<u64>::new(Arc::clone(&memory), Layout::PLAIN, 8).unwrap();
        ring.producer().store(u32::MAX - 2, Ordering::Relaxed);
        ring.consumer().store(u32::MAX - 2, Ordering::Relaxed);
        let (mut producer, mut consumer) = (Producer::new(ring.clone()), Consumer::new(ring));
        for value in 0..6 {
            assert!(producer.push(value));
        }
        producer.publish();
        assert_eq!(consumer.pop(), Some(0));
        consumer.release();
        drop((producer, consumer));
        let mut producer = self::producer::<u64>(Arc::clone(&memory), Layout::PLAIN, 8).unwrap();
        let mut consumer = self::consumer::<u64>(memory, Layout::PLAIN, 8).unwrap();
        assert!(producer.push(6));
        producer.publish();
        assert_eq!(
            std::iter::from_fn(|| consumer.pop()).collect::<Vec<_>>(),
            [1, 2, 3, 4, 5, 6]
        );
    }

    #[test]
    fn a_layout_outside_of_the_memory_is_refused() {
        let memory = Arc::new(Mapping::fresh(4_096).unwrap());
        assert!(producer::<u64>(Arc::clone(&memory), Layout::PLAIN, 512).is_err());
        assert!(producer::<u64>(Arc::clone(&memory), Layout::PLAIN, 12).is_err());
        let crooked = Layout {
            cells: 193,
            ..Layout::PLAIN
        };
        assert!(producer::<u64>(memory, crooked, 8).is_err());
    }

    proptest! {
        #[test]
        fn a_ring_is_a_queue(steps in prop::collection::vec((0u8..4, 1u8..9), 1..200)) {
            let (mut producer, mut consumer) = plain::<u64>(16).unwrap();
            let (mut pushed, mut published, mut popped, mut released) = (0u64, 0u64, 0u64, 0u64);
            for (step, count) in steps {
                match step {
                    0 => for _ in 0..count {
                        let room = pushed - released < 16;
                        prop_assert_eq!(producer.push(pushed), room);
                        pushed += u64::from(room);
                    },
                    1 => { producer.publish(); published = pushed; }
                    2 => for _ in 0..count {
                        let expected = (popped < published).then_some(popped);
                        prop_assert_eq!(consumer.pop(), expected);
                        popped += u64::from(expected.is_some());
                    },
                    _ => { consumer.release(); released = popped; }
                }
            }
        }
    }

    #[test]
    fn two_threads_lose_and_invent_nothing() {
        let (mut producer, mut consumer) = plain::<u64>(64).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut value = 0;
                while value < 100_000 {
                    if producer.push(value) {
                        value += 1;
                    }
                    producer.publish();
                }
            });
            let mut expected = 0;
            while expected < 100_000 {
                if let Some(value) = consumer.pop() {
                    assert_eq!(value, expected);
                    expected += 1;
                }
                consumer.release();
            }
        });
    }
}
