//! From the text of `proxy.toml` to [`Config`]: key by key, every mistake told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::config::{
    ADMIN, CompileLimits, Config, DRAIN, DenyRules, Enabled, Engine, Feature, Foreman, Log,
    Plugins, Profile, SHOWN_VERSION, Tls,
};
use super::problem::{self, Problem, Problems, Source};
use super::reader::{Data, Given, Item, Reading, Settings, Table};
use crate::sandbox::EngineConfig;
use crate::sandbox::bindings::types::Audience;
use crate::telemetry::log::Options as LogOptions;
use crate::telemetry::output::{Format, Target};
use crate::telemetry::record::Level;

mod listeners;
mod words;

use words::{address, http_url, network, plain, version};

type Wrong = (String, Option<String>);

impl Config {
    /// Reads and checks a file. `state` is used unless the file says another.
    pub fn load(path: &Path, state: &Path) -> Result<Self, Problems> {
        whole(Self::survey(path, state))
    }

    /// Reads and checks the text of a file. Relative paths start where the file is.
    pub fn parse(path: &Path, text: &str, state: &Path) -> Result<Self, Problems> {
        whole(Self::survey_text(path, text, state))
    }

    /// What a file says as far as it can be read, and every mistake in it: what it says about plugins can be looked at although it is wrong elsewhere.
    /// Nothing where the file or its syntax is broken.
    #[must_use]
    pub fn survey(path: &Path, state: &Path) -> (Option<Self>, Vec<Problem>) {
        match problem::read(path) {
            Ok(text) => Self::survey_text(path, &text, state),
            Err(unread) => (None, vec![unread]),
        }
    }

    fn survey_text(path: &Path, text: &str, state: &Path) -> (Option<Self>, Vec<Problem>) {
        let source = Source { path, text };
        let (table, mistakes) = DeTable::parse_recoverable(text);
        if !mistakes.is_empty() {
            // What stands behind broken syntax is not known, so nothing else is said about such a file.
            return (None, syntax(source, &mistakes));
        }
        let reading = Reading::new(source, Settings::Never);
        let base = path.parent().unwrap_or(Path::new("."));
        let root = Table::new(table.get_ref(), String::new(), 0..0);
        let config = Reader {
            reading: &reading,
            source,
            base,
        }
        .config(&root, path, state);
        reading.finish(&root);
        let mut problems = reading.problems();
        problems.sort_by_key(|problem| (problem.line, problem.column));
        (Some(config), problems)
    }
}

/// A configuration without a mistake.
fn whole((config, problems): (Option<Config>, Vec<Problem>)) -> Result<Config, Problems> {
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        _ => Err(Problems(problems)),
    }
}

/// Mistakes of syntax, one a line: more on one line are mostly echoes of the first.
fn syntax(source: Source<'_>, mistakes: &[toml::de::Error]) -> Vec<Problem> {
    let mut problems: Vec<_> = mistakes
        .iter()
        .map(|mistake| {
            let span = mistake.span().unwrap_or(0..0);
            source.problem(&span, source.mistake(mistake), None)
        })
        .collect();
    problems.sort_by_key(|problem| (problem.line, problem.column));
    problems.dedup_by_key(|problem| problem.line);
    problems
}

struct Reader<'a> {
    reading: &'a Reading<'a>,
    source: Source<'a>,
    base: &'a Path,
}

