use std::net::SocketAddr;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use mixer_engine::command::{Command, Play, PlaySource};
use mixer_engine::engine::{Conference, ConferenceSetup, Endpoint, EndpointSetup};
use mixer_engine::media::{Codec, Direction, MediaPlan, SourceRule};
use mixer_engine::packet::FlowId;
use mixer_engine::srtp::{MasterKey, Srtp, Suite};
use mixer_engine::wire::rtp::RtpRepr;

use super::*;
use crate::control::rings::{self, ControlEnd, FromWorker, IoChange, Request};
use crate::io::sim::{Impairment, SimConfig, SimIo, SimNet, SimPrepared};
use crate::limits;
use crate::worker::exchange::Exchange;
use crate::worker::{RecordingConfig, Worker, WorkerConfig, WorkerId};

const LEGS: u16 = 14;
const PORT_FIRST: u16 = 10_000;

fn config(bytes: usize) -> WorkerConfig {
    WorkerConfig {
        id: WorkerId(0),
        core: None,
        spin: false,
        slots_per_turn: 1,
        origin: None,
        engine: EngineLimits {
            conferences: 4,
            endpoints: u32::from(LEGS),
            port_first: PORT_FIRST,
            port_last: PORT_FIRST + LEGS,
            events: 256,
            media_timeout_ms: 1_000,
        },
        recording: Some(RecordingConfig {
            bytes,
            folder: Path::new(""),
        }),
    }
}

/// A worker with phones on a bad network that has too few transmit buffers.
struct World {
    net: SimNet,
    worker: Worker<SimIo>,
    control: ControlEnd<SimPrepared>,
    milliseconds: u64,
    requests: u64,
    /// Everything sent: where to, and what.
    sent: Vec<(SocketAddr, Vec<u8>)>,
}

fn keys(leg: u16) -> Srtp {
    let suite = Suite::ALL[usize::from(leg) % 5];
    let key = |way| vec![way; suite.key_bytes() + suite.salt_bytes()];
    let [receive, send] = [1, 2].map(|way| MasterKey::new(suite, &key(way)).unwrap());
    Srtp::new(receive, send)
}

fn local(leg: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 9], PORT_FIRST + leg))
}

fn phone(leg: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], PORT_FIRST + leg))
}

fn at(leg: u16) -> EndpointIndex {
    EndpointIndex(u32::from(leg))
}

/// Codecs, packet times and source rules of every kind.
fn plan(leg: u16) -> MediaPlan {
    let kind = usize::from(leg % 3);
    let mut receive = [None; 8];
    receive[0] = Some((96, Codec::ALL[kind]));
    MediaPlan {
        remote: phone(leg),
        direction: Direction {
            send: true,
            receive: true,
        },
        send_codec: Codec::ALL[kind],
        send_payload_type: 96,
        send_ptime_ms: [20, 10, 30][usize::from(leg / 3 % 3)],
        receive,
        telephone_event: Some(101),
        source: if leg.is_multiple_of(5) {
            SourceRule::Learn {
                allowed: [Some(phone(leg).ip()), None, None, None],
            }
        } else {
            SourceRule::Strict
        },
    }
}

fn prompt() -> &'static [i16] {
    static PROMPT: OnceLock<Vec<i16>> = OnceLock::new();
    PROMPT.get_or_init(|| (0..4_003).map(|n| n % 700 * 11 - 3_000).collect())
}

impl World {
    fn new(bytes: usize) -> Self {
        let net = SimNet::new(&SimConfig {
            seed: 7,
            to_workers: Impairment {
                loss: 0.03,
                duplication: 0.01,
                delay: Duration::from_millis(20),
                variance: Duration::from_millis(40),
            },
            send_buffers: 4,
            ..SimConfig::default()
        });
        let (control, end) = rings::pair(limits::REQUEST_RING, limits::REPLY_RING);
        let worker = Worker::new(
            &config(bytes),
            net.attach(u32::from(LEGS)),
            end,
            Exchange::alone(),
        );
        let mut world = Self {
            net,
            worker,
            control,
            milliseconds: 0,
            requests: 0,
            sent: Vec::new(),
        };
        for (room, talkers) in [(0, None), (1, Some(2))] {
            let phase = 3 + 9 * u8::try_from(room).unwrap();
            let conference = Conference::new(ConferenceSetup { phase, talkers });
            let at = ConferenceIndex(room);
            world.ask(Command::AddConference { at, conference }, IoChange::None);
        }
        world
    }

