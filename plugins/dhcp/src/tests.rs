//! The routes against a provider in memory, without a host.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;

use bulkhead_sdk::dhcp::{AddressRange, DhcpOption, Lease, OptionValue, Page, Reservation, Subnet};
use bulkhead_sdk::probe::Outcome;
use bulkhead_sdk::testing::{Called, DhcpServer, Host, Installed};

use super::*;

mod machines;

const PREFIX: &str = "192.0.2.0/24";

/// One subnet of a server in memory. `broken` is what every call answers.
#[derive(Default)]
struct Server {
    entries: RefCell<Vec<Entry>>,
    broken: RefCell<Option<Error>>,
    /// What `in_use` answers instead.
    blind: RefCell<Option<Error>>,
    added: RefCell<Vec<Reservation>>,
}

impl Server {
    fn matching(
        &self,
        subnet: &str,
        wanted: impl Fn(&str, &Identifier) -> bool,
    ) -> Result<Vec<Entry>, Error> {
        self.check()?;
        if subnet != PREFIX {
            return Err(Error::UnknownSubnet);
        }
        let entries = self.entries.borrow();
        let found = entries.iter().filter(|entry| match entry {
            Entry::Reservation(found) => wanted(&found.address, &found.identifier),
            Entry::Lease(found) => wanted(&found.address, &found.identifier),
        });
        Ok(found.cloned().collect())
    }

    fn check(&self) -> Result<(), Error> {
        self.broken.borrow().clone().map_or(Ok(()), Err)
    }
}

impl DhcpServer for Server {
    fn subnets(&self) -> Result<Vec<Subnet>, Error> {
        self.check()?;
        Ok(vec![Subnet {
            prefix: PREFIX.to_owned(),
            ranges: vec![AddressRange {
                first: "192.0.2.100".into(),
                last: "192.0.2.120".into(),
            }],
            options: vec![
                DhcpOption {
                    name: "routers".into(),
                    value: OptionValue::Texts(vec!["192.0.2.1".into()]),
                },
                DhcpOption {
                    name: "domain_name".into(),
                    value: OptionValue::Groups(vec![vec!["example.com".into()]]),
                },
                DhcpOption {
                    name: "interface_mtu".into(),
                    value: OptionValue::Integer(1500),
                },
                DhcpOption {
                    name: "unknown".into(),
                    value: OptionValue::Text("x".into()),
                },
            ],
        }])
    }

    fn entries(&self, subnet: &str, cursor: Option<&str>, _: u32) -> Result<Page, Error> {
        let all = self.matching(subnet, |_, _| true)?;
        // One a page: whoever asks has to go on.
        let at: usize = cursor.map_or(0, |cursor| cursor.parse().unwrap());
        Ok(Page {
            next: (at + 1 < all.len()).then(|| (at + 1).to_string()),
            entries: all.into_iter().skip(at).take(1).collect(),
        })
    }

    fn by_address(&self, subnet: &str, address: &str) -> Result<Vec<Entry>, Error> {
        self.matching(subnet, |known, _| known == address)
    }

    fn by_identifier(&self, subnet: &str, who: &Identifier) -> Result<Vec<Entry>, Error> {
        self.matching(subnet, |_, known| known == who)
    }

    fn in_use(&self, subnet: &str, addresses: &[String]) -> Result<Vec<bool>, Error> {
        self.blind.borrow().clone().map_or(Ok(()), Err)?;
        addresses
            .iter()
            .map(|address| Ok(!self.by_address(subnet, address)?.is_empty()))
            .collect()
    }

    fn add(&self, wanted: &Reservation) -> Result<bool, Error> {
        self.check()?;
        let mut entries = self.entries.borrow_mut();
        if entries.contains(&Entry::Reservation(wanted.clone())) {
            return Ok(false);
        }
        entries.push(Entry::Reservation(wanted.clone()));
        self.added.borrow_mut().push(wanted.clone());
        Ok(true)
    }

