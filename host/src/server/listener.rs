//! A listening socket: it accepts connections, keeps them within their number, and lets them finish when it is told to stop.
//!
//! It refuses connections beyond the limits by closing them at once (`connections.rs` says which). It makes no decision about requests.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admitted::Dispatch;
use super::connection::{Accepted, Leaving};
use super::connections::{Connections, Full};
use super::endpoint::Endpoint;
use super::rates::Rates;
use super::service::Server;
use super::shares::Shares;
use crate::telemetry::labels::ConnectionRejection;
use crate::telemetry::metrics::ListenerMetrics;

/// Connections the kernel completes before we accept them. 1,024: a storm's worth; the kernel's own limit (`somaxconn`) may be lower.
const BACKLOG: u32 = 1024;
/// Pause after an accept failed for want of descriptors or memory. 50 ms: long enough for some to be freed, short for those who wait.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Between two log lines about failing accepts.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(10);

/// A socket cannot listen there.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}{}", advice(.source))]
pub struct BindError {
    /// Where.
    pub address: SocketAddr,
    /// Why.
    pub source: io::Error,
}

/// What to do about an address that cannot be had.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; `bulkhead doctor` tells who has it",
        io::ErrorKind::PermissionDenied => {
            "; a port below 1024 needs the capability CAP_NET_BIND_SERVICE, or a socket from systemd"
        }
        io::ErrorKind::AddrNotAvailable => "; this machine does not have that address",
        _ => "",
    }
}

/// Listens on an address. `[::]` means IPv6 only, so that it stands beside `0.0.0.0` and no client appears with a mapped address.
pub fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    let listen = || {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        if address.is_ipv6() {
            rustix::net::sockopt::set_ipv6_v6only(&socket, true)?;
        }
        // Without it a restart has to wait until the last connections of the old process are forgotten.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|source| BindError { address, source })
}

/// How long connections may take to finish when a listener stops.
#[derive(Debug, Clone)]
pub struct Drain {
    /// Cancelled when the listener shall stop.
    pub stop: CancellationToken,
    /// From then on, for requests in progress.
    pub time: Duration,
}

/// What was left when a listener had stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Connections that had to be cut off.
    pub cut_off: usize,
}

/// A listener that is ready to run.
pub struct Listener<D> {
    socket: TcpListener,
    server: Arc<Server<D>>,
    door: Door,
}

/// What is held of a listener that runs: by it, what the listener serves can be changed.
#[derive(Clone)]
pub struct Door {
    ground: Arc<ArcSwap<Ground>>,
    closed: CancellationToken,
}

/// What the connections of a listener stand on. Replaced as a whole; those that were accepted before keep theirs, and leave.
struct Ground {
    endpoint: Arc<Endpoint>,
    connections: Arc<Connections>,
    memory: Shares,
    rates: Arc<Rates>,
    metrics: Arc<ListenerMetrics>,
    /// Cancelled when something else stands here: its connections leave, and its threads accept no more.
    leave_soon: CancellationToken,
}

impl Ground {
    fn new<D: Dispatch>(endpoint: Endpoint, server: &Server<D>) -> Self {
        let limits = &endpoint.limits;
        Self {
            connections: Connections::new(limits.connections, limits.connections_per_address),
            memory: Shares::new(limits.held_bodies),
            rates: Arc::new(Rates::new(
                limits.requests_per_address,
                limits.request_burst,
            )),
            metrics: server.metrics().listener(&endpoint.name),
            endpoint: Arc::new(endpoint),
            leave_soon: CancellationToken::new(),
        }
    }
}

impl Door {
    /// Serves something else at the same socket from now on. Connections that are open end after their present request: what they were
    /// promised may no longer hold.
    pub fn change<D: Dispatch>(&self, endpoint: Endpoint, server: &Server<D>) {
        let before = self.ground.swap(Arc::new(Ground::new(endpoint, server)));
        before.leave_soon.cancel();
    }

    /// Ends when the listener has been told to stop and its socket is closed.
    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }
}

