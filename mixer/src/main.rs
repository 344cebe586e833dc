//! The mixer's program: configuration, logs, signals. Everything else is in the library.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use mixer::config::{Config, LogConfig, LogFormat};
use mixer::placement;
use mixer::prompts::Prompts;
use mixer::server::Server;
use mixer::upgrade::{self, HandOverError, Program};
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
    /// Print the number of the state that can be taken over from a running mixer, exit.
    #[arg(long)]
    state_format: bool,
    /// Form of log lines; overrides log.format.
    #[arg(long, value_enum)]
    log_format: Option<LogFormat>,
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
    // Both before anything else: a file that is replaced has no name, and what was handed over waits.
    let program = upgrade::Program::this();
    let inherited = match upgrade::inherited() {
        Ok(inherited) => inherited,
        Err(error) => return fail(&error, INTERNAL),
    };
    let resumes = inherited.is_some();
    let cores = placement::available_cores();
    let config = match &arguments.config {
        None => Ok(Config::defaults(&cores)),
        Some(path) => Config::load(path, &cores),
    };
    let mut config = match config {
        Ok(config) => config,
        Err(error) if resumes => return fail(&error, INTERNAL),
        Err(error) => return fail(&error, CONFIGURATION),
    };
    config.log.format = arguments.log_format.unwrap_or(config.log.format);
    if arguments.check {
        // A reader that went away has seen enough.
        let _ = write!(std::io::stdout(), "{config}");
        return ExitCode::SUCCESS;
    }
    if arguments.state_format {
        // Whoever asks must hear now what would fail when it is too late.
        if let Err(error) = Prompts::load(config.prompts.folder.as_deref()) {
            return fail(&error, CONFIGURATION);
        }
        let _ = writeln!(std::io::stdout(), "{}", upgrade::STATE_FORMAT);
        return ExitCode::SUCCESS;
    }
    start_log(&config.log);
    let started = match inherited {
        None => Server::start(config.clone()),
        Some(image) => Server::resume(config.clone(), image),
    };
    let mut server = match started {
        Ok(server) => server,
        Err(error) if resumes => return fail(&error, INTERNAL),
        Err(error) => return fail(&error, error.exit_code()),
    };
    match serve(&mut server, &config, program.as_ref().ok()) {
        Ok(End::Signal(signal)) => tracing::info!(signal, "stopping"),
        Ok(End::Control) => tracing::error!("control ended by itself"),
        Ok(End::Upgrade(error)) => return fail(&error, INTERNAL),
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

/// Why the program ends.
enum End {
    /// A signal asked for it.
    Signal(&'static str),
    /// Control ended by itself.
    Control,
    /// An upgrade failed when everything had been stopped.
    Upgrade(HandOverError),
}

/// Serves until the end; upgrades when asked to, which does not come back when it works.
fn serve(server: &mut Server, config: &Config, program: Option<&Program>) -> std::io::Result<End> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut upgrade = signal(SignalKind::user_defined2())?;
        let mut check = tokio::time::interval(Duration::from_millis(500));
        loop {
            tokio::select! {
                _ = terminate.recv() => return Ok(End::Signal("SIGTERM")),
                _ = interrupt.recv() => return Ok(End::Signal("SIGINT")),
                _ = upgrade.recv() => {
                    let Some(program) = program else {
                        tracing::error!("upgrade refused: the path of this program is not known");
                        continue;
                    };
                    match replace(server, config, program).await {
                        error @ HandOverError::Failed(_) => return Ok(End::Upgrade(error)),
                        error @ (HandOverError::Refused(_) | HandOverError::Unfit(_)) => {
                            tracing::error!(%error, "upgrade refused");
                        }
                    }
                }
                _ = check.tick() => {
                    if server.has_failed() {
                        return Ok(End::Control);
                    }
                }
            }
        }
    })
}

/// Puts the program that is in the file now in the place of this one.
async fn replace(server: &mut Server, config: &Config, program: &Program) -> HandOverError {
    tracing::info!("upgrade: asking the program in the file");
    if let Err(error) = program.check(config).await {
        return error;
    }
    match server.hand_over() {
        Ok(image) => program.replace(&image),
        Err(error) => error,
    }
}
