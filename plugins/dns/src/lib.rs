//! The feature `dns`: creates and removes the records that Foreman asks for.
//!
//! It opens no socket: it checks what was asked, and the granted provider (`dns-builtin`, `dns-rfc2136`) speaks with the
//! server. All it may do is call that provider.
//!
//! The one idea: [`record`] turns a request into one well-formed record; [`refusal`] turns a provider's error into an answer.
//! Where a Smart Proxy says 200 although nothing was written, this answers the server's reason.

mod record;

use bulkhead_sdk::dns::{self, DnsRecord, Error, RecordType};
use bulkhead_sdk::params::Value;
use bulkhead_sdk::prelude::*;

use record::Subject;

/// Seconds that resolvers may keep a record, when the operator says nothing: one day, as the Smart Proxy has it.
const DEFAULT_TTL: u32 = 86_400;

/// The longest time to live that is not taken for zero (RFC 2181 section 8).
const LONGEST_TTL: u32 = 0x7fff_ffff;

struct Dns;

impl Plugin for Dns {
    fn describe() -> Manifest {
        Manifest::new(
            "dns",
            env!("CARGO_PKG_VERSION"),
            "Creates and removes DNS records for Foreman",
        )
        .mount("/dns")
        .route(post("/dns"), create)
        .route(post("/dns/"), create)
        .route(delete("/dns/:value"), remove)
        .route(delete("/dns/:value/"), remove)
        .route(delete("/dns/:value/:type"), remove)
        .need(Need::call(
            "dns-provider",
            bulkhead_sdk::dns::INTERFACE,
            "has one provider write the records; it holds no socket itself",
        ))
        .setting(
            Setting::text("use_provider", "The plugin that writes the records")
                .default("dns-builtin")
                .required()
                .exposed(),
        )
        .setting(
            Setting::integer("dns_ttl", "Seconds that resolvers may keep a new record")
                .default(i64::from(DEFAULT_TTL))
                .required(),
        )
    }

    fn status() -> Status {
        match ttl() {
            Ok(_) => Status::working(),
            Err(failure) => Status::failing(failure.message()),
        }
    }
}

bulkhead_sdk::export_feature!(Dns);

fn create(request: &Request) -> Result<(), Failure> {
    let given = (
        given(request, "fqdn"),
        given(request, "value"),
        given(request, "type"),
    );
    let (Some(fqdn), Some(value), Some(kind)) = given else {
        return Err(Failure::bad_request(
            "'create' requires fqdn, value, and type parameters",
        ));
    };
    let wanted = record::wanted(&fqdn, &value, &kind, ttl()?).map_err(bad_request)?;
    match dns::create(&wanted) {
        Ok(true) => Ok(()),
        Ok(false) => {
            log::debug(format!("{} has that record already", wanted.name));
            Ok(())
        }
        Err(Error::Conflict(found)) => {
            log::warn(format!("{} is in use: {found}", wanted.name));
            Err(Failure::conflict(in_use(&wanted)))
        }
        Err(error) => Err(refusal(error)),
    }
}

/// Removing what is not there is success: Foreman removes hosts that were never wholly built.
fn remove(request: &Request) -> Result<(), Failure> {
    let value = given(request, "value").unwrap_or_default();
    // A query may hold a `type` too; only the path counts.
    let kind = request.path().trim_start_matches("/dns/").split_once('/');
    let kind = kind.map(|(_, kind)| kind).filter(|kind| !kind.is_empty());
    let Subject { name, kind } = Subject::parse(&value, kind).map_err(bad_request)?;
    dns::remove(&name, kind, None).map(drop).map_err(refusal)
}

/// A form field with a value, though it may be empty. What is not UTF-8 fails the checks of syntax later.
fn given(request: &Request, name: &str) -> Option<String> {
    match request.params().get(name)? {
        Value::Text(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Value::Nil | Value::List(_) | Value::Map(_) => None,
    }
}

fn ttl() -> Result<u32, Failure> {
    let seconds = settings::integer("dns_ttl").unwrap_or(i64::from(DEFAULT_TTL));
    let usable = u32::try_from(seconds)
        .ok()
        .filter(|&ttl| ttl <= LONGEST_TTL);
    usable.ok_or_else(|| {
        Failure::internal(format!(
            "dns_ttl is {seconds}; it must be from 0 to {LONGEST_TTL} seconds"
        ))
    })
}

/// The Smart Proxy's words, with its space inside the quotes.
fn in_use(wanted: &DnsRecord) -> String {
    match wanted.kind {
        RecordType::Ptr => format!("'{}' is already in use", wanted.name),
        RecordType::A | RecordType::Aaaa | RecordType::Cname | RecordType::Srv => {
            format!("'{} 'is already in use", wanted.name)
        }
    }
}

fn bad_request(problem: record::BadRecord) -> Failure {
    Failure::bad_request(problem.to_string())
}

/// Every error of a provider as an answer. None is 404: Foreman takes that for "removed".
fn refusal(error: Error) -> Failure {
    match error {
        Error::Conflict(why) => Failure::conflict(why),
        Error::Refused(why) | Error::NotAuthoritative(why) | Error::Other(why) => {
            Failure::bad_request(format!("Update errors: {why}"))
        }
        Error::Unreachable(why) => Failure::new(502, format!("Update errors: {why}")),
        Error::Timeout(why) => Failure::new(504, format!("Update errors: {why}")),
    }
}

#[cfg(test)]
mod tests;
