//! Dialogs (RFC 3261 12): the two tags, sequence numbers, the way to the peer, and requests inside.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use sipx_sip::RequestBuilder;

use super::reply::Reason;
use super::wire::{self, Address, CSeq, From, Header, HeaderName, Host, Method, Request, SIP_PORT, To, Uri};
use crate::input::{Flow, Transport};
use crate::limits;
use crate::random::Random;

/// One dialog of ours as the side that was called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dialog {
    pub(crate) call_id: Box<str>,
    pub(crate) local_tag: Box<str>,
    pub(crate) remote_tag: Box<str>,
    /// Our URI, as the peer wrote it in To.
    pub(crate) local_uri: Box<str>,
    /// The peer's URI, as it wrote it in From.
    pub(crate) remote_uri: Box<str>,
    /// Where requests to the peer are addressed.
    pub(crate) remote_target: Box<str>,
    /// Route values in the order of use, each with its angle brackets.
    pub(crate) routes: Vec<Box<str>>,
    pub(crate) local_cseq: u32,
    pub(crate) remote_cseq: u32,
    /// How the peer was last heard.
    pub(crate) flow: Flow,
}

/// What identifies a dialog (RFC 3261 12): Call-ID, our tag, the peer's tag.
pub(crate) type DialogKey = (Box<str>, Box<str>, Box<str>);

impl Dialog {
    /// The dialog that a 2xx to this INVITE establishes (RFC 3261 12.1.1).
    pub(crate) fn from_invite(request: &Request, flow: &Flow, local_tag: String) -> Result<Self, Reason> {
        let from = typed::<From>(request).ok_or(Reason::Malformed("Bad From"))?;
        let to = typed::<To>(request).ok_or(Reason::Malformed("Bad To"))?;
        let cseq = typed::<CSeq>(request).ok_or(Reason::Malformed("Bad CSeq"))?;
        let call_id =
            wire::header_text(request, &HeaderName::CallId).ok_or(Reason::Malformed("Missing Call-ID"))?;
        let to_value = request.headers.value(&HeaderName::To).unwrap_or_default();
        if call_id.chars().any(char::is_control) || to_value.contains(&0) {
            return Err(Reason::Malformed("Control Character"));
        }
        let remote_uri = wire::text(&from.uri.to_bytes());
        // RFC 2543 callers may omit Contact: their From is where they can be reached.
        let remote_target = contact(request)?.unwrap_or_else(|| remote_uri.clone());
        let routes: Vec<Box<str>> = wire::list_values(request, &HeaderName::RecordRoute)
            .into_iter()
            .map(String::into_boxed_str)
            .collect();
        if routes.len() > limits::ROUTES_MAX || !routes.iter().all(|route| route_uri(route).is_some()) {
            return Err(Reason::Malformed("Bad Record-Route"));
        }
        Ok(Self {
            call_id: call_id.into(),
            local_tag: local_tag.into(),
            remote_tag: wire::text(from.tag().unwrap_or_default()).into(),
            local_uri: wire::text(&to.uri.to_bytes()).into(),
            remote_uri: remote_uri.into(),
            remote_target: remote_target.into(),
            routes,
            local_cseq: 0,
            remote_cseq: cseq.sequence,
            flow: *flow,
        })
    }

    /// Its key.
    pub(crate) fn key(&self) -> DialogKey {
        (
            self.call_id.clone(),
            self.local_tag.clone(),
            self.remote_tag.clone(),
        )
    }

    /// Notes the sequence number of a request inside; a lower one than before is out of order
    /// (RFC 3261 12.2.2). Equal numbers are let through: hand-written test scenarios reuse them.
    pub(crate) fn advance(&mut self, request: &Request) -> Result<(), Reason> {
        let cseq = typed::<CSeq>(request).ok_or(Reason::Malformed("Bad CSeq"))?;
        if cseq.sequence < self.remote_cseq {
            return Err(Reason::OutOfOrder);
        }
        self.remote_cseq = cseq.sequence;
        Ok(())
    }

    /// Takes the target from a target refresh request (RFC 3261 12.2.2) and the way it came.
    pub(crate) fn refresh(&mut self, request: &Request, flow: &Flow) -> Result<(), Reason> {
        if let Some(target) = contact(request)? {
            self.remote_target = target.into();
        }
        self.flow = *flow;
        Ok(())
    }

    /// A request of ours inside the dialog and where to send it (RFC 3261 12.2.1.1).
    /// `direct` sends it where the peer was last heard instead of where its addresses point.
    pub(crate) fn request(
        &mut self,
        method: &Method,
        contact: &str,
        direct: bool,
        random: &mut Random,
        extra: &[(HeaderName, String)],
    ) -> Option<(Request, Flow)> {
        self.local_cseq = self.local_cseq.checked_add(1)?;
        let target = Uri::parse(Bytes::copy_from_slice(self.remote_target.as_bytes())).ok()?;
        let first = self.routes.first().and_then(|route| route_uri(route));
        let strict = first
            .as_ref()
            .filter(|uri| uri.params().is_some_and(|params| !params.contains("lr")));
        let request_uri = strict.unwrap_or(&target).clone();
        let flow = self.next_hop(first.as_ref().unwrap_or(&target), direct);
        let transport = match flow.transport {
            Transport::Udp => "UDP",
            Transport::Tcp => "TCP",
        };
        let via = format!(
            "SIP/2.0/{transport} {};branch=z9hG4bK{};rport",
            flow.local,
            random.token()
        );
        let mut builder = RequestBuilder::new(method.clone(), request_uri)
            .header(HeaderName::Via, via)
            .ok()?
            .max_forwards(70);
        for (name, value) in self.addressing(strict.is_some(), contact, extra) {
            builder = builder.header(name, value).ok()?;
        }
        builder = builder.cseq(self.local_cseq, method).ok()?;
        Some((builder.build(), flow))
    }

