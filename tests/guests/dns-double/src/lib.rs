//! A DNS provider for tests: keeps its records in memory, in one instance. Names below `refuse.test`, `slow.test` and
//! `elsewhere.test` answer errors, so that each can be seen crossing from provider to feature.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bulkhead_sdk::dns::{DnsProvider, DnsRecord, Error, RecordType};
use bulkhead_sdk::prelude::*;

static RECORDS: Mutex<Vec<DnsRecord>> = Mutex::new(Vec::new());

struct DnsDouble;

impl Plugin for DnsDouble {
    fn describe() -> Manifest {
        Manifest::new(
            "dns-double",
            env!("CARGO_PKG_VERSION"),
            "Keeps DNS records in memory",
        )
        .single_instance()
    }

    fn status() -> Status {
        Status::working().capability("in_memory")
    }
}

impl DnsProvider for DnsDouble {
    fn find(name: String, kind: RecordType) -> Result<Vec<DnsRecord>, Error> {
        check(&name)?;
        Ok(records()
            .iter()
            .filter(|record| record.name == name && record.kind == kind)
            .cloned()
            .collect())
    }

    fn create(wanted: DnsRecord) -> Result<bool, Error> {
        check(&wanted.name)?;
        let mut records = records();
        let mut present = records
            .iter()
            .filter(|record| record.name == wanted.name && record.kind == wanted.kind)
            .peekable();
        if present.peek().is_none() {
            records.push(wanted);
            return Ok(true);
        }
        match present.any(|record| record.value == wanted.value) {
            true => Ok(false),
            false => Err(Error::Conflict(format!("{} has other data", wanted.name))),
        }
    }

    fn remove(name: String, kind: RecordType, value: Option<String>) -> Result<bool, Error> {
        check(&name)?;
        let mut records = records();
        let before = records.len();
        records.retain(|record| {
            record.name != name
                || record.kind != kind
                || value.as_ref().is_some_and(|value| *value != record.value)
        });
        Ok(records.len() < before)
    }
}

bulkhead_sdk::export_dns_provider!(DnsDouble);

fn records() -> MutexGuard<'static, Vec<DnsRecord>> {
    RECORDS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The caller of the feature is known here too; a test reads it from the log.
fn check(name: &str) -> Result<(), Error> {
    if let Some(peer) = caller::current() {
        log::info(format!("{name} for {}", peer.name.unwrap_or(peer.address)));
    }
    match name
        .rsplit_once('.')
        .map(|(rest, last)| (rest.rsplit('.').next().unwrap_or(rest), last))
    {
        Some(("refuse", "test")) => Err(Error::Refused(format!("{name} is not yours"))),
        Some(("slow", "test")) => Err(Error::Timeout("no server answered".to_owned())),
        Some(("elsewhere", "test")) => {
            Err(Error::NotAuthoritative(format!("no zone holds {name}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_lives_until_it_is_removed() {
        let record = |value: &str| DnsRecord {
            name: "a.example.com".into(),
            kind: RecordType::A,
            value: value.into(),
            ttl: 60,
        };
        assert_eq!(DnsDouble::create(record("192.0.2.1")), Ok(true));
        assert_eq!(DnsDouble::create(record("192.0.2.1")), Ok(false));
        assert!(matches!(
            DnsDouble::create(record("192.0.2.2")),
            Err(Error::Conflict(_))
        ));
        assert_eq!(
            DnsDouble::remove(
                "a.example.com".into(),
                RecordType::A,
                Some("192.0.2.9".into())
            ),
            Ok(false)
        );
        assert_eq!(
            DnsDouble::remove("a.example.com".into(), RecordType::A, None),
            Ok(true)
        );
        assert_eq!(
            DnsDouble::find("a.example.com".into(), RecordType::A),
            Ok(Vec::new())
        );
    }

    #[test]
    fn the_named_domains_answer_errors() {
        assert!(matches!(
            DnsDouble::find("x.refuse.test".into(), RecordType::A),
            Err(Error::Refused(_))
        ));
        assert!(matches!(
            DnsDouble::find("x.slow.test".into(), RecordType::A),
            Err(Error::Timeout(_))
        ));
        assert!(matches!(
            DnsDouble::find("x.elsewhere.test".into(), RecordType::A),
            Err(Error::NotAuthoritative(_))
        ));
    }
}
