//! All plugins of a host: what was found, what runs, what waits and why.
//!
//! One change happens at a time, beside what runs: a new version goes through every step while the old one serves, and only then the
//! routes switch, in one store of a pointer. Whatever fails on the way leaves the running version as it was. Readers (the
//! server, the core API) never wait for a change.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, Notify};

use super::compile::Origin;
use super::inspect::Wasm;
use super::library::Library;
use super::load::{Again, Found, Loader, Trouble};
use super::routes::{Claim, RouteTable};
use super::running::Plugin;
use super::service::Services;
use super::settings::Lists;
use crate::api::control::PluginState;
use crate::api::features::{Features, Snapshot};
use crate::settings::config::LOGS;
use crate::settings::{Config, Enabled, Problem};
use crate::telemetry::ring::LogRing;

mod files;
mod operator;
mod policies;
mod views;

use files::{Stamp, told};

/// A component that comes with the program.
#[derive(Debug, Clone, Copy)]
pub struct Bundled {
    /// The plugin's name.
    pub name: &'static str,
    /// The component.
    pub wasm: &'static [u8],
    /// Its identity.
    pub digest: &'static str,
    /// Its shipped policy.
    pub policy: &'static str,
}

impl Bundled {
    /// The component with its identity.
    #[must_use]
    pub fn component(&self) -> Wasm<'static> {
        Wasm {
            bytes: self.wasm,
            digest: self.digest,
        }
    }
}

/// The routes and who answers them, switched together.
#[derive(Default)]
pub struct Routing {
    /// Which plugin answers a path.
    pub table: RouteTable,
    /// Running features by name.
    pub plugins: HashMap<Arc<str>, Arc<Plugin>>,
}

/// All plugins of a host.
pub struct Registry {
    loader: Loader,
    library: Library,
    services: Services,
    bundled: Vec<Bundled>,
    ring: Arc<LogRing>,
    routing: ArcSwap<Routing>,
    snapshot: ArcSwap<Snapshot>,
    /// Told whenever somebody is shown the features.
    shown: Notify,
    records: ArcSwap<BTreeMap<String, Record>>,
    work: Mutex<Work>,
}

/// Where a component came from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Place {
    Bundled(&'static str),
    File(PathBuf),
}

/// What the operator is shown of one plugin, or of a file that is none.
#[derive(Clone)]
struct Record {
    place: Place,
    found: Found,
    state: PluginState,
    reason: Option<String>,
    missing: Vec<String>,
    warnings: Vec<String>,
    is_feature: bool,
}

#[derive(Default)]
struct Work {
    /// Files of the plugin directory as they were looked at last.
    files: HashMap<PathBuf, Stamp>,
}

/// How long an old version may finish its last calls.
const DRAIN: Duration = Duration::from_secs(60);

impl Registry {
    /// A registry in which nothing runs yet.
    #[must_use]
    pub fn new(
        loader: Loader,
        library: Library,
        services: Services,
        bundled: Vec<Bundled>,
        ring: Arc<LogRing>,
    ) -> Arc<Self> {
        let shown_version = loader.config().version.clone();
        let logs = logs_enabled(&loader.config());
        Arc::new(Self {
            loader,
            library,
            services,
            bundled,
            ring,
            routing: ArcSwap::default(),
            snapshot: ArcSwap::from_pointee(Snapshot {
                shown_version,
                features: Vec::new(),
                logs,
            }),
            shown: Notify::new(),
            records: ArcSwap::default(),
            work: Mutex::default(),
        })
    }

    /// The routes now, and who answers them.
    #[must_use]
    pub fn routing(&self) -> Arc<Routing> {
        self.routing.load_full()
    }

    /// What plugins are loaded with.
    #[must_use]
    pub fn loader(&self) -> &Loader {
        &self.loader
    }

    /// The network services.
    #[must_use]
    pub fn services(&self) -> &Services {
        &self.services
    }

    /// A running plugin, feature or not.
    #[must_use]
    pub fn running(&self, name: &str) -> Option<Arc<Plugin>> {
        self.loader.running(name)
    }

    /// Mistakes in a configuration for which it is not taken, neither at start nor later. `progress` hears what takes its time.
    pub async fn refused_settings(&self, config: &Config, progress: impl Fn(&str)) -> Vec<Problem> {
        if config.plugins.bundled {
            progress("machine code of the bundled plugins");
            let components: Vec<_> = self.bundled.iter().map(Bundled::component).collect();
            self.loader.compiler.warm_up(&components).await;
        }
        let lists = Lists {
            engine: &self.loader.engine,
            compiler: &self.loader.compiler,
            runtimes: &self.loader.runtimes,
        };
        lists.refused(config, &self.bundled).await
    }

