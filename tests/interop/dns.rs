//! DNS on the servers that sites run: a real BIND 9, before and after seen by `dig`.

use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bulkhead_testkit::bind::{ALGORITHMS, Bind, Setup};
use bulkhead_testkit::preload;
use bulkhead_testkit::skip::program;
use bulkhead_testkit::{Bulkhead, Configuration, Response, Target, ports, run, skip};

/// The program before these servers.
fn bulkhead(servers: &[String], key: Option<PathBuf>) -> Bulkhead {
    Bulkhead::with(Configuration::empty().dns_rfc2136(servers, key))
}

fn before(bind: &Bind, algorithm: &str) -> Bulkhead {
    bulkhead(
        &[bind.address().to_string()],
        Some(bind.key_file(algorithm)),
    )
}

fn create(target: &Target, fqdn: &str, value: &str) -> Response {
    target.post("/dns/", &[("fqdn", fqdn), ("value", value), ("type", "A")])
}

#[track_caller]
fn refused(answer: &Response, status: u16, words: &str) {
    let text = answer.text();
    assert_eq!(answer.status, status, "{text}");
    assert!(
        text.starts_with("Update errors: ") && text.contains(words),
        "{text}"
    );
}

macro_rules! need_bind {
    () => {
        if !Bind::is_installed() {
            skip!("BIND (named, dig, nsupdate) is not installed");
        }
    };
}

/// Each of TSIG's algorithms, by the file that BIND's own tools write.
#[test]
fn a_key_of_each_algorithm_writes() {
    need_bind!();
    let bind = Bind::start();
    for algorithm in ALGORITHMS {
        let bulkhead = before(&bind, algorithm);
        let name = format!("{algorithm}.example.com");
        assert_eq!(bind.dig(&name, "A"), "");
        create(&bulkhead.foreman(), &name, "192.0.2.1").assert_status(200);
        assert_eq!(bind.dig(&name, "A"), "192.0.2.1\n");
        bulkhead
            .foreman()
            .delete(&format!("/dns/{name}/A"))
            .assert_status(200);
        assert_eq!(bind.dig(&name, "A"), "", "{algorithm}");
    }
}

/// A wrong secret, an unknown key, another algorithm, no key at all: the server's reason reaches Foreman.
#[test]
fn a_key_that_the_server_does_not_accept_is_named() {
    need_bind!();
    let bind = Bind::start();
    let secret = "b3RoZXIgc2VjcmV0IG9mIDMyIGJ5dGVzLCBpbmRlZWQh";
    for (key, words) in [
        (
            Some(bind.foreign_key("key-hmac-sha256", "hmac-sha256", secret)),
            "BADSIG",
        ),
        (
            Some(bind.foreign_key("nobody", "hmac-sha256", secret)),
            "BADKEY",
        ),
        (
            Some(bind.foreign_key("key-hmac-sha512", "hmac-sha256", secret)),
            "BADKEY",
        ),
        (None, "REFUSED"),
    ] {
        let bulkhead = bulkhead(&[bind.address().to_string()], key);
        refused(
            &create(&bulkhead.foreman(), "k.example.com", "192.0.2.1"),
            400,
            words,
        );
        assert_eq!(bind.dig("k.example.com", "A"), "");
    }
}

/// REFUSED for a zone without rights, no zone at all, and a zone that the server could not load.
#[test]
fn the_servers_words_reach_foreman() {
    need_bind!();
    let bind = Bind::start();
    let bulkhead = before(&bind, "hmac-sha256");
    let target = bulkhead.foreman();
    refused(
        &create(&target, "a.closed.test", "192.0.2.1"),
        400,
        "REFUSED",
    );
    refused(
        &create(&target, "a.nowhere.test", "192.0.2.1"),
        400,
        "no zone of the server holds a.nowhere.test",
    );
    refused(
        &create(&target, "a.broken.test", "192.0.2.1"),
        400,
        "SERVFAIL",
    );
    refused(&target.delete("/dns/ns.closed.test/A"), 400, "REFUSED");
    assert_eq!(bind.dig("ns.closed.test", "A"), "127.0.0.1\n");
}

