//! The one timer queue: what is due when.
//!
//! Equal times fire in the order in which they were set (a sequence number is part of the key), so a
//! run is a function of its inputs alone.

use std::collections::BTreeMap;

use crate::time::Timestamp;

/// A set timer; give it back to [`TimerQueue::clear`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TimerHandle {
    at: Timestamp,
    sequence: u64,
}

/// Timers of one owner, ordered by time, then by order of setting.
#[derive(Debug)]
pub(crate) struct TimerQueue<T> {
    timers: BTreeMap<TimerHandle, T>,
    sequence: u64,
}

impl<T> TimerQueue<T> {
    /// An empty queue.
    pub(crate) fn new() -> Self {
        Self {
            timers: BTreeMap::new(),
            sequence: 0,
        }
    }

    /// Arranges for `what` at `at`.
    pub(crate) fn set(&mut self, at: Timestamp, what: T) -> TimerHandle {
        let handle = TimerHandle {
            at,
            sequence: self.sequence,
        };
        self.sequence += 1;
        self.timers.insert(handle, what);
        handle
    }

    /// Forgets a timer; one that has fired is no error.
    pub(crate) fn clear(&mut self, handle: TimerHandle) {
        self.timers.remove(&handle);
    }

    /// When the next timer is due.
    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        self.timers.first_key_value().map(|(handle, _)| handle.at)
    }

    /// Takes the next timer due at `now`.
    pub(crate) fn pop_due(&mut self, now: Timestamp) -> Option<T> {
        let (handle, _) = self.timers.first_key_value()?;
        if handle.at > now {
            return None;
        }
        self.timers.pop_first().map(|(_, what)| what)
    }

    /// How many are set.
    pub(crate) fn len(&self) -> usize {
        self.timers.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fires_in_order_and_not_early_and_not_when_cleared() {
        let mut queue = TimerQueue::new();
        queue.set(Timestamp(20), "late");
        let cleared = queue.set(Timestamp(10), "cleared");
        queue.set(Timestamp(10), "first");
        queue.set(Timestamp(10), "second");
        queue.clear(cleared);
        queue.clear(cleared);
        assert_eq!(queue.next_deadline(), Some(Timestamp(10)));
        assert_eq!(queue.pop_due(Timestamp(9)), None);
        assert_eq!(queue.pop_due(Timestamp(10)), Some("first"));
        assert_eq!(queue.pop_due(Timestamp(10)), Some("second"));
        assert_eq!(queue.pop_due(Timestamp(19)), None);
        assert_eq!(queue.len(), 1);
        assert_eq!(queue.pop_due(Timestamp(25)), Some("late"));
        assert_eq!(queue.next_deadline(), None);
    }
}
