//! One worker, its control, and all phones, moved on slot by slot.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use mixer::control::rings::{ControlEnd, FromWorker, IoChange, Request, pair};
use mixer::io::sim::{Impairment, SimConfig, SimIo, SimNet, SimPrepared};
use mixer::limits;
use mixer::worker::exchange::Exchange;
use mixer::worker::{Worker, WorkerConfig, WorkerId};
use mixer_engine::command::{Command, ConferenceIndex, EndpointIndex, Outcome};
use mixer_engine::counters::Counters;
use mixer_engine::engine::{Conference, ConferenceSetup, Endpoint, EndpointSetup, EngineLimits};
use mixer_engine::media::{Codec, Direction, MediaPlan, RECEIVE_FORMATS_MAX, SourceRule};
use mixer_engine::packet::FlowId;
use mixer_engine::time::Slot;

use super::phone::{Phone, StreamFaults, Voice};
use crate::seed::Seed;

/// First RTP port of the mixer.
const PORT_FIRST: u16 = 10_000;
/// Most phones at once.
pub const PHONES_MAX: u16 = 1_024;
/// Slots in one tick.
const PHASES: usize = 20;

/// How a world begins.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    /// Decides everything.
    pub seed: u64,
    /// From phones to the mixer; the way back is clean, so that what the mixer sent can be judged.
    pub network: Impairment,
    /// Conferences; they exist from the start.
    pub conferences: u32,
}

/// Somebody in a conference.
#[derive(Debug)]
struct Seat {
    phone: Phone,
    conference: u32,
    phase: usize,
    /// Slot from which the mixer had it.
    added: Option<Slot>,
    leaving: bool,
}

/// What a request was about.
#[derive(Debug, Clone, Copy)]
enum Pending {
    Conference,
    Add(u16),
    Remove(u16),
}

/// The world.
#[derive(Debug)]
pub struct World {
    net: SimNet,
    worker: Worker<SimIo>,
    control: ControlEnd<SimPrepared>,
    /// The world's own draws.
    pub seed: Seed,
    seats: Vec<Option<Seat>>,
    free: BTreeSet<u16>,
    by_phase: Vec<BTreeSet<u16>>,
    pending: BTreeMap<u64, Pending>,
    next_request: u64,
    generation: u32,
    conferences: u32,
    /// Faults of streams that have ended.
    ended_faults: StreamFaults,
    /// Streams that ended with more or fewer packets than ticks passed.
    wrong_counts: u64,
    buffer: Vec<u8>,
}

