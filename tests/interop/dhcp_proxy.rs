//! `dhcp-builtin` beside another DHCP server (dnsmasq), which gives the addresses: it only says what to boot.

use std::process::{Child, Stdio};
use std::time::Duration;

use bulkhead_testkit::booting::Dhclient;
use bulkhead_testkit::dhcp_wire::{Machines, Packet, kind};
use bulkhead_testkit::skip::program;
use bulkhead_testkit::{Bulkhead, Configuration, assert_eventually, skip};

use crate::dhcp_builtin::{CARD, mac};
use crate::dhcp_hostile::Scene;

/// A dnsmasq on the switch, that ends with this value.
struct Dnsmasq(Child);

impl Dnsmasq {
    fn start(scene: &Scene) -> Self {
        let lan = &scene.lan;
        lan.ip(&["addr", "add", "10.9.0.2/16", "dev", "switch"]);
        let child = lan
            .command("dnsmasq")
            .args(["--no-daemon", "--conf-file=/dev/null", "--port=0"])
            .args(["--user=root", "--group=root", "--interface=switch"])
            .args(["--dhcp-range=10.9.5.1,10.9.5.99,2m", "--leasefile-ro"])
            .args(["--no-ping", "--dhcp-authoritative"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("dnsmasq can be started");
        let this = Self(child);
        assert_eventually!(
            String::from_utf8_lossy(&lan.run("ss", &["-lun"]).stdout).contains(":67 "),
            "dnsmasq does not listen"
        );
        this
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn another_server_gives_the_addresses_and_this_one_says_what_to_boot() {
    if program("dnsmasq").is_none() {
        skip!("dnsmasq is missing");
    }
    let Some(scene) = Scene::new() else {
        skip!("no dhclient, or no network namespaces: they need root and `ip`");
    };
    let _dnsmasq = Dnsmasq::start(&scene);
    scene.site.enter();
    let bulkhead = Bulkhead::with(Configuration::empty().feature(
        "dhcp-builtin",
        "enabled = true\nproxy_interfaces = [\"dhcp0\"]\nnext_server = \"10.9.0.7\"",
    ));
    let machines = Machines::new(&scene.honest, CARD);
    let firmware = |kind: u8| {
        Packet::new(kind, mac(1))
            .option(60, b"PXEClient:Arch:00000:UNDI:002001")
            .option(93, &[0, 0])
    };
    // Both answer: an address without a boot file, and a boot file without an address.
    machines.shout(&firmware(kind::DISCOVER).bytes());
    let heard = machines.hear(Duration::from_secs(4));
    let (given, told): (Vec<_>, Vec<_>) = heard.iter().partition(|it| it.address() != "0.0.0.0");
    assert_eq!(
        (given.len(), told.len()),
        (1, 1),
        "{heard:?} {}",
        bulkhead.log()
    );
    assert_eq!(
        (given[0].next_server().as_str(), given[0].file().as_str()),
        ("10.9.0.2", "")
    );
    let offer = told[0];
    assert_eq!(
        (
            offer.kind(),
            offer.file().as_str(),
            offer.next_server().as_str()
        ),
        (kind::OFFER, "pxelinux.0", "10.9.0.7")
    );
    assert_eq!(offer.option(60), Some(&b"PXEClient"[..]));
    assert_eq!(offer.option(43), Some(&[6, 1, 8, 255][..]));
    assert_eq!(offer.option(54), Some(&[10, 9, 0, 1][..]));
    assert_eq!(
        (offer.option(51), offer.option(1), offer.option(3)),
        (None, None, None)
    );
    drop(machines);

    // A machine with its address asks once more; from port 4011 as well, as some firmware does.
    scene
        .honest
        .ip(&["addr", "add", "10.9.5.200/16", "dev", CARD]);
    for own in ["10.9.5.200:68", "10.9.5.200:4011"] {
        let machine = Machines::at(&scene.honest, own);
        let question = firmware(kind::REQUEST).at("10.9.5.200");
        let answer = machine.ask_at(&question, "10.9.0.1:4011");
        assert_eq!(
            (
                answer.kind(),
                answer.address().as_str(),
                answer.file().as_str()
            ),
            (kind::ACK, "0.0.0.0", "pxelinux.0"),
            "{own}"
        );
    }
    scene.honest.ip(&["addr", "flush", "dev", CARD]);

    // A system that is no firmware hears the other server only.
    let before = bulkhead.counted("datagrams_sent", "dhcp-builtin");
    let mut system = Dhclient::new(&scene.honest, CARD, "52:54:00:00:00:02", "");
    let bound = system.start().bound();
    assert!(bound["ip_address"].starts_with("10.9.5."), "{bound:?}");
    assert_eq!(bulkhead.counted("datagrams_sent", "dhcp-builtin"), before);
    drop(bulkhead);

    // Off by default: neither port is open.
    let _bulkhead = Bulkhead::with(Configuration::empty().feature(
        "dhcp-builtin",
        "enabled = true\nsubnets = [\"10.9.0.0/16\"]",
    ));
    let ports = String::from_utf8(scene.site.run("ss", &["-lun"]).stdout).unwrap();
    assert!(
        !ports.contains(":4011 ") && !ports.contains(":67 "),
        "{ports}"
    );
}
