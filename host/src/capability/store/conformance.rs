//! What every store backend has to hold, as tests that know no backend.
//!
//! A backend's own tests call [`conformance_tests!`] with a function that opens a fresh, empty store and answers it with
//! whatever has to stay alive beside it.

use std::time::{Duration, Instant};

use super::backend::{
    Change, Entry, MAX_ANSWER_BYTES, MAX_CHANGES, MAX_KEY_BYTES, MAX_VALUE_BYTES, Precondition,
    Quota, StoreBackend, StoreError,
};

/// Makes one test of each promise below.
macro_rules! conformance_tests {
    ($open:expr; $($promise:ident),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                let (store, _alive) = $open();
                $crate::capability::store::conformance::$promise(&store).await;
            }
        )+
    };
    ($open:expr) => {
        conformance_tests! { $open;
            what_was_put_is_read_back, an_unknown_space_is_empty, spaces_do_not_see_each_other, a_batch_applies_whole_or_not_at_all,
            later_changes_of_a_batch_see_earlier_ones, only_one_of_two_swaps_of_a_revision_wins, absent_holds_for_missing_and_expired_keys,
            revisions_grow_and_are_never_reused, an_empty_batch_answers_the_present_revision, deleting_an_absent_key_changes_nothing,
            keys_and_values_beyond_the_limits_are_refused, the_byte_quota_is_exact, the_key_quota_is_exact, a_full_space_can_still_shrink,
            expired_keys_vanish_and_free_their_quota, a_new_put_takes_the_expiry_away, scans_are_in_byte_order_and_page_by_after,
            a_scan_stays_inside_its_prefix, large_answers_are_cut_but_never_empty, changes_tell_puts_and_deletes_in_order,
            changes_page_by_limit_without_gaps, a_revision_from_the_future_is_not_complete, callers_at_once_do_not_disturb_each_other,
        }
    };
}
pub(super) use conformance_tests;

const ROOMY: Quota = Quota {
    bytes: 64 * 1024 * 1024,
    keys: 100_000,
};

pub(super) fn put(key: &str, value: &[u8]) -> Change {
    Change {
        key: key.into(),
        value: Some(value.to_vec()),
        precondition: None,
        expires_in: None,
    }
}

pub(super) fn delete(key: &str) -> Change {
    Change {
        key: key.into(),
        value: None,
        precondition: None,
        expires_in: None,
    }
}

fn when(precondition: Precondition, change: Change) -> Change {
    Change {
        precondition: Some(precondition),
        ..change
    }
}

fn expiring(ms: u64, change: Change) -> Change {
    Change {
        expires_in: Some(ms),
        ..change
    }
}

fn keys(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.key.as_str()).collect()
}

pub(super) async fn what_was_put_is_read_back(store: &dyn StoreBackend) {
    let revision = store
        .apply("s", ROOMY, vec![put("a", b"1"), put("b", b"")])
        .await
        .unwrap();
    assert_eq!(
        store.get("s", "a").await.unwrap(),
        Some(Entry {
            key: "a".into(),
            value: b"1".to_vec(),
            revision: revision - 1
        })
    );
    assert_eq!(store.get("s", "b").await.unwrap().unwrap().value, b"");
    assert_eq!(store.get("s", "c").await.unwrap(), None);
}

pub(super) async fn an_unknown_space_is_empty(store: &dyn StoreBackend) {
    assert_eq!(store.get("nowhere", "a").await.unwrap(), None);
    assert!(
        store
            .scan("nowhere", "", None, 10)
            .await
            .unwrap()
            .is_empty()
    );
    let history = store.changes("nowhere", 0, 10).await.unwrap();
    assert!(
        history.complete
            && history.puts.is_empty()
            && history.deletes.is_empty()
            && history.revision == 0
    );
}

pub(super) async fn spaces_do_not_see_each_other(store: &dyn StoreBackend) {
    store
        .apply("one", ROOMY, vec![put("k", b"one")])
        .await
        .unwrap();
    store
        .apply("two", ROOMY, vec![put("k", b"two")])
        .await
        .unwrap();
    store.apply("two", ROOMY, vec![delete("k")]).await.unwrap();
    assert_eq!(store.get("one", "k").await.unwrap().unwrap().value, b"one");
    assert_eq!(store.scan("two", "", None, 10).await.unwrap(), vec![]);
    assert_eq!(store.usage("one").await.unwrap().keys, 1);
}

