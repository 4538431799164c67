//! What all instances of one plugin share: the guard, the granted directories, the limits, the open connections.
//!
//! A change of policy reaches everything through here: directories are bound anew at the next use, and a watcher closes the
//! connections whose right is gone.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::task::AbortOnDropHandle;

use super::blocking::Blocking;
use super::mount::{Mount, Target};
use super::names::{NameLookup, NoNames};
use super::quota::{Quota, QuotaLimits};
use super::sockets::Connections;
use super::stdio::LineShare;
use crate::grant::effective::{FilesGrant, FilesTarget};
use crate::grant::{Action, Denial, Guard};

/// Open files, directories and listings of all instances of one plugin: a quarter of the 1,024 a process usually may hold.
const MAX_OPEN_FILES: u32 = 256;

/// One plugin's access to files, sockets and names.
pub struct PluginAccess {
    guard: Guard,
    resolver: Arc<dyn NameLookup>,
    mounts: Mutex<Mounts>,
    blocking: Blocking,
    connections: Connections,
    sockets: Tally,
    open_files: Tally,
    lines: Arc<LineShare>,
    watcher: Mutex<Option<AbortOnDropHandle<()>>>,
}

struct Mounts {
    /// The policy's generation they were made under.
    generation: u64,
    list: Arc<[Arc<Mount>]>,
}

impl std::fmt::Debug for PluginAccess {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("PluginAccess")
            .field("plugin", &self.guard.plugin())
            .finish_non_exhaustive()
    }
}

/// Sockets a plugin without a grant may hold: enough to be told what it may not do.
const UNGRANTED_SOCKETS: u32 = 2;

impl PluginAccess {
    /// The access of the guard's plugin. Must be called on a runtime: the watcher of policy changes lives there, and counts
    /// the directories with a quota at once.
    pub fn new(guard: Guard, resolver: Arc<dyn NameLookup>) -> Arc<Self> {
        Self::beside(guard, resolver, None)
    }

    /// [`PluginAccess::new`] for a version that takes over from another, while that one ends its calls: both count into the same
    /// quotas, sockets, open files and log lines, so that a change of versions gives nobody twice as much.
    pub fn beside(guard: Guard, resolver: Arc<dyn NameLookup>, before: Option<&Self>) -> Arc<Self> {
        let mut access = Self::unwatched(guard, resolver);
        if let Some(before) = before {
            let rights = access.guard.effective();
            // A slot that the new version has with another access counts on its own: the old one's is not to change.
            let same = |mount: &Arc<Mount>| {
                rights
                    .files
                    .get(mount.slot())
                    .is_some_and(|grant| grant.access.writes() == mount.is_writable())
            };
            let kept = before
                .mounts()
                .iter()
                .filter(|it| same(it))
                .cloned()
                .collect();
            access
                .mounts
                .get_mut()
                .unwrap_or_else(PoisonError::into_inner)
                .list = kept;
            access.sockets = before.sockets.clone();
            access.open_files = before.open_files.clone();
            access.lines = before.lines.clone();
        }
        let access = Arc::new(access);
        let watcher = AbortOnDropHandle::new(tokio::spawn(watch(
            Arc::downgrade(&access),
            access.guard.generation(),
        )));
        *access
            .watcher
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(watcher);
        access
    }

    /// No access at all, for the empty sandbox.
    pub fn nothing(plugin: &str) -> Arc<Self> {
        Arc::new(Self::unwatched(Guard::empty(plugin), Arc::new(NoNames)))
    }

    fn unwatched(guard: Guard, resolver: Arc<dyn NameLookup>) -> Self {
        let limits = guard.effective().limits.clone();
        Self {
            resolver,
            mounts: Mutex::new(Mounts {
                generation: u64::MAX,
                list: Arc::from([]),
            }),
            blocking: Blocking::new(limits.file_calls as usize),
            connections: Connections::default(),
            sockets: Tally::default(),
            open_files: Tally::default(),
            lines: Arc::new(LineShare::new(limits.log_lines)),
            watcher: Mutex::new(None),
            guard,
        }
    }

    /// The plugin's guard.
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// The lines it may log per second, however it logs.
    pub fn lines(&self) -> &Arc<LineShare> {
        &self.lines
    }

    /// The quota of a files slot, for what the host itself writes there. None: no such slot, or it is granted for reading.
    pub fn quota(&self, slot: &str) -> Option<Arc<Quota>> {
        self.mount(slot)
            .filter(|mount| mount.is_writable())
            .map(|mount| mount.quota().clone())
    }

    /// The granted directories now.
    pub(super) fn mounts(&self) -> Arc<[Arc<Mount>]> {
        let generation = self.generation();
        let mut mounts = self.mounts.lock().unwrap_or_else(PoisonError::into_inner);
        if mounts.generation != generation {
            let effective = self.guard.effective();
            let bind = |(slot, grant): (&String, &crate::grant::effective::Slot<FilesGrant>)| {
                self.bind(&mounts.list, slot, grant)
            };
            mounts.list = effective.files.iter().map(bind).collect();
            mounts.generation = generation;
        }
        mounts.list.clone()
    }

