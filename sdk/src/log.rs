//! Log lines, shown in the host's log and to Foreman in `/logs`. The host adds plugin, request and caller, escapes control
//! characters, cuts a line at 4 KiB, and counts lines beyond the plugin's rate instead of writing them.

use crate::host;

pub use crate::bindings::imports::foreman::proxy::log::Level;

/// For someone who looks for a fault.
pub fn debug(message: impl AsRef<str>) {
    host::log::write(Level::Debug, message.as_ref());
}

/// What happened.
pub fn info(message: impl AsRef<str>) {
    host::log::write(Level::Info, message.as_ref());
}

/// What somebody should look at some day.
pub fn warn(message: impl AsRef<str>) {
    host::log::write(Level::Warn, message.as_ref());
}

/// What failed.
pub fn error(message: impl AsRef<str>) {
    host::log::write(Level::Error, message.as_ref());
}
