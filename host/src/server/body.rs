//! Request bodies: read in time, within size and within the listener's memory.
//!
//! A body that is passed on is begun here: its first part has to come before anybody waits for the rest, so that who sends slowly holds no place
//! in the line to Foreman. It refuses bodies that stall, take too long, are larger than the route allows, or would together fill the memory. Trailer fields of
//! chunked bodies are dropped: nothing of the contract uses them, and forwarded they could smuggle headers.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::BoxError;
use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::{Instant, Sleep};

use super::answer::Refusal;
use super::shares::{Full, Share};

/// When a client whose body found no memory should come back. 5 s: bodies are read or time out within seconds, and those who come back have to be
/// spread over some.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// A body that ends with an error when the client stops sending or takes too long.
pub(super) struct TimedBody<B> {
    body: B,
    idle: Duration,
    until: Instant,
    timer: Pin<Box<Sleep>>,
}

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The client did not send it in time.
    #[error("the request body did not arrive in time")]
    Timeout,
    /// The connection broke or the framing is malformed.
    #[error("the request body is malformed or incomplete")]
    Broken,
}

impl<B> TimedBody<B> {
    /// `idle`: between two pieces; `whole`: from now to the end.
    pub(super) fn new(body: B, idle: Duration, whole: Duration) -> Self {
        let now = Instant::now();
        let until = now + whole;
        Self {
            body,
            idle,
            until,
            timer: Box::pin(tokio::time::sleep_until(until.min(now + idle))),
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for TimedBody<B> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) if frame.is_data() => {
                    let next = self.until.min(Instant::now() + self.idle);
                    self.timer.as_mut().reset(next);
                    return Poll::Ready(Some(Ok(frame)));
                }
                Poll::Ready(Some(Ok(_trailers))) => {}
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Some(Err(BodyError::Broken))),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => {
                    ready!(self.timer.as_mut().poll(cx));
                    return Poll::Ready(Some(Err(BodyError::Timeout)));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A body passed on that ends with an error when it is longer than the plugin's `limits.forward-body`.
pub(super) struct BoundedBody<B> {
    body: B,
    left: u64,
    exceeded: Arc<AtomicBool>,
}

impl<B: Body> BoundedBody<B> {
    /// Refuses at once what says that it is longer. The flag is set when the body turns out to be.
    pub(super) fn new(body: B, limit: u64) -> Result<(Self, Arc<AtomicBool>), Refusal> {
        if body.size_hint().lower() > limit {
            return Err(Refusal::BodyTooLarge { limit });
        }
        let exceeded = Arc::<AtomicBool>::default();
        let this = Self {
            body,
            left: limit,
            exceeded: exceeded.clone(),
        };
        Ok((this, exceeded))
    }
}

/// A body passed on was longer than it may be.
#[derive(Debug, thiserror::Error)]
#[error("the request body is longer than limits.forward-body")]
pub(super) struct TooLong;

impl<B> Body for BoundedBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
            None => return Poll::Ready(None),
        };
        let length = frame.data_ref().map_or(0, Bytes::len) as u64;
        Poll::Ready(Some(match self.left.checked_sub(length) {
            Some(left) => {
                self.left = left;
                Ok(frame)
            }
            None => {
                self.exceeded.store(true, Ordering::Relaxed);
                Err(TooLong.into())
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A body in memory. Its share of the listener's memory is free again when this is dropped.
#[derive(Debug)]
pub struct HeldBody {
    bytes: Bytes,
    _memory: Option<Share>,
}

impl HeldBody {
    /// The body.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// A body of the caller's own making, counted against nothing.
    pub fn free(bytes: Bytes) -> Self {
        Self {
            bytes,
            _memory: None,
        }
    }
}

/// Reads a whole body of at most `limit` bytes into a share of the listener's memory. What its length promises is reserved at once, the rest
/// as it comes.
pub(super) async fn hold<B>(body: B, limit: u64, mut memory: Share) -> Result<HeldBody, Refusal>
where
    B: Body<Data = Bytes, Error = BodyError> + Unpin,
{
    let mut body = body;
    let promised = body.size_hint().lower();
    if promised > limit {
        return Err(Refusal::BodyTooLarge { limit });
    }
    memory.grow(promised)?;
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(piece) = frame?.into_data() else {
            continue;
        };
        let size = (bytes.len() as u64).saturating_add(piece.len() as u64);
        if size > limit {
            return Err(Refusal::BodyTooLarge { limit });
        }
        memory.grow(size)?;
        bytes.extend_from_slice(&piece);
    }
    Ok(HeldBody {
        bytes: bytes.freeze(),
        _memory: Some(memory),
    })
}

/// Reads the beginning of a body that is passed on: all of it, or at least `enough` bytes, within `time`.
pub(super) async fn begin<B>(
    body: B,
    enough: u64,
    time: Duration,
    mut memory: Share,
) -> Result<BegunBody<B>, Refusal>
where
    B: Body<Data = Bytes, Error = BodyError> + Unpin,
{
    let (mut first, mut size, mut rest) = (VecDeque::new(), 0u64, Some(body));
    let reading = async {
        while size < enough
            && let Some(body) = &mut rest
        {
            let Some(frame) = body.frame().await else {
                rest = None;
                break;
            };
            let Ok(piece) = frame?.into_data() else {
                continue;
            };
            size = size.saturating_add(piece.len() as u64);
            memory.grow(size)?;
            first.push_back(piece);
        }
        Ok::<_, Refusal>(())
    };
    tokio::time::timeout(time, reading)
        .await
        .map_err(|_| Refusal::BodyTimeout)??;
    Ok(BegunBody {
        first,
        size,
        rest,
        memory: Some(memory),
    })
}

/// A body of which the first part has come.
pub(super) struct BegunBody<B> {
    first: VecDeque<Bytes>,
    /// Bytes in `first`.
    size: u64,
    rest: Option<B>,
    memory: Option<Share>,
}

impl<B: Body<Data = Bytes, Error = BodyError> + Unpin> Body for BegunBody<B> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(piece) = self.first.pop_front() {
            self.size = self.size.saturating_sub(piece.len() as u64);
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        self.memory = None;
        match &mut self.rest {
            Some(rest) => Pin::new(rest).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_empty() && self.rest.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self
            .rest
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint);
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(self.size));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(self.size));
        }
        hint
    }
}

