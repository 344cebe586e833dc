//! One queue: packet memory, four rings and the socket between them.
//!
//! Packet memory is cut into chunks. The first ones belong to receiving and are in the fill ring, in
//! the receive ring, with the kernel or in reserve; the others belong to transmitting and are in the free list,
//! in the transmit ring, with the kernel or in the completion ring. A chunk never changes sides, so
//! that a burst of either kind cannot starve the other.

mod memory;
mod rings;
pub mod socket;
mod stock;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use self::memory::{Mapping, memory_file};
use self::rings::{Consumer, Descriptor, Producer};
use self::socket::{CopyMode, Kick, QueueId, SocketRings, XskSocket};
use self::stock::Stock;
use crate::io::cache;

/// How many chunks a queue has. Both are powers of two; `receive` may be 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueSizes {
    /// Chunks for received frames.
    pub receive: u32,
    /// Chunks for frames to transmit.
    pub transmit: u32,
}

/// Counters of one queue since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueCounters {
    /// Frames taken from the receive ring.
    pub received: u64,
    /// Descriptors from the kernel that made no sense.
    pub nonsense: u64,
    /// Frames not sent because the interface was down.
    pub down: u64,
}

/// One queue. Belongs to one worker.
#[derive(Debug)]
pub struct XskQueue {
    // Dropped in this order: a queue stays bound while any of its rings is mapped.
    receive: Option<Consumer<Descriptor>>,
    fill: Producer<u64>,
    transmit: Producer<Descriptor>,
    completion: Consumer<u64>,
    memory: Arc<Mapping>,
    /// Absent when a test plays the kernel.
    socket: Option<Arc<XskSocket>>,
    sizes: QueueSizes,
    stock: Stock,
    /// Transmit chunks in nobody's hands.
    free: Vec<u32>,
    /// Frames pushed since the last kick.
    queued: u32,
    down: bool,
    counters: QueueCounters,
    shared: Arc<QueueShared>,
}

/// What a queue shares with whoever looks after its socket.
#[derive(Debug, Default)]
pub struct QueueShared {
    /// Frames received, to be compared with what the program redirected.
    pub(super) arrived: AtomicU64,
    /// Transmit chunks in nobody's hands, once the queue has ended.
    pub(super) rest: Mutex<Vec<u32>>,
}

/// A queue with what its process must keep to hand it on.
#[derive(Debug)]
pub struct OpenQueue {
    /// It.
    pub queue: XskQueue,
    /// Its socket, for statistics and for the map of the program.
    pub socket: Arc<XskSocket>,
    /// The file of its packet memory.
    pub memory: OwnedFd,
    /// How its frames travel.
    pub mode: CopyMode,
    /// What the queue shares with it.
    pub shared: Arc<QueueShared>,
}

/// Frames that come after one: each is met twice here before it is handed on itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ahead<'a> {
    /// One that comes some later.
    pub(super) later: Option<&'a [u8]>,
    /// One that comes a few later.
    pub(super) soon: Option<&'a [u8]>,
}

/// A chunk to write a frame into, on its way to the transmit ring.
#[derive(Debug)]
pub struct TransmitChunk(u32);

impl XskQueue {
    /// Opens a socket on a queue of an interface. Blocks for up to a second while the queue is
    /// still held by a process that has just died.
    ///
    /// # Errors
    /// What the kernel says: `EPERM` without `CAP_NET_RAW`, `ENOBUFS` for the locked-memory limit,
    /// `EINVAL` when there is no such queue, `EBUSY` when somebody else has it.
    pub fn open(at: QueueId, sizes: QueueSizes, zero_copy: bool) -> io::Result<OpenQueue> {
        let (file, memory) = memory_file(sizes.bytes())?;
        let memory = Arc::new(memory);
        let socket = XskSocket::open()?;
        socket.set_up(&memory, CHUNK, sizes.receive, sizes.transmit)?;
        let mapped = socket.map(sizes.receive, sizes.transmit)?;
        let mut queue = Self::over(mapped, memory, sizes);
        queue.fill_up();
        let mode = socket.bind(at, zero_copy)?;
        let socket = Arc::new(socket);
        queue.socket = Some(Arc::clone(&socket));
        Ok(OpenQueue {
            shared: Arc::clone(&queue.shared),
            queue,
            socket,
            memory: file,
            mode,
        })
    }

