//! Any packets to a leg with SRTP, in any order with its peer's own and with new keys: what the peer sent is taken once, nothing else.

#![no_main]

#[path = "../../tests/fuzz/srtp_unprotect.rs"]
mod srtp_unprotect;

libfuzzer_sys::fuzz_target!(|input: &[u8]| srtp_unprotect::exercise(input));
