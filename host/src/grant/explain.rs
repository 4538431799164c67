//! What a plugin asked for, what it was given, and what it used: the data behind `bulkhead policy explain`.
//!
//! Also the one place that puts a grant into a sentence an operator can check at a glance.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::action::Capability;
use super::effective::*;
use super::guard::Guard;
use crate::sandbox::bindings::types::{Manifest, Need};

/// One need, or one grant that no need asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The capability's word.
    pub capability: String,
    /// The slot.
    pub slot: String,
    /// What the plugin asks to do there, in the capability's words; may be empty.
    pub access: String,
    /// Why, in the words of the plugin's author. Empty for a grant without a need.
    pub reason: String,
    /// Whether the plugin cannot run without it.
    pub required: bool,
    /// What it was given, as a sentence. None: nothing.
    pub granted: Option<String>,
    /// Allowed actions since the host started.
    pub used: u64,
    /// Remembered denials. Those of actions that name no slot count for each need of the capability.
    pub denied: u64,
}

/// Rows in the manifest's order.
#[must_use]
pub fn explain(manifest: &Manifest, guard: &Guard) -> Vec<Row> {
    let effective = guard.effective();
    let denials = guard.host().audit().denials(Some(guard.plugin()));
    let row = |need: &Need| {
        let slot = effective_slot(need);
        let (granted, used) = granted(&effective, &need.capability, slot)
            .map_or((None, 0), |(text, used)| (Some(text), used));
        let of_this = |known: &&super::audit::Remembered| {
            let denial = &known.denial;
            denial.capability.word() == need.capability
                && (denial.slot == slot || denial.slot.is_empty())
        };
        Row {
            capability: need.capability.clone(),
            slot: need.slot.clone(),
            access: need.access.clone(),
            reason: need.reason.clone(),
            required: need.required,
            granted,
            used,
            denied: denials
                .iter()
                .filter(of_this)
                .map(|known| known.count)
                .sum(),
        }
    };
    manifest.needs.iter().map(row).collect()
}

/// Under which key the rights of a need stand: calls by interface, all others by slot.
pub(crate) fn effective_slot(need: &Need) -> &str {
    if need.capability == Capability::Call.word() && !need.access.is_empty() {
        &need.access
    } else {
        &need.slot
    }
}

/// The grant of a slot as a sentence, and how often it was used.
#[must_use]
pub fn granted(effective: &Effective, capability: &str, slot: &str) -> Option<(String, u64)> {
    fn told<G: fmt::Display>(slots: &Slots<G>, slot: &str) -> Option<(String, u64)> {
        slots
            .get(slot)
            .map(|grant| (grant.to_string(), grant.uses.total()))
    }
    match Capability::parse(capability)? {
        Capability::Files => told(&effective.files, slot),
        Capability::Sockets => told(&effective.sockets, slot),
        Capability::Listen => told(&effective.listen, slot),
        Capability::Names => told(&effective.names, slot),
        Capability::Http => told(&effective.http, slot),
        Capability::Foreman => told(&effective.foreman, slot),
        Capability::Store => told(&effective.store, slot),
        Capability::Secrets => told(&effective.secrets, slot),
        Capability::Call => told(&effective.call, slot),
        Capability::Downloads => told(&effective.downloads, slot),
        Capability::Watch => told(&effective.watch, slot),
        Capability::Probe => told(&effective.probe, slot),
        Capability::Link => told(&effective.link, slot),
        Capability::Answers => None,
    }
}

/// Everything a plugin may reach, one sentence a slot: `files root: read-write below /srv/tftp ...`.
#[must_use]
pub fn reach(effective: &Effective) -> Vec<String> {
    fn tell<G: fmt::Display>(lines: &mut Vec<String>, capability: Capability, slots: &Slots<G>) {
        lines.extend(
            slots
                .iter()
                .map(|(slot, grant)| format!("{capability} {slot}: {}", **grant)),
        );
    }
    let mut lines = Vec::new();
    tell(&mut lines, Capability::Files, &effective.files);
    tell(&mut lines, Capability::Sockets, &effective.sockets);
    tell(&mut lines, Capability::Listen, &effective.listen);
    tell(&mut lines, Capability::Names, &effective.names);
    tell(&mut lines, Capability::Http, &effective.http);
    tell(&mut lines, Capability::Foreman, &effective.foreman);
    tell(&mut lines, Capability::Store, &effective.store);
    tell(&mut lines, Capability::Secrets, &effective.secrets);
    tell(&mut lines, Capability::Call, &effective.call);
    tell(&mut lines, Capability::Downloads, &effective.downloads);
    tell(&mut lines, Capability::Watch, &effective.watch);
    tell(&mut lines, Capability::Probe, &effective.probe);
    tell(&mut lines, Capability::Link, &effective.link);
    lines
}

