//! Opening SQLite.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use sqlx::{AnyConnection, Connection as _, Executor as _};

use super::{StoreError, one_line};

/// Remedy for everything that keeps us from writing.
pub(super) const WRITE_REMEDY: &str = "make the file and its directory writable for this user with room on the disk, or set [store] url to another file";

/// Opens or creates a file and its directory.
pub(super) async fn open_file(path: &Path) -> Result<AnyConnection, StoreError> {
    let failed = |reason: String| StoreError::Open {
        path: path.display().to_string(),
        reason,
        remedy: WRITE_REMEDY,
    };
    let absolute = std::path::absolute(path).map_err(|error| failed(error.to_string()))?;
    if let Some(directory) = absolute.parent() {
        std::fs::create_dir_all(directory).map_err(|error| {
            failed(format!(
                "directory {} cannot be created: {error}",
                directory.display()
            ))
        })?;
    }
    // SDP with keys of SRTP is in it: a new file is its owner's alone, and SQLite gives the files beside it the same mode.
    let new = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&absolute);
    if let Err(error) = new
        && error.kind() != ErrorKind::AlreadyExists
    {
        return Err(failed(error.to_string()));
    }
    let url = format!(
        "sqlite://{}?mode=rwc",
        percent_encode(&absolute.display().to_string())
    );
    let mut connection = AnyConnection::connect(&url)
        .await
        .map_err(|error| failed(one_line(&error)))?;
    // WAL with NORMAL: what was committed survives the death of the process; only the loss of power
    // may cost the last few transactions, and never the integrity of the file.
    for pragma in [
        "PRAGMA journal_mode = WAL",
        "PRAGMA synchronous = NORMAL",
        "PRAGMA busy_timeout = 500",
        // What a call that has ended left is overwritten, keys included.
        "PRAGMA secure_delete = ON",
    ] {
        connection
            .execute(pragma)
            .await
            .map_err(|error| failed(one_line(&error)))?;
    }
    Ok(connection)
}

/// Opens an empty database in memory, shared with nobody.
pub(super) async fn open_memory() -> Result<AnyConnection, StoreError> {
    Ok(AnyConnection::connect("sqlite::memory:").await?)
}

/// A path as part of a URL.
fn percent_encode(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}
