//! A name server in the attacker's hand: its first answer leads where the policy allows, the next ones lead inside.
//!
//! Without a right to loopback addresses the first request arrives outside and no later one arrives inside; with it, the later ones do arrive there, or
//! the flip would prove nothing.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bulkhead_testkit::namespace::Namespace;
use bulkhead_testkit::{Bulkhead, Configuration, assert_eventually, skip};

use crate::stage::SONG;

/// The address that the policy lets the plugin reach, by name.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const PORT: u16 = 8081;

/// A web server that closes each connection, so that every request needs a new one.
fn web(address: Ipv4Addr, song: &'static str) -> Arc<AtomicUsize> {
    let listener = TcpListener::bind((address, PORT)).unwrap();
    let reached = Arc::new(AtomicUsize::new(0));
    let count = reached.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            count.fetch_add(1, Ordering::Relaxed);
            let _ = stream.read(&mut [0; 4096]);
            let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length:";
            let answer = format!("{head} {}\r\n\r\n{song}", song.len());
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    reached
}

/// Answers questions for addresses: the first for a name with [`OUTSIDE`], every other with loopback. Answers hold for no time at all.
struct NameServer(Arc<Mutex<Vec<String>>>);

impl NameServer {
    fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:53").unwrap();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let known = asked.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
                let question = &buffer[12..length];
                let end = question.iter().position(|byte| *byte == 0).unwrap() + 5;
                let name = String::from_utf8_lossy(&question[..end - 5]).into_owned();
                let mut answer = buffer[..2].to_vec();
                let is_a = question[end - 3] == 1;
                answer.extend([0x84, 0, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
                answer.extend(&question[..end]);
                if is_a {
                    let mut known = known.lock().unwrap();
                    let first = !known.contains(&name);
                    known.push(name);
                    let address = if first { OUTSIDE } else { Ipv4Addr::LOCALHOST };
                    answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
                    answer.extend(address.octets());
                }
                let _ = socket.send_to(&answer, peer);
            }
        });
        Self(asked)
    }

    /// How often the address of a name was asked for that holds this.
    fn asked(&self, part: &str) -> usize {
        self.0
            .lock()
            .unwrap()
            .iter()
            .filter(|name| name.contains(part))
            .count()
    }
}

/// The program with the attacker, which may reach two names, and loopback as well if `inside` says so.
fn program(inside: &str) -> Bulkhead {
    let grants = format!(
        "[http.api]\nurl = \"http://web.example.com:{PORT}/\"\n{inside}\n\
         [sockets.peer]\nallow = [\"tcp socket.example.com:{PORT}\"]\n{inside}\n\
         [files.data]\ndirectory = \"DATA\"\naccess = \"read-write\"\n\
         [downloads.media]\nurls = [\"http://file.example.com:{PORT}/*\"]\ninto = \"data\"\n{inside}\n"
    );
    let configuration = Configuration::empty().name_server("127.0.0.1");
    let data = configuration.scratch.directory("data");
    let grants = grants.replace("DATA", &data.display().to_string());
    Bulkhead::with(configuration.plugin("prober", bulkhead_fixtures::wasm("prober"), &grants))
}

fn denied(bulkhead: &Bulkhead, what: &str) -> bool {
    bulkhead
        .log_lines("may not")
        .iter()
        .any(|line| line.contains(what))
}

#[test]
fn a_name_server_that_changes_its_mind_leads_nobody_inside() {
    let Some(site) = Namespace::new("rebinding") else {
        skip!("no network namespaces here: they need root and `ip`");
    };
    site.ip(&["address", "add", &format!("{OUTSIDE}/32"), "dev", "lo"]);
    site.enter();
    let (outside, inside) = (web(OUTSIDE, "outside"), web(Ipv4Addr::LOCALHOST, SONG));
    let http = "/prober/http?slot=api&method=GET&target=/x";
    let socket = format!("/prober/tcp?address=socket.example.com:{PORT}");
    let fetch = |n: u8| {
        format!("/prober/download?slot=media&url=http://file.example.com:{PORT}/x{n}&path=x{n}")
    };

    let names = NameServer::start();
    let bulkhead = program("");
    let ask = |path: &str| bulkhead.foreman().get(path).text();
    // What was checked is what is connected to: one question, one decision, one connection.
    let first = ask(http);
    assert!(first.contains("outside"), "{first}\n{}", bulkhead.log());
    assert_eq!(
        names.asked("web"),
        1,
        "it was resolved again between check and connection"
    );
    let second = ask(http);
    assert!(second.starts_with("refused denied"), "{second}");
    assert_eq!(names.asked("web"), 2);
    let first = ask(&socket);
    assert!(first.contains("outside"), "{first}\n{}", bulkhead.log());
    let second = ask(&socket);
    assert!(second.starts_with("refused"), "{second}");
    let direct = ask(&format!("/prober/tcp?address=127.0.0.1:{PORT}"));
    assert!(direct.starts_with("refused"), "{direct}");
    let data = bulkhead.configuration.scratch.join("data");
    assert!(ask(&fetch(1)).starts_with("ok"));
    assert_eventually!(data.join("x1").exists(), "{}", bulkhead.log());
    assert!(ask(&fetch(2)).starts_with("ok"));
    for told in [
        "http slot `api`",
        &format!("tcp 127.0.0.1:{PORT}"),
        "downloads slot `media`",
    ] {
        assert_eventually!(
            denied(&bulkhead, told),
            "no denial of {told}:\n{}",
            bulkhead.log()
        );
    }
    assert!(!data.join("x2").exists());
    assert_eq!(inside.load(Ordering::Relaxed), 0, "it was led inside");
    assert!(outside.load(Ordering::Relaxed) >= 3);

    // The same answers, where the operator lets it reach loopback.
    let bulkhead = program("loopback = true");
    let ask = |path: &str| bulkhead.foreman().get(path).text();
    for path in [http, socket.as_str()] {
        let answer = ask(path);
        assert!(
            answer.contains(SONG),
            "{path}: {answer}\n{}",
            bulkhead.log()
        );
    }
    assert!(ask(&fetch(3)).starts_with("ok"));
    let data = bulkhead.configuration.scratch.join("data");
    assert_eventually!(data.join("x3").exists(), "{}", bulkhead.log());
    assert_eq!(inside.load(Ordering::Relaxed), 3);
}
