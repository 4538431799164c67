//! The keys of files, watch, store, secrets, call, listen, probe, link, and of `[limits]`. Each function lists its keys.

use std::ops::RangeInclusive;
use std::path::{Component, Path, PathBuf};

use super::super::effective::*;
use super::super::limits::{HEAD_ROOM, Limits};
use super::super::matchers::PatternError;
use super::super::matchers::host::HostPattern;
use super::super::matchers::socket::{ListenSocket, SocketRule, Transport};
use crate::settings::reader::{Given, Reading, Table};

/// A parser of patterns as the reader wants it.
pub(super) fn pattern<T>(
    parse: impl Fn(&str) -> Result<T, PatternError>,
) -> impl Fn(&str) -> Result<T, (String, Option<String>)> {
    move |text| parse(text).map_err(|error| (error.to_string(), error.help))
}

/// An absolute path without `..`.
pub(super) fn absolute(text: &str) -> Result<PathBuf, (String, Option<String>)> {
    let path = Path::new(text);
    if !path.is_absolute() {
        return Err((format!("`{text}` is not an absolute path"), None));
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return Err((format!("`{text}` has `..` in it"), None));
    }
    Ok(path.components().collect())
}

const ACCESS: [(&str, Access); 2] = [("read", Access::Read), ("read-write", Access::ReadWrite)];
const COUNT: RangeInclusive<u32> = 1..=1_000_000;

/// `directory`: an absolute path, with everything below it. Or `file`: one file.
fn target(reading: &Reading<'_>, table: &Table<'_>) -> Given<FilesTarget> {
    let directory = reading
        .parsed(table, "directory", absolute)
        .map(FilesTarget::Directory);
    let file = reading
        .parsed(table, "file", absolute)
        .map(FilesTarget::File);
    match (directory, file) {
        (Given::Absent, Given::Absent) => {
            reading.problem(
                &table.span,
                format!("`{}` names no place", table.name),
                Some("`directory` or `file`".to_owned()),
            );
            Given::Wrong
        }
        (Given::Absent, given) | (given, Given::Absent) => given,
        _ => {
            reading.problem(
                &table.span,
                format!("`{}` names both `directory` and `file`", table.name),
                None,
            );
            Given::Wrong
        }
    }
}

/// `[files.SLOT]`: `directory` or `file`; `access` (default `read`); `quota` with `bytes` and `files` (read-write only).
pub(super) fn files(reading: &Reading<'_>, table: &Table<'_>) -> Given<FilesGrant> {
    let target = target(reading, table);
    let access = reading.word(table, "access", &ACCESS).or(Access::Read);
    let mut quota = FilesQuota::default();
    if let Given::Is(inner) = reading.table(table, "quota") {
        quota.bytes = reading.size(&inner, "bytes").or(quota.bytes);
        quota.files = reading
            .count(&inner, "files", 1..=u64::MAX >> 1)
            .or(quota.files);
        reading.finish(&inner);
        if !access.writes() {
            let help = Some("remove it, or grant `access = \"read-write\"`".to_owned());
            reading.problem(
                &inner.span,
                format!("`{}` holds for read-write only", inner.name),
                help,
            );
        }
    }
    target.map(|target| FilesGrant {
        target,
        access,
        quota,
    })
}

/// `[watch.SLOT]`: `directory`, `file` or `files`; `hide` (`isc-key-secrets`, default nothing).
pub(super) fn watch(reading: &Reading<'_>, table: &Table<'_>) -> Given<WatchGrant> {
    let place = match reading.texts(table, "files", absolute) {
        Given::Absent => target(reading, table).map(|target| match target {
            FilesTarget::Directory(path) => WatchPlace::Directory(path),
            FilesTarget::File(path) => WatchPlace::Files(vec![path]),
        }),
        files => {
            for other in ["directory", "file"] {
                if !matches!(reading.text(table, other), Given::Absent) {
                    let message = format!("`{}` names both `files` and `{other}`", table.name);
                    reading.problem(&table.span, message, None);
                }
            }
            filled(reading, table, "files", files).map(WatchPlace::Files)
        }
    };
    let hide = reading.word(table, "hide", &[("isc-key-secrets", Hide::IscKeySecrets)]);
    let hide = hide.or(Hide::Nothing);
    place.map(|place| WatchGrant { place, hide })
}

/// `[store.SLOT]`: `space` (`own`, the default, or `shared:NAME`); `access` (default `read`); `bytes` (default 64 MiB: leases of
/// 100,000 hosts); `keys` (default 1,000,000).
pub(super) fn store(reading: &Reading<'_>, table: &Table<'_>) -> Given<StoreGrant> {
    let space = reading.parsed(table, "space", |text| match text.split_once(':') {
        None if text == "own" => Ok(Space::Own),
        Some(("shared", name)) if is_name(name) => Ok(Space::Shared(name.to_owned())),
        _ => Err((
            format!("`{text}` is no space"),
            Some("`own` or `shared:NAME`".to_owned()),
        )),
    });
    Given::Is(StoreGrant {
        space: space.or(Space::Own),
        access: reading.word(table, "access", &ACCESS).or(Access::Read),
        bytes: reading.size(table, "bytes").or(64 << 20),
        keys: reading
            .count(table, "keys", 1..=u64::MAX >> 1)
            .or(1_000_000),
    })
}

