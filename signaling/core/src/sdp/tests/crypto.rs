//! SDES: lines, who gets which, and what becomes of keys from offer to offer.

use super::*;
use crate::srtp::{Srtp, SrtpKey, SrtpSuite};

const KEY_30: &str = "WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz";
const OTHER_30: &str = "PS1uQCVeeCFCanVmcjkpPywjNWhcYD0mXXtxaVBR";

/// A key that has nothing to do with others.
fn key(byte: u8, suite: SrtpSuite) -> SrtpKey {
    KeySource::new(&KeySeed([byte; 32])).draw(suite)
}

/// `a=crypto` of a suite with a key of its own.
fn line(tag: u32, suite: SrtpSuite, byte: u8) -> String {
    let key = key(byte, suite);
    format!("a=crypto:{tag} {} inline:{}", suite.name(), *key.to_base64())
}

fn secure(proto: &str, crypto: &[String]) -> Vec<String> {
    let mut lines = vec![format!("m=audio 4000 {proto} 0 8")];
    lines.extend(crypto.iter().cloned());
    lines
}

fn text(lines: &[String]) -> String {
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    body(&lines)
}

fn decide(
    lines: &[String],
    policy: SrtpPolicy,
    keys: &mut KeySource,
    current: Option<&Agreed>,
) -> Result<Plan, Refusal> {
    let occasion = if current.is_some() {
        Occasion::Again
    } else {
        Occasion::First
    };
    let mut security = Security {
        policy,
        keys,
        current,
    };
    super::super::plan(&parsed(&text(lines)), occasion, &mut security)
}

fn keys() -> KeySource {
    KeySource::new(&KeySeed([3; 32]))
}

fn crypto_lines(text: &str) -> Vec<Crypto> {
    let values = text
        .split("\r\n")
        .filter_map(|line| line.strip_prefix("a=crypto:"));
    values.map(|value| Crypto::parse(value).unwrap()).collect()
}

fn srtp(agreed: &Agreed) -> &Srtp {
    agreed.description.srtp.as_ref().unwrap()
}

#[test]
fn m51_lines_that_are_right() {
    for value in [
        format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY_30}"),
        format!("1 AES_CM_128_HMAC_SHA1_32 INLINE:{KEY_30}|2^20"),
        format!("999999999 AES_CM_128_HMAC_SHA1_80 inline:{KEY_30}|1048576"),
        format!("0 AES_CM_128_HMAC_SHA1_80  inline:{KEY_30}|2^48 KDR=0 WSH=64 -FOO -BAR=1"),
    ] {
        let crypto = Crypto::parse(&value).unwrap_or_else(|error| panic!("{value}: {error}"));
        assert_eq!(*crypto.key.to_base64(), KEY_30);
    }
    for suite in SrtpSuite::ALL {
        let value = line(7, suite, 1);
        let crypto = Crypto::parse(value.strip_prefix("a=crypto:").unwrap()).unwrap();
        assert_eq!((crypto.tag, crypto.suite), (7, suite));
        assert_eq!(format!("a=crypto:{}", crypto.value()), value);
        // Padding may be missing.
        let bare = value.trim_end_matches('=').strip_prefix("a=crypto:").unwrap();
        assert_eq!(Crypto::parse(bare), Ok(crypto));
    }
}

