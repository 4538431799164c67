//! Tries the contract between a feature and a provider: what parses HTTP holds no socket and calls another plugin for the work.

use std::net::Ipv4Addr;

use bulkhead_sdk::dns::{self, DnsRecord, Error, RecordType};
use bulkhead_sdk::prelude::*;

struct DnsFeature;

impl Plugin for DnsFeature {
    fn describe() -> Manifest {
        Manifest::new(
            "dns-feature",
            env!("CARGO_PKG_VERSION"),
            "Creates address records through a provider",
        )
        .mount("/dns-trial")
        .route(get("/dns-trial/:name"), find)
        .route(post("/dns-trial"), create)
        .route(delete("/dns-trial/:name"), remove)
        .need(Need::call(
            "provider",
            dns::INTERFACE,
            "creates and removes the records",
        ))
    }
}

bulkhead_sdk::export_feature!(DnsFeature);

fn find(request: &Request) -> Result<Json<Vec<String>>, Failure> {
    let records = dns::find(name_of(request)?, RecordType::A).map_err(refusal)?;
    Ok(Json(
        records.into_iter().map(|record| record.value).collect(),
    ))
}

fn create(request: &Request) -> Result<String, Failure> {
    let value: Ipv4Addr = request.parse("value")?;
    let wanted = DnsRecord {
        name: name_of(request)?.to_owned(),
        kind: RecordType::A,
        value: value.to_string(),
        ttl: 3600,
    };
    let created = dns::create(&wanted).map_err(refusal)?;
    Ok(if created { "created" } else { "existed" }.to_owned())
}

fn remove(request: &Request) -> Result<(), Failure> {
    match dns::remove(name_of(request)?, RecordType::A, None).map_err(refusal)? {
        true => Ok(()),
        false => Err(Failure::not_found("no such record")),
    }
}

fn name_of(request: &Request) -> Result<&str, Failure> {
    request
        .text("name")
        .ok_or_else(|| Failure::bad_request("name is missing"))
}

/// One status for each kind of error, so that a test sees which one crossed the boundary.
fn refusal(error: Error) -> Failure {
    match error {
        Error::Conflict(text) => Failure::conflict(text),
        Error::Refused(text) => Failure::forbidden(text),
        Error::NotAuthoritative(text) => Failure::not_found(text),
        Error::Timeout(text) => Failure::new(504, text),
        Error::Unreachable(text) => Failure::unavailable(text),
        Error::Other(text) => Failure::internal(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_sdk::testing::Host;

    #[test]
    fn a_record_is_created_once_and_removed_once() {
        let host = Host::new().dns_provider(Vec::new()).install();
        let form: &[(&str, &str)] = &[("name", "a.example.com"), ("value", "192.0.2.1")];
        assert_eq!(
            host.post_form::<DnsFeature>("/dns-trial", form).text(),
            "created"
        );
        assert_eq!(
            host.post_form::<DnsFeature>("/dns-trial", form).text(),
            "existed"
        );
        let other: &[(&str, &str)] = &[("name", "a.example.com"), ("value", "192.0.2.2")];
        assert_eq!(
            host.post_form::<DnsFeature>("/dns-trial", other).status(),
            409
        );
        assert_eq!(
            host.get::<DnsFeature>("/dns-trial/a.example.com").text(),
            "[\"192.0.2.1\"]"
        );
        assert_eq!(
            host.delete::<DnsFeature>("/dns-trial/a.example.com")
                .status(),
            200
        );
        assert_eq!(
            host.delete::<DnsFeature>("/dns-trial/a.example.com")
                .status(),
            404
        );
    }
}
