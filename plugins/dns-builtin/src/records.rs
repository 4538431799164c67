//! The records of one owner name, as they are kept in the store: lines of a zone file without the owner.
//!
//! Readable by people who look into a backup, and by the same code that reads zone files.

use crate::name::Name;
use crate::rdata::{self, Kind};

/// One record without its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Seconds that it may be kept.
    pub ttl: u32,
    /// Its type.
    pub kind: Kind,
    /// Its data on the wire, uncompressed.
    pub data: Vec<u8>,
}

impl Record {
    /// Whether it is the same record; the time to live does not matter (RFC 2136 section 1.1.1).
    #[must_use]
    pub fn is_same(&self, other: &Record) -> bool {
        self.kind == other.kind && self.data == other.data
    }

    /// Whether a name may have both: beside an alias there is nothing but signatures and denials (RFC 4034 sections 3 and 4), and of aliases
    /// and starts of authority there is one.
    #[must_use]
    pub fn may_stand_beside(&self, other: &Record) -> bool {
        if self.kind == other.kind {
            return ![Kind::CNAME, Kind::SOA].contains(&self.kind) || self.data == other.data;
        }
        let of_dnssec = |kind| [Kind::RRSIG, Kind::NSEC].contains(&kind);
        ![self.kind, other.kind].contains(&Kind::CNAME)
            || of_dnssec(self.kind)
            || of_dnssec(other.kind)
    }
}

/// The store's key of an owner; none when the name is too long to be one (512 bytes).
#[must_use]
pub fn key(owner: &Name) -> Option<String> {
    let key = format!("n/{owner}");
    (key.len() <= 512).then_some(key)
}

/// The value of the key.
#[must_use]
pub fn to_text(records: &[Record]) -> String {
    let line = |record: &Record| {
        let data = rdata::text(record.kind, &record.data);
        format!("{} {} {data}\n", record.ttl, record.kind)
    };
    records.iter().map(line).collect()
}

/// Reads the value of a key. Lines that cannot be read, as a later version may write them, are left out.
#[must_use]
pub fn from_text(value: &[u8]) -> Vec<Record> {
    let text = String::from_utf8_lossy(value);
    text.lines().filter_map(record).collect()
}

fn record(line: &str) -> Option<Record> {
    let (ttl, rest) = line.split_once(' ')?;
    let (kind, data) = rest.split_once(' ')?;
    let kind = Kind::parse(kind)?;
    let words = crate::zone_file::words(data)?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    Some(Record {
        ttl: ttl.parse().ok()?,
        kind,
        data: rdata::parse(kind, &words, None).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_reads_like_a_zone_file() {
        let text = "300 A 192.0.2.1\n60 TXT \"a b\" \"c;\"\n86400 MX 10 mail.example.com.\n";
        let records = from_text(text.as_bytes());
        assert_eq!(records.len(), 3);
        assert_eq!(to_text(&records), text);
        assert_eq!(
            from_text(b"nonsense\n\xff\n60 A x\n300 A 192.0.2.1\n").len(),
            1
        );
    }
}
