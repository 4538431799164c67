//! The service and provider `dns-builtin`: an authoritative DNS server, and what lets Foreman fill it.
//!
//! It answers for the zones of its settings and for nothing else: it asks no other server, follows no delegation, transfers no zone, and opens no
//! connection. All it holds is its listening sockets, which are the host's, and its own records in the store.
//!
//! The one idea: the provider writes to the store, the service reads it. They are two sets of instances that share nothing else. Before each batch of
//! questions the service takes over what changed, so a record that Foreman was told about is in the next answer. [`answer`] is the way of a
//! question, [`provider`] that of a change, [`import`] that of a zone file.

pub mod answer;
#[cfg(not(target_arch = "wasm32"))]
pub mod fuzz;
pub mod import;
pub mod index;
pub mod message;
pub mod name;
pub mod provider;
pub mod rdata;
pub mod records;
pub mod zone_file;
pub mod zones;

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use bulkhead_sdk::Event;
use bulkhead_sdk::dns::{DnsProvider, DnsRecord, Error, RecordType};
use bulkhead_sdk::prelude::*;
use bulkhead_sdk::reactor::{Datagram, Reaction, Service, Transport};
use bulkhead_sdk::store::Change;

use index::{Index, SLOT};
use zones::Zones;

/// From the last sign that a zone file is being written to reading it: half a zone would take names away.
const QUIET: Duration = Duration::from_secs(1);
/// How often zone files are looked at besides; some file systems send no events.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// The server.
#[derive(Debug)]
pub struct DnsBuiltin;

impl Plugin for DnsBuiltin {
    fn describe() -> Manifest {
        Manifest::new(
            "dns-builtin",
            env!("CARGO_PKG_VERSION"),
            "Answers DNS questions for Foreman's zones, and takes records for them",
        )
        .need(Need::listen("dns", "receives the questions"))
        .need(Need::store(
            SLOT,
            Access::ReadWrite,
            "keeps the records of the zones",
        ))
        .need(
            Need::watch(
                import::FILES,
                "takes zone files over, and again when they change",
            )
            .optional(),
        )
        .setting(
            Setting::texts("listen", "Where to listen, for example `udp 0.0.0.0:53`")
                .default(
                    &[
                        "udp 0.0.0.0:53",
                        "tcp 0.0.0.0:53",
                        "udp [::]:53",
                        "tcp [::]:53",
                    ][..],
                )
                .required(),
        )
        .setting(Setting::texts(
            "zones",
            "The zones served: names, or networks for their reverse zones (`192.0.2.0/24`)",
        ))
        .setting(Setting::texts(
            "nameservers",
            "The zones' name servers. Unset: the name under which Foreman reaches this proxy",
        ))
        .setting(Setting::text(
            "hostmaster",
            "Who answers for the zones. Unset: hostmaster in each zone",
        ))
        .setting(Setting::path(
            "zone_directory",
            "A directory with zone files to take over, named like their zones: `example.com.zone`",
        ))
        .setting(seconds(
            "ttl",
            "Seconds that SOA and NS records may be kept",
            3_600,
        ))
        .setting(seconds(
            "negative_ttl",
            "Seconds that \"no such name\" may be kept",
            300,
        ))
        .setting(seconds(
            "soa_refresh",
            "Seconds between looks of a secondary server",
            3_600,
        ))
        .setting(seconds(
            "soa_retry",
            "Seconds until a secondary server tries again",
            600,
        ))
        .setting(seconds(
            "soa_expire",
            "Seconds after which a secondary server gives the zone up",
            1_209_600,
        ))
        .setting(
            Setting::integer(
                "udp_payload",
                "Bytes of the largest UDP answer, 512 to 4096. 1232 is never fragmented",
            )
            .default(1_232)
            .required(),
        )
    }

    fn status() -> Status {
        match Zones::of_settings().and_then(|zones| payload().map(|_| zones)) {
            Ok(zones) if zones.zones.is_empty() => {
                Status::failing("no zone is configured: list the zones in the setting `zones`")
            }
            Ok(_) => Status::working(),
            Err(problem) => Status::failing(problem),
        }
    }

    fn start() -> Result<(), String> {
        let server = Server::make()?;
        SERVER.set(Some(server));
        Ok(())
    }

    fn wake(events: &[Event]) -> Option<Duration> {
        SERVER.with_borrow_mut(|server| {
            let server = server.as_mut()?;
            let written =
                |it: &Event| matches!(it, Event::FileChanged(slot) if slot == import::FILES);
            if events.iter().any(written) {
                server.look_at = Instant::now() + QUIET;
            }
            Some(server.look())
        })
    }
}

impl Service for DnsBuiltin {
    fn datagrams(batch: Vec<Datagram>) -> Vec<Reaction> {
        SERVER.with_borrow_mut(|server| match server {
            Some(server) => server.answer(batch),
            None => Vec::new(),
        })
    }
}

