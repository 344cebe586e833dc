//! An engine whose state went through bytes goes on as if nothing had happened: every datagram, event
//! and counter of an interrupted run is that of an uninterrupted one.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use mixer::clock::Clock;
use mixer::control::random::Random;
use mixer::io::PacketIo;
use mixer::io::sim::{Impairment, SimConfig, SimIo, SimNet, SimPrepared};
use mixer_engine::command::{
    Command, ConferenceIndex, EndpointIndex, EndpointSnapshot, Play, PlayId, PlaySource, Retired,
};
use mixer_engine::counters::Counters;
use mixer_engine::engine::state::StateError;
use mixer_engine::engine::{Conference, ConferenceSetup, Endpoint, EndpointSetup, Engine, EngineLimits};
use mixer_engine::event::{Event, EventKind};
use mixer_engine::media::{Codec, Direction, MediaPlan, SourceRule};
use mixer_engine::packet::FlowId;
use mixer_engine::srtp::{MasterKey, OVERHEAD_MAX, Sending, Srtp, Suite};
use mixer_engine::time::Slot;
use mixer_engine::wire::rtp::RtpRepr;

const LEGS: u32 = 12;
const PORT_FIRST: u16 = 10_000;
const LIMITS: EngineLimits = EngineLimits {
    conferences: 8,
    endpoints: 256,
    port_first: PORT_FIRST,
    port_last: PORT_FIRST + 511,
    events: 64,
    media_timeout_ms: 1_500,
};

fn prompt() -> &'static [i16] {
    static PROMPT: OnceLock<Vec<i16>> = OnceLock::new();
    PROMPT.get_or_init(|| {
        (0..5_003_i32)
            .map(|n| i16::try_from(n * 37 % 9_000 - 4_500).unwrap())
            .collect()
    })
}

fn port(at: u32) -> u16 {
    PORT_FIRST + 2 * u16::try_from(at).unwrap()
}

fn local(at: u32) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 9], port(at)))
}

fn phone(at: u32) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], port(at)))
}

/// Media of every kind: codecs, packet times, directions, source rules.
fn plan(at: u32) -> MediaPlan {
    let codec = Codec::ALL[at as usize % 3];
    let mut receive = [None; 8];
    for (place, (number, codec)) in
        receive
            .iter_mut()
            .zip([(0, Codec::Pcmu), (8, Codec::Pcma), (97, Codec::L16)])
    {
        *place = Some((number, codec));
    }
    let learn = SourceRule::Learn {
        allowed: [Some(phone(at).ip()), None, None, None],
    };
    MediaPlan {
        remote: phone(at),
        direction: Direction {
            send: at != 10,
            receive: at != 11,
        },
        send_codec: codec,
        send_payload_type: [0, 8, 97][at as usize % 3],
        send_ptime_ms: if codec == Codec::L16 {
            [10, 20][at as usize % 2]
        } else {
            [20, 10, 30, 60, 40][at as usize % 5]
        },
        receive,
        telephone_event: Some(101),
        source: if at.is_multiple_of(4) {
            learn
        } else {
            SourceRule::Strict
        },
    }
}

/// Legs with SRTP.
fn is_secure(at: u32) -> bool {
    at % 4 == 1
}

/// What the `at`th phone sends under.
fn key(at: u32, generation: u8) -> MasterKey {
    let suite = Suite::ALL[at as usize % 5];
    let bytes = vec![generation + 1; suite.key_bytes() + suite.salt_bytes()];
    MasterKey::new(suite, &bytes).unwrap()
}

fn srtp(at: u32, generation: u8) -> Srtp {
    Srtp::new(key(at, generation), key(at, generation + 100))
}

/// What a run can be told apart by.
#[derive(Debug, PartialEq, Eq)]
struct Trace {
    digest: u64,
    events: Vec<(u64, Event)>,
    counters: Counters,
    legs: Vec<EndpointSnapshot>,
}

struct Run {
    net: SimNet,
    io: SimIo,
    engine: Engine,
    slot: u64,
    sequences: Vec<u16>,
    /// Of phones with SRTP.
    keys: BTreeMap<u32, Sending>,
    events: Vec<(u64, Event)>,
}

