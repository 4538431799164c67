//! The one thread that writes the embedded store.
//!
//! It refuses to acknowledge anything before it is on disk, and to let one caller's mistake cost another's batch.
//!
//! The one idea is group commit: a commit costs milliseconds on real disks whatever it holds, so everything that has arrived while
//! the last commit ran goes into the next one. Each batch is first checked whole against the state that the batches before it
//! leave, and only then written; therefore a refused batch leaves no trace and needs no roll-back.

use std::collections::HashMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;

use redb::{Database, ReadableDatabase, ReadableTable, Table, WriteTransaction};
use tokio::sync::{Semaphore, oneshot};

use super::backend::{Change, Precondition, Quota, StoreError, Usage};
use super::embedded::{
    ACCOUNTS, AccountRow, DELETES, ENTRIES, EXPIRIES, NEVER, Options, PUTS, SPACES, now,
};

/// The most batches in one commit: bounds what a failing commit takes along.
const MAX_GROUP: usize = 256;

/// The most batches handed in and not yet answered; further callers wait before they hand theirs in.
const MAX_WAITING: usize = 1_024;

/// The most expired keys that one commit removes, so that a million of them does not hold up the callers.
const MAX_SWEPT: usize = 1_000;

/// The handle to the writing thread. Dropping it waits until the thread has finished its last commit.
#[derive(Debug)]
pub(super) struct Writer {
    jobs: Option<Sender<Job>>,
    waiting: Semaphore,
    thread: Option<JoinHandle<()>>,
}

struct Job {
    space: String,
    quota: Quota,
    changes: Vec<Change>,
    answer: oneshot::Sender<Result<u64, StoreError>>,
}

impl Writer {
    pub(super) fn start(database: Arc<Database>, options: Options) -> std::io::Result<Self> {
        let (jobs, arriving) = channel();
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || run(&database, &options, &arriving))?;
        Ok(Writer {
            jobs: Some(jobs),
            waiting: Semaphore::new(MAX_WAITING),
            thread: Some(thread),
        })
    }

    pub(super) async fn apply(
        &self,
        space: &str,
        quota: Quota,
        changes: Vec<Change>,
    ) -> Result<u64, StoreError> {
        let stopped = || StoreError::Failed {
            reason: "the store's writer has stopped".into(),
        };
        let _place = self.waiting.acquire().await.map_err(|_| stopped())?;
        let (answer, answered) = oneshot::channel();
        let job = Job {
            space: space.to_owned(),
            quota,
            changes,
            answer,
        };
        self.jobs
            .as_ref()
            .ok_or_else(stopped)?
            .send(job)
            .map_err(|_| stopped())?;
        answered.await.unwrap_or_else(|_| Err(stopped()))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(database: &Database, options: &Options, arriving: &Receiver<Job>) {
    loop {
        let mut group = Vec::new();
        match arriving.recv_timeout(options.sweep_every) {
            Ok(job) => group.push(job),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        group.extend(arriving.try_iter().take(MAX_GROUP - group.len()));
        if group.is_empty() && !anything_expired(database) {
            continue;
        }
        let outcome = commit(database, options, &group);
        if let Err(error) = &outcome {
            tracing::error!(target: "store", batches = group.len(), error = %error, "the store failed to commit");
        }
        for (index, job) in group.into_iter().enumerate() {
            let answer = match &outcome {
                Ok(answers) => answers.get(index).cloned().unwrap_or_else(|| {
                    Err(StoreError::Failed {
                        reason: "no outcome".into(),
                    })
                }),
                Err(error) => Err(StoreError::Failed {
                    reason: error.to_string(),
                }),
            };
            // A caller that went away does not want to know.
            let _ = job.answer.send(answer);
        }
    }
}

/// Spares an idle host a write transaction a second.
fn anything_expired(database: &Database) -> bool {
    let first = || -> Result<Option<u64>, redb::Error> {
        let expiries = database.begin_read()?.open_table(EXPIRIES)?;
        Ok(expiries.first()?.map(|(at, _)| at.value().0))
    };
    matches!(first(), Ok(Some(expiry)) if expiry <= now())
}

type Answers = Vec<Result<u64, StoreError>>;

/// One transaction: sweeps what has expired, then applies each batch that may be applied.
fn commit(database: &Database, options: &Options, group: &[Job]) -> Result<Answers, redb::Error> {
    let mut transaction = database.begin_write()?;
    // Values come from plugins: the second phase keeps a crash from choosing between commits by a checksum that somebody could
    // have aimed at. It also makes the start after a crash quick.
    transaction.set_two_phase_commit(true);
    transaction.set_quick_repair(true);
    let (answers, changed) = {
        let mut ledger = Ledger::open(&transaction, options.deletes_kept)?;
        let mut changed = ledger.sweep(MAX_SWEPT)? > 0;
        let mut answers = Vec::with_capacity(group.len());
        for job in group {
            let answer = ledger.apply(job)?;
            changed |= answer.as_ref().is_ok_and(|applied| applied.written);
            answers.push(answer.map(|applied| applied.revision));
        }
        (answers, changed)
    };
    if changed {
        transaction.commit()?;
        if !options.commit_delay.is_zero() {
            std::thread::sleep(options.commit_delay);
        }
    } else {
        transaction.abort()?;
    }
    Ok(answers)
}

/// What a space holds and how far its history reaches back.
#[derive(Debug, Clone, Copy, Default)]
struct Account {
    revision: u64,
    bytes: u64,
    keys: u64,
    deletes: u64,
    floor: u64,
}

impl Account {
    fn from_row((revision, bytes, keys, deletes, floor): AccountRow) -> Self {
        Account {
            revision,
            bytes,
            keys,
            deletes,
            floor,
        }
    }

    fn to_row(self) -> AccountRow {
        (
            self.revision,
            self.bytes,
            self.keys,
            self.deletes,
            self.floor,
        )
    }

    fn usage(&self) -> Usage {
        Usage {
            bytes: self.bytes,
            keys: self.keys,
            revision: self.revision,
        }
    }
}

/// What is stored under a key, without its value.
#[derive(Debug, Clone, Copy)]
struct Stored {
    revision: u64,
    expiry: u64,
    bytes: u64,
}

struct Applied {
    revision: u64,
    written: bool,
}

/// The open tables of a write transaction.
struct Ledger<'t> {
    now: u64,
    deletes_kept: u64,
    spaces: Table<'t, &'static str, u64>,
    accounts: Table<'t, u64, AccountRow>,
    entries: Table<'t, (u64, &'static str), (u64, u64, &'static [u8])>,
    puts: Table<'t, (u64, u64), &'static str>,
    deletes: Table<'t, (u64, u64), &'static str>,
    expiries: Table<'t, (u64, u64, &'static str), ()>,
}

