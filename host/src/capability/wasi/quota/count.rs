//! Reading a whole tree to count what it holds.

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags};

use super::Usage;

/// Reads the whole tree, or the one file. What vanishes meanwhile or may not be read is passed over: it cannot be counted.
pub(super) fn count_tree(place: &Path) -> io::Result<Usage> {
    let mut usage = Usage::default();
    match std::fs::symlink_metadata(place) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(metadata) => {
            return Ok(Usage {
                bytes: metadata.len(),
                files: 1,
            });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(usage),
        Err(error) => return Err(error),
    }
    let mut several_names = HashSet::new();
    let root = rustix::fs::openat(
        &*crate::capability::beneath::open_directory(place)?,
        ".",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let mut unread = vec![(Arc::new(root), None::<std::ffi::CString>)];
    while let Some((parent, name)) = unread.pop() {
        let directory = match name {
            None => parent,
            Some(name) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                match rustix::fs::openat(&*parent, name, flags, Mode::empty()) {
                    Ok(directory) => Arc::<OwnedFd>::new(directory),
                    Err(_) => continue,
                }
            }
        };
        let Ok(entries) = rustix::fs::Dir::read_from(&*directory) else {
            continue;
        };
        for entry in entries {
            let Ok(entry) = entry else { break };
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            usage.files += 1;
            let Ok(stat) = rustix::fs::statat(&*directory, name, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
                rustix::fs::FileType::Directory => {
                    unread.push((directory.clone(), Some(name.to_owned())))
                }
                rustix::fs::FileType::RegularFile
                    if stat.st_nlink <= 1 || several_names.insert((stat.st_dev, stat.st_ino)) =>
                {
                    usage.bytes = usage
                        .bytes
                        .saturating_add(u64::try_from(stat.st_size).unwrap_or(0));
                }
                _ => {}
            }
        }
    }
    Ok(usage)
}
