//! The zones in memory: what a question is answered from.
//!
//! It writes nothing. The store holds the truth; the index reads all of it once and then follows what changed, before every batch of
//! questions, so that a record Foreman was told about is in the very next answer.
//!
//! The one idea: every name with data has a node, and every name above one as well (an empty non-terminal, RFC 4592 section 2.2.2). So "does this name
//! exist" is one look-up, for questions and for wildcards alike.

use std::collections::HashMap;

use bulkhead_sdk::store;

use crate::name::{self, Name};
use crate::rdata::{Kind, Soa};
use crate::records::{self, Record};
use crate::zones::Zones;

/// The store's slot.
pub const SLOT: &str = "zones";
/// Entries read or followed at a time: the most that the store gives.
const PAGE: u32 = 1_000;

/// The records of one type at one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordSet {
    /// Their type.
    pub kind: Kind,
    /// Seconds; the least of the records' (RFC 2181 section 5.2 wants one).
    pub ttl: u32,
    /// Their data on the wire.
    pub data: Vec<Vec<u8>>,
}

/// A name that exists.
#[derive(Debug, Clone, Default)]
pub struct Node {
    /// None for an empty non-terminal.
    pub sets: Vec<RecordSet>,
    /// How many names directly below exist; a configured top counts for itself.
    held: u32,
}

impl Node {
    /// The records of a type.
    #[must_use]
    pub fn set(&self, kind: Kind) -> Option<&RecordSet> {
        self.sets.iter().find(|set| set.kind == kind)
    }
}

/// What an answer needs of a zone.
#[derive(Debug, Clone)]
pub struct ServedZone {
    /// Its name.
    pub origin: Name,
    /// Its start of authority, with the serial.
    pub soa: RecordSet,
    /// Its name servers.
    pub servers: RecordSet,
    /// Seconds that a negative answer may be kept (RFC 2308 section 3).
    pub negative_ttl: u32,
    base: u32,
    mark: u64,
}

/// All of it.
#[derive(Debug, Default)]
pub struct Index {
    zones: HashMap<Name, ServedZone>,
    nodes: HashMap<Name, Node>,
    config: Option<Zones>,
    /// How many names other than tops have NS records: without any, no question needs a look for cuts.
    cuts: usize,
    revision: u64,
}

impl Index {
    /// Reads the whole store.
    ///
    /// # Errors
    /// The store's.
    pub fn load(config: &Zones) -> Result<Self, store::Error> {
        // What changes while it is read is told again by `follow`.
        let revision = store::changes(SLOT, u64::MAX, 1)?.revision;
        let mut index = Self {
            config: Some(config.clone()),
            revision,
            ..Self::default()
        };
        for zone in &config.zones {
            index.touch(zone.origin.wire());
            let served = ServedZone {
                origin: zone.origin.clone(),
                soa: RecordSet {
                    kind: Kind::SOA,
                    ttl: config.ttl,
                    data: Vec::new(),
                },
                servers: RecordSet {
                    kind: Kind::NS,
                    ttl: config.ttl,
                    data: Vec::new(),
                },
                negative_ttl: 0,
                base: 0,
                mark: 0,
            };
            index.zones.insert(zone.origin.clone(), served);
        }
        let mut after: Option<String> = None;
        loop {
            let page = store::scan(SLOT, "", after.as_deref(), PAGE)?;
            for entry in &page {
                index.put(&entry.key, &entry.value, entry.revision);
            }
            match page.last() {
                Some(last) => after = Some(last.key.clone()),
                None => break,
            }
        }
        for zone in &config.zones {
            index.refresh_top(&zone.origin);
        }
        Ok(index)
    }

    /// Takes over what changed since the last call. True: something did.
    ///
    /// # Errors
    /// The store's; the index stays as it was then.
    pub fn follow(&mut self) -> Result<bool, store::Error> {
        let mut changed = false;
        loop {
            let history = store::changes(SLOT, self.revision, PAGE)?;
            if !history.complete {
                if let Some(config) = self.config.clone() {
                    *self = Self::load(&config)?;
                }
                return Ok(true);
            }
            if history.puts.is_empty() && history.deletes.is_empty() {
                self.revision = history.revision;
                return Ok(changed);
            }
            changed = true;
            for key in &history.deletes {
                self.put(key, &[], 0);
            }
            for entry in &history.puts {
                self.put(&entry.key, &entry.value, entry.revision);
            }
            let tops: Vec<Name> = self.zones.keys().cloned().collect();
            for top in &tops {
                self.refresh_top(top);
            }
            // A store that does not move on would keep us here.
            if history.revision <= self.revision {
                return Ok(changed);
            }
            self.revision = history.revision;
        }
    }

    /// The zone that holds a name.
    #[must_use]
    pub fn zone_of(&self, wire: &[u8]) -> Option<&ServedZone> {
        name::suffixes(wire).find_map(|suffix| self.zones.get(suffix))
    }

    /// The node of a name.
    #[must_use]
    pub fn node(&self, wire: &[u8]) -> Option<&Node> {
        self.nodes.get(wire)
    }

