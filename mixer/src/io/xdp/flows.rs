//! The flows of one worker, and which way each of them sends.

use std::net::SocketAddr;

use mixer_engine::packet::FlowId;

use super::frame::{Origin, Template};
use super::port::XdpPrepared;
use crate::io::cache;

/// How a flow's datagrams leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    /// Not looked up yet, or with another table.
    Unknown,
    /// As frames, by the template.
    Frame,
    /// As frames, to the station that the remote's own frames came from: the kernel does not know
    /// the neighbour yet.
    Learnt,
    /// Not at all: nobody knows the neighbour.
    Wanted,
    /// Through a socket.
    Socket,
    /// Not at all: no route, or another address family.
    Nowhere,
}

/// The socket of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SocketState {
    /// It has none.
    None,
    /// The scout was asked for one.
    Asked,
    /// It is open.
    Open,
}

/// One flow. What transmitting reads comes first.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) exit: Exit,
    pub(super) socket: SocketState,
    /// Number of the route table by which `exit` was found.
    pub(super) table: u32,
    pub(super) template: Option<Template>,
    pub(super) remote: Option<SocketAddr>,
    pub(super) local: SocketAddr,
    /// Where the remote's frames come from.
    pub(super) origin: Option<Origin>,
    pub(super) prepared: XdpPrepared,
}

/// The table. Fixed size; nothing allocates after construction.
#[derive(Debug)]
pub(super) struct Flows {
    flows: Box<[Option<Flow>]>,
    /// Flow by local port, or [`NOBODY`].
    ports: Box<[u32]>,
}

const NOBODY: u32 = u32::MAX;

impl Flows {
    /// A table for the flows 0 to `flows - 1`.
    pub(super) fn new(flows: u32) -> Self {
        Self {
            flows: (0..flows).map(|_| None).collect(),
            ports: vec![NOBODY; usize::from(u16::MAX) + 1].into_boxed_slice(),
        }
    }

    #[inline]
    pub(super) fn get(&mut self, flow: FlowId) -> Option<&mut Flow> {
        self.flows.get_mut(flow.0 as usize)?.as_mut()
    }

    /// Asks for what transmitting on a flow will read.
    #[inline]
    pub(super) fn bring_near(&self, flow: FlowId) {
        if let Some(place) = self.flows.get(flow.0 as usize) {
            cache::prefetch(place);
        }
    }

    /// Asks for what tells the flow of a local port.
    #[inline]
    pub(super) fn bring_entry_near(&self, port: u16) {
        if let Some(entry) = self.ports.get(usize::from(port)) {
            cache::prefetch(entry);
        }
    }

    /// Asks for the flow of a local port.
    #[inline]
    pub(super) fn bring_near_port(&self, port: u16) {
        if let Some(flow) = self.ports.get(usize::from(port)) {
            self.bring_near(FlowId(*flow));
        }
    }

    /// The flow of a local port.
    #[inline]
    pub(super) fn of_port(&mut self, port: u16) -> Option<&mut Flow> {
        let flow = *self.ports.get(usize::from(port))?;
        if flow == NOBODY {
            return None;
        }
        self.get(FlowId(flow))
    }

    /// Whether `flow` can be opened on `port`.
    pub(super) fn is_vacant(&self, flow: FlowId, port: u16) -> bool {
        let place = self.flows.get(flow.0 as usize);
        matches!(place, Some(None)) && self.ports.get(usize::from(port)) == Some(&NOBODY)
    }

    /// Opens a flow; it was checked to be vacant.
    pub(super) fn open(
        &mut self,
        flow: FlowId,
        local: SocketAddr,
        prepared: XdpPrepared,
        socket: SocketState,
    ) {
        if let Some(place) = self.flows.get_mut(flow.0 as usize) {
            *place = Some(Flow {
                exit: Exit::Unknown,
                socket,
                table: 0,
                template: None,
                remote: None,
                local,
                origin: None,
                prepared,
            });
            self.ports[usize::from(local.port())] = flow.0;
        }
    }

    /// Closes all flows, for the end of the worker.
    pub(super) fn take_all(&mut self) -> Vec<(FlowId, Flow)> {
        let (ports, flows) = (&mut self.ports, &mut self.flows);
        // By the ports: most places are vacant and need not be looked at.
        let open = ports.iter_mut().filter(|flow| **flow != NOBODY);
        open.filter_map(|entry| {
            let flow = FlowId(std::mem::replace(entry, NOBODY));
            Some((flow, flows.get_mut(flow.0 as usize)?.take()?))
        })
        .collect()
    }

    /// Closes a flow.
    pub(super) fn close(&mut self, flow: FlowId) -> Option<Flow> {
        let closed = self.flows.get_mut(flow.0 as usize)?.take()?;
        self.ports[usize::from(closed.local.port())] = NOBODY;
        Some(closed)
    }
}
