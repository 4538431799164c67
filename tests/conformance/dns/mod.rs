//! contract/dns.md, against a real BIND 9 behind the provider `dns-rfc2136`, and against `dns-builtin`; `dig` says what was written.
//!
//! On purpose other than the original: an address with a mask, or a name of several lines, is refused; a dot at the end of a name
//! is fine; an alias beside other data is a conflict; a server that says no, or cannot be reached, is an error.

use std::process::Command;
use std::sync::{Arc, LazyLock, Mutex, Weak};

use bulkhead_testkit::bind::Bind;
use bulkhead_testkit::{Bulkhead, Configuration, ports, skip};
use serde_json::json;

use crate::{HTML, JSON};

/// The program and the server that holds its records.
struct Site {
    bulkhead: Bulkhead,
    server: Server,
}

enum Server {
    Bind(Bind),
    /// Inside the program, at this port.
    Builtin(u16),
}

static SITES: LazyLock<Mutex<Weak<[Site; 2]>>> = LazyLock::new(Mutex::default);

/// One of each for all tests that hold them.
fn sites() -> Arc<[Site; 2]> {
    let mut current = SITES
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(sites) = current.upgrade() {
        return sites;
    }
    let bind = Bind::start();
    let servers = [bind.address().to_string()];
    let key = Some(bind.key_file("hmac-sha256"));
    let port = ports::free();
    let zones = [
        "example.com",
        "example.net",
        "192.0.2.0/24",
        "2001:db8::/32",
    ];
    let sites = Arc::new([
        Site {
            bulkhead: Bulkhead::with(Configuration::empty().dns_rfc2136(&servers, key)),
            server: Server::Bind(bind),
        },
        Site {
            bulkhead: Bulkhead::with(Configuration::empty().dns_builtin(port, &zones, "")),
            server: Server::Builtin(port),
        },
    ]);
    *current = Arc::downgrade(&sites);
    sites
}

/// Holds for both.
fn each(promise: impl Fn(&Site)) {
    sites().iter().for_each(promise);
}

impl Site {
    /// `dig +short`, one value a line, sorted.
    fn dig(&self, name: &str, kind: &str) -> String {
        let text = self.dig_whole(&["+short", name, kind]);
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        lines.iter().map(|line| format!("{line}\n")).collect()
    }

    fn dig_whole(&self, arguments: &[&str]) -> String {
        let port = match &self.server {
            Server::Bind(bind) => bind.port,
            Server::Builtin(port) => *port,
        };
        let output = Command::new("dig")
            .args(["@127.0.0.1", "-p", &port.to_string(), "+time=5", "+tries=2"])
            .args(arguments)
            .output()
            .expect("dig can be started");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn provider(&self) -> &'static str {
        match &self.server {
            Server::Bind(_) => "dns-rfc2136",
            Server::Builtin(_) => "dns-builtin",
        }
    }

    #[track_caller]
    fn create(&self, fqdn: &str, value: &str, kind: &str, status: u16, text: &str) {
        let fields = [("fqdn", fqdn), ("value", value), ("type", kind)];
        let media = if status == 200 { HTML } else { JSON };
        self.bulkhead
            .foreman()
            .post("/dns/", &fields)
            .assert_is(status, media, text);
    }

    #[track_caller]
    fn remove(&self, path: &str, status: u16, text: &str) {
        let media = if status == 200 { HTML } else { JSON };
        self.bulkhead
            .foreman()
            .delete(path)
            .assert_is(status, media, text);
    }
}

macro_rules! need_bind {
    () => {
        if !Bind::is_installed() {
            skip!("BIND (named, dig, nsupdate) is not installed");
        }
    };
}

mod creation;
mod removal;

/// What the server refuses, or has no zone for, is an error with its reason; nothing is claimed that was not written.
#[test]
fn the_servers_no_is_an_error() {
    need_bind!();
    each(|site| {
        let names: &[&str] = match site.server {
            Server::Bind(_) => &["a.closed.test", "a.nowhere.test", "a.broken.test"],
            Server::Builtin(_) => &["a.nowhere.test"],
        };
        for name in names.iter().copied() {
            let fields = [("fqdn", name), ("value", "192.0.2.1"), ("type", "A")];
            let answer = site.bulkhead.foreman().post("/dns/", &fields);
            assert_eq!(answer.status, 400, "{name}: {}", answer.text());
            assert!(
                answer.text().starts_with("Update errors: "),
                "{name}: {}",
                answer.text()
            );
            assert_eq!(site.dig(name, "A"), "");
        }
    });
}

