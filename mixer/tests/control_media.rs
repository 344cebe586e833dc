//! What phones hear, by command over the control link.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "shared with other test programs, which need other parts")]
mod control;

use std::net::SocketAddr;

use control::phones::{ALL, LOUD, Phones, TONES, header, hears, hears_not, matrix, three_phones};
use control::{Mixer, eventually, media};
use mixer_control::srtp::SrtpKey;
use mixer_engine::srtp::{MasterKey, Suite};
use serde_json::{Value, json};

#[test]
fn three_phones_hear_each_other_and_not_themselves() {
    let mixer = Mixer::start();
    let phones = three_phones(&mixer);
    matrix(&phones, "all hear the others and not themselves", ALL);
    mixer.verb("c", "a", json!({"verb": "mute", "on": true}));
    matrix(&phones, "nobody hears the muted one", [&[1, 2], &[2], &[1]]);
    mixer.verb("c", "a", json!({"verb": "mute", "on": false}));
    mixer.verb("c", "b", json!({"verb": "deaf", "on": true}));
    matrix(&phones, "the deaf one hears nobody", [&[1, 2], &[], &[0, 1]]);
    mixer.verb("c", "b", json!({"verb": "deaf", "on": false}));
    mixer.verb("c", "c", json!({"verb": "hold", "on": true}));
    matrix(
        &phones,
        "the held one neither hears nor is heard",
        [&[1], &[0], &[]],
    );
    mixer.verb("c", "c", json!({"verb": "hold", "on": false}));
    mixer.verb("c", "a", json!({"verb": "gain", "centibel": -2000}));
    eventually("20 dB less of a", || {
        let level = phones.hears(1, TONES[0]);
        (0.07 * LOUD..0.13 * LOUD).contains(&level) && hears(&phones, 1, 2)
    });
    mixer.verb("c", "a", json!({"verb": "gain", "centibel": 0}));
    matrix(&phones, "all is as before", ALL);
    mixer.done("DELETE", "/v1/conferences/c/endpoints/c", Value::Null);
    eventually("the one who left is not heard", || {
        (0..2).all(|phone| hears(&phones, phone, 1 - phone) && hears_not(&phones, phone, 2))
    });
}

