//! Which address a client gets: never one that somebody else has, was offered, or has reserved.
//!
//! The one idea: one order for all, so that a client that asks again is offered the same: reserved, had, offered, wished for, never used, unused for longest.
//! Where subnets share a wire, each step looks at all of them, first at the one that the client arrived in.

use std::net::Ipv4Addr;
use std::rc::Rc;

use bulkhead_sdk::log;

use crate::identity::Client;
use crate::lease::State;
use crate::packet::{Request, code};
use crate::server::{Place, Server};
use crate::subnets::Subnet;

/// Before every ended lease.
const BEGINNING: (i64, Ipv4Addr) = (i64::MIN, Ipv4Addr::UNSPECIFIED);
/// Seconds until the log is told again that a wire is full. A flood of new machines fills no log.
const TOLD_FOR: i64 = 600;

/// How far the search for an address went, for machines that arrive in one subnet.
#[derive(Debug)]
pub(crate) struct Search {
    /// The ended lease looked at last, by its end.
    ended: (i64, Ipv4Addr),
    /// When nothing was found: not asked again in that second, since each such search looks at everything.
    in_vain: Option<i64>,
    /// When the log was told.
    told: Option<i64>,
}

impl Default for Search {
    fn default() -> Self {
        Self {
            ended: BEGINNING,
            in_vain: None,
            told: None,
        }
    }
}

impl Server {
    /// The address for a client: reserved, had, offered, wished for, or the next.
    pub(crate) fn choose(
        &mut self,
        request: &Request,
        place: &Place<'_>,
        now: i64,
    ) -> Option<Ipv4Addr> {
        let client = &place.client;
        if let Some(reserved) = &place.reserved {
            if self.is_free_for_holder(reserved.address, place, now) {
                return Some(reserved.address);
            }
            let lease = self.book.lease(reserved.address);
            let rests = lease.filter(|it| it.state == State::Declined);
            let why = match rests {
                Some(lease) => format!(
                    "it was found in use, and rests for {} s yet. Reserve it anew when nobody uses it any more",
                    lease.ends - now
                ),
                None => "somebody else has it".to_owned(),
            };
            log::warn(format!(
                "{} is reserved for {client}, but {why}",
                reserved.address
            ));
            return None;
        }
        let wire: Vec<Rc<Subnet>> = self.config.wire(place.subnet).cloned().collect();
        let fits = |address: Ipv4Addr| {
            wire.iter().any(|subnet| subnet.hands_out(address))
                && self.is_free(address, client, now, false)
        };
        let had = self.book.leases_of(client).map(|lease| lease.address);
        let offered = self.offers.of(client, now);
        let candidates = had.chain(offered).chain(request.address(code::REQUESTED));
        let known = candidates.into_iter().find(|address| fits(*address));
        known.or_else(|| self.next(&wire, client, now))
    }

    /// The next address of a wire, whose first subnet is the one the client arrived in.
    fn next(&mut self, wire: &[Rc<Subnet>], client: &Client, now: i64) -> Option<Ipv4Addr> {
        let entry = wire.first()?;
        let mut search = self.searches.remove(&entry.network).unwrap_or_default();
        let mut found = None;
        if search.in_vain != Some(now) {
            found = wire
                .iter()
                .find_map(|subnet| self.next_fresh(subnet, client, now))
                .or_else(|| self.next_ended(&mut search.ended, wire, client, now));
            search.in_vain = found.is_none().then_some(now);
        }
        let is_due = search.told.is_none_or(|told| now - told >= TOLD_FOR);
        if found.is_none() && is_due && wire.iter().any(|subnet| !subnet.ranges.is_empty()) {
            search.told = Some(now);
            log::warn(format!(
                "{} has no free address left for {client}; only machines that have or reserved one are served. Widen its range, or shorten its leases",
                entry.prefix()
            ));
        }
        self.searches.insert(entry.network, search);
        found
    }

    /// The next address whose lease ended: those after the last one that was found, then all. So no search looks again at what was just offered.
    fn next_ended(
        &self,
        last: &mut (i64, Ipv4Addr),
        wire: &[Rc<Subnet>],
        client: &Client,
        now: i64,
    ) -> Option<Ipv4Addr> {
        let is_free = |(_, address): &(i64, Ipv4Addr)| {
            wire.iter().any(|subnet| subnet.hands_out(*address))
                && self.is_free(*address, client, now, false)
        };
        let mut after = self.book.ended(*last, now);
        let found = after.find(is_free);
        *last = found.or_else(|| self.book.ended(BEGINNING, now).find(is_free))?;
        Some(last.1)
    }

    /// The next address of the ranges that was never leased.
    pub(crate) fn next_fresh(
        &mut self,
        subnet: &Subnet,
        client: &Client,
        now: i64,
    ) -> Option<Ipv4Addr> {
        let network = subnet.network;
        let from = (*self.fresh.entry(network).or_insert(Some(0)))?;
        let mut at = from;
        let mut offered_on_the_way = false;
        for (first, last) in &subnet.ranges {
            let (first, last) = (u32::from(*first), u32::from(*last));
            let mut next = first.max(at);
            while next <= last {
                let address = Ipv4Addr::from(next);
                next += 1;
                if self.book.lease(address).is_some() || subnet.is_a_servers(address) {
                    continue;
                }
                if self.is_free(address, client, now, false) {
                    self.fresh.insert(network, Some(next));
                    return Some(address);
                }
                offered_on_the_way |= self.offers.at(address, now).is_some()
                    && self.book.reserved_at(address).is_empty();
            }
            at = at.max(next);
        }
        // Those before the pointer may have been offered in vain: once more from the start, before giving up.
        self.fresh.insert(
            network,
            if from > 0 || offered_on_the_way {
                Some(0)
            } else {
                None
            },
        );
        if from > 0 {
            self.next_fresh(subnet, client, now)
        } else {
            None
        }
    }

    /// Whether somebody can have the address that is reserved for it: whoever has it is the same machine, by any of its names.
    pub(crate) fn is_free_for_holder(
        &self,
        address: Ipv4Addr,
        place: &Place<'_>,
        now: i64,
    ) -> bool {
        let mut names = place.names.iter().chain([&place.client]);
        names.any(|name| self.is_free(address, name, now, true))
    }

    /// Whether a client can have an address: nobody else has it, was offered it, or has it reserved.
    pub(crate) fn is_free(
        &self,
        address: Ipv4Addr,
        client: &Client,
        now: i64,
        is_reserved: bool,
    ) -> bool {
        let siblings = self.book.reserved_at(address);
        let is_ours = || self.own.values().any(|own| *own == address);
        if !is_reserved && (!siblings.is_empty() || is_ours()) {
            return false;
        }
        if let Some(lease) = self.book.lease(address).filter(|lease| lease.is_held(now)) {
            let is_theirs = lease.client == *client
                || (is_reserved && siblings.iter().any(|it| it.client == lease.client));
            if lease.state == State::Declined || !is_theirs {
                return false;
            }
        }
        is_reserved
            || self
                .offers
                .at(address, now)
                .is_none_or(|other| other == client)
    }
}
