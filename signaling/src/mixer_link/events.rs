//! Following one mixer: is it there, is it the same, what does it say.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use mixer_control::event::{Event, EventBody};
use mixer_control::state::State;
use signaling_core::input::{Input, MixerEvent, MixerEventKind};
use tokio::sync::mpsc;

use super::client::{Client, LinkError};
use super::sse::SseReader;
use super::translate::event_of;
use crate::driver::pause;
use crate::metrics::Metrics;

/// Silence on the stream after which the mixer is asked whether it lives.
const SILENCE: Duration = Duration::from_millis(500);
/// Time for that answer; two in a row must be missed.
const PROBE_MAX: Duration = Duration::from_millis(400);
/// First and longest wait between attempts to reach a mixer.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Follows one mixer for ever.
pub(super) struct Follower {
    client: Arc<Client>,
    owner: String,
    inputs: mpsc::Sender<Input>,
    metrics: Arc<Metrics>,
    /// Instance the core knows of, as long as the mixer answers.
    up: Option<String>,
    /// Instance whose events were read last.
    instance: String,
    /// Number of the last event read.
    last: u64,
}

/// The driver is gone.
struct Ended;

impl Follower {
    /// `state`: what the core was told of this mixer at start, if it answered.
    pub(super) fn new(
        client: Arc<Client>,
        owner: String,
        state: Option<&State>,
        inputs: mpsc::Sender<Input>,
        metrics: Arc<Metrics>,
    ) -> Self {
        metrics.set_mixer(&client.url, state.is_some());
        Self {
            client,
            owner,
            inputs,
            metrics,
            up: state.map(|state| state.instance.clone()),
            instance: state.map(|state| state.instance.clone()).unwrap_or_default(),
            last: state.map_or(0, |state| state.event_seq),
        }
    }

    pub(super) async fn run(mut self) {
        let mut wait = BACK_OFF.0;
        let mut lost_place = false;
        while !self.inputs.is_closed() {
            let before = self.client.known().clone();
            let round = match self.client.state().await {
                Ok(state) => {
                    wait = BACK_OFF.0;
                    self.follow(&state, &before, std::mem::take(&mut lost_place))
                        .await
                }
                Err(error) => self.down(&error).await.map(|()| false),
            };
            match round {
                Ok(gap) => lost_place = gap,
                Err(Ended) => return,
            }
            pause(wait).await;
            if self.up.is_none() {
                wait = (wait * 2).min(BACK_OFF.1);
            }
        }
    }

    async fn send(&self, input: Input) -> Result<(), Ended> {
        self.inputs.send(input).await.map_err(|_| Ended)
    }

    async fn down(&mut self, error: &LinkError) -> Result<(), Ended> {
        self.metrics.set_mixer(&self.client.url, false);
        if self.up.take().is_none() {
            return Ok(());
        }
        tracing::warn!(%error, "the mixer does not answer; start it or correct [[mixer]] url");
        self.send(Input::MixerHealth {
            mixer: self.client.url.clone(),
            instance: None,
        })
        .await
    }

    /// The mixer answers: tells the core what changed, then reads events until the stream ends.
    /// True when events were lost and the state must be read again.
    async fn follow(
        &mut self,
        state: &State,
        before: &BTreeSet<String>,
        lost_place: bool,
    ) -> Result<bool, Ended> {
        let url = self.client.url.clone();
        let restarted = self.instance != state.instance;
        if restarted {
            self.client.known().clear();
            self.instance.clone_from(&state.instance);
            self.last = state.event_seq;
        }
        if self.up.as_ref() != Some(&state.instance) {
            tracing::info!(mixer = %url, instance = %state.instance, "the mixer answers");
            self.up = Some(state.instance.clone());
            self.send(Input::MixerHealth {
                mixer: url,
                instance: Some(state.instance.clone()),
            })
            .await?;
        }
        self.metrics.set_mixer(&self.client.url, true);
        if lost_place && !restarted {
            self.last = state.event_seq;
            self.tell_state(state, before).await?;
        }
        self.read_stream().await
    }

    /// What events would have told, from the state: who talks, and which conferences are gone.
    async fn tell_state(&self, state: &State, before: &BTreeSet<String>) -> Result<(), Ended> {
        let event = |conference: &str, endpoint: &str, kind| {
            Input::MixerEvent(MixerEvent {
                mixer: self.client.url.clone(),
                conference: conference.to_owned(),
                endpoint: endpoint.to_owned(),
                kind,
            })
        };
        for conference in state
            .conferences
            .iter()
            .filter(|conference| conference.owner == self.owner)
        {
            for endpoint in &conference.endpoints {
                if endpoint.active {
                    self.send(event(
                        &conference.conference,
                        &endpoint.endpoint,
                        MixerEventKind::Active,
                    ))
                    .await?;
                }
                let kind = MixerEventKind::Talk {
                    talking: endpoint.talking,
                };
                self.send(event(&conference.conference, &endpoint.endpoint, kind))
                    .await?;
            }
        }
        let present: BTreeSet<&str> = state
            .conferences
            .iter()
            .map(|item| item.conference.as_str())
            .collect();
        // Known before the state was read and still wanted: created meanwhile does not count as lost.
        let lost: Vec<String> = {
            let known = self.client.known();
            before
                .iter()
                .filter(|id| known.contains(*id) && !present.contains(id.as_str()))
                .cloned()
                .collect()
        };
        for conference in lost {
            self.client.known().remove(&conference);
            self.send(event(&conference, "", MixerEventKind::ConferenceFailed))
                .await?;
        }
        Ok(())
    }

    async fn read_stream(&mut self) -> Result<bool, Ended> {
        let mut response = match self.client.events(self.last).await {
            Ok(response) => response,
            Err(error) => {
                tracing::debug!(%error, "the event stream did not open");
                return Ok(false);
            }
        };
        let (mut reader, mut messages, mut missed) = (SseReader::default(), Vec::new(), 0);
        loop {
            match tokio::time::timeout(SILENCE, response.chunk()).await {
                Ok(Ok(Some(bytes))) => {
                    missed = 0;
                    if reader.push(&bytes, &mut messages).is_err() {
                        return Ok(false);
                    }
                }
                Ok(Ok(None) | Err(_)) => return Ok(false),
                Err(_) if self.client.is_alive(PROBE_MAX).await => missed = 0,
                Err(_) if missed == 0 => missed = 1,
                Err(_) => return Ok(false),
            }
            for message in messages.drain(..) {
                match serde_json::from_str::<Event>(&message.data) {
                    Ok(event) => {
                        if self.take(event).await? {
                            return Ok(true);
                        }
                    }
                    Err(error) => tracing::debug!(%error, "an event of the mixer is not understood"),
                }
            }
        }
    }

    /// Hands one event on; true at a gap.
    async fn take(&mut self, event: Event) -> Result<bool, Ended> {
        self.metrics.mixer_event();
        if event.body == EventBody::Gap {
            return Ok(true);
        }
        if event.seq <= self.last {
            return Ok(false);
        }
        self.last = event.seq;
        if event.body == EventBody::ConferenceFailed {
            self.client.known().remove(&event.conference);
        }
        if let Some(event) = event_of(&self.client.url, event) {
            self.send(Input::MixerEvent(event)).await?;
        }
        Ok(false)
    }
}
