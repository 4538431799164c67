//! contract/templates.md: what machines ask while they are installed, passed on to Foreman.

use bulkhead_testkit::assert_eventually;

use crate::HTML;
use crate::site::{TEMPLATE_URL, bulkhead, foreman_got, foreman_got_any};

const URL: &str = "url=http%3A%2F%2Fproxy.example.com%3A8000";

/// Five routes, each with its path at Foreman; anybody may call four of them, over both schemes.
#[test]
fn anybody_may_ask_and_foreman_is_asked_the_same() {
    let bulkhead = bulkhead();
    for (asked, wanted) in [
        (
            "/unattended/provision?token=t-1",
            "GET /unattended/provision?token=t-1",
        ),
        (
            "/unattended/template/a/b?token=t-2",
            "GET /unattended/template/a/b?token=t-2",
        ),
        (
            "/userdata/user-data?token=t-3",
            "GET /userdata/user-data?token=t-3",
        ),
        (
            "/unattended/a%20b:c?token=t-4",
            "GET /unattended/a+b%3Ac?token=t-4",
        ),
    ] {
        for target in [bulkhead.hosts(), bulkhead.hosts_tls_as(None)] {
            target.get(asked).assert_is(200, HTML, "rendered");
        }
        let mark = asked.split('?').next_back().unwrap();
        assert_eq!(foreman_got(mark).line(), format!("{wanted}&{URL} HTTP/1.1"));
    }
}

/// Foreman asks for the template URL; it is also a setting shown to it.
#[test]
fn foreman_learns_the_template_server() {
    let bulkhead = bulkhead();
    let answer = bulkhead.foreman().get("/unattended/templateServer");
    assert_eq!(answer.status, 200, "{answer}");
    assert_eq!(answer.json()["templateServer"], TEMPLATE_URL);
    let features = bulkhead.foreman_tls().get("/v2/features").json();
    assert_eq!(
        features["templates"]["settings"]["template_url"],
        TEMPLATE_URL
    );
    assert_eq!(features["templates"]["state"], "running");
}

/// Other depths, methods and doors are nobody's.
#[test]
fn nothing_else_is_served() {
    let bulkhead = bulkhead();
    for path in [
        "/unattended",
        "/unattended/a/mark-depth",
        "/unattended/a/b/c/mark-depth",
        "/userdata/mac/mark-depth",
        "/unattended/..%2fapi/mark-depth",
    ] {
        let status = bulkhead.hosts().get(path).status;
        assert!(matches!(status, 400 | 404), "{path}: {status}");
    }
    for method in ["PUT", "DELETE", "PATCH"] {
        let answer = bulkhead
            .hosts()
            .request(method, "/unattended/mark-depth")
            .body("text/plain", "")
            .send();
        assert_eq!(answer.status, 404, "{method}");
    }
    assert_eq!(bulkhead.foreman().get("/unattended/mark-depth").status, 404);
    assert!(!foreman_got_any("mark-depth"));
}

/// The client's own `url`, and names that route, are lost; nested keys arrive.
#[test]
fn parameters_go_along_but_for_those_that_route() {
    let asked = "/unattended/provision?mark=p&a[b]=1&u%72l=evil&path=x&kind=y&bare&x=1&x=2";
    let bulkhead = bulkhead();
    assert_eq!(bulkhead.hosts().get(asked).status, 200);
    assert_eq!(
        foreman_got("mark=p").line(),
        format!("GET /unattended/provision?mark=p&a[b]=1&x=1&x=2&{URL} HTTP/1.1")
    );
}

