//! What remains of a conference that panicked: nothing, and nobody else is touched.

use crate::command::{ConferenceIndex, EndpointIndex, Retired};
use crate::counters::DropReason;
use crate::endpoint::Endpoint;
use crate::engine::Engine;
use crate::event::{Event, EventKind};

impl Engine {
    /// Retires the conference whose endpoint panicked over a packet to `local_port`.
    pub(super) fn fail_receiver(&mut self, local_port: u16) {
        self.counters.drop_packet(DropReason::Malformed);
        let endpoint = self.ports.find(local_port).and_then(|at| self.endpoints.get(at));
        if let Some(conference) = endpoint.map(Endpoint::conference) {
            self.fail(conference);
        }
    }

    /// Retires a conference that panicked, and everybody in it.
    pub(super) fn fail(&mut self, at: ConferenceIndex) {
        let Some(mut conference) = self.conferences.get_mut(at.0 as usize).and_then(Option::take) else {
            return;
        };
        self.calendar.remove(conference.phase(), at);
        self.slices.end(at, &mut conference);
        self.retire_share(at);
        self.counters.conferences_failed += 1;
        let event = Event {
            conference: at,
            endpoint: None,
            kind: EventKind::ConferenceFailed,
        };
        self.events.push(event, &mut self.counters);
        let (members, trunks) = (conference.members, conference.trunks);
        self.retired
            .push(EndpointIndex(u32::MAX), Retired::Conference(conference));
        for member in self.roster.iter(&members).chain(self.roster.iter(&trunks)) {
            if let Some(endpoint) = self.endpoints.get(member) {
                self.ports.release(endpoint.local_port());
                self.own_ssrcs.remove(at, endpoint.ssrc());
            }
            if let Some(endpoint) = self.endpoints.take(member) {
                self.retired.push(member, Retired::Endpoint(endpoint));
            }
        }
    }
}
