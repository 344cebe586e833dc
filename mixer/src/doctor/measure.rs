//! A second of measuring: what a leg costs on one core of this machine.
//!
//! Two costs, in time for which one thread held its core: the engine's, fed in memory, and that of packet
//! I/O, sockets of this thread talking to each other over loopback. The latter leaves out what a NIC's
//! driver and interrupts cost; the lines say so.
//!
//! Held is the clock, less the time the thread waited for its core (`/proc/thread-self/schedstat`: other
//! processes) and for packets. Its CPU time would not do: kernels that account interrupts apart leave
//! the receive path out of it, which on loopback runs within the send.
//!
//! Another backend joins by [`packet_cost`], which takes any [`PacketIo`], and a line of [`legs`].

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use mixer_engine::command::{Command, ConferenceIndex, EndpointIndex};
use mixer_engine::engine::{Conference, ConferenceSetup, Endpoint, EndpointSetup, Engine, EngineLimits};
use mixer_engine::media::{Codec, Direction, MediaPlan, SourceRule};
use mixer_engine::packet::{Datagram, Filled, FlowId, PacketSink};
use mixer_engine::time::{Slot, Timestamp};
use mixer_engine::wire::rtp::RtpRepr;

use super::Line;
use crate::clock::Clock;
use crate::io::PacketIo;
use crate::io::uring::{self, BindOptions, UringConfig, UringIo};

/// Packets a second each way of one leg: 20 ms each.
const PACKETS_PER_SECOND: u64 = 50;
/// Share of a core that is planned with, percent; the rest is for bursts.
const PLANNED_PERCENT: u64 = 70;
/// Time of the core spent on each of the two costs.
const BUDGET: Duration = Duration::from_millis(400);

/// Conferences, legs in each, and how many of those talk.
const CONFERENCES: u32 = 100;
const LEGS_PER_CONFERENCE: u32 = 10;
const TALKERS: u32 = 3;
const LEGS: u32 = CONFERENCES * LEGS_PER_CONFERENCE;
/// Sockets of the packet measurement; as many as legs, because memory that is not in a cache costs.
const FLOWS: u32 = LEGS;
/// Packets on their way at once: what comes to so many legs between two turns.
const BURST: usize = 100;
/// RTP with 20 ms of G.711.
const PACKET: usize = 172;

/// What packet I/O costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketCost {
    /// Backend.
    pub backend: &'static str,
    /// What it was measured over, as the line says it.
    pub over: &'static str,
    /// Nanoseconds of a core to receive one packet and send one.
    pub nanoseconds: u64,
}

/// Measures on a thread pinned to `core` and tells.
#[must_use]
pub fn examine(core: Option<usize>) -> Vec<Line> {
    let measured = std::thread::Builder::new()
        .name("doctor".to_owned())
        .spawn(move || {
            if let Some(id) = core.map(|id| core_affinity::CoreId { id }) {
                // Not pinned is measured as well; the scheduler rarely moves a busy thread.
                core_affinity::set_for_current(id);
            }
            (engine_cost(BUDGET), uring_cost(BUDGET))
        })
        .map(std::thread::JoinHandle::join);
    let (engine, uring) = match measured {
        Ok(Ok(costs)) => costs,
        Ok(Err(_)) | Err(_) => return vec![Line::warn(WHAT, "could not be measured: no thread")],
    };
    let engine = match engine {
        Ok(cost) => cost,
        Err(error) => return vec![Line::warn(WHAT, format!("could not be measured: {error}"))],
    };
    let mut lines = vec![Line::ok(
        "engine",
        format!(
            "{} a leg and tick, measured in memory: {LEGS} legs, {CONFERENCES} conferences of {LEGS_PER_CONFERENCE}, \
             {TALKERS} talkers each, G.711",
            microseconds(engine)
        ),
    )];
    match uring {
        Ok(cost) => lines.extend(legs(engine, &cost)),
        Err(error) => lines.push(Line::warn(
            "packet I/O",
            format!("io_uring could not be measured: {error}"),
        )),
    }
    lines
}

