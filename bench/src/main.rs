//! `mixminus-bench`: callers with real RTP and the who-hears-whom proof, in-process ladders.

use std::process::ExitCode;

use bench::open::OpenError;
use bench::{call, hears, io, ladder, napi, replay};
use clap::{Parser, Subcommand};

/// Load tester of mixminus
#[derive(Debug, Parser)]
#[command(name = "mixminus-bench", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Place SIP calls with real RTP and prove from the received audio who hears whom
    Call(Box<call::Options>),
    /// Measure what a leg costs inside the engine, without packet I/O
    Engine(ladder::Options),
    /// Measure packet I/O without an engine: an echo, and the load for it
    #[command(subcommand)]
    Io(io::Command),
    /// Run an engine over a recording of what went into a worker's engine: the same packets come out
    Replay(replay::Options),
    /// Tell from recordings who hears whom
    Hears {
        /// One client: NAME=SENT.wav:HEARD.wav
        #[arg(long = "leg", required = true)]
        legs: Vec<String>,
        /// Print the pairs as JSON
        #[arg(long)]
        json: bool,
    },
}

/// The run could not be made: bad options (`EX_USAGE`).
const USAGE: u8 = 64;
/// The run could not be made: the system or the server (`EX_TEMPFAIL`).
const UNAVAILABLE: u8 = 75;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(USAGE)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    match arguments.command {
        Command::Call(options) => place_calls(&options),
        Command::Engine(options) => measure_engine(&options),
        Command::Io(command) => move_packets(&command),
        Command::Replay(options) => replay_inputs(&options),
        Command::Hears { legs, json } => judge_recordings(&legs, json),
    }
}

fn place_calls(options: &call::Options) -> ExitCode {
    match call::run(options) {
        Ok(report) => {
            print(&report, options.json);
            verdict(report.ok())
        }
        Err(error) => {
            eprintln!("mixminus-bench call: {error}");
            ExitCode::from(match error {
                call::CallError::Open(error) => cannot_open(&error),
                call::CallError::Options(_) | call::CallError::Wav { .. } => USAGE,
                call::CallError::Io { .. } | call::CallError::Process(_) | call::CallError::Napi(_) => {
                    UNAVAILABLE
                }
            })
        }
    }
}

fn measure_engine(options: &ladder::Options) -> ExitCode {
    if let Some(id) = options.core
        && !core_affinity::set_for_current(core_affinity::CoreId { id })
    {
        eprintln!("mixminus-bench engine: core {id} cannot be used");
        return ExitCode::from(USAGE);
    }
    let results = match ladder::run(options) {
        Ok(results) => results,
        Err(error) => {
            eprintln!("mixminus-bench engine: {error}");
            return ExitCode::from(USAGE);
        }
    };
    if options.json {
        print_json(&ladder::Record::new(&results));
    } else {
        println!("{results}");
    }
    if let Some(folder) = &options.write
        && let Err(error) = ladder::Record::new(&results).write(folder)
    {
        eprintln!("mixminus-bench engine: {error}");
        return ExitCode::from(UNAVAILABLE);
    }
    verdict(results.ok())
}

fn replay_inputs(options: &replay::Options) -> ExitCode {
    match replay::run(options, |packet| println!("{packet}")) {
        Ok(report) => {
            print(&report, options.json);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("mixminus-bench replay: {error}");
            ExitCode::from(USAGE)
        }
    }
}

fn move_packets(command: &io::Command) -> ExitCode {
    let made = match command {
        io::Command::Echo(options) => io::echo(options).map(|report| {
            print(&report, options.json);
            ExitCode::SUCCESS
        }),
        io::Command::Load(options) => io::load(options).map(|report| {
            print(&report, options.json);
            verdict(report.ok())
        }),
        io::Command::Napi { interface } => napi::Napi::find(interface, None)
            .map(|napi| {
                napi.threads.iter().for_each(|thread| println!("{thread}"));
                ExitCode::SUCCESS
            })
            .map_err(io::IoError::from),
    };
    made.unwrap_or_else(|error| {
        eprintln!("mixminus-bench io: {error}");
        ExitCode::from(match error {
            io::IoError::Open(error) => cannot_open(&error),
            io::IoError::NoPacket(_) | io::IoError::Process(_) | io::IoError::Napi(_) => UNAVAILABLE,
        })
    })
}

fn cannot_open(error: &OpenError) -> u8 {
    match error {
        OpenError::Options(_) => USAGE,
        OpenError::Backend(error) => error.exit_code(),
        OpenError::System { .. } => UNAVAILABLE,
    }
}

fn judge_recordings(arguments: &[String], json: bool) -> ExitCode {
    let legs: Result<Vec<hears::Leg>, _> = arguments
        .iter()
        .map(|argument| hears::Leg::from_argument(argument))
        .collect();
    match legs.and_then(|legs| hears::judge(&legs)) {
        Ok(pairs) => {
            if json {
                print_json(&pairs);
            } else {
                print!("{}", hears::table(&pairs));
            }
            verdict(pairs.iter().all(|pair| pair.ok))
        }
        Err(error) => {
            eprintln!("mixminus-bench hears: {error}");
            ExitCode::from(USAGE)
        }
    }
}

fn verdict(ok: bool) -> ExitCode {
    if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print(report: &(impl serde::Serialize + std::fmt::Display), json: bool) {
    if json {
        print_json(report);
    } else {
        println!("{report}");
    }
}

fn print_json(value: &impl serde::Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => println!("{text}"),
        Err(error) => eprintln!("mixminus-bench: {error}"),
    }
}
