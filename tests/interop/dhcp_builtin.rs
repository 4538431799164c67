//! `dhcp-builtin` as the whole program runs it, with real clients on a wire of their own.

use bulkhead_testkit::booting::Dhclient;
use bulkhead_testkit::dhcp_wire::{Machines, Packet, kind};
use bulkhead_testkit::namespace::Namespace;
use bulkhead_testkit::skip::program;
use bulkhead_testkit::{Bulkhead, Configuration, assert_eventually, skip};

/// A program with a DHCP server on `dhcp0`, and machines at the other end of that wire.
struct Site {
    site: Namespace,
    client: Namespace,
}

/// The machines' interface.
const CARD: &str = "client0";

impl Site {
    /// Skips the test where there can be none.
    fn new() -> Option<Self> {
        program("dhclient")?;
        let (site, client) = Namespace::new("site").zip(Namespace::new("client"))?;
        site.wire("dhcp0", "192.0.2.1/24", &client, CARD, "");
        Some(Self { site, client })
    }

    /// Starts the program, in whose network this thread is from now on. `lines`: more settings of `dhcp-builtin`.
    fn start(&self, subnets: &[&str], lines: &str) -> Bulkhead {
        self.site.enter();
        Bulkhead::with(configuration(subnets, lines))
    }
}

fn configuration(subnets: &[&str], lines: &str) -> Configuration {
    Configuration::empty()
        .feature("dhcp", "enabled = true\nping_free_ip = false")
        .feature(
            "dhcp-builtin",
            &format!(
                "enabled = true\ninterfaces = [\"dhcp0\"]\nprobe_time = 0\nsubnets = {subnets:?}\n{lines}"
            ),
        )
}

macro_rules! site {
    () => {
        match Site::new() {
            Some(site) => site,
            None => skip!("no dhclient, or no network namespaces: they need root and `ip`"),
        }
    };
}

fn mac(number: u8) -> [u8; 6] {
    [0x52, 0x54, 0, 0, 0, number]
}

/// A real client gets an address of the second subnet on its wire, with that one's options, when the first has no more; a reservation counts in either;
/// and when nothing is left the log says so.
#[test]
fn subnets_share_a_wire() {
    let site = site!();
    let bulkhead = site.start(
        &[
            "192.0.2.0/24 range=192.0.2.100-192.0.2.100 routers=192.0.2.1 shared=hall",
            "198.51.100.0/25 range=198.51.100.10-198.51.100.10 routers=198.51.100.1 dns=198.51.100.53 shared=hall",
        ],
        "",
    );
    let boots = |mac: &str| {
        let mut machine = Dhclient::new(&site.client, CARD, mac, "");
        let told = machine.start().bound();
        [
            "ip_address",
            "subnet_mask",
            "routers",
            "domain_name_servers",
        ]
        .map(|name| told.get(name).cloned().unwrap_or_default())
    };
    let first = ["192.0.2.100", "255.255.255.0", "192.0.2.1", ""];
    assert_eq!(boots("52:54:00:00:00:01"), first, "{}", bulkhead.log());
    let mut machine = Dhclient::new(&site.client, CARD, "52:54:00:00:00:02", "");
    assert_eq!(machine.start().bound()["ip_address"], "198.51.100.10");
    // It boots again: INIT-REBOOT with an address of a subnet that is not the interface's own.
    let again = machine.start().bound();
    assert_eq!(
        (again["reason"].as_str(), again["ip_address"].as_str()),
        ("REBOOT", "198.51.100.10"),
        "{}",
        machine.log()
    );
    let fields = [
        ("hostname", "h3.example.com"),
        ("mac", "52:54:00:00:00:03"),
        ("ip", "198.51.100.77"),
    ];
    let answer = bulkhead.foreman().post("/dhcp/198.51.100.0", &fields);
    assert_eq!(answer.status, 200, "{answer}");
    let reserved = [
        "198.51.100.77",
        "255.255.255.128",
        "198.51.100.1",
        "198.51.100.53",
    ];
    assert_eq!(boots("52:54:00:00:00:03"), reserved, "{}", bulkhead.log());
    drop(machine);

    let machines = Machines::new(&site.client, CARD);
    machines.shout(&Packet::new(kind::DISCOVER, mac(4)).bytes());
    let full = "192.0.2.0/24 has no free address left for hw/52:54:00:00:00:04";
    assert_eventually!(bulkhead.log_lines(full).len() == 1, "{}", bulkhead.log());
}
