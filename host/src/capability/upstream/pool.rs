//! Connections kept open between requests.
//!
//! It refuses to share a connection between plugins or slots, and to hand out one that was opened under rights that have
//! changed since: a pool belongs to one generation of one plugin's policy and closes with it.
//!
//! The one idea: a permit stands for a connection in use. Whoever has a permit takes an idle connection or opens one; permits are
//! given out in turn ([`crate::sandbox::line`]), so a burst of requests waits instead of opening a burst of connections.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use axum::body::Body;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::answers::Answers;
use super::dial::{Origin, Transport};
use super::error;
use super::trust::Trust;
use crate::sandbox::bindings::types::UpstreamError;
use crate::sandbox::line::{Full, Line, Permit};

/// How long a connection stays open without a request. Shorter than what servers grant (Apache: 5 s), so that rather the host closes it
/// than that a request meets a closing server.
const IDLE_TIME: Duration = Duration::from_secs(4);

/// The most idle connections of all plugins together: each may hold 50 KiB of buffers and TLS state.
const MAX_IDLE: usize = 256;

/// How often connections that were idle too long are closed.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// How long a finished connection may take to become ready for the next request, else it is closed.
const READY_TIME: Duration = Duration::from_secs(1);

/// The largest head of an answer in bytes; servers themselves rarely allow more than 64 KiB.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// The most headers of an answer.
const MAX_HEADERS: usize = 200;

/// Whose connections, and where to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct PoolKey {
    pub(super) plugin: String,
    pub(super) slot: String,
    pub(super) origin: Origin,
    pub(super) trust: Trust,
}

/// All pools; one a host.
#[derive(Debug)]
pub(super) struct Pools {
    open: Arc<Mutex<HashMap<PoolKey, Arc<Pool>>>>,
    io: Handle,
    _sweeper: AbortOnDropHandle<()>,
}

/// The connections of one key under one generation of the policy.
#[derive(Debug)]
pub(super) struct Pool {
    generation: u64,
    places: Arc<Line>,
    answers: Answers,
    idle: Mutex<Idle>,
    _watch: AbortOnDropHandle<()>,
}

#[derive(Debug, Default)]
struct Idle {
    closed: bool,
    connections: Vec<(Connection, Instant)>,
}

/// An open connection. Dropping it closes it.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) sender: http1::SendRequest<Body>,
    /// The address it leads to.
    pub(super) peer: IpAddr,
    _driver: AbortOnDropHandle<()>,
}

/// The right to use one connection, and where it goes afterwards.
#[derive(Debug)]
pub(super) struct Place {
    pool: Arc<Pool>,
    permit: Permit,
    io: Handle,
    since: Instant,
}

impl Pools {
    pub(super) fn new(io: Handle) -> Self {
        let open: Arc<Mutex<HashMap<PoolKey, Arc<Pool>>>> = Arc::default();
        let swept = Arc::downgrade(&open);
        let sweeper = io.spawn(async move {
            loop {
                tokio::time::sleep(SWEEP_EVERY).await;
                let Some(pools) = swept.upgrade() else { return };
                sweep(&pools);
            }
        });
        Pools {
            open,
            io,
            _sweeper: AbortOnDropHandle::new(sweeper),
        }
    }

    /// The pool of a key under the generation that `rights` shows now; older ones are closed.
    pub(super) fn get(
        &self,
        key: PoolKey,
        rights: &watch::Receiver<u64>,
        connections: usize,
    ) -> Arc<Pool> {
        let generation = *rights.borrow();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = open.get(&key) {
            if pool.generation == generation {
                return pool.clone();
            }
            pool.close();
        }
        let pool = Arc::new_cyclic(|weak: &Weak<Pool>| Pool {
            generation,
            places: Line::new(connections),
            answers: Answers::default(),
            idle: Mutex::default(),
            _watch: AbortOnDropHandle::new(self.io.spawn(close_on_change(
                weak.clone(),
                rights.clone(),
                generation,
            ))),
        });
        open.insert(key, pool.clone());
        pool
    }

    #[cfg(test)]
    pub(super) fn idle(&self) -> usize {
        self.open
            .lock()
            .unwrap()
            .values()
            .map(|pool| pool.idle.lock().unwrap().connections.len())
            .sum()
    }
}

