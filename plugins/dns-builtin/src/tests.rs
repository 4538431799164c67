#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
//! Questions and answers through the reactor, read with another codec than the one that wrote them.

use super::*;
use bulkhead_sdk::settings::Value;
use bulkhead_sdk::testing::{Host, Installed};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::{DNSClass, Name as Domain, RecordType as Type};
use hickory_proto::serialize::binary::{BinDecodable, BinEncodable};
use proptest::prelude::*;

const ZONE: &str = "\
$TTL 300
@ SOA ns1 hostmaster 2026112501 1h 15m 2w 5m
@ NS ns1
@ NS ns2.example.net.
@ MX 10 mail
ns1 A 192.0.2.53
mail A 192.0.2.25
www CNAME web
web A 192.0.2.80
web A 192.0.2.81
web AAAA 2001:db8::80
loop1 CNAME loop2
loop2 CNAME loop1
out CNAME www.example.org.
gone CNAME nothing
*.wild A 192.0.2.9
*.wild TXT \"wild\"
deep.under.wild A 192.0.2.10
sub NS ns.sub
sub NS ns.elsewhere.example.net.
ns.sub A 192.0.2.54
a.b.c A 192.0.2.11
";

fn host() -> Installed {
    served(&["example.com", "192.0.2.0/24"], ZONE)
}

/// Writes the zone file anew, and lets the time pass until it is read.
fn write(host: &Installed, identity: u64, file: &str) {
    host.change(|host| host.watched(import::FILES, "example.com.zone", identity, file.as_bytes()));
    let quiet = DnsBuiltin::wake(&[Event::FileChanged(import::FILES.to_owned())]).unwrap();
    assert!(quiet <= QUIET, "{quiet:?}");
    SERVER.with_borrow_mut(|server| server.as_mut().unwrap().look_at -= QUIET);
    DnsBuiltin::wake(&[Event::Timer]);
}

fn served(zones: &[&str], file: &str) -> Installed {
    let texts = |list: &[&str]| Value::Texts(list.iter().map(|&it| it.to_owned()).collect());
    let host = Host::new()
        .setting("zones", texts(zones))
        .setting("nameservers", texts(&["ns1.example.com"]))
        .setting("ttl", 3600)
        .setting("negative_ttl", 300)
        .setting("soa_refresh", 3600)
        .setting("soa_retry", 600)
        .setting("soa_expire", 1_209_600)
        .setting("udp_payload", 1232)
        .store(SLOT)
        .setting("zone_directory", "/zones")
        .watched(import::FILES, "example.com.zone", 1, file.as_bytes())
        .install();
    DnsBuiltin::start().unwrap();
    host
}

fn ask_bytes(transport: Transport, bytes: &[u8]) -> Option<Vec<u8>> {
    let question = Datagram {
        slot: "dns".into(),
        transport,
        peer: "192.0.2.200:5353".into(),
        local: "192.0.2.53:53".into(),
        port: None,
        bytes: bytes.to_vec(),
    };
    let mut reactions = DnsBuiltin::datagrams(vec![question]);
    assert!(reactions.len() <= 1);
    match reactions.pop()? {
        Reaction::Send(it) => {
            assert_eq!(
                (it.peer.as_str(), it.local.as_str()),
                ("192.0.2.200:5353", "192.0.2.53:53")
            );
            Some(it.bytes)
        }
        Reaction::Transfer(it) => panic!("{it:?}"),
    }
}

fn question(name: &str, kind: Type) -> Message {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Domain::from_ascii(name).unwrap(), kind));
    message
}

fn send(transport: Transport, message: &Message) -> Message {
    let answer = ask_bytes(transport, &message.to_bytes().unwrap()).unwrap();
    let answer = Message::from_bytes(&answer).unwrap();
    assert_eq!(answer.metadata.id, message.metadata.id);
    assert_eq!(answer.metadata.message_type, MessageType::Response);
    assert!(!answer.metadata.recursion_available);
    assert_eq!(
        answer.metadata.recursion_desired,
        message.metadata.recursion_desired
    );
    answer
}

