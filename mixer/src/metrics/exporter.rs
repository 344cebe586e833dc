//! The text page of `GET /metrics` (Prometheus exposition format 0.0.4).

use std::fmt::Write;

use mixer_control::reply::ProblemKind;
use mixer_control::srtp::SrtpSuite;
use mixer_engine::counters::{DropReason, FrameOutcome};
use mixer_engine::media::Codec;
use xdp_abi::Verdict;

use super::histogram::{Buckets, REQUEST_BOUNDS_NS};
use super::table::{self, Metric};
use crate::control::call::CallKind;
use crate::control::directory::{ENDPOINT_STATES, Figures};
use crate::control::headroom::{Full, HeadroomFigures};
use crate::io::IoCounters;
use crate::io::report::IoReport;
use crate::worker::stats::StatsSnapshot;

/// What the control link counts about itself.
#[derive(Debug, Clone)]
pub(crate) struct RequestCounters {
    kinds: [u64; CallKind::ALL.len()],
    refusals: [u64; ProblemKind::ALL.len()],
    seconds: Buckets,
}

impl Default for RequestCounters {
    fn default() -> Self {
        Self {
            kinds: [0; CallKind::ALL.len()],
            refusals: [0; ProblemKind::ALL.len()],
            seconds: Buckets::new(&REQUEST_BOUNDS_NS),
        }
    }
}

impl RequestCounters {
    /// Counts an answered request.
    pub(crate) fn record(&mut self, kind: CallKind, refused: Option<ProblemKind>, duration_ns: u64) {
        let place = CallKind::ALL.iter().position(|other| *other == kind);
        if let Some(count) = place.and_then(|place| self.kinds.get_mut(place)) {
            *count += 1;
        }
        if let Some(refused) = refused {
            self.refuse(refused);
        }
        self.seconds.record(duration_ns, 1);
    }

    /// Counts a refusal of something that was no request of a known kind.
    pub(crate) fn refuse(&mut self, kind: ProblemKind) {
        let place = ProblemKind::ALL.iter().position(|other| *other == kind);
        if let Some(count) = place.and_then(|place| self.refusals.get_mut(place)) {
            *count += 1;
        }
    }
}

/// Makes pages; measures what is no counter. Pages do not depend on who else reads them.
#[derive(Debug, Default)]
pub(crate) struct Exporter {
    /// Per worker: busy and alive nanoseconds at the last measurement.
    last: Vec<(u64, u64)>,
    /// Per worker: share of time it was busy between the last two measurements.
    busy: Vec<f64>,
}

impl Exporter {
    /// Measures the workers; call it about once a second.
    pub(crate) fn measure(&mut self, workers: impl Iterator<Item = StatsSnapshot>) {
        let now: Vec<(u64, u64)> = workers
            .map(|stats| (stats.worker.busy_ns, stats.worker.alive_ns))
            .collect();
        self.last.resize(now.len(), (0, 0));
        self.busy = now
            .iter()
            .zip(&self.last)
            .map(|(now, last)| ratio(now.0.saturating_sub(last.0), now.1.saturating_sub(last.1)))
            .collect();
        self.last = now;
    }

    /// The page.
    pub(crate) fn page(
        &self,
        figures: &Figures,
        requests: &RequestCounters,
        prompts: usize,
        report: &IoReport,
    ) -> String {
        let mut page = Page::default();
        let version = env!("CARGO_PKG_VERSION");
        page.family(&table::BUILD_INFO);
        page.sample(&table::BUILD_INFO, &["mixer", version], 1.0);
        page.one(&table::CONFERENCES, figures.conferences as u64);
        page.many(
            &table::ENDPOINTS,
            ENDPOINT_STATES.into_iter().zip(figures.endpoints),
        );
        page.many(
            &table::SRTP_ENDPOINTS,
            SrtpSuite::ALL.map(SrtpSuite::name).into_iter().zip(figures.srtp),
        );
        self.engine(&mut page, figures);
        self.workers(&mut page, figures);
        let io = |count: fn(&IoCounters) -> u64| sum(figures, |stats| count(&stats.io));
        page.one(&table::HANDOFF, io(|io| io.handed_over + io.handoff_full));
        page.one(
            &table::EVENTS_LOST,
            sum(figures, |stats| stats.engine.events_lost),
        );
        page.one(&table::RECEIVE_REARMED, io(|io| io.rearmed));
        page.one(&table::SOCKET_ERRORS, io(|io| io.socket_errors));
        page.one(&table::COMPLETION_OVERFLOW, io(|io| io.completion_overflow));
        let [free, resting] = figures.ports.map(|count| count as u64);
        page.many(&table::PORTS, [("free", free), ("resting", resting)]);
        page.one(&table::EVENTS, figures.events);
        page.one(&table::EVENT_READERS, figures.readers as u64);
        page.many(
            &table::CONTROL_REQUESTS,
            CallKind::ALL.map(CallKind::name).into_iter().zip(requests.kinds),
        );
        let reasons = ProblemKind::ALL.map(ProblemKind::name);
        page.many(
            &table::CONTROL_REFUSALS,
            reasons.into_iter().zip(requests.refusals),
        );
        page.family(&table::CONTROL_SECONDS);
        page.histogram(&table::CONTROL_SECONDS, &[], &requests.seconds);
        page.one(&table::PROMPTS, prompts as u64);
        packet_io(&mut page, report);
        page.text
    }

