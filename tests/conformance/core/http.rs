//! contract/core.md 3: behaviour common to all modules, and 3.1, the form of errors.

use std::time::Duration;

use bulkhead_testkit::configuration::SHOWN_VERSION;
use bulkhead_testkit::exchange::FORM;
use bulkhead_testkit::program::Shared;
use bulkhead_testkit::{Bulkhead, Configuration, Response};

use crate::{HTML, JSON};

static BULKHEAD: Shared = Shared::new(Bulkhead::trial);

/// Unknown path, or wrong method on a known path: 404, never 405.
#[test]
fn the_unknown_is_404_and_never_405() {
    let bulkhead = BULKHEAD.get();
    for (method, path) in [
        ("GET", "/"),
        ("GET", "/nothing"),
        ("OPTIONS", "/features"),
        ("PATCH", "/features"),
        ("PUT", "/version"),
        ("POST", "/features"),
        ("DELETE", "/v2/features"),
        ("POST", "/logs"),
        ("PUT", "/tftp/serverName"),
        ("OPTIONS", "/tftp/serverName"),
        ("TRACE", "/tftp/serverName"),
        ("BREW", "/features"),
        ("GET", "/tftp"),
        ("GET", "/tftp/"),
        ("GET", "/v2"),
        ("GET", "/metrics"),
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("GET", "/plugins"),
    ] {
        let target = bulkhead.foreman();
        let mut request = target.request(method, path);
        if matches!(method, "POST" | "PUT" | "PATCH") {
            request = request.body(FORM, "a=b");
        }
        let answer = request.send();
        assert_eq!(answer.status, 404, "{method} {path}: {answer}");
        assert_eq!(answer.content_type(), JSON, "{method} {path}");
        assert_eq!(
            answer.header("x-cascade"),
            Some("pass"),
            "{method} {path}: {answer}"
        );
        assert_eq!(
            answer.text(),
            "Requested url was not found",
            "{method} {path}"
        );
    }
}

/// HEAD is answered like GET, with the same headers and no body, for every GET route.
#[test]
fn head_is_get_without_the_body() {
    let bulkhead = BULKHEAD.get();
    std::fs::write(bulkhead.boot().join("head.efi"), b"0123456789").unwrap();
    for (target, path) in [
        (bulkhead.foreman(), "/features"),
        (bulkhead.foreman(), "/version"),
        (bulkhead.foreman(), "/v2/features"),
        (bulkhead.foreman(), "/tftp/serverName"),
        (bulkhead.foreman(), "/nothing"),
        (bulkhead.hosts(), "/httpboot/head.efi"),
    ] {
        let get = target.get(path);
        let mut connection = target.send(target.request("HEAD", path).bytes()).unwrap();
        let head = connection.response("HEAD").unwrap();
        assert_eq!(head.status, get.status, "{path}");
        assert!(head.body.is_empty());
        for name in [
            "content-type",
            "content-length",
            "last-modified",
            "x-content-type-options",
        ] {
            assert_eq!(head.header(name), get.header(name), "{name} of {path}");
        }
        // No body follows: the next response on this connection begins at once.
        connection
            .send(target.request("GET", path).bytes())
            .unwrap();
        assert_eq!(
            connection.response("GET").unwrap().status,
            get.status,
            "{path}: a body followed HEAD"
        );
    }
}

/// POST, PUT and PATCH without a length: 411, an HTML page.
#[test]
fn bodies_without_a_length_are_411() {
    let target = BULKHEAD.get().foreman();
    for method in ["POST", "PUT", "PATCH"] {
        let answer = target
            .request(method, "/tftp/PXEGrub2/aa:bb:cc:00:03:01")
            .send();
        assert_eq!(
            (answer.status, answer.content_type()),
            (411, HTML),
            "{method}: {answer}"
        );
        assert_page(&answer);
    }
}

/// Chunked bodies are accepted.
#[test]
fn chunked_bodies_are_accepted() {
    let bulkhead = BULKHEAD.get();
    let target = bulkhead.foreman();
    let bytes = format!(
        "POST /tftp/PXELinux/aa:bb:cc:00:03:02 HTTP/1.1\r\nHost: {}\r\nContent-Type: {FORM}\r\n\
         Transfer-Encoding: chunked\r\n\r\nA\r\npxeconfig=\r\n5\r\nwhole\r\n0\r\n\r\n",
        target.host()
    );
    let answer = target.send(bytes).unwrap().response("POST").unwrap();
    assert_eq!(answer.status, 200, "{answer}");
    let written = std::fs::read(bulkhead.boot().join("pxelinux.cfg/01-aa-bb-cc-00-03-02")).unwrap();
    assert_eq!(written, b"whole");
}

