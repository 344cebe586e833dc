//! Frames there and back, and everything that is refused.

use super::*;
use proptest::prelude::*;

const OURS: Mac = Mac([2, 0, 0, 0, 0, 1]);
const PEER: Mac = Mac([2, 0, 0, 0, 0, 2]);

fn link(tags: &[(u16, u16)]) -> Link {
    let mut link = Link {
        source: PEER,
        destination: OURS,
        tags: Tags::default(),
    };
    for (ether_type, identifier) in tags {
        assert!(link.tags.push(*ether_type, *identifier));
    }
    link
}

fn frame(tags: &[(u16, u16)], from: &str, to: &str, payload: &[u8]) -> Vec<u8> {
    let template = Template::new(link(tags), from.parse().unwrap(), to.parse().unwrap(), 46 << 2).unwrap();
    let mut chunk = vec![0xaa; 2_048];
    let length = template.write(&mut chunk, 1_472, |buffer| {
        buffer[..payload.len()].copy_from_slice(payload);
        payload.len()
    });
    chunk.truncate(length as usize);
    chunk
}

#[test]
fn what_is_written_is_read() {
    for tags in [&[][..], &[(VLAN, 7)], &[(SERVICE_VLAN, 100), (VLAN, 4_094)]] {
        for (from, to) in [
            ("192.0.2.1:4000", "192.0.2.9:10002"),
            ("[2001:db8::1]:4000", "[2001:db8::9]:10002"),
        ] {
            for length in [0, 1, 2, 3, 171, 172, 1_472] {
                let payload: Vec<u8> = (0..length).map(|n| u8::try_from(n % 251).unwrap()).collect();
                let bytes = frame(tags, from, to, &payload);
                let received = parse(&bytes).unwrap();
                assert_eq!(received.payload, payload);
                assert_eq!(received.source, from.parse().unwrap());
                assert_eq!(received.local_port, 10_002);
                assert_eq!(received.origin.mac, PEER);
                assert_eq!(received.origin.tags, link(tags).tags);
            }
        }
    }
}

/// A frame spelt out byte by byte, as another stack would write it.
#[test]
fn a_frame_by_hand() {
    let bytes = [
        0x02, 0x00, 0x00, 0x00, 0x00, 0x01, 0x02, 0x00, 0x00, 0x00, 0x00, 0x02, 0x08, 0x00, 0x45, 0x00, 0x00,
        0x21, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xb6, 0xc1, 0xc0, 0x00, 0x02, 0x01, 0xc0, 0x00, 0x02, 0x09,
        0x0f, 0xa0, 0x27, 0x12, 0x00, 0x0d, 0x00, 0x00, b'h', b'e', b'l', b'l', b'o',
    ];
    let received = parse(&bytes).unwrap();
    assert_eq!(received.payload, b"hello", "without a checksum on IPv4");
    let ours = frame(&[], "192.0.2.1:4000", "192.0.2.9:10002", b"hello");
    // Ours differs in traffic class and its checksum, and has a UDP checksum.
    assert_eq!(ours[..15], bytes[..15]);
    assert_eq!(ours[16..24], bytes[16..24]);
    assert_eq!(ours[26..40], bytes[26..40]);
}

#[test]
fn headers_are_as_promised() {
    let bytes = frame(&[], "192.0.2.1:4000", "192.0.2.9:10002", b"x");
    assert_eq!(bytes[15], 184, "expedited forwarding");
    assert_eq!(
        &bytes[18..22],
        [0, 0, 0x40, 0],
        "no identification, do not fragment"
    );
    assert!(
        checksum::is_whole(checksum::add(0, &bytes[14..34])),
        "IPv4 header checksum"
    );
    let bytes = frame(&[], "[2001:db8::1]:4000", "[2001:db8::9]:10002", b"x");
    assert_eq!(bytes[14..16], [0x6b, 0x80], "version and traffic class");
}

#[test]
fn a_sum_of_zero_is_sent_as_its_equal() {
    let zero = (0..=u16::MAX).find_map(|number| {
        let bytes = frame(
            &[],
            "[2001:db8::1]:4000",
            "[2001:db8::9]:10002",
            &number.to_be_bytes(),
        );
        assert_ne!(bytes[60..62], [0, 0]);
        (bytes[60..62] == [0xff, 0xff]).then_some(bytes)
    });
    assert!(parse(&zero.unwrap()).is_ok());
}