/// `[secrets.SLOT]`: one of `file`, `credential` (systemd's) and `value = { setting = ".." }`; `format` (`raw`, the default, `base64`,
/// `basic-auth`, `bind-key`); `algorithm` and `name` for sources that name none; `access` (`use`, the default, or `reveal`).
pub(super) fn secret(reading: &Reading<'_>, table: &Table<'_>) -> Given<SecretGrant> {
    let file = reading
        .parsed(table, "file", absolute)
        .map(SecretSource::File);
    let credential = reading.parsed(table, "credential", |text| {
        let plain = !text.is_empty() && !text.starts_with('.') && !text.contains('/');
        plain
            .then(|| SecretSource::Credential(text.to_owned()))
            .ok_or_else(|| (format!("`{text}` is no credential's name"), None))
    });
    let value = match reading.text(table, "value") {
        // The reader knows no other way to tell: a literal secret in a policy would end up in backups and listings.
        Given::Is((_, span)) if !reading.is_setting(table, "value") => {
            reading.problem(
                &span,
                format!("`{}` holds a secret in plain text", table.dotted("value")),
                Some("use `file` or `credential`".to_owned()),
            );
            Given::Wrong
        }
        other => other.map(|(text, _)| SecretSource::Value(text)),
    };
    let formats = [
        ("raw", SecretFormat::Raw),
        ("base64", SecretFormat::Base64),
        ("basic-auth", SecretFormat::BasicAuth),
        ("bind-key", SecretFormat::BindKey),
    ];
    let format = reading
        .word(table, "format", &formats)
        .or(SecretFormat::Raw);
    let algorithms = [
        "hmac-md5",
        "hmac-sha1",
        "hmac-sha256",
        "hmac-sha384",
        "hmac-sha512",
    ]
    .map(|name| (name, name));
    let algorithm = reading
        .word(table, "algorithm", &algorithms)
        .ok()
        .map(str::to_owned);
    let key_name = reading.text(table, "name").ok().map(|(name, _)| name);
    let accesses = [("use", SecretAccess::Use), ("reveal", SecretAccess::Reveal)];
    let access = reading
        .word(table, "access", &accesses)
        .or(SecretAccess::Use);
    let mut sources: Vec<_> = [file, credential, value]
        .into_iter()
        .filter(|source| !matches!(source, Given::Absent))
        .collect();
    let source = match (sources.pop(), sources.is_empty()) {
        (Some(source), true) => source,
        (found, _) => {
            let amount = if found.is_none() {
                "no"
            } else {
                "more than one"
            };
            let help = Some("one of `file`, `credential`, `value`".to_owned());
            reading.problem(
                &table.span,
                format!("`{}` names {amount} source", table.name),
                help,
            );
            Given::Wrong
        }
    };
    source.map(|source| SecretGrant {
        source,
        format,
        algorithm,
        key_name,
        access,
    })
}

/// `[call.SLOT]`: `plugin`.
pub(super) fn call(reading: &Reading<'_>, table: &Table<'_>) -> Given<CallGrant> {
    let plugin = reading.parsed(table, "plugin", |text| {
        is_name(text)
            .then(|| text.to_owned())
            .ok_or_else(|| (format!("`{text}` is no plugin's name"), None))
    });
    required(reading, table, "plugin", plugin).map(|plugin| CallGrant { plugin })
}

/// `[listen.SLOT]`: `sockets` (`udp 0.0.0.0:67`); `interface`; `peers` it may send to unasked (`udp 10.0.0.0/8:68`); `broadcast`;
/// `connections` (TCP, default 256), `connections-per-address` (16), `idle` (10 s), `transfers` (4,096).
pub(super) fn listen(reading: &Reading<'_>, table: &Table<'_>) -> Given<ListenGrant> {
    let sockets = filled(
        reading,
        table,
        "sockets",
        reading.texts(table, "sockets", pattern(ListenSocket::parse)),
    );
    let interface = reading.parsed(table, "interface", interface_name).ok();
    let peer = |text: &str| match SocketRule::parse(text)? {
        rule if rule.transport != Transport::Udp => {
            Err(PatternError::new(text, "services send datagrams: `udp`"))
        }
        rule if !matches!(rule.host, HostPattern::Network(_) | HostPattern::Any) => Err(
            PatternError::new(text, "services send to addresses, not names"),
        ),
        rule => Ok(rule),
    };
    let peers = reading.texts(table, "peers", pattern(peer)).or(Vec::new());
    let broadcast = reading.flag(table, "broadcast").or(false);
    let most = ListenLimits::default();
    let limits = ListenLimits {
        connections: reading
            .count(table, "connections", 1..=100_000)
            .or(most.connections),
        connections_per_address: reading
            .count(table, "connections-per-address", 1..=100_000)
            .or(most.connections_per_address),
        idle: reading.time(table, "idle").or(most.idle),
        transfers: reading
            .count(table, "transfers", 1..=30_000)
            .or(most.transfers),
    };
    sockets.map(|sockets| ListenGrant {
        sockets,
        interface,
        peers,
        broadcast,
        limits,
    })
}