/// Deliberately more than the original's 2,083 bytes of request line: registration URLs come near to that. Far beyond: 414, an
/// HTML page.
#[test]
fn long_request_lines_are_accepted_and_endless_ones_are_414() {
    let target = BULKHEAD.get().foreman();
    let answer = target.get(&format!("/features?{}", "x".repeat(4_000)));
    assert_eq!(answer.status, 200, "{answer}");
    let answer = target.get(&format!("/features?{}", "x".repeat(100_000)));
    assert_eq!(
        (answer.status, answer.content_type()),
        (414, HTML),
        "{answer}"
    );
    assert_page(&answer);
}

/// Headers beyond 112 KiB: 413.
#[test]
fn large_heads_are_413() {
    let target = BULKHEAD.get().foreman();
    let accepted = target
        .request("GET", "/features")
        .header("X-Padding", &"x".repeat(60 * 1024))
        .send();
    assert_eq!(accepted.status, 200, "{accepted}");
    let refused = target
        .request("GET", "/features")
        .header("X-Padding", &"x".repeat(200 * 1024))
        .send();
    assert_eq!(refused.status, 413, "{refused}");
}

/// A body beyond the limit of the route: 413, and nothing is written.
#[test]
fn large_bodies_are_413() {
    let bulkhead = BULKHEAD.get();
    let target = bulkhead.foreman();
    let body = format!("pxeconfig={}", "x".repeat(3 << 20));
    let answer = target
        .request("POST", "/tftp/PXELinux/aa:bb:cc:00:03:03")
        .body(FORM, &body)
        .send();
    assert_eq!(answer.status, 413, "{answer}");
    assert!(
        !bulkhead
            .boot()
            .join("pxelinux.cfg/01-aa-bb-cc-00-03-03")
            .exists()
    );
}

/// A request that is begun and not finished: 408 after the time the operator allows.
#[test]
fn an_unfinished_request_is_408() {
    let bulkhead = Bulkhead::with(
        Configuration::empty().listener_keys("limits = { head_time = \"1s\", idle = \"1s\" }"),
    );
    let mut connection = bulkhead
        .foreman()
        .send("GET /features HTTP/1.1\r\nHost: loc")
        .unwrap();
    let answer = connection.response("GET").unwrap();
    assert_eq!(answer.status, 408, "{answer}");
    assert!(connection.closes_within(Duration::from_secs(5)));
}

/// A form whose `%` escapes are broken.
#[test]
fn broken_escapes_in_a_form_are_400() {
    let target = BULKHEAD.get().foreman();
    let answer = target
        .request("POST", "/tftp/PXEGrub2/aa:bb:cc:00:03:04")
        .body(FORM, "pxeconfig=%zz")
        .send();
    answer.assert_is(
        400,
        HTML,
        "Invalid query parameters: invalid %-encoding (%zz)",
    );
}

/// The guard against pages that load JSON as a script.
#[test]
fn json_is_not_shown_to_a_foreign_page() {
    let target = BULKHEAD.get().foreman();
    let foreign = || {
        target
            .request("GET", "/features")
            .header("Referer", "http://evil.example.net/page")
    };
    let answer = foreign().send();
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (403, "Forbidden"),
        "{answer}"
    );
    assert!(answer.content_type().starts_with("text/plain"), "{answer}");
    for (name, value) in [
        ("X-Requested-With", "XMLHttpRequest"),
        ("Origin", "http://evil.example.net"),
    ] {
        let answer = foreign().header(name, value).send();
        assert_eq!(answer.status, 200, "with {name}: {answer}");
    }
    let own = format!("http://{}/page", target.host());
    assert_eq!(
        target
            .request("GET", "/features")
            .header("Referer", &own)
            .send()
            .status,
        200
    );
}

/// The headers of every response.
#[test]
fn every_answer_carries_the_default_headers() {
    let bulkhead = BULKHEAD.get();
    std::fs::write(bulkhead.boot().join("headers.efi"), b"boot").unwrap();
    for (target, path) in [
        (bulkhead.foreman(), "/features"),
        (bulkhead.foreman(), "/nothing"),
        (bulkhead.foreman(), "/tftp/serverName"),
        (bulkhead.hosts(), "/httpboot/headers.efi"),
        (bulkhead.hosts(), "/httpboot/absent"),
        (bulkhead.foreman_tls_as(None), "/v2/features"),
    ] {
        let answer = target.get(path);
        assert_eq!(
            answer.header("server"),
            Some(format!("foreman-proxy/{SHOWN_VERSION}").as_str()),
            "{path}: {answer}"
        );
        assert_eq!(
            answer.header("x-content-type-options"),
            Some("nosniff"),
            "{path}: {answer}"
        );
        assert_eq!(
            answer.header("content-length"),
            Some(answer.body.len().to_string().as_str()),
            "{path}: {answer}"
        );
        assert!(
            answer
                .header("date")
                .is_some_and(|date| date.ends_with(" GMT")),
            "{path}: {answer}"
        );
        assert!(
            answer
                .header("connection")
                .is_some_and(|value| value.eq_ignore_ascii_case("keep-alive")),
            "{path}: {answer}"
        );
        let html = answer.content_type().starts_with("text/html");
        assert_eq!(
            answer.header("x-xss-protection"),
            html.then_some("1; mode=block"),
            "{path}: {answer}"
        );
        assert_eq!(
            answer.header("x-frame-options"),
            html.then_some("SAMEORIGIN"),
            "{path}: {answer}"
        );
    }
}