    fn engine(&self, page: &mut Page, figures: &Figures) {
        let engine = |count: fn(&StatsSnapshot) -> u64| sum(figures, count);
        let packets = [
            ("in", engine(|stats| stats.engine.rtp_received)),
            ("out", engine(|stats| stats.engine.rtp_sent)),
        ];
        page.many(&table::RTP_PACKETS, packets);
        let bytes = [
            ("in", engine(|stats| stats.engine.rtp_received_bytes)),
            ("out", engine(|stats| stats.engine.rtp_sent_bytes)),
        ];
        page.many(&table::RTP_BYTES, bytes);
        page.many(
            &table::RTP_DROPPED,
            DropReason::ALL
                .into_iter()
                .map(|reason| (reason.name(), sum(figures, |stats| dropped(stats, reason)))),
        );
        page.many(
            &table::FRAMES,
            FrameOutcome::ALL.into_iter().map(|outcome| {
                let count = |stats: &StatsSnapshot| at(&stats.engine.frames, outcome as usize);
                (outcome.name(), sum(figures, count))
            }),
        );
        page.many(
            &table::ENCODES,
            Codec::ALL.into_iter().enumerate().map(|(place, codec)| {
                (
                    codec.name(),
                    sum(figures, |stats| at(&stats.engine.encodes, place)),
                )
            }),
        );
        page.one(&table::PASSTHROUGH, engine(|stats| stats.engine.passthrough));
        page.one(&table::LEFT_OUT, engine(|stats| stats.engine.frames_left_out));
        page.one(&table::PARTIALS, engine(|stats| stats.engine.partials_added));
        page.one(
            &table::PARTIALS_MISSING,
            engine(|stats| stats.engine.partials_missing),
        );
        page.one(&table::DIGITS, engine(|stats| stats.engine.digits));
        page.one(&table::TICKS, engine(|stats| stats.engine.ticks));
        page.one(
            &table::CONFERENCES_FAILED,
            engine(|stats| stats.engine.conferences_failed),
        );
    }

    fn workers(&self, page: &mut Page, figures: &Figures) {
        let names: Vec<String> = figures.workers.iter().map(|(id, ..)| id.to_string()).collect();
        for (metric, pick) in [(&table::TICK_DURATION, 0usize), (&table::TICK_LATENESS, 1)] {
            page.family(metric);
            for (name, (_, _, _, histograms)) in names.iter().zip(&figures.workers) {
                let buckets = if pick == 0 {
                    &histograms.duration
                } else {
                    &histograms.lateness
                };
                page.histogram(metric, &[name], buckets);
            }
        }
        page.family(&table::WORKER_BUSY);
        for (place, name) in names.iter().enumerate() {
            let busy = self.busy.get(place).copied().unwrap_or(0.0);
            page.sample(&table::WORKER_BUSY, &[name], busy);
        }
        let by_worker = |count: fn(&(u16, bool, StatsSnapshot)) -> u64| {
            let counts: Vec<u64> = figures
                .workers
                .iter()
                .map(|(id, alive, stats, _)| count(&(*id, *alive, *stats)))
                .collect();
            names.iter().map(String::as_str).zip(counts)
        };
        page.many(&table::WORKER_UP, by_worker(|(_, alive, _)| u64::from(*alive)));
        page.many(
            &table::SLOTS_LATE,
            by_worker(|(_, _, stats)| stats.worker.slots_late),
        );
        page.many(
            &table::SLOTS_OVERSLEPT,
            by_worker(|(_, _, stats)| stats.worker.slots_overslept),
        );
        page.many(
            &table::SLOTS_SKIPPED,
            by_worker(|(_, _, stats)| stats.worker.slots_skipped),
        );
        admission(page, figures, &names);
        page.many(
            &table::RECORDING_LEFT_OUT,
            by_worker(|(_, _, stats)| stats.worker.inputs_left_out),
        );
    }
}

