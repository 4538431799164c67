//! Tells when watched files change, of one plugin's rights as they were when it began.
//!
//! It refuses to say what changed: the plugin looks itself. Events are gathered for [`QUIET`] and told once a slot.
//!
//! The one idea: the directories are watched, not the files, so that a file that is renamed over is seen, and one that does not exist
//! yet as well. A slow look covers file systems that send no events, and directories that come later.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::grant::Effective;
use crate::grant::effective::WatchPlace;

/// From the first event to telling: a server that appends ten lines wakes the plugin once.
const QUIET: Duration = Duration::from_millis(30);
/// Looks without any event.
const SLOW_LOOK: Duration = Duration::from_secs(5);
/// Events that wait to be gathered; more say nothing new.
const EVENTS: usize = 256;

/// Follows the watch slots of a plugin as long as it lives.
pub struct Follow {
    slots: Vec<(String, WatchPlace)>,
    seen: HashMap<PathBuf, Option<Look>>,
    watcher: Option<notify::RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
    events: mpsc::Receiver<PathBuf>,
    /// Slots to be told of, and when.
    gathered: BTreeSet<String>,
    told_at: Option<Instant>,
    look_at: Instant,
}

/// Enough to see that a file is another.
type Look = (u64, u64, Option<SystemTime>);

impl Follow {
    /// Begins to follow. None: the plugin has no watch slot.
    #[must_use]
    pub fn start(rights: &Effective) -> Option<Self> {
        if rights.watch.is_empty() {
            return None;
        }
        let slots: Vec<_> = rights
            .watch
            .iter()
            .map(|(slot, grant)| (slot.clone(), grant.place.clone()))
            .collect();
        let (sender, events) = mpsc::channel(EVENTS);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading a file is no change.
            if let Ok(event) = event
                && !matches!(event.kind, notify::EventKind::Access(_))
            {
                for path in event.paths {
                    let _ = sender.try_send(path);
                }
            }
        });
        let watcher = watcher
            .inspect_err(|error| tracing::warn!(%error, "no file events on this system; watched files are looked at every 5 s"))
            .ok();
        let mut follow = Self {
            slots,
            seen: HashMap::new(),
            watcher,
            watched: BTreeSet::new(),
            events,
            gathered: BTreeSet::new(),
            told_at: None,
            look_at: Instant::now() + SLOW_LOOK,
        };
        follow.cover();
        follow.look();
        Some(follow)
    }

    /// Waits for changes; answers the slots concerned. Dropping the future loses nothing: what was gathered is told by the next.
    pub async fn changed(&mut self) -> Vec<String> {
        loop {
            let told = self.told_at.unwrap_or(self.look_at);
            match tokio::time::timeout_at(told, self.events.recv()).await {
                Ok(Some(path)) => {
                    self.note(&path);
                    if !self.gathered.is_empty() && self.told_at.is_none() {
                        self.told_at = Some(Instant::now() + QUIET);
                    }
                    continue;
                }
                // Without a watcher the channel is closed, which must not spin.
                Ok(None) => tokio::time::sleep_until(told).await,
                Err(_) => {}
            }
            // Files that send no events, and those gathered are not told again by the next look.
            let news = self.look();
            self.gathered.extend(news);
            if self.told_at.take().is_none() {
                self.cover();
            }
            self.look_at = Instant::now() + SLOW_LOOK;
            if !self.gathered.is_empty() {
                return std::mem::take(&mut self.gathered).into_iter().collect();
            }
        }
    }

    fn note(&mut self, path: &Path) {
        for (slot, place) in &self.slots {
            let concerned = match place {
                WatchPlace::Directory(directory) => path.starts_with(directory),
                WatchPlace::Files(files) => files.iter().any(|file| {
                    file == path || std::fs::canonicalize(file).is_ok_and(|real| real == path)
                }),
            };
            if concerned {
                self.gathered.insert(slot.clone());
            }
        }
    }

    /// Watches what is not watched yet.
    fn cover(&mut self) {
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        let mut wanted = Vec::new();
        for (_, place) in &self.slots {
            match place {
                WatchPlace::Directory(directory) => {
                    wanted.push((directory.clone(), RecursiveMode::Recursive));
                }
                WatchPlace::Files(files) => {
                    for file in files {
                        let real = std::fs::canonicalize(file).ok();
                        for path in std::iter::once(file).chain(&real) {
                            if let Some(parent) = path.parent() {
                                wanted.push((parent.to_owned(), RecursiveMode::NonRecursive));
                            }
                        }
                    }
                }
            }
        }
        for (directory, mode) in wanted {
            if !self.watched.contains(&directory) && watcher.watch(&directory, mode).is_ok() {
                self.watched.insert(directory);
            }
        }
    }

    /// Looks at the files themselves; answers the slots of those that are others now.
    fn look(&mut self) -> BTreeSet<String> {
        let mut changed = BTreeSet::new();
        for (slot, place) in &self.slots {
            for path in place.paths() {
                let now = std::fs::metadata(path).ok().map(|found| {
                    use std::os::unix::fs::MetadataExt;
                    (found.ino(), found.len(), found.modified().ok())
                });
                let before = self.seen.insert(path.clone(), now);
                if before.is_some_and(|before| before != now) {
                    changed.insert(slot.clone());
                }
            }
        }
        changed
    }
}
