//! What went wrong with an upstream, in the contract's five words: denied, timeout, unreachable, tls, protocol.
//!
//! The texts are for logs. They name the origin, never addresses or secrets.

use std::error::Error;
use std::io;

use super::dial::Origin;
use crate::sandbox::bindings::types::UpstreamError;

/// Of an error while connecting, reading or writing.
pub(crate) fn of_io(origin: &Origin, error: &io::Error) -> UpstreamError {
    match tls_cause(error) {
        Some(cause) => UpstreamError::Tls(format!("{origin}: {cause}")),
        None => UpstreamError::Unreachable(format!("{origin}: {}", plain(error))),
    }
}

/// Of an error of the HTTP client.
pub(crate) fn of_hyper(origin: &Origin, error: &hyper::Error) -> UpstreamError {
    if error.is_parse() || error.is_parse_status() || error.is_parse_too_large() {
        return UpstreamError::Protocol(format!(
            "{origin} does not answer in HTTP, or with too large a head"
        ));
    }
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return of_io(origin, error);
        }
        cause = error.source();
    }
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        return UpstreamError::Unreachable(format!("{origin} closed the connection"));
    }
    if error.is_user() {
        return UpstreamError::Protocol(format!(
            "the request to {origin} could not be sent: {error}"
        ));
    }
    UpstreamError::Protocol(format!("{origin}: {error}"))
}

fn tls_cause(error: &io::Error) -> Option<&rustls::Error> {
    let mut inner = error.get_ref()?;
    loop {
        if let Some(found) = inner.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        inner = inner.downcast_ref::<io::Error>()?.get_ref()?;
    }
}

/// The kinds that an operator meets, in plain words.
fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "connection reset".into(),
        io::ErrorKind::UnexpectedEof => "connection closed".into(),
        io::ErrorKind::TimedOut => "connection timed out".into(),
        _ => error.to_string(),
    }
}
