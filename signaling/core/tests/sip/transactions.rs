use std::time::Duration;

use signaling_core::effect::Count;
use signaling_core::input::Transport;

use crate::world::{Phone, World, statuses, tcp, udp};

fn retransmissions(world: &World) -> usize {
    world
        .counts
        .iter()
        .filter(|count| **count == Count::Retransmission)
        .count()
}

#[test]
fn repetitions_are_absorbed_and_answered() {
    let mut world = World::new();
    let mut phone = Phone::new("a");
    world.mixer.held = true;
    let invite = phone.invite();
    assert_eq!(statuses(&world.exchange(&invite)), [100]);
    assert_eq!(statuses(&world.exchange(&invite)), [100], "the last answer again");
    world.mixer.held = false;
    world.release();
    let ok = world.sent.pop().unwrap();
    assert!(
        world.exchange(&invite).is_empty(),
        "the 200 repeats itself (RFC 6026)"
    );
    phone.to_tag = ok.tag().to_owned();
    let ack = phone.request("ACK", "", "");
    world.exchange(&ack);
    assert!(world.exchange(&ack).is_empty());
    let bye = phone.request("BYE", "", "");
    let first = world.exchange(&bye);
    let again = world.exchange(&bye);
    assert_eq!(first[0].text, again[0].text);
    assert_eq!(retransmissions(&world), 3);
    assert_eq!(world.mixer.kinds().len(), 3, "nothing happened twice");
    world.assert_clean();
}

#[test]
fn a_refusal_is_repeated_until_its_ack_over_udp_only() {
    for (flow, expected) in [(udp(), 11), (tcp(), 1)] {
        let mut world = World::new();
        let mut phone = Phone::to("a", "sip:conference-factory@192.0.2.1");
        let invite = phone.invite();
        world.receive(flow, &invite);
        let mut all = std::mem::take(&mut world.sent);
        all.extend(world.pass(Duration::from_secs(40)));
        assert_eq!(
            all.len(),
            expected,
            "404 at 0, 0.5, 1.5, 3.5, then every 4 s up to 32 s"
        );
        assert!(statuses(&all).iter().all(|status| *status == 404));
        world.assert_clean();
        world.receive(flow, &phone.invite());
        phone.to_tag = world.sent[0].tag().to_owned();
        let ack = phone.request("ACK", "", "").replace("z9hG4bKa3", "z9hG4bKa2");
        world.receive(flow, &ack);
        assert!(world.pass(Duration::from_secs(40)).is_empty(), "acknowledged");
        world.assert_clean();
    }
}

#[test]
fn completed_transactions_go_after_their_time() {
    for (transport, flow, left) in [(Transport::Udp, udp(), 1), (Transport::Tcp, tcp(), 0)] {
        let mut world = World::new();
        let options = Phone::new("a").request("OPTIONS", "", "");
        world.receive(flow, &options);
        world.pass(Duration::from_secs(1));
        assert_eq!(world.core.status().transactions, left, "{transport:?}");
        world.pass(Duration::from_millis(31_500));
        assert_eq!(world.core.status().transactions, 0, "{transport:?}");
    }
}

#[test]
fn merged_requests_are_refused() {
    for method in ["INVITE", "OPTIONS"] {
        let mut world = World::new();
        let mut phone = Phone::new("a");
        let first = phone.with_sdp(
            method,
            if method == "INVITE" {
                crate::world::OFFER
            } else {
                ""
            },
        );
        let other = first.replace("branch=z9hG4bKa1", "branch=z9hG4bKother");
        assert_eq!(world.exchange(&first).last().unwrap().status(), 200, "{method}");
        assert_eq!(statuses(&world.exchange(&other)), [482], "{method}");
        let next = phone.with_sdp(method, "");
        assert_ne!(
            world.exchange(&next).last().unwrap().status(),
            482,
            "another CSeq is another request"
        );
        world.pass(Duration::from_secs(40));
        world.pass(Duration::from_secs(40));
        world.assert_clean();
    }
}

#[test]
fn a_branch_that_is_only_the_cookie_matches_nothing_else() {
    let mut world = World::new();
    for call in ["a", "b"] {
        let options = Phone::new(call).request("OPTIONS", "", "");
        let options = options.replace(&format!("z9hG4bK{call}1"), "z9hG4bK");
        for _ in 0..2 {
            let sent = world.exchange(&options);
            assert_eq!(statuses(&sent), [200], "{call}");
            assert_eq!(sent[0].header("Call-ID"), Some(call));
            assert_eq!(
                sent[0].header("Via"),
                Some("SIP/2.0/UDP 198.51.100.7;branch=z9hG4bK")
            );
        }
    }
    assert_eq!(world.core.status().transactions, 2);
    world.assert_clean();
}

#[test]
fn old_callers_without_branch_are_served() {
    let mut world = World::new();
    let mut phone = Phone::new("a");
    let strip = |text: String| {
        let start = text.find(";branch=").unwrap();
        let end = start + text[start..].find("\r\n").unwrap();
        format!("{}{}", &text[..start], &text[end..]).replace("Max-Forwards: 70\r\n", "")
    };
    let invite = strip(phone.invite());
    assert_eq!(statuses(&world.exchange(&invite)), [100, 200]);
    let again = world.exchange(&invite);
    assert!(again.is_empty(), "absorbed: {again:#?}");
    let tag = world.pass(Duration::from_millis(500))[0].tag().to_owned();
    phone.to_tag = tag;
    world.exchange(&strip(phone.request("ACK", "", "")));
    assert_eq!(world.dialogs.len(), 1);
    assert_eq!(
        statuses(&world.exchange(&strip(phone.request("BYE", "", "")))),
        [200]
    );
    world.assert_clean();
}

#[test]
fn answers_follow_the_via() {
    let mut world = World::new();
    let options = Phone::new("a").request("OPTIONS", "", "");
    let table = [
        ("198.51.100.7;", "198.51.100.7:5060"),
        ("198.51.100.7:6000;", "198.51.100.7:6000"),
        ("10.1.1.1:7000;rport;", "198.51.100.7:30000"),
    ];
    for (index, (sent_by, destination)) in table.into_iter().enumerate() {
        let mut flow = udp();
        flow.remote.set_port(30000);
        let text = options
            .replace("198.51.100.7;", sent_by)
            .replace("z9hG4bKa1", &format!("z9hG4bK{index}"))
            .replace("Call-ID: a", &format!("Call-ID: {index}"));
        world.sent.clear();
        world.receive(flow, &text);
        assert_eq!(
            world.sent[0].flow.remote,
            destination.parse().unwrap(),
            "{sent_by}"
        );
    }
    world.assert_clean();
}

#[test]
fn responses_to_nothing_are_dropped() {
    let mut world = World::new();
    let stray = "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 255.255.255.255;branch=z9hG4bKx\r\nFrom: <sip:a@x>;tag=1\r\n\
         To: <sip:b@x>;tag=2\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n";
    assert!(world.exchange(stray).is_empty());
    world.assert_clean();
}
