//! A laboratory for the engine: phones that send RTP at their times, and ears that decode what every
//! leg is sent. Time is a counter of 1 ms slots.

#![allow(dead_code, reason = "every test file uses a part of it")]
#![allow(
    clippy::unwrap_used,
    reason = "a test that is wrong about its numbers shall stop"
)]

pub(crate) mod mesh;
pub(crate) mod secure;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use mixer_engine::codec;
use mixer_engine::command::{
    Command, ConferenceIndex, EndpointIndex, EndpointSnapshot, Outcome, Refusal, Retired,
};
use mixer_engine::counters::{Counters, DropReason};
use mixer_engine::engine::{
    Conference, ConferenceSetup, Endpoint, EndpointBox, EndpointSetup, Engine, EngineLimits,
};
use mixer_engine::event::Event;
use mixer_engine::media::{Codec, Direction, MediaPlan, SourceRule};
use mixer_engine::packet::{Datagram, Filled, FlowId, PacketSink};
use mixer_engine::srtp::{self, Receiving, Sending};
use mixer_engine::time::{Slot, Timestamp};
use mixer_engine::wire::checksum;
use mixer_engine::wire::rtp::{RtpRepr, RtpView};

pub(crate) const PORT_FIRST: u16 = 10_000;
pub(crate) const EVENT: u8 = 101;
/// Of a small engine.
pub(crate) const LIMITS: EngineLimits = EngineLimits {
    conferences: 4,
    endpoints: 64,
    port_first: PORT_FIRST,
    port_last: PORT_FIRST + 63,
    events: 1024,
    media_timeout_ms: 60_000,
};

/// One packet as a leg got it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) slot: u64,
    pub(crate) remote: SocketAddr,
    pub(crate) payload_type: u8,
    pub(crate) marker: bool,
    pub(crate) sequence: u16,
    pub(crate) timestamp: u32,
    pub(crate) ssrc: u32,
    pub(crate) csrc: Vec<u32>,
    pub(crate) payload: Vec<u8>,
}

/// What was sent, by flow.
#[derive(Debug)]
pub(crate) struct Ears {
    pub(crate) slot: u64,
    pub(crate) heard: Vec<Vec<Packet>>,
    pub(crate) remotes: Vec<Option<SocketAddr>>,
    /// Flows without a free buffer.
    pub(crate) blocked: Vec<u32>,
    /// Nothing may leave.
    pub(crate) muted: bool,
    /// Packets whose sum was known without reading them.
    pub(crate) known_sums: u64,
    /// Keys of phones with SRTP.
    pub(crate) keys: BTreeMap<u32, Receiving>,
}

impl PacketSink for Ears {
    const SUMS: bool = true;

    fn transmit<F: Into<Filled>>(&mut self, flow: FlowId, fill: impl FnOnce(&mut [u8]) -> F) -> bool {
        let Some(remote) = self.remotes[flow.0 as usize] else {
            return false;
        };
        if self.blocked.contains(&flow.0) {
            return false;
        }
        let mut buffer = [0xAA; 1472];
        let filled: Filled = fill(&mut buffer).into();
        let length = filled.length;
        let (known, true_sum) = (
            filled.add_to(0, &buffer[..length]),
            checksum::add(0, &buffer[..length]),
        );
        assert_eq!(checksum::finish(known), checksum::finish(true_sum), "of a packet");
        self.known_sums += u64::from(filled.sum.is_some());
        let length = match self.keys.get_mut(&flow.0) {
            None => length,
            Some(keys) => keys.unprotect(&mut buffer[..length]).expect("authentic"),
        };
        let view = RtpView::parse(&buffer[..length]).expect("the engine sends valid RTP");
        self.heard[flow.0 as usize].push(Packet {
            slot: self.slot,
            remote,
            payload_type: view.payload_type(),
            marker: view.marker(),
            sequence: view.sequence(),
            timestamp: view.timestamp(),
            ssrc: view.ssrc(),
            csrc: view.csrcs().collect(),
            payload: view.payload().to_vec(),
        });
        true
    }

    fn set_remote(&mut self, flow: FlowId, remote: SocketAddr) {
        self.remotes[flow.0 as usize] = Some(remote);
    }

    fn is_muted(&self) -> bool {
        self.muted
    }
}

/// Makes the payload of the n-th packet.
pub(crate) type Voice = Box<dyn FnMut(u64) -> Vec<u8>>;

/// A peer of one endpoint.
pub(crate) struct Phone {
    pub(crate) at: EndpointIndex,
    pub(crate) plan: MediaPlan,
    pub(crate) address: SocketAddr,
    pub(crate) ssrc: u32,
    pub(crate) csrc: Vec<u32>,
    pub(crate) sequence: u16,
    pub(crate) timestamp: u32,
    pub(crate) payload_type: u8,
    pub(crate) ptime_ms: u64,
    pub(crate) samples: u32,
    pub(crate) next_at: u64,
    pub(crate) sent: u64,
    /// Nothing is sent without one.
    pub(crate) voice: Option<Voice>,
    /// What it sends is SRTP under these.
    pub(crate) keys: Option<Sending>,
}

