//! contract/dns.md, against a real BIND 9 behind the provider `dns-rfc2136`; `dig` says what was written.
//!
//! On purpose other than the original: an address with a mask, or a name of several lines, is refused; a dot at the end of a name
//! is fine; an alias beside other data is a conflict; a server that says no, or cannot be reached, is an error.

use std::sync::{Arc, LazyLock, Mutex, Weak};

use bulkhead_testkit::bind::Bind;
use bulkhead_testkit::{Bulkhead, Configuration, skip};
use serde_json::json;

use crate::{HTML, JSON};

/// BIND and the program before it.
struct Site {
    bulkhead: Bulkhead,
    bind: Bind,
}

static SITE: LazyLock<Mutex<Weak<Site>>> = LazyLock::new(Mutex::default);

/// One for all tests that hold it.
fn site() -> Arc<Site> {
    let mut current = SITE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(site) = current.upgrade() {
        return site;
    }
    let bind = Bind::start();
    let servers = [bind.address().to_string()];
    let bulkhead = Bulkhead::with(
        Configuration::empty().dns_rfc2136(&servers, Some(bind.key_file("hmac-sha256"))),
    );
    let site = Arc::new(Site { bulkhead, bind });
    *current = Arc::downgrade(&site);
    site
}

impl Site {
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

/// POST writes one record of each type, DELETE removes it; the answers are 200 and empty.
#[test]
fn each_type_is_created_and_removed() {
    need_bind!();
    let site = site();
    let v6 = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa";
    let rows = [
        (
            "t-a.example.com",
            "192.0.2.1",
            "A",
            "t-a.example.com",
            "192.0.2.1",
        ),
        (
            "t-a6.example.com",
            "2001:0db8:0::1",
            "AAAA",
            "t-a6.example.com",
            "2001:db8::1",
        ),
        (
            "t-c.example.com",
            "ns.example.com",
            "CNAME",
            "t-c.example.com",
            "ns.example.com.",
        ),
        (
            "t-p.example.com",
            "50.2.0.192.in-addr.arpa",
            "PTR",
            "50.2.0.192.in-addr.arpa",
            "t-p.example.com.",
        ),
        ("t-p6.example.com", v6, "PTR", v6, "t-p6.example.com."),
        (
            "_t._tcp.example.com",
            "0 5 5060 ns.example.com",
            "SRV",
            "_t._tcp.example.com",
            "0 5 5060 ns.example.com.",
        ),
    ];
    for (fqdn, value, kind, owner, seen) in rows {
        assert_eq!(site.bind.dig(owner, kind), "", "before {fqdn} {kind}");
        site.create(fqdn, value, kind, 200, "");
        assert_eq!(
            site.bind.dig(owner, kind),
            format!("{seen}\n"),
            "{fqdn} {kind}"
        );
        site.remove(&format!("/dns/{owner}/{kind}"), 200, "");
        assert_eq!(site.bind.dig(owner, kind), "", "after {fqdn} {kind}");
    }
}

/// `dns_ttl` is 86400 unless set.
#[test]
fn a_record_lives_one_day() {
    need_bind!();
    let site = site();
    site.create("ttl.example.com", "192.0.2.3", "A", 200, "");
    let line = site
        .bind
        .dig_whole(&["+noall", "+answer", "ttl.example.com", "A"]);
    assert_eq!(line.split_whitespace().nth(1), Some("86400"), "{line}");
}

/// The path without a slash does the same; the type may be of either case; the body wins over the query.
#[test]
fn the_path_may_lack_its_slash_and_the_type_be_lower_case() {
    need_bind!();
    let site = site();
    let fields = [
        ("fqdn", "Slash.Example.COM"),
        ("value", "192.0.2.4"),
        ("type", "a"),
    ];
    site.bulkhead
        .foreman()
        .post("/dns", &fields)
        .assert_is(200, HTML, "");
    assert_eq!(site.bind.dig("slash.example.com", "A"), "192.0.2.4\n");
}

/// All three are needed; an empty text counts as there.
#[test]
fn a_missing_field_is_400() {
    need_bind!();
    let site = site();
    let all = [
        ("fqdn", "m.example.com"),
        ("value", "192.0.2.5"),
        ("type", "A"),
    ];
    let words = "'create' requires fqdn, value, and type parameters";
    for missing in 0..3 {
        let fields: Vec<_> = all
            .iter()
            .enumerate()
            .filter(|(at, _)| *at != missing)
            .map(|(_, it)| *it)
            .collect();
        site.bulkhead
            .foreman()
            .post("/dns/", &fields)
            .assert_is(400, JSON, words);
    }
    site.bulkhead
        .foreman()
        .post("/dns/", &[])
        .assert_is(400, JSON, words);
    site.create("", "192.0.2.5", "A", 400, "Invalid DNS name ");
    site.create(
        "m.example.com",
        "192.0.2.5",
        "",
        400,
        "unrecognized 'type' parameter: ",
    );
    assert_eq!(site.bind.dig("m.example.com", "A"), "");
}

/// Whatever is not well-formed is refused with the contract's words, in the contract's order.
#[test]
fn what_is_not_well_formed_is_400() {
    need_bind!();
    let site = site();
    for (fqdn, value, kind, text) in [
        (
            "a_b.example.com",
            "192.0.2.1",
            "A",
            "Invalid DNS name a_b.example.com",
        ),
        (
            "-a.example.com",
            "192.0.2.1",
            "A",
            "Invalid DNS name -a.example.com",
        ),
        (
            "a..example.com",
            "192.0.2.1",
            "A",
            "Invalid DNS name a..example.com",
        ),
        (
            "a.example.com\nb.example.com",
            "192.0.2.1",
            "A",
            "Invalid DNS name a.example.com\nb.example.com",
        ),
        ("a.example.com", "", "A", "invalid address: "),
        (
            "a.example.com",
            "192.0.2.1/24",
            "A",
            "invalid address: 192.0.2.1/24",
        ),
        (
            "a.example.com",
            "2001:db8::1",
            "A",
            "address family mismatch",
        ),
        (
            "a.example.com",
            "192.0.2.1",
            "AAAA",
            "address family mismatch",
        ),
        ("a.example.com", "a_b", "CNAME", "Invalid DNS name a_b"),
        (
            "a.example.com",
            "a_b.ip6.arpa",
            "PTR",
            "Invalid DNS name a_b.ip6.arpa",
        ),
        (
            "a.example.com",
            "b.example.com",
            "PTR",
            "Invalid reverse DNS b.example.com",
        ),
        (
            "_a b.example.com",
            "0 5 1 a.b",
            "SRV",
            "Invalid DNS srv name _a b.example.com",
        ),
        (
            "_a.example.com",
            "0 5 0 a.b",
            "SRV",
            "Invalid DNS SRV value 0 5 0 a.b",
        ),
        (
            "_a.example.com",
            "0 5 65536 a.b",
            "SRV",
            "Invalid DNS SRV value 0 5 65536 a.b",
        ),
        (
            "_a.example.com",
            "70000 5 1 a.b",
            "SRV",
            "Invalid DNS SRV value 70000 5 1 a.b",
        ),
        (
            "_a.example.com",
            "0 5 1",
            "SRV",
            "Invalid DNS SRV value 0 5 1",
        ),
        (
            "_a.example.com",
            "0 5 1 a_b",
            "SRV",
            "Invalid DNS SRV value 0 5 1 a_b",
        ),
        (
            "a.example.com",
            "x",
            "mx",
            "unrecognized 'type' parameter: MX",
        ),
        ("a_b", "x", "mx", "Invalid DNS name a_b"),
    ] {
        site.create(fqdn, value, kind, 400, text);
    }
}

/// The same record again is a success that writes nothing: the zone's serial stays.
#[test]
fn the_same_record_again_writes_nothing() {
    need_bind!();
    let site = site();
    let zone = "example.net";
    for (fqdn, value, kind) in [
        ("same.example.net", "192.0.2.6", "A"),
        ("same.example.net", "2001:db8::6", "AAAA"),
        ("same-c.example.net", "ns.example.net", "CNAME"),
        ("_same._tcp.example.net", "0 5 1 ns.example.net", "SRV"),
    ] {
        site.create(fqdn, value, kind, 200, "");
        let before = site.bind.dig(zone, "SOA");
        site.create(&fqdn.to_uppercase(), &value.to_uppercase(), kind, 200, "");
        assert_eq!(
            site.bind.dig(zone, "SOA"),
            before,
            "{fqdn} {kind} was written again"
        );
    }
    // By value, not by spelling.
    site.create("same.example.net", "2001:0DB8:0::6", "AAAA", 200, "");
}

/// Another value is 409, with the original's space inside the quotes; services may be many.
#[test]
fn another_value_is_a_conflict() {
    need_bind!();
    let site = site();
    let taken = |name: &str| format!("'{name} 'is already in use");
    site.create("c.example.com", "192.0.2.7", "A", 200, "");
    site.create(
        "c.example.com",
        "192.0.2.8",
        "A",
        409,
        &taken("c.example.com"),
    );
    assert_eq!(site.bind.dig("c.example.com", "A"), "192.0.2.7\n");
    // An address of the other family is none.
    site.create("c.example.com", "2001:db8::7", "AAAA", 200, "");
    site.create(
        "c.example.com",
        "2001:db8::8",
        "AAAA",
        409,
        &taken("c.example.com"),
    );
    site.create("c-alias.example.com", "ns.example.com", "CNAME", 200, "");
    site.create(
        "c-alias.example.com",
        "c.example.com",
        "CNAME",
        409,
        &taken("c-alias.example.com"),
    );
    // A server would drop these without a word.
    site.create(
        "c.example.com",
        "ns.example.com",
        "CNAME",
        409,
        &taken("c.example.com"),
    );
    site.create(
        "c-alias.example.com",
        "192.0.2.7",
        "A",
        409,
        &taken("c-alias.example.com"),
    );
    let reverse = "7.2.0.192.in-addr.arpa";
    site.create("c.example.com", reverse, "PTR", 200, "");
    site.create(
        "other.example.com",
        reverse,
        "PTR",
        409,
        &format!("'{reverse}' is already in use"),
    );
    assert_eq!(site.bind.dig(reverse, "PTR"), "c.example.com.\n");
    site.create(
        "_c._tcp.example.com",
        "0 5 1 ns.example.com",
        "SRV",
        200,
        "",
    );
    site.create(
        "_c._tcp.example.com",
        "0 5 2 ns.example.com",
        "SRV",
        200,
        "",
    );
    assert_eq!(
        site.bind.dig("_c._tcp.example.com", "SRV"),
        "0 5 1 ns.example.com.\n0 5 2 ns.example.com.\n"
    );
}

/// DELETE without a type means PTR for a reverse name and A for any other; a `type` in the query does not count.
#[test]
fn a_removal_without_type_guesses_it() {
    need_bind!();
    let site = site();
    site.create("d.example.com", "192.0.2.9", "A", 200, "");
    site.create("d.example.com", "2001:db8::9", "AAAA", 200, "");
    site.create("d.example.com", "9.2.0.192.in-addr.arpa", "PTR", 200, "");
    site.remove("/dns/d.example.com?type=AAAA", 200, "");
    assert_eq!(site.bind.dig("d.example.com", "A"), "");
    assert_eq!(site.bind.dig("d.example.com", "AAAA"), "2001:db8::9\n");
    site.remove("/dns/9.2.0.192.in-addr.arpa/", 200, "");
    assert_eq!(site.bind.dig("9.2.0.192.in-addr.arpa", "PTR"), "");
    site.remove("/dns/d.example.com/AAAA", 200, "");
    assert_eq!(site.bind.dig("d.example.com", "AAAA"), "");
}

/// All records of that name and type go, the others stay.
#[test]
fn a_removal_takes_all_of_the_type_and_nothing_else() {
    need_bind!();
    let site = site();
    for value in ["0 5 1 ns.example.com", "0 5 2 ns.example.com"] {
        site.create("_all._tcp.example.com", value, "SRV", 200, "");
    }
    site.create("all.example.com", "192.0.2.10", "A", 200, "");
    site.remove("/dns/_all._tcp.example.com/SRV", 200, "");
    assert_eq!(site.bind.dig("_all._tcp.example.com", "SRV"), "");
    assert_eq!(site.bind.dig("all.example.com", "A"), "192.0.2.10\n");
}

/// Removing what is not there is 200, as from the original with `nsupdate`.
#[test]
fn removing_the_absent_is_fine() {
    need_bind!();
    let site = site();
    for path in [
        "/dns/absent.example.com",
        "/dns/absent.example.com/A",
        "/dns/absent.example.com/AAAA",
        "/dns/absent.example.com/CNAME",
        "/dns/_absent.example.com/SRV",
        "/dns/250.2.0.192.in-addr.arpa",
    ] {
        site.remove(path, 200, "");
    }
}

/// Bad names and types of a removal; the type counts in upper case only.
#[test]
fn a_bad_removal_is_400() {
    need_bind!();
    let site = site();
    for (path, text) in [
        ("/dns/a_b.example.com", "Invalid DNS name a_b.example.com"),
        (
            "/dns/a.example.com/PTR",
            "Invalid reverse DNS a.example.com",
        ),
        (
            "/dns/a.example.com/aaaa",
            "unrecognized 'type' parameter: aaaa",
        ),
        ("/dns/a.example.com/MX", "unrecognized 'type' parameter: MX"),
    ] {
        site.remove(path, 400, text);
    }
    site.remove("/dns/", 404, "Requested url was not found");
}

/// What the server refuses, or has no zone for, is an error with its reason; nothing is claimed that was not written.
#[test]
fn the_servers_no_is_an_error() {
    need_bind!();
    let site = site();
    for name in ["a.closed.test", "a.nowhere.test", "a.broken.test"] {
        let fields = [("fqdn", name), ("value", "192.0.2.1"), ("type", "A")];
        let answer = site.bulkhead.foreman().post("/dns/", &fields);
        assert_eq!(answer.status, 400, "{name}: {}", answer.text());
        assert!(
            answer.text().starts_with("Update errors: "),
            "{name}: {}",
            answer.text()
        );
        assert_eq!(site.bind.dig(name, "A"), "");
    }
}

/// What Foreman reads of the feature.
#[test]
fn the_feature_is_listed_with_its_provider() {
    need_bind!();
    let site = site();
    let target = site.bulkhead.foreman();
    target
        .get("/features")
        .assert_is(200, JSON, "[\"dns\",\"logs\"]");
    let dns = &target.get("/v2/features").json()["dns"];
    assert_eq!(dns["state"], "running", "{dns}");
    assert_eq!(dns["capabilities"], json!([]));
    assert_eq!(dns["settings"], json!({"use_provider": "dns-rfc2136"}));
}

/// Foreman's audience, and nobody else's.
#[test]
fn only_foreman_may_write() {
    need_bind!();
    let site = site();
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
    assert_eq!(site.bind.dig("x.example.com", "A"), "");
    site.bulkhead
        .foreman_tls()
        .post("/dns/", &fields)
        .assert_is(200, HTML, "");
    assert_eq!(site.bind.dig("x.example.com", "A"), "192.0.2.1\n");
}
