//! What one listener allows a client to cost: connections, bytes, time. Every value can be set by the operator.
//!
//! The one idea: time is counted against *progress of the client*, not against the work the proxy does for it. A client that
//! moves is never cut off by these limits; one that stops is, whatever state it stopped in.

use std::time::Duration;

/// Limits of one listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Open connections. Beyond it the connection that has waited longest for its client is closed for the new one; if all are
    /// at work, the new one is closed. 4,096: a registration storm of 1,000 hosts with room, at some 40 KiB a TLS connection.
    pub connections: usize,
    /// Open connections of one client address, handled likewise. 1,024: sites behind one NAT address are common, yet one address must
    /// not own the listener. Trusted fronts are not counted.
    pub connections_per_address: usize,
    /// Requests a second that one client address may make for long, of routes that are not Foreman's. 100: a site behind one NAT address that
    /// installs and registers 20 machines a second; Foreman renders less than that for all. Trusted fronts are not counted.
    pub requests_per_address: usize,
    /// Requests one address may make at once before that counts. 2,000: a thousand hosts behind one address, two requests each.
    pub request_burst: usize,
    /// From accept to the end of the TLS handshake. 10 s: a handshake is two round trips, even a satellite link does it in 2 s.
    pub handshake: Duration,
    /// From the first byte of a request head to its last; on a new connection from accept. 30 s: what the Ruby proxy allows.
    pub head_time: Duration,
    /// Between two requests of one connection. 30 s: Foreman opens a connection for every call, browsers and curl reuse one at once.
    pub idle: Duration,
    /// Between two pieces of a request body. 30 s, as for the head.
    pub body_idle: Duration,
    /// For a body that is read whole (at most 1 MiB by default), and for the first 64 KiB of one that is passed on. 60 s: 17 KiB/s, below any link that provisions hosts.
    pub body_time: Duration,
    /// For a body that is passed on in a stream. 4 h: a 1 GB report over a slow link, but not for ever.
    pub passed_body_time: Duration,
    /// Without progress in sending. 30 s. The kernel reports progress in pieces of up to some 100 KiB, so this also ends readers slower than
    /// a few KiB a second.
    pub send_stall: Duration,
    /// The age after which a connection takes no further request. 1 h: a certificate that expired or whose CA was removed does
    /// not live on for ever in an old connection.
    pub connection_age: Duration,
    /// Bytes of a request line. 16 KiB: the Ruby proxy stops at 2,083, which registration URLs come near to.
    pub request_line: usize,
    /// Bytes of a request head. 112 KiB: what the Ruby proxy allows.
    pub head: usize,
    /// Header lines. 100: Foreman sends 8, a browser behind two fronts about 30.
    pub header_lines: usize,
    /// Bytes of request bodies held in memory for all connections together. 64 MiB: 64 bodies of the largest size.
    pub held_bodies: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            connections_per_address: 1024,
            requests_per_address: 100,
            request_burst: 2000,
            handshake: Duration::from_secs(10),
            head_time: Duration::from_secs(30),
            idle: Duration::from_secs(30),
            body_idle: Duration::from_secs(30),
            body_time: Duration::from_secs(60),
            passed_body_time: Duration::from_secs(4 * 3600),
            send_stall: Duration::from_secs(30),
            connection_age: Duration::from_secs(3600),
            request_line: 16 * 1024,
            head: 112 * 1024,
            header_lines: 100,
            held_bodies: 64 * 1024 * 1024,
        }
    }
}

/// After a refusal the rest of what the client sends is read and dropped for at most this long, because a close with unread data
/// makes the kernel reset the connection and the client would never see the answer. 2 s: an answer has arrived by then.
pub(super) const LINGER_TIME: Duration = Duration::from_secs(2);
/// The most bytes dropped that way. 4 MiB: a client that sends more has not looked for an answer.
pub(super) const LINGER_BYTES: u64 = 4 * 1024 * 1024;
/// So much of a body that is passed on has to come before anybody waits for the rest. 64 KiB: a registration is some 10 KiB, so whoever sends
/// one slowly holds a little memory and no place in the line to Foreman.
pub(super) const FIRST_PART: u64 = 64 * 1024;
/// The most bytes of a body that is sent to a route which takes none; they are read and dropped (wit/types.wit, `body-mode`).
pub(super) const UNWANTED_BODY: u64 = 64 * 1024;
