//! What the directory does by itself: paced removals and requests for statistics.

use std::sync::Arc;
use std::time::Duration;

use mixer_control::reply::Problem;
use mixer_engine::command::{Command, EndpointIndex};
use mixer_engine::packet::FlowId;
use mixer_engine::time::Timestamp;

use super::entries::{Action, Presence, SNAPSHOT_PAGE};
use super::{Directory, Link};
use crate::control::rings::IoChange;
use crate::limits;

/// Removals sent within a millisecond at most, over all ending conferences.
const REMOVALS_PER_MS: usize = 64;
/// Places of a request ring that paced removals and snapshots leave to others.
const RING_RESERVE: usize = limits::REQUEST_RING / 4;
/// Time between two snapshots of a worker.
const SNAPSHOT_PERIOD: Duration = Duration::from_millis(900);

impl<L: Link, W> Directory<L, W> {
    pub(super) fn pace_removals(&mut self, now: Timestamp) {
        if self.ending.is_empty() {
            return;
        }
        if now.since(self.removals.0) >= Duration::from_millis(1) {
            self.removals = (now, REMOVALS_PER_MS);
        }
        let mut ending = std::mem::take(&mut self.ending);
        ending.retain(|conference| self.remove_some(conference));
        self.ending.append(&mut ending);
    }

    /// Sends removals of an ending conference; false once nothing is left to send.
    fn remove_some(&mut self, conference: &Arc<str>) -> bool {
        let Some(entry) = self.conferences.get(conference) else {
            return false;
        };
        let present: Vec<(Arc<str>, usize)> = entry
            .endpoints
            .iter()
            .filter(|(_, endpoint)| !matches!(endpoint.presence, Presence::Removing(_)))
            .map(|(name, endpoint)| (Arc::clone(name), endpoint.worker))
            .take(self.removals.1)
            .collect();
        let empty = entry.endpoints.is_empty();
        for (endpoint, worker) in present {
            if self.room(worker) <= RING_RESERVE || self.removals.1 == 0 {
                return true;
            }
            if self.send_removal(conference, &endpoint, Vec::new()).is_err() {
                return true;
            }
            self.removals.1 -= 1;
        }
        if !empty || self.removals.1 == 0 {
            return true;
        }
        !self.remove_parts(conference)
    }

    pub(super) fn send_removal(
        &mut self,
        conference: &Arc<str>,
        endpoint: &Arc<str>,
        commands: Vec<String>,
    ) -> Result<(), Problem> {
        let Some(entry) = self.conferences.get(conference) else {
            return Ok(());
        };
        let Some((worker, at)) = entry
            .endpoints
            .get(endpoint)
            .map(|entry| (entry.worker, entry.index))
        else {
            return Ok(());
        };
        let command = Command::RemoveEndpoint { at };
        let io = IoChange::Close { flow: FlowId(at.0) };
        let id = self.send(
            worker,
            (conference, endpoint),
            Action::RemoveEndpoint(at),
            command,
            io,
            commands,
        )?;
        if let Some(entry) = self.endpoint_mut(conference, endpoint) {
            entry.presence = Presence::Removing(id);
        }
        Ok(())
    }

    pub(super) fn ask_for_snapshots(&mut self, now: Timestamp) {
        for worker in 0..self.workers.len() {
            let Some(table) = self.workers.get_mut(worker) else {
                return;
            };
            let due = table.snapshot_due <= now && (table.endpoints > 0 || table.lost_events);
            if !(due || table.snapshot_from.is_some())
                || !table.alive
                || table.link.end().room() <= RING_RESERVE
            {
                continue;
            }
            let Some(buffer) = table.snapshot.take() else {
                continue;
            };
            let from = table.snapshot_from.unwrap_or_else(|| {
                table.snapshot_due = now.after(SNAPSHOT_PERIOD);
                table.gap_follows |= std::mem::take(&mut table.lost_events);
                table.page_from(0).unwrap_or(0)
            });
            table.snapshot_from = Some(from);
            let nobody: Arc<str> = Arc::from("");
            let command = Command::Snapshot {
                from: EndpointIndex(from),
                buffer,
            };
            let sent = self.send(
                worker,
                (&nobody, &nobody),
                Action::Snapshot,
                command,
                IoChange::None,
                Vec::new(),
            );
            if sent.is_err() {
                // The buffer went with the request.
                if let Some(table) = self.workers.get_mut(worker) {
                    table.snapshot = Some(Box::new(Vec::with_capacity(SNAPSHOT_PAGE as usize)));
                }
            }
        }
    }
}
