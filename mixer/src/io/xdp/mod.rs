//! AF_XDP: frames straight from and to the interface's queues, past the kernel's network stack.
//!
//! A worker owns some queues of one interface. What the XDP program redirects to them is taken apart
//! here, checked, and handed to the engine or to the worker that owns its port. What the engine sends is
//! written behind a prepared header into the first queue's packet memory. Peers that no frame reaches
//! (on this host, behind another interface) are served by a companion [`UringIo`], which also does the
//! waiting. With queues that only transmit (`xdp-tx`) all receiving is the companion's.
//!
//! Nothing here asks the kernel for addresses, routes or neighbours: the scout does, on its own thread.

#![expect(
    unsafe_code,
    reason = "AF_XDP shares memory with the kernel; every block says why it is sound"
)]

pub mod device;
pub mod errand;
mod flows;
mod frame;
mod port;
pub mod queue;
mod routes;
pub mod scout;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

use mixer_engine::packet::{Datagram, Filled, FlowId, PacketSink};
use mixer_engine::time::Timestamp;

use self::errand::{Errand, News, WorkerEnd, Worn};
use self::flows::{Exit, Flow, Flows, SocketState};
use self::frame::{HEADERS_MAX, Refused, Template};
use self::queue::XskQueue;
use super::uring::{UringConfig, UringIo};
use super::{Intake, IoCounters, OpenFlow, PAYLOAD_MAX, PacketIo};
use crate::clock::Clock;
use crate::io::handoff::{Handed, Mesh};
use crate::limits;
pub use device::program::{AttachMode, LoadError, Ports, Program};
pub use frame::{Link, Mac, Origin, Tags};
pub use port::XdpPrepared;
pub use queue::socket::{CopyMode, QueueId, SocketStatistics};
pub use routes::netlink::Kernel;
pub use routes::{Hop, Outlet, Route, RouteTable, Target, Way};

/// What an [`XdpIo`] is made from.
#[derive(Debug)]
pub struct XdpConfig {
    /// The companion: clock, flows, sockets.
    pub uring: UringConfig,
    /// The queues that this worker owns; the first one transmits. At least one.
    pub queues: Vec<XskQueue>,
    /// Where packets of other workers go and come from.
    pub mesh: Mesh<Origin>,
    /// The way to the scout.
    pub scout: WorkerEnd,
    /// DSCP of what is sent, 0 to 63 (RFC 3246: 46, expedited).
    pub dscp: u8,
    /// Frames after which [`PacketSink::transmit`] hands them to the kernel by itself.
    pub submit_chunk: u32,
    /// Longest UDP payload of a frame; with all headers it must fit the interface's MTU.
    pub datagram_max: usize,
    /// Tags that received frames must carry; absent when any will do.
    pub required_tags: Option<Tags>,
}

/// Packet I/O on AF_XDP. Belongs to the thread that made it.
#[derive(Debug)]
pub struct XdpIo {
    queues: Vec<XskQueue>,
    flows: Flows,
    table: Box<RouteTable>,
    /// Number of the table; flows found their way by an older one look again.
    table_number: u32,
    mesh: Mesh<Origin>,
    scout: WorkerEnd,
    local: UringIo,
    /// Ports of closed flows whose socket the companion still needs.
    closing: VecDeque<(u16, XdpPrepared)>,
    now: Timestamp,
    traffic_class: u8,
    submit_chunk: u32,
    datagram_max: usize,
    required_tags: Option<Tags>,
    counters: IoCounters,
}

impl XdpIo {
    /// Takes queues into service. Call it on the thread that will use it.
    ///
    /// # Errors
    /// No queue, or what the companion says (see [`UringIo::new`]).
    pub fn new(config: XdpConfig) -> io::Result<Self> {
        if config.queues.is_empty() {
            return Err(io::Error::other("a worker without a queue cannot transmit"));
        }
        let mut io = Self {
            queues: config.queues,
            flows: Flows::new(config.uring.flows),
            table: Box::default(),
            table_number: 0,
            mesh: config.mesh,
            scout: config.scout,
            local: UringIo::new(&config.uring)?,
            closing: VecDeque::with_capacity(limits::CLOSING_FLOWS as usize),
            now: config.uring.clock.now(),
            traffic_class: config.dscp << 2,
            submit_chunk: config.submit_chunk,
            datagram_max: config.datagram_max,
            required_tags: config.required_tags,
            counters: IoCounters::default(),
        };
        io.take_news();
        Ok(io)
    }

    /// Transmit chunks of the first queue in nobody's hands.
    #[must_use]
    pub fn free_chunks(&self) -> usize {
        self.queues.first().map_or(0, |queue| queue.free_chunks())
    }