impl Reader<'_> {
    fn config(&self, root: &Table<'_>, path: &Path, state: &Path) -> Config {
        let r = self.reading;
        let tls = self.section(root, "tls").map(|table| self.tls(&table));
        let listeners = self.listeners(root);
        let trusted_hosts = self.trusted_hosts(root);
        let config = Config {
            file: Some(path.to_owned()),
            state: self.path(root, "state").unwrap_or_else(|| state.to_owned()),
            version: r.parsed(root, "version", version).or(SHOWN_VERSION.into()),
            forward_verify: r.flag(root, "forward_verify").or(true),
            drain: r.time(root, "drain").or(DRAIN),
            fronts: r.texts(root, "fronts", network).or(Vec::new()),
            foreman: self
                .section(root, "foreman")
                .and_then(|table| self.foreman(&table, tls.as_ref())),
            plugins: self.section(root, "plugins").map_or(
                Plugins {
                    directory: None,
                    bundled: true,
                    policies: None,
                },
                |table| self.plugins(&table),
            ),
            features: self.features(root),
            engine: self.engine(root),
            log: self.log(root),
            admin: self.admin(root),
            deny: self
                .section(root, "deny")
                .map(|table| self.deny(&table))
                .unwrap_or_default(),
            limits: crate::grant::policy::limits(r, root, &crate::grant::limits::Limits::default()),
            profiles: self.profiles(root),
            trial: false,
            tls,
            listeners,
            trusted_hosts,
        };
        self.combinations(root, &config);
        config
    }

    fn combinations(&self, root: &Table<'_>, config: &Config) {
        let at = |key: &str| {
            root.keys()
                .find(|(name, _)| *name == key)
                .map_or(0..0, |(_, span)| span)
        };
        if config.listeners.is_empty() {
            self.reading.problem(
                &(0..0),
                "there is no `[[listener]]`, so nothing would be served",
                None,
            );
        }
        if config.listeners.iter().any(|it| it.tls) && config.tls.is_none() {
            self.reading.problem(
                &at("listener"),
                "a listener has `tls = true`, but there is no `[tls]` section",
                Some("add `[tls]` with `certificate`, `private_key` and `client_ca`".into()),
            );
        }
        let foreman = config
            .listeners
            .iter()
            .any(|it| it.audiences.contains(&Audience::Foreman));
        if foreman && config.trusted_hosts.is_none() && at("trusted_hosts") == (0..0) {
            self.reading.problem(
                &at("listener"),
                "a listener serves Foreman, but `trusted_hosts` does not say who Foreman is",
                Some("write `trusted_hosts = [\"foreman.example.com\"]`, or `trusted_hosts = \"any-certificate\"` to trust every certificate of the CA, and thus every enrolled host".into()),
            );
        }
        if foreman && config.tls.as_ref().is_some_and(|it| it.client_ca.is_none()) {
            self.reading.problem(&at("tls"), "Foreman is known by its client certificate, but `[tls]` has no `client_ca` to check it", None);
        }
        self.admin_beside(root, config);
        for (name, profile) in &config.profiles {
            for feature in &profile.features {
                if !config.features.contains_key(feature) {
                    self.reading.problem(
                        &at("profiles"),
                        format!("profile `{name}` names the feature `{feature}`, which has no `[features.{feature}]`"),
                        None,
                    );
                }
            }
            for listener in &profile.listeners {
                if !config.listeners.iter().any(|it| it.name == *listener) {
                    self.reading.problem(
                        &at("profiles"),
                        format!(
                            "profile `{name}` names the listener `{listener}`, which does not exist"
                        ),
                        None,
                    );
                }
            }
        }
    }

    fn section<'t>(&self, root: &Table<'t>, key: &str) -> Option<Table<'t>> {
        self.reading.table(root, key).ok()
    }

    /// A path, taken from where the file is.
    fn path(&self, table: &Table<'_>, key: &str) -> Option<PathBuf> {
        self.reading
            .text(table, key)
            .ok()
            .map(|(text, _)| self.base.join(text))
    }

    /// A file that has to be there and readable.
    fn file(&self, table: &Table<'_>, key: &str) -> Option<PathBuf> {
        let (text, span) = self.reading.text(table, key).ok()?;
        let path = self.base.join(text);
        let opened = std::fs::File::open(&path).and_then(|file| file.metadata());
        let wrong = match opened {
            Ok(about) if about.is_dir() => Some("it is a directory".to_owned()),
            Ok(_) => None,
            Err(error) => Some(error.to_string()),
        };
        if let Some(wrong) = wrong {
            self.reading.problem(
                &span,
                format!(
                    "File at '{}' defined in '{}' parameter doesn't exist or is unreadable",
                    path.display(),
                    table.dotted(key)
                ),
                Some(wrong),
            );
        }
        Some(path)
    }

    fn required(&self, table: &Table<'_>, key: &str) -> PathBuf {
        if !table.keys().any(|(name, _)| name == key) {
            self.reading.problem(
                &table.span,
                format!("`{}` is missing", table.dotted(key)),
                None,
            );
        }
        self.file(table, key).unwrap_or_default()
    }

    fn foreman(&self, table: &Table<'_>, tls: Option<&Tls>) -> Option<Foreman> {
        let r = self.reading;
        if !table.keys().any(|(name, _)| name == "url") {
            r.problem(&table.span, "`foreman.url` is missing", None);
        }
        let url = r.parsed(table, "url", http_url).ok();
        let given = (
            self.file(table, "certificate"),
            self.file(table, "private_key"),
        );
        let identity = match given {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => tls.map(|it| (it.certificate.clone(), it.private_key.clone())),
            _ => {
                r.problem(
                    &table.span,
                    "`foreman.certificate` and `foreman.private_key` go together",
                    None,
                );
                None
            }
        };
        let ca = self.file(table, "ca");
        let connect_timeout = r
            .time(table, "connect_timeout")
            .or(std::time::Duration::from_secs(10));
        r.finish(table);
        Some(Foreman {
            url: url?,
            ca,
            identity,
            connect_timeout,
        })
    }

    fn plugins(&self, table: &Table<'_>) -> Plugins {
        let directory = |key: &str| {
            let (text, span) = self.reading.text(table, key).ok()?;
            let path = self.base.join(text);
            if !path.is_dir() {
                self.reading.problem(
                    &span,
                    format!(
                        "`{}`: {} is no directory",
                        table.dotted(key),
                        path.display()
                    ),
                    (!path.exists()).then(|| format!("make it: mkdir -p {}", path.display())),
                );
            }
            Some(path)
        };
        let plugins = Plugins {
            directory: directory("directory"),
            bundled: self.reading.flag(table, "bundled").or(true),
            policies: directory("policies"),
        };
        self.reading.finish(table);
        plugins
    }

    fn features(&self, root: &Table<'_>) -> BTreeMap<String, Feature> {
        let Some(features) = self.section(root, "features") else {
            return BTreeMap::new();
        };
        self.reading
            .slots(&features)
            .into_iter()
            .map(|(name, table)| (name.to_owned(), self.feature(&table)))
            .collect()
    }

    fn feature(&self, table: &Table<'_>) -> Feature {
        let r = self.reading;
        let enabled = match r.item(table, "enabled") {
            Given::Is(Item {
                data: Data::Flag(true),
                ..
            })
            | Given::Absent => Enabled::Both,
            Given::Is(Item {
                data: Data::Flag(false),
                ..
            }) => Enabled::Off,
            Given::Is(Item {
                data: Data::Text(text),
                ..
            }) if text == "http" => Enabled::Http,
            Given::Is(Item {
                data: Data::Text(text),
                ..
            }) if text == "https" => Enabled::Https,
            Given::Is(item) => {
                r.problem(
                    &item.span,
                    format!(
                        "`{}` must be true, false, \"http\" or \"https\"",
                        table.dotted("enabled")
                    ),
                    None,
                );
                Enabled::Off
            }
            Given::Unset(_) | Given::Wrong => Enabled::Off,
        };
        let settings = table
            .values()
            .filter(|(key, _)| *key != "enabled")
            .map(|(key, value)| {
                (
                    key.to_owned(),
                    (plain(value.get_ref()), self.source.place(&value.span())),
                )
            })
            .collect();
        Feature {
            enabled,
            place: self.source.place(&table.span),
            settings,
        }
    }

    fn engine(&self, root: &Table<'_>) -> Engine {
        let mut engine = Engine {
            pool: EngineConfig::default(),
            compile: CompileLimits::default(),
        };
        let Some(table) = self.section(root, "engine") else {
            return engine;
        };
        let r = self.reading;
        let small = |it: i64| u32::try_from(it).unwrap_or(u32::MAX);
        engine.pool.instances = r
            .count(&table, "instances", 32..=100_000_i64)
            .map(small)
            .or(engine.pool.instances);
        engine.pool.largest_memory = r
            .size(&table, "largest_memory")
            .or(engine.pool.largest_memory);
        engine.pool.table_elements = r
            .count(&table, "table_elements", 1_000..=10_000_000_i64)
            .map(|it| usize::try_from(it).unwrap_or(usize::MAX))
            .or(engine.pool.table_elements);
        engine.pool.memory = r.size(&table, "memory").or(engine.pool.memory);
        engine.pool.warm_slots = r
            .count(&table, "warm_slots", 0..=100_000_i64)
            .map(small)
            .or(engine.pool.warm_slots);
        engine.compile.time = r.time(&table, "compile_time").or(engine.compile.time);
        engine.compile.memory = r.size(&table, "compile_memory").or(engine.compile.memory);
        engine.compile.size = r.size(&table, "plugin_size").or(engine.compile.size);
        r.finish(&table);
        engine
    }

    fn log(&self, root: &Table<'_>) -> Log {
        let mut log = Log {
            options: LogOptions::default(),
            buffer: 2000,
            buffer_errors: 1000,
        };
        let Some(table) = self.section(root, "log") else {
            return log;
        };
        let r = self.reading;
        log.options.target = r
            .parsed(&table, "target", |text| self.log_target(text))
            .or(Target::Stdout);
        log.options.format = r
            .word(
                &table,
                "format",
                &[("text", Format::Text), ("json", Format::Json)],
            )
            .or(Format::Text);
        let levels = [
            ("debug", Level::Debug),
            ("info", Level::Info),
            ("warn", Level::Warn),
            ("error", Level::Error),
        ];
        log.options.level = r.word(&table, "level", &levels).or(Level::Info);
        let size = |it: i64| usize::try_from(it).unwrap_or(usize::MAX);
        log.buffer = r
            .count(&table, "buffer", 2..=1_000_000_i64)
            .map(size)
            .or(log.buffer);
        log.buffer_errors = r
            .count(&table, "buffer_errors", 2..=1_000_000_i64)
            .map(size)
            .or(log.buffer_errors);
        r.finish(&table);
        log
    }

    /// A file has a `/` in its name, so that a misspelt word does not become one.
    fn log_target(&self, text: &str) -> Result<Target, Wrong> {
        match text {
            "stdout" => Ok(Target::Stdout),
            "journald" => Ok(Target::Journald),
            path if path.contains('/') => Ok(Target::File(self.base.join(path))),
            _ => Err((
                format!("`{text}` is none of `stdout`, `journald` and no path"),
                Some("write a file as `/var/log/bulkhead/proxy.log` or `./proxy.log`".into()),
            )),
        }
    }

    fn admin(&self, root: &Table<'_>) -> Option<SocketAddr> {
        let Some(table) = self.section(root, "admin") else {
            return Some(ADMIN);
        };
        let listen = self
            .reading
            .parsed(&table, "listen", |text| {
                if text == "none" {
                    Ok(None)
                } else {
                    address(text).map(Some)
                }
            })
            .or(Some(ADMIN));
        self.reading.finish(&table);
        listen
    }

    fn deny(&self, table: &Table<'_>) -> DenyRules {
        let r = self.reading;
        let rules = DenyRules {
            networks: r.texts(table, "networks", network).or(Vec::new()),
            ports: r
                .list(table, "ports")
                .map(|items| {
                    items
                        .iter()
                        .filter_map(|item| self.port(table, item))
                        .collect()
                })
                .or(Vec::new()),
            paths: r
                .texts(table, "paths", |text| Ok::<_, Wrong>(self.base.join(text)))
                .or(Vec::new()),
        };
        r.finish(table);
        rules
    }

    fn port(&self, table: &Table<'_>, item: &Item<'_>) -> Option<u16> {
        let port = match item.data {
            Data::Integer(number) => u16::try_from(number).ok().filter(|it| *it > 0),
            _ => None,
        };
        if port.is_none() {
            self.reading.problem(
                &item.span,
                format!(
                    "`{}` must hold port numbers, from 1 to 65535",
                    table.dotted("ports")
                ),
                None,
            );
        }
        port
    }

    fn profiles(&self, root: &Table<'_>) -> BTreeMap<String, Profile> {
        let Some(profiles) = self.section(root, "profiles") else {
            return BTreeMap::new();
        };
        let r = self.reading;
        let texts = |table: &Table<'_>, key: &str| {
            r.texts(table, key, |text| Ok::<_, Wrong>(text.to_owned()))
                .or(Vec::new())
        };
        r.slots(&profiles)
            .into_iter()
            .map(|(name, table)| {
                let profile = Profile {
                    features: texts(&table, "features"),
                    listeners: texts(&table, "listeners"),
                    admin: r
                        .parsed(&table, "admin", |text| address(text).map(Some))
                        .or(None),
                };

                r.finish(&table);
                (name.to_owned(), profile)
            })
            .collect()
    }
}
