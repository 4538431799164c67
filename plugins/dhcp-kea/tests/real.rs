//! The plugin's code, natively, with real servers in networks of their own: the Kea of this machine, and those of other suites of Debian.
//! The sandbox and the policy are tested with the real program in `tests/interop/kea.rs`.

// A test may fail loudly.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use bulkhead_sdk::bindings::imports::foreman::proxy::types::{Incoming, Outgoing, UpstreamError};
use bulkhead_sdk::dhcp::{
    DhcpOption, DhcpProvider, Entry, Error, Identifier, OptionValue, Reservation,
};
use bulkhead_sdk::testing::{Host, Installed};
use bulkhead_testkit::debian::{Missing, Suite};
use bulkhead_testkit::kea::{Door, Kea, Setup};
use bulkhead_testkit::namespace::Namespace;
use bulkhead_testkit::{Target, skip};
use dhcp_kea_plugin::DhcpKea;
use serde_json::{Value, json};

const NET: &str = "192.0.2.0/24";
const SHARED: &str = "198.51.100.0/25";

fn setup(hooks: &[&'static str]) -> Setup {
    Setup {
        suite: None,
        door: Door::Agent,
        hooks: hooks.to_vec(),
        credentials: None,
        interfaces: Vec::new(),
        dhcp4: json!({
            "option-data": [{ "name": "domain-name", "data": "example.com" }],
            "subnet4": [{
                "id": 7, "subnet": NET,
                "pools": [{ "pool": "192.0.2.100 - 192.0.2.199" }, { "pool": "192.0.2.208/28" }],
                "option-data": [
                    { "name": "routers", "data": "192.0.2.1" },
                    { "name": "domain-name-servers", "data": "192.0.2.2, 192.0.2.3" },
                    { "name": "interface-mtu", "data": "1400" },
                ],
                "reservations": [{ "hw-address": "aa:bb:cc:dd:ee:01", "ip-address": "192.0.2.10", "hostname": "old.example.com" }],
            }],
            "shared-networks": [{
                "name": "shared",
                "option-data": [{ "name": "ntp-servers", "data": "198.51.100.9" }],
                "subnet4": [{ "id": 9, "subnet": SHARED }],
            }],
        }),
    }
}

/// The host's double, which sends what the plugin sends to the real Kea.
fn host(kea: &Kea) -> Host {
    let target = Target::plain(kea.address());
    Host::new().store("locks").http(move |request: &Outgoing| {
        let body = String::from_utf8(request.body.clone()).unwrap();
        let answer = target
            .request(&request.method, &request.target)
            .body("application/json", body)
            .try_send()
            .map_err(|why| UpstreamError::Unreachable(why.to_string()))?;
        Ok(Incoming {
            status: answer.status,
            headers: Vec::new(),
            body: answer.body,
        })
    })
}

fn installed(kea: &Kea) -> Installed {
    host(kea).install()
}

fn text(name: &str, value: &str) -> DhcpOption {
    DhcpOption {
        name: name.to_owned(),
        value: OptionValue::Text(value.to_owned()),
    }
}

fn mac(number: u8) -> Identifier {
    Identifier::Hardware(format!("aa:bb:cc:dd:ee:{number:02x}"))
}

fn reservation(number: u8) -> Reservation {
    Reservation {
        subnet: NET.to_owned(),
        address: format!("192.0.2.{number}"),
        identifier: mac(number),
        name: format!("host{number}.example.com"),
        deletable: true,
        options: vec![
            text("hostname", &format!("host{number}.example.com")),
            text("filename", "pxelinux.0"),
            text("nextServer", "192.0.2.9"),
        ],
    }
}

fn addresses(entries: &[Entry]) -> Vec<&str> {
    entries
        .iter()
        .map(|entry| match entry {
            Entry::Reservation(reservation) => reservation.address.as_str(),
            Entry::Lease(lease) => lease.address.as_str(),
        })
        .collect()
}

macro_rules! network {
    () => {{
        if skip::program("kea-dhcp4").is_none() || skip::program("kea-ctrl-agent").is_none() {
            skip!("there is no Kea on this machine");
        }
        match Namespace::new("kea") {
            Some(network) => network,
            None => skip!("no network namespaces here: they need root and `ip`"),
        }
    }};
}

#[test]
fn subnets_are_shown_with_ranges_and_inherited_options() {
    network!().inside(|| {
        let kea = Kea::start(setup(&["lease_cmds"]));
        let _host = installed(&kea);
        let subnets = DhcpKea::subnets().unwrap();
        assert_eq!(subnets.len(), 2);
        assert_eq!(subnets[0].prefix, NET);
        let ranges: Vec<_> = subnets[0]
            .ranges
            .iter()
            .map(|range| (range.first.as_str(), range.last.as_str()))
            .collect();
        assert_eq!(
            ranges,
            [
                ("192.0.2.100", "192.0.2.199"),
                ("192.0.2.208", "192.0.2.223")
            ]
        );
        let names: Vec<_> = subnets[0]
            .options
            .iter()
            .map(|one| one.name.as_str())
            .collect();
        assert_eq!(
            names,
            [
                "routers",
                "domain_name",
                "domain_name_servers",
                "interface_mtu"
            ]
        );
        assert_eq!(
            subnets[0].options[2].value,
            OptionValue::Texts(vec!["192.0.2.2".to_owned(), "192.0.2.3".to_owned()])
        );
        assert_eq!(subnets[0].options[3].value, OptionValue::Integer(1400));
        assert_eq!(subnets[1].prefix, SHARED);
        assert_eq!(
            subnets[1].options,
            [
                text("domain_name", "example.com"),
                DhcpOption {
                    name: "ntp_servers".to_owned(),
                    value: OptionValue::Texts(vec!["198.51.100.9".to_owned()])
                }
            ]
        );
        assert_eq!(
            DhcpKea::entries("203.0.113.0/24".to_owned(), None, 10),
            Err(Error::UnknownSubnet)
        );
    });
}

#[test]
fn a_reservation_is_written_read_and_removed_by_configuration() {
    network!().inside(|| {
        let mut kea = Kea::start(setup(&["lease_cmds"]));
        let _host = installed(&kea);
        let wanted = reservation(20);
        assert_eq!(DhcpKea::add(wanted.clone()), Ok(true));
        assert_eq!(DhcpKea::add(wanted.clone()), Ok(false), "an equal one");
        let found = DhcpKea::by_address(NET.to_owned(), wanted.address.clone()).unwrap();
        assert_eq!(found, [Entry::Reservation(wanted.clone())]);
        assert_eq!(
            DhcpKea::by_identifier(NET.to_owned(), mac(20)).unwrap(),
            found
        );

        // Kea itself has it, in its memory and in its file.
        let theirs = kea.reservations();
        assert_eq!(theirs.len(), 2);
        assert!(theirs.iter().any(|one| one["ip-address"] == "192.0.2.20"
            && one["boot-file-name"] == "pxelinux.0"
            && one["next-server"] == "192.0.2.9"
            && one["hostname"] == "host20.example.com"));
        assert!(kea.configuration_file().contains("\"192.0.2.20\""));

        // Neither its address nor its MAC is given to another.
        let mut other = reservation(21);
        other.address.clone_from(&wanted.address);
        assert!(matches!(DhcpKea::add(other), Err(Error::Conflict(_))));
        let mut other = reservation(21);
        other.identifier = mac(20);
        assert!(matches!(DhcpKea::add(other), Err(Error::Conflict(_))));
        let mut other = wanted.clone();
        other.options[1] = text("filename", "grub2/grubx64.efi");
        assert!(matches!(DhcpKea::add(other), Err(Error::Conflict(_))));

        // It is still there after a restart.
        kea.stop();
        assert!(matches!(
            DhcpKea::by_address(NET.to_owned(), wanted.address.clone()),
            Err(Error::Unreachable(_))
        ));
        kea.run();
        assert_eq!(
            DhcpKea::by_address(NET.to_owned(), wanted.address.clone()),
            Ok(found)
        );

        assert_eq!(
            DhcpKea::remove(NET.to_owned(), None, Some(mac(20))),
            Ok(true)
        );
        assert_eq!(
            DhcpKea::remove(NET.to_owned(), None, Some(mac(20))),
            Ok(false)
        );
        assert_eq!(kea.reservations().len(), 1);
        assert!(!kea.configuration_file().contains("\"192.0.2.20\""));
        assert_eq!(
            DhcpKea::remove(NET.to_owned(), Some("192.0.2.10".to_owned()), None),
            Ok(true)
        );
        assert_eq!(kea.reservations(), Vec::<Value>::new());

        // What Kea refuses comes back with its words.
        let mut outside = reservation(30);
        outside.address = "203.0.113.1".to_owned();
        match DhcpKea::add(outside) {
            Err(Error::Refused(text)) => assert!(text.contains("203.0.113.1"), "{text}"),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn machines_that_boot_by_http_get_their_options() {
    network!().inside(|| {
        let kea = Kea::start(setup(&["lease_cmds"]));
        let _host = installed(&kea);
        let mut wanted = reservation(20);
        wanted.subnet = SHARED.to_owned();
        wanted.address = "198.51.100.20".to_owned();
        wanted.options[1] = text(
            "filename",
            "http://boot.example.com/httpboot/grub2/shim.efi",
        );
        assert_eq!(DhcpKea::add(wanted.clone()), Ok(true));
        assert_eq!(DhcpKea::add(wanted.clone()), Ok(false));
        assert_eq!(
            DhcpKea::by_identifier(SHARED.to_owned(), mac(20)),
            Ok(vec![Entry::Reservation(wanted)])
        );
        let theirs = kea.reservations();
        let options = theirs[1]["option-data"].to_string();
        assert!(
            options.contains("HTTPClient") && options.contains("shim.efi"),
            "{theirs:?}"
        );
    });
}

#[test]
fn leases_come_from_the_hook_page_by_page() {
    network!().inside(|| {
        let kea = Kea::start(setup(&["lease_cmds"]));
        let _host = installed(&kea);
        for number in 100..130 {
            let said = kea.ask(
                "lease4-add",
                json!({ "ip-address": format!("192.0.2.{number}"), "subnet-id": 7,
                    "hw-address": format!("02:00:00:00:00:{number:02x}"), "hostname": "lap.example.com." }),
            );
            assert_eq!(said["result"], 0, "{said}");
        }
        let said = kea.ask(
            "lease4-add",
            json!({ "ip-address": "198.51.100.50", "subnet-id": 9, "hw-address": "02:00:00:00:00:64" }),
        );
        assert_eq!(said["result"], 0, "{said}");
        let mut all = Vec::new();
        let mut cursor = None;
        let mut pages = 0;
        loop {
            let page = DhcpKea::entries(NET.to_owned(), cursor, 7).unwrap();
            assert!(page.entries.len() <= 7);
            all.extend(page.entries);
            pages += 1;
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        assert!(pages >= 5, "{pages}");
        assert_eq!(all.len(), 31);
        assert!(matches!(&all[0], Entry::Reservation(one) if one.address == "192.0.2.10"));
        let Entry::Lease(lease) = &all[1] else {
            panic!("{:?}", all[1]);
        };
        assert_eq!(lease.address, "192.0.2.100");
        assert_eq!(lease.state.as_deref(), Some("active"));
        assert_eq!(lease.ends.unwrap() - lease.starts.unwrap(), 7200);
        assert_eq!(lease.options, [text("client_hostname", "lap.example.com")]);

        let by_mac = DhcpKea::by_identifier(
            NET.to_owned(),
            Identifier::Hardware("02:00:00:00:00:64".to_owned()),
        );
        assert_eq!(
            addresses(&by_mac.unwrap()),
            ["192.0.2.100"],
            "not that of the other subnet"
        );
        let few = ["192.0.2.10", "192.0.2.11", "192.0.2.129", "192.0.2.130"].map(str::to_owned);
        assert_eq!(
            DhcpKea::in_use(NET.to_owned(), few.to_vec()),
            Ok(vec![true, false, true, false])
        );
        let many: Vec<String> = (1..255).map(|number| format!("192.0.2.{number}")).collect();
        let used = DhcpKea::in_use(NET.to_owned(), many).unwrap();
        assert_eq!(used.iter().filter(|used| **used).count(), 31);
        assert!(used[9] && used[99] && used[128] && !used[129]);
    });
}

#[test]
fn leases_come_from_the_file_where_the_hook_is_not_loaded() {
    network!().inside(|| {
        let kea = Kea::start(setup(&[]));
        let host = installed(&kea);
        match DhcpKea::by_address(NET.to_owned(), "192.0.2.100".to_owned()) {
            Err(Error::Unsupported(text)) => assert_eq!(
                text,
                "leases are not readable: load Kea's hook library `lease_cmds`, or set `dhcp_kea_lease_directory`"
            ),
            other => panic!("{other:?}"),
        }
        // Kea's own file, as it wrote it.
        let name = kea.configuration()["lease-database"]["name"]
            .as_str()
            .unwrap()
            .to_owned();
        let path = std::path::Path::new(&name);
        let mut bytes = std::fs::read(path).unwrap();
        bytes.extend_from_slice(b"192.0.2.100,02:00:00:00:00:64,01:02:00:00:00:00:64,3600,1795631201,7,0,0,a&#x2cb,0,\n");
        let file = path.file_name().unwrap().to_str().unwrap();
        let directory = path.parent().unwrap().display().to_string();
        host.change(|host| {
            host.setting("dhcp_kea_lease_directory", directory.as_str())
                .watched("leases", file, 1, &bytes)
        });
        let found = DhcpKea::by_address(NET.to_owned(), "192.0.2.100".to_owned()).unwrap();
        let Entry::Lease(lease) = &found[0] else {
            panic!("{found:?}");
        };
        assert_eq!(
            (lease.starts, lease.ends),
            (Some(1_795_627_601), Some(1_795_631_201))
        );
        assert_eq!(lease.options[1], text("client_hostname", "a,b"));
    });
}

#[test]
fn what_others_change_meanwhile_is_kept() {
    network!().inside(|| {
        let kea = Kea::start(setup(&["lease_cmds"]));
        let target = Target::plain(kea.address());
        let meddled = std::cell::Cell::new(0);
        let meddle = move |request: &Outgoing| {
            let body = String::from_utf8(request.body.clone()).unwrap();
            let send = |body: String| {
                target
                    .request("POST", "/")
                    .body("application/json", body)
                    .try_send()
                    .unwrap()
            };
            // Right between the plugin's reading and its looking again, twice.
            if body.contains("\"config-test\"") && meddled.get() < 2 {
                meddled.set(meddled.get() + 1);
                let read = send(r#"{"command":"config-get","service":["dhcp4"]}"#.to_owned()).json();
                let mut arguments = read[0]["arguments"].clone();
                arguments.as_object_mut().unwrap().remove("hash");
                let theirs = json!({ "hw-address": format!("02:00:00:00:01:{:02x}", meddled.get()), "ip-address": format!("192.0.2.{}", 50 + meddled.get()) });
                arguments["Dhcp4"]["subnet4"][0]["reservations"]
                    .as_array_mut()
                    .unwrap()
                    .push(theirs);
                let set = send(
                    json!({ "command": "config-set", "service": ["dhcp4"], "arguments": arguments })
                        .to_string(),
                )
                .json();
                assert_eq!(set[0]["result"], 0, "{set}");
            }
            let answer = send(body);
            Ok(Incoming {
                status: answer.status,
                headers: Vec::new(),
                body: answer.body,
            })
        };
        let _host = Host::new().store("locks").http(meddle).install();
        assert_eq!(DhcpKea::add(reservation(20)), Ok(true));
        let mut theirs: Vec<String> = kea
            .reservations()
            .iter()
            .map(|one| one["ip-address"].as_str().unwrap().to_owned())
            .collect();
        theirs.sort();
        assert_eq!(
            theirs,
            ["192.0.2.10", "192.0.2.20", "192.0.2.51", "192.0.2.52"]
        );
    });
}

/// Cards of one machine share an address where Kea lets them; those of two machines never do.
fn bond(kea: &Kea) {
    let bonded = |number: u8, other: u8| Reservation {
        address: reservation(60).address,
        identifier: mac(number),
        options: vec![DhcpOption {
            name: "related_macs".to_owned(),
            value: OptionValue::Texts(vec![match mac(other) {
                Identifier::Hardware(text) | Identifier::Client(text) => text,
            }]),
        }],
        ..reservation(number)
    };
    let shares = kea.configuration()["ip-reservations-unique"] == false;
    let _host = installed(kea);
    assert_eq!(DhcpKea::add(bonded(60, 61)), Ok(true));
    let second = DhcpKea::add(bonded(61, 60));
    if shares {
        assert_eq!(second, Ok(true));
        assert_eq!(DhcpKea::add(bonded(61, 60)), Ok(false), "an equal one");
    } else {
        assert!(
            matches!(&second, Err(Error::Refused(text)) if text.contains("ip-reservations-unique")),
            "{second:?}"
        );
    }
    let stranger = DhcpKea::add(bonded(62, 63));
    assert!(matches!(stranger, Err(Error::Conflict(_))), "{stranger:?}");
    assert_eq!(
        DhcpKea::remove(NET.to_owned(), Some(reservation(60).address), None),
        Ok(true)
    );
    let left = DhcpKea::by_address(NET.to_owned(), reservation(60).address);
    assert_eq!(left, Ok(Vec::new()));
}

#[test]
fn cards_of_one_machine_share_an_address_where_kea_lets_them() {
    for shares in [true, false] {
        let mut setup = setup(&["lease_cmds"]);
        if shares {
            setup.dhcp4["ip-reservations-unique"] = json!(false);
        }
        network!().inside(|| bond(&Kea::start(setup)));
    }
}

#[test]
fn cards_of_one_machine_share_an_address_with_host_cmds() {
    let Some(suite) = suite("sid") else { return };
    for shares in [true, false] {
        let mut setup = Setup {
            suite: Some(suite.clone()),
            door: Door::Direct,
            ..setup(&["lease_cmds", "host_cmds"])
        };
        if shares {
            setup.dhcp4["ip-reservations-unique"] = json!(false);
        }
        network!().inside(|| bond(&Kea::start(setup)));
    }
}

/// What is out of reach is told loudly.
fn suite(name: &str) -> Option<Suite> {
    match Suite::with(name, &["kea-dhcp4-server", "kea-ctrl-agent"]) {
        Ok(suite) => Some(suite),
        Err(Missing::OutOfReach(reason)) => {
            use std::io::Write as _;
            let told = format!("\n*** NOT TESTED: the Kea of Debian {name}: {reason}\n");
            let _ = std::io::stderr().lock().write_all(told.as_bytes());
            None
        }
        Err(Missing::Failed(reason)) => panic!("{reason}"),
    }
}

/// The life of a reservation on another version of Kea.
fn on_another(name: &str, version: &str, door: Door, hooks: &[&'static str]) {
    let Some(suite) = suite(name) else { return };
    let Some(network) = Namespace::new("kea") else {
        skip!("no network namespaces here: they need root and `ip`");
    };
    network.inside(|| {
        let mut kea = Kea::start(Setup {
            suite: Some(suite),
            door,
            ..setup(hooks)
        });
        assert!(kea.version().starts_with(version), "{}", kea.version());
        let _host = installed(&kea);
        let wanted = reservation(20);
        assert_eq!(DhcpKea::add(wanted.clone()), Ok(true));
        assert_eq!(DhcpKea::add(wanted.clone()), Ok(false), "an equal one");
        let mut web = reservation(21);
        web.options[1] = text("filename", "https://boot.example.com/shim.efi");
        assert_eq!(DhcpKea::add(web.clone()), Ok(true));
        assert_eq!(
            DhcpKea::by_identifier(NET.to_owned(), mac(21)),
            Ok(vec![Entry::Reservation(web.clone())])
        );
        for (address, identifier) in [(20, 30), (30, 20)] {
            let mut other = reservation(address);
            other.identifier = mac(identifier);
            let refused = DhcpKea::add(other);
            assert!(matches!(refused, Err(Error::Conflict(_))), "{refused:?}");
        }
        let mut outside = reservation(30);
        outside.address = "203.0.113.1".to_owned();
        let refused = DhcpKea::add(outside);
        assert!(
            matches!(&refused, Err(Error::Refused(text)) if text.contains("203.0.113.1")),
            "{refused:?}"
        );

        // Page by page, and whether it is in use.
        let first = DhcpKea::entries(NET.to_owned(), None, 2).unwrap();
        assert_eq!(addresses(&first.entries), ["192.0.2.10", "192.0.2.20"]);
        let second = DhcpKea::entries(NET.to_owned(), first.next, 2).unwrap();
        assert_eq!(addresses(&second.entries), ["192.0.2.21"]);
        let many: Vec<String> = (1..255).map(|number| format!("192.0.2.{number}")).collect();
        let used = DhcpKea::in_use(NET.to_owned(), many).unwrap();
        assert_eq!(used.iter().filter(|used| **used).count(), 3);

        // Kea has both, and still has them when it starts again.
        assert_eq!(kea.reservations().len(), 3);
        kea.stop_all();
        kea.run();
        assert_eq!(
            DhcpKea::by_address(NET.to_owned(), wanted.address.clone()),
            Ok(vec![Entry::Reservation(wanted)])
        );
        assert_eq!(
            DhcpKea::remove(NET.to_owned(), None, Some(mac(20))),
            Ok(true)
        );
        assert_eq!(
            DhcpKea::remove(NET.to_owned(), None, Some(mac(20))),
            Ok(false)
        );
        assert_eq!(
            DhcpKea::remove(NET.to_owned(), Some(web.address), None),
            Ok(true)
        );
        assert_eq!(kea.reservations().len(), 1);
        assert!(!kea.configuration_file().contains("\"192.0.2.20\""));
    });
}

#[test]
fn kea_2_6_through_the_agent() {
    on_another("trixie", "2.6", Door::Agent, &["lease_cmds"]);
}

#[test]
fn kea_3_through_the_agent_with_host_cmds() {
    on_another("sid", "3.", Door::Agent, &["lease_cmds", "host_cmds"]);
}

#[test]
fn kea_3_directly_with_host_cmds() {
    on_another("sid", "3.", Door::Direct, &["lease_cmds", "host_cmds"]);
}

#[test]
fn kea_3_directly_without_host_cmds() {
    on_another("sid", "3.", Door::Direct, &["lease_cmds"]);
}
