//! A plugin that serves: its sandbox, its guard, and what Foreman sees of it.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
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
    /// Its numbers.
    pub metrics: Arc<PluginMetrics>,
    /// Values of its settings.
    pub settings: HashMap<String, SettingValue>,
    /// Exposed settings, from the configuration.
    pub exposed: Vec<(String, Value)>,
    /// Its own word on its health, refreshed in the background.
    pub health: ArcSwap<Health>,
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
