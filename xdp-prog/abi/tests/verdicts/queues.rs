//! Queues other than the first need a device that has them: a veth pair in a network namespace of its own.

use std::env;
use std::process::Command;

use xdp_abi::{QUEUES_MAX, Verdict};

use crate::frame::{RTCP, RTP};
use crate::kernel::not_run;
use crate::{ipv4, ipv6, ready};

/// The device's index in its namespace.
const DEVICE: u32 = 77;
/// Set in the process that runs inside the namespace; entering one from here would need `setns`.
const INSIDE: &str = "MIXMINUS_XDP_TEST_NAMESPACE";

#[test]
fn the_arriving_queue_decides() {
    let Some(mut kernel) = ready() else { return };
    if env::var_os(INSIDE).is_none() {
        return run_inside("queues::the_arriving_queue_decides");
    }
    kernel.remove_socket(0);
    kernel.open_socket(3);
    kernel.open_socket(QUEUES_MAX - 1);
    for queue in 0..80 {
        let expected = |verdict| match queue {
            3 | 63 => verdict,
            _ => Verdict::PassNoSocket,
        };
        let rtp = kernel.judge_on(&ipv4(RTP).bytes(), DEVICE, queue);
        assert_eq!(rtp, expected(Verdict::RedirectRtp), "{queue}");
        let rtcp = kernel.judge_on(&ipv6(RTCP).bytes(), DEVICE, queue);
        assert_eq!(rtcp, expected(Verdict::RedirectRtcp), "{queue}");
    }
}

/// Runs one test of this program again in a new network namespace with a device of 80 queues.
fn run_inside(test: &str) {
    let made = Command::new("unshare").args(["--net", "ip", "-V"]).output();
    if !made.is_ok_and(|made| made.status.success()) {
        return not_run("`unshare` and `ip` for queues beyond the first");
    }
    let script = "ip link add name queues0 index \"$1\" numrxqueues 80 numtxqueues 80 type veth && exec \"$0\" --exact \"$2\"";
    let output = Command::new("unshare")
        .args(["--net", "sh", "-ec", script])
        .arg(env::current_exe().unwrap())
        .args([&DEVICE.to_string(), test])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{output:?}");
}
