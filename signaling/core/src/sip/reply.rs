//! Answers: status, phrase and header fields, and the one table from reasons to them.

use std::borrow::Cow;

use super::wire::HeaderName;
use crate::limits;

/// An answer to a request, before it has a To tag and a Via.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) phrase: &'static str,
    pub(crate) headers: Vec<(HeaderName, Cow<'static, str>)>,
    /// A session description.
    pub(crate) sdp: String,
}

impl Reply {
    /// An answer with the usual phrase.
    pub(crate) fn new(status: u16) -> Self {
        Self {
            status,
            phrase: phrase(status),
            headers: Vec::new(),
            sdp: String::new(),
        }
    }

    /// With one more header field.
    pub(crate) fn with(mut self, name: HeaderName, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// With a body.
    pub(crate) fn with_sdp(mut self, sdp: String) -> Self {
        self.sdp = sdp;
        self
    }

    /// With a warning; the agent is our domain (RFC 3261 20.43).
    pub(crate) fn warning(self, code: u16, domain: &str, text: &str) -> Self {
        let text: String = text
            .chars()
            .filter(|c| !c.is_control() && !matches!(c, '"' | '\\'))
            .collect();
        self.with(HeaderName::Warning, format!("{code} {domain} \"{text}\""))
    }
}

/// Why a request is refused. The table from reasons to SIP answers is [`refusal`] and nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Peer outside the trusted networks: 403.
    NotTrusted,
    /// No such conference, or an address that can be none: 404.
    NoConference,
    /// A method that is known but not served: 405 with Allow.
    MethodNotAllowed,
    /// A method nobody knows: 501 with Allow.
    MethodUnknown,
    /// The peer accepts no session description: 406.
    NotAcceptable,
    /// Body too long: 413.
    TooLarge,
    /// Body of a foreign type: 415 with Accept.
    MediaType,
    /// Body in a foreign encoding: 415 with Accept-Encoding.
    MediaEncoding,
    /// Request-URI of a foreign scheme: 416.
    Scheme,
    /// Options are required that are not supported: 420 with Unsupported.
    Extension(Vec<String>),
    /// No dialog or transaction: 481.
    NoDialog,
    /// The same request by two ways: 482.
    Merged,
    /// The conference is locked or full: 486. Callers see "busy", as telephone users expect; 403 would
    /// make many user agents ask for a password, 423 is about registrations.
    Locked,
    /// The conference is about to end: 486, a new try creates it anew.
    Ending,
    /// A request of ours is open: 491 (M-74).
    Glare,
    /// An INVITE of the peer is open: 500 with Retry-After (M-75).
    InProgress,
    /// CSeq lower than before: 500.
    OutOfOrder,
    /// Broken at our side: 500.
    Internal,
    /// No room: 503 with Retry-After.
    Overloaded(Option<u32>),
    /// Withdrawn by CANCEL or BYE: 487.
    Cancelled,
    /// Something mandatory is missing or broken: 400 with this phrase.
    Malformed(&'static str),
}

/// The answer to a refused request.
pub(crate) fn refusal(reason: &Reason, domain: &str) -> Reply {
    match reason {
        Reason::NotTrusted => Reply::new(403),
        Reason::NoConference => Reply::new(404),
        Reason::MethodNotAllowed => Reply::new(405).with(HeaderName::Allow, ALLOW),
        Reason::MethodUnknown => Reply::new(501).with(HeaderName::Allow, ALLOW),
        Reason::NotAcceptable => Reply::new(406),
        Reason::TooLarge => Reply::new(413),
        Reason::MediaType => Reply::new(415).with(HeaderName::Accept, ACCEPT),
        Reason::MediaEncoding => Reply::new(415)
            .with(HeaderName::Accept, ACCEPT)
            .with(HeaderName::AcceptEncoding, ACCEPT_ENCODING),
        Reason::Scheme => Reply::new(416),
        Reason::Extension(tags) => Reply::new(420).with(HeaderName::Unsupported, tags.join(", ")),
        Reason::NoDialog => Reply::new(481),
        Reason::Merged => Reply::new(482),
        Reason::Locked => Reply::new(486).warning(399, domain, "Conference is locked or full"),
        Reason::Ending => Reply::new(486).warning(399, domain, "Conference is ending"),
        Reason::Glare => Reply::new(491),
        Reason::InProgress => Reply::new(500).with(HeaderName::RetryAfter, "2"),
        Reason::OutOfOrder | Reason::Internal => Reply::new(500),
        Reason::Overloaded(after) => Reply::new(503).with(
            HeaderName::RetryAfter,
            after.unwrap_or(limits::RETRY_AFTER_S).max(1).to_string(),
        ),
        Reason::Cancelled => Reply::new(487),
        Reason::Malformed(phrase) => Reply {
            phrase,
            ..Reply::new(400)
        },
    }
}

fn phrase(status: u16) -> &'static str {
    match status {
        100 => "Trying",
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        413 => "Request Entity Too Large",
        415 => "Unsupported Media Type",
        416 => "Unsupported URI Scheme",
        420 => "Bad Extension",
        481 => "Call/Transaction Does Not Exist",
        482 => "Loop Detected",
        486 => "Busy Here",
        487 => "Request Terminated",
        488 => "Not Acceptable Here",
        491 => "Request Pending",
        500 => "Server Internal Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        _ => "Unspecified",
    }
}

/// Methods served.
pub(crate) const ALLOW: &str = "INVITE, ACK, BYE, CANCEL, OPTIONS, INFO, UPDATE";
/// Bodies understood.
pub(crate) const ACCEPT: &str = "application/sdp, application/dtmf-relay, application/dtmf";
/// Encodings of bodies understood.
pub(crate) const ACCEPT_ENCODING: &str = "identity";
/// Options supported: none so far, which the empty field says.
pub(crate) const SUPPORTED: &str = "";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_carry_what_the_standard_asks_for() {
        let has = |reason: Reason, name: HeaderName| {
            refusal(&reason, "localhost")
                .headers
                .iter()
                .any(|(n, v)| *n == name && !v.is_empty())
        };
        assert!(has(Reason::MethodNotAllowed, HeaderName::Allow));
        assert!(has(Reason::MethodUnknown, HeaderName::Allow));
        assert!(has(Reason::MediaType, HeaderName::Accept));
        assert!(has(Reason::MediaEncoding, HeaderName::AcceptEncoding));
        assert!(has(Reason::Extension(vec!["x".into()]), HeaderName::Unsupported));
        assert!(has(Reason::Locked, HeaderName::Warning));
        assert!(has(Reason::Overloaded(None), HeaderName::RetryAfter));
        assert!(has(Reason::InProgress, HeaderName::RetryAfter));
    }

    #[test]
    fn warning_text_cannot_break_the_line() {
        let reply = Reply::new(488).warning(399, "localhost", "a\"b\r\nc");
        assert_eq!(
            reply.headers.first().map(|(_, value)| value.as_ref()),
            Some("399 localhost \"abc\"")
        );
    }
}
