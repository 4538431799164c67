//! The file that a download grows in, until it is whole.
//!
//! It refuses to show anything half-done: bytes go to a hidden name beside the target, and only a complete, flushed file takes the
//! target's name. It never follows a link out of the granted directory, since a plugin can write there.
//!
//! The one idea: a part file is locked while its download lives. A part that can be locked belongs to nobody, for example to a host that was
//! killed, and is removed at the next start.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use cap_std::fs::Dir;
use rustix::fs::{Mode, OFlags};

use crate::capability::beneath::open_directory;
use crate::capability::wasi::quota::{CountedFile, Quota, WriteAt};

/// How part files begin. TFTP and HTTP never serve such names, and plugins cannot ask for them as targets.
pub const PREFIX: &str = ".bulkhead-part-";

/// How deep directories are searched for stale parts; boot trees are a handful of levels deep.
const MAX_DEPTH: usize = 32;

/// Where a download goes: an open directory and a name in it.
#[derive(Debug)]
pub(super) struct Target {
    parent: Dir,
    name: String,
    quota: Arc<Quota>,
}

/// A growing file. Dropped unfinished, it is removed.
#[derive(Debug)]
pub(super) struct Part {
    target: Arc<Target>,
    file: Option<CountedFile>,
    name: String,
    length: u64,
}

impl Target {
    /// Opens the directory of `path` below `root`, making missing ones. `path` is checked: relative, plain names only. Blocks.
    pub(super) fn open(root: &Path, path: &str, quota: Arc<Quota>) -> io::Result<Self> {
        let root = open_root(root)?;
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut parent = root.try_clone()?;
        let mut so_far = String::new();
        for folder in folder.split('/').filter(|folder| !folder.is_empty()) {
            if !so_far.is_empty() {
                so_far.push('/');
            }
            so_far.push_str(folder);
            // Always from the root: a link to elsewhere inside the tree is fine, one that leads out is not.
            parent = match root.open_dir(&so_far) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    match quota.create_directory(&parent, OsStr::new(folder)) {
                        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                            return Err(error);
                        }
                        _ => {}
                    }
                    root.open_dir(&so_far)?
                }
                opened => opened?,
            };
        }
        Ok(Target {
            parent,
            name: name.to_owned(),
            quota,
        })
    }

    /// When the present file was changed; none when there is no regular file. Blocks.
    pub(super) fn modified(&self) -> Option<SystemTime> {
        let metadata = self.parent.symlink_metadata(&self.name).ok()?;
        if !metadata.is_file() {
            return None;
        }
        metadata
            .modified()
            .ok()
            .map(cap_std::time::SystemTime::into_std)
    }

    /// Begins an empty part. Blocks.
    pub(super) fn begin(self: &Arc<Self>) -> io::Result<Part> {
        let name = format!("{PREFIX}{:016x}", rand::random::<u64>());
        let file = self.quota.create(&self.parent, OsStr::new(&name))?;
        let part = Part {
            target: self.clone(),
            file: Some(file),
            name,
            length: 0,
        };
        if let Some(file) = &part.file {
            file.lock()?;
        }
        Ok(part)
    }
}

