//! The DNS run: records through HTTP, beside the same records by `nsupdate`, one process a change, as they were written before.
//!
//! `cargo bench -p bulkhead-proxy --bench dns` starts one BIND 9 and prints pairs (one creation and one removal) a second: by
//! `nsupdate` processes one after another, and through `bulkhead` by 16 clients at once, each change an HTTP request on a connection of its
//! own. Both sides are measured in turn, three rounds, on the same server and zone with the same key; the median ratio counts. The
//! promise is 20; with `-- --check` less is exit code 1. Without BIND, nothing is measured, and that is exit code 1 with `--check`.
//!
//! With `-- builtin` the server `dns-builtin` is measured beside BIND instead (see [`answers`]).

// A measurement may fail loudly.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod answers;

use std::io::Write as _;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bulkhead_testkit::bind::Bind;
use bulkhead_testkit::{Bulkhead, Configuration, Target};

/// Clients at once.
const CLIENTS: usize = 16;
/// Time of one measurement.
const WINDOW: Duration = Duration::from_secs(4);
/// Measurements of each side.
const ROUNDS: usize = 3;
/// How many times as many pairs as `nsupdate` makes.
const PROMISE: f64 = 20.0;
/// The key that both sign with.
const KEY: &str = "hmac-sha256";

fn main() -> ExitCode {
    let check = std::env::args().any(|argument| argument == "--check");
    if !Bind::is_installed() {
        eprintln!("BIND (named, dig, nsupdate) is not installed: nothing measured");
        return if check {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        };
    }
    if std::env::args().any(|argument| argument == "builtin") {
        return answers::measure(check);
    }
    let bind = Bind::start();
    let servers = [bind.address().to_string()];
    let bulkhead =
        Bulkhead::with(Configuration::empty().dns_rfc2136(&servers, Some(bind.key_file(KEY))));
    let before = bind.transfer("example.net");
    let mut ratios = Vec::new();
    // Once without counting: caches, warm instances.
    through_http(&bulkhead.foreman(), WINDOW / 4);
    for round in 1..=ROUNDS {
        let alone = by_nsupdate(&bind, WINDOW);
        let http = through_http(&bulkhead.foreman(), WINDOW);
        println!(
            "round {round}: nsupdate {alone:.1} pairs/s, bulkhead {http:.1} pairs/s, {:.1} times",
            http / alone
        );
        ratios.push(http / alone);
    }
    assert_eq!(
        bind.transfer("example.net"),
        before,
        "records were left or lost"
    );
    ratios.sort_by(f64::total_cmp);
    let median = ratios[ROUNDS / 2];
    let kept = median >= PROMISE;
    println!(
        "median {median:.1} times, promised {PROMISE}: {}",
        if kept { "kept" } else { "BROKEN" }
    );
    if check && !kept {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// Pairs a second by one process a change, one after another.
fn by_nsupdate(bind: &Bind, window: Duration) -> f64 {
    let change = |line: &str| {
        let mut child = Command::new("nsupdate")
            .arg("-k")
            .arg(bind.key_file(KEY))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("nsupdate can be started");
        let text = format!("server 127.0.0.1 {}\n{line}\nsend\n", bind.port);
        child
            .stdin
            .take()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        assert!(child.wait().unwrap().success(), "nsupdate fails");
    };
    let begun = Instant::now();
    let mut pairs = 0_u32;
    while begun.elapsed() < window {
        change(&format!(
            "update add n{pairs}.example.net. 86400 A 192.0.2.1"
        ));
        change(&format!("update delete n{pairs}.example.net. A"));
        pairs += 1;
    }
    f64::from(pairs) / begun.elapsed().as_secs_f64()
}

/// Pairs a second by all clients together; each change has to succeed.
fn through_http(target: &Target, window: Duration) -> f64 {
    let (begun, pairs) = (Instant::now(), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let pairs = &pairs;
            scope.spawn(move || {
                for number in 0.. {
                    if begun.elapsed() >= window {
                        break;
                    }
                    let name = format!("h{client}-{number}.example.net");
                    let fields = [
                        ("fqdn", name.as_str()),
                        ("value", "192.0.2.1"),
                        ("type", "A"),
                    ];
                    target.post("/dns/", &fields).assert_status(200);
                    target.delete(&format!("/dns/{name}/A")).assert_status(200);
                    pairs.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    pairs.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64()
}
