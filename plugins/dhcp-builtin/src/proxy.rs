//! ProxyDHCP (PXE 2.1 section 2.2.3, RFC 4578): another server gives the addresses, this one says what to boot.
//!
//! It refuses to answer anybody but firmware that boots (`PXEClient`, `HTTPClient`), to name an address, and to answer where it has no boot file.
//!
//! The one idea: which of the two it is on an interface is where the packet came in: the slots [`SHOUTED`] and [`ASKED`] are open only where the
//! operator named `proxy_interfaces`.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::rc::Rc;

use bulkhead_sdk::reactor::{Datagram, Port, Reaction, Transport};

use crate::answer::{CLIENT_PORT, SERVER_PORT};
use crate::boot;
use crate::identity::Client;
use crate::packet::{Message, Reply, Request, code, part_of};
use crate::server::{Arrival, Outcome, Server};

/// The slot of port 67, where firmware asks everybody.
pub(crate) const SHOUTED: &str = "proxy";
/// The slot of port 4011, where some firmware asks once more when it has its address.
pub(crate) const ASKED: &str = "boot";

const PXE_CLIENT: &[u8] = b"PXEClient";
/// The sub-option of option 43 that says how boot servers are found.
const DISCOVERY: u8 = 6;
/// Not at all: the boot file is that of the offer.
const USE_THE_FILE: u8 = 0b1000;
/// The sub-option of option 43 that says which entry of a menu is meant; it goes back as it came.
const BOOT_ITEM: u8 = 71;

impl Server {
    /// What firmware is told beside another server's address.
    pub(crate) fn proxy(&self, request: &Request, arrival: &Arrival<'_>) -> Option<Outcome> {
        let is_asked = arrival.datagram.slot == ASKED;
        let message = match request.message {
            Message::Discover => Message::Offer,
            // At port 67 it is for the server of the address.
            Message::Request | Message::Inform if is_asked => Message::Ack,
            _ => return None,
        };
        let class = request.option(code::VENDOR_CLASS)?;
        let is_pxe = class.starts_with(PXE_CLIENT);
        if !is_pxe && !class.starts_with(boot::HTTP_CLIENT) {
            return None;
        }
        let mut reply = Reply::new(message);
        reply.option(code::SERVER, arrival.own.octets());
        let here = self.config.holding(arrival.own);
        let subnet = here.unwrap_or(&self.config.elsewhere);
        let reserved = Client::reserved_as(request)
            .find_map(|client| self.book.reserved_for(&client).first().map(Rc::clone));
        let (config, own) = (&self.config, arrival.own);
        if !boot::fill(
            &mut reply,
            request,
            config,
            subnet,
            reserved.as_deref(),
            own,
        ) {
            return None;
        }
        if is_pxe {
            reply.option(code::VENDOR_CLASS, PXE_CLIENT);
            let mut vendor = vec![DISCOVERY, 1, USE_THE_FILE];
            let asked = request.option(code::VENDOR).unwrap_or_default();
            if let Some([high, low, ..]) = part_of(asked, BOOT_ITEM) {
                // Layer 0 is the boot file itself.
                vendor.extend([BOOT_ITEM, 4, *high, *low, 0, 0]);
            }
            vendor.push(255);
            reply.option(code::VENDOR, vendor);
        }
        if let Some(uuid) = request.option(code::UUID) {
            reply.option(code::UUID, uuid);
        }
        let has_address = |it: &SocketAddrV4| is_asked && !it.ip().is_unspecified();
        let peer = arrival.datagram.peer.parse().ok().filter(has_address);
        let peer = peer.unwrap_or_else(|| whom(request));
        Some(Outcome {
            reaction: Reaction::Send(Datagram {
                slot: arrival.datagram.slot.clone(),
                transport: Transport::Udp,
                peer: peer.to_string(),
                local: format!("{own}:{SERVER_PORT}"),
                port: Some(Port {
                    interface: arrival.port.interface.clone(),
                    address: String::new(),
                    hardware: None,
                }),
                bytes: reply.write(request),
            }),
            is_durable: false,
            probe: None,
        })
    }
}

/// A machine that shouts has no address and gets none from here: it hears what is sent to everybody.
fn whom(request: &Request) -> SocketAddrV4 {
    match request.relay {
        Ipv4Addr::UNSPECIFIED => SocketAddrV4::new(Ipv4Addr::BROADCAST, CLIENT_PORT),
        relay => SocketAddrV4::new(relay, SERVER_PORT),
    }
}
