mod admission;
mod capacity;
mod parts;
mod puppet;
mod state;

use std::net::SocketAddr;

use std::collections::BTreeSet;

use mixer_control::event::Event;
use mixer_control::media::{Codec, Direction, Media, ReceiveFormat, SendFormat, SourcePolicy};
use mixer_control::request::{
    ConferenceCommand, ConferenceVerb, CreateConference, CreateEndpoint, EndpointCommand, EndpointVerb, Play,
    PlaySource, SetMedia,
};
use mixer_engine::command::{ConferenceIndex, EndpointIndex, Outcome, PlayId, Refusal, Retired};
use mixer_engine::engine::EngineLimits;
use mixer_engine::event::{Event as EngineEvent, EventKind};
use mixer_engine::time::Slot;
use proptest::prelude::*;

use super::entries::{Action, Place};
use super::*;
use crate::config::AdmissionConfig;
use crate::control::answers::Reply;
use crate::control::call::Body;
use crate::control::rings::{self, WorkerEnd};
use crate::io::sim::{SimConfig, SimIo, SimNet, SimPrepared};
use crate::worker::exchange::Exchange;
use crate::worker::{Worker, WorkerConfig, WorkerId};

const ENDPOINTS: u32 = 400;
const BLOCK: PortBlock = PortBlock {
    first: 20_000,
    last: 20_999,
};

fn setup() -> Setup {
    Setup {
        address: IpAddr::from([127, 0, 0, 1]),
        conferences_max: 20,
        endpoints_max: ENDPOINTS,
        worker_conferences_max: 20,
        worker_endpoints_max: ENDPOINTS,
        admission: Marks::new(&AdmissionConfig {
            busy_percent: 80,
            reopen_percent: 75,
        }),
        command_timeout: Duration::from_millis(500),
        answers: 1000,
    }
}

type Tested = Directory<ControlEnd<SimPrepared>, u32>;

fn directory(setup: Setup, links: Vec<(ControlEnd<SimPrepared>, PortBlock)>) -> (Tested, Arc<EventLog>) {
    let events = EventLog::new(1000);
    let ports = PortWork {
        prepare: Box::new(|local| Ok(SimPrepared(local))),
        adopt: Box::new(|_, local| Ok(SimPrepared(local))),
        prefers: None,
    };
    let random = Random::seeded(5);
    let directory = Directory::new(
        setup,
        links,
        random,
        Prompts::synthesised(),
        ports,
        Arc::clone(&events),
    );
    (directory, events)
}

/// A directory over real workers on the in-memory network.
struct Rig {
    net: SimNet,
    workers: Vec<Worker<SimIo>>,
    directory: Tested,
    events: Arc<EventLog>,
    waiters: u32,
}

impl Rig {
    fn new(setup: Setup, block: PortBlock) -> Self {
        Self::over(setup, &[block])
    }

    /// With one worker for each block of ports.
    fn over(setup: Setup, blocks: &[PortBlock]) -> Self {
        let net = SimNet::new(&SimConfig::default());
        let (mut workers, mut links) = (Vec::new(), Vec::new());
        let exchanges = Exchange::among(blocks.len());
        for ((id, &block), exchange) in (0..).zip(blocks).zip(exchanges) {
            let (control, end) = rings::pair(limits::REQUEST_RING, limits::REPLY_RING);
            let config = WorkerConfig {
                id: WorkerId(id),
                core: None,
                spin: false,
                slots_per_turn: 1,
                origin: None,
                recording: None,
                engine: EngineLimits {
                    conferences: setup.worker_conferences_max,
                    endpoints: setup.worker_endpoints_max,
                    port_first: block.first,
                    port_last: block.last,
                    events: 256,
                    media_timeout_ms: 60_000,
                },
            };
            let io = net.attach(setup.worker_endpoints_max);
            workers.push(Worker::new(&config, io, end, exchange));
            links.push((control, block));
        }
        let (directory, events) = directory(setup, links);
        Self {
            net,
            workers,
            directory,
            events,
            waiters: 0,
        }
    }

    fn usual() -> Self {
        Self::new(setup(), BLOCK)
    }

    fn ask(&mut self, call: &Call) -> u32 {
        self.waiters += 1;
        self.directory.call(self.net.now(), call, self.waiters);
        self.waiters
    }

    fn pass_ms(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds {
            self.net
                .advance_to(self.net.now().after(Duration::from_millis(1)));
            self.workers.iter_mut().for_each(|worker| _ = worker.turn());
            self.directory.poll(self.net.now());
        }
    }

