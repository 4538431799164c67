//! What is on its way to clients: bytes of answers that were handed to the HTTP library and that the kernel has not taken.
//!
//! It holds back the next piece of an answer while its client has not taken those before, once many clients read slowly. The library alone would keep
//! some 180 KiB for each of them.
//!
//! The one idea: as long as little is on its way in all, nobody is held back, so that a fast client never waits for this. Beyond that each connection
//! has room for a piece or two.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::task::AtomicWaker;
use http_body::{Body, Frame, SizeHint};

/// Bytes on their way to all clients from which on each has little room. 16 MiB: a hundred clients at full speed.
const PLENTY: usize = 16 * 1024 * 1024;
/// The room of one connection then, in bytes. 32 KiB: a rendered registration passes whole, so that a host which reads it slowly keeps no place in the
/// line to Foreman.
const LITTLE: usize = 32 * 1024;

/// Bytes on their way to all clients.
static ALL: AtomicUsize = AtomicUsize::new(0);

/// What is on its way to one client.
pub(super) struct Outgoing {
    all: &'static AtomicUsize,
    bytes: AtomicUsize,
    /// Who waits for room.
    waiting: AtomicWaker,
}

impl Default for Outgoing {
    fn default() -> Self {
        Self::among(&ALL)
    }
}

impl Outgoing {
    fn among(all: &'static AtomicUsize) -> Self {
        Self {
            all,
            bytes: AtomicUsize::new(0),
            waiting: AtomicWaker::new(),
        }
    }

    fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.all.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The kernel has taken everything.
    pub(super) fn is_sent(&self) {
        // Nobody waits for room where nothing is on its way.
        if self.bytes.load(Ordering::Relaxed) > 0 {
            self.forget();
            self.waiting.wake();
        }
    }

    fn has_room(&self) -> bool {
        let bytes = self.bytes.load(Ordering::Relaxed);
        bytes < LITTLE || self.all.load(Ordering::Relaxed) < PLENTY
    }

    fn forget(&self) {
        let bytes = self.bytes.swap(0, Ordering::Relaxed);
        self.all.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.forget();
    }
}

/// An answer's body that waits for room.
pub(super) struct Paced<B> {
    body: B,
    outgoing: Arc<Outgoing>,
}

impl<B> Paced<B> {
    pub(super) fn new(body: B, outgoing: Arc<Outgoing>) -> Self {
        Self { body, outgoing }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Paced<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if !self.outgoing.has_room() {
            self.outgoing.waiting.register(cx.waker());
            // It may have been sent before the waker was there.
            if !self.outgoing.has_room() {
                return Poll::Pending;
            }
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.outgoing.add(frame.data_ref().map_or(0, Bytes::len));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;
    use http_body_util::{BodyExt as _, StreamBody};

    fn pieces() -> Paced<impl Body<Data = Bytes, Error = std::io::Error> + Unpin> {
        let piece = || Ok(Frame::data(Bytes::from(vec![0; LITTLE])));
        let endless = futures::stream::repeat_with(piece);
        static THESE: AtomicUsize = AtomicUsize::new(0);
        Paced::new(StreamBody::new(endless), Arc::new(Outgoing::among(&THESE)))
    }

    #[test]
    fn a_client_that_does_not_read_gets_no_more_when_many_do_not() {
        // While there is plenty of room one client has all that it asks for.
        let mut first = pieces();
        let mut handed = 0;
        while first.frame().now_or_never().is_some() {
            handed += LITTLE;
        }
        assert_eq!(handed, PLENTY);
        // Then there is one piece for each.
        let mut second = pieces();
        assert!(second.frame().now_or_never().is_some());
        assert!(second.frame().now_or_never().is_none());
        // Who takes it gets the next.
        second.outgoing.is_sent();
        assert!(second.frame().now_or_never().is_some());
        assert!(second.frame().now_or_never().is_none());
        // What is gone no longer counts.
        drop(first);
        assert!(second.frame().now_or_never().is_some());
    }
}
