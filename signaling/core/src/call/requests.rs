//! Requests by method: to whom they go, and the ones that are answered on the spot.

use super::incoming::Rejected;
use super::{CallId, Phase};
use crate::Core;
use crate::effect::{Count, LogLevel};
use crate::input::{Flow, Transport};
use crate::limits;
use crate::sip::checks;
use crate::sip::dialog::DialogKey;
use crate::sip::reply::{ACCEPT, ACCEPT_ENCODING, ALLOW, Reason, Reply, SUPPORTED, refusal};
use crate::sip::transactions::{TransactionId, Upward};
use crate::sip::wire::{self, Echo, From, HeaderName, Incoming, Method, Request};

use super::incoming::CONFERENCE_PREFIX;

impl Core {
    /// Bytes from the network.
    pub(crate) fn on_sip(&mut self, flow: &Flow, bytes: &bytes::Bytes) {
        match wire::read(bytes, flow) {
            Incoming::Request(request) => self.on_wire_request(request, flow),
            Incoming::Response(response) => {
                let upward = self.transactions.receive_response(&mut self.out, *response);
                self.on_upward(upward);
            }
            Incoming::Refused { echo, status, phrase } => {
                self.out.count(Count::ParseError);
                self.answer_statelessly(
                    &echo,
                    &Reply {
                        phrase,
                        ..Reply::new(status)
                    },
                );
            }
            Incoming::Unreadable(why) => {
                self.out.count(Count::ParseError);
                self.out.log(
                    LogLevel::Debug,
                    "message dropped",
                    "",
                    "",
                    &format!("{why} from {}", flow.remote),
                );
            }
            Incoming::KeepAlive => {}
        }
    }

    fn on_wire_request(&mut self, request: Box<Request>, flow: &Flow) {
        let known = self.transactions.knows(&request);
        if !known {
            self.out.count(Count::Request {
                method: method_name(&request.method),
            });
            if let Some(reason) = self.turned_away(&request, flow) {
                if request.method != Method::Ack
                    && let Some(echo) = Echo::of_request(&request, flow)
                {
                    self.answer_statelessly(&echo, &refusal(&reason, &self.config.domain));
                }
                return;
            }
        }
        let upward = self.transactions.receive_request(&mut self.out, request, flow);
        if let Some(Upward::Request {
            transaction,
            request,
            merged,
        }) = upward
        {
            self.on_request(transaction, &request, flow, merged);
        } else {
            self.on_upward(upward);
        }
    }

    /// Why a new request is refused without keeping anything of it.
    fn turned_away(&mut self, request: &Request, flow: &Flow) -> Option<Reason> {
        if !self.config.trusts(flow.remote.ip()) {
            self.note_refused_peer(flow);
            return Some(Reason::NotTrusted);
        }
        if request.method == Method::Ack || checks::to_tag(request).is_some() {
            return None;
        }
        let transactions_max = limits::TRANSACTIONS_MIN
            + self
                .config
                .calls_max
                .saturating_mul(limits::TRANSACTIONS_PER_CALL);
        let full = request.method == Method::Invite
            && self.conferences.endpoints_len() >= self.config.calls_max
            || request.method != Method::Cancel && self.transactions.len() >= transactions_max;
        full.then_some(Reason::Overloaded(None))
    }

    fn note_refused_peer(&mut self, flow: &Flow) {
        if self.refused_peers.len() < limits::REFUSED_PEERS_MAX && self.refused_peers.insert(flow.remote.ip())
        {
            let detail = format!(
                "{} is in none of the networks of `[sip] trusted`",
                flow.remote.ip()
            );
            self.out.log(LogLevel::Warn, "peer refused", "", "", &detail);
        }
    }

    /// What the transactions pass up, but new requests.
    pub(crate) fn on_upward(&mut self, upward: Option<Upward>) {
        match upward {
            Some(Upward::Ack(request)) => self.on_ack(&request),
            Some(Upward::Response {
                transaction,
                response,
            }) => {
                if response.status.is_final() {
                    self.on_transaction_over(transaction);
                }
            }
            Some(Upward::Unanswered(transaction)) => self.on_transaction_over(transaction),
            Some(Upward::Request { .. } | Upward::Stray) | None => {}
        }
    }

