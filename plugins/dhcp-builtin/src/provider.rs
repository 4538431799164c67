//! What Foreman's calls read and write: subnets, reservations and leases, by the same store that the server follows.
//!
//! It refuses reservations that the server could never give: outside of the subnet, or for an identifier that has one there.
//!
//! The one idea: beside the reservations of an address stands its *guard*, a key that every change of them puts anew, and only if nobody else
//! did since it was looked at; and beside each a key for subnet and identifier, put only if it is absent. So of two calls at once one wins.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::rc::Rc;

use bulkhead_sdk::dhcp::{
    self, AddressRange, DhcpOption, Entry, Error, Identifier, OptionValue, Page, Reservation,
};
use bulkhead_sdk::store::{self, Change};

use crate::book::{Book, SLOT};
use crate::identity::Client;
use crate::lease::{Lease, State};
use crate::reservation::Reserved;
use crate::subnets::{Config, Subnet};

/// How often a change is tried again because somebody else changed the same meanwhile.
const ATTEMPTS: usize = 32;

/// The option in which the feature tells which MAC addresses are the same machine's; it is nothing to keep.
const RELATED: &str = "related_macs";

/// What a call works with.
#[derive(Debug)]
pub struct Desk<'a> {
    /// The settings.
    pub config: &'a Config,
    /// What is known, up to date.
    pub book: &'a mut Book,
    /// Seconds since 1970.
    pub now: i64,
}

/// All subnets.
#[must_use]
pub fn subnets(config: &Config) -> Vec<dhcp::Subnet> {
    config
        .subnets
        .iter()
        .map(|subnet| shown_subnet(subnet))
        .collect()
}

