//! The data of records: presentation form (RFC 1035 section 5) to wire and back.
//!
//! It knows the types that sites use in their zones. Any other is written as `TYPE123 \# 4 0a000001` (RFC 3597), and refused otherwise.
//!
//! The one idea: data is kept as wire bytes, ready to be copied into an answer; only where compression is allowed names inside it are looked at.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::name::{BadName, Name, unescape};

/// A record type by its number, shown by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kind(pub u16);

impl Kind {
    /// IPv4 address.
    pub const A: Self = Self(1);
    /// Name server.
    pub const NS: Self = Self(2);
    /// Alias.
    pub const CNAME: Self = Self(5);
    /// Start of authority.
    pub const SOA: Self = Self(6);
    /// Name of an address.
    pub const PTR: Self = Self(12);
    /// Mail exchange.
    pub const MX: Self = Self(15);
    /// Text.
    pub const TXT: Self = Self(16);
    /// IPv6 address.
    pub const AAAA: Self = Self(28);
    /// Service.
    pub const SRV: Self = Self(33);
    /// Alias of everything below a name (RFC 6672).
    pub const DNAME: Self = Self(39);
    /// EDNS's pseudo record (RFC 6891).
    pub const OPT: Self = Self(41);
    /// Delegation signer: stands on the parent's side of a cut.
    pub const DS: Self = Self(43);
    /// SSH key fingerprint.
    pub const SSHFP: Self = Self(44);
    /// A set's signature (RFC 4034 section 3).
    pub const RRSIG: Self = Self(46);
    /// What there is no name between (RFC 4034 section 4).
    pub const NSEC: Self = Self(47);
    /// Who may issue certificates.
    pub const CAA: Self = Self(257);
    /// Question only: whatever there is.
    pub const ANY: Self = Self(255);

    const NAMES: [(Self, &'static str); 13] = [
        (Self::A, "A"),
        (Self::NS, "NS"),
        (Self::CNAME, "CNAME"),
        (Self::SOA, "SOA"),
        (Self::PTR, "PTR"),
        (Self::MX, "MX"),
        (Self::TXT, "TXT"),
        (Self::AAAA, "AAAA"),
        (Self::SRV, "SRV"),
        (Self::DNAME, "DNAME"),
        (Self::DS, "DS"),
        (Self::SSHFP, "SSHFP"),
        (Self::CAA, "CAA"),
    ];

    /// By its name in any case, or `TYPE123`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let upper = text.to_ascii_uppercase();
        if let Some((kind, _)) = Self::NAMES.iter().find(|(_, name)| *name == upper) {
            return Some(*kind);
        }
        let number = upper.strip_prefix("TYPE")?;
        number
            .bytes()
            .all(|it| it.is_ascii_digit())
            .then(|| number.parse().ok().map(Self))?
    }

    /// Types that stand in questions or messages, never in a zone (RFC 6895 section 3.1).
    #[must_use]
    pub fn is_meta(self) -> bool {
        matches!(self.0, 0 | 41 | 128..=255)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.iter().find(|(kind, _)| kind == self) {
            Some((_, name)) => formatter.write_str(name),
            None => write!(formatter, "TYPE{}", self.0),
        }
    }
}

/// Why a record's data cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadData {
    /// Not a name where one should be.
    #[error(transparent)]
    Name(#[from] BadName),
    /// Not what the type has.
    #[error("`{text}` is no data of type {kind}")]
    Form {
        /// The type.
        kind: Kind,
        /// What was given.
        text: String,
    },
    /// A type that has no presentation form here.
    #[error("type {0} is not known here; write its data as `\\# LENGTH HEX`")]
    Unknown(Kind),
}

