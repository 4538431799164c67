//! Zone files (RFC 1035 section 5), as BIND and others write them.
//!
//! It refuses `$INCLUDE` and `$GENERATE` (the plugin reads the one file it was granted), other classes than IN, DNAME (names below one would be told not
//! to exist), and names outside the zone. The first mistake ends the reading: half a zone is worse than the old one.

use std::collections::HashMap;

use crate::name::Name;
use crate::rdata::{self, Kind, Soa};
use crate::records::Record;

/// Seconds of a record whose file names no time to live anywhere.
const DEFAULT_TTL: u32 = 3_600;

/// Where and why a file cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct BadFile {
    /// From 1.
    pub line: usize,
    /// What is wrong.
    pub problem: String,
}

/// Reads a file for the zone `origin`. Owners come in the file's order, each as often as it has records.
///
/// # Errors
/// The first mistake.
pub fn parse(text: &str, zone: &Name) -> Result<Vec<(Name, Record)>, BadFile> {
    let mut reader = Reader {
        zone,
        origin: zone.clone(),
        default: None,
        last_ttl: None,
        owner: None,
        owners: HashMap::new(),
        records: Vec::new(),
    };
    let mut lines = text.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        let bad = |problem: String| BadFile {
            line: at + 1,
            problem,
        };
        let mut entry = Entry::default();
        entry.add(line).map_err(bad)?;
        while entry.open > 0 {
            let (_, next) = lines
                .next()
                .ok_or_else(|| bad("a parenthesis stays open".to_owned()))?;
            entry.add(next).map_err(bad)?;
        }
        if !entry.words.is_empty() {
            reader.take(&entry).map_err(bad)?;
        }
    }
    Ok(reader.records)
}

/// Splits data into words: quoted strings stay whole with their quotes, escapes stay. None: a quote or parenthesis stays open.
#[must_use]
pub fn words(text: &str) -> Option<Vec<String>> {
    let mut entry = Entry::default();
    entry.add(text).ok()?;
    (entry.open == 0).then_some(entry.words)
}

/// One entry of the file, which parentheses may stretch over lines.
#[derive(Default)]
struct Entry {
    words: Vec<String>,
    open: usize,
    /// The first line begins with a blank: the owner is that of the entry before.
    continues: bool,
    begun: bool,
}

impl Entry {
    fn add(&mut self, line: &str) -> Result<(), String> {
        if !self.begun {
            self.begun = true;
            self.continues = line.starts_with([' ', '\t']);
        }
        let mut word = String::new();
        let mut characters = line.chars();
        let mut quoted = false;
        let mut end = |word: &mut String| {
            if !word.is_empty() {
                self.words.push(std::mem::take(word));
            }
        };
        while let Some(character) = characters.next() {
            match character {
                '\\' => {
                    word.push('\\');
                    word.extend(characters.next());
                }
                '"' => {
                    word.push('"');
                    quoted = !quoted;
                    if !quoted {
                        end(&mut word);
                    }
                }
                other if quoted => word.push(other),
                ';' => break,
                '(' => {
                    end(&mut word);
                    self.open += 1;
                }
                ')' => {
                    end(&mut word);
                    self.open = self
                        .open
                        .checked_sub(1)
                        .ok_or("a parenthesis was never opened")?;
                }
                blank if blank.is_ascii_whitespace() => end(&mut word),
                plain => word.push(plain),
            }
        }
        if quoted {
            return Err("a quoted string stays open".to_owned());
        }
        end(&mut word);
        Ok(())
    }
}

struct Reader<'a> {
    zone: &'a Name,
    origin: Name,
    default: Option<u32>,
    last_ttl: Option<u32>,
    owner: Option<Name>,
    /// One record of each type that a name has.
    owners: HashMap<Name, Vec<Record>>,
    records: Vec<(Name, Record)>,
}

