//! The core as peers, mixers, stores and operators see it: bytes and inputs in, effects out.

#![expect(
    clippy::unwrap_used,
    reason = "a test that meets something else than it expects shall stop"
)]
#![expect(clippy::wildcard_enum_match_arm, reason = "tests look at one case among many")]

mod admin;
mod calls;
mod changes;
mod differential;
mod mixer;
mod refusals;
mod restore;
mod srtp;
mod torture;
mod transactions;
mod world;
