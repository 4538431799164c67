#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
//! Clients through the reactor, whose packets are written and read with another codec than the server's.

use super::*;
use std::net::Ipv4Addr;

use bulkhead_sdk::Audience;
use bulkhead_sdk::dhcp::{DhcpOption as Shown, OptionValue};
use bulkhead_sdk::probe::Outcome;
use bulkhead_sdk::reactor::{Port, Transport};
use bulkhead_sdk::settings::Value;
use bulkhead_sdk::testing::{Host, Installed};
use dhcproto::v4::{
    DhcpOption, Flags, HType, Message, MessageType, Opcode, OptionCode, UnknownOption,
};
use dhcproto::{Decodable, Decoder, Encodable};
use proptest::prelude::*;

const NOW: i64 = 1_764_000_000;
const SUBNET: &str = "192.0.2.0/24";

struct Site {
    host: Installed,
    server: Server,
    now: i64,
}

fn texts(list: &[&str]) -> Value {
    Value::Texts(list.iter().map(|&it| it.to_owned()).collect())
}

fn host() -> Host {
    Host::new()
        .setting(
            "subnets",
            texts(&[
                "192.0.2.0/24 range=192.0.2.100-192.0.2.103 routers=192.0.2.1 dns=192.0.2.53 domain=example.com lease=3600 mtu=1400",
                "198.51.100.0/24 range=198.51.100.10-198.51.100.200 routers=198.51.100.1",
            ]),
        )
        .setting("boot_files", texts(&["0=pxelinux.0", "7=grub2/grubx64.efi", "16=http://192.0.2.1:8000/httpboot/grub2/grubx64.efi"]))
        .setting("lease_time", 7200)
        .setting("offer_time", 60)
        .setting("decline_time", 86_400)
        .setting("flood_limit", 40)
        .setting("authoritative", true)
        .setting("identity", "hardware")
        .setting("probe_time", 0)
        .store(SLOT)
}

fn site_of(host: Host) -> Site {
    let host = host.install();
    BOOK.set(None);
    let server = Server::new(Config::of_settings().unwrap(), Book::load().unwrap());
    Site {
        host,
        server,
        now: NOW,
    }
}

fn site() -> Site {
    site_of(host())
}

fn mac(number: u8) -> [u8; 6] {
    [0x52, 0x54, 0, 0, 0, number]
}

fn client(number: u8, kind: MessageType) -> Message {
    let mut message = Message::default();
    message
        .set_opcode(Opcode::BootRequest)
        .set_htype(HType::Eth)
        .set_chaddr(&mac(number))
        .set_xid(u32::from(number) + 7);
    message.opts_mut().insert(DhcpOption::MessageType(kind));
    message
}

fn raw(message: &mut Message, code: u8, data: &[u8]) {
    message
        .opts_mut()
        .insert(DhcpOption::Unknown(UnknownOption::new(
            OptionCode::from(code),
            data.to_vec(),
        )));
}

fn bytes(message: &Message) -> Vec<u8> {
    message.to_vec().unwrap()
}

/// What came back: the packet, where it went, and to what hardware address.
#[derive(Debug)]
struct Back {
    message: Message,
    bytes: Vec<u8>,
    peer: String,
    hardware: Option<String>,
}

impl Back {
    fn kind(&self) -> MessageType {
        self.message.opts().msg_type().unwrap()
    }

    fn address(&self) -> String {
        self.message.yiaddr().to_string()
    }

    fn seconds(&self) -> u32 {
        match self.message.opts().get(OptionCode::AddressLeaseTime) {
            Some(DhcpOption::AddressLeaseTime(seconds)) => *seconds,
            other => panic!("{other:?}"),
        }
    }

    fn file(&self) -> String {
        let name = self.message.fname().unwrap_or_default();
        String::from_utf8(name.iter().copied().take_while(|it| *it != 0).collect()).unwrap()
    }
}

impl Site {
    fn send_at(&mut self, interface: &str, local: &str, packets: &[Vec<u8>]) -> Vec<Back> {
        let datagram = |bytes: &Vec<u8>| Datagram {
            slot: "network".into(),
            transport: Transport::Udp,
            peer: "0.0.0.0:68".into(),
            local: local.into(),
            port: Some(Port {
                interface: "eth1".into(),
                address: interface.into(),
                hardware: None,
            }),
            bytes: bytes.clone(),
        };
        let batch: Vec<Datagram> = packets.iter().map(datagram).collect();
        let back = |reaction: Reaction| match reaction {
            Reaction::Send(it) => {
                let port = it.port.unwrap();
                assert_eq!(
                    (it.slot.as_str(), port.interface.as_str()),
                    ("network", "eth1")
                );
                assert!(it.bytes.len() >= 300);
                let message = Message::decode(&mut Decoder::new(&it.bytes)).unwrap();
                assert_eq!(message.opcode(), Opcode::BootReply);
                Back {
                    message,
                    bytes: it.bytes,
                    peer: it.peer,
                    hardware: port.hardware,
                }
            }
            Reaction::Transfer(it) => panic!("{it:?}"),
        };
        self.server
            .react(&batch, self.now)
            .into_iter()
            .map(back)
            .collect()
    }

