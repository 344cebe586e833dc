//! What happens to a packet when it comes.

use std::time::Duration;

use super::slots::Stored;
use super::source::Order;
use super::{FRAME_SAMPLES, Insert, JitterBuffer, MARGIN, PacketMeta, Phase, TICK, TICK_US, samples_us};
use crate::counters::{Counters, FrameOutcome};
use crate::time::Timestamp;

impl JitterBuffer {
    /// Takes a packet of `samples` samples whose payload fits a slot.
    pub(super) fn arrive(
        &mut self,
        now: Timestamp,
        packet: PacketMeta,
        payload: &[u8],
        samples: u16,
        counters: &mut Counters,
    ) -> Insert {
        let newest = self.tracker.newest_begins();
        let make = |sequence, begins, gap_from| Stored {
            sequence,
            begins,
            ends: begins + u64::from(samples),
            gap_from,
            arrived: now,
            codec: packet.codec,
            length: u16::try_from(payload.len()).unwrap_or(0),
        };
        match self.tracker.classify(&packet, u64::from(samples)) {
            Order::Unproven => Insert::Probation,
            Order::Duplicate => Insert::Duplicate,
            Order::Fresh {
                sequence,
                begins,
                resynced,
            } => {
                self.begin(make(sequence, begins, begins), payload, newest, counters);
                if resynced {
                    Insert::Resynced
                } else {
                    Insert::Stored
                }
            }
            Order::Newer {
                sequence,
                begins,
                gap_from,
                after,
            } => {
                self.arrived = true;
                let stored = make(sequence, begins, gap_from);
                if let Phase::Stopped | Phase::Idle = self.phase {
                    self.ledger.resumes(after, gap_from, begins, counters);
                    self.resume(stored, payload);
                    return Insert::Stored;
                }
                if gap_from < begins {
                    self.ledger.not_owed(gap_from, begins, counters);
                }
                let verdict = self.place(stored, payload, true, counters);
                self.resync_after_runs(verdict, packet, stored, payload, newest, counters)
            }
            Order::Older { sequence, begins } => {
                self.arrived = true;
                if let Phase::Waiting { .. } = self.phase {
                    self.slots.reach_back(sequence);
                }
                self.place(make(sequence, begins, begins), payload, false, counters)
            }
        }
    }

    /// Starts a time line with its first packet.
    fn begin(&mut self, first: Stored, payload: &[u8], newest: u64, counters: &mut Counters) {
        self.abandon(newest, counters);
        self.forget_clock();
        let not_before = first.arrived.after(lead(&first));
        self.wait(first, payload, not_before);
    }

    /// Goes on after a stop: on the old time line when the packet keeps to it, so that a talk spurt
    /// does not lose the delay that was learnt, else anew. After a pause of the sender nobody hears that packets
    /// begin with ticks again.
    fn resume(&mut self, first: Stored, payload: &[u8]) {
        if first.gap_from < first.begins {
            self.align();
        }
        let slack_us = self.slack_us(&first) - self.offset_us();
        let lead = lead(&first);
        let fits = first.begins >= self.position
            && i128::from(slack_us) * 1000 >= i128::try_from(lead.as_nanos()).unwrap_or(0);
        let not_before = if fits && slack_us <= self.delay_limit_us() {
            // Half a tick before its tick: only that tick is the first one after it.
            let wait = u64::try_from(slack_us - TICK_US / 2).unwrap_or(0);
            first.arrived.after(Duration::from_micros(wait))
        } else {
            self.forget_slack();
            first.arrived.after(lead)
        };
        self.slots.clear(first.sequence);
        self.wait(first, payload, not_before);
    }

    fn wait(&mut self, first: Stored, payload: &[u8], not_before: Timestamp) {
        self.slots.clear(first.sequence);
        self.slots.store(first, payload);
        self.phase = Phase::Waiting { not_before };
        self.late.clear();
        self.insertions = 0;
        self.silent_ticks = 0;
        self.late_run = 0;
        self.early_run = 0;
        self.arrived = true;
    }

    /// Ends a time line: what waits is left out, what is open is closed.
    pub(super) fn abandon(&mut self, newest: u64, counters: &mut Counters) {
        while let Some((index, stored)) = self.slots.oldest() {
            self.leave_out(stored, counters);
            self.slots.release(index);
        }
        self.ledger.end(newest, counters);
    }

    /// Counts the frames of a packet that will not be played.
    pub(super) fn leave_out(&mut self, stored: Stored, counters: &mut Counters) {
        for _ in 0..(stored.ends - stored.begins).div_ceil(FRAME_SAMPLES) {
            counters.frame(FrameOutcome::Skew);
            self.counters.left_out += 1;
        }
    }

    /// Puts a packet of the current time line where it belongs.
    fn place(&mut self, stored: Stored, payload: &[u8], newer: bool, counters: &mut Counters) -> Insert {
        let playing = self.phase == Phase::Playing;
        let ahead = matches!(self.phase, Phase::Waiting { .. }) || playing && stored.begins >= self.position;
        if ahead && !self.slots.has_passed(stored.sequence) {
            if !self.slots.store(stored, payload) {
                return Insert::Early;
            }
            // A gap of the sender says nothing about the network.
            if playing && stored.gap_from == stored.begins {
                let slack_us = self.slack_us(&stored);
                self.slack.record(slack_us);
            }
            self.late.record(false);
            self.late_run = 0;
            self.early_run = 0;
            return Insert::Stored;
        }
        if !playing {
            self.ledger.came_late(stored.begins, stored.ends, counters);
            return Insert::Late;
        }
        self.late.record(true);
        self.late_run = self.late_run.saturating_add(u8::from(newer));
        if (self.late.asks_for_delay() || self.slack.is_used_up(self.offset_us())) && self.grow(&stored) {
            self.ledger.were_inserted(stored.begins, counters);
            self.late_run = 0;
        } else {
            self.ledger.came_late(stored.begins, stored.ends, counters);
        }
        if stored.ends > self.position && self.slots.store(stored, payload) {
            Insert::Stored
        } else {
            Insert::Late
        }
    }

