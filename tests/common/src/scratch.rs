//! A directory of a test's own, on a file system in memory where there is one.
//!
//! Latency promises are made for a state directory whose `fsync` costs nothing; a slow disk of the machine under test
//! would otherwise be measured instead of the program.

use std::fs;
use std::path::{Path, PathBuf};

/// A directory that vanishes with this value.
#[derive(Debug)]
pub struct Scratch {
    directory: tempfile::TempDir,
}

impl Scratch {
    /// Makes an empty directory. Its path is free of symbolic links.
    pub fn new() -> Self {
        let shm = Path::new("/dev/shm");
        let parent = if shm.is_dir() {
            shm.to_owned()
        } else {
            std::env::temp_dir()
        };
        let parent = parent
            .canonicalize()
            .expect("the directory for temporary files exists");
        let directory = tempfile::Builder::new()
            .prefix("bulkhead-test-")
            .tempdir_in(parent)
            .expect("a temporary directory can be made");
        Self { directory }
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A path below it; nothing is created.
    pub fn join(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.path().join(relative)
    }

    /// Makes a directory below it, parents included.
    pub fn directory(&self, relative: &str) -> PathBuf {
        let path = self.join(relative);
        fs::create_dir_all(&path).expect("a directory can be made");
        path
    }

    /// Writes a file below it, parents included, readable by its owner alone.
    pub fn file(&self, relative: &str, content: impl AsRef<[u8]>) -> PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.join(relative);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).expect("a directory can be made");
        }
        fs::write(&path, content).expect("a file can be written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
            .expect("permissions can be set");
        path
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

/// Every regular file below a directory with its content, by relative path. Links are not followed.
pub fn files_below(root: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        let Ok(entries) = fs::read_dir(&directory) else {
            continue;
        };
        for entry in entries.flatten() {
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            if kind.is_dir() {
                open.push(entry.path());
            } else if kind.is_file() {
                let path = entry.path();
                let name = path
                    .strip_prefix(root)
                    .expect("found below root")
                    .display()
                    .to_string();
                // A file may vanish between the listing and the reading: temporary files do.
                if let Ok(content) = fs::read(&path) {
                    found.push((name, content));
                }
            }
        }
    }
    found.sort();
    found
}
