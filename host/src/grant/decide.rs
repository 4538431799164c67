//! The one function that says yes or no.
//!
//! [`decide`] is total (every action has an answer), pure (it reads rights, records and the clock, and changes nothing) and
//! allocates only for a "no". Order: what no policy can allow, then the operator's rules for all, then the plugin's grants.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::action::{Action, Capability};
use super::denial::{Denial, Refusal, key, quoted};
use super::deny::{Deny, Forbidden};
use super::effective::{Effective, FilesTarget, HttpGrant, Inside, SecretAccess, Slots, Uses};
use super::matchers::address::{AddressClass, class, embedded};
use super::matchers::host::{AskedHost, HostPattern, is_localhost};
use super::matchers::path::split_target;
use super::matchers::socket::Transport;
use super::matchers::url::TargetUrl;
use super::resolved::Resolved;

/// The answer to an action.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Decision {
    /// Go on.
    Allow,
    /// Do not; tell the plugin its typed error. The denial is already audited.
    Deny(Box<Denial>),
}

impl Decision {
    /// Whether the action may go on.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow)
    }

    /// For `?`: the denial as an error.
    pub fn check(self) -> Result<(), Box<Denial>> {
        match self {
            Self::Allow => Ok(()),
            Self::Deny(denial) => Err(denial),
        }
    }
}

/// What `decide` found. `Allow` names the counter of the slot that allowed it, if a slot did.
pub(crate) type Verdict<'e> = Result<Option<&'e Uses>, Refusal>;

/// What `decide` reads.
#[derive(Clone, Copy)]
pub(crate) struct Facts<'e> {
    pub(crate) effective: &'e Effective,
    pub(crate) deny: &'e Deny,
    pub(crate) resolved: &'e Resolved,
    pub(crate) now: Instant,
}

