//! What our side of a session remembers from one offer or answer to the next.

use super::*;

#[test]
fn m_65_resume_after_each_spelling_of_hold() {
    let mut session = LocalSession::new(1);
    let talk = first(&[AUDIO]);
    let before = session.answer(&talk, local());
    for spelling in ["a=sendonly", "a=inactive", "c=IN IP4 0.0.0.0"] {
        let plan = planned(&[AUDIO, spelling], session.occasion());
        assert!(plan.agreed.held, "{spelling}");
        let _ = session.answer(&plan, local());
        let resumed = planned(&[AUDIO], session.occasion());
        assert_eq!(resumed.agreed, talk.agreed);
        let after = session.answer(&resumed, local());
        assert_eq!(without_origin(&after), without_origin(&before));
    }
}

fn without_origin(text: &str) -> String {
    text.split_inclusive("\r\n")
        .filter(|line| !line.starts_with("o="))
        .collect()
}

#[test]
fn m_66_late_offer_lists_everything_and_its_answer_decides() {
    let mut session = LocalSession::new(1);
    let text = plain_offer(&mut session);
    assert_eq!(m_lines(&text), ["m=audio 20000 RTP/AVP 0 8 96 101"]);
    for line in [
        "a=rtpmap:96 L16/8000",
        "a=rtpmap:101 telephone-event/8000",
        "a=fmtp:101 0-16",
        "a=sendrecv",
    ] {
        assert!(has(&text, line), "{line} in {text}");
    }
    let answer = body(&["m=audio 4000 RTP/AVP 8 101", EVENTS, "a=ptime:40"]);
    let agreed = session.accept_answer(answer.as_bytes()).unwrap();
    let description = agreed.description;
    assert_eq!(
        (description.codec, description.payload_type, description.ptime_ms),
        (Codec::Pcma, 8, 40)
    );
    assert_eq!(description.receive_formats, [(8, Codec::Pcma)]);
    assert_eq!(description.telephone_event, Some(101));
    assert_eq!(
        session.accept_answer(answer.as_bytes()),
        Err(AnswerError::NotOffered),
        "only once"
    );
}

#[test]
fn m_66_worthless_answers_are_told_apart() {
    let mut session = LocalSession::new(1);
    let _ = plain_offer(&mut session);
    let mut answer = |text: &str| session.accept_answer(text.as_bytes()).unwrap_err();
    assert!(matches!(
        answer(""),
        AnswerError::Unreadable(SdpError::Malformed(_))
    ));
    assert_eq!(answer(&body(&["m=audio 0 RTP/AVP 0"])), AnswerError::AudioRefused);
    assert_eq!(answer(&body(&[])), AnswerError::AudioRefused);
    let unusable = |error| matches!(error, AnswerError::Unusable(refusal) if refusal.warning == 305);
    assert!(unusable(answer(&body(&["m=audio 4000 RTP/AVP 18"]))));
}

#[test]
fn m_67_offer_in_a_reinvite_has_all_capabilities_and_the_old_numbers() {
    let mut session = LocalSession::new(1);
    let rest = [
        "m=audio 4000 RTP/AVP 96 8 97",
        "a=rtpmap:96 telephone-event/8000",
        "a=rtpmap:97 speex/8000",
    ];
    let answer = session.answer(&first(&rest), local());
    assert_eq!(m_lines(&answer), ["m=audio 20000 RTP/AVP 96 8"]);
    let offer = plain_offer(&mut session);
    // 96 is the telephone-event of this session and 97 was Speex: L16 gets a number never used.
    assert_eq!(m_lines(&offer), ["m=audio 20000 RTP/AVP 0 8 98 96"]);
    assert!(has(&offer, "a=rtpmap:98 L16/8000"));
    assert_eq!(
        plain_offer(&mut session),
        offer,
        "nothing changed: same text, same version"
    );
    assert_eq!(session.version(), 2);
}

#[test]
fn m_67_a_hold_is_over_with_our_offer() {
    let mut session = LocalSession::new(1);
    let _ = session.answer(&first(&[AUDIO]), local());
    let _ = session.answer(&planned(&[AUDIO, "a=sendonly"], session.occasion()), local());
    assert!(has(&plain_offer(&mut session), "a=sendrecv"));
    let held = session
        .accept_answer(body(&["m=audio 4000 RTP/AVP 0", "a=sendonly"]).as_bytes())
        .unwrap();
    assert!(held.held, "the peer may hold again in its answer");
    assert_eq!(held.direction, Direction::RecvOnly);
}

