//! A plugin that serves: its sandbox, its guard, and what Foreman sees of it.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use serde_json::Value;

use super::compile::Origin;
use crate::grant::Guard;
use crate::grant::policy::Policy;
use crate::sandbox::Sandbox;
use crate::sandbox::bindings::imports::settings::Value as SettingValue;
use crate::sandbox::bindings::types::{Audience, Manifest};
use crate::sandbox::runtimes::Class;
use crate::settings::Enabled;
use crate::telemetry::metrics::PluginMetrics;

/// A running version of a plugin.
pub struct Plugin {
    /// Its name.
    pub name: Arc<str>,
    /// Its identity, `sha256:<hex>`.
    pub digest: String,
    /// What it is.
    pub manifest: Arc<Manifest>,
    /// Who wrote it.
    pub origin: Origin,
    /// On which kinds of listeners it is served.
    pub enabled: Enabled,
    /// Its rights.
    pub guard: Guard,
    /// The policy in force.
    pub policy: ArcSwap<Policy>,
    /// Its instances.
    pub sandbox: Arc<Sandbox>,
    /// The kept instance of its service, if it holds one. Of a plugin that holds nothing else, the same as `sandbox`.
    pub reactor: Option<Arc<Sandbox>>,
    /// What is wrong with its service.
    pub service: ServiceHealth,
    /// Its numbers.
    pub metrics: Arc<PluginMetrics>,
    /// Values of its settings.
    pub settings: HashMap<String, SettingValue>,
    /// Exposed settings, from the configuration.
    pub exposed: Vec<(String, Value)>,
    /// Its own word on its health, refreshed in the background.
    pub health: ArcSwap<Health>,
}

/// What the host found wrong with a plugin's service.
#[derive(Debug, Default)]
pub struct ServiceHealth {
    /// A socket that cannot be had.
    socket: ArcSwapOption<String>,
    /// Why it is left alone for a while.
    quarantine: ArcSwapOption<String>,
}

/// What `status` said last.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Health {
    /// Capabilities for `/v2/features`.
    pub capabilities: Vec<String>,
    /// Settings computed at run time.
    pub settings: Vec<(String, Value)>,
    /// Why it does not work, if it does not.
    pub problem: Option<String>,
}

impl Plugin {
    /// On whose threads its calls for an audience run.
    #[must_use]
    pub fn class(audience: Audience) -> Class {
        match audience {
            Audience::Foreman => Class::Control,
            Audience::Host | Audience::Public => Class::Hosts,
        }
    }

    /// Why it does not work, if it does not: what its service lacks, else its own word.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        let of = |word: &ArcSwapOption<String>| word.load().as_deref().cloned();
        of(&self.service.socket)
            .or_else(|| of(&self.service.quarantine))
            .or_else(|| self.health.load().problem.clone())
    }

    /// Says which socket of its service cannot be had; none: all are open.
    pub(super) fn set_service_problem(&self, problem: Option<String>) {
        if let Some(problem) = &problem
            && self.service.socket.load().as_deref() != Some(problem)
        {
            tracing::error!(plugin = &*self.name, problem, "the service does not listen");
        }
        self.service.socket.store(problem.map(Arc::new));
    }

    /// Says why its service is left alone for a while.
    pub(super) fn set_quarantine(&self, reason: Option<String>) {
        self.service.quarantine.store(reason.map(Arc::new));
    }

    /// All sets of its instances.
    pub fn sandboxes(&self) -> impl Iterator<Item = &Arc<Sandbox>> {
        let other = self
            .reactor
            .as_ref()
            .filter(|it| !Arc::ptr_eq(it, &self.sandbox));
        std::iter::once(&self.sandbox).chain(other)
    }

    /// Asks `status` anew. True: something changed.
    pub async fn refresh(&self) -> bool {
        let health = match self.sandbox.status().await {
            Ok(status) => Health {
                capabilities: status.capabilities,
                settings: status
                    .settings
                    .into_iter()
                    .map(|(name, json)| {
                        let value = serde_json::from_str(&json).unwrap_or_else(|error| {
                            tracing::warn!(plugin = &*self.name, setting = name, %error, "`status` gave no JSON; shown as text");
                            Value::String(json)
                        });
                        (name, value)
                    })
                    .collect(),
                problem: status.problem,
            },
            // Busy or starting says nothing about its health.
            Err(crate::sandbox::CallError::Busy { .. } | crate::sandbox::CallError::NotReady(_)) => return false,
            Err(error) => Health { problem: Some(format!("`status` failed: {error}")), ..Health::clone(&self.health.load()) },
        };
        if **self.health.load() == health {
            return false;
        }
        self.health.store(Arc::new(health));
        true
    }

    /// Exposed settings and those computed at run time, which win.
    #[must_use]
    pub fn shown_settings(&self) -> Vec<(String, Value)> {
        let health = self.health.load();
        let mut shown = self.exposed.clone();
        for (name, value) in &health.settings {
            match shown.iter_mut().find(|(known, _)| known == name) {
                Some(slot) => slot.1 = value.clone(),
                None => shown.push((name.clone(), value.clone())),
            }
        }
        shown
    }
}
