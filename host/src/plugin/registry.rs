//! All plugins of a host: what was found, what runs, what waits and why.
//!
//! One change happens at a time, beside what runs: a new version goes through every step while the old one serves, and only then the
//! routes switch, in one store of a pointer. Whatever fails on the way leaves the running version as it was. Readers (the
//! server, the core API) never wait for a change.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::Mutex;

use super::compile::Origin;
use super::inspect::{self, Wasm};
use super::library::{Library, read_component};
use super::load::{Again, Changed, Found, Loader, Trouble};
use super::routes::{Claim, RouteTable};
use super::running::Plugin;
use super::service::Services;
use super::settings::Lists;
use super::watch::QUIET;
use crate::api::control::{ControlError, Done, PluginState, PluginView, Unready};
use crate::api::features::{FeatureView, Features, Snapshot, State};
use crate::settings::config::LOGS;
use crate::settings::{Config, Enabled, Problem};
use crate::telemetry::ring::LogRing;

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

/// Tells whether a file is still the one that was looked at.
#[derive(Clone, PartialEq, Eq)]
struct Stamp {
    size: u64,
    modified: Option<SystemTime>,
    inode: u64,
}

impl Stamp {
    /// Whether somebody may still be writing it. A clock that went back makes no file young.
    fn is_young(&self) -> bool {
        self.modified
            .and_then(|then| then.elapsed().ok())
            .is_some_and(|age| age < QUIET)
    }
}

/// Looks, [`QUIET`] apart, at files that do not stop changing before they are left to the watcher.
const PATIENCE: usize = 10;

