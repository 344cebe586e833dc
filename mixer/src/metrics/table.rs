//! Every metric of the mixer: name, kind, labels, help and what to do about it. The text page and
//! docs/metrics.md are made from this table.

/// One metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Full name.
    pub name: &'static str,
    /// Prometheus type.
    pub kind: Kind,
    /// Label names; their values are bounded sets.
    pub labels: &'static [&'static str],
    /// What it counts, one sentence.
    pub help: &'static str,
    /// When to worry, for the documentation; empty when it is only context.
    pub alert: &'static str,
}

/// Prometheus type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Goes both ways.
    Gauge,
    /// Buckets, sum and count.
    Histogram,
}

impl Kind {
    /// As in the `# TYPE` line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

macro_rules! metrics {
    ($($constant:ident = $name:literal $kind:ident [$($label:literal),*] $help:literal; $alert:literal;)*) => {
        $(
            #[doc = $help]
            pub const $constant: Metric = Metric {
                name: concat!("mixminus_", $name),
                kind: Kind::$kind,
                labels: &[$($label),*],
                help: $help,
                alert: $alert,
            };
        )*
        /// All metrics, in the order of the page.
        pub const ALL: &[Metric] = &[$($constant),*];
    };
}

metrics! {
    BUILD_INFO = "build_info" Gauge ["program", "version"]
        "Always 1; the labels tell what runs."; "";
    CONFERENCES = "conferences" Gauge []
        "Conferences on this mixer."; "at limits.conferences new ones are refused";
    ENDPOINTS = "endpoints" Gauge ["state"]
        "Endpoints by state: no_media, waiting (no RTP yet), active, held.";
        "many waiting for minutes: RTP does not reach the mixer, check firewall and io.address";
    SRTP_ENDPOINTS = "srtp_endpoints" Gauge ["suite"]
        "Endpoints with SRTP, by crypto suite."; "";
    RTP_PACKETS = "rtp_packets_total" Counter ["direction"]
        "RTP packets accepted (in) and sent (out)."; "out stands still while endpoints are active";
    RTP_BYTES = "rtp_bytes_total" Counter ["direction"]
        "UDP payload bytes of those RTP packets."; "";
    RTP_DROPPED = "rtp_dropped_total" Counter ["reason"]
        "Packets that died, by the one reason of each.";
        "bad_source: an address that was not signalled; srtp_auth: a wrong key, or somebody tries; no_send_buffer, send_failed, ring_full: overload";
    FRAMES = "frames_total" Counter ["outcome"]
        "Frames owed at a tick: played, or the cause of concealment.";
        "worker_late or ring_full above 0: this machine is overloaded; network_*: the network is at fault";
    ENCODES = "encodes_total" Counter ["codec"]
        "Payloads encoded; a payload shared by many listeners counts once."; "";
    PASSTHROUGH = "passthrough_total" Counter []
        "Payloads sent on byte-identical."; "";
    LEFT_OUT = "frames_left_out_total" Counter []
        "Frames of talkers that were not mixed, because a conference mixes the loudest only."; "";
    PARTIALS = "partials_total" Counter []
        "Sums of a shared conference's part that another worker told in time, one per tick and other part."; "";
    PARTIALS_MISSING = "partials_missing_total" Counter []
        "Sums of a shared conference's part that did not come within 8 ms: its members were not heard for a frame.";
        "steady rise: a worker is overloaded";
    DIGITS = "digits_total" Counter []
        "Key presses reported (RFC 4733)."; "";
    TICKS = "conference_ticks_total" Counter []
        "Conference ticks run (one each 20 ms and conference)."; "";
    CONFERENCES_FAILED = "conferences_failed_total" Counter []
        "Conferences dropped because mixing them failed."; "any: report it with the log";
    TICK_DURATION = "tick_duration_seconds" Histogram ["worker"]
        "Time from the start of a turn with a due slot to its end.";
        "p99 above 0.5 ms: the core is nearly full, add a worker";
    TICK_LATENESS = "tick_lateness_seconds" Histogram ["worker"]
        "Time a slot began after it was due.";
        "p99 above 2 ms: the core is shared or overloaded";
    WORKER_BUSY = "worker_busy_ratio" Gauge ["worker"]
        "Share of time a worker did not wait, over the last second."; "above 0.7: add a worker";
    WORKER_UP = "worker_up" Gauge ["worker"]
        "1 while the worker runs."; "0: its conferences are lost, restart the mixer";
    SLOTS_LATE = "slots_late_total" Counter ["worker"]
        "1 ms slots run a whole slot or more late."; "steady rise: the core is shared or overloaded";
    SLOTS_OVERSLEPT = "slots_overslept_total" Counter ["worker"]
        "Late slots that came due while the worker waited.";
        "more than 1 in 100: something else uses the core, and admission lowers its mark";
    SLOTS_SKIPPED = "slots_skipped_total" Counter ["worker"]
        "1 ms slots never run because the worker stood still."; "any: something held the core for 60 ms";
    ADMISSION_OPEN = "admission_open" Gauge ["worker"]
        "1 while a worker takes new endpoints, 0 while it refuses them for want of headroom.";
        "0 for minutes: this mixer is full, see docs/operations.md";
    ADMISSION_LOAD = "admission_load_ratio" Gauge ["worker"]
        "Load of a worker, measured or foreseen with all endpoints heard, whichever is higher; 1 is its whole core.";
        "near admission_mark_ratio: new calls are about to be refused";
    ADMISSION_MARK = "admission_mark_ratio" Gauge ["worker"]
        "Load at which a worker takes no more endpoints.";
        "below admission.busy_percent: the worker overslept slots, something else uses its core";
    ADMISSION_ENDPOINT = "admission_endpoint_ratio" Gauge ["worker"]
        "Share of a core that one endpoint is taken to cost, learnt from 100 endpoints on."; "";
    ADMISSION_REFUSED = "admission_refused_total" Counter ["reason"]
        "Conferences and endpoints refused for want of headroom: busy, or late (the mark was lowered).";
        "any: callers hear 503";
    RECORDING_LEFT_OUT = "recording_left_out_total" Counter ["worker"]
        "Inputs that came after the recording of a worker was full."; "any: the recording has ended, see replay.megabytes";
    HANDOFF = "handoff_packets_total" Counter []
        "Packets that came to a worker that does not own them."; "steady rise: fix NIC steering";
    EVENTS_LOST = "events_lost_total" Counter []
        "Events lost between a worker and control."; "any: readers had to read the state anew";
    RECEIVE_REARMED = "receive_rearmed_total" Counter []
        "Receives that the kernel ended and that were started again."; "";
    SOCKET_ERRORS = "socket_errors_total" Counter []
        "Errors reported on receive, such as ICMP port unreachable."; "";
    COMPLETION_OVERFLOW = "completion_overflow_total" Counter []
        "Times the kernel had more completions than the queue holds."; "any: overload";
    PORTS = "rtp_ports" Gauge ["state"]
        "RTP ports that are free, and that rest after release (30 s)."; "free at 0: widen io.ports";
    EVENTS = "events_total" Counter []
        "Events appended to the stream."; "";
    EVENT_READERS = "event_readers" Gauge []
        "Clients reading the event stream."; "0: nobody controls this mixer";
    CONTROL_REQUESTS = "control_requests_total" Counter ["kind"]
        "Requests of the control link answered, by kind."; "";
    CONTROL_REFUSALS = "control_refusals_total" Counter ["reason"]
        "Requests refused, by problem type.";
        "no_headroom, no_ports: full; timeout, internal: a worker is stuck";
    CONTROL_SECONDS = "control_request_seconds" Histogram []
        "Time from a request's body to its answer."; "p99 above 100 ms: the housekeeping core is busy";
    PROMPTS = "prompts" Gauge []
        "Prompts loaded."; "";
    PACKET_IO = "packet_io" Gauge ["backend", "mode"]
        "Always 1; the labels tell which packet I/O runs and how frames travel.";
        "backend uring where xdp was meant: the log says why; mode away: the interface is gone";
    XDP_QUEUES = "xdp_queues" Gauge []
        "Queues of the interface in service."; "";
    XDP_VERDICTS = "xdp_verdicts_total" Counter ["verdict"]
        "Packets on the interface, by what the XDP program did with them.";
        "drop_budget: a source floods; pass_no_socket: a queue is not served";
    XDP_REDIRECTS_LOST = "xdp_redirects_lost_total" Counter []
        "Frames that the XDP program redirected and no socket got.";
        "any: queue and socket do not match, the kernel drops silently; restart the mixer and report it";
    XDP_SOCKET_EVENTS = "xdp_socket_events_total" Counter ["event"]
        "What the AF_XDP sockets count: frames without a chunk or room in the ring, empty fill rings, descriptors refused.";
        "no_chunk, receive_ring_full: overload or a stalled core";
    XDP_REOPENED = "xdp_reopened_total" Counter []
        "Times the interface was taken into service again."; "any: the interface was removed and came back";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions() {
        for metric in ALL {
            let name = metric.name;
            assert!(name.starts_with("mixminus_"), "{name}");
            assert_eq!(name.ends_with("_total"), metric.kind == Kind::Counter, "{name}");
            assert!(
                name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
                "{name}"
            );
            assert!(metric.help.ends_with('.'), "{name}");
            assert_eq!(
                ALL.iter().filter(|other| other.name == name).count(),
                1,
                "{name} is there twice"
            );
        }
    }
}
