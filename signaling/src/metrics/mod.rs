//! Counters of the sidecar and their page in the Prometheus text format.
//!
//! Invariants: names stand in [`table::TABLE`] only; labels come from closed sets (a mixer's URL is
//! configuration); reading the page changes nothing.

pub mod table;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use signaling_core::effect::Count;
use table::{Definition, Kind, TABLE};

use crate::logs::DroppedLines;

/// Why a transport dropped something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dropped {
    /// The driver was behind; the newest datagram was dropped.
    UdpQueueFull,
    /// The system did not take a datagram.
    UdpSendFailed,
    /// The peer of a stream did not read.
    TcpQueueFull,
    /// Too many connections.
    TcpConnectionLimit,
    /// A message on a stream was not finished in time.
    TcpPartialTimeout,
    /// A stream lost its framing.
    TcpFraming,
}

impl Dropped {
    const ALL: [Self; 6] = [
        Self::UdpQueueFull,
        Self::UdpSendFailed,
        Self::TcpQueueFull,
        Self::TcpConnectionLimit,
        Self::TcpPartialTimeout,
        Self::TcpFraming,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::UdpQueueFull => "udp_queue_full",
            Self::UdpSendFailed => "udp_send_failed",
            Self::TcpQueueFull => "tcp_queue_full",
            Self::TcpConnectionLimit => "tcp_connection_limit",
            Self::TcpPartialTimeout => "tcp_partial_timeout",
            Self::TcpFraming => "tcp_framing",
        }
    }
}

/// How a request to a mixer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MixerOutcome {
    /// It took effect.
    Done,
    /// Refused by the mixer.
    Refused,
    /// No headroom, no ports, busy, or our own queue is full.
    Overloaded,
    /// No answer in time.
    Unreachable,
    /// Anything else.
    Failed,
}

impl MixerOutcome {
    const ALL: [Self; 5] = [
        Self::Done,
        Self::Refused,
        Self::Overloaded,
        Self::Unreachable,
        Self::Failed,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Overloaded => "overloaded",
            Self::Unreachable => "unreachable",
            Self::Failed => "failed",
        }
    }
}

/// All counters. Every method takes `&self` and never waits for I/O.
#[derive(Debug, Default)]
pub struct Metrics {
    conferences: AtomicUsize,
    participants: AtomicUsize,
    joins: AtomicU64,
    retransmissions: AtomicU64,
    parse_errors: AtomicU64,
    keys_in_clear: AtomicU64,
    transactions: AtomicUsize,
    connections: AtomicUsize,
    mixer_retries: AtomicU64,
    mixer_events: AtomicU64,
    db_up: AtomicU64,
    db_done: AtomicU64,
    db_failed: AtomicU64,
    db_pending: AtomicUsize,
    labelled: Mutex<Labelled>,
    invite_delay: Histogram,
    other_delay: Histogram,
    mixer_delay: Histogram,
    log_dropped: Mutex<DroppedLines>,
}

#[derive(Debug, Default)]
struct Labelled {
    leaves: BTreeMap<&'static str, u64>,
    requests: BTreeMap<&'static str, u64>,
    responses: [u64; 7],
    dropped: BTreeMap<Dropped, u64>,
    mixers: BTreeMap<String, bool>,
    mixer_requests: BTreeMap<MixerOutcome, u64>,
}

impl Metrics {
    fn labelled(&self) -> MutexGuard<'_, Labelled> {
        // Counters stay meaningful whatever panicked beside them.
        self.labelled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what the core counts.
    pub fn count(&self, count: &Count) {
        match *count {
            Count::Request { method } => bump(&mut self.labelled().requests, method),
            Count::Response {
                status,
                delay_ns,
                invite,
            } => {
                let class = usize::from(status / 100).min(6);
                if let Some(cell) = self.labelled().responses.get_mut(class) {
                    *cell += 1;
                }
                if class >= 2 {
                    let histogram = if invite {
                        &self.invite_delay
                    } else {
                        &self.other_delay
                    };
                    histogram.observe(Duration::from_nanos(delay_ns));
                }
            }
            Count::Retransmission => add(&self.retransmissions),
            Count::ParseError => add(&self.parse_errors),
            Count::KeysInClear => add(&self.keys_in_clear),
            Count::Joined => add(&self.joins),
            Count::Left { cause } => bump(&mut self.labelled().leaves, cause),
            Count::Conferences(now) => self.conferences.store(now, Ordering::Relaxed),
            Count::Participants(now) => self.participants.store(now, Ordering::Relaxed),
            Count::Transactions(now) => self.transactions.store(now, Ordering::Relaxed),
        }
    }

    /// A transport dropped something.
    pub fn dropped(&self, reason: Dropped) {
        bump(&mut self.labelled().dropped, reason);
    }

