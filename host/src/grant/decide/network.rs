//! Sockets, names, probes and the datagrams of services.

use std::net::{IpAddr, SocketAddr};

use super::super::action::Capability;
use super::super::denial::{Refusal, key, quoted};
use super::super::effective::Inside;
use super::super::matchers::address::{AddressClass, class, embedded};
use super::super::matchers::host::{AskedHost, HostPattern};
use super::super::matchers::socket::Transport;
use super::{Facts, Verdict, forbidden, slot_of};

/// A destination of a rule that names no address: does the rule reach as far inside as the address lies?
pub(super) fn reaches(
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

pub(super) fn socket<'e>(
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
pub(super) fn bind<'e>(facts: Facts<'e>, transport: Transport, addr: SocketAddr) -> Verdict<'e> {
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

pub(super) fn datagram_send<'e>(
    facts: Facts<'e>,
    slot: &str,
    peer: SocketAddr,
    heard: bool,
) -> Verdict<'e> {
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

pub(super) fn resolve<'e>(facts: Facts<'e>, name: &str) -> Verdict<'e> {
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

pub(super) fn probe<'e>(facts: Facts<'e>, slot: &str, ip: IpAddr) -> Verdict<'e> {
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
