//! Every metric that can be moved from outside is seen to move; the page is clean; docs are current.
//! The others (faults inside) are held by unit tests of the page.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "shared with other test programs, which need other parts")]
mod control;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use control::phones::{Phones, header};
use control::{Mixer, eventually, media, pause};
use mixer::metrics::table;
use serde_json::{Value, json};

/// Samples of a page by name and labels.
fn samples(page: &str) -> BTreeMap<String, f64> {
    page.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}

/// What rises when all that [`provoke`] does has happened.
const RISING: [&str; 42] = [
    "mixminus_conferences",
    "mixminus_endpoints{state=\"no_media\"}",
    "mixminus_endpoints{state=\"waiting\"}",
    "mixminus_endpoints{state=\"active\"}",
    "mixminus_endpoints{state=\"held\"}",
    "mixminus_rtp_packets_total{direction=\"in\"}",
    "mixminus_rtp_packets_total{direction=\"out\"}",
    "mixminus_rtp_bytes_total{direction=\"in\"}",
    "mixminus_rtp_bytes_total{direction=\"out\"}",
    "mixminus_rtp_dropped_total{reason=\"malformed\"}",
    "mixminus_rtp_dropped_total{reason=\"bad_version\"}",
    "mixminus_rtp_dropped_total{reason=\"bad_source\"}",
    "mixminus_rtp_dropped_total{reason=\"unknown_payload_type\"}",
    "mixminus_rtp_dropped_total{reason=\"bad_length\"}",
    "mixminus_rtp_dropped_total{reason=\"loop\"}",
    "mixminus_rtp_dropped_total{reason=\"duplicate\"}",
    "mixminus_rtp_dropped_total{reason=\"probation\"}",
    "mixminus_rtp_dropped_total{reason=\"not_receiving\"}",
    "mixminus_rtp_dropped_total{reason=\"rtcp\"}",
    "mixminus_rtp_dropped_total{reason=\"not_rtp\"}",
    "mixminus_rtp_dropped_total{reason=\"truncated\"}",
    "mixminus_frames_total{outcome=\"played\"}",
    "mixminus_frames_total{outcome=\"source_stopped\"}",
    "mixminus_encodes_total{codec=\"pcmu\"}",
    "mixminus_passthrough_total",
    "mixminus_digits_total",
    "mixminus_conference_ticks_total",
    "mixminus_tick_duration_seconds_count{worker=\"0\"}",
    "mixminus_tick_duration_seconds_sum{worker=\"0\"}",
    "mixminus_tick_duration_seconds_bucket{worker=\"0\",le=\"+Inf\"}",
    "mixminus_tick_lateness_seconds_count{worker=\"0\"}",
    "mixminus_tick_lateness_seconds_bucket{worker=\"0\",le=\"+Inf\"}",
    "mixminus_admission_load_ratio{worker=\"0\"}",
    "mixminus_rtp_ports{state=\"resting\"}",
    "mixminus_events_total",
    "mixminus_event_readers",
    "mixminus_control_requests_total{kind=\"create_conference\"}",
    "mixminus_control_requests_total{kind=\"delete_endpoint\"}",
    "mixminus_control_requests_total{kind=\"endpoint_command\"}",
    "mixminus_control_refusals_total{reason=\"not_found\"}",
    "mixminus_control_request_seconds_count",
    "mixminus_control_request_seconds_sum",
];

/// Makes everything of [`RISING`] happen: `a` and then `b` talk, the rest is misbehaviour.
fn provoke(mixer: &Mixer) -> Phones {
    let phones = Phones::new(4);
    mixer.conference("c");
    for (phone, name) in ["a", "b"].into_iter().enumerate() {
        phones.connect(phone, mixer.endpoint("c", name, phones.port(phone)));
        phones.talk(phone, Some([700.0, 1130.0][phone]));
    }
    let port = mixer.endpoint("c", "held", phones.port(2));
    mixer.verb("c", "held", json!({"verb": "hold", "on": true}));
    mixer.endpoint("c", "waiting", phones.port(3));
    let late = mixer.done("PUT", "/v1/conferences/c/endpoints/late", json!({}));
    mixer.endpoint("c", "gone", 4000);
    mixer.done("DELETE", "/v1/conferences/c/endpoints/gone", Value::Null);
    let path = "/v1/conferences/none/endpoints/e";
    assert_eq!(
        mixer.refused("PUT", path, json!({})),
        (404, "not_found".to_owned())
    );
    phones.press(0, 7);
    misbehave(mixer, &phones, port, &late);
    phones
}

fn misbehave(mixer: &Mixer, phones: &Phones, port: u16, late: &Value) {
    let audio = |sequence: u16, length: usize| {
        let mut packet = header(0, sequence, u32::from(sequence) * 160);
        packet.resize(12 + length, 0xff);
        packet
    };
    let rogue = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    rogue.send_to(&audio(1, 160), ("127.0.0.1", port)).unwrap();
    let late: std::net::SocketAddr = late["local"].as_str().unwrap().parse().unwrap();
    rogue.send_to(&audio(1, 160), late).unwrap();
    let state = mixer.state();
    let ours: u32 = state["conferences"][0]["endpoints"][0]["ssrc"]
        .to_string()
        .parse()
        .unwrap();
    let mut looped = audio(1, 160);
    looped[8..12].copy_from_slice(&ours.to_be_bytes());
    let mut other_source = audio(40_000, 160);
    other_source[8..12].copy_from_slice(&0x0bad_cafe_u32.to_be_bytes());
    let mut unknown_type = audio(1, 160);
    unknown_type[1] = 77;
    let mut old_version = audio(1, 160);
    old_version[0] = 0x60;
    let mut too_many_sources = audio(1, 4);
    too_many_sources[0] = 0x8f;
    let rtcp = [0x80, 200, 0, 6].into_iter().chain([0; 24]).collect::<Vec<u8>>();
    phones.connect(2, port);
    for packet in [
        looped,
        other_source,
        unknown_type,
        old_version,
        too_many_sources,
        rtcp,
        vec![22, 254, 253],
        audio(2, 600),
    ] {
        phones.send_raw(2, &packet);
    }
    let mut short_event = header(101, 3, 480);
    short_event.push(1);
    phones.send_raw(2, &short_event);
    // A phone that sends everything twice.
    for sequence in 500..600 {
        phones.send_raw(2, &audio(sequence, 160));
        phones.send_raw(2, &audio(sequence, 160));
        pause(std::time::Duration::from_millis(2));
    }
}

