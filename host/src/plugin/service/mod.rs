//! Network services: the sockets that the host holds for plugins, and the batches that their reactors are fed.
//!
//! It refuses to let a component near a socket: the host binds what a `listen` slot's policy names, receives, hands over batches in order of arrival, asks
//! `decide` for each reaction, and sends. It refuses as well to lose what it accepted: sockets and their queue belong to the plugin's *name*, so a new version
//! finds the queue as the old one left it, and a reactor that crashed finds its queue when it is back.
//!
//! | file | concept |
//! |---|---|
//! | `queue` | what was accepted and waits |
//! | `feed` | the one task that calls the reactor, and what happens when it crashes |
//! | `react` | what becomes of a reaction: decided, then sent |
//! | `transfer` | a file sent block by block (RFC 1350) |
//! | `udp` | a bound UDP socket |
//! | `link` | one network interface, for clients without an address |
//! | `addresses` | which addresses this machine has |
//! | `wake` | events for kept instances that are no service |
//! | `stream` | a bound TCP socket whose connections carry framed messages (RFC 1035 section 4.2.2) |
//!
//! The one idea: [`Services::settle`] compares what policies name with what is open, and makes it so. It is called whenever a plugin or a policy changed.

mod addresses;
mod feed;
mod link;
mod queue;
mod react;
mod stream;
mod transfer;
mod udp;
mod wake;

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use self::queue::Queue;
use super::running::Plugin;
use crate::grant::Effective;
use crate::grant::effective::ListenLimits;
use crate::grant::matchers::socket::{ListenSocket, Transport};
use crate::grant::{Action, Decision};
use crate::sandbox::bindings::exports::reactor::Port;

/// How long a service that ends may take for what it has accepted.
const GRACE: Duration = Duration::from_secs(5);
/// And its connections, for the last answers.
const FLUSH: Duration = Duration::from_millis(100);

/// All network services of a host.
pub struct Services {
    threads: Handle,
    services: Mutex<HashMap<Arc<str>, Service>>,
    wakers: wake::Wakers,
    handed: Arc<dyn Handed>,
}

/// Sockets that somebody opened for this process, as systemd does.
pub trait Handed: Send + Sync {
    /// The UDP socket bound to this address, if one was handed over. Not blocking.
    fn udp(&self, address: SocketAddr) -> io::Result<Option<UdpSocket>>;
    /// The listening TCP socket, likewise.
    fn tcp(&self, address: SocketAddr) -> io::Result<Option<TcpListener>>;
}

/// One plugin's sockets.
struct Service {
    plugin: Arc<ArcSwap<Plugin>>,
    queue: Arc<Queue>,
    doors: Arc<ArcSwap<Doors>>,
    open: HashMap<Place, Held>,
    /// None: it ends.
    feeder: Option<JoinHandle<()>>,
}

/// What makes a socket the same socket.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Place {
    slot: Arc<str>,
    transport: Transport,
    address: SocketAddr,
    interface: Option<String>,
    /// It is of a `link` slot.
    link: bool,
    /// Of TCP connections; datagrams have none.
    limits: ListenLimits,
}

/// A socket and the task that receives on it.
struct Held {
    door: Door,
    task: JoinHandle<()>,
    /// The index of the interface that it is bound to.
    index: Option<usize>,
}

/// Where reactions leave.
#[derive(Clone)]
enum Door {
    Udp(Arc<udp::UdpDoor>),
    Stream(Arc<stream::StreamDoor>),
    Link(Arc<link::LinkDoor>),
}

/// The open sockets of a plugin, by slot.
type Doors = HashMap<Arc<str>, Vec<Door>>;

/// One datagram that was accepted.
struct Arrived {
    slot: Arc<str>,
    transport: Transport,
    peer: SocketAddr,
    local: SocketAddr,
    /// Only on `link` slots.
    port: Option<Port>,
    bytes: Vec<u8>,
    at: Instant,
    /// Only of connections.
    turn: Option<stream::Turn>,
}

