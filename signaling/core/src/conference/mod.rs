//! The one object behind every protocol: conferences, their rosters, their event logs.
//!
//! A face (SIP, operator API, later C3P and the attendant) translates its protocol into the commands
//! of [`Conferences`] and reads events from [`Conference::log`]; it keeps nothing of its own about who
//! is in a conference. Commands are checked once, in [`policy`]. What they mean for the mixer and the
//! store follows from their outcome and is asked for by the caller.
//!
//! Invariants, as absences: no endpoint is in two conferences or in an ended one, no event number is
//! skipped, no state changes without an event, no effect is emitted here.

pub mod ids;
pub mod lifecycle;
pub mod log;
pub mod policy;
pub mod roster;
mod table;

use crate::effect::ConferenceView;
use crate::record::ConferenceRecord;
use crate::time::WallTime;

pub use ids::{ConferenceId, EndpointId};
pub use lifecycle::{State, Trigger};
pub use log::{EndCause, Event, EventLog, LeaveCause};
pub use policy::{Asker, Command, Refused, SystemReason};
pub use roster::{Endpoint, EndpointStatus, Media, Participant, Roster, Stage};
pub use table::Conferences;

#[cfg(test)]
mod tests;

/// What bounds the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most conferences at once.
    pub conferences_max: usize,
    /// Most endpoints in one conference.
    pub endpoints_max: usize,
    /// Any well-formed id is created by its first caller.
    pub auto_create: bool,
}

/// One conference.
#[derive(Debug, Clone)]
pub struct Conference {
    id: ConferenceId,
    epoch: u64,
    state: State,
    locked: bool,
    mixer: String,
    activated: WallTime,
    end_cause: Option<EndCause>,
    roster: Roster,
    log: EventLog,
}

/// Who wants to join what.
#[derive(Debug, Clone, Copy)]
pub struct Join<'a> {
    /// Conference id, the user part behind `conf-`.
    pub conference: &'a str,
    /// SIP address of the participant, without parameters of the dialog.
    pub address: &'a str,
    /// Display name, may be empty.
    pub display_name: &'a str,
    /// SIP Call-ID.
    pub call_id: &'a str,
}

/// An endpoint was admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinOutcome {
    /// The conference did not exist before: a mixer must be asked for it.
    pub created: bool,
    /// Its id.
    pub conference: ConferenceId,
    /// The new endpoint's id, also for the mixer.
    pub endpoint: EndpointId,
}

/// An endpoint is out of the roster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaveOutcome {
    /// Which conference it was in.
    pub conference: ConferenceId,
    /// It was connected (not only being set up).
    pub was_connected: bool,
    /// It was the last one: the conference is over, mixer and store must forget it.
    pub conference_ended: bool,
}

/// A conference is ending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndOutcome {
    /// Endpoints to hang up, in order of arrival; each ends in [`Conferences::leave`].
    pub endpoints: Vec<EndpointId>,
    /// Nobody was there: it is over already, mixer and store must forget it.
    pub conference_ended: bool,
}

impl Conference {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> &ConferenceId {
        &self.id
    }

    /// Rises with each activation of the same id.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Where it is in its life.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether it is locked.
    #[must_use]
    pub fn locked(&self) -> bool {
        self.locked
    }

    /// URL of its mixer, empty until one was chosen.
    #[must_use]
    pub fn mixer(&self) -> &str {
        &self.mixer
    }

    /// Who is in it.
    #[must_use]
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// What happened in it.
    #[must_use]
    pub fn log(&self) -> &EventLog {
        &self.log
    }

    /// What survives a restart.
    #[must_use]
    pub fn record(&self) -> ConferenceRecord {
        ConferenceRecord {
            conference: self.id.to_string(),
            epoch: self.epoch,
            locked: self.locked,
            mixer: self.mixer.clone(),
            activated: self.activated,
        }
    }

    /// Snapshot for operators; it contains everything up to [`EventLog::last`].
    #[must_use]
    pub fn view(&self) -> ConferenceView {
        ConferenceView {
            conference: self.id.to_string(),
            state: self.state.as_str(),
            locked: self.locked,
            mixer: self.mixer.clone(),
            activated: self.activated,
            participants: self.roster.views(),
        }
    }

    fn step(&mut self, trigger: Trigger) -> bool {
        let next = self.state.after(trigger);
        self.state = next.unwrap_or(self.state);
        next.is_some()
    }

    /// Takes everybody's step to the end; returns who is to be hung up.
    fn end(&mut self, cause: EndCause, now: WallTime) -> Vec<EndpointId> {
        if self.state != State::Ending {
            self.step(Trigger::End);
            self.end_cause = Some(cause);
            self.log.append(now, Event::Ending { cause });
        }
        let order: Vec<_> = self
            .roster
            .endpoints()
            .into_iter()
            .map(|endpoint| endpoint.id.clone())
            .collect();
        for id in &order {
            if let Some(event) = self
                .roster
                .endpoint_mut(id.as_str())
                .and_then(Endpoint::disconnect)
            {
                self.log.append(now, event);
            }
        }
        order
    }
}
