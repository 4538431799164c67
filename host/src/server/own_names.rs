//! The guard of trial listeners: a web page in the administrator's browser must not reach a proxy on loopback.
//!
//! It refuses a request whose `Host` is not one of the listener's own names with its port (a page that rebinds its name to 127.0.0.1), and one
//! whose `Origin` or `Sec-Fetch-Site` says that another site's page sent it. Programs send neither and pass.

use std::collections::BTreeSet;

use http::header::{self, HeaderMap, HeaderName};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Names under which a listener may be called, lower case, without port; IPv6 addresses in brackets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnNames(BTreeSet<String>);

impl OwnNames {
    /// Loopback by name and address, and those given beside them.
    pub fn loopback_and(names: impl IntoIterator<Item = String>) -> Self {
        let loopback = ["localhost", "127.0.0.1", "[::1]"]
            .into_iter()
            .map(str::to_owned);
        Self(
            loopback
                .chain(names)
                .map(|name| name.to_ascii_lowercase())
                .collect(),
        )
    }

    /// Whether the request names this listener and comes from no foreign page. `host`: host and port as sent.
    pub(super) fn admit(
        &self,
        host: Option<&str>,
        headers: &HeaderMap,
        scheme: &str,
        port: u16,
    ) -> bool {
        let own_host = host.is_some_and(|host| self.is_own(host, scheme, port));
        let own_origin = headers.get_all(header::ORIGIN).iter().all(|origin| {
            let origin = origin.to_str().unwrap_or_default();
            let host = origin
                .strip_prefix(scheme)
                .and_then(|rest| rest.strip_prefix("://"));
            host.is_some_and(|host| self.is_own(host, scheme, port))
        });
        let same_site = headers
            .get_all(SEC_FETCH_SITE)
            .iter()
            .all(|site| matches!(site.as_bytes(), b"same-origin" | b"none"));
        own_host && own_origin && same_site
    }

    fn is_own(&self, host: &str, scheme: &str, port: u16) -> bool {
        let (name, given) = split_port(host);
        let default = if scheme == "https" { 443 } else { 80 };
        let given = if given.is_empty() {
            Some(default)
        } else {
            given.parse::<u16>().ok()
        };
        given == Some(port) && self.0.contains(&name.to_ascii_lowercase())
    }
}

/// Splits `host:port`; the port is empty when there is none. Brackets of IPv6 addresses stay.
pub(super) fn split_port(host: &str) -> (&str, &str) {
    match host.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => (name, port),
        _ => (host, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn admit(host: &str, pairs: &[(&'static str, &'static str)]) -> bool {
        let headers = pairs.iter().map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        });
        OwnNames::loopback_and(["Box.example.com".to_owned()]).admit(
            Some(host),
            &headers.collect(),
            "http",
            8000,
        )
    }

    #[test]
    fn own_names_pass() {
        for host in [
            "localhost:8000",
            "127.0.0.1:8000",
            "[::1]:8000",
            "LOCALHOST:8000",
            "box.example.com:8000",
        ] {
            assert!(admit(host, &[]), "{host}");
        }
        assert!(admit(
            "localhost:8000",
            &[
                ("origin", "http://localhost:8000"),
                ("sec-fetch-site", "same-origin")
            ]
        ));
    }

    #[test]
    fn foreign_names_and_pages_are_refused() {
        for host in [
            "evil.example.net:8000",
            "localhost",
            "localhost:8001",
            "localhost:",
            "localhost.evil.net:8000",
            "",
            "::1:8000",
            "[::1]",
        ] {
            assert!(!admit(host, &[]), "{host}");
        }
        for origin in [
            "http://evil.example.net",
            "null",
            "http://localhost:3000",
            "https://localhost:8000",
            "",
        ] {
            assert!(!admit("localhost:8000", &[("origin", origin)]), "{origin}");
        }
        assert!(!admit(
            "localhost:8000",
            &[("sec-fetch-site", "cross-site")]
        ));
        assert!(!OwnNames::loopback_and([]).admit(None, &HeaderMap::new(), "http", 8000));
    }
}
