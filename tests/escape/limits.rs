//! Limits that show in no single answer: each is set low, where it has to bite, and left as it is, where it must not.
//!
//! The limits of one call stand in the matrix; those of many calls at once in `tests/faults/hostile_plugins.rs`.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use bulkhead_testkit::medium::Medium;
use bulkhead_testkit::namespace::Namespace;
use bulkhead_testkit::{Bulkhead, Configuration, assert_eventually, ports, skip};

use crate::stage::SONG;

/// The program with the attacker, and a web server that it may forward to.
struct Site {
    bulkhead: Bulkhead,
    /// The policy without `[limits]`.
    policy: String,
}

impl Site {
    fn start(web: &Medium) -> Self {
        let grants = format!(
            "[http.api]\nurl = \"http://{}/\"\nmethods = [\"POST\"]",
            web.address
        );
        let configuration =
            Configuration::empty().plugin("prober", bulkhead_fixtures::wasm("prober"), &grants);
        let policy =
            fs::read_to_string(configuration.scratch.join("policies/prober.toml")).unwrap();
        let this = Self {
            bulkhead: Bulkhead::with(configuration),
            policy,
        };
        // The log comes a little later than what it tells.
        assert_eventually!(this.brought_up() == 1, "{}", this.bulkhead.log());
        this
    }

    fn brought_up(&self) -> usize {
        let lines = self.bulkhead.log_lines("Successfully initialized 'prober'");
        lines.len()
    }

    /// Brings the attacker up anew with this limit.
    #[track_caller]
    fn limit(&self, line: &str) {
        let before = self.brought_up();
        let scratch = &self.bulkhead.configuration.scratch;
        let new = scratch.file("new-policy", format!("{}\n[limits]\n{line}\n", self.policy));
        fs::rename(new, scratch.join("policies/prober.toml")).unwrap();
        assert_eventually!(
            self.brought_up() > before,
            "{line}:\n{}",
            self.bulkhead.log()
        );
    }

    fn get(&self, path: &str) -> String {
        let answer = self.bulkhead.foreman().get(&format!("/prober/{path}"));
        format!("{} {}", answer.status, answer.text())
    }

    fn post(&self, path: &str, bytes: usize) -> String {
        let target = self.bulkhead.foreman();
        let body = "x".repeat(bytes);
        let request = target.request("POST", &format!("/prober/{path}"));
        let answer = request.body("application/octet-stream", body).send();
        format!("{} {}", answer.status, answer.text())
    }
}

#[test]
fn limits_of_bodies_and_lines_bite_where_they_are_set() {
    let web = Medium::start();
    web.put("canary", SONG);
    let site = Site::start(&web);
    let pass = "pass?slot=api&target=/file/canary";
    let printed = || site.bulkhead.log_lines("a line of many").len();
    site.limit("request-body = \"8KiB\"\nforward-body = \"8KiB\"\nlog-lines = 1000");
    assert!(
        site.post("body", 4000).starts_with("200 ok 4000"),
        "{}",
        site.post("body", 4000)
    );
    assert!(
        site.post(pass, 4000).contains(SONG),
        "{}",
        site.post(pass, 4000)
    );
    assert!(site.get("take?what=lines&amount=60").starts_with("200"));
    assert_eventually!(printed() == 60, "{} lines", printed());
    site.limit("request-body = \"1KiB\"\nforward-body = \"1KiB\"\nlog-lines = 5");
    assert!(
        site.post("body", 4000).starts_with("413"),
        "{}",
        site.post("body", 4000)
    );
    let seen = web.requests().len();
    let passed = site.post(pass, 4000);
    assert!(
        passed.starts_with("413") && !passed.contains(SONG),
        "{passed}"
    );
    let arrived: usize = web
        .requests()
        .iter()
        .skip(seen)
        .map(|it| it.body.len())
        .sum();
    assert!(arrived <= 1100, "{arrived} bytes were forwarded");
    assert!(site.get("take?what=lines&amount=60").starts_with("200"));
    std::thread::sleep(Duration::from_secs(1));
    let more = printed() - 60;
    assert!((1..=15).contains(&more), "{more} lines were printed");
}

#[test]
fn limits_of_instances_bite_where_they_are_set() {
    let site = Site::start(&Medium::start());
    let count = || site.get("count");
    // A kept instance counts on; one that is not kept, or only for two calls, begins anew.
    site.limit("warm = 1\nconcurrency = 1");
    let counted: Vec<String> = (0..4).map(|_| count()).collect();
    assert_eq!(counted, ["200 ok 1", "200 ok 2", "200 ok 3", "200 ok 4"]);
    site.limit("warm = 0\nconcurrency = 1");
    let counted: Vec<String> = (0..3).map(|_| count()).collect();
    assert_eq!(counted, ["200 ok 1", "200 ok 1", "200 ok 1"]);
    // Its start and its status are calls as well.
    site.limit("warm = 1\nconcurrency = 1\nreuse = 2");
    let counted: Vec<String> = (0..6).map(|_| count()).collect();
    assert!(counted.contains(&"200 ok 2".to_owned()), "{counted:?}");
    assert!(!counted.contains(&"200 ok 3".to_owned()), "{counted:?}");

    // Two calls that hold 12 MiB each: the plugin may have both, or one.
    let both = || {
        let hold = "take?what=memory&amount=12582912&hold=1500";
        let mut answers: Vec<String> = std::thread::scope(|scope| {
            let calls: Vec<_> = (0..2).map(|_| scope.spawn(|| site.get(hold))).collect();
            calls.into_iter().map(|call| call.join().unwrap()).collect()
        });
        answers.sort();
        answers
            .iter()
            .map(|answer| answer[..3].to_owned())
            .collect::<Vec<_>>()
    };
    site.limit("memory = \"24MiB\"\nmemory-total = \"64MiB\"\nwarm = 0");
    assert_eq!(both(), ["200", "200"], "{}", site.bulkhead.log());
    site.limit("memory = \"24MiB\"\nmemory-total = \"24MiB\"\nwarm = 0");
    assert_eq!(both(), ["200", "500"], "{}", site.bulkhead.log());
    assert_eventually!(
        site.bulkhead
            .log()
            .contains("limits.memory-total = 25165824 bytes is used up"),
        "{}",
        site.bulkhead.log()
    );
}

