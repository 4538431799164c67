//! Subnets, reservations and leases of a DHCP server: served by `dhcp-*` plugins, called by the feature `dhcp`.
//!
//! Addresses are text in canonical form, subnets are named by their prefix (`192.0.2.0/24`), hardware addresses are lower case with
//! colons, times are seconds since 1970.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use crate::host;
use crate::names::{self, LookupError};
use crate::plugin::Plugin;

pub use crate::bindings::imports::foreman::proxy::dhcp_types::{
    AddressRange, DhcpOption, Entry, Error, Identifier, Lease, OptionValue, Page, Reservation,
    Subnet,
};

/// The interface's full name, for [`crate::Need::call`].
pub const INTERFACE: &str = "foreman:proxy/dhcp-provider@0.1.0";

/// A plugin that knows the subnets, reservations and leases of some DHCP server.
pub trait DhcpProvider: Plugin {
    /// All subnets, at most 4,096.
    ///
    /// # Errors
    /// See [`Error`].
    fn subnets() -> Result<Vec<Subnet>, Error>;

    /// The entries of a subnet, reservations first, at most `limit` (1 to 1,000) a page.
    ///
    /// # Errors
    /// See [`Error`].
    fn entries(subnet: String, cursor: Option<String>, limit: u32) -> Result<Page, Error>;

    /// What is known of an address: reservations, then leases.
    ///
    /// # Errors
    /// See [`Error`].
    fn by_address(subnet: String, address: String) -> Result<Vec<Entry>, Error>;

    /// What is known of an identifier: reservations, then leases.
    ///
    /// # Errors
    /// See [`Error`].
    fn by_identifier(subnet: String, who: Identifier) -> Result<Vec<Entry>, Error>;

    /// Which of up to 1,024 addresses have a reservation or a lease, in the order given.
    ///
    /// # Errors
    /// See [`Error`].
    fn in_use(subnet: String, addresses: Vec<String>) -> Result<Vec<bool>, Error>;

    /// Writes a reservation, atomically on the server. False: an equal one was there.
    ///
    /// # Errors
    /// See [`Error`].
    fn add(wanted: Reservation) -> Result<bool, Error>;

    /// Removes the reservations of an address or of an identifier. False: there were none.
    ///
    /// # Errors
    /// See [`Error`].
    fn remove(
        subnet: String,
        address: Option<String>,
        who: Option<Identifier>,
    ) -> Result<bool, Error>;
}

/// All subnets of the granted provider.
///
/// # Errors
/// See [`Error`].
pub fn subnets() -> Result<Vec<Subnet>, Error> {
    host::dhcp_provider::subnets()
}

/// One page of a subnet's entries.
///
/// # Errors
/// See [`Error`].
pub fn entries(subnet: &str, cursor: Option<&str>, limit: u32) -> Result<Page, Error> {
    host::dhcp_provider::entries(subnet, cursor, limit)
}

/// What the granted provider knows of an address.
///
/// # Errors
/// See [`Error`].
pub fn by_address(subnet: &str, address: &str) -> Result<Vec<Entry>, Error> {
    host::dhcp_provider::by_address(subnet, address)
}

/// What the granted provider knows of an identifier.
///
/// # Errors
/// See [`Error`].
pub fn by_identifier(subnet: &str, who: &Identifier) -> Result<Vec<Entry>, Error> {
    host::dhcp_provider::by_identifier(subnet, who)
}

/// Which addresses have a reservation or a lease.
///
/// # Errors
/// See [`Error`].
pub fn in_use(subnet: &str, addresses: &[String]) -> Result<Vec<bool>, Error> {
    host::dhcp_provider::in_use(subnet, addresses)
}

/// Has the granted provider write a reservation. False: an equal one was there.
///
/// # Errors
/// See [`Error`].
pub fn add(wanted: &Reservation) -> Result<bool, Error> {
    settled(|| host::dhcp_provider::add(wanted))
}

/// Has the granted provider remove reservations. False: there were none.
///
/// # Errors
/// See [`Error`].
pub fn remove(
    subnet: &str,
    address: Option<&str>,
    who: Option<&Identifier>,
) -> Result<bool, Error> {
    settled(|| host::dhcp_provider::remove(subnet, address, who))
}

/// How long a change may take in all: below the 30 seconds after which the host gives a call up by default.
const CHANGE: Duration = Duration::from_secs(25);

/// Asks for a change until it is made, as often as its provider answers [`Error::Again`].
///
/// # Errors
/// See [`Error`]; a time-out after 25 seconds.
pub fn settled(mut ask: impl FnMut() -> Result<bool, Error>) -> Result<bool, Error> {
    let end = Instant::now() + CHANGE;
    loop {
        match ask() {
            Err(Error::Again(_)) if Instant::now() >= end => {
                return Err(Error::Timeout(format!(
                    "the DHCP server did not finish this change and those before it within {} s",
                    CHANGE.as_secs()
                )));
            }
            Err(Error::Again(pause)) => {
                std::thread::sleep(Duration::from_millis(pause.into()));
            }
            settled => return settled,
        }
    }
}

/// The IPv4 address of a boot server, which Foreman names as often as it gives its address; asks the names that the policy grants. None: there is no
/// such name, or it has no IPv4 address.
///
/// # Errors
/// Nobody could be asked, or the policy does not let this name be asked for; why.
pub fn boot_server(name: &str) -> Result<Option<Ipv4Addr>, String> {
    if let Ok(address) = name.parse() {
        return Ok(Some(address));
    }
    match names::addresses_of(name) {
        Ok(found) => Ok(first_ipv4(&found)),
        Err(LookupError::Absent) => Ok(None),
        Err(LookupError::Failed(why)) => Err(why),
    }
}

/// The first of a name's addresses that DHCPv4 can tell.
#[must_use]
pub fn first_ipv4(found: &[IpAddr]) -> Option<Ipv4Addr> {
    found.iter().find_map(|address| match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    })
}
