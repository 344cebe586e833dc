//! Sending side of one leg: an RTP stream that never stops, of silence or of its source.

use std::sync::Arc;

use mixer_engine::time::Timestamp;

use crate::seed::Seed;
use crate::sound::g711::Law;
use crate::sound::tone::{DITHER_ABOVE, Tone, amplitude_for};
use crate::sound::{FRAME, FRAME_UNITS};

/// Packet time, nanoseconds.
pub const PTIME_NS: u64 = 20_000_000;
/// A packet sent later than this after its time is a late one of ours, nanoseconds.
const LATE_NS: u64 = 5_000_000;

/// What a talker says, over and over.
#[derive(Debug, Clone)]
pub struct Source {
    /// Code words, at least one frame.
    pub bytes: Arc<Vec<u8>>,
    /// Frequency and nominal amplitude, when it is a tone.
    pub tone: Option<(u16, f64)>,
}

impl Source {
    /// A tone for one of `talkers` in a room.
    #[must_use]
    pub fn tone(law: Law, hertz: u16, talkers: usize, phase: f64, seed: &mut Seed) -> Self {
        let amplitude = amplitude_for(talkers);
        let tone = if talkers > DITHER_ABOVE {
            Tone::dithered(law, hertz, amplitude, phase, seed)
        } else {
            Tone::new(law, hertz, amplitude, phase)
        };
        Self {
            bytes: Arc::new(tone.codes),
            tone: Some((tone.hertz, tone.nominal)),
        }
    }
}

/// One leg's sender.
#[derive(Debug)]
pub struct Sender {
    payload_type: u8,
    silence: u8,
    source: Option<Source>,
    cursor: usize,
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
    first: bool,
    /// When the next packet is due; nothing is due before the call is up.
    due: Option<Timestamp>,
    /// Offset within the 20 ms, nanoseconds.
    phase_ns: u64,
    /// Packets sent more than 5 ms late.
    pub late: u64,
    /// Latest packet, nanoseconds after its time.
    pub worst_ns: u64,
    /// Packets sent.
    pub sent: u64,
}

impl Sender {
    /// A sender with random SSRC, sequence, timestamp and phase.
    #[must_use]
    pub fn new(payload_type: u8, silence: u8, source: Option<Source>, seed: &mut Seed) -> Self {
        Self {
            payload_type,
            silence,
            source,
            cursor: 0,
            ssrc: seed.word(),
            sequence: seed.half(),
            timestamp: seed.word(),
            first: true,
            due: None,
            phase_ns: seed.below(PTIME_NS),
            late: 0,
            worst_ns: 0,
            sent: 0,
        }
    }

    /// What it says when it talks.
    #[must_use]
    pub fn source(&self) -> Option<&Source> {
        self.source.as_ref()
    }

    /// Starts the stream at the next instant of this leg's phase.
    pub fn start(&mut self, now: Timestamp) {
        let into = (now.0 + PTIME_NS - self.phase_ns % PTIME_NS) % PTIME_NS;
        self.due = Some(Timestamp(now.0 + PTIME_NS - into));
    }

    /// Stops the stream.
    pub fn stop(&mut self) {
        self.due = None;
    }

    /// Whether a packet is due; takes note when it is late. After a stall everything owed is sent,
    /// as a phone's driver does.
    pub fn take_due(&mut self, now: Timestamp) -> bool {
        let Some(due) = self.due.filter(|&due| due <= now) else {
            return false;
        };
        self.late += u64::from(now.0 - due.0 > LATE_NS);
        self.worst_ns = self.worst_ns.max(now.0 - due.0);
        self.due = Some(Timestamp(due.0 + PTIME_NS));
        true
    }

    /// Writes the next packet and returns its length.
    pub fn write(&mut self, talking: bool, buffer: &mut [u8]) -> usize {
        let marker = if self.first { 0x80 } else { 0 };
        buffer[0] = 0x80;
        buffer[1] = self.payload_type | marker;
        buffer[2..4].copy_from_slice(&self.sequence.to_be_bytes());
        buffer[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
        buffer[8..12].copy_from_slice(&self.ssrc.to_be_bytes());
        let payload = &mut buffer[12..12 + FRAME];
        match self.source.as_ref().filter(|_| talking) {
            Some(source) => {
                let bytes = &source.bytes;
                for (n, byte) in payload.iter_mut().enumerate() {
                    *byte = bytes[(self.cursor + n) % bytes.len()];
                }
                self.cursor = (self.cursor + FRAME) % bytes.len();
            }
            None => payload.fill(self.silence),
        }
        self.first = false;
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(FRAME_UNITS);
        self.sent += 1;
        12 + FRAME
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::receiver::Rtp;

    #[test]
    fn packets_come_every_twenty_milliseconds_at_the_legs_own_phase() {
        for seed in 0..50 {
            let mut sender = Sender::new(0, 0xff, None, &mut Seed::new(seed));
            let phase = sender.phase_ns;
            sender.start(Timestamp(1_234_567_891));
            let mut times = Vec::new();
            for step in 0..200_000u64 {
                let now = Timestamp(1_234_567_891 + step * 1_000);
                if sender.take_due(now) {
                    times.push(now.0);
                }
            }
            assert!(times[0] - 1_234_567_891 <= PTIME_NS);
            assert!(times.windows(2).all(|pair| pair[1] - pair[0] == PTIME_NS));
            assert!(
                (times[0] % PTIME_NS).abs_diff(phase) <= 1_000,
                "{} {phase}",
                times[0] % PTIME_NS
            );
            assert_eq!(sender.late, 0);
        }
    }

    #[test]
    fn the_source_goes_on_where_it_stopped_and_header_fields_advance() {
        let bytes: Vec<u8> = (0..=255u8).collect();
        let source = Source {
            bytes: Arc::new(bytes),
            tone: None,
        };
        let mut sender = Sender::new(8, 0xd5, Some(source), &mut Seed::new(1));
        let mut buffers = [[0; 1_500]; 3];
        let talking = [true, false, true];
        let lengths: Vec<usize> = buffers
            .iter_mut()
            .zip(talking)
            .map(|(buffer, on)| sender.write(on, buffer))
            .collect();
        let read: Vec<Rtp<'_>> = buffers
            .iter()
            .zip(&lengths)
            .map(|(buffer, &n)| Rtp::parse(&buffer[..n]).unwrap())
            .collect();
        assert_eq!(read[0].payload[0], 0);
        assert!(read[1].payload.iter().all(|&byte| byte == 0xd5));
        assert_eq!(read[2].payload[0], 160);
        assert_eq!(read[2].payload[159], 63);
        assert_eq!(read[2].sequence, read[0].sequence.wrapping_add(2));
        assert_eq!(read[2].timestamp, read[0].timestamp.wrapping_add(320));
        assert_eq!(read[2].payload_type, 8);
    }
}