    /// Takes what the scout has sent.
    fn take_news(&mut self) {
        while let Some(news) = self.scout.news() {
            match news {
                News::Table(table) => {
                    let old = std::mem::replace(&mut self.table, table);
                    self.table_number = self.table_number.wrapping_add(1);
                    self.scout.give_back(Worn::Table(old));
                }
                News::Queue { place, mut queue } => {
                    if let Some(old) = self.queues.get_mut(place) {
                        queue.follow(old);
                        std::mem::swap(old, &mut *queue);
                    }
                    self.scout.give_back(Worn::Queue(queue));
                }
                News::Socket { flow, local, socket } => self.take_socket(flow, local, socket),
                News::NoSocket { flow, local } => {
                    if let Some(waiting) = waiting_for_socket(&mut self.flows, flow, local) {
                        // The next transmit asks again.
                        (waiting.socket, waiting.exit) = (SocketState::None, Exit::Unknown);
                    }
                }
            }
        }
    }

    fn take_socket(&mut self, flow: FlowId, local: SocketAddr, socket: super::uring::UringPrepared) {
        let Some(waiting) = waiting_for_socket(&mut self.flows, flow, local) else {
            self.scout.give_back(Worn::Socket(socket));
            return;
        };
        match self.local.open_flow(flow, local, socket) {
            Ok(()) => {
                waiting.socket = SocketState::Open;
                if let Some(remote) = waiting.remote {
                    self.local.set_remote(flow, remote);
                }
            }
            Err(socket) => {
                waiting.socket = SocketState::None;
                self.scout.give_back(Worn::Socket(socket));
            }
        }
    }
}

/// The flow that asked for a socket on `local`, if it is still there and waiting.
fn waiting_for_socket(flows: &mut Flows, flow: FlowId, local: SocketAddr) -> Option<&mut Flow> {
    flows
        .get(flow)
        .filter(|flow| flow.socket == SocketState::Asked && flow.local == local)
}

/// Finds the way of a flow anew.
fn find_exit(flow_id: FlowId, flow: &mut Flow, table: &RouteTable, scout: &mut WorkerEnd, traffic_class: u8) {
    let Some(remote) = flow.remote else {
        flow.exit = Exit::Unknown;
        return;
    };
    let framed = |link, exit| match Template::new(link, flow.local, remote, traffic_class) {
        Some(template) => (exit, Some(template)),
        None => (Exit::Nowhere, None),
    };
    let (exit, template) = match table.way(remote.ip()) {
        Way::Frame(link) => framed(link, Exit::Frame),
        Way::Wanted(hop, outlet) => {
            // The scout keeps looking once it was asked; a full ring is asked again with the next table.
            let _ = scout.ask(Errand::Find(hop));
            match flow.origin {
                Some(origin) => {
                    let mut link = outlet.link(origin.mac);
                    link.tags = origin.tags;
                    framed(link, Exit::Learnt)
                }
                None => (Exit::Wanted, None),
            }
        }
        Way::Socket => (Exit::Socket, None),
        Way::Nowhere => (Exit::Nowhere, None),
    };
    (flow.exit, flow.template) = (exit, template);
    if exit == Exit::Socket && flow.socket == SocketState::None {
        let local = flow.local;
        if scout.ask(Errand::Bind { flow: flow_id, local }) {
            flow.socket = SocketState::Asked;
        } else {
            flow.exit = Exit::Unknown;
        }
    }
}

impl PacketSink for XdpIo {
    const SUMS: bool = true;

    #[inline]
    fn transmit<F: Into<Filled>>(&mut self, flow_id: FlowId, fill: impl FnOnce(&mut [u8]) -> F) -> bool {
        let Some(flow) = self.flows.get(flow_id) else {
            self.counters.unknown_flow += 1;
            return false;
        };
        if flow.remote.is_none() {
            self.counters.no_remote += 1;
            return false;
        }
        if flow.table != self.table_number || flow.exit == Exit::Unknown {
            flow.table = self.table_number;
            find_exit(flow_id, flow, &self.table, &mut self.scout, self.traffic_class);
        }
        let template = match (flow.exit, &flow.template) {
            (Exit::Frame | Exit::Learnt, Some(template)) => template,
            (Exit::Socket, _) if flow.socket == SocketState::Open => {
                return self.local.transmit(flow_id, fill);
            }
            _ => {
                self.counters.no_route += 1;
                return false;
            }
        };
        let Some(queue) = self.queues.first_mut() else {
            return false;
        };
        if queue.is_down() {
            queue.refuse();
            return false;
        }
        if queue.queued() >= self.submit_chunk {
            queue.flush();
        }
        let Some((chunk, bytes)) = queue.take() else {
            self.counters.no_send_buffer += 1;
            return false;
        };
        let length = template.write(bytes, self.datagram_max.min(limits::DATAGRAM_MAX), fill);
        queue.commit(chunk, length);
        self.counters.sent += 1;
        true
    }

