//! The way to a server, which a test can close, cut or let fall silent without the server knowing.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;

/// Between two looks for a connection: a road is not what is measured.
const LOOK: Duration = Duration::from_millis(2);

/// What becomes of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// They arrive.
    Open,
    /// Nobody listens.
    Down,
    /// They are accepted and reset.
    Resetting,
    /// They are accepted, and nothing more is heard.
    Silent,
}

/// The road; it ends with this value.
pub(crate) struct Road {
    /// Where it begins.
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    to: SocketAddr,
    state: Mutex<State>,
    /// What is open now, both ends.
    open: Mutex<Vec<TcpStream>>,
    stopped: AtomicBool,
}

impl Road {
    /// An open road to a server.
    pub(crate) fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            to: server,
            state: Mutex::new(State::Open),
            open: Mutex::default(),
            stopped: AtomicBool::new(false),
        });
        let mine = shared.clone();
        std::thread::spawn(move || mine.keep(address, listener));
        Self { address, shared }
    }

    /// Changes the state, and cuts what is open: in the field a server that goes away takes its connections along.
    pub(crate) fn set(&self, state: State) {
        *lock(&self.shared.state) = state;
        for stream in lock(&self.shared.open).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        // The port is given up, or taken again, at the next look.
        std::thread::sleep(LOOK * 10);
    }
}

impl Drop for Road {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn keep(self: Arc<Self>, address: SocketAddr, listener: TcpListener) {
        listener.set_nonblocking(true).unwrap();
        let mut listener = Some(listener);
        while !self.stopped.load(Ordering::Relaxed) {
            let state = *lock(&self.state);
            if state == State::Down {
                listener = None;
            } else if listener.is_none() {
                let again = TcpListener::bind(address).unwrap();
                again.set_nonblocking(true).unwrap();
                listener = Some(again);
            }
            match listener.as_ref().map(TcpListener::accept) {
                // A connection that fails is what a road in this state does.
                Some(Ok((stream, _))) => drop(self.take(stream, state)),
                _ => std::thread::sleep(LOOK),
            }
        }
    }

    fn take(self: &Arc<Self>, stream: TcpStream, state: State) -> io::Result<()> {
        stream.set_nonblocking(false)?;
        match state {
            State::Resetting => set_socket_linger(&stream, Some(Duration::ZERO))?,
            State::Open => {
                let server = TcpStream::connect(self.to)?;
                lock(&self.open).extend([stream.try_clone()?, server.try_clone()?]);
                for (mut from, mut to) in
                    [(stream.try_clone()?, server.try_clone()?), (server, stream)]
                {
                    std::thread::spawn(move || {
                        let _ = io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Write);
                    });
                }
            }
            State::Down | State::Silent => lock(&self.open).push(stream),
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
