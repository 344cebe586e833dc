//! Write-behind: the driver hands changes over without waiting, one task writes them in batches and
//! repeats what failed until it holds.
//!
//! Invariants: changes of one key reach the database in their order, the last one wins; a batch is
//! one transaction; what waits is bounded by what lives plus what the database holds, because a
//! record that never reached the database is forgotten when it is deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use signaling_core::effect::StoreChange;
use tokio::sync::{Notify, watch};

use super::{Contents, Store, StoreError};
use crate::driver::pause;
use crate::metrics::Metrics;

/// Changes gathered before a transaction.
const GATHER: Duration = Duration::from_millis(20);
/// Most changes in one transaction.
const BATCH_MAX: usize = 1_000;
/// First and longest wait before a failed batch is repeated.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Repetitions after the program was asked to stop.
const LAST_TRIES: u32 = 5;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Conference(String),
    Dialog(String),
}

fn key_of(change: &StoreChange) -> (Key, bool) {
    match change {
        StoreChange::SaveConference(record) => (Key::Conference(record.conference.clone()), true),
        StoreChange::DeleteConference { conference } => (Key::Conference(conference.clone()), false),
        StoreChange::SaveDialog(record) => (Key::Dialog(record.endpoint.clone()), true),
        StoreChange::DeleteDialog { endpoint } => (Key::Dialog(endpoint.clone()), false),
    }
}

#[derive(Debug, Default)]
struct Changes {
    pending: BTreeMap<Key, StoreChange>,
    in_flight: BTreeMap<Key, StoreChange>,
    /// Keys of which the database holds a row.
    held: BTreeSet<Key>,
}

impl Changes {
    fn push(&mut self, change: StoreChange) {
        let (key, save) = key_of(&change);
        let needed = save || self.held.contains(&key) || self.in_flight.contains_key(&key);
        if needed {
            self.pending.insert(key, change);
        } else {
            self.pending.remove(&key);
        }
    }

    fn take_batch(&mut self) -> Vec<StoreChange> {
        while self.in_flight.len() < BATCH_MAX {
            let Some((key, change)) = self.pending.pop_first() else {
                break;
            };
            self.in_flight.insert(key, change);
        }
        self.in_flight.values().cloned().collect()
    }

    /// The batch is in the database.
    fn settle(&mut self) {
        for (key, change) in std::mem::take(&mut self.in_flight) {
            if key_of(&change).1 {
                self.held.insert(key);
            } else {
                self.held.remove(&key);
            }
        }
    }

    /// The batch is not in the database: back to the others, unless something newer waits there.
    fn give_back(&mut self) {
        for (key, change) in std::mem::take(&mut self.in_flight) {
            self.pending.entry(key).or_insert(change);
        }
        let held = &self.held;
        self.pending
            .retain(|key, change| key_of(change).1 || held.contains(key));
    }

    fn len(&self) -> usize {
        self.pending.len() + self.in_flight.len()
    }
}

/// The driver's side.
#[derive(Debug, Clone)]
pub struct WriteBehind {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    changes: Mutex<Changes>,
    wake: Notify,
    metrics: Arc<Metrics>,
}

