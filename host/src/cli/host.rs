//! A running host: every floor put together, in the order in which they need each other, and taken down the other way round.
//!
//! It refuses to start half: what the configuration names and cannot be had (an address, a certificate, the state directory) ends the start with one
//! error. A plugin that does not run is no reason not to start: it is shown as failed, and the others serve.

use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api::admin;
use crate::api::control::Control;
use crate::api::core::CoreApi;
use crate::api::socket::{self, ControlSocket};
use crate::capability::Facilities;
use crate::capability::downloads::{Downloads, Retries};
use crate::capability::probe::Probe;
use crate::capability::resolve::{Resolver, Servers};
use crate::capability::secrets::{KeyRing, Secrets};
use crate::capability::store::Store;
use crate::capability::store::embedded::{EmbeddedStore, Options as StoreOptions};
use crate::capability::upstream::Upstream;
use crate::capability::upstream::dial::Dialer;
use crate::grant::HostRules;
use crate::grant::approvals::Approvals;
use crate::plugin::compile::Compiler;
use crate::plugin::library::Library;
use crate::plugin::load::{Loader, Parts};
use crate::plugin::registry::{Bundled, Registry};
use crate::plugin::service::Services;
use crate::plugin::watch::{QUIET, Watch};
use crate::sandbox::{Engine, Runtimes, Sandbox};
use crate::server::{
    Bound, Inherited, Listeners, Plugins, Server, ServerParts, Sockets, SystemNames, descriptors,
};
use crate::settings::{Config, Problems};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::ring::LogRing;

mod derived;
mod desk;

pub(super) use derived::deny;
pub use derived::foreman_trust;
use derived::{foreman, needs_restart, server_rules};
use desk::Desk;

/// Why the host does not start, or does not take a configuration.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Something the configuration names cannot be had.
    #[error("{0}")]
    Start(String),
    /// The configuration is wrong.
    #[error(transparent)]
    Configuration(#[from] Problems),
}

/// A host that serves.
pub struct Host {
    config: Arc<Config>,
    registry: Arc<Registry>,
    server: Arc<Server<Plugins>>,
    metrics: Arc<Metrics>,
    rules: Arc<HostRules>,
    upstream: Upstream,
    listeners: Listeners<Plugins>,
    bound: Addresses,
    inherited: Arc<Inherited>,
    /// The directories to watch are others now.
    rewatch: watch::Sender<()>,
    stop: CancellationToken,
    bundled: Vec<Bundled>,
    _runtimes: Runtimes,
}

/// Where the host listens now.
type Addresses = Arc<ArcSwap<Vec<Bound>>>;

/// Between two looks at certificate files.
const TLS_LOOK: Duration = Duration::from_secs(2);
/// Between two `status` rounds as long as nobody asks for the features.
const STATUS_EVERY: Duration = Duration::from_secs(60);
/// So long before the drain time is over, those who still wait for their turn at Foreman are told to come back: time enough to tell thousands. Who
/// is cut off instead gets no answer, and few clients ask again after that.
const FAREWELL: Duration = Duration::from_secs(1);

/// Between two rounds at least. Foreman asks twice when a proxy is refreshed, and nobody waits for a slow upstream: what it is shown is this old at
/// most when it asks again.
const STATUS_REST: Duration = Duration::from_secs(5);
/// Between two tries to have a service's socket that could not be had.
const SOCKETS_EVERY: Duration = Duration::from_secs(2);
/// Between two rounds in which idle plugins give back their memory and gauges are set.
const COOL_EVERY: Duration = Duration::from_secs(30);
const GAUGES_EVERY: Duration = Duration::from_secs(1);

