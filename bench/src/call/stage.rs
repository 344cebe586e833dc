//! The run: one pinned thread, one loop of 1 ms slots that serves SIP and all RTP legs.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hdrhistogram::Histogram;
use mixer::io::{IoCounters, PacketIo};
use mixer_engine::packet::FlowId;
use mixer_engine::time::Timestamp;

use super::delay::Delays;
use super::leg::Sender;
use super::receiver::Receiver;
use super::secure::Keys;
use crate::sip::uac::{Happening, Uac};
use crate::sip::wire::Wire;
use crate::sound::g711::Law;

/// One leg of the run.
#[derive(Debug)]
pub struct Leg {
    /// Its conference.
    pub conference: usize,
    /// Its RTP address.
    pub local: SocketAddr,
    /// What it sends.
    pub sender: Sender,
    /// What it receives.
    pub receiver: Receiver,
    /// Keys, when it is SRTP.
    pub keys: Option<Keys>,
    /// How its call stands.
    pub call: CallState,
}

/// How a call stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallState {
    /// Not placed yet.
    Waiting,
    /// INVITE sent.
    Calling,
    /// Up.
    Up,
    /// Over as it should be.
    Closed,
    /// Refused with 503 and Retry-After.
    NoRoom(String),
    /// Failed, or ended by the server.
    Failed(String),
}

/// What everybody sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sound {
    Silence,
    Markers,
    Talk,
}

/// Everything the loop works on.
#[derive(Debug)]
pub struct Stage<Io: PacketIo> {
    io: Io,
    wire: Wire,
    uac: Uac,
    law: Law,
    /// All legs.
    pub legs: Vec<Leg>,
    /// Leg by local port, plus one; 0 is nobody.
    by_port: Vec<u32>,
    /// Delay measurement.
    pub delays: Delays,
    sound: Sound,
    slot: Duration,
    next_slot: Timestamp,
    /// From INVITE to 200, microseconds.
    pub setup: Histogram<u64>,
    /// Longest time between two turns of the loop, nanoseconds.
    pub stall_max_ns: u64,
    last_turn: Option<Timestamp>,
}

/// Legs' receive budget per turn.
const RECEIVE_BUDGET: u32 = 4_096;
/// A listener hears a marker when a sample exceeds this.
const AUDIBLE: u16 = 24;

impl<Io: PacketIo> Stage<Io> {
    /// A stage whose legs' flows are open: leg `i` is flow `i`.
    ///
    /// # Panics
    /// Never: the histogram's bounds are constant.
    #[must_use]
    pub fn new(io: Io, wire: Wire, uac: Uac, law: Law, legs: Vec<Leg>, delays: Delays) -> Self {
        let mut by_port = vec![0; 1 << 16];
        for (index, leg) in (1..).zip(&legs) {
            by_port[usize::from(leg.local.port())] = index;
        }
        Self {
            io,
            wire,
            uac,
            law,
            legs,
            by_port,
            delays,
            sound: Sound::Silence,
            slot: Duration::from_millis(1),
            next_slot: Timestamp(0),
            setup: Histogram::new_with_bounds(1, 60_000_000, 3).expect("constant bounds are valid"),
            stall_max_ns: 0,
            last_turn: None,
        }
    }

    /// The time.
    pub fn now(&mut self) -> Timestamp {
        self.io.now()
    }

    /// Counters of packet I/O.
    #[must_use]
    pub fn io_counters(&self) -> IoCounters {
        self.io.counters()
    }

    /// SIP requests sent again, and messages that made no sense.
    #[must_use]
    pub fn sip_counters(&self) -> (u64, u64) {
        (self.uac.retransmissions, self.uac.strays)
    }

    /// Legs that are up.
    #[must_use]
    pub fn up(&self) -> usize {
        self.legs.iter().filter(|leg| leg.call == CallState::Up).count()
    }

    /// Places all calls at `rate` per second and waits for their answers.
    ///
    /// # Errors
    /// When the SIP socket fails.
    pub fn place_calls(&mut self, rate: f64, name: impl Fn(usize) -> String) -> io::Result<()> {
        let start = self.now();
        let mut placed = 0;
        while placed < self.legs.len() || self.legs.iter().any(|leg| leg.call == CallState::Calling) {
            let now = self.turn()?;
            let due = 1.0 + now.since(start).as_secs_f64() * rate;
            while placed < self.legs.len() && (placed as f64) < due {
                let leg = &mut self.legs[placed];
                leg.call = CallState::Calling;
                let focus = name(leg.conference);
                let crypto = leg.keys.as_ref().map(Keys::offer);
                self.uac.invite(now, placed, &focus, leg.local, crypto);
                placed += 1;
            }
        }
        Ok(())
    }

    /// Everybody sends silence for a while.
    ///
    /// # Errors
    /// When the SIP socket fails.
    pub fn silence(&mut self, length: Duration) -> io::Result<()> {
        self.phase(Sound::Silence, length)
    }

    /// Measures delay for a while, on a finer slot so that polling adds at most 0.25 ms.
    ///
    /// # Errors
    /// When the SIP socket fails.
    pub fn measure_delay(&mut self, length: Duration) -> io::Result<()> {
        self.slot = Duration::from_micros(250);
        let now = self.now();
        self.delays.begin(now);
        let result = self.phase(Sound::Markers, length);
        self.slot = Duration::from_millis(1);
        result
    }

