//! The link to the mixers: requests out, replies, events and health in.
//!
//! Invariants: the driver never waits for it ([`MixerLink::submit`] hands back what finds no room);
//! every request ends in exactly one [`Input::MixerReply`], within [`BUDGET`] of being sent; the same
//! command id goes with every repetition and is never used for anything else, across restarts too.

mod client;
mod events;
mod order;
mod sse;
mod translate;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use mixer_control::state::State;
use signaling_core::effect::MixerRequest;
use signaling_core::input::{Input, MixerRefusal, MixerReply, MixerRequestId};
use tokio::sync::mpsc;

use crate::config;
use crate::driver::pause;
use crate::metrics::Metrics;
use client::Client;
pub use client::{BUDGET, LinkError};
use events::Follower;
use order::Order;

/// Requests that may wait in the channel; as many again may be sorted by conference.
const QUEUE_JOBS: usize = 16 * 1024;
/// Requests under way at once, over all conferences.
const IN_FLIGHT_MAX: usize = 64;
/// Rest between attempts to reach a mixer at start.
const START_REST: Duration = Duration::from_millis(200);

/// One request to a mixer.
#[derive(Debug, Clone)]
pub struct Job {
    /// The core's number.
    pub id: MixerRequestId,
    /// Which mixer, by URL; empty: the first.
    pub mixer: String,
    /// What.
    pub request: MixerRequest,
}

/// Mixers that have been greeted: what they hold is known.
#[derive(Debug)]
pub struct Greeted {
    clients: Vec<Arc<Client>>,
    states: Vec<Option<State>>,
    owner: String,
    run: String,
    metrics: Arc<Metrics>,
}

/// What mixers hold under our label.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Mixer URL and conference.
    pub conferences: Vec<(String, String)>,
    /// Mixer URL, conference and endpoint.
    pub endpoints: Vec<(String, String, String)>,
}

/// The driver's side.
#[derive(Debug, Clone)]
pub struct MixerLink {
    jobs: mpsc::Sender<Job>,
}

/// Finds the mixers and reads their states, for at most `wait`. At least one must answer.
///
/// # Errors
/// No mixer answered: what the last attempt at the first one said.
pub async fn greet(
    mixers: &[config::Mixer],
    owner: &str,
    run: &str,
    wait: Duration,
    metrics: &Arc<Metrics>,
) -> Result<Greeted, LinkError> {
    let http = reqwest::Client::builder()
        .no_proxy()
        .tcp_nodelay(true)
        .pool_max_idle_per_host(IN_FLIGHT_MAX)
        .connect_timeout(Duration::from_millis(500))
        .build()
        .map_err(|error| LinkError(error.to_string()))?;
    let clients: Vec<Arc<Client>> = mixers
        .iter()
        .map(|mixer| Arc::new(Client::new(mixer, http.clone(), owner, Arc::clone(metrics))))
        .collect();
    let mut error = LinkError("no mixer is configured".to_owned());
    let mut states: Vec<Option<State>> = vec![None; clients.len()];
    let attempts = async {
        while states.iter().any(Option::is_none) {
            for (client, state) in clients.iter().zip(&mut states).rev() {
                if state.is_none() {
                    match client.state().await {
                        Ok(found) => *state = Some(found),
                        Err(failed) => error = failed,
                    }
                }
            }
            if states.iter().any(Option::is_none) {
                pause(START_REST).await;
            }
        }
    };
    // At least one look, however short the wait.
    let _ = tokio::time::timeout(wait.max(START_REST), attempts).await;
    if states.iter().all(Option::is_none) {
        return Err(error);
    }
    for (client, state) in clients.iter().zip(&states) {
        let Some(state) = state else {
            tracing::warn!(mixer = %client.url, "the mixer does not answer; start it or correct [[mixer]] url");
            continue;
        };
        let ours = state
            .conferences
            .iter()
            .filter(|conference| conference.owner == owner);
        client
            .known()
            .extend(ours.map(|conference| conference.conference.clone()));
    }
    Ok(Greeted {
        clients,
        states,
        owner: owner.to_owned(),
        run: run.to_owned(),
        metrics: Arc::clone(metrics),
    })
}

