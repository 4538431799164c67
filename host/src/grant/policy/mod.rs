//! A plugin's policy: the file in which an operator binds the plugin's slots to places.
//!
//! ```toml
//! plugin = "tftp"                        # the plugin it is for
//! approved = ["sha256:..."]              # components it is for; others by `bulkhead plugin approve`
//!
//! [files.root]                           # capability.slot
//! directory = { setting = "tftproot" }   # a setting that names a place is the grant: there are never two truths
//! access = "read-write"
//! reason = "Foreman's boot menus"        # for people, in every grant
//!
//! [limits]
//! memory = "128MiB"
//! ```
//!
//! Every key of every capability is listed at the function that reads it: [`places`] (files, watch, store, secrets, call,
//! listen, probe, link) and [`network`] (sockets, names, http, foreman, downloads). What is not there does not exist: an unknown
//! key is a mistake, and a policy with a mistake grants nothing at all.
//!
//! Reading a policy gives what it grants; [`Policy::resolve`] then keeps only what the plugin also asks for.

mod network;
mod places;
mod resolve;

#[cfg(test)]
#[rustfmt::skip]
mod keys;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::action::Capability;
use super::approvals::Digest;
use super::effective::{Effective, Slot, Slots};
use super::limits::Limits;
use crate::settings::problem::Source;
pub use crate::settings::problem::{Problem, Problems};
use crate::settings::reader::{Given, Reading, Settings, Table};
pub(crate) use places::limits;
pub use resolve::{Missing, Resolution, real_place};

/// A policy file that holds no mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    path: PathBuf,
    text: String,
    plugin: String,
    approved: Vec<Digest>,
}

impl Policy {
    /// Reads a policy. Settings it refers to are looked up later, in [`Policy::resolve`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, Problems> {
        let (granted, problems) =
            read(Source { path, text }, Settings::Unknown, &Limits::default());
        if problems.is_empty() {
            let Granted {
                effective,
                approved,
                ..
            } = granted;
            Ok(Self {
                path: path.to_owned(),
                text: text.to_owned(),
                plugin: effective.plugin.to_string(),
                approved,
            })
        } else {
            Err(Problems(problems))
        }
    }

    /// A policy that grants nothing, for a plugin that has no policy file. `path` is where the file would be.
    #[must_use]
    pub fn nothing(path: &Path, plugin: &str) -> Self {
        let text = format!("plugin = {}\n", super::denial::quoted(plugin));
        Self {
            path: path.to_owned(),
            text,
            plugin: plugin.to_owned(),
            approved: Vec::new(),
        }
    }

    /// The plugin it is for.
    #[must_use]
    pub fn plugin(&self) -> &str {
        &self.plugin
    }

    /// Components it is for.
    #[must_use]
    pub fn approved(&self) -> &[Digest] {
        &self.approved
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The policy with a line added, checked: the text to write is [`Policy::text`]. Comments stay.
    pub fn with_line(&self, line: &str) -> Result<Self, AddLine> {
        let text = super::edit::add_line(&self.text, line)?;
        Self::parse(&self.path, &text).map_err(AddLine::Policy)
    }
}

