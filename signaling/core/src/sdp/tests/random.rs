//! Nothing that arrives may panic, and whatever is answered obeys RFC 3264.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// Lines of real bodies in any order, with lines that try to confuse among them.
fn shuffled() -> impl Strategy<Value = String> {
    let mut lines: Vec<String> = bodies::texts()
        .iter()
        .flat_map(|text| text.split(['\r', '\n']))
        .map(str::to_owned)
        .collect();
    lines.extend(
        [
            "m=audio 0 RTP/AVP 0",
            "m=audio 4000 RTP/AVP 0 0 8 300 -1 x 101 101",
            "m=audio 4000/2 RTP/AVP 8",
            "m=audio 65535 RTP/AVP 97",
            "m= 1 2 3",
            "m=video 5000 RTP/AVP 31",
            "m=image 5000 udptl t38",
            "a=sendonly",
            "a=recvonly",
            "a=inactive",
            "a=maxptime:30",
            "a=maxptime:1",
            "a=ptime:60",
            "a=rtcp:",
            "a=rtcp:99999",
            "a=rtpmap:0 L16/8000/2",
            "a=rtpmap:97 L16/8000",
            "m=audio 4000 RTP/AVP 90 91 92 93 94 95 97",
            "a=rtpmap:90 PCMU/8000",
            "a=rtpmap:91 PCMU/8000",
            "a=rtpmap:92 PCMA/8000",
            "a=rtpmap:93 PCMA/8000",
            "a=rtpmap:94 L16/8000",
            "a=rtpmap:95 telephone-event/8000",
            "a=rtpmap:",
            "a=rtpmap:97",
            "a=fmtp:101 16-0,,-",
            "c=IN IP4 0.0.0.0",
            "c=IN IP6 ff02::1",
            "c=",
            "b=:",
            "t=9 99999999999999999999999",
            "o=",
            "=",
        ]
        .map(str::to_owned),
    );
    proptest::collection::vec(proptest::sample::select(lines), 0..40).prop_map(|lines| {
        format!(
            "v=0\r\nc=IN IP4 192.0.2.1\r\nm=audio 4000 RTP/AVP 8\r\n{}\r\n",
            lines.join("\r\n")
        )
    })
}

/// A real body with some bytes replaced, which keeps most of it readable.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let hits = proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..12);
    (proptest::sample::select(bodies::texts()), hits).prop_map(|(text, hits)| {
        let mut bytes = text.as_bytes().to_vec();
        for (index, byte) in hits {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        bytes
    })
}

fn formats(line: &MediaLine) -> BTreeSet<u8> {
    line.payloads.iter().map(|payload| payload.number).collect()
}

/// RFC 3264 section 6 for one offer; whatever else happens, no panic.
fn holds(bytes: &[u8], occasion: Occasion) -> Result<(), TestCaseError> {
    let Ok(offer) = Offer::parse(bytes) else {
        return Ok(());
    };
    let plan = match plan(&offer, occasion) {
        Ok(plan) => plan,
        Err(refusal) => {
            let value = refusal.warning_value("host");
            prop_assert!((300..400).contains(&refusal.warning));
            prop_assert!(
                value.bytes().all(|byte| (b' '..=b'~').contains(&byte)),
                "{value:?}"
            );
            return Ok(());
        }
    };
    let mut session = LocalSession::new(5);
    let text = session.answer(&plan, local());
    let answer = Description::parse(text.as_bytes()).expect("our own text is readable");
    prop_assert_eq!(&answer.time, &offer.time);
    prop_assert_eq!(answer.lines.len(), offer.lines.len());
    let mut live = 0;
    for (ours, theirs) in answer.lines.iter().zip(&offer.lines) {
        prop_assert_eq!(&ours.proto, &theirs.proto);
        prop_assert!(ours.media.eq_ignore_ascii_case(&theirs.media));
        prop_assert!(formats(ours).is_subset(&formats(theirs)));
        if ours.port == 0 {
            continue;
        }
        live += 1;
        prop_assert!(theirs.port != 0, "a removed stream stays removed");
        prop_assert!(!ours.direction.sends() || theirs.direction.receives());
        prop_assert!(!ours.direction.receives() || theirs.direction.sends());
        for payload in &ours.payloads {
            let offered = theirs
                .payloads
                .iter()
                .find(|other| other.number == payload.number);
            let offered = offered.expect("checked above");
            prop_assert!(offered.encoding.eq_ignore_ascii_case(&payload.encoding));
        }
    }
    let description = &plan.agreed.description;
    prop_assert!(live == 1 || (live == 0 && plan.agreed.held && description.remote.ip().is_unspecified()));
    prop_assert!([10, 20, 30, 40, 60].contains(&description.ptime_ms));
    prop_assert!(
        (1..=6).contains(&description.receive_formats.len()),
        "a mixer takes eight"
    );
    prop_assert!(!description.send || !description.remote.ip().is_unspecified());
    prop_assert!(description.remote.port() != 0);
    prop_assert_eq!(plan.agreed.held, !description.send && !description.receive);

    let restored = LocalSession::restore(&text, &String::from_utf8_lossy(bytes)).expect("our own text");
    prop_assert_eq!(restored.version(), 1);
    prop_assert_eq!(restored.clone().answer(&plan, local()), text);
    prop_assert_eq!(plain_offer(&mut restored.clone()), plain_offer(&mut session));
    one_meaning_per_number(&plain_offer(&mut session))
}

fn one_meaning_per_number(offer: &str) -> Result<(), TestCaseError> {
    let offer = parsed(offer);
    let live: Vec<_> = offer.lines.iter().filter(|line| line.port != 0).collect();
    prop_assert_eq!(live.len(), 1);
    prop_assert_eq!(
        formats(live[0]).len(),
        4,
        "PCMU, PCMA, L16 and events under four numbers"
    );
    Ok(())
}

proptest! {
    #[test]
    fn bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        holds(&bytes, Occasion::First)?;
    }

    #[test]
    fn damaged_bodies_are_answered_by_the_rules(bytes in damaged(), again in any::<bool>()) {
        holds(&bytes, if again { Occasion::Again } else { Occasion::First })?;
    }

    #[test]
    fn shuffled_lines_are_answered_by_the_rules(text in shuffled(), again in any::<bool>()) {
        holds(text.as_bytes(), if again { Occasion::Again } else { Occasion::First })?;
    }

    #[test]
    fn answers_to_our_offer_never_panic(bytes in damaged(), text in shuffled()) {
        for answer in [bytes.as_slice(), text.as_bytes()] {
            let mut session = LocalSession::new(5);
            let offer = plain_offer(&mut session);
            if let Ok(agreed) = session.accept_answer(answer) {
                let ours = formats(&parsed(&offer).lines[0]);
                prop_assert!(agreed.description.receive_formats.iter().any(|(number, _)| ours.contains(number)));
                prop_assert!(agreed.description.telephone_event.is_none_or(|number| number == 101));
            }
        }
    }
}