impl Desk<'_> {
    fn subnet(&self, prefix: &str) -> Result<Rc<Subnet>, Error> {
        self.config
            .named(prefix)
            .cloned()
            .ok_or(Error::UnknownSubnet)
    }

    /// A page of entries; the cursor is the last entry's kind, address and, for reservations, client.
    ///
    /// # Errors
    /// No such subnet.
    pub fn entries(&self, prefix: &str, cursor: Option<&str>, limit: u32) -> Result<Page, Error> {
        let subnet = self.subnet(prefix)?;
        let limit = usize::try_from(limit.clamp(1, 1_000)).unwrap_or(1_000);
        let (first, last) = bounds(&subnet);
        let reserved = self
            .book
            .reserved_between(first, last)
            .map(|it| (it.key(), Entry::Reservation(it.record())));
        let leases = self
            .book
            .leases_between(first, last)
            .filter(|it| it.is_held(self.now));
        let leases = leases.map(|it| {
            // `l` must sort after `r`.
            (
                format!("s/{:08x}", u32::from(it.address)),
                shown_lease(&subnet, it),
            )
        });
        let mut reserved: Vec<(String, Entry)> = reserved.collect();
        reserved.sort_by(|one, other| one.0.cmp(&other.0));
        let after = |(key, _): &(String, Entry)| cursor.is_none_or(|cursor| key.as_str() > cursor);
        let mut rest = reserved.into_iter().chain(leases).filter(after);
        let taken: Vec<(String, Entry)> = rest.by_ref().take(limit).collect();
        let next = rest.next().and(taken.last()).map(|(key, _)| key.clone());
        Ok(Page {
            entries: taken.into_iter().map(|(_, entry)| entry).collect(),
            next,
        })
    }

    /// What is known of an address.
    ///
    /// # Errors
    /// No such subnet.
    pub fn by_address(&self, prefix: &str, address: &str) -> Result<Vec<Entry>, Error> {
        let subnet = self.subnet(prefix)?;
        let address = parse(address)?;
        if !subnet.holds(address) {
            return Ok(Vec::new());
        }
        let reserved = self
            .book
            .reserved_at(address)
            .iter()
            .map(|it| Entry::Reservation(it.record()));
        let lease = self.book.lease(address).filter(|it| it.is_held(self.now));
        Ok(reserved
            .chain(lease.map(|it| shown_lease(&subnet, it)))
            .collect())
    }

    /// What is known of an identifier.
    ///
    /// # Errors
    /// No such subnet.
    pub fn by_identifier(&self, prefix: &str, who: &Identifier) -> Result<Vec<Entry>, Error> {
        let subnet = self.subnet(prefix)?;
        let client = client(who)?;
        let reserved = self
            .book
            .reserved_for(&client)
            .iter()
            .filter(|it| subnet.holds(it.address));
        let leases = self
            .book
            .leases_of(&client)
            .filter(|it| subnet.holds(it.address) && it.is_held(self.now));
        let reserved = reserved.map(|it| Entry::Reservation(it.record()));
        Ok(reserved
            .chain(leases.map(|it| shown_lease(&subnet, it)))
            .collect())
    }

    /// Which addresses are taken.
    ///
    /// # Errors
    /// No such subnet, or no address.
    pub fn in_use(&self, prefix: &str, addresses: &[String]) -> Result<Vec<bool>, Error> {
        let subnet = self.subnet(prefix)?;
        let taken = |text: &String| {
            let address = parse(text)?;
            let held = self
                .book
                .lease(address)
                .is_some_and(|it| it.is_held(self.now));
            let is_reserved = !self.book.reserved_at(address).is_empty();
            Ok(held || is_reserved || subnet.is_a_servers(address))
        };
        addresses.iter().map(taken).collect()
    }

    /// Writes a reservation. False: an equal one was there.
    ///
    /// # Errors
    /// See the interface.
    pub fn add(&mut self, wanted: &Reservation) -> Result<bool, Error> {
        let subnet = self.subnet(&wanted.subnet)?;
        let address = parse(&wanted.address)?;
        if !subnet.is_usable(address) {
            return Err(Error::Refused(format!(
                "{address} is no host's address of {}",
                subnet.prefix()
            )));
        }
        let reserved = Reserved {
            subnet: wanted.subnet.clone(),
            address,
            client: client(&wanted.identifier)?,
            name: wanted.name.clone(),
            options: wanted
                .options
                .iter()
                .filter(|option| option.name != RELATED)
                .cloned()
                .collect(),
        };
        let related = related(&wanted.options);
        for _ in 0..ATTEMPTS {
            // Looked at before the book is brought up to date: a change in between spoils what is put below.
            let guard = Guard::of(address)?;
            self.book.follow().map_err(failed)?;
            let own = self.book.reserved_for(&reserved.client).iter();
            let own = own.filter(|it| subnet.holds(it.address));
            let siblings = self.book.reserved_at(address).iter();
            let siblings =
                siblings.filter(|it| it.client != reserved.client && !related.contains(&it.client));
            match own.chain(siblings).next() {
                Some(present) if **present == reserved => return Ok(false),
                Some(present) => {
                    return Err(Error::Conflict(format!(
                        "{} is reserved for {} already, as {}",
                        present.address, present.client, present.name
                    )));
                }
                None => {}
            }
            let changes = [
                guard.put(),
                Change::put(&owner_key(&reserved), reserved.address.to_string()).if_absent(),
                Change::put(&reserved.key(), reserved.value()).if_absent(),
            ];
            match store::apply(SLOT, &changes) {
                Ok(_) => return Ok(true),
                Err(store::Error::Conflict(_)) => {}
                Err(problem) => return Err(failed(problem)),
            }
        }
        Err(always_changing(address))
    }

    /// Removes the reservations of an address or of an identifier, and ends the leases that stood on them. False: there were none.
    ///
    /// # Errors
    /// See the interface.
    pub fn remove(
        &mut self,
        prefix: &str,
        address: Option<&str>,
        who: Option<&Identifier>,
    ) -> Result<bool, Error> {
        let subnet = self.subnet(prefix)?;
        let address = address.map(parse).transpose()?;
        let client = who.map(client).transpose()?;
        if address.is_none() && client.is_none() {
            return Err(Error::Refused(
                "neither an address nor an identifier is named".to_owned(),
            ));
        }
        for _ in 0..ATTEMPTS {
            let seen = self.reserved(&subnet, address, client.as_ref());
            let guards = seen
                .iter()
                .map(|it| Ok((it.address, Guard::of(it.address)?)))
                .collect::<Result<BTreeMap<_, _>, Error>>()?;
            self.book.follow().map_err(failed)?;
            let found = self.reserved(&subnet, address, client.as_ref());
            if found.is_empty() {
                return self.nothing_reserved(&subnet, address, client.as_ref());
            }
            if found.iter().any(|it| !guards.contains_key(&it.address)) {
                continue;
            }
            let mut changes: Vec<Change> = guards
                .iter()
                .map(|(address, guard)| {
                    let gone = found.iter().filter(|it| it.address == *address).count();
                    guard.after_removal(self.book.reserved_at(*address).len() > gone)
                })
                .collect();
            changes.extend(found.iter().flat_map(|it| self.removal(it)));
            match store::apply(SLOT, &changes) {
                Ok(_) => return Ok(true),
                Err(store::Error::Conflict(_)) => {}
                Err(problem) => return Err(failed(problem)),
            }
        }
        Err(always_changing(address.unwrap_or(subnet.network)))
    }

    /// The reservations in a subnet of an address, an identifier, or both.
    fn reserved(
        &self,
        subnet: &Subnet,
        address: Option<Ipv4Addr>,
        client: Option<&Client>,
    ) -> Vec<Rc<Reserved>> {
        let found = match (address, client) {
            (_, Some(client)) => self.book.reserved_for(client),
            (Some(address), None) => self.book.reserved_at(address),
            (None, None) => &[],
        };
        found
            .iter()
            .filter(|it| address.is_none_or(|address| it.address == address))
            .filter(|it| subnet.holds(it.address))
            .cloned()
            .collect()
    }

    /// What is there is a lease, which is not Foreman's to remove, or nothing.
    fn nothing_reserved(
        &self,
        subnet: &Subnet,
        address: Option<Ipv4Addr>,
        client: Option<&Client>,
    ) -> Result<bool, Error> {
        let by_address = address
            .and_then(|it| self.book.lease(it))
            .filter(|it| it.is_held(self.now));
        let by_client = client.and_then(|it| {
            self.book
                .leases_of(it)
                .find(|it| it.is_held(self.now) && subnet.holds(it.address))
        });
        match by_address.or(by_client) {
            Some(lease) => Err(Error::NotDeletable(format!("{} is a lease", lease.address))),
            None => Ok(false),
        }
    }

    fn removal(&self, reserved: &Reserved) -> Vec<Change> {
        let mut changes = vec![
            Change::delete(&reserved.key()),
            Change::delete(&owner_key(reserved)),
        ];
        // The next host may get the address at once, also one that rested because its machine found it in use.
        let lease = self.book.lease(reserved.address);
        if let Some(lease) =
            lease.filter(|it| it.state != State::Free && it.client == reserved.client)
        {
            let ended = Lease {
                ends: self.now.min(lease.ends),
                state: State::Free,
                ..lease.clone()
            };
            changes.push(ended.change());
        }
        changes
    }
}