#[test]
fn the_state_tells_what_is() {
    let mixer = Mixer::start();
    let phones = three_phones(&mixer);
    matrix(&phones, "all hear the others", ALL);
    mixer.verb("c", "b", json!({"verb": "mute", "on": true}));
    mixer.verb("c", "b", json!({"verb": "gain", "centibel": -300}));
    mixer.done(
        "POST",
        "/v1/conferences/c/commands",
        json!({"verb": "lock", "on": true}),
    );
    mixer.conference("empty");
    eventually("statistics of everybody", || {
        let state = mixer.state();
        let endpoints = state["conferences"][0]["endpoints"].as_array().unwrap().clone();
        endpoints.iter().all(|one| {
            one["active"] == true
                && one["stats"]["received"].as_u64() > Some(10)
                && one["stats"]["sent"].as_u64() > Some(10)
                && one["stats"]["playout_delay_us"].as_u64() > Some(0)
        })
    });
    let state = mixer.state();
    assert_eq!(state["instance"], mixer.server.instance());
    let [conference, empty] = &state["conferences"].as_array().unwrap()[..] else {
        panic!("{state}")
    };
    assert_eq!(
        (&conference["conference"], &conference["owner"]),
        (&json!("c"), &json!("test"))
    );
    assert_eq!(
        (&conference["locked"], &empty["locked"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(empty["endpoints"], json!([]));
    for (at, name) in ["a", "b", "c"].into_iter().enumerate() {
        let endpoint = &conference["endpoints"][at];
        assert_eq!(endpoint["endpoint"], name);
        assert_eq!(endpoint["media"], media(phones.port(at)));
        assert_eq!(endpoint["muted"], name == "b");
        assert_eq!(endpoint["gain_centibel"], if name == "b" { -300 } else { 0 });
        assert_eq!(
            (&endpoint["deaf"], &endpoint["held"]),
            (&json!(false), &json!(false))
        );
    }
    mixer.done("DELETE", "/v1/conferences/c", Value::Null);
    mixer.done("DELETE", "/v1/conferences/empty", Value::Null);
    mixer.assert_empty();
}

/// Keys for the link and for a phone: what the phone sends, what it hears.
fn keys(suite: Suite, name: &str) -> (Value, [MasterKey; 2]) {
    let bytes = [17u8, 91].map(|byte| vec![byte; suite.key_bytes() + suite.salt_bytes()]);
    let [receive, send] = [0, 1].map(|way| SrtpKey::of_bytes(&bytes[way]));
    let link = json!({"suite": name, "receive_key": receive, "send_key": send});
    (
        link,
        [0, 1].map(|way| MasterKey::new(suite, &bytes[way]).unwrap()),
    )
}

#[test]
fn legs_with_srtp_hear_and_are_heard_and_their_keys_are_not_told() {
    let mixer = Mixer::start();
    let phones = Phones::new(3);
    mixer.conference("c");
    // One has keys from the start, one gets them later, one is plain.
    let (link, [send, receive]) = keys(Suite::AesCm256HmacSha1Tag80, "AES_256_CM_HMAC_SHA1_80");
    let mut secure = media(phones.port(0));
    secure["srtp"] = link;
    let path = "/v1/conferences/c/endpoints/a";
    let created = mixer.done("PUT", path, json!({"media": secure}));
    phones.connect(
        0,
        created["local"]
            .as_str()
            .unwrap()
            .parse::<SocketAddr>()
            .unwrap()
            .port(),
    );
    phones.secure(0, send, receive);
    for (phone, name) in [(1, "b"), (2, "c")] {
        phones.connect(phone, mixer.endpoint("c", name, phones.port(phone)));
    }
    (0..3).for_each(|phone| phones.talk(phone, Some(TONES[phone])));
    matrix(&phones, "one is secure", ALL);
    let (link, [send, receive]) = keys(Suite::AeadAes128Gcm, "AEAD_AES_128_GCM");
    let mut secure = media(phones.port(1));
    secure["srtp"] = link;
    mixer.done(
        "PUT",
        "/v1/conferences/c/endpoints/b/media",
        json!({"media": secure}),
    );
    phones.secure(1, send, receive);
    matrix(&phones, "two are secure", ALL);

    let told = mixer.state().to_string();
    // Base64 of 17 and of 91, again and again.
    assert!(!told.contains("ERERERER") && !told.contains("W1tbW1tb"), "{told}");
    let endpoints = &mixer.state()["conferences"][0]["endpoints"];
    assert_eq!(endpoints[0]["srtp"], "AES_256_CM_HMAC_SHA1_80");
    assert_eq!(endpoints[1]["srtp"], "AEAD_AES_128_GCM");
    assert_eq!(endpoints[1]["media"], media(phones.port(1)));
    assert_eq!(endpoints[2].get("srtp"), None);
    assert!(
        mixer
            .metrics()
            .contains("mixminus_srtp_endpoints{suite=\"AEAD_AES_128_GCM\"} 1\n")
    );
    // Plain RTP to a secure leg.
    phones.send_raw(1, &[0x80; 180]);
    eventually("it is counted", || {
        let page = mixer.metrics();
        let reason = "mixminus_rtp_dropped_total{reason=\"srtp_auth\"} ";
        let count = page.lines().find_map(|line| line.strip_prefix(reason));
        count.is_some_and(|count| count != "0")
    });
    let mut bad = secure;
    bad["srtp"]["send_key"] = json!("AAAA");
    let path = "/v1/conferences/c/endpoints/b/media";
    assert_eq!(mixer.refused("PUT", path, json!({"media": bad})).1, "invalid");
    matrix(&phones, "all is as before", ALL);
}

#[test]
fn tones_are_heard_by_one_or_by_all_and_their_end_is_told() {
    let mixer = Mixer::start();
    let mut events = mixer.events("", &[]);
    let phones = three_phones(&mixer);
    (0..3).for_each(|phone| phones.talk(phone, None));
    let tone = |play: &str, hertz: u32, repeat: u32| {
        json!({"verb": "play", "play": play, "repeat": repeat,
               "source": {"kind": "tone", "hertz": hertz, "attenuation_db": 12, "duration_ms": 1000}})
    };
    mixer.verb("c", "a", tone("one", 1500, 0));
    mixer.done("POST", "/v1/conferences/c/commands", tone("all", 2100, 0));
    let loud = |phone: usize, hertz: f64| phones.hears(phone, hertz) > 5000.0;
    eventually("a hears both tones, the others one", || {
        (0..3).all(|phone| loud(phone, 2100.0))
            && loud(0, 1500.0)
            && (1..3).all(|phone| phones.hears(phone, 1500.0) < 50.0)
    });
    mixer.verb("c", "a", json!({"verb": "stop", "play": "one"}));
    mixer.done("POST", "/v1/conferences/c/commands", json!({"verb": "stop"}));
    for (play, endpoint) in [("one", json!("a")), ("all", Value::Null)] {
        let event = events.next_of("played");
        assert_eq!(
            (&event["play"], &event["endpoint"]),
            (&json!(play), &endpoint),
            "{event}"
        );
        assert_eq!(
            (&event["complete"], &event["conference"]),
            (&json!(false), &json!("c"))
        );
    }
    eventually("silence", || {
        (0..3).all(|phone| phones.hears(phone, 2100.0) < 50.0)
    });
    let prompt = json!({"verb": "play", "play": "beep", "source": {"kind": "prompt", "name": "en/beep"}});
    mixer.verb("c", "b", prompt);
    let event = events.next_of("played");
    assert_eq!(
        (&event["play"], &event["complete"]),
        (&json!("beep"), &json!(true))
    );
}

/// Media of a trunk to a port.
fn trunk_media(port: u64) -> Value {
    json!({
        "remote": format!("127.0.0.1:{port}"),
        "direction": "sendrecv",
        "send": {"payload_type": 97, "codec": "l16", "ptime_ms": 20},
        "receive": [{"payload_type": 97, "codec": "l16"}],
        "source": {"mode": "strict"},
    })
}

/// The local port of an answer to a creation.
fn port_of(created: &Value) -> u64 {
    let local: std::net::SocketAddr = created["local"].as_str().unwrap().parse().unwrap();
    u64::from(local.port())
}

#[test]
fn phones_of_two_mixers_hear_each_other_over_a_trunk_and_nobody_himself() {
    let mixers = [Mixer::start(), Mixer::start()];
    let phones = Phones::new(3);
    mixers.iter().for_each(|mixer| mixer.conference("c"));
    for (phone, mixer) in [(0, 0), (1, 0), (2, 1)] {
        let mixer: &Mixer = &mixers[mixer];
        let port = mixer.endpoint("c", &format!("phone-{phone}"), phones.port(phone));
        phones.connect(phone, port);
        phones.talk(phone, Some(TONES[phone]));
    }
    matrix(&phones, "two rooms", [&[1], &[0], &[]]);
    // As in docs/operations.md: a port here, a trunk to it there, and what is there told here.
    let path = "/v1/conferences/c/endpoints/trunk";
    let here = mixers[0].done("PUT", path, json!({"trunk": true}));
    let body = json!({"trunk": true, "media": trunk_media(port_of(&here))});
    let there = mixers[1].done("PUT", path, body);
    let body = json!({"media": trunk_media(port_of(&there))});
    mixers[0].done("PUT", &format!("{path}/media"), body);
    matrix(&phones, "one room", ALL);
    for mixer in &mixers {
        let state = mixer.state();
        let endpoints = state["conferences"][0]["endpoints"].as_array().unwrap();
        let trunks = endpoints.iter().filter(|one| one["trunk"] == true);
        let names: Vec<_> = trunks.map(|one| one["endpoint"].clone()).collect();
        assert_eq!(names, [json!("trunk")], "{state}");
        assert!(
            mixer
                .metrics()
                .contains("mixminus_rtp_dropped_total{reason=\"loop\"} 0\n")
        );
    }
    mixers[1].done("DELETE", path, Value::Null);
    matrix(&phones, "two rooms again", [&[1], &[0], &[]]);
}

#[test]
fn a_trunk_between_legs_of_one_conference_brings_nobody_his_own_voice() {
    let mixer = Mixer::start();
    let phones = three_phones(&mixer);
    let path = |name: &str| format!("/v1/conferences/c/endpoints/{name}");
    let one = mixer.done("PUT", &path("one"), json!({"trunk": true}));
    let body = json!({"trunk": true, "media": trunk_media(port_of(&one))});
    let other = mixer.done("PUT", &path("other"), body);
    let body = json!({"media": trunk_media(port_of(&other))});
    mixer.done("PUT", &format!("{}/media", path("one")), body);
    eventually("packets that come back", || {
        let page = mixer.metrics();
        let line = page
            .lines()
            .find_map(|line| line.strip_prefix("mixminus_rtp_dropped_total{reason=\"loop\"} "));
        line.is_some_and(|count| count.parse::<f64>().unwrap() > 100.0)
    });
    matrix(&phones, "as without a trunk", ALL);
}

/// The probe that other bridges answered: RTP at ports in use from where nobody is expected, and whatever comes back is
/// kept. It comes from the phones' own address, and it counts on as the best forger would.
#[test]
fn an_rtp_bleed_probe_gets_no_packet_and_is_not_heard() {
    let mixer = Mixer::start();
    let phones = three_phones(&mixer);
    // One of them was learnt behind a NAT: nobody is learnt after it.
    let mut learning = media(phones.port(2));
    learning["source"] = json!({"mode": "learn", "allowed": ["127.0.0.1"]});
    mixer.done(
        "PUT",
        "/v1/conferences/c/endpoints/c/media",
        json!({"media": learning}),
    );
    matrix(&phones, "before the probe", ALL);
    let probe = Phones::new(3);
    let refused = || -> Vec<u64> {
        let state = mixer.state();
        let endpoints = state["conferences"][0]["endpoints"].as_array().unwrap().clone();
        let refused = endpoints.iter().map(|one| one["stats"]["bad_source"].as_u64());
        refused.map(Option::unwrap).collect()
    };
    for victim in 0..3 {
        probe.connect(victim, phones.to(victim));
        for payload_type in 0..=127 {
            let mut packet = header(
                payload_type,
                u16::from(payload_type),
                u32::from(payload_type) * 160,
            );
            packet.extend([0x10; 160]);
            probe.send_raw(victim, &packet);
        }
        // RTCP, STUN, DTLS, nothing at all.
        for other in [
            &[0x80, 200, 0, 1, 1, 2, 3, 4][..],
            &[0, 1, 0, 0],
            &[22, 254, 253],
            &[],
        ] {
            probe.send_raw(victim, other);
        }
        probe.talk(victim, Some(PROBE_TONE));
    }
    eventually("a second of the probe was refused at every port", || {
        refused().iter().all(|&packets| packets > 128 + 50)
    });
    for phone in 0..3 {
        assert_eq!(probe.packets(phone), 0, "the probe was sent something");
        assert!(
            phones.hears(phone, PROBE_TONE) < 0.01 * LOUD,
            "the probe is heard"
        );
    }
    matrix(&phones, "all is as before", ALL);
}

const PROBE_TONE: f64 = 1710.0;
