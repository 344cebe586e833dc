//! `mixminus-bench replay`: an engine over a recording of what went into a worker's engine.

use std::fmt;
use std::path::PathBuf;

use clap::Args;
use mixer::replay::{self, Played, ReplayError, Sent};
use serde::Serialize;

/// Options of `replay`.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// The recording: a file from the mixer's `replay.folder`
    pub file: PathBuf,
    /// Print every packet sent: slot, endpoint, length, digest
    #[arg(long, conflicts_with = "json")]
    pub packets: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What a replay did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Datagrams received.
    pub datagrams: u64,
    /// Commands applied.
    pub commands: u64,
    /// Slots run.
    pub slots: u64,
    /// Packets sent.
    pub sent: u64,
    /// Packets written that packet I/O had not taken.
    pub not_taken: u64,
    /// Of every packet sent, with its slot and endpoint, in order.
    pub digest: String,
}

/// Why there was no replay.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The file cannot be read.
    #[error("{}: {error}", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It cannot be replayed.
    #[error("{}: {error}", file.display())]
    Replay {
        /// Which.
        file: PathBuf,
        /// Why.
        error: ReplayError,
    },
}

/// Replays a file; `packet` gets a line for each packet if they are asked for.
///
/// # Errors
/// See [`RunError`].
pub fn run(options: &Options, mut packet: impl FnMut(&str)) -> Result<Report, RunError> {
    let file = || options.file.clone();
    let recording = std::fs::read(&options.file).map_err(|error| RunError::File { file: file(), error })?;
    let mut digest = Digest::new();
    let played = replay::play(&recording, |sent| {
        digest.packet(&sent);
        if options.packets {
            let (slot, flow, length) = (sent.slot.0, sent.flow.0, sent.payload.len());
            let mut own = Digest::new();
            own.bytes(sent.payload);
            packet(&format!("{slot} {flow} {length} {own}"));
        }
    });
    let Played {
        datagrams,
        commands,
        slots,
        sent,
        not_taken,
    } = played.map_err(|error| RunError::Replay { file: file(), error })?;
    Ok(Report {
        datagrams,
        commands,
        slots,
        sent,
        not_taken,
        digest: digest.to_string(),
    })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} datagrams, {} commands, {} slots in",
            self.datagrams, self.commands, self.slots
        )?;
        writeln!(
            f,
            "{} packets out, {} more were not taken",
            self.sent, self.not_taken
        )?;
        write!(f, "digest {}", self.digest)
    }
}

/// FNV-1a, 64 bit.
struct Digest(u64);

impl Digest {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn packet(&mut self, sent: &Sent<'_>) {
        self.bytes(&sent.slot.0.to_le_bytes());
        self.bytes(&sent.flow.0.to_le_bytes());
        self.bytes(&(sent.payload.len() as u64).to_le_bytes());
        self.bytes(sent.payload);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
