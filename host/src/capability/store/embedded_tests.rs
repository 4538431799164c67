//! The embedded store against the conformance list, and what only a file can get wrong.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::backend::{Quota, StoreBackend};
use super::conformance::{conformance_tests, delete, put};
use super::embedded::{EmbeddedStore, OpenError, Options};

const ROOMY: Quota = Quota {
    bytes: 64 * 1024 * 1024,
    keys: 100_000,
};
const CHILD: &str = "BULKHEAD_TEST_STORE_CHILD";

fn fresh() -> (EmbeddedStore, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let options = Options {
        sweep_every: Duration::from_millis(50),
        ..Options::default()
    };
    (
        EmbeddedStore::open(&directory.path().join("store.redb"), options).unwrap(),
        directory,
    )
}

conformance_tests!(fresh);

#[tokio::test]
async fn what_was_acknowledged_is_there_after_reopening() {
    let (store, directory) = fresh();
    let revision = store.apply("s", ROOMY, vec![put("k", b"v")]).await.unwrap();
    drop(store);
    let store =
        EmbeddedStore::open(&directory.path().join("store.redb"), Options::default()).unwrap();
    assert_eq!(
        store.get("s", "k").await.unwrap().unwrap().revision,
        revision
    );
    assert_eq!(
        store.apply("s", ROOMY, vec![put("l", b"v")]).await.unwrap(),
        revision + 1
    );
}

#[tokio::test]
async fn a_second_opener_is_told_who_is_in_the_way() {
    let (_store, directory) = fresh();
    let second = EmbeddedStore::open(&directory.path().join("store.redb"), Options::default());
    assert!(matches!(second, Err(OpenError::InUse { .. })), "{second:?}");
}

#[tokio::test]
async fn a_file_that_is_no_store_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    std::fs::write(&path, [7; 10_000]).unwrap();
    let opened = EmbeddedStore::open(&path, Options::default());
    assert!(
        matches!(&opened, Err(OpenError::Unusable { path: named, .. }) if *named == path),
        "{opened:?}"
    );
}

#[tokio::test]
async fn the_file_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let (_store, directory) = fresh();
    let mode = std::fs::metadata(directory.path().join("store.redb"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn forgotten_deletions_make_the_history_incomplete() {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(
        &directory.path().join("store.redb"),
        Options {
            deletes_kept: 3,
            ..Options::default()
        },
    )
    .unwrap();
    for n in 0..5 {
        store
            .apply("s", ROOMY, vec![put(&format!("{n}"), b"")])
            .await
            .unwrap();
    }
    let end = store
        .apply(
            "s",
            ROOMY,
            (0..5).map(|n| delete(&format!("{n}"))).collect(),
        )
        .await
        .unwrap();
    assert!(!store.changes("s", 0, 10).await.unwrap().complete);
    let history = store.changes("s", end - 3, 10).await.unwrap();
    assert!(history.complete);
    assert_eq!(history.deletes, ["2", "3", "4"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_at_once_share_slow_commits() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options {
        commit_delay: Duration::from_millis(5),
        ..Options::default()
    };
    let store = EmbeddedStore::open(&directory.path().join("store.redb"), options).unwrap();
    let started = Instant::now();
    let keys: Vec<String> = (0..200).map(|n| format!("k{n}")).collect();
    let outcomes = futures::future::join_all(
        keys.iter()
            .map(|key| store.apply("s", ROOMY, vec![put(key, b"v")])),
    )
    .await;
    assert!(outcomes.iter().all(Result::is_ok));
    // One after another they would take at least a second.
    assert!(
        started.elapsed() < Duration::from_millis(500),
        "{:?}",
        started.elapsed()
    );
}

/// Not a test of its own: the process that `nothing_acknowledged_is_lost_by_kill` kills. It prints each key once acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_is_killed_while_writing() {
    let Ok(path) = std::env::var(CHILD) else {
        return;
    };
    let options = Options {
        commit_delay: Duration::from_millis(1),
        ..Options::default()
    };
    let store = EmbeddedStore::open(std::path::Path::new(&path), options).unwrap();
    let round = store.usage("s").await.unwrap().revision;
    futures::future::join_all((0..8).map(|writer| {
        let store = &store;
        async move {
            for n in 0..100_000 {
                let key = format!("{round}-{writer}-{n}");
                store
                    .apply(
                        "s",
                        ROOMY,
                        vec![put(&key, key.as_bytes()), put("last", key.as_bytes())],
                    )
                    .await
                    .unwrap();
                println!("acknowledged {key}");
            }
        }
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_by_kill() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let mut acknowledged = Vec::new();
    for round in 0..5u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "capability::store::embedded_tests::child_that_is_killed_while_writing",
                "--nocapture",
            ])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let before = acknowledged.len();
        for line in lines.map_while(Result::ok) {
            acknowledged.extend(
                line.split_once("acknowledged ")
                    .map(|(_, key)| key.to_owned()),
            );
            // What it still managed to say until the kill took effect counts as well.
            if acknowledged.len() - before > 100 + usize::try_from(round).unwrap() * 37 {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(acknowledged.len() - before > 100, "the child wrote");
        let store = EmbeddedStore::open(&path, Options::default()).unwrap();
        for key in &acknowledged {
            assert_eq!(
                store.get("s", key).await.unwrap().map(|entry| entry.value),
                Some(key.clone().into_bytes()),
                "{key}"
            );
        }
        let last = store.get("s", "last").await.unwrap().unwrap().value;
        assert!(
            store
                .get("s", std::str::from_utf8(&last).unwrap())
                .await
                .unwrap()
                .is_some(),
            "both changes of a batch or none"
        );
    }
}
