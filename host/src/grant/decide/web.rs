//! HTTP, Foreman and downloads: URLs first, then the addresses their hosts resolve to.

use std::net::IpAddr;

use super::super::action::Capability;
use super::super::denial::{Refusal, key, quoted};
use super::super::effective::HttpGrant;
use super::super::matchers::address::AddressClass;
use super::super::matchers::host::{AskedHost, HostPattern, is_localhost};
use super::super::matchers::path::split_target;
use super::super::matchers::url::TargetUrl;
use super::network::reaches;
use super::{Facts, Verdict, forbidden, slot_of};

pub(super) fn http<'e>(facts: Facts<'e>, slot: &str, method: &str, url: &str) -> Verdict<'e> {
    let line = || {
        let url = format!("url = {}", quoted(origin_of(url)));
        match method {
            "GET" => url,
            method => format!("{{ {url}, methods = [{}] }}", quoted(method)),
        }
    };
    let grant = slot_of(&facts.effective.http, Capability::Http, slot, line)?;
    let target = TargetUrl::parse(url)
        .map_err(|problem| Refusal::new("built-in", format!("the URL {problem}")))?;
    let Some(path) = below(grant, slot, &target)? else {
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

/// The path below the grant's base. Where the grant lists networks, their addresses stand in for the base's host, and no name does.
fn below<'u>(
    grant: &HttpGrant,
    slot: &str,
    target: &'u TargetUrl<'_>,
) -> Result<Option<&'u str>, Refusal> {
    let url = &grant.url;
    if grant.networks.is_empty() {
        return Ok(url.below(target));
    }
    let AskedHost::Address(ip) = &target.host else {
        return Err(Refusal::new(
            format!("http.{slot}.networks"),
            "the slot is granted for addresses, not for names",
        ));
    };
    if !grant.networks.iter().any(|network| network.contains(ip)) {
        let line = format!(
            "http.{}.networks = [{}]",
            key(slot),
            quoted(&ip.to_string())
        );
        return Err(Refusal::new(
            format!("http.{slot}.networks"),
            format!("{ip} is in none of the policy's networks"),
        )
        .fix(line));
    }
    Ok(url.below_any_host(target))
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

pub(super) fn http_address<'e>(facts: Facts<'e>, slot: &str, ip: IpAddr, port: u16) -> Verdict<'e> {
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
    let HttpGrant {
        url,
        networks,
        inside,
        ..
    } = &**grant;
    if !networks.is_empty() {
        // Written-out networks reach what they write, inside or not.
        return if networks.iter().any(|network| network.contains(&ip)) {
            Ok(Some(&grant.uses))
        } else {
            Err(Refusal::new(
                format!("http.{slot}.networks"),
                format!("{ip} is in none of the policy's networks"),
            ))
        };
    }
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

pub(super) fn foreman<'e>(facts: Facts<'e>, slot: &str, method: &str, path: &str) -> Verdict<'e> {
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

pub(super) fn download<'e>(facts: Facts<'e>, slot: &str, url: &str) -> Verdict<'e> {
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

pub(super) fn download_address<'e>(
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
