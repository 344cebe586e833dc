//! What is handed over from program to program.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::RawFd;

use mixer_engine::packet::FlowId;
use mixer_engine::time::{Slot, Timestamp};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::{HandOverError, STATE_FORMAT};
use crate::backend::{Keeper, PortWork};
use crate::clock::Clock;
use crate::control::HttpDirectory;
use crate::control::directory::DirectoryState;
use crate::control::events::{EventLog, EventLogState};
use crate::io::OpenFlow;
use crate::io::inherit::{self, KeepOpen};
use crate::io::xdp::device::DeviceImage;
use crate::worker::stats::WorkerCounters;
use crate::worker::{Resumed, WorkerHandle};

/// Raised whenever a field below comes, goes, or changes its meaning.
pub(super) const FORMAT: u32 = 7;

/// Everything. Its descriptors stay open when the process executes another program.
#[derive(Debug, Serialize, Deserialize)]
pub struct Image {
    /// [`STATE_FORMAT`] of whoever wrote it.
    pub(super) format: u32,
    pub(crate) clock_origin_ns: u64,
    pub(crate) instance: String,
    pub(crate) listener: RawFd,
    /// When the workers were told to end.
    pub(crate) stopped_at: Timestamp,
    /// When everything was written.
    pub(crate) written_at: Timestamp,
    pub(crate) workers: Vec<WorkerImage>,
    /// The interface, on AF_XDP.
    pub(crate) device: Option<DeviceImage>,
    /// The file of the program that ran before, when it could be opened: closed once the workers run.
    /// It was replaced, so that with its last use the kernel throws its pages away, which takes longer
    /// than all else about executing.
    pub(crate) former: Option<RawFd>,
    /// A [`ControlImage`] in bytes, so that workers need not wait until it is read.
    pub(crate) control: ByteBuf,
}

/// What control knows.
#[derive(Debug, Serialize, Deserialize)]
pub struct ControlImage {
    pub(crate) directory: DirectoryState,
    pub(crate) events: EventLogState,
}

/// One worker.
#[derive(Debug, Serialize, Deserialize)]
pub struct WorkerImage {
    state: ByteBuf,
    /// Samples of the prompts being played, low byte first.
    prompts: Vec<ByteBuf>,
    origin: Timestamp,
    next: Slot,
    counters: WorkerCounters,
    flows: Vec<FlowImage>,
}

#[derive(Debug, Serialize, Deserialize)]
struct FlowImage {
    flow: FlowId,
    local: SocketAddr,
    remote: Option<SocketAddr>,
    /// Its socket, if it has one.
    socket: Option<RawFd>,
}

impl Image {
    /// Ends the workers and takes everything.
    pub(crate) fn take<P: KeepOpen>(
        mut directory: HttpDirectory<WorkerHandle<P>>,
        keeper: Option<Keeper>,
        events: &EventLog,
        instance: String,
        listener: &TcpListener,
        clock: Clock,
    ) -> Result<Self, HandOverError> {
        let failed = |error: &dyn std::fmt::Display| HandOverError::Failed(error.to_string());
        let stopped_at = clock.now();
        directory.links_mut().for_each(|worker| worker.link.hand_over());
        let ended: Vec<_> = directory.links_mut().map(WorkerHandle::ended).collect();
        let mut workers = Vec::new();
        for (worker, ended) in ended.into_iter().enumerate() {
            let ended = ended.ok_or_else(|| failed(&"a worker has panicked"))?;
            directory.settle(clock.now(), worker, ended.rest);
            let left = ended.left.map_err(|error| failed(&error))?;
            workers.push(WorkerImage::of(left).map_err(|error| failed(&error))?);
        }
        let device = keeper.map(Keeper::keep_open).transpose();
        let control = ControlImage {
            directory: directory.export_state(),
            events: events.export_state(),
        };
        let control = rmp_serde::to_vec_named(&control).map_err(|error| failed(&error))?;
        Ok(Self {
            format: STATE_FORMAT,
            clock_origin_ns: clock.origin_ns(),
            instance,
            listener: inherit::keep(listener).map_err(|error| failed(&error))?,
            stopped_at,
            written_at: clock.now(),
            workers,
            device: device.map_err(|error| failed(&error))?,
            former: keep_executable(),
            control: ByteBuf::from(control),
        })
    }
}

/// Without it the standstill is longer, nothing else.
fn keep_executable() -> Option<RawFd> {
    let file = File::open("/proc/self/exe").ok()?;
    let number = inherit::keep(&file).ok()?;
    std::mem::forget(file);
    Some(number)
}

impl WorkerImage {
    fn of<P: KeepOpen>(left: Resumed<P>) -> io::Result<Self> {
        let bytes = |samples: &&[i16]| {
            samples
                .iter()
                .flat_map(|sample| sample.to_le_bytes())
                .collect::<Vec<u8>>()
        };
        let mut flows = Vec::new();
        for open in left.flows {
            flows.push(FlowImage {
                flow: open.flow,
                local: open.local,
                remote: open.remote,
                socket: open.prepared.keep_open()?,
            });
        }
        Ok(Self {
            state: ByteBuf::from(left.state),
            prompts: left.prompts.iter().map(bytes).map(ByteBuf::from).collect(),
            origin: left.origin,
            next: left.next,
            counters: left.counters,
            flows,
        })
    }

    /// What a worker of this program goes on with.
    ///
    /// # Errors
    /// A socket was not left as it should.
    pub(crate) fn resumed<P>(self, ports: &mut PortWork<P>) -> io::Result<Resumed<P>> {
        let samples = |bytes: &ByteBuf| {
            let pairs = bytes.as_chunks::<2>().0.iter();
            // Prompts live as long as the process.
            let samples: &'static [i16] = pairs
                .map(|pair| i16::from_le_bytes(*pair))
                .collect::<Vec<_>>()
                .leak();
            samples
        };
        let mut flows = Vec::new();
        for FlowImage {
            flow,
            local,
            remote,
            socket,
        } in self.flows
        {
            let prepared = (ports.adopt)(socket, local)
                .map_err(|error| io::Error::other(format!("RTP socket {local}: {error}")))?;
            flows.push(OpenFlow {
                flow,
                local,
                remote,
                prepared,
            });
        }
        Ok(Resumed {
            prompts: self.prompts.iter().map(samples).collect(),
            state: self.state.into_vec(),
            origin: self.origin,
            next: self.next,
            counters: self.counters,
            flows,
        })
    }
}

#[cfg(test)]
mod tests;
