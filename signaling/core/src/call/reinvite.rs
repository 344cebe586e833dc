//! Changes inside a dialog: re-INVITE and UPDATE (hold, resume, new addresses, session refresh).

use super::incoming::{Rejected, offered, with_learning};
use super::teardown::REASON_MIXER_LOST;
use super::{Call, CallId, Change, Leg, Phase};
use crate::Core;
use crate::conference::LeaveCause;
use crate::effect::{LogLevel, MixerRequest};
use crate::hosting::{Asked, Purpose};
use crate::input::{Flow, MixerRefusal, MixerReply, MixerRequestId};
use crate::sdp::Security;
use crate::sip::checks;
use crate::sip::reply::{Reason, Reply};
use crate::sip::transactions::TransactionId;
use crate::sip::wire::{self, Method, Request};

impl Core {
    /// A re-INVITE or UPDATE.
    pub(crate) fn on_change(
        &mut self,
        id: CallId,
        transaction: TransactionId,
        request: &Request,
        flow: &Flow,
    ) {
        if let Err(rejected) = self.change(id, transaction, request, flow) {
            self.reject_in_dialog(id, transaction, &rejected);
        }
    }

    fn change(
        &mut self,
        id: CallId,
        transaction: TransactionId,
        request: &Request,
        flow: &Flow,
    ) -> Result<(), Rejected> {
        let invite = request.method == Method::Invite;
        let has_offer = checks::session_body(request)?;
        let call = self.calls.get_mut(id).ok_or(Reason::NoDialog)?;
        may_change(call)?;
        let Leg::Stands(local) = call.leg else {
            return Err(Reason::Internal.into());
        };
        let plan = if has_offer {
            let mut security = Security {
                policy: self.config.srtp.of(flow.remote.ip()),
                keys: &mut self.keys,
                current: call.session.agreed(),
            };
            Some(offered(request.body(), call.session.occasion(), &mut security)?)
        } else {
            None
        };
        if let Some(plan) = &plan {
            plan.agreed.reachable_from(local.ip())?;
        }
        call.dialog.refresh(request, flow)?;
        let cseq = call.dialog.remote_cseq;
        let Some(plan) = plan else {
            self.refresh(id, transaction, cseq, invite);
            return Ok(());
        };
        self.note_keys(&plan.agreed, flow);
        let remote_sdp: Box<str> = wire::text(request.body()).into();
        let change = Change {
            transaction,
            cseq,
            invite,
            plan,
            remote_sdp,
            asked: None,
        };
        self.apply(id, change);
        Ok(())
    }

    /// Asks the mixer for a change, or finishes it at once when there is nothing to ask (M-68).
    fn apply(&mut self, id: CallId, change: Change) {
        let Some(call) = self.calls.get_mut(id) else {
            return;
        };
        let (call_id, conference) = (&call.dialog.call_id, call.conference.to_string());
        if let Some(number) = call.session.renumbered(&change.plan) {
            let detail = format!("payload type {number} has a new meaning");
            self.out.log(
                LogLevel::Warn,
                "payload type reused",
                call_id,
                &conference,
                &detail,
            );
        }
        let same = change.remote_sdp == call.remote_sdp;
        let description = change.plan.agreed.description.clone();
        let media = with_learning(description, call.direct, call.dialog.flow.remote.ip());
        let (transaction, invite) = (change.transaction, change.invite);
        let endpoint = call.endpoint.to_string();
        call.change = Some(Box::new(change));
        if same {
            self.finish_change(id);
            return;
        }
        self.calls.bind(transaction, id);
        if invite {
            self.answer(transaction, &Reply::new(100), "");
        }
        let asked = Asked::SetMedia {
            call: id,
            purpose: Purpose::Change,
        };
        let request = self.ask(
            &conference.clone(),
            MixerRequest::SetMedia {
                conference,
                endpoint,
                media,
            },
            asked,
        );
        if let Some(change) = self.calls.get_mut(id).and_then(|call| call.change.as_mut()) {
            change.asked = Some(request);
        }
    }

    /// Without a session description: a re-INVITE gets our offer (M-67), an UPDATE only refreshes.
    fn refresh(&mut self, id: CallId, transaction: TransactionId, cseq: u32, invite: bool) {
        let Some(call) = self.calls.get_mut(id) else {
            return;
        };
        if !invite {
            let (reply, tag) = (self.success_of(id), self.tag_of(id));
            self.answer(transaction, &reply, &tag);
            self.save(id);
            return;
        }
        let Leg::Stands(local) = call.leg else { return };
        let mut security = Security {
            policy: self.config.srtp.of(call.dialog.flow.remote.ip()),
            keys: &mut self.keys,
            current: None,
        };
        let sdp = call.session.offer(local, &mut security);
        call.local_sdp = sdp.as_str().into();
        self.send_2xx(id, transaction, cseq, sdp, true);
    }

