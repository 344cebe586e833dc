use super::*;
use mixer_control::media::{ReceiveFormat, SendFormat};

const LOCAL: &str = "127.0.0.1";

fn media() -> Media {
    Media {
        remote: "127.0.0.1:4000".parse().unwrap(),
        direction: Direction::SendRecv,
        send: SendFormat {
            payload_type: 0,
            codec: Codec::Pcmu,
            ptime_ms: 20,
        },
        receive: vec![ReceiveFormat {
            payload_type: 0,
            codec: Codec::Pcmu,
        }],
        telephone_event: Some(101),
        source: SourcePolicy::Strict,
        srtp: None,
    }
}

fn plan(change: impl FnOnce(&mut Media)) -> Result<engine::MediaPlan, String> {
    let mut media = media();
    change(&mut media);
    media_plan(&media, LOCAL.parse().unwrap()).map_err(|problem| {
        assert_eq!(problem.kind, ProblemKind::Invalid);
        problem.detail
    })
}

#[test]
fn a_media_description_is_translated() {
    let plan = plan(|media| {
        media.direction = Direction::SendOnly;
        media.receive.push(ReceiveFormat {
            payload_type: 96,
            codec: Codec::L16,
        });
        media.source = SourcePolicy::Learn {
            allowed: vec!["10.0.0.1".parse().unwrap()],
        };
    })
    .unwrap();
    assert_eq!(
        plan.direction,
        engine::Direction {
            send: true,
            receive: false
        }
    );
    assert_eq!(
        plan.receive[..3],
        [
            Some((0, engine::Codec::Pcmu)),
            Some((96, engine::Codec::L16)),
            None
        ]
    );
    assert_eq!(
        plan.source,
        engine::SourceRule::Learn {
            allowed: [Some("10.0.0.1".parse().unwrap()), None, None, None]
        }
    );
}

#[test]
fn an_unspecified_remote_needs_no_port_and_no_family() {
    assert!(plan(|media| media.remote = "0.0.0.0:0".parse().unwrap()).is_ok());
    assert!(plan(|media| media.remote = "[::]:0".parse().unwrap()).is_ok());
}

#[test]
fn bad_media_names_the_field() {
    type Change = fn(&mut Media);
    let format = |payload_type| ReceiveFormat {
        payload_type,
        codec: Codec::Pcmu,
    };
    let cases: [(&str, Change); 12] = [
        ("media.remote", |media| {
            media.remote = "127.0.0.1:0".parse().unwrap()
        }),
        ("media.remote", |media| {
            media.remote = "224.0.0.1:4000".parse().unwrap()
        }),
        ("media.remote", |media| {
            media.remote = "255.255.255.255:4000".parse().unwrap()
        }),
        ("media.remote", |media| {
            media.remote = "[::1]:4000".parse().unwrap()
        }),
        ("media.send.payload_type", |media| media.send.payload_type = 128),
        ("media.send.payload_type", |media| media.send.payload_type = 72),
        ("media.send.ptime_ms", |media| media.send.ptime_ms = 25),
        ("media.receive", |media| media.receive.clear()),
        ("media.telephone_event", |media| media.telephone_event = Some(0)),
        ("media.telephone_event", |media| media.telephone_event = Some(200)),
        ("media.source.allowed", |media| {
            media.source = SourcePolicy::Learn { allowed: Vec::new() }
        }),
        ("media.source.allowed", |media| {
            media.source = SourcePolicy::Learn {
                allowed: vec![IpAddr::from([10, 0, 0, 1]); 5],
            };
        }),
    ];
    for (field, change) in cases {
        let detail = plan(change).expect_err(field);
        assert!(detail.starts_with(field), "{field}: {detail}");
    }
    let detail = plan(|media| media.receive = vec![format(0), format(8), format(0)]).unwrap_err();
    assert!(detail.starts_with("media.receive[2]"), "{detail}");
    assert!(plan(|media| media.receive = (0..9).map(format).collect()).is_err());
    assert!(plan(|media| media.receive = (0..8).map(format).collect()).is_ok());
}

fn command(verb: EndpointVerb) -> Call {
    Call {
        conference: "c".to_owned(),
        endpoint: "e".to_owned(),
        body: Body::EndpointCommand(EndpointCommand {
            command: "1".to_owned(),
            verb,
        }),
    }
}

fn tone(hertz: u16, attenuation_db: u8, duration_ms: u32) -> EndpointVerb {
    let source = PlaySource::Tone {
        hertz,
        attenuation_db,
        duration_ms,
    };
    EndpointVerb::Play(Play {
        play: "p".to_owned(),
        source,
        repeat: 1,
    })
}

