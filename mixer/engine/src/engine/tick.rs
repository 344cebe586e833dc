//! One tick of a conference: pull every member's frame, add up, give each member what it hears.
//!
//! A member whose frame is not silence is a voice. Voices hear the sum minus their own frame,
//! everybody else hears the sum, encoded once per codec. Who hears exactly one voice, unaltered and
//! in the same codec, gets that voice's payload untouched. Where the conference is shared with other
//! engines, their sums come in between. Trunks to other mixers hear the conference's own members, in a mix of its
//! own: what came over one trunk goes to the members and over no other. A tick that panics takes its conference with it and nothing else.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::command::{ConferenceIndex, EndpointIndex, PlayId};
use crate::conference::{Conference, PHASES};
use crate::counters::Counters;
use crate::endpoint::{Part, TickTime};
use crate::engine::Engine;
use crate::engine::outbox::Events;
use crate::engine::roster::{Members, Roster};
use crate::engine::share::Exchange;
use crate::engine::slices::{SLICE, Sending};
use crate::engine::table::Endpoints;
use crate::event::{Event, EventKind};
use crate::mix::heard::{Listener, Mix};
use crate::mix::mix_minus;
use crate::packet::{FlowId, PacketSink};
use crate::time::{Slot, Timestamp};

impl Engine {
    pub(super) fn tick_slot(
        &mut self,
        slot: Slot,
        due: Timestamp,
        now: Timestamp,
        sink: &mut impl PacketSink,
    ) {
        let phase = phase_of(slot.0);
        self.send_deferred(phase_of(slot.0 + Slot::PER_TICK / 2), sink);
        self.send_slices(slot, sink);
        let time = TickTime { due, now };
        let mut place = 0;
        while let Some(at) = self.calendar.get(phase, place) {
            self.bring_near(phase, place, sink);
            self.lend_work_space(at);
            // Another one takes the place of one that fails in the list.
            place += usize::from(self.work_on(at, |tick| tick.run(slot, time, sink)));
        }
        self.send_what_waited(slot, sink);
    }

    /// Sends what waited for half a tick in the conferences of a phase.
    fn send_deferred(&mut self, phase: usize, sink: &mut impl PacketSink) {
        if self.deferring >> phase & 1 == 0 {
            return;
        }
        self.deferring &= !(1 << phase);
        let mut place = 0;
        while let Some(at) = self.calendar.get(phase, place) {
            place += usize::from(self.work_on(at, |tick| tick.send_deferred(sink)));
        }
    }

    /// Asks for what the conferences after the `place`th of a phase will need: in small ones the members that come
    /// next are theirs.
    fn bring_near(&self, phase: usize, place: usize, sink: &impl PacketSink) {
        let later = |places| {
            let at = self.calendar.get(phase, place + places)?;
            self.conferences.get(at.0 as usize)?.as_deref()
        };
        if let Some(conference) = later(2) {
            sink.prefetch(conference);
        }
        let Some(next) = later(1) else { return };
        for at in self.roster.iter(&next.members).take(PREFETCH_AHEAD) {
            sink.expect(FlowId(at.0));
            if let Some(place) = self.endpoints.place(at) {
                sink.prefetch(place);
            }
        }
    }

    /// Ends the ticks of shared conferences that have waited for the others' parts.
    pub(super) fn send_what_waited(&mut self, slot: Slot, sink: &mut impl PacketSink) {
        let mut place = 0;
        while let Some(&at) = self.shared.get(place) {
            // One that fails leaves the list, and the next takes its place.
            place += usize::from(self.work_on(at, |tick| tick.send_what_waited(slot, sink)));
        }
    }

