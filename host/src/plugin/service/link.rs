//! One network interface of a service: a UDP port bound to it, and frames to machines that have no address yet (DHCP, RFC 2131 section 4.1).
//!
//! It refuses any other interface, any other protocol than UDP over IPv4, and any other sender than this machine: a plugin gives the MAC address of the
//! receiver and a payload, the host makes the frame.
//!
//! The one idea: what arrives is received as ordinary UDP, since the kernel has checked it then; only what leaves for a client that cannot answer
//! ARP goes out as a frame (`AF_PACKET`), which is the one thing that needs `CAP_NET_RAW`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, bind, send, socket};

use super::addresses::Addresses;
use super::queue::Queue;
use super::udp::UdpDoor;
use crate::capability::listen::frame;
use crate::sandbox::bindings::exports::reactor::Port;
use crate::telemetry::metrics::PluginMetrics;

/// One interface.
pub(super) struct LinkDoor {
    interface: String,
    udp: Arc<UdpDoor>,
    frames: OwnedFd,
    mac: [u8; 6],
    addresses: Addresses,
}

impl LinkDoor {
    pub(super) fn open(interface: &str, port: u16) -> io::Result<Self> {
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        let udp = UdpDoor::bind(any, Some(interface))?;
        let link = link_address(interface)?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let frames = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
        // The address is of protocol 0: the socket sends on the interface and receives nothing.
        bind(frames.as_raw_fd(), &link)?;
        Ok(Self {
            interface: interface.to_owned(),
            udp: Arc::new(udp),
            frames,
            mac: link.addr().unwrap_or_default(),
            addresses: Addresses::new(),
        })
    }

    pub(super) fn interface(&self) -> &str {
        &self.interface
    }

    pub(super) fn local(&self) -> SocketAddr {
        self.udp.local()
    }

    /// Receives until it is aborted.
    pub(super) async fn receive(
        self: Arc<Self>,
        slot: Arc<str>,
        queue: Arc<Queue>,
        numbers: Arc<PluginMetrics>,
    ) {
        let link = self.clone();
        let describe = move || {
            let own = link.addresses.of_interface(&link.interface);
            Some(Port {
                interface: link.interface.clone(),
                address: own.map(|(_, text)| text).unwrap_or_default(),
                hardware: None,
            })
        };
        self.udp
            .clone()
            .receive(slot, queue, numbers, describe)
            .await;
    }

    /// The address to send from, where the plugin names one. The kernel checks those of datagrams; a frame would go out with any, so that it must be an address
    /// of this machine. An error is the address that is not.
    pub(super) fn sender(&self, named: &str) -> Result<Option<SocketAddr>, SocketAddr> {
        let Ok(local) = named.parse::<SocketAddr>() else {
            return Ok(None);
        };
        match local.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() || ip.is_broadcast() => Ok(None),
            // The port is the slot's own, whatever stands here.
            IpAddr::V4(ip) if self.addresses.is_own(ip) => Ok(Some(local)),
            _ => Err(local),
        }
    }

    /// Sends by a frame to that MAC address, or as any other datagram.
    pub(super) async fn send(
        &self,
        peer: SocketAddr,
        local: Option<SocketAddr>,
        hardware: Option<&str>,
        bytes: &[u8],
    ) -> io::Result<()> {
        let Some(hardware) = hardware else {
            return self.udp.send(peer, local, bytes).await;
        };
        let invalid = |text: &'static str| io::Error::new(io::ErrorKind::InvalidInput, text);
        let to_mac = mac(hardware).ok_or_else(|| invalid("`hardware` is no MAC address"))?;
        let SocketAddr::V4(peer) = peer else {
            return Err(invalid("frames are made for IPv4"));
        };
        let from = match local.map(|it| it.ip()) {
            Some(IpAddr::V4(ip)) => ip,
            _ => self
                .addresses
                .of_interface(&self.interface)
                .map_or(Ipv4Addr::UNSPECIFIED, |(ip, _)| ip),
        };
        let from = SocketAddrV4::new(from, self.local().port());
        let frame = frame::udp(self.mac, to_mac, from, peer, bytes)
            .ok_or_else(|| invalid("the payload fits no datagram"))?;
        send(self.frames.as_raw_fd(), &frame, MsgFlags::MSG_DONTWAIT)?;
        Ok(())
    }
}

/// `52:54:00:12:34:56`.
fn mac(text: &str) -> Option<[u8; 6]> {
    let mut bytes = [0; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut bytes {
        let part = parts.next().filter(|part| part.len() == 2)?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(bytes)
}

/// The index of the interface that has this name now: another one when it was made anew. None: there is none.
pub(super) fn index(interface: &str) -> Option<usize> {
    Some(link_address(interface).ok()?.ifindex())
}

fn link_address(interface: &str) -> io::Result<LinkAddr> {
    getifaddrs()?
        .filter(|found| found.interface_name == interface)
        .find_map(|found| found.address?.as_link_addr().copied())
        .ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_addresses_are_read_or_refused() {
        let read = mac("52:54:00:12:34:56");
        assert_eq!(read, Some([0x52, 0x54, 0, 0x12, 0x34, 0x56]));
        for text in [
            "",
            "52:54:00:12:34",
            "52:54:00:12:34:56:78",
            "52:54:00:12:34:5",
            "gg:54:00:12:34:56",
        ] {
            assert_eq!(mac(text), None, "{text}");
        }
    }
}
