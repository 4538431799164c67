//! What a plugin asks for and its policy grants: the intersection, and what is missing on either side.

use std::collections::HashMap;
use std::path::Path;

use super::super::action::Capability;
use super::super::denial::{key, quoted};
use super::super::deny::Deny;
use super::super::effective::*;
use super::super::explain::effective_slot;
use super::super::limits::Limits;
use super::{Granted, Policy, read};
use crate::sandbox::bindings::imports::settings::Value;
use crate::sandbox::bindings::types::{Manifest, Need};
use crate::settings::problem::{Problem, Source};
use crate::settings::reader::Settings;

/// A policy applied to a plugin.
#[derive(Debug, Clone)]
pub struct Resolution {
    /// What the plugin may do. Nothing when there are problems.
    pub effective: Effective,
    /// Needs the policy does not cover, in the manifest's order.
    pub missing: Vec<Missing>,
    /// Grants that no need asks for.
    pub warnings: Vec<Problem>,
    /// Mistakes that show only with the plugin's settings and the host's own places at hand.
    pub problems: Vec<Problem>,
}

impl Resolution {
    /// Whether the plugin can run: no mistakes, and no required need is missing.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.problems.is_empty() && !self.missing.iter().any(|missing| missing.required)
    }
}

/// A need without (enough of) a grant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it needs {capability} `{slot}` ({reason}), but {problem}")]
pub struct Missing {
    /// The capability's word.
    pub capability: String,
    /// The slot.
    pub slot: String,
    /// Why the plugin's author says it is needed.
    pub reason: String,
    /// Whether the plugin waits for it.
    pub required: bool,
    /// What is missing.
    pub problem: String,
    /// Lines to add to the policy. Places in them are examples, to be replaced.
    pub lines: Vec<String>,
}

impl Policy {
    /// Applies the policy to a plugin with its settings. `defaults` are the host's limits for plugins, `deny` its rules for all.
    #[must_use]
    pub fn resolve(
        &self,
        manifest: &Manifest,
        values: &HashMap<String, Value>,
        defaults: &Limits,
        deny: &Deny,
    ) -> Resolution {
        let source = Source {
            path: &self.path,
            text: &self.text,
        };
        let settings = Settings::Known {
            settings: &manifest.settings,
            values,
        };
        let (mut granted, mut problems) = read(source, settings, defaults);
        if self.plugin != manifest.name {
            problems.push(source.problem(
                &(0..0),
                format!(
                    "this policy is for the plugin `{}`, not for `{}`",
                    self.plugin, manifest.name
                ),
                None,
            ));
        }
        refuse_own_places(&mut granted, deny, source, &mut problems);
        refuse_overlaps(&granted, source, &mut problems);
        let mut resolution = Resolution {
            effective: Effective {
                limits: granted.effective.limits.clone(),
                asked: Some(manifest.needs.iter().filter_map(asked).collect()),
                left: super::super::edit::left_to_settings(&self.text).into(),
                ..Effective::nothing(&manifest.name)
            },
            missing: Vec::new(),
            warnings: unasked(&granted, manifest, source),
            problems,
        };
        let usable = resolution.problems.is_empty();
        for need in &manifest.needs {
            let outcome = if usable {
                give(need, &granted, &mut resolution.effective)
            } else {
                Err(Shortage {
                    problem: "the policy has mistakes".to_owned(),
                    lines: Vec::new(),
                })
            };
            if let Err(Shortage { problem, lines }) = outcome {
                resolution.missing.push(Missing {
                    capability: need.capability.clone(),
                    slot: need.slot.clone(),
                    reason: need.reason.clone(),
                    required: need.required,
                    problem,
                    lines,
                });
            }
        }
        take_back_downloads(manifest, &mut resolution);
        resolution
    }
}

fn asked(need: &Need) -> Option<Asked> {
    Some(Asked {
        capability: Capability::parse(&need.capability)?,
        slot: need.slot.clone(),
        access: need.access.clone(),
    })
}