#[test]
fn m51_m52_lines_that_are_not_taken() {
    let suite = "AES_CM_128_HMAC_SHA1_80";
    for (value, why) in [
        (String::new(), "missing"),
        (format!("1 {suite}"), "missing"),
        (format!("1234567890 {suite} inline:{KEY_30}"), "tag"),
        (format!("+1 {suite} inline:{KEY_30}"), "tag"),
        (format!("1 AES_CM_128_HMAC_SHA1_16 inline:{KEY_30}"), "suite"),
        (format!("1 aes_cm_128_hmac_sha1_80 inline:{KEY_30}"), "suite"),
        (format!("1 F8_128_HMAC_SHA1_80 inline:{KEY_30}"), "suite"),
        (format!("1 {suite} uri:{KEY_30}"), "method"),
        (format!("1 {suite} inline:{}", &KEY_30[..36]), "length"),
        (format!("1 AEAD_AES_128_GCM inline:{KEY_30}"), "length"),
        (format!("1 {suite} inline:{}!", &KEY_30[..39]), "length"),
        (format!("1 {suite} inline:{KEY_30}|2^49"), "lifetime"),
        (format!("1 {suite} inline:{KEY_30}|0"), "lifetime"),
        (format!("1 {suite} inline:{KEY_30}|2^"), "lifetime"),
        (format!("1 {suite} inline:{KEY_30}|many"), "lifetime"),
        (format!("1 {suite} inline:{KEY_30}|"), "lifetime"),
        (format!("1 {suite} inline:{KEY_30}|1:4"), "MKI"),
        (format!("1 {suite} inline:{KEY_30}|2^20|1:4"), "MKI"),
        (format!("1 {suite} inline:{KEY_30};inline:{OTHER_30}"), "several"),
        (format!("1 {suite} inline:{KEY_30} UNENCRYPTED_SRTP"), "encrypted"),
        (
            format!("1 {suite} inline:{KEY_30} UNENCRYPTED_SRTCP"),
            "encrypted",
        ),
        (
            format!("1 {suite} inline:{KEY_30} UNAUTHENTICATED_SRTP"),
            "encrypted",
        ),
        (format!("1 {suite} inline:{KEY_30} KDR=1"), "derivation"),
        (format!("1 {suite} inline:{KEY_30} WSH=63"), "window"),
        (
            format!("1 {suite} inline:{KEY_30} FEC_ORDER=FEC_SRTP"),
            "parameter",
        ),
        (format!("1 {suite} inline:{KEY_30} -OK BAD"), "parameter"),
    ] {
        let error = Crypto::parse(&value).expect_err(&value);
        assert!(error.contains(why), "{value}: {error}");
        assert!(!error.contains("WVNf"), "a key is named");
        let lines = secure("RTP/SAVP", &[format!("a=crypto:{value}")]);
        let refusal = decide(&lines, SrtpPolicy::Offer, &mut keys(), None).unwrap_err();
        assert_eq!((refusal.status, refusal.warning), (488, 399), "{value}");
        assert!(
            refusal.text.contains(error) && !refusal.text.contains("WVNf"),
            "{refusal:?}"
        );
    }
}

#[test]
fn a_tag_that_is_there_twice_counts_once() {
    let lines = secure(
        "RTP/SAVP",
        &[
            line(1, SrtpSuite::AesCm128HmacSha1Tag80, 1),
            line(1, SrtpSuite::AeadAes128Gcm, 2),
        ],
    );
    let plan = decide(&lines, SrtpPolicy::Offer, &mut keys(), None).unwrap();
    assert_eq!(srtp(&plan.agreed).suite, SrtpSuite::AesCm128HmacSha1Tag80);
}

#[test]
fn the_answer_repeats_the_tag_with_a_key_of_its_own_and_prefers_gcm() {
    for suite in SrtpSuite::ALL {
        let lines = secure("RTP/SAVP", &[line(12, suite, 1)]);
        let plan = decide(&lines, SrtpPolicy::Offer, &mut keys(), None).unwrap();
        assert_eq!(srtp(&plan.agreed).receive, key(1, suite));
        let answer = answered(&plan);
        let [crypto] = &crypto_lines(&answer)[..] else {
            panic!("{answer}")
        };
        assert_eq!(
            (crypto.tag, crypto.suite, &crypto.key),
            (12, suite, &srtp(&plan.agreed).send)
        );
        assert_ne!(crypto.key, srtp(&plan.agreed).receive);
        assert_eq!(m_lines(&answer), ["m=audio 20000 RTP/SAVP 0 8"]);
    }
    let lines = secure(
        "RTP/SAVP",
        &[
            line(1, SrtpSuite::AesCm128HmacSha1Tag80, 1),
            line(2, SrtpSuite::AeadAes256Gcm, 2),
            line(3, SrtpSuite::AeadAes128Gcm, 3),
        ],
    );
    let plan = decide(&lines, SrtpPolicy::Offer, &mut keys(), None).unwrap();
    assert_eq!(crypto_lines(&answered(&plan))[0].tag, 2);
    let lines = secure(
        "RTP/SAVP",
        &[
            line(4, SrtpSuite::AesCm128HmacSha1Tag32, 1),
            line(5, SrtpSuite::AesCm128HmacSha1Tag80, 2),
        ],
    );
    let plan = decide(&lines, SrtpPolicy::Offer, &mut keys(), None).unwrap();
    assert_eq!(crypto_lines(&answered(&plan))[0].tag, 4, "the peer's order");
}

