//! contract/registration.md: registrations of hosts, passed on to Foreman; whatever fails is a script that fails.

use std::io::Write as _;
use std::process::{Command, Stdio};

use bulkhead_testkit::foreman::{Foreman, reply};
use bulkhead_testkit::{Bulkhead, Configuration, assert_eventually, run};
use serde_json::json;

use crate::HTML;
use crate::site::{SCRIPT, bulkhead, foreman_got};

const FAILS: &str = "echo \"Internal Server Error\"\nexit 1\n";

const TEMPLATES: &str = "enabled = true\ntemplate_url = \"http://proxy.example.com\"";

/// With and without slash, over both schemes; the URL is the one asked, and nested keys arrive.
#[test]
fn a_host_gets_foremans_script() {
    let bulkhead = bulkhead();
    let tls = bulkhead.hosts_tls_as(None);
    for (target, scheme) in [(bulkhead.hosts(), "http"), (tls, "https")] {
        for path in ["/register", "/register/"] {
            let mark = format!("mark-get-{scheme}-{}", path.len());
            let asked = format!("{path}?m={mark}&repo_data[][repo]=x&key=^`\\&url=evil");
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
                    "GET /register?m={mark}&repo_data[][repo]=x&key=%5E%60%5C&url={scheme}%3A%2F%2Flocalhost%3A{port} HTTP/1.1"
                )
            );
            assert_eq!(got.header("authorization"), Some("Bearer secret"));
        }
    }
}

