//! A plugin's settings: the operator's values checked against the manifest's list.
//!
//! Two kinds of mistakes are told apart. A value the plugin's list refuses, or a name it does not have, is a mistake in the file like any other: nothing
//! starts with it. A value that is not there, or empty, means the feature is not set up: it fails alone, and Foreman is told.

use std::collections::HashMap;

use serde_json::json;

use super::config::{Config, Place};
use super::problem::{Problem, Problems};
use super::reader::nearest;
use crate::sandbox::bindings::imports::settings::Value;
use crate::sandbox::bindings::types::{Setting, SettingKind};

/// The values of a plugin's settings: the configuration's over the manifest's defaults.
pub fn resolve(
    config: &Config,
    plugin: &str,
    settings: &[Setting],
) -> Result<HashMap<String, Value>, Problems> {
    let (values, looked) = look(config, plugin, settings);
    if looked.refused.is_empty() && looked.missing.is_empty() {
        Ok(values)
    } else {
        Err(Problems(looked.all()))
    }
}

/// Mistakes in a plugin's section, by what they cost.
#[derive(Debug, Default)]
pub struct Mistakes {
    /// Values the plugin's list refuses, and names it does not have: nothing starts.
    pub refused: Vec<Problem>,
    /// Values that must be there and are not: the plugin does not run.
    pub missing: Vec<Problem>,
}

impl Mistakes {
    /// Both kinds in the order of the file.
    #[must_use]
    pub fn all(self) -> Vec<Problem> {
        let mut all = self.refused;
        all.extend(self.missing);
        all.sort_by_key(|problem| (problem.line, problem.column));
        all
    }
}

/// The mistakes in a plugin's section.
#[must_use]
pub fn mistakes(config: &Config, plugin: &str, settings: &[Setting]) -> Mistakes {
    look(config, plugin, settings).1
}

fn look(config: &Config, plugin: &str, settings: &[Setting]) -> (HashMap<String, Value>, Mistakes) {
    let mut mistakes = Mistakes::default();
    let file = config.file.clone().unwrap_or_else(|| "(trial)".into());
    let problem = |place: Place, message: String, help: Option<String>| Problem {
        file: file.clone(),
        line: place.line,
        column: place.column,
        message,
        help,
        setting: None,
    };
    let feature = config.features.get(plugin);
    let section = feature.map_or_else(Place::default, |it| it.place);
    let mut values = HashMap::new();
    for setting in settings {
        let given = feature.and_then(|it| it.settings.get(&setting.name));
        let default = match setting.default.as_deref().map(parse_default) {
            Some(Err(reason)) => {
                mistakes.missing.push(problem(
                    Place::default(),
                    format!(
                        "the plugin's own default of `{}` is no TOML value: {reason}",
                        setting.name
                    ),
                    None,
                ));
                None
            }
            Some(Ok(value)) => Some((value, section)),
            None => None,
        };
        let lacking = || {
            format!(
                "Parameter '{}' is expected to have a non-empty value",
                setting.name
            )
        };
        match given.cloned().or(default) {
            Some((raw, place)) => match value(setting, &raw) {
                Ok(value) if setting.required && is_empty(&value) => {
                    mistakes.missing.push(problem(place, lacking(), None));
                }
                Ok(value) => {
                    values.insert(setting.name.clone(), value);
                }
                Err(message) => mistakes.refused.push(problem(place, message, None)),
            },
            None if setting.required => mistakes.missing.push(problem(
                section,
                lacking(),
                Some(format!(
                    "add `{} = ...` to `[features.{plugin}]`: {}",
                    setting.name, setting.help
                )),
            )),
            None => {}
        }
    }
    for (name, (_, place)) in feature.iter().flat_map(|it| &it.settings) {
        if !settings.iter().any(|it| it.name == *name) {
            let help = nearest(name, settings.iter().map(|it| it.name.as_str()));
            let help = help.unwrap_or_else(|| {
                let known: Vec<_> = settings.iter().map(|it| it.name.as_str()).collect();
                format!("there are: {}", known.join(", "))
            });
            mistakes.refused.push(problem(
                *place,
                format!("plugin `{plugin}` has no setting `{name}`"),
                Some(help),
            ));
        }
    }
    (values, mistakes)
}