    fn remove(
        &self,
        _: &str,
        address: Option<&str>,
        who: Option<&Identifier>,
    ) -> Result<bool, Error> {
        self.check()?;
        let mut entries = self.entries.borrow_mut();
        let before = entries.len();
        entries.retain(|entry| match entry {
            Entry::Reservation(found) => {
                Some(found.address.as_str()) != address && Some(&found.identifier) != who
            }
            Entry::Lease(_) => true,
        });
        match entries.len() < before {
            true => Ok(true),
            false => Err(Error::NotDeletable(
                "192.0.2.12 / x is static - unable to delete".into(),
            )),
        }
    }
}

fn server() -> Rc<Server> {
    let server = Server::default();
    server.entries.borrow_mut().extend([
        reservation("a", "192.0.2.40", "aa:bb:cc:dd:ee:01"),
        lease("192.0.2.12", "00:aa:aa:aa:aa:01"),
    ]);
    Rc::new(server)
}

fn host(server: &Rc<Server>) -> Installed {
    Host::new()
        .dhcp_provider(server.clone())
        .store(free::HELD)
        .setting("ping_free_ip", false)
        .install()
}

fn reservation(name: &str, address: &str, mac: &str) -> Entry {
    Entry::Reservation(Reservation {
        subnet: PREFIX.into(),
        address: address.into(),
        identifier: Identifier::Hardware(mac.into()),
        name: name.into(),
        deletable: true,
        options: vec![
            DhcpOption {
                name: "hostname".into(),
                value: OptionValue::Text(name.into()),
            },
            DhcpOption {
                name: "hardware_type".into(),
                value: OptionValue::Text("ethernet".into()),
            },
        ],
    })
}

fn lease(address: &str, mac: &str) -> Entry {
    Entry::Lease(Lease {
        subnet: PREFIX.into(),
        address: address.into(),
        identifier: Identifier::Hardware(mac.into()),
        starts: Some(1_795_600_800),
        ends: None,
        state: Some("active".into()),
        options: vec![DhcpOption {
            name: "next_state".into(),
            value: OptionValue::Text("free".into()),
        }],
    })
}

fn got(called: &Called) -> (u16, String) {
    (called.status(), called.text())
}

fn get(host: &Installed, target: &str) -> (u16, String) {
    got(&host.get::<Dhcp>(target))
}

const RESERVATION: &str = r#"{"name":"a","ip":"192.0.2.40","mac":"aa:bb:cc:dd:ee:01","subnet":"192.0.2.0/255.255.255.0","type":"reservation","deleteable":true,"hostname":"a","hardware_type":"ethernet"}"#;
const LEASE: &str = r#"{"name":"lease-00aaaaaaaa01","ip":"192.0.2.12","mac":"00:aa:aa:aa:aa:01","subnet":"192.0.2.0/255.255.255.0","starts":"2026-11-25 10:00:00 UTC","ends":null,"state":"active","type":"lease","next_state":"free"}"#;

#[test]
fn subnets_are_shown_with_the_options_that_foreman_imports() {
    let host = host(&server());
    let body = r#"[{"network":"192.0.2.0","netmask":"255.255.255.0","options":{"routers":["192.0.2.1"],"domain_name":[["example.com"]],"interface_mtu":1500,"range":["192.0.2.100","192.0.2.120"]}}]"#;
    for path in ["/dhcp", "/dhcp/"] {
        assert_eq!(get(&host, path), (200, body.to_owned()));
    }
}

#[test]
fn records_have_the_smart_proxys_keys_in_its_order() {
    let host = host(&server());
    let ok = |body: String| (200, body);
    assert_eq!(
        get(&host, "/dhcp/192.0.2.0"),
        ok(format!(
            "{{\"reservations\":[{RESERVATION}],\"leases\":[{LEASE}]}}"
        ))
    );
    assert_eq!(
        get(&host, "/dhcp/192.0.2.0/ip/192.0.2.40"),
        ok(format!("[{RESERVATION}]"))
    );
    assert_eq!(
        get(&host, "/dhcp/192.0.2.0/mac/00:AA:AA:aa:aa:01"),
        ok(LEASE.to_owned())
    );
}

