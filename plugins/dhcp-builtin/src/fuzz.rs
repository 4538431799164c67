//! What must hold for any packet, for the fuzz tests of the workspace.

use bulkhead_sdk::reactor::{Datagram, Port, Reaction, Transport};
use bulkhead_sdk::settings::Value;
use bulkhead_sdk::testing::Host;

use crate::BOOT_FILES;
use crate::book::{Book, SLOT};
use crate::packet::Request;
use crate::proxy;
use crate::server::Server;
use crate::subnets::Config;

/// Bytes of a packet before the client's hardware address.
const HEAD: usize = 28;
/// Bytes of a hardware address on Ethernet, and of the field that holds it.
const HARDWARE: (usize, usize) = (6, 16);
/// Bytes of the fields `sname` and `file`.
const NAMES: usize = 64 + 128;

/// Makes a packet of a short text, whose characters up to 255 stand for bytes: the head, the hardware address, then the options, which fill `sname` and
/// `file` as well, so that a client that says they are overloaded says something.
///
/// # Panics
/// When a promise of [`packet`] does not hold.
pub fn short_packet(text: &str) {
    let bytes: Vec<u8> = text
        .chars()
        .map(|character| u8::try_from(u32::from(character)).unwrap_or(0))
        .collect();
    packet(&bytes);
    let Some((head, rest)) = bytes.split_at_checked(HEAD) else {
        return;
    };
    let (hardware, options) = rest.split_at(HARDWARE.0.min(rest.len()));
    let mut whole = head.to_vec();
    whole.extend_from_slice(hardware);
    whole.resize(HEAD + HARDWARE.1, 0);
    whole.extend(options.iter().copied().cycle().take(NAMES));
    whole.resize(HEAD + HARDWARE.1 + NAMES, 0);
    whole.extend([99, 130, 83, 99]);
    whole.extend_from_slice(options);
    packet(&whole);
}

/// A packet is answered with at most one packet, whose addresses lie in the subnet or are none; beside another server they are none.
///
/// # Panics
/// When a promise does not hold.
pub fn packet(bytes: &[u8]) {
    let subnets = vec!["192.0.2.0/24 range=192.0.2.100-192.0.2.110".to_owned()];
    let boot_files = BOOT_FILES.iter().map(|&it| it.to_owned()).collect();
    let _host = Host::new()
        .setting("subnets", Value::Texts(subnets))
        .setting("lease_time", 3600)
        .setting("offer_time", 60)
        .setting("flood_limit", 40)
        .setting("boot_files", Value::Texts(boot_files))
        .store(SLOT)
        .install();
    let (Ok(config), Ok(book)) = (Config::of_settings(), Book::load()) else {
        return;
    };
    let mut server = Server::new(config, book);
    let at = |slot: &str| Datagram {
        slot: slot.to_owned(),
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
    let batch = ["network", "network", proxy::SHOUTED, proxy::ASKED].map(at);
    let reactions = server.react(&batch, 1_764_000_000);
    assert!(reactions.len() <= batch.len());
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
        let is_given = sent.slot == "network" && yours.starts_with(&[192, 0, 2]);
        assert!(yours == [0; 4] || is_given, "{}: {yours:?}", sent.slot);
    }
}
