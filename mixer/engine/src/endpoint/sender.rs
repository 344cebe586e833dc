//! What we send to one endpoint: one continuous RTP stream of our own.
//!
//! SSRC, sequence numbers and timestamps are ours and go on through every change of media, source
//! and codec (RFC 3550 7.1, M-01). While nothing may be sent the timestamp goes on, the sequence
//! stands still, and the next packet carries the marker (M-05). A packet for which no transmit
//! buffer was free has taken its sequence number: the peer sees one lost packet, which is the truth.
//!
//! The conference always works in 20 ms frames; other packet times are cut from the encoded stream,
//! which is exact because every codec here has a fixed number of bytes per sample. Packet times of
//! 10 and 30 ms keep an even pace by sending every packet that ends with a frame half a tick later.

use serde::{Deserialize, Serialize};

use crate::counters::{Counters, DropReason};
use crate::engine::state::packed;
use crate::media::{Codec, MediaPlan};
use crate::mix::FRAME_SAMPLES;
use crate::mix::voices::Encoded;
use crate::packet::{Filled, FlowId, PacketSink};
use crate::srtp::Sending;
use crate::wire::rtp::{CSRC_MAX, RtpRepr};

/// Samples in 10 ms, the unit in which packets are cut.
const UNIT_SAMPLES: usize = 80;
const UNITS_PER_FRAME: usize = FRAME_SAMPLES / UNIT_SAMPLES;
/// At most this much waits from one tick to the next: 40 ms of L16.
const PENDING_BYTES: usize = 4 * UNIT_SAMPLES * 2;
/// Contributing sources of one packet, loudest first.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct CsrcList {
    len: u8,
    ids: [u32; CSRC_MAX],
}

impl CsrcList {
    /// Nobody.
    pub(crate) const NOBODY: &Self = &Self {
        len: 0,
        ids: [0; CSRC_MAX],
    };

    /// Adds `ssrc` unless it is there already or the list is full.
    pub(crate) fn add(&mut self, ssrc: u32) {
        let len = usize::from(self.len);
        if self.as_slice().contains(&ssrc) {
            return;
        }
        if let Some(place) = self.ids.get_mut(len) {
            *place = ssrc;
            self.len += 1;
        }
    }

    /// The sources.
    pub(crate) fn as_slice(&self) -> &[u32] {
        self.ids.get(..usize::from(self.len)).unwrap_or_default()
    }

    fn clear(&mut self) {
        self.len = 0;
    }
}

/// How packets are cut and labelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "SendFormat")]
struct Format {
    payload_type: u8,
    unit_bytes: u16,
    /// Units of 10 ms in one packet.
    packet_units: u8,
    /// Packets that end with a frame wait half a tick.
    half_tick: bool,
}

/// The payload of one packet.
struct Parts<'a> {
    /// What had waited.
    head: &'a [u8],
    tail: &'a [u8],
    /// Of both, if that is known.
    sum: Option<u64>,
}

/// The outgoing stream of one endpoint.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Sender {
    flow: FlowId,
    ssrc: u32,
    /// Of the first sample that was not sent yet.
    timestamp: u32,
    sequence: u16,
    /// The next packet carries the marker.
    gap: bool,
    /// Packets may be sent.
    open: bool,
    format: Format,
    pending_units: u8,
    /// The pending samples leave half a tick after their frame.
    deferred: bool,
    sent: u64,
    /// Keys, when it is SRTP.
    keys: Option<Box<Sending>>,
    waiting: Box<Waiting>,
}

/// Encoded samples that wait for their packet to fill, and what else is seldom needed.
#[derive(Debug, Serialize, Deserialize)]
struct Waiting {
    /// Keys before those in use.
    former: Option<Box<Sending>>,
    csrc: CsrcList,
    #[serde(with = "packed::bytes")]
    payload: [u8; PENDING_BYTES],
}

impl Sender {
    pub(crate) fn new(ssrc: u32, sequence: u16, timestamp: u32) -> Self {
        Self {
            flow: FlowId(u32::MAX),
            ssrc,
            timestamp,
            sequence,
            gap: true,
            open: false,
            format: Format {
                payload_type: 0,
                unit_bytes: 80,
                packet_units: 2,
                half_tick: false,
            },
            pending_units: 0,
            deferred: false,
            sent: 0,
            keys: None,
            waiting: Box::new(Waiting {
                former: None,
                csrc: CsrcList::default(),
                payload: [0; PENDING_BYTES],
            }),
        }
    }

    /// Says which flow packets leave on.
    pub(crate) fn bind(&mut self, flow: FlowId) {
        self.flow = flow;
    }

