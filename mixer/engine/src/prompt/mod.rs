//! Tones and prompts: what the engine plays to one endpoint or to a whole conference.

pub mod playlist;
pub mod tone;
