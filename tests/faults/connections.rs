//! Clients that mean harm by how they speak: slowly, endlessly, or not HTTP at all.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bulkhead_testkit::{Bulkhead, Configuration, Target, assert_eventually};

use crate::witness::Witness;

/// Short limits, so that a test sees the end of what is slow.
const LIMITS: &str = "limits = { head_time = \"3s\", idle = \"3s\", body_idle = \"3s\", body_time = \"5s\", send_stall = \"3s\", handshake = \"3s\" }";

fn bulkhead() -> Bulkhead {
    raise_descriptor_limit();
    Bulkhead::with(Configuration::standard().listener_keys(LIMITS))
}

/// Thousands of connections need as many descriptors on this side too.
pub(crate) fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    )
    .unwrap();
}

/// The doors that are attacked: each kind of listener, Foreman's own among them.
fn doors(bulkhead: &Bulkhead) -> [(&'static str, Target); 4] {
    [
        ("hosts over http", bulkhead.hosts()),
        ("hosts over tls", bulkhead.hosts_tls_as(None)),
        ("foreman over http", bulkhead.foreman()),
        ("foreman over tls", bulkhead.foreman_tls()),
    ]
}

/// Fails unless what a third round leaves behind is what the second left: a first one fills caches, a leak grows with each.
#[track_caller]
fn assert_no_growth(bulkhead: &Bulkhead, mut round: impl FnMut()) {
    let idle = bulkhead.usage();
    let mut round_and_rest = || {
        round();
        assert_eventually!(
            bulkhead.usage().descriptors <= idle.descriptors + 8,
            "descriptors grew from {} to {}",
            idle.descriptors,
            bulkhead.usage().descriptors
        );
        bulkhead.usage()
    };
    round_and_rest();
    let before = round_and_rest();
    let after = round_and_rest();
    // Allocators keep some; a leak of 2,000 connections would be far above it.
    let allowed = before.resident + (12 << 20);
    assert!(
        after.resident <= allowed,
        "memory grew from {} to {} bytes",
        before.resident,
        after.resident
    );
    // Threads for files stay some seconds after their last work.
    assert_eventually!(
        bulkhead.usage().threads <= before.threads + 4,
        "threads grew from {} to {}",
        before.threads,
        bulkhead.usage().threads
    );
}

/// 2,000 connections that send a byte now and then, on the hosts' listener and on Foreman's own.
#[test]
fn two_thousand_slow_connections_do_not_keep_foreman_out() {
    let bulkhead = bulkhead();
    for target in [bulkhead.hosts(), bulkhead.foreman_tls().without_tls()] {
        assert_no_growth(&bulkhead, || {
            let witness = Witness::of(&bulkhead);
            let mut slow: Vec<TcpStream> = Vec::new();
            for _ in 0..2_000 {
                // Beyond the listener's limit a connection may be refused or closed: that is its right.
                if let Ok(stream) =
                    TcpStream::connect_timeout(&target.address, Duration::from_secs(5))
                {
                    let _ = stream.set_nonblocking(true);
                    slow.push(stream);
                }
            }
            assert!(
                slow.len() > 1_000,
                "only {} connections were made",
                slow.len()
            );
            for piece in [b"G", b"E", b"T", b" ", b"/", b"x"] {
                for stream in &mut slow {
                    // Closed by the server, or full: both are fine.
                    let _ = stream.write(piece);
                }
                std::thread::sleep(Duration::from_millis(300));
            }
            witness.leave();
        });
    }
}

/// Connections that say nothing are closed, those that never finish a head as well.
#[test]
fn silent_and_unfinished_connections_are_closed() {
    let bulkhead = bulkhead();
    for (name, target) in doors(&bulkhead) {
        let mut silent = target.without_tls().open().unwrap();
        let mut unfinished = target
            .send("GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
            .unwrap();
        assert!(
            silent.closes_within(Duration::from_secs(10)),
            "{name}: a silent connection stays"
        );
        assert!(
            unfinished.closes_within(Duration::from_secs(10)),
            "{name}: an unfinished head stays"
        );
    }
}

/// A byte every half second keeps the connection alive, but not the request.
#[test]
fn a_head_that_trickles_in_is_ended() {
    let bulkhead = bulkhead();
    let mut connection = bulkhead.hosts().send("GET / HTTP/1.1\r\n").unwrap();
    let start = Instant::now();
    let mut closed = false;
    while start.elapsed() < Duration::from_secs(15) {
        if connection.send("x").is_err() {
            closed = true;
            break;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    assert!(closed, "it was still taken after {:?}", start.elapsed());
}

/// A body that was announced and never comes.
#[test]
fn a_body_that_never_comes_is_ended() {
    let bulkhead = bulkhead();
    for framing in ["Content-Length: 100", "Transfer-Encoding: chunked"] {
        let head = format!(
            "POST /tftp/PXELinux/aa:bb:cc:0a:00:01 HTTP/1.1\r\nHost: x\r\n\
             Content-Type: application/x-www-form-urlencoded\r\n{framing}\r\n\r\n"
        );
        let mut connection = bulkhead.foreman().send(head).unwrap();
        connection.patience(Duration::from_secs(10));
        let start = Instant::now();
        let text = String::from_utf8_lossy(&connection.rest()).into_owned();
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "{framing}: it stays open"
        );
        assert!(
            text.is_empty() || text.starts_with("HTTP/1.1 408 "),
            "{framing}: {text}"
        );
        assert!(
            !bulkhead
                .boot()
                .join("pxelinux.cfg/01-aa-bb-cc-0a-00-01")
                .exists()
        );
    }
}

/// Headers without end: refused after a bounded number of bytes, whether in one line or in many.
#[test]
fn endless_headers_are_refused() {
    let bulkhead = bulkhead();
    let witness = Witness::of(&bulkhead);
    let line = format!("X-Filler: {}\r\n", "y".repeat(1_000));
    for (name, target) in doors(&bulkhead) {
        for piece in [line.as_bytes(), &[b'x'; 1_000]] {
            let mut connection = target
                .send("GET /features HTTP/1.1\r\nHost: x\r\n")
                .unwrap();
            let sent = (0..64_000_usize).find(|_| connection.send(piece).is_err());
            assert!(
                sent.is_some_and(|count| count < 20_000),
                "{name}: {sent:?} kB were taken"
            );
        }
    }
    witness.leave();
}

/// Request lines of 1 MB: refused.
#[test]
fn request_lines_of_a_megabyte_are_refused() {
    let bulkhead = bulkhead();
    let witness = Witness::of(&bulkhead);
    assert_no_growth(&bulkhead, || {
        for (name, target) in doors(&bulkhead) {
            for _ in 0..20 {
                let line = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(1_000_000));
                let Ok(mut connection) = target.open() else {
                    panic!("{name}: no connection")
                };
                // The refusal may come before all was sent.
                let _ = connection.send(&line);
                let text = String::from_utf8_lossy(&connection.rest()).into_owned();
                assert!(
                    text.is_empty() || text.starts_with("HTTP/1.1 414 "),
                    "{name}: {}",
                    &text[..text.len().min(200)]
                );
            }
        }
    });
    witness.leave();
    // At least a client that reads gets to know why.
    assert_eq!(
        bulkhead
            .hosts()
            .get(&format!("/{}", "a".repeat(60_000)))
            .status,
        414
    );
}

/// A thousand header lines, and one name a thousand times.
#[test]
fn a_thousand_header_lines_are_refused() {
    let bulkhead = bulkhead();
    for (name, target) in doors(&bulkhead) {
        let lines: String = (0..1_000).map(|n| format!("X-{}: 1\r\n", n % 7)).collect();
        let request = format!(
            "GET /features HTTP/1.1\r\nHost: {}\r\n{lines}\r\n",
            target.host()
        );
        let answer = target.send(request).unwrap().response("GET").unwrap();
        assert!(matches!(answer.status, 400 | 413 | 431), "{name}: {answer}");
    }
}

/// TLS on a port that speaks HTTP, HTTP on one that speaks TLS, and bytes that are neither.
#[test]
fn the_wrong_protocol_is_closed_cleanly() {
    let bulkhead = bulkhead();
    let witness = Witness::of(&bulkhead);
    let hello = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice(),
        &[0x2a; 500],
    ]
    .concat();
    let noise: Vec<u8> = (0..100_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let http = b"GET /features HTTP/1.1\r\nHost: x\r\n\r\n".to_vec();
    assert_no_growth(&bulkhead, || {
        for (name, target) in doors(&bulkhead) {
            let speaks_tls = target.tls.is_some();
            let wrong = if speaks_tls { &http } else { &hello };
            for bytes in [
                wrong,
                &noise,
                &vec![0; 1_000],
                &vec![b'\n'; 1_000],
                &b"\x80\x2e\x01\x00\x02".to_vec(),
            ] {
                for _ in 0..20 {
                    let mut connection = target.without_tls().open().unwrap();
                    let _ = connection.send(bytes);
                    let _ = connection.finish_sending();
                    connection.patience(Duration::from_secs(10));
                    let answer = connection.rest();
                    let text = String::from_utf8_lossy(&answer);
                    let refused = text.starts_with("HTTP/1.1 4") || text.starts_with("HTTP/1.1 5");
                    let alert = answer.first() == Some(&21);
                    assert!(answer.is_empty() || refused || alert, "{name}: {text:?}");
                }
            }
        }
    });
    witness.leave();
}

/// A handshake that is begun and left: closed in its time.
#[test]
fn unfinished_handshakes_are_closed() {
    let bulkhead = bulkhead();
    let witness = Witness::of(&bulkhead);
    for target in [bulkhead.foreman_tls(), bulkhead.hosts_tls_as(None)] {
        for bytes in [
            b"".as_slice(),
            b"\x16",
            b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03",
        ] {
            let mut connection = target.without_tls().open().unwrap();
            connection.send(bytes).unwrap();
            assert!(
                connection.closes_within(Duration::from_secs(10)),
                "{bytes:?}: it stays open"
            );
        }
    }
    witness.leave();
}

/// Malformed chunks: an error and the end of the connection, and nothing is written.
#[test]
fn malformed_chunks_are_refused() {
    let bulkhead = bulkhead();
    let witness = Witness::of(&bulkhead);
    let file = bulkhead.boot().join("pxelinux.cfg/01-aa-bb-cc-0a-00-02");
    for chunks in [
        "xyz\r\npxeconfig=x\r\n0\r\n\r\n",
        "-5\r\npxeco\r\n0\r\n\r\n",
        "0x5\r\npxeco\r\n0\r\n\r\n",
        "FFFFFFFFFFFFFFFF\r\npxeconfig=x",
        "FFFFFFFFFFFFFFFFF\r\npxeconfig=x",
        "5\r\npxeconfig=x\r\n0\r\n\r\n",
        "B\r\npxeconfig=xXX0\r\n\r\n",
        "B\npxeconfig=x\n0\n\n",
        " B\r\npxeconfig=x\r\n0\r\n\r\n",
        "B;a=b\nc\r\npxeconfig=x\r\n0\r\n\r\n",
        "\r\n\r\n",
    ] {
        let request = format!(
            "POST /tftp/PXELinux/aa:bb:cc:0a:00:02 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\
             Content-Type: application/x-www-form-urlencoded\r\n\r\n{chunks}"
        );
        let mut connection = bulkhead.foreman().send(request).unwrap();
        let _ = connection.finish_sending();
        let text = String::from_utf8_lossy(&connection.rest()).into_owned();
        assert!(
            text.is_empty() || text.starts_with("HTTP/1.1 4"),
            "{chunks:?}: {text}"
        );
        assert!(text.matches("HTTP/1.1 ").count() <= 1, "{chunks:?}: {text}");
        assert!(!file.exists(), "{chunks:?} was written");
    }
    witness.leave();
}

/// Chunk extensions and trailers without end cost nothing either.
#[test]
fn endless_chunk_extensions_and_trailers_are_refused() {
    let bulkhead = bulkhead();
    let head = "POST /tftp/PXELinux/aa:bb:cc:0a:00:03 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\
                Content-Type: application/x-www-form-urlencoded\r\n\r\n";
    for (start, piece) in [
        ("1;", "a".repeat(1_000)),
        ("0\r\n", format!("X: {}\r\n", "b".repeat(1_000))),
        ("", "1;x\r\na\r\n".repeat(100)),
    ] {
        let mut connection = bulkhead.foreman().send([head, start].concat()).unwrap();
        let sent = (0..64_000_usize).find(|_| connection.send(&piece).is_err());
        assert!(sent.is_some(), "{start:?}: 64 MB were taken");
    }
}

/// A client that asks for much and reads nothing is dropped.
#[test]
fn readers_that_stop_reading_are_dropped() {
    let bulkhead = bulkhead();
    std::fs::write(bulkhead.boot().join("large"), vec![0; 64 << 20]).unwrap();
    let before = bulkhead.usage();
    let witness = Witness::of(&bulkhead);
    let stalled: Vec<_> = (0..100)
        .map(|_| {
            bulkhead
                .hosts()
                .send(bulkhead.hosts().request("GET", "/httpboot/large").bytes())
                .unwrap()
        })
        .collect();
    assert_eventually!(
        bulkhead.usage().descriptors <= before.descriptors + 20,
        "{} descriptors are open, {} before",
        bulkhead.usage().descriptors,
        before.descriptors
    );
    let after = bulkhead.usage();
    assert!(
        after.resident < before.resident + (64 << 20),
        "stalled readers hold {} bytes",
        after.resident - before.resident
    );
    drop(stalled);
    witness.leave();
}

/// Clients that leave in the middle: of a head, of a body, before the answer.
#[test]
fn clients_that_leave_cost_nothing() {
    let bulkhead = bulkhead();
    let witness = Witness::of(&bulkhead);
    assert_no_growth(&bulkhead, || {
        for n in 0..300 {
            let target = bulkhead.foreman();
            let whole = target
                .request("POST", "/tftp/PXELinux/aa:bb:cc:0a:00:04")
                .form(&[("pxeconfig", &"x".repeat(2_000))])
                .bytes();
            let _ = target.send(&whole[..whole.len() * (n % 10 + 1) / 10]);
        }
    });
    witness.leave();
}
