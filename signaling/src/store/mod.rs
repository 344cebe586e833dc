//! The conferencing store: what survives a restart.
//!
//! Invariants: the store is not in the call path (reads happen at start only, writes are behind);
//! every database runs the same statements with `$n` placeholders over BIGINT and TEXT; the contract
//! suite in `store/tests.rs` is written once for all databases. What differs between databases is how
//! they are opened: one module each.

mod behind;
mod migrations;
mod sqlite;

use signaling_core::effect::StoreChange;
use signaling_core::record::{ConferenceRecord, DialogRecord};
use signaling_core::time::WallTime;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Connection as _, Row as _};

use crate::config::StoreUrl;

pub use behind::WriteBehind;

/// Why the store does not work.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory or file cannot be used; one line with the remedy.
    #[error("database {path}: {reason}; {remedy}")]
    Open {
        /// File.
        path: String,
        /// What is wrong.
        reason: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The schema is of a later program.
    #[error(
        "database {path}: its schema has version {found}, this program knows {known}; start the newer program or use another file"
    )]
    TooNew {
        /// File.
        path: String,
        /// Version found.
        found: i64,
        /// Version known.
        known: i64,
    },
    /// A statement failed.
    #[error("database: {0}")]
    Statement(#[from] sqlx::Error),
}

/// Everything in the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// Conferences by id.
    pub conferences: Vec<ConferenceRecord>,
    /// Dialogs by time of joining.
    pub dialogs: Vec<DialogRecord>,
}

/// An open store: one connection, because one task writes.
#[derive(Debug)]
pub struct Store {
    connection: AnyConnection,
    path: String,
}

impl Store {
    /// Opens the store, creates it when it is absent, brings its schema up to date and checks that
    /// it takes writes.
    ///
    /// # Errors
    /// [`StoreError`] with path and remedy.
    pub async fn open(url: &StoreUrl) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let (connection, path) = match url {
            StoreUrl::SqliteFile(path) => (sqlite::open_file(path).await?, path.display().to_string()),
            StoreUrl::SqliteMemory => (sqlite::open_memory().await?, ":memory:".to_owned()),
        };
        let mut store = Self { connection, path };
        store.migrate().await?;
        Ok(store)
    }

    async fn migrate(&mut self) -> Result<(), StoreError> {
        let path = self.path.clone();
        let mut transaction = self
            .connection
            .begin()
            .await
            .map_err(|error| unusable(&path, &error))?;
        let known = i64::try_from(migrations::STEPS.len()).unwrap_or(i64::MAX);
        let run = async {
            sqlx::query(migrations::VERSION_TABLE)
                .execute(&mut *transaction)
                .await?;
            let row = sqlx::query("SELECT COALESCE(MAX(version), 0) AS version FROM schema_version")
                .fetch_one(&mut *transaction)
                .await?;
            let found: i64 = row.try_get("version")?;
            for (version, step) in (1_i64..)
                .zip(migrations::STEPS)
                .filter(|(version, _)| *version > found)
            {
                for statement in *step {
                    sqlx::query(*statement).execute(&mut *transaction).await?;
                }
                sqlx::query("INSERT INTO schema_version (version) VALUES ($1)")
                    .bind(version)
                    .execute(&mut *transaction)
                    .await?;
            }
            Ok::<i64, sqlx::Error>(found)
        };
        let found = run.await.map_err(|error| unusable(&path, &error))?;
        if found > known {
            return Err(StoreError::TooNew { path, found, known });
        }
        transaction
            .commit()
            .await
            .map_err(|error| unusable(&path, &error))
    }

    /// Reads everything.
    ///
    /// # Errors
    /// A statement failed, or a row holds what no version of this program wrote.
    pub async fn load(&mut self) -> Result<Contents, StoreError> {
        let conferences = sqlx::query(SELECT_CONFERENCES)
            .fetch_all(&mut self.connection)
            .await?;
        let dialogs = sqlx::query(SELECT_DIALOGS)
            .fetch_all(&mut self.connection)
            .await?;
        Ok(Contents {
            conferences: conferences.iter().map(conference_of).collect::<Result<_, _>>()?,
            dialogs: dialogs.iter().map(dialog_of).collect::<Result<_, _>>()?,
        })
    }

    /// Makes changes, all or none.
    ///
    /// # Errors
    /// A statement failed; nothing was changed.
    pub async fn apply(&mut self, changes: &[StoreChange]) -> Result<(), StoreError> {
        let mut transaction = self.connection.begin().await?;
        for change in changes {
            apply_one(&mut transaction, change).await?;
        }
        Ok(transaction.commit().await?)
    }

    /// Closes the store cleanly.
    ///
    /// # Errors
    /// The database said so; everything applied before is safe all the same.
    pub async fn close(self) -> Result<(), StoreError> {
        Ok(self.connection.close().await?)
    }
}

fn unusable(path: &str, error: &sqlx::Error) -> StoreError {
    StoreError::Open {
        path: path.to_owned(),
        reason: one_line(error),
        remedy: sqlite::WRITE_REMEDY,
    }
}

fn one_line(error: &sqlx::Error) -> String {
    error.to_string().lines().collect::<Vec<_>>().join(" ")
}