#[test]
fn m50_who_gets_srtp_by_policy() {
    let crypto = [line(1, SrtpSuite::AesCm128HmacSha1Tag80, 1)];
    let broken = ["a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:short".to_owned()];
    // (transport, crypto, policy, SRTP is taken or the warning)
    for (proto, crypto, policy, expected) in [
        ("RTP/SAVP", &crypto[..], SrtpPolicy::Offer, Ok(true)),
        ("RTP/SAVPF", &crypto[..], SrtpPolicy::Require, Ok(true)),
        ("RTP/SAVP", &crypto[..], SrtpPolicy::Off, Err(302)),
        ("RTP/SAVP", &[][..], SrtpPolicy::Offer, Err(399)),
        ("RTP/AVP", &crypto[..], SrtpPolicy::Offer, Ok(true)),
        ("RTP/AVPF", &crypto[..], SrtpPolicy::Require, Ok(true)),
        ("RTP/AVP", &crypto[..], SrtpPolicy::Off, Ok(false)),
        ("RTP/AVP", &broken[..], SrtpPolicy::Offer, Ok(false)),
        ("RTP/AVP", &broken[..], SrtpPolicy::Require, Err(399)),
        ("RTP/AVP", &[][..], SrtpPolicy::Offer, Ok(false)),
        ("RTP/AVP", &[][..], SrtpPolicy::Require, Err(399)),
        ("UDP/TLS/RTP/SAVPF", &crypto[..], SrtpPolicy::Offer, Err(302)),
    ] {
        let result = decide(&secure(proto, crypto), policy, &mut keys(), None);
        let what = format!("{proto} {} {policy:?}", crypto.len());
        match (result, expected) {
            (Ok(plan), Ok(taken)) => {
                assert_eq!(plan.agreed.description.srtp.is_some(), taken, "{what}");
                let answer = answered(&plan);
                assert_eq!(crypto_lines(&answer).len(), usize::from(taken), "{what}");
                assert!(
                    m_lines(&answer)[0].starts_with(&format!("m=audio 20000 {proto} ")),
                    "{answer}"
                );
            }
            (Err(refusal), Err(warning)) => {
                assert_eq!((refusal.status, refusal.warning), (488, warning), "{what}");
            }
            (result, _) => panic!("{what}: {result:?}"),
        }
    }
}

#[test]
fn m50_of_avp_and_savp_the_latter_is_taken_and_m76_crypto_of_the_session_does_not_count() {
    let mut lines = vec!["m=audio 4000 RTP/AVP 0".to_owned()];
    lines.extend(secure(
        "RTP/SAVP",
        &[line(1, SrtpSuite::AesCm128HmacSha1Tag80, 1)],
    ));
    let plan = decide(&lines, SrtpPolicy::Offer, &mut keys(), None).unwrap();
    assert_eq!(
        m_lines(&answered(&plan)),
        ["m=audio 0 RTP/AVP 0", "m=audio 20000 RTP/SAVP 0 8"]
    );
    // Without SRTP the first one.
    let plan = decide(&lines, SrtpPolicy::Off, &mut keys(), None).unwrap();
    assert_eq!(
        m_lines(&answered(&plan)),
        ["m=audio 20000 RTP/AVP 0", "m=audio 0 RTP/SAVP 0 8"]
    );
    let lines = [
        line(1, SrtpSuite::AesCm128HmacSha1Tag80, 1),
        "m=audio 4000 RTP/SAVP 0".to_owned(),
    ];
    assert_eq!(
        decide(&lines, SrtpPolicy::Offer, &mut keys(), None)
            .unwrap_err()
            .warning,
        399
    );
}

