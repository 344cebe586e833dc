//! Structured logs on standard error.
//!
//! Invariant: a log line never makes the program wait. Lines go through a bounded queue to one
//! thread that writes; when the reader of standard error is stuck, lines are dropped and counted.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};

use signaling_core::effect::{LogLevel, LogLine};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{Log, LogFormat};

/// Lines that may wait for the writing thread.
const QUEUE_LINES: usize = 8192;

/// A filter from its text.
///
/// # Errors
/// The text is not in the syntax of `EnvFilter`.
pub fn parse_filter(text: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::builder().parse(text)
}

/// Counts lines that were dropped because standard error was stuck.
#[derive(Debug, Clone, Default)]
pub struct DroppedLines(Arc<AtomicU64>);

impl DroppedLines {
    /// How many so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts one line.
    pub fn count_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Starts logging for the whole program. A second call changes nothing.
#[must_use]
pub fn start(log: &Log) -> DroppedLines {
    let dropped = DroppedLines::default();
    let (lines, queue) = sync_channel::<Vec<u8>>(QUEUE_LINES);
    let spawned = std::thread::Builder::new().name("log".to_owned()).spawn(move || {
        for line in queue {
            // Nobody is left to tell when standard error is gone.
            let _ = std::io::stderr().write_all(&line);
        }
    });
    if spawned.is_err() {
        return dropped;
    }
    let filter = parse_filter(&log.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let writer = QueueWriter {
        lines,
        dropped: dropped.clone(),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(false);
    let _ = match log.format {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_target(false).try_init(),
    };
    dropped
}

/// Gives the writing thread a moment to write what is queued, before the program ends.
pub fn flush() {
    // The thread has no way to say that it is done that would not also make logging wait; its queue
    // is almost always empty.
    let (_keep, wait) = sync_channel::<()>(0);
    let _ = wait.recv_timeout(std::time::Duration::from_millis(20));
}

/// Writes one line of the core. The closed set of fields keeps lines greppable: every line about a
/// call has `call_id`, every line about a conference has `conference`.
pub fn emit(line: &LogLine) {
    let LogLine {
        level,
        message,
        call_id,
        conference,
        detail,
    } = line;
    macro_rules! write_line {
        ($macro:ident) => {
            match (call_id.is_empty(), conference.is_empty()) {
                (true, true) => tracing::$macro!(detail, "{message}"),
                (true, false) => tracing::$macro!(conference, detail, "{message}"),
                (false, true) => tracing::$macro!(call_id, detail, "{message}"),
                (false, false) => tracing::$macro!(call_id, conference, detail, "{message}"),
            }
        };
    }
    match level {
        LogLevel::Debug => write_line!(debug),
        LogLevel::Info => write_line!(info),
        LogLevel::Warn => write_line!(warn),
    }
}

/// Hands whole lines to the writing thread.
#[derive(Debug, Clone)]
struct QueueWriter {
    lines: SyncSender<Vec<u8>>,
    dropped: DroppedLines,
}

impl<'a> MakeWriter<'a> for QueueWriter {
    type Writer = LineWriter;

    fn make_writer(&'a self) -> LineWriter {
        LineWriter {
            line: Vec::with_capacity(256),
            queue: self.clone(),
        }
    }
}

/// Collects one line and queues it when dropped.
#[derive(Debug)]
struct LineWriter {
    line: Vec<u8>,
    queue: QueueWriter,
}

impl std::io::Write for LineWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.line.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for LineWriter {
    fn drop(&mut self) {
        if !self.line.is_empty() && self.queue.lines.try_send(std::mem::take(&mut self.line)).is_err() {
            self.queue.dropped.count_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stuck_reader_drops_lines_and_never_blocks() {
        let (lines, _unread) = sync_channel::<Vec<u8>>(2);
        let writer = QueueWriter {
            lines,
            dropped: DroppedLines::default(),
        };
        for _ in 0..5 {
            let mut line = writer.make_writer();
            line.write_all(b"x\n").unwrap();
        }
        assert_eq!(writer.dropped.get(), 3);
    }

    #[test]
    fn filters_are_checked() {
        assert!(parse_filter("info,signaling=debug").is_ok());
        assert!(parse_filter("loud=very=much").is_err());
    }
}
