//! What the configuration and the policies ask of this machine: sockets, directories, interfaces; and who is served where.
//!
//! The one idea: the bundled plugins are described as at a start, and their policies are applied to their settings, so that defaults and settings that
//! name a place are known from one place, the policy.

use std::fmt::{self, Display};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokio::runtime::Runtime;
use wasmtime::component::Component;

use crate::grant::Deny;
use crate::grant::effective::{Effective, FilesTarget, SecretSource, WatchPlace};
use crate::grant::matchers::socket::Transport;
use crate::grant::policy::{Policy, Problems};
use crate::plugin::compile::{Compiler, Origin};
use crate::plugin::inspect;
use crate::plugin::registry::Bundled;
use crate::sandbox::bindings::types::{Audience, Manifest};
use crate::sandbox::{Engine, EngineConfig, Runtimes};
use crate::settings::{Config, Enabled, schema};

/// What is asked for.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub sockets: Vec<Wanted>,
    pub places: Vec<Place>,
    /// To answer DHCP on.
    pub interfaces: Vec<String>,
    /// Bundled plugins that answer requests.
    pub routes: Vec<Served>,
    /// Plugins that would not run, each with its reason.
    pub troubles: Vec<(String, String)>,
    /// Why the plugins could not be looked at.
    pub unseen: Option<String>,
}

/// A socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub owner: Owner,
    pub transport: Transport,
    pub address: SocketAddr,
}

/// Who asks for a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Owner {
    Listener(String),
    Admin,
    Plugin(String),
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listener(name) => write!(f, "listener `{name}`"),
            Self::Admin => f.write_str("the admin listener"),
            Self::Plugin(name) => write!(f, "plugin `{name}`"),
        }
    }
}

/// Whom a plugin answers, and on which kinds of listeners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Served {
    pub plugin: String,
    pub audiences: Vec<Audience>,
    pub enabled: Enabled,
}

impl Served {
    pub(super) fn of(manifest: &Manifest, enabled: Enabled) -> Self {
        Self {
            plugin: manifest.name.clone(),
            audiences: manifest.routes.iter().map(|it| it.audience).collect(),
            enabled,
        }
    }

    /// Whether it answers anybody on such a listener.
    pub(super) fn is_at(&self, tls: bool, audiences: &[Audience]) -> bool {
        let kind = if tls {
            self.enabled.https()
        } else {
            self.enabled.http()
        };
        kind && self.audiences.iter().any(|it| audiences.contains(it))
    }
}

/// A file or directory of a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub plugin: String,
    /// Of the slot: `files`, `watch`, `secrets`, `http`.
    pub capability: &'static str,
    pub slot: String,
    pub path: PathBuf,
    pub is_directory: bool,
    pub writes: bool,
    /// Nobody else's to read.
    pub is_key: bool,
}

impl Plan {
    pub(super) fn of(config: &Config, bundled: &[Bundled], runtime: &Runtime) -> Self {
        let mut plan = Self::default();
        for listener in &config.listeners {
            plan.sockets
                .extend(listener.addresses.iter().map(|address| Wanted {
                    owner: Owner::Listener(listener.name.clone()),
                    transport: Transport::Tcp,
                    address: *address,
                }));
        }
        plan.sockets.extend(config.admin.map(|address| Wanted {
            owner: Owner::Admin,
            transport: Transport::Tcp,
            address,
        }));
        let enabled = |it: &&Bundled| {
            let feature = config.features.get(it.name);
            config.plugins.bundled && feature.is_some_and(|it| it.enabled != Enabled::Off)
        };
        let asked: Vec<&Bundled> = bundled.iter().filter(enabled).collect();
        if asked.is_empty() {
            return plan;
        }
        let desk = match Desk::open(config) {
            Ok(desk) => desk,
            Err(reason) => {
                plan.unseen = Some(reason);
                return plan;
            }
        };
        for bundled in asked {
            let looked = runtime.block_on(desk.manifest(bundled));
            let rights = looked.and_then(|manifest| {
                let feature = config.features.get(bundled.name);
                let enabled = feature.map_or(Enabled::Off, |it| it.enabled);
                plan.routes.push(Served::of(&manifest, enabled));
                rights(config, bundled, &manifest)
            });
            match rights {
                Ok(effective) => plan.add(bundled.name, &effective),
                Err(reason) => plan.troubles.push((bundled.name.to_owned(), reason)),
            }
        }
        plan
    }

