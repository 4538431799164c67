//! DNS in two sandboxes: an attacker in the place of `dns` opens no socket, one in the place of `dns-rfc2136` reaches its server
//! and nothing beside it. Both stand under the policies that Bulkhead ships, with the attacker's names of the slots.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bulkhead_testkit::bind::private;
use bulkhead_testkit::exchange::form_encoded;
use bulkhead_testkit::{Bulkhead, Configuration, assert_eventually, ports};

use crate::stage::quoted;

const SONG: &str = "the server sings";

/// A server of both kinds on one port, which counts who comes.
struct Canary {
    port: u16,
    reached: Arc<AtomicUsize>,
}

impl Canary {
    fn start() -> Self {
        let (port, reached) = (ports::free(), Arc::new(AtomicUsize::new(0)));
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        let count = reached.clone();
        std::thread::spawn(move || {
            for mut stream in tcp.incoming().flatten() {
                count.fetch_add(1, Ordering::Relaxed);
                let _ = stream.read(&mut [0; 64]);
                let _ = stream.write_all(SONG.as_bytes());
            }
        });
        let count = reached.clone();
        std::thread::spawn(move || {
            while let Ok((_, peer)) = udp.recv_from(&mut [0; 2048]) {
                count.fetch_add(1, Ordering::Relaxed);
                let _ = udp.send_to(SONG.as_bytes(), peer);
            }
        });
        Self { port, reached }
    }

    fn reached(&self) -> usize {
        self.reached.load(Ordering::Relaxed)
    }
}

/// The shipped words, other words in their place. They have to stand there.
#[track_caller]
fn instead(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from} does not stand in\n{text}");
    text.replace(from, to)
}

#[track_caller]
fn try_to(bulkhead: &Bulkhead, what: &str, fields: &[(&str, &str)]) -> String {
    let query: Vec<String> = fields
        .iter()
        .map(|(name, value)| format!("{name}={}", form_encoded(value)))
        .collect();
    bulkhead
        .foreman()
        .get(&format!("/prober/{what}?{}", query.join("&")))
        .text()
}

/// Fails unless the attack is refused and the audit tells of it.
#[track_caller]
fn denied(bulkhead: &Bulkhead, what: &str, fields: &[(&str, &str)], told: &str) {
    let answer = try_to(bulkhead, what, fields);
    assert!(answer.starts_with("refused"), "{what} {fields:?}: {answer}");
    let told_of = || {
        bulkhead
            .log()
            .lines()
            .any(|line| line.contains("prober") && line.contains("may not") && line.contains(told))
    };
    assert_eventually!(told_of(), "no denial of {told:?} in:\n{}", bulkhead.log());
}

/// Fails unless the attack is refused. For doors that are not there at all, so that there is nothing to tell.
#[track_caller]
fn refused(bulkhead: &Bulkhead, what: &str, fields: &[(&str, &str)]) {
    let answer = try_to(bulkhead, what, fields);
    assert!(
        !answer.starts_with("ok") && !answer.contains(SONG),
        "{what} {fields:?}: {answer}"
    );
}

fn with_policy(configuration: Configuration, grants: &str) -> Bulkhead {
    Bulkhead::with(configuration.plugin("prober", bulkhead_fixtures::wasm("prober"), grants))
}