pub(super) async fn a_batch_applies_whole_or_not_at_all(store: &dyn StoreBackend) {
    store
        .apply("s", ROOMY, vec![put("old", b"x")])
        .await
        .unwrap();
    let batch = vec![
        put("new", b"1"),
        delete("old"),
        when(Precondition::Absent, put("old", b"2")),
        when(Precondition::Revision(77), put("z", b"")),
    ];
    assert_eq!(
        store.apply("s", ROOMY, batch).await,
        Err(StoreError::Conflict { key: "z".into() })
    );
    assert_eq!(keys(&store.scan("s", "", None, 10).await.unwrap()), ["old"]);
    assert_eq!(store.usage("s").await.unwrap().revision, 1);
}

pub(super) async fn later_changes_of_a_batch_see_earlier_ones(store: &dyn StoreBackend) {
    let batch = vec![
        when(Precondition::Absent, put("k", b"1")),
        delete("k"),
        when(Precondition::Absent, put("k", b"22")),
        put("k", b"333"),
    ];
    store.apply("s", ROOMY, batch).await.unwrap();
    assert_eq!(store.get("s", "k").await.unwrap().unwrap().value, b"333");
    let usage = store.usage("s").await.unwrap();
    assert_eq!((usage.keys, usage.bytes), (1, 4));
    let history = store.changes("s", 0, 10).await.unwrap();
    assert_eq!((keys(&history.puts), history.deletes.len()), (vec!["k"], 0));
}

pub(super) async fn only_one_of_two_swaps_of_a_revision_wins(store: &dyn StoreBackend) {
    let revision = store.apply("s", ROOMY, vec![put("k", b"0")]).await.unwrap();
    let swaps = (0..20u8).map(|n| {
        store.apply(
            "s",
            ROOMY,
            vec![when(Precondition::Revision(revision), put("k", &[n]))],
        )
    });
    let outcomes = futures::future::join_all(swaps).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
}

pub(super) async fn absent_holds_for_missing_and_expired_keys(store: &dyn StoreBackend) {
    store
        .apply("s", ROOMY, vec![expiring(30, put("lock", b"me"))])
        .await
        .unwrap();
    let grab = || vec![when(Precondition::Absent, put("lock", b"you"))];
    assert!(matches!(
        store.apply("s", ROOMY, grab()).await,
        Err(StoreError::Conflict { .. })
    ));
    tokio::time::sleep(Duration::from_millis(60)).await;
    store.apply("s", ROOMY, grab()).await.unwrap();
    assert_eq!(store.get("s", "lock").await.unwrap().unwrap().value, b"you");
}

pub(super) async fn revisions_grow_and_are_never_reused(store: &dyn StoreBackend) {
    let first = store.apply("s", ROOMY, vec![put("k", b"1")]).await.unwrap();
    let second = store.apply("s", ROOMY, vec![delete("k")]).await.unwrap();
    let third = store
        .apply("s", ROOMY, vec![put("k", b"1"), put("l", b"1")])
        .await
        .unwrap();
    assert!(first < second && second < third);
    let entries = store.scan("s", "", None, 10).await.unwrap();
    assert!(
        entries.iter().all(|entry| entry.revision > second)
            && entries[0].revision != entries[1].revision
    );
}

pub(super) async fn an_empty_batch_answers_the_present_revision(store: &dyn StoreBackend) {
    assert_eq!(store.apply("s", ROOMY, vec![]).await.unwrap(), 0);
    let revision = store.apply("s", ROOMY, vec![put("k", b"1")]).await.unwrap();
    assert_eq!(store.apply("s", ROOMY, vec![]).await.unwrap(), revision);
}

pub(super) async fn deleting_an_absent_key_changes_nothing(store: &dyn StoreBackend) {
    let revision = store.apply("s", ROOMY, vec![put("k", b"1")]).await.unwrap();
    assert_eq!(
        store
            .apply("s", ROOMY, vec![delete("other")])
            .await
            .unwrap(),
        revision
    );
    assert_eq!(
        store
            .changes("s", revision, 10)
            .await
            .unwrap()
            .deletes
            .len(),
        0
    );
}

pub(super) async fn keys_and_values_beyond_the_limits_are_refused(store: &dyn StoreBackend) {
    let longest = "k".repeat(MAX_KEY_BYTES);
    store
        .apply("s", ROOMY, vec![put(&longest, &vec![1; MAX_VALUE_BYTES])])
        .await
        .unwrap();
    for wrong in [
        put("", b""),
        put(&format!("{longest}k"), b""),
        put("k", &vec![1; MAX_VALUE_BYTES + 1]),
        delete(""),
    ] {
        assert!(matches!(
            store.apply("s", ROOMY, vec![wrong]).await,
            Err(StoreError::Size { .. })
        ));
    }
    let many = (0..=MAX_CHANGES)
        .map(|n| put(&format!("{n}"), b""))
        .collect();
    assert!(matches!(
        store.apply("s", ROOMY, many).await,
        Err(StoreError::Size { .. })
    ));
    assert!(matches!(
        store.get("s", "").await,
        Err(StoreError::Size { .. })
    ));
    assert_eq!(store.usage("s").await.unwrap().keys, 1);
}