    fn answers(&mut self) -> BTreeMap<u32, Answer> {
        self.directory.ready().collect()
    }

    /// Asks and lets so much time pass that every command is through.
    fn say(&mut self, call: &Call) -> Answer {
        let waiter = self.ask(call);
        self.pass_ms(5);
        self.answers().remove(&waiter).expect("no answer")
    }

    fn kind(&mut self, call: &Call) -> ProblemKind {
        self.say(call).expect_err("not refused").kind
    }

    fn fill(&mut self, conference: &str, endpoints: std::ops::Range<u32>) {
        for number in endpoints {
            let name = format!("e{number}");
            let waiter = self.ask(&endpoint(
                conference,
                &name,
                &format!("{conference}-{name}"),
                None,
            ));
            if number % 100 == 99 {
                self.pass_ms(8);
                assert!(
                    self.answers()
                        .remove(&waiter)
                        .is_some_and(|answer| answer.is_ok())
                );
            }
        }
        self.pass_ms(8);
    }

    /// Nothing is left anywhere, and nothing is lost from the free lists.
    fn assert_empty(&mut self) {
        let directory = &mut self.directory;
        assert!(directory.conferences.is_empty() && directory.ending.is_empty());
        let pending = directory
            .outstanding
            .values()
            .filter(|out| !matches!(out.action, Action::Snapshot));
        assert_eq!(pending.count(), 0);
        assert!(directory.ssrcs.is_empty() && directory.endpoints == 0);
        for table in &mut directory.workers {
            assert_eq!(table.free_conferences.len(), table.conference_at.len());
            assert_eq!(
                table.free_endpoints.iter().collect::<BTreeSet<_>>().len(),
                table.endpoint_at.len()
            );
            assert!(table.endpoint_at.iter().all(|place| *place == Place::Free));
            assert_eq!((table.conferences, table.endpoints), (0, 0));
            let stats = table.link.stats().read();
            assert_eq!((stats.worker.conferences, stats.worker.endpoints), (0, 0));
        }
    }
}

fn call(conference: &str, endpoint: &str, body: Body) -> Call {
    Call {
        conference: conference.to_owned(),
        endpoint: endpoint.to_owned(),
        body,
    }
}

fn conference(name: &str, owner: &str, command: &str) -> Call {
    let body = CreateConference {
        command: command.to_owned(),
        owner: owner.to_owned(),
        talkers: None,
    };
    call(name, "", Body::CreateConference(body))
}

fn endpoint(conference: &str, name: &str, command: &str, media: Option<Media>) -> Call {
    call(
        conference,
        name,
        Body::CreateEndpoint(CreateEndpoint {
            command: command.to_owned(),
            media,
            trunk: false,
        }),
    )
}

fn media(port: u16) -> Media {
    Media {
        remote: SocketAddr::from(([127, 0, 0, 1], port)),
        direction: Direction::SendRecv,
        send: SendFormat {
            payload_type: 0,
            codec: Codec::Pcmu,
            ptime_ms: 20,
        },
        receive: vec![ReceiveFormat {
            payload_type: 0,
            codec: Codec::Pcmu,
        }],
        telephone_event: None,
        source: SourcePolicy::Strict,
        srtp: None,
    }
}

fn verb(conference: &str, endpoint: &str, command: &str, verb: EndpointVerb) -> Call {
    call(
        conference,
        endpoint,
        Body::EndpointCommand(EndpointCommand {
            command: command.to_owned(),
            verb,
        }),
    )
}

fn lock(conference: &str, command: &str, on: bool) -> Call {
    let body = ConferenceCommand {
        command: command.to_owned(),
        verb: ConferenceVerb::Lock { on },
    };
    call(conference, "", Body::ConferenceCommand(body))
}

fn tone(play: &str, repeat: u32) -> Play {
    let source = PlaySource::Tone {
        hertz: 440,
        attenuation_db: 10,
        duration_ms: 60,
    };
    Play {
        play: play.to_owned(),
        source,
        repeat,
    }
}

fn delete_conference(name: &str, command: &str) -> Call {
    call(name, "", Body::DeleteConference(command.to_owned()))
}

fn delete_endpoint(conference: &str, name: &str, command: &str) -> Call {
    call(conference, name, Body::DeleteEndpoint(command.to_owned()))
}