fn ask(name: &str, kind: Type) -> Message {
    send(Transport::Udp, &question(name, kind))
}

/// Code, AA, and each record as one line with its section.
fn told(message: &Message) -> Vec<String> {
    let mut lines = vec![format!(
        "{:?} aa={}",
        message.metadata.response_code, message.metadata.authoritative
    )];
    for (section, records) in [
        ("an", &message.answers),
        ("ns", &message.authorities),
        ("ar", &message.additionals),
    ] {
        lines.extend(records.iter().map(|it| {
            format!(
                "{section} {} {} {} {}",
                it.name,
                it.ttl,
                it.record_type(),
                it.data
            )
        }));
    }
    lines
}

fn soa(serial: &str) -> String {
    format!(
        "ns example.com. 300 SOA ns1.example.com. hostmaster.example.com. {serial} 3600 900 1209600 300"
    )
}

#[test]
fn data_is_answered_with_authority() {
    let _host = host();
    assert_eq!(
        told(&ask("web.example.com.", Type::A)),
        [
            "NoError aa=true",
            "an web.example.com. 300 A 192.0.2.80",
            "an web.example.com. 300 A 192.0.2.81"
        ]
    );
    assert_eq!(
        told(&ask("example.com.", Type::NS)),
        [
            "NoError aa=true",
            "an example.com. 300 NS ns1.example.com.",
            "an example.com. 300 NS ns2.example.net.",
            "ar ns1.example.com. 300 A 192.0.2.53"
        ]
    );
    assert_eq!(
        told(&ask("example.com.", Type::MX))[1],
        "an example.com. 300 MX 10 mail.example.com."
    );
}

#[test]
fn the_case_of_the_question_is_kept() {
    let _host = host();
    let bytes = question("wEb.eXample.COM.", Type::AAAA).to_bytes().unwrap();
    let answer = ask_bytes(Transport::Udp, &bytes).unwrap();
    assert_eq!(answer[12..bytes.len()], bytes[12..]);
    // The owner points at the question's name.
    assert_eq!(answer[bytes.len()..bytes.len() + 2], [0xc0, 12]);
}

#[test]
fn aliases_are_followed_inside_and_only_so_far() {
    let _host = host();
    assert_eq!(
        told(&ask("www.example.com.", Type::AAAA)),
        [
            "NoError aa=true",
            "an www.example.com. 300 CNAME web.example.com.",
            "an web.example.com. 300 AAAA 2001:db8::80"
        ]
    );
    assert_eq!(told(&ask("www.example.com.", Type::CNAME)).len(), 2);
    assert_eq!(
        told(&ask("out.example.com.", Type::A)),
        [
            "NoError aa=true",
            "an out.example.com. 300 CNAME www.example.org."
        ]
    );
    let circle = told(&ask("loop1.example.com.", Type::A));
    assert_eq!((circle.len(), circle[0].as_str()), (3, "ServFail aa=true"));
    let gone = told(&ask("gone.example.com.", Type::A));
    assert_eq!((gone.len(), gone[0].as_str()), (3, "NXDomain aa=true"));
}

#[test]
fn negative_answers_carry_the_soa() {
    let _host = host();
    assert_eq!(
        told(&ask("nothing.example.com.", Type::A)),
        ["NXDomain aa=true".to_owned(), soa("2026112501")]
    );
    assert_eq!(
        told(&ask("web.example.com.", Type::TXT)),
        ["NoError aa=true".to_owned(), soa("2026112501")]
    );
    // An empty non-terminal exists.
    assert_eq!(
        told(&ask("b.c.example.com.", Type::A)),
        ["NoError aa=true".to_owned(), soa("2026112501")]
    );
}

#[test]
fn wildcards_follow_rfc_4592() {
    let _host = host();
    assert_eq!(
        told(&ask("x.wild.example.com.", Type::A))[1],
        "an x.wild.example.com. 300 A 192.0.2.9"
    );
    assert_eq!(
        told(&ask("x.y.wild.example.com.", Type::TXT))[1],
        "an x.y.wild.example.com. 300 TXT wild"
    );
    assert_eq!(
        told(&ask("x.wild.example.com.", Type::MX))[0],
        "NoError aa=true"
    );
    // `under.wild` exists, so the wildcard does not reach below it.
    assert_eq!(
        told(&ask("x.under.wild.example.com.", Type::A))[0],
        "NXDomain aa=true"
    );
    assert_eq!(
        told(&ask("*.wild.example.com.", Type::A))[1],
        "an *.wild.example.com. 300 A 192.0.2.9"
    );
}

