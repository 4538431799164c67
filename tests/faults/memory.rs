//! The most that the program takes while something goes on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bulkhead_testkit::Bulkhead;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(5);

/// Does the work; the most resident bytes that were seen meanwhile.
pub(crate) fn most_while(bulkhead: &Bulkhead, work: impl FnOnce()) -> u64 {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut most = 0;
            while !done.load(Ordering::Relaxed) {
                most = most.max(bulkhead.usage().resident);
                std::thread::sleep(LOOK);
            }
            most
        });
        // A failing test must not leave the watcher waiting.
        let guard = Done(&done);
        work();
        drop(guard);
        watching.join().unwrap()
    })
}

struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
