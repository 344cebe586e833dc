//! Session descriptions: lenient parsing, RFC 3264 offer/answer, and our own texts.
//!
//! The way of an offer: [`Offer::parse`] -> [`plan`] -> [`LocalSession::answer`]. The way of a late
//! offer: [`LocalSession::offer`] -> [`LocalSession::accept_answer`]. Lines are split by `sdp-types`;
//! everything that means something is ours.
//!
//! Invariants, as absences: no address is resolved, no text is sent that was not built here, no
//! m-line of an offer is missing from its answer, nothing here knows SIP beyond status and warning
//! numbers.

mod crypto;
mod negotiate;
mod parse;
mod write;

pub use crypto::{Crypto, Security, Unusable};
pub use negotiate::{Agreed, Occasion, Plan, Refusal, plan};
pub use parse::{
    Bandwidth, Connection, Description, Direction, MEDIA_LINES_MAX, MediaLine, Offer, Origin, Payload,
    SdpError,
};
pub use write::{AnswerError, LocalSession};

#[cfg(test)]
mod tests;
