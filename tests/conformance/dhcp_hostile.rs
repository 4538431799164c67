//! Somebody else at the port where dhcpd should be: nothing it says is believed, every call ends in bounded time with what is wrong, what is read from
//! files goes on, and when dhcpd is back, so are reservations.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bulkhead_testkit::dhcpd::{Dhcpd, OMAPI};
use bulkhead_testkit::stranger::Stranger;
use bulkhead_testkit::{Bulkhead, Target, skip};

use crate::dhcp::{configuration, form};
use crate::{HTML, JSON};

/// A conversation ends within 10 seconds; the rest is for a machine that is busy.
const LONGEST: Duration = Duration::from_secs(25);

/// Version 100, header of 24 bytes.
const GREETING: [u8; 8] = [0, 0, 0, 100, 0, 0, 0, 24];

/// OMAPI's operations that are used here.
const UPDATE: u32 = 3;
const NOTIFY: u32 = 4;

/// The handle that a hostile server gives for the key, and for what it pretends to have made.
const HANDLE: u32 = 5;

/// What the program sent: the bytes, and the number that an answer has to name.
struct Question {
    bytes: Vec<u8>,
    id: u32,
}

/// Reads one message of the program: six numbers, two lists of named values, a signature.
fn question(stream: &mut TcpStream) -> Option<Question> {
    let mut bytes = Vec::new();
    let mut take = |count: usize| {
        let begin = bytes.len();
        bytes.resize(begin + count, 0);
        stream.read_exact(&mut bytes[begin..]).ok()?;
        let number = bytes[begin..].iter().take(4);
        Some(number.fold(0, |number, byte| number << 8 | u32::from(*byte)))
    };
    let header: Vec<u32> = (0..6).map_while(|_| take(4)).collect();
    let [_, signature, _, _, id, _] = header[..] else {
        return None;
    };
    for _ in 0..2 {
        loop {
            match take(2)? {
                0 => break,
                name => take(usize::try_from(name).ok()?)?,
            };
            let value = take(4)?;
            take(usize::try_from(value).ok()?)?;
        }
    }
    take(usize::try_from(signature).ok()?)?;
    Some(Question { bytes, id })
}

/// A message without values.
fn message(authenticator: u32, operation: u32, answers: u32, signature: &[u8]) -> Vec<u8> {
    let length = u32::try_from(signature.len()).unwrap();
    let header = [authenticator, length, operation, HANDLE, 77, answers];
    let mut bytes: Vec<u8> = header.iter().flat_map(|one| one.to_be_bytes()).collect();
    bytes.extend([0; 4]);
    bytes.extend_from_slice(signature);
    bytes
}

/// Greets and takes the key, as dhcpd would; then the message that matters.
fn believed(stream: &mut TcpStream) -> Option<Question> {
    stream.read_exact(&mut [0; 8]).ok()?;
    stream.write_all(&GREETING).ok()?;
    let key = question(stream)?;
    stream.write_all(&message(0, UPDATE, key.id, &[])).ok()?;
    question(stream)
}

/// Says something after a correct beginning, and waits until the program goes.
fn says(stream: &mut TcpStream, answer: impl FnOnce(&Question) -> Vec<u8>) {
    if let Some(question) = believed(stream) {
        let _ = stream.write_all(&answer(&question));
        wait(stream);
    }
}

fn wait(stream: &mut TcpStream) {
    while stream.read(&mut [0; 512]).is_ok_and(|count| count > 0) {}
}

/// Sends for ever.
fn floods(stream: &mut TcpStream, with: &[u8], pause: Duration) {
    while stream.write_all(with).is_ok() {
        std::thread::sleep(pause);
    }
}

