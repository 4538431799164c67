//! Network servers under load, and traps: first one beside them traps again and again, then each of them is itself killed by one.
//!
//! A server dies of a real trap: its policy gives it hardly more memory than it needs, and a burst of the largest datagrams there are does not fit.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bulkhead_testkit::dns::{question, try_udp};
use bulkhead_testkit::eventually::until_within;
use bulkhead_testkit::namespace::Namespace;
use bulkhead_testkit::tftp::{Client, Packet, request};
use bulkhead_testkit::{Bulkhead, Configuration, skip};

/// How long an answer may take: what nobody waits for any more is dropped by then.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long until a server that was killed answers again; after a row of crashes it rests for ten seconds.
const BACK: Duration = Duration::from_secs(60);
/// Between two exchanges of one client: load, not a measurement. Each new machine takes memory.
const PAUSE: Duration = Duration::from_millis(2);
const PAUSE_OF_MACHINES: Duration = Duration::from_millis(10);

const DNS: &str = "127.0.0.1:53";
const TFTP: &str = "127.0.0.1:69";
/// The wire, with the server at one end and a relay at the other.
const DHCP: &str = "10.0.0.1:67";
const RELAY: &str = "10.0.0.2:67";
const ECHO: &str = "127.0.0.1:7";

const SERVERS: [&str; 3] = ["dns-builtin", "tftp-server", "dhcp-builtin"];

/// What they do with, and a burst does not: a batch of it is twice as much.
const MEMORY: &str = "8MiB";

/// A site with all of them.
struct Site {
    bulkhead: Bulkhead,
    relay: Namespace,
    _site: Namespace,
}

impl Site {
    /// `tight`: under the policies that have them die of a burst, else under the shipped ones. None: no namespaces here.
    fn start(tight: bool) -> Option<Self> {
        let (site, relay) = Namespace::new("site").zip(Namespace::new("relay"))?;
        site.wire("dhcp0", "10.0.0.1/12", &relay, "relay0", "10.0.0.2/12");
        site.ip(&["link", "set", "dhcp0", "mtu", "65535"]);
        relay.ip(&["link", "set", "relay0", "mtu", "65535"]);
        site.enter();
        let mut configuration = Configuration::empty();
        configuration.scratch.file(
            "zones/example.com.zone",
            "$TTL 60\n@ SOA ns h 1 1h 1h 1h 1h\n@ NS ns\nns A 192.0.2.53\nwww A 192.0.2.80\n",
        );
        configuration.scratch.file("boot/menu", [7; 600]);
        let place = |path: &str| {
            format!(
                "{:?}",
                configuration.scratch.join(path).display().to_string()
            )
        };
        let settings = [
            format!(
                "listen = [\"udp {DNS}\"]\nzones = [\"example.com\"]\nzone_directory = {}",
                place("zones")
            ),
            format!("listen = [\"udp {TFTP}\"]\ntftproot = {}", place("boot")),
            "interfaces = [\"dhcp0\"]\nprobe_time = 0\nsubnets = [\"10.0.0.0/12 range=10.0.1.0-10.15.255.254\"]".to_owned(),
        ];
        for (name, settings) in SERVERS.into_iter().zip(settings) {
            configuration = configuration.feature(name, &format!("enabled = true\n{settings}"));
            if tight {
                configuration = configuration.policy(name, &tightened(name));
            }
        }
        let configuration = configuration.section("[log]\nlevel = \"warn\"");
        let bulkhead = Bulkhead::with(configuration.plugin(
            "echo-reactor",
            bulkhead_fixtures::wasm("echo-reactor"),
            &format!("[listen.echo]\nsockets = [\"udp {ECHO}\"]"),
        ));
        Some(Self {
            bulkhead,
            relay,
            _site: site,
        })
    }

    fn crashes(&self, server: &str) -> usize {
        let metrics = self.bulkhead.admin().get("/metrics").text();
        let line = format!("bulkhead_service_crashes_total{{plugin=\"{server}\"}} ");
        let value = metrics.lines().find_map(|it| it.strip_prefix(&line));
        value.and_then(|it| it.parse().ok()).unwrap_or_default()
    }

