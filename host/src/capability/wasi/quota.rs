//! How much a plugin may put into a granted directory: bytes and files, counted where the host changes the tree.
//!
//! Bytes are the lengths of files as `ls -l` shows them (a sparse file counts in full); files are names: regular files, directories,
//! and links that somebody else made. What other programs put into the tree is counted when the tree is read: before the plugin's first
//! change, and again before a change is refused, so that nobody is refused for files an administrator has removed.
//!
//! The one idea: a change to the tree takes the gate. Writing into files takes it shared (with one lock per file, so that two
//! writers cannot count the same growth twice); adding, removing and renaming names, and reading the whole tree, take it alone. So
//! the counters always equal the tree as far as this host changes it. A file that is removed while open keeps its bytes
//! counted until the last handle closes, because the disk keeps them too.
//!
//! All methods block: call them where blocking is allowed.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::{Errno, ReadWriteFlags};

mod count;

use count::count_tree;

/// A refused change counts the tree again, unless it was counted this recently: a plugin that hammers on a full quota must not keep the disk busy.
const RECOUNT_AFTER: Duration = Duration::from_secs(60);
/// Locks for files being written; two files share one now and then, which only makes one writer wait.
const FILE_LOCKS: usize = 64;
/// Permissions of new files; the process's umask takes from them.
const FILE_MODE: Mode = Mode::from_raw_mode(0o666);
/// Permissions of new directories; the process's umask takes from them.
const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o777);

/// The most a tree may hold. None: not limited, and then nothing is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QuotaLimits {
    /// Sum of file lengths in bytes.
    pub bytes: Option<u64>,
    /// Number of names.
    pub files: Option<u64>,
}

/// What a tree holds, as far as counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Sum of file lengths in bytes.
    pub bytes: u64,
    /// Number of names.
    pub files: u64,
}

/// Where a write goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteAt {
    /// Bytes from the beginning of the file.
    Offset(u64),
    /// Behind the last byte, wherever that is at that moment.
    End,
}

/// The quota of one granted directory; all instances of the plugin and its downloads share it.
#[derive(Debug)]
pub struct Quota {
    plugin: String,
    slot: String,
    place: PathBuf,
    limits: Mutex<QuotaLimits>,
    bytes: AtomicU64,
    files: AtomicU64,
    /// Holds when the tree was last counted; none before the first time.
    gate: RwLock<Option<Instant>>,
    file_locks: [Mutex<()>; FILE_LOCKS],
    open: Mutex<HashMap<Inode, Handles>>,
}

type Inode = (u64, u64);

#[derive(Debug)]
struct Handles {
    count: usize,
    /// The file, by the first of its handles: to ask for its length when it has no name any more.
    file: Arc<File>,
    /// The last name is gone; the bytes are given back when `count` reaches zero.
    orphan: bool,
}

/// An open file of a counted tree. While it lives, the file's bytes stay counted, even after the last name is removed.
#[derive(Debug)]
pub struct CountedFile {
    file: Arc<File>,
    inode: Inode,
    quota: Arc<Quota>,
}

impl Quota {
    /// The quota of `slot` of `plugin` for the directory or the single file `place`. Nothing is read yet: see [`Quota::count_once`].
    pub fn new(plugin: &str, slot: &str, place: PathBuf, limits: QuotaLimits) -> Self {
        Self {
            plugin: plugin.to_owned(),
            slot: slot.to_owned(),
            place,
            limits: Mutex::new(limits),
            bytes: AtomicU64::new(0),
            files: AtomicU64::new(0),
            gate: RwLock::new(None),
            file_locks: std::array::from_fn(|_| Mutex::new(())),
            open: Mutex::new(HashMap::new()),
        }
    }

    /// What is counted, by a path without links.
    pub fn place(&self) -> &std::path::Path {
        &self.place
    }

