//! A granted directory or file as a plugin sees it: the directory `/SLOT`.
//!
//! A grant of one file is the directory that holds it, showing that one name and nothing else. The plugin sees the file under the
//! last part of the path in the policy, also when the operator's path is a symbolic link: the operator named that file, so the link is
//! followed. A link that the plugin's path meets below a granted directory is another matter (see `beneath`).
//!
//! Nothing is opened before it is used, and a directory that was replaced is opened again: a
//! granted directory may appear after the plugin has started.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::quota::{Quota, QuotaLimits};
use crate::capability::beneath::open_directory;

/// What the operator granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A directory and everything below it.
    Directory(PathBuf),
    /// One file.
    File(PathBuf),
}

/// One slot of the `files` capability, bound to its place.
#[derive(Debug)]
pub struct Mount {
    slot: String,
    target: Target,
    writable: AtomicBool,
    quota: Arc<Quota>,
    opened: Mutex<Option<Opened>>,
}

#[derive(Debug, Clone)]
struct Opened {
    handle: Arc<OwnedFd>,
    inode: (u64, u64),
}

/// Where walks below a mount begin.
#[derive(Debug, Clone)]
pub struct Root {
    /// A bare handle of the directory.
    pub handle: Arc<OwnedFd>,
    /// Some: only this name exists for the plugin.
    pub only: Option<OnlyFile>,
}

/// The one name of a single-file grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnlyFile {
    /// What the plugin calls it.
    pub shown: OsString,
    /// What it is called in the directory.
    pub real: OsString,
}

impl Mount {
    /// Binds `slot` of `plugin`.
    pub fn new(
        plugin: &str,
        slot: &str,
        target: Target,
        writable: bool,
        limits: QuotaLimits,
    ) -> Self {
        let (Target::Directory(counted) | Target::File(counted)) = &target;
        let quota = Arc::new(Quota::new(plugin, slot, counted.clone(), limits));
        Self {
            slot: slot.to_owned(),
            target,
            writable: AtomicBool::new(writable),
            quota,
            opened: Mutex::new(None),
        }
    }

    /// The slot's name.
    pub fn slot(&self) -> &str {
        &self.slot
    }

    /// What is granted.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Whether the plugin may change it.
    pub fn is_writable(&self) -> bool {
        self.writable.load(Ordering::Relaxed)
    }

    /// Follows a policy that grants the same place with other rights.
    pub fn update(&self, writable: bool, limits: QuotaLimits) {
        self.writable.store(writable, Ordering::Relaxed);
        self.quota.set_limits(limits);
    }

    /// What the plugin may put there.
    pub fn quota(&self) -> &Arc<Quota> {
        &self.quota
    }

    /// The directories that absolute links may name to stay in the mount: as the policy writes it, and as the system calls it. Blocks.
    pub fn homes(&self) -> Vec<PathBuf> {
        match &self.target {
            Target::Directory(path) => fs::canonicalize(path)
                .into_iter()
                .chain([path.clone()])
                .collect(),
            Target::File(_) => Vec::new(),
        }
    }

    /// The directory as it is now. Blocks.
    ///
    /// # Errors
    /// When it does not exist or cannot be entered.
    pub fn root(&self) -> io::Result<Root> {
        match &self.target {
            Target::Directory(path) => Ok(Root {
                handle: self.open(path)?,
                only: None,
            }),
            Target::File(path) => {
                let real = match fs::canonicalize(path) {
                    Ok(real) => real,
                    // A file that does not exist yet may be created, if the grant is for writing.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => not_yet_there(path)?,
                    Err(error) => return Err(error),
                };
                let (Some(shown), Some(name), Some(directory)) =
                    (path.file_name(), real.file_name(), real.parent())
                else {
                    return Err(io::ErrorKind::IsADirectory.into());
                };
                let only = OnlyFile {
                    shown: shown.to_owned(),
                    real: name.to_owned(),
                };
                Ok(Root {
                    handle: self.open(directory)?,
                    only: Some(only),
                })
            }
        }
    }

    fn open(&self, path: &Path) -> io::Result<Arc<OwnedFd>> {
        let metadata = fs::metadata(path)?;
        let inode = (metadata.dev(), metadata.ino());
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(opened) = opened.as_ref()
            && opened.inode == inode
        {
            return Ok(opened.handle.clone());
        }
        let handle = open_directory(path)?;
        *opened = Some(Opened {
            handle: handle.clone(),
            inode,
        });
        Ok(handle)
    }
}

impl OnlyFile {
    /// The real name, if `path` is the shown one and nothing else.
    pub fn real_name(&self, path: &OsStr) -> Option<&OsStr> {
        let mut names = Path::new(path)
            .components()
            .filter(|part| *part != Component::CurDir);
        match (names.next(), names.next()) {
            (Some(Component::Normal(name)), None) if name == self.shown => Some(&self.real),
            _ => None,
        }
    }
}

fn not_yet_there(path: &Path) -> io::Result<PathBuf> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::NotFound.into());
    };
    Ok(fs::canonicalize(directory)?.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_directory_is_opened_again() {
        let tree = tempfile::tempdir().unwrap();
        let path = tree.path().join("root");
        let mount = Mount::new(
            "tftp",
            "root",
            Target::Directory(path.clone()),
            true,
            QuotaLimits::default(),
        );
        assert_eq!(mount.root().unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::create_dir(&path).unwrap();
        let first = mount.root().unwrap().handle;
        assert!(Arc::ptr_eq(&first, &mount.root().unwrap().handle));
        fs::rename(&path, tree.path().join("moved")).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(!Arc::ptr_eq(&first, &mount.root().unwrap().handle));
    }

    #[test]
    fn a_file_is_shown_under_the_name_in_the_policy() {
        let tree = tempfile::tempdir().unwrap();
        fs::write(tree.path().join("leases.7"), "x").unwrap();
        std::os::unix::fs::symlink("leases.7", tree.path().join("leases")).unwrap();
        let mount = Mount::new(
            "dhcp",
            "leases",
            Target::File(tree.path().join("leases")),
            false,
            QuotaLimits::default(),
        );
        let only = mount.root().unwrap().only.unwrap();
        assert_eq!(
            only.real_name(OsStr::new("./leases")),
            Some(OsStr::new("leases.7"))
        );
        for other in [
            "leases.7",
            "leases/..",
            "../leases",
            "/leases",
            ".",
            "x/leases",
        ] {
            assert_eq!(only.real_name(OsStr::new(other)), None, "{other}");
        }
    }
}
