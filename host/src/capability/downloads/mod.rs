//! The `downloads` capability: files that the host fetches in the background into a granted directory.
//!
//! It refuses URLs, redirects and addresses that the policy does not name, paths that leave the directory, more downloads at once than
//! granted, files beyond their size, time or quota, and to save an error page as a file. A right that is taken away stops what runs under it.
//!
//! The one idea: a target is fetched by at most one download at a time (single flight), into a part file beside it (`part.rs`); a
//! reader of the tree sees the old file or the new one.

mod fetch;
pub mod part;
mod problem;
mod track;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::capability::upstream::dial::Dialer;
use crate::capability::wasi::quota::Quota;
use crate::grant::effective::DownloadsGrant;
use crate::grant::matchers::url::{TargetUrl, UrlProblem};
use crate::grant::{Action, Guard, without_query};
use crate::sandbox::bindings::imports::downloads as contract;
use crate::telemetry::labels::DownloadEnd;
use crate::telemetry::metrics::Metrics;
use fetch::{Fetched, Job, Resume};
use part::Target;
use problem::Problem;
use track::{Stage, Track, Tracks};

/// The longest path of a target in bytes; Linux takes 4,096 for the whole.
const MAX_PATH_BYTES: usize = 1024;

/// How downloads are tried again.
#[derive(Debug, Clone, Copy)]
pub struct Retries {
    /// Tries after the first.
    pub times: u32,
    /// The pause before each.
    pub delay: Duration,
}

impl Default for Retries {
    /// What the contract says: three, ten seconds apart.
    fn default() -> Self {
        Retries {
            times: 3,
            delay: Duration::from_secs(10),
        }
    }
}

/// The capability itself; one a host, cheap to clone.
#[derive(Debug, Clone)]
pub struct Downloads {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dialer: Dialer,
    metrics: Arc<Metrics>,
    retries: Retries,
    plugins: Mutex<HashMap<String, Tracks>>,
}

impl Downloads {
    /// A capability that connects by `dialer`.
    pub fn new(dialer: Dialer, metrics: Arc<Metrics>, retries: Retries) -> Self {
        Downloads {
            shared: Arc::new(Shared {
                dialer,
                metrics,
                retries,
                plugins: Mutex::default(),
            }),
        }
    }

