//! Every capacity of the mixer in one place. Nothing below grows at run time.

/// Conferences of one worker.
pub const CONFERENCES_PER_WORKER: u32 = 4_096;
/// Endpoints of one worker. More than one core carries with sockets; AF_XDP gets near.
pub const ENDPOINTS_PER_WORKER: u32 = 8_192;
/// Workers of one process.
pub const WORKERS_MAX: usize = 64;

/// Requests on their way to one worker; when full, control answers 503.
pub const REQUEST_RING: usize = 256;
/// Outcomes, events and boxes on their way from one worker to control.
pub const REPLY_RING: usize = 4_096;
/// Places of the reply ring that events leave free, so that outcomes always fit.
pub const REPLY_RING_RESERVE: usize = 64;
/// Histogram pairs in circulation per worker: one filling, one away.
pub const HISTOGRAM_PAIRS: usize = 2;
/// Events an engine keeps until its worker forwards them.
pub const ENGINE_EVENTS: usize = 4_096;

/// Slots of 1 ms from one turn of a worker to the next: waking costs as much as some hundred packets
/// (`docs/decisions/0015-turns-and-caches.md`). Conferences tick in slots in which a turn begins.
pub const SLOTS_PER_TURN: u64 = 2;
/// Requests a worker applies in one turn at most.
pub const REQUESTS_PER_TURN: usize = 32;
/// Boxes of failed conferences a worker gives back in one turn at most: each closes a flow.
pub const RETIRED_PER_TURN: usize = REQUESTS_PER_TURN;
/// Datagrams a worker takes in one turn at most.
pub const RECEIVE_BUDGET: u32 = 8_192;
/// Late slots a worker catches up audibly: three ticks of 20 ms. Older ones run muted, so that no
/// listener gets more than three frames at once.
pub const CATCH_UP_SLOTS: u64 = 60;
/// Late slots a worker runs at all, muted ones included. Beyond (a machine that was suspended) time
/// is left out, because running it would hold the worker up again.
pub const LATE_SLOTS_MAX: u64 = 10_000;

/// Receive buffers of one worker on io_uring; a power of two, at most 32,768.
pub const RECEIVE_BUFFERS: u16 = 8_192;
/// The same where AF_XDP receives: for peers on the host itself, and what the kernel passes on.
pub const LOCAL_RECEIVE_BUFFERS: u16 = 1_024;
/// Bytes of a receive buffer: 16 of io_uring's header, 28 of address, the rest is payload.
pub const RECEIVE_BUFFER_SIZE: u32 = 512;
/// Completions the kernel can queue before it must hold them back.
pub const COMPLETIONS: u32 = 4 * RECEIVE_BUFFERS as u32;
/// Transmit buffers of one worker on io_uring; also the length of the submission queue.
pub const SEND_BUFFERS: u32 = 1_024;
/// Sends handed to the kernel in one system call.
pub const SUBMIT_CHUNK: u32 = 64;
/// Sockets being closed while their last receive is still being cancelled.
pub const CLOSING_FLOWS: u32 = 512;
/// Chunks of packet memory for received frames of one queue on AF_XDP; also the lengths of its rings.
pub const XDP_RECEIVE_CHUNKS: u32 = 8_192;
/// Chunks for frames to transmit, likewise.
pub const XDP_TRANSMIT_CHUNKS: u32 = 4_096;
/// Frames after which AF_XDP hands them to the kernel within a turn.
pub const XDP_SUBMIT_CHUNK: u32 = 128;
/// Packets on their way from one worker to another.
pub const HANDOFF_RING: usize = 1_024;
/// Requests and answers on their way between a worker and the scout.
pub const SCOUT_RING: usize = 1_024;
/// Bytes of UDP payload the engine may write: an Ethernet MTU of 1,500 without IPv4 and UDP headers.
pub const DATAGRAM_MAX: usize = 1_472;

const _: () = assert!(RECEIVE_BUFFERS.is_power_of_two() && RECEIVE_BUFFERS <= 32_768);
const _: () = assert!(LOCAL_RECEIVE_BUFFERS.is_power_of_two());
const _: () = assert!(SEND_BUFFERS.is_power_of_two() && SUBMIT_CHUNK < SEND_BUFFERS);
const _: () = assert!(XDP_RECEIVE_CHUNKS.is_power_of_two() && XDP_TRANSMIT_CHUNKS.is_power_of_two());
const _: () = assert!(XDP_SUBMIT_CHUNK < XDP_TRANSMIT_CHUNKS);
const _: () = assert!(CLOSING_FLOWS < SEND_BUFFERS);
const _: () = assert!(RECEIVE_BUFFER_SIZE > 16 + 28 + 12);
const _: () = assert!(REPLY_RING > REPLY_RING_RESERVE + REQUEST_RING);
const _: () = assert!(REPLY_RING_RESERVE > REQUESTS_PER_TURN);
const _: () = assert!(
    (mixer_engine::time::Slot::PER_TICK / 2).is_multiple_of(SLOTS_PER_TURN),
    "a leg of 10 ms is served half a tick after its conference"
);
const _: () = assert!(CATCH_UP_SLOTS < LATE_SLOTS_MAX);
const _: () = assert!(CATCH_UP_SLOTS == 3 * mixer_engine::time::Slot::PER_TICK);
const _: () = assert!(
    DATAGRAM_MAX >= 1_472,
    "PacketSink::transmit promises so many bytes"
);
