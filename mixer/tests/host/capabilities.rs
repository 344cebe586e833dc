//! Exact capability sets, given by `setpriv` to a child.

use std::collections::BTreeMap;
use std::process::Command;

use mixer::capabilities::{Capability, keep_only};

use super::{PROGRAM, root};

/// Set for the child that gives up everything but `CAP_NET_RAW`.
const CHILD: &str = "MIXMINUS_TEST_KEEP";
/// Bit of `CAP_SETPCAP`.
const SETPCAP: u64 = 1 << 8;

fn bits(capabilities: &[Capability]) -> u64 {
    capabilities
        .iter()
        .fold(0, |bits, capability| bits | 1 << capability.bit())
}

/// Runs a program as root whose permitted set is exactly `list` (as setpriv writes it).
fn with(list: &str, program: &str) -> Command {
    let mut command = Command::new("setpriv");
    let sets = format!("-all{list}");
    command.args(["--bounding-set", &sets, "--inh-caps", "-all", "--", program]);
    command
}

/// The capability lines of a status file.
fn sets(status: &str) -> BTreeMap<&str, u64> {
    status
        .lines()
        .filter_map(|line| line.strip_prefix("Cap")?.split_once(":\t"))
        .map(|(name, bits)| (name, u64::from_str_radix(bits.trim(), 16).unwrap()))
        .collect()
}

/// No test of its own: what the child of the next test runs.
#[test]
fn child_that_gives_up() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let kept = keep_only(&[Capability::NetRaw]).unwrap();
    let later = std::thread::spawn(|| std::fs::read_to_string("/proc/thread-self/status").unwrap());
    let status = later.join().unwrap();
    assert_eq!(
        sets(&status),
        sets(&std::fs::read_to_string("/proc/thread-self/status").unwrap()),
        "a thread started later has no more"
    );
    assert_eq!(sets(&status)["Eff"], bits(&kept));
    println!("{status}");
}

fn child(list: &str) -> String {
    let own = std::env::current_exe().unwrap();
    let output = with(list, own.to_str().unwrap())
        .args(["--exact", "capabilities::child_that_gives_up", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn only_what_is_named_is_left_in_the_kernels_books() {
    if !root("capabilities that are given up", &["setpriv"]) {
        return;
    }
    let status = child(",+net_raw,+net_admin,+sys_nice,+chown,+setpcap");
    let left = bits(&[Capability::NetRaw, Capability::SysNice]);
    let expected = BTreeMap::from([
        ("Inh", 0),
        ("Prm", left),
        ("Eff", left),
        ("Bnd", left),
        ("Amb", 0),
    ]);
    assert_eq!(sets(&status), expected);
}

#[test]
fn without_setpcap_the_bounding_set_stays() {
    if !root("capabilities without CAP_SETPCAP", &["setpriv"]) {
        return;
    }
    let status = child(",+net_raw,+net_admin,+bpf,+ipc_lock");
    let left = bits(&[Capability::NetRaw, Capability::IpcLock]);
    let given = bits(&[
        Capability::NetRaw,
        Capability::NetAdmin,
        Capability::Bpf,
        Capability::IpcLock,
    ]);
    let sets = sets(&status);
    assert_eq!((sets["Prm"], sets["Eff"], sets["Bnd"]), (left, left, given));
    assert_eq!(sets["Bnd"] & SETPCAP, 0);
}

#[test]
fn doctor_names_exactly_what_is_missing() {
    if !root("capabilities that are missing", &["setpriv"]) {
        return;
    }
    let line = |list: &str| {
        let output = with(list, PROGRAM)
            .args(["doctor", "--no-measure"])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines()
            .find(|line| line.contains("capabilities:"))
            .unwrap()
            .to_owned()
    };
    let some = line(",+net_admin,+sys_nice");
    assert!(some.contains("lacks CAP_NET_RAW CAP_BPF "), "{some}");
    assert!(some.contains("AmbientCapabilities=CAP_NET_RAW CAP_BPF"), "{some}");
    let all = line(",+net_admin,+net_raw,+bpf,+sys_nice");
    assert!(all.starts_with("ok"), "{all}");
}
