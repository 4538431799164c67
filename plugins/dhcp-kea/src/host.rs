//! A reservation in Kea's words, and its way to the interface's words and back.
//!
//! `filename` and `nextServer` become the fields of the DHCP header (`boot-file-name`, `next-server`), as every boot ROM reads them. What a
//! machine needs beside them is [`booting`]'s.

use std::net::Ipv4Addr;

use bulkhead_sdk::dhcp::{self, DhcpOption, Entry, Identifier, OptionValue, Reservation};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::booting::{self, FILE_FIELD};
use crate::failure::Failure;
use crate::options::{self, BOOT_FILE_NAME, Datum};
use crate::prefix::Prefix;

/// The option in which the feature tells which MAC addresses are the same machine's.
const RELATED: &str = "related_macs";

/// By what Kea knows a host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct HostId {
    /// `hw-address`, `client-id`, `duid`, `circuit-id` or `flex-id`.
    pub(crate) kind: &'static str,
    /// Hexadecimal with colons, lower case, where it is hexadecimal.
    pub(crate) value: String,
}

/// One host.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Host {
    /// None: only options are reserved.
    pub(crate) address: Option<Ipv4Addr>,
    pub(crate) id: HostId,
    pub(crate) hostname: String,
    next_server: Option<Ipv4Addr>,
    boot_file: String,
    options: Vec<Datum>,
    /// Only in answers of `reservation-get` and its like.
    pub(crate) subnet_id: Option<u32>,
}

/// As Kea writes it.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Written {
    #[serde(default)]
    ip_address: Option<String>,
    #[serde(default)]
    hw_address: Option<String>,
    #[serde(default)]
    client_id: Option<String>,
    #[serde(default)]
    duid: Option<String>,
    #[serde(default)]
    circuit_id: Option<String>,
    #[serde(default)]
    flex_id: Option<String>,
    #[serde(default)]
    hostname: String,
    #[serde(default)]
    next_server: Option<String>,
    #[serde(default)]
    boot_file_name: String,
    #[serde(default)]
    option_data: Vec<Datum>,
    #[serde(default)]
    subnet_id: Option<u32>,
}

impl<'de> Deserialize<'de> for Host {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let written = Written::deserialize(from)?;
        let ids = [
            written.hw_address,
            written.client_id,
            written.duid,
            written.circuit_id,
            written.flex_id,
        ];
        let (kind, value) = KINDS
            .into_iter()
            .zip(ids)
            .find_map(|(kind, value)| Some((kind, value?)))
            .ok_or_else(|| serde::de::Error::custom("a reservation without an identifier"))?;
        let address = |text: Option<String>| {
            text.and_then(|text| text.parse::<Ipv4Addr>().ok())
                .filter(|address| !address.is_unspecified())
        };
        Ok(Self {
            address: address(written.ip_address),
            id: HostId {
                kind,
                value: colons(&value),
            },
            hostname: written.hostname,
            next_server: address(written.next_server),
            boot_file: written.boot_file_name,
            options: written.option_data,
            subnet_id: written.subnet_id,
        })
    }
}

/// `01AABB` and `01:aa:bb` as `01:aa:bb`; anything else as it is.
pub(crate) fn colons(text: &str) -> String {
    let digits: String = text
        .chars()
        .filter(|character| !matches!(character, ':' | ' ' | '-'))
        .collect();
    let hexadecimal = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !hexadecimal || !digits.len().is_multiple_of(2) {
        return text.to_ascii_lowercase();
    }
    let mut written = String::with_capacity(text.len() + 4);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && index.is_multiple_of(2) {
            written.push(':');
        }
        written.push(digit.to_ascii_lowercase());
    }
    written
}

/// Kinds of identifiers, in the order in which they are looked for.
const KINDS: [&str; 5] = ["hw-address", "client-id", "duid", "circuit-id", "flex-id"];

impl Serialize for HostId {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        (self.kind, &self.value).serialize(to)
    }
}

