//! What was refused, and how it could be allowed.
//!
//! A denial teaches: it names the plugin, what it tried, the rule that decided, why, and the exact policy line that would
//! allow it (for `bulkhead policy allow PLUGIN 'LINE'`), or none when no policy can.

use std::sync::Arc;

use super::action::{Action, Capability};

/// One refused action.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("plugin `{plugin}` may not {action}: {reason}")]
pub struct Denial {
    /// Who.
    pub plugin: Arc<str>,
    /// The capability.
    pub capability: Capability,
    /// The slot, empty where the action names none.
    pub slot: String,
    /// What it tried, in plain language.
    pub action: String,
    /// The rule that decided: a policy key (`sockets.server.allow`), or `[deny]` of the operator's configuration, or
    /// `built-in`.
    pub rule: String,
    /// Why, as a sentence without capital and full stop.
    pub reason: String,
    /// The policy line that would allow it. None: no policy line can.
    pub fix: Option<String>,
}

/// Why `decide` refused, before it is dressed as a [`Denial`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) rule: String,
    pub(crate) reason: String,
    pub(crate) fix: Option<String>,
}

impl Refusal {
    pub(crate) fn new(rule: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            rule: rule.into(),
            reason: reason.into(),
            fix: None,
        }
    }

    pub(crate) fn fix(mut self, line: impl Into<String>) -> Self {
        self.fix = Some(line.into());
        self
    }

    pub(crate) fn dress(self, plugin: &Arc<str>, action: &Action<'_>) -> Denial {
        Denial {
            plugin: Arc::clone(plugin),
            capability: action.capability(),
            slot: super::action::Shown(action.slot()).to_string(),
            action: action.to_string(),
            rule: self.rule,
            reason: self.reason,
            fix: self.fix,
        }
    }
}

impl Denial {
    /// The whole lesson in lines, for terminals and logs.
    #[must_use]
    pub fn lesson(&self) -> String {
        let mut text = format!("{self}\n  rule: {}", self.rule);
        match &self.fix {
            Some(line) => {
                let quoted = line.replace('\'', "'\\''");
                text.push_str(&format!(
                    "\n  allow it with: bulkhead policy allow {} '{quoted}'",
                    self.plugin
                ));
            }
            None => text.push_str("\n  no policy can allow it"),
        }
        text
    }
}

/// A TOML basic string, escaped.
pub(crate) fn quoted(text: &str) -> String {
    toml_edit::Value::from(text).to_string().trim().to_owned()
}

/// A key as it may stand in a dotted TOML key.
pub(crate) fn key(text: &str) -> String {
    let bare = !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if bare { text.to_owned() } else { quoted(text) }
}