    fn bind(&self, before: &[Arc<Mount>], slot: &str, grant: &FilesGrant) -> Arc<Mount> {
        let target = match &grant.target {
            FilesTarget::Directory(path) => Target::Directory(path.clone()),
            FilesTarget::File(path) => Target::File(path.clone()),
        };
        let writable = grant.access.writes();
        let limits = if writable {
            QuotaLimits {
                bytes: Some(grant.quota.bytes),
                files: Some(grant.quota.files),
            }
        } else {
            QuotaLimits::default()
        };
        // The same place keeps its mount, and with it what is open there and what was counted.
        if let Some(same) = before
            .iter()
            .find(|mount| mount.slot() == slot && mount.is_of(&target))
        {
            same.update(writable, limits);
            return same.clone();
        }
        Arc::new(Mount::new(
            self.guard.plugin(),
            slot,
            target,
            writable,
            limits,
        ))
    }

    /// A files slot, if it is granted now.
    pub fn mount(&self, slot: &str) -> Option<Arc<Mount>> {
        self.mounts()
            .iter()
            .find(|mount| mount.slot() == slot)
            .cloned()
    }

    pub(super) fn generation(&self) -> u64 {
        self.guard.generation_now()
    }

    /// The plugin's slots for blocking work, also for what the host does with files in its name.
    pub fn blocking(&self) -> &Blocking {
        &self.blocking
    }

    pub(super) fn resolver(&self) -> &dyn NameLookup {
        &*self.resolver
    }

    pub(super) fn connections(&self) -> &Connections {
        &self.connections
    }

    /// A place for one more socket, if the policy has one left.
    pub(super) fn take_socket(&self) -> Option<Taken> {
        let most = self
            .guard
            .effective()
            .sockets
            .values()
            .map(|grant| grant.open)
            .fold(0, u32::saturating_add);
        // Without any grant a socket can be made but reach nothing: so the attempt to use it is decided, and audited.
        self.sockets
            .take(if most == 0 { UNGRANTED_SOCKETS } else { most })
    }

    /// A place for one more open file or directory, if there is one left.
    pub(super) fn take_open_file(&self) -> Option<Taken> {
        self.open_files.take(MAX_OPEN_FILES)
    }

    /// Audits what the host's own rules refused after the policy had nothing against it.
    pub fn note_refusal(&self, action: &Action<'_>, reason: &str) {
        self.guard.host().audit().record(&Denial {
            plugin: self.guard.plugin().into(),
            capability: action.capability(),
            slot: action.slot().to_owned(),
            action: action.to_string(),
            rule: "built-in".to_owned(),
            reason: reason.to_owned(),
            fix: None,
            instead: None,
        });
    }

    /// Follows a change of policy.
    fn review(&self) {
        self.connections.review(&self.guard);
        self.lines.set(self.guard.effective().limits.log_lines);
        for mount in self.mounts().iter().filter(|mount| mount.is_writable()) {
            let (mount, blocking) = (mount.clone(), self.blocking.clone());
            tokio::spawn(async move {
                // A place that cannot be counted now is counted when the plugin first writes there, which then tells it.
                if let Ok(Err(error)) = blocking.run(move || mount.quota().count_once()).await {
                    tracing::debug!(%error, "a granted place cannot be counted yet");
                }
            });
        }
    }
}

/// Reviews a plugin's access now and after each change of policy, as long as the access lives.
async fn watch(
    access: std::sync::Weak<PluginAccess>,
    mut generation: tokio::sync::watch::Receiver<u64>,
) {
    loop {
        // Seen before acting, so that a change meanwhile is not missed.
        generation.borrow_and_update();
        match access.upgrade() {
            Some(access) => access.review(),
            None => return,
        }
        if generation.changed().await.is_err() {
            return;
        }
    }
}

/// Counts things of one kind that are open at a time.
#[derive(Debug, Default, Clone)]
struct Tally(Arc<AtomicU32>);

/// One counted thing; given back when dropped.
#[derive(Debug)]
pub(super) struct Taken(Arc<AtomicU32>);

impl Tally {
    fn take(&self, most: u32) -> Option<Taken> {
        self.0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |open| {
                (open < most).then_some(open + 1)
            })
            .ok()
            .map(|_| Taken(self.0.clone()))
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_given_back_when_dropped() {
        let tally = Tally::default();
        let (one, two) = (tally.take(2), tally.take(2));
        assert!(one.is_some() && two.is_some() && tally.take(2).is_none());
        drop(one);
        assert!(tally.take(2).is_some());
    }
}