const WHAT: &str = "legs per core";

/// Lines about one backend: its cost, and what a core carries with it. `engine` is in nanoseconds a
/// leg and tick.
#[must_use]
pub fn legs(engine: u64, packet: &PacketCost) -> [Line; 2] {
    let (backend, over) = (packet.backend, packet.over);
    let legs = legs_per_core(engine, packet.nanoseconds);
    // More digits would be a lie.
    let legs = if legs >= 1_000 { legs / 100 * 100 } else { legs };
    [
        Line::ok(
            "packet I/O",
            format!(
                "{backend}: {} to receive and send one packet, {over}",
                microseconds(packet.nanoseconds)
            ),
        ),
        Line::ok(
            WHAT,
            format!(
                "at most about {legs} with {backend} (20 ms packets both ways, {PLANNED_PERCENT} % of a core planned; \
                 the two costs above only: the NIC's driver, interrupts and waking up come on top)"
            ),
        ),
    ]
}

/// Legs that a core carries: each costs so many nanoseconds in the engine and in packet I/O, every tick.
#[must_use]
pub fn legs_per_core(engine: u64, packet: u64) -> u64 {
    let planned = 1_000_000_000 / 100 * PLANNED_PERCENT;
    planned / ((engine + packet) * PACKETS_PER_SECOND).max(1)
}

fn microseconds(nanoseconds: u64) -> String {
    format!("{}.{:02} us", nanoseconds / 1_000, nanoseconds % 1_000 / 10)
}

/// How long this thread has waited for its core so far.
fn core_awaited() -> io::Result<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds = text.split_whitespace().nth(1).and_then(|text| text.parse().ok());
    nanoseconds
        .map(Duration::from_nanos)
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// What a round did.
#[derive(Debug, Clone, Copy)]
struct Round {
    units: u64,
    /// Time it slept.
    idle: Duration,
}

/// Repeats `round` until the thread has held its core for `budget`. Nanoseconds for each unit done.
fn cost_of(budget: Duration, mut round: impl FnMut() -> Round) -> io::Result<u64> {
    // The first round fills caches and is not counted.
    round();
    let (clock, awaited_before) = (Clock::start(), core_awaited()?);
    let begin = clock.now();
    let (mut units, mut idle) = (0, Duration::ZERO);
    for _ in 0..ROUNDS_MAX {
        let done = round();
        units += done.units;
        idle += done.idle;
        if idle > IDLE_MAX {
            break;
        }
        let awaited = core_awaited()?.saturating_sub(awaited_before);
        let held = clock.now().since(begin).saturating_sub(awaited + idle);
        if held >= budget {
            let held = u64::try_from(held.as_nanos()).unwrap_or(u64::MAX);
            return held
                .checked_div(units)
                .ok_or_else(|| io::ErrorKind::TimedOut.into());
        }
    }
    // Rounds that take no time carry no packets.
    Err(io::ErrorKind::TimedOut.into())
}

/// Rounds of any measurement at most.
const ROUNDS_MAX: u32 = 5_000;
/// Longest sleep in a measurement: packets got lost, and nothing comes any more.
const IDLE_MAX: Duration = Duration::from_secs(1);

/// Nanoseconds of the engine for one leg and tick: one packet in, one frame mixed, one packet out.
///
/// # Errors
/// The kernel does not tell how long a thread waited for its core.
pub fn engine_cost(budget: Duration) -> io::Result<u64> {
    let mut hall = Hall::new();
    cost_of(budget, || {
        for _ in 0..10 {
            hall.tick();
        }
        Round {
            units: u64::from(LEGS) * 10,
            idle: Duration::ZERO,
        }
    })
}

/// An engine full of legs, without a network.
struct Hall {
    engine: Engine,
    sink: Discard,
    tick: u16,
    packet: [u8; PACKET],
}

