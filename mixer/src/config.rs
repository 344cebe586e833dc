//! Configuration: TOML in, typed and bounded [`Config`] out; every error is one line that names
//! file and line, what is wrong and what to do about it.
//!
//! Without a file the defaults hold: everything on loopback. An unknown key is an error.

mod file;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use file::{RawConfig, Reader};

/// Everything the mixer is told from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// RTP and packet I/O.
    pub io: IoConfig,
    /// Worker threads.
    pub workers: WorkersConfig,
    /// HTTP control link.
    pub control: ControlConfig,
    /// Capacities.
    pub limits: LimitsConfig,
    /// Admission by measured headroom.
    pub admission: AdmissionConfig,
    /// Prompts.
    pub prompts: PromptsConfig,
    /// Recordings of what goes into the workers' engines.
    pub replay: ReplayConfig,
    /// Log.
    pub log: LogConfig,
}

/// Section `[io]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IoConfig {
    /// Which packet I/O.
    pub backend: BackendChoice,
    /// Network interface for the XDP backends.
    pub interface: Option<String>,
    /// RTP address, bound and advertised.
    pub address: IpAddr,
    /// RTP ports, first and last included.
    pub ports: PortRange,
    /// Where the XDP program may run.
    pub xdp_mode: XdpMode,
    /// Whether AF_XDP tries zero-copy.
    pub zero_copy: bool,
    /// Packets per second that one source address and port may send to AF_XDP; 0: no budget.
    pub source_budget: u32,
    /// VLAN identifiers that every frame carries, outermost first; at most two. Empty: as the kernel's
    /// own VLAN interfaces say.
    pub vlan: Vec<u16>,
}

/// What `[io] xdp_mode` may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// In the driver or not at all.
    Driver,
    /// In the driver, else in the network stack.
    Auto,
    /// In the network stack.
    Skb,
}

impl XdpMode {
    /// As written in the file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Driver => "driver",
            Self::Auto => "auto",
            Self::Skb => "skb",
        }
    }
}

/// A range of UDP ports, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    /// First port.
    pub first: u16,
    /// Last port.
    pub last: u16,
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// What `[io] backend` may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackendChoice {
    /// The best that the host allows; the log says which and why.
    Auto,
    /// AF_XDP both ways.
    Xdp,
    /// AF_XDP for sending only.
    XdpTx,
    /// UDP sockets on io_uring.
    Uring,
}

impl BackendChoice {
    /// As written in the file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Xdp => "xdp",
            Self::XdpTx => "xdp-tx",
            Self::Uring => "uring",
        }
    }
}

/// Section `[workers]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkersConfig {
    /// One pinned worker on each of these cores.
    pub cores: Vec<usize>,
    /// Busy-wait between slots instead of sleeping (dedicated cores only).
    pub spin: bool,
}

/// Section `[control]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlConfig {
    /// Address of the HTTP listener.
    pub listen: SocketAddr,
    /// Where the token was read from.
    pub token_file: Option<PathBuf>,
    /// Token that every request but `GET /healthz` must carry as `Authorization: Bearer`.
    pub token: Option<Token>,
    /// HTTP connections at most.
    pub connections: usize,
    /// Events kept for readers that come back.
    pub events: usize,
    /// A worker that does not answer for so long lets the command end in `timeout`.
    pub command_timeout: Duration,
}

/// A secret; its text never reaches a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Wraps a secret.
    #[must_use]
    pub fn new(secret: String) -> Self {
        Self(secret)
    }

    /// Whether `offered` is the secret; takes the same time wherever they differ.
    #[must_use]
    pub fn matches(&self, offered: &[u8]) -> bool {
        let mine = self.0.as_bytes();
        let differing = mine.iter().zip(offered).fold(0u8, |bits, (a, b)| bits | (a ^ b));
        mine.len() == offered.len() && differing == 0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Section `[limits]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitsConfig {
    /// Conferences at most, over all workers.
    pub conferences: u32,
    /// Endpoints at most, over all workers.
    pub endpoints: u32,
    /// No RTP for so long is a media timeout (spec M-23).
    pub media_timeout: Duration,
}

/// Section `[admission]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdmissionConfig {
    /// A worker that is busy for such a share of its time takes no more endpoints, percent; 100: never.
    pub busy_percent: u32,
    /// Below this it takes endpoints again.
    pub reopen_percent: u32,
}

/// Section `[prompts]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptsConfig {
    /// Folder of WAV files; only the synthesised set when absent.
    pub folder: Option<PathBuf>,
}

/// Section `[replay]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayConfig {
    /// Memory for the recording of each worker, in 2^20 bytes.
    pub megabytes: usize,
    /// Where recordings are written when workers end; nothing is recorded when absent.
    pub folder: Option<PathBuf>,
}

/// Section `[log]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// Least severity written.
    pub level: LogLevel,
    /// Form of a line.
    pub format: LogFormat,
}

/// Least severity that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Only faults.
    Error,
    /// Also what may wake somebody.
    Warn,
    /// Also changes of conferences and endpoints.
    Info,
    /// Also every command.
    Debug,
}

impl LogLevel {
    /// As written in the file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

/// Form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people: `time level message key=value ..`.
    Text,
    /// One JSON object.
    Json,
}

