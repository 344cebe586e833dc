//! Steering with the real `ethtool` on a veth pair in a network namespace of its own.

use std::io;
use std::process::Command;

use mixer::placement::port_blocks;
use mixer::steering::ethtool::{Ethtool, Output, add_rule};
use mixer::steering::plan::{NOT_OFFERED, wanted_rules};
use mixer::steering::{Method, Steering, Target};

use super::root;

/// A namespace with a veth pair of four queues; `ethtool` runs in it.
struct Namespace(String);

impl Namespace {
    fn new() -> Self {
        let namespace = Self(format!("mixminus-steering-{}", std::process::id()));
        namespace.ip(&["netns", "add", &namespace.0]);
        namespace.ip(&[
            "-n",
            &namespace.0,
            "link",
            "add",
            "steer0",
            "numrxqueues",
            "4",
            "numtxqueues",
            "4",
            "type",
            "veth",
            "peer",
            "name",
            "steer1",
        ]);
        namespace
    }

    fn ip(&self, arguments: &[&str]) {
        let output = Command::new("ip").args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.ip(&["netns", "delete", &self.0]);
    }
}

impl Ethtool for &Namespace {
    fn run(&self, arguments: &[&str]) -> io::Result<Output> {
        let output = Command::new("ip")
            .args(["netns", "exec", &self.0, "ethtool"])
            .args(arguments)
            .env("LC_ALL", "C")
            .output()?;
        Ok(Output {
            ok: output.status.success(),
            text: String::from_utf8_lossy(&output.stdout).into_owned(),
            error: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}

#[test]
fn a_veth_offers_nothing_and_that_is_no_error() {
    if !root("steering on a veth", &["ip", "ethtool"]) {
        return;
    }
    let namespace = Namespace::new();
    let settings = || (&namespace).run(&["-k", "steer0"]).unwrap();
    let before = settings();
    assert!(before.text.contains("ntuple-filters"), "{before:?}");
    let targets: Vec<Target> = (0u16..)
        .zip(port_blocks(10_000, 32_767, 4).unwrap())
        .map(|(queue, block)| Target { block, queue })
        .collect();
    let mut steering = Steering::start(&namespace, "steer0", &targets);
    assert_eq!(steering.outcome().method, Method::HandOff);
    assert_eq!(steering.outcome().reason, NOT_OFFERED);
    steering.undo();
    drop(steering);
    // The real program understands the rules: it is the driver that refuses.
    for rule in wanted_rules(&targets) {
        let arguments = add_rule("steer0", &rule);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let answer = (&namespace).run(&arguments).unwrap();
        assert!(
            !answer.ok && answer.error.contains("Operation not supported"),
            "{answer:?}"
        );
    }
    assert_eq!(settings(), before);
}
