//! What is answered to whom (RFC 2131 sections 3 and 4).
//!
//! It refuses to answer where no subnet is configured, and to hand out what somebody else has, was offered or has reserved.
//!
//! The one idea: a batch of packets is worked through in memory, its leases are written in one commit, and only then is anything sent. If
//! the commit fails, no ACK leaves, and the memory is read anew.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::rc::Rc;
use std::time::Duration;

use bulkhead_sdk::reactor::{Datagram, Port, Reaction, Transport};
use bulkhead_sdk::store::Change;
use bulkhead_sdk::{log, probe, store};

use crate::book::{Book, SLOT};
use crate::boot;
use crate::identity::Client;
use crate::lease::{self, Lease, State};
use crate::packet::{Message, Reply, Request, code};
use crate::reservation::Reserved;
use crate::subnets::{Config, Subnet};

/// Seconds over which packets of one sender are counted.
const FLOOD_WINDOW: i64 = 10;
/// Senders that are counted at a time. Beyond it new ones are let through: a flood of invented senders cannot lock out the others.
const MOST_SENDERS: usize = 65_536;
/// New offers in a batch that are probed. More at once is a rush, and waiting would make it worse.
const MOST_PROBES: usize = 8;
/// Ended leases looked at when a range has no fresh address left.
const LOOKED_AT: usize = 256;
const CLIENT_PORT: u16 = 68;
const SERVER_PORT: u16 = 67;

/// The server.
#[derive(Debug)]
pub struct Server {
    config: Config,
    book: Book,
    offers: Offers,
    /// Where the search for an address that was never leased goes on, by subnet. None: there is none left.
    fresh: HashMap<Ipv4Addr, Option<u32>>,
    senders: HashMap<Client, u32>,
    window: i64,
    is_failing: bool,
    /// The book holds leases that were never written, and must be read anew before anybody is answered.
    is_doubtful: bool,
}

/// Addresses that were offered and not yet taken.
#[derive(Debug, Default)]
struct Offers {
    by_address: HashMap<Ipv4Addr, (Client, i64)>,
    by_client: HashMap<Client, Ipv4Addr>,
}

/// How a packet came.
struct Arrival<'a> {
    datagram: &'a Datagram,
    port: &'a Port,
    /// This server's address on that interface.
    own: Ipv4Addr,
    now: i64,
}

/// An answer under way.
struct Outcome {
    reaction: Reaction,
    /// It may leave only if the leases were written.
    is_durable: bool,
    /// Somebody may have the address already.
    probe: Option<Ipv4Addr>,
}

/// Who a client is and where.
struct Place<'a> {
    subnet: &'a Subnet,
    client: Client,
    reserved: Option<Rc<Reserved>>,
}

impl Server {
    /// A server with this book.
    #[must_use]
    pub fn new(config: Config, book: Book) -> Self {
        Self {
            config,
            book,
            offers: Offers::default(),
            fresh: HashMap::new(),
            senders: HashMap::new(),
            window: 0,
            is_failing: false,
            is_doubtful: false,
        }
    }

    /// Works through a batch. `now`: seconds since 1970.
    pub fn react(&mut self, batch: &[Datagram], now: i64) -> Vec<Reaction> {
        if self.is_doubtful {
            match Book::load() {
                Ok(book) => (self.book, self.is_doubtful) = (book, false),
                Err(problem) => {
                    self.complain("nobody is answered", &problem);
                    return Vec::new();
                }
            }
        }
        if let Err(problem) = self.book.follow() {
            self.complain("reservations may be old", &problem);
        }
        let mut changes = Vec::new();
        let mut outcomes = Vec::new();
        for datagram in batch {
            outcomes.extend(self.packet(datagram, now, &mut changes));
        }
        self.probe(&mut outcomes, now, &mut changes);
        if !changes.is_empty() {
            match store::apply(SLOT, &changes) {
                Ok(revision) => {
                    self.book.committed(revision);
                    self.is_failing = false;
                }
                Err(problem) => {
                    self.complain("no lease is given", &problem);
                    outcomes.retain(|outcome| !outcome.is_durable);
                    self.offers = Offers::default();
                    self.fresh.clear();
                    self.is_doubtful = true;
                }
            }
        }
        outcomes
            .into_iter()
            .map(|outcome| outcome.reaction)
            .collect()
    }

