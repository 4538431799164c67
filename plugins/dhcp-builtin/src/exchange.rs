//! What a client's message does (RFC 2131 sections 3.1 to 3.5 and 4.3).

use std::net::Ipv4Addr;

use bulkhead_sdk::log;
use bulkhead_sdk::store::Change;

use crate::answer::own_address;
use crate::identity::Client;
use crate::lease::{self, Lease, State};
use crate::packet::{Message, Request, code};
use crate::server::{Arrival, Outcome, Place, Server};

impl Server {
    pub(crate) fn discover(
        &mut self,
        request: &Request,
        arrival: &Arrival<'_>,
        place: &Place<'_>,
    ) -> Option<Outcome> {
        let address = self.choose(request, place, arrival.now)?;
        let until = arrival.now + i64::from(self.config.offer_time);
        self.offers.put(&place.client, address, until);
        let subnet = self.config.on_wire(place.subnet, address);
        let subnet = subnet.unwrap_or(place.subnet);
        let seconds = Some(subnet.lease_time);
        let mut reply = self.reply(Message::Offer, request, arrival, place, subnet, seconds);
        reply.yours = address;
        let was_theirs = self
            .book
            .lease(address)
            .is_some_and(|it| it.client == place.client);
        Some(Outcome {
            reaction: self.send(request, arrival, &reply),
            is_durable: false,
            probe: (!was_theirs && place.reserved.is_none()).then_some(address),
        })
    }

    pub(crate) fn request(
        &mut self,
        request: &Request,
        arrival: &Arrival<'_>,
        place: &Place<'_>,
        changes: &mut Vec<Change>,
    ) -> Option<Outcome> {
        let (now, client) = (arrival.now, &place.client);
        let server = request.address(code::SERVER);
        if server.is_some_and(|server| server != own_address(request, arrival)) {
            // The client took another server's offer.
            self.offers.drop_client(client);
            return None;
        }
        let renewing = Some(request.client).filter(|it| !it.is_unspecified());
        let wanted = request.address(code::REQUESTED).or(renewing)?;
        let refused = |server: &Self| {
            server
                .config
                .authoritative
                .then(|| server.nak(request, arrival))
        };
        let Some(subnet) = self.config.on_wire(place.subnet, wanted).cloned() else {
            return refused(self);
        };
        let is_theirs = match &place.reserved {
            Some(reserved) => {
                reserved.address == wanted && self.is_free_for_holder(wanted, place, now)
            }
            None => {
                let had = self
                    .book
                    .lease(wanted)
                    .is_some_and(|it| it.client == *client);
                let offered = match self.offers.of(client, now) {
                    Some(offer) => offer == wanted,
                    None => server.is_some() && self.is_after_another(now),
                };
                (had || offered)
                    && subnet.hands_out(wanted)
                    && self.is_free(wanted, client, now, false)
            }
        };
        if !is_theirs {
            return refused(self);
        }
        let full = i64::from(subnet.lease_time);
        let known = self.book.lease(wanted).filter(|it| {
            // A client that asks again soon, as every boot does several times, costs no commit.
            it.client == *client
                && it.state == State::Active
                && it.ends - now > full - full / 4
                && it.ends - now <= full
        });
        let seconds = match known {
            Some(lease) => lease.ends - now,
            None => {
                let lease = Lease {
                    address: wanted,
                    client: client.clone(),
                    host_name: lease::host_name(request.option(code::HOST_NAME)),
                    starts: now,
                    ends: now + full,
                    state: State::Active,
                };
                changes.push(lease.change());
                self.book.set_lease(lease);
                full
            }
        };
        self.offers.drop_client(client);
        let seconds = u32::try_from(seconds).unwrap_or(subnet.lease_time);
        let mut reply = self.reply(
            Message::Ack,
            request,
            arrival,
            place,
            &subnet,
            Some(seconds),
        );
        reply.yours = wanted;
        Some(Outcome {
            reaction: self.send(request, arrival, &reply),
            is_durable: true,
            probe: None,
        })
    }

    /// Whether an instance before this one, of another version or one that crashed, may have made offers that still hold. Offers are in no store.
    fn is_after_another(&self, now: i64) -> bool {
        let until = |since| since + i64::from(self.config.offer_time);
        self.since.is_some_and(|since| now < until(since))
    }

    pub(crate) fn decline(
        &mut self,
        request: &Request,
        place: &Place<'_>,
        now: i64,
        changes: &mut Vec<Change>,
    ) {
        let Some(address) = request.address(code::REQUESTED) else {
            return;
        };
        let theirs = self
            .book
            .lease(address)
            .is_some_and(|it| it.client == place.client)
            || self.offers.of(&place.client, now) == Some(address);
        if theirs {
            log::warn(format!("{} found {address} in use", place.client));
            self.rest(address, &place.client, now, changes);
        }
    }

    /// Lets an address rest that somebody uses without a lease.
    pub(crate) fn rest(
        &mut self,
        address: Ipv4Addr,
        found_by: &Client,
        now: i64,
        changes: &mut Vec<Change>,
    ) {
        let lease = Lease {
            address,
            client: found_by.clone(),
            host_name: String::new(),
            starts: now,
            ends: now + i64::from(self.config.decline_time),
            state: State::Declined,
        };
        changes.push(lease.change());
        self.book.set_lease(lease);
        self.offers.drop_client(found_by);
    }

    pub(crate) fn release(
        &mut self,
        request: &Request,
        place: &Place<'_>,
        now: i64,
        changes: &mut Vec<Change>,
    ) {
        let theirs = self
            .book
            .lease(request.client)
            .filter(|it| it.client == place.client && it.state == State::Active);
        if let Some(lease) = theirs {
            let lease = Lease {
                ends: now,
                state: State::Free,
                ..lease.clone()
            };
            changes.push(lease.change());
            self.book.set_lease(lease);
        }
    }

    /// A client that has an address of its own here; the answer goes there, and to no other network.
    pub(crate) fn inform(
        &self,
        request: &Request,
        arrival: &Arrival<'_>,
        place: &Place<'_>,
    ) -> Option<Outcome> {
        let subnet = self.config.on_wire(place.subnet, request.client)?;
        let reply = self.reply(Message::Ack, request, arrival, place, subnet, None);
        Some(Outcome {
            reaction: self.send(request, arrival, &reply),
            is_durable: false,
            probe: None,
        })
    }
}
