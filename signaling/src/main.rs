//! `mixminus-signaling`: SIP and operator HTTP sidecar.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use signaling::config::Config;
use signaling::metrics::Metrics;
use signaling::{cli, exit, logs, server};

/// SIP and operator HTTP sidecar of mixminus.
#[derive(Debug, Parser)]
#[command(name = "mixminus-signaling", version)]
struct Arguments {
    /// Configuration file; without it everything listens on loopback.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check the configuration, print what is in effect, and exit.
    #[arg(long)]
    check: bool,
    /// How long to wait for a mixer at start.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u16).range(0..=3600))]
    wait_mixer: u16,
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return cli::usage(&error),
    };
    ExitCode::from(run(&arguments))
}

fn run(arguments: &Arguments) -> u8 {
    let config = match arguments
        .config
        .as_deref()
        .map_or_else(Config::defaults, Config::load)
    {
        Ok(config) => config,
        Err(error) => {
            eprintln!("mixminus-signaling: {error}");
            return exit::CONFIGURATION;
        }
    };
    if arguments.check {
        print!("{}", config.effective());
        return exit::OK;
    }
    let metrics = Arc::new(Metrics::default());
    metrics.watch_log(logs::start(&config.log));
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("mixminus-signaling: the system refused: {error}");
            return exit::INTERNAL;
        }
    };
    let wait = Duration::from_secs(u64::from(arguments.wait_mixer));
    let code = match runtime.block_on(server::run(config, wait, metrics)) {
        Ok(()) => exit::OK,
        Err(error) => {
            logs::flush();
            eprintln!("mixminus-signaling: {error}");
            error.exit_code()
        }
    };
    logs::flush();
    code
}