#[test]
fn m53_our_key_stays_with_suite_and_address_and_changes_with_them() {
    let (mut keys, mut session) = (keys(), LocalSession::new(4));
    let one = SrtpSuite::AesCm128HmacSha1Tag80;
    let lines = secure("RTP/SAVP", &[line(1, one, 1)]);
    let plan = decide(&lines, SrtpPolicy::Offer, &mut keys, None).unwrap();
    let first = session.answer(&plan, local());
    let key_of = |text: &str| crypto_lines(text)[0].key.clone();
    // A refresh: the same text, with the same key and version.
    let again = decide(&lines, SrtpPolicy::Offer, &mut keys, session.agreed()).unwrap();
    assert_eq!(session.answer(&again, local()), first);
    // The peer changes its key: ours stays.
    let lines = secure("RTP/SAVP", &[line(1, one, 2)]);
    let plan = decide(&lines, SrtpPolicy::Offer, &mut keys, session.agreed()).unwrap();
    assert_eq!(srtp(&plan.agreed).receive, key(2, one));
    let text = session.answer(&plan, local());
    assert_eq!(key_of(&text), key_of(&first));
    // It moves: ours changes, although it should have changed its own and did not.
    let mut moved = lines.clone();
    moved[0] = "m=audio 4002 RTP/SAVP 0 8".to_owned();
    let plan = decide(&moved, SrtpPolicy::Offer, &mut keys, session.agreed()).unwrap();
    let text = session.answer(&plan, local());
    assert_ne!(key_of(&text), key_of(&first));
    // Another suite: another key.
    moved[1] = line(2, SrtpSuite::AesCm128HmacSha1Tag32, 2);
    let plan = decide(&moved, SrtpPolicy::Offer, &mut keys, session.agreed()).unwrap();
    let last = session.answer(&plan, local());
    assert_ne!(key_of(&last), key_of(&text));
    // Back to plain.
    let plain = ["m=audio 4002 RTP/AVP 0 8".to_owned()];
    let plan = decide(&plain, SrtpPolicy::Offer, &mut keys, session.agreed()).unwrap();
    assert_eq!(plan.agreed.description.srtp, None);
}

fn offer(session: &mut LocalSession, policy: SrtpPolicy, keys: &mut KeySource) -> String {
    session.offer(local(), &mut security(policy, keys))
}

#[test]
fn our_offer_lists_all_suites_with_a_key_each() {
    let (mut keys, mut session) = (keys(), LocalSession::new(4));
    let text = offer(&mut session, SrtpPolicy::Offer, &mut keys);
    let lines = crypto_lines(&text);
    assert_eq!(
        lines.iter().map(|line| line.suite).collect::<Vec<_>>(),
        SrtpSuite::ALL
    );
    assert_eq!(
        lines.iter().map(|line| line.tag).collect::<Vec<_>>(),
        [1, 2, 3, 4, 5]
    );
    assert!(m_lines(&text)[0].starts_with("m=audio 20000 RTP/AVP "), "{text}");
    let again = crypto_lines(&offer(&mut session, SrtpPolicy::Offer, &mut keys));
    assert!(
        again
            .iter()
            .all(|line| !lines.iter().any(|other| other.key == line.key))
    );
    let text = offer(&mut LocalSession::new(5), SrtpPolicy::Require, &mut keys);
    assert!(m_lines(&text)[0].starts_with("m=audio 20000 RTP/SAVP "), "{text}");
    assert_eq!(crypto_lines(&text).len(), 5);
    let text = offer(&mut LocalSession::new(6), SrtpPolicy::Off, &mut keys);
    assert!(
        crypto_lines(&text).is_empty() && text.contains("RTP/AVP"),
        "{text}"
    );
}

