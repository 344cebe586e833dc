//! What the workers tell: outcomes of requests, events, boxes to drop.

use std::sync::Arc;

use mixer_control::event::EventBody;
use mixer_control::reply::{Problem, ProblemKind};
use mixer_control::state::EndpointStats;
use mixer_engine::command::{EndpointIndex, EndpointSnapshot, Outcome, PlayId, Refusal, Retired};
use mixer_engine::event::{Event, EventKind};
use mixer_engine::time::{Slot, Timestamp};

use super::entries::{Action, EndpointEntry, Outstanding, Place, Presence, SNAPSHOT_PAGE};
use super::{Directory, Link};
use crate::control::answers::Reply;

impl<L: Link, W> Directory<L, W> {
    pub(super) fn outcome(&mut self, now: Timestamp, worker: usize, id: u64, slot: Slot, outcome: Outcome) {
        let Some(table) = self.workers.get_mut(worker) else {
            return;
        };
        table.tick = slot.0;
        let Some(out) = self.outstanding.remove(&id) else {
            tracing::error!(worker, request = id, "an outcome nobody asked for");
            return;
        };
        if let Some(Retired::Snapshot(buffer)) = outcome.retired {
            self.snapshot(worker, &buffer);
            if let Some(table) = self.workers.get_mut(worker) {
                table.snapshot = Some(buffer);
            }
            return;
        }
        match (&out.action, outcome.result) {
            (Action::AddConference, result) => self.conference_added(worker, slot, out, result),
            (Action::RemoveConference, result) => self.conference_removed(worker, slot, &out, result),
            (Action::AddEndpoint, result) => self.endpoint_added(now, id, slot, out, result),
            (Action::RemoveEndpoint(at), result) => {
                let at = *at;
                self.endpoint_removed(now, worker, at, slot, out, result);
            }
            (_, Ok(())) => {
                self.changed(&out);
                self.finish_done(&out.commands, worker, slot);
            }
            (_, Err(refusal)) => {
                if let Action::Play(play) = out.action {
                    self.take_play(&out.conference, &out.endpoint, play);
                }
                self.finish_refused(&out.commands, refusal);
            }
        }
    }

    pub(super) fn finish_done(&mut self, commands: &[String], worker: usize, slot: Slot) {
        for command in commands {
            let reply = Reply::Done(self.done(command, worker, slot.0));
            self.finish(command, Ok(reply));
        }
    }

    fn finish_refused(&mut self, commands: &[String], refusal: Refusal) {
        for command in commands {
            self.finish(command, Err(problem(refusal)));
        }
    }

    fn conference_added(&mut self, worker: usize, slot: Slot, out: Outstanding, result: Result<(), Refusal>) {
        match result {
            Ok(()) => {
                if let Some(entry) = self.conferences.get_mut(&out.conference) {
                    entry.created_tick = slot.0;
                    if matches!(entry.presence, Presence::Adding(_)) {
                        entry.presence = Presence::Present;
                    }
                    tracing::info!(conference = %out.conference, worker, "conference created");
                }
                self.finish_done(&out.commands, worker, slot);
            }
            Err(refusal) => {
                // A bug, or the worker failed at once; what hangs on it is refused in turn.
                tracing::error!(conference = %out.conference, worker, %refusal, "conference refused");
                self.end(&out.conference, None);
                self.finish_refused(&out.commands, refusal);
            }
        }
    }

    fn conference_removed(
        &mut self,
        worker: usize,
        slot: Slot,
        out: &Outstanding,
        result: Result<(), Refusal>,
    ) {
        if result == Err(Refusal::NotEmpty) {
            // An endpoint was added behind our back: try again.
            tracing::error!(conference = %out.conference, "conference not empty when removed");
            if let Some(part) = self.part_mut(&out.conference, worker) {
                part.removing = false;
            }
            self.ending.push(Arc::clone(&out.conference));
            return;
        }
        let Some(entry) = self.conferences.get_mut(&out.conference) else {
            return;
        };
        let place = entry.parts.iter().position(|part| part.worker == worker);
        let part = place.map(|place| entry.parts.remove(place));
        let is_gone = entry.parts.is_empty();
        if let Some(part) = part {
            self.free_part(&part);
        }
        if is_gone {
            let entry = self.conferences.remove(&out.conference);
            tracing::info!(conference = %out.conference, "conference removed");
            self.conference_gone(entry, worker, slot);
        }
    }

