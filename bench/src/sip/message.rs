//! SIP messages of a caller, built from and read into rsip's typed values.

use std::net::SocketAddr;

use rsip::prelude::*;
use rsip::{Header, Method, Request, Response, SipMessage};

/// SIP transport of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// One connection.
    Tcp,
}

/// What is the same in all calls of a run.
#[derive(Debug, Clone, Copy)]
pub struct Ends {
    /// Our SIP address.
    pub local: SocketAddr,
    /// The server's SIP address.
    pub target: SocketAddr,
    /// Transport between them.
    pub transport: Transport,
}

/// A dialog, or what will become one (RFC 3261 12).
#[derive(Debug, Clone)]
pub struct Dialog {
    /// Call-ID.
    pub call_id: String,
    /// From, with our tag.
    pub from: rsip::headers::From,
    /// To; with the peer's tag once it is known.
    pub to: rsip::headers::To,
    /// Request-URI: first the focus, then the peer's Contact.
    pub remote_target: rsip::Uri,
    /// Route headers in order (RFC 3261 12.1.2: reversed Record-Route).
    pub routes: Vec<String>,
    /// Our user part.
    pub user: String,
    /// `CSeq` number of the last request we sent, except ACK.
    pub cseq: u32,
}

impl Ends {
    fn host(address: SocketAddr) -> rsip::HostWithPort {
        // rsip writes IPv6 hosts without brackets; as a domain they stay what they must be.
        match address {
            SocketAddr::V4(_) => address.into(),
            SocketAddr::V6(v6) => (rsip::Domain::from(format!("[{}]", v6.ip())), v6.port()).into(),
        }
    }

    /// `sip:USER@ADDRESS`.
    #[must_use]
    pub fn uri(&self, user: &str, at: SocketAddr) -> rsip::Uri {
        rsip::Uri {
            scheme: Some(rsip::Scheme::Sip),
            auth: Some((user, Option::<String>::None).into()),
            host_with_port: Self::host(at),
            ..Default::default()
        }
    }

    fn via(&self, branch: &str) -> rsip::typed::Via {
        rsip::typed::Via {
            version: rsip::Version::V2,
            transport: match self.transport {
                Transport::Udp => rsip::Transport::Udp,
                Transport::Tcp => rsip::Transport::Tcp,
            },
            uri: Self::host(self.local).into(),
            params: vec![
                rsip::Param::Other("rport".into(), None),
                rsip::Param::Branch(rsip::param::Branch::new(branch)),
            ],
        }
    }

    fn contact(&self, user: &str) -> rsip::typed::Contact {
        let mut uri = self.uri(user, self.local);
        if self.transport == Transport::Tcp {
            uri.params.push(rsip::Param::Transport(rsip::Transport::Tcp));
        }
        rsip::typed::Contact {
            display_name: None,
            uri,
            params: Vec::new(),
        }
    }

    /// A dialog to be: `user` calls `focus`.
    #[must_use]
    pub fn dialog(&self, user: &str, focus: &str, call_id: String, tag: String) -> Dialog {
        let remote_target = self.uri(focus, self.target);
        let from = rsip::typed::From {
            display_name: None,
            uri: self.uri(user, self.local),
            params: vec![rsip::Param::Tag(rsip::param::Tag::new(tag))],
        };
        let to = rsip::typed::To {
            display_name: None,
            uri: remote_target.clone(),
            params: Vec::new(),
        };
        Dialog {
            call_id,
            from: from.into(),
            to: to.into(),
            remote_target,
            routes: Vec::new(),
            user: user.to_owned(),
            cseq: 0,
        }
    }

    /// A request of `dialog` with its current `CSeq` number.
    #[must_use]
    pub fn request(&self, dialog: &Dialog, method: Method, branch: &str, sdp: Option<&str>) -> Vec<u8> {
        let mut headers = rsip::Headers::default();
        headers.push(self.via(branch).into());
        headers.push(rsip::headers::MaxForwards::default().into());
        headers.push(dialog.from.clone().into());
        headers.push(dialog.to.clone().into());
        headers.push(rsip::headers::CallId::new(dialog.call_id.as_str()).into());
        headers.push(
            rsip::typed::CSeq {
                seq: dialog.cseq,
                method,
            }
            .into(),
        );
        for route in &dialog.routes {
            headers.push(rsip::headers::Route::new(route.as_str()).into());
        }
        if method == Method::Invite {
            headers.push(self.contact(&dialog.user).into());
            headers.push(rsip::headers::Allow::new(ALLOW).into());
        }
        headers.push(rsip::headers::UserAgent::new("mixminus-bench").into());
        let body = sdp.map(|text| text.as_bytes().to_vec()).unwrap_or_default();
        close(&mut headers, &body, sdp.is_some());
        let uri = dialog.remote_target.clone();
        Request {
            method,
            uri,
            version: rsip::Version::V2,
            headers,
            body,
        }
        .into()
    }

    /// Our answer to a request of the server.
    #[must_use]
    pub fn response(&self, request: &Request, status: u16, user: &str, sdp: Option<&str>) -> Vec<u8> {
        let mut headers = rsip::Headers::default();
        for header in request.headers.iter() {
            if let Header::Via(_)
            | Header::From(_)
            | Header::To(_)
            | Header::CallId(_)
            | Header::CSeq(_)
            | Header::RecordRoute(_) = header
            {
                headers.push(header.clone());
            }
        }
        headers.push(rsip::headers::Allow::new(ALLOW).into());
        if sdp.is_some() {
            headers.push(self.contact(user).into());
        }
        let body = sdp.map(|text| text.as_bytes().to_vec()).unwrap_or_default();
        close(&mut headers, &body, sdp.is_some());
        Response {
            status_code: status.into(),
            version: rsip::Version::V2,
            headers,
            body,
        }
        .into()
    }
}

