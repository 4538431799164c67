//! All listeners of a host, and their change while it runs.
//!
//! It refuses a change it cannot make whole: certificates are loaded and new addresses bound before anything that runs is touched.
//! Listeners that did not change notice nothing, not even their open connections.
//!
//! The one idea: a listener is known by the address it was configured with. The same address keeps its socket whatever else changes;
//! connections that were accepted under other terms end after their present request.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::activation::Inherited;
use super::admitted::Dispatch;
use super::endpoint::{Endpoint, Serves};
use super::identity::PlainForeman;
use super::limits::Limits;
use super::listener::{BindError, Door, Drain, Listener, bind};
use super::own_names::OwnNames;
use super::service::Server;
use super::tls::{OldestTls, Reload, Tls, TlsError, TlsFiles};
use crate::plugin::routes::Audiences;
use crate::sandbox::bindings::types::Audience;
use crate::settings::{self, Config};

/// Why listeners cannot be as they are configured.
#[derive(Debug, thiserror::Error)]
pub enum ListenersError {
    /// An address cannot be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// An address the host listens at.
#[derive(Debug, Clone)]
pub struct Bound {
    /// The listener's name.
    pub listener: String,
    /// The address with the port that was bound.
    pub address: SocketAddr,
    /// TLS or not.
    pub tls: bool,
    /// Whom it serves; empty: the administrator.
    pub audiences: Vec<Audience>,
}

/// One address of one configured listener.
#[derive(Clone, PartialEq)]
struct Wanted {
    listener: settings::Listener,
    address: SocketAddr,
    trial: bool,
}

/// Sockets that are bound and not served yet, and what they will be served with.
pub struct Sockets {
    open: Vec<(Wanted, TcpListener, SocketAddr)>,
    tls: Option<Arc<Tls>>,
}

impl Sockets {
    /// Binds every address of a configuration, or takes the sockets handed over for them. Certificates are read before, so that a start that cannot succeed
    /// ends before it works for it.
    pub fn bind(config: &Config, inherited: &Inherited) -> Result<Self, ListenersError> {
        let tls = load_tls(config)?;
        let all = wanted(config).into_iter().map(|it| open(it, inherited));
        Ok(Self {
            open: all.collect::<Result<_, _>>()?,
            tls,
        })
    }

    /// Where they listen.
    #[must_use]
    pub fn bound(&self) -> Vec<Bound> {
        let bound = |(wanted, _, address): &(Wanted, _, _)| wanted.bound(*address);
        self.open.iter().map(bound).collect()
    }
}

/// Listeners that run.
pub struct Listeners<D> {
    server: Arc<Server<D>>,
    /// Serve connections of listeners that are not Foreman's.
    host_threads: Handle,
    running: Vec<Running>,
    /// Those that were removed and let their last requests finish.
    leaving: Vec<JoinHandle<()>>,
    tls: Arc<ArcSwapOption<Tls>>,
}

struct Running {
    wanted: Wanted,
    address: SocketAddr,
    door: Door,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl<D: Dispatch + 'static> Listeners<D> {
    /// Serves sockets: those that Foreman or the administrator uses on the caller's threads, all others on `host_threads`.
    pub fn serve(
        sockets: Sockets,
        config: &Config,
        server: Arc<Server<D>>,
        host_threads: Handle,
    ) -> Result<Self, ListenersError> {
        let Sockets { open, tls } = sockets;
        let mut listeners = Self {
            server,
            host_threads,
            running: Vec::new(),
            leaving: Vec::new(),
            tls: Arc::new(ArcSwapOption::new(tls.clone())),
        };
        for (wanted, socket, address) in open {
            let running = listeners.run(wanted, socket, address, tls.clone(), config.drain);
            listeners.running.push(running);
        }
        Ok(listeners)
    }

    /// Where they listen.
    #[must_use]
    pub fn bound(&self) -> Vec<Bound> {
        let bound = |it: &Running| it.wanted.bound(it.address);
        self.running.iter().map(bound).collect()
    }

