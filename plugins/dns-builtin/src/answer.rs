//! From a question to its answer (RFC 1034 section 4.3.2, wildcards of RFC 4592, negative answers of RFC 2308).
//!
//! It looks nothing up anywhere else: what is not in a zone of this server is refused. `ANY` gets one set of records (RFC 8482), a name that is
//! delegated gets the servers it is delegated to.
//!
//! The one idea: one walk from the name to an outcome; only a CNAME makes it walk again, a bounded number of times.

use crate::index::{Index, Node, RecordSet, ServedZone};
use crate::message::{Asked, Code, Query, Section, Writer, read};
use crate::name;
use crate::rdata::Kind;

/// CNAMEs followed in one answer; a client that wants more asks again.
const LONGEST_CHAIN: usize = 8;
/// IN and "any class" (RFC 1035 section 3.2.4).
const CLASSES: [u16; 2] = [1, 255];
/// Addresses of name servers in one answer; the client can ask for more.
const MOST_GLUE: usize = 16;

/// Answers one message. None: it gets no answer. `udp`: it came as a datagram, and so its size is bounded.
#[must_use]
pub fn answer(index: &Index, bytes: &[u8], udp: bool, own_payload: u16) -> Option<Vec<u8>> {
    match read(bytes, own_payload) {
        Asked::Query(query) => Some(answer_query(index, &query, udp, own_payload)),
        Asked::Wrong(answer) => Some(answer),
        Asked::Nothing => None,
    }
}

fn answer_query(index: &Index, query: &Query<'_>, udp: bool, own_payload: u16) -> Vec<u8> {
    let limit = if udp {
        query.udp_limit(own_payload)
    } else {
        usize::from(u16::MAX)
    };
    let mut writer = Writer::new(query, Code::Refused);
    // Questions about messages (transfers, signatures) are for nobody here.
    let is_plain = !query.kind.is_meta() || query.kind == Kind::ANY;
    if CLASSES.contains(&query.class)
        && is_plain
        && let Some(zone) = zone_for(index, query)
    {
        writer.code(Code::NoError);
        writer.authoritative();
        walk(index, query, zone, &mut writer, limit);
    }
    writer.finish_within(query.edns, own_payload, limit)
}

/// The zone of the question. DS stands above the cut, so the top of a zone asks the zone above, where that is here too.
fn zone_for<'a>(index: &'a Index, query: &Query<'_>) -> Option<&'a ServedZone> {
    let zone = index.zone_of(&query.name)?;
    if query.kind == Kind::DS
        && zone.origin.wire() == query.name
        && let Some(above) = name::parent(&query.name).and_then(|above| index.zone_of(above))
    {
        return Some(above);
    }
    Some(zone)
}

/// What a name comes to.
enum Found<'a> {
    Node(&'a Node),
    Delegated(&'a [u8], &'a RecordSet),
    NoSuchName,
}

fn walk(index: &Index, query: &Query<'_>, zone: &ServedZone, writer: &mut Writer, limit: usize) {
    let mut zone = zone;
    let mut owner = query.name.clone();
    let mut passed: Vec<Vec<u8>> = Vec::new();
    while passed.len() <= LONGEST_CHAIN {
        let at_top = zone.origin.wire() == owner;
        let target = match find(index, zone, &owner, query.kind) {
            Found::Delegated(cut, servers) => {
                if writer.is_empty() {
                    writer.not_authoritative();
                }
                refer(index, cut, servers, writer, limit);
                return;
            }
            Found::NoSuchName => {
                writer.code(Code::NxDomain);
                negative(zone, writer);
                return;
            }
            Found::Node(node) => {
                let top = |kind| match kind {
                    Kind::SOA if at_top => Some(&zone.soa),
                    Kind::NS if at_top => Some(&zone.servers),
                    _ => None,
                };
                let set = match query.kind {
                    // One set is enough, and the smallest is the least use to who asks in another's name.
                    Kind::ANY => {
                        top(Kind::SOA).or_else(|| node.sets.iter().min_by_key(|set| set.data.len()))
                    }
                    kind => top(kind).or_else(|| node.set(kind)),
                };
                if let Some(set) = set {
                    write_set(writer, Section::Answer, &owner, set, limit);
                    if set.kind == Kind::NS {
                        for (server, set, data) in addresses(index, set) {
                            writer.extra(server, set.kind, set.ttl, data, limit);
                        }
                    }
                    return;
                }
                let Some(alias) = node.set(Kind::CNAME) else {
                    negative(zone, writer);
                    return;
                };
                write_set(writer, Section::Answer, &owner, alias, limit);
                match alias.data.first() {
                    Some(target) => target.clone(),
                    None => return,
                }
            }
        };
        // The rest of a chain that leads out is for the client to find.
        passed.push(owner);
        if passed.contains(&target) {
            // A circle is signalled as an error (RFC 1034 section 3.6.2).
            writer.code(Code::ServFail);
            return;
        }
        match index.zone_of(&target) {
            Some(next) => (zone, owner) = (next, target),
            None => return,
        }
    }
}

