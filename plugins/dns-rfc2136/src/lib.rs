//! The provider `dns-rfc2136`: writes records by dynamic update (RFC 2136), signed with TSIG (RFC 8945) by the host.
//!
//! It sees neither HTTP nor the key. It reaches the servers of its setting `dns_server`, by UDP and TCP, and nothing else.
//!
//! The one idea: [`update`] says what must hold and what shall change, [`exchange`] gets one trusted answer, [`tsig`] lays out
//! what a signature covers.

pub mod error;
pub mod exchange;
pub mod message;
pub mod tsig;
pub mod update;

mod server;

use std::time::Duration;

use bulkhead_sdk::dns::{DnsProvider, DnsRecord, Error, RecordType};
use bulkhead_sdk::prelude::*;

use error::Problem;
use exchange::Servers;
use server::{HostKey, addresses};

/// For one operation over all servers; below the 30 seconds after which the host gives a call up.
const TIME: Duration = Duration::from_secs(26);

struct Rfc2136;

impl Plugin for Rfc2136 {
    fn describe() -> Manifest {
        Manifest::new(
            "dns-rfc2136",
            env!("CARGO_PKG_VERSION"),
            "Writes DNS records by dynamic update",
        )
        .need(Need::tcp_and_udp(
            "server",
            "sends updates to the DNS servers that the operator names",
        ))
        .need(
            Need::secret(
                "key",
                "has updates signed with the TSIG key, which it does not see",
            )
            .optional(),
        )
        .setting(
            Setting::texts(
                "dns_server",
                "The servers to update, each a name or address, with a port if it is not 53",
            )
            .default(&["localhost"][..])
            .required(),
        )
        .setting(Setting::path(
            "dns_key",
            "The TSIG key's file, in BIND's form; without one, updates are not signed",
        ))
    }

    fn status() -> Status {
        match HostKey::granted() {
            Ok(_) => Status::working(),
            Err(problem) => Status::failing(problem.to_string()),
        }
    }
}

impl DnsProvider for Rfc2136 {
    fn find(name: String, kind: RecordType) -> Result<Vec<DnsRecord>, Error> {
        with_servers(|servers| update::find(servers, &name, kind))
    }

    fn create(wanted: DnsRecord) -> Result<bool, Error> {
        with_servers(|servers| update::create(servers, &wanted))
    }

    fn remove(name: String, kind: RecordType, value: Option<String>) -> Result<bool, Error> {
        with_servers(|servers| update::remove(servers, &name, kind, value.as_deref()))
    }
}

bulkhead_sdk::export_dns_provider!(Rfc2136);

fn with_servers<T>(work: impl FnOnce(&Servers<'_>) -> Result<T, Problem>) -> Result<T, Error> {
    let attempt = || {
        let key = HostKey::granted()?;
        let signer = key.as_ref().map(|key| key as &dyn tsig::Signer);
        let names = settings::texts("dns_server").unwrap_or_default();
        work(&Servers::new(addresses(&names)?, signer, TIME))
    };
    attempt().map_err(Error::from)
}