/// A part, how it is played, and what Foreman is told of it.
type Part = (&'static str, fn(&mut TcpStream), &'static [&'static str]);

const NOT_OMAPI: &str = "does not speak OMAPI as expected";
const GONE: &str = "No response from DHCP server";
const LATE: &str = "did not answer within 10 s";

/// Over at once.
const QUICK: [Part; 9] = [
    ("closes", |_| {}, &[GONE]),
    (
        "web",
        |stream| {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
            wait(stream);
        },
        &[NOT_OMAPI],
    ),
    (
        "junk",
        |stream| floods(stream, &[0xa5; 4096], Duration::ZERO),
        &[NOT_OMAPI],
    ),
    (
        "junk behind a greeting",
        |stream| {
            let _ = stream.write_all(&GREETING);
            floods(stream, &[0xff; 4096], Duration::ZERO);
        },
        &[NOT_OMAPI],
    ),
    (
        "half a message",
        |stream| {
            if let Some(question) = believed(stream) {
                let answer = message(HANDLE, UPDATE, question.id, &[1; 32]);
                let _ = stream.write_all(&answer[..answer.len() - 20]);
            }
        },
        &[GONE],
    ),
    (
        "a value of 4 GiB",
        |stream| {
            says(stream, |question| {
                let mut answer = message(HANDLE, UPDATE, question.id, &[])[..24].to_vec();
                answer.extend_from_slice(b"\0\x04name\xff\xff\xff\xff");
                answer
            });
        },
        &[NOT_OMAPI],
    ),
    (
        "unsigned",
        |stream| {
            says(stream, |question| message(HANDLE, UPDATE, question.id, &[]));
        },
        &["not signed with the key"],
    ),
    (
        "unsigned, by nobody",
        |stream| says(stream, |question| message(0, UPDATE, question.id, &[])),
        &["not signed with the key"],
    ),
    (
        "forged",
        |stream| {
            says(stream, |question| {
                message(HANDLE, UPDATE, question.id, &[7; 32])
            });
        },
        &["not signed with the key"],
    ),
];

/// Only the deadline ends these.
const SLOW: [Part; 5] = [
    ("silent", wait, &[LATE]),
    (
        "drip",
        |stream| {
            let _ = stream.write_all(&GREETING);
            floods(stream, &[0], Duration::from_millis(600));
        },
        &[LATE],
    ),
    (
        "notices for ever",
        |stream| {
            let _ = stream.write_all(&GREETING);
            let notices = message(0, NOTIFY, 0, &[]).repeat(64);
            floods(stream, &notices, Duration::ZERO);
        },
        &[LATE],
    ),
    (
        "wrong numbers",
        |stream| {
            let _ = stream.write_all(&GREETING);
            let _ = stream.read_exact(&mut [0; 8]);
            if let Some(question) = question(stream) {
                let _ = stream.write_all(&message(0, UPDATE, question.id ^ 1, &[]));
            }
            wait(stream);
        },
        &[LATE],
    ),
    // What the program itself signed comes back.
    (
        "mirror",
        |stream| says(stream, |question| question.bytes.clone()),
        &[LATE],
    ),
];

fn at(port: u16, part: fn(&mut TcpStream)) -> Stranger {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    Stranger::at(address, move |mut stream| part(&mut stream))
}

/// Nothing is made and nothing removed, each is told in time, and reading goes on.
fn told(target: &Target, (name, _, words): &Part) {
    let timed = |work: &dyn Fn() -> bulkhead_testkit::Response| {
        let begun = Instant::now();
        let answer = work();
        let took = begun.elapsed();
        assert!(took < LONGEST, "{name}: {took:?}");
        answer
    };
    let wanted = form("h.example.com", "192.0.2.50", "02:00:5e:00:54:01", &[]);
    for (answer, text) in [
        (
            timed(&|| target.post("/dhcp/192.0.2.0", &wanted)),
            "Failed to add DHCP reservation for h.example.com (192.0.2.50 / 02:00:5e:00:54:01): ",
        ),
        (
            timed(&|| target.delete("/dhcp/192.0.2.0/ip/192.0.2.40")),
            "Failed to remove DHCP reservation for kept => kept (192.0.2.40 / 02:00:5e:00:54:02): ",
        ),
    ] {
        assert_eq!(answer.status, 400, "{name}: {answer}");
        assert!(answer.text().starts_with(text), "{name}: {answer}");
        // A connection that ends too early may as well be one that was reset.
        assert!(
            words.iter().any(|words| answer.text().contains(words))
                || (answer.text().contains(GONE) && answer.text().contains("reset")),
            "{name}: {answer}"
        );
    }
    assert_eq!(target.get("/dhcp/192.0.2.0/ip/192.0.2.40").status, 200);
    assert_eq!(target.get("/dhcp/192.0.2.0/ip/192.0.2.50").status, 404);
}

#[test]
fn whoever_is_not_dhcpd_is_not_believed_and_nothing_has_to_be_restarted() {
    let mut dhcpd = match Dhcpd::start("hmac-sha256", "") {
        Ok(dhcpd) => dhcpd,
        Err(why) => skip!("{why}"),
    };
    dhcpd.site.enter();
    let bulkhead = Bulkhead::with(configuration(&dhcpd, "", OMAPI));
    let target = bulkhead.foreman();
    target
        .post(
            "/dhcp/192.0.2.0",
            &form("kept", "192.0.2.40", "02:00:5e:00:54:02", &[]),
        )
        .assert_is(200, JSON, "");

    // Programs of their own for those that take their time.
    std::thread::scope(|scope| {
        for (part, port) in SLOW.iter().zip(OMAPI + 1..) {
            let configuration = configuration(&dhcpd, "", port);
            scope.spawn(move || {
                let _stranger = at(port, part.1);
                told(&Bulkhead::with(configuration).foreman(), part);
            });
        }
    });

    dhcpd.stop();
    for part in &QUICK {
        let _stranger = at(OMAPI, part.1);
        told(&target, part);
    }
    dhcpd.run();
    let wanted = form("h.example.com", "192.0.2.50", "02:00:5e:00:54:01", &[]);
    target
        .post("/dhcp/192.0.2.0", &wanted)
        .assert_is(200, JSON, "");
    target
        .delete("/dhcp/192.0.2.0/ip/192.0.2.40")
        .assert_is(200, HTML, "");
    assert_eq!(target.get("/dhcp/192.0.2.0/ip/192.0.2.40").status, 404);
    assert_eq!(target.get("/dhcp/192.0.2.0/ip/192.0.2.50").status, 200);
}

/// A look at the index takes some milliseconds, and a change holds the instance for 50 at a time; the rest is for a machine that is busy. A conversation that
/// held it would take ten seconds.
const SOON: Duration = Duration::from_secs(3);

/// A change waits for those before it, for 25 seconds at most.
const LAST: Duration = Duration::from_secs(28);

#[test]
fn who_reads_does_not_wait_for_a_dhcpd_that_hangs() {
    let dhcpd = match Dhcpd::start("hmac-sha256", "") {
        Ok(dhcpd) => dhcpd,
        Err(why) => skip!("{why}"),
    };
    dhcpd.site.enter();
    let bulkhead = Bulkhead::with(configuration(&dhcpd, "ping_free_ip = false", OMAPI));
    let target = bulkhead.foreman();
    let kept = form("kept", "192.0.2.40", "02:00:5e:00:54:02", &[]);
    target
        .post("/dhcp/192.0.2.0", &kept)
        .assert_is(200, JSON, "");

    dhcpd.signal(bulkhead_testkit::dhcpd::STOP);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4_u8)
            .map(|number| {
                let target = &target;
                scope.spawn(move || {
                    let (name, ip) = (format!("w{number}"), format!("192.0.2.{}", 60 + number));
                    let mac = format!("02:00:5e:00:5b:{number:02x}");
                    let begun = Instant::now();
                    let answer = target.post("/dhcp/192.0.2.0", &form(&name, &ip, &mac, &[]));
                    (answer, begun.elapsed())
                })
            })
            .collect();
        let mut looks = 0;
        while writers.iter().any(|writer| !writer.is_finished()) {
            for (path, status) in [
                ("/dhcp/192.0.2.0/ip/192.0.2.40", 200),
                ("/dhcp/192.0.2.0/mac/02:00:5e:00:54:99", 404),
                ("/dhcp", 200),
                ("/dhcp/192.0.2.0/unused_ip", 200),
            ] {
                let begun = Instant::now();
                let answer = target.get(path);
                let took = begun.elapsed();
                assert!(took < SOON, "{path}: {took:?}");
                assert_eq!(answer.status, status, "{path}: {answer}");
                looks += 1;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        assert!(looks > 50, "only {looks} looks while the writers waited");
        for writer in writers {
            let (answer, took) = writer.join().expect("an answer");
            assert!(took < LAST, "{took:?}");
            assert_eq!(answer.status, 400, "{answer}");
            assert!(
                answer
                    .text()
                    .contains("Failed to add DHCP reservation for w")
            );
        }
    });

    // Awake, it does what it was told meanwhile; posted again, all are there, once.
    dhcpd.signal(bulkhead_testkit::dhcpd::CONTINUE);
    for number in 0..4_u8 {
        let (name, ip) = (format!("w{number}"), format!("192.0.2.{}", 60 + number));
        let mac = format!("02:00:5e:00:5b:{number:02x}");
        target
            .post("/dhcp/192.0.2.0", &form(&name, &ip, &mac, &[]))
            .assert_is(200, JSON, "");
        let found = target.get(&format!("/dhcp/192.0.2.0/ip/{ip}")).json();
        assert_eq!(found.as_array().map(Vec::len), Some(1), "{found}");
    }
}
