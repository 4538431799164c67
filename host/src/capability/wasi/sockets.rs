//! What TCP and UDP have in common: the question each address answers to, and the list of open connections.
//!
//! It refuses multicast, broadcast and unspecified addresses whatever the policy says, and takes an IPv4 address in IPv6 spelling
//! for the IPv4 address it is.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use wasmtime::component::Resource;
use wasmtime_wasi::p2::SocketError;
use wasmtime_wasi::p2::bindings::sockets::instance_network;
use wasmtime_wasi::p2::bindings::sockets::network::{self, ErrorCode, Network};
use wasmtime_wasi::sockets::{SocketAddrUse, WasiSocketsCtxView};

use super::WasiView;
use super::connection::Connection;
use crate::grant::{Action, Guard};

/// Whether a single other party can be reached at that address.
pub(super) fn is_one_party(address: SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !broadcast
}

/// A plugin's open connections, to end those whose right is taken away.
#[derive(Default)]
pub(super) struct Connections {
    open: Mutex<Vec<Weak<Connection>>>,
}

impl Connections {
    /// Lists a connection. False: its right was taken away while it was being made.
    pub(super) fn keep(&self, connection: &Arc<Connection>, guard: &Guard) -> bool {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|connection| connection.strong_count() > 0);
        open.push(Arc::downgrade(connection));
        drop(open);
        // Listed first and asked then: a change of policy in between is seen by one of the two.
        let allowed = guard.keeps(&connection.right);
        if !allowed {
            connection.revoke();
        }
        allowed
    }

    /// Ends every connection that is no longer allowed.
    pub(super) fn review(&self, guard: &Guard) {
        let open: Vec<_> = {
            let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.iter().filter_map(Weak::upgrade).collect()
        };
        for connection in open {
            if !guard.keeps(&connection.right) {
                connection.revoke();
            }
        }
    }
}

/// The question that wasmtime's UDP sockets ask for each address and datagram.
pub(super) fn address_is_allowed(guard: &Guard, address: SocketAddr, usage: SocketAddrUse) -> bool {
    let addr = SocketAddr::new(address.ip().to_canonical(), address.port());
    match usage {
        SocketAddrUse::UdpBind => guard
            .decide(&Action::UdpBind { addr: address })
            .is_allowed(),
        SocketAddrUse::UdpSend => {
            guard.decide(&Action::UdpSend { addr }).is_allowed() && is_one_party(addr)
        }
        // Anybody may send to an open port: what comes from a stranger is dropped, and is no attempt of the plugin to be audited.
        SocketAddrUse::UdpReceive => guard.still_allows(&Action::UdpReceive { addr }),
        // TCP has its own sockets (see `tcp`); wasmtime's are never made.
        SocketAddrUse::TcpBind
        | SocketAddrUse::TcpListen
        | SocketAddrUse::TcpAccept
        | SocketAddrUse::TcpConnect => false,
    }
}

impl WasiView<'_> {
    /// Wasmtime's own view, for what it does without us.
    pub(super) fn stock_sockets(&mut self) -> WasiSocketsCtxView<'_> {
        WasiSocketsCtxView {
            ctx: self.parts.stock.sockets(),
            table: self.table,
        }
    }
}

impl network::Host for WasiView<'_> {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        error.downcast()
    }

    fn network_error_code(
        &mut self,
        error: Resource<wasmtime::Error>,
    ) -> wasmtime::Result<Option<ErrorCode>> {
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
