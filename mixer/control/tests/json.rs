//! The JSON of the control link: what is written stays as it is, what is unknown is refused.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod examples;

use mixer_control::event::Event;
use mixer_control::media::Media;
use mixer_control::reply::{Done, EndpointCreated, Problem, ProblemKind};
use mixer_control::request::{
    ConferenceCommand, CreateConference, CreateEndpoint, EndpointCommand, SetMedia, is_command_id, is_label,
};
use mixer_control::srtp::{SrtpKey, SrtpSuite};
use mixer_control::state::State;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The value is written as `json` and read back equal.
fn snapshot<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T, json: &str) {
    assert_eq!(serde_json::to_string(value).unwrap(), json);
    assert_eq!(&serde_json::from_str::<T>(json).unwrap(), value);
}

fn refused<T: DeserializeOwned + std::fmt::Debug>(json: &str, names: &str) {
    let error = serde_json::from_str::<T>(json).expect_err(json).to_string();
    assert!(error.contains(names), "{json}: {error}");
}

const MEDIA: &str = concat!(
    r#"{"remote":"192.0.2.7:4000","direction":"sendrecv","#,
    r#""send":{"payload_type":0,"codec":"pcmu","ptime_ms":20},"#,
    r#""receive":[{"payload_type":0,"codec":"pcmu"},{"payload_type":8,"codec":"pcma"}],"#,
    r#""telephone_event":101,"source":{"mode":"strict"}}"#
);

