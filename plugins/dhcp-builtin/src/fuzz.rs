//! What must hold for any packet, for the fuzz tests of the workspace.

use bulkhead_sdk::reactor::{Datagram, Port, Reaction, Transport};
use bulkhead_sdk::settings::Value;
use bulkhead_sdk::testing::Host;

use crate::book::{Book, SLOT};
use crate::packet::Request;
use crate::server::Server;
use crate::subnets::Config;

/// A packet is answered with at most one packet, whose addresses lie in the subnet or are none.
///
/// # Panics
/// When a promise does not hold.
pub fn packet(bytes: &[u8]) {
    let subnets = vec!["192.0.2.0/24 range=192.0.2.100-192.0.2.110".to_owned()];
    let _host = Host::new()
        .setting("subnets", Value::Texts(subnets))
        .setting("lease_time", 3600)
        .setting("offer_time", 60)
        .setting("flood_limit", 40)
        .store(SLOT)
        .install();
    let (Ok(config), Ok(book)) = (Config::of_settings(), Book::load()) else {
        return;
    };
    let mut server = Server::new(config, book);
    let datagram = Datagram {
        slot: "network".to_owned(),
        transport: Transport::Udp,
        peer: "0.0.0.0:68".to_owned(),
        local: "255.255.255.255:67".to_owned(),
        port: Some(Port {
            interface: "eth1".to_owned(),
            address: "192.0.2.1/24".to_owned(),
            hardware: None,
        }),
        bytes: bytes.to_vec(),
    };
    let reactions = server.react(&[datagram.clone(), datagram], 1_764_000_000);
    assert!(reactions.len() <= 2);
    for reaction in reactions {
        let Reaction::Send(sent) = reaction else {
            continue;
        };
        assert!(
            Request::read(&sent.bytes).is_none(),
            "an answer is no request"
        );
        let yours: [u8; 4] = sent
            .bytes
            .get(16..20)
            .and_then(|it| it.try_into().ok())
            .unwrap_or_default();
        assert!(
            yours == [0; 4] || yours.starts_with(&[192, 0, 2]),
            "{yours:?}"
        );
    }
}