impl Part {
    /// Bytes so far.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Appends. Blocks.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let file = self.file.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        self.target
            .quota
            .write_at(file, bytes, WriteAt::Offset(self.length))?;
        self.length = self
            .length
            .saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        Ok(())
    }

    /// Back to empty. Blocks.
    pub(super) fn restart(&mut self) -> io::Result<()> {
        let file = self.file.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        self.target.quota.set_length(file, 0)?;
        self.length = 0;
        Ok(())
    }

    /// Gives the complete file its name, with the server's time if it told one. When this returns, the file is on disk under its name. Blocks.
    pub(super) fn finish(mut self, modified: Option<SystemTime>) -> io::Result<()> {
        let file = self.file.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        if let Some(modified) = modified {
            file.set_modified(modified)?;
        }
        file.sync_all()?;
        let target = self.target.clone();
        target.quota.rename(
            &target.parent,
            OsStr::new(&self.name),
            &target.parent,
            OsStr::new(&target.name),
        )?;
        self.file = None;
        // The name must survive a crash as well as the bytes.
        let folder = rustix::fs::openat(
            &target.parent,
            ".",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        rustix::fs::fsync(folder)?;
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let Some(file) = self.file.take() else { return };
        let (target, name) = (self.target.clone(), std::mem::take(&mut self.name));
        let remove = move || {
            drop(file);
            if let Err(error) = target.quota.remove_file(&target.parent, OsStr::new(&name)) {
                tracing::warn!(target: "downloads", part = name, %error, "an unfinished download could not be removed");
            }
        };
        // A download that is broken off is dropped on a thread that must not wait for the disk.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

/// Removes parts that no living host holds; answers how many. Blocks.
pub(super) fn sweep(root: &Path, quota: &Quota) -> io::Result<usize> {
    let mut removed = 0;
    let mut unread = vec![(open_root(root)?, 0)];
    while let Some((folder, depth)) = unread.pop() {
        let Ok(entries) = folder.entries() else {
            continue;
        };
        for entry in entries.filter_map(Result::ok) {
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            if kind.is_dir() && depth < MAX_DEPTH {
                unread.extend(entry.open_dir().ok().map(|folder| (folder, depth + 1)));
            } else if kind.is_file()
                && entry.file_name().to_string_lossy().starts_with(PREFIX)
                && is_abandoned(&folder, &entry.file_name())
            {
                quota.remove_file(&folder, &entry.file_name())?;
                removed += 1;
            }
        }
    }
    Ok(removed)
}

/// The granted directory, by its path without links: a link that took its place is not followed.
fn open_root(root: &Path) -> io::Result<Dir> {
    let handle = rustix::fs::openat(
        &*open_directory(root)?,
        ".",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    Ok(Dir::from_std_file(File::from(handle)))
}

fn is_abandoned(folder: &Dir, name: &OsStr) -> bool {
    let opened: io::Result<File> = folder.open(name).map(cap_std::fs::File::into_std);
    opened.is_ok_and(|file| file.try_lock().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capability::wasi::quota::QuotaLimits;

    fn quota(root: &Path, bytes: u64) -> Arc<Quota> {
        Arc::new(Quota::new(
            "p",
            "root",
            root.to_owned(),
            QuotaLimits {
                bytes: Some(bytes),
                files: Some(100),
            },
        ))
    }

    fn names(root: &Path) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(root)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let root = tempfile::tempdir().unwrap();
        let quota = quota(root.path(), 1000);
        let target = Arc::new(Target::open(root.path(), "boot/kernel", quota.clone()).unwrap());
        let mut part = target.begin().unwrap();
        part.write(b"half").unwrap();
        assert!(!root.path().join("boot/kernel").exists());
        drop(part);
        assert!(names(&root.path().join("boot")).is_empty());
        assert_eq!(quota.usage().bytes, 0);
        let mut part = target.begin().unwrap();
        part.write(b"who").unwrap();
        part.restart().unwrap();
        part.write(b"whole").unwrap();
        let then = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
        part.finish(Some(then)).unwrap();
        assert_eq!(
            std::fs::read(root.path().join("boot/kernel")).unwrap(),
            b"whole"
        );
        assert_eq!(target.modified(), Some(then));
        assert_eq!(names(&root.path().join("boot")), ["kernel"]);
        assert_eq!(quota.usage().bytes, 5);
    }

    #[test]
    fn the_quota_stops_a_part() {
        let root = tempfile::tempdir().unwrap();
        let target = Arc::new(Target::open(root.path(), "kernel", quota(root.path(), 10)).unwrap());
        let mut part = target.begin().unwrap();
        part.write(&[0; 10]).unwrap();
        assert_eq!(
            part.write(b"x").unwrap_err().kind(),
            io::ErrorKind::QuotaExceeded
        );
    }

    #[test]
    fn links_that_lead_out_are_not_followed() {
        let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::os::unix::fs::symlink(outside.path(), root.path().join("out")).unwrap();
        assert!(Target::open(root.path(), "out/kernel", quota(root.path(), 10)).is_err());
        assert!(Target::open(root.path(), "out/new/kernel", quota(root.path(), 10)).is_err());
        std::fs::write(outside.path().join("victim"), "precious").unwrap();
        std::os::unix::fs::symlink(outside.path().join("victim"), root.path().join("kernel"))
            .unwrap();
        let target =
            Arc::new(Target::open(root.path(), "kernel", quota(root.path(), 100)).unwrap());
        assert_eq!(target.modified(), None);
        let mut part = target.begin().unwrap();
        part.write(b"new").unwrap();
        part.finish(None).unwrap();
        assert_eq!(
            std::fs::read(outside.path().join("victim")).unwrap(),
            b"precious"
        );
        assert_eq!(std::fs::read(root.path().join("kernel")).unwrap(), b"new");
        assert!(names(outside.path()) == ["victim"]);
    }

    #[test]
    fn links_inside_the_tree_are_followed() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("a")).unwrap();
        std::fs::create_dir_all(root.path().join("b")).unwrap();
        std::os::unix::fs::symlink("../b", root.path().join("a/link")).unwrap();
        let target =
            Arc::new(Target::open(root.path(), "a/link/kernel", quota(root.path(), 10)).unwrap());
        target.begin().unwrap().finish(None).unwrap();
        assert!(root.path().join("b/kernel").exists());
    }

    #[test]
    fn parts_of_the_dead_are_removed_and_those_of_the_living_stay() {
        let root = tempfile::tempdir().unwrap();
        let quota = quota(root.path(), 1000);
        std::fs::create_dir_all(root.path().join("a/b")).unwrap();
        std::fs::write(root.path().join("a/b/.bulkhead-part-dead"), "x").unwrap();
        std::fs::write(root.path().join("a/b/kernel"), "x").unwrap();
        let target = Arc::new(Target::open(root.path(), "kernel", quota.clone()).unwrap());
        let part = target.begin().unwrap();
        assert_eq!(sweep(root.path(), &quota).unwrap(), 1);
        assert_eq!(names(&root.path().join("a/b")), ["kernel"]);
        part.finish(None).unwrap();
        assert!(root.path().join("kernel").exists());
    }
}
