//! What we read out of a message, against another implementation's reading of the same fields.

use rsip::headers::{ToTypedHeader, UntypedHeader};
use rsip::prelude::{HasHeaders, HeadersExt};

use crate::world::{OFFER, Phone, Sent, World, statuses};

fn parsed(sent: &Sent) -> rsip::SipMessage {
    rsip::SipMessage::try_from(sent.text.as_bytes()).unwrap_or_else(|error| panic!("{error}: {}", sent.text))
}

#[test]
fn our_messages_mean_to_others_what_they_mean_to_us() {
    let mut world = World::new();
    let mut phone = Phone::new("a");
    phone.extra = "Record-Route: <sip:198.51.100.1;lr>\r\n".to_owned();
    let ok = phone.call(&mut world);
    let response = parsed(&ok);
    assert_eq!(
        response.to_header().unwrap().tag().unwrap().unwrap().value(),
        ok.tag()
    );
    assert_eq!(
        response.from_header().unwrap().tag().unwrap().unwrap().value(),
        "aa"
    );
    assert_eq!(response.cseq_header().unwrap().seq().unwrap(), 1);
    let contact = response.contact_header().unwrap().uri().unwrap();
    assert_eq!(contact.user(), Some("conf-42"));
    assert_eq!(contact.host_with_port.to_string(), "192.0.2.1:5060");
    let length = response.headers().iter().find_map(|header| match header {
        rsip::Header::ContentLength(length) => length.value().parse::<usize>().ok(),
        _ => None,
    });
    assert_eq!(length, Some(ok.body().len()));

    world.mixer.conferences.clear();
    world.sent.clear();
    world.health(Some("two"));
    let bye = world.sent[0].clone();
    let request = parsed(&bye);
    assert_eq!(
        request.cseq_header().unwrap().method().unwrap(),
        rsip::Method::Bye
    );
    assert_eq!(request.call_id_header().unwrap().value(), "a");
    assert_eq!(request.to_header().unwrap().tag().unwrap().unwrap().value(), "aa");
    assert_eq!(
        request.from_header().unwrap().tag().unwrap().unwrap().value(),
        ok.tag()
    );
    assert_eq!(
        request
            .via_header()
            .unwrap()
            .typed()
            .unwrap()
            .branch()
            .unwrap()
            .value(),
        branch(&bye)
    );
}

fn branch(sent: &Sent) -> &str {
    sent.header("Via")
        .unwrap()
        .split("branch=")
        .nth(1)
        .unwrap()
        .split(';')
        .next()
        .unwrap()
}

#[test]
fn their_messages_mean_to_us_what_they_mean_to_them() {
    let targets = [
        "sip:conf-9@192.0.2.1;user=phone",
        "sip:conf-%39@192.0.2.1:5060",
        "sip:conf-9:secret@h.example",
    ];
    for target in targets {
        let mut phone = Phone::to("a", target);
        let text = phone.with_sdp("INVITE", OFFER);
        let theirs = rsip::Request::try_from(text.as_bytes()).unwrap();
        let rebuilt = rsip::SipMessage::from(theirs).to_string();
        let mut world = World::new();
        let sent = world.exchange(&rebuilt);
        assert_eq!(statuses(&sent), [100, 200], "{rebuilt}");
        assert_eq!(
            world.mixer.conferences.keys().collect::<Vec<_>>(),
            ["9"],
            "{target}"
        );
    }
}
