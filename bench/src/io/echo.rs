//! `io echo`: every datagram back to where it came from, in the mixer's turns.

use std::fmt::{self, Display, Formatter};
use std::net::SocketAddr;
use std::time::Duration;

use mixer::io::{IoCounters, PacketIo};
use mixer::limits::{RECEIVE_BUDGET, SLOTS_PER_TURN};
use mixer_engine::packet::FlowId;
use mixer_engine::time::Timestamp;
use serde::Serialize;

use super::{EchoOptions, IoError, next_turn};
use crate::napi::Napi;
use crate::open::{self, Job, Setup};
use crate::process;

/// Time from the first packet to the measured window: neighbours and flows are known then.
const WARM_UP: Duration = Duration::from_secs(1);
/// Silence after which nothing more is expected.
const SILENCE: Duration = Duration::from_millis(500);
/// Time to wait for the first packet.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a run of `io echo` found in its window.
#[derive(Debug, Clone, Serialize)]
pub struct EchoReport {
    /// Packet I/O.
    pub backend: &'static str,
    /// Flows open.
    pub flows: u32,
    /// Length of the window, seconds.
    pub seconds: f64,
    /// Datagrams received.
    pub received: u64,
    /// Datagrams sent back.
    pub sent: u64,
    /// Datagrams that packet I/O refused or failed to send, and receive buffer shortages.
    pub failures: u64,
    /// Turns.
    pub turns: u64,
    /// CPU, nanoseconds per datagram sent back.
    pub ns_per_packet: Cost,
    /// CPU, percent of a core.
    pub cpu_percent: Cost,
}

/// CPU by who used it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Cost {
    /// This process.
    pub process: f64,
    /// The NAPI threads of the interface, when asked for.
    pub napi: Option<f64>,
    /// Both.
    pub sum: f64,
}

impl Cost {
    fn new(process: Duration, napi: Option<Duration>, unit_ns: f64) -> Self {
        let part = |time: Duration| time.as_secs_f64() * 1e9 / unit_ns;
        Self {
            process: part(process),
            napi: napi.map(part),
            sum: part(process + napi.unwrap_or_default()),
        }
    }
}

impl Display for EchoReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self {
            backend,
            flows,
            seconds,
            received,
            sent,
            failures,
            turns,
            ns_per_packet: cost,
            cpu_percent: percent,
        } = self;
        writeln!(
            f,
            "echo        {backend}, {flows} flows, {seconds:.1} s, {turns} turns"
        )?;
        writeln!(
            f,
            "packets     {received} received, {sent} sent back, {failures} i/o failures"
        )?;
        write!(
            f,
            "cpu         {:.2} % of a core; per packet sent back {:.0} ns process",
            percent.sum, cost.process
        )?;
        match cost.napi {
            Some(napi) => write!(f, " + {napi:.0} ns NAPI = {:.0} ns", cost.sum),
            None => write!(f, " (NAPI not asked for: --napi-of)"),
        }
    }
}

/// Makes the run.
///
/// # Errors
/// When it could not be made.
pub fn run(options: &EchoOptions) -> Result<EchoReport, IoError> {
    let napi = options.napi_of.as_deref();
    let napi = napi.map(|interface| Napi::find(interface, options.netns.as_deref()));
    let setup = Setup {
        backend: options.backend,
        interface: options.interface.clone(),
        address: options.address,
        ports: options.ports,
        any_port: false,
        parity: 0,
        flows: options.flows,
        core: options.core,
        xdp_mode: options.xdp_mode,
        vlan: Vec::new(),
    };
    let echo = Echo {
        setup: &setup,
        napi: napi.transpose()?,
        length: Duration::from_secs(options.seconds),
    };
    open::with(&setup, echo)
}

/// What is known at one end of the window.
#[derive(Debug, Clone, Copy)]
struct Reading {
    at: Timestamp,
    counters: IoCounters,
    turns: u64,
    process: Duration,
    napi: Option<Duration>,
}

struct Echo<'a> {
    setup: &'a Setup,
    napi: Option<Napi>,
    length: Duration,
}

impl Job for Echo<'_> {
    type Output = EchoReport;
    type Error = IoError;

    fn run<Io: PacketIo>(self, io: Io, _: &[SocketAddr]) -> Result<EchoReport, IoError> {
        // On standard error, so that a report in JSON is alone on standard output.
        eprintln!("pid {} ready", std::process::id());
        let mut mirror = Mirror::new(io, self.setup);
        let give_up = mirror.origin.after(PATIENCE);
        while mirror.last_packet.is_none() {
            if mirror.turn(self.setup) > give_up {
                return Err(IoError::NoPacket(PATIENCE.as_secs()));
            }
        }
        let begin = mirror.now.after(WARM_UP);
        while mirror.turn(self.setup) < begin {}
        let before = self.read(&mirror)?;
        let end = before.at.after(self.length);
        while mirror.turn(self.setup) < end {}
        let after = self.read(&mirror)?;
        while mirror
            .last_packet
            .is_some_and(|last| mirror.now < last.after(SILENCE))
        {
            mirror.turn(self.setup);
        }
        Ok(self.report(&before, &after))
    }
}

