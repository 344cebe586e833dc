//! The mixer and its host, with the real kernel and programs: capabilities, steering, doctor.
//!
//! What needs root says `NOT RUN` on standard error when there is none.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "host/capabilities.rs"]
mod capabilities;
#[path = "host/doctor.rs"]
mod doctor;
#[path = "host/steering.rs"]
mod steering;

use std::process::Command;

const PROGRAM: &str = env!("CARGO_BIN_EXE_mixminus-mixer");

/// Whether root's tests can run, with these programs; says which test could not.
fn root(test: &str, programs: &[&str]) -> bool {
    let user = std::fs::read_to_string("/proc/self/status").unwrap();
    let user = user.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
    if user.split_whitespace().nth(1) != Some("0") {
        eprintln!("NOT RUN: {test} needs root");
        return false;
    }
    for program in programs {
        if Command::new(program).arg("--version").output().is_err() {
            eprintln!("NOT RUN: {test} needs the program {program}");
            return false;
        }
    }
    true
}
