//! Steering: which receive queue of the NIC a packet arrives at.
//!
//! A worker serves one queue and one block of local ports. A packet that arrives at another worker's
//! queue is handed over between workers, which always works and costs a copy; steering makes it rare.
//! So nothing here can make packets get lost, and every refusal of a driver ends in a method below it:
//!
//! 1. ntuple rules on the destination port: exact, also behind NAT;
//! 2. RSS on the destination port alone: a port always arrives at the same queue;
//! 3. RSS as it is: choose a local port whose packets hash to the worker's queue ([`toeplitz`]);
//! 4. nothing: hand-off between workers does it.
//!
//! [`plan`] decides and is pure; [`runner`] asks and changes the NIC through `ethtool` and undoes it.

pub mod ethtool;
pub mod plan;
pub mod runner;
pub mod toeplitz;

pub use ethtool::{Ethtool, System};
pub use plan::{Method, Target};
pub use runner::{Outcome, Steering};
