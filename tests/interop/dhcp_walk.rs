//! What the protocol promises (RFC 2131), step by step, from `dhcp-builtin` in the whole program: with a real `dhclient` where it does the step, and with packets
//! byte by byte where it matters what stands in them.

use std::time::{Duration, Instant};

use bulkhead_testkit::booting::Dhclient;
use bulkhead_testkit::dhcp_wire::{Machines, Packet, kind, octets};
use bulkhead_testkit::namespace::Namespace;
use bulkhead_testkit::{Bulkhead, Scratch, Signal, assert_eventually, preload, skip, slow_disk};
use serde_json::Value;

use crate::dhcp_builtin::{CARD, configuration, mac, site};

const SUBNETS: &[&str] = &[
    "192.0.2.0/24 range=192.0.2.100-192.0.2.110 routers=192.0.2.1 lease=60",
    "198.51.100.0/24 range=198.51.100.10-198.51.100.20 routers=198.51.100.1",
];

const ONE: &str = "52:54:00:00:00:01";

/// Long enough to be sure that nobody answers.
const SILENCE: Duration = Duration::from_secs(2);

/// The lease of an address as Foreman sees it.
fn lease(bulkhead: &Bulkhead, address: &str) -> Option<Value> {
    let all = bulkhead.foreman().get("/dhcp/192.0.2.0").json();
    let leases = all["leases"].as_array().unwrap();
    leases.iter().find(|it| it["ip"] == address).cloned()
}

/// A reservation that Foreman makes and a dynamic lease are served, and are there after a kill right behind the ACK.
#[test]
fn reservations_and_leases_outlive_a_kill() {
    let site = site!();
    let mut bulkhead = site.start(SUBNETS, "");
    let reserved = ("52:54:00:00:00:07", "192.0.2.50");
    let fields = [
        ("hostname", "h7.example.com"),
        ("mac", reserved.0),
        ("ip", reserved.1),
        ("filename", "grub2/grubx64.efi"),
        ("nextServer", "192.0.2.9"),
    ];
    let answer = bulkhead.foreman().post("/dhcp/192.0.2.0", &fields);
    assert_eq!(answer.status, 200, "{answer}");
    let machines = Machines::new(&site.client, CARD);
    let given = machines.boot(mac(1)).address();
    bulkhead.restart_after(Signal::Kill);
    assert!(lease(&bulkhead, &given).is_some(), "{}", bulkhead.log());
    let others: Vec<String> = (2..5).map(|it| machines.boot(mac(it)).address()).collect();
    assert!(
        !others.contains(&given),
        "{given} was given twice: {others:?}"
    );
    let reboots = Packet::new(kind::REQUEST, mac(1)).option(50, &octets(&given));
    assert_eq!(machines.ask(&reboots).kind(), kind::ACK);
    drop(machines);
    let mut machine = Dhclient::new(&site.client, CARD, reserved.0, "");
    let told = machine.start().bound();
    let word = |name: &str| told.get(name).cloned().unwrap_or_default();
    assert_eq!(
        ["ip_address", "filename", "next_server", "host_name"].map(word),
        [
            reserved.1,
            "grub2/grubx64.efi",
            "192.0.2.9",
            "h7.example.com"
        ]
    );
}

/// No ACK leaves before its lease is on disk: when the disk takes half a second for it, so does the ACK.
#[test]
fn a_lease_is_on_disk_before_its_ack() {
    const MORE: Duration = Duration::from_millis(500);
    if skip::program(preload::COMPILER).is_none() {
        skip!("there is no C compiler");
    }
    let site = site!();
    let scratch = Scratch::new();
    let loaded = format!(
        "LD_PRELOAD={}",
        slow_disk::library(MORE, &scratch).display()
    );
    site.site.enter();
    let slow = configuration(SUBNETS, "").under(&["env", &loaded]);
    let _bulkhead = Bulkhead::with(slow);
    let machines = Machines::new(&site.client, CARD);
    let offer = machines.ask(&Packet::new(kind::DISCOVER, mac(1)));
    let request = Packet::new(kind::REQUEST, mac(1))
        .option(50, &octets(&offer.address()))
        .option(54, &octets("192.0.2.1"));
    let begun = Instant::now();
    assert_eq!(machines.ask(&request).kind(), kind::ACK);
    assert!(begun.elapsed() >= MORE, "{:?}", begun.elapsed());
    // What is written already is told at once; this says that it is the disk that was waited for.
    let begun = Instant::now();
    assert_eq!(machines.ask(&request).kind(), kind::ACK);
    assert!(begun.elapsed() < MORE, "{:?}", begun.elapsed());
}