/// Decides one action.
pub(crate) fn decide<'e>(facts: Facts<'e>, action: &Action<'_>) -> Verdict<'e> {
    let rights = facts.effective;
    match *action {
        Action::FileOpen { slot, path, write } => file_open(facts, slot, path, write),
        Action::FileLink { .. } => Err(Refusal::new(
            "built-in",
            "plugins make no links, since other programs would follow them out of the directory",
        )),
        Action::TcpConnect { addr, name } => socket(facts, Transport::Tcp, addr, name),
        Action::UdpSend { addr } | Action::UdpReceive { addr } => {
            socket(facts, Transport::Udp, addr, None)
        }
        Action::TcpBind { addr } => bind(facts, Transport::Tcp, addr),
        Action::UdpBind { addr } => bind(facts, Transport::Udp, addr),
        Action::TcpListen { .. } => Err(Refusal::new(
            "built-in",
            "the host listens for plugins; a service takes its datagrams from a `listen` slot",
        )),
        Action::Listen {
            slot,
            transport,
            addr,
        } => {
            let grant = slot_of(&rights.listen, Capability::Listen, slot, || {
                format!("sockets = [{}]", quoted(&format!("{transport} {addr}")))
            })?;
            if grant
                .sockets
                .iter()
                .any(|own| own.transport == transport && own.address == addr)
            {
                Ok(Some(&grant.uses))
            } else {
                let line = format!(
                    "listen.{}.sockets = [{}]",
                    key(slot),
                    quoted(&format!("{transport} {addr}"))
                );
                Err(Refusal::new(
                    format!("listen.{slot}.sockets"),
                    "the policy names other sockets",
                )
                .fix(line))
            }
        }
        Action::DatagramSend { slot, peer, heard } => datagram_send(facts, slot, peer, heard),
        Action::Resolve { name } => resolve(facts, name),
        Action::Http { slot, method, url } => http(facts, slot, method, url),
        Action::HttpAddress { slot, ip, port } => http_address(facts, slot, ip, port),
        Action::Foreman { slot, method, path } => foreman(facts, slot, method, path),
        Action::Store { slot, write } => {
            let access = if write { "read-write" } else { "read" };
            let grant = slot_of(&rights.store, Capability::Store, slot, || {
                format!("access = \"{access}\"")
            })?;
            if write && !grant.access.writes() {
                let line = format!("store.{}.access = \"read-write\"", key(slot));
                return Err(Refusal::new(
                    format!("store.{slot}.access"),
                    "the slot is granted for reading only",
                )
                .fix(line));
            }
            Ok(Some(&grant.uses))
        }
        Action::Secret { slot, reveal } => {
            let grant = slot_of(&rights.secrets, Capability::Secrets, slot, || {
                "file = \"/path/to/secret\"".to_owned()
            })?;
            if reveal && grant.access != SecretAccess::Reveal {
                let line = format!("secrets.{}.access = \"reveal\"", key(slot));
                return Err(Refusal::new(
                    format!("secrets.{slot}.access"),
                    "the secret may be used, not seen",
                )
                .fix(line));
            }
            Ok(Some(&grant.uses))
        }
        Action::Call { interface, callee } => {
            let line = || format!("plugin = {}", quoted(callee));
            let grant = slot_of(&rights.call, Capability::Call, interface, line)?;
            if grant.plugin == callee {
                Ok(Some(&grant.uses))
            } else {
                let reason = format!("the policy names plugin `{}` for it", grant.plugin);
                let line = format!("call.{}.plugin = {}", key(interface), quoted(callee));
                Err(Refusal::new(format!("call.{interface}.plugin"), reason).fix(line))
            }
        }
        Action::Download { slot, url } => download(facts, slot, url),
        Action::DownloadAddress {
            slot,
            host,
            ip,
            port,
        } => download_address(facts, slot, host, ip, port),
        Action::Watch { slot } => {
            let grant = slot_of(&rights.watch, Capability::Watch, slot, || {
                "file = \"/path/to/file\"".to_owned()
            })?;
            Ok(Some(&grant.uses))
        }
        Action::Probe { slot, ip } => probe(facts, slot, ip),
        Action::Link { slot, interface } => {
            let line = || format!("interfaces = [{}]", quoted(interface));
            let grant = slot_of(&rights.link, Capability::Link, slot, line)?;
            if grant.interfaces.iter().any(|own| own == interface) {
                Ok(Some(&grant.uses))
            } else {
                let line = format!("link.{}.interfaces = [{}]", key(slot), quoted(interface));
                Err(Refusal::new(
                    format!("link.{slot}.interfaces"),
                    "the policy names other interfaces",
                )
                .fix(line))
            }
        }
        Action::ResponseHeader { name } => response_header(name),
    }
}

/// The granted slot, or the refusal that shows the line which would grant it.
fn slot_of<'e, G>(
    slots: &'e Slots<G>,
    capability: Capability,
    slot: &str,
    line: impl FnOnce() -> String,
) -> Result<&'e super::effective::Slot<G>, Refusal> {
    slots.get(slot).ok_or_else(|| {
        let shown = super::action::Shown(slot);
        Refusal::new(
            format!("{capability}.{shown}"),
            format!("the policy grants no {capability} slot `{shown}`"),
        )
        .fix(format!("{capability}.{}.{}", key(slot), line()))
    })
}

fn forbidden(found: Forbidden) -> Refusal {
    Refusal::new(found.rule, found.reason)
}

fn file_open<'e>(facts: Facts<'e>, slot: &str, path: &str, write: bool) -> Verdict<'e> {
    let grant = slot_of(&facts.effective.files, Capability::Files, slot, || {
        "directory = \"/path/to/directory\"".to_owned()
    })?;
    if write && !grant.access.writes() {
        let line = format!("files.{}.access = \"read-write\"", key(slot));
        return Err(Refusal::new(
            format!("files.{slot}.access"),
            "the slot is granted for reading only",
        )
        .fix(line));
    }
    if let FilesTarget::File(file) = &grant.target {
        let name = path.strip_prefix("./").unwrap_or(path);
        let directory_itself = !write && matches!(name, "" | ".");
        if !directory_itself && grant.only_name() != Some(name) {
            let reason = format!("the slot grants the one file {}", file.display());
            return Err(Refusal::new(format!("files.{slot}.file"), reason));
        }
    }
    Ok(Some(&grant.uses))
}

