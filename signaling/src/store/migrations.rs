//! Steps of the schema, each applied once, in order, in its own transaction.
//!
//! Only BIGINT and TEXT columns (booleans are 0 and 1, ids are text), so that the same statements run
//! on every database.

/// One statement list per version; version numbers count from 1. A step that has shipped is never
/// changed, only followed.
pub(super) const STEPS: &[&[&str]] = &[&[
    "CREATE TABLE conference (
        conference TEXT PRIMARY KEY NOT NULL,
        epoch BIGINT NOT NULL,
        locked BIGINT NOT NULL,
        mixer TEXT NOT NULL,
        activated BIGINT NOT NULL
    )",
    "CREATE TABLE dialog (
        endpoint TEXT PRIMARY KEY NOT NULL,
        conference TEXT NOT NULL,
        call_id TEXT NOT NULL,
        local_tag TEXT NOT NULL,
        remote_tag TEXT NOT NULL,
        local_uri TEXT NOT NULL,
        remote_uri TEXT NOT NULL,
        remote_target TEXT NOT NULL,
        route_set TEXT NOT NULL,
        local_cseq BIGINT NOT NULL,
        remote_cseq BIGINT NOT NULL,
        flow TEXT NOT NULL,
        local_sdp TEXT NOT NULL,
        remote_sdp TEXT NOT NULL,
        muted BIGINT NOT NULL,
        joined BIGINT NOT NULL
    )",
]];

/// Holds the version that is applied.
pub(super) const VERSION_TABLE: &str = "CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)";