/// Through a relay: the subnet is that of `giaddr`, the answer goes there, option 82 comes back as it was, and its subnet choice counts.
#[test]
fn relays_are_answered_with_their_option() {
    let site = site!();
    site.client
        .ip(&["addr", "add", "192.0.2.2/24", "dev", CARD]);
    site.client
        .ip(&["addr", "add", "198.51.100.2/24", "dev", CARD]);
    site.site
        .ip(&["route", "add", "198.51.100.2/32", "dev", "dhcp0"]);
    let _bulkhead = site.start(SUBNETS, "");
    let relay = Machines::at(&site.client, "0.0.0.0:67");
    // Circuit, a sub-option that nobody knows, and the circuit once more.
    let inserted = b"\x01\x04eth0\x97\x02\0\0\x01\x01x";
    let discover = Packet::new(kind::DISCOVER, mac(1))
        .relayed_by("198.51.100.2")
        .option(82, inserted);
    let offer = relay.ask_at(&discover, "192.0.2.1:67");
    assert_eq!(offer.address(), "198.51.100.10");
    assert_eq!(offer.option(82), Some(&inserted[..]));
    let request = Packet::new(kind::REQUEST, mac(1))
        .relayed_by("198.51.100.2")
        .option(50, &octets("198.51.100.10"))
        .option(54, &octets("192.0.2.1"))
        .option(82, inserted);
    let ack = relay.ask_at(&request, "192.0.2.1:67");
    assert_eq!(
        (ack.kind(), ack.option(82)),
        (kind::ACK, Some(&inserted[..]))
    );
    // Link selection (RFC 3527), and the server's address as the client shall see it (RFC 5107).
    let chosen = [&[5, 4][..], &octets("198.51.100.0"), &[11, 4, 192, 0, 2, 2]].concat();
    let discover = Packet::new(kind::DISCOVER, mac(2))
        .relayed_by("192.0.2.2")
        .option(82, &chosen);
    let offer = relay.ask_at(&discover, "192.0.2.1:67");
    assert_eq!(offer.address(), "198.51.100.11");
    assert_eq!(offer.option(54), Some(&[192, 0, 2, 2][..]));
}

/// A real relay (dnsmasq) between a real client and the server.
#[test]
fn a_real_relay_works() {
    let site = site!();
    if skip::program("dnsmasq").is_none() {
        skip!("dnsmasq is missing");
    }
    let Some(far) = Namespace::new("far") else {
        skip!("no network namespaces here: they need root and `ip`");
    };
    site.client
        .ip(&["addr", "add", "192.0.2.2/24", "dev", CARD]);
    site.client
        .wire("inner", "198.51.100.1/24", &far, "eth0", "");
    site.site
        .ip(&["route", "add", "198.51.100.0/24", "via", "192.0.2.2"]);
    let bulkhead = site.start(SUBNETS, "");
    let mut relay = site
        .client
        .command("dnsmasq")
        .args(["--no-daemon", "--conf-file=/dev/null", "--port=0"])
        .args(["--user=root", "--group=root"])
        .arg("--dhcp-relay=198.51.100.1,192.0.2.1")
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut machine = Dhclient::new(&far, "eth0", ONE, "");
    let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| machine.start().bound()));
    let _ = relay.kill();
    let _ = relay.wait();
    let told = told.unwrap_or_else(|_| panic!("{}\n{}", machine.log(), bulkhead.log()));
    assert_eq!(
        (told["ip_address"].as_str(), told["routers"].as_str()),
        ("198.51.100.10", "198.51.100.1")
    );
}

/// Firmware and system send different identifiers from one card: one machine, one address; unless the operator says otherwise.
#[test]
fn a_machine_is_its_card_or_its_identifier_as_the_operator_says() {
    let site = site!();
    let addresses = |lines: &str| {
        site.site.inside(|| {
            let _bulkhead = Bulkhead::with(configuration(SUBNETS, lines));
            ["firmware", "system"].map(|name| {
                let identifier = format!("send dhcp-client-identifier \"{name}\";");
                let mut machine = Dhclient::new(&site.client, CARD, ONE, &identifier);
                machine.start().bound()["ip_address"].clone()
            })
        })
    };
    let [firmware, system] = addresses("");
    assert_eq!(firmware, system);
    let [firmware, system] = addresses("identity = \"client-id\"");
    assert_ne!(firmware, system);
}

