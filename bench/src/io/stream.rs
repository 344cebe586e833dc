//! The packets of a load: which flow sends when, what is in them, and what came back.

use hdrhistogram::Histogram;
use mixer_engine::time::Timestamp;

/// Bytes of a packet: RTP header and 20 ms of G.711.
pub(super) const LENGTH: usize = 172;
/// Longest round trip that is told apart, nanoseconds.
const ROUND_TRIP_MAX_NS: u64 = 60_000_000_000;

/// Packets of all flows in one row, evenly phased: packet `n` belongs to flow `n % flows`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    /// Flows.
    pub(super) flows: u32,
    /// Packets per second of one flow.
    pub(super) rate: u32,
}

impl Row {
    /// How many packets are due within `elapsed_ns`.
    pub(super) fn due(self, elapsed_ns: u64) -> u64 {
        let all = u128::from(self.flows) * u128::from(self.rate);
        u64::try_from(u128::from(elapsed_ns) * all / 1_000_000_000).unwrap_or(u64::MAX)
    }

    /// When a packet is due, nanoseconds after the start.
    pub(super) fn time_ns(self, number: u64) -> u64 {
        let all = u128::from(self.flows) * u128::from(self.rate);
        u64::try_from((u128::from(number + 1) * 1_000_000_000).div_ceil(all)).unwrap_or(u64::MAX)
    }

    /// Flow of a packet.
    pub(super) fn flow(self, number: u64) -> u32 {
        u32::try_from(number % u64::from(self.flows)).unwrap_or(0)
    }

    /// Writes a packet, sent now; returns its length. RTP version 2, payload type 0 (RFC 3551: PCMU); the payload
    /// carries number and time of sending, then digital silence.
    pub(super) fn write(self, number: u64, now: Timestamp, buffer: &mut [u8]) -> usize {
        let place = number / u64::from(self.flows);
        let [.., s0, s1] = place.to_be_bytes();
        let [.., t0, t1, t2, t3] = place.wrapping_mul(160).to_be_bytes();
        let Some(packet) = buffer.first_chunk_mut::<LENGTH>() else {
            return 0;
        };
        packet[..8].copy_from_slice(&[0x80, 0, s0, s1, t0, t1, t2, t3]);
        packet[8..12].copy_from_slice(&self.flow(number).to_be_bytes());
        packet[12..20].copy_from_slice(&number.to_be_bytes());
        packet[20..28].copy_from_slice(&now.0.to_be_bytes());
        packet[28..].fill(0xff);
        LENGTH
    }
}

/// Number and time of sending of a packet that came back, if it is one of ours.
fn read(payload: &[u8]) -> Option<(u64, Timestamp)> {
    let packet: &[u8; LENGTH] = payload.try_into().ok()?;
    let number = u64::from_be_bytes(*packet[12..].first_chunk()?);
    let sent = u64::from_be_bytes(*packet[20..].first_chunk()?);
    (packet[0] == 0x80).then_some((number, Timestamp(sent)))
}

/// What came back.
#[derive(Debug)]
pub(super) struct Tally {
    row: Row,
    /// Packets from here on count.
    first: u64,
    /// Echoes of each flow.
    pub(super) echoes: Vec<u64>,
    /// Number of each flow's last echo, and one.
    last: Vec<u64>,
    /// Echoes that came twice, too late, or on another flow.
    pub(super) disordered: u64,
    /// Datagrams that are no echo.
    pub(super) strangers: u64,
    /// Nanoseconds.
    pub(super) round_trip: Histogram<u64>,
}

impl Tally {
    /// Counts echoes of the packets from `first` on.
    #[expect(clippy::expect_used, reason = "the bounds are constant")]
    pub(super) fn new(row: Row, first: u64) -> Self {
        Self {
            row,
            first,
            echoes: vec![0; row.flows as usize],
            last: vec![0; row.flows as usize],
            disordered: 0,
            strangers: 0,
            round_trip: Histogram::new_with_bounds(1_000, ROUND_TRIP_MAX_NS, 3)
                .expect("constant bounds are valid"),
        }
    }

    /// Takes what came for a flow.
    pub(super) fn take(&mut self, flow: u32, now: Timestamp, payload: &[u8]) {
        let Some((number, sent)) = read(payload) else {
            self.strangers += 1;
            return;
        };
        let (Some(echoes), Some(last)) = (
            self.echoes.get_mut(flow as usize),
            self.last.get_mut(flow as usize),
        ) else {
            self.strangers += 1;
            return;
        };
        if self.row.flow(number) != flow || number < *last {
            self.disordered += 1;
            return;
        }
        *last = number + 1;
        if number >= self.first {
            *echoes += 1;
            self.round_trip.saturating_record(now.0.saturating_sub(sent.0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::receiver::Rtp;

    const ROW: Row = Row { flows: 7, rate: 50 };

    #[test]
    fn every_flow_sends_at_its_rate_and_phases_are_even() {
        assert_eq!(ROW.due(1_000_000_000), 350);
        let mut times = vec![Vec::new(); 7];
        for number in 0..350 {
            let time = ROW.time_ns(number);
            assert!(ROW.due(time) > number && ROW.due(time - 1) <= number);
            times[ROW.flow(number) as usize].push(time);
        }
        for times in &times {
            assert_eq!(times.len(), 50);
            assert!(
                times
                    .windows(2)
                    .all(|pair| (pair[1] - pair[0]).abs_diff(20_000_000) <= 1)
            );
        }
        assert_eq!(ROW.due(u64::MAX / 2), ROW.due(u64::MAX / 2 - 1).max(1));
    }

    #[test]
    fn a_packet_is_rtp_and_its_header_advances() {
        let mut buffers = [[0; 1_472]; 2];
        for (number, buffer) in [8, 15].into_iter().zip(&mut buffers) {
            assert_eq!(ROW.write(number, Timestamp(99), buffer), LENGTH);
        }
        let [first, second] = buffers
            .each_ref()
            .map(|buffer| Rtp::parse(&buffer[..LENGTH]).unwrap());
        assert_eq!((first.payload_type, first.sequence, second.sequence), (0, 1, 2));
        assert_eq!(second.timestamp - first.timestamp, 160);
        assert_eq!(first.payload.len(), 160);
        assert_eq!(read(&buffers[1][..LENGTH]), Some((15, Timestamp(99))));
        assert_eq!(ROW.write(8, Timestamp(99), &mut [0; 171]), 0);
    }

    #[test]
    fn echoes_count_once_on_their_own_flow_and_after_the_warm_up() {
        let mut tally = Tally::new(ROW, 7);
        let mut packet = [0; LENGTH];
        let mut send = |tally: &mut Tally, number, flow, now| {
            ROW.write(number, Timestamp(1_000), &mut packet);
            tally.take(flow, Timestamp(now), &packet);
        };
        send(&mut tally, 1, 1, 3_000);
        send(&mut tally, 8, 1, 2_001_000);
        send(&mut tally, 8, 1, 2_002_000);
        send(&mut tally, 9, 1, 2_003_000);
        send(&mut tally, 15, 1, 2_001_000);
        tally.take(1, Timestamp(5), b"hello");
        tally.take(7, Timestamp(5), &[0x80; LENGTH]);
        assert_eq!(tally.echoes, [0, 2, 0, 0, 0, 0, 0]);
        assert_eq!((tally.disordered, tally.strangers), (2, 2));
        assert_eq!(tally.round_trip.len(), 2);
        assert!(tally.round_trip.max().abs_diff(2_000_000) < 2_000);
    }
}
