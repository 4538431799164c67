//! DNS messages on the wire: questions in, answers out (RFC 1035 section 4, EDNS of RFC 6891).
//!
//! It never answers an answer. It refuses messages that are not exactly one question, with the code that the RFCs give each case.
//!
//! The one idea: an answer is written into one buffer that starts as a copy of the question's bytes, so the owner's name keeps its case and
//! every later name points back at it.

use crate::name::{LONGEST_LABEL, LONGEST_NAME};
use crate::rdata::{Kind, split_name};

/// Bytes of a header.
const HEADER: usize = 12;
/// Bytes of the OPT record that answers carry: no options.
const OPT: usize = 11;
/// The largest UDP payload of a client that names none (RFC 1035 section 4.2.1).
const PLAIN_UDP: usize = 512;
/// How far a compression pointer reaches.
const POINTER_REACH: usize = 0x3fff;
/// Names that are remembered for compression. More would cost more than they save.
const REMEMBERED: usize = 48;

/// Response codes (RFC 1035, 2136, 6891).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// All is well; perhaps there is no data.
    NoError = 0,
    /// The message cannot be read.
    FormErr = 1,
    /// The zone says nothing that could be answered.
    ServFail = 2,
    /// There is no such name.
    NxDomain = 3,
    /// Something else than a question.
    NotImp = 4,
    /// Not a name of this server, or not a question for it.
    Refused = 5,
    /// A later version of EDNS.
    BadVers = 16,
}

/// The question of a message.
#[derive(Debug, Clone)]
pub struct Query<'a> {
    /// Header and question as they came, copied into the answer.
    head: &'a [u8],
    /// The name in lower case on the wire.
    pub name: Vec<u8>,
    /// Its type.
    pub kind: Kind,
    /// Its class: 1 is IN, 255 any.
    pub class: u16,
    /// What EDNS says, if it is there.
    pub edns: Option<Edns>,
}

/// The client's side of EDNS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edns {
    /// Its largest UDP payload.
    pub payload: u16,
    /// DNSSEC records are welcome; the flag is copied (RFC 3225).
    pub dnssec_ok: bool,
}

/// What a datagram is.
#[derive(Debug, Clone)]
pub enum Asked<'a> {
    /// One question.
    Query(Query<'a>),
    /// Answered with this and nothing else.
    Wrong(Vec<u8>),
    /// No answer: an answer itself, or less than a header.
    Nothing,
}

/// Reads a message.
#[must_use]
pub fn read(bytes: &[u8], own_payload: u16) -> Asked<'_> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() else {
        return Asked::Nothing;
    };
    let [_, _, flags, _, counts @ ..] = header;
    let opcode = (flags >> 3) & 15;
    if flags & 0x80 != 0 {
        return Asked::Nothing;
    }
    let bare = |code: Code| Asked::Wrong(Writer::bare(header, code).finish(None, own_payload));
    if opcode != 0 {
        return bare(Code::NotImp);
    }
    let (counts, _) = counts.as_chunks::<2>();
    let counts: Vec<u16> = counts.iter().map(|it| u16::from_be_bytes(*it)).collect();
    let [1, answers, authorities, additionals] = counts[..] else {
        return bare(Code::FormErr);
    };
    let Some((name, rest)) = question_name(rest) else {
        return bare(Code::FormErr);
    };
    let Some(([kind_high, kind_low, class_high, class_low], rest)) = rest.split_first_chunk::<4>()
    else {
        return bare(Code::FormErr);
    };
    let head = bytes.get(..bytes.len() - rest.len()).unwrap_or_default();
    let mut query = Query {
        head,
        name,
        kind: Kind(u16::from_be_bytes([*kind_high, *kind_low])),
        class: u16::from_be_bytes([*class_high, *class_low]),
        edns: None,
    };
    let wrong = |query: &Query<'_>, code| {
        Asked::Wrong(Writer::new(query, code).finish(query.edns, own_payload))
    };
    match read_edns(rest, answers, authorities, additionals) {
        Some((edns, version)) => {
            query.edns = edns;
            match version {
                0 => Asked::Query(query),
                _ => wrong(&query, Code::BadVers),
            }
        }
        None => wrong(&query, Code::FormErr),
    }
}

/// AA and TC are what the answer says, whatever stood in the question.
fn clear_flags(message: &mut [u8]) {
    if let Some(flags) = message.get_mut(2) {
        *flags &= !0x06;
    }
}

/// A name without compression: nothing stands before a question that it could point at.
fn question_name(bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut at = 0_usize;
    loop {
        let length = usize::from(*bytes.get(at)?);
        if length > LONGEST_LABEL {
            return None;
        }
        at += 1 + length;
        if at > LONGEST_NAME {
            return None;
        }
        if length == 0 {
            let (name, rest) = bytes.split_at_checked(at)?;
            return Some((name.to_ascii_lowercase(), rest));
        }
    }
}