/// How long somebody waits for an answer to a datagram. Clients of DNS, DHCP and TFTP have asked again by then, or given up; what waited
/// longer behind a service that crashed would only delay those who still wait.
const AWAITED: Duration = Duration::from_secs(5);

impl Arrived {
    /// Whether somebody still waits. A connection that is open does.
    fn is_awaited(&self) -> bool {
        self.transport == Transport::Tcp || self.at.elapsed() < AWAITED
    }

    /// Whether the plugin still has a right to where it arrived.
    fn is_granted(&self, rights: &Effective) -> bool {
        let slot = &*self.slot;
        match &self.port {
            Some(port) => rights
                .link
                .get(slot)
                .is_some_and(|grant| grant.interfaces.contains(&port.interface)),
            None => rights.listen.get(slot).is_some_and(|grant| {
                grant
                    .sockets
                    .iter()
                    .any(|own| own.transport == self.transport && is_of(self.local, own.address))
            }),
        }
    }
}

/// Whether what arrived at this address came by a socket that is bound to that one.
fn is_of(local: SocketAddr, bound: SocketAddr) -> bool {
    let all = bound.ip().is_unspecified() && local.is_ipv4() == bound.is_ipv4();
    let port = bound.port() == 0 || local.port() == bound.port();
    port && (all || local.ip() == bound.ip())
}

/// A socket of a `listen` slot that is open, for those who list them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// The plugin.
    pub plugin: Arc<str>,
    /// Where it listens.
    pub socket: ListenSocket,
}

impl Services {
    /// Services that receive and send on these threads, which serve nothing else.
    #[must_use]
    pub fn new(threads: Handle, handed: Arc<dyn Handed>) -> Self {
        Self {
            threads,
            services: Mutex::default(),
            wakers: wake::Wakers::default(),
            handed,
        }
    }

    /// Opens what running plugins have a right to and is not open, closes what nobody has a right to any more, and has each queue fed to the version
    /// that runs. A socket that cannot be bound is the plugin's problem, shown with its reason; the next call tries again. What runs is asked when it is this
    /// call's turn, so that an older picture never undoes a newer one.
    pub fn settle(&self, running: impl FnOnce() -> Vec<Arc<Plugin>>) {
        let mut services = self.lock();
        let running = running();
        self.wakers.settle(&running, &self.threads);
        services.retain(|name, service| {
            let stays = running
                .iter()
                .any(|it| it.name == *name && it.reactor.is_some());
            if !stays && let Some(ending) = service.close() {
                self.threads.spawn(ending);
            }
            stays
        });
        for plugin in running.iter().filter(|it| it.reactor.is_some()) {
            let service = services
                .entry(plugin.name.clone())
                .or_insert_with(|| Service::start(plugin.clone(), &self.threads));
            if !Arc::ptr_eq(&service.plugin.load(), plugin) {
                service.plugin.store(plugin.clone());
            }
            let problem = service.open_and_close(plugin, &self.threads, &*self.handed);
            plugin.set_service_problem(problem);
        }
    }

    /// Whether an interface that a socket is bound to went away, was renamed or was made anew. The kernel tells the socket nothing: it would be silent for ever.
    #[must_use]
    pub fn have_lost_an_interface(&self) -> bool {
        let services = self.lock();
        let mut open = services.values().flat_map(|service| &service.open);
        open.any(|(place, held)| held.has_lost_its_interface(place))
    }

    /// Every open socket.
    #[must_use]
    pub fn ports(&self) -> Vec<ServicePort> {
        let mut ports: Vec<ServicePort> = self
            .lock()
            .iter()
            .flat_map(|(name, service)| {
                service.open.iter().map(|(place, held)| ServicePort {
                    plugin: name.clone(),
                    socket: ListenSocket {
                        transport: place.transport,
                        address: held.door.local(),
                    },
                })
            })
            .collect();
        ports.sort_by(|one, two| {
            (&one.plugin, one.socket.address).cmp(&(&two.plugin, two.socket.address))
        });
        ports
    }

