//! What is told beside another server (ProxyDHCP).

use super::*;

/// What comes back from a slot where only boot files are told.
fn proxied(site: &mut Site, slot: &str, message: &Message) -> Option<Back> {
    let peer = match slot {
        "boot" => "192.0.2.33:68",
        _ => "0.0.0.0:68",
    };
    let datagram = Datagram {
        slot: slot.into(),
        transport: Transport::Udp,
        peer: peer.into(),
        local: "192.0.2.1:4011".into(),
        port: Some(Port {
            interface: "eth1".into(),
            address: "192.0.2.1/24".into(),
            hardware: None,
        }),
        bytes: bytes(message),
    };
    let reaction = site.server.react(&[datagram], site.now).pop()?;
    let Reaction::Send(sent) = reaction else {
        panic!("{reaction:?}")
    };
    assert_eq!(sent.slot, slot);
    Some(Back {
        message: Message::decode(&mut Decoder::new(&sent.bytes)).unwrap(),
        bytes: sent.bytes,
        peer: sent.peer,
        hardware: sent.port.unwrap().hardware,
    })
}

fn firmware(kind: MessageType, class: &str, architecture: u8) -> Message {
    let mut message = client(1, kind);
    raw(&mut message, 60, class.as_bytes());
    raw(&mut message, 93, &[0, architecture]);
    message
}

#[test]
fn beside_another_server_firmware_is_told_what_to_boot_and_nothing_else() {
    let mut site = site();
    let discover = firmware(MessageType::Discover, "PXEClient:Arch:00007", 7);
    let offer = proxied(&mut site, "proxy", &discover).unwrap();
    assert_eq!(
        (
            offer.kind(),
            offer.address().as_str(),
            offer.file().as_str()
        ),
        (MessageType::Offer, "0.0.0.0", "grub2/grubx64.efi")
    );
    assert_eq!(
        (offer.peer.as_str(), offer.hardware.as_deref()),
        ("255.255.255.255:68", None)
    );
    assert_eq!(offer.message.siaddr().to_string(), "192.0.2.1");
    let options = offer.message.opts();
    assert_eq!(
        options.get(OptionCode::ClassIdentifier),
        Some(&DhcpOption::ClassIdentifier(b"PXEClient".to_vec()))
    );
    let vendor = |back: &Back| match back.message.opts().get(OptionCode::VendorExtensions) {
        Some(DhcpOption::VendorExtensions(bytes)) => bytes.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(vendor(&offer), [6, 1, 8, 255]);
    for lease in [
        OptionCode::AddressLeaseTime,
        OptionCode::SubnetMask,
        OptionCode::Router,
        OptionCode::DomainNameServer,
    ] {
        assert_eq!(options.get(lease), None, "{lease:?}");
    }
    // It asks once more, from its address, for an entry of a menu.
    let mut request = firmware(MessageType::Request, "PXEClient:Arch:00007", 7);
    raw(&mut request, 43, &[71, 4, 0x80, 1, 0, 0, 255]);
    let ack = proxied(&mut site, "boot", &request).unwrap();
    assert_eq!(
        (ack.kind(), ack.file().as_str(), ack.peer.as_str()),
        (MessageType::Ack, "grub2/grubx64.efi", "192.0.2.33:68")
    );
    assert_eq!(vendor(&ack), [6, 1, 8, 71, 4, 0x80, 1, 0, 0, 255]);
    // A relay is answered for its machine.
    let mut relayed = discover.clone();
    relayed.set_giaddr([198, 51, 100, 2]);
    let offer = proxied(&mut site, "proxy", &relayed).unwrap();
    assert_eq!(offer.peer, "198.51.100.2:67");
    // HTTP boot, and what Foreman wrote for this machine, whatever the subnet.
    let http = firmware(MessageType::Discover, "HTTPClient:Arch:00016", 16);
    let offer = proxied(&mut site, "proxy", &http).unwrap();
    assert!(offer.file().starts_with("http://"), "{offer:?}");
    let class = offer.message.opts().get(OptionCode::ClassIdentifier);
    assert_eq!(
        class,
        Some(&DhcpOption::ClassIdentifier(b"HTTPClient".to_vec()))
    );
    DhcpBuiltin::add(reservation(1, "192.0.2.50", &[("filename", "own.efi")])).unwrap();
    assert_eq!(
        proxied(&mut site, "proxy", &discover).unwrap().file(),
        "own.efi"
    );
    assert!(store::scan(SLOT, "l/", None, 9).unwrap().is_empty());
}

#[test]
fn beside_another_server_nobody_else_is_answered() {
    let mut site = site();
    for message in [
        client(1, MessageType::Discover),
        firmware(MessageType::Discover, "udhcp 1.35", 7),
        firmware(MessageType::Discover, "PXEClient", 12),
        firmware(MessageType::Request, "PXEClient", 7),
        firmware(MessageType::Inform, "PXEClient", 7),
        firmware(MessageType::Release, "PXEClient", 7),
        firmware(MessageType::Decline, "PXEClient", 7),
    ] {
        assert!(
            proxied(&mut site, "proxy", &message).is_none(),
            "{message:?}"
        );
    }
    let mut relayed = firmware(MessageType::Discover, "PXEClient", 7);
    relayed.set_giaddr([255, 255, 255, 255]);
    assert!(proxied(&mut site, "proxy", &relayed).is_none());
    // Nor does it take a site's addresses to do so.
    let mut bare = site_of(host().setting("subnets", texts(&[])));
    let discover = firmware(MessageType::Discover, "PXEClient", 7);
    assert!(proxied(&mut bare, "proxy", &discover).is_some());
}
