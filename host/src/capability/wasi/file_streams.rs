//! Reading and writing a file as a WASI stream.
//!
//! The one idea: a stream does one blocking operation at a time, as a future that it keeps until it is done. Nothing runs between the
//! plugin's calls but an operation already begun, so a plugin cannot pile up work. Each begin asks the handle's right again.

use std::io;
use std::pin::Pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamError, StreamResult};

use super::descriptor::{PlacedFile, Right};
use super::quota::WriteAt;

/// Bytes read or written at a time. Each takes one hop to a blocking thread, some 20 µs.
pub(super) const CHUNK: usize = 64 * 1024;

type Doing<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

/// Reads a file from an offset on.
pub(super) struct FileReader {
    file: Arc<PlacedFile>,
    right: Arc<Right>,
    offset: u64,
    state: Reading,
}

enum Reading {
    Idle,
    Doing(Doing<Bytes>),
    Read(Bytes),
    Failed(io::Error),
    Ended,
}

impl FileReader {
    pub(super) fn new(file: Arc<PlacedFile>, right: Arc<Right>, offset: u64) -> Self {
        Self {
            file,
            right,
            offset,
            state: Reading::Idle,
        }
    }

    fn begin(&mut self, size: usize) {
        let (file, offset) = (self.file.clone(), self.offset);
        let right = self.right.clone();
        self.state = Reading::Doing(Box::pin(async move {
            right
                .access()
                .blocking()
                .run(move || read_at(&file, size.min(CHUNK), offset))
                .await?
        }));
    }

    async fn finish(&mut self) {
        if let Reading::Doing(doing) = &mut self.state {
            self.state = match doing.await {
                Ok(bytes) if bytes.is_empty() => Reading::Ended,
                Ok(bytes) => Reading::Read(bytes),
                Err(error) => Reading::Failed(error),
            };
        }
    }
}

/// Reads up to `size` bytes; none at the end of the file. Blocks.
pub(super) fn read_at(file: &PlacedFile, size: usize, offset: u64) -> io::Result<Bytes> {
    use std::os::unix::fs::FileExt;
    let mut buffer = BytesMut::zeroed(size);
    loop {
        match file.read_at(&mut buffer, offset) {
            Ok(read) => {
                buffer.truncate(read);
                return Ok(buffer.freeze());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[async_trait]
impl InputStream for FileReader {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        if self.right.check().is_err() {
            self.state = Reading::Ended;
            return Err(denied());
        }
        match std::mem::replace(&mut self.state, Reading::Ended) {
            Reading::Idle => {
                self.state = Reading::Idle;
                if size > 0 {
                    self.begin(size);
                }
                Ok(Bytes::new())
            }
            Reading::Doing(doing) => {
                self.state = Reading::Doing(doing);
                Ok(Bytes::new())
            }
            Reading::Read(mut bytes) => {
                let chunk = bytes.split_to(size.min(bytes.len()));
                self.offset = self.offset.saturating_add(chunk.len() as u64);
                self.state = if bytes.is_empty() {
                    Reading::Idle
                } else {
                    Reading::Read(bytes)
                };
                Ok(chunk)
            }
            Reading::Failed(error) => Err(StreamError::LastOperationFailed(error.into())),
            Reading::Ended => Err(StreamError::Closed),
        }
    }

    async fn blocking_read(&mut self, size: usize) -> StreamResult<Bytes> {
        if matches!(self.state, Reading::Idle) && size > 0 {
            self.right.check().map_err(|_| denied())?;
            self.begin(size);
        }
        self.finish().await;
        self.read(size)
    }
}

#[async_trait]
impl Pollable for FileReader {
    async fn ready(&mut self) {
        if matches!(self.state, Reading::Idle) {
            self.begin(CHUNK);
        }
        self.finish().await;
    }
}

/// Writes a file from an offset on, or at its end.
pub(super) struct FileWriter {
    file: Arc<PlacedFile>,
    right: Arc<Right>,
    at: WriteAt,
    state: Writing,
}

enum Writing {
    Idle,
    Doing(Doing<()>),
    Failed(io::Error),
    Ended,
}

impl FileWriter {
    pub(super) fn new(file: Arc<PlacedFile>, right: Arc<Right>, at: WriteAt) -> Self {
        Self {
            file,
            right,
            at,
            state: Writing::Idle,
        }
    }

    async fn finish(&mut self) {
        if let Writing::Doing(doing) = &mut self.state {
            self.state = match doing.await {
                Ok(()) => Writing::Idle,
                Err(error) => Writing::Failed(error),
            };
        }
    }

    /// The outcome of the last write, if it ended badly. It is told once; then the stream is closed.
    fn outcome(&mut self) -> StreamResult<()> {
        match std::mem::replace(&mut self.state, Writing::Ended) {
            Writing::Failed(error) => Err(StreamError::LastOperationFailed(error.into())),
            Writing::Ended => Err(StreamError::Closed),
            fine => {
                self.state = fine;
                Ok(())
            }
        }
    }
}

#[async_trait]
impl OutputStream for FileWriter {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.outcome()?;
        if !matches!(self.state, Writing::Idle) || bytes.len() > CHUNK {
            return Err(StreamError::trap("wrote more than check-write allowed"));
        }
        if self.right.check().is_err() {
            self.state = Writing::Ended;
            return Err(denied());
        }
        let (file, at, right) = (self.file.clone(), self.at, self.right.clone());
        if let WriteAt::Offset(offset) = &mut self.at {
            // After a failed write the stream is closed, so the offset counts only successes.
            *offset = offset.saturating_add(bytes.len() as u64);
        }
        self.state = Writing::Doing(Box::pin(async move {
            right
                .access()
                .blocking()
                .run(move || file.quota().write_at(&file, &bytes, at))
                .await?
        }));
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
        // What the plugin has handed over is written, also when it drops the stream at once.
        self.finish().await;
    }
}

#[async_trait]
impl Pollable for FileWriter {
    async fn ready(&mut self) {
        self.finish().await;
    }
}

fn denied() -> StreamError {
    StreamError::LastOperationFailed(
        io::Error::from_raw_os_error(rustix::io::Errno::PERM.raw_os_error()).into(),
    )
}