fn admission(page: &mut Page, figures: &Figures, workers: &[String]) {
    let mut gauge = |metric, parts_per_million: fn(&HeadroomFigures) -> u64| {
        page.family(metric);
        for (name, headroom) in workers.iter().zip(&figures.admission.workers) {
            page.sample(metric, &[name], ratio(parts_per_million(headroom), 1_000_000));
        }
    };
    gauge(&table::ADMISSION_OPEN, |of| u64::from(of.open) * 1_000_000);
    gauge(&table::ADMISSION_LOAD, |of| of.load_ppm);
    gauge(&table::ADMISSION_MARK, |of| of.mark_ppm);
    gauge(&table::ADMISSION_ENDPOINT, |of| of.endpoint_ppm);
    page.many(
        &table::ADMISSION_REFUSED,
        Full::ALL
            .map(Full::name)
            .into_iter()
            .zip(figures.admission.refused),
    );
}

/// What the backend counts besides the workers. Without AF_XDP its families are empty.
fn packet_io(page: &mut Page, report: &IoReport) {
    let xdp = report.xdp();
    let mode = match &xdp {
        None => "sockets".to_owned(),
        Some(figures) => figures.mode.map_or("away".to_owned(), |mode| mode.to_string()),
    };
    page.family(&table::PACKET_IO);
    page.sample(&table::PACKET_IO, &[report.backend(), &mode], 1.0);
    let xdp = xdp.unwrap_or_default();
    page.one(&table::XDP_QUEUES, xdp.queues);
    page.many(
        &table::XDP_VERDICTS,
        Verdict::ALL.map(Verdict::name).into_iter().zip(xdp.verdicts),
    );
    page.one(&table::XDP_REDIRECTS_LOST, xdp.redirects_lost);
    page.many(
        &table::XDP_SOCKET_EVENTS,
        [
            ("no_chunk", xdp.receive_dropped),
            ("receive_ring_full", xdp.receive_ring_full),
            ("fill_ring_empty", xdp.fill_ring_empty),
            ("invalid_descriptor", xdp.invalid),
        ],
    );
    page.one(&table::XDP_REOPENED, xdp.reopened);
}

fn sum(figures: &Figures, count: impl Fn(&StatsSnapshot) -> u64) -> u64 {
    figures.workers.iter().map(|(_, _, stats, _)| count(stats)).sum()
}

/// Packets dropped for a reason, by the engine or by packet I/O. The engine takes every datagram that
/// it could not send for one without a buffer; packet I/O knows which of them had another cause.
fn dropped(stats: &StatsSnapshot, reason: DropReason) -> u64 {
    let io = &stats.io;
    let by_io = [
        (DropReason::Truncated, io.truncated),
        (DropReason::SendFailed, io.send_failed),
        (DropReason::RingFull, io.receive_ring_full),
        (DropReason::UnknownPort, io.unknown_port),
        (DropReason::Malformed, io.malformed),
        (DropReason::BadChecksum, io.bad_checksum),
        (DropReason::WrongVlan, io.wrong_vlan),
        (DropReason::HandoffFull, io.handoff_full),
        (DropReason::NoRoute, io.no_route),
        (DropReason::InterfaceDown, io.interface_down),
    ];
    let by_io = by_io
        .iter()
        .find(|(of, _)| *of == reason)
        .map_or(0, |(_, count)| *count);
    let by_engine = at(&stats.engine.dropped, reason as usize);
    if reason == DropReason::NoSendBuffer {
        by_engine.saturating_sub(io.no_route + io.interface_down)
    } else {
        by_engine + by_io
    }
}

fn at(counts: &[u64], place: usize) -> u64 {
    counts.get(place).copied().unwrap_or(0)
}