/// Why a line was not added to a policy.
#[derive(Debug, thiserror::Error)]
pub enum AddLine {
    /// The line itself.
    #[error(transparent)]
    Line(#[from] super::edit::EditError),
    /// The policy with that line would be wrong.
    #[error("with that line the policy would be wrong: {0}")]
    Policy(Problems),
}

/// What a policy grants, whether or not the plugin asks for it.
struct Granted {
    effective: Effective,
    approved: Vec<Digest>,
    /// Slots whose place is a setting without value: capability, slot, setting.
    unset: Vec<(Capability, String, String)>,
    /// Where each slot stands in the file.
    places: Vec<(Capability, String, Range<usize>)>,
    /// Secrets the host fills into headers.
    injected: Vec<String>,
}

/// Reads the whole file.
fn read(source: Source<'_>, settings: Settings<'_>, defaults: &Limits) -> (Granted, Vec<Problem>) {
    let mut granted = Granted {
        effective: Effective::nothing(""),
        approved: Vec::new(),
        unset: Vec::new(),
        places: Vec::new(),
        injected: Vec::new(),
    };
    let (document, errors) = DeTable::parse_recoverable(source.text);
    if !errors.is_empty() {
        let told = |error: &toml::de::Error| {
            source.problem(
                &error.span().unwrap_or(0..0),
                format!("not TOML: {}", source.mistake(error)),
                None,
            )
        };
        return (granted, errors.iter().map(told).collect());
    }
    let reading = Reading::new(source, settings);
    let root = Table::new(document.get_ref(), String::new(), 0..0);
    match reading.text(&root, "plugin") {
        Given::Is((name, _)) => granted.effective.plugin = name.into(),
        _ => {
            if reading.found_problems() == 0 {
                reading.problem(
                    &(0..0),
                    "`plugin` is missing: the plugin this policy is for",
                    None,
                );
            }
        }
    }
    let digest = |text: &str| {
        text.parse::<Digest>()
            .map_err(|error| (error.to_string(), None))
    };
    granted.approved = reading.texts(&root, "approved", digest).or(Vec::new());
    read_slots(&reading, &root, &mut granted);
    granted.effective.limits = places::limits(&reading, &root, defaults);
    reading.finish(&root);
    let mut problems = reading.problems();
    problems.sort_by_key(|problem| (problem.line, problem.column));
    (granted, problems)
}

fn read_slots(reading: &Reading<'_>, root: &Table<'_>, granted: &mut Granted) {
    let mut effective = std::mem::replace(&mut granted.effective, Effective::nothing(""));
    let mut section = Section {
        reading,
        root,
        granted,
    };
    section.read(Capability::Files, &mut effective.files, places::files);
    section.read(Capability::Watch, &mut effective.watch, places::watch);
    section.read(Capability::Store, &mut effective.store, places::store);
    section.read(Capability::Secrets, &mut effective.secrets, places::secret);
    section.read(Capability::Call, &mut effective.call, places::call);
    section.read(Capability::Listen, &mut effective.listen, places::listen);
    section.read(Capability::Probe, &mut effective.probe, places::probe);
    section.read(Capability::Link, &mut effective.link, places::link);
    section.read(
        Capability::Sockets,
        &mut effective.sockets,
        network::sockets,
    );
    section.read(Capability::Names, &mut effective.names, network::names);
    section.read(
        Capability::Foreman,
        &mut effective.foreman,
        network::foreman,
    );
    let mut injected = Vec::new();
    let secrets = &effective.secrets;
    section.read(Capability::Http, &mut effective.http, |reading, table| {
        network::http(reading, table, secrets, &mut injected)
    });
    let files = &effective.files;
    section.read(
        Capability::Downloads,
        &mut effective.downloads,
        |reading, table| network::downloads(reading, table, files),
    );
    granted.injected = injected;
    granted.effective = effective;
}

/// Reads the slots of one capability after another.
struct Section<'r, 's, 't, 'g> {
    reading: &'r Reading<'s>,
    root: &'r Table<'t>,
    granted: &'g mut Granted,
}

impl<'s, 't> Section<'_, 's, 't, '_> {
    fn read<G>(
        &mut self,
        capability: Capability,
        into: &mut Slots<G>,
        mut slot: impl FnMut(&Reading<'s>, &Table<'t>) -> Given<G>,
    ) {
        let Given::Is(section) = self.reading.table(self.root, capability.word()) else {
            return;
        };
        for (name, table) in self.reading.slots(&section) {
            self.granted
                .places
                .push((capability, name.to_owned(), table.span.clone()));
            let found = slot(self.reading, &table);
            self.reading.text(&table, "reason");
            self.reading.finish(&table);
            match found {
                Given::Is(grant) => {
                    into.insert(name.to_owned(), Slot::new(grant));
                }
                Given::Unset(setting) => {
                    self.granted
                        .unset
                        .push((capability, name.to_owned(), setting))
                }
                Given::Absent | Given::Wrong => {}
            }
        }
    }
}
