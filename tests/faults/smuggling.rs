//! Requests whose end two readers would see in different places. Whoever stands in front must never be able to hide a second
//! request in a first one: what has two readings is refused, and the connection ends.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use bulkhead_testkit::Bulkhead;
use bulkhead_testkit::program::Shared;

use crate::witness::Witness;

static BULKHEAD: Shared = Shared::new(Bulkhead::trial);

/// The hidden request. It must never be started.
const HIDDEN: &str = "GET /hidden-canary HTTP/1.1\r\nHost: x\r\n\r\n";

/// Heads of a POST that have more than one reading, each followed by a body that holds [`HIDDEN`].
const AMBIGUOUS: [(&str, &str); 22] = [
    (
        "both framings",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    ),
    (
        "both framings, other order",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    ),
    ("two lengths", "Content-Length: 5\r\nContent-Length: 6\r\n"),
    ("two lengths in a list", "Content-Length: 5, 6\r\n"),
    ("a signed length", "Content-Length: +5\r\n"),
    ("a negative length", "Content-Length: -5\r\n"),
    ("a hexadecimal length", "Content-Length: 0x5\r\n"),
    ("a length with a space", "Content-Length: 5 0\r\n"),
    (
        "an endless length",
        "Content-Length: 99999999999999999999\r\n",
    ),
    ("an empty length", "Content-Length:\r\n"),
    ("a coding nobody knows", "Transfer-Encoding: xchunked\r\n"),
    (
        "identity after chunked",
        "Transfer-Encoding: chunked, identity\r\n",
    ),
    ("chunked twice", "Transfer-Encoding: chunked, chunked\r\n"),
    (
        "chunked in two lines",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    ),
    (
        "a space before the colon",
        "Transfer-Encoding : chunked\r\n",
    ),
    ("a folded line", "Transfer-Encoding:\r\n chunked\r\n"),
    ("a vertical tab", "Transfer-Encoding: \u{b}chunked\r\n"),
    ("a quoted coding", "Transfer-Encoding: \"chunked\"\r\n"),
    ("a bare line feed", "X: y\nTransfer-Encoding: chunked\r\n"),
    (
        "a bare carriage return",
        "X: y\rTransfer-Encoding: chunked\r\n",
    ),
    ("a zero byte", "Transfer-Encoding: chunked\u{0}\r\n"),
    ("no length at all", ""),
];

#[test]
fn requests_with_two_readings_are_refused_and_end_the_connection() {
    let bulkhead = BULKHEAD.get();
    let witness = Witness::of(&bulkhead);
    for target in [bulkhead.foreman(), bulkhead.foreman_tls(), bulkhead.hosts()] {
        for (name, framing) in AMBIGUOUS {
            let request = format!(
                "POST /tftp/PXELinux/aa:bb:cc:0b:00:01 HTTP/1.1\r\nHost: {}\r\n\
                 Content-Type: application/x-www-form-urlencoded\r\n{framing}\r\n0\r\n\r\n{HIDDEN}",
                target.host()
            );
            let mut connection = target.send(request).unwrap();
            let _ = connection.finish_sending();
            let text = String::from_utf8_lossy(&connection.rest()).into_owned();
            let statuses: Vec<&str> = text
                .lines()
                .filter(|line| line.starts_with("HTTP/1."))
                .collect();
            assert!(statuses.len() <= 1, "{name}: {statuses:?}");
            assert!(
                statuses.first().is_none_or(|line| {
                    ["400", "411", "413", "431", "501"]
                        .iter()
                        .any(|status| line.contains(&format!(" {status} ")))
                }),
                "{name}: {statuses:?}"
            );
        }
    }
    assert!(
        bulkhead.log_lines("hidden-canary").is_empty(),
        "a hidden request was started"
    );
    witness.leave();
}

