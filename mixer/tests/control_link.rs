//! The control link over real HTTP, with RTP phones on loopback.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "shared with other test programs, which need other parts")]
mod control;

use std::io::{Read, Write};

use control::http::{connect, request};
use control::phones::three_phones;
use control::{Mixer, eventually, media};
use mixer::config::Token;
use serde_json::{Value, json};

#[test]
fn events_are_numbered_and_the_stream_is_resumed() {
    let mixer = Mixer::with(|config| config.control.events = 16);
    let mut events = mixer.events("?after=0", &[]);
    let instance = events
        .headers
        .iter()
        .find(|(name, _)| name == "mixer-instance")
        .unwrap()
        .1
        .clone();
    assert_eq!(instance, mixer.server.instance());
    let phones = three_phones(&mixer);
    for expected in 1..=3 {
        assert_eq!(events.next_of("active")["conference"], "c", "event {expected}");
    }
    eventually("a talks", || {
        mixer.state()["conferences"][0]["endpoints"][0]["talking"] == true
    });
    for digit in 0..3 {
        phones.press(0, digit);
        let event = events.next_of("digit");
        assert_eq!(event["digit"], digit.to_string());
        assert_eq!(event["endpoint"], "a");
    }
    phones.press(0, 3);
    let third = events.next_of("digit");
    drop(events);
    // What was missed comes first, in order and without a hole.
    phones.press(1, 10);
    phones.press(2, 11);
    let after = third["seq"].as_u64().unwrap();
    for mut resumed in [
        mixer.events(&format!("?after={after}"), &[]),
        mixer.events("", &[("Last-Event-ID", &after.to_string())]),
    ] {
        let (mut next, mut digits) = (after, Vec::new());
        while digits.len() < 2 {
            let event = resumed.next();
            next += 1;
            assert_eq!(event["seq"], next);
            if event["event"] == "digit" {
                digits.push(event["digit"].as_str().unwrap().to_owned());
            }
        }
        digits.sort();
        assert_eq!(digits, ["#", "*"]);
    }
    // Far more than is kept: the place is lost, and that is said.
    for _ in 0..20 {
        let before = mixer.state()["event_seq"].as_u64().unwrap();
        phones.press(0, 5);
        eventually("the digit", || {
            mixer.state()["event_seq"].as_u64().unwrap() > before
        });
    }
    let mut late = mixer.events("?after=1", &[]);
    let gap = late.next();
    assert_eq!(gap["event"], "gap", "{gap}");
    assert_eq!(
        late.next()["seq"].as_u64(),
        gap["seq"].as_u64().map(|seq| seq + 1)
    );
    let mut stranger = mixer.events("?after=99999999", &[]);
    assert_eq!(stranger.next()["event"], "gap");
}

#[test]
fn the_same_command_is_executed_once() {
    let mixer = Mixer::start();
    let path = "/v1/conferences/c";
    let send = |path: &str, body: Value| mixer.send("PUT", path, &body);
    let first = send(path, json!({"command": "x", "owner": "me"}));
    assert_eq!(first.status, 200);
    assert_eq!(
        send(path, json!({"command": "x", "owner": "me"})).body,
        first.body
    );
    let other = send(path, json!({"command": "x", "owner": "you"}));
    assert_eq!((other.status, &other.json()["type"]), (409, &json!("conflict")));
    let endpoint = "/v1/conferences/c/endpoints/a";
    let made = send(endpoint, json!({"command": "y", "media": media(4000)}));
    assert_eq!(made.status, 200);
    assert_eq!(
        send(endpoint, json!({"command": "y", "media": media(4000)})).body,
        made.body
    );
    let again = send(endpoint, json!({"command": "z", "media": media(4000)})).json();
    assert_eq!(again["local"], made.json()["local"]);
    assert_eq!(
        mixer.refused("PUT", endpoint, json!({"media": media(4002)})),
        (409, "conflict".to_owned())
    );
    let remove = |id: &str| mixer.send("DELETE", &format!("{path}?command={id}"), &Value::Null);
    let removed = remove("gone");
    assert_eq!(removed.status, 200);
    assert_eq!(remove("gone").body, removed.body);
    assert_eq!(remove("gone-2").status, 200);
    mixer.assert_empty();
}

