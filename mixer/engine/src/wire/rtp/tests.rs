use bytes::Bytes;
use proptest::prelude::*;
use rtp::packet::Packet;
use util::marshal::Unmarshal as _;

use super::*;
use crate::wire::checksum;

/// Datagrams that are RTP more often than not: a header with every part, valid or not.
fn datagrams() -> impl Strategy<Value = Vec<u8>> {
    let tail = proptest::collection::vec(any::<u8>(), 0..120);
    let structured = (any::<[u8; 12]>(), any::<bool>(), 0_u8..4, 0_u16..6, tail).prop_map(
        |(mut fixed, extension, csrc, words, mut tail)| {
            fixed[0] = 0x80 | fixed[0] & 0x20 | u8::from(extension) << 4 | csrc;
            let mut bytes = fixed.to_vec();
            bytes.extend((0..csrc).flat_map(|n| [n; 4]));
            if extension {
                bytes.extend([0x12, 0x34]);
                bytes.extend(words.to_be_bytes());
            }
            if let Some(last) = tail.last_mut() {
                *last %= 140;
            }
            bytes.extend(tail);
            bytes
        },
    );
    prop_oneof![4 => structured, 1 => proptest::collection::vec(any::<u8>(), 0..80)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn agrees_with_an_independent_parser(datagram in datagrams()) {
        let ours = RtpView::parse(&datagram);
        let mut bytes = Bytes::copy_from_slice(&datagram);
        let theirs = Packet::unmarshal(&mut bytes);
        // The other parser takes any version and a padding count of 0, and interprets the
        // contents of extensions, which we skip.
        if let Ok(view) = ours {
            let interpreted = datagram[0] & 0x10 != 0;
            let Ok(packet) = theirs else {
                prop_assert!(interpreted, "only we accept {datagram:02x?}");
                return Ok(());
            };
            prop_assert_eq!(view.payload_type(), packet.header.payload_type);
            prop_assert_eq!(view.marker(), packet.header.marker);
            prop_assert_eq!(view.sequence(), packet.header.sequence_number);
            prop_assert_eq!(view.timestamp(), packet.header.timestamp);
            prop_assert_eq!(view.ssrc(), packet.header.ssrc);
            prop_assert_eq!(view.csrcs().collect::<Vec<_>>(), packet.header.csrc);
            prop_assert_eq!(view.payload(), &packet.payload[..]);
        } else if theirs.is_ok() {
            let no_padding_count = datagram[0] & 0x20 != 0 && datagram.last() == Some(&0);
            let other_version = datagram[0] >> 6 != 2;
            prop_assert!(no_padding_count || other_version, "only they accept {datagram:02x?}");
        }
    }

    #[test]
    fn any_bytes_are_parsed_or_refused(datagram in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(view) = RtpView::parse(&datagram) {
            prop_assert!(view.payload().len() + 12 + 4 * view.csrcs().count() <= datagram.len());
        }
    }

    #[test]
    fn what_is_emitted_reads_back(
        payload_type in 0_u8..128,
        marker: bool,
        sequence: u16,
        timestamp: u32,
        ssrc: u32,
        csrc in proptest::collection::vec(any::<u32>(), 0..18),
        payload in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let header = RtpRepr { payload_type, marker, sequence, timestamp, ssrc, csrc: &csrc };
        let mut buffer = [0xee_u8; 120];
        let length = header.emit(&mut buffer);
        prop_assert_eq!(length, header.header_length());
        prop_assert_eq!(header.sum(), checksum::add(0, &buffer[..length]));
        buffer[length..][..payload.len()].copy_from_slice(&payload);
        let view = RtpView::parse(&buffer[..length + payload.len()]).unwrap();
        let kept = &csrc[..csrc.len().min(CSRC_MAX)];
        prop_assert_eq!(view.csrcs().collect::<Vec<_>>(), kept);
        let back = RtpRepr {
            payload_type: view.payload_type(),
            marker: view.marker(),
            sequence: view.sequence(),
            timestamp: view.timestamp(),
            ssrc: view.ssrc(),
            csrc: &csrc,
        };
        prop_assert_eq!(back, header);
        prop_assert_eq!(view.payload(), &payload[..]);
    }
}

const PLAIN: [u8; 14] = [
    0x80, 0x88, 0x12, 0x34, 0, 0, 1, 2, 0xde, 0xad, 0xbe, 0xef, 0xaa, 0xbb,
];

fn refused(datagram: &[u8]) -> DropReason {
    RtpView::parse(datagram).unwrap_err()
}

#[test]
fn plain_header() {
    let view = RtpView::parse(&PLAIN).unwrap();
    assert_eq!(
        (view.payload_type(), view.marker(), view.sequence()),
        (8, true, 0x1234)
    );
    assert_eq!(
        (view.timestamp(), view.ssrc(), view.payload()),
        (0x102, 0xdead_beef, &[0xaa, 0xbb][..])
    );
    assert_eq!(RtpView::parse(&PLAIN[..12]).unwrap().payload(), b"");
}

#[test]
fn every_length_is_checked() {
    assert_eq!(refused(&PLAIN[..11]), DropReason::Malformed);
    assert_eq!(refused(&[0x40; 20]), DropReason::BadVersion);
    let with = |first: u8, rest: &[u8]| {
        let mut datagram = PLAIN[..12].to_vec();
        datagram[0] = first;
        datagram.extend_from_slice(rest);
        datagram
    };
    assert_eq!(
        refused(&with(0x81, &[0; 3])),
        DropReason::Malformed,
        "CSRC list cut"
    );
    assert_eq!(
        refused(&with(0x90, &[0; 3])),
        DropReason::Malformed,
        "extension header cut"
    );
    assert_eq!(
        refused(&with(0x90, &[0, 0, 0, 1, 9, 9, 9])),
        DropReason::Malformed,
        "extension cut"
    );
    assert_eq!(
        refused(&with(0xa0, &[])),
        DropReason::Malformed,
        "no padding count"
    );
    assert_eq!(
        refused(&with(0xa0, &[7, 0])),
        DropReason::Malformed,
        "padding count 0"
    );
    assert_eq!(
        refused(&with(0xa0, &[7, 3])),
        DropReason::Malformed,
        "more padding than bytes"
    );
    let all = with(0xb1, &[1, 2, 3, 4, 0xbe, 0xde, 0, 1, 5, 5, 5, 5, 0x77, 0, 2]);
    let view = RtpView::parse(&all).unwrap();
    assert_eq!(view.csrcs().collect::<Vec<_>>(), [0x0102_0304]);
    assert_eq!(view.payload(), [0x77]);
}

#[test]
fn a_short_buffer_is_left_alone() {
    let header = RtpRepr {
        payload_type: 0,
        marker: false,
        sequence: 1,
        timestamp: 2,
        ssrc: 3,
        csrc: &[4],
    };
    let mut buffer = [0xee_u8; 15];
    assert_eq!(header.emit(&mut buffer), 0);
    assert_eq!(buffer, [0xee; 15]);
}
