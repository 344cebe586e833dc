//! HTTP to one mixer.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mixer_control::reply::{EndpointCreated, Problem, ProblemKind};
use mixer_control::state::State;
use signaling_core::effect::MixerRequest;
use signaling_core::input::{MixerRefusal, MixerReply};

use super::translate::{HttpRequest, http_request, printable, refusal};
use crate::config;
use crate::driver::pause;
use crate::metrics::Metrics;

/// Longest time from a request to its end, all repetitions included.
pub const BUDGET: Duration = Duration::from_secs(2);
/// Longest time for one attempt.
const ATTEMPT_MAX: Duration = Duration::from_millis(600);
/// First wait before a repetition; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(25);
/// Longest time to read the whole state.
const STATE_MAX: Duration = Duration::from_secs(2);

/// One line about what went wrong between us and a mixer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct LinkError(pub(super) String);

/// Client of one mixer.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) url: String,
    http: reqwest::Client,
    authorization: Option<String>,
    owner: String,
    metrics: Arc<Metrics>,
    /// Conferences we believe to exist there.
    known: Mutex<BTreeSet<String>>,
}

impl Client {
    pub(super) fn new(
        mixer: &config::Mixer,
        http: reqwest::Client,
        owner: &str,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            url: mixer.url.clone(),
            http,
            authorization: mixer
                .token
                .as_ref()
                .map(|token| format!("Bearer {}", token.expose())),
            owner: owner.to_owned(),
            metrics,
            known: Mutex::default(),
        }
    }

    pub(super) fn known(&self) -> MutexGuard<'_, BTreeSet<String>> {
        // Every change of the set is one step, so a panic elsewhere leaves it whole.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        let builder = self.http.request(method, format!("{}{path}", self.url));
        match &self.authorization {
            Some(authorization) => builder.header("authorization", authorization),
            None => builder,
        }
    }

    /// Asks until there is an answer or the time is over. The same id each time: the mixer does
    /// nothing twice.
    pub(super) async fn perform(&self, command: &str, request: &MixerRequest) -> MixerReply {
        let http = match http_request(command, &self.owner, request) {
            Ok(http) => http,
            Err(error) => return refused(MixerRefusal::Failed, error.to_string()),
        };
        let mut last = refused(MixerRefusal::Unreachable, format!("no answer from {}", self.url));
        let attempts = async {
            let mut wait = FIRST_WAIT;
            loop {
                match tokio::time::timeout(ATTEMPT_MAX, self.once(&http)).await {
                    Ok(Attempt::Final(reply)) => return reply,
                    Ok(Attempt::Again(reply)) => last = reply,
                    Err(_) => {}
                }
                self.metrics.mixer_retry();
                pause(wait).await;
                wait *= 2;
            }
        };
        let reply = match tokio::time::timeout(BUDGET, attempts).await {
            Ok(reply) => reply,
            Err(_) => last,
        };
        self.learn(request, &reply);
        reply
    }

    fn learn(&self, request: &MixerRequest, reply: &MixerReply) {
        match (request, reply) {
            (MixerRequest::CreateConference { conference, .. }, MixerReply::Done) => {
                self.known().insert(conference.clone());
            }
            // Whatever came of it, we no longer want it.
            (MixerRequest::RemoveConference { conference }, _) => {
                self.known().remove(conference);
            }
            _ => {}
        }
    }

    async fn once(&self, http: &HttpRequest) -> Attempt {
        let mut builder = self.request(http.method.clone(), &http.path);
        if let Some(body) = &http.body {
            builder = builder
                .header("content-type", "application/json")
                .body(body.clone());
        }
        let unreachable = |error: &reqwest::Error| {
            Attempt::Again(refused(MixerRefusal::Unreachable, cause_of(&self.url, error)))
        };
        let response = match builder.send().await {
            Ok(response) => response,
            Err(error) => return unreachable(&error),
        };
        let status = response.status();
        let body = match response.bytes().await {
            Ok(body) => body,
            Err(error) => return unreachable(&error),
        };
        if status.is_success() {
            return Attempt::Final(success(http, &body));
        }
        match serde_json::from_slice::<Problem>(&body) {
            // Busy: nothing was changed. Timeout: repeating tells.
            Ok(problem) if matches!(problem.kind, ProblemKind::Busy | ProblemKind::Timeout) => {
                Attempt::Again(refusal(&problem))
            }
            Ok(problem) => Attempt::Final(refusal(&problem)),
            Err(_) => Attempt::Final(refused(
                MixerRefusal::Failed,
                format!("{} answered {status}", self.url),
            )),
        }
    }

    /// Reads everything the mixer has.
    pub(super) async fn state(&self) -> Result<State, LinkError> {
        let read = async {
            let response = self.request(reqwest::Method::GET, "/v1/state").send().await;
            let response = response.and_then(reqwest::Response::error_for_status);
            let response = response.map_err(|error| LinkError(cause_of(&self.url, &error)))?;
            response
                .json::<State>()
                .await
                .map_err(|error| LinkError(cause_of(&self.url, &error)))
        };
        match tokio::time::timeout(STATE_MAX, read).await {
            Ok(state) => state,
            Err(_) => Err(LinkError(format!(
                "{} did not answer within {} s",
                self.url,
                STATE_MAX.as_secs()
            ))),
        }
    }

    /// Opens the event stream behind a number.
    pub(super) async fn events(&self, after: u64) -> Result<reqwest::Response, LinkError> {
        let open = self
            .request(reqwest::Method::GET, &format!("/v1/events?after={after}"))
            .send();
        match tokio::time::timeout(STATE_MAX, open).await {
            Ok(response) => response
                .and_then(reqwest::Response::error_for_status)
                .map_err(|error| LinkError(cause_of(&self.url, &error))),
            Err(_) => Err(LinkError(format!(
                "{} did not open its event stream in time",
                self.url
            ))),
        }
    }

    /// Whether the mixer answers at all.
    pub(super) async fn is_alive(&self, within: Duration) -> bool {
        let probe = self.request(reqwest::Method::GET, "/healthz").send();
        matches!(tokio::time::timeout(within, probe).await, Ok(Ok(_)))
    }
}

enum Attempt {
    Final(MixerReply),
    Again(MixerReply),
}

fn success(http: &HttpRequest, body: &[u8]) -> MixerReply {
    if !http.creates_endpoint {
        return MixerReply::Done;
    }
    match serde_json::from_slice::<EndpointCreated>(body) {
        Ok(created) => MixerReply::EndpointCreated { local: created.local },
        Err(error) => refused(
            MixerRefusal::Failed,
            format!("the mixer's answer is not understood: {error}"),
        ),
    }
}

fn refused(reason: MixerRefusal, detail: String) -> MixerReply {
    MixerReply::Refused {
        reason,
        detail: printable(&detail),
        retry_after_s: None,
    }
}

/// The innermost cause, where the useful words are ("Connection refused").
fn cause_of(url: &str, error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    format!("{url}: {cause}")
}
