//! Cuts a byte stream into SIP messages (RFC 3261 18.3) without parsing them: the core sees the very
//! bytes that arrived, also of a message it will refuse, so that it can answer 400.
//!
//! Invariants: at most one partial message is held; no length is believed before it is checked
//! against the limit; after an error the stream is lost and must be closed.

use bytes::{Bytes, BytesMut};

/// What was cut from the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Framed {
    /// One whole message.
    Message(Bytes),
    /// A keep-alive ping, to be answered with one CRLF (RFC 5626 4.4.1).
    Ping,
}

/// Why framing is lost.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// More bytes than a message may have.
    #[error("a message of more than {MESSAGE_MAX} bytes")]
    TooLong,
    /// Content-Length is absent, no number, or given twice differently (RFC 3261 18.3, 20.14). The
    /// header section is handed out, so that it can be refused by name.
    #[error("a message without a usable Content-Length")]
    BadLength(Bytes),
}

/// Framer of one connection.
#[derive(Debug, Default)]
pub struct StreamFramer {
    buffer: BytesMut,
    /// How far the end of the header section has been looked for.
    scanned: usize,
    /// Length of the message at hand, once its header section is whole.
    length: Option<usize>,
    /// A CRLF that may be the first half of a ping.
    half_ping: bool,
}

impl StreamFramer {
    /// Takes what arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether a message has begun and is not whole yet.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Next whole item, `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`FramingError`]: the connection cannot be read any further.
    pub fn next_item(&mut self) -> Result<Option<Framed>, FramingError> {
        if self.length.is_none() {
            if self.skip_line_ends() {
                return Ok(Some(Framed::Ping));
            }
            let Some(end) = self.find_header_end() else {
                return if self.buffer.len() > MESSAGE_MAX {
                    Err(FramingError::TooLong)
                } else {
                    Ok(None)
                };
            };
            let Some(body) = content_length(&self.buffer[..end]) else {
                return Err(FramingError::BadLength(self.buffer.split_to(end).freeze()));
            };
            let length = end.saturating_add(body);
            if length > MESSAGE_MAX {
                return Err(FramingError::TooLong);
            }
            self.length = Some(length);
        }
        let Some(length) = self.length.filter(|length| self.buffer.len() >= *length) else {
            return Ok(None);
        };
        self.length = None;
        self.scanned = 0;
        Ok(Some(Framed::Message(self.buffer.split_to(length).freeze())))
    }

    /// Drops CRLFs between messages (RFC 3261 7.5); true when two of them made a ping.
    fn skip_line_ends(&mut self) -> bool {
        while self.buffer.starts_with(b"\r\n") {
            let _ = self.buffer.split_to(2);
            self.scanned = 0;
            self.half_ping = !self.half_ping;
            if !self.half_ping {
                return true;
            }
        }
        if self.buffer.first().is_some_and(|byte| *byte != b'\r') {
            self.half_ping = false;
        }
        false
    }

    /// Offset just behind the empty line.
    fn find_header_end(&mut self) -> Option<usize> {
        let tail = self.buffer.get(self.scanned..)?;
        match tail.windows(4).position(|window| window == b"\r\n\r\n") {
            Some(position) => Some(self.scanned + position + 4),
            None => {
                // The empty line may straddle two reads.
                self.scanned = self.buffer.len().saturating_sub(3);
                None
            }
        }
    }
}

/// The one value of Content-Length, or of its compact form `l`.
fn content_length(head: &[u8]) -> Option<usize> {
    let mut found = None;
    for line in head.split(|byte| *byte == b'\n').skip(1) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let (name, value) = (line[..colon].trim_ascii(), line[colon + 1..].trim_ascii());
        if !name.eq_ignore_ascii_case(b"content-length") && !name.eq_ignore_ascii_case(b"l") {
            continue;
        }
        // A length folded over two lines has an empty first one and is refused with the rest.
        let digits = std::str::from_utf8(value)
            .ok()
            .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
        let length: usize = digits.parse().ok()?;
        if found.is_some_and(|earlier| earlier != length) {
            return None;
        }
        found = Some(length);
    }
    found
}

/// Most bytes of one message on a stream: what a datagram can have.
pub const MESSAGE_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: &str = "OPTIONS sip:a@b SIP/2.0\r\nContent-Length: 5\r\nCSeq: 1 OPTIONS\r\n\r\nhello";
    const COMPACT: &str = "OPTIONS sip:a@b SIP/2.0\r\nl :\t0\r\n\r\n";

    fn frame_all(stream: &[u8], step: usize) -> Result<Vec<Framed>, FramingError> {
        let mut framer = StreamFramer::default();
        let mut out = Vec::new();
        for piece in stream.chunks(step) {
            framer.push(piece);
            while let Some(item) = framer.next_item()? {
                out.push(item);
            }
        }
        Ok(out)
    }

    #[test]
    fn messages_come_out_whole_however_the_stream_is_cut() {
        let stream = format!("{OPTIONS}\r\n{COMPACT}\r\n\r\n{OPTIONS}");
        let expected = vec![
            Framed::Message(Bytes::from(OPTIONS)),
            Framed::Message(Bytes::from(COMPACT)),
            Framed::Ping,
            Framed::Message(Bytes::from(OPTIONS)),
        ];
        for step in 1..=stream.len() {
            assert_eq!(
                frame_all(stream.as_bytes(), step).unwrap(),
                expected,
                "pieces of {step}"
            );
        }
    }

    #[test]
    fn a_ping_is_two_line_ends_and_one_is_none() {
        assert_eq!(frame_all(b"\r\n", 1).unwrap(), []);
        assert_eq!(frame_all(b"\r\n\r\n", 1).unwrap(), [Framed::Ping]);
        assert_eq!(
            frame_all(b"\r\n\r\n\r\n\r\n", 3).unwrap(),
            [Framed::Ping, Framed::Ping]
        );
    }

    #[test]
    fn bad_lengths_hand_out_the_head_and_end_the_stream() {
        for header in [
            "",
            "Content-Length: -1\r\n",
            "Content-Length: x\r\n",
            "l: 1\r\nContent-Length: 2\r\n",
            "l:\r\n 3\r\n",
        ] {
            let head = format!("INVITE sip:a@b SIP/2.0\r\n{header}\r\n");
            let error = frame_all(format!("{head}body").as_bytes(), 7).expect_err(header);
            assert_eq!(error, FramingError::BadLength(Bytes::from(head)), "{header}");
        }
    }

    #[test]
    fn no_length_is_believed_unchecked() {
        let declared = format!("INVITE sip:a@b SIP/2.0\r\nl: {}\r\n\r\n", usize::MAX);
        assert_eq!(
            frame_all(declared.as_bytes(), 64).expect_err("huge"),
            FramingError::TooLong
        );
        let endless = vec![b'x'; MESSAGE_MAX + 10];
        assert_eq!(
            frame_all(&endless, 1000).expect_err("endless"),
            FramingError::TooLong
        );
    }

    #[test]
    fn a_partial_message_is_seen() {
        let mut framer = StreamFramer::default();
        framer.push(&OPTIONS.as_bytes()[..30]);
        assert_eq!(framer.next_item(), Ok(None));
        assert!(framer.is_partial());
        framer.push(&OPTIONS.as_bytes()[30..]);
        assert!(framer.next_item().unwrap().is_some());
        assert!(!framer.is_partial());
    }
}
