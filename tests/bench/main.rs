//! The load run: what a sandbox costs, measured against a native axum route behind the same listener stack, in the same process.
//!
//! `cargo bench -p bulkhead-proxy --bench load` prints a table: figure, promise, verdict. With `-- --check` a broken promise is
//! exit code 1. `-- bridge`, `-- idle` and `-- streams` measure a part of it (book, "Measuring"). Figures are of this machine on this day; the ratios are what is promised, so both sides of a ratio are measured
//! in turn, several rounds, and the median ratio counts. Client and server share the machine, as they did when the promises were
//! made: on two cores each has about one.
//!
//! | Figure | Promise |
//! |---|---|
//! | pooled component route, 64 connections | at least 0.65 of native |
//! | fresh-instance component route | at least 0.16 of native |
//! | `/v2/features` | at least 0.8 of native |
//! | 100 MB `file` answer | at least 0.9 of a native file route's rate |
//! | 1 GiB body through `/register`, either way | at least 0.6 of a native reverse proxy, at most 16 MiB above idle |
//! | a call between two plugins, 200 bytes, beyond the same work in one | at most 8 µs |
//! | ready with a warm cache, cold | within 0.5 s, 15 s |
//! | resident memory at idle, all bundled plugins, after either start | at most 48 MiB |
//! | new mutual-TLS connections with one GET each | printed |

// A measurement may fail loudly.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod bridge;
mod idle;
mod native;
mod streams;
mod table;

use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use bulkhead_testkit::load::{Load, Measured};
use bulkhead_testkit::{Bulkhead, Configuration, Target};

use table::{Promise, Table};

/// Connections of the throughput figures.
const CONNECTIONS: usize = 64;

/// One measurement.
const WINDOW: Duration = Duration::from_secs(3);

/// Rounds of each ratio.
const ROUNDS: usize = 3;

/// Bytes of the large file.
const LARGE: usize = 100_000_000;

/// The product's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if let Some(exit) = native::be_the_product_if_asked() {
        return exit;
    }
    let asked = |word: &str| std::env::args().any(|argument| argument == word);
    let part = ["bridge", "idle", "streams"].into_iter().any(asked);
    let mut table = Table::default();
    if !part || asked("bridge") {
        bridge::measure(&mut table);
    }
    if !part || asked("idle") {
        idle::measure(&mut table);
    }
    if !part || asked("streams") {
        streams::measure(&mut table);
    }
    if !part {
        throughput(&mut table);
    }
    println!("\n{table}");
    if asked("--check") && table.is_broken() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn throughput(table: &mut Table) {
    // Everything by default, and the fixture whose one function answers on a pooled and on a fresh route.
    let configuration = Configuration::standard()
        .plugin("hostile", bulkhead_fixtures::wasm("hostile"), "")
        .section("[log]\nlevel = \"warn\"");
    let file = configuration.boot().join("large");
    fs::write(&file, vec![0x5a; LARGE]).expect("room for the large file");
    let (program, native) = native::start(configuration, &file);
    for path in ["/hostile/foreman/fine", "/tftp/serverName", "/v2/features"] {
        Load::full(CONNECTIONS, Duration::from_secs(1)).get(&program.foreman(), path);
    }
    routes(table, &program, &native);
    large_file(table, &program, &native);
    one_connection(table, &program, &native);
    new_connections(table, &program);
}

fn routes(table: &mut Table, program: &Bulkhead, native: &Target) {
    let plain = (native.clone(), "/native/json");
    for (name, target, path, least) in [
        (
            "pooled component route",
            program.foreman(),
            "/hostile/foreman/fine",
            Some(0.65),
        ),
        (
            "fresh component route",
            program.hosts(),
            "/hostile/public/fine",
            Some(0.16),
        ),
        ("/v2/features", program.foreman(), "/v2/features", Some(0.8)),
        (
            "/tftp/serverName (pooled, reads a setting)",
            program.foreman(),
            "/tftp/serverName",
            None,
        ),
    ] {
        let load = Load::full(CONNECTIONS, WINDOW);
        let (rates, ratio) = compare(&load, &(target, path), &plain, Measured::rate);
        table.add(
            &format!("{name}, {CONNECTIONS} connections"),
            rates.0,
            Promise::Printed,
            "/s",
        );
        table.add(
            "    a native route meanwhile",
            rates.1,
            Promise::Printed,
            "/s",
        );
        table.add(
            "    of native",
            ratio,
            least.map_or(Promise::Printed, Promise::AtLeast),
            "",
        );
    }
}

fn large_file(table: &mut Table, program: &Bulkhead, native: &Target) {
    let load = Load::full(4, WINDOW);
    let (rates, ratio) = compare(
        &load,
        &(program.hosts(), "/httpboot/large"),
        &(native.clone(), "/native/file"),
        |measured| measured.throughput() / 1e6,
    );
    table.add(
        "100 MB file answer, 4 connections",
        rates.0,
        Promise::Printed,
        "MB/s",
    );
    table.add(
        "    a native file route meanwhile",
        rates.1,
        Promise::Printed,
        "MB/s",
    );
    table.add("    of native", ratio, Promise::AtLeast(0.9), "");
}

fn one_connection(table: &mut Table, program: &Bulkhead, native: &Target) {
    let load = Load::full(1, WINDOW);
    for (name, target, path) in [
        ("native", native.clone(), "/native/json"),
        ("pooled", program.foreman(), "/hostile/foreman/fine"),
        ("fresh", program.hosts(), "/hostile/public/fine"),
    ] {
        let measured = successful(load.get(&target, path), path);
        let micros = |share| measured.percentile(share).as_micros() as f64;
        table.add(
            &format!("one connection, {name}, p50"),
            micros(0.5),
            Promise::Printed,
            "µs",
        );
        table.add(
            &format!("one connection, {name}, p99"),
            micros(0.99),
            Promise::Printed,
            "µs",
        );
    }
}

/// Foreman opens a new connection for every call.
fn new_connections(table: &mut Table, program: &Bulkhead) {
    let measured = successful(
        Load::reconnecting(8, WINDOW).get(&program.foreman_tls(), "/v2/features"),
        "mutual TLS",
    );
    table.add(
        "new mutual-TLS connections, one GET each",
        measured.rate(),
        Promise::Printed,
        "/s",
    );
    table.add(
        "    p99",
        measured.percentile(0.99).as_secs_f64() * 1e3,
        Promise::Printed,
        "ms",
    );
}

/// Measures two doors in turn; answers the medians of both and of their ratio.
fn compare(
    load: &Load,
    tested: &(Target, &str),
    against: &(Target, &str),
    figure: impl Fn(&Measured) -> f64,
) -> ((f64, f64), f64) {
    let measure =
        |(target, path): &(Target, &str)| figure(&successful(load.get(target, path), path));
    let rounds: Vec<(f64, f64)> = (0..ROUNDS)
        .map(|_| (measure(tested), measure(against)))
        .collect();
    let median_of = |pick: &dyn Fn(&(f64, f64)) -> f64| {
        median(&mut rounds.iter().map(pick).collect::<Vec<_>>())
    };
    let medians = (median_of(&|round| round.0), median_of(&|round| round.1));
    (medians, median_of(&|round| round.0 / round.1))
}

/// A figure with failures in it is none.
fn successful(measured: Measured, path: &str) -> Measured {
    assert!(
        measured.failures.is_empty() && !measured.latencies.is_empty(),
        "{path}: {measured}"
    );
    measured
}

fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
