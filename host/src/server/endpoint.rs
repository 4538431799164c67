//! What one listener is: its name, its TLS, whom it serves, its limits.

use std::sync::Arc;

use tokio::runtime::Handle;

use super::identity::PlainForeman;
use super::limits::Limits;
use super::own_names::OwnNames;
use super::tls::Tls;
use crate::plugin::routes::Audiences;

/// A listener's configuration.
pub struct Endpoint {
    /// For logs and metrics.
    pub name: Arc<str>,
    /// Whom it serves.
    pub serves: Serves,
    /// Its TLS; none: plain HTTP.
    pub tls: Option<Arc<Tls>>,
    /// Whether Foreman's audience is served on plain HTTP.
    pub plain_foreman: PlainForeman,
    /// On trial: the only names it answers to.
    pub own_names: Option<OwnNames>,
    /// What a client may cost.
    pub limits: Arc<Limits>,
    /// The threads on which its connections are accepted and served.
    pub threads: Handle,
}

/// Whom a listener serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serves {
    /// Plugins' routes of these audiences, and the Smart Proxy's core API.
    Audiences(Audiences),
    /// The administrator: metrics and health, nothing else.
    Admin,
}
