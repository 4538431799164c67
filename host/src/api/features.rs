//! The features as Foreman shall see them.

use std::sync::Arc;

use serde_json::Value;

use crate::settings::Enabled;

/// What a feature is doing, in Foreman's words. Foreman uses features in state `running` only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not yet looked at.
    Uninitialized,
    /// On its way to running.
    Starting,
    /// Serves.
    Running,
    /// Switched off by the operator.
    Disabled,
    /// Cannot serve, or waits for approval or a grant. The reason stands in the log ring's failed modules.
    Failed,
}

impl State {
    /// The word in `/v2/features`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Uninitialized => "uninitialized",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Disabled => "disabled",
            Self::Failed => "failed",
        }
    }
}

/// One feature. Providers and services are no features and do not appear.
#[derive(Clone, Debug)]
pub struct FeatureView {
    /// Its key, e.g. `tftp`.
    pub name: String,
    /// Its version for `/version`; a `-develop` at the end is not shown.
    pub version: String,
    /// From the operator's `enabled`: `true` or `"http"`. Shown as false while disabled or failed.
    pub http_enabled: bool,
    /// From the operator's `enabled`: `true` or `"https"`. Shown as false while disabled or failed.
    pub https_enabled: bool,
    /// What it is doing.
    pub state: State,
    /// Exposed settings of the feature and its providers, null when unset, and `use_provider`.
    pub settings: Vec<(String, Value)>,
    /// Capabilities of the feature and its providers, in any order.
    pub capabilities: Vec<String>,
}

/// All features at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The Smart Proxy version shown to Foreman, which warns when it is far from its own.
    pub shown_version: String,
    /// In any order; `logs` is the host's own and not among them.
    pub features: Vec<FeatureView>,
    /// Where the host's own feature `logs` is served.
    pub logs: Enabled,
}

/// Features that Foreman uses only beside another one (contract/core.md 5): each with the one it requires.
pub const REQUIRES: [(&str, &str); 1] = [("registration", "templates")];

/// Who knows the features.
pub trait Features: Send + Sync + 'static {
    /// The present state. Must return the same `Arc` for as long as nothing changed: documents are rendered once for each.
    fn snapshot(&self) -> Arc<Snapshot>;
}
