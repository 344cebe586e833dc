//! A worker whose turns are further apart than its slots.

use mixer::io::sim::SimConfig;

use crate::stage::{Stage, assert_continuous};

const PHASES: [u8; 3] = [0, 6, 7];

#[test]
fn a_turn_runs_the_slots_since_the_last_one_and_those_in_which_it_begins_are_in_time() {
    let mut stage = Stage::with_turns(&SimConfig::default(), 2);
    for (room, phase) in (0..).zip(PHASES) {
        stage.add_conference(room, phase);
        stage.add_endpoint(room, 2 * room, true);
        stage.add_endpoint(room, 2 * room + 1, true);
    }
    stage.run(2_000);
    let worker = stage.control.stats().read().worker;
    assert_eq!(worker.turns, 1_000);
    assert_eq!(worker.slots, 1_999, "the last turn began in slot 1,998");
    assert_eq!((worker.slots_late, worker.slots_skipped), (0, 0));
    for phone in &stage.phones {
        let heard = &phone.heard;
        assert!(heard.len() >= 95, "{}", heard.len());
        assert_continuous(heard);
        // Slot 7 is run by the turn that begins in slot 8.
        let phase = PHASES[phone.at.0 as usize / 2].next_multiple_of(2);
        for packet in heard {
            assert_eq!(packet.at.0 / 1_000_000 % 20, u64::from(phase));
        }
    }
}
