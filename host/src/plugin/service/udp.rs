//! A bound UDP socket: many datagrams a system call in, one out, and the local address known for each.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::Arrived;
use super::queue::Queue;
use crate::grant::matchers::socket::Transport;
use crate::sandbox::bindings::exports::reactor::Port;
use crate::telemetry::metrics::PluginMetrics;

/// The largest UDP payload over IPv4, in bytes.
const LARGEST: usize = 65_507;

/// What the kernel may hold for us while a reactor works, in bytes: about a hundred milliseconds of a busy server.
const KERNEL_BUFFER: usize = 4 << 20;

/// The socket.
pub(super) struct UdpDoor {
    socket: UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
}

impl UdpDoor {
    /// Binds it. Needs a runtime.
    pub(super) fn bind(address: SocketAddr, interface: Option<&str>) -> io::Result<Self> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::DGRAM,
            Some(Protocol::UDP),
        )?;
        if address.is_ipv6() {
            // `[::]` and `0.0.0.0` are two lines of a policy, so they are two sockets.
            socket.set_only_v6(true)?;
        }
        if let Some(interface) = interface {
            socket.bind_device(Some(interface.as_bytes()))?;
        }
        socket.bind(&address.into())?;
        Self::of(socket.into())
    }

    /// One that is bound already.
    pub(super) fn of(socket: std::net::UdpSocket) -> io::Result<Self> {
        let socket = Socket::from(socket);
        socket.set_nonblocking(true)?;
        // More than the system allows is cut, and less is no reason not to serve.
        let _ = socket.set_recv_buffer_size(KERNEL_BUFFER);
        let _ = socket.set_send_buffer_size(KERNEL_BUFFER);
        let _ = socket.set_broadcast(true);
        let socket = UdpSocket::from_std(socket.into())?;
        let state = UdpSocketState::new((&socket).into())?;
        Ok(Self {
            local: socket.local_addr()?,
            state,
            socket,
        })
    }

    pub(super) fn local(&self) -> SocketAddr {
        self.local
    }

    /// Receives until it is aborted.
    pub(super) async fn receive(
        self: Arc<Self>,
        slot: Arc<str>,
        queue: Arc<Queue>,
        numbers: Arc<PluginMetrics>,
        mut describe: impl FnMut() -> Option<Port> + Send,
    ) {
        // Room for datagrams that the kernel joined; only what arrives is ever touched.
        let room = LARGEST.max(self.state.gro_segments() * 2048);
        let mut memory = vec![0; room * BATCH_SIZE];
        loop {
            let mut buffers: Vec<IoSliceMut<'_>> =
                memory.chunks_mut(room).map(IoSliceMut::new).collect();
            let mut met = [RecvMeta::default(); BATCH_SIZE];
            let got = self
                .socket
                .async_io(Interest::READABLE, || {
                    self.state
                        .recv((&self.socket).into(), &mut buffers, &mut met)
                })
                .await;
            let count = match got {
                Ok(count) => count,
                Err(error) => {
                    // What a peer's machine says of an earlier answer (port unreachable) is no fault of this socket.
                    tracing::debug!(local = %self.local, %error, "receiving");
                    tokio::task::yield_now().await;
                    continue;
                }
            };
            for (meta, buffer) in met.iter().zip(&buffers).take(count) {
                let Some(received) = buffer.get(..meta.len) else {
                    continue;
                };
                let ip = meta.dst_ip.unwrap_or(self.local.ip());
                for bytes in received.chunks(meta.stride.max(1)) {
                    let arrived = Arrived {
                        slot: slot.clone(),
                        transport: Transport::Udp,
                        peer: meta.addr,
                        local: SocketAddr::new(ip, self.local.port()),
                        port: describe(),
                        bytes: bytes.to_vec(),
                        at: Instant::now(),
                        turn: None,
                    };
                    numbers.datagrams_received.inc();
                    if queue.put(arrived) {
                        numbers.datagrams_dropped.inc();
                    }
                }
            }
        }
    }

    /// Sends one datagram, from the address given if that is one of this machine's own.
    pub(super) async fn send(
        &self,
        peer: SocketAddr,
        from: Option<SocketAddr>,
        bytes: &[u8],
    ) -> io::Result<()> {
        let transmit = Transmit {
            destination: peer,
            ecn: None,
            contents: bytes,
            segment_size: None,
            src_ip: from
                .map(|it| it.ip())
                .filter(|ip| !ip.is_unspecified() && !ip.is_multicast() && !is_broadcast(*ip)),
        };
        let send = || self.state.try_send((&self.socket).into(), &transmit);
        match send() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.socket.async_io(Interest::WRITABLE, send).await
            }
            sent => sent,
        }
    }
}

fn is_broadcast(ip: std::net::IpAddr) -> bool {
    matches!(ip, std::net::IpAddr::V4(ip) if ip.is_broadcast())
}