/// Methods we answer.
const ALLOW: &str = "INVITE, ACK, CANCEL, BYE, OPTIONS";

fn close(headers: &mut rsip::Headers, body: &[u8], sdp: bool) {
    if sdp {
        headers.push(rsip::headers::ContentType::new("application/sdp").into());
    }
    headers.push(rsip::headers::ContentLength::new(body.len().to_string()).into());
}

impl Dialog {
    /// Takes over what a response to INVITE says about the peer (RFC 3261 12.1.2, 13.2.2.4).
    pub fn learn(&mut self, response: &Response) {
        if let Ok(to) = response.to_header() {
            self.to = to.clone();
        }
        if let Ok(contact) = response.contact_header()
            && let Ok(typed) = contact.typed()
        {
            self.remote_target = typed.uri;
        }
        let mut routes: Vec<String> = Vec::new();
        for header in response.headers.iter() {
            if let Header::RecordRoute(route) = header {
                routes.push(route.value().to_owned());
            }
        }
        routes.reverse();
        self.routes = routes;
    }
}

/// Reads one message; `None` when rsip cannot.
#[must_use]
pub fn parse(bytes: &[u8]) -> Option<SipMessage> {
    SipMessage::try_from(bytes).ok()
}

/// Value of Retry-After.
#[must_use]
pub fn retry_after(response: &Response) -> Option<String> {
    response.headers.iter().find_map(|header| {
        if let Header::RetryAfter(value) = header {
            Some(value.value().to_owned())
        } else {
            None
        }
    })
}

/// Text of the Warning or Reason that explains a refusal.
#[must_use]
pub fn explanation(response: &Response) -> Option<String> {
    response.headers.iter().find_map(|header| {
        if let Header::Warning(value) = header {
            Some(value.value().to_owned())
        } else if let Header::Other(name, value) = header
            && name.eq_ignore_ascii_case("reason")
        {
            Some(value.clone())
        } else {
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(transport: Transport) -> Ends {
        Ends {
            local: "127.0.0.1:40000".parse().unwrap(),
            target: "127.0.0.1:5060".parse().unwrap(),
            transport,
        }
    }

    #[test]
    fn an_invite_says_what_rfc_3261_asks_for() {
        let ends = ends(Transport::Tcp);
        let mut dialog = ends.dialog("leg-1", "conf-bench-0", "abc".into(), "t1".into());
        dialog.cseq = 1;
        let bytes = ends.request(&dialog, Method::Invite, "z9hG4bKx", Some("v=0\r\n"));
        let text = String::from_utf8(bytes).unwrap();
        let lines: Vec<&str> = text.split("\r\n").collect();
        assert_eq!(lines[0], "INVITE sip:conf-bench-0@127.0.0.1:5060 SIP/2.0");
        for line in [
            "Via: SIP/2.0/TCP 127.0.0.1:40000;rport;branch=z9hG4bKx",
            "Max-Forwards: 70",
            "From: <sip:leg-1@127.0.0.1:40000>;tag=t1",
            "To: <sip:conf-bench-0@127.0.0.1:5060>",
            "Call-ID: abc",
            "CSeq: 1 INVITE",
            "Contact: <sip:leg-1@127.0.0.1:40000;transport=TCP>",
            "Content-Type: application/sdp",
            "Content-Length: 5",
        ] {
            assert!(lines.contains(&line), "{line} missing in\n{text}");
        }
        assert!(text.ends_with("\r\n\r\nv=0\r\n"));
    }

    #[test]
    fn a_dialog_follows_contact_tag_and_reversed_record_route() {
        let ends = ends(Transport::Udp);
        let mut dialog = ends.dialog("leg-1", "conf-bench-0", "abc".into(), "t1".into());
        let ok = "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 127.0.0.1:40000;branch=z9hG4bKx\r\n\
            Record-Route: <sip:a;lr>\r\nRecord-Route: <sip:b;lr>\r\nFrom: <sip:leg-1@127.0.0.1:40000>;tag=t1\r\n\
            To: <sip:conf-bench-0@127.0.0.1:5060>;tag=peer\r\nCall-ID: abc\r\nCSeq: 1 INVITE\r\n\
            Contact: <sip:conf-bench-0@127.0.0.1:5080>;isfocus\r\nContent-Length: 0\r\n\r\n";
        let Some(SipMessage::Response(response)) = parse(ok.as_bytes()) else {
            panic!("not parsed")
        };
        dialog.learn(&response);
        dialog.cseq = 1;
        let ack = String::from_utf8(ends.request(&dialog, Method::Ack, "z9hG4bKy", None)).unwrap();
        assert!(
            ack.starts_with("ACK sip:conf-bench-0@127.0.0.1:5080 SIP/2.0\r\n"),
            "{ack}"
        );
        assert!(ack.contains("tag=peer\r\n"), "{ack}");
        assert!(ack.find("<sip:b;lr>").unwrap() < ack.find("<sip:a;lr>").unwrap());
    }
}