    /// Says it once, until it works again.
    fn complain(&mut self, what: &str, problem: &store::Error) {
        if !std::mem::replace(&mut self.is_failing, true) {
            log::error(format!("{what}: {}", store::describe(problem)));
        }
    }

    fn packet(
        &mut self,
        datagram: &Datagram,
        now: i64,
        changes: &mut Vec<Change>,
    ) -> Option<Outcome> {
        let request = Request::read(&datagram.bytes)?;
        let port = datagram.port.as_ref()?;
        let own = port.address.split('/').next()?.parse().ok()?;
        let arrival = Arrival {
            datagram,
            port,
            own,
            now,
        };
        let client = Client::leasing(&request, &self.config)?;
        if self.is_flooding(&client, now) {
            return None;
        }
        let subnet = Rc::clone(self.subnet_of(&request, &arrival)?);
        let reserved = Client::reserved_as(&request).find_map(|client| {
            let list = self.book.reserved_for(&client);
            list.iter().find(|it| subnet.holds(it.address)).cloned()
        });
        let place = Place {
            subnet: &subnet,
            client,
            reserved,
        };
        match request.message {
            Message::Discover => self.discover(&request, &arrival, &place),
            Message::Request => self.request(&request, &arrival, &place, changes),
            Message::Decline => {
                self.decline(&request, &place, now, changes);
                None
            }
            Message::Release => {
                self.release(&request, &place, now, changes);
                None
            }
            Message::Inform => Some(self.inform(&request, &arrival, &place)),
            Message::Offer | Message::Ack | Message::Nak => None,
        }
    }

    fn is_flooding(&mut self, client: &Client, now: i64) -> bool {
        if now - self.window >= FLOOD_WINDOW || now < self.window {
            self.window = now;
            self.senders.clear();
            self.offers.purge(now);
        }
        if let Some(count) = self.senders.get_mut(client) {
            *count = count.saturating_add(1);
            if *count == self.config.flood_limit + 1 {
                log::warn(format!(
                    "{client} sends more than {} packets in {FLOOD_WINDOW} s; the rest is dropped",
                    self.config.flood_limit
                ));
            }
            return *count > self.config.flood_limit;
        }
        if self.senders.len() < MOST_SENDERS {
            self.senders.insert(client.clone(), 1);
        }
        false
    }

    /// The subnet that the client is in: as its relay says (RFC 3527, RFC 3011), else that of the interface.
    fn subnet_of(&self, request: &Request, arrival: &Arrival<'_>) -> Option<&Rc<Subnet>> {
        let selected = request
            .relay_part(5)
            .and_then(|it| <[u8; 4]>::try_from(it).ok())
            .map(Ipv4Addr::from);
        if !request.relay.is_unspecified() {
            let at = selected
                .or_else(|| request.address(code::SUBNET_SELECTION))
                .unwrap_or(request.relay);
            return self.config.holding(at);
        }
        // A client that renews may be behind a router; one that shouts is here.
        let is_unicast = !arrival.datagram.local.starts_with("255.255.255.255");
        let renewing = Some(request.client).filter(|it| is_unicast && !it.is_unspecified());
        let by_client = renewing.and_then(|address| self.config.holding(address));
        by_client.or_else(|| self.config.holding(arrival.own))
    }

