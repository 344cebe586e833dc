use super::*;
use crate::sip::wire::Incoming;

fn flow(transport: Transport) -> Flow {
    Flow {
        transport,
        local: "192.0.2.1:5060".parse().unwrap(),
        remote: "198.51.100.7:40000".parse().unwrap(),
        connection: u64::from(transport == Transport::Tcp),
    }
}

fn invite(extra: &str) -> Box<Request> {
    let text = format!(
        "INVITE sip:conf-1@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\n{extra}\
         From: \"B\" <sip:b@x>;tag=their\r\nTo: <sip:conf-1@x>\r\nCall-ID: c\r\nCSeq: 7 INVITE\r\n\
         Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
    );
    let Incoming::Request(request) = wire::read(&Bytes::from(text.clone()), &flow(Transport::Udp)) else {
        panic!("{text}");
    };
    request
}

fn bye(dialog: &mut Dialog, direct: bool) -> (String, Flow) {
    let mut random = Random::new([1; 32]);
    let (request, flow) = dialog
        .request(&Method::Bye, "", direct, &mut random, &[])
        .unwrap();
    (
        wire::text(&wire::to_bytes(&wire::Message::Request(request))),
        flow,
    )
}

fn dialog(extra: &str, transport: Transport) -> Dialog {
    Dialog::from_invite(&invite(extra), &flow(transport), "ours".to_owned()).unwrap()
}

#[test]
fn requests_go_to_the_contact_when_it_is_numeric() {
    let mut dialog = dialog("Contact: <sip:b@203.0.113.9:5066>\r\n", Transport::Udp);
    let (text, to) = bye(&mut dialog, false);
    assert!(
        text.starts_with("BYE sip:b@203.0.113.9:5066 SIP/2.0\r\n"),
        "{text}"
    );
    assert!(text.contains("From: <sip:conf-1@x>;tag=ours\r\n"), "{text}");
    assert!(text.contains("To: <sip:b@x>;tag=their\r\n"), "{text}");
    assert!(text.contains("CSeq: 1 BYE\r\n"), "{text}");
    assert_eq!(to.remote, "203.0.113.9:5066".parse().unwrap());
    let (text, to) = bye(&mut dialog, true);
    assert!(text.contains("CSeq: 2 BYE\r\n"), "{text}");
    assert_eq!(to.remote, flow(Transport::Udp).remote);
}

#[test]
fn host_names_and_missing_contacts_fall_back_to_the_source() {
    for extra in [
        "Contact: <sip:b@phone.example>\r\n",
        "",
        "Contact: <sip:b@[2001:db8::1]>\r\n",
    ] {
        let mut dialog = dialog(extra, Transport::Udp);
        assert_eq!(
            bye(&mut dialog, false).1.remote,
            flow(Transport::Udp).remote,
            "{extra}"
        );
    }
}

#[test]
fn loose_and_strict_routes() {
    let contact = "Contact: <sip:b@203.0.113.9>\r\n";
    let loose = format!("Record-Route: <sip:203.0.113.1;lr>, <sip:p2;lr>\r\n{contact}");
    let (text, to) = bye(&mut dialog(&loose, Transport::Udp), false);
    assert!(text.starts_with("BYE sip:b@203.0.113.9 SIP/2.0\r\n"), "{text}");
    assert!(
        text.contains("Route: <sip:203.0.113.1;lr>\r\nRoute: <sip:p2;lr>\r\n"),
        "{text}"
    );
    assert_eq!(to.remote, "203.0.113.1:5060".parse().unwrap());
    let strict = format!("Record-Route: <sip:203.0.113.1>\r\n{contact}");
    let (text, to) = bye(&mut dialog(&strict, Transport::Udp), false);
    assert!(text.starts_with("BYE sip:203.0.113.1 SIP/2.0\r\n"), "{text}");
    assert!(text.contains("Route: <sip:b@203.0.113.9>\r\n"), "{text}");
    assert_eq!(to.remote, "203.0.113.1:5060".parse().unwrap());
}

#[test]
fn a_live_connection_is_reused_and_a_dead_one_is_not() {
    let mut dialog = dialog("Contact: <sip:b@203.0.113.9;transport=tcp>\r\n", Transport::Tcp);
    assert_eq!(bye(&mut dialog, false).1, flow(Transport::Tcp));
    assert!(dialog.on_flow_failed(&flow(Transport::Tcp)));
    let (text, to) = bye(&mut dialog, false);
    assert_eq!(
        (to.remote, to.connection),
        ("203.0.113.9:5060".parse().unwrap(), DEAD_CONNECTION)
    );
    assert!(
        text.contains("Via: SIP/2.0/TCP 192.0.2.1:5060;branch=z9hG4bK"),
        "{text}"
    );
}

#[test]
fn sequence_numbers_may_not_fall() {
    let mut dialog = dialog("", Transport::Udp);
    assert_eq!(dialog.advance(&invite("")), Ok(()));
    dialog.remote_cseq = 8;
    assert_eq!(dialog.advance(&invite("")), Err(Reason::OutOfOrder));
}

#[test]
fn unusable_addresses_are_refused() {
    let refused = [
        "Contact: <name:b>\r\n",
        "Contact: \"x <sip:b@x>\r\n",
        "Record-Route: <tel:1>\r\n",
        "Record-Route: nothing\r\n",
    ];
    for extra in refused {
        let result = Dialog::from_invite(&invite(extra), &flow(Transport::Udp), "t".to_owned());
        assert!(matches!(result, Err(Reason::Malformed(_))), "{extra}");
    }
    let mut refreshed = dialog("Contact: <sip:b@x>\r\n", Transport::Udp);
    refreshed
        .refresh(&invite("Contact: <sip:new@y>\r\n"), &flow(Transport::Udp))
        .unwrap();
    assert_eq!(&*refreshed.remote_target, "sip:new@y");
    refreshed.refresh(&invite(""), &flow(Transport::Udp)).unwrap();
    assert_eq!(&*refreshed.remote_target, "sip:new@y");
}
