//! Secrets are used rather than seen: the host signs and verifies with them. Only [`reveal`] hands one out, and only under a
//! policy that says so in so many words.

use crate::host;

pub use crate::bindings::imports::foreman::proxy::secrets::{Error, Key};

/// The public name and algorithm of the slot's key.
///
/// # Errors
/// Denied, or the secret is missing or malformed.
pub fn about(slot: &str) -> Result<Key, Error> {
    host::secrets::about(slot)
}

/// The HMAC of a message under the slot's key and its algorithm.
///
/// # Errors
/// Denied, or the secret is missing or malformed.
pub fn sign(slot: &str, message: &[u8]) -> Result<Vec<u8>, Error> {
    host::secrets::sign(slot, message)
}

/// Whether `mac` is the HMAC of the message, compared in constant time.
///
/// # Errors
/// Denied, or the secret is missing or malformed.
pub fn verify(slot: &str, message: &[u8], mac: &[u8]) -> Result<bool, Error> {
    host::secrets::verify(slot, message, mac)
}

/// The secret itself; needs access `reveal`.
///
/// # Errors
/// Denied, or the secret is missing or malformed.
pub fn reveal(slot: &str) -> Result<Vec<u8>, Error> {
    host::secrets::reveal(slot)
}
