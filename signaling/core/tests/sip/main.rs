//! The core as peers, mixers, stores and operators see it: bytes and inputs in, effects out.

mod admin;
mod calls;
mod changes;
mod differential;
mod mixer;
mod refusals;
mod restore;
mod torture;
mod transactions;
mod world;
