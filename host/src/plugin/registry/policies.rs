//! Policies that changed: what runs follows them, what waited for a grant comes up.

use super::{Place, Record, Registry};
use crate::api::control::PluginState;
use crate::plugin::inspect::Wasm;
use crate::plugin::load::{Again, Changed, Trouble};
use crate::plugin::running::Plugin;

/// What is said of a policy with a mistake.
const POLICY_STAYS: &str = "policy not taken over; the one before stays";

impl Registry {
    /// Reads every policy again; what changed takes effect at once.
    pub(super) async fn reread_policies(&self, again: Again) {
        self.loader
            .repolicy_formers(again, |name| self.shipped(name));
        for plugin in self.loader.all_running() {
            match self
                .loader
                .repolicy(&plugin, self.shipped(&plugin.name), again)
            {
                Ok(Changed::Nothing) => self.refused_policy(&plugin.name, None),
                Ok(changed) => {
                    self.refused_policy(&plugin.name, None);
                    tracing::info!(
                        plugin = &*plugin.name,
                        "policy changed; it holds from now on"
                    );
                    if changed == Changed::Limits {
                        self.bring_up_anew(&plugin).await;
                    }
                }
                Err(trouble @ Trouble::Pending { .. }) => {
                    // The rights are gone already; without them the plugin cannot work.
                    let reason = trouble.reason();
                    tracing::error!(
                        plugin = &*plugin.name,
                        reason,
                        "policy no longer covers what the plugin needs"
                    );
                    self.withdraw(&plugin.name, "its policy no longer covers its needs");
                    if let Some(mut record) = self.records.load().get(&*plugin.name).cloned() {
                        record.state = PluginState::Pending;
                        record.reason = Some(reason);
                        record.missing = trouble.missing();
                        self.record(plugin.name.to_string(), record);
                    }
                }
                Err(trouble) => self.refused_policy(&plugin.name, Some(&trouble.reason())),
            }
        }
        // What waits may have been granted.
        for (name, record) in self.records.load_full().iter() {
            // What cannot even be described waits for no policy.
            if !record.found.name.is_empty() && self.waits(name, record) {
                self.load_again(record, &record.found.digest).await;
            }
        }
    }

    /// Whether the policy as it is now may bring up what a row stands for.
    fn waits(&self, name: &str, record: &Record) -> bool {
        if self.loader.running(name).is_none() {
            return matches!(record.state, PluginState::Pending | PluginState::Failed);
        }
        let policy = || self.loader.policy(name, self.shipped(name)).ok();
        self.stays_beside(name, record) && record.found.policy != policy().map(|(it, _)| it)
    }

    /// Whether the version of a row did not take the place of the one that runs. One that was rolled back is not meant to.
    fn stays_beside(&self, name: &str, record: &Record) -> bool {
        let digest = &record.found.digest;
        let other = self
            .loader
            .running(name)
            .is_some_and(|it| it.digest != *digest);
        other && !self.is_withdrawn(name, digest)
    }

    /// Shows why a policy is not taken over, as long as it is not, and tells it once.
    fn refused_policy(&self, name: &str, reason: Option<&str>) {
        let Some(mut record) = self.records.load().get(name).cloned() else {
            return;
        };
        let shown = reason.map(|reason| format!("{POLICY_STAYS}: {reason}"));
        let stood_there = record
            .reason
            .as_ref()
            .is_some_and(|it| it.starts_with(POLICY_STAYS));
        if record.reason == shown || (shown.is_none() && !stood_there) {
            return;
        }
        if let Some(reason) = reason {
            tracing::error!(plugin = name, reason, "{POLICY_STAYS}");
        }
        record.reason = shown;
        self.record(name.to_owned(), record);
    }

    /// Has a running plugin served by new instances of the same version, which are made with the limits of now.
    async fn bring_up_anew(&self, plugin: &Plugin) {
        let Some(record) = self.records.load().get(&*plugin.name).cloned() else {
            return;
        };
        let beside = self.stays_beside(&plugin.name, &record);
        if !self.load_again(&record, &plugin.digest).await {
            tracing::warn!(
                plugin = &*plugin.name,
                "the copy of its file is gone; new limits hold from the next start on"
            );
        }
        // The row stands for the file, whose version waits on.
        if beside {
            self.load_again(&record, &record.found.digest).await;
        }
    }

    /// Loads what a row stands for, in the version of a digest. False: it is no longer there.
    async fn load_again(&self, record: &Record, digest: &str) -> bool {
        let place = record.place.clone();
        match &record.place {
            Place::Bundled(name) => {
                let Some(bundled) = self.bundled.iter().find(|it| it.name == *name) else {
                    return false;
                };
                self.load(place, &bundled.component(), Some(bundled.policy))
                    .await;
            }
            Place::File(_) => {
                let Some(bytes) = self.library.read(digest) else {
                    return false;
                };
                let bytes = &bytes;
                self.load(place, &Wasm { bytes, digest }, None).await;
            }
        }
        true
    }
}
