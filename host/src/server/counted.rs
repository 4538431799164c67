//! The server's observer that counts into the metrics.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use super::observe::{ConnectionEnd, Observer, RequestRecord};
use crate::telemetry::labels::ConnectionRejection;
use crate::telemetry::metrics::{Metrics, OpenConnection};

/// Counts connections and requests.
pub struct Counted {
    metrics: Arc<Metrics>,
    /// Open connections by listener; which of them ends does not matter to a gauge.
    open: Mutex<HashMap<String, Vec<OpenConnection>>>,
}

impl Counted {
    /// Counts into these metrics.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, open: Mutex::default() }
    }
}

impl Observer for Counted {
    fn connection_opened(&self, listener: &str, _address: IpAddr) {
        let connection = self.metrics.listener(listener).connected();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        match open.get_mut(listener) {
            Some(connections) => connections.push(connection),
            None => {
                open.insert(listener.to_owned(), vec![connection]);
            }
        }
    }

    fn connection_ended(&self, listener: &str, _address: IpAddr, end: ConnectionEnd) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connections) = open.get_mut(listener) {
            connections.pop();
        }
        drop(open);
        let reason = match end {
            ConnectionEnd::TooMany | ConnectionEnd::Evicted => ConnectionRejection::ListenerFull,
            ConnectionEnd::TooManyOfAddress => ConnectionRejection::ClientFull,
            ConnectionEnd::Handshake => ConnectionRejection::Handshake,
            ConnectionEnd::Refused => ConnectionRejection::Head,
            ConnectionEnd::Done | ConnectionEnd::Lost | ConnectionEnd::Aborted => return,
        };
        self.metrics.listener(listener).rejected(reason);
    }

    fn request_ended(&self, record: &RequestRecord<'_>) {
        let plugin = self.metrics.plugin(record.plugin.unwrap_or(if record.audience.is_some() { "core" } else { "none" }));
        let status = http::StatusCode::from_u16(record.status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
        self.metrics.listener(record.listener).answered(&plugin, record.method, status, record.time);
    }
}
