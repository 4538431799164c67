//! The `store` capability: durable keys and values, in spaces that policies name.
//!
//! It refuses access to a space that the plugin's policy does not grant, writes into one granted for reading, and more bytes or keys
//! than granted.
//!
//! The one idea: a plugin knows slots, the backend knows spaces. Space `own` is made of the plugin's name and the slot, so no spelling
//! of a slot reaches another plugin's keys; `shared:NAME` is the same for all whose policy names it.

pub mod backend;
pub mod bell;
pub mod embedded;
mod writer;

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod embedded_tests;

use std::sync::Arc;

use backend::{Change, Entry, Precondition, Quota, StoreBackend, StoreError};

use crate::capability::throttle::Throttle;
use crate::grant::effective::Space;
use crate::grant::{Action, Guard};
use crate::sandbox::bindings::imports::store as contract;

/// The capability itself; one a host, cheap to clone.
#[derive(Clone)]
pub struct Store {
    backend: Arc<dyn StoreBackend>,
    log: Arc<Throttle>,
    bell: Arc<bell::Bell>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Store")
    }
}

impl Store {
    /// On this backend.
    pub fn new(backend: Arc<dyn StoreBackend>) -> Self {
        Store {
            backend,
            log: Arc::default(),
            bell: Arc::default(),
        }
    }

    /// Who changed what, for those who follow it.
    #[must_use]
    pub fn bell(&self) -> &Arc<bell::Bell> {
        &self.bell
    }

    /// The entry of a key.
    pub async fn get(
        &self,
        guard: &Guard,
        slot: &str,
        key: &str,
    ) -> Result<Option<contract::Entry>, contract::Error> {
        let (space, _) = granted(guard, slot, false)?;
        Ok(self
            .backend
            .get(&space, key)
            .await
            .map_err(|error| self.tell(guard, slot, error))?
            .map(entry))
    }