    fn endpoint_added(
        &mut self,
        now: Timestamp,
        id: u64,
        slot: Slot,
        out: Outstanding,
        result: Result<(), Refusal>,
    ) {
        match result {
            Ok(()) => {
                let Some(entry) = self.endpoint_mut(&out.conference, &out.endpoint) else {
                    // Its conference failed meanwhile.
                    self.finish_refused(&out.commands, Refusal::NotFound);
                    return;
                };
                entry.created_tick = slot.0;
                if entry.presence == Presence::Adding(id) {
                    entry.presence = Presence::Present;
                }
                let port = entry.port;
                tracing::info!(conference = %out.conference, endpoint = %out.endpoint, port, "endpoint created");
                for command in &out.commands {
                    let holder = self.conferences.get(&out.conference);
                    let Some(entry) = holder.and_then(|holder| holder.endpoints.get(&out.endpoint)) else {
                        continue;
                    };
                    let reply = self.created(command, entry);
                    self.finish(command, Ok(reply));
                }
            }
            Err(refusal) => {
                tracing::warn!(conference = %out.conference, endpoint = %out.endpoint, %refusal, "endpoint refused");
                let adding = self
                    .endpoint_mut(&out.conference, &out.endpoint)
                    .is_some_and(|entry| entry.presence == Presence::Adding(id));
                if adding {
                    self.drop_endpoint(now, &out.conference, &out.endpoint);
                }
                self.finish_refused(&out.commands, refusal);
            }
        }
    }

    fn endpoint_removed(
        &mut self,
        now: Timestamp,
        worker: usize,
        at: EndpointIndex,
        slot: Slot,
        out: Outstanding,
        result: Result<(), Refusal>,
    ) {
        if let Err(refusal) = result
            && refusal != Refusal::NotFound
        {
            tracing::error!(conference = %out.conference, endpoint = %out.endpoint, %refusal, "removal refused");
        }
        let same = self
            .endpoint_mut(&out.conference, &out.endpoint)
            .is_some_and(|entry| entry.index == at);
        if same {
            self.drop_endpoint(now, &out.conference, &out.endpoint);
            tracing::info!(conference = %out.conference, endpoint = %out.endpoint, "endpoint removed");
        }
        self.finish_done(&out.commands, worker, slot);
    }

    /// Forgets an endpoint whose index is free in the engine.
    fn drop_endpoint(&mut self, now: Timestamp, conference: &str, endpoint: &str) {
        let Some(holder) = self.conferences.get_mut(conference) else {
            return;
        };
        let Some(entry) = holder.endpoints.remove(endpoint) else {
            return;
        };
        self.forget_endpoint(now, &entry);
        self.free_index(entry.worker, entry.index);
    }

    fn changed(&mut self, out: &Outstanding) {
        let Some(entry) = self.endpoint_mut(&out.conference, &out.endpoint) else {
            return;
        };
        match &out.action {
            Action::SetMedia(media, suite) => {
                if entry.media.as_ref() != Some(&**media) {
                    entry.active = false;
                }
                entry.media = Some((**media).clone());
                entry.srtp = *suite;
            }
            Action::Mute(on) => entry.muted = *on,
            Action::Deaf(on) => entry.deaf = *on,
            Action::Hold(on) => entry.held = *on,
            Action::Gain(centibel) => entry.gain_centibel = *centibel,
            Action::AddConference
            | Action::Part
            | Action::RemoveConference
            | Action::AddEndpoint
            | Action::RemoveEndpoint(_)
            | Action::Play(_)
            | Action::Stop
            | Action::Snapshot => {}
        }
    }

    /// Removes a play from its target and gives its name.
    fn take_play(&mut self, conference: &str, endpoint: &str, play: PlayId) -> Option<String> {
        let holder = self.conferences.get_mut(conference)?;
        let plays = if endpoint.is_empty() {
            &mut holder.plays
        } else {
            &mut holder.endpoints.get_mut(endpoint)?.plays
        };
        let place = plays.iter().position(|(id, _)| *id == play)?;
        Some(plays.swap_remove(place).1)
    }

