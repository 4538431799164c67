//! UDP with time-outs: the standard library cannot wait for a datagram with a limit in a component.
//!
//! A socket talks to one peer. It never listens: receiving from anybody is a service's work, see [`crate::reactor`].

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// The largest datagram, limited by the length field of UDP over IPv4.
pub const MAX_DATAGRAM: usize = 65_507;

/// A socket with one peer. Each datagram is decided by the policy's `sockets` grants.
#[derive(Debug)]
pub struct UdpSocket(system::Socket);

impl UdpSocket {
    /// Opens a socket for exchanging datagrams with `peer`.
    ///
    /// # Errors
    /// `PermissionDenied` when no grant covers the peer.
    pub fn connect(peer: SocketAddr) -> io::Result<Self> {
        system::Socket::connect(peer).map(Self)
    }

    /// Sends one datagram, at most [`MAX_DATAGRAM`] bytes.
    ///
    /// # Errors
    /// `InvalidInput` when it is too long; `PermissionDenied` when the grant is gone.
    pub fn send(&self, datagram: &[u8]) -> io::Result<()> {
        if datagram.len() > MAX_DATAGRAM {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the datagram is too long",
            ));
        }
        self.0.send(datagram)
    }

    /// Waits for one datagram of the peer. None: none came in time.
    ///
    /// # Errors
    /// When the system reports one, e.g. that the peer does not listen.
    pub fn receive(&self, timeout: Duration) -> io::Result<Option<Vec<u8>>> {
        self.0.receive(timeout)
    }
}

#[cfg(target_arch = "wasm32")]
pub(crate) use system::{address, error};

#[cfg(not(target_arch = "wasm32"))]
mod system {
    use super::{Duration, MAX_DATAGRAM, SocketAddr, io};
    use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};

    #[derive(Debug)]
    pub(super) struct Socket(UdpSocket);

    impl Socket {
        pub(super) fn connect(peer: SocketAddr) -> io::Result<Self> {
            let any: SocketAddr = if peer.is_ipv4() {
                (Ipv4Addr::UNSPECIFIED, 0).into()
            } else {
                (Ipv6Addr::UNSPECIFIED, 0).into()
            };
            let socket = UdpSocket::bind(any)?;
            socket.connect(peer)?;
            Ok(Self(socket))
        }

        pub(super) fn send(&self, datagram: &[u8]) -> io::Result<()> {
            self.0.send(datagram).map(drop)
        }

        pub(super) fn receive(&self, timeout: Duration) -> io::Result<Option<Vec<u8>>> {
            // Zero would mean "for ever" to the standard library.
            self.0
                .set_read_timeout(Some(timeout.max(Duration::from_millis(1))))?;
            let mut bytes = vec![0; MAX_DATAGRAM];
            match self.0.recv(&mut bytes) {
                Ok(length) => {
                    bytes.truncate(length);
                    Ok(Some(bytes))
                }
                Err(why)
                    if matches!(
                        why.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) =>
                {
                    Ok(None)
                }
                Err(why) => Err(why),
            }
        }
    }
}

#[cfg(target_arch = "wasm32")]
mod system {
    use super::{Duration, SocketAddr, io};
    use std::cell::RefCell;
    use std::collections::VecDeque;
    use std::net::{Ipv6Addr, SocketAddrV4, SocketAddrV6};

    use wasip2::clocks::monotonic_clock;
    use wasip2::io::poll;
    use wasip2::sockets::instance_network::instance_network;
    use wasip2::sockets::network::{
        ErrorCode, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Ipv6SocketAddress,
    };
    use wasip2::sockets::udp::{
        IncomingDatagramStream, OutgoingDatagram, OutgoingDatagramStream, UdpSocket,
    };
    use wasip2::sockets::udp_create_socket::create_udp_socket;

    /// Fields are dropped in order, and the host wants streams gone before their socket.
    #[derive(Debug)]
    pub(super) struct Socket {
        incoming: IncomingDatagramStream,
        outgoing: OutgoingDatagramStream,
        _socket: UdpSocket,
        /// The host may hand over several datagrams at once.
        received: RefCell<VecDeque<Vec<u8>>>,
    }

