//! Frames in, verdict out: the program run by the kernel it will run in.
//!
//! The object under test is the committed one, or the file that `MIXMINUS_XDP_OBJECT` names.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "verdicts/budget.rs"]
mod budget;
#[path = "verdicts/frame.rs"]
mod frame;
#[path = "verdicts/kernel.rs"]
mod kernel;
#[path = "verdicts/queues.rs"]
mod queues;

use frame::{Frame, RTCP, RTP, SERVICE_VLAN, VLAN};
use kernel::Kernel;
use xdp_abi::{Action, Verdict};

const OURS: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
const PORT: u16 = 16_384;

/// The program with both addresses, one live port and a socket on queue 0.
fn ready() -> Option<Kernel> {
    let mut kernel = Kernel::load()?;
    for ip in OURS {
        kernel.add_address(ip);
    }
    kernel.set_port(PORT, Some(0));
    kernel.open_socket(0);
    Some(kernel)
}

fn ipv4(payload: &[u8]) -> Frame {
    Frame::new("198.51.100.9:40000", "192.0.2.1:16384", payload)
}

fn ipv6(payload: &[u8]) -> Frame {
    Frame::new("[2001:db8:9::9]:40000", "[2001:db8::1]:16384", payload)
}

/// IPv4 and IPv6, without a tag and with every pair of tags that a frame can have.
fn variants(payload: &[u8]) -> Vec<Frame> {
    let tags: [&[u16]; 6] = [
        &[],
        &[VLAN],
        &[SERVICE_VLAN],
        &[VLAN, VLAN],
        &[SERVICE_VLAN, VLAN],
        &[SERVICE_VLAN, SERVICE_VLAN],
    ];
    let both = [ipv4(payload), ipv6(payload)];
    both.iter()
        .flat_map(|frame| tags.map(|tags| frame.clone().tagged(tags)))
        .collect()
}

#[test]
fn ours_is_redirected_and_told_apart() {
    let Some(mut kernel) = ready() else { return };
    let cases: [(&[u8], Verdict); 14] = [
        (RTP, Verdict::RedirectRtp),
        (RTCP, Verdict::RedirectRtcp),
        (&[], Verdict::RedirectOther),
        (&[0x80], Verdict::RedirectOther),
        (&[0, 1, 0, 0], Verdict::RedirectOther),
        (&[22, 254, 253], Verdict::RedirectOther),
        (&[127, 0], Verdict::RedirectOther),
        (&[128, 0], Verdict::RedirectRtp),
        (&[191, 255], Verdict::RedirectRtp),
        (&[192, 0], Verdict::RedirectOther),
        (&[128, 191], Verdict::RedirectRtp),
        (&[128, 192], Verdict::RedirectRtcp),
        (&[191, 223], Verdict::RedirectRtcp),
        (&[128, 224], Verdict::RedirectRtp),
    ];
    for (payload, verdict) in cases {
        for frame in variants(payload) {
            assert_eq!(kernel.judge(&frame.bytes()), verdict, "{frame:?}");
        }
    }
}

#[test]
fn what_is_no_ip_passes() {
    let Some(mut kernel) = ready() else { return };
    for frame in [ipv4(RTP), ipv6(RTP)] {
        let three = frame.clone().tagged(&[SERVICE_VLAN, VLAN, VLAN]).bytes();
        assert_eq!(kernel.judge(&three), Verdict::PassNotIp);
        // ARP, LLDP, an 802.3 length, an old QinQ type, MPLS.
        for kind in [0x0806_u16, 0x88cc, 100, 0x9100, 0x8847] {
            let bytes = frame.with(12, &kind.to_be_bytes());
            assert_eq!(kernel.judge(&bytes), Verdict::PassNotIp, "{kind:#x}");
        }
    }
}

#[test]
fn options_and_extension_headers_pass() {
    let Some(mut kernel) = ready() else { return };
    for words in 6..=15 {
        let frame = ipv4(&[0x80; 60]);
        let bytes = frame.with(frame.ip_at(), &[0x40 + words]);
        assert_eq!(kernel.judge(&bytes), Verdict::PassOptions, "{words}");
    }
    for header in [0, 43, 50, 51, 60, 135, 139, 140] {
        let frame = ipv6(RTP);
        let bytes = frame.with(frame.ip_at() + 6, &[header]);
        assert_eq!(kernel.judge(&bytes), Verdict::PassOptions, "{header}");
    }
}

