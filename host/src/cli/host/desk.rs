//! The operator's commands, answered by a running host.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::Addresses;
use crate::api::control::{
    Control, ControlError, DenialView, Done, Explanation, NeedView, PluginView, PortView, Unready,
};
use crate::cli::plan::Served;
use crate::cli::ports;
use crate::grant::sentence::sentence;
use crate::grant::{HostRules, explain};
use crate::plugin::registry::{Bundled, Registry};
use crate::server::Bound;

/// What others hold of a running host: answers the operator's commands.
pub(super) struct Desk {
    pub(super) registry: Arc<Registry>,
    pub(super) rules: Arc<HostRules>,
    pub(super) bound: Addresses,
    pub(super) bundled: Vec<Bundled>,
}

impl Desk {
    fn shipped(&self, plugin: &str) -> Option<&'static str> {
        self.bundled
            .iter()
            .find(|it| it.name == plugin)
            .map(|it| it.policy)
    }

    async fn add_line(&self, plugin: String, line: String) -> Result<Done, ControlError> {
        let loader = self.registry.loader();
        let path = loader.policy_file(&plugin).ok_or_else(|| {
            ControlError::Refused("this host has no directory for policies; set `policies` in `[plugins]` of proxy.toml".into())
        })?;
        let known = self.registry.views().iter().any(|it| it.name == plugin);
        if !known {
            return Err(ControlError::UnknownPlugin(plugin));
        }
        let (policy, _) = loader
            .policy(&plugin, self.shipped(&plugin))
            .map_err(|trouble| ControlError::Failed(trouble.reason()))?;
        let next = policy
            .with_line(&line)
            .map_err(|error| ControlError::Invalid(error.to_string()))?;
        if let Some(wrong) = loader.wrong_with(&plugin, &next) {
            return Err(ControlError::Invalid(format!(
                "with that line the policy would not be taken over: {wrong}"
            )));
        }
        let known = loader.warnings(&plugin);
        crate::grant::edit::write_whole(&path, next.text().as_bytes())
            .map_err(|error| ControlError::Failed(format!("{}: {error}", path.display())))?;
        self.registry.look().await;
        let views = self.registry.views();
        let outcome = views.into_iter().find(|it| it.name == plugin);
        let outcome = match outcome.and_then(|it| it.reason) {
            Some(reason) => format!("{plugin}: {reason}"),
            None => "it holds from now on".to_owned(),
        };
        let mut message = format!("{} now says `{line}`; {outcome}", path.display());
        let warnings = loader.warnings(&plugin);
        for warning in warnings.iter().filter(|it| !known.contains(it)) {
            message.push_str(&format!("; but {warning}"));
        }
        Ok(Done { message })
    }
}

impl Control for Desk {
    fn unready(&self) -> Vec<Unready> {
        self.registry.unready()
    }

    fn plugins(&self) -> Vec<PluginView> {
        self.registry.views()
    }

    fn ports(&self) -> Vec<PortView> {
        let services = self.registry.services().ports();
        let running = self.registry.views();
        let running = running
            .iter()
            .filter_map(|it| self.registry.running(&it.name));
        let served: Vec<Served> = running
            .map(|plugin| Served::of(&plugin.manifest, plugin.enabled))
            .collect();
        let bound = self.bound.load();
        let view =
            |it: &Bound| ports::listener(&it.listener, it.address, it.tls, &it.audiences, &served);
        let mut all = bound.iter().map(view).collect::<Vec<_>>();
        all.extend(services.into_iter().map(|port| PortView {
            address: port.socket.address.to_string(),
            protocol: port.socket.transport.word().to_owned(),
            owner: port.plugin.to_string(),
            audiences: Vec::new(),
            features: vec![port.plugin.to_string()],
        }));
        all
    }

    fn explain(&self, plugin: &str) -> Result<Explanation, ControlError> {
        let running = self
            .registry
            .running(plugin)
            .ok_or_else(|| ControlError::UnknownPlugin(plugin.to_owned()))?;
        let policy = running.policy.load();
        let without = match self.bundled.iter().any(|it| it.name == plugin) {
            true => "the one that comes with the program holds",
            false => "nothing is granted",
        };
        let needs = explain::explain(&running.manifest, &running.guard)
            .into_iter()
            .map(|row| NeedView {
                capability: row.capability,
                slot: row.slot,
                access: row.access,
                reason: row.reason,
                required: row.required,
                granted: row.granted,
                used: row.used,
                denied: row.denied,
            })
            .collect();
        Ok(Explanation {
            plugin: plugin.to_owned(),
            digest: running.digest.clone(),
            policy: policy.path().display().to_string(),
            without: (!policy.path().exists()).then(|| without.to_owned()),
            sentence: sentence(&running.guard.effective()),
            needs,
            warnings: self.registry.loader().warnings(plugin),
        })
    }

    fn denials(&self) -> Vec<DenialView> {
        let seconds = |time: std::time::SystemTime| {
            time.duration_since(std::time::UNIX_EPOCH)
                .map_or(0.0, |it| it.as_secs_f64())
        };
        self.rules
            .audit()
            .denials(None)
            .into_iter()
            .map(|known| DenialView {
                timestamp: seconds(known.last),
                plugin: known.denial.plugin.to_string(),
                action: known.denial.action.clone(),
                rule: known.denial.rule.clone(),
                reason: known.denial.reason.clone(),
                fix: known.denial.fix.clone(),
                instead: known.denial.instead.clone(),
                count: known.count,
            })
            .collect()
    }

    fn approve(
        &self,
        plugin: String,
        digest: Option<String>,
    ) -> BoxFuture<'_, Result<Done, ControlError>> {
        Box::pin(async move { self.registry.approve(&plugin, digest.as_deref()).await })
    }

    fn rollback(&self, plugin: String) -> BoxFuture<'_, Result<Done, ControlError>> {
        Box::pin(async move { self.registry.rollback(&plugin).await })
    }

    fn allow(&self, plugin: String, line: String) -> BoxFuture<'_, Result<Done, ControlError>> {
        Box::pin(self.add_line(plugin, line))
    }
}
