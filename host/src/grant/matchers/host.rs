//! Hosts: names and addresses, as a grant writes them ([`HostPattern`]) and as an action asks for them ([`AskedHost`]).
//!
//! Both sides are brought to one form first: lower case, no trailing dot, internationalised names in their ASCII form,
//! IPv4-mapped addresses as IPv4. The URL standard's rules decide what is an address, so `0x7f.1` and `2130706433` are
//! 127.0.0.1 and never a name.

use std::borrow::Cow;
use std::net::IpAddr;

use ipnet::IpNet;
use url::Host;

use super::PatternError;

/// Hosts that a rule covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPattern {
    /// `*`: any name, and any address of the open network.
    Any,
    /// `*.example.com`: every name below, not the name itself. Kept with its leading dot.
    Below(String),
    /// `ns.example.com`.
    Name(String),
    /// `192.0.2.1`, `10.0.0.0/8`, `2001:db8::/32`.
    Network(IpNet),
}

/// A host that an action names, in its one form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AskedHost<'a> {
    /// A name: lower case ASCII, no trailing dot.
    Name(Cow<'a, str>),
    /// An address, never IPv4-mapped.
    Address(IpAddr),
}

impl HostPattern {
    /// Parses one pattern. IPv6 addresses may stand in brackets.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        if let Some(parent) = text.strip_prefix("*.") {
            return match AskedHost::parse(parent) {
                Some(AskedHost::Name(name)) => Ok(Self::Below(format!(".{name}"))),
                _ => Err(
                    PatternError::new(text, "`*.` must be followed by a domain name")
                        .help("for example `*.example.com`"),
                ),
            };
        }
        if text.contains('*') {
            return Err(
                PatternError::new(text, "`*` stands alone or as the whole first label")
                    .help("for example `*` or `*.example.com`"),
            );
        }
        let bare = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(text);
        if bare.contains('/') {
            let net: IpNet = bare.parse().map_err(|_| {
                PatternError::new(text, "is not a network")
                    .help("for example `10.0.0.0/8` or `2001:db8::/32`")
            })?;
            if net.trunc() != net {
                return Err(PatternError::new(text, "has bits set behind its prefix")
                    .help(format!("write `{}`", net.trunc())));
            }
            return Ok(Self::Network(unmap(net)));
        }
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return Ok(Self::Network(IpNet::from(ip.to_canonical())));
        }
        match AskedHost::parse(text) {
            Some(AskedHost::Name(name)) => Ok(Self::Name(name.into_owned())),
            Some(AskedHost::Address(ip)) => Err(PatternError::new(
                text,
                "is an unusual spelling of an address",
            )
            .help(format!("write `{ip}`"))),
            None => Err(PatternError::new(text, "is not a host")
                .help("a name, an address, a network, `*.example.com` or `*`")),
        }
    }

    /// Whether the pattern covers a name in its one form.
    #[must_use]
    pub fn covers_name(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Below(dotted) => name.len() > dotted.len() && name.ends_with(dotted.as_str()),
            Self::Name(own) => own == name,
            Self::Network(_) => false,
        }
    }

    /// Whether the pattern covers an address by itself, that is without any name having been resolved to it.
    #[must_use]
    pub fn covers_address(&self, ip: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::Below(_) | Self::Name(_) => false,
            Self::Network(net) => net.contains(&ip.to_canonical()),
        }
    }

    /// Whether the pattern covers an asked host.
    #[must_use]
    pub fn covers(&self, asked: &AskedHost<'_>) -> bool {
        match asked {
            AskedHost::Name(name) => self.covers_name(name),
            AskedHost::Address(ip) => self.covers_address(*ip),
        }
    }

    /// Whether the pattern writes one name out in full. Private addresses are reachable through such a name only.
    #[must_use]
    pub fn is_literal_name(&self) -> bool {
        matches!(self, Self::Name(_))
    }

    /// Whether the pattern writes out the name by which every system means itself.
    #[must_use]
    pub fn is_localhost(&self) -> bool {
        matches!(self, Self::Name(name) if is_localhost(name))
    }
}

/// `localhost` and names below it (RFC 6761).
#[must_use]
pub fn is_localhost(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost")
}

fn unmap(net: IpNet) -> IpNet {
    if let IpNet::V6(v6) = net
        && let Some(v4) = v6.addr().to_ipv4_mapped()
        && let Some(prefix) = v6.prefix_len().checked_sub(96)
        && let Ok(short) = IpNet::new(IpAddr::V4(v4), prefix)
    {
        return short;
    }
    net
}

impl std::fmt::Display for HostPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Below(dotted) => write!(f, "*{dotted}"),
            Self::Name(name) => f.write_str(name),
            Self::Network(net) if net.prefix_len() == net.max_prefix_len() => match net.addr() {
                IpAddr::V4(ip) => write!(f, "{ip}"),
                IpAddr::V6(ip) => write!(f, "[{ip}]"),
            },
            Self::Network(IpNet::V4(net)) => write!(f, "{net}"),
            Self::Network(IpNet::V6(net)) => write!(f, "[{net}]"),
        }
    }
}