    /// Makes the listeners those of `config`; answers what changed. After an error they are as they were.
    pub async fn change(
        &mut self,
        config: &Config,
        inherited: &Inherited,
    ) -> Result<Vec<String>, ListenersError> {
        let before = self.tls.load_full();
        let files = tls_files(config);
        let same_files = before.as_ref().map(|it| it.files()) == files.as_ref();
        let tls = if same_files {
            before.clone()
        } else {
            load_tls(config)?
        };
        let (kept, fresh) = self.sort(wanted(config));
        let gone: Vec<usize> = (0..self.running.len())
            .filter(|position| !kept.iter().any(|(it, _)| it == position))
            .collect();
        let sockets = self.bind_beside(fresh, &gone, inherited).await?;

        let mut said = Vec::new();
        for (position, wanted) in kept {
            let Some(running) = self.running.get_mut(position) else {
                continue;
            };
            let tls_changed = wanted.listener.tls && !same_files;
            if running.wanted == wanted && !tls_changed {
                continue;
            }
            said.push(format!("listener {}: changed", wanted.words()));
            let threads = threads_of(&wanted, &self.host_threads);
            let endpoint = endpoint(&wanted, running.address, tls.clone(), threads);
            running.door.change(endpoint, &self.server);
            running.wanted = wanted;
        }
        for position in gone.into_iter().rev() {
            let running = self.running.remove(position);
            said.push(format!("listener {}: removed", running.wanted.words()));
            running.stop.cancel();
            self.leaving.push(running.task);
        }
        for (wanted, socket, address) in sockets {
            said.push(format!("listener {}: added", wanted.words()));
            let running = self.run(wanted, socket, address, tls.clone(), config.drain);
            self.running.push(running);
        }
        self.leaving.retain(|task| !task.is_finished());
        self.tls.store(tls);
        if same_files && let Some(reloaded) = refresh(before.as_deref()) {
            said.push(reloaded);
        }
        Ok(said)
    }

    /// What looks at the certificate files now and then.
    pub fn certificates(&self) -> impl Fn() + Send + Sync + 'static {
        let tls = self.tls.clone();
        move || {
            if let Some(said) = refresh(tls.load().as_deref()) {
                tracing::info!("{said}");
            }
        }
    }

    /// Accepts nothing any more; ends when the last request has, or the drain time is over.
    pub async fn stop(self) {
        for running in &self.running {
            running.stop.cancel();
        }
        let tasks = self.running.into_iter().map(|it| it.task);
        for task in tasks.chain(self.leaving) {
            let _ = task.await;
        }
    }

    /// Which running listeners stay, each with what is wanted of it now, and what is new.
    fn sort(&self, wanted: Vec<Wanted>) -> (Vec<(usize, Wanted)>, Vec<Wanted>) {
        let mut kept: Vec<(usize, Wanted)> = Vec::new();
        let mut fresh = Vec::new();
        for wanted in wanted {
            let fits = |(position, it): &(usize, &Running)| {
                it.wanted.address == wanted.address
                    && !kept.iter().any(|(other, _)| other == position)
            };
            let mut candidates: Vec<_> = self.running.iter().enumerate().filter(fits).collect();
            // Several listeners can have been given port 0; the name tells them apart.
            candidates.sort_by_key(|(_, it)| it.wanted.listener.name != wanted.listener.name);
            match candidates.first() {
                Some((position, _)) => kept.push((*position, wanted)),
                None => fresh.push(wanted),
            }
        }
        (kept, fresh)
    }

    /// Binds new addresses. One that overlaps with a listener that goes (`0.0.0.0:8443` after `127.0.0.1:8443`) is bound when that one has
    /// closed its socket; if it cannot be had even then, that one comes back.
    async fn bind_beside(
        &mut self,
        fresh: Vec<Wanted>,
        gone: &[usize],
        inherited: &Inherited,
    ) -> Result<Vec<(Wanted, TcpListener, SocketAddr)>, ListenersError> {
        let mut sockets = Vec::new();
        let mut overlapping = Vec::new();
        for wanted in fresh {
            let port = wanted.address.port();
            let overlaps = |position: &usize| {
                self.running
                    .get(*position)
                    .is_some_and(|it| it.address.port() == port)
            };
            match open(wanted.clone(), inherited) {
                Ok(socket) => sockets.push(socket),
                Err(error)
                    if error.source.kind() == io::ErrorKind::AddrInUse
                        && gone.iter().any(overlaps) =>
                {
                    overlapping.push(wanted);
                }
                Err(error) => return Err(error.into()),
            }
        }
        let mut closed = Vec::new();
        for wanted in overlapping {
            for position in gone {
                if let Some(running) = self.running.get(*position)
                    && running.address.port() == wanted.address.port()
                {
                    running.stop.cancel();
                    running.door.closed().await;
                    closed.push(*position);
                }
            }
            match open(wanted, inherited) {
                Ok(socket) => sockets.push(socket),
                Err(error) => {
                    drop(sockets);
                    self.come_back(closed);
                    return Err(error.into());
                }
            }
        }
        Ok(sockets)
    }

