//! URLs: as they are sent ([`TargetUrl`]) and as a grant covers them ([`UrlPattern`]).
//!
//! Only `http` and `https`, never with user information or fragment, and the path always in normal form ([`super::path`]).

use super::PatternError;
use super::host::{AskedHost, HostPattern};
use super::path::{PathPattern, PathProblem, check_path, split_target};
use super::port::Ports;
use super::socket::split_host_port;

/// `http` or `https`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
}

impl Scheme {
    /// `http` or `https`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// 80 or 443.
    #[must_use]
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    fn split(text: &str) -> Option<(Self, &str)> {
        let (scheme, rest) = text.split_once("://")?;
        match scheme {
            "http" => Some((Self::Http, rest)),
            "https" => Some((Self::Https, rest)),
            other if other.eq_ignore_ascii_case("http") => Some((Self::Http, rest)),
            other if other.eq_ignore_ascii_case("https") => Some((Self::Https, rest)),
            _ => None,
        }
    }
}

/// Why a text is not a URL that the host would send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlProblem {
    /// Neither `http://` nor `https://`.
    #[error("is no http or https URL")]
    Scheme,
    /// `user@` or `user:password@`.
    #[error("carries user information")]
    UserInformation,
    /// The host is neither a name nor an address.
    #[error("has no valid host")]
    Host,
    /// The port is not 1 to 65535.
    #[error("has no valid port")]
    Port,
    /// The path or query.
    #[error("has a path or query that {0}")]
    Path(#[from] PathProblem),
}

/// A URL as it is sent, in parts. Borrowed from the text wherever that is already in its one form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetUrl<'a> {
    /// The scheme.
    pub scheme: Scheme,
    /// The host in its one form.
    pub host: AskedHost<'a>,
    /// The port, the scheme's own when none is written.
    pub port: u16,
    /// The path, in normal form; `/` when none is written.
    pub path: &'a str,
    /// The query without `?`, empty when there is none.
    pub query: &'a str,
}

impl<'a> TargetUrl<'a> {
    /// Parses an absolute URL.
    pub fn parse(text: &'a str) -> Result<Self, UrlProblem> {
        let (scheme, rest) = Scheme::split(text).ok_or(UrlProblem::Scheme)?;
        let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at_checked(end).ok_or(UrlProblem::Host)?;
        if authority.contains('@') {
            return Err(UrlProblem::UserInformation);
        }
        let (host, port) = split_authority(authority).ok_or(UrlProblem::Host)?;
        let port = match port {
            None => scheme.default_port(),
            Some(text) => parse_port(text).ok_or(UrlProblem::Port)?,
        };
        let host = AskedHost::parse(host).ok_or(UrlProblem::Host)?;
        let (path, query) = if target.is_empty() {
            ("/", "")
        } else if let Some(query) = target.strip_prefix('?') {
            super::path::check_query(query)?;
            ("/", query)
        } else {
            split_target(target)?
        };
        Ok(Self {
            scheme,
            host,
            port,
            path,
            query,
        })
    }
}

fn split_authority(authority: &str) -> Option<(&str, Option<&str>)> {
    if authority.ends_with(']') || !authority.contains(':') {
        return (!authority.is_empty()).then_some((authority, None));
    }
    split_host_port(authority).map(|(host, port)| (host, Some(port)))
}

fn parse_port(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits
        .then(|| text.parse().ok())
        .flatten()
        .filter(|port| *port > 0)
}

/// URLs that a rule covers: `https://*.example.com/images/**`, `http://*`, `https://pdns:8081/api`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlPattern {
    /// The scheme; it is never a wildcard, since https promises what http does not.
    pub scheme: Scheme,
    /// The host.
    pub host: HostPattern,
    /// The ports; only the scheme's own when none are written.
    pub ports: Ports,
    /// The paths; every path when none is written.
    pub path: PathPattern,
    written_path: bool,
}

