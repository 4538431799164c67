//! Programs of another Debian suite, run out of a folder: `debootstrap` makes it once, later runs use it again.
//!
//! The mirror is the one this machine installs from. Nothing is changed outside of the folder, which lies below cargo's target directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::program;

/// A folder that holds a small Debian.
#[derive(Debug, Clone)]
pub struct Suite {
    /// Its root.
    pub root: PathBuf,
}

/// Why there is none.
#[derive(Debug)]
pub enum Missing {
    /// This machine cannot have it: no root, no `debootstrap`, no mirror, or no such suite there. A reason to skip, everywhere.
    OutOfReach(String),
    /// It was within reach and failed.
    Failed(String),
}

impl Suite {
    /// The suite with these packages, made if need be. Tests in several processes wait for each other.
    pub fn with(name: &str, packages: &[&str]) -> Result<Self, Missing> {
        let out = |reason: String| Err(Missing::OutOfReach(reason));
        if !rustix::process::geteuid().is_root() {
            return out("debootstrap needs root".to_owned());
        }
        let folder = target().join("debian");
        fs::create_dir_all(&folder).map_err(|why| Missing::Failed(why.to_string()))?;
        let lock = fs::File::create(folder.join(format!("{name}.lock")))
            .map_err(|why| Missing::Failed(why.to_string()))?;
        lock.lock()
            .map_err(|why| Missing::Failed(why.to_string()))?;
        let root = folder.join(format!("{name}-{}", packages.join("+")));
        if root.is_dir() {
            return Ok(Self { root });
        }
        if crate::skip::program("debootstrap").is_none() {
            return out("there is no debootstrap on this machine".to_owned());
        }
        let Some(mirror) = mirror() else {
            return out("this machine names no Debian mirror".to_owned());
        };
        let release = format!("{}/dists/{name}/Release", mirror.trim_end_matches('/'));
        let reachable = Command::new("curl")
            .args([
                "--silent",
                "--fail",
                "--head",
                "--location",
                "--max-time",
                "20",
            ])
            .arg(&release)
            .stdout(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        if !reachable {
            return out(format!("{release} cannot be reached"));
        }
        let unfinished = folder.join(format!("{name}.unfinished"));
        let _ = fs::remove_dir_all(&unfinished);
        let output = Command::new("debootstrap")
            .arg("--variant=minbase")
            .arg(format!("--include={}", packages.join(",")))
            .arg(name)
            .arg(&unfinished)
            .arg(&mirror)
            .output()
            .map_err(|why| Missing::Failed(why.to_string()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            let end: Vec<&str> = said.lines().rev().take(5).collect();
            return Err(Missing::Failed(format!("debootstrap {name}: {end:?}")));
        }
        fs::rename(&unfinished, &root).map_err(|why| Missing::Failed(why.to_string()))?;
        Ok(Self { root })
    }

    /// A command in it.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("chroot");
        command.arg(&self.root).arg(program);
        command
    }
}

/// Cargo's target directory.
fn target() -> PathBuf {
    let program = program::executable();
    program
        .ancestors()
        .nth(2)
        .map(Path::to_owned)
        .expect("the program lies below target/PROFILE")
}

/// The mirror from which this machine installs its own suite.
fn mirror() -> Option<String> {
    let release = fs::read_to_string("/etc/os-release").ok()?;
    let own = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))?
        .trim_matches('"')
        .to_owned();
    let mut texts = vec![fs::read_to_string("/etc/apt/sources.list").unwrap_or_default()];
    if let Ok(folder) = fs::read_dir("/etc/apt/sources.list.d") {
        texts.extend(folder.filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok()));
    }
    texts.iter().find_map(|text| mirror_in(text, &own))
}

/// In lines (`deb URL SUITE main`) or in stanzas (`URIs:`, `Suites:`).
fn mirror_in(text: &str, suite: &str) -> Option<String> {
    let of_line = text.lines().find_map(|line| {
        let words: Vec<&str> = line
            .split_whitespace()
            .filter(|word| !word.starts_with('[') && !word.ends_with(']'))
            .collect();
        match words.as_slice() {
            ["deb", url, named, ..] if *named == suite => Some((*url).to_owned()),
            _ => None,
        }
    });
    of_line.or_else(|| {
        text.split("\n\n").find_map(|stanza| {
            let field = |name: &str| stanza.lines().find_map(|line| line.strip_prefix(name));
            let named = field("Suites:")?.split_whitespace().any(|one| one == suite);
            let url = field("URIs:")?.split_whitespace().next()?;
            named.then(|| url.to_owned())
        })
    })
}