/// The key that every change of an address' reservations puts anew, as it was looked at.
struct Guard {
    key: String,
    revision: Option<u64>,
}

impl Guard {
    fn of(address: Ipv4Addr) -> Result<Self, Error> {
        let key = format!("a/{:08x}", u32::from(address));
        let entry = store::get(SLOT, &key).map_err(failed)?;
        Ok(Self {
            revision: entry.map(|it| it.revision),
            key,
        })
    }

    fn put(&self) -> Change {
        self.unchanged(Change::put(&self.key, "guard"))
    }

    /// It goes with the last reservation.
    fn after_removal(&self, some_stay: bool) -> Change {
        match some_stay {
            true => self.put(),
            false => self.unchanged(Change::delete(&self.key)),
        }
    }

    fn unchanged(&self, change: Change) -> Change {
        match self.revision {
            Some(revision) => change.if_revision(revision),
            None => change.if_absent(),
        }
    }
}

fn always_changing(address: Ipv4Addr) -> Error {
    Error::Timeout(format!(
        "the reservations of {address} are being changed by others all the time"
    ))
}

/// Identifiers that the feature says belong to the same machine.
fn related(options: &[DhcpOption]) -> Vec<Client> {
    let listed = options.iter().find(|option| option.name == RELATED);
    match listed.map(|option| &option.value) {
        Some(OptionValue::Texts(macs)) => macs
            .iter()
            .filter_map(|mac| Client::of(&Identifier::Hardware(mac.clone())))
            .collect(),
        _ => Vec::new(),
    }
}