/// The headers by which Foreman finds the host, and none by which a client could pretend to be another.
#[test]
fn headers_pass_and_the_clients_address_is_the_proxys_to_say() {
    let bulkhead = bulkhead();
    let answer = bulkhead
        .hosts()
        .request("GET", "/unattended/provision?mark=h")
        .header("X-RHN-Provisioning-MAC-0", "eth0 aa:bb:cc:dd:ee:ff")
        .header("X_RHN_Provisioning_MAC_1", "eth1 aa:aa:aa:aa:aa:aa")
        .header("X-Forwarded-For", "10.9.9.9")
        .header("X_Forwarded_For", "10.9.9.9")
        .header("Forwarded", "for=10.9.9.9")
        .header("X-Real-IP", "10.9.9.9")
        .header("SSL_CLIENT_S_DN", "CN=foreman.example.com")
        .header("Accept", "text/plain")
        .header("X-Request-Id", "mark-id-7")
        .header("Version", "2")
        .send();
    assert_eq!(answer.status, 200);
    let got = foreman_got("mark=h");
    assert_eq!(
        got.header("x-rhn-provisioning-mac-0"),
        Some("eth0 aa:bb:cc:dd:ee:ff")
    );
    assert_eq!(got.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(got.header("x-request-id"), Some("mark-id-7"));
    assert_eq!(
        got.header("accept"),
        Some("*/*, application/json,version=2, text/plain")
    );
    assert_eq!(got.header("content-type"), Some("application/json"));
    assert!(
        !got.head.contains("10.9.9.9") && !got.head.contains("foreman.example.com"),
        "{}",
        got.head
    );
    assert!(
        got.head
            .lines()
            .skip(1)
            .all(|line| !line.split(':').next().unwrap().contains('_')),
        "{}",
        got.head
    );
    assert!(got.header("version").is_none());
    assert!(got.certificate.is_some(), "the proxy shows who it is");
}

/// A POST keeps its body; its fields go along as parameters, and its type is said twice.
#[test]
fn a_post_arrives_byte_for_byte() {
    let bulkhead = bulkhead();
    let answer = bulkhead
        .hosts()
        .request("POST", "/unattended/built?mark=post-1")
        .body("application/x-www-form-urlencoded", "a=1&b=%20")
        .send();
    answer.assert_is(200, HTML, "");
    let got = foreman_got("mark=post-1");
    assert_eq!(
        got.line(),
        format!(
            "POST /unattended/built?mark=post-1&a=1&b=%20&{URL}&Content-Type=text%2Fplain HTTP/1.1"
        )
    );
    assert_eq!(
        (got.body.as_slice(), got.header("content-type")),
        (&b"a=1&b=%20"[..], Some("text/plain"))
    );

    let log = "lines\n\u{e4}\n".repeat(6000);
    let answer = bulkhead
        .hosts()
        .request("POST", "/unattended/failed?mark=post-2")
        .body("text/plain", &log)
        .send();
    assert_eq!(answer.status, 200);
    assert_eq!(foreman_got("mark=post-2").body, log.as_bytes());
}

/// 201 is 200, every other status is Foreman's, its page is not; userdata fails with 500.
#[test]
fn foremans_status_passes_and_its_page_does_not() {
    let bulkhead = bulkhead();
    let hosts = bulkhead.hosts();
    for (kind, status) in [("nf", 404), ("broken", 500), ("moved", 302), ("empty", 204)] {
        let answer = hosts.get(&format!("/unattended/{kind}"));
        assert_eq!(answer.status, status, "{answer}");
        assert!(!answer.text().contains("own words") && answer.header("location").is_none());
        if status != 204 {
            assert!(
                answer
                    .text()
                    .starts_with(&format!("Failed to proxy /{kind}")),
                "{answer}"
            );
        }
    }
    assert_eq!(hosts.get("/unattended/built").status, 200);
    let answer = hosts.get("/unattended/template/a/nf");
    assert_eq!(answer.status, 404);
    assert!(
        answer
            .text()
            .starts_with("Failed to retrieve template hostgroup template")
    );
    let answer = hosts.get("/userdata/nf");
    assert_eq!(answer.status, 500);
    assert!(
        answer
            .text()
            .starts_with("Failed to retrieve nf userdata template")
    );
}

/// A Foreman that answers junk or hangs up is 400 and 500, with the reason in the log.
#[test]
fn no_usable_answer_is_told_and_logged() {
    let bulkhead = bulkhead();
    for kind in ["junk", "closed"] {
        assert_eq!(
            bulkhead.hosts().get(&format!("/unattended/{kind}")).status,
            400
        );
        assert_eq!(
            bulkhead.hosts().get(&format!("/userdata/{kind}")).status,
            500
        );
    }
    assert_eventually!(
        !bulkhead.log_lines("Failed to proxy /junk").is_empty(),
        "{}",
        bulkhead.log()
    );
}