fn find<'a>(index: &'a Index, zone: &'a ServedZone, owner: &'a [u8], kind: Kind) -> Found<'a> {
    if index.has_cuts()
        && let Some((cut, servers)) = cut_above(index, zone, owner, kind)
    {
        return Found::Delegated(cut, servers);
    }
    if let Some(node) = index.node(owner) {
        return Found::Node(node);
    }
    // The closest encloser exists: at the latest it is the zone's top.
    let below_top = |name: &&[u8]| name.len() >= zone.origin.wire().len();
    let encloser = name::suffixes(owner)
        .skip(1)
        .take_while(below_top)
        .find(|above| index.node(above).is_some());
    match encloser.and_then(|encloser| index.node(&name::wildcard_below(encloser))) {
        Some(node) => Found::Node(node),
        None => Found::NoSuchName,
    }
}

/// The highest cut between the zone's top and the name. DS at the cut itself is the parent's own.
fn cut_above<'a>(
    index: &'a Index,
    zone: &ServedZone,
    owner: &'a [u8],
    kind: Kind,
) -> Option<(&'a [u8], &'a RecordSet)> {
    let top = zone.origin.wire().len();
    let between = name::suffixes(owner).take_while(|name| name.len() > top);
    let cuts = between.filter_map(|name| Some((name, index.node(name)?.set(Kind::NS)?)));
    let highest = cuts.last()?;
    (kind != Kind::DS || highest.0 != owner).then_some(highest)
}

/// Addresses that do not fit are worth a second question by TCP: without them nobody finds the servers (RFC 9471).
fn refer(index: &Index, cut: &[u8], servers: &RecordSet, writer: &mut Writer, limit: usize) {
    write_set(writer, Section::Authority, cut, servers, limit);
    for (server, set, data) in addresses(index, servers) {
        writer.record(Section::Additional, server, set.kind, set.ttl, data);
    }
}

/// What is known here of the addresses of name servers.
fn addresses<'a>(
    index: &'a Index,
    servers: &'a RecordSet,
) -> impl Iterator<Item = (&'a [u8], &'a RecordSet, &'a [u8])> {
    let known = servers.data.iter().filter_map(|server| {
        let node = index.node(server)?;
        index.zone_of(server).map(|_| (server.as_slice(), node))
    });
    let sets = known.flat_map(|(server, node)| {
        let sets = [Kind::A, Kind::AAAA]
            .into_iter()
            .filter_map(|kind| node.set(kind));
        sets.map(move |set| (server, set))
    });
    sets.flat_map(|(server, set)| {
        set.data
            .iter()
            .map(move |data| (server, set, data.as_slice()))
    })
    .take(MOST_GLUE)
}

fn negative(zone: &ServedZone, writer: &mut Writer) {
    for data in &zone.soa.data {
        let owner = zone.origin.wire();
        writer.record(
            Section::Authority,
            owner,
            Kind::SOA,
            zone.negative_ttl,
            data,
        );
    }
}

fn write_set(writer: &mut Writer, section: Section, owner: &[u8], set: &RecordSet, limit: usize) {
    for data in &set.data {
        // Beyond the limit nothing of it will be sent.
        if !writer.fits(limit + 1024) {
            return;
        }
        writer.record(section, owner, set.kind, set.ttl, data);
    }
}
