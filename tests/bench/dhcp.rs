//! ISC's files: how fast a large leases file is ready, what it costs, and how soon a change is seen. And the exchanges of `dhcp-builtin` with its
//! clients, in `exchanges.rs`.
//!
//! `cargo bench -p bulkhead-proxy --bench dhcp` prints a table. No dhcpd is needed: the files are made here. `-- leases` and `-- perfdhcp` measure one
//! half; with `-- --check` a broken promise is exit code 1.
//!
//! | Figure | Promise |
//! |---|---|
//! | 200,000 leases ready, in the sandbox | within 1.5 s |
//! | memory of that plugin | at most 128 MiB |
//! | an appended lease is seen | within 100 ms |
//! | one record among 100,000 | at most 1 ms of plugin time. What the program counts from head to head is printed and held to it, both plugins, their
//! queues and the call between them included; beside it the whole request, with a TLS connection of its own |

// A measurement may fail loudly.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod exchanges;
mod table;

use std::fs;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bulkhead_testkit::dhcpd::many_leases;
use bulkhead_testkit::{Bulkhead, Configuration};

use table::{Promise, Table};

fn main() -> ExitCode {
    let asked = |word: &str| std::env::args().any(|argument| argument == word);
    let mut table = Table::default();
    if !asked("perfdhcp") {
        for count in [20_000, 100_000, 200_000] {
            measure(&mut table, count);
        }
    }
    if !asked("leases") {
        exchanges::measure(&mut table);
    }
    println!("\n{table}");
    ExitCode::from(u8::from(asked("--check") && table.is_broken()))
}

fn measure(table: &mut Table, count: u32) {
    let configuration = Configuration::empty();
    let config = configuration
        .scratch
        .file("dhcpd.conf", "subnet 10.0.0.0 netmask 255.0.0.0 { }\n");
    let leases = configuration
        .scratch
        .file("dhcpd.leases", many_leases(count));
    let bytes = fs::metadata(&leases).unwrap().len();
    let path = |path: &std::path::Path| format!("{:?}", path.display().to_string());
    let configuration = configuration
        .feature(
            "dhcp",
            "enabled = true\nuse_provider = \"dhcp-isc\"\nping_free_ip = false",
        )
        .feature(
            "dhcp-isc",
            &format!(
                "enabled = true\nconfig = {}\nleases = {}",
                path(&config),
                path(&leases)
            ),
        );
    let bulkhead = Bulkhead::with(configuration);
    let target = bulkhead.foreman();
    let record = |number: u32| {
        target.get(&format!(
            "/dhcp/10.0.0.0/ip/{}",
            bulkhead_testkit::dhcpd::lease_address(number)
        ))
    };
    let begun = Instant::now();
    while record(count - 1).status != 200 {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "{}",
            bulkhead.log()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    let read = bulkhead.log_lines("bytes in").pop().unwrap_or_default();
    let ready: f64 = read
        .split("bytes in ")
        .nth(1)
        .unwrap_or_default()
        .split(" ms")
        .next()
        .unwrap_or_default()
        .parse()
        .unwrap();
    let memory = bulkhead.plugin_memory("dhcp-isc") as f64;
    let mut seen = Vec::new();
    for number in 0..20 {
        let mut file = fs::File::options().append(true).open(&leases).unwrap();
        let appended = many_leases(1)
            .replace("10.0.0.1 ", &format!("10.200.0.{number} "))
            .replace("02:00:00:00:00:01", &format!("02:ff:00:00:00:{number:02x}"));
        let begun = Instant::now();
        file.write_all(appended.as_bytes()).unwrap();
        while target
            .get(&format!("/dhcp/10.0.0.0/ip/10.200.0.{number}"))
            .status
            != 200
        {}
        seen.push(begun.elapsed());
    }
    let before = within_the_program(&bulkhead);
    let mut gets: Vec<Duration> = (0..1_000)
        .map(|turn| {
            let begun = Instant::now();
            assert_eq!(record(turn * 7 % count).status, 200);
            begun.elapsed()
        })
        .collect();
    let after = within_the_program(&bulkhead);
    let inside = (after.0 - before.0) / (after.1 - before.1) * 1e3;
    gets.sort_unstable();
    let promised = |most: f64, at: u32| match count == at {
        true => Promise::AtMost(most),
        false => Promise::Printed,
    };
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    let name = |what: &str| format!("{count} leases, {} MB: {what}", bytes / 1_000_000);
    table.add(&name("ready"), ready, promised(1_500.0, 200_000), "ms");
    table.add(
        &name("memory"),
        memory / 1_048_576.0,
        promised(128.0, 200_000),
        "MiB",
    );
    table.add(
        &name("an appended one is seen"),
        millis(*seen.iter().max().unwrap()),
        Promise::AtMost(100.0),
        "ms",
    );
    table.add(
        &name("one record, mean within the program"),
        inside,
        promised(1.0, 100_000),
        "ms",
    );
    table.add(
        &name("    p50 of the request"),
        millis(gets[500]),
        Promise::Printed,
        "ms",
    );
    table.add(&name("    p99"), millis(gets[990]), Promise::Printed, "ms");
}

/// Seconds from the heads of requests to the heads of their answers, and how many those were.
fn within_the_program(bulkhead: &Bulkhead) -> (f64, f64) {
    let metrics = bulkhead.admin().get("/metrics").text();
    let number = |what: &str| -> f64 {
        let line = format!("bulkhead_request_duration_seconds_{what}{{plugin=\"dhcp\"}} ");
        let found = metrics.lines().find_map(|it| it.strip_prefix(&line));
        found.expect("the program counts it").parse().unwrap()
    };
    (number("sum"), number("count"))
}
