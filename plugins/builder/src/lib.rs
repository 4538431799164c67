//! Builds plugin crates of this workspace into WebAssembly components, from a build script.
//!
//! `cargo build` of the host shall give a complete program, so the crate that embeds the plugins builds them first, with
//! the same cargo, for [`TARGET`]. It asks for nothing beyond the toolchain: when the target is missing, rustup adds it.
//!
//! It refuses to guess: no cargo, no target, a failed build or a missing component each end the build with one sentence
//! that says what to do.
//!
//! The one idea: the inner cargo gets its *own* target directory (`components` below the outer one), since the outer
//! cargo holds a lock on its own while build scripts run; and it gets a clean environment, since flags meant for the
//! machine that runs the host (sanitizers, coverage, `-C target-cpu`) do not fit the sandbox. One call builds all crates, so
//! that what they share is compiled once.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

/// The target of every plugin: WASI 0.2, whose linker writes components.
pub const TARGET: &str = "wasm32-wasip2";

/// The cargo profile of every plugin, described in the workspace's `Cargo.toml`.
pub const PROFILE: &str = "component";

/// One plugin crate and the name of its component.
#[derive(Debug, Clone, Copy)]
pub struct Plugin {
    /// The component's name; the file is called `NAME.wasm`.
    pub name: &'static str,
    /// The crate's package name in the workspace.
    pub package: &'static str,
    /// The crate's folder, relative to the workspace.
    pub folder: &'static str,
}

/// Why the components could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A variable that cargo sets for build scripts is missing.
    #[error("the variable {0} is not set: this code runs only in a build script started by cargo")]
    NotABuildScript(&'static str),
    /// The standard library for the target is missing and rustup could not add it.
    #[error(
        "the Rust target {TARGET} is missing and could not be added ({reason}); run `rustup target add {TARGET}` while online, then build again"
    )]
    NoTarget {
        /// What went wrong, as rustup or the system said it.
        reason: String,
    },
    /// A program could not be started at all.
    #[error("cannot run {program}: {cause}")]
    CannotRun {
        /// The program.
        program: PathBuf,
        /// The system's reason.
        cause: io::Error,
    },
    /// The inner cargo said no; its own messages stand above this one.
    #[error("building the plugins failed; to see it alone, run: {command}")]
    Failed {
        /// The command that failed, fit for a shell.
        command: String,
    },
    /// Cargo succeeded, but the component is not where it should be.
    #[error(
        "cargo built package {package}, but there is no component at {path}: is its crate-type \"cdylib\"?"
    )]
    NoComponent {
        /// The package.
        package: &'static str,
        /// Where the component was expected.
        path: PathBuf,
    },
    /// A component could not be copied to the output directory.
    #[error("cannot copy {from} to {to}: {cause}")]
    CannotCopy {
        /// The built component.
        from: PathBuf,
        /// Its place in the build script's output directory.
        to: PathBuf,
        /// The system's reason.
        cause: io::Error,
    },
}

/// Builds the plugins and puts each at `OUT_DIR/NAME.wasm`, its identity beside it at `OUT_DIR/NAME.digest`. Tells cargo when to do it again.
///
/// # Errors
/// See [`BuildError`]; a build script prints it and ends, see [`main`].
pub fn build(plugins: &[Plugin]) -> Result<(), BuildError> {
    let out_dir = variable("OUT_DIR").map(PathBuf::from)?;
    let workspace = workspace()?;
    rerun_when_changed(&workspace, plugins);
    ensure_target()?;

    let target_dir = components_dir(&out_dir);
    let mut cargo = Command::new(variable("CARGO")?);
    cargo
        .current_dir(&workspace)
        .args(["build", "--target", TARGET, "--profile", PROFILE]);
    cargo.arg("--target-dir").arg(&target_dir);
    if workspace.join("Cargo.lock").exists() {
        cargo.arg("--locked");
    }
    for plugin in plugins {
        cargo.args(["--package", plugin.package]);
    }
    for leaking in env::vars_os()
        .map(|(name, _)| name)
        .filter(|name| leaks(name.as_os_str()))
    {
        cargo.env_remove(leaking);
    }
    run(&mut cargo)?;

    for plugin in plugins {
        let file = format!("{}.wasm", plugin.package.replace('-', "_"));
        let from = target_dir.join(TARGET).join(PROFILE).join(file);
        if !from.is_file() {
            return Err(BuildError::NoComponent {
                package: plugin.package,
                path: from,
            });
        }
        let to = out_dir.join(format!("{}.wasm", plugin.name));
        copy_if_changed(&from, &to)
            .and_then(|()| write_digest(&to))
            .map_err(|cause| BuildError::CannotCopy { from, to, cause })?;
    }
    Ok(())
}

/// The whole `main` of a build script: builds the plugins, or ends the build with the reason. Cargo then shows what the
/// inner cargo said.
pub fn main(plugins: &[Plugin]) {
    if let Err(problem) = build(plugins) {
        eprintln!("error: {problem}");
        std::process::exit(1);
    }
}

/// The workspace of the package whose build script runs, two folders up. Not this crate's own place, which a copied target directory remembers.
fn workspace() -> Result<PathBuf, BuildError> {
    let here = variable("CARGO_MANIFEST_DIR").map(PathBuf::from)?;
    Ok(here.ancestors().nth(2).unwrap_or(&here).to_path_buf())
}

/// `components` below the outer target directory, so that all profiles and build scripts share it. Cargo marks its target
/// directory with a `CACHEDIR.TAG`.
fn components_dir(out_dir: &Path) -> PathBuf {
    let target = out_dir
        .ancestors()
        .find(|folder| folder.join("CACHEDIR.TAG").is_file());
    target.unwrap_or(out_dir).join("components")
}