#[test]
fn locks_and_limits_refuse() {
    let mixer = Mixer::with(|config| {
        config.limits.conferences = 2;
        config.limits.endpoints = 3;
        config.io.ports.last = config.io.ports.first + 31;
    });
    mixer.conference("c");
    mixer.conference("d");
    let full = mixer.send(
        "PUT",
        "/v1/conferences/e",
        &json!({"command": "full", "owner": "me"}),
    );
    assert_eq!((full.status, &full.json()["type"]), (503, &json!("no_headroom")));
    assert!(full.header("retry-after").unwrap().parse::<u32>().unwrap() > 0);
    assert_eq!(full.header("content-type"), Some("application/problem+json"));
    mixer.done(
        "POST",
        "/v1/conferences/c/commands",
        json!({"verb": "lock", "on": true}),
    );
    let path = "/v1/conferences/c/endpoints/x";
    assert_eq!(
        mixer.refused("PUT", path, json!({"media": media(4000)})),
        (423, "locked".to_owned())
    );
    mixer.done(
        "POST",
        "/v1/conferences/c/commands",
        json!({"verb": "lock", "on": false}),
    );
    for name in ["x", "y", "z"] {
        mixer.endpoint("c", name, 4000);
    }
    let path = "/v1/conferences/d/endpoints/x";
    assert_eq!(
        mixer.refused("PUT", path, json!({})),
        (503, "no_headroom".to_owned())
    );
    mixer.done("DELETE", "/v1/conferences/c", Value::Null);
    // Ports of ended calls rest for 30 s: 16 are not enough for more than 16 calls within that time.
    let mut refusals = Vec::new();
    for number in 0..16 {
        let path = format!("/v1/conferences/d/endpoints/n{number}");
        let answer = mixer.send("PUT", &path, &json!({"command": mixer.id()}));
        if answer.status != 200 {
            refusals.push(answer.json()["type"].as_str().unwrap().to_owned());
            continue;
        }
        mixer.done("DELETE", &path, Value::Null);
    }
    assert_eq!(
        refusals.iter().filter(|kind| *kind == "no_ports").count(),
        3,
        "{refusals:?}"
    );
}

