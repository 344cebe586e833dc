//! The end of a worker that another one goes on for, and that other one's beginning.

use std::io;

use mixer_engine::engine::Engine;
use mixer_engine::engine::state::StateError;
use mixer_engine::time::{Slot, Timestamp};

use super::exchange::Exchange;
use super::stats::WorkerCounters;
use super::{HISTOGRAM_PERIOD, Worker, WorkerConfig, recorder};
use crate::control::rings::{FromWorker, WorkerEnd};
use crate::io::{OpenFlow, PacketIo};
use crate::limits;
use crate::replay::Beginning;

/// What a worker leaves behind.
#[derive(Debug)]
pub struct Ended<P> {
    /// For the worker that goes on.
    pub left: Result<Resumed<P>, StateError>,
    /// For control: what did not go into the ring any more, in order.
    pub rest: Vec<FromWorker<P>>,
}

/// What a worker goes on with.
#[derive(Debug)]
pub struct Resumed<P> {
    /// The engine ([`Engine::export_state`]).
    pub state: Vec<u8>,
    /// Prompts being played, by their number in the engine's state.
    pub prompts: Vec<&'static [i16]>,
    /// When slot 0 was due.
    pub origin: Timestamp,
    /// The slot to run next.
    pub next: Slot,
    /// Counters of the loop.
    pub counters: WorkerCounters,
    /// Flows to open again, with the local address of each.
    pub flows: Vec<OpenFlow<P>>,
}

impl<Io: PacketIo> Worker<Io> {
    /// Ends the worker: a last receive, then everything it has is given away. It cannot go on.
    #[must_use]
    pub fn end(&mut self) -> Ended<Io::Prepared> {
        self.io.now();
        self.engine.end_waiting(&mut self.io);
        let engine = &mut self.engine;
        let mut flows = self.io.hand_over(|datagram| engine.handle_datagram(datagram));
        let mut rest = Vec::new();
        let lost = self.engine.counters().events_lost.saturating_sub(self.lost_told);
        if lost > 0 {
            rest.push(FromWorker::EventsLost(lost));
        }
        while let Some(event) = self.engine.poll_event() {
            rest.push(FromWorker::Event(event));
        }
        while let Some((at, retired)) = self.engine.poll_retired() {
            flows.retain(|open| open.flow.0 != at.0);
            rest.push(self.retire(at, retired));
        }
        rest.extend(self.held.take());
        let mut prompts: Vec<&'static [i16]> = Vec::new();
        let state = self.engine.export_state(|samples| {
            let known = prompts.iter().position(|known| std::ptr::eq(*known, samples));
            let number = known.unwrap_or(prompts.len());
            if known.is_none() {
                prompts.push(samples);
            }
            u32::try_from(number).ok()
        });
        let left = state.map(|state| Resumed {
            state,
            prompts,
            origin: self.origin,
            next: self.next,
            counters: self.counters,
            flows,
        });
        Ended { left, rest }
    }

    /// A worker that goes on where another one ended; slots missed meanwhile are run as late ones.
    ///
    /// # Errors
    /// The state cannot be read, or a flow cannot be opened.
    pub fn resume(
        config: &WorkerConfig,
        mut io: Io,
        rings: WorkerEnd<Io::Prepared>,
        exchange: Exchange,
        resumed: Resumed<Io::Prepared>,
    ) -> Result<Self, ResumeError> {
        let prompts = resumed.prompts;
        let prompt_of = |number| prompts.get(usize::try_from(number).ok()?).copied();
        let engine = Engine::import_state(config.engine, &resumed.state, prompt_of)?;
        let beginning = Beginning {
            limits: config.engine,
            origin: resumed.origin,
            state: Some(&resumed.state),
            prompts: &prompts,
        };
        let recorder = recorder(config, &beginning);
        let now = io.now();
        for OpenFlow {
            flow,
            local,
            remote,
            prepared,
        } in resumed.flows
        {
            if io.open_flow(flow, local, prepared).is_err() {
                let what = format!("the flow on {local} cannot be opened again");
                return Err(ResumeError::Io(io::Error::other(what)));
            }
            if let Some(remote) = remote {
                io.set_remote(flow, remote);
            }
        }
        // What came meanwhile is there for the first turn, before it runs the slots that were missed.
        io.flush();
        let lost_told = engine.counters().events_lost;
        Ok(Self {
            io,
            engine,
            rings,
            exchange,
            spin: config.spin,
            slots_per_turn: config.slots_per_turn.max(1),
            origin: resumed.origin,
            next: resumed.next,
            counters: resumed.counters,
            held: None,
            lost_told,
            histograms: Some(Box::default()),
            histograms_due: now.after(HISTOGRAM_PERIOD),
            idle_since: now,
            retire: limits::RETIRED_PER_TURN,
            recorder,
        })
    }
}

/// Why a worker cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// Its engine.
    #[error("{0}")]
    State(#[from] StateError),
    /// Its packet I/O.
    #[error("packet I/O: {0}")]
    Io(#[from] io::Error),
}
