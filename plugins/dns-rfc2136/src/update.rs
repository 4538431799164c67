//! Finding, creating and removing records on a server (RFC 2136).
//!
//! It refuses to check first and write then: an update carries what must hold, the server decides both in one step.
//!
//! The one idea: when a precondition fails, the name is read to tell "the very same record" from "something else".

use bulkhead_sdk::dns::{DnsRecord, RecordType};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType as WireType};

use crate::error::Problem;
use crate::exchange::{Answer, Ask, words};
use crate::message::{self, Update};

/// How often a creation is tried when the name is taken at one moment and free at the next.
const MOST_TURNS: usize = 3;

/// All records of that name and type.
pub fn find(servers: &dyn Ask, name: &str, kind: RecordType) -> Result<Vec<DnsRecord>, Problem> {
    let (owner, wire) = (message::name(name)?, message::record_type(kind));
    let answer = read(servers, &owner, wire)?;
    let records = answer
        .message
        .answers
        .iter()
        .filter(|record| record.name == owner && record.record_type() == wire);
    Ok(records
        .filter_map(|record| {
            let value = message::value(&record.data)?;
            Some(DnsRecord {
                name: message::text(&owner),
                kind,
                value,
                ttl: record.ttl,
            })
        })
        .collect())
}

/// Creates a record if its name has no data of that type. False: the very same record exists. Of services, a name may have many.
pub fn create(servers: &dyn Ask, wanted: &DnsRecord) -> Result<bool, Problem> {
    let (name, kind) = (
        message::name(&wanted.name)?,
        message::record_type(wanted.kind),
    );
    let data = message::data(wanted.kind, &wanted.value)?;
    let zone = zone_of(servers, &name)?;
    let many = wanted.kind == RecordType::Srv;
    if many && holds(&read(servers, &name, kind)?, &name, &data) {
        return Ok(false);
    }
    for _ in 0..MOST_TURNS {
        // Beside an alias a server leaves other data out, and an alias beside other data, and calls both done (section 3.4.2.2).
        let update = match wanted.kind {
            RecordType::Cname => Update::of(&zone).if_absent(&name, WireType::ANY),
            RecordType::Srv => Update::of(&zone).if_absent(&name, WireType::CNAME),
            RecordType::A | RecordType::Aaaa | RecordType::Ptr => Update::of(&zone)
                .if_absent(&name, kind)
                .if_absent(&name, WireType::CNAME),
        };
        let answer = servers.ask(&update.add(&name, wanted.ttl, data.clone()).message())?;
        match answer.message.metadata.response_code {
            ResponseCode::NoError => return Ok(true),
            ResponseCode::YXRRSet | ResponseCode::YXDomain => {
                let present = read(servers, &name, kind)?;
                if holds(&present, &name, &data) {
                    return Ok(false);
                }
                if let Some(found) = what_stands(&present, &name) {
                    return Err(Problem::Conflict {
                        name: message::text(&name),
                        found,
                    });
                }
                if many || wanted.kind == RecordType::Cname {
                    break;
                }
            }
            _ => return Err(denied(&answer, &name)),
        }
    }
    Err(Problem::Conflict {
        name: message::text(&name),
        found: "data of another type".to_owned(),
    })
}

/// Removes all records of that name and type, or the one with `value`. False: there were none.
pub fn remove(
    servers: &dyn Ask,
    name: &str,
    kind: RecordType,
    value: Option<&str>,
) -> Result<bool, Problem> {
    let (name, wire) = (message::name(name)?, message::record_type(kind));
    let data = value.map(|value| message::data(kind, value)).transpose()?;
    let zone = zone_of(servers, &name)?;
    let update = Update::of(&zone).if_present(&name, wire);
    let update = match data {
        // No precondition says "this record among others"; removing an absent one changes nothing.
        Some(data) if !holds(&read(servers, &name, wire)?, &name, &data) => return Ok(false),
        Some(data) => update.remove(&name, data),
        None => update.remove_all(&name, wire),
    };
    let answer = servers.ask(&update.message())?;
    match answer.message.metadata.response_code {
        ResponseCode::NoError => Ok(true),
        ResponseCode::NXRRSet | ResponseCode::NXDomain => Ok(false),
        _ => Err(denied(&answer, &name)),
    }
}

