//! One record as Foreman asks for it, checked and in its one form.
//!
//! It refuses whatever is not wholly of the expected syntax: a name is checked from its first to its last character, not line
//! by line, and an address with a mask is not an address.
//!
//! The one idea: after [`Wanted::parse`] there is nothing left for a provider to judge but the server's own opinion.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bulkhead_sdk::dns::{DnsRecord, RecordType};

/// Bytes of a name in presentation form, without trailing dot (RFC 1035 section 2.3.4: 255 on the wire).
const LONGEST_NAME: usize = 253;
/// Bytes of a label (RFC 1035 section 2.3.4).
const LONGEST_LABEL: usize = 63;

/// Why a record cannot be what was meant, in the Smart Proxy's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadRecord {
    /// Not a host name.
    #[error("Invalid DNS name {0}")]
    Name(String),
    /// Not the name of a service.
    #[error("Invalid DNS srv name {0}")]
    ServiceName(String),
    /// Not below `in-addr.arpa` or `ip6.arpa`.
    #[error("Invalid reverse DNS {0}")]
    Reverse(String),
    /// Neither an IPv4 nor an IPv6 address.
    #[error("invalid address: {0}")]
    Address(String),
    /// IPv6 for A, or IPv4 for AAAA.
    #[error("address family mismatch")]
    Family,
    /// Not priority, weight, port and target.
    #[error("Invalid DNS SRV value {0}")]
    Service(String),
    /// No type of record that is served here.
    #[error("unrecognized 'type' parameter: {0}")]
    Type(String),
}

/// A name and type, as in a removal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subject {
    /// Lower case, without trailing dot.
    pub(crate) name: String,
    /// The type.
    pub(crate) kind: RecordType,
}

impl Subject {
    /// Reads the path of a removal. Without a type, a reverse name is PTR and any other A.
    pub(crate) fn parse(value: &str, kind: Option<&str>) -> Result<Self, BadRecord> {
        let kind = match kind {
            Some(word) => kind_of(word).ok_or_else(|| BadRecord::Type(word.to_owned())),
            None if is_reverse(&canonical(value)) => Ok(RecordType::Ptr),
            None => Ok(RecordType::A),
        };
        let name = match kind {
            Ok(RecordType::Srv) => service_name(value)?,
            Ok(RecordType::Ptr) => reverse_name(value)?,
            Ok(RecordType::A | RecordType::Aaaa | RecordType::Cname) | Err(_) => host_name(value)?,
        };
        Ok(Self { name, kind: kind? })
    }
}

/// Reads the form of a creation. `kind` may be of either case.
pub(crate) fn wanted(
    fqdn: &str,
    value: &str,
    kind: &str,
    ttl: u32,
) -> Result<DnsRecord, BadRecord> {
    let word = kind.to_ascii_uppercase();
    let kind = kind_of(&word);
    let owner = match kind {
        Some(RecordType::Srv) => service_name(fqdn)?,
        _ => host_name(fqdn)?,
    };
    let kind = kind.ok_or(BadRecord::Type(word))?;
    let (name, value) = match kind {
        RecordType::A => (owner, v4(value)?.to_string()),
        RecordType::Aaaa => (owner, v6(value)?.to_string()),
        RecordType::Cname => (owner, host_name(value)?),
        // Foreman names the host first and the reverse name as value, whatever the type.
        RecordType::Ptr => (reverse_name(value)?, owner),
        RecordType::Srv => (owner, service(value)?),
    };
    Ok(DnsRecord {
        name,
        kind,
        value,
        ttl,
    })
}

fn kind_of(word: &str) -> Option<RecordType> {
    match word {
        "A" => Some(RecordType::A),
        "AAAA" => Some(RecordType::Aaaa),
        "CNAME" => Some(RecordType::Cname),
        "PTR" => Some(RecordType::Ptr),
        "SRV" => Some(RecordType::Srv),
        _ => None,
    }
}

