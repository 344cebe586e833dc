//! One rule at a time.

use super::*;

#[test]
fn first_packet_plays_at_the_first_tick_3_ms_after_it() {
    for (arrives, tick_it_plays_at) in [(0, 1), (16, 1), (17, 1), (18, 2), (20, 2), (37, 2)] {
        let talker = Talker {
            begins: ms(1000 + arrives),
            ..Talker::new()
        };
        let mut bench = Bench::new(16);
        bench.run(&talker.packets(0..10, |_| delay_ms(0)), ms(1000), 8);
        let first = bench
            .heard
            .iter()
            .position(|heard| heard.kind != FrameKind::Nothing);
        assert_eq!(first, Some(tick_it_plays_at), "arrives at {arrives}");
        assert_eq!(
            bench.numbers(),
            (0..8 - tick_it_plays_at as u64).collect::<Vec<_>>()
        );
    }
}

#[test]
fn a_lost_packet_is_concealed_and_called_lost_when_it_cannot_come_any_more() {
    let mut bench = Bench::new(16);
    let flights = Talker::new().packets(0..60, |n| (n != 10).then_some(Duration::ZERO));
    bench.run(&flights, ms(1010), 26);
    assert_eq!(
        (bench.concealed(), bench.outcome(FrameOutcome::NetworkLost)),
        (1, 0)
    );
    let mut bench = Bench::new(16);
    bench.run(&flights, ms(1010), 50);
    assert_eq!(
        (bench.concealed(), bench.outcome(FrameOutcome::NetworkLost)),
        (1, 1)
    );
    assert_eq!(bench.outcome(FrameOutcome::Played), 49);
    assert_eq!((bench.buffer.lost(), bench.buffer.counters().late), (1, 0));
    // The frame after the loss is blended in, all others are untouched.
    assert_eq!(bench.numbers(), (0..10).chain(12..50).collect::<Vec<_>>());
}

#[test]
fn a_late_packet_is_called_late_and_not_lost() {
    let mut bench = Bench::new(16);
    let flights = Talker::new().packets(0..60, |n| delay_ms(if n == 10 { 50 } else { 0 }));
    bench.run(&flights, ms(1010), 50);
    assert_eq!(
        (
            bench.outcome(FrameOutcome::NetworkLate),
            bench.outcome(FrameOutcome::NetworkLost)
        ),
        (1, 0)
    );
    assert_eq!((bench.buffer.lost(), bench.buffer.counters().late), (0, 1));
    assert_eq!(bench.concealed(), 1);
}

#[test]
fn a_late_packet_of_a_tick_that_ran_late_is_the_workers_fault() {
    let mut bench = Bench::new(16);
    for n in 0..6 {
        bench.insert(&Talker::new().packet(n, Duration::ZERO));
        bench.tick(ms(1010 + n * 20));
    }
    bench.late_tick(ms(1130), ms(1145));
    let mut packet = Talker::new().packet(6, Duration::ZERO);
    packet.at = ms(1146);
    assert_eq!(bench.insert(&packet), Insert::Late);
    assert_eq!(bench.outcome(FrameOutcome::WorkerLate), 1);
    // A tick that the worker left out altogether.
    bench.insert(&Talker::new().packet(7, Duration::ZERO));
    bench.insert(&Talker::new().packet(8, Duration::ZERO));
    assert_eq!(bench.tick(ms(1170)).kind, FrameKind::Decoded);
    assert_eq!(bench.outcome(FrameOutcome::WorkerLate), 2);
    assert_eq!(bench.buffer.position, bench.buffer.tracker.newest_ends());
}

#[test]
fn what_comes_between_a_ticks_beginning_and_its_run_is_here() {
    let mut bench = Bench::new(16);
    let talker = Talker::new();
    for n in 0..20 {
        let mut packet = talker.packet(n, Duration::ZERO);
        packet.at = ms(1000 + n * 20 + if n == 10 { 14 } else { 0 });
        bench.insert(&packet);
        bench.late_tick(ms(1010 + n * 20), ms(1010 + n * 20 + 5));
    }
    assert_eq!((bench.concealed(), bench.numbers().len()), (0, 20));
}

#[test]
fn reordered_packets_are_played_in_order() {
    let mut bench = Bench::new(16);
    // The very first two are swapped as well.
    let flights = Talker::new().packets(0..40, |n| delay_ms(if n % 8 == 0 { 23 } else { 0 }));
    bench.run(&flights, ms(1042), 30);
    assert_eq!(bench.concealed(), 0);
    assert_eq!(bench.numbers(), (0..30).collect::<Vec<_>>());
}

