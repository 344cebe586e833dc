//! One value of everything on the link, for snapshots and for docs/control-link.md.

use mixer_control::event::{Event, EventBody};
use mixer_control::media::{Codec, Direction, Media, ReceiveFormat, SendFormat, SourcePolicy};
use mixer_control::reply::{Done, EndpointCreated, Problem, ProblemKind};
use mixer_control::request::{
    ConferenceCommand, ConferenceVerb, CreateConference, CreateEndpoint, EndpointCommand, EndpointVerb, Play,
    PlaySource, SetMedia,
};
use mixer_control::srtp::{Srtp, SrtpKey, SrtpSuite};
use mixer_control::state::{ConferenceState, EndpointState, EndpointStats, State};

fn media() -> Media {
    Media {
        remote: "192.0.2.7:4000".parse().unwrap(),
        direction: Direction::SendRecv,
        send: SendFormat {
            payload_type: 0,
            codec: Codec::Pcmu,
            ptime_ms: 20,
        },
        receive: vec![
            ReceiveFormat {
                payload_type: 0,
                codec: Codec::Pcmu,
            },
            ReceiveFormat {
                payload_type: 8,
                codec: Codec::Pcma,
            },
        ],
        telephone_event: Some(101),
        source: SourcePolicy::Strict,
        srtp: None,
    }
}

/// Keys of zeros and of ones, so that nobody uses them.
pub(crate) fn srtp() -> Srtp {
    Srtp {
        suite: SrtpSuite::AeadAes128Gcm,
        receive_key: SrtpKey::of_bytes(&[0; 28]),
        send_key: SrtpKey::of_bytes(&[1; 28]),
    }
}

pub(crate) fn create_conference() -> CreateConference {
    CreateConference {
        command: "cmd-1".to_owned(),
        owner: "signaling-1".to_owned(),
        talkers: None,
    }
}

pub(crate) fn create_endpoint() -> CreateEndpoint {
    CreateEndpoint {
        command: "cmd-2".to_owned(),
        media: Some(media()),
        trunk: false,
    }
}

pub(crate) fn create_trunk() -> CreateEndpoint {
    CreateEndpoint {
        command: "cmd-6".to_owned(),
        media: None,
        trunk: true,
    }
}

pub(crate) fn set_media() -> SetMedia {
    SetMedia {
        command: "cmd-3".to_owned(),
        media: Media {
            srtp: Some(srtp()),
            ..media()
        },
    }
}

pub(crate) fn endpoint_commands() -> Vec<EndpointCommand> {
    let prompt = PlaySource::Prompt {
        name: "en/enter".to_owned(),
    };
    [
        EndpointVerb::Mute { on: true },
        EndpointVerb::Deaf { on: true },
        EndpointVerb::Gain { centibel: -600 },
        EndpointVerb::Hold { on: true },
        EndpointVerb::Play(Play {
            play: "p1".to_owned(),
            source: prompt,
            repeat: 1,
        }),
        EndpointVerb::Stop {
            play: Some("p1".to_owned()),
        },
    ]
    .into_iter()
    .map(|verb| EndpointCommand {
        command: "cmd-4".to_owned(),
        verb,
    })
    .collect()
}

pub(crate) fn conference_commands() -> Vec<ConferenceCommand> {
    let tone = PlaySource::Tone {
        hertz: 440,
        attenuation_db: 12,
        duration_ms: 500,
    };
    [
        ConferenceVerb::Lock { on: true },
        ConferenceVerb::Play(Play {
            play: "p2".to_owned(),
            source: tone,
            repeat: 1,
        }),
        ConferenceVerb::Stop { play: None },
    ]
    .into_iter()
    .map(|verb| ConferenceCommand {
        command: "cmd-5".to_owned(),
        verb,
    })
    .collect()
}

pub(crate) fn done() -> Done {
    Done {
        command: "cmd-1".to_owned(),
        worker: 0,
        tick: 81_234,
    }
}

pub(crate) fn endpoint_created() -> EndpointCreated {
    EndpointCreated {
        done: Done {
            command: "cmd-2".to_owned(),
            worker: 0,
            tick: 81_240,
        },
        local: "192.0.2.1:20480".parse().unwrap(),
        ssrc: 2_018_051_091,
    }
}

pub(crate) fn problem() -> Problem {
    Problem::new(ProblemKind::NoPorts, "no RTP port is free; widen io.ports").retry_after(30)
}

pub(crate) fn events() -> Vec<Event> {
    let bodies = [
        ("ep-1", EventBody::Active),
        ("ep-1", EventBody::Talk { talking: true }),
        (
            "ep-1",
            EventBody::Digit {
                digit: '#',
                duration_ms: 120,
            },
        ),
        (
            "",
            EventBody::Played {
                play: "p2".to_owned(),
                complete: true,
            },
        ),
        ("ep-1", EventBody::MediaTimeout),
        (
            "ep-1",
            EventBody::SourceLearnt {
                source: "192.0.2.7:4002".parse().unwrap(),
            },
        ),
        ("", EventBody::ConferenceFailed),
        ("", EventBody::Gap),
    ];
    (1..)
        .zip(bodies)
        .map(|(seq, (endpoint, body))| {
            let conference = if body == EventBody::Gap { "" } else { "conf-7" };
            Event {
                seq,
                conference: conference.to_owned(),
                endpoint: endpoint.to_owned(),
                body,
            }
        })
        .collect()
}

pub(crate) fn state() -> State {
    let stats = EndpointStats {
        received: 1500,
        sent: 1502,
        concealed: 3,
        late: 1,
        duplicate: 0,
        lost: 2,
        bad_source: 0,
        playout_delay_us: 21_500,
    };
    let endpoint = EndpointState {
        mixed: true,
        endpoint: "ep-1".to_owned(),
        local: "192.0.2.1:20480".parse().unwrap(),
        ssrc: 2_018_051_091,
        media: Some(media()),
        srtp: Some(SrtpSuite::AeadAes128Gcm),
        trunk: false,
        muted: false,
        deaf: false,
        held: false,
        gain_centibel: 0,
        active: true,
        talking: false,
        stats,
    };
    let conference = ConferenceState {
        talkers: Some(4),
        conference: "conf-7".to_owned(),
        owner: "signaling-1".to_owned(),
        worker: 0,
        locked: false,
        endpoints: vec![endpoint],
    };
    State {
        instance: "1601af36aa3064303b2d11644a73f75d".to_owned(),
        event_seq: 42,
        conferences: vec![conference],
    }
}
