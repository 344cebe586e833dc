use std::time::Duration;

use signaling_core::effect::LogLevel;
use signaling_core::input::AdminRequest;

use crate::world::{OFFER, Phone, World, config, statuses, udp};

/// The final answer to one request, its header field of interest, and that nothing stays behind.
fn refused(text: &str, status: u16, field: Option<(&str, &str)>) {
    let mut world = World::new();
    let sent = world.exchange(text);
    assert_eq!(statuses(&sent), [status], "{text}\n{sent:#?}");
    assert!(!sent[0].tag().is_empty(), "{text}");
    if let Some((name, part)) = field {
        let value = sent[0].header(name);
        assert!(
            value.is_some_and(|value| value.contains(part)),
            "{name}: {value:?} without {part}\n{text}"
        );
    }
    assert!(world.mixer.log.is_empty(), "{text}");
    world.assert_clean();
}

#[test]
fn invites_that_cannot_be_served() {
    let invite = || Phone::new("a").invite();
    let to = |target: &str| Phone::to("a", target).invite();
    let with = |field: &str| invite().replace("Content-Type", &format!("{field}\r\nContent-Type"));
    let typed = |kind: &str| invite().replace("application/sdp", kind);
    let sdp = |from: &str, to: &str| Phone::new("a").with_sdp("INVITE", &OFFER.replace(from, to));
    refused(&to("sip:192.0.2.1"), 404, None);
    refused(&to("sip:conf-@192.0.2.1"), 404, None);
    refused(&to("sip:conf-a%2Fb@192.0.2.1"), 404, None);
    refused(&to("sip:conference-factory@192.0.2.1"), 404, None);
    refused(&to("tel:+15551234"), 416, None);
    refused(&to("sips:conf-42@192.0.2.1"), 416, None);
    refused(&to("mailto:a@b"), 416, None);
    refused(
        &with("Require: 100rel, timer"),
        420,
        Some(("Unsupported", "100rel, timer")),
    );
    refused(&typed("text/plain"), 415, Some(("Accept", "application/sdp")));
    refused(
        &typed("multipart/mixed;boundary=x"),
        415,
        Some(("Accept", "application/sdp")),
    );
    refused(
        &with("Content-Encoding: gzip"),
        415,
        Some(("Accept-Encoding", "identity")),
    );
    refused(&with("Accept: text/plain"), 406, None);
    refused(&with("Accept: application/sdp;q=0"), 406, None);
    refused(
        &with("Contact: <name:x>").replace("Contact: <sip:alice@198.51.100.7:5062>\r\n", ""),
        400,
        None,
    );
    refused(&with("Record-Route: <sip:broken"), 400, None);
    refused(
        &sdp("RTP/AVP 0 101", "RTP/AVP 97"),
        488,
        Some(("Warning", "305 localhost")),
    );
    refused(
        &sdp("m=audio", "m=video"),
        488,
        Some(("Warning", "304 localhost")),
    );
    refused(
        &sdp("RTP/AVP", "UDP/TLS/RTP/SAVP"),
        488,
        Some(("Warning", "302 localhost")),
    );
    refused(&Phone::new("a").with_sdp("INVITE", "not sdp"), 400, None);
    refused(
        &Phone::new("a").with_sdp("INVITE", &(OFFER.to_owned() + &"a=x\r\n".repeat(1700))),
        413,
        None,
    );
}

#[test]
fn optional_bodies_and_acceptable_types_are_let_through() {
    let fields = [
        "Accept: application/*;q=0.5, text/plain",
        "Accept: */*",
        "Content-Encoding: identity",
        "Max-Forwards: 0",
        "Supported: 100rel, timer, replaces",
    ];
    for field in fields {
        let mut world = World::new();
        let mut phone = Phone::new("a");
        let mut invite = phone
            .invite()
            .replace("Content-Type", &format!("{field}\r\nContent-Type"));
        if field.starts_with("Max-Forwards") {
            invite = invite.replace("Max-Forwards: 70\r\n", "");
        }
        phone.complete(&mut world, &invite);
        phone.hang_up(&mut world);
        world.assert_clean();
    }
    let mut world = World::new();
    let mut phone = Phone::new("a");
    let extra = "Content-Type: text/x\r\nContent-Disposition: render; handling=optional\r\n";
    let invite = phone.request("INVITE", extra, "hello");
    assert_eq!(
        statuses(&world.exchange(&invite)),
        [100, 200],
        "taken as a late offer"
    );
}

#[test]
fn methods() {
    let request = |method: &str| Phone::new("a").request(method, "", "");
    for method in ["REGISTER", "SUBSCRIBE", "NOTIFY", "REFER", "MESSAGE", "PUBLISH"] {
        refused(
            &request(method),
            405,
            Some(("Allow", "INVITE, ACK, BYE, CANCEL, OPTIONS")),
        );
    }
    refused(&request("SERVICE"), 501, Some(("Allow", "INVITE")));
    refused(&request("invite"), 501, Some(("Allow", "INVITE")));
    for method in ["BYE", "INFO", "UPDATE", "PRACK", "CANCEL"] {
        refused(&request(method), 481, None);
    }
    let mut phone = Phone::new("a");
    phone.to_tag = "unknown".to_owned();
    for method in ["INVITE", "BYE", "INFO", "UPDATE", "OPTIONS"] {
        let text = phone.request(method, "", "");
        let mut world = World::new();
        assert_eq!(statuses(&world.exchange(&text)), [481], "{method}");
        world.assert_clean();
    }
    let mut world = World::new();
    assert!(world.exchange(&phone.request("ACK", "", "")).is_empty());
    world.assert_clean();
}

