//! Answers of mixers, in whatever order and however late they come.

use std::time::Duration;

use super::{Asked, HostState};
use crate::Core;
use crate::call::answer::SetupFailure;
use crate::call::reinvite::refused_by_mixer;
use crate::call::{CallId, Leg, Phase};
use crate::conference::{Conference, ConferenceId};
use crate::effect::{AdminReply, Effect, LogLevel, MixerRequest};
use crate::input::{MixerRefusal, MixerReply, MixerRequestId};
use crate::outbox::Due;
use crate::sip::reply::Reason;

impl Core {
    /// A mixer answered.
    pub(crate) fn on_mixer_reply(&mut self, id: MixerRequestId, reply: &MixerReply) {
        let Some((mixer, asked)) = self.hosts.asked.remove(&id) else {
            return;
        };
        match asked {
            Asked::CreateConference(conference) => self.on_conference_created(id, &mixer, &conference, reply),
            Asked::RemoveConference(conference) => self.on_conference_removed(id, mixer, conference, reply),
            Asked::CreateEndpoint {
                call,
                conference,
                endpoint,
            } => {
                self.on_endpoint_created(call, mixer, conference, endpoint, reply);
            }
            Asked::SetMedia { call, purpose } => self.on_media_set(call, purpose, id, reply),
            Asked::Remove(request) => match reply {
                MixerReply::Refused { reason, detail, .. } => {
                    self.on_removal_refused(mixer, Asked::Remove(request), *reason, detail);
                }
                MixerReply::Done | MixerReply::EndpointCreated { .. } => {}
            },
            Asked::Admin(admin) => {
                let reply = match reply {
                    MixerReply::Refused { detail, .. } => AdminReply::Failed {
                        detail: detail.clone(),
                    },
                    MixerReply::Done | MixerReply::EndpointCreated { .. } => AdminReply::Done,
                };
                self.out.push(Effect::AdminReply { id: admin, reply });
            }
            Asked::Nothing => {}
        }
    }

    fn on_conference_created(
        &mut self,
        id: MixerRequestId,
        mixer: &str,
        conference: &ConferenceId,
        reply: &MixerReply,
    ) {
        let host = self
            .hosts
            .table
            .get_mut(conference)
            .filter(|host| host.state == HostState::Creating(id));
        let Some(host) = host else {
            // Made for a former life of the conference, which ended with the loss of its mixer.
            if !matches!(reply, MixerReply::Refused { .. }) {
                self.discard_conference(mixer, conference);
            }
            return;
        };
        let waiting = std::mem::take(&mut host.waiting);
        if let MixerReply::Refused {
            reason,
            detail,
            retry_after_s,
        } = reply
        {
            self.out.log(
                loudness(*reason),
                "mixer refused conference",
                "",
                conference.as_str(),
                detail,
            );
            self.hosts.table.remove(conference);
            for call in waiting {
                self.give_up_setup(
                    call,
                    SetupFailure::Reason(refused_by_mixer(*reason, *retry_after_s)),
                );
            }
            if *reason == MixerRefusal::Unreachable {
                // Whether it was made is unknown.
                self.discard_conference(mixer, conference);
            }
            return;
        }
        host.state = HostState::Ready;
        if !self.conferences.ready(conference.as_str(), mixer, self.wall) {
            self.remove_conference(conference);
            return;
        }
        self.save_conference(conference.as_str());
        self.out
            .log(LogLevel::Info, "conference ready", "", conference.as_str(), mixer);
        for call in waiting {
            self.create_endpoint(call);
        }
        self.pass_lock_on(conference);
    }

    fn pass_lock_on(&mut self, conference: &ConferenceId) {
        if self
            .conferences
            .get(conference.as_str())
            .is_some_and(Conference::locked)
        {
            let request = MixerRequest::Lock {
                conference: conference.to_string(),
                on: true,
            };
            self.ask(conference.as_str(), request, Asked::Nothing);
        }
    }

