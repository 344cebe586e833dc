//! From the members' frames to what each of them hears.

pub mod active_talkers;
pub mod gain;
pub(crate) mod heard;
pub mod level;
pub mod mix_minus;
pub(crate) mod partial;
pub(crate) mod voices;

/// Samples of one tick: 20 ms at 8 kHz.
pub const FRAME_SAMPLES: usize = crate::jitter::FRAME;

/// 20 ms of samples at 8 kHz.
pub type Frame = [i16; FRAME_SAMPLES];
