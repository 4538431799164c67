//! What Foreman's control calls take, quiet and while something else goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bulkhead_testkit::load::{Load, Measured};
use bulkhead_testkit::{Bulkhead, Target};

/// How long the quiet figure is taken.
const QUIET: Duration = Duration::from_secs(4);
/// Other work of the machine shows in some rounds; what the program does to itself shows in all.
const ROUNDS: usize = 3;
/// Fewer calls than this say nothing about one in a hundred.
const ENOUGH: usize = 200;

/// The calls: each on a connection of its own, over mutual TLS, as Foreman makes them.
fn calls(bulkhead: &Bulkhead) -> [(&'static str, Target, Vec<u8>); 2] {
    let target = bulkhead.foreman_tls();
    let write = target
        .request("POST", "/tftp/PXELinux/aa:bb:cc:dd:ee:01")
        .form(&[("pxeconfig", "default linux\nlabel linux\n  kernel x\n")])
        .bytes();
    let features = target.request("GET", "/v2/features").bytes();
    [
        ("TFTP write", target.clone(), write),
        ("/v2/features", target, features),
    ]
}

/// Calls until told to stop, at most so long; the figures of each kind.
fn call(bulkhead: &Bulkhead, stop: &Arc<AtomicBool>, longest: Duration) -> Vec<Measured> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = calls(bulkhead)
            .into_iter()
            .map(|(_, target, request)| {
                let load = Load {
                    connections: 1,
                    duration: longest,
                    rest: Duration::from_millis(3),
                    reconnect: true,
                };
                scope.spawn(move || load.run(&target, &request, stop))
            })
            .collect();
        let joined = threads.into_iter().map(|thread| thread.join().unwrap());
        joined.collect()
    })
}

/// Fails unless control calls take, while `trouble` goes on, at most the larger of twice and 5 ms more than what they take in quiet (99 of 100), and
/// none fails.
#[track_caller]
pub(crate) fn assert_undisturbed(bulkhead: &Bulkhead, mut trouble: impl FnMut() + Send) {
    let mut seen = String::new();
    for round in 1..=ROUNDS {
        let quiet = call(bulkhead, &Arc::default(), QUIET);
        let stop = Arc::new(AtomicBool::new(false));
        let disturbed = std::thread::scope(|scope| {
            let calling = scope.spawn(|| call(bulkhead, &stop, Duration::from_secs(120)));
            trouble();
            stop.store(true, Ordering::Relaxed);
            calling.join().unwrap()
        });
        let mut holds = true;
        for (((name, _, _), quiet), disturbed) in calls(bulkhead).iter().zip(&quiet).zip(&disturbed)
        {
            assert!(
                quiet.failures.is_empty() && disturbed.failures.is_empty(),
                "{name}: quiet {quiet}; disturbed {disturbed}"
            );
            // A machine busy with something else: the round says too little.
            holds &= disturbed.latencies.len() > ENOUGH;
            holds &= disturbed.is_undisturbed(quiet);
            seen.push_str(&format!(
                "round {round}, {name}: quiet {quiet}; disturbed {disturbed}\n"
            ));
        }
        if holds {
            println!("{seen}");
            return;
        }
    }
    panic!("Foreman was disturbed:\n{seen}");
}