fn names(field: &str, call: &Call) {
    let problem = call.validate().expect_err(field);
    assert_eq!(problem.kind, ProblemKind::Invalid);
    let detail = problem.detail;
    assert!(detail.starts_with(&format!("{field}:")), "{field}: {detail}");
}

#[test]
fn bad_ids_name_the_field() {
    let good = command(EndpointVerb::Mute { on: true });
    assert_eq!(good.validate(), Ok(()));
    for id in ["a b".to_owned(), "x".repeat(65), String::new()] {
        let body = Body::DeleteEndpoint(id);
        names("command", &Call { body, ..good.clone() });
    }
    for conference in ["", "..", "a\"b"] {
        let conference = conference.to_owned();
        names(
            "conference",
            &Call {
                conference,
                ..good.clone()
            },
        );
    }
    for endpoint in ["a/b".to_owned(), "x".repeat(129)] {
        names(
            "endpoint",
            &Call {
                endpoint,
                ..good.clone()
            },
        );
    }
    let (command, owner) = ("1".to_owned(), String::new());
    let body = Body::CreateConference(CreateConference {
        command,
        owner,
        talkers: None,
    });
    names("owner", &Call { body, ..good });
}

#[test]
fn bad_commands_name_the_field() {
    let prompt = |name: &str| {
        let (play, name) = ("p".to_owned(), name.to_owned());
        let source = PlaySource::Prompt { name };
        EndpointVerb::Play(Play {
            play,
            source,
            repeat: 1,
        })
    };
    let stop = EndpointVerb::Stop {
        play: Some(String::new()),
    };
    let cases = [
        ("centibel", EndpointVerb::Gain { centibel: 2001 }),
        ("centibel", EndpointVerb::Gain { centibel: -4001 }),
        ("play", stop),
        ("source.hertz", tone(19, 0, 20)),
        ("source.hertz", tone(3901, 0, 20)),
        ("source.attenuation_db", tone(440, 61, 20)),
        ("source.duration_ms", tone(440, 0, 19)),
        ("source.duration_ms", tone(440, 0, 60_001)),
        ("source.name", prompt("../etc/passwd")),
    ];
    for (field, verb) in cases {
        names(field, &command(verb));
    }
}

#[test]
fn an_unknown_prompt_is_invalid_not_missing() {
    let prompts = Prompts::synthesised();
    let source = |name: &str| {
        play_source(
            &PlaySource::Prompt {
                name: name.to_owned(),
            },
            &prompts,
        )
    };
    assert!(source("en/beep").is_ok());
    assert_eq!(source("en/none").unwrap_err().kind, ProblemKind::Invalid);
}

#[test]
fn keys_of_srtp_are_checked_and_never_named_in_a_refusal() {
    use mixer_control::srtp::{Srtp, SrtpKey, SrtpSuite};
    use mixer_engine::srtp::Suite;

    let key = |byte: u8, length| SrtpKey::of_bytes(&vec![byte; length]);
    let keys = |suite, receive_key, send_key| {
        let mut media = media();
        media.srtp = Some(Srtp {
            suite,
            receive_key,
            send_key,
        });
        srtp_keys(&media).map_err(|problem| {
            assert_eq!(problem.kind, ProblemKind::Invalid);
            problem.detail
        })
    };
    assert!(srtp_keys(&media()).unwrap().is_none());
    for (suite, length) in SrtpSuite::ALL.into_iter().zip([30, 30, 46, 28, 44]) {
        let srtp = keys(suite, key(1, length), key(2, length)).unwrap().unwrap();
        assert_eq!(format!("{:?}", srtp.send.suite()), format!("{suite:?}"));
        assert_eq!(srtp.send.suite(), srtp.receive.suite());
    }
    let suite = SrtpSuite::AesCm128HmacSha1Tag80;
    assert_eq!(
        keys(suite, key(1, 29), key(2, 30)).unwrap_err(),
        "media.srtp.receive_key: 29 bytes of key and salt, the suite has 30"
    );
    let no_base64: SrtpKey = serde_json::from_str("\"secret?\"").unwrap();
    assert_eq!(
        keys(suite, key(1, 30), no_base64).unwrap_err(),
        "media.srtp.send_key: is not base64"
    );
    assert_eq!(
        keys(suite, key(1, 30), key(1, 30)).unwrap_err(),
        "media.srtp.send_key: must differ from receive_key"
    );
    assert_eq!(Suite::ALL.len(), SrtpSuite::ALL.len());
}
