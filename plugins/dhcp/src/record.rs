//! Subnets and records as JSON, with the Smart Proxy's keys, their order and their spelling (`deleteable`).

use std::net::Ipv4Addr;

use bulkhead_sdk::dhcp::{DhcpOption, Entry, Identifier, Lease, OptionValue, Reservation, Subnet};
use bulkhead_sdk::prelude::MacAddress;
use serde_json::{Map, Value, json};

use crate::network::parts;

/// The options of a subnet that Foreman imports; others are not shown.
const SHOWN: [&str; 6] = [
    "routers",
    "domain_name",
    "domain_name_servers",
    "ntp_servers",
    "interface_mtu",
    "range",
];

/// `{"network":..,"netmask":..,"options":{..}}`; none for what is not IPv4.
pub(crate) fn subnet(subnet: &Subnet) -> Option<Value> {
    let (network, mask) = parts(&subnet.prefix)?;
    let mut options = Map::new();
    for option in &subnet.options {
        if SHOWN.contains(&option.name.as_str()) {
            options.insert(option.name.clone(), value(&option.value));
        }
    }
    if let (false, Some(range)) = (options.contains_key("range"), subnet.ranges.first()) {
        options.insert("range".to_owned(), json!([range.first, range.last]));
    }
    Some(json!({
        "network": network.to_string(),
        "netmask": Ipv4Addr::from_bits(mask).to_string(),
        "options": options,
    }))
}

/// One record.
pub(crate) fn entry(entry: &Entry) -> Value {
    Value::Object(match entry {
        Entry::Reservation(found) => reservation(found),
        Entry::Lease(found) => lease(found),
    })
}

fn reservation(found: &Reservation) -> Map<String, Value> {
    let mut record = begin(
        &found.name,
        &found.address,
        &found.identifier,
        &found.subnet,
    );
    record.insert("type".to_owned(), "reservation".into());
    record.insert("deleteable".to_owned(), found.deletable.into());
    add(&mut record, &found.options);
    record
}

fn lease(found: &Lease) -> Map<String, Value> {
    let bare = mac(&found.identifier).replace(':', "");
    let mut record = begin(
        &format!("lease-{bare}"),
        &found.address,
        &found.identifier,
        &found.subnet,
    );
    let time =
        |seconds: Option<i64>| seconds.map_or(Value::Null, |seconds| written(seconds).into());
    record.insert("starts".to_owned(), time(found.starts));
    record.insert("ends".to_owned(), time(found.ends));
    record.insert("state".to_owned(), found.state.clone().into());
    record.insert("type".to_owned(), "lease".into());
    add(&mut record, &found.options);
    record
}

fn begin(name: &str, address: &str, identifier: &Identifier, prefix: &str) -> Map<String, Value> {
    let subnet = match parts(prefix) {
        Some((network, mask)) => format!("{network}/{}", Ipv4Addr::from_bits(mask)),
        None => prefix.to_owned(),
    };
    let mut record = Map::new();
    record.insert("name".to_owned(), name.into());
    record.insert("ip".to_owned(), address.into());
    record.insert("mac".to_owned(), mac(identifier).into());
    record.insert("subnet".to_owned(), subnet.into());
    record
}

fn add(record: &mut Map<String, Value>, options: &[DhcpOption]) {
    for option in options {
        // An option must not stand for what the record is.
        if !record.contains_key(&option.name) {
            record.insert(option.name.clone(), value(&option.value));
        }
    }
}

/// The identifier as Foreman's key `mac` holds it: of a client identifier that is a card's address, behind its type (RFC 2132 section 9.14), that address.
pub(crate) fn mac(identifier: &Identifier) -> &str {
    match identifier {
        Identifier::Hardware(text) => text,
        Identifier::Client(text) => text
            .strip_prefix("01:")
            .filter(|card| is_mac(card))
            .unwrap_or(text),
    }
}

/// Whether it names a machine as Foreman knows machines, which takes no record whose `mac` is none. A reservation for anything else, a port of a switch for
/// example, makes its address unavailable and is no host's.
pub(crate) fn is_of_a_machine(entry: &Entry) -> bool {
    match entry {
        Entry::Reservation(found) => match &found.identifier {
            Identifier::Hardware(text) => is_mac(text),
            Identifier::Client(_) => false,
        },
        Entry::Lease(found) => is_mac(mac(&found.identifier)),
    }
}

fn is_mac(text: &str) -> bool {
    text.parse::<MacAddress>().is_ok()
}

fn value(value: &OptionValue) -> Value {
    match value {
        OptionValue::Text(text) => text.as_str().into(),
        OptionValue::Integer(number) => (*number).into(),
        OptionValue::Boolean(flag) => (*flag).into(),
        OptionValue::Texts(texts) => json!(texts),
        OptionValue::Groups(groups) => json!(groups),
    }
}

/// `2026-11-25 10:00:00 UTC`; the calendar is the Gregorian one, years begin in March while counting.
fn written(seconds: i64) -> String {
    let (days, rest) = (
        seconds.div_euclid(86_400) + 719_468,
        seconds.rem_euclid(86_400),
    );
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    let (hours, minutes, seconds) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02} {hours:02}:{minutes:02}:{seconds:02} UTC")
}
