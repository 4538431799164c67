//! The provider `dhcp-isc`: reads the subnets, reservations and leases of an ISC DHCP server from its files, and writes
//! reservations by OMAPI, signed by the host.
//!
//! It sees neither HTTP nor the key. It follows `dhcpd.conf`, what that includes, and the leases file, without being able to write
//! them; it reaches one port. It is one instance with an index in memory. One change is made at a time, in turns ([`turns`]), so that a dhcpd that hangs
//! keeps nobody from reading.
//!
//! The one idea: dhcpd's files are the truth ([`follow`] keeps [`index`] beside them), OMAPI ([`omapi`]) asks dhcpd to change them,
//! and a change is done when the files say so ([`changes`]).

pub mod address;
pub mod body;
pub mod changes;
pub mod config;
pub mod error;
pub mod follow;
#[cfg(not(target_arch = "wasm32"))]
pub mod fuzz;
pub mod index;
pub mod journal;
pub mod lexer;
pub mod omapi;
pub mod options;
pub mod statements;
pub mod time;
pub mod turns;

mod key;
mod names;

use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::time::Duration;

use bulkhead_sdk::Event;
use bulkhead_sdk::dhcp::{DhcpProvider, Entry, Error, Identifier, Page, Reservation, Subnet};
use bulkhead_sdk::prelude::*;

use address::Hardware;
use error::Problem;
use follow::{CONFIG_SLOT, Followed, INCLUDES_SLOT, LEASES_SLOT, now};
use index::Index;
use key::HostKey;
use omapi::session::{Server, Signer};
use turns::Change;

/// For one conversation with dhcpd. A change may take two, and the host gives a call up after 30 seconds.
const TIME: Duration = Duration::from_secs(10);

thread_local! {
    static FOLLOWED: RefCell<Followed> = RefCell::default();
}

/// The plugin.
pub struct Isc;

impl Plugin for Isc {
    fn describe() -> Manifest {
        Manifest::new(
            "dhcp-isc",
            env!("CARGO_PKG_VERSION"),
            "Reads and writes the reservations of an ISC DHCP server",
        )
        .single_instance()
        .need(Need::watch(
            CONFIG_SLOT,
            "reads dhcpd's configuration: subnets and fixed hosts",
        ))
        .need(
            Need::watch(INCLUDES_SLOT, "reads the files that dhcpd's configuration includes").optional(),
        )
        .need(Need::watch(
            LEASES_SLOT,
            "follows dhcpd's leases file: leases, and hosts made while dhcpd runs",
        ))
        .need(Need::tcp("omapi", "tells dhcpd to make and remove hosts"))
        .need(
            Need::secret("key", "has messages to dhcpd signed with the OMAPI key, which it does not see").optional(),
        )
        .need(
            Need::names(
                "next-server",
                "looks up the TFTP server that Foreman names, because dhcpd wants its address",
            )
            .optional(),
        )
        .setting(
            Setting::path("config", "dhcpd's configuration")
                .default("/etc/dhcp/dhcpd.conf")
                .required(),
        )
        .setting(Setting::texts(
            "includes",
            "The files that the configuration includes, each by its absolute path",
        ))
        .setting(
            Setting::path("leases", "dhcpd's leases file")
                .default("/var/lib/dhcpd/dhcpd.leases")
                .required(),
        )
        .setting(
            Setting::text("server", "Where dhcpd listens for OMAPI")
                .default("127.0.0.1")
                .required(),
        )
        .setting(
            Setting::integer("omapi_port", "The port of dhcpd's `omapi-port`")
                .default(7911)
                .required(),
        )
        .setting(Setting::path(
            "omapi_key",
            "The file that holds the key of dhcpd's `omapi-key`, in dhcpd's own form; without one, messages are not signed",
        ))
    }

    fn start() -> Result<(), String> {
        // Files that cannot be read now may be later; until then every call and the status say why.
        if let Err(problem) = with_index(|_| Ok(())) {
            log::error(problem.to_string());
        }
        Ok(())
    }

    fn status() -> Status {
        match HostKey::granted().and_then(|_| with_index(|_| Ok(()))) {
            Ok(()) => Status::working(),
            Err(problem) => Status::failing(problem.to_string()),
        }
    }