impl Hall {
    fn new() -> Self {
        let mut engine = Engine::new(EngineLimits {
            conferences: CONFERENCES,
            endpoints: LEGS,
            port_first: PORT_FIRST,
            port_last: port(LEGS),
            events: 1_024,
            media_timeout_ms: 60_000,
        });
        let mut sink = Discard::default();
        let mut apply = |command| {
            // Places and ports are free in a new engine.
            let _ = engine.apply(Timestamp(0), Slot(0), command, &mut sink);
        };
        for at in 0..CONFERENCES {
            let phase = u8::try_from(u64::from(at) % Slot::PER_TICK).unwrap_or(0);
            let conference = Conference::new(ConferenceSetup { phase, talkers: None });
            apply(Command::AddConference {
                at: ConferenceIndex(at),
                conference,
            });
        }
        for at in 0..LEGS {
            let endpoint = Endpoint::new(EndpointSetup {
                local_port: port(at),
                ssrc: at + 1,
                sequence: 0,
                timestamp: 0,
                media: Some(media(remote(at))),
                slots: 16,
                trunk: false,
            });
            apply(Command::AddEndpoint {
                conference: ConferenceIndex(at / LEGS_PER_CONFERENCE),
                at: EndpointIndex(at),
                endpoint,
            });
        }
        Self {
            engine,
            sink,
            tick: 0,
            packet: [0xff; PACKET],
        }
    }

    /// 20 ms: every leg sends, every conference ticks.
    fn tick(&mut self) {
        let first = u64::from(self.tick) * Slot::PER_TICK;
        let now = Slot(first).begins(Timestamp(0));
        for at in 0..LEGS {
            let talks = at % LEGS_PER_CONFERENCE < TALKERS;
            for (place, sample) in self.packet[12..].iter_mut().enumerate() {
                let high = (place / (4 + at as usize % 20)).is_multiple_of(2);
                *sample = if !talks {
                    0xff
                } else if high {
                    0x90
                } else {
                    0x10
                };
            }
            let header = RtpRepr {
                payload_type: 0,
                marker: self.tick == 0,
                sequence: self.tick,
                timestamp: u32::from(self.tick) * 160,
                ssrc: 0x5000_0000 + at,
                csrc: &[],
            };
            // The length of a header without extras is known.
            let _ = header.emit(&mut self.packet);
            self.engine.handle_datagram(&Datagram {
                local_port: port(at),
                source: remote(at),
                payload: &self.packet,
                received_at: now,
            });
        }
        for slot in first..first + Slot::PER_TICK {
            self.engine
                .run_slot(Slot(slot), Slot(slot).begins(Timestamp(0)), &mut self.sink);
        }
        while self.engine.poll_event().is_some() {}
        self.tick = self.tick.wrapping_add(1);
    }
}

/// Sends nowhere; counts.
#[derive(Debug)]
struct Discard {
    sent: u64,
    buffer: [u8; 1_500],
}

impl Default for Discard {
    fn default() -> Self {
        Self {
            sent: 0,
            buffer: [0; 1_500],
        }
    }
}

impl PacketSink for Discard {
    fn transmit<F: Into<Filled>>(&mut self, _: FlowId, fill: impl FnOnce(&mut [u8]) -> F) -> bool {
        self.sent += u64::from(fill(&mut self.buffer).into().length > 0);
        true
    }

    fn set_remote(&mut self, _: FlowId, _: SocketAddr) {}
}

const PORT_FIRST: u16 = 10_000;

fn port(at: u32) -> u16 {
    // A few hundred legs.
    PORT_FIRST + u16::try_from(at * 2).unwrap_or(0)
}

/// A phone's address.
fn remote(at: u32) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), port(at)))
}

fn media(remote: SocketAddr) -> MediaPlan {
    let mut receive = [None; mixer_engine::media::RECEIVE_FORMATS_MAX];
    if let Some(first) = receive.first_mut() {
        *first = Some((0, Codec::Pcmu));
    }
    MediaPlan {
        remote,
        direction: Direction {
            send: true,
            receive: true,
        },
        send_codec: Codec::Pcmu,
        send_payload_type: 0,
        send_ptime_ms: 20,
        receive,
        telephone_event: None,
        source: SourceRule::Strict,
    }
}

