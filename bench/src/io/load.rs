//! `io load`: RTP at a steady rate to an echo, and the count of what comes back.

use std::fmt::{self, Display, Formatter};
use std::net::SocketAddr;
use std::time::Duration;

use mixer::io::PacketIo;
use mixer::limits::RECEIVE_BUDGET;
use mixer_engine::packet::FlowId;
use mixer_engine::time::Timestamp;
use serde::Serialize;

use super::stream::{Row, Tally};
use super::{IoError, LoadOptions, next_turn};
use crate::open::{self, Job, Setup};

/// Time before anything counts: neighbours and flows are known then.
const WARM_UP: Duration = Duration::from_secs(1);
/// Time given to the last echoes.
const LINGER: Duration = Duration::from_secs(1);
/// Packets of one turn at most, so that echoes are taken in between.
const BURST: u64 = 1_024;
/// A packet sent later than this after its time is a late one, nanoseconds.
const LATE_NS: u64 = 5_000_000;

/// What a run of `io load` found.
#[derive(Debug, Clone, Serialize)]
pub struct LoadReport {
    /// `ok` or `FAILED`.
    pub verdict: &'static str,
    /// Flows.
    pub flows: u32,
    /// Packets per second of one flow.
    pub rate: u32,
    /// Packets that were due.
    pub offered: u64,
    /// Those that packet I/O took.
    pub taken: u64,
    /// Those that came back.
    pub echoed: u64,
    /// Percent of the offered ones that did not come back.
    pub lost_percent: f64,
    /// Echoes that came twice, too late, or on another flow.
    pub disordered: u64,
    /// Datagrams that are no echo.
    pub strangers: u64,
    /// Packets sent more than 5 ms after their time: the load's own fault.
    pub late: u64,
    /// Round trip in milliseconds: median, 90, 99 and 99.9 %, longest. Both ends look every millisecond.
    pub round_trip_ms: [f64; 5],
    /// Echoes of each flow.
    pub echoes: Vec<u64>,
}

impl LoadReport {
    /// Whether at most 0.1 % was lost.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.verdict == "ok"
    }
}

impl Display for LoadReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self {
            flows,
            rate,
            offered,
            taken,
            echoed,
            lost_percent,
            ..
        } = self;
        writeln!(
            f,
            "load        {flows} flows of {rate} packets/s: {offered} offered, {taken} taken, {echoed} came back, \
             {lost_percent:.3} % lost"
        )?;
        let (least, most) = (self.echoes.iter().min(), self.echoes.iter().max());
        writeln!(
            f,
            "flows       {} to {} echoes each; {} out of order, {} strangers, {} sent late",
            least.copied().unwrap_or(0),
            most.copied().unwrap_or(0),
            self.disordered,
            self.strangers,
            self.late
        )?;
        let [p50, p90, p99, p999, max] = self.round_trip_ms;
        writeln!(
            f,
            "round trip  p50 {p50:.2} ms, p90 {p90:.2}, p99 {p99:.2}, p99.9 {p999:.2}, max {max:.2}"
        )?;
        write!(f, "verdict: {}", self.verdict)
    }
}

/// Makes the run.
///
/// # Errors
/// When it could not be made. A run that was made and lost packets is a report.
pub fn run(options: &LoadOptions) -> Result<LoadReport, IoError> {
    let setup = Setup {
        backend: options.backend,
        interface: options.interface.clone(),
        address: options.bind,
        ports: options.ports,
        any_port: false,
        parity: 1,
        flows: options.flows,
        core: options.core,
        xdp_mode: options.xdp_mode,
        vlan: Vec::new(),
    };
    let row = Row {
        flows: options.flows,
        rate: options.rate,
    };
    let load = Load {
        options,
        setup: &setup,
        row,
    };
    open::with(&setup, load)
}

struct Load<'a> {
    options: &'a LoadOptions,
    setup: &'a Setup,
    row: Row,
}

/// What was sent.
#[derive(Debug, Default)]
struct Sent {
    /// The next packet.
    next: u64,
    /// Packets that packet I/O took, those of the warm-up left out.
    taken: u64,
    late: u64,
}

impl Job for Load<'_> {
    type Output = LoadReport;
    type Error = IoError;

    fn run<Io: PacketIo>(self, mut io: Io, locals: &[SocketAddr]) -> Result<LoadReport, IoError> {
        for (index, local) in (0u32..).zip(locals) {
            let remote = SocketAddr::new(self.options.target, local.port() - self.setup.parity);
            io.set_remote(FlowId(index), remote);
        }
        let row = self.row;
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let first = row.due(nanoseconds(WARM_UP));
        let length = WARM_UP + Duration::from_secs(self.options.seconds);
        let total = row.due(nanoseconds(length));
        let mut tally = Tally::new(row, first);
        let mut sent = Sent::default();
        let start = io.now();
        let mut now = start;
        let mut end = None;
        while end.is_none_or(|end| now < end) {
            io.wait(next_turn(1, start, now));
            now = io.now();
            io.receive(RECEIVE_BUDGET, |datagram| {
                let flow = self.setup.flow_of(datagram.local_port);
                tally.take(flow, datagram.received_at, datagram.payload);
            });
            self.send(&mut io, &mut sent, start, now, first, total);
            io.flush();
            if sent.next >= total && end.is_none() {
                end = Some(now.after(LINGER));
            }
        }
        Ok(self.report(&sent, total - first, &tally))
    }
}

impl Load<'_> {
    fn send<Io: PacketIo>(
        &self,
        io: &mut Io,
        sent: &mut Sent,
        start: Timestamp,
        now: Timestamp,
        first: u64,
        total: u64,
    ) {
        let elapsed = now.0 - start.0;
        let due = self.row.due(elapsed).min(total).min(sent.next + BURST);
        while sent.next < due {
            let number = sent.next;
            sent.next += 1;
            let flow = FlowId(self.row.flow(number));
            let taken = io.transmit(flow, |buffer| self.row.write(number, now, buffer));
            if number >= first {
                sent.taken += u64::from(taken);
                sent.late += u64::from(elapsed.saturating_sub(self.row.time_ns(number)) > LATE_NS);
            }
        }
    }

    fn report(&self, sent: &Sent, offered: u64, tally: &Tally) -> LoadReport {
        let echoed: u64 = tally.echoes.iter().sum();
        let lost = offered.saturating_sub(echoed);
        let ms = |quantile| tally.round_trip.value_at_quantile(quantile) as f64 / 1e6;
        LoadReport {
            verdict: verdict(offered, lost),
            flows: self.row.flows,
            rate: self.row.rate,
            offered,
            taken: sent.taken,
            echoed,
            lost_percent: 100.0 * lost as f64 / offered.max(1) as f64,
            disordered: tally.disordered,
            strangers: tally.strangers,
            late: sent.late,
            round_trip_ms: [ms(0.5), ms(0.9), ms(0.99), ms(0.999), ms(1.0)],
            echoes: tally.echoes.clone(),
        }
    }
}

fn verdict(offered: u64, lost: u64) -> &'static str {
    if offered > 0 && lost * 1_000 <= offered {
        "ok"
    } else {
        "FAILED"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_a_thousand_may_be_lost() {
        assert_eq!(verdict(1_000, 1), "ok");
        assert_eq!(verdict(999, 1), "FAILED");
        assert_eq!(verdict(0, 0), "FAILED");
    }
}