    /// Works on a conference; false when its work panicked and it was taken out.
    pub(super) fn work_on(&mut self, at: ConferenceIndex, work: impl FnOnce(&mut Tick<'_>)) -> bool {
        let index = at.0 as usize;
        let Some(conference) = self.conferences.get_mut(index).and_then(Option::as_deref_mut) else {
            return true;
        };
        let share = self.shares.get_mut(index).and_then(Option::as_deref_mut);
        let lent = conference.work_space.map(usize::from);
        let lent = lent.and_then(|space| self.slices.spaces.get_mut(space));
        let (mix, trunk_mix, exchange, keeps_mix) = match (share, lent) {
            (Some(share), _) => (
                &mut share.mix,
                &mut share.trunk_mix,
                Some(&mut share.exchange),
                true,
            ),
            (None, Some(lent)) => (lent, &mut self.trunk_mix, None, true),
            (None, None) => (&mut self.mix, &mut self.trunk_mix, None, false),
        };
        let mut tick = Tick {
            at,
            conference,
            endpoints: &mut self.endpoints,
            roster: &self.roster,
            mix,
            keeps_mix,
            trunk_mix,
            exchange,
            under_way: &mut self.slices.under_way,
            telling: &mut self.telling,
            deferring: &mut self.deferring,
            events: &mut self.events,
            counters: &mut self.counters,
            media_timeout: Duration::from_millis(u64::from(self.media_timeout_ms)),
            csrc: self.csrc,
        };
        // The conference may be left half done, and leaves; of what it shares with the others
        // the mix is made anew by every tick and the rest is only added to.
        let done = catch_unwind(AssertUnwindSafe(|| work(&mut tick))).is_ok();
        if !done {
            self.fail(at);
        }
        done
    }
}

/// A play has come to its end.
fn played(conference: ConferenceIndex, endpoint: Option<EndpointIndex>, play: PlayId) -> Event {
    Event {
        conference,
        endpoint,
        kind: EventKind::Played { play, complete: true },
    }
}

fn phase_of(slot: u64) -> usize {
    usize::try_from(slot % Slot::PER_TICK).unwrap_or(0) % PHASES
}

/// Members between the one that is worked on and the one whose state is asked for.
const PREFETCH_AHEAD: usize = 4;

/// Whom a mix is for.
#[derive(Debug, Clone, Copy)]
enum Audience {
    Members,
    Trunks,
}

/// One conference at work, with everything it needs of the engine.
pub(super) struct Tick<'a> {
    at: ConferenceIndex,
    conference: &'a mut Conference,
    endpoints: &'a mut Endpoints,
    roster: &'a Roster,
    mix: &'a mut Mix,
    /// The mix stays as it is until the next tick.
    keeps_mix: bool,
    under_way: &'a mut Vec<ConferenceIndex>,
    /// What trunks are sent.
    trunk_mix: &'a mut Mix,
    /// The others' parts of it, if it is shared.
    exchange: Option<&'a mut Exchange>,
    telling: &'a mut Vec<ConferenceIndex>,
    deferring: &'a mut u32,
    events: &'a mut Events,
    counters: &'a mut Counters,
    media_timeout: Duration,
    csrc: bool,
}