#[test]
fn reservations_come_before_leases() {
    let server = server();
    server
        .entries
        .borrow_mut()
        .push(lease("192.0.2.40", "aa:bb:cc:dd:ee:01"));
    let host = host(&server);
    assert_eq!(
        get(&host, "/dhcp/192.0.2.0/ip/192.0.2.40").1,
        format!("[{RESERVATION}]")
    );
    assert_eq!(
        get(&host, "/dhcp/192.0.2.0/mac/aa:bb:cc:dd:ee:01").1,
        RESERVATION
    );
}

#[test]
fn what_is_not_there_is_404_in_the_smart_proxys_words() {
    let host = host(&server());
    for (path, text) in [
        ("/dhcp/198.51.100.0", "Subnet 198.51.100.0 could not found"),
        (
            "/dhcp/198.51.100.0/unused_ip",
            "Subnet 198.51.100.0 could not found",
        ),
        (
            "/dhcp/192.0.2.0/ip/192.0.2.99",
            "No DHCP records for IP 192.0.2.0/192.0.2.99 found",
        ),
        (
            "/dhcp/192.0.2.0/mac/AA:00:00:00:00:01",
            "No DHCP record for MAC 192.0.2.0/aa:00:00:00:00:01 found",
        ),
        // An inner address finds the subnet, and nothing in it.
        (
            "/dhcp/192.0.2.77/ip/192.0.2.40",
            "No DHCP records for IP 192.0.2.77/192.0.2.40 found",
        ),
    ] {
        assert_eq!(get(&host, path), (404, text.to_owned()), "{path}");
    }
    assert_eq!(
        get(&host, "/dhcp/192.0.2.77"),
        (200, r#"{"reservations":[],"leases":[]}"#.to_owned())
    );
    for (path, text) in [
        ("/dhcp/192.0.2.300", "Invalid IP Address 192.0.2.300"),
        ("/dhcp/192.0.2.0/ip/x", "Invalid IP Address x"),
        ("/dhcp/192.0.2.0/mac/x", "Invalid MAC x"),
        ("/dhcp/192.0.2.0/unused_ip?mac=x", "Invalid MAC x"),
    ] {
        assert_eq!(get(&host, path), (400, text.to_owned()), "{path}");
    }
}

const NEW: [(&str, &str); 7] = [
    ("hostname", "b.example.com"),
    ("name", "b.example.com"),
    ("ip", "192.0.2.41"),
    ("mac", "AA:BB:CC:DD:EE:02"),
    ("nextServer", "192.0.2.9"),
    ("filename", "pxelinux.0"),
    ("network", "10.0.0.0"),
];

fn post(host: &Installed, changed: &[(&str, &str)]) -> (u16, String) {
    let mut form: Vec<(&str, &str)> = NEW.to_vec();
    for &(name, value) in changed {
        form.retain(|(known, _)| *known != name);
        form.push((name, value));
    }
    got(&host.post_form::<Dhcp>("/dhcp/192.0.2.0", &form))
}

#[test]
fn a_reservation_is_handed_over_as_the_form_says() {
    let server = server();
    let host = host(&server);
    let created = host.post_form::<Dhcp>(
        "/dhcp/192.0.2.0",
        &[
            &NEW[..],
            &[
                ("ztp_firmware[core]", "c"),
                ("related_macs[]", "aa:bb:cc:dd:ee:09"),
            ],
        ]
        .concat(),
    );
    assert_eq!(
        (created.status(), created.content_type(), created.text()),
        (200, "application/json".to_owned(), String::new())
    );
    let added = server.added.borrow();
    assert_eq!(
        (added[0].subnet.as_str(), added[0].address.as_str()),
        (PREFIX, "192.0.2.41")
    );
    assert_eq!(
        added[0].identifier,
        Identifier::Hardware("aa:bb:cc:dd:ee:02".into())
    );
    let names: Vec<&str> = added[0]
        .options
        .iter()
        .map(|option| option.name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "nextServer",
            "filename",
            "ztp_firmware[core]",
            "hostname",
            "related_macs"
        ]
    );
}