/// Named by the subnet as it was when the reservation was made, so that the key goes with it whatever the settings say by then.
fn owner_key(reserved: &Reserved) -> String {
    format!("i/{}/{}", reserved.subnet, reserved.client)
}

fn bounds(subnet: &Subnet) -> (Ipv4Addr, Ipv4Addr) {
    let last = u32::from(subnet.network) | !u32::from(subnet.mask());
    (subnet.network, Ipv4Addr::from(last))
}

fn parse(text: &str) -> Result<Ipv4Addr, Error> {
    text.parse()
        .map_err(|_| Error::Unsupported(format!("{text} is not an IPv4 address")))
}

fn client(identifier: &Identifier) -> Result<Client, Error> {
    let client = Client::of(identifier);
    client.ok_or_else(|| {
        Error::Refused(format!(
            "{identifier:?} is not written in hexadecimal octets"
        ))
    })
}

fn failed(problem: store::Error) -> Error {
    match problem {
        store::Error::Denied(why) => Error::Refused(why),
        other => Error::Other(store::describe(&other)),
    }
}

fn shown_subnet(subnet: &Subnet) -> dhcp::Subnet {
    let texts = |list: &[Ipv4Addr]| {
        let texts: Vec<String> = list.iter().map(ToString::to_string).collect();
        (!texts.is_empty()).then_some(OptionValue::Texts(texts))
    };
    let options = [
        ("routers", texts(&subnet.routers)),
        ("domain_name", subnet.domain.clone().map(OptionValue::Text)),
        ("domain_name_servers", texts(&subnet.dns)),
        ("ntp_servers", texts(&subnet.ntp)),
        (
            "interface_mtu",
            subnet.mtu.map(|mtu| OptionValue::Integer(i64::from(mtu))),
        ),
    ];
    let option = |(name, value): (&str, Option<OptionValue>)| {
        Some(DhcpOption {
            name: name.to_owned(),
            value: value?,
        })
    };
    dhcp::Subnet {
        prefix: subnet.prefix(),
        ranges: subnet
            .ranges
            .iter()
            .map(|(first, last)| AddressRange {
                first: first.to_string(),
                last: last.to_string(),
            })
            .collect(),
        options: options.into_iter().filter_map(option).collect(),
    }
}

fn shown_lease(subnet: &Subnet, lease: &Lease) -> Entry {
    let mut options = vec![DhcpOption {
        name: "hardware_type".to_owned(),
        value: OptionValue::Text("ethernet".to_owned()),
    }];
    if !lease.host_name.is_empty() {
        options.push(DhcpOption {
            name: "client_hostname".to_owned(),
            value: OptionValue::Text(lease.host_name.clone()),
        });
    }
    Entry::Lease(dhcp::Lease {
        subnet: subnet.prefix(),
        address: lease.address.to_string(),
        identifier: lease.client.identifier(),
        starts: Some(lease.starts),
        ends: Some(lease.ends),
        state: Some(lease.state.word().to_owned()),
        options,
    })
}
