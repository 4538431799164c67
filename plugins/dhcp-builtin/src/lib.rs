//! The service and provider `dhcp-builtin`: a DHCPv4 server, and what lets Foreman fill it with reservations.
//!
//! It answers on the interfaces that the operator names, and on none by itself. It keeps reservations and leases in the store, opens no connection, and
//! sees no zone and no file.
//!
//! The one idea: the provider writes reservations, the service writes leases, both to one store, and each follows what the other did. [`server`]
//! is the protocol, [`proxy`] what is told where another server gives the addresses, [`provider`] what Foreman asks, [`book`] what both know.

mod answer;
pub mod book;
pub mod boot;
mod choose;
mod exchange;
mod flood;
#[cfg(not(target_arch = "wasm32"))]
pub mod fuzz;
pub mod identity;
pub mod lease;
mod offers;
pub mod packet;
pub mod provider;
mod proxy;
pub mod reservation;
pub mod server;
pub mod subnets;

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

use bulkhead_sdk::dhcp::{DhcpProvider, Entry, Error, Identifier, Page, Reservation, Subnet};
use bulkhead_sdk::prelude::*;
use bulkhead_sdk::reactor::{Datagram, Reaction, Service};

use book::{Book, SLOT};
use provider::Desk;
use server::Server;
use subnets::Config;

/// Boot files by IANA's "Processor Architecture Types". Each kind of UEFI has two numbers, the second for booting over HTTP.
pub const BOOT_FILES: &[&str] = &[
    "0=pxelinux.0",
    "6=grub2/grubia32.efi",
    "15=grub2/grubia32.efi",
    "7=grub2/grubx64.efi",
    "16=grub2/grubx64.efi",
    // EFI byte code by the registry; RFC 4578 as it was printed says x64, and firmware followed it.
    "9=grub2/grubx64.efi",
    "10=grub2/grubarm.efi",
    "18=grub2/grubarm.efi",
    "11=grub2/grubaa64.efi",
    "19=grub2/grubaa64.efi",
    "27=grub2/grubriscv64.efi",
    "28=grub2/grubriscv64.efi",
    "39=grub2/grubloongarch64.efi",
    "40=grub2/grubloongarch64.efi",
];

/// The server.
#[derive(Debug)]
pub struct DhcpBuiltin;

impl Plugin for DhcpBuiltin {
    fn describe() -> Manifest {
        Manifest::new(
            "dhcp-builtin",
            env!("CARGO_PKG_VERSION"),
            "Gives machines their addresses, and takes reservations for them",
        )
        .need(
            Need::link("network", "answers machines that have no address yet, on the named interfaces")
                .optional(),
        )
        .need(
            Need::link(proxy::SHOUTED, "tells machines what to boot where another server gives the addresses")
                .optional(),
        )
        .need(
            Need::link(proxy::ASKED, "the same at port 4011, where some of them ask once more")
                .optional(),
        )
        .need(Need::store(SLOT, Access::ReadWrite, "keeps reservations and leases"))
        .need(
            Need::probe("addresses", "asks whether somebody uses an address before it is offered")
                .optional(),
        )
        .setting(Setting::texts(
            "interfaces",
            "The network interfaces to answer on. Unset: none, and only reservations are kept",
        ))
        .setting(Setting::texts(
            "proxy_interfaces",
            "The network interfaces where another server gives the addresses, and this one only says what to boot (ProxyDHCP)",
        ))
        .setting(Setting::texts(
            "subnets",
            "The subnets, each a prefix and words: `192.0.2.0/24 range=192.0.2.100-192.0.2.200 routers=192.0.2.1`",
        ))
        .setting(number("lease_time", "Seconds of a lease, at least 60", 43_200))
        .setting(Setting::texts("dns_servers", "DNS servers of subnets that name none"))
        .setting(Setting::text("domain", "The domain of subnets that name none"))
        .setting(Setting::texts("ntp_servers", "Time servers of subnets that name none"))
        .setting(Setting::text(
            "next_server",
            "The TFTP server's address for hosts and subnets that name none. Unset: this machine",
        ))
        .setting(
            Setting::texts(
                "boot_files",
                "Boot files of hosts whose reservation names none, each `ARCHITECTURE=FILE`, below the TFTP root or a URL; `ipxe` is iPXE",
            )
            .default(BOOT_FILES),
        )
        .setting(
            Setting::boolean("authoritative", "Whether a client with a wrong address is told so at once")
                .default(true)
                .required(),
        )
        .setting(
            Setting::text(
                "identity",
                "Whom a dynamic lease belongs to. Firmware and system often send different identifiers from one card",
            )
            .default("hardware")
            .choices(&["hardware", "client-id"])
            .required(),
        )
        .setting(number("offer_time", "Seconds that an offered address is kept, 1 to 3600", 60))
        .setting(number("decline_time", "Seconds that an address rests which somebody found in use", 86_400))
        .setting(number("flood_limit", "Packets of one machine in ten seconds; more are dropped", 40))
        .setting(number(
            "probe_time",
            "Milliseconds to wait for somebody who uses a new address, at most 2000; 0: do not ask",
            300,
        ))
    }

