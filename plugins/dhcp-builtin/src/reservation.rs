//! A reservation as the store keeps it: JSON, with its options in the order in which Foreman gave them.

use std::net::Ipv4Addr;

use bulkhead_sdk::dhcp::{DhcpOption, OptionValue, Reservation};
use serde_json::{Value, json};

use crate::identity::Client;

/// A reservation.
#[derive(Debug, Clone, PartialEq)]
pub struct Reserved {
    /// The subnet's prefix, as Foreman named it.
    pub subnet: String,
    /// The address.
    pub address: Ipv4Addr,
    /// For whom.
    pub client: Client,
    /// Usually the host's full name.
    pub name: String,
    /// What Foreman gave, in its order.
    pub options: Vec<DhcpOption>,
}

impl Reserved {
    /// The store's key: by address, so that a bond's reservations lie together.
    #[must_use]
    pub fn key(&self) -> String {
        format!("r/{:08x}/{}", u32::from(self.address), self.client)
    }

    /// The store's value.
    #[must_use]
    pub fn value(&self) -> Vec<u8> {
        let option = |it: &DhcpOption| {
            let (kind, value) = match &it.value {
                OptionValue::Text(text) => ("text", json!(text)),
                OptionValue::Integer(number) => ("integer", json!(number)),
                OptionValue::Boolean(value) => ("boolean", json!(value)),
                OptionValue::Texts(texts) => ("texts", json!(texts)),
                OptionValue::Groups(groups) => ("groups", json!(groups)),
            };
            json!([it.name, kind, value])
        };
        let options: Vec<Value> = self.options.iter().map(option).collect();
        json!({"subnet": self.subnet, "name": self.name, "options": options})
            .to_string()
            .into_bytes()
    }

    /// Reads an entry of the store.
    #[must_use]
    pub fn read(key: &str, value: &[u8]) -> Option<Self> {
        let (address, client) = key.strip_prefix("r/")?.split_once('/')?;
        let value: Value = serde_json::from_slice(value).ok()?;
        let option = |it: &Value| {
            let [name, kind, value] = it.as_array()?.as_slice() else {
                return None;
            };
            let value = match kind.as_str()? {
                "text" => OptionValue::Text(value.as_str()?.to_owned()),
                "integer" => OptionValue::Integer(value.as_i64()?),
                "boolean" => OptionValue::Boolean(value.as_bool()?),
                "texts" => OptionValue::Texts(texts(value)?),
                "groups" => {
                    OptionValue::Groups(value.as_array()?.iter().map(texts).collect::<Option<_>>()?)
                }
                _ => return None,
            };
            Some(DhcpOption {
                name: name.as_str()?.to_owned(),
                value,
            })
        };
        Some(Self {
            subnet: value.get("subnet")?.as_str()?.to_owned(),
            address: Ipv4Addr::from(u32::from_str_radix(address, 16).ok()?),
            client: Client::parse(client)?,
            name: value.get("name")?.as_str()?.to_owned(),
            options: value
                .get("options")?
                .as_array()?
                .iter()
                .filter_map(option)
                .collect(),
        })
    }

    /// A text option by the name that the Smart Proxy has for it.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        let option = self.options.iter().find(|option| option.name == name)?;
        match &option.value {
            OptionValue::Text(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    /// As the interface has it.
    #[must_use]
    pub fn record(&self) -> Reservation {
        Reservation {
            subnet: self.subnet.clone(),
            address: self.address.to_string(),
            identifier: self.client.identifier(),
            name: self.name.clone(),
            deletable: true,
            options: self.options.clone(),
        }
    }
}

fn texts(value: &Value) -> Option<Vec<String>> {
    value
        .as_array()?
        .iter()
        .map(|it| it.as_str().map(str::to_owned))
        .collect()
}
