//! What is checked of a request before anybody acts on it (RFC 3261 8.2): method, scheme, required
//! options, body.

use super::reply::Reason;
use super::wire::{self, ContentType, HeaderName, Method, Request, Scheme, To};
use crate::limits;

/// Whether the method is served, known, or neither.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "every other known method is not served"
)]
pub(crate) fn method(method: &Method) -> Result<(), Reason> {
    match method {
        Method::Invite | Method::Ack | Method::Bye | Method::Cancel => Ok(()),
        Method::Options | Method::Info | Method::Update => Ok(()),
        // Reliable provisional responses are never sent, so there is none to acknowledge.
        Method::Prack => Err(Reason::NoDialog),
        Method::Other(_) => Err(Reason::MethodUnknown),
        _ => Err(Reason::MethodNotAllowed),
    }
}

/// Scheme of the Request-URI: `sip` alone, until there is TLS and an attendant for `tel`.
pub(crate) fn scheme(request: &Request) -> Result<(), Reason> {
    if matches!(request.uri.scheme(), Scheme::Sip) {
        Ok(())
    } else {
        Err(Reason::Scheme)
    }
}

/// Options the peer requires: none is supported (RFC 3261 8.2.2.3).
pub(crate) fn required_options(request: &Request) -> Result<(), Reason> {
    let tags: Vec<String> = wire::list_values(request, &HeaderName::Require)
        .into_iter()
        .filter(|tag| tag.bytes().all(|byte| byte.is_ascii_graphic()))
        .collect();
    if tags.is_empty() {
        Ok(())
    } else {
        Err(Reason::Extension(tags))
    }
}

/// A body that was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    /// None, or one that its sender marked as optional and that is not understood.
    None,
    /// A session description.
    Sdp,
    /// Digits as `application/dtmf-relay`.
    DtmfRelay,
    /// One digit as `application/dtmf`.
    Dtmf,
}

/// Type, encoding and size of the body (RFC 3261 8.2.3).
pub(crate) fn body(request: &Request) -> Result<Body, Reason> {
    if request.body().is_empty() {
        return Ok(Body::None);
    }
    let optional = wire::header_text(request, &HeaderName::ContentDisposition).is_some_and(|value| {
        value
            .to_ascii_lowercase()
            .replace(' ', "")
            .contains("handling=optional")
    });
    let encodings = wire::list_values(request, &HeaderName::ContentEncoding);
    if encodings
        .iter()
        .any(|encoding| !encoding.eq_ignore_ascii_case("identity"))
    {
        return if optional {
            Ok(Body::None)
        } else {
            Err(Reason::MediaEncoding)
        };
    }
    let kind = match request.headers.typed::<ContentType>() {
        None => return Err(Reason::Malformed("Missing Content-Type")),
        Some(Err(_)) => return Err(Reason::Malformed("Bad Content-Type")),
        Some(Ok(kind)) => kind,
    };
    if kind.is("application", "sdp") {
        let too_large = request.body().len() > limits::SDP_BYTES_MAX;
        return if too_large {
            Err(Reason::TooLarge)
        } else {
            Ok(Body::Sdp)
        };
    }
    if kind.is("application", "dtmf-relay") {
        return Ok(Body::DtmfRelay);
    }
    if kind.is("application", "dtmf") {
        return Ok(Body::Dtmf);
    }
    if optional {
        Ok(Body::None)
    } else {
        Err(Reason::MediaType)
    }
}

/// Body of an INVITE, UPDATE or ACK: whether there is a session description.
pub(crate) fn session_body(request: &Request) -> Result<bool, Reason> {
    match body(request)? {
        Body::None => Ok(false),
        Body::Sdp => Ok(true),
        Body::DtmfRelay | Body::Dtmf => Err(Reason::MediaType),
    }
}

/// Whether the peer takes a session description in our answer (RFC 3261 20.1). Absent means yes.
pub(crate) fn accepts_sdp(request: &Request) -> Result<(), Reason> {
    if request.headers.get(&HeaderName::Accept).is_none() {
        return Ok(());
    }
    let takes = wire::list_values(request, &HeaderName::Accept)
        .iter()
        .any(|range| {
            let range = range.to_ascii_lowercase().replace([' ', '\t'], "");
            let (kind, parameters) = range.split_once(';').unwrap_or((&range, ""));
            let refused = parameters
                .split(';')
                .any(|parameter| matches!(parameter, "q=0" | "q=0.0"));
            matches!(kind, "application/sdp" | "application/*" | "*/*") && !refused
        });
    if takes { Ok(()) } else { Err(Reason::NotAcceptable) }
}

/// To tag of a request, when it has one.
pub(crate) fn to_tag(request: &Request) -> Option<String> {
    request.headers.typed::<To>()?.ok()?.tag().map(wire::text)
}

/// The digit in a body of `application/dtmf-relay` (`Signal=5`) or `application/dtmf` (`5`), and how
/// long it was held in milliseconds.
pub(crate) fn digit(kind: Body, body: &[u8]) -> Option<(char, u32)> {
    let body = wire::text(body);
    let (signal, duration) = match kind {
        Body::None | Body::Sdp => return None,
        Body::Dtmf => (body.trim().to_owned(), None),
        Body::DtmfRelay => {
            let field = |name: &str| {
                body.lines().find_map(|line| {
                    let (key, value) = line.split_once('=')?;
                    key.trim()
                        .eq_ignore_ascii_case(name)
                        .then(|| value.trim().to_owned())
                })
            };
            (
                field("Signal")?,
                field("Duration").and_then(|text| text.parse::<u32>().ok()),
            )
        }
    };
    let signal = match signal.as_str() {
        // Some gateways send the event numbers of RFC 4733 instead of the keys.
        "10" => "*",
        "11" => "#",
        other => other,
    };
    let mut keys = signal.chars();
    let key = keys.next()?.to_ascii_uppercase();
    let valid = matches!(key, '0'..='9' | '*' | '#' | 'A'..='D') && keys.next().is_none();
    valid.then_some((key, duration.unwrap_or(DIGIT_MS_DEFAULT).min(DIGIT_MS_MAX)))
}

const DIGIT_MS_DEFAULT: u32 = 160;
const DIGIT_MS_MAX: u32 = 60_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_in_both_spellings() {
        assert_eq!(
            digit(Body::DtmfRelay, b"Signal=5\r\nDuration=160\r\n"),
            Some(('5', 160))
        );
        assert_eq!(
            digit(Body::DtmfRelay, b"signal = #\nDuration=abc"),
            Some(('#', 160))
        );
        assert_eq!(digit(Body::DtmfRelay, b"Signal=11"), Some(('#', 160)));
        assert_eq!(digit(Body::Dtmf, b" d\r\n"), Some(('D', 160)));
        assert_eq!(digit(Body::Dtmf, b"12"), None);
        assert_eq!(digit(Body::DtmfRelay, b"Duration=160"), None);
        assert_eq!(digit(Body::Dtmf, b"x"), None);
        assert_eq!(digit(Body::Sdp, b"5"), None);
    }
}
