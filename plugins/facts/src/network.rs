//! Names, interfaces and addresses, from what the kernel shows below `/proc/net`.
//!
//! The kernel lists its IPv4 addresses without their interfaces; an address belongs to the interface that has a route to its network.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::{Map, Value, json};

use crate::devices::Devices;

/// An address with the mask of its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Address {
    ip: Ipv4Addr,
    mask: Ipv4Addr,
}

/// A row of `/proc/net/route`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Route {
    interface: String,
    network: u32,
    mask: u32,
    has_gateway: bool,
    metric: u32,
}

/// Adds the facts of names and networks. `read`: the text of a slot.
pub(crate) fn tell(
    facts: &mut Map<String, Value>,
    devices: &Devices,
    read: impl Fn(&str) -> String,
) {
    let names = names(&read("hostname"), &read("hosts"), &read("resolver"));
    let routes = routes(&read("routes"));
    let primary = primary(&routes);
    let v4 = by_interface(&addresses(&read("addresses")), &routes);
    let v6 = addresses6(&read("addresses6"));
    let mut shown = Map::new();
    let known = interfaces(&read("interfaces"));
    for name in &known {
        let mut of = Map::new();
        let flat = name.replace(['-', ':', '.'], "_");
        let mut put = |key: &str, older: &str, value: Option<String>| {
            if let Some(value) = value {
                facts.insert(format!("{older}_{flat}"), json!(value));
                if primary.as_ref() == Some(name) {
                    facts.insert(older.to_owned(), json!(value));
                }
                of.insert(key.to_owned(), json!(value));
            }
        };
        let address = v4.get(name);
        put("ip", "ipaddress", address.map(|it| it.ip.to_string()));
        put("netmask", "netmask", address.map(|it| it.mask.to_string()));
        let network = address.map(|it| (it.ip & it.mask).to_string());
        put("network", "network", network);
        put("ip6", "ipaddress6", v6.get(name).map(ToString::to_string));
        put("mac", "macaddress", devices.addresses.get(name).cloned());
        shown.insert(name.clone(), Value::Object(of));
    }
    let mut networking = Map::new();
    for (key, value) in &names {
        facts.insert((*key).to_owned(), json!(value));
        networking.insert((*key).to_owned(), json!(value));
    }
    if let Some(Value::Object(of)) = primary.as_ref().and_then(|name| shown.get(name)) {
        networking.extend(of.clone());
    }
    if let Some(primary) = primary {
        networking.insert("primary".to_owned(), json!(primary));
    }
    networking.insert("interfaces".to_owned(), Value::Object(shown));
    facts.insert("networking".to_owned(), Value::Object(networking));
    facts.insert("interfaces".to_owned(), json!(known.join(",")));
}

/// `hostname`, `domain`, `fqdn`, as far as they are known.
fn names(hostname: &str, hosts: &str, resolver: &str) -> BTreeMap<&'static str, String> {
    let given = hostname.trim();
    if given.is_empty() {
        return BTreeMap::new();
    }
    let short = given.split('.').next().unwrap_or(given);
    let full = |name: &str| {
        let domain = name.strip_prefix(short)?.strip_prefix('.')?;
        Some(domain.to_owned()).filter(|domain| !domain.is_empty())
    };
    let in_hosts = || {
        let words = |line: &str| -> Vec<String> {
            let line = line.split('#').next().unwrap_or_default();
            line.split_whitespace().skip(1).map(str::to_owned).collect()
        };
        hosts.lines().flat_map(words).find_map(|name| full(&name))
    };
    let in_resolver = || {
        let words = |line: &str| {
            let mut words = line.split_whitespace();
            let known = matches!(words.next(), Some("domain" | "search"));
            words
                .next()
                .filter(|_| known)
                .map(|it| it.trim_end_matches('.').to_owned())
        };
        resolver.lines().find_map(words).filter(|it| !it.is_empty())
    };
    let mut names = BTreeMap::from([("hostname", short.to_owned())]);
    match full(given).or_else(in_hosts).or_else(in_resolver) {
        Some(domain) => {
            names.insert("fqdn", format!("{short}.{domain}"));
            names.insert("domain", domain);
        }
        None => {
            names.insert("fqdn", short.to_owned());
        }
    }
    names
}

/// `/proc/net/dev`: two lines of head, then `NAME: numbers`.
fn interfaces(text: &str) -> Vec<String> {
    let names = text
        .lines()
        .skip(2)
        .filter_map(|line| line.rsplit_once(": "));
    // A name may hold colons, numbers do not.
    let mut names: Vec<String> = names
        .map(|(name, _)| name.split(": ").next().unwrap_or(name).trim().to_owned())
        .collect();
    names.sort_unstable();
    names
}

/// `/proc/net/route`: numbers in hexadecimal, in the byte order of the machine, which is the one of every machine this is built for.
fn routes(text: &str) -> Vec<Route> {
    let number = |word: &str| u32::from_str_radix(word, 16).ok().map(u32::swap_bytes);
    let row = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        Some(Route {
            interface: (*words.first()?).to_owned(),
            network: number(words.get(1)?)?,
            has_gateway: number(words.get(2)?)? != 0,
            metric: words.get(6)?.parse().ok()?,
            mask: number(words.get(7)?)?,
        })
    };
    text.lines().skip(1).filter_map(row).collect()
}

