//! What TCP, UDP and names have in common: which addresses a plugin may reach, and how many sockets it may hold.
//!
//! It refuses multicast, broadcast and unspecified addresses whatever the policy says, and takes an IPv4 address in IPv6 spelling
//! for the IPv4 address it is.
//!
//! The one idea: a name in the policy becomes addresses only when this host has resolved it for the plugin; then, for the
//! answer's time to live, the plugin may reach these addresses under that name's rules.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::component::Resource;
use wasmtime_wasi::p2::bindings::sockets::network::{self, ErrorCode, Network};
use wasmtime_wasi::p2::bindings::sockets::instance_network;
use wasmtime_wasi::p2::SocketError;
use wasmtime_wasi::sockets::{SocketAddrUse, WasiSocketsCtxView};

use super::WasiView;
use super::plugin::PluginAccess;
use super::tcp::Connection;

/// A destination as it was allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outgoing {
    /// In its plain spelling.
    pub(super) address: SocketAddr,
    /// The name that the address was resolved from, if that is what allowed it.
    pub(super) name: Option<String>,
}

/// An address in its plain spelling: IPv4 where it is IPv4.
pub(super) fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Whether a single other party can be reached at that address.
pub(super) fn remote_address_is_valid(address: SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !broadcast
}

/// How many sockets may be open, for the plugin as a whole and for one instance.
#[derive(Debug, Clone)]
pub(super) struct SocketSlots {
    plugin: Arc<Semaphore>,
    instance: Arc<Semaphore>,
}

/// One open socket's place; given back when dropped.
#[derive(Debug)]
pub(super) struct SocketSlot {
    _plugin: OwnedSemaphorePermit,
    _instance: OwnedSemaphorePermit,
}

impl SocketSlots {
    pub(super) fn new(plugin: Arc<Semaphore>, per_instance: usize) -> Self {
        Self { plugin, instance: Arc::new(Semaphore::new(per_instance)) }
    }

    /// A place, if one is left.
    pub(super) fn take(&self) -> Option<SocketSlot> {
        let instance = self.instance.clone().try_acquire_owned().ok()?;
        let plugin = self.plugin.clone().try_acquire_owned().ok()?;
        Some(SocketSlot { _plugin: plugin, _instance: instance })
    }
}

/// A plugin's open connections, to end those whose right is taken away.
#[derive(Default)]
pub(super) struct Connections {
    open: Mutex<Vec<Weak<Connection>>>,
}

impl Connections {
    /// Lists a connection. False: its right was taken away while it was being made.
    pub(super) fn keep(&self, connection: &Arc<Connection>, access: &PluginAccess) -> bool {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|connection| connection.strong_count() > 0);
        open.push(Arc::downgrade(connection));
        drop(open);
        // Listed first and asked then: a change of policy in between is seen by one of the two.
        let allowed = access.still_allows(&connection.outgoing);
        if !allowed {
            connection.revoke();
        }
        allowed
    }

    /// Ends every connection that is no longer allowed.
    pub(super) fn review(&self, access: &PluginAccess) {
        let open: Vec<_> = {
            let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.iter().filter_map(Weak::upgrade).collect()
        };
        for connection in open {
            if !access.still_allows(&connection.outgoing) {
                connection.revoke();
            }
        }
    }
}

/// The question that wasmtime's UDP sockets ask for each address and datagram.
pub(super) fn address_is_allowed(access: &PluginAccess, address: SocketAddr, usage: SocketAddrUse) -> bool {
    match usage {
        SocketAddrUse::UdpBind => access.may_bind_udp(address),
        SocketAddrUse::UdpSend => remote_address_is_valid(address) && access.may_send(address),
        // An answer comes from where a datagram may be sent to. Strangers are not denied but ignored.
        SocketAddrUse::UdpReceive => access.may_receive(address),
        // TCP has its own sockets (see `tcp`); wasmtime's are never made.
        SocketAddrUse::TcpBind | SocketAddrUse::TcpListen | SocketAddrUse::TcpAccept | SocketAddrUse::TcpConnect => false,
    }
}

impl WasiView<'_> {
    /// Wasmtime's own view, for what it does without us.
    pub(super) fn stock_sockets(&mut self) -> WasiSocketsCtxView<'_> {
        WasiSocketsCtxView { ctx: self.parts.stock.sockets(), table: self.table }
    }
}

impl network::Host for WasiView<'_> {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        error.downcast()
    }

    fn network_error_code(&mut self, error: Resource<wasmtime::Error>) -> wasmtime::Result<Option<ErrorCode>> {
        network::Host::network_error_code(&mut self.stock_sockets(), error)
    }
}

impl network::HostNetwork for WasiView<'_> {
    fn drop(&mut self, network: Resource<Network>) -> wasmtime::Result<()> {
        network::HostNetwork::drop(&mut self.stock_sockets(), network)
    }
}

impl instance_network::Host for WasiView<'_> {
    fn instance_network(&mut self) -> wasmtime::Result<Resource<Network>> {
        instance_network::Host::instance_network(&mut self.stock_sockets())
    }
}
