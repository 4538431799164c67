//! The provider `dhcp-kea`: reads and writes the reservations of a Kea DHCPv4 server by its control API, and reads its leases.
//!
//! It reaches the one URL of its policy and nothing else, whether the Control Agent answers there (Kea 2.x, 3.0) or the DHCP server itself (3.x). It
//! sees no password and no key: the host puts them into requests. It refuses to change a configuration that it has not just read.
//!
//! The one idea: Kea is the truth. Nothing is kept here but a copy of the configuration that is checked before each use.
//!
//! - [`server`], [`wire`], [`failure`]: asking Kea, and what it answers
//! - [`config`], [`host`], [`options`], [`booting`], [`prefix`]: Kea's words, and those of the interface
//! - [`hook`]: writing with `host_cmds`; [`rewrite`], [`wish`], [`splice`], [`lock`], [`queue`]: writing without it
//! - [`lease`], [`memfile`]: leases by `lease_cmds`, or from Kea's file

mod booting;
mod config;
mod failure;
mod hook;
mod host;
mod lease;
mod list;
mod lock;
mod memfile;
mod options;
mod prefix;
mod queue;
mod rewrite;
mod server;
mod splice;
mod wire;
mod wish;

#[doc(hidden)]
pub mod fuzz;

use std::net::Ipv4Addr;

use bulkhead_sdk::dhcp::{DhcpProvider, Entry, Error, Identifier, Page, Reservation, Subnet};
use bulkhead_sdk::prelude::*;

use failure::Failure;
use host::{Host, HostId};
use server::Kea;
use wish::Wish;

/// The plugin.
#[derive(Debug)]
pub struct DhcpKea;

impl Plugin for DhcpKea {
    fn describe() -> Manifest {
        Manifest::new(
            "dhcp-kea",
            env!("CARGO_PKG_VERSION"),
            "Reads and writes the reservations of a Kea DHCPv4 server by its control API",
        )
        .need(Need::http(
            wire::SLOT,
            "sends commands to Kea's control API",
        ))
        .need(
            Need::secret(
                "credentials",
                "lets the host put user and password into requests; the plugin does not see them",
            )
            .optional(),
        )
        .need(Need::store(
            lock::SLOT,
            Access::ReadWrite,
            "keeps one lock, so that one change of Kea's configuration is made at a time, and the changes that wait for it",
        ))
        .need(
            Need::names(
                "next-server",
                "looks up the TFTP server that Foreman names, because Kea wants its address",
            )
            .optional(),
        )
        .need(
            Need::watch(
                memfile::SLOT,
                "reads Kea's lease file where the hook library `lease_cmds` is not loaded",
            )
            .optional(),
        )
        .setting(
            Setting::url(
                "dhcp_kea_url",
                "The URL of Kea's Control Agent, or of the DHCPv4 server's own HTTP socket",
            )
            .default("http://127.0.0.1:8000/")
            .required(),
        )
        .setting(Setting::path(
            "dhcp_kea_credentials",
            "A file with `user:password` for Kea's control API",
        ))
        .setting(Setting::path(
            memfile::DIRECTORY,
            "The directory of Kea's lease file, needed without the hook library `lease_cmds`",
        ))
    }

    fn status() -> Status {
        let works = Kea::call(|kea| {
            let config = config::current(kea)?;
            list::check(kea, &config)?;
            // One lease of one subnet shows whether leases can be read.
            let leases = lease::Leases::of(kea, &config)?;
            match config.subnets.first() {
                Some(subnet) => leases.page(subnet.prefix, None, 1).map(drop),
                None => Ok(()),
            }
        });
        match works {
            Ok(()) => Status::working(),
            Err(why) => Status::failing(why.to_string()),
        }
    }
}

impl DhcpProvider for DhcpKea {
    fn subnets() -> Result<Vec<Subnet>, Error> {
        asked(|kea| {
            let config = config::current(kea)?;
            Ok(config.subnets.iter().map(config::Known::shown).collect())
        })
    }

