//! What stands between a socket and the HTTP library: it lets requests through one complete, judged head at a time.
//!
//! It refuses heads that are slow, endless, too large or ambiguous (`head.rs`), and bytes that are no HTTP at all. It answers those itself,
//! since hyper would not answer some of them and would accept others. It does not time bodies; their reader does (`body.rs`).
//!
//! The one idea: the gate knows where each body ends, so it knows which bytes are a head. hyper sees the first byte of a head only after
//! the last has arrived, and end-of-file instead of a head that was refused; the refusal is written when hyper then shuts the connection down,
//! behind every answer that is still on its way.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderValue;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::answer::Refusal;
use super::chunks::Chunks;
use super::connections::Place;
use super::head::{Framing, HeadScanner, Scan, inspect, may_begin_request};
use super::limits::{LINGER_BYTES, LINGER_TIME, Limits};
use super::outgoing::Outgoing;

/// Bytes read at once while a head is awaited. 4 KiB: Foreman's heads are some 400 bytes.
const READ_SIZE: usize = 4 * 1024;

/// A connection on its way from socket (or TLS) to hyper.
pub(super) struct Gate<S> {
    io: S,
    limits: Arc<Limits>,
    place: Arc<Place>,
    /// For the `Server` header of refusals.
    server: HeaderValue,
    peer: Peer,
    state: State,
    /// Bytes that arrived and were not handed on.
    buffer: BytesMut,
    timer: Pin<Box<Sleep>>,
    /// Bytes of a head or a body are awaited from the client.
    receiving: bool,
    /// A write or flush is waiting for the client to take bytes.
    sending: bool,
    /// Is told when everything is sent.
    outgoing: Arc<Outgoing>,
    end: End,
}

/// Whom the log names, of bytes that never become a request.
pub(super) struct Peer {
    /// The other end.
    pub(super) client: SocketAddr,
    /// The name of the listener it came by.
    pub(super) listener: Arc<str>,
}

/// What the next bytes are.
enum State {
    /// None: the request before is being answered. Asking for more begins the wait for the next head.
    Answering,
    /// A head of which nothing has arrived.
    Idle,
    /// A head of which something has arrived.
    Head(HeadScanner),
    /// A complete head: so many bytes are still to be handed on, then comes its body.
    HeadPassing(usize, Framing),
    /// A body of so many bytes more.
    Length(u64),
    /// A body in chunks.
    Chunked(Chunks),
    /// Nothing more is read for requests.
    Closed,
}

/// How the connection is brought to its end.
enum End {
    /// Not yet; `shutdown` will begin it.
    Open,
    /// Refused: `shutdown` writes this first.
    Refused(Bytes),
    /// The write side is being closed. True: the client may still be sending, its bytes have to be dropped for a while.
    Closing(bool),
    /// What the client still sends is dropped.
    Lingering(u64),
}

impl<S> Gate<S> {
    /// The time for the first head begins now.
    pub(super) fn new(
        io: S,
        limits: Arc<Limits>,
        place: Arc<Place>,
        server: HeaderValue,
        peer: Peer,
    ) -> Self {
        let timer = Box::pin(tokio::time::sleep(limits.head_time));
        let buffer = BytesMut::new();
        Self {
            io,
            limits,
            place,
            server,
            peer,
            state: State::Head(HeadScanner::default()),
            buffer,
            timer,
            receiving: true,
            sending: false,
            outgoing: Arc::default(),
            end: End::Open,
        }
    }

    /// Tells the bodies of its answers when everything is sent.
    pub(super) fn telling(mut self, outgoing: Arc<Outgoing>) -> Self {
        self.outgoing = outgoing;
        self
    }

    /// Answers this instead of reading on.
    pub(super) fn refuse(&mut self, refusal: Refusal) {
        self.place.refuse();
        let Peer { client, listener } = &self.peer;
        tracing::info!(%client, %listener, status = refusal.status().as_u16(), reason = %refusal, "request refused before it was one");
        self.end = End::Refused(refusal.into_bytes(&self.server).into());
        self.state = State::Closed;
    }

    /// The next head may begin; from now on the client is waited for.
    fn expect_head(&mut self) {
        self.state = State::Idle;
        self.receives(true);
        self.timer.as_mut().reset(Instant::now() + self.limits.idle);
    }

