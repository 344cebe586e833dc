//! SRTP and SRTCP (RFC 3711, 6188, 7714), as one leg needs them: one master key for each way.
//!
//! Control builds [`Srtp`] (keys are derived and memory is allocated there) and the engine gives back what is
//! worn out; protecting and unprotecting a packet allocates nothing. Packets are worked on in place: the sender's in
//! the transmit buffer, the receiver's in a copy.
//!
//! Invariants: a key is not printed and is wiped when it is dropped; under one sending key no packet index comes
//! twice; nothing is decrypted that was not authenticated; only an authenticated packet changes a receiver's state.

mod cipher;
mod derive;
mod inbound;
mod key;
mod receiving;
mod sending;
mod streams;

pub use inbound::Inbound;
pub use key::{KEY_AND_SALT_MAX, KeyError, MasterKey, Suite};
pub use receiving::Receiving;
pub use sending::Sending;

use serde::{Deserialize, Serialize};

use crate::counters::DropReason;

/// Most bytes that protection adds to a packet: the tag of AES-GCM, and SRTCP's index word.
pub const OVERHEAD_MAX: usize = 20;

/// What protects a leg, both ways.
#[derive(Debug, Serialize, Deserialize)]
pub struct Srtp {
    /// For what we send.
    pub send: Box<Sending>,
    /// For what the peer sends.
    pub receive: Box<Receiving>,
}

impl Srtp {
    /// Derives the keys of both ways (allocates: control only). Both streams begin at a roll-over counter of 0.
    #[must_use]
    pub fn new(receive: MasterKey, send: MasterKey) -> Self {
        Self {
            send: Box::new(Sending::new(send)),
            receive: Box::new(Receiving::new(receive)),
        }
    }
}

/// Keys that a change has replaced, for control to drop.
#[derive(Debug, Default)]
pub struct WornKeys {
    /// Of what we sent.
    pub send: Option<Box<Sending>>,
    /// Of what the peer sent: the last ones, and those before them.
    pub receive: [Option<Box<Receiving>>; 2],
}

impl From<Option<Srtp>> for WornKeys {
    fn from(srtp: Option<Srtp>) -> Self {
        let (send, receive) = srtp.map(|srtp| (srtp.send, srtp.receive)).unzip();
        Self {
            send,
            receive: [receive, None],
        }
    }
}

/// Why a packet was not unprotected. It is unchanged then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnprotectError {
    /// Shorter than its header and its tag.
    #[error("shorter than header and tag")]
    Short,
    /// Its index was seen, or is too old to tell.
    #[error("replayed, or too old")]
    Replayed,
    /// Its tag does not hold: another key, a damaged packet, or no SRTP at all.
    #[error("not authentic")]
    NotAuthentic,
}

impl From<UnprotectError> for DropReason {
    fn from(error: UnprotectError) -> Self {
        match error {
            UnprotectError::Short => Self::Malformed,
            UnprotectError::Replayed => Self::SrtpReplay,
            UnprotectError::NotAuthentic => Self::SrtpAuth,
        }
    }
}

#[cfg(test)]
mod tests;
