//! What waits to be polled: events and boxes. Both have their final capacity from the start.

use std::collections::VecDeque;

use crate::command::{EndpointIndex, Retired};
use crate::counters::Counters;
use crate::event::{Event, EventKind};

/// Events, oldest first. When it is full the newest is lost and counted.
#[derive(Debug)]
pub(crate) struct Events {
    waiting: VecDeque<Event>,
    capacity: usize,
}

impl Events {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            waiting: VecDeque::with_capacity(capacity),
            capacity,
        }
    }

    pub(crate) fn push(&mut self, event: Event, counters: &mut Counters) {
        counters.digits += u64::from(matches!(event.kind, EventKind::Digit { .. }));
        if self.waiting.len() < self.capacity {
            self.waiting.push_back(event);
        } else {
            counters.events_lost += 1;
        }
    }

    /// All of them, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Event> {
        self.waiting.iter()
    }

    /// Takes one back that was counted before.
    pub(crate) fn put_back(&mut self, event: Event, counters: &mut Counters) {
        if self.waiting.len() < self.capacity {
            self.waiting.push_back(event);
        } else {
            counters.events_lost += 1;
        }
    }

    pub(crate) fn poll(&mut self) -> Option<Event> {
        self.waiting.pop_front()
    }
}

/// Boxes of failed conferences. Control reuses an index only after its box came back, so there are
/// never more of them than places in the tables.
#[derive(Debug)]
pub(crate) struct RetiredBoxes {
    waiting: VecDeque<(EndpointIndex, Retired)>,
}

impl RetiredBoxes {
    pub(crate) fn new(places: usize) -> Self {
        Self {
            waiting: VecDeque::with_capacity(places),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn push(&mut self, at: EndpointIndex, retired: Retired) {
        self.waiting.push_back((at, retired));
    }

    pub(crate) fn poll(&mut self) -> Option<(EndpointIndex, Retired)> {
        self.waiting.pop_front()
    }
}
