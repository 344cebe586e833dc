//! What one leg receives: RTP bookkeeping, and the recording of the measured window.

use mixer_engine::time::Timestamp;
use serde::Serialize;

use crate::sound::{FRAME, FRAME_UNITS};

/// Inter-arrival time that counts as a gap, nanoseconds (two packet times).
const GAP_NS: u64 = 40_000_000;

/// RTP statistics of the measured window.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct PacketStats {
    /// Packets received, duplicates not counted.
    pub received: u64,
    /// Sequence numbers that never came.
    pub lost: u64,
    /// Packets seen twice.
    pub duplicate: u64,
    /// Packets that came after a later one.
    pub reordered: u64,
    /// Times nothing came for more than 40 ms.
    pub gaps: u64,
    /// Longest time between two packets, microseconds.
    pub longest_gap_us: u64,
    /// Changes of SSRC.
    pub ssrc_changes: u64,
    /// Packets whose timestamp does not go with their sequence number.
    pub timestamp_breaks: u64,
    /// Packets that are not 20 ms of the negotiated codec.
    pub unusable: u64,
}

/// Receiving side of a leg.
#[derive(Debug)]
pub struct Receiver {
    payload_type: u8,
    ssrc: Option<u32>,
    highest: Option<u64>,
    last_arrival: Option<Timestamp>,
    /// The window that has not begun.
    ready: Option<Window>,
    window: Option<Window>,
}

#[derive(Debug)]
struct Window {
    first: u64,
    first_timestamp: u32,
    payload: Vec<u8>,
    present: Vec<bool>,
    stats: PacketStats,
    frames_max: usize,
}

/// The parts of an RTP packet that matter here (RFC 3550 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rtp<'a> {
    /// Payload type.
    pub payload_type: u8,
    /// Sequence number.
    pub sequence: u16,
    /// Timestamp.
    pub timestamp: u32,
    /// Synchronisation source.
    pub ssrc: u32,
    /// Payload without padding.
    pub payload: &'a [u8],
}

impl<'a> Rtp<'a> {
    /// Reads a packet; `None` when it is not valid RTP version 2.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<12>()?;
        let [first, second, s0, s1, t0, t1, t2, t3, c0, c1, c2, c3] = *head;
        if first >> 6 != 2 {
            return None;
        }
        let mut payload = rest.get(usize::from(first & 0x0f) * 4..)?;
        if first & 0x10 != 0 {
            let (extension, after) = payload.split_first_chunk::<4>()?;
            let words = usize::from(u16::from_be_bytes([extension[2], extension[3]]));
            payload = after.get(words * 4..)?;
        }
        if first & 0x20 != 0 {
            let padding = usize::from(*payload.last()?);
            payload = payload.get(..payload.len().checked_sub(padding)?)?;
        }
        Some(Self {
            payload_type: second & 0x7f,
            sequence: u16::from_be_bytes([s0, s1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            ssrc: u32::from_be_bytes([c0, c1, c2, c3]),
            payload,
        })
    }
}

impl Receiver {
    /// A receiver of `payload_type` with memory for a window of `frames_max` frames.
    #[must_use]
    pub fn new(payload_type: u8, frames_max: usize) -> Self {
        Self {
            payload_type,
            ssrc: None,
            highest: None,
            last_arrival: None,
            ready: Some(Window::new(frames_max)),
            window: None,
        }
    }

    /// Starts the measured window, the only one, with the next packet.
    pub fn begin(&mut self) {
        self.last_arrival = None;
        self.window = self.ready.take();
    }

    /// Takes a datagram and gives back its payload when it is one frame of the codec.
    pub fn take<'a>(&mut self, at: Timestamp, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let usable = Rtp::parse(bytes)
            .filter(|rtp| rtp.payload_type == self.payload_type && rtp.payload.len() == FRAME);
        let Some(rtp) = usable else {
            if let Some(window) = &mut self.window {
                window.stats.unusable += 1;
            }
            return None;
        };
        let changed = self
            .ssrc
            .replace(rtp.ssrc)
            .is_some_and(|before| before != rtp.ssrc);
        let highest = if changed { None } else { self.highest };
        let extended = extend(highest, rtp.sequence);
        if let Some(window) = &mut self.window {
            window.stats.ssrc_changes += u64::from(changed);
            if let Some(last) = self.last_arrival {
                let between = at.0.saturating_sub(last.0);
                window.stats.gaps += u64::from(between > GAP_NS);
                window.stats.longest_gap_us = window.stats.longest_gap_us.max(between / 1_000);
            }
            window.store(extended, highest, &rtp);
        }
        self.last_arrival = Some(at);
        self.highest = Some(highest.map_or(extended, |highest| highest.max(extended)));
        Some(rtp.payload)
    }

    /// Ends the window: statistics, and the frames in order (`None` where one is missing).
    #[must_use]
    pub fn end(&mut self) -> Recording {
        self.window
            .take()
            .map_or_else(Recording::default, Window::into_recording)
    }
}

/// Extended sequence number nearest to the highest one so far (RFC 3550 A.1).
fn extend(highest: Option<u64>, sequence: u16) -> u64 {
    let Some(highest) = highest else {
        return (1 << 32) | u64::from(sequence);
    };
    let low = (highest & 0xffff) as u16;
    let ahead = sequence.wrapping_sub(low).cast_signed();
    highest.wrapping_add_signed(i64::from(ahead))
}