impl Echo<'_> {
    fn read<Io: PacketIo>(&self, mirror: &Mirror<Io>) -> Result<Reading, IoError> {
        Ok(Reading {
            at: mirror.now,
            counters: mirror.io.counters(),
            turns: mirror.turns,
            process: process::run_time(std::process::id())?,
            napi: self.napi.as_ref().map(Napi::run_time).transpose()?,
        })
    }

    fn report(&self, before: &Reading, after: &Reading) -> EchoReport {
        let wall = after.at.since(before.at);
        let process = after.process.saturating_sub(before.process);
        let napi = after.napi.zip(before.napi);
        let napi = napi.map(|(after, before)| after.saturating_sub(before));
        let sent = after.counters.sent - before.counters.sent;
        EchoReport {
            backend: self.setup.backend.name(),
            flows: self.setup.flows,
            seconds: wall.as_secs_f64(),
            received: after.counters.received - before.counters.received,
            sent,
            failures: failures(&after.counters) - failures(&before.counters),
            turns: after.turns - before.turns,
            ns_per_packet: Cost::new(process, napi, sent.max(1) as f64),
            cpu_percent: Cost::new(process, napi, wall.as_secs_f64() * 1e7),
        }
    }
}

fn failures(counters: &IoCounters) -> u64 {
    counters.send_failed
        + counters.no_send_buffer
        + counters.no_route
        + counters.interface_down
        + counters.receive_ring_full
        + counters.completion_overflow
}

/// The loop of a worker whose engine gives back what it gets.
struct Mirror<Io: PacketIo> {
    io: Io,
    origin: Timestamp,
    now: Timestamp,
    turns: u64,
    last_packet: Option<Timestamp>,
    /// Where each flow sends to.
    remotes: Vec<Option<SocketAddr>>,
    /// What this turn received: the engine copies payloads, too.
    held: Vec<Held>,
    bytes: Vec<u8>,
}

struct Held {
    flow: u32,
    source: SocketAddr,
    start: usize,
    length: usize,
}

impl<Io: PacketIo> Mirror<Io> {
    fn new(mut io: Io, setup: &Setup) -> Self {
        let origin = io.now();
        Self {
            io,
            origin,
            now: origin,
            turns: 0,
            last_packet: None,
            remotes: vec![None; setup.flows as usize],
            held: Vec::with_capacity(RECEIVE_BUDGET as usize),
            bytes: Vec::new(),
        }
    }

    /// Waits for the next turn, as often as a worker makes one, and makes it: receive, send back, flush.
    fn turn(&mut self, setup: &Setup) -> Timestamp {
        self.io.wait(next_turn(SLOTS_PER_TURN, self.origin, self.now));
        self.now = self.io.now();
        self.turns += 1;
        let (held, bytes) = (&mut self.held, &mut self.bytes);
        let taken = self.io.receive(RECEIVE_BUDGET, |datagram| {
            held.push(Held {
                flow: setup.flow_of(datagram.local_port),
                source: datagram.source,
                start: bytes.len(),
                length: datagram.payload.len(),
            });
            bytes.extend_from_slice(datagram.payload);
        });
        if taken > 0 {
            self.last_packet = Some(self.now);
        }
        for held in &self.held {
            let Some(remote) = self.remotes.get_mut(held.flow as usize) else {
                continue;
            };
            if *remote != Some(held.source) {
                *remote = Some(held.source);
                self.io.set_remote(FlowId(held.flow), held.source);
            }
            let payload = &self.bytes[held.start..held.start + held.length];
            self.io.transmit(FlowId(held.flow), |buffer| {
                buffer[..payload.len()].copy_from_slice(payload);
                payload.len()
            });
        }
        self.held.clear();
        self.bytes.clear();
        self.io.flush();
        self.now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cost_is_told_by_part_and_in_sum() {
        let (process, napi) = (Duration::from_micros(900), Some(Duration::from_micros(300)));
        let cost = Cost::new(process, napi, 600.0);
        assert!((cost.process - 1_500.0).abs() < 1e-6);
        assert!((cost.sum - 2_000.0).abs() < 1e-6);
        let alone = Cost::new(process, None, 600.0);
        assert_eq!((alone.napi, alone.sum), (None, alone.process));
    }
}