    /// Brings up what the configuration asks for: bundled plugins, then the plugin directory. `progress` hears each name.
    pub async fn bring_up(&self, progress: impl Fn(&str)) {
        let mut work = self.work.lock().await;
        if self.loader.config().plugins.bundled {
            for bundled in &self.bundled {
                progress(bundled.name);
                self.load(
                    Place::Bundled(bundled.name),
                    &bundled.component(),
                    Some(bundled.policy),
                )
                .await;
            }
        }
        self.settled_files(&mut work, &progress).await;
        self.settle();
    }

    /// Looks at the plugin directory and at all policies, and does what changed. True: a file seems to be still being written; look again soon.
    pub async fn look(&self) -> bool {
        let mut work = self.work.lock().await;
        self.reread_policies(Again::WhenChanged).await;
        let unsettled = self.look_at_files(&mut work, &told).await;
        self.settle();
        unsettled
    }

    /// Has the policies as they are now hold for everything that runs, and nothing else: it waits for no other change.
    pub fn apply_policies(&self) {
        for plugin in self.loader.all_running() {
            self.loader.apply(&plugin, self.shipped(&plugin.name));
        }
        self.loader
            .repolicy_formers(Again::WhenChanged, |name| self.shipped(name));
        // Sockets close with their right, also while something else is being loaded.
        self.services.settle(|| self.loader.all_running());
    }

