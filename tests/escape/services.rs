//! A network server that means harm: it answers whom nobody asked it to answer, as somebody it is not, and by sockets and interfaces that are not its own.
//!
//! Each attack is tried without its grant first (nothing arrives, and the denial is told), then with it (it arrives, or the attack would prove nothing).

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use bulkhead_testkit::namespace::Namespace;
use bulkhead_testkit::{Bulkhead, Configuration, assert_eventually, skip};

/// How long nothing has to arrive where nothing may: the denial has been told before that.
const SILENCE: Duration = Duration::from_millis(300);

/// One attack: what the server is told to do, the policy under which it may not, the one under which it may, and what is said of it.
struct Attack {
    name: &'static str,
    told: String,
    without: String,
    with: String,
    denial: String,
    /// Who may hear of it, and from which address it then comes.
    ear: UdpSocket,
    from: Option<SocketAddr>,
}

/// The program with the server in it, in a namespace.
struct Server {
    bulkhead: Bulkhead,
    first_line: String,
}

impl Server {
    fn start(grants: &str) -> Self {
        let configuration = Configuration::empty().plugin(
            "echo-reactor",
            bulkhead_fixtures::wasm("echo-reactor"),
            grants,
        );
        let policy =
            fs::read_to_string(configuration.scratch.join("policies/echo-reactor.toml")).unwrap();
        let first_line: Vec<&str> = policy.lines().take(2).collect();
        Self {
            first_line: first_line.join("\n"),
            bulkhead: Bulkhead::with(configuration),
        }
    }

    fn grant(&self, grants: &str) {
        let held = || self.bulkhead.log().matches("it holds from now on").count();
        let before = held();
        let scratch = &self.bulkhead.configuration.scratch;
        let new = scratch.file("new-policy", format!("{}\n{grants}\n", self.first_line));
        fs::rename(new, scratch.join("policies/echo-reactor.toml")).unwrap();
        assert_eventually!(held() > before, "{}", self.bulkhead.log());
    }

    fn denied(&self, what: &str) -> usize {
        let denials = self.bulkhead.log_lines("may not");
        denials
            .iter()
            .filter(|line| line.contains("echo-reactor") && line.contains(what))
            .count()
    }

    /// `asker` tells the server what to do; each attempt is one datagram.
    #[track_caller]
    fn suffers(&self, asker: &UdpSocket, to: &str, attack: &Attack) {
        let Attack {
            name,
            told,
            denial,
            ear,
            ..
        } = attack;
        let ask = || asker.send_to(format!("do {told}").as_bytes(), to).unwrap();
        let mut buffer = [0; 64];
        self.grant(&attack.without);
        ear.set_read_timeout(Some(SILENCE)).unwrap();
        let before = self.denied(denial);
        // The first may meet a socket that is being opened.
        assert_eventually!(
            {
                ask();
                std::thread::sleep(Duration::from_millis(50));
                self.denied(denial) > before
            },
            "{name}: no denial says {denial:?}:\n{}",
            self.bulkhead.log()
        );
        assert!(
            ear.recv_from(&mut buffer).is_err(),
            "{name}: it arrived without a grant"
        );
        self.grant(&attack.with);
        let mut heard = None;
        assert_eventually!(
            {
                ask();
                heard = ear.recv_from(&mut buffer).ok();
                heard.is_some()
            },
            "{name}: it does not arrive with a grant, so nothing is proven:\n{}",
            self.bulkhead.log()
        );
        let (length, from) = heard.unwrap();
        assert_eq!(&buffer[..length], b"done", "{name}");
        if let Some(expected) = attack.from {
            assert_eq!(from, expected, "{name}");
        }
    }
}

fn ear(at: &Namespace, address: &str) -> UdpSocket {
    at.inside(|| {
        let socket = UdpSocket::bind(address).unwrap();
        socket.set_broadcast(true).unwrap();
        socket
    })
}