/// Reads and drops a body of at most `limit` bytes.
pub(super) async fn discard<B>(body: B, limit: u64) -> Result<(), Refusal>
where
    B: Body<Data = Bytes, Error = BodyError> + Unpin,
{
    let mut body = body;
    let mut size = 0u64;
    if body.size_hint().lower() > limit {
        return Err(Refusal::BodyTooLarge { limit });
    }
    while let Some(frame) = body.frame().await {
        let piece = frame?.into_data().unwrap_or_default();
        size = size.saturating_add(piece.len() as u64);
        if size > limit {
            return Err(Refusal::BodyTooLarge { limit });
        }
    }
    Ok(())
}

impl From<Full> for Refusal {
    fn from(_: Full) -> Self {
        Self::Busy {
            retry_after: RETRY_AFTER,
        }
    }
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Timeout => Self::BodyTimeout,
            BodyError::Broken => Self::BodyBroken,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::shares::Shares;
    use super::*;
    use http_body_util::{Full, StreamBody};
    use std::convert::Infallible;

    const SECOND: Duration = Duration::from_secs(1);

    fn full(size: usize) -> TimedBody<Full<Bytes>> {
        TimedBody::new(Full::new(vec![7; size].into()), SECOND, SECOND)
    }

    fn pieces(sizes: &[usize]) -> TimedBody<impl Body<Data = Bytes, Error = Infallible> + Unpin> {
        let frames: Vec<_> = sizes
            .iter()
            .map(|size| Ok(Frame::data(Bytes::from(vec![7; *size]))))
            .collect();
        TimedBody::new(
            StreamBody::new(futures::stream::iter(frames)),
            SECOND,
            SECOND,
        )
    }

    #[tokio::test]
    async fn a_body_that_is_passed_on_ends_at_its_limit() {
        let known = http_body_util::Full::new(Bytes::from_static(b"four"));
        assert!(matches!(
            BoundedBody::new(known.clone(), 3),
            Err(Refusal::BodyTooLarge { limit: 3 })
        ));
        let (fits, exceeded) = BoundedBody::new(known, 4).unwrap();
        assert_eq!(fits.collect().await.unwrap().to_bytes(), "four");
        assert!(!exceeded.load(Ordering::Relaxed));
        let pieces =
            [b"ab", b"cd"].map(|it| Ok::<_, BoxError>(Frame::data(Bytes::from_static(it))));
        let unknown = http_body_util::StreamBody::new(futures::stream::iter(pieces));
        let (longer, exceeded) = BoundedBody::new(unknown, 3).unwrap();
        assert!(longer.collect().await.is_err());
        assert!(exceeded.load(Ordering::Relaxed));
    }

