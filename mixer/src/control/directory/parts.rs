//! Conferences over several workers: a worker that is full sends newcomers to another one, which gets a
//! part of the conference for them.

use std::sync::Arc;

use mixer_control::reply::Problem;
use mixer_engine::command::{Command, ConferenceIndex};
use mixer_engine::engine::share::{Parts, RoomId, Share, ShareSetup};
use mixer_engine::engine::{Conference, ConferenceSetup};
use mixer_engine::time::{Slot, Timestamp};

use super::entries::{Action, ConferenceEntry, Part};
use super::start::{internal, no_conference, no_headroom};
use super::{Directory, Link, busy};
use crate::control::rings::IoChange;
use crate::placement;

impl<L: Link, W> Directory<L, W> {
    /// Takes a place for a conference on a worker.
    pub(super) fn place_part(&mut self, name: &Arc<str>, worker: usize) -> Result<Part, Problem> {
        let table = self
            .workers
            .get_mut(worker)
            .ok_or_else(|| internal("no such worker"))?;
        let index = table
            .free_conferences
            .pop()
            .ok_or_else(|| no_headroom("the worker is full"))?;
        table.conferences += 1;
        if let Some(place) = table.conference_at.get_mut(index as usize) {
            *place = Some(Arc::clone(name));
        }
        Ok(Part {
            worker,
            index: ConferenceIndex(index),
            removing: false,
        })
    }

    /// Frees the place of a conference on a worker.
    pub(super) fn free_part(&mut self, part: &Part) {
        let Some(table) = self.workers.get_mut(part.worker) else {
            return;
        };
        table.conferences = table.conferences.saturating_sub(1);
        if let Some(place) = table.conference_at.get_mut(part.index.0 as usize) {
            *place = None;
        }
        table.free_conferences.push(part.index.0);
    }

    /// Where a new endpoint of a conference goes: to the first worker it has that takes one, else to a
    /// worker that is new to it. When there is none, to the first, which says why not. A trunk goes to the first
    /// in any case: what the other parts tell it must hold no trunk (decision 0018).
    pub(super) fn part_for_newcomer(
        &mut self,
        now: Timestamp,
        name: &Arc<str>,
        trunk: bool,
    ) -> Result<Part, Problem> {
        let entry = self.conferences.get(name).ok_or_else(no_conference)?;
        let parts = entry.parts.clone();
        let home = *parts.first().ok_or_else(no_conference)?;
        let table = self.workers.get(home.worker);
        if trunk && table.is_none_or(|table| table.free_endpoints.is_empty()) {
            let detail = "trunk: the worker on which the conference began is full";
            return Err(no_headroom(detail));
        }
        if trunk || self.endpoints >= self.setup.endpoints_max {
            return Ok(home);
        }
        if let Some(part) = parts.iter().find(|part| self.takes_endpoint(now, part.worker)) {
            return Ok(*part);
        }
        let mut others = self.loads();
        others.retain(|load| {
            let worker = usize::from(load.worker.0);
            parts.iter().all(|part| part.worker != worker)
        });
        while let Some(worker) = placement::choose_worker(&others) {
            if self.takes_endpoint(now, usize::from(worker.0)) {
                return self.open_part(name, usize::from(worker.0));
            }
            others.retain(|load| load.worker != worker);
        }
        Ok(home)
    }

    /// Whether a worker has a place, a port and headroom.
    fn takes_endpoint(&mut self, now: Timestamp, worker: usize) -> bool {
        self.workers
            .get_mut(worker)
            .is_some_and(|table| table.alive && !table.free_endpoints.is_empty() && table.ports.free(now) > 0)
    }

