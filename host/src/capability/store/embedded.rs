//! The embedded backend: one `redb` file in the state directory, nothing to install.
//!
//! It refuses to be shared: a second process that opens the file is told so. Reads see the last commit and never wait for
//! a writer. Writes go to one thread (`writer.rs`), which commits many callers' batches at once.
//!
//! The one idea: beside the entries it keeps two indexes by revision, one of live puts and one of deletions, so that "what
//! changed since" reads exactly what changed, and only the deletions have to be bounded.

use std::fs::OpenOptions;
use std::ops::Bound;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::future::BoxFuture;
use redb::backends::FileBackend;
use redb::{Builder, Database, ReadOnlyTable, ReadableDatabase, TableDefinition, TableError};

use super::backend::{
    Change, Entry, History, MAX_ANSWER_BYTES, MAX_ENTRIES, Quota, StoreBackend, StoreError, Usage,
    check_key, check_sizes,
};
use super::writer::Writer;

/// Space name to space id.
pub(super) const SPACES: TableDefinition<'_, &str, u64> = TableDefinition::new("spaces");
/// Space id to its account: what it holds and how far its history reaches back.
pub(super) const ACCOUNTS: TableDefinition<'_, u64, AccountRow> = TableDefinition::new("accounts");
/// (space id, key) to (revision, expiry in ms since the epoch or [`NEVER`], value).
pub(super) const ENTRIES: TableDefinition<'_, (u64, &str), (u64, u64, &[u8])> =
    TableDefinition::new("entries");
/// (space id, revision) to the key that was put by it and still has that revision.
pub(super) const PUTS: TableDefinition<'_, (u64, u64), &str> = TableDefinition::new("puts");
/// (space id, revision) to the key that was deleted by it.
pub(super) const DELETES: TableDefinition<'_, (u64, u64), &str> = TableDefinition::new("deletes");
/// (expiry, space id, key): what the sweep has to look at, soonest first.
pub(super) const EXPIRIES: TableDefinition<'_, (u64, u64, &str), ()> =
    TableDefinition::new("expiries");

/// Revision, bytes, keys, rows in [`DELETES`], history floor.
pub(super) type AccountRow = (u64, u64, u64, u64, u64);

/// The expiry of an entry that has none.
pub(super) const NEVER: u64 = u64::MAX;

/// How much of the file is kept in memory: enough for the hot pages of the shipped plugins, small against the 48 MiB that
/// the idle host may take.
const DEFAULT_CACHE_BYTES: usize = 8 * 1024 * 1024;

/// How many deletions a space remembers, so that readers of `changes` that were away for a while need no scan. At 512 bytes
/// a key this is at most 5 MiB a space.
const DEFAULT_DELETES_KEPT: u64 = 10_000;

/// How the embedded store runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bytes of the file kept in memory.
    pub cache_bytes: usize,
    /// Deletions that a space remembers for `changes`.
    pub deletes_kept: u64,
    /// How often expired keys are removed when nobody writes.
    pub sweep_every: Duration,
    /// Added to each commit: shows on a fast disk how the program behaves on a slow one. Zero in production.
    pub commit_delay: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            cache_bytes: DEFAULT_CACHE_BYTES,
            deletes_kept: DEFAULT_DELETES_KEPT,
            sweep_every: Duration::from_secs(1),
            commit_delay: Duration::ZERO,
        }
    }
}

/// Why the store's file could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process holds the file.
    #[error(
        "{path}: another process uses this store; is a second `bulkhead serve` running with the same state directory?"
    )]
    InUse {
        /// The store's file.
        path: PathBuf,
    },
    /// The file cannot be read, written or understood.
    #[error("{path}: cannot open the store: {reason}")]
    Unusable {
        /// The store's file.
        path: PathBuf,
        /// The storage's own words.
        reason: String,
    },
}

/// Keys and values in one local file.
#[derive(Debug)]
pub struct EmbeddedStore {
    database: Arc<Database>,
    writer: Writer,
}

impl EmbeddedStore {
    /// Opens the file, creating it with mode 0600 when it does not exist. A file left by a crash is repaired.
    pub fn open(path: &Path, options: Options) -> Result<Self, OpenError> {
        let unusable = |reason: String| OpenError::Unusable {
            path: path.to_owned(),
            reason,
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(|error| unusable(error.to_string()))?;
        let backend = FileBackend::new(file).map_err(|error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => OpenError::InUse {
                path: path.to_owned(),
            },
            error => unusable(error.to_string()),
        })?;
        let database = match Builder::new()
            .set_cache_size(options.cache_bytes)
            .create_with_backend(backend)
        {
            Ok(database) => Arc::new(database),
            Err(redb::DatabaseError::DatabaseAlreadyOpen) => {
                return Err(OpenError::InUse {
                    path: path.to_owned(),
                });
            }
            Err(error) if is_damage(&error) => {
                return Err(unusable(format!(
                    "{error}; restore it from a backup, or move it away to begin with an empty one, without what plugins kept there"
                )));
            }
            Err(error) => return Err(unusable(error.to_string())),
        };
        let writer = Writer::start(database.clone(), options)
            .map_err(|error| unusable(error.to_string()))?;
        Ok(EmbeddedStore { database, writer })
    }
}