/// Downloads need a directory of the plugin that it may write to.
fn take_back_downloads(manifest: &Manifest, resolution: &mut Resolution) {
    let files = &resolution.effective.files;
    let lost: Vec<_> = resolution
        .effective
        .downloads
        .iter()
        .filter(|(_, grant)| {
            !files
                .get(&grant.into)
                .is_some_and(|held| held.access.writes())
        })
        .map(|(slot, grant)| (slot.clone(), grant.into.clone()))
        .collect();
    for (slot, into) in lost {
        resolution.effective.downloads.remove(&slot);
        let need = manifest
            .needs
            .iter()
            .find(|need| need.capability == Capability::Downloads.word() && need.slot == slot);
        resolution.missing.push(Missing {
            capability: Capability::Downloads.word().to_owned(),
            reason: need.map(|need| need.reason.clone()).unwrap_or_default(),
            required: need.is_some_and(|need| need.required),
            problem: format!("files slot `{into}`, which they go into, is not granted for writing"),
            lines: vec![format!("files.{}.access = \"read-write\"", key(&into))],
            slot,
        });
    }
}

struct Shortage {
    problem: String,
    lines: Vec<String>,
}

impl Shortage {
    fn new(problem: impl Into<String>, lines: impl IntoIterator<Item = String>) -> Self {
        Self {
            problem: problem.into(),
            lines: lines.into_iter().collect(),
        }
    }
}

/// Gives a need what was granted for it, and no more than it asks for.
fn give(need: &Need, granted: &Granted, into: &mut Effective) -> Result<(), Shortage> {
    let Some(capability) = Capability::parse(&need.capability) else {
        return Err(Shortage::new("there is no such capability", []));
    };
    let from = &granted.effective;
    let taken = match capability {
        Capability::Files => take(
            &from.files,
            need,
            &mut into.files,
            |grant| match Access::parse(&need.access) {
                Some(Access::ReadWrite) if !grant.access.writes() => {
                    Narrowed::TooLittle("access = \"read-write\"".to_owned())
                }
                Some(Access::Read) => Narrowed::To(FilesGrant {
                    access: Access::Read,
                    ..grant.clone()
                }),
                _ => Narrowed::Same,
            },
        ),
        Capability::Store => take(
            &from.store,
            need,
            &mut into.store,
            |grant| match Access::parse(&need.access) {
                Some(Access::ReadWrite) if !grant.access.writes() => {
                    Narrowed::TooLittle("access = \"read-write\"".to_owned())
                }
                Some(Access::Read) => Narrowed::To(StoreGrant {
                    access: Access::Read,
                    ..grant.clone()
                }),
                _ => Narrowed::Same,
            },
        ),
        Capability::Secrets => take(&from.secrets, need, &mut into.secrets, |grant| {
            match need.access.as_str() {
                "reveal" if grant.access != SecretAccess::Reveal => {
                    Narrowed::TooLittle("access = \"reveal\"".to_owned())
                }
                "use" => Narrowed::To(SecretGrant {
                    access: SecretAccess::Use,
                    ..grant.clone()
                }),
                _ => Narrowed::Same,
            }
        }),
        Capability::Sockets => take(&from.sockets, need, &mut into.sockets, |grant| {
            let asked = |rule: &super::super::matchers::socket::SocketRule| {
                need.access.is_empty()
                    || need
                        .access
                        .split([',', ' ', '+'])
                        .any(|word| word == rule.transport.word())
            };
            let allow: Vec<_> = grant
                .allow
                .iter()
                .filter(|rule| asked(rule))
                .cloned()
                .collect();
            if allow.is_empty() {
                Narrowed::TooLittle(format!(
                    "allow = [{}]",
                    quoted(&format!("{} HOST:PORT", need.access))
                ))
            } else {
                Narrowed::To(SocketsGrant {
                    allow,
                    ..grant.clone()
                })
            }
        }),
        Capability::Call => take(&from.call, need, &mut into.call, |_| Narrowed::Same),
        Capability::Listen => take(&from.listen, need, &mut into.listen, |_| Narrowed::Same),
        Capability::Names => take(&from.names, need, &mut into.names, |_| Narrowed::Same),
        Capability::Http => take(&from.http, need, &mut into.http, |_| Narrowed::Same),
        Capability::Foreman => take(&from.foreman, need, &mut into.foreman, |_| Narrowed::Same),
        Capability::Downloads => take(&from.downloads, need, &mut into.downloads, |_| {
            Narrowed::Same
        }),
        Capability::Watch => take(&from.watch, need, &mut into.watch, |_| Narrowed::Same),
        Capability::Probe => take(&from.probe, need, &mut into.probe, |_| Narrowed::Same),
        Capability::Link => take(&from.link, need, &mut into.link, |_| Narrowed::Same),
        Capability::Answers => return Err(Shortage::new("every plugin has it", [])),
    };
    let place = format!("{capability}.{}", key(&need.slot));
    match taken {
        Taken::Fully => Ok(()),
        Taken::Partly(line) => Err(Shortage::new(
            "the policy grants less",
            [format!("{place}.{line}")],
        )),
        Taken::Nothing => {
            let unset = granted
                .unset
                .iter()
                .find(|(kind, slot, _)| *kind == capability && *slot == need.slot);
            match unset {
                Some((_, _, setting)) => Err(Shortage::new(
                    format!("the setting `{setting}` that names the place has no value"),
                    [],
                )),
                None => Err(Shortage::new(
                    "the policy grants nothing for it",
                    example_lines(capability, need),
                )),
            }
        }
    }
}

