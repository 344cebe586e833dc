//! The budget per source. The bucket's time is set by the test: no test waits for a clock.

use xdp_abi::{Bucket, Settings, Source, Verdict};

use crate::frame::{Frame, RTCP, RTP};
use crate::{ipv4, ipv6, ready};

const PACKET: u64 = 1_000_000_000;
/// A bucket refilled in the future is not refilled now.
const NEVER: u64 = u64::MAX;

pub(crate) fn settings(packets_per_second: u32, burst: u32) -> Settings {
    Settings {
        budget_packets_per_second: packets_per_second,
        budget_burst: burst,
    }
}

fn sender(frame: &Frame) -> Source {
    Source::new(frame.source.ip(), frame.source.port())
}

fn bucket(refilled_at_ns: u64, tokens: u64) -> Bucket {
    Bucket {
        refilled_at_ns,
        tokens,
    }
}

#[test]
fn it_is_off_by_default_and_can_be_switched_off_again() {
    let Some(mut kernel) = ready() else { return };
    let frame = ipv4(RTP);
    for _ in 0..100 {
        assert_eq!(kernel.judge(&frame.bytes()), Verdict::RedirectRtp);
    }
    assert_eq!(kernel.bucket(sender(&frame)), None);
    kernel.set_settings(settings(1, 1));
    kernel.set_bucket(sender(&frame), bucket(NEVER, 0));
    assert_eq!(kernel.judge(&frame.bytes()), Verdict::DropBudget);
    kernel.set_settings(settings(0, 1));
    assert_eq!(kernel.judge(&frame.bytes()), Verdict::RedirectRtp);
}

#[test]
fn what_exceeds_it_is_dropped() {
    let Some(mut kernel) = ready() else { return };
    kernel.set_settings(settings(1, 10));
    for frame in [ipv4(RTP), ipv6(RTP)] {
        kernel.set_bucket(sender(&frame), bucket(NEVER, 3 * PACKET - 1));
        let verdicts = [(); 4].map(|()| kernel.judge(&frame.bytes()));
        let (sent, drop) = (Verdict::RedirectRtp, Verdict::DropBudget);
        assert_eq!(verdicts, [sent, sent, drop, drop]);
        assert_eq!(kernel.bucket(sender(&frame)), Some(bucket(NEVER, PACKET - 1)));
    }
    // RTCP takes from the same budget.
    assert_eq!(kernel.judge(&ipv4(RTCP).bytes()), Verdict::DropBudget);
}

#[test]
fn a_source_is_address_and_port() {
    let Some(mut kernel) = ready() else { return };
    kernel.set_settings(settings(1, 1));
    kernel.set_bucket(sender(&ipv4(RTP)), bucket(NEVER, 0));
    assert_eq!(kernel.judge(&ipv4(RTP).bytes()), Verdict::DropBudget);
    for source in ["198.51.100.9:40001", "198.51.100.8:40000"] {
        let frame = Frame::new(source, "192.0.2.1:16384", RTP);
        assert_eq!(kernel.judge(&frame.bytes()), Verdict::RedirectRtp, "{source}");
    }
    // To another port of ours it is the same source.
    kernel.set_port(20_000, Some(1));
    let frame = Frame::new("198.51.100.9:40000", "192.0.2.1:20000", RTP);
    assert_eq!(kernel.judge(&frame.bytes()), Verdict::DropBudget);
}

#[test]
fn a_new_source_has_a_full_bucket() {
    let Some(mut kernel) = ready() else { return };
    kernel.set_settings(settings(1, 10));
    let frame = ipv6(RTP);
    assert_eq!(kernel.judge(&frame.bytes()), Verdict::RedirectRtp);
    assert_eq!(kernel.bucket(sender(&frame)).unwrap().tokens, 9 * PACKET);
    // A burst of 0 counts as 1: one packet, and the bucket is empty.
    kernel.set_settings(settings(1, 0));
    let frame = ipv4(RTP);
    assert_eq!(kernel.judge(&frame.bytes()), Verdict::RedirectRtp);
    assert_eq!(kernel.bucket(sender(&frame)).unwrap().tokens, 0);
}

#[test]
fn tokens_come_back_with_time() {
    let Some(mut kernel) = ready() else { return };
    let frame = ipv4(RTP);
    // Empty since the machine started: full again, and not more than full.
    kernel.set_settings(settings(1_000_000, 10));
    kernel.set_bucket(sender(&frame), bucket(1, 0));
    assert_eq!(kernel.judge(&frame.bytes()), Verdict::RedirectRtp);
    let first = kernel.bucket(sender(&frame)).unwrap();
    assert_eq!(first.tokens, 9 * PACKET);
    assert!(first.refilled_at_ns > 1);
    // Too large to be full: one token per ns and packet per second.
    kernel.set_settings(settings(3, u32::MAX));
    kernel.set_bucket(sender(&frame), bucket(first.refilled_at_ns - 1_000_000_000, 5));
    assert_eq!(kernel.judge(&frame.bytes()), Verdict::RedirectRtp);
    let second = kernel.bucket(sender(&frame)).unwrap();
    let elapsed_ns = second.refilled_at_ns - (first.refilled_at_ns - 1_000_000_000);
    assert_eq!(second.tokens, 5 + 3 * elapsed_ns - PACKET);
}

#[test]
fn the_largest_budget_does_not_overflow() {
    let Some(mut kernel) = ready() else { return };
    let frame = ipv4(RTP);
    kernel.set_settings(settings(u32::MAX, u32::MAX));
    for start in [bucket(1, 0), bucket(1, u64::from(u32::MAX) * PACKET)] {
        kernel.set_bucket(sender(&frame), start);
        assert_eq!(kernel.judge(&frame.bytes()), Verdict::RedirectRtp);
        let left = kernel.bucket(sender(&frame)).unwrap().tokens;
        assert_eq!(left, (u64::from(u32::MAX) - 1) * PACKET);
    }
}

#[test]
fn a_lowered_burst_holds_at_once() {
    let Some(mut kernel) = ready() else { return };
    let frame = ipv4(RTP);
    kernel.set_settings(settings(1, 2));
    kernel.set_bucket(sender(&frame), bucket(NEVER, 100 * PACKET));
    assert_eq!(kernel.judge(&frame.bytes()), Verdict::RedirectRtp);
    assert_eq!(kernel.bucket(sender(&frame)).unwrap().tokens, PACKET);
}

#[test]
fn what_is_not_ours_costs_no_source_anything() {
    let Some(mut kernel) = ready() else { return };
    kernel.set_settings(settings(1, 1));
    let mut frame = ipv4(RTP);
    frame.destination.set_port(53);
    for _ in 0..3 {
        assert_eq!(kernel.judge(&frame.bytes()), Verdict::PassForeignPort);
    }
    assert_eq!(kernel.bucket(sender(&frame)), None);
}
