//! SRTP over the whole core: what a peer offers, what it is answered, and what the mixer is told.

use signaling_core::effect::{Count, LogLine};
use signaling_core::srtp::{Srtp, SrtpPolicies, SrtpPolicy, SrtpSuite};

use crate::restore::restart;
use crate::world::{OFFER, Phone, Sent, World, config, statuses};

const KEY: &str = "WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz";
const OTHER_KEY: &str = "PS1uQCVeeCFCanVmcjkpPywjNWhcYD0mXXtxaVBR";
const GCM_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGw==";

/// [`OFFER`] over SAVP, with one AES-CM line.
fn secure(key: &str) -> String {
    OFFER.replace("RTP/AVP", "RTP/SAVP") + &format!("a=crypto:7 AES_CM_128_HMAC_SHA1_80 inline:{key}\r\n")
}

fn crypto(sent: &Sent) -> Vec<String> {
    let lines = sent.body().lines().map(str::to_owned);
    lines.filter(|line| line.starts_with("a=crypto:")).collect()
}

/// What the mixer has of the one endpoint.
fn keys(world: &World) -> Option<Srtp> {
    world.media(&world.endpoint()).unwrap().srtp
}

fn in_clear(world: &World) -> usize {
    let counts = world.counts.iter();
    counts.filter(|count| **count == Count::KeysInClear).count()
}

fn with_policy(policy: SrtpPolicy) -> World {
    World::with(signaling_core::CoreConfig {
        srtp: SrtpPolicies {
            default: policy,
            off: vec![("203.0.113.0".parse().unwrap(), 24)],
            require: Vec::new(),
        },
        ..config()
    })
}

#[test]
fn keys_of_both_sides_reach_the_mixer_and_nobody_else() {
    let mut world = World::new();
    let mut phone = Phone::new("a");
    let invite = phone.with_sdp("INVITE", &secure(KEY));
    let ok = phone.complete(&mut world, &invite);
    assert!(
        ok.body().contains("m=audio 20002 RTP/SAVP 0 101\r\n"),
        "{}",
        ok.body()
    );
    let srtp = keys(&world).unwrap();
    assert_eq!(srtp.suite, SrtpSuite::AesCm128HmacSha1Tag80);
    assert_eq!(*srtp.receive.to_base64(), KEY);
    let ours = srtp.send.to_base64();
    assert_eq!(
        crypto(&ok),
        [format!("a=crypto:7 AES_CM_128_HMAC_SHA1_80 inline:{}", *ours)]
    );
    assert_eq!(in_clear(&world), 1, "it came over UDP");
    // What a restarted process needs is in the record, and nothing is in a log line.
    let record = world.dialogs.values().next().unwrap();
    assert!(record.local_sdp.contains(ours.as_str()) && record.remote_sdp.contains(KEY));
    let said = |line: &LogLine| format!("{line:?}");
    let said: String = world.logs.iter().map(said).collect();
    assert!(!said.contains(KEY) && !said.contains(ours.as_str()));
    // Plain calls have none, and count nothing.
    let mut plain = Phone::to("b", "sip:conf-43@192.0.2.1");
    assert!(crypto(&plain.call(&mut world)).is_empty());
    assert_eq!(in_clear(&world), 1);
    plain.hang_up(&mut world);
    phone.hang_up(&mut world);
    world.assert_clean();
}

#[test]
fn what_cannot_be_served_is_488_with_a_warning() {
    let broken = secure("c2hvcnQ=");
    let mki = secure(&format!("{KEY}|2^20|1:4"));
    let bare = OFFER.replace("RTP/AVP", "RTP/SAVP");
    let cases = [
        (
            SrtpPolicy::Offer,
            broken.as_str(),
            "399 localhost \"no usable a=crypto: key has not",
        ),
        (SrtpPolicy::Offer, &mki, "399 localhost \"no usable a=crypto: MKI"),
        (SrtpPolicy::Offer, &bare, "399 localhost \"SRTP is needed"),
        (SrtpPolicy::Require, OFFER, "399 localhost \"SRTP is needed"),
        (
            SrtpPolicy::Off,
            &secure(KEY),
            "302 localhost \"transport RTP/SAVP",
        ),
    ];
    for (policy, offer, warning) in cases {
        let mut world = with_policy(policy);
        let sent = world.exchange(&Phone::new("a").with_sdp("INVITE", offer));
        assert_eq!(statuses(&sent), [488], "{offer}");
        let found = sent[0].header("Warning").unwrap();
        assert!(found.starts_with(warning) && !found.contains(KEY), "{found}");
    }
    // The policy of a peer's network counts for its calls.
    let mut world = World::with(signaling_core::CoreConfig {
        srtp: SrtpPolicies {
            default: SrtpPolicy::Offer,
            off: Vec::new(),
            require: vec![("198.51.100.0".parse().unwrap(), 25)],
        },
        ..config()
    });
    assert_eq!(statuses(&world.exchange(&Phone::new("a").invite())), [488]);
}

