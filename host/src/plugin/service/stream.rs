//! A bound TCP socket whose connections carry messages, each behind its length in two bytes (RFC 1035 section 4.2.2): DNS over TCP. The reactor sees
//! messages only; connections, their number and their time are the host's.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

use super::Arrived;
use super::queue::Queue;
use crate::grant::effective::ListenLimits;
use crate::grant::matchers::socket::Transport;
use crate::telemetry::metrics::PluginMetrics;

/// How long a client may take to read an answer.
const WRITE: Duration = Duration::from_secs(10);
/// Questions of one connection that are not answered yet, or whose answers the client has not taken. It is not read on before one is.
const WAITING: usize = 64;

/// The socket.
pub(super) struct StreamDoor {
    listener: TcpListener,
    local: SocketAddr,
    /// How many connections, and how long one may be silent before, between and within messages (RFC 7766 section 6.2.3 advises seconds).
    limits: ListenLimits,
    connections: Mutex<HashMap<SocketAddr, Connection>>,
}

/// How answers reach a connection.
#[derive(Clone)]
struct Connection {
    /// Bounded by turns.
    answers: mpsc::UnboundedSender<Answer>,
    /// Turns of messages that are no question's one answer.
    more: Arc<Semaphore>,
}

/// A question's place among the [`WAITING`] of its connection: from when it is read until its answer is written, or it is known to get none.
pub(super) type Turn = OwnedSemaphorePermit;

/// An answer that waits to be written, and the turn of its question.
struct Answer {
    bytes: Vec<u8>,
    _turn: Turn,
}

impl StreamDoor {
    /// Binds it. Needs a runtime.
    pub(super) fn bind(
        address: SocketAddr,
        interface: Option<&str>,
        limits: ListenLimits,
    ) -> io::Result<Self> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        if let Some(interface) = interface {
            socket.bind_device(Some(interface.as_bytes()))?;
        }
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(1024)?;
        Self::of(socket.into(), limits)
    }

    /// One that listens already.
    pub(super) fn of(socket: std::net::TcpListener, limits: ListenLimits) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let listener = TcpListener::from_std(socket)?;
        Ok(Self {
            local: listener.local_addr()?,
            limits,
            listener,
            connections: Mutex::default(),
        })
    }

    pub(super) fn local(&self) -> SocketAddr {
        self.local
    }

    /// Accepts until it is aborted; then its connections end as well.
    pub(super) async fn accept(
        self: Arc<Self>,
        slot: Arc<str>,
        queue: Arc<Queue>,
        numbers: Arc<PluginMetrics>,
    ) {
        let mut talking = JoinSet::new();
        loop {
            while talking.try_join_next().is_some() {}
            let (stream, peer) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, for example: trying at once again would spin.
                    tracing::warn!(local = %self.local, %error, "no connection accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            if !self.has_room(peer.ip()) {
                numbers.datagrams_dropped.inc();
                continue;
            }
            let (answers, sending) = mpsc::unbounded_channel();
            let more = Arc::new(Semaphore::new(WAITING));
            self.lock().insert(peer, Connection { answers, more });
            let (this, slot, queue, numbers) =
                (self.clone(), slot.clone(), queue.clone(), numbers.clone());
            talking.spawn(async move {
                let _ = this
                    .talk(stream, peer, sending, slot, queue, &numbers)
                    .await;
                this.lock().remove(&peer);
            });
        }
    }

    /// One connection. Answers may come in any order (RFC 7766 section 7), so reading does not wait for an answer, only for a turn.
    async fn talk(
        &self,
        mut stream: TcpStream,
        peer: SocketAddr,
        mut sending: mpsc::UnboundedReceiver<Answer>,
        slot: Arc<str>,
        queue: Arc<Queue>,
        numbers: &PluginMetrics,
    ) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let local = stream.local_addr()?;
        let (mut reader, mut writer) = stream.split();
        let idle = self.limits.idle;
        let turns = Arc::new(Semaphore::new(WAITING));
        let read = async {
            loop {
                let Ok(turn) = turns.clone().acquire_owned().await else {
                    return Ok::<(), io::Error>(());
                };
                let length = match tokio::time::timeout(idle, reader.read_u16()).await? {
                    Ok(length) => length,
                    Err(end) if end.kind() == io::ErrorKind::UnexpectedEof => break,
                    Err(error) => return Err(error),
                };
                let mut bytes = vec![0; usize::from(length)];
                tokio::time::timeout(idle, reader.read_exact(&mut bytes)).await??;
                numbers.datagrams_received.inc();
                let arrived = Arrived {
                    port: None,
                    slot: slot.clone(),
                    transport: Transport::Tcp,
                    peer,
                    local,
                    bytes,
                    at: Instant::now(),
                    turn: Some(turn),
                };
                // A stream can wait, unlike a datagram: the client is slowed down instead of losing its question.
                if !queue.put_when_there_is_room(arrived).await {
                    return Ok(());
                }
            }
            // It asks nothing more, and may still read: all turns are back when all is answered.
            let all = u32::try_from(WAITING).unwrap_or(u32::MAX);
            let _ = tokio::time::timeout(WRITE, turns.acquire_many(all)).await;
            Ok(())
        };
        let write = async {
            while let Some(answer) = sending.recv().await {
                let Ok(length) = u16::try_from(answer.bytes.len()) else {
                    continue;
                };
                let mut message = length.to_be_bytes().to_vec();
                message.extend_from_slice(&answer.bytes);
                tokio::time::timeout(WRITE, writer.write_all(&message)).await??;
            }
            Ok(())
        };
        tokio::select! {
            ended = read => ended,
            ended = write => ended,
        }
    }

    /// Whether a connection with this peer is open.
    pub(super) fn talks_with(&self, peer: SocketAddr) -> bool {
        self.lock().contains_key(&peer)
    }

    /// Hands a message to the connection it is for, with the turn of the question that it answers, if any. False: that is closed, or reads nothing.
    pub(super) fn send(&self, peer: SocketAddr, bytes: Vec<u8>, turn: Option<Turn>) -> bool {
        let Some(connection) = self.lock().get(&peer).cloned() else {
            return false;
        };
        let turn = turn.or_else(|| connection.more.try_acquire_owned().ok());
        turn.is_some_and(|turn| {
            let answer = Answer { bytes, _turn: turn };
            connection.answers.send(answer).is_ok()
        })
    }

    fn has_room(&self, from: IpAddr) -> bool {
        let connections = self.lock();
        let of_address = || connections.keys().filter(|it| it.ip() == from).count();
        connections.len() < self.limits.connections as usize
            && of_address() < self.limits.connections_per_address as usize
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<SocketAddr, Connection>> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
