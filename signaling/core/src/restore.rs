//! After a restart: the store says which calls there were, the mixers which endpoints there are; what
//! both know goes on, what only one knows is removed there.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::Core;
use crate::call::teardown::REASON_RESTART;
use crate::call::{Call, Leg, Phase};
use crate::conference::{ConferenceId, EndpointId};
use crate::effect::{LogLevel, MixerRequest, StoreChange};
use crate::hosting::Asked;
use crate::record::{ConferenceRecord, DialogRecord};
use crate::sdp::{Connection, Description, LocalSession};
use crate::sip::dialog::{Dialog, flow_of_text};
use crate::sip::wire;

impl Core {
    /// Takes over what a former run left.
    pub(crate) fn restore(
        &mut self,
        conferences: &[ConferenceRecord],
        dialogs: Vec<DialogRecord>,
        endpoints: &[(String, String, String)],
        mixer_conferences: &[(String, String)],
    ) {
        let there: BTreeSet<&str> = endpoints
            .iter()
            .map(|(_, _, endpoint)| endpoint.as_str())
            .collect();
        let hosted: BTreeSet<&str> = mixer_conferences
            .iter()
            .map(|(_, conference)| conference.as_str())
            .collect();
        for record in conferences {
            self.restore_conference(record, hosted.contains(record.conference.as_str()));
        }
        for record in dialogs {
            let stands = there.contains(record.endpoint.as_str()) && self.hosts.is_ready(&record.conference);
            self.restore_dialog(record, stands);
        }
        self.remove_unowned(endpoints, mixer_conferences);
        self.end_empty();
        let (calls, rooms) = (self.conferences.endpoints_len(), self.conferences.len());
        let detail = format!("{calls} endpoints in {rooms} conferences");
        self.out.log(LogLevel::Info, "restored", "", "", &detail);
    }

    fn restore_conference(&mut self, record: &ConferenceRecord, hosted: bool) {
        let id = ConferenceId::new(&record.conference).filter(|_| hosted);
        let Some(id) = id.filter(|_| self.conferences.restore_conference(record)) else {
            self.out.store(StoreChange::DeleteConference {
                conference: record.conference.clone(),
            });
            return;
        };
        self.hosts.adopt(id, &record.mixer);
        if record.locked {
            let request = MixerRequest::Lock {
                conference: record.conference.clone(),
                on: true,
            };
            self.ask(&record.conference, request, Asked::Nothing);
        }
    }

    /// Goes on with a call, or hangs it up when its endpoint is gone.
    fn restore_dialog(&mut self, record: DialogRecord, stands: bool) {
        let endpoint = record.endpoint.clone();
        let Some(mut call) = self.call_of_record(&record) else {
            self.out.store(StoreChange::DeleteDialog { endpoint });
            self.out.log(
                LogLevel::Warn,
                "dialog record unusable",
                &record.call_id,
                &record.conference,
                "",
            );
            return;
        };
        let local = if stands {
            local_rtp(&record.local_sdp)
        } else {
            None
        };
        let agreed = LocalSession::restored_media(&record.local_sdp, &record.remote_sdp);
        let name = "";
        let taken = local.is_some()
            && self
                .conferences
                .restore_endpoint(&record, name, agreed.as_ref(), self.wall);
        if let Some(local) = local.filter(|_| taken) {
            call.phase = Phase::Established;
            call.leg = Leg::Stands(local);
            call.saved = true;
            if self.calls.insert(call).is_none() {
                self.conferences
                    .leave(&endpoint, crate::conference::LeaveCause::Restart, self.wall);
            }
            return;
        }
        self.out.store(StoreChange::DeleteDialog { endpoint });
        self.out.log(
            LogLevel::Warn,
            "call lost in restart",
            &record.call_id,
            &record.conference,
            "hanging up",
        );
        if let Some(id) = self.calls.insert(call) {
            self.send_bye(id);
        }
    }

    /// The call of a record, about to hang up.
    fn call_of_record(&self, record: &DialogRecord) -> Option<Call> {
        let flow = flow_of_text(&record.flow)?;
        let session = LocalSession::restore(&record.local_sdp, &record.remote_sdp).ok()?;
        let routes = wire::split_list(record.route_set.as_bytes());
        let dialog = Dialog {
            call_id: record.call_id.as_str().into(),
            local_tag: record.local_tag.as_str().into(),
            remote_tag: record.remote_tag.as_str().into(),
            local_uri: record.local_uri.as_str().into(),
            remote_uri: record.remote_uri.as_str().into(),
            remote_target: record.remote_target.as_str().into(),
            routes: routes.into_iter().map(|route| wire::text(route).into()).collect(),
            local_cseq: record.local_cseq,
            remote_cseq: record.remote_cseq,
            flow,
        };
        Some(Call {
            dialog,
            conference: ConferenceId::new(&record.conference)?,
            endpoint: EndpointId::known(&record.endpoint),
            phase: Phase::Leaving {
                bye: None,
                reason: REASON_RESTART,
            },
            leg: Leg::None,
            session,
            local_sdp: record.local_sdp.as_str().into(),
            remote_sdp: record.remote_sdp.as_str().into(),
            unacked: None,
            change: None,
            saved: false,
            // Unknown; talking, a digit or new RTP will tell.
            active_seen: false,
            direct: self.config.learns_source(flow.remote.ip()),
        })
    }

    /// Removes from the mixers what no record owns.
    fn remove_unowned(
        &mut self,
        endpoints: &[(String, String, String)],
        mixer_conferences: &[(String, String)],
    ) {
        for (mixer, conference) in mixer_conferences {
            if self.hosts.is_ready(conference) {
                continue;
            }
            match ConferenceId::new(conference) {
                Some(id) => self.discard_conference(mixer, &id),
                // No caller can ask for such a name.
                None => {
                    let conference = conference.clone();
                    self.remove(mixer.clone(), MixerRequest::RemoveConference { conference });
                }
            }
        }
        for (mixer, conference, endpoint) in endpoints {
            if self.hosts.is_ready(conference) && self.conferences.endpoint(endpoint).is_none() {
                let (conference, endpoint) = (conference.clone(), endpoint.clone());
                self.remove(
                    mixer.clone(),
                    MixerRequest::RemoveEndpoint { conference, endpoint },
                );
            }
        }
    }

    fn end_empty(&mut self) {
        let empty: Vec<ConferenceId> = self
            .conferences
            .iter()
            .filter(|conference| conference.roster().is_empty())
            .map(|conference| conference.id().clone())
            .collect();
        for conference in empty {
            let asker = crate::conference::Asker::System(crate::conference::SystemReason::Restart);
            if self
                .conferences
                .end(&asker, conference.as_str(), self.wall)
                .is_ok()
            {
                self.unhost(&conference);
            }
        }
    }
}

/// Where our last session description says that we receive RTP.
fn local_rtp(local_sdp: &str) -> Option<SocketAddr> {
    let description = Description::parse(local_sdp.as_bytes()).ok()?;
    let line = description.lines.iter().find(|line| line.port != 0)?;
    match line.connection {
        Some(Connection::Address(address)) => Some(SocketAddr::new(address, line.port)),
        Some(Connection::Nowhere | Connection::Name(_) | Connection::OtherNetwork(_)) | None => None,
    }
}