impl Window {
    fn new(frames_max: usize) -> Self {
        Self {
            first: u64::MAX,
            first_timestamp: 0,
            payload: touched(0xFF, 0, frames_max * FRAME),
            present: touched(true, false, frames_max),
            stats: PacketStats::default(),
            frames_max,
        }
    }

    fn store(&mut self, extended: u64, highest: Option<u64>, rtp: &Rtp<'_>) {
        if self.first == u64::MAX {
            (self.first, self.first_timestamp) = (extended, rtp.timestamp);
        }
        let Some(index) = extended
            .checked_sub(self.first)
            .and_then(|i| usize::try_from(i).ok())
        else {
            return;
        };
        if index >= self.frames_max {
            return;
        }
        if std::mem::replace(&mut self.present[index], true) {
            self.stats.duplicate += 1;
            return;
        }
        self.stats.received += 1;
        self.stats.reordered += u64::from(highest.is_some_and(|highest| extended < highest));
        let frames = u32::try_from(index).unwrap_or(u32::MAX);
        let expected = self
            .first_timestamp
            .wrapping_add(frames.wrapping_mul(FRAME_UNITS));
        self.stats.timestamp_breaks += u64::from(rtp.timestamp != expected);
        self.payload[index * FRAME..(index + 1) * FRAME].copy_from_slice(rtp.payload);
    }

    fn into_recording(mut self) -> Recording {
        let frames = self
            .present
            .iter()
            .rposition(|&present| present)
            .map_or(0, |last| last + 1);
        self.present.truncate(frames);
        self.payload.truncate(frames * FRAME);
        self.stats.lost = self.present.iter().filter(|&&present| !present).count() as u64;
        Recording {
            stats: self.stats,
            payload: self.payload,
            present: self.present,
        }
    }
}

/// So many `value`s, in memory that was written to: pages that the kernel finds for thousands of legs at once, when the
/// first packet comes, would hold up the load tester for 90 ms.
fn touched<T: Copy>(other: T, value: T, length: usize) -> Vec<T> {
    let mut values = vec![other; length];
    std::hint::black_box(&mut values).fill(value);
    values
}

/// A finished window.
#[derive(Debug, Default)]
pub struct Recording {
    /// Its statistics.
    pub stats: PacketStats,
    /// Payload bytes, zeroes where a frame is missing.
    pub payload: Vec<u8>,
    /// Which frames are there.
    pub present: Vec<bool>,
}

impl Recording {
    /// Frames in order.
    #[must_use]
    pub fn frames(&self) -> Vec<Option<&[u8]>> {
        let each = self.payload.chunks_exact(FRAME).zip(&self.present);
        each.map(|(frame, &present)| present.then_some(frame)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(sequence: u16, timestamp: u32, ssrc: u32) -> Vec<u8> {
        let mut bytes = vec![0x80, 0];
        bytes.extend(sequence.to_be_bytes());
        bytes.extend(timestamp.to_be_bytes());
        bytes.extend(ssrc.to_be_bytes());
        bytes.extend([7; FRAME]);
        bytes
    }

    fn run(packets: &[(u64, u16, u32, u32)]) -> Recording {
        let mut receiver = Receiver::new(0, 100);
        receiver.begin();
        for &(ms, sequence, timestamp, ssrc) in packets {
            receiver.take(Timestamp(ms * 1_000_000), &packet(sequence, timestamp, ssrc));
        }
        receiver.end()
    }

    #[test]
    fn an_even_stream_over_the_wrap_has_nothing_to_report() {
        let base = 65_530u16;
        let even: Vec<_> = (0..20u16)
            .map(|n| {
                let timestamp = (u32::MAX - 500).wrapping_add(FRAME_UNITS * u32::from(n));
                (20 * u64::from(n), base.wrapping_add(n), timestamp, 1)
            })
            .collect();
        let recording = run(&even);
        let stats = recording.stats;
        assert_eq!(
            (stats.received, stats.lost, stats.gaps, stats.timestamp_breaks),
            (20, 0, 0, 0)
        );
        assert_eq!(recording.frames().len(), 20);
    }

    #[test]
    fn loss_duplicates_reordering_gaps_and_breaks_are_counted_apart() {
        let stats = run(&[(0, 1, 160, 1), (20, 2, 320, 1), (63, 4, 640, 1)]).stats;
        assert_eq!((stats.lost, stats.gaps, stats.longest_gap_us), (1, 1, 43_000));
        let stats = run(&[(0, 1, 160, 1), (20, 3, 480, 1), (21, 2, 320, 1), (40, 2, 320, 1)]).stats;
        assert_eq!((stats.lost, stats.reordered, stats.duplicate), (0, 1, 1));
        let stats = run(&[(0, 1, 160, 1), (20, 2, 480, 1)]).stats;
        assert_eq!(stats.timestamp_breaks, 1);
        let stats = run(&[(0, 1, 160, 1), (20, 2, 320, 2)]).stats;
        assert_eq!(stats.ssrc_changes, 1);
    }

    #[test]
    fn header_extensions_csrcs_and_padding_are_skipped() {
        let mut bytes = packet(1, 2, 3);
        bytes[0] |= 0x31;
        let payload = bytes.split_off(12);
        bytes.extend([0; 4]);
        bytes.extend([0xbe, 0xde, 0, 1, 0, 0, 0, 0]);
        bytes.extend(payload);
        bytes.extend([0, 2]);
        assert_eq!(Rtp::parse(&bytes).unwrap().payload, [7; FRAME]);
        assert!(Rtp::parse(&bytes[..15]).is_none());
        assert!(Rtp::parse(&[0u8; 172]).is_none());
    }
}
