//! Passing a client's request on to an upstream: its headers, and its query with a parameter set.
//!
//! It refuses nothing: what would let a client speak for the proxy (`host`, forwarding headers, look-alikes with `_`) is dropped by the
//! host, on the way in and on the way out.
//!
//! The one idea: what the client wrote goes on as written. A query is taken apart at `&` only, so nested keys (`a[b][]=1`), repeated keys and
//! escapes arrive unchanged. Only what must not stand in a query unescaped, and many clients write all the same, is escaped.

use crate::request::Request;

/// What the Smart Proxy accepts of Foreman itself, before what the client accepts.
const ACCEPT: &str = "*/*, application/json,version=2";

/// Replaced or made anew for the upstream. An encoding would be the client's wish and not the upstream's: bodies go on as they come.
const OWN: [&str; 6] = [
    "accept",
    "accept-encoding",
    "content-length",
    "content-type",
    "host",
    "version",
];

/// The client's headers for the upstream, with `accept` made of the Smart Proxy's and the client's. `content-type` is left to the caller.
#[must_use]
pub fn headers(request: &Request) -> Vec<(String, String)> {
    let accept = match request.header("accept") {
        Some(accept) if !accept.trim().is_empty() => format!("{ACCEPT}, {accept}"),
        _ => ACCEPT.to_owned(),
    };
    let mut headers = vec![("accept".to_owned(), accept)];
    headers.extend(
        request
            .headers()
            .iter()
            .filter(|(name, _)| !OWN.contains(&name.as_str()))
            .cloned(),
    );
    headers
}

/// A query under construction, in the order of its parameters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    pairs: Vec<String>,
}

impl Query {
    /// Takes over the `key=value` pairs of a query or form. A bare key without `=` has no value and is left out.
    #[must_use]
    pub fn of(raw: &str) -> Self {
        let pairs = raw.split('&').filter(|pair| pair.contains('='));
        Self {
            pairs: pairs.map(sendable).collect(),
        }
    }

    /// Appends the pairs of another query.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.pairs.extend(other.pairs);
        self
    }

    /// Drops a parameter, however it is escaped, and everything nested below it.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.pairs.retain(|pair| name_of(pair) != name);
        self
    }

    /// Sets a parameter as the last one; others of that name are dropped.
    #[must_use]
    pub fn with(self, name: &str, value: &str) -> Self {
        let mut this = self.without(name);
        this.pairs
            .push(format!("{}={}", escaped(name), escaped(value)));
        this
    }

    /// `path?query`, or the path alone when nothing is left.
    #[must_use]
    pub fn below(&self, path: &str) -> String {
        if self.pairs.is_empty() {
            path.to_owned()
        } else {
            format!("{path}?{}", self.pairs.join("&"))
        }
    }
}

/// A pair as it may stand in a URL: bytes that RFC 3986 section 3.4 has escaped are, but for `[`, `]`, `{`, `}` and `|`, which every server takes.
fn sendable(pair: &str) -> String {
    let mut written = String::with_capacity(pair.len());
    for byte in pair.bytes() {
        match byte {
            b'"' | b'#' | b'<' | b'>' | b'\\' | b'^' | b'`' => {
                written.push_str(&format!("%{byte:02X}"));
            }
            0x21..=0x7e => written.push(char::from(byte)),
            _ => written.push_str(&format!("%{byte:02X}")),
        }
    }
    written
}

/// The plain name of a pair: unescaped, without what is nested below it.
fn name_of(pair: &str) -> String {
    let key = pair.split('=').next().unwrap_or_default();
    let mut bytes = Vec::with_capacity(key.len());
    let mut rest = key.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let escape = after.get(..2).and_then(|two| {
            let text = std::str::from_utf8(two).ok()?;
            u8::from_str_radix(text, 16).ok()
        });
        match (byte, escape) {
            (b'+', _) => bytes.push(b' '),
            (b'%', Some(escaped)) => {
                bytes.push(escaped);
                rest = after.get(2..).unwrap_or_default();
            }
            _ => bytes.push(byte),
        }
    }
    let name = String::from_utf8_lossy(&bytes).into_owned();
    name.split('[').next().unwrap_or_default().trim().to_owned()
}

/// As a form has it: a space is `+`, everything but letters, digits and `*-._` is `%XX`. Except `~`: escaped or not it means the same (RFC 3986
/// section 2.3), and only the plain one passes where a policy looks at paths.
#[must_use]
pub fn escaped(text: &str) -> String {
    let mut written = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'*' | b'-' | b'.' | b'_' | b'~' => {
                written.push(char::from(byte));
            }
            b' ' => written.push('+'),
            _ => written.push_str(&format!("%{byte:02X}")),
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_replaced_however_it_was_written() {
        for raw in ["url=x", "u%72l=x", "url[a]=x", "url%5Ba%5D=x", "a=1&url="] {
            let query = Query::of(raw).with("url", "https://p:8443/x y");
            assert!(
                query
                    .below("/p")
                    .ends_with("url=https%3A%2F%2Fp%3A8443%2Fx+y"),
                "{raw}"
            );
            assert_eq!(query.below("/p").matches("url").count(), 1, "{raw}");
        }
    }

    #[test]
    fn everything_else_goes_on_as_written() {
        let raw = "repo[][a]=1&repo[][b]=2&x=%zz&x=+&empty=";
        assert_eq!(Query::of(raw).below("/p"), format!("/p?{raw}"));
        assert_eq!(Query::of("bare&&a=1").below("/p"), "/p?a=1");
        assert_eq!(Query::of("").below("/p"), "/p");
    }

    #[test]
    fn what_must_not_stand_in_a_url_is_escaped() {
        assert_eq!(
            Query::of("a=^`\\&b=\"<x>#\"&c=x y\n\u{e9}&u\u{72}l=1&[{|}]=").below("/p"),
            "/p?a=%5E%60%5C&b=%22%3Cx%3E%23%22&c=x%20y%0A%C3%A9&url=1&[{|}]="
        );
    }
}
