//! `bulkhead check`: everything `serve` would refuse, without starting.

use std::io::Write;

use clap::Args;

use std::path::Path;

use super::exit::Failure;
use super::place::{DEFAULT_CONFIG, Place};
use super::policy::show_problems;
use super::print::Listing;
use crate::grant::policy::Policy;
use crate::plugin::registry::Bundled;
use crate::settings::config::LOGS;
use crate::settings::reader::nearest;
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
        let state = self.place.state_directory()?;
        let (config, mut problems) = match Config::load(&file, &state) {
            Ok(config) => (Some(config), Vec::new()),
            Err(found) => (None, found.0),
        };
        if let Some(config) = &config {
            problems.extend(policies(config, bundled));
        }
        show_problems(
            &problems,
            self.listing.format,
            out,
            &format!("{}: good", file.display()),
        )
    }
}

/// Problems of all policy files, and features that no plugin provides.
fn policies(config: &Config, bundled: &[Bundled]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut wrong = |file: &Path, message: String| {
        problems.push(Problem {
            file: file.to_owned(),
            line: 1,
            column: 1,
            message,
            help: None,
        });
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
            Err(error) => wrong(directory, format!("cannot be read: {error}")),
        }
    }
    found.sort();
    let mut read = Vec::new();
    for path in found {
        match std::fs::read_to_string(&path) {
            Ok(text) => read.push((path, text)),
            Err(error) => wrong(&path, format!("cannot be read: {error}")),
        }
    }
    for (path, text) in read {
        if let Err(mistakes) = Policy::parse(&path, &text) {
            problems.extend(mistakes.0);
        }
    }
    for (name, feature) in &config.features {
        let known =
            name == LOGS || bundled.iter().any(|it| it.name == name) && config.plugins.bundled;
        if !known && config.plugins.directory.is_none() {
            problems.push(Problem {
                file: config.file.clone().unwrap_or_default(),
                line: feature.place.line,
                column: feature.place.column,
                message: format!("no plugin is called `{name}`"),
                help: nearest(name, bundled.iter().map(|it| it.name)),
            });
        }
    }
    problems
}