    /// The mixer answered the change of an endpoint.
    pub(crate) fn on_media_set(
        &mut self,
        id: CallId,
        purpose: Purpose,
        request: MixerRequestId,
        reply: &MixerReply,
    ) {
        let Some(call) = self.calls.get_mut(id) else {
            return;
        };
        // The change may have been cancelled, and another one may be open meanwhile.
        let ours = call
            .change
            .as_ref()
            .is_some_and(|change| change.asked == Some(request));
        let MixerReply::Refused {
            reason,
            detail,
            retry_after_s,
        } = reply
        else {
            if ours {
                self.finish_change(id);
            }
            return;
        };
        let (call_id, conference) = (&call.dialog.call_id, call.conference.as_str());
        self.out
            .log(LogLevel::Warn, "mixer refused media", call_id, conference, detail);
        if let Some(change) = call.change.take_if(|_| ours) {
            self.calls.unbind(change.transaction);
            let rejected = refused_by_mixer(*reason, *retry_after_s).into();
            self.reject_in_dialog(id, change.transaction, &rejected);
        }
        if *reason == MixerRefusal::NotFound {
            self.end_call(id, LeaveCause::MixerLost, Some(REASON_MIXER_LOST));
        } else if purpose == Purpose::Answer {
            // The answer to our own offer cannot be used: nothing to fall back to.
            self.end_call(id, LeaveCause::BadAnswer, Some(REASON_MIXER_LOST));
        }
    }

    /// Tells the mixer again what both sides agreed on last.
    pub(crate) fn restore_media(&mut self, id: CallId) {
        let Some(call) = self.calls.get(id) else { return };
        let Some(agreed) = call.session.agreed() else {
            return;
        };
        let media = with_learning(
            agreed.description.clone(),
            call.direct,
            call.dialog.flow.remote.ip(),
        );
        let (conference, endpoint) = (call.conference.to_string(), call.endpoint.to_string());
        let asked = Asked::SetMedia {
            call: id,
            purpose: Purpose::Restore,
        };
        self.ask(
            &conference.clone(),
            MixerRequest::SetMedia {
                conference,
                endpoint,
                media,
            },
            asked,
        );
    }

    fn finish_change(&mut self, id: CallId) {
        let Some(call) = self.calls.get_mut(id) else {
            return;
        };
        let Some(change) = call.change.take() else { return };
        let Leg::Stands(local) = call.leg else { return };
        let sdp = call.session.answer(&change.plan, local);
        call.local_sdp = sdp.as_str().into();
        call.remote_sdp = change.remote_sdp;
        self.calls.unbind(change.transaction);
        if change.invite {
            self.send_2xx(id, change.transaction, change.cseq, sdp, false);
        } else {
            let (reply, tag) = (self.success_of(id).with_sdp(sdp), self.tag_of(id));
            self.answer(change.transaction, &reply, &tag);
        }
        self.note_media(id, &change.plan.agreed);
        self.save(id);
    }

    /// Refuses a request inside a dialog; the dialog stays as it was.
    pub(crate) fn reject_in_dialog(&mut self, id: CallId, transaction: TransactionId, rejected: &Rejected) {
        let reply = match rejected {
            Rejected::Reason(reason) => self.refusal(reason),
            Rejected::Session(refusal) => self.session_refusal(refusal),
        };
        let tag = self.tag_of(id);
        self.answer(transaction, &reply, &tag);
    }

    fn success_of(&self, id: CallId) -> Reply {
        self.calls
            .get(id)
            .map_or_else(|| Reply::new(200), |call| self.success(call))
    }
}

/// What a refusal of the mixer means for a waiting request.
pub(crate) fn refused_by_mixer(reason: MixerRefusal, retry_after_s: Option<u32>) -> Reason {
    match reason {
        MixerRefusal::Overloaded | MixerRefusal::Unreachable => Reason::Overloaded(retry_after_s),
        MixerRefusal::Locked => Reason::Locked,
        MixerRefusal::NotFound | MixerRefusal::Failed => Reason::Internal,
    }
}

/// M-74 and M-75: one offer at a time.
fn may_change(call: &Call) -> Result<(), Reason> {
    if !matches!(call.phase, Phase::Established) {
        return Err(Reason::NoDialog);
    }
    if call.change.is_some() {
        return Err(Reason::InProgress);
    }
    // Our own offer waits for its answer. An unacknowledged answer of ours is no obstacle: the peer
    // has it, or it could not go on (RFC 5407 3.1.4).
    if call.unacked.as_ref().is_some_and(|unacked| unacked.offer_open) {
        return Err(Reason::Glare);
    }
    Ok(())
}