#[test]
fn a_delegated_name_is_referred_with_glue() {
    let _host = host();
    let expected = [
        "NoError aa=false",
        "ns sub.example.com. 300 NS ns.sub.example.com.",
        "ns sub.example.com. 300 NS ns.elsewhere.example.net.",
        "ar ns.sub.example.com. 300 A 192.0.2.54",
    ];
    assert_eq!(told(&ask("x.sub.example.com.", Type::A)), expected);
    assert_eq!(told(&ask("sub.example.com.", Type::A)), expected);
    assert_eq!(
        told(&ask("sub.example.com.", Type::DS))[0],
        "NoError aa=true"
    );
}

#[test]
fn what_is_not_ours_is_refused_and_never_looked_up() {
    let _host = host();
    for name in [
        "example.org.",
        "com.",
        ".",
        "xexample.com.",
        "1.3.0.192.in-addr.arpa.",
    ] {
        assert_eq!(told(&ask(name, Type::A)), ["Refused aa=false"], "{name}");
    }
    assert_eq!(told(&ask("example.com.", Type::AXFR)), ["Refused aa=false"]);
    assert_eq!(told(&ask("example.com.", Type::IXFR)), ["Refused aa=false"]);
    let mut chaos = question("version.bind.", Type::TXT);
    chaos.queries[0].query_class = DNSClass::CH;
    assert_eq!(told(&send(Transport::Udp, &chaos)), ["Refused aa=false"]);
}

#[test]
fn any_gets_one_small_set() {
    let _host = host();
    assert_eq!(
        told(&ask("web.example.com.", Type::ANY)),
        [
            "NoError aa=true",
            "an web.example.com. 300 AAAA 2001:db8::80"
        ]
    );
}

#[test]
fn edns_is_answered_in_its_own_terms() {
    let _host = host();
    let mut message = question("web.example.com.", Type::A);
    let mut edns = Edns::new();
    edns.set_max_payload(4096)
        .set_version(0)
        .set_dnssec_ok(true);
    message.edns = Some(edns.clone());
    let answer = send(Transport::Udp, &message);
    let theirs = answer.edns.as_ref().unwrap();
    assert_eq!(
        (
            theirs.max_payload(),
            theirs.version(),
            theirs.flags().dnssec_ok
        ),
        (1232, 0, true)
    );
    edns.set_version(1);
    message.edns = Some(edns);
    let answer = send(Transport::Udp, &message);
    assert_eq!(u16::from(answer.metadata.response_code), 16, "BADVERS");
    assert!(answer.answers.is_empty() && answer.edns.is_some());
    assert!(
        send(Transport::Udp, &question("web.example.com.", Type::A))
            .edns
            .is_none()
    );
}

#[test]
fn what_does_not_fit_is_truncated_and_whole_over_tcp() {
    let many: String = (0..60)
        .map(|it| format!("many A 198.51.100.{it}\n"))
        .collect();
    let _host = served(&["example.com"], &format!("{ZONE}{many}"));
    let mut message = question("many.example.com.", Type::A);
    let answer = send(Transport::Udp, &message);
    assert!(answer.metadata.truncation && answer.answers.is_empty());
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    message.edns = Some(edns);
    let answer = send(Transport::Udp, &message);
    assert_eq!(
        (answer.metadata.truncation, answer.answers.len()),
        (false, 60)
    );
    let answer = send(Transport::Tcp, &question("many.example.com.", Type::A));
    assert_eq!(
        (answer.metadata.truncation, answer.answers.len()),
        (false, 60)
    );
}

