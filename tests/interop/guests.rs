//! Plugins that are not the project's own, in the real program.

use bulkhead_testkit::foreman::{Foreman, reply};
use bulkhead_testkit::{Bulkhead, Configuration, assert_eventually};

fn with(name: &str, grants: &str) -> Bulkhead {
    Bulkhead::with(Configuration::empty().plugin(name, bulkhead_fixtures::wasm(name), grants))
}

/// `examples/hello`: a feature of a few lines, dropped into a folder.
#[test]
fn the_example_is_served() {
    let bulkhead = with("hello", "");
    assert_eq!(
        bulkhead.hosts().get("/hello/World").text(),
        "Hello, World!\n"
    );
    assert_eq!(
        bulkhead
            .foreman()
            .post("/hello", &[("name", "a & b")])
            .text(),
        "Hello, a & b!\n"
    );
    assert_eq!(
        bulkhead.hosts().post("/hello", &[("name", "x")]).status,
        404,
        "Foreman's route on the hosts' door"
    );
    let features = bulkhead.foreman().get("/v2/features").json();
    assert_eq!(features["hello"]["state"], "running", "{features:#}");
}

/// Its setting comes from the configuration.
#[test]
fn the_examples_setting_is_used() {
    let configuration = Configuration::empty()
        .plugin("hello", bulkhead_fixtures::wasm("hello"), "")
        .feature("hello", "enabled = true\ngreeting = \"Ahoy\"");
    assert_eq!(
        Bulkhead::with(configuration)
            .hosts()
            .get("/hello/World")
            .text(),
        "Ahoy, World!\n"
    );
}

/// A component that exports `wasi:http/incoming-handler` beside `describe` and `status`.
#[test]
fn a_wasi_http_component_is_served() {
    let bulkhead = with("http-guest", "");
    let answer = bulkhead.hosts().get("/http-guest/some/path?q=1");
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (200, "wasi:http saw /http-guest/some/path?q=1\n"),
        "{answer}"
    );
    let large = "x".repeat(200_000);
    let echoed = bulkhead
        .hosts()
        .request("POST", "/http-guest/echo")
        .body("text/plain", &large)
        .send();
    assert_eq!((echoed.status, echoed.body.len()), (200, large.len()));
}

/// contract/core.md 3.1: an error that a plugin answers without writing a line itself stands in the log all the same, with the words its client got.
#[test]
fn an_error_answered_without_a_word_is_logged() {
    let bulkhead = with("http-guest", "");
    let answer = bulkhead
        .hosts()
        .request("GET", "/http-guest/refused")
        .header("X-Request-Id", "5a1d0001")
        .send();
    assert_eq!(answer.status, 422, "{answer}");
    let logged = || {
        let logs = bulkhead.foreman().get("/logs/").json()["logs"].clone();
        logs.as_array().is_some_and(|records| {
            records.iter().any(|record| {
                record["level"] == "ERROR"
                    && record["request_id"] == "5a1d0001"
                    && record["message"]
                        .as_str()
                        .is_some_and(|it| it.contains("wasi:http saw /http-guest/refused"))
            })
        })
    };
    assert_eventually!(logged(), "{}", bulkhead.log());
}