#[expect(clippy::cast_precision_loss, reason = "metrics are floating-point numbers")]
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn family(&mut self, metric: &Metric) {
        let Metric { name, kind, help, .. } = metric;
        self.line(format_args!(
            "# HELP {name} {help}\n# TYPE {name} {}",
            kind.name()
        ));
    }

    #[expect(clippy::cast_precision_loss, reason = "metrics are floating-point numbers")]
    fn one(&mut self, metric: &Metric, value: u64) {
        self.family(metric);
        self.sample(metric, &[], value as f64);
    }

    #[expect(clippy::cast_precision_loss, reason = "metrics are floating-point numbers")]
    fn many<'a>(&mut self, metric: &Metric, values: impl IntoIterator<Item = (&'a str, u64)>) {
        self.family(metric);
        for (label, value) in values {
            self.sample(metric, &[label], value as f64);
        }
    }

    fn sample(&mut self, metric: &Metric, labels: &[&str], value: f64) {
        assert_eq!(metric.labels.len(), labels.len(), "{}", metric.name);
        let labels = braces(metric, labels, None);
        self.line(format_args!("{}{labels} {value}", metric.name));
    }

    fn histogram(&mut self, metric: &Metric, labels: &[&str], buckets: &Buckets) {
        let name = metric.name;
        for (bound, count) in buckets.cumulative() {
            let labels = braces(metric, labels, Some(&bound.to_string()));
            self.line(format_args!("{name}_bucket{labels} {count}"));
        }
        let count = buckets.count();
        let all = braces(metric, labels, Some("+Inf"));
        let plain = braces(metric, labels, None);
        self.line(format_args!("{name}_bucket{all} {count}"));
        self.line(format_args!("{name}_sum{plain} {}", buckets.sum_seconds()));
        self.line(format_args!("{name}_count{plain} {count}"));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "{line}");
    }
}

