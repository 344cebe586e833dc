//! `mixminus`: the operator's tool.

use std::process::ExitCode;

fn main() -> ExitCode {
    signaling::cli::main()
}