    fn addressing(
        &self,
        strict: bool,
        contact: &str,
        extra: &[(HeaderName, String)],
    ) -> Vec<(HeaderName, String)> {
        let skip = usize::from(strict);
        let mut fields: Vec<(HeaderName, String)> = self
            .routes
            .iter()
            .skip(skip)
            .map(|route| (HeaderName::Route, route.to_string()))
            .collect();
        if strict {
            fields.push((HeaderName::Route, format!("<{}>", self.remote_target)));
        }
        fields.push((
            HeaderName::From,
            format!("<{}>;tag={}", self.local_uri, self.local_tag),
        ));
        let tag = if self.remote_tag.is_empty() {
            String::new()
        } else {
            format!(";tag={}", self.remote_tag)
        };
        fields.push((HeaderName::To, format!("<{}>{tag}", self.remote_uri)));
        fields.push((HeaderName::CallId, self.call_id.to_string()));
        if !contact.is_empty() {
            fields.push((HeaderName::Contact, contact.to_owned()));
        }
        fields.extend(extra.iter().cloned());
        fields
    }

    /// A live connection is used as it is. Else the request goes to the numeric address in `uri`;
    /// host names are not resolved here, for them it goes where the peer was last heard.
    fn next_hop(&self, uri: &Uri, direct: bool) -> Flow {
        let connected = self.flow.transport == Transport::Tcp && self.flow.connection != DEAD_CONNECTION;
        if direct || connected {
            return self.flow;
        }
        // The transport stays: our listener for another one is not known here.
        let remote = numeric_address(uri)
            .filter(|address| address.is_ipv4() == self.flow.local.is_ipv4())
            .unwrap_or(self.flow.remote);
        Flow { remote, ..self.flow }
    }

    /// The connection that carried this dialog is gone.
    pub(crate) fn on_flow_failed(&mut self, flow: &Flow) -> bool {
        let ours = self.flow.transport == Transport::Tcp && self.flow == *flow;
        if ours {
            self.flow.connection = DEAD_CONNECTION;
        }
        ours
    }
}

/// A flow as records hold it: `udp|tcp local remote`.
pub(crate) fn flow_text(flow: &Flow) -> String {
    let transport = match flow.transport {
        Transport::Udp => "udp",
        Transport::Tcp => "tcp",
    };
    format!("{transport} {} {}", flow.local, flow.remote)
}

/// Reads what [`flow_text`] wrote. Connections do not survive a restart.
pub(crate) fn flow_of_text(text: &str) -> Option<Flow> {
    let mut words = text.split(' ');
    let transport = match words.next()? {
        "udp" => Transport::Udp,
        "tcp" => Transport::Tcp,
        _ => return None,
    };
    let (local, remote) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some(Flow {
        transport,
        local,
        remote,
        connection: DEAD_CONNECTION,
    })
}

/// Number of a connection that is gone: the driver opens a new one.
pub(crate) const DEAD_CONNECTION: u64 = 0;

fn typed<H: sipx_sip::TypedHeader>(request: &Request) -> Option<H> {
    request.headers.typed::<H>()?.ok()
}

/// URI of the first Contact; `None` when there is no Contact.
fn contact(request: &Request) -> Result<Option<String>, Reason> {
    let values = wire::list_values(request, &HeaderName::Contact);
    let Some(first) = values.first() else {
        return Ok(None);
    };
    let address =
        Address::parse(first.as_bytes(), "Contact").map_err(|_| Reason::Malformed("Bad Contact"))?;
    if !address.uri.scheme().is_sip() {
        return Err(Reason::Malformed("Bad Contact Scheme"));
    }
    Ok(Some(wire::text(&address.uri.to_bytes())))
}

fn route_uri(route: &str) -> Option<Uri> {
    let address = Address::parse(route.as_bytes(), "Route").ok()?;
    let writable = Header::build(HeaderName::Route, Bytes::copy_from_slice(route.as_bytes())).is_ok();
    (address.uri.scheme().is_sip() && writable).then_some(address.uri)
}

fn numeric_address(uri: &Uri) -> Option<SocketAddr> {
    let ip: IpAddr = match uri.host()? {
        Host::Ip(ip) => *ip,
        Host::Name(_) => return None,
    };
    if ip.is_unspecified() || ip.is_multicast() {
        return None;
    }
    Some(SocketAddr::new(ip, uri.port().unwrap_or(SIP_PORT)))
}

#[cfg(test)]
mod tests;