/// Equal lengths given twice have one reading; refusing them is fine, reading past them is not.
#[test]
fn equal_lengths_given_twice_hide_nothing() {
    let bulkhead = BULKHEAD.get();
    let target = bulkhead.foreman();
    for framing in [
        "Content-Length: 11\r\nContent-Length: 11\r\n",
        "Content-Length: 11, 11\r\n",
    ] {
        let request = format!(
            "POST /tftp/PXELinux/aa:bb:cc:0b:00:02 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
             Content-Type: application/x-www-form-urlencoded\r\n{framing}\r\npxeconfig=x{HIDDEN}"
        );
        let text = String::from_utf8_lossy(&target.send(request).unwrap().rest()).into_owned();
        assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{text}");
    }
    assert!(bulkhead.log_lines("hidden-canary").is_empty());
}

/// A body where none is expected is taken off the connection, not read as the next request.
#[test]
fn a_body_on_a_get_is_not_the_next_request() {
    let bulkhead = BULKHEAD.get();
    for target in [bulkhead.foreman(), bulkhead.hosts()] {
        for (method, path) in [
            ("GET", "/features"),
            ("DELETE", "/tftp/PXELinux/aa:bb:cc:0b:00:03"),
            ("GET", "/nothing"),
        ] {
            let hidden = HIDDEN.len();
            let request = format!(
                "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {hidden}\r\n\r\n{HIDDEN}",
                target.host()
            );
            let next = target.request("GET", "/nothing-else").bytes();
            let mut connection = target.send(request).unwrap();
            connection.response(method).unwrap();
            // The connection may be closed instead of cleaned; what is answered must be the next request.
            if connection.send(next).is_ok()
                && let Ok(answer) = connection.response("GET")
            {
                assert_eq!(answer.status, 404);
            }
        }
    }
    assert!(
        bulkhead.log_lines("hidden-canary").is_empty(),
        "a hidden request was started"
    );
}

/// Odd heads: no method, no version, spaces where none belong, names that are none.
#[test]
fn malformed_heads_are_refused() {
    let bulkhead = BULKHEAD.get();
    let target = bulkhead.foreman();
    for head in [
        "GET\r\n\r\n",
        "GET /features\r\n\r\n",
        "GET /features HTTP/1.1 HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET  /features HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /features HTTP/9.9\r\nHost: x\r\n\r\n",
        "GET /features HTTP/2.0\r\nHost: x\r\n\r\n",
        "GET /feat ures HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /features HTTP/1.1\r\nHost: x\r\nBad Name: y\r\n\r\n",
        "GET /features HTTP/1.1\r\nHost: x\r\n: y\r\n\r\n",
        "GET /features HTTP/1.1\r\nHost: x\r\nNoColon\r\n\r\n",
        "GET /features HTTP/1.1\r\nHost: x\r\nX: a\u{0}b\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut connection = target.send(head).unwrap();
        let _ = connection.finish_sending();
        let text = String::from_utf8_lossy(&connection.rest()).into_owned();
        assert!(
            text.is_empty() || text.starts_with("HTTP/1.1 4") || text.starts_with("HTTP/1.1 505"),
            "{head:?}: {text}"
        );
    }
}

/// What never becomes a request is told with the address it came from and the listener it came to: who attacks can be found.
#[test]
fn who_sends_no_requests_is_named_in_the_log() {
    let bulkhead = BULKHEAD.get();
    for (bytes, told) in [
        ("\u{1}\u{2}\u{3}", "what came is not HTTP"),
        ("NO-REQUEST-1\r\n\r\n", "refused before it was one"),
    ] {
        let mut stream = TcpStream::connect(bulkhead.hosts().address).unwrap();
        let client = stream.local_addr().unwrap().to_string();
        stream.write_all(bytes.as_bytes()).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
        let told: Vec<String> = bulkhead
            .log_lines(&client)
            .into_iter()
            .filter(|line| line.contains(told) && line.contains("listener="))
            .collect();
        assert_eq!(told.len(), 1, "{client}: {}", bulkhead.log());
    }
}

/// RFC 9112 section 3.2: a request of HTTP/1.1 names one host.
#[test]
fn requests_name_one_host() {
    let target = BULKHEAD.get().foreman();
    for headers in ["", "Host: a\r\nHost: b\r\n"] {
        let answer = target
            .send(format!("GET /features HTTP/1.1\r\n{headers}\r\n"))
            .unwrap()
            .response("GET")
            .unwrap();
        assert_eq!(answer.status, 400, "{headers:?}: {answer}");
    }
}