/// INIT-REBOOT: a remembered address is confirmed; in another network it is refused, and the machine gets one that fits.
#[test]
fn a_machine_that_boots_again_keeps_its_address_and_one_that_was_carried_away_gets_another() {
    let site = site!();
    let bulkhead = site.start(SUBNETS, "");
    let mut machine = Dhclient::new(&site.client, CARD, ONE, "");
    let first = machine.start().bound()["ip_address"].clone();
    let again = machine.start().bound();
    assert_eq!(
        (again["reason"].as_str(), &again["ip_address"]),
        ("REBOOT", &first)
    );
    assert!(!machine.log().contains("DHCPDISCOVER"), "{}", machine.log());
    machine.stop();
    drop(bulkhead);
    // The other network is on the wire now.
    site.site.ip(&["addr", "flush", "dev", "dhcp0"]);
    site.site
        .ip(&["addr", "add", "198.51.100.1/24", "dev", "dhcp0"]);
    let _bulkhead = Bulkhead::with(configuration(SUBNETS, ""));
    let other = machine.start().bound();
    assert_eq!(
        (other["reason"].as_str(), other["ip_address"].as_str()),
        ("BOUND", "198.51.100.10")
    );
    assert!(machine.log().contains("DHCPNAK"), "{}", machine.log());
}