/// `text/html;charset=utf-8` is the type of whatever sets none, even of JSON.
#[test]
fn the_default_content_type_is_html_even_for_json_text() {
    let answer = BULKHEAD.get().foreman().get("/tftp/serverName");
    answer.assert_is(200, HTML, "{\"serverName\":\"\"}");
}

/// JSON routes say `application/json` without charset.
#[test]
fn json_routes_have_no_charset() {
    let target = BULKHEAD.get().foreman();
    for path in ["/features", "/version", "/v2/features", "/logs", "/logs/"] {
        let answer = target.get(path);
        assert_eq!(
            (answer.status, answer.content_type()),
            (200, JSON),
            "{path}: {answer}"
        );
    }
}

/// No compression, no redirects, no cookies, no HTTP/2.
#[test]
fn nothing_is_compressed_redirected_or_upgraded() {
    let target = BULKHEAD.get().foreman();
    for path in ["/features", "/v2/features", "/logs/", "/tftp/serverName"] {
        let answer = target
            .request("GET", path)
            .as_foreman()
            .header("Connection", "Upgrade, HTTP2-Settings")
            .header("Upgrade", "h2c")
            .header("HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA")
            .send();
        assert_eq!(answer.status, 200, "{path}: {answer}");
        assert!(answer.status_line.starts_with("HTTP/1.1 "), "{answer}");
        for header in ["content-encoding", "set-cookie", "location", "upgrade"] {
            assert_eq!(answer.header(header), None, "{path}: {answer}");
        }
    }
}

/// HTTP/1.0 is accepted, and ends the connection.
#[test]
fn http_1_0_is_accepted() {
    let target = BULKHEAD.get().foreman();
    let mut connection = target.send("GET /features HTTP/1.0\r\n\r\n").unwrap();
    let answer = connection.response("GET").unwrap();
    assert_eq!(answer.status, 200, "{answer}");
    assert!(connection.closes_within(Duration::from_secs(5)));
}

/// Several requests on one connection, as browsers and load balancers send them.
#[test]
fn connections_are_kept() {
    let target = BULKHEAD.get().foreman();
    let mut connection = target.open().unwrap();
    for path in [
        "/features",
        "/nothing",
        "/version",
        "/tftp/serverName",
        "/features",
    ] {
        connection
            .send(target.request("GET", path).bytes())
            .unwrap();
        assert!(connection.response("GET").unwrap().status > 0, "{path}");
    }
    // Also when they are sent without waiting.
    let two = [
        target.request("GET", "/features").bytes(),
        target.request("GET", "/nothing").bytes(),
    ]
    .concat();
    connection.send(two).unwrap();
    assert_eq!(connection.response("GET").unwrap().status, 200);
    assert_eq!(connection.response("GET").unwrap().status, 404);
}

/// 3.1: a deliberate error is plain text, labelled JSON where the client admits that.
#[test]
fn errors_are_plain_text_labelled_by_accept() {
    let target = BULKHEAD.get().foreman();
    let text = "Invalid MAC address: nonsense";
    for (accept, expected) in [
        (None, JSON),
        (Some("*/*"), JSON),
        (Some("application/*"), JSON),
        (Some("application/json"), JSON),
        (Some("application/json,version=2"), JSON),
        (Some("application/json;version=2"), JSON),
        (Some("text/html, application/json;q=0.5"), JSON),
        (Some("text/html"), HTML),
        (Some("text/plain"), HTML),
    ] {
        let mut request = target.request("GET", "/tftp/PXEGrub2/nonsense");
        if let Some(accept) = accept {
            request = request.header("Accept", accept);
        }
        let answer = request.send();
        assert_eq!(
            (answer.status, answer.content_type(), answer.text().as_str()),
            (403, expected, text),
            "Accept: {accept:?}"
        );
    }
}

/// The original shows a stack trace for a nested key where it expects text. Nothing of the kind leaves this program.
#[test]
fn stack_traces_never_leave() {
    let target = BULKHEAD.get().foreman();
    for body in [
        "pxeconfig[]=A",
        "pxeconfig[a]=b",
        "pxeconfig[a][b][]=c",
        "pxeconfig",
        "=",
        "&&&",
        "pxeconfig=%00",
    ] {
        let answer = target
            .request("POST", "/tftp/PXEGrub2/aa:bb:cc:00:03:05")
            .body(FORM, body)
            .send();
        for trace in ["backtrace", "panicked", ".rs:", "wasm", "stack", "0x"] {
            assert!(!answer.text().contains(trace), "{body}: {answer}");
        }
        assert!(matches!(answer.status, 200 | 400), "{body}: {answer}");
    }
}

#[track_caller]
fn assert_page(answer: &Response) {
    assert!(
        answer.text().to_ascii_lowercase().contains("<html"),
        "not a page: {answer}"
    );
}
