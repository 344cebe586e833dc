//! The one door to `sipx-sip`: bytes in, messages out, answers back.
//!
//! Lenient where the field is sloppy (bare LF, compact names, folding, Latin-1 in display names),
//! strict where leniency would let two elements read different messages out of the same bytes.
//! Every message is copied once on the way in, so that nothing kept here pins a receive buffer.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use sipx_sip::error::{LimitKind, ParseError};
use sipx_sip::headers::{BRANCH_MAGIC_COOKIE, first_hop_end};
use sipx_sip::message::TypedHeader;
use sipx_sip::validate::Finding;
use sipx_sip::{Limits, parse_datagram, validate_request, validate_response};

pub(crate) use sipx_sip::headers::{Address, CSeq, ContentType, From, To, Via};
pub(crate) use sipx_sip::{Header, HeaderName, Host, Message, Method, Request, Response, Scheme, Uri};

use crate::input::{Flow, Transport};
use crate::limits;

/// What a received byte string is.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// A request that may be acted upon.
    Request(Box<Request>),
    /// A response that may be acted upon.
    Response(Box<Response>),
    /// A request that may only be answered.
    Refused {
        /// What the answer repeats.
        echo: Box<Echo>,
        /// Status of the answer.
        status: u16,
        /// Reason phrase of the answer.
        phrase: &'static str,
    },
    /// Line ends only (RFC 5626 3.5.1).
    KeepAlive,
    /// Nothing that could be answered.
    Unreadable(&'static str),
}

/// Reads one message received on `flow`. Requests come back with `received` and `rport` in the
/// topmost Via (RFC 3261 18.2.1, RFC 3581 4).
pub(crate) fn read(bytes: &Bytes, flow: &Flow) -> Incoming {
    if bytes.len() > limits::MESSAGE_BYTES_MAX {
        return Incoming::Unreadable("message too long");
    }
    let Some(start) = bytes.iter().position(|&byte| !matches!(byte, b'\r' | b'\n')) else {
        return Incoming::KeepAlive;
    };
    let owned = normalise(bytes.get(start..).unwrap_or_default());
    match parse_datagram(owned.clone(), &PARSER_LIMITS) {
        Ok(Message::Request(request)) => accept_request(request, flow),
        Ok(Message::Response(response)) => {
            if validate_response(&response).is_empty() && via_count(&response.headers) <= limits::VIAS_MAX {
                Incoming::Response(Box::new(response))
            } else {
                Incoming::Unreadable("malformed response")
            }
        }
        Err(error) => refuse_bytes(&owned, flow, &error),
    }
}

fn accept_request(mut request: Request, flow: &Flow) -> Incoming {
    if via_count(&request.headers) > limits::VIAS_MAX {
        return Incoming::Unreadable("too many Via values");
    }
    // A missing Max-Forwards is RFC 2543 practice; nothing here forwards.
    let finding = validate_request(&request)
        .into_iter()
        .find(|finding| !finding.is_repairable());
    stamp(&mut request, flow);
    let Some(finding) = finding else {
        return Incoming::Request(Box::new(request));
    };
    if request.method == Method::Ack {
        return Incoming::Unreadable("malformed ACK");
    }
    match Echo::of_request(&request, flow) {
        Some(echo) => Incoming::Refused {
            echo: Box::new(echo),
            status: finding.status(),
            phrase: phrase_of_finding(&finding),
        },
        None => Incoming::Unreadable("no Via or CSeq"),
    }
}

fn phrase_of_finding(finding: &Finding) -> &'static str {
    // Other findings are all plain 400s; the phrase is only for people.
    if let Finding::MissingRequiredHeader(name) = finding {
        return match *name {
            "To" => "Missing To",
            "From" => "Missing From",
            "Call-ID" => "Missing Call-ID",
            "CSeq" => "Missing CSeq",
            "Via" => "Missing Via",
            _ => "Bad Request",
        };
    }
    match finding.status() {
        505 => "Version Not Supported",
        _ if *finding == Finding::CSeqMethodMismatch => "CSeq Method Mismatch",
        _ if *finding == Finding::RequestUriHasHeaders => "Headers In Request-URI",
        _ => "Bad Request",
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "all other errors are plain 400s")]
fn refuse_bytes(bytes: &Bytes, flow: &Flow, error: &ParseError) -> Incoming {
    let line_end = bytes
        .iter()
        .position(|&byte| byte == b'\r')
        .unwrap_or(bytes.len());
    let line = bytes.get(..line_end).unwrap_or_default();
    let is_request = line.windows(5).any(|five| five.eq_ignore_ascii_case(b" SIP/"));
    if !is_request || line.starts_with(b"ACK ") {
        return Incoming::Unreadable("not a request");
    }
    let (status, phrase) = match error {
        ParseError::Limit {
            limit: LimitKind::BodyBytes | LimitKind::MessageBytes,
            ..
        } => (413, "Request Entity Too Large"),
        ParseError::Framing(_) => (400, "Bad Content-Length"),
        ParseError::StartLine(_) => (400, "Bad Request Line"),
        _ => (400, "Bad Request"),
    };
    match Echo::salvage(bytes, flow) {
        Some(echo) => Incoming::Refused {
            echo: Box::new(echo),
            status,
            phrase,
        },
        None => Incoming::Unreadable("beyond repair"),
    }
}

