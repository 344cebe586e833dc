//! A whole run against trees of files and recorded tools of several machines.

mod machines;

use std::path::Path;

use super::*;
use crate::config::PortRange;
use machines::{Machine, Tree};

fn config(backend: BackendChoice, cores: &[usize]) -> Config {
    let mut config = Config::defaults(cores);
    config.io.backend = backend;
    config.workers.cores = cores.to_vec();
    config
}

fn find<'a>(lines: &'a [Line], what: &str) -> &'a Line {
    lines
        .iter()
        .find(|line| line.what == what)
        .unwrap_or_else(|| panic!("no {what} in\n{}", text(lines)))
}

fn run(machine: &Machine, config: &Config) -> Vec<Line> {
    let tree = Tree::of(machine);
    examine(&Host::new(tree.root(), machine), config, Some(machine.interface))
}

#[test]
fn a_well_kept_server_has_nothing_to_mend() {
    let cores: Vec<usize> = (2..10).collect();
    let lines = run(&machines::ice(), &config(BackendChoice::Xdp, &cores));
    let bad: Vec<&Line> = lines.iter().filter(|line| line.verdict != Verdict::Ok).collect();
    assert!(bad.is_empty(), "{bad:#?}");
    assert!(
        lines.iter().all(|line| line.command.is_none()),
        "{}",
        text(&lines)
    );
    assert!(find(&lines, "XDP modes").finding.starts_with("zero-copy"));
    assert!(!has_failed(&lines));
}

#[test]
fn a_server_out_of_the_box_gets_a_command_for_each_fault() {
    let lines = run(&machines::mlx5(), &config(BackendChoice::Xdp, &[2, 3]));
    let expected = [
        ("locked memory", Verdict::Fail, "LimitMEMLOCK=infinity"),
        ("open files", Verdict::Fail, "LimitNOFILE=10612"),
        (
            "capabilities",
            Verdict::Fail,
            "AmbientCapabilities=CAP_NET_RAW CAP_NET_ADMIN CAP_BPF",
        ),
        ("isolation", Verdict::Warn, "isolcpus=managed_irq,domain,2-3"),
        ("governor", Verdict::Warn, "cpu2/cpufreq/scaling_governor"),
        (
            "SMT siblings",
            Verdict::Warn,
            "echo 0 > /sys/devices/system/cpu/cpu6/online",
        ),
        ("MTU", Verdict::Fail, "ip link set dev ens2f0np0 mtu 1500"),
        ("interrupts", Verdict::Warn, "for irq in 98 99; do echo 0-1,4-7 >"),
        ("offloads", Verdict::Fail, "ethtool -K ens2f0np0 lro off"),
        ("rings", Verdict::Warn, "ethtool -G ens2f0np0 rx 4096 tx 4096"),
        ("queues", Verdict::Warn, "ethtool -L ens2f0np0 combined 2"),
        (
            "interrupt deferral",
            Verdict::Fail,
            "echo 0 > /sys/class/net/ens2f0np0/gro_flush_timeout",
        ),
    ];
    for (what, verdict, command) in expected {
        let line = find(&lines, what);
        assert_eq!(line.verdict, verdict, "{line}");
        let mend = line.command.as_deref().unwrap_or_default();
        assert!(mend.contains(command), "{line}");
    }
    let node = find(&lines, "NUMA node");
    assert!(node.finding.contains("workers on 2-3 are not"), "{node}");
    assert!(has_failed(&lines));
}

#[test]
fn io_uring_is_not_measured_by_what_af_xdp_wants() {
    let lines = run(&machines::mlx5(), &config(BackendChoice::Uring, &[2, 3]));
    for what in ["locked memory", "MTU", "offloads", "queues", "driver"] {
        assert_eq!(find(&lines, what).verdict, Verdict::Ok, "{}", text(&lines));
    }
    // What holds for any backend still fails.
    assert_eq!(find(&lines, "interrupt deferral").verdict, Verdict::Fail);
}

