//! Policies of plugins: where they stand, what they give, and what happens when they change under something that runs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use super::{Found, Loader, Source, Trouble, Values};
use crate::grant::Effective;
use crate::grant::approvals::{Digest, Standing};
use crate::grant::policy::{Policy, Problems, Resolution};
use crate::plugin::running::Plugin;
use crate::sandbox::bindings::types::Manifest;
use crate::settings::Config;
use crate::settings::problem::utf8;

/// When a policy is applied anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::plugin) enum Again {
    /// When its text changed.
    WhenChanged,
    /// Also when it is the same: what it is applied to (rules for all, default limits, links in its paths) may have changed.
    Always,
}

/// What applying a policy anew changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::plugin) enum Changed {
    /// Nothing the plugin would notice.
    Nothing,
    /// What it may do; that holds already.
    Rights,
    /// Limits as well. Instances are made with their limits, so the plugin has to be brought up anew.
    Limits,
}

impl Loader {
    /// Has versions that only end their calls follow their policies. `shipped` answers the policy a plugin comes with.
    pub(in crate::plugin) fn repolicy_formers(
        &self,
        again: Again,
        shipped: impl Fn(&str) -> Option<&'static str>,
    ) {
        let _applying = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        let mut formers = self.formers.lock().unwrap_or_else(PoisonError::into_inner);
        formers.retain_mut(|former| {
            let Some(guard) = former.guard.upgrade() else {
                return false;
            };
            let name = &former.manifest.name;
            // A policy with a mistake is told where the running version is looked at; until it is mended the one before stays.
            if let Ok((policy, _)) = self.policy(name, shipped(name))
                && (again == Again::Always || *former.policy != policy)
            {
                let resolution = self.resolve(&former.manifest, &former.settings, &policy);
                guard.replace(resolution.effective);
                former.policy = Arc::new(policy);
            }
            true
        });
    }

    /// Has a policy that changed hold for a running plugin, as far as that goes without bringing anything up or down: that is
    /// [`Loader::repolicy`]'s, which still finds it changed.
    pub(in crate::plugin) fn apply(&self, plugin: &Plugin, shipped: Option<&str>) {
        let _applying = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok((policy, _)) = self.policy(&plugin.name, shipped) else {
            return;
        };
        if **plugin.policy.load() == policy {
            return;
        }
        let resolution = self.resolve(&plugin.manifest, &plugin.settings, &policy);
        if resolution.problems.is_empty() {
            plugin.guard.replace(resolution.effective);
        }
    }

    /// Reads the policy of a running plugin again. True: it changed and holds now. An error leaves the old one, but for a required need that is
    /// no longer granted: then the rights are gone at once.
    pub(in crate::plugin) fn repolicy(
        &self,
        plugin: &Plugin,
        shipped: Option<&str>,
        again: Again,
    ) -> Result<Changed, Trouble> {
        let _applying = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        let (policy, source) = self.policy(&plugin.name, shipped)?;
        let same = **plugin.policy.load() == policy;
        if same && again == Again::WhenChanged {
            return Ok(Changed::Nothing);
        }
        match self.rights(&plugin.manifest, &plugin.settings, &policy, source) {
            Ok(rights) => {
                let limits = rights.limits != *plugin.sandbox.limits();
                plugin.guard.replace(rights);
                plugin.policy.store(Arc::new(policy));
                Ok(match (limits, same) {
                    (true, _) => Changed::Limits,
                    (false, false) => Changed::Rights,
                    (false, true) => Changed::Nothing,
                })
            }
            // The policy was good before: what changed is what the host itself forbids, and that always wins.
            Err(Trouble::Failed(reason)) if same => {
                plugin.guard.replace(Effective::nothing(&plugin.name));
                Err(Trouble::Pending {
                    reason,
                    missing: Vec::new(),
                })
            }
            Err(trouble) => {
                if let Trouble::Pending { .. } = trouble {
                    let resolution = self.resolve(&plugin.manifest, &plugin.settings, &policy);
                    plugin.guard.replace(resolution.effective);
                    plugin.policy.store(Arc::new(policy));
                }
                Err(trouble)
            }
        }
    }

    pub(super) fn resolve(
        &self,
        manifest: &Manifest,
        settings: &Values,
        policy: &Policy,
    ) -> Resolution {
        policy.resolve(
            manifest,
            settings,
            &self.config().limits,
            &self.rules.deny(),
        )
    }