fn told(events: &Arc<EventLog>) -> Vec<Event> {
    let mut reader = events.read(Some(0), Timestamp(0), Arc::default());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut all = Vec::new();
        for _ in 0..events.head() {
            all.push(serde_json::from_str(&reader.next().await.unwrap().1).unwrap());
        }
        all
    })
}

#[test]
fn commands_need_not_wait_for_each_other() {
    let mut rig = Rig::usual();
    let waiters = [
        rig.ask(&conference("c", "me", "1")),
        rig.ask(&endpoint("c", "a", "2", None)),
        rig.ask(&call(
            "c",
            "a",
            Body::SetMedia(SetMedia {
                command: "3".to_owned(),
                media: media(4000),
            }),
        )),
        rig.ask(&verb("c", "a", "4", EndpointVerb::Mute { on: true })),
        rig.ask(&delete_endpoint("c", "a", "5")),
        rig.ask(&endpoint("c", "b", "6", Some(media(4002)))),
    ];
    rig.pass_ms(1);
    let answers = rig.answers();
    assert!(
        waiters.iter().all(|waiter| answers[waiter].is_ok()),
        "{answers:?}"
    );
    let state = rig.directory.state("i");
    let names: Vec<&str> = state.conferences[0]
        .endpoints
        .iter()
        .map(|one| one.endpoint.as_str())
        .collect();
    assert_eq!(names, ["b"]);
}

#[test]
fn what_is_already_so_is_done_and_what_differs_is_a_conflict() {
    let mut rig = Rig::usual();
    let first = rig.say(&conference("c", "me", "1")).unwrap();
    assert_eq!(rig.say(&conference("c", "me", "1")).unwrap(), first);
    assert!(rig.say(&conference("c", "me", "2")).is_ok());
    assert_eq!(rig.kind(&conference("c", "you", "3")), ProblemKind::Conflict);
    assert_eq!(rig.kind(&conference("d", "me", "1")), ProblemKind::Conflict);
    let Ok(Reply::Endpoint(made)) = rig.say(&endpoint("c", "a", "4", Some(media(4000)))) else {
        panic!()
    };
    let Ok(Reply::Endpoint(again)) = rig.say(&endpoint("c", "a", "5", Some(media(4000)))) else {
        panic!()
    };
    assert_eq!(
        (again.local, again.ssrc, again.done.tick),
        (made.local, made.ssrc, made.done.tick)
    );
    assert_eq!(again.done.command, "5");
    assert_eq!(
        rig.kind(&endpoint("c", "a", "6", Some(media(4002)))),
        ProblemKind::Conflict
    );
    assert_eq!(rig.kind(&endpoint("c", "a", "7", None)), ProblemKind::Conflict);
    assert!(rig.say(&delete_endpoint("c", "a", "8")).is_ok());
    assert!(rig.say(&delete_endpoint("c", "a", "9")).is_ok());
    assert!(rig.say(&delete_endpoint("none", "a", "10")).is_ok());
    assert!(rig.say(&delete_conference("c", "11")).is_ok());
    assert!(rig.say(&delete_conference("c", "12")).is_ok());
    rig.assert_empty();
}

#[test]
fn the_same_request_twice_at_once_is_executed_once() {
    let mut rig = Rig::usual();
    let waiters = [
        rig.ask(&conference("c", "me", "1")),
        rig.ask(&conference("c", "me", "1")),
        rig.ask(&conference("c", "me", "2")),
        rig.ask(&endpoint("c", "a", "3", None)),
        rig.ask(&endpoint("c", "a", "3", None)),
        rig.ask(&endpoint("c", "a", "4", None)),
        rig.ask(&delete_endpoint("c", "a", "5")),
        rig.ask(&delete_endpoint("c", "a", "6")),
    ];
    assert_eq!(rig.directory.outstanding.len(), 3);
    rig.pass_ms(1);
    let answers = rig.answers();
    assert!(
        waiters.iter().all(|waiter| answers[waiter].is_ok()),
        "{answers:?}"
    );
    assert_eq!(answers[&waiters[3]], answers[&waiters[4]]);
}

#[test]
fn unknown_targets_are_not_found() {
    let mut rig = Rig::usual();
    let mute = EndpointVerb::Mute { on: true };
    assert_eq!(rig.kind(&endpoint("c", "a", "1", None)), ProblemKind::NotFound);
    assert_eq!(rig.kind(&lock("c", "2", true)), ProblemKind::NotFound);
    rig.say(&conference("c", "me", "3")).unwrap();
    assert_eq!(
        rig.kind(&verb("c", "a", "4", mute.clone())),
        ProblemKind::NotFound
    );
    assert_eq!(rig.kind(&verb("d", "a", "5", mute)), ProblemKind::NotFound);
    let set = Body::SetMedia(SetMedia {
        command: "6".to_owned(),
        media: media(4000),
    });
    assert_eq!(rig.kind(&call("c", "a", set)), ProblemKind::NotFound);
}

