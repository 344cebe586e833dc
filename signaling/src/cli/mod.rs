//! `mixminus`: the operator's tool. Talks to the operator's HTTP of a signaling node.

mod check;
mod client;
mod doctor;
mod table;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::admin::views::{Conference, Participant, Status};
use crate::config::{Config, ConfigError};
use crate::exit;
use client::{Client, Verb};
use table::Table;

/// Operator's tool of mixminus.
#[derive(Debug, Parser)]
#[command(name = "mixminus", version)]
struct Arguments {
    /// Where the node's operator HTTP is.
    #[arg(long, value_name = "URL", global = true)]
    url: Option<String>,
    /// File that holds the bearer token.
    #[arg(long, value_name = "FILE", global = true)]
    token_file: Option<PathBuf>,
    /// The node's signaling.toml: address and token are taken from it.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Check --config, print what is in effect, and exit.
    #[arg(long)]
    check: bool,
    /// Answer in JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Numbers of the node.
    Status,
    /// All conferences.
    Conferences,
    /// One conference with its participants.
    Show {
        /// Conference id.
        id: String,
    },
    /// Mute a participant.
    Mute {
        /// Conference id.
        id: String,
        /// Participant id, as shown.
        participant: String,
        /// Unmute instead.
        #[arg(long)]
        off: bool,
    },
    /// Remove a participant.
    Kick {
        /// Conference id.
        id: String,
        /// Participant id, as shown.
        participant: String,
    },
    /// Lock a conference: nobody joins.
    Lock {
        /// Conference id.
        id: String,
        /// Unlock instead.
        #[arg(long)]
        off: bool,
    },
    /// End a conference.
    End {
        /// Conference id.
        id: String,
    },
    /// Check a signaling.toml or mixer.toml.
    CheckConfig {
        /// The file.
        file: PathBuf,
    },
    /// Look at this machine (runs `mixminus-mixer doctor`): what holds the mixer back, and its remedy.
    #[command(disable_help_flag = true)]
    Doctor {
        /// Arguments of `mixminus-mixer doctor`; --help lists them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

/// Why a verb did not do what was asked; displays as one line.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Configuration(String),
    #[error("{0}")]
    Unreachable(String),
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Internal(String),
}

impl CliError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => exit::USAGE,
            Self::Config(_) | Self::Configuration(_) => exit::CONFIGURATION,
            Self::Unreachable(_) => exit::TEMPORARY,
            Self::Refused(_) => exit::REFUSED,
            Self::Internal(_) => exit::INTERNAL,
        }
    }
}