impl LogFormat {
    /// As written in the file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// Why a configuration cannot be used. Displays as one line: place, what is wrong, remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}; {remedy}")]
pub struct ConfigError {
    /// `file:line`, or the file alone.
    pub place: String,
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub remedy: String,
}

impl Config {
    /// What holds without a file, on a machine with these cores.
    #[must_use]
    pub fn defaults(cores: &[usize]) -> Self {
        // Core 0 usually serves interrupts and the housekeeping thread.
        let core = if cores.contains(&1) {
            1
        } else {
            cores.first().copied().unwrap_or(0)
        };
        Self {
            io: IoConfig {
                backend: BackendChoice::Auto,
                interface: None,
                address: IpAddr::V4(Ipv4Addr::LOCALHOST),
                ports: PortRange {
                    first: 10_000,
                    last: 32_767,
                },
                xdp_mode: XdpMode::Driver,
                zero_copy: true,
                source_budget: 0,
                vlan: Vec::new(),
            },
            workers: WorkersConfig {
                cores: vec![core],
                spin: false,
            },
            control: ControlConfig {
                listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8090)),
                token_file: None,
                token: None,
                connections: 256,
                events: 65_536,
                command_timeout: Duration::from_millis(2000),
            },
            limits: LimitsConfig {
                conferences: 4096,
                endpoints: 10_000,
                media_timeout: Duration::from_millis(60_000),
            },
            admission: AdmissionConfig {
                busy_percent: 80,
                reopen_percent: 75,
            },
            prompts: PromptsConfig { folder: None },
            replay: ReplayConfig {
                megabytes: 64,
                folder: None,
            },
            log: LogConfig {
                level: LogLevel::Info,
                format: LogFormat::Text,
            },
        }
    }

    /// Reads and validates a file for a machine with these cores.
    ///
    /// # Errors
    /// The file cannot be read, is not TOML, holds an unknown key or a value out of bounds.
    pub fn load(path: &Path, cores: &[usize]) -> Result<Self, ConfigError> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError {
            place: file.clone(),
            problem: format!("cannot be read: {error}"),
            remedy: "check the path given to --config and its permissions".to_owned(),
        })?;
        Self::parse(&file, &text, cores)
    }

    /// Validates the text of a file; `file` is only its name in errors.
    ///
    /// # Errors
    /// As [`Config::load`], but for reading.
    pub fn parse(file: &str, text: &str, cores: &[usize]) -> Result<Self, ConfigError> {
        let reader = Reader { file, text };
        let raw: RawConfig = toml::from_str(text).map_err(|error| {
            let problem = error.message().split('\n').collect::<Vec<_>>().join(", ");
            let remedy = if problem.contains("unknown field") {
                "remove the key or correct its spelling (mixer.sample.toml lists every key)"
            } else {
                "correct the value (mixer.sample.toml shows every key)"
            };
            reader.fail(error.span(), problem, remedy)
        })?;
        let defaults = Self::defaults(cores);
        Ok(Self {
            io: reader.io(raw.io, defaults.io)?,
            workers: reader.workers(raw.workers, defaults.workers, cores)?,
            control: reader.control(raw.control, defaults.control)?,
            limits: reader.limits(raw.limits, &defaults.limits)?,
            admission: reader.admission(&raw.admission, defaults.admission)?,
            prompts: reader.prompts(raw.prompts)?,
            replay: reader.replay(raw.replay, &defaults.replay)?,
            log: LogConfig {
                level: raw.log.level.unwrap_or(defaults.log.level),
                format: raw.log.format.unwrap_or(defaults.log.format),
            },
        })
    }
}

impl fmt::Display for Config {
    /// The effective configuration as TOML, every key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
        let path = |path: &Option<PathBuf>| {
            quoted(
                &path
                    .as_ref()
                    .map(|path| path.display().to_string())
                    .unwrap_or_default(),
            )
        };
        writeln!(f, "[io]")?;
        writeln!(f, "backend = {}", quoted(self.io.backend.name()))?;
        writeln!(
            f,
            "interface = {}",
            quoted(self.io.interface.as_deref().unwrap_or_default())
        )?;
        writeln!(f, "address = \"{}\"", self.io.address)?;
        writeln!(f, "ports = \"{}\"", self.io.ports)?;
        writeln!(f, "xdp_mode = \"{}\"", self.io.xdp_mode.name())?;
        writeln!(f, "zero_copy = {}", self.io.zero_copy)?;
        writeln!(f, "source_budget = {}", self.io.source_budget)?;
        writeln!(f, "vlan = {:?}", self.io.vlan)?;
        writeln!(f, "\n[workers]")?;
        writeln!(f, "cores = {:?}", self.workers.cores)?;
        writeln!(f, "spin = {}", self.workers.spin)?;
        writeln!(f, "\n[control]")?;
        writeln!(f, "listen = \"{}\"", self.control.listen)?;
        writeln!(f, "token_file = {}", path(&self.control.token_file))?;
        writeln!(f, "connections = {}", self.control.connections)?;
        writeln!(f, "events = {}", self.control.events)?;
        writeln!(
            f,
            "command_timeout_ms = {}",
            self.control.command_timeout.as_millis()
        )?;
        writeln!(f, "\n[limits]")?;
        writeln!(f, "conferences = {}", self.limits.conferences)?;
        writeln!(f, "endpoints = {}", self.limits.endpoints)?;
        writeln!(f, "media_timeout_ms = {}", self.limits.media_timeout.as_millis())?;
        writeln!(f, "\n[admission]")?;
        writeln!(f, "busy_percent = {}", self.admission.busy_percent)?;
        writeln!(f, "reopen_percent = {}", self.admission.reopen_percent)?;
        writeln!(f, "\n[prompts]")?;
        writeln!(f, "folder = {}", path(&self.prompts.folder))?;
        writeln!(f, "\n[replay]")?;
        writeln!(f, "megabytes = {}", self.replay.megabytes)?;
        writeln!(f, "folder = {}", path(&self.replay.folder))?;
        writeln!(f, "\n[log]")?;
        writeln!(f, "level = \"{}\"", self.log.level.name())?;
        writeln!(f, "format = \"{}\"", self.log.format.name())
    }
}

#[cfg(test)]
mod tests;
