//! The numbered event stream: a bounded history that readers follow at their own pace.
//!
//! Readers pull; a slow one never holds anything up. One that falls out of the history, or has
//! taken nothing for too long although there is something to take, is cut: it comes back with its
//! last number and gets [`EventBody::Gap`] if that is no longer kept.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use mixer_control::event::{Event, EventBody};
use mixer_engine::time::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};

/// Time after which a reader that takes nothing is cut.
const STALL: Duration = Duration::from_secs(15);

/// All events of this run, the last `capacity` of them kept.
#[derive(Debug)]
pub struct EventLog {
    inner: Mutex<Inner>,
    head: watch::Sender<u64>,
}

/// An [`EventLog`] as it can be written down.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct EventLogState {
    head: u64,
    /// The JSON of each kept event, oldest first; the last one has number `head`.
    kept: Vec<String>,
}

#[derive(Debug)]
struct Inner {
    /// `data:` of each kept event; the last one has number `head`.
    kept: VecDeque<Arc<str>>,
    head: u64,
    capacity: usize,
    readers: Vec<Weak<ReaderState>>,
}

/// What the log knows of one reader.
#[derive(Debug)]
struct ReaderState {
    position: AtomicU64,
    /// Position and time at the last check, for finding stalled readers.
    checked: Mutex<(u64, Timestamp)>,
    cut: Arc<Notify>,
}

/// One reader's place in the log.
#[derive(Debug)]
pub struct Reader {
    log: Arc<EventLog>,
    state: Arc<ReaderState>,
    changes: watch::Receiver<u64>,
    /// Number of the `Gap` to tell first.
    gap: Option<u64>,
}

impl EventLog {
    /// An empty log.
    #[must_use]
    pub fn new(capacity: usize) -> Arc<Self> {
        let inner = Inner {
            kept: VecDeque::new(),
            head: 0,
            capacity: capacity.max(1),
            readers: Vec::new(),
        };
        Arc::new(Self {
            inner: Mutex::new(inner),
            head: watch::Sender::new(0),
        })
    }

    /// The log as it can be written down.
    #[must_use]
    pub fn export_state(&self) -> EventLogState {
        let inner = self.lock();
        EventLogState {
            head: inner.head,
            kept: inner.kept.iter().map(ToString::to_string).collect(),
        }
    }

    /// A log that goes on where another one stopped; the newest events are kept.
    #[must_use]
    pub fn import_state(capacity: usize, state: EventLogState) -> Arc<Self> {
        let log = Self::new(capacity);
        let mut inner = log.lock();
        let surplus = state.kept.len().saturating_sub(inner.capacity);
        inner.kept = state.kept.into_iter().skip(surplus).map(Arc::from).collect();
        inner.head = state.head.max(inner.kept.len() as u64);
        let head = inner.head;
        drop(inner);
        log.head.send_replace(head);
        log
    }

    /// Appends an event and returns its number.
    pub fn push(&self, conference: &str, endpoint: &str, body: EventBody) -> u64 {
        let mut inner = self.lock();
        inner.head += 1;
        let event = Event {
            seq: inner.head,
            conference: conference.to_owned(),
            endpoint: endpoint.to_owned(),
            body,
        };
        let Some(text) = to_json(&event) else {
            return inner.head;
        };
        if inner.kept.len() >= inner.capacity {
            inner.kept.pop_front();
        }
        inner.kept.push_back(text);
        let head = inner.head;
        drop(inner);
        self.head.send_replace(head);
        head
    }

    /// Number of the last event.
    #[must_use]
    pub fn head(&self) -> u64 {
        self.lock().head
    }

    /// Readers at present.
    #[must_use]
    pub fn readers(&self) -> usize {
        self.lock()
            .readers
            .iter()
            .filter(|reader| reader.strong_count() > 0)
            .count()
    }

    /// A reader that continues after number `after`, or with the next event. `cut` is notified
    /// when the reader must be disconnected.
    #[must_use]
    pub fn read(self: &Arc<Self>, after: Option<u64>, now: Timestamp, cut: Arc<Notify>) -> Reader {
        let changes = self.head.subscribe();
        let mut inner = self.lock();
        let oldest_place = inner.head - inner.kept.len() as u64;
        let (position, gap) = match after {
            None => (inner.head, None),
            Some(after) if after < oldest_place => (oldest_place, Some(oldest_place)),
            // A number of another run of the mixer.
            Some(after) if after > inner.head => (inner.head, Some(inner.head)),
            Some(after) => (after, None),
        };
        let state = Arc::new(ReaderState {
            position: AtomicU64::new(position),
            checked: Mutex::new((position, now)),
            cut,
        });
        inner.readers.retain(|reader| reader.strong_count() > 0);
        inner.readers.push(Arc::downgrade(&state));
        drop(inner);
        Reader {
            log: Arc::clone(self),
            state,
            changes,
            gap,
        }
    }

