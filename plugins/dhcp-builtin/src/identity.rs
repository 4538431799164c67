//! Who a client is: by its hardware address, or by the identifier it sends.
//!
//! Firmware and the system that it boots often send different identifiers from one network card, and some firmware sends one identifier from every
//! machine of a model. So a reservation for a hardware address is found whatever identifier comes along, and dynamic leases go by hardware address
//! unless the operator says otherwise. InfiniBand has no hardware address in the packet; its identifier ends with the port's.

use std::fmt;

use bulkhead_sdk::dhcp::Identifier;

use crate::packet::{Request, code};
use crate::subnets::{Config, hex};

/// Ethernet's hardware type.
const ETHERNET: u8 = 1;
/// Octets at the end of an InfiniBand address that stay the same over restarts (RFC 4390 section 2.1).
const PORT_GUID: usize = 8;

/// A client.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Client {
    /// Hardware address.
    Hardware(Vec<u8>),
    /// Client identifier, with its type octet.
    Identifier(Vec<u8>),
}

impl Client {
    /// Reads the interface's form.
    #[must_use]
    pub fn of(identifier: &Identifier) -> Option<Self> {
        match identifier {
            Identifier::Hardware(text) => hex(text).map(Self::Hardware),
            Identifier::Client(text) => hex(text).map(Self::Identifier),
        }
    }

    /// Reads the store's form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once('/')? {
            ("hw", octets) => hex(octets).map(Self::Hardware),
            ("id", octets) => hex(octets).map(Self::Identifier),
            _ => None,
        }
    }

    /// The interface's form.
    #[must_use]
    pub fn identifier(&self) -> Identifier {
        match self {
            Self::Hardware(octets) => Identifier::Hardware(colons(octets)),
            Self::Identifier(octets) => Identifier::Client(colons(octets)),
        }
    }

    /// Whom a dynamic lease is for. None: the packet says nothing of its sender.
    #[must_use]
    pub fn leasing(request: &Request, config: &Config) -> Option<Self> {
        let identifier = || identifier_of(request).map(Self::Identifier);
        let hardware = || hardware_of(request).map(Self::Hardware);
        match config.by_hardware {
            true => hardware().or_else(identifier),
            false => identifier().or_else(hardware),
        }
    }

    /// Under what names a reservation for this sender may stand, best first.
    pub fn reserved_as(request: &Request) -> impl Iterator<Item = Self> {
        let hardware = hardware_of(request).map(Self::Hardware);
        hardware
            .into_iter()
            .chain(identifier_of(request).map(Self::Identifier))
    }

    /// The end of an InfiniBand address or of the identifier made of one.
    #[must_use]
    pub fn port_guid(&self) -> Option<&[u8]> {
        let octets = match self {
            Self::Hardware(octets) if octets.len() == 20 => octets,
            Self::Identifier(octets) if octets.len() >= 12 => octets,
            _ => return None,
        };
        octets.get(octets.len() - PORT_GUID..)
    }
}

impl fmt::Display for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hardware(octets) => write!(formatter, "hw/{}", colons(octets)),
            Self::Identifier(octets) => write!(formatter, "id/{}", colons(octets)),
        }
    }
}

fn hardware_of(request: &Request) -> Option<Vec<u8>> {
    let octets = &request.hardware;
    let is_there = octets.iter().any(|octet| *octet != 0);
    let plausible = request.hardware_type != ETHERNET || octets.len() == 6;
    (is_there && plausible).then(|| octets.clone())
}

fn identifier_of(request: &Request) -> Option<Vec<u8>> {
    let octets = request.option(code::CLIENT_ID)?;
    // RFC 2132 section 9.14: at least two octets. A store's key holds so many.
    (2..=128).contains(&octets.len()).then(|| octets.to_vec())
}

/// `aa:bb:cc`
#[must_use]
pub fn colons(octets: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(octets.len() * 3);
    for octet in octets {
        let colon = if text.is_empty() { "" } else { ":" };
        let _ = write!(text, "{colon}{octet:02x}");
    }
    text
}
