//! A program of the machine whose clock is wrong.
//!
//! The one idea: the program is the real one; a library that the dynamic linker loads first answers for the wall clock. Time that passes stays as it is.

use std::path::PathBuf;
use std::process::Command;

use crate::scratch::Scratch;

/// What [`ahead`] needs.
pub const COMPILER: &str = "cc";

/// Has a program see a clock that is so many seconds ahead. The library is built in `scratch`.
pub fn ahead(command: &mut Command, seconds: u32, scratch: &Scratch) {
    let source = scratch.file("clock.c", include_str!("clock.c"));
    let library: PathBuf = scratch.join("clock.so");
    let built = Command::new(COMPILER)
        .args(["-shared", "-fPIC", "-O1"])
        .arg(format!("-DAHEAD={seconds}"))
        .arg("-o")
        .arg(&library)
        .arg(source)
        .status()
        .expect("a C compiler can be started");
    assert!(built.success(), "the clock cannot be built");
    command.env("LD_PRELOAD", library);
}
