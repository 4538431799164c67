//! contract/templates.md: what machines ask while they are installed, passed on to Foreman.

use bulkhead_testkit::foreman::{Foreman, reply};
use bulkhead_testkit::{Bulkhead, Configuration, assert_eventually};
use serde_json::json;

use crate::core::life_cycle::failing;
use crate::site::{TEMPLATE_URL, bulkhead, foreman_got, foreman_got_any};
use crate::{HTML, JSON};

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
        (
            "/unattended/template/a~1/b?token=t-5",
            "GET /unattended/template/a~1/b?token=t-5",
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
    let body = format!("{{\"templateServer\":{TEMPLATE_URL:?}}}");
    for target in [bulkhead.foreman(), bulkhead.foreman_tls()] {
        target
            .get("/unattended/templateServer")
            .assert_is(200, JSON, &body);
    }
    let stranger = bulkhead.foreman_tls_as(None);
    assert_eq!(stranger.get("/unattended/templateServer").status, 403);
    assert_eq!(
        bulkhead
            .hosts()
            .get("/unattended/templateServer?mark=ts")
            .status,
        404,
        "Foreman's alone"
    );
    assert!(!foreman_got_any("mark=ts"), "no template of that name");
    let features = bulkhead.foreman_tls().get("/v2/features").json();
    assert_eq!(
        features["templates"],
        json!({
            "http_enabled": true,
            "https_enabled": true,
            "settings": { "template_url": TEMPLATE_URL },
            "state": "running",
            "capabilities": [],
        })
    );
}

/// Without a URL, or with one that is none, the feature is not there.
#[test]
fn a_template_url_is_required() {
    for lines in ["enabled = true", "enabled = true\ntemplate_url = \"\""] {
        let (bulkhead, entry, reason) = failing("templates", lines);
        let told = "Parameter 'template_url' is expected to have a non-empty value";
        assert_eq!(entry["settings"], json!({ "template_url": null }));
        assert!(reason.contains(told), "{reason}");
        assert_eq!(bulkhead.hosts().get("/unattended/provision").status, 404);
    }
}