#[test]
fn bad_input_is_refused_and_named() {
    let mixer = Mixer::start();
    mixer.conference("c");
    mixer.endpoint("c", "e", 4000);
    let endpoint = "/v1/conferences/c/endpoints/e";
    let commands = &format!("{endpoint}/commands");
    let with = |key: &str, value: Value| {
        let mut body = json!({"command": "m", "media": media(4000)});
        *body.pointer_mut(key).unwrap() = value;
        body.to_string()
    };
    let set = &format!("{endpoint}/media");
    let long = format!("/v1/conferences/{}", "x".repeat(129));
    let owner = r#"{"command":"1","owner":"me"}"#;
    let cases: [(&str, &str, &str, u16, &str); 25] = [
        ("PUT", "/v1/conferences/x", "{", 400, "body"),
        ("PUT", "/v1/conferences/x", "[]", 400, "body"),
        ("PUT", "/v1/conferences/x", r#"{"command":"1"}"#, 400, "owner"),
        (
            "PUT",
            "/v1/conferences/x",
            r#"{"command":"1","owner":""}"#,
            400,
            "owner",
        ),
        (
            "PUT",
            "/v1/conferences/x",
            r#"{"command":"a b","owner":"me"}"#,
            400,
            "command",
        ),
        (
            "PUT",
            "/v1/conferences/x",
            r#"{"command":"1","owner":"me","what":1}"#,
            400,
            "what",
        ),
        ("PUT", &long, owner, 400, "conference"),
        ("PUT", "/v1/conferences/a%2Fb", owner, 400, "conference"),
        ("PUT", "/v1/conferences/%00", owner, 400, "conference"),
        (
            "PUT",
            "/v1/conferences/none/endpoints/e",
            r#"{"command":"1"}"#,
            404,
            "conference",
        ),
        (
            "PUT",
            set,
            &with("/media/remote", json!("224.0.0.1:4000")),
            400,
            "media.remote",
        ),
        (
            "PUT",
            set,
            &with("/media/remote", json!("[::1]:4000")),
            400,
            "media.remote",
        ),
        (
            "PUT",
            set,
            &with("/media/remote", json!("phone:4000")),
            400,
            "socket address",
        ),
        (
            "PUT",
            set,
            &with("/media/send/ptime_ms", json!(25)),
            400,
            "media.send.ptime_ms",
        ),
        (
            "PUT",
            set,
            &with("/media/send/payload_type", json!(300)),
            400,
            "300",
        ),
        (
            "PUT",
            set,
            &with("/media/receive", json!([])),
            400,
            "media.receive",
        ),
        (
            "PUT",
            set,
            &with("/media/telephone_event", json!(0)),
            400,
            "media.telephone_event",
        ),
        (
            "POST",
            commands,
            r#"{"command":"1","verb":"gain","centibel":9999}"#,
            400,
            "centibel",
        ),
        (
            "POST",
            commands,
            r#"{"command":"1","verb":"explode"}"#,
            400,
            "explode",
        ),
        (
            "POST",
            commands,
            r#"{"command":"1","verb":"play","play":"p","source":{"kind":"prompt","name":"none"}}"#,
            400,
            "source.name",
        ),
        (
            "POST",
            "/v1/conferences/none/commands",
            r#"{"command":"1","verb":"lock","on":true}"#,
            404,
            "conference",
        ),
        ("DELETE", endpoint, "", 400, "command"),
        ("GET", "/v1/nothing", "", 404, "/v1/nothing"),
        ("PATCH", endpoint, "", 405, "PATCH"),
        ("GET", "/v1/events?after=x", "", 400, "after"),
    ];
    for (number, (method, path, body, status, names)) in cases.into_iter().enumerate() {
        // A refusal is remembered under its command's id.
        let body = body.replace(r#""command":"1""#, &format!(r#""command":"n{number}""#));
        let answer = request(mixer.server.control_addr(), method, path, &[], body.as_bytes());
        let problem = answer.json();
        assert_eq!(answer.status, status, "{method} {path} {body}: {problem}");
        assert_eq!(problem["status"], status);
        assert!(
            problem["detail"].as_str().unwrap().contains(names),
            "{method} {path} {body}: {problem}"
        );
    }
    let address = mixer.server.control_addr();
    let form = [("Content-Type", "text/plain")];
    let answer = request(address, "PUT", "/v1/conferences/x", &form, owner.as_bytes());
    assert!(
        answer.status == 400 && answer.text().contains("Content-Type"),
        "{answer:?}"
    );
    let huge = format!(r#"{{"command":"1","owner":"{}"}}"#, "x".repeat(70_000));
    let answer = request(address, "PUT", "/v1/conferences/x", &[], huge.as_bytes());
    assert!(
        answer.status == 400 && answer.text().contains("65536"),
        "{answer:?}"
    );
    assert_eq!(
        mixer.state()["conferences"].as_array().unwrap().len(),
        1,
        "nothing was created"
    );
}

#[test]
fn a_token_is_asked_for_when_one_is_set() {
    let mixer = Mixer::with(|config| config.control.token = Some(Token::new("0123456789abcdef".to_owned())));
    let address = mixer.server.control_addr();
    let get = |path: &str, headers: &[(&str, &str)]| request(address, "GET", path, headers, b"").status;
    assert_eq!(get("/healthz", &[]), 200);
    for path in ["/v1/state", "/metrics", "/v1/nothing"] {
        assert_eq!(get(path, &[]), 401, "{path}");
        assert_eq!(
            get(path, &[("Authorization", "Bearer 0123456789abcdeF")]),
            401,
            "{path}"
        );
        assert_eq!(get(path, &[("Authorization", "0123456789abcdef")]), 401, "{path}");
    }
    assert_eq!(
        get("/v1/state", &[("Authorization", "Bearer 0123456789abcdef")]),
        200
    );
}

#[test]
fn connections_are_capped_and_slow_ones_do_not_hold_others_up() {
    let mixer = Mixer::with(|config| config.control.connections = 4);
    let address = mixer.server.control_addr();
    let mut slow: Vec<_> = (0..3).map(|_| connect(address)).collect();
    for stream in &mut slow {
        stream.write_all(b"GET /v1/st").unwrap();
    }
    eventually("the fourth is served", || {
        let mut stream = connect(address);
        let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n");
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        text.starts_with("HTTP/1.1 200")
    });
    slow.push(connect(address));
    slow[3].write_all(b"GET /v1/st").unwrap();
    eventually("the fifth is refused", || {
        let mut stream = connect(address);
        let mut byte = [0];
        matches!(stream.read(&mut byte), Ok(0) | Err(_))
    });
    drop(slow);
    eventually("places come back", || {
        let mut stream = connect(address);
        let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n");
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        text.starts_with("HTTP/1.1 200")
    });
}
