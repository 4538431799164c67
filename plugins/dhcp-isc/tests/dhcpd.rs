//! The protocol and the files against a real ISC DHCP server, by the same code that runs in the sandbox.
//!
//! The server runs in a network namespace of the test's own. Where that cannot be, the test skips itself, loudly.

// A test that cannot go on has to stop.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::fs;
use std::net::TcpListener;

use bulkhead_sdk::dhcp::{
    DhcpOption, DhcpProvider as _, Entry, Error, Identifier, OptionValue, Reservation, settled,
};
use bulkhead_sdk::testing::{Host, Installed};
use bulkhead_testkit::dhcpd::{Dhcpd, KEY_NAME, SECRET};
use bulkhead_testkit::skip;
use dhcp_isc_plugin::Isc;
use hmac::{Hmac, Mac};

const PREFIX: &str = "192.0.2.0/24";

fn sign(algorithm: &str, secret: &[u8], message: &[u8]) -> Vec<u8> {
    macro_rules! mac {
        ($hash:ty) => {{
            let mut mac = Hmac::<$hash>::new_from_slice(secret).unwrap();
            mac.update(message);
            mac.finalize().into_bytes().to_vec()
        }};
    }
    match algorithm {
        "hmac-md5" => mac!(md5::Md5),
        "hmac-sha1" => mac!(sha1::Sha1),
        "hmac-sha256" => mac!(sha2::Sha256),
        "hmac-sha384" => mac!(sha2::Sha384),
        _ => mac!(sha2::Sha512),
    }
}

/// A host that shows the plugin the server's files and signs with `secret`.
fn host(dhcpd: &Dhcpd, algorithm: &'static str, secret: &'static [u8], port: u16) -> Installed {
    dhcpd.site.enter();
    Host::new()
        .setting("config", dhcpd.config().to_str().unwrap())
        .setting("leases", dhcpd.leases().to_str().unwrap())
        .setting("server", "127.0.0.1")
        .setting("omapi_port", i64::from(port))
        .setting("omapi_key", "/etc/omapi.key")
        .secret("key", KEY_NAME, algorithm, move |message| {
            sign(algorithm, secret, message)
        })
        .watched_on_disk("config")
        .watched_on_disk("includes")
        .watched_on_disk("leases")
        .install()
}

/// One whose operator named no key.
fn host_without_key(dhcpd: &Dhcpd) -> Installed {
    Host::new()
        .setting("config", dhcpd.config().to_str().unwrap())
        .setting("leases", dhcpd.leases().to_str().unwrap())
        .setting("server", "127.0.0.1")
        .setting("omapi_port", 7911)
        .watched_on_disk("config")
        .watched_on_disk("includes")
        .watched_on_disk("leases")
        .install()
}

fn wanted(name: &str, address: &str, mac: &str, options: &[(&str, &str)]) -> Reservation {
    let option = |&(name, value): &(&str, &str)| DhcpOption {
        name: name.to_owned(),
        value: OptionValue::Text(value.to_owned()),
    };
    Reservation {
        subnet: PREFIX.to_owned(),
        address: address.to_owned(),
        identifier: Identifier::Hardware(mac.to_owned()),
        name: name.to_owned(),
        deletable: true,
        options: options.iter().map(option).collect(),
    }
}

fn add(wanted: Reservation) -> Result<bool, Error> {
    settled(|| Isc::add(wanted.clone()))
}

fn remove(subnet: String, address: Option<String>, who: Option<Identifier>) -> Result<bool, Error> {
    settled(|| Isc::remove(subnet.clone(), address.clone(), who.clone()))
}

fn at(address: &str) -> Vec<Reservation> {
    let found = Isc::by_address(PREFIX.to_owned(), address.to_owned()).unwrap();
    found
        .into_iter()
        .filter_map(|entry| match entry {
            Entry::Reservation(found) => Some(found),
            Entry::Lease(_) => None,
        })
        .collect()
}

fn text(found: &Reservation, name: &str) -> String {
    let value = found
        .options
        .iter()
        .find(|option| option.name == name)
        .map(|option| &option.value);
    match value {
        Some(OptionValue::Text(text)) => text.clone(),
        other => format!("{other:?}"),
    }
}

const BOOT: [(&str, &str); 3] = [
    ("hostname", "a.example.com"),
    ("filename", "boot;{pxe}linux.0"),
    ("nextServer", "192.0.2.9"),
];

