//! ISC's files: how fast a large leases file is ready, what it costs, and how soon a change is seen.
//!
//! `cargo bench -p bulkhead-proxy --bench dhcp` prints a table. No dhcpd is needed: the files are made here.
//!
//! | Figure | Promise |
//! |---|---|
//! | 200,000 leases ready, in the sandbox | within 1.5 s |
//! | memory of that plugin | at most 128 MiB |
//! | an appended lease is seen | within 100 ms |
//! | one record among 100,000, whole request | at most 1 ms of plugin time; the request is printed, which is more |

// A measurement may fail loudly.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::fs;
use std::io::Write as _;
use std::time::{Duration, Instant};

use bulkhead_testkit::dhcpd::many_leases;
use bulkhead_testkit::{Bulkhead, Configuration};

fn main() {
    println!("| Leases | File | Ready | Memory | Appended, seen | One record: p50, p99 |");
    println!("|---|---|---|---|---|---|");
    for count in [20_000, 100_000, 200_000] {
        measure(count);
    }
}

fn measure(count: u32) {
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
    let ready = read
        .split("bytes in ")
        .nth(1)
        .unwrap_or_default()
        .split(" ms")
        .next()
        .unwrap_or_default()
        .to_owned();
    let metrics = bulkhead.admin().get("/metrics").text();
    let memory = metrics
        .lines()
        .find(|line| line.starts_with("bulkhead_memory_bytes{plugin=\"dhcp-isc\"}"));
    let memory: f64 = memory
        .and_then(|line| line.rsplit(' ').next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0.0);
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
    let mut gets: Vec<Duration> = (0..1_000)
        .map(|turn| {
            let begun = Instant::now();
            assert_eq!(record(turn * 7 % count).status, 200);
            begun.elapsed()
        })
        .collect();
    gets.sort_unstable();
    println!(
        "| {count} | {} MB | {ready} ms | {:.1} MiB | {:.1} ms | {:.2} ms, {:.2} ms |",
        bytes / 1_000_000,
        memory / 1_048_576.0,
        seen.iter().max().unwrap().as_secs_f64() * 1e3,
        gets[500].as_secs_f64() * 1e3,
        gets[990].as_secs_f64() * 1e3,
    );
}
