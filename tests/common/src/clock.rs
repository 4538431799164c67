//! A program of the machine whose clock is wrong. Time that passes stays as it is.

use std::process::Command;

use crate::preload;
use crate::scratch::Scratch;

/// Has a program see a clock that is so many seconds ahead. The library is built in `scratch`.
pub fn ahead(command: &mut Command, seconds: u32, scratch: &Scratch) {
    let constant = format!("AHEAD={seconds}");
    let library = preload::build(scratch, "clock", include_str!("clock.c"), &constant);
    command.env("LD_PRELOAD", library);
}