    /// Starts a download and returns at once. `quota` answers the quota of a files slot: that of the slot which the grant names with `into`
    /// is charged.
    pub fn fetch(
        &self,
        guard: &Guard,
        quota: impl FnOnce(&str) -> Option<Arc<Quota>>,
        slot: &str,
        url: &str,
        path: &str,
    ) -> Result<(), contract::Error> {
        let path = normal_path(path).map_err(contract::Error::Invalid)?;
        let url = parse_url(url).map_err(contract::Error::Invalid)?;
        let denied = |action: Action<'_>| {
            guard
                .decide(&action)
                .check()
                .map_err(|denial| contract::Error::Denied(denial.to_string()))
        };
        denied(Action::Download { slot, url: &url })?;
        let effective = guard.effective();
        let gone = || contract::Error::Denied(format!("downloads {slot:?} is no longer granted"));
        let grant = effective.downloads.get(slot).ok_or_else(gone)?.share();
        denied(Action::FileOpen {
            slot: &grant.into,
            path: &path,
            write: true,
        })?;
        effective
            .files
            .get(&grant.into)
            .and_then(|files| files.directory())
            .ok_or_else(gone)?;
        let quota = quota(&grant.into).ok_or_else(gone)?;
        let root = quota.place().to_owned();
        let Some((track, places)) = self.enlist(guard, slot, &path, &url, &grant)? else {
            return Ok(());
        };
        let job = Start {
            guard: guard.clone(),
            slot: slot.into(),
            url,
            path,
            grant,
            root,
            quota,
            track,
            places,
        };
        drop(self.shared.dialer.io().spawn(run(self.shared.clone(), job)));
        Ok(())
    }

    /// How far the download to a path is; none when nothing is known about it.
    pub fn query(&self, guard: &Guard, slot: &str, path: &str) -> Option<contract::Progress> {
        let path = normal_path(path).ok()?;
        let plugins = self
            .shared
            .plugins
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let track = plugins
            .get(guard.plugin())?
            .by_target
            .get(&(slot.to_owned(), path))?
            .clone();
        drop(plugins);
        Some(track.progress())
    }

    /// Removes what downloads of a host that was killed have left behind. Blocks while it reads the granted directories.
    pub fn sweep(guard: &Guard, quota: impl Fn(&str) -> Option<Arc<Quota>>) {
        let effective = guard.effective();
        for grant in effective.downloads.values() {
            let is_directory = effective
                .files
                .get(&grant.into)
                .is_some_and(|files| files.directory().is_some());
            let Some(quota) = quota(&grant.into).filter(|_| is_directory) else {
                continue;
            };
            let root = quota.place();
            match part::sweep(root, &quota) {
                Ok(0) => {}
                Ok(removed) => {
                    tracing::info!(target: "downloads", plugin = guard.plugin(), root = %root.display(), removed, "removed unfinished downloads of an earlier run")
                }
                Err(error) => {
                    tracing::warn!(target: "downloads", plugin = guard.plugin(), root = %root.display(), %error, "unfinished downloads of an earlier run could not be looked for")
                }
            }
        }
    }

    /// None: the target is being fetched already.
    fn enlist(
        &self,
        guard: &Guard,
        slot: &str,
        path: &str,
        url: &str,
        grant: &DownloadsGrant,
    ) -> Result<Option<Enlisted>, contract::Error> {
        let mut plugins = self
            .shared
            .plugins
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let tracks = plugins.entry(guard.plugin().to_owned()).or_default();
        let target = (slot.to_owned(), path.to_owned());
        if tracks
            .by_target
            .get(&target)
            .is_some_and(|track| track.is_active())
        {
            return Ok(None);
        }
        let active = tracks
            .by_target
            .iter()
            .filter(|((of, _), track)| of == slot && track.is_active())
            .count();
        let allowed = u64::from(grant.concurrent.max(1)).saturating_add(grant.queue.into());
        if u64::try_from(active).unwrap_or(u64::MAX) >= allowed {
            self.shared
                .metrics
                .plugin(guard.plugin())
                .downloaded(DownloadEnd::Refused);
            return Err(contract::Error::Busy);
        }
        let places = tracks.places(slot, grant.concurrent);
        let track = Arc::new(Track {
            stage: Mutex::new(Stage::Waiting),
            received: AtomicU64::new(0),
            total: AtomicU64::new(u64::MAX),
            url: Mutex::new(url.to_owned()),
            metrics: self.shared.metrics.plugin(guard.plugin()),
        });
        tracks.by_target.insert(target, track.clone());
        Ok(Some((track, places)))
    }
}

/// What a download that was let in reports to, and where it waits for its turn.
type Enlisted = (Arc<Track>, Arc<Semaphore>);

/// A download that was let in.
struct Start {
    guard: Guard,
    slot: String,
    url: String,
    path: String,
    grant: Arc<DownloadsGrant>,
    root: PathBuf,
    quota: Arc<Quota>,
    track: Arc<Track>,
    places: Arc<Semaphore>,
}

async fn run(shared: Arc<Shared>, start: Start) {
    let metrics = start.track.metrics.clone();
    metrics.downloads_running.inc();
    let (plugin, slot, path, url) = (
        start.guard.plugin().to_owned(),
        start.slot.clone(),
        start.path.clone(),
        without_query(&start.url).to_owned(),
    );
    let track = start.track.clone();
    let began = std::time::Instant::now();
    let outcome = supervised(&shared, start).await;
    let milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    metrics.downloads_running.dec();
    match &outcome {
        Ok(Fetched::Saved { bytes }) => {
            tracing::info!(target: "downloads", plugin, slot, path, url, bytes, milliseconds, "downloaded")
        }
        Ok(Fetched::Unchanged) => {
            tracing::info!(target: "downloads", plugin, slot, path, url, milliseconds, "the present file is as new as the server's")
        }
        Err(problem) => {
            tracing::warn!(target: "downloads", plugin, slot, path, url, milliseconds, reason = %problem, "download failed")
        }
    }
    metrics.downloaded(match outcome {
        Ok(Fetched::Saved { .. }) => DownloadEnd::Done,
        Ok(Fetched::Unchanged) => DownloadEnd::Unchanged,
        Err(_) => DownloadEnd::Failed,
    });
    track.set(outcome.map_or_else(
        |problem| Stage::Failed(problem.to_string()),
        |_| Stage::Done,
    ));
    let mut plugins = shared
        .plugins
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    plugins
        .entry(plugin)
        .or_default()
        .remember_end((slot, path));
}

