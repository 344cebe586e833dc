//! One io_uring instance: set-up, queueing, submitting, waiting.

use std::io;
use std::mem::MaybeUninit;
use std::time::Duration;

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{IoUring, Submitter, cqueue, squeue};

/// How completions reach the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Only when the worker asks for them (Linux 6.1): a packet never interrupts a turn.
    Deferred,
    /// Whenever the worker enters the kernel.
    Cooperative,
}

/// An io_uring instance used by one thread.
pub(super) struct Ring {
    ring: IoUring,
    mode: Mode,
    batch: [MaybeUninit<cqueue::Entry>; BATCH],
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring")
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

impl Ring {
    /// A ring with `submissions` and `completions` places, in the best mode the kernel has.
    pub(super) fn new(submissions: u32, completions: u32) -> io::Result<Self> {
        let deferred = IoUring::builder()
            .setup_cqsize(completions)
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .build(submissions);
        let (ring, mode) = match deferred {
            Ok(ring) => (ring, Mode::Deferred),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                let mut builder = IoUring::builder();
                builder
                    .setup_cqsize(completions)
                    .setup_coop_taskrun()
                    .setup_taskrun_flag();
                (builder.build(submissions)?, Mode::Cooperative)
            }
            Err(error) => return Err(error),
        };
        Ok(Self {
            ring,
            mode,
            batch: [const { MaybeUninit::uninit() }; BATCH],
        })
    }

    pub(super) fn mode(&self) -> Mode {
        self.mode
    }

    pub(super) fn submitter(&self) -> Submitter<'_> {
        self.ring.submitter()
    }

    /// Queues a request; submits first when the queue is full. False when the kernel takes none.
    ///
    /// # Safety
    /// What the request points to must stay valid, and unmoved, until the request has completed.
    pub(super) unsafe fn push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: passed on to this function's caller.
        if unsafe { self.ring.submission().push(entry) }.is_ok() {
            return true;
        }
        self.submit();
        // SAFETY: as above.
        unsafe { self.ring.submission().push(entry) }.is_ok()
    }

    /// Hands every queued request to the kernel; false when some are left.
    pub(super) fn submit(&mut self) -> bool {
        // A signal or a kernel short of memory leaves requests in the queue; a later call takes them.
        while !self.ring.submission().is_empty() {
            if !matches!(self.ring.submit(), Ok(taken) if taken > 0) {
                return false;
            }
        }
        true
    }

    /// Makes the kernel post what has happened, when it says that there is something; true when the
    /// completion queue had overflowed.
    pub(super) fn collect(&mut self) -> bool {
        let mut overflow = false;
        // The kernel posts at least 20 completions per call; the bound keeps a flood from holding the worker.
        for _ in 0..COLLECT_CALLS {
            let queue = self.ring.submission();
            let (pending, full) = (queue.taskrun(), queue.cq_overflow());
            drop(queue);
            overflow |= full;
            if !pending && !full {
                break;
            }
            // SAFETY: no argument is passed, so no pointer is either.
            let entered = unsafe {
                self.submitter()
                    .enter::<libc::sigset_t>(0, 0, ENTER_GETEVENTS, None)
            };
            if entered.is_err() || full {
                break;
            }
        }
        overflow
    }

    /// Sleeps for `duration`, whatever completes meanwhile, and makes the kernel post it: a wait
    /// for more completions than can come, with a timeout. False when it did not sleep that long.
    pub(super) fn sleep(&mut self, duration: Duration) -> bool {
        let time = Timespec::from(duration);
        let arguments = SubmitArgs::new().timespec(&time);
        match self.submitter().submit_with_args(NEVER_SO_MANY, &arguments) {
            Err(error) => error.raw_os_error() == Some(libc::ETIME),
            Ok(_) => false,
        }
    }

    /// The next completion.
    pub(super) fn next(&mut self) -> Option<cqueue::Entry> {
        self.ring.completion().next()
    }

    /// The next completions, at most `budget` and [`BATCH`] of them.
    pub(super) fn take_batch(&mut self, budget: u32) -> &[cqueue::Entry] {
        let most = BATCH.min(budget as usize);
        self.ring.completion().fill(&mut self.batch[..most])
    }
}

/// Completions that are taken at once.
pub(super) const BATCH: usize = 32;
const COLLECT_CALLS: u32 = 512;
/// `IORING_ENTER_GETEVENTS`.
const ENTER_GETEVENTS: u32 = 1;
/// The kernel takes the size of its completion queue for it.
const NEVER_SO_MANY: usize = 1 << 30;