#[test]
fn every_algorithm_of_dhcpd_is_spoken() {
    for algorithm in [
        "hmac-md5",
        "hmac-sha1",
        "hmac-sha256",
        "hmac-sha384",
        "hmac-sha512",
    ] {
        let dhcpd = match Dhcpd::start(algorithm, "") {
            Ok(dhcpd) => dhcpd,
            Err(why) => skip!("{why}"),
        };
        let _host = host(&dhcpd, algorithm, SECRET, 7911);
        let reservation = wanted("a.example.com", "192.0.2.40", "aa:bb:cc:dd:ee:01", &BOOT);
        assert_eq!(add(reservation), Ok(true), "{algorithm}\n{}", dhcpd.log());
        assert_eq!(
            remove(PREFIX.into(), Some("192.0.2.40".into()), None),
            Ok(true),
            "{algorithm}"
        );
    }
}

#[test]
fn reservations_are_made_shown_refused_and_removed() {
    let mut dhcpd = match Dhcpd::start("hmac-sha256", "") {
        Ok(dhcpd) => dhcpd,
        Err(why) => skip!("{why}"),
    };
    let _host = host(&dhcpd, "hmac-sha256", SECRET, 7911);
    let a = wanted("a.example.com", "192.0.2.40", "AA:BB:CC:DD:EE:01", &BOOT);
    // Made, shown at once, and an equal one is success.
    assert_eq!(add(a.clone()), Ok(true), "{}", dhcpd.log());
    let found = at("192.0.2.40");
    assert_eq!(found.len(), 1);
    assert!(found[0].deletable);
    assert_eq!(
        found[0].identifier,
        Identifier::Hardware("aa:bb:cc:dd:ee:01".into())
    );
    for (name, value) in BOOT {
        assert_eq!(text(&found[0], name), value);
    }
    assert_eq!(text(&found[0], "hardware_type"), "ethernet");
    assert_eq!(add(a.clone()), Ok(false));
    // Not quite equal, the address of another, the MAC address of another, the name of another.
    let conflict = |address: &str| {
        Err(Error::Conflict(format!(
            "Record 192.0.2.0/{address} already exists"
        )))
    };
    assert_eq!(
        add(wanted(
            "a.example.com",
            "192.0.2.40",
            "aa:bb:cc:dd:ee:01",
            &[("filename", "x")]
        )),
        conflict("192.0.2.40")
    );
    assert_eq!(
        add(wanted(
            "b.example.com",
            "192.0.2.40",
            "aa:bb:cc:dd:ee:02",
            &[]
        )),
        conflict("192.0.2.40")
    );
    assert_eq!(
        add(wanted(
            "b.example.com",
            "192.0.2.41",
            "aa:bb:cc:dd:ee:01",
            &[]
        )),
        conflict("192.0.2.41")
    );
    assert_eq!(
        add(wanted(
            "a.example.com",
            "192.0.2.41",
            "aa:bb:cc:dd:ee:02",
            &[]
        )),
        Err(Error::Refused("Entry already exists".into()))
    );
    let mut elsewhere = wanted("b.example.com", "198.51.100.41", "aa:bb:cc:dd:ee:01", &[]);
    elsewhere.subnet = "198.51.100.0/24".into();
    assert_eq!(
        add(elsewhere),
        Err(Error::Conflict("Hardware address conflict.".into()))
    );
    // Another interface of the same machine may share the address.
    let mut bond = wanted("a.example.com-01", "192.0.2.40", "aa:bb:cc:dd:ee:03", &[]);
    bond.options.push(DhcpOption {
        name: "related_macs".into(),
        value: OptionValue::Texts(vec!["aa:bb:cc:dd:ee:01".into()]),
    });
    assert_eq!(add(bond), Ok(true));
    assert_eq!(at("192.0.2.40").len(), 2);
    // Vendor options, as dhcpd writes them back.
    let sun = [
        ("<Sun-Fire>root_server_ip", "192.0.2.3"),
        ("<Sun-Fire>root_path_name", "/x"),
        ("filename", "ztp.cfg/y"),
        ("nextServer", "192.0.2.9"),
        ("ztp_vendor", "huawei"),
        ("ztp_firmware[core]", "c"),
        ("ztp_firmware[web]", "w"),
    ];
    let sun = wanted("sun", "192.0.2.50", "aa:bb:cc:dd:ee:05", &sun);
    assert_eq!(add(sun.clone()), Ok(true), "{}", dhcpd.log());
    assert_eq!(add(sun), Ok(false));
    let found = &at("192.0.2.50")[0];
    assert_eq!(
        (text(found, "root_server_ip"), text(found, "vendor")),
        ("192.0.2.3".into(), "sun".into())
    );
    // Statements that dhcpd does not understand are no success, and leave no host behind.
    let refused = add(wanted(
        "solaris",
        "192.0.2.51",
        "aa:bb:cc:dd:ee:06",
        &[("<sparc>install_path", "/x")],
    ));
    assert!(matches!(&refused, Err(Error::Refused(_))), "{refused:?}");
    assert!(at("192.0.2.51").is_empty());
    assert!(
        !fs::read_to_string(dhcpd.leases())
            .unwrap()
            .contains("install-path")
    );
    // Hosts of dhcpd.conf and of what it includes are shown and stay.
    assert_eq!(
        remove(PREFIX.into(), Some("192.0.2.10".into()), None),
        Err(Error::NotDeletable(
            "fixed (192.0.2.10 / 00:11:22:33:44:01) is static - unable to delete".into()
        ))
    );
    assert_eq!(
        Isc::by_address("198.51.100.0/24".into(), "198.51.100.20".into())
            .unwrap()
            .len(),
        1
    );
    // dhcpd still knows everything after a restart, and so do we.
    dhcpd.stop();
    let gone = add(wanted("late", "192.0.2.60", "aa:bb:cc:dd:ee:07", &[]));
    assert!(
        matches!(&gone, Err(Error::Unreachable(why)) if why.starts_with("No response from DHCP server")),
        "{gone:?}"
    );
    dhcpd.run();
    assert_eq!(
        at("192.0.2.40").len(),
        2,
        "{}",
        fs::read_to_string(dhcpd.leases()).unwrap()
    );
    assert_eq!(
        add(wanted("late", "192.0.2.60", "aa:bb:cc:dd:ee:07", &[])),
        Ok(true)
    );
    // Removed by MAC address and by address; the second time there is nothing.
    let who = Identifier::Hardware("aa:bb:cc:dd:ee:01".into());
    assert_eq!(remove(PREFIX.into(), None, Some(who.clone())), Ok(true));
    assert_eq!(remove(PREFIX.into(), None, Some(who)), Ok(false));
    assert_eq!(at("192.0.2.40").len(), 1);
    assert_eq!(
        remove(PREFIX.into(), Some("192.0.2.40".into()), None),
        Ok(true)
    );
    assert!(at("192.0.2.40").is_empty());
    assert!(
        fs::read_to_string(dhcpd.leases())
            .unwrap()
            .contains("deleted;")
    );
}