    /// Serves again what was closed for the sake of others.
    fn come_back(&mut self, closed: Vec<usize>) {
        let tls = self.tls.load_full();
        for position in closed {
            let Some((wanted, address)) = self
                .running
                .get(position)
                .map(|it| (it.wanted.clone(), it.address))
            else {
                continue;
            };
            match bind(address) {
                Ok(socket) => {
                    let again = self.run(wanted, socket, address, tls.clone(), DRAIN_AGAIN);
                    if let Some(running) = self.running.get_mut(position) {
                        let before = std::mem::replace(running, again);
                        self.leaving.push(before.task);
                    }
                }
                Err(error) => {
                    tracing::error!(listener = wanted.listener.name, %error, "the listener did not come back")
                }
            }
        }
    }

    fn run(
        &self,
        wanted: Wanted,
        socket: TcpListener,
        address: SocketAddr,
        tls: Option<Arc<Tls>>,
        time: Duration,
    ) -> Running {
        let threads = threads_of(&wanted, &self.host_threads);
        let endpoint = endpoint(&wanted, address, tls, threads);
        let listener = Listener::new(socket, endpoint, self.server.clone());
        let (door, stop) = (listener.door(), CancellationToken::new());
        let drain = Drain {
            stop: stop.clone(),
            time,
        };
        let name = wanted.listener.name.clone();
        let task = tokio::spawn(async move {
            let drained = listener.run(drain).await;
            if drained.cut_off > 0 {
                tracing::warn!(
                    listener = name,
                    connections = drained.cut_off,
                    "cut off after the drain time"
                );
            }
        });
        Running {
            wanted,
            address,
            door,
            stop,
            task,
        }
    }
}

/// Drain time of a listener that came back after a change that failed.
const DRAIN_AGAIN: Duration = Duration::from_secs(20);

impl Wanted {
    fn bound(&self, address: SocketAddr) -> Bound {
        Bound {
            listener: self.listener.name.clone(),
            address,
            tls: self.listener.tls,
            audiences: self.listener.audiences.clone(),
        }
    }

    fn words(&self) -> String {
        format!("{} ({})", self.listener.name, self.address)
    }
}

/// Every address of the configured listeners, and of the admin's.
fn wanted(config: &Config) -> Vec<Wanted> {
    let admin = config.admin.map(|address| settings::Listener {
        name: "admin".into(),
        addresses: vec![address],
        audiences: Vec::new(),
        tls: false,
        public_url: None,
        plain_http_for_foreman: false,
        limits: settings::config::ListenerLimits::default(),
    });
    let all = config.listeners.iter().cloned().chain(admin);
    let each = |listener: settings::Listener| {
        let addresses = listener.addresses.clone();
        addresses.into_iter().map(move |address| Wanted {
            listener: listener.clone(),
            address,
            trial: config.trial,
        })
    };
    all.flat_map(each).collect()
}

/// A socket for an address: the one handed over for it, or a new one.
fn open(
    wanted: Wanted,
    inherited: &Inherited,
) -> Result<(Wanted, TcpListener, SocketAddr), BindError> {
    let failed = |source| BindError {
        address: wanted.address,
        source,
    };
    let handed = inherited.tcp(&wanted.listener.name, wanted.address);
    let socket = match handed.map_err(failed)? {
        Some(socket) => {
            let socket = TcpListener::from_std(socket).map_err(failed)?;
            tracing::info!(listener = wanted.listener.name, address = %wanted.address, "listens on a socket that was handed over");
            socket
        }
        None => bind(wanted.address)?,
    };
    let address = socket.local_addr().map_err(failed)?;
    Ok((wanted, socket, address))
}