fn via_count(headers: &sipx_sip::Headers) -> usize {
    headers
        .get_all(&HeaderName::Via)
        .map(|header| split_list(&header.value()).len())
        .sum()
}

/// Copies a message, giving every header line the CR LF that the grammar wants. Only the header part
/// is touched: a body is counted in bytes.
fn normalise(bytes: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(bytes.len() + 32);
    let mut rest = bytes.iter().enumerate().peekable();
    let mut line_start = 0;
    while let Some((index, &byte)) = rest.next() {
        if byte == b'\r' && rest.peek().is_some_and(|(_, next)| **next == b'\n') {
            continue;
        }
        if byte != b'\n' {
            out.push(byte);
            continue;
        }
        let empty = out.len() == line_start;
        out.extend_from_slice(b"\r\n");
        line_start = out.len();
        if empty {
            out.extend_from_slice(bytes.get(index + 1..).unwrap_or_default());
            break;
        }
    }
    Bytes::from(out)
}

/// What every answer repeats of its request (RFC 3261 8.2.6.2), and where the answer goes. Used for
/// answers without a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Echo {
    vias: Vec<Vec<u8>>,
    from: Option<Vec<u8>>,
    to: Option<Vec<u8>>,
    call_id: Option<Vec<u8>>,
    cseq: Vec<u8>,
    /// Where the answer goes.
    pub(crate) flow: Flow,
}

impl Echo {
    /// Of a request that was parsed and stamped; `None` when Via or CSeq is missing.
    pub(crate) fn of_request(request: &Request, flow: &Flow) -> Option<Self> {
        let first = |name: &HeaderName| request.headers.value(name).map(std::borrow::Cow::into_owned);
        let vias: Vec<_> = request
            .headers
            .get_all(&HeaderName::Via)
            .map(|via| via.value().into_owned())
            .collect();
        if vias.is_empty() {
            return None;
        }
        Some(Self {
            vias,
            from: first(&HeaderName::From),
            to: first(&HeaderName::To),
            call_id: first(&HeaderName::CallId),
            cseq: first(&HeaderName::CSeq)?,
            flow: response_flow(request, flow),
        })
    }

    /// Of bytes that are no message but were meant to be one.
    fn salvage(bytes: &[u8], flow: &Flow) -> Option<Self> {
        let mut vias = Vec::new();
        let (mut from, mut to, mut call_id, mut cseq) = (None, None, None, None);
        for (name, value) in salvaged_lines(bytes) {
            let slot = match name.to_ascii_lowercase().as_slice() {
                b"via" | b"v" => {
                    vias.push(value);
                    continue;
                }
                b"from" | b"f" => &mut from,
                b"to" | b"t" => &mut to,
                b"call-id" | b"i" => &mut call_id,
                b"cseq" => &mut cseq,
                _ => continue,
            };
            slot.get_or_insert(value);
        }
        let top = vias.first_mut()?;
        let mut answer_flow = *flow;
        if let Ok(via) = Via::decode(top) {
            answer_flow.remote = response_address(&via, flow);
            *top = stamp_value(top, &via, flow);
        }
        if vias.len() > limits::VIAS_MAX {
            return None;
        }
        Some(Self {
            vias,
            from,
            to,
            call_id,
            cseq: cseq?,
            flow: answer_flow,
        })
    }

    /// The identifying parts, for a tag that is the same for every repetition of the request.
    pub(crate) fn identity(&self) -> [&[u8]; 4] {
        [
            self.call_id.as_deref().unwrap_or_default(),
            self.from.as_deref().unwrap_or_default(),
            &self.cseq,
            self.vias.first().map(Vec::as_slice).unwrap_or_default(),
        ]
    }

