#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
//! Clients through the reactor, whose packets are written and read with another codec than the server's.
//!
//! Here is the site that they are in; each file beside this one is about one thing that they do.

mod addresses;
mod beside;
mod booting;
mod exchange;
mod provider;
mod wires;

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