    fn on_transaction_over(&mut self, transaction: TransactionId) {
        let Some(id) = self.calls.by_transaction(transaction) else {
            return;
        };
        if matches!(
            self.calls.get(id).map(|call| &call.phase),
            Some(Phase::Leaving { .. })
        ) {
            self.on_bye_done(id);
        }
    }

    fn on_request(&mut self, transaction: TransactionId, request: &Request, flow: &Flow, merged: bool) {
        if let Err(reason) = checks::method(&request.method) {
            self.refuse(transaction, &reason);
            return;
        }
        if request.method == Method::Cancel {
            self.on_cancel(transaction, request);
        } else if checks::to_tag(request).is_some() {
            match self.call_of(request) {
                Some(id) => self.on_request_inside(id, transaction, request, flow),
                None => self.refuse(transaction, &Reason::NoDialog),
            }
        } else if merged {
            self.refuse(transaction, &Reason::Merged);
        } else if request.method == Method::Invite {
            self.on_invite(transaction, request, flow);
        } else if request.method == Method::Options {
            self.on_options(transaction, request, flow);
        } else {
            self.refuse(transaction, &Reason::NoDialog);
        }
    }

    /// The call that a request inside a dialog belongs to.
    pub(crate) fn call_of(&self, request: &Request) -> Option<CallId> {
        let from = request.headers.typed::<From>()?.ok()?;
        let key: DialogKey = (
            wire::header_text(request, &HeaderName::CallId)?.into(),
            checks::to_tag(request)?.into(),
            wire::text(from.tag().unwrap_or_default()).into(),
        );
        self.calls.by_dialog(&key)
    }

    fn on_request_inside(&mut self, id: CallId, transaction: TransactionId, request: &Request, flow: &Flow) {
        let Some(call) = self.calls.get_mut(id) else {
            return;
        };
        let leaving = matches!(call.phase, Phase::Leaving { .. });
        let checked = if request.method == Method::Bye {
            call.dialog.advance(request)
        } else if leaving {
            Err(Reason::NoDialog)
        } else {
            checks::required_options(request).and_then(|()| call.dialog.advance(request))
        };
        if let Err(reason) = checked {
            self.reject_in_dialog(id, transaction, &reason.into());
            return;
        }
        if request.method == Method::Bye {
            self.on_bye(id, transaction);
        } else if matches!(request.method, Method::Invite | Method::Update) {
            self.on_change(id, transaction, request, flow);
        } else if request.method == Method::Info {
            self.on_info(id, transaction, request);
        } else {
            let (reply, tag) = (self.capabilities(request, flow), self.tag_of(id));
            self.answer(transaction, &reply, &tag);
            self.save_if_saved(id);
        }
    }

    /// Digits in INFO.
    fn on_info(&mut self, id: CallId, transaction: TransactionId, request: &Request) {
        let kind = match checks::body(request) {
            Ok(checks::Body::Sdp) => Err(Reason::MediaType),
            other => other,
        };
        let kind = match kind {
            Ok(kind) => kind,
            Err(reason) => {
                self.reject_in_dialog(id, transaction, &Rejected::Reason(reason));
                return;
            }
        };
        if let (Some((digit, duration_ms)), Some(call)) =
            (checks::digit(kind, request.body()), self.calls.get(id))
        {
            self.conferences
                .digit(call.endpoint.as_str(), digit, duration_ms, self.wall);
        }
        let tag = self.tag_of(id);
        self.answer(transaction, &Reply::new(200), &tag);
        self.save_if_saved(id);
    }

    /// The sequence number of a dialog in the store changed.
    pub(crate) fn save_if_saved(&mut self, id: CallId) {
        if self.calls.get(id).is_some_and(|call| call.saved) {
            self.save(id);
        }
    }

    fn on_options(&mut self, transaction: TransactionId, request: &Request, flow: &Flow) {
        let checked = checks::scheme(request).and_then(|()| checks::required_options(request));
        if let Err(reason) = checked {
            self.refuse(transaction, &reason);
            return;
        }
        let reply = self.capabilities(request, flow);
        let tag = self.out.random.token();
        self.answer(transaction, &reply, &tag);
    }

