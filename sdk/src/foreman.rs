//! Requests to Foreman, sent by the host with the proxy's own certificate: the key never enters a sandbox. Each is decided by
//! method and path.

use crate::host;
use crate::http::{Incoming, Outgoing, UpstreamError};

/// Sends a request through a `foreman` slot and waits for the whole answer. Any status is an answer, also 500.
///
/// # Errors
/// When there is no answer.
pub fn send(request: &Outgoing) -> Result<Incoming, UpstreamError> {
    host::foreman::send(request.record())
        .map(Incoming::new)
        .map_err(UpstreamError::new)
}