/// The interface of the default route; of several the one with the least metric.
fn primary(routes: &[Route]) -> Option<String> {
    let default = routes.iter().filter(|route| route.mask == 0);
    default
        .min_by_key(|route| route.metric)
        .map(|route| route.interface.clone())
}

/// `/proc/net/fib_trie`: an address of the machine is a line `|-- ADDRESS` that a line `/32 host LOCAL` follows.
fn addresses(text: &str) -> Vec<Ipv4Addr> {
    let mut found = Vec::new();
    let mut last = None;
    for line in text.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok();
        } else if line.starts_with("/32 host LOCAL")
            && let Some(address) = last
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
    found
}

/// Each interface's first address.
fn by_interface(addresses: &[Ipv4Addr], routes: &[Route]) -> BTreeMap<String, Address> {
    let mut found = BTreeMap::new();
    for &ip in addresses {
        let (interface, mask) = if ip.is_loopback() {
            ("lo".to_owned(), 0xff00_0000)
        } else {
            let direct = routes.iter().filter(|route| {
                !route.has_gateway && route.mask != 0 && u32::from(ip) & route.mask == route.network
            });
            match direct.max_by_key(|route| route.mask) {
                Some(route) => (route.interface.clone(), route.mask),
                None => continue,
            }
        };
        let mask = Ipv4Addr::from(mask);
        found.entry(interface).or_insert(Address { ip, mask });
    }
    found
}

/// `/proc/net/if_inet6`: address, index, prefix, scope, flags, name. Each interface's widest address: a global one before a link-local.
fn addresses6(text: &str) -> BTreeMap<String, Ipv6Addr> {
    let row = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let bits = u128::from_str_radix(words.first()?, 16).ok()?;
        let scope = u32::from_str_radix(words.get(3)?, 16).ok()?;
        Some((
            scope,
            (*words.get(5)?).to_owned(),
            Ipv6Addr::from_bits(bits),
        ))
    };
    let mut rows: Vec<_> = text.lines().filter_map(row).collect();
    // 0 is global, 0x20 link-local.
    rows.sort_by_key(|(scope, _, _)| *scope);
    let mut found = BTreeMap::new();
    for (_, name, address) in rows {
        found.entry(name).or_insert(address);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRIE: &str = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 192.0.2.0\n        /24 link UNICAST\nLocal:\n\
        \x20 +-- 0.0.0.0/0 3 0 5\n     |-- 127.0.0.1\n        /32 host LOCAL\n     |-- 192.0.2.7\n        /32 host LOCAL\n\
        \x20    |-- 192.0.2.255\n        /32 link BROADCAST\n     |-- 198.51.100.1\n        /32 host LOCAL\n";
    const ROUTES: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
        wlan0\t00000000\t010200C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n\
        eth0\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
        eth0\t000200C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n";

    #[test]
    fn an_address_belongs_to_the_interface_that_reaches_its_network() {
        let routes = routes(ROUTES);
        assert_eq!(primary(&routes), Some("eth0".to_owned()));
        let found = by_interface(&addresses(TRIE), &routes);
        let shown: Vec<_> = found
            .iter()
            .map(|(name, it)| format!("{name} {} {}", it.ip, it.mask))
            .collect();
        // Nothing leads to 198.51.100.0: nobody knows whose address that is.
        assert_eq!(
            shown,
            ["eth0 192.0.2.7 255.255.255.0", "lo 127.0.0.1 255.0.0.0"]
        );
    }

    #[test]
    fn names_come_from_the_nearest_place_that_has_them() {
        let shown = |hostname, hosts, resolver| {
            let names = names(hostname, hosts, resolver);
            ["hostname", "domain", "fqdn"].map(|key| names.get(key).cloned().unwrap_or_default())
        };
        let hosts = "127.0.0.1 localhost\n192.0.2.7 web.example.com web # own\n";
        assert_eq!(
            shown("web\n", hosts, ""),
            ["web", "example.com", "web.example.com"]
        );
        assert_eq!(
            shown("web.example.org\n", hosts, ""),
            ["web", "example.org", "web.example.org"]
        );
        assert_eq!(
            shown(
                "db\n",
                hosts,
                "nameserver 192.0.2.1\nsearch example.net. x\n"
            ),
            ["db", "example.net", "db.example.net"]
        );
        assert_eq!(shown("db", "", ""), ["db", "", "db"]);
        assert_eq!(shown("", hosts, ""), ["", "", ""]);
    }

    #[test]
    fn the_widest_address_of_ipv6_is_shown() {
        let text = "fe80000000000000000000fffe000001 02 40 20 80     eth0\n\
            20010db8000000000000000000000001 02 40 00 80     eth0\n\
            00000000000000000000000000000001 01 80 10 80       lo\n";
        let found = addresses6(text);
        assert_eq!(found["eth0"].to_string(), "2001:db8::1");
        assert_eq!(found["lo"].to_string(), "::1");
    }

    #[test]
    fn interfaces_are_named_and_junk_is_not_an_error() {
        let text = "Inter-|   Receive\n face |bytes\n    lo: 1 2 3\n  eth0: 4 5\neth0.7: 1\n";
        assert_eq!(interfaces(text), ["eth0", "eth0.7", "lo"]);
        for junk in [
            "",
            "x",
            "\n\n:\n",
            "|-- x\n/32 host LOCAL\n",
            "a b c d e f g h i\n\n",
        ] {
            let mut facts = Map::new();
            tell(&mut facts, &Devices::default(), |_| junk.to_owned());
            assert!(facts.contains_key("networking"));
        }
    }
}
