//! The keys of sockets, names, http, foreman and downloads. Each function lists its keys.

use std::time::Duration;

use super::super::effective::*;
use super::super::matchers::PatternError;
use super::super::matchers::host::HostPattern;
use super::super::matchers::path::{MethodPath, PathPattern, parse_method};
use super::super::matchers::socket::{SocketRule, Transport, split_host_port};
use super::super::matchers::url::{BaseUrl, UrlPattern};
use super::places::{absolute, filled, pattern, required};
use crate::settings::reader::{Data, Given, Item, Reading, Table};

/// `private-addresses` and `loopback`: inside addresses that names and wildcards may lead to. Default: neither.
fn inside(reading: &Reading<'_>, table: &Table<'_>) -> Inside {
    Inside {
        private: reading.flag(table, "private-addresses").or(false),
        loopback: reading.flag(table, "loopback").or(false),
    }
}

/// `[sockets.SLOT]`: `allow`, a list of `tcp HOST:PORT` and `udp HOST:PORT`, or of `{ setting = "..", protocol = "udp", port = 53 }`, where
/// the setting holds a host, or a host with a port; `open`, sockets open at a time (default 16); `private-addresses`; `loopback`.
pub(super) fn sockets(reading: &Reading<'_>, table: &Table<'_>) -> Given<SocketsGrant> {
    let rules = match reading.list(table, "allow") {
        Given::Is(items) => {
            let mut rules = Vec::new();
            let mut outcome = Given::Is(());
            for item in &items {
                match socket_rules(reading, table, item) {
                    Given::Is(more) => rules.extend(more),
                    other => outcome = other.map(|_| ()),
                }
            }
            outcome.map(|()| rules)
        }
        other => other.map(|_| Vec::new()),
    };
    let rules = filled(reading, table, "allow", rules);
    let open = reading.count(table, "open", 1..=10_000).or(16);
    let inside = inside(reading, table);
    rules.map(|allow| SocketsGrant {
        allow,
        open,
        inside,
    })
}

fn socket_rules(
    reading: &Reading<'_>,
    table: &Table<'_>,
    item: &Item<'_>,
) -> Given<Vec<SocketRule>> {
    let Data::Table(inner) = &item.data else {
        let rule = reading.parse_item(table, "allow", item, pattern(SocketRule::parse));
        return rule.map_or(Given::Wrong, |rule| Given::Is(vec![rule]));
    };
    let protocol = reading.word(
        inner,
        "protocol",
        &[("tcp", Transport::Tcp), ("udp", Transport::Udp)],
    );
    let protocol = required(reading, inner, "protocol", protocol);
    let port: Option<u16> = reading.count(inner, "port", 1..=u16::MAX).ok();
    let setting = required(
        reading,
        inner,
        "setting",
        reading.named_setting(inner, "setting"),
    );
    reading.finish(inner);
    let Given::Is(protocol) = protocol else {
        return Given::Wrong;
    };
    let rule = |text: &str| {
        let written = split_host_port(text).is_some();
        match port {
            _ if written => SocketRule::parse(&format!("{protocol} {text}")),
            Some(port) if text.contains(':') => SocketRule::parse(&format!(
                "{protocol} [{}]:{port}",
                text.trim_matches(['[', ']'])
            )),
            Some(port) => SocketRule::parse(&format!("{protocol} {text}:{port}")),
            None => Err(PatternError::new(
                text,
                "the setting names no port, and neither does the policy",
            )),
        }
    };
    setting.and_then(|item| {
        let items = match item.data {
            Data::List(items) => items,
            _ => vec![item],
        };
        items
            .iter()
            .map(|item| reading.parse_item(inner, "setting", item, pattern(rule)))
            .collect()
    })
}