/// Several zones on one server: the one that is nearest to the name is written, and without a key where the server allows it.
#[test]
fn the_nearest_zone_is_written() {
    need_bind!();
    let bind = Bind::start();
    let bulkhead = before(&bind, "hmac-sha256");
    let target = bulkhead.foreman();
    for (name, zone) in [
        ("h.example.com", "example.com"),
        ("h.sub.example.com", "sub.example.com"),
        ("a.b.c.example.net", "example.net"),
    ] {
        create(&target, name, "192.0.2.3").assert_status(200);
        let line = format!("{name}. 86400 IN A 192.0.2.3");
        assert!(
            bind.transfer(zone).contains(&line),
            "{:?}",
            bind.transfer(zone)
        );
    }
    assert!(
        !bind
            .transfer("example.com")
            .iter()
            .any(|line| line.contains("sub."))
    );
    drop(bulkhead);
    let unsigned = self::bulkhead(&[bind.address().to_string()], None);
    create(&unsigned.foreman(), "h.unsigned.test", "192.0.2.4").assert_status(200);
    assert_eq!(bind.dig("h.unsigned.test", "A"), "192.0.2.4\n");
}

/// An answer that does not fit a datagram comes by TCP: the name has 60 addresses, and one of them is the wanted one.
#[test]
fn truncated_answers_come_by_tcp() {
    need_bind!();
    let bind = Bind::with(Setup {
        truncates: true,
        ..Setup::default()
    });
    let seen = bind.dig_whole(&["+ignore", "+noedns", "many.example.com", "A"]);
    assert!(seen.contains(" tc"), "not truncated: {seen}");
    let bulkhead = before(&bind, "hmac-sha256");
    create(&bulkhead.foreman(), "many.example.com", "198.51.100.59").assert_status(200);
    assert_eq!(
        create(&bulkhead.foreman(), "many.example.com", "198.51.100.60").status,
        409
    );
    assert_eq!(bind.dig("many.example.com", "A").lines().count(), 60);
}

/// A server on IPv6 alone.
#[test]
fn a_server_on_v6_alone_is_written() {
    need_bind!();
    if std::net::UdpSocket::bind("[::1]:0").is_err() {
        skip!("this machine has no IPv6");
    }
    let bind = Bind::with(Setup {
        v6_only: true,
        ..Setup::default()
    });
    let bulkhead = before(&bind, "hmac-sha256");
    create(&bulkhead.foreman(), "six.example.com", "192.0.2.6").assert_status(200);
    assert_eq!(bind.dig("six.example.com", "A"), "192.0.2.6\n");
}

/// The first server is down: the second stands in. Neither runs: an error, soon. Started again: it works, and nothing is lost.
#[test]
fn a_server_that_stops_is_stood_in_for_and_comes_back() {
    need_bind!();
    let (mut first, mut second) = (Bind::start(), Bind::start());
    let servers = [first.address().to_string(), second.address().to_string()];
    let bulkhead = bulkhead(&servers, Some(first.key_file("hmac-sha256")));
    let target = bulkhead.foreman();
    create(&target, "one.example.com", "192.0.2.1").assert_status(200);
    assert_eq!(
        (
            first.dig("one.example.com", "A").as_str(),
            second.dig("one.example.com", "A").as_str()
        ),
        ("192.0.2.1\n", "")
    );
    first.stop();
    create(&target, "two.example.com", "192.0.2.2").assert_status(200);
    assert_eq!(second.dig("two.example.com", "A"), "192.0.2.2\n");
    second.stop();
    let begun = Instant::now();
    let answer = create(&target, "three.example.com", "192.0.2.3");
    refused(&answer, 502, "127.0.0.1");
    assert!(
        begun.elapsed() < Duration::from_secs(29),
        "{:?}",
        begun.elapsed()
    );
    first.start_again();
    assert_eq!(first.dig("one.example.com", "A"), "192.0.2.1\n");
    create(&target, "three.example.com", "192.0.2.3").assert_status(200);
    assert_eq!(first.dig("three.example.com", "A"), "192.0.2.3\n");
}

/// The server's clock is an hour ahead: it says so, signed, and Foreman is told both times.
#[test]
fn clocks_that_differ_are_named() {
    need_bind!();
    if program(preload::COMPILER).is_none() {
        skip!("a C compiler is not installed");
    }
    let bind = Bind::with(Setup {
        clock_ahead: 3_600,
        ..Setup::default()
    });
    let bulkhead = before(&bind, "hmac-sha256");
    let answer = create(&bulkhead.foreman(), "late.example.com", "192.0.2.1");
    refused(
        &answer,
        400,
        "NOTAUTH (BADTIME: the clocks differ; ours said ",
    );
    let text = answer.text();
    let numbers: Vec<u64> = text
        .split(|it: char| !it.is_ascii_digit())
        .filter(|word| word.len() == 10)
        .filter_map(|word| word.parse().ok())
        .collect();
    let ahead = numbers[1] - numbers[0];
    assert!((3_590..3_610).contains(&ahead), "{text}");
    assert_eq!(bind.dig("late.example.com", "A"), "");
}

