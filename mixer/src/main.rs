//! The mixer's program: configuration, logs, signals. Everything else is in the library.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use mixer::config::{Config, LogConfig, LogFormat};
use mixer::{doctor, placement, server::Server};
use tokio::signal::unix::{SignalKind, signal};

/// mixminus media plane: RTP in and out, HTTP control link, metrics.
#[derive(Debug, Parser)]
#[command(
    name = "mixminus-mixer",
    version,
    after_help = "Exit codes: 0 ok, 64 usage, 70 internal fault, 75 try again (address in use), 78 configuration.\n\
                  Without --config safe loopback defaults hold; --check prints them."
)]
struct Arguments {
    /// Configuration file (TOML; mixer.sample.toml lists every key).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Validate, print the effective configuration, exit.
    #[arg(long)]
    check: bool,
    /// Form of log lines; overrides log.format.
    #[arg(long, value_enum)]
    log_format: Option<LogFormat>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Look at this machine: what holds the mixer back, and the command that mends it.
    Doctor(doctor::Arguments),
}

/// Exit codes of sysexits.h.
const USAGE: u8 = 64;
const INTERNAL: u8 = 70;
const CONFIGURATION: u8 = 78;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are no errors; both go where clap wants them.
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(USAGE)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    if let Some(Command::Doctor(mut asked)) = arguments.command {
        asked.config = asked.config.or(arguments.config);
        return doctor::run(&asked).unwrap_or_else(|error| fail(&error, CONFIGURATION));
    }
    let cores = placement::available_cores();
    let config = match &arguments.config {
        None => Ok(Config::defaults(&cores)),
        Some(path) => Config::load(path, &cores),
    };
    let mut config = match config {
        Ok(config) => config,
        Err(error) => return fail(&error, CONFIGURATION),
    };
    config.log.format = arguments.log_format.unwrap_or(config.log.format);
    if arguments.check {
        // A reader that went away has seen enough.
        let _ = write!(std::io::stdout(), "{config}");
        return ExitCode::SUCCESS;
    }
    start_log(&config.log);
    let server = match Server::start(config) {
        Ok(server) => server,
        Err(error) => return fail(&error, error.exit_code()),
    };
    match wait_for_signal(&server) {
        Ok(Some(signal)) => tracing::info!(signal, "stopping"),
        Ok(None) => tracing::error!("control ended by itself"),
        Err(error) => tracing::error!(%error, "signals cannot be awaited"),
    }
    let failed = server.has_failed();
    match server.shutdown() {
        Ok(()) if !failed => {
            tracing::info!("stopped");
            ExitCode::SUCCESS
        }
        Ok(()) => ExitCode::from(INTERNAL),
        Err(error) => fail(&error, INTERNAL),
    }
}

fn fail(error: &dyn std::error::Error, code: u8) -> ExitCode {
    // Standard error is all there is to tell it to.
    let _ = writeln!(std::io::stderr(), "mixminus-mixer: {error}");
    ExitCode::from(code)
}

fn start_log(config: &LogConfig) {
    let filter = tracing_subscriber::EnvFilter::new(config.level.name());
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match config.format {
        LogFormat::Text => log.with_ansi(false).with_target(false).init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}

/// The signal that came, or `None` when the server ended by itself.
fn wait_for_signal(server: &Server) -> std::io::Result<Option<&'static str>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut check = tokio::time::interval(Duration::from_millis(500));
        loop {
            tokio::select! {
                _ = terminate.recv() => return Ok(Some("SIGTERM")),
                _ = interrupt.recv() => return Ok(Some("SIGINT")),
                _ = check.tick() => {
                    if server.has_failed() {
                        return Ok(None);
                    }
                }
            }
        }
    })
}
