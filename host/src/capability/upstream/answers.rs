//! How long a server's answers take lately, and whether there is time left for another.
//!
//! It never keeps a request from the server that has half of its time left: a server that was slow, or silent, is asked again.
//!
//! The one idea: a line in which everybody waits up to the last moment feeds the server with requests that are given up before they are
//! answered. With more requests than it can answer for long, all of its work would be for nothing. So whose turn comes too late is
//! turned away unsent, and the turn goes to one that can still be answered.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// So many of the last answers are remembered.
const REMEMBERED: usize = 64;

/// The last answers of a server, oldest first.
#[derive(Debug, Default)]
pub(super) struct Answers(Mutex<VecDeque<Duration>>);

impl Answers {
    /// So long it took until the head of an answer was there.
    pub(super) fn came(&self, after: Duration) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() == REMEMBERED {
            last.pop_front();
        }
        last.push_back(after);
    }

    /// There was no answer in so long a time. How long it would have taken nobody knows; it counts as twice as long, so that a few of
    /// them lead to what answers take now.
    pub(super) fn missed(&self, after: Duration) {
        self.came(after * 2);
    }

    /// What a request needs that has less than that `left`. Nothing is looked up for one that has half of its time, which is nearly every one.
    pub(super) fn too_late(&self, left: Duration, timeout: Duration) -> Option<Duration> {
        if left >= timeout / 2 {
            return None;
        }
        let needed = self.needed(timeout);
        (left < needed).then_some(needed)
    }

    /// The time that a request has to have left, of the time it had at first: what nine of ten answers take at most.
    fn needed(&self, timeout: Duration) -> Duration {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut last: Vec<Duration> = last.iter().copied().collect();
        last.sort_unstable();
        let most = (last.len() * 9).div_ceil(10).saturating_sub(1);
        last.get(most).copied().unwrap_or_default().min(timeout / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn what_nine_of_ten_answers_take_is_needed() {
        let answers = Answers::default();
        assert_eq!(answers.needed(MINUTE), Duration::ZERO, "nothing is known");
        for count in 1..=10 {
            answers.came(seconds(count));
        }
        assert_eq!(answers.needed(MINUTE), seconds(9));
        for _ in 0..REMEMBERED {
            answers.came(seconds(1));
        }
        assert_eq!(answers.needed(MINUTE), seconds(1), "the last ones count");
    }

    #[test]
    fn who_has_half_of_its_time_is_never_too_late() {
        let answers = Answers::default();
        answers.came(seconds(50));
        assert_eq!(answers.too_late(seconds(30), MINUTE), None);
        assert_eq!(answers.too_late(seconds(29), MINUTE), Some(seconds(30)));
        let quick = Answers::default();
        quick.came(seconds(2));
        assert_eq!(quick.too_late(seconds(2), MINUTE), None);
        assert_eq!(quick.too_late(seconds(1), MINUTE), Some(seconds(2)));
    }

    #[test]
    fn answers_that_do_not_come_raise_it_to_half_of_the_time_at_most() {
        let answers = Answers::default();
        answers.came(seconds(1));
        for needed in [2, 4, 8, 16, 30, 30] {
            answers.missed(answers.needed(MINUTE));
            assert_eq!(answers.needed(MINUTE), seconds(needed));
        }
    }
}
