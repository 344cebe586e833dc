//! Conferences on mixers: made when the first caller comes, removed with the last, and nothing forgotten
//! there when an answer is late, lost or negative.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::Core;
use crate::call::answer::SetupFailure;
use crate::call::reinvite::refused_by_mixer;
use crate::call::teardown::REASON_MIXER_LOST;
use crate::call::{CallId, Leg, Phase};
use crate::conference::{Asker, ConferenceId, LeaveCause, SystemReason};
use crate::effect::{AdminReply, Effect, LogLevel, MixerRequest, StoreChange};
use crate::input::{AdminId, MixerEvent, MixerEventKind, MixerRefusal, MixerReply, MixerRequestId};
use crate::outbox::Due;
use crate::sip::reply::Reason;
use crate::sip::timers::TimerHandle;

/// What a request to a mixer was for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Make a conference.
    CreateConference(ConferenceId),
    /// Remove a conference that we know.
    RemoveConference(ConferenceId),
    /// Make an endpoint for a caller, who may be gone when the answer comes.
    CreateEndpoint {
        call: CallId,
        conference: String,
        endpoint: String,
    },
    /// Change an endpoint.
    SetMedia { call: CallId, purpose: Purpose },
    /// Remove something; repeated until it is gone.
    Remove(MixerRequest),
    /// An operator waits.
    Admin(AdminId),
    /// Nobody waits.
    Nothing,
}

/// Why an endpoint is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A re-INVITE or UPDATE waits.
    Change,
    /// The peer answered our offer.
    Answer,
    /// Back to what was.
    Restore,
}

