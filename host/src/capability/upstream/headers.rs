//! Headers between a plugin and an upstream.
//!
//! It refuses what would let a plugin speak for the host: framing and connection headers (request smuggling), `host`, everything
//! that claims who the client is (`forwarded`, `x-forwarded-*`, `x-real-ip`), and names with `_`, which many servers fold into `-`
//! (`x_forwarded_for`). These are dropped without a word, since plugins pass on what clients sent.

use std::net::IpAddr;

use http::header::{CONTENT_LENGTH, HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::sandbox::bindings::types::{Headers, UpstreamError};

/// The most headers a plugin may send: what common servers take is 100.
const MAX_COUNT: usize = 100;

/// The most bytes of names and values: what common servers take is 8 to 64 KiB.
const MAX_BYTES: usize = 32 * 1024;

/// Headers of one hop (RFC 9110 section 7.6.1), never passed on in either direction.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Set by the host alone, or claims about the client that only the host may make; and `proxy`, which is no header of HTTP and which CGI programs
/// take for the setting `HTTP_PROXY`.
const HOSTS_OWN: [&str; 11] = [
    "host",
    "content-length",
    "expect",
    "http2-settings",
    "forwarded",
    "x-forwarded",
    "x-real-ip",
    "x-client-ip",
    "x-request-id",
    "x-original-url",
    "proxy",
];

/// What the host tells the upstream about the request that is being served.
#[derive(Debug, Clone, Default)]
pub struct Via {
    /// Sent as `x-request-id`.
    pub request_id: Option<String>,
    /// The client's address, sent as `x-forwarded-for`. None: nothing is said about a client.
    pub client: Option<IpAddr>,
}

/// The headers of a request: the plugin's, without those that are not its own, and the host's.
pub(super) fn of_request(
    from_plugin: &Headers,
    authority: &str,
    via: &Via,
) -> Result<HeaderMap, UpstreamError> {
    let wrong = |text: String| UpstreamError::Protocol(text);
    let bytes = from_plugin.iter().fold(0usize, |sum, (name, value)| {
        sum.saturating_add(name.len()).saturating_add(value.len())
    });
    if from_plugin.len() > MAX_COUNT || bytes > MAX_BYTES {
        return Err(wrong(format!(
            "{} request headers of {bytes} bytes, allowed are {MAX_COUNT} of {MAX_BYTES}",
            from_plugin.len()
        )));
    }
    let named_by_connection = connection_names(from_plugin);
    let mut headers = HeaderMap::with_capacity(from_plugin.len() + 4);
    for (name, value) in from_plugin {
        let parsed = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| wrong(format!("{:?} is not a header name", cut(name))))?;
        if is_the_hosts(parsed.as_str())
            || named_by_connection
                .iter()
                .any(|named| named == parsed.as_str())
        {
            continue;
        }
        let value = HeaderValue::from_str(value).map_err(|_| {
            wrong(format!(
                "the value of header {parsed} holds control characters"
            ))
        })?;
        headers.append(parsed, value);
    }
    headers.insert(
        HOST,
        HeaderValue::from_str(authority)
            .map_err(|_| wrong("the upstream's name cannot be sent".into()))?,
    );
    headers
        .entry(USER_AGENT)
        .or_insert(HeaderValue::from_static(concat!(
            "Bulkhead/",
            env!("CARGO_PKG_VERSION")
        )));
    if let Some(id) = via
        .request_id
        .as_deref()
        .and_then(|id| HeaderValue::from_str(id).ok())
    {
        headers.insert(HeaderName::from_static("x-request-id"), id);
    }
    if let Some(client) = via
        .client
        .and_then(|client| HeaderValue::from_str(&client.to_canonical().to_string()).ok())
    {
        headers.insert(HeaderName::from_static("x-forwarded-for"), client);
    }
    Ok(headers)
}

