//! Waiting for something that will become true soon, without a fixed sleep.

use std::time::{Duration, Instant};

/// How long [`until`] waits by default: far more than anything should need, so that a slow machine fails no test.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Calls `probe` until it answers something, at most `patience` long.
pub fn until_within<T>(patience: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = probe() {
            return Some(found);
        }
        if start.elapsed() > patience {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// [`until_within`] with [`PATIENCE`].
pub fn until<T>(probe: impl FnMut() -> Option<T>) -> Option<T> {
    until_within(PATIENCE, probe)
}

/// Fails the test unless the condition becomes true within [`PATIENCE`]. Further arguments are the message.
#[macro_export]
macro_rules! assert_eventually {
    ($condition:expr) => {
        $crate::assert_eventually!($condition, "never became true: {}", stringify!($condition))
    };
    ($condition:expr, $($message:tt)+) => {
        if $crate::eventually::until(|| ($condition).then_some(())).is_none() {
            panic!($($message)+);
        }
    };
}