    /// Why a policy would not be taken over by the version of a plugin that runs; none if it would, or if none runs.
    #[must_use]
    pub fn wrong_with(&self, name: &str, policy: &Policy) -> Option<String> {
        let running = self.running(name)?;
        let resolution = self.resolve(&running.manifest, &running.settings, policy);
        (!resolution.problems.is_empty()).then(|| Problems(resolution.problems).to_string())
    }

    /// What a policy gives to a plugin, if that is all it needs.
    pub(super) fn rights(
        &self,
        manifest: &Manifest,
        settings: &Values,
        policy: &Policy,
        source: Source,
    ) -> Result<Effective, Trouble> {
        let resolution = self.resolve(manifest, settings, policy);
        let warnings = resolution
            .warnings
            .iter()
            .map(ToString::to_string)
            .collect();
        self.warnings
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(manifest.name.clone(), warnings);
        if !resolution.problems.is_empty() {
            return Err(Trouble::Failed(Problems(resolution.problems).to_string()));
        }
        let missing: Vec<_> = resolution.missing.iter().filter(|it| it.required).collect();
        if missing.is_empty() {
            return Ok(resolution.effective);
        }
        let reasons: Vec<_> = missing.iter().map(ToString::to_string).collect();
        Err(Trouble::Pending {
            reason: format!("{}: {}", source.name(policy), reasons.join("; ")),
            missing: missing
                .iter()
                .flat_map(|it| it.lines.iter().cloned())
                .collect(),
        })
    }

    /// Where the operator's policy of a plugin is, if there is a directory for policies.
    #[must_use]
    pub fn policy_file(&self, name: &str) -> Option<PathBuf> {
        policy_file(&self.config(), name)
    }

    /// The policy of a plugin: the operator's file, else the shipped one, else nothing granted.
    pub fn policy(&self, name: &str, shipped: Option<&str>) -> Result<(Policy, Source), Trouble> {
        policy_of(&self.config(), name, shipped)
    }

    pub(super) fn approved(
        &self,
        name: &str,
        found: &Found,
        policy: &Policy,
    ) -> Result<(), Trouble> {
        let digest: Digest = found
            .digest
            .parse()
            .map_err(|error| Trouble::Failed(format!("{}: {error}", found.digest)))?;
        let waits = |what: String| {
            Err(Trouble::Pending {
                reason: format!("{what}; `bulkhead plugin approve {name}` if you trust it"),
                missing: Vec::new(),
            })
        };
        match self
            .approvals
            .standing(name, &digest, &found.fingerprint, policy.approved())
        {
            Standing::Approved => Ok(()),
            Standing::New => waits(format!("{digest} is not approved")),
            Standing::Changed { .. } => waits(format!(
                "the file changed: {digest} is not the version that was approved"
            )),
            Standing::ManifestChanged => waits(format!(
                "{digest} describes itself differently than when it was approved"
            )),
            Standing::OldForm => waits(format!(
                "{digest} was approved under another version of this program, which noted its manifest in another form"
            )),
        }
    }
}

fn policy_file(config: &Config, name: &str) -> Option<PathBuf> {
    let directory = config.plugins.policies.as_ref()?;
    Some(directory.join(format!("{name}.toml")))
}

/// The policy of a plugin under a configuration.
pub(in crate::plugin) fn policy_of(
    config: &Config,
    name: &str,
    shipped: Option<&str>,
) -> Result<(Policy, Source), Trouble> {
    let parse = |path: &Path, text: &str| {
        Policy::parse(path, text).map_err(|problems| Trouble::Failed(problems.to_string()))
    };
    let file = policy_file(config, name);
    if let Some(path) = &file {
        match std::fs::read(path) {
            Ok(bytes) => {
                let text =
                    utf8(path, bytes).map_err(|broken| Trouble::Failed(broken.to_string()))?;
                return Ok((parse(path, &text)?, Source::File));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Trouble::Failed(format!("{}: {error}", path.display()))),
        }
    }
    let path = file.unwrap_or_else(|| PathBuf::from(format!("policies/{name}.toml")));
    match shipped {
        Some(text) => Ok((parse(&path, text)?, Source::Shipped)),
        None => Ok((Policy::nothing(&path, name), Source::Nothing)),
    }
}
