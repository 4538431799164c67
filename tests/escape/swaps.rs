//! A plugin is replaced again and again while it is asked: no request fails, bad versions never serve, and memory stays flat.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bulkhead_testkit::load::Load;
use bulkhead_testkit::{Bulkhead, Configuration, assert_eventually};

use crate::masks::{digest, masked};

/// Replacements, bad ones not counted.
const SWAPS: usize = 100;

/// After each of so many, a bad version comes between.
const BAD_EVERY: usize = 10;

/// What a hundred versions may leave behind. One version has four warm instances of 1.1 MiB, and its code.
const GROWTH: u64 = 48 << 20;

#[test]
fn a_hundred_swaps_under_load_lose_no_request() {
    // Versions come back: their code is cached, as it is for an operator who goes back and forth.
    let good: Vec<Vec<u8>> = (0..4)
        .map(|n| {
            masked(&format!(
                "name=mask;mount=/mask;song=version {n};audience=public;"
            ))
        })
        .collect();
    let bad = [
        masked("name=mask;mount=/mask;song=bad;audience=public;start=fails;"),
        masked("name=mask;mount=/mask;song=bad;audience=public;describe=lies;"),
        masked("name=mask;mount=/mask;song=bad;audience=public;describe=dies;"),
        masked("name=mask;mount=/mask;song=bad;audience=public;need=never;"),
        b"no component at all".to_vec(),
    ];
    let digests: Vec<String> = good.iter().chain(&bad).map(|wasm| digest(wasm)).collect();
    let configuration = Configuration::standard()
        .plugin("mask", &good[0], "")
        .policy("mask", &format!("approved = {digests:?}"));
    let bulkhead = Bulkhead::with(configuration);
    let scratch = bulkhead.configuration.scratch.clone();
    let target = bulkhead.hosts();
    let put = |wasm: &[u8]| {
        let new = scratch.file("plugins/.new", wasm);
        fs::rename(new, scratch.join("plugins/mask.wasm")).unwrap();
    };
    let serves = |song: &str| target.get("/mask/song").text() == song;
    let stop = Arc::new(AtomicBool::new(false));
    let load = std::thread::spawn({
        let (target, stop) = (target.clone(), stop.clone());
        move || {
            let load = Load {
                rest: Duration::from_millis(40),
                ..Load::full(64, Duration::from_secs(300))
            };
            load.run(&target, &target.request("GET", "/mask/song").bytes(), &stop)
        }
    });
    let mut early = 0;
    for swap in 1..=SWAPS {
        if swap % BAD_EVERY == 0 {
            let refusals = bulkhead.log_lines("plugin does not run").len();
            put(&bad[(swap / BAD_EVERY) % bad.len()]);
            let refused = || bulkhead.log_lines("plugin does not run").len() > refusals;
            assert_eventually!(refused(), "the bad version of swap {swap} is not told");
            assert!(!serves("bad"), "a bad version serves after swap {swap}");
        }
        let version = swap % good.len();
        put(&good[version]);
        assert_eventually!(
            serves(&format!("version {version}")),
            "swap {swap} never came:\n{}",
            bulkhead.log()
        );
        if swap == SWAPS / 4 {
            early = bulkhead.usage().resident;
        }
    }
    stop.store(true, Ordering::Relaxed);
    let measured = load.join().unwrap();
    println!(
        "{SWAPS} swaps, {} requests, {} failed, resident {early} then {}",
        measured.latencies.len(),
        measured.failures.len(),
        bulkhead.usage().resident
    );
    assert!(
        measured.failures.is_empty(),
        "{:?}",
        &measured.failures[..measured.failures.len().min(5)]
    );
    assert!(measured.latencies.len() > SWAPS, "there was no load");
    // Old versions end their calls and go; give the last ones a moment.
    assert_eventually!(
        bulkhead.usage().resident < early + GROWTH,
        "memory grew from {early} to {}",
        bulkhead.usage().resident
    );
}