#[test]
fn a_locked_conference_takes_no_new_endpoint_and_keeps_the_old() {
    let mut rig = Rig::usual();
    rig.say(&conference("c", "me", "1")).unwrap();
    rig.say(&endpoint("c", "a", "2", None)).unwrap();
    rig.say(&lock("c", "3", true)).unwrap();
    assert_eq!(rig.kind(&endpoint("c", "b", "4", None)), ProblemKind::Locked);
    assert!(rig.say(&endpoint("c", "a", "5", None)).is_ok());
    assert!(rig.directory.state("i").conferences[0].locked);
    rig.say(&lock("c", "6", false)).unwrap();
    assert!(rig.say(&endpoint("c", "b", "7", None)).is_ok());
}

#[test]
fn plays_end_in_events_with_the_clients_id() {
    let mut rig = Rig::usual();
    rig.say(&conference("c", "me", "1")).unwrap();
    rig.say(&endpoint("c", "a", "2", Some(media(4000)))).unwrap();
    let play = |command: &str, play: Play| verb("c", "a", command, EndpointVerb::Play(play));
    rig.say(&play("3", tone("short", 1))).unwrap();
    rig.say(&play("4", tone("endless", 0))).unwrap();
    assert_eq!(rig.kind(&play("5", tone("endless", 0))), ProblemKind::Conflict);
    let all = ConferenceCommand {
        command: "6".to_owned(),
        verb: ConferenceVerb::Play(tone("endless", 1)),
    };
    rig.say(&call("c", "", Body::ConferenceCommand(all))).unwrap();
    rig.pass_ms(200);
    rig.say(&verb(
        "c",
        "a",
        "7",
        EndpointVerb::Stop {
            play: Some("unknown".to_owned()),
        },
    ))
    .unwrap();
    rig.say(&verb(
        "c",
        "a",
        "8",
        EndpointVerb::Stop {
            play: Some("endless".to_owned()),
        },
    ))
    .unwrap();
    rig.pass_ms(50);
    let played: Vec<(String, String, bool)> = told(&rig.events)
        .into_iter()
        .filter_map(|event| {
            let EventBody::Played { play, complete } = event.body else {
                return None;
            };
            Some((event.endpoint, play, complete))
        })
        .collect();
    let expect = |endpoint: &str, play: &str, complete| (endpoint.to_owned(), play.to_owned(), complete);
    assert_eq!(played.len(), 3, "{played:?}");
    assert!(played.contains(&expect("a", "short", true)), "{played:?}");
    assert!(played.contains(&expect("", "endless", true)), "{played:?}");
    assert_eq!(played[2], expect("a", "endless", false));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_sequence_of_commands_leaves_an_empty_mixer_empty(
        steps in prop::collection::vec((0u8..9, 0u8..3, 0u8..4, 0u64..3), 1..120),
    ) {
        let mut rig = Rig::usual();
        for (number, (what, conf, leg, pause)) in steps.into_iter().enumerate() {
            let (conf, leg, id) = (format!("c{conf}"), format!("e{leg}"), format!("n{number}"));
            let call = match what {
                0 | 1 => conference(&conf, "me", &id),
                2 | 3 => endpoint(&conf, &leg, &id, Some(media(4000))),
                4 => delete_endpoint(&conf, &leg, &id),
                5 => delete_conference(&conf, &id),
                6 => verb(&conf, &leg, &id, EndpointVerb::Play(tone(&id, 0))),
                7 => verb(&conf, &leg, &id, EndpointVerb::Stop { play: None }),
                _ => verb(&conf, &leg, &id, EndpointVerb::Mute { on: pause == 0 }),
            };
            rig.ask(&call);
            rig.pass_ms(pause);
        }
        rig.pass_ms(5);
        let asked = rig.waiters;
        prop_assert_eq!(rig.answers().len(), asked as usize, "every command has one answer");
        for conf in 0..3 {
            rig.ask(&delete_conference(&format!("c{conf}"), &format!("end{conf}")));
        }
        rig.pass_ms(8);
        rig.assert_empty();
    }
}
