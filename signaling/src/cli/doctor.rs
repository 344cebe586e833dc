//! `mixminus doctor`: the mixer's program does it (docs/decisions/0008).

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode, ExitStatus};

use super::{CliError, check};

/// Runs `mixminus-mixer doctor` with these arguments on this program's streams; its exit code is ours.
pub(super) fn run(arguments: impl Iterator<Item = OsString>) -> Result<ExitCode, CliError> {
    let program = check::mixer_program();
    let status = Command::new(&program)
        .arg("doctor")
        .args(arguments)
        .status()
        .map_err(|error| {
            CliError::Unreachable(format!(
                "{} cannot be run: {error}; install it beside mixminus",
                program.display()
            ))
        })?;
    Ok(ExitCode::from(code(status)))
}

/// As a shell tells it: 128 and the signal for a program that was killed.
fn code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| signal + 128));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_passed_on() {
        assert_eq!(code(ExitStatus::from_raw(0)), 0);
        assert_eq!(code(ExitStatus::from_raw(1 << 8)), 1);
        assert_eq!(code(ExitStatus::from_raw(78 << 8)), 78);
        assert_eq!(code(ExitStatus::from_raw(9)), 137);
    }
}
