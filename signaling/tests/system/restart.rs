//! The signaling process dies; the calls do not notice.

use crate::phone::{Heard, Phone, Talk};
use crate::setup::{System, wait_for};

const LEGS: usize = 30;
const ROOMS: usize = 6;

fn everybody_hears(talk: &Talk, frames: u64) {
    let before: Vec<(u64, u64)> = talk
        .heard
        .iter()
        .map(|heard| (heard.packets(), heard.sounding()))
        .collect();
    let goes_on = |(heard, before): (&std::sync::Arc<Heard>, &(u64, u64))| {
        heard.packets() >= before.0 + frames && heard.sounding() > before.1
    };
    wait_for("everybody to hear on", || {
        talk.heard.iter().zip(&before).all(goes_on).then_some(())
    });
}

#[test]
fn a_killed_signaling_costs_no_frame_and_every_leg_can_hang_up() {
    let mut system = System::start("restart");
    let mut phones: Vec<Phone> = (0..LEGS).map(|_| Phone::new(system.sip)).collect();
    for (index, phone) in phones.iter_mut().enumerate() {
        assert_eq!(phone.call(&format!("room{}", index % ROOMS)), 200);
    }
    let mut talk = Talk::start(&phones);
    everybody_hears(&talk, 50);
    let shown = system.tool_json(&["status"]);
    assert_eq!(
        (&shown["participants"], &shown["conferences"]),
        (&LEGS.into(), &ROOMS.into())
    );
    assert!(system.tool(&["lock", "room0"]).status.success());
    wait_for("the store to have everything", || {
        (system.metric("mixminus_db_pending") == 0.0).then_some(())
    });

    system.signaling.kill();
    everybody_hears(&talk, 100);
    // One phone hangs up while nobody is there to answer; it repeats until somebody is.
    let (waiting, rest) = phones.split_at_mut(1);
    std::thread::scope(|scope| {
        let hung_up = scope.spawn(|| waiting[0].hang_up());
        system.start_signaling_again();
        assert_eq!(hung_up.join().unwrap(), 200);
    });
    let shown = system.tool_json(&["status"]);
    assert_eq!(
        (&shown["participants"], &shown["conferences"]),
        (&(LEGS - 1).into(), &ROOMS.into())
    );
    assert_eq!(system.tool_json(&["show", "room0"])["locked"], true);
    everybody_else_hears(&talk);
    for phone in rest {
        assert_eq!(phone.hang_up(), 200);
    }
    talk.stop();
    for (index, heard) in talk.heard.iter().enumerate() {
        assert_eq!(heard.breaks(), 0, "leg {index} lost frames");
    }
    system.wait_until_mixer_is_empty();
    assert_eq!(system.tool_json(&["conferences"]).as_array().unwrap().len(), 0);
}

/// The first phone has left.
fn everybody_else_hears(talk: &Talk) {
    let before: Vec<u64> = talk.heard.iter().map(|heard| heard.packets()).collect();
    let goes_on = |(heard, before): (&std::sync::Arc<Heard>, &u64)| heard.packets() > before + 50;
    wait_for("everybody else to hear on", || {
        talk.heard.iter().zip(&before).skip(1).all(goes_on).then_some(())
    });
}

#[test]
fn a_stop_asked_for_ends_cleanly_and_keeps_the_calls() {
    let mut system = System::start("stop");
    let mut phone = Phone::new(system.sip);
    assert_eq!(phone.call("room"), 200);
    // Not waited for: the end of the program writes what is pending.
    assert_eq!(system.signaling.terminate(), Some(0));
    system.start_signaling_again();
    let shown = system.tool_json(&["show", "room"]);
    assert_eq!(shown["participants"][0]["call_id"], phone.call_id());
    assert_eq!(phone.hang_up(), 200);
    system.wait_until_mixer_is_empty();
}

#[test]
fn a_dead_mixer_is_told_and_a_new_one_is_used() {
    let mut system = System::start("mixer-death");
    let up = format!("mixminus_mixer_up{{mixer=\"http://{}\"}}", system.control);
    assert_eq!(system.metric(&up), 1.0);
    let mut phone = Phone::new(system.sip);
    assert_eq!(phone.call("room"), 200);
    system.mixer.kill();
    wait_for("the mixer to be missed", || {
        (system.metric(&up) == 0.0).then_some(())
    });
    assert_eq!(crate::setup::http_get(system.http, "/readyz").unwrap().0, 503);
    let status = Phone::new(system.sip).call("other");
    assert_eq!(status, 503);
}
