//! SIP over TCP: accepted and opened connections alike, found again by number or by peer.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use signaling_core::input::{Flow, Input, Transport};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::framing::{Framed, FramingError, StreamFramer};
use crate::driver::pause;
use crate::metrics::{Dropped, Metrics};

/// Messages that may wait to be written on one connection.
const QUEUE_MESSAGES: usize = 256;
/// A message that has begun must be whole after this time.
const PARTIAL_MAX: Duration = Duration::from_secs(10);
/// Time to open a connection.
const CONNECT_MAX: Duration = Duration::from_secs(4);
/// Time for the peer to take one message.
const WRITE_MAX: Duration = Duration::from_secs(10);
/// Time for last answers after the peer's side has ended.
const LINGER: Duration = Duration::from_secs(1);
/// Rest after the system could not accept, so that a lack of descriptors does not spin.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Opens a listening socket.
pub(super) fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Connections of a former run in TIME-WAIT must not keep us from starting.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

/// All TCP connections.
#[derive(Debug)]
pub(super) struct TcpConnections {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    table: Mutex<Table>,
    connections_max: usize,
    inputs: mpsc::Sender<Input>,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct Table {
    last: u64,
    open: BTreeMap<u64, Connection>,
}

#[derive(Debug)]
struct Connection {
    remote: SocketAddr,
    messages: mpsc::Sender<Bytes>,
}

impl TcpConnections {
    /// Starts one accepting task per socket.
    pub(super) fn start(
        listeners: Vec<std::net::TcpListener>,
        connections_max: usize,
        inputs: mpsc::Sender<Input>,
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            table: Mutex::default(),
            connections_max,
            inputs,
            metrics,
        });
        for listener in listeners {
            tokio::spawn(accept(TcpListener::from_std(listener)?, Arc::clone(&shared)));
        }
        Ok(Self { shared })
    }

    /// Queues one message on the connection of the flow, else on one to the same peer, else on a
    /// new one.
    pub(super) fn send(&self, flow: Flow, bytes: Bytes) -> bool {
        let mut table = self.shared.table();
        let open = table
            .open
            .get(&flow.connection)
            .or_else(|| table.open.values().find(|c| c.remote == flow.remote));
        if let Some(connection) = open {
            let queued = connection.messages.try_send(bytes).is_ok();
            if !queued {
                self.shared.metrics.dropped(Dropped::TcpQueueFull);
            }
            return queued;
        }
        if table.open.len() >= self.shared.connections_max {
            self.shared.metrics.dropped(Dropped::TcpConnectionLimit);
            return false;
        }
        let (number, queue) = table.register(flow.remote, Some(bytes));
        drop(table);
        self.shared.count();
        tokio::spawn(open_connection(Arc::clone(&self.shared), flow, number, queue));
        true
    }
}

impl Table {
    fn register(&mut self, remote: SocketAddr, first: Option<Bytes>) -> (u64, mpsc::Receiver<Bytes>) {
        self.last += 1;
        let (messages, queue) = mpsc::channel(QUEUE_MESSAGES);
        if let Some(bytes) = first {
            // The queue is empty and has room.
            let _ = messages.try_send(bytes);
        }
        self.open.insert(self.last, Connection { remote, messages });
        (self.last, queue)
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        // Every change of the table is one step, so a panic elsewhere leaves it whole.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self) {
        self.metrics.set_connections(self.table().open.len());
    }

    fn remove(&self, number: u64) {
        self.table().open.remove(&number);
        self.count();
    }

    /// Registers an accepted connection, unless there are too many.
    fn admit(&self, remote: SocketAddr) -> Option<(u64, mpsc::Receiver<Bytes>)> {
        let admitted = {
            let mut table = self.table();
            (table.open.len() < self.connections_max).then(|| table.register(remote, None))
        };
        if admitted.is_none() {
            self.metrics.dropped(Dropped::TcpConnectionLimit);
        }
        self.count();
        admitted
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => {
                let Ok(local) = stream.local_addr() else { continue };
                let Some((number, queue)) = shared.admit(remote) else {
                    continue;
                };
                let flow = Flow {
                    transport: Transport::Tcp,
                    local,
                    remote,
                    connection: number,
                };
                tokio::spawn(serve(Arc::clone(&shared), stream, flow, queue));
            }
            Err(error) => {
                tracing::warn!(%error, "a SIP TCP connection cannot be accepted");
                pause(ACCEPT_REST).await;
            }
        }
        if shared.inputs.is_closed() {
            return;
        }
    }
}

