//! All subnets, reservations and leases in memory, found by address and by hardware address.
//!
//! The one idea: a record is numbers plus the statements nobody has asked for yet, as they stand in the file; 200,000 leases fit
//! in some 60 MiB, and none is turned into options before somebody wants to see it.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::rc::Rc;

use bulkhead_sdk::dhcp::{self, AddressRange, Entry, Identifier, OptionValue, Page, Reservation};

use crate::address::{Hardware, Prefix};
use crate::body::{HostBody, LeaseBody};
use crate::config::{Configuration, Declared};
use crate::error::Problem;
use crate::options;

/// A host with an address of its own.
#[derive(Debug, PartialEq, Eq)]
pub struct Host {
    /// Unique on the server.
    pub name: String,
    /// Its MAC address.
    pub hardware: Hardware,
    /// Its addresses, usually one.
    pub addresses: Vec<u32>,
    /// Made by OMAPI, and so to be removed by it.
    pub dynamic: bool,
    kept: Box<[u8]>,
}

struct Lease {
    /// None: abandoned, because somebody answered there, or of a kind of hardware that Foreman does not know.
    hardware: Option<Hardware>,
    starts: Option<i64>,
    ends: Option<i64>,
    state: Option<Rc<str>>,
    next_state_is_free: bool,
    kept: Box<[u8]>,
}

impl Lease {
    /// Whether it has ended by itself.
    fn is_over(&self, now: i64) -> bool {
        self.next_state_is_free && self.ends.is_some_and(|ends| ends < now)
    }
}

struct Subnet {
    declared: Declared,
    hosts: BTreeMap<u32, Vec<Rc<Host>>>,
    host_of: HashMap<Hardware, Rc<Host>>,
    leases: BTreeMap<u32, Lease>,
    /// The newest lease of a MAC address, which is the one that is shown. Firmware and system of one machine often call themselves differently, and
    /// dhcpd keeps an address for each.
    lease_of: HashMap<Hardware, u32>,
}

/// The index.
pub struct Index {
    subnets: Vec<Subnet>,
    /// Places in `subnets` by network, to find an address's subnet.
    by_network: BTreeMap<u32, usize>,
    hosts: HashMap<String, Rc<Host>>,
    /// Addresses of hosts that are no reservations here, since Foreman does not know their kind of hardware or a newer host has it. dhcpd hands them
    /// out all the same.
    strangers: HashMap<String, Vec<u32>>,
    /// How many of them have an address.
    strange: HashMap<u32, usize>,
    /// The few words that states are, each kept once.
    states: Vec<Rc<str>>,
}

impl Index {
    /// An index of what the configuration declares.
    #[must_use]
    pub fn new(configuration: Configuration) -> Self {
        let subnets: Vec<Subnet> = configuration
            .subnets
            .into_iter()
            .map(|declared| Subnet {
                declared,
                hosts: BTreeMap::new(),
                host_of: HashMap::new(),
                leases: BTreeMap::new(),
                lease_of: HashMap::new(),
            })
            .collect();
        let by_network = subnets
            .iter()
            .enumerate()
            .map(|(place, subnet)| (subnet.declared.prefix.network(), place))
            .collect();
        let mut index = Self {
            subnets,
            by_network,
            hosts: HashMap::new(),
            strangers: HashMap::new(),
            strange: HashMap::new(),
            states: Vec::new(),
        };
        for (name, body) in configuration.hosts {
            index.put_host(&name, body);
        }
        index
    }

    /// Takes a host's newest record.
    pub fn put_host(&mut self, name: &str, body: HostBody) {
        self.remove_host(name);
        if body.deleted {
            return;
        }
        let Some(hardware) = body.hardware else {
            self.put_stranger(name, body.addresses);
            return;
        };
        let host = Rc::new(Host {
            name: name.to_owned(),
            hardware,
            addresses: body.addresses,
            dynamic: body.dynamic,
            kept: body.kept.into_boxed_slice(),
        });
        let mut placed = false;
        let mut outdone = Vec::new();
        for &address in &host.addresses {
            let Some(subnet) = self.subnet_of(address) else {
                continue;
            };
            placed = true;
            // One MAC address has one host in a subnet: the newest.
            if let Some(older) = subnet.host_of.insert(hardware, Rc::clone(&host))
                && !Rc::ptr_eq(&older, &host)
            {
                subnet.forget(&older);
                outdone.push(older);
            }
            subnet
                .hosts
                .entry(address)
                .or_default()
                .push(Rc::clone(&host));
        }
        if placed {
            self.hosts.insert(name.to_owned(), host);
        }
        for older in outdone {
            // Not shown any more, but dhcpd still hands its addresses out, to whom it knows by another identifier.
            self.remove_stranger(&older.name);
            self.put_stranger(&older.name, older.addresses.clone());
        }
    }

