//! `dhcp-builtin` as the whole program runs it, with real clients on a wire of their own.

use bulkhead_testkit::booting::Dhclient;
use bulkhead_testkit::dhcp_wire::{Machines, Packet, kind};
use bulkhead_testkit::namespace::Namespace;
use bulkhead_testkit::skip::program;
use bulkhead_testkit::{Bulkhead, Configuration, Target, assert_eventually, skip};

/// A program with a DHCP server on `dhcp0`, and machines at the other end of that wire.
pub(crate) struct Site {
    pub(crate) site: Namespace,
    pub(crate) client: Namespace,
}

/// The machines' interface.
pub(crate) const CARD: &str = "client0";

impl Site {
    /// Skips the test where there can be none.
    pub(crate) fn new() -> Option<Self> {
        program("dhclient")?;
        let (site, client) = Namespace::new("site").zip(Namespace::new("client"))?;
        site.wire("dhcp0", "192.0.2.1/24", &client, CARD, "");
        Some(Self { site, client })
    }

    /// Starts the program, in whose network this thread is from now on. `lines`: more settings of `dhcp-builtin`.
    pub(crate) fn start(&self, subnets: &[&str], lines: &str) -> Bulkhead {
        self.site.enter();
        Bulkhead::with(configuration(subnets, lines))
    }
}

/// On `dhcp0` and without the probe of new addresses, unless `lines` say otherwise.
pub(crate) fn configuration(subnets: &[&str], lines: &str) -> Configuration {
    let mut settings = format!("enabled = true\nsubnets = {subnets:?}\n{lines}\n");
    for (name, value) in [("interfaces", "[\"dhcp0\"]"), ("probe_time", "0")] {
        if !lines.contains(name) {
            settings.push_str(&format!("{name} = {value}\n"));
        }
    }
    Configuration::empty()
        .feature("dhcp", "enabled = true\nping_free_ip = false")
        .feature("dhcp-builtin", &settings)
}

macro_rules! site {
    () => {
        match $crate::dhcp_builtin::Site::new() {
            Some(site) => site,
            None => {
                bulkhead_testkit::skip!(
                    "no dhclient, or no network namespaces: they need root and `ip`"
                )
            }
        }
    };
}
pub(crate) use site;

pub(crate) fn mac(number: u8) -> [u8; 6] {
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

/// The shipped stand-alone site names every kind of UEFI a loader, and what it names for HTTP can be read there.
#[test]
fn firmware_that_boots_over_http_is_told_where_without_a_word_of_configuration() {
    let Some((site, client)) = Namespace::new("site").zip(Namespace::new("client")) else {
        skip!("no network namespaces here: they need root and `ip`");
    };
    site.wire("eth0", "192.0.2.1/24", &client, CARD, "");
    site.enter();
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../examples/site-standalone.toml"
    );
    let shipped = std::fs::read_to_string(path).unwrap();
    let bulkhead = Bulkhead::with(Configuration::shipped(&shipped));
    let machines = Machines::new(&client, CARD);
    let ask = |class: &str, architecture: u8| {
        let discover = Packet::new(kind::DISCOVER, mac(architecture))
            .option(60, class.as_bytes())
            .option(93, &[0, architecture])
            .option(55, &[1, 3, 43, 60, 66, 67]);
        machines.ask(&discover)
    };
    for (architecture, file) in [
        (15, "grub2/grubia32.efi"),
        (16, "grub2/grubx64.efi"),
        (18, "grub2/grubarm.efi"),
        (19, "grub2/grubaa64.efi"),
        (28, "grub2/grubriscv64.efi"),
        (40, "grub2/grubloongarch64.efi"),
    ] {
        std::fs::create_dir_all(bulkhead.boot().join("grub2")).unwrap();
        std::fs::write(bulkhead.boot().join(file), file).unwrap();
        let offer = ask("HTTPClient:Arch:000:UNDI:003001", architecture);
        assert_eq!(offer.option(60), Some(&b"HTTPClient"[..]), "{architecture}");
        let url = String::from_utf8(offer.option(67).unwrap().to_vec()).unwrap();
        let path = url.strip_prefix("http://192.0.2.1:8000").unwrap();
        let door = Target::plain("192.0.2.1:8000".parse().unwrap());
        assert_eq!(door.get(path).text(), file, "{url}");
    }
    let offer = ask("PXEClient:Arch:00011:UNDI:003000", 11);
    assert_eq!(
        (offer.file().as_str(), offer.option(60)),
        ("grub2/grubaa64.efi", None)
    );
    assert_eq!(offer.next_server(), "192.0.2.1");
}
