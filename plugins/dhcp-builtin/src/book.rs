//! What is known of addresses: reservations and leases, in memory, as the store has them.
//!
//! The service and the provider each keep a book. The store holds the truth; a book reads all of it once and then follows what changed.
//!
//! The one idea: whoever writes to the store enters it in the own book only after the store said yes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::ops::Bound;
use std::rc::Rc;

use bulkhead_sdk::store;

use crate::identity::Client;
use crate::lease::Lease;
use crate::reservation::Reserved;

/// The store's slot.
pub const SLOT: &str = "leases";
/// Entries read or followed at a time: the most that the store gives.
const PAGE: u32 = 1_000;

/// Reservations and leases.
#[derive(Debug, Default)]
pub struct Book {
    /// By address; several for a bond.
    reserved: BTreeMap<Ipv4Addr, Vec<Rc<Reserved>>>,
    reserved_for: HashMap<Client, Vec<Rc<Reserved>>>,
    /// InfiniBand ports, by the end of their address.
    ports: HashMap<Vec<u8>, Client>,
    leases: BTreeMap<Ipv4Addr, Lease>,
    leased: HashMap<Client, Vec<Ipv4Addr>>,
    /// Leases by their end: the first to be used anew.
    ends: BTreeSet<(i64, Ipv4Addr)>,
    revision: u64,
}

impl Book {
    /// Reads the whole store.
    ///
    /// # Errors
    /// The store's.
    pub fn load() -> Result<Self, store::Error> {
        // What changes while it is read is told again by `follow`.
        let revision = store::changes(SLOT, u64::MAX, 1)?.revision;
        let mut book = Self {
            revision,
            ..Self::default()
        };
        let mut after: Option<String> = None;
        loop {
            let page = store::scan(SLOT, "", after.as_deref(), PAGE)?;
            for entry in &page {
                book.put(&entry.key, Some(&entry.value));
            }
            match page.last() {
                Some(last) => after = Some(last.key.clone()),
                None => return Ok(book),
            }
        }
    }

    /// Takes over what others changed.
    ///
    /// # Errors
    /// The store's; the book stays as it was then.
    pub fn follow(&mut self) -> Result<(), store::Error> {
        loop {
            let history = store::changes(SLOT, self.revision, PAGE)?;
            if !history.complete {
                *self = Self::load()?;
                return Ok(());
            }
            for key in &history.deletes {
                self.put(key, None);
            }
            for entry in &history.puts {
                self.put(&entry.key, Some(&entry.value));
            }
            let moved = history.revision > self.revision;
            self.revision = history.revision;
            if !moved || (history.puts.is_empty() && history.deletes.is_empty()) {
                return Ok(());
            }
        }
    }

    /// After a commit of so many of this book's own leases, each of which is a revision: if nobody else wrote meanwhile, there is nothing to
    /// follow.
    pub fn committed(&mut self, revision: u64, leases: usize) {
        let own = u64::try_from(leases).unwrap_or(u64::MAX);
        if self.revision.checked_add(own) == Some(revision) {
            self.revision = revision;
        }
    }

    fn put(&mut self, key: &str, value: Option<&[u8]>) {
        if key.starts_with("l/") {
            match value.and_then(|value| Lease::read(key, value)) {
                Some(lease) => self.set_lease(lease),
                None => self.drop_lease(key),
            }
        } else if key.starts_with("r/") {
            self.drop_reservation(key);
            if let Some(reserved) = value.and_then(|value| Reserved::read(key, value)) {
                let reserved = Rc::new(reserved);
                if let Some(port) = reserved.client.port_guid() {
                    self.ports.insert(port.to_vec(), reserved.client.clone());
                }
                self.reserved
                    .entry(reserved.address)
                    .or_default()
                    .push(Rc::clone(&reserved));
                let client = reserved.client.clone();
                self.reserved_for.entry(client).or_default().push(reserved);
            }
        }
    }

    /// Enters a lease.
    pub fn set_lease(&mut self, lease: Lease) {
        let address = lease.address;
        let known = self.leased.entry(lease.client.clone()).or_default();
        if !known.contains(&address) {
            known.push(address);
        }
        self.ends.insert((lease.ends, address));
        let client = lease.client.clone();
        if let Some(old) = self.leases.insert(address, lease) {
            self.forget(&old, Some(&client));
        }
    }

