//! Durable keys and values. What [`apply`] acknowledged survives a crash; nothing else of a plugin does.

use std::time::Duration;

use crate::failure::Failure;
use crate::host;

pub use crate::bindings::imports::foreman::proxy::store::{
    Change, Entry, Error, History, Precondition,
};

/// The entry of one key.
///
/// # Errors
/// Denied, or the disk failed.
pub fn get(slot: &str, key: &str) -> Result<Option<Entry>, Error> {
    host::store::get(slot, key)
}

/// Keys that begin with `prefix` and sort after `after`, at most `limit` (1 to 1,000) of them, in byte order.
///
/// # Errors
/// Denied, or the disk failed.
pub fn scan(
    slot: &str,
    prefix: &str,
    after: Option<&str>,
    limit: u32,
) -> Result<Vec<Entry>, Error> {
    host::store::scan(slot, prefix, after, limit)
}

/// All changes or none, one commit, durable on return. Answers the slot's new revision.
///
/// # Errors
/// See [`Error`]; nothing was written then.
pub fn apply(slot: &str, changes: &[Change]) -> Result<u64, Error> {
    host::store::apply(slot, changes)
}

/// What changed after a revision, oldest first.
///
/// # Errors
/// Denied, or the disk failed.
pub fn changes(slot: &str, since: u64, limit: u32) -> Result<History, Error> {
    host::store::changes(slot, since, limit)
}

impl Change {
    /// Puts a value.
    #[must_use]
    pub fn put(key: &str, value: impl Into<Vec<u8>>) -> Self {
        Self {
            key: key.to_owned(),
            value: Some(value.into()),
            precondition: None,
            expires_in: None,
        }
    }

    /// Deletes a key; an absent one is fine.
    #[must_use]
    pub fn delete(key: &str) -> Self {
        Self {
            key: key.to_owned(),
            value: None,
            precondition: None,
            expires_in: None,
        }
    }

    /// Only if the key does not exist.
    #[must_use]
    pub fn if_absent(mut self) -> Self {
        self.precondition = Some(Precondition::Absent);
        self
    }

    /// Only if the key still has this revision.
    #[must_use]
    pub fn if_revision(mut self, revision: u64) -> Self {
        self.precondition = Some(Precondition::Revision(revision));
        self
    }

    /// The key vanishes by itself after this time.
    #[must_use]
    pub fn expires_in(mut self, time: Duration) -> Self {
        self.expires_in = Some(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        self
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = match &error {
            Error::Conflict(_) => 409,
            Error::Full | Error::TooLarge => 507,
            Error::Denied(_) | Error::Failed(_) => 500,
        };
        Self::new(status, describe(&error))
    }
}

/// The error as a sentence for people.
#[must_use]
pub fn describe(error: &Error) -> String {
    match error {
        Error::Denied(why) => format!("denied: {why}"),
        Error::Conflict(key) => format!("{key} was changed by somebody else"),
        Error::Full => "the store's quota is used up".to_owned(),
        Error::TooLarge => "a key or value is too large for the store".to_owned(),
        Error::Failed(why) => format!("the store failed: {why}"),
    }
}
