//! No input breaks the totals.

use proptest::prelude::*;

use super::*;

/// What may happen to one packet of an otherwise plain stream.
#[derive(Debug, Clone, Copy)]
struct Fate {
    lost: bool,
    twice: bool,
    delay_ms: u64,
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let fate = (
        0_u8..20,
        0_u8..20,
        prop_oneof![4 => Just(0_u64), 3 => 0_u64..60, 1 => 0_u64..400],
    )
        .prop_map(|(lost, twice, delay_ms)| Fate {
            lost: lost == 0,
            twice: twice == 0,
            delay_ms,
        });
    proptest::collection::vec(fate, 0..300)
}

proptest! {
    #[test]
    fn totals_add_up_on_any_network(
        fates in fates(),
        samples in prop::sample::select(vec![80_u32, 160, 240, 320, 480, 37]),
        phase in 0_u64..20,
        slots in 0_u8..40,
        sequence: u16,
        timestamp: u32,
    ) {
        let talker = Talker { samples, sequence, timestamp, ..Talker::new() };
        let mut flights = Vec::new();
        for (n, fate) in (0..).zip(&fates).filter(|(_, fate)| !fate.lost) {
            let flight = talker.packet(n, Duration::from_millis(fate.delay_ms));
            if fate.twice {
                flights.push(Flight { at: flight.at.after(Duration::from_millis(7)), ..flight.clone() });
            }
            flights.push(flight);
        }
        let mut bench = Bench::new(slots);
        let ticks = u64::try_from(fates.len()).unwrap() * u64::from(samples) / 160 + 60;
        bench.run(&flights, ms(1000 + phase), ticks);
        let own = bench.buffer.counters();
        let inserted = u64::try_from(bench.inserts.len()).unwrap();
        let probation = bench.inserts.iter().filter(|insert| **insert == Insert::Probation).count();
        prop_assert_eq!(
            own.received + own.late + own.duplicate + own.early + u64::try_from(probation).unwrap(),
            inserted
        );
        // In the end nothing is open for ever: the next call closes it.
        let mut counters = bench.counters;
        bench.buffer.reset(&mut counters);
        bench.counters = counters;
        bench.check_totals();
        prop_assert_eq!(bench.buffer.ledger.open_count(), 0);
    }

    #[test]
    fn arbitrary_packets_and_ticks_never_panic(
        steps in proptest::collection::vec(
            (any::<(u16, u32, bool)>(), 0_u32..3, 0_usize..500, 0_u64..60_000, any::<bool>(), 0_u8..9), 0..400),
    ) {
        let mut bench = Bench::new(16);
        let mut now = 5_000_000_000;
        let mut tick = now;
        let (mut sequence, mut timestamp) = (0_u16, 0_u32);
        for ((any_sequence, any_timestamp, marker), ssrc, length, wait_us, linear, kind) in steps {
            now += wait_us * 1000;
            match kind {
                0 => (sequence, timestamp) = (any_sequence, any_timestamp),
                1 => sequence = sequence.wrapping_sub(any_sequence % 120),
                2 => timestamp = timestamp.wrapping_add(any_timestamp % 5000),
                3 => tick += any_timestamp as u64 % 600 * 1_000_000,
                _ => {}
            }
            sequence = sequence.wrapping_add(1);
            timestamp = timestamp.wrapping_add(160);
            let meta = PacketMeta {
                sequence,
                timestamp,
                marker,
                ssrc,
                codec: if linear { Codec::L16 } else { Codec::Pcma },
            };
            bench.insert(&Flight { at: Timestamp(now), meta, payload: vec![1; length] });
            if kind == 4 {
                bench.buffer.skip(ssrc, any_sequence);
            }
            if kind > 2 {
                tick += 20_000_000;
                let mut out = [0_i16; FRAME];
                bench.buffer.pull(Timestamp(tick), Timestamp(now), &mut out, &mut bench.counters);
            }
        }
    }
}