    fn entries(subnet: String, cursor: Option<String>, limit: u32) -> Result<Page, Error> {
        asked(|kea| {
            let config = config::current(kea)?;
            list::page(
                kea,
                &config,
                config.subnet(&subnet)?,
                cursor,
                limit.clamp(1, 1000),
            )
        })
    }

    fn by_address(subnet: String, address: String) -> Result<Vec<Entry>, Error> {
        asked(|kea| {
            let config = config::current(kea)?;
            let known = config.subnet(&subnet)?;
            let Ok(address) = address.parse::<Ipv4Addr>() else {
                return Ok(Vec::new());
            };
            let hosts = list::hosts_of_address(kea, &config, known, address)?;
            let leases = lease::Leases::of(kea, &config)?.of_address(address)?;
            let leases = leases.filter(|lease| known.prefix.contains(lease.address));
            Ok(list::entries(known.prefix, hosts, leases))
        })
    }

    fn by_identifier(subnet: String, who: Identifier) -> Result<Vec<Entry>, Error> {
        asked(|kea| {
            let config = config::current(kea)?;
            let known = config.subnet(&subnet)?;
            let id = HostId::of(&who);
            let hosts = list::hosts_of_id(kea, &config, known, &id)?;
            let leases = lease::Leases::of(kea, &config)?.of_client(known.prefix, &id)?;
            Ok(list::entries(known.prefix, hosts, leases))
        })
    }

    fn in_use(subnet: String, addresses: Vec<String>) -> Result<Vec<bool>, Error> {
        asked(|kea| {
            let config = config::current(kea)?;
            list::in_use(kea, &config, config.subnet(&subnet)?, &addresses)
        })
    }

    fn add(wanted: Reservation) -> Result<bool, Error> {
        let added = Kea::call(|kea| {
            let host = Host::wanted(&wanted)?;
            let related = host::related(&wanted);
            let config = config::current(kea)?;
            let subnet = config.subnet(&wanted.subnet)?;
            list::check(kea, &config)?;
            if hook::is_loaded(kea) {
                return hook::add(kea, &config, subnet, &host, &related);
            }
            let wish = Wish::Add {
                subnet: wanted.subnet.clone(),
                host: host.written(None),
                related,
            };
            rewrite::change(kea, wish)
        });
        added.map_err(|why| booting::explained(why).into_error())
    }

    fn remove(
        subnet: String,
        address: Option<String>,
        who: Option<Identifier>,
    ) -> Result<bool, Error> {
        asked(|kea| {
            let address: Option<Ipv4Addr> = address.as_deref().and_then(|text| text.parse().ok());
            let id = who.as_ref().map(HostId::of);
            if address.is_none() && id.is_none() {
                return Ok(false);
            }
            let config = config::current(kea)?;
            let known = config.subnet(&subnet)?;
            list::check(kea, &config)?;
            let wish = Wish::Remove {
                subnet: subnet.clone(),
                address,
                id: id.clone(),
            };
            let mut global = config.global_in(known.prefix);
            if let Some(host) = global.find(|host| wish.removes(host)) {
                let address = host.address.map(|address| address.to_string());
                return Err(Failure::NotDeletable(format!(
                    "{} is reserved for {} by a global reservation of Kea's configuration, which is not changed here",
                    address.unwrap_or_default(),
                    host.id.value
                )));
            }
            if hook::is_loaded(kea) {
                let mut hosts = match (&id, address) {
                    (Some(id), _) => hook::by_id(kea, known, id)?,
                    (None, Some(address)) => hook::by_address(kea, known, &address.to_string())?,
                    (None, None) => Vec::new(),
                };
                hosts.retain(|host| wish.removes(host));
                return hook::remove(kea, &config, known, &hosts);
            }
            // Whoever waits may be about to add it.
            if !known.hosts.iter().any(|host| wish.removes(host)) && queue::is_empty()? {
                return Ok(false);
            }
            rewrite::change(kea, wish)
        })
    }
}

bulkhead_sdk::export_dhcp_provider!(DhcpKea);

/// One call of the interface.
fn asked<T>(work: impl FnOnce(&Kea) -> Result<T, Failure>) -> Result<T, Error> {
    Kea::call(work).map_err(Failure::into_error)
}

#[cfg(test)]
mod tests;