/// A destination of a rule that names no address: does the rule reach as far inside as the address lies?
fn reaches(
    ip: IpAddr,
    inside: Inside,
    literal_name: bool,
    localhost: bool,
) -> Result<(), AddressClass> {
    let one = |ip: IpAddr| match class(ip) {
        kind @ AddressClass::Loopback if !(inside.loopback || localhost) => Err(kind),
        kind @ AddressClass::Private if !(inside.private || literal_name) => Err(kind),
        _ => Ok(()),
    };
    one(ip)?;
    embedded(ip).map_or(Ok(()), |inner| one(IpAddr::V4(inner)))
}

fn socket<'e>(
    facts: Facts<'e>,
    transport: Transport,
    addr: SocketAddr,
    name: Option<&str>,
) -> Verdict<'e> {
    let (ip, port) = (addr.ip().to_canonical(), addr.port());
    if let Some(found) = facts.deny.destination(ip, port) {
        return Err(forbidden(found));
    }
    let mut too_far_inside = None;
    for (slot, grant) in &facts.effective.sockets {
        for rule in &grant.allow {
            if rule.transport != transport || !rule.ports.covers(port) {
                continue;
            }
            let (literal_name, localhost) = match &rule.host {
                // Written-out addresses reach what they write.
                HostPattern::Network(net) => {
                    if net.contains(&ip) {
                        return Ok(Some(&grant.uses));
                    }
                    continue;
                }
                HostPattern::Any => (false, false),
                pattern @ (HostPattern::Below(_) | HostPattern::Name(_)) => {
                    let fits = name.map_or_else(
                        || {
                            facts
                                .resolved
                                .any_name(ip, facts.now, |known| pattern.covers_name(known))
                        },
                        |name| asked_name(name).is_some_and(|name| pattern.covers_name(&name)),
                    );
                    if !fits {
                        continue;
                    }
                    (pattern.is_literal_name(), pattern.is_localhost())
                }
            };
            match reaches(ip, grant.inside, literal_name, localhost) {
                Ok(()) => return Ok(Some(&grant.uses)),
                Err(kind) => too_far_inside = Some((slot, rule, kind)),
            }
        }
    }
    let wanted = quoted(&format!("{transport} {}", SocketAddr::new(ip, port)));
    match too_far_inside {
        Some((slot, rule, kind)) => {
            let reason = format!(
                "{ip} is {}, which the rule `{rule}` reaches only where the policy says so",
                kind.words()
            );
            let line = format!("sockets.{}.allow = [{wanted}]", key(slot));
            Err(Refusal::new(format!("sockets.{slot}.allow"), reason).fix(line))
        }
        None => {
            let slot = facts
                .effective
                .sockets
                .keys()
                .next()
                .map_or("SLOT", String::as_str);
            let line = format!("sockets.{}.allow = [{wanted}]", key(slot));
            let reason = if facts.effective.sockets.is_empty() {
                "the policy grants no sockets"
            } else {
                "no rule of the policy covers this address"
            };
            Err(Refusal::new("sockets", reason).fix(line))
        }
    }
}

/// The name in its one form. Borrows when it already is.
fn asked_name(text: &str) -> Option<std::borrow::Cow<'_, str>> {
    match AskedHost::parse(text)? {
        AskedHost::Name(name) => Some(name),
        AskedHost::Address(_) => None,
    }
}