fn canonical(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

fn host_name(text: &str) -> Result<String, BadRecord> {
    let label = |label: &str| {
        let starts_well = label.starts_with(|it: char| it.is_ascii_alphanumeric());
        starts_well
            && label
                .bytes()
                .all(|it| it.is_ascii_alphanumeric() || it == b'-')
    };
    name(text, label).ok_or_else(|| BadRecord::Name(text.to_owned()))
}

/// As a host name, with `_` anywhere: `_sip._tcp.example.com` (RFC 2782).
fn service_name(text: &str) -> Result<String, BadRecord> {
    let label = |label: &str| {
        let starts_well = label.starts_with(|it: char| it.is_ascii_alphanumeric() || it == '_');
        starts_well
            && label
                .bytes()
                .all(|it| it.is_ascii_alphanumeric() || it == b'-' || it == b'_')
    };
    name(text, label).ok_or_else(|| BadRecord::ServiceName(text.to_owned()))
}

fn name(text: &str, label: impl Fn(&str) -> bool) -> Option<String> {
    let name = canonical(text);
    let fits = |part: &str| part.len() <= LONGEST_LABEL && label(part);
    (name.len() <= LONGEST_NAME && name.split('.').all(fits)).then_some(name)
}

fn reverse_name(text: &str) -> Result<String, BadRecord> {
    let name = host_name(text)?;
    match is_reverse(&name) {
        true => Ok(name),
        false => Err(BadRecord::Reverse(text.to_owned())),
    }
}

fn is_reverse(name: &str) -> bool {
    name.ends_with(".in-addr.arpa") || name.ends_with(".ip6.arpa")
}

fn address(text: &str) -> Result<IpAddr, BadRecord> {
    text.parse()
        .map_err(|_| BadRecord::Address(text.to_owned()))
}

fn v4(text: &str) -> Result<Ipv4Addr, BadRecord> {
    match address(text)? {
        IpAddr::V4(v4) => Ok(v4),
        IpAddr::V6(_) => Err(BadRecord::Family),
    }
}

fn v6(text: &str) -> Result<Ipv6Addr, BadRecord> {
    match address(text)? {
        IpAddr::V6(v6) => Ok(v6),
        IpAddr::V4(_) => Err(BadRecord::Family),
    }
}

/// `priority weight port target` (RFC 2782).
fn service(text: &str) -> Result<String, BadRecord> {
    let bad = || BadRecord::Service(text.to_owned());
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let [priority, weight, port, target] = words.as_slice() else {
        return Err(bad());
    };
    // `parse` alone would allow a sign.
    let number = |word: &str| {
        let digits = word.bytes().all(|it| it.is_ascii_digit());
        word.parse::<u16>().ok().filter(|_| digits).ok_or_else(bad)
    };
    let (priority, weight, port) = (number(priority)?, number(weight)?, number(port)?);
    let target = host_name(target).map_err(|_| bad())?;
    match port {
        0 => Err(bad()),
        _ => Ok(format!("{priority} {weight} {port} {target}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(fqdn: &str, value: &str, kind: &str) -> String {
        wanted(fqdn, value, kind, 60).unwrap_err().to_string()
    }

    #[test]
    fn a_name_is_checked_as_a_whole() {
        assert_eq!(
            refused("a.example.com\nb.example.com", "192.0.2.1", "A"),
            "Invalid DNS name a.example.com\nb.example.com"
        );
        for bad in [
            "",
            ".",
            "a..b",
            "-a.b",
            "a_b.c",
            "a b",
            "ä.example.com",
            ".a",
            "a.\n",
        ] {
            assert_eq!(
                host_name(bad),
                Err(BadRecord::Name(bad.to_owned())),
                "{bad:?}"
            );
        }
        let long = "a".repeat(64);
        assert!(host_name(&long).is_err());
        assert!(host_name(&["a".repeat(62).as_str(); 5].join(".")).is_err());
        // The Smart Proxy allows a dash at the end.
        assert_eq!(host_name("A-.Example.COM.").unwrap(), "a-.example.com");
    }

    #[test]
    fn addresses_are_written_in_their_one_form() {
        let value = |value, kind| wanted("a.b", value, kind, 60).unwrap().value;
        assert_eq!(value("2001:0db8:0::1", "aaaa"), "2001:db8::1");
        assert_eq!(value("192.0.2.1", "a"), "192.0.2.1");
    }

    #[test]
    fn a_mask_or_a_wrong_family_is_refused() {
        assert_eq!(
            refused("a.b", "192.0.2.1/24", "A"),
            "invalid address: 192.0.2.1/24"
        );
        assert_eq!(refused("a.b", "", "A"), "invalid address: ");
        assert_eq!(
            refused("a.b", "2001:db8::1", "A"),
            "address family mismatch"
        );
        assert_eq!(
            refused("a.b", "192.0.2.1", "AAAA"),
            "address family mismatch"
        );
    }

    #[test]
    fn a_reverse_record_swaps_name_and_value() {
        let record = wanted("Host.Example.com", "50.2.0.192.in-addr.arpa", "PTR", 60).unwrap();
        assert_eq!(record.name, "50.2.0.192.in-addr.arpa");
        assert_eq!(record.value, "host.example.com");
        assert_eq!(
            refused("h.example.com", "50.2.0.192.example.com", "PTR"),
            "Invalid reverse DNS 50.2.0.192.example.com"
        );
        assert_eq!(
            refused("h.example.com", "a_.ip6.arpa", "PTR"),
            "Invalid DNS name a_.ip6.arpa"
        );
    }

    #[test]
    fn a_service_has_four_words() {
        let value = |value| wanted("_sip._tcp.example.com", value, "SRV", 60).map(|it| it.value);
        assert_eq!(
            value("0 5 5060 Sip.example.com.").unwrap(),
            "0 5 5060 sip.example.com"
        );
        for bad in [
            "",
            "0 5 5060",
            "0 5 0 a.b",
            "65536 5 1 a.b",
            "+1 5 1 a.b",
            "0 5 1 a_b.c",
            "0 5 1 a.b c",
        ] {
            assert_eq!(value(bad), Err(BadRecord::Service(bad.to_owned())), "{bad}");
        }
        assert_eq!(
            refused("_sip .tcp", "0 5 1 a.b", "SRV"),
            "Invalid DNS srv name _sip .tcp"
        );
    }

    #[test]
    fn the_name_is_checked_before_the_type() {
        assert_eq!(refused("a_b", "x", "mx"), "Invalid DNS name a_b");
        assert_eq!(
            refused("a.b", "x", "mx"),
            "unrecognized 'type' parameter: MX"
        );
    }

    #[test]
    fn a_removal_guesses_the_type_from_the_name() {
        let kind = |value| Subject::parse(value, None).unwrap().kind;
        assert_eq!(kind("a.example.com"), RecordType::A);
        assert_eq!(kind("1.2.0.192.in-addr.arpa"), RecordType::Ptr);
        assert_eq!(kind("1.0.ip6.arpa"), RecordType::Ptr);
        assert_eq!(
            Subject::parse("a.b", Some("aaaa")),
            Err(BadRecord::Type("aaaa".into()))
        );
        assert_eq!(
            Subject::parse("a.b", Some("PTR")),
            Err(BadRecord::Reverse("a.b".into()))
        );
    }
}
