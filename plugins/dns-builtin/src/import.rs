//! Taking over zone files.
//!
//! A file fills the zone; afterwards its records are like any other, and Foreman may remove them. When the file changes, only the difference to what it
//! held before is carried over, so what Foreman did meanwhile stays. A file with a mistake changes nothing; whatever else goes wrong is tried again.
//!
//! The one idea: beside `n/NAME`, what is served, the store keeps `f/NAME`, what the file said last; three texts make the merge.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_sdk::log;
use bulkhead_sdk::store::{self, Change};
use bulkhead_sdk::watch::{self, LARGEST_READ};

use crate::index::SLOT;
use crate::name::Name;
use crate::provider::mark;
use crate::rdata::{Kind, Soa};
use crate::records::{self, Record};
use crate::zone_file;
use crate::zones::Zones;

/// The `watch` slot of the directory with zone files.
pub const FILES: &str = "zone-files";
/// Bytes of the largest file that is read.
const LARGEST_FILE: u64 = 24 << 20;
/// Names changed in one commit.
const BATCH: usize = 200;
/// How often a commit is tried again because Foreman changed one of its names meanwhile.
const ATTEMPTS: usize = 16;

/// Why a file was not taken over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// What it says is wrong, and stays so until somebody writes it anew.
    #[error("{0}")]
    Mistake(String),
    /// This time: the store's fault, or the file's that is being written. Some of its names may have been taken over.
    #[error("{0}")]
    Later(String),
}

/// The file of a zone, if there is one: `example.com.zone`, `example.com.db` or `db.example.com`. A slash in a zone's name (RFC 2317) is a dash in the
/// file's.
///
/// # Errors
/// It is there and cannot be seen.
pub fn find(zone: &Name) -> Result<Option<Place>, String> {
    let zone = zone.to_string().replace('/', "-");
    for name in [
        format!("{zone}.zone"),
        format!("{zone}.db"),
        format!("db.{zone}"),
    ] {
        match watch::about(FILES, &name) {
            Ok(file) => return Ok(Some(Place { name, file })),
            Err(watch::Error::Absent) => {}
            Err(problem) => return Err(unreadable(&name, &problem)),
        }
    }
    Ok(None)
}

/// A zone file that was seen, not read.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    /// Its name in the directory.
    name: String,
    file: watch::File,
}

impl Place {
    /// Whether it is the same file with the same content, as far as can be told without reading it.
    #[must_use]
    pub fn is_as(&self, other: &Place) -> bool {
        let look = |it: &Place| (it.file.identity, it.file.size, it.file.modified);
        self.name == other.name && look(self) == look(other)
    }

    /// Reads it whole.
    ///
    /// # Errors
    /// It cannot be read, is too large, or is another file by now.
    pub fn read(&self) -> Result<ZoneFile, NotTaken> {
        let name = self.name.clone();
        if self.file.size > LARGEST_FILE {
            let problem = format!("{name} is larger than {LARGEST_FILE} bytes");
            return Err(NotTaken::Mistake(problem));
        }
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < self.file.size {
            let chunk = watch::read(FILES, &name, bytes.len() as u64, LARGEST_READ)
                .map_err(|problem| NotTaken::Later(unreadable(&name, &problem)))?;
            let now = Self {
                name: name.clone(),
                file: chunk.file,
            };
            if !now.is_as(self) || chunk.bytes.is_empty() {
                let problem = format!("{name} was changed while it was read");
                return Err(NotTaken::Later(problem));
            }
            bytes.extend(chunk.bytes);
        }
        let text = as_text(bytes);
        Ok(ZoneFile { name, text })
    }
}

/// Files are older than UTF-8, and what their bytes mean is known to nobody: they stand for themselves, as everywhere in DNS.
fn as_text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|other| {
        let bytes = other.as_bytes().iter();
        let escaped = bytes.map(|byte| match byte.is_ascii() {
            true => char::from(*byte).to_string(),
            false => format!("\\{byte:03}"),
        });
        escaped.collect()
    })
}

fn unreadable(name: &str, problem: &watch::Error) -> String {
    match problem {
        watch::Error::Denied(why) | watch::Error::Failed(why) => format!("{name}: {why}"),
        watch::Error::Absent => format!("{name} is gone"),
    }
}

/// A zone file as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneFile {
    /// Its name.
    pub name: String,
    /// What it says.
    pub text: String,
}

/// Takes over a file. Answers how many names changed.
///
/// # Errors
/// What is wrong, for the operator.
pub fn import(zones: &Zones, zone: &Name, file: &ZoneFile) -> Result<usize, NotTaken> {
    let parsed = zone_file::parse(&file.text, zone);
    let records =
        parsed.map_err(|problem| NotTaken::Mistake(format!("{}, {problem}", file.name)))?;
    let serial = records.iter().find_map(|(_, it)| {
        let soa = (it.kind == Kind::SOA).then(|| Soa::parse(&it.data));
        soa.flatten().map(|soa| soa.serial)
    });
    let changed = merge(zones, zone, gathered(zones, zone, records))?;
    if let Some(serial) = serial {
        raise_serial(zone, serial).map_err(failed)?;
    }
    Ok(changed)
}

/// The file's records by owner. The SOA's serial is not part of them: it would make every file a change of the top. Nor is what lies in another zone
/// of this server: its delegation and glue come from that zone itself.
fn gathered(
    zones: &Zones,
    zone: &Name,
    records: Vec<(Name, Record)>,
) -> BTreeMap<Name, Vec<Record>> {
    let mut owners: BTreeMap<Name, Vec<Record>> = BTreeMap::new();
    for (owner, mut record) in records {
        if zones.of(&owner).is_none_or(|it| it.origin != *zone) {
            continue;
        }
        if record.kind == Kind::SOA {
            let Some(soa) = Soa::parse(&record.data) else {
                continue;
            };
            record.data = Soa { serial: 0, ..soa }.wire();
        }
        let known = owners.entry(owner).or_default();
        if !known.iter().any(|it| it.is_same(&record)) {
            known.push(record);
        }
    }
    owners
}

