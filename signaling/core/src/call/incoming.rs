//! INVITE outside a dialog: from the address to a waiting caller.

use super::{Call, CallId, Leg, Phase};
use crate::Core;
use crate::conference::{Asker, Join, JoinOutcome, LeaveCause, Refused};
use crate::effect::{LogLevel, MediaDescription, MixerRequest};
use crate::hosting::Asked;
use crate::input::Flow;
use crate::limits;
use crate::outbox::Due;
use crate::sdp::{LocalSession, Occasion, Offer, Plan, Refusal, Security, plan};
use crate::sip::checks;
use crate::sip::dialog::Dialog;
use crate::sip::reply::{Reason, Reply};
use crate::sip::transactions::TransactionId;
use crate::sip::wire::{self, Request};

/// Why a call is not let in: by our table, or by the session description's own status.
pub(crate) enum Rejected {
    Reason(Reason),
    Session(Refusal),
}

impl From<Reason> for Rejected {
    fn from(reason: Reason) -> Self {
        Self::Reason(reason)
    }
}

impl From<Refusal> for Rejected {
    fn from(refusal: Refusal) -> Self {
        Self::Session(refusal)
    }
}

impl Core {
    /// Takes a new INVITE: lets the caller in and asks the mixer, or refuses.
    pub(crate) fn on_invite(&mut self, transaction: TransactionId, request: &Request, flow: &Flow) {
        match self.admit(transaction, request, flow) {
            Ok(call) => {
                self.answer(transaction, &Reply::new(100), "");
                self.host(call);
            }
            Err(rejected) => self.reject(transaction, &rejected),
        }
    }

    fn admit(
        &mut self,
        transaction: TransactionId,
        request: &Request,
        flow: &Flow,
    ) -> Result<CallId, Rejected> {
        checks::scheme(request)?;
        checks::required_options(request)?;
        let has_offer = checks::session_body(request)?;
        checks::accepts_sdp(request)?;
        let conference = conference_of(request).ok_or(Reason::NoConference)?;
        let local_tag = self.out.random.token();
        let dialog = Dialog::from_invite(request, flow, local_tag)?;
        let plan = if has_offer {
            let mut security = Security {
                policy: self.config.srtp.of(flow.remote.ip()),
                keys: &mut self.keys,
                current: None,
            };
            Some(Box::new(offered(request.body(), Occasion::First, &mut security)?))
        } else {
            None
        };
        let remote_sdp = if has_offer {
            wire::text(request.body())
        } else {
            String::new()
        };
        let outcome = self.let_in(request, &dialog, &conference)?;
        if let Some(plan) = &plan {
            self.note_keys(&plan.agreed, flow);
        }
        let endpoint = outcome.endpoint.clone();
        let detail = format!("endpoint {endpoint} from {}", flow.remote);
        let (call_id, conference) = (dialog.call_id.clone(), outcome.conference.clone());
        let call = Call {
            dialog,
            conference: outcome.conference,
            endpoint: outcome.endpoint,
            phase: Phase::Setup {
                invite: transaction,
                plan,
                guard: None,
            },
            leg: Leg::None,
            session: LocalSession::new(self.out.random.next_u64()),
            local_sdp: Box::default(),
            remote_sdp: remote_sdp.into(),
            unacked: None,
            change: None,
            saved: false,
            active_seen: false,
            direct: self.config.learns_source(flow.remote.ip()),
        };
        let Some(id) = self.calls.insert(call) else {
            // Our own tag is new, so this cannot happen; if it does, nobody stays in the roster.
            self.conferences
                .leave(endpoint.as_str(), LeaveCause::SetupFailed, self.wall);
            return Err(Reason::Internal.into());
        };
        self.arm_guard(id);
        self.calls.bind(transaction, id);
        self.out.log(
            LogLevel::Info,
            "call arrived",
            &call_id,
            conference.as_str(),
            &detail,
        );
        Ok(id)
    }

