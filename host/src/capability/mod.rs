//! What the host does for plugins, each behind its grant.
//!
//! It refuses to act without asking: every function takes the plugin's [`Guard`](crate::grant::Guard) and decides first. Nothing here knows
//! of requests or routes; `sandbox` binds these functions to the imports of `wit/`.

pub mod beneath;
pub mod downloads;
pub mod files;
pub mod listen;
pub mod probe;
pub mod resolve;
pub mod secrets;
pub mod store;
mod throttle;
pub mod upstream;
pub mod wasi;
pub mod watch;

#[cfg(test)]
pub(crate) mod testing;

use std::sync::Arc;

/// What all plugins share of the host: one of each.
pub struct Facilities {
    /// Durable keys and values.
    pub store: store::Store,
    /// Keys and passwords.
    pub secrets: secrets::Secrets,
    /// Requests to Foreman and to other servers.
    pub upstream: upstream::Upstream,
    /// Files fetched in the background.
    pub downloads: downloads::Downloads,
    /// Addresses in use.
    pub probe: probe::Probe,
    /// Names.
    pub resolver: Arc<dyn wasi::names::NameLookup>,
}
