//! The program itself: flags, exit codes, one-line errors, signals, log formats.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "shared with other test programs, which need other parts")]
mod control;

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use control::http::request;
use control::random_ports;
use mixer::placement::available_cores;

const PROGRAM: &str = env!("CARGO_BIN_EXE_mixminus-mixer");

/// A configuration file that goes with its test.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("mixminus-{}-{name}.toml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(PROGRAM)
            .arg("--config")
            .arg(&self.0)
            .args(arguments)
            .output()
            .unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

/// The one line on standard error that is no log line.
fn complaint(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("mixminus-mixer: "))
        .collect();
    assert_eq!(lines.len(), 1, "{text}");
    assert!(!text.contains("panicked"), "{text}");
    lines[0].to_owned()
}

#[test]
fn check_prints_what_holds_and_reads_it_back() {
    let shown = Command::new(PROGRAM).arg("--check").output().unwrap();
    assert!(shown.status.success());
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(
        text.contains("listen = \"127.0.0.1:8090\"") && text.contains("ports = \"10000-32767\""),
        "{text}"
    );
    let file = File::new("shown", &text);
    let again = file.run(&["--check"]);
    assert_eq!(
        (again.status.code(), String::from_utf8(again.stdout).unwrap()),
        (Some(0), text)
    );
}

#[test]
fn help_and_version_are_no_errors_and_bad_usage_is_64() {
    let code = |argument: &str| {
        Command::new(PROGRAM)
            .arg(argument)
            .output()
            .unwrap()
            .status
            .code()
    };
    assert_eq!((code("--help"), code("--version")), (Some(0), Some(0)));
    assert_eq!((code("--nonsense"), code("stray")), (Some(64), Some(64)));
    let version = Command::new(PROGRAM).arg("--version").output().unwrap().stdout;
    assert_eq!(
        String::from_utf8(version).unwrap(),
        concat!("mixminus-mixer ", env!("CARGO_PKG_VERSION"), "\n")
    );
}

#[test]
fn configuration_errors_name_file_line_and_remedy() {
    let ports = random_ports(64);
    let usual = format!("[io]\nports = \"{ports}\"\n");
    let cases = [
        (
            "key",
            "[io]\nbackendd = \"auto\"\n".to_owned(),
            ":2: ",
            "spelling",
        ),
        (
            "open",
            format!("{usual}[control]\nlisten = \"0.0.0.0:0\"\n"),
            ":4: ",
            "control.token_file",
        ),
        (
            "address",
            format!("{usual}address = \"192.0.2.1\"\n"),
            "192.0.2.1",
            "this machine",
        ),
        (
            "listen",
            format!("{usual}[control]\nlisten = \"127.0.0.1\"\n"),
            ":4: ",
            "ADDRESS:PORT",
        ),
        (
            "core",
            format!("{usual}[workers]\ncores = [4711]\n"),
            ":4: ",
            "workers.cores",
        ),
    ];
    for (name, text, place, remedy) in cases {
        let file = File::new(name, &text);
        let output = file.run(&[]);
        let line = complaint(&output);
        assert_eq!(output.status.code(), Some(78), "{line}");
        assert!(line.contains(place) && line.contains(remedy), "{line}");
    }
    let output = Command::new(PROGRAM)
        .args(["--config", "/nonexistent/m.toml"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78));
    assert!(complaint(&output).contains("/nonexistent/m.toml"));
}

/// With `isolcpus` the kernel starts no program on the workers' cores.
#[test]
fn a_worker_may_have_a_core_that_the_program_was_not_started_on() {
    let cores = available_cores();
    let (Some(first), Some(last)) = (cores.first(), cores.last()) else {
        panic!("no core");
    };
    let file = File::new("isolated", &format!("[workers]\ncores = [{last}]\n"));
    let output = Command::new("taskset")
        .args(["-c", &first.to_string(), PROGRAM, "--check", "--config"])
        .arg(&file.0)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(&format!("\ncores = [{last}]\n")), "{text}");
    if first == last {
        eprintln!("NOT RUN: one core alone cannot show it");
    }
}

#[test]
fn a_taken_port_is_75_and_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let text = format!(
        "[io]\nports = \"{}\"\n[control]\nlisten = \"{address}\"\n",
        random_ports(64)
    );
    let output = File::new("taken", &text).run(&[]);
    let line = complaint(&output);
    assert_eq!(output.status.code(), Some(75), "{line}");
    assert!(
        line.contains(&address.to_string()) && line.contains("control.listen to a free port"),
        "{line}"
    );
}

struct Running {
    child: Child,
    log: BufReader<ChildStderr>,
    _file: File,
}

impl Running {
    fn start(name: &str, arguments: &[&str]) -> Self {
        let text = format!(
            "[io]\nports = \"{}\"\n[control]\nlisten = \"127.0.0.1:0\"\n",
            random_ports(64)
        );
        let file = File::new(name, &text);
        let mut child = Command::new(PROGRAM)
            .arg("--config")
            .arg(&file.0)
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        Self {
            child,
            log,
            _file: file,
        }
    }

    /// The next log line with a text in it.
    fn line_with(&mut self, text: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(
                self.log.read_line(&mut line).unwrap() > 0,
                "{text:?} was never logged"
            );
            if line.contains(text) {
                return line;
            }
        }
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", name, &id])
                .status()
                .unwrap()
                .success()
        );
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already when the test went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn signals_stop_it_cleanly() {
    for name in ["TERM", "INT"] {
        let mut mixer = Running::start(name, &[]);
        let line = mixer.line_with("mixer runs");
        assert!(line.contains(" INFO ") && line.contains("cores="), "{line}");
        let address = line.split("control=").nth(1).unwrap().split(' ').next().unwrap();
        let address: SocketAddr = address.parse().unwrap();
        assert_eq!(request(address, "GET", "/healthz", &[], b"").status, 200);
        mixer.signal(name);
        assert_eq!(mixer.child.wait().unwrap().code(), Some(0));
        mixer.line_with("stopped");
    }
}

#[test]
fn the_log_can_be_json_and_says_which_packet_io_and_why() {
    let mut mixer = Running::start("json", &["--log-format", "json"]);
    let line: serde_json::Value = serde_json::from_str(&mixer.line_with("packet I/O")).unwrap();
    assert_eq!(
        (&line["level"], &line["backend"]),
        (&"INFO".into(), &"uring".into()),
        "{line}"
    );
    assert!(line["why"].as_str().unwrap().starts_with("auto:"), "{line}");
    mixer.line_with("mixer runs");
    mixer.signal("TERM");
    assert_eq!(mixer.child.wait().unwrap().code(), Some(0));
}
