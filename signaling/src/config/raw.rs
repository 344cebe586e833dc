//! The TOML document as written, and its way to a checked [`Config`].

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use mixer_control::request::TALKERS_MAX;
use serde::Deserialize;
use signaling_core::input::Transport;
use signaling_core::srtp::SrtpPolicy;
use toml::Spanned;

use super::address::{parse_listener, parse_mixer_url, parse_network};
use super::{
    Config, ConfigError, Http, Listener, Log, LogFormat, Mixer, Network, Node, Rooms, Sip, StoreUrl, Token,
};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawConfig {
    node: RawNode,
    sip: RawSip,
    http: RawHttp,
    mixer: Option<Vec<RawMixer>>,
    store: RawStore,
    rooms: RawRooms,
    log: RawLog,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawNode {
    name: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawSip {
    listen: Option<Vec<Spanned<String>>>,
    domain: Option<Spanned<String>>,
    trusted: Option<Vec<Spanned<String>>>,
    learn_source: Option<Vec<Spanned<String>>>,
    srtp: Option<Spanned<String>>,
    srtp_require: Option<Vec<Spanned<String>>>,
    srtp_off: Option<Vec<Spanned<String>>>,
    calls_max: Option<Spanned<i64>>,
    connections_max: Option<Spanned<i64>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawHttp {
    listen: Option<Spanned<String>>,
    token_file: Option<Spanned<PathBuf>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMixer {
    url: Spanned<String>,
    token_file: Option<Spanned<PathBuf>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawStore {
    url: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawRooms {
    auto_create: Option<bool>,
    talkers: Option<Spanned<i64>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawLog {
    level: Option<Spanned<String>>,
    format: Option<Spanned<String>>,
}

/// Checks the text of a file called `path`.
pub(super) fn parse(path: &str, text: &str) -> Result<Config, ConfigError> {
    let raw: RawConfig = toml::from_str(text).map_err(|error| syntax_error(path, text, &error))?;
    let file = File { path, text };
    let sip = file.sip(raw.sip)?;
    let http = file.http(&raw.http)?;
    let loopback = sip
        .listen
        .iter()
        .all(|listener| listener.address.ip().is_loopback());
    Ok(Config {
        node: file.node(raw.node)?,
        mixers: file.mixers(raw.mixer)?,
        store: file.store(raw.store)?,
        rooms: Rooms {
            auto_create: raw.rooms.auto_create.unwrap_or(loopback),
            talkers: file.talkers(raw.rooms.talkers)?,
        },
        log: file.log(raw.log)?,
        sip,
        http,
    })
}

/// One line for what the TOML reader found, with the keys that would have been right.
fn syntax_error(path: &str, text: &str, error: &toml::de::Error) -> ConfigError {
    let line = line_of(text, error.span().map_or(0, |span| span.start));
    let found = error.message().lines().collect::<Vec<_>>().join(" ");
    let message = if let Some(rest) = found.strip_prefix("unknown field ") {
        let (key, known) = rest.split_once(", ").unwrap_or((rest, "no key is known here"));
        format!("unknown key {key} ({known}); remove it or correct its spelling")
    } else {
        format!("{found}; see signaling.sample.toml for every key and its form")
    };
    ConfigError::Line {
        path: path.to_owned(),
        line,
        message,
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

/// The file at hand, for messages.
struct File<'a> {
    path: &'a str,
    text: &'a str,
}

impl File<'_> {
    fn at<T>(&self, value: &Spanned<T>, message: String) -> ConfigError {
        ConfigError::Line {
            path: self.path.to_owned(),
            line: line_of(self.text, value.span().start),
            message,
        }
    }

    fn node(&self, raw: RawNode) -> Result<Node, ConfigError> {
        let Some(name) = raw.name else {
            return Ok(Node {
                name: "mixminus".to_owned(),
            });
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        let value = name.get_ref();
        if value.is_empty() || value.len() > NODE_NAME_MAX || !value.chars().all(plain) {
            return Err(self.at(
                &name,
                format!("[node] name must be 1 to {NODE_NAME_MAX} characters of A-Z a-z 0-9 _ . -; shorten or respell it"),
            ));
        }
        Ok(Node {
            name: name.into_inner(),
        })
    }

    fn sip(&self, raw: RawSip) -> Result<Sip, ConfigError> {
        let listen = match raw.listen {
            None => default_listeners(),
            Some(items) => self.list("[sip] listen", &items, LISTENERS_MAX, parse_listener)?,
        };
        if listen.is_empty() {
            return Err(ConfigError::Whole {
                path: self.path.to_owned(),
                message: "[sip] listen is empty; name at least one socket like \"udp:127.0.0.1:5060\""
                    .to_owned(),
            });
        }
        Ok(Sip {
            listen,
            domain: self.domain(raw.domain)?,
            trusted: match raw.trusted {
                None => default_trusted(),
                Some(items) => self.list("[sip] trusted", &items, NETWORKS_MAX, parse_network)?,
            },
            learn_source: self.networks("[sip] learn_source", raw.learn_source)?,
            srtp: self.srtp(raw.srtp.as_ref())?,
            srtp_require: self.networks("[sip] srtp_require", raw.srtp_require)?,
            srtp_off: self.networks("[sip] srtp_off", raw.srtp_off)?,
            calls_max: self.number("[sip] calls_max", raw.calls_max, 10_000, 1, 200_000)?,
            connections_max: self.number("[sip] connections_max", raw.connections_max, 1_000, 1, 50_000)?,
        })
    }

    fn networks(&self, key: &str, items: Option<Vec<Spanned<String>>>) -> Result<Vec<Network>, ConfigError> {
        self.list(key, &items.unwrap_or_default(), NETWORKS_MAX, parse_network)
    }

    fn srtp(&self, raw: Option<&Spanned<String>>) -> Result<SrtpPolicy, ConfigError> {
        let Some(raw) = raw else {
            return Ok(SrtpPolicy::Offer);
        };
        match raw.get_ref().as_str() {
            "off" => Ok(SrtpPolicy::Off),
            "offer" => Ok(SrtpPolicy::Offer),
            "require" => Ok(SrtpPolicy::Require),
            other => Err(self.at(
                raw,
                format!("[sip] srtp \"{other}\" is not known; use \"off\", \"offer\" or \"require\""),
            )),
        }
    }

    fn list<T>(
        &self,
        key: &str,
        items: &[Spanned<String>],
        max: usize,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, ConfigError> {
        if let Some(extra) = items.get(max) {
            return Err(self.at(
                extra,
                format!("{key} has {} entries; at most {max} are possible", items.len()),
            ));
        }
        items
            .iter()
            .map(|item| parse(item.get_ref()).map_err(|message| self.at(item, format!("{key}: {message}"))))
            .collect()
    }

    fn number(
        &self,
        key: &str,
        value: Option<Spanned<i64>>,
        default: usize,
        min: usize,
        max: usize,
    ) -> Result<usize, ConfigError> {
        let Some(value) = value else { return Ok(default) };
        usize::try_from(*value.get_ref())
            .ok()
            .filter(|number| (min..=max).contains(number))
            .ok_or_else(|| {
                self.at(
                    &value,
                    format!("{key} = {} is out of range; use {min} to {max}", value.get_ref()),
                )
            })
    }

    /// 0 is all of them.
    fn talkers(&self, raw: Option<Spanned<i64>>) -> Result<Option<u8>, ConfigError> {
        let most = self.number("[rooms] talkers", raw, 0, 0, usize::from(TALKERS_MAX))?;
        Ok(u8::try_from(most).ok().filter(|most| *most > 0))
    }

    fn domain(&self, raw: Option<Spanned<String>>) -> Result<String, ConfigError> {
        let Some(domain) = raw else {
            return Ok("localhost".to_owned());
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "-.:[]".contains(c);
        let value = domain.get_ref();
        if value.is_empty() || value.len() > 253 || !value.chars().all(plain) {
            return Err(self.at(
                &domain,
                format!("[sip] domain \"{value}\" is not a host name or address; write one like \"conf.example.com\""),
            ));
        }
        Ok(domain.into_inner())
    }

    fn http(&self, raw: &RawHttp) -> Result<Http, ConfigError> {
        let listen = match &raw.listen {
            None => SocketAddr::from(([127, 0, 0, 1], 8080)),
            Some(text) => text.get_ref().parse().map_err(|_| {
                self.at(
                    text,
                    format!(
                        "[http] listen \"{}\" is not ADDRESS:PORT; write it like \"127.0.0.1:8080\"",
                        text.get_ref()
                    ),
                )
            })?,
        };
        let token = raw
            .token_file
            .as_ref()
            .map(|path| self.token("[http]", path))
            .transpose()?;
        if let (Some(text), None, false) = (&raw.listen, &token, listen.ip().is_loopback()) {
            return Err(self.at(
                text,
                format!("[http] listen {listen} is not loopback and has no token; set [http] token_file to a file with a secret of 16 or more characters, or listen on 127.0.0.1"),
            ));
        }
        Ok(Http {
            listen,
            token_file: raw.token_file.as_ref().map(|path| path.get_ref().clone()),
            token,
        })
    }

    /// Reads a token file; a relative path counts from the directory of the configuration file.
    fn token(&self, table: &str, path: &Spanned<PathBuf>) -> Result<Token, ConfigError> {
        let base = Path::new(self.path).parent().unwrap_or(Path::new(""));
        let file = base.join(path.get_ref());
        let text = std::fs::read_to_string(&file).map_err(|error| {
            self.at(
                path,
                format!("{table} token_file {} cannot be read: {error}; create it with a secret of 16 or more characters", file.display()),
            )
        })?;
        let token = text.trim();
        let printable = token.bytes().all(|byte| byte.is_ascii_graphic());
        if !(16..=512).contains(&token.len()) || !printable {
            return Err(self.at(
                path,
                format!("{table} token_file {} must hold one secret of 16 to 512 printable characters without spaces", file.display()),
            ));
        }
        Ok(Token(token.to_owned()))
    }

    fn mixers(&self, raw: Option<Vec<RawMixer>>) -> Result<Vec<Mixer>, ConfigError> {
        let Some(raw) = raw else {
            return Ok(vec![Mixer {
                url: "http://127.0.0.1:8090".to_owned(),
                token_file: None,
                token: None,
            }]);
        };
        if raw.is_empty() {
            return Err(ConfigError::Whole {
                path: self.path.to_owned(),
                message: "no mixer is configured; add [[mixer]] with url = \"http://127.0.0.1:8090\""
                    .to_owned(),
            });
        }
        let mut mixers: Vec<Mixer> = Vec::new();
        for item in raw {
            let url = parse_mixer_url(item.url.get_ref())
                .map_err(|message| self.at(&item.url, format!("[[mixer]] url: {message}")))?;
            if mixers.iter().any(|mixer| mixer.url == url) {
                return Err(self.at(&item.url, format!("[[mixer]] {url} is named twice; remove one")));
            }
            if mixers.len() == MIXERS_MAX {
                return Err(self.at(&item.url, format!("more than {MIXERS_MAX} mixers; remove some")));
            }
            let token = item
                .token_file
                .as_ref()
                .map(|path| self.token("[[mixer]]", path))
                .transpose()?;
            mixers.push(Mixer {
                url,
                token_file: item.token_file.map(Spanned::into_inner),
                token,
            });
        }
        Ok(mixers)
    }

    fn store(&self, raw: RawStore) -> Result<StoreUrl, ConfigError> {
        let Some(url) = raw.url else {
            return Ok(StoreUrl::SqliteFile(PathBuf::from("./var/mixminus.db")));
        };
        let text = url.get_ref();
        if text.starts_with("postgres:") || text.starts_with("postgresql:") {
            return Err(self.at(
                &url,
                "[store] url: PostgreSQL is not yet in this version; use a file like \"sqlite:./var/mixminus.db\"".to_owned(),
            ));
        }
        let remedy = "use a file like \"sqlite:./var/mixminus.db\"";
        let Some(path) = text.strip_prefix("sqlite:") else {
            return Err(self.at(&url, format!("[store] url \"{text}\" is not known; {remedy}")));
        };
        if path == ":memory:" {
            return Ok(StoreUrl::SqliteMemory);
        }
        let path = path.strip_prefix("//").unwrap_or(path);
        if path.is_empty() || path.contains(['?', '#']) || path.ends_with('/') {
            return Err(self.at(&url, format!("[store] url \"{text}\" names no file; {remedy}")));
        }
        Ok(StoreUrl::SqliteFile(PathBuf::from(path)))
    }

    fn log(&self, raw: RawLog) -> Result<Log, ConfigError> {
        let format = match &raw.format {
            None => LogFormat::Text,
            Some(format) => match format.get_ref().as_str() {
                "text" => LogFormat::Text,
                "json" => LogFormat::Json,
                other => {
                    return Err(self.at(
                        format,
                        format!("[log] format \"{other}\" is not known; use \"text\" or \"json\""),
                    ));
                }
            },
        };
        let level = match raw.level {
            None => "info".to_owned(),
            Some(level) => {
                if crate::logs::parse_filter(level.get_ref()).is_err() {
                    return Err(self.at(
                        &level,
                        format!(
                            "[log] level \"{}\" is not a filter; use error, warn, info, debug or trace",
                            level.get_ref()
                        ),
                    ));
                }
                level.into_inner()
            }
        };
        Ok(Log { level, format })
    }
}

fn default_listeners() -> Vec<Listener> {
    let address = SocketAddr::from(([127, 0, 0, 1], 5060));
    vec![
        Listener {
            transport: Transport::Udp,
            address,
        },
        Listener {
            transport: Transport::Tcp,
            address,
        },
    ]
}

fn default_trusted() -> Vec<Network> {
    ["127.0.0.0/8", "::1/128"]
        .into_iter()
        .filter_map(|text| parse_network(text).ok())
        .collect()
}

/// Command ids have 64 characters; 28 of them are the name, the rest run and number.
const NODE_NAME_MAX: usize = 28;
const LISTENERS_MAX: usize = 32;
const NETWORKS_MAX: usize = 1024;
const MIXERS_MAX: usize = 64;
