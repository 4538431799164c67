//! Somebody at a port who answers each connection as a test wants it.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a connection may be silent: longer than the program keeps one, so that it is always the program that closes.
const SILENCE: Duration = Duration::from_secs(60);

/// Somebody at a port. Gone with its value, whatever happened to the test.
#[derive(Debug)]
pub struct Stranger {
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
    door: Option<JoinHandle<()>>,
}

impl Stranger {
    /// Listens there. `answer` gets each connection on a thread of its own.
    pub fn at(address: SocketAddr, answer: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).expect("ports are free here");
        let (is_over, answer) = (Arc::new(AtomicBool::new(false)), Arc::new(answer));
        let over = is_over.clone();
        let door = std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let answer = answer.clone();
                // Ends with its connection, or when nothing comes by it for a while.
                let _ = stream.set_read_timeout(Some(SILENCE));
                std::thread::spawn(move || answer(stream));
            }
        });
        Self {
            address,
            is_over,
            door: Some(door),
        }
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(door) = self.door.take() {
            let _ = door.join();
        }
    }
}