    /// What we can (RFC 3261 11.2).
    fn capabilities(&self, request: &Request, flow: &Flow) -> Reply {
        let user = request
            .uri
            .decoded_user()
            .map(|user| wire::text(&user))
            .unwrap_or_default();
        let name = user.strip_prefix(CONFERENCE_PREFIX).unwrap_or(&user);
        let contact = match self.conferences.get(name) {
            Some(conference) => self.focus_contact(conference.id().as_str(), flow),
            None => format!(
                "<sip:{}{}>",
                self.host_port(flow),
                transport_parameter(flow.transport)
            ),
        };
        Reply::new(200)
            .with(HeaderName::Contact, contact)
            .with(HeaderName::Allow, ALLOW)
            .with(HeaderName::Accept, ACCEPT)
            .with(HeaderName::AcceptEncoding, ACCEPT_ENCODING)
            .with(HeaderName::Supported, SUPPORTED)
    }

    /// Contact of a focus (RFC 4579 4).
    pub(crate) fn focus_contact(&self, conference: &str, flow: &Flow) -> String {
        let transport = transport_parameter(flow.transport);
        format!(
            "<sip:{CONFERENCE_PREFIX}{conference}@{}{transport}>;isfocus",
            self.host_port(flow)
        )
    }

    /// How peers reach us: the address they used, or our domain when only the port of it is known.
    fn host_port(&self, flow: &Flow) -> String {
        if flow.local.ip().is_unspecified() {
            return format!("{}:{}", self.config.domain, flow.local.port());
        }
        flow.local.to_string()
    }

    /// Our tag of a call, or a new one.
    pub(crate) fn tag_of(&mut self, id: CallId) -> Box<str> {
        match self.calls.get(id) {
            Some(call) => call.dialog.local_tag.clone(),
            None => self.out.random.token().into(),
        }
    }

    /// Answers a request.
    pub(crate) fn answer(&mut self, transaction: TransactionId, reply: &Reply, tag: &str) {
        self.transactions.respond(&mut self.out, transaction, reply, tag);
    }

    /// Refuses a request outside any dialog of ours.
    pub(crate) fn refuse(&mut self, transaction: TransactionId, reason: &Reason) {
        let reply = self.refusal(reason);
        let tag = self.out.random.token();
        self.answer(transaction, &reply, &tag);
    }

    pub(crate) fn refusal(&self, reason: &Reason) -> Reply {
        refusal(reason, &self.config.domain)
    }

    fn answer_statelessly(&mut self, echo: &Echo, reply: &Reply) {
        let tag = format!("{:016x}", self.out.random.digest(&echo.identity()));
        let mut fields: Vec<(String, &str)> = Vec::new();
        for (name, value) in &reply.headers {
            fields.push((wire::text(name.canonical()), value));
        }
        let fields: Vec<(&str, &str)> = fields
            .iter()
            .map(|(name, value)| (name.as_str(), *value))
            .collect();
        self.out
            .send(echo.flow, echo.answer(reply.status, reply.phrase, &tag, &fields));
        self.out.count(Count::Response {
            status: reply.status,
            delay_ns: 0,
            invite: false,
        });
    }
}

fn transport_parameter(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => ";transport=udp",
        Transport::Tcp => ";transport=tcp",
    }
}

/// A closed set of names for metrics.
#[expect(clippy::wildcard_enum_match_arm, reason = "all other methods have one name")]
fn method_name(method: &Method) -> &'static str {
    match method {
        Method::Invite => "INVITE",
        Method::Ack => "ACK",
        Method::Bye => "BYE",
        Method::Cancel => "CANCEL",
        Method::Register => "REGISTER",
        Method::Options => "OPTIONS",
        Method::Info => "INFO",
        Method::Prack => "PRACK",
        Method::Update => "UPDATE",
        Method::Subscribe => "SUBSCRIBE",
        Method::Notify => "NOTIFY",
        Method::Refer => "REFER",
        Method::Message => "MESSAGE",
        Method::Publish => "PUBLISH",
        _ => "OTHER",
    }
}
