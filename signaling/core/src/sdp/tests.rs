//! Offer/answer cases, each named after the media rule it holds.

mod bodies;
mod crypto;
mod random;
mod session;

use std::net::SocketAddr;

use crate::effect::Codec;
use crate::srtp::{KeySeed, KeySource, SrtpPolicy};

use super::*;

const LOCAL: &str = "198.51.100.7:20000";

fn local() -> SocketAddr {
    LOCAL.parse().unwrap()
}

/// A description around `rest`, with a session-level address.
fn body(rest: &[&str]) -> String {
    let mut text = "v=0\r\no=- 10 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n".to_owned();
    for line in rest {
        text.push_str(line);
        text.push_str("\r\n");
    }
    text
}

fn parsed(text: &str) -> Description {
    Description::parse(text.as_bytes()).unwrap()
}

/// Decides as for a peer with whom SRTP is possible.
fn plan(offer: &Offer, occasion: Occasion) -> Result<Plan, Refusal> {
    let mut keys = KeySource::new(&KeySeed([1; 32]));
    super::plan(offer, occasion, &mut security(SrtpPolicy::Offer, &mut keys))
}

fn security(policy: SrtpPolicy, keys: &mut KeySource) -> Security<'_> {
    Security {
        policy,
        keys,
        current: None,
    }
}

/// An offer without SRTP.
fn plain_offer(session: &mut LocalSession) -> String {
    let mut keys = KeySource::new(&KeySeed([1; 32]));
    session.offer(local(), &mut security(SrtpPolicy::Off, &mut keys))
}

fn planned(rest: &[&str], occasion: Occasion) -> Plan {
    plan(&parsed(&body(rest)), occasion).unwrap()
}

fn first(rest: &[&str]) -> Plan {
    planned(rest, Occasion::First)
}

fn refused(rest: &[&str]) -> (u16, u16) {
    let refusal = plan(&parsed(&body(rest)), Occasion::First).unwrap_err();
    (refusal.status, refusal.warning)
}

fn answered(plan: &Plan) -> String {
    LocalSession::new(99).answer(plan, local())
}

fn has(text: &str, line: &str) -> bool {
    text.split("\r\n").any(|other| other == line)
}

fn m_lines(text: &str) -> Vec<&str> {
    text.split("\r\n").filter(|line| line.starts_with("m=")).collect()
}

/// (we send, we mix, direction answered, held) for a later offer.
fn hold(rest: &[&str]) -> (bool, bool, &'static str, bool) {
    let plan = planned(rest, Occasion::Again);
    let text = answered(&plan);
    let direction = parsed(&text).lines[0].direction;
    assert_eq!(
        direction, plan.agreed.direction,
        "the text says what the plan says"
    );
    (
        plan.agreed.description.send,
        plan.agreed.description.receive,
        direction.as_str(),
        plan.agreed.held,
    )
}

const AUDIO: &str = "m=audio 4000 RTP/AVP 0 8 101";
const EVENTS: &str = "a=rtpmap:101 telephone-event/8000";

#[test]
fn an_answer_from_first_to_last_byte() {
    let plan = first(&[AUDIO, EVENTS, "a=fmtp:101 0-16", "a=ptime:30"]);
    assert_eq!(
        answered(&plan),
        "v=0\r\no=mixminus 99 1 IN IP4 198.51.100.7\r\ns=-\r\nc=IN IP4 198.51.100.7\r\nt=0 0\r\n\
         m=audio 20000 RTP/AVP 0 8 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\n\
         a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=ptime:30\r\na=sendrecv\r\n"
    );
    let description = &plan.agreed.description;
    assert_eq!(description.remote, "192.0.2.1:4000".parse().unwrap());
    assert_eq!(
        (description.codec, description.payload_type, description.ptime_ms),
        (Codec::Pcmu, 0, 30)
    );
    assert_eq!(description.receive_formats, [(0, Codec::Pcmu), (8, Codec::Pcma)]);
    assert_eq!(description.telephone_event, Some(101));
    assert!(description.send && description.receive && !plan.agreed.held);
}