/// Walks over the records behind the question and finds OPT with its version. None: they cannot be read, or there are two (RFC 6891 section 6.1.1).
fn read_edns(
    mut rest: &[u8],
    answers: u16,
    authorities: u16,
    additionals: u16,
) -> Option<(Option<Edns>, u8)> {
    let before = u32::from(answers) + u32::from(authorities);
    let mut found = None;
    let mut version = 0;
    for number in 0..before + u32::from(additionals) {
        let (is_root, following) = skip_name(rest)?;
        let (
            [
                kind_high,
                kind_low,
                size_high,
                size_low,
                _,
                its_version,
                flags,
                _,
                length @ ..,
            ],
            following,
        ) = following.split_first_chunk::<10>()?;
        let (_, following) =
            following.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        if Kind(u16::from_be_bytes([*kind_high, *kind_low])) == Kind::OPT {
            if found.is_some() || number < before || !is_root {
                return None;
            }
            version = *its_version;
            found = Some(Edns {
                payload: u16::from_be_bytes([*size_high, *size_low]),
                dnssec_ok: flags & 0x80 != 0,
            });
        }
        rest = following;
    }
    Some((found, version))
}

fn skip_name(bytes: &[u8]) -> Option<(bool, &[u8])> {
    let mut rest = bytes;
    loop {
        let (length, following) = rest.split_first()?;
        match *length {
            0 => return Some((bytes.first() == Some(&0), following)),
            length if length >= 0xc0 => return Some((false, following.get(1..)?)),
            length if length > 63 => return None,
            length => rest = following.get(usize::from(length)..)?,
        }
    }
}

impl Query<'_> {
    /// Bytes that an answer may have over UDP.
    #[must_use]
    pub fn udp_limit(&self, own_payload: u16) -> usize {
        let asked = self
            .edns
            .map_or(PLAIN_UDP, |edns| usize::from(edns.payload));
        asked.clamp(PLAIN_UDP, usize::from(own_payload).max(PLAIN_UDP))
    }
}

/// A section of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// What was asked for.
    Answer,
    /// Who is responsible.
    Authority,
    /// What helps along.
    Additional,
}

/// An answer under way.
#[derive(Debug)]
pub struct Writer {
    buffer: Vec<u8>,
    counts: [u16; 3],
    /// Where labels begin, for pointers.
    labels: Vec<u16>,
    question_end: usize,
    code: Code,
}

impl Writer {
    /// An answer with the question's header and question.
    #[must_use]
    pub fn new(query: &Query<'_>, code: Code) -> Self {
        let mut buffer = Vec::with_capacity(PLAIN_UDP);
        buffer.extend_from_slice(query.head);
        clear_flags(&mut buffer);
        let question_end = buffer.len();
        let mut writer = Self {
            buffer,
            counts: [0; 3],
            labels: Vec::with_capacity(16),
            question_end,
            code,
        };
        let mut at = HEADER;
        while let Some(length) = writer.buffer.get(at).filter(|length| **length != 0) {
            let next = at + 1 + usize::from(*length);
            writer.remember(at);
            at = next;
        }
        writer
    }

    /// An answer without question: it could not be read.
    fn bare(header: &[u8; HEADER], code: Code) -> Self {
        let mut buffer = header.to_vec();
        clear_flags(&mut buffer);
        if let Some(count) = buffer.get_mut(4..6) {
            count.fill(0);
        }
        Self {
            buffer,
            counts: [0; 3],
            labels: Vec::new(),
            question_end: HEADER,
            code,
        }
    }

    /// Sets the response code.
    pub fn code(&mut self, code: Code) {
        self.code = code;
    }

