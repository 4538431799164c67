//! What was refused, and how it could be allowed.
//!
//! A denial teaches: it names the plugin, what it tried, the rule that decided, why, and the exact policy line that would
//! allow it (for `bulkhead policy allow PLUGIN 'LINE'`), or none when no policy can.

use std::sync::Arc;

use super::action::{Action, Capability};
use super::edit::instead_of;
use super::effective::{Asked, Left};

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
    /// What to write into the configuration instead, where the policy leaves to a setting what would allow it.
    pub instead: Option<String>,
}

/// Why `decide` refused, before it is dressed as a [`Denial`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) rule: String,
    pub(crate) reason: String,
    pub(crate) fix: Option<String>,
    pub(crate) instead: Option<String>,
}

impl Refusal {
    pub(crate) fn new(rule: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            rule: rule.into(),
            reason: reason.into(),
            fix: None,
            instead: None,
        }
    }

    pub(crate) fn fix(mut self, line: impl Into<String>) -> Self {
        self.fix = Some(line.into());
        self
    }

    /// Has the line that would allow it name a slot that the plugin asked for, or takes the line away: a grant without a need gives nothing.
    pub(crate) fn fitted_to(mut self, asked: Option<&[Asked]>, action: &Action<'_>) -> Self {
        let (Some(line), Some(asked)) = (&self.fix, asked) else {
            return self;
        };
        let capability = action.capability();
        let word = capability.word();
        let fits = |need: &&Asked| need.capability == capability && answers(need, action);
        // `sockets.SLOT.allow = [..]`: the slot stands after the first dot, quoted where it has to be.
        let rest = line.strip_prefix(&format!("{word}."));
        let named = |need: &&Asked| {
            let after = rest.and_then(|it| it.strip_prefix(&key(&need.slot)));
            after.is_some_and(|it| it.starts_with(['.', ' ']))
        };
        let need = asked
            .iter()
            .filter(fits)
            .find(named)
            .or_else(|| asked.iter().find(fits));
        self.fix = match (need, rest) {
            (Some(need), Some(_)) if named(&need) => return self,
            (Some(need), Some(rest)) => {
                after_key(rest).map(|rest| format!("{word}.{}{rest}", key(&need.slot)))
            }
            _ => None,
        };
        if self.fix.is_none() {
            self.reason
                .push_str("; it asks for nothing of the kind, so that no line can grant it");
        }
        self
    }

    /// Has the setting named to which the policy leaves what the line says: the policy would not take that line.
    pub(crate) fn left_to(mut self, left: &[Left], plugin: &str) -> Self {
        let line = self.fix.as_deref();
        self.instead = line.and_then(|line| instead_of(line, plugin, left));
        if self.instead.is_some() {
            self.fix = None;
        }
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
            instead: self.instead,
        }
    }
}

/// Whether a need of the action's capability is about this action.
fn answers(need: &Asked, action: &Action<'_>) -> bool {
    let access = |word: &str| need.access.is_empty() || need.access.split('+').any(|it| it == word);
    match action {
        Action::TcpConnect { .. } | Action::TcpBind { .. } | Action::TcpListen { .. } => {
            access("tcp")
        }
        Action::UdpSend { .. } | Action::UdpReceive { .. } | Action::UdpBind { .. } => {
            access("udp")
        }
        Action::Resolve { .. } => true,
        Action::Call { interface, .. } => need.access == *interface || need.slot == *interface,
        other => need.slot == other.slot(),
    }
}

/// What follows the first key of a dotted one, from its dot or the space before its value on.
fn after_key(text: &str) -> Option<&str> {
    let end = match text.strip_prefix('"') {
        Some(quoted) => quoted.find('"')? + 2,
        None => text.find(['.', ' '])?,
    };
    text.get(end..)
}

impl Denial {
    /// The whole lesson in lines, for terminals and logs.
    #[must_use]
    pub fn lesson(&self) -> String {
        let mut text = format!("{self}\n  rule: {}", self.rule);
        match (&self.fix, &self.instead) {
            (Some(line), _) => {
                let quoted = line.replace('\'', "'\\''");
                text.push_str(&format!(
                    "\n  allow it with: bulkhead policy allow {} '{quoted}'",
                    self.plugin
                ));
            }
            (None, Some(change)) => text.push_str(&format!("\n  allow it by a setting: {change}")),
            (None, None) => text.push_str("\n  no policy can allow it"),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(needs: &[(Capability, &str, &str)]) -> Vec<Asked> {
        let needs = needs.iter().map(|(capability, slot, access)| Asked {
            capability: *capability,
            slot: (*slot).to_owned(),
            access: (*access).to_owned(),
        });
        needs.collect()
    }

    /// The line, made for a plugin that asked for these needs.
    fn line(action: &Action<'_>, fix: &str, needs: &[(Capability, &str, &str)]) -> Option<String> {
        let refusal = Refusal::new("r", "because").fix(fix);
        refusal.fitted_to(Some(&asked(needs)), action).fix
    }

    #[test]
    fn the_line_names_a_slot_that_the_plugin_asked_for() {
        use Capability::{Call, Files, Names, Sockets};
        let addr = "192.0.2.1:53".parse().unwrap();
        let (tcp, udp) = (
            Action::TcpConnect { addr, name: None },
            Action::UdpSend { addr },
        );
        let needs = [
            (Sockets, "u", "udp"),
            (Sockets, "t", "tcp"),
            (Names, "n", ""),
            (Call, "provider", "a:b/c@1.0.0"),
        ];
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            line(&tcp, "sockets.SLOT.allow = [1]", &needs),
            some("sockets.t.allow = [1]")
        );
        assert_eq!(
            line(&udp, "sockets.t.allow = [1]", &needs),
            some("sockets.u.allow = [1]")
        );
        assert_eq!(
            line(&tcp, "sockets.t.allow = [1]", &needs),
            some("sockets.t.allow = [1]")
        );
        assert_eq!(
            line(
                &udp,
                "sockets.SLOT.allow = [1]",
                &[(Sockets, "both", "tcp+udp")]
            ),
            some("sockets.both.allow = [1]")
        );
        let name = Action::Resolve { name: "x" };
        assert_eq!(
            line(&name, "names.SLOT.allow = [1]", &needs),
            some("names.n.allow = [1]")
        );
        let call = Action::Call {
            interface: "a:b/c@1.0.0",
            callee: "p",
        };
        assert_eq!(
            line(&call, "call.\"a:b/c@1.0.0\".plugin = 1", &needs),
            some("call.provider.plugin = 1")
        );
        // What it never asked for, no line can grant.
        assert_eq!(
            line(&tcp, "sockets.SLOT.allow = [1]", &[(Names, "n", "")]),
            None
        );
        let read = Action::FileOpen {
            slot: "x",
            path: "a",
            write: false,
        };
        assert_eq!(line(&read, "files.x.directory = 1", &needs), None);
        assert_eq!(
            line(&read, "files.x.directory = 1", &[(Files, "x", "read")]),
            some("files.x.directory = 1")
        );
        let table = "files.x = { directory = 1 }";
        assert_eq!(
            line(&read, table, &[(Files, "x", "read")]).as_deref(),
            Some(table)
        );
        // Where nobody knows what was asked, the line stays.
        let refusal = Refusal::new("r", "because").fix("sockets.SLOT.allow = [1]");
        assert!(refusal.fitted_to(None, &tcp).fix.is_some());
    }
}
