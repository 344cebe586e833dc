//! Configuration: TOML in, checked and bounded values out.
//!
//! Invariants: an unknown key, a wrong type or a value out of range is an error that names the file,
//! the line and the remedy; every default is visible in [`Config::effective`]; no default listens
//! beyond loopback and no default password exists.

mod address;
mod raw;

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use signaling_core::input::Transport;
use signaling_core::srtp::SrtpPolicy;

pub use address::{Network, in_any_network};

/// A checked configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// This node.
    pub node: Node,
    /// SIP.
    pub sip: Sip,
    /// Operator HTTP.
    pub http: Http,
    /// Mixers, at least one.
    pub mixers: Vec<Mixer>,
    /// Database.
    pub store: StoreUrl,
    /// Rooms.
    pub rooms: Rooms,
    /// Logs.
    pub log: Log,
}

/// `[node]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Name of the node: owner label of its conferences on the mixers and first part of command ids.
    pub name: String,
}

/// `[sip]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sip {
    /// Sockets to listen on.
    pub listen: Vec<Listener>,
    /// Domain of our addresses.
    pub domain: String,
    /// Peers accepted without digest.
    pub trusted: Vec<Network>,
    /// Peers whose RTP source is learnt instead of taken from SDP.
    pub learn_source: Vec<Network>,
    /// Who gets SRTP, but for the next two.
    pub srtp: SrtpPolicy,
    /// Peers with SRTP or not at all.
    pub srtp_require: Vec<Network>,
    /// Peers without SRTP.
    pub srtp_off: Vec<Network>,
    /// Most calls at once.
    pub calls_max: usize,
    /// Most TCP connections at once.
    pub connections_max: usize,
}

/// One SIP socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    /// Transport.
    pub transport: Transport,
    /// Address to bind.
    pub address: SocketAddr,
}

impl std::fmt::Display for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let transport = match self.transport {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
        };
        write!(f, "{transport}:{}", self.address)
    }
}

/// `[http]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// Address to bind.
    pub listen: SocketAddr,
    /// File that holds the bearer token.
    pub token_file: Option<PathBuf>,
    /// The token itself; never printed.
    pub token: Option<Token>,
}

/// A secret read from a file; its `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The secret.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

/// `[[mixer]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mixer {
    /// Base URL of its control link, without a trailing slash.
    pub url: String,
    /// File that holds the bearer token of its control link.
    pub token_file: Option<PathBuf>,
    /// The token itself; never printed.
    pub token: Option<Token>,
}

/// `[store]`: where the conferencing store lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// A SQLite file, created with its directory when absent.
    SqliteFile(PathBuf),
    /// SQLite in memory: nothing survives; for tests.
    SqliteMemory,
}

impl std::fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::SqliteFile(path) => write!(f, "sqlite:{}", path.display()),
            Self::SqliteMemory => f.write_str("sqlite::memory:"),
        }
    }
}

/// `[rooms]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rooms {
    /// Any `sip:conf-NAME@DOMAIN` is created by its first caller.
    pub auto_create: bool,
    /// Talkers mixed at once at most; absent: all.
    pub talkers: Option<u8>,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Filter in the syntax of `tracing-subscriber`'s `EnvFilter`.
    pub level: String,
    /// Form of a line.
    pub format: LogFormat,
}

/// Form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Why a configuration cannot be used; displays as one line with the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error(
        "{path}: cannot be read: {reason}; give an existing file to --config or start without it for the defaults"
    )]
    Unreadable {
        /// Its path.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// A line of the file is wrong.
    #[error("{path}:{line}: {message}")]
    Line {
        /// Its path.
        path: String,
        /// Line number from 1.
        line: usize,
        /// What is wrong and what to do.
        message: String,
    },
    /// The whole does not fit together.
    #[error("{path}: {message}")]
    Whole {
        /// Its path.
        path: String,
        /// What is wrong and what to do.
        message: String,
    },
}

impl Config {
    /// The defaults: everything on loopback.
    ///
    /// # Errors
    /// Never in practice: the defaults are tested to be valid.
    pub fn defaults() -> Result<Self, ConfigError> {
        Self::parse("(defaults)", "")
    }

    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`] with file, line and remedy.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable {
            path: name.clone(),
            reason: error.to_string(),
        })?;
        Self::parse(&name, &text)
    }

    /// Checks the text of a file called `path`.
    ///
    /// # Errors
    /// [`ConfigError`] with file, line and remedy.
    pub fn parse(path: &str, text: &str) -> Result<Self, ConfigError> {
        raw::parse(path, text)
    }

    /// Whether every SIP listener is on loopback.
    #[must_use]
    pub fn sip_is_loopback(&self) -> bool {
        self.sip
            .listen
            .iter()
            .all(|listener| listener.address.ip().is_loopback())
    }

    /// The effective configuration as a TOML document that [`Config::parse`] accepts.
    #[must_use]
    pub fn effective(&self) -> String {
        let mut out = String::new();
        let listen = quoted_list(self.sip.listen.iter());
        let trusted = quoted_list(self.sip.trusted.iter());
        let learn_source = quoted_list(self.sip.learn_source.iter());
        let srtp_require = quoted_list(self.sip.srtp_require.iter());
        let srtp_off = quoted_list(self.sip.srtp_off.iter());
        let srtp = match self.sip.srtp {
            SrtpPolicy::Off => "off",
            SrtpPolicy::Offer => "offer",
            SrtpPolicy::Require => "require",
        };
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            "[node]\nname = {}\n\n[sip]\nlisten = {listen}\ndomain = {}\ntrusted = {trusted}\nlearn_source = {learn_source}\n\
             srtp = {}\nsrtp_require = {srtp_require}\nsrtp_off = {srtp_off}\ncalls_max = {}\nconnections_max = {}\n\n[http]\nlisten = {}\n",
            quoted(&self.node.name),
            quoted(&self.sip.domain),
            quoted(srtp),
            self.sip.calls_max,
            self.sip.connections_max,
            quoted(&self.http.listen.to_string()),
        );
        push_token_file(&mut out, self.http.token_file.as_deref());
        for mixer in &self.mixers {
            let _ = write!(out, "\n[[mixer]]\nurl = {}\n", quoted(&mixer.url));
            push_token_file(&mut out, mixer.token_file.as_deref());
        }
        let format = match self.log.format {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        };
        let _ = write!(
            out,
            "\n[store]\nurl = {}\n\n[rooms]\nauto_create = {}\ntalkers = {}\n\n[log]\nlevel = {}\nformat = {}\n",
            quoted(&self.store.to_string()),
            self.rooms.auto_create,
            self.rooms.talkers.unwrap_or(0),
            quoted(&self.log.level),
            quoted(format),
        );
        out
    }
}

/// Networks as the core takes them.
#[must_use]
pub fn network_pairs(networks: &[Network]) -> Vec<(IpAddr, u8)> {
    networks
        .iter()
        .map(|network| (network.address, network.prefix))
        .collect()
}

fn push_token_file(out: &mut String, path: Option<&Path>) {
    if let Some(path) = path {
        let _ = writeln!(out, "token_file = {}", quoted(&path.display().to_string()));
    }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn quoted_list<T: ToString>(items: impl Iterator<Item = T>) -> String {
    let items: Vec<String> = items.map(|item| quoted(&item.to_string())).collect();
    format!("[{}]", items.join(", "))
}

#[cfg(test)]
mod tests;