enum Narrowed<G> {
    Same,
    To(G),
    /// The grant stands, but the need asks for more: the line that would give it.
    TooLittle(String),
}

enum Taken {
    Fully,
    Partly(String),
    Nothing,
}

fn take<G: Clone>(
    from: &Slots<G>,
    need: &Need,
    into: &mut Slots<G>,
    narrow: impl FnOnce(&G) -> Narrowed<G>,
) -> Taken {
    let Some(grant) = from.get(&need.slot) else {
        return Taken::Nothing;
    };
    let slot = effective_slot(need).to_owned();
    match narrow(grant) {
        Narrowed::Same => {
            into.insert(slot, grant.clone());
            Taken::Fully
        }
        Narrowed::To(less) => {
            into.insert(slot, Slot::new(less));
            Taken::Fully
        }
        Narrowed::TooLittle(line) => {
            into.insert(slot, grant.clone());
            Taken::Partly(line)
        }
    }
}

/// Lines that would grant a need, with example places.
fn example_lines(capability: Capability, need: &Need) -> Vec<String> {
    let place = format!("{capability}.{}", key(&need.slot));
    let access = || format!("{place}.access = {}", quoted(&need.access));
    let protocol = if need.access == "udp" { "udp" } else { "tcp" };
    match capability {
        Capability::Files => vec![
            format!("{place}.directory = \"/path/to/directory\""),
            access(),
        ],
        Capability::Watch => vec![format!("{place}.files = [\"/path/to/file\"]")],
        Capability::Store => vec![access()],
        Capability::Secrets => vec![format!("{place}.file = \"/path/to/secret\""), access()],
        Capability::Call => vec![format!("{place}.plugin = \"PLUGIN\"")],
        Capability::Listen => vec![format!("{place}.sockets = [\"udp 0.0.0.0:PORT\"]")],
        Capability::Probe => vec![format!("{place}.allow = [\"192.0.2.0/24\"]")],
        Capability::Link => vec![format!("{place}.interfaces = [\"eth0\"]")],
        Capability::Sockets => vec![format!("{place}.allow = [\"{protocol} HOST:PORT\"]")],
        Capability::Names => vec![format!("{place}.allow = [\"HOST\"]")],
        Capability::Http => vec![format!("{place}.url = \"https://HOST\"")],
        Capability::Foreman => vec![format!("{place}.allow = [\"GET /path\"]")],
        Capability::Downloads => vec![
            format!("{place}.urls = [\"https://HOST\"]"),
            format!("{place}.into = \"FILES-SLOT\""),
        ],
        Capability::Answers => Vec::new(),
    }
}

