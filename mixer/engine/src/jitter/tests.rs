//! A virtual network in front of a buffer that is ticked every 20 ms.

mod arbitrary;
mod networks;
mod rules;
mod skew;

use super::*;
use crate::counters::FrameOutcome;

const SSRC: u32 = 0xfeed;

/// One packet on its way.
#[derive(Debug, Clone)]
struct Flight {
    at: Timestamp,
    meta: PacketMeta,
    payload: Vec<u8>,
}

/// One tick's result.
#[derive(Debug, Clone)]
struct Heard {
    kind: FrameKind,
    payload: Option<Vec<u8>>,
}

/// A buffer, its engine's counters, and what the invariants need.
struct Bench {
    buffer: JitterBuffer,
    counters: Counters,
    /// Frames that a tick was asked for while the source was sending.
    asked: u64,
    heard: Vec<Heard>,
    inserts: Vec<Insert>,
    /// Smoothed playout delay after every tick.
    delays: Vec<u32>,
}

impl Bench {
    fn new(slots: u8) -> Self {
        Self {
            buffer: JitterBuffer::new(JitterSetup {
                slots,
                payload_bytes: 480,
            }),
            counters: Counters::default(),
            asked: 0,
            heard: Vec::new(),
            inserts: Vec::new(),
            delays: Vec::new(),
        }
    }

    fn insert(&mut self, flight: &Flight) -> Insert {
        let insert = self
            .buffer
            .insert(flight.at, flight.meta, &flight.payload, &mut self.counters);
        self.inserts.push(insert);
        insert
    }

    fn tick(&mut self, at: Timestamp) -> Heard {
        self.late_tick(at, at)
    }

    fn late_tick(&mut self, at: Timestamp, now: Timestamp) -> Heard {
        let mut out = [77_i16; FRAME];
        let pulled = self.buffer.pull(at, now, &mut out, &mut self.counters);
        let mut kind = pulled.frame;
        if let (FrameKind::Idle, Some((codec, payload))) = (kind, pulled.passthrough) {
            assert_eq!(out, [77; FRAME], "left alone");
            out.fill(codec::idle(codec, payload).unwrap());
            kind = FrameKind::Decoded;
        }
        let heard = Heard {
            kind,
            payload: pulled.passthrough.map(|(_, payload)| payload.to_vec()),
        };
        if let Some((codec, payload)) = pulled.passthrough {
            let mut expected = [0_i16; FRAME];
            assert_eq!(codec::decode(codec, payload, &mut expected), FRAME);
            assert_eq!(out, expected);
        }
        if heard.kind == FrameKind::Nothing {
            assert_eq!(out, [0; FRAME]);
        } else {
            self.asked += 1;
        }
        self.delays.push(self.buffer.playout_delay_us());
        self.heard.push(heard.clone());
        heard
    }

    /// Runs all packets and as many ticks, the first one at `first_tick`; a packet and a tick at
    /// the same time come in this order.
    fn run(&mut self, flights: &[Flight], first_tick: Timestamp, ticks: u64) {
        let mut flights = flights.to_vec();
        flights.sort_by_key(|flight| flight.at);
        let mut coming = flights.iter().peekable();
        for n in 0..ticks {
            let tick = Timestamp(first_tick.0 + n * 20_000_000);
            while let Some(flight) = coming.next_if(|flight| flight.at <= tick) {
                self.insert(flight);
            }
            self.tick(tick);
        }
        self.check_totals();
    }

    fn outcome(&self, outcome: FrameOutcome) -> u64 {
        self.counters.frames[outcome as usize]
    }

    /// Every frame asked for, left out or stopped at has one outcome, is open, or was not owed.
    fn check_totals(&self) {
        let own = self.buffer.counters();
        let outcomes: u64 = self.counters.frames.iter().sum();
        let accounted = outcomes + self.buffer.ledger.open_count() + self.buffer.ledger.not_owed_count();
        assert_eq!(
            accounted,
            self.asked + own.left_out + own.stops,
            "{:?} {own:?}",
            self.counters.frames
        );
    }

    fn concealed(&self) -> usize {
        self.heard
            .iter()
            .filter(|heard| heard.kind == FrameKind::Concealed)
            .count()
    }

    /// Packets that wait in slots.
    fn waiting(&self) -> u64 {
        let mut count = 0;
        let mut oldest = self.buffer.slots.oldest();
        while let Some((_, stored)) = oldest {
            count += 1;
            oldest = self.buffer.slots.from(stored.sequence + 1);
        }
        count
    }

    /// Numbers of the packets that were passed through.
    fn numbers(&self) -> Vec<u64> {
        self.heard
            .iter()
            .filter_map(|heard| heard.payload.as_ref())
            .map(|payload| number(payload))
            .collect()
    }
}

/// A sender of PCMU.
#[derive(Debug, Clone, Copy)]
struct Talker {
    samples: u32,
    /// How much faster than true its clock runs.
    ppm: f64,
    sequence: u16,
    timestamp: u32,
    begins: Timestamp,
    /// Mu-law code that fills payloads behind the number.
    code: u8,
}

impl Talker {
    const fn new() -> Self {
        Self {
            samples: 160,
            ppm: 0.0,
            sequence: 1000,
            timestamp: 5000,
            begins: ms(1000),
            code: 0x9a,
        }
    }

    /// Packet `n`, on its way for `delay`.
    fn packet(&self, n: u64, delay: Duration) -> Flight {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            clippy::cast_possible_truncation,
            reason = "hours"
        )]
        let sent = (n as f64 * f64::from(self.samples) * 125_000.0 / (1.0 + self.ppm / 1e6)) as u64;
        #[expect(clippy::cast_possible_truncation, reason = "wire numbers wrap")]
        let (sequence, timestamp) = (
            self.sequence.wrapping_add(n as u16),
            self.timestamp.wrapping_add((n as u32).wrapping_mul(self.samples)),
        );
        let mut payload = vec![self.code; self.samples as usize];
        payload[..8].copy_from_slice(&n.to_be_bytes());
        Flight {
            at: Timestamp(self.begins.0 + sent).after(delay),
            meta: PacketMeta {
                sequence,
                timestamp,
                marker: n == 0,
                ssrc: SSRC,
                codec: Codec::Pcmu,
            },
            payload,
        }
    }

    fn packets(
        &self,
        numbers: std::ops::Range<u64>,
        mut delay: impl FnMut(u64) -> Option<Duration>,
    ) -> Vec<Flight> {
        numbers.filter_map(|n| Some(self.packet(n, delay(n)?))).collect()
    }
}

/// Number of the packet that carried `payload`.
fn number(payload: &[u8]) -> u64 {
    u64::from_be_bytes(*payload.first_chunk().unwrap())
}

const fn ms(at: u64) -> Timestamp {
    Timestamp(at * 1_000_000)
}

const fn delay_ms(ms: u64) -> Option<Duration> {
    Some(Duration::from_millis(ms))
}

/// A reproducible source of chance.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

#[test]
fn memory_of_a_g711_buffer_stays_within_bounds() {
    let setup = JitterSetup {
        slots: 16,
        payload_bytes: 480,
    };
    let buffer = JitterBuffer::new(setup);
    let heap = buffer.slots.heap_bytes();
    assert!(
        size_of::<JitterBuffer>() + heap < 12 * 1024,
        "{} + {heap}",
        size_of::<JitterBuffer>()
    );
}
