//! One change of the reservations in Kea's configuration, as it waits in the store and as it is made in a text.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::Config;
use crate::failure::Failure;
use crate::hook;
use crate::host::{Host, HostId};
use crate::splice;

/// What a caller wants changed. Subnets are written as prefixes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Wish {
    /// `host` as Kea takes it; `related` are other cards of the same machine.
    Add {
        subnet: String,
        host: Value,
        related: Vec<HostId>,
    },
    /// All reservations of that address, of that identifier, or of both.
    Remove {
        subnet: String,
        address: Option<Ipv4Addr>,
        id: Option<HostId>,
    },
}

impl Wish {
    /// The text with the change made; none if there is nothing to do. `config` is what the text says, and says afterwards what the new text says.
    pub(crate) fn made_in(
        &self,
        config: &mut Config,
        text: &str,
    ) -> Result<Option<String>, Failure> {
        match self {
            Self::Add {
                subnet,
                host,
                related,
            } => {
                let host: Host = serde_json::from_value(host.clone())
                    .map_err(|why| Failure::Refused(why.to_string()))?;
                let known = config.subnet(subnet)?;
                if let Some(there) = known.hosts.iter().find(|there| there.id.is(&host.id)) {
                    return hook::verdict(there, &host).map(|()| None);
                }
                hook::check_address(config, &known.hosts, &host, related)?;
                let text = splice::with_added(text, known.id, &host)?;
                config.subnet_mut(subnet)?.insert(host);
                Ok(Some(text))
            }
            Self::Remove { subnet, .. } => {
                let known = config.subnet_mut(subnet)?;
                let (text, removed) =
                    splice::with_removed(text, known.id, |host| self.removes(host))?;
                known.hosts.retain(|host| !self.removes(host));
                Ok((removed > 0).then_some(text))
            }
        }
    }

    /// Whether this is a removal that means that host.
    pub(crate) fn removes(&self, host: &Host) -> bool {
        match self {
            Self::Add { .. } => false,
            Self::Remove { address, id, .. } => {
                (address.is_some() || id.is_some())
                    && address.is_none_or(|address| host.address == Some(address))
                    && id.as_ref().is_none_or(|id| host.id.is(id))
            }
        }
    }
}
