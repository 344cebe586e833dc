//! `mixminus check-config`.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::CliError;
use crate::config::Config;

/// Tables that only a mixer.toml has.
const MIXER_TABLES: [&str; 3] = ["io", "workers", "control"];

/// Checks a file of either program.
pub(super) fn check(file: &Path, json: bool) -> Result<String, CliError> {
    if is_mixer(file) {
        check_mixer(file)?;
    } else {
        Config::load(file)?;
    }
    if json {
        Ok("{\"ok\":true}\n".to_owned())
    } else {
        Ok(format!("{}: ok\n", file.display()))
    }
}

/// A file with a table of the mixer and none of ours; what is neither is judged as ours.
fn is_mixer(file: &Path) -> bool {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let names_mixer = |line: &str| {
        let name = line
            .trim()
            .trim_start_matches('[')
            .split([']', '.'])
            .next()
            .unwrap_or_default()
            .trim();
        line.trim_start().starts_with('[') && MIXER_TABLES.contains(&name)
    };
    text.lines().any(names_mixer)
}

fn check_mixer(file: &Path) -> Result<(), CliError> {
    let program = mixer_program();
    let output = Command::new(&program)
        .arg("--config")
        .arg(file)
        .arg("--check")
        .output()
        .map_err(|error| {
            CliError::Unreachable(format!(
                "{} cannot be run to check {}: {error}; install it beside mixminus",
                program.display(),
                file.display()
            ))
        })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let reason = said
        .lines()
        .rfind(|line| !line.trim().is_empty())
        .unwrap_or("it refused the file without a reason");
    Err(CliError::Configuration(
        reason.trim_start_matches("mixminus-mixer: ").to_owned(),
    ))
}

/// Beside this program, else wherever PATH has it.
pub(super) fn mixer_program() -> PathBuf {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|own| own.parent().map(|dir| dir.join("mixminus-mixer")));
    beside
        .filter(|path| path.is_file())
        .unwrap_or_else(|| PathBuf::from("mixminus-mixer"))
}
