//! The link against a fake mixer that speaks HTTP and fails on request.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State as Shared};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use mixer_control::event::{Event, EventBody};
use mixer_control::reply::{Problem, ProblemKind};
use mixer_control::state::{ConferenceState, EndpointState, EndpointStats, State};
use signaling_core::input::{MixerEvent, MixerEventKind};
use tokio::net::TcpListener;

use super::*;
use crate::config::Mixer;

/// What the fake does with its next command.
#[derive(Debug, Clone)]
enum Behaviour {
    /// Takes effect, and the answer is lost.
    LoseAnswer,
    /// Refuses.
    Refuse(ProblemKind),
    /// Never answers.
    Hang,
}

#[derive(Debug, Default)]
struct Fake {
    instance: String,
    owner: String,
    conferences: Vec<String>,
    /// Endpoints of every conference, and whether they are trunks.
    endpoints: Vec<(&'static str, bool)>,
    /// Commands as they came: method, path, body.
    seen: Vec<(Method, String, String)>,
    /// Commands that took effect, by id, with how often they came.
    effects: BTreeMap<String, u32>,
    behaviour: VecDeque<Behaviour>,
    events: Vec<Event>,
    /// `after` of every event stream that was opened.
    opened: Vec<u64>,
    /// Events up to this number are no longer kept.
    forgotten: u64,
    /// Streams end after what there is.
    cut_streams: bool,
}

type Fakes = Arc<Mutex<Fake>>;

fn command_id(uri: &Uri, body: &str) -> String {
    let in_query = uri
        .query()
        .and_then(|query| query.strip_prefix("command="))
        .map(str::to_owned);
    in_query.unwrap_or_else(|| {
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        body["command"].as_str().unwrap().to_owned()
    })
}

async fn command(Shared(fake): Shared<Fakes>, method: Method, uri: Uri, body: String) -> Response {
    let behaviour = {
        let mut fake = fake.lock().unwrap();
        fake.seen.push((method, uri.path().to_owned(), body.clone()));
        let behaviour = fake.behaviour.pop_front();
        if !matches!(behaviour, Some(Behaviour::Refuse(_) | Behaviour::Hang)) {
            *fake.effects.entry(command_id(&uri, &body)).or_insert(0) += 1;
        }
        behaviour
    };
    match behaviour {
        None => {
            let local = "\"worker\":0,\"tick\":7,\"local\":\"127.0.0.1:10000\",\"ssrc\":1";
            format!("{{\"command\":\"x\",{local}}}").into_response()
        }
        Some(Behaviour::Refuse(kind)) => {
            let status = StatusCode::from_u16(kind.status()).unwrap();
            let problem = Problem {
                kind,
                status: kind.status(),
                detail: "as told".to_owned(),
                retry_after_s: None,
            };
            (status, axum::Json(problem)).into_response()
        }
        // A body that breaks off is how a lost connection looks to the client.
        Some(Behaviour::LoseAnswer) => {
            let broken = futures_util::stream::iter([Err::<Bytes, _>(std::io::Error::other("lost"))]);
            Body::from_stream(broken).into_response()
        }
        Some(Behaviour::Hang) => std::future::pending().await,
    }
}

async fn state(Shared(fake): Shared<Fakes>) -> axum::Json<State> {
    let fake = fake.lock().unwrap();
    let endpoint = |(id, trunk): &(&str, bool)| EndpointState {
        endpoint: (*id).to_owned(),
        local: "127.0.0.1:10000".parse().unwrap(),
        ssrc: 1,
        media: None,
        trunk: *trunk,
        srtp: None,
        muted: false,
        deaf: false,
        held: false,
        gain_centibel: 0,
        active: false,
        talking: false,
        mixed: false,
        stats: EndpointStats::default(),
    };
    let conference = |id: &String| ConferenceState {
        talkers: None,
        conference: id.clone(),
        owner: fake.owner.clone(),
        worker: 0,
        locked: false,
        endpoints: fake.endpoints.iter().map(endpoint).collect(),
    };
    axum::Json(State {
        instance: fake.instance.clone(),
        event_seq: fake.events.last().map_or(0, |event| event.seq),
        conferences: fake.conferences.iter().map(conference).collect(),
    })
}

async fn events(Shared(fake): Shared<Fakes>, Query(query): Query<BTreeMap<String, u64>>) -> Response {
    let after = query["after"];
    let (mut sent, forgotten) = {
        let mut fake = fake.lock().unwrap();
        fake.opened.push(after);
        // One more than asked for: what was read is not taken twice.
        (after.saturating_sub(1), fake.forgotten)
    };
    let mut gap = after < forgotten;
    let stream = futures_util::stream::poll_fn(move |context| {
        let fake = fake.lock().unwrap();
        let mut out = String::from(": alive\n\n");
        if std::mem::take(&mut gap) {
            out.push_str("data: {\"seq\":0,\"event\":\"gap\"}\n\n");
        }
        for event in fake.events.iter().filter(|event| event.seq > sent) {
            out.push_str(&format!(
                "id: {}\ndata: {}\n\n",
                event.seq,
                serde_json::to_string(event).unwrap()
            ));
        }
        let last = fake.events.last().map_or(0, |event| event.seq);
        if last <= sent && out.len() < 12 {
            if fake.cut_streams {
                return std::task::Poll::Ready(None);
            }
            let waker = context.waker().clone();
            tokio::spawn(async move {
                pause(Duration::from_millis(10)).await;
                waker.wake();
            });
            return std::task::Poll::Pending;
        }
        sent = last;
        std::task::Poll::Ready(Some(Ok::<_, std::io::Error>(Bytes::from(out))))
    });
    Body::from_stream(stream).into_response()
}

/// A fake mixer, and everything the link needs to reach it.
struct Setting {
    fake: Fakes,
    mixer: Mixer,
    metrics: Arc<Metrics>,
    inputs: mpsc::Sender<Input>,
    queue: mpsc::Receiver<Input>,
    server: tokio::task::JoinHandle<()>,
}

impl Setting {
    async fn new(fake: Fake) -> Self {
        let fake = Arc::new(Mutex::new(fake));
        let router = Router::new()
            .route("/healthz", get(|| async { "ok" }))
            .route("/v1/state", get(state))
            .route("/v1/events", get(events))
            .route("/v1/conferences/{*rest}", any(command))
            .with_state(Arc::clone(&fake));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            axum::serve(listener, router).await.unwrap();
        });
        let (inputs, queue) = mpsc::channel(256);
        let mixer = Mixer {
            url,
            token_file: None,
            token: None,
        };
        Self {
            fake,
            mixer,
            metrics: Arc::default(),
            inputs,
            queue,
            server,
        }
    }

    async fn greet(&self) -> Greeted {
        let mixers = [self.mixer.clone()];
        greet(&mixers, "node", "run1", Duration::from_secs(5), &self.metrics)
            .await
            .unwrap()
    }

    fn fake(&self) -> std::sync::MutexGuard<'_, Fake> {
        self.fake.lock().unwrap()
    }

    async fn next(&mut self) -> Input {
        tokio::time::timeout(Duration::from_secs(20), self.queue.recv())
            .await
            .unwrap()
            .unwrap()
    }

    async fn reply(&mut self, id: u64) -> MixerReply {
        loop {
            if let Input::MixerReply { id: answered, reply } = self.next().await {
                assert_eq!(answered, MixerRequestId(id));
                return reply;
            }
        }
    }
}

