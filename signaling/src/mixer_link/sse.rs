//! Reader of server-sent events, as far as the control link uses them: `id`, `data`, comments.

/// One event of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    /// Its data lines, joined.
    pub(super) data: String,
}

/// A line is longer than any event can be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the event stream has a line of more than {LINE_MAX} bytes")]
pub(super) struct LineTooLong;

/// Longest line taken.
const LINE_MAX: usize = 64 * 1024;

/// Collects bytes into events.
#[derive(Debug, Default)]
pub(super) struct SseReader {
    line: Vec<u8>,
    data: String,
    has_data: bool,
}

impl SseReader {
    /// Takes what arrived and adds whole events to `out`.
    pub(super) fn push(&mut self, bytes: &[u8], out: &mut Vec<Message>) -> Result<(), LineTooLong> {
        for &byte in bytes {
            match byte {
                b'\n' => {
                    let line = std::mem::take(&mut self.line);
                    self.take_line(&String::from_utf8_lossy(&line), out);
                }
                b'\r' => {}
                _ if self.line.len() == LINE_MAX => return Err(LineTooLong),
                _ => self.line.push(byte),
            }
        }
        Ok(())
    }

    fn take_line(&mut self, line: &str, out: &mut Vec<Message>) {
        if line.is_empty() {
            if std::mem::take(&mut self.has_data) {
                out.push(Message {
                    data: std::mem::take(&mut self.data),
                });
            }
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        // The number is inside the data too; `id`, `event`, `retry` and comments say nothing more.
        if field == "data" {
            if std::mem::replace(&mut self.has_data, true) {
                self.data.push('\n');
            }
            self.data.push_str(value.strip_prefix(' ').unwrap_or(value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_out_whole_however_the_stream_is_cut() {
        let stream = b": hello\n\nid: 7\nevent: x\ndata: {\"a\":\ndata:1}\n\nid: 8\r\ndata: {}\r\n\r\n";
        for step in 1..stream.len() {
            let (mut reader, mut out) = (SseReader::default(), Vec::new());
            for piece in stream.chunks(step) {
                reader.push(piece, &mut out).unwrap();
            }
            let data: Vec<&str> = out.iter().map(|message| message.data.as_str()).collect();
            assert_eq!(data, ["{\"a\":\n1}", "{}"], "pieces of {step}");
        }
    }

    #[test]
    fn an_endless_line_is_refused() {
        let endless = vec![b'x'; LINE_MAX + 1];
        assert_eq!(
            SseReader::default().push(&endless, &mut Vec::new()),
            Err(LineTooLong)
        );
    }
}
