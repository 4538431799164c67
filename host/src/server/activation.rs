//! Sockets that systemd (or whoever started this process) has opened already: a low port needs no right then, and a restart refuses no connection.
//!
//! It refuses a descriptor that is no TCP or UDP socket over IP, and one that is neither bound nor listening. It opens nothing itself.
//!
//! The one idea: the sockets stay here as long as the process lives, and who serves one gets a copy of its descriptor. A listener or service
//! that is removed and comes back, or is replaced by a newer version, finds its socket again, though systemd hands each over only once.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::{Mutex, MutexGuard, PoisonError};

use listenfd::ListenFd;

use crate::plugin::service::Handed;

/// Why the sockets handed over cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "socket {number} ({name:?}) handed over in LISTEN_FDS cannot be used: {reason}; only TCP sockets that listen and UDP sockets are served"
)]
pub struct ActivationError {
    /// Counted from 0.
    number: usize,
    /// Its name in `LISTEN_FDNAMES` (`FileDescriptorName=` of the socket unit).
    name: String,
    reason: String,
}

/// The sockets this process was started with.
#[derive(Default)]
pub struct Inherited {
    sockets: Mutex<Vec<Socket>>,
}

struct Socket {
    name: String,
    address: SocketAddr,
    kind: Kind,
    /// Who asked for it first, and gets it when asking again.
    taken_by: Option<(String, SocketAddr)>,
}

enum Kind {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

impl Inherited {
    /// Takes what the environment names. To be called once, early: it removes `LISTEN_FDS` and `LISTEN_PID`, so that no child takes them for its own.
    pub fn from_environment() -> Result<Self, ActivationError> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let names: Vec<&str> = names.split(':').collect();
        let mut handed = ListenFd::from_env();
        let mut sockets = Vec::new();
        for number in 0..handed.len() {
            let name = names.get(number).copied().unwrap_or_default().to_owned();
            let (address, kind) = take(&mut handed, number).map_err(|reason| ActivationError {
                number,
                name: name.clone(),
                reason: reason.to_string(),
            })?;
            sockets.push(Socket {
                name,
                address,
                kind,
                taken_by: None,
            });
        }
        Ok(Self {
            sockets: Mutex::new(sockets),
        })
    }

    /// The listening TCP socket for `address`: the one bound to it, or else one named `owner` that nobody else has. A copy, not blocking.
    pub fn tcp(&self, owner: &str, address: SocketAddr) -> io::Result<Option<TcpListener>> {
        let copy = self.find(owner, address, |kind| match kind {
            Kind::Tcp(socket) => Some(socket.try_clone()),
            Kind::Udp(_) => None,
        });
        copy.transpose()
    }

    /// The UDP socket for `address`, found likewise.
    pub fn udp(&self, owner: &str, address: SocketAddr) -> io::Result<Option<UdpSocket>> {
        let copy = self.find(owner, address, |kind| match kind {
            Kind::Udp(socket) => Some(socket.try_clone()),
            Kind::Tcp(_) => None,
        });
        copy.transpose()
    }

    /// Sockets that nobody asked for yet, for a warning.
    #[must_use]
    pub fn unused(&self) -> Vec<String> {
        let sockets = self.lock();
        let unused = sockets.iter().filter(|it| it.taken_by.is_none());
        unused
            .map(|it| {
                let protocol = match it.kind {
                    Kind::Tcp(_) => "tcp",
                    Kind::Udp(_) => "udp",
                };
                format!("{protocol} {} ({:?})", it.address, it.name)
            })
            .collect()
    }

    fn find<T>(
        &self,
        owner: &str,
        address: SocketAddr,
        copy: impl Fn(&Kind) -> Option<T>,
    ) -> Option<T> {
        let mut sockets = self.lock();
        let asker = (owner.to_owned(), address);
        let fits =
            |it: &Socket, how: &dyn Fn(&Socket) -> bool| how(it).then(|| copy(&it.kind)).flatten();
        let ways: [&dyn Fn(&Socket) -> bool; 3] = [
            &|it| it.address == address,
            &|it| it.taken_by.as_ref() == Some(&asker),
            &|it| it.taken_by.is_none() && it.name == owner,
        ];
        for way in ways {
            for socket in sockets.iter_mut() {
                if let Some(copy) = fits(socket, way) {
                    socket.taken_by = Some(asker.clone());
                    return Some(copy);
                }
            }
        }
        None
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Socket>> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Handed for Inherited {
    /// By its address only: what arrives elsewhere than the policy says is not handed to a service.
    fn udp(&self, address: SocketAddr) -> io::Result<Option<UdpSocket>> {
        Self::udp(self, NO_NAME, address)
    }

    fn tcp(&self, address: SocketAddr) -> io::Result<Option<TcpListener>> {
        Self::tcp(self, NO_NAME, address)
    }
}

/// The name of no socket: names in `LISTEN_FDNAMES` have no colon.
const NO_NAME: &str = ":service";

fn take(handed: &mut ListenFd, number: usize) -> io::Result<(SocketAddr, Kind)> {
    let gone = || io::Error::other("it was taken before");
    if let Ok(Some(socket)) = handed.take_udp_socket(number) {
        socket.set_nonblocking(true)?;
        return Ok((socket.local_addr()?, Kind::Udp(socket)));
    }
    let socket = handed.take_tcp_listener(number)?.ok_or_else(gone)?;
    if !rustix::net::sockopt::socket_acceptconn(&socket)? {
        return Err(io::Error::other("it does not listen"));
    }
    socket.set_nonblocking(true)?;
    Ok((socket.local_addr()?, Kind::Tcp(socket)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(sockets: Vec<(&str, Kind)>) -> Inherited {
        let sockets = sockets.into_iter().map(|(name, kind)| Socket {
            name: name.to_owned(),
            address: match &kind {
                Kind::Tcp(socket) => socket.local_addr().unwrap(),
                Kind::Udp(socket) => socket.local_addr().unwrap(),
            },
            kind,
            taken_by: None,
        });
        Inherited {
            sockets: Mutex::new(sockets.collect()),
        }
    }

    fn tcp() -> Kind {
        Kind::Tcp(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    #[test]
    fn an_address_is_found_whatever_the_name() {
        let inherited = with(vec![("a", tcp()), ("b", tcp())]);
        let address = inherited.lock()[1].address;
        let found = inherited.tcp("a", address).unwrap().unwrap();
        assert_eq!(found.local_addr().unwrap(), address);
        assert_eq!(inherited.unused().len(), 1);
    }

    #[test]
    fn a_name_stands_for_another_address_and_is_found_again() {
        let inherited = with(vec![("a", tcp()), ("a", tcp())]);
        let (one, two) = ("0.0.0.0:1".parse().unwrap(), "0.0.0.0:2".parse().unwrap());
        let of = |address| {
            let found: Option<TcpListener> = inherited.tcp("a", address).unwrap();
            found.map(|it| it.local_addr().unwrap())
        };
        let (first, second) = (of(one), of(two));
        assert!(first.is_some() && second.is_some() && first != second);
        assert_eq!((of(one), of(two)), (first, second));
        assert_eq!(of("0.0.0.0:3".parse().unwrap()), None);
    }

    #[test]
    fn kinds_are_not_mixed_up() {
        let udp = Kind::Udp(UdpSocket::bind("127.0.0.1:0").unwrap());
        let inherited = with(vec![("a", udp)]);
        let address = inherited.lock()[0].address;
        assert!(inherited.tcp("a", address).unwrap().is_none());
        assert!(inherited.udp("a", address).unwrap().is_some());
    }
}