/// What Foreman is shown of the settings; null where unset.
#[must_use]
pub fn exposed(
    values: &HashMap<String, Value>,
    settings: &[Setting],
) -> Vec<(String, serde_json::Value)> {
    settings
        .iter()
        .filter(|it| it.exposed)
        .map(|it| {
            let shown = match values.get(&it.name) {
                None => serde_json::Value::Null,
                Some(Value::Text(text)) => json!(text),
                Some(Value::Integer(number)) => json!(number),
                Some(Value::Boolean(flag)) => json!(flag),
                Some(Value::Texts(texts)) => json!(texts),
            };
            (it.name.clone(), shown)
        })
        .collect()
}

fn parse_default(text: &str) -> Result<toml::Value, String> {
    let table: toml::Table = format!("it = {text}")
        .parse()
        .map_err(|error: toml::de::Error| error.message().to_owned())?;
    table.get("it").cloned().ok_or_else(|| "empty".into())
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Text(text) => text.is_empty(),
        Value::Texts(texts) => texts.is_empty(),
        Value::Integer(_) | Value::Boolean(_) => false,
    }
}

fn value(setting: &Setting, raw: &toml::Value) -> Result<Value, String> {
    let name = &setting.name;
    let expected = |what: &str| {
        Err(format!(
            "Setting '{name}' is expected to {what}, not {}",
            raw.type_str()
        ))
    };
    let text = |text: &str| -> Result<String, String> {
        if setting.choices.is_empty() || setting.choices.iter().any(|it| it == text) {
            Ok(text.to_owned())
        } else {
            Err(format!(
                "Parameter '{name}' must be one of {}",
                setting.choices.join(", ")
            ))
        }
    };
    match (setting.kind, raw) {
        (SettingKind::Text, toml::Value::String(it)) => text(it).map(Value::Text),
        (SettingKind::Text, _) => expected("be text"),
        (SettingKind::Integer, toml::Value::Integer(it)) => Ok(Value::Integer(*it)),
        (SettingKind::Integer, _) => expected("be a whole number"),
        (SettingKind::Boolean, toml::Value::Boolean(it)) => Ok(Value::Boolean(*it)),
        (SettingKind::Boolean, _) => expected("be true/false"),
        (SettingKind::Url, toml::Value::String(it)) if it.is_empty() => {
            Ok(Value::Text(String::new()))
        }
        (SettingKind::Url, toml::Value::String(it)) => match url::Url::parse(it) {
            Ok(url) if url.has_host() => Ok(Value::Text(it.clone())),
            Ok(_) | Err(url::ParseError::RelativeUrlWithoutBase) => {
                Err(format!("Setting '{name}' is missing a scheme"))
            }
            Err(error) => Err(format!("Setting '{name}' contains an invalid url: {error}")),
        },
        (SettingKind::Url, _) => expected("contain a url"),
        (SettingKind::Texts, toml::Value::Array(items)) => items
            .iter()
            .map(|it| {
                it.as_str()
                    .ok_or_else(|| format!("Setting '{name}' is expected to hold texts"))
                    .and_then(text)
            })
            .collect::<Result<_, _>>()
            .map(Value::Texts),
        (SettingKind::Texts, toml::Value::String(it)) => Ok(Value::Texts(vec![text(it)?])),
        (SettingKind::Texts, _) => expected("be a list of texts"),
        (SettingKind::Path, toml::Value::String(it)) => {
            if it.is_empty() || it.starts_with('/') {
                Ok(Value::Text(it.clone()))
            } else {
                Err(format!(
                    "Setting '{name}' is expected to be an absolute path"
                ))
            }
        }
        (SettingKind::Path, _) => expected("be a path"),
    }
}