/// Systems bind to the unspecified address and port 0 before they connect or send. That much comes with any outgoing rule
/// of the same protocol.
fn bind<'e>(facts: Facts<'e>, transport: Transport, addr: SocketAddr) -> Verdict<'e> {
    if !addr.ip().to_canonical().is_unspecified() || addr.port() != 0 {
        return Err(Refusal::new(
            "built-in",
            "a plugin does not choose its own address or port; to serve, use a `listen` slot",
        ));
    }
    let outgoing = facts
        .effective
        .sockets
        .values()
        .any(|grant| grant.allow.iter().any(|rule| rule.transport == transport));
    if outgoing {
        return Ok(None);
    }
    let slot = facts
        .effective
        .sockets
        .keys()
        .next()
        .map_or("SLOT", String::as_str);
    let line = format!(
        "sockets.{}.allow = [{}]",
        key(slot),
        quoted(&format!("{transport} HOST:PORT"))
    );
    Err(Refusal::new(
        "sockets",
        format!("the policy grants no outgoing {transport}"),
    )
    .fix(line))
}

fn datagram_send<'e>(facts: Facts<'e>, slot: &str, peer: SocketAddr, heard: bool) -> Verdict<'e> {
    let grant = slot_of(&facts.effective.listen, Capability::Listen, slot, || {
        "sockets = [\"udp 0.0.0.0:PORT\"]".to_owned()
    })?;
    let (ip, port) = (peer.ip().to_canonical(), peer.port());
    if let Some(found) = facts.deny.network(ip) {
        return Err(forbidden(found));
    }
    if class(ip) == AddressClass::Broadcast {
        return if grant.broadcast {
            Ok(Some(&grant.uses))
        } else {
            let line = format!("listen.{}.broadcast = true", key(slot));
            Err(Refusal::new(
                format!("listen.{slot}.broadcast"),
                "the policy allows no broadcast",
            )
            .fix(line))
        };
    }
    if heard {
        return Ok(Some(&grant.uses));
    }
    if let Some(found) = facts.deny.destination(ip, port) {
        return Err(forbidden(found));
    }
    if grant.peers.iter().any(|rule| match &rule.host {
        HostPattern::Network(_) => rule.covers_address(Transport::Udp, ip, port),
        _ => {
            rule.covers_address(Transport::Udp, ip, port)
                && reaches(ip, Inside::default(), false, false).is_ok()
        }
    }) {
        return Ok(Some(&grant.uses));
    }
    let line = format!(
        "listen.{}.peers = [{}]",
        key(slot),
        quoted(&format!("udp {}", SocketAddr::new(ip, port)))
    );
    Err(Refusal::new(
        format!("listen.{slot}.peers"),
        "it sent nothing that could be answered, and no rule covers it",
    )
    .fix(line))
}

fn resolve<'e>(facts: Facts<'e>, name: &str) -> Verdict<'e> {
    let Some(name) = asked_name(name) else {
        return Err(Refusal::new("built-in", "this is no name"));
    };
    let rights = facts.effective;
    for grant in rights.names.values() {
        if grant.allow.iter().any(|pattern| pattern.covers_name(&name)) {
            return Ok(Some(&grant.uses));
        }
    }
    for grant in rights.sockets.values() {
        // `*` in a socket rule is about addresses: it does not open every name, which would carry data out.
        let named = |pattern: &HostPattern| {
            !matches!(pattern, HostPattern::Any) && pattern.covers_name(&name)
        };
        if grant.allow.iter().any(|rule| named(&rule.host)) {
            return Ok(Some(&grant.uses));
        }
    }
    let slot = rights.names.keys().next().map_or("SLOT", String::as_str);
    let line = format!("names.{}.allow = [{}]", key(slot), quoted(&name));
    Err(Refusal::new(
        "names",
        "no rule of the policy covers this name; looking up a name can carry data out",
    )
    .fix(line))
}

