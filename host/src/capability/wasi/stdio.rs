//! What a plugin prints, line by line into the host's log.
//!
//! It refuses to let a plugin forge the log or fill it: control characters and characters that turn the reading direction are
//! written as escapes, a line is cut at 4 KiB, and lines beyond the plugin's share per second are dropped and counted.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use crate::telemetry::text::{from_bytes, printable};

/// The longest line, in bytes as printed; what is longer becomes several lines.
const MAX_LINE: usize = 4096;
/// Bytes taken in one write.
const CHUNK: usize = 64 * 1024;

/// How many lines a plugin may log per second; shared by all its instances.
#[derive(Debug)]
pub struct LineShare {
    state: Mutex<Share>,
}

#[derive(Debug)]
struct Share {
    per_second: f64,
    left: f64,
    counted: Instant,
    dropped: u64,
}

/// What becomes of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineFate {
    /// It is logged. So many were dropped since the last one that was.
    Log {
        /// Lines dropped before this one.
        dropped: u64,
    },
    /// It is dropped.
    Drop,
}

impl LineShare {
    /// A share of `per_second` lines, of which one second's worth may come at once.
    pub fn new(per_second: u32) -> Self {
        let per_second = f64::from(per_second);
        Self {
            state: Mutex::new(Share {
                per_second,
                left: per_second,
                counted: Instant::now(),
                dropped: 0,
            }),
        }
    }

    /// Changes the share.
    pub fn set(&self, per_second: u32) {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .per_second = f64::from(per_second);
    }

    /// Counts one line.
    pub fn take(&self) -> LineFate {
        let mut share = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let gained = now.duration_since(share.counted).as_secs_f64() * share.per_second;
        share.left = (share.left + gained).min(share.per_second);
        share.counted = now;
        if share.left < 1.0 {
            share.dropped += 1;
            return LineFate::Drop;
        }
        share.left -= 1.0;
        LineFate::Log {
            dropped: std::mem::take(&mut share.dropped),
        }
    }
}

/// Which of a plugin's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Out,
    Error,
}

/// One instance's standard output or error.
#[derive(Clone)]
pub(super) struct Printed(Arc<Mutex<Lines>>);

struct Lines {
    plugin: Arc<str>,
    stream: Stream,
    share: Arc<LineShare>,
    unfinished: Vec<u8>,
}

impl Printed {
    pub(super) fn new(plugin: Arc<str>, stream: Stream, share: Arc<LineShare>) -> Self {
        Self(Arc::new(Mutex::new(Lines {
            plugin,
            stream,
            share,
            unfinished: Vec::new(),
        })))
    }

    fn print(&self, bytes: &[u8]) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .print(bytes);
    }
}

impl Lines {
    fn print(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            let mut text = text;
            while self.unfinished.len() + text.len() > MAX_LINE {
                let (fits, rest) = text.split_at(MAX_LINE.saturating_sub(self.unfinished.len()));
                self.unfinished.extend_from_slice(fits);
                self.end_line();
                text = rest;
            }
            self.unfinished.extend_from_slice(text);
            if ends {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.unfinished);
        let LineFate::Log { dropped } = self.share.take() else {
            return;
        };
        let plugin = &*self.plugin;
        if dropped > 0 {
            tracing::warn!(target: "plugin", plugin, dropped, "the plugin logs too much, lines were dropped");
        }
        let text = from_bytes(&line);
        let text = printable(&text);
        match self.stream {
            Stream::Out => tracing::info!(target: "plugin", plugin, stream = "stdout", "{text}"),
            Stream::Error => tracing::warn!(target: "plugin", plugin, stream = "stderr", "{text}"),
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        // The last words of a plugin that traps often lack the end of the line.
        if !self.unfinished.is_empty() {
            self.end_line();
        }
    }
}

impl IsTerminal for Printed {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Printed {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl OutputStream for Printed {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.print(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(CHUNK)
    }
}

#[async_trait]
impl Pollable for Printed {
    async fn ready(&mut self) {}
}

impl AsyncWrite for Printed {
    fn poll_write(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.print(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_to_the_share_and_counted() {
        let share = LineShare::new(10);
        let logged = (0..1000).filter(|_| share.take() != LineFate::Drop).count();
        assert!((10..=12).contains(&logged), "{logged}");
        std::thread::sleep(std::time::Duration::from_millis(250));
        assert!(matches!(share.take(), LineFate::Log { dropped } if dropped >= 980));
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let printed = Printed::new("p".into(), Stream::Out, Arc::new(LineShare::new(1000)));
        printed.print(&vec![b'x'; 3 * MAX_LINE + 5]);
        assert_eq!(printed.0.lock().unwrap().unfinished.len(), 5);
        printed.print(b"y\nz");
        assert_eq!(printed.0.lock().unwrap().unfinished, b"z");
    }
}
