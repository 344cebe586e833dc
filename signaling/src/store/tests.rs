//! The contract of every database. Each check takes an open, empty store; a database joins by one
//! more line in `every_database`.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;

use super::*;
use crate::metrics::Metrics;
use crate::test_dir::TestDir;

pub(super) fn conference(id: &str) -> ConferenceRecord {
    ConferenceRecord {
        conference: id.to_owned(),
        epoch: 3,
        locked: true,
        mixer: "http://127.0.0.1:8090".to_owned(),
        activated: WallTime(1_800_000_000_123),
    }
}

pub(super) fn dialog(endpoint: &str) -> DialogRecord {
    DialogRecord {
        endpoint: endpoint.to_owned(),
        conference: "room".to_owned(),
        call_id: "a'b\"; DROP TABLE dialog; --".to_owned(),
        local_tag: "l".to_owned(),
        remote_tag: "r".to_owned(),
        local_uri: "<sip:conf-room@localhost>".to_owned(),
        remote_uri: "\"Zoë ✓\" <sip:zoe@example.com>".to_owned(),
        remote_target: "sip:zoe@192.0.2.1:5062;transport=tcp".to_owned(),
        route_set: String::new(),
        local_cseq: u32::MAX,
        remote_cseq: 102,
        flow: "udp 127.0.0.1:5060 127.0.0.1:5062".to_owned(),
        local_sdp: "v=0\r\n".to_owned(),
        remote_sdp: "v=0\r\nm=audio 1 RTP/AVP 0\r\n".to_owned(),
        muted: true,
        joined: WallTime(1_800_000_000_456),
    }
}

async fn keeps_what_it_is_given(store: &mut Store) {
    assert_eq!(store.load().await.unwrap(), Contents::default());
    let mut changed = conference("b");
    changed.locked = false;
    let changes = [
        StoreChange::SaveConference(conference("b")),
        StoreChange::SaveConference(conference("a")),
        StoreChange::SaveDialog(dialog("e2")),
        StoreChange::SaveDialog(dialog("e1")),
        StoreChange::SaveConference(changed.clone()),
    ];
    store.apply(&changes).await.unwrap();
    let contents = store.load().await.unwrap();
    assert_eq!(contents.conferences, [conference("a"), changed]);
    assert_eq!(contents.dialogs, [dialog("e1"), dialog("e2")]);
}

async fn replaces_and_deletes(store: &mut Store) {
    let mut moved = dialog("e1");
    moved.conference = "other".to_owned();
    moved.muted = false;
    let gone = |endpoint: &str| StoreChange::DeleteDialog {
        endpoint: endpoint.to_owned(),
    };
    store
        .apply(&[
            StoreChange::SaveDialog(dialog("e1")),
            StoreChange::SaveDialog(moved.clone()),
        ])
        .await
        .unwrap();
    assert_eq!(store.load().await.unwrap().dialogs, [moved]);
    let end = StoreChange::DeleteConference {
        conference: "never".to_owned(),
    };
    store
        .apply(&[gone("e1"), gone("e1"), gone("never"), end])
        .await
        .unwrap();
    assert_eq!(store.load().await.unwrap(), Contents::default());
}

async fn changes_all_or_nothing(store: &mut Store) {
    sqlx::query("DROP TABLE dialog")
        .execute(&mut store.connection)
        .await
        .unwrap();
    let changes = [
        StoreChange::SaveConference(conference("a")),
        StoreChange::SaveDialog(dialog("e")),
    ];
    store.apply(&changes).await.expect_err("the table is gone");
    let row = sqlx::query("SELECT COUNT(*) AS n FROM conference")
        .fetch_one(&mut store.connection)
        .await
        .unwrap();
    assert_eq!(row.try_get::<i64, _>("n").unwrap(), 0);
}

/// One fresh store per database and check.
async fn every_database(name: &str) -> Vec<(Store, Option<TestDir>)> {
    let dir = TestDir::new(name);
    let file = StoreUrl::SqliteFile(dir.path().join("a dir/with %20 and ?").join("x.db"));
    vec![
        (Store::open(&StoreUrl::SqliteMemory).await.unwrap(), None),
        (Store::open(&file).await.unwrap(), Some(dir)),
    ]
}

#[tokio::test]
async fn every_database_keeps_what_it_is_given() {
    for (mut store, _dir) in every_database("store-keeps").await {
        keeps_what_it_is_given(&mut store).await;
    }
}

#[tokio::test]
async fn every_database_replaces_and_deletes() {
    for (mut store, _dir) in every_database("store-replaces").await {
        replaces_and_deletes(&mut store).await;
    }
}

