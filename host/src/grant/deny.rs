//! What the operator forbids to every plugin. It always wins over every policy.
//!
//! Built in: link-local and metadata addresses, multicast, broadcast, unspecified and reserved addresses, the host's own
//! listeners, and for files the state, plugin and policy directories. `[deny]` in `proxy.toml` adds networks and ports.
//! Private and loopback addresses are no matter of this module: a policy can reach them, but only in so many words.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use super::matchers::address::{AddressClass, class, embedded};
use super::matchers::port::Ports;

/// The rules that hold for all plugins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deny {
    /// Networks no plugin reaches.
    pub networks: Vec<IpNet>,
    /// Ports no plugin reaches.
    pub ports: Vec<Ports>,
    /// Where the host itself listens for HTTP.
    pub listeners: Vec<SocketAddr>,
    /// Directories and files that no grant may lie in or hold.
    pub paths: Vec<PathBuf>,
    /// Below [`Self::paths`], but free to be granted: where the trial keeps the plugins' directories.
    pub free_paths: Vec<PathBuf>,
}

/// Why the operator's rules forbid something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forbidden {
    /// `built-in`, or the key in `proxy.toml`.
    pub rule: String,
    /// A sentence without capital and full stop.
    pub reason: String,
}

impl Deny {
    /// Whether a destination is forbidden. Allocates only when it is.
    #[must_use]
    pub fn destination(&self, ip: IpAddr, port: u16) -> Option<Forbidden> {
        let ip = ip.to_canonical();
        let inner = embedded(ip).map(IpAddr::V4);
        for (address, carried) in [(Some(ip), false), (inner, true)] {
            let Some(address) = address else { continue };
            if let Some(found) = self.address(address) {
                return Some(if carried { found.carried_by(ip) } else { found });
            }
            if self.is_listener(address, port) {
                return Some(Forbidden::built_in(format!(
                    "{} is a listener of this host",
                    SocketAddr::new(address, port)
                )));
            }
        }
        let ports = self.ports.iter().find(|ports| ports.covers(port))?;
        Some(Forbidden {
            rule: "deny.ports".to_owned(),
            reason: format!("port {port} is denied to all plugins (`{ports}`)"),
        })
    }

    fn address(&self, ip: IpAddr) -> Option<Forbidden> {
        let kind = class(ip);
        match kind {
            AddressClass::Global | AddressClass::Private | AddressClass::Loopback => {
                self.network(ip)
            }
            AddressClass::LinkLocal
            | AddressClass::Metadata
            | AddressClass::Multicast
            | AddressClass::Broadcast
            | AddressClass::Unspecified
            | AddressClass::Reserved => {
                Some(Forbidden::built_in(format!("{ip} is {}", kind.words())))
            }
        }
    }

    /// Whether `[deny]` forbids an address; the built-in classes are not looked at. For answers to peers that asked first,
    /// where link-local and broadcast addresses are ordinary.
    #[must_use]
    pub fn network(&self, ip: IpAddr) -> Option<Forbidden> {
        let net = self
            .networks
            .iter()
            .find(|net| net.contains(&ip.to_canonical()))?;
        Some(Forbidden {
            rule: "deny.networks".to_owned(),
            reason: format!("{ip} lies in `{net}`, which is denied to all plugins"),
        })
    }

    fn is_listener(&self, ip: IpAddr, port: u16) -> bool {
        self.listeners.iter().any(|own| {
            let address = own.ip().to_canonical();
            own.port() == port
                && (address == ip
                    || (address.is_unspecified() && is_local(ip))
                    || (address.is_loopback() && ip.is_loopback()))
        })
    }

    /// Whether a path may not be granted, because it lies in a protected one or holds one. Paths are compared as they are:
    /// resolve links first.
    #[must_use]
    pub fn path(&self, path: &Path) -> Option<Forbidden> {
        if self.free_paths.iter().any(|free| path.starts_with(free)) {
            return None;
        }
        let own = self
            .paths
            .iter()
            .find(|own| path.starts_with(own) || own.starts_with(path))?;
        Some(Forbidden::built_in(format!(
            "{} belongs to the host itself",
            own.display()
        )))
    }
}

/// Whether an address is one of this machine's, found by binding to it. Only asked when the port is that of a listener on all
/// addresses, hence rare. A machine that may bind to foreign addresses refuses too much, never too little.
fn is_local(ip: IpAddr) -> bool {
    ip.is_loopback() || UdpSocket::bind((ip, 0)).is_ok()
}

impl Forbidden {
    fn built_in(reason: String) -> Self {
        Self {
            rule: "built-in".to_owned(),
            reason,
        }
    }

    fn carried_by(self, outer: IpAddr) -> Self {
        Self {
            reason: format!("{} (carried by {outer})", self.reason),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(deny: &Deny, ip: &str, port: u16) -> Option<String> {
        deny.destination(ip.parse().unwrap(), port)
            .map(|found| found.reason)
    }

    #[test]
    fn built_in_ranges_are_always_denied() {
        let deny = Deny::default();
        for ip in [
            "169.254.169.254",
            "fd00:ec2::254",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "fe80::1",
            "224.0.0.1",
            "0.0.0.0",
            "::",
            "255.255.255.255",
        ] {
            assert!(reason(&deny, ip, 80).is_some(), "{ip}");
        }
        for ip in ["192.0.2.1", "10.0.0.1", "127.0.0.1", "::1", "2001:db8::1"] {
            assert_eq!(reason(&deny, ip, 80), None, "{ip}");
        }
    }

    #[test]
    fn own_listeners_are_denied_by_every_local_address() {
        let deny = Deny {
            listeners: vec![
                "0.0.0.0:8443".parse().unwrap(),
                "127.0.0.1:9180".parse().unwrap(),
            ],
            ..Deny::default()
        };
        assert!(reason(&deny, "127.0.0.1", 8443).is_some());
        assert!(reason(&deny, "127.0.0.2", 9180).is_some());
        assert!(reason(&deny, "::ffff:127.0.0.1", 8443).is_some());
        assert_eq!(reason(&deny, "127.0.0.1", 8444), None);
        assert_eq!(reason(&deny, "192.0.2.1", 8443), None);
    }

    #[test]
    fn networks_and_ports_of_the_operator_are_denied() {
        let deny = Deny {
            networks: vec!["192.0.2.0/24".parse().unwrap()],
            ports: vec![Ports::one(25)],
            ..Deny::default()
        };
        assert_eq!(
            reason(&deny, "192.0.2.9", 80).unwrap(),
            "192.0.2.9 lies in `192.0.2.0/24`, which is denied to all plugins"
        );
        assert_eq!(
            reason(&deny, "198.51.100.1", 25).unwrap(),
            "port 25 is denied to all plugins (`25`)"
        );
        assert_eq!(reason(&deny, "198.51.100.1", 26), None);
    }

    #[test]
    fn protected_paths_cannot_be_granted_from_inside_or_above() {
        let deny = Deny {
            paths: vec!["/var/lib/bulkhead".into()],
            free_paths: vec!["/var/lib/bulkhead/trees".into()],
            ..Deny::default()
        };
        for (path, denied) in [
            ("/var/lib/bulkhead", true),
            ("/var/lib/bulkhead/tls", true),
            ("/var/lib", true),
            ("/", true),
            ("/var/lib/bulkhead-other", false),
            ("/var/lib/bulkhead/trees/tftp", false),
            ("/srv/tftp", false),
        ] {
            assert_eq!(deny.path(Path::new(path)).is_some(), denied, "{path}");
        }
    }
}
