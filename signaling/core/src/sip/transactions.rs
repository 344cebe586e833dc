//! Server and client transactions (RFC 3261 17, RFC 6026) on top of `sipx_sip::TransactionLayer`.
//!
//! Adds what the layer leaves to its driver: where answers go, the timers, detection of merged
//! requests (RFC 3261 8.2.2.2), measured delays, and that nothing is kept longer than its transaction.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use sipx_sip::transaction::Dispatch;
use sipx_sip::{
    Output, Reliability, ResponseBuilder, Timer, Timers, TransactionKey, TransactionLayer, TuEvent,
};

use super::reply::Reply;
use super::timers::TimerHandle;
use super::wire::{self, CSeq, From, Header, HeaderName, Message, Method, Request, Response, To};
use crate::effect::Count;
use crate::input::{Flow, Transport};
use crate::outbox::{Due, Outbox};
use crate::time::Timestamp;

/// A transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TransactionId(u64);

/// What the transaction user learns.
#[derive(Debug)]
pub(crate) enum Upward {
    /// A new request.
    Request {
        /// To answer it.
        transaction: TransactionId,
        /// The request.
        request: Box<Request>,
        /// The same request came by another way (RFC 3261 8.2.2.2).
        merged: bool,
    },
    /// An ACK that belongs to a 2xx.
    Ack(Box<Request>),
    /// An answer to a request of ours.
    Response {
        /// Our request.
        transaction: TransactionId,
        /// The answer.
        response: Box<Response>,
    },
    /// No answer to a request of ours came, or it could not be sent.
    Unanswered(TransactionId),
    /// A response to nothing.
    Stray,
}

#[derive(Debug)]
struct Entry {
    key: Arc<TransactionKey>,
    /// Where our messages go.
    flow: Flow,
    server: bool,
    invite: bool,
    received: Timestamp,
    merge: Option<u64>,
    /// The topmost Via to send instead of the one that made the key unique.
    via: Option<Header>,
    timers: Vec<(Timer, TimerHandle)>,
}

/// All transactions.
#[derive(Debug)]
pub(crate) struct Transactions {
    layer: TransactionLayer,
    entries: BTreeMap<TransactionId, Entry>,
    ids: HashMap<Arc<TransactionKey>, TransactionId>,
    merges: HashMap<u64, TransactionId>,
    next: u64,
}

impl Transactions {
    /// None.
    pub(crate) fn new() -> Self {
        Self {
            layer: TransactionLayer::new(Timers::default()),
            entries: BTreeMap::new(),
            ids: HashMap::new(),
            merges: HashMap::new(),
            next: 0,
        }
    }

    /// How many are in progress.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the request belongs to a transaction in progress.
    pub(crate) fn knows(&self, request: &Request) -> bool {
        key_of(request, TransactionKey::from_request).is_some_and(|key| self.ids.contains_key(&key))
    }

    /// The INVITE that a CANCEL names.
    pub(crate) fn cancelled(&self, cancel: &Request) -> Option<TransactionId> {
        self.ids
            .get(&key_of(cancel, TransactionKey::for_cancelled_invite)?)
            .copied()
    }

    /// Whether a server transaction has had its final answer (or is over).
    pub(crate) fn is_answered(&self, transaction: TransactionId) -> bool {
        use sipx_sip::transaction::ServerState;
        let state = self
            .entries
            .get(&transaction)
            .and_then(|entry| self.layer.server_state(&entry.key));
        !matches!(state, Some(ServerState::Trying | ServerState::Proceeding))
    }

    /// Takes a request; `None` when it was a repetition.
    pub(crate) fn receive_request(
        &mut self,
        out: &mut Outbox,
        mut request: Box<Request>,
        flow: &Flow,
    ) -> Option<Upward> {
        let via = wire::disambiguate(&mut request);
        let is_ack = request.method == Method::Ack;
        match self
            .layer
            .receive(Message::Request(slim(&request)), reliability(flow))
        {
            Dispatch::Created { key, outputs } => {
                let id = self.register(out.now, key, wire::response_flow(&request, flow), &request, true);
                let merge = merge_digest(out, &request);
                let merged = merge.is_some_and(|digest| *self.merges.entry(digest).or_insert(id) != id);
                if let Some(entry) = self.entries.get_mut(&id) {
                    entry.via = via;
                    entry.merge = merge.filter(|_| !merged);
                }
                self.perform(out, id, outputs);
                Some(Upward::Request {
                    transaction: id,
                    request,
                    merged,
                })
            }
            Dispatch::Matched { key, outputs } => {
                let id = *self.ids.get(&key)?;
                if !is_ack {
                    out.count(Count::Retransmission);
                }
                let to_tu = outputs.iter().any(|output| matches!(output, Output::ToTu(_)));
                self.perform(out, id, outputs);
                (is_ack && to_tu).then_some(Upward::Ack(request))
            }
            Dispatch::Unmatched(_) => is_ack.then_some(Upward::Ack(request)),
        }
    }

