//! Components are compiled once for all tests: a program's compile cache starts with what earlier programs of these tests left.
//!
//! It is the program's own cache, keyed by component and engine, so a stale file is never used. Without it every program of every test would compile every
//! bundled plugin.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::program::executable;

/// Below the target directory.
fn shared() -> PathBuf {
    let program = executable();
    let place = program.parent().expect("the program lies in a directory");
    place.join("compiled-for-tests")
}

/// The file with which a cache proves that it wrote its entries itself.
const KEY: &str = "key";
/// Bytes of the key.
const KEY_LENGTH: usize = 64;

/// Fills the cache of a program that has none yet.
pub(crate) fn lend(state: &Path) {
    let own = state.join("compiled");
    if own.exists() || make(&shared()).is_err() {
        return;
    }
    // All programs of the tests share one key, so that what one wrote is authentic for the next.
    let key = shared().join(KEY);
    if !key.exists() {
        let fresh = shared().join(format!(".key.{}", std::process::id()));
        let written = fs::File::open("/dev/urandom")
            .and_then(|mut source| {
                let mut bytes = [0; KEY_LENGTH];
                source.read_exact(&mut bytes)?;
                fs::write(&fresh, bytes)
            })
            .and_then(|()| fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600)))
            // Fails if another test was faster; then its key is the one.
            .and_then(|()| fs::hard_link(&fresh, &key));
        let _ = fs::remove_file(&fresh);
        if written.is_err() && !key.exists() {
            return;
        }
    }
    if make(&own).is_ok() {
        copy_missing(&shared(), &own);
    }
}

/// Keeps what a program compiled.
pub(crate) fn keep(state: &Path) {
    let own = state.join("compiled");
    let key = |place: &Path| fs::read(place.join(KEY)).ok();
    if let (Some(one), Some(other)) = (key(&own), key(&shared()))
        && one == other
    {
        copy_missing(&own, &shared());
    }
}

fn make(directory: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
}

/// Whole files only: tests run beside each other, and each looks at the same directory.
fn copy_missing(from: &Path, to: &Path) {
    let Ok(files) = fs::read_dir(from) else {
        return;
    };
    for file in files.flatten() {
        let name = file.file_name();
        let target = to.join(&name);
        let text = name.to_string_lossy();
        if target.exists() || text.contains("part-") || text.starts_with('.') {
            continue;
        }
        let fresh = to.join(format!(".{text}.{}", std::process::id()));
        let whole = fs::copy(file.path(), &fresh)
            .and_then(|_| fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600)))
            .and_then(|()| fs::rename(&fresh, &target));
        if whole.is_err() {
            let _ = fs::remove_file(&fresh);
        }
    }
}