#[test]
fn fragments_pass() {
    let Some(mut kernel) = ready() else { return };
    let (more, only_one, reserved) = (0x2000_u16, 0x4000, 0x8000);
    for frame in variants(RTP).iter().filter(|frame| frame.destination.is_ipv4()) {
        let mut judge = |flags: u16| kernel.judge(&frame.with(frame.ip_at() + 6, &flags.to_be_bytes()));
        for flags in [more, more | 1, 1, 0x1fff, only_one | more, only_one | 1] {
            assert_eq!(judge(flags), Verdict::PassFragment, "{flags:#x}");
        }
        for flags in [0, only_one, reserved] {
            assert_eq!(judge(flags), Verdict::RedirectRtp, "{flags:#x}");
        }
    }
    let frame = ipv6(RTP);
    assert_eq!(
        kernel.judge(&frame.with(frame.ip_at() + 6, &[44])),
        Verdict::PassFragment
    );
}

#[test]
fn other_protocols_pass() {
    let Some(mut kernel) = ready() else { return };
    let known = [0, 17, 43, 44, 50, 51, 60, 135, 139, 140];
    for protocol in 0..=255 {
        let frame = ipv4(RTP);
        if protocol != 17 {
            let bytes = frame.with(frame.ip_at() + 9, &[protocol]);
            assert_eq!(kernel.judge(&bytes), Verdict::PassNotUdp, "{protocol}");
        }
        let frame = ipv6(RTP);
        if !known.contains(&protocol) {
            let bytes = frame.with(frame.ip_at() + 6, &[protocol]);
            assert_eq!(kernel.judge(&bytes), Verdict::PassNotUdp, "{protocol}");
        }
    }
}

#[test]
fn addresses_change_while_it_runs() {
    let Some(mut kernel) = ready() else { return };
    // Every byte of an address counts.
    for (frame, bytes) in [(ipv4(RTP), 4), (ipv6(RTP), 16)] {
        let at = frame.udp_at() - bytes;
        for byte in at..frame.udp_at() {
            let other = frame.with(byte, &[frame.bytes()[byte] ^ 1]);
            assert_eq!(kernel.judge(&other), Verdict::PassForeignAddress, "{byte}");
        }
    }
    for (ip, frame) in OURS.iter().zip([ipv4(RTP), ipv6(RTP)]) {
        kernel.remove_address(ip);
        assert_eq!(kernel.judge(&frame.bytes()), Verdict::PassForeignAddress);
        kernel.add_address(ip);
        assert_eq!(kernel.judge(&frame.bytes()), Verdict::RedirectRtp);
    }
}

#[test]
fn ports_change_while_it_runs() {
    let Some(mut kernel) = ready() else { return };
    for port in [0, 1, PORT - 1, PORT + 1, PORT.swap_bytes(), u16::MAX] {
        let to = |mut frame: Frame| {
            frame.destination.set_port(port);
            frame.bytes()
        };
        assert_eq!(kernel.judge(&to(ipv4(RTP))), Verdict::PassForeignPort, "{port}");
        assert_eq!(kernel.judge(&to(ipv6(RTP))), Verdict::PassForeignPort, "{port}");
        kernel.set_port(port, Some(port % 7));
        assert_eq!(kernel.judge(&to(ipv4(RTP))), Verdict::RedirectRtp, "{port}");
        assert_eq!(kernel.judge(&to(ipv6(RTP))), Verdict::RedirectRtp, "{port}");
        kernel.set_port(port, None);
        assert_eq!(kernel.judge(&to(ipv4(RTP))), Verdict::PassForeignPort, "{port}");
    }
}

#[test]
fn without_a_socket_it_passes() {
    let Some(mut kernel) = ready() else { return };
    kernel.remove_socket(0);
    kernel.open_socket(1);
    for payload in [RTP, RTCP, &[]] {
        assert_eq!(kernel.judge(&ipv4(payload).bytes()), Verdict::PassNoSocket);
    }
    kernel.open_socket(0);
    assert_eq!(kernel.judge(&ipv4(RTP).bytes()), Verdict::RedirectRtp);
}

/// A frame that ends early, at every byte, is malformed: never a redirect.
#[test]
fn truncated_frames_are_malformed() {
    let Some(mut kernel) = ready() else { return };
    const HIDDEN: u32 = 16;
    for frame in variants(RTP) {
        let bytes = frame.bytes();
        for length in 14..bytes.len() {
            assert_eq!(
                kernel.judge(&bytes[..length]),
                Verdict::PassMalformed,
                "{frame:?} {length}"
            );
        }
        // The kernel runs nothing on less than an Ethernet header, unless what it sees is called metadata.
        for length in 0..14 {
            let hidden = [vec![0; HIDDEN.try_into().unwrap()], bytes[..length].to_vec()].concat();
            if let Ok(verdict) = kernel.judge_behind(&hidden, HIDDEN) {
                assert_eq!(verdict, Verdict::PassMalformed, "{frame:?} {length}");
            }
        }
    }
}

