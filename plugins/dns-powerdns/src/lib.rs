//! The provider `dns-powerdns`: writes records by the HTTP API of a PowerDNS Authoritative Server.
//!
//! It never sees the API key: the host puts it into the requests. It reaches the one server of its policy.
//!
//! The one idea: that API knows no precondition, so this plugin is one instance that works call by call; between its reading and
//! its writing no other call of this proxy can come. What others write at that moment is not noticed; `dns-rfc2136` has no such gap.

mod api;
#[cfg(not(target_arch = "wasm32"))]
#[doc(hidden)]
pub mod fuzz;

use std::net::Ipv6Addr;

use bulkhead_sdk::dns::{DnsProvider, DnsRecord, Error, RecordType};
use bulkhead_sdk::prelude::*;

use api::{Change, Content, RecordSet};

struct PowerDns;

impl Plugin for PowerDns {
    fn describe() -> Manifest {
        Manifest::new(
            "dns-powerdns",
            env!("CARGO_PKG_VERSION"),
            "Writes DNS records by the API of a PowerDNS server",
        )
        .single_instance()
        .need(Need::http(
            "api",
            "reads zones and changes records of the PowerDNS server",
        ))
        .need(Need::secret(
            "api-key",
            "lets the host put the API key into requests; the plugin does not see it",
        ))
        .setting(
            Setting::url(
                "powerdns_rest_url",
                "The API's URL of one server, up to its name",
            )
            .default("http://localhost:8081/api/v1/servers/localhost")
            .required(),
        )
        .setting(
            Setting::path("powerdns_rest_api_key", "The file that holds the API key").required(),
        )
    }
}

impl DnsProvider for PowerDns {
    fn find(name: String, kind: RecordType) -> Result<Vec<DnsRecord>, Error> {
        let owner = dotted(&name);
        let sets = api::sets_of(&api::zone_of(&owner)?, &owner)?;
        let set = set_of(&sets, kind);
        Ok(set
            .records
            .iter()
            .map(|record| DnsRecord {
                name: name.clone(),
                kind,
                value: plain(kind, &record.content),
                ttl: set.ttl,
            })
            .collect())
    }

    fn create(wanted: DnsRecord) -> Result<bool, Error> {
        let owner = dotted(&wanted.name);
        let zone = api::zone_of(&owner)?;
        let sets = api::sets_of(&zone, &owner)?;
        let mut records = set_of(&sets, wanted.kind).records;
        if records
            .iter()
            .any(|record| plain(wanted.kind, &record.content) == plain(wanted.kind, &wanted.value))
        {
            return Ok(false);
        }
        let in_the_way = |set: &&RecordSet| match wanted.kind {
            RecordType::Cname => true,
            RecordType::Srv => set.kind == "CNAME",
            RecordType::A | RecordType::Aaaa | RecordType::Ptr => {
                set.kind == "CNAME" || set.kind == api::word(wanted.kind)
            }
        };
        if let Some(set) = sets
            .iter()
            .filter(|set| !set.records.is_empty())
            .find(in_the_way)
        {
            let values: Vec<&str> = set
                .records
                .iter()
                .map(|record| record.content.as_str())
                .collect();
            return Err(Error::Conflict(format!(
                "{} has {} {}",
                wanted.name,
                set.kind,
                values.join(", ")
            )));
        }
        records.push(Content {
            content: content(wanted.kind, &wanted.value),
            disabled: false,
        });
        let change = Change {
            name: &owner,
            kind: api::word(wanted.kind),
            changetype: "REPLACE",
            ttl: Some(wanted.ttl),
            records,
        };
        api::change(&zone, &[change])?;
        Ok(true)
    }

    fn remove(name: String, kind: RecordType, value: Option<String>) -> Result<bool, Error> {
        let owner = dotted(&name);
        let zone = api::zone_of(&owner)?;
        let set = set_of(&api::sets_of(&zone, &owner)?, kind);
        let goes = |record: &Content| {
            value
                .as_ref()
                .is_none_or(|value| plain(kind, &record.content) == plain(kind, value))
        };
        let stays: Vec<Content> = set
            .records
            .iter()
            .filter(|record| !goes(record))
            .cloned()
            .collect();
        if stays.len() == set.records.len() {
            return Ok(false);
        }
        let (changetype, ttl) = if stays.is_empty() {
            ("DELETE", None)
        } else {
            ("REPLACE", Some(set.ttl))
        };
        api::change(
            &zone,
            &[Change {
                name: &owner,
                kind: api::word(kind),
                changetype,
                ttl,
                records: stays,
            }],
        )?;
        Ok(true)
    }
}

bulkhead_sdk::export_dns_provider!(PowerDns);

fn set_of(sets: &[RecordSet], kind: RecordType) -> RecordSet {
    sets.iter()
        .find(|set| set.kind == api::word(kind))
        .cloned()
        .unwrap_or_default()
}

/// PowerDNS writes every name with the dot at the end.
fn dotted(name: &str) -> String {
    format!("{}.", name.trim_end_matches('.').to_ascii_lowercase())
}

/// A value as PowerDNS writes it.
fn content(kind: RecordType, value: &str) -> String {
    match kind {
        RecordType::A | RecordType::Aaaa => value.to_owned(),
        RecordType::Cname | RecordType::Ptr | RecordType::Srv => dotted(value),
    }
}

/// A value of either side in one form, to be compared and shown.
fn plain(kind: RecordType, value: &str) -> String {
    match kind {
        RecordType::A => value.to_owned(),
        RecordType::Aaaa => value
            .parse::<Ipv6Addr>()
            .map_or_else(|_| value.to_owned(), |address| address.to_string()),
        RecordType::Cname | RecordType::Ptr | RecordType::Srv => {
            value.trim_end_matches('.').to_ascii_lowercase()
        }
    }
}

#[cfg(test)]
mod tests;
