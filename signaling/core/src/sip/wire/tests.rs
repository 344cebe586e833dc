use super::*;

fn flow(transport: Transport) -> Flow {
    Flow {
        transport,
        local: "192.0.2.1:5060".parse().unwrap(),
        remote: "198.51.100.7:40000".parse().unwrap(),
        connection: u64::from(transport == Transport::Tcp),
    }
}

fn options(extra: &str) -> String {
    format!(
        "OPTIONS sip:a@192.0.2.1 SIP/2.0\r\n{extra}From: <sip:b@x>;tag=1\r\nTo: <sip:a@x>\r\n\
         Call-ID: c\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
    )
}

fn request(text: &str, transport: Transport) -> Box<Request> {
    let Incoming::Request(request) = read(&Bytes::from(text.to_owned()), &flow(transport)) else {
        panic!("{text}");
    };
    request
}

fn via_of(request: &Request) -> String {
    header_text(request, &HeaderName::Via).unwrap()
}

#[test]
fn answers_go_where_the_standard_says() {
    let table = [
        (
            "SIP/2.0/UDP 198.51.100.7:6000;branch=z9hG4bK1",
            "198.51.100.7:6000",
            "",
        ),
        (
            "SIP/2.0/UDP 198.51.100.7;branch=z9hG4bK1",
            "198.51.100.7:5060",
            "",
        ),
        (
            "SIP/2.0/UDP phone:6000;branch=z9hG4bK1",
            "198.51.100.7:6000",
            ";received=198.51.100.7",
        ),
        (
            "SIP/2.0/UDP 10.0.0.1:6000;rport;branch=z9hG4bK1",
            "198.51.100.7:40000",
            ";received=198.51.100.7;rport=40000",
        ),
        (
            "SIP/2.0/UDP 198.51.100.7;rport=1;branch=z9hG4bK1;received=9.9.9.9",
            "198.51.100.7:40000",
            ";received=198.51.100.7;rport=40000",
        ),
        (
            "SIP/2.0/UDP 10.0.0.1;maddr=9.9.9.9;branch=z9hG4bK1",
            "198.51.100.7:5060",
            ";received=198.51.100.7",
        ),
    ];
    for (via, destination, stamped) in table {
        let request = request(&options(&format!("Via: {via}\r\n")), Transport::Udp);
        let answer = response_flow(&request, &flow(Transport::Udp));
        assert_eq!(answer.remote, destination.parse().unwrap(), "{via}");
        let value = via_of(&request);
        assert!(value.ends_with(stamped), "{via} -> {value}");
        assert!(
            !value.contains("9.9.9.9") || value.contains("maddr"),
            "{via} -> {value}"
        );
        assert_eq!(
            value.matches("received").count(),
            usize::from(stamped.contains("received")),
            "{value}"
        );
    }
    let over_tcp = request(
        &options("Via: SIP/2.0/TCP phone:6000;branch=z9hG4bK1\r\n"),
        Transport::Tcp,
    );
    assert_eq!(
        response_flow(&over_tcp, &flow(Transport::Tcp)),
        flow(Transport::Tcp)
    );
}

#[test]
fn only_the_first_hop_is_stamped() {
    let text =
        options("v: SIP/2.0/UDP a:1;rport;x=\"p;q,r\", SIP/2.0/UDP b:2;rport\r\nVia: SIP/2.0/UDP c\r\n");
    let request = request(&text, Transport::Udp);
    assert_eq!(
        via_of(&request),
        "SIP/2.0/UDP a:1;x=\"p;q,r\";received=198.51.100.7;rport=40000, SIP/2.0/UDP b:2;rport"
    );
    assert_eq!(list_values(&request, &HeaderName::Via).len(), 3);
}

#[test]
fn bare_line_feeds_are_read_and_bodies_left_alone() {
    let text = options("Via: SIP/2.0/UDP a;branch=z9hG4bK1\r\n").replace("\r\n", "\n");
    let text = text.replace("Content-Length: 0", "Content-Type: x/y\nContent-Length: 4") + "a\nb\n";
    let request = request(&text, Transport::Udp);
    assert_eq!(request.body().as_ref(), b"a\nb\n");
}