#[test]
fn odd_messages_get_the_code_of_their_kind() {
    let _host = host();
    let good = question("web.example.com.", Type::A).to_bytes().unwrap();
    let code = |bytes: &[u8]| ask_bytes(Transport::Udp, bytes).map(|it| (it[3] & 15, it.len()));
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    assert_eq!(code(&good[..11]), None);
    assert_eq!(code(&with(2, 0x80)), None, "an answer");
    assert_eq!(code(&with(2, 0x28)), Some((4, 12)), "UPDATE");
    assert_eq!(code(&with(2, 0x20)), Some((4, 12)), "NOTIFY");
    assert_eq!(code(&with(5, 0)), Some((1, 12)), "no question");
    assert_eq!(code(&with(5, 2)), Some((1, 12)), "two questions");
    assert_eq!(code(&with(12, 0xc0)), Some((1, 12)), "a pointer to nothing");
    assert_eq!(code(&with(12, 64)), Some((1, 12)), "a label too long");
    assert_eq!(code(&good[..20]), Some((1, 12)), "cut in the name");
    assert_eq!(
        code(&with(7, 1)),
        Some((1, good.len())),
        "a record that is not there"
    );
    // What a question says of AA and TC is not said of its answer; RD and CD go back.
    let flags = |bytes: Vec<u8>| {
        let answer = ask_bytes(Transport::Udp, &bytes).unwrap();
        (answer[2], answer[3])
    };
    let mut odd = with(2, 0x07);
    odd[3] = 0xf0;
    assert_eq!(flags(odd.clone()), (0x85, 0x10));
    assert_eq!(flags(odd[..20].to_vec()), (0x81, 0x11), "not readable");
    let name_at = odd.windows(3).position(|it| it == b"com").unwrap();
    odd[name_at] = b'x';
    assert_eq!(flags(odd), (0x81, 0x15), "not ours");
    // Two OPT records.
    let mut two = with(11, 2);
    two.extend([0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 0].repeat(2));
    assert_eq!(code(&two), Some((1, good.len())));
}

fn record(name: &str, kind: RecordType, value: &str) -> DnsRecord {
    DnsRecord {
        name: name.into(),
        kind,
        value: value.into(),
        ttl: 60,
    }
}

fn serial() -> u32 {
    match &ask("example.com.", Type::SOA).answers[0].data {
        hickory_proto::rr::RData::SOA(soa) => soa.serial,
        other => panic!("{other}"),
    }
}

#[test]
fn what_foreman_was_told_is_in_the_next_answer() {
    let _host = host();
    let before = serial();
    let new = record("new.example.com", RecordType::A, "192.0.2.77");
    assert_eq!(
        told(&ask("new.example.com.", Type::A))[0],
        "NXDomain aa=true"
    );
    assert!(DnsBuiltin::create(new.clone()).unwrap());
    assert_eq!(
        told(&ask("new.example.com.", Type::A))[1],
        "an new.example.com. 60 A 192.0.2.77"
    );
    assert!(serial() > before);
    let reverse = record(
        "77.2.0.192.in-addr.arpa",
        RecordType::Ptr,
        "new.example.com",
    );
    assert!(DnsBuiltin::create(reverse.clone()).unwrap());
    assert_eq!(
        told(&ask("77.2.0.192.in-addr.arpa.", Type::PTR))[1],
        "an 77.2.0.192.in-addr.arpa. 60 PTR new.example.com."
    );
    assert_eq!(
        DnsBuiltin::find(reverse.name.clone(), RecordType::Ptr).unwrap()[0].value,
        "new.example.com"
    );
    assert!(!DnsBuiltin::create(new.clone()).unwrap(), "the very same");
    let at = serial();
    assert!(DnsBuiltin::remove(new.name.clone(), new.kind, None).unwrap());
    assert_eq!(
        told(&ask("new.example.com.", Type::A))[0],
        "NXDomain aa=true"
    );
    assert!(serial() > at);
    assert!(!DnsBuiltin::remove(new.name, new.kind, None).unwrap());
}

