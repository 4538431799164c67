//! The fingerprint of a manifest, frozen at approval.
//!
//! It is stored, so it must not depend on how some version of this program happens to print a record. It is the SHA-256 of a canonical form: each field
//! as its name, the length of its value in bytes, and the value, in the order of `wit/types.wit`. Lengths keep two different manifests from
//! running together into one text. Records are taken apart by all their fields: a new one cannot be forgotten here.

use crate::sandbox::bindings::types::{
    Audience, BodyMode, Lifetime, Manifest, Need, Route, Setting, SettingKind,
};

/// The first line of the form: another form gets another number, here and before the fingerprint, so that old approvals are asked for again instead of
/// compared wrongly.
const FORM: &str = "bulkhead manifest 1\n";

/// A text that differs when the manifest differs: the number of the form, a colon, and the digest.
#[must_use]
pub fn fingerprint(manifest: &Manifest) -> String {
    format!(
        "1:{}",
        super::inspect::digest(canonical(manifest).as_bytes())
    )
}

fn canonical(manifest: &Manifest) -> String {
    let Manifest {
        name,
        version,
        summary,
        mounts,
        routes,
        needs,
        settings,
        lifetime,
    } = manifest;
    let mut form = Form(FORM.to_owned());
    form.field("name", name);
    form.field("version", version);
    form.field("summary", summary);
    for mount in mounts {
        form.field("mount", mount);
    }
    for route in routes {
        form.route(route);
    }
    for need in needs {
        form.need(need);
    }
    for setting in settings {
        form.setting(setting);
    }
    let lifetime = match lifetime {
        Lifetime::Automatic => "automatic",
        Lifetime::Pooled => "pooled",
        Lifetime::Fresh => "fresh",
        Lifetime::Single => "single",
    };
    form.field("lifetime", lifetime);
    form.0
}

struct Form(String);

impl Form {
    fn field(&mut self, name: &str, value: &str) {
        use std::fmt::Write as _;
        let _ = writeln!(self.0, "{name} {}:{value}", value.len());
    }

    fn flag(&mut self, name: &str, value: bool) {
        self.field(name, if value { "true" } else { "false" });
    }

    fn route(&mut self, route: &Route) {
        let Route {
            method,
            pattern,
            audience,
            body,
        } = route;
        self.field("route.method", method);
        self.field("route.pattern", pattern);
        let audience = match audience {
            Audience::Foreman => "foreman",
            Audience::Host => "host",
            Audience::Public => "public",
        };
        self.field("route.audience", audience);
        let body = match body {
            BodyMode::None => "none",
            BodyMode::Whole => "whole",
            BodyMode::Passed => "passed",
        };
        self.field("route.body", body);
    }

    fn need(&mut self, need: &Need) {
        let Need {
            capability,
            slot,
            access,
            reason,
            required,
        } = need;
        self.field("need.capability", capability);
        self.field("need.slot", slot);
        self.field("need.access", access);
        self.field("need.reason", reason);
        self.flag("need.required", *required);
    }

    fn setting(&mut self, setting: &Setting) {
        let Setting {
            name,
            kind,
            default,
            required,
            exposed,
            choices,
            help,
        } = setting;
        self.field("setting.name", name);
        let kind = match kind {
            SettingKind::Text => "text",
            SettingKind::Integer => "integer",
            SettingKind::Boolean => "boolean",
            SettingKind::Url => "url",
            SettingKind::Texts => "texts",
            SettingKind::Path => "path",
        };
        self.field("setting.kind", kind);
        match default {
            Some(default) => self.field("setting.default", default),
            None => self.field("setting.without-default", ""),
        }
        self.flag("setting.required", *required);
        self.flag("setting.exposed", *exposed);
        for choice in choices {
            self.field("setting.choice", choice);
        }
        self.field("setting.help", help);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            name: "tftp".into(),
            version: "1.0.0".into(),
            summary: "Boot files".into(),
            mounts: vec!["/tftp".into()],
            routes: vec![Route {
                method: "GET".into(),
                pattern: "/tftp/serverName".into(),
                audience: Audience::Foreman,
                body: BodyMode::None,
            }],
            needs: vec![Need {
                capability: "files".into(),
                slot: "root".into(),
                access: "read-write".into(),
                reason: "writes menus".into(),
                required: true,
            }],
            settings: vec![Setting {
                name: "tftproot".into(),
                kind: SettingKind::Path,
                default: None,
                required: true,
                exposed: false,
                choices: vec!["a".into(), "b".into()],
                help: "Where".into(),
            }],
            lifetime: Lifetime::Automatic,
        }
    }

    /// It lies in operators' state directories: it may not change with the compiler, or with a word in this program.
    #[test]
    fn the_form_is_the_one_that_was_approved_with() {
        assert_eq!(
            canonical(&manifest()),
            "bulkhead manifest 1\nname 4:tftp\nversion 5:1.0.0\nsummary 10:Boot files\nmount 5:/tftp\nroute.method 3:GET\n\
             route.pattern 16:/tftp/serverName\nroute.audience 7:foreman\nroute.body 4:none\nneed.capability 5:files\n\
             need.slot 4:root\nneed.access 10:read-write\nneed.reason 12:writes menus\nneed.required 4:true\n\
             setting.name 8:tftproot\nsetting.kind 4:path\nsetting.without-default 0:\nsetting.required 4:true\n\
             setting.exposed 5:false\nsetting.choice 1:a\nsetting.choice 1:b\nsetting.help 5:Where\nlifetime 9:automatic\n"
        );
        assert_eq!(fingerprint(&manifest()), fingerprint(&manifest().clone()));
        assert!(fingerprint(&manifest()).starts_with("1:sha256:"));
    }

    #[test]
    fn every_field_counts() {
        let changes: Vec<fn(&mut Manifest)> = vec![
            |m| m.name.push('x'),
            |m| m.version.push('x'),
            |m| m.summary.push('x'),
            |m| m.mounts.push("/x".into()),
            |m| m.routes[0].method = "PUT".into(),
            |m| m.routes[0].pattern.push('x'),
            |m| m.routes[0].audience = Audience::Public,
            |m| m.routes[0].body = BodyMode::Whole,
            |m| m.needs[0].capability = "watch".into(),
            |m| m.needs[0].slot.push('x'),
            |m| m.needs[0].access = "read".into(),
            |m| m.needs[0].reason.push('x'),
            |m| m.needs[0].required = false,
            |m| m.settings[0].name.push('x'),
            |m| m.settings[0].kind = SettingKind::Text,
            |m| m.settings[0].default = Some(String::new()),
            |m| m.settings[0].required = false,
            |m| m.settings[0].exposed = true,
            |m| m.settings[0].choices = vec!["ab".into()],
            |m| m.settings[0].help.push('x'),
            |m| m.lifetime = Lifetime::Fresh,
            // Text that looks like the next field does not become it.
            |m| m.summary.push_str("\nmount 2:/x"),
        ];
        let mut seen = std::collections::HashSet::from([fingerprint(&manifest())]);
        for (number, change) in changes.iter().enumerate() {
            let mut changed = manifest();
            change(&mut changed);
            assert!(seen.insert(fingerprint(&changed)), "change {number}");
        }
    }
}