    fn send(&mut self, message: &Message) -> Option<Back> {
        self.send_at("192.0.2.1/24", "255.255.255.255:67", &[bytes(message)])
            .pop()
    }

    fn discover(&mut self, number: u8) -> Option<Back> {
        self.send(&client(number, MessageType::Discover))
    }

    fn select(&mut self, number: u8, address: &str) -> Option<Back> {
        self.send(&selecting(number, address))
    }

    /// The four messages, as a client that boots.
    fn boot(&mut self, number: u8) -> String {
        let offer = self.discover(number).unwrap();
        assert_eq!(offer.kind(), MessageType::Offer);
        let ack = self.select(number, &offer.address()).unwrap();
        assert_eq!(
            (ack.kind(), ack.address()),
            (MessageType::Ack, offer.address())
        );
        offer.address()
    }
}

fn selecting(number: u8, address: &str) -> Message {
    let mut message = client(number, MessageType::Request);
    message
        .opts_mut()
        .insert(DhcpOption::RequestedIpAddress(address.parse().unwrap()));
    message
        .opts_mut()
        .insert(DhcpOption::ServerIdentifier("192.0.2.1".parse().unwrap()));
    message
}

fn reservation(number: u8, address: &str, options: &[(&str, &str)]) -> Reservation {
    let option = |(name, value): &(&str, &str)| Shown {
        name: (*name).into(),
        value: OptionValue::Text((*value).into()),
    };
    Reservation {
        subnet: SUBNET.into(),
        address: address.into(),
        identifier: Identifier::Hardware(identity::colons(&mac(number))),
        name: format!("h{number}.example.com"),
        deletable: true,
        options: options.iter().map(option).collect(),
    }
}

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

#[test]
fn firmware_that_boots_over_http_is_told_name_servers_only_for_a_url_with_a_name() {
    let mut site = site();
    for (number, url, told) in [
        (1, "http://192.0.2.9:8000/grub2/grubx64.efi", false),
        (2, "http://192.0.2.9/grub2/grubx64.efi", false),
        (3, "http://proxy.example.com:8000/grub2/grubx64.efi", true),
    ] {
        let address = format!("192.0.2.5{number}");
        DhcpBuiltin::add(reservation(number, &address, &[("filename", url)])).unwrap();
        let mut told_to = |class: &[u8]| {
            let mut message = client(number, MessageType::Discover);
            raw(&mut message, 60, class);
            let offer = site.send(&message).unwrap();
            let told = offer.message.opts().get(OptionCode::DomainNameServer);
            told.is_some()
        };
        assert_eq!(told_to(b"HTTPClient:Arch:00016"), told, "{url}");
        assert!(told_to(b"udhcp"), "{url}: the booted system");
    }
}

#[test]
fn boot_files_go_by_architecture_and_kind_of_client() {
    let mut site = site();
    let mut ask = |class: &str, architecture: u16, user: Option<&[u8]>, number: u8| {
        let mut message = client(number, MessageType::Discover);
        raw(&mut message, 60, class.as_bytes());
        raw(&mut message, 93, &architecture.to_be_bytes());
        if let Some(user) = user {
            raw(&mut message, 77, user);
        }
        let offer = site.send(&message).unwrap();
        let class = match offer.message.opts().get(OptionCode::ClassIdentifier) {
            Some(DhcpOption::ClassIdentifier(class)) => String::from_utf8(class.clone()).unwrap(),
            _ => String::new(),
        };
        (offer.file(), class)
    };
    let url = "http://192.0.2.1:8000/httpboot/grub2/grubx64.efi";
    assert_eq!(
        ask("PXEClient:Arch:00000:UNDI:002001", 0, None, 1),
        ("pxelinux.0".into(), String::new())
    );
    assert_eq!(
        ask("PXEClient:Arch:00007", 7, None, 1),
        ("grub2/grubx64.efi".into(), String::new())
    );
    assert_eq!(
        ask("HTTPClient:Arch:00016", 16, None, 1),
        (url.into(), "HTTPClient".into())
    );
    assert_eq!(
        ask("HTTPClient:Arch:00007", 7, None, 1),
        (String::new(), String::new()),
        "a file name is no URL"
    );
    assert_eq!(
        ask("PXEClient:Arch:00016", 16, None, 1),
        (String::new(), String::new()),
        "a URL is no file name"
    );
    assert_eq!(
        ask("PXEClient", 11, None, 1),
        (String::new(), String::new())
    );
    DhcpBuiltin::add(reservation(
        7,
        "192.0.2.50",
        &[("filename", "http://192.0.2.9/x.efi")],
    ))
    .unwrap();
    assert_eq!(
        ask("HTTPClient:Arch:00016", 16, None, 7),
        ("http://192.0.2.9/x.efi".into(), "HTTPClient".into())
    );
    assert_eq!(
        ask("PXEClient", 7, Some(b"iPXE"), 7).0,
        "http://192.0.2.9/x.efi"
    );
}

