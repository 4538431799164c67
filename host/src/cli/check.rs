//! `bulkhead check`: everything `serve` would refuse, without starting.

use std::io::Write;

use clap::Args;

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::exit::Failure;
use super::host::{deny, foreman_trust};
use super::place::{DEFAULT_CONFIG, Place, default_state};
use super::policy::show_problems;
use super::print::Listing;
use crate::grant::policy::Policy;
use crate::plugin::compile::Compiler;
use crate::plugin::registry::Bundled;
use crate::plugin::settings::Lists;
use crate::sandbox::{Engine, Runtimes};
use crate::server::{Tls, tls_files};
use crate::settings::problem::{self, Source};
use crate::settings::{Config, Problem};

/// Check the configuration and all policies without starting
///
/// Shows every problem at once, with file, line, column and what was expected. Exit code 3 if there is one.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    bulkhead check\n  \
    bulkhead check --config ./proxy.toml\n  \
    bulkhead check --format json | jq -r '.[].message'")]
pub struct Check {
    /// Where configuration and state are.
    #[command(flatten)]
    pub place: Place,

    /// How problems are shown.
    #[command(flatten)]
    pub listing: Listing,
}

impl Check {
    /// Prints the problems.
    pub fn run(self, bundled: &[Bundled], out: &mut dyn Write) -> Result<(), Failure> {
        let Some(file) = self.place.config_file() else {
            return Err(Failure::Configuration(format!(
                "there is no configuration to check: name one with --config (or make {DEFAULT_CONFIG}); without one `bulkhead serve` starts a trial"
            )));
        };
        let state = match self.place.state_directory() {
            // It cannot be made out of a file with broken syntax, whose mistakes are told below.
            Err(Failure::Configuration(_)) if self.place.profile.is_none() => default_state(),
            other => other?,
        };
        let problems = problems(&file, &state, bundled)?;
        if problems.is_empty() {
            // Good as a whole; but there may be no such profile.
            self.place.configuration()?;
        }
        show_problems(
            &problems,
            self.listing.format,
            out,
            &format!(
                "{}: good (whether the files and servers it names are there, `bulkhead doctor` tells)",
                file.display()
            ),
        )
    }
}

/// Every mistake of the configuration, the policies, and the settings of plugins, in the order of the files.
pub(super) fn problems(
    file: &Path,
    state: &Path,
    bundled: &[Bundled],
) -> Result<Vec<Problem>, Failure> {
    let (config, mut problems) = Config::survey(file, state);
    if let Some(config) = &config {
        problems.extend(unusable(config, file));
        problems.extend(policies(config));
        problems.extend(settings(config, bundled)?);
    }
    // Those of one file together, the configuration first; files keep their order.
    let of = |problem: &Problem| (problem.file != file, problem.file.clone());
    problems.sort_by_key(|problem| (of(problem), problem.line, problem.column));
    Ok(problems)
}

/// A mistake in what stands under a key at the top of the configuration.
fn at(file: &Path, key: &str, message: &str, help: Option<String>) -> Problem {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let (table, _) = DeTable::parse_recoverable(&text);
    let span = table.get_ref().get(key).map_or(0..0, |it| it.span());
    let source = Source {
        path: file,
        text: &text,
    };
    source.problem(&span, format!("`{key}`: {message}"), help)
}

/// What the configuration names, and a start could not use.
pub(super) fn unusable(config: &Config, file: &Path) -> Vec<Problem> {
    let mut problems: Vec<_> = state_directory(config, file).into_iter().collect();
    problems.extend(certificates(config, file));
    problems
}

/// That there cannot be a state directory where the file wants it.
fn state_directory(config: &Config, file: &Path) -> Option<Problem> {
    let there = config.state.ancestors().find(|it| it.exists())?;
    let message = format!("{} is no directory", there.display());
    let help = "name a directory that only the proxy uses; it is made where its parent is there";
    (!there.is_dir()).then(|| at(file, "state", &message, Some(help.into())))
}