/// `[names.SLOT]`: `allow`, names and `*.example.com`.
pub(super) fn names(reading: &Reading<'_>, table: &Table<'_>) -> Given<NamesGrant> {
    let name = |text: &str| match HostPattern::parse(text)? {
        HostPattern::Network(_) => Err(PatternError::new(
            text,
            "is an address, which needs no resolving",
        )),
        host => Ok(host),
    };
    let allow = filled(
        reading,
        table,
        "allow",
        reading.texts(table, "allow", pattern(name)),
    );
    allow.map(|allow| NamesGrant { allow })
}

/// `[http.SLOT]`: `url`, one server, with a base path if need be; `networks`, addresses that stand in for the host of `url`; `verify`
/// certificates (true); `methods` (default `GET`); `paths` below the base (default all); `ca`;
/// `certificate` and `key`; `inject = { "x-api-key" = "secret:SLOT", authorization = "Bearer secret:SLOT" }`; `timeout` (default 30 s);
/// `connect-timeout` (10 s); `response` (4 MiB); `connections` (16); `queue` (256), requests that wait for one of them; `private-addresses`; `loopback`.
pub(super) fn http(
    reading: &Reading<'_>,
    table: &Table<'_>,
    secrets: &Slots<SecretGrant>,
    injected: &mut Vec<String>,
) -> Given<HttpGrant> {
    let url = required(
        reading,
        table,
        "url",
        reading.parsed(table, "url", pattern(BaseUrl::parse)),
    );
    let networks = reading
        .texts(table, "networks", pattern(network))
        .or(Vec::new());
    let queue = reading.count(table, "queue", 0..=1_000_000).or(256);
    let method = |text: &str| {
        parse_method(text)?.ok_or_else(|| PatternError::new(text, "methods are written out"))
    };
    let methods = reading
        .texts(table, "methods", pattern(method))
        .or(vec!["GET".to_owned()]);
    let paths = reading
        .texts(table, "paths", pattern(PathPattern::parse))
        .or(vec![PathPattern::any()]);
    let tls = tls(reading, table);
    let inject = inject(reading, table, secrets, injected);
    let timeout = reading.time(table, "timeout").or(Duration::from_secs(30));
    let connect_timeout = reading
        .time(table, "connect-timeout")
        .or(Duration::from_secs(10));
    let response = reading.size(table, "response").or(4 << 20);
    let connections = reading.count(table, "connections", 1..=10_000).or(16);
    let inside = inside(reading, table);
    url.map(|url| HttpGrant {
        url,
        networks,
        methods,
        paths,
        tls,
        inject,
        timeout,
        connect_timeout,
        response,
        connections,
        queue,
        inside,
    })
}

/// A network, or one address.
fn network(text: &str) -> Result<ipnet::IpNet, PatternError> {
    match HostPattern::parse(text)? {
        HostPattern::Network(network) => Ok(network),
        _ => Err(PatternError::new(
            text,
            "is neither an address nor a network",
        )),
    }
}

fn tls(reading: &Reading<'_>, table: &Table<'_>) -> TlsGrant {
    let ca = reading.parsed(table, "ca", absolute).ok();
    let certificate = reading.parsed(table, "certificate", absolute);
    let key = reading.parsed(table, "key", absolute);
    let identity = match (certificate, key) {
        (Given::Is(certificate), Given::Is(key)) => Some((certificate, key)),
        (Given::Is(_), Given::Absent) | (Given::Absent, Given::Is(_)) => {
            reading.problem(
                &table.span,
                format!("`{}` needs `certificate` and `key` together", table.name),
                None,
            );
            None
        }
        _ => None,
    };
    let unverified = !reading.flag(table, "verify").or(true);
    TlsGrant {
        ca,
        identity,
        unverified,
    }
}

/// Headers that a secret may not fill, since the host sets them.
const HOST_HEADERS: [&str; 7] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "upgrade",
    "te",
    "trailer",
];

