//! A conference whose members are spread over several engines.
//!
//! Every engine has a part of it. At a tick each sums up its own members and tells the others the sum
//! ([`Partial`]); once it has been told by all of them it adds their sums to its own and sends. Who is late is
//! not waited for beyond 8 ms. Slots must have the same numbers in all engines. Nobody
//! calls anybody: whoever runs the engines carries what [`Engine::poll_partial`] gives to
//! [`Engine::take_partial`] of the others.

use serde::{Deserialize, Serialize};

use crate::command::ConferenceIndex;
use crate::counters::Counters;
use crate::engine::Engine;
use crate::mix::heard::Mix;
pub use crate::mix::partial::{Partial, Parts, RoomId};
use crate::packet::PacketSink;
use crate::time::Slot;

/// What control decides about an engine's part of a conference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareSetup {
    /// The conference, by the same number in all engines.
    pub room: RoomId,
    /// This engine's number.
    pub own: u8,
    /// The others' numbers.
    pub others: Parts,
}

/// An engine's part of a conference; built by control ([`crate::command::Command::Share`]).
#[derive(Debug)]
pub struct Share {
    pub(crate) mix: Mix,
    /// The same without trunks.
    pub(crate) trunk_mix: Mix,
    pub(crate) exchange: Exchange,
}

/// What was told and what is waited for.
#[derive(Debug)]
pub(crate) struct Exchange {
    setup: ShareSetup,
    /// The tick that waits for the others.
    waits: Option<Slot>,
    /// What this part tells.
    told: Partial,
    /// What the others told, two ticks of each: one of them may be ahead.
    heard: Box<[[Partial; 2]]>,
}

impl Share {
    /// A part that has not been told anything (allocates: control only).
    #[must_use]
    pub fn new(setup: ShareSetup) -> Box<Self> {
        let ShareSetup { room, own, others } = setup;
        let others_mine = others.without(own);
        let nothing = |from| {
            let empty = Partial::empty(room, from, Parts::NONE);
            [empty.clone(), empty]
        };
        Box::new(Self {
            mix: Mix::new(),
            trunk_mix: Mix::new(),
            exchange: Exchange {
                setup: ShareSetup {
                    others: others_mine,
                    ..setup
                },
                waits: None,
                told: Partial::empty(room, own, others_mine),
                heard: others_mine.iter().map(nothing).collect(),
            },
        })
    }

    /// What control decided.
    #[must_use]
    pub fn setup(&self) -> ShareSetup {
        self.exchange.setup
    }

    /// Goes on with the tick at which `old` stands.
    pub(crate) fn take_over(&mut self, old: &mut Self) {
        std::mem::swap(&mut self.mix, &mut old.mix);
        std::mem::swap(&mut self.trunk_mix, &mut old.trunk_mix);
        let (new, old) = (&mut self.exchange, &mut old.exchange);
        if new.setup.room != old.setup.room {
            return;
        }
        new.waits = old.waits.take();
        for heard in &mut old.heard {
            for one in heard {
                if let Some(place) = new.place(one.from, one.slot) {
                    std::mem::swap(place, one);
                }
            }
        }
    }
}

impl Exchange {
    /// Where what `from` tells of the tick in `slot` lies.
    fn place(&mut self, from: u8, slot: Slot) -> Option<&mut Partial> {
        let which = usize::try_from(slot.0 / Slot::PER_TICK % 2).unwrap_or(0);
        let heard = self.heard.iter_mut().find(|heard| heard[0].from == from)?;
        heard.get_mut(which)
    }

    /// Tells the others what `mix` holds, and begins to wait for them.
    pub(crate) fn tell(&mut self, slot: Slot, mix: &Mix) {
        self.told.tell(slot, mix);
        self.waits = Some(slot);
    }

    fn has_heard_all(&self, slot: Slot) -> bool {
        let told = |heard: &[Partial; 2]| heard.iter().any(|one| one.slot == slot);
        self.heard.iter().all(told)
    }

    /// The slot of the tick that waits, if it need not wait any more at `now`.
    pub(crate) fn is_ready(&self, now: Slot) -> Option<Slot> {
        self.waits
            .filter(|slot| now.0.saturating_sub(slot.0) >= WAIT_SLOTS || self.has_heard_all(*slot))
    }

    /// Adds what the others told of the tick that waits, which holds no trunk of theirs, and ends the waiting.
    pub(crate) fn add_others(&mut self, mix: &mut Mix, trunk_mix: &mut Mix, counters: &mut Counters) {
        let Some(slot) = self.waits.take() else { return };
        for heard in &self.heard {
            match heard.iter().find(|one| one.slot == slot) {
                Some(one) => {
                    one.add_to(mix);
                    one.add_to(trunk_mix);
                    counters.partials_added += 1;
                }
                None => counters.partials_missing += 1,
            }
        }
    }
}

impl Engine {
    /// Takes what another engine tells of a conference that both share.
    pub fn take_partial(&mut self, partial: &Partial) {
        // Shared conferences are few, and large.
        let is_it = |at: &&ConferenceIndex| {
            share_at(&self.shares, **at).is_some_and(|share| share.exchange.setup.room == partial.room)
        };
        let Some(&at) = self.shared.iter().find(is_it) else {
            return;
        };
        if let Some(share) = self.shares.get_mut(at.0 as usize).and_then(Option::as_deref_mut)
            && let Some(place) = share.exchange.place(partial.from, partial.slot)
        {
            place.clone_from(partial);
        }
    }

    /// Ends the ticks that wait for other parts without them: the engine is about to be written down.
    pub fn end_waiting(&mut self, sink: &mut impl PacketSink) {
        self.send_what_waited(Slot(u64::MAX), sink);
        self.send_slices(Slot(u64::MAX), sink);
    }

    /// What this engine has to tell the others since the last slot.
    pub fn poll_partial(&mut self) -> Option<&Partial> {
        while let Some(at) = self.telling.pop() {
            let share = self.shares.get(at.0 as usize).and_then(Option::as_deref);
            // It may have gone meanwhile.
            if share.is_some_and(|share| share.exchange.setup.others != Parts::NONE) {
                return share_at(&self.shares, at).map(|share| &share.exchange.told);
            }
        }
        None
    }
}

fn share_at(shares: &[Option<Box<Share>>], at: ConferenceIndex) -> Option<&Share> {
    shares.get(at.0 as usize)?.as_deref()
}

/// Who tells nothing within so many slots (milliseconds) is left out of the tick.
pub(crate) const WAIT_SLOTS: u64 = 8;
