//! Files fetched by the host in the background, whole or not at all, into a `files` slot.

use std::fmt;

use crate::bindings::imports::foreman::proxy::downloads::Error;
use crate::host;

pub use crate::bindings::imports::foreman::proxy::downloads::{Progress, Stage};

/// Starts to fetch an `http` or `https` URL to `path` in the slot's directory, and returns at once. A path that is being
/// fetched already is left alone, and an existing file is replaced only by a newer one.
///
/// # Errors
/// When the host does not even start; what fails later is in the log and in [`query`].
pub fn fetch(slot: &str, url: &str, path: &str) -> Result<(), NotStarted> {
    host::downloads::fetch(slot, url, path).map_err(NotStarted)
}

/// How far a download is. None: nothing is known about that path since the host started.
#[must_use]
pub fn query(slot: &str, path: &str) -> Option<Progress> {
    host::downloads::query(slot, path)
}

/// Why a download was not started.
#[derive(Debug, Clone, PartialEq)]
pub struct NotStarted(Error);

impl NotStarted {
    /// The plain record: which of the cases it is.
    #[must_use]
    pub fn record(&self) -> &Error {
        &self.0
    }
}

impl fmt::Display for NotStarted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Error::Denied(why) => write!(formatter, "denied: {why}"),
            Error::Invalid(why) => formatter.write_str(why),
            Error::Busy => formatter.write_str("too many downloads are waiting"),
        }
    }
}

impl std::error::Error for NotStarted {}