#[derive(Debug)]
struct Host {
    state: HostState,
    mixer: String,
    /// The store has the conference.
    saved: bool,
    waiting: Vec<CallId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HostState {
    Creating(MixerRequestId),
    Ready,
    /// None: to be asked again.
    Removing(Option<MixerRequestId>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct MixerState {
    up: bool,
    instance: Option<String>,
}

/// Conferences on mixers, and requests to them.
#[derive(Debug, Default)]
pub(crate) struct Hosts {
    table: BTreeMap<ConferenceId, Host>,
    asked: BTreeMap<MixerRequestId, (String, Asked)>,
    mixers: BTreeMap<String, MixerState>,
    /// Removals to be repeated: (mixer, what).
    debts: Vec<(String, Asked)>,
    retry: Option<TimerHandle>,
}

impl Hosts {
    /// Whether a new conference would find a mixer. Nothing known means yes: the driver then has one
    /// mixer and will say so when it fails.
    pub(crate) fn can_host(&self) -> bool {
        self.mixers.is_empty() || self.mixers.values().any(|mixer| mixer.up)
    }

    fn choose(&self) -> String {
        let mut up = self.mixers.iter().filter(|(_, mixer)| mixer.up);
        up.next().map(|(url, _)| url.clone()).unwrap_or_default()
    }

    /// Mixers by URL and whether they answer.
    pub(crate) fn mixers(&self) -> Vec<(String, bool)> {
        self.mixers
            .iter()
            .map(|(url, mixer)| (url.clone(), mixer.up))
            .collect()
    }

    /// Takes over a conference that a mixer and the store have.
    pub(crate) fn adopt(&mut self, conference: ConferenceId, mixer: &str) {
        let host = Host {
            state: HostState::Ready,
            mixer: mixer.to_owned(),
            saved: true,
            waiting: Vec::new(),
        };
        self.table.insert(conference, host);
    }

    /// Whether a conference is ready on its mixer.
    pub(crate) fn is_ready(&self, conference: &str) -> bool {
        self.table
            .get(conference)
            .is_some_and(|host| host.state == HostState::Ready)
    }

    /// Requests that wait for an answer, and removals that wait for a better time.
    pub(crate) fn outstanding(&self) -> usize {
        self.asked.len() + self.debts.len()
    }
}

impl Core {
    /// Asks the mixer of a conference.
    pub(crate) fn ask(&mut self, conference: &str, request: MixerRequest, asked: Asked) -> MixerRequestId {
        let mixer = self
            .hosts
            .table
            .get(conference)
            .map(|host| host.mixer.clone())
            .unwrap_or_default();
        self.ask_mixer(mixer, request, asked)
    }

    pub(crate) fn ask_mixer(&mut self, mixer: String, request: MixerRequest, asked: Asked) -> MixerRequestId {
        let id = self.out.mixer(&mixer, request);
        self.hosts.asked.insert(id, (mixer, asked));
        id
    }

    /// Gets the conference of a new call onto a mixer, then the call's endpoint.
    pub(crate) fn host(&mut self, call: CallId) {
        let Some(conference) = self.calls.get(call).map(|call| call.conference.clone()) else {
            return;
        };
        match self.hosts.table.get_mut(&conference) {
            Some(Host {
                state: HostState::Ready,
                ..
            }) => self.create_endpoint(call),
            Some(host) => host.waiting.push(call),
            None => {
                let mixer = self.hosts.choose();
                self.create_conference(conference, mixer, vec![call]);
            }
        }
    }

    fn create_conference(&mut self, conference: ConferenceId, mixer: String, waiting: Vec<CallId>) {
        let request = MixerRequest::CreateConference {
            conference: conference.to_string(),
        };
        let id = self.ask_mixer(
            mixer.clone(),
            request,
            Asked::CreateConference(conference.clone()),
        );
        let host = Host {
            state: HostState::Creating(id),
            mixer,
            saved: false,
            waiting,
        };
        self.hosts.table.insert(conference, host);
    }

    /// A conference is over: its mixer and the store forget it.
    pub(crate) fn unhost(&mut self, conference: &ConferenceId) {
        let Some(host) = self.hosts.table.get_mut(conference) else {
            return;
        };
        if std::mem::take(&mut host.saved) {
            self.out.store(StoreChange::DeleteConference {
                conference: conference.to_string(),
            });
        }
        // One that is still being made is removed when the answer comes.
        if host.state == HostState::Ready {
            self.remove_conference(conference);
        }
    }

    fn remove_conference(&mut self, conference: &ConferenceId) {
        let request = MixerRequest::RemoveConference {
            conference: conference.to_string(),
        };
        let id = self.ask(
            conference.as_str(),
            request,
            Asked::RemoveConference(conference.clone()),
        );
        if let Some(host) = self.hosts.table.get_mut(conference) {
            host.state = HostState::Removing(Some(id));
        }
    }

    /// Removes an endpoint from its mixer.
    pub(crate) fn remove_endpoint(&mut self, conference: &str, endpoint: &str) {
        // Without a host the conference is lost, and its endpoints with it.
        let Some(host) = self.hosts.table.get(conference) else {
            return;
        };
        let (conference, endpoint) = (conference.to_owned(), endpoint.to_owned());
        self.remove(
            host.mixer.clone(),
            MixerRequest::RemoveEndpoint { conference, endpoint },
        );
    }

    /// Removes something from a mixer, as often as it takes.
    pub(crate) fn remove(&mut self, mixer: String, request: MixerRequest) {
        self.ask_mixer(mixer, request.clone(), Asked::Remove(request));
    }

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
        let removal = MixerRequest::RemoveConference {
            conference: conference.to_string(),
        };
        let Some(host) = host else {
            // Made for a former life of the conference, which ended with the loss of its mixer.
            if !matches!(reply, MixerReply::Refused { .. }) {
                self.remove(mixer.to_owned(), removal);
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
                LogLevel::Warn,
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
                self.remove(mixer.to_owned(), removal);
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
            .is_some_and(crate::conference::Conference::locked)
        {
            let request = MixerRequest::Lock {
                conference: conference.to_string(),
                on: true,
            };
            self.ask(conference.as_str(), request, Asked::Nothing);
        }
    }

    /// Writes a conference into the store.
    pub(crate) fn save_conference(&mut self, conference: &str) {
        let Some(record) = self
            .conferences
            .get(conference)
            .map(crate::conference::Conference::record)
        else {
            return;
        };
        if let Some(host) = self.hosts.table.get_mut(conference) {
            host.saved = true;
            self.out.store(StoreChange::SaveConference(record));
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

    fn is_in_setup(&self, call: CallId) -> bool {
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
                self.out
                    .log(LogLevel::Warn, "mixer refused endpoint", "", &conference, detail);
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
                Asked::RemoveConference(conference) => self.remove_conference(&conference),
                Asked::CreateConference(_)
                | Asked::CreateEndpoint { .. }
                | Asked::SetMedia { .. }
                | Asked::Admin(_)
                | Asked::Nothing => {}
            }
        }
    }

    /// A mixer answers, does not answer, or was restarted.
    pub(crate) fn on_mixer_health(&mut self, url: &str, instance: Option<String>) {
        let known = self
            .hosts
            .mixers
            .get(url)
            .and_then(|mixer| mixer.instance.clone());
        let up = instance.is_some();
        let restarted = known.is_some() && up && known != instance;
        let state = MixerState {
            up,
            instance: instance.or(known),
        };
        if self.hosts.mixers.insert(url.to_owned(), state.clone()) != Some(state) {
            let level = if up { LogLevel::Info } else { LogLevel::Warn };
            self.out.log(
                level,
                if up {
                    "mixer answers"
                } else {
                    "mixer does not answer"
                },
                "",
                "",
                url,
            );
        }
        if restarted {
            self.lose_mixer(url);
        }
        if up {
            self.retry_removals();
        }
    }

    fn lose_mixer(&mut self, url: &str) {
        self.hosts.debts.retain(|(mixer, _)| mixer != url);
        let lost: Vec<ConferenceId> = self
            .hosts
            .table
            .iter()
            .filter(|(_, host)| host.mixer == url || host.mixer.is_empty())
            .map(|(conference, _)| conference.clone())
            .collect();
        for conference in lost {
            self.lose_conference(conference.as_str());
        }
    }

    /// A conference is gone from its mixer: everybody in it is hung up.
    pub(crate) fn lose_conference(&mut self, conference: &str) {
        let Some((id, host)) = self.hosts.table.remove_entry(conference) else {
            return;
        };
        if host.saved {
            self.out.store(StoreChange::DeleteConference {
                conference: conference.to_owned(),
            });
        }
        self.out.log(
            LogLevel::Warn,
            "conference lost with its mixer",
            "",
            conference,
            &host.mixer,
        );
        self.end_conference(&id, SystemReason::Mixer, LeaveCause::MixerLost, REASON_MIXER_LOST);
    }

    fn end_conference(
        &mut self,
        conference: &ConferenceId,
        why: SystemReason,
        cause: LeaveCause,
        reason: &'static str,
    ) {
        let Ok(outcome) = self
            .conferences
            .end(&Asker::System(why), conference.as_str(), self.wall)
        else {
            return;
        };
        for endpoint in outcome.endpoints {
            self.hang_up_endpoint(endpoint.as_str(), cause, reason);
        }
    }

    /// Ends the call of an endpoint, whatever its phase.
    pub(crate) fn hang_up_endpoint(&mut self, endpoint: &str, cause: LeaveCause, reason: &'static str) {
        let Some(id) = self.calls.by_endpoint(endpoint) else {
            return;
        };
        if self.is_in_setup(id) {
            let refused = match cause {
                LeaveCause::MixerLost => Reason::Overloaded(None),
                _ => Reason::Ending,
            };
            self.give_up_setup(id, SetupFailure::Reason(refused));
        } else {
            self.end_call(id, cause, Some(reason));
        }
    }

    /// Something happened on a mixer.
    pub(crate) fn on_mixer_event(&mut self, event: &MixerEvent) {
        let endpoint = event.endpoint.as_str();
        match event.kind {
            MixerEventKind::Active => self.note_active(endpoint),
            MixerEventKind::Talk { talking } => {
                self.note_active(endpoint);
                self.conferences.talking(endpoint, talking, self.wall);
            }
            MixerEventKind::Digit { digit, duration_ms } => {
                self.note_active(endpoint);
                self.conferences.digit(endpoint, digit, duration_ms, self.wall);
            }
            MixerEventKind::MediaTimeout => {
                // Load testers' stock callers never send RTP: only a stream that was there can stop.
                let was_active = self.calls.by_endpoint(endpoint).and_then(|id| self.calls.get(id));
                if was_active.is_some_and(|call| call.active_seen) {
                    let reason = crate::call::teardown::REASON_MEDIA_TIMEOUT;
                    self.hang_up_endpoint(endpoint, LeaveCause::MediaTimeout, reason);
                }
            }
            MixerEventKind::ConferenceFailed => self.lose_conference(&event.conference),
        }
    }

    fn note_active(&mut self, endpoint: &str) {
        let call = self
            .calls
            .by_endpoint(endpoint)
            .and_then(|id| self.calls.get_mut(id));
        if let Some(call) = call {
            call.active_seen = true;
        }
    }
}

fn is_worth_a_retry(reason: MixerRefusal) -> bool {
    matches!(reason, MixerRefusal::Overloaded | MixerRefusal::Unreachable)
}

const RETRY_AFTER: Duration = Duration::from_secs(5);
