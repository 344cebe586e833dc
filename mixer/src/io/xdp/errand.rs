//! What a worker and the scout tell each other: bounded rings, one pair per worker.
//!
//! The scout is the thread that may wait, allocate and ask the kernel. A worker sends it on errands and
//! goes on; what comes back is taken at the beginning of a turn, and what it replaces goes back to the
//! scout to be dropped there.

use std::net::SocketAddr;

use mixer_engine::packet::FlowId;
use rtrb::{Consumer, Producer, RingBuffer};

use super::queue::XskQueue;
use super::routes::{Hop, RouteTable};
use crate::io::uring::UringPrepared;
use crate::limits;

/// From a worker to the scout.
#[derive(Debug)]
pub enum Errand {
    /// Find out which station a neighbour is.
    Find(Hop),
    /// Bind a socket for a flow whose peer no frame of ours reaches.
    Bind {
        /// For which flow.
        flow: FlowId,
        /// To which address.
        local: SocketAddr,
    },
    /// Drop this.
    Drop(Worn),
}

/// What a worker has no use for any more.
#[derive(Debug)]
pub enum Worn {
    /// A table that a newer one has replaced.
    Table(Box<RouteTable>),
    /// A queue that another one has replaced.
    Queue(Box<XskQueue>),
    /// A socket that came for a flow that had gone.
    Socket(UringPrepared),
}

/// From the scout to a worker.
#[derive(Debug)]
pub enum News {
    /// The kernel's tables have changed.
    Table(Box<RouteTable>),
    /// The device came back: use this queue.
    Queue {
        /// Place among the worker's queues.
        place: usize,
        /// It.
        queue: Box<XskQueue>,
    },
    /// The socket that was asked for.
    Socket {
        /// For which flow.
        flow: FlowId,
        /// To which address it is bound.
        local: SocketAddr,
        /// It.
        socket: UringPrepared,
    },
    /// The socket that was asked for cannot be had now.
    NoSocket {
        /// For which flow.
        flow: FlowId,
        /// To which address it should have been bound.
        local: SocketAddr,
    },
}

/// The worker's end.
#[derive(Debug)]
pub struct WorkerEnd {
    errands: Producer<Errand>,
    news: Consumer<News>,
}

/// The scout's end.
#[derive(Debug)]
pub struct ScoutEnd {
    errands: Consumer<Errand>,
    news: Producer<News>,
}

impl ScoutEnd {
    /// The next errand.
    pub fn next_errand(&mut self) -> Option<Errand> {
        self.errands.pop().ok()
    }

    /// Tells the worker something; false when too much waits to be taken.
    pub fn tell(&mut self, news: News) -> bool {
        self.news.push(news).is_ok()
    }
}

/// Both ends of one worker's rings.
#[must_use]
pub fn pair() -> (WorkerEnd, ScoutEnd) {
    let (errands, errands_out) = RingBuffer::new(limits::SCOUT_RING);
    let (news_in, news) = RingBuffer::new(limits::SCOUT_RING);
    (
        WorkerEnd { errands, news },
        ScoutEnd {
            errands: errands_out,
            news: news_in,
        },
    )
}

impl WorkerEnd {
    /// Sends the scout; false when too many errands wait: ask again later.
    pub(super) fn ask(&mut self, errand: Errand) -> bool {
        self.errands.push(errand).is_ok()
    }

    /// Gives back what is worn out. While the ring has no room nothing new is taken that would
    /// make it necessary, see [`WorkerEnd::news`].
    pub(super) fn give_back(&mut self, worn: Worn) {
        let pushed = self.errands.push(Errand::Drop(worn));
        assert!(
            pushed.is_ok(),
            "news is taken only while there is room to give back"
        );
    }

    /// The next news, unless there is no room to give back what it replaces.
    pub(super) fn news(&mut self) -> Option<News> {
        if self.errands.slots() == 0 {
            return None;
        }
        self.news.pop().ok()
    }
}
