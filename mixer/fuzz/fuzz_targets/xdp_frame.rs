//! Any frames, in any order with sends, opens and closes: no panic, and no chunk of packet memory lost.

#![no_main]

#[path = "../../tests/fuzz/xdp_frame.rs"]
mod xdp_frame;

libfuzzer_sys::fuzz_target!(|input: &[u8]| xdp_frame::exercise(input));