#[test]
fn an_equal_reservation_is_success() {
    let host = host(&server());
    assert_eq!(post(&host, &[]), (200, String::new()));
    assert_eq!(post(&host, &[]), (200, String::new()));
}

#[test]
fn the_address_or_mac_address_of_another_is_a_conflict() {
    let host = host(&server());
    let conflict = |ip: &str| (409, format!("Record 192.0.2.0/{ip} already exists"));
    assert_eq!(post(&host, &[("ip", "192.0.2.40")]), conflict("192.0.2.40"));
    assert_eq!(
        post(&host, &[("mac", "aa:bb:cc:dd:ee:01")]),
        conflict("192.0.2.41")
    );
    // A lease is none, and neither is another interface of the same machine.
    assert_eq!(post(&host, &[("ip", "192.0.2.12")]).0, 200);
    assert_eq!(
        post(
            &host,
            &[
                ("ip", "192.0.2.40"),
                ("mac", "aa:bb:cc:dd:ee:03"),
                ("related_macs[]", "AA:bb:cc:dd:ee:01")
            ]
        )
        .0,
        200
    );
}

#[test]
fn a_form_is_checked_in_the_smart_proxys_order_and_words() {
    let host = host(&server());
    for (changed, text) in [
        (&[("mac", "x"), ("ip", "y")][..], "Invalid MAC x"),
        (
            &[("name", ""), ("hostname", ""), ("ip", "y")],
            "Must provide hostname",
        ),
        (&[("ip", "y")], "Invalid IP Address y"),
        (
            &[("ip", "198.51.100.1")],
            "IP 198.51.100.1 does not belong to the subnet 192.0.2.0/24",
        ),
    ] {
        assert_eq!(post(&host, changed), (400, text.to_owned()));
    }
    let elsewhere = host.post_form::<Dhcp>("/dhcp/198.51.100.0", &NEW);
    assert_eq!(
        got(&elsewhere),
        (400, "No Subnet detected for: 198.51.100.0".to_owned())
    );
    assert_eq!(
        host.post_form::<Dhcp>("/dhcp/192.0.2.0/", &NEW),
        Called::NoRoute
    );
}

#[test]
fn removing_what_is_not_there_is_success() {
    let host = host(&server());
    let delete = |target: &str| got(&host.delete::<Dhcp>(target));
    for target in [
        "/dhcp/192.0.2.0/ip/192.0.2.99",
        "/dhcp/198.51.100.0/ip/192.0.2.40",
        "/dhcp/192.0.2.77/ip/192.0.2.40",
        "/dhcp/192.0.2.0/mac/aa:00:00:00:00:01",
    ] {
        assert_eq!(delete(target), (200, String::new()), "{target}");
    }
    assert_eq!(
        delete("/dhcp/192.0.2.0/mac/AA:BB:CC:DD:EE:01"),
        (200, String::new())
    );
    assert_eq!(get(&host, "/dhcp/192.0.2.0/ip/192.0.2.40").0, 404);
    assert_eq!(
        delete("/dhcp/192.0.2.0/mac/00:aa:aa:aa:aa:01"),
        (
            400,
            "192.0.2.12 / x is static - unable to delete".to_owned()
        )
    );
    assert_eq!(
        delete("/dhcp/192.0.2.0/mac/x"),
        (400, "Invalid MAC x".to_owned())
    );
}

