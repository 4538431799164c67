//! The one function that says yes or no.
//!
//! [`decide`] is total (every action has an answer), pure (it reads rights, records and the clock, and changes nothing) and
//! allocates only for a "no". Order: what no policy can allow, then the operator's rules for all, then the plugin's grants.

mod headers;
mod network;
mod web;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use std::time::Instant;

use super::action::{Action, Capability};
use super::denial::{Denial, Refusal, key, quoted};
use super::deny::{Deny, Forbidden};
use super::effective::{Effective, FilesTarget, SecretAccess, Slots, Uses, WatchPlace};
use super::matchers::socket::Transport;
use super::resolved::Resolved;
use headers::response_header;
use network::{bind, datagram_send, probe, resolve, socket};
use web::{download, download_address, foreman, http, http_address};

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
        Action::SendFrom { .. } => Err(Refusal::new(
            "built-in",
            "answers leave from the address at which they were asked for, or from one that the host chooses",
        )),
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
                let file = "file = \"/path/to/secret\"";
                match reveal {
                    true => format!("{{ {file}, access = \"reveal\" }}"),
                    false => file.to_owned(),
                }
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
        Action::Watch { slot, path } => {
            let files = || format!("files = [{}]", quoted(path));
            let grant = slot_of(&rights.watch, Capability::Watch, slot, files)?;
            let shown = match &grant.place {
                // That the path leads nowhere else is seen when it is walked.
                WatchPlace::Directory(_) => !path.starts_with('/'),
                WatchPlace::Files(own) => own.iter().any(|own| own.as_os_str() == path),
            };
            if shown {
                return Ok(Some(&grant.uses));
            }
            let line = format!("watch.{}.{}", key(slot), files());
            Err(Refusal::new(format!("watch.{slot}"), "the policy names other files").fix(line))
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

/// The granted slot, or the refusal that shows the line which would grant it: `line` answers a key and its value, or a whole inline table.
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
        .fix(match line() {
            table if table.starts_with('{') => format!("{capability}.{} = {table}", key(slot)),
            line => format!("{capability}.{}.{line}", key(slot)),
        })
    })
}

fn forbidden(found: Forbidden) -> Refusal {
    Refusal::new(found.rule, found.reason)
}

fn file_open<'e>(facts: Facts<'e>, slot: &str, path: &str, write: bool) -> Verdict<'e> {
    let grant = slot_of(&facts.effective.files, Capability::Files, slot, || {
        let directory = "directory = \"/path/to/directory\"";
        match write {
            true => format!("{{ {directory}, access = \"read-write\" }}"),
            false => directory.to_owned(),
        }
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
