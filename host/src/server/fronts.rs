//! Trusted fronts: reverse proxies (Apache, HAProxy) that the operator named and whose word about the client's address counts.
//!
//! It refuses everybody else's word: forwarding headers are removed from every request, and look-alikes with `_` for `-` (which CGI-style
//! programs read as the same header) never pass. A front vouches for an address, a scheme and a host name; never for a certificate.
//!
//! The one idea: addresses in `X-Forwarded-For` are read from the right, the end our own front wrote, and only as far as the
//! writers are fronts themselves. What a client put to the left of that is never believed.

use std::net::{IpAddr, SocketAddr};

use http::header::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Names (beside all that begin with `x-forwarded-`) by which some program tells another who its client is.
const FORWARDING: [&str; 13] = [
    "forwarded",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-original-forwarded-for",
    "x-original-host",
    "x-original-url",
    "x-rewrite-url",
    "x-remote-addr",
    "x-remote-user",
    "true-client-ip",
    "client-ip",
    "via",
];
/// Prefixes of names by which fronts pass on TLS client certificates. No front is believed about those.
const CERTIFICATE_PREFIXES: [&str; 4] = ["ssl-", "x-ssl-", "x-client-cert", "x-client-verify"];

/// The addresses of the fronts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fronts(Vec<IpNet>);

/// Who a request is from, as far as fronts said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forwarded {
    /// The client's address.
    pub address: IpAddr,
    /// True: the request came through a front.
    pub fronted: bool,
    /// The scheme the client used, if a front said so.
    pub scheme: Option<&'static str>,
    /// The host (and port) the client asked for, if a front said so.
    pub host: Option<HeaderValue>,
}

impl Fronts {
    /// Fronts by address or network.
    pub fn new(fronts: Vec<IpNet>) -> Self {
        Self(fronts)
    }

    /// Whether that address is a front.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|front| front.contains(&address))
    }

    /// Removes every forwarding header from the request and says who sent it.
    pub fn take(&self, peer: IpAddr, headers: &mut HeaderMap) -> Forwarded {
        let peer = peer.to_canonical();
        let mut forwarded = Forwarded {
            address: peer,
            fronted: false,
            scheme: None,
            host: None,
        };
        if self.contains(peer) {
            if let Some(address) = self.client(headers) {
                forwarded.address = address;
                forwarded.fronted = true;
            }
            forwarded.scheme = last_word(headers, &X_FORWARDED_PROTO).and_then(|word| match word {
                word if word.eq_ignore_ascii_case("https") => Some("https"),
                word if word.eq_ignore_ascii_case("http") => Some("http"),
                _ => None,
            });
            forwarded.host = last_word(headers, &X_FORWARDED_HOST)
                .and_then(|word| HeaderValue::from_str(word).ok());
        }
        drop_forwarding(headers);
        forwarded
    }

    /// The rightmost address that is not a front; if all are, the leftmost. None: there is none, or the rightmost is unreadable.
    fn client(&self, headers: &HeaderMap) -> Option<IpAddr> {
        let lines: Vec<&str> = headers
            .get_all(X_FORWARDED_FOR)
            .iter()
            .map_while(|value| value.to_str().ok())
            .collect();
        let mut client = None;
        for line in lines.iter().rev() {
            for word in line.rsplit(',') {
                let Some(address) = parse_address(word.trim()) else {
                    return client;
                };
                client = Some(address);
                if !self.contains(address) {
                    return client;
                }
            }
        }
        client
    }
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn parse_address(word: &str) -> Option<IpAddr> {
    let bare = word
        .strip_prefix('[')
        .and_then(|word| word.strip_suffix(']'))
        .unwrap_or(word);
    let address = bare
        .parse::<IpAddr>()
        .or_else(|_| word.parse::<SocketAddr>().map(|socket| socket.ip()));
    address.ok().map(|address| address.to_canonical())
}

/// The last of a comma-separated list: what the front nearest to us wrote.
fn last_word<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let last = headers.get_all(name).iter().next_back()?.to_str().ok()?;
    last.rsplit(',')
        .next()
        .map(str::trim)
        .filter(|word| !word.is_empty())
}

