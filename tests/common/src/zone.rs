//! A large zone that two servers can load, and the questions by which their answers are compared.
//!
//! It has 10,000 hosts, and beside them whatever is easily got wrong: wildcards, chains of aliases, delegations, empty names between others, sets
//! that fit no datagram.
//!
//! Its delegations name servers below themselves or in other zones: addresses of a server elsewhere in the zone are an extra that some servers add to a
//! referral and some do not.
//!
//! The one idea: it is a text, so that no server's own code had a hand in it.

/// The zone's name.
pub const ZONE: &str = "big.test";
/// Hosts in it, `h0` to `h9999`.
pub const HOSTS: usize = 10_000;

/// Beside the hosts.
const SPECIAL: &str = "\
@ NS ns
@ NS ns2.example.net.
@ MX 10 mail
@ MX 20 mail.example.net.
@ TXT \"v=spf1 -all\" \"second; part\"
@ CAA 0 issue \"ca.example.net\"
ns A 192.0.2.53
ns AAAA 2001:db8::53
mail A 192.0.2.25
Mixed-Case A 192.0.2.26
_sip._tcp SRV 0 5 5060 ns
_sip._tcp SRV 1 5 5061 h1
ssh SSHFP 4 2 123456789abcdef67890123456789abcdef67890123456789abcdef123456789
odd TYPE65280 \\# 4 0a000001
c0 CNAME c1
c1 CNAME c2
c2 CNAME c3
c3 CNAME h7
alias-nodata CNAME _sip._tcp
alias-nothing CNAME nothing.here
alias-out CNAME www.example.org.
alias-wild CNAME some.wild
alias-sub CNAME a.sub
loop-self CNAME loop-self
loop-a CNAME loop-b
loop-b CNAME loop-a
*.wild A 192.0.2.9
*.wild TXT \"wild\"
deep.under.wild A 192.0.2.10
*.alias-below CNAME h5
sub NS ns.sub
sub NS ns.elsewhere.example.net.
sub DS 12345 8 2 3490A6806D47F17A34C29E2CE80E8A999FFBE4BE3490A6806D47F17A34C29E2C
ns.sub A 192.0.2.54
ns.sub AAAA 2001:db8::54
unsigned NS ns.example.net.
a.b.c.d A 192.0.2.11
\\000\\.odd\\032label A 192.0.2.12
";

/// The zone as a file.
pub fn text() -> String {
    let mut text = format!("$TTL 3600\n@ SOA ns hostmaster (2026112501 1h 10m 2w 5m)\n{SPECIAL}");
    for number in 0..HOSTS {
        let (high, low) = (number / 250, number % 250);
        text.push_str(&format!("h{number} A 10.7.{high}.{low}\n"));
        match number % 10 {
            0..=2 => text.push_str(&format!("h{number} 600 AAAA 2001:db8:7::{number:x}\n")),
            3 => text.push_str(&format!("h{number} TXT \"host number {number}\"\n")),
            4 => text.push_str(&format!("h{number} A 10.8.{high}.{low}\n")),
            _ => {}
        }
    }
    for number in 0..60 {
        text.push_str(&format!("many A 198.51.100.{number}\n"));
        text.push_str(&format!("huge TXT \"{number} {}\"\n", "x".repeat(200)));
    }
    text
}

/// Questions about hosts: each is asked for its addresses, some for what they do not have, and for names beside them that do not exist.
pub fn host_questions() -> Vec<(String, &'static str)> {
    let mut questions = Vec::new();
    for number in 0..HOSTS {
        questions.push((format!("h{number}.{ZONE}"), "A"));
        questions.push((
            format!("h{number}.{ZONE}"),
            ["AAAA", "TXT", "AAAA"][number % 3],
        ));
        match number % 4 {
            0 => questions.push((format!("h{number}x.{ZONE}"), "A")),
            1 => questions.push((format!("x.H{number}.{}", ZONE.to_uppercase()), "AAAA")),
            2 => questions.push((format!("w{number}.wild.{ZONE}"), "A")),
            _ => {}
        }
    }
    questions
}

/// Questions about everything else, each name for each type.
pub fn special_questions() -> Vec<(String, &'static str)> {
    let below = [
        "ns",
        "mail",
        "mixed-case",
        "MIXED-CASE",
        "_sip._tcp",
        "_tcp",
        "ssh",
        "odd",
        "c0",
        "c1",
        "C2",
        "c3",
        "alias-nodata",
        "alias-nothing",
        "alias-out",
        "alias-wild",
        "alias-sub",
        "loop-self",
        "loop-a",
        "loop-b",
        "wild",
        "*.wild",
        "a.wild",
        "a.b.wild",
        "*.b.wild",
        "under.wild",
        "deep.under.wild",
        "x.under.wild",
        "x.deep.under.wild",
        "alias-below",
        "x.alias-below",
        "*.alias-below",
        "sub",
        "ns.sub",
        "a.sub",
        "a.b.sub",
        "unsigned",
        "x.unsigned",
        "d",
        "c.d",
        "b.c.d",
        "a.b.c.d",
        "x.b.c.d",
        "x.a.b.c.d",
        "many",
        "huge",
        "nothing",
        "nothing.here",
        "h1",
        "h10000",
        "-",
        "\\000\\.odd\\032label",
        "\\000.odd\\032label",
    ];
    let names = below.iter().map(|name| format!("{name}.{ZONE}")).chain(
        [
            ZONE,
            "BIG.test",
            "test",
            "xbig.test",
            "example.org",
            "big.test.example.org",
        ]
        .map(str::to_owned),
    );
    let kinds = [
        "A",
        "AAAA",
        "NS",
        "SOA",
        "CNAME",
        "MX",
        "TXT",
        "SRV",
        "DS",
        "SSHFP",
        "CAA",
        "PTR",
        "TYPE65280",
    ];
    names
        .flat_map(|name| kinds.map(|kind| (name.clone(), kind)))
        .collect()
}