/// What a machine of this architecture is told by default, and whether it is told that this is for `HTTPClient`.
fn told_by_default(site: &mut Site, class: &str, architectures: &[u16]) -> (String, bool) {
    let mut message = client(1, MessageType::Discover);
    raw(&mut message, 60, class.as_bytes());
    let octets: Vec<u8> = architectures
        .iter()
        .flat_map(|it| it.to_be_bytes())
        .collect();
    raw(&mut message, 93, &octets);
    let offer = site.send(&message).unwrap();
    let class = offer.message.opts().get(OptionCode::ClassIdentifier);
    let file = offer.message.opts().get(OptionCode::BootfileName).cloned();
    if class.is_some() {
        let file_of_option = DhcpOption::BootfileName(offer.file().into_bytes());
        assert_eq!(file, Some(file_of_option), "HTTP reads option 67");
    }
    (
        offer.file(),
        class == Some(&DhcpOption::ClassIdentifier(b"HTTPClient".to_vec())),
    )
}

#[test]
fn every_architecture_that_matters_has_a_boot_file_by_default() {
    let http = "http://192.0.2.9:8000";
    let host = host()
        .setting("boot_files", texts(BOOT_FILES))
        .public_url(Audience::Public, http)
        .ports(Some(8001), None);
    let mut site = site_of(host.setting("flood_limit", 1000));
    for (by_tftp, by_http, file) in [
        (6, Some(15), "grub2/grubia32.efi"),
        (7, Some(16), "grub2/grubx64.efi"),
        (9, None, "grub2/grubx64.efi"),
        (10, Some(18), "grub2/grubarm.efi"),
        (11, Some(19), "grub2/grubaa64.efi"),
        (27, Some(28), "grub2/grubriscv64.efi"),
        (39, Some(40), "grub2/grubloongarch64.efi"),
        (0, None, "pxelinux.0"),
    ] {
        let class = format!("PXEClient:Arch:{by_tftp:05}:UNDI:003016");
        let told = told_by_default(&mut site, &class, &[by_tftp]);
        assert_eq!(told, (file.to_owned(), false));
        if let Some(number) = by_http {
            let class = format!("HTTPClient:Arch:{number:05}:UNDI:003001");
            let told = told_by_default(&mut site, &class, &[number]);
            assert_eq!(told, (format!("{http}/httpboot/{file}"), true));
        }
    }
    // No loader of ours runs there, and nothing is better than one that does not.
    for (class, number) in [("PXEClient", 14), ("PXEClient", 22), ("HTTPClient", 20)] {
        let told = told_by_default(&mut site, class, &[number]);
        assert_eq!(told, (String::new(), false), "{number}");
    }
    let told = told_by_default(&mut site, "HTTPClient", &[20, 16]);
    assert!(told.1 && told.0.ends_with("grubx64.efi"), "{told:?}");
}

#[test]
fn a_boot_file_becomes_a_url_only_where_machines_can_read_it() {
    for (listener, port, told) in [
        (Some("https://192.0.2.1:8443"), Some(8000), ""),
        (Some("http://127.0.0.1:8000"), Some(8000), ""),
        (None, Some(8000), ""),
        (Some("http://proxy.example.com:8000"), None, ""),
        (
            Some("http://proxy.example.com:8000"),
            Some(8000),
            "http://192.0.2.1:8000/httpboot/grub2/grubx64.efi",
        ),
    ] {
        let mut host = host()
            .setting("boot_files", texts(BOOT_FILES))
            .ports(port, None);
        if let Some(listener) = listener {
            host = host.public_url(Audience::Public, listener);
        }
        let mut site = site_of(host);
        let (file, is_http) = told_by_default(&mut site, "HTTPClient", &[16]);
        assert_eq!((file.as_str(), is_http), (told, !told.is_empty()));
    }
}

#[test]
fn ipxe_can_have_a_script_of_its_own() {
    let mut site = site_of(host().setting(
        "boot_files",
        texts(&["0=undionly.kpxe", "ipxe=http://192.0.2.1/boot.ipxe"]),
    ));
    let mut message = client(1, MessageType::Discover);
    raw(&mut message, 93, &[0, 0]);
    assert_eq!(site.send(&message).unwrap().file(), "undionly.kpxe");
    raw(&mut message, 77, b"iPXE");
    assert_eq!(
        site.send(&message).unwrap().file(),
        "http://192.0.2.1/boot.ipxe"
    );
}

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

fn rebooting(number: u8, address: &str) -> Message {
    let mut message = client(number, MessageType::Request);
    message
        .opts_mut()
        .insert(DhcpOption::RequestedIpAddress(address.parse().unwrap()));
    message
}

fn renewing(number: u8, address: &str) -> Message {
    let mut message = client(number, MessageType::Request);
    message.set_ciaddr(address.parse::<Ipv4Addr>().unwrap());
    message
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