fn rerun_when_changed(workspace: &Path, plugins: &[Plugin]) {
    let shared = [
        "wit",
        "sdk",
        "Cargo.toml",
        "Cargo.lock",
        "rust-toolchain.toml",
    ];
    for path in shared
        .into_iter()
        .chain(plugins.iter().map(|plugin| plugin.folder))
    {
        println!("cargo::rerun-if-changed={}", workspace.join(path).display());
    }
}

/// Variables by which the outer build would change the inner one. What says how to reach registries, and the job server, stays.
fn leaks(name: &OsStr) -> bool {
    const KEPT: [&str; 8] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_MAKEFLAGS",
        "CARGO_NET_",
        "CARGO_REGISTR",
        "CARGO_SOURCE_",
        "CARGO_TERM_",
        "CARGO_BUILD_JOBS",
    ];
    const RUST: [&str; 5] = [
        "RUSTFLAGS",
        "RUSTDOCFLAGS",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "CLIPPY_ARGS",
    ];
    let Some(name) = name.to_str() else {
        return false;
    };
    RUST.contains(&name)
        || (name.starts_with("CARGO_") && !KEPT.iter().any(|kept| name.starts_with(kept)))
}

/// Adds the target with rustup when the compiler has no standard library for it.
fn ensure_target() -> Result<(), BuildError> {
    if has_target()? {
        return Ok(());
    }
    let output = Command::new("rustup")
        .args(["target", "add", TARGET])
        .output()
        .map_err(|cause| BuildError::NoTarget {
            reason: format!("rustup cannot be run: {cause}"),
        })?;
    if output.status.success() && has_target()? {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let reason = said
        .lines()
        .rfind(|line| !line.trim().is_empty())
        .unwrap_or("rustup gave no reason")
        .trim()
        .to_owned();
    Err(BuildError::NoTarget { reason })
}

fn has_target() -> Result<bool, BuildError> {
    let rustc = PathBuf::from(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    let output = Command::new(&rustc)
        .args(["--print", "target-libdir", "--target", TARGET])
        .output()
        .map_err(|cause| BuildError::CannotRun {
            program: rustc,
            cause,
        })?;
    let folder = String::from_utf8_lossy(&output.stdout);
    Ok(output.status.success() && Path::new(folder.trim()).is_dir())
}

fn run(command: &mut Command) -> Result<(), BuildError> {
    let status = command.status().map_err(|cause| BuildError::CannotRun {
        program: command.get_program().into(),
        cause,
    })?;
    if status.success() {
        return Ok(());
    }
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let command = words
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ");
    Err(BuildError::Failed { command })
}

/// Leaves an equal file alone, so that its time does not make cargo build what includes it again.
fn copy_if_changed(from: &Path, to: &Path) -> io::Result<()> {
    let built = fs::read(from)?;
    if fs::read(to).is_ok_and(|present| present == built) {
        return Ok(());
    }
    fs::write(to, built)
}

/// Writes `sha256:<hex>` of a component beside it: who embeds both need not look at the whole component to know which it is.
fn write_digest(component: &Path) -> io::Result<()> {
    let hex: String = Sha256::digest(fs::read(component)?)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let (path, digest) = (component.with_extension("digest"), format!("sha256:{hex}"));
    if fs::read_to_string(&path).is_ok_and(|present| present == digest) {
        return Ok(());
    }
    fs::write(path, digest)
}

fn variable(name: &'static str) -> Result<OsString, BuildError> {
    env::var_os(name).ok_or(BuildError::NotABuildScript(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaks_named(name: &str) -> bool {
        leaks(OsStr::new(name))
    }

    #[test]
    fn flags_of_the_outer_build_do_not_reach_the_components() {
        for name in [
            "RUSTFLAGS",
            "CARGO_ENCODED_RUSTFLAGS",
            "RUSTC_WORKSPACE_WRAPPER",
            "CARGO_TARGET_DIR",
            "CARGO_BUILD_TARGET",
            "CARGO_PROFILE_RELEASE_LTO",
            "CARGO_INCREMENTAL",
        ] {
            assert!(leaks_named(name), "{name} leaks");
        }
    }

    #[test]
    fn registries_and_the_job_server_stay_reachable() {
        for name in [
            "CARGO_HOME",
            "CARGO_NET_OFFLINE",
            "CARGO_HTTP_CAINFO",
            "CARGO_REGISTRIES_MINE_TOKEN",
            "CARGO_MAKEFLAGS",
            "PATH",
            "HTTPS_PROXY",
        ] {
            assert!(!leaks_named(name), "{name} is lost");
        }
    }

    #[test]
    fn components_stand_below_the_marked_target_directory() {
        let target = env::temp_dir().join(format!("bulkhead-builder-{}", std::process::id()));
        let out = target.join("release/build/x/out");
        fs::create_dir_all(&out).unwrap();
        fs::write(target.join("CACHEDIR.TAG"), "").unwrap();
        assert_eq!(components_dir(&out), target.join("components"));
        fs::remove_dir_all(&target).unwrap();
    }

    #[test]
    fn an_equal_component_keeps_its_time() {
        let folder = env::temp_dir().join(format!("bulkhead-builder-copy-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (from, to) = (folder.join("from"), folder.join("to"));
        fs::write(&from, "one").unwrap();
        copy_if_changed(&from, &to).unwrap();
        let before = fs::metadata(&to).unwrap().modified().unwrap();
        copy_if_changed(&from, &to).unwrap();
        assert_eq!(fs::metadata(&to).unwrap().modified().unwrap(), before);
        fs::write(&from, "two").unwrap();
        copy_if_changed(&from, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"two");
        fs::remove_dir_all(&folder).unwrap();
    }
}
