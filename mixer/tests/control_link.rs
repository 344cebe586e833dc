//! The control link over real HTTP, with RTP phones on loopback.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "shared with other test programs, which need other parts")]
mod control;

use std::io::{Read, Write};

use control::http::{connect, request};
use control::phones::{ALL, matrix, three_phones};
use control::{Mixer, eventually, media, random_ports};
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

/// Method, path, status, what the detail names, body. `$` stands for a fresh command id.
const BAD_INPUT: &str = r#"
PUT /v1/conferences/x 400 body {
PUT /v1/conferences/x 400 body []
PUT /v1/conferences/x 400 owner {"command":"$"}
PUT /v1/conferences/x 400 owner {"command":"$","owner":""}
PUT /v1/conferences/x 400 command {"command":"a b","owner":"me"}
PUT /v1/conferences/x 400 what {"command":"$","owner":"me","what":1}
PUT /v1/conferences/a%2Fb 400 conference {"command":"$","owner":"me"}
PUT /v1/conferences/%00 400 conference {"command":"$","owner":"me"}
PUT /v1/conferences/none/endpoints/e 404 conference {"command":"$"}
POST /v1/conferences/c/endpoints/e/commands 400 centibel {"command":"$","verb":"gain","centibel":9999}
POST /v1/conferences/c/endpoints/e/commands 400 explode {"command":"$","verb":"explode"}
POST /v1/conferences/c/endpoints/e/commands 400 on {"command":"$","verb":"mute"}
POST /v1/conferences/c/endpoints/e/commands 400 source.name {"command":"$","verb":"play","play":"p","source":{"kind":"prompt","name":"none"}}
POST /v1/conferences/none/commands 404 conference {"command":"$","verb":"lock","on":true}
POST /v1/conferences/c/endpoints/none/commands 404 endpoint {"command":"$","verb":"mute","on":true}
DELETE /v1/conferences/c/endpoints/e 400 command -
GET /v1/nothing 404 /v1/nothing -
PATCH /v1/conferences/c/endpoints/e 405 PATCH -
GET /v1/events?after=x 400 after -
"#;

#[test]
fn bad_input_is_refused_and_named() {
    let mixer = Mixer::start();
    mixer.conference("c");
    mixer.endpoint("c", "e", 4000);
    for line in BAD_INPUT.trim().lines() {
        let [method, path, status, names, body] = line.splitn(5, ' ').collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        let body = if body == "-" { "" } else { body };
        let body = body.replace('$', &mixer.id());
        let answer = request(mixer.server.control_addr(), method, path, &[], body.as_bytes());
        let problem = answer.json();
        assert_eq!(answer.status.to_string(), status, "{line}: {problem}");
        assert_eq!(problem["status"], answer.status, "{line}");
        assert!(
            problem["detail"].as_str().unwrap().contains(names),
            "{line}: {problem}"
        );
    }
    let (address, path) = (mixer.server.control_addr(), "/v1/conferences/x");
    let fine = r#"{"command":"fine","owner":"me"}"#;
    let answer = request(
        address,
        "PUT",
        path,
        &[("Content-Type", "text/plain")],
        fine.as_bytes(),
    );
    assert!(
        answer.status == 400 && answer.text().contains("Content-Type"),
        "{answer:?}"
    );
    let huge = fine.replace("me", &"x".repeat(70_000));
    let answer = request(address, "PUT", path, &[], huge.as_bytes());
    assert!(
        answer.status == 400 && answer.text().contains("65536"),
        "{answer:?}"
    );
    let long = format!("/v1/conferences/{}", "x".repeat(129));
    assert_eq!(request(address, "PUT", &long, &[], fine.as_bytes()).status, 400);
    assert_eq!(
        mixer.state()["conferences"].as_array().unwrap().len(),
        1,
        "nothing was created"
    );
}

#[test]
fn bad_media_is_refused_and_named() {
    let mixer = Mixer::start();
    mixer.conference("c");
    mixer.endpoint("c", "e", 4000);
    let cases = [
        ("/media/remote", json!("224.0.0.1:4000"), "media.remote"),
        ("/media/remote", json!("[::1]:4000"), "media.remote"),
        ("/media/remote", json!("phone:4000"), "socket address"),
        ("/media/send/ptime_ms", json!(25), "media.send.ptime_ms"),
        ("/media/send/payload_type", json!(300), "300"),
        ("/media/receive", json!([]), "media.receive"),
        ("/media/telephone_event", json!(0), "media.telephone_event"),
        ("/media/source/mode", json!("any"), "any"),
    ];
    for (pointer, value, names) in cases {
        let mut body = json!({"command": "m", "media": media(4000)});
        *body.pointer_mut(pointer).unwrap() = value;
        let answer = mixer.send("PUT", "/v1/conferences/c/endpoints/e/media", &body);
        let problem = answer.json();
        assert_eq!(
            (answer.status, &problem["type"]),
            (400, &json!("invalid")),
            "{pointer}: {problem}"
        );
        assert!(
            problem["detail"].as_str().unwrap().contains(names),
            "{pointer}: {problem}"
        );
    }
    // An id is not used up by a request that was wrong.
    let body = json!({"command": "m", "media": media(4002)});
    assert_eq!(
        mixer
            .send("PUT", "/v1/conferences/c/endpoints/e/media", &body)
            .status,
        200
    );
    assert_eq!(
        mixer.state()["conferences"][0]["endpoints"][0]["media"],
        media(4002)
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

#[test]
fn a_worker_without_headroom_refuses_with_a_time_and_takes_endpoints_again() {
    // At 12 %, 240 endpoints of which nothing is known yet are too many.
    let mixer = Mixer::with(|config| {
        config.admission.busy_percent = 12;
        config.admission.reopen_percent = 11;
        config.limits.endpoints = 500;
        config.io.ports = random_ports(1_000);
    });
    let put = |number: u32| {
        let path = format!("/v1/conferences/c/endpoints/e{number}");
        mixer.send("PUT", &path, &json!({"command": mixer.id()}))
    };
    let refused = || {
        let page = mixer.metrics();
        let line = |line: &&str| line.starts_with("mixminus_admission_refused_total{");
        let count = |line: &str| line.rsplit(' ').next().unwrap().parse::<u32>().unwrap();
        page.lines().filter(line).map(count).sum::<u32>()
    };
    eventually("a conference is admitted", || {
        let body = json!({"command": mixer.id(), "owner": "test"});
        mixer.send("PUT", "/v1/conferences/c", &body).status == 200
    });
    let before = refused();
    let (number, answer) = (0..500)
        .map(|number| (number, put(number)))
        .find(|(_, answer)| answer.status != 200)
        .expect("nothing was refused");
    assert!(number <= 240, "{number}");
    assert_eq!(
        (answer.status, &answer.json()["type"]),
        (503, &json!("no_headroom"))
    );
    let seconds: u32 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((4..12).contains(&seconds), "{seconds}");
    assert_eq!(answer.json()["retry_after_s"], seconds);
    assert_eq!(refused(), before + 1);
    assert!(
        mixer
            .metrics()
            .contains("mixminus_admission_open{worker=\"0\"} 0\n")
    );
    // Who is there is served; the place of one who has gone is free for others.
    if number > 0 {
        let path = "/v1/conferences/c/endpoints/e0/commands";
        mixer.done("POST", path, json!({"verb": "mute", "on": true}));
    }
    mixer.done("DELETE", "/v1/conferences/c", Value::Null);
    eventually("endpoints are admitted again", || {
        let body = json!({"command": mixer.id(), "owner": "test"});
        mixer.send("PUT", "/v1/conferences/c", &body).status == 200 && put(500).status == 200
    });
}

#[test]
fn a_client_that_dies_changes_nothing() {
    let mixer = Mixer::start();
    let phones = three_phones(&mixer);
    matrix(&phones, "all hear the others", ALL);
    let before = mixer.state()["conferences"][0]["endpoints"]
        .as_array()
        .unwrap()
        .len();
    // In the middle of a header, of a body, right after a command, while reading events.
    let address = mixer.server.control_addr();
    connect(address)
        .write_all(b"PUT /v1/conferences/c HTTP/1.1\r\nHo")
        .unwrap();
    let head = "PUT /v1/conferences/half HTTP/1.1\r\nHost: m\r\nContent-Type: application/json\r\n";
    connect(address)
        .write_all(format!("{head}Content-Length: 500\r\n\r\n{{\"comm").as_bytes())
        .unwrap();
    let body = r#"{"command":"orphan","owner":"gone"}"#;
    let whole = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).replace("half", "whole");
    connect(address).write_all(whole.as_bytes()).unwrap();
    drop(mixer.events("", &[]));
    eventually("the complete command took effect", || {
        let state = mixer.state();
        state["conferences"]
            .as_array()
            .unwrap()
            .iter()
            .any(|one| one["conference"] == "whole")
    });
    let state = mixer.state();
    assert_eq!(state["conferences"].as_array().unwrap().len(), 2, "{state}");
    assert_eq!(
        state["conferences"][0]["endpoints"].as_array().unwrap().len(),
        before
    );
    let packets = phones.packets(0);
    eventually("media goes on", || phones.packets(0) > packets + 25);
    matrix(&phones, "all still hear the others", ALL);
    // Its successor repeats the command and learns that it was done.
    let again = mixer.send(
        "PUT",
        "/v1/conferences/whole",
        &serde_json::from_str(body).unwrap(),
    );
    assert_eq!(again.status, 200);
}