    /// Does something while clients of all three ask without pause.
    fn under_load<T>(&self, work: impl FnOnce(&[Answers; 3]) -> T) -> T {
        let (answers, stop) = (<[Answers; 3]>::default(), AtomicBool::new(false));
        let relay = self
            .relay
            .inside(|| UdpSocket::bind(RELAY).expect("the relay's address"));
        std::thread::scope(|scope| {
            let [dns, tftp, dhcp] = &answers;
            // They end with the work, also when that fails.
            let _end = Ending(&stop);
            for _ in 0..2 {
                scope.spawn(|| dns.of(&stop, PAUSE, |_| asks_dns()));
                scope.spawn(|| tftp.of(&stop, PAUSE, |_| asks_tftp()));
            }
            scope.spawn(|| dhcp.of(&stop, PAUSE_OF_MACHINES, |turn| asks_dhcp(&relay, turn)));
            for (answers, name) in answers.iter().zip(SERVERS) {
                assert!(
                    answers.more_come(PATIENCE),
                    "{name} answers nothing:\n{}",
                    self.bulkhead.log()
                );
            }
            work(&answers)
        })
    }
}

/// The shipped policy, with less memory.
fn tightened(name: &str) -> String {
    let shipped = bulkhead_bundle::PLUGINS.iter().find(|it| it.name == name);
    let policy = shipped.expect("a first-party plugin").policy;
    let policy = policy.replacen(&format!("plugin = {name:?}\n"), "", 1);
    match policy.contains("memory = \"256MiB\"") {
        true => policy.replace("memory = \"256MiB\"", &format!("memory = {MEMORY:?}")),
        false => format!("{policy}\n[limits]\nmemory = {MEMORY:?}\n"),
    }
}

struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What the clients of one server got.
#[derive(Default)]
struct Answers {
    got: AtomicUsize,
    lost: AtomicUsize,
}

impl Answers {
    /// One client, until it shall stop.
    fn of(&self, stop: &AtomicBool, pause: Duration, mut exchange: impl FnMut(u32) -> bool) {
        for turn in 0.. {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            match exchange(turn) {
                true => &self.got,
                false => &self.lost,
            }
            .fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(pause);
        }
    }

    fn lost(&self) -> usize {
        self.lost.load(Ordering::Relaxed)
    }

    /// Whether several more are answered within this time.
    fn more_come(&self, patience: Duration) -> bool {
        let before = self.got.load(Ordering::Relaxed);
        let more = || self.got.load(Ordering::Relaxed) > before + 20;
        until_within(patience, || more().then_some(())).is_some()
    }
}

fn asks_dns() -> bool {
    let server: SocketAddr = DNS.parse().expect("an address");
    let answer = try_udp(server, &question("www.example.com", "A"), PATIENCE);
    answer.is_some_and(|it| it[3] & 0xf == 0 && it.ends_with(&[192, 0, 2, 80]))
}

fn asks_tftp() -> bool {
    let mut client = Client::new(TFTP.parse().expect("an address"));
    client.ask(&request("menu", "octet", &[]));
    for number in [1, 2] {
        match client.hear_within(PATIENCE) {
            Some(Packet::Data(found, _)) if found == number => client.acknowledge(number),
            _ => return false,
        }
    }
    true
}