    /// SSRC of the stream.
    pub(crate) fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// Packets sent.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// Whether packets may be sent.
    pub(crate) fn is_open(&self) -> bool {
        self.open
    }

    /// Whether a packet waits for the half tick.
    pub(crate) fn is_deferred(&self) -> bool {
        self.deferred
    }

    /// Protects packets under these keys from the next one on, or not at all. The same key goes on, whatever else has
    /// changed, and so does the one before it: sequence numbers go on as well, and no packet index may come twice
    /// under one key. Gives back what is worn out.
    pub(crate) fn set_keys(&mut self, keys: Option<Box<Sending>>) -> Option<Box<Sending>> {
        let former = &mut self.waiting.former;
        let is_key_of = |known: &Option<Box<Sending>>| match (known, &keys) {
            (Some(known), Some(new)) => known.has_key_of(new),
            _ => false,
        };
        if is_key_of(&self.keys) {
            keys
        } else if is_key_of(former) {
            // A change of the call was taken back.
            std::mem::swap(&mut self.keys, former);
            keys
        } else {
            let worn = std::mem::replace(&mut self.keys, keys)?;
            former.replace(worn)
        }
    }

    /// Clears what will not be read again, so that the state is short.
    pub(crate) fn tidy(&mut self) {
        let waiting = usize::from(self.pending_units) * usize::from(self.format.unit_bytes);
        if let Some(stale) = self.waiting.payload.get_mut(waiting..) {
            stale.fill(0);
        }
    }

    /// Follows a new media description from the next sample on. What still waits leaves first, in
    /// the old format and to the old address, so that no sample is missing from the timestamps.
    pub(crate) fn set_media(
        &mut self,
        media: &MediaPlan,
        sink: &mut impl PacketSink,
        counters: &mut Counters,
    ) {
        self.flush(sink, counters);
        self.open = media.direction.send && !media.remote.ip().is_unspecified() && media.remote.port() != 0;
        let packet_units = match media.send_ptime_ms {
            10 => 1,
            30 => 3,
            40 => 4,
            60 => 6,
            _ => 2,
        };
        self.format = Format {
            payload_type: media.send_payload_type & 0x7F,
            unit_bytes: unit_bytes(media.send_codec),
            packet_units,
            half_tick: packet_units % 2 == 1,
        };
    }

    /// Sends one frame, already encoded.
    #[inline]
    pub(crate) fn send_frame(
        &mut self,
        payload: &Encoded,
        csrc: &CsrcList,
        sink: &mut impl PacketSink,
        counters: &mut Counters,
    ) {
        if !self.open {
            self.skip_frame();
        } else if usize::from(self.format.packet_units) == UNITS_PER_FRAME && self.pending_units == 0 {
            let whole = Parts {
                head: &[],
                tail: payload.as_slice(),
                sum: payload.sum(),
            };
            self.emit(&whole, csrc.as_slice(), sink, counters);
        } else {
            self.gather(payload.as_slice(), csrc, sink, counters);
        }
    }

    /// One frame passes without being sent.
    pub(crate) fn skip_frame(&mut self) {
        self.timestamp = self.timestamp.wrapping_add(samples(UNITS_PER_FRAME));
        self.gap = true;
    }

    /// Sends the packet that waited for the half tick, if there is one.
    pub(crate) fn send_deferred(&mut self, sink: &mut impl PacketSink, counters: &mut Counters) {
        if self.deferred {
            self.flush(sink, counters);
        }
    }

    /// Cuts packets of other lengths than a frame out of what waits and `payload`.
    fn gather(
        &mut self,
        mut payload: &[u8],
        csrc: &CsrcList,
        sink: &mut impl PacketSink,
        counters: &mut Counters,
    ) {
        self.send_deferred(sink, counters);
        let unit = usize::from(self.format.unit_bytes);
        loop {
            let missing =
                usize::from(self.format.packet_units).saturating_sub(usize::from(self.pending_units));
            let available = payload.len() / unit;
            let ends_with_frame = available == missing;
            if available < missing || (ends_with_frame && self.format.half_tick) {
                break;
            }
            let Some((part, rest)) = payload.split_at_checked(missing * unit) else {
                break;
            };
            csrc.as_slice()
                .iter()
                .for_each(|&source| self.waiting.csrc.add(source));
            self.emit_waiting(part, sink, counters);
            payload = rest;
            if ends_with_frame {
                return;
            }
        }
        self.deferred =
            payload.len() / unit + usize::from(self.pending_units) == usize::from(self.format.packet_units);
        self.wait(payload, csrc);
    }

