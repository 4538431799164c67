//! `perfdhcp`: four-way exchanges a second, in a network of the run's own, with `dhcp-builtin`, Kea's memfile and dnsmasq in turn.
//!
//! `perfdhcp` plays a relay with as many new clients as exchanges, so each one is a new lease that has to be durable before its ACK (for Kea: as
//! durable as its memfile makes it, which never waits for the disk). It offers one rate after another; the greatest at which at most one
//! exchange in a hundred is lost is the figure.
//!
//! | Figure | Promise |
//! |---|---|
//! | `dhcp-builtin`, exchanges a second | at least 5,000 |
//! | the same with 5 ms more for each commit | at least 5,000 |
//! | of Kea's | at least 0.5 |
//!
//! The 5 ms come from a library that the program loads first, which delays `fdatasync`: a commit is two of them.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use bulkhead_testkit::kea::{Door, Kea, Setup};
use bulkhead_testkit::namespace::Namespace;
use bulkhead_testkit::{Bulkhead, Configuration, Scratch, preload, skip, slow_disk};
use serde_json::json;

use crate::table::{Promise, Table};

/// What is offered, exchanges a second.
const RATES: [u32; 8] = [1_000, 3_000, 5_100, 6_000, 7_500, 10_000, 12_500, 15_000];

/// Seconds at each rate.
const WINDOW: u32 = 4;

/// Microseconds for answers after the last question.
const STRAGGLERS: &str = "500000";

/// The most of all exchanges that may be lost at a rate that counts.
const LOST: f64 = 0.01;

/// The server's address on the wire, and the relay's.
const SERVER: &str = "10.0.0.1";
const RELAY: &str = "10.0.0.2";

/// What is handed out: a million addresses, so that no lease is used twice.
const POOL: (&str, &str) = ("10.0.1.0", "10.15.255.254");

/// What one rate came to.
#[derive(Debug, Clone, Copy)]
struct Exchanged {
    /// Whole exchanges a second.
    rate: f64,
    /// Of those begun, how many did not come to an end.
    lost: f64,
}

/// Measures all, and prints while it does.
pub(crate) fn measure(table: &mut Table) {
    for program in ["perfdhcp", "kea-dhcp4", "dnsmasq", preload::COMPILER] {
        assert!(
            skip::program(program).is_some(),
            "{program} is not installed"
        );
    }
    let kea = figure(table, "kea-dhcp4, memfile", Promise::Printed, |_| kea());
    figure(table, "dnsmasq", Promise::Printed, dnsmasq);
    let own = figure(table, "dhcp-builtin", Promise::AtLeast(5_000.0), |_| {
        builtin(&[])
    });
    table.add("    of Kea's", own / kea, Promise::AtLeast(0.5), "");
    // Half of it before each of the two.
    let scratch = Scratch::new();
    let library = slow_disk::library(Duration::from_micros(2_500), &scratch);
    let loaded = format!("LD_PRELOAD={}", library.display());
    let slow = ["env", &loaded];
    figure(
        table,
        "dhcp-builtin, 5 ms more for each commit",
        Promise::AtLeast(5_000.0),
        |_| builtin(&slow),
    );
}

/// The greatest rate of one server that counts.
fn figure<S>(
    table: &mut Table,
    name: &str,
    promise: Promise,
    start: impl FnOnce(&Namespace) -> S + Send,
) -> f64 {
    let (site, relay) = Namespace::new("perf")
        .zip(Namespace::new("relay"))
        .expect("network namespaces need root and `ip`");
    let address = |address: &str| format!("{address}/12");
    site.wire("dhcp0", &address(SERVER), &relay, "relay0", &address(RELAY));
    let best = site.inside(|| {
        let server = start(&site);
        wait_for(&relay);
        let mut best = 0.0_f64;
        for (turn, rate) in RATES.iter().enumerate() {
            let exchanged = offer(&relay, *rate, turn);
            println!(
                "    {name}: offered {rate}/s, done {:.0}/s, lost {:.2} %",
                exchanged.rate,
                exchanged.lost * 100.0
            );
            if exchanged.lost > LOST {
                break;
            }
            best = best.max(exchanged.rate);
        }
        drop(server);
        best
    });
    table.add(name, best, promise, "/s");
    best
}