    fn add(&mut self, plugin: &str, effective: &Effective) {
        for grant in effective.listen.values() {
            self.sockets
                .extend(grant.sockets.iter().map(|socket| Wanted {
                    owner: Owner::Plugin(plugin.to_owned()),
                    transport: socket.transport,
                    address: socket.address,
                }));
        }
        for grant in effective.link.values() {
            self.interfaces.extend(grant.interfaces.iter().cloned());
            if !grant.interfaces.is_empty() {
                self.sockets.push(Wanted {
                    owner: Owner::Plugin(plugin.to_owned()),
                    transport: Transport::Udp,
                    address: SocketAddr::from(([0, 0, 0, 0], grant.port)),
                });
            }
        }
        let mut place = |capability, slot: &dyn Display, path: &Path, is_directory, writes| {
            self.places.push(Place {
                plugin: plugin.to_owned(),
                capability,
                slot: slot.to_string(),
                path: path.to_owned(),
                is_directory,
                writes,
                is_key: false,
            });
        };
        for (slot, grant) in &effective.files {
            let (path, is_directory) = match &grant.target {
                FilesTarget::Directory(path) => (path, true),
                FilesTarget::File(path) => (path, false),
            };
            place("files", slot, path, is_directory, grant.access.writes());
        }
        for (slot, grant) in &effective.watch {
            match &grant.place {
                WatchPlace::Directory(path) => place("watch", slot, path, true, false),
                WatchPlace::Files(paths) => {
                    for path in paths {
                        place("watch", slot, path, false, false);
                    }
                }
            }
        }
        for (slot, grant) in &effective.http {
            let certificate = grant.tls.identity.as_ref().map(|pair| &pair.0);
            for path in grant.tls.ca.iter().chain(certificate) {
                place("http", slot, path, false, false);
            }
        }
        let mut key = |capability, slot: &dyn Display, path: &Path| {
            self.places.push(Place {
                plugin: plugin.to_owned(),
                capability,
                slot: slot.to_string(),
                path: path.to_owned(),
                is_directory: false,
                writes: false,
                is_key: true,
            });
        };
        for (slot, grant) in &effective.http {
            if let Some((_, path)) = &grant.tls.identity {
                key("http", slot, path);
            }
        }
        for (slot, grant) in &effective.secrets {
            if let SecretSource::File(path) = &grant.source {
                key("secrets", slot, path);
            }
        }
    }
}

/// What describing a plugin takes.
struct Desk {
    engine: Engine,
    runtimes: Runtimes,
    /// Machine code of earlier starts, if there is any that this user may use.
    compiler: Option<Compiler>,
}

impl Desk {
    fn open(config: &Config) -> Result<Self, String> {
        let told = |error: &dyn std::fmt::Display| error.to_string();
        let engine = Engine::new(&EngineConfig::for_machine()).map_err(|error| told(&error))?;
        let runtimes = Runtimes::start().map_err(|error| told(&error))?;
        let cache = config.state.join("compiled");
        let compiler = std::env::current_exe()
            .ok()
            .filter(|_| cache.is_dir())
            .and_then(|program| {
                let limits = config.engine.compile.clone();
                Compiler::open(engine.clone(), cache, limits, program).ok()
            });
        Ok(Self {
            engine,
            runtimes,
            compiler,
        })
    }

    async fn manifest(&self, bundled: &Bundled) -> Result<Manifest, String> {
        let handles = self.runtimes.handles();
        let manifest = match &self.compiler {
            Some(compiler) => {
                let wasm = bundled.component();
                let asked =
                    inspect::manifest(&self.engine, compiler, &handles, &wasm, Origin::FirstParty);
                asked.await.map(|(manifest, _)| manifest)
            }
            None => {
                let component = Component::new(self.engine.inner(), bundled.wasm)
                    .map_err(|error| format!("{error:#}"))?;
                inspect::describe(&self.engine, &component, handles).await
            }
        };
        manifest.map_err(|error| error.to_string())
    }
}

/// What its policy grants it with its settings.
fn rights(config: &Config, bundled: &Bundled, manifest: &Manifest) -> Result<Effective, String> {
    let values = schema::resolve(config, bundled.name, &manifest.settings)
        .map_err(|problems| problems.to_string())?;
    let own = config.plugins.policies.as_ref();
    let own = own.map(|directory| directory.join(format!("{}.toml", bundled.name)));
    let policy = match own.filter(|path| path.exists()) {
        Some(path) => {
            let text = std::fs::read_to_string(&path)
                .map_err(|error| format!("{}: {error}", path.display()))?;
            Policy::parse(&path, &text)
        }
        None => {
            let path = PathBuf::from(format!("policies/{}.toml", bundled.name));
            Policy::parse(&path, bundled.policy)
        }
    };
    let policy = policy.map_err(|problems| problems.to_string())?;
    let resolution = policy.resolve(manifest, &values, &config.limits, &Deny::default());
    if !resolution.problems.is_empty() {
        return Err(Problems(resolution.problems).to_string());
    }
    let missing = resolution.missing.iter().filter(|it| it.required);
    let missing: Vec<String> = missing.map(ToString::to_string).collect();
    if missing.is_empty() {
        Ok(resolution.effective)
    } else {
        Err(missing.join("; "))
    }
}