impl Run {
    fn new(seed: u64, legs: u32) -> Self {
        let net = SimNet::new(&SimConfig {
            seed,
            to_workers: Impairment {
                loss: 0.04,
                duplication: 0.02,
                delay: Duration::from_millis(5),
                variance: Duration::from_millis(45),
            },
            ..SimConfig::default()
        });
        let io = net.attach(LIMITS.endpoints);
        let mut run = Self {
            net,
            io,
            engine: Engine::new(LIMITS),
            slot: 0,
            sequences: (0..legs).map(|at| 65_500 - u16::try_from(at).unwrap()).collect(),
            keys: (0..legs)
                .filter(|at| is_secure(*at))
                .map(|at| (at, Sending::new(key(at, 0))))
                .collect(),
            events: Vec::new(),
        };
        for at in 0..3 {
            let conference = Conference::new(ConferenceSetup {
                phase: [7, 7, 12][at as usize],
                talkers: [None, Some(2), Some(1)][at as usize],
            });
            let at = ConferenceIndex(at);
            run.must(Command::AddConference { at, conference });
        }
        (0..legs).for_each(|at| run.join(at));
        run
    }

    fn must(&mut self, command: Command) -> Option<Retired> {
        let now = self.io.now();
        let outcome = self.engine.apply(now, Slot(self.slot), command, &mut self.io);
        assert_eq!(outcome.result, Ok(()));
        outcome.retired
    }

    fn join(&mut self, at: u32) {
        self.io
            .open_flow(FlowId(at), local(at), SimPrepared(local(at)))
            .unwrap();
        let setup = EndpointSetup {
            local_port: local(at).port(),
            ssrc: 0xA000_0000 + at,
            sequence: 65_400,
            timestamp: u32::MAX - 10_000,
            media: Some(plan(at)),
            slots: if at.is_multiple_of(2) { 16 } else { 32 },
            trunk: at % 7 == 3,
        };
        let endpoint = if is_secure(at) {
            Endpoint::with_srtp(setup, srtp(at, 0))
        } else {
            Endpoint::new(setup)
        };
        let conference = ConferenceIndex(at % 3);
        let at = EndpointIndex(at);
        self.must(Command::AddEndpoint {
            conference,
            at,
            endpoint,
        });
    }

    fn leave(&mut self, at: u32) {
        let at = EndpointIndex(at);
        self.must(Command::RemoveEndpoint { at });
        self.io.close_flow(FlowId(at.0));
    }

    /// What an operator and callers do at their times.
    fn script(&mut self) {
        let on = !self.slot.is_multiple_of(200);
        let end = |at| EndpointIndex(at);
        let play = |id, source, repeat| Play {
            id: PlayId(id),
            source,
            repeat,
        };
        let tone = PlaySource::Tone {
            hertz: 440,
            attenuation_db: 20,
            duration_ms: 150,
        };
        match self.slot {
            100 => drop(self.must(Command::PlayToEndpoint {
                at: end(1),
                play: play(1, PlaySource::Pcm(prompt()), 3),
            })),
            150 => drop(self.must(Command::PlayToConference {
                at: ConferenceIndex(0),
                play: play(2, PlaySource::Pcm(prompt()), 0),
            })),
            170 => drop(self.must(Command::PlayToConference {
                at: ConferenceIndex(2),
                play: play(3, tone, 7),
            })),
            900 => drop(self.must(Command::StopConference {
                at: ConferenceIndex(0),
                play: None,
            })),
            310 | 800 => drop(self.must(Command::Hold { at: end(2), on })),
            330 | 1_000 => drop(self.must(Command::Mute { at: end(3), on })),
            350 => drop(self.must(Command::Deaf { at: end(4), on })),
            360 => drop(self.must(Command::Gain {
                at: end(5),
                centibel: -350,
            })),
            400 => self.leave(6),
            700 => self.join(6),
            1_100 => {
                let media = Box::new(MediaPlan {
                    send_ptime_ms: 30,
                    ..plan(7)
                });
                let at = end(7);
                drop(self.must(Command::SetMedia {
                    at,
                    media,
                    srtp: None,
                }));
                // Its phone does not follow: what it sends under the old keys is still taken.
                let (at, media, srtp) = (end(1), Box::new(plan(1)), Some(srtp(1, 7)));
                drop(self.must(Command::SetMedia { at, media, srtp }));
            }
            _ => {}
        }
    }

