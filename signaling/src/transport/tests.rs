use std::io::{Read as _, Write as _};
use std::time::Duration;

use super::*;
use crate::metrics::Dropped;

const MESSAGE: &[u8] = b"OPTIONS sip:a@b SIP/2.0\r\nContent-Length: 2\r\n\r\nhi";

fn listeners(ip: &str) -> Vec<Listener> {
    let address = SocketAddr::new(ip.parse().unwrap(), 0);
    [Transport::Udp, Transport::Tcp]
        .map(|transport| Listener { transport, address })
        .to_vec()
}

fn start(
    ip: &str,
    connections_max: usize,
) -> (Transports, mpsc::Receiver<Input>, Vec<SocketAddr>, Arc<Metrics>) {
    let bound = Bound::bind(&listeners(ip)).unwrap();
    let addresses = bound
        .addresses()
        .iter()
        .map(|listener| listener.address)
        .collect();
    let metrics = Arc::new(Metrics::default());
    let (transports, queue) = bound.start(connections_max, &metrics).unwrap();
    (transports, queue, addresses, metrics)
}

async fn next(queue: &mut mpsc::Receiver<Input>) -> (Flow, Bytes) {
    match tokio::time::timeout(Duration::from_secs(10), queue.recv()).await {
        Ok(Some(Input::Sip { flow, bytes })) => (flow, bytes),
        other => panic!("a message was expected, not {other:?}"),
    }
}

/// Runs blocking client code beside the runtime.
async fn client<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

#[tokio::test]
async fn a_taken_address_is_named() {
    let first = Bound::bind(&listeners("127.0.0.1")).unwrap();
    let taken = *first.addresses().first().unwrap();
    let error = Bound::bind(&[taken]).expect_err("taken").to_string();
    assert!(error.contains(&format!("udp:{}", taken.address)), "{error}");
}

#[tokio::test]
async fn udp_goes_both_ways_over_ipv4_and_ipv6() {
    for ip in ["127.0.0.1", "::1", "0.0.0.0"] {
        let (transports, mut queue, addresses, _) = start(ip, 10);
        let port = addresses[0].port();
        let reachable = if ip == "::1" { "::1" } else { "127.0.0.1" };
        let peer = std::net::UdpSocket::bind((reachable, 0)).unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        for keep_alive in [&b""[..], b"\r\n\r\n", b"\0"] {
            peer.send_to(keep_alive, (reachable, port)).unwrap();
        }
        peer.send_to(MESSAGE, (reachable, port)).unwrap();
        let (flow, bytes) = next(&mut queue).await;
        assert_eq!(
            (bytes.as_ref(), flow.remote),
            (MESSAGE, peer.local_addr().unwrap())
        );
        assert_eq!(
            flow.local,
            SocketAddr::new(reachable.parse().unwrap(), port),
            "never 0.0.0.0"
        );
        assert!(transports.send(flow, Bytes::from_static(b"answer")));
        let answer = client(move || {
            let mut buffer = [0; 100];
            let length = peer.recv(&mut buffer).unwrap();
            buffer[..length].to_vec()
        })
        .await;
        assert_eq!(answer, b"answer");
        let other = SocketAddr::new(reachable.parse().unwrap(), port ^ 1);
        assert!(
            !transports.send(Flow { local: other, ..flow }, Bytes::new()),
            "no such socket of ours"
        );
    }
}

#[tokio::test]
async fn udp_drops_the_newest_and_counts_when_the_driver_is_behind() {
    let (_transports, mut queue, addresses, metrics) = start("127.0.0.1", 10);
    let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let sent = QUEUE_INPUTS + 300;
    for _ in 0..sent {
        peer.send_to(MESSAGE, addresses[0]).unwrap();
        tokio::task::yield_now().await;
    }
    while metrics.drops(Dropped::UdpQueueFull) < 300 {
        tokio::task::yield_now().await;
    }
    for _ in 0..QUEUE_INPUTS {
        next(&mut queue).await;
    }
    assert!(queue.try_recv().is_err());
}