impl<'t> Ledger<'t> {
    fn open(transaction: &'t WriteTransaction, deletes_kept: u64) -> Result<Self, redb::Error> {
        Ok(Ledger {
            now: now(),
            deletes_kept,
            spaces: transaction.open_table(SPACES)?,
            accounts: transaction.open_table(ACCOUNTS)?,
            entries: transaction.open_table(ENTRIES)?,
            puts: transaction.open_table(PUTS)?,
            deletes: transaction.open_table(DELETES)?,
            expiries: transaction.open_table(EXPIRIES)?,
        })
    }

    fn apply(&mut self, job: &Job) -> Result<Result<Applied, StoreError>, redb::Error> {
        let known = self.spaces.get(job.space.as_str())?.map(|id| id.value());
        let before = match known {
            Some(id) => self.account(id)?,
            None => Account::default(),
        };
        let after = match self.check(known, before, &job.changes)? {
            Ok(after) => after,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let over = (after.bytes > job.quota.bytes && after.bytes > before.bytes)
            || (after.keys > job.quota.keys && after.keys > before.keys);
        if over {
            return Ok(Err(StoreError::Full {
                usage: before.usage(),
                quota: job.quota,
            }));
        }
        if after.revision == before.revision {
            return Ok(Ok(Applied {
                revision: before.revision,
                written: false,
            }));
        }
        let id = match known {
            Some(id) => id,
            None => self.new_space(&job.space)?,
        };
        let mut account = before;
        for change in &job.changes {
            self.write(id, &mut account, change)?;
        }
        self.accounts.insert(id, account.to_row())?;
        Ok(Ok(Applied {
            revision: account.revision,
            written: true,
        }))
    }

    /// What the account would be after the changes, or the first precondition that does not hold. Writes nothing.
    fn check(
        &self,
        space: Option<u64>,
        mut account: Account,
        changes: &[Change],
    ) -> Result<Result<Account, StoreError>, redb::Error> {
        let mut earlier: HashMap<&str, Option<Stored>> = HashMap::new();
        for change in changes {
            let stored = match (earlier.get(change.key.as_str()), space) {
                (Some(stored), _) => *stored,
                (None, Some(id)) => self.stored(id, &change.key)?,
                (None, None) => None,
            };
            let visible = stored
                .filter(|stored| stored.expiry > self.now)
                .map(|stored| stored.revision);
            let holds = match change.precondition {
                None => true,
                Some(Precondition::Absent) => visible.is_none(),
                Some(Precondition::Revision(wanted)) => visible == Some(wanted),
            };
            if !holds {
                return Ok(Err(StoreError::Conflict {
                    key: change.key.clone(),
                }));
            }
            let old = stored.map_or(0, |stored| stored.bytes);
            match &change.value {
                Some(value) => {
                    let bytes = size(&change.key, value.len());
                    account.revision += 1;
                    account.bytes = account.bytes.saturating_sub(old).saturating_add(bytes);
                    account.keys += u64::from(stored.is_none());
                    let expiry = self.expiry(change);
                    earlier.insert(
                        &change.key,
                        Some(Stored {
                            revision: account.revision,
                            expiry,
                            bytes,
                        }),
                    );
                }
                None if stored.is_some() => {
                    account.revision += 1;
                    account.bytes = account.bytes.saturating_sub(old);
                    account.keys = account.keys.saturating_sub(1);
                    earlier.insert(&change.key, None);
                }
                None => {}
            }
        }
        Ok(Ok(account))
    }

    /// Writes one checked change.
    fn write(
        &mut self,
        id: u64,
        account: &mut Account,
        change: &Change,
    ) -> Result<(), redb::Error> {
        let Some(value) = &change.value else {
            return self.delete(id, account, &change.key);
        };
        let stored = self.stored(id, &change.key)?;
        if let Some(stored) = stored {
            self.forget(id, &change.key, stored)?;
        }
        let expiry = self.expiry(change);
        account.revision += 1;
        account.bytes = account
            .bytes
            .saturating_sub(stored.map_or(0, |stored| stored.bytes))
            .saturating_add(size(&change.key, value.len()));
        account.keys += u64::from(stored.is_none());
        self.entries.insert(
            (id, change.key.as_str()),
            (account.revision, expiry, value.as_slice()),
        )?;
        self.puts
            .insert((id, account.revision), change.key.as_str())?;
        if expiry != NEVER {
            self.expiries
                .insert((expiry, id, change.key.as_str()), ())?;
        }
        Ok(())
    }

    fn delete(&mut self, id: u64, account: &mut Account, key: &str) -> Result<(), redb::Error> {
        let Some(stored) = self.stored(id, key)? else {
            return Ok(());
        };
        self.forget(id, key, stored)?;
        self.entries.remove((id, key))?;
        account.revision += 1;
        account.bytes = account.bytes.saturating_sub(stored.bytes);
        account.keys = account.keys.saturating_sub(1);
        self.deletes.insert((id, account.revision), key)?;
        account.deletes += 1;
        if account.deletes > self.deletes_kept {
            let oldest = self
                .deletes
                .range((Bound::Included((id, 0)), Bound::Included((id, u64::MAX))))?
                .next()
                .transpose()?
                .map(|(at, _)| at.value());
            if let Some(oldest) = oldest {
                self.deletes.remove(oldest)?;
                account.deletes -= 1;
                account.floor = oldest.1;
            }
        }
        Ok(())
    }

    /// Removes the index rows of an entry that is about to change.
    fn forget(&mut self, id: u64, key: &str, stored: Stored) -> Result<(), redb::Error> {
        self.puts.remove((id, stored.revision))?;
        if stored.expiry != NEVER {
            self.expiries.remove((stored.expiry, id, key))?;
        }
        Ok(())
    }

    /// Deletes at most `limit` expired keys of any space; answers how many.
    fn sweep(&mut self, limit: usize) -> Result<usize, redb::Error> {
        let mut expired = Vec::new();
        for row in self
            .expiries
            .range((Bound::Unbounded, Bound::Included((self.now, u64::MAX, ""))))?
            .take(limit)
        {
            let (at, ()) = row.map(|(at, nothing)| (at, nothing.value()))?;
            let (_, id, key) = at.value();
            expired.push((id, key.to_owned()));
        }
        for (id, key) in &expired {
            let mut account = self.account(*id)?;
            self.delete(*id, &mut account, key)?;
            self.accounts.insert(*id, account.to_row())?;
        }
        Ok(expired.len())
    }

    fn stored(&self, id: u64, key: &str) -> Result<Option<Stored>, redb::Error> {
        Ok(self.entries.get((id, key))?.map(|found| {
            let (revision, expiry, value) = found.value();
            Stored {
                revision,
                expiry,
                bytes: size(key, value.len()),
            }
        }))
    }

    fn account(&self, id: u64) -> Result<Account, redb::Error> {
        Ok(self
            .accounts
            .get(id)?
            .map(|row| Account::from_row(row.value()))
            .unwrap_or_default())
    }

    fn new_space(&mut self, name: &str) -> Result<u64, redb::Error> {
        let id = self
            .accounts
            .last()?
            .map_or(1, |(id, _)| id.value().saturating_add(1));
        self.spaces.insert(name, id)?;
        Ok(id)
    }

    fn expiry(&self, change: &Change) -> u64 {
        change
            .expires_in
            .map_or(NEVER, |ms| self.now.saturating_add(ms).min(NEVER - 1))
    }
}

/// What an entry counts against the quota.
fn size(key: &str, value: usize) -> u64 {
    u64::try_from(key.len().saturating_add(value)).unwrap_or(u64::MAX)
}
