//! Kea's configuration, as far as this plugin looks at it, and a copy of it that is checked before each use.
//!
//! The one idea: what is kept is believed only after Kea said that it still holds, by `config-hash-get` (2.4 and later). Where it cannot, reading all
//! of it for each question would cost more than anything else: then it is believed for a second, or for as long as reading it took if that is more,
//! unless this plugin changed it meanwhile, in whichever instance. Whoever changes it reads it anew in any case.

use std::cell::RefCell;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bulkhead_sdk::dhcp::{AddressRange, DhcpOption, Subnet};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::failure::Failure;
use crate::host::Host;
use crate::lock::Generation;
use crate::options::{self, Datum};
use crate::prefix::{self, Prefix};
use crate::server::Kea;

/// What this plugin knows of a configuration.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) subnets: Vec<Known>,
    /// Reservations that hold in all subnets.
    pub(crate) global: Vec<Host>,
    /// False: several hosts may share an address.
    pub(crate) unique_addresses: bool,
    /// Reservations stand in a database as well.
    pub(crate) has_hosts_database: bool,
    /// The path of the lease file; none when leases are kept elsewhere.
    pub(crate) lease_file: Option<String>,
}

/// One subnet.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) id: u32,
    pub(crate) prefix: Prefix,
    ranges: Vec<(Ipv4Addr, Ipv4Addr)>,
    options: Vec<DhcpOption>,
    /// By address, then identifier.
    pub(crate) hosts: Vec<Host>,
}

impl Known {
    /// One more host, at its place.
    pub(crate) fn insert(&mut self, host: Host) {
        let at = self
            .hosts
            .partition_point(|other| other.place() <= host.place());
        self.hosts.insert(at, host);
    }

    /// As the interface shows it.
    pub(crate) fn shown(&self) -> Subnet {
        Subnet {
            prefix: self.prefix.to_string(),
            ranges: self
                .ranges
                .iter()
                .map(|(first, last)| AddressRange {
                    first: first.to_string(),
                    last: last.to_string(),
                })
                .collect(),
            options: self.options.clone(),
        }
    }
}

impl Config {
    /// The subnet of that prefix.
    pub(crate) fn subnet(&self, prefix: &str) -> Result<&Known, Failure> {
        let prefix: Prefix = prefix.parse().map_err(|()| Failure::UnknownSubnet)?;
        self.subnets
            .iter()
            .find(|subnet| subnet.prefix == prefix)
            .ok_or(Failure::UnknownSubnet)
    }

    /// The same, to be changed.
    pub(crate) fn subnet_mut(&mut self, prefix: &str) -> Result<&mut Known, Failure> {
        let prefix: Prefix = prefix.parse().map_err(|()| Failure::UnknownSubnet)?;
        self.subnets
            .iter_mut()
            .find(|subnet| subnet.prefix == prefix)
            .ok_or(Failure::UnknownSubnet)
    }

    /// Of who has which address in which subnet: equal where that is equal.
    pub(crate) fn reserved(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for subnet in &self.subnets {
            subnet.id.hash(&mut hasher);
            for host in &subnet.hosts {
                host.place().hash(&mut hasher);
            }
        }
        hasher.finish()
    }

