//! Free addresses, without races.
//!
//! An address that is suggested is *held* for a while: a key in the store that only one caller can make, gone by itself when the
//! time is over. Whoever makes it has the address, however many ask at once, in however many instances, before or after a crash.
//! Nobody holds more than what was suggested to them: the probe comes first.
//!
//! Addresses are tried in random order, each once, so that callers at the same moment rarely meet, and in batches, so that a large
//! subnet costs few questions.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, Hasher as _};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use bulkhead_sdk::dhcp::{self, Entry, Identifier};
use bulkhead_sdk::prelude::*;
use bulkhead_sdk::probe::{self, Outcome};
use bulkhead_sdk::store::Change;

use crate::network::{Network, address};
use crate::refusal::asking;

/// The store slot of held addresses.
pub(crate) const HELD: &str = "held";

/// The probe slot.
pub(crate) const PROBE: &str = "addresses";

/// Seconds: half an hour, as in the Smart Proxy.
pub(crate) const DEFAULT_HOLD: i64 = 1_800;

/// Longest hold in seconds: a week. More would be a reservation.
const LONGEST_HOLD: i64 = 604_800;

/// Addresses asked of the provider at a time.
const BATCH: usize = 256;

/// How long the probe waits for an answer.
const PROBE_TIME: Duration = Duration::from_secs(1);

/// Addresses probed at once: one, since most are free, then more, since then many are not.
const PROBED: [usize; 4] = [1, 4, 16, 64];

/// Until probes that had to wait are tried again: in it, some of what the policy lets leave in a second is there again.
const TURN: Duration = Duration::from_millis(200);

/// For one search; below the 30 seconds after which the host gives a call up.
const TIME: Duration = Duration::from_secs(20);

/// The holder of an address where somebody answered.
const ANSWERED: &str = "somebody answers";

/// Addresses listed one by one in the log when none is free.
const LISTED: usize = 8;

/// The setting, in seconds.
pub(crate) fn hold() -> Result<Duration, Failure> {
    let seconds = settings::integer("blacklist_duration_minutes").unwrap_or(DEFAULT_HOLD);
    match u64::try_from(seconds) {
        Ok(whole) if seconds <= LONGEST_HOLD => Ok(Duration::from_secs(whole)),
        _ => Err(Failure::internal(format!(
            "blacklist_duration_minutes is {seconds}; it must be from 0 to {LONGEST_HOLD} seconds"
        ))),
    }
}

/// The setting's name misleads, so the log says at the start what is in force.
pub(crate) fn tell_hold() {
    if let Ok(time) = hold() {
        log::info(format!(
            "an address that was suggested is not suggested again for {} s (blacklist_duration_minutes counts seconds)",
            time.as_secs()
        ));
    }
}

/// The addresses that may be suggested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    first: u32,
    last: u32,
}

impl Range {
    /// All of the subnet but its first and last address, between `from` and `to`. The server's own ranges do not matter here.
    pub(crate) fn of(
        network: &Network,
        from: Option<&str>,
        to: Option<&str>,
    ) -> Result<Self, Failure> {
        let bound = |text: Option<&str>| {
            text.filter(|text| !text.is_empty())
                .map(address)
                .transpose()
        };
        let (from, to) = (bound(from)?, bound(to)?);
        if let (Some(from), Some(to)) = (from, to) {
            if !network.contains(from) || !network.contains(to) {
                return Err(Failure::bad_request(
                    "Range does not belong to provided subnet",
                ));
            }
            if from > to {
                return Err(Failure::bad_request(format!(
                    "{from} can't be lower IP address than {to} - change the order?"
                )));
            }
        }
        let broadcast = network.address.to_bits() | !network.mask;
        let first = network.address.to_bits().saturating_add(1);
        let last = broadcast.saturating_sub(1);
        let range = Self {
            first: from.map_or(first, |from| from.to_bits().max(first)),
            last: to.map_or(last, |to| to.to_bits().min(last)),
        };
        if range.first > range.last {
            return Err(Failure::bad_request("Zero or negative number of indices"));
        }
        Ok(range)
    }

    fn contains(self, address: u32) -> bool {
        (self.first..=self.last).contains(&address)
    }
}

/// An address that nobody has, or none. With a MAC address that has one in the range already: that one.
pub(crate) fn find(
    network: &Network,
    range: Range,
    mac: Option<&MacAddress>,
) -> Result<Option<Ipv4Addr>, Failure> {
    let prefix = network.subnet.prefix.as_str();
    if let Some(own) = own(prefix, range, mac)? {
        return Ok(Some(own));
    }
    let mut search = Search {
        prefix,
        range,
        mac: mac.map(MacAddress::canonical).unwrap_or_default(),
        hold: hold()?,
        held: held(range)?,
        probing: settings::boolean("ping_free_ip").unwrap_or(true),
        refused_is_used: settings::boolean("probe_refused_is_used").unwrap_or(false),
        end: Instant::now() + TIME,
        probes: 0,
        waited: false,
        skipped: Skipped::default(),
    };
    let mut order = Order::new(range);
    loop {
        let batch: Vec<u32> = order.by_ref().take(BATCH).collect();
        if batch.is_empty() {
            break;
        }
        if let Some(found) = search.first_free(batch)? {
            return Ok(Some(Ipv4Addr::from_bits(found)));
        }
    }
    log::warn(format!(
        "No free IPs in range {}..{}. {}",
        Ipv4Addr::from_bits(range.first),
        Ipv4Addr::from_bits(range.last),
        search.skipped.told(search.hold)
    ));
    Ok(None)
}