    /// A run of packets that all miss the time line proves that it is the wrong one.
    fn resync_after_runs(
        &mut self,
        verdict: Insert,
        packet: PacketMeta,
        stored: Stored,
        payload: &[u8],
        newest: u64,
        counters: &mut Counters,
    ) -> Insert {
        if verdict == Insert::Early {
            self.early_run += 1;
        }
        if verdict == Insert::Stored || self.early_run < EARLY_RUN && self.late_run < LATE_RUN {
            return verdict;
        }
        let (sequence, begins) = self.tracker.restart(&packet, stored.ends - stored.begins);
        let ends = begins + (stored.ends - stored.begins);
        self.begin(
            Stored {
                sequence,
                begins,
                ends,
                gap_from: begins,
                ..stored
            },
            payload,
            newest,
            counters,
        );
        Insert::Resynced
    }

    /// Adds delay because `stored` came after its tick. True when the play position went back to
    /// it, so that it is heard in full after all: the frames concealed in its place become
    /// insertions. Otherwise frames will be inserted at the next ticks.
    fn grow(&mut self, stored: &Stored) -> bool {
        let behind = self.position.saturating_sub(stored.begins);
        let frames = behind.div_ceil(FRAME_SAMPLES);
        let room = self.room_frames(stored.ends - stored.begins);
        if behind == 0 || frames > GROWTH_MAX {
            return false;
        }
        let until_tick = self.next_tick(stored.arrived).since(stored.arrived);
        let tight = until_tick < TIGHT;
        if stored.begins >= self.played_to && !self.slots.has_passed(stored.sequence) {
            if frames > room {
                return false;
            }
            self.position = stored.begins;
            self.moved(i32::try_from(frames).unwrap_or(0) * TICK_US - self.offset_us());
            self.offset = 0;
            self.late.clear();
            if tight && frames < room {
                self.insert_frames(self.insertions + 1);
            }
            return true;
        }
        // Its tick began `frames` ticks before the next one.
        let missed = TICK * u32::try_from(frames).unwrap_or(0);
        let late_by = missed.saturating_sub(until_tick);
        let needed = (late_by + TIGHT).as_nanos().div_ceil(TICK.as_nanos());
        let wanted = u64::try_from(needed)
            .unwrap_or(0)
            .min(room + u64::from(self.insertions));
        self.insert_frames(u8::try_from(wanted).unwrap_or(0));
        false
    }

    /// Raises the number of ticks to be inserted.
    pub(super) fn insert_frames(&mut self, wanted: u8) {
        let more = wanted.saturating_sub(self.insertions);
        if more > 0 {
            self.insertions = wanted;
            self.moved(i32::from(more) * TICK_US);
            self.late.clear();
        }
    }

    /// Frames of delay that the slots still have room for, with packets of `samples` samples.
    pub(super) fn room_frames(&self, samples: u64) -> u64 {
        let slots_us = samples_us((self.slots.count() - 2) * samples).min(DELAY_MAX_US);
        let taken = self.slack.max().max(TICK_US);
        u64::try_from((slots_us - taken) / TICK_US).unwrap_or(0)
    }

    /// Microseconds from the arrival of a packet to the tick that needs it first, and from there to its
    /// first sample, as far as small steps have moved it.
    fn slack_us(&self, stored: &Stored) -> i32 {
        let aligned = self.position + u64::from(self.offset);
        let frames = stored.begins.saturating_sub(aligned) / FRAME_SAMPLES + u64::from(self.insertions);
        let next_tick = self.next_tick(stored.arrived);
        let until_tick_us = next_tick.microseconds_since(stored.arrived);
        let frames_us = i64::try_from(frames)
            .unwrap_or(i64::MAX)
            .saturating_mul(i64::from(TICK_US));
        let all_us = until_tick_us.saturating_add(frames_us);
        i32::try_from(all_us)
            .unwrap_or(i32::MAX)
            .saturating_add(self.offset_us())
    }

    /// When the next tick begins; `now` when none has run yet.
    fn next_tick(&self, now: Timestamp) -> Timestamp {
        self.last_tick.map_or(now, |last| last.after(TICK))
    }
}

/// Time that a first packet waits at least: the margin, and what its packet time adds because ticks
/// and packets do not begin together (10 and 30 ms packets: another 10 ms).
pub(super) fn lead(first: &Stored) -> Duration {
    let samples = first.ends - first.begins;
    let apart = FRAME_SAMPLES - common_divisor(samples, FRAME_SAMPLES);
    MARGIN + Duration::from_micros(apart * 125)
}

fn common_divisor(a: u64, b: u64) -> u64 {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// So many packets in a row for which no slot is left: the time line is wrong.
const EARLY_RUN: u8 = 2;

/// So many packets in a row that came too late, without delay left to add: likewise.
const LATE_RUN: u8 = 5;

/// A packet so many frames late does not ask for delay.
const GROWTH_MAX: u64 = 16;

/// Delay never grows beyond this.
const DELAY_MAX_US: i32 = 400_000;

/// A packet that comes so shortly before its tick would be late again soon.
const TIGHT: Duration = Duration::from_millis(2);