impl World {
    /// A world with empty conferences.
    ///
    /// # Panics
    /// When the worker refuses a conference: a fault of worker or world.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        let net = SimNet::new(&SimConfig {
            seed: setup.seed,
            to_workers: setup.network,
            ..SimConfig::default()
        });
        let config = WorkerConfig {
            id: WorkerId(0),
            core: None,
            spin: false,
            slots_per_turn: 1,
            origin: None,
            engine: EngineLimits {
                conferences: setup.conferences,
                endpoints: u32::from(PHONES_MAX),
                port_first: PORT_FIRST,
                port_last: PORT_FIRST + PHONES_MAX - 1,
                events: limits::ENGINE_EVENTS,
                media_timeout_ms: 60_000,
            },
            recording: None,
        };
        let (control, rings) = pair(limits::REQUEST_RING, limits::REPLY_RING);
        let worker = Worker::new(
            &config,
            net.attach(u32::from(PHONES_MAX)),
            rings,
            Exchange::alone(),
        );
        let mut world = Self {
            net,
            worker,
            control,
            seed: Seed::new(setup.seed),
            seats: (0..PHONES_MAX).map(|_| None).collect(),
            free: (0..PHONES_MAX).collect(),
            by_phase: vec![BTreeSet::new(); PHASES],
            pending: BTreeMap::new(),
            next_request: 0,
            generation: 0,
            conferences: setup.conferences,
            ended_faults: StreamFaults::default(),
            wrong_counts: 0,
            buffer: vec![0; limits::DATAGRAM_MAX],
        };
        for index in 0..setup.conferences {
            let phase = u8::try_from(world.seed.below(20)).unwrap_or(0);
            let conference = Conference::new(ConferenceSetup { phase, talkers: None });
            let command = Command::AddConference {
                at: ConferenceIndex(index),
                conference,
            };
            world.request(command, IoChange::None, Pending::Conference);
        }
        world
    }

    /// Digest of every packet the worker sent.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.net.digest()
    }

    /// The engine's counters.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        self.worker.engine().counters()
    }

    /// Phones in conferences.
    #[must_use]
    pub fn phones(&self) -> usize {
        self.seats.iter().flatten().filter(|seat| !seat.leaving).count()
    }

    /// The slot about to run.
    #[must_use]
    pub fn slot(&self) -> Slot {
        self.worker.next_slot()
    }

    /// A phone, while it is there.
    pub fn phone(&mut self, index: u16) -> Option<&mut Phone> {
        self.seats
            .get_mut(usize::from(index))?
            .as_mut()
            .map(|seat| &mut seat.phone)
    }

    /// A phone joins `conference`; gives its index.
    ///
    /// # Panics
    /// When all places are taken.
    pub fn join(&mut self, conference: u32, codec: Codec, voice: Voice) -> u16 {
        assert!(
            conference < self.conferences,
            "conference {conference} does not exist"
        );
        let index = self.free.pop_first().expect("a free place");
        self.generation += 1;
        let [_, a, b, c] = self.generation.to_be_bytes();
        let address = SocketAddr::from((Ipv4Addr::new(10, a, b, c), 20_000 + index));
        let mixer = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), PORT_FIRST + index));
        let payload_type = match codec {
            Codec::Pcmu => 0,
            Codec::Pcma => 8,
            Codec::L16 => 96,
        };
        let mut receive = [None; RECEIVE_FORMATS_MAX];
        receive[0] = Some((payload_type, codec));
        let media = MediaPlan {
            remote: address,
            direction: Direction {
                send: true,
                receive: true,
            },
            send_codec: codec,
            send_payload_type: payload_type,
            send_ptime_ms: 20,
            receive,
            telephone_event: None,
            source: SourceRule::Strict,
        };
        let endpoint = Endpoint::new(EndpointSetup {
            local_port: mixer.port(),
            ssrc: self.seed.word(),
            sequence: self.seed.half(),
            timestamp: self.seed.word(),
            media: Some(media),
            slots: 16,
            trunk: false,
        });
        let at = EndpointIndex(u32::from(index));
        let command = Command::AddEndpoint {
            conference: ConferenceIndex(conference),
            at,
            endpoint,
        };
        let io = IoChange::Open {
            flow: FlowId(at.0),
            local: mixer,
            prepared: SimPrepared(mixer),
        };
        self.request(command, io, Pending::Add(index));
        let phone = Phone::new(address, mixer, (payload_type, codec), voice, &mut self.seed);
        let phase = usize::from(self.seed.half()) % PHASES;
        self.by_phase[phase].insert(index);
        self.seats[usize::from(index)] = Some(Seat {
            phone,
            conference,
            phase,
            added: None,
            leaving: false,
        });
        index
    }

    /// A phone leaves.
    pub fn leave(&mut self, index: u16) {
        if let Some(seat) = self.seats[usize::from(index)]
            .as_mut()
            .filter(|seat| !seat.leaving)
        {
            seat.leaving = true;
            self.by_phase[seat.phase].remove(&index);
            let at = EndpointIndex(u32::from(index));
            let io = IoChange::Close { flow: FlowId(at.0) };
            self.request(Command::RemoveEndpoint { at }, io, Pending::Remove(index));
        }
    }

    /// A phone drawn by the seed.
    pub fn anybody(&mut self) -> Option<u16> {
        let here: Vec<u16> = (0..PHONES_MAX)
            .filter(|&index| {
                self.seats[usize::from(index)]
                    .as_ref()
                    .is_some_and(|seat| !seat.leaving)
            })
            .collect();
        let count = u64::try_from(here.len()).ok().filter(|&count| count > 0)?;
        here.get(usize::try_from(self.seed.below(count)).ok()?).copied()
    }

    /// Everybody's conference, by index.
    pub fn seats(&self) -> impl Iterator<Item = (u16, u32)> {
        (0..PHONES_MAX)
            .zip(&self.seats)
            .filter_map(|(index, seat)| Some((index, seat.as_ref()?.conference)))
    }

    /// Runs for `length`; `heard` gets every payload that reaches a phone, with the slot before
    /// which it came.
    pub fn run(&mut self, length: Duration, mut heard: impl FnMut(u16, Slot, &[u8])) {
        for _ in 0..length.as_millis() {
            self.turn(&mut heard);
        }
    }

    /// All faults so far: of streams that ended and of those still going.
    #[must_use]
    pub fn faults(&self) -> StreamFaults {
        let mut all = self.ended_faults;
        self.seats
            .iter()
            .flatten()
            .for_each(|seat| all.add(seat.phone.faults));
        all
    }

    /// Streams that ended with a number of packets that does not fit their time in the conference.
    #[must_use]
    pub fn wrong_counts(&self) -> u64 {
        self.wrong_counts
    }

    fn turn(&mut self, heard: &mut impl FnMut(u16, Slot, &[u8])) {
        let phase = usize::try_from(self.slot().0).unwrap_or(0) % PHASES;
        self.worker.turn();
        while let Some(reply) = self.control.receive() {
            self.take(reply);
        }
        while let Some(arrival) = self.net.peer_receive(&mut self.buffer) {
            let index = arrival.to.port() - 20_000;
            let slot = self.worker.next_slot();
            let seat = self.seats[usize::from(index)].as_mut();
            if let Some(seat) = seat.filter(|seat| seat.phone.address == arrival.to)
                && let Some(payload) = seat.phone.take(arrival.at, &self.buffer[..arrival.length])
            {
                heard(index, slot, payload);
            }
        }
        for &index in &self.by_phase[phase] {
            if let Some(seat) = &mut self.seats[usize::from(index)] {
                seat.phone.send(&self.net);
            }
        }
        self.worker.wait();
    }

    fn request(&mut self, command: Command, io: IoChange<SimPrepared>, about: Pending) {
        self.next_request += 1;
        self.pending.insert(self.next_request, about);
        let sent = self.control.send(Request {
            id: self.next_request,
            command,
            io,
        });
        assert!(sent.is_ok(), "the request ring is emptied every slot");
    }

    fn take(&mut self, reply: FromWorker<SimPrepared>) {
        match reply {
            FromWorker::Done {
                id, slot, outcome, ..
            } => self.done(id, slot, &outcome),
            FromWorker::Histograms(histograms) => self.control.return_histograms(histograms),
            FromWorker::EventsLost(count) => panic!("{count} events lost although all are fetched"),
            FromWorker::Retired { at, .. } => panic!("a conference failed: endpoint {at:?} came back"),
            FromWorker::Event(_) | FromWorker::Released(_) => {}
        }
    }

    fn done(&mut self, id: u64, slot: Slot, outcome: &Outcome) {
        let about = self.pending.remove(&id).expect("an answer to a request of ours");
        assert_eq!(outcome.result, Ok(()), "{about:?} was refused");
        match about {
            Pending::Conference => {}
            Pending::Add(index) => {
                if let Some(seat) = &mut self.seats[usize::from(index)] {
                    seat.added = Some(slot);
                }
            }
            Pending::Remove(index) => {
                let seat = self.seats[usize::from(index)].take().expect("it was there");
                let ticks = seat.added.map_or(0, |added| (slot.0 - added.0) / 20);
                self.wrong_counts += u64::from(!(ticks..=ticks + 1).contains(&seat.phone.received));
                self.ended_faults.add(seat.phone.faults);
                self.free.insert(index);
            }
        }
    }
}