    fn wait(&mut self, payload: &[u8], csrc: &CsrcList) {
        let unit = usize::from(self.format.unit_bytes);
        let start = usize::from(self.pending_units) * unit;
        let end = start + payload.len();
        if let Some(place) = self.waiting.payload.get_mut(start..end) {
            place.copy_from_slice(payload);
            self.pending_units += u8::try_from(payload.len() / unit).unwrap_or(0);
            csrc.as_slice()
                .iter()
                .for_each(|&source| self.waiting.csrc.add(source));
        }
    }

    /// Sends whatever waits, even if the packet gets shorter than agreed.
    fn flush(&mut self, sink: &mut impl PacketSink, counters: &mut Counters) {
        self.deferred = false;
        if self.pending_units > 0 {
            self.emit_waiting(&[], sink, counters);
        }
    }

    fn emit_waiting(&mut self, tail: &[u8], sink: &mut impl PacketSink, counters: &mut Counters) {
        let length = usize::from(self.pending_units) * usize::from(self.format.unit_bytes);
        self.pending_units = 0;
        let Waiting { csrc, payload, .. } = &*self.waiting;
        // Copies, so that the stream's state can be written while they are read; this path is not
        // the usual 20 ms.
        let (csrc, payload) = (*csrc, *payload);
        let parts = Parts {
            head: payload.get(..length).unwrap_or_default(),
            tail,
            sum: None,
        };
        self.emit(&parts, csrc.as_slice(), sink, counters);
        self.waiting.csrc.clear();
    }

    #[inline]
    fn emit(
        &mut self,
        payload: &Parts<'_>,
        csrc: &[u32],
        sink: &mut impl PacketSink,
        counters: &mut Counters,
    ) {
        let units = (payload.head.len() + payload.tail.len()) / usize::from(self.format.unit_bytes);
        if sink.is_muted() {
            self.timestamp = self.timestamp.wrapping_add(samples(units));
            self.gap = true;
            return;
        }
        let header = RtpRepr {
            payload_type: self.format.payload_type,
            marker: self.gap,
            sequence: self.sequence,
            timestamp: self.timestamp,
            ssrc: self.ssrc,
            csrc,
        };
        let mut length = 0;
        let keys = self.keys.as_deref();
        let taken = sink.transmit(self.flow, |buffer| {
            let filled = write_packet(buffer, &header, payload);
            let filled = match keys {
                None => filled,
                Some(keys) => protected(buffer, filled.length, keys),
            };
            length = filled.length;
            filled
        });
        if taken {
            self.sent += 1;
            counters.rtp_sent += 1;
            counters.rtp_sent_bytes += length as u64;
        } else {
            counters.drop_packet(DropReason::NoSendBuffer);
        }
        self.sequence = self.sequence.wrapping_add(1);
        if self.sequence == 0 {
            self.roll_over();
        }
        self.timestamp = self.timestamp.wrapping_add(samples(units));
        self.gap = false;
    }

    #[cold]
    fn roll_over(&mut self) {
        let keys = [&mut self.keys, &mut self.waiting.former];
        keys.into_iter().flatten().for_each(|keys| keys.roll_over());
    }
}

/// Protects what was written. The sum of a payload that many get is of no use for it.
#[inline(never)]
fn protected(buffer: &mut [u8], length: usize, keys: &Sending) -> Filled {
    Filled::from(keys.protect(buffer, length).unwrap_or(0))
}

fn unit_bytes(codec: Codec) -> u16 {
    match codec {
        Codec::Pcmu | Codec::Pcma => 80,
        Codec::L16 => 160,
    }
}

fn samples(units: usize) -> u32 {
    u32::try_from(units * UNIT_SAMPLES).unwrap_or(0)
}

/// Writes the parts one behind the other; nothing when the buffer is too short.
#[inline]
fn write_packet(buffer: &mut [u8], header: &RtpRepr<'_>, payload: &Parts<'_>) -> Filled {
    let Parts { head, tail, sum } = *payload;
    let head_at = header.header_length();
    let tail_at = head_at + head.len();
    let length = tail_at + tail.len();
    let Some(packet) = buffer.get_mut(..length) else {
        return Filled::from(0);
    };
    let (start, rest) = packet.split_at_mut(head_at);
    let (first, second) = rest.split_at_mut(head.len());
    first.copy_from_slice(head);
    second.copy_from_slice(tail);
    Filled {
        length: header.emit(start) + first.len() + second.len(),
        sum: sum.map(|sum| sum + header.sum()),
    }
}