impl Phone {
    fn next_sequence(&mut self) {
        self.sequence = self.sequence.wrapping_add(1);
        if self.sequence == 0
            && let Some(keys) = &mut self.keys
        {
            keys.roll_over();
        }
    }
}

/// Engine, phones and time.
pub(crate) struct Lab {
    pub(crate) engine: Engine,
    pub(crate) ears: Ears,
    pub(crate) phones: Vec<Phone>,
    pub(crate) slot: u64,
    pub(crate) events: Vec<Event>,
    pub(crate) conferences: u32,
    /// SSRC of what the first phone is sent; the others count on.
    pub(crate) first_ssrc: u32,
}

impl Lab {
    pub(crate) fn new() -> Self {
        Self::with_limits(LIMITS)
    }

    pub(crate) fn with_limits(limits: EngineLimits) -> Self {
        let mut engine = Engine::new(limits);
        engine.set_origin(Timestamp(0));
        let flows = limits.endpoints as usize;
        Self {
            engine,
            ears: Ears {
                slot: 0,
                heard: vec![Vec::new(); flows],
                remotes: vec![None; flows],
                blocked: Vec::new(),
                muted: false,
                known_sums: 0,
                keys: BTreeMap::new(),
            },
            phones: Vec::new(),
            slot: 0,
            events: Vec::new(),
            conferences: 0,
            first_ssrc: 0x00A0_0000,
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        Slot(self.slot).begins(Timestamp(0))
    }

    pub(crate) fn apply(&mut self, command: Command) -> Outcome {
        let now = self.now();
        self.engine.apply(now, Slot(self.slot), command, &mut self.ears)
    }

    /// Applies a command that must succeed.
    pub(crate) fn must(&mut self, command: Command) -> Option<Retired> {
        let outcome = self.apply(command);
        assert_eq!(outcome.result, Ok(()));
        outcome.retired
    }

    pub(crate) fn refused(&mut self, command: Command) -> Refusal {
        self.apply(command).result.expect_err("refused")
    }

    pub(crate) fn add_conference(&mut self, phase: u8) -> ConferenceIndex {
        self.add_limited(phase, None)
    }

    /// Adds a conference that mixes so many talkers.
    pub(crate) fn add_limited(&mut self, phase: u8, talkers: Option<u8>) -> ConferenceIndex {
        let at = ConferenceIndex(self.conferences);
        self.conferences += 1;
        self.must(Command::AddConference {
            at,
            conference: Conference::new(ConferenceSetup { phase, talkers }),
        });
        at
    }

    /// Adds an endpoint and its phone, which is silent: it does not even send packets.
    pub(crate) fn add(&mut self, conference: ConferenceIndex, codec: Codec) -> usize {
        let plan = plan(self.phones.len(), codec);
        self.add_with(conference, plan)
    }

    pub(crate) fn add_with(&mut self, conference: ConferenceIndex, plan: MediaPlan) -> usize {
        let setup = self.setup(Some(plan));
        self.add_box(conference, plan, Endpoint::new(setup))
    }

    /// Adds a trunk, whose other end is a phone like any other.
    pub(crate) fn add_trunk(&mut self, conference: ConferenceIndex, codec: Codec) -> usize {
        let plan = plan(self.phones.len(), codec);
        let setup = EndpointSetup {
            trunk: true,
            ..self.setup(Some(plan))
        };
        self.add_box(conference, plan, Endpoint::new(setup))
    }

    /// What control would choose for the next phone.
    pub(crate) fn setup(&self, media: Option<MediaPlan>) -> EndpointSetup {
        let number = u32::try_from(self.phones.len()).unwrap();
        EndpointSetup {
            local_port: PORT_FIRST + u16::try_from(number).unwrap(),
            ssrc: self.first_ssrc + number,
            sequence: u16::MAX - 20,
            timestamp: u32::MAX - 1000,
            media,
            slots: 16,
            trunk: false,
        }
    }

    pub(crate) fn add_box(
        &mut self,
        conference: ConferenceIndex,
        plan: MediaPlan,
        endpoint: EndpointBox,
    ) -> usize {
        let number = self.phones.len();
        let at = EndpointIndex(u32::try_from(number).unwrap());
        self.must(Command::AddEndpoint {
            conference,
            at,
            endpoint,
        });
        self.phones.push(Phone {
            at,
            plan,
            address: plan.remote,
            ssrc: 0x00B0_0000 + at.0,
            csrc: Vec::new(),
            sequence: u16::MAX - 30,
            timestamp: u32::MAX - 2000,
            payload_type: plan.send_payload_type,
            ptime_ms: 20,
            samples: 160,
            next_at: 0,
            sent: 0,
            voice: None,
            keys: None,
        });
        number
    }

    /// Lets a phone send from the next full 20 ms on, 5 ms before the ticks of phase 5.
    pub(crate) fn talk(&mut self, phone: usize, voice: impl FnMut(u64) -> Vec<u8> + 'static) {
        let start = self.slot.next_multiple_of(20);
        let phone = &mut self.phones[phone];
        phone.next_at = start;
        phone.voice = Some(Box::new(voice));
    }

    /// Lets a phone send PCM in its own codec.
    pub(crate) fn say(&mut self, phone: usize, mut pcm: impl FnMut(u64) -> [i16; 160] + 'static) {
        let codec = self.phones[phone].plan.send_codec;
        self.talk(phone, move |n| encode(codec, &pcm(n)));
    }

    pub(crate) fn hush(&mut self, phone: usize) {
        self.phones[phone].voice = None;
    }

    /// Runs so many milliseconds.
    pub(crate) fn run(&mut self, ms: u64) {
        for _ in 0..ms {
            self.step();
        }
    }

    /// Runs a millisecond.
    pub(crate) fn step(&mut self) {
        self.send_due();
        let now = self.now();
        self.ears.slot = self.slot;
        self.engine.run_slot(Slot(self.slot), now, &mut self.ears);
        self.slot += 1;
        while let Some(event) = self.engine.poll_event() {
            self.events.push(event);
        }
    }

    fn send_due(&mut self) {
        for number in 0..self.phones.len() {
            let phone = &mut self.phones[number];
            if phone.voice.is_none() || phone.next_at > self.slot {
                continue;
            }
            phone.next_at += phone.ptime_ms;
            let n = phone.sent;
            phone.sent += 1;
            let payload = phone.voice.as_mut().map(|voice| voice(n)).unwrap_or_default();
            if payload.is_empty() {
                // Lost on the way.
                phone.next_sequence();
            } else {
                self.send(number, n == 0, &payload);
            }
            let phone = &mut self.phones[number];
            phone.timestamp = phone.timestamp.wrapping_add(phone.samples);
        }
    }

    /// Sends one packet of a phone now.
    pub(crate) fn send(&mut self, phone: usize, marker: bool, payload: &[u8]) {
        let phone = &mut self.phones[phone];
        let header = RtpRepr {
            payload_type: phone.payload_type,
            marker,
            sequence: phone.sequence,
            timestamp: phone.timestamp,
            ssrc: phone.ssrc,
            csrc: &phone.csrc,
        };
        let mut bytes = vec![0; header.header_length()];
        assert_eq!(header.emit(&mut bytes), bytes.len());
        bytes.extend_from_slice(payload);
        if let Some(keys) = &phone.keys {
            let length = bytes.len();
            bytes.resize(length + srtp::OVERHEAD_MAX, 0);
            let length = keys.protect(&mut bytes, length).expect("room");
            bytes.truncate(length);
        }
        phone.next_sequence();
        let (port, address) = (PORT_FIRST + u16::try_from(phone.at.0).unwrap(), phone.address);
        self.deliver(port, address, &bytes);
    }

    pub(crate) fn deliver(&mut self, local_port: u16, source: SocketAddr, payload: &[u8]) {
        let received_at = self.now();
        self.engine.handle_datagram(&Datagram {
            local_port,
            source,
            payload,
            received_at,
        });
    }

    pub(crate) fn counters(&self) -> Counters {
        *self.engine.counters()
    }

    pub(crate) fn dropped(&self, reason: DropReason) -> u64 {
        self.counters().dropped[reason as usize]
    }

    pub(crate) fn heard(&self, phone: usize) -> &[Packet] {
        &self.ears.heard[phone]
    }

    /// Forgets what was heard.
    pub(crate) fn clear(&mut self) {
        self.ears.heard.iter_mut().for_each(Vec::clear);
    }

    /// Everything a phone heard, decoded.
    pub(crate) fn pcm(&self, phone: usize) -> Vec<i16> {
        let codec = self.phones[phone].plan.send_codec;
        self.heard(phone)
            .iter()
            .flat_map(|packet| decode(codec, &packet.payload))
            .collect()
    }

    pub(crate) fn set_media(&mut self, phone: usize, plan: MediaPlan) {
        let at = self.phones[phone].at;
        self.must(Command::SetMedia {
            at,
            media: Box::new(plan),
            srtp: None,
        });
        self.phones[phone].plan = plan;
    }

    pub(crate) fn snapshot(&mut self, phone: usize) -> EndpointSnapshot {
        match self.must(Command::Snapshot {
            from: EndpointIndex(0),
            buffer: Box::new(Vec::with_capacity(64)),
        }) {
            Some(Retired::Snapshot(all)) => *all
                .iter()
                .find(|one| one.at == self.phones[phone].at)
                .expect("in the snapshot"),
            other => panic!("no snapshot but {other:?}"),
        }
    }
}

/// Media of the `number`th phone: dynamic numbers differ from ours on purpose.
pub(crate) fn plan(number: usize, codec: Codec) -> MediaPlan {
    let number = u16::try_from(number).unwrap();
    let [network, host] = number.to_be_bytes();
    let mut receive = [None; 8];
    receive[0] = Some((0, Codec::Pcmu));
    receive[1] = Some((8, Codec::Pcma));
    receive[2] = Some((97, Codec::L16));
    let send_payload_type = match codec {
        Codec::Pcmu => 0,
        Codec::Pcma => 8,
        Codec::L16 => 97,
    };
    MediaPlan {
        remote: SocketAddr::new(
            IpAddr::V4(Ipv4Addr::new(192, 0, 2 + network, host)),
            4000 + number,
        ),
        direction: Direction {
            send: true,
            receive: true,
        },
        send_codec: codec,
        send_payload_type,
        send_ptime_ms: 20,
        receive,
        telephone_event: Some(EVENT),
        source: SourceRule::Strict,
    }
}

pub(crate) fn encode(codec: Codec, pcm: &[i16]) -> Vec<u8> {
    let mut bytes = vec![0; pcm.len() * codec.bytes_per_sample()];
    assert_eq!(codec::encode(codec, pcm, &mut bytes), bytes.len());
    bytes
}

pub(crate) fn decode(codec: Codec, payload: &[u8]) -> Vec<i16> {
    let mut pcm = vec![0; payload.len() / codec.bytes_per_sample()];
    assert_eq!(codec::decode(codec, payload, &mut pcm), pcm.len());
    pcm
}

/// A repeatable stream of numbers (xorshift).
#[derive(Debug, Clone)]
pub(crate) struct Noise(pub(crate) u64);

impl Noise {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A frame between minus and plus `peak`, never all zero.
    pub(crate) fn frame(&mut self, peak: i16) -> [i16; 160] {
        let span = 2 * u64::from(peak.unsigned_abs()) + 1;
        std::array::from_fn(|n| {
            let value = i64::try_from(self.next() % span).unwrap() - i64::from(peak);
            i16::try_from(value).unwrap() | i16::from(n == 0)
        })
    }
}

/// The `n`th frame of phone `seed`'s repeatable noise.
pub(crate) fn noise(seed: usize, n: u64, peak: i16) -> [i16; 160] {
    let phone = (seed as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut noise = Noise(phone ^ (n + 1).wrapping_mul(0xD1B5_4A32_D192_ED03));
    noise.next();
    noise.frame(peak)
}

/// A sine, phase-continuous from frame to frame.
pub(crate) fn tone(hertz: f64, peak: f64) -> impl FnMut(u64) -> [i16; 160] {
    move |n| {
        std::array::from_fn(|i| {
            #[expect(clippy::cast_precision_loss, reason = "minutes of samples")]
            let t = (n * 160 + i as u64) as f64 / 8000.0;
            #[expect(clippy::cast_possible_truncation, reason = "peak is within i16")]
            let sample = ((std::f64::consts::TAU * hertz * t).sin() * peak).round() as i16;
            sample
        })
    }
}

/// Amplitude of a frequency in `pcm`, by correlation over its whole length.
pub(crate) fn amplitude(pcm: &[i16], hertz: f64) -> f64 {
    let (mut re, mut im) = (0.0, 0.0);
    for (n, &sample) in pcm.iter().enumerate() {
        #[expect(clippy::cast_precision_loss, reason = "minutes of samples")]
        let angle = std::f64::consts::TAU * hertz * n as f64 / 8000.0;
        re += f64::from(sample) * angle.cos();
        im += f64::from(sample) * angle.sin();
    }
    #[expect(clippy::cast_precision_loss, reason = "minutes of samples")]
    let count = pcm.len().max(1) as f64;
    2.0 * (re * re + im * im).sqrt() / count
}

/// Sequence numbers without a hole and timestamps that advance by the samples sent.
pub(crate) fn assert_continuous(packets: &[Packet], bytes_per_sample: usize) {
    for pair in packets.windows(2) {
        assert_eq!(
            pair[1].sequence,
            pair[0].sequence.wrapping_add(1),
            "sequence after {:?}",
            pair[0].slot
        );
        let samples = u32::try_from(pair[0].payload.len() / bytes_per_sample).unwrap();
        assert_eq!(
            pair[1].timestamp,
            pair[0].timestamp.wrapping_add(samples),
            "timestamp"
        );
        assert_eq!(pair[1].ssrc, pair[0].ssrc);
    }
}
