//! Changes of dhcpd's hosts, made in turns: while dhcpd thinks, the one instance of this plugin goes on reading for others.
//!
//! It refuses to begin a second change while one is under way: between the look at the files and dhcpd's answer nobody else may take the address.
//!
//! The one idea: a change is a future that is polled for a moment by each call that asks for it, and `again` is the answer until it is done. What it waits
//! for, it asks in pieces ([`until`]), each no longer than the present turn.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bulkhead_sdk::dhcp::Reservation;

use crate::address::Hardware;
use crate::error::Problem;

/// For how long one call may hold the instance. dhcpd needs some milliseconds, so a change is usually made in its first turn.
const TURN: Duration = Duration::from_millis(50);

/// After which the next turn is to be asked for: readers have at least half of the instance's time.
pub const PAUSE: Duration = Duration::from_millis(50);

/// How long an outcome waits for whoever wanted it. They ask every [`PAUSE`], unless they have given up.
const KEPT: Duration = Duration::from_secs(10);

/// Most outcomes kept.
const MOST_KEPT: usize = 64;

/// What shall be changed.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A reservation is to be made.
    Add(Reservation),
    /// The reservations of an address or a hardware address are to be removed.
    Remove {
        /// The prefix.
        subnet: String,
        /// The address.
        address: Option<u32>,
        /// The hardware address.
        hardware: Option<Hardware>,
    },
}

/// What came of it.
pub type Outcome = Result<bool, Problem>;

/// The work on a change.
pub type Work = Pin<Box<dyn Future<Output = Outcome>>>;

struct UnderWay {
    change: Change,
    work: Work,
}

impl UnderWay {
    /// Works for that long.
    fn go_on(&mut self, turn: Duration) -> Option<Outcome> {
        TURN_ENDS.set(Some(Instant::now() + turn));
        let mut context = Context::from_waker(Waker::noop());
        match self.work.as_mut().poll(&mut context) {
            Poll::Ready(outcome) => Some(outcome),
            Poll::Pending => None,
        }
    }
}

struct Kept {
    change: Change,
    outcome: Outcome,
    since: Instant,
}

thread_local! {
    static UNDER_WAY: RefCell<Option<UnderWay>> = const { RefCell::new(None) };
    static DONE: RefCell<Vec<Kept>> = const { RefCell::new(Vec::new()) };
    static TURN_ENDS: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// One turn for a change. None: it is not done yet, or another one is under way.
pub fn turn(change: Change, begin: impl FnOnce(Change) -> Work) -> Option<Outcome> {
    if let outcome @ Some(_) = kept(&change) {
        return outcome;
    }
    let mut own = match UNDER_WAY.take() {
        Some(own) if own.change == change => own,
        other => {
            if let Some(mut other) = other {
                // Pushed on, in case nobody asks for it any more, but not waited for.
                match other.go_on(Duration::ZERO) {
                    Some(outcome) => keep(other.change, outcome),
                    None => {
                        UNDER_WAY.set(Some(other));
                        return None;
                    }
                }
            }
            UnderWay {
                work: begin(change.clone()),
                change,
            }
        }
    };
    let outcome = own.go_on(TURN);
    if outcome.is_none() {
        UNDER_WAY.set(Some(own));
    }
    outcome
}

fn kept(change: &Change) -> Option<Outcome> {
    DONE.with_borrow_mut(|done| {
        done.retain(|kept| kept.since.elapsed() < KEPT);
        let place = done.iter().position(|kept| kept.change == *change)?;
        Some(done.swap_remove(place).outcome)
    })
}

fn keep(change: Change, outcome: Outcome) {
    DONE.with_borrow_mut(|done| {
        if done.len() < MOST_KEPT {
            done.push(Kept {
                change,
                outcome,
                since: Instant::now(),
            });
        }
    });
}

/// Asks until there is an answer, each time for no longer than the present turn. None: none came until `end`.
pub async fn until<T>(
    end: Instant,
    mut attempt: impl FnMut(Duration) -> Option<T> + Unpin,
) -> Option<T> {
    std::future::poll_fn(move |_| {
        let now = Instant::now();
        let left = end.saturating_duration_since(now);
        let turn = TURN_ENDS.get().unwrap_or(now);
        match attempt(left.min(turn.saturating_duration_since(now))) {
            Some(answer) => Poll::Ready(Some(answer)),
            None if left.is_zero() => Poll::Ready(None),
            None => Poll::Pending,
        }
    })
    .await
}

/// Waits.
pub async fn pause(time: Duration) {
    let _: Option<()> = until(Instant::now() + time, |patience| {
        std::thread::sleep(patience);
        None
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remove(address: u32) -> Change {
        Change::Remove {
            subnet: "192.0.2.0/24".to_owned(),
            address: Some(address),
            hardware: None,
        }
    }

    /// A change that takes that long.
    fn lasting(time: Duration) -> impl FnOnce(Change) -> Work {
        move |_| {
            Box::pin(async move {
                pause(time).await;
                Ok(true)
            })
        }
    }

    fn immediate(_: Change) -> Work {
        Box::pin(async { Ok(false) })
    }

    #[test]
    fn a_long_change_holds_nobody_up_and_no_second_one_begins() {
        let begun = Instant::now();
        assert_eq!(turn(remove(1), lasting(Duration::from_millis(400))), None);
        assert_eq!(turn(remove(2), immediate), None, "one at a time");
        assert!(begun.elapsed() < Duration::from_millis(350));
        std::thread::sleep(Duration::from_millis(400));
        // Whoever comes pushes it on, and has its turn.
        assert_eq!(turn(remove(2), immediate), Some(Ok(false)));
        assert_eq!(turn(remove(1), immediate), Some(Ok(true)), "it was kept");
        assert_eq!(turn(remove(1), immediate), Some(Ok(false)), "once");
    }

    #[test]
    fn a_pause_lasts_as_long_as_it_should() {
        let begun = Instant::now();
        let time = Duration::from_millis(120);
        while turn(remove(3), lasting(time)).is_none() {}
        assert!(begun.elapsed() >= time);
    }
}