    fn on_conference_removed(
        &mut self,
        id: MixerRequestId,
        mixer: String,
        conference: ConferenceId,
        reply: &MixerReply,
    ) {
        let Some(host) = self.hosts.table.get_mut(&conference) else {
            return;
        };
        if host.state != HostState::Removing(Some(id)) {
            return;
        }
        let waiting = std::mem::take(&mut host.waiting);
        if let MixerReply::Refused {
            reason,
            retry_after_s,
            detail,
        } = reply
            && is_worth_a_retry(*reason)
        {
            host.state = HostState::Removing(None);
            self.on_removal_refused(mixer, Asked::RemoveConference(conference), *reason, detail);
            for call in waiting {
                self.give_up_setup(call, SetupFailure::Reason(Reason::Overloaded(*retry_after_s)));
            }
            return;
        }
        self.hosts.table.remove(&conference);
        // Callers of the next life of the same conference.
        let waiting: Vec<CallId> = waiting
            .into_iter()
            .filter(|call| self.is_in_setup(*call))
            .collect();
        if !waiting.is_empty() {
            let mixer = self.hosts.choose();
            self.create_conference(conference, mixer, waiting);
        }
    }

    pub(super) fn is_in_setup(&self, call: CallId) -> bool {
        self.calls
            .get(call)
            .is_some_and(|call| matches!(call.phase, Phase::Setup { .. }))
    }

    fn on_endpoint_created(
        &mut self,
        call: CallId,
        mixer: String,
        conference: String,
        endpoint: String,
        reply: &MixerReply,
    ) {
        let alive = self.is_in_setup(call);
        let removal = MixerRequest::RemoveEndpoint {
            conference: conference.clone(),
            endpoint,
        };
        match reply {
            MixerReply::EndpointCreated { local } if alive => self.establish(call, *local),
            MixerReply::EndpointCreated { .. } | MixerReply::Done => self.remove(mixer, removal),
            MixerReply::Refused {
                reason,
                detail,
                retry_after_s,
            } => {
                if let Some(call) = self.calls.get_mut(call) {
                    call.leg = Leg::None;
                }
                self.out.log(
                    loudness(*reason),
                    "mixer refused endpoint",
                    "",
                    &conference,
                    detail,
                );
                if *reason == MixerRefusal::Unreachable {
                    self.remove(mixer, removal);
                }
                if *reason == MixerRefusal::NotFound && self.hosts.is_ready(&conference) {
                    self.lose_conference(&conference);
                } else {
                    self.give_up_setup(
                        call,
                        SetupFailure::Reason(refused_by_mixer(*reason, *retry_after_s)),
                    );
                }
            }
        }
    }

    fn on_removal_refused(&mut self, mixer: String, what: Asked, reason: MixerRefusal, detail: &str) {
        if reason == MixerRefusal::NotFound {
            return;
        }
        self.out
            .log(LogLevel::Warn, "mixer refused removal", "", "", detail);
        if is_worth_a_retry(reason) {
            self.hosts.debts.push((mixer, what));
            if self.hosts.retry.is_none() {
                self.hosts.retry = Some(self.out.timer(RETRY_AFTER, Due::Retry));
            }
        }
    }

    /// Asks again for every removal that failed.
    pub(crate) fn retry_removals(&mut self) {
        if let Some(handle) = self.hosts.retry.take() {
            self.out.timers.clear(handle);
        }
        for (mixer, what) in std::mem::take(&mut self.hosts.debts) {
            match what {
                Asked::Remove(request) => self.remove(mixer, request),
                Asked::RemoveConference(conference) => self.remove_again(&conference),
                Asked::CreateConference(_)
                | Asked::CreateEndpoint { .. }
                | Asked::SetMedia { .. }
                | Asked::Admin(_)
                | Asked::Nothing => {}
            }
        }
    }
}

/// A full mixer refuses every caller: that is counted, and told once by its metrics, not by a warning a call.
fn loudness(reason: MixerRefusal) -> LogLevel {
    if reason == MixerRefusal::Overloaded {
        LogLevel::Debug
    } else {
        LogLevel::Warn
    }
}

fn is_worth_a_retry(reason: MixerRefusal) -> bool {
    matches!(reason, MixerRefusal::Overloaded | MixerRefusal::Unreachable)
}

const RETRY_AFTER: Duration = Duration::from_secs(5);
