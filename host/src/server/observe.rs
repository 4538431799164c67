//! What the server tells the rest of the house: connections and requests as they end, for metrics.
//!
//! It is a trait so that this floor counts nothing itself; log lines are written where things happen.

use std::net::IpAddr;
use std::time::Duration;

use crate::sandbox::bindings::types::Audience;

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConnectionEnd {
    /// Closed by either side between requests, or after `Connection: close`.
    Done,
    /// Not let in: all connections of the listener were at work.
    TooMany,
    /// Not let in: all connections of this client address were at work.
    TooManyOfAddress,
    /// Closed while it waited for its client, to make room for a new one.
    Evicted,
    /// The TLS handshake failed or took too long.
    Handshake,
    /// Its client spoke something else than the listener does, or broken HTTP.
    Refused,
    /// Its client stopped reading or vanished.
    Lost,
    /// Still open when draining ended.
    Aborted,
}

impl ConnectionEnd {
    /// A short name for logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::TooMany => "too-many",
            Self::TooManyOfAddress => "too-many-of-address",
            Self::Evicted => "evicted",
            Self::Handshake => "handshake",
            Self::Refused => "refused",
            Self::Lost => "lost",
            Self::Aborted => "aborted",
        }
    }
}

/// One request, after its answer was sent or given up.
#[derive(Debug)]
pub struct RequestRecord<'a> {
    /// The listener's name.
    pub listener: &'a str,
    /// The plugin that owned the path; none for the host's own answers.
    pub plugin: Option<&'a str>,
    /// The audience it was admitted for; none when it was refused before.
    pub audience: Option<Audience>,
    /// The status sent.
    pub status: u16,
    /// From the complete head to the end of the answer's body.
    pub time: Duration,
    /// Bytes of the answer's body handed to the connection.
    pub bytes: u64,
    /// False: the client left, or the answer broke off.
    pub complete: bool,
}

/// Somebody who counts. Called on the threads that serve sockets: must not block.
pub trait Observer: Send + Sync + 'static {
    /// A connection was accepted.
    fn connection_opened(&self, listener: &str, address: IpAddr);
    /// A connection ended.
    fn connection_ended(&self, listener: &str, address: IpAddr, end: ConnectionEnd);
    /// A request was answered.
    fn request_ended(&self, record: &RequestRecord<'_>);
}

/// Counts nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn connection_opened(&self, _: &str, _: IpAddr) {}
    fn connection_ended(&self, _: &str, _: IpAddr, _: ConnectionEnd) {}
    fn request_ended(&self, _: &RequestRecord<'_>) {}
}