    fn wake(events: &[Event]) -> Option<Duration> {
        let (config, leases) = paths();
        let config_changed = events.iter().any(|event| match event {
            Event::FileChanged(slot) => slot != LEASES_SLOT,
            Event::Timer | Event::StoreChanged(_) => false,
        });
        let followed = FOLLOWED.with_borrow_mut(|followed| {
            if config_changed {
                followed.config_changed(&config, &leases)?;
            }
            followed.now(&config, &leases).map(drop)
        });
        if let Err(problem) = followed {
            log::error(problem.to_string());
        }
        None
    }
}

impl DhcpProvider for Isc {
    fn subnets() -> Result<Vec<Subnet>, Error> {
        reading(|index| Ok(index.subnets()))
    }

    fn entries(subnet: String, cursor: Option<String>, limit: u32) -> Result<Page, Error> {
        reading(|index| index.entries(&subnet, cursor.as_deref(), limit, now()))
    }

    fn by_address(subnet: String, address: String) -> Result<Vec<Entry>, Error> {
        let address = parsed(&address)?;
        reading(|index| index.by_address(&subnet, address, now()))
    }

    fn by_identifier(subnet: String, who: Identifier) -> Result<Vec<Entry>, Error> {
        match hardware(&who)? {
            Some(hardware) => reading(|index| index.by_hardware(&subnet, hardware, now())),
            None => Ok(Vec::new()),
        }
    }

    fn in_use(subnet: String, addresses: Vec<String>) -> Result<Vec<bool>, Error> {
        let addresses = addresses
            .iter()
            .map(|address| parsed(address))
            .collect::<Result<Vec<_>, _>>()?;
        reading(|index| index.in_use(&subnet, &addresses, now()))
    }

    fn add(wanted: Reservation) -> Result<bool, Error> {
        turn(Change::Add(wanted))
    }

    fn remove(
        subnet: String,
        address: Option<String>,
        who: Option<Identifier>,
    ) -> Result<bool, Error> {
        let address = address.as_deref().map(parsed).transpose()?;
        let hardware = match &who {
            Some(who) => match hardware(who)? {
                Some(hardware) => Some(hardware),
                None => return Ok(false),
            },
            None => None,
        };
        turn(Change::Remove {
            subnet,
            address,
            hardware,
        })
    }
}

bulkhead_sdk::export_dhcp_provider!(Isc);

fn paths() -> (String, String) {
    let path = |name| settings::text(name).unwrap_or_default();
    (path("config"), path("leases"))
}

fn with_index<T>(work: impl FnOnce(&mut Index) -> Result<T, Problem>) -> Result<T, Problem> {
    let (config, leases) = paths();
    FOLLOWED.with_borrow_mut(|followed| work(followed.now(&config, &leases)?))
}

fn reading<T>(work: impl FnOnce(&mut Index) -> Result<T, Problem>) -> Result<T, Error> {
    with_index(work).map_err(Error::from)
}

fn look(work: &mut dyn FnMut(&mut Index)) -> Result<(), Problem> {
    with_index(|index| {
        work(index);
        Ok(())
    })
}

/// One turn of a change.
fn turn(change: Change) -> Result<bool, Error> {
    match turns::turn(change, |change| Box::pin(changed(change))) {
        Some(outcome) => outcome.map_err(Error::from),
        None => Err(Error::Again(
            u32::try_from(turns::PAUSE.as_millis()).unwrap_or(u32::MAX),
        )),
    }
}

async fn changed(change: Change) -> turns::Outcome {
    let signer = HostKey::granted()?.map(|key| Box::new(key) as Box<dyn Signer>);
    let (name, addresses) = key::server().await?;
    let server = Server {
        name,
        addresses,
        signer,
        time: TIME,
    };
    match change {
        Change::Add(wanted) => changes::add(look, &server, wanted).await,
        Change::Remove {
            subnet,
            address,
            hardware,
        } => changes::remove(look, &server, &subnet, address, hardware).await,
    }
}

fn parsed(address: &str) -> Result<u32, Problem> {
    let parsed: Result<Ipv4Addr, _> = address.parse();
    parsed
        .map(Ipv4Addr::to_bits)
        .map_err(|_| Problem::Invalid(format!("Invalid IP Address {address}")))
}

/// None: not a hardware address, and so nobody that dhcpd's files name here.
fn hardware(who: &Identifier) -> Result<Option<Hardware>, Problem> {
    match who {
        Identifier::Hardware(mac) => match Hardware::parse(mac.as_bytes()) {
            Some(hardware) => Ok(Some(hardware)),
            None => Err(Problem::Invalid(format!("Invalid MAC {mac}"))),
        },
        Identifier::Client(_) => Ok(None),
    }
}
