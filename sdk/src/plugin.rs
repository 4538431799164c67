//! What every plugin is: one trait, of which only [`Plugin::describe`] must be written.

use std::time::Duration;

use crate::bindings::imports::foreman::proxy::types::{self, PluginStatus};
use crate::http::UpstreamError;
use crate::manifest::Manifest;

pub use types::{Head, Reply, Verdict};

/// A plugin: a feature, a provider, a service, or several of them. Each method says when the host calls it and what it may do there.
pub trait Plugin {
    /// Says what the plugin is. Called once per instance, and by the host in an empty sandbox where no capability works, so it
    /// only builds the manifest. At most 1 s and 64 MiB; two calls must give the same answer.
    fn describe() -> Manifest;

    /// The plugin's health and what Foreman is shown. Called in the background, every 60 s by default and after settings
    /// changed; Foreman reads the host's copy. May use capabilities.
    fn status() -> Status {
        Status::working()
    }

    /// Called before the first call of a single-instance plugin, and once as the probe of a new version. May use capabilities.
    ///
    /// # Errors
    /// The text fails the plugin with that reason; the last good version stays.
    fn start() -> Result<(), String> {
        Ok(())
    }

    /// Something happened; only single-instance plugins are told. Answers after what time it wants [`Event::Timer`].
    fn wake(events: &[Event]) -> Option<Duration> {
        let _ = events;
        None
    }

    /// The head of the answer to a forward, or why there is none, with what the forward kept. Any instance may get it. The default
    /// passes an answer on and makes 502 (504 after the time-out) of a missing one.
    fn on_upstream(keep: Vec<u8>, got: Result<Head, UpstreamError>) -> Verdict {
        let _ = keep;
        match got {
            Ok(head) => Verdict::Pass(head),
            Err(error) => {
                let failure = error.failure();
                let headers = vec![(
                    "content-type".to_owned(),
                    crate::answer::DEFAULT_TYPE.to_owned(),
                )];
                Verdict::Replace(Reply {
                    status: failure.status(),
                    headers,
                    body: failure.message().as_bytes().to_vec(),
                })
            }
        }
    }
}

/// Why a single-instance plugin was woken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The time asked for has come.
    Timer,
    /// A file of this `watch` slot changed.
    FileChanged(String),
    /// Somebody else changed what this `store` slot holds.
    StoreChanged(String),
}

/// A plugin's health and what Foreman is shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Status(PluginStatus);

impl Status {
    /// All is well.
    #[must_use]
    pub fn working() -> Self {
        Self(PluginStatus {
            capabilities: Vec::new(),
            settings: Vec::new(),
            problem: None,
        })
    }

    /// It does not work, for this reason. Foreman sees the feature as failed.
    #[must_use]
    pub fn failing(reason: impl Into<String>) -> Self {
        Self(PluginStatus {
            capabilities: Vec::new(),
            settings: Vec::new(),
            problem: Some(reason.into()),
        })
    }

    /// Adds a capability to `/v2/features`.
    #[must_use]
    pub fn capability(mut self, name: &str) -> Self {
        self.0.capabilities.push(name.to_owned());
        self
    }

    /// Shows Foreman a setting that is known at run time only; it wins over an exposed setting of the same name.
    #[must_use]
    pub fn setting(mut self, name: &str, value: impl Into<serde_json::Value>) -> Self {
        self.0
            .settings
            .push((name.to_owned(), value.into().to_string()));
        self
    }

    /// The plain record, as the host gets it.
    #[must_use]
    pub fn into_record(self) -> PluginStatus {
        self.0
    }
}