    /// A queue that the program before this one had in service: its socket, its packet memory, the
    /// transmit chunks that were in nobody's hands, and how many frames it had received.
    ///
    /// # Errors
    /// What the kernel says, or sizes that do not fit.
    pub fn inherit(
        socket: Arc<XskSocket>,
        memory: OwnedFd,
        sizes: QueueSizes,
        free: Vec<u32>,
        arrived: u64,
        mode: CopyMode,
    ) -> io::Result<OpenQueue> {
        let pages = Arc::new(Mapping::of_present(memory.as_raw_fd(), sizes.bytes())?);
        let mapped = socket.map(sizes.receive, sizes.transmit)?;
        let chunks = sizes.transmit_chunks();
        if free.len() > sizes.transmit as usize || !free.iter().all(|chunk| chunks.contains(chunk)) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut queue = Self::over(mapped, pages, sizes);
        queue.free.clear();
        queue.free.extend(free);
        queue.socket = Some(Arc::clone(&socket));
        queue.shared.arrived.store(arrived, Ordering::Relaxed);
        Ok(OpenQueue {
            shared: Arc::clone(&queue.shared),
            queue,
            socket,
            memory,
            mode,
        })
    }

    /// Ends the queue for this program: what was committed leaves, and the free chunks are told to
    /// whoever looks after the socket. The rings stay as they are.
    pub(super) fn end(&mut self) {
        while let Some(chunk) = self.stock.take_any() {
            self.fill.push(u64::from(chunk) * u64::from(CHUNK));
        }
        self.fill.publish();
        self.flush();
        *self.shared.rest.lock().unwrap_or_else(PoisonError::into_inner) = std::mem::take(&mut self.free);
    }

    /// A queue on memory of our own, and the kernel's ends of it, for whoever plays the kernel.
    ///
    /// # Errors
    /// No memory, or sizes that are no powers of two.
    pub fn plain(sizes: QueueSizes) -> io::Result<(Self, PlayedKernel)> {
        let memory = Arc::new(Mapping::fresh(sizes.bytes())?);
        let (received, receive) = rings::plain(sizes.receive)?;
        let (fill, filled) = rings::plain(sizes.receive)?;
        let (transmit, transmitted) = rings::plain(sizes.transmit)?;
        let (completed, completion) = rings::plain(sizes.transmit)?;
        let rings = SocketRings {
            receive: Some(receive),
            fill,
            transmit,
            completion,
        };
        let mut queue = Self::over(rings, Arc::clone(&memory), sizes);
        queue.fill_up();
        let kernel = PlayedKernel {
            received,
            filled,
            transmitted,
            completed,
            memory,
        };
        Ok((queue, kernel))
    }

    /// A queue without a socket, with every transmit chunk free and none in the fill ring.
    fn over(rings: SocketRings, memory: Arc<Mapping>, sizes: QueueSizes) -> Self {
        Self {
            receive: rings.receive,
            fill: rings.fill,
            transmit: rings.transmit,
            completion: rings.completion,
            memory,
            socket: None,
            sizes,
            stock: Stock::new(sizes.receive),
            free: sizes.transmit_chunks().rev().collect(),
            queued: 0,
            down: false,
            counters: QueueCounters::default(),
            shared: Arc::default(),
        }
    }

    fn fill_up(&mut self) {
        for chunk in 0..self.sizes.receive {
            self.fill.push(u64::from(chunk) * u64::from(CHUNK));
        }
        self.fill.publish();
    }