#[test]
fn latin_1_in_a_display_name_is_no_obstacle() {
    let text = options("Via: SIP/2.0/UDP a;branch=z9hG4bK1\r\n");
    let mut bytes = text.replace("From: <", "From: \"J?rg\" <").into_bytes();
    let umlaut = bytes.iter().position(|&byte| byte == b'?').unwrap();
    bytes[umlaut] = 0xf6;
    let Incoming::Request(request) = read(&Bytes::from(bytes), &flow(Transport::Udp)) else {
        panic!("refused");
    };
    assert_eq!(
        header_text(&request, &HeaderName::From).unwrap(),
        "\"Jörg\" <sip:b@x>;tag=1"
    );
}

#[test]
fn what_cannot_be_read_is_answered_when_possible() {
    let via = "Via: SIP/2.0/UDP a;branch=z9hG4bK1\r\n";
    let good = options(via);
    let table = [
        (good.replace("SIP/2.0\r\nVia", "SIP/7.0\r\nVia"), Some(505)),
        (good.replace("1 OPTIONS", "1 INVITE"), Some(400)),
        (good.replace("sip:a@192", "sip:a b@192"), Some(400)),
        (good.replace("Content-Length: 0", "Content-Length: 10"), Some(400)),
        (good.replace("Content-Length: 0", "Content-Length: -1"), Some(400)),
        (good.replace("To: <sip:a@x>\r\n", ""), Some(400)),
        (good.replace("Content-Length: 0", "no colon"), Some(400)),
        (good.replace(via, ""), None),
        (good.replace("CSeq: 1 OPTIONS\r\n", ""), None),
        ("SIP/2.0 999 x\r\n\r\n".to_owned(), None),
        ("hello".to_owned(), None),
        (
            good.replace("OPTIONS", "ACK")
                .replace("Content-Length: 0", "Content-Length: 10"),
            None,
        ),
    ];
    for (text, expected) in table {
        let status = match read(&Bytes::from(text.clone()), &flow(Transport::Udp)) {
            Incoming::Refused { status, echo, .. } => {
                let answer = echo.answer(status, "x", "mine", &[]);
                let answer = parse_datagram(answer, &Limits::datagram()).expect("a readable answer");
                assert!(answer.headers().count(&HeaderName::Via) > 0);
                Some(status)
            }
            Incoming::Unreadable(_) => None,
            Incoming::Request(_) | Incoming::Response(_) | Incoming::KeepAlive => panic!("{text}"),
        };
        assert_eq!(status, expected, "{text}");
    }
    assert!(matches!(
        read(&Bytes::from_static(b"\r\n\r\n"), &flow(Transport::Udp)),
        Incoming::KeepAlive
    ));
}

#[test]
fn caps_hold() {
    let many = "Via: SIP/2.0/UDP a;branch=z9hG4bK1\r\n".repeat(limits::VIAS_MAX + 1);
    let flow = flow(Transport::Udp);
    assert!(matches!(
        read(&Bytes::from(options(&many)), &flow),
        Incoming::Unreadable(_)
    ));
    let fits = "Via: SIP/2.0/UDP a;branch=z9hG4bK1\r\n".repeat(limits::VIAS_MAX);
    assert!(matches!(
        read(&Bytes::from(options(&fits)), &flow),
        Incoming::Request(_)
    ));
    let headers = "X: y\r\n".repeat(limits::HEADERS_MAX) + "Via: SIP/2.0/UDP a;branch=z9hG4bK1\r\n";
    assert!(!matches!(
        read(&Bytes::from(options(&headers)), &flow),
        Incoming::Request(_)
    ));
    let long = format!(
        "X: {}\r\nVia: SIP/2.0/UDP a\r\n",
        "y".repeat(limits::MESSAGE_BYTES_MAX)
    );
    assert!(matches!(
        read(&Bytes::from(options(&long)), &flow),
        Incoming::Unreadable(_)
    ));
}

#[test]
fn lists_split_outside_quotes_and_angles() {
    let items = split_list(br#""a,b" <sip:x,y@z>;p="q,r" , <sip:c>,, sip:d"#);
    let items: Vec<String> = items.into_iter().map(text).collect();
    assert_eq!(items, [r#""a,b" <sip:x,y@z>;p="q,r""#, "<sip:c>", "sip:d"]);
}
