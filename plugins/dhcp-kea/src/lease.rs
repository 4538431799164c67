//! Leases: by the hook library `lease_cmds`, else from the lease file.
//!
//! It refuses to guess: without either, whoever asks for leases gets an error that says what to load or to grant, since an address that is leased but
//! looks free would be given to a second machine.

use std::net::Ipv4Addr;

use bulkhead_sdk::dhcp::{DhcpOption, Entry, Identifier, Lease, OptionValue};
use serde::Deserialize;
use serde_json::json;

use crate::config::Config;
use crate::failure::Failure;
use crate::host::{HostId, colons};
use crate::memfile;
use crate::prefix::Prefix;
use crate::server::Kea;

/// Leases asked for in one command.
const PAGE: u32 = 1000;

/// One lease that holds its address.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Held {
    pub(crate) address: Ipv4Addr,
    pub(crate) hardware: String,
    pub(crate) client: String,
    /// Seconds since 1970 and seconds.
    pub(crate) starts: i64,
    pub(crate) lasts: i64,
    pub(crate) state: u32,
    pub(crate) hostname: String,
}

/// Kea's numbers for a lease's state. A reclaimed or released one holds nothing.
fn holds(state: u32) -> bool {
    !matches!(state, 2 | 3)
}

impl Held {
    fn is(&self, id: &HostId) -> bool {
        match id.kind {
            "hw-address" => self.hardware == id.value,
            _ => self.client == id.value,
        }
    }

    /// As the interface shows it.
    pub(crate) fn entry(&self, prefix: Prefix) -> Entry {
        let identifier = if self.hardware.is_empty() {
            Identifier::Client(self.client.clone())
        } else {
            Identifier::Hardware(self.hardware.clone())
        };
        let text = |name: &str, value: &str| DhcpOption {
            name: name.to_owned(),
            value: OptionValue::Text(value.to_owned()),
        };
        let mut options = Vec::new();
        if !self.client.is_empty() {
            options.push(text("uid", &self.client));
        }
        if !self.hostname.is_empty() {
            options.push(text("client_hostname", self.hostname.trim_end_matches('.')));
        }
        Entry::Lease(Lease {
            subnet: prefix.to_string(),
            address: self.address.to_string(),
            identifier,
            starts: Some(self.starts),
            ends: Some(self.starts.saturating_add(self.lasts)),
            state: Some(word(self.state)),
            options,
        })
    }
}

fn word(state: u32) -> String {
    match state {
        0 => "active".to_owned(),
        1 => "declined".to_owned(),
        4 => "registered".to_owned(),
        other => format!("state-{other}"),
    }
}

/// As `lease_cmds` writes it.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Written {
    ip_address: Ipv4Addr,
    #[serde(default)]
    hw_address: String,
    #[serde(default)]
    client_id: String,
    #[serde(default)]
    cltt: i64,
    #[serde(default)]
    valid_lft: i64,
    #[serde(default)]
    state: u32,
    #[serde(default)]
    hostname: String,
}

impl From<Written> for Held {
    fn from(written: Written) -> Self {
        Self {
            address: written.ip_address,
            hardware: colons(&written.hw_address),
            client: colons(&written.client_id),
            starts: written.cltt,
            lasts: written.valid_lft,
            state: written.state,
            hostname: written.hostname,
        }
    }
}

#[derive(Deserialize)]
struct Many {
    #[serde(default)]
    leases: Vec<Written>,
}

/// Where leases are read.
pub(crate) enum Leases<'a> {
    Hook(&'a Kea),
    /// The name of the file in the granted directory.
    File(String),
}

impl<'a> Leases<'a> {
    /// The way that is open, the hook before the file.
    pub(crate) fn of(kea: &'a Kea, config: &Config) -> Result<Self, Failure> {
        if kea.has("lease4-get-page") {
            return Ok(Self::Hook(kea));
        }
        let Some(path) = &config.lease_file else {
            return Err(Failure::Unsupported(
                "Kea keeps its leases in a database, or in memory only: load the hook library `lease_cmds`"
                    .to_owned(),
            ));
        };
        let name = path.rsplit('/').next().unwrap_or_default();
        let name = if name.is_empty() {
            "kea-leases4.csv"
        } else {
            name
        };
        Ok(Self::File(name.to_owned()))
    }

    /// At most `limit` leases of the subnet behind that address, in order of address. Fewer only at the end.
    pub(crate) fn page(
        &self,
        prefix: Prefix,
        after: Option<Ipv4Addr>,
        limit: u32,
    ) -> Result<Vec<Held>, Failure> {
        let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut after = match after {
            Some(after) => Some(after),
            None => u32::from(prefix.first()).checked_sub(1).map(Ipv4Addr::from),
        };
        match self {
            Self::File(name) => memfile::with(name, |leases| leases.after(prefix, after, wanted)),
            Self::Hook(kea) => {
                let mut found = Vec::new();
                loop {
                    let from = after.map_or_else(|| "start".to_owned(), |after| after.to_string());
                    let said = kea.ask(
                        "lease4-get-page",
                        &json!({ "from": from, "limit": limit.clamp(1, PAGE) }),
                    )?;
                    if said.result == 3 {
                        return Ok(found);
                    }
                    let Many { leases } = said.read()?;
                    let full = leases.len() >= usize::try_from(limit.clamp(1, PAGE)).unwrap_or(0);
                    let mut beyond = false;
                    for lease in leases {
                        // A server that does not go forward would be asked for ever.
                        if after.is_some_and(|after| lease.ip_address <= after) {
                            return Err(Failure::Junk(
                                "lease4-get-page: addresses out of order".to_owned(),
                            ));
                        }
                        after = Some(lease.ip_address);
                        beyond |= lease.ip_address > prefix.last();
                        if prefix.contains(lease.ip_address)
                            && holds(lease.state)
                            && found.len() < wanted
                        {
                            found.push(lease.into());
                        }
                    }
                    if !full || beyond || found.len() >= wanted {
                        return Ok(found);
                    }
                }
            }
        }
    }

    /// The lease of an address.
    pub(crate) fn of_address(&self, address: Ipv4Addr) -> Result<Option<Held>, Failure> {
        match self {
            Self::File(name) => memfile::with(name, |leases| leases.get(address)),
            Self::Hook(kea) => {
                let said = kea.ask("lease4-get", &json!({ "ip-address": address.to_string() }))?;
                if said.result == 3 {
                    return Ok(None);
                }
                let lease: Written = said.read()?;
                Ok(holds(lease.state).then(|| lease.into()))
            }
        }
    }

    /// The leases of a client in that subnet.
    pub(crate) fn of_client(&self, prefix: Prefix, id: &HostId) -> Result<Vec<Held>, Failure> {
        let kea = match self {
            Self::File(name) => {
                return memfile::with(name, |leases| {
                    let mut all = leases.after(prefix, None, usize::MAX);
                    all.retain(|lease| lease.is(id));
                    all
                });
            }
            Self::Hook(kea) => kea,
        };
        let said = match id.kind {
            "hw-address" => kea.ask(
                "lease4-get-by-hw-address",
                &json!({ "hw-address": id.value }),
            )?,
            _ => kea.ask("lease4-get-by-client-id", &json!({ "client-id": id.value }))?,
        };
        if said.result == 3 {
            return Ok(Vec::new());
        }
        let Many { leases } = said.read()?;
        Ok(leases
            .into_iter()
            .filter(|lease| prefix.contains(lease.ip_address) && holds(lease.state))
            .map(Held::from)
            .collect())
    }
}
