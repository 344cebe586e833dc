//! Our 2xx to an INVITE: sent when the mixer is ready, repeated until the ACK, completed by it.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use sipx_sip::Timers;

use super::incoming::with_learning;
use super::{Call, CallId, Leg, Phase, Unacked};
use crate::Core;
use crate::conference::LeaveCause;
use crate::effect::{Count, LogLevel, MixerRequest};
use crate::hosting::{Asked, Purpose};
use crate::input::{Flow, Transport};
use crate::outbox::Due;
use crate::sdp::{Agreed, Refusal, Security};
use crate::sip::checks;
use crate::sip::reply::{ALLOW, Reason, Reply, SUPPORTED};
use crate::sip::transactions::TransactionId;
use crate::sip::wire::{self, CSeq, HeaderName, Request};

impl Core {
    /// The mixer has the endpoint: answer the INVITE.
    pub(crate) fn establish(&mut self, id: CallId, local: SocketAddr) {
        let Some(call) = self.calls.get_mut(id) else {
            return;
        };
        call.leg = Leg::Stands(local);
        let Phase::Setup { invite, plan, .. } = &mut call.phase else {
            return;
        };
        let (invite, plan) = (*invite, plan.take());
        let unreachable = plan
            .as_ref()
            .and_then(|plan| plan.agreed.reachable_from(local.ip()).err());
        if let Some(refusal) = unreachable {
            self.give_up_setup(id, SetupFailure::Session(refusal));
            return;
        }
        let mut security = Security {
            policy: self.config.srtp.of(call.dialog.flow.remote.ip()),
            keys: &mut self.keys,
            current: None,
        };
        let sdp = match &plan {
            Some(plan) => call.session.answer(plan, local),
            None => call.session.offer(local, &mut security),
        };
        call.local_sdp = sdp.as_str().into();
        let cseq = call.dialog.remote_cseq;
        self.clear_guard(id);
        if !self.send_2xx(id, invite, cseq, sdp, plan.is_none()) {
            self.end_call(id, LeaveCause::SetupFailed, None);
            return;
        }
        let Some(call) = self.calls.get_mut(id) else {
            return;
        };
        call.phase = Phase::Established;
        self.calls.unbind(invite);
        if let Some(plan) = plan {
            self.note_media(id, &plan.agreed);
        }
        self.joined(id);
        let Some(call) = self.calls.get(id) else { return };
        let endpoint = call.endpoint.to_string();
        if self
            .conferences
            .endpoint(&endpoint)
            .is_some_and(|endpoint| endpoint.muted)
        {
            let conference = call.conference.to_string();
            self.mute_on_mixer(&conference, endpoint, true, Asked::Nothing);
        }
    }

    fn joined(&mut self, id: CallId) {
        let Some(call) = self.calls.get(id) else { return };
        if self.conferences.connected(call.endpoint.as_str(), self.wall) {
            self.out.count(Count::Joined);
            let detail = format!("endpoint {}", call.endpoint);
            self.out.log(
                LogLevel::Info,
                "joined",
                &call.dialog.call_id,
                call.conference.as_str(),
                &detail,
            );
        }
    }

    /// Notes what was agreed on where the roster can see it.
    pub(crate) fn note_media(&mut self, id: CallId, agreed: &Agreed) {
        if let Some(call) = self.calls.get(id) {
            self.conferences
                .media_changed(call.endpoint.as_str(), agreed, self.wall);
        }
    }

    /// Counts keys that came readable for everybody on the way (M-56).
    pub(crate) fn note_keys(&mut self, agreed: &Agreed, flow: &Flow) {
        let readable = match flow.transport {
            Transport::Udp | Transport::Tcp => true,
        };
        if readable && agreed.description.srtp.is_some() {
            self.out.count(Count::KeysInClear);
        }
    }

    pub(crate) fn clear_guard(&mut self, id: CallId) {
        if let Some(Call {
            phase: Phase::Setup { guard, .. },
            ..
        }) = self.calls.get_mut(id)
            && let Some(handle) = guard.take()
        {
            self.out.timers.clear(handle);
        }
    }

    /// Sends a 2xx with a session description and repeats it until its ACK (RFC 3261 13.3.1.4, over
    /// streams too: somebody on the way may use datagrams).
    pub(crate) fn send_2xx(
        &mut self,
        id: CallId,
        transaction: TransactionId,
        cseq: u32,
        sdp: String,
        offer_open: bool,
    ) -> bool {
        let Some(call) = self.calls.get(id) else {
            return false;
        };
        let reply = self.success(call).with_sdp(sdp);
        let tag = call.dialog.local_tag.clone();
        let Some(flow) = self.transactions.flow(transaction) else {
            return false;
        };
        let Some(bytes) = self
            .transactions
            .respond(&mut self.out, transaction, &reply, &tag)
        else {
            return false;
        };
        let timers = Timers::default();
        let unacked = Unacked {
            cseq,
            bytes,
            flow,
            interval: timers.t1,
            retransmit: self.out.timer(timers.t1, Due::Retransmit(id)),
            give_up: self.out.timer(timers.timeout(), Due::GiveUp(id)),
            offer_open,
        };
        self.drop_unacked(id);
        if let Some(call) = self.calls.get_mut(id) {
            call.unacked = Some(Box::new(unacked));
        }
        true
    }

    /// A 200 as every focus answers.
    pub(crate) fn success(&self, call: &Call) -> Reply {
        let contact = self.focus_contact(call.conference.as_str(), &call.dialog.flow);
        Reply::new(200)
            .with(HeaderName::Contact, contact)
            .with(HeaderName::Allow, ALLOW)
            .with(HeaderName::Supported, SUPPORTED)
    }

