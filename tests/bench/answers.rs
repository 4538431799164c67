//! Answers a second of `dns-builtin` beside BIND 9: the same zone of 10,000 hosts, the same questions, asked by `dnsperf` in turn.
//!
//! Both answer by UDP on loopback, and share the machine with `dnsperf`. Each server is measured three times; the median ratio counts, and the promise
//! is 0.3. A lost question or another share of response codes than BIND's is an error. The answers themselves are compared by a test (`interop`).

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, ExitCode};

use bulkhead_testkit::bind::{Bind, Setup};
use bulkhead_testkit::skip::program;
use bulkhead_testkit::zone;
use bulkhead_testkit::{Bulkhead, Configuration, Scratch, ports};

/// Seconds of one measurement.
const WINDOW: u32 = 5;
/// Measurements of each server.
const ROUNDS: usize = 3;
/// How many times as many answers as BIND gives.
const PROMISE: f64 = 0.3;

/// What `dnsperf` says.
struct Run {
    rate: f64,
    lost: u64,
    codes: BTreeMap<String, u64>,
}

/// Prints rates and ratio.
pub(crate) fn measure(check: bool) -> ExitCode {
    if program("dnsperf").is_none() {
        eprintln!("dnsperf is not installed: nothing measured");
        return if check {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        };
    }
    let bind = Bind::with(Setup {
        serves_large_zone: true,
        ..Setup::default()
    });
    let scratch = Scratch::new();
    scratch.file(&format!("zones/{}.zone", zone::ZONE), zone::text());
    let questions: String = zone::host_questions()
        .iter()
        .map(|(name, kind)| format!("{name} {kind}\n"))
        .collect();
    let file = scratch.file("questions", questions);
    let port = ports::free();
    let directory = scratch.join("zones").display().to_string();
    let bulkhead = Bulkhead::with(Configuration::empty().dns_builtin(
        port,
        &[zone::ZONE],
        &format!("zone_directory = {directory:?}"),
    ));
    // Once without counting.
    ask(port, &file, 1);
    let mut ratios = Vec::new();
    for round in 1..=ROUNDS {
        let theirs = ask(bind.port, &file, WINDOW);
        let ours = ask(port, &file, WINDOW);
        println!(
            "round {round}: BIND {:.0} answers/s, dns-builtin {:.0} answers/s, {:.2} of it",
            theirs.rate,
            ours.rate,
            ours.rate / theirs.rate
        );
        assert_eq!(ours.lost, 0, "lost questions: {}", bulkhead.log());
        let share = |run: &Run, code: &str| {
            let all: u64 = run.codes.values().sum();
            *run.codes.get(code).unwrap_or(&0) as f64 / all.max(1) as f64
        };
        for code in theirs.codes.keys().chain(ours.codes.keys()) {
            let (their, our) = (share(&theirs, code), share(&ours, code));
            assert!((their - our).abs() < 0.02, "{code}: {their:.3}, {our:.3}");
        }
        ratios.push(ours.rate / theirs.rate);
    }
    ratios.sort_by(f64::total_cmp);
    let median = ratios[ROUNDS / 2];
    let kept = median >= PROMISE;
    println!(
        "median {median:.2} of BIND, promised {PROMISE}: {}",
        if kept { "kept" } else { "BROKEN" }
    );
    if check && !kept {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn ask(port: u16, file: &Path, seconds: u32) -> Run {
    let output = Command::new("dnsperf")
        .args(["-s", "127.0.0.1", "-p", &port.to_string()])
        .args(["-c", "8", "-q", "200", "-l", &seconds.to_string(), "-d"])
        .arg(file)
        .output()
        .expect("dnsperf can be started");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let after = |label: &str| {
        text.lines()
            .find_map(|line| line.trim().strip_prefix(label))
            .unwrap_or_else(|| panic!("no `{label}` in {text}{output:?}"))
            .trim()
            .to_owned()
    };
    let first = |text: &str| text.split_whitespace().next().unwrap_or("").to_owned();
    let codes = after("Response codes:");
    let codes = codes.split(',').filter_map(|part| {
        let mut words = part.split_whitespace();
        Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
    });
    Run {
        rate: first(&after("Queries per second:")).parse().unwrap(),
        lost: first(&after("Queries lost:")).parse().unwrap(),
        codes: codes.collect(),
    }
}
