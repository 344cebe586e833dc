//! The operator's tool against a live system.

use crate::phone::Phone;
use crate::setup::{System, wait_for};

fn text(output: &std::process::Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn every_verb_does_what_it_says() {
    let system = System::start("operator");
    assert_eq!(text(&system.tool(&["conferences"])), "no conferences\n");
    let mut phones = [Phone::new(system.sip), Phone::new(system.sip)];
    for phone in &mut phones {
        assert_eq!(phone.call("room"), 200);
    }
    let ids = shows_who_is_there(&system, &phones);
    mutes_and_unmutes(&system, &ids[0]);
    let mut third = locks_and_unlocks(&system);

    text(&system.tool(&["kick", "room", &ids[0]]));
    phones[0].wait_for_bye();
    wait_for("two to be left", || {
        (system.tool_json(&["show", "room"])["participants"]
            .as_array()?
            .len()
            == 2)
            .then_some(())
    });
    text(&system.tool(&["end", "room"]));
    phones[1].wait_for_bye();
    third.wait_for_bye();
    system.wait_until_mixer_is_empty();
    wait_for("the room to be gone", || {
        system
            .tool_json(&["conferences"])
            .as_array()?
            .is_empty()
            .then_some(())
    });
    tells_what_is_missing(&system);
}

/// `status`, `conferences` and `show` with two phones in the room; their participant ids.
fn shows_who_is_there(system: &System, phones: &[Phone; 2]) -> Vec<String> {
    let shown = system.tool_json(&["show", "room"]);
    let ids: Vec<String> = (0..2)
        .map(|n| {
            shown["participants"][n]["participant"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(shown["participants"][1]["call_id"], phones[1].call_id());
    assert!(text(&system.tool(&["status"])).contains("participants  2\n"));
    assert!(
        text(&system.tool(&["conferences"]))
            .lines()
            .nth(1)
            .unwrap()
            .starts_with("room ")
    );
    let table = text(&system.tool(&["show", "room"]));
    let column = table.lines().nth(1).unwrap().find("ADDRESS").unwrap();
    assert!(
        table
            .lines()
            .skip(2)
            .all(|line| line[column..].starts_with("sip:phone")),
        "{table}"
    );
    ids
}

/// `mute` of the room's first participant, `id`, on and off.
fn mutes_and_unmutes(system: &System, id: &str) {
    let muted = || system.tool_json(&["show", "room"])["participants"][0]["muted"].clone();
    text(&system.tool(&["mute", "room", id]));
    assert_eq!(muted(), true);
    text(&system.tool(&["mute", "room", id, "--off"]));
    assert_eq!(muted(), false);
}

/// `lock` keeps a phone out; after `--off` one comes in, which is returned.
fn locks_and_unlocks(system: &System) -> Phone {
    text(&system.tool(&["lock", "room"]));
    let refused = Phone::new(system.sip).call("room");
    assert!(refused >= 400, "{refused}");
    text(&system.tool(&["lock", "room", "--off"]));
    let mut phone = Phone::new(system.sip);
    assert_eq!(phone.call("room"), 200);
    phone
}

/// A verb about what does not exist fails with one line.
fn tells_what_is_missing(system: &System) {
    for missing in [
        ["show", "none"].as_slice(),
        &["end", "none"],
        &["lock", "none"],
        &["kick", "none", "x"],
    ] {
        let output = system.tool(missing);
        assert_eq!(output.status.code(), Some(1), "{missing:?}");
        let line = String::from_utf8(output.stderr).unwrap();
        assert!(
            line.starts_with("mixminus: ") && line.lines().count() == 1,
            "{line}"
        );
    }
}
