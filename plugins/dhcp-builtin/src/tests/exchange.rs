//! The messages after the first four, and packets that are no proper ones.

use super::*;

#[test]
fn an_offer_of_the_instance_before_holds() {
    let mut site = site();
    site.boot(1);
    DhcpBuiltin::add(reservation(7, "192.0.2.102", &[])).unwrap();
    let kind = |site: &mut Site, number, address| site.select(number, address).unwrap().kind();
    assert_eq!(kind(&mut site, 2, "192.0.2.101"), MessageType::Ack);
    for (why, address) in [
        ("leased", "192.0.2.100"),
        ("reserved", "192.0.2.102"),
        ("in no range", "192.0.2.9"),
    ] {
        assert_eq!(kind(&mut site, 3, address), MessageType::Nak, "{why}");
    }
    let offer = site.discover(4).unwrap();
    assert_eq!(offer.address(), "192.0.2.103");
    let another = kind(&mut site, 3, "192.0.2.103");
    assert_eq!(another, MessageType::Nak, "offered to somebody else");
    let other = kind(&mut site, 4, "192.0.2.101");
    assert_eq!(other, MessageType::Nak, "it has another offer");
    // Whoever comes later was offered nothing.
    site.now += 60;
    assert_eq!(kind(&mut site, 5, "192.0.2.103"), MessageType::Nak);
}

#[test]
fn init_reboot_confirms_or_refuses() {
    let mut site = site();
    let address = site.boot(1);
    assert_eq!(
        site.send(&rebooting(1, &address)).unwrap().kind(),
        MessageType::Ack
    );
    let nak = site.send(&rebooting(1, "198.51.100.44")).unwrap();
    assert_eq!(
        (nak.kind(), nak.peer.as_str(), nak.address().as_str()),
        (MessageType::Nak, "255.255.255.255:68", "0.0.0.0")
    );
    assert_eq!(
        site.send(&rebooting(2, &address)).unwrap().kind(),
        MessageType::Nak,
        "somebody else's"
    );
    site.host
        .change(|host| host.setting("authoritative", false));
    site.server = Server::new(Config::of_settings().unwrap(), Book::load().unwrap());
    assert!(site.send(&rebooting(2, &address)).is_none());
}

#[test]
fn renewing_and_rebinding_extend_the_lease() {
    let mut site = site();
    let address = site.boot(1);
    site.now += 1800;
    let ack = site
        .send_at(
            "192.0.2.1/24",
            "192.0.2.1:67",
            &[bytes(&renewing(1, &address))],
        )
        .pop()
        .unwrap();
    assert_eq!(
        (ack.kind(), ack.peer.as_str(), ack.seconds()),
        (MessageType::Ack, "192.0.2.100:68", 3600)
    );
    assert_eq!(ack.message.ciaddr().to_string(), address);
    site.now += 3200;
    assert_eq!(site.send(&renewing(1, &address)).unwrap().seconds(), 3600);
    // A reservation that moved is told at once.
    DhcpBuiltin::add(reservation(1, "192.0.2.70", &[])).unwrap();
    assert_eq!(
        site.send(&renewing(1, &address)).unwrap().kind(),
        MessageType::Nak
    );
    assert_eq!(site.boot(1), "192.0.2.70");
    // A client that was carried to another network shouts there.
    let nak = site
        .send_at(
            "198.51.100.1/24",
            "255.255.255.255:67",
            &[bytes(&renewing(1, "192.0.2.70"))],
        )
        .pop()
        .unwrap();
    assert_eq!(nak.kind(), MessageType::Nak);
}

#[test]
fn asking_again_soon_costs_no_commit_and_tells_the_time_left() {
    let mut site = site();
    let address = site.boot(1);
    let revision = || store::get(SLOT, "l/c0000264").unwrap().unwrap().revision;
    let before = revision();
    site.now += 100;
    assert_eq!(site.send(&renewing(1, &address)).unwrap().seconds(), 3500);
    assert_eq!(revision(), before);
    site.now += 900;
    assert_eq!(site.send(&renewing(1, &address)).unwrap().seconds(), 3600);
    assert!(revision() > before);
}

#[test]
fn a_released_address_is_free_and_still_the_first_choice() {
    let mut site = site();
    let address = site.boot(1);
    let mut release = client(1, MessageType::Release);
    release.set_ciaddr(address.parse::<Ipv4Addr>().unwrap());
    let mut stranger = client(2, MessageType::Release);
    stranger.set_ciaddr(address.parse::<Ipv4Addr>().unwrap());
    assert!(site.send(&stranger).is_none());
    assert!(DhcpBuiltin::in_use(SUBNET.into(), vec![address.clone()]).is_ok());
    assert!(site.server.react(&[], NOW).is_empty());
    assert!(
        Book::load()
            .unwrap()
            .lease(address.parse().unwrap())
            .unwrap()
            .is_held(site.now)
    );
    assert!(site.send(&release).is_none());
    assert!(
        !Book::load()
            .unwrap()
            .lease(address.parse().unwrap())
            .unwrap()
            .is_held(site.now)
    );
    assert_eq!(site.discover(1).unwrap().address(), address);
}

