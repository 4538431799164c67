//! Relays, and subnets that share a wire.

use super::*;

#[test]
fn a_relay_gets_its_option_back_as_it_was() {
    let mut site = site();
    // Sub-options in no order, twice, and one that nobody knows: bytes are bytes.
    let relayed = b"\x02\x03abc\x01\x04eth0\x01\x01x\x97\x02\0\0";
    let mut message = client(1, MessageType::Discover);
    message.set_giaddr([198, 51, 100, 1]).set_hops(1);
    let mut packet = bytes(&message);
    assert_eq!(packet.pop(), Some(255));
    packet.extend([82, u8::try_from(relayed.len()).unwrap()]);
    packet.extend(relayed);
    packet.push(255);
    let back = site
        .send_at("192.0.2.1/24", "192.0.2.1:67", &[packet])
        .pop()
        .unwrap();
    assert_eq!(
        (back.address().as_str(), back.peer.as_str(), back.hardware),
        ("198.51.100.10", "198.51.100.1:67", None)
    );
    let end = back.bytes.iter().rposition(|byte| *byte == 255).unwrap();
    assert_eq!(back.bytes[end - relayed.len()..end], relayed[..]);
    assert_eq!(back.message.giaddr().to_string(), "198.51.100.1");
}

#[test]
fn a_relay_may_name_the_subnet_and_the_server() {
    let mut site = site();
    let mut message = client(1, MessageType::Discover);
    message.set_giaddr([203, 0, 113, 1]);
    assert!(site.send(&message).is_none(), "an unknown subnet");
    raw(
        &mut message,
        82,
        &[5, 4, 198, 51, 100, 0, 11, 4, 198, 51, 100, 1],
    );
    let offer = site.send(&message).unwrap();
    assert_eq!(offer.address(), "198.51.100.10");
    assert_eq!(
        offer.message.opts().get(OptionCode::ServerIdentifier),
        Some(&DhcpOption::ServerIdentifier(
            "198.51.100.1".parse().unwrap()
        ))
    );
}

/// One wire with two subnets, and a third that is elsewhere.
fn shared_site() -> Site {
    site_of(host().setting(
        "subnets",
        texts(&[
            "192.0.2.0/24 range=192.0.2.100-192.0.2.101 routers=192.0.2.1 lease=3600 shared=hall",
            "198.51.100.0/25 range=198.51.100.10-198.51.100.10 routers=198.51.100.1 lease=600 shared=hall",
            "203.0.113.0/24 range=203.0.113.10-203.0.113.90",
        ]),
    ))
}

/// Mask, router and time of the second subnet there.
fn is_of_second(back: &Back) -> bool {
    let options = back.message.opts();
    let expected = [
        DhcpOption::SubnetMask("255.255.255.128".parse().unwrap()),
        DhcpOption::Router(vec!["198.51.100.1".parse().unwrap()]),
    ];
    back.seconds() == 600
        && expected
            .iter()
            .all(|it| options.get(OptionCode::from(it)) == Some(it))
}

#[test]
fn subnets_that_share_a_wire_lend_each_other_their_addresses() {
    let mut site = shared_site();
    assert_eq!(
        (site.boot(1).as_str(), site.boot(2).as_str()),
        ("192.0.2.100", "192.0.2.101")
    );
    let offer = site.discover(3).unwrap();
    assert_eq!(offer.address(), "198.51.100.10");
    assert!(is_of_second(&offer), "{offer:?}");
    let ack = site.select(3, "198.51.100.10").unwrap();
    assert!(
        ack.kind() == MessageType::Ack && is_of_second(&ack),
        "{ack:?}"
    );
    // It boots again, asks for more time, and its address is still good on this wire.
    let again = site.send(&rebooting(3, "198.51.100.10")).unwrap();
    assert_eq!(again.kind(), MessageType::Ack);
    let renewed = site.send_at(
        "192.0.2.1/24",
        "192.0.2.1:67",
        &[bytes(&renewing(3, "198.51.100.10"))],
    );
    assert!(is_of_second(&renewed[0]), "{renewed:?}");
    let mut inform = client(3, MessageType::Inform);
    inform.set_ciaddr([198, 51, 100, 10]);
    let told = site.send(&inform).unwrap();
    let mask = told.message.opts().get(OptionCode::SubnetMask).cloned();
    assert_eq!(
        mask,
        Some(DhcpOption::SubnetMask("255.255.255.128".parse().unwrap()))
    );
    // The third subnet is no part of it.
    assert!(site.discover(4).is_none());
    // Who ended there is the next that lends, though the client arrived in the first.
    let mut release = client(3, MessageType::Release);
    release.set_ciaddr([198, 51, 100, 10]);
    assert!(site.send(&release).is_none());
    site.now += 1;
    assert_eq!(site.boot(4), "198.51.100.10");
}

