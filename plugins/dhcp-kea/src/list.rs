//! What Kea knows of a subnet: reservations from the configuration or from `host_cmds`, then leases.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use bulkhead_sdk::dhcp::{Entry, Page};

use crate::config::{Config, Known};
use crate::failure::Failure;
use crate::hook::{self, Next};
use crate::host::{Host, HostId};
use crate::lease::{Held, Leases};
use crate::prefix::Prefix;
use crate::server::Kea;

/// From how many addresses on it is cheaper to read pages than to ask for each.
const SINGLY: usize = 16;

/// Hosts and whether they can be removed.
pub(crate) type Hosts = Vec<(Host, bool)>;

/// Reservations in a database are seen by `host_cmds` only.
pub(crate) fn check(kea: &Kea, config: &Config) -> Result<(), Failure> {
    if config.has_hosts_database && !hook::is_loaded(kea) {
        return Err(Failure::Unsupported(
            "Kea keeps reservations in a database: load the hook library `host_cmds`".to_owned(),
        ));
    }
    Ok(())
}

/// Reservations, then leases, as entries.
pub(crate) fn entries(
    prefix: Prefix,
    hosts: Hosts,
    leases: impl IntoIterator<Item = Held>,
) -> Vec<Entry> {
    hosts
        .iter()
        .filter_map(|(host, deletable)| host.entry(prefix, *deletable))
        .chain(leases.into_iter().map(|lease| lease.entry(prefix)))
        .collect()
}

/// The reservations of an address.
pub(crate) fn hosts_of_address(
    kea: &Kea,
    config: &Config,
    subnet: &Known,
    address: Ipv4Addr,
) -> Result<Hosts, Failure> {
    check(kea, config)?;
    let here = if hook::is_loaded(kea) {
        hook::by_address(kea, subnet, &address.to_string())?
    } else {
        let all = subnet.hosts.iter();
        all.filter(|host| host.address == Some(address))
            .cloned()
            .collect()
    };
    let global = config.global_in(subnet.prefix);
    Ok(both(
        here,
        global.filter(|host| host.address == Some(address)),
    ))
}

/// The reservations of an identifier.
pub(crate) fn hosts_of_id(
    kea: &Kea,
    config: &Config,
    subnet: &Known,
    id: &HostId,
) -> Result<Hosts, Failure> {
    check(kea, config)?;
    let here = if hook::is_loaded(kea) {
        hook::by_id(kea, subnet, id)?
    } else {
        let all = subnet.hosts.iter();
        all.filter(|host| host.id.is(id)).cloned().collect()
    };
    let global = config.global_in(subnet.prefix);
    Ok(both(here, global.filter(|host| host.id.is(id))))
}

fn both<'a>(here: Vec<Host>, global: impl Iterator<Item = &'a Host>) -> Hosts {
    here.into_iter()
        .map(|host| (host, true))
        .chain(global.map(|host| (host.clone(), false)))
        .collect()
}

/// Where a page begins.
enum Cursor {
    /// Reservations of the configuration, behind this address and identifier.
    Config(String),
    Hook(Next),
    /// Leases, behind this address.
    Lease(Option<Ipv4Addr>),
}

impl Cursor {
    fn read(text: Option<&str>, hooked: bool) -> Result<Self, Failure> {
        let bad = || Failure::Refused("a cursor that this provider did not write".to_owned());
        let Some(text) = text else {
            return Ok(if hooked {
                Self::Hook(Next::default())
            } else {
                Self::Config(String::new())
            });
        };
        if let Some(place) = text.strip_prefix("c:") {
            return Ok(Self::Config(place.to_owned()));
        }
        if let Some(place) = text.strip_prefix("h:") {
            let (source, from) = place.split_once(':').ok_or_else(bad)?;
            return Ok(Self::Hook(Next {
                source_index: source.parse().map_err(|_| bad())?,
                from: from.parse().map_err(|_| bad())?,
            }));
        }
        match text.strip_prefix("l:") {
            Some("") => Ok(Self::Lease(None)),
            Some(address) => Ok(Self::Lease(Some(address.parse().map_err(|_| bad())?))),
            None => Err(bad()),
        }
    }
}

/// The text that orders the configuration's reservations: address first.
fn place(host: &Host) -> String {
    let address = host.address.map_or(0, u32::from);
    format!("{address:08x} {} {}", host.id.kind, host.id.value)
}