pub(super) async fn the_byte_quota_is_exact(store: &dyn StoreBackend) {
    let quota = Quota {
        bytes: 10,
        keys: 100,
    };
    store
        .apply("s", quota, vec![put("a", b"1234"), put("b", b"1234")])
        .await
        .unwrap();
    assert!(matches!(
        store.apply("s", quota, vec![put("c", b"")]).await,
        Err(StoreError::Full { .. })
    ));
    assert!(matches!(
        store.apply("s", quota, vec![put("a", b"12345")]).await,
        Err(StoreError::Full { .. })
    ));
    store
        .apply("s", quota, vec![put("a", b"123"), put("c", b"")])
        .await
        .unwrap();
    assert_eq!(store.usage("s").await.unwrap().bytes, 10);
    store
        .apply("s", quota, vec![delete("b"), put("d", b"1234")])
        .await
        .unwrap();
}

pub(super) async fn the_key_quota_is_exact(store: &dyn StoreBackend) {
    let quota = Quota {
        bytes: 10_000,
        keys: 3,
    };
    store
        .apply(
            "s",
            quota,
            vec![put("a", b""), put("b", b""), put("c", b"")],
        )
        .await
        .unwrap();
    assert!(matches!(
        store.apply("s", quota, vec![put("d", b"")]).await,
        Err(StoreError::Full { .. })
    ));
    store
        .apply(
            "s",
            quota,
            vec![put("a", b"again"), delete("b"), put("d", b"")],
        )
        .await
        .unwrap();
    assert_eq!(store.usage("s").await.unwrap().keys, 3);
}

pub(super) async fn a_full_space_can_still_shrink(store: &dyn StoreBackend) {
    store
        .apply("s", ROOMY, vec![put("a", b"1234567890"), put("b", b"1")])
        .await
        .unwrap();
    let smaller = Quota { bytes: 5, keys: 1 };
    store
        .apply("s", smaller, vec![put("a", b"123")])
        .await
        .unwrap();
    store.apply("s", smaller, vec![delete("b")]).await.unwrap();
    assert!(matches!(
        store.apply("s", smaller, vec![put("a", b"1234567")]).await,
        Err(StoreError::Full { .. })
    ));
}