    /// Whether any name below a top is delegated.
    #[must_use]
    pub fn has_cuts(&self) -> bool {
        self.cuts > 0
    }

    /// The serial of a zone.
    #[must_use]
    pub fn serial(&self, origin: &Name) -> Option<u32> {
        self.zones.get(origin).map(ServedZone::serial)
    }

    /// Names with data.
    #[must_use]
    pub fn names(&self) -> usize {
        self.nodes
            .values()
            .filter(|node| !node.sets.is_empty())
            .count()
    }

    fn put(&mut self, key: &str, value: &[u8], revision: u64) {
        let Some((space, text)) = key.split_once('/') else {
            return;
        };
        let Ok(name) = Name::parse(text, None) else {
            return;
        };
        match space {
            "n" => self.set_records(&name, &records::from_text(value)),
            "s" => {
                if let Some(zone) = self.zones.get_mut(&name) {
                    zone.mark = revision;
                }
            }
            "b" => {
                if let Some(zone) = self.zones.get_mut(&name) {
                    let text = std::str::from_utf8(value).ok();
                    zone.base = text.and_then(|text| text.parse().ok()).unwrap_or(0);
                }
            }
            _ => {}
        }
    }

    fn set_records(&mut self, name: &Name, records: &[Record]) {
        let mut sets: Vec<RecordSet> = Vec::new();
        for record in records {
            match sets.iter_mut().find(|set| set.kind == record.kind) {
                Some(set) if set.data.contains(&record.data) => {}
                Some(set) => {
                    set.ttl = set.ttl.min(record.ttl);
                    set.data.push(record.data.clone());
                }
                None => sets.push(RecordSet {
                    kind: record.kind,
                    ttl: record.ttl,
                    data: vec![record.data.clone()],
                }),
            }
        }
        let has_ns = |sets: &[RecordSet]| sets.iter().any(|set| set.kind == Kind::NS);
        let cuts = !self.zones.contains_key(name);
        let before = self.nodes.get(name).map_or(&[][..], |node| &node.sets);
        if cuts {
            self.cuts -= usize::from(has_ns(before));
            self.cuts += usize::from(has_ns(&sets));
        }
        let (had, has) = (!before.is_empty(), !sets.is_empty());
        if has {
            self.nodes.entry(name.clone()).or_default().sets = sets;
            if !had {
                self.touch(name.wire());
            }
        } else if had {
            if let Some(node) = self.nodes.get_mut(name) {
                node.sets = Vec::new();
            }
            self.release(name.wire());
        }
    }

    /// Holds a name and thereby every name above it.
    fn touch(&mut self, wire: &[u8]) {
        for suffix in name::suffixes(wire) {
            if let Some(node) = self.nodes.get_mut(suffix) {
                node.held += 1;
                if node.held > 1 {
                    return;
                }
            } else if let Some(name) = Name::from_wire(suffix) {
                self.nodes.insert(
                    name,
                    Node {
                        sets: Vec::new(),
                        held: 1,
                    },
                );
            }
        }
    }

    fn release(&mut self, wire: &[u8]) {
        for suffix in name::suffixes(wire) {
            let Some(node) = self.nodes.get_mut(suffix) else {
                return;
            };
            node.held = node.held.saturating_sub(1);
            if node.held > 0 {
                return;
            }
            self.nodes.remove(suffix);
        }
    }

    /// Makes SOA and NS of a top anew: from its own records, else from the settings.
    fn refresh_top(&mut self, origin: &Name) {
        let configured = self.config.as_ref().and_then(|config| {
            config
                .zones
                .iter()
                .find(|zone| zone.origin == *origin)
                .map(|zone| (zone, config.ttl))
        });
        let (Some((configured, ttl)), Some(zone)) = (configured, self.zones.get_mut(origin)) else {
            return;
        };
        let node = self.nodes.get(origin);
        let own = |kind| node.and_then(|node| node.set(kind));
        let soa_set = own(Kind::SOA);
        let from_file = soa_set
            .and_then(|set| set.data.first())
            .and_then(|data| Soa::parse(data));
        let mut soa = from_file.unwrap_or_else(|| configured.soa.clone());
        soa.serial = zone.serial();
        let ttl = soa_set.map_or(ttl, |set| set.ttl);
        zone.negative_ttl = ttl.min(soa.minimum);
        zone.soa = RecordSet {
            kind: Kind::SOA,
            ttl,
            data: vec![soa.wire()],
        };
        zone.servers = own(Kind::NS).cloned().unwrap_or_else(|| RecordSet {
            kind: Kind::NS,
            ttl,
            data: configured
                .servers
                .iter()
                .map(|name| name.wire().to_vec())
                .collect(),
        });
    }
}

impl ServedZone {
    /// The revision of the zone's last change, from the base that an imported file set: it grows with every change and survives restarts.
    #[must_use]
    pub fn serial(&self) -> u32 {
        let low = u32::try_from(self.mark & u64::from(u32::MAX)).unwrap_or(0);
        self.base.wrapping_add(low)
    }
}
