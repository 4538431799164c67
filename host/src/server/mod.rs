//! Sockets in: listeners, TLS, limits, who is calling, routing by method + path + audience, draining.
//!
//! It refuses everything a client could do to cost more than its share or to be taken for somebody else, before any plugin is asked. It
//! runs no plugin: what passed is handed to a [`Dispatch`].
//!
//! The way of a request through the files: `listener` accepts, `connections` finds it a place, `connection` shakes hands (`tls`), `gate` lets
//! complete heads through (`head`, `chunks`), hyper parses, `service` decides (`fronts`, `own_names`, `path`, `identity`, and the routes of
//! `plugin::routes`), `rates` counts, `body` reads, `admitted` hands over, `answer` makes every error HTTP, `record` writes it down. `stall` watches
//! over clients that do not read, `limits` holds all numbers.

mod activation;
mod admitted;
pub mod answer;
mod body;
mod chunks;
mod connection;
mod connections;
pub mod descriptors;
mod dispatch;
mod endpoint;
mod fronts;
mod gate;
mod head;
mod identity;
mod limits;
mod listener;
mod listeners;
mod names;
mod outgoing;
mod own_names;
mod path;
mod rates;
mod record;
mod service;
mod shares;
mod stall;
mod tls;
mod trial;

pub use activation::{ActivationError, Inherited};
pub use admitted::{Admitted, Caller, Dispatch, Payload};
pub use answer::Refusal;
pub use body::{BodyError, HeldBody};
pub use dispatch::Plugins;
pub use endpoint::{Endpoint, Serves};
pub use fronts::{Forwarded, Fronts};
pub use identity::{
    Certificate, Identity, IdentityError, LOOKUP_TIME, PlainForeman, Trust, TrustedHosts,
};
pub use limits::Limits;
pub use listener::{BindError, Door, Drain, Drained, Listener, bind};
pub use listeners::{Bound, Listeners, ListenersError, Sockets, tls_files};
pub use names::{ResolverError, ReverseNames, SystemNames};
pub use own_names::OwnNames;
pub use path::{NormalPath, PathError};
pub use service::{Rules, Server, ServerParts};
pub use tls::{OldestTls, Reload, Tls, TlsError, TlsFiles};
pub use trial::{TRIAL_CLIENT, TrialError, TrialFiles};

#[cfg(test)]
mod tests;