/// Whether trying again cannot help: the file is no store any more.
fn is_damage(error: &redb::DatabaseError) -> bool {
    match error {
        redb::DatabaseError::Storage(redb::StorageError::Corrupted(_))
        | redb::DatabaseError::RepairAborted => true,
        redb::DatabaseError::Storage(redb::StorageError::Io(error)) => {
            error.kind() == std::io::ErrorKind::InvalidData
        }
        _ => false,
    }
}

impl StoreBackend for EmbeddedStore {
    fn get<'a>(
        &'a self,
        space: &'a str,
        key: &'a str,
    ) -> BoxFuture<'a, Result<Option<Entry>, StoreError>> {
        // One lookup in cached pages takes microseconds, less than the way to another thread.
        Box::pin(async move {
            check_key(key)?;
            Snapshot::take(&self.database, space)?
                .map_or(Ok(None), |snapshot| Ok(snapshot.get(key)?))
        })
    }

    fn scan<'a>(
        &'a self,
        space: &'a str,
        prefix: &'a str,
        after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Entry>, StoreError>> {
        let (space, prefix, after) = (
            space.to_owned(),
            prefix.to_owned(),
            after.map(str::to_owned),
        );
        self.read(move |database| {
            Snapshot::take(database, &space)?.map_or(Ok(Vec::new()), |snapshot| {
                Ok(snapshot.scan(&prefix, after.as_deref(), limit)?)
            })
        })
    }

    fn apply<'a>(
        &'a self,
        space: &'a str,
        quota: Quota,
        changes: Vec<Change>,
    ) -> BoxFuture<'a, Result<u64, StoreError>> {
        Box::pin(async move {
            check_sizes(&changes)?;
            self.writer.apply(space, quota, changes).await
        })
    }

    fn changes<'a>(
        &'a self,
        space: &'a str,
        since: u64,
        limit: usize,
    ) -> BoxFuture<'a, Result<History, StoreError>> {
        Box::pin(async move {
            // Services ask before each batch, and mostly nothing has changed: one row, which is in memory, says so.
            if let Some(snapshot) = Snapshot::take(&self.database, space)?
                && snapshot.account.0 == since
            {
                return Ok(History {
                    revision: since,
                    complete: true,
                    ..History::default()
                });
            }
            let space = space.to_owned();
            self.read(move |database| match Snapshot::take(database, &space)? {
                Some(snapshot) => Ok(snapshot.changes(since, limit)?),
                None => Ok(History {
                    complete: since == 0,
                    ..History::default()
                }),
            })
            .await
        })
    }

    fn usage<'a>(&'a self, space: &'a str) -> BoxFuture<'a, Result<Usage, StoreError>> {
        Box::pin(async move {
            Ok(Snapshot::take(&self.database, space)?
                .map_or_else(Usage::default, |snapshot| snapshot.usage()))
        })
    }
}

impl EmbeddedStore {
    /// Runs a longer read where it may block.
    fn read<'a, T: Send + 'static>(
        &'a self,
        work: impl FnOnce(&Database) -> Result<T, StoreError> + Send + 'static,
    ) -> BoxFuture<'a, Result<T, StoreError>> {
        let database = self.database.clone();
        Box::pin(async move {
            let done = tokio::task::spawn_blocking(move || work(&database)).await;
            done.unwrap_or_else(|error| {
                Err(StoreError::Failed {
                    reason: error.to_string(),
                })
            })
        })
    }
}

/// One space as the last commit left it.
struct Snapshot {
    id: u64,
    account: AccountRow,
    now: u64,
    entries: ReadOnlyTable<(u64, &'static str), (u64, u64, &'static [u8])>,
    puts: ReadOnlyTable<(u64, u64), &'static str>,
    deletes: ReadOnlyTable<(u64, u64), &'static str>,
}

impl Snapshot {
    /// None: nothing was ever written to this space.
    fn take(database: &Database, space: &str) -> Result<Option<Self>, StoreError> {
        Ok(Self::open(database, space)?)
    }

