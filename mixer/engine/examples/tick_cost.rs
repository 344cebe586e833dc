//! What a listener and a talker cost per tick, without packet I/O.
//!
//! `cargo run --release -p mixer-engine --example tick_cost [seconds]`
//!
//! All legs are PCMU at 20 ms and send all the time: talkers noise, listeners digital silence. Costs
//! are of receive, tick and send of one leg; fits over rooms of several sizes separate the two.

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mixer_engine::command::{Command, ConferenceIndex, EndpointIndex};
use mixer_engine::engine::{Conference, ConferenceSetup, Endpoint, EndpointSetup, Engine, EngineLimits};
use mixer_engine::media::{Codec, Direction, MediaPlan, SourceRule};
use mixer_engine::packet::{Datagram, FlowId, PacketSink};
use mixer_engine::time::{Slot, Timestamp};
use mixer_engine::wire::rtp::RtpRepr;

const PORT_FIRST: u16 = 10_000;

/// Takes everything; the transmit buffers rotate like those of a device.
struct Sink {
    buffers: Vec<[u8; 2048]>,
    next: usize,
}

impl PacketSink for Sink {
    fn transmit(&mut self, _flow: FlowId, fill: impl FnOnce(&mut [u8]) -> usize) -> bool {
        self.next = (self.next + 1) % self.buffers.len();
        black_box(fill(&mut self.buffers[self.next]));
        true
    }

    fn set_remote(&mut self, _flow: FlowId, _remote: SocketAddr) {}
}

/// Time spent, in three parts.
#[derive(Default, Clone, Copy)]
struct Cost {
    receive: Duration,
    tick: Duration,
}

/// One load.
struct Load {
    conferences: u32,
    talkers: u32,
    listeners: u32,
}

struct Leg {
    port: u16,
    source: SocketAddr,
    bytes: Vec<u8>,
    talks: bool,
}

fn main() {
    let seconds = std::env::args()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .unwrap_or(10);
    println!("Box<Endpoint>: {} bytes inline", std::mem::size_of::<Endpoint>());
    println!(
        "{:>5} {:>7} {:>9} | ns per leg and tick: {:>8} {:>8}",
        "rooms", "talkers", "listeners", "receive", "tick"
    );
    for load in [
        Load {
            conferences: 1,
            talkers: 1,
            listeners: 299,
        },
        Load {
            conferences: 1,
            talkers: 3,
            listeners: 297,
        },
        Load {
            conferences: 1,
            talkers: 300,
            listeners: 0,
        },
        Load {
            conferences: 100,
            talkers: 2,
            listeners: 1,
        },
        Load {
            conferences: 100,
            talkers: 3,
            listeners: 0,
        },
        Load {
            conferences: 1,
            talkers: 3,
            listeners: 2997,
        },
        Load {
            conferences: 1000,
            talkers: 1,
            listeners: 2,
        },
    ] {
        let legs = load.conferences * (load.talkers + load.listeners);
        let cost = measure(&load, seconds);
        let per_leg = |time: Duration| {
            #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
            let nanos = time.as_nanos() as f64 / f64::from(legs) / (50.0 * seconds as f64);
            nanos
        };
        println!(
            "{:>5} {:>7} {:>9} |                      {:>8.0} {:>8.0}",
            load.conferences,
            load.talkers,
            load.listeners,
            per_leg(cost.receive),
            per_leg(cost.tick)
        );
    }
}

fn measure(load: &Load, seconds: u64) -> Cost {
    let (mut engine, mut legs) = build(load);
    let mut sink = Sink {
        buffers: vec![[0; 2048]; 256],
        next: 0,
    };
    let mut best = Cost {
        receive: Duration::MAX,
        tick: Duration::MAX,
    };
    let mut second = Cost::default();
    // The first second fills the jitter buffers; the figure is the sum of the rest, scaled from its
    // best second: the machine has other things to do, too.
    for slot in 0..(seconds + 1) * 1000 {
        let now = Slot(slot).begins(Timestamp(0));
        if slot % 20 == 0 {
            next_packets(&mut legs, slot / 20);
            let started = clock();
            for leg in &legs {
                let payload = &leg.bytes[..];
                engine.handle_datagram(&Datagram {
                    local_port: leg.port,
                    source: leg.source,
                    payload,
                    received_at: now,
                });
            }
            second.receive += started.elapsed();
        }
        let started = clock();
        engine.run_slot(Slot(slot), now, &mut sink);
        second.tick += started.elapsed();
        while engine.poll_event().is_some() {}
        if slot % 1000 == 999 {
            if slot > 1000 {
                best.receive = best.receive.min(second.receive);
                best.tick = best.tick.min(second.tick);
            }
            second = Cost::default();
        }
    }
    assert_eq!(engine.counters().dropped.iter().sum::<u64>(), 0);
    let times = u32::try_from(seconds).unwrap_or(1);
    Cost {
        receive: best.receive * times,
        tick: best.tick * times,
    }
}