#[tokio::test]
async fn tcp_frames_answers_and_pings() {
    for ip in ["127.0.0.1", "::1"] {
        let (transports, mut queue, addresses, _) = start(ip, 10);
        let address = addresses[1];
        let peer = client(move || {
            let mut peer = std::net::TcpStream::connect(address).unwrap();
            peer.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            peer.write_all(b"\r\n\r\n").unwrap();
            let mut pong = [0; 2];
            peer.read_exact(&mut pong).unwrap();
            assert_eq!(&pong, b"\r\n");
            peer.write_all(&[MESSAGE, MESSAGE].concat()).unwrap();
            peer
        })
        .await;
        let (flow, bytes) = next(&mut queue).await;
        assert_eq!(
            (bytes.as_ref(), next(&mut queue).await.1.as_ref()),
            (MESSAGE, MESSAGE)
        );
        assert_eq!((flow.local, flow.remote), (address, peer.local_addr().unwrap()));
        assert!(transports.send(flow, Bytes::from_static(b"answer")));
        // The connection is known by its number and, when that is gone, by its peer.
        let renumbered = Flow {
            connection: 9_999,
            ..flow
        };
        assert!(transports.send(renumbered, Bytes::from_static(b"second")));
        client(move || {
            let mut answer = [0; 12];
            (&peer).read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"answersecond");
        })
        .await;
        let failed = tokio::time::timeout(Duration::from_secs(10), queue.recv())
            .await
            .unwrap();
        assert!(
            matches!(failed, Some(Input::FlowFailed { flow: closed }) if closed == flow),
            "{failed:?}"
        );
    }
}

#[tokio::test]
async fn a_lost_stream_is_opened_anew_or_reported() {
    let (transports, mut queue, addresses, _) = start("127.0.0.1", 10);
    let peer = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let flow = Flow {
        transport: Transport::Tcp,
        local: addresses[1],
        remote: peer.local_addr().unwrap(),
        connection: 7,
    };
    assert!(transports.send(flow, Bytes::from_static(MESSAGE)));
    let stream = client(move || {
        let (mut stream, _) = peer.accept().unwrap();
        let mut message = vec![0; MESSAGE.len()];
        stream.read_exact(&mut message).unwrap();
        assert_eq!(message, MESSAGE);
        stream.write_all(MESSAGE).unwrap();
        stream
    })
    .await;
    let (back, _) = next(&mut queue).await;
    assert_eq!(
        (back.local, back.remote),
        (flow.local, flow.remote),
        "our Contact's port, not an ephemeral one"
    );
    drop(stream);
    for closed in [back, flow] {
        let failed = queue.recv().await;
        assert!(
            matches!(failed, Some(Input::FlowFailed { flow }) if flow == closed),
            "{failed:?}"
        );
    }
    // Now nobody listens there.
    assert!(transports.send(flow, Bytes::from_static(MESSAGE)));
    let failed = tokio::time::timeout(Duration::from_secs(10), queue.recv())
        .await
        .unwrap();
    assert!(
        matches!(failed, Some(Input::FlowFailed { flow: lost }) if lost == flow),
        "{failed:?}"
    );
}

#[tokio::test]
async fn too_many_connections_and_lost_framing_are_closed() {
    let (_transports, mut queue, addresses, metrics) = start("127.0.0.1", 1);
    let address = addresses[1];
    client(move || {
        let mut first = std::net::TcpStream::connect(address).unwrap();
        first.write_all(b"INVITE sip:a@b SIP/2.0\r\n\r\n").unwrap();
        let mut second = std::net::TcpStream::connect(address).unwrap();
        second.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        assert!(
            matches!(second.read(&mut [0; 1]), Ok(0) | Err(_)),
            "closed at once"
        );
        first.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        assert_eq!(first.read(&mut [0; 1]).unwrap(), 0, "closed after a linger");
    })
    .await;
    assert_eq!(
        next(&mut queue).await.1.as_ref(),
        b"INVITE sip:a@b SIP/2.0\r\n\r\n",
        "the core may answer 400"
    );
    assert_eq!(metrics.drops(Dropped::TcpConnectionLimit), 1);
    assert_eq!(metrics.drops(Dropped::TcpFraming), 1);
}

#[tokio::test(start_paused = true)]
async fn an_unfinished_message_ends_its_connection() {
    let (_transports, mut queue, addresses, metrics) = start("127.0.0.1", 10);
    let stream = std::net::TcpStream::connect(addresses[1]).unwrap();
    (&stream).write_all(&MESSAGE[..20]).unwrap();
    // The clock is virtual: it jumps to the deadline once everybody waits.
    assert!(matches!(queue.recv().await, Some(Input::FlowFailed { .. })));
    assert_eq!(metrics.drops(Dropped::TcpPartialTimeout), 1);
}