#[test]
fn the_answer_to_our_offer_takes_one_line_of_it() {
    let suite = SrtpSuite::AesCm128HmacSha1Tag80;
    let good = secure("RTP/AVP", &[line(3, suite, 9)]);
    let cases = [
        (good.clone(), SrtpPolicy::Offer, Some(true)),
        (
            secure("RTP/SAVP", &[line(3, suite, 9)]),
            SrtpPolicy::Require,
            Some(true),
        ),
        (secure("RTP/AVP", &[]), SrtpPolicy::Offer, Some(false)),
        (secure("RTP/AVP", &[]), SrtpPolicy::Require, None),
        (secure("RTP/SAVP", &[]), SrtpPolicy::Offer, None),
        (secure("RTP/AVP", &[line(2, suite, 9)]), SrtpPolicy::Offer, None),
        (secure("RTP/AVP", &[line(6, suite, 9)]), SrtpPolicy::Offer, None),
        (
            secure(
                "RTP/AVP",
                &[line(3, suite, 9), line(1, SrtpSuite::AeadAes128Gcm, 8)],
            ),
            SrtpPolicy::Offer,
            None,
        ),
        (
            secure(
                "RTP/AVP",
                &["a=crypto:3 AES_CM_128_HMAC_SHA1_80 inline:x".to_owned()],
            ),
            SrtpPolicy::Offer,
            None,
        ),
        (good, SrtpPolicy::Off, None),
    ];
    for (answer, policy, taken) in cases {
        let (mut keys, mut session) = (keys(), LocalSession::new(4));
        let offered = crypto_lines(&offer(&mut session, policy, &mut keys));
        let result = session.accept_answer(text(&answer).as_bytes());
        let what = format!("{answer:?} {policy:?}");
        match (result, taken) {
            (Ok(agreed), Some(true)) => {
                let ours = &offered[2];
                assert_eq!(srtp(&agreed).send, ours.key, "{what}");
                assert_eq!(srtp(&agreed).receive, key(9, suite), "{what}");
                assert_eq!(session.agreed(), Some(&agreed));
            }
            (Ok(agreed), Some(false)) => assert_eq!(agreed.description.srtp, None, "{what}"),
            (Err(AnswerError::Unusable(_)), None) => {}
            (result, _) => panic!("{what}: {result:?}"),
        }
    }
}

#[test]
fn a_restarted_process_has_the_same_keys_and_gives_the_same_answer() {
    let (mut keys, mut session) = (keys(), LocalSession::new(4));
    let lines = secure(
        "RTP/SAVP",
        &[
            line(1, SrtpSuite::AesCm128HmacSha1Tag80, 1),
            line(2, SrtpSuite::AeadAes128Gcm, 2),
        ],
    );
    let plan = decide(&lines, SrtpPolicy::Offer, &mut keys, None).unwrap();
    let answer = session.answer(&plan, local());
    let media = LocalSession::restored_media(&answer, &text(&lines)).unwrap();
    assert_eq!(media.description.srtp, plan.agreed.description.srtp);
    let mut restored = LocalSession::restore(&answer, &text(&lines)).unwrap();
    let mut other_keys = KeySource::new(&KeySeed([200; 32]));
    let again = decide(&lines, SrtpPolicy::Offer, &mut other_keys, restored.agreed()).unwrap();
    assert_eq!(restored.answer(&again, local()), answer);
    // We offered.
    let mut session = LocalSession::new(5);
    let offered = offer(&mut session, SrtpPolicy::Require, &mut keys);
    let answer = text(&secure(
        "RTP/SAVP",
        &[line(4, SrtpSuite::AesCm256HmacSha1Tag80, 7)],
    ));
    let agreed = session.accept_answer(answer.as_bytes()).unwrap();
    let media = LocalSession::restored_media(&offered, &answer).unwrap();
    assert_eq!(media.description.srtp, agreed.description.srtp);
}

#[test]
fn nothing_printed_holds_a_key() {
    let lines = secure("RTP/SAVP", &[line(1, SrtpSuite::AeadAes128Gcm, 1)]);
    let plan = decide(&lines, SrtpPolicy::Offer, &mut keys(), None).unwrap();
    let mut session = LocalSession::new(4);
    let answer = session.answer(&plan, local());
    let printed = format!("{plan:?} {session:?} {:?}", parsed(&text(&lines)));
    for key in [&srtp(&plan.agreed).receive, &srtp(&plan.agreed).send] {
        assert!(!printed.contains(key.to_base64().as_str()), "{printed}");
    }
    assert!(answer.contains(srtp(&plan.agreed).send.to_base64().as_str()));
}