/// dhcpd takes any name by OMAPI, and at its next start loses hosts whose names it cannot read in its own file.
#[test]
fn hosts_whose_names_are_taken_outlive_a_restart_of_dhcpd() {
    let mut dhcpd = match Dhcpd::start("hmac-sha256", "") {
        Ok(dhcpd) => dhcpd,
        Err(why) => skip!("{why}"),
    };
    let _host = host(&dhcpd, "hmac-sha256", SECRET, 7911);
    let mut taken = Vec::new();
    for (place, name) in [
        "a", "a.", "a-", "a_b.c_", "a.-1", "0x1", "1.2.3.4", "12ab.9-", "host", "if.e.1e3",
        "dynamic", "a--b", "_a", "a._b", "a..b", "-a", ".", "a..",
    ]
    .into_iter()
    .enumerate()
    {
        let address = format!("192.0.2.{}", 100 + place);
        let mac = format!("aa:bb:cc:dd:ee:{place:02x}");
        match add(wanted(name, &address, &mac, &BOOT)) {
            Ok(made) => taken.push((name, address, made)),
            Err(Error::Refused(why)) => {
                assert!(why.starts_with("Invalid host name"), "{name}: {why}");
            }
            Err(other) => panic!("{name}: {other:?}\n{}", dhcpd.log()),
        }
    }
    assert_eq!(taken.len(), 12, "{taken:?}");
    dhcpd.stop();
    dhcpd.run();
    for (name, address, _) in taken {
        assert_eq!(at(&address).len(), 1, "{name}\n{}", dhcpd.log());
    }
}