    #[inline]
    fn expect(&self, flow: FlowId) {
        self.flows.bring_near(flow);
    }

    fn set_remote(&mut self, flow_id: FlowId, remote: SocketAddr) {
        let Some(flow) = self.flows.get(flow_id) else {
            self.counters.unknown_flow += 1;
            return;
        };
        flow.remote = (!remote.ip().is_unspecified()).then_some(remote);
        flow.origin = None;
        flow.table = self.table_number;
        if flow.socket == SocketState::Open {
            self.local.set_remote(flow_id, remote);
        }
        find_exit(flow_id, flow, &self.table, &mut self.scout, self.traffic_class);
    }
}

impl PacketIo for XdpIo {
    type Prepared = XdpPrepared;

    fn now(&mut self) -> Timestamp {
        self.now = self.local.now();
        self.now
    }

    fn receive_into(&mut self, budget: u32, intake: &mut impl Intake) -> u32 {
        self.take_news();
        let mut taken = self.local.receive_into(budget, intake);
        let mut sorting = Sorting {
            flows: &mut self.flows,
            counters: &mut self.counters,
            received_at: self.now,
            handed: 0,
            required_tags: self.required_tags,
            intake,
        };
        while taken + sorting.handed < budget {
            let Some(packet) = self.mesh.take() else { break };
            sorting.counters.taken_over += 1;
            sorting.own(packet.local_port, packet.source, packet.link, packet.payload());
        }
        for queue in &mut self.queues {
            let left = budget - taken - sorting.handed;
            let mesh = &mut self.mesh;
            queue.receive(left, |frame, ahead| {
                if let Some(port) = ahead.later.and_then(frame::local_port) {
                    sorting.announce(port);
                }
                if let Some(port) = ahead.soon.and_then(frame::local_port) {
                    sorting.expect(port);
                }
                sorting.frame(frame, mesh);
            });
        }
        taken += sorting.handed;
        taken
    }

    fn open_flow(
        &mut self,
        flow: FlowId,
        local: SocketAddr,
        mut prepared: XdpPrepared,
    ) -> Result<(), XdpPrepared> {
        if !self.flows.is_vacant(flow, local.port()) {
            return Err(prepared);
        }
        let mut state = SocketState::None;
        if let Some(socket) = prepared.socket.take() {
            if let Err(socket) = self.local.open_flow(flow, local, socket) {
                prepared.socket = Some(socket);
                return Err(prepared);
            }
            state = SocketState::Open;
        }
        self.flows.open(flow, local, prepared, state);
        Ok(())
    }

    fn close_flow(&mut self, flow: FlowId) -> Option<XdpPrepared> {
        let closed = self.flows.close(flow)?;
        // What was sent before the close leaves before it.
        if let Some(queue) = self.queues.first_mut().filter(|queue| queue.queued() > 0) {
            queue.flush();
        }
        let mut prepared = closed.prepared;
        if closed.socket == SocketState::Open {
            prepared.socket = self.local.close_flow(flow);
            if prepared.socket.is_none() {
                self.closing.push_back((closed.local.port(), prepared));
                return None;
            }
        }
        Some(prepared)
    }

    fn poll_closed(&mut self) -> Option<XdpPrepared> {
        let socket = self.local.poll_closed()?;
        let port = socket.local().port();
        let place = self.closing.iter().position(|(closing, _)| *closing == port);
        let mut prepared = place
            .and_then(|place| self.closing.remove(place))
            .map_or_else(XdpPrepared::nothing, |(_, prepared)| prepared);
        prepared.socket = Some(socket);
        Some(prepared)
    }

    fn flush(&mut self) {
        self.local.flush();
        for queue in &mut self.queues {
            queue.flush();
        }
    }

    fn wait(&mut self, until: Timestamp) -> bool {
        self.local.wait(until)
    }

    fn counters(&self) -> IoCounters {
        let local = self.local.counters();
        let own = self.counters;
        let queues = self.queues.iter().map(|queue| queue.counters());
        let (nonsense, down) = queues.fold((0, 0), |(nonsense, down), queue| {
            (nonsense + queue.nonsense, down + queue.down)
        });
        IoCounters {
            received: local.received + own.received,
            sent: local.sent + own.sent,
            truncated: local.truncated + own.truncated,
            no_send_buffer: local.no_send_buffer + own.no_send_buffer,
            no_remote: local.no_remote + own.no_remote,
            unknown_flow: local.unknown_flow + own.unknown_flow,
            unknown_port: own.unknown_port,
            malformed: own.malformed + nonsense,
            bad_checksum: own.bad_checksum,
            wrong_vlan: own.wrong_vlan,
            no_route: own.no_route,
            interface_down: down,
            handed_over: own.handed_over,
            taken_over: own.taken_over,
            handoff_full: own.handoff_full,
            ..local
        }
    }

