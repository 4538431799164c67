//! What a client is told, and where the answer goes (RFC 2131 section 4.1).

use std::net::{Ipv4Addr, SocketAddrV4};

use bulkhead_sdk::reactor::{Datagram, Port, Reaction, Transport};

use crate::boot;
use crate::packet::{Message, Reply, Request, code};
use crate::server::{Arrival, Outcome, Place, Server};
use crate::subnets::Subnet;

pub(crate) const CLIENT_PORT: u16 = 68;
pub(crate) const SERVER_PORT: u16 = 67;

impl Server {
    pub(crate) fn nak(&self, request: &Request, arrival: &Arrival<'_>) -> Outcome {
        let mut reply = Reply::new(Message::Nak);
        reply.option(code::SERVER, own_address(request, arrival).octets());
        reply.option(code::TEXT, *b"this address is not yours here");
        Outcome {
            reaction: self.send(request, arrival, &reply),
            is_durable: false,
            probe: None,
        }
    }

    /// `subnet`: that of the client's address. `seconds`: of its lease; None where it gets none.
    pub(crate) fn reply(
        &self,
        message: Message,
        request: &Request,
        arrival: &Arrival<'_>,
        place: &Place<'_>,
        subnet: &Subnet,
        seconds: Option<u32>,
    ) -> Reply {
        let mut reply = Reply::new(message);
        reply.option(code::SERVER, own_address(request, arrival).octets());
        if let Some(seconds) = seconds {
            reply.seconds(code::LEASE_TIME, seconds);
            // RFC 2131 section 4.4.5.
            reply.seconds(code::RENEWAL, seconds / 2);
            reply.seconds(code::REBINDING, seconds / 8 * 7);
        }
        reply.option(code::MASK, subnet.mask().octets());
        for (code, list) in [
            (code::ROUTERS, &subnet.routers),
            (code::DNS, &subnet.dns),
            (code::NTP, &subnet.ntp),
        ] {
            if request.wants(code) {
                reply.addresses(code, list);
            }
        }
        let host_name = place
            .reserved
            .as_ref()
            .and_then(|it| it.text("hostname").or(Some(&it.name)));
        for (code, text) in [
            (code::HOST_NAME, host_name),
            (code::DOMAIN, subnet.domain.as_deref()),
        ] {
            if let Some(text) = text.filter(|text| !text.is_empty() && request.wants(code)) {
                reply.option(code, text.as_bytes());
            }
        }
        if let Some(mtu) = subnet.mtu.filter(|_| request.wants(code::MTU)) {
            reply.option(code::MTU, mtu.to_be_bytes());
        }
        boot::fill(
            &mut reply,
            request,
            &self.config,
            subnet,
            place.reserved.as_deref(),
            arrival.own,
        );
        if let Some(uuid) = request.option(code::UUID) {
            reply.option(code::UUID, uuid);
        }
        // The last: where a client takes only short packets, the earlier ones are what it boots by.
        for (code, data) in &subnet.others {
            // What the machine's own reservation or boot file says is not said twice: clients would join the two.
            if request.wants(*code) && !reply.has(*code) {
                reply.option(*code, data.as_slice());
            }
        }
        reply
    }

    /// Where an answer goes (RFC 2131 section 4.1).
    pub(crate) fn send(&self, request: &Request, arrival: &Arrival<'_>, reply: &Reply) -> Reaction {
        let everybody = SocketAddrV4::new(Ipv4Addr::BROADCAST, CLIENT_PORT);
        let is_ethernet = request.hardware_type == 1 && request.hardware.len() == 6;
        // Only an address that it may have here: anybody can write another one's there, whom the answer would reach then.
        let has_address = !request.client.is_unspecified()
            && (reply.yours == request.client || reply.yours.is_unspecified());
        let (peer, hardware) = if !request.relay.is_unspecified() {
            (SocketAddrV4::new(request.relay, SERVER_PORT), None)
        } else if reply.message == Message::Nak {
            (everybody, None)
        } else if has_address {
            (SocketAddrV4::new(request.client, CLIENT_PORT), None)
        } else if request.broadcast || !is_ethernet {
            (everybody, None)
        } else {
            let hardware = crate::identity::colons(&request.hardware);
            (SocketAddrV4::new(reply.yours, CLIENT_PORT), Some(hardware))
        };
        Reaction::Send(Datagram {
            slot: arrival.datagram.slot.clone(),
            transport: Transport::Udp,
            peer: peer.to_string(),
            local: format!("{}:{SERVER_PORT}", arrival.own),
            port: Some(Port {
                interface: arrival.port.interface.clone(),
                address: String::new(),
                hardware,
            }),
            bytes: reply.write(request),
        })
    }
}

/// The address that clients know this server by: the relay may have put its own in place (RFC 5107).
pub(crate) fn own_address(request: &Request, arrival: &Arrival<'_>) -> Ipv4Addr {
    let octets = request
        .relay_part(11)
        .and_then(|it| <[u8; 4]>::try_from(it).ok());
    octets.map_or(arrival.own, Ipv4Addr::from)
}
