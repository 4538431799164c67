//! Reservations by the hook library `host_cmds`: each a command of its own, decided by Kea in one step.
//!
//! With a host database they go there. Without one they go into the running configuration (`operation-target` `memory`) and Kea is told
//! to write its file; if it cannot, the reservation is taken back.

use bulkhead_sdk::log;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::{Config, Known};
use crate::failure::Failure;
use crate::host::{Host, HostId};
use crate::lock::Lock;
use crate::server::Kea;

/// True when it is loaded.
pub(crate) fn is_loaded(kea: &Kea) -> bool {
    kea.has("reservation-add") && kea.has("reservation-get-page")
}

#[derive(Deserialize)]
struct Hosts {
    #[serde(default)]
    hosts: Vec<Host>,
    #[serde(default)]
    next: Option<Next>,
}

/// Where the next page begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Next {
    #[serde(default)]
    pub(crate) source_index: u64,
    #[serde(default)]
    pub(crate) from: u64,
}

/// One page of a subnet's reservations, and where the next begins.
pub(crate) fn page(
    kea: &Kea,
    subnet: &Known,
    next: Next,
    limit: u32,
) -> Result<(Vec<Host>, Option<Next>), Failure> {
    let said = kea.ask(
        "reservation-get-page",
        &json!({ "subnet-id": subnet.id, "source-index": next.source_index, "from": next.from, "limit": limit }),
    )?;
    if said.result == 3 {
        return Ok((Vec::new(), None));
    }
    let Hosts { hosts, next } = said.read()?;
    let more = next.filter(|_| !hosts.is_empty());
    Ok((hosts, more))
}

/// All of an address.
pub(crate) fn by_address(kea: &Kea, subnet: &Known, address: &str) -> Result<Vec<Host>, Failure> {
    let arguments = json!({ "subnet-id": subnet.id, "ip-address": address });
    if kea.has("reservation-get-by-address") {
        let said = kea.ask("reservation-get-by-address", &arguments)?;
        if said.result == 3 {
            return Ok(Vec::new());
        }
        let found: Hosts = said.read()?;
        return Ok(found.hosts);
    }
    one(kea, &arguments)
}

/// That of an identifier: there is at most one in a subnet.
pub(crate) fn by_id(kea: &Kea, subnet: &Known, id: &HostId) -> Result<Vec<Host>, Failure> {
    let ask = |kind: &str| {
        let arguments =
            json!({ "subnet-id": subnet.id, "identifier-type": kind, "identifier": id.value });
        one(kea, &arguments)
    };
    let mut found = ask(id.kind)?;
    if found.is_empty() && id.kind == "client-id" {
        found = ask("duid")?;
    }
    Ok(found)
}

fn one(kea: &Kea, arguments: &Value) -> Result<Vec<Host>, Failure> {
    let said = kea.ask("reservation-get", arguments)?;
    if said.result == 3 || said.arguments.is_none() {
        return Ok(Vec::new());
    }
    Ok(vec![said.read()?])
}

/// Adds a reservation. False: an equal one is there.
///
/// Where several hosts may share an address, Kea does not look whose they are. Then it is looked up here, by one caller at a time.
pub(crate) fn add(
    kea: &Kea,
    config: &Config,
    subnet: &Known,
    host: &Host,
    related: &[HostId],
) -> Result<bool, Failure> {
    let mut lock = match config.unique_addresses {
        true => None,
        false => Some(Lock::take(kea.until())?),
    };
    if let Some(there) = by_id(kea, subnet, &host.id)?.first() {
        return verdict(there, host).map(|()| false);
    }
    if (!config.unique_addresses || !related.is_empty())
        && let Some(address) = host.address
    {
        let there = by_address(kea, subnet, &address.to_string())?;
        check_address(config, &there, host, related)?;
    }
    if let Some(lock) = &mut lock {
        lock.renew()?;
    }
    let mut arguments = json!({ "reservation": host.written(Some(subnet.id)) });
    if !config.has_hosts_database {
        target(&mut arguments, "memory");
    }
    if let Err(why) = kea.ask("reservation-add", &arguments) {
        return lost_to_another(kea, subnet, host, why);
    }
    if !config.has_hosts_database
        && let Err(why) = kea.ask_raw("config-write", None)
    {
        delete(kea, subnet, host, "memory")?;
        return Err(why);
    }
    Ok(true)
}

/// Refuses an address that another machine has, and one of the same machine if Kea takes no second.
pub(crate) fn check_address(
    config: &Config,
    there: &[Host],
    host: &Host,
    related: &[HostId],
) -> Result<(), Failure> {
    if let Some(other) = there
        .iter()
        .find(|other| host.takes_the_place_of(other, related))
    {
        return verdict(other, host);
    }
    let shared = there.iter().find(|other| other.address == host.address);
    match shared.filter(|_| config.unique_addresses) {
        Some(other) => Err(Failure::Refused(format!(
            "Kea has a reservation of that address for {}, and takes no second one, of the same machine either: set \"ip-reservations-unique\" to false",
            other.id.value
        ))),
        None => Ok(()),
    }
}

/// Kea says "error" for whatever it refuses. Whether it was a conflict is seen by looking.
fn lost_to_another(kea: &Kea, subnet: &Known, host: &Host, why: Failure) -> Result<bool, Failure> {
    let Failure::Said {
        result: 1, text, ..
    } = &why
    else {
        return Err(why);
    };
    if let Some(there) = by_id(kea, subnet, &host.id)?.first() {
        return verdict(there, host).map(|()| false);
    }
    let address = host.address.map(|address| address.to_string());
    let there = match &address {
        Some(address) => by_address(kea, subnet, address)?,
        None => Vec::new(),
    };
    if there.is_empty() {
        return Err(why);
    }
    Err(Failure::Conflict(text.clone()))
}

/// An equal reservation is fine, any other a conflict.
pub(crate) fn verdict(there: &Host, wanted: &Host) -> Result<(), Failure> {
    if there.same(wanted) {
        return Ok(());
    }
    let place = there
        .address
        .map_or_else(|| "no address".to_owned(), |address| address.to_string());
    Err(Failure::Conflict(format!(
        "Kea has a reservation of {place} for {} ({})",
        there.id.value, there.hostname
    )))
}

/// Removes these. True: something was removed.
pub(crate) fn remove(
    kea: &Kea,
    config: &Config,
    subnet: &Known,
    hosts: &[Host],
) -> Result<bool, Failure> {
    let mut removed = false;
    let mut write = false;
    for host in hosts {
        let here = delete(kea, subnet, host, "memory")?;
        write |= here;
        removed |= here;
        if config.has_hosts_database {
            removed |= delete(kea, subnet, host, "database")?;
        }
    }
    if write {
        // The reservation is gone from the running server in any case; it must not come back with its next start unnoticed.
        kea.ask_raw("config-write", None).inspect_err(|why| {
            log::error(format!(
                "Kea removed a reservation but did not write its configuration: {why}"
            ));
        })?;
    }
    Ok(removed)
}

fn delete(kea: &Kea, subnet: &Known, host: &Host, place: &str) -> Result<bool, Failure> {
    let mut arguments = json!({
        "subnet-id": subnet.id,
        "identifier-type": host.id.kind,
        "identifier": host.id.value,
    });
    target(&mut arguments, place);
    Ok(kea.ask("reservation-del", &arguments)?.result == 0)
}

fn target(arguments: &mut Value, place: &str) {
    if let Some(map) = arguments.as_object_mut() {
        map.insert("operation-target".to_owned(), json!(place));
    }
}