impl<G: fmt::Display> fmt::Display for Slot<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl fmt::Display for FilesTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "below {}", path.display()),
            Self::File(path) => write!(f, "the file {}", path.display()),
        }
    }
}

impl fmt::Display for FilesGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.access.word(), self.target)?;
        if self.access.writes() {
            write!(
                f,
                ", at most {} in {} files",
                Size(self.quota.bytes),
                self.quota.files
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Inside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.private, self.loopback) {
            (false, false) => "",
            (true, false) => ", private addresses too",
            (false, true) => ", this machine too",
            (true, true) => ", private addresses and this machine too",
        })
    }
}

impl fmt::Display for SocketsGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}{}, {} open at a time",
            List(&self.allow),
            self.inside,
            self.open
        )
    }
}

impl fmt::Display for NamesGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "resolve {}", List(&self.allow))
    }
}

impl fmt::Display for HttpGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} below {}{}",
            self.methods.join(", "),
            List(&self.paths),
            self.url,
            self.inside
        )?;
        if !self.networks.is_empty() {
            write!(f, ", where {} stand in for its host", List(&self.networks))?;
        }
        if self.tls.unverified {
            f.write_str(", certificates unverified")?;
        }
        for injection in &self.inject {
            write!(
                f,
                ", header {} from secret {}",
                injection.header, injection.slot
            )?;
        }
        write!(f, ", within {}", Time(self.timeout))
    }
}

impl fmt::Display for ForemanGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, within {}", List(&self.allow), Time(self.timeout))
    }
}

impl fmt::Display for StoreGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.space {
            Space::Own => write!(f, "{} its own keys", self.access.word())?,
            Space::Shared(name) => write!(f, "{} the shared keys of `{name}`", self.access.word())?,
        }
        write!(f, ", at most {} in {} keys", Size(self.bytes), self.keys)
    }
}

impl fmt::Display for SecretGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.access {
            SecretAccess::Use => "use ",
            SecretAccess::Reveal => "see ",
        })?;
        match &self.source {
            SecretSource::File(path) => write!(f, "the secret in {}", path.display()),
            SecretSource::Credential(name) => write!(f, "the credential {name}"),
            SecretSource::Value(_) => f.write_str("the secret of a setting"),
        }
    }
}

impl fmt::Display for CallGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "served by plugin {}", self.plugin)
    }
}

impl fmt::Display for DownloadsGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} into files slot {}{}",
            List(&self.urls),
            self.into,
            self.inside
        )?;
        write!(
            f,
            ", at most {} within {} each, {} at a time",
            Size(self.size),
            Time(self.time),
            self.concurrent
        )?;
        if self.verify {
            Ok(())
        } else {
            f.write_str(", CERTIFICATES NOT CHECKED")
        }
    }
}

impl fmt::Display for ListenGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", List(&self.sockets))?;
        if let Some(interface) = &self.interface {
            write!(f, " on {interface}")?;
        }
        if !self.peers.is_empty() {
            write!(f, ", sends unasked to {}", List(&self.peers))?;
        }
        if self.broadcast {
            f.write_str(", broadcasts")
        } else {
            Ok(())
        }
    }
}

impl fmt::Display for WatchGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("read and follow ")?;
        for (n, path) in self.place.paths().iter().enumerate() {
            let comma = if n == 0 { "" } else { ", " };
            write!(f, "{comma}{}", path.display())?;
        }
        match self.hide {
            Hide::Nothing => Ok(()),
            Hide::IscKeySecrets => f.write_str(", without the secrets of keys"),
        }
    }
}

impl fmt::Display for ProbeGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} a second", List(&self.allow), self.rate)
    }
}

impl fmt::Display for LinkGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "UDP port {} and frames on {}",
            self.port,
            self.interfaces.join(", ")
        )
    }
}

struct List<'a, T>(&'a [T]);

impl<T: fmt::Display> fmt::Display for List<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, item) in self.0.iter().enumerate() {
            let comma = if n == 0 { "" } else { ", " };
            write!(f, "{comma}{item}")?;
        }
        Ok(())
    }
}

/// Bytes in the largest unit that shows them without a fraction.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [
            (1 << 40, "TiB"),
            (1 << 30, "GiB"),
            (1 << 20, "MiB"),
            (1 << 10, "KiB"),
        ];
        match units
            .into_iter()
            .find(|(size, _)| self.0 >= *size && self.0.is_multiple_of(*size))
        {
            Some((size, unit)) => write!(f, "{}{unit}", self.0 / size),
            None => write!(f, "{}B", self.0),
        }
    }
}

/// A time in the largest unit that shows it without a fraction.
struct Time(Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        let units = [(3_600_000, "h"), (60_000, "m"), (1000, "s")];
        match units
            .into_iter()
            .find(|(size, _)| ms >= *size && ms.is_multiple_of(*size))
        {
            Some((size, unit)) => write!(f, "{}{unit}", ms / size),
            None => write!(f, "{ms}ms"),
        }
    }
}
