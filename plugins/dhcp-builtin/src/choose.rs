//! Which address a client gets: never one that somebody else has, was offered, or has reserved.
//!
//! The one idea: one order for all, so that a client that asks again is offered the same: reserved, had, offered, wished for, never used, unused for longest.

use std::net::Ipv4Addr;

use bulkhead_sdk::log;

use crate::identity::Client;
use crate::lease::State;
use crate::packet::{Request, code};
use crate::server::{Place, Server};

/// Ended leases looked at when a range has no fresh address left.
const LOOKED_AT: usize = 256;

impl Server {
    /// The address for a client: reserved, had, offered, wished for, or the next.
    pub(crate) fn choose(
        &mut self,
        request: &Request,
        place: &Place<'_>,
        now: i64,
    ) -> Option<Ipv4Addr> {
        let (subnet, client) = (place.subnet, &place.client);
        if let Some(reserved) = &place.reserved {
            if self.is_free(reserved.address, client, now, true) {
                return Some(reserved.address);
            }
            log::warn(format!(
                "{} is reserved for {client}, but somebody else has it",
                reserved.address
            ));
            return None;
        }
        let fits = |address: Ipv4Addr| {
            subnet.hands_out(address) && self.is_free(address, client, now, false)
        };
        let had = self.book.leases_of(client).map(|lease| lease.address);
        let offered = self.offers.of(client, now);
        let candidates = had.chain(offered).chain(request.address(code::REQUESTED));
        let known = candidates.into_iter().find(|address| fits(*address));
        known.or_else(|| self.next_fresh(place, now)).or_else(|| {
            let ended = self.book.ended(now).take(LOOKED_AT);
            let free = |address: &Ipv4Addr| {
                subnet.hands_out(*address) && self.is_free(*address, client, now, false)
            };
            ended.into_iter().find(free)
        })
    }

    /// The next address of the ranges that was never leased.
    pub(crate) fn next_fresh(&mut self, place: &Place<'_>, now: i64) -> Option<Ipv4Addr> {
        let network = place.subnet.network;
        let from = (*self.fresh.entry(network).or_insert(Some(0)))?;
        let mut at = from;
        let mut offered_on_the_way = false;
        for (first, last) in &place.subnet.ranges {
            let (first, last) = (u32::from(*first), u32::from(*last));
            let mut next = first.max(at);
            while next <= last {
                let address = Ipv4Addr::from(next);
                next += 1;
                if self.book.lease(address).is_some() {
                    continue;
                }
                if self.is_free(address, &place.client, now, false) {
                    self.fresh.insert(network, Some(next));
                    return Some(address);
                }
                offered_on_the_way |= self.book.reserved_at(address).is_empty();
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
            self.next_fresh(place, now)
        } else {
            None
        }
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
        if !is_reserved && !siblings.is_empty() {
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
