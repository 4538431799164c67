//! `wasi:sockets/tcp` for plugins: connections out, nothing else.
//!
//! It refuses listening and accepting (sockets that listen belong to the host) and binding to a chosen address without a grant for it.
//!
//! The one idea: a connection is one shared object, listed with the plugin. When the policy changes, the plugin's watcher asks for each
//! connection again and shuts down those whose right is gone, so that both ends notice at once, also while the plugin sleeps in
//! a read or does not run at all.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::{TcpSocket, TcpStream};
use wasmtime::component::Resource;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::bindings::sockets::network::{
    ErrorCode, IpAddressFamily, IpSocketAddress, Network,
};
use wasmtime_wasi::p2::bindings::sockets::{tcp, tcp_create_socket};
use wasmtime_wasi::p2::{
    DynInputStream, DynOutputStream, DynPollable, Pollable, SocketResult, subscribe,
};

use super::WasiView;
use super::access::Taken;
use super::connection::Connection;
use super::sockets::is_one_party;
use crate::grant::{Action, Connected};

type Handle = Resource<tcp::TcpSocket>;

/// A plugin's TCP socket; what the table keeps under the number of the plugin's handle.
pub(super) struct Socket {
    family: IpAddressFamily,
    state: State,
    /// An operation that was started and not finished.
    started: Option<Started>,
    /// The socket's place among those the plugin may have; until a connection takes it over.
    slot: Option<Taken>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Started {
    Bind,
    Connect,
}

enum State {
    Fresh(TcpSocket),
    Connecting(
        Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>,
        Connected,
    ),
    Connected(Arc<Connection>),
    Failed(ErrorCode),
}

impl Socket {
    fn descriptor(&self) -> Result<BorrowedFd<'_>, ErrorCode> {
        match &self.state {
            State::Fresh(socket) => Ok(socket.as_fd()),
            State::Connected(connection) => Ok(connection.socket().as_fd()),
            State::Connecting(..) => Err(ErrorCode::InvalidState),
            State::Failed(error) => Err(*error),
        }
    }

    /// Drives a started connection attempt.
    fn poll_connect(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let State::Connecting(attempt, _) = &mut self.state else {
            return Poll::Ready(());
        };
        let Poll::Ready(result) = attempt.as_mut().poll(context) else {
            return Poll::Pending;
        };
        let State::Connecting(_, right) =
            std::mem::replace(&mut self.state, State::Failed(ErrorCode::InvalidState))
        else {
            return Poll::Ready(());
        };
        self.state = match result {
            Ok(stream) => State::Connected(Connection::new(stream, right, self.slot.take())),
            Err(error) => State::Failed(ErrorCode::from(error)),
        };
        Poll::Ready(())
    }
}

#[async_trait]
impl Pollable for Socket {
    async fn ready(&mut self) {
        std::future::poll_fn(|context| self.poll_connect(context)).await;
    }
}

impl WasiView<'_> {
    fn tcp(&self, handle: &Handle) -> SocketResult<&Socket> {
        Ok(self
            .table
            .get(&Resource::<Socket>::new_borrow(handle.rep()))?)
    }

    fn tcp_mut(&mut self, handle: &Handle) -> SocketResult<&mut Socket> {
        Ok(self
            .table
            .get_mut(&Resource::<Socket>::new_borrow(handle.rep()))?)
    }

    fn tcp_option<R>(
        &self,
        handle: &Handle,
        option: impl FnOnce(BorrowedFd<'_>) -> rustix::io::Result<R>,
    ) -> SocketResult<R> {
        Ok(option(self.tcp(handle)?.descriptor()?)?)
    }

    /// Sets an option whose value must not be zero.
    fn set_tcp_option<V: PartialEq + From<u8>>(
        &self,
        handle: &Handle,
        value: V,
        set: impl FnOnce(BorrowedFd<'_>, V) -> rustix::io::Result<()>,
    ) -> SocketResult<()> {
        if value == V::from(0) {
            return Err(ErrorCode::InvalidArgument.into());
        }
        self.tcp_option(handle, |socket| set(socket, value))
    }
}

impl tcp_create_socket::Host for WasiView<'_> {
    fn create_tcp_socket(&mut self, family: IpAddressFamily) -> SocketResult<Handle> {
        let slot = self
            .parts
            .access
            .take_socket()
            .ok_or(ErrorCode::NewSocketLimit)?;
        let socket = match family {
            IpAddressFamily::Ipv4 => TcpSocket::new_v4()?,
            IpAddressFamily::Ipv6 => TcpSocket::new_v6()?,
        };
        if family == IpAddressFamily::Ipv6 {
            // WASI knows no sockets for both families.
            sockopt::set_ipv6_v6only(&socket, true)?;
        }
        let socket = Socket {
            family,
            state: State::Fresh(socket),
            started: None,
            slot: Some(slot),
        };
        Ok(Resource::new_own(self.table.push(socket)?.rep()))
    }
}

