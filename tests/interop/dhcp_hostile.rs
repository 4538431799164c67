//! Hostile packets against `dhcp-builtin` in the whole program, while real clients want their addresses.
//!
//! Whatever arrives, the service is not started anew, answers only what is a request, and keeps what it acknowledged.

use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bulkhead_testkit::booting::Dhclient;
use bulkhead_testkit::dhcp_wire::{Machines, Packet, kind};
use bulkhead_testkit::namespace::Namespace;
use bulkhead_testkit::skip::program;
use bulkhead_testkit::{Bulkhead, assert_eventually, skip};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, bind, send, socket};

use crate::dhcp_builtin::{CARD, configuration};

const SUBNET: &str = "10.9.0.0/16 range=10.9.1.0-10.9.200.254 routers=10.9.0.1";

/// Machines that nobody has ever seen, each of which asks once.
const STRANGERS: u32 = 10_000;

/// How long they go on at most.
const LONGEST: Duration = Duration::from_secs(120);

const ATTACKER: [u8; 6] = [0x52, 0x54, 0, 0, 0xee, 0xee];

/// A server, and a switch to which honest machines and the attacker are plugged.
pub(crate) struct Scene {
    pub(crate) site: Namespace,
    /// With the switch, whose interface is `switch`.
    pub(crate) lan: Namespace,
    pub(crate) honest: Namespace,
}

impl Scene {
    pub(crate) fn new() -> Option<Self> {
        program("dhclient")?;
        let (site, lan) = Namespace::new("site").zip(Namespace::new("lan"))?;
        let honest = Namespace::new("honest")?;
        site.wire("dhcp0", "10.9.0.1/16", &lan, "uplink", "");
        lan.wire("port1", "", &honest, CARD, "");
        lan.ip(&["link", "add", "switch", "type", "bridge"]);
        for port in ["uplink", "port1"] {
            lan.ip(&["link", "set", port, "master", "switch"]);
        }
        lan.ip(&["link", "set", "switch", "up"]);
        Some(Self { site, lan, honest })
    }

    fn start(&self) -> Bulkhead {
        self.site.enter();
        Bulkhead::with(configuration(&[SUBNET], ""))
    }
}

/// The bytes of a good question, to be spoiled.
fn good() -> Vec<u8> {
    Packet::new(kind::DISCOVER, ATTACKER).bytes()
}

fn spoiled(at: usize, with: &[u8]) -> Vec<u8> {
    let mut bytes = good();
    bytes[at..at + with.len()].copy_from_slice(with);
    bytes
}

fn with_options(options: &[u8]) -> Vec<u8> {
    [&good()[..240], options].concat()
}

/// No two of them alike, and none a request that may be answered.
fn nonsense() -> Vec<Vec<u8>> {
    // Too short, down to a byte.
    let mut all: Vec<Vec<u8>> = (1..243).map(|length| good()[..length].to_vec()).collect();
    // A reply, a cookie of BOOTP's vendors, lengths of hardware addresses that do not fit their field.
    all.extend([
        spoiled(0, &[2]),
        spoiled(0, &[255]),
        spoiled(236, &[99, 130, 83, 100]),
        spoiled(236, &[0; 4]),
        spoiled(2, &[255]),
        spoiled(2, &[17]),
        spoiled(28, &[0; 6]),
    ]);
    // Relays that are none, and one of a network that nobody configured.
    for relay in [
        [203, 0, 113, 5],
        [127, 0, 0, 1],
        [255; 4],
        [224, 0, 0, 1],
        [10, 9, 0, 0],
        [10, 9, 255, 255],
    ] {
        all.push(spoiled(24, &relay));
    }
    // Options that run over the end, are empty, or come twice; kinds that no client sends.
    all.extend([
        with_options(&[53, 200, 1, 2]),
        with_options(&[53]),
        with_options(&[53, 0, 255]),
        with_options(&[53, 2, 1, 1, 255]),
        with_options(&[53, 1, 1, 53, 1, 1, 255]),
        with_options(&[255, 53, 1, 1]),
        with_options(&[0; 300]),
        with_options(&[254; 1200]),
    ]);
    for kind in [0, 2, 5, 6, 9, 255] {
        all.push(with_options(&[53, 1, kind, 255]));
    }
    // Options in the fields for names, which say the kind once more, or never end.
    for overload in [1, 2, 3, 255_u8] {
        let mut bytes = with_options(&[52, 1, overload, 53, 1, 1, 255]);
        for at in (44..107).step_by(3).chain((108..234).step_by(3)) {
            bytes[at..at + 3].copy_from_slice(&[53, 1, 1]);
        }
        all.push(bytes);
    }
    // Nothing but noise, of all sizes that fit a datagram.
    let mut seed = 0x2545_f491_u32;
    for size in [1, 240, 300, 548, 1472, 9_000, 65_507] {
        let mut noise = || {
            seed ^= seed << 13;
            seed ^= seed >> 17;
            seed ^= seed << 5;
            seed.to_le_bytes()[0]
        };
        all.push((0..size).map(|_| noise()).collect());
        all.push(vec![255; size]);
    }
    all
}