    fn discover(
        &mut self,
        request: &Request,
        arrival: &Arrival<'_>,
        place: &Place<'_>,
    ) -> Option<Outcome> {
        let address = self.choose(request, place, arrival.now)?;
        let until = arrival.now + i64::from(self.config.offer_time);
        self.offers.put(&place.client, address, until);
        let mut reply = self.reply(
            Message::Offer,
            request,
            arrival,
            place,
            Some(place.subnet.lease_time),
        );
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

    /// The address for a client: reserved, had, offered, wished for, or the next.
    fn choose(&mut self, request: &Request, place: &Place<'_>, now: i64) -> Option<Ipv4Addr> {
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
    fn next_fresh(&mut self, place: &Place<'_>, now: i64) -> Option<Ipv4Addr> {
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
    fn is_free(&self, address: Ipv4Addr, client: &Client, now: i64, is_reserved: bool) -> bool {
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

    fn request(
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
        let is_theirs = match &place.reserved {
            Some(reserved) => reserved.address == wanted && self.is_free(wanted, client, now, true),
            None => {
                let had = self
                    .book
                    .lease(wanted)
                    .is_some_and(|it| it.client == *client);
                let offered = self.offers.of(client, now) == Some(wanted);
                (had || offered)
                    && place.subnet.hands_out(wanted)
                    && self.is_free(wanted, client, now, false)
            }
        };
        if !is_theirs || !place.subnet.holds(wanted) {
            return refused(self);
        }
        let full = i64::from(place.subnet.lease_time);
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
        let seconds = u32::try_from(seconds).unwrap_or(place.subnet.lease_time);
        let mut reply = self.reply(Message::Ack, request, arrival, place, Some(seconds));
        reply.yours = wanted;
        Some(Outcome {
            reaction: self.send(request, arrival, &reply),
            is_durable: true,
            probe: None,
        })
    }

    fn decline(
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
    fn rest(&mut self, address: Ipv4Addr, found_by: &Client, now: i64, changes: &mut Vec<Change>) {
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

    fn release(
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

    fn inform(&self, request: &Request, arrival: &Arrival<'_>, place: &Place<'_>) -> Outcome {
        let reply = self.reply(Message::Ack, request, arrival, place, None);
        Outcome {
            reaction: self.send(request, arrival, &reply),
            is_durable: false,
            probe: None,
        }
    }

    fn nak(&self, request: &Request, arrival: &Arrival<'_>) -> Outcome {
        let mut reply = Reply::new(Message::Nak);
        reply.option(code::SERVER, own_address(request, arrival).octets());
        reply.option(code::TEXT, *b"this address is not yours here");
        Outcome {
            reaction: self.send(request, arrival, &reply),
            is_durable: false,
            probe: None,
        }
    }

    fn reply(
        &self,
        message: Message,
        request: &Request,
        arrival: &Arrival<'_>,
        place: &Place<'_>,
        seconds: Option<u32>,
    ) -> Reply {
        let subnet = place.subnet;
        let mut reply = Reply::new(message);
        reply.option(code::SERVER, own_address(request, arrival).octets());
        if let Some(seconds) = seconds {
            reply.seconds(code::LEASE_TIME, seconds);
            // RFC 2131 section 4.4.5.
            reply.seconds(code::RENEWAL, seconds / 2);
            reply.seconds(code::REBINDING, seconds / 8 * 7);
        }
        reply.option(code::MASK, subnet.mask().octets());
        for (code, list) in [
            (code::ROUTERS, &subnet.routers),
            (code::DNS, &subnet.dns),
            (code::NTP, &subnet.ntp),
        ] {
            if request.wants(code) {
                reply.addresses(code, list);
            }
        }
        let host_name = place
            .reserved
            .as_ref()
            .and_then(|it| it.text("hostname").or(Some(&it.name)));
        for (code, text) in [
            (code::HOST_NAME, host_name),
            (code::DOMAIN, subnet.domain.as_deref()),
        ] {
            if let Some(text) = text.filter(|text| !text.is_empty() && request.wants(code)) {
                reply.option(code, text.as_bytes());
            }
        }
        if let Some(mtu) = subnet.mtu.filter(|_| request.wants(code::MTU)) {
            reply.option(code::MTU, mtu.to_be_bytes());
        }
        for (code, data) in &subnet.others {
            if request.wants(*code) {
                reply.option(*code, data.as_slice());
            }
        }
        boot::fill(
            &mut reply,
            request,
            &self.config,
            subnet,
            place.reserved.as_deref(),
            arrival.own,
        );
        if let Some(uuid) = request.option(code::UUID) {
            reply.option(code::UUID, uuid);
        }
        reply
    }

    /// Where an answer goes (RFC 2131 section 4.1).
    fn send(&self, request: &Request, arrival: &Arrival<'_>, reply: &Reply) -> Reaction {
        let everybody = SocketAddrV4::new(Ipv4Addr::BROADCAST, CLIENT_PORT);
        let is_ethernet = request.hardware_type == 1 && request.hardware.len() == 6;
        let (peer, hardware) = if !request.relay.is_unspecified() {
            (SocketAddrV4::new(request.relay, SERVER_PORT), None)
        } else if reply.message == Message::Nak {
            (everybody, None)
        } else if !request.client.is_unspecified() {
            (SocketAddrV4::new(request.client, CLIENT_PORT), None)
        } else if request.broadcast || !is_ethernet {
            (everybody, None)
        } else {
            let hardware = crate::identity::colons(&request.hardware);
            (SocketAddrV4::new(reply.yours, CLIENT_PORT), Some(hardware))
        };
        Reaction::Send(Datagram {
            slot: arrival.datagram.slot.clone(),
            transport: Transport::Udp,
            peer: peer.to_string(),
            local: format!("{}:{SERVER_PORT}", arrival.own),
            port: Some(Port {
                interface: arrival.port.interface.clone(),
                address: String::new(),
                hardware,
            }),
            bytes: reply.write(request),
        })
    }

    /// Asks whether somebody uses what is about to be offered for the first time. An offer that somebody answers is not made.
    fn probe(&mut self, outcomes: &mut Vec<Outcome>, now: i64, changes: &mut Vec<Change>) {
        let doubtful: Vec<Ipv4Addr> = outcomes.iter().filter_map(|it| it.probe).collect();
        if self.config.probe_time == 0 || doubtful.is_empty() || doubtful.len() > MOST_PROBES {
            return;
        }
        let texts: Vec<String> = doubtful.iter().map(ToString::to_string).collect();
        let time = Duration::from_millis(u64::from(self.config.probe_time));
        // A probe that is not granted, or fails, must not keep clients from booting.
        let Ok(answers) = probe::ask("addresses", &texts, time) else {
            return;
        };
        for (address, answer) in doubtful.iter().zip(answers) {
            if answer == probe::Outcome::Silent {
                continue;
            }
            log::warn(format!("{address} is in use by somebody without a lease"));
            if let Some(client) = self.offers.at(*address, now).cloned() {
                self.rest(*address, &client, now, changes);
            }
            outcomes.retain(|it| it.probe != Some(*address));
        }
    }
}

/// The address that clients know this server by: the relay may have put its own in place (RFC 5107).
fn own_address(request: &Request, arrival: &Arrival<'_>) -> Ipv4Addr {
    let octets = request
        .relay_part(11)
        .and_then(|it| <[u8; 4]>::try_from(it).ok());
    octets.map_or(arrival.own, Ipv4Addr::from)
}

impl Offers {
    fn put(&mut self, client: &Client, address: Ipv4Addr, until: i64) {
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

    fn of(&self, client: &Client, now: i64) -> Option<Ipv4Addr> {
        let address = self.by_client.get(client)?;
        self.at(*address, now)
            .filter(|it| *it == client)
            .map(|_| *address)
    }

    fn at(&self, address: Ipv4Addr, now: i64) -> Option<&Client> {
        self.by_address
            .get(&address)
            .filter(|(_, until)| *until > now)
            .map(|(client, _)| client)
    }

    fn drop_client(&mut self, client: &Client) {
        if let Some(address) = self.by_client.remove(client) {
            self.by_address.remove(&address);
        }
    }

    fn purge(&mut self, now: i64) {
        self.by_address.retain(|_, (_, until)| *until > now);
        let by_address = &self.by_address;
        self.by_client
            .retain(|_, address| by_address.contains_key(address));
    }
}