/// What is said of a policy with a mistake.
const POLICY_STAYS: &str = "policy not taken over; the one before stays";

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
        let unsettled = self.look_at_files(&mut work, &|_| {}).await;
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
        self.settled_files(&mut work, &|_| {}).await;
        self.settle();
        changed
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

    /// Gives back memory of plugins that nobody calls.
    pub fn cool(&self) {
        for plugin in self.loader.all_running() {
            for sandbox in plugin.sandboxes().filter(|it| it.running() == 0) {
                sandbox.cool();
            }
        }
    }

    /// Approves the file that waits under this name, and loads it.
    pub async fn approve(&self, name: &str, digest: Option<&str>) -> Result<Done, ControlError> {
        let mut work = self.work.lock().await;
        let record = self
            .records
            .load()
            .get(name)
            .cloned()
            .ok_or_else(|| unknown(name))?;
        let Place::File(path) = &record.place else {
            return Err(ControlError::Refused(format!(
                "`{name}` is part of this program and needs no approval"
            )));
        };
        if digest.is_some_and(|it| it != record.found.digest) {
            return Err(ControlError::Refused(format!(
                "the file that waits is {}, not the one you named",
                record.found.digest
            )));
        }
        self.loader
            .approve(name, &record.found.digest, &record.found.fingerprint)
            .map_err(ControlError::Failed)?;
        let _ = self.library.reinstate(name);
        work.files.remove(path);
        self.settled_files(&mut work, &|_| {}).await;
        self.settle();
        Ok(Done {
            message: format!(
                "{name} {} is approved and {}",
                record.found.digest,
                self.state_of(name)
            ),
        })
    }

    /// Returns to the version of a plugin that ran before.
    pub async fn rollback(&self, name: &str) -> Result<Done, ControlError> {
        let _work = self.work.lock().await;
        let refused = |text: String| ControlError::Refused(text);
        let record = self
            .records
            .load()
            .get(name)
            .cloned()
            .ok_or_else(|| unknown(name))?;
        let history = self.library.history(name).unwrap_or_default();
        let Some(previous) = history.previous else {
            return Err(refused(format!("no earlier version of `{name}` is known")));
        };
        let wasm = self
            .library
            .read(&previous)
            .ok_or_else(|| refused(format!("the copy of {previous} is gone")))?;
        let wasm = Wasm {
            bytes: &wasm,
            digest: &previous,
        };
        let (_, ready) = self.loader.prepare(&wasm, Origin::ThirdParty, None).await;
        let plugin = ready.map_err(|trouble| {
            refused(format!(
                "{previous} does not run any more: {}",
                trouble.reason()
            ))
        })?;
        self.switch(&record.place, plugin).map_err(refused)?;
        let _ = self.library.rolled_back(name, &history.current, &previous);
        let stays_out = format!(
            "{} stays out until its file changes or is approved",
            history.current
        );
        // What stood there was said of another version.
        self.record(
            name.to_owned(),
            Record {
                state: PluginState::Running,
                reason: Some(format!("rolled back; {stays_out}")),
                missing: Vec::new(),
                ..record
            },
        );
        self.settle();
        Ok(Done {
            message: format!("{name} is back at {previous}; {stays_out}"),
        })
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

    // --- files and policies ---

    /// Looks at all files, also at those that are young: who asks for it waits for the outcome.
    async fn settled_files(&self, work: &mut Work, progress: &impl Fn(&str)) {
        for _ in 0..PATIENCE {
            if !self.look_at_files(work, progress).await {
                return;
            }
            tokio::time::sleep(QUIET).await;
        }
    }

    async fn look_at_files(&self, work: &mut Work, progress: &impl Fn(&str)) -> bool {
        let config = self.loader.config();
        let Some(directory) = config.plugins.directory.clone() else {
            return false;
        };
        let mut unsettled = false;
        let largest = self.loader.largest_component();
        let mut present: Vec<(PathBuf, Stamp)> = match list(&directory) {
            Ok(files) => files,
            Err(error) => {
                tracing::error!(directory = %directory.display(), %error, "plugin directory not read");
                return false;
            }
        };
        present.sort_by(|one, two| one.0.cmp(&two.0));
        let gone: Vec<PathBuf> = work
            .files
            .keys()
            .filter(|known| !present.iter().any(|(path, _)| path == *known))
            .cloned()
            .collect();
        for path in gone {
            work.files.remove(&path);
            let names: Vec<String> = self
                .records
                .load()
                .iter()
                .filter(|(_, record)| record.place == Place::File(path.clone()))
                .map(|(name, _)| name.clone())
                .collect();
            for name in names {
                self.withdraw(&name, "its file was removed");
                self.forget(&name);
            }
        }
        for (path, stamp) in present {
            if work.files.get(&path) == Some(&stamp) {
                continue;
            }
            if stamp.is_young() {
                unsettled = true;
                continue;
            }
            work.files.insert(path.clone(), stamp);
            progress(&path.display().to_string());
            self.look_at_file(path, largest).await;
        }
        unsettled
    }

    async fn look_at_file(&self, path: PathBuf, largest: u64) {
        let place = Place::File(path.clone());
        let read = tokio::task::spawn_blocking(move || read_component(&path, largest)).await;
        let wasm = match read {
            Ok(Ok(wasm)) => wasm,
            Ok(Err(error)) => {
                tracing::error!(file = place.label(), %error, "plugin file not read");
                let record = Record::new(
                    place.clone(),
                    Found::default(),
                    PluginState::Failed,
                    Some(format!("not read: {error}")),
                );
                self.record(place.unnamed(), record);
                return;
            }
            Err(_) => return,
        };
        let digest = inspect::digest(&wasm);
        if let Err(error) = self.library.keep(&digest, &wasm) {
            tracing::warn!(file = place.label(), %error, "no copy kept; a rollback to this version will not be possible");
        }
        let withdrawn = self.records.load().iter().any(|(name, record)| {
            record.place == place
                && self
                    .library
                    .history(name)
                    .is_some_and(|it| it.withdrawn.as_deref() == Some(digest.as_str()))
        });
        if withdrawn {
            return;
        }
        let wasm = Wasm {
            bytes: &wasm,
            digest: &digest,
        };
        self.load(place, &wasm, None).await;
    }

    /// Reads every policy again; what changed takes effect at once.
    async fn reread_policies(&self, again: Again) {
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
            let waits = matches!(record.state, PluginState::Pending | PluginState::Failed);
            // What cannot even be described waits for no policy.
            if !waits || record.found.name.is_empty() || self.loader.running(name).is_some() {
                continue;
            }
            match &record.place {
                Place::Bundled(name) => {
                    if let Some(bundled) = self.bundled.iter().find(|it| it.name == *name) {
                        self.load(
                            record.place.clone(),
                            &bundled.component(),
                            Some(bundled.policy),
                        )
                        .await;
                    }
                }
                Place::File(_) => {
                    if let Some(bytes) = self.library.read(&record.found.digest) {
                        let wasm = Wasm {
                            bytes: &bytes,
                            digest: &record.found.digest,
                        };
                        self.load(record.place.clone(), &wasm, None).await;
                    }
                }
            }
        }
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
        match &record.place {
            Place::Bundled(name) => {
                if let Some(bundled) = self.bundled.iter().find(|it| it.name == *name) {
                    self.load(
                        record.place.clone(),
                        &bundled.component(),
                        Some(bundled.policy),
                    )
                    .await;
                }
            }
            Place::File(_) => match self.library.read(&plugin.digest) {
                Some(bytes) => {
                    let wasm = Wasm {
                        bytes: &bytes,
                        digest: &plugin.digest,
                    };
                    self.load(record.place.clone(), &wasm, None).await
                }
                None => tracing::warn!(
                    plugin = &*plugin.name,
                    "the copy of its file is gone; new limits hold from the next start on"
                ),
            },
        }
    }

    // --- what others see ---

    fn record(&self, key: String, record: Record) {
        self.records.rcu(|now| {
            let mut next = BTreeMap::clone(now);
            next.insert(key.clone(), record.clone());
            next
        });
    }

    fn forget(&self, key: &str) {
        self.records.rcu(|now| {
            let mut next = BTreeMap::clone(now);
            next.remove(key);
            next
        });
        self.ring.clear_module(key);
    }

    fn state_of(&self, name: &str) -> String {
        self.records.load().get(name).map_or_else(
            || "gone".to_owned(),
            |record| match &record.reason {
                Some(reason) => format!("{}: {reason}", record.state),
                None => record.state.to_string(),
            },
        )
    }

    /// Makes the picture that Foreman and the operator get.
    fn settle(&self) {
        self.services.settle(|| self.loader.all_running());
        let records = self.records.load();
        let mut features = Vec::new();
        for (name, record) in records.iter() {
            let running = self.loader.running(name);
            let problem = running.as_ref().and_then(|it| it.problem());
            let reason =
                problem.or_else(|| running.is_none().then(|| record.reason.clone()).flatten());
            match &reason {
                Some(reason) => self.ring.fail_module(name, reason),
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
                        .and_then(|it| it.problem())
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

impl Features for Registry {
    fn snapshot(&self) -> Arc<Snapshot> {
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

fn unknown(name: &str) -> ControlError {
    ControlError::UnknownPlugin(name.to_owned())
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

fn list(directory: &Path) -> std::io::Result<Vec<(PathBuf, Stamp)>> {
    use std::os::unix::fs::MetadataExt;
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let hidden = path
            .file_name()
            .is_none_or(|it| it.as_encoded_bytes().starts_with(b"."));
        if hidden || path.extension().is_none_or(|it| it != "wasm") {
            continue;
        }
        // A link is looked through: operators link versions into place. A file that vanished meanwhile is not there.
        let Ok(found) = std::fs::metadata(&path) else {
            continue;
        };
        files.push((
            path,
            Stamp {
                size: found.len(),
                modified: found.modified().ok(),
                inode: found.ino(),
            },
        ));
    }
    Ok(files)
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
