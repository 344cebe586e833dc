//! Seeds, impairments, virtual time.

use std::collections::HashMap;

use super::*;

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// One worker echoes to one phone for `count` packets, 1 ms apart; what the phone got, in order.
fn echo(config: &SimConfig, count: u16) -> (SimNet, Vec<u16>) {
    let net = SimNet::new(config);
    let mut io = net.attach(1);
    let (phone, local) = (address("192.0.2.1:4000"), address("192.0.2.9:10000"));
    io.open_flow(FlowId(0), local, SimPrepared(local)).unwrap();
    io.set_remote(FlowId(0), phone);
    let mut got = Vec::new();
    let mut buffer = [0; limits::DATAGRAM_MAX];
    for number in 0..count + 1_000 {
        let now = io.now();
        if number < count {
            net.peer_send(phone, local, &number.to_be_bytes());
        }
        let mut echoes = Vec::new();
        io.receive(64, |datagram| echoes.push(datagram.payload.to_vec()));
        for payload in echoes {
            assert!(io.transmit(FlowId(0), |out| {
                out[..2].copy_from_slice(&payload);
                2
            }));
        }
        io.flush();
        while let Some(arrival) = net.peer_receive(&mut buffer) {
            assert_eq!((arrival.from, arrival.to, arrival.length), (local, phone, 2));
            assert!(arrival.at <= now);
            got.push(u16::from_be_bytes([buffer[0], buffer[1]]));
        }
        io.wait(now.after(Duration::from_millis(1)));
    }
    assert_eq!(net.in_flight(), 0);
    (net, got)
}

fn rough(seed: u64) -> SimConfig {
    let way = Impairment {
        loss: 0.1,
        duplication: 0.05,
        delay: Duration::from_millis(20),
        variance: Duration::from_millis(15),
    };
    SimConfig {
        seed,
        to_workers: way,
        to_peers: way,
        ..SimConfig::default()
    }
}

#[test]
fn a_clean_network_delivers_everything_once_and_in_order() {
    let (net, got) = echo(&SimConfig::default(), 500);
    assert_eq!(got, (0..500).collect::<Vec<_>>());
    assert_eq!(
        net.counters().lost + net.counters().duplicated + net.counters().unreachable,
        0
    );
}

#[test]
fn same_seed_same_bytes_other_seed_others() {
    let (first, got) = echo(&rough(7), 2_000);
    let (second, again) = echo(&rough(7), 2_000);
    let (other, _) = echo(&rough(8), 2_000);
    assert_eq!(
        (first.digest(), first.counters(), got),
        (second.digest(), second.counters(), again)
    );
    assert_ne!(first.digest(), other.digest());
}

#[test]
fn loss_duplication_and_reordering_have_the_asked_size() {
    let (net, got) = echo(&rough(3), 5_000);
    let counters = net.counters();
    let sent = counters.from_peers + counters.from_workers;
    let share = |count: u64| count as f64 / sent as f64;
    assert!((0.09..0.11).contains(&share(counters.lost)), "{counters:?}");
    assert!(
        (0.035..0.055).contains(&share(counters.duplicated)),
        "{counters:?}"
    );
    let backwards = got.windows(2).filter(|pair| pair[1] < pair[0]).count();
    assert!(backwards > got.len() / 5, "{backwards} of {}", got.len());
    let mut copies = HashMap::new();
    got.iter()
        .for_each(|number| *copies.entry(number).or_insert(0) += 1);
    assert!(copies.values().any(|&count| count >= 3), "doubled both ways");
}

#[test]
fn the_digest_sees_every_byte_time_and_address() {
    let digest = |at: u64, remote: &str, payload: &[u8]| {
        let net = SimNet::new(&SimConfig::default());
        let mut io = net.attach(1);
        let local = address("[2001:db8::1]:10000");
        io.open_flow(FlowId(0), local, SimPrepared(local)).unwrap();
        io.set_remote(FlowId(0), address(remote));
        io.wait(Timestamp(at));
        assert!(io.transmit(FlowId(0), |out| {
            out[..payload.len()].copy_from_slice(payload);
            payload.len()
        }));
        net.digest()
    };
    let base = digest(5, "192.0.2.1:1", b"0123456789");
    assert_eq!(base, digest(5, "192.0.2.1:1", b"0123456789"));
    assert_ne!(base, digest(6, "192.0.2.1:1", b"0123456789"));
    assert_ne!(base, digest(5, "192.0.2.2:1", b"0123456789"));
    assert_ne!(base, digest(5, "192.0.2.1:2", b"0123456789"));
    assert_ne!(base, digest(5, "192.0.2.1:1", b"012345678"));
    assert_ne!(base, digest(5, "192.0.2.1:1", b"1123456789"));
    assert_ne!(base, digest(5, "192.0.2.1:1", b"0123456780"));
    assert_ne!(base, digest(5, "192.0.2.1:1", b"0123456789\0"));
}

#[test]
fn two_workers_share_the_ports() {
    let net = SimNet::new(&SimConfig::default());
    let (mut one, mut two) = (net.attach(2), net.attach(2));
    let (a, b) = (address("192.0.2.9:10000"), address("192.0.2.9:10002"));
    one.open_flow(FlowId(0), a, SimPrepared(a)).unwrap();
    assert!(two.open_flow(FlowId(0), a, SimPrepared(a)).is_err());
    two.open_flow(FlowId(1), b, SimPrepared(b)).unwrap();
    net.peer_send(address("192.0.2.1:9"), b, b"for two");
    net.peer_send(address("192.0.2.1:9"), address("192.0.2.9:10004"), b"for nobody");
    assert_eq!(one.receive(9, |_| unreachable!()), 0);
    assert_eq!(
        two.receive(9, |datagram| assert_eq!(datagram.local_port, 10_002)),
        1
    );
    assert_eq!(net.counters().unreachable, 1);
}

#[test]
fn more_in_flight_than_set_aside_still_works() {
    let config = SimConfig {
        in_flight: 2,
        ..SimConfig::default()
    };
    let net = SimNet::new(&config);
    let mut io = net.attach(1);
    let local = address("192.0.2.9:10000");
    io.open_flow(FlowId(0), local, SimPrepared(local)).unwrap();
    for number in 0..100u8 {
        net.peer_send(address("192.0.2.1:9"), local, &[number; 3]);
    }
    let mut next = 0;
    io.receive(1_000, |datagram| {
        assert_eq!(datagram.payload, [next; 3]);
        next += 1;
    });
    assert_eq!((next, net.in_flight()), (100, 0));
}
