//! The port of one transfer, its TID (RFC 1350 section 4), and who may be heard there.
//!
//! It refuses to let anybody but the transfer's peer have a part in it. Strangers are told so with the protocol's own error, once a second at most, and never
//! in answer to an error: two servers would answer each other for ever.
//!
//! The one idea: two sockets share the port. One is connected to the peer, and the kernel gives it what the peer sends and nothing else, so that a flood of
//! strangers takes neither its room nor its time. What strangers send falls to the other one.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::Instant;

use super::{ERROR, error};

/// Error code (RFC 1350 appendix).
const UNKNOWN_TRANSFER: u16 = 5;
/// Between two answers to strangers.
const BETWEEN_STRANGERS: Duration = Duration::from_secs(1);
/// What the kernel may hold of strangers, in bytes: the least it takes.
const STRANGERS_BUFFER: usize = 2048;

/// The two sockets.
pub(super) struct Tid {
    own: UdpSocket,
    strangers: UdpSocket,
    /// Until when strangers wait.
    quiet: Option<Instant>,
}

impl Tid {
    /// A port that no other transfer has, at the address the client asked. Needs a runtime.
    pub(super) fn open(peer: SocketAddr, local: &str) -> io::Result<Self> {
        let own = socket(peer)?;
        own.bind(&address_for(peer, local).into())?;
        // After the choice of the port: sharing shall not make two transfers choose the same.
        own.set_reuse_address(true)?;
        let strangers = socket(peer)?;
        strangers.set_reuse_address(true)?;
        let _ = strangers.set_recv_buffer_size(STRANGERS_BUFFER);
        strangers.bind(&own.local_addr()?)?;
        own.connect(&peer.into())?;
        Ok(Self {
            own: UdpSocket::from_std(own.into())?,
            strangers: UdpSocket::from_std(strangers.into())?,
            quiet: None,
        })
    }

    /// Sends to the peer.
    pub(super) async fn send(&self, packet: &[u8]) -> io::Result<()> {
        self.own.send(packet).await.map(drop)
    }

    /// The next packet of the peer. Strangers are answered meanwhile.
    pub(super) async fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let Self {
                own,
                strangers,
                quiet,
            } = self;
            tokio::select! {
                biased;
                got = own.recv(buffer) => return got,
                () = answer_stranger(strangers, *quiet) => {
                    *quiet = Some(Instant::now() + BETWEEN_STRANGERS);
                }
            }
        }
    }

    #[cfg(test)]
    pub(super) fn local(&self) -> SocketAddr {
        self.own.local_addr().unwrap()
    }
}

/// Hears one, once it may, and answers it.
async fn answer_stranger(strangers: &UdpSocket, quiet: Option<Instant>) {
    if let Some(quiet) = quiet {
        tokio::time::sleep_until(quiet).await;
    }
    let mut head = [0; 4];
    let Ok((size, from)) = strangers.recv_from(&mut head).await else {
        return;
    };
    if size == head.len() && head.get(..2) != Some(&ERROR.to_be_bytes()[..]) {
        let refusal = error(UNKNOWN_TRANSFER, "Unknown transfer ID");
        let _ = strangers.send_to(&refusal, from).await;
    }
}

fn socket(peer: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(peer), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    // Blocks that are larger than the way to a client takes are cut into fragments, rather than refused: firmware has no other way to learn that.
    match peer {
        SocketAddr::V4(_) => set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::DONT)?,
        SocketAddr::V6(_) => set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::DONT)?,
    }
    Ok(socket)
}

/// Where the client asked, if that is one of this machine's own; any port.
fn address_for(peer: SocketAddr, local: &str) -> SocketAddr {
    let asked = local.parse::<SocketAddr>().map(|it| it.ip()).ok();
    let own = asked.filter(|ip| {
        let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
        ip.is_ipv4() == peer.is_ipv4() && !ip.is_multicast() && !broadcast
    });
    match (own, peer) {
        // A link-local address is one together with its link, which is the peer's.
        (Some(IpAddr::V6(ip)), SocketAddr::V6(peer)) if ip.is_unicast_link_local() => {
            SocketAddrV6::new(ip, 0, 0, peer.scope_id()).into()
        }
        (Some(ip), _) => (ip, 0).into(),
        (None, SocketAddr::V4(_)) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        (None, SocketAddr::V6(_)) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}