    /// Takes a response.
    pub(crate) fn receive_response(&mut self, out: &mut Outbox, response: Response) -> Option<Upward> {
        match self
            .layer
            .receive(Message::Response(response), Reliability::Unreliable)
        {
            Dispatch::Matched { key, outputs } => {
                let id = *self.ids.get(&key)?;
                self.perform(out, id, outputs)
            }
            Dispatch::Created { .. } | Dispatch::Unmatched(_) => Some(Upward::Stray),
        }
    }

    /// Answers a request; returns the bytes sent, `None` when the transaction is gone or the answer
    /// cannot be written.
    pub(crate) fn respond(
        &mut self,
        out: &mut Outbox,
        transaction: TransactionId,
        reply: &Reply,
        to_tag: &str,
    ) -> Option<Bytes> {
        let entry = self.entries.get(&transaction)?;
        let mut response = write_response(self.layer.server_request(&entry.key)?, reply, to_tag)?;
        restore_via(&mut response.headers, entry.via.as_ref());
        let bytes = wire::to_bytes(&Message::Response(response.clone()));
        let delay = out.now.since(entry.received);
        let invite = entry.invite && reply.status >= 200;
        let key = Arc::clone(&entry.key);
        let outputs = self.layer.send_response(&key, response);
        if outputs.is_empty() {
            return None;
        }
        self.perform(out, transaction, outputs);
        out.count(Count::Response {
            status: reply.status,
            delay_ns: u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX),
            invite,
        });
        Some(bytes)
    }

    /// Where answers of this transaction go.
    pub(crate) fn flow(&self, transaction: TransactionId) -> Option<Flow> {
        self.entries.get(&transaction).map(|entry| entry.flow)
    }

    /// Sends a request of ours.
    pub(crate) fn send_request(
        &mut self,
        out: &mut Outbox,
        request: Request,
        flow: &Flow,
    ) -> Option<TransactionId> {
        let (key, outputs) = self.layer.send_request(request.clone(), reliability(flow))?;
        let id = self.register(out.now, key, *flow, &request, false);
        self.perform(out, id, outputs);
        Some(id)
    }

    /// A timer is due.
    pub(crate) fn on_timer(&mut self, out: &mut Outbox, id: TransactionId, timer: Timer) -> Option<Upward> {
        let entry = self.entries.get_mut(&id)?;
        entry.timers.retain(|(set, _)| *set != timer);
        let key = Arc::clone(&entry.key);
        let outputs = self.layer.on_timer(&key, timer);
        if outputs.iter().any(|output| matches!(output, Output::Send(_))) {
            out.count(Count::Retransmission);
        }
        self.perform(out, id, outputs)
    }

    /// A flow failed: requests of ours that wait on it are over.
    pub(crate) fn on_flow_failed(&mut self, out: &mut Outbox, flow: &Flow) -> Vec<Upward> {
        let waiting: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, entry)| !entry.server && entry.flow == *flow)
            .map(|(id, entry)| (*id, Arc::clone(&entry.key)))
            .collect();
        let mut events = Vec::new();
        for (id, key) in waiting {
            let outputs = self.layer.on_transport_error(&key);
            events.extend(self.perform(out, id, outputs));
        }
        events
    }

    fn register(
        &mut self,
        now: Timestamp,
        key: TransactionKey,
        flow: Flow,
        request: &Request,
        server: bool,
    ) -> TransactionId {
        let id = TransactionId(self.next);
        self.next += 1;
        let key = Arc::new(key);
        self.ids.insert(Arc::clone(&key), id);
        let invite = request.method == Method::Invite;
        let entry = Entry {
            key,
            flow,
            server,
            invite,
            received: now,
            merge: None,
            via: None,
            timers: Vec::new(),
        };
        self.entries.insert(id, entry);
        id
    }

    fn perform(&mut self, out: &mut Outbox, id: TransactionId, outputs: Vec<Output>) -> Option<Upward> {
        let mut upward = None;
        for output in outputs {
            match output {
                Output::Send(message) => {
                    let entry = self.entries.get(&id)?;
                    out.send(entry.flow, wire::to_bytes(&message));
                }
                Output::SetTimer { timer, after } => {
                    let handle = out.timer(after, Due::Transaction(id, timer));
                    let entry = self.entries.get_mut(&id)?;
                    entry.timers.push((timer, handle));
                }
                Output::ClearTimer(timer) => self.clear_timer(out, id, timer),
                Output::ToTu(event) => upward = upward_of(id, *event).or(upward),
                Output::Terminated(_) => self.forget(out, id),
                // The enum may grow; an output nobody knows cannot be performed.
                _ => {}
            }
        }
        upward
    }

    fn clear_timer(&mut self, out: &mut Outbox, id: TransactionId, timer: Timer) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.timers.retain(|(set, handle)| {
                if *set == timer {
                    out.timers.clear(*handle);
                }
                *set != timer
            });
        }
    }

    fn forget(&mut self, out: &mut Outbox, id: TransactionId) {
        if let Some(entry) = self.entries.remove(&id) {
            self.ids.remove(&entry.key);
            for (_, handle) in entry.timers {
                out.timers.clear(handle);
            }
            if let Some(digest) = entry.merge {
                self.merges.remove(&digest);
            }
        }
    }
}

