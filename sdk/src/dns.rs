//! DNS records, one at a time: served by `dns-*` plugins, called by the feature `dns`.
//!
//! Names are lower case and without trailing dot, values in presentation form (RFC 1035 section 5), times to live in seconds.

use crate::host;
use crate::plugin::Plugin;

pub use crate::bindings::imports::foreman::proxy::dns_types::{DnsRecord, Error, RecordType};

/// The interface's full name, for [`crate::Need::call`].
pub const INTERFACE: &str = "foreman:proxy/dns-provider@0.1.0";

/// A plugin that changes records on some DNS server.
pub trait DnsProvider: Plugin {
    /// All records of that name and type; empty when there are none.
    ///
    /// # Errors
    /// See [`Error`].
    fn find(name: String, kind: RecordType) -> Result<Vec<DnsRecord>, Error>;

    /// Creates the record if the name has no data of that type, atomically on the server. False: the very same record existed.
    ///
    /// # Errors
    /// See [`Error`].
    fn create(wanted: DnsRecord) -> Result<bool, Error>;

    /// Removes all records of that name and type, or only those with `value`. False: there were none.
    ///
    /// # Errors
    /// See [`Error`].
    fn remove(name: String, kind: RecordType, value: Option<String>) -> Result<bool, Error>;
}

/// Asks the granted provider for all records of that name and type.
///
/// # Errors
/// See [`Error`].
pub fn find(name: &str, kind: RecordType) -> Result<Vec<DnsRecord>, Error> {
    host::dns_provider::find(name, kind)
}

/// Has the granted provider create a record. False: the very same record existed.
///
/// # Errors
/// See [`Error`].
pub fn create(wanted: &DnsRecord) -> Result<bool, Error> {
    host::dns_provider::create(wanted)
}

/// Has the granted provider remove records. False: there were none.
///
/// # Errors
/// See [`Error`].
pub fn remove(name: &str, kind: RecordType, value: Option<&str>) -> Result<bool, Error> {
    host::dns_provider::remove(name, kind, value)
}