#[test]
fn m_68_version_rises_with_changes_only() {
    let mut session = LocalSession::new(77);
    let origin = |text: &str| parsed(text).origin.unwrap();
    let offer = [AUDIO, EVENTS];
    let one = session.answer(&first(&offer), local());
    assert_eq!(
        (origin(&one).session_id.as_str(), origin(&one).version.as_str()),
        ("77", "1")
    );
    let plan = planned(&offer, session.occasion());
    assert_eq!(
        session.answer(&plan, local()),
        one,
        "session refresh: byte by byte the same"
    );
    let plan = planned(&[AUDIO, EVENTS, "a=inactive"], session.occasion());
    let two = session.answer(&plan, local());
    assert_eq!(origin(&two).version, "2");
    let moved = "198.51.100.8:20002".parse().unwrap();
    let three = session.answer(&plan, moved);
    assert_eq!(origin(&three).version, "3");
    assert_eq!(
        origin(&three).address,
        "198.51.100.7",
        "o= names the session, not the media"
    );
    assert!(has(&three, "c=IN IP4 198.51.100.8"));
}

#[test]
fn m_68_a_restarted_process_goes_on() {
    let mut session = LocalSession::new(u64::MAX);
    let rest = [
        "m=video 0 RTP/AVP 31",
        "m=audio 4000 RTP/AVP 96 8",
        "a=rtpmap:96 telephone-event/8000",
    ];
    let plan = first(&rest);
    let remote = body(&rest);
    let _ = session.answer(
        &planned(&[rest[0], rest[1], rest[2], "a=sendonly"], Occasion::Again),
        local(),
    );
    let text = session.answer(&plan, local());
    let mut restored = LocalSession::restore(&text, &remote).unwrap();
    assert_eq!(restored.version(), 2);
    assert_eq!(restored.occasion(), Occasion::Again);
    assert_eq!(
        LocalSession::restored_media(&text, &remote),
        Some(plan.agreed.clone())
    );
    assert_eq!(
        restored.clone().answer(&plan, local()),
        text,
        "refresh after restart changes nothing"
    );
    assert_eq!(plain_offer(&mut restored), plain_offer(&mut session));
    assert_eq!(restored.version(), 3);
    assert!(LocalSession::restore("", "").is_err());
    assert!(LocalSession::restore(&remote.replace("o=- 10 1", "o=- x y"), "").is_err());
}

#[test]
fn m_69_every_m_line_is_answered_in_its_place() {
    let rest = [
        "m=video 5000 RTP/AVP 99 100",
        "a=rtpmap:99 H264/90000",
        "m=audio 4000 RTP/SAVP 0",
        "m=audio 4002 RTP/AVP 8",
        "m=image 5002 udptl t38",
        "m=message 5004 TCP/MSRP *",
        "m=audio 4004 RTP/AVP 0",
    ];
    let mut session = LocalSession::new(1);
    let text = session.answer(&first(&rest), local());
    let expected = [
        "m=video 0 RTP/AVP 99 100",
        "m=audio 0 RTP/SAVP 0",
        "m=audio 20000 RTP/AVP 8",
        "m=image 0 udptl t38",
        "m=message 0 TCP/MSRP *",
        "m=audio 0 RTP/AVP 0",
    ];
    assert_eq!(m_lines(&text), expected);
    // Our own later offer keeps them all, and ours in its place.
    let offer = plain_offer(&mut session);
    assert_eq!(m_lines(&offer).len(), expected.len());
    assert_eq!(m_lines(&offer)[2], "m=audio 20000 RTP/AVP 0 8 96 101");
    let answer = body(&[
        "m=video 0 RTP/AVP 99",
        "m=audio 0 RTP/SAVP 0",
        "m=audio 4002 RTP/AVP 8",
        "m=image 0 udptl t38",
        "m=message 0 TCP/MSRP *",
        "m=audio 0 RTP/AVP 0",
    ]);
    assert_eq!(
        session
            .accept_answer(answer.as_bytes())
            .unwrap()
            .description
            .codec,
        Codec::Pcma
    );
}

#[test]
fn m_69_audio_may_be_removed_later_and_come_back() {
    let mut session = LocalSession::new(1);
    let _ = session.answer(&first(&[AUDIO]), local());
    let removed = planned(&["m=audio 0 RTP/AVP 0"], session.occasion());
    assert!(removed.agreed.held && !removed.agreed.description.send && !removed.agreed.description.receive);
    assert_eq!(
        m_lines(&session.answer(&removed, local())),
        ["m=audio 0 RTP/AVP 0"]
    );
    let back = session.answer(&planned(&[AUDIO], session.occasion()), local());
    assert_eq!(m_lines(&back), ["m=audio 20000 RTP/AVP 0 8"]);
    assert_eq!(
        refused(&["m=audio 0 RTP/AVP 0"]),
        (488, 304),
        "nothing to talk with at first"
    );
}