impl<'de> Deserialize<'de> for HostId {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let (kind, value) = <(String, String)>::deserialize(from)?;
        let known = KINDS.into_iter().find(|known| *known == kind);
        match known {
            Some(kind) => Ok(Self { kind, value }),
            None => Err(serde::de::Error::custom("an unknown kind of identifier")),
        }
    }
}

impl HostId {
    /// What the interface asks for. A client identifier of DHCPv4; a DUID is found by [`HostId::is`] as well.
    pub(crate) fn of(who: &Identifier) -> Self {
        match who {
            Identifier::Hardware(text) => Self {
                kind: "hw-address",
                value: padded(text),
            },
            Identifier::Client(text) => Self {
                kind: "client-id",
                value: colons(text),
            },
        }
    }

    /// True when this is the host that `other` asks for.
    pub(crate) fn is(&self, other: &Self) -> bool {
        let duid = |id: &Self| id.kind == "client-id" || id.kind == "duid";
        self.value == other.value && (self.kind == other.kind || duid(self) && duid(other))
    }

    fn shown(&self) -> Identifier {
        match self.kind {
            "hw-address" => Identifier::Hardware(self.value.clone()),
            _ => Identifier::Client(self.value.clone()),
        }
    }
}

/// Identifiers that the feature says belong to the same machine, whose reservations may share the address.
pub(crate) fn related(wanted: &Reservation) -> Vec<HostId> {
    let listed = wanted.options.iter().find(|option| option.name == RELATED);
    match listed.map(|option| &option.value) {
        Some(OptionValue::Texts(macs)) => macs
            .iter()
            .map(|mac| HostId::of(&Identifier::Hardware(mac.clone())))
            .collect(),
        _ => Vec::new(),
    }
}

/// `A:b:0c` as `0a:0b:0c`.
fn padded(mac: &str) -> String {
    let groups: Vec<String> = mac
        .split(':')
        .map(|group| format!("{group:0>2}").to_ascii_lowercase())
        .collect();
    groups.join(":")
}

impl Host {
    /// Whether both want one address of one subnet, and are cards of different machines.
    pub(crate) fn takes_the_place_of(&self, other: &Self, related: &[HostId]) -> bool {
        self.address == other.address
            && !self.id.is(&other.id)
            && !related.iter().any(|id| id.is(&other.id))
    }

    /// What the feature wants written.
    pub(crate) fn wanted(reservation: &Reservation) -> Result<Self, Failure> {
        let address: Ipv4Addr = reservation.address.parse().map_err(|_| {
            Failure::Refused(format!("`{}` is no IPv4 address", reservation.address))
        })?;
        let mut host = Self {
            address: Some(address),
            id: HostId::of(&reservation.identifier),
            hostname: reservation.name.clone(),
            next_server: None,
            boot_file: String::new(),
            options: Vec::new(),
            subnet_id: None,
        };
        for option in &reservation.options {
            host.take(option)?;
        }
        for datum in booting::options(&host.boot_file, host.next_server, &reservation.options)? {
            host.set(datum);
        }
        if host.boot_file.len() > FILE_FIELD {
            host.boot_file.clear();
        }
        Ok(host)
    }

    fn take(&mut self, option: &DhcpOption) -> Result<(), Failure> {
        let text = match &option.value {
            OptionValue::Text(text) => text.as_str(),
            _ => "",
        };
        match option.name.as_str() {
            "hostname" if !text.is_empty() => text.clone_into(&mut self.hostname),
            "filename" => text.clone_into(&mut self.boot_file),
            "nextServer" if !text.is_empty() => {
                let found = dhcp::boot_server(text).map_err(|why| {
                    Failure::Refused(format!("cannot look up the next server {text}: {why}"))
                })?;
                let address = found.ok_or_else(|| {
                    Failure::Refused(format!(
                        "the next server {text} has no IPv4 address, and Kea takes no name"
                    ))
                })?;
                self.next_server = Some(address);
            }
            vendor if vendor.starts_with('<') => {
                return Err(Failure::Unsupported(
                    "DHCP implementation does not support Vendor Options".to_owned(),
                ));
            }
            // Foreman sends empty fields for what is not set.
            _ if matches!(&option.value, OptionValue::Text(text) if text.is_empty()) => {}
            // Cards of the same machine: read by [`related`].
            RELATED => {}
            // What is no option of DHCP is not Kea's to keep.
            _ => self.options.extend(options::wanted(option)),
        }
        Ok(())
    }

