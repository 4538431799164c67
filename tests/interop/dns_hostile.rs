//! A DNS server that means harm, before the whole program: nothing it says is believed, nothing hangs, nobody else suffers.
//!
//! One server plays all parts; the first label of the name that is asked for says which.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bulkhead_testkit::{Bulkhead, Configuration, Scratch, ports};

/// The parts. Each is played over UDP and over TCP.
const PARTS: [&str; 10] = [
    "silent", "wrong-id", "forged", "loop", "junk", "drip", "closes", "mirror", "short", "counts",
];

/// Those that a removal meets too.
const REMOVED: [&str; 3] = ["silent", "forged", "junk"];

/// An operation ends within 26 seconds; the rest is for a machine that is busy.
const LONGEST: Duration = Duration::from_secs(29);

/// The first label of the question.
fn part_of(request: &[u8]) -> String {
    let length = request.get(12).map_or(0, |length| usize::from(*length));
    String::from_utf8_lossy(request.get(13..13 + length).unwrap_or_default()).into_owned()
}

/// The question with the head of a "yes", and what a part makes of it.
fn answers(request: &[u8], tcp: bool) -> Vec<Vec<u8>> {
    let mut yes = request.to_vec();
    yes[2] |= 0x84;
    yes[3] = 0;
    match part_of(request).as_str() {
        "wrong-id" => {
            yes[0] ^= 0x55;
            vec![yes]
        }
        // The right id and question, a made-up authority, no signature or the request's own.
        "forged" => {
            let mut bare = request[..12].to_vec();
            bare[2] |= 0x84;
            bare[4..12].fill(0);
            vec![bare, yes]
        }
        // A name that points at itself, and two that point at each other.
        "loop" => {
            let head = |more: &[u8]| {
                let mut bytes = request[..12].to_vec();
                bytes[2] |= 0x80;
                bytes[4..12].copy_from_slice(&[0, 1, 0, 1, 0, 0, 0, 0]);
                bytes.extend_from_slice(more);
                bytes
            };
            vec![
                head(&[0xc0, 12, 0, 6, 0, 1]),
                head(&[0xc0, 14, 0xc0, 12, 0, 6, 0, 1]),
                head(&[1, b'a', 0xc0, 12, 0, 6, 0, 1]),
            ]
        }
        "junk" if tcp => vec![vec![0xff; 65_535]],
        "junk" => vec![
            vec![0xff; 65_000],
            vec![0; 65_000],
            vec![0xc0; 17],
            Vec::new(),
        ],
        "drip" | "closes" if !tcp => {
            yes[2] |= 0x02;
            vec![yes]
        }
        "mirror" => vec![request.to_vec()],
        "short" => vec![
            yes[..11].to_vec(),
            yes[..13].to_vec(),
            yes[..yes.len() - 1].to_vec(),
        ],
        // Promises 65,535 records in each section.
        "counts" => {
            yes[4..12].fill(0xff);
            vec![yes]
        }
        _ => Vec::new(),
    }
}

/// Plays until the test program ends.
fn hostile() -> u16 {
    let port = ports::free();
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    std::thread::spawn(move || {
        let mut bytes = vec![0; 65_535];
        while let Ok((length, peer)) = udp.recv_from(&mut bytes) {
            for answer in answers(&bytes[..length], false) {
                let _ = udp.send_to(&answer, peer);
            }
        }
    });
    std::thread::spawn(move || {
        for mut stream in tcp.incoming().flatten() {
            std::thread::spawn(move || {
                let _ = stream.set_read_timeout(Some(LONGEST));
                let mut length = [0; 2];
                if stream.read_exact(&mut length).is_err() {
                    return;
                }
                let mut request = vec![0; usize::from(u16::from_be_bytes(length))];
                if stream.read_exact(&mut request).is_err() {
                    return;
                }
                match part_of(&request).as_str() {
                    "closes" => return,
                    "drip" => {
                        let _ = stream.write_all(&[0xff, 0xff]);
                        while stream.write_all(&[0]).is_ok() {
                            std::thread::sleep(Duration::from_millis(200));
                        }
                    }
                    _ => {
                        for answer in answers(&request, true) {
                            let size = u16::try_from(answer.len()).unwrap();
                            let _ = stream.write_all(&size.to_be_bytes());
                            let _ = stream.write_all(&answer);
                        }
                    }
                }
                // Open until the other side goes.
                let _ = stream.read(&mut [0]);
            });
        }
    });
    port
}

fn before(port: u16, key: Option<PathBuf>) -> Bulkhead {
    Bulkhead::with(Configuration::standard().dns_rfc2136(&[format!("127.0.0.1:{port}")], key))
}

/// With a key and without: each part ends in an error with a reason before the time is over, for creations and for removals, and the
/// program serves others meanwhile and afterwards.
#[test]
fn nothing_is_believed_and_nothing_hangs() {
    let port = hostile();
    let scratch = Scratch::new();
    let key = scratch.file(
        "key",
        "key \"k\" { algorithm hmac-sha256; secret \"YSBzZWNyZXQgZm9yIHRlc3RzLCAzMiBieXRlcyBsb25n\"; };\n",
    );
    bulkhead_testkit::bind::private(&key);
    let programs = [before(port, Some(key)), before(port, None)];
    std::thread::scope(|scope| {
        for bulkhead in &programs {
            for part in PARTS {
                // As many calls as `dns` has places: none waits for another.
                for create in [true, false] {
                    if !create && !REMOVED.contains(&part) {
                        continue;
                    }
                    scope.spawn(move || {
                        let target = bulkhead.foreman();
                        let name = format!("{part}.example.com");
                        let begun = Instant::now();
                        let answer = if create {
                            let fields = [
                                ("fqdn", name.as_str()),
                                ("value", "192.0.2.1"),
                                ("type", "A"),
                            ];
                            target.post("/dns/", &fields)
                        } else {
                            target.delete(&format!("/dns/{name}/A"))
                        };
                        let (text, took) = (answer.text(), begun.elapsed());
                        assert!(
                            [400, 502, 504].contains(&answer.status),
                            "{part}: {} {text}",
                            answer.status
                        );
                        assert!(
                            text.starts_with("Update errors: ") && text.contains(&port.to_string()),
                            "{part}: {text}"
                        );
                        assert!(took < LONGEST, "{part}: {took:?}");
                    });
                }
            }
            scope.spawn(move || {
                for _ in 0..20 {
                    assert_eq!(bulkhead.foreman().get("/tftp/serverName").status, 200);
                    std::thread::sleep(Duration::from_millis(100));
                }
            });
        }
    });
    for bulkhead in &programs {
        assert_eq!(bulkhead.foreman().get("/version").status, 200);
        assert_eq!(bulkhead.log_lines("panicked"), Vec::<String>::new());
        assert_eq!(bulkhead.log_lines("trap"), Vec::<String>::new());
    }
}
