//! A stand-in for an installation medium: a plain HTTP server that behaves well or badly, as the path says.
//!
//! | Path | Behaviour |
//! |---|---|
//! | `/file/NAME` | the file put there, with ranges and `If-Modified-Since` |
//! | `/status/CODE` | that status with a body nobody may take for the file |
//! | `/slow/NAME` | the file, a piece every 20 ms |
//! | `/reset/NAME` | half of the file, then the connection is cut; from the second request on, the whole |
//! | `/redirect/NAME` | 302 to the URL that [`Medium::redirect`] was told |
//! | `/endless/NAME` | bytes without end and without a length |
//! | `/silent/NAME` | accepts the request and never answers |

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::foreman::{Recorded, read_request};

/// The date every file was last changed, in the form of HTTP.
pub const LAST_MODIFIED: &str = "Sun, 01 Mar 2026 10:20:30 GMT";

/// [`LAST_MODIFIED`] in seconds since 1970.
pub const LAST_MODIFIED_SECONDS: u64 = 1_772_360_430;

/// How long a connection may stay silent, and how long `/silent/` does.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
struct Shelf {
    files: BTreeMap<String, Arc<Vec<u8>>>,
    requests: Vec<Recorded>,
    cut: BTreeSet<String>,
    redirects: BTreeMap<String, String>,
}

/// The running server; it ends with this value.
#[derive(Debug)]
pub struct Medium {
    /// Where it listens.
    pub address: SocketAddr,
    shelf: Arc<Mutex<Shelf>>,
    stopped: Arc<AtomicBool>,
}

impl Medium {
    /// Starts one without files.
    pub fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port can be bound");
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        let this = Self {
            address,
            shelf: Arc::default(),
            stopped: Arc::default(),
        };
        let (shelf, stopped) = (this.shelf.clone(), this.stopped.clone());
        std::thread::spawn(move || {
            for (number, socket) in listener.incoming().enumerate() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(socket) = socket else { continue };
                let (shelf, stopped) = (shelf.clone(), stopped.clone());
                // A connection that fails is the peer's doing; the test looks at what became of the file.
                std::thread::spawn(move || serve(socket, number + 1, &shelf, &stopped));
            }
        });
        this
    }

    /// Puts a file on the shelf.
    pub fn put(&self, name: &str, content: impl Into<Vec<u8>>) {
        lock(&self.shelf)
            .files
            .insert(name.to_owned(), Arc::new(content.into()));
    }

    /// Makes `/redirect/NAME` lead to a URL; answers its own.
    pub fn redirect(&self, name: &str, url: &str) -> String {
        lock(&self.shelf)
            .redirects
            .insert(name.to_owned(), url.to_owned());
        self.url(&format!("redirect/{name}"))
    }

    /// The URL of a path, `file/vmlinuz`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Recorded> {
        lock(&self.shelf).requests.clone()
    }
}

impl Drop for Medium {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // Wakes the accepting thread.
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(
    mut socket: TcpStream,
    number: usize,
    shelf: &Mutex<Shelf>,
    stopped: &AtomicBool,
) -> io::Result<()> {
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    let mut pending = Vec::new();
    while let Some(request) = read_request(&mut socket, &mut pending, number)? {
        lock(shelf).requests.push(request.clone());
        let target = request
            .line()
            .split(' ')
            .nth(1)
            .unwrap_or_default()
            .trim_start_matches('/')
            .to_owned();
        let (kind, name) = target.split_once('/').unwrap_or((&target, ""));
        let file = lock(shelf).files.get(name).cloned();
        match (kind, file) {
            ("status", _) => {
                socket.write_all(&plain(
                    &format!("{name} Requested"),
                    "this is an error page, not a kernel",
                ))?;
            }
            ("redirect", _) => {
                let url = lock(shelf).redirects.get(name).cloned().unwrap_or_default();
                let head =
                    format!("HTTP/1.1 302 Found\r\nLocation: {url}\r\nContent-Length: 0\r\n\r\n");
                socket.write_all(head.as_bytes())?;
            }
            ("endless", _) => {
                socket.write_all(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n\r\n",
                )?;
                while !stopped.load(Ordering::Relaxed) {
                    socket.write_all(&[0x5a; 64 * 1024])?;
                }
            }
            ("silent", _) => {
                let mut left = PATIENCE;
                while !stopped.load(Ordering::Relaxed) && !left.is_zero() {
                    let pause = Duration::from_millis(20);
                    std::thread::sleep(pause);
                    left = left.saturating_sub(pause);
                }
                return Ok(());
            }
            ("slow", Some(content)) => {
                socket.write_all(whole_head(content.len()).as_bytes())?;
                for piece in content.chunks(content.len().div_ceil(100).max(1)) {
                    socket.write_all(piece)?;
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
            ("reset", Some(content)) if lock(shelf).cut.insert(name.to_owned()) => {
                socket.write_all(whole_head(content.len()).as_bytes())?;
                socket.write_all(&content[..content.len() / 2])?;
                return socket.shutdown(Shutdown::Both);
            }
            ("file" | "reset", Some(content)) => send_file(&mut socket, &request, &content)?,
            _ => socket.write_all(&plain("404 Not Found", "no such file on this medium"))?,
        }
    }
    Ok(())
}

fn send_file(socket: &mut TcpStream, request: &Recorded, content: &[u8]) -> io::Result<()> {
    if request.header("if-modified-since") == Some(LAST_MODIFIED) {
        return socket.write_all(b"HTTP/1.1 304 Not Modified\r\n\r\n");
    }
    let from = request
        .header("range")
        .and_then(|value| value.strip_prefix("bytes="))
        .and_then(|range| range.split('-').next())
        .and_then(|from| from.parse::<usize>().ok())
        .filter(|from| *from < content.len());
    match from {
        Some(from) => {
            let head = format!(
                "HTTP/1.1 206 Partial Content\r\nLast-Modified: {LAST_MODIFIED}\r\n\
                 Content-Range: bytes {from}-{}/{}\r\nContent-Length: {}\r\n\r\n",
                content.len() - 1,
                content.len(),
                content.len() - from
            );
            socket.write_all(head.as_bytes())?;
            socket.write_all(&content[from..])
        }
        None => {
            socket.write_all(whole_head(content.len()).as_bytes())?;
            socket.write_all(content)
        }
    }
}

fn whole_head(length: usize) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nLast-Modified: {LAST_MODIFIED}\r\n\
         Accept-Ranges: bytes\r\nContent-Length: {length}\r\n\r\n"
    )
}

fn plain(status: &str, body: &str) -> Vec<u8> {
    crate::foreman::reply(status, "text/html", body)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
