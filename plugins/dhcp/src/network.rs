//! Which subnet a path means.
//!
//! Records are kept under a subnet's own address. Any other address inside it finds the subnet, but none of its records: so it is in
//! the Smart Proxy, and Foreman always names the network address.

use std::net::Ipv4Addr;

use bulkhead_sdk::dhcp::{self, Subnet};
use bulkhead_sdk::prelude::*;

use crate::refusal::asking;

/// A subnet, as a path named it.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    /// The address in the path.
    pub(crate) asked: Ipv4Addr,
    /// The subnet that holds it.
    pub(crate) subnet: Subnet,
    /// The subnet's own address.
    pub(crate) address: Ipv4Addr,
    /// The bits of its mask.
    pub(crate) mask: u32,
}

/// What was asked for, found or not.
pub(crate) struct Found {
    asked: Ipv4Addr,
    pub(crate) found: Option<Network>,
}

impl Network {
    /// The subnet of the path's `:network`.
    pub(crate) fn of(request: &Request) -> Result<Found, Failure> {
        let asked = address(&crate::given(request, "network").unwrap_or_default())?;
        let subnets = dhcp::subnets().map_err(asking)?;
        let holding = subnets.into_iter().filter_map(|subnet| {
            let (address, mask) = parts(&subnet.prefix)?;
            let holds = asked.to_bits() & mask == address.to_bits();
            holds.then_some(Network {
                asked,
                subnet,
                address,
                mask,
            })
        });
        // Its own address first, then the smallest that holds it.
        let found = holding.max_by_key(|network| (network.address == asked, network.mask));
        Ok(Found { asked, found })
    }

    /// The subnet's prefix, if the path gave its own address.
    pub(crate) fn named(&self) -> Option<&str> {
        (self.asked == self.address).then_some(self.subnet.prefix.as_str())
    }

    /// Whether the address lies inside.
    pub(crate) fn contains(&self, address: Ipv4Addr) -> bool {
        address.to_bits() & self.mask == self.address.to_bits()
    }
}

impl Found {
    /// The subnet, or 404 in the Smart Proxy's words.
    pub(crate) fn or_not_found(self) -> Result<Network, Failure> {
        let asked = self.asked;
        self.found
            .ok_or_else(|| Failure::not_found(format!("Subnet {asked} could not found")))
    }

    /// The subnet, or 400 in the Smart Proxy's words for a new reservation.
    pub(crate) fn or_not_detected(self) -> Result<Network, Failure> {
        let asked = self.asked;
        self.found
            .ok_or_else(|| Failure::bad_request(format!("No Subnet detected for: {asked}")))
    }
}

/// A strict dotted quad.
pub(crate) fn address(text: &str) -> Result<Ipv4Addr, Failure> {
    text.parse()
        .map_err(|_| Failure::bad_request(format!("Invalid IP Address {text}")))
}

/// Address and mask of `192.0.2.0/24`. None for IPv6, which these routes do not know.
pub(crate) fn parts(prefix: &str) -> Option<(Ipv4Addr, u32)> {
    let (address, length) = prefix.split_once('/')?;
    let length: u32 = length.parse().ok().filter(|&length| length <= 32)?;
    let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
    Some((address.parse().ok()?, mask))
}