#[test]
fn m_30_static_numbers_need_no_rtpmap_and_dynamic_ones_are_repeated() {
    let plan = first(&[AUDIO]);
    assert_eq!(
        plan.agreed.description.telephone_event, None,
        "101 means nothing without rtpmap"
    );
    let plan = first(&[
        "m=audio 4000 RTP/AVP 118 97 98",
        "a=rtpmap:118 L16/8000/1",
        "a=rtpmap:97 pcma/8000",
        "a=rtpmap:98 Telephone-Event/8000",
    ]);
    let description = &plan.agreed.description;
    assert_eq!((description.payload_type, description.codec), (118, Codec::L16));
    assert_eq!(
        description.receive_formats,
        [(118, Codec::L16), (97, Codec::Pcma)]
    );
    assert_eq!(description.telephone_event, Some(98));
    assert_eq!(m_lines(&answered(&plan)), ["m=audio 20000 RTP/AVP 118 97 98"]);
}

#[test]
fn m_30_a_static_number_with_another_meaning_is_believed() {
    let plan = first(&["m=audio 4000 RTP/AVP 0 8", "a=rtpmap:0 MPEG4-GENERIC/16000/2"]);
    assert_eq!(plan.agreed.description.receive_formats, [(8, Codec::Pcma)]);
}

#[test]
fn m_30_of_two_numbers_for_one_codec_the_first_is_taken() {
    let plan = first(&[
        "m=audio 4000 RTP/AVP 97 0 8 98",
        "a=rtpmap:97 PCMU/8000",
        "a=rtpmap:98 PCMA/8000",
    ]);
    assert_eq!(
        plan.agreed.description.receive_formats,
        [(97, Codec::Pcmu), (8, Codec::Pcma)]
    );
    assert_eq!(m_lines(&answered(&plan)), ["m=audio 20000 RTP/AVP 97 8"]);
}

#[test]
fn m_31_packet_time_is_the_peers_within_its_limit() {
    let ptime = |rest: &[&str]| first(&[&[AUDIO], rest].concat()).agreed.description.ptime_ms;
    assert_eq!(ptime(&[]), 20);
    for asked in [10, 20, 30, 40, 60] {
        assert_eq!(ptime(&[&format!("a=ptime:{asked}")]), asked);
    }
    for odd in [
        "a=ptime:25",
        "a=ptime:0",
        "a=ptime:120",
        "a=ptime:x",
        "a=ptime",
        "a=ptime:99999999999",
    ] {
        assert_eq!(ptime(&[odd]), 20, "{odd}");
    }
    assert_eq!(ptime(&["a=ptime:30.0"]), 30);
    assert_eq!(ptime(&["a=ptime:60", "a=maxptime:40"]), 20);
    assert_eq!(ptime(&["a=maxptime:15"]), 10);
    assert_eq!(ptime(&["a=ptime:20", "a=maxptime:150"]), 20);
    assert_eq!(ptime(&["a=maxptime:0"]), 20, "nonsense means nothing");
    assert_eq!(refused(&[AUDIO, "a=maxptime:5"]), (488, 305));
}

#[test]
fn m_44_events_have_the_clock_of_the_audio() {
    let plan = first(&[
        "m=audio 4000 RTP/AVP 100 8 101",
        "a=rtpmap:100 telephone-event/48000",
        EVENTS,
        "a=fmtp:101 0-15,66",
    ]);
    assert_eq!(plan.agreed.description.telephone_event, Some(101));
    let text = answered(&plan);
    assert!(has(&text, "a=fmtp:101 0-15") && !text.contains("48000"), "{text}");
}

#[test]
fn m_60_sendonly_is_a_hold_later_and_a_source_at_first() {
    assert_eq!(hold(&[AUDIO, "a=sendonly"]), (false, false, "recvonly", true));
    let source = first(&[AUDIO, "a=sendonly"]).agreed;
    assert_eq!(
        (source.description.send, source.description.receive, source.held),
        (false, true, false)
    );
    assert_eq!(source.direction, Direction::RecvOnly);
}

