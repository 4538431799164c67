//! A function of the C library replaced under a real program.
//!
//! The one idea: the program is the real one; a library that the dynamic linker loads first answers for one thing, and leaves all else as it is.

use std::path::PathBuf;
use std::process::Command;

use crate::scratch::Scratch;

/// What [`build`] needs.
pub const COMPILER: &str = "cc";

/// Builds such a library in `scratch`, with a constant set; answers the value for `LD_PRELOAD`.
pub(crate) fn build(scratch: &Scratch, name: &str, source: &str, constant: &str) -> PathBuf {
    let source = scratch.file(&format!("{name}.c"), source);
    let library = scratch.join(format!("{name}.so"));
    let built = Command::new(COMPILER)
        .args(["-shared", "-fPIC", "-O1"])
        .arg(format!("-D{constant}"))
        .arg("-o")
        .arg(&library)
        .arg(source)
        .status()
        .expect("a C compiler can be started");
    assert!(built.success(), "{name} cannot be built");
    library
}