#[test]
fn m_71_several_codecs_in_an_answer_are_all_taken() {
    let mut session = LocalSession::new(1);
    let _ = plain_offer(&mut session);
    let answer = body(&[
        "m=audio 4000 RTP/AVP 112 8 0 113",
        "a=rtpmap:112 L16/8000",
        "a=rtpmap:113 telephone-event/8000",
    ]);
    let description = session.accept_answer(answer.as_bytes()).unwrap().description;
    assert_eq!(
        (description.codec, description.payload_type),
        (Codec::L16, 112),
        "sent with the peer's number"
    );
    let expected = [
        (0, Codec::Pcmu),
        (8, Codec::Pcma),
        (96, Codec::L16),
        (112, Codec::L16),
    ];
    assert_eq!(
        description.receive_formats, expected,
        "ours, and what a careless peer sends"
    );
    assert_eq!(
        description.telephone_event,
        Some(101),
        "keys arrive under our number"
    );
    assert_eq!(
        m_lines(&answered(&first(&["m=audio 4000 RTP/AVP 8 18 0"]))),
        ["m=audio 20000 RTP/AVP 8 0"]
    );
}

#[test]
fn m_72_a_number_with_a_new_meaning_is_noticed_and_followed() {
    let mut session = LocalSession::new(1);
    let before = first(&["m=audio 4000 RTP/AVP 0 96", "a=rtpmap:96 telephone-event/8000"]);
    assert_eq!(session.renumbered(&before), None);
    let _ = session.answer(&before, local());
    assert_eq!(session.renumbered(&before), None, "the same again");
    let after = planned(
        &[
            "m=audio 4000 RTP/AVP 96 97",
            "a=rtpmap:96 L16/8000",
            "a=rtpmap:97 telephone-event/8000",
        ],
        session.occasion(),
    );
    assert_eq!(session.renumbered(&after), Some(96));
    let _ = session.answer(&after, local());
    let offer = plain_offer(&mut session);
    assert_eq!(
        m_lines(&offer),
        ["m=audio 20000 RTP/AVP 0 8 96 97"],
        "one meaning per number"
    );
}

#[test]
fn m_73_a_new_address_or_codec_shows_in_the_description_only() {
    let mut session = LocalSession::new(1);
    let text = session.answer(&first(&[AUDIO]), local());
    let moved = planned(
        &["m=audio 4010 RTP/AVP 0 8", "c=IN IP4 203.0.113.9"],
        session.occasion(),
    );
    assert_eq!(
        moved.agreed.description.remote,
        "203.0.113.9:4010".parse().unwrap()
    );
    assert_eq!(session.answer(&moved, local()), text, "nothing of ours changed");
    let other = planned(&["m=audio 4010 RTP/AVP 8 0"], session.occasion());
    assert_eq!(
        (
            other.agreed.description.codec,
            other.agreed.description.payload_type
        ),
        (Codec::Pcma, 8)
    );
}

#[test]
fn m_60_a_source_stays_one_until_it_has_heard_us() {
    let mut session = LocalSession::new(1);
    let source = [AUDIO, "a=sendonly"];
    for _ in 0..2 {
        let plan = planned(&source, session.occasion());
        assert!(
            plan.agreed.description.receive && !plan.agreed.held,
            "refresh of a source"
        );
        let _ = session.answer(&plan, local());
        assert_eq!(session.agreed(), Some(&plan.agreed));
    }
    let _ = session.answer(&planned(&[AUDIO], session.occasion()), local());
    assert!(planned(&source, session.occasion()).agreed.held);
}

#[test]
fn m_60_a_hold_is_still_one_after_a_restart() {
    let mut session = LocalSession::new(1);
    let _ = session.answer(&first(&[AUDIO]), local());
    let hold = planned(&[AUDIO, "a=sendonly"], session.occasion());
    let text = session.answer(&hold, local());
    let restored = LocalSession::restore(&text, &body(&[AUDIO, "a=sendonly"])).unwrap();
    assert_eq!(restored.agreed(), Some(&hold.agreed));
    assert_eq!(restored.occasion(), Occasion::Again);
}
