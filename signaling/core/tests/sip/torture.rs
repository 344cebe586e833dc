//! Messages of all the kinds of RFC 4475, written for this repository; its originals where they are at
//! hand; and random damage done to both kinds.
//!
//! What holds for each: no panic, the expected answer, an OPTIONS right after is answered, and nothing
//! is left when its time is over.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use proptest::prelude::*;
use signaling_core::input::Flow;

use crate::world::{OFFER, Phone, World, statuses, tcp, udp};

/// Final status for each message; 0: no answer.
const OURS: [(&str, u16); 49] = [
    ("odd-spacing", 200),
    ("wide-characters", 501),
    ("escaped-user", 200),
    ("escaped-zero", 405),
    ("percent-in-method", 501),
    ("no-blank-before-angle", 200),
    ("long-values", 200),
    ("two-in-one-datagram", 200),
    ("semicolon-in-user", 200),
    ("many-transports", 200),
    ("binary-multipart", 405),
    ("foreign-reason", 0),
    ("empty-reason", 0),
    ("stray-separators", 400),
    ("length-beyond-end", 400),
    ("negative-length", 400),
    ("numbers-too-big", 400),
    ("numbers-too-big-in-response", 0),
    ("open-quote", 400),
    ("angles-around-target", 400),
    ("blank-in-target", 400),
    ("blanks-in-start-line", 400),
    ("blank-after-version", 400),
    ("fields-in-target", 400),
    ("date-with-other-zone", 200),
    ("register-bare-question", 405),
    ("blanks-in-angles", 400),
    ("bare-comma-name", 400),
    ("foreign-version", 505),
    ("method-differs-from-cseq", 400),
    ("unknown-method-differs", 400),
    ("status-code-overflow", 0),
    ("cookie-only-branch", 200),
    ("fields-missing", 400),
    ("scheme-unknown", 416),
    ("scheme-of-another-world", 416),
    ("scheme-odd-in-fields", 405),
    ("options-required", 420),
    ("body-unknown", 415),
    ("credentials-unknown", 405),
    ("fields-repeated", 400),
    ("lengths-repeated", 400),
    ("broadcast-via", 0),
    ("no-forwards-left", 200),
    ("contact-parameter-unknown", 405),
    ("uri-parameter-unknown", 405),
    ("escaped-field-in-contact", 405),
    ("no-description-accepted", 406),
    ("old-invite", 200),
];

/// The same for the originals, in the order of the RFC. `wsinv` has a To tag, so it asks for a dialog that
/// is not there.
const ORIGINALS: [(&str, u16); 49] = [
    ("wsinv", 481),
    ("intmeth", 501),
    ("esc01", 404),
    ("escnull", 405),
    ("esc02", 501),
    ("lwsdisp", 200),
    ("longreq", 200),
    ("dblreq", 405),
    ("semiuri", 200),
    ("transports", 200),
    ("mpart01", 405),
    ("unreason", 0),
    ("noreason", 0),
    ("badinv01", 400),
    ("clerr", 400),
    ("ncl", 400),
    ("scalar02", 400),
    ("scalarlg", 0),
    ("quotbal", 400),
    ("ltgtruri", 400),
    ("lwsruri", 400),
    ("lwsstart", 400),
    ("trws", 400),
    ("escruri", 400),
    ("baddate", 200),
    ("regbadct", 405),
    ("badaspec", 400),
    ("baddn", 400),
    ("badvers", 505),
    ("mismatch01", 400),
    ("mismatch02", 400),
    ("bigcode", 0),
    ("badbranch", 200),
    ("insuf", 400),
    ("unkscm", 416),
    ("novelsc", 416),
    ("unksm2", 405),
    ("bext01", 420),
    ("invut", 415),
    ("regaut01", 405),
    ("multi01", 400),
    ("mcl01", 400),
    ("bcast", 0),
    ("zeromf", 200),
    ("cparam01", 405),
    ("cparam02", 405),
    ("regescrt", 405),
    ("sdp01", 406),
    ("inv2543", 200),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torture")
}

