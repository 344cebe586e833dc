use proptest::prelude::*;

use super::derive::{Aes, Derivation, Label};
use super::*;
use crate::wire::rtp::{RtpRepr, RtpView};

mod vectors;

fn key(suite: Suite, seed: u8) -> MasterKey {
    let bytes: Vec<u8> = (0..suite.key_bytes() + suite.salt_bytes())
        .map(|n| u8::try_from(n).unwrap().wrapping_mul(37) ^ seed)
        .collect();
    MasterKey::new(suite, &bytes).unwrap()
}

/// Both ends of one way.
fn pair(suite: Suite) -> (Sending, Receiving) {
    (Sending::new(key(suite, 1)), Receiving::new(key(suite, 1)))
}

fn packet(ssrc: u32, sequence: u16, csrc: &[u32], payload: &[u8]) -> Vec<u8> {
    let header = RtpRepr {
        payload_type: 0,
        marker: false,
        sequence,
        timestamp: 160 * u32::from(sequence),
        ssrc,
        csrc,
    };
    let mut bytes = vec![0; header.header_length()];
    assert_eq!(header.emit(&mut bytes), bytes.len());
    bytes.extend_from_slice(payload);
    bytes
}

fn protect(keys: &Sending, packet: &[u8]) -> Vec<u8> {
    let mut buffer = packet.to_vec();
    buffer.resize(packet.len() + OVERHEAD_MAX, 0xAA);
    let length = keys.protect(&mut buffer, packet.len()).unwrap();
    buffer.truncate(length);
    buffer
}

fn unprotect(keys: &mut Receiving, packet: &[u8]) -> Result<Vec<u8>, UnprotectError> {
    let mut buffer = packet.to_vec();
    match keys.unprotect(&mut buffer) {
        Ok(length) => {
            buffer.truncate(length);
            Ok(buffer)
        }
        Err(error) => {
            assert_eq!(buffer, packet, "a refused packet is unchanged");
            Err(error)
        }
    }
}

/// An SRTP packet of a sender whose sequence numbers have come round `roll_overs` times.
fn sent(suite: Suite, roll_overs: u64, sequence: u16) -> Vec<u8> {
    let mut sender = pair(suite).0;
    (0..roll_overs).for_each(|_| sender.roll_over());
    protect(&sender, &packet(7, sequence, &[], b"abc"))
}

fn suites() -> impl Strategy<Value = Suite> {
    prop::sample::select(Suite::ALL.to_vec())
}