    #[tokio::test]
    async fn a_body_is_held_up_to_its_limit() {
        let memory = Shares::new(1 << 20);
        assert_eq!(
            hold(full(1000), 1000, memory.of(None))
                .await
                .unwrap()
                .bytes()
                .len(),
            1000
        );
        assert_eq!(
            hold(pieces(&[400, 0, 600]), 1000, memory.of(None))
                .await
                .unwrap()
                .bytes()
                .len(),
            1000
        );
        assert_eq!(
            hold(full(1001), 1000, memory.of(None)).await.unwrap_err(),
            Refusal::BodyTooLarge { limit: 1000 }
        );
        assert_eq!(
            hold(pieces(&[400, 601]), 1000, memory.of(None))
                .await
                .unwrap_err(),
            Refusal::BodyTooLarge { limit: 1000 }
        );
    }

    #[tokio::test]
    async fn all_bodies_together_stay_within_the_memory() {
        let memory = Shares::new(10 * 1024);
        let held = hold(pieces(&[3000, 3000]), 1 << 20, memory.of(None))
            .await
            .unwrap();
        assert_eq!(
            hold(full(5000), 1 << 20, memory.of(None))
                .await
                .unwrap_err(),
            Refusal::Busy {
                retry_after: RETRY_AFTER
            }
        );
        assert_eq!(
            hold(pieces(&[4000, 1000]), 1 << 20, memory.of(None))
                .await
                .unwrap_err(),
            Refusal::Busy {
                retry_after: RETRY_AFTER
            }
        );
        drop(held);
        assert!(
            hold(full(10 * 1024), 1 << 20, memory.of(None))
                .await
                .is_ok()
        );
        assert_eq!(memory.free(), 10 * 1024);
    }

    #[tokio::test]
    async fn an_unwanted_body_is_dropped_up_to_its_limit() {
        assert_eq!(discard(pieces(&[400, 600]), 1000).await, Ok(()));
        assert_eq!(
            discard(pieces(&[400, 601]), 1000).await,
            Err(Refusal::BodyTooLarge { limit: 1000 })
        );
    }

    #[tokio::test]
    async fn a_body_that_stops_or_drips_is_given_up() {
        let (sender, receiver) = futures::channel::mpsc::unbounded();
        let body = TimedBody::new(StreamBody::new(receiver), Duration::from_millis(50), SECOND);
        sender
            .unbounded_send(Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"x"))))
            .unwrap();
        assert_eq!(discard(body, 1000).await, Err(Refusal::BodyTimeout));

        let (sender, receiver) = futures::channel::mpsc::unbounded();
        let body = TimedBody::new(
            StreamBody::new(receiver),
            SECOND,
            Duration::from_millis(200),
        );
        let dripping = tokio::spawn(async move {
            while sender
                .unbounded_send(Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"x"))))
                .is_ok()
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        assert_eq!(discard(body, 1000).await, Err(Refusal::BodyTimeout));
        dripping.await.unwrap();
    }

    #[tokio::test]
    async fn a_body_that_is_passed_on_is_begun_first_and_arrives_whole() {
        let memory = Shares::new(1 << 20);
        for (sizes, in_memory) in [
            (&[10, 10][..], 20),
            (&[100, 100, 100], 100),
            (&[], 0),
            (&[60, 60, 60], 120),
        ] {
            let begun = begin(pieces(sizes), 100, SECOND, memory.of(None))
                .await
                .unwrap();
            assert_eq!(begun.size, in_memory);
            assert_eq!(begun.size_hint().lower(), in_memory);
            let whole = begun.collect().await.unwrap().to_bytes();
            assert_eq!(whole.len(), sizes.iter().sum::<usize>());
        }
        let exact = begin(full(50), 100, SECOND, memory.of(None)).await.unwrap();
        assert_eq!(exact.size_hint().exact(), Some(50));
        assert_eq!(memory.free(), (1 << 20) - 50, "held by `exact`");
        drop(exact);
        assert_eq!(memory.free(), 1 << 20);
    }

    #[tokio::test]
    async fn a_body_that_is_passed_on_and_does_not_begin_is_refused() {
        let memory = Shares::new(1 << 20);
        let trickle = StreamBody::new(futures::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let frame = Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"x")));
            Some((frame, ()))
        }));
        let body = TimedBody::new(Box::pin(trickle), SECOND, SECOND * 60);
        let outcome = begin(body, 1 << 16, SECOND / 20, memory.of(None)).await;
        assert_eq!(outcome.err(), Some(Refusal::BodyTimeout));
        assert_eq!(memory.free(), 1 << 20, "nothing stays reserved");
    }
}
