//! What Foreman sees and changes, and that service and provider know the same.

use super::*;

fn shown(entries: &[Entry]) -> Vec<String> {
    let line = |entry: &Entry| match entry {
        Entry::Reservation(it) => format!("reservation {} {}", it.address, it.name),
        Entry::Lease(it) => format!(
            "lease {} {}",
            it.address,
            it.state.as_deref().unwrap_or_default()
        ),
    };
    entries.iter().map(line).collect()
}

#[test]
fn foreman_sees_subnets_reservations_and_leases() {
    let mut site = site();
    site.now = now();
    let subnets = DhcpBuiltin::subnets().unwrap();
    assert_eq!(
        (
            subnets[0].prefix.as_str(),
            subnets[0].ranges[0].first.as_str()
        ),
        (SUBNET, "192.0.2.100")
    );
    let names: Vec<&str> = subnets[0]
        .options
        .iter()
        .map(|it| it.name.as_str())
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
    let wanted = reservation(
        7,
        "192.0.2.50",
        &[("hostname", "h7"), ("filename", "pxelinux.0")],
    );
    assert!(DhcpBuiltin::add(wanted.clone()).unwrap());
    assert!(!DhcpBuiltin::add(wanted.clone()).unwrap(), "an equal one");
    assert!(matches!(
        DhcpBuiltin::add(reservation(7, "192.0.2.51", &[])),
        Err(Error::Conflict(_))
    ));
    // A bond: another card, the same address. Anybody else's is a conflict.
    assert!(matches!(
        DhcpBuiltin::add(reservation(8, "192.0.2.50", &[])),
        Err(Error::Conflict(_))
    ));
    assert!(DhcpBuiltin::add(bonded(8, 7, "192.0.2.50")).unwrap());
    let bond = DhcpBuiltin::by_identifier(SUBNET.into(), bonded(8, 7, "").identifier).unwrap();
    assert!(
        matches!(&bond[0], Entry::Reservation(it) if it.options.is_empty()),
        "whose card it is beside is no option: {bond:?}"
    );
    let leased = site.boot(1);
    let page = DhcpBuiltin::entries(SUBNET.into(), None, 2).unwrap();
    assert_eq!(
        shown(&page.entries),
        [
            "reservation 192.0.2.50 h7.example.com",
            "reservation 192.0.2.50 h8.example.com"
        ]
    );
    let page = DhcpBuiltin::entries(SUBNET.into(), page.next, 2).unwrap();
    assert_eq!(
        (shown(&page.entries), page.next),
        (vec!["lease 192.0.2.100 active".to_owned()], None)
    );
    assert_eq!(
        DhcpBuiltin::by_address(SUBNET.into(), "192.0.2.50".into())
            .unwrap()
            .len(),
        2
    );
    let found = DhcpBuiltin::by_identifier(SUBNET.into(), wanted.identifier.clone()).unwrap();
    assert!(matches!(&found[0], Entry::Reservation(it) if it.options == wanted.options));
    let asked = ["192.0.2.50", "192.0.2.51", leased.as_str()].map(str::to_owned);
    assert_eq!(
        DhcpBuiltin::in_use(SUBNET.into(), asked.into()).unwrap(),
        [true, false, true]
    );
    assert!(matches!(
        DhcpBuiltin::remove(SUBNET.into(), Some(leased), None),
        Err(Error::NotDeletable(_))
    ));
    assert!(matches!(
        DhcpBuiltin::entries("192.0.2.0/25".into(), None, 2),
        Err(Error::UnknownSubnet)
    ));
    assert!(DhcpBuiltin::remove(SUBNET.into(), None, Some(wanted.identifier.clone())).unwrap());
    assert!(!DhcpBuiltin::remove(SUBNET.into(), None, Some(wanted.identifier)).unwrap());
    assert!(
        DhcpBuiltin::add(wanted_again()).unwrap(),
        "its identifier is free again"
    );
    for bad in ["192.0.2.0", "192.0.2.255", "192.0.3.1"] {
        assert!(
            matches!(
                DhcpBuiltin::add(reservation(9, bad, &[])),
                Err(Error::Refused(_))
            ),
            "{bad}"
        );
    }
}

/// Another card of the machine that has that one.
fn bonded(number: u8, other: u8, address: &str) -> Reservation {
    Reservation {
        options: vec![Shown {
            name: "related_macs".into(),
            value: OptionValue::Texts(vec![identity::colons(&mac(other))]),
        }],
        ..reservation(number, address, &[])
    }
}

