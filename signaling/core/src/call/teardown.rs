//! The one way out: whatever ends a call ends here.

use super::{Call, CallId, Leg, Phase};
use crate::Core;
use crate::conference::{ConferenceId, EndpointId, LeaveCause};
use crate::effect::{Count, LogLevel, StoreChange};
use crate::record::DialogRecord;
use crate::sip::dialog::flow_text;
use crate::sip::reply::{Reason, Reply};
use crate::sip::transactions::TransactionId;
use crate::sip::wire::{HeaderName, Method, Request};

use super::answer::SetupFailure;

impl Core {
    /// Ends a call: out of the roster, the mixer and the store. `reason` makes us hang up with a BYE
    /// that says so; none when the peer knows already.
    pub(crate) fn end_call(&mut self, id: CallId, cause: LeaveCause, reason: Option<&'static str>) {
        let Some(call) = self.calls.get(id) else { return };
        if matches!(call.phase, Phase::Leaving { .. }) {
            return;
        }
        self.clear_guard(id);
        let Some(call) = self.calls.get_mut(id) else {
            return;
        };
        let (endpoint, conference, leg) = (call.endpoint.clone(), call.conference.clone(), call.leg);
        let (saved, call_id) = (std::mem::take(&mut call.saved), call.dialog.call_id.clone());
        let change = call.change.take();
        call.leg = Leg::None;
        if let Some(change) = change {
            self.calls.unbind(change.transaction);
            let (reply, tag) = (self.refusal(&Reason::Cancelled), self.tag_of(id));
            self.answer(change.transaction, &reply, &tag);
        }
        if saved {
            self.out.store(StoreChange::DeleteDialog {
                endpoint: endpoint.to_string(),
            });
        }
        self.out.log(
            LogLevel::Info,
            "left",
            &call_id,
            conference.as_str(),
            cause.as_str(),
        );
        self.leave(&endpoint, &conference, cause, matches!(leg, Leg::Stands(_)));
        match reason {
            Some(reason) => self.hang_up(id, reason),
            None => {
                self.drop_unacked(id);
                self.calls.remove(id);
            }
        }
    }

    /// Takes an endpoint out of the roster and off the mixer; the last one takes its conference along.
    pub(crate) fn leave(
        &mut self,
        endpoint: &EndpointId,
        conference: &ConferenceId,
        cause: LeaveCause,
        stands: bool,
    ) {
        let Some(outcome) = self.conferences.leave(endpoint.as_str(), cause, self.wall) else {
            return;
        };
        if outcome.was_connected {
            self.out.count(Count::Left {
                cause: cause.as_str(),
            });
        }
        if outcome.conference_ended {
            self.unhost(conference);
        } else if stands {
            self.remove_endpoint(conference.as_str(), endpoint.as_str());
        }
    }

    /// Hangs up, now or as soon as the peer has confirmed the dialog: no BYE before the ACK
    /// (RFC 3261 15).
    fn hang_up(&mut self, id: CallId, reason: &'static str) {
        let Some(call) = self.calls.get_mut(id) else {
            return;
        };
        let waits = call.unacked.is_some();
        call.phase = Phase::Leaving { bye: None, reason };
        if !waits {
            self.send_bye(id);
        }
    }

    /// Sends the BYE of a leaving call.
    pub(crate) fn send_bye(&mut self, id: CallId) {
        let Some(call) = self.calls.get_mut(id) else {
            return;
        };
        let Phase::Leaving { bye: None, reason } = call.phase else {
            return;
        };
        let extra = [(HeaderName::Reason, reason.to_owned())];
        let direct = call.direct;
        let built = call
            .dialog
            .request(&Method::Bye, "", direct, &mut self.out.random, &extra);
        let sent =
            built.and_then(|(request, flow)| self.transactions.send_request(&mut self.out, request, &flow));
        match (sent, self.calls.get_mut(id)) {
            (Some(transaction), Some(call)) => {
                call.phase = Phase::Leaving {
                    bye: Some(transaction),
                    reason,
                };
                self.calls.bind(transaction, id);
            }
            _ => {
                self.calls.remove(id);
            }
        }
    }

