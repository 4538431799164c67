//! The API of a PowerDNS Authoritative Server, version 1: zones, record sets, and its words when it refuses.

use bulkhead_sdk::dns::{Error, RecordType};
use bulkhead_sdk::http::{self, Incoming, Outgoing, UpstreamError};
use serde::{Deserialize, Serialize};

use bulkhead_sdk::bindings::imports::foreman::proxy::types::UpstreamError as Cause;

/// The `http` slot. Its URL is that of one server: `http://ns:8081/api/v1/servers/localhost`.
const SLOT: &str = "api";

/// A zone of the server.
#[derive(Debug, Deserialize)]
pub(crate) struct Zone {
    /// The server's handle for it, as it stands in its URLs.
    pub(crate) id: String,
    /// With the dot at the end.
    pub(crate) name: String,
}

/// All records of one name and type.
#[derive(Debug, Default, Clone, Deserialize)]
pub(crate) struct RecordSet {
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) ttl: u32,
    #[serde(default)]
    pub(crate) records: Vec<Content>,
}

/// One value, names with the dot at the end.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub(crate) struct Content {
    pub(crate) content: String,
    #[serde(default)]
    pub(crate) disabled: bool,
}

/// One change of a record set.
#[derive(Debug, Serialize)]
pub(crate) struct Change<'a> {
    pub(crate) name: &'a str,
    #[serde(rename = "type")]
    pub(crate) kind: &'a str,
    pub(crate) changetype: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ttl: Option<u32>,
    pub(crate) records: Vec<Content>,
}

#[derive(Deserialize)]
struct ZoneContent {
    #[serde(default)]
    rrsets: Vec<RecordSet>,
}

/// The word for a type.
pub(crate) fn word(kind: RecordType) -> &'static str {
    match kind {
        RecordType::A => "A",
        RecordType::Aaaa => "AAAA",
        RecordType::Cname => "CNAME",
        RecordType::Ptr => "PTR",
        RecordType::Srv => "SRV",
    }
}

/// The zone with the longest name that holds `name`, which ends with a dot.
pub(crate) fn zone_of(name: &str) -> Result<Zone, Error> {
    let answer = ask(&Outgoing::new(SLOT, "GET", "/zones?dnssec=false"))?;
    let zones: Vec<Zone> = read(&answer)?;
    let holds = |zone: &Zone| {
        let apex = zone.name.to_ascii_lowercase();
        name == apex
            || name
                .strip_suffix(&apex)
                .is_some_and(|rest| rest.ends_with('.'))
    };
    zones
        .into_iter()
        .filter(holds)
        .max_by_key(|zone| zone.name.len())
        .ok_or_else(|| {
            Error::NotAuthoritative(format!("no zone of the PowerDNS server holds {name}"))
        })
}

/// All record sets of a name. Servers before 4.8 answer the whole zone; what is not asked for is left out here.
pub(crate) fn sets_of(zone: &Zone, name: &str) -> Result<Vec<RecordSet>, Error> {
    let target = format!("/zones/{}?rrset_name={}", segment(&zone.id), segment(name));
    let content: ZoneContent = read(&ask(&Outgoing::new(SLOT, "GET", target))?)?;
    let of_name = |set: &RecordSet| set.name.eq_ignore_ascii_case(name);
    Ok(content.rrsets.into_iter().filter(of_name).collect())
}

/// Changes record sets, all or none.
pub(crate) fn change(zone: &Zone, changes: &[Change<'_>]) -> Result<(), Error> {
    #[derive(Serialize)]
    struct Body<'a> {
        rrsets: &'a [Change<'a>],
    }
    let request = Outgoing::new(SLOT, "PATCH", format!("/zones/{}", segment(&zone.id)))
        .json(&Body { rrsets: changes })
        .map_err(|why| Error::Other(why.to_string()))?;
    ask(&request).map(drop)
}

fn ask(request: &Outgoing) -> Result<Incoming, Error> {
    let answer = http::send(&request.clone().header("accept", "application/json"))
        .map_err(|why| lost(&why))?;
    match answer.status() {
        200..300 => Ok(answer),
        status @ (401 | 403) => Err(Error::Refused(format!(
            "PowerDNS answered {status}: {}",
            words(&answer)
        ))),
        status => Err(Error::Other(format!(
            "PowerDNS answered {status}: {}",
            words(&answer)
        ))),
    }
}

fn lost(why: &UpstreamError) -> Error {
    let text = format!("PowerDNS: {why}");
    match why.record() {
        Cause::Denied(_) => Error::Refused(text),
        Cause::Timeout(_) => Error::Timeout(text),
        Cause::Unreachable(_) | Cause::Tls(_) => Error::Unreachable(text),
        Cause::Protocol(_) => Error::Other(text),
    }
}

/// The server's reason: `{"error": ".."}`, or the start of a text.
fn words(answer: &Incoming) -> String {
    #[derive(Deserialize)]
    struct Reason {
        error: String,
    }
    match answer.json::<Reason>() {
        Ok(reason) => reason.error,
        Err(_) => String::from_utf8_lossy(answer.body())
            .chars()
            .take(200)
            .collect(),
    }
}

fn read<T: serde::de::DeserializeOwned>(answer: &Incoming) -> Result<T, Error> {
    answer.json().map_err(|why| {
        Error::Other(format!(
            "PowerDNS answered something else than expected: {why}"
        ))
    })
}

/// A segment or value of a URL: whatever is not plain is percent-encoded. PowerDNS writes `=2F` for a slash in its handles.
fn segment(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}