    /// Judges what has arrived of a head. True: something new can be handed on, or the connection is at its end.
    fn judge_head(&mut self) -> bool {
        if matches!(self.state, State::Idle) && !self.buffer.is_empty() {
            self.timer
                .as_mut()
                .reset(Instant::now() + self.limits.head_time);
            self.state = State::Head(HeadScanner::default());
        }
        let State::Head(scanner) = &mut self.state else {
            return false;
        };
        // RFC 9112 section 2.2: an empty line before a request is ignored.
        if scanner.is_fresh() && self.buffer.starts_with(b"\r\n") {
            self.buffer.advance(2);
        }
        match self.buffer.first() {
            None => return false,
            Some(first) if !may_begin_request(*first) => {
                let Peer { client, listener } = &self.peer;
                tracing::info!(%client, %listener, "connection closed: what came is not HTTP");
                self.place.refuse();
                self.state = State::Closed;
                return true;
            }
            Some(_) => {}
        }
        match scanner.scan(&self.buffer, &self.limits) {
            Ok(Scan::Incomplete) => return false,
            Ok(Scan::Complete(length)) => {
                match inspect(self.buffer.get(..length).unwrap_or_default()) {
                    Ok(framing) => self.state = State::HeadPassing(length, framing),
                    Err(refusal) => self.refuse(refusal),
                }
            }
            Err(refusal) => self.refuse(refusal),
        }
        self.receiving = false;
        if !self.place.works() {
            self.state = State::Closed;
        }
        true
    }

    /// Whether the time for a head is over, in which case the connection is at its end.
    fn time_is_up(&mut self, cx: &mut Context<'_>) -> bool {
        while self.timer.as_mut().poll(cx).is_ready() {
            if !self.sending {
                match self.state {
                    State::Head(_) if !self.buffer.is_empty() => self.refuse(Refusal::HeadTimeout),
                    _ => self.state = State::Closed,
                }
                return true;
            }
            // The last answer is still on its way: the client is not idle, it reads. The stall guard watches over that.
            self.timer.as_mut().reset(Instant::now() + self.limits.idle);
        }
        false
    }

    /// A piece of a body was handed on.
    fn body_went_on(&mut self, done: bool) {
        self.receives(false);
        if done {
            self.state = State::Answering;
        }
    }

    fn receives(&mut self, waiting: bool) {
        self.receiving = waiting;
        self.mark_place();
    }

    /// Watches whether the client takes what is sent.
    fn watch_sending<T>(&mut self, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.sending = outcome.is_pending();
        self.mark_place();
        outcome
    }

    /// The connection waits for its client if either direction does.
    fn mark_place(&self) {
        if self.receiving || self.sending {
            self.place.waits();
        } else {
            self.place.works();
        }
    }
}

