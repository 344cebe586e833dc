//! Replays the corpora of the fuzz targets, and goes on with a few thousand random inputs.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "fuzz/xdp_frame.rs"]
mod xdp_frame;

#[path = "fuzz/srtp_unprotect.rs"]
mod srtp_unprotect;

use std::path::Path;

use proptest::prelude::*;

fn replay(corpus: &str, exercise: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(corpus);
    let mut replayed = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        exercise(&std::fs::read(entry.unwrap().path()).unwrap());
        replayed += 1;
    }
    assert!(replayed > 0, "the corpus is empty");
}

#[test]
fn the_corpus_of_xdp_frame() {
    replay("xdp_frame", xdp_frame::exercise);
}

#[test]
fn the_corpus_of_srtp_unprotect() {
    replay("srtp_unprotect", srtp_unprotect::exercise);
}

/// A frame that would be taken, to be changed at a few places.
fn good_frame(port: u16) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    frame.extend([
        0x45, 0, 0, 40, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 9,
    ]);
    frame.extend(4_000u16.to_be_bytes());
    frame.extend(port.to_be_bytes());
    frame.extend([0, 20, 0, 0]);
    frame.extend([0x80, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1]);
    frame
}

fn operation() -> impl Strategy<Value = Vec<u8>> {
    let frame = (
        0u16..8,
        prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    );
    prop_oneof![
        (0u8..14).prop_map(|operation| vec![operation]),
        frame.prop_map(|(port, changes)| {
            let port = if port == 7 { 11_000 } else { 10_000 + port };
            let mut frame = good_frame(port);
            for (at, value) in changes {
                let at = at.index(frame.len());
                frame[at] = value;
            }
            frame.insert(0, u8::try_from(frame.len()).unwrap());
            frame
        }),
        prop::collection::vec(any::<u8>(), 0..80),
    ]
}

/// An operation of `srtp_unprotect`.
fn srtp_operation() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        (0u8..4).prop_map(|operation| vec![operation]),
        any::<[u8; 2]>().prop_map(|[place, change]| vec![4, place, change]),
        prop::collection::vec(any::<u8>(), 5..200).prop_map(|mut bytes| {
            bytes[0] |= 0x80;
            bytes.insert(0, u8::try_from(bytes.len()).unwrap());
            bytes
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]
    #[test]
    fn only_what_the_peer_sent_is_taken(suite: u8, operations in prop::collection::vec(srtp_operation(), 0..80)) {
        srtp_unprotect::exercise(&[vec![suite], operations.concat()].concat());
    }

    #[test]
    fn no_chunk_is_lost_whatever_arrives(operations in prop::collection::vec(operation(), 0..60)) {
        xdp_frame::exercise(&operations.concat());
    }
}
