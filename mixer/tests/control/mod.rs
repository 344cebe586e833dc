//! A mixer in this process, an HTTP client and phones, all on loopback.

pub(crate) mod http;
pub(crate) mod phones;

use std::time::Duration;

use mixer::config::{Config, PortRange};
use mixer::control::random::Random;
use mixer::placement;
use mixer::server::{Privileges, Server};
use serde_json::{Value, json};

use http::{Answer, Events};

/// A running mixer.
pub(crate) struct Mixer {
    pub(crate) server: Server,
    commands: std::cell::Cell<u32>,
}

impl Mixer {
    /// With small limits, a free control port and a random block of RTP ports.
    pub(crate) fn start() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::defaults(&placement::available_cores());
        config.control.listen.set_port(0);
        config.io.ports = random_ports(200);
        config.limits.endpoints = 64;
        config.limits.conferences = 16;
        change(&mut config);
        Self {
            server: Server::start(config, Privileges::Keep).unwrap(),
            commands: std::cell::Cell::new(0),
        }
    }

    /// A fresh command id.
    pub(crate) fn id(&self) -> String {
        self.commands.set(self.commands.get() + 1);
        format!("test-{}", self.commands.get())
    }

    pub(crate) fn send(&self, method: &str, path: &str, body: &Value) -> Answer {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        http::request(self.server.control_addr(), method, path, &[], body.as_bytes())
    }

    /// Sends a command under a fresh id; it must succeed.
    pub(crate) fn done(&self, method: &str, path: &str, mut body: Value) -> Value {
        let answer = if method == "DELETE" {
            self.send(method, &format!("{path}?command={}", self.id()), &Value::Null)
        } else {
            body["command"] = json!(self.id());
            self.send(method, path, &body)
        };
        assert_eq!(answer.status, 200, "{method} {path}: {answer:?}");
        answer.json()
    }

    /// Sends a command under a fresh id; gives status and problem type.
    pub(crate) fn refused(&self, method: &str, path: &str, mut body: Value) -> (u16, String) {
        body["command"] = json!(self.id());
        let answer = self.send(method, path, &body);
        let problem = answer.json();
        assert_eq!(problem["status"], answer.status, "{problem}");
        assert!(!problem["detail"].as_str().unwrap().is_empty());
        (answer.status, problem["type"].as_str().unwrap().to_owned())
    }

    pub(crate) fn conference(&self, name: &str) {
        self.done(
            "PUT",
            &format!("/v1/conferences/{name}"),
            json!({"owner": "test"}),
        );
    }

    /// Creates an endpoint for a phone; gives our RTP port.
    pub(crate) fn endpoint(&self, conference: &str, name: &str, phone_port: u16) -> u16 {
        let path = format!("/v1/conferences/{conference}/endpoints/{name}");
        let created = self.done("PUT", &path, json!({"media": media(phone_port)}));
        let local: std::net::SocketAddr = created["local"].as_str().unwrap().parse().unwrap();
        local.port()
    }

    /// A verb to an endpoint.
    pub(crate) fn verb(&self, conference: &str, endpoint: &str, body: Value) {
        self.done(
            "POST",
            &format!("/v1/conferences/{conference}/endpoints/{endpoint}/commands"),
            body,
        );
    }

    pub(crate) fn state(&self) -> Value {
        self.send("GET", "/v1/state", &Value::Null).json()
    }

    pub(crate) fn events(&self, query: &str, headers: &[(&str, &str)]) -> Events {
        Events::open(self.server.control_addr(), query, headers)
    }

    pub(crate) fn metrics(&self) -> String {
        self.send("GET", "/metrics", &Value::Null).text()
    }

    /// Everything is gone and the mixer says so.
    pub(crate) fn assert_empty(&self) {
        assert_eq!(self.state()["conferences"], json!([]));
        let page = self.metrics();
        assert!(page.contains("\nmixminus_conferences 0\n"), "{page}");
        for state in ["no_media", "waiting", "active", "held"] {
            assert!(
                page.contains(&format!("mixminus_endpoints{{state=\"{state}\"}} 0\n")),
                "{page}"
            );
        }
    }
}

/// PCMU both ways with a phone on loopback.
pub(crate) fn media(phone_port: u16) -> Value {
    json!({
        "remote": format!("127.0.0.1:{phone_port}"),
        "direction": "sendrecv",
        "send": {"payload_type": 0, "codec": "pcmu", "ptime_ms": 20},
        "receive": [{"payload_type": 0, "codec": "pcmu"}],
        "telephone_event": 101,
        "source": {"mode": "strict"},
    })
}

/// `count` ports somewhere in the default range.
pub(crate) fn random_ports(count: u16) -> PortRange {
    let mut random = Random::kernel().unwrap();
    let first = 10_000 + 2 * u16::try_from(random.below(usize::from(22_000 - count) / 2)).unwrap();
    PortRange {
        first,
        last: first + count - 1,
    }
}

/// Waits until something is so; fails after a time that no healthy run comes near.
pub(crate) fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    for _ in 0..1500 {
        if so() {
            return;
        }
        pause(Duration::from_millis(20));
    }
    panic!("not within 30 s: {what}");
}

#[expect(
    clippy::disallowed_methods,
    reason = "phones and waiting tests live in real time"
)]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}
