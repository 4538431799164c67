//! A plugin that loops, hangs, traps, panics, floods or takes whatever it can get: it harms itself alone. How little its neighbours
//! notice is measured in `tests/neighbours`.

use std::time::{Duration, Instant};

use bulkhead_testkit::program::Shared;
use bulkhead_testkit::{Bulkhead, Configuration, Response, assert_eventually};

use crate::attack::{Attack, LIMITS, door};

static BULKHEAD: Shared = Shared::new(start);

/// What the fixture does on request, and what its caller gets.
const MISDEEDS: [(&str, &[u16]); 9] = [
    ("loop", &[504]),
    ("spin-memcpy", &[504]),
    ("memory-bomb", &[500]),
    ("trap", &[500]),
    ("panic", &[500]),
    ("big-reply", &[500]),
    ("hang", &[504]),
    ("handles", &[500, 200]),
    ("bad-header", &[500]),
];

fn start() -> Bulkhead {
    let wasm = bulkhead_fixtures::wasm("hostile");
    Bulkhead::with(Configuration::standard().plugin("hostile", wasm, LIMITS))
}

/// Each misdeed costs that request alone: an error with the request's id, and the reason only in the log.
#[test]
fn each_misdeed_costs_its_own_request() {
    let bulkhead = BULKHEAD.get();
    for audience in ["foreman", "public"] {
        let target = door(&bulkhead, audience);
        for (misdeed, statuses) in MISDEEDS {
            let id = format!("{misdeed}-{audience}");
            let path = format!("/hostile/{audience}/{misdeed}");
            let answer = target
                .request("GET", &path)
                .header("X-Request-Id", &id)
                .send();
            assert!(statuses.contains(&answer.status), "{path}: {answer}");
            if answer.status >= 500 {
                assert_discreet(&answer, &id);
                // What the log calls it is for people; that it names plugin and request is for finding it.
                assert_eventually!(
                    bulkhead
                        .log()
                        .lines()
                        .any(|line| line.contains(&id[..8.min(id.len())])
                            && line.contains("hostile")),
                    "{path}: nothing in the log"
                );
            }
            let fine = target.get(&format!("/hostile/{audience}/fine"));
            assert_eq!(
                (fine.status, fine.text().as_str()),
                (200, "fine"),
                "after {misdeed}: {fine}"
            );
        }
    }
}

#[track_caller]
fn assert_discreet(answer: &Response, id: &str) {
    assert!(answer.text().contains(id), "no request id: {answer}");
    for inside in [
        "wasm",
        "unreachable",
        "panicked",
        "backtrace",
        ".rs",
        "on request",
        "memory",
        "epoch",
        "fuel",
    ] {
        assert!(
            !answer.text().replace(id, "").contains(inside),
            "{inside:?} is shown: {answer}"
        );
    }
    assert_eq!(answer.header("set-cookie"), None, "{answer}");
}

/// A client that leaves cancels nothing, and a call that hangs ends at its deadline: whatever happened, the plugin answers again.
#[test]
fn a_plugin_recovers_from_everything() {
    let bulkhead = start();
    for (misdeed, _) in MISDEEDS {
        let target = bulkhead.hosts();
        // Left at once: the client does not wait.
        for _ in 0..40 {
            let _ = target.send(
                target
                    .request("GET", &format!("/hostile/public/{misdeed}"))
                    .bytes(),
            );
        }
        assert_eventually!(
            target
                .request("GET", "/hostile/public/fine")
                .try_send()
                .is_ok_and(|answer| answer.status == 200),
            "the plugin does not answer after {misdeed}"
        );
    }
}

/// More calls than a plugin may have wait for their turn for a bounded time; the others are told to come back.
#[test]
fn calls_beyond_the_limits_are_503_with_retry_after() {
    let wasm = bulkhead_fixtures::wasm("hostile");
    let limits =
        "[limits]\ntime = \"12s\"\ncpu = \"3s\"\nconcurrency = 2\nqueue = 2\nqueue-time = \"2s\"";
    let bulkhead = Bulkhead::with(Configuration::standard().plugin("hostile", wasm, limits));
    let target = bulkhead.hosts();
    let hanging: Vec<_> = (0..2)
        .map(|_| {
            target
                .send(target.request("GET", "/hostile/public/hang").bytes())
                .unwrap()
        })
        .collect();
    std::thread::sleep(Duration::from_millis(700));
    let start = Instant::now();
    let waited = target.get("/hostile/public/fine");
    assert_eq!(waited.status, 503, "{waited}");
    let after = waited
        .header("retry-after")
        .and_then(|value| value.parse::<u32>().ok());
    assert!(after.is_some_and(|seconds| seconds >= 1), "{waited}");
    let waiting = start.elapsed();
    assert!(
        waiting >= Duration::from_millis(1_900) && waiting < Duration::from_secs(6),
        "it waited {waiting:?}"
    );
    // Two wait, the third is refused at once.
    let queued: Vec<_> = (0..2)
        .map(|_| {
            target
                .send(target.request("GET", "/hostile/public/fine").bytes())
                .unwrap()
        })
        .collect();
    std::thread::sleep(Duration::from_millis(400));
    let start = Instant::now();
    assert_eq!(target.get("/hostile/public/fine").status, 503);
    assert!(
        start.elapsed() < Duration::from_millis(1_200),
        "{:?}",
        start.elapsed()
    );
    drop((hanging, queued));
    assert_eq!(
        bulkhead.foreman().get("/tftp/serverName").status,
        200,
        "other plugins do not queue behind it"
    );
}

/// What ended leaves nothing behind: memory and descriptors after a second round of everything are those after the first.
#[test]
fn misdeeds_leave_nothing_behind() {
    let bulkhead = start();
    let round = || {
        for (misdeed, _) in MISDEEDS {
            for audience in ["public", "foreman"] {
                let attack = Attack::begin(&bulkhead, audience, misdeed);
                std::thread::sleep(Duration::from_millis(700));
                attack.end();
            }
        }
        // The last calls end at their deadline.
        std::thread::sleep(Duration::from_secs(3));
    };
    round();
    let first = bulkhead.usage();
    round();
    assert_eventually!(
        bulkhead.usage().descriptors <= first.descriptors + 8,
        "descriptors: {} then {}",
        first.descriptors,
        bulkhead.usage().descriptors
    );
    let second = bulkhead.usage();
    println!(
        "resident after one round {} MiB, after two {} MiB",
        first.resident >> 20,
        second.resident >> 20
    );
    assert!(
        second.resident <= first.resident + (32 << 20),
        "{first:?} {second:?}"
    );
}

/// Log lines of a flooding plugin are counted instead of printed, and other plugins' lines are not lost in them.
#[test]
fn log_floods_are_counted() {
    let bulkhead = start();
    let target = bulkhead.hosts();
    let before = bulkhead.log().lines().count();
    for flood in ["log-flood", "stdout-flood"] {
        let _ = target
            .request("GET", &format!("/hostile/public/{flood}"))
            .try_send();
    }
    bulkhead.foreman().get("/tftp/PXEGrub2/after-the-flood");
    assert_eventually!(!bulkhead.log_lines("after-the-flood").is_empty());
    let lines = bulkhead.log().lines().count() - before;
    assert!(lines < 3_000, "{lines} lines were printed");
    let longest = bulkhead
        .log()
        .lines()
        .map(str::len)
        .max()
        .unwrap_or_default();
    assert!(longest < 8 * 1024, "a line of {longest} bytes was printed");
}