    /// Hands at most `budget` received frames to `on_frame`, each with those that come later, and gives
    /// their chunks back.
    pub(super) fn receive(&mut self, budget: u32, mut on_frame: impl FnMut(&[u8], Ahead<'_>)) -> u32 {
        let Some(receive) = &mut self.receive else {
            return 0;
        };
        let mut taken = 0;
        while taken < budget {
            let Some(descriptor) = receive.pop() else { break };
            taken += 1;
            let ahead = |frames| frame(&self.memory, receive.peek(frames)?);
            if let Some(far) = ahead(PREFETCH_AHEAD) {
                cache::prefetch(&far[..far.len().min(HOT)]);
            }
            let ahead = Ahead {
                later: ahead(ANNOUNCE_AHEAD),
                soon: ahead(EXPECT_AHEAD),
            };
            let chunk = u32::try_from(descriptor.address / u64::from(CHUNK)).unwrap_or(u32::MAX);
            if chunk >= self.sizes.receive {
                self.counters.nonsense += 1;
                continue;
            }
            match frame(&self.memory, descriptor) {
                Some(bytes) => on_frame(bytes, ahead),
                None => self.counters.nonsense += 1,
            }
            // The ring has a cell for every chunk of its side.
            if let Some(chunk) = self.stock.give_back(chunk) {
                self.fill.push(u64::from(chunk) * u64::from(CHUNK));
            }
        }
        self.stock.follow(taken);
        while let Some(chunk) = self.stock.take_missing() {
            self.fill.push(u64::from(chunk) * u64::from(CHUNK));
        }
        if taken > 0 {
            receive.release();
            self.fill.publish();
            self.counters.received += u64::from(taken);
            // One writer, so no read-modify-write is needed.
            let arrived = self.shared.arrived.load(Ordering::Relaxed) + u64::from(taken);
            self.shared.arrived.store(arrived, Ordering::Relaxed);
        }
        taken
    }

    /// A free chunk and its bytes, [`CHUNK`] of them. Give it to
    /// [`XskQueue::commit`].
    #[inline]
    pub(super) fn take(&mut self) -> Option<(TransmitChunk, &mut [u8])> {
        if self.free.is_empty() {
            self.reap();
        }
        let chunk = self.free.pop()?;
        let start = self.memory.at(chunk as usize * CHUNK as usize, CHUNK as usize)?;
        // SAFETY: inside of the mapping; the chunk was in the free list, so neither the kernel nor
        // another reference has it, and the borrow of `self` keeps it so.
        let bytes = unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), CHUNK as usize) };
        Some((TransmitChunk(chunk), bytes))
    }

    /// Puts a frame of `length` bytes into the transmit ring; it leaves with the next flush.
    #[inline]
    pub(super) fn commit(&mut self, chunk: TransmitChunk, length: u32) {
        let descriptor = Descriptor {
            address: u64::from(chunk.0) * u64::from(CHUNK),
            length: length.min(CHUNK),
            options: 0,
        };
        // The ring has a cell for every chunk of its side.
        self.transmit.push(descriptor);
        self.queued += 1;
    }

    /// Frames committed and not flushed.
    pub(super) fn queued(&self) -> u32 {
        self.queued
    }

    /// Whether the interface was down at the last flush.
    pub(super) fn is_down(&self) -> bool {
        self.down
    }

    /// Counts a frame that was not even committed because the interface is down.
    pub(super) fn refuse(&mut self) {
        self.counters.down += 1;
    }

    /// Goes on counting where the queue that this one replaces has stopped.
    pub(super) fn follow(&mut self, old: &Self) {
        self.counters = old.counters;
    }

    /// Counters since the start.
    #[must_use]
    pub fn counters(&self) -> QueueCounters {
        self.counters
    }

    /// Hands committed frames to the kernel, and takes back the chunks of those that have left.
    pub(super) fn flush(&mut self) {
        self.transmit.publish();
        self.queued = 0;
        self.reap();
        let Some(socket) = &self.socket else { return };
        if self.receive.is_some() && self.fill.needs_wakeup() {
            let _ = socket.kick_receive();
        }
        let mut waiting = self.transmit.waiting();
        if waiting == 0 && !self.down {
            return;
        }
        for _ in 0..KICKS_MAX {
            if waiting > 0 && !self.transmit.needs_wakeup() {
                break;
            }
            let kick = socket.kick_transmit();
            self.down = kick == Kick::Down;
            let left = self.transmit.waiting();
            if left == 0 || left == waiting || self.down {
                break;
            }
            waiting = left;
        }
        self.reap();
    }

    /// Takes the chunks of frames that have left.
    fn reap(&mut self) {
        let mut any = false;
        while let Some(address) = self.completion.pop() {
            any = true;
            let chunk = u32::try_from(address / u64::from(CHUNK)).unwrap_or(u32::MAX);
            if self.sizes.transmit_chunks().contains(&chunk) && self.free.len() < self.sizes.transmit as usize
            {
                self.free.push(chunk);
            } else {
                self.counters.nonsense += 1;
            }
        }
        if any {
            self.completion.release();
        }
    }

    /// Transmit chunks in nobody's hands.
    #[must_use]
    pub fn free_chunks(&self) -> usize {
        self.free.len()
    }
}