    fn phones(&mut self) {
        for at in 0..u32::try_from(self.sequences.len()).unwrap() {
            let pausing = at.is_multiple_of(3) && self.slot % 1_000 > 600;
            let gone = at == 9 && self.slot > 500;
            if self.slot % 20 != u64::from(at) % 20 || pausing || gone {
                continue;
            }
            let sequence = &mut self.sequences[at as usize];
            *sequence = sequence.wrapping_add(1);
            let pressing = at == 8 && self.slot % 700 > 400;
            let timestamp = u32::try_from(self.slot).unwrap() * 8;
            let header = RtpRepr {
                payload_type: if pressing { 101 } else { [0, 8][at as usize % 2] },
                marker: false,
                sequence: *sequence,
                timestamp: if pressing {
                    timestamp - timestamp % 5_600
                } else {
                    timestamp
                },
                ssrc: 0x5000_0000 + at,
                csrc: &[],
            };
            let mut packet = vec![0; 12];
            assert_eq!(header.emit(&mut packet), packet.len());
            if pressing {
                let held = u16::try_from(self.slot % 700 - 400).unwrap() * 8;
                packet.extend([5, if self.slot % 700 > 660 { 0x8A } else { 10 }]);
                packet.extend(held.to_be_bytes());
            } else {
                let mut noise = Random::seeded(self.slot << 8 | u64::from(at));
                packet.extend((0..160).map(|_| u8::try_from(noise.below(256)).unwrap()));
            }
            if let Some(keys) = self.keys.get_mut(&at) {
                if header.sequence == 0 {
                    keys.roll_over();
                }
                let length = packet.len();
                packet.resize(length + OVERHEAD_MAX, 0);
                let length = keys.protect(&mut packet, length).unwrap();
                packet.truncate(length);
            }
            self.net.peer_send(phone(at), local(at), &packet);
        }
    }

    fn step(&mut self) {
        self.phones();
        let now = self.io.now();
        let engine = &mut self.engine;
        self.io
            .receive(10_000, |datagram| engine.handle_datagram(datagram));
        self.script();
        self.engine.run_slot(Slot(self.slot), now, &mut self.io);
        self.io.flush();
        // Not every slot: some events are inside when the state is written.
        while self.slot.is_multiple_of(10)
            && let Some(event) = self.engine.poll_event()
        {
            self.events.push((self.slot, event));
        }
        self.slot += 1;
        self.net.advance_to(now.after(Slot::LENGTH));
    }

    /// Everything through bytes and back.
    fn pass_through_bytes(&mut self) -> usize {
        let number = |samples: &'static [i16]| std::ptr::eq(samples, prompt()).then_some(5);
        let state = self.engine.export_state(number).unwrap();
        let find = |number| (number == 5).then(prompt);
        self.engine = Engine::import_state(LIMITS, &state, find).unwrap();
        state.len()
    }

    fn trace(mut self) -> Trace {
        let legs = match self.must(Command::Snapshot {
            from: EndpointIndex(0),
            buffer: Box::new(Vec::with_capacity(512)),
        }) {
            Some(Retired::Snapshot(legs)) => *legs,
            other => panic!("no snapshot but {other:?}"),
        };
        Trace {
            digest: self.net.digest(),
            events: self.events,
            counters: *self.engine.counters(),
            legs,
        }
    }
}

const SLOTS: u64 = 3_000;

fn run(seed: u64, cuts: &[u64]) -> Trace {
    let mut run = Run::new(seed, LEGS);
    for slot in 0..SLOTS {
        if cuts.contains(&slot) {
            run.pass_through_bytes();
        }
        run.step();
    }
    run.trace()
}