#[test]
fn a_providers_errors_have_their_statuses() {
    let server = server();
    let host = host(&server);
    for (error, asked, written) in [
        (Error::Conflict("x".into()), 409, 409),
        (Error::Refused("x".into()), 400, 400),
        (Error::Unsupported("x".into()), 501, 501),
        (Error::Timeout("x".into()), 504, 400),
        (Error::Unreachable("x".into()), 503, 400),
        (Error::Other("x".into()), 400, 400),
    ] {
        *server.broken.borrow_mut() = Some(error.clone());
        assert_eq!(get(&host, "/dhcp/192.0.2.0"), (asked, "x".to_owned()));
        let away = matches!(error, Error::Unreachable(_) | Error::Timeout(_));
        assert_eq!(Dhcp::status().into_record().problem.is_none(), away);
        *server.broken.borrow_mut() = None;
        let wanted = wanted::Wanted {
            reservation: match reservation("a", "192.0.2.1", "m") {
                Entry::Reservation(found) => found,
                Entry::Lease(_) => unreachable!(),
            },
            network: Ipv4Addr::new(192, 0, 2, 0),
            related: Vec::new(),
        };
        let failure = writing(error, &wanted);
        assert_eq!(failure.status(), written);
        if written != 409 {
            assert_eq!(
                failure.message(),
                "Failed to add DHCP reservation for a (192.0.2.1 / m): x"
            );
        }
    }
}

fn free(host: &Installed, query: &str) -> Option<String> {
    let (status, body) = get(host, &format!("/dhcp/192.0.2.0/unused_ip?{query}"));
    assert_eq!(status, 200, "{body}");
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    body["ip"].as_str().map(str::to_owned)
}

#[test]
fn a_free_address_is_suggested_once_until_none_is_left() {
    let host = host(&server());
    let range = "from=192.0.2.39&to=192.0.2.43";
    let mut seen: HashSet<String> = HashSet::new();
    for _ in 0..4 {
        assert!(seen.insert(free(&host, range).expect("one is free")));
    }
    assert!(!seen.contains("192.0.2.40"));
    assert_eq!(free(&host, range), None);
    let told = host
        .logs()
        .into_iter()
        .map(|(_, line)| line)
        .find(|line| line.starts_with("No free IPs"));
    assert_eq!(
        told.as_deref(),
        Some(
            "No free IPs in range 192.0.2.39..192.0.2.43. 1 have a reservation or a lease; 4 were suggested within 1800 s"
        )
    );
}

#[test]
fn who_has_an_address_in_the_range_keeps_it() {
    let host = host(&server());
    assert_eq!(
        free(&host, "mac=aa:bb:cc:dd:ee:01").as_deref(),
        Some("192.0.2.40")
    );
    assert_eq!(
        free(&host, "mac=00:aa:aa:aa:aa:01").as_deref(),
        Some("192.0.2.12")
    );
    assert_ne!(
        free(&host, "mac=aa:bb:cc:dd:ee:01&from=192.0.2.50&to=192.0.2.60").as_deref(),
        Some("192.0.2.40")
    );
    assert_ne!(
        free(&host, "mac=AA:BB:CC:DD:EE:01").as_deref(),
        Some("192.0.2.40")
    );
}