/// The zone that holds a name: the server is asked for its SOA, and that of the names above, until it answers one.
fn zone_of(servers: &dyn Ask, name: &Name) -> Result<Name, Problem> {
    let mut at = name.clone();
    while !at.is_root() {
        let answer = ask(servers, &at, WireType::SOA)?;
        let message = &answer.message;
        match message.metadata.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain => {}
            ResponseCode::Refused | ResponseCode::NotAuth => return Err(elsewhere(name, &answer)),
            _ => return Err(denied(&answer, name)),
        }
        let mut told = message.answers.iter().chain(&message.authorities);
        let found =
            told.find(|record| record.record_type() == WireType::SOA && record.name.zone_of(name));
        if let Some(record) = found {
            return match record.name.is_root() {
                true => Err(Problem::NotAuthoritative {
                    name: message::text(name),
                    why: format!("{} knows the root only", answer.server),
                }),
                false => Ok(record.name.clone()),
            };
        }
        if let Some(delegation) = message
            .authorities
            .iter()
            .find(|record| record.record_type() == WireType::NS && !message.metadata.authoritative)
        {
            let why = format!(
                "{} delegates {} to other servers",
                answer.server, delegation.name
            );
            return Err(Problem::NotAuthoritative {
                name: message::text(name),
                why,
            });
        }
        at = at.base_name();
    }
    Err(Problem::NotAuthoritative {
        name: message::text(name),
        why: "no name above it has an SOA record".to_owned(),
    })
}

fn read(servers: &dyn Ask, name: &Name, kind: WireType) -> Result<Answer, Problem> {
    let answer = ask(servers, name, kind)?;
    match answer.message.metadata.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain => Ok(answer),
        _ => Err(denied(&answer, name)),
    }
}

/// Asks once more without EDNS when the server does not know it (RFC 6891 section 7).
fn ask(servers: &dyn Ask, name: &Name, kind: WireType) -> Result<Answer, Problem> {
    let mut query = message::query(name, kind);
    let answer = servers.ask(&query)?;
    if matches!(
        answer.message.metadata.response_code,
        ResponseCode::FormErr | ResponseCode::NotImp
    ) {
        query.edns = None;
        return servers.ask(&query);
    }
    Ok(answer)
}

fn holds(answer: &Answer, name: &Name, data: &RData) -> bool {
    answer
        .message
        .answers
        .iter()
        .any(|record| record.name == *name && record.data == *data)
}

/// What the server has at the name itself, not behind an alias.
fn what_stands(answer: &Answer, name: &Name) -> Option<String> {
    let found: Vec<String> = answer
        .message
        .answers
        .iter()
        .filter(|record| record.name == *name)
        .map(|record| {
            format!(
                "{} {}",
                record.record_type(),
                message::value(&record.data).unwrap_or_default()
            )
        })
        .collect();
    (!found.is_empty()).then(|| found.join(", "))
}

fn denied(answer: &Answer, name: &Name) -> Problem {
    let Message { metadata, .. } = &answer.message;
    let (server, why) = (answer.server.clone(), words(metadata.response_code));
    match metadata.response_code {
        ResponseCode::Refused => Problem::Refused { server, why },
        ResponseCode::NotAuth | ResponseCode::NotZone => elsewhere(name, answer),
        _ => Problem::Answer { server, why },
    }
}

fn elsewhere(name: &Name, answer: &Answer) -> Problem {
    let why = format!(
        "{} answered {}",
        answer.server,
        words(answer.message.metadata.response_code)
    );
    Problem::NotAuthoritative {
        name: message::text(name),
        why,
    }
}