/// Opens a connection for a flow whose own is gone.
async fn open_connection(shared: Arc<Shared>, flow: Flow, number: u64, queue: mpsc::Receiver<Bytes>) {
    match tokio::time::timeout(CONNECT_MAX, TcpStream::connect(flow.remote)).await {
        Ok(Ok(stream)) => {
            // Messages on it carry the listener's address as ours: Contacts must name a port that
            // accepts, not the one the system chose.
            serve(
                Arc::clone(&shared),
                stream,
                Flow {
                    connection: number,
                    ..flow
                },
                queue,
            )
            .await;
        }
        Ok(Err(_)) | Err(_) => shared.remove(number),
    }
    // Requests that wait for an answer know the flow they were sent on, not the number of this.
    let _ = shared.inputs.send(Input::FlowFailed { flow }).await;
}

/// Reads and writes one connection until either ends.
async fn serve(shared: Arc<Shared>, stream: TcpStream, flow: Flow, queue: mpsc::Receiver<Bytes>) {
    let _ = stream.set_nodelay(true);
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(120))
        .with_interval(Duration::from_secs(20));
    let _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive);
    let (read, write) = stream.into_split();
    let (pongs, pong_queue) = mpsc::channel(1);
    let reader = Reader {
        shared: &shared,
        flow,
        read,
        pongs,
    };
    let mut writer = std::pin::pin!(write_all(write, queue, pong_queue));
    tokio::select! {
        () = reader.run() => {
            // A peer that sent its last request and closed its side still gets the answer.
            let _ = tokio::time::timeout(LINGER, &mut writer).await;
        }
        () = &mut writer => {}
    }
    shared.remove(flow.connection);
    let _ = shared.inputs.send(Input::FlowFailed { flow }).await;
}

async fn write_all(
    mut write: OwnedWriteHalf,
    mut queue: mpsc::Receiver<Bytes>,
    mut pongs: mpsc::Receiver<()>,
) {
    loop {
        let bytes = tokio::select! {
            message = queue.recv() => match message {
                Some(bytes) => bytes,
                None => return,
            },
            Some(()) = pongs.recv() => Bytes::from_static(b"\r\n"),
        };
        match tokio::time::timeout(WRITE_MAX, write.write_all(&bytes)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

struct Reader<'a> {
    shared: &'a Shared,
    flow: Flow,
    read: OwnedReadHalf,
    pongs: mpsc::Sender<()>,
}

impl Reader<'_> {
    /// Reads until the peer closes, loses its framing or leaves a message unfinished.
    async fn run(mut self) {
        let mut framer = StreamFramer::default();
        let mut buffer = vec![0; 16 * 1024];
        // Between messages a peer may be silent for hours; within one it may not.
        let mut partial: Option<std::pin::Pin<Box<tokio::time::Sleep>>> = None;
        loop {
            let read = match partial.as_mut() {
                None => self.read.read(&mut buffer).await,
                Some(deadline) => tokio::select! {
                    read = self.read.read(&mut buffer) => read,
                    () = deadline => {
                        self.shared.metrics.dropped(Dropped::TcpPartialTimeout);
                        return;
                    }
                },
            };
            let Some(bytes) = read
                .ok()
                .filter(|length| *length > 0)
                .and_then(|length| buffer.get(..length))
            else {
                return;
            };
            framer.push(bytes);
            let Some(delivered) = self.deliver(&mut framer).await else {
                return;
            };
            if !framer.is_partial() {
                partial = None;
            } else if delivered || partial.is_none() {
                partial = Some(Box::pin(pause(PARTIAL_MAX)));
            }
        }
    }

    /// Hands on what is whole, waiting for room; `None` ends the connection.
    async fn deliver(&self, framer: &mut StreamFramer) -> Option<bool> {
        let mut delivered = false;
        loop {
            match framer.next_item() {
                Ok(None) => return Some(delivered),
                Ok(Some(Framed::Ping)) => {
                    // One pong answers any number of pings that came meanwhile.
                    let _ = self.pongs.try_send(());
                }
                Ok(Some(Framed::Message(bytes))) => {
                    delivered = true;
                    self.shared
                        .inputs
                        .send(Input::Sip {
                            flow: self.flow,
                            bytes,
                        })
                        .await
                        .ok()?;
                }
                Err(FramingError::BadLength(head)) => {
                    self.shared.metrics.dropped(Dropped::TcpFraming);
                    let _ = self
                        .shared
                        .inputs
                        .send(Input::Sip {
                            flow: self.flow,
                            bytes: head,
                        })
                        .await;
                    return None;
                }
                Err(FramingError::TooLong) => {
                    self.shared.metrics.dropped(Dropped::TcpFraming);
                    return None;
                }
            }
        }
    }
}
