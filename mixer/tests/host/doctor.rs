//! The program's `doctor` on the machine that tests it.

use std::process::{Command, Output};

use super::PROGRAM;

fn doctor(arguments: &[&str]) -> Output {
    Command::new(PROGRAM)
        .arg("doctor")
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn objects_and_exit_code_agree() {
    let output = doctor(&["--json", "--no-measure", "--interface", "lo"]);
    let lines: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    let failed = lines.iter().any(|line| line["verdict"] == "fail");
    assert_eq!(output.status.code(), Some(i32::from(failed)), "{lines:#?}");
    for what in [
        "kernel",
        "io_uring",
        "capabilities",
        "open files",
        "ports",
        "cores",
        "isolation",
        "governor",
        "MTU",
        "interrupt deferral",
        "XDP modes",
    ] {
        assert!(
            lines.iter().any(|line| line["what"] == what),
            "no {what} in {lines:#?}"
        );
    }
    for line in &lines {
        assert!(line["finding"].is_string() && line.as_object().unwrap().len() == 4);
    }
}

#[test]
fn an_overlap_of_ports_is_found_in_the_file_that_is_named() {
    let path = std::env::temp_dir().join(format!("mixminus-{}-doctor.toml", std::process::id()));
    std::fs::write(&path, "[io]\nports = \"20000-65535\"\nbackend = \"uring\"\n").unwrap();
    let file = path.to_str().unwrap();
    let output = doctor(&["--no-measure", "--config", file]);
    let before = Command::new(PROGRAM)
        .args(["--config", file, "doctor", "--no-measure"])
        .output()
        .unwrap();
    std::fs::remove_file(&path).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("ports: io.ports 20000-65535 overlap"), "{text}");
    assert_eq!(text, String::from_utf8(before.stdout).unwrap());
}

#[test]
fn usage_and_configuration() {
    assert_eq!(doctor(&["--nonsense"]).status.code(), Some(64));
    let output = doctor(&["--config", "/does/not/exist"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("/does/not/exist")
    );
    let help = String::from_utf8(doctor(&["--help"]).stdout).unwrap();
    assert!(help.contains("0 nothing failed"), "{help}");
}
