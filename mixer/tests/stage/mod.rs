//! A worker with the real engine on the in-memory network, control's end of its rings, and phones.

#![allow(dead_code, reason = "every test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use mixer::control::rings::{self, ControlEnd, FromWorker, IoChange, Request};
use mixer::io::sim::{SimConfig, SimIo, SimNet, SimPrepared};
use mixer::worker::exchange::Exchange;
use mixer::worker::{RecordingConfig, Worker, WorkerConfig, WorkerId};
use mixer_engine::command::{Command, ConferenceIndex, EndpointIndex};
use mixer_engine::engine::{Conference, ConferenceSetup, Endpoint, EndpointSetup, EngineLimits};
use mixer_engine::media::{Codec, Direction, MediaPlan, SourceRule};
use mixer_engine::packet::FlowId;
use mixer_engine::time::Timestamp;
use mixer_engine::wire::rtp::{RtpRepr, RtpView};

pub(crate) const PORT_FIRST: u16 = 10_000;

/// What a phone got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) at: Timestamp,
    pub(crate) sequence: u16,
    pub(crate) timestamp: u32,
    pub(crate) marker: bool,
}

/// A phone that talks (a square wave of its own pitch) and remembers what it got.
pub(crate) struct Phone {
    pub(crate) at: EndpointIndex,
    pub(crate) talks: bool,
    pub(crate) heard: Vec<Heard>,
    sequence: u16,
    packet: [u8; 172],
}

pub(crate) struct Stage {
    pub(crate) net: SimNet,
    pub(crate) worker: Worker<SimIo>,
    pub(crate) control: ControlEnd<SimPrepared>,
    pub(crate) phones: Vec<Phone>,
    pub(crate) replies: Vec<FromWorker<SimPrepared>>,
    /// Whether replies are fetched every millisecond.
    pub(crate) fetches: bool,
    next_id: u64,
    milliseconds: u64,
    slots_per_turn: u64,
}

impl Stage {
    pub(crate) fn new(network: &SimConfig) -> Self {
        Self::with_rings(network, 256, 4_096, 1_024)
    }

    /// A stage whose worker makes a turn in every so many slots.
    pub(crate) fn with_turns(network: &SimConfig, slots_per_turn: u64) -> Self {
        Self::with(network, 256, 4_096, 1_024, slots_per_turn)
    }

    /// A stage with `requests` and `replies` places in the rings and `events` in the engine.
    pub(crate) fn with_rings(network: &SimConfig, requests: usize, replies: usize, events: usize) -> Self {
        Self::with(network, requests, replies, events, 1)
    }

    fn with(
        network: &SimConfig,
        requests: usize,
        replies: usize,
        events: usize,
        slots_per_turn: u64,
    ) -> Self {
        let net = SimNet::new(network);
        let config = WorkerConfig {
            id: WorkerId(0),
            core: None,
            spin: false,
            slots_per_turn,
            origin: None,
            engine: EngineLimits {
                conferences: 16,
                endpoints: 64,
                port_first: PORT_FIRST,
                port_last: PORT_FIRST + 127,
                events,
                media_timeout_ms: 60_000,
            },
            // Small enough to get full, so that both sides of that are seen.
            recording: Some(RecordingConfig {
                bytes: 400_000,
                folder: Path::new(""),
            }),
        };
        let (control, end) = rings::pair(requests, replies);
        let worker = Worker::new(&config, net.attach(64), end, Exchange::alone());
        Self {
            net,
            worker,
            control,
            phones: Vec::new(),
            replies: Vec::new(),
            fetches: true,
            next_id: 0,
            milliseconds: 0,
            slots_per_turn,
        }
    }

    /// Hands a request over and returns its id.
    pub(crate) fn send(&mut self, command: Command, io: IoChange<SimPrepared>) -> u64 {
        self.next_id += 1;
        let id = self.next_id;
        self.control
            .send(Request { id, command, io })
            .expect("room in the request ring");
        id
    }

    pub(crate) fn command(&mut self, command: Command) -> u64 {
        self.send(command, IoChange::None)
    }

    pub(crate) fn add_conference(&mut self, at: u32, phase: u8) -> u64 {
        let conference = Conference::new(ConferenceSetup { phase, talkers: None });
        self.command(Command::AddConference {
            at: ConferenceIndex(at),
            conference,
        })
    }

    /// Adds an endpoint with a phone of its own.
    pub(crate) fn add_endpoint(&mut self, conference: u32, at: u32, talks: bool) -> u64 {
        self.phones.push(Phone::new(at, talks));
        let (command, io) = add(conference, at);
        self.send(command, io)
    }

    pub(crate) fn remove_endpoint(&mut self, at: u32) -> u64 {
        self.phones.retain(|phone| phone.at.0 != at);
        let flow = FlowId(at);
        self.send(
            Command::RemoveEndpoint {
                at: EndpointIndex(at),
            },
            IoChange::Close { flow },
        )
    }

    pub(crate) fn phone(&self, at: u32) -> &Phone {
        self.phones.iter().find(|phone| phone.at.0 == at).unwrap()
    }

