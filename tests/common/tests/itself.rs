//! The kit holds the program to account; this holds the kit to account.

// A test may fail loudly.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use bulkhead_testkit::foreman::{Foreman, reply};
use bulkhead_testkit::load::Load;
use bulkhead_testkit::medium::{LAST_MODIFIED, Medium};
use bulkhead_testkit::{Authority, Target, assert_eventually, ports};

/// A server that answers each connection with these bytes, whatever is asked, and closes.
fn answering(bytes: &'static [u8]) -> Target {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer);
            let _ = stream.write_all(bytes);
        }
    });
    Target::plain(address)
}

#[test]
fn responses_are_taken_apart_whatever_their_framing() {
    for (bytes, body) in [
        (&b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef"[..], "abc"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x=y\r\nc\r\n0\r\nT: x\r\n\r\n", "abc"),
        (b"HTTP/1.0 200 OK\r\n\r\nabc", "abc"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", "abc"),
    ] {
        assert_eq!(answering(bytes).get("/").text(), body);
    }
}

#[test]
fn truncated_and_malformed_responses_are_errors() {
    for bytes in [
        &b""[..],
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"\x15\x03\x03\x00\x02\x02\x46",
        b"ICY 200 OK\r\n\r\n",
    ] {
        assert!(
            answering(bytes).request("GET", "/").try_send().is_err(),
            "{bytes:?}"
        );
    }
}

#[test]
fn requests_go_out_byte_for_byte() {
    let target = Target::plain(SocketAddr::from(([127, 0, 0, 1], 9)));
    let bytes = target
        .request("POST", "/dns/")
        .header("X", "y")
        .form(&[("a[]", "b c&d"), ("ü", "")])
        .bytes();
    assert_eq!(
        String::from_utf8(bytes).unwrap(),
        "POST /dns/ HTTP/1.1\r\nHost: localhost:9\r\nX: y\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: 22\r\n\r\na[]=b+c%26d&%C3%BC="
            .replace("22", &"a[]=b+c%26d&%C3%BC=".len().to_string())
    );
}

#[test]
fn the_stand_in_for_foreman_lets_only_its_own_clients_in() {
    let authority = Authority::root("CA");
    let foreman = Foreman::answering(&authority, |request| {
        reply("200 OK", "text/plain", request.line())
    });
    let as_client =
        |identity: Option<&_>| Target::tls(foreman.address, authority.client_config(identity));
    let client = authority.client(Some("proxy"), &["proxy.example.com"]);
    let answer = as_client(Some(&client))
        .request("POST", "/api/x")
        .body("text/plain", "hello")
        .send();
    assert_eq!(answer.text(), "POST /api/x HTTP/1.1");
    let recorded = foreman.requests();
    assert_eq!(
        (recorded.len(), recorded[0].body.as_slice()),
        (1, &b"hello"[..])
    );
    assert_eq!(
        recorded[0].certificate.as_deref(),
        Some(&*client.chain()[0])
    );
    let stranger = Authority::root("Another").client(Some("proxy"), &[]);
    for identity in [None, Some(&stranger)] {
        assert!(as_client(identity).request("GET", "/").try_send().is_err());
    }
    assert_eq!(foreman.requests().len(), 1);
}

#[test]
fn the_medium_behaves_as_its_paths_say() {
    let medium = Medium::start();
    medium.put("x", "0123456789");
    let target = Target::plain(medium.address);
    assert_eq!(target.get("/file/x").text(), "0123456789");
    assert_eq!(target.get("/slow/x").text(), "0123456789");
    assert_eq!(target.get("/file/absent").status, 404);
    assert_eq!(target.get("/status/503").status, 503);
    assert_eq!(
        target
            .request("GET", "/file/x")
            .header("If-Modified-Since", LAST_MODIFIED)
            .send()
            .status,
        304
    );
    let part = target
        .request("GET", "/file/x")
        .header("Range", "bytes=4-")
        .send();
    assert_eq!(
        (
            part.status,
            part.text().as_str(),
            part.header("content-range")
        ),
        (206, "456789", Some("bytes 4-9/10"))
    );
    medium.redirect("r", "http://a/b");
    assert_eq!(
        target.get("/redirect/r").header("location"),
        Some("http://a/b")
    );
    assert!(
        target.request("GET", "/reset/x").try_send().is_err(),
        "the first time it is cut"
    );
    assert_eq!(target.get("/reset/x").text(), "0123456789");
    assert_eq!(medium.requests().len(), 9);
}

#[test]
fn the_load_generator_counts_what_failed() {
    let medium = Medium::start();
    medium.put("x", "0123456789");
    let target = Target::plain(medium.address);
    let load = Load::full(4, Duration::from_millis(300));
    let good = load.get(&target, "/file/x");
    assert!(
        good.failures.is_empty() && good.latencies.len() > 20,
        "{good}"
    );
    assert_eq!(good.bytes, 10 * good.latencies.len() as u64);
    assert!(good.percentile(0.5) <= good.percentile(0.99));
    let bad = load.get(&target, "/file/absent");
    assert!(
        bad.latencies.is_empty() && bad.failures[0] == "status 404",
        "{bad}"
    );
    let nobody = Load::full(1, Duration::from_millis(100))
        .get(&Target::plain(([127, 0, 0, 1], ports::free()).into()), "/");
    assert!(
        nobody.latencies.is_empty() && !nobody.failures.is_empty(),
        "{nobody}"
    );
}

#[test]
fn slow_readers_measure_as_slow() {
    let medium = Medium::start();
    medium.put("x", vec![0; 20]);
    let measured =
        Load::full(2, Duration::from_millis(600)).get(&Target::plain(medium.address), "/slow/x");
    assert!(
        measured.percentile(0.5) > Duration::from_millis(300),
        "{measured}"
    );
}

#[test]
fn waiting_ends_when_the_condition_holds() {
    let start = Instant::now();
    assert_eventually!(start.elapsed() > Duration::from_millis(50));
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn closing_is_seen_and_silence_is_not_taken_for_it() {
    let closing = answering(b"bye");
    assert!(
        closing
            .send("x")
            .unwrap()
            .closes_within(Duration::from_secs(5))
    );
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut silent = Target::plain(listener.local_addr().unwrap())
        .open()
        .unwrap();
    assert!(!silent.closes_within(Duration::from_millis(200)));
}
