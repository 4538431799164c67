//! The protocol against a real BIND 9, by the same code that runs in the sandbox.
//!
//! Each test starts its own `named` on loopback. Without BIND the tests are skipped, loudly; with `REQUIRE_SERVERS=1`, as in
//! continuous integration, that is a failure.

// A test that cannot go on has to stop.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bulkhead_sdk::dns::{DnsRecord, RecordType};
use dns_rfc2136_plugin::error::Problem;
use dns_rfc2136_plugin::exchange::Servers;
use dns_rfc2136_plugin::message;
use dns_rfc2136_plugin::tsig::Signer;
use dns_rfc2136_plugin::update::{create, find, remove};
use hickory_proto::rr::Name;
use hmac::{Hmac, Mac};

const ALGORITHMS: [&str; 5] = [
    "hmac-md5",
    "hmac-sha1",
    "hmac-sha256",
    "hmac-sha384",
    "hmac-sha512",
];
const SECRET: &[u8] = b"a secret for tests, 32 bytes long";
const SECRET_BASE64: &str = "YSBzZWNyZXQgZm9yIHRlc3RzLCAzMiBieXRlcyBsb25n";

struct Key {
    name: Name,
    algorithm: Name,
    kind: &'static str,
    secret: Vec<u8>,
}

impl Key {
    fn of(kind: &'static str) -> Self {
        let algorithm = if kind == "hmac-md5" {
            "hmac-md5.sig-alg.reg.int"
        } else {
            kind
        };
        Self {
            name: message::name(&format!("key-{kind}")).unwrap(),
            algorithm: message::name(algorithm).unwrap(),
            kind,
            secret: SECRET.to_vec(),
        }
    }
}

impl Signer for Key {
    fn name(&self) -> &Name {
        &self.name
    }
    fn algorithm(&self) -> &Name {
        &self.algorithm
    }
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, String> {
        macro_rules! mac {
            ($hash:ty) => {{
                let mut mac = Hmac::<$hash>::new_from_slice(&self.secret).unwrap();
                mac.update(message);
                mac.finalize().into_bytes().to_vec()
            }};
        }
        Ok(match self.kind {
            "hmac-md5" => mac!(md5::Md5),
            "hmac-sha1" => mac!(sha1::Sha1),
            "hmac-sha256" => mac!(sha2::Sha256),
            "hmac-sha384" => mac!(sha2::Sha384),
            _ => mac!(sha2::Sha512),
        })
    }
    fn verify(&self, message: &[u8], mac: &[u8]) -> Result<bool, String> {
        Ok(self.sign(message)? == mac)
    }
}

struct Bind {
    child: Child,
    address: SocketAddr,
    _place: tempfile::TempDir,
}

impl Bind {
    fn start() -> Option<Self> {
        if Command::new("named")
            .arg("-v")
            .stdout(Stdio::null())
            .status()
            .is_err()
        {
            assert!(
                std::env::var_os("REQUIRE_SERVERS").is_none(),
                "BIND is not installed"
            );
            eprintln!("SKIPPED: BIND (`named`) is not installed");
            return None;
        }
        // Between finding a port and BIND's taking it, another program may: then BIND serves half, and another port is tried.
        let whole = (0..10).find_map(|_| Self::start_once());
        assert!(whole.is_some(), "BIND never gets both its sockets");
        whole
    }