impl UrlPattern {
    /// Parses `scheme://host[:port][/path]`.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        const SHAPE: &str = "for example `https://mirror.example.com/pub/**` or `http://*`";
        let wrong = |problem: &str| PatternError::new(text, problem).help(SHAPE);
        let (scheme, rest) = Scheme::split(text)
            .ok_or_else(|| wrong("begins with neither `http://` nor `https://`"))?;
        let (authority, path) = rest
            .split_at_checked(rest.find('/').unwrap_or(rest.len()))
            .unwrap_or((rest, ""));
        if authority.contains('@') {
            return Err(wrong(
                "carries user information; use `inject` with a secret",
            ));
        }
        if rest.contains(['?', '#']) {
            return Err(wrong(
                "has a query or fragment, which take no part in a rule",
            ));
        }
        let (host, port) = split_authority(authority).ok_or_else(|| wrong("has no valid host"))?;
        let ports = port.map_or_else(|| Ok(Ports::one(scheme.default_port())), Ports::parse);
        let whole = |mut error: PatternError| {
            error.problem = format!("`{}` {}", error.text, error.problem);
            error.text = text.to_owned();
            error
        };
        let (path, written_path) = match path {
            "" => (PathPattern::any(), false),
            written => (PathPattern::parse(written).map_err(whole)?, true),
        };
        Ok(Self {
            scheme,
            host: HostPattern::parse(host).map_err(whole)?,
            ports: ports.map_err(whole)?,
            path,
            written_path,
        })
    }

    /// Whether the rule covers a URL as it is sent.
    #[must_use]
    pub fn covers(&self, url: &TargetUrl<'_>) -> bool {
        self.scheme == url.scheme
            && self.ports.covers(url.port)
            && self.host.covers(&url.host)
            && self.path.covers(url.path)
    }
}

impl std::fmt::Display for UrlPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", self.scheme.word(), self.host)?;
        if self.ports != Ports::one(self.scheme.default_port()) {
            write!(f, ":{}", self.ports)?;
        }
        if self.written_path {
            write!(f, "{}", self.path)
        } else {
            Ok(())
        }
    }
}

/// The base of an `http` grant: one scheme, host, port, and a path below which targets are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl {
    /// The scheme.
    pub scheme: Scheme,
    /// A name in its one form, or an address.
    pub host: AskedHost<'static>,
    /// The port.
    pub port: u16,
    /// The path without trailing slash, empty for the root.
    pub path: String,
}

impl BaseUrl {
    /// Parses `scheme://host[:port][/path]`, without wildcards.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let target = TargetUrl::parse(text).map_err(|problem| {
            PatternError::new(text, problem.to_string())
                .help("for example `https://pdns.example.com:8081/api/v1`")
        })?;
        if !target.query.is_empty() {
            return Err(PatternError::new(
                text,
                "has a query, which a base cannot have",
            ));
        }
        let host = match target.host {
            AskedHost::Name(name) => AskedHost::Name(name.into_owned().into()),
            AskedHost::Address(ip) => AskedHost::Address(ip),
        };
        Ok(Self {
            scheme: target.scheme,
            host,
            port: target.port,
            path: target.path.trim_end_matches('/').to_owned(),
        })
    }

    /// The part of a URL's path below the base, beginning with `/`. None: another server, or beside the base.
    #[must_use]
    pub fn below<'u>(&self, url: &'u TargetUrl<'_>) -> Option<&'u str> {
        if self.host != url.host {
            return None;
        }
        self.below_any_host(url)
    }

    /// [`BaseUrl::below`], whatever the URL's host is: for who has judged it otherwise.
    #[must_use]
    pub fn below_any_host<'u>(&self, url: &'u TargetUrl<'_>) -> Option<&'u str> {
        if self.scheme != url.scheme || self.port != url.port {
            return None;
        }
        let rest = url.path.strip_prefix(self.path.as_str())?;
        rest.starts_with('/').then_some(rest)
    }

    /// The absolute URL of a target below the base: `/servers?x=1`. Refused unless in normal form.
    pub fn join(&self, target: &str) -> Result<String, PathProblem> {
        let (path, _) = target.split_once('?').unwrap_or((target, ""));
        check_path(path)?;
        split_target(target)?;
        Ok(format!("{self}{target}"))
    }
}