/// One page of a subnet.
pub(crate) fn page(
    kea: &Kea,
    config: &Config,
    subnet: &Known,
    cursor: Option<String>,
    limit: u32,
) -> Result<Page, Failure> {
    check(kea, config)?;
    let prefix = subnet.prefix;
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    match Cursor::read(cursor.as_deref(), hook::is_loaded(kea))? {
        Cursor::Config(after) => {
            let mut hosts: Vec<(String, &Host, bool)> = subnet
                .hosts
                .iter()
                .map(|host| (place(host), host, true))
                .chain(
                    config
                        .global_in(prefix)
                        .map(|host| (place(host), host, false)),
                )
                .filter(|(place, host, _)| *place > after && host.address.is_some())
                .collect();
            hosts.sort_by(|(one, ..), (other, ..)| one.cmp(other));
            let more = hosts.len() > wanted;
            hosts.truncate(wanted);
            let next = hosts.last().filter(|_| more);
            let next = next.map(|(place, ..)| format!("c:{place}"));
            let entries: Vec<Entry> = hosts
                .iter()
                .filter_map(|(_, host, deletable)| host.entry(prefix, *deletable))
                .collect();
            then_leases(kea, config, prefix, entries, next, limit)
        }
        Cursor::Hook(next) => {
            let (hosts, more) = hook::page(kea, subnet, next, limit)?;
            let first = next == Next::default();
            let global = config.global_in(prefix).filter(|_| first);
            let entries = entries(prefix, both(hosts, global), None);
            let next = more.map(|next| format!("h:{}:{}", next.source_index, next.from));
            then_leases(kea, config, prefix, entries, next, limit)
        }
        Cursor::Lease(after) => leases(kea, config, prefix, after, limit),
    }
}

/// After the last reservation come the leases; a page without any reservation is not handed out.
fn then_leases(
    kea: &Kea,
    config: &Config,
    prefix: Prefix,
    entries: Vec<Entry>,
    next: Option<String>,
    limit: u32,
) -> Result<Page, Failure> {
    if entries.is_empty() && next.is_none() {
        return leases(kea, config, prefix, None, limit);
    }
    let next = next.or_else(|| Some("l:".to_owned()));
    Ok(Page { entries, next })
}

fn leases(
    kea: &Kea,
    config: &Config,
    prefix: Prefix,
    after: Option<Ipv4Addr>,
    limit: u32,
) -> Result<Page, Failure> {
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    let found = Leases::of(kea, config)?.page(prefix, after, limit)?;
    let next = found.last().filter(|_| found.len() >= wanted);
    let next = next.map(|lease| format!("l:{}", lease.address));
    let entries = entries(prefix, Vec::new(), found);
    Ok(Page { entries, next })
}

/// Which addresses have a reservation or a lease.
pub(crate) fn in_use(
    kea: &Kea,
    config: &Config,
    subnet: &Known,
    addresses: &[String],
) -> Result<Vec<bool>, Failure> {
    check(kea, config)?;
    let asked: Vec<Option<Ipv4Addr>> = addresses.iter().map(|text| text.parse().ok()).collect();
    let wanted: BTreeSet<Ipv4Addr> = asked
        .iter()
        .flatten()
        .copied()
        .filter(|address| subnet.prefix.contains(*address))
        .collect();
    let mut taken: BTreeSet<Ipv4Addr> = config
        .global_in(subnet.prefix)
        .filter_map(|host| host.address)
        .collect();
    reserved(kea, subnet, &wanted, &mut taken)?;
    leased(&Leases::of(kea, config)?, subnet, &wanted, &mut taken)?;
    Ok(asked
        .iter()
        .map(|address| address.is_some_and(|address| taken.contains(&address)))
        .collect())
}

fn reserved(
    kea: &Kea,
    subnet: &Known,
    wanted: &BTreeSet<Ipv4Addr>,
    taken: &mut BTreeSet<Ipv4Addr>,
) -> Result<(), Failure> {
    if !hook::is_loaded(kea) {
        taken.extend(subnet.hosts.iter().filter_map(|host| host.address));
        return Ok(());
    }
    if wanted.len() <= SINGLY {
        for address in wanted {
            if !hook::by_address(kea, subnet, &address.to_string())?.is_empty() {
                taken.insert(*address);
            }
        }
        return Ok(());
    }
    let mut next = Some(Next::default());
    while let Some(from) = next {
        let (hosts, more) = hook::page(kea, subnet, from, 1000)?;
        taken.extend(hosts.iter().filter_map(|host| host.address));
        next = more.filter(|more| *more != from);
    }
    Ok(())
}

fn leased(
    leases: &Leases<'_>,
    subnet: &Known,
    wanted: &BTreeSet<Ipv4Addr>,
    taken: &mut BTreeSet<Ipv4Addr>,
) -> Result<(), Failure> {
    let (Some(first), Some(last)) = (wanted.first(), wanted.last()) else {
        return Ok(());
    };
    if wanted.len() <= SINGLY {
        for address in wanted {
            if leases.of_address(*address)?.is_some() {
                taken.insert(*address);
            }
        }
        return Ok(());
    }
    let mut after = u32::from(*first).checked_sub(1).map(Ipv4Addr::from);
    loop {
        let page = leases.page(subnet.prefix, after, 1000)?;
        taken.extend(page.iter().map(|lease| lease.address));
        match page.last() {
            Some(end) if end.address < *last && page.len() >= 1000 => after = Some(end.address),
            _ => return Ok(()),
        }
    }
}
