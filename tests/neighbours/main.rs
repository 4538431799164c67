//! Neighbours of a hostile plugin: how little they notice, measured.
//!
//! The neighbour is TFTP, called as Foreman calls it. Its p99 under each misdeed stays within twice its quiet p99, or 5 ms
//! above it, whichever is more, and no call fails. A misdeed that disturbs is tried again beside a new quiet figure.
//!
//! A suite of its own, one test at a time: cargo runs suites one after another, so nothing else takes the cores while it measures.

// A test may fail loudly.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[path = "../faults/attack.rs"]
mod attack;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bulkhead_testkit::load::{Load, Measured};
use bulkhead_testkit::{Bulkhead, Configuration};

use attack::{Attack, LIMITS};

static ALONE: Mutex<()> = Mutex::new(());

/// What the fixture does on request.
const MISDEEDS: [&str; 11] = [
    "loop",
    "spin-memcpy",
    "memory-bomb",
    "trap",
    "panic",
    "big-reply",
    "hang",
    "handles",
    "bad-header",
    "log-flood",
    "stdout-flood",
];

/// How long each measurement goes on.
const WINDOW: Duration = Duration::from_secs(4);
/// Other work of the machine shows in some rounds; what the program does to its neighbours shows in all.
const ROUNDS: usize = 3;

fn start() -> Bulkhead {
    let wasm = bulkhead_fixtures::wasm("hostile");
    Bulkhead::with(Configuration::standard().plugin("hostile", wasm, LIMITS))
}

fn neighbour(bulkhead: &Bulkhead) -> Measured {
    Load::calm(WINDOW).get(&bulkhead.foreman(), "/tftp/serverName")
}

fn neighbours_stay_fast(audience: &str) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let bulkhead = start();
    // Warm: the first calls make instances.
    Load::calm(Duration::from_secs(1)).get(&bulkhead.foreman(), "/tftp/serverName");
    let mut quiet = neighbour(&bulkhead);
    println!("quiet: {quiet}");
    let mut slow = Vec::new();
    for misdeed in MISDEEDS {
        let mut rounds = String::new();
        let stays_fast = (1..=ROUNDS).any(|round| {
            if round > 1 {
                quiet = neighbour(&bulkhead);
            }
            let attack = Attack::begin(&bulkhead, audience, misdeed);
            let under = neighbour(&bulkhead);
            let attacks = attack.end();
            println!("under {attacks:5} {misdeed} ({audience}): {under}");
            assert!(attacks > 0);
            assert!(under.failures.is_empty(), "{misdeed}: {under}");
            rounds.push_str(&format!("{misdeed}: quiet {quiet}; under it {under}\n"));
            under.is_undisturbed(&quiet)
        });
        if !stays_fast {
            slow.push(rounds);
        }
    }
    assert!(slow.is_empty(), "Neighbours noticed:\n{}", slow.concat());
}

#[test]
fn neighbours_stay_fast_under_public_misdeeds() {
    neighbours_stay_fast("public");
}

#[test]
fn neighbours_stay_fast_under_misdeeds_of_foremans_own_plugins() {
    neighbours_stay_fast("foreman");
}
