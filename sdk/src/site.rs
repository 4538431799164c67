//! The site this proxy stands in: its addresses as others see them, and the version it shows.

use crate::bindings::imports::foreman::proxy::types::Audience;
use crate::host;

/// The public base URL of an audience's listener, without trailing slash.
#[must_use]
pub fn public_url(audience: Audience) -> Option<String> {
    host::site::public_url(audience)
}

/// The first plain HTTP port on which this plugin's routes are served.
#[must_use]
pub fn http_port() -> Option<u16> {
    host::site::http_port()
}

/// The first TLS port on which this plugin's routes are served.
#[must_use]
pub fn https_port() -> Option<u16> {
    host::site::https_port()
}

/// The Smart Proxy version shown to Foreman.
#[must_use]
pub fn version() -> String {
    host::site::version()
}
