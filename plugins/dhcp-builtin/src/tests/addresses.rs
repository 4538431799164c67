//! Which address a machine gets, and that nobody else has it.

use super::*;

#[test]
fn a_machine_gets_an_address_and_what_belongs_to_it() {
    let mut site = site();
    let offer = site.discover(1).unwrap();
    assert_eq!(
        (offer.kind(), offer.address().as_str()),
        (MessageType::Offer, "192.0.2.100")
    );
    assert_eq!(
        (offer.peer.as_str(), offer.hardware.as_deref()),
        ("192.0.2.100:68", Some("52:54:00:00:00:01"))
    );
    let ack = site.select(1, "192.0.2.100").unwrap();
    let options = ack.message.opts();
    let expected = [
        DhcpOption::ServerIdentifier("192.0.2.1".parse().unwrap()),
        DhcpOption::AddressLeaseTime(3600),
        DhcpOption::Renewal(1800),
        DhcpOption::Rebinding(3150),
        DhcpOption::SubnetMask("255.255.255.0".parse().unwrap()),
        DhcpOption::Router(vec!["192.0.2.1".parse().unwrap()]),
        DhcpOption::DomainNameServer(vec!["192.0.2.53".parse().unwrap()]),
        DhcpOption::DomainName("example.com".into()),
        DhcpOption::InterfaceMtu(1400),
    ];
    for option in expected {
        assert_eq!(options.get(OptionCode::from(&option)), Some(&option));
    }
    assert_eq!(ack.message.xid(), 8);
    assert_eq!(ack.message.chaddr(), mac(1));
}

#[test]
fn an_acknowledged_lease_survives_a_restart() {
    let mut site = site();
    let address = site.boot(1);
    site.server = Server::new(Config::of_settings().unwrap(), Book::load().unwrap());
    assert_eq!(site.discover(2).unwrap().address(), "192.0.2.101");
    assert_eq!(site.boot(1), address);
}

#[test]
fn no_acknowledgement_leaves_without_its_commit() {
    let mut site = site();
    let address = site.discover(1).unwrap().address();
    // The slot is taken away: nothing can be written, and asking again does not help.
    site.host.change(|_| Host::new());
    assert!(site.select(1, &address).is_none());
    assert!(site.select(1, &address).is_none());
    assert!(site.discover(1).is_none());
    assert!(
        site.host
            .logs()
            .iter()
            .any(|(_, line)| line.contains("denied"))
    );
    site.host.change(|_| host());
    assert_eq!(site.boot(1), address);
}

#[test]
fn one_address_is_never_offered_twice_at_a_time() {
    let mut site = site();
    let discovers: Vec<Vec<u8>> = (1..=6)
        .map(|it| bytes(&client(it, MessageType::Discover)))
        .collect();
    let offers = site.send_at("192.0.2.1/24", "255.255.255.255:67", &discovers);
    let mut addresses: Vec<String> = offers.iter().map(Back::address).collect();
    assert_eq!(addresses.len(), 4, "the range has four");
    addresses.dedup();
    assert_eq!(addresses.len(), 4);
    // The same client is offered the same again.
    assert_eq!(site.discover(3).unwrap().address(), addresses[2]);
    assert!(site.discover(6).is_none());
    site.now += 61;
    assert!(site.discover(6).is_some(), "the offers ended");
}

#[test]
fn the_address_of_this_server_or_another_is_nobodys() {
    let whole = "192.0.2.0/29 range=192.0.2.1-192.0.2.6 routers=192.0.2.2 dns=192.0.2.3 ntp=192.0.2.4 next-server=192.0.2.5";
    let mut site = site_of(host().setting("subnets", texts(&[whole])));
    assert_eq!(site.boot(1), "192.0.2.6");
    assert!(site.discover(2).is_none(), "there is one");
    let all: Vec<String> = (2..=6).map(|it| format!("192.0.2.{it}")).collect();
    let used = DhcpBuiltin::in_use("192.0.2.0/29".into(), all).unwrap();
    assert_eq!(
        used,
        [true; 4].into_iter().chain([false]).collect::<Vec<_>>()
    );
    // Not even to whoever asks for it, but as Foreman says.
    for address in ["192.0.2.1", "192.0.2.2"] {
        let ack = site.select(3, address).unwrap();
        assert_eq!(ack.kind(), MessageType::Nak, "{address}");
    }
    let mut wanted = reservation(4, "192.0.2.3", &[]);
    wanted.subnet = "192.0.2.0/29".into();
    DhcpBuiltin::add(wanted).unwrap();
    assert_eq!(site.boot(4), "192.0.2.3");
}

#[test]
fn the_longest_ended_lease_is_used_first() {
    let mut site = site();
    for number in 1..=4 {
        site.boot(number);
        site.now += 1;
    }
    assert!(site.discover(9).is_none());
    site.now += 3600;
    assert_eq!(site.discover(9).unwrap().address(), "192.0.2.100");
    // Who comes back gets what it had.
    assert_eq!(site.discover(3).unwrap().address(), "192.0.2.102");
}