    fn drop_lease(&mut self, key: &str) {
        let address = key
            .strip_prefix("l/")
            .and_then(|it| u32::from_str_radix(it, 16).ok());
        let old = address.and_then(|address| self.leases.remove(&Ipv4Addr::from(address)));
        if let Some(old) = old {
            self.forget(&old, None);
        }
    }

    /// Removes what pointed at an old lease; `now` is whose the address is now.
    fn forget(&mut self, old: &Lease, now: Option<&Client>) {
        let end = (old.ends, old.address);
        if self
            .leases
            .get(&old.address)
            .is_none_or(|lease| lease.ends != old.ends)
        {
            self.ends.remove(&end);
        }
        if now == Some(&old.client) {
            return;
        }
        if let Some(addresses) = self.leased.get_mut(&old.client) {
            addresses.retain(|address| *address != old.address);
            if addresses.is_empty() {
                self.leased.remove(&old.client);
            }
        }
    }

    fn drop_reservation(&mut self, key: &str) {
        let parts = key.strip_prefix("r/").and_then(|it| it.split_once('/'));
        let Some((address, client)) = parts.and_then(|(address, client)| {
            Some((
                u32::from_str_radix(address, 16).ok()?,
                Client::parse(client)?,
            ))
        }) else {
            return;
        };
        let address = Ipv4Addr::from(address);
        let is_it = |it: &Rc<Reserved>| it.address == address && it.client == client;
        if let Some(list) = self.reserved.get_mut(&address) {
            list.retain(|it| !is_it(it));
            if list.is_empty() {
                self.reserved.remove(&address);
            }
        }
        if let Some(list) = self.reserved_for.get_mut(&client) {
            list.retain(|it| !is_it(it));
            if list.is_empty() {
                self.reserved_for.remove(&client);
                if let Some(port) = client.port_guid() {
                    self.ports.remove(port);
                }
            }
        }
    }

    /// Reservations of an address.
    #[must_use]
    pub fn reserved_at(&self, address: Ipv4Addr) -> &[Rc<Reserved>] {
        self.reserved.get(&address).map_or(&[], Vec::as_slice)
    }

    /// Reservations for a client, of every subnet.
    #[must_use]
    pub fn reserved_for(&self, client: &Client) -> &[Rc<Reserved>] {
        let found = self.reserved_for.get(client);
        let by_port = || self.reserved_for.get(self.ports.get(client.port_guid()?)?);
        found.or_else(by_port).map_or(&[], Vec::as_slice)
    }

    /// The lease of an address, held or not.
    #[must_use]
    pub fn lease(&self, address: Ipv4Addr) -> Option<&Lease> {
        self.leases.get(&address)
    }

    /// Leases of a client, held or not, of every subnet.
    pub fn leases_of(&self, client: &Client) -> impl Iterator<Item = &Lease> {
        let addresses = self.leased.get(client).map_or(&[][..], Vec::as_slice);
        addresses
            .iter()
            .filter_map(|address| self.leases.get(address))
    }

    /// Leases that ended by `now` and later than `after`, the longest ago first: their end and address.
    pub fn ended(&self, after: (i64, Ipv4Addr), now: i64) -> impl Iterator<Item = (i64, Ipv4Addr)> {
        let until = (now, Ipv4Addr::BROADCAST).max(after);
        let range = (Bound::Excluded(after), Bound::Included(until));
        self.ends.range(range).copied()
    }

    /// Reservations with an address from `from` to `to`, in order.
    pub fn reserved_between(
        &self,
        from: Ipv4Addr,
        to: Ipv4Addr,
    ) -> impl Iterator<Item = &Rc<Reserved>> {
        self.reserved.range(from..=to).flat_map(|(_, list)| list)
    }

    /// Leases with an address from `from` to `to`, in order.
    pub fn leases_between(&self, from: Ipv4Addr, to: Ipv4Addr) -> impl Iterator<Item = &Lease> {
        self.leases.range(from..=to).map(|(_, lease)| lease)
    }
}