#[test]
fn a_late_offer_lists_suites_and_its_answer_takes_one() {
    for (policy, transport) in [(SrtpPolicy::Offer, "RTP/AVP"), (SrtpPolicy::Require, "RTP/SAVP")] {
        let mut world = with_policy(policy);
        let mut phone = Phone::new("a");
        let ok = world.exchange(&phone.with_sdp("INVITE", "")).pop().unwrap();
        assert!(
            ok.body().contains(&format!("m=audio 20002 {transport} 0 8")),
            "{}",
            ok.body()
        );
        let lines = crypto(&ok);
        assert_eq!(lines.len(), 5, "{lines:?}");
        assert!(
            lines[0].starts_with("a=crypto:1 AEAD_AES_128_GCM inline:"),
            "{lines:?}"
        );
        phone.to_tag = ok.tag().to_owned();
        let answer = OFFER.replace("RTP/AVP", transport)
            + &format!("a=crypto:1 AEAD_AES_128_GCM inline:{GCM_KEY}\r\n");
        world.exchange(&phone.with_sdp("ACK", &answer));
        let srtp = keys(&world).unwrap();
        assert_eq!(srtp.suite, SrtpSuite::AeadAes128Gcm);
        assert_eq!(*srtp.receive.to_base64(), GCM_KEY);
        assert!(lines[0].ends_with(srtp.send.to_base64().as_str()));
        assert_eq!(in_clear(&world), 1);
        phone.hang_up(&mut world);
        world.assert_clean();
    }
    // Who knows nothing of SRTP answers our RTP/AVP without it; where it is required the call ends.
    let mut world = with_policy(SrtpPolicy::Offer);
    let mut phone = Phone::new("a");
    let ok = world.exchange(&phone.with_sdp("INVITE", "")).pop().unwrap();
    phone.to_tag = ok.tag().to_owned();
    world.exchange(&phone.with_sdp("ACK", OFFER));
    assert_eq!(keys(&world), None);
    let mut world = with_policy(SrtpPolicy::Require);
    let ok = world
        .exchange(&Phone::new("a").with_sdp("INVITE", ""))
        .pop()
        .unwrap();
    let mut phone = Phone::new("a");
    (phone.to_tag, phone.cseq, phone.branch) = (ok.tag().to_owned(), 1, 1);
    let sent = world.exchange(&phone.with_sdp("ACK", OFFER));
    assert!(sent[0].text.starts_with("BYE "), "{sent:#?}");
}

fn reinvite(world: &mut World, phone: &mut Phone, sdp: &str) -> Sent {
    let sent = world.exchange(&phone.with_sdp("INVITE", sdp));
    let ok = sent.last().unwrap().clone();
    assert_eq!(ok.status(), 200, "{sent:#?}");
    assert!(world.exchange(&phone.with_sdp("ACK", "")).is_empty());
    ok
}

#[test]
fn m53_keys_follow_a_call() {
    let mut world = World::new();
    let mut phone = Phone::new("a");
    let invite = phone.with_sdp("INVITE", &secure(KEY));
    let first = phone.complete(&mut world, &invite);
    let before = keys(&world).unwrap();
    // A session refresh: the mixer is not asked, and the answer is the same.
    let asked = world.mixer.log.len();
    let ok = reinvite(&mut world, &mut phone, &secure(KEY));
    assert_eq!(ok.body(), first.body());
    assert_eq!(world.mixer.log.len(), asked);
    // Hold and resume with the same keys: the mixer keeps them.
    reinvite(&mut world, &mut phone, &(secure(KEY) + "a=sendonly\r\n"));
    assert_eq!(keys(&world).unwrap(), before);
    // A new key of the peer's, at the same place: ours stays.
    reinvite(&mut world, &mut phone, &secure(OTHER_KEY));
    let after = keys(&world).unwrap();
    assert_eq!((*after.receive.to_base64()).as_str(), OTHER_KEY);
    assert_eq!(after.send, before.send);
    // It moves: both are new.
    let moved = secure(KEY).replace("m=audio 6000", "m=audio 6002");
    reinvite(&mut world, &mut phone, &moved);
    let after = keys(&world).unwrap();
    assert_eq!(*after.receive.to_base64(), KEY);
    assert_ne!(after.send, before.send);
    // We are asked for an offer: all suites, over SAVP as before, under keys never used.
    let sent = world.exchange(&phone.with_sdp("INVITE", ""));
    let ok = sent.last().unwrap();
    assert!(ok.body().contains("RTP/SAVP"), "{}", ok.body());
    assert_eq!(crypto(ok).len(), 5);
    assert!(!ok.body().contains(after.send.to_base64().as_str()));
    let answer = moved.replace("crypto:7", "crypto:3");
    world.exchange(&phone.with_sdp("ACK", &answer));
    let last = keys(&world).unwrap();
    assert!(ok.body().contains(last.send.to_base64().as_str()));
    // Plain again is the peer's right.
    reinvite(&mut world, &mut phone, OFFER);
    assert_eq!(keys(&world), None);
    phone.hang_up(&mut world);
    world.assert_clean();
}

#[test]
fn a_restarted_process_repeats_its_answer_to_a_refresh() {
    let mut world = World::new();
    let mut phone = Phone::new("a");
    let invite = phone.with_sdp("INVITE", &secure(KEY));
    let first = phone.complete(&mut world, &invite);
    let (before, asked) = (keys(&world), world.mixer.log.len());
    restart(&mut world);
    let ok = reinvite(&mut world, &mut phone, &secure(KEY));
    assert_eq!(ok.body(), first.body());
    assert_eq!((keys(&world), world.mixer.log.len()), (before, asked));
    phone.hang_up(&mut world);
    world.assert_clean();
}