/// One rate, with clients that nobody has seen before.
fn offer(relay: &Namespace, rate: u32, turn: usize) -> Exchanged {
    let output = relay
        .command("perfdhcp")
        .args(["-4", "-d", "1", "-W", STRAGGLERS])
        .args(["-r", &rate.to_string(), "-p", &WINDOW.to_string()])
        .args(["-R", &(rate * (WINDOW + 1)).to_string()])
        .args(["-b", &format!("mac=02:{turn:02x}:00:00:00:00")])
        .args(["-l", RELAY, SERVER])
        .output()
        .expect("perfdhcp can be started");
    let text = String::from_utf8_lossy(&output.stdout);
    read(&text).unwrap_or_else(|| panic!("what does this mean:\n{text}\n{output:?}"))
}

/// Out of what `perfdhcp` prints: a block a kind of exchange, `DISCOVER-OFFER` and `REQUEST-ACK`.
fn read(text: &str) -> Option<Exchanged> {
    let numbers = |name: &str| -> Vec<f64> {
        let of = |line: &str| line.strip_prefix(name)?.trim().parse().ok();
        text.lines().filter_map(of).collect()
    };
    let begun = *numbers("sent packets:").first()?;
    let done = *numbers("received packets:").get(1)?;
    Some(Exchanged {
        rate: done / f64::from(WINDOW),
        lost: 1.0 - done / begun.max(1.0),
    })
}

/// Until the server answers; each time somebody else asks, whom nobody takes for a flood.
fn wait_for(relay: &Namespace) {
    let end = Instant::now() + Duration::from_secs(30);
    for attempt in 0_u8.. {
        let output = relay
            .command("perfdhcp")
            .args(["-4", "-n", "1", "-r", "10", "-p", "1", "-W", "1000000"])
            .args(["-b", &format!("mac=06:{attempt:02x}:00:00:00:00")])
            .args(["-l", RELAY, SERVER])
            .output()
            .expect("perfdhcp can be started");
        // It does not wait for the last ACK, so an offer is enough.
        let text = String::from_utf8_lossy(&output.stdout);
        if text.lines().any(|line| line == "received packets: 1") {
            return;
        }
        assert!(Instant::now() < end, "no answer: {output:?}");
    }
}

fn kea() -> Kea {
    Kea::start(Setup {
        suite: None,
        door: Door::Agent,
        hooks: Vec::new(),
        credentials: None,
        interfaces: vec!["dhcp0"],
        dhcp4: json!({
            "valid-lifetime": 7200,
            "subnet4": [{ "id": 1, "subnet": "10.0.0.0/12", "pools": [{ "pool": format!("{} - {}", POOL.0, POOL.1) }] }],
            "loggers": [{ "name": "kea-dhcp4", "severity": "WARN", "output_options": [{ "output": "stderr" }] }],
        }),
    })
}

/// A dnsmasq that ends with this value.
struct Dnsmasq {
    child: Child,
    _place: Scratch,
}

fn dnsmasq(site: &Namespace) -> Dnsmasq {
    let place = Scratch::new();
    let child = site
        .command("dnsmasq")
        .args(["--no-daemon", "--conf-file=/dev/null", "--port=0"])
        .args(["--no-ping", "--quiet-dhcp", "--user=root", "--group=root"])
        .args(["--interface=dhcp0", "--bind-interfaces"])
        .arg("--dhcp-lease-max=1000000")
        .arg(format!(
            "--dhcp-leasefile={}",
            place.join("leases").display()
        ))
        .arg(format!("--dhcp-range={},{},255.240.0.0,2h", POOL.0, POOL.1))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("dnsmasq can be started");
    Dnsmasq {
        child,
        _place: place,
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Without the probe of new addresses, which the others do not do here either, and which a rush leaves out anyway.
fn builtin(under: &[&str]) -> Bulkhead {
    Bulkhead::with(
        Configuration::empty()
            .under(under)
            .section("[log]\nlevel = \"warn\"")
            .feature(
                "dhcp-builtin",
                &format!(
                    "enabled = true\ninterfaces = [\"dhcp0\"]\nprobe_time = 0\nlease_time = 7200\nsubnets = [\"10.0.0.0/12 range={}-{}\"]",
                    POOL.0, POOL.1
                ),
            ),
    )
}
