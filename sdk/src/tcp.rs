//! TCP in turns: a connection that is made, read and written without holding the instance until the peer answers.
//!
//! For plugins of one instance, which others wait for; everybody else has [`std::net::TcpStream`]. Each connection is decided by the policy's `sockets`
//! grants.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// A connection under way.
#[derive(Debug)]
pub struct Connecting(system::Connecting);

/// A connection.
#[derive(Debug)]
pub struct Connection(system::Connection);

impl Connecting {
    /// Begins to connect.
    ///
    /// # Errors
    /// `PermissionDenied` when no grant covers the peer.
    pub fn to(peer: SocketAddr) -> io::Result<Self> {
        system::Connecting::to(peer).map(Self)
    }

    /// The connection, if it is there within that time. Not to be asked again afterwards.
    ///
    /// # Errors
    /// Nobody listens there, or there is no way there.
    pub fn finish(&mut self, patience: Duration) -> io::Result<Option<Connection>> {
        Ok(self.0.finish(patience)?.map(Connection))
    }
}

impl Connection {
    /// What has come, if anything does within that time. An empty answer: the peer has closed.
    ///
    /// # Errors
    /// The connection broke.
    pub fn read(&mut self, patience: Duration) -> io::Result<Option<Vec<u8>>> {
        self.0.read(patience)
    }

    /// Sends as much as there is room for within that time, and answers how much that was.
    ///
    /// # Errors
    /// The connection broke.
    pub fn write(&mut self, bytes: &[u8], patience: Duration) -> io::Result<usize> {
        self.0.write(bytes, patience)
    }
}

/// Bytes read at a time.
const CHUNK: usize = 4096;

#[cfg(not(target_arch = "wasm32"))]
mod system {
    use super::{CHUNK, Duration, SocketAddr, io};
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;

    /// Tests wait in one piece.
    const TIME: Duration = Duration::from_secs(10);

    #[derive(Debug)]
    pub(super) struct Connecting(SocketAddr);

    #[derive(Debug)]
    pub(super) struct Connection(TcpStream);

    impl Connecting {
        pub(super) fn to(peer: SocketAddr) -> io::Result<Self> {
            Ok(Self(peer))
        }

        pub(super) fn finish(&mut self, _: Duration) -> io::Result<Option<Connection>> {
            TcpStream::connect_timeout(&self.0, TIME)
                .map(Connection)
                .map(Some)
        }
    }

    impl Connection {
        pub(super) fn read(&mut self, patience: Duration) -> io::Result<Option<Vec<u8>>> {
            // Zero would mean "for ever" to the standard library.
            let patience = patience.max(Duration::from_millis(1));
            self.0.set_read_timeout(Some(patience))?;
            let mut bytes = vec![0; CHUNK];
            match self.0.read(&mut bytes) {
                Ok(count) => {
                    bytes.truncate(count);
                    Ok(Some(bytes))
                }
                Err(why) if is_nothing(&why) => Ok(None),
                Err(why) => Err(why),
            }
        }

        pub(super) fn write(&mut self, bytes: &[u8], patience: Duration) -> io::Result<usize> {
            let patience = patience.max(Duration::from_millis(1));
            self.0.set_write_timeout(Some(patience))?;
            match self.0.write(bytes) {
                Err(why) if is_nothing(&why) => Ok(0),
                done => done,
            }
        }
    }

    fn is_nothing(why: &io::Error) -> bool {
        matches!(
            why.kind(),
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
        )
    }
}

#[cfg(target_arch = "wasm32")]
mod system {
    use super::{CHUNK, Duration, SocketAddr, io};

    use wasip2::clocks::monotonic_clock;
    use wasip2::io::poll::{self, Pollable};
    use wasip2::io::streams::{InputStream, OutputStream, StreamError};
    use wasip2::sockets::instance_network::instance_network;
    use wasip2::sockets::network::{ErrorCode, IpAddressFamily};
    use wasip2::sockets::tcp::TcpSocket;
    use wasip2::sockets::tcp_create_socket::create_tcp_socket;

    use crate::udp::{address, error};

    #[derive(Debug)]
    pub(super) struct Connecting(Option<TcpSocket>);

    /// The streams go before their socket.
    #[derive(Debug)]
    pub(super) struct Connection {
        incoming: InputStream,
        outgoing: OutputStream,
        _socket: TcpSocket,
    }

