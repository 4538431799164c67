//! What Foreman's calls do to the store: one owner name at a time, all or nothing.
//!
//! It refuses names outside the zones, names below a delegation (nobody would ever see the record), and whatever would stand beside a CNAME.
//!
//! The one idea: one key holds all records of a name, so "only if nothing is there" is one compare-and-swap; the mark of the zone is
//! put in the same commit, and its revision is the new serial.

use bulkhead_sdk::dns::{DnsRecord, Error, RecordType};
use bulkhead_sdk::store::{self, Change};

use crate::index::SLOT;
use crate::name::{self, Name};
use crate::rdata::{self, Kind};
use crate::records::{self, Record};
use crate::zones::Zones;

/// How often a change is tried again because somebody else changed the same name meanwhile.
const ATTEMPTS: usize = 16;

/// All records of that name and type.
///
/// # Errors
/// No zone, or the store's.
pub fn find(zones: &Zones, name: &str, kind: RecordType) -> Result<Vec<DnsRecord>, Error> {
    let owner = Owner::of(zones, name)?;
    let wanted = number(kind);
    let (records, _) = owner.read()?;
    let of_kind = records.iter().filter(|record| record.kind == wanted);
    let shown = of_kind.map(|record| DnsRecord {
        name: name.to_owned(),
        kind,
        value: shown(record),
        ttl: record.ttl,
    });
    Ok(shown.collect())
}

/// Creates a record. False: the very same was there.
///
/// # Errors
/// See the interface.
pub fn create(zones: &Zones, wanted: &DnsRecord) -> Result<bool, Error> {
    let owner = Owner::of(zones, &wanted.name)?;
    let kind = number(wanted.kind);
    let words: Vec<&str> = wanted.value.split_ascii_whitespace().collect();
    let data = rdata::parse(kind, &words, None).map_err(|it| Error::Refused(it.to_string()))?;
    let record = Record {
        ttl: wanted.ttl,
        kind,
        data,
    };
    owner.check_not_delegated()?;
    owner.change(|records| {
        if records.iter().any(|it| it.is_same(&record)) {
            return Ok(false);
        }
        let is_top = owner.name == owner.zone;
        let in_the_way = |it: &&Record| match kind {
            Kind::CNAME => true,
            Kind::SRV => it.kind == Kind::CNAME,
            _ => it.kind == Kind::CNAME || it.kind == kind,
        };
        if kind == Kind::CNAME && is_top {
            return Err(Error::Conflict(format!(
                "{} is the top of a zone and has SOA and NS",
                owner.name
            )));
        }
        let found: Vec<String> = records.iter().filter(in_the_way).map(told).collect();
        if !found.is_empty() {
            return Err(Error::Conflict(format!(
                "{} has {}",
                owner.name,
                found.join(", ")
            )));
        }
        records.push(record.clone());
        Ok(true)
    })
}

/// Removes records. False: there were none.
///
/// # Errors
/// See the interface.
pub fn remove(
    zones: &Zones,
    name: &str,
    kind: RecordType,
    value: Option<&str>,
) -> Result<bool, Error> {
    let owner = Owner::of(zones, name)?;
    let kind = number(kind);
    let data = match value {
        Some(value) => {
            let words: Vec<&str> = value.split_ascii_whitespace().collect();
            Some(rdata::parse(kind, &words, None).map_err(|it| Error::Refused(it.to_string()))?)
        }
        None => None,
    };
    owner.change(|records| {
        let before = records.len();
        records.retain(|it| it.kind != kind || data.as_ref().is_some_and(|data| it.data != *data));
        Ok(records.len() < before)
    })
}

/// The key whose revision is a zone's serial.
#[must_use]
pub fn mark(zone: &Name) -> Change {
    Change::put(&format!("s/{zone}"), Vec::new())
}

/// A name inside a zone.
struct Owner {
    name: Name,
    zone: Name,
    key: String,
}

impl Owner {
    fn of(zones: &Zones, text: &str) -> Result<Self, Error> {
        let name =
            Name::parse(text, None).map_err(|problem| Error::Refused(problem.to_string()))?;
        let zone = zones.of(&name).ok_or_else(|| {
            Error::NotAuthoritative(format!("no zone of the setting `zones` holds {name}"))
        })?;
        let key = records::key(&name)
            .ok_or_else(|| Error::Refused(format!("{name} is too long to be kept")))?;
        Ok(Self {
            zone: zone.origin.clone(),
            name,
            key,
        })
    }

    /// The records, and the revision that a change must still find.
    fn read(&self) -> Result<(Vec<Record>, Option<u64>), Error> {
        let entry = store::get(SLOT, &self.key).map_err(failed)?;
        Ok(entry.map_or((Vec::new(), None), |entry| {
            (records::from_text(&entry.value), Some(entry.revision))
        }))
    }

    /// Reads, lets `work` change, and writes if nobody else did meanwhile; else again.
    fn change(
        &self,
        work: impl Fn(&mut Vec<Record>) -> Result<bool, Error>,
    ) -> Result<bool, Error> {
        for _ in 0..ATTEMPTS {
            let (mut records, revision) = self.read()?;
            if !work(&mut records)? {
                return Ok(false);
            }
            let change = match records.is_empty() {
                true => Change::delete(&self.key),
                false => Change::put(&self.key, records::to_text(&records)),
            };
            let change = match revision {
                Some(revision) => change.if_revision(revision),
                None => change.if_absent(),
            };
            match store::apply(SLOT, &[change, mark(&self.zone)]) {
                Ok(_) => return Ok(true),
                Err(store::Error::Conflict(_)) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Err(Error::Timeout(format!(
            "{} is being changed by others all the time",
            self.name
        )))
    }

    fn check_not_delegated(&self) -> Result<(), Error> {
        let top = self.zone.wire().len();
        for above in name::suffixes(self.name.wire()).take_while(|above| above.len() > top) {
            let Some(key) = Name::from_wire(above).as_ref().and_then(records::key) else {
                continue;
            };
            let entry = store::get(SLOT, &key).map_err(failed)?;
            let records = entry.map_or_else(Vec::new, |entry| records::from_text(&entry.value));
            if records.iter().any(|record| record.kind == Kind::NS) {
                return Err(Error::NotAuthoritative(format!(
                    "{} is delegated to other servers",
                    key.trim_start_matches("n/")
                )));
            }
        }
        Ok(())
    }
}

fn failed(error: store::Error) -> Error {
    match error {
        store::Error::Denied(why) => Error::Refused(why),
        other => Error::Other(store::describe(&other)),
    }
}

fn number(kind: RecordType) -> Kind {
    match kind {
        RecordType::A => Kind::A,
        RecordType::Aaaa => Kind::AAAA,
        RecordType::Cname => Kind::CNAME,
        RecordType::Ptr => Kind::PTR,
        RecordType::Srv => Kind::SRV,
    }
}

/// Data as the interface has it: names without the dot.
fn shown(record: &Record) -> String {
    let text = rdata::text(record.kind, &record.data);
    match text.as_str() {
        "." => text,
        text => text.trim_end_matches('.').to_owned(),
    }
}

fn told(record: &Record) -> String {
    format!("{} {}", record.kind, shown(record))
}
