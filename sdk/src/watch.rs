//! Files of the machine that a plugin reads and follows, but never writes: a `watch` slot. Changes arrive as
//! [`Event::FileChanged`](crate::Event::FileChanged).

use crate::host;

pub use crate::bindings::imports::foreman::proxy::watch::{Chunk, Error, File};

/// The most one [`read`] gives, in bytes.
pub const LARGEST_READ: u32 = 1 << 20;

/// What is at that path now: absolute as the policy lists it, or relative to the slot's directory.
///
/// # Errors
/// See [`Error`].
pub fn about(slot: &str, path: &str) -> Result<File, Error> {
    host::watch::about(slot, path)
}

/// At most `limit` bytes (up to [`LARGEST_READ`]) from `offset`; fewer only at the end of the file.
///
/// # Errors
/// See [`Error`].
pub fn read(slot: &str, path: &str, offset: u64, limit: u32) -> Result<Chunk, Error> {
    host::watch::read(slot, path, offset, limit)
}