impl Host {
    /// Starts everything. `progress` hears what takes its time.
    pub async fn start(
        config: Config,
        ring: Arc<LogRing>,
        metrics: Arc<Metrics>,
        bundled: Vec<Bundled>,
        inherited: Arc<Inherited>,
        progress: impl Fn(&str),
    ) -> Result<Self, HostError> {
        let config = Arc::new(config);
        let state = &config.state;
        private_directory(state)?;
        // Addresses first: a host that is already running keeps the rest to itself.
        let control = ControlSocket::bind(state).map_err(told)?;
        let sockets = Sockets::bind(&config, &inherited).map_err(told)?;
        let bound: Addresses = Arc::new(ArcSwap::from_pointee(sockets.bound()));

        let descriptors = descriptors::raise();
        if let Some(shortage) = descriptors::shortage(&config, descriptors) {
            tracing::warn!("{shortage}");
        }
        let runtimes = Runtimes::start()
            .map_err(|error| HostError::Start(format!("no threads for plugins: {error}")))?;
        let engine = Engine::new(&config.engine.pool).map_err(told)?;
        if let Some(shrunk) = engine.shrunk() {
            tracing::warn!("{shrunk}");
        }
        tracing::info!(
            instances = engine.instances(),
            wasmtime = "48",
            "engine ready"
        );
        metrics.pool_slots.set(i64::from(engine.instances()));
        let rules = HostRules::new(deny(&config, &bound.load()));
        {
            let metrics = metrics.clone();
            rules.audit().on_denial(Box::new(move |plugin, capability| {
                metrics.plugin(plugin).denied(capability.word())
            }));
        }
        let io = tokio::runtime::Handle::current();
        let resolver = Arc::new(Resolver::new(io.clone(), Servers::System));
        let keys = Arc::new(KeyRing::new(
            std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from),
        ));
        let dialer = Dialer::new(io, resolver.clone());
        let upstream = Upstream::new(dialer.clone(), keys.clone(), foreman(&config)?);
        let store = EmbeddedStore::open(&state.join("store.redb"), StoreOptions::default())
            .map_err(told)?;
        let facilities = Arc::new(Facilities {
            store: Store::new(Arc::new(store)),
            secrets: Secrets::new(keys),
            upstream: upstream.clone(),
            downloads: Downloads::new(dialer, metrics.clone(), Retries::default()),
            probe: Probe::default(),
            resolver,
        });
        let program = std::env::current_exe().map_err(told)?;
        let compiler = Compiler::open(
            engine.clone(),
            state.join("compiled"),
            config.engine.compile.clone(),
            program,
        )
        .map_err(told)?;
        let library = Library::open(state.join("versions")).map_err(told)?;
        let approvals = Approvals::open(state.join("approvals.json")).map_err(told)?;
        let loader = Loader::new(
            Parts {
                engine,
                compiler,
                runtimes: runtimes.handles(),
                rules: rules.clone(),
                facilities: facilities.clone(),
                metrics: metrics.clone(),
                approvals,
            },
            config.clone(),
        );
        let services = Services::new(runtimes.services(), inherited.clone());
        let registry = Registry::new(loader, library, services, bundled.clone(), ring.clone());
        let refused = registry.refused_settings(&config, &progress).await;
        if !refused.is_empty() {
            return Err(Problems(refused).into());
        }
        registry.bring_up(progress).await;

