//! Load tester: SIP callers with real RTP and the who-hears-whom proof, in-process ladders, and the
//! simulated world of the test suite.

pub mod call;
pub mod hears;
pub mod io;
pub mod ladder;
pub mod napi;
pub mod open;
pub mod process;
pub mod replay;
pub mod seed;
pub mod sim;
pub mod sip;
pub mod sound;
