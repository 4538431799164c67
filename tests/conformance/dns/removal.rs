//! `DELETE /dns/NAME[/TYPE]`: what goes, what stays, and what is no such path.

use bulkhead_testkit::bind::Bind;
use bulkhead_testkit::skip;

use super::each;

/// DELETE without a type means PTR for a reverse name and A for any other; a `type` in the query does not count.
#[test]
fn a_removal_without_type_guesses_it() {
    need_bind!();
    each(|site| {
        site.create("d.example.com", "192.0.2.9", "A", 200, "");
        site.create("d.example.com", "2001:db8::9", "AAAA", 200, "");
        site.create("d.example.com", "9.2.0.192.in-addr.arpa", "PTR", 200, "");
        site.remove("/dns/d.example.com?type=AAAA", 200, "");
        assert_eq!(site.dig("d.example.com", "A"), "");
        assert_eq!(site.dig("d.example.com", "AAAA"), "2001:db8::9\n");
        site.remove("/dns/9.2.0.192.in-addr.arpa/", 200, "");
        assert_eq!(site.dig("9.2.0.192.in-addr.arpa", "PTR"), "");
        site.remove("/dns/d.example.com/AAAA", 200, "");
        assert_eq!(site.dig("d.example.com", "AAAA"), "");
    });
}

/// All records of that name and type go, the others stay.
#[test]
fn a_removal_takes_all_of_the_type_and_nothing_else() {
    need_bind!();
    each(|site| {
        for value in ["0 5 1 ns.example.com", "0 5 2 ns.example.com"] {
            site.create("_all._tcp.example.com", value, "SRV", 200, "");
        }
        site.create("all.example.com", "192.0.2.10", "A", 200, "");
        site.remove("/dns/_all._tcp.example.com/SRV", 200, "");
        assert_eq!(site.dig("_all._tcp.example.com", "SRV"), "");
        assert_eq!(site.dig("all.example.com", "A"), "192.0.2.10\n");
    });
}

/// Removing what is not there is 200, as from the original with `nsupdate`.
#[test]
fn removing_the_absent_is_fine() {
    need_bind!();
    each(|site| {
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
    });
}

/// Bad names and types of a removal; the type counts in upper case only.
#[test]
fn a_bad_removal_is_400() {
    need_bind!();
    each(|site| {
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
    });
}

/// The default of a removal is PTR below `ip6.arpa` too; a slash after the type is another path, and so is another method.
#[test]
fn paths_and_methods_are_these_and_no_others() {
    need_bind!();
    each(|site| {
        let v6 = "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa";
        site.create("p6.example.com", v6, "PTR", 200, "");
        assert_eq!(site.dig(v6, "PTR"), "p6.example.com.\n");
        site.remove(&format!("/dns/{v6}"), 200, "");
        assert_eq!(site.dig(v6, "PTR"), "");
        site.create("path.example.com", "192.0.2.22", "A", 200, "");
        let not_found = "Requested url was not found";
        site.remove("/dns/path.example.com/A/", 404, not_found);
        site.remove("/dns/path.example.com/A/B", 404, not_found);
        for (method, path) in [
            ("GET", "/dns/"),
            ("GET", "/dns/path.example.com"),
            ("PUT", "/dns/"),
            ("POST", "/dns/path.example.com"),
            ("DELETE", "/dns"),
        ] {
            let target = site.bulkhead.foreman();
            let request = target.request(method, path);
            let answer = match method {
                "PUT" | "POST" => request.body("application/x-www-form-urlencoded", "").send(),
                _ => request.send(),
            };
            assert_eq!(answer.status, 404, "{method} {path}");
        }
        assert_eq!(site.dig("path.example.com", "A"), "192.0.2.22\n");
    });
}
