//! The server that comes with the program, held against BIND 9 with the same zone of 10,000 hosts, record by record; and its zone files.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bulkhead_testkit::bind::{Bind, Setup};
use bulkhead_testkit::dns::{Way, ask_all, question, try_udp, with_edns};
use bulkhead_testkit::eventually::until_within;
use bulkhead_testkit::{
    Bulkhead, Configuration, Scratch, Signal, assert_eventually, ports, skip, zone,
};
use hickory_proto::op::Message;
use hickory_proto::rr::{Record, RecordType};

/// The program with the large zone, and where it answers.
fn with_large_zone(port: u16, scratch: &Scratch) -> Bulkhead {
    scratch.file(&format!("zones/{}.zone", zone::ZONE), zone::text());
    let directory = scratch.join("zones").display().to_string();
    Bulkhead::with(Configuration::empty().dns_builtin(
        port,
        &[zone::ZONE],
        &format!("zone_directory = {directory:?}"),
    ))
}

/// One record in one form. Names have no case, texts do.
fn told(record: &Record) -> String {
    let data = record.data.to_string();
    let data = match record.record_type() {
        RecordType::TXT => data,
        _ => data.to_lowercase(),
    };
    format!(
        "{} {} {:?} {} {data}",
        record.name.to_lowercase(),
        record.ttl,
        record.dns_class,
        record.record_type()
    )
}

/// All that a client may rely on. Of a truncated answer only that it is one: how much of it is sent is the server's choice, and so is what an
/// authoritative answer adds beside what was asked for (BIND adds addresses to its NS records without EDNS, and none with it).
fn essence(bytes: &[u8]) -> Vec<String> {
    let message = Message::from_vec(bytes).unwrap_or_else(|why| panic!("{why}: {bytes:?}"));
    let head = &message.metadata;
    let mut lines = vec![format!(
        "{} {:?} {:?} aa={} tc={} rd={} ra={} {:?}",
        head.message_type,
        head.op_code,
        head.response_code,
        head.authoritative,
        head.truncation,
        head.recursion_desired,
        head.recursion_available,
        message.queries,
    )];
    if let Some(edns) = &message.edns {
        lines.push(format!(
            "edns version {} payload {} do={}",
            edns.version(),
            edns.max_payload(),
            edns.flags().dnssec_ok
        ));
    }
    if head.truncation {
        return lines;
    }
    for (section, records) in [
        ("answer", &message.answers),
        ("authority", &message.authorities),
        ("additional", &message.additionals),
    ] {
        if section == "additional" && head.authoritative {
            continue;
        }
        let mut records: Vec<String> = records.iter().map(told).collect();
        records.sort();
        lines.extend(records.iter().map(|it| format!("{section} {it}")));
    }
    lines
}