    /// Closes everything, and waits until what was accepted is answered, or [`GRACE`] is over.
    pub async fn close(&self) {
        self.wakers.close();
        let ending: Vec<_> = self
            .lock()
            .values_mut()
            .filter_map(Service::close)
            .collect();
        futures::future::join_all(ending).await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Arc<str>, Service>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Service {
    fn start(plugin: Arc<Plugin>, threads: &Handle) -> Self {
        let queue = Arc::new(Queue::new());
        let plugin = Arc::new(ArcSwap::new(plugin));
        let doors = Arc::new(ArcSwap::from_pointee(Doors::new()));
        let feeder = threads.spawn(feed::feed(plugin.clone(), doors.clone(), queue.clone()));
        Self {
            plugin,
            queue,
            doors,
            open: HashMap::new(),
            feeder: Some(feeder),
        }
    }

    /// Answers the first socket that cannot be had, and why.
    fn open_and_close(
        &mut self,
        plugin: &Arc<Plugin>,
        threads: &Handle,
        handed: &dyn Handed,
    ) -> Option<String> {
        let effective = plugin.guard.effective();
        let wanted: HashSet<Place> = effective
            .listen
            .iter()
            .flat_map(|(slot, grant)| {
                grant.sockets.iter().map(|socket| Place {
                    slot: slot.as_str().into(),
                    transport: socket.transport,
                    address: socket.address,
                    interface: grant.interface.clone(),
                    link: false,
                    limits: match socket.transport {
                        Transport::Tcp => grant.limits,
                        Transport::Udp => ListenLimits::default(),
                    },
                })
            })
            .chain(effective.link.iter().flat_map(|(slot, grant)| {
                grant.interfaces.iter().map(|interface| Place {
                    slot: slot.as_str().into(),
                    transport: Transport::Udp,
                    address: SocketAddr::from(([0, 0, 0, 0], grant.port)),
                    interface: Some(interface.clone()),
                    link: true,
                    limits: ListenLimits::default(),
                })
            }))
            .collect();
        let before = self.open.len();
        self.open.retain(|place, held| {
            let is_well = !held.task.is_finished() && !held.has_lost_its_interface(place);
            let stays = wanted.contains(place) && is_well;
            if !stays {
                held.task.abort();
            }
            stays
        });
        let mut changed = self.open.len() != before;
        let mut problem = None;
        for place in wanted {
            if self.open.contains_key(&place) {
                continue;
            }
            match self.open_one(&place, plugin, threads, handed) {
                Ok(held) => {
                    tracing::info!(plugin = &*plugin.name, socket = %place, "listening");
                    self.open.insert(place, held);
                    changed = true;
                }
                Err(reason) => problem = problem.or(Some(reason)),
            }
        }
        if changed {
            let mut doors = Doors::new();
            for (place, held) in &self.open {
                doors
                    .entry(place.slot.clone())
                    .or_default()
                    .push(held.door.clone());
            }
            self.doors.store(Arc::new(doors));
        }
        problem
    }

    fn open_one(
        &self,
        place: &Place,
        plugin: &Arc<Plugin>,
        threads: &Handle,
        handed: &dyn Handed,
    ) -> Result<Held, String> {
        let action = match &place.interface {
            Some(interface) if place.link => Action::Link {
                slot: &place.slot,
                interface,
            },
            _ => Action::Listen {
                slot: &place.slot,
                transport: place.transport,
                addr: place.address,
            },
        };
        if let Decision::Deny(denial) = plugin.guard.decide(&action) {
            return Err(denial.to_string());
        }
        let _entered = threads.enter();
        let cannot = |error: std::io::Error| cannot_bind(place, &error);
        let (slot, queue) = (place.slot.clone(), self.queue.clone());
        let numbers = plugin.metrics.clone();
        // Looked at first: if it is another one by the time of the binding, the next look tells.
        let index = place.interface.as_deref().and_then(link::index);
        if let Some(interface) = place.interface.as_deref().filter(|_| place.link) {
            let door = link::LinkDoor::open(interface, place.address.port()).map_err(cannot)?;
            let door = Arc::new(door);
            let task = threads.spawn(door.clone().receive(slot, queue, numbers));
            return Ok(Held {
                door: Door::Link(door),
                task,
                index,
            });
        }
        Ok(match place.transport {
            Transport::Udp => {
                let given = handed.udp(place.address).map_err(cannot)?;
                let door = match given.filter(|_| place.interface.is_none()) {
                    Some(socket) => udp::UdpDoor::of(socket),
                    None => udp::UdpDoor::bind(place.address, place.interface.as_deref()),
                };
                let door = door.map_err(cannot)?;
                let door = Arc::new(door);
                let task = threads.spawn(door.clone().receive(slot, queue, numbers, || None));
                Held {
                    door: Door::Udp(door),
                    task,
                    index,
                }
            }
            Transport::Tcp => {
                let given = handed.tcp(place.address).map_err(cannot)?;
                let door = match given.filter(|_| place.interface.is_none()) {
                    Some(socket) => stream::StreamDoor::of(socket, place.limits),
                    None => stream::StreamDoor::bind(
                        place.address,
                        place.interface.as_deref(),
                        place.limits,
                    ),
                };
                let door = door.map_err(cannot)?;
                let door = Arc::new(door);
                let task = threads.spawn(door.clone().accept(slot, queue, numbers));
                Held {
                    door: Door::Stream(door),
                    task,
                    index,
                }
            }
        })
    }

    /// Accepts nothing more. What was accepted is worked off meanwhile; whoever waits for that sees it end.
    fn close(&mut self) -> Option<impl Future<Output = ()> + Send + use<>> {
        let mut feeder = self.feeder.take()?;
        self.queue.close();
        let open = std::mem::take(&mut self.open);
        // A stream's task carries its connections: answers still leave by them.
        let (streams, others): (Vec<_>, Vec<_>) = open
            .into_values()
            .partition(|held| matches!(held.door, Door::Stream(_)));
        for held in others {
            held.task.abort();
        }
        let name = self.plugin.load().name.clone();
        Some(async move {
            if tokio::time::timeout(GRACE, &mut feeder).await.is_err() {
                tracing::warn!(
                    plugin = &*name,
                    "what its service had accepted is lost: it took longer than {} s",
                    GRACE.as_secs()
                );
                feeder.abort();
            }
            if !streams.is_empty() {
                // The last answers are on their way to the connections.
                tokio::time::sleep(FLUSH).await;
            }
            for held in streams {
                held.task.abort();
            }
        })
    }
}

impl Held {
    fn has_lost_its_interface(&self, place: &Place) -> bool {
        let interface = place.interface.as_deref();
        interface.is_some_and(|interface| link::index(interface) != self.index)
    }
}

impl Door {
    fn local(&self) -> SocketAddr {
        match self {
            Self::Udp(door) => door.local(),
            Self::Stream(door) => door.local(),
            Self::Link(door) => door.local(),
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.transport, self.address)?;
        match &self.interface {
            Some(interface) => write!(f, " on {interface}"),
            None => Ok(()),
        }
    }
}

/// Says what to do about a socket that cannot be bound.
fn cannot_bind(place: &Place, error: &std::io::Error) -> String {
    let advice = match error.kind() {
        std::io::ErrorKind::PermissionDenied if place.link => {
            "; it needs the capabilities CAP_NET_RAW and CAP_NET_BIND_SERVICE (AmbientCapabilities= in the systemd unit)"
        }
        std::io::ErrorKind::PermissionDenied => {
            "; a port below 1024 needs the capability CAP_NET_BIND_SERVICE, or a socket from systemd"
        }
        std::io::ErrorKind::AddrInUse => {
            "; another program has it: stop that, or name another port in the policy"
        }
        std::io::ErrorKind::AddrNotAvailable => "; this machine does not have that address",
        _ if error.raw_os_error() == Some(libc::ENODEV) => {
            "; there is no such interface (`ip link` lists them)"
        }
        _ => "",
    };
    format!(
        "it cannot listen at {place} ({} slot `{}`): {error}{advice}",
        if place.link { "link" } else { "listen" },
        place.slot
    )
}
