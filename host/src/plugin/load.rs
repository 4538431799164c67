//! From bytes to a running version of a plugin: every step between "found" and "serves", with one reason for stopping at each.
//!
//! describe, twice, in an empty sandbox (cached) → switched on? → policy → approved? → settings → every required need granted?
//! → compile (cached) → linked → its callee known, no cycle → probed by `start` → asked for its `status`. Nothing here changes what runs: `registry` does, with
//! what this module hands it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use arc_swap::ArcSwap;

use super::compile::{Compiler, Origin};
use super::fingerprint::fingerprint;
use super::inspect::{self, Wasm};
use super::running::{Health, Plugin, ServiceHealth};
use crate::capability::Facilities;
use crate::capability::downloads::Downloads;
use crate::capability::wasi::access::PluginAccess;
use crate::grant::approvals::{Approvals, Digest};
use crate::grant::policy::Policy;
use crate::grant::{Effective, Guard, HostRules, WeakGuard};
use crate::sandbox::bindings::imports::settings::Value;
use crate::sandbox::bindings::types::{Lifetime, Manifest};
use crate::sandbox::context::{Site, Surroundings};
use crate::sandbox::peers::Peers;
use crate::sandbox::{Engine, Program, Sandbox, runtimes};
use crate::settings::{Config, Enabled, schema};
use crate::telemetry::metrics::Metrics;

mod policy;

pub(super) use policy::{Again, Changed, policy_of};

/// What was found out about a component, as far as it got.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Its name, empty when it could not be described.
    pub name: String,
    /// Its own version.
    pub version: String,
    /// Its identity.
    pub digest: String,
    /// Path prefixes it owns.
    pub mounts: Vec<String>,
    /// True if it has routes.
    pub is_feature: bool,
    /// Fingerprint of the manifest, frozen at approval.
    pub fingerprint: String,
    /// Exposed settings, null where not known.
    pub exposed: Vec<(String, serde_json::Value)>,
    /// The policy it was tried under; none where that has a mistake, or nobody asked for it.
    pub(in crate::plugin) policy: Option<Policy>,
}

/// Values of a plugin's settings.
type Values = HashMap<String, Value>;

/// Which policy holds for a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The operator's file.
    File,
    /// The one that comes with the program.
    Shipped,
    /// There is none.
    Nothing,
}

impl Source {
    fn name(self, policy: &Policy) -> String {
        match self {
            Self::File => policy.path().display().to_string(),
            Self::Shipped => "the shipped policy".into(),
            Self::Nothing => format!("there is no policy {}", policy.path().display()),
        }
    }
}

/// Why a version does not run.
#[derive(Debug, Clone)]
pub enum Trouble {
    /// The configuration switches it off.
    Disabled,
    /// It waits for the operator.
    Pending {
        /// What it waits for.
        reason: String,
        /// Policy lines that would help.
        missing: Vec<String>,
    },
    /// It cannot run.
    Failed(String),
}

impl Trouble {
    /// For the operator, and for Foreman's page.
    #[must_use]
    pub fn reason(&self) -> String {
        match self {
            Self::Disabled => "switched off in the configuration".into(),
            Self::Pending { reason, .. } | Self::Failed(reason) => reason.clone(),
        }
    }

    /// Policy lines that would help.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        match self {
            Self::Pending { missing, .. } => missing.clone(),
            _ => Vec::new(),
        }
    }
}

/// Loads plugins.
pub struct Loader {
    /// Compiler settings and slots.
    pub engine: Engine,
    /// Machine code.
    pub compiler: Compiler,
    /// Threads of plugins.
    pub runtimes: runtimes::Handles,
    /// The operator's rules for all, and the audit.
    pub rules: Arc<HostRules>,
    /// Store, secrets, clients.
    pub facilities: Arc<Facilities>,
    /// Calls between plugins.
    pub peers: Peers,
    /// Numbers.
    pub metrics: Arc<Metrics>,
    /// What the operator approved.
    pub approvals: Approvals,
    config: ArcSwap<Config>,
    running: RwLock<HashMap<String, Arc<Plugin>>>,
    formers: Mutex<Vec<Former>>,
    /// Held from reading a policy until it holds, so that an older text never overtakes a newer one.
    applying: Mutex<()>,
    warnings: RwLock<HashMap<String, Vec<String>>>,
}

/// A version that no longer serves, but may still do something: end a call, stream a body, download. Its policy holds for it until
/// nothing of it is left.
struct Former {
    guard: WeakGuard,
    manifest: Arc<Manifest>,
    settings: Values,
    policy: Arc<Policy>,
}

/// What a [`Loader`] is made of.
pub struct Parts {
    /// Compiler settings and slots.
    pub engine: Engine,
    /// Machine code.
    pub compiler: Compiler,
    /// Threads of plugins.
    pub runtimes: runtimes::Handles,
    /// The operator's rules for all, and the audit.
    pub rules: Arc<HostRules>,
    /// Store, secrets, clients.
    pub facilities: Arc<Facilities>,
    /// Numbers.
    pub metrics: Arc<Metrics>,
    /// What the operator approved.
    pub approvals: Approvals,
}

