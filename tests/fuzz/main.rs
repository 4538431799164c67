//! Texts that nobody would write, thrown at everything that reads texts of operators or plugins; and component files with broken bytes (`components`).
//!
//! Each target starts from good examples, breaks them at random, and holds the answer against an oracle: never a panic, never a
//! hang, and never a "yes" that a second opinion would deny. A failure prints the seed that repeats it:
//! `BULKHEAD_FUZZ_SEED=... cargo test --release --test fuzz`. `BULKHEAD_FUZZ_SECONDS` (default 2) is the time for each target;
//! CI gives more.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod components;
mod mutate;
mod targets;

use std::time::{Duration, Instant};

use mutate::Mutator;

/// Runs a target on broken examples until its time is over.
fn run(name: &str, examples: &[&str], target: fn(&str)) {
    let seconds = std::env::var("BULKHEAD_FUZZ_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(2);
    let first: u64 = std::env::var("BULKHEAD_FUZZ_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(rand::random);
    for example in examples {
        target(example);
    }
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut seed = first;
    let mut runs = 0_u64;
    while Instant::now() < end {
        let text = Mutator::new(seed).text(examples);
        let begun = Instant::now();
        if let Err(panic) = std::panic::catch_unwind(|| target(&text)) {
            eprintln!("target {name}, BULKHEAD_FUZZ_SEED={seed}, text {text:?}");
            std::panic::resume_unwind(panic);
        }
        let took = begun.elapsed();
        assert!(
            took < Duration::from_secs(2),
            "target {name}, BULKHEAD_FUZZ_SEED={seed}: {took:?} for {} bytes",
            text.len()
        );
        seed = seed.wrapping_add(1);
        runs += 1;
    }
    println!("target {name}: {runs} texts from seed {first}");
}

#[test]
fn policies() {
    run("policies", targets::POLICIES, targets::policy);
}

#[test]
fn policy_lines() {
    run("policy lines", targets::LINES, targets::line);
}

#[test]
fn urls() {
    run("urls", targets::URLS, targets::url);
}

#[test]
fn paths() {
    run("paths", targets::PATHS, targets::path);
}

#[test]
fn hosts_and_addresses() {
    run("hosts and addresses", targets::HOSTS, targets::host);
}

#[test]
fn socket_rules() {
    run("socket rules", targets::RULES, targets::rule);
}

#[test]
fn manifests() {
    run("manifests", targets::MANIFEST_WORDS, targets::manifest);
}

#[test]
fn answers_of_kea() {
    run("answers of Kea", targets::KEA, |text| {
        dhcp_kea_plugin::fuzz::answer(text);
        dhcp_kea_plugin::fuzz::configuration(text);
    });
}

#[test]
fn changes_that_wait_for_kea() {
    run(
        "waiting changes",
        targets::WAITING,
        dhcp_kea_plugin::fuzz::queued,
    );
}

#[test]
fn files_of_isc() {
    run(
        "dhcpd.conf",
        targets::DHCPD_CONF,
        dhcp_isc_plugin::fuzz::configuration,
    );
    run(
        "dhcpd.leases",
        targets::DHCPD_LEASES,
        dhcp_isc_plugin::fuzz::leases,
    );
}

#[test]
fn messages_of_omapi() {
    run("OMAPI", targets::OMAPI, dhcp_isc_plugin::fuzz::omapi);
}

#[test]
fn packets_of_dhcp_clients() {
    run(
        "DHCP",
        targets::DHCP,
        dhcp_builtin_plugin::fuzz::short_packet,
    );
}

#[test]
fn answers_of_powerdns() {
    run(
        "answers of PowerDNS",
        targets::POWERDNS,
        dns_powerdns_plugin::fuzz::answer,
    );
}

/// Each character is a byte.
#[test]
fn questions_to_dns_builtin() {
    run("DNS messages", targets::DNS, |text| {
        let bytes: Vec<u8> = text.chars().map(|it| it as u32 as u8).collect();
        dns_builtin_plugin::fuzz::message(&bytes);
    });
}

#[test]
fn zone_files() {
    run(
        "zone files",
        targets::ZONE_FILES,
        dns_builtin_plugin::fuzz::file,
    );
}