#[tokio::test]
async fn every_database_changes_all_or_nothing() {
    for (mut store, _dir) in every_database("store-atomic").await {
        changes_all_or_nothing(&mut store).await;
    }
}

fn file(dir: &TestDir) -> (PathBuf, StoreUrl) {
    let path = dir.path().join("state.db");
    (path.clone(), StoreUrl::SqliteFile(path))
}

#[tokio::test]
async fn a_file_survives_and_a_later_schema_is_refused() {
    let dir = TestDir::new("store-survives");
    let (path, url) = file(&dir);
    let mut store = Store::open(&url).await.unwrap();
    store
        .apply(&[StoreChange::SaveConference(conference("a"))])
        .await
        .unwrap();
    // Not closed: as after kill -9.
    std::mem::forget(store);
    let mut store = Store::open(&url).await.unwrap();
    assert_eq!(store.load().await.unwrap().conferences, [conference("a")]);
    sqlx::query("INSERT INTO schema_version (version) VALUES (99)")
        .execute(&mut store.connection)
        .await
        .unwrap();
    store.close().await.unwrap();
    let error = Store::open(&url).await.expect_err("too new").to_string();
    assert!(
        error.contains(&path.display().to_string()) && error.contains("version 99"),
        "{error}"
    );
}

#[tokio::test]
async fn a_file_is_its_owners_alone_and_keeps_nothing_of_a_call_that_ended() {
    use std::os::unix::fs::PermissionsExt as _;

    let dir = TestDir::new("store-secret");
    let (path, url) = file(&dir);
    let mut store = Store::open(&url).await.unwrap();
    let secret = "inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz";
    let mut record = dialog("e");
    record.remote_sdp += &format!("a=crypto:1 AES_CM_128_HMAC_SHA1_80 {secret}\r\n");
    store.apply(&[StoreChange::SaveDialog(record)]).await.unwrap();
    for entry in std::fs::read_dir(path.parent().unwrap()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{:?} {mode:o}", entry.path());
    }
    let endpoint = "e".to_owned();
    store
        .apply(&[StoreChange::DeleteDialog { endpoint }])
        .await
        .unwrap();
    store.close().await.unwrap();
    let bytes = std::fs::read(path).unwrap();
    let holds = |text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(holds("CREATE TABLE dialog") && !holds(secret));
}

#[tokio::test]
async fn what_cannot_be_opened_is_named_with_a_remedy() {
    let dir = TestDir::new("store-refused");
    let (path, url) = file(&dir);
    std::fs::write(&path, vec![b'x'; 8192]).unwrap();
    let below_a_file = StoreUrl::SqliteFile(path.join("below/state.db"));
    let a_directory = StoreUrl::SqliteFile(dir.path().to_owned());
    for url in [url, below_a_file, a_directory] {
        let error = Store::open(&url).await.expect_err("unusable").to_string();
        assert!(error.contains(&dir.path().display().to_string()), "{error}");
        assert!(
            error.contains("set [store] url") && !error.contains('\n'),
            "{error}"
        );
    }
}

#[tokio::test]
async fn writes_go_behind_and_survive_a_broken_database() {
    let dir = TestDir::new("store-behind");
    let (_, url) = file(&dir);
    let mut blocker = Store::open(&url).await.unwrap();
    let mut store = Store::open(&url).await.unwrap();
    let contents = store.load().await.unwrap();
    let metrics = Arc::new(Metrics::default());
    let (stop, stopped) = watch::channel(false);
    let (behind, task) = WriteBehind::start(store, &contents, Arc::clone(&metrics), stopped);
    // Another writer holds the database for longer than the busy time.
    sqlx::query("BEGIN IMMEDIATE")
        .execute(&mut blocker.connection)
        .await
        .unwrap();
    for n in 0..50 {
        behind.push(StoreChange::SaveDialog(dialog(&n.to_string())));
    }
    while metrics.db_is_up() {
        tokio::time::timeout(std::time::Duration::from_millis(10), std::future::pending::<()>())
            .await
            .unwrap_err();
    }
    behind.push(StoreChange::DeleteDialog {
        endpoint: "7".to_owned(),
    });
    sqlx::query("ROLLBACK")
        .execute(&mut blocker.connection)
        .await
        .unwrap();
    stop.send(true).unwrap();
    task.await.unwrap();
    assert!(metrics.db_is_up());
    let kept = blocker.load().await.unwrap().dialogs;
    assert_eq!(kept.len(), 49);
    assert!(kept.iter().all(|record| record.endpoint != "7"));
}
