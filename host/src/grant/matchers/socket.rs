//! Rules for sockets: `tcp ns.example.com:53`, `udp 10.0.0.0/8:623`, `tcp [2001:db8::1]:22`.

use std::net::{IpAddr, SocketAddr};

use super::PatternError;
use super::host::HostPattern;
use super::port::Ports;

/// TCP or UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    /// `tcp` or `udp`, as in policies.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    /// Reads `tcp` or `udp`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "tcp" => Some(Self::Tcp),
            "udp" => Some(Self::Udp),
            _ => None,
        }
    }
}

impl std::fmt::Display for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}

/// One line of a sockets grant: where a plugin may connect or send to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketRule {
    /// The protocol.
    pub transport: Transport,
    /// The other side.
    pub host: HostPattern,
    /// Its ports.
    pub ports: Ports,
}

impl SocketRule {
    /// Parses `PROTOCOL HOST:PORT`.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        const SHAPE: &str = "for example `tcp 192.0.2.1:53` or `udp ns.example.com:53`";
        let wrong = |problem: &str| PatternError::new(text, problem).help(SHAPE);
        let (protocol, place) = text
            .split_once(' ')
            .ok_or_else(|| wrong("lacks the protocol"))?;
        let transport = Transport::parse(protocol)
            .ok_or_else(|| wrong("begins with neither `tcp` nor `udp`"))?;
        let (host, port) =
            split_host_port(place.trim_start()).ok_or_else(|| wrong("lacks the port"))?;
        let whole = |mut error: PatternError| {
            error.problem = format!("`{}` {}", error.text, error.problem);
            error.text = text.to_owned();
            error
        };
        Ok(Self {
            transport,
            host: HostPattern::parse(host).map_err(whole)?,
            ports: Ports::parse(port).map_err(whole)?,
        })
    }

    /// Whether the rule covers an address by itself, without a name.
    #[must_use]
    pub fn covers_address(&self, transport: Transport, ip: IpAddr, port: u16) -> bool {
        self.transport == transport && self.ports.covers(port) && self.host.covers_address(ip)
    }

    /// Whether the rule covers a name in its one form.
    #[must_use]
    pub fn covers_name(&self, transport: Transport, name: &str, port: u16) -> bool {
        self.transport == transport && self.ports.covers(port) && self.host.covers_name(name)
    }
}

impl std::fmt::Display for SocketRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}:{}", self.transport, self.host, self.ports)
    }
}

/// One socket that the host holds for a plugin: `udp 0.0.0.0:67`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenSocket {
    /// The protocol.
    pub transport: Transport,
    /// Where the host listens. The unspecified address means every address of its family.
    pub address: SocketAddr,
}

impl ListenSocket {
    /// Parses `PROTOCOL ADDRESS:PORT`.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let wrong = |problem: &str| {
            PatternError::new(text, problem).help("for example `udp 0.0.0.0:69` or `tcp [::]:7911`")
        };
        let (protocol, place) = text
            .split_once(' ')
            .ok_or_else(|| wrong("lacks the protocol"))?;
        let transport = Transport::parse(protocol)
            .ok_or_else(|| wrong("begins with neither `tcp` nor `udp`"))?;
        let address = place
            .trim_start()
            .parse()
            .map_err(|_| wrong("is not an address with a port"))?;
        Ok(Self { transport, address })
    }
}

impl std::fmt::Display for ListenSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.transport, self.address)
    }
}

/// Splits at the last colon outside brackets.
pub(crate) fn split_host_port(text: &str) -> Option<(&str, &str)> {
    let (host, port) = text.rsplit_once(':')?;
    let bracketed = host.starts_with('[') && host.ends_with(']');
    (!host.is_empty() && (bracketed || !host.contains(':'))).then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_written_as_they_are_read() {
        for text in [
            "tcp 192.0.2.1:53",
            "udp ns.example.com:53",
            "tcp [2001:db8::/32]:22",
            "udp 10.0.0.0/8:623",
            "tcp *:5000-5010",
        ] {
            assert_eq!(SocketRule::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn malformed_rules_name_the_mistake() {
        for (text, problem) in [
            ("192.0.2.1:53", "lacks the protocol"),
            ("sctp 192.0.2.1:53", "begins with neither `tcp` nor `udp`"),
            ("tcp 192.0.2.1", "lacks the port"),
            ("tcp 2001:db8::1:53", "lacks the port"),
            ("tcp 192.0.2.1:0", "`0` is not a port"),
            ("tcp host name:5", "`host name` is not a host"),
        ] {
            assert_eq!(
                SocketRule::parse(text).unwrap_err().problem,
                problem,
                "{text}"
            );
        }
    }

    #[test]
    fn transport_and_port_both_count() {
        let rule = SocketRule::parse("udp 192.0.2.1:53").unwrap();
        let ip = "192.0.2.1".parse().unwrap();
        assert!(rule.covers_address(Transport::Udp, ip, 53));
        assert!(!rule.covers_address(Transport::Tcp, ip, 53));
        assert!(!rule.covers_address(Transport::Udp, ip, 54));
    }
}