    fn put_stranger(&mut self, name: &str, addresses: Vec<u32>) {
        for &address in &addresses {
            *self.strange.entry(address).or_default() += 1;
        }
        if !addresses.is_empty() {
            self.strangers.insert(name.to_owned(), addresses);
        }
    }

    fn remove_stranger(&mut self, name: &str) {
        for address in self.strangers.remove(name).unwrap_or_default() {
            if let Some(count) = self.strange.get_mut(&address) {
                *count -= 1;
                if *count == 0 {
                    self.strange.remove(&address);
                }
            }
        }
    }

    /// Forgets a host.
    pub fn remove_host(&mut self, name: &str) {
        self.remove_stranger(name);
        let Some(host) = self.hosts.remove(name) else {
            return;
        };
        for &address in &host.addresses {
            if let Some(subnet) = self.subnet_of(address) {
                subnet.forget(&host);
                if subnet
                    .host_of
                    .get(&host.hardware)
                    .is_some_and(|known| Rc::ptr_eq(known, &host))
                {
                    subnet.host_of.remove(&host.hardware);
                }
            }
        }
    }

    /// Takes an address's newest record.
    pub fn put_lease(&mut self, address: u32, body: LeaseBody, now: i64) {
        let state = body.state.as_deref().map(|word| self.state(word));
        let lease = Lease {
            hardware: body.hardware,
            starts: body.starts,
            ends: body.ends,
            state,
            next_state_is_free: body.next_state_is_free,
            kept: body.kept.into_boxed_slice(),
        };
        let Some(subnet) = self.subnet_of(address) else {
            return;
        };
        subnet.remove_lease(address);
        let state = lease.state.as_deref();
        if state == Some("free")
            || lease.is_over(now)
            || (lease.hardware.is_none() && !body.is_strange && state != Some("abandoned"))
        {
            return;
        }
        if let Some(hardware) = lease.hardware {
            subnet.lease_of.insert(hardware, address);
        }
        subnet.leases.insert(address, lease);
    }

    /// All subnets.
    #[must_use]
    pub fn subnets(&self) -> Vec<dhcp::Subnet> {
        self.subnets
            .iter()
            .map(|subnet| dhcp::Subnet {
                prefix: subnet.declared.prefix.to_string(),
                ranges: subnet
                    .declared
                    .ranges
                    .iter()
                    .map(|&(first, last)| AddressRange {
                        first: Ipv4Addr::from_bits(first).to_string(),
                        last: Ipv4Addr::from_bits(last).to_string(),
                    })
                    .collect(),
                options: subnet.declared.options.clone(),
            })
            .collect()
    }

    /// A page of a subnet's entries, reservations first, each kind in order of addresses.
    ///
    /// # Errors
    /// No such subnet; a cursor that this did not give.
    pub fn entries(
        &self,
        prefix: &str,
        cursor: Option<&str>,
        limit: u32,
        now: i64,
    ) -> Result<Page, Problem> {
        let subnet = self.subnet(prefix)?;
        let limit = usize::try_from(limit.clamp(1, 1_000)).unwrap_or(1);
        let begin = cursor.map_or(Some(Cursor::BEGIN), Cursor::parse);
        let begin = begin
            .ok_or_else(|| Problem::Invalid("the cursor is none of this provider's".to_owned()))?;
        let mut entries = Vec::new();
        if let Cursor::Hosts { address, skip } = begin {
            let mut passed = skip;
            for (&address, hosts) in subnet.hosts.range(address..) {
                for (place, host) in hosts.iter().enumerate().skip(passed) {
                    if entries.len() == limit {
                        let next = Cursor::Hosts {
                            address,
                            skip: place,
                        };
                        return Ok(Page {
                            entries,
                            next: Some(next.written()),
                        });
                    }
                    entries.push(Entry::Reservation(subnet.reservation(host, address)));
                }
                passed = 0;
            }
        }
        let first = match begin {
            Cursor::Hosts { .. } => 0,
            Cursor::Leases { address } => address,
        };
        for (&address, lease) in subnet.leases.range(first..) {
            let Some(hardware) = subnet.holder(lease, address, now) else {
                continue;
            };
            if entries.len() == limit {
                let next = Cursor::Leases { address };
                return Ok(Page {
                    entries,
                    next: Some(next.written()),
                });
            }
            entries.push(Entry::Lease(subnet.lease(lease, hardware, address)));
        }
        Ok(Page {
            entries,
            next: None,
        })
    }

