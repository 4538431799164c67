//! `decide` held against a model that is too simple to be wrong: a table that says, for each possible policy line, which
//! actions it covers. Policies are any set of lines. Then: an action is allowed exactly when a line of the set covers it;
//! adding a line takes no right away; removing one adds none; the operator's rules for all win.
//!
//! Policies go through the real parser, editor and resolver, so the whole way from file to answer is held against the table.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::super::deny::Deny;
use super::super::guard::{Guard, HostRules};
use super::super::matchers::socket::Transport;
use super::super::{Action, Capability, Limits, Policy};
use crate::sandbox::bindings::types::{Lifetime, Manifest, Need};

/// A policy line and the names of the actions it covers.
const LINES: [(&str, &[&str]); 40] = [
    (r#"files.root.directory = "/srv/tftp""#, &["read root"]),
    (
        r#"files.root = { directory = "/srv/tftp", access = "read-write" }"#,
        &["read root", "write root"],
    ),
    (
        r#"files.conf = { file = "/etc/dhcpd.conf" }"#,
        &["read conf"],
    ),
    (
        r#"sockets.s.allow = ["tcp 192.0.2.1:53"]"#,
        &["tcp global", "tcp mapped", "bind tcp"],
    ),
    (
        r#"sockets.s.allow = ["tcp 192.0.2.0/24:53"]"#,
        &["tcp global", "tcp mapped", "tcp other", "bind tcp"],
    ),
    (
        r#"sockets.s.allow = ["udp 192.0.2.0/24:*"]"#,
        &["udp global", "receive", "bind udp"],
    ),
    (
        r#"sockets.s.allow = ["tcp 10.0.0.0/8:53"]"#,
        &["tcp private", "bind tcp"],
    ),
    (
        r#"sockets.s.allow = ["tcp 127.0.0.1:53"]"#,
        &["tcp loopback", "bind tcp"],
    ),
    (
        r#"sockets.s.allow = ["tcp 169.254.0.0/16:*"]"#,
        &["bind tcp"],
    ),
    (
        r#"sockets.s.allow = ["tcp *:53"]"#,
        &["tcp global", "tcp mapped", "tcp other", "bind tcp"],
    ),
    (r#"sockets.s.allow = ["tcp *:54"]"#, &["bind tcp"]),
    (
        r#"sockets.s.allow = ["tcp ns.example.com:53"]"#,
        &["tcp other", "tcp private", "bind tcp", "resolve ns"],
    ),
    (
        r#"sockets.s.allow = ["tcp *.example.com:53"]"#,
        &["tcp other", "bind tcp", "resolve ns", "resolve www"],
    ),
    (
        r#"sockets.s.allow = ["tcp gone.example.com:53"]"#,
        &["bind tcp"],
    ),
    (
        r#"sockets.l = { allow = ["tcp *:53"], private-addresses = true }"#,
        &[
            "tcp global",
            "tcp mapped",
            "tcp other",
            "tcp private",
            "bind tcp",
        ],
    ),
    (
        r#"sockets.m = { allow = ["tcp *:53"], loopback = true }"#,
        &[
            "tcp global",
            "tcp mapped",
            "tcp other",
            "tcp loopback",
            "bind tcp",
        ],
    ),
    (r#"names.n.allow = ["ns.example.com"]"#, &["resolve ns"]),
    (
        r#"names.n.allow = ["*"]"#,
        &["resolve ns", "resolve www", "resolve evil"],
    ),
    (
        r#"http.a.url = "https://h/api""#,
        &["http get", "http address"],
    ),
    (
        r#"http.a = { url = "https://h/api", methods = ["POST"] }"#,
        &["http post", "http address"],
    ),
    (
        r#"http.a = { url = "https://h/api", paths = ["/other"] }"#,
        &["http address"],
    ),
    (
        r#"http.a = { url = "https://h/api", loopback = true }"#,
        &["http get", "http address", "http loopback"],
    ),
    (r#"http.a.url = "https://other/api""#, &["http address"]),
    (r#"foreman.f.allow = ["GET /register"]"#, &["foreman get"]),
    (
        r#"foreman.f.allow = ["* /register"]"#,
        &["foreman get", "foreman post"],
    ),
    (
        r#"foreman.f.allow = ["GET /**"]"#,
        &["foreman get", "foreman api"],
    ),
    (r#"store.s.space = "own""#, &["load"]),
    (r#"store.s = { access = "read-write" }"#, &["load", "save"]),
    (r#"secrets.k = { file = "/etc/k" }"#, &["use"]),
    (
        r#"secrets.k = { file = "/etc/k", access = "reveal" }"#,
        &["use", "reveal"],
    ),
    (r#"call.provider.plugin = "good""#, &["call good"]),
    (r#"call.provider.plugin = "evil""#, &["call evil"]),
    (
        r#"downloads.d = { urls = ["http://mirror"], into = "down" }"#,
        &["fetch", "fetch address"],
    ),
    (
        r#"downloads.d = { urls = ["http://*/pub/**"], into = "down" }"#,
        &["fetch", "fetch address"],
    ),
    (
        r#"downloads.d = { urls = ["https://mirror"], into = "down" }"#,
        &[],
    ),
    (
        r#"listen.l.sockets = ["udp 0.0.0.0:67"]"#,
        &["listen", "answer"],
    ),
    (
        r#"listen.l = { sockets = ["udp 0.0.0.0:68"], broadcast = true, peers = ["udp 192.0.2.0/24:*"] }"#,
        &["answer", "broadcast", "unasked"],
    ),
    (r#"watch.w.file = "/var/lib/leases""#, &["watch"]),
    (r#"probe.p.allow = ["192.0.2.0/24"]"#, &["probe"]),
    (r#"link.i.interfaces = ["eth0"]"#, &["link"]),
];

fn sock(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn actions() -> Vec<(&'static str, Action<'static>)> {
    let tcp = |addr: &str| Action::TcpConnect {
        addr: sock(addr),
        name: None,
    };
    vec![
        (
            "read root",
            Action::FileOpen {
                slot: "root",
                path: "a/b",
                write: false,
            },
        ),
        (
            "write root",
            Action::FileOpen {
                slot: "root",
                path: "a/b",
                write: true,
            },
        ),
        (
            "read conf",
            Action::FileOpen {
                slot: "conf",
                path: "dhcpd.conf",
                write: false,
            },
        ),
        (
            "read beside conf",
            Action::FileOpen {
                slot: "conf",
                path: "dhcpd.leases",
                write: false,
            },
        ),
        (
            "link root",
            Action::FileLink {
                slot: "root",
                path: "a",
            },
        ),
        ("tcp global", tcp("192.0.2.1:53")),
        ("tcp mapped", tcp("[::ffff:192.0.2.1]:53")),
        ("tcp other", tcp("192.0.2.9:53")),
        ("tcp private", tcp("10.0.0.1:53")),
        ("tcp loopback", tcp("127.0.0.1:53")),
        ("tcp metadata", tcp("169.254.169.254:80")),
        ("tcp wrong port", tcp("192.0.2.1:55")),
        (
            "udp global",
            Action::UdpSend {
                addr: sock("192.0.2.1:53"),
            },
        ),
        (
            "receive",
            Action::UdpReceive {
                addr: sock("192.0.2.1:53"),
            },
        ),
        (
            "bind tcp",
            Action::TcpBind {
                addr: sock("0.0.0.0:0"),
            },
        ),
        (
            "bind udp",
            Action::UdpBind {
                addr: sock("[::]:0"),
            },
        ),
        (
            "bind port",
            Action::UdpBind {
                addr: sock("0.0.0.0:53"),
            },
        ),
        (
            "listen tcp",
            Action::TcpListen {
                addr: sock("0.0.0.0:80"),
            },
        ),
        (
            "resolve ns",
            Action::Resolve {
                name: "NS.example.com.",
            },
        ),
        (
            "resolve www",
            Action::Resolve {
                name: "www.example.com",
            },
        ),
        (
            "resolve evil",
            Action::Resolve {
                name: "data.evil.example",
            },
        ),
        (
            "http get",
            Action::Http {
                slot: "a",
                method: "GET",
                url: "https://h/api/x?y",
            },
        ),
        (
            "http post",
            Action::Http {
                slot: "a",
                method: "POST",
                url: "https://h/api/x",
            },
        ),
        (
            "http outside",
            Action::Http {
                slot: "a",
                method: "GET",
                url: "https://h/api/../x",
            },
        ),
        (
            "http address",
            Action::HttpAddress {
                slot: "a",
                ip: ip("192.0.2.1"),
                port: 443,
            },
        ),
        (
            "http loopback",
            Action::HttpAddress {
                slot: "a",
                ip: ip("127.0.0.1"),
                port: 443,
            },
        ),
        (
            "http metadata",
            Action::HttpAddress {
                slot: "a",
                ip: ip("169.254.169.254"),
                port: 443,
            },
        ),
        (
            "foreman get",
            Action::Foreman {
                slot: "f",
                method: "GET",
                path: "/register?x",
            },
        ),
        (
            "foreman post",
            Action::Foreman {
                slot: "f",
                method: "POST",
                path: "/register",
            },
        ),
        (
            "foreman api",
            Action::Foreman {
                slot: "f",
                method: "GET",
                path: "/api/hosts",
            },
        ),
        (
            "foreman dots",
            Action::Foreman {
                slot: "f",
                method: "GET",
                path: "/register/%2e%2e/api",
            },
        ),
        (
            "load",
            Action::Store {
                slot: "s",
                write: false,
            },
        ),
        (
            "save",
            Action::Store {
                slot: "s",
                write: true,
            },
        ),
        (
            "use",
            Action::Secret {
                slot: "k",
                reveal: false,
            },
        ),
        (
            "reveal",
            Action::Secret {
                slot: "k",
                reveal: true,
            },
        ),
        (
            "call good",
            Action::Call {
                interface: "provider",
                callee: "good",
            },
        ),
        (
            "call evil",
            Action::Call {
                interface: "provider",
                callee: "evil",
            },
        ),
        (
            "fetch",
            Action::Download {
                slot: "d",
                url: "http://mirror/pub/x",
            },
        ),
        (
            "fetch address",
            Action::DownloadAddress {
                slot: "d",
                host: "mirror",
                ip: ip("192.0.2.1"),
                port: 80,
            },
        ),
        (
            "fetch loopback",
            Action::DownloadAddress {
                slot: "d",
                host: "mirror",
                ip: ip("127.0.0.1"),
                port: 80,
            },
        ),
        (
            "listen",
            Action::Listen {
                slot: "l",
                transport: Transport::Udp,
                addr: sock("0.0.0.0:67"),
            },
        ),
        (
            "answer",
            Action::DatagramSend {
                slot: "l",
                peer: sock("10.0.0.9:68"),
                heard: true,
            },
        ),
        (
            "unasked",
            Action::DatagramSend {
                slot: "l",
                peer: sock("192.0.2.1:68"),
                heard: false,
            },
        ),
        (
            "broadcast",
            Action::DatagramSend {
                slot: "l",
                peer: sock("255.255.255.255:68"),
                heard: true,
            },
        ),
        (
            "watch",
            Action::Watch {
                slot: "w",
                path: "/var/lib/leases",
            },
        ),
        (
            "probe",
            Action::Probe {
                slot: "p",
                ip: ip("192.0.2.1"),
            },
        ),
        (
            "link",
            Action::Link {
                slot: "i",
                interface: "eth0",
            },
        ),
        (
            "watch beside",
            Action::Watch {
                slot: "w",
                path: "/var/lib/leases~",
            },
        ),
        (
            "probe beside",
            Action::Probe {
                slot: "p",
                ip: ip("192.0.3.1"),
            },
        ),
        (
            "link beside",
            Action::Link {
                slot: "i",
                interface: "eth1",
            },
        ),
        (
            "send as another",
            Action::SendFrom {
                slot: "l",
                addr: sock("192.0.2.53:67"),
                link: false,
            },
        ),
        (
            "frame as another",
            Action::SendFrom {
                slot: "i",
                addr: sock("192.0.2.53:67"),
                link: true,
            },
        ),
        ("cookie", Action::ResponseHeader { name: "set-cookie" }),
    ]
}

/// A plugin that asks for everything the lines grant.
fn manifest() -> Manifest {
    let needs = [
        ("files", "root", "read-write"),
        ("files", "conf", "read"),
        ("files", "down", "read-write"),
        ("sockets", "s", ""),
        ("sockets", "l", ""),
        ("sockets", "m", ""),
        ("names", "n", ""),
        ("http", "a", ""),
        ("foreman", "f", ""),
        ("store", "s", "read-write"),
        ("secrets", "k", "reveal"),
        ("call", "provider", "provider"),
        ("downloads", "d", ""),
        ("listen", "l", ""),
        ("watch", "w", ""),
        ("probe", "p", ""),
        ("link", "i", ""),
    ];
    let need = |(capability, slot, access): (&str, &str, &str)| Need {
        capability: capability.to_owned(),
        slot: slot.to_owned(),
        access: access.to_owned(),
        reason: String::new(),
        required: false,
    };
    Manifest {
        name: "p".to_owned(),
        version: "1.0.0".to_owned(),
        summary: String::new(),
        mounts: Vec::new(),
        routes: Vec::new(),
        needs: needs.map(need).to_vec(),
        settings: Vec::new(),
        lifetime: Lifetime::Automatic,
    }
}

/// The slot a line is about. Lines that replace single values of one slot exclude each other.
fn slot(line: &str) -> &str {
    line.split(" = ")
        .next()
        .unwrap()
        .rsplitn(2, ".allow")
        .last()
        .unwrap()
}

/// Whether two lines can stand in one policy without one replacing the other: lists of one slot add up, the rest must be of
/// different slots.
fn agree(one: &str, other: &str) -> bool {
    let list = |line: &str| line.contains(".allow = ");
    let (first, second) = (slot(one), slot(other));
    let same = first == second
        || first.starts_with(&format!("{second}."))
        || second.starts_with(&format!("{first}."));
    !same || (list(one) && list(other))
}

fn guard(lines: &[usize], deny: Deny) -> Guard {
    let base = "plugin = \"p\"\n[files.down]\ndirectory = \"/srv/down\"\naccess = \"read-write\"\n";
    let mut policy = Policy::parse(Path::new("p.toml"), base).unwrap();
    for line in lines {
        policy = policy.with_line(LINES[*line].0).unwrap();
    }
    let resolution = policy.resolve(
        &manifest(),
        &HashMap::new(),
        &Limits::default(),
        &Deny::default(),
    );
    assert_eq!(resolution.problems, [], "{}", policy.text());
    let guard = Guard::new(&HostRules::new(deny), resolution.effective);
    let day = Duration::from_secs(600);
    guard.record_resolved(
        "ns.example.com",
        &[
            ip("192.0.2.9"),
            ip("10.0.0.1"),
            ip("127.0.0.1"),
            ip("169.254.169.254"),
        ],
        day,
    );
    guard
}

/// The model.
fn covered(lines: &[usize], action: &str) -> bool {
    lines.iter().any(|line| LINES[*line].1.contains(&action))
}

/// Any set of lines that agree with each other.
fn policies() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0..LINES.len(), 0..10).prop_map(|picked| {
        let mut lines: Vec<usize> = Vec::new();
        for line in picked {
            if lines
                .iter()
                .all(|own| *own != line && agree(LINES[*own].0, LINES[line].0))
            {
                lines.push(line);
            }
        }
        lines
    })
}

#[test]
fn each_line_covers_exactly_what_the_table_says() {
    let actions = actions();
    let names: Vec<_> = actions.iter().map(|(name, _)| *name).collect();
    for (line, (text, covers)) in LINES.iter().enumerate() {
        assert!(covers.iter().all(|name| names.contains(name)), "{text}");
        let guard = guard(&[line], Deny::default());
        for (name, action) in &actions {
            assert_eq!(
                guard.decide(action).is_allowed(),
                covers.contains(name),
                "{text}: {name}"
            );
        }
    }
}

/// Random policies and actions say nothing of a capability that is not among them.
#[test]
fn the_table_has_every_capability_granted_and_denied() {
    for capability in Capability::GRANTABLE {
        let of: Vec<_> = actions()
            .into_iter()
            .filter(|(_, action)| action.capability() == capability)
            .map(|(name, _)| name)
            .collect();
        let granted = |name: &&str| LINES.iter().any(|(_, covers)| covers.contains(name));
        assert!(
            of.iter().any(granted),
            "{capability}: nothing is ever granted"
        );
        assert!(
            of.len() > 1,
            "{capability}: only {of:?}, and nothing beside it"
        );
    }
}

/// What a denial says to people, for every kind of action: it is read more often than anything else here. `BULKHEAD_GOLDEN=write` writes it anew.
#[test]
fn denials_say_what_they_said() {
    let guard = guard(&[], Deny::default());
    let mut told = String::new();
    for (name, action) in actions() {
        let lesson = match guard.decide(&action) {
            super::Decision::Allow => "allowed without any grant".to_owned(),
            super::Decision::Deny(denial) => denial.lesson(),
        };
        told.push_str(&format!("# {name}\n{lesson}\n\n"));
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/grant/decide/denials.txt");
    if std::env::var_os("BULKHEAD_GOLDEN").is_some() {
        std::fs::write(&golden, &told).unwrap();
    }
    assert_eq!(told, std::fs::read_to_string(golden).unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn nothing_is_allowed_that_no_line_covers_and_nothing_denied_that_one_does(lines in policies()) {
        let guard = guard(&lines, Deny::default());
        for (name, action) in actions() {
            prop_assert_eq!(guard.decide(&action).is_allowed(), covered(&lines, name), "{}", name);
        }
    }

    #[test]
    fn adding_a_line_takes_nothing_away_and_removing_one_adds_nothing(lines in policies(), less in 0usize..10) {
        let mut fewer = lines.clone();
        if less < fewer.len() {
            fewer.remove(less);
        }
        let (more, fewer) = (guard(&lines, Deny::default()), guard(&fewer, Deny::default()));
        for (name, action) in actions() {
            prop_assert!(more.decide(&action).is_allowed() || !fewer.decide(&action).is_allowed(), "{}", name);
        }
    }

    #[test]
    fn the_operators_rules_win(lines in policies()) {
        let deny = Deny { networks: vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()], ..Deny::default() };
        let (open, closed) = (guard(&lines, Deny::default()), guard(&lines, deny));
        let network = ["tcp", "udp", "receive", "http address", "http loopback", "fetch address", "answer", "unasked", "broadcast", "probe"];
        for (name, action) in actions() {
            let reaches_out = network.iter().any(|word| name.starts_with(word));
            let want = open.decide(&action).is_allowed() && !reaches_out;
            prop_assert_eq!(closed.decide(&action).is_allowed(), want, "{}", name);
        }
    }
}