    fn hand_over(&mut self, mut on_datagram: impl FnMut(&Datagram<'_>)) -> Vec<OpenFlow<XdpPrepared>> {
        while self.receive(limits::RECEIVE_BUDGET, &mut on_datagram) > 0 {}
        let mut sockets = self.local.hand_over(&mut on_datagram);
        for queue in &mut self.queues {
            queue.end();
        }
        let mut open = Vec::new();
        for (flow, closed) in self.flows.take_all() {
            let mut prepared = closed.prepared;
            if let Some(place) = sockets.iter().position(|open| open.flow == flow) {
                prepared.socket = Some(sockets.swap_remove(place).prepared);
            }
            open.push(OpenFlow {
                flow,
                local: closed.local,
                remote: closed.remote,
                prepared,
            });
        }
        open
    }
}

/// Decides about received datagrams, one by one.
struct Sorting<'a, I> {
    flows: &'a mut Flows,
    counters: &'a mut IoCounters,
    received_at: Timestamp,
    /// Datagrams handed to the worker.
    handed: u32,
    required_tags: Option<Tags>,
    intake: &'a mut I,
}

impl<I: Intake> Sorting<'_, I> {
    /// A frame to this port comes some later.
    #[inline]
    fn announce(&mut self, local_port: u16) {
        self.flows.bring_entry_near(local_port);
        self.intake.announce(local_port);
    }

    /// A frame to this port comes a few later.
    #[inline]
    fn expect(&mut self, local_port: u16) {
        self.flows.bring_near_port(local_port);
        self.intake.expect(local_port);
    }

    #[inline]
    fn frame(&mut self, frame: &[u8], mesh: &mut Mesh<Origin>) {
        let received = match frame::parse(frame) {
            Ok(received) => received,
            Err(Refused::Malformed) => {
                self.counters.malformed += 1;
                return;
            }
            Err(Refused::Checksum) => {
                self.counters.bad_checksum += 1;
                return;
            }
        };
        if self
            .required_tags
            .is_some_and(|tags| tags != received.origin.tags)
        {
            self.counters.wrong_vlan += 1;
            return;
        }
        if received.payload.len() > PAYLOAD_MAX {
            self.counters.truncated += 1;
            return;
        }
        let (port, source, origin) = (received.local_port, received.source, received.origin);
        match mesh.other_owner(port) {
            None => self.own(port, source, origin, received.payload),
            Some(owner) => {
                let handed = Handed::new(port, source, origin, received.payload);
                if handed.is_some_and(|packet| mesh.hand(owner, packet)) {
                    self.counters.handed_over += 1;
                } else {
                    self.counters.handoff_full += 1;
                }
            }
        }
    }

    /// A datagram to one of our ports.
    #[inline]
    fn own(&mut self, local_port: u16, source: SocketAddr, origin: Origin, payload: &[u8]) {
        let Some(flow) = self.flows.of_port(local_port) else {
            self.counters.unknown_port += 1;
            return;
        };
        // Only the remote itself, and only while the kernel knows no better: a frame from elsewhere
        // must not turn a flow away.
        if matches!(flow.exit, Exit::Wanted | Exit::Learnt)
            && flow.remote == Some(source)
            && flow.origin != Some(origin)
            && origin.mac.is_unicast()
        {
            (flow.origin, flow.exit) = (Some(origin), Exit::Unknown);
        }
        self.counters.received += 1;
        self.handed += 1;
        self.intake.take(&Datagram {
            local_port,
            source,
            payload,
            received_at: self.received_at,
        });
    }
}

/// A chunk holds every header and the longest payload.
const _: () = assert!(HEADERS_MAX + limits::DATAGRAM_MAX <= queue::CHUNK as usize);

impl XdpConfig {
    /// The sizes of [`crate::limits`] for `flows` flows, with the default DSCP.
    #[must_use]
    pub fn new(
        clock: Clock,
        flows: u32,
        queues: Vec<XskQueue>,
        mesh: Mesh<Origin>,
        scout: WorkerEnd,
    ) -> Self {
        Self {
            uring: UringConfig::new(clock, flows),
            queues,
            mesh,
            scout,
            dscp: super::uring::BindOptions::default().dscp,
            submit_chunk: limits::XDP_SUBMIT_CHUNK,
            datagram_max: limits::DATAGRAM_MAX,
            required_tags: None,
        }
    }
}
