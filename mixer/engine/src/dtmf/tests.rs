use proptest::prelude::*;

use super::*;

/// One packet of event `event` at `ms`.
fn packet(event: u8, duration: u16, end: bool) -> TelephoneEvent {
    TelephoneEvent {
        event,
        end,
        volume: 10,
        duration,
    }
}

fn ms(at: u64) -> Timestamp {
    Timestamp(at * 1_000_000)
}

struct Bench {
    receiver: DtmfReceiver,
    presses: Vec<Press>,
}

impl Bench {
    fn new() -> Self {
        Self {
            receiver: DtmfReceiver::new(),
            presses: Vec::new(),
        }
    }

    fn feed(&mut self, at: u64, timestamp: u32, marker: bool, event: TelephoneEvent) {
        let presses = &mut self.presses;
        self.receiver
            .feed(ms(at), timestamp, marker, event, |press| presses.push(press));
    }

    fn tick(&mut self, at: u64) {
        self.presses.extend(self.receiver.tick(ms(at)));
    }

    fn digits(&self) -> String {
        self.presses.iter().map(|press| press.digit).collect()
    }
}

#[test]
fn a_press_is_reported_once_at_its_end_and_repeats_are_ignored() {
    let mut bench = Bench::new();
    bench.feed(0, 1000, true, packet(5, 160, false));
    bench.feed(20, 1000, false, packet(5, 320, false));
    assert!(bench.presses.is_empty());
    bench.feed(40, 1000, false, packet(5, 480, true));
    bench.feed(60, 1000, false, packet(5, 480, true));
    bench.feed(80, 1000, false, packet(5, 480, true));
    // A straggler after the end.
    bench.feed(90, 1000, false, packet(5, 320, false));
    bench.tick(500);
    assert_eq!(
        bench.presses,
        [Press {
            digit: '5',
            duration_ms: 60
        }]
    );
}

#[test]
fn lost_first_packets_and_lost_ends_still_make_one_press() {
    let mut bench = Bench::new();
    // Only an end packet survived.
    bench.feed(0, 1000, false, packet(11, 800, true));
    // All ends lost: silence ends it.
    bench.feed(200, 5000, false, packet(1, 320, false));
    bench.tick(260);
    assert_eq!(bench.digits(), "#");
    bench.tick(261);
    // All ends lost: the next key ends it, and a late end of the first changes nothing.
    bench.feed(400, 9000, true, packet(2, 160, false));
    bench.feed(420, 9800, true, packet(2, 160, false));
    bench.feed(425, 9000, false, packet(2, 400, true));
    bench.feed(440, 9800, false, packet(2, 320, true));
    assert_eq!(bench.digits(), "#122");
    assert_eq!(bench.presses[1].duration_ms, 40);
}

#[test]
fn an_event_that_displaces_another_and_ends_at_once_reports_both() {
    let mut bench = Bench::new();
    bench.feed(0, 1000, true, packet(3, 160, false));
    bench.feed(20, 2000, false, packet(4, 400, true));
    assert_eq!(bench.digits(), "34");
}

#[test]
fn segments_of_a_long_press_are_one_press() {
    for last_known in [0xffff_u16, 0xff00] {
        let mut bench = Bench::new();
        bench.feed(0, 1000, true, packet(9, 160, false));
        bench.feed(20, 1000, false, packet(9, last_known, false));
        bench.feed(40, 1000 + 0xffff, false, packet(9, 160, false));
        bench.feed(60, 1000 + 0xffff, false, packet(9, 320, true));
        assert_eq!(
            bench.presses,
            [Press {
                digit: '9',
                duration_ms: (0xffff + 320) / 8
            }]
        );
    }
}

#[test]
fn a_marked_packet_begins_another_press_of_the_same_key() {
    let mut bench = Bench::new();
    bench.feed(0, 1000, true, packet(9, 0xffff, false));
    bench.feed(20, 1000 + 0xffff, true, packet(9, 160, true));
    assert_eq!(bench.digits(), "99");
}

#[test]
fn timestamps_wrap() {
    let mut bench = Bench::new();
    bench.feed(0, u32::MAX - 10, true, packet(1, 160, true));
    bench.feed(100, 800, true, packet(2, 160, true));
    bench.feed(110, u32::MAX - 10, false, packet(1, 160, true));
    assert_eq!(bench.digits(), "12");
}

#[test]
fn a_restarted_clock_is_not_a_straggler() {
    let mut bench = Bench::new();
    bench.feed(0, 3_000_000_000, true, packet(1, 160, true));
    bench.feed(100, 1_500_000_000, true, packet(2, 160, true));
    assert_eq!(bench.digits(), "12");
}

#[test]
fn audio_stays_out_while_an_event_runs_and_40_ms_after() {
    let mut bench = Bench::new();
    assert!(!bench.receiver.suppresses_audio(ms(0)));
    bench.feed(0, 1000, true, packet(5, 160, false));
    bench.feed(20, 1000, false, packet(5, 320, true));
    bench.feed(40, 1000, false, packet(5, 320, true));
    assert!(bench.receiver.suppresses_audio(ms(59)));
    assert!(!bench.receiver.suppresses_audio(ms(60)));
    assert_eq!(bench.digits(), "5");
}

#[test]
fn other_events_are_no_presses_but_keep_audio_out() {
    let mut bench = Bench::new();
    bench.feed(0, 1000, true, packet(70, 160, false));
    assert!(bench.receiver.suppresses_audio(ms(10)));
    bench.tick(100);
    assert!(bench.presses.is_empty());
    assert!(!bench.receiver.suppresses_audio(ms(140)));
}

proptest! {
    /// Any subset of a press's packets that holds at least one makes exactly one press.
    #[test]
    fn any_surviving_packet_makes_exactly_one_press(
        kept in proptest::collection::vec(any::<bool>(), 9 * 4),
        keys in proptest::collection::vec(0_u8..16, 4),
    ) {
        let mut bench = Bench::new();
        let mut expected = String::new();
        for (press, key) in keys.iter().enumerate() {
            let timestamp = 1000 + u32::try_from(press).unwrap() * 4000;
            let begins = u64::try_from(press).unwrap() * 500;
            let packets = &kept[press * 9..][..9];
            for (n, _) in packets.iter().enumerate().filter(|(_, kept)| **kept) {
                let step = u16::try_from(n.min(6)).unwrap() + 1;
                let at = begins + u64::try_from(n).unwrap() * 20;
                bench.tick(at);
                bench.feed(at, timestamp, n == 0, packet(*key, step * 160, n >= 6));
            }
            if packets.iter().any(|kept| *kept) {
                expected.extend(packet(*key, 0, false).digit());
            }
        }
        bench.tick(10_000);
        prop_assert_eq!(bench.digits(), expected);
    }

    /// No input makes it panic or report from nothing.
    #[test]
    fn arbitrary_packets_never_make_more_presses_than_packets(
        packets in proptest::collection::vec(any::<(u8, bool, bool, u16, u32, u8)>(), 0..60),
    ) {
        let mut bench = Bench::new();
        let mut at = 0;
        for (event, marker, end, duration, timestamp, wait) in &packets {
            at += u64::from(*wait);
            bench.tick(at);
            bench.feed(at, *timestamp, *marker, packet(*event, *duration, *end));
        }
        prop_assert!(bench.presses.len() <= packets.len());
    }
}