impl Reader<'_> {
    fn take(&mut self, entry: &Entry) -> Result<(), String> {
        let words: Vec<&str> = entry.words.iter().map(String::as_str).collect();
        match words.as_slice() {
            [control, name] if control.eq_ignore_ascii_case("$ORIGIN") => {
                self.origin = Name::parse(name, Some(&self.origin)).map_err(|it| it.to_string())?;
                Ok(())
            }
            [control, time] if control.eq_ignore_ascii_case("$TTL") => {
                self.default =
                    Some(rdata::seconds(time).ok_or_else(|| format!("`{time}` is no time"))?);
                Ok(())
            }
            [control, ..] if control.starts_with('$') => Err(format!(
                "{control} is not followed here; write the records themselves into this file"
            )),
            [owner, rest @ ..] if !entry.continues => {
                let owner = Name::parse(owner, Some(&self.origin)).map_err(|it| it.to_string())?;
                if !owner.is_within(self.zone) {
                    return Err(format!("{owner} is outside of {}", self.zone));
                }
                self.owner = Some(owner);
                self.record(rest)
            }
            rest => self.record(rest),
        }
    }

    fn record(&mut self, mut words: &[&str]) -> Result<(), String> {
        let mut ttl = None;
        let kind = loop {
            let (word, rest) = words.split_first().ok_or("the record has no type")?;
            words = rest;
            if word.eq_ignore_ascii_case("IN") {
                continue;
            }
            if ["CH", "HS", "CS"]
                .iter()
                .any(|class| word.eq_ignore_ascii_case(class))
            {
                return Err(format!("class {word} is not served"));
            }
            match rdata::seconds(word) {
                Some(time) if ttl.is_none() => ttl = Some(time),
                _ => {
                    break Kind::parse(word).ok_or_else(|| {
                        format!("type `{word}` is not known here; write it as TYPE123")
                    })?;
                }
            }
        };
        if kind == Kind::DNAME {
            return Err("DNAME is not served here; write an alias for each name".to_owned());
        }
        if kind.is_meta() {
            return Err(format!("{kind} is no type of a zone's record"));
        }
        let data = rdata::parse(kind, words, Some(&self.origin)).map_err(|it| it.to_string())?;
        if kind == Kind::SOA && ttl.or(self.default).or(self.last_ttl).is_none() {
            // Files from before `$TTL` (RFC 2308 section 4) mean this by the SOA's last number; so does BIND.
            self.default = Soa::parse(&data).map(|soa| soa.minimum);
        }
        let ttl = ttl
            .or(self.default)
            .or(self.last_ttl)
            .unwrap_or(DEFAULT_TTL);
        self.last_ttl = Some(ttl);
        let owner = self.owner.clone().ok_or("the first record has no owner")?;
        let record = Record { ttl, kind, data };
        self.check_beside(&owner, &record)?;
        self.records.push((owner, record));
        Ok(())
    }

    /// An alias stands alone (RFC 1034 section 3.6.2), and a zone has one start of authority, at its top.
    fn check_beside(&mut self, owner: &Name, record: &Record) -> Result<(), String> {
        if record.kind == Kind::SOA && owner != self.zone {
            return Err(format!("{owner} is not the zone's top and has no SOA"));
        }
        if record.kind == Kind::CNAME && owner == self.zone {
            return Err(format!(
                "{owner} is the zone's top, has SOA and NS, and so no CNAME"
            ));
        }
        let present = self.owners.entry(owner.clone()).or_default();
        if let Some(other) = present.iter().find(|it| !it.may_stand_beside(record)) {
            return Err(match other.kind == record.kind {
                true => format!("{owner} has another {} already", record.kind),
                false => format!("{owner} has {}, so no {}", other.kind, record.kind),
            });
        }
        // Of many records of one type the first is enough to know what may stand beside them.
        if present.iter().all(|it| it.kind != record.kind) {
            present.push(record.clone());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone() -> Name {
        Name::parse("example.com", None).unwrap()
    }

    fn lines(text: &str) -> Vec<String> {
        let records = parse(text, &zone()).unwrap();
        let line = |(owner, it): &(Name, Record)| {
            format!(
                "{owner} {} {} {}",
                it.ttl,
                it.kind,
                rdata::text(it.kind, &it.data)
            )
        };
        records.iter().map(line).collect()
    }

    #[test]
    fn a_zone_as_people_write_it() {
        let text = "\
$TTL 1h ; one hour
@   IN SOA ns1 hostmaster (
        2026112501 ; serial
        1h 15m 2w  ; times
        5m )
    IN NS ns1
    NS ns2.example.net.
ns1 300 IN A 192.0.2.1
    IN 60 AAAA 2001:db8::1
txt TXT \"a;b (c)\" d
$origin sub.example.com.
*   A 192.0.2.9
www CNAME @
WWW CNAME @
www TYPE46 \\# 1 00
";
        assert_eq!(
            lines(text),
            [
                "example.com 3600 SOA ns1.example.com. hostmaster.example.com. 2026112501 3600 900 1209600 300",
                "example.com 3600 NS ns1.example.com.",
                "example.com 3600 NS ns2.example.net.",
                "ns1.example.com 300 A 192.0.2.1",
                "ns1.example.com 60 AAAA 2001:db8::1",
                "txt.example.com 3600 TXT \"a;b (c)\" \"d\"",
                "*.sub.example.com 3600 A 192.0.2.9",
                "www.sub.example.com 3600 CNAME sub.example.com.",
                "www.sub.example.com 3600 CNAME sub.example.com.",
                "www.sub.example.com 3600 TYPE46 \\# 1 00",
            ]
        );
    }

    /// RFC 1035 section 3.3.13 as it was meant before RFC 2308; what stands in a line is of that line alone then, as with BIND.
    #[test]
    fn a_file_without_ttl_has_that_of_its_soa() {
        let soa = "ns1.example.com. h.example.com. 1 2 3 4 7200";
        let text = format!("@ IN SOA {soa}\na A 192.0.2.1\nb 300 A 192.0.2.2\nc A 192.0.2.3\n");
        assert_eq!(
            lines(&text),
            [
                &format!("example.com 7200 SOA {soa}"),
                "a.example.com 7200 A 192.0.2.1",
                "b.example.com 300 A 192.0.2.2",
                "c.example.com 7200 A 192.0.2.3",
            ]
        );
    }

    #[test]
    fn a_mistake_is_told_with_its_line() {
        for (text, told) in [
            ("a A 192.0.2.1\nb A x\n", "line 2: `x` is no data of type A"),
            (
                "a.example.net. A 192.0.2.1\n",
                "line 1: a.example.net is outside of example.com",
            ),
            (
                "$INCLUDE /etc/passwd\n",
                "line 1: $INCLUDE is not followed here; write the records themselves into this file",
            ),
            (
                "\na FOO 192.0.2.1",
                "line 2: type `FOO` is not known here; write it as TYPE123",
            ),
            ("a (\nA 192.0.2.1\n", "line 1: a parenthesis stays open"),
            ("a CH A 192.0.2.1", "line 1: class CH is not served"),
            ("a TXT \"x", "line 1: a quoted string stays open"),
            ("  A 192.0.2.1", "line 1: the first record has no owner"),
            (
                "a TYPE255 \\# 0",
                "line 1: TYPE255 is no type of a zone's record",
            ),
            ("a", "line 1: the record has no type"),
            (
                "a A 192.0.2.1\na CNAME b\n",
                "line 2: a.example.com has A, so no CNAME",
            ),
            (
                "a CNAME b\na TXT x\n",
                "line 2: a.example.com has CNAME, so no TXT",
            ),
            (
                "a CNAME b\n\na CNAME c\n",
                "line 3: a.example.com has another CNAME already",
            ),
            (
                "@ CNAME b",
                "line 1: example.com is the zone's top, has SOA and NS, and so no CNAME",
            ),
            (
                "a SOA b c 1 2 3 4 5",
                "line 1: a.example.com is not the zone's top and has no SOA",
            ),
            (
                "a DNAME b",
                "line 1: DNAME is not served here; write an alias for each name",
            ),
            (
                "a TYPE39 \\# 3 016200",
                "line 1: DNAME is not served here; write an alias for each name",
            ),
            (
                "@ SOA b c 1 2 3 4 5\n@ SOA b c 2 2 3 4 5",
                "line 2: example.com has another SOA already",
            ),
        ] {
            assert_eq!(parse(text, &zone()).unwrap_err().to_string(), told);
        }
    }
}
