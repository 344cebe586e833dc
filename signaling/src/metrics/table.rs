//! Every metric of this program: one row each. The text page and `docs/metrics-signaling.md` are made
//! from these rows, so that no name exists twice.

/// Kind of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Observations in buckets.
    Histogram,
}

impl Kind {
    /// The word of the text format.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One row.
#[derive(Debug, Clone, Copy)]
pub struct Definition {
    /// Name with prefix.
    pub name: &'static str,
    /// Kind.
    pub kind: Kind,
    /// Label names, comma-separated; all of closed sets.
    pub labels: &'static str,
    /// What it says, with the unit.
    pub help: &'static str,
    /// When somebody should be woken, or empty.
    pub alert: &'static str,
}

const fn row(
    name: &'static str,
    kind: Kind,
    labels: &'static str,
    help: &'static str,
    alert: &'static str,
) -> Definition {
    Definition {
        name,
        kind,
        labels,
        help,
        alert,
    }
}

/// All rows, in the order of the page.
pub const TABLE: &[Definition] = &[
    row(
        "mixminus_build_info",
        Kind::Gauge,
        "program,version",
        "Always 1; what is running.",
        "",
    ),
    row("mixminus_conferences", Kind::Gauge, "", "Conferences now.", ""),
    row("mixminus_participants", Kind::Gauge, "", "Participants now.", ""),
    row(
        "mixminus_joins_total",
        Kind::Counter,
        "",
        "Participants that joined.",
        "",
    ),
    row(
        "mixminus_leaves_total",
        Kind::Counter,
        "cause",
        "Participants that left, by cause.",
        "`mixer_lost` or `media_timeout` rises",
    ),
    row(
        "mixminus_sip_requests_total",
        Kind::Counter,
        "method",
        "SIP requests received.",
        "",
    ),
    row(
        "mixminus_sip_responses_total",
        Kind::Counter,
        "class",
        "SIP responses sent.",
        "share of `5xx` above 1 % for 5 minutes",
    ),
    row(
        "mixminus_sip_request_delay_seconds",
        Kind::Histogram,
        "kind",
        "Time from a request to its final response, `invite` or `other`.",
        "p99 of `other` above 0.2 s",
    ),
    row(
        "mixminus_sip_retransmissions_total",
        Kind::Counter,
        "",
        "SIP retransmissions absorbed or sent.",
        "more than one in ten requests",
    ),
    row(
        "mixminus_sip_parse_errors_total",
        Kind::Counter,
        "",
        "SIP messages that could not be parsed.",
        "",
    ),
    row(
        "mixminus_sdes_keys_in_clear_total",
        Kind::Counter,
        "",
        "Offers and answers with SRTP keys that came over a SIP transport that does not hide them.",
        "any, where SIP crosses a network that is not yours",
    ),
    row(
        "mixminus_sip_transactions",
        Kind::Gauge,
        "",
        "SIP transactions now.",
        "",
    ),
    row(
        "mixminus_sip_connections",
        Kind::Gauge,
        "",
        "SIP TCP connections now.",
        "near `[sip] connections_max`",
    ),
    row(
        "mixminus_sip_dropped_total",
        Kind::Counter,
        "reason",
        "SIP messages or connections dropped by the transports.",
        "any rise",
    ),
    row(
        "mixminus_mixer_up",
        Kind::Gauge,
        "mixer",
        "1 while the mixer's control link answers.",
        "0 for 5 s",
    ),
    row(
        "mixminus_mixer_requests_total",
        Kind::Counter,
        "outcome",
        "Requests to mixers, by outcome after retries.",
        "`unreachable`, `overloaded` or `failed` rises",
    ),
    row(
        "mixminus_mixer_request_seconds",
        Kind::Histogram,
        "",
        "Time from asking a mixer to its answer, retries and queueing included.",
        "p99 above 0.1 s",
    ),
    row(
        "mixminus_mixer_retries_total",
        Kind::Counter,
        "",
        "Requests to mixers sent again under the same id.",
        "",
    ),
    row(
        "mixminus_mixer_events_total",
        Kind::Counter,
        "",
        "Events received from mixers.",
        "",
    ),
    row(
        "mixminus_db_up",
        Kind::Gauge,
        "",
        "1 while the database takes writes.",
        "0 for 5 s",
    ),
    row(
        "mixminus_db_writes_total",
        Kind::Counter,
        "outcome",
        "Batches written to the database (`done`) or to be repeated (`failed`).",
        "`failed` rises",
    ),
    row(
        "mixminus_db_pending",
        Kind::Gauge,
        "",
        "Changes waiting to be written.",
        "rises for a minute",
    ),
    row(
        "mixminus_log_dropped_total",
        Kind::Counter,
        "",
        "Log lines dropped because standard error was stuck.",
        "any rise",
    ),
];
