//! The mixer's program: configuration, logs, signals. Everything else is in the library.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use mixer::config::{Config, LogConfig, LogFormat};
use mixer::prompts::Prompts;
use mixer::server::{Privileges, Server};
use mixer::upgrade::{self, HandOverError, Program};
use mixer::{doctor, placement};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

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
    run(&arguments)
}

fn run(arguments: &Arguments) -> ExitCode {
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
    // Before anything runs: a signal that comes early must not kill.
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => return fail(&error, INTERNAL),
    };
    let started = match inherited {
        None => Server::start(config.clone(), Privileges::GiveUp),
        Some(image) => Server::resume(config.clone(), image, Privileges::GiveUp),
    };
    let mut server = match started {
        Ok(server) => server,
        Err(error) if resumes => return fail(&error, INTERNAL),
        Err(error) => return fail(&error, error.exit_code()),
    };
    match signals.serve(&mut server, &config, program.as_ref().ok()) {
        End::Signal(signal) => tracing::info!(signal, "stopping"),
        End::Control => tracing::error!("control ended by itself"),
        End::Upgrade(error) => return fail(&error, INTERNAL),
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

/// The signals that the program listens for, and what waits for them.
struct Signals {
    runtime: Runtime,
    terminate: Signal,
    interrupt: Signal,
    upgrade: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let listen = |kind| runtime.block_on(async { signal(kind) });
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            upgrade: listen(SignalKind::user_defined2())?,
            runtime,
        })
    }

    /// Serves until the end; upgrades when asked to, which does not come back when it works.
    fn serve(&mut self, server: &mut Server, config: &Config, program: Option<&Program>) -> End {
        let Self {
            runtime,
            terminate,
            interrupt,
            upgrade,
        } = self;
        runtime.block_on(async {
            let mut check = tokio::time::interval(Duration::from_millis(500));
            loop {
                tokio::select! {
                    _ = terminate.recv() => return End::Signal("SIGTERM"),
                    _ = interrupt.recv() => return End::Signal("SIGINT"),
                    _ = upgrade.recv() => {
                        let Some(program) = program else {
                            tracing::error!("upgrade refused: the path of this program is not known");
                            continue;
                        };
                        match replace(server, config, program).await {
                            error @ HandOverError::Failed(_) => return End::Upgrade(error),
                            error @ (HandOverError::Refused(_) | HandOverError::Unfit(_)) => {
                                tracing::error!(%error, "upgrade refused");
                            }
                        }
                    }
                    _ = check.tick() => {
                        if server.has_failed() {
                            return End::Control;
                        }
                    }
                }
            }
        })
    }
}

/// Puts the program that is in the file now in the place of this one.
async fn replace(server: &mut Server, config: &Config, program: &Program) -> HandOverError {
    tracing::info!("upgrade: asking the program in the file");
    if let Err(error) = program.check(config).await {
        return error;
    }
    upgrade::bring_memory_near();
    match server.hand_over() {
        Ok(image) => program.replace(&image),
        Err(error) => error,
    }
}
