//! An open TCP connection of a plugin, and its two streams.
//!
//! The one idea: what the system takes at once is written at once; the rest is written by a task that ends with the stream. Taking a
//! connection's right away shuts the socket down, which wakes everybody who waits for it on either side.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};

use bytes::{Bytes, BytesMut};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::{
    DynInputStream, DynOutputStream, InputStream, OutputStream, Pollable, StreamError, StreamResult,
};

use super::access::Taken;
use crate::grant::Connected;

/// Bytes read or written at a time.
const CHUNK: usize = 64 * 1024;

/// An open connection of a plugin.
pub(super) struct Connection {
    stream: TcpStream,
    /// What it was allowed as.
    pub(super) right: Connected,
    revoked: AtomicBool,
    read_shut: AtomicBool,
    write_shut: AtomicBool,
    /// Held while bytes are under way, so that shutting down waits for them.
    writing: Arc<Mutex<()>>,
    _slot: Option<Taken>,
}

impl Connection {
    /// A connection that was allowed as `right`, with its place among the plugin's sockets.
    pub(super) fn new(stream: TcpStream, right: Connected, slot: Option<Taken>) -> Arc<Self> {
        Arc::new(Self {
            stream,
            right,
            revoked: AtomicBool::new(false),
            read_shut: AtomicBool::new(false),
            write_shut: AtomicBool::new(false),
            writing: Arc::default(),
            _slot: slot,
        })
    }

    /// The socket, for its options and addresses.
    pub(super) fn socket(&self) -> &TcpStream {
        &self.stream
    }

    /// The plugin's ends of the connection.
    pub(super) fn streams(self: &Arc<Self>) -> (DynInputStream, DynOutputStream) {
        let writer = Writer {
            connection: self.clone(),
            state: Writing::Idle,
        };
        (Box::new(Reader(self.clone())), Box::new(writer))
    }

    /// Ends the connection in both directions: its right is gone.
    pub(super) fn revoke(&self) {
        self.revoked.store(true, Ordering::Release);
        // Wakes whoever waits to read or write, on both ends. An error means that it has ended already.
        let _ = rustix::net::shutdown(&self.stream, rustix::net::Shutdown::Both);
    }

    fn check(&self) -> StreamResult<()> {
        if self.revoked.load(Ordering::Acquire) {
            return Err(StreamError::LastOperationFailed(
                io::Error::from(io::ErrorKind::PermissionDenied).into(),
            ));
        }
        Ok(())
    }