    fn ask(&mut self, command: Command, io: IoChange<SimPrepared>) {
        self.requests += 1;
        let id = self.requests;
        assert!(self.control.send(Request { id, command, io }).is_ok());
    }

    fn join(&mut self, leg: u16) {
        let number = u32::from(leg);
        let setup = EndpointSetup {
            local_port: local(leg).port(),
            ssrc: 0xA000_0000 + number + u32::try_from(self.milliseconds).unwrap(),
            sequence: 65_000,
            timestamp: u32::MAX - 10_000,
            media: (leg != 4).then(|| plan(leg)),
            slots: 16,
            trunk: false,
        };
        let endpoint = if leg % 5 == 2 {
            Endpoint::with_srtp(setup, keys(leg))
        } else {
            Endpoint::new(setup)
        };
        let command = Command::AddEndpoint {
            conference: ConferenceIndex(number % 2),
            at: at(leg),
            endpoint,
        };
        let io = IoChange::Open {
            flow: FlowId(number),
            local: local(leg),
            prepared: SimPrepared(local(leg)),
        };
        self.ask(command, io);
    }

    /// What happens at this millisecond besides talk.
    fn happen(&mut self) {
        let leg = u16::try_from(self.milliseconds / 50 % u64::from(LEGS)).unwrap();
        let on = self.milliseconds % 1_000 < 500;
        let at = at(leg);
        let play = |source| Play {
            id: PlayId(u32::from(leg)),
            source,
            repeat: 2,
        };
        let tone = PlaySource::Tone {
            hertz: 425,
            attenuation_db: 12,
            duration_ms: 300,
        };
        let room = ConferenceIndex(u32::from(leg % 2));
        let command = match self.milliseconds / 50 % 11 {
            0 => {
                let flow = FlowId(at.0);
                return self.ask(Command::RemoveEndpoint { at }, IoChange::Close { flow });
            }
            1 | 2 => return self.join(leg),
            3 => Command::Mute { at, on },
            4 => Command::Deaf { at, on },
            5 => Command::Hold { at, on },
            6 => Command::Gain { at, centibel: -350 },
            7 => Command::SetMedia {
                at,
                media: Box::new(plan(leg)),
                srtp: on.then(|| keys(leg)),
            },
            8 => Command::PlayToEndpoint {
                at,
                play: play(PlaySource::Pcm(prompt())),
            },
            9 if on => Command::PlayToConference {
                at: room,
                play: play(tone),
            },
            9 => Command::StopConference { at: room, play: None },
            _ => Command::Snapshot {
                from: EndpointIndex(0),
                buffer: Box::new(Vec::with_capacity(8)),
            },
        };
        self.ask(command, IoChange::None);
    }

    fn talk(&mut self) {
        let tick = self.milliseconds / 20;
        for leg in (0..LEGS).filter(|leg| self.milliseconds % 20 == u64::from(*leg)) {
            // Pauses of half a second.
            if (tick / 25 + u64::from(leg)).is_multiple_of(4) {
                continue;
            }
            let header = RtpRepr {
                payload_type: 96,
                marker: false,
                sequence: u16::try_from(tick & 0xFFFF).unwrap(),
                timestamp: u32::try_from(tick * 160).unwrap(),
                ssrc: 0x5000 + u32::from(leg),
                csrc: &[],
            };
            let mut packet = vec![0; 12 + 160 * plan(leg).send_codec.bytes_per_sample()];
            assert_eq!(header.emit(&mut packet), 12);
            let mut noise = tick * 31 + u64::from(leg) + 1;
            packet[12..].iter_mut().for_each(|byte| {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *byte = noise.to_be_bytes()[0];
            });
            self.net.peer_send(phone(leg), local(leg), &packet);
        }
    }

    fn run(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds {
            if self.milliseconds.is_multiple_of(50) {
                self.happen();
            }
            self.talk();
            self.milliseconds += 1;
            // Once it stands still for so long that old slots run muted.
            if !(1_500..1_700).contains(&self.milliseconds) {
                assert!(self.worker.turn());
                self.hear();
                assert!(self.worker.wait());
            }
            self.net.advance_to(Timestamp(self.milliseconds * 1_000_000));
        }
        self.hear();
    }

