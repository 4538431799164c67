//! Who is calling: the end of the chain that the host verified. Never taken from headers a client may write.

use crate::host;

pub use crate::bindings::imports::foreman::proxy::caller::Peer;

/// The caller of this request. Inside a provider it is the original caller of the feature. None outside a request.
#[must_use]
pub fn current() -> Option<Peer> {
    host::caller::current()
}