    /// Entries by prefix. An answer may be shorter than `limit` when values are large; only an empty one is the end.
    pub async fn scan(
        &self,
        guard: &Guard,
        slot: &str,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<contract::Entry>, contract::Error> {
        let (space, _) = granted(guard, slot, false)?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let found = self
            .backend
            .scan(&space, prefix, after, limit)
            .await
            .map_err(|error| self.tell(guard, slot, error))?;
        Ok(found.into_iter().map(entry).collect())
    }

    /// All changes or none, durable on return.
    pub async fn apply(
        &self,
        guard: &Guard,
        slot: &str,
        changes: Vec<contract::Change>,
    ) -> Result<u64, contract::Error> {
        self.apply_by(guard, slot, changes, 0).await
    }

    /// The same, told to all who follow the space but the set of instances `by`.
    pub async fn apply_by(
        &self,
        guard: &Guard,
        slot: &str,
        changes: Vec<contract::Change>,
        by: u64,
    ) -> Result<u64, contract::Error> {
        let (space, quota) = granted(guard, slot, true)?;
        let changes = changes.into_iter().map(change).collect();
        let revision = self
            .backend
            .apply(&space, quota, changes)
            .await
            .map_err(|error| self.tell(guard, slot, error))?;
        self.bell.ring(&space, by);
        Ok(revision)
    }

    /// What changed after a revision.
    pub async fn changes(
        &self,
        guard: &Guard,
        slot: &str,
        since: u64,
        limit: u32,
    ) -> Result<contract::History, contract::Error> {
        let (space, _) = granted(guard, slot, false)?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let history = self
            .backend
            .changes(&space, since, limit)
            .await
            .map_err(|error| self.tell(guard, slot, error))?;
        Ok(contract::History {
            puts: history.puts.into_iter().map(entry).collect(),
            deletes: history.deletes,
            revision: history.revision,
            complete: history.complete,
        })
    }

    /// In the contract's words; what the operator can mend is told to the operator as well.
    fn tell(&self, guard: &Guard, slot: &str, error: StoreError) -> contract::Error {
        let plugin = guard.plugin();
        match error {
            StoreError::Conflict { key } => contract::Error::Conflict(key),
            StoreError::Size { .. } => contract::Error::TooLarge,
            StoreError::Full { usage, quota } => {
                if let Some(suppressed) = self.log.pass(plugin) {
                    tracing::warn!(target: "store", plugin, slot, bytes = usage.bytes, keys = usage.keys, quota_bytes = quota.bytes, quota_keys = quota.keys, suppressed, "a plugin's store is full");
                }
                contract::Error::Full
            }
            StoreError::Failed { reason } => {
                if let Some(suppressed) = self.log.pass(plugin) {
                    tracing::error!(target: "store", plugin, slot, reason, suppressed, "the store failed");
                }
                contract::Error::Failed(reason)
            }
        }
    }
}

fn granted(guard: &Guard, slot: &str, write: bool) -> Result<(String, Quota), contract::Error> {
    guard
        .decide(&Action::Store { slot, write })
        .check()
        .map_err(|denial| contract::Error::Denied(denial.to_string()))?;
    let effective = guard.effective();
    let grant = effective
        .store
        .get(slot)
        .ok_or_else(|| contract::Error::Denied(format!("store {slot:?} is no longer granted")))?;
    Ok((
        space(guard.plugin(), slot, &grant.space),
        Quota {
            bytes: grant.bytes,
            keys: grant.keys,
        },
    ))
}

/// The backend's name of what a plugin calls a slot.
#[must_use]
pub fn space(plugin: &str, slot: &str, space: &Space) -> String {
    match space {
        Space::Own => format!("own/{plugin}/{slot}"),
        Space::Shared(name) => format!("shared/{name}"),
    }
}

fn entry(entry: Entry) -> contract::Entry {
    contract::Entry {
        key: entry.key,
        value: entry.value,
        revision: entry.revision,
    }
}

fn change(change: contract::Change) -> Change {
    let precondition = change.precondition.map(|precondition| match precondition {
        contract::Precondition::Absent => Precondition::Absent,
        contract::Precondition::Revision(revision) => Precondition::Revision(revision),
    });
    Change {
        key: change.key,
        value: change.value,
        precondition,
        expires_in: change.expires_in,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capability::testing::rights;
    use crate::grant::effective::{Access, Slot, StoreGrant};
    use crate::grant::{Deny, Effective, HostRules};

    fn grant(slot: &str, space: Space, access: Access, bytes: u64) -> impl FnOnce(&mut Effective) {
        let slot = slot.to_owned();
        move |effective| {
            effective.store.insert(
                slot,
                Slot::new(StoreGrant {
                    space,
                    access,
                    bytes,
                    keys: 100,
                }),
            );
        }
    }

    fn guard(plugin: &str, grant: impl FnOnce(&mut Effective)) -> Guard {
        let effective = Effective {
            plugin: plugin.into(),
            ..rights(grant)
        };
        Guard::new(&HostRules::new(Deny::default()), effective)
    }

    fn put(key: &str, value: &[u8]) -> Vec<contract::Change> {
        vec![contract::Change {
            key: key.into(),
            value: Some(value.to_vec()),
            precondition: None,
            expires_in: None,
        }]
    }

    fn open() -> (Store, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let backend = embedded::EmbeddedStore::open(
            &directory.path().join("store.redb"),
            embedded::Options::default(),
        )
        .unwrap();
        (Store::new(Arc::new(backend)), directory)
    }

    #[tokio::test]
    async fn own_spaces_are_apart_and_shared_ones_are_shared() {
        let (store, _directory) = open();
        let dhcp = guard("dhcp", grant("leases", Space::Own, Access::ReadWrite, 1000));
        let evil = guard("evil", grant("leases", Space::Own, Access::ReadWrite, 1000));
        store
            .apply(&dhcp, "leases", put("k", b"dhcp"))
            .await
            .unwrap();
        assert!(store.get(&evil, "leases", "k").await.unwrap().is_none());
        let one = guard(
            "one",
            grant("a", Space::Shared("x".into()), Access::ReadWrite, 1000),
        );
        let two = guard(
            "two",
            grant("b", Space::Shared("x".into()), Access::Read, 1000),
        );
        store.apply(&one, "a", put("k", b"shared")).await.unwrap();
        assert_eq!(
            store.get(&two, "b", "k").await.unwrap().unwrap().value,
            b"shared"
        );
        assert_eq!(store.scan(&two, "b", "", None, 10).await.unwrap().len(), 1);
        assert_eq!(store.changes(&two, "b", 0, 10).await.unwrap().puts.len(), 1);
    }

    #[tokio::test]
    async fn reading_is_not_writing_and_no_grant_is_nothing() {
        let (store, _directory) = open();
        let reader = guard("p", grant("a", Space::Own, Access::Read, 1000));
        assert!(matches!(
            store.apply(&reader, "a", put("k", b"v")).await,
            Err(contract::Error::Denied(_))
        ));
        assert!(matches!(
            store.get(&reader, "b", "k").await,
            Err(contract::Error::Denied(_))
        ));
    }

    #[tokio::test]
    async fn the_granted_bytes_are_the_quota() {
        let (store, _directory) = open();
        let small = guard("p", grant("a", Space::Own, Access::ReadWrite, 10));
        assert!(matches!(
            store.apply(&small, "a", put("k", &[0; 10])).await,
            Err(contract::Error::Full)
        ));
        store.apply(&small, "a", put("k", &[0; 9])).await.unwrap();
        assert!(matches!(
            store.apply(&small, "a", put("", b"")).await,
            Err(contract::Error::TooLarge)
        ));
    }
}
