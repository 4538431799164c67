//! Network servers under load, and traps: first one beside them traps again and again, then each of them is itself killed by one.
//!
//! A server dies of a real trap: its policy gives it hardly more memory than it needs, and a burst of the largest datagrams there are does not fit.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bulkhead_testkit::eventually::until_within;
use bulkhead_testkit::servers::{
    DHCP, DNS, PATIENCE, SERVERS, TFTP, Wire, asks_dhcp, asks_dns, asks_tftp,
};
use bulkhead_testkit::{Bulkhead, Configuration, assert_eventually, run, skip};
use sha2::{Digest as _, Sha256};

/// How long until a server that was killed answers again; after a row of crashes it rests for ten seconds.
const BACK: Duration = Duration::from_secs(60);
/// Between two exchanges of one client: load, not a measurement. Each new machine takes memory.
const PAUSE: Duration = Duration::from_millis(2);
const PAUSE_OF_MACHINES: Duration = Duration::from_millis(10);

const ECHO: &str = "127.0.0.1:7";

/// What the servers do with, and a burst does not: a batch of it is twice as much.
const MEMORY: &str = "8MiB";

/// A site with all of them.
struct Site {
    bulkhead: Bulkhead,
    wire: Wire,
}

impl Site {
    /// With whatever else is configured. None: no namespaces here.
    fn start(change: impl FnOnce(Configuration) -> Configuration) -> Option<Self> {
        let wire = Wire::new()?;
        wire.site.enter();
        let configuration = Configuration::empty()
            .with_servers()
            .section("[log]\nlevel = \"warn\"");
        Some(Self {
            bulkhead: Bulkhead::with(change(configuration)),
            wire,
        })
    }

    fn crashes(&self, server: &str) -> usize {
        let metrics = self.bulkhead.admin().get("/metrics").text();
        let line = format!("bulkhead_service_crashes_total{{plugin=\"{server}\"}} ");
        let value = metrics.lines().find_map(|it| it.strip_prefix(&line));
        value.and_then(|it| it.parse().ok()).unwrap_or_default()
    }

    /// Does something while clients of all three ask without pause, machines like this.
    fn under_load<T>(
        &self,
        machine: fn(&UdpSocket, u32) -> bool,
        work: impl FnOnce(&[Answers; 3]) -> T,
    ) -> T {
        let (answers, stop) = (<[Answers; 3]>::default(), AtomicBool::new(false));
        let relay = self.wire.relay();
        std::thread::scope(|scope| {
            let [dns, tftp, dhcp] = &answers;
            // They end with the work, also when that fails.
            let _end = Ending(&stop);
            for _ in 0..2 {
                scope.spawn(|| dns.of(&stop, PAUSE, |_| asks_dns()));
                scope.spawn(|| tftp.of(&stop, PAUSE, |_| asks_tftp()));
            }
            scope.spawn(|| dhcp.of(&stop, PAUSE_OF_MACHINES, |turn| machine(&relay, turn)));
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

/// The shipped policy of a server, but for the line that says whose it is.
fn shipped(name: &str) -> (&'static [u8], String) {
    let shipped = bulkhead_bundle::PLUGINS.iter().find(|it| it.name == name);
    let shipped = shipped.expect("a first-party plugin");
    let line = format!("plugin = {name:?}\n");
    (shipped.wasm, shipped.policy.replacen(&line, "", 1))
}

/// The shipped policy, with less memory.
fn tightened(name: &str) -> String {
    let (_, policy) = shipped(name);
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

/// Bursts of the largest datagrams, until it has crashed.
fn kill(site: &Site, server: &str) {
    let (attacker, to) = match server {
        "dns-builtin" => (UdpSocket::bind("127.0.0.1:0").unwrap(), DNS),
        "tftp-server" => (UdpSocket::bind("127.0.0.1:0").unwrap(), TFTP),
        _ => {
            let bind = || UdpSocket::bind("10.0.0.2:0").unwrap();
            (site.wire.relay.inside(bind), DHCP)
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
    let with_echo = |configuration: Configuration| {
        let listens = format!("[listen.echo]\nsockets = [\"udp {ECHO}\"]");
        let wasm = bulkhead_fixtures::wasm("echo-reactor");
        configuration.plugin("echo-reactor", wasm, &listens)
    };
    let Some(site) = Site::start(with_echo) else {
        skip!("no network namespaces here: they need root and `ip`");
    };
    site.under_load(asks_dhcp, |answers| {
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
    let tight = |configuration: Configuration| {
        let servers = SERVERS.into_iter();
        servers.fold(configuration, |it, name| it.policy(name, &tightened(name)))
    };
    let Some(site) = Site::start(tight) else {
        skip!("no network namespaces here: they need root and `ip`");
    };
    site.under_load(asks_dhcp, |answers| {
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

/// A new version takes over between two batches; what was accepted before is answered by one of the two.
#[test]
fn versions_of_a_server_are_swapped_under_load_and_no_answer_is_lost() {
    const SWAPS: usize = 6;
    // The same program by another digest: an empty custom section at the end (WebAssembly core specification, 5.5.3).
    let versions = |name: &str| -> [Vec<u8>; 2] {
        let (wasm, _) = shipped(name);
        let mut other = wasm.to_vec();
        other.extend([0, 6, 5]);
        other.extend(b"other");
        [wasm.to_vec(), other]
    };
    let dropped = |configuration: Configuration| {
        let servers = SERVERS.into_iter();
        servers.fold(configuration.unbundled(), |it, name| {
            let digests = versions(name).map(|wasm| digest(&wasm));
            let (wasm, policy) = shipped(name);
            it.scratch.file(&format!("plugins/{name}.wasm"), wasm);
            it.policy(name, &format!("approved = {digests:?}\n{policy}"))
        })
    };
    let Some(site) = Site::start(dropped) else {
        skip!("no network namespaces here: they need root and `ip`");
    };
    let scratch = &site.bulkhead.configuration.scratch;
    let listed = || {
        let state = scratch.join("state").display().to_string();
        run(["plugin", "list", "--format", "json", "--state", &state]).stdout
    };
    site.under_load(asks_dhcp, |answers| {
        for swap in 1..=SWAPS {
            for (name, answers) in SERVERS.iter().zip(answers) {
                let wasm = &versions(name)[swap % 2];
                let new = scratch.file("plugins/.new", wasm);
                std::fs::rename(new, scratch.join(format!("plugins/{name}.wasm"))).unwrap();
                assert_eventually!(
                    listed().contains(&digest(wasm)),
                    "{name}, swap {swap}: {}\n{}",
                    listed(),
                    site.bulkhead.log()
                );
                assert!(answers.more_come(PATIENCE), "{name} after swap {swap}");
            }
        }
        for (name, answers) in SERVERS.iter().zip(answers) {
            println!("{name}: {} answers", answers.got.load(Ordering::Relaxed));
            assert_eq!(answers.lost(), 0, "{name}:\n{}", site.bulkhead.log());
            assert_eq!(site.crashes(name), 0);
        }
    });
}

fn digest(wasm: &[u8]) -> String {
    let digest = Sha256::digest(wasm);
    let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}