/// The site's resolver in place of the zone's server: it knows the zone by its cache, and is no authority for it (NOTAUTH).
#[test]
fn a_resolver_is_no_server_to_be_updated() {
    need_bind!();
    let bind = Bind::start();
    let resolver = Bind::with(Setup {
        resolves_by: Some(bind.port),
        ..Setup::default()
    });
    for key in [None, Some(bind.key_file("hmac-sha256"))] {
        // What it looked up, it tells from then on.
        assert!(
            resolver
                .dig("example.com", "SOA")
                .contains("root.example.com.")
        );
        assert_eq!(resolver.dig("n.example.com", "A"), "");
        let bulkhead = bulkhead(&[resolver.address().to_string()], key);
        let answer = create(&bulkhead.foreman(), "n.example.com", "192.0.2.1");
        refused(&answer, 400, "no zone of the server holds n.example.com");
        assert!(answer.text().contains("NOTAUTH"), "{}", answer.text());
        assert_eq!(bind.dig("n.example.com", "A"), "");
    }
}

/// A firewall lets TCP through and nothing else, be it by silence or by refusing datagrams: the records are written all the same, and only the first
/// call waits for the silence.
#[test]
fn a_server_behind_tcp_alone_is_written() {
    need_bind!();
    let bind = Bind::start();
    for silent in [true, false] {
        let port = ports::free();
        // Held and never read: datagrams vanish. Not held: they are refused.
        let deaf = silent.then(|| UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).unwrap());
        through_tcp(port, bind.port);
        let servers = [format!("127.0.0.1:{port}")];
        let bulkhead = bulkhead(&servers, Some(bind.key_file("hmac-sha256")));
        let name = format!("tcp-{silent}.example.com");
        assert_eq!(bind.dig(&name, "A"), "");
        let begun = Instant::now();
        create(&bulkhead.foreman(), &name, "192.0.2.1").assert_status(200);
        let first = begun.elapsed();
        assert!(first < Duration::from_secs(20), "{first:?}");
        assert_eq!(bind.dig(&name, "A"), "192.0.2.1\n");
        let begun = Instant::now();
        bulkhead
            .foreman()
            .delete(&format!("/dns/{name}/A"))
            .assert_status(200);
        let second = begun.elapsed();
        assert!(second < Duration::from_secs(3), "{second:?}");
        assert_eq!(bind.dig(&name, "A"), "");
        drop(deaf);
    }
}

/// Carries connections to a port on to another, until the test program ends.
fn through_tcp(from: u16, to: u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, from)).unwrap();
    std::thread::spawn(move || {
        for near in listener.incoming().flatten() {
            let far = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).unwrap();
            for (mut one, mut other) in [
                (near.try_clone().unwrap(), far.try_clone().unwrap()),
                (far, near),
            ] {
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut one, &mut other);
                    let _ = other.shutdown(std::net::Shutdown::Write);
                });
            }
        }
    });
}

/// The policy, explained, names the very servers, ports and key file, and what was used of them.
#[test]
fn the_policy_explained_names_servers_and_key() {
    need_bind!();
    let bind = Bind::start();
    let bulkhead = before(&bind, "hmac-sha256");
    create(&bulkhead.foreman(), "e.example.com", "192.0.2.1").assert_status(200);
    let path = bulkhead.configuration.path();
    let explained = run([
        "policy".as_ref(),
        "explain".as_ref(),
        "dns-rfc2136".as_ref(),
        "--config".as_ref(),
        path.as_os_str(),
    ]);
    let text = explained.text();
    assert_eq!(explained.code(), Some(0), "{text}");
    let address = bind.address();
    let key = bind.key_file("hmac-sha256").display().to_string();
    let sentence = format!(
        "dns-rfc2136 may exchange messages with {} port {} by UDP and TCP; have the host use the secret in {key}, which it does not see; nothing \
         else.\n",
        address.ip(),
        address.port()
    );
    assert!(text.contains(&sentence), "{sentence} is missing: {text}");
    for part in [
        format!("udp {address}, tcp {address}"),
        format!("use the secret in {key}"),
        "sends updates to the DNS servers that the operator names".to_owned(),
    ] {
        assert!(text.contains(&part), "{part} is missing: {text}");
    }
}