/// Waits for a place, then tries until it is done, time is over or the right is gone.
async fn supervised(shared: &Shared, start: Start) -> Result<Fetched, Problem> {
    let limit = start.grant.time;
    let gone = gone(
        start.guard.clone(),
        start.slot.clone(),
        start.grant.into.clone(),
        start.path.clone(),
        start.track.clone(),
    );
    let work = async {
        let _place = start
            .places
            .clone()
            .acquire_owned()
            .await
            .map_err(|_| Problem::Denied("the host is stopping".into()))?;
        start.track.set(Stage::Running);
        tracing::info!(target: "downloads", plugin = start.guard.plugin(), slot = start.slot, path = start.path, url = without_query(&start.url), "download started");
        tokio::time::timeout(limit, tries(shared, start))
            .await
            .unwrap_or(Err(Problem::TooSlow { limit }))
    };
    tokio::select! {
        outcome = work => outcome,
        text = gone => Err(Problem::Denied(text)),
    }
}

async fn tries(shared: &Shared, start: Start) -> Result<Fetched, Problem> {
    let Start {
        guard,
        slot,
        url,
        path,
        grant,
        root,
        quota,
        track,
        ..
    } = start;
    let opening = tokio::task::spawn_blocking(move || Target::open(&root, &path, quota)).await;
    let target = opening.map_err(|error| Problem::Disk {
        reason: error.to_string(),
    })??;
    let job = Job {
        dialer: shared.dialer.clone(),
        guard,
        slot,
        url,
        grant,
        target: Arc::new(target),
        track,
    };
    let mut resume = Resume::default();
    let mut tried = 0;
    loop {
        let problem = match fetch::fetch(&job, &mut resume).await {
            Ok(fetched) => return Ok(fetched),
            Err(problem) => problem,
        };
        if tried == shared.retries.times || !problem.is_passing() {
            return Err(problem);
        }
        tried += 1;
        tracing::debug!(target: "downloads", plugin = job.guard.plugin(), slot = job.slot, url = job.url, tried, reason = %problem, "trying again");
        tokio::time::sleep(shared.retries.delay).await;
    }
}

/// Resolves when a right that the download needs is gone.
async fn gone(guard: Guard, slot: String, into: String, path: String, track: Arc<Track>) -> String {
    let mut rights = guard.generation();
    loop {
        let url = track
            .url
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let download = Action::Download {
            slot: &slot,
            url: &url,
        };
        for action in [
            download,
            Action::FileOpen {
                slot: &into,
                path: &path,
                write: true,
            },
        ] {
            if !guard.still_allows(&action) {
                return format!("plugin `{}` may no longer {action}", guard.plugin());
            }
        }
        if rights.changed().await.is_err() {
            return "the plugin is gone".into();
        }
    }
}

/// A relative path of plain names, without the slash that may lead it.
fn normal_path(path: &str) -> Result<String, String> {
    let path = path.strip_prefix('/').unwrap_or(path);
    if path.is_empty() || path.len() > MAX_PATH_BYTES {
        return Err(format!("a path of 1 to {MAX_PATH_BYTES} bytes is wanted"));
    }
    for name in path.split('/') {
        if matches!(name, "" | "." | "..") || name.len() > 255 || name.chars().any(char::is_control)
        {
            return Err("the path is not made of plain names".into());
        }
        if name.starts_with(part::PREFIX) {
            return Err(format!(
                "names that begin with {:?} are the host's",
                part::PREFIX
            ));
        }
    }
    Ok(path.to_owned())
}

fn parse_url(text: &str) -> Result<String, String> {
    let url = url::Url::parse(text).map_err(|error| format!("not a URL: {error}"))?;
    let url = normal_url(url).ok_or_else(|| UrlProblem::Scheme.to_string())?;
    TargetUrl::parse(&url).map_err(|problem| format!("the URL {problem}"))?;
    Ok(url)
}

/// The form that is decided and sent: no fragment, no doubled slashes (which installation media are often written with).
fn normal_url(mut url: url::Url) -> Option<String> {
    if !matches!(url.scheme(), "http" | "https") {
        return None;
    }
    url.set_fragment(None);
    let mut path = url.path().to_owned();
    while path.contains("//") {
        path = path.replace("//", "/");
    }
    url.set_path(&path);
    Some(url.into())
}
