//! The settings in the configuration against the lists of the plugins they are for, before anything starts.
//!
//! It refuses for mistakes in sections of plugins that come with this program: these change only with it. A file of the plugin directory may change at any
//! time, and whoever can put one there shall not be able to keep the proxy from starting: its mistakes fail that plugin alone, and `bulkhead check` tells
//! them. It also tells values that are no place for the grant they fill, for which a plugin alone fails as well.

use std::path::Path;

use super::compile::{Compiler, Origin};
use super::inspect::{self, InspectError, Wasm};
use super::library::read_component;
use super::load::{Source, policy_of};
use super::registry::Bundled;
use crate::grant::Deny;
use crate::sandbox::bindings::types::Manifest;
use crate::sandbox::{Engine, runtimes};
use crate::settings::config::LOGS;
use crate::settings::reader::nearest;
use crate::settings::{Config, Enabled, Feature, Problem, schema};

/// Asks plugins for their lists.
pub struct Lists<'a> {
    /// Where they are asked.
    pub engine: &'a Engine,
    /// Their machine code, and what they said before.
    pub compiler: &'a Compiler,
    /// On which threads.
    pub runtimes: &'a runtimes::Handles,
}

impl Lists<'_> {
    /// The mistakes for which nothing starts.
    pub async fn refused(&self, config: &Config, bundled: &[Bundled]) -> Vec<Problem> {
        let mut problems = Vec::new();
        for plugin in asked(config, bundled) {
            // What cannot be described fails later, alone, with its reason.
            if let Ok(manifest) = self.ask(&plugin.component(), Origin::FirstParty).await {
                problems.extend(schema::mistakes(config, plugin.name, &manifest.settings).refused);
            }
        }
        if config.plugins.directory.is_none() {
            problems.extend(unknown(config, bundled, &[]));
        }
        sorted(problems)
    }

    /// Every mistake, also those that fail one plugin only. `deny` are the host's rules for all.
    pub async fn all(&self, config: &Config, bundled: &[Bundled], deny: &Deny) -> Vec<Problem> {
        let (mut problems, mut called) = (Vec::new(), Vec::new());
        for plugin in asked(config, bundled) {
            match self.ask(&plugin.component(), Origin::FirstParty).await {
                Ok(manifest) => {
                    let used = in_use(config, &manifest, Some(plugin.policy), deny);
                    problems.extend(used.problems);
                    called.extend(used.calls.into_iter().map(|it| (plugin.name, it)));
                }
                Err(error) => {
                    let feature = config.features.get(plugin.name);
                    problems.extend(
                        feature.map(|it| about(config, it, format!("`{}`: {error}", plugin.name))),
                    );
                }
            }
        }
        let mut others = Vec::new();
        if let Some(directory) = &config.plugins.directory {
            for manifest in self.directory(config, directory, &mut problems).await {
                let off = Some(Enabled::Off);
                if config.features.get(&manifest.name).map(|it| it.enabled) != off {
                    problems.extend(in_use(config, &manifest, None, deny).problems);
                }
                others.push(manifest.name);
            }
        }
        problems.extend(unknown(config, bundled, &others));
        problems.extend(for_nobody(config, bundled, &others));
        problems.extend(strangers(config, &called, &known(config, bundled, &others)));
        sorted(problems)
    }

    async fn ask(&self, wasm: &Wasm<'_>, origin: Origin) -> Result<Manifest, InspectError> {
        let asked = inspect::manifest(self.engine, self.compiler, self.runtimes, wasm, origin);
        asked.await.map(|(manifest, _)| manifest)
    }

    /// What the files of the plugin directory are.
    async fn directory(
        &self,
        config: &Config,
        directory: &Path,
        problems: &mut Vec<Problem>,
    ) -> Vec<Manifest> {
        let mut manifests = Vec::new();
        let entries = match std::fs::read_dir(directory) {
            Ok(entries) => entries,
            // Told already, at the key that names it.
            Err(_) if !directory.is_dir() => return manifests,
            Err(error) => {
                problems.push(whole(directory, format!("cannot be read: {error}")));
                return manifests;
            }
        };
        for path in entries.flatten().map(|it| it.path()) {
            let hidden = path
                .file_name()
                .is_none_or(|it| it.as_encoded_bytes().starts_with(b"."));
            if hidden || path.extension().is_none_or(|it| it != "wasm") {
                continue;
            }
            let described = match read_component(&path, config.engine.compile.size) {
                Ok(bytes) => {
                    let wasm = Wasm {
                        bytes: &bytes,
                        digest: &inspect::digest(&bytes),
                    };
                    let described = self.ask(&wasm, Origin::ThirdParty).await;
                    described.map_err(|error| error.to_string())
                }
                Err(error) => Err(format!("cannot be read: {error}")),
            };
            match described {
                Ok(manifest) => manifests.push(manifest),
                Err(reason) => problems.push(whole(&path, reason)),
            }
        }
        manifests
    }
}