    fn shipped(&self, name: &str) -> Option<&'static str> {
        self.bundled
            .iter()
            .find(|it| it.name == name)
            .map(|it| it.policy)
    }

    /// Takes a new configuration: plugins whose settings or switches changed are brought up anew beside the old ones.
    pub async fn reconfigure(&self, config: Arc<Config>) -> Vec<String> {
        let mut work = self.work.lock().await;
        let before = self.loader.config();
        self.loader.set_config(config.clone());
        let mut changed = Vec::new();
        for bundled in &self.bundled {
            let known = self.records.load().get(bundled.name).cloned();
            if !config.plugins.bundled {
                if known.is_some_and(|it| it.place == Place::Bundled(bundled.name)) {
                    self.withdraw(bundled.name, "plugins.bundled is false");
                    self.forget(bundled.name);
                    changed.push(format!("{}: removed", bundled.name));
                }
            } else if known.is_none() || !same_feature(&before, &config, bundled.name) {
                self.load(
                    Place::Bundled(bundled.name),
                    &bundled.component(),
                    Some(bundled.policy),
                )
                .await;
                changed.push(format!(
                    "{}: {}{}",
                    bundled.name,
                    changed_settings(&before, &config, bundled.name),
                    self.state_of(bundled.name)
                ));
            }
        }
        for (name, record) in self.records.load_full().iter() {
            if let Place::File(path) = &record.place
                && !same_feature(&before, &config, name)
            {
                work.files.remove(path);
                changed.push(format!(
                    "{name}: {}loaded anew",
                    changed_settings(&before, &config, name)
                ));
            }
        }
        if before.plugins.directory != config.plugins.directory {
            work.files.clear();
        }
        self.reread_policies(Again::Always).await;
        self.settled_files(&mut work, &told).await;
        self.settle();
        changed
    }

    /// Resolves when somebody has asked for the features since the last time.
    pub async fn was_shown(&self) {
        self.shown.notified().await;
    }

    /// Asks every running plugin for its status.
    pub async fn refresh(&self) {
        let mut changed = false;
        // A socket that could not be had may be free by now.
        self.services.settle(|| self.loader.all_running());
        for plugin in self.loader.all_running() {
            changed |= plugin.refresh().await;
        }
        if changed {
            self.settle();
        }
    }

    /// Tries again to have the sockets of services that could not be had: their port may be free by now, their address there. And has those anew whose
    /// interface is another one by now.
    pub fn retry_sockets(&self) {
        let without = |it: &Arc<Plugin>| it.reactor.is_some() && it.problem().is_some();
        let running = self.loader.all_running();
        if !running.iter().any(without) && !self.services.have_lost_an_interface() {
            return;
        }
        let problems =
            |running: &[Arc<Plugin>]| -> Vec<_> { running.iter().map(|it| it.problem()).collect() };
        let before = problems(&running);
        self.services.settle(|| self.loader.all_running());
        if problems(&running) != before {
            self.settle();
        }
    }

    /// Gives back memory of plugins that nobody calls.
    pub fn cool(&self) {
        for plugin in self.loader.all_running() {
            for sandbox in plugin.sandboxes().filter(|it| it.running() == 0) {
                sandbox.cool();
            }
        }
    }

    // --- one plugin ---

    async fn load(&self, place: Place, wasm: &Wasm<'_>, policy: Option<&str>) {
        let origin = match place {
            Place::Bundled(_) => Origin::FirstParty,
            Place::File(_) => Origin::ThirdParty,
        };
        let (found, ready) = self.loader.prepare(wasm, origin, policy).await;
        let unnamed = place.unnamed();
        let key = if found.name.is_empty() {
            unnamed.clone()
        } else {
            found.name.clone()
        };
        if let Some(owner) = self.records.load().get(&key).filter(|it| it.place != place) {
            let reason = format!(
                "another plugin is called `{key}` already ({}); a name belongs to one plugin",
                owner.place.label()
            );
            tracing::error!(file = place.label(), reason, "plugin refused");
            self.record(
                unnamed,
                Record::new(place, found, PluginState::Failed, Some(reason)),
            );
            return;
        }
        if key != unnamed {
            self.forget(&unnamed);
        }
        match ready {
            Ok(plugin) => {
                let warnings = self.loader.warnings(&key);
                let is_feature = !plugin.manifest.routes.is_empty();
                match self.switch(&place, plugin) {
                    Ok(()) => {
                        if origin == Origin::ThirdParty
                            && let Err(error) = self.library.runs(&key, &found.digest)
                        {
                            tracing::warn!(plugin = key, %error, "history not written; a rollback will not know this version");
                        }
                        tracing::info!(
                            plugin = key,
                            version = found.version,
                            digest = found.digest,
                            "Successfully initialized '{key}'"
                        );
                        let mut record = Record::new(place, found, PluginState::Running, None);
                        record.warnings = warnings;
                        record.is_feature = is_feature;
                        self.record(key, record);
                    }
                    Err(reason) => {
                        self.trouble(place, key, found, Trouble::Failed(reason))
                            .await
                    }
                }
            }
            Err(trouble) => self.trouble(place, key, found, trouble).await,
        }
    }

    /// A version that does not run: the last good one stays, or comes back from the library.
    async fn trouble(&self, place: Place, key: String, found: Found, trouble: Trouble) {
        let (state, missing) = match &trouble {
            Trouble::Disabled => (PluginState::Disabled, Vec::new()),
            Trouble::Pending { missing, .. } => (PluginState::Pending, missing.clone()),
            Trouble::Failed(_) => (PluginState::Failed, Vec::new()),
        };
        let reason = trouble.reason();
        let mut record = Record::new(place.clone(), found, state, None);
        record.missing = missing;
        record.is_feature = record.found.is_feature;
        if state == PluginState::Disabled {
            self.withdraw(&key, "it is switched off");
            self.record(key, record);
            return;
        }
        let told = self.records.load().get(&key).is_some_and(|before| {
            before.found.digest == record.found.digest && before.reason.as_ref() == Some(&reason)
        });
        // It is looked at again and again; what is the same each time is told once.
        if !told {
            tracing::error!(
                plugin = key,
                version = record.found.version,
                reason,
                "plugin does not run"
            );
        }
        if self.loader.running(&key).is_none()
            && let Place::File(_) = place
            && let Some(history) = self.library.history(&key)
            && history.current != record.found.digest
            && let Some(wasm) = self.library.read(&history.current)
            && let (_, Ok(good)) = self
                .loader
                .prepare(
                    &Wasm {
                        bytes: &wasm,
                        digest: &history.current,
                    },
                    Origin::ThirdParty,
                    None,
                )
                .await
            && self.switch(&place, good).is_ok()
        {
            tracing::warn!(
                plugin = key,
                digest = history.current,
                "the last good version runs in its place"
            );
        }
        record.reason = Some(match self.loader.running(&key) {
            Some(good) => {
                record.state = PluginState::Running;
                format!(
                    "{reason}; version {} ({}) runs on",
                    good.manifest.version, good.digest
                )
            }
            None => reason,
        });
        self.record(key, record);
    }

    /// Puts a prepared version in its place and lets the old one drain.
    fn switch(&self, place: &Place, plugin: Arc<Plugin>) -> Result<(), String> {
        let now = self.routing.load();
        let mut table = now.table.clone();
        let mut plugins = now.plugins.clone();
        table.remove(&plugin.name);
        plugins.remove(&plugin.name);
        if !plugin.manifest.routes.is_empty() {
            table
                .insert(Claim {
                    plugin: plugin.name.clone(),
                    mounts: plugin.manifest.mounts.clone(),
                    routes: plugin.manifest.routes.clone(),
                    whole_body_limit: plugin.sandbox.limits().request_body,
                })
                .map_err(|error| format!("{error} (from {})", place.label()))?;
            plugins.insert(plugin.name.clone(), plugin.clone());
        }
        let before = self.loader.install(plugin.clone());
        // The policy may have changed since the version was prepared.
        self.loader.apply(&plugin, self.shipped(&plugin.name));
        self.routing.store(Arc::new(Routing { table, plugins }));
        drain(before);
        Ok(())
    }

    fn withdraw(&self, name: &str, why: &'static str) {
        let now = self.routing.load();
        let mut table = now.table.clone();
        let mut plugins = now.plugins.clone();
        table.remove(name);
        plugins.remove(name);
        self.routing.store(Arc::new(Routing { table, plugins }));
        if let Some(before) = self.loader.uninstall(name) {
            tracing::info!(plugin = name, why, "plugin stops");
            drain(Some(before));
        }
    }
}

