//! A granted directory or file as a plugin sees it: the directory `/SLOT`.
//!
//! A grant of one file is the directory that holds it, showing that one name and nothing else. The plugin sees the file under the
//! last part of the path in the policy, also when the operator's path is a symbolic link: the operator named that file, so the link is
//! followed. A link that the plugin's path meets below a granted directory is another matter (see `beneath`).
//!
//! Nothing is opened before it is used, and a directory that was replaced by another is opened again: a granted directory may
//! appear after the plugin has started. Links in the operator's own path are followed once, when the policy is taken over; a link that takes
//! the place of the directory later leads nowhere, until the policies are read again.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::quota::{Quota, QuotaLimits};
use crate::capability::beneath::open_directory;
use crate::grant::policy::real_place;

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
    /// The target without links, as it was when it was granted.
    place: PathBuf,
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
        let place = target.place_now();
        let quota = Arc::new(Quota::new(plugin, slot, place.clone(), limits));
        Self {
            slot: slot.to_owned(),
            target,
            place,
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

    /// Whether it is the mount of this target, and the target's path still leads to the same place.
    pub fn is_of(&self, target: &Target) -> bool {
        self.target == *target && self.place == target.place_now()
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

    /// The directories that absolute links may name to stay in the mount: as the policy writes it, and as the system calls it.
    pub fn homes(&self) -> Vec<PathBuf> {
        match &self.target {
            Target::Directory(path) => vec![self.place.clone(), path.clone()],
            Target::File(_) => Vec::new(),
        }
    }

    /// The directory as it is now. Blocks.
    ///
    /// # Errors
    /// When it does not exist or cannot be entered.
    pub fn root(&self) -> io::Result<Root> {
        match &self.target {
            Target::Directory(_) => Ok(Root {
                handle: self.open(&self.place)?,
                only: None,
            }),
            Target::File(path) => {
                let (Some(shown), Some(name), Some(directory)) = (
                    path.file_name(),
                    self.place.file_name(),
                    self.place.parent(),
                ) else {
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
        let handle = open_directory(path)?;
        let stat = rustix::fs::fstat(&*handle)?;
        let inode = (stat.st_dev, stat.st_ino);
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(opened) = opened.as_ref()
            && opened.inode == inode
        {
            return Ok(opened.handle.clone());
        }
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

impl Target {
    fn place_now(&self) -> PathBuf {
        let (Self::Directory(path) | Self::File(path)) = self;
        real_place(path)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_link_in_the_place_of_the_directory_leads_nowhere() {
        let tree = tempfile::tempdir().unwrap();
        let (path, outside) = (tree.path().join("root"), tree.path().join("outside"));
        fs::create_dir(&path).unwrap();
        fs::create_dir(&outside).unwrap();
        let target = Target::Directory(path.clone());
        let mount = Mount::new("p", "root", target.clone(), true, QuotaLimits::default());
        mount.root().unwrap();
        fs::rename(&path, tree.path().join("moved")).unwrap();
        std::os::unix::fs::symlink(&outside, &path).unwrap();
        assert_eq!(
            mount.root().unwrap_err().kind(),
            io::ErrorKind::NotADirectory
        );
        // Reading the policies again is the operator's word that the link is meant.
        assert!(!mount.is_of(&target));
        let again = Mount::new("p", "root", target, true, QuotaLimits::default());
        again.root().unwrap();
    }

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
