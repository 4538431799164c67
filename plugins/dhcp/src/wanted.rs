//! A reservation as Foreman's form describes it, checked step by step in the Smart Proxy's order and words.

use std::net::Ipv4Addr;

use bulkhead_sdk::dhcp::{self, DhcpOption, Entry, Identifier, OptionValue, Reservation};
use bulkhead_sdk::params::{Params, Value};
use bulkhead_sdk::prelude::*;

use crate::network::{Network, address};
use crate::record::mac;
use crate::refusal::asking;
use crate::{checked_mac, given};

/// Fields that are not options: what the record is, what belongs to the request, and what is worked out here.
const NO_OPTIONS: [&str; 9] = [
    "name",
    "hostname",
    "ip",
    "mac",
    "network",
    "subnet",
    "type",
    "related_macs",
    "_method",
];

/// The option that tells a provider of MAC addresses of the same machine, whose reservations may share the address.
const RELATED: &str = "related_macs";

/// Most options of one reservation.
const MOST_OPTIONS: usize = 128;

/// A checked reservation.
pub(crate) struct Wanted {
    /// What the provider shall write.
    pub(crate) reservation: Reservation,
    /// The network as the path has it.
    pub(crate) network: Ipv4Addr,
    pub(crate) related: Vec<String>,
}

impl Wanted {
    /// Reads and checks a form.
    pub(crate) fn of(request: &Request) -> Result<Self, Failure> {
        let hardware = checked_mac(&given(request, "mac").unwrap_or_default())?.canonical();
        let filled = |name| given(request, name).filter(|value| !value.is_empty());
        let (name, hostname) = (filled("name"), filled("hostname"));
        let (Some(name), Some(hostname)) =
            (name.clone().or_else(|| hostname.clone()), hostname.or(name))
        else {
            return Err(Failure::bad_request("Must provide hostname"));
        };
        let network = Network::of(request)?.or_not_detected()?;
        let wanted = address(&given(request, "ip").unwrap_or_default())?;
        // A reservation outside its subnet would be served nowhere and shown nowhere.
        if !network.contains(wanted) {
            return Err(Failure::bad_request(format!(
                "IP {wanted} does not belong to the subnet {}",
                network.subnet.prefix
            )));
        }
        let related = related(request.params());
        let mut options = options(request.params())?;
        options.push(text("hostname", hostname));
        if !related.is_empty() {
            options.push(DhcpOption {
                name: RELATED.to_owned(),
                value: OptionValue::Texts(related.clone()),
            });
        }
        Ok(Self {
            reservation: Reservation {
                subnet: network.subnet.prefix.clone(),
                address: wanted.to_string(),
                identifier: Identifier::Hardware(hardware),
                name,
                deletable: true,
                options,
            },
            network: network.asked,
            related,
        })
    }

    /// Refuses when another reservation has the address or the MAC address. Leases are none, and neither are reservations of
    /// the same machine. One of the same name, address and MAC address may be equal: its provider knows.
    pub(crate) fn check_neighbours(&self) -> Result<(), Failure> {
        let wanted = &self.reservation;
        let mut found = dhcp::by_address(&wanted.subnet, &wanted.address).map_err(asking)?;
        found.extend(dhcp::by_identifier(&wanted.subnet, &wanted.identifier).map_err(asking)?);
        let in_the_way = found.iter().find_map(|entry| match entry {
            Entry::Reservation(other) => (!self.tolerates(other)).then_some(other),
            Entry::Lease(_) => None,
        });
        match in_the_way {
            None => Ok(()),
            Some(other) => {
                let name = match other.name.as_str() {
                    "" => "a reservation without a name",
                    name => name,
                };
                log::warn(format!(
                    "{} for {} is refused: {name} has {} for {}",
                    wanted.address,
                    mac(&wanted.identifier),
                    other.address,
                    mac(&other.identifier)
                ));
                Err(Failure::conflict(format!(
                    "Record {}/{} already exists",
                    self.network, wanted.address
                )))
            }
        }
    }

    fn tolerates(&self, other: &Reservation) -> bool {
        let wanted = &self.reservation;
        let own = other.identifier == wanted.identifier;
        let same = own && other.address == wanted.address && other.name == wanted.name;
        let related = self
            .related
            .iter()
            .any(|known| known == mac(&other.identifier));
        same || (related && !own)
    }
}

fn text(name: &str, value: String) -> DhcpOption {
    DhcpOption {
        name: name.to_owned(),
        value: OptionValue::Text(value),
    }
}

/// An empty list arrives as the bare key.
fn related(params: &Params) -> Vec<String> {
    let values = params.list("related_macs").unwrap_or_default();
    values
        .iter()
        .filter_map(|value| match value {
            Value::Text(bytes) => std::str::from_utf8(bytes).ok(),
            Value::Nil | Value::List(_) | Value::Map(_) => None,
        })
        .filter_map(|text| text.parse::<MacAddress>().ok())
        .map(|mac| mac.canonical())
        .collect()
}

fn options(params: &Params) -> Result<Vec<DhcpOption>, Failure> {
    let mut options = Vec::new();
    collect("", params, &mut options)?;
    Ok(options)
}

/// Nested fields keep their written name, `ztp_firmware[core]`.
fn collect(prefix: &str, params: &Params, into: &mut Vec<DhcpOption>) -> Result<(), Failure> {
    for (key, value) in params.iter() {
        if prefix.is_empty() && NO_OPTIONS.contains(&key) {
            continue;
        }
        let name = if prefix.is_empty() {
            key.to_owned()
        } else {
            format!("{prefix}[{key}]")
        };
        if into.len() >= MOST_OPTIONS {
            return Err(Failure::bad_request(format!(
                "more than {MOST_OPTIONS} options"
            )));
        }
        match value {
            Value::Nil => {}
            Value::Text(bytes) => into.push(text(&name, utf8(&name, bytes)?)),
            Value::Map(inner) => collect(&name, inner, into)?,
            Value::List(values) => {
                let texts = values.iter().filter_map(|value| match value {
                    Value::Text(bytes) => Some(utf8(&name, bytes)),
                    Value::Nil | Value::List(_) | Value::Map(_) => None,
                });
                into.push(DhcpOption {
                    name: name.clone(),
                    value: OptionValue::Texts(texts.collect::<Result<_, _>>()?),
                });
            }
        }
    }
    Ok(())
}

fn utf8(name: &str, bytes: &[u8]) -> Result<String, Failure> {
    let text = std::str::from_utf8(bytes).map(str::to_owned);
    text.map_err(|_| Failure::bad_request(format!("{name} is not UTF-8")))
}
