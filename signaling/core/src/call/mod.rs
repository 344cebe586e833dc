//! Call legs: one INVITE dialog and its endpoint on the mixer.
//!
//! A leg is made by an INVITE ([`incoming`]), stands with our 2xx ([`answer`]), changes by re-INVITE and
//! UPDATE ([`reinvite`]) and goes in exactly one place ([`teardown`]). Whatever ends it, nothing stays
//! behind: neither on the mixer, nor in the store, nor a timer.

pub(crate) mod answer;
pub(crate) mod incoming;
pub(crate) mod reinvite;
pub(crate) mod requests;
pub(crate) mod teardown;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use crate::conference::{ConferenceId, EndpointId};
use crate::input::{Flow, MixerRequestId};
use crate::sdp::{LocalSession, Plan};
use crate::sip::dialog::{Dialog, DialogKey};
use crate::sip::timers::TimerHandle;
use crate::sip::transactions::TransactionId;

/// A call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct CallId(u64);

/// One call leg.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) dialog: Dialog,
    pub(crate) conference: ConferenceId,
    pub(crate) endpoint: EndpointId,
    pub(crate) phase: Phase,
    pub(crate) leg: Leg,
    pub(crate) session: LocalSession,
    pub(crate) local_sdp: Box<str>,
    pub(crate) remote_sdp: Box<str>,
    /// Our 2xx whose ACK has not come.
    pub(crate) unacked: Option<Box<Unacked>>,
    /// A re-INVITE or UPDATE that waits for the mixer.
    pub(crate) change: Option<Box<Change>>,
    /// The store has it.
    pub(crate) saved: bool,
    /// RTP was seen: only then its absence means anything.
    pub(crate) active_seen: bool,
    /// The peer is behind a NAT: its addresses are useless, its source is not.
    pub(crate) direct: bool,
}

/// How far a call is.
#[derive(Debug)]
pub(crate) enum Phase {
    /// Its INVITE waits for the mixer.
    Setup {
        /// The INVITE.
        invite: TransactionId,
        /// What was offered; none when the offer is to come from us.
        plan: Option<Box<Plan>>,
        /// Runs out when the mixer does not answer.
        guard: Option<TimerHandle>,
    },
    /// The 2xx is sent.
    Established,
    /// Out of its conference; our BYE is under way, or held back until the ACK comes (RFC 3261 15).
    Leaving {
        /// Our BYE.
        bye: Option<TransactionId>,
        /// Its Reason.
        reason: &'static str,
    },
}

/// The endpoint on the mixer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leg {
    /// Not asked for.
    None,
    /// Asked for.
    Asked,
    /// There, with this RTP address.
    Stands(SocketAddr),
}

/// A 2xx of ours that is repeated until its ACK comes.
#[derive(Debug)]
pub(crate) struct Unacked {
    pub(crate) cseq: u32,
    pub(crate) bytes: Bytes,
    pub(crate) flow: Flow,
    pub(crate) interval: Duration,
    pub(crate) retransmit: TimerHandle,
    pub(crate) give_up: TimerHandle,
    /// It carries our offer; the ACK must carry the answer.
    pub(crate) offer_open: bool,
}

/// An accepted re-INVITE or UPDATE with a session description.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) transaction: TransactionId,
    pub(crate) cseq: u32,
    pub(crate) invite: bool,
    pub(crate) plan: Plan,
    pub(crate) remote_sdp: Box<str>,
    /// The request to the mixer it waits for.
    pub(crate) asked: Option<MixerRequestId>,
}

/// All calls, by id, dialog, endpoint and transaction.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    table: BTreeMap<CallId, Call>,
    dialogs: BTreeMap<DialogKey, CallId>,
    endpoints: BTreeMap<EndpointId, CallId>,
    transactions: BTreeMap<TransactionId, CallId>,
    next: u64,
}

impl Calls {
    /// Adds a call; `None` when its dialog exists already.
    pub(crate) fn insert(&mut self, call: Call) -> Option<CallId> {
        let key = call.dialog.key();
        if self.dialogs.contains_key(&key) {
            return None;
        }
        let id = CallId(self.next);
        self.next += 1;
        self.dialogs.insert(key, id);
        self.endpoints.insert(call.endpoint.clone(), id);
        self.table.insert(id, call);
        Some(id)
    }

    pub(crate) fn get(&self, id: CallId) -> Option<&Call> {
        self.table.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: CallId) -> Option<&mut Call> {
        self.table.get_mut(&id)
    }

    pub(crate) fn by_dialog(&self, key: &DialogKey) -> Option<CallId> {
        self.dialogs.get(key).copied()
    }

    pub(crate) fn by_endpoint(&self, endpoint: &str) -> Option<CallId> {
        self.endpoints.get(endpoint).copied()
    }

    pub(crate) fn by_transaction(&self, transaction: TransactionId) -> Option<CallId> {
        self.transactions.get(&transaction).copied()
    }

    /// Notes that a transaction belongs to a call.
    pub(crate) fn bind(&mut self, transaction: TransactionId, call: CallId) {
        self.transactions.insert(transaction, call);
    }

    /// Forgets what [`Calls::bind`] noted.
    pub(crate) fn unbind(&mut self, transaction: TransactionId) {
        self.transactions.remove(&transaction);
    }

    /// Takes a call out.
    pub(crate) fn remove(&mut self, id: CallId) -> Option<Call> {
        let call = self.table.remove(&id)?;
        self.dialogs.remove(&call.dialog.key());
        self.endpoints.remove(&call.endpoint);
        match &call.phase {
            Phase::Setup { invite, .. } => self.unbind(*invite),
            Phase::Leaving { bye: Some(bye), .. } => self.unbind(*bye),
            Phase::Established | Phase::Leaving { bye: None, .. } => {}
        }
        if let Some(change) = &call.change {
            self.unbind(change.transaction);
        }
        Some(call)
    }

    /// How many dialogs there are.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Call> {
        self.table.values_mut()
    }
}
