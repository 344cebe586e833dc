//! What the load tester says and how it judges what it hears. Pure functions on samples and bytes.
//!
//! Nothing here is shared with the mixer on purpose: a fault in its codec must not hide itself.

pub mod continuity;
pub mod g711;
pub mod identity;
pub mod plan;
pub mod spectrum;
pub mod tone;

/// Samples per second of everything here.
pub const RATE: usize = 8_000;
/// Samples of one 20 ms frame.
pub const FRAME: usize = 160;
/// RTP timestamp units of one 20 ms frame.
pub const FRAME_UNITS: u32 = 160;