fn wanted_again() -> Reservation {
    reservation(7, "192.0.2.51", &[])
}

#[test]
fn the_next_host_may_have_the_address_at_once() {
    let mut site = site();
    site.now = now();
    DhcpBuiltin::add(reservation(7, "192.0.2.50", &[])).unwrap();
    assert_eq!(site.boot(7), "192.0.2.50");
    DhcpBuiltin::remove(SUBNET.into(), Some("192.0.2.50".into()), None).unwrap();
    DhcpBuiltin::add(reservation(8, "192.0.2.50", &[])).unwrap();
    assert_eq!(site.boot(8), "192.0.2.50");
}

#[test]
fn a_reserved_address_that_its_machine_declined_rests_until_it_is_reserved_anew() {
    let mut site = site();
    site.now = now();
    DhcpBuiltin::add(reservation(7, "192.0.2.50", &[])).unwrap();
    assert_eq!(site.boot(7), "192.0.2.50");
    let mut decline = client(7, MessageType::Decline);
    decline.opts_mut().insert(DhcpOption::RequestedIpAddress(
        "192.0.2.50".parse().unwrap(),
    ));
    site.send(&decline);
    assert!(site.discover(7).is_none());
    let told = site.host.logs().pop().unwrap().1;
    assert!(
        told.contains("found in use, and rests for 86400 s"),
        "{told}"
    );
    DhcpBuiltin::remove(SUBNET.into(), Some("192.0.2.50".into()), None).unwrap();
    DhcpBuiltin::add(reservation(7, "192.0.2.50", &[])).unwrap();
    assert_eq!(site.boot(7), "192.0.2.50");
}

#[test]
fn a_bond_shares_its_address() {
    let mut site = site();
    DhcpBuiltin::add(reservation(7, "192.0.2.50", &[])).unwrap();
    DhcpBuiltin::add(bonded(8, 7, "192.0.2.50")).unwrap();
    assert_eq!(site.boot(7), "192.0.2.50");
    assert_eq!(site.boot(8), "192.0.2.50");
    assert_eq!(site.boot(7), "192.0.2.50");
    // One card goes, and the address is still guarded; with the last one it is free.
    let remove = |number| {
        DhcpBuiltin::remove(
            SUBNET.into(),
            None,
            Some(reservation(number, "", &[]).identifier),
        )
    };
    assert!(remove(7).unwrap());
    assert!(matches!(
        DhcpBuiltin::add(reservation(9, "192.0.2.50", &[])),
        Err(Error::Conflict(_))
    ));
    assert!(remove(8).unwrap());
    let keys = |prefix: &str| store::scan(SLOT, prefix, None, 9).unwrap().len();
    assert_eq!((keys("a/"), keys("i/"), keys("r/")), (0, 0, 0));
    assert!(DhcpBuiltin::add(reservation(9, "192.0.2.50", &[])).unwrap());
}

#[test]
fn a_book_that_followed_is_the_book_that_loads() {
    let mut site = site_of(host().setting("flood_limit", 10_000));
    for round in 0..400_u32 {
        let number = u8::try_from(round * 7 % 23).unwrap();
        match round % 5 {
            0 => drop(DhcpBuiltin::add(reservation(
                number,
                &format!("192.0.2.{}", 50 + round % 60),
                &[],
            ))),
            1 => drop(DhcpBuiltin::remove(
                SUBNET.into(),
                None,
                Some(reservation(number, "192.0.2.50", &[]).identifier),
            )),
            2 => drop(site.send(&renewing(number, &format!("192.0.2.{}", 100 + round % 4)))),
            _ => {
                if let Some(offer) = site.discover(number) {
                    site.select(number, &offer.address());
                }
            }
        }
        site.now += 37;
    }
    let mut followed = BOOK.take().unwrap();
    followed.follow().unwrap();
    let loaded = Book::load().unwrap();
    let all = |book: &Book| {
        let (from, to) = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);
        let mut lines: Vec<String> = book
            .reserved_between(from, to)
            .map(|it| format!("{it:?}"))
            .collect();
        lines.sort();
        lines.extend(book.leases_between(from, to).map(|it| format!("{it:?}")));
        let ended = book.ended((i64::MIN, from), i64::MAX);
        lines.extend(ended.map(|it| format!("{it:?}")));
        lines
    };
    assert_eq!(all(&followed), all(&loaded));
}