    /// The global reservations with an address in that subnet.
    pub(crate) fn global_in(&self, prefix: Prefix) -> impl Iterator<Item = &Host> {
        self.global
            .iter()
            .filter(move |host| host.address.is_some_and(|address| prefix.contains(address)))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Dhcp4 {
    #[serde(default)]
    subnet4: Vec<Subnet4>,
    #[serde(default)]
    shared_networks: Vec<SharedNetwork>,
    #[serde(default)]
    option_data: Vec<Datum>,
    #[serde(default)]
    reservations: Vec<Host>,
    #[serde(default = "yes")]
    ip_reservations_unique: bool,
    #[serde(default)]
    hosts_database: Option<IgnoredAny>,
    #[serde(default)]
    hosts_databases: Vec<IgnoredAny>,
    #[serde(default)]
    lease_database: LeaseDatabase,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct SharedNetwork {
    #[serde(default)]
    subnet4: Vec<Subnet4>,
    #[serde(default)]
    option_data: Vec<Datum>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Subnet4 {
    id: u32,
    subnet: String,
    #[serde(default)]
    pools: Vec<Pool>,
    #[serde(default)]
    option_data: Vec<Datum>,
    #[serde(default)]
    reservations: Vec<Host>,
}

#[derive(Deserialize)]
struct Pool {
    pool: String,
}

#[derive(Deserialize, Default)]
struct LeaseDatabase {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    name: String,
    /// Absent: true. False: the server keeps them in its memory only, and a file that lies there is an old one.
    #[serde(default)]
    persist: Option<bool>,
}

impl LeaseDatabase {
    fn file(self) -> Option<String> {
        (self.kind == "memfile" && self.persist != Some(false)).then_some(self.name)
    }
}

/// Reads the value of `Dhcp4`.
pub(crate) fn read(dhcp4: &str) -> Result<Config, Failure> {
    let read: Dhcp4 =
        serde_json::from_str(dhcp4).map_err(|why| Failure::Junk(format!("config-get: {why}")))?;
    let mut subnets = Vec::new();
    for subnet in read.subnet4 {
        subnets.push(known(subnet, &[], &read.option_data)?);
    }
    for network in read.shared_networks {
        for subnet in network.subnet4 {
            subnets.push(known(subnet, &network.option_data, &read.option_data)?);
        }
    }
    Ok(Config {
        subnets,
        global: read.reservations,
        unique_addresses: read.ip_reservations_unique,
        has_hosts_database: read.hosts_database.is_some() || !read.hosts_databases.is_empty(),
        lease_file: read.lease_database.file(),
    })
}

fn known(subnet: Subnet4, network: &[Datum], global: &[Datum]) -> Result<Known, Failure> {
    let prefix = subnet
        .subnet
        .parse()
        .map_err(|()| Failure::Junk(format!("`{}` is no IPv4 prefix", subnet.subnet)))?;
    let mut hosts = subnet.reservations;
    hosts.sort_by(|one, other| one.place().cmp(&other.place()));
    Ok(Known {
        id: subnet.id,
        prefix,
        ranges: subnet
            .pools
            .iter()
            .filter_map(|pool| prefix::pool(&pool.pool))
            .collect(),
        options: options::of_subnet(&[&subnet.option_data, network, global]),
        hosts,
    })
}

/// A configuration as Kea wrote it.
pub(crate) struct Text {
    /// The value of `Dhcp4`.
    pub(crate) dhcp4: Box<RawValue>,
    /// Kea's own hash of it, from 2.4 on.
    pub(crate) hash: Option<String>,
}

/// Asks for the configuration.
pub(crate) fn fetch(kea: &Kea) -> Result<Text, Failure> {
    #[derive(Deserialize)]
    struct Arguments {
        #[serde(rename = "Dhcp4")]
        dhcp4: Box<RawValue>,
        #[serde(default)]
        hash: Option<String>,
    }
    let Arguments { dhcp4, hash } = kea.ask_raw("config-get", None)?.read()?;
    Ok(Text { dhcp4, hash })
}

/// Kea's hash of its present configuration, where it has one.
pub(crate) fn hash(kea: &Kea) -> Result<Option<String>, Failure> {
    #[derive(Deserialize)]
    struct Arguments {
        hash: String,
    }
    if !kea.has("config-hash-get") {
        return Ok(None);
    }
    let Arguments { hash } = kea.ask_raw("config-hash-get", None)?.read()?;
    Ok(Some(hash))
}

/// How long a copy is believed at least that nobody can be asked about.
const BELIEVED: Duration = Duration::from_secs(1);

struct Kept {
    /// Until when it is believed, and after which of our changes it was read; none for a copy that has to be checked.
    believed: Option<(Instant, Generation)>,
    hash: Option<String>,
    /// Of the text.
    fingerprint: (usize, u64),
    config: Rc<Config>,
}

thread_local! {
    static KEPT: RefCell<Option<Kept>> = const { RefCell::new(None) };
}

/// The present configuration: the kept one if it still holds.
pub(crate) fn current(kea: &Kea) -> Result<Rc<Config>, Failure> {
    if let Some(hash) = hash(kea)? {
        let kept = KEPT.with_borrow(|kept| {
            kept.as_ref()
                .filter(|kept| kept.hash.as_ref() == Some(&hash))
                .map(|kept| Rc::clone(&kept.config))
        });
        if let Some(config) = kept {
            return Ok(config);
        }
    }
    let generation = Generation::now()?;
    let young = KEPT.with_borrow(|kept| {
        let kept = kept.as_ref()?;
        let (until, then) = kept.believed?;
        (kept.hash.is_none() && then == generation && Instant::now() < until)
            .then(|| Rc::clone(&kept.config))
    });
    if let Some(config) = young {
        return Ok(config);
    }
    let asked = Instant::now();
    let text = fetch(kea)?;
    // A large one takes seconds: believed for less, it would be read anew for each page of a list.
    let until = Instant::now() + asked.elapsed().max(BELIEVED);
    keep_until(&text, Some((until, generation)))
}

/// Reads a text, unless it is the one that was read last.
pub(crate) fn keep(text: &Text) -> Result<Rc<Config>, Failure> {
    keep_until(text, None)
}

fn keep_until(text: &Text, believed: Option<(Instant, Generation)>) -> Result<Rc<Config>, Failure> {
    let raw = text.dhcp4.get();
    let mut hasher = DefaultHasher::new();
    raw.hash(&mut hasher);
    let fingerprint = (raw.len(), hasher.finish());
    let kept = KEPT.with_borrow(|kept| {
        kept.as_ref()
            .filter(|kept| kept.fingerprint == fingerprint)
            .map(|kept| Rc::clone(&kept.config))
    });
    let config = match kept {
        Some(config) => config,
        None => Rc::new(read(raw)?),
    };
    KEPT.set(Some(Kept {
        believed,
        hash: text.hash.clone(),
        fingerprint,
        config: Rc::clone(&config),
    }));
    Ok(config)
}
