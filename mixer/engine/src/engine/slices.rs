//! Large rooms are sent to in slices: a frame for thousands takes milliseconds, which all conferences of the
//! following slots would wait for.
//!
//! Whoever is sent to in the nth slot of a tick is sent to in about that slot of every tick, so nobody hears of it.
//! Until all are sent to, the tick's mix is kept in a work space that the engine lends to the conference; a shared
//! conference has one of its own. All lie ready from the start.

use crate::command::{ConferenceIndex, EndpointIndex};
use crate::conference::Conference;
use crate::engine::Engine;
use crate::mix::heard::Mix;
use crate::packet::PacketSink;
use crate::time::Slot;

/// Members that are sent to in one slot without a slice.
pub const SLICE: u32 = 256;

/// Slices of a room of at least so many times [`SLICE`], from the slot of its tick on. The last one comes before the half
/// tick, at which the second packets of some are due.
pub const SLICES: u32 = 8;

/// How far a tick has been sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sending {
    /// Who comes next.
    next: EndpointIndex,
    /// Members from there on, but for those who come and go meanwhile.
    left: u32,
    /// Slot of the last slice.
    last: Slot,
}

impl Sending {
    /// Nobody has been sent to, of whom `first` is the first of `members`, in a tick of which `began` is the slot.
    pub(crate) fn new(first: EndpointIndex, members: u32, began: Slot) -> Self {
        Self {
            next: first,
            left: members,
            last: Slot(began.0.saturating_add(u64::from(SLICES) - 1)),
        }
    }

    /// Who comes next.
    pub(crate) fn next(&self) -> EndpointIndex {
        self.next
    }

    /// How many are sent to in `slot`.
    pub(crate) fn size(&self, slot: Slot) -> u32 {
        match self.last.0.checked_sub(slot.0).map(u32::try_from) {
            None | Some(Ok(0)) => u32::MAX,
            Some(Ok(later)) => self.left.div_ceil(later + 1).max(SLICE),
            Some(Err(_)) => SLICE,
        }
    }

    /// What is left once `sent` have been sent to and `next` comes next.
    pub(crate) fn after(self, sent: u32, next: EndpointIndex) -> Self {
        Self {
            next,
            left: self.left.saturating_sub(sent),
            ..self
        }
    }
}

/// Who is at it, and work spaces.
#[derive(Debug)]
pub(crate) struct Slices {
    /// Conferences whose tick is not sent to all yet.
    pub(super) under_way: Vec<ConferenceIndex>,
    pub(super) spaces: Vec<Mix>,
    free: Vec<u16>,
}

impl Slices {
    /// For an engine of such sizes.
    pub(crate) fn new(conferences: usize, endpoints: u32) -> Self {
        let rooms = u16::try_from(endpoints / SLICE).unwrap_or(u16::MAX);
        Self {
            under_way: Vec::with_capacity(conferences),
            spaces: std::iter::repeat_with(Mix::new)
                .take(usize::from(rooms))
                .collect(),
            free: (0..rooms).collect(),
        }
    }

    /// Takes back what was lent to a conference that has got a mix of its own meanwhile, to which it gives what was mixed.
    pub(super) fn move_to(&mut self, own: &mut Mix, conference: &mut Conference) {
        let Some(lent) = conference.work_space.take() else {
            return;
        };
        if let Some(space) = self.spaces.get_mut(usize::from(lent)) {
            std::mem::swap(space, own);
        }
        self.free.push(lent);
    }

    /// Takes back what was lent to a conference that has been sent to, or goes.
    pub(super) fn end(&mut self, at: ConferenceIndex, conference: &mut Conference) {
        if conference.sending.take().is_some() {
            self.under_way.retain(|other| *other != at);
        }
        self.free.extend(conference.work_space.take());
    }
}

impl Engine {
    /// Lends a work space to a conference that ticks and is large; when there is none it is sent to at once.
    pub(super) fn lend_work_space(&mut self, at: ConferenceIndex) {
        let index = at.0 as usize;
        let Some(conference) = self.conferences.get_mut(index).and_then(Option::as_deref_mut) else {
            return;
        };
        let is_shared = self.shares.get(index).is_some_and(Option::is_some);
        if conference.members.count() > SLICE && !is_shared && conference.work_space.is_none() {
            conference.work_space = self.slices.free.pop();
        }
    }

    /// Sends the next slices of ticks that are under way.
    pub(super) fn send_slices(&mut self, slot: Slot, sink: &mut impl PacketSink) {
        let mut place = 0;
        while let Some(&at) = self.slices.under_way.get(place) {
            // One that fails has left the list.
            if !self.work_on(at, |tick| tick.send_slice(slot, sink)) {
                continue;
            }
            let conference = self.conferences.get_mut(at.0 as usize);
            match conference.and_then(Option::as_deref_mut) {
                Some(conference) if conference.sending.is_some() => place += 1,
                Some(conference) => {
                    self.slices.under_way.swap_remove(place);
                    self.slices.end(at, conference);
                }
                None => {
                    self.slices.under_way.swap_remove(place);
                }
            }
        }
    }
}
