//! Real sockets on loopback.

use std::net::UdpSocket;

use super::*;

fn io(flows: u32) -> UringIo {
    let config = UringConfig {
        receive_buffers: 64,
        send_buffers: 32,
        submit_chunk: 8,
        ..UringConfig::new(Clock::start(), flows)
    };
    UringIo::new(&config).unwrap()
}

fn open(io: &mut UringIo, flow: u32, host: &str) -> SocketAddr {
    let prepared = bind(format!("{host}:0").parse().unwrap(), &BindOptions::default()).unwrap();
    let local = prepared.local();
    io.open_flow(FlowId(flow), local, prepared).unwrap();
    io.flush();
    local
}

/// Receives for up to `milliseconds` or until `wanted` datagrams have come.
fn gather(io: &mut UringIo, wanted: usize, milliseconds: u64) -> Vec<(u16, SocketAddr, Vec<u8>)> {
    let mut got = Vec::new();
    for _ in 0..milliseconds {
        let now = io.now();
        io.receive(64, |datagram| {
            got.push((datagram.local_port, datagram.source, datagram.payload.to_vec()));
        });
        io.flush();
        if got.len() >= wanted {
            break;
        }
        io.wait(now.after(Duration::from_millis(1)));
    }
    got
}

fn phone(host: &str) -> UdpSocket {
    let phone = UdpSocket::bind(format!("{host}:0")).unwrap();
    phone.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    phone
}

#[test]
fn both_ways_in_both_families() {
    for host in ["127.0.0.1", "[::1]"] {
        let mut io = io(4);
        let local = open(&mut io, 2, host);
        let phone = phone(host);
        phone.send_to(b"hello", local).unwrap();
        let got = gather(&mut io, 1, 5_000);
        assert_eq!(
            got,
            [(local.port(), phone.local_addr().unwrap(), b"hello".to_vec())]
        );
        io.set_remote(FlowId(2), got[0].1);
        assert!(io.transmit(FlowId(2), |buffer| {
            buffer[..3].copy_from_slice(b"you");
            3
        }));
        io.flush();
        let mut buffer = [0; 16];
        assert_eq!(phone.recv_from(&mut buffer).unwrap(), (3, local));
        assert_eq!(&buffer[..3], b"you");
        assert_eq!(
            (
                io.counters().received,
                io.counters().sent,
                io.counters().send_failed
            ),
            (1, 1, 0)
        );
    }
}

#[test]
fn exhausted_receive_buffers_are_counted_and_receiving_goes_on() {
    let mut io = io(1);
    let local = open(&mut io, 0, "127.0.0.1");
    let phone = phone("127.0.0.1");
    // Far more than the 64 buffers, while nobody reads.
    for number in 0..200u8 {
        phone.send_to(&[number], local).unwrap();
    }
    let mut got = gather(&mut io, 200, 2_000);
    assert!(
        io.counters().receive_ring_full > 0 && io.counters().rearmed > 0,
        "{:?}",
        io.counters()
    );
    let first = got.len();
    phone.send_to(&[255], local).unwrap();
    got.extend(gather(&mut io, 1, 5_000));
    assert_eq!(got.len(), first + 1);
    assert_eq!(got.last().unwrap().2, [255]);
    let in_order = got.windows(2).all(|pair| pair[0].2 < pair[1].2);
    assert!(in_order, "one socket keeps its order across a re-armed receive");
}

#[test]
fn a_completion_queue_that_overflows_loses_nothing() {
    let config = UringConfig {
        receive_buffers: 2_048,
        send_buffers: 8,
        submit_chunk: 8,
        ..UringConfig::new(Clock::start(), 1)
    };
    let mut io = UringIo::new(&config).unwrap();
    // Every failed send posts a completion: IPv6 destinations on an IPv4 socket.
    let local = open(&mut io, 0, "127.0.0.1");
    io.set_remote(FlowId(0), "[::1]:9".parse().unwrap());
    for _ in 0..20_000 {
        assert!(io.transmit(FlowId(0), |_| 4));
    }
    io.flush();
    let phone = phone("127.0.0.1");
    phone.send_to(b"after", local).unwrap();
    let got = gather(&mut io, 1, 5_000);
    assert_eq!(got.len(), 1);
    while io.counters().send_failed < 20_000 {
        assert!(gather(&mut io, 1, 20).is_empty());
    }
    assert!(io.counters().completion_overflow > 0, "{:?}", io.counters());
}