    fn let_in(
        &mut self,
        request: &Request,
        dialog: &Dialog,
        conference: &str,
    ) -> Result<JoinOutcome, Reason> {
        if !self.hosts.can_host() {
            return Err(Reason::Overloaded(None));
        }
        let join = Join {
            conference,
            address: &dialog.remote_uri,
            display_name: &display_name(request),
            call_id: &dialog.call_id,
        };
        let asker = Asker::Trusted {
            identity: dialog.remote_uri.to_string(),
        };
        self.conferences
            .join(&asker, &join, self.wall)
            .map_err(refused_join)
    }

    fn arm_guard(&mut self, id: CallId) {
        let handle = self.out.timer(limits::SETUP_MAX, Due::GiveUp(id));
        let phase = self.calls.get_mut(id).map(|call| &mut call.phase);
        if let Some(Phase::Setup { guard, .. }) = phase {
            *guard = Some(handle);
        }
    }

    /// Asks the mixer for the endpoint of a call whose conference is there.
    pub(crate) fn create_endpoint(&mut self, id: CallId) {
        let Some(call) = self.calls.get_mut(id) else {
            return;
        };
        let Phase::Setup { plan, .. } = &call.phase else {
            return;
        };
        call.leg = Leg::Asked;
        let conference = call.conference.to_string();
        let endpoint = call.endpoint.to_string();
        let remote = call.dialog.flow.remote.ip();
        let media = plan
            .as_ref()
            .map(|plan| with_learning(plan.agreed.description.clone(), call.direct, remote));
        let asked = Asked::CreateEndpoint {
            call: id,
            conference: conference.clone(),
            endpoint: endpoint.clone(),
        };
        self.ask(
            &conference.clone(),
            MixerRequest::CreateEndpoint {
                conference,
                endpoint,
                media,
            },
            asked,
        );
    }

    /// Refuses an INVITE that has no call yet.
    pub(crate) fn reject(&mut self, transaction: TransactionId, rejected: &Rejected) {
        match rejected {
            Rejected::Reason(reason) => self.refuse(transaction, reason),
            Rejected::Session(refusal) => {
                let reply = self.session_refusal(refusal);
                let tag = self.out.random.token();
                self.answer(transaction, &reply, &tag);
            }
        }
    }

    pub(crate) fn session_refusal(&self, refusal: &Refusal) -> Reply {
        Reply::new(refusal.status).warning(refusal.warning, &self.config.domain, &refusal.text)
    }
}

/// Reads an offer and decides about it.
pub(crate) fn offered(body: &[u8], occasion: Occasion, security: &mut Security<'_>) -> Result<Plan, Refusal> {
    plan(&Offer::parse(body)?, occasion, security)
}

/// Adds the addresses from which RTP may be learnt (media rules, section 6): none for peers whose
/// addresses can be believed.
pub(crate) fn with_learning(
    mut media: MediaDescription,
    direct: bool,
    signalling: std::net::IpAddr,
) -> MediaDescription {
    if direct {
        media.learn_from = vec![media.remote.ip(), signalling];
        media.learn_from.retain(|address| !address.is_unspecified());
        media.learn_from.dedup();
    }
    media
}

/// Conference id in the Request-URI: `conf-NAME`, or any other user part as it is, because load
/// testers' stock scenarios call `service`. None for the factory, which is not served yet.
fn conference_of(request: &Request) -> Option<String> {
    let user = wire::text(&request.uri.decoded_user()?);
    if user.is_empty() || user == FACTORY {
        return None;
    }
    Some(user.strip_prefix(CONFERENCE_PREFIX).unwrap_or(&user).to_owned())
}

fn display_name(request: &Request) -> String {
    let from = request.headers.typed::<wire::From>().and_then(Result::ok);
    let name = from
        .and_then(|from| from.display_name.clone())
        .unwrap_or_default();
    wire::printable(&wire::text(&name))
}

fn refused_join(refused: Refused) -> Reason {
    match refused {
        Refused::NotFound | Refused::NoSuchParticipant | Refused::BadName => Reason::NoConference,
        Refused::Locked | Refused::Full => Reason::Locked,
        Refused::Ending => Reason::Ending,
        Refused::TooManyConferences => Reason::Overloaded(None),
        Refused::NotAllowed => Reason::NotTrusted,
    }
}

/// User part of a focus before the conference id.
pub(crate) const CONFERENCE_PREFIX: &str = "conf-";
const FACTORY: &str = "conference-factory";