/// Reads the words of a record's data. Words keep their escapes; a quoted string is one word with its quotes.
///
/// # Errors
/// See [`BadData`].
pub fn parse(kind: Kind, words: &[&str], origin: Option<&Name>) -> Result<Vec<u8>, BadData> {
    let form = || BadData::Form {
        kind,
        text: words.join(" "),
    };
    if let Some(("\\#", rest)) = words.split_first().map(|(first, rest)| (*first, rest)) {
        return generic(rest).ok_or_else(form);
    }
    let name = |text: &str| Name::parse(text, origin);
    let number = |text: &str| text.parse::<u16>().map_err(|_| form());
    match (kind, words) {
        (Kind::A, [address]) => {
            let address: Ipv4Addr = address.parse().map_err(|_| form())?;
            Ok(address.octets().to_vec())
        }
        (Kind::AAAA, [address]) => {
            let address: Ipv6Addr = address.parse().map_err(|_| form())?;
            Ok(address.octets().to_vec())
        }
        (Kind::NS | Kind::CNAME | Kind::PTR, [target]) => Ok(name(target)?.wire().to_vec()),
        (Kind::MX, [preference, target]) => {
            let mut data = number(preference)?.to_be_bytes().to_vec();
            data.extend_from_slice(name(target)?.wire());
            Ok(data)
        }
        (Kind::SRV, [priority, weight, port, target]) => {
            let mut data = Vec::new();
            for word in [priority, weight, port] {
                data.extend(number(word)?.to_be_bytes());
            }
            data.extend_from_slice(name(target)?.wire());
            Ok(data)
        }
        (Kind::SOA, [primary, mailbox, numbers @ ..]) if numbers.len() == 5 => {
            let mut data = name(primary)?.wire().to_vec();
            data.extend_from_slice(name(mailbox)?.wire());
            for word in numbers {
                data.extend(seconds(word).ok_or_else(form)?.to_be_bytes());
            }
            Ok(data)
        }
        (Kind::TXT, [_, ..]) => {
            let mut data = Vec::new();
            for word in words {
                push_string(&mut data, word).ok_or_else(form)?;
            }
            Ok(data)
        }
        (Kind::SSHFP, [algorithm, hash, digits @ ..]) if !digits.is_empty() => {
            let byte = |text: &str| text.parse::<u8>().map_err(|_| form());
            let mut data = vec![byte(algorithm)?, byte(hash)?];
            data.extend(hex(digits).ok_or_else(form)?);
            Ok(data)
        }
        (Kind::DS, [tag, algorithm, hash, digits @ ..]) if !digits.is_empty() => {
            let byte = |text: &str| text.parse::<u8>().map_err(|_| form());
            let mut data = number(tag)?.to_be_bytes().to_vec();
            data.extend([byte(algorithm)?, byte(hash)?]);
            data.extend(hex(digits).ok_or_else(form)?);
            Ok(data)
        }
        (Kind::CAA, [flags, tag, value]) => {
            let mut data = vec![flags.parse::<u8>().map_err(|_| form())?];
            push_string(&mut data, tag).ok_or_else(form)?;
            let mut text = Vec::new();
            push_string(&mut text, value).ok_or_else(form)?;
            data.extend_from_slice(text.get(1..).unwrap_or_default());
            Ok(data)
        }
        (known, _) if Kind::NAMES.iter().any(|(kind, _)| *kind == known) => Err(form()),
        (unknown, _) => Err(BadData::Unknown(unknown)),
    }
}

/// Presentation form, with absolute names; what [`parse`] reads back.
#[must_use]
pub fn text(kind: Kind, data: &[u8]) -> String {
    known_text(kind, data).unwrap_or_else(|| {
        let digits: String = data.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("\\# {} {digits}", data.len()).trim_end().to_owned()
    })
}

