//! What a new version of a plugin asks for beyond the old one: what an operator looks at before approving it.
//!
//! What could widen the plugin's reach is told: needs, routes, mounts; another name, which makes it another plugin; and settings, which an operator may
//! have to write. Less is never a reason to wait.

use serde::Serialize;

use crate::sandbox::bindings::types::{Audience, Manifest, Need, Route, Setting};

/// One thing that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Whether it is new, gone, or the same with other words.
    pub kind: ChangeKind,
    /// A sentence: `needs files root read-write: boot menus are written here`.
    pub what: String,
}

/// How something differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// The new version asks for more.
    More,
    /// The new version asks for less.
    Less,
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sign = match self.kind {
            ChangeKind::More => '+',
            ChangeKind::Less => '-',
        };
        write!(f, "{sign} {}", self.what)
    }
}

/// What the new version asks for and the old one did not, and the reverse. More comes first.
#[must_use]
pub fn diff(old: &Manifest, new: &Manifest) -> Vec<Change> {
    let (before, after) = (claims(old), claims(new));
    let only = |kind, of: &[String], other: &[String]| -> Vec<Change> {
        of.iter()
            .filter(|what| !other.contains(what))
            .map(|what| Change {
                kind,
                what: what.clone(),
            })
            .collect()
    };
    let mut changes = only(ChangeKind::More, &after, &before);
    changes.extend(only(ChangeKind::Less, &before, &after));
    changes
}

/// Everything a manifest claims, one sentence each. Reasons are left out: other words are no other right.
fn claims(manifest: &Manifest) -> Vec<String> {
    let needs = manifest.needs.iter().map(need);
    let mounts = manifest
        .mounts
        .iter()
        .map(|mount| format!("owns the path {mount}"));
    let routes = manifest.routes.iter().map(route);
    let settings = manifest.settings.iter().map(setting);
    std::iter::once(format!("is called {}", manifest.name))
        .chain(needs)
        .chain(mounts)
        .chain(routes)
        .chain(settings)
        .collect()
}

fn setting(setting: &Setting) -> String {
    let how = if setting.required {
        "needs"
    } else {
        "can be given"
    };
    format!("{how} the setting {}", setting.name)
}

fn need(need: &Need) -> String {
    let access = if need.access.is_empty() {
        String::new()
    } else {
        format!(" {}", need.access)
    };
    let how = if need.required { "needs" } else { "can use" };
    format!("{how} {} {}{access}", need.capability, need.slot)
}

fn route(route: &Route) -> String {
    let audience = match route.audience {
        Audience::Foreman => "Foreman",
        Audience::Host => "hosts with a certificate",
        Audience::Public => "everybody",
    };
    format!("answers {} {} for {audience}", route.method, route.pattern)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::bindings::types::{BodyMode, Lifetime, SettingKind};

    fn manifest(needs: &[(&str, &str, &str)], audience: Audience) -> Manifest {
        let need = |(capability, slot, access): &(&str, &str, &str)| Need {
            capability: (*capability).to_owned(),
            slot: (*slot).to_owned(),
            access: (*access).to_owned(),
            reason: format!("{slot} again, in other words {access}"),
            required: true,
        };
        Manifest {
            name: "p".to_owned(),
            version: "1.0.0".to_owned(),
            summary: String::new(),
            mounts: vec!["/p".to_owned()],
            routes: vec![Route {
                method: "GET".to_owned(),
                pattern: "/p".to_owned(),
                audience,
                body: BodyMode::None,
            }],
            needs: needs.iter().map(need).collect(),
            settings: Vec::new(),
            lifetime: Lifetime::Automatic,
        }
    }

    #[test]
    fn a_greedier_version_is_told_first() {
        let old = manifest(
            &[("files", "root", "read"), ("names", "n", "")],
            Audience::Foreman,
        );
        let new = manifest(&[("files", "root", "read-write")], Audience::Public);
        let told: Vec<_> = diff(&old, &new).iter().map(ToString::to_string).collect();
        let want = [
            "+ needs files root read-write",
            "+ answers GET /p for everybody",
            "- needs files root read",
            "- needs names n",
            "- answers GET /p for Foreman",
        ];
        assert_eq!(told, want);
    }

    #[test]
    fn another_name_and_a_new_setting_are_told() {
        let old = manifest(&[], Audience::Foreman);
        let mut new = old.clone();
        new.name = "other".to_owned();
        let setting = |name: &str, required| Setting {
            name: name.to_owned(),
            kind: SettingKind::Text,
            default: None,
            required,
            exposed: false,
            choices: Vec::new(),
            help: String::new(),
        };
        new.settings = vec![setting("place", true), setting("greeting", false)];
        let told: Vec<_> = diff(&old, &new).iter().map(ToString::to_string).collect();
        let want = [
            "+ is called other".to_owned(),
            "+ needs the setting place".to_owned(),
            "+ can be given the setting greeting".to_owned(),
            format!("- is called {}", old.name),
        ];
        assert_eq!(told, want);
    }

    #[test]
    fn other_words_are_no_other_right() {
        let old = manifest(&[("files", "root", "read")], Audience::Foreman);
        let mut new = old.clone();
        new.needs[0].reason = "better words".to_owned();
        new.version = "2.0.0".to_owned();
        assert_eq!(diff(&old, &new), []);
    }
}
