//! Whole networks, for minutes.

use super::*;

fn us(us: u64) -> Option<Duration> {
    Some(Duration::from_micros(us))
}

#[test]
fn a_clean_stream_is_byte_identical_whatever_the_phase() {
    for phase in [0, 3, 7, 12, 15, 19] {
        let mut chance = Chance(phase);
        let flights = Talker::new().packets(0..15_000, |_| us(chance.below(6_000)));
        let mut bench = Bench::new(16);
        bench.run(&flights, ms(1000 + phase), 15_000);
        let numbers = bench.numbers();
        let jumps = numbers.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
        let worst = bench.delays.iter().max().unwrap();
        eprintln!(
            "phase {phase}: {} passed, {jumps} jumps, delay {worst} us",
            numbers.len()
        );
        // A first packet that was quicker than all others may cost one adjustment.
        assert!(
            numbers.len() >= 14_990 && jumps <= 1,
            "phase {phase}: {} {jumps}",
            numbers.len()
        );
    }
}

#[test]
fn without_jitter_every_phase_costs_3_to_23_ms_and_no_frame() {
    for phase_us in (0..20_000).step_by(500) {
        let talker = Talker {
            begins: Timestamp(1_000_000_000 + phase_us * 1000),
            ..Talker::new()
        };
        let mut bench = Bench::new(16);
        bench.run(&talker.packets(0..500, |_| us(0)), ms(1000), 480);
        assert_eq!(bench.concealed(), 0);
        let delay = bench.buffer.playout_delay_us();
        assert!((3_000..23_000).contains(&delay), "phase {phase_us}: {delay}");
    }
}

#[test]
fn a_fast_or_slow_clock_keeps_the_delay_bounded_for_30_minutes() {
    for ppm in [200.0, -200.0] {
        let talker = Talker { ppm, ..Talker::new() };
        let mut chance = Chance(5);
        let ticks = 30 * 60 * 50;
        let flights = talker.packets(0..ticks + 100, |_| us(chance.below(2_000)));
        let mut bench = Bench::new(16);
        bench.run(&flights, ms(1010), ticks);
        let worst = *bench.delays.iter().max().unwrap();
        let skew = bench.outcome(FrameOutcome::Skew);
        let missing = bench.outcome(FrameOutcome::NetworkLate) + bench.outcome(FrameOutcome::NetworkLost);
        eprintln!("{ppm} ppm: worst delay {worst} us, {skew} frames of skew, {missing} missing");
        assert!(worst < 37_000, "{ppm}: {worst}");
        // 0.36 s of drift, up to a frame more or less to where the delay is held, in steps of 2 to 5 ms.
        assert!((340 / 5..=380 / 2).contains(&skew), "{ppm}: {skew}");
        assert!(missing <= 2, "{ppm}: {missing}");
        assert_eq!(bench.outcome(FrameOutcome::SourceStopped), 0);
    }
}

#[test]
fn a_quiet_source_gives_delay_back_sooner_than_a_loud_one() {
    let kept = |code, shorter_ms| {
        let mut flights = Talker::new().packets(0..2_000, |n| delay_ms(if n < 500 { shorter_ms } else { 0 }));
        for flight in &mut flights {
            flight.payload.fill(code);
        }
        let mut bench = Bench::new(16);
        bench.run(&flights, ms(1000 + shorter_ms + 10), 1_900);
        bench.delays.last().copied().unwrap()
    };
    assert_eq!((kept(0xff, 20), kept(0x9a, 20)), (10_000, 30_000));
    assert_eq!((kept(0xff, 40), kept(0x9a, 40)), (10_000, 30_000));
}

#[test]
fn loss_and_delay_variance_are_followed() {
    for (variance_ms, loss, allowed) in [(40, 2, 0.065), (20, 0, 0.045), (80, 1, 0.06)] {
        let mut chance = Chance(11);
        let ticks = 5 * 60 * 50;
        let flights = Talker::new().packets(0..ticks, |_| {
            let delay = us(chance.below(variance_ms * 1000));
            delay.filter(|_| chance.below(100) >= loss)
        });
        let mut bench = Bench::new(16);
        bench.run(&flights, ms(1010), ticks);
        #[expect(clippy::cast_precision_loss, reason = "minutes")]
        let share = bench.concealed() as f64 / ticks as f64;
        let worst = bench.delays.iter().max().unwrap();
        eprintln!(
            "{variance_ms} ms, {loss} %: {:.2} % concealed, delay at the end {} us, worst {worst} us, {:?}",
            share * 100.0,
            bench.buffer.playout_delay_us(),
            bench.counters.frames,
        );
        assert!(share < allowed, "{variance_ms} ms, {loss} %: {share}");
        assert_eq!(bench.outcome(FrameOutcome::SourceStopped), 0);
    }
}