fn read(folder: &Path, name: &str) -> Bytes {
    let path = folder.join(format!("{name}.dat"));
    Bytes::from(std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

fn run(folder: &Path, table: &[(&str, u16)]) {
    let mut wrong = Vec::new();
    for (name, expected) in table {
        for flow in [udp(), tcp()] {
            let mut world = World::new();
            world.receive_bytes(flow, read(folder, name));
            let last = statuses(&world.sent)
                .into_iter()
                .rfind(|status| *status != 100)
                .unwrap_or(0);
            if last != *expected {
                wrong.push(format!(
                    "{name} over {:?}: {last}, not {expected}",
                    flow.transport
                ));
            }
            probe(&mut world, flow, name);
            world.assert_clean();
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// An OPTIONS right after is answered.
fn probe(world: &mut World, flow: Flow, name: &str) {
    world.sent.clear();
    world.receive(
        flow,
        &Phone::new(&format!("probe-{name}")).request("OPTIONS", "", ""),
    );
    assert_eq!(statuses(&world.sent), [200], "after {name}");
}

#[test]
fn our_messages_of_all_kinds() {
    run(&folder(), &OURS);
    let files = std::fs::read_dir(folder()).unwrap().count();
    assert_eq!(files, OURS.len(), "a message without an expectation");
}

#[test]
fn the_originals_where_they_are_at_hand() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/rfc4475");
    if !folder.join("wsinv.dat").exists() {
        eprintln!("RFC 4475 ORIGINALS NOT FOUND in {}: NOT RUN", folder.display());
        return;
    }
    run(&folder, &ORIGINALS);
}

#[test]
fn one_core_survives_all_of_them() {
    let mut world = World::new();
    let mut phone = Phone::new("a");
    phone.call(&mut world);
    for (name, _) in OURS {
        for flow in [udp(), tcp()] {
            world.receive_bytes(flow, read(&folder(), name));
            probe(&mut world, flow, &format!("{name}-{:?}", flow.transport));
        }
    }
    assert!(world.left().is_empty());
    phone.hang_up(&mut world);
    world.assert_clean();
}

/// What is done to a message.
#[derive(Debug, Clone)]
enum Damage {
    Set(usize, u8),
    Insert(usize, u8),
    Delete(usize, usize),
    Repeat(usize, usize),
    Truncate(usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let byte = prop_oneof![
        any::<u8>(),
        prop::sample::select(b"\r\n \t:;,<>\"@=\\%0/z".to_vec())
    ];
    prop_oneof![
        4 => (any::<usize>(), byte.clone()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        3 => (any::<usize>(), byte).prop_map(|(at, byte)| Damage::Insert(at, byte)),
        2 => (any::<usize>(), 1..40_usize).prop_map(|(at, length)| Damage::Delete(at, length)),
        1 => (any::<usize>(), 1..80_usize).prop_map(|(at, length)| Damage::Repeat(at, length)),
        1 => any::<usize>().prop_map(Damage::Truncate),
    ]
}

fn apply(mut bytes: Vec<u8>, damages: &[Damage]) -> Vec<u8> {
    for damage in damages {
        let length = bytes.len().max(1);
        match *damage {
            Damage::Set(at, byte) => {
                if let Some(place) = bytes.get_mut(at % length) {
                    *place = byte;
                }
            }
            Damage::Insert(at, byte) => bytes.insert(at % length.min(bytes.len() + 1), byte),
            Damage::Delete(at, count) => {
                let start = (at % length).min(bytes.len());
                let end = (start + count).min(bytes.len());
                bytes.drain(start..end);
            }
            Damage::Repeat(at, count) => {
                let start = (at % length).min(bytes.len());
                let end = (start + count).min(bytes.len());
                let copy = bytes[start..end].to_vec();
                bytes.splice(start..start, copy);
            }
            Damage::Truncate(at) => bytes.truncate(at % length),
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn damaged_messages_neither_kill_nor_stay(
        messages in prop::collection::vec(
            (0..OURS.len() + 6, prop::collection::vec(damage(), 0..6), any::<bool>()),
            1..12,
        )
    ) {
        let mut world = World::new();
        let mut phone = Phone::new("a");
        phone.call(&mut world);
        for (which, damages, over_tcp) in messages {
            let text = match which.checked_sub(OURS.len()) {
                None => read(&folder(), OURS[which].0).to_vec(),
                Some(0) => phone.with_sdp("INVITE", OFFER).into_bytes(),
                Some(1) => phone.with_sdp("UPDATE", OFFER).into_bytes(),
                Some(2) => phone.with_sdp("ACK", OFFER).into_bytes(),
                Some(3) => phone.request("CANCEL", "", "").into_bytes(),
                Some(4) => phone.request("INFO", "Content-Type: application/dtmf\r\n", "5").into_bytes(),
                Some(_) => phone.request("BYE", "", "").into_bytes(),
            };
            let flow = if over_tcp { tcp() } else { udp() };
            world.receive_bytes(flow, Bytes::from(apply(text, &damages)));
        }
        world.pass(std::time::Duration::from_secs(70));
        phone.cseq += 100;
        world.receive(udp(), &phone.request("BYE", "", ""));
        world.pass(std::time::Duration::from_secs(70));
        world.assert_clean();
    }
}