impl tcp::Host for WasiView<'_> {}

impl tcp::HostTcpSocket for WasiView<'_> {
    async fn start_bind(
        &mut self,
        handle: Handle,
        network: Resource<Network>,
        local: IpSocketAddress,
    ) -> SocketResult<()> {
        self.table.get(&network)?;
        let local = SocketAddr::from(local);
        let access = self.parts.access.clone();
        let socket = self.tcp_mut(&handle)?;
        if socket.started.is_some() {
            return Err(ErrorCode::ConcurrencyConflict.into());
        }
        let State::Fresh(inner) = &socket.state else {
            return Err(ErrorCode::InvalidState.into());
        };
        if !family_fits(socket.family, local.ip()) || local.ip().is_multicast() {
            return Err(ErrorCode::InvalidArgument.into());
        }
        if !access
            .guard()
            .decide(&Action::TcpBind { addr: local })
            .is_allowed()
        {
            return Err(ErrorCode::AccessDenied.into());
        }
        inner.bind(local)?;
        socket.started = Some(Started::Bind);
        Ok(())
    }

    fn finish_bind(&mut self, handle: Handle) -> SocketResult<()> {
        let socket = self.tcp_mut(&handle)?;
        if socket.started != Some(Started::Bind) {
            return Err(ErrorCode::NotInProgress.into());
        }
        socket.started = None;
        Ok(())
    }

    fn start_connect(
        &mut self,
        handle: Handle,
        network: Resource<Network>,
        remote: IpSocketAddress,
    ) -> SocketResult<()> {
        self.table.get(&network)?;
        let remote = SocketAddr::from(remote);
        let access = self.parts.access.clone();
        let socket = self.tcp_mut(&handle)?;
        if socket.started.is_some() {
            return Err(ErrorCode::ConcurrencyConflict.into());
        }
        if !matches!(socket.state, State::Fresh(_)) {
            return Err(ErrorCode::InvalidState.into());
        }
        if !access
            .guard()
            .decide(&Action::TcpConnect {
                addr: remote,
                name: None,
            })
            .is_allowed()
        {
            return Err(ErrorCode::AccessDenied.into());
        }
        if !family_fits(socket.family, remote.ip()) || !is_one_party(remote) {
            return Err(ErrorCode::InvalidArgument.into());
        }
        let right = access.guard().connected(remote);
        let State::Fresh(inner) =
            std::mem::replace(&mut socket.state, State::Failed(ErrorCode::InvalidState))
        else {
            return Err(ErrorCode::InvalidState.into());
        };
        socket.state = State::Connecting(Box::pin(inner.connect(remote)), right);
        socket.started = Some(Started::Connect);
        Ok(())
    }

    fn finish_connect(
        &mut self,
        handle: Handle,
    ) -> SocketResult<(Resource<DynInputStream>, Resource<DynOutputStream>)> {
        let access = self.parts.access.clone();
        let socket = self.tcp_mut(&handle)?;
        if socket.started != Some(Started::Connect) {
            return Err(ErrorCode::NotInProgress.into());
        }
        if socket
            .poll_connect(&mut Context::from_waker(Waker::noop()))
            .is_pending()
        {
            return Err(ErrorCode::WouldBlock.into());
        }
        socket.started = None;
        let connection = match &socket.state {
            State::Connected(connection) => connection.clone(),
            State::Failed(error) => return Err((*error).into()),
            State::Fresh(_) | State::Connecting(..) => return Err(ErrorCode::InvalidState.into()),
        };
        if !access.connections().keep(&connection, access.guard()) {
            socket.state = State::Failed(ErrorCode::AccessDenied);
            return Err(ErrorCode::AccessDenied.into());
        }
        let parent = Resource::<Socket>::new_borrow(handle.rep());
        let (input, output) = connection.streams();
        Ok((
            self.table.push_child(input, &parent)?,
            self.table.push_child(output, &parent)?,
        ))
    }

    async fn start_listen(&mut self, handle: Handle) -> SocketResult<()> {
        let addr = match &self.tcp(&handle)?.state {
            State::Fresh(socket) => socket.local_addr()?,
            _ => return Err(ErrorCode::InvalidState.into()),
        };
        // No policy allows it; asking puts it into the audit.
        let _ = self
            .parts
            .access
            .guard()
            .decide(&Action::TcpListen { addr });
        Err(ErrorCode::AccessDenied.into())
    }

    fn finish_listen(&mut self, handle: Handle) -> SocketResult<()> {
        self.tcp(&handle)?;
        Err(ErrorCode::NotInProgress.into())
    }

    fn accept(
        &mut self,
        handle: Handle,
    ) -> SocketResult<(Handle, Resource<DynInputStream>, Resource<DynOutputStream>)> {
        self.tcp(&handle)?;
        Err(ErrorCode::InvalidState.into())
    }

    fn local_address(&mut self, handle: Handle) -> SocketResult<IpSocketAddress> {
        let address = match &self.tcp(&handle)?.state {
            State::Fresh(socket) => socket.local_addr()?,
            State::Connected(connection) => connection.socket().local_addr()?,
            State::Connecting(..) => return Err(ErrorCode::InvalidState.into()),
            State::Failed(error) => return Err((*error).into()),
        };
        if address.ip().is_unspecified() && address.port() == 0 {
            return Err(ErrorCode::InvalidState.into());
        }
        Ok(address.into())
    }

    fn remote_address(&mut self, handle: Handle) -> SocketResult<IpSocketAddress> {
        match &self.tcp(&handle)?.state {
            State::Connected(connection) => Ok(connection.socket().peer_addr()?.into()),
            State::Failed(error) => Err((*error).into()),
            State::Fresh(_) | State::Connecting(..) => Err(ErrorCode::InvalidState.into()),
        }
    }

    fn is_listening(&mut self, handle: Handle) -> wasmtime::Result<bool> {
        self.table
            .get(&Resource::<Socket>::new_borrow(handle.rep()))?;
        Ok(false)
    }

    fn address_family(&mut self, handle: Handle) -> wasmtime::Result<IpAddressFamily> {
        Ok(self
            .table
            .get(&Resource::<Socket>::new_borrow(handle.rep()))?
            .family)
    }

    fn set_listen_backlog_size(&mut self, handle: Handle, _value: u64) -> SocketResult<()> {
        self.tcp(&handle)?;
        Err(ErrorCode::NotSupported.into())
    }

    fn keep_alive_enabled(&mut self, handle: Handle) -> SocketResult<bool> {
        self.tcp_option(&handle, |socket| sockopt::socket_keepalive(socket))
    }

    fn set_keep_alive_enabled(&mut self, handle: Handle, value: bool) -> SocketResult<()> {
        self.tcp_option(&handle, |socket| {
            sockopt::set_socket_keepalive(socket, value)
        })
    }

    fn keep_alive_idle_time(&mut self, handle: Handle) -> SocketResult<u64> {
        self.tcp_option(&handle, |socket| sockopt::tcp_keepidle(socket))
            .map(nanoseconds)
    }

    fn set_keep_alive_idle_time(&mut self, handle: Handle, value: u64) -> SocketResult<()> {
        self.set_tcp_option(&handle, value, |socket, value| {
            sockopt::set_tcp_keepidle(socket, keep_alive_time(value))
        })
    }

    fn keep_alive_interval(&mut self, handle: Handle) -> SocketResult<u64> {
        self.tcp_option(&handle, |socket| sockopt::tcp_keepintvl(socket))
            .map(nanoseconds)
    }

    fn set_keep_alive_interval(&mut self, handle: Handle, value: u64) -> SocketResult<()> {
        self.set_tcp_option(&handle, value, |socket, value| {
            sockopt::set_tcp_keepintvl(socket, keep_alive_time(value))
        })
    }

    fn keep_alive_count(&mut self, handle: Handle) -> SocketResult<u32> {
        self.tcp_option(&handle, |socket| sockopt::tcp_keepcnt(socket))
    }

    fn set_keep_alive_count(&mut self, handle: Handle, value: u32) -> SocketResult<()> {
        // Linux takes at most 127.
        self.set_tcp_option(&handle, value, |socket, value| {
            sockopt::set_tcp_keepcnt(socket, value.min(127))
        })
    }

    fn hop_limit(&mut self, handle: Handle) -> SocketResult<u8> {
        let limit = match self.tcp(&handle)?.family {
            IpAddressFamily::Ipv4 => self.tcp_option(&handle, |socket| sockopt::ip_ttl(socket))?,
            IpAddressFamily::Ipv6 => self
                .tcp_option(&handle, |socket| sockopt::ipv6_unicast_hops(socket))?
                .into(),
        };
        u8::try_from(limit).map_err(|_| ErrorCode::NotSupported.into())
    }

    fn set_hop_limit(&mut self, handle: Handle, value: u8) -> SocketResult<()> {
        match self.tcp(&handle)?.family {
            IpAddressFamily::Ipv4 => self.set_tcp_option(&handle, value, |socket, value| {
                sockopt::set_ip_ttl(socket, value.into())
            }),
            IpAddressFamily::Ipv6 => self.set_tcp_option(&handle, value, |socket, value| {
                sockopt::set_ipv6_unicast_hops(socket, Some(value))
            }),
        }
    }

    fn receive_buffer_size(&mut self, handle: Handle) -> SocketResult<u64> {
        // Linux tells twice what was asked for.
        self.tcp_option(&handle, |socket| sockopt::socket_recv_buffer_size(socket))
            .map(|size| size as u64 / 2)
    }

    fn set_receive_buffer_size(&mut self, handle: Handle, value: u64) -> SocketResult<()> {
        self.set_tcp_option(&handle, value, |socket, value| {
            sockopt::set_socket_recv_buffer_size(socket, buffer_size(value))
        })
    }

    fn send_buffer_size(&mut self, handle: Handle) -> SocketResult<u64> {
        self.tcp_option(&handle, |socket| sockopt::socket_send_buffer_size(socket))
            .map(|size| size as u64 / 2)
    }

    fn set_send_buffer_size(&mut self, handle: Handle, value: u64) -> SocketResult<()> {
        self.set_tcp_option(&handle, value, |socket, value| {
            sockopt::set_socket_send_buffer_size(socket, buffer_size(value))
        })
    }

    fn subscribe(&mut self, handle: Handle) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.table, Resource::<Socket>::new_borrow(handle.rep()))
    }

    fn shutdown(&mut self, handle: Handle, how: tcp::ShutdownType) -> SocketResult<()> {
        let State::Connected(connection) = &self.tcp(&handle)?.state else {
            return Err(ErrorCode::InvalidState.into());
        };
        if matches!(how, tcp::ShutdownType::Receive | tcp::ShutdownType::Both) {
            connection.shut_reading();
        }
        if matches!(how, tcp::ShutdownType::Send | tcp::ShutdownType::Both) {
            connection.shut_writing();
        }
        Ok(())
    }

    fn drop(&mut self, handle: Handle) -> wasmtime::Result<()> {
        self.table
            .delete(Resource::<Socket>::new_own(handle.rep()))?;
        Ok(())
    }
}

/// An IPv6 socket speaks IPv6 only: an IPv4 address in IPv6 spelling belongs to an IPv4 socket.
fn family_fits(family: IpAddressFamily, address: IpAddr) -> bool {
    match (family, address) {
        (IpAddressFamily::Ipv4, IpAddr::V4(_)) => true,
        (IpAddressFamily::Ipv6, IpAddr::V6(address)) => address.to_ipv4_mapped().is_none(),
        _ => false,
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Linux takes whole seconds, 1 to 32767.
fn keep_alive_time(nanoseconds: u64) -> Duration {
    Duration::from_secs(nanoseconds.div_ceil(1_000_000_000).clamp(1, 32_767))
}

/// The system lowers it further, to what its administrator allows.
fn buffer_size(bytes: u64) -> usize {
    usize::try_from(bytes.min(i32::MAX as u64)).unwrap_or(usize::MAX)
}
