//! Response headers a plugin may set: all but those that belong to the host, to the connection, or to the whole origin.

use super::super::denial::Refusal;
use super::Verdict;

/// Headers that belong to the host or to the connection, would take over other pages of the same origin, or command a server in front.
const HOST_HEADERS: [&str; 22] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
    "content-length",
    "date",
    "server",
    "host",
    "set-cookie",
    "strict-transport-security",
    "alt-svc",
    "clear-site-data",
    // A web server in front takes these as orders to send a file of its own.
    "x-accel-redirect",
    "x-sendfile",
    "x-lighttpd-send-file",
    "x-reproxy-url",
];

pub(super) fn response_header<'e>(name: &str) -> Verdict<'e> {
    let token = !name.is_empty()
        && name.bytes().all(|b| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&b)
        });
    if !token {
        return Err(Refusal::new(
            "built-in",
            "this is no lower-case header name",
        ));
    }
    if HOST_HEADERS.contains(&name) {
        return Err(Refusal::new("built-in", "this header belongs to the host"));
    }
    Ok(None)
}
