//! Who is let in: each worker's headroom is measured, and what exceeds it is refused before it costs
//! anything.

use std::time::Duration;

use mixer_control::reply::Problem;
use mixer_engine::time::Timestamp;

use super::entries::WorkerTable;
use super::start::{internal, no_headroom};
use super::{Directory, Link};
use crate::control::headroom::{Full, Headroom, HeadroomFigures, Reading};

/// Time between two measurements.
const MEASURE_PERIOD: Duration = Duration::from_millis(500);
/// Who is refused is asked to come back after so many seconds, and a random number of more, so that
/// not all come back at once.
const RETRY_AFTER_S: u32 = 4;
const RETRY_SPREAD_S: usize = 8;

/// Admission as metrics show it.
#[derive(Debug, Clone, Default)]
pub(crate) struct AdmissionFigures {
    /// Refusals, by [`Full`].
    pub(crate) refused: [u64; Full::ALL.len()],
    /// Per worker.
    pub(crate) workers: Vec<HeadroomFigures>,
}

impl<L: Link, W> Directory<L, W> {
    /// Measures every worker when it is time.
    pub(super) fn measure_headroom(&mut self, now: Timestamp) {
        if now.since(self.measured) < MEASURE_PERIOD {
            return;
        }
        self.measured = now;
        for table in &mut self.workers {
            let stats = table.link.shared().stats().read();
            let reading = Reading::new(&stats, table.endpoints);
            change(table, |headroom| headroom.measure(reading));
        }
    }

    /// Whether a worker takes one more endpoint.
    ///
    /// # Errors
    /// `no_headroom`, with the time to come back.
    pub(super) fn admit(&mut self, worker: usize) -> Result<(), Problem> {
        let table = self
            .workers
            .get_mut(worker)
            .ok_or_else(|| internal("no such worker"))?;
        let endpoints = table.endpoints;
        change(table, |headroom| headroom.admit(endpoints)).map_err(|why| self.refuse(why))
    }

    /// Why no worker takes a new conference.
    pub(super) fn refuse_conference(&mut self) -> Problem {
        let setup = &self.setup;
        let busy = self.workers.iter_mut().find_map(|table| {
            let fits = table.endpoints < setup.worker_endpoints_max
                && table.conferences < setup.worker_conferences_max;
            let endpoints = table.endpoints;
            (table.alive && fits).then(|| table.headroom.admit(endpoints).err())?
        });
        match busy {
            Some(why) => self.refuse(why),
            None => no_headroom("every worker is full"),
        }
    }

    /// For metrics.
    pub(super) fn admission_figures(&self) -> AdmissionFigures {
        AdmissionFigures {
            refused: self.refused,
            workers: self
                .workers
                .iter()
                .map(|table| table.headroom.figures(table.endpoints))
                .collect(),
        }
    }

    fn refuse(&mut self, why: Full) -> Problem {
        if let Some(count) = self.refused.get_mut(why as usize) {
            *count += 1;
        }
        let spread = u32::try_from(self.random.below(RETRY_SPREAD_S)).unwrap_or(0);
        let detail = match why {
            Full::Busy => "the worker's core is as busy as admission.busy_percent allows",
            Full::Late => "the worker comes late to its slots: something else uses its core",
        };
        no_headroom(detail).retry_after(RETRY_AFTER_S + spread)
    }
}

/// Does something to a worker's headroom and logs when admission closes or opens by it.
fn change<L, T>(table: &mut WorkerTable<L>, what: impl FnOnce(&mut Headroom) -> T) -> T {
    let before = table.headroom.figures(table.endpoints);
    let result = what(&mut table.headroom);
    let after = table.headroom.figures(table.endpoints);
    if before.open != after.open {
        let HeadroomFigures {
            load_ppm,
            mark_ppm,
            endpoint_ppm,
            open,
        } = after;
        let (worker, endpoints) = (table.id, table.endpoints);
        if open {
            tracing::info!(worker, endpoints, load_ppm, "endpoints are admitted again");
        } else {
            tracing::warn!(
                worker,
                endpoints,
                load_ppm,
                mark_ppm,
                endpoint_ppm,
                "no headroom: new endpoints are refused"
            );
        }
    }
    result
}
