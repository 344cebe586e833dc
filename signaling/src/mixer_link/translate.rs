//! The core's words and the control link's words for the same things.

use mixer_control::event::{Event, EventBody};
use mixer_control::media as link;
use mixer_control::reply::{Problem, ProblemKind};
use mixer_control::request::{
    ConferenceCommand, ConferenceVerb, CreateConference, CreateEndpoint, EndpointCommand, EndpointVerb,
    SetMedia,
};
use mixer_control::srtp as link_srtp;
use reqwest::Method;
use signaling_core::effect::{Codec, MediaDescription, MixerRequest};
use signaling_core::input::{MixerEvent, MixerEventKind, MixerRefusal, MixerReply};
use signaling_core::srtp::{Srtp, SrtpSuite};

/// An HTTP request of the control link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HttpRequest {
    pub(super) method: Method,
    /// Path and query behind the base URL.
    pub(super) path: String,
    pub(super) body: Option<String>,
    /// Whether the answer is an `EndpointCreated`.
    pub(super) creates_endpoint: bool,
}

/// A request in the words of the link.
pub(super) fn http_request(
    command: &str,
    owner: &str,
    request: &MixerRequest,
) -> Result<HttpRequest, serde_json::Error> {
    let method = match request {
        MixerRequest::CreateConference { .. }
        | MixerRequest::CreateEndpoint { .. }
        | MixerRequest::SetMedia { .. } => Method::PUT,
        MixerRequest::Lock { .. } | MixerRequest::Mute { .. } => Method::POST,
        MixerRequest::RemoveConference { .. } | MixerRequest::RemoveEndpoint { .. } => Method::DELETE,
    };
    Ok(HttpRequest {
        method,
        path: path_of(command, request),
        body: body_of(command, owner, request)?,
        creates_endpoint: matches!(request, MixerRequest::CreateEndpoint { .. }),
    })
}

/// What the request is about; a removal has no body and names its command in the query.
fn path_of(command: &str, request: &MixerRequest) -> String {
    match request {
        MixerRequest::CreateConference { conference, .. } => conference_path(conference),
        MixerRequest::RemoveConference { conference } => {
            format!("{}?command={}", conference_path(conference), encode(command))
        }
        MixerRequest::Lock { conference, .. } => conference_path(conference) + "/commands",
        MixerRequest::CreateEndpoint {
            conference, endpoint, ..
        } => endpoint_path(conference, endpoint),
        MixerRequest::SetMedia {
            conference, endpoint, ..
        } => endpoint_path(conference, endpoint) + "/media",
        MixerRequest::Mute {
            conference, endpoint, ..
        } => endpoint_path(conference, endpoint) + "/commands",
        MixerRequest::RemoveEndpoint { conference, endpoint } => {
            let path = endpoint_path(conference, endpoint);
            format!("{path}?command={}", encode(command))
        }
    }
}

/// What the request says; `None` for a removal.
fn body_of(command: &str, owner: &str, request: &MixerRequest) -> Result<Option<String>, serde_json::Error> {
    let command = command.to_owned();
    let body = match request {
        MixerRequest::CreateConference { talkers, .. } => serde_json::to_string(&CreateConference {
            command,
            owner: owner.to_owned(),
            talkers: *talkers,
        }),
        MixerRequest::Lock { on, .. } => serde_json::to_string(&ConferenceCommand {
            command,
            verb: ConferenceVerb::Lock { on: *on },
        }),
        MixerRequest::CreateEndpoint { media, .. } => serde_json::to_string(&CreateEndpoint {
            command,
            media: media.as_ref().map(media_of),
            trunk: false,
        }),
        MixerRequest::SetMedia { media, .. } => serde_json::to_string(&SetMedia {
            command,
            media: media_of(media),
        }),
        MixerRequest::Mute { on, .. } => serde_json::to_string(&EndpointCommand {
            command,
            verb: EndpointVerb::Mute { on: *on },
        }),
        MixerRequest::RemoveConference { .. } | MixerRequest::RemoveEndpoint { .. } => return Ok(None),
    };
    body.map(Some)
}

