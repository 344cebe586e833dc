//! The simulated world: one worker on the in-memory network, phones around it, one thread, one
//! virtual clock, one seed.

pub mod phone;
pub mod world;