    pub(super) fn event(&mut self, now: Timestamp, worker: usize, event: Event) {
        let Some(table) = self.workers.get(worker) else {
            return;
        };
        let conference = table
            .conference_at
            .get(event.conference.0 as usize)
            .cloned()
            .flatten();
        let Some(conference) = conference else { return };
        let endpoint = match event.endpoint {
            None => Arc::from(""),
            Some(at) => match table.endpoint_at.get(at.0 as usize) {
                Some(Place::Used(_, name) | Place::Returned(_, name)) => Arc::clone(name),
                Some(Place::Free | Place::Lost) | None => return,
            },
        };
        let body = match event.kind {
            EventKind::Active => EventBody::Active,
            EventKind::Talk { talking } => EventBody::Talk { talking },
            EventKind::Digit { digit, duration_ms } => EventBody::Digit { digit, duration_ms },
            EventKind::MediaTimeout => EventBody::MediaTimeout,
            EventKind::SourceLearnt { source } => EventBody::SourceLearnt { source },
            EventKind::Played { play, complete } => {
                let Some(play) = self.take_play(&conference, &endpoint, play) else {
                    return;
                };
                EventBody::Played { play, complete }
            }
            EventKind::ConferenceFailed => {
                tracing::error!(conference = %conference, worker, "conference failed and was dropped");
                self.part_failed(now, &conference, worker);
                return;
            }
        };
        if let Some(entry) = self.endpoint_mut(&conference, &endpoint) {
            match &body {
                EventBody::Active => entry.active = true,
                EventBody::Talk { talking } => entry.talking = *talking,
                EventBody::MediaTimeout => {
                    tracing::info!(conference = %conference, endpoint = %endpoint, "media timeout");
                }
                EventBody::Digit { .. }
                | EventBody::Played { .. }
                | EventBody::SourceLearnt { .. }
                | EventBody::ConferenceFailed
                | EventBody::Gap => {}
            }
        }
        self.tell(&conference, &endpoint, body);
    }

    /// Endpoint indexes of a failed conference stay taken until their boxes have come back.
    pub(super) fn lose_index(&mut self, worker: usize, endpoint: &EndpointEntry) {
        let Some(table) = self.workers.get_mut(worker) else {
            return;
        };
        let Some(place) = table.endpoint_at.get_mut(endpoint.index.0 as usize) else {
            return;
        };
        if matches!(place, Place::Returned(..)) {
            self.free_index(worker, endpoint.index);
        } else {
            *place = Place::Lost;
        }
    }

    pub(super) fn retired(&mut self, now: Timestamp, worker: usize, at: EndpointIndex, retired: Retired) {
        let _ = now;
        if !matches!(retired, Retired::Endpoint(_)) {
            return;
        }
        let Some(table) = self.workers.get_mut(worker) else {
            return;
        };
        let Some(place) = table.endpoint_at.get_mut(at.0 as usize) else {
            return;
        };
        match place {
            Place::Lost => self.free_index(worker, at),
            Place::Used(conference, endpoint) => {
                *place = Place::Returned(Arc::clone(conference), Arc::clone(endpoint));
            }
            Place::Free | Place::Returned(..) => {}
        }
    }

    fn snapshot(&mut self, worker: usize, buffer: &[EndpointSnapshot]) {
        for one in buffer {
            let Some(table) = self.workers.get(worker) else {
                return;
            };
            let Some(Place::Used(conference, endpoint)) = table.endpoint_at.get(one.at.0 as usize) else {
                continue;
            };
            let (conference, endpoint) = (Arc::clone(conference), Arc::clone(endpoint));
            if let Some(entry) = self.endpoint_mut(&conference, &endpoint) {
                entry.active = one.active;
                entry.talking = one.talking;
                entry.mixed = one.mixed;
                entry.stats = stats(one);
            }
        }
        let Some(table) = self.workers.get_mut(worker) else {
            return;
        };
        let looked_at = table.snapshot_from.take();
        table.snapshot_from = looked_at.and_then(|from| table.page_from(from + SNAPSHOT_PAGE));
        if table.snapshot_from.is_none() && std::mem::take(&mut table.gap_follows) {
            self.tell("", "", EventBody::Gap);
        }
    }
}

fn stats(one: &EndpointSnapshot) -> EndpointStats {
    EndpointStats {
        received: one.received,
        sent: one.sent,
        concealed: one.concealed,
        late: one.late,
        duplicate: one.duplicate,
        lost: one.lost,
        bad_source: one.bad_source,
        playout_delay_us: one.playout_delay_us,
    }
}

fn problem(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::NotFound => Problem::new(ProblemKind::NotFound, "no such conference or endpoint"),
        Refusal::TooManyPlays => Problem::new(
            ProblemKind::NoHeadroom,
            "play: too many at once here; stop one first",
        )
        .retry_after(1),
        Refusal::Occupied | Refusal::NotEmpty | Refusal::OutOfRange => {
            Problem::new(ProblemKind::Internal, format!("the worker refused: {refusal}"))
        }
    }
}
