//! What is known of downloads: how far each is, and which ended last.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use crate::sandbox::bindings::imports::downloads as contract;
use crate::telemetry::metrics::PluginMetrics;

/// How many ended downloads of a plugin are remembered for `query`.
pub(super) const REMEMBERED: usize = 500;

/// All that is known of one plugin's downloads.
#[derive(Debug, Default)]
pub(super) struct Tracks {
    pub(super) by_target: HashMap<(String, String), Arc<Track>>,
    /// Targets in the order in which their downloads ended, the oldest first.
    pub(super) ended: VecDeque<(String, String)>,
    pub(super) places: HashMap<String, (u32, Arc<Semaphore>)>,
}

impl Tracks {
    pub(super) fn places(&mut self, slot: &str, concurrent: u32) -> Arc<Semaphore> {
        let places = self
            .places
            .entry(slot.to_owned())
            .or_insert_with(|| (concurrent, semaphore(concurrent)));
        if places.0 != concurrent {
            *places = (concurrent, semaphore(concurrent));
        }
        places.1.clone()
    }

    pub(super) fn remember_end(&mut self, target: (String, String)) {
        self.ended.retain(|ended| *ended != target);
        self.ended.push_back(target);
        while self.ended.len() > REMEMBERED {
            let Some(oldest) = self.ended.pop_front() else {
                return;
            };
            if self
                .by_target
                .get(&oldest)
                .is_some_and(|track| !track.is_active())
            {
                self.by_target.remove(&oldest);
            }
        }
    }
}

pub(super) fn semaphore(places: u32) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(
        usize::try_from(places)
            .unwrap_or(usize::MAX)
            .clamp(1, Semaphore::MAX_PERMITS),
    ))
}

/// How far a download is.
#[derive(Debug)]
pub(super) struct Track {
    pub(super) stage: Mutex<Stage>,
    pub(super) received: AtomicU64,
    /// `u64::MAX`: the server did not say.
    pub(super) total: AtomicU64,
    /// The URL of the present hop, to be asked about when rights change.
    pub(super) url: Mutex<String>,
    pub(super) metrics: Arc<PluginMetrics>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stage {
    Waiting,
    Running,
    Done,
    Failed(String),
}

impl Track {
    pub(super) fn is_active(&self) -> bool {
        matches!(
            *self.stage.lock().unwrap_or_else(PoisonError::into_inner),
            Stage::Waiting | Stage::Running
        )
    }

    pub(super) fn set(&self, stage: Stage) {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner) = stage;
    }

    pub(super) fn now_at(&self, url: &str) {
        url.clone_into(&mut self.url.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn expects(&self, already: u64, total: Option<u64>) {
        self.received.store(already, Ordering::Relaxed);
        self.total
            .store(total.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
        self.metrics.download_bytes.inc_by(bytes);
    }

    pub(super) fn progress(&self) -> contract::Progress {
        let (stage, problem) = match &*self.stage.lock().unwrap_or_else(PoisonError::into_inner) {
            Stage::Waiting => (contract::Stage::Waiting, None),
            Stage::Running => (contract::Stage::Running, None),
            Stage::Done => (contract::Stage::Done, None),
            Stage::Failed(problem) => (contract::Stage::Failed, Some(problem.clone())),
        };
        let total = Some(self.total.load(Ordering::Relaxed)).filter(|total| *total != u64::MAX);
        contract::Progress {
            stage,
            received: self.received.load(Ordering::Relaxed),
            total,
            problem,
        }
    }
}
