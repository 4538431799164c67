//! Misdeeds of the hostile fixture, going on until told to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bulkhead_testkit::{Bulkhead, Target};

/// Attackers at once: more than there are cores, fewer than the plugin may have calls.
const ATTACKERS: usize = 8;

/// Short limits, so that a test sees a deadline pass.
pub(crate) const LIMITS: &str = "[limits]\ntime = \"2s\"\ncpu = \"1s\"\nqueue-time = \"1s\"";

/// Where an audience calls.
pub(crate) fn door(bulkhead: &Bulkhead, audience: &str) -> Target {
    if audience == "foreman" {
        bulkhead.foreman()
    } else {
        bulkhead.hosts()
    }
}

/// Keeps misdeeds going until told to stop.
pub(crate) struct Attack {
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<usize>>,
}

impl Attack {
    pub(crate) fn begin(bulkhead: &Bulkhead, audience: &str, misdeed: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..ATTACKERS)
            .map(|_| {
                let (target, stop) = (door(bulkhead, audience), stop.clone());
                let path = format!("/hostile/{audience}/{misdeed}");
                std::thread::spawn(move || {
                    let mut count = 0;
                    while !stop.load(Ordering::Relaxed) {
                        // Refused for now, failed, too late: whatever it is, it goes on.
                        let _ = target.request("GET", &path).try_send();
                        count += 1;
                        // Not a test of how many connections a second there can be.
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    count
                })
            })
            .collect();
        // The measurement begins when the misdeeds are under way.
        std::thread::sleep(Duration::from_millis(300));
        Self { stop, threads }
    }

    pub(crate) fn end(mut self) -> usize {
        self.stop()
    }

    fn stop(&mut self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.threads
            .drain(..)
            .map(|thread| thread.join().expect("an attacker does not panic"))
            .sum()
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        // A test that fails takes its attack along: it would keep the program alive.
        self.stop();
    }
}
