//! Addresses that were offered and not yet taken: nobody else is offered one until its time is over.
//!
//! They are not kept over a restart. A client whose offer is forgotten begins anew, and no address was given away by then.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use crate::identity::Client;

/// Addresses that were offered and not yet taken.
#[derive(Debug, Default)]
pub(crate) struct Offers {
    by_address: HashMap<Ipv4Addr, (Client, i64)>,
    by_client: HashMap<Client, Ipv4Addr>,
}

impl Offers {
    pub(crate) fn put(&mut self, client: &Client, address: Ipv4Addr, until: i64) {
        if let Some(old) = self
            .by_client
            .insert(client.clone(), address)
            .filter(|old| *old != address)
        {
            self.by_address.remove(&old);
        }
        let other = self.by_address.insert(address, (client.clone(), until));
        if let Some((other, _)) = other.filter(|(other, _)| other != client) {
            self.by_client.remove(&other);
        }
    }

    pub(crate) fn of(&self, client: &Client, now: i64) -> Option<Ipv4Addr> {
        let address = self.by_client.get(client)?;
        self.at(*address, now)
            .filter(|it| *it == client)
            .map(|_| *address)
    }

    pub(crate) fn at(&self, address: Ipv4Addr, now: i64) -> Option<&Client> {
        self.by_address
            .get(&address)
            .filter(|(_, until)| *until > now)
            .map(|(client, _)| client)
    }

    pub(crate) fn drop_client(&mut self, client: &Client) {
        if let Some(address) = self.by_client.remove(client) {
            self.by_address.remove(&address);
        }
    }

    pub(crate) fn purge(&mut self, now: i64) {
        self.by_address.retain(|_, (_, until)| *until > now);
        let by_address = &self.by_address;
        self.by_client
            .retain(|_, address| by_address.contains_key(address));
    }
}
