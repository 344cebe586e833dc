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

/// Capabilities the tests below take: CHOWN, SETPCAP, NET_ADMIN, NET_RAW, IPC_LOCK, SYS_ADMIN, SYS_NICE, BPF.
const NEEDED: u64 = 1 | 1 << 8 | 1 << 12 | 1 << 13 | 1 << 14 | 1 << 21 | 1 << 23 | 1 << 39;

/// Whether root's tests can run, with these programs; says which test could not. Root of a container
/// may lack capabilities.
fn root(test: &str, programs: &[&str]) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let row = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    let held = u64::from_str_radix(row("CapEff:").trim(), 16).unwrap();
    if row("Uid:").split_whitespace().nth(1) != Some("0") || held & NEEDED != NEEDED {
        eprintln!("NOT RUN: {test} needs root with its capabilities");
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
