//! `mixminus-bench call`: N SIP calls with real RTP into M conferences, and the proof of who hears whom.

pub mod delay;
pub mod judge;
pub mod leg;
pub mod receiver;
pub mod report;
mod run;
pub mod secure;
pub mod stage;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::Args;
use mixer::config::BackendChoice;
use mixer::placement::PortBlock;
use signaling_core::srtp::SrtpSuite;

use crate::napi::NapiError;
use crate::open::{OpenError, backend, ports};
use crate::process::ProcessError;
use crate::sound::g711::Law;
pub use run::run;

/// Options of `call`.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// SIP address of the server
    #[arg(long, default_value = "127.0.0.1:5060")]
    pub target: SocketAddr,
    /// Calls to place
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub legs: u32,
    /// Number of the first conference, so that several load testers stay apart
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub first_conference: u32,
    /// Conferences to spread them over (`conf-bench-0`, `conf-bench-1`, ...)
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub conferences: u32,
    /// Talkers per conference; the others send silence [default: all]
    #[arg(long)]
    pub talkers: Option<u32>,
    /// Measured seconds
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub seconds: u64,
    /// Calls per second at set-up
    #[arg(long, default_value_t = 50.0)]
    pub rate: f64,
    /// Codec offered: pcmu or pcma
    #[arg(long, default_value = "pcmu", value_parser = law)]
    pub codec: Law,
    /// SRTP of this suite, with keys in SDP: AES_CM_128_HMAC_SHA1_80, AEAD_AES_128_GCM, ...
    #[arg(long, value_parser = secure::suite)]
    pub srtp: Option<SrtpSuite>,
    /// SIP over one TCP connection instead of UDP
    #[arg(long)]
    pub tcp: bool,
    /// Local address of SIP and RTP [default: what the kernel routes from]
    #[arg(long)]
    pub bind: Option<IpAddr>,
    /// Packet I/O of RTP: uring, xdp or xdp-tx; SIP has a socket of its own. XDP needs --interface and --bind
    #[arg(long, default_value = "uring", value_parser = backend)]
    pub backend: BackendChoice,
    /// Interface of the XDP backends
    #[arg(long)]
    pub interface: Option<String>,
    /// RTP ports FIRST-LAST of the XDP backends, of which the even ones are used; io_uring takes what the kernel gives
    #[arg(long, default_value = "40000-59999", value_parser = ports)]
    pub ports: PortBlock,
    /// VLAN identifiers that every RTP frame carries both ways, outermost first; XDP only
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=4_094))]
    pub vlan: Vec<u16>,
    /// Core to pin to
    #[arg(long)]
    pub core: Option<usize>,
    /// Server process to measure; may be given several times
    #[arg(long = "server-pid")]
    pub server_pids: Vec<u32>,
    /// Interface whose NAPI threads' time is added to that of the server processes
    #[arg(long, requires = "server_pids")]
    pub napi_of: Option<String>,
    /// Network namespace of that interface [default: that of this process]
    #[arg(long, requires = "napi_of")]
    pub netns: Option<String>,
    /// Resident KiB of all server processes when empty [default: read before the first call]
    #[arg(long)]
    pub rss_base: Option<u64>,
    /// Seconds of delay measurement before the matrix; 0 leaves it out
    #[arg(long, default_value_t = 4)]
    pub delay_seconds: u64,
    /// Measure delay only, for all of `--seconds`
    #[arg(long)]
    pub delay: bool,
    /// Calls refused with 503 and Retry-After are counted, not failed; who came up is judged
    #[arg(long)]
    pub overload: bool,
    /// Seed of tones, phases and RTP start values
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
    /// Folder for one WAV per leg of what it received
    #[arg(long)]
    pub wav: Option<PathBuf>,
    /// 8 kHz mono 16-bit WAV that the first talker of every conference sends instead of a tone
    #[arg(long)]
    pub wav_source: Option<PathBuf>,
    /// What the verdict tolerates
    #[command(flatten)]
    pub limits: Limits,
}

/// Figures above which a run has failed; without them figures are only printed.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Limits {
    /// Highest delay through the mixer, 99th percentile in milliseconds
    #[arg(long)]
    pub max_delay_p99_ms: Option<f64>,
    /// Highest CPU use of all server processes, percent of a core per 1,000 legs
    #[arg(long)]
    pub max_cpu_per_1000: Option<f64>,
    /// Highest resident memory of all server processes beyond the base, KiB per leg
    #[arg(long)]
    pub max_rss_per_leg_kib: Option<f64>,
}

fn law(name: &str) -> Result<Law, String> {
    match name {
        "pcmu" => Ok(Law::Pcmu),
        "pcma" => Ok(Law::Pcma),
        other => Err(format!("`{other}` is neither pcmu nor pcma")),
    }
}

/// Why a run could not be made at all.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Options that do not go together.
    #[error("{0}")]
    Options(String),
    /// Packet I/O cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A socket or a file failed.
    #[error("{what}: {error}")]
    Io {
        /// What was being done.
        what: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// A server process cannot be read.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// There is no account of receiving.
    #[error(transparent)]
    Napi(#[from] NapiError),
    /// A WAV file cannot be used.
    #[error("{path}: {what}")]
    Wav {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}
