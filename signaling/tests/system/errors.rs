//! Every way not to start: one line with place and remedy, and the documented exit code.

use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::Command;

use crate::setup::{Directory, SIGNALING, TOOL, mixer_program, run};

/// Runs a program that must refuse, and returns its one line.
fn refusal(program: &str, arguments: &[&str], code: i32) -> String {
    let output = run(Command::new(program).args(arguments));
    let line = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {line}");
    assert_eq!(line.lines().count(), 1, "{arguments:?}: {line}");
    line
}

/// A configuration on free ports, without a mixer.
fn config(directory: &Directory, sip: &str, http: &str, store: &str) -> String {
    let text = format!(
        "[sip]\nlisten = [\"{sip}\"]\n[http]\nlisten = \"{http}\"\n[store]\nurl = \"{store}\"\n\
         [[mixer]]\nurl = \"http://127.0.0.1:1\"\n"
    );
    directory.file("signaling.toml", &text).display().to_string()
}

#[test]
fn wrong_command_lines_are_64() {
    for (program, arguments) in [
        (SIGNALING, ["--nonsense"].as_slice()),
        (SIGNALING, &["--wait-mixer", "soon"]),
        (TOOL, &["dance"]),
        (TOOL, &["mute", "room"]),
        (TOOL, &[]),
        (TOOL, &["status", "--url", "127.0.0.1"]),
    ] {
        let line = refusal(program, arguments, 64);
        assert!(
            line.contains("--help") || line.contains("write it like"),
            "{line}"
        );
    }
}

#[test]
fn help_version_and_check_are_0() {
    for program in [SIGNALING, TOOL] {
        for argument in ["--help", "--version"] {
            let output = run(Command::new(program).arg(argument));
            assert!(
                output.status.success() && !output.stdout.is_empty() && output.stderr.is_empty(),
                "{program}"
            );
        }
        let output = run(Command::new(program).arg("--check"));
        let printed = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success()
                && printed.contains("listen = [\"udp:127.0.0.1:5060\", \"tcp:127.0.0.1:5060\"]")
        );
        let directory = Directory::new("check");
        let file = directory.file("effective.toml", &printed);
        let again = run(Command::new(program).arg("--config").arg(&file).arg("--check"));
        assert_eq!(String::from_utf8(again.stdout).unwrap(), printed);
    }
}

#[test]
fn wrong_configurations_are_78_and_name_the_line() {
    let directory = Directory::new("wrong");
    let file = directory
        .file("bad.toml", "[sip]\n\nlisen = []\n")
        .display()
        .to_string();
    for line in [
        refusal(SIGNALING, &["--config", &file], 78),
        refusal(SIGNALING, &["--config", &file, "--check"], 78),
        refusal(TOOL, &["check-config", &file], 78),
        refusal(TOOL, &["--config", &file, "status"], 78),
    ] {
        assert!(line.contains("bad.toml:3: unknown key `lisen`"), "{line}");
    }
    let line = refusal(SIGNALING, &["--config", "/does/not/exist"], 78);
    assert!(line.contains("/does/not/exist"), "{line}");
    let nowhere = config(&directory, "udp:192.0.2.1:5060", "127.0.0.1:0", "sqlite::memory:");
    let line = refusal(SIGNALING, &["--config", &nowhere], 78);
    assert!(
        line.contains("udp:192.0.2.1:5060") && line.contains("[sip] listen"),
        "{line}"
    );
}

#[test]
fn both_configurations_can_be_checked() {
    let directory = Directory::new("both");
    assert!(mixer_program().is_file());
    let good = directory.file("mixer.toml", "[control]\nlisten = \"127.0.0.1:1\"\n");
    let output = run(Command::new(TOOL).arg("check-config").arg(&good));
    assert!(output.status.success(), "{output:?}");
    let bad = directory
        .file("mixer.toml", "[io]\nadress = \"127.0.0.1\"\n")
        .display()
        .to_string();
    let line = refusal(TOOL, &["check-config", &bad], 78);
    assert!(line.contains("mixer.toml:2"), "{line}");
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("signaling.sample.toml");
    assert!(
        run(Command::new(TOOL).arg("check-config").arg(sample))
            .status
            .success()
    );
}

#[test]
fn doctor_is_the_mixers() {
    assert!(mixer_program().is_file());
    let asked = ["doctor", "--no-measure", "--json", "--interface", "lo"];
    let through = run(Command::new(TOOL).args(asked));
    let direct = run(Command::new(mixer_program()).args(asked));
    assert_eq!(through.status.code(), direct.status.code());
    assert_eq!(through.stdout, direct.stdout);
    assert!(through.stdout.starts_with(b"["), "{through:?}");
    let wrong = run(Command::new(TOOL).args(["doctor", "--config", "/does/not/exist"]));
    assert_eq!(wrong.status.code(), Some(78), "{wrong:?}");
    refusal(TOOL, &["--json", "doctor"], 64);
}

#[test]
fn taken_ports_and_absent_neighbours_are_75() {
    let directory = Directory::new("taken");
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let (udp, tcp_address) = (udp.local_addr().unwrap(), tcp.local_addr().unwrap());
    let unused = "udp:127.0.0.1:0";
    let store = format!("sqlite:{}/x.db", directory.path().display());
    let table = [
        (
            format!("udp:{udp}"),
            "127.0.0.1:0".to_owned(),
            store.clone(),
            format!("udp:{udp}"),
        ),
        (
            format!("tcp:{tcp_address}"),
            "127.0.0.1:0".to_owned(),
            store.clone(),
            format!("tcp:{tcp_address}"),
        ),
        (
            unused.to_owned(),
            tcp_address.to_string(),
            store.clone(),
            format!("operator HTTP {tcp_address}"),
        ),
        (
            unused.to_owned(),
            "127.0.0.1:0".to_owned(),
            "sqlite:/proc/x.db".to_owned(),
            "/proc/x.db".to_owned(),
        ),
        (
            unused.to_owned(),
            "127.0.0.1:0".to_owned(),
            store,
            "http://127.0.0.1:1".to_owned(),
        ),
    ];
    for (sip, http, store, named) in table {
        let file = config(&directory, &sip, &http, &store);
        let line = refusal(SIGNALING, &["--config", &file, "--wait-mixer", "0"], 75);
        assert!(line.contains(&named), "{line}");
        assert!(
            ["change [", "set [store] url", "set [[mixer]] url"]
                .iter()
                .any(|remedy| line.contains(remedy)),
            "{line}"
        );
    }
}

#[test]
fn a_tool_that_reaches_nobody_is_75() {
    let line = refusal(TOOL, &["status", "--url", "http://127.0.0.1:1"], 75);
    assert!(
        line.contains("http://127.0.0.1:1") && line.contains("--url"),
        "{line}"
    );
}