#[test]
fn metrics_move() {
    let mixer = Mixer::start();
    let before = samples(&mixer.metrics());
    let reader = mixer.events("", &[]);
    let phones = provoke(&mixer);
    let mut still = Vec::new();
    for _ in 0..100 {
        let now = samples(&mixer.metrics());
        still = RISING
            .iter()
            .filter(|name| now[**name] <= before[**name] && !name.contains("source_stopped"))
            .collect();
        if still.is_empty() {
            break;
        }
        pause(std::time::Duration::from_millis(100));
    }
    eventually("a busy share", || {
        let busy = samples(&mixer.metrics())["mixminus_worker_busy_ratio{worker=\"0\"}"];
        busy > 0.0 && busy < 1.0
    });
    assert!(still.is_empty(), "{still:?} stand still in\n{}", mixer.metrics());
    drop(phones);
    let stopped = "mixminus_frames_total{outcome=\"source_stopped\"}";
    eventually("sources have stopped", || {
        samples(&mixer.metrics())[stopped] > before[stopped]
    });
    drop(reader);
    mixer.done("DELETE", "/v1/conferences/c", Value::Null);
    eventually("the reader has gone", || {
        samples(&mixer.metrics())["mixminus_event_readers"] == 0.0
    });
    mixer.assert_empty();
    let after = samples(&mixer.metrics());
    let ports = |samples: &BTreeMap<String, f64>| {
        ["free", "resting"].map(|state| samples[&format!("mixminus_rtp_ports{{state=\"{state}\"}}")])
    };
    assert_eq!(ports(&after), [ports(&before)[0] - 6.0, 6.0]);
    assert_eq!(after["mixminus_worker_up{worker=\"0\"}"], 1.0);
    assert_eq!(after["mixminus_prompts"], 4.0);
}

#[test]
fn other_codecs_and_a_lost_packet_are_counted() {
    let mixer = Mixer::start();
    let phones = Phones::new(3);
    mixer.conference("c");
    for (phone, (name, codec)) in [("a", "pcmu"), ("b", "pcma"), ("c", "l16")]
        .into_iter()
        .enumerate()
    {
        let mut media = media(phones.port(phone));
        let payload_type = [0, 8, 96][phone];
        media["send"] = json!({"payload_type": payload_type, "codec": codec, "ptime_ms": 20});
        let path = format!("/v1/conferences/c/endpoints/{name}");
        let created = mixer.done("PUT", &path, json!({"media": media}));
        let local: std::net::SocketAddr = created["local"].as_str().unwrap().parse().unwrap();
        phones.connect(phone, local.port());
        phones.talk(phone, Some(700.0));
    }
    let counted = |name: &str| samples(&mixer.metrics())[name];
    for codec in ["pcmu", "pcma", "l16"] {
        let name = format!("mixminus_encodes_total{{codec=\"{codec}\"}}");
        eventually(&name, || counted(&name) > 10.0);
    }
    let lost = "mixminus_frames_total{outcome=\"network_lost\"}";
    eventually(lost, || {
        phones.skip_packets(0, 1);
        pause(std::time::Duration::from_millis(200));
        counted(lost) > 0.0
    });
}

#[test]
fn promtool_finds_nothing_to_say() {
    let mixer = Mixer::start();
    mixer.conference("c");
    let page = mixer.metrics();
    let tool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut tool) = tool else {
        // Written past the test harness, so that it is seen.
        let _ = writeln!(
            std::io::stderr().lock(),
            "\nNOT CHECKED: promtool is not installed (Debian package `prometheus`); the metrics page is unchecked\n"
        );
        assert!(
            std::env::var_os("CI").is_none(),
            "promtool is required in CI: apt-get install prometheus"
        );
        return;
    };
    tool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = tool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success() && said.is_empty(),
        "{}",
        String::from_utf8_lossy(&said)
    );
}

fn docs() -> String {
    let mut page = String::from(
        "# Metrics of the mixer\n\n\
         <!-- Generated from mixer/src/metrics/table.rs. Do not edit: UPDATE_DOCS=1 cargo test -p mixer -->\n\n\
         `GET /metrics` on the control link, Prometheus text. Labels are bounded sets: no user, call or conference names.\n\
         Signaling has its own page.\n\n\
         | name | type | labels | what it counts | when to worry |\n|---|---|---|---|---|\n",
    );
    for metric in table::ALL {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let alert = if metric.alert.is_empty() {
            "-"
        } else {
            metric.alert
        };
        writeln!(
            page,
            "| `{}` | {} | {} | {} | {alert} |",
            metric.name,
            metric.kind.name(),
            labels.join(", "),
            metric.help
        )
        .unwrap();
    }
    page
}

#[test]
fn metrics_page_of_the_docs_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let wanted = docs();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &wanted).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == wanted,
        "docs/metrics.md is out of date: UPDATE_DOCS=1 cargo test -p mixer"
    );
}
