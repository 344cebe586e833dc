//! Operators' requests.

use crate::Core;
use crate::call::Leg;
use crate::call::teardown::{REASON_ENDED, REASON_KICKED};
use crate::conference::{Asker, ConferenceId, EndpointId, LeaveCause, Refused};
use crate::effect::{AdminReply, Effect, LogLevel, MixerRequest, StatusView};
use crate::hosting::Asked;
use crate::input::{AdminId, AdminRequest};

impl Core {
    /// Takes an operator's request; it is answered at once or when the mixer has answered.
    pub(crate) fn on_admin(&mut self, id: AdminId, request: AdminRequest) {
        let reply = match request {
            AdminRequest::Status => Ok(Some(AdminReply::Status(self.status()))),
            AdminRequest::Conferences => Ok(Some(AdminReply::Conferences(self.conferences.views()))),
            AdminRequest::Show { conference } => match self.conferences.get(&conference) {
                Some(conference) => Ok(Some(AdminReply::Conference(conference.view()))),
                None => Err(Refused::NotFound),
            },
            AdminRequest::Mute {
                conference,
                participant,
                on,
            } => self.admin_mute(id, &conference, &participant, on),
            AdminRequest::Kick {
                conference,
                participant,
            } => self.admin_kick(&conference, &participant),
            AdminRequest::Lock { conference, on } => self.admin_lock(id, &conference, on),
            AdminRequest::End { conference } => self.admin_end(&conference),
        };
        match reply {
            Ok(None) => {}
            Ok(Some(reply)) => self.out.push(Effect::AdminReply { id, reply }),
            Err(refused) => {
                let detail = refused.to_string();
                let reply = match refused {
                    Refused::NotFound | Refused::NoSuchParticipant | Refused::BadName => {
                        AdminReply::NotFound { detail }
                    }
                    Refused::Locked
                    | Refused::Full
                    | Refused::Ending
                    | Refused::TooManyConferences
                    | Refused::NotAllowed => AdminReply::Failed { detail },
                };
                self.out.push(Effect::AdminReply { id, reply });
            }
        }
    }

    /// Numbers of everything.
    #[must_use]
    pub fn status(&self) -> StatusView {
        StatusView {
            conferences: self.conferences.len(),
            participants: self.conferences.endpoints_len(),
            transactions: self.transactions.len(),
            dialogs: self.calls.len(),
            mixers: self.hosts.mixers(),
        }
    }

    fn meant(&self, conference: &str, participant: &str) -> Result<Vec<EndpointId>, Refused> {
        let conference = self.conferences.get(conference).ok_or(Refused::NotFound)?;
        let found = conference.roster().find(participant);
        if found.is_empty() {
            Err(Refused::NoSuchParticipant)
        } else {
            Ok(found)
        }
    }

    fn admin_mute(
        &mut self,
        id: AdminId,
        conference: &str,
        participant: &str,
        on: bool,
    ) -> Result<Option<AdminReply>, Refused> {
        let mut waits = false;
        for endpoint in self.meant(conference, participant)? {
            if !self
                .conferences
                .mute(&Asker::Operator, endpoint.as_str(), on, self.wall)?
            {
                continue;
            }
            let what = if on { "muted" } else { "unmuted" };
            self.out
                .log(LogLevel::Info, what, "", conference, endpoint.as_str());
            let Some(call) = self.calls.by_endpoint(endpoint.as_str()) else {
                continue;
            };
            self.save_if_saved(call);
            // Without an endpoint on the mixer yet, the mixer is told when there is one.
            if self
                .calls
                .get(call)
                .is_some_and(|call| matches!(call.leg, Leg::Stands(_)))
            {
                // One answer for the operator: that of the first.
                let asked = if waits { Asked::Nothing } else { Asked::Admin(id) };
                waits = true;
                self.mute_on_mixer(conference, endpoint.to_string(), on, asked);
            }
        }
        Ok((!waits).then_some(AdminReply::Done))
    }

    /// Tells the mixer.
    pub(crate) fn mute_on_mixer(&mut self, conference: &str, endpoint: String, on: bool, asked: Asked) {
        let request = MixerRequest::Mute {
            conference: conference.to_owned(),
            endpoint,
            on,
        };
        self.ask(conference, request, asked);
    }

    fn admin_kick(&mut self, conference: &str, participant: &str) -> Result<Option<AdminReply>, Refused> {
        for endpoint in self.meant(conference, participant)? {
            self.conferences
                .kick(&Asker::Operator, endpoint.as_str(), self.wall)?;
            self.hang_up_endpoint(endpoint.as_str(), LeaveCause::Kicked, REASON_KICKED);
        }
        Ok(Some(AdminReply::Done))
    }

    fn admin_lock(&mut self, id: AdminId, conference: &str, on: bool) -> Result<Option<AdminReply>, Refused> {
        if !self
            .conferences
            .lock(&Asker::Operator, conference, on, self.wall)?
        {
            return Ok(Some(AdminReply::Done));
        }
        self.out.log(
            LogLevel::Info,
            if on { "locked" } else { "unlocked" },
            "",
            conference,
            "",
        );
        if !self.hosts.is_ready(conference) {
            // Saved and passed on as soon as the mixer has it.
            return Ok(Some(AdminReply::Done));
        }
        self.save_conference(conference);
        let request = MixerRequest::Lock {
            conference: conference.to_owned(),
            on,
        };
        self.ask(conference, request, Asked::Admin(id));
        Ok(None)
    }

    fn admin_end(&mut self, conference: &str) -> Result<Option<AdminReply>, Refused> {
        let outcome = self.conferences.end(&Asker::Operator, conference, self.wall)?;
        for endpoint in &outcome.endpoints {
            self.hang_up_endpoint(endpoint.as_str(), LeaveCause::Ended, REASON_ENDED);
        }
        if outcome.conference_ended
            && let Some(id) = ConferenceId::new(conference)
        {
            self.unhost(&id);
        }
        Ok(Some(AdminReply::Done))
    }
}
