//! Conferences on mixers: made when the first caller comes, removed with the last, and nothing forgotten
//! there when an answer is late, lost or negative.

mod loss;
mod replies;

use std::collections::BTreeMap;

use crate::Core;
use crate::call::CallId;
use crate::conference::{Conference, ConferenceId};
use crate::effect::{MixerRequest, StoreChange};
use crate::input::{AdminId, MixerRequestId};
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
            talkers: self.config.talkers,
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

    /// Removes a conference that nobody here has. Callers of a new life of it wait until it is gone: a
    /// removal that is repeated later must not meet the new one.
    pub(crate) fn discard_conference(&mut self, mixer: &str, conference: &ConferenceId) {
        if self.hosts.table.contains_key(conference) {
            return;
        }
        let (state, mixer) = (HostState::Removing(None), mixer.to_owned());
        let host = Host {
            state,
            mixer,
            saved: false,
            waiting: Vec::new(),
        };
        self.hosts.table.insert(conference.clone(), host);
        self.remove_conference(conference);
    }

    /// Asks again for a removal that was refused, unless the conference has a new life.
    fn remove_again(&mut self, conference: &ConferenceId) {
        let state = self.hosts.table.get(conference).map(|host| host.state);
        if state == Some(HostState::Removing(None)) {
            self.remove_conference(conference);
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

    /// Writes a conference into the store.
    pub(crate) fn save_conference(&mut self, conference: &str) {
        let Some(record) = self.conferences.get(conference).map(Conference::record) else {
            return;
        };
        if let Some(host) = self.hosts.table.get_mut(conference) {
            host.saved = true;
            self.out.store(StoreChange::SaveConference(record));
        }
    }
}
