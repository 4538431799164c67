//! Watches the plugin and policy directories.
//!
//! Events are only a hint: they are gathered until the directories have been quiet, but not for long, since a right that was taken away in one file
//! must not wait for another file that is still being copied; then the registry looks at the files themselves. A slow look every [`SLOW_LOOK`] covers file systems that send no events.

use std::path::PathBuf;
use std::time::Duration;

use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc;

/// How long a directory must be quiet before it is looked at: a copy in progress writes more often.
pub const QUIET: Duration = Duration::from_millis(150);
/// How long events are gathered at most: with the look itself, less than the second in which a revoked right ends.
const GATHER: Duration = Duration::from_millis(400);
/// Looks without any event.
const SLOW_LOOK: Duration = Duration::from_secs(30);

/// Watches directories for as long as it lives.
pub struct Watch {
    watcher: Option<notify::RecommendedWatcher>,
    events: mpsc::Receiver<()>,
}

impl Watch {
    /// Starts to watch. Directories that cannot be watched are looked at every 30 s, and the log says so.
    #[must_use]
    pub fn start(directories: &[PathBuf]) -> Self {
        let (sender, events) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // A full channel already says "look". Reading a file is no change.
            if !matches!(
                event,
                Ok(notify::Event {
                    kind: notify::EventKind::Access(_),
                    ..
                })
            ) {
                let _ = sender.try_send(());
            }
        });
        let watcher = match watcher {
            Ok(mut watcher) => {
                for directory in directories {
                    if let Err(error) = watcher.watch(directory, RecursiveMode::NonRecursive) {
                        tracing::warn!(directory = %directory.display(), %error, "not watched; looked at every 30 s");
                    }
                }
                Some(watcher)
            }
            Err(error) => {
                tracing::warn!(%error, "no file events on this system; directories are looked at every 30 s");
                None
            }
        };
        Self { watcher, events }
    }

    /// Waits until it is time to look again.
    pub async fn changed(&mut self) {
        if self.watcher.is_none() {
            tokio::time::sleep(SLOW_LOOK).await;
            return;
        }
        if tokio::time::timeout(SLOW_LOOK, self.events.recv())
            .await
            .is_ok()
        {
            let gathering = async {
                while let Ok(Some(())) = tokio::time::timeout(QUIET, self.events.recv()).await {}
            };
            let _ = tokio::time::timeout(GATHER, gathering).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_directory_that_is_never_quiet_is_looked_at_all_the_same() {
        let place = tempfile::tempdir().unwrap();
        let mut watch = Watch::start(&[place.path().to_owned()]);
        let path = place.path().join("growing.wasm");
        let writer = tokio::spawn(async move {
            loop {
                std::fs::write(&path, b"x").unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        tokio::time::timeout(Duration::from_secs(10), watch.changed())
            .await
            .unwrap();
        writer.abort();
    }

    #[tokio::test]
    async fn a_new_file_is_noticed_at_once() {
        let place = tempfile::tempdir().unwrap();
        let mut watch = Watch::start(&[place.path().to_owned()]);
        let path = place.path().join("a.wasm");
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            std::fs::write(path, b"x").unwrap();
        });
        tokio::time::timeout(Duration::from_secs(5), watch.changed())
            .await
            .unwrap();
    }
}