fn conference_path(conference: &str) -> String {
    format!("/v1/conferences/{}", encode(conference))
}

fn endpoint_path(conference: &str, endpoint: &str) -> String {
    format!("{}/endpoints/{}", conference_path(conference), encode(endpoint))
}

/// One path segment or query value.
fn encode(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

fn codec_of(codec: Codec) -> link::Codec {
    match codec {
        Codec::Pcmu => link::Codec::Pcmu,
        Codec::Pcma => link::Codec::Pcma,
        Codec::L16 => link::Codec::L16,
    }
}

fn srtp_of(keys: &Srtp) -> link_srtp::Srtp {
    link_srtp::Srtp {
        suite: match keys.suite {
            SrtpSuite::AesCm128HmacSha1Tag80 => link_srtp::SrtpSuite::AesCm128HmacSha1Tag80,
            SrtpSuite::AesCm128HmacSha1Tag32 => link_srtp::SrtpSuite::AesCm128HmacSha1Tag32,
            SrtpSuite::AesCm256HmacSha1Tag80 => link_srtp::SrtpSuite::AesCm256HmacSha1Tag80,
            SrtpSuite::AeadAes128Gcm => link_srtp::SrtpSuite::AeadAes128Gcm,
            SrtpSuite::AeadAes256Gcm => link_srtp::SrtpSuite::AeadAes256Gcm,
        },
        receive_key: link_srtp::SrtpKey::of_bytes(keys.receive.bytes()),
        send_key: link_srtp::SrtpKey::of_bytes(keys.send.bytes()),
    }
}

fn media_of(media: &MediaDescription) -> link::Media {
    let direction = match (media.send, media.receive) {
        (true, true) => link::Direction::SendRecv,
        (true, false) => link::Direction::SendOnly,
        (false, true) => link::Direction::RecvOnly,
        (false, false) => link::Direction::Inactive,
    };
    let format = |(payload_type, codec): &(u8, Codec)| link::ReceiveFormat {
        payload_type: *payload_type,
        codec: codec_of(*codec),
    };
    link::Media {
        remote: media.remote,
        direction,
        send: link::SendFormat {
            payload_type: media.payload_type,
            codec: codec_of(media.codec),
            ptime_ms: media.ptime_ms,
        },
        receive: media.receive_formats.iter().map(format).collect(),
        telephone_event: media.telephone_event,
        source: if media.learn_from.is_empty() {
            link::SourcePolicy::Strict
        } else {
            link::SourcePolicy::Learn {
                allowed: media.learn_from.clone(),
            }
        },
        srtp: media.srtp.as_ref().map(srtp_of),
    }
}

/// A problem document in the words of the core.
pub(super) fn refusal(problem: &Problem) -> MixerReply {
    let reason = match problem.kind {
        ProblemKind::NotFound => MixerRefusal::NotFound,
        ProblemKind::Locked => MixerRefusal::Locked,
        ProblemKind::NoHeadroom | ProblemKind::NoPorts | ProblemKind::Busy => MixerRefusal::Overloaded,
        ProblemKind::Timeout => MixerRefusal::Unreachable,
        ProblemKind::Invalid | ProblemKind::Conflict | ProblemKind::Internal => MixerRefusal::Failed,
    };
    MixerReply::Refused {
        reason,
        detail: printable(&problem.detail),
        retry_after_s: problem.retry_after_s,
    }
}

/// One line without control characters, for logs.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .take(300)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// An event in the words of the core; `None` for what it does not need.
pub(super) fn event_of(mixer: &str, event: Event) -> Option<MixerEvent> {
    let kind = match event.body {
        EventBody::Active => MixerEventKind::Active,
        EventBody::Talk { talking } => MixerEventKind::Talk { talking },
        EventBody::Digit { digit, duration_ms } => MixerEventKind::Digit { digit, duration_ms },
        EventBody::MediaTimeout => MixerEventKind::MediaTimeout,
        EventBody::ConferenceFailed => MixerEventKind::ConferenceFailed,
        EventBody::Played { .. } | EventBody::SourceLearnt { .. } | EventBody::Gap => return None,
    };
    Some(MixerEvent {
        mixer: mixer.to_owned(),
        conference: event.conference,
        endpoint: event.endpoint,
        kind,
    })
}

#[cfg(test)]
mod tests {
    use signaling_core::srtp::SrtpKey;

    use super::*;

    fn media() -> MediaDescription {
        MediaDescription {
            remote: "192.0.2.1:4000".parse().unwrap(),
            send: true,
            receive: false,
            codec: Codec::Pcma,
            payload_type: 8,
            ptime_ms: 20,
            receive_formats: vec![(8, Codec::Pcma), (0, Codec::Pcmu)],
            telephone_event: Some(101),
            learn_from: vec!["192.0.2.1".parse().unwrap()],
            srtp: Some(Srtp {
                suite: SrtpSuite::AesCm256HmacSha1Tag80,
                receive: SrtpKey::of_base64(&format!("{}AQ", "AQID".repeat(15)), 46).unwrap(),
                send: SrtpKey::of_base64(&format!("{}BA", "BAUG".repeat(15)), 46).unwrap(),
            }),
        }
    }

    #[test]
    fn requests_take_the_form_of_the_link() {
        let conference = "a/b c".to_owned();
        let endpoint = "e1".to_owned();
        let request = MixerRequest::SetMedia {
            conference,
            endpoint,
            media: media(),
        };
        let http = http_request("n-1-2", "node", &request).unwrap();
        assert_eq!(
            (http.method, http.path.as_str()),
            (Method::PUT, "/v1/conferences/a%2Fb%20c/endpoints/e1/media")
        );
        let body: SetMedia = serde_json::from_str(&http.body.unwrap()).unwrap();
        assert_eq!(body.command, "n-1-2");
        assert_eq!(body.media.direction, link::Direction::SendOnly);
        assert_eq!(body.media.receive.len(), 2);
        assert_eq!(
            body.media.source,
            link::SourcePolicy::Learn {
                allowed: vec!["192.0.2.1".parse().unwrap()]
            }
        );
        let srtp = body.media.srtp.unwrap();
        assert_eq!(srtp.suite, link_srtp::SrtpSuite::AesCm256HmacSha1Tag80);
        assert_eq!(srtp.receive_key.bytes().unwrap()[..4], [1, 2, 3, 1]);
        assert_eq!(srtp.send_key.bytes().unwrap()[..4], [4, 5, 6, 4]);
        let request = MixerRequest::RemoveConference {
            conference: "x".to_owned(),
        };
        let http = http_request("n-1-3", "node", &request).unwrap();
        assert_eq!(
            (http.method, http.path.as_str(), http.body),
            (Method::DELETE, "/v1/conferences/x?command=n-1-3", None)
        );
    }

    #[test]
    fn every_problem_has_a_reason() {
        let table = [
            (ProblemKind::NotFound, MixerRefusal::NotFound),
            (ProblemKind::Locked, MixerRefusal::Locked),
            (ProblemKind::NoPorts, MixerRefusal::Overloaded),
            (ProblemKind::NoHeadroom, MixerRefusal::Overloaded),
            (ProblemKind::Busy, MixerRefusal::Overloaded),
            (ProblemKind::Timeout, MixerRefusal::Unreachable),
            (ProblemKind::Invalid, MixerRefusal::Failed),
            (ProblemKind::Conflict, MixerRefusal::Failed),
            (ProblemKind::Internal, MixerRefusal::Failed),
        ];
        for (kind, expected) in table {
            let problem = Problem {
                kind,
                status: kind.status(),
                detail: "a\nb".to_owned(),
                retry_after_s: Some(3),
            };
            let MixerReply::Refused {
                reason,
                detail,
                retry_after_s,
            } = refusal(&problem)
            else {
                panic!("{kind:?}")
            };
            assert_eq!(
                (reason, detail.as_str(), retry_after_s),
                (expected, "a b", Some(3)),
                "{kind:?}"
            );
        }
    }
}
