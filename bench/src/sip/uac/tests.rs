use super::*;

const SECOND: u64 = 1_000_000_000;

fn at(ms: u64) -> Timestamp {
    Timestamp(SECOND + ms * 1_000_000)
}

fn uac(transport: Transport) -> Uac {
    let ends = Ends {
        local: "127.0.0.1:40000".parse().unwrap(),
        target: "127.0.0.1:5060".parse().unwrap(),
        transport,
    };
    Uac::new(ends, Law::Pcmu, Seed::new(7))
}

fn called(transport: Transport) -> (Uac, Request) {
    let mut uac = uac(transport);
    uac.invite(at(0), 4, "conf-bench-1", "127.0.0.1:6000".parse().unwrap(), None);
    let request = sent(&mut uac);
    (uac, request)
}

fn sent(uac: &mut Uac) -> Request {
    let bytes = uac.poll_send().expect("something to send");
    Request::try_from(bytes.as_slice()).expect("a request")
}

fn answer(request: &Request, status: &str, sdp: &str) -> Vec<u8> {
    let via = request.via_header().unwrap();
    let (from, call_id) = (request.from_header().unwrap(), request.call_id_header().unwrap());
    let (to, cseq) = (
        request.to_header().unwrap().value(),
        request.cseq_header().unwrap(),
    );
    let to = if to.contains("tag=") {
        to.to_owned()
    } else {
        format!("{to};tag=srv")
    };
    let length = sdp.len();
    format!(
        "SIP/2.0 {status}\r\n{via}\r\n{from}\r\nTo: {to}\r\n{call_id}\r\n{cseq}\r\n\
         Contact: <sip:conf-bench-1@127.0.0.1:5060>;isfocus\r\nContent-Length: {length}\r\n\r\n{sdp}"
    )
    .into_bytes()
}

const SDP: &str = "v=0\r\nc=IN IP4 127.0.0.1\r\nm=audio 10000 RTP/AVP 0\r\n";

#[test]
fn a_call_comes_up_is_acknowledged_and_hangs_up() {
    let (mut uac, invite) = called(Transport::Udp);
    uac.handle(at(1), &answer(&invite, "100 Trying", ""));
    uac.handle(at(2), &answer(&invite, "180 Ringing", ""));
    uac.handle_timeout(at(1_500));
    assert!(uac.poll_send().is_none(), "a provisional answer stops timer A");
    uac.handle(at(2_000), &answer(&invite, "200 OK", SDP));
    let ack = sent(&mut uac);
    assert_eq!(ack.method, Method::Ack);
    assert_eq!(ack.cseq_header().unwrap().typed().unwrap().seq, 1);
    assert_ne!(
        ack.via_header().unwrap(),
        invite.via_header().unwrap(),
        "a new transaction"
    );
    let up = Happening::Answered {
        leg: 4,
        media: "127.0.0.1:10000".parse().unwrap(),
        setup: Duration::from_millis(2_000),
        crypto: None,
    };
    assert_eq!(uac.poll_happening(), Some(up));
    uac.handle(at(2_500), &answer(&invite, "200 OK", SDP));
    assert_eq!(sent(&mut uac), ack, "a repeated 200 gets the same ACK");
    uac.bye(at(3_000), 4);
    let bye = sent(&mut uac);
    assert_eq!(
        (bye.method, bye.cseq_header().unwrap().typed().unwrap().seq),
        (Method::Bye, 2)
    );
    uac.handle(at(3_001), &answer(&bye, "200 OK", ""));
    assert_eq!(uac.poll_happening(), Some(Happening::Closed { leg: 4 }));
    assert_eq!(uac.open(), 0);
}

#[test]
fn timer_a_doubles_on_udp_and_timer_b_ends_it() {
    let (mut uac, invite) = called(Transport::Udp);
    let mut times = Vec::new();
    for ms in 1..33_000 {
        uac.handle_timeout(at(ms));
        while let Some(bytes) = uac.poll_send() {
            assert_eq!(Request::try_from(bytes.as_slice()).unwrap(), invite);
            times.push(ms);
        }
    }
    assert_eq!(times, [500, 1_500, 3_500, 7_500, 15_500, 31_500]);
    assert!(matches!(
        uac.poll_happening(),
        Some(Happening::Failed { leg: 4, .. })
    ));
    assert_eq!(uac.open(), 0);
}

#[test]
fn nothing_is_repeated_on_tcp() {
    let (mut uac, _) = called(Transport::Tcp);
    uac.handle_timeout(at(31_000));
    assert!(uac.poll_send().is_none());
}

#[test]
fn a_refusal_is_acknowledged_in_its_own_transaction_and_told() {
    let (mut uac, invite) = called(Transport::Udp);
    uac.handle(at(5), &answer(&invite, "503 Service Unavailable", ""));
    let ack = sent(&mut uac);
    assert_eq!((ack.method, &ack.uri), (Method::Ack, &invite.uri));
    assert_eq!(ack.via_header().unwrap(), invite.via_header().unwrap());
    assert!(ack.to_header().unwrap().value().contains("tag=srv"));
    let Some(Happening::Failed { leg: 4, why }) = uac.poll_happening() else {
        panic!("not told")
    };
    assert!(why.contains("503"), "{why}");
}

#[test]
fn no_room_with_a_time_to_come_back_is_told_apart() {
    let (mut uac, invite) = called(Transport::Udp);
    let refused = "503 Service Unavailable\r\nRetry-After: 9";
    uac.handle(at(5), &answer(&invite, refused, ""));
    let Some(Happening::NoRoom { leg: 4, why }) = uac.poll_happening() else {
        panic!("not told")
    };
    assert!(why.contains("503") && why.contains('9'), "{why}");
}

#[test]
fn a_call_without_usable_sdp_is_acknowledged_and_hung_up() {
    let (mut uac, invite) = called(Transport::Udp);
    uac.handle(at(5), &answer(&invite, "200 OK", ""));
    assert_eq!(sent(&mut uac).method, Method::Ack);
    assert_eq!(sent(&mut uac).method, Method::Bye);
    assert!(matches!(uac.poll_happening(), Some(Happening::Failed { .. })));
}

#[test]
fn the_servers_bye_and_options_are_answered() {
    let (mut uac, invite) = called(Transport::Udp);
    uac.handle(at(5), &answer(&invite, "200 OK", SDP));
    let ack = sent(&mut uac);
    assert!(uac.poll_happening().is_some());
    let call_id = ack.call_id_header().unwrap();
    for (method, call_id, status) in [
        ("OPTIONS", "Call-ID: other".to_owned(), "200"),
        ("BYE", "Call-ID: other".to_owned(), "481"),
        ("BYE", call_id.to_string(), "200"),
        ("BYE", call_id.to_string(), "200"),
        ("MESSAGE", "Call-ID: other".to_owned(), "405"),
    ] {
        let request = format!(
            "{method} sip:leg-4@127.0.0.1:40000 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5060;branch=z9hG4bKq\r\n\
             From: <sip:a@b>;tag=1\r\nTo: <sip:leg-4@127.0.0.1>;tag=2\r\n{call_id}\r\nCSeq: 1 {method}\r\n\
             Content-Length: 0\r\n\r\n"
        );
        uac.handle(at(9), request.as_bytes());
        let reply = String::from_utf8(uac.poll_send().unwrap()).unwrap();
        assert!(reply.starts_with(&format!("SIP/2.0 {status} ")), "{reply}");
    }
    assert_eq!(uac.poll_happening(), Some(Happening::EndedByServer { leg: 4 }));
    assert_eq!(uac.poll_happening(), None, "told once");
}
