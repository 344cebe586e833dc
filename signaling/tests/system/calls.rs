//! Stock `sipp` calls, and what the metrics page says of them.

use std::io::Write as _;
use std::net::TcpStream;
use std::process::Command;

use crate::phone::{Phone, Talk};
use crate::setup::{System, http_get, run, wait_for};

/// Runs stock `sipp -sn uac` and expects every call to succeed.
fn sipp(system: &System, arguments: &[&str]) {
    let mut command = Command::new("sipp");
    command.current_dir(system.path()).args([
        "-sn",
        "uac",
        &system.sip.to_string(),
        "-i",
        "127.0.0.1",
        "-nostdin",
    ]);
    command
        .args(["-timeout", "60s", "-timeout_error"])
        .args(arguments);
    let output = match command.stdin(std::process::Stdio::null()).output() {
        Ok(output) => output,
        Err(error) => panic!("sipp cannot be run: {error}; install it with `apt-get install sip-tester`"),
    };
    let screen = String::from_utf8_lossy(&output.stdout);
    let tail: Vec<&str> = screen.lines().rev().take(30).collect();
    assert!(
        output.status.success(),
        "{arguments:?}: {tail:#?} {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn stock_sipp_calls_over_udp_and_tcp_succeed() {
    let system = System::start("sipp");
    sipp(&system, &["-s", "conf-udp", "-m", "40", "-r", "40", "-d", "500"]);
    sipp(
        &system,
        &["-s", "conf-tcp", "-m", "20", "-r", "40", "-d", "500", "-t", "t1"],
    );
    sipp(
        &system,
        &[
            "-s",
            "conf-many",
            "-m",
            "10",
            "-r",
            "20",
            "-d",
            "0",
            "-t",
            "tn",
            "-max_socket",
            "50",
        ],
    );
    system.wait_until_mixer_is_empty();
    assert_eq!(system.metric("mixminus_joins_total"), 70.0);
    assert_eq!(system.metric("mixminus_leaves_total{cause=\"bye\"}"), 70.0);
    assert_eq!(system.metric("mixminus_participants"), 0.0);
    wait_for("the store to have everything", || {
        (system.metric("mixminus_db_pending") == 0.0).then_some(())
    });
}

/// Names of metrics whose samples differ between two pages.
fn moved(before: &str, after: &str) -> Vec<String> {
    let families = after
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let samples = |page: &str, family: &str| -> Vec<String> {
        page.lines()
            .filter(|line| line.starts_with(family))
            .map(str::to_owned)
            .collect()
    };
    families
        .filter(|family| samples(before, family) != samples(after, family))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_metrics_of_a_real_call_move() {
    let system = System::start("metrics");
    let page = || http_get(system.http, "/metrics").unwrap().1;
    let before = page();
    let mut phones = [Phone::new(system.sip), Phone::new(system.sip)];
    for phone in &mut phones {
        assert_eq!(phone.call("room"), 200);
    }
    let _talk = Talk::start(&phones);
    let garbage = crate::setup::udp();
    garbage.send_to(b"INVITE nonsense\r\n\r\n", system.sip).unwrap();
    // The same request twice is a retransmission.
    let request = format!(
        "OPTIONS sip:{0} SIP/2.0\r\nVia: SIP/2.0/UDP {1};branch=z9hG4bK-twice\r\nMax-Forwards: 70\r\n\
         From: <sip:a@b>;tag=1\r\nTo: <sip:{0}>\r\nCall-ID: twice\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n",
        system.sip,
        garbage.local_addr().unwrap()
    );
    garbage.send_to(request.as_bytes(), system.sip).unwrap();
    garbage.recv(&mut [0; 4096]).unwrap();
    garbage.send_to(request.as_bytes(), system.sip).unwrap();
    let mut stream = TcpStream::connect(system.sip).unwrap();
    stream.write_all(b"INVITE sip:x SIP/2.0\r\n\r\n").unwrap();
    assert_eq!(phones[0].hang_up(), 200);
    let expected = [
        "mixminus_conferences",
        "mixminus_participants",
        "mixminus_joins_total",
        "mixminus_leaves_total",
        "mixminus_sip_requests_total",
        "mixminus_sip_responses_total",
        "mixminus_sip_request_delay_seconds",
        "mixminus_sip_retransmissions_total",
        "mixminus_sip_parse_errors_total",
        "mixminus_sip_transactions",
        "mixminus_sip_connections",
        "mixminus_sip_dropped_total",
        "mixminus_mixer_requests_total",
        "mixminus_mixer_request_seconds",
        "mixminus_mixer_events_total",
        "mixminus_db_writes_total",
    ];
    let mut still: Vec<&str> = Vec::new();
    for _ in 0..500 {
        let moved = moved(&before, &page());
        still = expected
            .iter()
            .copied()
            .filter(|name| !moved.iter().any(|moved| moved == name))
            .collect();
        if still.is_empty() {
            break;
        }
        crate::setup::nap();
    }
    assert!(still.is_empty(), "did not move: {still:?}");
    lint(&page(), &system);
}

/// `promtool check metrics`, where it is installed.
fn lint(page: &str, system: &System) {
    let file = system.path().join("page.txt");
    std::fs::write(&file, page).unwrap();
    let found = run(Command::new("sh").args(["-c", "command -v promtool"]));
    if !found.status.success() {
        eprintln!("NOT RUN: promtool is not installed; the metrics page is not linted");
        return;
    }
    let checked = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(std::fs::File::open(&file).unwrap())
        .output();
    let checked = checked.unwrap();
    assert!(
        checked.status.success() && checked.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&checked.stderr)
    );
}