    /// What is known of an address.
    ///
    /// # Errors
    /// No such subnet.
    pub fn by_address(&self, prefix: &str, address: u32, now: i64) -> Result<Vec<Entry>, Problem> {
        let subnet = self.subnet(prefix)?;
        let hosts = subnet.hosts.get(&address).into_iter().flatten();
        let mut found: Vec<Entry> = hosts
            .map(|host| Entry::Reservation(subnet.reservation(host, address)))
            .collect();
        found.extend(subnet.lease_entry(address, now));
        Ok(found)
    }

    /// What is known of a hardware address.
    ///
    /// # Errors
    /// No such subnet.
    pub fn by_hardware(
        &self,
        prefix: &str,
        hardware: Hardware,
        now: i64,
    ) -> Result<Vec<Entry>, Problem> {
        let subnet = self.subnet(prefix)?;
        let mut found = Vec::new();
        if let Some(host) = subnet.host_of.get(&hardware) {
            let own = host
                .addresses
                .iter()
                .filter(|&&address| subnet.declared.prefix.contains(address));
            found.extend(own.map(|&address| Entry::Reservation(subnet.reservation(host, address))));
        }
        found.extend(
            subnet
                .lease_of
                .get(&hardware)
                .and_then(|&address| subnet.lease_entry(address, now)),
        );
        Ok(found)
    }

    /// Whether an address has a reservation or a lease, of whatever hardware, or was abandoned.
    ///
    /// # Errors
    /// No such subnet.
    pub fn in_use(&self, prefix: &str, addresses: &[u32], now: i64) -> Result<Vec<bool>, Problem> {
        let subnet = self.subnet(prefix)?;
        let used = |address: &u32| {
            subnet.hosts.contains_key(address)
                || self.strange.contains_key(address)
                || subnet
                    .leases
                    .get(address)
                    .is_some_and(|lease| !lease.is_over(now))
        };
        Ok(addresses.iter().map(used).collect())
    }

    /// Hosts at an address of a subnet.
    ///
    /// # Errors
    /// No such subnet.
    pub fn hosts_at(&self, prefix: &str, address: u32) -> Result<Vec<Rc<Host>>, Problem> {
        Ok(self
            .subnet(prefix)?
            .hosts
            .get(&address)
            .cloned()
            .unwrap_or_default())
    }

    /// The host of a MAC address in a subnet.
    ///
    /// # Errors
    /// No such subnet.
    pub fn host_of(&self, prefix: &str, hardware: Hardware) -> Result<Option<Rc<Host>>, Problem> {
        Ok(self.subnet(prefix)?.host_of.get(&hardware).cloned())
    }

    /// A host by its name.
    #[must_use]
    pub fn host(&self, name: &str) -> Option<Rc<Host>> {
        self.hosts.get(name).cloned()
    }

    fn subnet(&self, prefix: &str) -> Result<&Subnet, Problem> {
        let unknown = || Problem::UnknownSubnet(prefix.to_owned());
        let wanted: Prefix = prefix.parse().map_err(|()| unknown())?;
        let place = self.by_network.get(&wanted.network()).ok_or_else(unknown)?;
        self.subnets
            .get(*place)
            .filter(|subnet| subnet.declared.prefix == wanted)
            .ok_or_else(unknown)
    }