    /// Cuts readers that have something to take and take nothing; call it about once a second.
    pub fn cut_stalled(&self, now: Timestamp) {
        let inner = self.lock();
        for reader in inner.readers.iter().filter_map(Weak::upgrade) {
            let position = reader.position.load(Ordering::Relaxed);
            let mut checked = reader.checked.lock().unwrap_or_else(PoisonError::into_inner);
            if position != checked.0 || position == inner.head {
                *checked = (position, now);
            } else if now.since(checked.1) >= STALL {
                reader.cut.notify_one();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader {
    /// The next event's number and JSON; waits for it. `None`: this reader lost its place and
    /// must come back.
    pub async fn next(&mut self) -> Option<(u64, Arc<str>)> {
        if let Some(seq) = self.gap.take() {
            let gap = Event {
                seq,
                conference: String::new(),
                endpoint: String::new(),
                body: EventBody::Gap,
            };
            return to_json(&gap).map(|text| (seq, text));
        }
        loop {
            match self.take() {
                Taken::Event(seq, text) => return Some((seq, text)),
                Taken::Lost => return None,
                Taken::Nothing => self.changes.changed().await.ok()?,
            }
        }
    }

    fn take(&mut self) -> Taken {
        let head = *self.changes.borrow_and_update();
        let inner = self.log.lock();
        let position = self.state.position.load(Ordering::Relaxed);
        let oldest_place = inner.head - inner.kept.len() as u64;
        if position < oldest_place {
            return Taken::Lost;
        }
        let place = usize::try_from(position - oldest_place).unwrap_or(usize::MAX);
        match inner.kept.get(place) {
            Some(text) => {
                self.state.position.store(position + 1, Ordering::Relaxed);
                Taken::Event(position + 1, Arc::clone(text))
            }
            None => {
                debug_assert!(position >= head);
                Taken::Nothing
            }
        }
    }
}

enum Taken {
    Event(u64, Arc<str>),
    Nothing,
    Lost,
}

fn to_json(event: &Event) -> Option<Arc<str>> {
    serde_json::to_string(event).ok().map(Arc::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log_of(count: u32, capacity: usize) -> Arc<EventLog> {
        let log = EventLog::new(capacity);
        for number in 1..=count {
            log.push(
                "c",
                "e",
                EventBody::Digit {
                    digit: '5',
                    duration_ms: number,
                },
            );
        }
        log
    }

    fn reader(log: &Arc<EventLog>, after: Option<u64>) -> Reader {
        log.read(after, Timestamp(0), Arc::default())
    }

    async fn take(reader: &mut Reader) -> Option<Event> {
        let next = tokio::time::timeout(Duration::from_secs(10), reader.next());
        let (seq, text) = next.await.expect("an event")?;
        let event: Event = serde_json::from_str(&text).unwrap();
        assert_eq!(event.seq, seq);
        Some(event)
    }

    #[tokio::test]
    async fn a_reader_continues_after_its_number() {
        let log = log_of(5, 10);
        let mut reader = reader(&log, Some(3));
        assert_eq!(take(&mut reader).await.unwrap().seq, 4);
        assert_eq!(take(&mut reader).await.unwrap().seq, 5);
        let waiting = tokio::spawn(async move { take(&mut reader).await.unwrap().seq });
        log.push("c", "", EventBody::ConferenceFailed);
        assert_eq!(waiting.await.unwrap(), 6);
    }

    #[tokio::test]
    async fn without_a_number_only_new_events_come() {
        let log = log_of(5, 10);
        let mut reader = reader(&log, None);
        log.push("c", "e", EventBody::Active);
        assert_eq!(take(&mut reader).await.unwrap().seq, 6);
    }

    #[tokio::test]
    async fn a_number_no_longer_kept_gets_a_gap_first() {
        let log = log_of(30, 10);
        for (after, gap, next) in [
            (0, Some(20), 21),
            (19, Some(20), 21),
            (20, None, 21),
            (25, None, 26),
        ] {
            let mut reader = reader(&log, Some(after));
            if let Some(gap) = gap {
                let event = take(&mut reader).await.unwrap();
                assert_eq!((event.seq, event.body), (gap, EventBody::Gap), "after {after}");
            }
            assert_eq!(take(&mut reader).await.unwrap().seq, next, "after {after}");
        }
    }

    #[tokio::test]
    async fn a_number_of_another_run_gets_a_gap() {
        let log = log_of(3, 10);
        let mut reader = reader(&log, Some(900));
        let event = take(&mut reader).await.unwrap();
        assert_eq!((event.seq, event.body), (3, EventBody::Gap));
        log.push("c", "e", EventBody::Active);
        assert_eq!(take(&mut reader).await.unwrap().seq, 4);
    }

    #[tokio::test]
    async fn a_reader_that_falls_out_of_the_history_ends() {
        let log = log_of(1, 4);
        let mut reader = reader(&log, Some(0));
        for _ in 0..4 {
            log.push("c", "e", EventBody::Active);
        }
        assert_eq!(take(&mut reader).await, None);
    }

    #[test]
    fn only_readers_that_stand_still_before_something_new_are_cut() {
        let log = log_of(1, 10);
        let cut: [Arc<Notify>; 2] = std::array::from_fn(|_| Arc::default());
        let mut idle = log.read(Some(1), Timestamp(0), Arc::clone(&cut[0]));
        let _stalled = log.read(Some(0), Timestamp(0), Arc::clone(&cut[1]));
        let later = Timestamp(0).after(STALL);
        log.cut_stalled(later);
        let was_cut = |notify: &Notify| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .unwrap();
            runtime.block_on(async {
                tokio::time::timeout(Duration::from_millis(1), notify.notified())
                    .await
                    .is_ok()
            })
        };
        assert!(!was_cut(&cut[0]));
        assert!(was_cut(&cut[1]));
        assert!(matches!(idle.take(), Taken::Nothing));
        assert_eq!(log.readers(), 2);
        drop(idle);
        assert_eq!(log.readers(), 1);
    }
}
