//! What others see of the plugins: Foreman, the operator, the log.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Record, Registry, logs_enabled};
use crate::api::control::{PluginState, PluginView, Unready};
use crate::api::features::{FeatureView, REQUIRES, Snapshot, State};
use crate::capability::upstream::NO_FOREMAN;
use crate::plugin::running::Plugin;

impl Registry {
    pub(super) fn record(&self, key: String, record: Record) {
        self.records.rcu(|now| {
            let mut next = BTreeMap::clone(now);
            next.insert(key.clone(), record.clone());
            next
        });
    }

    pub(super) fn forget(&self, key: &str) {
        self.records.rcu(|now| {
            let mut next = BTreeMap::clone(now);
            next.remove(key);
            next
        });
        self.ring.clear_module(key);
    }

    pub(super) fn state_of(&self, name: &str) -> String {
        self.records.load().get(name).map_or_else(
            || "gone".to_owned(),
            |record| match &record.reason {
                Some(reason) => format!("{}: {reason}", record.state),
                None => record.state.to_string(),
            },
        )
    }

    /// Makes the picture that Foreman and the operator get.
    pub(super) fn settle(&self) {
        self.services.settle(|| self.loader.all_running());
        let records = self.records.load();
        let told = self.ring.failed_modules();
        let mut features = Vec::new();
        for (name, record) in records.iter() {
            let running = self.loader.running(name);
            let reason = match &running {
                Some(running) => self.problem(running),
                None => record.reason.clone(),
            };
            let lack = running.as_ref().and_then(|it| self.lack(it));
            match reason.as_ref().or(lack.as_ref()) {
                Some(reason) => {
                    // What a plugin says of itself is told where it is heard.
                    let own = running.as_ref().is_none_or(|it| it.problem().is_some());
                    if !own && told.get(name) != Some(reason) {
                        tracing::warn!(
                            plugin = name,
                            reason,
                            "the plugin runs, but lacks something"
                        );
                    }
                    self.ring.fail_module(name, reason);
                }
                None => self.ring.clear_module(name),
            }
            if !record.is_feature {
                continue;
            }
            let state = match (&running, record.state) {
                (Some(_), _) if reason.is_none() => State::Running,
                (_, PluginState::Disabled) => State::Disabled,
                (_, PluginState::Starting) => State::Starting,
                _ => State::Failed,
            };
            let enabled = running
                .as_ref()
                .map(|it| it.enabled)
                .filter(|_| state == State::Running);
            features.push(FeatureView {
                name: name.clone(),
                version: record.found.version.clone(),
                http_enabled: enabled.is_some_and(|it| it.http()),
                https_enabled: enabled.is_some_and(|it| it.https()),
                state,
                settings: running
                    .as_ref()
                    .map_or_else(|| record.found.exposed.clone(), |it| it.shown_settings()),
                capabilities: running
                    .as_ref()
                    .map(|it| it.health.load().capabilities.clone())
                    .unwrap_or_default(),
            });
        }
        let shown_version = self.loader.config().version.clone();
        self.snapshot.store(Arc::new(Snapshot {
            shown_version,
            features,
            logs: logs_enabled(&self.loader.config()),
        }));
    }

    /// Why a plugin that runs is shown to Foreman as failed. Hosts are served all the same.
    fn problem(&self, plugin: &Plugin) -> Option<String> {
        let name = &*plugin.name;
        let is_running = |other: &str| {
            self.loader
                .running(other)
                .is_some_and(|it| it.problem().is_none())
        };
        plugin.problem().or_else(|| {
            let mut required = REQUIRES.iter().filter(|(feature, _)| *feature == name);
            let (_, absent) = required.find(|(_, required)| !is_running(required))?;
            Some(format!(
                "'{absent}' required by '{name}' could not be found."
            ))
        })
    }

    /// What a plugin that runs does without. It stays running for Foreman, as in the Smart Proxy; the operator is told.
    fn lack(&self, plugin: &Plugin) -> Option<String> {
        let asks_foreman = !plugin.guard.effective().foreman.is_empty();
        (asks_foreman && self.loader.config().foreman.is_none()).then(|| NO_FOREMAN.to_owned())
    }

    /// Every plugin for the operator.
    #[must_use]
    pub fn views(&self) -> Vec<PluginView> {
        self.records
            .load()
            .iter()
            .map(|(name, record)| {
                let running = self.loader.running(name);
                let shown = running
                    .as_ref()
                    .map_or(&record.found.digest, |it| &it.digest);
                PluginView {
                    name: name.clone(),
                    version: running.as_ref().map_or_else(
                        || record.found.version.clone(),
                        |it| it.manifest.version.clone(),
                    ),
                    digest: shown.clone(),
                    origin: record.place.label(),
                    state: record.state,
                    reason: running
                        .and_then(|it| self.problem(&it).or_else(|| self.lack(&it)))
                        .or_else(|| record.reason.clone()),
                    mounts: record.found.mounts.clone(),
                    missing: record.missing.clone(),
                    warnings: record.warnings.clone(),
                    previous: self.library.history(name).and_then(|it| it.previous),
                }
            })
            .collect()
    }

    /// Features that should serve and do not.
    #[must_use]
    pub fn unready(&self) -> Vec<Unready> {
        self.records
            .load()
            .iter()
            .filter(|(name, record)| {
                record.state != PluginState::Disabled && self.loader.running(name).is_none()
            })
            .map(|(name, record)| Unready {
                plugin: name.clone(),
                reason: record
                    .reason
                    .clone()
                    .unwrap_or_else(|| record.state.to_string()),
            })
            .collect()
    }
}