#[test]
fn m_61_inactive() {
    assert_eq!(hold(&[AUDIO, "a=inactive"]), (false, false, "inactive", true));
}

#[test]
fn m_62_zero_address_hold() {
    let zero = ["m=audio 4000 RTP/AVP 0", "c=IN IP4 0.0.0.0"];
    assert_eq!(hold(&zero), (false, false, "sendrecv", true), "not mirrored");
    assert_eq!(
        hold(&[&zero[..], &["a=sendonly"]].concat()),
        (false, false, "recvonly", true)
    );
    let agreed = planned(&zero, Occasion::Again).agreed;
    assert!(agreed.description.remote.ip().is_unspecified());
    assert_eq!(agreed.remote_rtcp, None, "neither RTP nor RTCP");
    for other in ["c=IN IP6 ::", "c=IN IP6 2001db8.ipv6.invalid"] {
        assert!(planned(&[AUDIO, other], Occasion::Again).agreed.held, "{other}");
    }
}

#[test]
fn m_62_zero_address_in_a_first_offer_waits_for_a_better_one() {
    let agreed = first(&[AUDIO, "c=IN IP4 0.0.0.0"]).agreed;
    assert_eq!(
        (agreed.description.send, agreed.description.receive, agreed.held),
        (false, true, false)
    );
}

#[test]
fn m_63_recvonly_peer_hears_and_is_not_mixed() {
    for occasion in [Occasion::First, Occasion::Again] {
        let agreed = planned(&[AUDIO, "a=recvonly"], occasion).agreed;
        assert_eq!(
            (agreed.description.send, agreed.description.receive, agreed.held),
            (true, false, false)
        );
        assert_eq!(agreed.direction, Direction::SendOnly);
    }
}

#[test]
fn m_64_a_hold_is_not_mirrored() {
    for spelling in ["a=sendonly", "c=IN IP4 0.0.0.0", "a=inactive"] {
        let text = answered(&planned(&[AUDIO, spelling], Occasion::Again));
        assert!(!has(&text, "a=sendonly") && !text.contains("0.0.0.0"), "{text}");
        assert_eq!(
            m_lines(&text)[0].split(' ').nth(1),
            Some("20000"),
            "the port stays"
        );
    }
}

#[test]
fn m_69_fax_instead_of_audio_is_refused_so_that_audio_goes_on() {
    for rest in [
        &["m=audio 0 RTP/AVP 0", "m=image 4000 udptl t38"][..],
        &["m=image 4000 udptl t38"],
    ] {
        let refusal = plan(&parsed(&body(rest)), Occasion::Again).unwrap_err();
        assert_eq!((refusal.status, refusal.warning), (488, 304));
    }
}

#[test]
fn m_70_no_common_codec_or_no_audio() {
    assert_eq!(refused(&["m=audio 4000 RTP/AVP 18 3 101", EVENTS]), (488, 305));
    assert_eq!(refused(&["m=audio 4000 RTP/AVP 101", EVENTS]), (488, 305));
    assert_eq!(
        refused(&["m=audio 4000 RTP/AVP 98", "a=rtpmap:98 L16/16000"]),
        (488, 305)
    );
    assert_eq!(refused(&["m=video 4000 RTP/AVP 31"]), (488, 304));
    assert_eq!(refused(&[]), (488, 304));
    let refusal = plan(&parsed(&body(&["m=audio 4000 RTP/AVP 18"])), Occasion::First).unwrap_err();
    let warning = refusal.warning_value("bridge.example");
    assert_eq!(
        warning,
        "305 bridge.example \"no common codec; here PCMU PCMA L16/8000, there G729\""
    );
}

