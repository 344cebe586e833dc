//! What mixers say of their own accord: health, restarts, events; and what is lost with them.

use super::MixerState;
use crate::Core;
use crate::call::answer::SetupFailure;
use crate::call::teardown::{REASON_MEDIA_TIMEOUT, REASON_MIXER_LOST};
use crate::conference::{Asker, ConferenceId, LeaveCause, SystemReason};
use crate::effect::{LogLevel, StoreChange};
use crate::input::{MixerEvent, MixerEventKind};
use crate::sip::reply::Reason;

impl Core {
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
            let mixer_lost = cause == LeaveCause::MixerLost;
            let refused = if mixer_lost {
                Reason::Overloaded(None)
            } else {
                Reason::Ending
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
                    self.hang_up_endpoint(endpoint, LeaveCause::MediaTimeout, REASON_MEDIA_TIMEOUT);
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
