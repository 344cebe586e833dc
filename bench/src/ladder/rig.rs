//! One engine under one load.

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use mixer::io::cache;
use mixer_engine::command::{Command, ConferenceIndex, EndpointIndex};
use mixer_engine::engine::share::{Partial, Parts, RoomId, Share, ShareSetup};
use mixer_engine::engine::{Conference, ConferenceSetup, Endpoint, EndpointSetup, Engine, EngineLimits};
use mixer_engine::media::{Codec, Direction, MediaPlan, RECEIVE_FORMATS_MAX, SourceRule};
use mixer_engine::packet::{Datagram, Filled, FlowId, PacketSink};
use mixer_engine::time::{Slot, Timestamp};
use rtrb::{Consumer, Producer, RingBuffer};

use super::Cost;
use super::loads::Load;
use crate::seed::Seed;
use crate::sound::{FRAME, FRAME_UNITS};

const PORT_FIRST: u16 = 10_000;
/// Ticks before anything is measured: jitter buffers settle, caches warm up.
const WARM_UP: u32 = 50;
pub(super) const TICK_NS: u64 = 20_000_000;
pub(super) const PAYLOAD_TYPE: u8 = 96;
/// Packets of noise that talkers send.
pub(super) const NOISES: usize = 16;

/// Takes every packet; buffers rotate as a device's do.
struct Sink {
    buffers: Vec<[u8; 2_048]>,
    next: usize,
    sent: Vec<u32>,
}

impl PacketSink for Sink {
    fn transmit<F: Into<Filled>>(&mut self, flow: FlowId, fill: impl FnOnce(&mut [u8]) -> F) -> bool {
        self.next = (self.next + 1) % self.buffers.len();
        black_box(fill(&mut self.buffers[self.next]).into());
        self.sent[flow.0 as usize] += 1;
        true
    }

    fn set_remote(&mut self, _flow: FlowId, _remote: SocketAddr) {}

    #[inline]
    fn prefetch<T>(&self, soon: &T) {
        cache::prefetch(soon);
    }
}

struct Leg {
    port: u16,
    source: SocketAddr,
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
    /// Which of the packets it sends.
    packet: usize,
}

/// An engine with all its legs.
pub(super) struct Rig {
    load: Load,
    engine: Engine,
    sink: Sink,
    legs: Vec<Leg>,
    /// What legs send but for the header: one packet of silence, some of noise. A packet has just been
    /// written when an engine gets it, by a device or the kernel; so are these.
    packets: Vec<Vec<u8>>,
    tick: u64,
    /// Who has the other part of its room.
    other: Option<Other>,
}

/// Ways to and from an engine that has the other part of a room.
pub(super) struct Other {
    to: Producer<Partial>,
    from: Consumer<Partial>,
}

impl Other {
    /// Each other's.
    pub(super) fn pair() -> (Self, Self) {
        let (to_first, of_first) = RingBuffer::new(2);
        let (to_second, of_second) = RingBuffer::new(2);
        let first = Self {
            to: to_second,
            from: of_first,
        };
        let second = Self {
            to: to_first,
            from: of_second,
        };
        (first, second)
    }

    /// Tells the other what there is to tell, and waits for what it has to tell of the same tick.
    fn exchange(&mut self, engine: &mut Engine) {
        while let Some(partial) = engine.poll_partial().cloned() {
            assert!(self.to.push(partial).is_ok(), "the other takes one in every tick");
            let theirs = loop {
                match self.from.pop() {
                    Ok(theirs) => break theirs,
                    Err(_) => std::hint::spin_loop(),
                }
            };
            engine.take_partial(&theirs);
        }
    }
}

