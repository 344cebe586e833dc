//! What a run of `call` found, for people and for machines.

use std::fmt::{self, Display, Formatter};

use serde::Serialize;

use super::Limits;
use super::delay::DelayReport;
use super::judge::{LEVEL_DB, Verdict};
use super::leg::PTIME_NS;
use super::receiver::PacketStats;
use crate::process::Usage;

/// Result of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// `ok` or `FAILED`.
    pub verdict: &'static str,
    /// Why it failed.
    pub reasons: Vec<String>,
    /// Legs asked for.
    pub legs: usize,
    /// Legs that came up.
    pub answered: usize,
    /// Legs refused with 503 and Retry-After, when that is what was to be seen.
    pub refused: usize,
    /// Conferences.
    pub conferences: usize,
    /// Talkers in all.
    pub talkers: usize,
    /// Measured seconds.
    pub seconds: u64,
    /// Seed of the run.
    pub seed: u64,
    /// Calls that failed or were ended by the server, with their reasons (the first of them).
    pub call_failures: Vec<String>,
    /// INVITE to 200, milliseconds: median and 99th percentile.
    pub setup_ms: (f64, f64),
    /// SIP requests sent again.
    pub sip_retransmissions: u64,
    /// SIP messages not understood.
    pub sip_strays: u64,
    /// Who hears whom.
    pub hearing: Verdict,
    /// Whether conferences had to share tones.
    pub tones_shared: bool,
    /// RTP received by all legs together in the measured window.
    pub rtp: PacketStats,
    /// Delay through the mixer.
    pub delay: Option<DelayReport>,
    /// Per server process.
    pub server: Vec<Usage>,
    /// All of them together.
    pub server_total: Option<ServerTotal>,
    /// The load tester's own pacing: if it stalls, blame it before the server.
    pub pacing: Pacing,
}

/// Server figures by leg.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ServerTotal {
    /// Percent of one core.
    pub cpu_percent: f64,
    /// Percent of one core per 1,000 legs.
    pub cpu_percent_per_1000_legs: f64,
    /// Percent of one core that the NAPI threads of the server's interface used, when asked for. Not part of the
    /// figures above.
    pub napi_percent: Option<f64>,
    /// What one leg costs.
    pub ns_per_leg: LegCost,
    /// KiB above the base, per leg.
    pub rss_kib_per_leg: f64,
}

/// CPU of one leg in 20 ms, which is one packet in and one out: nanoseconds, as `io echo` tells them per packet.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LegCost {
    /// The server processes.
    pub process: f64,
    /// The NAPI threads of the server's interface, when asked for.
    pub napi: Option<f64>,
    /// Both.
    pub sum: f64,
}

impl LegCost {
    /// The share of one of `legs` in percentages of a core.
    #[must_use]
    pub fn new(process_percent: f64, napi_percent: Option<f64>, legs: usize) -> Self {
        let share = |percent: f64| percent / 100.0 * PTIME_NS as f64 / legs as f64;
        Self {
            process: share(process_percent),
            napi: napi_percent.map(share),
            sum: share(process_percent + napi_percent.unwrap_or(0.0)),
        }
    }
}

/// How well the load tester kept time in the measured window.
#[derive(Debug, Clone, Serialize)]
pub struct Pacing {
    /// Packets sent.
    pub sent: u64,
    /// Packets sent more than 5 ms late.
    pub late: u64,
    /// Talkers that sent such packets, with the worst of each: what listeners lost of them may be
    /// the load tester's fault. The first of them.
    pub late_talkers: Vec<String>,
    /// Longest time between two turns, milliseconds.
    pub longest_stall_ms: f64,
    /// Sends that packet I/O or the kernel refused, and receive buffer shortages.
    pub io_failures: u64,
}

impl Report {
    /// Fills in verdict and reasons from everything else.
    pub fn conclude(&mut self, limits: &Limits) {
        let mut reasons = self.beyond(limits);
        if !self.call_failures.is_empty() || self.answered + self.refused < self.legs {
            reasons.push(format!(
                "{} of {} calls came up and stayed",
                self.answered, self.legs
            ));
        }
        reasons.extend(self.hearing.reasons());
        let rtp = &self.rtp;
        let counted = [
            (rtp.lost, "RTP packets lost"),
            (rtp.gaps, "gaps over 40 ms"),
            (rtp.duplicate, "duplicate RTP packets"),
            (rtp.reordered, "RTP packets out of order"),
            (rtp.ssrc_changes, "SSRC changes"),
            (rtp.timestamp_breaks, "timestamp breaks"),
            (rtp.unusable, "unusable RTP packets"),
            (
                self.delay.map_or(0, |delay| delay.missed),
                "delay markers never heard",
            ),
        ];
        reasons.extend(
            counted
                .iter()
                .filter(|(n, _)| *n > 0)
                .map(|(n, what)| format!("{n} {what}")),
        );
        let unsteady = self.pacing.late > 0 || self.pacing.longest_stall_ms > 20.0;
        if !reasons.is_empty() && unsteady {
            let Pacing {
                late,
                longest_stall_ms,
                late_talkers,
                ..
            } = &self.pacing;
            let talkers = late_talkers.join(", ");
            reasons.push(format!(
                "note: the load tester itself sent {late} packets late, longest stall {longest_stall_ms:.1} ms, \
                 talkers concerned: {talkers}"
            ));
        }
        self.verdict = if reasons.is_empty() { "ok" } else { "FAILED" };
        self.reasons = reasons;
    }

