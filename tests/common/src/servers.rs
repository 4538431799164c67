//! The three network servers that are built in, at their own ports in a network of the test's own, and one exchange with each.
//!
//! Nothing is said twice here: an exchange that gets no answer is lost.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use crate::configuration::Configuration;
use crate::dhcp_wire::{Packet, kind, octets};
use crate::dns::{question, try_udp};
use crate::namespace::Namespace;
use crate::tftp::{self, Client};

/// Their names.
pub const SERVERS: [&str; 3] = ["dns-builtin", "tftp-server", "dhcp-builtin"];

/// How long an answer may take: what nobody waits for any more is dropped by then.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Where they listen.
pub const DNS: &str = "127.0.0.1:53";
/// Likewise.
pub const TFTP: &str = "127.0.0.1:69";
/// Likewise, at the end of the wire that has a relay at its other one.
pub const DHCP: &str = "10.0.0.1:67";
const RELAY: &str = "10.0.0.2:67";

/// Two networks and a wire between them, which takes any datagram whole.
#[derive(Debug)]
pub struct Wire {
    /// Where the servers are.
    pub site: Namespace,
    /// Where the relay is.
    pub relay: Namespace,
}

impl Wire {
    /// Skip the test where there can be none.
    pub fn new() -> Option<Self> {
        let (site, relay) = Namespace::new("site").zip(Namespace::new("relay"))?;
        site.wire("dhcp0", "10.0.0.1/12", &relay, "relay0", "10.0.0.2/12");
        for (at, interface) in [(&site, "dhcp0"), (&relay, "relay0")] {
            at.ip(&["link", "set", interface, "mtu", "65535"]);
        }
        Some(Self { site, relay })
    }

    /// The relay's socket.
    pub fn relay(&self) -> UdpSocket {
        let bind = || UdpSocket::bind(RELAY).expect("the relay's address");
        self.relay.inside(bind)
    }
}

impl Configuration {
    /// The sections of the three, with a zone, a file and a range, for a program in the site of a [`Wire`].
    pub fn with_servers(self) -> Self {
        let zone =
            "$TTL 60\n@ SOA ns h 1 1h 1h 1h 1h\n@ NS ns\nns A 192.0.2.53\nwww A 192.0.2.80\n";
        self.scratch.file("zones/example.com.zone", zone);
        self.scratch.file("boot/menu", [7; 600]);
        let place = |path: &str| format!("{:?}", self.scratch.join(path).display().to_string());
        let dns = format!(
            "listen = [\"udp {DNS}\", \"tcp {DNS}\"]\nzones = [\"example.com\"]\nzone_directory = {}",
            place("zones")
        );
        let tftp = format!("listen = [\"udp {TFTP}\"]\ntftproot = {}", place("boot"));
        let dhcp = "interfaces = [\"dhcp0\"]\nprobe_time = 0\nsubnets = [\"10.0.0.0/12 range=10.0.1.0-10.15.255.254\"]";
        let settings = SERVERS.into_iter().zip([&dns, &tftp, dhcp]);
        settings.fold(self, |this, (name, settings)| {
            this.feature(name, &format!("enabled = true\n{settings}"))
        })
    }
}

/// A question and its answer.
pub fn asks_dns() -> bool {
    let server: SocketAddr = DNS.parse().expect("an address");
    let answer = try_udp(server, &question("www.example.com", "A"), PATIENCE);
    answer.is_some_and(|it| it[3] & 0xf == 0 && it.ends_with(&[192, 0, 2, 80]))
}

/// A file of two blocks.
pub fn asks_tftp() -> bool {
    let mut client = Client::new(TFTP.parse().expect("an address"));
    client.ask(&tftp::request("menu", "octet", &[]));
    for number in [1, 2] {
        match client.hear_within(PATIENCE) {
            Some(tftp::Packet::Data(found, _)) if found == number => client.acknowledge(number),
            _ => return false,
        }
    }
    true
}

/// A new machine by way of the relay: DISCOVER, OFFER, REQUEST and ACK.
pub fn asks_dhcp(relay: &UdpSocket, machine: u32) -> bool {
    let discover = packet(kind::DISCOVER, machine);
    let Some(offered) = told(relay, &discover, kind::OFFER) else {
        return false;
    };
    let wants = packet(kind::REQUEST, machine)
        .option(50, &offered)
        .option(54, &octets("10.0.0.1"));
    told(relay, &wants, kind::ACK) == Some(offered)
}

fn packet(kind: u8, machine: u32) -> Packet {
    let [a, b, c, d] = machine.to_be_bytes();
    Packet::new(kind, [2, 0xbb, a, b, c, d]).relayed_by("10.0.0.2")
}

/// The address in the answer of this kind, which is the first option.
fn told(relay: &UdpSocket, packet: &Packet, kind: u8) -> Option<[u8; 4]> {
    let bytes = packet.bytes();
    relay.send_to(&bytes, DHCP).ok()?;
    relay.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut buffer = [0; 2048];
    loop {
        let (size, _) = relay.recv_from(&mut buffer).ok()?;
        let answer = &buffer[..size];
        let of_this = answer[4..8] == bytes[4..8] && answer[28..34] == bytes[28..34];
        if of_this && answer[240..].starts_with(&[53, 1, kind]) {
            return answer[16..20].try_into().ok();
        }
    }
}