    /// Writes the answer.
    pub(crate) fn answer(&self, status: u16, phrase: &str, to_tag: &str, extra: &[(&str, &str)]) -> Bytes {
        let mut out = format!("SIP/2.0 {status} {phrase}\r\n").into_bytes();
        let mut line = |name: &str, value: &[u8]| {
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
        };
        for via in &self.vias {
            line("Via", via);
        }
        if let Some(from) = &self.from {
            line("From", from);
        }
        if let Some(to) = &self.to {
            line("To", &with_tag(to, to_tag));
        }
        if let Some(call_id) = &self.call_id {
            line("Call-ID", call_id);
        }
        line("CSeq", &self.cseq);
        for (name, value) in extra {
            line(name, value.as_bytes());
        }
        line("Content-Length", b"0");
        out.extend_from_slice(b"\r\n");
        Bytes::from(out)
    }
}

/// Adds a tag to a To value that has none. A value that cannot be read keeps its form: a wrong tag
/// would be worse than none.
fn with_tag(to: &[u8], tag: &str) -> Vec<u8> {
    let mut value = to.to_vec();
    if To::decode(to).is_ok_and(|to| to.tag().is_none()) {
        value.extend_from_slice(b";tag=");
        value.extend_from_slice(tag.as_bytes());
    }
    value
}

/// Header lines of a broken message, unfolded: (name, value). Ends at the empty line.
fn salvaged_lines(bytes: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut lines: Vec<Vec<u8>> = Vec::new();
    for line in bytes.split(|&byte| byte == b'\n').skip(1) {
        let line: Vec<u8> = line
            .iter()
            .copied()
            .filter(|byte| !matches!(byte, b'\r' | 0))
            .collect();
        if line.is_empty() || lines.len() > limits::HEADERS_MAX {
            break;
        }
        match lines.last_mut() {
            Some(last) if matches!(line.first(), Some(b' ' | b'\t')) => {
                last.push(b' ');
                last.extend_from_slice(line.trim_ascii());
            }
            _ => lines.push(line),
        }
    }
    lines
        .iter()
        .filter_map(|line| {
            let colon = line.iter().position(|&byte| byte == b':')?;
            let name = line.get(..colon)?.trim_ascii().to_vec();
            Some((name, line.get(colon + 1..)?.trim_ascii().to_vec()))
        })
        .collect()
}

/// Where answers to this request go: over its own connection, or to the address and port of the
/// topmost Via as seen from here (RFC 3261 18.2.2, RFC 3581 4). `maddr` is not honoured: it would let
/// anybody point our answers at a third party.
pub(crate) fn response_flow(request: &Request, flow: &Flow) -> Flow {
    let mut answer = *flow;
    if let Some(Ok(via)) = request.headers.typed::<Via>() {
        answer.remote = response_address(&via, flow);
    }
    answer
}

fn response_address(via: &Via, flow: &Flow) -> SocketAddr {
    match flow.transport {
        Transport::Tcp => flow.remote,
        Transport::Udp if via.rport().is_some() => flow.remote,
        Transport::Udp => SocketAddr::new(flow.remote.ip(), via.port.unwrap_or(SIP_PORT)),
    }
}

fn stamp(request: &mut Request, flow: &Flow) {
    let Some(index) = request
        .headers
        .iter()
        .position(|header| *header.name() == HeaderName::Via)
    else {
        return;
    };
    let Some(value) = request
        .headers
        .value(&HeaderName::Via)
        .map(std::borrow::Cow::into_owned)
    else {
        return;
    };
    let Ok(via) = Via::decode(&value) else { return };
    if let Ok(header) = Header::build(HeaderName::Via, stamp_value(&value, &via, flow)) {
        request.headers.remove_first(&HeaderName::Via);
        request.headers.insert(index, header);
    }
}

/// The Via value with `received` and `rport` of the first hop as seen from here; what the peer claims
/// in `received` is dropped.
fn stamp_value(value: &[u8], via: &Via, flow: &Flow) -> Vec<u8> {
    let end = first_hop_end(value);
    let (first, others) = value.split_at(end);
    let wants_port = via.rport().is_some();
    let same_host = matches!(via.host, Host::Ip(ip) if same_ip(ip, flow.remote.ip()));
    let mut out = Vec::with_capacity(value.len() + 48);
    for (index, piece) in split_quoted(first, b';').into_iter().enumerate() {
        let name = piece
            .split(|&byte| byte == b'=')
            .next()
            .unwrap_or_default()
            .trim_ascii();
        if name.eq_ignore_ascii_case(b"received") || name.eq_ignore_ascii_case(b"rport") {
            continue;
        }
        if index > 0 {
            out.push(b';');
        }
        out.extend_from_slice(piece);
    }
    if wants_port || !same_host {
        out.extend_from_slice(format!(";received={}", flow.remote.ip().to_canonical()).as_bytes());
    }
    if wants_port {
        out.extend_from_slice(format!(";rport={}", flow.remote.port()).as_bytes());
    }
    out.extend_from_slice(others);
    out
}