/// Whose threads serve its connections: Foreman's and the administrator's are the caller's.
fn threads_of(wanted: &Wanted, host_threads: &Handle) -> Handle {
    let audiences = &wanted.listener.audiences;
    let hosts_only = !audiences.is_empty() && !audiences.contains(&Audience::Foreman);
    if hosts_only {
        host_threads.clone()
    } else {
        Handle::current()
    }
}

fn endpoint(
    wanted: &Wanted,
    address: SocketAddr,
    tls: Option<Arc<Tls>>,
    threads: Handle,
) -> Endpoint {
    let listener = &wanted.listener;
    let admin = listener.audiences.is_empty();
    Endpoint {
        name: listener.name.as_str().into(),
        serves: if admin {
            Serves::Admin
        } else {
            Serves::Audiences(Audiences::of(&listener.audiences))
        },
        tls: tls.filter(|_| listener.tls),
        plain_foreman: plain_foreman(listener, address),
        own_names: (wanted.trial || admin).then(|| OwnNames::loopback_and([host_of(address)])),
        limits: Arc::new(limits(&listener.limits)),
        threads,
    }
}

/// The address as a `Host` header has it.
fn host_of(address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(it) => it.ip().to_string(),
        SocketAddr::V6(it) => format!("[{}]", it.ip()),
    }
}

/// A socket that was handed over may be bound elsewhere than the configuration says: where it is counts as well.
fn plain_foreman(listener: &settings::Listener, address: SocketAddr) -> PlainForeman {
    let mut addresses = listener.addresses.iter().chain([&address]);
    if listener.plain_http_for_foreman {
        PlainForeman::TrustedNames
    } else if addresses.all(|it| it.ip().is_loopback()) {
        PlainForeman::Loopback
    } else {
        PlainForeman::Refused
    }
}

/// The files of `[tls]`, if a listener uses them.
pub fn tls_files(config: &Config) -> Option<TlsFiles> {
    let used = config.listeners.iter().any(|it| it.tls);
    let tls = config.tls.as_ref().filter(|_| used)?;
    Some(TlsFiles {
        certificate: tls.certificate.clone(),
        key: tls.private_key.clone(),
        client_ca: tls.client_ca.clone(),
        oldest: if tls.only_tls13 {
            OldestTls::Tls13
        } else {
            OldestTls::Tls12
        },
    })
}

fn load_tls(config: &Config) -> Result<Option<Arc<Tls>>, TlsError> {
    tls_files(config)
        .map(|files| Tls::load(files).map(Arc::new))
        .transpose()
}

fn refresh(tls: Option<&Tls>) -> Option<String> {
    let tls = tls?;
    match tls.refresh() {
        Reload::Unchanged => None,
        Reload::Reloaded => Some(format!(
            "certificates reloaded: {}",
            tls.files().certificate.display()
        )),
        Reload::Failed(error) => {
            tracing::error!(%error, "new certificates are not usable; those before stay");
            None
        }
    }
}

fn limits(given: &settings::config::ListenerLimits) -> Limits {
    let default = Limits::default();
    Limits {
        connections: given.connections.unwrap_or(default.connections),
        connections_per_address: given
            .connections_per_address
            .unwrap_or(default.connections_per_address),
        requests_per_address: given
            .requests_per_address
            .unwrap_or(default.requests_per_address),
        request_burst: given.request_burst.unwrap_or(default.request_burst),
        handshake: given.handshake.unwrap_or(default.handshake),
        head_time: given.head_time.unwrap_or(default.head_time),
        idle: given.idle.unwrap_or(default.idle),
        body_idle: given.body_idle.unwrap_or(default.body_idle),
        body_time: given.body_time.unwrap_or(default.body_time),
        passed_body_time: given.passed_body_time.unwrap_or(default.passed_body_time),
        send_stall: given.send_stall.unwrap_or(default.send_stall),
        connection_age: given.connection_age.unwrap_or(default.connection_age),
        request_line: given.request_line.unwrap_or(default.request_line),
        head: given.head.unwrap_or(default.head),
        header_lines: given.header_lines.unwrap_or(default.header_lines),
        held_bodies: given.held_bodies.unwrap_or(default.held_bodies),
    }
}