fn inject(
    reading: &Reading<'_>,
    table: &Table<'_>,
    secrets: &Slots<SecretGrant>,
    injected: &mut Vec<String>,
) -> Vec<Injection> {
    let Given::Is(headers) = reading.table(table, "inject") else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for (header, span) in headers.keys() {
        let plain = !header.is_empty()
            && header
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !plain || HOST_HEADERS.contains(&header) {
            reading.problem(
                &span,
                format!("`{header}` is no header to inject: lower case, and not one the host sets"),
                None,
            );
        }
        let Given::Is((text, span)) = reading.text(&headers, header) else {
            continue;
        };
        let Some((prefix, slot)) = text.split_once("secret:") else {
            let help = Some("for example `secret:api-key` or `Bearer secret:token`".to_owned());
            reading.problem(
                &span,
                format!("`{}` names no secret", headers.dotted(header)),
                help,
            );
            continue;
        };
        injected.push(slot.to_owned());
        match secrets.get(slot) {
            Some(secret) => found.push(Injection {
                header: header.to_owned(),
                prefix: prefix.to_owned(),
                slot: slot.to_owned(),
                secret: (**secret).clone(),
            }),
            // Its source is a setting that has no value yet: nothing to inject, and no mistake of the policy.
            None if reading.has_section(&format!("secrets.{slot}")) => {}
            None => reading.problem(
                &span,
                format!("there is no usable `[secrets.{slot}]` in this policy"),
                None,
            ),
        }
    }
    found
}

/// `[foreman.SLOT]`: `allow`, a list of `METHOD /path`; `timeout` (default 60 s); `response` (4 MiB); `connections` (32);
/// `queue` (1000), requests that wait for one of them.
pub(super) fn foreman(reading: &Reading<'_>, table: &Table<'_>) -> Given<ForemanGrant> {
    let allow = filled(
        reading,
        table,
        "allow",
        reading.texts(table, "allow", pattern(MethodPath::parse)),
    );
    let timeout = reading.time(table, "timeout").or(Duration::from_secs(60));
    let response = reading.size(table, "response").or(4 << 20);
    let connections = reading.count(table, "connections", 1..=10_000).or(32);
    let queue = reading.count(table, "queue", 0..=1_000_000).or(1000);
    allow.map(|allow| ForemanGrant {
        allow,
        timeout,
        response,
        connections,
        queue,
    })
}

/// `[downloads.SLOT]`: `urls`; `into`, a files slot; `size` of one file (default 8 GiB: an installation image); `time` for one (1 h);
/// `concurrent` (4); `queue` (64); `verify` certificates (true); `ca`; `connect-timeout` (10 s); `private-addresses`; `loopback`.
pub(super) fn downloads(
    reading: &Reading<'_>,
    table: &Table<'_>,
    files: &Slots<FilesGrant>,
) -> Given<DownloadsGrant> {
    let urls = filled(
        reading,
        table,
        "urls",
        reading.texts(table, "urls", pattern(UrlPattern::parse)),
    );
    let into = required(reading, table, "into", reading.text(table, "into"));
    if let Given::Is((slot, span)) = &into
        && files.get(slot).is_some_and(|grant| !grant.access.writes())
    {
        let help = Some(format!("grant `files.{slot}.access = \"read-write\"`"));
        reading.problem(
            span,
            format!("files slot `{slot}` is granted for reading only"),
            help,
        );
    }
    let grant = DownloadsGrant {
        urls: Vec::new(),
        into: into.ok().map(|(slot, _)| slot).unwrap_or_default(),
        size: reading.size(table, "size").or(8 << 30),
        time: reading.time(table, "time").or(Duration::from_secs(3600)),
        connect_timeout: reading
            .time(table, "connect-timeout")
            .or(Duration::from_secs(10)),
        concurrent: reading.count(table, "concurrent", 1..=1000).or(4),
        queue: reading.count(table, "queue", 0..=100_000).or(64),
        verify: reading.flag(table, "verify").or(true),
        ca: reading.parsed(table, "ca", absolute).ok(),
        inside: inside(reading, table),
    };
    urls.map(|urls| DownloadsGrant { urls, ..grant })
}
