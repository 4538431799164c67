//! A call of one plugin by another: done where its caller is, and finished without it.
//!
//! A task of its own would cost two wake-ups of other threads, ten times what the call itself takes. So the future is polled by its caller;
//! only when the caller goes away before the end does the rest become a task, because **a caller that goes away cancels nothing**: the instance
//! called may hold an index. A panic of the host inside costs this call, not its caller.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::runtime::Handle;

use crate::telemetry::context;

/// A future that is finished, by its caller or without it.
pub(super) struct Unstoppable<T: Send + 'static> {
    work: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    /// Where it goes on when its caller is gone.
    home: Handle,
    request: Option<Arc<str>>,
}

impl<T: Send + 'static> Unstoppable<T> {
    /// Nothing happens before it is polled for the first time.
    pub(super) fn new(work: impl Future<Output = T> + Send + 'static, home: Handle) -> Self {
        Self {
            work: Some(Box::pin(work)),
            home,
            request: context::request_id(),
        }
    }
}

impl<T: Send + 'static> Future for Unstoppable<T> {
    /// The error is what a panic carried.
    type Output = Result<T, Box<dyn Any + Send>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(work) = self.work.as_mut() else {
            return Poll::Pending; // polled again after its end
        };
        // What a panic leaves half done goes down with the future.
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context)));
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(value)) => {
                self.work = None;
                Poll::Ready(Ok(value))
            }
            Err(panic) => {
                self.work = None;
                Poll::Ready(Err(panic))
            }
        }
    }
}

impl<T: Send + 'static> Drop for Unstoppable<T> {
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            self.home.spawn(context::carried(self.request.take(), work));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    #[tokio::test]
    async fn it_is_done_where_its_caller_is() {
        let here = std::thread::current().id();
        let work = Unstoppable::new(async { std::thread::current().id() }, Handle::current());
        assert_eq!(work.await.unwrap(), here);
    }

    #[tokio::test]
    async fn it_is_finished_without_its_caller() {
        let done = Arc::new(AtomicBool::new(false));
        let flag = done.clone();
        let work = async move {
            tokio::time::sleep(Duration::from_millis(30)).await;
            flag.store(true, Ordering::SeqCst);
        };
        let caller = tokio::time::timeout(
            Duration::from_millis(1),
            Unstoppable::new(work, Handle::current()),
        );
        assert!(caller.await.is_err());
        while !done.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn a_panic_inside_is_its_own() {
        let work = async { assert!(std::env::args().count() > 1_000_000, "boom") };
        assert!(Unstoppable::new(work, Handle::current()).await.is_err());
    }
}