    /// None: BIND did not get both sockets of its port.
    fn start_once() -> Option<Self> {
        let place = tempfile::tempdir().unwrap();
        let port = free_port();
        let keys: String = ALGORITHMS
            .iter()
            .map(|kind| {
                format!("key \"key-{kind}\" {{ algorithm {kind}; secret \"{SECRET_BASE64}\"; }};\n")
            })
            .collect();
        let grants: String = ALGORITHMS
            .iter()
            .map(|kind| format!("grant key-{kind} zonesub any; "))
            .collect();
        let zone = |name: &str, rights: &str| {
            let file = place.path().join(name);
            fs::write(&file, "$TTL 300\n@ SOA ns.example.com. root.example.com. 1 300 300 300 300\n NS ns.example.com.\nns A 127.0.0.1\n").unwrap();
            format!(
                "zone \"{name}\" {{ type primary; file \"{}\"; {rights} }};\n",
                file.display()
            )
        };
        let zones = [
            zone("example.com", &format!("update-policy {{ {grants} }};")),
            zone(
                "2.0.192.in-addr.arpa",
                &format!("update-policy {{ {grants} }};"),
            ),
            zone("open.test", "allow-update { 127.0.0.1; };"),
            zone("closed.test", ""),
        ]
        .concat();
        let text = format!(
            "{keys}options {{ directory \"{place}\"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; recursion no; pid-file none; \
             session-keyfile \"{place}/session.key\"; dnssec-validation no; minimal-responses no; }};\ncontrols {{}};\n{zones}",
            place = place.path().display()
        );
        let file = place.path().join("named.conf");
        fs::write(&file, text).unwrap();
        let log = fs::File::create(place.path().join("log")).unwrap();
        let child = Command::new("named")
            .arg("-g")
            .arg("-n1")
            .arg("-c")
            .arg(&file)
            .stderr(log)
            .spawn()
            .unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let bind = Self {
            child,
            address,
            _place: place,
        };
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            if bind.log().contains("address in use") {
                return None;
            }
            if find(&bind.servers(None), "ns.open.test", RecordType::A).is_ok()
                && TcpStream::connect(bind.address).is_ok()
            {
                return Some(bind);
            }
            assert!(Instant::now() < end, "BIND does not start: {}", bind.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn servers<'a>(&self, key: Option<&'a Key>) -> Servers<'a> {
        Servers::new(
            vec![self.address],
            key.map(|key| key as &dyn Signer),
            Duration::from_secs(5),
        )
    }

    fn log(&self) -> String {
        fs::read_to_string(self._place.path().join("log")).unwrap_or_default()
    }