    /// The 2xx goes out again.
    pub(crate) fn retransmit(&mut self, id: CallId) {
        let Some(unacked) = self.calls.get_mut(id).and_then(|call| call.unacked.as_mut()) else {
            return;
        };
        let timers = Timers::default();
        unacked.interval = timers.double_capped(unacked.interval);
        let (flow, bytes, interval): (_, Bytes, Duration) =
            (unacked.flow, unacked.bytes.clone(), unacked.interval);
        unacked.retransmit = self.out.timer(interval, Due::Retransmit(id));
        self.out.send(flow, bytes);
        self.out.count(Count::Retransmission);
    }

    /// Stops repeating a 2xx.
    pub(crate) fn drop_unacked(&mut self, id: CallId) -> Option<Box<Unacked>> {
        let unacked = self.calls.get_mut(id)?.unacked.take()?;
        self.out.timers.clear(unacked.retransmit);
        self.out.timers.clear(unacked.give_up);
        Some(unacked)
    }

    /// An ACK of a 2xx.
    pub(crate) fn on_ack(&mut self, request: &Request) {
        let Some(id) = self.call_of(request) else { return };
        let cseq = request
            .headers
            .typed::<CSeq>()
            .and_then(Result::ok)
            .map(|cseq| cseq.sequence);
        let expected = self
            .calls
            .get(id)
            .and_then(|call| call.unacked.as_ref())
            .map(|unacked| unacked.cseq);
        if expected.is_none() || expected != cseq {
            return;
        }
        let Some(unacked) = self.drop_unacked(id) else {
            return;
        };
        let Some(call) = self.calls.get_mut(id) else {
            return;
        };
        if let Phase::Leaving { .. } = call.phase {
            self.send_bye(id);
            return;
        }
        if unacked.offer_open && !self.take_answer(id, request) {
            return;
        }
        self.save(id);
    }

    /// The answer to our offer, in the ACK (M-66). False when the call ends for want of it.
    fn take_answer(&mut self, id: CallId, request: &Request) -> bool {
        let body = request.body().clone();
        let has_answer = checks::session_body(request).unwrap_or(false);
        let Some(call) = self.calls.get_mut(id) else {
            return false;
        };
        let accepted = if has_answer {
            call.session.accept_answer(&body).ok()
        } else {
            None
        };
        let local = match call.leg {
            Leg::Stands(local) => Some(local.ip()),
            Leg::None | Leg::Asked => None,
        };
        let usable = accepted
            .filter(|agreed: &Agreed| local.is_some_and(|local| agreed.reachable_from(local).is_ok()));
        let Some(agreed) = usable else {
            self.end_call(id, LeaveCause::BadAnswer, Some(REASON_BAD_ANSWER));
            return false;
        };
        call.remote_sdp = wire::text(&body).into();
        let media = with_learning(
            agreed.description.clone(),
            call.direct,
            call.dialog.flow.remote.ip(),
        );
        let (conference, endpoint) = (call.conference.to_string(), call.endpoint.to_string());
        let flow = call.dialog.flow;
        let asked = Asked::SetMedia {
            call: id,
            purpose: Purpose::Answer,
        };
        self.note_keys(&agreed, &flow);
        self.note_media(id, &agreed);
        self.ask(
            &conference.clone(),
            MixerRequest::SetMedia {
                conference,
                endpoint,
                media,
            },
            asked,
        );
        true
    }

    /// No ACK within 64*T1, or no mixer within our patience.
    pub(crate) fn give_up(&mut self, id: CallId) {
        let Some(call) = self.calls.get(id) else { return };
        if let Phase::Setup { .. } = call.phase {
            self.give_up_setup(id, SetupFailure::Reason(Reason::Overloaded(None)));
            return;
        }
        self.drop_unacked(id);
        match self.calls.get(id).map(|call| &call.phase) {
            Some(Phase::Leaving { bye: None, .. }) => self.send_bye(id),
            Some(Phase::Established) => self.end_call(id, LeaveCause::NoAck, Some(REASON_NO_ACK)),
            Some(Phase::Setup { .. } | Phase::Leaving { .. }) | None => {}
        }
    }

    /// Refuses an INVITE whose caller is in the roster already.
    pub(crate) fn give_up_setup(&mut self, id: CallId, failure: SetupFailure) {
        let Some(call) = self.calls.get(id) else { return };
        let Phase::Setup { invite, .. } = call.phase else {
            return;
        };
        let tag = call.dialog.local_tag.clone();
        let (reply, cause) = match failure {
            SetupFailure::Session(refusal) => (self.session_refusal(&refusal), LeaveCause::SetupFailed),
            SetupFailure::Reason(reason) => {
                let cause = if reason == Reason::Cancelled {
                    LeaveCause::Cancelled
                } else if reason == Reason::Ending {
                    LeaveCause::Ended
                } else {
                    LeaveCause::SetupFailed
                };
                (self.refusal(&reason), cause)
            }
        };
        self.answer(invite, &reply, &tag);
        self.end_call(id, cause, None);
    }
}

/// Why a caller who was let in is refused after all.
pub(crate) enum SetupFailure {
    Reason(Reason),
    Session(Refusal),
}

/// Reason header of a BYE (RFC 3326).
const REASON_NO_ACK: &str = "SIP;cause=408;text=\"ACK missing\"";
const REASON_BAD_ANSWER: &str = "SIP;cause=488;text=\"Answer missing or unusable\"";