#[test]
fn broken_checksums_are_told_from_broken_frames() {
    for (from, to) in [
        ("192.0.2.1:4000", "192.0.2.9:10002"),
        ("[2001:db8::1]:4000", "[2001:db8::9]:10002"),
    ] {
        let bytes = frame(&[(VLAN, 5)], from, to, b"payload");
        let mut broken = bytes.clone();
        *broken.last_mut().unwrap() ^= 1;
        assert_eq!(parse(&broken).unwrap_err(), Refused::Checksum);
        for length in 0..bytes.len() {
            assert_eq!(
                parse(&bytes[..length]).unwrap_err(),
                Refused::Malformed,
                "{length}"
            );
        }
        // Ethernet pads short frames.
        let mut padded = bytes.clone();
        padded.resize(80, 0x55);
        assert_eq!(parse(&padded).unwrap().payload, b"payload");
    }
    let mut unchecked = frame(&[], "[2001:db8::1]:4000", "[2001:db8::9]:10002", b"x");
    unchecked[60..62].fill(0);
    assert_eq!(parse(&unchecked).unwrap_err(), Refused::Checksum);
}

#[test]
fn what_is_not_ours_is_malformed() {
    let good = frame(&[], "192.0.2.1:4000", "192.0.2.9:10002", b"payload");
    let changes: [(usize, u8, &str); 6] = [
        (12, 0x09, "ether type"),
        (14, 0x46, "options"),
        (14, 0x65, "version"),
        (20, 0x20, "more fragments"),
        (21, 0x01, "fragment offset"),
        (23, 6, "TCP"),
    ];
    for (at, value, what) in changes {
        let mut bytes = good.clone();
        bytes[at] = value;
        assert_eq!(parse(&bytes).unwrap_err(), Refused::Malformed, "{what}");
    }
    let mut three = frame(
        &[(SERVICE_VLAN, 1), (VLAN, 2)],
        "192.0.2.1:1",
        "192.0.2.9:2",
        b"x",
    );
    three.splice(12..12, [0x81, 0x00, 0, 3]);
    assert_eq!(parse(&three).unwrap_err(), Refused::Malformed);
}

#[test]
fn families_do_not_mix_and_long_payloads_are_cut() {
    let four = "192.0.2.1:1".parse().unwrap();
    let six = "[2001:db8::1]:1".parse().unwrap();
    assert!(Template::new(link(&[]), four, six, 0).is_none());
    assert!(Template::new(link(&[]), six, four, 0).is_none());
    let template = Template::new(link(&[]), six, six, 0).unwrap();
    let mut chunk = [0; 2_048];
    let length = template.write(&mut chunk, 100, |buffer| {
        assert_eq!(buffer.len(), 100);
        1_000
    });
    assert_eq!(length, 62 + 100);
}

#[test]
fn a_port_is_known_early() {
    let ipv4 = frame(&[], "192.0.2.1:4000", "192.0.2.9:10002", &[0; 20]);
    let ipv6 = frame(&[], "[2001:db8::1]:4000", "[2001:db8::9]:10004", &[0; 20]);
    let twice = [(SERVICE_VLAN, 100), (VLAN, 7)];
    let tagged = frame(&twice, "192.0.2.1:4000", "192.0.2.9:10006", &[0; 20]);
    assert_eq!(local_port(&ipv4), Some(10_002));
    assert_eq!(local_port(&ipv6), Some(10_004));
    assert_eq!(local_port(&tagged), Some(10_006));
    assert_eq!(local_port(&ipv4[..37]), None);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&bytes);
        let _ = local_port(&bytes);
    }

    #[test]
    fn a_changed_frame_is_never_read_as_another_payload(
        at in 34usize..90, change in 1u8..=255, payload in prop::collection::vec(any::<u8>(), 60),
    ) {
        let mut bytes = frame(&[], "192.0.2.1:4000", "192.0.2.9:10002", &payload);
        bytes[at] ^= change;
        // Either refused, or the change made the checksum vanish (0 means none), which IPv4 allows.
        if let Ok(received) = parse(&bytes) {
            prop_assert_eq!(&bytes[40..42], [0, 0]);
            prop_assert_eq!(received.payload, &payload[..]);
        }
    }
}