    impl Connecting {
        pub(super) fn to(peer: SocketAddr) -> io::Result<Self> {
            let family = match peer {
                SocketAddr::V4(_) => IpAddressFamily::Ipv4,
                SocketAddr::V6(_) => IpAddressFamily::Ipv6,
            };
            let socket = create_tcp_socket(family).map_err(error)?;
            socket
                .start_connect(&instance_network(), address(peer))
                .map_err(error)?;
            Ok(Self(Some(socket)))
        }

        pub(super) fn finish(&mut self, patience: Duration) -> io::Result<Option<Connection>> {
            let socket = self.0.take().ok_or(io::ErrorKind::NotConnected)?;
            let late = late(patience);
            loop {
                match socket.finish_connect() {
                    Ok((incoming, outgoing)) => {
                        return Ok(Some(Connection {
                            incoming,
                            outgoing,
                            _socket: socket,
                        }));
                    }
                    Err(ErrorCode::WouldBlock) if late.ready() => {
                        self.0 = Some(socket);
                        return Ok(None);
                    }
                    Err(ErrorCode::WouldBlock) => {
                        poll::poll(&[&socket.subscribe(), &late]);
                    }
                    Err(code) => return Err(error(code)),
                }
            }
        }
    }

    impl Connection {
        pub(super) fn read(&mut self, patience: Duration) -> io::Result<Option<Vec<u8>>> {
            let late = late(patience);
            loop {
                match self.incoming.read(CHUNK as u64) {
                    Ok(bytes) if !bytes.is_empty() => return Ok(Some(bytes)),
                    Ok(_) if late.ready() => return Ok(None),
                    Ok(_) => {
                        poll::poll(&[&self.incoming.subscribe(), &late]);
                    }
                    Err(StreamError::Closed) => return Ok(Some(Vec::new())),
                    Err(StreamError::LastOperationFailed(why)) => {
                        return Err(io::Error::other(super::words(&why.to_debug_string())));
                    }
                }
            }
        }

        pub(super) fn write(&mut self, bytes: &[u8], patience: Duration) -> io::Result<usize> {
            let late = late(patience);
            loop {
                let room = self.outgoing.check_write().map_err(broken)?;
                let count = usize::try_from(room).unwrap_or(CHUNK).min(bytes.len());
                if count > 0 {
                    let some = bytes.get(..count).unwrap_or_default();
                    self.outgoing.write(some).map_err(broken)?;
                    self.outgoing.flush().map_err(broken)?;
                    return Ok(count);
                }
                if late.ready() {
                    return Ok(0);
                }
                poll::poll(&[&self.outgoing.subscribe(), &late]);
            }
        }
    }

    fn late(patience: Duration) -> Pollable {
        monotonic_clock::subscribe_duration(u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX))
    }

    fn broken(why: StreamError) -> io::Error {
        match why {
            StreamError::Closed => io::ErrorKind::BrokenPipe.into(),
            StreamError::LastOperationFailed(why) => {
                io::Error::other(super::words(&why.to_debug_string()))
            }
        }
    }
}

/// What broke a connection, without the host's stack, which it shows where `RUST_BACKTRACE` is set: the words reach whoever asked.
#[cfg(any(test, target_arch = "wasm32"))]
fn words(shown: &str) -> String {
    shown.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};

    #[test]
    fn a_broken_connection_is_told_in_one_line() {
        assert_eq!(
            words("Connection reset by peer (os error 104)\n\nStack backtrace:\n   0: x"),
            "Connection reset by peer (os error 104)"
        );
        assert_eq!(words(""), "");
    }

    #[test]
    fn bytes_go_both_ways_silence_ends_and_an_end_is_told() {
        let peer = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut connecting = Connecting::to(peer.local_addr().unwrap()).unwrap();
        let second = Duration::from_secs(5);
        let mut connection = connecting.finish(second).unwrap().unwrap();
        let (mut stream, _) = peer.accept().unwrap();
        assert_eq!(connection.write(b"ping", second).unwrap(), 4);
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes).unwrap();
        assert_eq!(connection.read(Duration::from_millis(5)).unwrap(), None);
        stream.write_all(b"pong").unwrap();
        assert_eq!(connection.read(second).unwrap(), Some(b"pong".to_vec()));
        drop(stream);
        assert_eq!(connection.read(second).unwrap(), Some(Vec::new()));
    }
}
