//! Files of the plugin directory: which are there, which are done being written, which changed.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{Place, Record, Registry, Work};
use crate::api::control::PluginState;
use crate::plugin::inspect::{self, Wasm};
use crate::plugin::library::read_component;
use crate::plugin::load::Found;
use crate::plugin::watch::QUIET;

/// Tells whether a file is still the one that was looked at.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Stamp {
    size: u64,
    modified: Option<SystemTime>,
    inode: u64,
}

impl Stamp {
    /// Whether somebody may still be writing it. A clock that went back makes no file young.
    fn is_young(&self) -> bool {
        self.modified
            .and_then(|then| then.elapsed().ok())
            .is_some_and(|age| age < QUIET)
    }
}

/// Looks, [`QUIET`] apart, at files that do not stop changing before they are left to the watcher.
const PATIENCE: usize = 10;

/// Describing and compiling a large component takes seconds: whoever dropped it sees that it was found.
pub(super) fn told(file: &str) {
    tracing::info!(file, "looking at a plugin file");
}

impl Registry {
    /// Looks at all files, also at those that are young: who asks for it waits for the outcome.
    pub(super) async fn settled_files(&self, work: &mut Work, progress: &impl Fn(&str)) {
        for _ in 0..PATIENCE {
            if !self.look_at_files(work, progress).await {
                return;
            }
            tokio::time::sleep(QUIET).await;
        }
    }

    pub(super) async fn look_at_files(&self, work: &mut Work, progress: &impl Fn(&str)) -> bool {
        let config = self.loader.config();
        let Some(directory) = config.plugins.directory.clone() else {
            return false;
        };
        let mut unsettled = false;
        let largest = self.loader.largest_component();
        let mut present: Vec<(PathBuf, Stamp)> = match list(&directory) {
            Ok(files) => files,
            Err(error) => {
                tracing::error!(directory = %directory.display(), %error, "plugin directory not read");
                return false;
            }
        };
        present.sort_by(|one, two| one.0.cmp(&two.0));
        let gone: Vec<PathBuf> = work
            .files
            .keys()
            .filter(|known| !present.iter().any(|(path, _)| path == *known))
            .cloned()
            .collect();
        for path in gone {
            work.files.remove(&path);
            let names: Vec<String> = self
                .records
                .load()
                .iter()
                .filter(|(_, record)| record.place == Place::File(path.clone()))
                .map(|(name, _)| name.clone())
                .collect();
            for name in names {
                self.withdraw(&name, "its file was removed");
                self.forget(&name);
            }
        }
        for (path, stamp) in present {
            if work.files.get(&path) == Some(&stamp) {
                continue;
            }
            if stamp.is_young() {
                unsettled = true;
                continue;
            }
            work.files.insert(path.clone(), stamp);
            progress(&path.display().to_string());
            self.look_at_file(path, largest).await;
        }
        unsettled
    }

    async fn look_at_file(&self, path: PathBuf, largest: u64) {
        let place = Place::File(path.clone());
        let read = tokio::task::spawn_blocking(move || read_component(&path, largest)).await;
        let wasm = match read {
            Ok(Ok(wasm)) => wasm,
            Ok(Err(error)) => {
                tracing::error!(file = place.label(), %error, "plugin file not read");
                let record = Record::new(
                    place.clone(),
                    Found::default(),
                    PluginState::Failed,
                    Some(format!("not read: {error}")),
                );
                self.record(place.unnamed(), record);
                return;
            }
            Err(_) => return,
        };
        let digest = inspect::digest(&wasm);
        if let Err(error) = self.library.keep(&digest, &wasm) {
            tracing::warn!(file = place.label(), %error, "no copy kept; a rollback to this version will not be possible");
        }
        let withdrawn = self
            .records
            .load()
            .iter()
            .any(|(name, record)| record.place == place && self.is_withdrawn(name, &digest));
        if withdrawn {
            return;
        }
        let wasm = Wasm {
            bytes: &wasm,
            digest: &digest,
        };
        self.load(place, &wasm, None).await;
    }

    /// Whether the operator went back from this version of a plugin.
    pub(super) fn is_withdrawn(&self, name: &str, digest: &str) -> bool {
        self.library
            .history(name)
            .is_some_and(|it| it.withdrawn.as_deref() == Some(digest))
    }
}

fn list(directory: &Path) -> std::io::Result<Vec<(PathBuf, Stamp)>> {
    use std::os::unix::fs::MetadataExt;
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let hidden = path
            .file_name()
            .is_none_or(|it| it.as_encoded_bytes().starts_with(b"."));
        if hidden || path.extension().is_none_or(|it| it != "wasm") {
            continue;
        }
        // A link is looked through: operators link versions into place. A file that vanished meanwhile is not there.
        let Ok(found) = std::fs::metadata(&path) else {
            continue;
        };
        files.push((
            path,
            Stamp {
                size: found.len(),
                modified: found.modified().ok(),
                inode: found.ino(),
            },
        ));
    }
    Ok(files)
}