#[test]
fn duplicates_are_told_from_late_ones() {
    let mut bench = Bench::new(16);
    let talker = Talker::new();
    let mut flights = talker.packets(0..60, |_| delay_ms(0));
    flights.extend(talker.packets(0..30, |n| delay_ms(n % 3 * 15)));
    bench.run(&flights, ms(1010), 50);
    let own = bench.buffer.counters();
    assert_eq!((own.duplicate, own.late, bench.concealed()), (30, 0, 0));
    assert_eq!(bench.numbers(), (0..50).collect::<Vec<_>>());
}

#[test]
fn a_source_that_stops_owes_nothing_more() {
    let mut bench = Bench::new(16);
    bench.run(&Talker::new().packets(0..20, |_| delay_ms(0)), ms(1010), 100);
    assert_eq!(bench.outcome(FrameOutcome::Played), 20);
    assert_eq!(bench.outcome(FrameOutcome::SourceStopped), 1);
    assert_eq!((bench.concealed(), bench.buffer.counters().stops), (5, 1));
    assert!(
        bench.heard[25..]
            .iter()
            .all(|heard| heard.kind == FrameKind::Nothing)
    );
    let mut counters = bench.counters;
    bench.buffer.reset(&mut counters);
    assert_eq!(
        counters.frames, bench.counters.frames,
        "nothing was lost by the end of a call"
    );
}

#[test]
fn silence_suppression_costs_no_frame_and_keeps_the_time_line() {
    for pause in [2_u64, 4, 7, 40, 200] {
        let talker = Talker::new();
        let mut flights = talker.packets(0..50, |_| delay_ms(0));
        let resumed = Talker {
            sequence: talker.sequence + 50,
            timestamp: talker.timestamp + (50 + u32::try_from(pause).unwrap()) * 160,
            begins: ms(1000 + (50 + pause) * 20),
            ..talker
        };
        flights.extend(resumed.packets(0..100, |_| delay_ms(0)));
        let mut bench = Bench::new(16);
        bench.run(&flights, ms(1010), 150 + pause);
        assert_eq!(bench.outcome(FrameOutcome::NetworkLost), 0, "pause {pause}");
        assert_eq!(bench.outcome(FrameOutcome::NetworkLate), 0, "pause {pause}");
        assert_eq!(bench.outcome(FrameOutcome::Played), 150, "pause {pause}");
        assert_eq!(
            bench.outcome(FrameOutcome::SourceStopped),
            u64::from(pause > 5),
            "pause {pause}"
        );
        assert_eq!(
            bench.heard[50 + usize::try_from(pause).unwrap() - 1].payload,
            None
        );
        assert_eq!(
            bench.numbers().len(),
            149,
            "all but the blended one, pause {pause}"
        );
        assert_eq!(bench.buffer.playout_delay_us(), 10_000);
    }
}

#[test]
fn a_pause_off_the_frame_grid_does_not_split_packets_for_ever() {
    let talker = Talker::new();
    let mut flights = talker.packets(0..50, |_| delay_ms(0));
    let resumed = Talker {
        sequence: 1050,
        timestamp: 5000 + 52 * 160 + 56,
        begins: ms(2047),
        ..Talker::new()
    };
    flights.extend(resumed.packets(0..100, |_| delay_ms(0)));
    let mut bench = Bench::new(16);
    bench.run(&flights, ms(1010), 140);
    assert!(bench.numbers().len() > 130, "{}", bench.numbers().len());
    assert_eq!(bench.outcome(FrameOutcome::NetworkLost), 0);
}

#[test]
fn packets_without_audio_are_neither_lost_nor_owed() {
    // A key press of 200 ms: eleven event packets take part in the sequence.
    let talker = Talker::new();
    let mut bench = Bench::new(16);
    for n in 0..100_u64 {
        let mut packet = talker.packet(n, Duration::ZERO);
        if (40..50).contains(&n) {
            bench.buffer.skip(SSRC, packet.meta.sequence);
        } else {
            packet.meta.timestamp = 5000 + u32::try_from(n).unwrap() * 160;
            bench.insert(&packet);
        }
        bench.tick(ms(1010 + n * 20));
    }
    bench.check_totals();
    assert_eq!(bench.buffer.lost(), 0);
    assert_eq!(bench.outcome(FrameOutcome::NetworkLost), 0);
    assert_eq!(bench.outcome(FrameOutcome::Played), 90);
}