        let desk: Arc<dyn Control> = Arc::new(Desk {
            registry: registry.clone(),
            rules: rules.clone(),
            bound: bound.clone(),
            bundled: bundled.clone(),
        });
        let server = Arc::new(Server::new(ServerParts {
            dispatch: Plugins::new(registry.clone(), facilities),
            core: CoreApi::new(registry.clone(), ring),
            admin: admin::router(metrics.clone(), desk.clone()),
            rules: server_rules(&config)?,
            resolver: Box::new(SystemNames::new().map_err(told)?),
            metrics: metrics.clone(),
        }));
        let listeners = Listeners::serve(
            sockets,
            &config,
            server.clone(),
            runtimes.host_connections(),
        )
        .map_err(told)?;
        for socket in inherited.unused() {
            tracing::warn!(
                socket,
                "handed over at start, and nothing in the configuration listens there"
            );
        }
        let host = Self {
            registry,
            server,
            rules,
            upstream,
            listeners,
            bound,
            inherited,
            rewatch: watch::Sender::new(()),
            stop: CancellationToken::new(),
            bundled,
            metrics: metrics.clone(),
            _runtimes: runtimes,
            config,
        };
        host.tend();
        let stopped = host.stop.clone();
        tokio::spawn(async move {
            if let Err(error) = control
                .serve(socket::router(metrics, desk), stopped.cancelled_owned())
                .await
            {
                tracing::error!(%error, "the control socket ended; `bulkhead plugin` and `bulkhead policy` cannot reach this host");
            }
        });
        Ok(host)
    }

    /// Where it listens.
    #[must_use]
    pub fn bound(&self) -> Arc<Vec<Bound>> {
        self.bound.load_full()
    }

    /// Its plugins.
    #[must_use]
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Takes a new configuration; after an error the one before is in force. Answers what changed, and what needs a restart.
    pub async fn reload(&mut self, mut config: Config) -> Result<Vec<String>, HostError> {
        let rules = server_rules(&config)?;
        let foreman = foreman(&config)?;
        let refused = self.registry.refused_settings(&config, |_| {}).await;
        if !refused.is_empty() {
            return Err(Problems(refused).into());
        }
        let mut said = needs_restart(&self.config, &config);
        // What runs goes on as it was started; the rest of the file must not be read as if it were otherwise.
        config.state.clone_from(&self.config.state);
        config.drain = self.config.drain;
        config.log.clone_from(&self.config.log);
        config.engine.clone_from(&self.config.engine);
        if config.listeners != self.config.listeners {
            said.extend(descriptors::shortage(&config, descriptors::raise()));
        }
        said.extend(
            self.listeners
                .change(&config, &self.inherited)
                .await
                .map_err(told)?,
        );
        self.bound.store(Arc::new(self.listeners.bound()));
        self.server.set_rules(rules);
        self.upstream.set_foreman(foreman);
        self.rules.set_deny(deny(&config, &self.bound.load()));
        let config = Arc::new(config);
        said.extend(self.registry.reconfigure(config.clone()).await);
        self.config = config;
        self.rewatch.send_replace(());
        self.metrics.reloads.inc();
        Ok(said)
    }

    /// Logs what each plugin does at the moment.
    pub fn tell(&self) {
        for view in self.registry.views() {
            let Some(plugin) = self.registry.running(&view.name) else {
                tracing::info!(plugin = view.name, state = %view.state, "at the moment");
                continue;
            };
            let sum = |of: fn(&Sandbox) -> u32| plugin.sandboxes().map(|it| of(it)).sum::<u32>();
            tracing::info!(
                plugin = view.name,
                state = %view.state,
                calls = sum(Sandbox::running),
                waiting = sum(Sandbox::waiting),
                instances = sum(Sandbox::instances),
                memory = plugin.sandbox.memory(),
                "at the moment"
            );
        }
    }

    /// A configuration was not taken over.
    pub fn refused_reload(&self) {
        self.metrics.reloads_refused.inc();
    }

    /// Stops accepting, lets requests in progress finish, and ends.
    pub async fn stop(self) {
        self.stop.cancel();
        self.registry.services().close().await;
        let (drain, upstream) = (self.config.drain, self.upstream.clone());
        let turn_away = async move {
            tokio::time::sleep(drain.saturating_sub(FAREWELL.min(drain / 2))).await;
            upstream.turn_away();
        };
        // Most often everything has ended before.
        let mut stopped = std::pin::pin!(self.listeners.stop());
        tokio::select! {
            () = &mut stopped => {}
            () = turn_away => stopped.await,
        }
    }

    /// Work that goes on beside serving.
    fn tend(&self) {
        let (registry, mut rewatch) = (self.registry.clone(), self.rewatch.subscribe());
        self.until_stopped(async move {
            loop {
                let plugins = registry.loader().config().plugins.clone();
                let directories: Vec<PathBuf> = [plugins.directory, plugins.policies]
                    .into_iter()
                    .flatten()
                    .collect();
                let mut watch = Watch::start(&directories);
                // What changed before there was a watcher.
                let mut unsettled = registry.look().await;
                loop {
                    let again = async {
                        if unsettled {
                            tokio::time::sleep(QUIET).await;
                        } else {
                            watch.changed().await;
                        }
                    };
                    tokio::select! {
                        () = again => unsettled = registry.look().await,
                        () = told_again(&mut rewatch) => break,
                    }
                }
            }
        });
        // Rights are taken away by a watcher of their own: the look above may be busy with compiling a plugin.
        let (registry, mut rewatch) = (self.registry.clone(), self.rewatch.subscribe());
        self.until_stopped(async move {
            loop {
                let plugins = registry.loader().config().plugins.clone();
                let policies: Vec<PathBuf> = plugins.policies.into_iter().collect();
                let mut watch = Watch::start(&policies);
                loop {
                    tokio::select! {
                        () = watch.changed() => registry.apply_policies(),
                        () = told_again(&mut rewatch) => break,
                    }
                }
            }
        });
        let registry = self.registry.clone();
        self.until_stopped(async move {
            loop {
                tokio::select! {
                    () = registry.was_shown() => {}
                    () = tokio::time::sleep(STATUS_EVERY) => {}
                }
                registry.refresh().await;
                tokio::time::sleep(STATUS_REST).await;
            }
        });
        let registry = self.registry.clone();
        self.until_stopped(every(SOCKETS_EVERY, move || {
            registry.retry_sockets();
            async {}
        }));
        let registry = self.registry.clone();
        self.until_stopped(every(COOL_EVERY, move || {
            registry.cool();
            async {}
        }));
        let (registry, metrics) = (self.registry.clone(), self.metrics.clone());
        self.until_stopped(every(GAUGES_EVERY, move || {
            gauges(&registry, &metrics);
            async {}
        }));
        let look = self.listeners.certificates();
        self.until_stopped(every(TLS_LOOK, move || {
            look();
            async {}
        }));
    }

    fn until_stopped(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = work => {}
            }
        });
    }

    /// What the bundled plugins are, for messages.
    #[must_use]
    pub fn bundled(&self) -> &[Bundled] {
        &self.bundled
    }
}