    /// A BYE inside a dialog.
    pub(crate) fn on_bye(&mut self, id: CallId, transaction: TransactionId) {
        let tag = self.tag_of(id);
        self.answer(transaction, &Reply::new(200), &tag);
        let leaving = self
            .calls
            .get(id)
            .is_some_and(|call| matches!(call.phase, Phase::Leaving { .. }));
        if leaving {
            // Both hung up at once: ours gets its own answer, nothing else is to come.
            self.drop_unacked(id);
            self.calls.remove(id);
        } else {
            self.end_call(id, LeaveCause::Bye, None);
        }
    }

    /// Our BYE was answered, or nobody is there.
    pub(crate) fn on_bye_done(&mut self, id: CallId) {
        self.drop_unacked(id);
        self.calls.remove(id);
    }

    /// CANCEL (RFC 3261 9.2).
    pub(crate) fn on_cancel(&mut self, transaction: TransactionId, request: &Request) {
        let Some(invite) = self.transactions.cancelled(request) else {
            self.refuse(transaction, &Reason::NoDialog);
            return;
        };
        let call = self.calls.by_transaction(invite);
        let tag = match call {
            Some(id) => self.tag_of(id),
            None => self.out.random.token().into(),
        };
        self.answer(transaction, &Reply::new(200), &tag);
        let Some(id) = call.filter(|_| !self.transactions.is_answered(invite)) else {
            return;
        };
        match self.calls.get_mut(id).map(|call| &call.phase) {
            Some(Phase::Setup { .. }) => self.give_up_setup(id, SetupFailure::Reason(Reason::Cancelled)),
            Some(Phase::Established) => self.cancel_change(id, invite),
            Some(Phase::Leaving { .. }) | None => {}
        }
    }

    /// A cancelled re-INVITE: the mixer is told to go back to what was.
    fn cancel_change(&mut self, id: CallId, invite: TransactionId) {
        let Some(call) = self.calls.get_mut(id) else {
            return;
        };
        let Some(_change) = call.change.take_if(|change| change.transaction == invite) else {
            return;
        };
        self.calls.unbind(invite);
        let (reply, tag) = (self.refusal(&Reason::Cancelled), self.tag_of(id));
        self.answer(invite, &reply, &tag);
        self.restore_media(id);
    }

    /// Writes the dialog into the store.
    pub(crate) fn save(&mut self, id: CallId) {
        let Some(call) = self.calls.get_mut(id) else {
            return;
        };
        if !matches!(call.phase, Phase::Established) {
            return;
        }
        call.saved = true;
        let (muted, joined) = self
            .conferences
            .endpoint(call.endpoint.as_str())
            .map_or((false, self.wall), |endpoint| (endpoint.muted, endpoint.joined));
        let record = record(call, muted, joined);
        self.out.store(StoreChange::SaveDialog(record));
    }
}

fn record(call: &Call, muted: bool, joined: crate::time::WallTime) -> DialogRecord {
    let dialog = &call.dialog;
    DialogRecord {
        endpoint: call.endpoint.to_string(),
        conference: call.conference.to_string(),
        call_id: dialog.call_id.to_string(),
        local_tag: dialog.local_tag.to_string(),
        remote_tag: dialog.remote_tag.to_string(),
        local_uri: dialog.local_uri.to_string(),
        remote_uri: dialog.remote_uri.to_string(),
        remote_target: dialog.remote_target.to_string(),
        route_set: dialog.routes.join(", "),
        local_cseq: dialog.local_cseq,
        remote_cseq: dialog.remote_cseq,
        flow: flow_text(&dialog.flow),
        local_sdp: call.local_sdp.to_string(),
        remote_sdp: call.remote_sdp.to_string(),
        muted,
        joined,
    }
}

/// Reason header of a BYE (RFC 3326).
pub(crate) const REASON_MIXER_LOST: &str = "SIP;cause=503;text=\"Mixer lost\"";
pub(crate) const REASON_MEDIA_TIMEOUT: &str = "SIP;cause=408;text=\"Media timeout\"";
pub(crate) const REASON_KICKED: &str = "Q.850;cause=16;text=\"Removed by operator\"";
pub(crate) const REASON_ENDED: &str = "Q.850;cause=16;text=\"Conference ended\"";
pub(crate) const REASON_RESTART: &str = "SIP;cause=503;text=\"Restarted\"";