impl Rig {
    pub(super) fn new(load: Load, codec: Codec) -> Self {
        let count = load.legs();
        let ports = u16::try_from(count).unwrap_or(u16::MAX - PORT_FIRST);
        let engine = Engine::new(EngineLimits {
            conferences: load.rooms,
            endpoints: count,
            port_first: PORT_FIRST,
            port_last: PORT_FIRST + ports - 1,
            events: 4_096,
            media_timeout_ms: 60_000,
        });
        let sink = Sink {
            buffers: vec![[0; 2_048]; 64],
            next: 0,
            sent: vec![0; count as usize],
        };
        let mut rig = Self {
            load,
            engine,
            sink,
            legs: Vec::new(),
            packets: Vec::new(),
            tick: 0,
            other: None,
        };
        let mut seed = Seed::new(1);
        rig.packets = (0..=NOISES)
            .map(|number| packet(number > 0, codec, &mut seed))
            .collect();
        for room in 0..load.rooms {
            let phase = u8::try_from(room % 20).unwrap_or(0);
            let conference = Conference::new(ConferenceSetup { phase, talkers: None });
            rig.apply(Command::AddConference {
                at: ConferenceIndex(room),
                conference,
            });
            for place in 0..load.talkers + load.listeners {
                rig.seat(room, place < load.talkers, codec, &mut seed);
            }
        }
        rig
    }

    /// Makes its first room a part of one, whose other part another engine has.
    pub(super) fn share(&mut self, own: u8, other: Other) {
        let share = Share::new(ShareSetup {
            room: RoomId(1),
            own,
            others: Parts::NONE.with(1 - own),
        });
        let at = ConferenceIndex(0);
        self.apply(Command::Share { at, share });
        self.other = Some(other);
    }

    fn apply(&mut self, command: Command) {
        let outcome = self.engine.apply(Timestamp(0), Slot(0), command, &mut self.sink);
        assert!(outcome.result.is_ok(), "the engine has room for the load");
    }

    fn seat(&mut self, room: u32, talks: bool, codec: Codec, seed: &mut Seed) {
        let index = u16::try_from(self.legs.len()).unwrap_or(u16::MAX);
        let port = PORT_FIRST + index;
        let source = SocketAddr::from((Ipv4Addr::new(10, 0, 0, 1), 20_000 + index));
        let mut receive = [None; RECEIVE_FORMATS_MAX];
        receive[0] = Some((PAYLOAD_TYPE, codec));
        let media = MediaPlan {
            remote: source,
            direction: Direction {
                send: true,
                receive: true,
            },
            send_codec: codec,
            send_payload_type: PAYLOAD_TYPE,
            send_ptime_ms: 20,
            receive,
            telephone_event: None,
            source: SourceRule::Strict,
        };
        let endpoint = Endpoint::new(EndpointSetup {
            local_port: port,
            ssrc: seed.word(),
            sequence: seed.half(),
            timestamp: seed.word(),
            media: Some(media),
            slots: 16,
            trunk: false,
        });
        let (conference, at) = (ConferenceIndex(room), EndpointIndex(u32::from(index)));
        self.apply(Command::AddEndpoint {
            conference,
            at,
            endpoint,
        });
        let (sequence, timestamp) = (seed.half(), seed.word());
        self.legs.push(Leg {
            port,
            source,
            ssrc: seed.word(),
            sequence,
            timestamp,
            packet: if talks { 1 + usize::from(index) % NOISES } else { 0 },
        });
    }

    /// Lets jitter buffers settle and fills the caches.
    pub(super) fn warm_up(&mut self) {
        self.run(WARM_UP);
    }

    /// Runs so many ticks.
    pub(super) fn run(&mut self, ticks: u32) {
        for _ in 0..ticks {
            self.run_tick();
        }
    }