/// Certificates and keys that are there and cannot be used. That one cannot be opened is told with the key that names it.
fn certificates(config: &Config, file: &Path) -> Vec<Problem> {
    let there = |path: &PathBuf| std::fs::File::open(path).is_ok();
    let at = |section: &str, message: String| at(file, section, &message, None);
    let mut problems = Vec::new();
    if let Some(files) = tls_files(config).filter(|it| it.paths().all(there))
        && let Err(error) = Tls::load(files)
    {
        problems.push(at("tls", error.to_string()));
    }
    if let Some(foreman) = &config.foreman {
        let trust = foreman_trust(foreman);
        if trust.paths().all(there)
            && let Err(error) = trust.usable()
        {
            problems.push(at("foreman", error.to_string()));
        }
    }
    problems
}

/// Problems of all policy files.
fn policies(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    let whole = |file: &Path, message: String, help: Option<String>| Problem {
        file: file.to_owned(),
        line: 1,
        column: 1,
        message,
        help,
        setting: None,
    };
    let mut found = Vec::new();
    if let Some(directory) = &config.plugins.policies {
        match std::fs::read_dir(directory) {
            Ok(entries) => found.extend(
                entries
                    .flatten()
                    .map(|it| it.path())
                    .filter(|it| it.extension().is_some_and(|it| it == "toml")),
            ),
            // Told already, at the key that names it.
            Err(_) if !directory.is_dir() => {}
            Err(error) => {
                problems.push(whole(directory, format!("cannot be read: {error}"), None));
            }
        }
    }
    found.sort();
    for path in found {
        let text = match problem::read(&path) {
            Ok(text) => text,
            Err(unread) => {
                problems.push(unread);
                continue;
            }
        };
        match Policy::parse(&path, &text) {
            Ok(policy) => {
                let name = path.file_stem().unwrap_or_default().to_string_lossy();
                let says = policy.plugin();
                if name != says {
                    let message = format!(
                        "the file is read for the plugin `{name}`, and says that it is for `{says}`"
                    );
                    let help = format!("call it {says}.toml, or write `plugin = \"{name}\"`");
                    problems.push(whole(&path, message, Some(help)));
                }
            }
            Err(mistakes) => problems.extend(mistakes.0),
        }
    }
    problems
}

/// What plugins say about their settings, and features that no plugin provides. Their lists are in the host's cache, if it has started before.
fn settings(config: &Config, bundled: &[Bundled]) -> Result<Vec<Problem>, Failure> {
    let start = |error: &dyn std::fmt::Display| Failure::Start(error.to_string());
    let cache = Cache::of(&config.state);
    let engine = Engine::new(&config.engine.pool).map_err(|error| start(&error))?;
    let runtimes = Runtimes::start().map_err(|error| start(&error))?;
    let compiler = Compiler::open(
        engine.clone(),
        cache.path().to_owned(),
        config.engine.compile.clone(),
        std::env::current_exe().map_err(|error| start(&error))?,
    )
    .map_err(|error| start(&error))?;
    let lists = Lists {
        engine: &engine,
        compiler: &compiler,
        runtimes: &runtimes.handles(),
    };
    let asking = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| start(&error))?;
    Ok(asking.block_on(lists.all(config, bundled, &deny(config, &[]))))
}

fn may_write(directory: &Path) -> bool {
    rustix::fs::access(directory, rustix::fs::Access::WRITE_OK).is_ok()
}

/// Where machine code is kept while a configuration is checked.
enum Cache {
    /// The host's own.
    Own(PathBuf),
    /// One that is removed afterwards: the host's user is somebody else, it never ran, or nothing can be written there. A check leaves nothing behind
    /// that the host could not use.
    Passing(PathBuf),
}

impl Cache {
    fn of(state: &Path) -> Self {
        let me = rustix::process::geteuid().as_raw();
        match std::fs::metadata(state) {
            Ok(found) if found.is_dir() && found.uid() == me && may_write(state) => {
                Self::Own(state.join("compiled"))
            }
            _ => {
                let name = format!("bulkhead-check-{}", uuid::Uuid::new_v4().simple());
                Self::Passing(std::env::temp_dir().join(name))
            }
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Own(path) | Self::Passing(path) => path,
        }
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        if let Self::Passing(path) = self {
            let _ = std::fs::remove_dir_all(path);
        }
    }
}
