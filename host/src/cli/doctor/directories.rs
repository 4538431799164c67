//! Directories: there, of the right kind, open to this user, with room; and the TFTP directory the same for all who use it.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, accessat, statvfs};
use rustix::io::Errno;

use super::finding::{Area, Finding};
use crate::cli::plan::{Place, Plan};
use crate::settings::Config;

/// Bytes that should be free: a kernel and an initial RAM disk of one system are less.
const ROOM: u64 = 1 << 30;

pub(super) fn look(config: &Config, plan: &Plan) -> Vec<Finding> {
    let mut findings = vec![state(config)];
    for (key, path) in [
        ("plugins.directory", &config.plugins.directory),
        ("plugins.policies", &config.plugins.policies),
    ] {
        findings.extend(path.iter().map(|path| {
            made_later(config, key, path).unwrap_or_else(|| directory(key, path, false))
        }));
    }
    for place in &plan.places {
        let label = format!(
            "{} ({} slot `{}`)",
            place.plugin, place.capability, place.slot
        );
        let later = made_later(config, &label, &place.path);
        findings.push(later.unwrap_or_else(|| {
            if place.is_directory {
                directory(&label, &place.path, place.writes)
            } else {
                file(&label, place)
            }
        }));
    }
    findings.extend(one_boot_directory(&plan.places));
    findings
}

/// A trial makes what it needs below its state.
fn made_later(config: &Config, label: &str, path: &Path) -> Option<Finding> {
    let later = config.trial && !path.exists() && path.starts_with(&config.state);
    later.then(|| {
        Finding::good(
            Area::Directories,
            label,
            format!("{}: made at the first start", path.display()),
        )
    })
}

fn wrong(label: &str, path: &Path, found: impl std::fmt::Display, advice: String) -> Finding {
    Finding::problem(
        Area::Directories,
        label,
        format!("{}: {found}", path.display()),
        advice,
    )
}

fn state(config: &Config) -> Finding {
    let path = &config.state;
    let label = "state";
    let me = rustix::process::geteuid().as_raw();
    let Ok(found) = std::fs::metadata(path) else {
        let parent = path.ancestors().find(|it| it.is_dir());
        return match parent.filter(|it| may(it, Access::WRITE_OK)) {
            Some(_) => Finding::good(
                Area::Directories,
                label,
                format!("{}: made at the first start", path.display()),
            ),
            None => wrong(
                label,
                path,
                "it is not there, and this user may not make it",
                format!("install -d -m 0700 -o USER {}", path.display()),
            ),
        };
    };
    if found.uid() != me {
        return Finding::unknown(
            Area::Directories,
            label,
            format!(
                "{}: belongs to user {}, and this is user {me}; what that user may do was not seen",
                path.display(),
                found.uid()
            ),
            format!(
                "run this as that user: `runuser -u '#{}' -- bulkhead doctor`, or choose another with --state",
                found.uid()
            ),
        );
    }
    directory(label, path, true)
}

fn directory(label: &str, path: &Path, writes: bool) -> Finding {
    let link = std::fs::read_link(path).ok();
    let at = link.as_ref().map_or_else(
        || path.display().to_string(),
        |to| format!("{} -> {}", path.display(), to.display()),
    );
    let found = match std::fs::metadata(path) {
        Ok(found) => found,
        Err(error) if link.is_some() => {
            return wrong(
                label,
                path,
                format!("a link to nothing: {error}"),
                format!(
                    "make {}, or correct the link",
                    at.split(" -> ").last().unwrap_or_default()
                ),
            );
        }
        Err(error) => {
            return wrong(
                label,
                path,
                error,
                format!("make it (install -d {}), or name another", path.display()),
            );
        }
    };
    if !found.is_dir() {
        return wrong(label, path, "is no directory", "name a directory".into());
    }
    let needed = if writes {
        Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK
    } else {
        Access::READ_OK | Access::EXEC_OK
    };
    let allowed = accessat(CWD, path, needed, AtFlags::EACCESS);
    if allowed == Err(Errno::ROFS) {
        return wrong(
            label,
            path,
            "is on a file system that is mounted for reading only",
            "mount it for writing, or name another directory".into(),
        );
    }
    if allowed.is_err() {
        let me = rustix::process::geteuid().as_raw();
        let word = if writes { "write there" } else { "read it" };
        return wrong(
            label,
            path,
            format!(
                "user {me} may not {word} (mode {:04o}, owner {}, group {})",
                found.mode() & 0o7777,
                found.uid(),
                found.gid()
            ),
            format!(
                "chown it to the proxy's user, or add that user to its group and `chmod g+{}` it",
                if writes { "rwx" } else { "rx" }
            ),
        );
    }
    if writes && let Ok(room) = statvfs(path) {
        let free = room.f_bavail.saturating_mul(room.f_frsize);
        if free < ROOM {
            return Finding::warning(
                Area::Directories,
                label,
                format!("{at}: only {} MiB are free", free >> 20),
                "make room; boot files are hundreds of MiB",
            );
        }
    }
    let can = if writes { "writable" } else { "readable" };
    Finding::good(Area::Directories, label, format!("{at}: {can}"))
}