    fn set(&mut self, datum: Datum) {
        if let Some(code) = datum.code {
            let replaces = |other: &Datum| other.space == datum.space && other.code() == Some(code);
            self.options.retain(|other| !replaces(other));
        }
        self.options.push(datum);
    }

    fn option(&self, code: u16) -> Option<String> {
        let found = self.options.iter().find(|datum| datum.is(code));
        found.map(Datum::plain)
    }

    fn file_name(&self) -> Option<String> {
        if self.boot_file.is_empty() {
            self.option(BOOT_FILE_NAME)
        } else {
            Some(self.boot_file.clone())
        }
    }

    /// True when both say the same to a client.
    pub(crate) fn same(&self, other: &Self) -> bool {
        let keys = |host: &Self| {
            let told = host.options.iter();
            let told = told.filter(|datum| !booting::is_shell(datum, &host.options));
            let mut keys: Vec<_> = told.map(Datum::key).collect();
            keys.sort();
            keys
        };
        self.address == other.address
            && self.id.is(&other.id)
            && self.hostname.eq_ignore_ascii_case(&other.hostname)
            && self.next_server == other.next_server
            && self.boot_file == other.boot_file
            && keys(self) == keys(other)
    }

    /// As Kea takes it. `subnet` is needed by `reservation-add` only.
    pub(crate) fn written(&self, subnet: Option<u32>) -> Value {
        let mut value = json!({ self.id.kind: self.id.value });
        let mut put = |key: &str, what: Value| {
            if let Some(map) = value.as_object_mut() {
                map.insert(key.to_owned(), what);
            }
        };
        if let Some(address) = self.address {
            put("ip-address", json!(address.to_string()));
        }
        if !self.hostname.is_empty() {
            put("hostname", json!(self.hostname));
        }
        if let Some(server) = self.next_server {
            put("next-server", json!(server.to_string()));
        }
        if !self.boot_file.is_empty() {
            put("boot-file-name", json!(self.boot_file));
        }
        if !self.options.is_empty() {
            put("option-data", json!(self.options));
        }
        if let Some(id) = subnet {
            put("subnet-id", json!(id));
        }
        value
    }

    /// As the interface shows it; none without an address.
    pub(crate) fn entry(&self, prefix: Prefix, deletable: bool) -> Option<Entry> {
        Some(Entry::Reservation(Reservation {
            subnet: prefix.to_string(),
            address: self.address?.to_string(),
            identifier: self.id.shown(),
            name: self.hostname.clone(),
            deletable,
            options: self.shown(),
        }))
    }

    fn shown(&self) -> Vec<DhcpOption> {
        let text = |name: &str, value: String| DhcpOption {
            name: name.to_owned(),
            value: OptionValue::Text(value),
        };
        let mut shown = Vec::new();
        if !self.hostname.is_empty() {
            shown.push(text("hostname", self.hostname.clone()));
        }
        let file = self.file_name();
        if let Some(file) = &file {
            shown.push(text("filename", file.clone()));
        }
        if let Some(server) = self.next_server {
            shown.push(text("nextServer", server.to_string()));
        }
        let implied = |datum: &Datum| {
            booting::is_implied(datum, file.as_deref(), self.next_server)
                || booting::is_shell(datum, &self.options)
        };
        shown.extend(
            self.options
                .iter()
                .filter(|datum| !implied(datum))
                .map(Datum::shown),
        );
        shown
    }

    /// Where it stands in a list: by address, then identifier.
    pub(crate) fn place(&self) -> (Option<Ipv4Addr>, &HostId) {
        (self.address, &self.id)
    }
}