#[test]
fn a_new_ssrc_is_taken_after_two_packets_in_sequence() {
    let talker = Talker::new();
    let mut flights = talker.packets(0..20, |_| delay_ms(0));
    let mut other = Talker {
        sequence: 40_000,
        timestamp: 7,
        begins: ms(1400),
        ..talker
    }
    .packets(0..30, |_| delay_ms(0));
    for flight in &mut other {
        flight.meta.ssrc = 0xabcd;
    }
    flights.extend(other);
    let mut bench = Bench::new(16);
    bench.run(&flights, ms(1010), 45);
    assert_eq!(
        bench.inserts[19..23],
        [
            Insert::Stored,
            Insert::Probation,
            Insert::Resynced,
            Insert::Stored
        ]
    );
    assert_eq!(bench.buffer.ssrc(), Some(0xabcd));
    assert_eq!(bench.outcome(FrameOutcome::NetworkLost), 0);
    assert_eq!(bench.buffer.lost(), 0);
}

#[test]
fn a_stray_ssrc_never_displaces_a_talker() {
    let mut flights = Talker::new().packets(0..50, |_| delay_ms(0));
    let mut stray = Talker {
        begins: ms(1003),
        ..Talker::new()
    }
    .packets(0..50, |_| delay_ms(0));
    for flight in &mut stray {
        flight.meta.ssrc = 0xabcd;
    }
    flights.extend(stray);
    let mut bench = Bench::new(16);
    bench.run(&flights, ms(1010), 50);
    assert_eq!(bench.numbers(), (0..50).collect::<Vec<_>>());
    assert_eq!(bench.buffer.ssrc(), Some(SSRC));
}

#[test]
fn jumps_of_sequence_or_timestamp_are_taken_after_two_packets() {
    for (sequence, timestamp) in [
        (1020 + 4000, 5000 + 20 * 160),
        (900, 5000 + 20 * 160),
        (1020, 0_u32.wrapping_sub(3000)),
    ] {
        let talker = Talker::new();
        let mut flights = talker.packets(0..20, |_| delay_ms(0));
        let jumped = Talker {
            sequence,
            timestamp,
            begins: ms(1400),
            ..talker
        };
        let mut later = jumped.packets(0..40, |_| delay_ms(0));
        later[0].meta.marker = false;
        flights.extend(later);
        let mut bench = Bench::new(16);
        bench.run(&flights, ms(1010), 55);
        assert_eq!(
            bench.inserts[20..22],
            [Insert::Probation, Insert::Resynced],
            "{sequence} {timestamp}"
        );
        assert!(
            bench.concealed() <= 4,
            "{sequence} {timestamp}: {}",
            bench.concealed()
        );
        assert_eq!(
            bench.outcome(FrameOutcome::Played),
            20 + 34,
            "{sequence} {timestamp}"
        );
    }
}

#[test]
fn a_marked_packet_may_move_the_clock_back_at_once() {
    let mut flights = Talker::new().packets(0..20, |_| delay_ms(0));
    let spurt = Talker {
        sequence: 1020,
        timestamp: 17,
        begins: ms(1400),
        ..Talker::new()
    };
    flights.extend(spurt.packets(0..20, |_| delay_ms(0)));
    let mut bench = Bench::new(16);
    bench.run(&flights, ms(1010), 40);
    assert_eq!(bench.inserts[20], Insert::Resynced);
    assert_eq!((bench.concealed(), bench.outcome(FrameOutcome::Played)), (0, 40));
}

#[test]
fn a_forward_jump_of_the_clock_is_no_pause() {
    let mut flights = Talker::new().packets(0..20, |_| delay_ms(0));
    let spurt = Talker {
        sequence: 1020,
        timestamp: 900_000_000,
        begins: ms(1400),
        ..Talker::new()
    };
    flights.extend(spurt.packets(0..20, |_| delay_ms(0)));
    let mut bench = Bench::new(16);
    bench.run(&flights, ms(1010), 40);
    assert_eq!((bench.concealed(), bench.outcome(FrameOutcome::Played)), (0, 40));
    assert_eq!(bench.numbers().len(), 40);
}

