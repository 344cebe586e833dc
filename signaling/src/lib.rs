//! The sidecar shell: SIP sockets, mixer link, store and operator's HTTP around `signaling-core`.
//!
//! What decides about calls is the core; this crate carries bytes and time to it and performs what it
//! asks. Tokio, clocks and sockets live here only.

pub mod admin;
pub mod cli;
pub mod config;
pub mod driver;
pub mod exit;
pub mod logs;
pub mod metrics;
pub mod mixer_link;
pub mod server;
pub mod store;
pub mod transport;

#[cfg(test)]
mod test_dir;
