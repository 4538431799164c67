//! Copies of third parties' components, so that what runs cannot change under the host and the last good version can come back.
//!
//! A file of the plugin directory is read once, whole, and copied here under its digest before anything else looks at it. For each
//! plugin the library remembers which digest ran last and which ran before: `plugin rollback` and a start with a broken new file use them.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::grant::edit::write_whole;

/// Copies and history of plugins in the state directory.
pub struct Library {
    directory: PathBuf,
    history: Mutex<BTreeMap<String, History>>,
}

/// Which versions of a plugin ran.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Digest of the version that runs, or ran last.
    pub current: String,
    /// Digest of the good version before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
    /// A digest the operator rolled back from: not loaded again until the file changes or it is approved anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub withdrawn: Option<String>,
}

/// The library cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct LibraryError {
    path: PathBuf,
    reason: String,
}

impl Library {
    /// Opens the library, making it when missing.
    pub fn open(directory: PathBuf) -> Result<Self, LibraryError> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .map_err(|error| failed(&directory, &error))?;
        let path = directory.join(HISTORY);
        let history = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                let help = "restore it from a backup, or remove it, and which versions ran before is forgotten";
                failed(&path, &format!("{error}; {help}"))
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(failed(&path, &error)),
        };
        Ok(Self {
            directory,
            history: Mutex::new(history),
        })
    }

    /// Keeps a copy of a component under its digest.
    pub fn keep(&self, digest: &str, wasm: &[u8]) -> Result<(), LibraryError> {
        let path = self.path(digest);
        if path.exists() {
            return Ok(());
        }
        write_whole(&path, wasm).map_err(|error| failed(&path, &error))
    }

    /// The bytes of a copy, if it is still what its name says.
    #[must_use]
    pub fn read(&self, digest: &str) -> Option<Vec<u8>> {
        let wasm = std::fs::read(self.path(digest)).ok()?;
        (super::inspect::digest(&wasm) == digest).then_some(wasm)
    }

    /// What is known of a plugin.
    #[must_use]
    pub fn history(&self, plugin: &str) -> Option<History> {
        self.lock().get(plugin).cloned()
    }

    /// A version runs now; the one that ran before can be returned to.
    pub fn runs(&self, plugin: &str, digest: &str) -> Result<(), LibraryError> {
        self.change(plugin, |history| {
            if history.current != digest {
                let before = std::mem::replace(&mut history.current, digest.to_owned());
                history.previous = (!before.is_empty()).then_some(before);
            }
            if history.withdrawn.as_deref() == Some(digest) {
                history.withdrawn = None;
            }
        })
    }

    /// The operator went back from `from` to `to`.
    pub fn rolled_back(&self, plugin: &str, from: &str, to: &str) -> Result<(), LibraryError> {
        self.change(plugin, |history| {
            history.current = to.to_owned();
            history.previous = Some(from.to_owned());
            history.withdrawn = Some(from.to_owned());
        })
    }

    /// The file that was rolled back from may be loaded again.
    pub fn reinstate(&self, plugin: &str) -> Result<(), LibraryError> {
        self.change(plugin, |history| history.withdrawn = None)
    }

    fn change(&self, plugin: &str, change: impl FnOnce(&mut History)) -> Result<(), LibraryError> {
        let mut all = self.lock();
        let mut next = all.clone();
        change(next.entry(plugin.to_owned()).or_default());
        if next == *all {
            return Ok(());
        }
        let path = self.directory.join(HISTORY);
        let text = serde_json::to_vec_pretty(&next).map_err(|error| failed(&path, &error))?;
        write_whole(&path, &text).map_err(|error| failed(&path, &error))?;
        *all = next;
        self.sweep(&all);
        Ok(())
    }

    /// Removes copies that no history names.
    fn sweep(&self, history: &BTreeMap<String, History>) {
        let named = |file: &str| {
            history.values().any(|it| {
                [
                    Some(&it.current),
                    it.previous.as_ref(),
                    it.withdrawn.as_ref(),
                ]
                .into_iter()
                .flatten()
                .any(|digest| file_name(digest) == file)
            })
        };
        let Ok(entries) = std::fs::read_dir(&self.directory) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let old = entry
                .metadata()
                .ok()
                .and_then(|it| it.modified().ok()?.elapsed().ok())
                .is_some_and(|age| age > KEEP_UNNAMED);
            if name.ends_with(".wasm") && old && !named(&name) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    fn path(&self, digest: &str) -> PathBuf {
        self.directory.join(file_name(digest))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, History>> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const HISTORY: &str = "history.json";
/// A copy that waits for approval is in no history yet.
const KEEP_UNNAMED: std::time::Duration = std::time::Duration::from_secs(7 * 24 * 3600);

/// Reads a component file of the plugin directory: a regular file of bounded size, opened without waiting.
pub fn read_component(path: &Path, largest: u64) -> std::io::Result<Vec<u8>> {
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(
            (rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC)
                .bits()
                .cast_signed(),
        )
        .open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    if found.len() > largest {
        return Err(std::io::Error::other(format!(
            "{} bytes; engine.plugin-size allows {largest}",
            found.len()
        )));
    }
    let mut wasm = Vec::new();
    file.take(largest + 1).read_to_end(&mut wasm)?;
    if wasm.len() as u64 > largest {
        return Err(std::io::Error::other(format!(
            "it grows beyond engine.plugin-size = {largest}"
        )));
    }
    Ok(wasm)
}

fn file_name(digest: &str) -> String {
    format!("{}.wasm", digest.replace(':', "-"))
}

fn failed(path: &Path, error: &dyn std::fmt::Display) -> LibraryError {
    LibraryError {
        path: path.to_owned(),
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_before_is_remembered_over_a_restart() {
        let place = tempfile::tempdir().unwrap();
        let library = Library::open(place.path().join("plugins")).unwrap();
        library.runs("a", "sha256:1").unwrap();
        library.runs("a", "sha256:1").unwrap();
        library.runs("a", "sha256:2").unwrap();
        let library = Library::open(place.path().join("plugins")).unwrap();
        let history = library.history("a").unwrap();
        assert_eq!(
            (history.current.as_str(), history.previous.as_deref()),
            ("sha256:2", Some("sha256:1"))
        );
    }

    #[test]
    fn a_version_that_was_rolled_back_from_stays_out_until_reinstated() {
        let place = tempfile::tempdir().unwrap();
        let library = Library::open(place.path().join("plugins")).unwrap();
        library.runs("a", "sha256:1").unwrap();
        library.runs("a", "sha256:2").unwrap();
        library.rolled_back("a", "sha256:2", "sha256:1").unwrap();
        assert_eq!(
            library.history("a").unwrap().withdrawn.as_deref(),
            Some("sha256:2")
        );
        library.reinstate("a").unwrap();
        assert_eq!(library.history("a").unwrap().withdrawn, None);
    }

    #[test]
    fn a_copy_that_changed_on_disk_is_not_read() {
        let place = tempfile::tempdir().unwrap();
        let library = Library::open(place.path().to_owned()).unwrap();
        let digest = super::super::inspect::digest(b"good");
        library.keep(&digest, b"good").unwrap();
        assert_eq!(library.read(&digest).as_deref(), Some(&b"good"[..]));
        std::fs::write(library.path(&digest), b"evil").unwrap();
        assert_eq!(library.read(&digest), None);
    }

    #[test]
    fn special_files_and_giants_are_not_read() {
        let place = tempfile::tempdir().unwrap();
        let fifo = place.path().join("x.wasm");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR).unwrap();
        assert!(read_component(&fifo, 100).is_err());
        let big = place.path().join("y.wasm");
        std::fs::write(&big, [0; 101]).unwrap();
        assert!(read_component(&big, 100).is_err());
    }
}