/// Asks both the same, and counts what they agree on.
fn compare(ours: SocketAddr, theirs: SocketAddr, way: Way, questions: &[Vec<u8>]) {
    let (our, their) = std::thread::scope(|scope| {
        let their = scope.spawn(move || ask_all(theirs, way, questions));
        (ask_all(ours, way, questions), their.join().unwrap())
    });
    let mut wrong = Vec::new();
    for (our, their) in our.iter().zip(&their) {
        let (our, their) = (essence(our), essence(their));
        if our != their {
            wrong.push(format!("ours   {our:#?}\ntheirs {their:#?}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{way:?}: {} of {} answers differ, the last:\n{}",
        wrong.len(),
        questions.len(),
        wrong[wrong.len().saturating_sub(8)..].join("\n")
    );
}

/// 10,000 hosts and as many names that are not there, wildcards, aliases, delegations, sets that fit no datagram; by UDP and TCP, IPv4 and IPv6, with
/// EDNS and without: every answer is BIND's.
#[test]
fn every_answer_is_that_of_bind() {
    if !Bind::is_installed() {
        skip!("BIND (named, dig, nsupdate) is not installed");
    }
    let bind = Bind::with(Setup {
        serves_large_zone: true,
        ..Setup::default()
    });
    let (port, scratch) = (ports::free(), Scratch::new());
    let bulkhead = with_large_zone(port, &scratch);
    let ours = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let six = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
    let plain = |(name, kind): &(String, &str)| question(name, kind);
    let hosts: Vec<_> = zone::host_questions().iter().map(plain).collect();
    let special: Vec<_> = zone::special_questions().iter().map(plain).collect();
    for way in [Way::Udp, Way::Tcp] {
        compare(ours, bind.address(), way, &hosts);
        compare(ours, bind.address(), way, &special);
        compare(six, bind.address(), way, &special);
        for (payload, version, dnssec_ok) in [
            (0, 0, false),
            (512, 0, true),
            (1232, 0, false),
            (4096, 0, true),
            (65_535, 0, false),
            (1232, 1, false),
        ] {
            let with = |bytes: &Vec<u8>| with_edns(bytes.clone(), payload, version, dnssec_ok);
            let special: Vec<_> = special.iter().map(with).collect();
            compare(ours, bind.address(), way, &special);
        }
    }
    assert_eq!(
        bulkhead.log_lines("the service's call failed"),
        Vec::<String>::new()
    );
}

/// Messages that are no question of a client get BIND's code, or silence where BIND is silent.
#[test]
fn odd_messages_get_the_codes_of_bind() {
    if !Bind::is_installed() {
        skip!("BIND (named, dig, nsupdate) is not installed");
    }
    let bind = Bind::start();
    let port = ports::free();
    let _bulkhead = Bulkhead::with(Configuration::empty().dns_builtin(port, &["example.com"], ""));
    let ours = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let good = question("example.com", "SOA");
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    let more = |at: usize, count: u8, bytes: &[u8]| {
        let mut message = with(at, count);
        message.extend(bytes);
        message
    };
    let opt = [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];
    let mut chaos = question("version.example.com", "TXT");
    let end = chaos.len();
    chaos[end - 1] = 3;
    let mut outside = question("www.example.org", "A");
    outside[2] |= 1;
    for (what, message) in [
        ("an answer", with(2, 0x80)),
        ("too short", good[..11].to_vec()),
        ("an unknown opcode", with(2, 0x78)),
        ("no question", with(5, 0)[..12].to_vec()),
        ("two questions", [with(5, 2), good[12..].to_vec()].concat()),
        ("a pointer to nothing", with(12, 0xc0)),
        ("cut in the name", good[..20].to_vec()),
        ("two OPT records", more(11, 2, &[opt, opt].concat())),
        (
            "OPT with a name",
            more(11, 1, &[&[1, b'a'][..], &opt].concat()),
        ),
        ("OPT among the answers", more(7, 1, &opt)),
        ("an unknown option", {
            let mut opt = opt.to_vec();
            opt[10] = 6;
            opt.extend([0xff, 0xfe, 0, 2, 1, 2]);
            more(11, 1, &opt)
        }),
        ("class CH", chaos),
        ("recursion wanted", outside),
    ] {
        let code =
            |server| try_udp(server, &message, Duration::from_millis(700)).map(|it| it[3] & 0x8f);
        assert_eq!(code(ours), code(bind.address()), "{what}");
    }
}

/// What `dig` shows of it, by UDP and TCP, IPv4 and IPv6.
fn dig(port: u16, arguments: &[&str]) -> String {
    let output = Command::new("dig")
        .args(["-p", &port.to_string(), "+time=3", "+tries=2", "+norecurse"])
        .args(arguments)
        .output()
        .expect("dig can be started");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A file that is written anew is taken over while the server runs: what changed in it, and nothing else. Half a file, and one with a mistake, change
/// nothing. A file for a zone that had none counts too.
#[test]
fn zone_files_are_read_again_when_they_change() {
    if bulkhead_testkit::skip::program("dig").is_none() {
        skip!("dig is not installed");
    }
    let (port, scratch) = (ports::free(), Scratch::new());
    let directory = scratch.directory("zones");
    let text = "$TTL 60\n@ SOA ns root 2026112501 1h 1h 1h 1h\n@ NS ns\nns A 192.0.2.53\nold A 192.0.2.1\n";
    scratch.file("zones/example.com.zone", text);
    let mut bulkhead = Bulkhead::with(Configuration::empty().dns_builtin(
        port,
        &["example.com", "example.net"],
        &format!("zone_directory = {:?}", directory.display().to_string()),
    ));
    let a = |name: &str| dig(port, &["@127.0.0.1", "+short", name, "A"]);
    let serial = || {
        let soa = dig(port, &["@::1", "+tcp", "+short", "example.com", "SOA"]);
        let serial = soa
            .split_whitespace()
            .nth(2)
            .unwrap_or_else(|| panic!("{soa}"));
        serial.parse::<u32>().unwrap()
    };
    assert_eq!(a("old.example.com"), "192.0.2.1\n");
    assert_eq!(serial(), 2_026_112_501);
    let target = bulkhead.foreman();
    let fields = [
        ("fqdn", "mine.example.com"),
        ("value", "192.0.2.2"),
        ("type", "A"),
    ];
    target.post("/dns/", &fields).assert_status(200);
    assert_eq!(a("mine.example.com"), "192.0.2.2\n");
    let before = serial();
    assert!(before > 2_026_112_501);

    // Renamed over, as careful people do.
    let new = text.replace("old A 192.0.2.1", "new A 192.0.2.3");
    std::fs::rename(
        scratch.file("new", &new),
        directory.join("example.com.zone"),
    )
    .unwrap();
    assert_eventually!(a("new.example.com") == "192.0.2.3\n", "{}", bulkhead.log());
    assert_eq!(a("old.example.com"), "");
    assert_eq!(a("mine.example.com"), "192.0.2.2\n");
    assert!(serial() > before);

    // A mistake is told with its line, and changes nothing.
    scratch.file(
        "zones/example.com.zone",
        new.replace("new A 192.0.2.3", "new A 192.0.2.x"),
    );
    assert_eventually!(
        !bulkhead.log_lines("example.com.zone, line 5").is_empty(),
        "{}",
        bulkhead.log()
    );
    assert_eq!(a("new.example.com"), "192.0.2.3\n");

    // In place, and for another zone.
    scratch.file(
        "zones/example.com.zone",
        new.replace("new A 192.0.2.3", "newer A 192.0.2.4"),
    );
    scratch.file("zones/db.example.net", "www 60 A 192.0.2.5\n");
    assert_eventually!(
        a("newer.example.com") == "192.0.2.4\n",
        "{}",
        bulkhead.log()
    );
    assert_eventually!(a("www.example.net") == "192.0.2.5\n", "{}", bulkhead.log());
    assert_eq!(a("new.example.com"), "");

    // All of it is there after a crash, and the serial goes on.
    let before = serial();
    bulkhead.restart_after(Signal::Kill);
    assert_eq!(a("mine.example.com"), "192.0.2.2\n");
    assert_eq!(a("newer.example.com"), "192.0.2.4\n");
    assert!(serial() >= before);
}

/// Foreman changes names of a zone file just while it is taken over: the file is taken over whole nevertheless.
#[test]
fn a_zone_file_is_taken_over_whole_while_foreman_works() {
    const NAMES: usize = 4_000;
    let (port, scratch) = (ports::free(), Scratch::new());
    let directory = scratch.directory("zones");
    let bulkhead = Bulkhead::with(Configuration::empty().dns_builtin(
        port,
        &["example.com"],
        &format!("zone_directory = {:?}", directory.display().to_string()),
    ));
    let server = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let questions: Vec<Vec<u8>> = (0..NAMES)
        .map(|host| question(&format!("x{host}.example.com"), "A"))
        .collect();
    let all_have = |octet: u8| {
        let answers = ask_all(server, Way::Udp, &questions);
        let wanted = [10, octet, 0, 0];
        answers.iter().all(|answer| answer.ends_with(&wanted))
    };
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let (bulkhead, over) = (&bulkhead, &over);
            scope.spawn(move || {
                let target = bulkhead.foreman();
                for round in 0..20_000_usize {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    let name = format!("x{}.example.com", (round * 4 + worker) * 7 % NAMES);
                    let fields = [
                        ("fqdn", name.as_str()),
                        ("value", "2001:db8::1"),
                        ("type", "AAAA"),
                    ];
                    target.post("/dns/", &fields).assert_status(200);
                    target
                        .delete(&format!("/dns/{name}/AAAA"))
                        .assert_status(200);
                }
            });
        }
        for octet in 1..=3 {
            let line = |host: usize| format!("x{host} 60 A 10.{octet}.0.0\n");
            let text: String = (0..NAMES).map(line).collect();
            let new = scratch.file("new", &text);
            std::fs::rename(new, directory.join("example.com.zone")).unwrap();
            let whole = until_within(Duration::from_secs(20), || all_have(octet).then_some(()));
            if whole.is_none() {
                over.store(true, Ordering::Relaxed);
                panic!("{}", bulkhead.log_lines("zone").join("\n"));
            }
        }
        over.store(true, Ordering::Relaxed);
    });
}

/// What real clients do with it: `dig` asks again by TCP where an answer was cut, `nsupdate` may change nothing, and nobody gets the whole zone.
#[test]
fn real_clients_get_whole_answers_and_no_more_than_answers() {
    let needed = ["dig", "nsupdate"];
    if let Some(missing) = needed
        .iter()
        .find(|it| bulkhead_testkit::skip::program(it).is_none())
    {
        skip!("{missing} is not installed");
    }
    let (port, scratch) = (ports::free(), Scratch::new());
    let bulkhead = with_large_zone(port, &scratch);
    let zone = zone::ZONE;
    for server in ["@127.0.0.1", "@::1"] {
        // Sixty addresses fit no datagram of 512 bytes.
        let many = format!("many.{zone}");
        let cut = dig(port, &[server, "+noedns", "+ignore", &many, "A"]);
        assert!(cut.contains("flags: qr aa tc"), "{cut}");
        let whole = dig(port, &[server, "+noedns", "+short", &many, "A"]);
        assert_eq!(
            whole
                .lines()
                .filter(|it| it.starts_with("198.51.100."))
                .count(),
            60
        );
        let large = dig(
            port,
            &[server, "+bufsize=4096", "+ignore", "+short", &many, "A"],
        );
        let large = large
            .lines()
            .filter(|it| it.starts_with("198.51.100."))
            .count();
        assert!(large > 0, "{server}");
        let chain = dig(port, &[server, "+short", &format!("c0.{zone}"), "A"]);
        assert!(chain.ends_with("10.7.0.7\n"), "{chain}");
        let wild = dig(
            port,
            &[server, "+short", &format!("any.thing.wild.{zone}"), "A"],
        );
        assert_eq!(wild, "192.0.2.9\n");
        // Names that are not there, and types a name has not, come with the SOA by which that is remembered.
        for (name, kind, status) in [("nothing", "A", "NXDOMAIN"), ("ns", "MX", "NOERROR")] {
            let none = dig(port, &[server, &format!("{name}.{zone}"), kind]);
            assert!(
                none.contains(&format!("status: {status}"))
                    && none.contains("ANSWER: 0, AUTHORITY: 1")
                    && none.contains("\tSOA\t"),
                "{none}"
            );
        }
        // It looks nothing up for anybody.
        let recursive = dig(port, &[server, "+recurse", "www.example.org", "A"]);
        assert!(
            recursive.contains("status: REFUSED") && recursive.contains("flags: qr rd;"),
            "{recursive}"
        );
        for transfer in ["AXFR", "IXFR=1"] {
            let all = dig(port, &[server, "+tcp", zone, transfer]);
            assert!(
                all.contains("Transfer failed") || all.contains("status: REFUSED"),
                "{transfer}: {all}"
            );
            assert!(!all.contains("10.7.0."), "{transfer}");
        }
    }
    let text = format!(
        "server 127.0.0.1 {port}\nzone {zone}\nupdate add evil.{zone} 60 A 192.0.2.66\nsend\n"
    );
    let file = scratch.file("update", text);
    let output = Command::new("nsupdate").arg(file).output().unwrap();
    assert!(!output.status.success(), "{output:?}");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        told.contains("NOTIMP") || told.contains("REFUSED"),
        "{told}"
    );
    let evil = dig(port, &["@127.0.0.1", &format!("evil.{zone}"), "A"]);
    assert!(evil.contains("NXDOMAIN"), "{evil}");
    assert_eq!(
        bulkhead.log_lines("the service's call failed"),
        Vec::<String>::new()
    );
}