fn same_ip(one: IpAddr, other: IpAddr) -> bool {
    one.to_canonical() == other.to_canonical()
}

/// Whether the topmost branch is nothing but the magic cookie.
pub(crate) fn has_bare_branch(request: &Request) -> bool {
    let via = request.headers.typed::<Via>();
    via.is_some_and(|via| via.is_ok_and(|via| via.branch() == Some(BRANCH_MAGIC_COOKIE)))
}

/// Gives a branch that is nothing but the magic cookie a text of its own, so that such requests do
/// not all fall into one transaction. Returns the Via to put back into answers.
pub(crate) fn disambiguate(request: &mut Request) -> Option<Header> {
    if !has_bare_branch(request) {
        return None;
    }
    let value = request.headers.value(&HeaderName::Via)?.into_owned();
    let original = request.headers.get(&HeaderName::Via)?.clone();
    let identity = [HeaderName::CallId, HeaderName::CSeq, HeaderName::From].map(|name| {
        let value = request
            .headers
            .value(&name)
            .map(std::borrow::Cow::into_owned)
            .unwrap_or_default();
        // ACK and CANCEL belong to the INVITE: only the number of CSeq counts.
        let keep = if name == HeaderName::CSeq {
            value.iter().position(|b| *b == b' ')
        } else {
            None
        };
        value
            .get(..keep.unwrap_or(value.len()))
            .unwrap_or_default()
            .to_vec()
    });
    let suffix: String = identity
        .concat()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let pieces = split_quoted(&value, b';');
    let text: Vec<Vec<u8>> = pieces
        .into_iter()
        .map(|piece| {
            let mut piece = piece.to_vec();
            if piece
                .to_ascii_lowercase()
                .trim_ascii_start()
                .starts_with(b"branch")
            {
                piece.extend_from_slice(suffix.as_bytes());
            }
            piece
        })
        .collect();
    let header = Header::build(HeaderName::Via, text.join(&b';')).ok()?;
    request.headers.remove_first(&HeaderName::Via);
    request.headers.push_front(header);
    Some(original)
}

/// Splits at `separator` outside quoted strings.
pub(crate) fn split_quoted(value: &[u8], separator: u8) -> Vec<&[u8]> {
    split(value, separator, false)
}

/// Splits a comma-separated list; commas in quotes and in angle brackets belong to their value.
pub(crate) fn split_list(value: &[u8]) -> Vec<&[u8]> {
    split(value, b',', true)
        .into_iter()
        .map(<[u8]>::trim_ascii)
        .filter(|item| !item.is_empty())
        .collect()
}

fn split(value: &[u8], separator: u8, respect_angles: bool) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    let (mut start, mut quoted, mut escaped, mut angle) = (0, false, false, false);
    for (index, &byte) in value.iter().enumerate() {
        if escaped {
            escaped = false;
        } else if quoted {
            match byte {
                b'\\' => escaped = true,
                b'"' => quoted = false,
                _ => {}
            }
        } else if byte == b'"' && !angle {
            quoted = true;
        } else if respect_angles && matches!(byte, b'<' | b'>') {
            angle = byte == b'<';
        } else if byte == separator && !angle {
            pieces.push(value.get(start..index).unwrap_or_default());
            start = index + 1;
        }
    }
    pieces.push(value.get(start..).unwrap_or_default());
    pieces
}

/// All values of a list header, in order, as text.
pub(crate) fn list_values(request: &Request, name: &HeaderName) -> Vec<String> {
    let mut values = Vec::new();
    for header in request.headers.get_all(name) {
        values.extend(split_list(&header.value()).into_iter().map(text));
    }
    values
}

/// First value of a header as text.
pub(crate) fn header_text(request: &Request, name: &HeaderName) -> Option<String> {
    request.headers.value(name).map(|value| text(&value))
}

/// Bytes as text: UTF-8 where it is, else Latin-1, which the field's older devices send.
pub(crate) fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().map(|&byte| char::from(byte)).collect(),
    }
}

/// One line for logs: without control characters.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .filter(|character| !character.is_control())
        .take(200)
        .collect()
}

/// Serialises a message.
pub(crate) fn to_bytes(message: &Message) -> Bytes {
    message.to_bytes()
}

/// Default SIP port (RFC 3261 19.1.2).
pub(crate) const SIP_PORT: u16 = 5060;

const PARSER_LIMITS: Limits = Limits {
    max_message_bytes: 2 * limits::MESSAGE_BYTES_MAX,
    max_body_bytes: limits::MESSAGE_BYTES_MAX,
    max_headers: limits::HEADERS_MAX,
    max_header_bytes: limits::HEADER_BYTES_MAX,
    max_folding_lines: limits::FOLDS_MAX,
};

#[cfg(test)]
mod tests;
