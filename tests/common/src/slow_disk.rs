//! A program whose disk is slow to say that it has written.

use std::path::PathBuf;
use std::time::Duration;

use crate::preload;
use crate::scratch::Scratch;

/// A library that makes each `fdatasync` and `fsync` of whoever loads it (`LD_PRELOAD`) take so much longer. It is built in `scratch`.
pub fn library(more: Duration, scratch: &Scratch) -> PathBuf {
    let constant = format!("NANOSECONDS={}L", more.subsec_nanos());
    preload::build(scratch, "slow_disk", include_str!("slow_disk.c"), &constant)
}