#[test]
fn a_closed_port_can_be_bound_at_once() {
    let mut io = io(1);
    let mut prepared = bind("127.0.0.1:0".parse().unwrap(), &BindOptions::default()).unwrap();
    let local = prepared.local();
    for round in 0..20u8 {
        io.open_flow(FlowId(0), local, prepared).unwrap();
        io.flush();
        let phone = phone("127.0.0.1");
        phone.send_to(&[round], local).unwrap();
        assert_eq!(gather(&mut io, 1, 5_000).len(), 1);
        assert!(io.close_flow(FlowId(0)).is_none(), "its receive is armed");
        let mut released = None;
        for _ in 0..5_000 {
            released = released.or_else(|| io.poll_closed());
            if released.is_some() {
                break;
            }
            gather(&mut io, 1, 1);
        }
        drop(released.unwrap());
        let patient = BindOptions {
            retry_for: Duration::from_secs(10),
            ..BindOptions::default()
        };
        prepared = bind(local, &patient).unwrap();
    }
}

#[test]
fn dropping_the_ring_frees_its_ports() {
    let mut io = io(8);
    let locals: Vec<_> = (0..8).map(|flow| open(&mut io, flow, "127.0.0.1")).collect();
    drop(io);
    let patient = BindOptions {
        retry_for: Duration::from_secs(10),
        ..BindOptions::default()
    };
    for local in locals {
        bind(local, &patient).unwrap();
    }
}

#[test]
fn a_wait_ends_no_sooner_than_asked_whatever_arrives() {
    let mut io = io(1);
    let local = open(&mut io, 0, "127.0.0.1");
    let phone = phone("127.0.0.1");
    for _ in 0..10 {
        phone.send_to(b"x", local).unwrap();
        let until = io.now().after(Duration::from_millis(3));
        io.wait(until);
        assert!(io.now() >= until);
    }
    assert_eq!(gather(&mut io, 10, 5_000).len(), 10);
}

#[test]
fn peers_that_do_not_exist_do_no_harm() {
    let mut io = io(1);
    let local = open(&mut io, 0, "127.0.0.1");
    let gone = phone("127.0.0.1").local_addr().unwrap();
    io.set_remote(FlowId(0), gone);
    for _ in 0..20 {
        assert!(io.transmit(FlowId(0), |_| 172));
        gather(&mut io, 1, 2);
    }
    let phone = phone("127.0.0.1");
    phone.send_to(b"still here", local).unwrap();
    assert_eq!(gather(&mut io, 1, 5_000).len(), 1);
}

#[test]
fn what_arrives_before_during_and_after_a_hand_over_is_received_once_and_in_order() {
    let mut first = io(4);
    let local = open(&mut first, 2, "127.0.0.1");
    let phone = phone("127.0.0.1");
    first.set_remote(FlowId(2), phone.local_addr().unwrap());
    let mut got = Vec::new();
    let mut number = 0_u8..;
    let mut send = |count: usize| {
        for number in number.by_ref().take(count) {
            phone.send_to(&[number], local).unwrap();
        }
    };
    send(20);
    got.extend(
        gather(&mut first, 5, 5_000)
            .into_iter()
            .map(|(_, _, payload)| payload[0]),
    );
    send(20);
    let mut flows = first.hand_over(|datagram| got.push(datagram.payload[0]));
    let before = got.len();
    send(20);
    drop(first);
    let flow = flows.pop().unwrap();
    assert_eq!((flow.flow, flow.local), (FlowId(2), local));
    assert_eq!(flow.remote, Some(phone.local_addr().unwrap()));
    assert!(flows.is_empty());

    // As by another program: the socket's number is all that is left of it.
    let number = flow.prepared.keep().unwrap();
    std::mem::forget(flow.prepared);
    let prepared = UringPrepared::inherit(number, local).unwrap();
    let mut second = io(4);
    second.open_flow(FlowId(2), local, prepared).unwrap();
    send(20);
    second.flush();
    got.extend(
        gather(&mut second, 80 - before, 5_000)
            .into_iter()
            .map(|(_, _, payload)| payload[0]),
    );
    assert_eq!(got, (0..80).collect::<Vec<u8>>(), "{before} before the hand-over");
    assert!(before >= 20);
}

#[test]
fn a_socket_bound_elsewhere_is_not_inherited() {
    let prepared = bind("127.0.0.1:0".parse().unwrap(), &BindOptions::default()).unwrap();
    let number = prepared.keep().unwrap();
    std::mem::forget(prepared);
    let error = UringPrepared::inherit(number, "127.0.0.1:1".parse().unwrap()).unwrap_err();
    assert!(error.to_string().contains("bound to"), "{error}");
}