impl<D: Dispatch> Listener<D> {
    /// Joins a listening socket (bound here or inherited) with what it serves.
    pub fn new(socket: TcpListener, endpoint: Endpoint, server: Arc<Server<D>>) -> Self {
        let ground = Ground::new(endpoint, &server);
        Self {
            socket,
            server,
            door: Door {
                ground: Arc::new(ArcSwap::from_pointee(ground)),
                closed: CancellationToken::new(),
            },
        }
    }

    /// For changing it while it runs.
    pub fn door(&self) -> Door {
        self.door.clone()
    }

    /// Where it listens.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Accepts and serves until stopped, then lets requests in progress finish. Ends when the last connection has. It accepts on the threads of what
    /// it serves, also when that changes; the kernel keeps who comes while it moves.
    pub async fn run(self, drain: Drain) -> Drained {
        let (door, stop) = (self.door(), drain.stop);
        let leave_now = CancellationToken::new();
        let tasks = TaskTracker::new();
        let mut accepting = Accepting {
            listener: self,
            stop: stop.clone(),
            leave_now: leave_now.clone(),
            tasks: tasks.clone(),
            complained: None,
        };
        while !stop.is_cancelled() {
            let threads = door.ground.load().endpoint.threads.clone();
            match threads.spawn(accepting.on_these_threads()).await {
                Ok(again) => accepting = again,
                Err(error) => {
                    tracing::error!(%error, "a listener ended");
                    stop.cancelled().await;
                    return Drained { cut_off: 0 };
                }
            }
        }
        // From here on the kernel refuses new connections.
        drop(accepting);
        door.closed.cancel();
        door.ground.load().leave_soon.cancel();
        tasks.close();
        if tokio::time::timeout(drain.time, tasks.wait()).await.is_ok() {
            return Drained { cut_off: 0 };
        }
        let cut_off = tasks.len();
        leave_now.cancel();
        tasks.wait().await;
        Drained { cut_off }
    }
}

/// A listener at work.
struct Accepting<D> {
    listener: Listener<D>,
    stop: CancellationToken,
    leave_now: CancellationToken,
    tasks: TaskTracker,
    complained: Option<Instant>,
}

impl<D: Dispatch> Accepting<D> {
    /// Accepts until it is stopped or shall serve something else. A connection belongs to the threads that accepted it.
    async fn on_these_threads(mut self) -> Self {
        let moves = self.listener.door.ground.load().leave_soon.clone();
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.stop.cancelled() => return self,
                () = moves.cancelled() => return self,
                accepted = self.listener.socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => self.admit(stream, peer),
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => self.complain(&error).await,
            }
        }
    }

    fn admit(&self, stream: TcpStream, peer: SocketAddr) {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let counted = !self.listener.server.rules().fronts.contains(peer.ip());
        let ground = self.listener.door.ground.load();
        let lease = match ground.connections.enter(peer.ip(), counted) {
            Ok(lease) => lease,
            Err(full) => {
                return ground.metrics.rejected(match full {
                    Full::Listener => ConnectionRejection::ListenerFull,
                    Full::Address => ConnectionRejection::ClientFull,
                });
            }
        };
        // The socket is gone already if it has no address of its own.
        let Ok(local) = stream.local_addr() else {
            return;
        };
        let accepted = Accepted {
            stream,
            endpoint: ground.endpoint.clone(),
            peer,
            local,
            memory: ground.memory.clone(),
            rates: ground.rates.clone(),
            metrics: ground.metrics.clone(),
            leaving: Leaving {
                soon: ground.leave_soon.clone(),
                now: self.leave_now.clone(),
            },
            lease,
        };
        self.tasks
            .spawn(accepted.serve(self.listener.server.clone()));
    }

    async fn complain(&mut self, error: &io::Error) {
        if self
            .complained
            .is_none_or(|last| last.elapsed() > COMPLAINT_PAUSE)
        {
            self.complained = Some(Instant::now());
            let ground = self.listener.door.ground.load();
            tracing::error!(listener = %ground.endpoint.name, %error, open = ground.connections.count(), "cannot accept connections");
        }
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

/// Whether an accept failed because that client left in the meantime.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}
