//! A file on its way to a client.
//!
//! The one idea: one piece is read ahead while the piece before it is sent, so that the disk and the client work at the
//! same time and memory stays at few pieces; small ones, and none ahead, when many clients are slow. A right that ends breaks the body off: the client sees that it is not whole.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use rustix::buffer::spare_capacity;
use tokio_util::task::AbortOnDropHandle;

use super::range::Range;
use super::{OpenedFile, StreamRight};
use crate::capability::wasi::quota::CountedFile;

/// Bytes read at a time: large enough that the hop to a blocking thread does not count, small enough for many clients.
const PIECE: usize = 256 * 1024;
/// The same when many pieces wait for their clients already. A client that has stopped reading then keeps as many as the server has room for.
const SMALL_PIECE: usize = 16 * 1024;
/// Bytes in pieces from which on new ones are small. 16 MiB: some twenty large transfers at full speed.
const PLENTY: usize = 16 * 1024 * 1024;

/// Bytes of all pieces that are being read, or read and not yet sent.
static HELD: AtomicUsize = AtomicUsize::new(0);

/// A piece that counts while it is held, from before it is read. Its memory is had by the thread that serves the client: the threads that read files are
/// many, and memory that one thread asks for and another gives back stays with the first.
struct Piece {
    bytes: Vec<u8>,
    counted: usize,
}

impl Piece {
    fn new(size: usize) -> Self {
        HELD.fetch_add(size, Ordering::Relaxed);
        Self {
            bytes: Vec::with_capacity(size),
            counted: size,
        }
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        HELD.fetch_sub(self.counted, Ordering::Relaxed);
    }
}

/// The body of a file's answer.
pub(super) struct FileBody {
    file: Arc<CountedFile>,
    right: StreamRight,
    /// The policy's generation under which the right was last seen to hold.
    seen: u64,
    /// The offset of what is read next.
    offset: u64,
    /// Bytes not yet read.
    unread: u64,
    /// Bytes not yet handed over.
    unsent: u64,
    ahead: Option<AbortOnDropHandle<io::Result<Bytes>>>,
}

impl FileBody {
    pub(super) fn new(opened: OpenedFile, part: Range) -> Self {
        let seen = opened.right.access.guard().generation_now();
        Self {
            file: opened.file,
            right: opened.right,
            seen,
            offset: part.first,
            unread: part.length,
            unsent: part.length,
            ahead: None,
        }
    }

    /// Begins to read the next piece, if there is one.
    fn read_ahead(&mut self) {
        let piece = if HELD.load(Ordering::Relaxed) < PLENTY {
            PIECE
        } else {
            SMALL_PIECE
        };
        let size = usize::try_from(self.unread).unwrap_or(piece).min(piece);
        if size == 0 {
            return;
        }
        let (file, offset, piece) = (self.file.clone(), self.offset, Piece::new(size));
        let blocking = self.right.access.blocking().clone();
        self.offset += size as u64;
        self.unread -= size as u64;
        self.ahead = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            blocking
                .run(move || read_exactly(&file, offset, piece))
                .await?
        })));
    }

    fn check_right(&mut self) -> io::Result<()> {
        let generation = self.right.access.guard().generation_now();
        if generation != self.seen {
            if !self.right.holds() {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            self.seen = generation;
        }
        Ok(())
    }
}

impl http_body::Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.unsent == 0 {
            return Poll::Ready(None);
        }
        if self.ahead.is_none() {
            self.read_ahead();
        }
        let Some(ahead) = &mut self.ahead else {
            return Poll::Ready(None);
        };
        let read = ready!(Pin::new(ahead).poll(context)).map_err(io::Error::other);
        self.ahead = None;
        let piece = read
            .flatten()
            .and_then(|piece| self.check_right().map(|()| piece));
        match piece {
            Ok(piece) => {
                self.unsent = self.unsent.saturating_sub(piece.len() as u64);
                if HELD.load(Ordering::Relaxed) < PLENTY {
                    self.read_ahead();
                }
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Err(error) => {
                self.unsent = 0;
                self.unread = 0;
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.unsent == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.unsent)
    }
}

/// Fills a piece. Blocks.
///
/// # Errors
/// `UnexpectedEof` for a file that has become shorter than its answer promised.
fn read_exactly(file: &CountedFile, offset: u64, mut piece: Piece) -> io::Result<Bytes> {
    let size = piece.counted;
    while piece.bytes.len() < size {
        let at = offset + piece.bytes.len() as u64;
        match rustix::io::pread(&**file, spare_capacity(&mut piece.bytes), at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // The system may have been asked for a little more than was wanted, where the allocation is larger.
    piece.bytes.truncate(size);
    Ok(Bytes::from_owner(piece))
}