impl Features for Registry {
    fn snapshot(&self) -> Arc<Snapshot> {
        self.shown.notify_one();
        self.snapshot.load_full()
    }
}

impl Place {
    /// What a component is called as long as nobody knows its name: after its file, so that each has a row and a reason of its own.
    fn unnamed(&self) -> String {
        match self {
            Self::Bundled(name) => format!("bundled {name}"),
            Self::File(path) => path.display().to_string(),
        }
    }

    fn label(&self) -> String {
        match self {
            Self::Bundled(_) => "bundled".to_owned(),
            Self::File(path) => path.display().to_string(),
        }
    }
}

impl Record {
    fn new(place: Place, found: Found, state: PluginState, reason: Option<String>) -> Self {
        let is_feature = found.is_feature;
        Self {
            place,
            found,
            state,
            reason,
            missing: Vec::new(),
            warnings: Vec::new(),
            is_feature,
        }
    }
}

fn drain(plugin: Option<Arc<Plugin>>) {
    if let Some(plugin) = plugin {
        tokio::spawn(async move {
            let mut drained = true;
            for sandbox in plugin.sandboxes() {
                drained &= sandbox.drained(DRAIN).await;
            }
            if !drained {
                tracing::warn!(
                    plugin = &*plugin.name,
                    digest = plugin.digest,
                    "the old version still has calls after 60 s; they end by their own deadline"
                );
            }
        });
    }
}

/// `[features.logs] enabled`; on unless switched off.
fn logs_enabled(config: &Config) -> Enabled {
    config
        .features
        .get(LOGS)
        .map_or(Enabled::Both, |it| it.enabled)
}

fn same_feature(before: &Config, after: &Config, name: &str) -> bool {
    before.features.get(name) == after.features.get(name)
}

/// Which settings of a plugin differ, as the beginning of a sentence. Values are not told: some are secret.
fn changed_settings(before: &Config, after: &Config, name: &str) -> String {
    let none = BTreeMap::new();
    let of = |config: &'_ Config| config.features.get(name).map(|it| it.settings.clone());
    let (old, new) = (
        of(before).unwrap_or_else(|| none.clone()),
        of(after).unwrap_or(none),
    );
    let mut names: Vec<&str> = old
        .keys()
        .chain(new.keys())
        .filter(|key| old.get(*key) != new.get(*key))
        .map(String::as_str)
        .collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        String::new()
    } else {
        format!("{} changed; ", names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_that_cannot_be_described_have_names_of_their_own() {
        let places = [
            Place::Bundled("tftp"),
            Place::Bundled("dns"),
            Place::File("/p/a.wasm".into()),
            Place::File("/p/b.wasm".into()),
        ];
        let names: std::collections::BTreeSet<_> = places.iter().map(Place::unnamed).collect();
        assert_eq!(names.len(), places.len());
        assert!(names.contains("/p/a.wasm") && names.contains("bundled tftp"));
    }
}