    /// Changes the limits. A tree that already holds more keeps it, and grows no further.
    pub fn set_limits(&self, limits: QuotaLimits) {
        *locked(&self.limits) = limits;
    }

    /// The limits in force.
    pub fn limits(&self) -> QuotaLimits {
        *locked(&self.limits)
    }

    /// What is counted now; zeros until the tree was counted.
    pub fn usage(&self) -> Usage {
        Usage {
            bytes: self.bytes.load(Ordering::Relaxed),
            files: self.files.load(Ordering::Relaxed),
        }
    }

    /// Counts the tree if it never was, so that the plugin's first change need not wait for it. Changes wait meanwhile.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn count_once(&self) -> io::Result<()> {
        drop(self.alone()?);
        Ok(())
    }

    /// Takes bytes that will be written by other means than this type's methods. Give back what was not written with [`Quota::release`].
    /// Inexact while the tree is counted again; [`Quota::write_at`] is not.
    ///
    /// # Errors
    /// `QuotaExceeded`, and nothing is taken.
    pub fn reserve(&self, bytes: u64) -> io::Result<()> {
        self.within(|| {
            let _gate = self.shared()?;
            self.take(&self.bytes, bytes, self.limits().bytes)
        })
    }

    /// Gives back bytes.
    pub fn release(&self, bytes: u64) {
        give(&self.bytes, bytes);
    }

    /// Opens a file for a handle that lives on: `open` runs while no name changes.
    ///
    /// # Errors
    /// Those of `open`, and `NotFound` if the file has lost its last name.
    pub fn open<E: From<io::Error>>(
        self: &Arc<Self>,
        open: impl FnOnce() -> Result<File, E>,
    ) -> Result<CountedFile, E> {
        let _gate = self.shared()?;
        let file = open()?;
        self.adopt(file).map_err(E::from)
    }

    /// Creates a regular file that must not exist. The handle reads and writes.
    ///
    /// # Errors
    /// `QuotaExceeded`, `AlreadyExists`, or what the system says.
    pub fn create(self: &Arc<Self>, parent: &impl AsFd, name: &OsStr) -> io::Result<CountedFile> {
        self.within(|| {
            let _gate = self.alone()?;
            self.take(&self.files, 1, self.limits().files)?;
            let flags =
                OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match rustix::fs::openat(parent, name, flags, FILE_MODE) {
                Ok(file) => self.adopt(File::from(file)),
                Err(error) => {
                    give(&self.files, 1);
                    Err(error.into())
                }
            }
        })
    }

    /// Creates a directory.
    ///
    /// # Errors
    /// `QuotaExceeded`, `AlreadyExists`, or what the system says.
    pub fn create_directory(&self, parent: &impl AsFd, name: &OsStr) -> io::Result<()> {
        self.within(|| {
            let _gate = self.alone()?;
            self.take(&self.files, 1, self.limits().files)?;
            rustix::fs::mkdirat(parent, name, DIRECTORY_MODE).map_err(|error| {
                give(&self.files, 1);
                error.into()
            })
        })
    }

    /// Removes a name that is not a directory.
    ///
    /// # Errors
    /// What the system says.
    pub fn remove_file(&self, parent: &impl AsFd, name: &OsStr) -> io::Result<()> {
        let _gate = self.alone()?;
        let old = lookup(parent.as_fd(), name)?;
        rustix::fs::unlinkat(parent, name, AtFlags::empty())?;
        self.name_gone(old);
        Ok(())
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// What the system says.
    pub fn remove_directory(&self, parent: &impl AsFd, name: &OsStr) -> io::Result<()> {
        let _gate = self.alone()?;
        rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?;
        give(&self.files, 1);
        Ok(())
    }

    /// Renames within the tree; what stood at the new name is gone and no longer counted.
    ///
    /// # Errors
    /// What the system says.
    pub fn rename(
        &self,
        from: &impl AsFd,
        old: &OsStr,
        to: &impl AsFd,
        new: &OsStr,
    ) -> io::Result<()> {
        let _gate = self.alone()?;
        let moved = lookup(from.as_fd(), old)?;
        let replaced = lookup(to.as_fd(), new)?;
        rustix::fs::renameat(from, old, to, new)?;
        match (moved, replaced) {
            // Two names of one file: the system leaves both.
            (Some(moved), Some(replaced)) if inode(&moved) == inode(&replaced) => {}
            (_, replaced) => self.name_gone(replaced),
        }
        Ok(())
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// `QuotaExceeded` and nothing is written, or what the system says; the growth is counted even after an error.
    pub fn write_at(&self, file: &File, bytes: &[u8], at: WriteAt) -> io::Result<()> {
        self.within(|| {
            let _gate = self.shared()?;
            self.growing(
                file,
                |length| match at {
                    WriteAt::Offset(offset) => offset.saturating_add(bytes.len() as u64),
                    WriteAt::End => length.saturating_add(bytes.len() as u64),
                },
                || match at {
                    WriteAt::Offset(offset) => file.write_all_at(bytes, offset),
                    WriteAt::End => append(file, bytes),
                },
            )
        })
    }

    /// Sets the length of a file.
    ///
    /// # Errors
    /// `QuotaExceeded` and nothing is changed, or what the system says.
    pub fn set_length(&self, file: &File, length: u64) -> io::Result<()> {
        self.within(|| {
            let _gate = self.shared()?;
            self.growing(file, |_| length, || file.set_len(length))
        })
    }

    /// Runs `change` under the file's lock after taking what it will add, and settles with what it did.
    fn growing(
        &self,
        file: &File,
        end: impl Fn(u64) -> u64,
        change: impl Fn() -> io::Result<()>,
    ) -> io::Result<()> {
        let inode = inode(&file.metadata()?);
        let _lock = self
            .file_locks
            .get((inode.0 ^ inode.1) as usize % FILE_LOCKS)
            .map(locked);
        let before = file.metadata()?.len();
        let taken = end(before).saturating_sub(before);
        self.take(&self.bytes, taken, self.limits().bytes)?;
        let done = change();
        let after = file
            .metadata()
            .map_or(before.saturating_add(taken), |metadata| metadata.len());
        let grown = after.saturating_sub(before);
        if grown > taken {
            // Another program wrote into the file at the same time.
            self.bytes.fetch_add(grown - taken, Ordering::Relaxed);
        } else {
            give(&self.bytes, taken - grown);
        }
        give(&self.bytes, before.saturating_sub(after));
        done
    }

    /// Runs a change; when it exceeds the quota, once more after the tree was counted again.
    fn within<R>(&self, change: impl Fn() -> io::Result<R>) -> io::Result<R> {
        match change() {
            Err(error) if error.kind() == io::ErrorKind::QuotaExceeded && self.recount()? => {
                change()
            }
            result => result,
        }
        .inspect_err(|error| {
            if error.kind() == io::ErrorKind::QuotaExceeded {
                let (limits, usage) = (self.limits(), self.usage());
                tracing::debug!(
                    plugin = self.plugin,
                    slot = self.slot,
                    bytes = usage.bytes,
                    files = usage.files,
                    limit_bytes = limits.bytes,
                    limit_files = limits.files,
                    "files quota exceeded"
                );
            }
        })
    }

    fn take(&self, counter: &AtomicU64, amount: u64, limit: Option<u64>) -> io::Result<()> {
        let limit = limit.unwrap_or(u64::MAX);
        counter
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                // A file that shrinks or stays the same is welcome in a tree that is over its limit.
                used.checked_add(amount)
                    .filter(|sum| *sum <= limit || amount == 0)
            })
            .map_err(|_| io::Error::from_raw_os_error(Errno::DQUOT.raw_os_error()))?;
        Ok(())
    }

    /// A name is gone. Its bytes are too, unless other names or open handles keep the file.
    fn name_gone(&self, old: Option<Metadata>) {
        let Some(old) = old else { return };
        give(&self.files, 1);
        if !old.is_file() || old.nlink() > 1 {
            return;
        }
        match locked(&self.open).get_mut(&inode(&old)) {
            Some(handles) => handles.orphan = true,
            None => give(&self.bytes, old.len()),
        }
    }

    fn adopt(self: &Arc<Self>, file: File) -> io::Result<CountedFile> {
        let metadata = file.metadata()?;
        if metadata.nlink() == 0 {
            return Err(io::ErrorKind::NotFound.into());
        }
        let (file, inode) = (Arc::new(file), inode(&metadata));
        locked(&self.open)
            .entry(inode)
            .or_insert_with(|| Handles {
                count: 0,
                file: file.clone(),
                orphan: false,
            })
            .count += 1;
        Ok(CountedFile {
            file,
            inode,
            quota: self.clone(),
        })
    }

    fn shared(&self) -> io::Result<RwLockReadGuard<'_, Option<Instant>>> {
        let gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        if gate.is_some() || self.is_unlimited() {
            return Ok(gate);
        }
        drop(gate);
        drop(self.alone()?);
        Ok(self.gate.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn alone(&self) -> io::Result<RwLockWriteGuard<'_, Option<Instant>>> {
        let mut gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        if gate.is_none() && !self.is_unlimited() {
            self.count(&mut gate)?;
        }
        Ok(gate)
    }

    fn is_unlimited(&self) -> bool {
        self.limits() == QuotaLimits::default()
    }

    fn recount(&self) -> io::Result<bool> {
        let mut gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        if gate.is_some_and(|at| at.elapsed() < RECOUNT_AFTER) {
            return Ok(false);
        }
        self.count(&mut gate)?;
        Ok(true)
    }

    fn count(&self, gate: &mut Option<Instant>) -> io::Result<()> {
        let mut usage = count_tree(&self.place)?;
        // Files without a name that are still open use the disk as well.
        for handles in locked(&self.open).values().filter(|handles| handles.orphan) {
            usage.bytes = usage.bytes.saturating_add(handles.file.metadata()?.len());
        }
        self.bytes.store(usage.bytes, Ordering::Relaxed);
        self.files.store(usage.files, Ordering::Relaxed);
        *gate = Some(Instant::now());
        Ok(())
    }
}

