//! A manifest that has been checked: the only form the rest of the host sees.
//!
//! `describe` is the plugin's own word and may say anything; here it becomes facts or a clear refusal. Route patterns are checked by
//! `routes`, settings' values by `settings::schema`.

use std::collections::HashSet;

use crate::sandbox::bindings::types::{Manifest, Need};

/// Why a manifest is refused.
#[derive(Debug, thiserror::Error)]
#[error("its manifest is refused: {0}")]
pub struct BadManifest(pub String);

/// Limits of `wit/types.wit`.
const MAX_NAME: usize = 32;
const MAX_MOUNTS: usize = 16;
const MAX_ROUTES: usize = 256;
const MAX_NEEDS: usize = 64;
const MAX_SETTINGS: usize = 64;
const MAX_TEXT: usize = 1024;

/// Capabilities a need can name.
pub const CAPABILITIES: [&str; 13] = [
    "files",
    "sockets",
    "listen",
    "names",
    "http",
    "foreman",
    "store",
    "secrets",
    "call",
    "downloads",
    "watch",
    "probe",
    "link",
];

/// Names that would be mistaken for the host's own.
const RESERVED: [&str; 6] = ["root", "bulkhead", "host", "v2", "version", "logs"];

/// Checks a manifest against the limits of the contract.
pub fn check(manifest: &Manifest) -> Result<(), BadManifest> {
    let bad = |text: String| Err(BadManifest(text));
    if !is_name(&manifest.name, '-') {
        return bad(format!(
            "the name {:?} is not of the form [a-z][a-z0-9-]*, at most {MAX_NAME} characters",
            manifest.name
        ));
    }
    if RESERVED.contains(&manifest.name.as_str()) {
        return bad(format!("the name `{}` belongs to the host", manifest.name));
    }
    if !is_version(&manifest.version) {
        return bad(format!(
            "the version {:?} is not of the form 1.2.3",
            manifest.version
        ));
    }
    if manifest.mounts.len() > MAX_MOUNTS || manifest.routes.len() > MAX_ROUTES {
        return bad(format!(
            "at most {MAX_MOUNTS} mounts and {MAX_ROUTES} routes"
        ));
    }
    if manifest.needs.len() > MAX_NEEDS || manifest.settings.len() > MAX_SETTINGS {
        return bad(format!(
            "at most {MAX_NEEDS} needs and {MAX_SETTINGS} settings"
        ));
    }
    text("summary", &manifest.summary)?;
    let mut seen = HashSet::new();
    for need in &manifest.needs {
        check_need(need)?;
        if !seen.insert((need.capability.as_str(), need.slot.as_str())) {
            return bad(format!(
                "the need {}.{} is listed twice",
                need.capability, need.slot
            ));
        }
    }
    let mut seen = HashSet::new();
    for setting in &manifest.settings {
        if !is_name(&setting.name, '_') {
            return bad(format!(
                "the setting {:?} is not of the form [a-z][a-z0-9_]*",
                setting.name
            ));
        }
        if setting.name == "enabled" {
            return bad("the setting `enabled` belongs to the host".into());
        }
        if !seen.insert(setting.name.as_str()) {
            return bad(format!("the setting {} is listed twice", setting.name));
        }
        text("help of a setting", &setting.help)?;
    }
    Ok(())
}

fn check_need(need: &Need) -> Result<(), BadManifest> {
    if !CAPABILITIES.contains(&need.capability.as_str()) {
        return Err(BadManifest(format!(
            "it needs the capability {:?}, which does not exist; there are {}",
            need.capability,
            CAPABILITIES.join(", ")
        )));
    }
    if !is_name(&need.slot, '-') {
        return Err(BadManifest(format!(
            "the slot {:?} is not of the form [a-z][a-z0-9-]*",
            need.slot
        )));
    }
    let accesses: &[&str] = match need.capability.as_str() {
        "files" | "store" => &["read", "read-write"],
        "sockets" => &["tcp", "udp", "tcp+udp"],
        "secrets" => &["use", "reveal"],
        _ => &[],
    };
    if !accesses.is_empty() && !accesses.contains(&need.access.as_str()) {
        return Err(BadManifest(format!(
            "the need {}.{} asks for access {:?}; it must be one of {}",
            need.capability,
            need.slot,
            need.access,
            accesses.join(", ")
        )));
    }
    if need.reason.trim().is_empty() {
        return Err(BadManifest(format!(
            "the need {}.{} gives no reason",
            need.capability, need.slot
        )));
    }
    text("reason of a need", &need.reason)
}

fn text(what: &str, text: &str) -> Result<(), BadManifest> {
    if text.len() > MAX_TEXT || text.chars().any(char::is_control) {
        return Err(BadManifest(format!(
            "the {what} must be one line of at most {MAX_TEXT} bytes"
        )));
    }
    Ok(())
}

fn is_name(name: &str, joint: char) -> bool {
    name.len() <= MAX_NAME
        && name.starts_with(|it: char| it.is_ascii_lowercase())
        && name
            .chars()
            .all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == joint)
}

fn is_version(version: &str) -> bool {
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let parts: Vec<_> = core.split('.').collect();
    parts.len() == 3
        && parts.iter().all(|part| {
            !part.is_empty() && part.len() < 10 && part.bytes().all(|it| it.is_ascii_digit())
        })
        && version.len() <= MAX_NAME * 2
        && version
            .chars()
            .all(|it| it.is_ascii_alphanumeric() || matches!(it, '.' | '-' | '+'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::bindings::types::Lifetime;

    fn manifest() -> Manifest {
        Manifest {
            name: "tftp".into(),
            version: "0.1.0".into(),
            summary: "boot files".into(),
            mounts: vec!["/tftp".into()],
            routes: vec![],
            needs: vec![Need {
                capability: "files".into(),
                slot: "root".into(),
                access: "read-write".into(),
                reason: "writes menus".into(),
                required: true,
            }],
            settings: vec![],
            lifetime: Lifetime::Automatic,
        }
    }

    fn refused(change: impl FnOnce(&mut Manifest)) -> String {
        let mut it = manifest();
        change(&mut it);
        check(&it).unwrap_err().to_string()
    }

    #[test]
    fn a_plain_manifest_passes() {
        check(&manifest()).unwrap();
    }

    #[test]
    fn names_that_could_be_mistaken_are_refused() {
        for name in [
            "",
            "Tftp",
            "../x",
            "a b",
            "logs",
            "host",
            "-x",
            "averyveryveryveryverylongpluginname",
        ] {
            assert!(
                refused(|it| it.name = name.into()).contains("name"),
                "{name}"
            );
        }
    }

    #[test]
    fn a_need_without_a_reason_or_of_an_unknown_kind_is_refused() {
        assert!(refused(|it| it.needs[0].reason = " ".into()).contains("reason"));
        assert!(refused(|it| it.needs[0].capability = "root".into()).contains("capability"));
        assert!(refused(|it| it.needs[0].access = "everything".into()).contains("access"));
        assert!(refused(|it| it.needs.push(it.needs[0].clone())).contains("twice"));
    }

    #[test]
    fn text_for_people_cannot_carry_terminal_codes() {
        assert!(refused(|it| it.summary = "\u{1b}[2J".into()).contains("one line"));
        assert!(refused(|it| it.needs[0].reason = "a\nb".into()).contains("one line"));
    }
}
