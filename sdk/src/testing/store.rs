//! The double of one store slot: in memory, with the same preconditions and revisions: one for each change. Nothing expires in it.

use std::collections::BTreeMap;

use crate::bindings::imports::foreman::proxy::store::{
    Change, Entry, Error, History, Precondition,
};

#[derive(Default)]
pub(crate) struct Store {
    entries: BTreeMap<String, (Vec<u8>, u64)>,
    deleted: BTreeMap<String, u64>,
    revision: u64,
}

impl Store {
    pub(super) fn get(&self, key: &str) -> Option<Entry> {
        self.entries.get(key).map(|found| entry(key, found))
    }

    pub(super) fn scan(&self, prefix: &str, after: Option<&str>, limit: u32) -> Vec<Entry> {
        self.entries
            .iter()
            .filter(|(key, _)| {
                key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after)
            })
            .map(|(key, found)| entry(key, found))
            .take(limit.clamp(1, 1000) as usize)
            .collect()
    }

    pub(super) fn apply(&mut self, changes: &[Change]) -> Result<u64, Error> {
        for change in changes {
            if change.key.is_empty()
                || change.key.len() > 512
                || change
                    .value
                    .as_ref()
                    .is_some_and(|value| value.len() > 1 << 20)
            {
                return Err(Error::TooLarge);
            }
            let present = self.entries.get(&change.key).map(|(_, revision)| *revision);
            let holds = match &change.precondition {
                None => true,
                Some(Precondition::Absent) => present.is_none(),
                Some(Precondition::Revision(wanted)) => present == Some(*wanted),
            };
            if !holds {
                return Err(Error::Conflict(change.key.clone()));
            }
        }
        for change in changes {
            match &change.value {
                Some(value) => {
                    self.revision += 1;
                    self.deleted.remove(&change.key);
                    self.entries
                        .insert(change.key.clone(), (value.clone(), self.revision));
                }
                None if self.entries.remove(&change.key).is_some() => {
                    self.revision += 1;
                    self.deleted.insert(change.key.clone(), self.revision);
                }
                None => {}
            }
        }
        Ok(self.revision)
    }

    pub(super) fn changes(&self, since: u64, limit: u32) -> History {
        let mut puts: Vec<Entry> = self
            .entries
            .iter()
            .map(|(key, found)| entry(key, found))
            .filter(|entry| entry.revision > since)
            .collect();
        puts.sort_by_key(|entry| entry.revision);
        let deletes: Vec<String> = self
            .deleted
            .iter()
            .filter(|(_, revision)| **revision > since)
            .map(|(key, _)| key.clone())
            .collect();
        let complete = puts.len() + deletes.len() <= limit as usize;
        History {
            puts,
            deletes,
            revision: self.revision,
            complete,
        }
    }
}

fn entry(key: &str, (value, revision): &(Vec<u8>, u64)) -> Entry {
    Entry {
        key: key.to_owned(),
        value: value.clone(),
        revision: *revision,
    }
}
