//! The parts of a leg's tick by themselves, called through the engine's public doors with everything in the
//! cache: what they take at least. What lies between them (tables, rosters, counters) only the ladders show.

use std::hint::black_box;

use mixer_engine::codec;
use mixer_engine::counters::Counters;
use mixer_engine::jitter::{FrameKind, JitterBuffer, JitterSetup, PacketMeta};
use mixer_engine::media::Codec;
use mixer_engine::mix::{FRAME_SAMPLES, Frame, level, mix_minus};
use mixer_engine::time::Timestamp;
use mixer_engine::wire::rtp::{RtpRepr, RtpView};
use serde::Serialize;

use super::rig::{NOISES, PAYLOAD_TYPE, TICK_NS, median, nanoseconds, now, packet};
use crate::seed::Seed;
use crate::sound::FRAME_UNITS;

/// Timed at once: two readings of the clock are nothing beside so many calls.
const CALLS: usize = 2_000;
const BATCHES: usize = 101;

/// What one part takes.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Part {
    /// Which.
    pub part: &'static str,
    /// What is done once.
    pub what: &'static str,
    /// Nanoseconds each; the median over batches.
    pub ns: f64,
}

/// Measures all parts with noise in `codec`.
pub(super) fn measure(codec: Codec) -> Vec<Part> {
    let mut seed = Seed::new(2);
    let packets: Vec<_> = (0..NOISES).map(|_| packet(true, codec, &mut seed)).collect();
    let silence = packet(false, codec, &mut seed);
    let frames: Vec<_> = packets.iter().map(|packet| decoded(codec, packet)).collect();
    let part = |part, what, ns| Part { part, what, ns };
    let (mut talker, mut listener) = (Slot::new(codec), Slot::new(codec));
    vec![
        part("parse", "RTP view of a packet", parse_ns(&packets)),
        part(
            "slot",
            "jitter buffer: insert, pull and decode one frame",
            time(|call| {
                black_box(talker.turn(&packets[call % NOISES]));
            }),
        ),
        part(
            "slot, silence",
            "likewise, digital silence",
            time(|_| {
                black_box(listener.turn(&silence));
            }),
        ),
        part(
            "level",
            "mean square of a frame",
            time(|call| {
                black_box(level::mean_square(black_box(&frames[call % NOISES])));
            }),
        ),
        part("mix", "a frame into the sum, the sum without it", mix_ns(&frames)),
        part("encode", "a frame", encode_ns(codec, &frames)),
        part("send", "RTP header and copy of the payload", send_ns(&packets)),
    ]
}

/// The parts as a table for people.
pub(super) fn table(parts: &[Part]) -> String {
    let mut text = String::from("part               ns\n");
    for Part { part, what, ns } in parts {
        text.push_str(&format!("{part:<14} {ns:>6.1}  {what}\n"));
    }
    text
}

/// A jitter buffer whose source sends one packet for every tick.
struct Slot {
    codec: Codec,
    buffer: JitterBuffer,
    counters: Counters,
    out: Frame,
    tick: u64,
}

impl Slot {
    fn new(codec: Codec) -> Self {
        Self {
            codec,
            buffer: JitterBuffer::new(JitterSetup {
                slots: 16,
                payload_bytes: 960,
            }),
            counters: Counters::default(),
            out: [0; FRAME_SAMPLES],
            tick: 0,
        }
    }

    /// One packet in, 5 ms later one frame out.
    fn turn(&mut self, packet: &[u8]) -> FrameKind {
        let begins = self.tick * TICK_NS;
        let [.., sequence_high, sequence_low] = self.tick.to_be_bytes();
        let meta = PacketMeta {
            sequence: u16::from_be_bytes([sequence_high, sequence_low]),
            timestamp: u32::try_from(self.tick & 0xffff_ffff)
                .unwrap_or(0)
                .wrapping_mul(FRAME_UNITS),
            marker: false,
            ssrc: 1,
            codec: self.codec,
        };
        self.tick += 1;
        let payload = &packet[HEADER..];
        self.buffer
            .insert(Timestamp(begins), meta, payload, &mut self.counters);
        let tick = Timestamp(begins + TICK_NS / 4);
        self.buffer
            .pull(tick, tick, &mut self.out, &mut self.counters)
            .frame
    }
}

fn parse_ns(packets: &[Vec<u8>]) -> f64 {
    time(|call| {
        let view = RtpView::parse(black_box(&packets[call % NOISES]));
        if let Ok(view) = view {
            black_box((
                view.payload_type(),
                view.marker(),
                view.sequence(),
                view.timestamp(),
                view.ssrc(),
                view.payload(),
            ));
        }
    })
}

fn mix_ns(frames: &[Frame]) -> f64 {
    let mut heard = [0; FRAME_SAMPLES];
    time(|call| {
        let own = black_box(&frames[call % NOISES]);
        let mut sum = mix_minus::SILENCE;
        mix_minus::add(black_box(&mut sum), own);
        mix_minus::limit_minus(black_box(&sum), own, &mut heard);
        black_box(&mut heard);
    })
}

fn encode_ns(codec: Codec, frames: &[Frame]) -> f64 {
    let mut bytes = [0; 2 * FRAME_SAMPLES];
    time(|call| {
        black_box(codec::encode(
            codec,
            black_box(&frames[call % NOISES]),
            &mut bytes,
        ));
        black_box(&mut bytes);
    })
}

fn send_ns(packets: &[Vec<u8>]) -> f64 {
    let mut buffer = [0; 2_048];
    let mut sequence = 0_u16;
    time(|call| {
        sequence = sequence.wrapping_add(1);
        let header = RtpRepr {
            payload_type: PAYLOAD_TYPE,
            marker: false,
            sequence,
            timestamp: u32::from(sequence) * FRAME_UNITS,
            ssrc: 1,
            csrc: black_box(&[]),
        };
        let length = header.emit(&mut buffer);
        let payload = black_box(&packets[call % NOISES][HEADER..]);
        buffer[length..length + payload.len()].copy_from_slice(payload);
        black_box(&mut buffer);
    })
}

fn decoded(codec: Codec, packet: &[u8]) -> Frame {
    let mut frame = [0; FRAME_SAMPLES];
    codec::decode(codec, &packet[HEADER..], &mut frame);
    frame
}

/// Nanoseconds of one call. The first batch warms up.
fn time(mut call: impl FnMut(usize)) -> f64 {
    let mut batches: Vec<u64> = (0..=BATCHES)
        .map(|_| {
            let start = now();
            (0..CALLS).for_each(&mut call);
            nanoseconds(now() - start)
        })
        .collect();
    median(&mut batches[1..]) as f64 / CALLS as f64
}

const HEADER: usize = mixer_engine::wire::rtp::FIXED_HEADER;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_jitter_buffer_under_measurement_plays_every_packet() {
        for codec in Codec::ALL {
            let mut seed = Seed::new(3);
            for (noise, expected) in [(true, FrameKind::Decoded), (false, FrameKind::Idle)] {
                let packet = packet(noise, codec, &mut seed);
                let mut slot = Slot::new(codec);
                let played = (0..70_000).filter(|_| slot.turn(&packet) == expected).count();
                // The first packet waits for a tick of its own.
                assert!(played >= 69_998, "{codec:?}: {played}");
            }
        }
    }
}