#[test]
fn a_wire_without_a_free_address_is_told_but_not_with_every_machine() {
    let mut site = shared_site();
    for number in 1..=3 {
        site.boot(number);
    }
    let told = |site: &Site| {
        let full = "192.0.2.0/24 has no free address left for hw/52:54:00:00:00:";
        let logs = site.host.logs();
        logs.iter().filter(|(_, line)| line.contains(full)).count()
    };
    for number in 4..=60 {
        assert!(site.discover(number).is_none());
        site.now += i64::from(number % 2);
    }
    assert_eq!(told(&site), 1);
    site.now += 300;
    // There was one for a while, and no more.
    let mut release = client(3, MessageType::Release);
    release.set_ciaddr([198, 51, 100, 10]);
    site.send(&release);
    site.boot(61);
    assert!(site.discover(62).is_none());
    assert_eq!(told(&site), 1);
    site.now += 290;
    assert!(site.discover(63).is_none());
    assert_eq!(told(&site), 2);
}

#[test]
fn a_wire_in_no_subnet_is_told_once() {
    let mut site = site();
    let mut relayed = client(1, MessageType::Discover);
    relayed.set_giaddr([203, 0, 113, 1]);
    let shout = bytes(&client(1, MessageType::Discover));
    for _ in 0..3 {
        assert!(site.send(&relayed).is_none());
        let answers = site.send_at(
            "203.0.113.9/24",
            "255.255.255.255:67",
            std::slice::from_ref(&shout),
        );
        assert!(answers.is_empty());
    }
    let logs = site.host.logs();
    let told: Vec<_> = logs
        .iter()
        .filter(|(_, line)| line.contains("in none of the `subnets`"))
        .map(|(_, line)| line.as_str())
        .collect();
    assert_eq!(
        told,
        [
            "a relay has the address 203.0.113.1, which is in none of the `subnets`: machines there get no answer",
            "eth1 has the address 203.0.113.9, which is in none of the `subnets`: machines there get no answer",
        ]
    );
    // Whoever sends from ever new addresses does not fill the log.
    for last in 0..=255 {
        relayed.set_giaddr([203, 0, 114, last]);
        site.send(&relayed);
    }
    assert!(site.host.logs().len() < logs.len() + 32);
}

#[test]
fn a_subnet_of_reservations_only_is_never_full() {
    let mut site = site_of(host().setting("subnets", texts(&[SUBNET])));
    assert!(site.discover(1).is_none());
    assert!(site.host.logs().is_empty());
}

#[test]
fn a_reservation_in_any_subnet_of_a_wire_is_served() {
    let mut site = shared_site();
    let mut wanted = reservation(7, "198.51.100.77", &[]);
    wanted.subnet = "198.51.100.0/25".into();
    assert_eq!(DhcpBuiltin::add(wanted), Ok(true));
    assert!(is_of_second(&site.discover(7).unwrap()));
    assert_eq!(site.boot(7), "198.51.100.77");
    // An address of the first subnet is not its own, and one of another wire neither.
    for other in ["192.0.2.100", "203.0.113.10"] {
        let refused = site.send(&rebooting(7, other)).unwrap();
        assert_eq!(refused.kind(), MessageType::Nak, "{other}");
    }
    // With one in each, that of the subnet where it arrives is its own.
    DhcpBuiltin::add(reservation(7, "192.0.2.77", &[])).unwrap();
    assert_eq!(site.boot(7), "192.0.2.77");
    let mut relayed = client(7, MessageType::Discover);
    relayed.set_giaddr([198, 51, 100, 2]);
    assert_eq!(site.send(&relayed).unwrap().address(), "198.51.100.77");
    // A reservation of another wire is of no use here.
    let mut elsewhere = reservation(8, "203.0.113.77", &[]);
    elsewhere.subnet = "203.0.113.0/24".into();
    DhcpBuiltin::add(elsewhere).unwrap();
    assert_eq!(site.boot(8), "192.0.2.100");
}

#[test]
fn many_ended_leases_elsewhere_hide_no_free_address() {
    let mut site = site();
    let leased = |number: u16| lease::Lease {
        address: Ipv4Addr::from(0xc633_6400 + u32::from(number)),
        client: identity::Client::Hardware(vec![2, 0, 0, 0, 1, u8::try_from(number).unwrap()]),
        host_name: String::new(),
        starts: NOW - 900,
        ends: NOW - 800,
        state: lease::State::Free,
    };
    // Those of the other subnet ended long before those of this one: 191 of them, and as many that were never in a range.
    for number in 0..=255 {
        let change = leased(number).change();
        store::apply(SLOT, &[change]).unwrap();
    }
    for number in 0..=40 {
        let lease = lease::Lease {
            address: Ipv4Addr::new(203, 0, 113, number),
            ..leased(u16::from(number))
        };
        store::apply(SLOT, &[lease.change()]).unwrap();
    }
    for number in 1..=4 {
        site.boot(number);
    }
    site.now += 3601;
    assert_eq!(site.boot(9), "192.0.2.100");
}

#[test]
fn an_address_that_was_reserved_is_handed_out_again() {
    let mut site = site();
    DhcpBuiltin::add(reservation(7, "192.0.2.103", &[])).unwrap();
    for number in 1..=3 {
        site.boot(number);
    }
    assert!(site.discover(4).is_none());
    DhcpBuiltin::remove(SUBNET.into(), Some("192.0.2.103".into()), None).unwrap();
    site.now += 10;
    assert_eq!(site.boot(4), "192.0.2.103");
}