/// A form drops the query, every other type is called JSON; the body arrives byte for byte, however it was framed.
#[test]
fn a_post_is_streamed_to_foreman() {
    const FORM: &str = "application/x-www-form-urlencoded";
    let bulkhead = bulkhead();
    let hosts = bulkhead.hosts();
    let url = format!("url=http%3A%2F%2Flocalhost%3A{}", hosts.address.port());
    for (number, (kind, as_sent, query)) in [
        (FORM, FORM, ""),
        ("Application/X-WWW-Form-URLencoded; charset=utf-8", FORM, ""),
        ("text/plain", "application/json", "a=1&b[][c]=2&empty=&"),
        (
            "application/json",
            "application/json",
            "a=1&b[][c]=2&empty=&",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let mut body = format!("host[name]=mark-{number}&")
            .repeat(4000)
            .into_bytes();
        body.extend(0..=255_u8);
        for path in ["/register", "/register/"] {
            let mark = format!("mark-post-{number}-{}", path.len());
            let request = hosts
                .request("POST", &format!("{path}?a=1&b[][c]=2&bare&empty=&url=evil"))
                .header("X-Mark", &mark)
                .header("Authorization", "Bearer secret");
            request
                .body(kind, &body)
                .send()
                .assert_is(200, HTML, SCRIPT);
            let got = foreman_got(&format!("{mark}\r\n"));
            let line = format!("POST /register?{query}{url} HTTP/1.1");
            assert_eq!(got.line(), line);
            assert_eq!(got.header("content-type"), Some(as_sent));
            assert_eq!(got.header("authorization"), Some("Bearer secret"));
            assert!(got.body == body, "{} bytes arrived", got.body.len());
        }
    }
    // In chunks, as a client sends what it does not know the length of.
    let request = format!(
        "POST /register HTTP/1.1\r\nHost: {}\r\nX-Mark: mark-chunks\r\nContent-Type: {FORM}\r\nTransfer-Encoding: chunked\r\n\r\n\
         4\r\na=1&\r\n1;x=y\r\nb\r\n0\r\nX-Forwarded-For: 10.9.9.9\r\n\r\n",
        hosts.host()
    );
    let answer = hosts.send(request).unwrap().response("POST").unwrap();
    answer.assert_is(200, HTML, SCRIPT);
    let got = foreman_got("mark-chunks\r\n");
    assert_eq!(got.content(), b"a=1&b");
    let raw = String::from_utf8_lossy(&got.body).into_owned() + &got.head;
    assert!(!raw.contains("10.9.9.9"), "trailers end here: {raw}");
}

/// Registration URLs are longer than the Smart Proxy took.
#[test]
fn a_long_registration_url_arrives_whole() {
    let bulkhead = bulkhead();
    let long = format!("mark-long={}", "x".repeat(8000));
    let answer = bulkhead.hosts().get(&format!("/register?{long}"));
    answer.assert_is(200, HTML, SCRIPT);
    assert!(foreman_got("mark-long").line().contains(&long));
}

/// The setting wins over the URL that was asked, without the slash at its end; Foreman sees it as it is used. An empty one is none.
#[test]
fn the_setting_says_by_which_url_hosts_register() {
    let configuration = Configuration::empty();
    let foreman = Foreman::answering(&configuration.authority, |_| {
        reply("200 OK", "text/plain", SCRIPT)
    });
    let bulkhead = Bulkhead::with(
        configuration
            .foreman(&foreman)
            .feature("templates", TEMPLATES)
            .feature(
                "registration",
                "enabled = true\nregistration_url = \"https://r.example.com:9443/\"",
            ),
    );
    let hosts = bulkhead.hosts();
    let body = "host[name]=x";
    assert_eq!(hosts.get("/register").status, 200);
    let post = hosts.request("POST", "/register").body("text/plain", body);
    assert_eq!(post.send().status, 200);
    for (request, method) in foreman.requests().iter().zip(["GET", "POST"]) {
        assert_eq!(
            request.line(),
            format!("{method} /register?url=https%3A%2F%2Fr.example.com%3A9443 HTTP/1.1")
        );
    }
    let features = bulkhead.foreman_tls().get("/v2/features").json();
    assert_eq!(
        features["registration"],
        json!({
            "http_enabled": true,
            "https_enabled": true,
            "settings": { "registration_url": "https://r.example.com:9443" },
            "state": "running",
            "capabilities": [],
        })
    );
    let empty = "enabled = true\nregistration_url = \"\"";
    let bulkhead = Bulkhead::with(
        Configuration::empty()
            .foreman(&foreman)
            .feature("templates", TEMPLATES)
            .feature("registration", empty),
    );
    let features = bulkhead.foreman_tls().get("/v2/features").json();
    let shown = &features["registration"]["settings"];
    assert_eq!(shown, &json!({ "registration_url": null }));
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

/// Whatever is not a success fails in the shell that it is piped to, the host's own refusals among them.
#[test]
fn whatever_is_refused_fails_in_a_shell() {
    let configuration = Configuration::empty().listener_keys(
        "limits = { requests_per_address = 1, request_burst = 12, request_line = \"1KiB\", head = \"4KiB\" }",
    );
    let bulkhead = Bulkhead::with(
        configuration
            .feature("templates", TEMPLATES)
            .feature("registration", "enabled = true"),
    );
    let hosts = bulkhead.hosts();
    let long = "x".repeat(2000);
    let mut seen = Vec::new();
    let head = format!("Host: {}\r\nConnection: close\r\n", hosts.host());
    let requests = [
        "GET /register HTTP/1.1\r\n".to_owned(),
        "GET /register/x HTTP/1.1\r\n".to_owned(),
        "PUT /register HTTP/1.1\r\nContent-Length: 0\r\n".to_owned(),
        "POST /register HTTP/1.1\r\n".to_owned(),
        format!("GET /register?{long} HTTP/1.1\r\n"),
        format!("GET /register HTTP/1.1\r\nX: {long}{long}{long}\r\n"),
        "GET /register HTTP/1.1\r\nContent-Length: x\r\n".to_owned(),
        "GET /register?name=<web> HTTP/1.1\r\n".to_owned(),
        "GET /register?name=\"web\" HTTP/1.1\r\n".to_owned(),
        "GET /register`web` HTTP/1.1\r\n".to_owned(),
    ];
    let again = "GET /register HTTP/1.1\r\n".to_owned();
    // All are asked before any shell is started: it takes its time, in which the client would earn further requests.
    let answers: Vec<_> = requests
        .into_iter()
        .chain(vec![again; 12])
        .map(|request| {
            let connection = hosts.send(format!("{request}{head}\r\n"));
            connection.unwrap().response("GET").unwrap()
        })
        .collect();
    for answer in answers {
        let mut shell = Command::new("sh")
            .arg("-s")
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        shell.stdin.take().unwrap().write_all(&answer.body).unwrap();
        assert!(!shell.wait().unwrap().success(), "{answer}");
        seen.push(answer.status);
    }
    seen.dedup();
    assert_eq!(seen, [500, 404, 411, 414, 413, 400, 500, 429]);
}

/// Foreman offers registration through a proxy with both features; the URL setting is null when unset.
#[test]
fn foreman_sees_the_feature() {
    let bulkhead = bulkhead();
    let features = bulkhead.foreman_tls().get("/v2/features").json();
    assert_eq!(
        features["registration"],
        json!({
            "http_enabled": true,
            "https_enabled": true,
            "settings": { "registration_url": null },
            "state": "running",
            "capabilities": [],
        })
    );
    assert_eq!(
        bulkhead.foreman().get("/register").status,
        404,
        "not Foreman's door"
    );
}

/// Registration is not offered without templates, and both sides are told why; hosts that ask are served all the same.
#[test]
fn registration_requires_templates() {
    const REASON: &str = "'templates' required by 'registration' could not be found.";
    for templates in [None, Some("enabled = false"), Some("enabled = true")] {
        let configuration = Configuration::standard();
        let foreman = Foreman::answering(&configuration.authority, |_| {
            reply("200 OK", "text/plain", SCRIPT)
        });
        let mut configuration = configuration
            .foreman(&foreman)
            .feature("registration", "enabled = true");
        if let Some(lines) = templates {
            configuration = configuration.feature("templates", lines);
        }
        let bulkhead = Bulkhead::launch(configuration, &[]);
        let target = bulkhead.foreman_tls();
        let shown = || target.request("GET", "/v2/features").try_send().ok();
        assert_eventually!(
            shown().is_some_and(|it| it.json()["registration"]["state"] == "failed"
                && it.json()["tftp"]["state"] == "running"),
            "{}",
            bulkhead.log()
        );
        let logs = target.get("/logs/").json();
        assert_eq!(logs["info"]["failed_modules"]["registration"], REASON);
        let listed = target.get("/features").json();
        assert_eq!(listed, json!(["httpboot", "logs", "tftp"]));
        let list = [&["plugin", "list"][..]].concat();
        let words = list.iter().map(|&word| word.to_owned());
        let told = run(words.chain(bulkhead.configuration.options()));
        assert!(told.stdout.contains(REASON), "{}", told.text());
        assert_eq!(bulkhead.log_lines(REASON).len(), 1, "{}", bulkhead.log());
        bulkhead
            .hosts()
            .get("/register")
            .assert_is(200, HTML, SCRIPT);
    }
}