/// A new machine by way of the relay: DISCOVER and OFFER, REQUEST and ACK.
fn asks_dhcp(relay: &UdpSocket, turn: u32) -> bool {
    let mut message = vec![0; 240];
    // A request over Ethernet that came by one relay.
    message[..4].copy_from_slice(&[1, 1, 6, 1]);
    message[4..8].copy_from_slice(&turn.to_be_bytes());
    message[24..28].copy_from_slice(&[10, 0, 0, 2]);
    message[28..30].copy_from_slice(&[2, 0xbb]);
    message[30..34].copy_from_slice(&turn.to_be_bytes());
    message[236..].copy_from_slice(&[99, 130, 83, 99]);
    let offer = told(relay, &[&message[..], &[53, 1, 1, 255]].concat(), turn, 2);
    let Some(offered) = offer else { return false };
    let wants = [&[53, 1, 3, 50, 4], &offered[..], &[54, 4, 10, 0, 0, 1, 255]].concat();
    told(relay, &[message, wants].concat(), turn, 5) == Some(offered)
}

/// The address in the answer of this kind (RFC 2132, option 53).
fn told(relay: &UdpSocket, message: &[u8], turn: u32, kind: u8) -> Option<[u8; 4]> {
    relay.send_to(message, DHCP).ok()?;
    relay.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut buffer = [0; 2048];
    loop {
        let (size, _) = relay.recv_from(&mut buffer).ok()?;
        let answer = &buffer[..size];
        let of_this = answer[4..8] == turn.to_be_bytes();
        if of_this && answer[240..].starts_with(&[53, 1, kind]) {
            return answer[16..20].try_into().ok();
        }
    }
}

/// Bursts of the largest datagrams, until it has crashed.
fn kill(site: &Site, server: &str) {
    let (attacker, to) = match server {
        "dns-builtin" => (UdpSocket::bind("127.0.0.1:0").unwrap(), DNS),
        "tftp-server" => (UdpSocket::bind("127.0.0.1:0").unwrap(), TFTP),
        _ => {
            let bind = || UdpSocket::bind("10.0.0.2:0").unwrap();
            (site.relay.inside(bind), DHCP)
        }
    };
    let large = vec![0; 65_000];
    let begun = Instant::now();
    while site.crashes(server) == 0 {
        assert!(
            begun.elapsed() < BACK,
            "{server} does not die:\n{}",
            site.bulkhead.log()
        );
        for _ in 0..64 {
            let _ = attacker.send_to(&large, to);
        }
    }
}

#[test]
fn three_servers_lose_no_answer_beside_one_that_traps_again_and_again() {
    let Some(site) = Site::start(false) else {
        skip!("no network namespaces here: they need root and `ip`");
    };
    site.under_load(|answers| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let begun = Instant::now();
        // Five times in a row, a rest of ten seconds, and again.
        while begun.elapsed() < Duration::from_secs(15) {
            let _ = socket.send_to(b"trap", ECHO);
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(site.crashes("echo-reactor") > 5);
        for (answers, name) in answers.iter().zip(SERVERS) {
            assert!(answers.more_come(PATIENCE), "{name}");
            println!("{name}: {} answers", answers.got.load(Ordering::Relaxed));
            assert_eq!(answers.lost(), 0, "{name}:\n{}", site.bulkhead.log());
            assert_eq!(site.crashes(name), 0);
        }
    });
}

#[test]
fn a_server_killed_by_a_trap_comes_back_and_the_others_do_not_notice() {
    let Some(site) = Site::start(true) else {
        skip!("no network namespaces here: they need root and `ip`");
    };
    site.under_load(|answers| {
        for victim in SERVERS {
            let of_others = || -> Vec<(&str, usize, usize)> {
                let all = SERVERS.iter().zip(answers);
                let others = all.filter(|(name, _)| **name != victim);
                others
                    .map(|(name, it)| (*name, it.lost(), site.crashes(name)))
                    .collect()
            };
            let before = of_others();
            kill(&site, victim);
            let own = SERVERS.iter().position(|name| *name == victim);
            let own = &answers[own.unwrap()];
            assert!(
                own.more_come(BACK),
                "{victim} does not come back:\n{}",
                site.bulkhead.log()
            );
            println!(
                "{victim}: {} crashes, {} lost",
                site.crashes(victim),
                own.lost()
            );
            assert_eq!(
                of_others(),
                before,
                "beside {victim}:\n{}",
                site.bulkhead.log()
            );
        }
    });
}