/// What Foreman reads of the feature.
#[test]
fn the_feature_is_listed_with_its_provider() {
    need_bind!();
    each(|site| {
        let target = site.bulkhead.foreman();
        target
            .get("/features")
            .assert_is(200, JSON, "[\"dns\",\"logs\"]");
        let dns = &target.get("/v2/features").json()["dns"];
        assert_eq!(dns["state"], "running", "{dns}");
        assert_eq!(dns["capabilities"], json!([]));
        assert_eq!(dns["settings"], json!({"use_provider": site.provider()}));
    });
}

/// Foreman's audience, and nobody else's.
#[test]
fn only_foreman_may_write() {
    need_bind!();
    each(|site| {
        let fields = [
            ("fqdn", "x.example.com"),
            ("value", "192.0.2.1"),
            ("type", "A"),
        ];
        assert_eq!(
            site.bulkhead
                .foreman_tls_as(None)
                .post("/dns/", &fields)
                .status,
            403
        );
        assert_eq!(site.bulkhead.hosts().post("/dns/", &fields).status, 404);
        assert_eq!(site.dig("x.example.com", "A"), "");
        site.bulkhead
            .foreman_tls()
            .post("/dns/", &fields)
            .assert_is(200, HTML, "");
        assert_eq!(site.dig("x.example.com", "A"), "192.0.2.1\n");
    });
}

/// `dns_ttl` is what new records live; one that cannot be is named, and the feature is not shown as running.
#[test]
fn the_time_to_live_is_the_settings() {
    if bulkhead_testkit::skip::program("dig").is_none() {
        skip!("dig is not installed");
    }
    let port = ports::free();
    let configuration = |ttl: i64| {
        Configuration::empty()
            .dns_builtin(port, &["example.com"], "")
            .feature("dns", &format!("enabled = true\ndns_ttl = {ttl}"))
    };
    let site = Site {
        bulkhead: Bulkhead::with(configuration(77)),
        server: Server::Builtin(port),
    };
    site.create("ttl.example.com", "192.0.2.3", "A", 200, "");
    let line = site.dig_whole(&["+noall", "+answer", "ttl.example.com", "A"]);
    assert_eq!(line.split_whitespace().nth(1), Some("77"), "{line}");
    drop(site);
    let bulkhead = Bulkhead::with(configuration(-1));
    let dns = &bulkhead.foreman().get("/v2/features").json()["dns"];
    assert_eq!(dns["state"], "failed", "{dns}");
}

/// The server is not asked at the start: one that nobody runs changes nothing until a record is wanted. A key file that cannot be read does.
#[test]
fn the_start_needs_the_key_and_not_the_server() {
    let servers = [format!("127.0.0.1:{}", ports::free())];
    let state = |bulkhead: &Bulkhead| {
        let features = bulkhead.foreman().get("/v2/features").json();
        features["dns"]["state"].as_str().unwrap_or("").to_owned()
    };
    let bulkhead = Bulkhead::with(Configuration::empty().dns_rfc2136(&servers, None));
    assert_eq!(state(&bulkhead), "running");
    let fields = [
        ("fqdn", "s.example.com"),
        ("value", "192.0.2.1"),
        ("type", "A"),
    ];
    let answer = bulkhead.foreman().post("/dns/", &fields);
    assert_eq!(answer.status, 502, "{answer}");
    drop(bulkhead);
    let missing = Configuration::empty().scratch.join("missing.key");
    let bulkhead =
        Bulkhead::with(Configuration::empty().dns_rfc2136(&servers, Some(missing.clone())));
    let answer = bulkhead.foreman().post("/dns/", &fields);
    assert!([400, 503].contains(&answer.status), "{answer}");
    let said = bulkhead.log_lines("missing.key").join("\n");
    assert!(!said.is_empty(), "{}", bulkhead.log());
}