/// A zone that only the configuration names is there, empty; each change of Foreman's makes its serial greater by RFC 1982, and a change that is none does not.
#[test]
fn a_zone_of_the_configuration_counts_its_changes() {
    if bulkhead_testkit::skip::program("dig").is_none() {
        skip!("dig is not installed");
    }
    let port = ports::free();
    let bulkhead = Bulkhead::with(Configuration::empty().dns_builtin(
        port,
        &["example.com", "2.0.192.in-addr.arpa"],
        "",
    ));
    let serial = |zone: &str| {
        let soa = dig(port, &["@127.0.0.1", "+short", zone, "SOA"]);
        let serial = soa
            .split_whitespace()
            .nth(2)
            .and_then(|it| it.parse::<u32>().ok());
        serial.unwrap_or_else(|| panic!("{soa}\n{}", bulkhead.log()))
    };
    let servers = dig(port, &["@127.0.0.1", "+short", "example.com", "NS"]);
    assert_eq!(servers, "ns.example.com.\n");
    let foreman = bulkhead.foreman();
    let a = [
        ("fqdn", "www.example.com"),
        ("value", "192.0.2.80"),
        ("type", "A"),
    ];
    let ptr = [
        ("fqdn", "www.example.com"),
        ("value", "80.2.0.192.in-addr.arpa"),
        ("type", "PTR"),
    ];
    let grown = |before: u32, now: u32| (1..1 << 31).contains(&now.wrapping_sub(before));
    let before = (serial("example.com"), serial("2.0.192.in-addr.arpa"));
    foreman.post("/dns/", &a).assert_status(200);
    let then = (serial("example.com"), serial("2.0.192.in-addr.arpa"));
    assert!(
        grown(before.0, then.0) && before.1 == then.1,
        "{before:?} {then:?}"
    );
    // The same again changes nothing.
    foreman.post("/dns/", &a).assert_status(200);
    assert_eq!(serial("example.com"), then.0);
    foreman.post("/dns/", &ptr).assert_status(200);
    assert!(grown(then.1, serial("2.0.192.in-addr.arpa")));
    let back = dig(port, &["@127.0.0.1", "+short", "-x", "192.0.2.80"]);
    assert_eq!(back, "www.example.com.\n");
    foreman
        .request("DELETE", "/dns/www.example.com/A")
        .send()
        .assert_status(200);
    assert!(grown(then.0, serial("example.com")));
    let gone = dig(port, &["@127.0.0.1", "www.example.com", "A"]);
    assert!(gone.contains("status: NXDOMAIN"), "{gone}");
    let now = serial("example.com");
    // Nothing was there to take away.
    foreman.request("DELETE", "/dns/www.example.com/A").send();
    assert_eq!(serial("example.com"), now);
}
