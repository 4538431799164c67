//! A network server as a reactor: the host owns the listening sockets and feeds the plugin what arrives.

use crate::plugin::Plugin;

pub use crate::bindings::reactor_part::exports::foreman::proxy::reactor::{
    Datagram, Port, Reaction, Transfer, Transport,
};

/// A service that answers datagrams.
pub trait Service: Plugin {
    /// Takes what arrived (at most 256, in order) and answers with what shall happen. Each reaction is decided by policy.
    fn datagrams(batch: Vec<Datagram>) -> Vec<Reaction>;
}