#[test]
fn a_declined_address_rests() {
    let mut site = site();
    let address = site.boot(1);
    let mut decline = client(1, MessageType::Decline);
    decline
        .opts_mut()
        .insert(DhcpOption::RequestedIpAddress(address.parse().unwrap()));
    assert!(site.send(&decline).is_none());
    assert_eq!(site.boot(1), "192.0.2.101");
    site.now += 86_401;
    for number in 2..=4 {
        site.boot(number);
    }
    assert!(site.discover(9).is_some(), "four addresses again");
    // Nobody declines what is not theirs.
    let mut decline = client(9, MessageType::Decline);
    decline.opts_mut().insert(DhcpOption::RequestedIpAddress(
        "192.0.2.102".parse().unwrap(),
    ));
    site.send(&decline);
    assert_eq!(
        Book::load()
            .unwrap()
            .lease("192.0.2.102".parse().unwrap())
            .unwrap()
            .state,
        lease::State::Active
    );
}

#[test]
fn inform_tells_options_and_gives_no_address() {
    let mut site = site();
    let mut inform = client(1, MessageType::Inform);
    inform.set_ciaddr([192, 0, 2, 30]);
    let ack = site.send(&inform).unwrap();
    assert_eq!(
        (ack.kind(), ack.address().as_str(), ack.peer.as_str()),
        (MessageType::Ack, "0.0.0.0", "192.0.2.30:68")
    );
    assert!(
        ack.message
            .opts()
            .get(OptionCode::AddressLeaseTime)
            .is_none()
    );
    assert!(
        ack.message
            .opts()
            .get(OptionCode::DomainNameServer)
            .is_some()
    );
}

#[test]
fn an_answer_goes_to_no_made_up_relay_and_to_no_other_network() {
    let mut site = site();
    for relay in [
        "255.255.255.255",
        "224.0.0.1",
        "127.0.0.1",
        "198.51.100.0",
        "198.51.100.255",
        "203.0.113.1",
    ] {
        let mut message = client(1, MessageType::Discover);
        message.set_giaddr(relay.parse::<Ipv4Addr>().unwrap());
        assert!(site.send(&message).is_none(), "{relay}");
        // Not even where the subnet is named beside it.
        raw(&mut message, 118, &[198, 51, 100, 0]);
        let answer = site.send(&message).map(|it| it.peer);
        let real = (relay == "203.0.113.1").then(|| "203.0.113.1:67".to_owned());
        assert_eq!(answer, real, "{relay}");
    }
    for client_address in ["0.0.0.0", "203.0.113.9", "198.51.100.9", "255.255.255.255"] {
        let mut inform = client(1, MessageType::Inform);
        inform.set_ciaddr(client_address.parse::<Ipv4Addr>().unwrap());
        assert!(site.send(&inform).is_none(), "{client_address}");
    }
    // What is no answer to that address goes to the machine itself.
    let address = site.boot(2);
    for elsewhere in [
        "203.0.113.9",
        "224.0.0.1",
        "255.255.255.255",
        "192.0.2.255",
        "192.0.2.9",
    ] {
        for mut message in [
            client(2, MessageType::Discover),
            selecting(2, &address),
            rebooting(2, &address),
        ] {
            message.set_ciaddr(elsewhere.parse::<Ipv4Addr>().unwrap());
            let answer = site.send(&message).unwrap();
            assert_eq!(answer.peer, format!("{address}:68"), "{elsewhere}");
            assert!(answer.hardware.is_some(), "{elsewhere}");
        }
    }
}

#[test]
fn an_address_in_use_is_not_offered() {
    let mut site = site_of(
        host()
            .setting("probe_time", 100)
            .probe(|address| match address {
                "192.0.2.100" => Outcome::Answered,
                "192.0.2.101" => Outcome::Refused,
                _ => Outcome::Silent,
            }),
    );
    assert!(site.discover(1).is_none());
    assert!(site.discover(1).is_none());
    assert_eq!(site.boot(1), "192.0.2.102");
    assert_eq!(
        site.discover(1).unwrap().address(),
        "192.0.2.102",
        "its own is not asked for"
    );
}

#[test]
fn the_offer_of_another_server_frees_ours() {
    let mut site = site();
    site.discover(1).unwrap();
    let mut request = selecting(1, "192.0.2.7");
    request
        .opts_mut()
        .insert(DhcpOption::ServerIdentifier("192.0.2.2".parse().unwrap()));
    assert!(site.send(&request).is_none());
    for number in 2..=5 {
        assert!(site.discover(number).is_some());
    }
}