    pub(crate) fn run(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds / self.slots_per_turn {
            self.step(|worker| assert!(worker.turn()));
        }
    }

    /// The time from one turn to the next: phones send, the worker takes a turn, everybody receives.
    pub(crate) fn step(&mut self, turn: impl FnOnce(&mut Worker<SimIo>)) {
        for phone in &mut self.phones {
            for milliseconds in self.milliseconds..self.milliseconds + self.slots_per_turn {
                phone.speak(&self.net, milliseconds);
            }
        }
        turn(&mut self.worker);
        self.fetch();
        assert!(self.worker.wait());
        self.milliseconds += self.slots_per_turn;
        self.deliver();
    }

    /// Time passes and nobody but the phones does anything.
    pub(crate) fn stall(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds {
            for phone in &mut self.phones {
                phone.speak(&self.net, self.milliseconds);
            }
            self.milliseconds += 1;
            self.net.advance_to(Timestamp(self.milliseconds * 1_000_000));
        }
        self.deliver();
    }

    pub(crate) fn fetch(&mut self) {
        while self.fetches
            && let Some(reply) = self.control.receive()
        {
            self.replies.push(reply);
        }
    }

    fn deliver(&mut self) {
        let mut buffer = [0; 1_472];
        while let Some(arrival) = self.net.peer_receive(&mut buffer) {
            let phone = self
                .phones
                .iter_mut()
                .find(|phone| address(phone.at.0) == arrival.to);
            let Some(phone) = phone else { continue };
            assert_eq!(arrival.from, local(phone.at.0));
            let packet = RtpView::parse(&buffer[..arrival.length]).expect("the worker sends RTP");
            phone.heard.push(Heard {
                at: arrival.at,
                sequence: packet.sequence(),
                timestamp: packet.timestamp(),
                marker: packet.marker(),
            });
        }
    }
}

impl Phone {
    fn new(at: u32, talks: bool) -> Self {
        let mut packet = [0xFF; 172];
        let pitch = 4 + at as usize % 20;
        for (place, sample) in packet[12..].iter_mut().enumerate() {
            *sample = if (place / pitch).is_multiple_of(2) {
                0x90
            } else {
                0x10
            };
        }
        Self {
            at: EndpointIndex(at),
            talks,
            heard: Vec::new(),
            sequence: 0,
            packet,
        }
    }

    /// Sends a packet every 20 ms.
    fn speak(&mut self, net: &SimNet, milliseconds: u64) {
        if !self.talks || milliseconds % 20 != u64::from(self.at.0) % 20 {
            return;
        }
        let header = RtpRepr {
            payload_type: 0,
            marker: self.sequence == 0,
            sequence: self.sequence,
            timestamp: u32::from(self.sequence) * 160,
            ssrc: 0x5000_0000 + self.at.0,
            csrc: &[],
        };
        assert_eq!(header.emit(&mut self.packet), 12);
        net.peer_send(address(self.at.0), local(self.at.0), &self.packet);
        self.sequence = self.sequence.wrapping_add(1);
    }
}

/// The phone's address.
pub(crate) fn address(at: u32) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 4_000 + u16::try_from(at).unwrap()))
}

/// The endpoint's local address.
pub(crate) fn local(at: u32) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 9], PORT_FIRST + 2 * u16::try_from(at).unwrap()))
}

/// The command that adds an endpoint, and its flow.
pub(crate) fn add(conference: u32, at: u32) -> (Command, IoChange<SimPrepared>) {
    let endpoint = Endpoint::new(EndpointSetup {
        local_port: local(at).port(),
        ssrc: 0xA000_0000 + at,
        sequence: 65_000,
        timestamp: u32::MAX - 10_000,
        media: Some(media(address(at))),
        slots: 16,
        trunk: false,
    });
    let at = EndpointIndex(at);
    let local = local(at.0);
    let open = IoChange::Open {
        flow: FlowId(at.0),
        local,
        prepared: SimPrepared(local),
    };
    (
        Command::AddEndpoint {
            conference: ConferenceIndex(conference),
            at,
            endpoint,
        },
        open,
    )
}

/// PCMU both ways with `remote`.
pub(crate) fn media(remote: SocketAddr) -> MediaPlan {
    let mut receive = [None; 8];
    receive[0] = Some((0, Codec::Pcmu));
    MediaPlan {
        remote,
        direction: Direction {
            send: true,
            receive: true,
        },
        send_codec: Codec::Pcmu,
        send_payload_type: 0,
        send_ptime_ms: 20,
        receive,
        telephone_event: None,
        source: SourceRule::Strict,
    }
}

/// Asserts that sequence numbers and timestamps go on frame by frame.
pub(crate) fn assert_continuous(heard: &[Heard]) {
    for pair in heard.windows(2) {
        assert_eq!(pair[1].sequence, pair[0].sequence.wrapping_add(1), "{pair:?}");
        assert_eq!(pair[1].timestamp, pair[0].timestamp.wrapping_add(160), "{pair:?}");
    }
}

pub(crate) const SECOND: Duration = Duration::from_secs(1);