#[test]
fn a_reservation_is_served_at_once_and_to_nobody_else() {
    let mut site = site();
    assert!(
        DhcpBuiltin::add(reservation(
            7,
            "192.0.2.50",
            &[
                ("hostname", "h7.example.com"),
                ("filename", "grub2/grubx64.efi"),
                ("nextServer", "192.0.2.9")
            ]
        ))
        .unwrap()
    );
    let offer = site.discover(7).unwrap();
    assert_eq!(
        (offer.address().as_str(), offer.file().as_str()),
        ("192.0.2.50", "grub2/grubx64.efi")
    );
    assert_eq!(offer.message.siaddr().to_string(), "192.0.2.9");
    assert_eq!(
        offer.message.opts().get(OptionCode::Hostname),
        Some(&DhcpOption::Hostname("h7.example.com".into()))
    );
    assert_eq!(
        offer.message.opts().get(OptionCode::TFTPServerName),
        Some(&DhcpOption::TFTPServerName(b"192.0.2.9".to_vec()))
    );
    let mut wish = client(8, MessageType::Discover);
    wish.opts_mut().insert(DhcpOption::RequestedIpAddress(
        "192.0.2.50".parse().unwrap(),
    ));
    assert_eq!(site.send(&wish).unwrap().address(), "192.0.2.100");
    // An address inside the range that is reserved is not handed out.
    DhcpBuiltin::add(reservation(9, "192.0.2.101", &[])).unwrap();
    site.boot(8);
    assert_eq!(site.boot(10), "192.0.2.102");
}

#[test]
fn a_reservation_is_found_whatever_identifier_comes_along() {
    let mut site = site();
    DhcpBuiltin::add(reservation(7, "192.0.2.50", &[])).unwrap();
    for identifier in [
        &b"\x00uuid-of-firmware"[..],
        b"\xff\x00\x01os",
        b"\x01RT\0\0\0\x07",
    ] {
        let mut message = client(7, MessageType::Discover);
        raw(&mut message, 61, identifier);
        let offer = site.send(&message).unwrap();
        assert_eq!(offer.address(), "192.0.2.50");
        // RFC 6842: the identifier comes back.
        assert_eq!(
            offer.message.opts().get(OptionCode::ClientIdentifier),
            Some(&DhcpOption::ClientIdentifier(identifier.to_vec()))
        );
    }
    // And a dynamic lease too: firmware and system are one machine.
    let address = site.boot(1);
    let mut message = client(1, MessageType::Discover);
    raw(&mut message, 61, b"\xff\x00\x01another");
    assert_eq!(site.send(&message).unwrap().address(), address);
}

#[test]
fn leases_go_by_identifier_where_the_operator_says_so() {
    let mut site = site_of(host().setting("identity", "client-id"));
    let mut discover = |identifier: &[u8]| {
        let mut message = client(1, MessageType::Discover);
        raw(&mut message, 61, identifier);
        site.send(&message).unwrap().address()
    };
    assert_eq!(
        (discover(b"\x00a").as_str(), discover(b"\x00b").as_str()),
        ("192.0.2.100", "192.0.2.101")
    );
}

/// Firmware takes the lease of a reserved address, and the system that it boots is told the same, though leases go by identifier.
#[test]
fn a_reserved_address_is_the_machines_whatever_leases_go_by() {
    let mut site = site_of(host().setting("identity", "client-id"));
    let mut boot = |identifier: &[u8]| {
        let mut message = client(7, MessageType::Discover);
        raw(&mut message, 61, identifier);
        let address = site.send(&message)?.address();
        let mut message = selecting(7, &address);
        raw(&mut message, 61, identifier);
        let ack = site.send(&message)?;
        assert_eq!(ack.kind(), MessageType::Ack);
        Some(ack.address())
    };
    // A machine that was there before it was reserved for keeps what it has.
    assert_eq!(boot(b"\x00firmware").as_deref(), Some("192.0.2.100"));
    DhcpBuiltin::add(reservation(7, "192.0.2.100", &[])).unwrap();
    for identifier in [&b"\x00firmware"[..], b"\x00system", b"\x00firmware"] {
        assert_eq!(boot(identifier).as_deref(), Some("192.0.2.100"));
    }
}

#[test]
fn an_infiniband_port_is_known_by_the_end_of_its_address() {
    let mut site = site();
    let mut wanted = reservation(1, "192.0.2.60", &[]);
    wanted.identifier =
        Identifier::Hardware("80:00:02:08:fe:80:00:00:00:00:00:00:24:8a:07:03:00:11:22:33".into());
    DhcpBuiltin::add(wanted).unwrap();
    let mut message = client(1, MessageType::Discover);
    message.set_htype(HType::Unknown(32)).set_chaddr(&[]);
    raw(
        &mut message,
        61,
        b"\xff\x00\x00\x00\x00\x00\x02\x00\x00\x02\xc9\x00\x24\x8a\x07\x03\x00\x11\x22\x33",
    );
    let offer = site.send(&message).unwrap();
    assert_eq!(
        (offer.address().as_str(), offer.peer.as_str()),
        ("192.0.2.60", "255.255.255.255:68")
    );
}