/// Cost of io_uring over loopback.
///
/// # Errors
/// No io_uring, no ports, or the kernel does not tell how long a thread waited for its core.
pub fn uring_cost(budget: Duration) -> io::Result<PacketCost> {
    let clock = Clock::start();
    let mut io = UringIo::new(&UringConfig::new(clock, FLOWS))?;
    let mut ports = Vec::new();
    for flow in 0..FLOWS {
        let prepared = uring::bind((Ipv4Addr::LOCALHOST, 0).into(), &BindOptions::default())?;
        let local = prepared.local();
        io.open_flow(FlowId(flow), local, prepared)
            .map_err(|_| io::ErrorKind::Other)?;
        ports.push(local.port());
    }
    packet_cost(&mut io, &ports, budget).map(|nanoseconds| PacketCost {
        backend: "io_uring",
        over: "measured with 1000 sockets of one thread over loopback, not over the NIC",
        nanoseconds,
    })
}

/// Nanoseconds to receive and send one packet: the open flows 0.. of `io`, on these loopback ports,
/// are paired; for each packet that arrives at one, the next in turn sends one to its partner. Anything that packet I/O costs on this thread is in it.
///
/// # Errors
/// Nothing comes back, or the kernel does not tell how long a thread waited for its core.
pub fn packet_cost<Io: PacketIo>(io: &mut Io, ports: &[u16], budget: Duration) -> io::Result<u64> {
    let flow = |at: usize| FlowId(u32::try_from(at).unwrap_or(u32::MAX));
    for at in 0..ports.len() {
        if let Some(peer) = ports.get(at ^ 1) {
            io.set_remote(flow(at), SocketAddr::from((Ipv4Addr::LOCALHOST, *peer)));
        }
    }
    // Receives are armed before anything is on its way.
    io.flush();
    let mut turn = 0;
    let mut send = |io: &mut Io| {
        turn = (turn + 1) % ports.len().max(1);
        io.transmit(flow(turn), |buffer| {
            buffer[..PACKET].fill(0x55);
            PACKET
        })
    };
    for _ in 0..BURST {
        send(io);
    }
    io.flush();
    cost_of(budget, || {
        let mut round = Round {
            units: 0,
            idle: Duration::ZERO,
        };
        for _ in 0..16 {
            let now = io.now();
            let taken = io.receive(u32::MAX, |_| ());
            for _ in 0..taken {
                send(io);
            }
            io.flush();
            if taken == 0 {
                io.wait(now.after(Slot::LENGTH));
                round.idle += io.now().since(now);
            }
            round.units += u64::from(taken);
        }
        round
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hall_mixes_what_it_is_fed() {
        let mut hall = Hall::new();
        for _ in 0..20 {
            hall.tick();
        }
        let counters = hall.engine.counters();
        assert_eq!(counters.rtp_received, 20 * u64::from(LEGS), "{counters:?}");
        assert!(hall.sink.sent >= 15 * u64::from(LEGS), "{} sent", hall.sink.sent);
    }

    #[test]
    fn arithmetic() {
        // 50 times 2 + 5 us a second is 350 us: 70 % of a core holds 2,000 of them.
        assert_eq!(legs_per_core(2_000, 5_000), 2_000);
        assert_eq!(legs_per_core(0, 0), 700_000_000);
        assert_eq!(microseconds(5_071), "5.07 us");
    }

    #[test]
    fn a_second_tells_what_a_core_carries() {
        let lines = examine(None);
        let text = super::super::text(&lines);
        // A machine without io_uring says so.
        if uring_cost(Duration::from_millis(1)).is_ok() {
            assert_eq!(lines.len(), 3, "{text}");
            assert!(
                text.contains("not over the NIC") && text.contains("legs per core: at most about "),
                "{text}"
            );
        } else {
            assert!(text.contains("io_uring could not be measured"), "{text}");
        }
    }
}
