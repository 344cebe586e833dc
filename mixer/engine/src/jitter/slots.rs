//! Fixed slots for payloads, by extended sequence number.

use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize, Serializer};

use crate::codec;
use crate::engine::state::packed::Bytes;
use crate::media::Codec;
use crate::time::Timestamp;

/// A packet that waits in a slot.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Stored {
    /// Extended sequence number.
    pub(super) sequence: u64,
    /// Extended timestamp of its first sample.
    pub(super) begins: u64,
    /// Extended timestamp after its last sample.
    pub(super) ends: u64,
    /// From here to `begins` the sender itself left a gap; equal to `begins` when it did not.
    pub(super) gap_from: u64,
    /// When it came.
    pub(super) arrived: Timestamp,
    /// Codec of the payload.
    pub(super) codec: Codec,
    /// Payload bytes.
    pub(super) length: u16,
}

/// All slots of a buffer. What is stored lies within as many sequence numbers from `next` on as
/// there are slots, so that the oldest packet is found by counting bits.
#[derive(Debug)]
pub(super) struct Slots {
    /// What lies in the first place, which is the only one that most sources ever need.
    first: Stored,
    /// What lies in the others.
    others: Box<[Stored]>,
    /// Payloads by place.
    bytes: Box<[u8]>,
    payload_bytes: usize,
    /// Where each slot's packet lies. The lowest free place is taken, so that a buffer in which one packet
    /// waits at a time keeps to one place and out of the way of other buffers' cache lines.
    places: [u8; SLOTS_MAX],
    /// Bit n: place n is free.
    free: u32,
    /// Bit n: slot n is occupied.
    occupied: u32,
    /// Bit n: what slot n holds is digital silence, which nobody needs to copy.
    idle: u32,
    /// Lowest sequence number that may still be stored.
    next: u64,
}

/// Slots in the state: only what is occupied.
#[derive(Serialize, Deserialize)]
#[serde(rename = "Slots")]
struct Occupied<'a> {
    slots: u8,
    payload_bytes: u16,
    next: u64,
    #[serde(borrow)]
    waiting: Vec<(Stored, Bytes<'a>)>,
}

impl Serialize for Slots {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let occupied = (0..self.slots()).filter(|index| self.occupied >> index & 1 != 0);
        let waiting = occupied
            .filter_map(|index| Some((*self.packet(index)?, Bytes(self.payload(index).into()))))
            .collect();
        Occupied {
            slots: u8::try_from(self.slots()).unwrap_or(u8::MAX),
            payload_bytes: u16::try_from(self.payload_bytes).unwrap_or(u16::MAX),
            next: self.next,
            waiting,
        }
        .serialize(to)
    }
}

impl<'de> Deserialize<'de> for Slots {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let state = Occupied::deserialize(from)?;
        let mut slots = Self::new(state.slots, state.payload_bytes);
        slots.next = state.next;
        for (stored, payload) in state.waiting {
            if usize::from(stored.length) != payload.0.len() || !slots.store(stored, &payload.0) {
                return Err(D::Error::custom("a packet that fits no slot"));
            }
        }
        slots.next = state.next;
        Ok(slots)
    }
}

impl Slots {
    /// 16 slots, or 32 when more are asked for.
    pub(super) fn new(slots: u8, payload_bytes: u16) -> Self {
        let count = if slots > 16 { 32 } else { 16 };
        let empty = Stored {
            sequence: 0,
            begins: 0,
            ends: 0,
            gap_from: 0,
            arrived: Timestamp(0),
            codec: Codec::Pcmu,
            length: 0,
        };
        let payload_bytes = usize::from(payload_bytes);
        Self {
            first: empty,
            others: vec![empty; count - 1].into_boxed_slice(),
            bytes: vec![0; count * payload_bytes].into_boxed_slice(),
            payload_bytes,
            places: [0; SLOTS_MAX],
            free: all(count),
            occupied: 0,
            idle: 0,
            next: 0,
        }
    }

    /// Payload bytes that fit a slot.
    pub(super) fn payload_bytes(&self) -> usize {
        self.payload_bytes
    }

    /// Number of slots.
    pub(super) fn count(&self) -> u64 {
        u64::try_from(self.slots()).unwrap_or(0)
    }

    fn slots(&self) -> usize {
        self.others.len() + 1
    }

    pub(super) fn is_empty(&self) -> bool {
        self.occupied == 0
    }

    /// Whether `sequence` lies before what may still be stored.
    pub(super) fn has_passed(&self, sequence: u64) -> bool {
        sequence < self.next
    }

    /// Empties all slots; `next` is the first sequence number that will be stored.
    pub(super) fn clear(&mut self, next: u64) {
        self.occupied = 0;
        self.free = all(self.slots());
        self.next = next;
    }

    /// Lets a packet in that came before the first one, while nothing was played yet.
    pub(super) fn reach_back(&mut self, sequence: u64) {
        let occupied = (0..self.slots()).filter(|index| self.occupied >> index & 1 != 0);
        let newest = occupied
            .filter_map(|index| Some(self.packet(index)?.sequence))
            .max()
            .unwrap_or(sequence);
        if sequence < self.next && newest - sequence < self.count() {
            self.next = sequence;
        }
    }