/// Frames that are not even datagrams: the kernel's to drop.
fn frames(lan: &Namespace) {
    lan.inside(|| {
        let switch = getifaddrs().unwrap().find_map(|it| {
            let link = it.address?.as_link_addr().copied()?;
            (it.interface_name == "switch").then_some(link)
        });
        let flags = SockFlag::SOCK_CLOEXEC;
        let sender = socket(AddressFamily::Packet, SockType::Raw, flags, None).unwrap();
        bind(sender.as_raw_fd(), &switch.unwrap()).unwrap();
        let mut ip = vec![0x45, 0, 1, 0x2c, 0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0];
        ip.extend([255; 4]);
        ip.extend([0, 68, 0, 67, 0xff, 0xff, 0, 0]);
        let whole = [&[255; 6][..], &ATTACKER, &[8, 0], &ip, &good()].concat();
        for length in (14..whole.len()).step_by(7).chain([whole.len()]) {
            send(sender.as_raw_fd(), &whole[..length], MsgFlags::empty()).unwrap();
        }
    });
}

fn counted(bulkhead: &Bulkhead, counter: &str) -> usize {
    bulkhead.counted(counter, "dhcp-builtin")
}

fn addresses(bulkhead: &Bulkhead, kind: &str) -> Vec<String> {
    let all = bulkhead.foreman().get("/dhcp/10.9.0.0").json();
    let records = all[kind].as_array().unwrap().clone();
    let mut found: Vec<String> = records
        .iter()
        .map(|it| it["ip"].as_str().unwrap().to_owned())
        .collect();
    found.sort();
    found
}

#[test]
fn what_is_no_request_is_not_answered_and_costs_nobody_anything() {
    let Some(scene) = Scene::new() else {
        skip!("no dhclient, or no network namespaces: they need root and `ip`");
    };
    let bulkhead = scene.start();
    let mut first = Dhclient::new(&scene.honest, CARD, "52:54:00:00:00:01", "");
    let before = first.start().bound()["ip_address"].clone();
    let (received, sent) = (
        counted(&bulkhead, "datagrams_received"),
        counted(&bulkhead, "datagrams_sent"),
    );
    let attacker = Machines::new(&scene.lan, "switch");
    let nonsense = nonsense();
    // Nothing at all, which the host does not even hand over.
    attacker.shout(b"");
    for bytes in &nonsense {
        attacker.shout(bytes);
        std::thread::sleep(Duration::from_millis(1));
    }
    frames(&scene.lan);
    assert_eventually!(
        counted(&bulkhead, "datagrams_received") >= received + nonsense.len(),
        "{} of {}",
        counted(&bulkhead, "datagrams_received") - received,
        nonsense.len()
    );
    // A question after all of them: when it is answered, so were they.
    let answer = attacker.boot([0x52, 0x54, 0, 0, 0, 9]);
    assert_eq!(
        counted(&bulkhead, "datagrams_sent"),
        sent + 2,
        "{}",
        bulkhead.log()
    );
    assert_eq!(counted(&bulkhead, "service_crashes"), 0);
    // The machine from before knows its address, and so does the server.
    let again = first.start().bound();
    assert_eq!(
        (again["reason"].as_str(), &again["ip_address"]),
        ("REBOOT", &before)
    );
    let mut all = vec![before, answer.address()];
    all.sort();
    assert_eq!(addresses(&bulkhead, "leases"), all);
}

/// Strangers ask as fast as they can; machines with a reservation, with a lease and with neither get their addresses meanwhile.
#[test]
fn a_flood_of_strangers_keeps_no_machine_from_booting() {
    let Some(scene) = Scene::new() else {
        skip!("no dhclient, or no network namespaces: they need root and `ip`");
    };
    let bulkhead = scene.start();
    let reserved = ("52:54:00:00:00:07", "10.9.201.7");
    let fields = [
        ("hostname", "h7.example.com"),
        ("mac", reserved.0),
        ("ip", reserved.1),
    ];
    let answer = bulkhead.foreman().post("/dhcp/10.9.0.0", &fields);
    assert_eq!(answer.status, 200, "{answer}");
    let mut first = Dhclient::new(&scene.honest, CARD, "52:54:00:00:00:01", "");
    let before = first.start().bound()["ip_address"].clone();
    drop(first);

    let attacker = Machines::new(&scene.lan, "switch");
    let (over, received) = (
        AtomicBool::new(false),
        counted(&bulkhead, "datagrams_received"),
    );
    let booted = std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let mut asked = 0;
            let begun = Instant::now();
            // At least all strangers once, and on until the others have booted, or never will.
            while asked < STRANGERS || (!over.load(Ordering::Relaxed) && begun.elapsed() < LONGEST)
            {
                let [_, a, b, c] = (asked % STRANGERS).to_be_bytes();
                attacker.shout(&Packet::new(kind::DISCOVER, [2, 0xee, 0, a, b, c]).bytes());
                asked += 1;
                if asked % 20 == 0 {
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
            asked
        });
        assert_eventually!(counted(&bulkhead, "datagrams_received") > received + 1_000);
        let booted = ["52:54:00:00:00:01", reserved.0, "52:54:00:00:00:02"].map(|mac| {
            let mut machine = Dhclient::new(&scene.honest, CARD, mac, "");
            machine.start().bound()["ip_address"].clone()
        });
        over.store(true, Ordering::Relaxed);
        assert!(flood.join().unwrap() >= STRANGERS);
        booted
    });
    assert_eq!(booted[..2], [before.clone(), reserved.1.to_owned()]);
    assert_eq!(
        counted(&bulkhead, "service_crashes"),
        0,
        "{}",
        bulkhead.log()
    );
    // No stranger got anything that lasts.
    let mut leases = booted.to_vec();
    leases.sort();
    assert_eq!(addresses(&bulkhead, "leases"), leases);
    assert_eq!(addresses(&bulkhead, "reservations"), [reserved.1]);
}