fn http<'e>(facts: Facts<'e>, slot: &str, method: &str, url: &str) -> Verdict<'e> {
    let line = || format!("url = {}", quoted(origin_of(url)));
    let grant = slot_of(&facts.effective.http, Capability::Http, slot, line)?;
    let target = TargetUrl::parse(url)
        .map_err(|problem| Refusal::new("built-in", format!("the URL {problem}")))?;
    let Some(path) = grant.url.below(&target) else {
        return Err(Refusal::new(
            format!("http.{slot}.url"),
            format!("the slot is granted for {} only", grant.url),
        ));
    };
    if !grant.methods.iter().any(|own| own == method) {
        let line = format!("http.{}.methods = [{}]", key(slot), quoted(method));
        return Err(Refusal::new(
            format!("http.{slot}.methods"),
            "the policy names other methods",
        )
        .fix(line));
    }
    if !grant.paths.iter().any(|pattern| pattern.covers(path)) {
        let line = format!("http.{}.paths = [{}]", key(slot), quoted(path));
        return Err(Refusal::new(
            format!("http.{slot}.paths"),
            "no rule of the policy covers this path",
        )
        .fix(line));
    }
    if let AskedHost::Address(ip) = target.host
        && let Some(found) = facts.deny.destination(ip, target.port)
    {
        return Err(forbidden(found));
    }
    Ok(Some(&grant.uses))
}

/// `https://host:port` of a URL, for showing.
fn origin_of(url: &str) -> &str {
    let after = url.find("://").map_or(0, |at| at + 3);
    let end = url
        .get(after..)
        .and_then(|rest| rest.find(['/', '?', '#']))
        .map_or(url.len(), |at| after + at);
    url.get(..end).unwrap_or(url)
}

fn http_address<'e>(facts: Facts<'e>, slot: &str, ip: IpAddr, port: u16) -> Verdict<'e> {
    let grant = slot_of(&facts.effective.http, Capability::Http, slot, || {
        "url = \"https://HOST\"".to_owned()
    })?;
    let ip = ip.to_canonical();
    if let Some(found) = facts.deny.destination(ip, port) {
        return Err(forbidden(found));
    }
    if port != grant.url.port {
        return Err(Refusal::new(
            format!("http.{slot}.url"),
            format!("the slot is granted for port {}", grant.url.port),
        ));
    }
    let HttpGrant { url, inside, .. } = &**grant;
    match &url.host {
        AskedHost::Address(own) if *own == ip => Ok(Some(&grant.uses)),
        AskedHost::Address(own) => Err(Refusal::new(
            format!("http.{slot}.url"),
            format!("the slot is granted for {own}"),
        )),
        AskedHost::Name(name) => match reaches(ip, *inside, true, is_localhost(name)) {
            Ok(()) => Ok(Some(&grant.uses)),
            Err(kind) => Err(inside_refusal("http", slot, &ip, kind)),
        },
    }
}

fn inside_refusal(capability: &str, slot: &str, ip: &IpAddr, kind: AddressClass) -> Refusal {
    let word = if kind == AddressClass::Loopback {
        "loopback"
    } else {
        "private-addresses"
    };
    Refusal::new(
        format!("{capability}.{slot}.{word}"),
        format!("the name resolved to {ip}, {}", kind.words()),
    )
    .fix(format!("{capability}.{}.{word} = true", key(slot)))
}

fn foreman<'e>(facts: Facts<'e>, slot: &str, method: &str, path: &str) -> Verdict<'e> {
    let rule_text = |path: &str| quoted(&format!("{method} {path}"));
    let bare = path.split_once('?').map_or(path, |(path, _)| path);
    let grant = slot_of(&facts.effective.foreman, Capability::Foreman, slot, || {
        format!("allow = [{}]", rule_text(bare))
    })?;
    let (path, _) = split_target(path)
        .map_err(|problem| Refusal::new("built-in", format!("the path {problem}")))?;
    if grant.allow.iter().any(|rule| rule.covers(method, path)) {
        return Ok(Some(&grant.uses));
    }
    let line = format!("foreman.{}.allow = [{}]", key(slot), rule_text(path));
    Err(Refusal::new(
        format!("foreman.{slot}.allow"),
        "no rule of the policy covers this method and path",
    )
    .fix(line))
}

