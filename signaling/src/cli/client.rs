//! HTTP to the node.

use std::path::Path;
use std::time::Duration;

use crate::admin::views::{Problem, Switch};
use crate::cli::CliError;
use crate::config::Config;

/// Longest time for an answer; the server gives up a little earlier.
const ANSWER_MAX: Duration = Duration::from_secs(8);

/// What changes something.
#[derive(Debug)]
pub(super) enum Verb {
    Delete,
    Switch { on: bool },
}

/// Client of one node.
#[derive(Debug)]
pub(super) struct Client {
    base: String,
    token: Option<String>,
}

impl Client {
    /// `--url` wins over the configuration, the configuration over the default.
    pub(super) fn new(
        url: Option<String>,
        token_file: Option<&Path>,
        config: Option<&Config>,
    ) -> Result<Self, CliError> {
        let base = match (url, config) {
            (Some(url), _) if url.starts_with("http://") => url.trim_end_matches('/').to_owned(),
            (Some(url), _) => {
                return Err(CliError::Usage(format!(
                    "--url {url}: write it like http://127.0.0.1:8080"
                )));
            }
            (None, Some(config)) => {
                let mut address = config.http.listen;
                if address.ip().is_unspecified() {
                    let loopback: std::net::IpAddr = if address.is_ipv4() {
                        [127, 0, 0, 1].into()
                    } else {
                        std::net::Ipv6Addr::LOCALHOST.into()
                    };
                    address.set_ip(loopback);
                }
                format!("http://{address}")
            }
            (None, None) => "http://127.0.0.1:8080".to_owned(),
        };
        let token = match token_file {
            Some(file) => {
                let text = std::fs::read_to_string(file)
                    .map_err(|error| CliError::Usage(format!("--token-file {}: {error}", file.display())))?;
                Some(text.trim().to_owned())
            }
            None => config
                .and_then(|config| config.http.token.as_ref())
                .map(|token| token.expose().to_owned()),
        };
        Ok(Self { base, token })
    }

    /// Reads a JSON document.
    pub(super) fn get(&self, path: &[&str]) -> Result<String, CliError> {
        self.send(reqwest::Method::GET, path, None)
    }

    /// Changes something.
    pub(super) fn change(&self, verb: &Verb, path: &[&str]) -> Result<(), CliError> {
        let done = match verb {
            Verb::Delete => self.send(reqwest::Method::DELETE, path, None),
            Verb::Switch { on } => self.send(reqwest::Method::POST, path, Some(Switch { on: *on })),
        };
        done.map(|_| ())
    }

    fn send(&self, method: reqwest::Method, path: &[&str], body: Option<Switch>) -> Result<String, CliError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| CliError::Internal(format!("the system refused: {error}")))?;
        runtime.block_on(self.send_async(method, path, body))
    }

    async fn send_async(
        &self,
        method: reqwest::Method,
        path: &[&str],
        body: Option<Switch>,
    ) -> Result<String, CliError> {
        let mut url: reqwest::Url = format!("{}/api/v1/", self.base).parse().map_err(|_| {
            CliError::Usage(format!(
                "--url {}: write it like http://127.0.0.1:8080",
                self.base
            ))
        })?;
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let http = reqwest::Client::builder().no_proxy().timeout(ANSWER_MAX).build();
        let http = http.map_err(|error| CliError::Internal(error.to_string()))?;
        let mut request = http.request(method, url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let unreachable = |error: reqwest::Error| {
            let mut cause: &dyn std::error::Error = &error;
            while let Some(inner) = cause.source() {
                cause = inner;
            }
            CliError::Unreachable(format!(
                "cannot reach {}: {cause}; is mixminus-signaling running there? (--url)",
                self.base
            ))
        };
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let text = response.text().await.map_err(unreachable)?;
        if status.is_success() {
            return Ok(text);
        }
        let detail = serde_json::from_str::<Problem>(&text).map_or_else(
            |_| format!("the server answered {status}"),
            |problem| problem.detail,
        );
        let detail = super::table::printable(&detail);
        Err(match status.as_u16() {
            503 | 504 => CliError::Unreachable(detail),
            500 => CliError::Internal(detail),
            _ => CliError::Refused(detail),
        })
    }
}
