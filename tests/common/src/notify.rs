//! The receiving end of systemd's notification protocol: a datagram socket whose path goes into `NOTIFY_SOCKET`.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::scratch::Scratch;

/// A socket that a started program reports its life to.
#[derive(Debug)]
pub struct Notifications {
    socket: UnixDatagram,
    path: PathBuf,
    _directory: Scratch,
}

impl Notifications {
    /// Binds a socket in a directory of its own.
    pub fn listen() -> Self {
        let directory = Scratch::new();
        let path = directory.join("notify");
        let socket = UnixDatagram::bind(&path).expect("a datagram socket can be bound");
        Self {
            socket,
            path,
            _directory: directory,
        }
    }

    /// The value for `NOTIFY_SOCKET`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for a message with this line (`READY=1`), and answers all lines that came until then.
    pub fn wait_for(&self, line: &str, patience: Duration) -> Result<Vec<String>, Vec<String>> {
        let end = Instant::now() + patience;
        let mut seen = Vec::new();
        let mut buffer = [0_u8; 4096];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(seen);
            }
            self.socket
                .set_read_timeout(Some(left))
                .expect("a time-out can be set");
            match self.socket.recv(&mut buffer) {
                Ok(length) => {
                    let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                    seen.extend(text.lines().map(str::to_owned));
                    if seen
                        .iter()
                        .any(|one| one == line || one.starts_with(&format!("{line}=")))
                    {
                        return Ok(seen);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(seen),
                Err(error) => panic!("the notification socket failed: {error}"),
            }
        }
    }
}