/// What the MAC address has already. Spelled in upper case it has nothing: the Smart Proxy compares letter by letter here.
fn own(prefix: &str, range: Range, mac: Option<&MacAddress>) -> Result<Option<Ipv4Addr>, Failure> {
    let Some(mac) = mac.filter(|mac| mac.as_str() == mac.colon_lower()) else {
        return Ok(None);
    };
    let mac = mac.canonical();
    let known = dhcp::by_identifier(prefix, &Identifier::Hardware(mac.clone())).map_err(asking)?;
    for entry in &known {
        let (text, is_lease) = match entry {
            Entry::Reservation(found) => (&found.address, false),
            Entry::Lease(found) => (&found.address, true),
        };
        let address = text.parse::<Ipv4Addr>().ok();
        let Some(address) = address.filter(|address| range.contains(address.to_bits())) else {
            continue;
        };
        if !is_lease || keeps_lease(prefix, address, &mac)? {
            return Ok(Some(address));
        }
    }
    Ok(None)
}

/// Whether a machine's leased address may become its own, which holds it. Not if it was reserved for another one, or suggested to one before dhcpd leased it.
fn keeps_lease(prefix: &str, address: Ipv4Addr, mac: &str) -> Result<bool, Failure> {
    let there = dhcp::by_address(prefix, &address.to_string()).map_err(asking)?;
    if there
        .iter()
        .any(|entry| matches!(entry, Entry::Reservation(_)))
    {
        return Ok(false);
    }
    if claim(address.to_bits(), mac, hold()?)? {
        return Ok(true);
    }
    let holder = store::get(HELD, &key(address.to_bits()))?.map(|entry| entry.value);
    Ok(holder.is_none_or(|holder| holder == mac.as_bytes() || holder == ANSWERED.as_bytes()))
}

/// Holds an address. False: somebody was faster.
fn claim(address: u32, holder: &str, hold: Duration) -> Result<bool, Failure> {
    if hold.is_zero() {
        return Ok(true);
    }
    let change = Change::put(&key(address), holder)
        .if_absent()
        .expires_in(hold);
    match store::apply(HELD, &[change]) {
        Ok(_) => Ok(true),
        Err(store::Error::Conflict(_)) => Ok(false),
        Err(other) => Err(other.into()),
    }
}

/// Text that sorts like the address.
fn key(address: u32) -> String {
    format!("{address:08x}")
}

fn held(range: Range) -> Result<HashSet<u32>, Failure> {
    let mut found = HashSet::new();
    let mut after = range.first.checked_sub(1).map(key);
    loop {
        let entries = store::scan(HELD, "", after.as_deref(), 1_000)?;
        let Some(last) = entries.last() else {
            return Ok(found);
        };
        after = Some(last.key.clone());
        for entry in &entries {
            match u32::from_str_radix(&entry.key, 16) {
                Ok(address) if address > range.last => return Ok(found),
                Ok(address) => drop(found.insert(address)),
                Err(_) => {}
            }
        }
    }
}

struct Search<'a> {
    prefix: &'a str,
    range: Range,
    mac: String,
    hold: Duration,
    held: HashSet<u32>,
    probing: bool,
    refused_is_used: bool,
    end: Instant,
    probes: usize,
    /// Whether it was told that probes have to wait.
    waited: bool,
    skipped: Skipped,
}