#[test]
fn transports_without_a_common_ground_are_refused_as_such() {
    for transport in ["UDP/TLS/RTP/SAVP", "UDP/TLS/RTP/SAVPF", "TCP/RTP/AVP", "udp"] {
        assert_eq!(
            refused(&[&format!("m=audio 4000 {transport} 0")]),
            (488, 302),
            "{transport}"
        );
    }
    let text = answered(&first(&["m=audio 4000 RTP/AVPF 0", "a=rtcp-fb:* trr-int 1000"]));
    assert_eq!(m_lines(&text), ["m=audio 20000 RTP/AVPF 0"]);
    assert!(!text.contains("rtcp-fb"));
}

#[test]
fn m_76_media_level_wins_over_session_level() {
    let text = "v=0\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\na=inactive\r\na=ptime:40\r\nb=AS:10\r\n\
                m=audio 4000 RTP/AVP 0\r\nc=IN IP4 192.0.2.2\r\na=sendrecv\r\na=ptime:10\r\nb=AS:20\r\n\
                m=audio 4002 RTP/AVP 0\r\n";
    let offer = parsed(text);
    let line = |index: usize| {
        let line = &offer.lines[index];
        (
            line.connection.clone().unwrap(),
            line.direction,
            line.ptime_ms,
            line.bandwidth.as_kbit,
        )
    };
    let address = |text: &str| Connection::Address(text.parse().unwrap());
    assert_eq!(
        line(0),
        (address("192.0.2.2"), Direction::SendRecv, Some(10), Some(20))
    );
    assert_eq!(
        line(1),
        (address("192.0.2.1"), Direction::Inactive, Some(40), Some(10))
    );
}

#[test]
fn m_77_ipv6_rtcp_and_names() {
    let six = first(&[
        "m=audio 4000 RTP/AVP 0",
        "c=IN IP6 2001:db8::9",
        "a=rtcp:4711 IN IP6 2001:db8::a",
    ])
    .agreed;
    assert_eq!(six.description.remote, "[2001:db8::9]:4000".parse().unwrap());
    assert_eq!(six.remote_rtcp, Some("[2001:db8::a]:4711".parse().unwrap()));
    assert!(six.reachable_from("2001:db8::1".parse().unwrap()).is_ok());
    assert_eq!(six.reachable_from(local().ip()).unwrap_err().warning, 301);
    let text = LocalSession::new(1).answer(&first(&[AUDIO]), "[2001:db8::1]:20000".parse().unwrap());
    assert!(has(&text, "c=IN IP6 2001:db8::1") && text.contains("\r\no=mixminus 1 1 IN IP6 2001:db8::1\r\n"));

    assert_eq!(
        first(&[AUDIO]).agreed.remote_rtcp,
        Some("192.0.2.1:4001".parse().unwrap())
    );
    assert_eq!(
        first(&[AUDIO, "a=rtcp:53020"]).agreed.remote_rtcp,
        Some("192.0.2.1:53020".parse().unwrap())
    );
    assert_eq!(first(&["m=audio 65535 RTP/AVP 0"]).agreed.remote_rtcp, None);

    let name = plan(
        &parsed(&body(&[AUDIO, "c=IN IP4 media.\"ex\\ample.com"])),
        Occasion::First,
    )
    .unwrap_err();
    assert_eq!((name.status, name.warning), (488, 301));
    assert_eq!(
        name.text,
        "host name media.example.com in c= is not resolved here, an IP address is needed"
    );
    assert_eq!(refused(&[AUDIO, "c=IN IP4 224.2.1.1/127"]), (488, 330));
    assert_eq!(refused(&[AUDIO, "c=ATM NSAP 47.0091"]), (488, 300));
    let missing = parsed("v=0\r\nm=audio 4000 RTP/AVP 0\r\n");
    assert_eq!(plan(&missing, Occasion::First).unwrap_err().warning, 301);
}