    fn hear(&mut self) {
        while let Some(reply) = self.control.receive() {
            if let FromWorker::Histograms(histograms) = reply {
                self.control.return_histograms(histograms);
            }
        }
        let mut buffer = [0; limits::DATAGRAM_MAX];
        while let Some(arrival) = self.net.peer_receive(&mut buffer) {
            self.sent.push((arrival.to, buffer[..arrival.length].to_vec()));
        }
    }
}

/// What the replay sends, in the world's words.
fn replay(recording: &[u8]) -> (Played, Vec<(SocketAddr, Vec<u8>)>) {
    let mut sent = Vec::new();
    let played = play(recording, |packet| {
        let leg = u16::try_from(packet.flow.0).unwrap();
        sent.push((phone(leg), packet.payload.to_vec()));
    });
    (played.unwrap(), sent)
}

fn assert_same(replayed: &[(SocketAddr, Vec<u8>)], sent: &[(SocketAddr, Vec<u8>)]) {
    let differs = replayed.iter().zip(sent).position(|(one, other)| one != other);
    assert_eq!(differs, None, "of {} packets", sent.len());
    assert_eq!(replayed.len(), sent.len());
}

#[test]
fn a_replay_sends_the_same_packets_byte_for_byte() {
    let mut world = World::new(16 << 20);
    world.run(6_000);
    let recording = world.worker.take_recording().unwrap();
    let (played, replayed) = replay(&recording);
    assert_same(&replayed, &world.sent);
    let stats = world.control.stats().read();
    assert_eq!(played.datagrams, stats.io.received);
    assert_eq!(
        (played.slots, stats.worker.inputs_left_out),
        (stats.worker.slots, 0)
    );
    // Of everything that is to be there, something is.
    assert!(world.sent.len() > 1_500, "{}", world.sent.len());
    assert!(played.not_taken > 10 && played.commands > 100, "{played:?}");
    assert!(
        stats.worker.slots_skipped > 100 && stats.engine.frames_left_out > 0,
        "{stats:?}"
    );
    assert_eq!(replay(&recording).0, played);
}

#[test]
fn a_full_recording_is_whole_up_to_its_end() {
    let mut world = World::new(150_000);
    world.run(3_000);
    let left_out = world.control.stats().read().worker.inputs_left_out;
    let (played, replayed) = replay(&world.worker.take_recording().unwrap());
    assert_same(&replayed, &world.sent[..replayed.len()]);
    assert!(
        replayed.len() > 50 && replayed.len() < world.sent.len() && left_out > 500,
        "{played:?}"
    );
}

#[test]
fn a_recording_of_a_worker_that_goes_on_begins_with_its_state() {
    let mut world = World::new(16 << 20);
    world.run(2_515);
    let ended = world.worker.end();
    world.sent.clear();
    let (control, end) = rings::pair(limits::REQUEST_RING, limits::REPLY_RING);
    let io = world.net.attach(u32::from(LEGS));
    world.worker =
        Worker::resume(&config(16 << 20), io, end, Exchange::alone(), ended.left.unwrap()).unwrap();
    world.control = control;
    world.run(2_000);
    let (played, replayed) = replay(&world.worker.take_recording().unwrap());
    assert_same(&replayed, &world.sent);
    assert!(replayed.len() > 300 && played.slots >= 1_999, "{played:?}");
}

#[test]
fn what_is_no_recording_is_refused() {
    let mut world = World::new(1 << 20);
    world.run(300);
    let recording = world.worker.take_recording().unwrap();
    let nothing = |recording: &[u8]| play(recording, |_| {}).unwrap_err();
    assert!(matches!(nothing(b"mixmin"), ReplayError::NoRecording));
    assert!(matches!(nothing(&recording[..20]), ReplayError::NoRecording));
    let cut = &recording[..recording.len() - 1];
    assert!(matches!(nothing(cut), ReplayError::Broken { entry: 300.. }));
    let header = Header {
        format: FORMAT + 1,
        ..rmp_serde::from_slice(&recording[12..]).unwrap()
    };
    let header = rmp_serde::to_vec(&header).unwrap();
    let length = u32::try_from(header.len()).unwrap().to_le_bytes();
    let newer = [MAGIC.as_slice(), &length, &header].concat();
    assert!(matches!(nothing(&newer), ReplayError::Format { found } if found == FORMAT + 1));
}