fn known_text(kind: Kind, data: &[u8]) -> Option<String> {
    let name = |wire: &[u8]| {
        let name = Name::from_wire(wire)?.to_string();
        Some(if name == "." {
            name
        } else {
            format!("{name}.")
        })
    };
    match kind {
        Kind::A => Some(Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?).to_string()),
        Kind::AAAA => Some(Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?).to_string()),
        Kind::NS | Kind::CNAME | Kind::PTR => name(data),
        Kind::MX => {
            let (preference, target) = data.split_first_chunk::<2>()?;
            Some(format!(
                "{} {}",
                u16::from_be_bytes(*preference),
                name(target)?
            ))
        }
        Kind::SRV => {
            let (priority, rest) = data.split_first_chunk::<2>()?;
            let (weight, rest) = rest.split_first_chunk::<2>()?;
            let (port, target) = rest.split_first_chunk::<2>()?;
            let numbers = [priority, weight, port].map(|it| u16::from_be_bytes(*it).to_string());
            Some(format!("{} {}", numbers.join(" "), name(target)?))
        }
        Kind::SOA => {
            let soa = Soa::parse(data)?;
            let numbers = [soa.serial, soa.refresh, soa.retry, soa.expire, soa.minimum];
            let numbers = numbers.map(|it| it.to_string()).join(" ");
            Some(format!(
                "{} {} {numbers}",
                name(soa.primary.wire())?,
                name(soa.mailbox.wire())?
            ))
        }
        Kind::TXT => {
            let (mut rest, mut strings) = (data, Vec::new());
            while let Some((length, following)) = rest.split_first() {
                let (string, following) = following.split_at_checked(usize::from(*length))?;
                strings.push(quoted(string));
                rest = following;
            }
            (!strings.is_empty()).then(|| strings.join(" "))
        }
        _ => None,
    }
}

/// The data of a start of authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Soa {
    /// The primary server.
    pub primary: Name,
    /// Who answers for the zone, as a name.
    pub mailbox: Name,
    /// Grows with every change.
    pub serial: u32,
    /// Seconds between looks of a secondary.
    pub refresh: u32,
    /// Seconds until it tries again.
    pub retry: u32,
    /// Seconds after which it gives the zone up.
    pub expire: u32,
    /// Seconds that a negative answer may be kept (RFC 2308 section 4).
    pub minimum: u32,
}

impl Soa {
    /// Reads wire data.
    #[must_use]
    pub fn parse(data: &[u8]) -> Option<Self> {
        let (primary, rest) = split_name(data)?;
        let (mailbox, rest) = split_name(rest)?;
        let numbers: [u8; 20] = rest.try_into().ok()?;
        let (chunks, _) = numbers.as_chunks::<4>();
        let mut numbers = chunks.iter().map(|it| u32::from_be_bytes(*it));
        Some(Self {
            primary: Name::from_wire(primary)?,
            mailbox: Name::from_wire(mailbox)?,
            serial: numbers.next()?,
            refresh: numbers.next()?,
            retry: numbers.next()?,
            expire: numbers.next()?,
            minimum: numbers.next()?,
        })
    }

    /// Wire data.
    #[must_use]
    pub fn wire(&self) -> Vec<u8> {
        let mut data = self.primary.wire().to_vec();
        data.extend_from_slice(self.mailbox.wire());
        for number in [
            self.serial,
            self.refresh,
            self.retry,
            self.expire,
            self.minimum,
        ] {
            data.extend(number.to_be_bytes());
        }
        data
    }
}

/// Splits wire bytes after the name they begin with.
#[must_use]
pub fn split_name(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut at = 0_usize;
    loop {
        let length = usize::from(*data.get(at)?);
        at += 1 + length;
        if length == 0 {
            return data.split_at_checked(at);
        }
    }
}

/// A time in seconds: a number, or with units `1h30m`, `2w`.
#[must_use]
pub fn seconds(text: &str) -> Option<u32> {
    let (mut total, mut number, mut digits) = (0_u32, 0_u32, false);
    for byte in text.bytes() {
        let unit = match byte.to_ascii_lowercase() {
            digit @ b'0'..=b'9' => {
                digits = true;
                number = number
                    .checked_mul(10)?
                    .checked_add(u32::from(digit - b'0'))?;
                continue;
            }
            b's' => 1,
            b'm' => 60,
            b'h' => 3_600,
            b'd' => 86_400,
            b'w' => 604_800,
            _ => return None,
        };
        if !std::mem::take(&mut digits) {
            return None;
        }
        total = total.checked_add(std::mem::take(&mut number).checked_mul(unit)?)?;
    }
    match digits || total > 0 || text.len() > 1 {
        true if !text.is_empty() => total.checked_add(number),
        _ => None,
    }
}