    /// How often something was dropped for a reason.
    #[must_use]
    pub fn drops(&self, reason: Dropped) -> u64 {
        self.labelled().dropped.get(&reason).copied().unwrap_or(0)
    }

    /// SIP TCP connections now.
    pub fn set_connections(&self, now: usize) {
        self.connections.store(now, Ordering::Relaxed);
    }

    /// Whether a mixer answers.
    pub fn set_mixer(&self, mixer: &str, up: bool) {
        self.labelled().mixers.insert(mixer.to_owned(), up);
    }

    /// Mixers and whether they answer, by URL.
    #[must_use]
    pub fn mixers(&self) -> Vec<(String, bool)> {
        self.labelled()
            .mixers
            .iter()
            .map(|(mixer, up)| (mixer.clone(), *up))
            .collect()
    }

    /// A request to a mixer ended.
    pub fn mixer_request(&self, outcome: MixerOutcome, delay: Duration) {
        bump(&mut self.labelled().mixer_requests, outcome);
        self.mixer_delay.observe(delay);
    }

    /// A request to a mixer was sent again.
    pub fn mixer_retry(&self) {
        add(&self.mixer_retries);
    }

    /// A mixer said something.
    pub fn mixer_event(&self) {
        add(&self.mixer_events);
    }

    /// Whether the database takes writes.
    pub fn set_db(&self, up: bool) {
        self.db_up.store(u64::from(up), Ordering::Relaxed);
    }

    /// Whether the database took the last write.
    #[must_use]
    pub fn db_is_up(&self) -> bool {
        self.db_up.load(Ordering::Relaxed) == 1
    }

    /// A batch was written or failed.
    pub fn db_write(&self, done: bool) {
        add(if done { &self.db_done } else { &self.db_failed });
        self.set_db(done);
    }

    /// Changes waiting to be written.
    pub fn set_db_pending(&self, now: usize) {
        self.db_pending.store(now, Ordering::Relaxed);
    }

    /// Where dropped log lines are counted.
    pub fn watch_log(&self, dropped: DroppedLines) {
        *self.log_dropped.lock().unwrap_or_else(PoisonError::into_inner) = dropped;
    }

    /// The page.
    #[must_use]
    pub fn render(&self) -> String {
        let mut page = String::with_capacity(8 * 1024);
        for definition in TABLE {
            let Definition { name, kind, help, .. } = definition;
            // Writing to a String cannot fail.
            let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {}", kind.word());
            self.render_one(&mut page, definition);
        }
        page
    }

    fn render_one(&self, page: &mut String, definition: &Definition) {
        let name = definition.name;
        if definition.kind == Kind::Histogram {
            return self.render_histogram(page, name);
        }
        if !definition.labels.is_empty() {
            return self.render_labelled(page, name);
        }
        let value = match name {
            "mixminus_conferences" => gauge(&self.conferences),
            "mixminus_participants" => gauge(&self.participants),
            "mixminus_joins_total" => self.joins.load(Ordering::Relaxed),
            "mixminus_sip_retransmissions_total" => self.retransmissions.load(Ordering::Relaxed),
            "mixminus_sdes_keys_in_clear_total" => self.keys_in_clear.load(Ordering::Relaxed),
            "mixminus_sip_parse_errors_total" => self.parse_errors.load(Ordering::Relaxed),
            "mixminus_sip_transactions" => gauge(&self.transactions),
            "mixminus_sip_connections" => gauge(&self.connections),
            "mixminus_mixer_retries_total" => self.mixer_retries.load(Ordering::Relaxed),
            "mixminus_mixer_events_total" => self.mixer_events.load(Ordering::Relaxed),
            "mixminus_db_up" => self.db_up.load(Ordering::Relaxed),
            "mixminus_db_pending" => gauge(&self.db_pending),
            "mixminus_log_dropped_total" => self
                .log_dropped
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get(),
            _ => return,
        };
        let _ = writeln!(page, "{name} {value}");
    }

