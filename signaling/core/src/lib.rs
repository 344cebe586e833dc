//! The signaling core: SIP and conferencing as a pure state machine. Sans-IO.
//!
//! Invariants, as absences: no socket, no clock (time is an argument), no runtime, no thread, no
//! `unsafe`, no randomness of its own (seeded at construction), no iteration over hash tables.
//!
//! The driver feeds [`input::Input`]s to [`Core::handle`], performs the [`effect::Effect`]s of
//! [`Core::poll_effect`] in order, and calls [`Core::handle_timeout`] at [`Core::next_deadline`].

#![forbid(unsafe_code)]
#![warn(clippy::indexing_slicing)]

mod admin;
mod call;
pub mod conference;
pub mod effect;
mod hosting;
pub mod input;
pub mod limits;
mod outbox;
mod random;
pub mod record;
mod restore;
pub mod sdp;
mod sip;
pub mod srtp;
pub mod time;

use std::collections::BTreeSet;
use std::net::IpAddr;

use call::Calls;
use conference::Conferences;
use effect::{Count, Effect};
use hosting::Hosts;
use input::Input;
use outbox::{Due, Outbox};
use sip::transactions::Transactions;
use srtp::{KeySeed, KeySource, SrtpPolicies};
use time::{Timestamp, WallTime};

/// What the core must know and cannot find out.
#[derive(Debug, Clone)]
pub struct CoreConfig {
    /// Domain of our addresses, e.g. `localhost`.
    pub domain: String,
    /// Peers whose calls are accepted without digest, as (network, prefix length).
    pub trusted: Vec<(std::net::IpAddr, u8)>,
    /// Any `sip:conf-NAME@` is created by its first caller.
    pub auto_create: bool,
    /// Talkers that a conference mixes at once at most, the loudest ones; absent: all.
    pub talkers: Option<u8>,
    /// Label under which the mixer keeps our conferences.
    pub owner: String,
    /// Peers whose RTP source is learnt (NAT) instead of taken from SDP, as (network, prefix length).
    pub learn_source: Vec<(std::net::IpAddr, u8)>,
    /// Most calls at once; more are answered 503 with Retry-After.
    pub calls_max: usize,
    /// Who gets SRTP.
    pub srtp: SrtpPolicies,
    /// Seed of tags, branches and ids.
    pub seed: [u8; 32],
    /// Seed of SRTP keys: of the system's randomness, and another one.
    pub key_seed: KeySeed,
}

impl CoreConfig {
    fn trusts(&self, peer: IpAddr) -> bool {
        self.trusted.iter().any(|network| contains(network, peer))
    }

    fn learns_source(&self, peer: IpAddr) -> bool {
        self.learn_source.iter().any(|network| contains(network, peer))
    }
}

/// The whole signaling state of one node.
#[derive(Debug)]
pub struct Core {
    config: CoreConfig,
    out: Outbox,
    transactions: Transactions,
    calls: Calls,
    conferences: Conferences,
    hosts: Hosts,
    /// Makes SRTP keys.
    keys: KeySource,
    wall: WallTime,
    /// Peers outside the trusted networks that were logged.
    refused_peers: BTreeSet<IpAddr>,
    /// Gauges as last told: conferences, participants, transactions.
    told: Option<[usize; 3]>,
}

impl Core {
    /// An empty core.
    #[must_use]
    pub fn new(config: CoreConfig) -> Self {
        let limits = conference::Limits {
            conferences_max: config.calls_max,
            endpoints_max: config.calls_max,
            auto_create: config.auto_create,
        };
        Self {
            out: Outbox::new(config.seed),
            transactions: Transactions::new(),
            calls: Calls::default(),
            conferences: Conferences::new(limits, config.seed),
            hosts: Hosts::default(),
            keys: KeySource::new(&config.key_seed),
            wall: WallTime::default(),
            refused_peers: BTreeSet::new(),
            told: None,
            config,
        }
    }