/// Ends at the next word of a sender; never when the sender is gone.
async fn told_again(told: &mut watch::Receiver<()>) {
    if told.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn every<F: Future<Output = ()>>(pause: Duration, mut work: impl FnMut() -> F) {
    loop {
        tokio::time::sleep(pause).await;
        work().await;
    }
}

fn gauges(registry: &Registry, metrics: &Metrics) {
    let mut instances = 0;
    for plugin in registry.loader().all_running() {
        let (sandbox, shown) = (&plugin.sandbox, &plugin.metrics);
        let sum = |of: fn(&Sandbox) -> u32| plugin.sandboxes().map(|it| i64::from(of(it))).sum();
        let (live, busy): (i64, i64) = (sum(Sandbox::instances), sum(Sandbox::running));
        shown.busy.set(busy);
        shown.idle.set((live - busy).max(0));
        shown.queued.set(i64::from(sandbox.waiting()));
        shown
            .memory
            .set(i64::try_from(sandbox.memory()).unwrap_or(i64::MAX));
        instances += live;
    }
    metrics.pool_slots_used.set(instances);
}

fn told(error: impl std::fmt::Display) -> HostError {
    HostError::Start(error.to_string())
}

/// The state directory: the host's own, entered by nobody else.
fn private_directory(path: &Path) -> Result<(), HostError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| {
            HostError::Start(format!(
                "{}: {error}; choose another with --state DIR",
                path.display()
            ))
        })?;
    let found = std::fs::metadata(path)
        .map_err(|error| HostError::Start(format!("{}: {error}", path.display())))?;
    let me = rustix::process::geteuid().as_raw();
    if found.uid() != me {
        return Err(HostError::Start(format!(
            "{}: belongs to user {}, not to {me}; choose another with --state DIR",
            path.display(),
            found.uid()
        )));
    }
    Ok(())
}

/// How long something took, for people.
#[must_use]
pub fn took(since: Instant) -> String {
    format!("{:.2} s", since.elapsed().as_secs_f64())
}