/// The program with the echo server under this grant of `listen`.
fn echo(grant: &str) -> Bulkhead {
    Bulkhead::with(Configuration::empty().plugin(
        "echo-reactor",
        bulkhead_fixtures::wasm("echo-reactor"),
        &format!("[listen.echo]\n{grant}"),
    ))
}

/// Whether the server answers on this connection, which may be closed already.
fn answers(stream: &mut TcpStream) -> bool {
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let mut got = [0; 4];
    stream.write_all(b"\x00\x02hi").is_ok()
        && stream.read_exact(&mut got).is_ok()
        && got == *b"\x00\x02hi"
}

#[test]
fn limits_of_listening_sockets_bite_where_they_are_set() {
    let port = ports::free();
    let sockets = format!("sockets = [\"tcp 127.0.0.1:{port}\"]");
    let connect = || TcpStream::connect(("127.0.0.1", port)).unwrap();
    // Three connections at once: all, two of them, one of them.
    for (limit, most) in [
        ("", 3),
        ("connections = 2", 2),
        ("connections-per-address = 1", 1),
    ] {
        let bulkhead = echo(&format!("{sockets}\n{limit}"));
        let mut open: Vec<TcpStream> = (0..3).map(|_| connect()).collect();
        let answered = open
            .iter_mut()
            .filter_map(|it| answers(it).then_some(()))
            .count();
        assert_eq!(answered, most, "{limit}\n{}", bulkhead.log());
        // A place that is free again is had again.
        drop(open);
        assert_eventually!(answers(&mut connect()), "{limit}\n{}", bulkhead.log());
    }
    // A connection on which nothing is said: closed after a second, or kept for ten.
    for (limit, closes) in [("idle = \"1s\"", true), ("", false)] {
        let bulkhead = echo(&format!("{sockets}\n{limit}"));
        let mut quiet = connect();
        assert!(answers(&mut quiet), "{}", bulkhead.log());
        quiet
            .set_read_timeout(Some(Duration::from_secs(4)))
            .unwrap();
        let closed = matches!(quiet.read(&mut [0; 1]), Ok(0));
        assert_eq!(closed, closes, "{limit}");
    }
}

/// Two clients that ask for a file at the same time and take it slowly: both get it, or one of them has to ask again.
#[test]
fn transfers_at_once_are_as_many_as_granted() {
    for (limit, most) in [("", 2), ("transfers = 1", 1)] {
        let port = ports::free();
        let configuration = Configuration::empty();
        configuration
            .scratch
            .file("boot/large", vec![b'x'; 1 << 20]);
        let boot = configuration.boot().display().to_string();
        let configuration = configuration
            .feature(
                "tftp-server",
                &format!("enabled = true\ntftproot = {boot:?}"),
            )
            .policy(
                "tftp-server",
                &format!(
                    "[listen.tftp]\nsockets = [\"udp 127.0.0.1:{port}\"]\n{limit}\n\
                     [files.root]\ndirectory = {{ setting = \"tftproot\" }}"
                ),
            );
        let bulkhead = Bulkhead::with(configuration);
        let clients: Vec<UdpSocket> = (0..2)
            .map(|_| {
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                socket
                    .set_read_timeout(Some(Duration::from_secs(3)))
                    .unwrap();
                socket
                    .send_to(b"\0\x01large\0octet\0", ("127.0.0.1", port))
                    .unwrap();
                socket
            })
            .collect();
        let served = clients
            .iter()
            .filter(|client| client.recv(&mut [0; 600]).is_ok_and(|length| length == 516))
            .count();
        assert_eq!(served, most, "{limit}\n{}", bulkhead.log());
    }
}

/// A socket on one interface hears nothing of another.
#[test]
fn a_socket_hears_its_own_interface() {
    let (Some(site), Some(far)) = (Namespace::new("site"), Namespace::new("far")) else {
        skip!("no network namespaces here: they need root and `ip`");
    };
    site.wire("eth0", "192.0.2.1/24", &far, "eth1", "192.0.2.50/24");
    site.enter();
    let heard = |asker: &UdpSocket, to: &str| {
        asker
            .set_read_timeout(Some(Duration::from_secs(2)))
            .unwrap();
        // The first may be lost to the neighbour's being found.
        (0..2).any(|_| asker.send_to(b"ping", to).is_ok() && asker.recv(&mut [0; 16]).is_ok())
    };
    for (interface, inside, outside) in [("lo", true, false), ("eth0", false, true)] {
        let bulkhead = echo(&format!(
            "sockets = [\"udp 0.0.0.0:6767\"]\ninterface = \"{interface}\""
        ));
        let near = UdpSocket::bind("127.0.0.1:0").unwrap();
        let distant = far.inside(|| UdpSocket::bind("192.0.2.50:0").unwrap());
        assert_eq!(
            heard(&near, "127.0.0.1:6767"),
            inside,
            "{interface}\n{}",
            bulkhead.log()
        );
        assert_eq!(
            heard(&distant, "192.0.2.1:6767"),
            outside,
            "{interface}\n{}",
            bulkhead.log()
        );
    }
}