/// The headers of an answer without those of the hop.
pub(super) fn of_answer(mut headers: HeaderMap) -> HeaderMap {
    let named: Vec<String> = headers
        .get_all(http::header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        // What follows is the answer's own, whatever the server claims.
        .filter(|name| name != CONTENT_LENGTH.as_str())
        .collect();
    for name in HOP_BY_HOP
        .iter()
        .copied()
        .chain(named.iter().map(String::as_str))
    {
        headers.remove(name);
    }
    headers
}

/// In the contract's form: names in lower case, values that are UTF-8.
pub fn to_list(headers: &HeaderMap) -> Headers {
    let text = |(name, value): (&HeaderName, &HeaderValue)| {
        Some((
            name.as_str().to_owned(),
            std::str::from_utf8(value.as_bytes()).ok()?.to_owned(),
        ))
    };
    headers.iter().filter_map(text).collect()
}

fn is_the_hosts(name: &str) -> bool {
    name.contains('_')
        || name.starts_with("x-forwarded-")
        || name.starts_with("proxy-")
        || HOP_BY_HOP.contains(&name)
        || HOSTS_OWN.contains(&name)
}

fn connection_names(headers: &Headers) -> Vec<String> {
    let connection = headers
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("connection"));
    connection
        .flat_map(|(_, value)| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect()
}

fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(headers: &[(&str, &str)]) -> Headers {
        headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn headers_that_speak_for_the_host_are_dropped() {
        let sent = list(&[
            ("Host", "evil"),
            ("Content-Length", "7"),
            ("transfer-encoding", "chunked"),
            ("Connection", "close, X-Secret"),
            ("x-secret", "1"),
            ("x-forwarded-for", "10.0.0.1"),
            ("X-Forwarded-Host", "evil"),
            ("x_forwarded_for", "10.0.0.1"),
            ("Forwarded", "for=10.0.0.1"),
            ("x-request-id", "forged"),
            ("Proxy", "http://10.0.0.1:3128"),
            ("proxy-authorization", "x"),
            ("te", "trailers"),
            ("Accept", "text/plain"),
            ("x-rhn-provisioning-mac-0", "eth0 aa"),
        ]);
        let via = Via {
            request_id: Some("id-1".into()),
            client: Some("::ffff:192.0.2.9".parse().unwrap()),
        };
        let headers = of_request(&sent, "foreman.example.com", &via).unwrap();
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "accept",
                "host",
                "user-agent",
                "x-forwarded-for",
                "x-request-id",
                "x-rhn-provisioning-mac-0"
            ]
        );
        assert_eq!(headers["host"], "foreman.example.com");
        assert_eq!(headers["x-forwarded-for"], "192.0.2.9");
        assert_eq!(headers["x-request-id"], "id-1");
    }

    #[test]
    fn header_injection_is_refused() {
        for (name, value) in [
            ("a b", "x"),
            ("", "x"),
            ("a\r\nb", "x"),
            ("a", "x\r\nhost: evil"),
            ("a", "x\0"),
        ] {
            assert!(
                of_request(&list(&[(name, value)]), "h", &Via::default()).is_err(),
                "{name:?}: {value:?}"
            );
        }
    }

    #[test]
    fn too_many_or_too_large_headers_are_refused() {
        let many: Headers = (0..=MAX_COUNT)
            .map(|n| (format!("h{n}"), String::new()))
            .collect();
        assert!(of_request(&many, "h", &Via::default()).is_err());
        assert!(
            of_request(
                &list(&[("a", &"x".repeat(MAX_BYTES))]),
                "h",
                &Via::default()
            )
            .is_err()
        );
    }

    #[test]
    fn answers_lose_the_headers_of_the_hop() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, x-hop, content-length"),
            ("x-hop", "1"),
            ("transfer-encoding", "chunked"),
            ("content-length", "3"),
            ("etag", "x"),
            ("keep-alive", "5"),
        ] {
            headers.append(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        let mut left: Vec<_> = of_answer(headers).keys().map(ToString::to_string).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-length", "etag"]);
    }
}
