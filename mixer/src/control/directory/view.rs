//! What the directory shows: the complete state and the figures for metrics.

use std::net::SocketAddr;

use mixer_control::srtp::SrtpSuite;
use mixer_control::state::{ConferenceState, EndpointState, State};
use mixer_engine::time::Timestamp;

use super::entries::{ConferenceEntry, Presence};
use super::{AdmissionFigures, Directory, Link};
use crate::metrics::histogram::TickHistograms;
use crate::worker::stats::StatsSnapshot;

/// Numbers for metrics.
#[derive(Debug, Clone, Default)]
pub(crate) struct Figures {
    /// Conferences.
    pub(crate) conferences: usize,
    /// Endpoints without media, with media but no RTP yet, with RTP, held.
    pub(crate) endpoints: [u64; 4],
    /// Endpoints with SRTP, by suite.
    pub(crate) srtp: [u64; SrtpSuite::ALL.len()],
    /// RTP ports that can be taken, and that rest.
    pub(crate) ports: [usize; 2],
    /// Number of the last event.
    pub(crate) events: u64,
    /// Readers of the event stream.
    pub(crate) readers: usize,
    /// Admission by headroom.
    pub(crate) admission: AdmissionFigures,
    /// Per worker: number, alive, counters, histograms.
    pub(crate) workers: Vec<(u16, bool, StatsSnapshot, TickHistograms)>,
}

/// Labels of [`Figures::endpoints`].
pub(crate) const ENDPOINT_STATES: [&str; 4] = ["no_media", "waiting", "active", "held"];

impl<L: Link, W> Directory<L, W> {
    /// Everything there is. What is on its way to a worker is not there yet.
    pub(crate) fn state(&self, instance: &str) -> State {
        let conferences = self
            .conferences
            .iter()
            .filter(|(_, entry)| !matches!(entry.presence, Presence::Adding(_)))
            .map(|(name, entry)| self.conference_state(name, entry))
            .collect();
        State {
            instance: instance.to_owned(),
            event_seq: self.events.head(),
            conferences,
        }
    }

    fn conference_state(&self, name: &str, entry: &ConferenceEntry) -> ConferenceState {
        let endpoints = entry
            .endpoints
            .iter()
            .filter(|(_, endpoint)| !matches!(endpoint.presence, Presence::Adding(_)))
            .map(|(name, endpoint)| EndpointState {
                endpoint: name.to_string(),
                local: SocketAddr::new(self.setup.address, endpoint.port),
                ssrc: endpoint.ssrc,
                media: endpoint.media.clone(),
                srtp: endpoint.srtp,
                trunk: endpoint.trunk,
                muted: endpoint.muted,
                deaf: endpoint.deaf,
                held: endpoint.held,
                gain_centibel: endpoint.gain_centibel,
                active: endpoint.active,
                talking: endpoint.talking,
                mixed: endpoint.mixed,
                stats: endpoint.stats,
            })
            .collect();
        ConferenceState {
            conference: name.to_owned(),
            owner: entry.owner.clone(),
            worker: self.workers.get(entry.home()).map_or(0, |table| table.id),
            locked: entry.locked,
            talkers: entry.talkers,
            endpoints,
        }
    }

    /// Counters of every worker, in order.
    pub(crate) fn worker_stats(&self) -> impl Iterator<Item = StatsSnapshot> {
        self.workers
            .iter()
            .map(|table| table.link.shared().stats().read())
    }

    /// Numbers for metrics.
    pub(crate) fn figures(&mut self, now: Timestamp) -> Figures {
        let mut figures = Figures {
            conferences: self.conferences.len(),
            events: self.events.head(),
            readers: self.events.readers(),
            admission: self.admission_figures(),
            ..Figures::default()
        };
        for endpoint in self
            .conferences
            .values()
            .flat_map(|entry| entry.endpoints.values())
        {
            let state = match (endpoint.held, &endpoint.media, endpoint.active) {
                (true, _, _) => 3,
                (false, None, _) => 0,
                (false, Some(_), false) => 1,
                (false, Some(_), true) => 2,
            };
            figures.endpoints[state] += 1;
            let suites = SrtpSuite::ALL.into_iter().zip(&mut figures.srtp);
            for (_, count) in suites.filter(|(suite, _)| endpoint.srtp == Some(*suite)) {
                *count += 1;
            }
        }
        for table in &mut self.workers {
            figures.ports[0] += table.ports.free(now);
            figures.ports[1] += table.ports.resting();
            let stats = table.link.shared().stats().read();
            figures
                .workers
                .push((table.id, table.alive, stats, table.histograms.clone()));
        }
        figures
    }
}
