//! Bodies on their way through the host.
//!
//! An upstream's body refuses to stand still (idle time), to go on for ever, and to flow under a right that was taken away. When it ends well its
//! connection goes back to the pool; in every other case the connection is closed.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures::future::BoxFuture;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};

use super::pool::{Connection, Place};

/// Why a body ended before its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyProblem {
    /// The right to the upstream was taken away.
    #[error("the policy no longer allows this: {0}")]
    Revoked(String),
    /// Nothing came for too long.
    #[error("nothing came for {0:?}")]
    Idle(Duration),
    /// It went on for too long.
    #[error("not finished after {0:?}")]
    Endless(Duration),
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Broken(String),
}

/// How long an answer's body may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct BodyTimes {
    /// Between two pieces.
    pub(super) idle: Duration,
    /// In all.
    pub(super) total: Duration,
}

/// Resolves when the right to the exchange is taken away, with the denial's text.
pub(super) type Revoked = BoxFuture<'static, String>;

/// The body of an upstream's answer.
pub(super) struct AnswerBody {
    inner: Option<Incoming>,
    lease: Option<(Place, Connection)>,
    revoked: Revoked,
    times: BodyTimes,
    ends: Instant,
    timer: Pin<Box<Sleep>>,
}

impl fmt::Debug for AnswerBody {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "AnswerBody(open: {})", self.inner.is_some())
    }
}

impl AnswerBody {
    pub(super) fn new(
        inner: Incoming,
        place: Place,
        connection: Connection,
        revoked: Revoked,
        times: BodyTimes,
    ) -> Self {
        let now = Instant::now();
        let ends = now + times.total;
        let mut body = AnswerBody {
            inner: Some(inner),
            lease: Some((place, connection)),
            revoked,
            times,
            ends,
            timer: Box::pin(sleep_until(ends.min(now + times.idle))),
        };
        body.finish_if_at_end();
        body
    }

    fn finish_if_at_end(&mut self) {
        if self.inner.as_ref().is_some_and(Incoming::is_end_stream) {
            self.finish();
        }
    }

    fn finish(&mut self) {
        self.inner = None;
        if let Some((place, connection)) = self.lease.take() {
            place.give_back(connection);
        }
    }

    fn fail(&mut self, problem: BodyProblem) -> Poll<Option<Result<Frame<Bytes>, BodyProblem>>> {
        self.inner = None;
        self.lease = None;
        Poll::Ready(Some(Err(problem)))
    }
}

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = BodyProblem;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyProblem>>> {
        let this = &mut *self;
        let Some(inner) = &mut this.inner else {
            return Poll::Ready(None);
        };
        if let Poll::Ready(text) = this.revoked.as_mut().poll(context) {
            return this.fail(BodyProblem::Revoked(text));
        }
        match Pin::new(inner).poll_frame(context) {
            // Trailers are nothing that anybody here waits for, and a way around what is checked in the head.
            Poll::Ready(Some(Ok(frame))) if frame.is_trailers() => {
                this.finish();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Ok(_))) if Instant::now() >= this.ends => {
                this.fail(BodyProblem::Endless(this.times.total))
            }
            Poll::Ready(Some(Ok(frame))) => {
                let next = this.ends.min(Instant::now() + this.times.idle);
                this.timer.as_mut().reset(next);
                this.finish_if_at_end();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                this.finish();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                let cause = std::error::Error::source(&error)
                    .map_or_else(|| error.to_string(), ToString::to_string);
                this.fail(BodyProblem::Broken(cause))
            }
            Poll::Pending => {
                ready!(this.timer.as_mut().poll(context));
                let problem = if Instant::now() >= this.ends {
                    BodyProblem::Endless(this.times.total)
                } else {
                    BodyProblem::Idle(this.times.idle)
                };
                this.fail(problem)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}

/// The slowest upload, in bytes a second, that may go on beyond the time-out: an upload holds a place that others wait for.
const PACE: u64 = 16 << 10;

/// How an upload gets on: the time-out for the answer counts from its last piece, as long as it keeps pace.
#[derive(Debug, Clone)]
pub(super) struct Progress(Arc<Mutex<Sent>>);

#[derive(Debug)]
struct Sent {
    began: Instant,
    last: Instant,
    bytes: u64,
}

impl Progress {
    pub(super) fn start() -> Self {
        let now = Instant::now();
        Progress(Arc::new(Mutex::new(Sent {
            began: now,
            last: now,
            bytes: 0,
        })))
    }

    /// Until when the answer has time.
    pub(super) fn until(&self, timeout: Duration) -> Instant {
        let sent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pace = Duration::from_millis(sent.bytes.saturating_mul(1000) / PACE);
        (sent.last + timeout).min(sent.began + timeout + pace)
    }

    fn made(&self, bytes: usize) {
        let mut sent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sent.last = Instant::now();
        sent.bytes = sent.bytes.saturating_add(bytes as u64);
    }
}

/// A client's body on its way to an upstream.
#[derive(Debug)]
pub(super) struct Upload {
    inner: Body,
    progress: Progress,
}

impl Upload {
    pub(super) fn new(inner: Body, progress: Progress) -> Self {
        Upload { inner, progress }
    }
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        if let Poll::Ready(piece) = &polled {
            let data = match piece {
                Some(Ok(frame)) => frame.data_ref(),
                _ => None,
            };
            self.progress.made(data.map_or(0, Bytes::len));
        }
        match polled {
            // Trailers of a client could smuggle in headers that the host has dropped.
            Poll::Ready(Some(Ok(frame))) if frame.is_trailers() => Poll::Ready(None),
            polled => polled,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_upload_that_trickles_does_not_go_on_for_ever() {
        const TIMEOUT: Duration = Duration::from_secs(10);
        let began = Instant::now();
        let last = began + Duration::from_secs(60);
        let until =
            |bytes| Progress(Arc::new(Mutex::new(Sent { began, last, bytes }))).until(TIMEOUT);
        assert_eq!(until(64 << 20), last + TIMEOUT);
        assert_eq!(until(15), began + TIMEOUT);
    }
}