    fn open(database: &Database, space: &str) -> Result<Option<Self>, redb::Error> {
        let transaction = database.begin_read()?;
        let spaces = match transaction.open_table(SPACES) {
            Ok(spaces) => spaces,
            Err(TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let Some(id) = spaces.get(space)?.map(|id| id.value()) else {
            return Ok(None);
        };
        let Some(account) = transaction
            .open_table(ACCOUNTS)?
            .get(id)?
            .map(|row| row.value())
        else {
            return Ok(None);
        };
        Ok(Some(Snapshot {
            id,
            account,
            now: now(),
            entries: transaction.open_table(ENTRIES)?,
            puts: transaction.open_table(PUTS)?,
            deletes: transaction.open_table(DELETES)?,
        }))
    }

    fn usage(&self) -> Usage {
        let (revision, bytes, keys, ..) = self.account;
        Usage {
            bytes,
            keys,
            revision,
        }
    }

    fn get(&self, key: &str) -> Result<Option<Entry>, redb::Error> {
        let Some(found) = self.entries.get((self.id, key))? else {
            return Ok(None);
        };
        let (revision, expiry, value) = found.value();
        if expiry <= self.now {
            return Ok(None);
        }
        Ok(Some(Entry {
            key: key.to_owned(),
            value: value.to_vec(),
            revision,
        }))
    }

    fn scan(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Entry>, redb::Error> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded((self.id, after)),
            _ => Bound::Included((self.id, prefix)),
        };
        let mut room = Room::new(limit);
        let mut found = Vec::new();
        for row in self
            .entries
            .range::<(u64, &str)>((start, Bound::Unbounded))?
        {
            let (at, row) = row?;
            let (id, key) = at.value();
            if id != self.id || !key.starts_with(prefix) {
                break;
            }
            let (revision, expiry, value) = row.value();
            if expiry <= self.now {
                continue;
            }
            if !room.take(key.len().saturating_add(value.len())) {
                break;
            }
            found.push(Entry {
                key: key.to_owned(),
                value: value.to_vec(),
                revision,
            });
        }
        Ok(found)
    }

    fn changes(&self, since: u64, limit: usize) -> Result<History, redb::Error> {
        let (latest, _, _, _, floor) = self.account;
        if since < floor || since > latest {
            // Behind the floor, or from another life of the store: an answer with holes helps nobody.
            return Ok(History {
                revision: latest,
                complete: false,
                ..History::default()
            });
        }
        let after = (
            Bound::Excluded((self.id, since)),
            Bound::Included((self.id, u64::MAX)),
        );
        let mut puts = self.puts.range::<(u64, u64)>(after)?.peekable();
        let mut deletes = self.deletes.range::<(u64, u64)>(after)?.peekable();
        let mut room = Room::new(limit);
        let mut history = History {
            revision: latest,
            complete: true,
            ..History::default()
        };
        let mut told = since;
        loop {
            let next_put = puts
                .peek()
                .and_then(|row| row.as_ref().ok())
                .map(|(at, _)| at.value().1);
            let next_delete = deletes
                .peek()
                .and_then(|row| row.as_ref().ok())
                .map(|(at, _)| at.value().1);
            let take_put = match (next_put, next_delete) {
                (Some(put), Some(delete)) => put < delete,
                (Some(_), None) => true,
                (None, _) => false,
            };
            let row = if take_put || deletes.peek().is_none() {
                puts.next()
            } else {
                deletes.next()
            };
            let Some(row) = row else { return Ok(history) };
            let (at, key) = row?;
            let (revision, key) = (at.value().1, key.value());
            let entry = self.get(key)?;
            // A deletion that a later put has overtaken is told as that put.
            let overtaken = !take_put && entry.is_some();
            let size = key
                .len()
                .saturating_add(entry.as_ref().map_or(0, |entry| entry.value.len()));
            if !overtaken && !room.take(size) {
                history.revision = told;
                return Ok(history);
            }
            told = revision;
            match entry {
                Some(entry) if take_put => history.puts.push(entry),
                Some(_) => {}
                None => history.deletes.push(key.to_owned()),
            }
        }
    }
}

/// How much an answer may still hold.
struct Room {
    entries: usize,
    bytes: usize,
    empty: bool,
}

impl Room {
    fn new(limit: usize) -> Self {
        Room {
            entries: limit.clamp(1, MAX_ENTRIES),
            bytes: MAX_ANSWER_BYTES,
            empty: true,
        }
    }

    /// The first one always fits, so that every answer makes progress.
    fn take(&mut self, bytes: usize) -> bool {
        if self.entries == 0 || (bytes > self.bytes && !self.empty) {
            return false;
        }
        self.entries -= 1;
        self.bytes = self.bytes.saturating_sub(bytes);
        self.empty = false;
        true
    }
}

impl From<redb::Error> for StoreError {
    fn from(error: redb::Error) -> Self {
        StoreError::Failed {
            reason: error.to_string(),
        }
    }
}

/// Milliseconds since 1970. Wall time, since an expiry has to hold over a restart.
pub(super) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(NEVER - 1)
        })
}