/// Runs the tool on the program's arguments.
#[must_use]
pub fn main() -> ExitCode {
    // Its arguments are the mixer's: --config means mixer.toml there.
    let mut own = std::env::args_os().skip(1);
    if own.next().is_some_and(|verb| verb == "doctor") {
        return doctor::run(own).unwrap_or_else(|error| fail(&error));
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    match run(arguments) {
        Ok(output) => {
            print_all(&output);
            ExitCode::from(exit::OK)
        }
        Err(error) => fail(&error),
    }
}

fn fail(error: &CliError) -> ExitCode {
    eprintln!("mixminus: {error}");
    ExitCode::from(error.exit_code())
}

/// Prints what the argument parser says: help and version as they are, mistakes as one line.
#[must_use]
pub fn usage(error: &clap::Error) -> ExitCode {
    let text = error.to_string();
    if !error.use_stderr() {
        print_all(&text);
        return ExitCode::from(exit::OK);
    }
    let lines: Vec<&str> = text
        .lines()
        .take_while(|line| !line.starts_with("Usage:"))
        .map(str::trim)
        .collect();
    let reason = lines.join(" ");
    let reason = reason.trim().trim_start_matches("error: ");
    eprintln!(
        "{reason}{} see --help",
        if reason.ends_with('.') { "" } else { ";" }
    );
    ExitCode::from(exit::USAGE)
}

/// A reader that has seen enough closes the pipe; that is no error.
fn print_all(text: &str) {
    use std::io::Write as _;
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn run(arguments: Arguments) -> Result<String, CliError> {
    let config = arguments.config.as_deref().map(Config::load).transpose()?;
    if arguments.check {
        let config = config.map_or_else(Config::defaults, Ok)?;
        return Ok(config.effective());
    }
    let Some(command) = arguments.command else {
        return Err(CliError::Usage(
            "name a verb, like `mixminus status`; see --help".to_owned(),
        ));
    };
    if let Command::CheckConfig { file } = &command {
        return check::check(file, arguments.json);
    }
    if let Command::Doctor { .. } = &command {
        return Err(CliError::Usage(
            "write `doctor` first, like `mixminus doctor --interface IF`; its options follow".to_owned(),
        ));
    }
    let client = Client::new(arguments.url, arguments.token_file.as_deref(), config.as_ref())?;
    perform(&client, command, arguments.json)
}

fn perform(client: &Client, command: Command, json: bool) -> Result<String, CliError> {
    let done = |what: String| {
        if json {
            "{\"done\":true}\n".to_owned()
        } else {
            format!("{what}\n")
        }
    };
    match command {
        Command::Status => show(client, &["status"], json, status_text),
        Command::Conferences => show(client, &["conferences"], json, |all: &Vec<Conference>| {
            conferences_text(all)
        }),
        Command::Show { id } => show(client, &["conferences", &id], json, conference_text),
        Command::Mute { id, participant, off } => {
            let path = ["conferences", &id, "participants", &participant, "mute"];
            client.change(&Verb::Switch { on: !off }, &path)?;
            Ok(done(format!(
                "{participant} in {id} is {}",
                if off { "unmuted" } else { "muted" }
            )))
        }
        Command::Kick { id, participant } => {
            client.change(&Verb::Delete, &["conferences", &id, "participants", &participant])?;
            Ok(done(format!("{participant} is removed from {id}")))
        }
        Command::Lock { id, off } => {
            client.change(&Verb::Switch { on: !off }, &["conferences", &id, "lock"])?;
            Ok(done(format!(
                "{id} is {}",
                if off { "unlocked" } else { "locked" }
            )))
        }
        Command::End { id } => {
            client.change(&Verb::Delete, &["conferences", &id])?;
            Ok(done(format!("{id} is ended")))
        }
        Command::CheckConfig { .. } | Command::Doctor { .. } => {
            Err(CliError::Internal("this verb needs no server".to_owned()))
        }
    }
}

fn show<T: serde::de::DeserializeOwned>(
    client: &Client,
    path: &[&str],
    json: bool,
    text: impl Fn(&T) -> String,
) -> Result<String, CliError> {
    let body = client.get(path)?;
    if json {
        return Ok(body + "\n");
    }
    let value = serde_json::from_str(&body).map_err(|error| {
        CliError::Internal(format!(
            "the answer is not understood: {error}; are both of the same version?"
        ))
    })?;
    Ok(text(&value))
}

fn status_text(status: &Status) -> String {
    let up = |up: bool| if up { "up" } else { "DOWN" }.to_owned();
    let mut table = Table::new(&[]);
    table.row(vec!["node".to_owned(), status.node.clone()]);
    table.row(vec!["version".to_owned(), status.version.clone()]);
    table.row(vec!["uptime".to_owned(), format!("{} s", status.uptime_s)]);
    for (name, number) in [
        ("conferences", status.conferences),
        ("participants", status.participants),
        ("dialogs", status.dialogs),
        ("transactions", status.transactions),
    ] {
        table.row(vec![name.to_owned(), number.to_string()]);
    }
    table.row(vec!["database".to_owned(), up(status.database_up)]);
    for mixer in &status.mixers {
        table.row(vec![
            "mixer".to_owned(),
            format!("{} {}", mixer.url, up(mixer.up)),
        ]);
    }
    table.render()
}

fn conferences_text(conferences: &[Conference]) -> String {
    if conferences.is_empty() {
        return "no conferences\n".to_owned();
    }
    let mut table = Table::new(&[
        "CONFERENCE",
        "STATE",
        "LOCKED",
        "PARTICIPANTS",
        "TALKING",
        "SINCE",
        "MIXER",
    ]);
    for conference in conferences {
        let talking = conference
            .participants
            .iter()
            .filter(|participant| participant.talking)
            .count();
        table.row(vec![
            conference.conference.clone(),
            conference.state.clone(),
            yes_no(conference.locked),
            conference.participants.len().to_string(),
            talking.to_string(),
            conference.activated.clone(),
            conference.mixer.clone(),
        ]);
    }
    table.render()
}

fn conference_text(conference: &Conference) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "{}: {}{}, since {}, on {}",
        table::printable(&conference.conference),
        table::printable(&conference.state),
        if conference.locked { ", locked" } else { "" },
        table::printable(&conference.activated),
        table::printable(&conference.mixer),
    );
    let mut table = Table::new(&[
        "PARTICIPANT",
        "ADDRESS",
        "NAME",
        "STATUS",
        "MUTED",
        "TALKING",
        "CODEC",
        "JOINED",
        "CALL-ID",
    ]);
    for Participant {
        participant,
        uri,
        display_name,
        status,
        muted,
        talking,
        codec,
        joined,
        call_id,
    } in &conference.participants
    {
        table.row(vec![
            participant.clone(),
            uri.clone(),
            display_name.clone(),
            status.clone(),
            yes_no(*muted),
            yes_no(*talking),
            codec.clone(),
            joined.clone(),
            call_id.clone(),
        ]);
    }
    out + &table.render()
}

fn yes_no(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}