    /// The smallest subnet that holds an address.
    fn subnet_of(&mut self, address: u32) -> Option<&mut Subnet> {
        let subnets = &self.subnets;
        let mut candidates = self
            .by_network
            .range(..=address)
            .rev()
            .map(|(_, &place)| place);
        let place = candidates.find(|&place| {
            subnets
                .get(place)
                .is_some_and(|subnet| subnet.declared.prefix.contains(address))
        })?;
        self.subnets.get_mut(place)
    }

    fn state(&mut self, word: &[u8]) -> Rc<str> {
        if let Some(known) = self.states.iter().find(|known| known.as_bytes() == word) {
            return Rc::clone(known);
        }
        let state: Rc<str> = String::from_utf8_lossy(word).into();
        // dhcpd knows eight; a file full of others is no reason to search long lists.
        if self.states.len() < 32 {
            self.states.push(Rc::clone(&state));
        }
        state
    }
}

impl Subnet {
    fn forget(&mut self, host: &Rc<Host>) {
        for address in &host.addresses {
            if let Some(hosts) = self.hosts.get_mut(address) {
                hosts.retain(|known| !Rc::ptr_eq(known, host));
                if hosts.is_empty() {
                    self.hosts.remove(address);
                }
            }
        }
    }

    fn remove_lease(&mut self, address: u32) {
        if let Some(hardware) = self
            .leases
            .remove(&address)
            .and_then(|lease| lease.hardware)
            && self.lease_of.get(&hardware) == Some(&address)
        {
            self.lease_of.remove(&hardware);
        }
    }

    fn reservation(&self, host: &Host, address: u32) -> Reservation {
        Reservation {
            subnet: self.declared.prefix.to_string(),
            address: Ipv4Addr::from_bits(address).to_string(),
            identifier: Identifier::Hardware(host.hardware.to_string()),
            name: host.name.clone(),
            deletable: host.dynamic,
            options: host.options(),
        }
    }

    fn lease_entry(&self, address: u32, now: i64) -> Option<Entry> {
        let lease = self.leases.get(&address)?;
        let hardware = self.holder(lease, address, now)?;
        Some(Entry::Lease(self.lease(lease, hardware, address)))
    }

    /// Whose lease that is shown as. None: nobody's, or it is over, or there is a newer one.
    fn holder(&self, lease: &Lease, address: u32, now: i64) -> Option<Hardware> {
        lease
            .hardware
            .filter(|hardware| !lease.is_over(now) && self.lease_of.get(hardware) == Some(&address))
    }

    fn lease(&self, lease: &Lease, hardware: Hardware, address: u32) -> dhcp::Lease {
        dhcp::Lease {
            subnet: self.declared.prefix.to_string(),
            address: Ipv4Addr::from_bits(address).to_string(),
            identifier: Identifier::Hardware(hardware.to_string()),
            starts: lease.starts,
            ends: lease.ends,
            state: lease.state.as_deref().map(str::to_owned),
            options: options::of_body(&lease.kept, Vec::new()),
        }
    }
}

impl Host {
    /// Its options as they are shown.
    #[must_use]
    pub fn options(&self) -> Vec<dhcp::DhcpOption> {
        let mut options = Vec::new();
        options::set(
            &mut options,
            "hostname",
            OptionValue::Text(self.name.clone()),
        );
        options::of_body(&self.kept, options)
    }
}

/// Where the next page begins.
#[derive(Clone, Copy)]
enum Cursor {
    Hosts { address: u32, skip: usize },
    Leases { address: u32 },
}

impl Cursor {
    const BEGIN: Self = Self::Hosts {
        address: 0,
        skip: 0,
    };

    fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(' ')?;
        match kind {
            "hosts" => {
                let (address, skip) = rest.split_once(' ')?;
                Some(Self::Hosts {
                    address: address.parse().ok()?,
                    skip: skip.parse().ok()?,
                })
            }
            "leases" => Some(Self::Leases {
                address: rest.parse().ok()?,
            }),
            _ => None,
        }
    }

    fn written(self) -> String {
        match self {
            Self::Hosts { address, skip } => format!("hosts {address} {skip}"),
            Self::Leases { address } => format!("leases {address}"),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