impl CountedFile {
    /// The quota that counts it.
    pub fn quota(&self) -> &Quota {
        &self.quota
    }
}

impl Deref for CountedFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

impl Drop for CountedFile {
    fn drop(&mut self) {
        let mut open = locked(&self.quota.open);
        let Some(handles) = open.get_mut(&self.inode) else {
            return;
        };
        handles.count -= 1;
        if handles.count > 0 {
            return;
        }
        if let Some(handles) = open.remove(&self.inode)
            && handles.orphan
        {
            give(
                &self.quota.bytes,
                self.file.metadata().map_or(0, |metadata| metadata.len()),
            );
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Never below zero: what other programs added may be given back without ever having been taken.
fn give(counter: &AtomicU64, amount: u64) {
    let subtract = |used: u64| Some(used.saturating_sub(amount));
    // The closure always answers, so the update cannot fail.
    let _ = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, subtract);
}

fn inode(metadata: &Metadata) -> Inode {
    (metadata.dev(), metadata.ino())
}

/// What a name stands for, links not followed; none if it stands for nothing.
fn lookup(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<Metadata>> {
    match rustix::fs::openat(
        parent,
        name,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    ) {
        Ok(handle) => Ok(Some(File::from(handle).metadata()?)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn append(file: &File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        // The system finds the end and writes there in one step, whoever else appends.
        match rustix::io::pwritev2(file, &[io::IoSlice::new(bytes)], 0, ReadWriteFlags::APPEND) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