    /// Figures above their limit, and limits whose figure was not measured.
    fn beyond(&self, limits: &Limits) -> Vec<String> {
        let total = self.server_total;
        let figures = [
            (
                "delay p99 in ms",
                self.delay.map(|delay| delay.p99_ms),
                limits.max_delay_p99_ms,
            ),
            (
                "CPU in % of a core per 1,000 legs",
                total.map(|total| total.cpu_percent_per_1000_legs),
                limits.max_cpu_per_1000,
            ),
            (
                "KiB per leg",
                total.map(|total| total.rss_kib_per_leg),
                limits.max_rss_per_leg_kib,
            ),
        ];
        let judge = |(what, figure, limit): (&str, Option<f64>, Option<f64>)| match (figure, limit?) {
            (Some(figure), limit) if figure <= limit => None,
            (Some(figure), limit) => Some(format!("{what}: {figure:.1} is above {limit}")),
            (None, _) => Some(format!("{what}: not measured")),
        };
        figures.into_iter().filter_map(judge).collect()
    }

    /// Whether all is well.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.verdict == "ok"
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "calls       {} of {} up, {} conferences, {} talkers, {} s, seed {}",
            self.answered, self.legs, self.conferences, self.talkers, self.seconds, self.seed
        )?;
        if self.refused > 0 {
            writeln!(f, "refused     {} with 503 and Retry-After", self.refused)?;
        }
        writeln!(
            f,
            "set-up      INVITE to 200 p50 {:.1} ms, p99 {:.1} ms; {} retransmissions, {} strays",
            self.setup_ms.0, self.setup_ms.1, self.sip_retransmissions, self.sip_strays
        )?;
        self.write_hearing(f)?;
        let rtp = &self.rtp;
        writeln!(
            f,
            "rtp         {} received, {} lost, {} gaps over 40 ms (longest {:.1} ms), {} reordered, {} duplicate",
            rtp.received,
            rtp.lost,
            rtp.gaps,
            rtp.longest_gap_us as f64 / 1_000.0,
            rtp.reordered,
            rtp.duplicate
        )?;
        writeln!(
            f,
            "            {} SSRC changes, {} timestamp breaks, {} unusable",
            rtp.ssrc_changes, rtp.timestamp_breaks, rtp.unusable
        )?;
        if let Some(delay) = &self.delay {
            writeln!(
                f,
                "delay       p50 {:.1} ms, p90 {:.1}, p99 {:.1}, max {:.1} ({} samples of {} markers, {} missed)",
                delay.p50_ms,
                delay.p90_ms,
                delay.p99_ms,
                delay.max_ms,
                delay.samples,
                delay.markers,
                delay.missed
            )?;
        }
        self.write_server(f)?;
        let pacing = &self.pacing;
        writeln!(
            f,
            "load tester {} packets sent, {} late, longest stall {:.1} ms, {} i/o failures",
            pacing.sent, pacing.late, pacing.longest_stall_ms, pacing.io_failures
        )?;
        for line in self.call_failures.iter().chain(&self.hearing.details) {
            writeln!(f, "  - {line}")?;
        }
        if self.ok() {
            write!(f, "verdict: ok")
        } else {
            write!(f, "verdict: FAILED ({})", self.reasons.join("; "))
        }
    }
}

impl Report {
    fn write_hearing(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let hearing = &self.hearing;
        writeln!(
            f,
            "hearing     {} pairs: {} missing, {} ghosts, {} own voice, {} level errors over {LEVEL_DB} dB",
            hearing.pairs, hearing.missing, hearing.ghosts, hearing.own_voice, hearing.level_errors
        )?;
        let shared = if self.tones_shared {
            " (conferences share tones: ghosts between those go unseen)"
        } else {
            ""
        };
        writeln!(
            f,
            "            level error max {:.3} dB, loudest ghost {:.1} dB, own voice {:.1} dB, {} windows{shared}",
            hearing.level_error_max_db, hearing.ghost_max_db, hearing.own_max_db, hearing.windows
        )?;
        if hearing.continuity_judged > 0 {
            writeln!(
                f,
                "continuity  {} tones: {} holes, {} phase jumps, {} disturbances, worst listener {:.2} % in holes",
                hearing.continuity_judged,
                hearing.holes,
                hearing.phase_jumps,
                hearing.disturbances,
                hearing.hole_percent_max
            )?;
        }
        if hearing.identity_frames > 0 {
            writeln!(
                f,
                "identity    {} frames, {} not byte-identical, {} slips",
                hearing.identity_frames, hearing.identity_different, hearing.identity_slips
            )?;
        }
        Ok(())
    }

    fn write_server(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for usage in &self.server {
            writeln!(
                f,
                "server      pid {}: {:.2} % of a core, {} KiB resident, {:+} KiB over base",
                usage.pid, usage.cpu_percent, usage.rss_kib, usage.rss_above_base_kib
            )?;
        }
        if let Some(total) = &self.server_total {
            writeln!(
                f,
                "            {:.2} % of a core = {:.1} % per 1,000 legs; {:.1} KiB per leg",
                total.cpu_percent, total.cpu_percent_per_1000_legs, total.rss_kib_per_leg
            )?;
            let cost = total.ns_per_leg;
            if let (Some(percent), Some(napi)) = (total.napi_percent, cost.napi) {
                writeln!(
                    f,
                    "            {percent:.2} % in NAPI threads; per leg and 20 ms {:.0} ns process + {napi:.0} ns NAPI = \
                     {:.0} ns",
                    cost.process, cost.sum
                )?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leg_costs_its_share_of_20_ms() {
        let cost = LegCost::new(3.0, Some(1.5), 300);
        assert!((cost.process - 2_000.0).abs() < 1e-6);
        assert!((cost.sum - 3_000.0).abs() < 1e-6);
        assert_eq!(LegCost::new(3.0, None, 300).napi, None);
    }
}