pub(super) async fn expired_keys_vanish_and_free_their_quota(store: &dyn StoreBackend) {
    let quota = Quota {
        bytes: 100,
        keys: 2,
    };
    let before = store
        .apply(
            "s",
            quota,
            vec![expiring(40, put("gone", b"1")), put("stays", b"2")],
        )
        .await
        .unwrap();
    assert!(store.get("s", "gone").await.unwrap().is_some());
    tokio::time::sleep(Duration::from_millis(80)).await;
    assert_eq!(store.get("s", "gone").await.unwrap(), None);
    assert_eq!(
        keys(&store.scan("s", "", None, 10).await.unwrap()),
        ["stays"]
    );
    store
        .apply("s", quota, vec![put("next", b"3")])
        .await
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while store.changes("s", before, 10).await.unwrap().deletes != ["gone"] {
        assert!(
            Instant::now() < deadline,
            "the expiry is told as a deletion"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(store.usage("s").await.unwrap().keys, 2);
}

pub(super) async fn a_new_put_takes_the_expiry_away(store: &dyn StoreBackend) {
    store
        .apply("s", ROOMY, vec![expiring(40, put("k", b"1"))])
        .await
        .unwrap();
    store.apply("s", ROOMY, vec![put("k", b"2")]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(80)).await;
    store
        .apply("s", ROOMY, vec![put("other", b"")])
        .await
        .unwrap();
    assert_eq!(store.get("s", "k").await.unwrap().unwrap().value, b"2");
}

pub(super) async fn scans_are_in_byte_order_and_page_by_after(store: &dyn StoreBackend) {
    let all = ["A", "a", "a/1", "a/2", "b", "é", "\u{1F600}"];
    store
        .apply(
            "s",
            ROOMY,
            all.iter().rev().map(|key| put(key, b"")).collect(),
        )
        .await
        .unwrap();
    let mut seen = Vec::new();
    let mut after: Option<String> = None;
    for _ in 0..10 {
        let page = store.scan("s", "", after.as_deref(), 3).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.key.clone());
        seen.extend(page.into_iter().map(|entry| entry.key));
    }
    assert_eq!(seen, all);
}

pub(super) async fn a_scan_stays_inside_its_prefix(store: &dyn StoreBackend) {
    store
        .apply(
            "s",
            ROOMY,
            vec![
                put("a", b""),
                put("b/1", b""),
                put("b/2", b""),
                put("c", b""),
            ],
        )
        .await
        .unwrap();
    assert_eq!(
        keys(&store.scan("s", "b/", None, 10).await.unwrap()),
        ["b/1", "b/2"]
    );
    assert_eq!(
        keys(&store.scan("s", "b/", Some("a"), 10).await.unwrap()),
        ["b/1", "b/2"]
    );
    assert_eq!(
        keys(&store.scan("s", "b/", Some("b/1"), 10).await.unwrap()),
        ["b/2"]
    );
    assert!(
        store
            .scan("s", "b/", Some("c"), 10)
            .await
            .unwrap()
            .is_empty()
    );
}

pub(super) async fn large_answers_are_cut_but_never_empty(store: &dyn StoreBackend) {
    for n in 0..6 {
        store
            .apply(
                "s",
                ROOMY,
                vec![put(&format!("k{n}"), &vec![7; MAX_VALUE_BYTES])],
            )
            .await
            .unwrap();
    }
    let page = store.scan("s", "", None, 1000).await.unwrap();
    assert!(!page.is_empty() && page.len() <= MAX_ANSWER_BYTES / MAX_VALUE_BYTES);
    let history = store.changes("s", 0, 1000).await.unwrap();
    let rest = store.changes("s", history.revision, 1000).await.unwrap();
    assert_eq!(history.puts.len() + rest.puts.len(), 6);
}

pub(super) async fn changes_tell_puts_and_deletes_in_order(store: &dyn StoreBackend) {
    let start = store
        .apply(
            "s",
            ROOMY,
            vec![put("a", b"1"), put("b", b"1"), put("c", b"1")],
        )
        .await
        .unwrap();
    store
        .apply(
            "s",
            ROOMY,
            vec![put("b", b"2"), delete("a"), delete("c"), put("c", b"3")],
        )
        .await
        .unwrap();
    let history = store.changes("s", start, 10).await.unwrap();
    assert_eq!(keys(&history.puts), ["b", "c"]);
    assert_eq!(history.puts[1].value, b"3");
    assert_eq!(history.deletes, ["a"]);
    assert!(history.complete);
    assert!(
        store
            .changes("s", history.revision, 10)
            .await
            .unwrap()
            .puts
            .is_empty()
    );
}

pub(super) async fn changes_page_by_limit_without_gaps(store: &dyn StoreBackend) {
    let mut expected = std::collections::BTreeMap::new();
    for n in 0..40u8 {
        let key = format!("{}", n % 7);
        let change = if n % 3 == 0 {
            delete(&key)
        } else {
            put(&key, &[n])
        };
        expected.insert(key, change.value.clone());
        store.apply("s", ROOMY, vec![change]).await.unwrap();
    }
    let mut replica = std::collections::BTreeMap::new();
    let mut since = 0;
    for _ in 0..100 {
        let page = store.changes("s", since, 2).await.unwrap();
        assert!(page.complete);
        if page.puts.is_empty() && page.deletes.is_empty() && page.revision == since {
            break;
        }
        since = page.revision;
        replica.extend(page.deletes.into_iter().map(|key| (key, None)));
        replica.extend(
            page.puts
                .into_iter()
                .map(|entry| (entry.key, Some(entry.value))),
        );
    }
    expected.retain(|_, value| value.is_some());
    replica.retain(|_, value| value.is_some());
    assert_eq!(replica, expected);
}

pub(super) async fn a_revision_from_the_future_is_not_complete(store: &dyn StoreBackend) {
    store.apply("s", ROOMY, vec![put("a", b"1")]).await.unwrap();
    assert!(!store.changes("s", 1_000, 10).await.unwrap().complete);
}

pub(super) async fn callers_at_once_do_not_disturb_each_other(store: &dyn StoreBackend) {
    let quota = Quota {
        bytes: 1_000_000,
        keys: 60,
    };
    let callers = (0..100u32).map(|n| async move {
        let space = if n % 2 == 0 { "even" } else { "odd" };
        // Every fifth asks for the impossible, in the same commits as the others.
        let condition = if n % 5 == 0 {
            Precondition::Revision(u64::MAX)
        } else {
            Precondition::Absent
        };
        store
            .apply(
                space,
                quota,
                vec![when(condition, put(&format!("k{n}"), b"v"))],
            )
            .await
    });
    let outcomes = futures::future::join_all(callers).await;
    for (n, outcome) in outcomes.iter().enumerate() {
        assert_eq!(outcome.is_err(), n % 5 == 0, "caller {n}: {outcome:?}");
    }
    assert_eq!(
        store.usage("even").await.unwrap().keys + store.usage("odd").await.unwrap().keys,
        80
    );
}