async fn close_on_change(pool: Weak<Pool>, mut rights: watch::Receiver<u64>, generation: u64) {
    // An error means that the plugin is gone, and its rights with it.
    let _ = rights.wait_for(|now| *now != generation).await;
    if let Some(pool) = pool.upgrade() {
        pool.close();
    }
}

fn sweep(pools: &Mutex<HashMap<PoolKey, Arc<Pool>>>) {
    let mut left = MAX_IDLE;
    let mut closing = Vec::new();
    pools
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .retain(|_, pool| {
            let mut idle = pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let (keep, close): (Vec<_>, Vec<_>) =
                idle.connections.drain(..).partition(|(connection, since)| {
                    let keep =
                        left > 0 && since.elapsed() < IDLE_TIME && !connection.sender.is_closed();
                    left -= usize::from(keep);
                    keep
                });
            idle.connections = keep;
            closing.extend(close);
            // Nobody else holds it: no request is running or waiting.
            !idle.connections.is_empty() || Arc::strong_count(pool) > 1
        });
}

impl Pool {
    /// Waits for a connection's turn, in the line of this client, unless as many wait as may. What is opened lives on `io`.
    pub(super) async fn place(
        self: &Arc<Self>,
        client: Option<IpAddr>,
        queue: usize,
        io: &Handle,
    ) -> Result<Place, Full> {
        let permit = self.places.turn(client, queue).await?;
        Ok(Place {
            pool: self.clone(),
            permit,
            io: io.clone(),
            since: Instant::now(),
        })
    }

    /// When who is turned away now may come back.
    pub(super) fn retry_after(&self) -> Duration {
        self.places.retry_after()
    }

    fn close(&self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.closed = true;
        idle.connections.clear();
    }
}

impl Place {
    /// The threads of connections that are opened here.
    pub(super) fn io(&self) -> &Handle {
        &self.io
    }

    /// What a request needs from here to its answer that has less than that left, of the time it had at first.
    pub(super) fn too_late(&self, left: Duration, timeout: Duration) -> Option<Duration> {
        self.pool.answers.too_late(left, timeout)
    }

    /// Gives it back: no request was sent.
    pub(super) fn unused(self) {
        self.permit.unused();
    }

    /// The head of the answer is there.
    pub(super) fn answered(&self) {
        self.pool.answers.came(self.since.elapsed());
    }

    /// There was no answer in time.
    pub(super) fn missed(&self) {
        self.pool.answers.missed(self.since.elapsed());
    }

    /// The youngest idle connection. Those that are idle for longer than `youth` are closed instead: the caller opens one, and the pool
    /// never holds more than it has places.
    pub(super) fn idle(&self, youth: Duration) -> Option<Connection> {
        let mut idle = self
            .pool
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        while let Some((connection, since)) = idle.connections.pop() {
            if connection.sender.is_ready() && since.elapsed() < youth.min(IDLE_TIME) {
                return Some(connection);
            }
        }
        None
    }

    /// Makes an HTTP connection of a transport.
    pub(super) async fn open(
        &self,
        origin: &Origin,
        (transport, peer): (Box<dyn Transport>, IpAddr),
    ) -> Result<Connection, UpstreamError> {
        let mut builder = http1::Builder::new();
        builder
            .max_headers(MAX_HEADERS)
            .max_header_size(MAX_HEAD_BYTES);
        let (sender, driver) = builder
            .handshake(TokioIo::new(transport))
            .await
            .map_err(|failed| error::of_hyper(origin, &failed))?;
        let driver = self.io.spawn(async move {
            // Its errors reach the request that was running; an idle connection has nobody to tell.
            let _ = driver.await;
        });
        Ok(Connection {
            sender,
            peer,
            _driver: AbortOnDropHandle::new(driver),
        })
    }

    /// Keeps the connection for the next request once it is ready for one.
    pub(super) fn give_back(self, mut connection: Connection) {
        let io = self.io.clone();
        drop(io.spawn(async move {
            let ready = tokio::time::timeout(READY_TIME, connection.sender.ready()).await;
            if matches!(ready, Ok(Ok(()))) {
                let mut idle = self
                    .pool
                    .idle
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                if !idle.closed {
                    idle.connections.push((connection, Instant::now()));
                }
            }
            drop(self.permit);
        }));
    }
}