fn file(label: &str, place: &Place) -> Finding {
    let needed = if place.writes {
        Access::READ_OK | Access::WRITE_OK
    } else {
        Access::READ_OK
    };
    match std::fs::metadata(&place.path) {
        Err(error) => wrong(
            label,
            &place.path,
            error,
            "name a file that is there".into(),
        ),
        Ok(_) if !may(&place.path, needed) => wrong(
            label,
            &place.path,
            "this user may not open it",
            "give the proxy's user a right to it, by its group for example".into(),
        ),
        Ok(found) if place.is_key && found.mode() & 0o007 != 0 => open_key(label, place, &found),
        Ok(_) => Finding::good(Area::Directories, label, place.path.display()),
    }
}

/// A plugin's secret is not used then; a certificate's key is.
fn open_key(label: &str, place: &Place, found: &std::fs::Metadata) -> Finding {
    let path = place.path.display();
    let mode = found.mode() & 0o7777;
    let advice = format!("chmod o= {path}");
    if place.capability == "secrets" {
        let why =
            format!("mode {mode:04o}: every user of this machine may have it, so it is not used");
        return wrong(label, &place.path, why, advice);
    }
    Finding::warning(
        Area::Directories,
        label,
        format!("{path}: mode {mode:04o}: every user of this machine may have the key"),
        advice,
    )
}

/// What `tftp` writes is what the others serve.
fn one_boot_directory(places: &[Place]) -> Vec<Finding> {
    let real = |plugin: &str| {
        let place = places
            .iter()
            .find(|it| it.plugin == plugin && it.capability == "files" && it.is_directory)?;
        std::fs::canonicalize(&place.path).ok()
    };
    let Some(written) = real("tftp") else {
        return Vec::new();
    };
    let others = ["tftp-server", "httpboot"].into_iter();
    let differs = others.filter_map(|plugin| {
        let served = real(plugin).filter(|it| *it != written)?;
        Some(Finding::warning(
            Area::Directories,
            plugin,
            format!(
                "serves {}, but Foreman's menus are written to {}",
                served.display(),
                written.display()
            ),
            "name one directory for tftp, tftp-server and httpboot",
        ))
    });
    differs.collect()
}

fn may(path: &Path, access: Access) -> bool {
    accessat(CWD, path, access, AtFlags::EACCESS).is_ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;
    use crate::cli::doctor::finding::Level;

    fn place(plugin: &str, path: &Path) -> Place {
        Place {
            plugin: plugin.into(),
            capability: "files",
            slot: "root".into(),
            path: path.to_owned(),
            is_directory: true,
            writes: true,
            is_key: false,
        }
    }

    #[test]
    fn a_key_that_others_may_read_is_told() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("key");
        std::fs::write(&path, "x").unwrap();
        for (capability, mode, level) in [
            ("secrets", 0o640, Level::Good),
            ("secrets", 0o644, Level::Problem),
            ("http", 0o644, Level::Warning),
        ] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let key = Place {
                capability,
                is_directory: false,
                writes: false,
                is_key: true,
                ..place("dhcp-kea", &path)
            };
            let found = file("x", &key);
            assert_eq!(found.level, level, "{capability} {mode:o}: {found:?}");
            let advised = found.advice.is_some_and(|it| it.starts_with("chmod o= "));
            assert_eq!(advised, level != Level::Good);
        }
    }

    #[test]
    fn each_fault_of_a_directory_is_found() {
        let top = tempfile::tempdir().unwrap();
        let at = |name: &str| top.path().join(name);
        std::fs::create_dir(at("good")).unwrap();
        std::fs::write(at("file"), "").unwrap();
        symlink("good", at("link")).unwrap();
        symlink("nowhere", at("dangling")).unwrap();
        for (name, level, words) in [
            ("good", Level::Good, "writable"),
            ("link", Level::Good, "-> good: writable"),
            ("dangling", Level::Problem, "a link to nothing"),
            ("missing", Level::Problem, "No such file"),
            ("file", Level::Problem, "is no directory"),
        ] {
            let found = directory("x", &at(name), true);
            assert!(
                found.level == level && found.found.contains(words),
                "{name}: {found:?}"
            );
        }
    }

    #[test]
    fn a_directory_without_rights_is_told_with_its_owner() {
        if rustix::process::geteuid().is_root() {
            // Root may write anywhere; tests/interop/doctor.rs runs as another user.
            return;
        }
        let top = tempfile::tempdir().unwrap();
        std::fs::set_permissions(top.path(), std::fs::Permissions::from_mode(0o555)).unwrap();
        let found = directory("x", top.path(), true);
        assert!(found.found.contains("may not write"), "{found:?}");
    }

    #[test]
    fn all_serve_what_tftp_writes() {
        let top = tempfile::tempdir().unwrap();
        let (one, other, link) = (
            top.path().join("one"),
            top.path().join("other"),
            top.path().join("link"),
        );
        std::fs::create_dir(&one).unwrap();
        std::fs::create_dir(&other).unwrap();
        symlink(&one, &link).unwrap();
        let same = [place("tftp", &one), place("tftp-server", &link)];
        assert_eq!(one_boot_directory(&same), []);
        let different = [place("tftp", &one), place("httpboot", &other)];
        let found = one_boot_directory(&different);
        assert_eq!(found.len(), 1);
        assert!(found[0].found.contains("other, but"), "{found:?}");
    }
}