    /// Talkers talk for a while.
    ///
    /// # Errors
    /// When the SIP socket fails.
    pub fn talk(&mut self, length: Duration) -> io::Result<()> {
        self.phase(Sound::Talk, length)
    }

    /// Starts every leg's recording.
    pub fn begin_recording(&mut self) {
        self.stall_max_ns = 0;
        for leg in &mut self.legs {
            (leg.sender.late, leg.sender.worst_ns) = (0, 0);
            leg.receiver.begin();
        }
    }

    /// Hangs up everything, at most so many at once that no receive buffer of the server overflows,
    /// and waits for the answers.
    ///
    /// # Errors
    /// When the SIP socket fails.
    pub fn hang_up(&mut self, rate: f64) -> io::Result<()> {
        self.sound = Sound::Silence;
        let start = self.now();
        let mut next = 0;
        while next < self.legs.len() || self.uac.open() > 0 {
            let now = self.turn()?;
            let due = 1.0 + now.since(start).as_secs_f64() * rate;
            while next < self.legs.len() && (next as f64) < due {
                if self.legs[next].call == CallState::Up {
                    self.uac.bye(now, next);
                }
                next += 1;
            }
        }
        Ok(())
    }

    fn phase(&mut self, sound: Sound, length: Duration) -> io::Result<()> {
        self.sound = sound;
        let end = self.now().after(length);
        while self.turn()? < end {}
        Ok(())
    }

    /// One turn: wait for the slot, take what came, send what is due.
    fn turn(&mut self) -> io::Result<Timestamp> {
        self.io.wait(self.next_slot);
        let now = self.io.now();
        if let Some(last) = self.last_turn.replace(now) {
            self.stall_max_ns = self.stall_max_ns.max(now.0 - last.0);
        }
        let step = u64::try_from(self.slot.as_nanos()).unwrap_or(1_000_000);
        self.next_slot = Timestamp(now.0 / step * step + step);
        self.receive();
        let uac = &mut self.uac;
        self.wire.receive(|message| uac.handle(now, message))?;
        self.uac.handle_timeout(now);
        if self.sound == Sound::Markers {
            self.delays.turn(now);
        }
        self.send(now);
        self.io.flush();
        while let Some(message) = self.uac.poll_send() {
            self.wire.send(&message)?;
        }
        while let Some(happening) = self.uac.poll_happening() {
            self.apply(now, happening);
        }
        Ok(now)
    }

    fn receive(&mut self) {
        let (legs, by_port, delays, law) = (&mut self.legs, &self.by_port, &mut self.delays, self.law);
        let listening = self.sound == Sound::Markers;
        self.io.receive(RECEIVE_BUDGET, |datagram| {
            let Some(index) = by_port[usize::from(datagram.local_port)].checked_sub(1) else {
                return;
            };
            let index = index as usize;
            let Leg { receiver, keys, .. } = &mut legs[index];
            let packet = match keys {
                None => datagram.payload,
                // Nothing that is RTP: it counts as unusable.
                Some(keys) => keys.unprotect(datagram.payload).unwrap_or_default(),
            };
            let taken = receiver.take(datagram.received_at, packet);
            if listening
                && let Some(frame) = taken
                && frame
                    .iter()
                    .any(|&code| law.decode(code).unsigned_abs() > AUDIBLE)
            {
                delays.heard(index, datagram.received_at);
            }
        });
    }

    fn send(&mut self, now: Timestamp) {
        for (index, leg) in (0u32..).zip(&mut self.legs) {
            while leg.sender.take_due(now) {
                let talking = match self.sound {
                    Sound::Silence => false,
                    Sound::Markers => self.delays.sending(index as usize, now),
                    Sound::Talk => true,
                };
                self.io.transmit(FlowId(index), |buffer| {
                    let length = leg.sender.write(talking, buffer);
                    match &mut leg.keys {
                        None => length,
                        Some(keys) => keys.protect(buffer, length),
                    }
                });
            }
        }
    }

    fn apply(&mut self, now: Timestamp, happening: Happening) {
        match happening {
            Happening::Answered {
                leg,
                media,
                setup,
                crypto,
            } => {
                let keys = self.legs[leg].keys.as_mut();
                if let Some(Err(why)) = keys.map(|keys| keys.accept(crypto.as_deref())) {
                    self.legs[leg].call = CallState::Failed(why);
                    self.uac.bye(now, leg);
                    return;
                }
                self.io
                    .set_remote(FlowId(u32::try_from(leg).unwrap_or(u32::MAX)), media);
                self.legs[leg].sender.start(now);
                self.legs[leg].call = CallState::Up;
                self.setup
                    .saturating_record(u64::try_from(setup.as_micros()).unwrap_or(u64::MAX));
            }
            Happening::Failed { leg, why } => {
                self.legs[leg].sender.stop();
                self.legs[leg].call = CallState::Failed(why);
            }
            Happening::NoRoom { leg, why } => {
                self.legs[leg].call = CallState::NoRoom(why);
            }
            Happening::EndedByServer { leg } => {
                self.legs[leg].sender.stop();
                self.legs[leg].call = CallState::Failed("ended by the server".into());
            }
            Happening::Closed { leg } => {
                self.legs[leg].sender.stop();
                self.legs[leg].call = CallState::Closed;
            }
        }
    }
}