impl Search<'_> {
    fn first_free(&mut self, mut batch: Vec<u32>) -> Result<Option<u32>, Failure> {
        let before = batch.len();
        batch.retain(|address| !self.held.contains(address));
        self.skipped.held += before - batch.len();
        if batch.is_empty() {
            return Ok(None);
        }
        let texts: Vec<String> = batch
            .iter()
            .map(|&address| Ipv4Addr::from_bits(address).to_string())
            .collect();
        let used = dhcp::in_use(self.prefix, &texts).map_err(asking)?;
        let mut free = Vec::new();
        for (index, address) in batch.into_iter().enumerate() {
            // What the provider says nothing of, it does not know to be free.
            match used.get(index) {
                Some(false) => free.push(address),
                _ => self.skipped.taken += 1,
            }
        }
        while !free.is_empty() {
            if Instant::now() > self.end {
                return Err(Failure::new(
                    504,
                    format!("found no free address within {} s", TIME.as_secs()),
                ));
            }
            let count = match self.probing {
                true => PROBED
                    .get(self.probes)
                    .or(PROBED.last())
                    .copied()
                    .unwrap_or(1),
                false => 1,
            };
            let rest = free.split_off(count.min(free.len()));
            let Some(silent) = self.silent(&free)? else {
                free.extend(rest);
                self.wait_for_a_turn(&mut free)?;
                continue;
            };
            free = rest;
            for address in silent {
                if claim(address, &self.mac, self.hold)? {
                    return Ok(Some(address));
                }
                self.skipped.held += 1;
            }
        }
        Ok(None)
    }

    /// Others ask for addresses as well, and what they found meanwhile need not be asked again.
    fn wait_for_a_turn(&mut self, free: &mut Vec<u32>) -> Result<(), Failure> {
        std::thread::sleep(TURN);
        // Whoever asks little at once gets its turn soonest.
        self.probes = 0;
        self.held = held(self.range)?;
        let before = free.len();
        free.retain(|address| !self.held.contains(address));
        self.skipped.held += before - free.len();
        Ok(())
    }

    /// Those of the addresses where nobody answers. None: as many probes as may leave at the moment are on their way.
    fn silent(&mut self, addresses: &[u32]) -> Result<Option<Vec<u32>>, Failure> {
        if !self.probing {
            return Ok(Some(addresses.to_vec()));
        }
        self.probes += 1;
        let texts: Vec<String> = addresses
            .iter()
            .map(|&address| Ipv4Addr::from_bits(address).to_string())
            .collect();
        let outcomes = match probe::ask(PROBE, &texts, PROBE_TIME) {
            Ok(outcomes) => outcomes,
            Err(probe::Error::Denied(why)) => {
                log::warn(format!("addresses are suggested without a probe: {why}"));
                self.probing = false;
                return Ok(Some(addresses.to_vec()));
            }
            Err(probe::Error::Failed(why)) => {
                if !self.waited {
                    log::warn(format!("addresses wait for their probe: {why}"));
                }
                self.waited = true;
                return Ok(None);
            }
        };
        let mut silent = Vec::new();
        for (index, &address) in addresses.iter().enumerate() {
            match outcomes.get(index) {
                Some(Outcome::Silent) => silent.push(address),
                Some(Outcome::Refused) if !self.refused_is_used => silent.push(address),
                Some(Outcome::Answered | Outcome::Refused) => {
                    // Not asked again until the hold is over.
                    claim(address, ANSWERED, self.hold)?;
                    self.skipped.answered.push(address);
                }
                None => self.skipped.unprobed += 1,
            }
        }
        Ok(Some(silent))
    }
}

/// Why addresses were not suggested.
#[derive(Default)]
struct Skipped {
    taken: usize,
    held: usize,
    unprobed: usize,
    answered: Vec<u32>,
}

impl Skipped {
    fn told(&self, hold: Duration) -> String {
        let mut told = vec![
            format!("{} have a reservation or a lease", self.taken),
            format!("{} were suggested within {} s", self.held, hold.as_secs()),
        ];
        if self.unprobed > 0 {
            told.push(format!("{} could not be probed", self.unprobed));
        }
        if !self.answered.is_empty() {
            let listed: Vec<String> = self
                .answered
                .iter()
                .take(LISTED)
                .map(|&address| Ipv4Addr::from_bits(address).to_string())
                .collect();
            told.push(format!(
                "{} answered the probe ({}{})",
                self.answered.len(),
                listed.join(", "),
                {
                    if self.answered.len() > LISTED {
                        ", .."
                    } else {
                        ""
                    }
                }
            ));
        }
        told.join("; ")
    }
}

/// Every address of a range once, in an order that is another each time: steps of a length that shares no factor with the range's.
struct Order {
    range: Range,
    count: u64,
    step: u64,
    place: u64,
    left: u64,
}

impl Order {
    fn new(range: Range) -> Self {
        let count = u64::from(range.last - range.first) + 1;
        let mut step = random() % count;
        while greatest_common_divisor(step, count) != 1 {
            step = (step + 1) % count.max(2);
        }
        Self {
            range,
            count,
            step,
            place: random() % count,
            left: count,
        }
    }
}

impl Iterator for Order {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        self.left = self.left.checked_sub(1)?;
        self.place = (self.place + self.step) % self.count;
        let offset = u32::try_from(self.place).ok()?;
        self.range.first.checked_add(offset)
    }
}

fn greatest_common_divisor(one: u64, other: u64) -> u64 {
    if other == 0 {
        one
    } else {
        greatest_common_divisor(other, one % other)
    }
}

/// The standard library seeds its hash tables at random, from the host.
fn random() -> u64 {
    std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_comes_once() {
        for count in [1_u32, 2, 3, 4, 10, 200, 254, 65_534] {
            let range = Range {
                first: 1_000,
                last: 999 + count,
            };
            let mut seen: Vec<u32> = Order::new(range).collect();
            assert_eq!(seen.len(), usize::try_from(count).unwrap());
            seen.sort_unstable();
            assert!(seen.iter().copied().eq(1_000..1_000 + count), "{count}");
        }
    }

    #[test]
    fn two_orders_differ() {
        let range = Range {
            first: 0,
            last: 9_999,
        };
        let first = |_| Order::new(range).take(5).collect::<Vec<_>>();
        let orders: HashSet<Vec<u32>> = (0..20).map(first).collect();
        assert!(orders.len() > 15);
    }
}