    /// Gives a conference a part on a worker, and tells all its parts of each other.
    fn open_part(&mut self, name: &Arc<str>, worker: usize) -> Result<Part, Problem> {
        let entry = self.conferences.get(name).ok_or_else(no_conference)?;
        let (phase, talkers) = (entry.phase, entry.talkers);
        let mut parts = entry.parts.clone();
        let fresh = RoomId(self.next_request);
        let room = entry.room.unwrap_or(fresh);
        // The new worker gets the conference, its part and the newcomer.
        if self.room(worker) < 3 || parts.iter().any(|part| self.room(part.worker) == 0) {
            return Err(busy());
        }
        let new = self.place_part(name, worker)?;
        let conference = Conference::new(ConferenceSetup { phase, talkers });
        let at = new.index;
        if let Err(problem) = self.tell_part(name, new, Command::AddConference { at, conference }) {
            self.free_part(&new);
            return Err(problem);
        }
        parts.push(new);
        if let Some(entry) = self.conferences.get_mut(name) {
            (entry.parts, entry.room) = (parts.clone(), Some(room));
        }
        let number = |part: &Part| u8::try_from(part.worker).unwrap_or(u8::MAX);
        let all = parts.iter().map(number).fold(Parts::NONE, Parts::with);
        // The new one first: it has nobody yet who would miss the others.
        for part in parts.iter().rev() {
            let share = Share::new(ShareSetup {
                room,
                own: number(part),
                others: all,
            });
            self.tell_part(
                name,
                *part,
                Command::Share {
                    at: part.index,
                    share,
                },
            )?;
        }
        tracing::info!(conference = %name, worker, parts = parts.len(), "conference has a part on another worker");
        Ok(new)
    }

    /// Sends a command of which nobody waits to hear.
    pub(super) fn tell_part(&mut self, name: &Arc<str>, part: Part, command: Command) -> Result<(), Problem> {
        let nobody: Arc<str> = Arc::from("");
        let target = (name, &nobody);
        self.send(
            part.worker,
            target,
            Action::Part,
            command,
            IoChange::None,
            Vec::new(),
        )?;
        Ok(())
    }

    /// Sends the removal of every part of a conference without endpoints; false when some must be sent
    /// later.
    pub(super) fn remove_parts(&mut self, name: &Arc<str>) -> bool {
        let parts = self.conferences.get(name).map(|entry| entry.parts.clone());
        let nobody: Arc<str> = Arc::from("");
        for part in parts.unwrap_or_default() {
            if part.removing {
                continue;
            }
            let sent = self.send(
                part.worker,
                (name, &nobody),
                Action::RemoveConference,
                Command::RemoveConference { at: part.index },
                IoChange::None,
                Vec::new(),
            );
            if sent.is_err() {
                return false;
            }
            if let Some(removed) = self.part_mut(name, part.worker) {
                removed.removing = true;
            }
        }
        true
    }

    pub(super) fn part_mut(&mut self, name: &str, worker: usize) -> Option<&mut Part> {
        let parts = &mut self.conferences.get_mut(name)?.parts;
        parts.iter_mut().find(|part| part.worker == worker)
    }

    /// A worker has dropped its part of a conference, with everybody in it. The conference is lost: what
    /// other workers have of it is removed.
    pub(super) fn part_failed(&mut self, now: Timestamp, name: &Arc<str>, worker: usize) {
        let Some(entry) = self.conferences.get_mut(name) else {
            return;
        };
        let all = std::mem::take(&mut entry.endpoints);
        let (lost, kept) = all
            .into_iter()
            .partition(|(_, endpoint)| endpoint.worker == worker);
        entry.endpoints = kept;
        let lost: std::collections::BTreeMap<_, _> = lost;
        let part = entry.parts.iter().position(|part| part.worker == worker);
        let part = part.map(|place| entry.parts.remove(place));
        let is_gone = entry.parts.is_empty();
        for endpoint in lost.into_values() {
            self.forget_endpoint(now, &endpoint);
            self.lose_index(worker, &endpoint);
        }
        if let Some(part) = part {
            self.free_part(&part);
        }
        self.tell(name, "", mixer_control::event::EventBody::ConferenceFailed);
        if is_gone {
            let entry = self.conferences.remove(name);
            self.conference_gone(entry, worker, Slot(self.tick_of(worker)));
        } else {
            self.end(name, None);
        }
    }

    /// Begins to remove a conference, endpoint by endpoint; `command` ends with it.
    pub(super) fn end(&mut self, name: &Arc<str>, command: Option<&str>) {
        let Some(entry) = self.conferences.get_mut(name) else {
            return;
        };
        let first = entry.ending.is_none();
        let commands = entry.ending.get_or_insert_default();
        commands.extend(command.map(str::to_owned));
        if first {
            self.ending.push(Arc::clone(name));
        }
    }

    /// Ends what waited for the end of a conference.
    pub(super) fn conference_gone(&mut self, entry: Option<ConferenceEntry>, worker: usize, slot: Slot) {
        let commands = entry.and_then(|entry| entry.ending).unwrap_or_default();
        self.finish_done(&commands, worker, slot);
    }
}