#[test]
fn what_is_in_the_way_is_a_conflict() {
    let _host = host();
    for (name, kind, value) in [
        ("web.example.com", RecordType::A, "192.0.2.1"),
        ("web.example.com", RecordType::Cname, "a.example.com"),
        ("www.example.com", RecordType::A, "192.0.2.1"),
        ("example.com", RecordType::Cname, "a.example.com"),
    ] {
        let problem = DnsBuiltin::create(record(name, kind, value)).unwrap_err();
        assert!(matches!(problem, Error::Conflict(_)), "{name}: {problem:?}");
    }
    // Services may be many, addresses of the other family are another type.
    assert!(
        DnsBuiltin::create(record(
            "_sip._tcp.example.com",
            RecordType::Srv,
            "0 5 5060 web.example.com"
        ))
        .unwrap()
    );
    assert!(
        DnsBuiltin::create(record(
            "_sip._tcp.example.com",
            RecordType::Srv,
            "1 5 5060 web.example.com"
        ))
        .unwrap()
    );
    assert!(
        DnsBuiltin::create(record("ns1.example.com", RecordType::Aaaa, "2001:db8::53")).unwrap()
    );
    assert!(
        DnsBuiltin::remove(
            "_sip._tcp.example.com".into(),
            RecordType::Srv,
            Some("0 5 5060 WEB.example.com.".into())
        )
        .unwrap()
    );
    assert_eq!(
        DnsBuiltin::find("_sip._tcp.example.com".into(), RecordType::Srv)
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn names_that_nobody_would_find_here_are_refused() {
    let _host = host();
    for name in ["a.example.org", "a.sub.example.com"] {
        let problem = DnsBuiltin::create(record(name, RecordType::A, "192.0.2.1")).unwrap_err();
        assert!(
            matches!(problem, Error::NotAuthoritative(_)),
            "{name}: {problem:?}"
        );
    }
    assert!(matches!(
        DnsBuiltin::find("a.example.org".into(), RecordType::A),
        Err(Error::NotAuthoritative(_))
    ));
}

#[test]
fn a_changed_file_brings_its_difference_and_nothing_else() {
    let host = host();
    let at = serial();
    assert_eq!(at, 2_026_112_501);
    DnsBuiltin::create(record("mine.example.com", RecordType::A, "192.0.2.70")).unwrap();
    DnsBuiltin::remove("mail.example.com".into(), RecordType::A, None).unwrap();
    let text = ZONE
        .replace("ns1 A 192.0.2.53", "ns1 A 192.0.2.54\nadded A 192.0.2.71")
        .replace("a.b.c A 192.0.2.11\n", "");
    write(&host, 2, &text);
    let first = |name: &str| told(&ask(name, Type::A)).pop().unwrap();
    assert_eq!(
        first("ns1.example.com."),
        "an ns1.example.com. 300 A 192.0.2.54"
    );
    assert_eq!(
        first("added.example.com."),
        "an added.example.com. 300 A 192.0.2.71"
    );
    assert_eq!(
        first("mine.example.com."),
        "an mine.example.com. 60 A 192.0.2.70"
    );
    assert_eq!(
        told(&ask("mail.example.com.", Type::A))[0],
        "NXDomain aa=true",
        "Foreman removed it"
    );
    assert_eq!(
        told(&ask("b.c.example.com.", Type::A))[0],
        "NXDomain aa=true"
    );
    assert!(serial() > at);
    // A file with a mistake changes nothing.
    let broken = text.replace("web A", "web AB");
    write(&host, 3, &broken);
    assert_eq!(
        first("web.example.com."),
        "an web.example.com. 300 A 192.0.2.81"
    );
    assert!(
        host.logs()
            .iter()
            .any(|(_, line)| line.contains("example.com.zone, line"))
    );
}

/// An alias stands alone, whoever brings it: what Foreman made stays, and the log says what was left out.
#[test]
fn a_changed_file_puts_nothing_beside_an_alias() {
    let host = host();
    DnsBuiltin::create(record("mine.example.com", RecordType::A, "192.0.2.70")).unwrap();
    DnsBuiltin::create(record(
        "also.example.com",
        RecordType::Cname,
        "web.example.com",
    ))
    .unwrap();
    let more = "mine CNAME web\nalso TXT x\n";
    write(&host, 2, &format!("{ZONE}{more}"));
    let second = |name: &str, kind| told(&ask(name, kind)).remove(1);
    assert_eq!(
        second("mine.example.com.", Type::A),
        "an mine.example.com. 60 A 192.0.2.70"
    );
    assert!(second("mine.example.com.", Type::TXT).contains("SOA"));
    assert_eq!(
        second("also.example.com.", Type::TXT),
        "an also.example.com. 60 CNAME web.example.com."
    );
    let left_out = host
        .logs()
        .iter()
        .filter(|(_, line)| line.contains("is left out"))
        .count();
    assert_eq!(left_out, 2);
    // A file whose alias becomes addresses is followed.
    write(&host, 3, &ZONE.replace("www CNAME web", "www A 192.0.2.82"));
    assert_eq!(
        second("www.example.com.", Type::A),
        "an www.example.com. 300 A 192.0.2.82"
    );
}

/// A zone above names the servers of a zone below. Where both are here, the zone below says itself who they are.
#[test]
fn a_zone_file_changes_no_zone_below() {
    let host = served(&["example.com", "sub.example.com"], ZONE);
    let servers = || told(&ask("sub.example.com.", Type::NS));
    let before = servers();
    assert_eq!(
        before[..2],
        [
            "NoError aa=true",
            "an sub.example.com. 3600 NS ns1.example.com."
        ]
    );
    assert_eq!(
        told(&ask("ns.sub.example.com.", Type::A))[0],
        "NXDomain aa=true"
    );
    // And a name of the zone below that Foreman made is not taken away with the file's line.
    DnsBuiltin::create(record("ns.sub.example.com", RecordType::A, "192.0.2.54")).unwrap();
    write(&host, 2, &ZONE.replace("ns.sub A 192.0.2.54\n", ""));
    assert_eq!(
        told(&ask("ns.sub.example.com.", Type::A))[0],
        "NoError aa=true"
    );
    assert_eq!(servers(), before);
}

/// RFC 2317: the zone of a part of a network, whose name no file can have. And a file from before UTF-8.
#[test]
fn zones_of_small_networks_and_old_files_are_read() {
    let zone = "0/25.2.0.192.in-addr.arpa";
    let mut file = b"; M\xfcller's\n5 60 PTR web.example.com.\nt 60 TXT \"\xfc\"\n".to_vec();
    file.extend_from_slice("t 60 TXT \"ü\"\n".as_bytes());
    let host = served(&["example.com", zone], ZONE);
    host.change(|host| {
        host.watched(import::FILES, "0-25.2.0.192.in-addr.arpa.zone", 1, &file)
            .setting("hostmaster", "john.doe@example.com")
    });
    DnsBuiltin::start().unwrap();
    let zones = Zones::of_settings().unwrap();
    let top = zones.zones.iter().find(|it| it.origin.to_string() == zone);
    assert_eq!(
        top.unwrap().soa.mailbox.wire(),
        b"\x08john.doe\x07example\x03com\0"
    );
    let kept = |name: &str| {
        let entry = store::get(SLOT, &format!("n/{name}.{zone}")).unwrap();
        String::from_utf8(entry.unwrap().value).unwrap()
    };
    assert_eq!(kept("5"), "60 PTR web.example.com.\n");
    assert_eq!(kept("t"), "60 TXT \"\\252\"\n60 TXT \"\\195\\188\"\n");
}

/// A file that is still being written is not read: each sign of writing moves the reading on.
#[test]
fn half_a_file_is_waited_for() {
    let host = host();
    let changed = || DnsBuiltin::wake(&[Event::FileChanged(import::FILES.to_owned())]).unwrap();
    let half = ZONE.split_at(200).0;
    host.change(|host| host.watched(import::FILES, "example.com.zone", 2, half.as_bytes()));
    changed();
    SERVER.with_borrow_mut(|server| server.as_mut().unwrap().look_at -= QUIET / 2);
    host.change(|host| {
        let whole = format!("{ZONE}late A 192.0.2.72\n");
        host.watched(import::FILES, "example.com.zone", 2, whole.as_bytes())
    });
    assert!(changed() > QUIET / 2);
    DnsBuiltin::wake(&[Event::StoreChanged(SLOT.to_owned())]);
    assert_eq!(
        told(&ask("late.example.com.", Type::A))[0],
        "NXDomain aa=true"
    );
    assert_eq!(
        told(&ask("web.example.com.", Type::A))[0],
        "NoError aa=true"
    );
    SERVER.with_borrow_mut(|server| server.as_mut().unwrap().look_at -= QUIET);
    DnsBuiltin::wake(&[Event::Timer]);
    assert_eq!(
        told(&ask("late.example.com.", Type::A))[0],
        "NoError aa=true"
    );
    assert_eq!(
        told(&ask("a.b.c.example.com.", Type::A))[0],
        "NoError aa=true"
    );
}

#[test]
fn a_restart_keeps_records_and_serials() {
    let _host = host();
    DnsBuiltin::create(record("new.example.com", RecordType::A, "192.0.2.77")).unwrap();
    let at = serial();
    SERVER.set(None);
    DnsBuiltin::start().unwrap();
    assert_eq!(
        told(&ask("new.example.com.", Type::A))[1],
        "an new.example.com. 60 A 192.0.2.77"
    );
    assert_eq!(serial(), at);
}

#[test]
fn an_index_that_followed_is_the_index_that_loads() {
    let _host = host();
    for round in 0..300_u32 {
        let name = format!("h{}.x{}.example.com", round % 17, round % 5);
        if round % 3 == 2 {
            DnsBuiltin::remove(name.clone(), RecordType::A, None).unwrap();
        } else {
            let _ = DnsBuiltin::create(record(&name, RecordType::A, "192.0.2.77"));
        }
        let followed = told(&ask(&format!("{name}."), Type::A))[0].clone();
        let ent = told(&ask(&format!("x{}.example.com.", round % 5), Type::A))[0].clone();
        let loaded = Index::load(&Zones::of_settings().unwrap()).unwrap();
        let anew = |name: &str| {
            let bytes = question(name, Type::A).to_bytes().unwrap();
            let answer = answer::answer(&loaded, &bytes, true, 1232).unwrap();
            told(&Message::from_bytes(&answer).unwrap())[0].clone()
        };
        assert_eq!(followed, anew(&format!("{name}.")));
        assert_eq!(ent, anew(&format!("x{}.example.com.", round % 5)));
    }
}

#[test]
fn settings_that_cannot_be_are_named() {
    let host = host();
    let fails = |name: &str, value: Value, told: &str| {
        host.change(|host| host.setting(name, value));
        assert_eq!(DnsBuiltin::start().unwrap_err(), told);
    };
    let texts = |text: &str| Value::Texts(vec![text.to_owned()]);
    fails("zones", texts("a..b"), "zones: `a..b` is not a domain name");
    fails(
        "zones",
        texts("192.0.2.0/25"),
        "zones: `192.0.2.0/25` must end at a multiple of 8 bits to be a reverse zone; name the zones themselves",
    );
    host.change(|host| host.setting("zones", texts("2001:db8::/32")));
    DnsBuiltin::start().unwrap();
    assert_eq!(
        told(&ask("8.b.d.0.1.0.0.2.ip6.arpa.", Type::NS))[1],
        "an 8.b.d.0.1.0.0.2.ip6.arpa. 3600 NS ns1.example.com."
    );
}

proptest! {
    #[test]
    fn no_message_breaks_the_server(bytes in proptest::collection::vec(any::<u8>(), 0..200), begins in any::<bool>()) {
        let _host = host();
        let mut message = Vec::new();
        if begins {
            message = question("web.example.com.", Type::A).to_bytes().unwrap();
            for (at, byte) in bytes.iter().take(3).enumerate() {
                let place = (at * 97 + usize::from(*byte)) % message.len();
                message[place] ^= bytes.get(at + 3).copied().unwrap_or(1);
            }
        }
        message.extend(bytes);
        if let Some(answer) = ask_bytes(Transport::Udp, &message) {
            prop_assert!(answer.len() <= 1232 && answer[2] & 0x80 != 0);
            prop_assert!(Message::from_bytes(&answer).is_ok());
        }
    }
}