/// A request forwarded to Foreman with the proxy's own certificate, its answer changed after the head.
#[test]
fn registration_is_forwarded_to_foreman() {
    let configuration = Configuration::empty();
    let scratch = configuration.scratch.clone();
    let foreman = Foreman::answering(&configuration.authority, |request| match request.line() {
        line if line.starts_with("GET /register?ok") => {
            reply("201 Created", "text/plain", "#!/bin/sh\n")
        }
        line if line.starts_with("POST /register") => {
            reply("200 OK", "text/plain", &request.body.len().to_string())
        }
        _ => reply(
            "422 Unprocessable Content",
            "text/plain",
            "Foreman's own words",
        ),
    });
    let proxy = configuration
        .authority
        .client(Some("proxy.example.com"), &["proxy.example.com"]);
    let path = |path: std::path::PathBuf| format!("{:?}", path.display().to_string());
    let section = format!(
        "[foreman]\nurl = {:?}\nca = {}\ncertificate = {}\nprivate_key = {}",
        foreman.url(),
        path(scratch.join("tls/ca.pem")),
        path(scratch.file("tls/client.pem", &proxy.chain_pem)),
        path(scratch.file("tls/client-key.pem", &proxy.key_pem)),
    );
    let grants = "[foreman.register]\nallow = [\"GET /register\", \"POST /register\"]";
    let bulkhead = Bulkhead::with(configuration.section(&section).plugin(
        "relay",
        bulkhead_fixtures::wasm("relay"),
        grants,
    ));

    let answer = bulkhead
        .hosts()
        .request("GET", "/relay?ok=1")
        .header("Authorization", "Bearer x")
        .header("X-Request-Id", "abc-123")
        .send();
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (200, "#!/bin/sh\n"),
        "{answer}"
    );
    let request = foreman.requests().pop().expect("Foreman was asked");
    assert_eq!(request.line(), "GET /register?ok=1 HTTP/1.1");
    assert_eq!(request.header("authorization"), Some("Bearer x"));
    assert_eq!(request.header("x-request-id"), Some("abc-123"));
    assert_eq!(
        request.certificate.as_deref(),
        Some(&*proxy.chain()[0]),
        "the proxy's own certificate"
    );

    let refused = bulkhead.hosts().get("/relay?no=1");
    assert_eq!(refused.status, 422);
    assert!(
        refused.text().contains("exit 1") && !refused.text().contains("Foreman's own words"),
        "{refused}"
    );

    let body = "f".repeat(3 << 20);
    let posted = bulkhead
        .hosts()
        .request("POST", "/relay")
        .body("application/x-www-form-urlencoded", &body)
        .send();
    assert_eq!(
        (posted.status, posted.text()),
        (200, body.len().to_string()),
        "a body larger than the plugin's memory for one"
    );
    assert!(
        foreman.connections() <= 2,
        "connections are kept: {}",
        foreman.connections()
    );
}

/// When Foreman does not answer, the plugin decides what the client gets.
#[test]
fn an_unreachable_foreman_is_the_plugins_to_answer() {
    let port = bulkhead_testkit::ports::free();
    let configuration = Configuration::empty();
    let ca = configuration
        .scratch
        .join("tls/ca.pem")
        .display()
        .to_string();
    let section = format!("[foreman]\nurl = \"https://localhost:{port}\"\nca = {ca:?}");
    let grants = "[foreman.register]\nallow = [\"GET /register\"]";
    let bulkhead = Bulkhead::with(configuration.section(&section).plugin(
        "relay",
        bulkhead_fixtures::wasm("relay"),
        grants,
    ));
    let answer = bulkhead.hosts().get("/relay");
    assert_eq!(answer.status, 500, "{answer}");
    assert!(answer.text().contains("exit 1"), "{answer}");
}

/// A feature that calls a provider: two plugins, two instances, joined by the policy.
#[test]
fn a_feature_and_its_provider_are_joined_by_policy() {
    let both = |grants: &str| {
        Configuration::empty()
            .plugin("dns-double", bulkhead_fixtures::wasm("dns-double"), "")
            .plugin(
                "dns-feature",
                bulkhead_fixtures::wasm("dns-feature"),
                grants,
            )
    };
    let bulkhead = Bulkhead::with(both("[call.provider]\nplugin = \"dns-double\""));
    let target = bulkhead.foreman();
    let name = "web01.example.com";
    assert_eq!(
        target
            .post("/dns-trial", &[("name", name), ("value", "192.0.2.1")])
            .text(),
        "created"
    );
    assert_eq!(
        target
            .post("/dns-trial", &[("name", name), ("value", "192.0.2.1")])
            .text(),
        "existed"
    );
    assert_eq!(
        target.get(&format!("/dns-trial/{name}")).text(),
        "[\"192.0.2.1\"]"
    );
    assert_eq!(target.delete(&format!("/dns-trial/{name}")).status, 200);
    assert_eq!(target.delete(&format!("/dns-trial/{name}")).status, 404);

    // Without the grant the feature waits, and the provider is not called.
    let bulkhead = Bulkhead::launch(both(""), &[]);
    assert_eventually!(
        bulkhead
            .admin()
            .request("GET", "/plugins")
            .try_send()
            .is_ok_and(|answer| answer.text().contains("pending")),
        "{}",
        bulkhead.log()
    );
    assert_ne!(
        bulkhead.foreman().get(&format!("/dns-trial/{name}")).status,
        200
    );
}