#[test]
fn a_backlog_at_the_start_is_not_kept_as_delay() {
    // The network held 25 packets and lets them go at once.
    let flights = Talker::new().packets(0..100, |n| delay_ms(500_u64.saturating_sub(n * 20)));
    let mut bench = Bench::new(16);
    bench.run(&flights, ms(1010), 100);
    assert!(
        bench.buffer.playout_delay_us() < 90_000,
        "{}",
        bench.buffer.playout_delay_us()
    );
    assert_eq!(
        bench.outcome(FrameOutcome::NetworkLost) + bench.outcome(FrameOutcome::NetworkLate),
        0
    );
    // Every packet was kept and heard, or kept and left out, or had no slot, or waits.
    let own = bench.buffer.counters();
    assert_eq!((own.received, own.early), (100 - 1, 1));
    assert_eq!(bench.outcome(FrameOutcome::Skew), own.left_out);
    assert_eq!(
        own.received - bench.outcome(FrameOutcome::Played) - own.left_out,
        bench.waiting()
    );
    assert!(own.left_out >= 16 + 4, "{own:?}");
}

#[test]
fn what_finds_no_slot_is_early_and_two_of_them_begin_anew() {
    for slots in [16, 32] {
        let talker = Talker::new();
        let mut bench = Bench::new(slots);
        bench.insert(&talker.packet(0, Duration::ZERO));
        bench.tick(ms(1010));
        // Packet 1 is missing, so that 2 is the oldest that waits.
        let last = u64::from(slots) + 1;
        for n in (2..=last).rev() {
            assert_eq!(
                bench.insert(&talker.packet(n, Duration::ZERO)),
                Insert::Stored,
                "{n} of {slots}"
            );
        }
        assert_eq!(
            bench.insert(&talker.packet(last + 1, Duration::ZERO)),
            Insert::Early
        );
        assert_eq!(
            bench.insert(&talker.packet(last + 2, Duration::ZERO)),
            Insert::Resynced
        );
        assert_eq!(bench.outcome(FrameOutcome::Skew), u64::from(slots));
        assert_eq!(bench.waiting(), 1);
        bench.check_totals();
    }
}

#[test]
fn lengths_are_checked() {
    let mut bench = Bench::new(16);
    let mut packet = Talker::new().packet(0, Duration::ZERO);
    for length in [0, 481, 1200] {
        packet.payload = vec![0; length];
        assert_eq!(bench.insert(&packet), Insert::BadLength);
    }
    packet.meta.codec = Codec::L16;
    for length in [1, 161, 482] {
        packet.payload = vec![0; length];
        assert_eq!(bench.insert(&packet), Insert::BadLength);
    }
    assert_eq!(bench.buffer.ssrc(), None);
    packet.payload = vec![0; 320];
    assert_eq!(bench.insert(&packet), Insert::Stored);
}

#[test]
fn the_codec_may_change_with_every_packet() {
    let mut bench = Bench::new(16);
    let mut flights = Talker::new().packets(0..30, |_| delay_ms(0));
    for (n, flight) in flights.iter_mut().enumerate() {
        flight.meta.codec = [Codec::Pcmu, Codec::Pcma, Codec::L16][n % 3];
        if n % 3 == 2 {
            flight.payload.resize(320, 1);
        }
    }
    bench.run(&flights, ms(1010), 30);
    assert_eq!(bench.numbers(), (0..30).collect::<Vec<_>>());
}

#[test]
fn sequence_and_timestamp_wrap() {
    let talker = Talker {
        sequence: u16::MAX - 30,
        timestamp: u32::MAX - 4000,
        ..Talker::new()
    };
    let mut bench = Bench::new(16);
    bench.run(
        &talker.packets(0..200, |n| (n % 20 != 13).then_some(Duration::ZERO)),
        ms(1010),
        200,
    );
    assert_eq!((bench.concealed(), bench.buffer.lost()), (10, 10));
    assert_eq!(bench.outcome(FrameOutcome::Played), 190);
}

#[test]
fn reset_begins_anew() {
    let mut bench = Bench::new(16);
    bench.run(&Talker::new().packets(0..20, |_| delay_ms(0)), ms(1010), 18);
    let mut counters = bench.counters;
    bench.buffer.reset(&mut counters);
    bench.counters = counters;
    assert_eq!(bench.buffer.ssrc(), None);
    assert_eq!(bench.tick(ms(9000)).kind, FrameKind::Nothing);
    assert_eq!(
        bench.insert(
            &Talker {
                begins: ms(9001),
                ..Talker::new()
            }
            .packet(0, Duration::ZERO)
        ),
        Insert::Stored
    );
    assert_eq!(bench.tick(ms(9020)).kind, FrameKind::Decoded);
    bench.check_totals();
}