#[test]
fn one_machine_cannot_flood() {
    let mut site = site();
    let packets = vec![bytes(&client(1, MessageType::Discover)); 100];
    assert_eq!(
        site.send_at("192.0.2.1/24", "255.255.255.255:67", &packets)
            .len(),
        40
    );
    assert!(site.discover(2).is_some(), "others do not notice");
    site.now += 10;
    assert!(site.discover(1).is_some());
}

#[test]
fn the_broadcast_flag_and_odd_hardware_are_answered_to_everybody() {
    let mut site = site();
    let mut message = client(1, MessageType::Discover);
    message.set_flags(Flags::default().set_broadcast());
    let offer = site.send(&message).unwrap();
    assert_eq!(
        (offer.peer.as_str(), offer.hardware),
        ("255.255.255.255:68", None)
    );
    assert!(offer.message.flags().broadcast());
}

#[test]
fn a_strange_option_does_not_lose_the_packet() {
    let mut site = site();
    let mut message = client(1, MessageType::Discover);
    raw(&mut message, 12, b"\xff\xfe host");
    raw(&mut message, 93, b"\0");
    raw(&mut message, 97, b"\0sixteen-bytes-16");
    let mut packet = bytes(&message);
    packet.resize(1200, 0);
    assert!(
        site.send_at("192.0.2.1/24", "255.255.255.255:67", &[packet])
            .pop()
            .is_some()
    );
    for length in [0, 1, 235, 239, 240, 243] {
        let cut = bytes(&message)[..length.min(bytes(&message).len())].to_vec();
        assert!(
            site.send_at("192.0.2.1/24", "255.255.255.255:67", &[cut])
                .is_empty()
        );
    }
}

proptest! {
    #[test]
    fn no_packet_breaks_the_server(noise in proptest::collection::vec(any::<u8>(), 0..400), places in proptest::collection::vec((0_usize..400, any::<u8>()), 0..12), whole in any::<bool>()) {
        let mut site = site();
        let mut packet = if whole { bytes(&rebooting(1, "192.0.2.100")) } else { Vec::new() };
        packet.extend(noise);
        for (at, byte) in places {
            if let Some(place) = packet.get_mut(at) {
                *place = byte;
            }
        }
        let discover = bytes(&client(2, MessageType::Discover));
        let back = site.send_at("192.0.2.1/24", "255.255.255.255:67", &[packet, discover]);
        prop_assert!(back.iter().any(|it| it.message.chaddr() == mac(2)));
    }
}

/// A client that says nothing takes 576 bytes of IP (RFC 2131 section 2). What has no room behind the cookie stands in `file` and `sname`.
#[test]
fn no_answer_is_larger_than_its_client_takes() {
    let digits = |bytes: usize| "ab".repeat(bytes);
    let subnet = format!(
        "192.0.2.0/24 range=192.0.2.100-192.0.2.103 option-224={} option-225={} option-226={} option-227={} option-228={}",
        digits(200),
        digits(100),
        digits(60),
        digits(60),
        digits(70)
    );
    let mut site = site_of(host().setting("subnets", texts(&[&subnet])));
    let mut answer = |largest: Option<u16>| {
        let mut message = client(1, MessageType::Discover);
        if let Some(largest) = largest {
            raw(&mut message, 57, &largest.to_be_bytes());
        }
        site.send(&message).unwrap().bytes
    };
    let option = |code: u8, bytes: u8| {
        let mut option = vec![code, bytes];
        option.resize(usize::from(bytes) + 2, 0xab);
        option
    };
    let holds =
        |place: &[u8], option: &[u8]| place.windows(option.len()).any(|window| window == option);
    for largest in [None, Some(100), Some(576)] {
        let bytes = answer(largest);
        assert!(bytes.len() <= 548, "{}", bytes.len());
        let (name, file, rest) = (&bytes[44..108], &bytes[108..236], &bytes[240..]);
        assert!(holds(rest, &option(224, 200)) && holds(rest, &option(226, 60)));
        assert!(holds(rest, &[52, 1, 3]));
        assert_eq!(file[..103], [option(225, 100), vec![255]].concat()[..]);
        assert_eq!(name[..63], [option(227, 60), vec![255]].concat()[..]);
        assert!(!holds(&bytes, &option(228, 70)[..3]));
    }
    let bytes = answer(Some(1500));
    assert_eq!(bytes[44..236], [0; 192]);
    for (code, length) in [(224, 200), (225, 100), (226, 60), (227, 60), (228, 70)] {
        assert!(holds(&bytes[240..], &option(code, length)));
    }
    // And never more than a frame holds.
    assert!(answer(Some(u16::MAX)).len() <= 1472);
}
