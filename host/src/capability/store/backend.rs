//! What a place that keeps keys and values has to promise, whatever it is made of.
//!
//! It refuses to know plugins, slots and policies: the floor above names a *space* and its quota, the backend keeps the
//! space's keys. One embedded backend exists ([`super::embedded::EmbeddedStore`]); the promises are written as tests in
//! `conformance.rs`, so that another one (a database several hosts share) can be held against the very same list.
//!
//! The one idea: every change of a space gets the next *revision* of that space. A revision orders the changes, names the
//! version of a key for compare-and-swap, and is the cursor of "what changed since".

use futures::future::BoxFuture;

/// The longest key, in bytes: the contract's limit, so that an index page holds several.
pub const MAX_KEY_BYTES: usize = 512;

/// The largest value, in bytes: the contract's limit. Larger things are files.
pub const MAX_VALUE_BYTES: usize = 1024 * 1024;

/// The most entries in one answer: the contract's limit.
pub const MAX_ENTRIES: usize = 1_000;

/// The most bytes of keys and values in one answer, so that 1,000 values of 1 MiB do not become one gigabyte in memory. An
/// answer cut short by this holds at least one entry; only an empty answer is the end.
pub const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;

/// The most changes in one batch: bounds the time that one caller holds the writer.
pub const MAX_CHANGES: usize = 10_000;

/// The most bytes of keys and values in one batch.
pub const MAX_BATCH_BYTES: usize = 16 * 1024 * 1024;

/// A key, its value and the revision of its last change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// 1 to [`MAX_KEY_BYTES`] bytes.
    pub key: String,
    /// At most [`MAX_VALUE_BYTES`] bytes.
    pub value: Vec<u8>,
    /// The space's revision at which this value was put.
    pub revision: u64,
}

/// What must hold for a change, else the whole batch is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precondition {
    /// The key does not exist (or has expired).
    Absent,
    /// The key exists with exactly this revision.
    Revision(u64),
}

/// One change of a batch. Changes apply in order: a later one sees the earlier ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// 1 to [`MAX_KEY_BYTES`] bytes.
    pub key: String,
    /// None deletes the key; deleting an absent key changes nothing.
    pub value: Option<Vec<u8>>,
    /// Checked before anything is written.
    pub precondition: Option<Precondition>,
    /// Milliseconds from the commit until the key vanishes by itself; none: never.
    pub expires_in: Option<u64>,
}

/// What a space may hold. Both count what is stored, expired keys included until they are swept (within seconds).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Bytes of keys plus bytes of values.
    pub bytes: u64,
    /// Number of keys.
    pub keys: u64,
}

/// What a space holds now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Bytes of keys plus bytes of values.
    pub bytes: u64,
    /// Number of keys.
    pub keys: u64,
    /// The revision of the last change.
    pub revision: u64,
}

/// What changed after a revision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History {
    /// Present entries of keys that were put, oldest change first.
    pub puts: Vec<Entry>,
    /// Keys that were deleted or have expired, oldest change first.
    pub deletes: Vec<String>,
    /// The revision up to which this answer tells everything: the `since` of the next call.
    pub revision: u64,
    /// False: deletions after `since` have been forgotten; only a scan tells what exists.
    pub complete: bool,
}

/// Why the store did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// A precondition did not hold; nothing was written.
    #[error("the precondition of key {key:?} did not hold")]
    Conflict {
        /// The key of the first precondition that failed.
        key: String,
    },
    /// The batch would exceed the space's quota; nothing was written.
    #[error("the space is full: {usage:?} of {quota:?}")]
    Full {
        /// What the space holds.
        usage: Usage,
        /// What it may hold.
        quota: Quota,
    },
    /// A key is empty, or a key, value or batch is beyond the limits of this module; nothing was written.
    #[error("{what} has {size}, allowed are {limit}")]
    Size {
        /// "key", "value", "batch" ...
        what: &'static str,
        /// Its size: bytes, or changes of a batch.
        size: usize,
        /// The limit, in the same unit.
        limit: usize,
    },
    /// The storage below failed. What was asked may or may not have happened.
    #[error("the storage failed: {reason}")]
    Failed {
        /// The storage's own words, for logs.
        reason: String,
    },
}

/// Durable keys and values in separate spaces. All answers are from committed state.
pub trait StoreBackend: Send + Sync + 'static {
    /// The entry of a key; none when it does not exist or has expired.
    fn get<'a>(
        &'a self,
        space: &'a str,
        key: &'a str,
    ) -> BoxFuture<'a, Result<Option<Entry>, StoreError>>;

    /// Entries whose key begins with `prefix` and sorts after `after`, in byte order, at most `limit` (clamped to 1 to
    /// [`MAX_ENTRIES`]) and about [`MAX_ANSWER_BYTES`].
    fn scan<'a>(
        &'a self,
        space: &'a str,
        prefix: &'a str,
        after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Entry>, StoreError>>;

    /// Applies all changes or none, durable when it answers. Answers the space's revision after it. One caller's refusal does
    /// not touch another's batch. A future that is dropped leaves open whether the batch was applied.
    fn apply<'a>(
        &'a self,
        space: &'a str,
        quota: Quota,
        changes: Vec<Change>,
    ) -> BoxFuture<'a, Result<u64, StoreError>>;

    /// What changed after revision `since`, at most `limit` (clamped like `scan`) keys.
    fn changes<'a>(
        &'a self,
        space: &'a str,
        since: u64,
        limit: usize,
    ) -> BoxFuture<'a, Result<History, StoreError>>;

    /// What the space holds.
    fn usage<'a>(&'a self, space: &'a str) -> BoxFuture<'a, Result<Usage, StoreError>>;
}

/// Checks the sizes of a batch, which need no look at the storage.
pub(super) fn check_sizes(changes: &[Change]) -> Result<(), StoreError> {
    let refuse = |what, size, limit| Err(StoreError::Size { what, size, limit });
    if changes.len() > MAX_CHANGES {
        return refuse("batch", changes.len(), MAX_CHANGES);
    }
    let mut total = 0usize;
    for change in changes {
        check_key(&change.key)?;
        let value = change.value.as_ref().map_or(0, Vec::len);
        if value > MAX_VALUE_BYTES {
            return refuse("value", value, MAX_VALUE_BYTES);
        }
        total = total.saturating_add(change.key.len()).saturating_add(value);
    }
    if total > MAX_BATCH_BYTES {
        return refuse("batch", total, MAX_BATCH_BYTES);
    }
    Ok(())
}

/// Checks the size of a key.
pub(super) fn check_key(key: &str) -> Result<(), StoreError> {
    if key.is_empty() || key.len() > MAX_KEY_BYTES {
        return Err(StoreError::Size {
            what: "key",
            size: key.len(),
            limit: MAX_KEY_BYTES,
        });
    }
    Ok(())
}