/// `[probe.SLOT]`: `allow`, addresses and networks; `rate`, probes a second (default 50).
pub(super) fn probe(reading: &Reading<'_>, table: &Table<'_>) -> Given<ProbeGrant> {
    let network = |text: &str| match HostPattern::parse(text)? {
        HostPattern::Network(net) => Ok(net),
        _ => Err(PatternError::new(text, "is not an address or network")),
    };
    let allow = filled(
        reading,
        table,
        "allow",
        reading.texts(table, "allow", pattern(network)),
    );
    let rate = reading.count(table, "rate", 1..=10_000).or(50);
    allow.map(|allow| ProbeGrant { allow, rate })
}

/// `[link.SLOT]`: `interfaces`; `port` (default 67, that of DHCP servers).
pub(super) fn link(reading: &Reading<'_>, table: &Table<'_>) -> Given<LinkGrant> {
    let interfaces = filled(
        reading,
        table,
        "interfaces",
        reading.texts(table, "interfaces", interface_name),
    );
    let port = reading.count(table, "port", 1..=u16::MAX).or(67);
    interfaces.map(|interfaces| LinkGrant { interfaces, port })
}

/// `[limits]`: the fields of [`Limits`], with `-` for `_`.
pub(crate) fn limits(reading: &Reading<'_>, root: &Table<'_>, defaults: &Limits) -> Limits {
    let mut limits = defaults.clone();
    let Given::Is(table) = reading.table(root, "limits") else {
        return limits;
    };
    let size = |key, default| reading.size(&table, key).or(default);
    let time = |key, default| reading.time(&table, key).or(default);
    let count = |key, default| reading.count(&table, key, COUNT).or(default);
    limits.memory = size("memory", limits.memory);
    // A larger instance needs a larger total; naming one limit must not make the plugin impossible.
    limits.memory_total = size("memory-total", limits.memory_total.max(limits.memory));
    limits.cpu = time("cpu", limits.cpu);
    limits.time = time("time", limits.time);
    limits.concurrency = count("concurrency", limits.concurrency);
    limits.queue = reading
        .count(&table, "queue", 0..=1_000_000)
        .or(limits.queue);
    limits.queue_time = time("queue-time", limits.queue_time);
    limits.warm = reading.count(&table, "warm", 0..=10_000).or(limits.warm);
    limits.reuse = count("reuse", limits.reuse);
    limits.handles = count("handles", limits.handles);
    limits.random = size("random", limits.random);
    limits.file_calls = count("file-calls", limits.file_calls);
    limits.log_lines = count("log-lines", limits.log_lines);
    limits.request_body = size("request-body", limits.request_body);
    limits.forward_body = size("forward-body", limits.forward_body);
    limits.reply_body = size("reply-body", limits.reply_body);
    // A larger reply has to get through; a limit that is named is meant as it stands.
    let room = limits.reply_body.saturating_add(HEAD_ROOM);
    limits.transfer = size("transfer", limits.transfer.max(room));
    reading.text(&table, "reason");
    reading.finish(&table);
    if limits.memory > limits.memory_total {
        reading.problem(
            &table.span,
            "`limits.memory` is more than `limits.memory-total`",
            None,
        );
    }
    limits
}

/// A key that a slot cannot do without.
pub(super) fn required<T>(
    reading: &Reading<'_>,
    table: &Table<'_>,
    key: &str,
    given: Given<T>,
) -> Given<T> {
    if matches!(given, Given::Absent) {
        reading.problem(
            &table.span,
            format!("`{}` is missing", table.dotted(key)),
            None,
        );
        return Given::Wrong;
    }
    given
}

/// A list that a slot cannot do without; an empty one would grant nothing in many words.
pub(super) fn filled<T>(
    reading: &Reading<'_>,
    table: &Table<'_>,
    key: &str,
    given: Given<Vec<T>>,
) -> Given<Vec<T>> {
    required(reading, table, key, given).and_then(|list| {
        if list.is_empty() {
            reading.problem(
                &table.span,
                format!("`{}` is empty", table.dotted(key)),
                Some("remove the whole table to grant nothing".to_owned()),
            );
            return None;
        }
        Some(list)
    })
}

fn is_name(text: &str) -> bool {
    text.len() <= 32
        && text.bytes().next().is_some_and(|b| b.is_ascii_lowercase())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// Linux: at most 15 bytes, no slash, no white space.
fn interface_name(text: &str) -> Result<String, (String, Option<String>)> {
    let fits = (1..=15).contains(&text.len())
        && !matches!(text, "." | "..")
        && !text.contains(|c: char| c == '/' || c.is_whitespace());
    fits.then(|| text.to_owned())
        .ok_or_else(|| (format!("`{text}` is no interface's name"), None))
}