fn fake() -> Fake {
    Fake {
        instance: "one".to_owned(),
        owner: "node".to_owned(),
        ..Fake::default()
    }
}

fn create(conference: &str) -> MixerRequest {
    MixerRequest::CreateConference {
        conference: conference.to_owned(),
        talkers: None,
    }
}

fn job(id: u64, request: MixerRequest) -> Job {
    Job {
        id: MixerRequestId(id),
        mixer: String::new(),
        request,
    }
}

fn talk(seq: u64, conference: &str) -> Event {
    Event {
        seq,
        conference: conference.to_owned(),
        endpoint: "e".to_owned(),
        body: EventBody::Talk { talking: true },
    }
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_under_the_same_id() {
    let mut setting = Setting::new(fake()).await;
    let link = setting.greet().await.start(&setting.inputs);
    setting.fake().behaviour = [
        Behaviour::LoseAnswer,
        Behaviour::Refuse(ProblemKind::Busy),
        Behaviour::Refuse(ProblemKind::Timeout),
    ]
    .into();
    link.submit(job(1, create("room"))).unwrap();
    assert_eq!(setting.reply(1).await, MixerReply::Done);
    let endpoint = MixerRequest::CreateEndpoint {
        conference: "room".to_owned(),
        endpoint: "e".to_owned(),
        media: None,
    };
    link.submit(job(2, endpoint)).unwrap();
    assert_eq!(
        setting.reply(2).await,
        MixerReply::EndpointCreated {
            local: "127.0.0.1:10000".parse().unwrap()
        }
    );
    let fake = setting.fake();
    assert_eq!(
        fake.effects,
        BTreeMap::from([("node-run1-1".to_owned(), 2), ("node-run1-2".to_owned(), 1)])
    );
    assert_eq!(fake.seen.len(), 5);
    assert!(
        fake.seen[..4].iter().all(|seen| *seen == fake.seen[0]),
        "the very same request each time"
    );
    assert!(
        setting
            .metrics
            .render()
            .contains("mixminus_mixer_retries_total 3")
    );
}

#[tokio::test]
async fn refusals_are_final_and_silence_is_unreachable() {
    let mut setting = Setting::new(fake()).await;
    let link = setting.greet().await.start(&setting.inputs);
    setting.fake().behaviour = [Behaviour::Refuse(ProblemKind::NoPorts)].into();
    link.submit(job(1, create("a"))).unwrap();
    let reply = setting.reply(1).await;
    assert!(
        matches!(
            reply,
            MixerReply::Refused {
                reason: MixerRefusal::Overloaded,
                ..
            }
        ),
        "{reply:?}"
    );
    assert_eq!(setting.fake().seen.len(), 1, "no ports is not asked again");
    setting.fake().behaviour = vec![Behaviour::Hang; 20].into();
    link.submit(job(2, create("b"))).unwrap();
    let reply = setting.reply(2).await;
    assert!(
        matches!(
            reply,
            MixerReply::Refused {
                reason: MixerRefusal::Unreachable,
                ..
            }
        ),
        "{reply:?}"
    );
    link.submit(Job {
        mixer: "http://elsewhere:1".to_owned(),
        ..job(3, create("c"))
    })
    .unwrap();
    let reply = setting.reply(3).await;
    assert!(
        matches!(
            reply,
            MixerReply::Refused {
                reason: MixerRefusal::Unreachable,
                ..
            }
        ),
        "{reply:?}"
    );
}

#[tokio::test]
async fn order_holds_within_a_conference_and_not_beyond() {
    let mut setting = Setting::new(fake()).await;
    let link = setting.greet().await.start(&setting.inputs);
    // The first request of "slow" hangs once; "fast" goes on meanwhile.
    setting.fake().behaviour = [Behaviour::Hang].into();
    let remove = MixerRequest::RemoveConference {
        conference: "slow".to_owned(),
    };
    link.submit(job(1, create("slow"))).unwrap();
    while setting.fake().seen.is_empty() {
        tokio::task::yield_now().await;
    }
    link.submit(job(2, remove)).unwrap();
    link.submit(job(3, create("fast"))).unwrap();
    for expected in [3, 1, 2] {
        assert_eq!(setting.reply(expected).await, MixerReply::Done);
    }
    let methods: Vec<Method> = setting
        .fake()
        .seen
        .iter()
        .map(|(method, ..)| method.clone())
        .collect();
    assert_eq!(methods, [Method::PUT, Method::PUT, Method::PUT, Method::DELETE]);
}

#[tokio::test]
async fn a_cut_stream_is_resumed_without_loss_or_repetition() {
    let mut setting = Setting::new(Fake {
        cut_streams: true,
        events: vec![talk(1, "old")],
        ..fake()
    })
    .await;
    let _link = setting.greet().await.start(&setting.inputs);
    for seq in 2..6 {
        setting.fake().events.push(talk(seq, &seq.to_string()));
        let Input::MixerEvent(MixerEvent {
            conference,
            kind,
            mixer,
            ..
        }) = setting.next().await
        else {
            panic!("an event was expected");
        };
        assert_eq!(
            (conference, kind),
            (seq.to_string(), MixerEventKind::Talk { talking: true })
        );
        assert_eq!(mixer, setting.mixer.url);
    }
    let opened = setting.fake().opened.clone();
    assert_eq!(opened[0], 1, "from what the state already told");
    assert!(opened.contains(&2) && opened.is_sorted(), "{opened:?}");
}

#[tokio::test]
async fn trunks_are_not_found_among_the_legs_that_may_be_removed() {
    let setting = Setting::new(Fake {
        conferences: vec!["kept".to_owned()],
        endpoints: vec![("leg", false), ("trunk", true)],
        ..fake()
    })
    .await;
    let found = setting.greet().await.found();
    let names: Vec<_> = found.endpoints.iter().map(|(_, _, endpoint)| endpoint).collect();
    assert_eq!(names, ["leg"]);
}

#[tokio::test]
async fn after_a_gap_the_state_tells_what_is_gone() {
    let mut setting = Setting::new(Fake {
        conferences: vec!["kept".to_owned(), "lost".to_owned()],
        ..fake()
    })
    .await;
    let greeted = setting.greet().await;
    assert_eq!(greeted.found().conferences.len(), 2);
    {
        let mut fake = setting.fake();
        fake.conferences.retain(|id| id == "kept");
        fake.events = vec![talk(9, "never seen")];
        fake.forgotten = 9;
    }
    let _link = greeted.start(&setting.inputs);
    let Input::MixerEvent(event) = setting.next().await else {
        panic!("an event was expected")
    };
    assert_eq!(
        (event.conference.as_str(), event.kind),
        ("lost", MixerEventKind::ConferenceFailed)
    );
    setting.fake().events.push(talk(10, "after"));
    let Input::MixerEvent(event) = setting.next().await else {
        panic!("an event was expected")
    };
    assert_eq!(event.conference, "after");
}

#[tokio::test]
async fn death_and_rebirth_of_a_mixer_are_told_once() {
    let mut setting = Setting::new(fake()).await;
    let _link = setting.greet().await.start(&setting.inputs);
    while setting.fake().opened.is_empty() {
        tokio::task::yield_now().await;
    }
    setting.server.abort();
    // Open streams are served by tasks of their own, so the restart shows only on a new connection.
    setting.fake().cut_streams = true;
    let health = setting.next().await;
    assert!(
        matches!(&health, Input::MixerHealth { instance: None, .. }),
        "{health:?}"
    );
    assert_eq!(setting.metrics.mixers(), [(setting.mixer.url.clone(), false)]);
    let address = setting.mixer.url.strip_prefix("http://").unwrap().to_owned();
    let listener = TcpListener::bind(&address).await.unwrap();
    let reborn: Fakes = Arc::new(Mutex::new(Fake {
        instance: "two".to_owned(),
        ..fake()
    }));
    let router = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/v1/state", get(state))
        .route("/v1/events", get(events))
        .with_state(reborn);
    tokio::spawn(async move { axum::serve(listener, router).await });
    let health = setting.next().await;
    assert!(
        matches!(&health, Input::MixerHealth { instance: Some(id), .. } if id == "two"),
        "{health:?}"
    );
    assert_eq!(setting.metrics.mixers(), [(setting.mixer.url.clone(), true)]);
}

#[tokio::test]
async fn no_mixer_at_start_is_one_line_with_its_address() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let mixers = [Mixer {
        url: url.clone(),
        token_file: None,
        token: None,
    }];
    let error = greet(&mixers, "node", "run", Duration::ZERO, &Arc::default())
        .await
        .expect_err("nobody there");
    let line = error.to_string();
    assert!(line.contains(&url) && !line.contains('\n'), "{line}");
}
