//! What is answered to whom (RFC 2131 sections 3 and 4).
//!
//! It refuses to answer where no subnet is configured, and to hand out what somebody else has, was offered or has reserved.
//!
//! The one idea: a batch of packets is worked through in memory, its leases are written in one commit, and only then is anything sent. If
//! the commit fails, no ACK leaves, and the memory is read anew.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;

use bulkhead_sdk::reactor::{Datagram, Port, Reaction};
use bulkhead_sdk::store::Change;
use bulkhead_sdk::{log, probe, store};

use crate::book::{Book, SLOT};
use crate::choose::Search;
use crate::flood::Senders;
use crate::identity::Client;
use crate::offers::Offers;
use crate::packet::{Message, Request, code};
use crate::proxy;
use crate::reservation::Reserved;
use crate::subnets::{Config, Subnet};

/// New offers in a batch that are probed. More at once is a rush, and waiting would make it worse.
const MOST_PROBES: usize = 8;

/// Most addresses in no subnet that are told: anybody can send from new ones.
const MOST_STRANGE: usize = 16;

/// The server.
#[derive(Debug)]
pub struct Server {
    pub(crate) config: Config,
    pub(crate) book: Book,
    pub(crate) offers: Offers,
    /// Where the search for an address that was never leased goes on, by subnet. None: there was none left a moment ago.
    pub(crate) fresh: HashMap<Ipv4Addr, Option<u32>>,
    /// By the subnet that clients arrived in.
    pub(crate) searches: HashMap<Ipv4Addr, Search>,
    /// This server's address on each interface that something came in on.
    pub(crate) own: HashMap<String, Ipv4Addr>,
    senders: Senders,
    /// Addresses of this server and of relays, in none of the subnets, that were told.
    strange: HashSet<Ipv4Addr>,
    /// When the first packet came.
    pub(crate) since: Option<i64>,
    is_failing: bool,
    /// The book holds leases that were never written, and must be read anew before anybody is answered.
    is_doubtful: bool,
}

/// How a packet came.
pub(crate) struct Arrival<'a> {
    pub(crate) datagram: &'a Datagram,
    pub(crate) port: &'a Port,
    /// This server's address on that interface.
    pub(crate) own: Ipv4Addr,
    pub(crate) now: i64,
}

/// An answer under way.
pub(crate) struct Outcome {
    pub(crate) reaction: Reaction,
    /// It may leave only if the leases were written.
    pub(crate) is_durable: bool,
    /// Somebody may have the address already.
    pub(crate) probe: Option<Ipv4Addr>,
}

/// Who a client is and where.
pub(crate) struct Place<'a> {
    /// The subnet that it arrived in; its address may be of another one on the same wire.
    pub(crate) subnet: &'a Rc<Subnet>,
    pub(crate) client: Client,
    /// All names that the packet gives its sender.
    pub(crate) names: Vec<Client>,
    pub(crate) reserved: Option<Rc<Reserved>>,
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
            searches: HashMap::new(),
            own: HashMap::new(),
            senders: Senders::default(),
            strange: HashSet::new(),
            since: None,
            is_failing: false,
            is_doubtful: false,
        }
    }

    /// Works through a batch. `now`: seconds since 1970.
    pub fn react(&mut self, batch: &[Datagram], now: i64) -> Vec<Reaction> {
        self.since.get_or_insert(now);
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
        if self.senders.turn(now) {
            self.offers.purge(now);
            // What was reserved may be free by now.
            self.fresh.retain(|_, next| next.is_some());
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
                    self.book.committed(revision, changes.len());
                    self.is_failing = false;
                }
                Err(problem) => {
                    self.complain("no lease is given", &problem);
                    outcomes.retain(|outcome| !outcome.is_durable);
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
        if self.own.get(&port.interface) != Some(&own) {
            self.own.insert(port.interface.clone(), own);
        }
        let arrival = Arrival {
            datagram,
            port,
            own,
            now,
        };
        let client = Client::leasing(&request, &self.config)?;
        if self.senders.is_flooding(&client, self.config.flood_limit) {
            return None;
        }
        if !request.relay.is_unspecified() && !self.can_be_a_relay(request.relay) {
            return None;
        }
        if [proxy::SHOUTED, proxy::ASKED].contains(&datagram.slot.as_str()) {
            return self.proxy(&request, &arrival);
        }
        let Some(subnet) = self.subnet_of(&request, &arrival).map(Rc::clone) else {
            self.tell_strange(&request, &arrival);
            return None;
        };
        let names: Vec<Client> = Client::reserved_as(&request).collect();
        let reserved = self.reserved_on(&subnet, &names);
        // Whom an address is reserved for by its card has it by its card: firmware and system send different identifiers.
        let client = match &reserved {
            Some(reserved) if matches!(reserved.client, Client::Hardware(_)) => {
                reserved.client.clone()
            }
            _ => client,
        };
        let place = Place {
            subnet: &subnet,
            client,
            names,
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
            Message::Inform => self.inform(&request, &arrival, &place),
            Message::Offer | Message::Ack | Message::Nak => None,
        }
    }

    /// The reservation for the sender on a wire, that of the subnet itself first.
    pub(crate) fn reserved_on(
        &self,
        subnet: &Rc<Subnet>,
        names: &[Client],
    ) -> Option<Rc<Reserved>> {
        let held_by = |subnet: &Rc<Subnet>| {
            let mut all = names.iter().flat_map(|it| self.book.reserved_for(it));
            all.find(|it| subnet.holds(it.address)).cloned()
        };
        self.config.wire(subnet).find_map(held_by)
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

    /// Says once that nobody is answered there.
    fn tell_strange(&mut self, request: &Request, arrival: &Arrival<'_>) {
        let (who, address) = match request.relay.is_unspecified() {
            true => (arrival.port.interface.as_str(), arrival.own),
            false => ("a relay", request.relay),
        };
        if self.strange.len() < MOST_STRANGE && self.strange.insert(address) {
            log::warn(format!(
                "{who} has the address {address}, which is in none of the `subnets`: machines there get no answer"
            ));
        }
    }

    /// Whether an answer to this address reaches one machine. Whoever puts anything else there wants it to reach many.
    fn can_be_a_relay(&self, address: Ipv4Addr) -> bool {
        let is_one = !address.is_broadcast() && !address.is_multicast() && !address.is_loopback();
        let subnet = self.config.holding(address);
        is_one && subnet.is_none_or(|it| it.is_usable(address))
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
