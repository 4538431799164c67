//! `POST /dns/`: what is written, what is refused, in which words, and what is in the way.

use bulkhead_testkit::bind::Bind;
use bulkhead_testkit::skip;

use super::{Server, each};
use crate::{HTML, JSON};

/// POST writes one record of each type, DELETE removes it; the answers are 200 and empty.
#[test]
fn each_type_is_created_and_removed() {
    need_bind!();
    each(|site| {
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
            assert_eq!(site.dig(owner, kind), "", "before {fqdn} {kind}");
            site.create(fqdn, value, kind, 200, "");
            assert_eq!(site.dig(owner, kind), format!("{seen}\n"), "{fqdn} {kind}");
            site.remove(&format!("/dns/{owner}/{kind}"), 200, "");
            assert_eq!(site.dig(owner, kind), "", "after {fqdn} {kind}");
        }
    });
}

/// `dns_ttl` is 86400 unless set.
#[test]
fn a_record_lives_one_day() {
    need_bind!();
    each(|site| {
        site.create("ttl.example.com", "192.0.2.3", "A", 200, "");
        let line = site.dig_whole(&["+noall", "+answer", "ttl.example.com", "A"]);
        assert_eq!(line.split_whitespace().nth(1), Some("86400"), "{line}");
    });
}

/// The path without a slash does the same; the type may be of either case; the body wins over the query.
#[test]
fn the_path_may_lack_its_slash_and_the_type_be_lower_case() {
    need_bind!();
    each(|site| {
        let fields = [
            ("fqdn", "Slash.Example.COM"),
            ("value", "192.0.2.4"),
            ("type", "a"),
        ];
        site.bulkhead
            .foreman()
            .post("/dns", &fields)
            .assert_is(200, HTML, "");
        assert_eq!(site.dig("slash.example.com", "A"), "192.0.2.4\n");
    });
}

/// All three are needed; an empty text counts as there.
#[test]
fn a_missing_field_is_400() {
    need_bind!();
    each(|site| {
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
        assert_eq!(site.dig("m.example.com", "A"), "");
    });
}

/// A field without `=` is nil, which is not there; one with an empty value is there.
#[test]
fn a_bare_field_counts_as_missing() {
    need_bind!();
    each(|site| {
        let post = |body: &str| {
            let target = site.bulkhead.foreman();
            let request = target.request("POST", "/dns/");
            request
                .body("application/x-www-form-urlencoded", body)
                .send()
        };
        let words = "'create' requires fqdn, value, and type parameters";
        post("fqdn&value=192.0.2.1&type=A").assert_is(400, JSON, words);
        post("fqdn=n.example.com&value&type=A").assert_is(400, JSON, words);
        post("fqdn=n.example.com&value=192.0.2.1&type").assert_is(400, JSON, words);
        post("fqdn=n.example.com&value=&type=A").assert_is(400, JSON, "invalid address: ");
        assert_eq!(site.dig("n.example.com", "A"), "");
    });
}

/// Whatever is not well-formed is refused with the contract's words, in the contract's order.
#[test]
fn what_is_not_well_formed_is_400() {
    need_bind!();
    each(|site| {
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
    });
}

/// A dot at the end of names and values, a dash at the end of a label, an underscore in the names of services: all of it is fine.
#[test]
fn names_may_look_odd() {
    need_bind!();
    each(|site| {
        site.create("dot.example.com.", "192.0.2.20", "A", 200, "");
        assert_eq!(site.dig("dot.example.com", "A"), "192.0.2.20\n");
        site.create("dot-c.example.com", "ns.example.com.", "CNAME", 200, "");
        assert_eq!(site.dig("dot-c.example.com", "CNAME"), "ns.example.com.\n");
        site.create(
            "dot.example.com.",
            "20.2.0.192.in-addr.arpa.",
            "PTR",
            200,
            "",
        );
        assert_eq!(
            site.dig("20.2.0.192.in-addr.arpa", "PTR"),
            "dot.example.com.\n"
        );
        site.create("a_b._x.example.com", "1 2 3 ns.example.com", "SRV", 200, "");
        assert_eq!(
            site.dig("a_b._x.example.com", "SRV"),
            "1 2 3 ns.example.com.\n"
        );
        site.remove("/dns/dot.example.com.", 200, "");
        site.remove("/dns/20.2.0.192.in-addr.arpa.", 200, "");
        assert_eq!(site.dig("dot.example.com", "A"), "");
        assert_eq!(site.dig("20.2.0.192.in-addr.arpa", "PTR"), "");
        // Here it is up to the server: BIND refuses such a name, not because of its syntax on this side.
        let fields = [
            ("fqdn", "dash-.example.com"),
            ("value", "192.0.2.21"),
            ("type", "A"),
        ];
        let answer = site.bulkhead.foreman().post("/dns/", &fields);
        match site.server {
            Server::Bind(_) => assert!(answer.text().contains("REFUSED"), "{answer}"),
            Server::Builtin(_) => answer.assert_is(200, HTML, ""),
        }
    });
}

/// The same record again is a success that writes nothing: the zone's serial stays.
#[test]
fn the_same_record_again_writes_nothing() {
    need_bind!();
    each(|site| {
        let zone = "example.net";
        for (fqdn, value, kind) in [
            ("same.example.net", "192.0.2.6", "A"),
            ("same.example.net", "2001:db8::6", "AAAA"),
            ("same-c.example.net", "ns.example.net", "CNAME"),
            ("_same._tcp.example.net", "0 5 1 ns.example.net", "SRV"),
        ] {
            site.create(fqdn, value, kind, 200, "");
            let before = site.dig(zone, "SOA");
            site.create(&fqdn.to_uppercase(), &value.to_uppercase(), kind, 200, "");
            assert_eq!(
                site.dig(zone, "SOA"),
                before,
                "{fqdn} {kind} was written again"
            );
        }
        // By value, not by spelling.
        site.create("same.example.net", "2001:0DB8:0::6", "AAAA", 200, "");
    });
}

/// Another value is 409, with the original's space inside the quotes; services may be many.
#[test]
fn another_value_is_a_conflict() {
    need_bind!();
    each(|site| {
        let taken = |name: &str| format!("'{name} 'is already in use");
        site.create("c.example.com", "192.0.2.7", "A", 200, "");
        site.create(
            "c.example.com",
            "192.0.2.8",
            "A",
            409,
            &taken("c.example.com"),
        );
        assert_eq!(site.dig("c.example.com", "A"), "192.0.2.7\n");
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
        assert_eq!(site.dig(reverse, "PTR"), "c.example.com.\n");
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
            site.dig("_c._tcp.example.com", "SRV"),
            "0 5 1 ns.example.com.\n0 5 2 ns.example.com.\n"
        );
    });
}