fn drop_forwarding(headers: &mut HeaderMap) {
    // Most requests have none: look before taking the map apart.
    let doomed: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_forwarding(name.as_str()))
        .cloned()
        .collect();
    for name in doomed {
        headers.remove(name);
    }
}

fn is_forwarding(name: &str) -> bool {
    name.contains('_')
        || name.starts_with("x-forwarded-")
        || FORWARDING.contains(&name)
        || CERTIFICATE_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fronts() -> Fronts {
        Fronts::new(vec![
            "192.0.2.10/32".parse().unwrap(),
            "2001:db8:f::/48".parse().unwrap(),
        ])
    }

    fn take(peer: &str, pairs: &[(&'static str, &'static str)]) -> (Forwarded, HeaderMap) {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        let forwarded = fronts().take(peer.parse().unwrap(), &mut headers);
        (forwarded, headers)
    }

    fn address(peer: &str, given: &'static str) -> String {
        take(peer, &[("x-forwarded-for", given)])
            .0
            .address
            .to_string()
    }

    #[test]
    fn strangers_are_not_believed() {
        let (who, headers) = take(
            "198.51.100.7",
            &[
                ("x-forwarded-for", "127.0.0.1"),
                ("x-forwarded-proto", "https"),
                ("forwarded", "for=127.0.0.1"),
            ],
        );
        assert_eq!(who.address.to_string(), "198.51.100.7");
        assert!(!who.fronted && who.scheme.is_none());
        assert!(headers.is_empty());
    }

    #[test]
    fn a_front_names_the_client_and_is_read_from_the_right() {
        assert_eq!(address("192.0.2.10", "203.0.113.5"), "203.0.113.5");
        assert_eq!(
            address("192.0.2.10", "127.0.0.1, 203.0.113.5"),
            "203.0.113.5",
            "what the client wrote is not believed"
        );
        assert_eq!(
            address("192.0.2.10", "127.0.0.1, 203.0.113.5, 2001:db8:f::2"),
            "203.0.113.5",
            "fronts may stand in a row"
        );
        assert_eq!(
            address("::ffff:192.0.2.10", "[2001:db8::5]:4711"),
            "2001:db8::5"
        );
        assert_eq!(address("192.0.2.10", "::ffff:203.0.113.5"), "203.0.113.5");
        assert_eq!(address("192.0.2.10", "203.0.113.5, junk"), "192.0.2.10");
        assert_eq!(
            address("192.0.2.10", "203.0.113.5, junk, 2001:db8:f::2"),
            "2001:db8:f::2"
        );
    }

    #[test]
    fn several_lines_are_one_list() {
        let (who, _) = take(
            "192.0.2.10",
            &[
                ("x-forwarded-for", "203.0.113.1"),
                ("x-forwarded-for", "203.0.113.2"),
            ],
        );
        assert_eq!(who.address.to_string(), "203.0.113.2");
    }

    #[test]
    fn scheme_and_host_come_from_fronts_only() {
        let (who, headers) = take(
            "192.0.2.10",
            &[
                ("x-forwarded-proto", "HTTPS"),
                ("x-forwarded-host", "evil, proxy.example.com"),
            ],
        );
        assert_eq!(who.scheme, Some("https"));
        assert_eq!(who.host.unwrap(), "proxy.example.com");
        assert!(headers.is_empty());
    }

    #[test]
    fn look_alikes_and_certificate_headers_never_pass() {
        for peer in ["192.0.2.10", "198.51.100.7"] {
            let (_, headers) = take(
                peer,
                &[
                    ("x_forwarded_for", "127.0.0.1"),
                    ("x-forwarded_for", "127.0.0.1"),
                    ("remote_user", "root"),
                    ("ssl-client-verify", "SUCCESS"),
                    ("x-ssl-client-dn", "CN=foreman"),
                    ("x-real-ip", "127.0.0.1"),
                    ("accept", "*/*"),
                    ("x-rhn-provisioning-mac-0", "eth0 aa:bb"),
                ],
            );
            let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
            left.sort_unstable();
            assert_eq!(left, ["accept", "x-rhn-provisioning-mac-0"]);
        }
    }
}
