//! A worker on a thread of its own, pinned to its core.

use std::io;
use std::sync::mpsc;
use std::thread::JoinHandle;

use core_affinity::CoreId;

use super::{Worker, WorkerConfig, WorkerId};
use crate::control::rings::{self, ControlEnd};
use crate::io::PacketIo;
use crate::limits;
use crate::placement;

/// A running worker, seen from control.
#[derive(Debug)]
pub struct WorkerHandle<P> {
    /// Its number.
    pub id: WorkerId,
    /// Control's end of its rings.
    pub link: ControlEnd<P>,
    thread: JoinHandle<()>,
}

impl<P> WorkerHandle<P> {
    /// Whether the thread has ended: after [`ControlEnd::stop`], or by a panic.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Stops the worker and waits for its thread; false when it had panicked. Boxes and sockets
    /// still in the rings are dropped here.
    pub fn join(self) -> bool {
        self.link.stop();
        self.thread.join().is_ok()
    }
}

/// Why a worker did not start.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The operating system gave no thread.
    #[error("worker {}: no thread: {source}", id.0)]
    Thread {
        /// Which worker.
        id: WorkerId,
        /// What it said.
        source: io::Error,
    },
    /// The core does not exist or is not allowed to this process.
    #[error("worker {}: cannot be pinned to core {core}: it does not exist or is not allowed to this process", id.0)]
    Pin {
        /// Which worker.
        id: WorkerId,
        /// Which core.
        core: usize,
    },
    /// Packet I/O did not open.
    #[error("worker {}: packet I/O: {source}", id.0)]
    Io {
        /// Which worker.
        id: WorkerId,
        /// What it said.
        source: io::Error,
    },
    /// The thread ended before it had started up.
    #[error("worker {}: died at start", id.0)]
    Died {
        /// Which worker.
        id: WorkerId,
    },
}

/// Starts a worker and returns once it runs. `open` makes its packet I/O on the worker's own thread
/// (io_uring insists on one thread from the start on).
///
/// # Errors
/// See [`SpawnError`].
pub fn spawn<Io, F>(config: WorkerConfig, open: F) -> Result<WorkerHandle<Io::Prepared>, SpawnError>
where
    Io: PacketIo,
    Io::Prepared: 'static,
    F: FnOnce() -> io::Result<Io> + Send + 'static,
{
    let id = config.id;
    let (control, worker_end) = rings::pair(limits::REQUEST_RING, limits::REPLY_RING);
    let (started, starting) = mpsc::sync_channel(1);
    let thread = std::thread::Builder::new()
        .name(format!("worker-{}", id.0))
        .spawn(move || {
            let worker = pin(&config).and_then(|()| {
                if !config.spin && !placement::prefer_realtime() {
                    tracing::info!(
                        worker = id.0,
                        "no real-time priority: give CAP_SYS_NICE, or keep the worker's core free of others"
                    );
                }
                let io = open().map_err(|source| SpawnError::Io { id, source })?;
                Ok(Worker::new(&config, io, worker_end))
            });
            match worker {
                Ok(mut worker) => {
                    // Nobody listening means that the starter has gone; the stop flag will tell.
                    let _ = started.send(Ok(()));
                    drop(started);
                    worker.run();
                }
                Err(error) => {
                    let _ = started.send(Err(error));
                }
            }
        })
        .map_err(|source| SpawnError::Thread { id, source })?;
    match starting.recv() {
        Ok(Ok(())) => Ok(WorkerHandle {
            id,
            link: control,
            thread,
        }),
        Ok(Err(error)) => Err(error),
        Err(mpsc::RecvError) => Err(SpawnError::Died { id }),
    }
}

fn pin(config: &WorkerConfig) -> Result<(), SpawnError> {
    let Some(core) = config.core else { return Ok(()) };
    // `core_affinity` panics beyond the kernel's mask.
    if core < CORES_MAX && core_affinity::set_for_current(CoreId { id: core }) {
        Ok(())
    } else {
        Err(SpawnError::Pin { id: config.id, core })
    }
}

/// Cores in the kernel's affinity mask.
const CORES_MAX: usize = 1_024;