/// Grants that no need asks for. Secrets that fill headers are for the host, not for the plugin.
fn unasked(granted: &Granted, manifest: &Manifest, source: Source<'_>) -> Vec<Problem> {
    let asked = |capability: Capability, slot: &str| {
        manifest
            .needs
            .iter()
            .any(|need| need.capability == capability.word() && need.slot == slot)
            || (capability == Capability::Secrets && granted.injected.iter().any(|own| own == slot))
    };
    let told = |capability: Capability, slot: &str, span| {
        let slots: Vec<_> = manifest
            .needs
            .iter()
            .filter(|need| need.capability == capability.word())
            .map(|need| need.slot.as_str())
            .collect();
        let help = crate::settings::reader::nearest(slot, slots.into_iter());
        source.problem(
            span,
            format!(
                "`{capability}.{slot}` grants what the plugin does not ask for; it gives nothing"
            ),
            help,
        )
    };
    granted
        .places
        .iter()
        .filter(|(capability, slot, _)| !asked(*capability, slot))
        .map(|(capability, slot, span)| told(*capability, slot, span))
        .collect()
}

/// The place with links resolved as far as it exists: what a grant of `path` is a grant of. Blocks.
#[must_use]
pub fn real_place(path: &Path) -> std::path::PathBuf {
    let mut rest = Vec::new();
    let mut known = path;
    loop {
        if let Ok(found) = std::fs::canonicalize(known) {
            return rest
                .iter()
                .rev()
                .fold(found, |whole, part| whole.join(part));
        }
        let (Some(parent), Some(name)) = (known.parent(), known.file_name()) else {
            return path.to_owned();
        };
        rest.push(name.to_owned());
        known = parent;
    }
}

fn place_of(target: &FilesTarget) -> &Path {
    match target {
        FilesTarget::Directory(path) | FilesTarget::File(path) => path,
    }
}

/// No grant may lie in, or hold, what belongs to the host.
fn refuse_own_places(
    granted: &mut Granted,
    deny: &Deny,
    source: Source<'_>,
    problems: &mut Vec<Problem>,
) {
    let effective = &granted.effective;
    let files = effective
        .files
        .iter()
        .map(|(slot, grant)| (Capability::Files, slot, place_of(&grant.target)));
    let watch = effective.watch.iter().flat_map(|(slot, grant)| {
        let paths = grant.place.paths().iter();
        paths.map(move |path| (Capability::Watch, slot, path.as_path()))
    });
    for (capability, slot, path) in files.chain(watch) {
        if let Some(found) = deny.path(&real_place(path)) {
            problems.push(source.problem(
                &span_of(granted, capability, slot),
                format!("`{capability}.{slot}`: {}", found.reason),
                None,
            ));
        }
    }
}

/// Two slots of one plugin that overlap would let one undo the other: a read-only tree inside a writable one, or the file of a
/// secret in a directory the plugin reads.
fn refuse_overlaps(granted: &Granted, source: Source<'_>, problems: &mut Vec<Problem>) {
    let effective = &granted.effective;
    for (slot, grant) in &effective.files {
        let FilesTarget::Directory(directory) = &grant.target else {
            continue;
        };
        let directory = real_place(directory);
        let inside = |path: &Path| real_place(path).starts_with(&directory);
        for (other, held) in effective.files.iter().filter(|(other, _)| *other != slot) {
            if grant.access.writes() && !held.access.writes() && inside(place_of(&held.target)) {
                let message = format!(
                    "`files.{other}` is read-only, but lies in `files.{slot}`, where the plugin may write"
                );
                problems.push(source.problem(
                    &span_of(granted, Capability::Files, other),
                    message,
                    None,
                ));
            }
        }
        for (secret, held) in &effective.secrets {
            if let SecretSource::File(path) = &held.source
                && inside(path)
            {
                let message = format!(
                    "the file of `secrets.{secret}` lies in `files.{slot}`, where the plugin could read it"
                );
                problems.push(source.problem(
                    &span_of(granted, Capability::Secrets, secret),
                    message,
                    None,
                ));
            }
        }
    }
}

fn span_of(granted: &Granted, capability: Capability, slot: &str) -> std::ops::Range<usize> {
    let found = granted
        .places
        .iter()
        .find(|(kind, name, _)| *kind == capability && name == slot);
    found.map_or(0..0, |(_, _, span)| span.clone())
}
