//! The signaling core: SIP and conferencing as a pure state machine. Sans-IO.
//!
//! Invariants, as absences: no socket, no clock (time is an argument), no runtime, no thread, no
//! `unsafe`, no randomness of its own (seeded at construction), no iteration over hash tables.
//!
//! The driver feeds [`input::Input`]s to [`Core::handle`], performs the [`effect::Effect`]s of
//! [`Core::poll_effect`] in order, and calls [`Core::handle_timeout`] at [`Core::next_deadline`].

#![forbid(unsafe_code)]
#![warn(clippy::indexing_slicing)]

mod call;
pub mod conference;
pub mod effect;
pub mod input;
pub mod limits;
mod outbox;
mod random;
pub mod record;
pub mod sdp;
mod sip;
pub mod time;

use effect::Effect;
use input::Input;
use time::Timestamp;

/// What the core must know and cannot find out.
#[derive(Debug, Clone)]
pub struct CoreConfig {
    /// Domain of our addresses, e.g. `localhost`.
    pub domain: String,
    /// Peers whose calls are accepted without digest, as (network, prefix length).
    pub trusted: Vec<(std::net::IpAddr, u8)>,
    /// Any `sip:conf-NAME@` is created by its first caller.
    pub auto_create: bool,
    /// Label under which the mixer keeps our conferences.
    pub owner: String,
    /// Peers whose RTP source is learnt (NAT) instead of taken from SDP, as (network, prefix length).
    pub learn_source: Vec<(std::net::IpAddr, u8)>,
    /// Most calls at once; more are answered 503 with Retry-After.
    pub calls_max: usize,
    /// Seed of tags, branches and ids.
    pub seed: [u8; 32],
}

/// The whole signaling state of one node.
#[derive(Debug)]
pub struct Core {}

impl Core {
    /// An empty core.
    #[must_use]
    pub fn new(_config: CoreConfig) -> Self {
        Self {}
    }

    /// Takes one input.
    pub fn handle(&mut self, _now: Timestamp, _input: Input) {}

    /// Runs what is due.
    pub fn handle_timeout(&mut self, _now: Timestamp) {}

    /// When [`Core::handle_timeout`] must be called next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        None
    }

    /// Next effect to perform, in order.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        None
    }
}