#[test]
fn requests() {
    snapshot(
        &examples::create_conference(),
        r#"{"command":"cmd-1","owner":"signaling-1"}"#,
    );
    snapshot(
        &examples::create_endpoint(),
        &format!(r#"{{"command":"cmd-2","media":{MEDIA}}}"#),
    );
    snapshot(
        &CreateEndpoint {
            command: "cmd-2".to_owned(),
            media: None,
            trunk: false,
        },
        r#"{"command":"cmd-2"}"#,
    );
    snapshot(&examples::create_trunk(), r#"{"command":"cmd-6","trunk":true}"#);
    let media = MEDIA.strip_suffix('}').unwrap();
    let zeros = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==";
    let ones = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQ==";
    snapshot(
        &examples::set_media(),
        &format!(
            r#"{{"command":"cmd-3","media":{media},"srtp":{{"suite":"AEAD_AES_128_GCM","receive_key":"{zeros}","send_key":"{ones}"}}}}}}"#
        ),
    );
    let endpoint = [
        r#"{"command":"cmd-4","verb":"mute","on":true}"#,
        r#"{"command":"cmd-4","verb":"deaf","on":true}"#,
        r#"{"command":"cmd-4","verb":"gain","centibel":-600}"#,
        r#"{"command":"cmd-4","verb":"hold","on":true}"#,
        r#"{"command":"cmd-4","verb":"play","play":"p1","source":{"kind":"prompt","name":"en/enter"},"repeat":1}"#,
        r#"{"command":"cmd-4","verb":"stop","play":"p1"}"#,
    ];
    for (value, json) in examples::endpoint_commands().iter().zip(endpoint) {
        snapshot(value, json);
    }
    assert_eq!(examples::endpoint_commands().len(), endpoint.len());
    let conference = [
        r#"{"command":"cmd-5","verb":"lock","on":true}"#,
        r#"{"command":"cmd-5","verb":"play","play":"p2","source":{"kind":"tone","hertz":440,"attenuation_db":12,"duration_ms":500},"repeat":1}"#,
        r#"{"command":"cmd-5","verb":"stop","play":null}"#,
    ];
    for (value, json) in examples::conference_commands().iter().zip(conference) {
        snapshot(value, json);
    }
    assert_eq!(examples::conference_commands().len(), conference.len());
}

#[test]
fn replies() {
    snapshot(
        &examples::done(),
        r#"{"command":"cmd-1","worker":0,"tick":81234}"#,
    );
    snapshot(
        &examples::endpoint_created(),
        r#"{"command":"cmd-2","worker":0,"tick":81240,"local":"192.0.2.1:20480","ssrc":2018051091}"#,
    );
    snapshot(
        &examples::problem(),
        r#"{"type":"no_ports","status":503,"detail":"no RTP port is free; widen io.ports","retry_after_s":30}"#,
    );
    snapshot(
        &Problem::new(ProblemKind::NotFound, "no such endpoint"),
        r#"{"type":"not_found","status":404,"detail":"no such endpoint"}"#,
    );
}

#[test]
fn events() {
    let lines = [
        r#"{"seq":1,"conference":"conf-7","endpoint":"ep-1","event":"active"}"#,
        r#"{"seq":2,"conference":"conf-7","endpoint":"ep-1","event":"talk","talking":true}"#,
        r##"{"seq":3,"conference":"conf-7","endpoint":"ep-1","event":"digit","digit":"#","duration_ms":120}"##,
        r#"{"seq":4,"conference":"conf-7","event":"played","play":"p2","complete":true}"#,
        r#"{"seq":5,"conference":"conf-7","endpoint":"ep-1","event":"media_timeout"}"#,
        r#"{"seq":6,"conference":"conf-7","endpoint":"ep-1","event":"source_learnt","source":"192.0.2.7:4002"}"#,
        r#"{"seq":7,"conference":"conf-7","event":"conference_failed"}"#,
        r#"{"seq":8,"event":"gap"}"#,
    ];
    for (value, json) in examples::events().iter().zip(lines) {
        snapshot::<Event>(value, json);
    }
    assert_eq!(examples::events().len(), lines.len());
}

#[test]
fn state() {
    let json = format!(
        concat!(
            r#"{{"instance":"1601af36aa3064303b2d11644a73f75d","event_seq":42,"conferences":["#,
            r#"{{"conference":"conf-7","owner":"signaling-1","worker":0,"locked":false,"talkers":4,"endpoints":["#,
            r#"{{"endpoint":"ep-1","local":"192.0.2.1:20480","ssrc":2018051091,"media":{},"#,
            r#""srtp":"AEAD_AES_128_GCM","muted":false,"deaf":false,"held":false,"gain_centibel":0,"active":true,"talking":false,"mixed":true,"#,
            r#""stats":{{"received":1500,"sent":1502,"concealed":3,"late":1,"duplicate":0,"lost":2,"#,
            r#""bad_source":0,"playout_delay_us":21500}}}}]}}]}}"#
        ),
        MEDIA
    );
    snapshot::<State>(&examples::state(), &json);
    let mut state = examples::state();
    state.conferences[0].endpoints[0].trunk = true;
    snapshot::<State>(&state, &json.replace(r#""muted""#, r#""trunk":true,"muted""#));
}

#[test]
fn suites_have_their_names_and_keys_are_not_printed() {
    for suite in SrtpSuite::ALL {
        snapshot(&suite, &format!("{:?}", suite.name()));
    }
    let media = examples::set_media();
    let printed = format!("{media:?}");
    assert!(printed.contains("AeadAes128Gcm") && !printed.contains("AAAA") && !printed.contains("AQEB"));
    assert_eq!(media.media.without_keys().srtp, None);
    let key = |text: &str| serde_json::from_str::<SrtpKey>(&format!("{text:?}")).unwrap();
    assert_eq!(key("AQEB").bytes().as_deref(), Some(&vec![1, 1, 1]));
    // Padding may be missing.
    assert_eq!(key("AQE").bytes(), key("AQE=").bytes());
    for bad in ["AQ!B", "AQEBA", "A-_B", "AQ=B"] {
        assert_eq!(key(bad).bytes(), None, "{bad}");
    }
    refused::<Media>(
        &MEDIA.replace(r#""source""#, r#""srtp":{"suite":"NULL"},"source""#),
        "NULL",
    );
}

#[test]
fn unknown_fields_and_values_are_refused_by_name() {
    refused::<CreateConference>(r#"{"command":"1","owner":"x","colour":1}"#, "colour");
    refused::<CreateEndpoint>(r#"{"command":"1","medium":null}"#, "medium");
    refused::<CreateEndpoint>(r#"{"media":null}"#, "command");
    refused::<SetMedia>(r#"{"command":"1"}"#, "media");
    refused::<EndpointCommand>(r#"{"command":"1","verb":"mute","on":true,"of":1}"#, "of");
    refused::<EndpointCommand>(r#"{"command":"1","verb":"mute"}"#, "on");
    refused::<EndpointCommand>(r#"{"command":"1","verb":"kick"}"#, "kick");
    refused::<EndpointCommand>(r#"{"command":"1","verb":"lock","on":true}"#, "lock");
    refused::<EndpointCommand>(
        r#"{"command":"1","verb":"play","play":"p","source":{"kind":"prompt","name":"en/x"},"times":2}"#,
        "times",
    );
    refused::<ConferenceCommand>(
        r#"{"command":"1","verb":"play","play":"p","source":{"kind":"prompt","name":"en/x","speed":2}}"#,
        "speed",
    );
    refused::<Media>(&MEDIA.replace("\"pcma\"", "\"opus\""), "opus");
    refused::<Media>(&MEDIA.replace("strict", "any"), "any");
    refused::<Media>(&MEDIA.replace("\"direction\"", "\"dir\""), "dir");
    refused::<Media>(&MEDIA.replace("192.0.2.7:4000", "host:4000"), "socket address");
}

#[test]
fn defaults_may_be_left_out() {
    let play = r#"{"command":"1","verb":"play","play":"p","source":{"kind":"prompt","name":"en/x"}}"#;
    let with = play.replace("}}", "},\"repeat\":1}");
    let read = |json: &str| serde_json::from_str::<EndpointCommand>(json).unwrap();
    assert_eq!(read(play), read(&with));
    let stop = |json: &str| serde_json::from_str::<ConferenceCommand>(json).unwrap();
    assert_eq!(
        stop(r#"{"command":"1","verb":"stop"}"#),
        stop(r#"{"command":"1","verb":"stop","play":null}"#)
    );
}

/// A client of this version keeps working with a mixer that tells more.
#[test]
fn answers_may_grow() {
    let done: Done = serde_json::from_str(r#"{"command":"1","worker":0,"tick":1,"new":true}"#).unwrap();
    assert_eq!(done.tick, 1);
    let created = r#"{"command":"1","worker":0,"tick":1,"local":"127.0.0.1:2","ssrc":3,"new":true}"#;
    assert_eq!(serde_json::from_str::<EndpointCreated>(created).unwrap().ssrc, 3);
}

#[test]
fn kinds_of_problems() {
    for kind in ProblemKind::ALL {
        assert_eq!(
            serde_json::to_string(&kind).unwrap(),
            format!("\"{}\"", kind.name())
        );
        assert_eq!(Problem::new(kind, "").status, kind.status());
        assert!((400..600).contains(&kind.status()));
        if kind.status() == 503 {
            assert!(kind.is_retryable(), "{kind:?}");
        }
    }
}

#[test]
fn ids() {
    let long = "x".repeat(129);
    for (text, command, label) in [
        ("cmd-1.2_3:A", true, true),
        ("", false, false),
        ("a b", false, false),
        ("a@b~c%20", false, true),
        ("a/b", false, false),
        ("a\\b", false, false),
        ("a\"b", false, false),
        ("..", true, false),
        ("é", false, false),
        (&long[..64], true, true),
        (&long[..65], false, true),
        (&long[..128], false, true),
        (&long, false, false),
    ] {
        assert_eq!(
            (is_command_id(text), is_label(text)),
            (command, label),
            "{text:?}"
        );
    }
}