#[test]
fn a_leased_address_that_is_promised_to_another_is_not_suggested() {
    let server = server();
    let host = host(&server);
    let range = "from=192.0.2.50&to=192.0.2.51";
    let ask = |mac: &str| free(&host, &format!("mac={mac}&{range}"));
    let promised = ask("00:aa:aa:aa:aa:02").unwrap();
    // Before it is reserved there, dhcpd leases it to a machine that came by.
    let mut entries = server.entries.borrow_mut();
    entries.push(lease(&promised, "00:aa:aa:aa:aa:03"));
    drop(entries);
    let other = ask("00:aa:aa:aa:aa:03").unwrap();
    assert_ne!(promised, other);
    assert_eq!(ask("00:aa:aa:aa:aa:03"), None);

    // What is reserved for another is not the machine's own either, but what it was told once is.
    let mut entries = server.entries.borrow_mut();
    entries.push(lease("192.0.2.60", "00:aa:aa:aa:aa:04"));
    entries.push(lease("192.0.2.61", "00:aa:aa:aa:aa:05"));
    entries.push(reservation("b", "192.0.2.61", "aa:bb:cc:dd:ee:02"));
    drop(entries);
    for _ in 0..2 {
        assert_eq!(
            free(&host, "mac=00:aa:aa:aa:aa:04").as_deref(),
            Some("192.0.2.60")
        );
    }
    assert_ne!(
        free(&host, "mac=00:aa:aa:aa:aa:05").as_deref(),
        Some("192.0.2.61")
    );
    server
        .entries
        .borrow_mut()
        .retain(|entry| !matches!(entry, Entry::Lease(found) if found.address == "192.0.2.60"));
    assert_eq!(free(&host, "from=192.0.2.60&to=192.0.2.60"), None);
}

#[test]
fn the_range_is_checked_in_the_smart_proxys_words() {
    let host = host(&server());
    for (query, text) in [
        (
            "from=198.51.100.1&to=198.51.100.2",
            "Range does not belong to provided subnet",
        ),
        (
            "from=192.0.2.9&to=192.0.2.8",
            "192.0.2.9 can't be lower IP address than 192.0.2.8 - change the order?",
        ),
        ("from=192.0.3.1", "Zero or negative number of indices"),
        ("from=x&to=192.0.2.8", "Invalid IP Address x"),
    ] {
        assert_eq!(
            get(&host, &format!("/dhcp/192.0.2.0/unused_ip?{query}")),
            (400, text.to_owned())
        );
    }
    // The first and the last address of a subnet are nobody's.
    let edge = free(&host, "from=192.0.2.0&to=192.0.2.1");
    assert_eq!(edge.as_deref(), Some("192.0.2.1"));
}

#[test]
fn an_address_that_answers_is_passed_over_and_a_refusal_is_no_answer() {
    let server = server();
    let probing = |answer: fn(&str) -> Outcome| {
        Host::new()
            .dhcp_provider(server.clone())
            .store(free::HELD)
            .setting("ping_free_ip", true)
            .probe(answer)
            .install()
    };
    let range = "from=192.0.2.50&to=192.0.2.52";
    let host = probing(|address| {
        if address == "192.0.2.51" {
            Outcome::Silent
        } else {
            Outcome::Answered
        }
    });
    assert_eq!(free(&host, range).as_deref(), Some("192.0.2.51"));
    drop(host);
    let host = probing(|_| Outcome::Answered);
    assert_eq!(free(&host, range), None);
    let told = host
        .logs()
        .into_iter()
        .any(|(_, line)| line.contains("3 answered the probe (192.0.2.5"));
    assert!(told, "{:?}", host.logs());
    drop(host);
    let host = probing(|_| Outcome::Refused);
    assert!(free(&host, range).is_some());
    host.change(|host| {
        host.setting("probe_refused_is_used", true)
            .store(free::HELD)
    });
    assert_eq!(free(&host, range), None);
}

#[test]
fn without_the_right_to_probe_addresses_are_suggested_and_the_log_says_so() {
    let host = Host::new()
        .dhcp_provider(server())
        .store(free::HELD)
        .install();
    assert!(free(&host, "").is_some());
    assert!(
        host.logs()
            .iter()
            .any(|(_, line)| line.contains("suggested without a probe"))
    );
}

#[test]
fn a_hold_that_makes_no_sense_fails_the_feature() {
    let server = server();
    let _host = Host::new()
        .dhcp_provider(server)
        .setting("blacklist_duration_minutes", -1)
        .install();
    assert!(Dhcp::status().into_record().problem.is_some());
}