    fn dig(&self, name: &str, kind: &str) -> String {
        let output = Command::new("dig")
            .args([
                "@127.0.0.1",
                "-p",
                &self.address.port().to_string(),
                "+short",
                name,
                kind,
            ])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

/// A port that is free for datagrams and for connections: BIND serves on with one of them when the other is taken.
fn free_port() -> u16 {
    let mut tries = 0..100;
    tries
        .find_map(|_| {
            let tcp = TcpListener::bind("127.0.0.1:0").ok()?;
            let address = tcp.local_addr().ok()?;
            UdpSocket::bind(address).ok().map(|_| address.port())
        })
        .expect("some port is free")
}

impl Drop for Bind {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn record(name: &str, kind: RecordType, value: &str) -> DnsRecord {
    DnsRecord {
        name: name.into(),
        kind,
        value: value.into(),
        ttl: 600,
    }
}

#[test]
fn every_algorithm_signs_a_creation_and_a_removal() {
    let Some(bind) = Bind::start() else { return };
    for kind in ALGORITHMS {
        let key = Key::of(kind);
        let servers = bind.servers(Some(&key));
        let name = format!("{kind}.example.com");
        assert_eq!(bind.dig(&name, "A"), "");
        assert_eq!(
            create(&servers, &record(&name, RecordType::A, "192.0.2.7")),
            Ok(true),
            "{kind}"
        );
        assert_eq!(bind.dig(&name, "A"), "192.0.2.7\n");
        assert_eq!(
            create(&servers, &record(&name, RecordType::A, "192.0.2.7")),
            Ok(false),
            "{kind}"
        );
        assert_eq!(
            remove(&servers, &name, RecordType::A, None),
            Ok(true),
            "{kind}"
        );
        assert_eq!(
            remove(&servers, &name, RecordType::A, None),
            Ok(false),
            "{kind}"
        );
        assert_eq!(bind.dig(&name, "A"), "");
    }
}

#[test]
fn every_type_is_written_and_read() {
    let Some(bind) = Bind::start() else { return };
    let key = Key::of("hmac-sha256");
    let servers = bind.servers(Some(&key));
    for (name, kind, word, value, seen) in [
        (
            "six.example.com",
            RecordType::Aaaa,
            "AAAA",
            "2001:db8::1",
            "2001:db8::1\n",
        ),
        (
            "alias.example.com",
            RecordType::Cname,
            "CNAME",
            "ns.example.com",
            "ns.example.com.\n",
        ),
        (
            "7.2.0.192.in-addr.arpa",
            RecordType::Ptr,
            "PTR",
            "ns.example.com",
            "ns.example.com.\n",
        ),
        (
            "_sip._tcp.example.com",
            RecordType::Srv,
            "SRV",
            "0 5 5060 ns.example.com",
            "0 5 5060 ns.example.com.\n",
        ),
    ] {
        assert_eq!(
            create(&servers, &record(name, kind, value)),
            Ok(true),
            "{word}"
        );
        assert_eq!(bind.dig(name, word), seen);
        assert_eq!(
            find(&servers, name, kind),
            Ok(vec![record(name, kind, value)])
        );
        assert_eq!(
            create(&servers, &record(name, kind, value)),
            Ok(false),
            "{word}"
        );
        assert_eq!(remove(&servers, name, kind, None), Ok(true), "{word}");
        assert_eq!(bind.dig(name, word), "");
    }
}

#[test]
fn other_data_is_a_conflict_and_an_alias_is_never_overlooked() {
    let Some(bind) = Bind::start() else { return };
    let key = Key::of("hmac-sha256");
    let servers = bind.servers(Some(&key));
    let conflict =
        |wanted: DnsRecord| matches!(create(&servers, &wanted), Err(Problem::Conflict { .. }));
    assert_eq!(
        create(
            &servers,
            &record("a.example.com", RecordType::A, "192.0.2.1")
        ),
        Ok(true)
    );
    assert!(conflict(record(
        "a.example.com",
        RecordType::A,
        "192.0.2.2"
    )));
    assert!(conflict(record(
        "a.example.com",
        RecordType::Cname,
        "ns.example.com"
    )));
    assert_eq!(
        create(
            &servers,
            &record("a.example.com", RecordType::Aaaa, "2001:db8::1")
        ),
        Ok(true)
    );
    assert_eq!(
        create(
            &servers,
            &record("b.example.com", RecordType::Cname, "ns.example.com")
        ),
        Ok(true)
    );
    assert!(conflict(record(
        "b.example.com",
        RecordType::A,
        "192.0.2.1"
    )));
    assert_eq!(
        create(
            &servers,
            &record(
                "_s._tcp.example.com",
                RecordType::Srv,
                "0 5 1 ns.example.com"
            )
        ),
        Ok(true)
    );
    assert_eq!(
        create(
            &servers,
            &record(
                "_s._tcp.example.com",
                RecordType::Srv,
                "0 5 2 ns.example.com"
            )
        ),
        Ok(true)
    );
    assert_eq!(
        remove(
            &servers,
            "_s._tcp.example.com",
            RecordType::Srv,
            Some("0 5 1 ns.example.com")
        ),
        Ok(true)
    );
    assert_eq!(
        bind.dig("_s._tcp.example.com", "SRV"),
        "0 5 2 ns.example.com.\n"
    );
    assert_eq!(bind.dig("a.example.com", "A"), "192.0.2.1\n");
}

#[test]
fn of_many_creations_of_one_name_exactly_one_wins() {
    let Some(bind) = Bind::start() else { return };
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8_u8)
            .map(|thread| {
                let bind = &bind;
                scope.spawn(move || {
                    let key = Key::of("hmac-sha256");
                    let values = (0..25_u8).map(|turn| format!("10.0.{thread}.{turn}"));
                    values
                        .map(|value| {
                            create(
                                &bind.servers(Some(&key)),
                                &record("race.example.com", RecordType::A, &value),
                            )
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(
        outcomes
            .iter()
            .filter(|outcome| **outcome == Ok(true))
            .count(),
        1
    );
    assert_eq!(
        outcomes
            .iter()
            .filter(|outcome| matches!(outcome, Err(Problem::Conflict { .. })))
            .count(),
        199
    );
    assert_eq!(bind.dig("race.example.com", "A").lines().count(), 1);
}

#[test]
fn a_wrong_key_is_named_as_such() {
    let Some(bind) = Bind::start() else { return };
    let mut key = Key::of("hmac-sha256");
    key.secret = b"another".to_vec();
    let why = create(
        &bind.servers(Some(&key)),
        &record("k.example.com", RecordType::A, "192.0.2.1"),
    )
    .unwrap_err();
    assert!(
        matches!(&why, Problem::Refused { why, .. } if why.contains("BADSIG")),
        "{why}"
    );
    key.name = message::name("nobody").unwrap();
    let why = create(
        &bind.servers(Some(&key)),
        &record("k.example.com", RecordType::A, "192.0.2.1"),
    )
    .unwrap_err();
    assert!(
        matches!(&why, Problem::Refused { why, .. } if why.contains("BADKEY")),
        "{why}"
    );
}

#[test]
fn what_the_server_does_not_let_happen_is_an_error() {
    let Some(bind) = Bind::start() else { return };
    let key = Key::of("hmac-sha256");
    for servers in [bind.servers(None), bind.servers(Some(&key))] {
        let refused = create(
            &servers,
            &record("a.closed.test", RecordType::A, "192.0.2.1"),
        );
        assert!(
            matches!(&refused, Err(Problem::Refused { why, .. }) if why == "REFUSED"),
            "{refused:?}"
        );
        let nowhere = create(
            &servers,
            &record("a.nowhere.test", RecordType::A, "192.0.2.1"),
        );
        assert!(
            matches!(nowhere, Err(Problem::NotAuthoritative { .. })),
            "{nowhere:?}"
        );
        let nowhere = remove(&servers, "a.nowhere.test", RecordType::A, None);
        assert!(
            matches!(nowhere, Err(Problem::NotAuthoritative { .. })),
            "{nowhere:?}"
        );
    }
    assert_eq!(
        create(
            &bind.servers(None),
            &record("a.open.test", RecordType::A, "192.0.2.1")
        ),
        Ok(true)
    );
    let unsigned = create(
        &bind.servers(None),
        &record("a.example.com", RecordType::A, "192.0.2.1"),
    );
    assert!(
        matches!(unsigned, Err(Problem::Refused { .. })),
        "{unsigned:?}"
    );
}

#[test]
fn an_answer_too_long_for_a_datagram_comes_by_tcp() {
    let Some(bind) = Bind::start() else { return };
    let key = Key::of("hmac-sha256");
    let servers = bind.servers(Some(&key));
    for port in 1..=60 {
        let value = format!("0 5 {port} a-rather-long-name-of-a-target-{port}.example.com");
        assert_eq!(
            create(
                &servers,
                &record("_many._tcp.example.com", RecordType::Srv, &value)
            ),
            Ok(true),
            "record {port} of 60; BIND says:\n{}",
            bind.log()
        );
    }
    assert_eq!(
        find(&servers, "_many._tcp.example.com", RecordType::Srv)
            .unwrap()
            .len(),
        60
    );
}

#[test]
fn a_second_server_stands_in_for_one_that_is_gone() {
    let Some(bind) = Bind::start() else { return };
    let gone = SocketAddr::from((
        [127, 0, 0, 1],
        UdpSocket::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port(),
    ));
    let servers = Servers::new(vec![gone, bind.address], None, Duration::from_secs(5));
    assert_eq!(
        create(&servers, &record("a.open.test", RecordType::A, "192.0.2.1")),
        Ok(true)
    );
    let none = Servers::new(vec![gone], None, Duration::from_secs(5));
    assert!(matches!(
        find(&none, "a.open.test", RecordType::A),
        Err(Problem::Unreachable { .. })
    ));
}