/// Mistakes in a plugin's section. Where its list finds none: values that the policy takes for places of grants, and that are no such places.
fn in_use(config: &Config, manifest: &Manifest, shipped: Option<&str>, deny: &Deny) -> Used {
    let name = &manifest.name;
    let mut used = Used::default();
    let values = match schema::resolve(config, name, &manifest.settings) {
        Ok(values) => values,
        Err(problems) => {
            used.problems = problems.0;
            return used;
        }
    };
    // What is wrong with the file of a policy is told by whoever reads all of them.
    let Ok((policy, source)) = policy_of(config, name, shipped) else {
        return used;
    };
    let feature = config.features.get(name);
    let found = policy.resolve(manifest, &values, &config.limits, deny);
    let calls = found.effective.call.values();
    used.calls = calls.map(|it| it.plugin.clone()).collect();
    for problem in found.problems {
        let given = |setting: &String| feature?.settings.get(setting).map(|(_, place)| *place);
        let place = problem.setting.as_ref().and_then(given);
        let shipped = (source == Source::Shipped).then(|| feature.map(|it| it.place));
        let problem = match place.or(shipped.flatten()) {
            Some(place) => Problem {
                file: config.file.clone().unwrap_or_default(),
                line: place.line,
                column: place.column,
                ..problem
            },
            None => problem,
        };
        // One setting may be the place of several grants.
        if !used.problems.contains(&problem) {
            used.problems.push(problem);
        }
    }
    used
}

/// What a plugin's section and its policy come to.
#[derive(Default)]
struct Used {
    problems: Vec<Problem>,
    /// The plugins it would call.
    calls: Vec<String>,
}

/// Plugins that others would call and that nobody is, as a provider whose name is misspelt.
fn strangers(config: &Config, called: &[(&str, String)], known: &[&str]) -> Vec<Problem> {
    let unknown = called
        .iter()
        .filter(|(_, it)| !known.contains(&it.as_str()));
    unknown
        .filter_map(|(by, it)| {
            let message = format!("`{by}` calls the plugin `{it}`, and there is none");
            let mut problem = about(config, config.features.get(*by)?, message);
            problem.help = nearest(it, known.iter().copied());
            Some(problem)
        })
        .collect()
}

/// Plugins of this program that the configuration switches on.
fn asked<'b>(config: &Config, bundled: &'b [Bundled]) -> Vec<&'b Bundled> {
    let on = |plugin: &&Bundled| {
        let feature = config.features.get(plugin.name);
        feature.is_some_and(|it| it.enabled != Enabled::Off)
    };
    let all = if config.plugins.bundled { bundled } else { &[] };
    all.iter().filter(on).collect()
}

/// What plugins are called, those of the directory among them.
fn known<'n>(config: &Config, bundled: &'n [Bundled], others: &'n [String]) -> Vec<&'n str> {
    let own = if config.plugins.bundled { bundled } else { &[] };
    let others = others.iter().map(String::as_str);
    own.iter().map(|it| it.name).chain(others).collect()
}

/// Policies that are called nearly like a plugin. One for a plugin that nobody knows is no mistake: the plugin may come.
fn for_nobody(config: &Config, bundled: &[Bundled], others: &[String]) -> Vec<Problem> {
    let known = known(config, bundled, others);
    let directory = config.plugins.policies.iter();
    let files = directory.filter_map(|it| std::fs::read_dir(it).ok());
    let paths = files.flat_map(|it| it.flatten().map(|it| it.path()));
    paths
        .filter(|path| path.extension().is_some_and(|it| it == "toml"))
        .filter_map(|path| {
            let name = path.file_stem()?.to_str()?;
            let unknown = !known.contains(&name);
            let help = unknown.then(|| nearest(name, known.iter().copied()))??;
            let mut problem = whole(&path, format!("no plugin is called `{name}`"));
            problem.help = Some(help);
            Some(problem)
        })
        .collect()
}

/// Sections of features that no plugin provides.
fn unknown(config: &Config, bundled: &[Bundled], others: &[String]) -> Vec<Problem> {
    let mut known = known(config, bundled, others);
    known.push(LOGS);
    config
        .features
        .iter()
        .filter(|(name, _)| !known.contains(&name.as_str()))
        .map(|(name, feature)| {
            let mut problem = about(config, feature, format!("no plugin is called `{name}`"));
            problem.help = nearest(name, known.iter().copied());
            problem
        })
        .collect()
}

fn about(config: &Config, feature: &Feature, message: String) -> Problem {
    Problem {
        file: config.file.clone().unwrap_or_default(),
        line: feature.place.line,
        column: feature.place.column,
        message,
        help: None,
        setting: None,
    }
}

fn whole(file: &Path, message: String) -> Problem {
    Problem {
        file: file.to_owned(),
        line: 1,
        column: 1,
        message,
        help: None,
        setting: None,
    }
}

fn sorted(mut problems: Vec<Problem>) -> Vec<Problem> {
    problems.sort_by(|one, two| {
        (&one.file, one.line, one.column).cmp(&(&two.file, two.line, two.column))
    });
    problems
}
