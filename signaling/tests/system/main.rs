//! The real programs together: `mixminus-mixer`, `mixminus-signaling`, `mixminus`, `sipp`, and phones
//! made of plain sockets. Loopback only, ports chosen by the system.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops where it is")]

mod calls;
mod errors;
mod operator;
mod phone;
mod restart;
mod setup;