impl<'a> AskedHost<'a> {
    /// Brings a host to its one form. Allocates only when the text is not already in it. None: not a host.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        if is_plain_name(text) {
            return Some(Self::Name(Cow::Borrowed(text)));
        }
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Some(Self::Address(ip.to_canonical()));
        }
        if text.contains('%') {
            return None; // the URL standard would decode it, other readers would not
        }
        let trimmed = text.strip_suffix('.').unwrap_or(text);
        match Host::parse(trimmed).ok()? {
            Host::Domain(name) => is_plain_name(&name).then_some(Self::Name(Cow::Owned(name))),
            Host::Ipv4(ip) => Some(Self::Address(IpAddr::V4(ip))),
            Host::Ipv6(ip) => Some(Self::Address(IpAddr::V6(ip).to_canonical())),
        }
    }
}

impl std::fmt::Display for AskedHost<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(ip)) => write!(f, "{ip}"),
            Self::Address(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
        }
    }
}

/// Longest name in the DNS, in presentation form without the trailing dot (RFC 1035 2.3.4).
const NAME_LENGTH: usize = 253;
/// Longest label (RFC 1035 2.3.4).
const LABEL_LENGTH: usize = 63;

/// Lower-case letters, digits, `-` and `_` in labels, and a last label that is no number (which would make it an address).
/// Names with punycode are plain only when the URL standard leaves them as they are.
fn is_plain_name(text: &str) -> bool {
    if text.is_empty() || text.len() > NAME_LENGTH {
        return false;
    }
    let mut last = "";
    let mut punycode = false;
    for label in text.split('.') {
        let letters = label
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
        if !letters || label.is_empty() || label.len() > LABEL_LENGTH {
            return false;
        }
        punycode |= label.starts_with("xn--");
        last = label;
    }
    let number = last.bytes().next().is_some_and(|b| b.is_ascii_digit());
    !number && (!punycode || matches!(Host::parse(text), Ok(Host::Domain(name)) if name == text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str) -> String {
        AskedHost::parse(text).map_or_else(|| "-".to_owned(), |host| host.to_string())
    }

    #[test]
    fn odd_spellings_have_one_form() {
        for (text, want) in [
            ("NS.Example.COM", "ns.example.com"),
            ("ns.example.com.", "ns.example.com"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("127.0.0.1", "127.0.0.1"),
            ("0x7f.1", "127.0.0.1"),
            ("2130706433", "127.0.0.1"),
            ("0177.0.0.1", "127.0.0.1"),
            ("127.1", "127.0.0.1"),
            ("[::1]", "[::1]"),
            ("::1", "[::1]"),
            ("::ffff:127.0.0.1", "127.0.0.1"),
            ("[::ffff:7f00:1]", "127.0.0.1"),
            ("127.0.0.1.", "127.0.0.1"),
            ("１２７.0.0.1", "127.0.0.1"),
            ("_sip._tcp.example.com", "_sip._tcp.example.com"),
            ("", "-"),
            ("a..b", "-"),
            ("%31%32%37.0.0.1", "-"),
            ("bücher.%2a.example", "-"),
            ("xn--bcher-kva.*.example", "-"),
            ("a b", "-"),
            ("a/b", "-"),
            ("user@host", "-"),
            ("host:80", "-"),
            (".example.com", "-"),
            ("1.2.3.4.5", "-"),
        ] {
            assert_eq!(asked(text), want, "{text}");
        }
    }

    #[test]
    fn a_suffix_covers_names_below_and_nothing_else() {
        let pattern = HostPattern::parse("*.Example.com").unwrap();
        assert!(pattern.covers_name("ns.example.com"));
        assert!(pattern.covers_name("a.b.example.com"));
        assert!(!pattern.covers_name("example.com"));
        assert!(!pattern.covers_name("badexample.com"));
        assert!(!pattern.covers_address("192.0.2.1".parse().unwrap()));
    }

    #[test]
    fn a_network_covers_mapped_spellings_of_its_addresses() {
        let pattern = HostPattern::parse("10.0.0.0/8").unwrap();
        assert!(pattern.covers_address("::ffff:10.2.3.4".parse().unwrap()));
        assert!(!pattern.covers_address("11.0.0.1".parse().unwrap()));
        assert_eq!(HostPattern::parse("::ffff:10.0.0.0/104").unwrap(), pattern);
    }

    #[test]
    fn a_bad_pattern_says_how_to_write_it() {
        for (text, help) in [
            ("10.0.0.1/8", "write `10.0.0.0/8`"),
            ("0x7f.1", "write `127.0.0.1`"),
            ("ns*.example.com", "for example `*` or `*.example.com`"),
            ("*.1.2.3.4", "for example `*.example.com`"),
        ] {
            assert_eq!(
                HostPattern::parse(text).unwrap_err().help.as_deref(),
                Some(help),
                "{text}"
            );
        }
    }

    #[test]
    fn patterns_are_written_as_they_are_read() {
        for text in [
            "*",
            "*.example.com",
            "ns.example.com",
            "192.0.2.1",
            "10.0.0.0/8",
            "[2001:db8::1]",
            "[2001:db8::/32]",
        ] {
            assert_eq!(HostPattern::parse(text).unwrap().to_string(), text);
        }
    }
}
