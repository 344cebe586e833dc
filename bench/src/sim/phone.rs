//! A simulated phone: an RTP stream out on the dot, and a strict listener.

use std::net::SocketAddr;

use mixer::io::sim::SimNet;
use mixer_engine::media::Codec;
use mixer_engine::time::Timestamp;

use crate::call::receiver::Rtp;
use crate::seed::Seed;
use crate::sound::{FRAME, FRAME_UNITS};

/// What is wrong with a stream that the mixer sends; all zero is right.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StreamFaults {
    /// Sequence numbers other than the last plus one.
    pub sequence: u64,
    /// Timestamps other than the last plus one frame.
    pub timestamp: u64,
    /// Changes of SSRC.
    pub ssrc: u64,
    /// Packets that did not come exactly 20 ms after the last.
    pub pace: u64,
    /// Packets that are not one frame of the codec.
    pub format: u64,
}

impl StreamFaults {
    /// Adds those of another stream.
    pub fn add(&mut self, other: Self) {
        self.sequence += other.sequence;
        self.timestamp += other.timestamp;
        self.ssrc += other.ssrc;
        self.pace += other.pace;
        self.format += other.format;
    }
}

/// What a phone sends.
#[derive(Debug, Clone)]
pub enum Voice {
    /// Digital silence.
    Silent,
    /// Frames of this many bytes out of a long buffer, over and over.
    Loop(std::rc::Rc<Vec<u8>>),
}

/// One phone.
#[derive(Debug)]
pub struct Phone {
    /// Its own address.
    pub address: SocketAddr,
    /// Where it sends.
    pub mixer: SocketAddr,
    codec: Codec,
    payload_type: u8,
    voice: Voice,
    place: usize,
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
    last: Option<(u16, u32, u32, Timestamp)>,
    /// Packets received.
    pub received: u64,
    /// Frames sent.
    pub sent: u64,
    /// What was wrong with them.
    pub faults: StreamFaults,
}

impl Phone {
    /// A phone that has sent nothing yet.
    #[must_use]
    pub fn new(
        address: SocketAddr,
        mixer: SocketAddr,
        format: (u8, Codec),
        voice: Voice,
        seed: &mut Seed,
    ) -> Self {
        Self {
            address,
            mixer,
            codec: format.1,
            payload_type: format.0,
            voice,
            place: 0,
            ssrc: seed.word(),
            sequence: seed.half(),
            timestamp: seed.word(),
            last: None,
            received: 0,
            sent: 0,
            faults: StreamFaults::default(),
        }
    }

    /// Says something else from the next frame on.
    pub fn say(&mut self, voice: Voice) {
        (self.voice, self.place) = (voice, 0);
    }

    /// Sends its next frame.
    pub fn send(&mut self, net: &SimNet) {
        let mut packet = [0; 12 + 2 * FRAME];
        let length = 12 + FRAME * self.codec.bytes_per_sample();
        packet[0] = 0x80;
        packet[1] = self.payload_type;
        packet[2..4].copy_from_slice(&self.sequence.to_be_bytes());
        packet[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
        packet[8..12].copy_from_slice(&self.ssrc.to_be_bytes());
        let payload = &mut packet[12..length];
        match &self.voice {
            Voice::Silent => payload.fill(match self.codec {
                Codec::Pcmu => 0xff,
                Codec::Pcma => 0xd5,
                Codec::L16 => 0,
            }),
            Voice::Loop(bytes) => {
                let start = self.place % bytes.len();
                payload.copy_from_slice(&bytes[start..start + payload.len()]);
                self.place = (start + payload.len()) % bytes.len();
            }
        }
        net.peer_send(self.address, self.mixer, &packet[..length]);
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(FRAME_UNITS);
        self.sent += 1;
    }

    /// Takes a packet of the mixer and gives its payload back.
    pub fn take<'a>(&mut self, at: Timestamp, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let Some(rtp) = Rtp::parse(bytes) else {
            self.faults.format += 1;
            return None;
        };
        let whole = rtp.payload.len() == FRAME * self.codec.bytes_per_sample();
        self.faults.format += u64::from(!whole || rtp.payload_type != self.payload_type);
        if let Some((sequence, timestamp, ssrc, before)) = self.last {
            self.faults.sequence += u64::from(rtp.sequence != sequence.wrapping_add(1));
            self.faults.timestamp += u64::from(rtp.timestamp != timestamp.wrapping_add(FRAME_UNITS));
            self.faults.ssrc += u64::from(rtp.ssrc != ssrc);
            self.faults.pace += u64::from(at.0 != before.0 + 20_000_000);
        }
        self.last = Some((rtp.sequence, rtp.timestamp, rtp.ssrc, at));
        self.received += 1;
        Some(rtp.payload)
    }
}