    impl Socket {
        pub(super) fn connect(peer: SocketAddr) -> io::Result<Self> {
            let (family, any) = match peer {
                SocketAddr::V4(_) => (
                    IpAddressFamily::Ipv4,
                    SocketAddr::V4(SocketAddrV4::new(std::net::Ipv4Addr::UNSPECIFIED, 0)),
                ),
                SocketAddr::V6(_) => (
                    IpAddressFamily::Ipv6,
                    SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, 0, 0, 0)),
                ),
            };
            let socket = create_udp_socket(family).map_err(error)?;
            let network = instance_network();
            socket.start_bind(&network, address(any)).map_err(error)?;
            until_done(&socket, || socket.finish_bind())?;
            let (incoming, outgoing) = socket.stream(Some(address(peer))).map_err(error)?;
            Ok(Self {
                incoming,
                outgoing,
                _socket: socket,
                received: RefCell::default(),
            })
        }

        pub(super) fn send(&self, datagram: &[u8]) -> io::Result<()> {
            while self.outgoing.check_send().map_err(error)? == 0 {
                self.outgoing.subscribe().block();
            }
            let datagram = OutgoingDatagram {
                data: datagram.to_vec(),
                remote_address: None,
            };
            match self.outgoing.send(&[datagram]).map_err(error)? {
                1 => Ok(()),
                _ => Err(io::Error::new(
                    io::ErrorKind::WouldBlock,
                    "the datagram was not sent",
                )),
            }
        }

        pub(super) fn receive(&self, timeout: Duration) -> io::Result<Option<Vec<u8>>> {
            let nanoseconds = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
            let late = monotonic_clock::subscribe_duration(nanoseconds);
            loop {
                if let Some(datagram) = self.received.borrow_mut().pop_front() {
                    return Ok(Some(datagram));
                }
                let arrived = self.incoming.receive(16).map_err(error)?;
                if arrived.is_empty() {
                    if late.ready() {
                        return Ok(None);
                    }
                    poll::poll(&[&self.incoming.subscribe(), &late]);
                }
                self.received
                    .borrow_mut()
                    .extend(arrived.into_iter().map(|datagram| datagram.data));
            }
        }
    }

    fn until_done<T>(
        socket: &UdpSocket,
        mut attempt: impl FnMut() -> Result<T, ErrorCode>,
    ) -> io::Result<T> {
        loop {
            match attempt() {
                Err(ErrorCode::WouldBlock) => socket.subscribe().block(),
                other => return other.map_err(error),
            }
        }
    }

    pub(crate) fn address(address: SocketAddr) -> IpSocketAddress {
        match address {
            SocketAddr::V4(v4) => {
                let [a, b, c, d] = v4.ip().octets();
                IpSocketAddress::Ipv4(Ipv4SocketAddress {
                    port: v4.port(),
                    address: (a, b, c, d),
                })
            }
            SocketAddr::V6(v6) => {
                let [a, b, c, d, e, f, g, h] = v6.ip().segments();
                IpSocketAddress::Ipv6(Ipv6SocketAddress {
                    port: v6.port(),
                    flow_info: v6.flowinfo(),
                    address: (a, b, c, d, e, f, g, h),
                    scope_id: v6.scope_id(),
                })
            }
        }
    }

    pub(crate) fn error(code: ErrorCode) -> io::Error {
        let kind = match code {
            ErrorCode::AccessDenied => io::ErrorKind::PermissionDenied,
            ErrorCode::Timeout => io::ErrorKind::TimedOut,
            ErrorCode::ConnectionRefused => io::ErrorKind::ConnectionRefused,
            ErrorCode::RemoteUnreachable => io::ErrorKind::HostUnreachable,
            ErrorCode::InvalidArgument | ErrorCode::DatagramTooLarge => io::ErrorKind::InvalidInput,
            ErrorCode::NotSupported => io::ErrorKind::Unsupported,
            ErrorCode::OutOfMemory => io::ErrorKind::OutOfMemory,
            ErrorCode::AddressInUse => io::ErrorKind::AddrInUse,
            ErrorCode::WouldBlock => io::ErrorKind::WouldBlock,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, code.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_go_both_ways_and_silence_ends() {
        let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let socket = UdpSocket::connect(peer.local_addr().unwrap()).unwrap();
        socket.send(b"ping").unwrap();
        let mut bytes = [0; 16];
        let (length, from) = peer.recv_from(&mut bytes).unwrap();
        assert_eq!(&bytes[..length], b"ping");
        peer.send_to(b"pong", from).unwrap();
        assert_eq!(
            socket.receive(Duration::from_secs(5)).unwrap(),
            Some(b"pong".to_vec())
        );
        assert_eq!(socket.receive(Duration::from_millis(5)).unwrap(), None);
    }

    #[test]
    fn a_datagram_that_no_network_carries_is_refused() {
        let socket = UdpSocket::connect("127.0.0.1:9".parse().unwrap()).unwrap();
        assert_eq!(
            socket.send(&vec![0; MAX_DATAGRAM + 1]).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
    }
}