    fn status() -> Status {
        match Config::of_settings() {
            Ok(config) if config.subnets.is_empty() && !is_proxy() => Status::failing(
                "no subnet is configured: list the subnets in the setting `subnets`",
            ),
            Ok(_) => Status::working(),
            Err(problem) => Status::failing(problem),
        }
    }

    fn start() -> Result<(), String> {
        let config = Config::of_settings()?;
        let book = Book::load().map_err(|problem| store::describe(&problem))?;
        SERVER.set(Some(Server::new(config, book)));
        Ok(())
    }
}

impl Service for DhcpBuiltin {
    fn datagrams(batch: Vec<Datagram>) -> Vec<Reaction> {
        SERVER.with_borrow_mut(|server| match server {
            Some(server) => server.react(&batch, now()),
            None => Vec::new(),
        })
    }
}

impl DhcpProvider for DhcpBuiltin {
    fn subnets() -> Result<Vec<Subnet>, Error> {
        Config::of_settings()
            .map(|config| provider::subnets(&config))
            .map_err(Error::Other)
    }

    fn entries(subnet: String, cursor: Option<String>, limit: u32) -> Result<Page, Error> {
        at_desk(|desk| desk.entries(&subnet, cursor.as_deref(), limit))
    }

    fn by_address(subnet: String, address: String) -> Result<Vec<Entry>, Error> {
        at_desk(|desk| desk.by_address(&subnet, &address))
    }

    fn by_identifier(subnet: String, who: Identifier) -> Result<Vec<Entry>, Error> {
        at_desk(|desk| desk.by_identifier(&subnet, &who))
    }

    fn in_use(subnet: String, addresses: Vec<String>) -> Result<Vec<bool>, Error> {
        at_desk(|desk| desk.in_use(&subnet, &addresses))
    }

    fn add(wanted: Reservation) -> Result<bool, Error> {
        at_desk(|desk| desk.add(&wanted))
    }

    fn remove(
        subnet: String,
        address: Option<String>,
        who: Option<Identifier>,
    ) -> Result<bool, Error> {
        at_desk(|desk| desk.remove(&subnet, address.as_deref(), who.as_ref()))
    }
}

bulkhead_sdk::export_plugin!(DhcpBuiltin: service, dhcp_provider);

thread_local! {
    static SERVER: RefCell<Option<Server>> = const { RefCell::new(None) };
    /// The provider's own book; its instances share nothing with the service's but the store.
    static BOOK: RefCell<Option<Book>> = const { RefCell::new(None) };
}

fn at_desk<T>(work: impl FnOnce(&mut Desk<'_>) -> Result<T, Error>) -> Result<T, Error> {
    let config = Config::of_settings().map_err(Error::Other)?;
    let failed = |problem: store::Error| Error::Other(store::describe(&problem));
    BOOK.with_borrow_mut(|kept| {
        let mut book = match kept.take() {
            Some(book) => book,
            None => Book::load().map_err(failed)?,
        };
        book.follow().map_err(failed)?;
        let done = work(&mut Desk {
            config: &config,
            book: &mut book,
            now: now(),
        });
        *kept = Some(book);
        done
    })
}

/// Whether it is of use without a subnet.
fn is_proxy() -> bool {
    settings::texts("proxy_interfaces").is_some_and(|it| !it.is_empty())
}

fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn number(name: &str, help: &str, default: i64) -> Setting {
    Setting::integer(name, help).default(default).required()
}

#[cfg(test)]
mod tests;