#[expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]
fn clock() -> Instant {
    Instant::now()
}

fn build(load: &Load) -> (Engine, Vec<Leg>) {
    let endpoints = load.conferences * (load.talkers + load.listeners);
    let limits = EngineLimits {
        conferences: load.conferences,
        endpoints,
        port_first: PORT_FIRST,
        port_last: 65_000,
        events: 100_000,
        media_timeout_ms: 60_000,
    };
    let mut engine = Engine::new(limits);
    engine.set_origin(Timestamp(0));
    let mut sink = Sink {
        buffers: vec![[0; 2048]],
        next: 0,
    };
    let mut legs = Vec::new();
    for room in 0..load.conferences {
        let at = ConferenceIndex(room);
        let phase = u8::try_from(room % 20).unwrap_or(0);
        let conference = Conference::new(ConferenceSetup { phase });
        apply(&mut engine, &mut sink, Command::AddConference { at, conference });
        for member in 0..load.talkers + load.listeners {
            let number = u32::try_from(legs.len()).unwrap_or(0);
            let leg = leg(number, member < load.talkers);
            let endpoint = Endpoint::new(setup(&leg, number));
            apply(
                &mut engine,
                &mut sink,
                Command::AddEndpoint {
                    conference: at,
                    at: EndpointIndex(number),
                    endpoint,
                },
            );
            legs.push(leg);
        }
    }
    (engine, legs)
}

fn apply(engine: &mut Engine, sink: &mut Sink, command: Command) {
    let outcome = engine.apply(Timestamp(0), Slot(0), command, sink);
    assert_eq!(outcome.result, Ok(()));
}

fn leg(number: u32, talks: bool) -> Leg {
    let [_, _, high, low] = number.to_be_bytes();
    Leg {
        port: PORT_FIRST + u16::from_be_bytes([high, low]),
        source: SocketAddr::from(([10, 1, high, low], 4000)),
        bytes: vec![0xFF; 172],
        talks,
    }
}

fn setup(leg: &Leg, number: u32) -> EndpointSetup {
    let mut receive = [None; 8];
    receive[0] = Some((0, Codec::Pcmu));
    let media = MediaPlan {
        remote: leg.source,
        direction: Direction {
            send: true,
            receive: true,
        },
        send_codec: Codec::Pcmu,
        send_payload_type: 0,
        send_ptime_ms: 20,
        receive,
        telephone_event: Some(101),
        source: SourceRule::Strict,
    };
    EndpointSetup {
        local_port: leg.port,
        ssrc: number,
        sequence: 0,
        timestamp: 0,
        media: Some(media),
        slots: 16,
    }
}

/// Writes every leg's packet of a tick: noise of a few repeating shapes, or silence.
fn next_packets(legs: &mut [Leg], tick: u64) {
    for (number, leg) in (0_u32..).zip(legs) {
        let header = RtpRepr {
            payload_type: 0,
            marker: tick == 0,
            sequence: u16::try_from(tick & 0xFFFF).unwrap_or(0),
            timestamp: u32::try_from(tick & 0xFF_FFFF).unwrap_or(0) * 160,
            ssrc: 0x5500_0000 | number,
            csrc: &[],
        };
        let at = header.emit(&mut leg.bytes);
        if leg.talks {
            for (n, byte) in leg.bytes[at..].iter_mut().enumerate() {
                *byte = 0xA0 | u8::try_from((((n * 37) >> 3) ^ number as usize) & 0x1F).unwrap_or(0);
            }
        }
    }
}