#[test]
fn m_78_line_ends_of_every_kind() {
    let good = body(&[AUDIO, EVENTS, "a=ptime:30"]);
    let expected = first(&[AUDIO, EVENTS, "a=ptime:30"]);
    for text in [
        good.replace("\r\n", "\n"),
        good.replace("\r\n", "\r"),
        good.replace("\r\n", "\r\r\n"),
        good.trim_end().to_owned(),
        format!("\r\n{good}\r\n\r\n"),
        good.replace("s=-\r\n", ""),
        good.replace("t=0 0\r\n", ""),
        good.replace("o=- 10 1 IN IP4 192.0.2.1\r\n", ""),
        good.replace("o=- 10 1 ", "o=- 10 99999999999999999999999 "),
        good.replace("t=0 0", "t=0"),
        good.replace("AVP 0 8 101", "AVP  0  8 101 "),
        good.replace("c=IN IP4 ", "c=IN  IP4  "),
        format!("{good}a=\r\nnonsense\r\nz=\r\nb=AS:64.5\r\nb=\r\nx-y=z\r\n\0"),
    ] {
        assert_eq!(
            plan(&parsed(&text), Occasion::First).as_ref(),
            Ok(&expected),
            "{text:?}"
        );
    }
}

#[test]
fn m_80_bandwidth_lines_are_read_and_can_switch_rtcp_off() {
    let lines = ["b=AS:64", "b=TIAS:64000", "b=RS:0", "b=RR:0", "b=X-ODD:1"];
    let rest = [&[AUDIO], &lines[..]].concat();
    let bandwidth = parsed(&body(&rest)).lines[0].bandwidth;
    assert_eq!((bandwidth.as_kbit, bandwidth.tias_bit), (Some(64), Some(64000)));
    assert_eq!(first(&rest).agreed.remote_rtcp, None);
    assert!(first(&[AUDIO, "b=RS:0", "b=RR:800"]).agreed.remote_rtcp.is_some());
    assert!(!answered(&first(&rest)).contains("b="));
}

#[test]
fn the_time_line_is_repeated() {
    // RFC 3264 6: the t= line of the answer equals that of the offer.
    let text = body(&[AUDIO]).replace("t=0 0", "t=2873397496 2873404696");
    let plan = plan(&parsed(&text), Occasion::First).unwrap();
    assert!(has(&answered(&plan), "t=2873397496 2873404696"));
}

#[test]
fn what_is_not_asked_for_is_not_answered() {
    let text = answered(&first(&[
        "a=group:BUNDLE 0",
        AUDIO,
        "a=mid:0",
        "a=rtcp-mux",
        "a=ice-ufrag:x",
        "a=candidate:1 1 UDP 1 192.0.2.1 4000 typ host",
        "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:x",
    ]));
    for word in ["group", "mid", "rtcp-mux", "ice", "candidate", "crypto"] {
        assert!(!text.contains(word), "{word} in {text}");
    }
}

#[test]
fn limits_and_rubbish_have_their_own_refusals() {
    let status = |bytes: &[u8]| Refusal::from(Description::parse(bytes).unwrap_err()).status;
    let long = body(&[AUDIO, &format!("a=x:{}", "y".repeat(9000))]);
    assert_eq!(status(long.as_bytes()), 413);
    assert_eq!(status(body(&[AUDIO; 33]).as_bytes()), 488);
    assert!(Description::parse(body(&[AUDIO; 32]).as_bytes()).is_ok());
    for rubbish in [
        "",
        "hello",
        "v=1\r\n",
        "<xml/>",
        "v=0\r\nm=audio\r\n",
        "v=0\r\nm=audio x RTP/AVP 0\r\n",
    ] {
        assert_eq!(status(rubbish.as_bytes()), 400, "{rubbish:?}");
    }
    let error = Description::parse("v=0\r\nm=audio \"\u{7}ä RTP/AVP 0\r\n".as_bytes()).unwrap_err();
    let text = Refusal::from(error).text;
    assert!(
        text.bytes()
            .all(|byte| (b' '..=b'~').contains(&byte) && byte != b'"'),
        "{text}"
    );
}