    /// Copies a packet into its slot. False when no slot is left for it, or its number has passed.
    pub(super) fn store(&mut self, packet: Stored, payload: &[u8]) -> bool {
        if packet.sequence < self.next {
            return false;
        }
        let floor = (packet.sequence + 1).saturating_sub(self.count());
        if floor > self.next {
            // Numbers that nothing stored lies before are given up.
            if self.oldest().is_some_and(|(_, oldest)| oldest.sequence < floor) {
                return false;
            }
            self.next = floor;
        }
        let index = self.index(packet.sequence);
        self.vacate(index);
        // There are as many places as slots, so one is free.
        let place = self.free.trailing_zeros();
        let start = place as usize * self.payload_bytes;
        let bytes = self
            .bytes
            .get_mut(start..start + payload.len())
            .filter(|_| payload.len() <= self.payload_bytes);
        let stored = match place.checked_sub(1) {
            None => Some(&mut self.first),
            Some(other) => self.others.get_mut(other as usize),
        };
        let (Some(stored), Some(bytes), Some(known)) = (stored, bytes, self.places.get_mut(index)) else {
            return false;
        };
        // The payload has just been read, and is in nobody's way before its tick.
        if codec::idle(packet.codec, payload).is_some() {
            self.idle |= 1 << index;
        } else {
            self.idle &= !(1 << index);
            bytes.copy_from_slice(payload);
        }
        *stored = packet;
        *known = u8::try_from(place).unwrap_or(0);
        self.free &= !(1 << place);
        self.occupied |= 1 << index;
        true
    }

    /// Frees the slot and its place.
    fn vacate(&mut self, index: usize) {
        if self.occupied >> index & 1 != 0 {
            self.occupied &= !(1 << index);
            self.free |= self.places.get(index).map_or(0, |place| 1 << place);
        }
    }

    /// The packet with the lowest sequence number, and its slot.
    pub(super) fn oldest(&self) -> Option<(usize, Stored)> {
        self.from(self.next)
    }

    /// The packet with the lowest sequence number from `sequence` on.
    pub(super) fn from(&self, sequence: u64) -> Option<(usize, Stored)> {
        if self.occupied == 0 {
            return None;
        }
        // The bits twice in a row: shifting right rotates them.
        let count = self.slots();
        let twice = u64::from(self.occupied) | u64::from(self.occupied) << count;
        let start = self.index(sequence);
        let distance = usize::try_from((twice >> start).trailing_zeros()).unwrap_or(0);
        let index = (start + distance) % count;
        let stored = *self.packet(index)?;
        (stored.sequence >= sequence).then_some((index, stored))
    }

    /// Where slot `index` keeps its packet.
    fn place(&self, index: usize) -> usize {
        self.places.get(index).copied().map_or(0, usize::from)
    }

    /// The packet in slot `index`; it stays there after the release, until another one is stored.
    fn packet(&self, index: usize) -> Option<&Stored> {
        let place = self.place(index);
        place
            .checked_sub(1)
            .map_or(Some(&self.first), |other| self.others.get(other))
    }

    /// Payload in slot `index`; it stays there after the release, until another packet is stored.
    pub(super) fn payload(&self, index: usize) -> &[u8] {
        if self.is_idle(index) {
            return codec::idle_payload(self.packet(index).map_or(Codec::Pcmu, |stored| stored.codec));
        }
        let start = self.place(index) * self.payload_bytes;
        let length = self.packet(index).map_or(0, |stored| usize::from(stored.length));
        self.bytes.get(start..start + length).unwrap_or_default()
    }

    /// Whether slot `index` holds 20 ms of digital silence.
    pub(super) fn is_idle(&self, index: usize) -> bool {
        self.idle >> index & 1 != 0
    }

    /// Codec and payload in slot `index`, as [`Self::payload`].
    pub(super) fn payload_of(&self, index: usize) -> (Codec, &[u8]) {
        let codec = self.packet(index).map_or(Codec::Pcmu, |stored| stored.codec);
        (codec, self.payload(index))
    }

    /// Frees a slot, and gives up what lies before it.
    pub(super) fn release(&mut self, index: usize) {
        if let Some(stored) = self.packet(index) {
            self.next = self.next.max(stored.sequence + 1);
        }
        self.vacate(index);
    }

    /// End of the samples that wait without a gap from `position` on; `position` when there are none.
    pub(super) fn covered_from(&self, position: u64) -> u64 {
        let mut end = position;
        let mut sequence = self.next;
        while let Some((_, stored)) = self.from(sequence) {
            if stored.begins > end {
                break;
            }
            end = end.max(stored.ends);
            sequence = stored.sequence + 1;
        }
        end
    }

    #[cfg(test)]
    pub(super) fn heap_bytes(&self) -> usize {
        size_of_val(&*self.others) + self.bytes.len()
    }

    fn index(&self, sequence: u64) -> usize {
        usize::try_from(sequence % self.count()).unwrap_or(0)
    }
}

/// Slots at most.
const SLOTS_MAX: usize = 32;

/// A bit for each of `count` places.
fn all(count: usize) -> u32 {
    u32::MAX >> (SLOTS_MAX - count.min(SLOTS_MAX))
}