impl DnsProvider for DnsBuiltin {
    fn find(name: String, kind: RecordType) -> Result<Vec<DnsRecord>, Error> {
        provider::find(&configured()?, &name, kind)
    }

    fn create(wanted: DnsRecord) -> Result<bool, Error> {
        provider::create(&configured()?, &wanted)
    }

    fn remove(name: String, kind: RecordType, value: Option<String>) -> Result<bool, Error> {
        provider::remove(&configured()?, &name, kind, value.as_deref())
    }
}

bulkhead_sdk::export_plugin!(DnsBuiltin: service, dns_provider);

thread_local! {
    static SERVER: RefCell<Option<Server>> = const { RefCell::new(None) };
}

struct Server {
    zones: Zones,
    index: Index,
    payload: u16,
    /// The last look at the store failed; said once.
    is_behind: bool,
    /// Zone files as they were when they were taken over, or refused.
    files: HashMap<name::Name, import::Place>,
    /// When they are looked at next.
    look_at: Instant,
}

impl Server {
    fn make() -> Result<Self, String> {
        let zones = Zones::of_settings()?;
        let payload = payload()?;
        mark_tops(&zones).map_err(|problem| store::describe(&problem))?;
        let mut server = Self {
            zones,
            index: Index::default(),
            payload,
            is_behind: false,
            files: HashMap::new(),
            look_at: Instant::now() + LOOK_AGAIN,
        };
        server.import();
        server.index = Index::load(&server.zones).map_err(|problem| store::describe(&problem))?;
        Ok(server)
    }

    /// Looks at the zone files if it is time to. Answers after what time it is again.
    fn look(&mut self) -> Duration {
        let now = Instant::now();
        if now >= self.look_at {
            self.import();
            self.look_at = now + LOOK_AGAIN;
        }
        self.look_at.saturating_duration_since(now)
    }

    /// Takes over the zone files that changed. A file that cannot be read must not take the zones away that are there.
    fn import(&mut self) {
        if settings::text("zone_directory").is_none_or(|path| path.is_empty()) {
            return;
        }
        for zone in &self.zones.zones {
            let origin = &zone.origin;
            let place = match import::find(origin) {
                Ok(Some(place)) => place,
                Ok(None) => continue,
                Err(problem) => {
                    log::error(format!("zone file not taken over: {problem}"));
                    continue;
                }
            };
            if self
                .files
                .get(origin)
                .is_some_and(|known| known.is_as(&place))
            {
                continue;
            }
            let done = place.read().and_then(|file| {
                let changed = import::import(&self.zones, origin, &file)?;
                Ok((file.name, changed))
            });
            match done {
                Ok((_, 0)) => {}
                Ok((name, changed)) => log::info(format!("{name}: {changed} names taken over")),
                Err(problem) => {
                    log::error(format!("zone file not taken over: {problem}"));
                    // It is read again at the next look.
                    if matches!(problem, import::NotTaken::Later(_)) {
                        continue;
                    }
                }
            }
            self.files.insert(origin.clone(), place);
        }
    }

    fn answer(&mut self, batch: Vec<Datagram>) -> Vec<Reaction> {
        match self.index.follow() {
            Ok(_) => self.is_behind = false,
            Err(problem) if !self.is_behind => {
                self.is_behind = true;
                log::error(format!("answers may be old: {}", store::describe(&problem)));
            }
            Err(_) => {}
        }
        let (index, payload) = (&self.index, self.payload);
        let answered = batch.into_iter().filter_map(|mut datagram| {
            let udp = datagram.transport == Transport::Udp;
            datagram.bytes = answer::answer(index, &datagram.bytes, udp, payload)?;
            Some(Reaction::Send(datagram))
        });
        answered.collect()
    }
}

/// Gives a zone whose top the settings changed a new serial.
fn mark_tops(zones: &Zones) -> Result<(), store::Error> {
    for zone in &zones.zones {
        let key = format!("a/{}", zone.origin);
        let servers: Vec<String> = zone.servers.iter().map(ToString::to_string).collect();
        let soa = rdata::text(rdata::Kind::SOA, &zone.soa.wire());
        let top = format!("{} {soa} NS {}", zones.ttl, servers.join(" ")).into_bytes();
        let known = store::get(SLOT, &key)?;
        if known.is_none_or(|entry| entry.value != top) {
            store::apply(
                SLOT,
                &[Change::put(&key, top), provider::mark(&zone.origin)],
            )?;
        }
    }
    Ok(())
}

fn configured() -> Result<Zones, Error> {
    Zones::of_settings().map_err(Error::Other)
}

fn payload() -> Result<u16, String> {
    let given = settings::integer("udp_payload").unwrap_or(0);
    let fits = u16::try_from(given)
        .ok()
        .filter(|it| (512..=4096).contains(it));
    fits.ok_or_else(|| format!("udp_payload is {given}; it must be from 512 to 4096"))
}

fn seconds(name: &str, help: &str, default: i64) -> Setting {
    Setting::integer(name, help).default(default).required()
}

#[cfg(test)]
mod tests;