    async fn write_all(&self, mut bytes: Bytes) -> io::Result<()> {
        while !bytes.is_empty() {
            self.stream.writable().await?;
            match self.stream.try_write(&bytes) {
                Ok(written) => drop(bytes.split_to(written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends no more, after what is under way.
    pub(super) fn shut_writing(self: &Arc<Self>) {
        if self.write_shut.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Ok(_idle) = self.writing.try_lock() {
            let _ = rustix::net::shutdown(&self.stream, rustix::net::Shutdown::Write);
            return;
        }
        let connection = self.clone();
        tokio::spawn(async move {
            let _written = connection.writing.lock().await;
            let _ = rustix::net::shutdown(&connection.stream, rustix::net::Shutdown::Write);
        });
    }

    /// Takes no more.
    pub(super) fn shut_reading(&self) {
        if !self.read_shut.swap(true, Ordering::AcqRel) {
            let _ = rustix::net::shutdown(&self.stream, rustix::net::Shutdown::Read);
        }
    }
}

struct Reader(Arc<Connection>);

#[async_trait]
impl InputStream for Reader {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        self.0.check()?;
        if self.0.read_shut.load(Ordering::Acquire) {
            return Err(StreamError::Closed);
        }
        if size == 0 {
            return Ok(Bytes::new());
        }
        let mut buffer = BytesMut::zeroed(size.min(CHUNK));
        match self.0.stream.try_read(&mut buffer) {
            Ok(0) => {
                self.0.check()?;
                self.0.read_shut.store(true, Ordering::Release);
                Err(StreamError::Closed)
            }
            Ok(read) => {
                buffer.truncate(read);
                Ok(buffer.freeze())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Bytes::new()),
            Err(error) => {
                self.0.read_shut.store(true, Ordering::Release);
                Err(StreamError::LastOperationFailed(error.into()))
            }
        }
    }
}

#[async_trait]
impl Pollable for Reader {
    async fn ready(&mut self) {
        if !self.0.read_shut.load(Ordering::Acquire) {
            // An error is told by the read that follows.
            let _ = self.0.stream.readable().await;
        }
    }
}

struct Writer {
    connection: Arc<Connection>,
    state: Writing,
}

enum Writing {
    Idle,
    /// The rest of a write that the system would not take at once.
    Doing(Background),
    Failed(io::Error),
    Ended,
}

/// A task that ends with its owner: an instance that is thrown away leaves nothing behind.
struct Background(JoinHandle<io::Result<()>>);

impl Drop for Background {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Writer {
    async fn finish(&mut self) {
        if let Writing::Doing(doing) = &mut self.state {
            self.state = match (&mut doing.0).await {
                Ok(Ok(())) => Writing::Idle,
                Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => Writing::Ended,
                Ok(Err(error)) => Writing::Failed(error),
                Err(_) => Writing::Ended,
            };
        }
    }

    fn outcome(&mut self) -> StreamResult<()> {
        if let Writing::Doing(doing) = &mut self.state
            && doing.0.is_finished()
        {
            let mut finish = std::pin::pin!(self.finish());
            // The task has ended, so its outcome is there at once.
            let _ = finish
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()));
        }
        self.connection.check()?;
        match std::mem::replace(&mut self.state, Writing::Ended) {
            Writing::Failed(error) => Err(StreamError::LastOperationFailed(error.into())),
            Writing::Ended => Err(StreamError::Closed),
            fine => {
                self.state = fine;
                if self.connection.write_shut.load(Ordering::Acquire) {
                    Err(StreamError::Closed)
                } else {
                    Ok(())
                }
            }
        }
    }
}

#[async_trait]
impl OutputStream for Writer {
    fn write(&mut self, mut bytes: Bytes) -> StreamResult<()> {
        self.outcome()?;
        if !matches!(self.state, Writing::Idle) || bytes.len() > CHUNK {
            return Err(StreamError::trap("wrote more than check-write allowed"));
        }
        while !bytes.is_empty() {
            match self.connection.stream.try_write(&bytes) {
                Ok(written) => drop(bytes.split_to(written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // Locked before the task runs, so that shutting down in between waits for it.
                    let Ok(writing) = self.connection.writing.clone().try_lock_owned() else {
                        self.state = Writing::Ended;
                        return Err(StreamError::Closed);
                    };
                    let connection = self.connection.clone();
                    let rest = async move {
                        let _writing = writing;
                        connection.write_all(bytes).await
                    };
                    self.state = Writing::Doing(Background(tokio::spawn(rest)));
                    return Ok(());
                }
                Err(error) => {
                    self.state = Writing::Ended;
                    self.connection.check()?;
                    return match error.kind() {
                        io::ErrorKind::BrokenPipe => Err(StreamError::Closed),
                        _ => Err(StreamError::LastOperationFailed(error.into())),
                    };
                }
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        self.outcome()
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        self.outcome()?;
        Ok(if matches!(self.state, Writing::Idle) {
            CHUNK
        } else {
            0
        })
    }

    async fn cancel(&mut self) {
        // What the plugin has handed over is sent, also when it drops the stream at once.
        self.finish().await;
        self.connection.shut_writing();
    }
}

#[async_trait]
impl Pollable for Writer {
    async fn ready(&mut self) {
        self.finish().await;
        if matches!(self.state, Writing::Idle)
            && !self.connection.write_shut.load(Ordering::Acquire)
        {
            let _ = self.connection.stream.writable().await;
        }
    }
}