fn generic(words: &[&str]) -> Option<Vec<u8>> {
    let (length, digits) = words.split_first()?;
    let data = hex(digits)?;
    (data.len() == length.parse::<usize>().ok()? && data.len() <= 65_535).then_some(data)
}

fn hex(words: &[&str]) -> Option<Vec<u8>> {
    let digits: Vec<u8> = words.iter().flat_map(|word| word.bytes()).collect();
    let (pairs, rest) = digits.as_chunks::<2>();
    let value = |digit: u8| {
        char::from(digit)
            .to_digit(16)
            .and_then(|it| u8::try_from(it).ok())
    };
    let byte = |[high, low]: &[u8; 2]| Some(value(*high)? * 16 + value(*low)?);
    rest.is_empty().then(|| pairs.iter().map(byte).collect())?
}

/// A character string (RFC 1035 section 3.3): its length, then its bytes.
fn push_string(data: &mut Vec<u8>, word: &str) -> Option<()> {
    let inner = word
        .strip_prefix('"')
        .map_or(Some(word), |rest| rest.strip_suffix('"'))?;
    let mut string = Vec::new();
    let mut bytes = inner.bytes();
    while let Some(byte) = bytes.next() {
        string.push(if byte == b'\\' {
            unescape(&mut bytes)?
        } else {
            byte
        });
    }
    data.push(u8::try_from(string.len()).ok()?);
    data.append(&mut string);
    Some(())
}

fn quoted(string: &[u8]) -> String {
    let mut text = String::from("\"");
    for byte in string {
        match byte {
            b'"' | b'\\' => text.extend(['\\', char::from(*byte)]),
            0x20..=0x7e => text.push(char::from(*byte)),
            other => text.push_str(&format!("\\{other:03}")),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(kind: &str, given: &str) -> String {
        let kind = Kind::parse(kind).unwrap();
        let words: Vec<&str> = given.split(' ').collect();
        let data = parse(kind, &words, None).unwrap();
        let shown = text(kind, &data);
        let again: Vec<&str> = shown.split(' ').collect();
        assert_eq!(parse(kind, &again, None).unwrap(), data);
        shown
    }

    #[test]
    fn data_survives_the_round() {
        assert_eq!(round("a", "192.0.2.1"), "192.0.2.1");
        assert_eq!(round("AAAA", "2001:DB8::0:1"), "2001:db8::1");
        assert_eq!(round("CNAME", "WWW.example.com"), "www.example.com.");
        assert_eq!(round("MX", "10 mail.example.com."), "10 mail.example.com.");
        assert_eq!(
            round("SRV", "0 5 5060 sip.example.com"),
            "0 5 5060 sip.example.com."
        );
        assert_eq!(
            round("TXT", r#""v=\"x\";" plain \195"#),
            r#""v=\"x\";" "plain" "\195""#
        );
        assert_eq!(
            round("SOA", "ns.a. root.a. 7 1h 15m 2w 1h30m"),
            "ns.a. root.a. 7 3600 900 1209600 5400"
        );
        assert_eq!(round("TYPE65280", r"\# 4 0a000001"), r"\# 4 0a000001");
        assert_eq!(
            round("CAA", r#"0 issue "ca.example.net""#),
            r"\# 21 0005697373756563612e6578616d706c652e6e6574"
        );
    }

    #[test]
    fn data_of_another_form_is_refused() {
        for (kind, words) in [
            ("A", "192.0.2.256"),
            ("A", "192.0.2.1 192.0.2.2"),
            ("AAAA", "192.0.2.1"),
            ("MX", "mail.example.com"),
            ("SRV", "0 5 65536 a.b"),
            ("SOA", "a. b. 1 2 3 4"),
            ("TYPE65280", "x"),
            ("TYPE65280", r"\# 3 0a00"),
            ("TXT", "\"open"),
        ] {
            let kind = Kind::parse(kind).unwrap();
            let words: Vec<&str> = words.split(' ').collect();
            assert!(parse(kind, &words, None).is_err(), "{kind} {words:?}");
        }
        for text in ["", "x", "1x", "h", "99999999999", "1h1", "5000000000s"] {
            assert_eq!(seconds(text).is_some(), text == "1h1", "{text}");
        }
    }
}
