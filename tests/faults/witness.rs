//! Somebody who asks as Foreman does, again and again, and remembers every answer that did not come.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bulkhead_testkit::{Bulkhead, Target};

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(20);

/// Foreman gives up after 60 s; a proxy that is not the one attacked has no reason to need a twentieth of it.
const WORST: Duration = Duration::from_secs(3);

/// Runs until [`Witness::leave`]. A test that fails before takes it along: it would keep the program alive.
pub(crate) struct Witness {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Testimony>>,
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // The test has failed already; what the witness saw does not matter any more.
            let _ = thread.join();
        }
    }
}

#[derive(Default)]
struct Testimony {
    asked: usize,
    worst: Duration,
    failures: Vec<String>,
}

impl Witness {
    /// Begins to ask, over TLS with a new connection for every call.
    pub(crate) fn of(bulkhead: &Bulkhead) -> Self {
        Self::asking(vec![
            (bulkhead.foreman_tls(), "/tftp/serverName"),
            (bulkhead.foreman_tls(), "/v2/features"),
        ])
    }

    /// Begins to ask these questions in turn.
    pub(crate) fn asking(questions: Vec<(Target, &'static str)>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut testimony = Testimony::default();
            while !stopped.load(Ordering::Relaxed) {
                for (target, path) in &questions {
                    let start = Instant::now();
                    match target.request("GET", path).as_foreman().try_send() {
                        Ok(answer) if answer.status == 200 => {}
                        Ok(answer) => testimony
                            .failures
                            .push(format!("{path}: {}", answer.status_line)),
                        Err(error) => testimony.failures.push(format!("{path}: {error}")),
                    }
                    testimony.asked += 1;
                    testimony.worst = testimony.worst.max(start.elapsed());
                }
                std::thread::sleep(PAUSE);
            }
            testimony
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }

    /// Stops asking; fails the test unless every question was answered in time.
    #[track_caller]
    pub(crate) fn leave(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it leaves once");
        let testimony = thread.join().expect("the witness does not panic");
        assert!(
            testimony.failures.is_empty(),
            "{} of {} questions were not answered: {:?}",
            testimony.failures.len(),
            testimony.asked,
            &testimony.failures[..testimony.failures.len().min(5)]
        );
        assert!(testimony.asked > 0, "nothing was asked");
        assert!(
            testimony.worst < WORST,
            "the slowest answer took {:?}",
            testimony.worst
        );
    }
}