    /// Takes one input.
    pub fn handle(&mut self, now: Timestamp, input: Input) {
        self.out.now = now;
        match input {
            Input::Sip { flow, bytes } => self.on_sip(&flow, &bytes),
            Input::FlowFailed { flow } => self.on_flow_failed(&flow),
            Input::MixerReply { id, reply } => self.on_mixer_reply(id, &reply),
            Input::MixerEvent(event) => self.on_mixer_event(&event),
            Input::MixerHealth { mixer, instance } => self.on_mixer_health(&mixer, instance),
            Input::Restore {
                conferences,
                dialogs,
                endpoints,
                mixer_conferences,
            } => {
                self.restore(&conferences, dialogs, &endpoints, &mixer_conferences);
            }
            Input::Admin { id, request } => self.on_admin(id, request),
            Input::Wall(wall) => self.wall = wall,
        }
        self.tell_gauges();
    }

    /// Runs what is due.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.out.now = now;
        while let Some(due) = self.out.timers.pop_due(now) {
            match due {
                Due::Transaction(id, timer) => {
                    let upward = self.transactions.on_timer(&mut self.out, id, timer);
                    self.on_upward(upward);
                }
                Due::Retransmit(call) => self.retransmit(call),
                Due::GiveUp(call) => self.give_up(call),
                Due::Retry => self.retry_removals(),
            }
        }
        self.tell_gauges();
    }

    /// When [`Core::handle_timeout`] must be called next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.out.timers.next_deadline()
    }

    /// Next effect to perform, in order.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.out.pop()
    }

    /// Timers set, and requests to mixers without an answer: both zero when nothing is going on.
    #[must_use]
    pub fn pending(&self) -> (usize, usize) {
        (self.out.timers.len(), self.hosts.outstanding())
    }

    /// All conferences: rosters and event logs.
    #[must_use]
    pub fn conferences(&self) -> &Conferences {
        &self.conferences
    }

    fn on_flow_failed(&mut self, flow: &input::Flow) {
        for call in self.calls.iter_mut() {
            call.dialog.on_flow_failed(flow);
        }
        for upward in self.transactions.on_flow_failed(&mut self.out, flow) {
            self.on_upward(Some(upward));
        }
    }

    fn tell_gauges(&mut self) {
        let now = [
            self.conferences.len(),
            self.conferences.endpoints_len(),
            self.transactions.len(),
        ];
        let [conferences, participants, transactions] = now;
        let told = self.told.replace(now);
        let is_new = |index: usize| told.is_none_or(|told| told.get(index) != now.get(index));
        if is_new(0) {
            self.out.count(Count::Conferences(conferences));
        }
        if is_new(1) {
            self.out.count(Count::Participants(participants));
        }
        if is_new(2) {
            self.out.count(Count::Transactions(transactions));
        }
    }
}

/// Whether a network, as address and prefix length, contains an address. IPv4 inside IPv6 counts as IPv4.
fn contains((network, prefix): &(IpAddr, u8), address: IpAddr) -> bool {
    match (network.to_canonical(), address.to_canonical()) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            let shift = 32 - u32::from((*prefix).min(32));
            let mask = u32::MAX.checked_shl(shift).unwrap_or(0);
            network.to_bits() & mask == address.to_bits() & mask
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            let shift = 128 - u32::from((*prefix).min(128));
            let mask = u128::MAX.checked_shl(shift).unwrap_or(0);
            network.to_bits() & mask == address.to_bits() & mask
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_what_they_should() {
        let table = [
            ("127.0.0.0", 8, "127.9.9.9", true),
            ("127.0.0.0", 8, "128.0.0.1", false),
            ("127.0.0.0", 8, "::ffff:127.0.0.1", true),
            ("0.0.0.0", 0, "8.8.8.8", true),
            ("0.0.0.0", 0, "::1", false),
            ("::", 0, "::1", true),
            ("10.0.0.1", 32, "10.0.0.1", true),
            ("10.0.0.1", 32, "10.0.0.2", false),
            ("fd77::", 64, "fd77::2", true),
            ("fd77::", 64, "fd78::2", false),
        ];
        for (network, prefix, address, expected) in table {
            let network = (network.parse().unwrap(), prefix);
            assert_eq!(
                contains(&network, address.parse().unwrap()),
                expected,
                "{network:?} {address}"
            );
        }
    }
}
