//! `mixminus-mixer doctor`: what of this machine holds the mixer back, and the command that mends it.
//!
//! Every check is a pure function over texts of `/proc`, `/sys` and `ethtool`; [`host::Host`] reads
//! them under a root folder and through a tool runner that tests replace. Nothing is changed, ever.
//! At the end a second of measuring says what one core of this machine carries ([`measure`]).

pub mod cores;
pub mod drivers;
pub mod host;
pub mod measure;
pub mod netdev;
pub mod nic;
pub mod process;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use crate::config::{BackendChoice, Config, ConfigError};
use crate::placement;
use host::{Host, Tools};

/// Arguments of `doctor`.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(
    after_help = "One line a finding: ok, warn or fail, what, and after `->` the command that mends it. Nothing is \
                  changed.\nExit codes: 0 nothing failed (warnings do not count), 1 something failed, 64 usage, 78 \
                  configuration.\nThe measuring at the end loads one core of a worker for about a second: on a busy \
                  system use --no-measure."
)]
pub struct Arguments {
    /// The mixer's configuration file; without it the defaults hold.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Network interface to look at; without it io.interface.
    #[arg(long, value_name = "IF")]
    pub interface: Option<String>,
    /// Print an array of objects: verdict, what, finding, command (or null).
    #[arg(long)]
    pub json: bool,
    /// Leave the measuring at the end out.
    #[arg(long)]
    pub no_measure: bool,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be, or of no importance here.
    Ok,
    /// Works, but worse than it could.
    Warn,
    /// What is configured cannot work.
    Fail,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// How bad.
    pub verdict: Verdict,
    /// What was looked at.
    pub what: &'static str,
    /// What was found.
    pub finding: String,
    /// Command that mends it.
    pub command: Option<String>,
}

impl Line {
    fn new(verdict: Verdict, what: &'static str, finding: impl Into<String>) -> Self {
        Self {
            verdict,
            what,
            finding: finding.into(),
            command: None,
        }
    }

    fn ok(what: &'static str, finding: impl Into<String>) -> Self {
        Self::new(Verdict::Ok, what, finding)
    }

    fn warn(what: &'static str, finding: impl Into<String>) -> Self {
        Self::new(Verdict::Warn, what, finding)
    }

    fn fail(what: &'static str, finding: impl Into<String>) -> Self {
        Self::new(Verdict::Fail, what, finding)
    }

    fn mend(mut self, command: impl Into<String>) -> Self {
        self.command = Some(command.into());
        self
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "fail",
        };
        write!(f, "{verdict:<4}  {}: {}", self.what, self.finding)?;
        match &self.command {
            Some(command) => write!(f, "  -> {command}"),
            None => Ok(()),
        }
    }
}

/// How much AF_XDP matters to a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// io_uring is configured: what AF_XDP lacks is no fault.
    No,
    /// Whatever works is taken.
    Maybe,
    /// It is asked for by name.
    Yes,
}

impl Want {
    fn of(backend: BackendChoice) -> Self {
        match backend {
            BackendChoice::Uring => Self::No,
            BackendChoice::Auto => Self::Maybe,
            BackendChoice::Xdp | BackendChoice::XdpTx => Self::Yes,
        }
    }

    /// Something that AF_XDP cannot do without.
    fn blocked(self, what: &'static str, finding: impl Into<String>) -> Line {
        let verdict = match self {
            Self::No => Verdict::Ok,
            Self::Maybe => Verdict::Warn,
            Self::Yes => Verdict::Fail,
        };
        Line::new(verdict, what, finding)
    }

    /// Something that makes AF_XDP worse.
    fn worse(self, what: &'static str, finding: impl Into<String>) -> Line {
        match self {
            Self::No => Line::ok(what, finding),
            Self::Maybe | Self::Yes => Line::warn(what, finding),
        }
    }
}

/// Every finding about a host, but for the measurement.
#[must_use]
pub fn examine(host: &Host<impl Tools>, config: &Config, interface: Option<&str>) -> Vec<Line> {
    let want = Want::of(config.io.backend);
    let mut lines = process::examine(host, config, want);
    lines.extend(cores::examine(host, config));
    let interface = interface.or(config.io.interface.as_deref());
    match interface {
        Some(interface) => lines.extend(nic::examine(host, config, want, interface)),
        None => lines.push(
            want.worse("interface", "none named: no NIC was looked at")
                .mend("mixminus-mixer doctor --interface IF (ip -br link lists them)"),
        ),
    }
    lines
}

/// Runs the command on this machine and prints.
///
/// # Errors
/// The configuration file cannot be used.
pub fn run(arguments: &Arguments) -> Result<ExitCode, ConfigError> {
    let cores = placement::available_cores();
    let config = match &arguments.config {
        Some(path) => Config::load(path, &cores)?,
        None => Config::defaults(&cores),
    };
    let host = Host::new("/", host::System);
    let mut lines = examine(&host, &config, arguments.interface.as_deref());
    if !arguments.no_measure {
        lines.extend(measure::examine(config.workers.cores.first().copied()));
    }
    let text = if arguments.json {
        json(&lines)
    } else {
        text(&lines)
    };
    // A reader that has seen enough closes the pipe; that is no error.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(ExitCode::from(u8::from(has_failed(&lines))))
}

/// Whether anything failed.
#[must_use]
pub fn has_failed(lines: &[Line]) -> bool {
    lines.iter().any(|line| line.verdict == Verdict::Fail)
}

/// One line each.
#[must_use]
pub fn text(lines: &[Line]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// An array of objects.
#[must_use]
pub fn json(lines: &[Line]) -> String {
    // Strings and unit variants only: this cannot fail.
    serde_json::to_string_pretty(lines).unwrap_or_default() + "\n"
}