impl Shared {
    fn changes(&self) -> MutexGuard<'_, Changes> {
        // Every change of the maps is one step, so a panic elsewhere leaves them whole.
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WriteBehind {
    /// Starts the writing task on a store whose contents are known. It ends when `stop` turns true
    /// or its sender is gone, after a last attempt to write everything, and closes the store.
    #[must_use]
    pub fn start(
        store: Store,
        contents: &Contents,
        metrics: Arc<Metrics>,
        stop: watch::Receiver<bool>,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let conferences = contents
            .conferences
            .iter()
            .map(|record| Key::Conference(record.conference.clone()));
        let dialogs = contents
            .dialogs
            .iter()
            .map(|record| Key::Dialog(record.endpoint.clone()));
        let changes = Changes {
            held: conferences.chain(dialogs).collect(),
            ..Changes::default()
        };
        metrics.set_db(true);
        let shared = Arc::new(Shared {
            changes: Mutex::new(changes),
            wake: Notify::new(),
            metrics,
        });
        let task = tokio::spawn(write_all(Arc::clone(&shared), store, stop));
        (Self { shared }, task)
    }

    /// Takes a change without waiting.
    pub fn push(&self, change: StoreChange) {
        let pending = {
            let mut changes = self.shared.changes();
            changes.push(change);
            changes.len()
        };
        self.shared.metrics.set_db_pending(pending);
        self.shared.wake.notify_one();
    }
}

async fn write_all(shared: Arc<Shared>, mut store: Store, mut stop: watch::Receiver<bool>) {
    let mut failures: u32 = 0;
    let mut last_tries = 0;
    loop {
        let stopping = *stop.borrow() || stop.has_changed().is_err();
        if shared.changes().len() == 0 {
            if stopping {
                break;
            }
            tokio::select! {
                () = shared.wake.notified() => {}
                _ = stop.changed() => continue,
            }
        }
        if !stopping {
            tokio::select! {
                () = pause(wait_before(failures)) => {}
                _ = stop.changed() => {}
            }
        } else if last_tries == LAST_TRIES {
            tracing::warn!(
                pending = shared.changes().len(),
                "database changes are lost: it takes no writes at the end"
            );
            break;
        } else if failures > 0 {
            last_tries += 1;
            pause(BACK_OFF.0).await;
        }
        let batch = shared.changes().take_batch();
        let result = store.apply(&batch).await;
        failures = settle(&shared, result, failures);
    }
    if let Err(error) = store.close().await {
        tracing::warn!(%error, "the database was not closed cleanly");
    }
}

fn wait_before(failures: u32) -> Duration {
    if failures == 0 {
        GATHER
    } else {
        (BACK_OFF.0 * 2_u32.saturating_pow(failures.min(10) - 1)).min(BACK_OFF.1)
    }
}

/// Books the outcome of a batch; returns how many failed in a row.
fn settle(shared: &Shared, result: Result<(), StoreError>, failures: u32) -> u32 {
    let mut changes = shared.changes();
    shared.metrics.db_write(result.is_ok());
    let failures = match result {
        Ok(()) => {
            changes.settle();
            if failures > 0 {
                tracing::info!("the database takes writes again");
            }
            0
        }
        Err(error) => {
            changes.give_back();
            if failures == 0 {
                tracing::warn!(%error, "the database takes no writes; calls go on, changes are kept and repeated");
            }
            failures.saturating_add(1)
        }
    };
    shared.metrics.set_db_pending(changes.len());
    failures
}

#[cfg(test)]
mod tests {
    use super::*;

    fn save(endpoint: &str) -> StoreChange {
        let mut record = crate::store::tests::dialog(endpoint);
        record.conference = "c".to_owned();
        StoreChange::SaveDialog(record)
    }

    fn delete(endpoint: &str) -> StoreChange {
        StoreChange::DeleteDialog {
            endpoint: endpoint.to_owned(),
        }
    }

    #[test]
    fn what_never_reached_the_database_leaves_no_trace() {
        let mut changes = Changes::default();
        for n in 0..1000 {
            changes.push(save(&n.to_string()));
            changes.push(delete(&n.to_string()));
        }
        assert_eq!(changes.len(), 0);
    }

    #[test]
    fn what_is_under_way_is_deleted_afterwards() {
        let mut changes = Changes::default();
        changes.push(save("e"));
        assert_eq!(changes.take_batch(), [save("e")]);
        changes.push(delete("e"));
        changes.settle();
        assert_eq!(changes.take_batch(), [delete("e")]);
        changes.settle();
        assert!(changes.held.is_empty() && changes.len() == 0);
    }

    #[test]
    fn a_failed_batch_comes_back_and_the_newest_wins() {
        let mut changes = Changes::default();
        changes.push(save("gone"));
        changes.push(save("stays"));
        changes.take_batch();
        changes.push(delete("gone"));
        changes.give_back();
        assert_eq!(
            changes.take_batch(),
            [save("stays")],
            "a delete of what the database never had is no work"
        );
        changes.settle();
        changes.push(delete("stays"));
        changes.take_batch();
        changes.give_back();
        assert_eq!(changes.take_batch(), [delete("stays")]);
    }

    #[test]
    fn the_wait_doubles_and_is_bounded() {
        assert_eq!(wait_before(0), GATHER);
        assert_eq!(wait_before(1), BACK_OFF.0);
        assert_eq!(wait_before(2), BACK_OFF.0 * 2);
        assert_eq!(wait_before(u32::MAX), BACK_OFF.1);
    }
}