/// `{label="value",..}`; nothing without labels.
fn braces(metric: &Metric, values: &[&str], bound: Option<&str>) -> String {
    let pairs: Vec<String> = metric
        .labels
        .iter()
        .copied()
        .zip(values.iter().copied())
        .chain(bound.map(|bound| ("le", bound)))
        .map(|(label, value)| format!("{label}=\"{value}\""))
        .collect();
    if pairs.is_empty() {
        String::new()
    } else {
        format!("{{{}}}", pairs.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::directory::AdmissionFigures;
    use crate::metrics::histogram::TickHistograms;

    fn figures() -> Figures {
        let mut stats = StatsSnapshot::default();
        stats.worker.busy_ns = 25;
        stats.worker.alive_ns = 100;
        stats.io.truncated = 3;
        stats.engine.dropped[DropReason::Truncated as usize] = 4;
        Figures {
            workers: vec![(0, true, stats, TickHistograms::default())],
            admission: AdmissionFigures {
                refused: [7, 9],
                workers: vec![HeadroomFigures {
                    load_ppm: 250_000,
                    mark_ppm: 720_000,
                    endpoint_ppm: 210,
                    open: true,
                }],
            },
            ..Figures::default()
        }
    }

    #[test]
    fn the_page_has_every_metric_of_the_table_and_no_other() {
        let page = Exporter::default().page(&figures(), &RequestCounters::default(), 4, &IoReport::default());
        let families: Vec<&str> = page
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
            .collect();
        let table: Vec<&str> = table::ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(families, table);
        for metric in table::ALL {
            let sample = |line: &str| line.starts_with(metric.name);
            assert!(page.lines().any(sample), "{} has no sample", metric.name);
        }
    }

    #[test]
    fn drops_of_engine_and_io_are_one_number() {
        let page = Exporter::default().page(&figures(), &RequestCounters::default(), 4, &IoReport::default());
        assert!(
            page.contains("mixminus_rtp_dropped_total{reason=\"truncated\"} 7\n"),
            "{page}"
        );
    }

    /// What no test can provoke from outside reaches the page as well.
    #[test]
    fn every_counter_of_a_worker_reaches_the_page() {
        let mut figures = figures();
        let zero = Exporter::default().page(&figures, &RequestCounters::default(), 0, &IoReport::default());
        let (_, alive, stats, _) = &mut figures.workers[0];
        *alive = false;
        let engine = &mut stats.engine;
        let mut next = 1000;
        let mut fresh = || {
            next += 10;
            next
        };
        engine.dropped.iter_mut().for_each(|cell| *cell = fresh());
        engine.frames.iter_mut().for_each(|cell| *cell = fresh());
        engine.encodes.iter_mut().for_each(|cell| *cell = fresh());
        for cell in [
            &mut engine.rtp_received,
            &mut engine.rtp_received_bytes,
            &mut engine.rtp_sent,
            &mut engine.rtp_sent_bytes,
            &mut engine.ticks,
            &mut engine.passthrough,
            &mut engine.frames_left_out,
            &mut engine.partials_added,
            &mut engine.partials_missing,
            &mut engine.digits,
            &mut engine.conferences_failed,
            &mut engine.events_lost,
            &mut stats.io.rearmed,
            &mut stats.io.socket_errors,
            &mut stats.io.completion_overflow,
            &mut stats.worker.slots_late,
            &mut stats.worker.slots_overslept,
            &mut stats.worker.slots_skipped,
            &mut stats.worker.inputs_left_out,
            &mut stats.io.handed_over,
        ] {
            *cell = fresh();
        }
        let page = Exporter::default().page(&figures, &RequestCounters::default(), 0, &IoReport::default());
        let moved: Vec<&str> = page
            .lines()
            .filter(|line| !line.starts_with('#') && !zero.lines().any(|old| old == *line))
            .collect();
        for number in (1010..=next).step_by(10) {
            // Drops that packet I/O counts too are there as a sum: 3 truncated.
            let there = |line: &&&str| {
                line.ends_with(&format!(" {number}"))
                    || line.ends_with(&format!("\"truncated\"}} {}", number + 3))
            };
            assert_eq!(moved.iter().filter(there).count(), 1, "{number} in {moved:#?}");
        }
        assert!(page.contains("mixminus_worker_up{worker=\"0\"} 0\n"));
    }

    #[test]
    fn busy_is_the_share_between_two_measurements() {
        let mut exporter = Exporter::default();
        let mut figures = figures();
        let busy = |page: &str| {
            let line = page
                .lines()
                .find(|line| line.starts_with("mixminus_worker_busy_ratio{"))
                .unwrap();
            line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
        };
        let requests = RequestCounters::default();
        assert_eq!(
            busy(&exporter.page(&figures, &requests, 0, &IoReport::default())),
            0.0
        );
        exporter.measure(figures.workers.iter().map(|worker| worker.2));
        assert_eq!(
            busy(&exporter.page(&figures, &requests, 0, &IoReport::default())),
            0.25
        );
        figures.workers[0].2.worker.busy_ns = 100;
        figures.workers[0].2.worker.alive_ns = 200;
        assert_eq!(
            busy(&exporter.page(&figures, &requests, 0, &IoReport::default())),
            0.25
        );
        exporter.measure(figures.workers.iter().map(|worker| worker.2));
        assert_eq!(
            busy(&exporter.page(&figures, &requests, 0, &IoReport::default())),
            0.75
        );
    }

    #[test]
    fn admission_reaches_the_page() {
        let page = Exporter::default().page(&figures(), &RequestCounters::default(), 0, &IoReport::default());
        for line in [
            "mixminus_admission_open{worker=\"0\"} 1",
            "mixminus_admission_load_ratio{worker=\"0\"} 0.25",
            "mixminus_admission_mark_ratio{worker=\"0\"} 0.72",
            "mixminus_admission_endpoint_ratio{worker=\"0\"} 0.00021",
            "mixminus_admission_refused_total{reason=\"busy\"} 7",
            "mixminus_admission_refused_total{reason=\"late\"} 9",
        ] {
            assert!(
                page.lines().any(|other| other == line),
                "{line} is missing in\n{page}"
            );
        }
    }

    #[test]
    fn histograms_are_cumulative() {
        let mut requests = RequestCounters::default();
        requests.record(CallKind::State, None, 700_000);
        requests.record(CallKind::State, Some(ProblemKind::Busy), 3_000_000_000);
        let page = Exporter::default().page(&figures(), &requests, 0, &IoReport::default());
        for line in [
            "mixminus_control_request_seconds_bucket{le=\"0.0005\"} 0",
            "mixminus_control_request_seconds_bucket{le=\"0.001\"} 1",
            "mixminus_control_request_seconds_bucket{le=\"2\"} 1",
            "mixminus_control_request_seconds_bucket{le=\"+Inf\"} 2",
            "mixminus_control_request_seconds_count 2",
            "mixminus_control_requests_total{kind=\"state\"} 2",
            "mixminus_control_refusals_total{reason=\"busy\"} 1",
        ] {
            assert!(
                page.lines().any(|other| other == line),
                "{line} is missing in\n{page}"
            );
        }
    }
}
