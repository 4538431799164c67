//! contract/registration.md: registrations of hosts, passed on to Foreman; whatever fails is a script that fails.

use crate::HTML;
use crate::site::{SCRIPT, bulkhead, foreman_got};

const FAILS: &str = "echo \"Internal Server Error\"\nexit 1\n";

/// With and without slash, over both schemes; the URL is the one asked, and nested keys arrive.
#[test]
fn a_host_gets_foremans_script() {
    let bulkhead = bulkhead();
    let tls = bulkhead.hosts_tls_as(None);
    for (target, scheme) in [(bulkhead.hosts(), "http"), (tls, "https")] {
        for path in ["/register", "/register/"] {
            let mark = format!("mark-get-{scheme}-{}", path.len());
            let asked = format!("{path}?m={mark}&repo_data[][repo]=x&url=evil");
            let answer = target
                .request("GET", &asked)
                .header("Authorization", "Bearer secret")
                .send();
            answer.assert_is(200, HTML, SCRIPT);
            let got = foreman_got(&mark);
            let port = target.address.port();
            assert_eq!(
                got.line(),
                format!(
                    "GET /register?m={mark}&repo_data[][repo]=x&url={scheme}%3A%2F%2Flocalhost%3A{port} HTTP/1.1"
                )
            );
            assert_eq!(got.header("authorization"), Some("Bearer secret"));
        }
    }
}

/// A form drops the query, every other type is called JSON; the body arrives byte for byte.
#[test]
fn a_post_is_streamed_to_foreman() {
    let bulkhead = bulkhead();
    let hosts = bulkhead.hosts();
    for (kind, as_sent, query) in [
        (
            "application/x-www-form-urlencoded",
            "application/x-www-form-urlencoded",
            false,
        ),
        (
            "application/x-www-form-urlencoded; charset=utf-8",
            "application/x-www-form-urlencoded",
            false,
        ),
        ("text/plain", "application/json", true),
    ] {
        let mark = format!("mark-post-{}", kind.len());
        let body = format!("host[name]={mark}&").repeat(4000);
        let answer = hosts
            .request("POST", "/register?a=1")
            .header("X-Mark", &mark)
            .body(kind, &body)
            .send();
        answer.assert_is(200, HTML, SCRIPT);
        let got = foreman_got(&format!("{mark}\r\n"));
        assert_eq!(got.line().contains("a=1"), query, "{}", got.line());
        assert_eq!(got.header("content-type"), Some(as_sent));
        assert!(
            String::from_utf8_lossy(&got.body).contains(&body),
            "the body is whole"
        );
    }
}

/// Successes are 200; Foreman's own scripts pass with their status; everything else is a failing script.
#[test]
fn every_failure_is_a_script_that_fails() {
    let bulkhead = bulkhead();
    let hosts = bulkhead.hosts();
    for (case, status, body) in [
        ("created", 200, SCRIPT),
        ("refused", 422, "echo no\nexit 1\n"),
        ("page", 502, FAILS),
        ("untyped", 500, FAILS),
        ("closed", 500, FAILS),
    ] {
        hosts
            .get(&format!("/register?case={case}"))
            .assert_is(status, HTML, body);
    }
}

/// Foreman offers registration through a proxy with both features; the URL setting is null when unset.
#[test]
fn foreman_sees_the_feature() {
    let bulkhead = bulkhead();
    let features = bulkhead.foreman_tls().get("/v2/features").json();
    assert_eq!(features["registration"]["state"], "running");
    assert!(features["registration"]["settings"]["registration_url"].is_null());
    assert_eq!(
        bulkhead.foreman().get("/register").status,
        404,
        "not Foreman's door"
    );
}