#[test]
fn a_wrong_key_is_named_as_such() {
    let dhcpd = match Dhcpd::start("hmac-sha256", "") {
        Ok(dhcpd) => dhcpd,
        Err(why) => skip!("{why}"),
    };
    let attempt = || add(wanted("k", "192.0.2.40", "aa:bb:cc:dd:ee:01", &[])).unwrap_err();
    let wrong_secret = host(&dhcpd, "hmac-sha256", b"another", 7911);
    let told = attempt();
    assert!(
        matches!(&told, Error::Refused(why) if why.contains("the secret in the file of `omapi_key`")),
        "{told:?}"
    );
    drop(wrong_secret);
    let no_key = host_without_key(&dhcpd);
    let told = attempt();
    assert!(
        matches!(&told, Error::Refused(why) if why.contains("set `omapi_key`")),
        "{told:?}"
    );
    drop(no_key);
    let _wrong_algorithm = host(&dhcpd, "hmac-md5", SECRET, 7911);
    let told = attempt();
    assert!(
        matches!(&told, Error::Refused(why) if why.contains(KEY_NAME)),
        "{told:?}"
    );
}

#[test]
fn a_server_that_hangs_or_talks_junk_is_told_in_bounded_time() {
    let dhcpd = match Dhcpd::start("hmac-sha256", "") {
        Ok(dhcpd) => dhcpd,
        Err(why) => skip!("{why}"),
    };
    let hanging = host(&dhcpd, "hmac-sha256", SECRET, 7911);
    dhcpd.signal(bulkhead_testkit::dhcpd::STOP);
    let begun = std::time::Instant::now();
    let told = add(wanted("k", "192.0.2.40", "aa:bb:cc:dd:ee:01", &[])).unwrap_err();
    assert!(matches!(told, Error::Timeout(_)), "{told:?}");
    assert!(begun.elapsed().as_secs() < 25);
    dhcpd.signal(bulkhead_testkit::dhcpd::CONTINUE);
    assert_eq!(
        add(wanted("k", "192.0.2.40", "aa:bb:cc:dd:ee:01", &[])),
        Ok(true)
    );
    drop(hanging);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let _junk = host(
        &dhcpd,
        "hmac-sha256",
        SECRET,
        listener.local_addr().unwrap().port(),
    );
    std::thread::spawn(move || {
        use std::io::Write as _;
        for stream in listener.incoming() {
            let _ = stream
                .unwrap()
                .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let told = add(wanted("j", "192.0.2.41", "aa:bb:cc:dd:ee:02", &[])).unwrap_err();
    assert!(
        matches!(&told, Error::Other(why) | Error::Unreachable(why) if why.contains("127.0.0.1")),
        "{told:?}"
    );
}

/// A real client gets the reserved address and its boot file.
#[test]
fn a_client_is_given_what_was_reserved() {
    let dhcpd = match Dhcpd::start("hmac-sha256", "") {
        Ok(dhcpd) => dhcpd,
        Err(why) => skip!("{why}"),
    };
    if bulkhead_testkit::skip::program("dhclient").is_none() {
        skip!("dhclient is not installed");
    }
    let _host = host(&dhcpd, "hmac-sha256", SECRET, 7911);
    let reservation = wanted(
        "c.example.com",
        "192.0.2.77",
        "02:00:00:00:00:77",
        &[
            ("hostname", "c.example.com"),
            ("filename", "pxelinux.0"),
            ("nextServer", "192.0.2.9"),
        ],
    );
    assert_eq!(add(reservation), Ok(true));
    let got = dhcpd.dhclient("02:00:00:00:00:77");
    for part in [
        "fixed-address 192.0.2.77;",
        "filename \"pxelinux.0\";",
        "routers 192.0.2.1",
    ] {
        assert!(got.contains(part), "no {part} in:\n{got}\n{}", dhcpd.log());
    }
    // One that nobody reserved gets a lease of the range, and we see it.
    let leased = dhcpd.dhclient("02:00:00:00:00:78");
    assert!(leased.contains("fixed-address 192.0.2.2"), "{leased}");
    let found = Isc::by_identifier(
        PREFIX.into(),
        Identifier::Hardware("02:00:00:00:00:78".into()),
    )
    .unwrap();
    assert!(
        matches!(found.as_slice(), [Entry::Lease(lease)] if lease.state.as_deref() == Some("active")),
        "{found:?}"
    );
    let refused = remove(
        PREFIX.into(),
        None,
        Some(Identifier::Hardware("02:00:00:00:00:78".into())),
    );
    assert!(
        matches!(&refused, Err(Error::NotDeletable(why)) if why.ends_with("/ 02:00:00:00:00:78 is static - unable to delete")),
        "{refused:?}"
    );
}
