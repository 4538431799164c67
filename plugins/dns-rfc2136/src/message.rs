//! Messages: questions and updates (RFC 1035, RFC 2136), and what stands in answers.
//!
//! It refuses to judge: what an answer means for a record is decided in [`crate::update`].

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, PTR, SRV};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use bulkhead_sdk::dns;

use crate::error::Problem;

/// Bytes of an answer over UDP that pass any network unfragmented (DNS flag day 2020).
const UDP_PAYLOAD: u16 = 1232;

/// A full name; also of text that lacks the dot at the end.
pub fn name(text: &str) -> Result<Name, Problem> {
    let bad = || Problem::Invalid(format!("`{text}` is not a DNS name"));
    if text.is_empty() {
        return Err(bad());
    }
    let mut name = Name::from_ascii(text).map_err(|_| bad())?;
    name.set_fqdn(true);
    Ok(name)
}

/// Lower case, without the dot at the end.
pub fn text(name: &Name) -> String {
    name.to_lowercase()
        .to_ascii()
        .trim_end_matches('.')
        .to_owned()
}

/// The wire's word for a type.
pub fn record_type(kind: dns::RecordType) -> RecordType {
    match kind {
        dns::RecordType::A => RecordType::A,
        dns::RecordType::Aaaa => RecordType::AAAA,
        dns::RecordType::Cname => RecordType::CNAME,
        dns::RecordType::Ptr => RecordType::PTR,
        dns::RecordType::Srv => RecordType::SRV,
    }
}

/// Reads a value in presentation form.
pub fn data(kind: dns::RecordType, value: &str) -> Result<RData, Problem> {
    let bad = || Problem::Invalid(format!("`{value}` is not a value of that type"));
    Ok(match kind {
        dns::RecordType::A => RData::A(A(value.parse().map_err(|_| bad())?)),
        dns::RecordType::Aaaa => RData::AAAA(AAAA(value.parse().map_err(|_| bad())?)),
        dns::RecordType::Cname => RData::CNAME(CNAME(name(value)?)),
        dns::RecordType::Ptr => RData::PTR(PTR(name(value)?)),
        dns::RecordType::Srv => {
            let words: Vec<&str> = value.split_ascii_whitespace().collect();
            let [priority, weight, port, target] = words.as_slice() else {
                return Err(bad());
            };
            let number = |word: &str| word.parse().map_err(|_| bad());
            RData::SRV(SRV::new(
                number(priority)?,
                number(weight)?,
                number(port)?,
                name(target)?,
            ))
        }
    })
}

/// Writes a value in presentation form; none for types that are not served.
pub fn value(data: &RData) -> Option<String> {
    Some(match data {
        RData::A(address) => address.to_string(),
        RData::AAAA(address) => address.to_string(),
        RData::CNAME(target) => text(target),
        RData::PTR(target) => text(target),
        RData::SRV(srv) => format!(
            "{} {} {} {}",
            srv.priority,
            srv.weight,
            srv.port,
            text(&srv.target)
        ),
        _ => return None,
    })
}

/// A question to an authoritative server: no recursion wanted.
pub fn query(name: &Name, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.add_query(Query::query(name.clone(), kind));
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_PAYLOAD);
    message.set_edns(edns);
    message
}

/// An update of one zone, built step by step.
pub struct Update(Message);

impl Update {
    /// An update that changes nothing yet.
    pub fn of(zone: &Name) -> Self {
        let id = Message::query().metadata.id;
        let mut message = Message::new(id, MessageType::Query, OpCode::Update);
        message.add_query(Query::query(zone.clone(), RecordType::SOA));
        Self(message)
    }

    /// Only if there is no data of that type; of [`RecordType::ANY`]: none at all (RFC 2136 sections 2.4.3, 2.4.5).
    pub fn if_absent(self, name: &Name, kind: RecordType) -> Self {
        self.require(name, kind, DNSClass::NONE)
    }

    /// Only if there is data of that type (section 2.4.1).
    pub fn if_present(self, name: &Name, kind: RecordType) -> Self {
        self.require(name, kind, DNSClass::ANY)
    }

    fn require(mut self, name: &Name, kind: RecordType, class: DNSClass) -> Self {
        let mut record = Record::update0(name.clone(), 0, kind);
        record.dns_class = class;
        self.0.add_answer(record);
        self
    }

    /// Adds a record (section 2.5.1).
    pub fn add(mut self, name: &Name, ttl: u32, data: RData) -> Self {
        self.0
            .add_authority(Record::from_rdata(name.clone(), ttl, data));
        self
    }

    /// Removes all data of that type (section 2.5.2).
    pub fn remove_all(mut self, name: &Name, kind: RecordType) -> Self {
        let mut record = Record::update0(name.clone(), 0, kind);
        record.dns_class = DNSClass::ANY;
        self.0.add_authority(record);
        self
    }

    /// Removes one record (section 2.5.4).
    pub fn remove(mut self, name: &Name, data: RData) -> Self {
        let mut record = Record::from_rdata(name.clone(), 0, data);
        record.dns_class = DNSClass::NONE;
        self.0.add_authority(record);
        self
    }

    /// The message.
    pub fn message(self) -> Message {
        self.0
    }
}

/// Whether an answer belongs to a request: same id and operation, and the same question if it repeats one.
pub fn answers(answer: &Message, request: &Message) -> bool {
    let same_question = answer.queries.is_empty()
        || (answer.queries.len() == request.queries.len()
            && answer
                .queries
                .iter()
                .zip(&request.queries)
                .all(|(one, other)| {
                    one.name() == other.name() && one.query_type() == other.query_type()
                }));
    answer.metadata.message_type == MessageType::Response
        && answer.metadata.id == request.metadata.id
        && answer.metadata.op_code == request.metadata.op_code
        && same_question
}