/// Renewing goes to the server, and by broadcast to any once that does not answer; both lengthen the lease. A stranger's address is refused.
#[test]
fn leases_are_renewed_and_rebound() {
    let site = site!();
    let bulkhead = site.start(SUBNETS, "");
    let machines = Machines::new(&site.client, CARD);
    let address = machines.boot(mac(1)).address();
    site.client
        .ip(&["addr", "add", &format!("{address}/24"), "dev", CARD]);
    let ends = || {
        lease(&bulkhead, &address).unwrap()["ends"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let mut last = ends();
    for to in ["192.0.2.1:67", "255.255.255.255:67"] {
        // Sooner it would be told the time that is left, without a commit.
        std::thread::sleep(Duration::from_secs(16));
        let ack = machines.ask_at(&Packet::new(kind::REQUEST, mac(1)).at(&address), to);
        assert_eq!(
            (ack.kind(), ack.address()),
            (kind::ACK, address.clone()),
            "{to}"
        );
        assert_eq!(ack.option(51), Some(&60_u32.to_be_bytes()[..]), "{to}");
        let now = ends();
        assert!(now > last, "{to}: {last} to {now}");
        last = now;
    }
    let stranger = machines.ask(&Packet::new(kind::REQUEST, mac(2)).at(&address));
    assert_eq!(stranger.kind(), kind::NAK);
}

/// A machine that finds its address in use says so: it gets another, and nobody gets that one.
#[test]
fn a_declined_address_rests() {
    let site = site!();
    let bulkhead = site.start(SUBNETS, "");
    let mut machine = Dhclient::new(&site.client, CARD, ONE, "");
    machine.refuse_the_next();
    let got = machine.start().bound()["ip_address"].clone();
    assert!(machine.log().contains("DHCPDECLINE"), "{}", machine.log());
    assert_eq!(got, "192.0.2.101");
    assert_eq!(
        lease(&bulkhead, "192.0.2.100").unwrap()["state"],
        "declined"
    );
    assert!(!bulkhead.log_lines("found 192.0.2.100 in use").is_empty());
}

/// What is given back is nobody's at once.
#[test]
fn a_released_address_is_free() {
    let site = site!();
    let bulkhead = site.start(SUBNETS, "");
    let mut machine = Dhclient::new(&site.client, CARD, ONE, "");
    let got = machine.start().bound()["ip_address"].clone();
    assert_eq!(lease(&bulkhead, &got).unwrap()["mac"], ONE);
    // It is sent to the server from the address.
    site.client
        .ip(&["addr", "add", &format!("{got}/24"), "dev", CARD]);
    machine.release();
    assert_eventually!(lease(&bulkhead, &got).is_none(), "{}", bulkhead.log());
}

/// An address that somebody uses without a lease is not offered.
#[test]
fn an_address_in_use_is_not_offered() {
    let site = site!();
    site.site
        .ip(&["addr", "add", "10.9.0.1/24", "dev", "dhcp0"]);
    site.site
        .ip(&["addr", "del", "192.0.2.1/24", "dev", "dhcp0"]);
    let Some(squatter) = Namespace::new("squatter") else {
        skip!("no network namespaces here: they need root and `ip`");
    };
    // Beside the machines' card, on the same wire.
    site.client.ip(&["link", "add", "switch", "type", "bridge"]);
    site.client
        .wire("port2", "", &squatter, "eth0", "10.9.0.100/24");
    site.client.wire("port1", "", &site.client, "card1", "");
    for port in [CARD, "port1", "port2"] {
        site.client.ip(&["link", "set", port, "master", "switch"]);
    }
    site.client.ip(&["link", "set", "switch", "up"]);
    site.site.enter();
    let subnets = ["10.9.0.0/24 range=10.9.0.100-10.9.0.110"];
    let bulkhead = Bulkhead::with(configuration(&subnets, "probe_time = 500"));
    let mut machine = Dhclient::new(&site.client, "card1", ONE, "");
    assert_eq!(
        machine.start().bound()["ip_address"],
        "10.9.0.101",
        "{}",
        bulkhead.log()
    );
    assert!(
        !bulkhead
            .log_lines("10.9.0.100 is in use by somebody without a lease")
            .is_empty()
    );
}

/// A machine gone wild is answered so many times and no more; the others do not notice.
#[test]
fn one_machine_cannot_flood() {
    let site = site!();
    let bulkhead = site.start(SUBNETS, "flood_limit = 10");
    let machines = Machines::new(&site.client, CARD);
    for _ in 0..200 {
        machines.shout(&Packet::new(kind::DISCOVER, mac(1)).bytes());
    }
    let answers = machines.hear(SILENCE).len();
    // Ten seconds may turn in between.
    assert!((10..=20).contains(&answers), "{answers}");
    assert!(
        !bulkhead
            .log_lines("sends more than 10 packets in 10 s")
            .is_empty()
    );
    machines.boot(mac(2));
}

/// Without an interface it answers nowhere and holds no port; with one it answers on that and on no other.
#[test]
fn it_answers_on_the_named_interface_and_on_none_by_itself() {
    let site = site!();
    site.site
        .wire("dhcp1", "198.51.100.1/24", &site.client, "client1", "");
    site.site.enter();
    let discover = |number| Packet::new(kind::DISCOVER, mac(number));
    let ports = || String::from_utf8(site.site.run("ss", &["-lun"]).stdout).unwrap();
    {
        let unnamed = configuration(SUBNETS, "interfaces = []");
        let _bulkhead = Bulkhead::with(unnamed);
        assert!(!ports().contains(":67 "), "{}", ports());
        for (number, card) in [(1, CARD), (2, "client1")] {
            let machines = Machines::new(&site.client, card);
            assert!(machines.is_silent(&discover(number), SILENCE), "{card}");
        }
    }
    let _bulkhead = Bulkhead::with(configuration(SUBNETS, ""));
    assert!(ports().contains("%dhcp0:67 "), "{}", ports());
    let machines = Machines::new(&site.client, "client1");
    assert!(machines.is_silent(&discover(3), SILENCE));
    drop(machines);
    Machines::new(&site.client, CARD).boot(mac(4));
}

/// An interface that went away and was made anew under its name, as network managers do with bridges and VLANs, is answered on again; meanwhile the plugin
/// says what it misses.
#[test]
fn an_interface_that_was_made_anew_is_answered_on_again() {
    let site = site!();
    let bulkhead = site.start(SUBNETS, "");
    Machines::new(&site.client, CARD).boot(mac(1));
    site.site.ip(&["link", "delete", "dhcp0"]);
    assert_eventually!(
        !bulkhead.log_lines("there is no such interface").is_empty(),
        "it says that the interface is gone"
    );
    site.site
        .wire("dhcp0", "192.0.2.1/24", &site.client, CARD, "");
    let machines = Machines::new(&site.client, CARD);
    assert_eventually!(
        !machines.is_silent(&Packet::new(kind::DISCOVER, mac(2)), SILENCE),
        "machines are answered again"
    );
}