impl<S: AsyncRead + Unpin> Gate<S> {
    /// Reads more of a head into the buffer and says how much came.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let before = self.buffer.len();
        self.buffer.resize(before.saturating_add(READ_SIZE), 0);
        let mut space = ReadBuf::new(self.buffer.get_mut(before..).unwrap_or_default());
        let outcome = Pin::new(&mut self.io).poll_read(cx, &mut space);
        let came = space.filled().len();
        self.buffer.truncate(before.saturating_add(came));
        outcome.map_ok(|()| came)
    }

    /// Hands on bytes of a body, at most `most`: first what the buffer holds, then from the socket. Answers how many.
    fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
        most: u64,
    ) -> Poll<io::Result<usize>> {
        let most = usize::try_from(most)
            .unwrap_or(usize::MAX)
            .min(out.remaining());
        if !self.buffer.is_empty() {
            let piece = self.buffer.split_to(most.min(self.buffer.len()));
            out.put_slice(&piece);
            return Poll::Ready(Ok(piece.len()));
        }
        let mut space = ReadBuf::new(out.initialize_unfilled_to(most));
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut space))?;
        let came = space.filled().len();
        out.advance(came);
        Poll::Ready(Ok(came))
    }

    /// Hands on bytes of a chunked body, never any beyond its end. Answers how many.
    fn poll_chunked(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.buffer.is_empty() && ready!(self.poll_fill(cx))? == 0 {
            return Poll::Ready(Ok(0));
        }
        let State::Chunked(chunks) = &mut self.state else {
            return Poll::Ready(Ok(0));
        };
        let most = self.buffer.len().min(out.remaining());
        let belongs = chunks.follow(self.buffer.get(..most).unwrap_or_default());
        let belongs = belongs.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let piece = self.buffer.split_to(belongs);
        out.put_slice(&piece);
        Poll::Ready(Ok(belongs))
    }

    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut scrap = [0; READ_SIZE];
        loop {
            let End::Lingering(dropped) = &mut self.end else {
                return Poll::Ready(());
            };
            if *dropped > LINGER_BYTES || self.timer.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            let mut space = ReadBuf::new(&mut scrap);
            match ready!(Pin::new(&mut self.io).poll_read(cx, &mut space)) {
                Ok(()) if !space.filled().is_empty() => {
                    *dropped = dropped.saturating_add(space.filled().len() as u64)
                }
                _ => return Poll::Ready(()),
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gate<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let gate = self.get_mut();
        loop {
            match &mut gate.state {
                State::Closed => return Poll::Ready(Ok(())),
                State::Answering => gate.expect_head(),
                State::Idle | State::Head(_) => {
                    if gate.judge_head() {
                        continue;
                    }
                    match gate.poll_fill(cx) {
                        // The client left: nobody to answer, even if half a head has come.
                        Poll::Ready(Ok(0)) => gate.state = State::Closed,
                        Poll::Ready(Ok(_)) => {}
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                        Poll::Pending if gate.time_is_up(cx) => {}
                        Poll::Pending => return Poll::Pending,
                    }
                }
                State::HeadPassing(left, framing) => {
                    let piece = gate
                        .buffer
                        .split_to((*left).min(out.remaining()).min(gate.buffer.len()));
                    out.put_slice(&piece);
                    *left = left.saturating_sub(piece.len());
                    if *left == 0 {
                        gate.state = match *framing {
                            Framing::Nothing => State::Answering,
                            Framing::Length(length) => State::Length(length),
                            Framing::Chunked => State::Chunked(Chunks::new()),
                        };
                    }
                    return Poll::Ready(Ok(()));
                }
                State::Length(left) => {
                    let left = *left;
                    let Poll::Ready(came) = gate.poll_body(cx, out, left)? else {
                        gate.receives(true);
                        return Poll::Pending;
                    };
                    let left = left.saturating_sub(came as u64);
                    gate.state = State::Length(left);
                    gate.body_went_on(left == 0);
                    return Poll::Ready(Ok(()));
                }
                State::Chunked(_) => {
                    if gate.poll_chunked(cx, out)?.is_pending() {
                        gate.receives(true);
                        return Poll::Pending;
                    }
                    let done = matches!(&gate.state, State::Chunked(chunks) if chunks.is_done());
                    gate.body_went_on(done);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Gate<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.watch_sending(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.io).poll_write_vectored(cx, pieces);
        self.watch_sending(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.io).poll_flush(cx);
        // The library flushes when it has written all it had.
        if let Poll::Ready(Ok(())) = outcome {
            self.outgoing.is_sent();
        }
        self.watch_sending(outcome)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let gate = self.get_mut();
        loop {
            match &mut gate.end {
                End::Open => {
                    let unread = matches!(
                        gate.state,
                        State::HeadPassing(..) | State::Length(_) | State::Chunked(_)
                    );
                    gate.end = End::Closing(unread);
                }
                End::Refused(bytes) if bytes.is_empty() => {
                    ready!(Pin::new(&mut gate.io).poll_flush(cx))?;
                    gate.end = End::Closing(true);
                }
                End::Refused(bytes) => {
                    match ready!(Pin::new(&mut gate.io).poll_write(cx, bytes))? {
                        0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                        sent => bytes.advance(sent),
                    }
                }
                End::Closing(unread) => {
                    ready!(Pin::new(&mut gate.io).poll_shutdown(cx))?;
                    if !*unread {
                        return Poll::Ready(Ok(()));
                    }
                    gate.timer.as_mut().reset(Instant::now() + LINGER_TIME);
                    gate.end = End::Lingering(0);
                }
                End::Lingering(_) => return gate.poll_linger(cx).map(Ok),
            }
        }
    }
}

#[cfg(test)]
mod tests;