    /// Runs warm-up and `ticks` ticks. The median tick tells the cost, the longest whether all were in time.
    pub(super) fn measure(&mut self, ticks: u32) -> Cost {
        self.warm_up();
        let encodes_before: u64 = self.engine.counters().encodes.iter().sum();
        let (mut receive, mut mix): (Vec<u64>, Vec<u64>) = (0..ticks).map(|_| self.run_tick()).unzip();
        let mut whole: Vec<u64> = receive
            .iter()
            .zip(&mix)
            .map(|(receive, mix)| receive + mix)
            .collect();
        let encodes = self.engine.counters().encodes.iter().sum::<u64>() - encodes_before;
        let legs = self.legs.len() as f64;
        let (receive_ns, tick_ns) = (median(&mut receive) as f64 / legs, median(&mut mix) as f64 / legs);
        Cost {
            load: self.load,
            receive_ns,
            tick_ns,
            total_ns: receive_ns + tick_ns,
            percent_per_1000_legs: (receive_ns + tick_ns) * 1_000.0 / TICK_NS as f64 * 100.0,
            encodes_per_tick: encodes as f64 / f64::from(ticks) / f64::from(self.load.rooms),
            whole_p99_us: quantile(&mut whole, 99) as f64 / 1_000.0,
            whole_longest_us: quantile(&mut whole, 100) as f64 / 1_000.0,
        }
    }

    /// Whether every sum of the other part came.
    pub(super) fn missed_nothing(&self) -> bool {
        let counters = self.engine.counters();
        counters.partials_missing == 0 && counters.partials_added == self.tick
    }

    /// Whether every leg got one packet for every tick, the first few aside.
    pub(super) fn sent_everybody(&self) -> bool {
        self.sink
            .sent
            .iter()
            .all(|&sent| u64::from(sent) + 3 >= self.tick)
    }

    /// One packet from every leg, then twenty slots; nanoseconds of both.
    fn run_tick(&mut self) -> (u64, u64) {
        let received_at = Timestamp(self.tick * TICK_NS);
        let start = now();
        for leg in &mut self.legs {
            leg.sequence = leg.sequence.wrapping_add(1);
            leg.timestamp = leg.timestamp.wrapping_add(FRAME_UNITS);
            let packet = &mut self.packets[leg.packet];
            packet[2..4].copy_from_slice(&leg.sequence.to_be_bytes());
            packet[4..8].copy_from_slice(&leg.timestamp.to_be_bytes());
            packet[8..12].copy_from_slice(&leg.ssrc.to_be_bytes());
            self.engine.handle_datagram(&Datagram {
                local_port: leg.port,
                source: leg.source,
                payload: packet,
                received_at,
            });
        }
        let received = now();
        for slot in 0..Slot::PER_TICK {
            let slot = Slot(self.tick * Slot::PER_TICK + slot);
            self.engine
                .run_slot(slot, slot.begins(Timestamp(0)), &mut self.sink);
            if let Some(other) = &mut self.other {
                other.exchange(&mut self.engine);
            }
        }
        let mixed = now();
        while self.engine.poll_event().is_some() {}
        self.tick += 1;
        (nanoseconds(received - start), nanoseconds(mixed - received))
    }
}

/// A packet whose sequence number, timestamp and source are still to be written.
pub(super) fn packet(noise: bool, codec: Codec, seed: &mut Seed) -> Vec<u8> {
    let mut packet = vec![0x80, PAYLOAD_TYPE];
    packet.resize(12, 0);
    packet.extend(
        (0..FRAME * codec.bytes_per_sample()).map(|_| match (noise, codec) {
            (true, _) => seed.bits().to_be_bytes()[0],
            (false, Codec::Pcmu) => 0xff,
            (false, Codec::Pcma) => 0xd5,
            (false, Codec::L16) => 0,
        }),
    );
    packet
}

/// The mixer's own clock reads the vDSO by itself, which a program under valgrind cannot.
#[expect(clippy::disallowed_methods, reason = "a measurement; nothing depends on it")]
pub(super) fn now() -> Instant {
    Instant::now()
}

pub(super) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

pub(super) fn median(values: &mut [u64]) -> u64 {
    quantile(values, 50)
}

/// The smallest value that `percent` of all do not exceed.
fn quantile(values: &mut [u64], percent: usize) -> u64 {
    values.sort_unstable();
    let rank = (values.len() * percent).div_ceil(100);
    values.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let mut values: Vec<u64> = (1..=200).rev().collect();
        assert_eq!(quantile(&mut values, 99), 198);
        assert_eq!(quantile(&mut values, 100), 200);
        assert_eq!(median(&mut values), 100);
        assert_eq!(quantile(&mut [], 99), 0);
    }
}