#[test]
fn a_server_answers_who_asked_it_by_its_own_sockets_as_itself() {
    let (Some(site), Some(far)) = (Namespace::new("site"), Namespace::new("far")) else {
        skip!("no network namespaces here: they need root and `ip`");
    };
    site.wire("eth0", "192.0.2.1/24", &far, "eth1", "192.0.2.50/24");
    site.ip(&["addr", "add", "192.0.2.2/24", "dev", "eth0"]);
    site.ip(&["route", "add", "default", "dev", "eth0"]);
    site.enter();
    let own = "[listen.echo]\nsockets = [\"udp 192.0.2.1:6767\"]\n";
    let server = Server::start("");
    let asker = ear(&far, "192.0.2.50:6868");
    let copy = |socket: &UdpSocket| socket.try_clone().unwrap();
    let attack =
        |name, told: &str, with: &str, denial: &str, ear: UdpSocket, from: Option<&str>| Attack {
            name,
            told: told.to_owned(),
            without: own.to_owned(),
            with: with.to_owned(),
            denial: denial.to_owned(),
            ear,
            from: from.map(|it| it.parse().unwrap()),
        };
    let stranger = ear(&far, "192.0.2.50:7001");
    let all = ear(&far, "0.0.0.0:7002");
    let second = "[listen.echo]\nsockets = [\"udp 192.0.2.1:6767\", \"udp 192.0.2.2:6767\"]\n";
    let port = "[listen.echo]\nsockets = [\"udp 192.0.2.1:6767\", \"udp 192.0.2.1:6000\"]\n";
    for attack in [
        attack(
            "answer a peer it never heard of",
            "peer=192.0.2.50:7001",
            &format!("{own}peers = [\"udp 192.0.2.50:7001\"]\n"),
            "send a datagram to 192.0.2.50:7001, which sent none,",
            copy(&stranger),
            Some("192.0.2.1:6767"),
        ),
        attack(
            "send to everybody",
            "peer=255.255.255.255:7002",
            &format!("{own}broadcast = true\n"),
            "send a datagram to 255.255.255.255:7002",
            copy(&all),
            Some("192.0.2.1:6767"),
        ),
        attack(
            "answer as another address of this machine",
            "local=192.0.2.2:6767",
            second,
            "send as 192.0.2.2:6767",
            copy(&asker),
            Some("192.0.2.2:6767"),
        ),
        attack(
            "answer by a port that is not granted",
            "local=192.0.2.1:6000",
            port,
            "send as 192.0.2.1:6000",
            copy(&asker),
            Some("192.0.2.1:6000"),
        ),
        attack(
            "answer by a slot that is not granted",
            "slot=other peer=192.0.2.50:7001 local=",
            &format!(
                "{own}[listen.other]\nsockets = [\"udp 192.0.2.1:6001\"]\npeers = [\"udp 192.0.2.50:7001\"]\n"
            ),
            "listen slot `other`",
            stranger,
            Some("192.0.2.1:6001"),
        ),
    ] {
        server.suffers(&asker, "192.0.2.1:6767", &attack);
    }
    // No grant lets it speak as another machine: the kernel refuses, and so does the host.
    server.grant(own);
    assert_eventually!(
        {
            asker
                .send_to(b"do local=192.0.2.254:6767", "192.0.2.1:6767")
                .unwrap();
            server.denied("send as 192.0.2.254:6767") > 0
        },
        "{}",
        server.bulkhead.log()
    );
}

#[test]
fn a_server_sends_frames_by_its_own_interface_as_this_machine() {
    let (Some(site), Some(far), Some(beyond)) = (
        Namespace::new("site"),
        Namespace::new("far"),
        Namespace::new("beyond"),
    ) else {
        skip!("no network namespaces here: they need root and `ip`");
    };
    site.wire("eth0", "192.0.2.1/24", &far, "eth1", "192.0.2.50/24");
    site.wire(
        "eth2",
        "198.51.100.1/24",
        &beyond,
        "eth3",
        "198.51.100.50/24",
    );
    let mac = |at: &Namespace, interface: &str| {
        let shown = at.run("ip", &["-br", "link", "show", interface]).stdout;
        let shown = String::from_utf8(shown).unwrap();
        shown.split_whitespace().nth(2).unwrap().to_owned()
    };
    let (near, other) = (mac(&far, "eth1"), mac(&beyond, "eth3"));
    site.enter();
    let own = "[link.wire]\ninterfaces = [\"eth0\"]\nport = 6767\n";
    let server = Server::start("");
    let asker = ear(&far, "192.0.2.50:6868");
    let elsewhere = ear(&beyond, "198.51.100.50:6868");
    let to = "192.0.2.1:6767";
    server.suffers(
        &asker,
        to,
        &Attack {
            name: "send a frame on another interface",
            told: format!("interface=eth2 hardware={other} peer=198.51.100.50:6868 local="),
            without: own.to_owned(),
            with: own.replace("[\"eth0\"]", "[\"eth0\", \"eth2\"]"),
            denial: "on interface `eth2`".to_owned(),
            ear: elsewhere,
            from: Some("198.51.100.1:6767".parse().unwrap()),
        },
    );
    // Its own MAC address stands in every frame, since the contract has no word for another; what it may name is the sender's IP address.
    server.grant(own);
    let spoof = format!("do interface=eth0 hardware={near} local=192.0.2.254:6767");
    asker.set_read_timeout(Some(SILENCE)).unwrap();
    let mut buffer = [0; 64];
    assert_eventually!(
        {
            asker.send_to(spoof.as_bytes(), to).unwrap();
            std::thread::sleep(Duration::from_millis(50));
            server.denied("send as 192.0.2.254:6767") > 0
        },
        "{}",
        server.bulkhead.log()
    );
    assert!(
        asker.recv_from(&mut buffer).is_err(),
        "it spoke as another machine"
    );
    // The address is this machine's own: now it may.
    site.ip(&["addr", "add", "192.0.2.254/24", "dev", "eth0"]);
    let mut heard = None;
    assert_eventually!(
        {
            asker.send_to(spoof.as_bytes(), to).unwrap();
            heard = asker.recv_from(&mut buffer).ok();
            heard.is_some()
        },
        "{}",
        server.bulkhead.log()
    );
    assert_eq!(heard.unwrap().1, "192.0.2.254:6767".parse().unwrap());
}
