//! The media engine: RTP in, exact mix-minus, RTP out. Sans-IO.
//!
//! Invariants, as absences: no socket, no clock (time is an argument), no thread, no `unsafe`, no
//! `dyn`, no `Arc`; after construction no allocation and no free (boxes come in with a
//! [`command::Command`] and leave through [`command::Outcome`] or [`engine::Engine::poll_retired`]);
//! no packet byte outlives the call that saw it.
//!
//! One [`engine::Engine`] belongs to one worker. The worker feeds datagrams and commands and runs
//! 1 ms slots; the engine sends through a [`packet::PacketSink`] and queues [`event::Event`]s.

#![forbid(unsafe_code)]
#![warn(clippy::indexing_slicing)]

pub mod codec;
pub mod command;
mod conference;
pub mod counters;
mod demux;
pub mod dtmf;
mod endpoint;
pub mod engine;
pub mod event;
pub mod jitter;
pub mod media;
pub mod mix;
pub mod packet;
pub mod prompt;
pub mod srtp;
pub mod time;
pub mod wire;
