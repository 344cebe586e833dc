//! The rings between control and one worker: bounded, lock-free, one producer and one consumer.
//!
//! Three per worker: requests in; outcomes, events and boxes out (one ring, so that their order is
//! kept: control may reuse an index once it has seen the outcome of its removal); empty histograms
//! back in. A full request ring is control's problem (it answers 503); a full reply ring makes the
//! worker stop taking requests and leave events in its engine, whose overflow is counted and told
//! by [`FromWorker::EventsLost`]. Nothing here blocks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mixer_engine::command::{Command, EndpointIndex, Outcome, Retired};
use mixer_engine::event::Event;
use mixer_engine::packet::FlowId;
use mixer_engine::time::Slot;
use rtrb::{Consumer, Producer, RingBuffer};

use crate::limits;
use crate::worker::histograms::Histograms;
use crate::worker::stats::WorkerStats;

/// A change for one worker: what its engine does, and what its packet I/O does with it.
#[derive(Debug)]
pub struct Request<P> {
    /// Chosen by control; comes back in [`FromWorker::Done`].
    pub id: u64,
    /// For the engine.
    pub command: Command,
    /// For packet I/O: opened before the command is applied, closed after it.
    pub io: IoChange<P>,
}

/// What packet I/O does along with a command.
#[derive(Debug)]
pub enum IoChange<P> {
    /// Nothing.
    None,
    /// Open a flow. When the command is refused the flow is closed again.
    Open {
        /// Equal to the endpoint's index.
        flow: FlowId,
        /// Local RTP address and port.
        local: SocketAddr,
        /// What control prepared for it (io_uring: the bound socket).
        prepared: P,
    },
    /// Close a flow, unless the command is refused.
    Close {
        /// Which.
        flow: FlowId,
    },
}

/// What a worker tells control, in order.
#[derive(Debug)]
pub enum FromWorker<P> {
    /// The one answer to a request.
    Done {
        /// That of the request.
        id: u64,
        /// The slot before which it took effect: the `tick` of the control link.
        slot: Slot,
        /// Result and the boxes to drop. When a flow could not be opened, the command was not
        /// applied and the result is [`mixer_engine::command::Refusal::OutOfRange`].
        outcome: Outcome,
        /// What a closed flow gave back at once. When absent after an
        /// [`IoChange::Close`], it follows in [`FromWorker::Released`].
        released: Option<P>,
    },
    /// The engine tells something.
    Event(Event),
    /// So many events were lost because control did not keep up: the state must be read anew.
    EventsLost(u64),
    /// The engine removed something by itself (a conference failed); drop it.
    Retired {
        /// Place that is free again. For an endpoint its flow was closed too.
        at: EndpointIndex,
        /// What to drop.
        retired: Retired,
        /// As in [`FromWorker::Done`].
        released: Option<P>,
    },
    /// What a flow closed earlier still owed: its port may be bound again once this is dropped.
    Released(P),
    /// Histograms of the last second; merge them and give them back with
    /// [`ControlEnd::return_histograms`].
    Histograms(Box<Histograms>),
}

/// What both ends see: counters and the stop flag.
#[derive(Debug, Default)]
struct Shared {
    stats: WorkerStats,
    stop: AtomicBool,
    hand_over: AtomicBool,
}

/// Control's end.
#[derive(Debug)]
pub struct ControlEnd<P> {
    requests: Producer<Request<P>>,
    replies: Consumer<FromWorker<P>>,
    histograms: Producer<Box<Histograms>>,
    shared: Arc<Shared>,
}

/// The worker's end.
#[derive(Debug)]
pub struct WorkerEnd<P> {
    pub(crate) requests: Consumer<Request<P>>,
    pub(crate) replies: Producer<FromWorker<P>>,
    pub(crate) histograms: Consumer<Box<Histograms>>,
    shared: Arc<Shared>,
}

/// Both ends of one worker's rings, with `requests` places in and `replies` out.
///
/// # Panics
/// When `replies` leaves no room beyond [`limits::REPLY_RING_RESERVE`].
#[must_use]
pub fn pair<P>(requests: usize, replies: usize) -> (ControlEnd<P>, WorkerEnd<P>) {
    assert!(
        replies > limits::REPLY_RING_RESERVE,
        "reply ring of {replies} places"
    );
    let (request_in, request_out) = RingBuffer::new(requests);
    let (reply_in, reply_out) = RingBuffer::new(replies);
    let (mut histogram_in, histogram_out) = RingBuffer::new(limits::HISTOGRAM_PAIRS);
    for _ in 1..limits::HISTOGRAM_PAIRS {
        // The ring has just been made with room for all of them.
        let _ = histogram_in.push(Box::default());
    }
    let shared = Arc::new(Shared::default());
    (
        ControlEnd {
            requests: request_in,
            replies: reply_out,
            histograms: histogram_in,
            shared: Arc::clone(&shared),
        },
        WorkerEnd {
            requests: request_out,
            replies: reply_in,
            histograms: histogram_out,
            shared,
        },
    )
}

impl<P> ControlEnd<P> {
    /// Hands a request to the worker.
    ///
    /// # Errors
    /// Gives it back when the ring is full: answer "busy".
    pub fn send(&mut self, request: Request<P>) -> Result<(), Request<P>> {
        self.requests
            .push(request)
            .map_err(|rtrb::PushError::Full(request)| request)
    }

    /// Free places for requests.
    #[must_use]
    pub fn room(&self) -> usize {
        self.requests.slots()
    }

    /// The next outcome, event or box, oldest first. Poll it: the worker wakes nobody.
    pub fn receive(&mut self) -> Option<FromWorker<P>> {
        self.replies.pop().ok()
    }

    /// Gives histograms back to be filled again; clears them.
    pub fn return_histograms(&mut self, mut histograms: Box<Histograms>) {
        histograms.clear();
        // Full only if a caller returns a box that did not come from this worker; then it is dropped.
        let _ = self.histograms.push(histograms);
    }

    /// The worker's counters.
    #[must_use]
    pub fn stats(&self) -> &WorkerStats {
        &self.shared.stats
    }

    /// The worker's counters for another thread (metrics).
    #[must_use]
    pub fn stats_reader(&self) -> StatsReader {
        StatsReader(Arc::clone(&self.shared))
    }

    /// Asks the worker to end its loop; it does within a slot.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
    }

    /// Asks the worker to end its loop and to give everything it has to whoever joins its thread.
    pub fn hand_over(&self) {
        self.shared.hand_over.store(true, Ordering::Relaxed);
        self.stop();
    }

    /// Whether the worker's end is gone: it has stopped or died.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        self.requests.is_abandoned()
    }
}

impl<P> WorkerEnd<P> {
    /// Whether control wants the worker to end.
    #[must_use]
    pub fn stop_wanted(&self) -> bool {
        self.shared.stop.load(Ordering::Acquire)
    }

    /// Whether control wants what the worker has.
    #[must_use]
    pub fn hand_over_wanted(&self) -> bool {
        self.stop_wanted() && self.shared.hand_over.load(Ordering::Relaxed)
    }

    /// The counters to publish.
    #[must_use]
    pub fn stats(&self) -> &WorkerStats {
        &self.shared.stats
    }
}

/// Reads one worker's counters from any thread.
#[derive(Debug, Clone)]
pub struct StatsReader(Arc<Shared>);

impl StatsReader {
    /// The counters.
    #[must_use]
    pub fn stats(&self) -> &WorkerStats {
        &self.0.stats
    }
}