/// The bytes of a frame, if its descriptor lies inside of one chunk.
fn frame(memory: &Mapping, descriptor: Descriptor) -> Option<&[u8]> {
    let length = descriptor.length as usize;
    let offset = usize::try_from(descriptor.address).ok()?;
    let in_chunk = offset % CHUNK as usize;
    if in_chunk + length > CHUNK as usize {
        return None;
    }
    let start = memory.at(offset, length)?;
    // SAFETY: inside of the mapping; the kernel gave the chunk to us and does not write to it
    // before it is back in the fill ring, which happens after the borrow has ended.
    Some(unsafe { std::slice::from_raw_parts(start.as_ptr(), length) })
}

impl QueueSizes {
    fn bytes(self) -> usize {
        (self.receive as usize + self.transmit as usize) * CHUNK as usize
    }

    fn transmit_chunks(self) -> std::ops::Range<u32> {
        self.receive..self.receive + self.transmit
    }
}

/// The kernel's side of a queue on plain memory: delivers frames and takes what is transmitted.
#[derive(Debug)]
pub struct PlayedKernel {
    received: Producer<Descriptor>,
    filled: Consumer<u64>,
    transmitted: Consumer<Descriptor>,
    completed: Producer<u64>,
    memory: Arc<Mapping>,
}

impl PlayedKernel {
    /// Delivers a frame, as far as it fits a chunk, at the place where drivers put it; false when
    /// no chunk is in the fill ring.
    pub fn deliver(&mut self, bytes: &[u8]) -> bool {
        let Some(chunk) = self.filled.pop() else {
            return false;
        };
        self.filled.release();
        let bytes = &bytes[..bytes.len().min((CHUNK - HEADROOM) as usize)];
        let address = chunk + u64::from(HEADROOM);
        let offset = usize::try_from(address).unwrap_or(usize::MAX);
        let Some(place) = self.memory.at(offset, bytes.len()) else {
            return false;
        };
        // SAFETY: inside of the queue's memory; the chunk was in the fill ring, so the queue does
        // not look at it before it finds it in the receive ring.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), place.as_ptr(), bytes.len()) };
        let length = u32::try_from(bytes.len()).unwrap_or(0);
        let delivered = self.received.push(Descriptor {
            address,
            length,
            options: 0,
        });
        self.received.publish();
        delivered
    }

    /// Takes the next frame that was transmitted, and completes it.
    pub fn take(&mut self) -> Option<Vec<u8>> {
        let descriptor = self.transmitted.pop()?;
        self.transmitted.release();
        let (offset, length) = (
            usize::try_from(descriptor.address).ok()?,
            descriptor.length as usize,
        );
        let place = self.memory.at(offset, length)?;
        // SAFETY: inside of the queue's memory; the chunk is in the kernel's hands, which we play.
        let bytes = unsafe { std::slice::from_raw_parts(place.as_ptr(), length) }.to_vec();
        self.completed.push(descriptor.address);
        self.completed.publish();
        Some(bytes)
    }

    /// Chunks in the fill ring: together with those received and not taken, all of their side.
    #[must_use]
    pub fn filled(&mut self) -> u32 {
        self.filled.available()
    }
}

/// Bytes of a chunk. A full Ethernet frame fits behind the kernel's head room.
pub const CHUNK: u32 = 2_048;
/// Bytes that the kernel leaves free before a received frame.
const HEADROOM: u32 = 256;
/// Frames between the one that is worked on and the one that is brought near.
const PREFETCH_AHEAD: u32 = 12;
/// The same for the one whose port is announced; it is near by then.
const ANNOUNCE_AHEAD: u32 = 8;
/// The same for the one that is expected; what tells whose it is is near by then.
const EXPECT_AHEAD: u32 = 4;
/// Bytes that are brought near: 20 ms of G.711 with all headers.
const HOT: usize = 256;
/// Wake-ups in one flush at most: enough for a full ring at 32 frames a call.
const KICKS_MAX: u32 = 160;