fn failed(error: store::Error) -> NotTaken {
    NotTaken::Later(store::describe(&error))
}

fn merge(zones: &Zones, zone: &Name, new: BTreeMap<Name, Vec<Record>>) -> Result<usize, NotTaken> {
    let old = owners_of(zones, zone).map_err(failed)?;
    let all: BTreeSet<&Name> = old.keys().chain(new.keys()).collect();
    let nothing = Vec::new();
    let owners: Vec<Owner<'_>> = all
        .into_iter()
        .map(|name| Owner {
            name,
            before: old.get(name).unwrap_or(&nothing),
            now: new.get(name).unwrap_or(&nothing),
        })
        .filter(|owner| owner.before != owner.now)
        .collect();
    for batch in owners.chunks(BATCH) {
        commit(zone, batch)?;
    }
    Ok(owners.len())
}

/// A name of which the file says something else than before.
struct Owner<'a> {
    name: &'a Name,
    before: &'a [Record],
    now: &'a [Record],
}

/// One commit, made anew with what is there by then if Foreman changed a name meanwhile: given up, half of the file would be served.
fn commit(zone: &Name, owners: &[Owner<'_>]) -> Result<(), NotTaken> {
    for _ in 0..ATTEMPTS {
        let mut changes: Vec<Change> = Vec::new();
        for owner in owners {
            changes.extend(owner.changes()?);
        }
        changes.push(mark(zone));
        match store::apply(SLOT, &changes) {
            Ok(_) => return Ok(()),
            Err(store::Error::Conflict(_)) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    let problem = format!("names of {zone} are being changed by others all the time");
    Err(NotTaken::Later(problem))
}

impl Owner<'_> {
    fn changes(&self) -> Result<[Change; 2], NotTaken> {
        let name = self.name;
        let key = records::key(name)
            .ok_or_else(|| NotTaken::Mistake(format!("{name} is too long to be kept")))?;
        let entry = store::get(SLOT, &key).map_err(failed)?;
        let live = entry
            .as_ref()
            .map_or_else(Vec::new, |it| records::from_text(&it.value));
        let put = |key: &str, records: &[Record]| match records {
            [] => Change::delete(key),
            records => Change::put(key, records::to_text(records)),
        };
        let change = put(&key, &merged(name, &live, self.before, self.now));
        let change = match entry {
            Some(entry) => change.if_revision(entry.revision),
            None => change.if_absent(),
        };
        Ok([change, put(&format!("f/{name}"), self.now)])
    }
}

/// What is served afterwards: what was, without what the file no longer has, with what it has now. A record that Foreman removed stays removed
/// unless the file's own line for it is new. What cannot stand beside a record that Foreman made is left out.
fn merged(owner: &Name, live: &[Record], before: &[Record], now: &[Record]) -> Vec<Record> {
    let has = |list: &[Record], record: &Record| list.iter().any(|it| it.is_same(record));
    let mut records: Vec<Record> = live
        .iter()
        .filter(|it| has(now, it) || !has(before, it))
        .cloned()
        .collect();
    for record in now {
        if let Some(known) = records.iter_mut().find(|it| it.is_same(record)) {
            known.ttl = record.ttl;
        } else if !has(before, record) {
            match records.iter().find(|it| !it.may_stand_beside(record)) {
                Some(other) => log::warn(format!(
                    "the zone file's {} of {owner} is left out: {owner} has {}, which Foreman made",
                    record.kind, other.kind
                )),
                None => records.push(record.clone()),
            }
        }
    }
    records
}

/// What the file said last, of the names of this zone.
fn owners_of(zones: &Zones, zone: &Name) -> Result<BTreeMap<Name, Vec<Record>>, store::Error> {
    let mut owners = BTreeMap::new();
    let mut after: Option<String> = None;
    loop {
        let page = store::scan(SLOT, "f/", after.as_deref(), 1_000)?;
        for entry in &page {
            let name = entry
                .key
                .strip_prefix("f/")
                .and_then(|it| Name::parse(it, None).ok());
            let name = name.filter(|name| zones.of(name).is_some_and(|it| it.origin == *zone));
            if let Some(name) = name {
                owners.insert(name, records::from_text(&entry.value));
            }
        }
        match page.last() {
            Some(last) => after = Some(last.key.clone()),
            None => return Ok(owners),
        }
    }
}

/// Secondaries take a zone only if its serial grows (RFC 1982), so it continues where the file's was.
fn raise_serial(zone: &Name, file: u32) -> Result<(), store::Error> {
    let key = format!("b/{zone}");
    let base = store::get(SLOT, &key)?;
    let base = base.and_then(|entry| String::from_utf8(entry.value).ok()?.parse::<u32>().ok());
    let at = store::get(SLOT, &format!("s/{zone}"))?.map_or(0, |entry| entry.revision);
    let low = u32::try_from(at & u64::from(u32::MAX)).unwrap_or(0);
    let present = base.unwrap_or(0).wrapping_add(low);
    let ahead = file.wrapping_sub(present);
    if ahead == 0 || ahead >= 1 << 31 {
        return Ok(());
    }
    let base = file.wrapping_sub(low);
    store::apply(SLOT, &[Change::put(&key, base.to_string())]).map(drop)
}