proptest! {
    #[test]
    fn what_is_protected_is_unprotected(
        suite in suites(), ssrc: u32, sequence: u16, csrc in prop::collection::vec(any::<u32>(), 0..=15),
        payload in prop::collection::vec(any::<u8>(), 0..1000),
    ) {
        let (sender, mut receiver) = pair(suite);
        let plain = packet(ssrc, sequence, &csrc, &payload);
        let protected = protect(&sender, &plain);
        prop_assert_eq!(protected.len(), plain.len() + suite.tag_bytes());
        let header = 12 + 4 * csrc.len();
        prop_assert_eq!(&protected[..header], &plain[..header]);
        if payload.len() > 8 {
            prop_assert_ne!(&protected[header..plain.len()], &payload[..]);
        }
        prop_assert_eq!(unprotect(&mut receiver, &protected), Ok(plain));
        prop_assert_eq!(unprotect(&mut receiver, &protected), Err(UnprotectError::Replayed));
    }

    #[test]
    fn rtcp_that_is_protected_is_unprotected(suite in suites(), ssrc: u32, rest in prop::collection::vec(any::<u8>(), 0..400)) {
        let (mut sender, mut receiver) = pair(suite);
        let mut plain = vec![0x80, 201, 0, 1];
        plain.extend(ssrc.to_be_bytes());
        plain.extend(&rest);
        for n in 0..3 {
            let mut buffer = plain.clone();
            buffer.resize(plain.len() + OVERHEAD_MAX, 0);
            let length = sender.protect_rtcp(&mut buffer, plain.len()).unwrap();
            buffer.truncate(length);
            prop_assert!(length <= plain.len() + OVERHEAD_MAX);
            for place in [0, 5, 8.min(length - 1), length / 2, length - 1] {
                let mut bent = buffer.clone();
                bent[place] ^= 0x40;
                prop_assert!(receiver.unprotect_rtcp(&mut bent).is_err(), "packet {n}, byte {place}");
            }
            let again = buffer.clone();
            let length = receiver.unprotect_rtcp(&mut buffer).unwrap();
            prop_assert_eq!(&buffer[..length], &plain[..]);
            prop_assert_eq!(receiver.unprotect_rtcp(&mut again.clone()), Err(UnprotectError::Replayed));
        }
    }

    #[test]
    fn any_bytes_are_refused_and_change_nothing(suite in suites(), bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let (sender, mut receiver) = pair(suite);
        prop_assert!(unprotect(&mut receiver, &bytes).is_err());
        prop_assert!(receiver.unprotect_rtcp(&mut bytes.clone()).is_err());
        prop_assert!(!receiver.is_proven());
        let plain = packet(1, 2, &[], b"abc");
        prop_assert_eq!(unprotect(&mut receiver, &protect(&sender, &plain)), Ok(plain));
    }

    /// Whatever order packets come in, within the window, over two roll-overs: each is taken exactly once.
    #[test]
    fn every_packet_is_taken_once_in_any_order_within_the_window(
        suite in suites(), start in 0u32..70_000, jumps in prop::collection::vec(-60i64..60, 1..200),
    ) {
        let mut receiver = pair(suite).1;
        let first = i64::from(start % 65_000) + 200;
        prop_assert!(unprotect(&mut receiver, &sent(suite, 0, u16::try_from(first % 65_536).unwrap())).is_ok());
        let mut taken = std::collections::BTreeSet::from([first]);
        let mut highest = first;
        for (n, jump) in jumps.into_iter().enumerate() {
            // It goes on by 5,000 now and then, so that the sequence number comes round.
            let index = highest + if n % 10 == 9 { 5_000 } else { jump };
            let roll_overs = u64::try_from(index / 65_536).unwrap();
            let sequence = u16::try_from(index % 65_536).unwrap();
            let result = unprotect(&mut receiver, &sent(suite, roll_overs, sequence));
            prop_assert_eq!(result.is_ok(), taken.insert(index), "index {}", index);
            highest = highest.max(index);
        }
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    for suite in Suite::ALL {
        let (sender, mut receiver) = pair(suite);
        let good = protect(&sender, &packet(7, 9, &[1, 2], b"sixteen bytes or"));
        for bit in 0..good.len() * 8 {
            let mut bent = good.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            assert!(unprotect(&mut receiver, &bent).is_err(), "{suite:?} bit {bit}");
        }
        for length in 0..good.len() {
            assert!(
                unprotect(&mut receiver, &good[..length]).is_err(),
                "{suite:?} cut at {length}"
            );
        }
        assert!(unprotect(&mut receiver, &good).is_ok());
    }
}

#[test]
fn plain_rtp_and_other_keys_are_not_authentic() {
    for suite in Suite::ALL {
        let (sender, mut receiver) = pair(suite);
        let plain = packet(7, 9, &[], &[0xff; 160]);
        assert_eq!(
            unprotect(&mut receiver, &plain),
            Err(UnprotectError::NotAuthentic)
        );
        let mut other = Receiving::new(key(suite, 2));
        assert_eq!(
            unprotect(&mut other, &protect(&sender, &plain)),
            Err(UnprotectError::NotAuthentic)
        );
    }
}

#[test]
fn packets_reordered_across_the_roll_over_are_taken() {
    for suite in Suite::ALL {
        let mut receiver = pair(suite).1;
        for (roll_overs, sequence) in [(0, 65_530), (1, 3), (0, 65_535), (1, 0), (0, 65_500), (1, 4)] {
            let packet = sent(suite, roll_overs, sequence);
            assert!(
                unprotect(&mut receiver, &packet).is_ok(),
                "{suite:?} {roll_overs} {sequence}"
            );
            assert_eq!(unprotect(&mut receiver, &packet), Err(UnprotectError::Replayed));
        }
        // The same sequence number under the counter before it is another packet, and old.
        assert!(unprotect(&mut receiver, &sent(suite, 0, 4)).is_err());
    }
}

#[test]
fn the_window_is_128_wide() {
    let suite = Suite::AeadAes128Gcm;
    let mut receiver = pair(suite).1;
    assert!(unprotect(&mut receiver, &sent(suite, 0, 1_000)).is_ok());
    assert!(unprotect(&mut receiver, &sent(suite, 0, 1_000 - 127)).is_ok());
    assert_eq!(
        unprotect(&mut receiver, &sent(suite, 0, 1_000 - 128)),
        Err(UnprotectError::Replayed)
    );
}

#[test]
fn another_source_is_another_stream_under_the_same_key() {
    for suite in Suite::ALL {
        let (mut sender, mut receiver) = pair(suite);
        assert!(unprotect(&mut receiver, &protect(&sender, &packet(7, 65_535, &[], b"abc"))).is_ok());
        sender.roll_over();
        assert!(unprotect(&mut receiver, &protect(&sender, &packet(7, 0, &[], b"abc"))).is_ok());
        // M-54: it begins at a roll-over counter of 0.
        let other = protect(&pair(suite).0, &packet(8, 500, &[], b"abc"));
        assert!(unprotect(&mut receiver, &other).is_ok());
        assert_eq!(unprotect(&mut receiver, &other), Err(UnprotectError::Replayed));
        // The first one is not forgotten, neither its counter nor what came.
        let old = protect(&sender, &packet(7, 0, &[], b"abc"));
        assert_eq!(unprotect(&mut receiver, &old), Err(UnprotectError::Replayed));
        assert!(unprotect(&mut receiver, &protect(&sender, &packet(7, 1, &[], b"abc"))).is_ok());
    }
}

#[test]
fn old_keys_hold_until_the_new_ones_are_proven() {
    for (old, new) in [
        (Suite::AesCm128HmacSha1Tag32, Suite::AeadAes256Gcm),
        (Suite::AeadAes128Gcm, Suite::AesCm128HmacSha1Tag80),
    ] {
        let (old_sender, new_sender) = (Sending::new(key(old, 1)), Sending::new(key(new, 9)));
        let receiving = |suite, seed| Some(Box::new(Receiving::new(key(suite, seed))));
        let mut inbound = Inbound::new(receiving(old, 1));
        let take = |inbound: &mut Inbound, sender: &Sending, sequence| {
            // As short as telephone-event.
            let mut packet = protect(sender, &packet(7, sequence, &[], b"abcd"));
            inbound.unprotect(&mut packet).is_ok()
        };
        assert!(take(&mut inbound, &old_sender, 1));
        assert!(
            inbound
                .follow(receiving(new, 9), true)
                .iter()
                .all(Option::is_none)
        );
        assert!(take(&mut inbound, &old_sender, 2));
        // Replaced before it was used: what the peer uses still is kept.
        let worn = inbound.follow(receiving(new, 5), true);
        assert!(worn[0].as_ref().is_some_and(|keys| keys.key == key(new, 9)));
        assert!(inbound.follow(receiving(new, 9), true)[0].is_some());
        assert!(take(&mut inbound, &old_sender, 3));
        assert!(take(&mut inbound, &new_sender, 4));
        assert!(!take(&mut inbound, &old_sender, 5), "they are over");
        // The same key from the same place goes on; from another place it begins anew.
        assert!(inbound.follow(receiving(new, 9), true)[0].is_some());
        assert!(!take(&mut inbound, &new_sender, 4), "what came is known");
        let worn = inbound.follow(receiving(new, 9), false);
        assert!(worn[0].as_ref().is_some_and(|keys| keys.key == key(old, 1)));
        assert!(take(&mut inbound, &new_sender, 4));
        // A change that is taken back: what came is known still, and the keys between hold until the peer is back.
        assert!(inbound.follow(receiving(old, 5), true)[0].is_some());
        let between = Sending::new(key(old, 5));
        assert!(take(&mut inbound, &between, 1));
        assert!(inbound.follow(receiving(new, 9), true)[0].is_some());
        assert!(take(&mut inbound, &between, 2));
        assert!(!take(&mut inbound, &new_sender, 4));
        assert!(take(&mut inbound, &new_sender, 5));
        assert!(!take(&mut inbound, &between, 3), "they are over");
        // Plain from now on: everything comes back.
        assert!(inbound.follow(None, true).iter().all(Option::is_some));
        assert!(!inbound.is_on());
    }
}

#[test]
fn a_worn_out_key_protects_nothing() {
    let (mut sender, _) = pair(Suite::AesCm128HmacSha1Tag80);
    let mut buffer = [0x80; 100];
    sender.roll_over = u64::from(u32::MAX);
    assert!(sender.protect(&mut buffer, 60).is_some());
    sender.roll_over();
    assert!(sender.is_worn_out());
    assert_eq!(sender.protect(&mut buffer, 60), None);
    sender.rtcp_index = 0x7fff_ffff;
    assert!(sender.protect_rtcp(&mut buffer, 60).is_some());
    assert_eq!(sender.protect_rtcp(&mut buffer, 60), None);
}

#[test]
fn there_must_be_room_for_the_tag() {
    for suite in Suite::ALL {
        let (mut sender, _) = pair(suite);
        let plain = packet(7, 9, &[], b"abc");
        let mut buffer = plain.clone();
        buffer.resize(plain.len() + suite.tag_bytes() - 1, 0);
        assert_eq!(sender.protect(&mut buffer, plain.len()), None);
        assert_eq!(sender.protect_rtcp(&mut buffer[..16], 12), None);
    }
}

#[test]
fn nothing_printed_holds_a_key() {
    let srtp = Srtp::new(key(Suite::AeadAes128Gcm, 1), key(Suite::AeadAes128Gcm, 2));
    let printed = format!("{srtp:?} {:?}", key(Suite::AesCm256HmacSha1Tag80, 3));
    assert_eq!(
        printed,
        "Srtp { send: Sending { suite: AeadAes128Gcm, .. }, receive: Receiving { suite: AeadAes128Gcm, .. } } \
         MasterKey { suite: AesCm256HmacSha1Tag80, .. }"
    );
}

#[test]
fn keys_of_other_lengths_are_refused() {
    for suite in Suite::ALL {
        let wanted = suite.key_bytes() + suite.salt_bytes();
        for found in (0..60).filter(|found| *found != wanted) {
            assert_eq!(
                MasterKey::new(suite, &vec![7; found]),
                Err(KeyError { found, wanted })
            );
        }
    }
}

#[test]
fn state_goes_on() {
    for suite in Suite::ALL {
        let (mut sender, mut receiver) = pair(suite);
        assert!(unprotect(&mut receiver, &protect(&sender, &packet(7, 65_535, &[], b"abc"))).is_ok());
        sender.roll_over();
        let bytes = rmp_serde::to_vec_named(&(&sender, &receiver)).unwrap();
        let (sender, mut receiver): (Sending, Receiving) = rmp_serde::from_slice(&bytes).unwrap();
        let next = protect(&sender, &packet(7, 0, &[], b"abc"));
        assert!(unprotect(&mut receiver, &next).is_ok() && receiver.is_proven());
        let old = protect(&pair(suite).0, &packet(7, 65_535, &[], b"abc"));
        assert_eq!(unprotect(&mut receiver, &old), Err(UnprotectError::Replayed));
    }
}

#[test]
fn what_is_unprotected_can_be_read() {
    let (sender, mut receiver) = pair(Suite::AesCm128HmacSha1Tag80);
    let plain = packet(7, 9, &[1], b"abc");
    let bytes = unprotect(&mut receiver, &protect(&sender, &plain)).unwrap();
    assert_eq!(RtpView::parse(&bytes).unwrap().payload(), b"abc");
}