    fn render_labelled(&self, page: &mut String, name: &str) {
        let labelled = self.labelled();
        let mut line = |label: &str, value: &str, number: u64| {
            let _ = writeln!(page, "{name}{{{label}=\"{}\"}} {number}", escape(value));
        };
        match name {
            "mixminus_build_info" => {
                let version = env!("CARGO_PKG_VERSION");
                let _ = writeln!(
                    page,
                    "{name}{{program=\"mixminus-signaling\",version=\"{version}\"}} 1"
                );
            }
            "mixminus_leaves_total" => labelled
                .leaves
                .iter()
                .for_each(|(cause, n)| line("cause", cause, *n)),
            "mixminus_sip_requests_total" => {
                for method in METHODS {
                    line(
                        "method",
                        method,
                        labelled.requests.get(method).copied().unwrap_or(0),
                    );
                }
                for (method, n) in labelled
                    .requests
                    .iter()
                    .filter(|(method, _)| !METHODS.contains(method))
                {
                    line("method", method, *n);
                }
            }
            "mixminus_sip_responses_total" => {
                for (class, n) in labelled.responses.iter().enumerate().skip(1) {
                    line("class", &format!("{class}xx"), *n);
                }
            }
            "mixminus_sip_dropped_total" => {
                for reason in Dropped::ALL {
                    line(
                        "reason",
                        reason.label(),
                        labelled.dropped.get(&reason).copied().unwrap_or(0),
                    );
                }
            }
            "mixminus_mixer_up" => labelled
                .mixers
                .iter()
                .for_each(|(mixer, up)| line("mixer", mixer, u64::from(*up))),
            "mixminus_mixer_requests_total" => {
                for outcome in MixerOutcome::ALL {
                    line(
                        "outcome",
                        outcome.label(),
                        labelled.mixer_requests.get(&outcome).copied().unwrap_or(0),
                    );
                }
            }
            "mixminus_db_writes_total" => {
                line("outcome", "done", self.db_done.load(Ordering::Relaxed));
                line("outcome", "failed", self.db_failed.load(Ordering::Relaxed));
            }
            _ => {}
        }
    }

    fn render_histogram(&self, page: &mut String, name: &str) {
        match name {
            "mixminus_sip_request_delay_seconds" => {
                self.invite_delay.render(page, name, "kind=\"invite\"");
                self.other_delay.render(page, name, "kind=\"other\"");
            }
            "mixminus_mixer_request_seconds" => self.mixer_delay.render(page, name, ""),
            _ => {}
        }
    }
}

/// `docs/metrics-signaling.md`.
#[must_use]
pub fn document() -> String {
    let mut out = String::from(
        "# Metrics of mixminus-signaling\n\nMade from `signaling/src/metrics/table.rs`; do not edit.\n\n\
         | name | kind | labels | says | alert hint |\n|---|---|---|---|---|\n",
    );
    for Definition {
        name,
        kind,
        labels,
        help,
        alert,
    } in TABLE
    {
        let _ = writeln!(
            out,
            "| `{name}` | {} | {labels} | {help} | {alert} |",
            kind.word()
        );
    }
    out
}

fn add(cell: &AtomicU64) {
    cell.fetch_add(1, Ordering::Relaxed);
}

fn bump<K: Ord>(cells: &mut BTreeMap<K, u64>, key: K) {
    *cells.entry(key).or_insert(0) += 1;
}

fn gauge(cell: &AtomicUsize) -> u64 {
    u64::try_from(cell.load(Ordering::Relaxed)).unwrap_or(u64::MAX)
}

fn escape(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// Observations of a duration.
#[derive(Debug, Default)]
struct Histogram {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    sum_ns: AtomicU64,
}

impl Histogram {
    fn observe(&self, duration: Duration) {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS
            .iter()
            .position(|(bound_ns, _)| ns <= *bound_ns)
            .unwrap_or(BOUNDS.len());
        if let Some(cell) = self.buckets.get(bucket) {
            add(cell);
        }
        self.sum_ns.fetch_add(ns, Ordering::Relaxed);
    }

    fn render(&self, page: &mut String, name: &str, label: &str) {
        let separator = if label.is_empty() { "" } else { "," };
        let braces = if label.is_empty() {
            String::new()
        } else {
            format!("{{{label}}}")
        };
        let mut total = 0;
        let texts = BOUNDS.iter().map(|(_, text)| *text).chain(["+Inf"]);
        for (cell, bound) in self.buckets.iter().zip(texts) {
            total += cell.load(Ordering::Relaxed);
            let _ = writeln!(page, "{name}_bucket{{{label}{separator}le=\"{bound}\"}} {total}");
        }
        let sum = Duration::from_nanos(self.sum_ns.load(Ordering::Relaxed)).as_secs_f64();
        let _ = writeln!(page, "{name}_sum{braces} {sum}\n{name}_count{braces} {total}");
    }
}

/// Methods shown also while they are zero, so that rates exist from the start.
const METHODS: [&str; 6] = ["INVITE", "ACK", "BYE", "CANCEL", "OPTIONS", "INFO"];

/// Bucket bounds: nanoseconds and their text in seconds.
const BOUNDS: [(u64, &str); 14] = [
    (100_000, "0.0001"),
    (250_000, "0.00025"),
    (500_000, "0.0005"),
    (1_000_000, "0.001"),
    (2_500_000, "0.0025"),
    (5_000_000, "0.005"),
    (10_000_000, "0.01"),
    (25_000_000, "0.025"),
    (50_000_000, "0.05"),
    (100_000_000, "0.1"),
    (250_000_000, "0.25"),
    (500_000_000, "0.5"),
    (2_000_000_000, "2"),
    (10_000_000_000, "10"),
];

#[cfg(test)]
mod tests;