impl Tick<'_> {
    fn run<S: PacketSink>(&mut self, slot: Slot, time: TickTime, sink: &mut S) {
        self.counters.ticks += 1;
        self.mix.begin(S::SUMS);
        self.pull(self.conference.members, time, sink);
        if let Some(most) = self.conference.talkers()
            && self.mix.voices.audible.count() > u32::from(most)
        {
            self.choose_loudest(most);
        }
        // A trunk may join while a shared conference waits for the others.
        if !self.conference.trunks.is_empty() || self.exchange.is_some() {
            self.trunk_mix.begin_like(self.mix);
            self.pull(self.conference.trunks, time, sink);
        }
        if let Some(exchange) = &mut self.exchange {
            exchange.tell(slot, self.mix);
            if self.telling.len() < self.telling.capacity() {
                self.telling.push(self.at);
            }
        } else {
            self.send_mix(slot, slot, sink);
        }
    }

    /// Ends the tick of a shared conference, once everything it waits for is there.
    fn send_what_waited(&mut self, slot: Slot, sink: &mut impl PacketSink) {
        if let Some(exchange) = &mut self.exchange
            && let Some(began) = exchange.is_ready(slot)
        {
            exchange.add_others(self.mix, self.trunk_mix, self.counters);
            self.send_mix(began, slot, sink);
        }
    }

    /// Sends what the tick that began in `began` has mixed, or in a large room begins to.
    fn send_mix(&mut self, began: Slot, slot: Slot, sink: &mut impl PacketSink) {
        self.play_to_all();
        if let Some(trunk) = self.conference.trunks.first() {
            self.trunk_mix.complete(false, self.csrc);
            self.send_some(trunk, u32::MAX, Audience::Trunks, sink);
        }
        let members = self.conference.members;
        let Some(first) = members.first() else { return };
        if members.count() <= SLICE || !self.keeps_mix {
            self.send_some(first, u32::MAX, Audience::Members, sink);
            return;
        }
        self.conference.sending = Some(Sending::new(first, members.count(), began));
        if self.under_way.len() < self.under_way.capacity() {
            self.under_way.push(self.at);
        }
        self.send_slice(slot, sink);
    }

    /// Sends to those who come next in a tick that is under way.
    pub(super) fn send_slice(&mut self, slot: Slot, sink: &mut impl PacketSink) {
        let Some(sending) = self.conference.sending else {
            return;
        };
        let size = sending.size(slot);
        let next = self.send_some(sending.next(), size, Audience::Members, sink);
        self.conference.sending = next.map(|next| sending.after(size, next));
    }

    /// Gets the frame of everybody in a list, and adds up those that are heard.
    fn pull(&mut self, list: Members, time: TickTime, sink: &impl PacketSink) {
        let Self {
            endpoints,
            roster,
            mix,
            events,
            counters,
            ..
        } = self;
        for (at, later) in roster.iter_ahead(list.first(), PREFETCH_AHEAD) {
            if let Some(place) = later.and_then(|at| endpoints.place(at)) {
                sink.prefetch(place);
            }
            let Some(endpoint) = endpoints.get_mut(at) else {
                continue;
            };
            let talk = endpoint.pull(time, &mut mix.voices, counters);
            if endpoint.part == Part::Audible {
                mix_minus::add(&mut mix.sum, endpoint.frame());
            }
            let mut tell = |kind| {
                events.push(
                    Event {
                        conference: self.at,
                        endpoint: Some(at),
                        kind,
                    },
                    counters,
                );
            };
            if let Some(talking) = talk {
                tell(EventKind::Talk { talking });
            }
            endpoint.check_timers(time.now, self.media_timeout, tell);
        }
    }

    /// Mixes the loudest alone: more are heard than the conference mixes.
    fn choose_loudest(&mut self, most: u8) {
        let Self {
            conference,
            endpoints,
            roster,
            mix,
            counters,
            ..
        } = self;
        mix.contest.begin(most);
        for at in roster.iter(&conference.members) {
            if let Some(endpoint) = endpoints.get(at) {
                mix.contest.enter(at, endpoint.claim());
            }
        }
        mix.begin_again();
        for at in roster.iter(&conference.members) {
            if let Some(endpoint) = endpoints.get_mut(at) {
                endpoint.contend(mix.contest.is_won_by(at), mix, counters);
            }
        }
    }

    fn play_to_all(&mut self) {
        let Self {
            conference,
            mix,
            events,
            counters,
            ..
        } = self;
        let any = conference.plays.mix_into(&mut mix.sum, |play| {
            events.push(played(self.at, None, play), counters);
        });
        mix.complete(any, self.csrc);
    }

    /// Gives `most` of a list from `first` on what they hear, and says who comes next.
    fn send_some(
        &mut self,
        first: EndpointIndex,
        most: u32,
        audience: Audience,
        sink: &mut impl PacketSink,
    ) -> Option<EndpointIndex> {
        let Self {
            endpoints,
            roster,
            events,
            counters,
            ..
        } = self;
        let mix = match audience {
            Audience::Members => &mut *self.mix,
            Audience::Trunks => &mut *self.trunk_mix,
        };
        let mut deferred = false;
        let mut next = None;
        for (count, (at, later)) in (0..).zip(roster.iter_ahead(Some(first), PREFETCH_AHEAD)) {
            if count == most {
                next = Some(at);
                break;
            }
            if let Some(later) = later {
                sink.expect(FlowId(later.0));
                if let Some(place) = endpoints.place(later) {
                    sink.prefetch(place);
                }
            }
            let Some(endpoint) = endpoints.get_mut(at) else {
                continue;
            };
            endpoint.pass_on_learnt(sink);
            let over = endpoint.running_plays().map(|plays| {
                let mut over = mix_minus::SILENCE;
                plays.mix_into(&mut over, |play| {
                    events.push(played(self.at, Some(at), play), counters);
                });
                over
            });
            let Some(codec) = endpoint.send_codec() else {
                endpoint.sender.skip_frame();
                continue;
            };
            let listener = Listener {
                at,
                codec,
                hears: endpoint.hears(),
                part: match audience {
                    Audience::Members => endpoint.part,
                    // Nothing of it is in what it hears.
                    Audience::Trunks => Part::Silent,
                },
                frame: endpoint.frame(),
            };
            let heard = match over {
                Some(over) => mix.heard_over(&listener, over, counters),
                None => mix.heard_by(&listener, counters),
            };
            endpoint
                .sender
                .send_frame(heard.payload, heard.csrc, sink, counters);
            deferred |= endpoint.sender.is_deferred();
        }
        self.conference.deferred |= deferred;
        *self.deferring |= u32::from(deferred) << self.conference.phase();
        next
    }

    /// Sends the packets that wait for the half tick.
    fn send_deferred(&mut self, sink: &mut impl PacketSink) {
        if !std::mem::take(&mut self.conference.deferred) {
            return;
        }
        let Conference { members, trunks, .. } = self.conference;
        for at in self.roster.iter(members).chain(self.roster.iter(trunks)) {
            if let Some(endpoint) = self.endpoints.get_mut(at) {
                endpoint.sender.send_deferred(sink, self.counters);
            }
        }
    }
}