impl std::fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", self.scheme.word(), self.host)?;
        if self.port != self.scheme.default_port() {
            write!(f, ":{}", self.port)?;
        }
        f.write_str(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn covers(pattern: &str, url: &str) -> bool {
        let pattern = UrlPattern::parse(pattern).unwrap();
        TargetUrl::parse(url).is_ok_and(|url| pattern.covers(&url))
    }

    #[test]
    fn scheme_host_port_and_path_all_count() {
        for (pattern, url, want) in [
            ("https://m.example.com", "https://m.example.com/a/b?c", true),
            ("https://m.example.com", "https://m.example.com", true),
            ("https://m.example.com", "https://m.example.com:443/a", true),
            (
                "https://m.example.com",
                "https://m.example.com:8443/a",
                false,
            ),
            ("https://m.example.com", "http://m.example.com/a", false),
            ("https://m.example.com", "https://M.EXAMPLE.com./a", true),
            (
                "https://m.example.com",
                "https://m.example.com.evil.org/a",
                false,
            ),
            (
                "https://m.example.com",
                "https://m.example.com@evil.org/a",
                false,
            ),
            (
                "https://m.example.com",
                "https://evil.org/https://m.example.com/",
                false,
            ),
            (
                "https://m.example.com",
                "https://m.example.com\\@evil.org/",
                false,
            ),
            (
                "https://*.example.com:*/pub/**",
                "https://a.example.com:99/pub/x",
                true,
            ),
            (
                "https://*.example.com/pub/**",
                "https://a.example.com/pub/../etc",
                false,
            ),
            ("http://127.0.0.1", "http://2130706433/", true),
            ("http://*", "http://127.0.0.1/", true),
        ] {
            assert_eq!(covers(pattern, url), want, "{pattern} {url}");
        }
    }

    #[test]
    fn a_base_keeps_its_path() {
        let base = BaseUrl::parse("https://pdns:8081/api/v1/").unwrap();
        let joined = base.join("/servers?x=1").unwrap();
        assert_eq!(joined, "https://pdns:8081/api/v1/servers?x=1");
        let below = |text: &str| {
            base.below(&TargetUrl::parse(text).unwrap())
                .map(str::to_owned)
        };
        assert_eq!(below(&joined).as_deref(), Some("/servers"));
        assert_eq!(below("https://pdns:8081/api/v10/servers"), None);
        assert_eq!(below("https://pdns/api/v1/servers"), None);
        assert!(base.join("/../x").is_err());
        assert!(base.join("x").is_err());
    }

    #[test]
    fn patterns_are_written_as_they_are_read() {
        for text in [
            "http://*",
            "https://*.example.com:8443/pub/**",
            "https://[2001:db8::1]/x",
            "http://h/**",
        ] {
            assert_eq!(UrlPattern::parse(text).unwrap().to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_reads_the_same_to_the_url_standard(text in "https?://[a-z0-9.:@\\[\\]%/?#\\\\x-]{0,30}") {
            if let Ok(ours) = TargetUrl::parse(&text) {
                let theirs = url::Url::parse(&text).unwrap();
                prop_assert_eq!(theirs.path(), ours.path);
                prop_assert_eq!(theirs.port_or_known_default(), Some(ours.port));
                let host = theirs.host_str().unwrap().trim_end_matches('.').to_owned();
                prop_assert_eq!(AskedHost::parse(&host).unwrap(), ours.host);
                prop_assert!(theirs.username().is_empty() && theirs.password().is_none());
            }
        }
    }
}