fn key_of(request: &Request, derive: impl Fn(&Request) -> Option<TransactionKey>) -> Option<TransactionKey> {
    if !wire::has_bare_branch(request) {
        return derive(request);
    }
    let mut request = request.clone();
    wire::disambiguate(&mut request);
    derive(&request)
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "requests and ACKs go up whole, not in the slim form the layer keeps"
)]
fn upward_of(transaction: TransactionId, event: TuEvent) -> Option<Upward> {
    match event {
        TuEvent::Response(response) => Some(Upward::Response {
            transaction,
            response,
        }),
        TuEvent::Timeout | TuEvent::TransportError => Some(Upward::Unanswered(transaction)),
        _ => None,
    }
}

/// Only what answers repeat: the layer keeps its request for half a minute.
fn slim(request: &Request) -> Request {
    let mut slim = request.clone();
    slim.headers.retain(|header| {
        matches!(
            header.name(),
            HeaderName::Via | HeaderName::From | HeaderName::To | HeaderName::CallId | HeaderName::CSeq
        )
    });
    slim.set_body(Bytes::new());
    slim
}

/// Digest of what makes two requests the same one (RFC 3261 8.2.2.2).
fn merge_digest(out: &Outbox, request: &Request) -> Option<u64> {
    if matches!(request.method, Method::Cancel | Method::Ack) {
        return None;
    }
    if request.headers.typed::<To>()?.ok()?.tag().is_some() {
        return None;
    }
    let from = request.headers.typed::<From>()?.ok()?;
    let cseq = request.headers.typed::<CSeq>()?.ok()?;
    let call_id = request.headers.value(&HeaderName::CallId)?;
    Some(out.random.digest(&[
        &call_id,
        from.tag().unwrap_or_default(),
        &cseq.sequence.to_be_bytes(),
        cseq.method.as_bytes(),
    ]))
}

fn write_response(request: &Request, reply: &Reply, to_tag: &str) -> Option<Response> {
    let status = sipx_sip::StatusCode::new(reply.status)?;
    let mut builder = ResponseBuilder::to_request(request, status, reply.phrase).ok()?;
    // 100 carries no tag of ours (RFC 3261 8.2.6.2).
    let tagless = request
        .headers
        .typed::<To>()
        .is_some_and(|to| to.is_ok_and(|to| to.tag().is_none()));
    if reply.status > 100 && tagless {
        let mut value = request.headers.value(&HeaderName::To)?.into_owned();
        // A quoted NUL may be repeated but not written anew; such an answer goes without tag.
        if !value.contains(&0) {
            value.extend_from_slice(b";tag=");
            value.extend_from_slice(to_tag.as_bytes());
            builder = builder.set_header(&HeaderName::To, value).ok()?;
        }
    }
    for (name, value) in &reply.headers {
        builder = builder
            .header(name.clone(), Bytes::copy_from_slice(value.as_bytes()))
            .ok()?;
    }
    if reply.sdp.is_empty() {
        return Some(builder.build());
    }
    let builder = builder.header(HeaderName::ContentType, "application/sdp").ok()?;
    Some(builder.body(reply.sdp.clone()).build())
}

fn restore_via(headers: &mut sipx_sip::Headers, via: Option<&Header>) {
    if let Some(via) = via {
        headers.remove_first(&HeaderName::Via);
        headers.push_front(via.clone());
    }
}

fn reliability(flow: &Flow) -> Reliability {
    match flow.transport {
        Transport::Udp => Reliability::Unreliable,
        Transport::Tcp => Reliability::Reliable,
    }
}