#[test]
fn a_step_of_60_ms_is_followed_within_a_few_frames_and_given_back() {
    let flights = Talker::new().packets(0..3000, |n| {
        delay_ms(if (500..1500).contains(&n) { 60 } else { 0 })
    });
    let mut bench = Bench::new(16);
    bench.run(&flights, ms(1010), 2900);
    let concealed: Vec<usize> = bench
        .heard
        .iter()
        .enumerate()
        .filter(|(_, heard)| heard.kind == FrameKind::Concealed)
        .map(|(at, _)| at)
        .collect();
    eprintln!(
        "{concealed:?} {:?} delay {}",
        bench.counters.frames,
        bench.buffer.playout_delay_us()
    );
    assert!(
        concealed.len() <= 6 && concealed.iter().all(|at| (500..508).contains(at)),
        "{concealed:?}"
    );
    assert!(bench.delays[1400] > 8_000 && bench.delays[1400] < 30_000);
    // When the path gets shorter again, the surplus is left out bit by bit.
    assert!(bench.buffer.playout_delay_us() < 45_000);
}

#[test]
fn every_packet_time_plays_without_concealment() {
    for samples in [80, 160, 240, 320, 480, 33] {
        for phase in 0..20 {
            let talker = Talker {
                samples,
                begins: ms(1000 + phase),
                ..Talker::new()
            };
            let mut chance = Chance(phase);
            let count = 2000 * 160 / u64::from(samples);
            let flights = talker.packets(0..count, |_| us(chance.below(500)));
            let mut bench = Bench::new(32);
            bench.run(&flights, ms(1000), 1900);
            assert_eq!(bench.concealed(), 0, "{samples} samples, phase {phase}");
            assert!(
                bench.buffer.playout_delay_us() < 36_000,
                "{samples} samples, phase {phase}"
            );
            assert_eq!(bench.numbers().is_empty(), samples != 160);
        }
    }
}

#[test]
fn lost_packets_of_every_packet_time_cost_no_more_than_their_length() {
    for samples in [80, 240, 320, 480] {
        let talker = Talker {
            samples,
            ..Talker::new()
        };
        let count = 1000 * 160 / u64::from(samples);
        let flights = talker.packets(0..count, |n| us(0).filter(|_| n % 10 != 7));
        let mut bench = Bench::new(16);
        bench.run(&flights, ms(1015), 990);
        #[expect(clippy::cast_precision_loss, reason = "a thousand")]
        let share = bench.concealed() as f64 / 990.0;
        let split = if samples % 160 == 0 { 1.0 } else { 2.0 };
        assert!(share < 0.1 * split + 0.005, "{samples}: {share}");
        assert_eq!(bench.outcome(FrameOutcome::SourceStopped), 0);
        assert_eq!(bench.outcome(FrameOutcome::NetworkLate), 0);
    }
}

#[test]
fn a_stall_is_survived_and_its_backlog_does_not_stay() {
    let flights = Talker::new().packets(0..2000, |n| {
        let held = if (500..525).contains(&n) {
            (525 - n) * 20
        } else {
            0
        };
        delay_ms(held)
    });
    let mut bench = Bench::new(16);
    bench.run(&flights, ms(1010), 1990);
    eprintln!(
        "{:?} delay {}",
        bench.counters.frames,
        bench.buffer.playout_delay_us()
    );
    assert!(bench.buffer.playout_delay_us() < 90_000);
    assert_eq!(bench.outcome(FrameOutcome::SourceStopped), 1);
    assert!(
        bench.heard[540..]
            .iter()
            .all(|heard| heard.kind == FrameKind::Decoded)
    );
}