#[test]
fn a_cloud_machine_is_told_of_half_its_channels() {
    let lines = run(&machines::ena(), &config(BackendChoice::Auto, &[1, 2, 3]));
    let queues = find(&lines, "queues");
    assert!(queues.finding.contains("half of its channels"), "{queues}");
    assert!(find(&lines, "driver").finding.contains("stay with copy"));
    assert!(
        find(&lines, "steering").finding.contains("RSS can be read"),
        "{}",
        text(&lines)
    );
}

#[test]
fn a_virtual_machine_with_one_queue() {
    let lines = run(&machines::virtio(), &config(BackendChoice::Auto, &[1]));
    assert!(!has_failed(&lines), "{}", text(&lines));
    assert_eq!(find(&lines, "governor").verdict, Verdict::Ok);
    let interrupts = find(&lines, "interrupts");
    assert!(
        interrupts.finding.contains("38 (virtio2-input.0) on 1"),
        "{interrupts}"
    );
    assert!(find(&lines, "offloads").finding.contains("rx-gro-hw"));
    assert_eq!(find(&lines, "queues").verdict, Verdict::Ok);
}

#[test]
fn a_veth_is_steered_by_hand_off() {
    let lines = run(&machines::veth(), &config(BackendChoice::Auto, &[0, 1]));
    assert!(!has_failed(&lines), "{}", text(&lines));
    assert_eq!(
        find(&lines, "steering").finding,
        crate::steering::plan::NOT_OFFERED
    );
    assert!(
        find(&lines, "XDP modes")
            .finding
            .starts_with("native, with a copy")
    );
    assert!(find(&lines, "cores").finding.contains("every core has a worker"));
    // GRO is what gives a veth its NAPI.
    let offloads = find(&lines, "offloads").command.as_deref();
    assert_eq!(offloads, Some("ethtool -K veth0 rxvlan off"));
}

#[test]
fn a_missing_ethtool_is_a_line_and_not_the_end() {
    let mut machine = machines::ice();
    machine.has_ethtool = false;
    let lines = run(&machine, &config(BackendChoice::Auto, &[2]));
    assert_eq!(
        find(&lines, "ethtool").command.as_deref(),
        Some("apt-get install ethtool")
    );
    // The name comes from the link in /sys then.
    assert!(
        find(&lines, "driver").finding.starts_with("ice"),
        "{}",
        text(&lines)
    );
}

#[test]
fn an_interface_that_does_not_exist() {
    let machine = machines::veth();
    let tree = Tree::of(&machine);
    let host = Host::new(tree.root(), &machine);
    let verdict = |backend| {
        let lines = examine(&host, &config(backend, &[0]), Some("eth9"));
        find(&lines, "interface").verdict
    };
    assert_eq!(verdict(BackendChoice::Xdp), Verdict::Fail);
    assert_eq!(verdict(BackendChoice::Auto), Verdict::Warn);
    let lines = examine(&host, &config(BackendChoice::Auto, &[0]), None);
    assert!(
        find(&lines, "interface")
            .command
            .as_deref()
            .unwrap()
            .contains("--interface IF")
    );
}

#[test]
fn an_empty_tree_makes_nothing_panic() {
    let machine = machines::veth();
    let host = Host::new(Path::new("/nonexistent"), &machine);
    let mut config = config(BackendChoice::Xdp, &[0]);
    config.io.ports = PortRange {
        first: 40_000,
        last: 50_000,
    };
    assert!(has_failed(&examine(&host, &config, Some("veth0"))));
}

#[test]
fn lines_and_objects() {
    let lines = [
        Line::ok("kernel", "6.18"),
        Line::fail("MTU", "9000").mend("ip link set dev x mtu 1500"),
    ];
    assert_eq!(
        text(&lines),
        "ok    kernel: 6.18\nfail  MTU: 9000  -> ip link set dev x mtu 1500\n"
    );
    let value: serde_json::Value = serde_json::from_str(&json(&lines)).unwrap();
    assert_eq!(
        value,
        serde_json::json!([
            {"verdict": "ok", "what": "kernel", "finding": "6.18", "command": null},
            {"verdict": "fail", "what": "MTU", "finding": "9000", "command": "ip link set dev x mtu 1500"},
        ])
    );
}
