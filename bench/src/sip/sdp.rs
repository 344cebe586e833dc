//! The offer of a caller and the answer of a focus: one audio stream of G.711.

use std::net::{IpAddr, SocketAddr};

use crate::sound::g711::Law;

/// Our offer (RFC 4566, RFC 3264 5): one law and telephone-event, 20 ms; SRTP with the value of an `a=crypto` (RFC 4568).
#[must_use]
pub fn offer(session: u64, media: SocketAddr, law: Law, crypto: Option<&str>) -> String {
    let proto = if crypto.is_some() { "RTP/SAVP" } else { "RTP/AVP" };
    let crypto = crypto.map_or_else(String::new, |value| format!("a=crypto:{value}\r\n"));
    let family = if media.is_ipv4() { "IP4" } else { "IP6" };
    let (ip, port) = (media.ip(), media.port());
    let (payload_type, name) = (law.payload_type(), law.name());
    format!(
        "v=0\r\no=bench {session} 1 IN {family} {ip}\r\ns=-\r\nc=IN {family} {ip}\r\nt=0 0\r\n\
         m=audio {port} {proto} {payload_type} 101\r\na=rtpmap:{payload_type} {name}/8000\r\n\
         a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\n{crypto}a=ptime:20\r\na=sendrecv\r\n"
    )
}

/// Why an answer is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// Not text, or without an audio line.
    #[error("answer without an audio stream")]
    NoAudio,
    /// Port 0.
    #[error("audio stream refused (port 0)")]
    Refused,
    /// No usable `c=` line.
    #[error("answer without a connection address")]
    NoAddress,
    /// Our payload type is missing.
    #[error("answer without {0}")]
    OtherCodec(&'static str),
}

/// Value of the first `a=crypto` of a description.
#[must_use]
pub fn crypto(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix("a=crypto:"))?;
    Some(value.trim_end().to_owned())
}

/// Where the answer wants our RTP.
///
/// # Errors
/// When the answer does not accept the one codec offered.
pub fn answer(body: &[u8], law: Law) -> Result<SocketAddr, AnswerError> {
    let text = std::str::from_utf8(body).map_err(|_| AnswerError::NoAudio)?;
    let (mut session_address, mut media_address, mut audio) = (None, None, None);
    for line in text.lines() {
        let line = line.trim_end();
        if let Some(rest) = line.strip_prefix("m=") {
            if audio.is_some() {
                break;
            }
            audio = rest.strip_prefix("audio ");
        } else if let Some(rest) = line.strip_prefix("c=") {
            let address = rest.split(' ').nth(2).and_then(|ip| ip.parse::<IpAddr>().ok());
            if audio.is_some() {
                media_address = address
            } else {
                session_address = address
            }
        }
    }
    let mut words = audio.ok_or(AnswerError::NoAudio)?.split_ascii_whitespace();
    let port: u16 = words
        .next()
        .and_then(|port| port.parse().ok())
        .ok_or(AnswerError::NoAudio)?;
    if port == 0 {
        return Err(AnswerError::Refused);
    }
    let wanted = law.payload_type().to_string();
    if !words.skip(1).any(|format| format == wanted) {
        return Err(AnswerError::OtherCodec(law.name()));
    }
    let ip = media_address.or(session_address).ok_or(AnswerError::NoAddress)?;
    Ok(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_level_address_wins_and_our_own_offer_reads_back() {
        let media: SocketAddr = "10.1.2.3:4000".parse().unwrap();
        assert_eq!(
            answer(offer(1, media, Law::Pcmu, None).as_bytes(), Law::Pcmu),
            Ok(media)
        );
        let secure = offer(1, media, Law::Pcmu, Some("1 X inline:Y"));
        assert!(secure.contains(" RTP/SAVP "));
        assert_eq!(answer(secure.as_bytes(), Law::Pcmu), Ok(media));
        assert_eq!(crypto(secure.as_bytes()).as_deref(), Some("1 X inline:Y"));
        let text = "v=0\nc=IN IP4 1.1.1.1\nm=audio 5002 RTP/AVP 8\nc=IN IP4 2.2.2.2\nm=video 0 RTP/AVP 99\n";
        assert_eq!(
            answer(text.as_bytes(), Law::Pcma),
            Ok("2.2.2.2:5002".parse().unwrap())
        );
    }

    #[test]
    fn refusals_are_told_apart() {
        let refused = "v=0\r\nc=IN IP4 1.1.1.1\r\nm=audio 0 RTP/AVP 0\r\n";
        assert_eq!(answer(refused.as_bytes(), Law::Pcmu), Err(AnswerError::Refused));
        let other = "v=0\r\nc=IN IP4 1.1.1.1\r\nm=audio 9 RTP/AVP 8\r\n";
        assert_eq!(
            answer(other.as_bytes(), Law::Pcmu),
            Err(AnswerError::OtherCodec("PCMU"))
        );
        assert_eq!(
            answer(b"m=audio 9 RTP/AVP 0", Law::Pcmu),
            Err(AnswerError::NoAddress)
        );
        assert_eq!(answer(b"", Law::Pcmu), Err(AnswerError::NoAudio));
    }
}