/// Other depths, methods and doors are nobody's.
#[test]
fn nothing_else_is_served() {
    let bulkhead = bulkhead();
    for path in [
        "/unattended",
        "/unattended/",
        "/unattended/a/mark-depth",
        "/unattended/a%2Fmark-depth",
        "/unattended/a/b/c/mark-depth",
        "/userdata",
        "/userdata/mac/mark-depth",
        "/userdata/mac%2Fmark-depth",
        // What leads out of the mount is nowhere.
        "/unattended/../mark-depth/x",
        "/unattended/..%2fapi/mark-depth",
    ] {
        bulkhead
            .hosts()
            .get(path)
            .assert_is(404, JSON, "Requested url was not found");
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
    const OWN: &str = "u%72l=evil&path=x&template=x&kind=y&hostgroup=x&splat[]=x&captures=x&bare";
    let bulkhead = bulkhead();
    for path in [
        "/unattended/provision",
        "/unattended/template/a/b",
        "/userdata/user-data",
    ] {
        let mark = format!("mark=p-{}", path.len());
        let asked = format!("{path}?{mark}&a[b]=1&{OWN}&x=1&x=2&empty=");
        assert_eq!(bulkhead.hosts().get(&asked).status, 200);
        assert_eq!(
            foreman_got(&mark).line(),
            format!("GET {path}?{mark}&a[b]=1&x=1&x=2&empty=&{URL} HTTP/1.1")
        );
    }
    // The fields of a form likewise; its body stays what it is.
    let form = format!("f=1&{OWN}&g=%26");
    let answer = bulkhead
        .hosts()
        .request("POST", "/unattended/built?mark=p-form&q=1")
        .body("application/x-www-form-urlencoded", &form)
        .send();
    answer.assert_is(200, HTML, "");
    let got = foreman_got("mark=p-form");
    assert_eq!(
        got.line(),
        format!(
            "POST /unattended/built?mark=p-form&q=1&f=1&g=%26&{URL}&Content-Type=text%2Fplain HTTP/1.1"
        )
    );
    assert_eq!(got.body, form.as_bytes());
}

/// What must not stand in a URL arrives escaped, as the Smart Proxy sends it: curl writes it raw in a query, and in forms it is nothing unusual.
#[test]
fn characters_that_need_an_escape_arrive_with_one() {
    let bulkhead = bulkhead();
    let hosts = bulkhead.hosts();
    for path in [
        "/unattended/provision",
        "/unattended/template/a/b",
        "/userdata/user-data",
    ] {
        let mark = format!("mark=raw-{}", path.len());
        let asked = format!("{path}?{mark}&a=x^`y\\z&b={{[|]}}");
        assert_eq!(hosts.get(&asked).status, 200);
        assert_eq!(
            foreman_got(&mark).line(),
            format!("GET {path}?{mark}&a=x%5E%60y%5Cz&b={{[|]}}&{URL} HTTP/1.1")
        );
    }
    for (number, kind) in [Some("application/x-www-form-urlencoded"), None]
        .into_iter()
        .enumerate()
    {
        let form = "token=t&message=\"disk <sda> #1\"\nnot \u{e9}t\u{e9} found^";
        let mark = format!("mark=raw-form-{number}");
        let kind = kind.map_or_else(String::new, |kind| format!("Content-Type: {kind}\r\n"));
        let request = format!(
            "POST /unattended/failed?{mark} HTTP/1.1\r\nHost: {}\r\n{kind}Content-Length: {}\r\n\r\n{form}",
            hosts.host(),
            form.len()
        );
        let answer = hosts.send(request).unwrap().response("POST").unwrap();
        assert_eq!(answer.status, 200, "{answer}");
        let got = foreman_got(&mark);
        assert_eq!(
            got.line(),
            format!(
                "POST /unattended/failed?{mark}&token=t&message=%22disk%20%3Csda%3E%20%231%22%0Anot%20%C3%A9t%C3%A9%20found%5E&{URL}&Content-Type=text%2Fplain HTTP/1.1"
            )
        );
        assert_eq!(got.body, form.as_bytes());
    }
    // More fields than a query holds stay in the body.
    let form = format!("a={}", "^".repeat(2000));
    let answer = hosts
        .request("POST", "/unattended/failed?mark=raw-long")
        .body("application/x-www-form-urlencoded", &form)
        .send();
    assert_eq!(answer.status, 200);
    let got = foreman_got("mark=raw-long");
    assert_eq!(
        got.line(),
        format!("POST /unattended/failed?mark=raw-long&{URL}&Content-Type=text%2Fplain HTTP/1.1")
    );
    assert_eq!(got.body, form.as_bytes());
}

/// A Foreman below a path is asked below that path, by every feature.
#[test]
fn a_foreman_below_a_path_is_asked_there() {
    for base in ["/sub/foreman", "/sub/foreman/"] {
        let configuration = Configuration::empty();
        let foreman = Foreman::answering(&configuration.authority, |_| {
            reply("200 OK", "text/plain", "x")
        });
        let bulkhead = Bulkhead::with(
            configuration
                .foreman_at(&format!("{}{base}", foreman.url()))
                .feature(
                    "templates",
                    &format!("enabled = true\ntemplate_url = {TEMPLATE_URL:?}"),
                )
                .feature(
                    "registration",
                    "enabled = true\nregistration_url = \"https://r.example.com/\"",
                )
                .feature("discovery", "enabled = true"),
        );
        let hosts = bulkhead.hosts();
        assert_eq!(hosts.get("/unattended/provision").status, 200);
        assert_eq!(hosts.get("/userdata/user-data").status, 200);
        assert_eq!(hosts.get("/register").status, 200);
        let create = hosts
            .request("POST", "/discovery/create")
            .body("application/json", "{}");
        assert_eq!(create.send().status, 200);
        let lines: Vec<String> = foreman
            .requests()
            .iter()
            .map(|one| one.line().to_owned())
            .collect();
        assert_eq!(
            lines,
            [
                format!("GET /sub/foreman/unattended/provision?{URL} HTTP/1.1"),
                format!("GET /sub/foreman/userdata/user-data?{URL} HTTP/1.1"),
                "GET /sub/foreman/register?url=https%3A%2F%2Fr.example.com HTTP/1.1".to_owned(),
                "POST /sub/foreman/api/v2/discovered_hosts/facts HTTP/1.1".to_owned(),
            ]
        );
    }
}

/// Without a Foreman the feature runs and every request fails; the operator and Foreman's page of logs are told why.
#[test]
fn without_a_foreman_requests_fail_and_the_reason_is_told() {
    let templates = format!("enabled = true\ntemplate_url = {TEMPLATE_URL:?}");
    let bulkhead = Bulkhead::with(Configuration::empty().feature("templates", &templates));
    let foreman = bulkhead.foreman_tls();
    let features = foreman.get("/v2/features").json();
    assert_eq!(features["templates"]["state"], "running");
    let failed = foreman.get("/logs/").json()["info"]["failed_modules"].clone();
    assert_eq!(
        failed,
        json!({ "templates": "no Foreman is configured (`[foreman] url`)" })
    );
    assert_eq!(bulkhead.log_lines("no Foreman is configured").len(), 1);
    for (path, status, body) in [
        ("/unattended/x", 400, "Failed to proxy /x: unreachable"),
        (
            "/unattended/template/a/b",
            400,
            "Failed to retrieve template hostgroup template: unreachable",
        ),
        (
            "/userdata/x",
            500,
            "Failed to retrieve x userdata template: unreachable",
        ),
    ] {
        bulkhead.hosts().get(path).assert_is(status, HTML, body);
    }
    assert_eventually!(
        bulkhead.log_lines("no Foreman is configured").len() >= 4,
        "{}",
        bulkhead.log()
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

    // An installer's log, as large as Foreman reads it, and no text.
    let log: Vec<u8> = (0..65_535_u32).map(|n| (n % 251) as u8).collect();
    for kind in ["text/plain", "application/octet-stream"] {
        let mark = format!("mark=post-{}", kind.len());
        let answer = bulkhead
            .hosts()
            .request("POST", &format!("/unattended/failed?{mark}&a=1"))
            .body(kind, &log)
            .send();
        assert_eq!(answer.status, 200);
        let got = foreman_got(&mark);
        assert_eq!(
            got.line(),
            format!("POST /unattended/failed?{mark}&a=1&{URL}&Content-Type=text%2Fplain HTTP/1.1")
        );
        assert_eq!(got.body, log);
    }
}

/// 201 is 200, every other status is Foreman's, its page is not; userdata fails with 500.
#[test]
fn foremans_status_passes_and_its_page_does_not() {
    let bulkhead = bulkhead();
    let hosts = bulkhead.hosts();
    for (kind, status) in [("nf", 404), ("broken", 500), ("moved", 302)] {
        let told = format!("Foreman answered {status}");
        for (answer, status, body) in [
            (
                hosts.get(&format!("/unattended/{kind}")),
                status,
                format!("Failed to proxy /{kind}: {told}"),
            ),
            (
                hosts
                    .request("POST", &format!("/unattended/{kind}"))
                    .body("text/plain", "x")
                    .send(),
                status,
                format!("Failed to proxy /{kind}: {told}"),
            ),
            (
                hosts.get(&format!("/unattended/template/a/{kind}")),
                status,
                format!("Failed to retrieve template hostgroup template: {told}"),
            ),
            (
                hosts.get(&format!("/userdata/{kind}")),
                500,
                format!("Failed to retrieve {kind} userdata template: {told}"),
            ),
        ] {
            answer.assert_is(status, HTML, &body);
            assert!(answer.header("location").is_none(), "{answer}");
        }
    }
    assert!(
        !foreman_got_any("/unattended/followed"),
        "redirects are not followed"
    );
    // 204 is no success: it passes as it is.
    assert_eq!(hosts.get("/unattended/empty").status, 204);
    assert_eq!(hosts.get("/userdata/empty").status, 500);
}

/// A success is 200 with the body as it came. No other header of Foreman's comes along: they are about its own pages.
#[test]
fn a_template_arrives_byte_for_byte_and_without_foremans_headers() {
    let bulkhead = bulkhead();
    for path in [
        "/unattended/script",
        "/unattended/template/a/script",
        "/userdata/script",
    ] {
        let answer = bulkhead.hosts().get(path);
        assert_eq!(
            (answer.status, answer.content_type(), &*answer.body),
            (200, HTML, &b"\0#!\n\xff"[..])
        );
        let mut names: Vec<String> = answer
            .headers
            .iter()
            .map(|(name, _)| name.to_ascii_lowercase())
            .collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "connection",
                "content-length",
                "content-type",
                "date",
                "server",
                "x-content-type-options",
                "x-frame-options",
                "x-request-id",
                "x-xss-protection"
            ]
        );
    }
}

/// Tokens of installers stand in no log, whatever becomes of the request.
#[test]
fn tokens_are_not_logged() {
    let bulkhead = bulkhead();
    let hosts = bulkhead.hosts();
    for path in [
        "/unattended/provision?mark=log&token=SECRET-1",
        "/unattended/nf?token=SECRET-2",
        "/unattended/closed?token=SECRET-3",
        "/userdata/nf?token=SECRET-4",
        "/unattended/none/of/these?token=SECRET-5",
    ] {
        hosts.get(path);
    }
    assert_eventually!(
        !bulkhead
            .log_lines("Finished GET /unattended/none")
            .is_empty()
    );
    let told = bulkhead.log_lines("SECRET");
    assert!(told.is_empty(), "{told:#?}");
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
