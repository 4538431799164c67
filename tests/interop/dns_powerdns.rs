//! A real PowerDNS Authoritative Server, written through its API; before and after seen by `dig`.

use std::path::Path;

use bulkhead_testkit::pdns::{API_KEY, PowerDns};
use bulkhead_testkit::{Bulkhead, Configuration, Response, Target, skip};

fn before(url: &str, key: &Path) -> Bulkhead {
    Bulkhead::with(Configuration::empty().dns_powerdns(url, key))
}

fn create(target: &Target, fqdn: &str, value: &str, kind: &str) -> Response {
    target.post("/dns/", &[("fqdn", fqdn), ("value", value), ("type", kind)])
}

#[track_caller]
fn refused(answer: &Response, status: u16) {
    let text = answer.text();
    assert_eq!(answer.status, status, "{text}");
    assert!(text.starts_with("Update errors: "), "{text}");
}

#[test]
fn records_of_each_type_are_written_and_removed() {
    if !PowerDns::is_installed() {
        skip!("PowerDNS (pdns_server, its SQLite backend, sqlite3, dig) is not installed");
    }
    let mut pdns = PowerDns::with_zones(&[
        "example.com",
        "sub.example.com",
        "2.0.192.in-addr.arpa",
        "8.b.d.0.1.0.0.2.ip6.arpa",
    ]);
    let bulkhead = before(&pdns.url(), &pdns.key_file(API_KEY));
    let target = bulkhead.foreman();
    let v6 = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa";
    for (fqdn, value, kind, owner, seen) in [
        (
            "a.example.com",
            "192.0.2.1",
            "A",
            "a.example.com",
            "192.0.2.1",
        ),
        (
            "a.sub.example.com",
            "192.0.2.2",
            "A",
            "a.sub.example.com",
            "192.0.2.2",
        ),
        (
            "a.example.com",
            "2001:0db8::1",
            "AAAA",
            "a.example.com",
            "2001:db8::1",
        ),
        (
            "c.example.com",
            "a.example.com",
            "CNAME",
            "c.example.com",
            "a.example.com.",
        ),
        (
            "a.example.com",
            "1.2.0.192.in-addr.arpa",
            "PTR",
            "1.2.0.192.in-addr.arpa",
            "a.example.com.",
        ),
        ("a.example.com", v6, "PTR", v6, "a.example.com."),
        (
            "_s._tcp.example.com",
            "0 5 1 a.example.com",
            "SRV",
            "_s._tcp.example.com",
            "0 5 1 a.example.com.",
        ),
    ] {
        assert_eq!(pdns.dig(owner, kind), "", "before {owner} {kind}");
        create(&target, fqdn, value, kind).assert_status(200);
        assert_eq!(pdns.dig(owner, kind), format!("{seen}\n"));
        create(&target, fqdn, value, kind).assert_status(200);
        target
            .delete(&format!("/dns/{owner}/{kind}"))
            .assert_status(200);
        assert_eq!(pdns.dig(owner, kind), "", "after {owner} {kind}");
        target
            .delete(&format!("/dns/{owner}/{kind}"))
            .assert_status(200);
    }

    // No zone, a wrong key, nobody there: errors, each with its reason.
    refused(&create(&target, "a.nowhere.test", "192.0.2.1", "A"), 400);
    let stranger = before(&pdns.url(), &pdns.key_file("wrong"));
    refused(
        &create(&stranger.foreman(), "k.example.com", "192.0.2.1", "A"),
        400,
    );
    assert_eq!(pdns.dig("k.example.com", "A"), "");
    pdns.stop();
    refused(&create(&target, "d.example.com", "192.0.2.1", "A"), 502);
}
