//! CPU time of a call, measured by the thread clock around each poll.
//!
//! Wall time would charge a call for waiting; the epoch clock would charge it for its neighbours. A call that has used more than
//! [`DEMOTE_AFTER`] of CPU time is handed to the background runtime, so that loops, however many, run behind honest requests; one that
//! has used its grant is ended. A plugin that calls another does so within its own poll: what the other used is charged to the other
//! alone.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// CPU time a call may use before it moves to the background: ten times what an ordinary request takes, and little enough that its
/// neighbours do not notice.
pub(crate) const DEMOTE_AFTER: Duration = Duration::from_millis(1);

/// How a metered turn ended.
#[derive(Debug)]
pub(crate) enum Turn<T> {
    /// The call is done.
    Done(T),
    /// It has used [`DEMOTE_AFTER`]; go on with it in the background.
    Demote,
    /// It has used its CPU limit.
    Exhausted,
}

thread_local! {
    /// CPU time that calls inside the current poll were charged with; none outside of every poll.
    static INSIDE: Cell<Option<Duration>> = const { Cell::new(None) };
}

/// Polls a future and adds up its CPU time.
pub(crate) struct Metered<'a, F: ?Sized> {
    future: Pin<&'a mut F>,
    used: &'a mut Duration,
    limit: Duration,
    demote: bool,
}

impl<'a, F: Future + ?Sized> Metered<'a, F> {
    /// `used` carries over from one turn to the next; `demote` says whether to stop at [`DEMOTE_AFTER`].
    pub(crate) fn new(
        future: Pin<&'a mut F>,
        used: &'a mut Duration,
        limit: Duration,
        demote: bool,
    ) -> Self {
        Self {
            future,
            used,
            limit,
            demote,
        }
    }
}

impl<F: Future + ?Sized> Future for Metered<'_, F> {
    type Output = Turn<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let start = thread_time();
        let around = INSIDE.replace(Some(Duration::ZERO));
        let polled = self.future.as_mut().poll(context);
        let others = INSIDE.replace(around).unwrap_or_default();
        if polled.is_ready() && around.is_none() {
            return polled.map(Turn::Done); // nobody asks any more
        }
        let spent = thread_time().saturating_sub(start);
        INSIDE.set(around.map(|others| others + spent));
        if let Poll::Ready(done) = polled {
            return Poll::Ready(Turn::Done(done));
        }
        *self.used += spent.saturating_sub(others);
        if *self.used >= self.limit {
            Poll::Ready(Turn::Exhausted)
        } else if self.demote && *self.used >= DEMOTE_AFTER {
            Poll::Ready(Turn::Demote)
        } else {
            Poll::Pending
        }
    }
}

fn thread_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(now.tv_sec).unwrap_or(0),
        u32::try_from(now.tv_nsec).unwrap_or(0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn burn(slices: u32) {
        for _ in 0..slices {
            let until = thread_time() + Duration::from_millis(2);
            while thread_time() < until {}
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_call_that_burns_is_demoted_and_then_ended() {
        let mut used = Duration::ZERO;
        let mut future = Box::pin(burn(100));
        let first = Metered::new(future.as_mut(), &mut used, Duration::from_millis(30), true).await;
        assert!(matches!(first, Turn::Demote));
        let second =
            Metered::new(future.as_mut(), &mut used, Duration::from_millis(30), false).await;
        assert!(matches!(second, Turn::Exhausted));
    }

    #[tokio::test]
    async fn a_call_inside_a_call_is_charged_to_itself() {
        let (mut outer, mut inner) = (Duration::ZERO, Duration::ZERO);
        let limit = Duration::from_secs(9);
        let mut work = Box::pin(async {
            let mut burning = Box::pin(burn(10));
            Metered::new(burning.as_mut(), &mut inner, limit, false).await;
            burn(3).await;
        });
        Metered::new(work.as_mut(), &mut outer, limit, false).await;
        drop(work);
        assert!(inner >= Duration::from_millis(20), "{inner:?}");
        assert!(
            (Duration::from_millis(6)..Duration::from_millis(12)).contains(&outer),
            "{outer:?}"
        );
    }

    #[tokio::test]
    async fn waiting_costs_nothing() {
        let mut used = Duration::ZERO;
        let mut future = Box::pin(tokio::time::sleep(Duration::from_millis(60)));
        let turn = Metered::new(future.as_mut(), &mut used, Duration::from_millis(20), true).await;
        assert!(matches!(turn, Turn::Done(())));
        assert!(used < Duration::from_millis(20));
    }
}