impl Greeted {
    /// Mixers with the instance that answered.
    #[must_use]
    pub fn instances(&self) -> Vec<(String, Option<String>)> {
        let instance = |state: &Option<State>| state.as_ref().map(|state| state.instance.clone());
        self.clients
            .iter()
            .zip(&self.states)
            .map(|(client, state)| (client.url.clone(), instance(state)))
            .collect()
    }

    /// What the mixers hold under our label.
    #[must_use]
    pub fn found(&self) -> Found {
        let Found {
            mut conferences,
            mut endpoints,
        } = Found::default();
        for (client, state) in self.clients.iter().zip(&self.states) {
            let all = state.iter().flat_map(|state| &state.conferences);
            for conference in all.filter(|conference| conference.owner == self.owner) {
                conferences.push((client.url.clone(), conference.conference.clone()));
                // A trunk is the operator's: no call of ours stands behind it, and it stays.
                let legs = conference.endpoints.iter().filter(|endpoint| !endpoint.trunk);
                endpoints.extend(legs.map(|endpoint| {
                    (
                        client.url.clone(),
                        conference.conference.clone(),
                        endpoint.endpoint.clone(),
                    )
                }));
            }
        }
        Found {
            conferences,
            endpoints,
        }
    }

    /// Starts to work: requests may be submitted, inputs come.
    #[must_use]
    pub fn start(self, inputs: &mpsc::Sender<Input>) -> MixerLink {
        for (client, state) in self.clients.iter().zip(&self.states) {
            let follower = Follower::new(
                Arc::clone(client),
                self.owner.clone(),
                state.as_ref(),
                inputs.clone(),
                Arc::clone(&self.metrics),
            );
            tokio::spawn(follower.run());
        }
        let (jobs, queue) = mpsc::channel(QUEUE_JOBS);
        let clients: BTreeMap<String, Arc<Client>> = self
            .clients
            .iter()
            .map(|client| (client.url.clone(), Arc::clone(client)))
            .collect();
        let work = Work {
            first: self.clients.first().map(Arc::clone),
            clients,
            // Node, run of this program, number: never the same twice.
            prefix: format!("{}-{}-", self.owner, self.run),
            inputs: inputs.clone(),
        };
        tokio::spawn(work.run(queue));
        MixerLink { jobs }
    }
}

impl MixerLink {
    /// Hands a request over without waiting.
    ///
    /// # Errors
    /// There is no room; the refusal the core shall see.
    pub fn submit(&self, job: Job) -> Result<(), MixerReply> {
        self.jobs.try_send(job).map_err(|_| MixerReply::Refused {
            reason: MixerRefusal::Overloaded,
            detail: "too many requests wait for the mixers".to_owned(),
            retry_after_s: Some(2),
        })
    }
}

/// The task that performs requests.
struct Work {
    first: Option<Arc<Client>>,
    clients: BTreeMap<String, Arc<Client>>,
    prefix: String,
    inputs: mpsc::Sender<Input>,
}

impl Work {
    async fn run(self, mut queue: mpsc::Receiver<Job>) {
        let mut order = Order::default();
        let mut in_flight = FuturesUnordered::new();
        let mut open = true;
        while open || !in_flight.is_empty() {
            tokio::select! {
                job = queue.recv(), if open && order.len() < QUEUE_JOBS => match job {
                    Some(job) => order.push(job),
                    None => open = false,
                },
                Some(request) = in_flight.next(), if !in_flight.is_empty() => order.done(&request),
            }
            while in_flight.len() < IN_FLIGHT_MAX
                && let Some(job) = order.next_ready()
            {
                in_flight.push(self.perform(job));
            }
        }
    }

    async fn perform(&self, job: Job) -> MixerRequest {
        let client = if job.mixer.is_empty() {
            self.first.as_ref()
        } else {
            self.clients.get(&job.mixer)
        };
        let reply = match client {
            Some(client) => {
                client
                    .perform(&format!("{}{}", self.prefix, job.id.0), &job.request)
                    .await
            }
            None => MixerReply::Refused {
                reason: MixerRefusal::Unreachable,
                detail: format!("mixer {} is not configured", job.mixer),
                retry_after_s: None,
            },
        };
        // The driver is gone only when the program ends.
        let _ = self.inputs.send(Input::MixerReply { id: job.id, reply }).await;
        job.request
    }
}

#[cfg(test)]
mod tests;