impl Loader {
    /// A loader for a configuration.
    #[must_use]
    pub fn new(parts: Parts, config: Arc<Config>) -> Self {
        let Parts {
            engine,
            compiler,
            runtimes,
            rules,
            facilities,
            metrics,
            approvals,
        } = parts;
        Self {
            engine,
            compiler,
            runtimes,
            rules,
            facilities,
            metrics,
            approvals,
            peers: Peers::default(),
            config: ArcSwap::new(config),
            running: RwLock::default(),
            formers: Mutex::default(),
            applying: Mutex::default(),
            warnings: RwLock::default(),
        }
    }

    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    pub(super) fn set_config(&self, config: Arc<Config>) {
        self.config.store(config);
    }

    /// The largest component that is read.
    #[must_use]
    pub fn largest_component(&self) -> u64 {
        self.compiler.limits().size
    }

    /// A running plugin.
    #[must_use]
    pub fn running(&self, name: &str) -> Option<Arc<Plugin>> {
        self.running
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
            .cloned()
    }

    /// Every running plugin.
    #[must_use]
    pub fn all_running(&self) -> Vec<Arc<Plugin>> {
        self.running
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    /// Warnings of the last preparation: grants that no need asks for, and the like.
    #[must_use]
    pub fn warnings(&self, name: &str) -> Vec<String> {
        self.warnings
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
            .cloned()
            .unwrap_or_default()
    }

    /// Puts a version in its place; answers the one before.
    pub(super) fn install(&self, plugin: Arc<Plugin>) -> Option<Arc<Plugin>> {
        self.peers.put(&plugin.name, plugin.sandbox.clone());
        let before = self
            .running
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(plugin.name.to_string(), plugin);
        self.remember(before.as_deref());
        before
    }

    pub(super) fn uninstall(&self, name: &str) -> Option<Arc<Plugin>> {
        self.peers.remove(name);
        let before = self
            .running
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(name);
        self.remember(before.as_deref());
        before
    }

    fn remember(&self, plugin: Option<&Plugin>) {
        let Some(plugin) = plugin else { return };
        let mut formers = self.formers.lock().unwrap_or_else(PoisonError::into_inner);
        formers.retain(|former| former.guard.upgrade().is_some());
        formers.push(Former {
            guard: plugin.guard.downgrade(),
            manifest: plugin.manifest.clone(),
            settings: plugin.settings.clone(),
            policy: plugin.policy.load_full(),
        });
    }

    /// Approves a component by its digest, with the manifest it has now.
    pub(super) fn approve(
        &self,
        name: &str,
        digest: &str,
        fingerprint: &str,
    ) -> Result<(), String> {
        let digest: Digest = digest.parse().map_err(|error| format!("{error}"))?;
        self.approvals
            .approve(name, &digest, fingerprint)
            .map_err(|error| error.to_string())
    }

    /// Goes through every step with a component. Nothing that runs is touched.
    pub async fn prepare(
        &self,
        wasm: &Wasm<'_>,
        origin: Origin,
        shipped: Option<&str>,
    ) -> (Found, Result<Arc<Plugin>, Trouble>) {
        let mut found = Found {
            digest: wasm.digest.to_owned(),
            ..Found::default()
        };
        let result = self.steps(wasm, origin, shipped, &mut found).await;
        (found, result)
    }

    async fn steps(
        &self,
        wasm: &Wasm<'_>,
        origin: Origin,
        shipped: Option<&str>,
        found: &mut Found,
    ) -> Result<Arc<Plugin>, Trouble> {
        let failed = |error: &dyn std::fmt::Display| Trouble::Failed(error.to_string());
        let described =
            inspect::manifest(&self.engine, &self.compiler, &self.runtimes, wasm, origin);
        let (manifest, described) = described.await.map_err(|error| failed(&error))?;
        found.name.clone_from(&manifest.name);
        found.version.clone_from(&manifest.version);
        found.mounts.clone_from(&manifest.mounts);
        found.is_feature = !manifest.routes.is_empty();
        found.fingerprint = fingerprint(&manifest);
        found.exposed = schema::exposed(&HashMap::new(), &manifest.settings);

        let config = self.config();
        let enabled = enabled(&config, &manifest.name, origin);
        if enabled == Enabled::Off {
            return Err(Trouble::Disabled);
        }
        let (policy, source) = self.policy(&manifest.name, shipped)?;
        found.policy = Some(policy.clone());
        if origin == Origin::ThirdParty {
            self.approved(&manifest.name, found, &policy)?;
        }
        let settings = self.settings(&config, &manifest)?;
        found.exposed = schema::exposed(&settings, &manifest.settings);
        let rights = self.rights(&manifest, &settings, &policy, source)?;
        self.refuse_cycle(&manifest.name, &rights)?;

        let component = match described {
            Some(component) => component,
            None => self
                .compiler
                .component(wasm, origin)
                .await
                .map_err(|error| failed(&error))?,
        };
        let program = Program::link(&self.engine, &component).map_err(|error| failed(&error))?;
        let limits = rights.limits.clone();
        let guard = Guard::new(&self.rules, rights);
        let metrics = self.metrics.plugin(&manifest.name);
        let access = {
            // The watcher of policy changes lives on the background runtime.
            let _entered = self.runtimes.of(runtimes::Class::Heavy).enter();
            let running = self.running(&manifest.name);
            let before = running
                .as_ref()
                .and_then(|it| it.sandbox.surroundings().access.as_deref());
            let resolver = self.facilities.resolver.clone();
            let access = PluginAccess::beside(guard.clone(), resolver, before);
            // While another version runs, a part may be its work in progress.
            if running.is_none() {
                let swept = access.clone();
                tokio::task::spawn_blocking(move || {
                    Downloads::sweep(swept.guard(), |slot| swept.quota(slot));
                });
            }
            access
        };
        let surroundings = Arc::new(Surroundings {
            guard: guard.clone(),
            settings: settings.clone(),
            site: site(&config, enabled),
            access: Some(access),
            facilities: Some(self.facilities.clone()),
            metrics: Some(metrics.clone()),
            peers: self.peers.clone(),
        });
        let serves = program.is_service();
        let only_serves = serves && !program.is_called();
        let lifetime = if only_serves {
            Lifetime::Single
        } else {
            manifest.lifetime
        };
        let sandbox = Arc::new(Sandbox::new(
            program,
            surroundings,
            limits,
            lifetime,
            self.runtimes.clone(),
        ));
        let reactor = match (serves, only_serves) {
            (false, _) => None,
            (true, true) => Some(sandbox.clone()),
            (true, false) => Some(Arc::new(sandbox.beside(Lifetime::Single))),
        };
        let other = reactor.iter().filter(|it| !Arc::ptr_eq(it, &sandbox));
        for sandbox in std::iter::once(&sandbox).chain(other) {
            sandbox
                .start()
                .await
                .map_err(|error| Trouble::Failed(format!("`start` failed: {error}")))?;
        }
        let plugin = Arc::new(Plugin {
            name: manifest.name.as_str().into(),
            digest: found.digest.clone(),
            exposed: found.exposed.clone(),
            manifest: Arc::new(manifest),
            origin,
            enabled,
            guard,
            sandbox,
            reactor,
            service: ServiceHealth::default(),
            metrics,
            settings,
            policy: ArcSwap::from_pointee(policy),
            health: ArcSwap::from_pointee(Health::default()),
        });
        plugin.refresh().await;
        Ok(plugin)
    }

    fn settings(&self, config: &Config, manifest: &Manifest) -> Result<Values, Trouble> {
        schema::resolve(config, &manifest.name, &manifest.settings)
            .map_err(|problems| Trouble::Failed(problems.to_string()))
    }

    /// Calls between plugins must not come back to the caller: two instances would wait for each other.
    fn refuse_cycle(&self, name: &str, effective: &Effective) -> Result<(), Trouble> {
        let mut path = vec![name.to_owned()];
        let mut next: Vec<(usize, String)> = effective
            .call
            .values()
            .map(|grant| (1, grant.plugin.clone()))
            .collect();
        while let Some((depth, callee)) = next.pop() {
            path.truncate(depth);
            path.push(callee.clone());
            if callee == name {
                return Err(Trouble::Failed(format!(
                    "its calls go in a circle: {}",
                    path.join(" -> ")
                )));
            }
            if depth > MAX_DEPTH {
                return Err(Trouble::Failed(format!(
                    "its calls go too deep: {}",
                    path.join(" -> ")
                )));
            }
            if let Some(running) = self.running(&callee) {
                next.extend(
                    running
                        .guard
                        .effective()
                        .call
                        .values()
                        .map(|grant| (depth + 1, grant.plugin.clone())),
                );
            }
        }
        Ok(())
    }
}

/// Plugins in one chain of calls.
const MAX_DEPTH: usize = 8;

/// Bundled plugins serve when the configuration names them; a file in the plugin directory serves unless it is switched off.
fn enabled(config: &Config, name: &str, origin: Origin) -> Enabled {
    match (config.features.get(name), origin) {
        (Some(feature), _) => feature.enabled,
        (None, Origin::ThirdParty) => Enabled::Both,
        (None, Origin::FirstParty) => Enabled::Off,
    }
}

fn site(config: &Config, enabled: Enabled) -> Site {
    use crate::sandbox::bindings::types::Audience;
    let url = |audience| {
        config
            .listeners
            .iter()
            .find(|it| it.audiences.contains(&audience))
            .map(crate::settings::Listener::base_url)
    };
    let port = |tls: bool| {
        config
            .listeners
            .iter()
            .filter(|it| it.tls == tls && it.audiences.contains(&Audience::Public))
            .chain(config.listeners.iter().filter(|it| it.tls == tls))
            .find_map(|it| it.addresses.first().map(std::net::SocketAddr::port))
    };
    Site {
        public_urls: [
            url(Audience::Foreman),
            url(Audience::Host),
            url(Audience::Public),
        ],
        http_port: enabled.http().then(|| port(false)).flatten(),
        https_port: enabled.https().then(|| port(true)).flatten(),
        version: config.version.clone(),
    }
}