fn download<'e>(facts: Facts<'e>, slot: &str, url: &str) -> Verdict<'e> {
    let line = || format!("urls = [{}]", quoted(origin_of(url)));
    let grant = slot_of(
        &facts.effective.downloads,
        Capability::Downloads,
        slot,
        line,
    )?;
    let target = TargetUrl::parse(url)
        .map_err(|problem| Refusal::new("built-in", format!("the URL {problem}")))?;
    if !grant.urls.iter().any(|pattern| pattern.covers(&target)) {
        let line = format!(
            "downloads.{}.urls = [{}]",
            key(slot),
            quoted(origin_of(url))
        );
        return Err(Refusal::new(
            format!("downloads.{slot}.urls"),
            "no rule of the policy covers this URL",
        )
        .fix(line));
    }
    match target.host {
        AskedHost::Address(ip) => download_host(facts, slot, &target.host, ip, target.port),
        AskedHost::Name(_) => Ok(Some(&grant.uses)),
    }
}

fn download_address<'e>(
    facts: Facts<'e>,
    slot: &str,
    host: &str,
    ip: IpAddr,
    port: u16,
) -> Verdict<'e> {
    match AskedHost::parse(host) {
        Some(host) => download_host(facts, slot, &host, ip, port),
        None => Err(Refusal::new("built-in", "the URL has no valid host")),
    }
}

fn download_host<'e>(
    facts: Facts<'e>,
    slot: &str,
    host: &AskedHost<'_>,
    ip: IpAddr,
    port: u16,
) -> Verdict<'e> {
    let grant = slot_of(
        &facts.effective.downloads,
        Capability::Downloads,
        slot,
        || "urls = [\"https://HOST\"]".to_owned(),
    )?;
    let ip = ip.to_canonical();
    if let Some(found) = facts.deny.destination(ip, port) {
        return Err(forbidden(found));
    }
    if let AskedHost::Address(own) = host
        && *own != ip
    {
        return Err(Refusal::new(
            "built-in",
            format!("{own} is another address"),
        ));
    }
    let mut outcome = Err(Refusal::new(
        format!("downloads.{slot}.urls"),
        "no rule of the policy covers this host",
    ));
    for pattern in grant
        .urls
        .iter()
        .filter(|pattern| pattern.ports.covers(port) && pattern.host.covers(host))
    {
        let found = match &pattern.host {
            HostPattern::Network(_) => Ok(()),
            other => reaches(
                ip,
                grant.inside,
                other.is_literal_name(),
                other.is_localhost(),
            ),
        };
        match found {
            Ok(()) => return Ok(Some(&grant.uses)),
            Err(kind) => outcome = Err(inside_refusal("downloads", slot, &ip, kind)),
        }
    }
    outcome
}

fn probe<'e>(facts: Facts<'e>, slot: &str, ip: IpAddr) -> Verdict<'e> {
    let ip = ip.to_canonical();
    let grant = slot_of(&facts.effective.probe, Capability::Probe, slot, || {
        format!("allow = [{}]", quoted(&ip.to_string()))
    })?;
    if let Some(found) = facts.deny.destination(ip, 0) {
        return Err(forbidden(found));
    }
    if grant.allow.iter().any(|net| net.contains(&ip)) {
        return Ok(Some(&grant.uses));
    }
    let line = format!("probe.{}.allow = [{}]", key(slot), quoted(&ip.to_string()));
    Err(Refusal::new(
        format!("probe.{slot}.allow"),
        "no rule of the policy covers this address",
    )
    .fix(line))
}

/// Headers that belong to the host or to the connection, or would take over other pages of the same origin.
const HOST_HEADERS: [&str; 18] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
    "content-length",
    "date",
    "server",
    "host",
    "set-cookie",
    "strict-transport-security",
    "alt-svc",
    "clear-site-data",
];

fn response_header<'e>(name: &str) -> Verdict<'e> {
    let token = !name.is_empty()
        && name.bytes().all(|b| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&b)
        });
    if !token {
        return Err(Refusal::new(
            "built-in",
            "this is no lower-case header name",
        ));
    }
    if HOST_HEADERS.contains(&name) {
        return Err(Refusal::new("built-in", "this header belongs to the host"));
    }
    Ok(None)
}