async fn apply_one(connection: &mut AnyConnection, change: &StoreChange) -> Result<(), sqlx::Error> {
    let query = match change {
        StoreChange::SaveConference(record) => sqlx::query(SAVE_CONFERENCE)
            .bind(&record.conference)
            .bind(number(record.epoch))
            .bind(i64::from(record.locked))
            .bind(&record.mixer)
            .bind(number(record.activated.0)),
        StoreChange::DeleteConference { conference } => {
            sqlx::query("DELETE FROM conference WHERE conference = $1").bind(conference)
        }
        StoreChange::SaveDialog(record) => sqlx::query(SAVE_DIALOG)
            .bind(&record.endpoint)
            .bind(&record.conference)
            .bind(&record.call_id)
            .bind(&record.local_tag)
            .bind(&record.remote_tag)
            .bind(&record.local_uri)
            .bind(&record.remote_uri)
            .bind(&record.remote_target)
            .bind(&record.route_set)
            .bind(i64::from(record.local_cseq))
            .bind(i64::from(record.remote_cseq))
            .bind(&record.flow)
            .bind(&record.local_sdp)
            .bind(&record.remote_sdp)
            .bind(i64::from(record.muted))
            .bind(number(record.joined.0)),
        StoreChange::DeleteDialog { endpoint } => {
            sqlx::query("DELETE FROM dialog WHERE endpoint = $1").bind(endpoint)
        }
    };
    query.execute(connection).await.map(|_| ())
}

fn conference_of(row: &AnyRow) -> Result<ConferenceRecord, sqlx::Error> {
    Ok(ConferenceRecord {
        conference: row.try_get("conference")?,
        epoch: unsigned(row, "epoch")?,
        locked: unsigned(row, "locked")? != 0,
        mixer: row.try_get("mixer")?,
        activated: WallTime(unsigned(row, "activated")?),
    })
}

fn dialog_of(row: &AnyRow) -> Result<DialogRecord, sqlx::Error> {
    Ok(DialogRecord {
        endpoint: row.try_get("endpoint")?,
        conference: row.try_get("conference")?,
        call_id: row.try_get("call_id")?,
        local_tag: row.try_get("local_tag")?,
        remote_tag: row.try_get("remote_tag")?,
        local_uri: row.try_get("local_uri")?,
        remote_uri: row.try_get("remote_uri")?,
        remote_target: row.try_get("remote_target")?,
        route_set: row.try_get("route_set")?,
        local_cseq: sequence(row, "local_cseq")?,
        remote_cseq: sequence(row, "remote_cseq")?,
        flow: row.try_get("flow")?,
        local_sdp: row.try_get("local_sdp")?,
        remote_sdp: row.try_get("remote_sdp")?,
        muted: unsigned(row, "muted")? != 0,
        joined: WallTime(unsigned(row, "joined")?),
    })
}

/// Epochs and times stay far below the sign bit.
fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(row: &AnyRow, column: &'static str) -> Result<u64, sqlx::Error> {
    let value: i64 = row.try_get(column)?;
    u64::try_from(value).map_err(|error| sqlx::Error::ColumnDecode {
        index: column.to_owned(),
        source: error.into(),
    })
}

fn sequence(row: &AnyRow, column: &'static str) -> Result<u32, sqlx::Error> {
    let value: i64 = row.try_get(column)?;
    u32::try_from(value).map_err(|error| sqlx::Error::ColumnDecode {
        index: column.to_owned(),
        source: error.into(),
    })
}

const SELECT_CONFERENCES: &str =
    "SELECT conference, epoch, locked, mixer, activated FROM conference ORDER BY conference";

const SELECT_DIALOGS: &str = "SELECT endpoint, conference, call_id, local_tag, remote_tag, local_uri, remote_uri, \
     remote_target, route_set, local_cseq, remote_cseq, flow, local_sdp, remote_sdp, muted, joined \
     FROM dialog ORDER BY joined, endpoint";

const SAVE_CONFERENCE: &str = "INSERT INTO conference (conference, epoch, locked, mixer, activated) \
     VALUES ($1, $2, $3, $4, $5) \
     ON CONFLICT (conference) DO UPDATE SET epoch = excluded.epoch, locked = excluded.locked, \
     mixer = excluded.mixer, activated = excluded.activated";

const SAVE_DIALOG: &str = "INSERT INTO dialog (endpoint, conference, call_id, local_tag, remote_tag, local_uri, \
     remote_uri, remote_target, route_set, local_cseq, remote_cseq, flow, local_sdp, remote_sdp, muted, joined) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16) \
     ON CONFLICT (endpoint) DO UPDATE SET conference = excluded.conference, call_id = excluded.call_id, \
     local_tag = excluded.local_tag, remote_tag = excluded.remote_tag, local_uri = excluded.local_uri, \
     remote_uri = excluded.remote_uri, remote_target = excluded.remote_target, route_set = excluded.route_set, \
     local_cseq = excluded.local_cseq, remote_cseq = excluded.remote_cseq, flow = excluded.flow, \
     local_sdp = excluded.local_sdp, remote_sdp = excluded.remote_sdp, muted = excluded.muted, \
     joined = excluded.joined";

#[cfg(test)]
mod tests;