#[test]
fn options_says_what_we_can() {
    let mut world = World::new();
    for target in ["sip:192.0.2.1", "sip:conf-42@192.0.2.1"] {
        let sent = world.exchange(&Phone::to(&target.len().to_string(), target).request("OPTIONS", "", ""));
        assert_eq!(statuses(&sent), [200]);
        for field in ["Allow", "Accept", "Accept-Encoding", "Supported", "Contact"] {
            assert!(sent[0].header(field).is_some(), "{field}");
        }
        assert!(!sent[0].text.contains("isfocus"), "nobody is there");
    }
    Phone::new("a").call(&mut world);
    let sent = world.exchange(&Phone::new("b").request("OPTIONS", "", ""));
    assert!(sent[0].header("Contact").unwrap().ends_with(";isfocus"));
    refused(&Phone::to("a", "tel:1").request("OPTIONS", "", ""), 416, None);
    refused(
        &Phone::new("a").request("OPTIONS", "Require: x\r\n", ""),
        420,
        Some(("Unsupported", "x")),
    );
}

#[test]
fn messages_that_are_broken() {
    let good = Phone::new("a").request("OPTIONS", "", "");
    refused(&good.replace("SIP/2.0\r\nVia", "SIP/3.0\r\nVia"), 505, None);
    refused(&good.replace("1 OPTIONS", "1 INVITE"), 400, None);
    refused(&good.replace("1 OPTIONS", "4294967296 OPTIONS"), 400, None);
    refused(&good.replace("Content-Length: 0", "Content-Length: 9"), 400, None);
    refused(
        &good.replace("sip:conf-42@192.0.2.1 SIP", "sip:conf-42@192.0.2.1?x=y SIP"),
        400,
        None,
    );
    let mut world = World::new();
    for junk in [
        "",
        "\r\n\r\n",
        "hello",
        "SIP/2.0 200 OK\r\n\r\n",
        "OPTIONS sip:x SIP/2.0\r\n\r\n",
    ] {
        assert!(world.exchange(junk).is_empty(), "{junk}");
    }
    world.assert_clean();
}

#[test]
fn strangers_are_refused_and_named_once() {
    let mut world = World::new();
    let mut stranger = udp();
    stranger.remote = "203.0.113.5:5060".parse().unwrap();
    let mut phone = Phone::new("a");
    let methods = ["INVITE", "OPTIONS", "BYE", "CANCEL", "ACK"];
    for method in methods {
        world.receive(stranger, &phone.request(method, "", ""));
    }
    assert_eq!(statuses(&world.sent), [403; 4], "all but the ACK");
    assert_eq!(world.core.status().transactions, 0, "no state for strangers");
    let lines: Vec<_> = world
        .logs
        .iter()
        .filter(|line| line.level == LogLevel::Warn)
        .collect();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].detail.contains("203.0.113.5") && lines[0].detail.contains("[sip] trusted"));
    world.assert_clean();
}

#[test]
fn without_auto_create_only_conferences_that_exist_are_found() {
    let mut strict = config();
    strict.auto_create = false;
    let mut world = World::with(strict);
    assert_eq!(statuses(&world.exchange(&Phone::new("a").invite())), [404]);
    world.assert_clean();
}

#[test]
fn when_all_calls_are_taken() {
    let mut small = config();
    small.calls_max = 1;
    let mut world = World::with(small);
    let mut first = Phone::new("a");
    let invite = first.invite();
    let ok = world.exchange(&invite).pop().unwrap();
    first.to_tag = ok.tag().to_owned();
    let sent = world.exchange(&Phone::new("b").invite());
    assert_eq!(statuses(&sent), [503]);
    assert!(sent[0].header("Retry-After").is_some());
    assert!(
        world.exchange(&invite).is_empty(),
        "a repetition of the first is still absorbed"
    );
    world.exchange(&first.request("ACK", "", ""));
    assert_eq!(
        statuses(&world.exchange(&Phone::new("c").request("OPTIONS", "", ""))),
        [200]
    );
    first.hang_up(&mut world);
    let mut third = Phone::new("d");
    third.call(&mut world);
    third.hang_up(&mut world);
    world.assert_clean();
}

#[test]
fn locked_conferences_are_busy() {
    let mut world = World::new();
    let mut phone = Phone::new("a");
    phone.call(&mut world);
    world.admin(AdminRequest::Lock {
        conference: "42".to_owned(),
        on: true,
    });
    let sent = world.exchange(&Phone::new("b").invite());
    assert_eq!(statuses(&sent), [486]);
    assert!(sent[0].header("Warning").unwrap().contains("399 localhost"));
    world.admin(AdminRequest::Lock {
        conference: "42".to_owned(),
        on: false,
    });
    let mut late = Phone::new("c");
    late.call(&mut world);
    late.hang_up(&mut world);
    phone.hang_up(&mut world);
    world.pass(Duration::from_secs(1));
    world.assert_clean();
}
