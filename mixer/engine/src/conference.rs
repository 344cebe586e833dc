//! Media side of a conference: who is in it, when it ticks, what is played to everybody.

use serde::{Deserialize, Serialize};

use crate::endpoint::Endpoint;
use crate::engine::roster::Members;
use crate::engine::slices::Sending;
use crate::mix::active_talkers::TALKERS_MAX;
use crate::prompt::playlist::Plays;
use crate::time::Slot;

/// What control decides about a new conference.
#[derive(Debug, Clone, Copy)]
pub struct ConferenceSetup {
    /// Slot within a tick at which it is mixed, 0 to 19.
    pub phase: u8,
    /// Talkers mixed at most, 1 to 32, the loudest ones; absent: all.
    pub talkers: Option<u8>,
}

/// Media side of a conference.
#[derive(Debug, Serialize, Deserialize)]
pub struct Conference {
    phase: usize,
    talkers: Option<u8>,
    /// Its own. Listed beside it in the state, with the trunks.
    #[serde(skip, default = "Members::nobody")]
    pub(crate) members: Members,
    /// Ways to other mixers.
    #[serde(skip, default = "Members::nobody")]
    pub(crate) trunks: Members,
    pub(crate) plays: Plays<CONFERENCE_PLAYS>,
    /// Somebody's packet waits for the half tick.
    pub(crate) deferred: bool,
    /// How far the tick has been sent, if not to all.
    #[serde(skip)]
    pub(crate) sending: Option<Sending>,
    /// What the engine has lent it for that.
    #[serde(skip)]
    pub(crate) work_space: Option<u16>,
}

impl Conference {
    /// Builds an empty conference (allocates: control only).
    #[must_use]
    pub fn new(setup: ConferenceSetup) -> Box<Self> {
        Box::new(Self {
            phase: usize::from(setup.phase) % PHASES,
            talkers: setup.talkers.map(|most| most.clamp(1, TALKERS_MAX)),
            members: Members::NONE,
            trunks: Members::NONE,
            plays: Plays::new(),
            deferred: false,
            sending: None,
            work_space: None,
        })
    }

    /// Whether nobody is in it, not even a trunk.
    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty() && self.trunks.is_empty()
    }

    /// The list in which an endpoint is.
    pub(crate) fn list_of(&mut self, endpoint: &Endpoint) -> &mut Members {
        if endpoint.is_trunk() {
            &mut self.trunks
        } else {
            &mut self.members
        }
    }

    /// Talkers mixed at most.
    pub(crate) fn talkers(&self) -> Option<u8> {
        self.talkers
    }

    /// Slot within a tick at which it is mixed.
    pub(crate) fn phase(&self) -> usize {
        self.phase
    }
}

/// Conferences are spread over so many slots.
#[expect(clippy::cast_possible_truncation, reason = "20")]
pub(crate) const PHASES: usize = Slot::PER_TICK as usize;

/// Plays of one conference at once.
const CONFERENCE_PLAYS: usize = 4;
