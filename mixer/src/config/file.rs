//! The file as written, and its validation key by key.

use std::net::{IpAddr, SocketAddr};
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::{
    AdmissionConfig, BackendChoice, ConfigError, ControlConfig, IoConfig, LimitsConfig, LogFormat, LogLevel,
    PortRange, PromptsConfig, ReplayConfig, Token, WorkersConfig, XdpMode,
};
use crate::placement;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawConfig {
    pub(super) io: RawIo,
    pub(super) workers: RawWorkers,
    pub(super) control: RawControl,
    pub(super) limits: RawLimits,
    pub(super) admission: RawAdmission,
    pub(super) prompts: RawPrompts,
    pub(super) replay: RawReplay,
    pub(super) log: RawLog,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawIo {
    pub(super) backend: Option<Spanned<BackendChoice>>,
    pub(super) interface: Option<Spanned<String>>,
    pub(super) address: Option<Spanned<String>>,
    pub(super) ports: Option<Spanned<String>>,
    pub(super) xdp_mode: Option<XdpMode>,
    pub(super) zero_copy: Option<bool>,
    pub(super) source_budget: Option<Spanned<i64>>,
    pub(super) vlan: Option<Spanned<Vec<u16>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawWorkers {
    pub(super) cores: Option<Spanned<Vec<usize>>>,
    pub(super) spin: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawControl {
    pub(super) listen: Option<Spanned<String>>,
    pub(super) token_file: Option<Spanned<PathBuf>>,
    pub(super) connections: Option<Spanned<i64>>,
    pub(super) events: Option<Spanned<i64>>,
    pub(super) command_timeout_ms: Option<Spanned<i64>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLimits {
    pub(super) conferences: Option<Spanned<i64>>,
    pub(super) endpoints: Option<Spanned<i64>>,
    pub(super) media_timeout_ms: Option<Spanned<i64>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawAdmission {
    pub(super) busy_percent: Option<Spanned<i64>>,
    pub(super) reopen_percent: Option<Spanned<i64>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawPrompts {
    pub(super) folder: Option<Spanned<PathBuf>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawReplay {
    pub(super) megabytes: Option<Spanned<i64>>,
    pub(super) folder: Option<Spanned<PathBuf>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLog {
    pub(super) level: Option<LogLevel>,
    pub(super) format: Option<LogFormat>,
}

/// One file being validated.
pub(super) struct Reader<'a> {
    pub(super) file: &'a str,
    pub(super) text: &'a str,
}

impl Reader<'_> {
    pub(super) fn fail(&self, span: Option<Range<usize>>, problem: String, remedy: &str) -> ConfigError {
        let place = match span {
            Some(span) => {
                let before = self.text.get(..span.start).unwrap_or(self.text);
                format!("{}:{}", self.file, before.matches('\n').count() + 1)
            }
            None => self.file.to_owned(),
        };
        ConfigError {
            place,
            problem,
            remedy: remedy.to_owned(),
        }
    }

    fn bounded<T: TryFrom<i64>>(
        &self,
        key: &str,
        value: Option<Spanned<i64>>,
        default: T,
        bounds: RangeInclusive<i64>,
    ) -> Result<T, ConfigError> {
        let Some(value) = value else { return Ok(default) };
        let number = *value.get_ref();
        let remedy = format!("choose a number from {} to {}", bounds.start(), bounds.end());
        let fail = || {
            self.fail(
                Some(value.span()),
                format!("{key} = {number} is out of bounds"),
                &remedy,
            )
        };
        if !bounds.contains(&number) {
            return Err(fail());
        }
        T::try_from(number).map_err(|_| fail())
    }

    pub(super) fn io(&self, raw: RawIo, default: IoConfig) -> Result<IoConfig, ConfigError> {
        let backend = raw
            .backend
            .as_ref()
            .map_or(default.backend, |backend| *backend.get_ref());
        let interface = raw.interface.filter(|name| !name.get_ref().is_empty());
        if let Some(name) = &interface
            && (name.get_ref().len() > 15 || name.get_ref().contains(['/', ' ']))
        {
            let problem = format!("io.interface = {:?} is no interface name", name.get_ref());
            return Err(self.fail(Some(name.span()), problem, "give a name as `ip link` shows it"));
        }
        if let (BackendChoice::Xdp | BackendChoice::XdpTx, Some(written), None) =
            (backend, &raw.backend, &interface)
        {
            let problem = format!("io.backend = \"{}\" needs io.interface", backend.name());
            let remedy = "set io.interface to the interface that carries RTP";
            return Err(self.fail(Some(written.span()), problem, remedy));
        }
        Ok(IoConfig {
            backend,
            interface: interface.map(Spanned::into_inner),
            address: self.rtp_address(raw.address, default.address)?,
            ports: self.ports(raw.ports, default.ports)?,
            xdp_mode: raw.xdp_mode.unwrap_or(default.xdp_mode),
            zero_copy: raw.zero_copy.unwrap_or(default.zero_copy),
            source_budget: self.bounded(
                "io.source_budget",
                raw.source_budget,
                default.source_budget,
                0..=10_000_000,
            )?,
            vlan: self.vlan(raw.vlan, default.vlan)?,
        })
    }

    fn vlan(&self, raw: Option<Spanned<Vec<u16>>>, default: Vec<u16>) -> Result<Vec<u16>, ConfigError> {
        let Some(raw) = raw else { return Ok(default) };
        let identifiers = raw.get_ref();
        if identifiers.len() > 2 || identifiers.iter().any(|id| !(1..=4_094).contains(id)) {
            let problem = format!("io.vlan = {identifiers:?} is no stack of VLANs");
            let remedy = "write at most two identifiers from 1 to 4094, outermost first";
            return Err(self.fail(Some(raw.span()), problem, remedy));
        }
        Ok(raw.into_inner())
    }

    fn rtp_address(&self, raw: Option<Spanned<String>>, default: IpAddr) -> Result<IpAddr, ConfigError> {
        let Some(raw) = raw else { return Ok(default) };
        let remedy = "give one IP address of this machine: it is bound and told to callers";
        match raw.get_ref().parse::<IpAddr>() {
            Ok(address) if !address.is_unspecified() && !address.is_multicast() => Ok(address),
            Ok(address) => {
                let problem = format!("io.address = \"{address}\" cannot be told to callers");
                Err(self.fail(Some(raw.span()), problem, remedy))
            }
            Err(_) => {
                let problem = format!("io.address = {:?} is no IP address", raw.get_ref());
                Err(self.fail(Some(raw.span()), problem, remedy))
            }
        }
    }

    fn ports(&self, raw: Option<Spanned<String>>, default: PortRange) -> Result<PortRange, ConfigError> {
        let Some(raw) = raw else { return Ok(default) };
        let parsed = raw.get_ref().split_once('-').and_then(|(first, last)| {
            let range = PortRange {
                first: first.trim().parse().ok()?,
                last: last.trim().parse().ok()?,
            };
            (range.first >= 1024 && range.first < range.last).then_some(range)
        });
        parsed.ok_or_else(|| {
            let problem = format!("io.ports = {:?} is no usable range of ports", raw.get_ref());
            self.fail(
                Some(raw.span()),
                problem,
                "write FIRST-LAST with 1024 <= FIRST < LAST <= 65535",
            )
        })
    }

    pub(super) fn workers(
        &self,
        raw: RawWorkers,
        default: WorkersConfig,
        available: &[usize],
    ) -> Result<WorkersConfig, ConfigError> {
        let spin = raw.spin.unwrap_or(default.spin);
        let Some(raw) = raw.cores else {
            return Ok(WorkersConfig {
                cores: default.cores,
                spin,
            });
        };
        let cores = raw.get_ref();
        let fail = |problem: String, remedy: &str| Err(self.fail(Some(raw.span()), problem, remedy));
        if let Err(error) = placement::check_cores(cores, available) {
            let remedy = format!("list every core once, chosen from {available:?}");
            return fail(format!("workers.cores = {cores:?}: {error}"), &remedy);
        }
        Ok(WorkersConfig {
            cores: cores.clone(),
            spin,
        })
    }

    pub(super) fn control(
        &self,
        raw: RawControl,
        default: ControlConfig,
    ) -> Result<ControlConfig, ConfigError> {
        let listen = match &raw.listen {
            None => default.listen,
            Some(text) => text.get_ref().parse::<SocketAddr>().map_err(|_| {
                let problem = format!("control.listen = {:?} is no address with port", text.get_ref());
                self.fail(
                    Some(text.span()),
                    problem,
                    "write ADDRESS:PORT, such as 127.0.0.1:8090",
                )
            })?,
        };
        let token_file = raw
            .token_file
            .filter(|path| !path.get_ref().as_os_str().is_empty());
        let token = token_file.as_ref().map(|path| self.token(path)).transpose()?;
        if token.is_none() && !listen.ip().is_loopback() {
            let problem = format!("control.listen = \"{listen}\" is not loopback and no token is set");
            let remedy = "set control.token_file, or listen on 127.0.0.1 or [::1]";
            return Err(self.fail(raw.listen.map(|listen| listen.span()), problem, remedy));
        }
        let timeout_ms = i64::try_from(default.command_timeout.as_millis()).unwrap_or(i64::MAX);
        let timeout_ms = self.bounded(
            "control.command_timeout_ms",
            raw.command_timeout_ms,
            timeout_ms,
            100..=60_000,
        )?;
        Ok(ControlConfig {
            listen,
            token_file: token_file.map(Spanned::into_inner),
            token,
            connections: self.bounded(
                "control.connections",
                raw.connections,
                default.connections,
                1..=4096,
            )?,
            events: self.bounded("control.events", raw.events, default.events, 16..=1_048_576)?,
            command_timeout: Duration::from_millis(timeout_ms.unsigned_abs()),
        })
    }

    fn token(&self, path: &Spanned<PathBuf>) -> Result<Token, ConfigError> {
        let shown = path.get_ref().display();
        let text = std::fs::read_to_string(path.get_ref()).map_err(|error| {
            let problem = format!("control.token_file {shown} cannot be read: {error}");
            self.fail(
                Some(path.span()),
                problem,
                "create it, readable by this user only",
            )
        })?;
        let secret = text.trim();
        if secret.len() < 16 || !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
            let problem = format!("control.token_file {shown} holds no usable token");
            let remedy = "write one line of at least 16 printable ASCII characters into it";
            return Err(self.fail(Some(path.span()), problem, remedy));
        }
        Ok(Token::new(secret.to_owned()))
    }

    pub(super) fn limits(&self, raw: RawLimits, default: &LimitsConfig) -> Result<LimitsConfig, ConfigError> {
        let timeout_ms = i64::try_from(default.media_timeout.as_millis()).unwrap_or(i64::MAX);
        let timeout_ms = self.bounded(
            "limits.media_timeout_ms",
            raw.media_timeout_ms,
            timeout_ms,
            100..=3_600_000,
        )?;
        Ok(LimitsConfig {
            conferences: self.bounded(
                "limits.conferences",
                raw.conferences,
                default.conferences,
                1..=65_536,
            )?,
            endpoints: self.bounded("limits.endpoints", raw.endpoints, default.endpoints, 1..=32_256)?,
            media_timeout: Duration::from_millis(timeout_ms.unsigned_abs()),
        })
    }

    /// Without `reopen_percent` the distance between the marks is that of the defaults.
    pub(super) fn admission(
        &self,
        raw: &RawAdmission,
        default: AdmissionConfig,
    ) -> Result<AdmissionConfig, ConfigError> {
        let busy_percent = self.bounded(
            "admission.busy_percent",
            raw.busy_percent.clone(),
            default.busy_percent,
            2..=100,
        )?;
        let usual = busy_percent * default.reopen_percent / default.busy_percent;
        let reopen_percent = self.bounded(
            "admission.reopen_percent",
            raw.reopen_percent.clone(),
            usual,
            1..=99,
        )?;
        if reopen_percent >= busy_percent {
            let problem = format!(
                "admission.reopen_percent = {reopen_percent} is not below admission.busy_percent = {busy_percent}"
            );
            let written = raw.reopen_percent.as_ref().or(raw.busy_percent.as_ref());
            let remedy = "choose a lower one, or leave it out";
            return Err(self.fail(written.map(Spanned::span), problem, remedy));
        }
        Ok(AdmissionConfig {
            busy_percent,
            reopen_percent,
        })
    }

    pub(super) fn prompts(&self, raw: RawPrompts) -> Result<PromptsConfig, ConfigError> {
        let remedy = "create it, or set prompts.folder = \"\" for the built-in tones";
        Ok(PromptsConfig {
            folder: self.folder("prompts.folder", raw.folder, remedy)?,
        })
    }

    pub(super) fn replay(&self, raw: RawReplay, default: &ReplayConfig) -> Result<ReplayConfig, ConfigError> {
        let remedy = "create it, or set replay.folder = \"\" to record nothing";
        Ok(ReplayConfig {
            megabytes: self.bounded("replay.megabytes", raw.megabytes, default.megabytes, 1..=4_096)?,
            folder: self.folder("replay.folder", raw.folder, remedy)?,
        })
    }

    /// A folder that is there; none when it is empty.
    fn folder(
        &self,
        key: &str,
        raw: Option<Spanned<PathBuf>>,
        remedy: &str,
    ) -> Result<Option<PathBuf>, ConfigError> {
        let folder = raw.filter(|path| !path.get_ref().as_os_str().is_empty());
        if let Some(path) = &folder
            && !path.get_ref().is_dir()
        {
            let problem = format!("{key} {} is no folder", path.get_ref().display());
            return Err(self.fail(Some(path.span()), problem, remedy));
        }
        Ok(folder.map(Spanned::into_inner))
    }
}
