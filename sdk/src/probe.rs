//! Whether somebody uses an address already: the host asks, from a `probe` slot.

use std::time::Duration;

use crate::host;

pub use crate::bindings::imports::foreman::proxy::probe::{Error, Outcome};

/// Asks up to 64 addresses at once, for at most `time` (up to 5 s). Outcomes in the order of the addresses.
///
/// # Errors
/// See [`Error`].
pub fn ask(slot: &str, addresses: &[String], time: Duration) -> Result<Vec<Outcome>, Error> {
    let timeout = u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
    host::probe::ask(slot, addresses, timeout)
}