#[test]
fn an_interrupted_run_sends_and_tells_the_same_as_an_uninterrupted_one() {
    let mut random = Random::kernel().unwrap();
    for seed in 1..=3 {
        let whole = run(seed, &[]);
        assert!(
            whole.counters.rtp_sent > 1_000 && whole.counters.digits > 1,
            "{whole:?}"
        );
        assert!(whole.counters.frames.iter().filter(|count| **count > 0).count() >= 4);
        let told = |wanted: fn(&EventKind) -> bool| whole.events.iter().any(|(_, event)| wanted(&event.kind));
        assert!(told(|kind| matches!(kind, EventKind::SourceLearnt { .. })));
        assert!(told(|kind| matches!(kind, EventKind::MediaTimeout)));
        assert!(told(|kind| matches!(
            kind,
            EventKind::Played { complete: true, .. }
        )));
        for _ in 0..4 {
            let cuts: Vec<u64> = (0..3).map(|_| random.below(3_000) as u64).collect();
            assert_eq!(run(seed, &cuts), whole, "seed {seed}, cut at {cuts:?}");
        }
    }
    let every_slot: Vec<u64> = (0..SLOTS).collect();
    assert_eq!(run(1, &every_slot), run(1, &[]), "cut at every slot");
}

#[test]
fn a_prompt_that_is_gone_ends_incomplete_and_the_rest_goes_on() {
    let mut run = Run::new(1, LEGS);
    (0..200).for_each(|_| run.step());
    while run.engine.poll_event().is_some() {}
    let state = run.engine.export_state(|_| Some(5)).unwrap();
    run.engine = Engine::import_state(LIMITS, &state, |_| None).unwrap();
    let ended: Vec<Event> = std::iter::from_fn(|| run.engine.poll_event()).collect();
    let play = |play| EventKind::Played {
        play: PlayId(play),
        complete: false,
    };
    let kinds: Vec<_> = ended.iter().map(|event| (event.endpoint, event.kind)).collect();
    assert_eq!(kinds, [(None, play(2)), (Some(EndpointIndex(1)), play(1))]);
    (0..200).for_each(|_| run.step());
}

#[test]
fn limits_that_are_too_small_are_named_and_larger_ones_are_fine() {
    let mut run = Run::new(1, LEGS);
    (0..100).for_each(|_| run.step());
    let state = run.engine.export_state(|_| None).unwrap();
    let refused = |change: fn(&mut EngineLimits)| {
        let mut limits = LIMITS;
        change(&mut limits);
        Engine::import_state(limits, &state, |_| None).map(drop)
    };
    let too_small = |what, number, limit| Err(StateError::TooSmall { what, number, limit });
    assert_eq!(
        refused(|limits| limits.endpoints = 11),
        too_small("endpoint", 11, 11)
    );
    assert_eq!(
        refused(|limits| limits.conferences = 2),
        too_small("conference", 2, 2)
    );
    assert_eq!(
        refused(|limits| limits.port_last = port(11) - 1),
        too_small("port", u32::from(port(11)), u32::from(port(11)) - 1)
    );
    assert_eq!(refused(|limits| limits.endpoints = 4_000), Ok(()));
}

/// Prints what a leg costs; asserts only what does not depend on the machine.
#[test]
fn the_state_of_a_talking_leg_is_a_few_kilobytes() {
    const MANY: u32 = 200;
    let mut run = Run::new(1, MANY);
    (0..1_500).for_each(|_| run.step());
    let clock = Clock::start();
    let (mut best_out, mut best_in, mut bytes) = (u64::MAX, u64::MAX, 0);
    for _ in 0..20 {
        let start = clock.now().0;
        let state = run.engine.export_state(|_| Some(5)).unwrap();
        let written = clock.now().0;
        let engine = Engine::import_state(LIMITS, &state, |_| Some(prompt())).unwrap();
        best_in = best_in.min(clock.now().0 - written);
        best_out = best_out.min(written - start);
        bytes = state.len();
        run.engine = engine;
    }
    let legs = u64::from(MANY);
    println!(
        "state of {legs} legs: {bytes} bytes, {} a leg; out {} us, {} ns a leg; in {} us, {} ns a leg",
        bytes / MANY as usize,
        best_out / 1000,
        best_out / legs,
        best_in / 1000,
        best_in / legs
    );
    assert!(bytes < 6_000 * MANY as usize);
}
