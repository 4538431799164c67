//! Large bodies in either direction: they pass through byte for byte, and do not stay.

use std::time::Duration;

use bulkhead_testkit::foreman::{Foreman, reply};
use bulkhead_testkit::{Bulkhead, Configuration};
use sha2::{Digest as _, Sha256};

use crate::memory::most_while;

const SIZE: usize = 1 << 30;
/// Beyond what it takes when idle.
const ALLOWED: u64 = 16 << 20;

/// Bytes in which no piece is like another, so that none can be lost, doubled or moved unseen.
fn pattern() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(SIZE);
    while bytes.len() < SIZE {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

fn digest(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Registration in both directions, with a length and in chunks; a template in the one that it has.
#[test]
fn large_bodies_pass_in_flat_memory() {
    let configuration = Configuration::standard().policy(
        "registration",
        "[foreman.register]\nallow = [\"GET /register\", \"POST /register\"]\ntimeout = \"60s\"\n[limits]\nforward-body = \"1GiB\"",
    );
    let body = pattern();
    let expected = digest(&body);
    let sent = body.clone();
    let foreman = Foreman::answering(&configuration.authority, move |request| {
        if request.line().starts_with("POST") {
            return reply("200 OK", "text/plain", &digest(&request.content()));
        }
        let (framing, body) = match request.line() {
            line if line.contains("large=chunks") => (
                "Transfer-Encoding: chunked".to_owned(),
                chunked(&sent, 100_000),
            ),
            line if line.contains("large") => {
                (format!("Content-Length: {}", sent.len()), sent.clone())
            }
            _ => ("Content-Length: 0".to_owned(), Vec::new()),
        };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n{framing}\r\n\r\n");
        [head.into_bytes(), body].concat()
    });
    let bulkhead = Bulkhead::with(
        configuration
            .foreman(&foreman)
            .feature("registration", "enabled = true")
            .feature(
                "templates",
                "enabled = true\ntemplate_url = \"http://proxy.example.com\"",
            ),
    );
    let hosts = bulkhead.hosts();
    assert_eq!(hosts.get("/register").status, 200);
    assert_eq!(hosts.get("/unattended/provision").status, 200);
    let idle = bulkhead.usage().resident;
    let mut seen = Vec::new();
    for path in [
        "/register?large=1",
        "/register?large=chunks",
        "/unattended/provision?large=1",
    ] {
        let most = most_while(&bulkhead, || {
            let answer = hosts.get(path);
            assert_eq!(answer.body.len(), SIZE);
            assert_eq!(digest(&answer.body), expected, "{path}");
        });
        seen.push((path, most));
    }
    for framing in ["with a length", "in chunks"] {
        let most = most_while(&bulkhead, || {
            let request = hosts.request("POST", "/register");
            let answer = if framing == "in chunks" {
                let head = request
                    .header("Content-Type", "text/plain")
                    .header("Transfer-Encoding", "chunked")
                    .bytes();
                let mut connection = hosts.send(head).unwrap();
                connection.patience(Duration::from_secs(60));
                connection.send(chunked(&body, 100_000)).unwrap();
                connection.response("POST").unwrap()
            } else {
                request.body("text/plain", &body).send()
            };
            assert_eq!(answer.text(), expected, "{framing}");
        });
        seen.push((framing, most));
    }
    println!("idle {idle}, most {seen:?}");
    for (what, most) in seen {
        assert!(most <= idle + ALLOWED, "{what}: {most} bytes, idle {idle}");
    }
}

/// In chunks of this size.
fn chunked(bytes: &[u8], size: usize) -> Vec<u8> {
    let mut framed = Vec::with_capacity(bytes.len() + bytes.len() / 1000);
    for piece in bytes.chunks(size) {
        framed.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        framed.extend_from_slice(piece);
        framed.extend_from_slice(b"\r\n");
    }
    framed.extend_from_slice(b"0\r\n\r\n");
    framed
}