/// `dns-rfc2136`: its server by UDP and TCP, signatures by its key; no other port, name, file, no key to look at.
#[test]
fn the_provider_reaches_its_server_and_nothing_beside_it() {
    let (server, beside) = (Canary::start(), Canary::start());
    let configuration = Configuration::empty();
    let key = configuration.scratch.file(
        "dns.key",
        "key \"k\" { algorithm hmac-sha256; secret \"YSBzZWNyZXQgZm9yIHRlc3RzLCAzMiBieXRlcyBsb25n\"; };\n",
    );
    private(&key);
    let shipped = include_str!("../../policies/dns-rfc2136.toml");
    let mut text = instead(shipped, "plugin = \"dns-rfc2136\"\n", "");
    for protocol in ["udp", "tcp"] {
        text = instead(
            &text,
            &format!("{{ setting = \"dns_server\", protocol = \"{protocol}\", port = 53 }}"),
            &format!("\"{protocol} 127.0.0.1:{}\"", server.port),
        );
    }
    text = instead(&text, "{ setting = \"dns_key\" }", &quoted(&key));
    text = instead(&text, "[secrets.key]", "[secrets.mac]");
    let (sockets, secrets) = text.split_once("[secrets.mac]").unwrap();
    let udp = instead(sockets, "[sockets.server]", "[sockets.peer-udp]");
    let tcp = instead(sockets, "[sockets.server]", "[sockets.peer]");
    let bulkhead = with_policy(
        configuration,
        &format!("{udp}\n{tcp}\n[secrets.mac]{secrets}"),
    );

    let address = |canary: &Canary| format!("127.0.0.1:{}", canary.port);
    let (inside, outside) = (address(&server), address(&beside));
    // Or the rest would prove nothing.
    assert!(try_to(&bulkhead, "tcp", &[("address", &inside)]).contains(SONG));
    let answer = try_to(&bulkhead, "udp", &[("address", &inside), ("text", "x")]);
    assert!(answer.contains(SONG), "{answer}");
    assert!(try_to(&bulkhead, "sign", &[("slot", "mac")]).starts_with("ok"));
    assert_eq!(server.reached(), 2);

    denied(&bulkhead, "tcp", &[("address", &outside)], &outside);
    denied(
        &bulkhead,
        "udp",
        &[("address", &outside), ("text", "x")],
        &outside,
    );
    denied(
        &bulkhead,
        "tcp",
        &[("address", "127.0.0.2:53")],
        "127.0.0.2:53",
    );
    denied(
        &bulkhead,
        "resolve",
        &[("name", "ns.example.com")],
        "ns.example.com",
    );
    refused(&bulkhead, "listen", &[("address", "127.0.0.1:0")]);
    let path = key.display().to_string();
    for path in [path.as_str(), "/etc/passwd", "/data/canary"] {
        refused(&bulkhead, "read", &[("path", path)]);
    }
    let shown = try_to(&bulkhead, "reveal", &[("slot", "mac")]);
    assert!(shown.starts_with("refused"), "{shown}");
    assert!(!shown.contains("a secret for tests"), "{shown}");
    refused(&bulkhead, "store", &[("slot", "keys"), ("key", "a")]);
    assert_eq!(beside.reached(), 0);
}

/// `dns`: one plugin to call; no socket, no name, no file, no key.
#[test]
fn the_feature_opens_no_socket() {
    let canary = Canary::start();
    let shipped = include_str!("../../policies/dns.toml");
    let grants = instead(shipped, "plugin = \"dns\"\n", "");
    let grants = instead(&grants, "[call.dns-provider]", "[call.provider]");
    let grants = instead(&grants, "{ setting = \"use_provider\" }", "\"dns-double\"");
    let configuration =
        Configuration::empty().plugin("dns-double", bulkhead_fixtures::wasm("dns-double"), "");
    let key = configuration.scratch.file("dns.key", SONG);
    let bulkhead = with_policy(configuration, &grants);
    let answer = try_to(&bulkhead, "call", &[("name", "a.example.com")]);
    assert!(answer.starts_with("ok"), "the one door is shut: {answer}");

    let address = format!("127.0.0.1:{}", canary.port);
    denied(&bulkhead, "tcp", &[("address", &address)], &address);
    denied(
        &bulkhead,
        "udp",
        &[("address", &address), ("text", "x")],
        "UDP socket",
    );
    denied(&bulkhead, "resolve", &[("name", "localhost")], "localhost");
    refused(&bulkhead, "listen", &[("address", "127.0.0.1:0")]);
    refused(&bulkhead, "read", &[("path", path_of(&key).as_str())]);
    refused(&bulkhead, "sign", &[("slot", "mac")]);
    refused(&bulkhead, "reveal", &[("slot", "key")]);
    assert_eq!(canary.reached(), 0);
}

fn path_of(path: &Path) -> String {
    path.display().to_string()
}