    /// Bytes so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether no record was written yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counts == [0; 3]
    }

    /// Writes a record. Data is uncompressed wire data.
    pub fn record(&mut self, section: Section, owner: &[u8], kind: Kind, ttl: u32, data: &[u8]) {
        self.name(owner);
        self.buffer.extend(kind.0.to_be_bytes());
        self.buffer.extend([0, 1]);
        self.buffer.extend(ttl.to_be_bytes());
        let length_at = self.buffer.len();
        self.buffer.extend([0, 0]);
        self.data(kind, data);
        let length = self.buffer.len().saturating_sub(length_at + 2);
        let length = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
        if let Some(place) = self.buffer.get_mut(length_at..length_at + 2) {
            place.copy_from_slice(&length);
        }
        if let Some(count) = self.counts.get_mut(section as usize) {
            *count = count.saturating_add(1);
        }
    }

    /// Writes a record that helps along, unless it does not fit: that is no reason to truncate (RFC 2181 section 9).
    pub fn extra(&mut self, owner: &[u8], kind: Kind, ttl: u32, data: &[u8], limit: usize) {
        let (length, labels, counts) = (self.buffer.len(), self.labels.len(), self.counts);
        self.record(Section::Additional, owner, kind, ttl, data);
        if !self.fits(limit) {
            self.buffer.truncate(length);
            self.labels.truncate(labels);
            self.counts = counts;
        }
    }

    /// Only the types of RFC 1035 may have compressed names (RFC 3597 section 4).
    fn data(&mut self, kind: Kind, data: &[u8]) {
        match kind {
            Kind::NS | Kind::CNAME | Kind::PTR => self.name(data),
            Kind::MX => {
                let (preference, name) = data.split_at_checked(2).unwrap_or((data, &[]));
                self.buffer.extend_from_slice(preference);
                self.name(name);
            }
            Kind::SOA => {
                let halves =
                    split_name(data).and_then(|(first, rest)| Some((first, split_name(rest)?)));
                if let Some((primary, (mailbox, numbers))) = halves {
                    self.name(primary);
                    self.name(mailbox);
                    self.buffer.extend_from_slice(numbers);
                }
            }
            _ => self.buffer.extend_from_slice(data),
        }
    }

    /// Writes a name, pointing at the longest end of it that stands in the message already.
    fn name(&mut self, wire: &[u8]) {
        let mut rest = wire;
        while let Some((length, following)) = rest.split_first() {
            let length = usize::from(*length);
            if length == 0 {
                self.buffer.push(0);
                return;
            }
            if let Some(at) = self
                .labels
                .iter()
                .find(|at| self.stands_at(usize::from(**at), rest))
            {
                self.buffer.extend((0xc000 | at).to_be_bytes());
                return;
            }
            self.remember(self.buffer.len());
            let (label, following) = following
                .split_at_checked(length)
                .unwrap_or((following, &[]));
            self.buffer.push(u8::try_from(length).unwrap_or(0));
            self.buffer.extend_from_slice(label);
            rest = following;
        }
    }

    fn remember(&mut self, at: usize) {
        if at <= POINTER_REACH && self.labels.len() < REMEMBERED {
            self.labels.extend(u16::try_from(at));
        }
    }

    fn stands_at(&self, mut at: usize, mut wire: &[u8]) -> bool {
        loop {
            let Some(length) = self.buffer.get(at) else {
                return false;
            };
            if *length >= 0xc0 {
                // Only this writer's own pointers stand here, and they point backwards.
                let low = self.buffer.get(at + 1).copied().unwrap_or(0);
                at = usize::from(u16::from_be_bytes([length & 0x3f, low]));
                continue;
            }
            let end = at + 1 + usize::from(*length);
            let Some(label) = self.buffer.get(at..end) else {
                return false;
            };
            match wire.split_at_checked(label.len()) {
                Some((same, rest)) if same.eq_ignore_ascii_case(label) => {
                    if *length == 0 {
                        return true;
                    }
                    (wire, at) = (rest, end);
                }
                _ => return false,
            }
        }
    }

    /// Takes all records back and says that there are more (RFC 2181 section 9).
    fn truncate(&mut self) {
        self.buffer.truncate(self.question_end);
        self.counts = [0; 3];
        if let Some(flags) = self.buffer.get_mut(2) {
            *flags |= 0x02;
        }
    }

    /// Whether the answer, with its OPT record, fits.
    #[must_use]
    pub fn fits(&self, limit: usize) -> bool {
        self.buffer.len() + OPT <= limit
    }

    /// Cuts the answer if it does not fit, and finishes it.
    #[must_use]
    pub fn finish_within(mut self, edns: Option<Edns>, own_payload: u16, limit: usize) -> Vec<u8> {
        let needed = self.buffer.len() + if edns.is_some() { OPT } else { 0 };
        if needed > limit {
            self.truncate();
        }
        self.finish(edns, own_payload)
    }

    /// Marks the answer as authoritative.
    pub fn authoritative(&mut self) {
        if let Some(flags) = self.buffer.get_mut(2) {
            *flags |= 0x04;
        }
    }

    /// Takes the mark back: a referral speaks of somebody else's names.
    pub fn not_authoritative(&mut self) {
        if let Some(flags) = self.buffer.get_mut(2) {
            *flags &= !0x04;
        }
    }

    /// Fills in flags and counts, and adds OPT where the client sent one.
    #[must_use]
    pub fn finish(mut self, edns: Option<Edns>, own_payload: u16) -> Vec<u8> {
        let code = self.code as u16;
        if let Some(edns) = edns {
            let extended = u8::try_from(code >> 4).unwrap_or(0);
            let flags = if edns.dnssec_ok { 0x80 } else { 0 };
            self.buffer.push(0);
            self.buffer.extend(Kind::OPT.0.to_be_bytes());
            self.buffer.extend(own_payload.to_be_bytes());
            self.buffer.extend([extended, 0, flags, 0, 0, 0]);
        }
        let [answers, authorities, additionals] = self.counts;
        let additionals = additionals.saturating_add(u16::from(edns.is_some()));
        let low = u8::try_from(code & 15).unwrap_or(0);
        if let Some([_, _, first, second, _, _, counts @ ..]) =
            self.buffer.first_chunk_mut::<HEADER>()
        {
            // Opcode, RD and CD stay as they were asked (RFC 4035 section 3.1.6); recursion is not to be had.
            *first |= 0x80;
            *second = (*second & 0x10) | low;
            let [an, ns, ar] = [answers, authorities, additionals].map(u16::to_be_bytes);
            for (place, value) in counts.iter_mut().zip([an, ns, ar].as_flattened()) {
                *place = *value;
            }
        }
        self.buffer
    }
}