/// Lengths that contradict the frame or each other.
#[test]
fn lengths_must_fit() {
    let Some(mut kernel) = ready() else { return };
    for frame in variants(RTP) {
        let payload = u16::try_from(frame.payload.len()).unwrap();
        let (length_at, headers) = match frame.destination.is_ipv4() {
            true => (frame.ip_at() + 2, 28),
            false => (frame.ip_at() + 4, 8),
        };
        let mut ip = |length: u16| kernel.judge(&frame.with(length_at, &length.to_be_bytes()));
        for length in [
            headers + payload + 1,
            u16::MAX,
            headers - 1,
            headers + payload - 1,
            0,
        ] {
            assert_eq!(ip(length), Verdict::PassMalformed, "{frame:?} {length}");
        }
        let mut udp = |length: u16| kernel.judge(&frame.with(frame.udp_at() + 4, &length.to_be_bytes()));
        for length in [0, 7, 8 + payload + 1, u16::MAX] {
            assert_eq!(udp(length), Verdict::PassMalformed, "{frame:?} {length}");
        }
        // Shorter than what IP carries is legal; what is beyond is no payload.
        assert_eq!(udp(8 + payload - 1), Verdict::RedirectRtp, "{frame:?}");
        assert_eq!(udp(10), Verdict::RedirectRtp, "{frame:?}");
        assert_eq!(udp(9), Verdict::RedirectOther, "{frame:?}");
        assert_eq!(udp(8), Verdict::RedirectOther, "{frame:?}");
    }
    for first in [0x44, 0x40, 0x55, 0x65, 0x05] {
        let frame = ipv4(RTP);
        let bytes = frame.with(frame.ip_at(), &[first]);
        assert_eq!(kernel.judge(&bytes), Verdict::PassMalformed, "{first:#x}");
    }
    let frame = ipv6(RTP);
    assert_eq!(
        kernel.judge(&frame.with(frame.ip_at(), &[0x45])),
        Verdict::PassMalformed
    );
}

/// Ethernet pads to 60 bytes, and what pads is no payload.
#[test]
fn padding_is_legal() {
    let Some(mut kernel) = ready() else { return };
    for (payload, verdict) in [
        (RTP, Verdict::RedirectRtp),
        (&[0x80], Verdict::RedirectOther),
        (&[], Verdict::RedirectOther),
    ] {
        for frame in variants(payload) {
            for padding in [1, 18, 600] {
                let mut bytes = frame.bytes();
                bytes.resize(bytes.len() + padding, 0x80);
                assert_eq!(kernel.judge(&bytes), verdict, "{frame:?} {padding}");
            }
        }
    }
}

/// Any single byte of the headers set to anything: some verdict, exactly one, and no fault.
#[test]
fn any_byte_may_be_wrong() {
    let Some(mut kernel) = ready() else { return };
    let mut seen = std::collections::BTreeSet::new();
    for frame in [ipv4(RTP), ipv6(RTP), ipv4(RTP).tagged(&[VLAN])] {
        for at in 12..frame.udp_at() + 10 {
            for value in [0, 1, 6, 17, 44, 0x45, 0x4f, 0x80, 0xff] {
                seen.insert(kernel.judge(&frame.with(at, &[value])));
            }
        }
    }
    assert!(seen.iter().any(|verdict| verdict.action() == Action::Redirect));
    assert!(seen.contains(&Verdict::PassMalformed) && seen.contains(&Verdict::PassForeignPort));
}

/// Not judged, as it depends on the machine; `--nocapture` shows it.
#[test]
fn run_time_is_measured() {
    let Some(mut kernel) = ready() else { return };
    let mut foreign = ipv4(RTP);
    foreign.destination.set_port(53);
    let other_protocol = ipv4(RTP).with(14 + 9, &[6]);
    let cases = [
        ("IPv4 RTP, redirected", ipv4(RTP).bytes()),
        ("IPv6 RTP, redirected", ipv6(RTP).bytes()),
        (
            "IPv4 RTP, two tags",
            ipv4(RTP).tagged(&[SERVICE_VLAN, VLAN]).bytes(),
        ),
        ("foreign port", foreign.bytes()),
        ("TCP", other_protocol),
    ];
    for (what, frame) in cases {
        let (verdict, ns) = kernel.run_time_ns(&frame, 1_000_000);
        println!("{what}: {ns} ns ({})", verdict.name());
    }
    kernel.set_settings(budget::settings(u32::MAX, u32::MAX));
    let (verdict, ns) = kernel.run_time_ns(&ipv4(RTP).bytes(), 1_000_000);
    println!("IPv4 RTP with a budget: {ns} ns ({})", verdict.name());
}
