//! A worker on a thread of its own, pinned to its core.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::mpsc;
use std::thread::JoinHandle;

use core_affinity::CoreId;

use super::exchange::Exchange;
use super::hand_over::{Ended, ResumeError, Resumed};
use super::{Worker, WorkerConfig, WorkerId};
use crate::control::rings::{self, ControlEnd, WorkerEnd};
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
    thread: Option<JoinHandle<()>>,
    /// What the worker has when control asked for it.
    ended: mpsc::Receiver<Box<Ended<P>>>,
}

impl<P> WorkerHandle<P> {
    /// Whether the thread has ended: after [`ControlEnd::stop`], or by a panic.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Stops the worker and waits for its thread; false when it had panicked. Boxes and sockets
    /// still in the rings are dropped here.
    pub fn join(mut self) -> bool {
        self.link.stop();
        self.thread.take().is_none_or(|thread| thread.join().is_ok())
    }

    /// Waits for a worker that was told to hand over and gives what it had; `None` when it had
    /// panicked. Its ring can be read afterwards. Its thread may still be giving back memory: nobody
    /// who hears nothing meanwhile need wait for that.
    pub fn ended(&mut self) -> Option<Box<Ended<P>>> {
        self.ended.recv().ok()
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
    /// It cannot go on with what was handed over.
    #[error("worker {}: {source}", id.0)]
    Resume {
        /// Which worker.
        id: WorkerId,
        /// Why.
        source: ResumeError,
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
pub fn spawn<Io, F>(
    config: WorkerConfig,
    exchange: Exchange,
    open: F,
) -> Result<WorkerHandle<Io::Prepared>, SpawnError>
where
    Io: PacketIo,
    Io::Prepared: 'static,
    F: FnOnce() -> io::Result<Io> + Send + 'static,
{
    let id = config.id;
    let make = move |end| {
        let io = open().map_err(|source| SpawnError::Io { id, source })?;
        Ok(Worker::new(&config, io, end, exchange))
    };
    launch(config, make)?.running()
}

/// Starts a worker that goes on where another one ended. It may not run yet when this returns, so
/// that several can start at once.
///
/// # Errors
/// See [`SpawnError`].
pub fn spawn_resumed<Io, F>(
    config: WorkerConfig,
    exchange: Exchange,
    resumed: Resumed<Io::Prepared>,
    open: F,
) -> Result<Starting<Io::Prepared>, SpawnError>
where
    Io: PacketIo,
    Io::Prepared: 'static,
    F: FnOnce() -> io::Result<Io> + Send + 'static,
{
    let id = config.id;
    launch(config, move |end| {
        let io = open().map_err(|source| SpawnError::Io { id, source })?;
        Worker::resume(&config, io, end, exchange, resumed)
            .map_err(|source| SpawnError::Resume { id, source })
    })
}

/// A worker on its way.
#[derive(Debug)]
pub struct Starting<P> {
    handle: WorkerHandle<P>,
    started: mpsc::Receiver<Result<(), SpawnError>>,
}

impl<P> Starting<P> {
    /// Waits until it runs.
    ///
    /// # Errors
    /// See [`SpawnError`].
    pub fn running(self) -> Result<WorkerHandle<P>, SpawnError> {
        match self.started.recv() {
            Ok(Ok(())) => Ok(self.handle),
            Ok(Err(error)) => Err(error),
            Err(mpsc::RecvError) => Err(SpawnError::Died { id: self.handle.id }),
        }
    }
}

/// Gives a worker, made by `make` on its own thread, that thread.
fn launch<Io, F>(config: WorkerConfig, make: F) -> Result<Starting<Io::Prepared>, SpawnError>
where
    Io: PacketIo,
    Io::Prepared: 'static,
    F: FnOnce(WorkerEnd<Io::Prepared>) -> Result<Worker<Io>, SpawnError> + Send + 'static,
{
    let id = config.id;
    let (link, worker_end) = rings::pair(limits::REQUEST_RING, limits::REPLY_RING);
    let (started, starting) = mpsc::sync_channel(1);
    let (give, ended) = mpsc::sync_channel(1);
    let run = move || {
        let worker = pin(&config).and_then(|()| {
            if !config.spin && !placement::prefer_realtime() {
                tracing::info!(
                    worker = id.0,
                    "no real-time priority: give CAP_SYS_NICE, or keep the worker's core free of others"
                );
            }
            make(worker_end)
        });
        match worker {
            Ok(mut worker) => {
                // Nobody listening means that the starter has gone; the stop flag will tell.
                let _ = started.send(Ok(()));
                drop(started);
                worker.run();
                if let Some(recording) = config.recording {
                    write_recording(&mut worker, id, recording.folder);
                }
                if worker.is_to_hand_over() {
                    // Whoever asked for it waits.
                    let _ = give.send(Box::new(worker.end()));
                }
            }
            Err(error) => {
                let _ = started.send(Err(error));
            }
        }
    };
    let thread = std::thread::Builder::new()
        .name(format!("worker-{}", id.0))
        .spawn(run)
        .map_err(|source| SpawnError::Thread { id, source })?;
    Ok(Starting {
        handle: WorkerHandle {
            id,
            link,
            thread: Some(thread),
            ended,
        },
        started: starting,
    })
}

/// Leaves the recording in its file. The worker has ended, so it may.
fn write_recording<Io: PacketIo>(worker: &mut Worker<Io>, id: WorkerId, folder: &Path) {
    let file = format!("worker-{}-{}.replay", id.0, worker.next_slot().0);
    let path = folder.join(file);
    let Some(recording) = worker.take_recording() else {
        return;
    };
    // Keys of SRTP are in it.
    let mut options = OpenOptions::new();
    let file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path);
    match file.and_then(|mut file| file.write_all(&recording)) {
        Ok(()) => tracing::info!(worker = id.0, path = %path.display(), "recording written"),
        Err(error) => {
            tracing::error!(worker = id.0, path = %path.display(), %error, "recording not written");
        }
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
